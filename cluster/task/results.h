/* What a run leaves behind in its folder:
 *
 *     result.json         how it went: written at the end, to a temporary file, synced,
 *                         renamed
 *     metrics.jsonl       a line a second while it goes; of a simulation at fixed points
 *                         (docs/data.md says what is in it)
 *     model.safetensors   the parameters, written by the master
 *     run.json            of a simulation: the command, and what it cost in real time
 *     log/                what the processes had to say, if anything
 *
 * Files of an earlier run are kept as result.previous.json and so on. A number that is
 * not finite is written as null. Of a simulation all but run.json is the same, byte for
 * byte, for the same seed and settings.
 */
#ifndef CLUSTER_RESULTS_H
#define CLUSTER_RESULTS_H

#include "cluster/options/options.h"
#include "cluster/task/task.h"
#include <gapless/gapless.h>

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define RESULTS_PATH_MAX 1024

struct results {
    char folder[RESULTS_PATH_MAX];
    const char *id; /* the caller's; of the run, in all its files */
    bool id_written;
    FILE *metrics;
    bool failed; /* a write failed: said once in `error` */
    struct gapless_error error;
};

/* A moment of a run, for a line of metrics.jsonl. What was not measured since the line
 * before is NaN, and null in the file: no line repeats what an earlier one has said. */
struct metrics_sample {
    double elapsed, epoch;
    double updates_per_second;  /* lately */
    double accuracy, test_loss; /* of a measurement that ended since the line before */
    const struct gapless_stats *stats; /* its summaries are of the whole run so far */
    double lag_mean, gap_rms_mean;     /* since the line before; see results_since */
    double grad_norm_sq;               /* of a test function; NaN: it is none */
};

/* What only a simulation has. */
struct simulated {
    const char *clock;                          /* as given; "replay" */
    double virtual_seconds, batch_time;         /* s */
    double grad_norm_sq_min, grad_norm_sq_last; /* NaN: not a test function */
    uint64_t master_bytes, table_bytes, worker_bytes;
};

/* A run when it is over. */
struct outcome {
    const struct settings *settings;
    const struct task *task;
    const struct gapless_stats *stats;
    const struct gapless_worker_stats *worker; /* by number */
    uint32_t worker_count, workers_lost;
    uint32_t restarts; /* of the master, and the gradients that it lost by them */
    uint64_t gradients_lost;
    double accuracy, test_loss; /* of the final parameters; NaN: unknown */
    double parameters_rms;
    const double *tensor_gates; /* mean gate of each tensor; NULL: not known */
    bool stopped;               /* before its end, by a person */
    const char *failure;        /* NULL: none */
    int argc;
    char **argv;
    const struct simulated *simulated; /* NULL: of processes, as they are */
};

/* What may differ between two equal simulations. */
struct run_cost {
    int argc;
    char **argv;
    const char *host, *started; /* "2026-01-01T12:00:00Z" */
    uint32_t threads;
    double real_seconds, gradient_seconds, master_seconds, evaluate_seconds;
    /* An update's at the master, over the second half of the run: before that it takes
     * memory in use that was never touched, and lets workers in. */
    double master_us;
    uint64_t peak_rss_bytes, buffer_bytes;
};

/* Prints how it went: accuracy, loss, updates, lag, gap, what was lost. */
void results_print(const struct outcome *outcome, FILE *out);
/* What each worker that is, or was, there does, a line each. */
void results_say_workers(const char *command, const struct gapless_worker_stats *worker,
                         uint32_t count, FILE *out);

/* Makes the folder, checks that it can be written and has room for `parameters`: before
 * anything is computed. */
int results_check(const char *folder, uint64_t parameters, struct gapless_error *error);
/* How much of a folder's path is the first folder that is not there yet; 0: all are. */
size_t results_missing(const char *folder);
/* Removes the empty ones of the folders that were made since: `missing` is what that gave.
 * A run that did not begin leaves nothing. */
void results_unmake(const char *folder, size_t missing);
/* Renames a file of the folder, if there is one, to `previous`, over an older one. */
int results_set_aside(const char *folder, const char *name, const char *previous,
                      struct gapless_error *error);
/* Sets result.json, run.json and metrics.jsonl of an earlier run aside and opens
 * metrics.jsonl, whose first line has the run's id. */
int results_open(const char *folder, const char *id, struct results *ret,
                 struct gapless_error *error);
/* Sets the means since the line before, whose statistics are `before`; of the first line
 * they are all 0. */
void results_since(struct metrics_sample *sample, const struct gapless_stats *before);
/* Adds a line, flushed. On failure `failed` is set and nothing more is tried. */
void results_metrics(struct results *results, const struct metrics_sample *sample);
/* The same line without its end: malloc'ed; NULL: no memory. */
char *results_sample(const struct metrics_sample *sample);
/* Writes result.json. */
int results_write(struct results *results, const struct outcome *outcome,
                  struct gapless_error *error);
/* Writes run.json. */
int results_cost(struct results *results, const struct run_cost *cost,
                 struct gapless_error *error);
void results_close(struct results *results);

/* FOLDER/NAME. GAPLESS_INVALID: too long. */
int results_path(const char *folder, const char *name, char ret[RESULTS_PATH_MAX],
                 struct gapless_error *error);
/* The folder of a run: `out`, or runs/DATE-TIME-RULE where it is NULL. */
void results_choose(const char *out, const char *rule, char ret[RESULTS_PATH_MAX]);
/* Makes a folder and those above it. */
int results_folder(const char *path, struct gapless_error *error);
/* Writes a whole file, by way of a temporary one in the same folder. GAPLESS_INVALID: what
 * is there is no regular file; a rename would put a file in the place of a device. */
int results_file(const char *path, const void *bytes, size_t count,
                 struct gapless_error *error);

#endif
