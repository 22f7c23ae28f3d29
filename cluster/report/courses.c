/* The charts of how runs go: quantities over time, the norm of the gradient over the
 * length of the run, and how lag and gap are spread over gradients and workers. */
#include "cluster/report/charts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ROWS_MAX 8000u /* moments of all runs of a page, about */
#define ROWS_LEAST 40u /* of a run */
#define ROWS_MOST 600u
#define RUNS_MAX 64u  /* with a course */
#define PLACES_MAX 4u /* numbers of workers that have a panel each */
#define LINE_MAX_POINTS 100u

/* ---- the runs that are shown --------------------------------------------- */

struct shown {
    const struct run *run;
    const char *name, *place;
    size_t index; /* in the page's list; SIZE_MAX: not yet */
};

/* Does run a rather stand for its name than run b, which comes before it? Of several
 * learning rates the most accurate does; otherwise the first, but one that is sound. */
static bool stands_for(const struct set *set, const struct run *a, const struct run *b,
                       bool tuned)
{
    bool sound = run_status(set, a) == RUN_DONE, other = run_status(set, b) == RUN_DONE;

    if (sound != other)
        return sound;
    return tuned &&
           run_number(set, a, "final_accuracy") > run_number(set, b, "final_accuracy");
}

/* All plain runs, by their folders; of a study a run for each name and number of
 * workers, of the longest runs. */
static size_t shown_find(struct arena *arena, const struct set *set, struct shown **ret,
                         bool *tuned)
{
    static const char *const rates[] = {"lr", NULL};
    struct shown *shown;
    struct view view;
    size_t count = 0;

    view_fill(&view, arena, set, NULL);
    if (set->study)
        view_keep_most(&view, "epochs");
    *tuned = set->study && view_varies(&view, "lr");
    view_settle(&view, "", *tuned ? rates : NULL, "workers");
    shown = arena_take(arena, (view.runs + 1) * sizeof *shown);
    for (size_t i = 0; shown != NULL && i < view.runs; i++) {
        const struct run *run = view.run[i];
        const char *place = set->study ? view_panel(&view, run) : "";
        const char *name =
            set->study ? view_name(&view, run) : run_field(set, run, "cell");
        size_t k = 0;

        if (!set->study)
            k = count;
        while (k < count &&
               (strcmp(shown[k].name, name) != 0 || strcmp(shown[k].place, place) != 0))
            k++;
        if (k == count)
            shown[count++] = (struct shown){run, name, place, SIZE_MAX};
        else if (stands_for(set, run, shown[k].run, *tuned))
            shown[k].run = run;
    }
    *ret = shown;
    return shown != NULL ? count : 0;
}

/* Keeps the runs of the `places` largest numbers of workers. */
static size_t keep_largest(const struct set *set, struct shown *shown, size_t count,
                           size_t places)
{
    double below = (double)INFINITY, least = -(double)INFINITY;
    size_t kept = 0;

    for (size_t p = 0; p < places; p++) {
        double most = -(double)INFINITY;

        for (size_t i = 0; i < count; i++) {
            double own = run_number(set, shown[i].run, "workers");

            if (own < below - 0.5 && own > most)
                most = own;
        }
        if (most > -(double)INFINITY)
            least = below = most;
    }
    for (size_t i = 0; i < count; i++)
        if (!(run_number(set, shown[i].run, "workers") < least - 0.5))
            shown[kept++] = shown[i];
    return kept < RUNS_MAX ? kept : RUNS_MAX;
}

/* ---- over time ----------------------------------------------------------- */

static bool has_course(const struct run *run, enum quantity q)
{
    for (size_t i = 0; i < run->moments; i++)
        if (isfinite(run->moment[i].of[q]))
            return true;
    return false;
}

/* What was last measured of a quantity in the moments from..to. */
static double last_of(const struct run *run, enum quantity q, size_t from, size_t to)
{
    while (to > from && !isfinite(run->moment[to].of[q]))
        to--;
    return run->moment[to].of[q];
}

/* A run for the page: its moments by column, thinned to at most `max` and the last. */
static json_t *run_json(struct arena *arena, const struct set *set,
                        const struct shown *shown, size_t max)
{
    const struct run *run = shown->run;
    json_t *columns = json_object();
    double step =
        run->moments > max ? (double)(run->moments - 1) / (double)(max - 1) : 1;

    for (enum quantity q = AT_SECONDS; q < QUANTITIES; q++) {
        json_t *column = has_course(run, q) ? json_array() : NULL;
        size_t next = 0;

        for (size_t k = 0; column != NULL && k < max; k++) {
            size_t at = (size_t)((double)k * step + 0.5);

            if (at >= run->moments)
                break;
            (void)json_array_append_new(column, json_number(last_of(run, q, next, at)));
            next = at + 1;
        }
        if (column != NULL)
            (void)json_object_set_new(columns, quantities[q].name, column);
    }
    return json_pack("{s:s, s:s, s:s, s:s, s:o}", "name", text_utf8(arena, shown->name),
                     "place", text_utf8(arena, shown->place), "cell",
                     text_utf8(arena, run_field(set, run, "cell")), "status",
                     run_status_name(run_status(set, run)), "columns", columns);
}

/* A panel a place of one quantity. */
static void course_panels(struct arena *arena, json_t *chart, struct shown *shown,
                          size_t count, enum quantity q)
{
    const struct quantity_info *info = &quantities[q];
    struct axis x = {"seconds", "linear", false, 0};
    struct axis y = {info->unit[0] != '\0' ? info->unit : info->title,
                     info->log ? "log" : "linear", info->percent, 0};
    json_t *panel, *runs;
    bool made[RUNS_MAX] = {false};

    for (size_t i = 0; i < count; i++) {
        const char *place = shown[i].place;

        if (made[i] || !has_course(shown[i].run, q))
            continue;
        panel = chart_panel_add(arena, chart,
                                arena_format(arena, "%s%s%s", info->title,
                                             place[0] != '\0' ? ", " : "", place),
                                x, y);
        (void)json_object_set_new(panel, "of", json_string(info->name));
        runs = json_array();
        for (size_t k = i; k < count; k++)
            if (strcmp(shown[k].place, place) == 0 && has_course(shown[k].run, q)) {
                made[k] = true;
                (void)json_array_append_new(runs,
                                            json_integer((json_int_t)shown[k].index));
            }
        (void)json_object_set_new(panel, "runs", runs);
    }
}

static void course_add(struct arena *arena, json_t *charts, const char *id,
                       const char *title, const char *note, struct shown *shown,
                       size_t count, enum quantity first, enum quantity last)
{
    json_t *chart = chart_add(arena, charts, "course", id, title);

    for (enum quantity q = first; q <= last; q++)
        course_panels(arena, chart, shown, count, q);
    (void)json_object_set_new(chart, "note", json_string(note));
    charts_drop_empty(charts);
}

void charts_course(struct arena *arena, const struct set *set, json_t *charts,
                   json_t *runs)
{
    bool tuned, gap = set->chart != NULL && strcmp(set->chart, "gap-course") == 0;
    struct shown *shown;
    size_t count = shown_find(arena, set, &shown, &tuned), max, kept = 0;
    const char *which = "";

    for (size_t i = 0; i < count; i++)
        if (shown[i].run->moments > 0)
            shown[kept++] = shown[i];
    count = keep_largest(set, shown, kept, !set->study ? kept : gap ? PLACES_MAX : 1);
    if (count == 0)
        return;
    max = ROWS_MAX / count;
    max = max < ROWS_LEAST ? ROWS_LEAST : max > ROWS_MOST ? ROWS_MOST : max;
    for (size_t i = 0; i < count; i++) {
        shown[i].index = json_array_size(runs);
        (void)json_array_append_new(runs, run_json(arena, set, &shown[i], max));
    }
    if (set->study)
        which = tuned ? " One run a line: the most accurate of the learning rates that "
                        "were tried."
                      : " One run a line, of the first seed.";
    course_add(arena, charts, "course", "Over time",
               arena_format(arena, "By seconds of the run's clock.%s", which), shown,
               count, TEST_ACCURACY, THROUGHPUT);
    course_add(
        arena, charts, "gap-course", "Lag and gap over time",
        arena_format(arena,
                     "Lag: updates between what a worker read and what it wrote. "
                     "Gap: how far the parameters moved meanwhile. Means since "
                     "the point before.%s",
                     which),
        shown, count, LAG, GAP);
}

/* ---- the gradient's norm over the length of the run ---------------------- */

struct piece {
    const char *place, *name, *epochs, *lr;
    const struct run *run;
};

static int by_piece(const void *a, const void *b)
{
    const struct piece *one = a, *other = b;
    int ret = text_compare(one->place, other->place);

    if (ret == 0)
        ret = text_compare(one->name, other->name);
    if (ret == 0)
        ret = text_compare(one->epochs, other->epochs);
    if (ret == 0)
        ret = text_compare(one->lr, other->lr);
    return ret;
}

struct place {
    double x, y;
};
struct trace {
    struct place *place;
    size_t places;
};

static void trace_add(struct arena *arena, struct trace *trace, struct place place)
{
    struct place *grown = arena_grow(arena, trace->place, trace->places, sizeof *grown);

    if (grown == NULL)
        return;
    trace->place = grown;
    trace->place[trace->places++] = place;
}

/* Moment k: the mean over runs that differ in their seeds; NaN where one has none. */
static double seeds_mean(const struct piece *piece, size_t count, size_t k)
{
    double sum = 0;

    for (size_t i = 0; i < count; i++)
        sum += k < piece[i].run->moments ? piece[i].run->moment[k].of[GRAD_NORM_SQ]
                                         : (double)NAN;
    return sum / (double)count;
}

/* The least mean of a run's moments: a point; or, `along`, the least so far at each. */
static struct place least(struct arena *arena, const struct piece *piece, size_t count,
                          struct trace *along)
{
    const struct run *run = piece->run;
    struct place ret = {0, (double)NAN};
    double step = 1, next = 0;

    if (run->moments > LINE_MAX_POINTS)
        step = (double)run->moments / LINE_MAX_POINTS;
    for (size_t k = 0; k < run->moments; k++) {
        double value = seeds_mean(piece, count, k);

        if (!(ret.y <= value) && isfinite(value))
            ret.y = value;
        ret.x = run->moment[k].of[AT_GRADIENTS];
        if (along == NULL || !(ret.x > 0) || (double)k < next)
            continue;
        next = (double)k + step;
        trace_add(arena, along, ret);
    }
    return ret;
}

/* The slope of log y over log x by least squares; NaN where there is none. */
static double slope(const struct trace *trace)
{
    double n = 0, x = 0, y = 0, xx = 0, xy = 0;

    for (size_t k = 0; k < trace->places; k++) {
        double a = log(trace->place[k].x), b = log(trace->place[k].y);

        if (!isfinite(a) || !isfinite(b))
            continue;
        n += 1, x += a, y += b, xx += a * a, xy += a * b;
    }
    return n >= 2 && n * xx - x * x > 1e-9 ? (n * xy - x * y) / (n * xx - x * x)
                                           : (double)NAN;
}

/* `count` pieces of one place and name: a point a length; of one length only, the least
 * so far along the run. */
static struct trace trace_of(struct arena *arena, const struct piece *piece,
                             size_t count)
{
    bool lengths = strcmp(piece[0].epochs, piece[count - 1].epochs) != 0;
    struct trace ret = {NULL, 0};

    for (size_t from = 0, to; from < count; from = to) {
        struct place point;

        to = from;
        while (to < count && strcmp(piece[to].epochs, piece[from].epochs) == 0 &&
               strcmp(piece[to].lr, piece[from].lr) == 0)
            to++;
        point = least(arena, piece + from, to - from, lengths ? NULL : &ret);
        if (!lengths)
            break; /* of several rates the first */
        if (ret.places > 0 && !(ret.place[ret.places - 1].x < point.x)) {
            if (!(ret.place[ret.places - 1].y <= point.y)) /* of several the best */
                ret.place[ret.places - 1] = point;
        } else {
            trace_add(arena, &ret, point);
        }
    }
    return ret;
}

static size_t pieces_find(struct arena *arena, const struct view *view,
                          struct piece **ret)
{
    size_t count = 0;

    *ret = arena_take(arena, (view->runs + 1) * sizeof **ret);
    for (size_t i = 0; *ret != NULL && i < view->runs; i++) {
        const struct run *run = view->run[i];

        if (run_status(view->set, run) == RUN_DONE && has_course(run, GRAD_NORM_SQ))
            (*ret)[count++] =
                (struct piece){view_panel(view, run), view_name(view, run),
                               run_field(view->set, run, "epochs"),
                               run_field(view->set, run, "lr"), run};
    }
    if (count > 0)
        qsort(*ret, count, sizeof **ret, by_piece);
    return count;
}

void charts_convergence(struct arena *arena, const struct set *set, json_t *charts)
{
    static const char *const except[] = {"lr", NULL};
    static const struct axis x = {"gradients", "log", false, 0},
                             y = {"least squared norm", "log", false, 0};
    struct view view;
    struct piece *piece = NULL;
    json_t *chart = chart_add(arena, charts, "lines", "convergence",
                              "Squared gradient norm by length of the run");
    json_t *panel = NULL;
    size_t count;

    view_fill(&view, arena, set, NULL);
    view_settle(&view, "epochs", except, NULL);
    count = pieces_find(arena, &view, &piece);
    for (size_t from = 0, to; from < count; from = to) {
        struct trace trace;
        json_t *line;

        for (to = from; to < count && strcmp(piece[to].place, piece[from].place) == 0 &&
                        strcmp(piece[to].name, piece[from].name) == 0;)
            to++;
        if (from == 0 || strcmp(piece[from - 1].place, piece[from].place) != 0)
            panel = chart_panel_add(arena, chart, piece[from].place, x, y);
        trace = trace_of(arena, piece + from, to - from);
        line = chart_line_add(arena, panel, piece[from].name);
        for (size_t k = 0; k < trace.places; k++)
            chart_point_add(line, false, trace.place[k].x, trace.place[k].y,
                            (double)NAN, (double)NAN);
        if (isfinite(slope(&trace)))
            (void)json_object_set_new(
                line, "label",
                json_string(
                    text_utf8(arena, arena_format(arena, "%s, slope %.2f",
                                                  piece[from].name, slope(&trace)))));
    }
    (void)json_object_set_new(
        chart, "note",
        json_string("The least, over the points of a run, of the mean over seeds. "
                    "Slopes are fitted to the logarithms by least squares."));
    charts_drop_empty(charts);
}

/* ---- how lag and gap are spread ------------------------------------------ */

struct bins {
    size_t first, end; /* those that any run has something in */
};
/* Adds the points of a run. */
typedef void line_points(json_t *line, const struct run *run, bool gap,
                         struct bins bins);

static struct bins bins_used(const struct shown *shown, size_t count, bool gap)
{
    struct bins ret = {REPORT_BINS, 0};

    for (size_t i = 0; i < count; i++) {
        const struct histograms *own = shown[i].run->histograms;

        for (size_t b = 0; own != NULL && b < REPORT_BINS; b++) {
            if (!((gap ? own->gap : own->lag)[b] > 0))
                continue;
            ret.first = b < ret.first ? b : ret.first;
            ret.end = b >= ret.end ? b + 1 : ret.end;
        }
    }
    return ret;
}

static void bins_points(json_t *line, const struct run *run, bool gap, struct bins bins)
{
    const struct histograms *own = run->histograms;
    const double *count = gap ? own->gap : own->lag;
    double all = 0;

    for (size_t i = 0; i < REPORT_BINS; i++)
        all += count[i];
    for (size_t i = bins.first; i < bins.end; i++)
        chart_point_add(line, true, gap ? own->gap_edge[i] : own->lag_edge[i],
                        all > 0 ? count[i] / all : (double)NAN, (double)NAN,
                        (double)NAN);
}

static void worker_points(json_t *line, const struct run *run, bool gap,
                          struct bins bins)
{
    (void)bins;
    for (size_t i = 0; i < run->workers; i++) {
        const struct worker *own = &run->worker[i];

        chart_point_add(line, false, own->number, gap ? own->gap : own->lag,
                        gap ? own->gap_low : own->lag_low,
                        gap ? own->gap_high : own->lag_high);
    }
}

static void spread_add(struct arena *arena, const struct set *set, json_t *chart,
                       bool workers, struct axis x, struct axis y, bool gap,
                       line_points *points)
{
    struct shown *shown;
    bool tuned;
    size_t count = shown_find(arena, set, &shown, &tuned);
    json_t *panel = NULL;
    const char *last = "";
    struct bins bins;

    count = keep_largest(set, shown, count, set->study ? 1 : count);
    bins = bins_used(shown, count, gap);
    for (size_t i = 0; i < count; i++) {
        const struct run *run = shown[i].run;

        if (workers ? run->workers < 2 : run->histograms == NULL)
            continue;
        if (panel == NULL || strcmp(last, shown[i].place) != 0)
            panel = chart_panel_add(arena, chart,
                                    arena_format(arena, "%s%s%s", gap ? "Gap" : "Lag",
                                                 shown[i].place[0] != '\0' ? ", " : "",
                                                 shown[i].place),
                                    x, y);
        last = shown[i].place;
        points(chart_line_add(arena, panel, shown[i].name), run, gap, bins);
    }
}

void charts_histograms(struct arena *arena, const struct set *set, json_t *charts)
{
    static const struct axis share = {"share of gradients", "linear", true, 0};
    json_t *chart =
        chart_add(arena, charts, "lines", "histograms", "How lag and gap are spread");

    spread_add(arena, set, chart, false, (struct axis){"updates", "bins", false, 0},
               share, false, bins_points);
    spread_add(arena, set, chart, false,
               (struct axis){"rms a parameter", "bins", false, 0}, share, true,
               bins_points);
    (void)json_object_set_new(
        chart, "note",
        json_string("The share of a run's gradients in each bin, at its lower edge."));
    charts_drop_empty(charts);
}

void charts_workers(struct arena *arena, const struct set *set, json_t *charts)
{
    static const struct axis x = {"worker", "linear", false, 0};
    json_t *chart = chart_add(arena, charts, "lines", "workers", "Worker by worker");

    spread_add(arena, set, chart, true, x, (struct axis){"updates", "linear", false, 0},
               false, worker_points);
    spread_add(arena, set, chart, true, x,
               (struct axis){"rms a parameter", "log", false, 0}, true, worker_points);
    (void)json_object_set_new(
        chart, "note",
        json_string("The mean of each worker; bars reach from its tenth to its "
                    "nine-tenths, by the bins of its histogram."));
    charts_drop_empty(charts);
}
