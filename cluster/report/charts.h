/* Private to the report: charts as JSON. A chart is built once; the page draws it, its
 * table and the terminal's are written from it, so that all show the same numbers.
 *
 *     chart   {id, title, note, kind, panels}
 *               kind "lines", "bars" (x is the line's name), "table" (not drawn: columns
 *               are measures), "course" (lines are runs of the page's list)
 *     panel   {title, x: axis, y: axis, lines}     axis {label, scale, percent, better}
 *               table: columns [{x, label, percent, better, brief}]; course: of, runs [index]
 *     line    {name, label, points}                name: what its colour stands for
 *     point   {x, y, low, high, n, seeds, out, state, note, text}
 *               state "mean" (y: of n runs of as many seeds), "range" (they are too far
 *               apart for a mean: y is null), or why no run counts: "diverged", "never"
 *     run     {name, status, columns: {seconds: [...], loss: [...], ...}}
 */
#ifndef CLUSTER_REPORT_CHARTS_H
#define CLUSTER_REPORT_CHARTS_H

#include "cluster/report/data.h"

#include <jansson.h>

/* ---- which runs, and what they are called -------------------------------- */

#define VIEW_COLUMNS 12
/* The runs of a chart: those of a set, or of one grid of it, that have numbers. */
struct view {
    struct arena *arena;
    const struct set *set;
    const char *grid; /* NULL: all */
    const struct run **run;
    size_t runs;
    size_t name[VIEW_COLUMNS], names;   /* columns that tell lines apart */
    size_t panel[VIEW_COLUMNS], panels; /* columns that tell panels apart */
};
void view_fill(struct view *ret, struct arena *arena, const struct set *set,
               const char *grid);
/* A view a grid, if `x` varies within one; otherwise one with all. Returns how many. */
size_t views_find(struct arena *arena, const struct set *set, const char *x,
                  struct view **ret);
/* Settles which columns tell lines and panels apart: those options that vary, but for
 * the seed, `x` and those in `except` (ends with NULL). The `extra` one (or NULL) makes
 * panels, as data, model and clock do. */
void view_settle(struct view *view, const char *x, const char *const *except,
                 const char *extra);
bool view_varies(const struct view *view, const char *column);
/* "dana-ga", "dana-ga, kappa 10"; "8 workers", "" if there is one panel only. */
const char *view_name(const struct view *view, const struct run *run);
const char *view_panel(const struct view *view, const struct run *run);
/* The largest number in a column; NaN: none. */
double view_most(const struct view *view, const char *column);
/* Keeps the runs with that. */
void view_keep_most(struct view *view, const char *column);

/* ---- building ------------------------------------------------------------ */

struct axis {
    const char *label, *scale; /* "linear", "log", "bins" */
    bool percent;
    int better; /* 1: more is better, -1: less, 0: neither */
};

struct sample {
    size_t panel, line;
    const char *choice; /* of these the best is taken, by its mean; "": no choice */
    const char *seed;
    double x, value; /* value NaN: not reached */
    bool percent;    /* the value is a share */
    enum run_status status;
};
struct names {
    const char **name;
    size_t count;
};
struct samples {
    struct arena *arena;
    struct names panels, lines;
    struct sample *sample;
    size_t count;
    int better;        /* 1: more is better, -1: less, 0: neither */
    const char *named; /* what `choice` is, for notes: "lr" */
    bool chosen;       /* set by samples_panels: there was something to choose */
};
void samples_add(struct samples *samples, const char *panel, const char *line,
                 const struct sample *sample);
/* Adds a panel for each one named, with its lines and their means. */
void samples_panels(struct samples *samples, json_t *chart, struct axis x,
                    struct axis y);
/* One point: of `count` samples. `best`: the highest mean of the panel, or NaN. */
json_t *samples_point(const struct samples *samples, const struct sample *sample,
                      size_t count, double best);

/* A chart at the end of the array; its id gets a number if it is taken. */
json_t *chart_add(struct arena *arena, json_t *charts, const char *kind, const char *id,
                  const char *title);
json_t *chart_panel_add(struct arena *arena, json_t *chart, const char *title,
                        struct axis x, struct axis y);
json_t *chart_line_add(struct arena *arena, json_t *panel, const char *name);
/* y, a share if `percent`, and its range, NaN: none; of one run. */
void chart_point_add(json_t *line, bool percent, double x, double y, double low,
                     double high);
/* Takes the last chart out again, if nothing is in it. */
void charts_drop_empty(json_t *charts);
json_t *json_number(double value); /* null if it is not finite */

/* ---- what there is to see ------------------------------------------------ */

/* Charts of a set at the end of `charts`, the one that the study asks for first; the
 * runs that they name at the end of `runs`, with their moments thinned to at most
 * `moments_max`. */
void charts_make(struct report *report, const struct set *set, json_t *charts,
                 json_t *runs);
/* Private to that: each adds its chart, if the data has it. */
void charts_course(struct arena *arena, const struct set *set, json_t *charts,
                   json_t *runs);
void charts_convergence(struct arena *arena, const struct set *set, json_t *charts);
void charts_histograms(struct arena *arena, const struct set *set, json_t *charts);
void charts_workers(struct arena *arena, const struct set *set, json_t *charts);
void charts_means(struct arena *arena, const struct set *set, json_t *charts);

#endif
