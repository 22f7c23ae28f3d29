/* Private to the report: a chart is built once, and then drawn as SVG, written as a
 * table and as data for gnuplot, so that the three show the same numbers.
 *
 *     runs -> samples (panel, line, x, y) -> chart: panels of lines of points, means
 *                                            and ranges over seeds
 */
#ifndef CLUSTER_REPORT_CHART_H
#define CLUSTER_REPORT_CHART_H

#include "cluster/report/report_data.h"
#include "cluster/report/svg.h"

enum chart_kind {
    CHART_LINES,
    CHART_DOTS,
    CHART_STRIPS
};

struct chart_line {
    const char *name;
    const char *label; /* what is shown; NULL: the name */
    int style;
    struct svg_point *point;
    size_t points;
    double *count; /* CHART_STRIPS: SVG_BINS counts, in place of points */
};

struct chart_panel {
    const char *title;
    struct svg_axis x, y;
    struct chart_line *line;
    size_t lines;
    const double *edge; /* CHART_STRIPS: SVG_BINS lower edges */
    bool zoom;          /* shows again what another panel shows: no table, no data */
};

struct chart {
    enum chart_kind kind;
    const char *id, *title, *note;
    const char *unit; /* what the points are: a table's caption */
    struct chart_panel *panel;
    size_t panels;
    bool small; /* many panels: smaller ones */
};

/* ---- colours ------------------------------------------------------------- */

/* Which rules are coloured, all over the page; style i is name[i]. */
struct styles {
    const char *name[SVG_STYLES];
    size_t count, rules; /* rules: how many there are */
};
void styles_choose(struct styles *ret, struct report_arena *arena,
                   const struct report_set *set);
/* Gives every line its style; sorts nothing. */
void styles_apply(const struct styles *styles, struct chart *chart);

/* ---- which runs, and what they are called -------------------------------- */

#define SCOPE_COLUMNS 12
/* The runs of a chart: a study, or one grid of it. */
struct scope {
    const struct report_set *set;
    const char *grid; /* NULL: all */
    const struct report_run **run;
    size_t runs;
    size_t name[SCOPE_COLUMNS], names;   /* columns that tell lines apart */
    size_t panel[SCOPE_COLUMNS], panels; /* columns that tell panels apart */
};
/* The done runs of a set, or of one grid. */
void scope_fill(struct scope *ret, struct report_arena *arena,
                const struct report_set *set, const char *grid);
/* A scope a grid, if `x` varies within one; otherwise one with all. Returns how
 * many. */
size_t scopes_find(struct report_arena *arena, const struct report_set *set,
                   const char *x, struct scope **ret);
/* Settles which columns tell lines and panels apart. `x` and those in `except` (ends
 * with NULL) do not; the `extra` one (or NULL) makes panels. */
void scope_settle(struct scope *scope, const char *x, const char *const *except,
                  const char *extra);
bool scope_varies(const struct scope *scope, const char *column);
/* "dana-ga", "dana-ga, kappa 10"; "8 workers", "" if there is one panel only. */
const char *scope_name(struct report_arena *arena, const struct scope *scope,
                       const struct report_run *run);
const char *scope_panel(struct report_arena *arena, const struct scope *scope,
                        const struct report_run *run);
/* The largest number of workers; NaN: not known. */
double scope_workers(const struct scope *scope);

/* ---- building ------------------------------------------------------------ */

struct sample {
    const char *panel, *line;
    const char *choice; /* of these the best is taken, by its mean; NULL: no choice */
    double x, y;
};
struct samples {
    struct report_arena *arena;
    struct sample *sample;
    size_t count;
    int better;        /* 1: more is better, -1: less */
    const char *named; /* what `choice` is, for notes: "lr" */
    bool chosen;       /* set by samples_panels: there was something to choose */
};
void samples_add(struct samples *samples, const char *panel, const char *line,
                 const char *choice, double x, double y);
/* Adds a panel for each one named, with their lines and the means. Lines are sorted by
 * their last point, the best first. */
void samples_panels(struct samples *samples, struct chart *chart, struct svg_axis x,
                    struct svg_axis y);

struct charts {
    struct report_arena *arena;
    struct chart *chart;
    size_t count;
};
/* A chart to be filled; `id` gets a number if it is taken. NULL: no memory. */
struct chart *charts_add(struct charts *charts, enum chart_kind kind, const char *id,
                         const char *title);
struct chart_panel *chart_panel_add(struct report_arena *arena, struct chart *chart,
                                    const char *title);
struct chart_line *chart_line_add(struct report_arena *arena, struct chart_panel *panel,
                                  const char *name);
void chart_point_add(struct report_arena *arena, struct chart_line *line,
                     struct svg_point point);
/* The panels from `first` on are 2 * `half`: the two halves come to lie side by side.
 * Nothing is done if they are not this many. */
void chart_interleave(struct report_arena *arena, struct chart *chart, size_t first,
                      size_t half);
/* Takes the last chart out again, if nothing is in it. */
void charts_drop_empty(struct charts *charts);

/* ---- what there is to see ------------------------------------------------ */

/* Each adds its charts for a set, if the data has it. */
void charts_accuracy_workers(struct charts *charts, const struct report_set *set);
void charts_accuracy_lr(struct charts *charts, const struct report_set *set);
void charts_time_to_target(struct charts *charts, const struct report_set *set,
                           double target);
void charts_scale(struct charts *charts, const struct report_set *set);
void charts_speed(struct charts *charts, const struct report_set *set);
void charts_gap_course(struct charts *charts, const struct report_set *set);
void charts_convergence(struct charts *charts, const struct report_set *set);
void charts_course(struct charts *charts, const struct report_set *set);
void charts_strips(struct charts *charts, const struct report_set *set);

/* ---- writing ------------------------------------------------------------- */

void chart_html(struct html *out, const struct chart *chart);
/* The table of a panel's numbers. */
void chart_table(struct html *out, const struct chart *chart,
                 const struct chart_panel *panel);
void chart_data(struct html *out, const struct chart *chart);
void chart_gnuplot(struct html *out, const struct chart *chart);

/* ---- parts of the page --------------------------------------------------- */

extern const char *const report_style[]; /* CSS; ends with NULL */
/* `suffix`: of the ids, "" or "-2", where a page has several sets. */
void page_facts(struct html *out, const struct report_set *set);
void page_summary(struct html *out, const struct report_set *set, const char *suffix);
void page_runs(struct html *out, const struct report_set *set, const char *suffix);
void page_commands(struct html *out, const struct report_set *set, const char *suffix);
/* The charts of a set in the order they are shown, with their colours. */
void charts_make(struct charts *charts, const struct report *report,
                 const struct report_set *set);

#endif
