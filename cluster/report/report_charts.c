/* The charts whose points are whole runs: accuracy over workers and over the learning
 * rate, time to a target, what the master costs, updates a second. */
#include "cluster/report/report_chart.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const tuned[] = {"lr", NULL};

/* "Title: grid" where a study has a chart for each of its grids. */
static const char *titled(struct report_arena *arena, const char *title,
                          const struct scope *scope, size_t scopes)
{
    if (scopes < 2 || scope->grid == NULL || scope->grid[0] == '\0')
        return title;
    return arena_format(arena, "%s: %s", title, scope->grid);
}

static unsigned seeds_most(const struct chart *chart)
{
    unsigned ret = 0;

    for (size_t p = 0; p < chart->panels; p++)
        for (size_t i = 0; i < chart->panel[p].lines; i++)
            for (size_t k = 0; k < chart->panel[p].line[i].points; k++)
                if (chart->panel[p].line[i].point[k].count > ret)
                    ret = chart->panel[p].line[i].point[k].count;
    return ret;
}

static const char *seeds_note(struct report_arena *arena, const struct chart *chart)
{
    unsigned seeds = seeds_most(chart);

    if (seeds < 2)
        return "One run a point.";
    return arena_format(
        arena, "Means over up to %u seeds; thin bars reach from the least to the most.",
        seeds);
}

/* Columns: a panel a value of them; the line's name from the rest. */
static void collect(struct samples *samples, const struct scope *scope, const char *x,
                    const char *y, const char *choice)
{
    bool choose = choice != NULL && scope_varies(scope, choice);

    for (size_t i = 0; i < scope->runs; i++) {
        const struct report_run *run = scope->run[i];
        double value = report_number(scope->set, run, y);

        if (isfinite(value))
            samples_add(samples, scope_panel(samples->arena, scope, run),
                        scope_name(samples->arena, scope, run),
                        choose ? report_field(scope->set, run, choice) : NULL,
                        report_number(scope->set, run, x), value);
    }
}

/* ---- accuracy over workers ----------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    double one = *(const double *)a, other = *(const double *)b;

    return (one > other) - (one < other);
}

/* Where a few rules fail, the rest lie close together at the top: the upper half of the
 * points, if it takes less than a third of the height, is shown again, larger. */
static void add_zoom(struct report_arena *arena, struct chart *chart)
{
    struct chart_panel *panel = &chart->panel[0], *zoom;
    struct chart_panel copy = *panel;
    size_t count = 0, room = 0;
    double *value, low, high;

    for (size_t i = 0; i < panel->lines; i++)
        room += panel->line[i].points;
    value = arena_take(arena, (room + 1) * sizeof *value);
    for (size_t i = 0; value != NULL && i < panel->lines; i++)
        for (size_t k = 0; k < panel->line[i].points; k++)
            if (isfinite(panel->line[i].point[k].y))
                value[count++] = panel->line[i].point[k].y;
    if (count < 12)
        return;
    qsort(value, count, sizeof *value, by_value);
    low = value[count * 2 / 5];
    high = value[count - 1];
    if (!(high - low < 0.34 * (high - value[0])) || !(high > low))
        return;
    zoom = chart_panel_add(arena, chart, "the same, enlarged");
    if (zoom == NULL)
        return;
    copy.title = zoom->title;
    copy.zoom = true;
    copy.y.low = low - 0.15 * (high - low);
    copy.y.high = high + 0.06 * (high - low);
    *zoom = copy;
}

void charts_accuracy_workers(struct charts *charts, const struct report_set *set)
{
    struct scope *scope;
    size_t scopes = scopes_find(charts->arena, set, "workers", &scope);

    for (size_t i = 0; i < scopes; i++) {
        struct samples samples = {.arena = charts->arena, .better = 1, .named = "lr"};
        struct chart *chart;

        if (!scope_varies(&scope[i], "workers"))
            continue;
        chart = charts_add(charts, CHART_LINES, "accuracy-workers",
                           titled(charts->arena, "Test accuracy by number of workers",
                                  &scope[i], scopes));
        if (chart == NULL)
            return;
        scope_settle(&scope[i], "workers", tuned, NULL);
        collect(&samples, &scope[i], "workers", "final_accuracy", "lr");
        samples_panels(
            &samples, chart, (struct svg_axis){"workers", SVG_LOG2, false, 0, 0},
            (struct svg_axis){"final test accuracy", SVG_LINEAR, true, 0, 0});
        chart->unit = "final test accuracy (share), by workers";
        chart->note = arena_format(
            charts->arena, "%s%s", seeds_note(charts->arena, chart),
            samples.chosen ? " For each rule and number of workers the best of the "
                             "learning rates that were tried."
                           : "");
        if (chart->panels == 1)
            add_zoom(charts->arena, chart);
        charts_drop_empty(charts);
    }
}

/* ---- accuracy over the learning rate ------------------------------------- */

void charts_accuracy_lr(struct charts *charts, const struct report_set *set)
{
    struct scope *scope;
    size_t scopes = scopes_find(charts->arena, set, "lr", &scope);

    for (size_t i = 0; i < scopes; i++) {
        struct samples samples = {.arena = charts->arena, .better = 1};
        struct chart *chart;

        if (!scope_varies(&scope[i], "lr"))
            continue;
        chart = charts_add(
            charts, CHART_LINES, "accuracy-lr",
            titled(charts->arena, "Test accuracy by learning rate", &scope[i], scopes));
        if (chart == NULL)
            return;
        scope_settle(&scope[i], "lr", NULL, "workers");
        collect(&samples, &scope[i], "lr", "final_accuracy", NULL);
        samples_panels(
            &samples, chart, (struct svg_axis){"learning rate", SVG_LOG10, false, 0, 0},
            (struct svg_axis){"final test accuracy", SVG_LINEAR, true, 0, 0});
        chart->unit = "final test accuracy (share), by learning rate";
        chart->small = chart->panels > 2;
        chart->note = seeds_note(charts->arena, chart);
        charts_drop_empty(charts);
    }
}

/* ---- time to a target ---------------------------------------------------- */

#define DOT_PANELS 4     /* numbers of workers that get a panel each */
#define DOT_PANELS_FEW 2 /* where the study is about something else */

static const char *numbered_panel(struct report_arena *arena, const struct scope *scope,
                                  const struct report_run *run, const char *what)
{
    const char *panel = scope_panel(arena, scope, run);

    return panel[0] != '\0' ? arena_format(arena, "%s, %s", panel, what) : what;
}

/* Of many numbers of workers some are shown, spread over them, the largest among
 * them. */
static bool workers_shown(const struct scope *scope, const struct report_run *run)
{
    double own = report_number(scope->set, run, "workers"), value[64];
    size_t count = 0, rank = 0, wanted = DOT_PANELS;

    if (scope->set->chart == NULL || strcmp(scope->set->chart, "time-to-target") != 0)
        wanted = DOT_PANELS_FEW;
    for (size_t i = 0; i < scope->runs && count < 64; i++) {
        double workers = report_number(scope->set, scope->run[i], "workers");
        size_t k = 0;

        while (k < count && fabs(value[k] - workers) > 0.5)
            k++;
        if (k == count && workers > 1)
            value[count++] = workers;
    }
    if (count <= wanted)
        return own > 1 || count == 0;
    for (size_t k = 0; k < count; k++)
        rank += value[k] > own ? 1 : 0;
    for (size_t k = 0; k < wanted; k++)
        if (own > 1 && rank == k * (count - 1) / (wanted == 2 ? 2 : wanted - 1))
            return true;
    return false;
}

static void dot_samples(struct samples *samples, const struct scope *scope,
                        const char *column, const char *what)
{
    for (size_t i = 0; i < scope->runs; i++) {
        const struct report_run *run = scope->run[i];

        if (isfinite(report_number(scope->set, run, "final_accuracy")) &&
            workers_shown(scope, run))
            samples_add(samples, numbered_panel(samples->arena, scope, run, what),
                        scope_name(samples->arena, scope, run), NULL, 0,
                        report_number(scope->set, run, column));
    }
}

static bool any_number(const struct scope *scope, const char *column)
{
    for (size_t i = 0; i < scope->runs; i++)
        if (isfinite(report_number(scope->set, scope->run[i], column)))
            return true;
    return false;
}

static void add_times(struct charts *charts, struct scope *scope, size_t scopes,
                      double target)
{
    struct samples times = {.arena = charts->arena, .better = -1};
    struct samples ends = {.arena = charts->arena, .better = 1};
    struct chart *chart =
        charts_add(charts, CHART_DOTS, "time-to-target",
                   titled(charts->arena,
                          arena_format(charts->arena, "Time to %.4g %% test accuracy",
                                       100 * target),
                          scope, scopes));
    size_t count;

    if (chart == NULL)
        return;
    scope_settle(scope, "", NULL, "workers");
    dot_samples(&times, scope, "time_to_target", "time to target");
    samples_panels(&times, chart, (struct svg_axis){"seconds", SVG_LINEAR, false, 0, 0},
                   (struct svg_axis){"seconds", SVG_LINEAR, false, 0, 0});
    count = chart->panels;
    dot_samples(&ends, scope, "final_accuracy", "final accuracy");
    samples_panels(&ends, chart,
                   (struct svg_axis){"final test accuracy", SVG_LINEAR, true, 0, 0},
                   (struct svg_axis){"share", SVG_LINEAR, true, 0, 0});
    chart_interleave(charts->arena, chart, 0, count);
    chart->unit = "seconds of the run's clock, or share of test samples";
    chart->note = arena_format(
        charts->arena,
        "Seconds of the run's own clock until the test accuracy was first measured at "
        "%.4g %% or more; never: no run got there; 2 of 3: this many did, and the mean "
        "is "
        "theirs. %s",
        100 * target, seeds_note(charts->arena, chart));
    charts_drop_empty(charts);
}

void charts_time_to_target(struct charts *charts, const struct report_set *set,
                           double target)
{
    struct scope *scope;
    size_t scopes = scopes_find(charts->arena, set, "rule", &scope);

    for (size_t i = 0; i < scopes; i++)
        if (scope[i].runs > 1 && any_number(&scope[i], "time_to_target"))
            add_times(charts, &scope[i], scopes, target);
}

/* ---- what the master costs, and updates a second ------------------------- */

typedef double quantity(const struct report_set *set, const struct report_run *run);

static double us_per_update(const struct report_set *set, const struct report_run *run)
{
    return report_number(set, run, "master_us_per_update");
}

static double master_bytes(const struct report_set *set, const struct report_run *run)
{
    return report_number(set, run, "master_bytes");
}

static double virtual_rate(const struct report_set *set, const struct report_run *run)
{
    double seconds = report_number(set, run, "virtual_seconds");

    return report_number(set, run, "updates") / seconds;
}

static double real_rate(const struct report_set *set, const struct report_run *run)
{
    double seconds = report_number(set, run, "real_seconds");

    if (!isfinite(seconds))
        seconds = run->real_seconds;
    return report_number(set, run, "updates") / seconds;
}

/* Panels of one quantity: lines over the workers, or dots. */
static void add_quantity(struct chart *chart, struct report_arena *arena,
                         const struct scope *scope, quantity *of, const char *title,
                         struct svg_axis axis, int better)
{
    struct samples samples = {.arena = arena, .better = better};
    bool lines = chart->kind == CHART_LINES;

    for (size_t i = 0; i < scope->runs; i++) {
        const struct report_run *run = scope->run[i];
        double y = of(scope->set, run);

        if (isfinite(y) && y > 0)
            samples_add(&samples, numbered_panel(arena, scope, run, title),
                        scope_name(arena, scope, run), NULL,
                        lines ? report_number(scope->set, run, "workers") : 0, y);
    }
    samples_panels(&samples, chart,
                   lines ? (struct svg_axis){"workers", SVG_LOG2, false, 0, 0} : axis,
                   axis);
}

void charts_scale(struct charts *charts, const struct report_set *set)
{
    struct scope *scope;
    size_t scopes = scopes_find(charts->arena, set, "workers", &scope);

    for (size_t i = 0; i < scopes; i++) {
        struct chart *chart;

        if (!scope_varies(&scope[i], "workers"))
            continue;
        chart = charts_add(
            charts, CHART_LINES, "scale",
            titled(charts->arena, "What the master costs", &scope[i], scopes));
        if (chart == NULL)
            return;
        scope_settle(&scope[i], "workers", tuned, NULL);
        add_quantity(
            chart, charts->arena, &scope[i], us_per_update, "time of an update",
            (struct svg_axis){"microseconds an update", SVG_LOG10, false, 0, 0}, -1);
        add_quantity(chart, charts->arena, &scope[i], master_bytes,
                     "memory of the master",
                     (struct svg_axis){"bytes", SVG_LOG10, false, 0, 0}, -1);
        chart->unit = "microseconds, or bytes";
        chart->note =
            arena_format(charts->arena, "Real time of the machine the study ran on. %s",
                         seeds_note(charts->arena, chart));
        charts_drop_empty(charts);
    }
}

void charts_speed(struct charts *charts, const struct report_set *set)
{
    struct scope *scope;
    size_t scopes = scopes_find(charts->arena, set, "workers", &scope);
    static const struct svg_axis axis = {"updates a second", SVG_LOG10, false, 0, 0};

    for (size_t i = 0; i < scopes; i++) {
        bool over = scope_varies(&scope[i], "workers");
        struct chart *chart;

        if (scope[i].runs < 2)
            continue; /* one number makes no chart; it is in the table */
        chart =
            charts_add(charts, over ? CHART_LINES : CHART_DOTS, "updates-per-second",
                       titled(charts->arena, "Updates a second", &scope[i], scopes));

        if (chart == NULL)
            return;
        scope_settle(&scope[i], over ? "workers" : "", tuned, NULL);
        add_quantity(chart, charts->arena, &scope[i], virtual_rate, "in virtual time",
                     axis, 1);
        add_quantity(chart, charts->arena, &scope[i], real_rate, "in real time", axis,
                     1);
        chart->unit = "updates a second";
        chart->note = arena_format(
            charts->arena,
            "In virtual time: of the modelled workers; in real time: of this machine, "
            "gradients included. %s",
            seeds_note(charts->arena, chart));
        charts_drop_empty(charts);
    }
}
