/* Private to the report: what is read of runs and studies.
 *
 *     report
 *       set               a study, or all plain runs together
 *         column[]        "cell", "grid", "rule", ..., "final_accuracy", ..., "status"
 *         run[]           field[] by column, as text; moments; histograms; workers
 *
 * Fields are text, as in study.csv, and that text is what the table of all runs shows;
 * numbers for the charts are parsed from it. Memory is that of an arena: nothing is
 * freed one by one.
 */
#ifndef CLUSTER_REPORT_DATA_H
#define CLUSTER_REPORT_DATA_H

#include "cluster/report/report.h"
#include "cluster/report/text.h"

#include <stdbool.h>
#include <stddef.h>

#define REPORT_BINS 48

/* What a line of metrics.jsonl holds. The first three may be an x axis. */
enum quantity {
    AT_SECONDS,
    AT_EPOCH,
    AT_GRADIENTS,
    TEST_ACCURACY,
    TEST_LOSS,
    TRAINING_LOSS,
    LEARNING_RATE,
    THROUGHPUT,
    LAG,
    GAP,
    GRAD_NORM_SQ,
    QUANTITIES
};
struct quantity_info {
    const char *name;         /* in the page's JSON, and of a CSV's column */
    const char *path;         /* in the line */
    const char *title, *unit; /* "Training loss", "s"; unit "": a number */
    bool log, percent;        /* how the axis begins */
};
extern const struct quantity_info quantities[QUANTITIES];

/* A moment of a run; NaN: not measured. */
struct moment {
    double of[QUANTITIES];
};
/* Gives a moment what an earlier one has measured, that is left out for want of room, and
 * this one has not: accuracies are measured seldom, and none may get lost. */
void moment_carry(struct moment *to, const struct moment *left_out);

struct worker {
    double number, gradients, lag, gap;
    double lag_low, lag_high, gap_low, gap_high; /* a tenth is below, above; NaN */
};

struct histograms {
    double lag_edge[REPORT_BINS], gap_edge[REPORT_BINS]; /* lower edges */
    double lag[REPORT_BINS], gap[REPORT_BINS];
};

struct run {
    const char *folder;
    const char **field; /* by column of the set; NULL: empty */
    struct moment *moment;
    size_t moments;
    const struct histograms *histograms; /* NULL: none */
    struct worker *worker;
    size_t workers;
    double seconds;                                 /* of real time; NaN: not known */
    const char *command, *version, *host, *started; /* NULL: not known */
};

struct set {
    bool study;
    const char *folder, *name;
    const char *title, *about, *chart; /* NULL: the study does not say */
    const char *ini;                   /* the text of study.ini */
    double target;                     /* the accuracy that time_to_target is about */
    const char **column;
    size_t columns;
    size_t options, results; /* columns from `options` up to `results` are options */
    struct run *run;
    size_t runs;
};

/* ---- reading ------------------------------------------------------------- */

/* Notes that something could not be read. */
void report_complain(struct report *report, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* What is in a folder, but for hidden names: sorted, in the arena. Returns how many. */
size_t folder_names(struct arena *arena, const char *folder, const char ***ret);

/* Reads result.json, run.json and metrics.jsonl of run->folder. `fields`: all columns
 * are filled from them; otherwise only time_to_target, where another target is asked
 * for, and the status of a run that diverged. What cannot be read is a complaint. */
void run_read(struct report *report, struct set *set, struct run *run, bool fields);
/* The columns that run_read fills. */
void run_columns(struct report *report, struct set *set);
/* Takes optional columns out that are the same for all, or empty. */
void run_columns_tidy(struct report *report, struct set *set);

/* Reads study.ini, study.csv and the cells of set->folder. */
void study_folder_read(struct report *report, struct set *set);

/* ---- asking -------------------------------------------------------------- */

/* Index of a column; SIZE_MAX: there is none. */
size_t set_column(const struct set *set, const char *name);
/* "" where there is none. */
const char *run_field(const struct set *set, const struct run *run, const char *column);
double run_number(const struct set *set, const struct run *run, const char *column);
/* MISSING where the status is not one of those known. */
enum run_status run_status(const struct set *set, const struct run *run);
/* Has numbers to show: done, diverged or stopped. */
bool run_has_numbers(const struct set *set, const struct run *run);

#endif
