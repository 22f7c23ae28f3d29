/* What a run leaves behind in its folder:
 *
 *     result.json        how it went, written at the end: to a temporary file, synced,
 * renamed metrics.jsonl      a line a second while it goes model.safetensors  the
 * parameters, written by the master log/               what the processes had to say,
 * if anything
 *
 * Files of an earlier run are kept as result.previous.json and so on. A number that is
 * not finite is written as null.
 */
#ifndef CLUSTER_RESULTS_H
#define CLUSTER_RESULTS_H

#include "cluster/options.h"
#include "cluster/task.h"
#include "engine/gapless.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define RESULTS_PATH_MAX 1024

struct results {
    char folder[RESULTS_PATH_MAX];
    FILE *metrics;
    bool failed; /* a write failed: said once in `error` */
    struct gapless_error error;
};

/* A moment of a run, for a line of metrics.jsonl. */
struct moment {
    double elapsed, updates_per_second, epoch;
    double accuracy, test_loss; /* as last measured; NaN: not yet */
    const struct gapless_stats *stats;
};

/* A run when it is over. */
struct outcome {
    const struct settings *settings;
    const struct task *task;
    const struct gapless_stats *stats;
    const struct gapless_worker_stats *worker; /* by number */
    uint32_t worker_count, workers_lost;
    double accuracy, test_loss; /* of the final parameters; NaN: unknown */
    double parameters_rms;
    bool stopped;        /* before its end, by a person */
    const char *failure; /* NULL: none */
    int argc;
    char **argv;
};

/* Makes the folder, checks that it can be written and has room for `parameters`: before
 * anything is computed. */
int results_check(const char *folder, uint64_t parameters, struct gapless_error *error);
/* Renames a file of the folder, if there is one, to `previous`, over an older one. */
int results_set_aside(const char *folder, const char *name, const char *previous,
                      struct gapless_error *error);
/* Sets result.json and metrics.jsonl of an earlier run aside and opens metrics.jsonl.
 */
int results_open(const char *folder, struct results *ret, struct gapless_error *error);
/* Adds a line, flushed. On failure `failed` is set and nothing more is tried. */
void results_metrics(struct results *results, const struct moment *moment);
/* The same line without its end: malloc'ed; NULL: no memory. */
char *results_moment(const struct moment *moment);
/* Writes result.json. */
int results_write(struct results *results, const struct outcome *outcome,
                  struct gapless_error *error);
void results_close(struct results *results);

/* Makes a folder and those above it. */
int results_folder(const char *path, struct gapless_error *error);
/* Writes a whole file, by way of a temporary one in the same folder. */
int results_file(const char *path, const void *bytes, size_t count,
                 struct gapless_error *error);

#endif
