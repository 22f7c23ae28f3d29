/* The charts of how runs go: accuracy and loss over time, lag and gap over time, and
 * the norm of the gradient over the length of the run. */
#include "cluster/report/report_chart.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define POINTS_MAX 100u /* of a line of a course; of more, as many spread over it */
#define COURSE_PANELS 4 /* numbers of workers that have a panel each */
#define RUNS_MAX 5000u  /* looked at */

/* ---- one run a rule ------------------------------------------------------ */

typedef double value_of(const struct report_moment *moment);

static double accuracy(const struct report_moment *moment)
{
    return moment->accuracy;
}

static double test_loss(const struct report_moment *moment)
{
    return moment->test_loss;
}

static double loss(const struct report_moment *moment)
{
    return moment->loss;
}

static double lag(const struct report_moment *moment)
{
    return moment->lag;
}

static double gap(const struct report_moment *moment)
{
    return moment->gap;
}

static void add_course(struct report_arena *arena, struct chart_panel *panel,
                       const char *name, const struct report_run *run, value_of *of)
{
    struct chart_line *line = NULL;
    double have = 0, step = 1, next = 0;

    for (size_t i = 0; i < run->moments; i++)
        have += isfinite(of(&run->moment[i])) ? 1 : 0;
    if (have > POINTS_MAX)
        step = (have - 1) / (POINTS_MAX - 1);
    have = 0;
    for (size_t i = 0; i < run->moments; i++) {
        double y = of(&run->moment[i]);

        if (!isfinite(y) || !isfinite(run->moment[i].elapsed))
            continue;
        if (have++ < next - 1e-6)
            continue;
        next += step;
        if (line == NULL)
            line = chart_line_add(arena, panel, name);
        chart_point_add(arena, line,
                        (struct svg_point){run->moment[i].elapsed, y, (double)NAN,
                                           (double)NAN, 1, NULL});
    }
}

/* The runs of a chart with their names, worked out once. */
struct course {
    struct charts *charts;
    const struct report_set *set;
    struct scope scope;
    bool tuned; /* the learning rate varies: the best run stands for its name */
    const char **name, **place; /* by run of the scope: its line, its panel */
};

/* Of runs of several lengths the longest are shown. */
static void keep_longest(struct scope *scope)
{
    double most = 0;
    size_t kept = 0;

    for (size_t i = 0; i < scope->runs; i++)
        most = fmax(most, report_number(scope->set, scope->run[i], "epochs"));
    for (size_t i = 0; i < scope->runs; i++)
        if (!(report_number(scope->set, scope->run[i], "epochs") < most))
            scope->run[kept++] = scope->run[i];
    scope->runs = kept;
}

/* False: there is nothing, or no memory. */
static bool course_open(struct course *ret, struct charts *charts,
                        const struct report_set *set, bool longest)
{
    static const char *const nothing[] = {NULL}, *const tuned[] = {"lr", NULL};

    *ret = (struct course){.charts = charts, .set = set};
    scope_fill(&ret->scope, charts->arena, set, NULL);
    if (set->study && longest)
        keep_longest(&ret->scope);
    ret->tuned = set->study && scope_varies(&ret->scope, "lr");
    if (ret->scope.runs > RUNS_MAX)
        ret->scope.runs = RUNS_MAX;
    scope_settle(&ret->scope, "workers", ret->tuned ? tuned : nothing, NULL);
    if (!set->study)
        ret->scope.panels = 0; /* plain runs are few: all in one */
    ret->name = arena_take(charts->arena, (ret->scope.runs + 1) * sizeof *ret->name);
    ret->place = arena_take(charts->arena, (ret->scope.runs + 1) * sizeof *ret->place);
    if (ret->name == NULL || ret->place == NULL)
        return false;
    for (size_t i = 0; i < ret->scope.runs; i++) {
        ret->name[i] = scope_name(charts->arena, &ret->scope, ret->scope.run[i]);
        ret->place[i] = scope_panel(charts->arena, &ret->scope, ret->scope.run[i]);
    }
    return ret->scope.runs > 0;
}

/* NaN: any number will do. */
static bool has_workers(const struct course *course, size_t at, double workers)
{
    double own = report_number(course->set, course->scope.run[at], "workers");

    return course->scope.run[at]->moments > 0 && !(fabs(own - workers) > 0.5);
}

/* Does run i rather stand for a name than run `at`? */
static bool goes_before(const struct course *course, size_t i, size_t at)
{
    double one = report_number(course->set, course->scope.run[i], "final_accuracy");
    double other = report_number(course->set, course->scope.run[at], "final_accuracy");

    if (course->tuned && (one > other || one < other))
        return one > other;
    return i < at;
}

/* The run that stands for its name: the first of them in the study's order, or, of
 * several learning rates, the most accurate. */
static bool first_of_name(const struct course *course, size_t at, double workers)
{
    size_t end = course->tuned ? course->scope.runs : at;

    for (size_t i = 0; i < end; i++)
        if (i != at && has_workers(course, i, workers) &&
            strcmp(course->name[i], course->name[at]) == 0 &&
            strcmp(course->place[i], course->place[at]) == 0 &&
            goes_before(course, i, at))
            return false;
    return true;
}

static const char *which_runs(const struct course *course)
{
    if (!course->set->study)
        return "";
    return course->tuned ? "One run a line: the most accurate of the learning rates "
                           "that were tried."
                         : "One run a line, of the first seed.";
}

/* Plain runs that their rules do not tell apart are called by their folders. */
static void name_by_folder(struct course *course)
{
    bool same = scope_varies(&course->scope, "workers");

    for (size_t i = 0; i < course->scope.runs && !same; i++)
        same = !first_of_name(course, i, (double)NAN);
    for (size_t i = 0; i < course->scope.runs && same; i++)
        course->name[i] = report_field(course->set, course->scope.run[i], "cell");
}

/* Panels of one quantity, a place each, with a line a name. */
static void add_panels(const struct course *course, struct chart *chart, double workers,
                       value_of *of, const char *what, struct svg_axis y)
{
    struct report_arena *arena = course->charts->arena;
    size_t first = chart->panels;

    for (size_t i = 0; i < course->scope.runs; i++) {
        const char *place = course->place[i], *title;
        size_t p = first;

        if (!has_workers(course, i, workers) || !first_of_name(course, i, workers))
            continue;
        title =
            arena_format(arena, "%s%s%s", place, place[0] != '\0' ? ", " : "", what);
        while (p < chart->panels && strcmp(chart->panel[p].title, title) != 0)
            p++;
        if (p == chart->panels) {
            if (chart_panel_add(arena, chart, title) == NULL)
                return;
            chart->panel[p].x = (struct svg_axis){"seconds", SVG_LINEAR, false, 0, 0};
            chart->panel[p].y = y;
        }
        add_course(arena, &chart->panel[p], course->name[i], course->scope.run[i], of);
    }
    while (chart->panels > first && chart->panel[chart->panels - 1].lines == 0)
        chart->panels--;
}

/* Was the loss of the test samples measured in any run? */
static bool tested(const struct course *course)
{
    for (size_t i = 0; i < course->scope.runs; i++)
        for (size_t k = 0; k < course->scope.run[i]->moments; k++)
            if (isfinite(course->scope.run[i]->moment[k].test_loss))
                return true;
    return false;
}

void charts_course(struct charts *charts, const struct report_set *set)
{
    struct report_arena *arena = charts->arena;
    struct course course;
    struct chart *chart;
    double workers = (double)NAN;
    size_t half;

    if (!course_open(&course, charts, set, true))
        return;
    if (set->study)
        workers = scope_workers(&course.scope);
    else
        name_by_folder(&course);
    chart = charts_add(
        charts, CHART_LINES, "course",
        set->study && scope_varies(&course.scope, "workers")
            ? arena_format(arena, "Accuracy and loss over time, %g workers", workers)
            : "Accuracy and loss over time");
    if (chart == NULL)
        return;
    add_panels(&course, chart, workers, accuracy, "test accuracy",
               (struct svg_axis){"test accuracy", SVG_LINEAR, true, 0, 0});
    half = chart->panels;
    if (tested(&course))
        add_panels(&course, chart, workers, test_loss, "test loss",
                   (struct svg_axis){"loss", SVG_LOG10, false, 0, 0});
    else
        add_panels(&course, chart, workers, loss, "training loss",
                   (struct svg_axis){"loss", SVG_LOG10, false, 0, 0});
    chart->unit = "by seconds of the run's clock";
    chart_interleave(arena, chart, 0, half);
    chart->note =
        arena_format(arena, "Loss: of the test samples where that was measured.%s",
                     which_runs(&course));
    charts_drop_empty(charts);
}

/* ---- lag and gap over time ----------------------------------------------- */

/* The largest number of workers below `below`, of a run that has a course; NaN:
 * none. */
static double next_workers(const struct course *course, double below)
{
    double ret = (double)NAN;

    for (size_t i = 0; i < course->scope.runs; i++) {
        double own = report_number(course->set, course->scope.run[i], "workers");

        if (has_workers(course, i, (double)NAN) && own < below - 0.5 && !(ret >= own))
            ret = own;
    }
    return ret;
}

void charts_gap_course(struct charts *charts, const struct report_set *set)
{
    struct report_arena *arena = charts->arena;
    struct course course;
    struct chart *chart;
    bool first = set->chart != NULL && strcmp(set->chart, "gap-course") == 0;
    double workers = 1e9;

    if (!course_open(&course, charts, set, true))
        return;
    chart = charts_add(charts, CHART_LINES, "gap-course", "Lag and gap over the run");
    if (chart == NULL)
        return;
    if (!set->study)
        name_by_folder(&course);
    for (int i = 0; i < (first ? COURSE_PANELS : 1); i++) {
        const char *prefix = "";
        size_t before = chart->panels, half;

        workers = set->study ? next_workers(&course, workers) : (double)NAN;
        if (set->study && !(workers > 1))
            break;
        if (isfinite(workers))
            prefix = arena_format(arena, "%g workers, ", workers);
        add_panels(&course, chart, workers, lag, arena_format(arena, "%slag", prefix),
                   (struct svg_axis){"updates", SVG_LINEAR, false, 0, 0});
        half = chart->panels - before;
        add_panels(&course, chart, workers, gap, arena_format(arena, "%sgap", prefix),
                   (struct svg_axis){"rms a parameter", SVG_LOG10, false, 0, 0});
        chart_interleave(arena, chart, before, half);
    }
    chart->unit = "mean since the point before (of train: since the start), by seconds";
    chart->note = arena_format(
        arena,
        "Lag: updates between what a worker read and what it wrote. Gap: how far the "
        "parameters moved meanwhile. %s",
        which_runs(&course));
    charts_drop_empty(charts);
}

/* ---- the gradient's norm over the length of the run ---------------------- */

struct piece {
    const char *place, *name, *epochs, *lr;
    const struct report_run *run;
};

static int by_piece(const void *a, const void *b)
{
    const struct piece *one = a, *other = b;
    int ret = report_compare(one->place, other->place);

    if (ret == 0)
        ret = report_compare(one->name, other->name);
    if (ret == 0)
        ret = report_compare(one->epochs, other->epochs);
    if (ret == 0)
        ret = report_compare(one->lr, other->lr);
    return ret;
}

/* Moment k: the mean over runs that differ in their seeds; NaN where one has none. */
static double seeds_mean(const struct piece *piece, size_t count, size_t k)
{
    double sum = 0;

    for (size_t i = 0; i < count; i++)
        sum += k < piece[i].run->moments ? piece[i].run->moment[k].grad_norm_sq
                                         : (double)NAN;
    return sum / (double)count;
}

/* The least mean of a run's moments: a point; or, `along`, the least so far at each. */
static struct svg_point least(struct report_arena *arena, const struct piece *piece,
                              size_t count, struct chart_line *along)
{
    const struct report_run *run = piece->run;
    struct svg_point ret = {0,           (double)NAN,     (double)NAN,
                            (double)NAN, (unsigned)count, NULL};
    double step = run->moments > POINTS_MAX ? (double)run->moments / POINTS_MAX : 1;
    double next = 0;

    for (size_t k = 0; k < run->moments; k++) {
        double value = seeds_mean(piece, count, k);

        if (!(ret.y <= value) && isfinite(value))
            ret.y = value;
        ret.x = run->moment[k].gradients;
        if (along == NULL || !(ret.x > 0) || (double)k < next)
            continue;
        next = (double)k + step;
        chart_point_add(arena, along, ret);
    }
    return ret;
}

/* The slope of log y over log x by least squares; NaN where there is none. */
static double slope(const struct chart_line *line)
{
    double n = 0, x = 0, y = 0, xx = 0, xy = 0;

    for (size_t k = 0; k < line->points; k++) {
        double a = log(line->point[k].x), b = log(line->point[k].y);

        if (!isfinite(a) || !isfinite(b))
            continue;
        n += 1, x += a, y += b, xx += a * a, xy += a * b;
    }
    return n >= 2 && n * xx - x * x > 1e-9 ? (n * xy - x * y) / (n * xx - x * x)
                                           : (double)NAN;
}

static size_t pieces_find(const struct course *course, struct piece **ret)
{
    size_t count = 0;

    *ret = arena_take(course->charts->arena, (course->scope.runs + 1) * sizeof **ret);
    for (size_t i = 0; *ret != NULL && i < course->scope.runs; i++) {
        const struct report_run *run = course->scope.run[i];
        bool any = false;

        for (size_t k = 0; k < run->moments && !any; k++)
            any = isfinite(run->moment[k].grad_norm_sq);
        if (any)
            (*ret)[count++] =
                (struct piece){scope_panel(course->charts->arena, &course->scope, run),
                               scope_name(course->charts->arena, &course->scope, run),
                               report_field(course->set, run, "epochs"),
                               report_field(course->set, run, "lr"), run};
    }
    if (count > 0)
        qsort(*ret, count, sizeof **ret, by_piece);
    return count;
}

/* One line: `count` pieces of one place and name. */
static void add_line(const struct course *course, struct chart_panel *panel,
                     const struct piece *piece, size_t count)
{
    struct report_arena *arena = course->charts->arena;
    struct chart_line *line = chart_line_add(arena, panel, piece->name);
    bool lengths = strcmp(piece[0].epochs, piece[count - 1].epochs) != 0;
    double fitted;

    if (line == NULL)
        return;
    for (size_t from = 0, to; from < count; from = to) {
        struct svg_point point;

        to = from;
        while (to < count && strcmp(piece[to].epochs, piece[from].epochs) == 0 &&
               strcmp(piece[to].lr, piece[from].lr) == 0)
            to++;
        point = least(arena, piece + from, to - from, lengths ? NULL : line);
        if (!lengths)
            break; /* of several rates the first */
        if (line->points > 0 && !(line->point[line->points - 1].x < point.x)) {
            struct svg_point *last = &line->point[line->points - 1];

            if (!(last->y <= point.y)) /* of several rates the best */
                *last = point;
        } else {
            chart_point_add(arena, line, point);
        }
    }
    fitted = slope(line);
    if (isfinite(fitted))
        line->label = arena_format(arena, "%s, slope %.2f", piece->name, fitted);
}

void charts_convergence(struct charts *charts, const struct report_set *set)
{
    static const char *const except[] = {"lr", NULL};
    struct course course;
    struct piece *piece = NULL;
    struct chart_panel *panel = NULL;
    struct chart *chart;
    size_t count, to;

    if (!course_open(&course, charts, set, false))
        return;
    scope_settle(&course.scope, "epochs", except, NULL);
    count = pieces_find(&course, &piece);
    chart = count > 0 ? charts_add(charts, CHART_LINES, "convergence",
                                   "Squared gradient norm by length of the run")
                      : NULL;
    for (size_t from = 0; chart != NULL && from < count; from = to) {
        for (to = from; to < count && strcmp(piece[to].place, piece[from].place) == 0 &&
                        strcmp(piece[to].name, piece[from].name) == 0;)
            to++;
        if (panel == NULL || strcmp(panel->title, piece[from].place) != 0)
            panel = chart_panel_add(charts->arena, chart, piece[from].place);
        if (panel == NULL)
            return;
        panel->x = (struct svg_axis){"gradients", SVG_LOG10, false, 0, 0};
        panel->y = (struct svg_axis){"least squared norm", SVG_LOG10, false, 0, 0};
        add_line(&course, panel, piece + from, to - from);
    }
    if (chart == NULL)
        return;
    chart->unit = "least squared gradient norm, by gradients";
    chart->note = "The least, over the points of a run, of the mean over seeds. Slopes "
                  "are fitted to the logarithms by least squares.";
    charts_drop_empty(charts);
}
