/* A study: a grid of simulated runs, written down in an INI file.
 *
 *     FILE.ini ── study_read ──> struct study ── study_plan ──> struct plan
 *     [study] [run] [grid]       names, lists,                  a trial a run: its
 *                                lines they stand in            options and its folder
 *                                                                      │
 *         study_check: data sets and models, before anything runs      │
 *         study_run:   a process a trial, a few at a time  <────────────┘
 *                                │
 *     DIR/cells/NAME/{cell.txt, result.json, metrics.jsonl, run.json, ...}
 *                                │
 *         study_csv: DIR/study.csv      report: the page, and what is printed at the end
 *
 * A trial is done when its result.json is there, whole, and of the options that the
 * study now gives it (cell.txt). So a study goes on where it was stopped, however that
 * happened, and one that was changed runs again only what changed.
 */
#ifndef CLUSTER_STUDY_H
#define CLUSTER_STUDY_H

#include "cluster/launch/launch.h"
#include "cluster/options/options.h"
#include "cluster/report/report.h"
#include "cluster/terminal/terminal.h"
#include <gapless/gapless.h>

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* ---- the file ------------------------------------------------------------ */

#define STUDY_FILE_MAX (1u << 20) /* bytes of the INI file */
#define STUDY_NAME_MAX 64
#define STUDY_TITLE_MAX 160
#define STUDY_TARGET 0.85 /* accuracy, where the study names none */

/* What a report of the study shows first. */
enum study_chart {
    CHART_TABLE,
    CHART_ACCURACY_WORKERS,
    CHART_LOSS_WORKERS,
    CHART_ACCURACY_LR,
    CHART_TIME_TO_TARGET,
    CHART_GAP_COURSE,
    CHART_CONVERGENCE,
    CHART_SCALE
};

struct study_value {
    char *text;
    unsigned line; /* of the file, from 1 */
};

/* NAME = VALUE ...; in [study] and [run] one value, the whole text. */
struct study_option {
    char *name;
    unsigned line;
    struct study_value *value;
    size_t count;
    bool all; /* the rules, of which the file says 'all' */
};

struct study_options {
    struct study_option *option;
    size_t count;
};

struct study_grid {
    char name[STUDY_NAME_MAX]; /* "grid" where it has none */
    unsigned line;
    struct study_options options;
};

struct study {
    char path[512]; /* of the file, as it was given; for messages */
    char name[STUDY_NAME_MAX];
    char title[STUDY_TITLE_MAX];
    const char *about; /* "": none */
    double target;
    uint32_t jobs; /* 0: not said */
    enum study_chart chart;
    struct study_options head, run; /* [study], [run] */
    struct study_grid *grid;        /* at least one */
    size_t grids;
    char *left_out; /* lines on rules that 'all' leaves out, and why; NULL: none */
};

/* Reads and checks a study's file. A line that begins with a blank goes on with the
 * value of the line before; values of a grid are separated by blanks, and one that has
 * blanks in it stands in "quotes". `rule = all` becomes the list of all rules
 * that the other options admit (without the elastic ones, where local-steps is above 0). Every
 * option and value has been through the reader that the command line uses.
 * GAPLESS_INVALID: the text begins with FILE:LINE; GAPLESS_IO, GAPLESS_NO_MEMORY. Free
 * with study_close. */
int study_read(const char *path, struct study *ret, struct gapless_error *error);
/* The same from a stream; `path` is only for messages and for the name. */
int study_read_stream(FILE *stream, const char *path, struct study *ret,
                      struct gapless_error *error);
void study_close(struct study *study);
/* Private to reading: checks every value and sets what [study] says. */
int study_resolve(struct study *study, struct gapless_error *error);
/* "accuracy-workers". */
const char *study_chart_name(enum study_chart chart);

/* ---- the plan ------------------------------------------------------------ */

#define PLAN_TRIALS_MAX 100000u
#define TRIAL_NAME_MAX 121 /* bytes of a folder's name, with its end */

enum trial_state {
    TRIAL_MISSING,
    TRIAL_RUNNING,
    TRIAL_DONE,
    TRIAL_FAILED
};

struct trial {
    char *name; /* of its folder: GRID-KEY_VALUE-... */
    size_t grid;
    const char **value; /* by column; NULL: not given and no default */
    double work;        /* how long it will take, in a unit that all trials share */
    int model;          /* which of the checked ones; -1: not checked */
    enum trial_state state;
    struct run_result result; /* of one that is done */
};

struct plan {
    const struct study *study;
    const char **column; /* options: always those of plan_always, then all given */
    size_t columns;
    struct trial *trial; /* in the order of the grids */
    size_t trials;
};

/* Multiplies the lists out: in a grid later keys vary faster, `seed` fastest. The study
 * must outlive the plan. GAPLESS_INVALID: too many trials, or two that would have the
 * same folder. */
int plan_make(const struct study *study, struct plan *ret, struct gapless_error *error);
void plan_close(struct plan *plan);
/* The column of an option, or -1. */
int plan_column(const struct plan *plan, const char *option);
/* The value of an option for a trial, or NULL. */
const char *plan_value(const struct plan *plan, const struct trial *trial,
                       const char *option);
/* The line in which this value stands, or 0: it is a default. */
unsigned plan_line(const struct plan *plan, const struct trial *trial,
                   const char *option);
/* Every option of a trial's run, as for `gapless simulate`. False (cannot happen
 * with a plan of plan_make): a value is not valid. */
bool plan_settings(const struct plan *plan, const struct trial *trial,
                   struct settings *ret);
/* What is written to cell.txt: an option a line; malloc'ed; NULL: no memory. */
char *plan_text(const struct plan *plan, const struct trial *trial);

/* ---- what the trials need ------------------------------------------------ */

#define CHECK_DATA_MAX 64 /* each keeps a descriptor and its memory */

struct study_model;

/* A data set in memory that children inherit, and the models that are trained on it. */
struct check {
    struct study_model *model;
    size_t models;
    struct {
        const char *name;
        int fd;
    } data[CHECK_DATA_MAX];
    size_t datas;
};

/* Loads each data set that a trial which is not done needs, and checks that each model
 * fits its data; fills the trials' `work` and `model`. data_dir may be NULL. The text of
 * an error says which and what to do. */
int check_open(struct plan *plan, const char *data_dir, struct check *ret,
               struct gapless_error *error);
/* The descriptor of a trial's data set, or -1: it needs none. */
int check_data_fd(const struct check *check, const struct trial *trial);
void check_close(struct check *check);

/* ---- the trials' folders ------------------------------------------------- */

/* DIR/cells/NAME and, if `file` is not NULL, a file in it. False: too long. */
bool trial_path(const char *folder, const struct trial *trial, const char *file,
                char *ret, size_t max);
/* Looks whether a trial is done; if so, reads its numbers. Sets state and numbers. */
void trial_look(const struct plan *plan, const char *folder, struct trial *trial,
                double target);
/* Removes what an earlier run left and writes cell.txt. */
int trial_prepare(const struct plan *plan, const char *folder,
                  const struct trial *trial, struct gapless_error *error);
/* How much of a trial that is running is done, 0..1, by its metrics.jsonl. */
double trial_progress(const struct plan *plan, const char *folder,
                      const struct trial *trial);

/* Writes DIR/study.csv, a row a cell. */
int study_csv(const struct plan *plan, const char *folder, struct gapless_error *error);

/* ---- running ------------------------------------------------------------- */

struct study_show {
    struct terminal terminal; /* fd -1: lines instead of a bar */
    bool quiet;
    bool drawn;
    double line_due, line_share; /* of the next line in a log */
};

struct study_counts {
    size_t trials, done, failed, running;
    double share;   /* of all the work */
    double seconds; /* left; NaN: unknown */
};

/* Draws the bar, or prints a line if it is time. */
void show_progress(struct study_show *show, const struct study_counts *counts,
                   double now);
/* Prints a line that stays, on stderr. */
void show_note(struct study_show *show, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Ends the bar's line. */
void show_leave(struct study_show *show);

struct study_run {
    struct plan *plan;
    const struct check *check;
    const char *folder;
    double target;
    uint32_t jobs;
    struct study_show show;
    sigset_t signals; /* blocked; waited for here */
    int signal;       /* that ended it, or 0 */
};

/* Runs every trial that is not done, `jobs` at a time, and keeps study.csv up to date. A
 * trial that fails is reported and the others go on. GAPLESS_STOPPED: `signal` is set. */
int study_run(struct study_run *run, struct gapless_error *error);

#endif
