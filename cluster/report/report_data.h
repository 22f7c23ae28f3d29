/* Private to the report: what is read of runs and studies.
 *
 *     report
 *       set               a study, or all plain runs together
 *         column[]        "cell", "grid", "rule", ..., "final_accuracy", ..., "status"
 *         run[]           field[] by column, as text; curve; histograms
 *
 * Fields are text, as in study.csv, and that text is what tables show; numbers for the
 * curves are parsed from it. Memory is that of an arena: nothing is freed one by one.
 */
#ifndef CLUSTER_REPORT_DATA_H
#define CLUSTER_REPORT_DATA_H

#include "cluster/report/html.h"
#include <gapless/gapless.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REPORT_BINS 48
#define REPORT_TARGET 0.85 /* where neither the study nor the caller says */

/* ---- memory -------------------------------------------------------------- */

struct report_arena {
    struct report_block *last;
    bool failed; /* there was no memory: all that follows is not complete */
};
/* Zeroed; NULL: no memory. */
void *arena_take(struct report_arena *arena, size_t bytes);
/* An array of `count` elements gets room for one more, zeroed; it may move. NULL: no
 * memory. */
void *arena_grow(struct report_arena *arena, const void *items, size_t count,
                 size_t bytes);
/* Copies; "" where there is no memory. */
const char *arena_copy(struct report_arena *arena, const char *text);
const char *arena_format(struct report_arena *arena, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void arena_free(struct report_arena *arena);

/* ---- what was read ------------------------------------------------------- */

/* A line of metrics.jsonl; NaN: not measured. */
struct report_moment {
    double elapsed, epoch, gradients, updates;
    double accuracy, test_loss, loss, lag, gap, grad_norm_sq;
};

struct report_worker {
    double worker;
    float lag[REPORT_BINS], gap[REPORT_BINS];
};

struct report_histograms {
    double lag_edge[REPORT_BINS], gap_edge[REPORT_BINS];
    double lag[REPORT_BINS], gap[REPORT_BINS];
    struct report_worker *worker;
    size_t workers;
};

struct report_run {
    const char *folder;
    const char **field; /* by column of the set; NULL: empty */
    struct report_moment *moment;
    size_t moments;
    struct report_histograms *histograms; /* NULL: none */
    double updates_per_second, real_seconds;
    const char *command, *version, *host, *started; /* NULL: not known */
    size_t place; /* in the set: the order of the grid */
};

struct report_set {
    bool study;
    const char *folder, *name;
    const char *title, *about, *chart; /* NULL: the study does not say */
    const char *ini;                   /* the text of study.ini */
    double target;                     /* 0: the study does not say */
    const char **column;
    size_t columns;
    size_t options, results; /* columns from `options` up to `results` are options */
    struct report_run *run;
    size_t runs;
};

struct report {
    struct report_arena arena;
    double target; /* as asked; 0: not */
    struct report_set *set;
    size_t sets;
    const char **complaint; /* files that could not be read, and why */
    size_t complaints, complaints_more;
    size_t loaded; /* runs so far: of very many, less is kept of each */
};

/* ---- reading ------------------------------------------------------------- */

/* Finds the runs in `dirs` and reads them. */
int report_load(struct report *report, const char *const *dirs, size_t count,
                struct gapless_error *error);
void report_free(struct report *report);
/* Notes that something could not be read. */
void report_complain(struct report *report, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* A whole regular file of at most `max` bytes; malloc'ed, with '\0' behind it. `why`
 * (200 bytes) says what is wrong. GAPLESS_MISSING: there is none. */
int report_read(const char *path, size_t max, char **ret, size_t *size, char *reason);
#define REPORT_WHY 200

/* Reads result.json, run.json and metrics.jsonl of run->folder. `fields`: the columns
 * are also filled from them (where no CSV has them). Never fails: what cannot be read
 * is a complaint. */
void report_run_read(struct report *report, struct report_set *set,
                     struct report_run *run, bool fields);
/* The columns that report_run_read fills. */
void report_run_columns(struct report *report, struct report_set *set);
/* metrics.jsonl of the run; returns the seconds at which the target was met, NaN:
 * never. */
double report_metrics_read(struct report *report, const struct report_set *set,
                           struct report_run *run);
/* Takes optional columns out that are the same for all, or empty. */
void report_run_tidy(struct report *report, struct report_set *set);

/* Reads study.ini, study.csv and the cells of set->folder. */
void report_study_read(struct report *report, struct report_set *set);

/* A row of RFC 4180 CSV, from *at on; moves *at behind it. Returns the fields, which
 * lie in the arena; 0 at the end. */
size_t report_csv_row(struct report_arena *arena, const char **at, const char ***ret);

/* ---- asking -------------------------------------------------------------- */

/* The target that holds for a set. */
double report_target(const struct report *report, const struct report_set *set);
/* Index of a column; SIZE_MAX: there is none. */
size_t report_column(const struct report_set *set, const char *name);
/* "" where there is none. */
const char *report_field(const struct report_set *set, const struct report_run *run,
                         const char *column);
double report_number(const struct report_set *set, const struct report_run *run,
                     const char *column);
bool report_done(const struct report_set *set, const struct report_run *run);
/* The number that is the whole text; NaN otherwise. */
double report_parse(const char *text);
/* Numbers by value, other texts by letter with the numbers in them by value. */
int report_compare(const char *a, const char *b);

/* ---- writing ------------------------------------------------------------- */

/* All runs of all sets, as CSV. */
void report_csv(const struct report *report, struct html *out);
int report_page_write(struct report *report, const char *page_path, const char *title,
                      struct gapless_error *error);
/* Where the page goes; see report_write. */
int report_out_path(const char *first, const char *out, char *ret, size_t max,
                    struct gapless_error *error);

#endif
