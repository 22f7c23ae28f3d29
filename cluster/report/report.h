/* A page about runs: charts, tables and the exact commands, in one HTML file that needs
 * no network; where a browser runs no script, its tables have every number.
 *
 *     DIR: a run's folder,     +-----------+     report.html      the page
 *     a study's folder, or --> |  report   | --> report.csv       a row a run
 *     one that holds such      +-----------+     tables           on a terminal
 *
 *     report_load ──> struct report ──> report_page, report_csv, report_tables
 *
 * The files that are read are not trusted: one that is cut off, wrong or too large is
 * named in the page, and its run is left out of the charts.
 */
#ifndef CLUSTER_REPORT_REPORT_H
#define CLUSTER_REPORT_REPORT_H

#include "cluster/report/text.h"
#include <gapless/gapless.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* ---- one run ------------------------------------------------------------- */

enum run_status {
    RUN_MISSING, /* it was not run, or left no result */
    RUN_DONE,
    RUN_DIVERGED, /* to its end, but its loss is not finite, or far above its start */
    RUN_STOPPED,  /* by a person */
    RUN_FAILED
};
/* "done": the last column of study.csv. */
const char *run_status_name(enum run_status status);

/* Its numbers: the columns of study.csv behind the options. */
#define RUN_NUMBERS 17
extern const char *const run_number_names[RUN_NUMBERS];

struct run_result {
    enum run_status status;
    double number[RUN_NUMBERS]; /* NaN: unknown */
    bool ended_early; /* RUN_DIVERGED: the run found it itself, and ended there */
};
/* Reads them from a run's folder; `target`: the accuracy that time_to_target counts up
 * to. Never fails: what cannot be read is MISSING. */
void run_result_read(const char *folder, double target, struct run_result *ret);

/* ---- many runs ----------------------------------------------------------- */

#define REPORT_TARGET 0.85 /* where neither the study nor the caller says */

struct report {
    struct arena arena;
    double target; /* as asked; 0: not */
    struct set *set;
    size_t sets;
    const char **complaint; /* files that could not be read, and why */
    size_t complaints, complaints_more;
    size_t loaded; /* runs so far: of very many, less is kept of each */
};

/* Finds the runs in `dirs` and reads them. report->target may be set before.
 * GAPLESS_MISSING: a DIR is not there, or holds no run. Files that cannot be read are no
 * failure as long as one run is found. report_free() in any case. */
int report_load(struct report *report, const char *const *dirs, size_t count,
                struct gapless_error *error);
void report_free(struct report *report);
size_t report_runs(const struct report *report);

/* Where the page goes: `out`, a file or a folder to put report.html into; NULL:
 * report.html in `first`. Makes the folder. */
int report_out_path(const char *first, const char *out, char *ret, size_t max,
                    struct gapless_error *error);
/* Writes the page, and report.csv beside it. `title` NULL: that of the study, or the
 * folder's name. GAPLESS_IO: it cannot be written. */
int report_page(struct report *report, const char *path, const char *title,
                struct gapless_error *error);
/* The page alone. */
void report_print(struct report *report, const char *title, FILE *out);
/* All runs of all sets, as CSV (RFC 4180). */
void report_csv(const struct report *report, FILE *out);
/* The tables of the study's own chart, for a terminal; `color`: the best of each column
 * is green, too. */
void report_tables(struct report *report, bool color, FILE *out);

#endif
