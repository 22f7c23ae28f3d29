/* Histograms of lag and gap as strips of shades: a strip a rule, and a strip a worker
 * (or, of many workers, a strip a tenth of them). */
#include "cluster/report/report_chart.h"

#include <math.h>
#include <string.h>

#define WORKERS_MAX 32u /* that have a strip each */
#define TENTHS 10u
#define CHARTS_MAX 32u /* runs whose workers are shown */

typedef void strip_of(const struct report_histograms *from, double ret[SVG_BINS]);

static void lag_all(const struct report_histograms *from, double ret[SVG_BINS])
{
    memcpy(ret, from->lag, sizeof from->lag);
}

static void gap_all(const struct report_histograms *from, double ret[SVG_BINS])
{
    memcpy(ret, from->gap, sizeof from->gap);
}

static bool same_edges(const double *a, const double *b)
{
    for (size_t i = 0; i < SVG_BINS; i++)
        if (fabs(a[i] - b[i]) > 1e-9 * fabs(a[i]))
            return false;
    return true;
}

static struct chart_line *add_strip(struct report_arena *arena,
                                    struct chart_panel *panel, const char *name)
{
    struct chart_line *ret = panel != NULL ? chart_line_add(arena, panel, name) : NULL;

    if (ret == NULL)
        return NULL;
    ret->count = arena_take(arena, SVG_BINS * sizeof *ret->count);
    if (ret->count == NULL) {
        panel->lines--;
        return NULL;
    }
    return ret;
}

static struct chart_panel *add_panel(struct report_arena *arena, struct chart *chart,
                                     const char *title, const char *label,
                                     const double *edge)
{
    struct chart_panel *ret = chart_panel_add(arena, chart, title);

    if (ret == NULL)
        return NULL;
    ret->x = (struct svg_axis){label, SVG_LINEAR, false, 0, 0};
    ret->edge = edge;
    return ret;
}

/* ---- a strip a rule ------------------------------------------------------ */

struct represent {
    const struct report_run *run;
    const char *name;
};

/* A run for each name: those of the largest number of workers, first seeds. */
static size_t representatives(struct charts *charts, const struct report_set *set,
                              struct represent **ret, double *workers)
{
    struct represent *found = NULL;
    struct scope scope;
    size_t count = 0;

    scope_fill(&scope, charts->arena, set, NULL);
    scope_settle(&scope, "workers", NULL, NULL);
    *workers = scope_workers(&scope);
    for (size_t i = 0; i < scope.runs && count < CHARTS_MAX; i++) {
        const struct report_run *run = scope.run[i];
        const char *name, *place;
        bool known = false;

        if (run->histograms == NULL ||
            (set->study && report_number(set, run, "workers") < *workers))
            continue;
        name = set->study ? scope_name(charts->arena, &scope, run)
                          : report_field(set, run, "cell");
        place = set->study ? scope_panel(charts->arena, &scope, run) : "";
        if (place[0] != '\0')
            name = arena_format(charts->arena, "%s, %s", name, place);
        for (size_t k = 0; k < count && !known && set->study; k++)
            known = strcmp(found[k].name, name) == 0;
        if (known)
            continue;
        found = arena_grow(charts->arena, found, count, sizeof *found);
        if (found == NULL)
            return 0;
        found[count++] = (struct represent){run, name};
    }
    *ret = found;
    return count;
}

static void add_all(struct report_arena *arena, struct chart *chart,
                    const struct represent *found, size_t count, const char *title,
                    const char *label, strip_of *of, bool gap)
{
    const struct report_histograms *first = found[0].run->histograms;
    const double *edge = gap ? first->gap_edge : first->lag_edge;
    struct chart_panel *panel = add_panel(arena, chart, title, label, edge);

    for (size_t i = 0; i < count; i++) {
        const struct report_histograms *own = found[i].run->histograms;
        struct chart_line *line;

        if (!same_edges(edge, gap ? own->gap_edge : own->lag_edge))
            continue;
        line = add_strip(arena, panel, found[i].name);
        if (line != NULL)
            of(own, line->count);
    }
}

/* ---- a strip a worker ---------------------------------------------------- */

static void add_workers(struct report_arena *arena, struct chart *chart,
                        const struct report_histograms *from, const char *title,
                        const char *label, bool gap)
{
    struct chart_panel *panel =
        add_panel(arena, chart, title, label, gap ? from->gap_edge : from->lag_edge);
    size_t rows = from->workers <= WORKERS_MAX ? from->workers : TENTHS;

    for (size_t r = 0; r < rows; r++) {
        size_t first = r * from->workers / rows;
        size_t last = (r + 1) * from->workers / rows - 1;
        const struct report_worker *worker = &from->worker[first];
        struct chart_line *line = add_strip(
            arena, panel,
            first == last ? arena_format(arena, "worker %g", worker->worker)
                          : arena_format(arena, "%g\xe2\x80\x93%g", worker->worker,
                                         from->worker[last].worker));

        for (size_t w = first; line != NULL && w <= last; w++)
            for (size_t b = 0; b < SVG_BINS; b++)
                line->count[b] += gap ? (double)from->worker[w].gap[b]
                                      : (double)from->worker[w].lag[b];
    }
}

void charts_strips(struct charts *charts, const struct report_set *set)
{
    struct report_arena *arena = charts->arena;
    struct represent *found = NULL;
    struct chart *chart;
    double workers;
    size_t count = representatives(charts, set, &found, &workers);

    if (count > 1) {
        chart = charts_add(
            charts, CHART_STRIPS, "histograms",
            set->study
                ? arena_format(arena, "How lag and gap are spread, %g workers", workers)
                : "How lag and gap are spread");
        if (chart == NULL)
            return;
        add_all(arena, chart, found, count, "lag", "updates", lag_all, false);
        add_all(arena, chart, found, count, "gap", "rms a parameter", gap_all, true);
        chart->unit = "gradients, by the lower edge of the bin";
        chart->note = "A run a strip: the darker, the more of its gradients are in the "
                      "bin (by the square root, so that tails are seen).";
        charts_drop_empty(charts);
    }
    for (size_t i = 0; i < count; i++) {
        const struct report_histograms *own = found[i].run->histograms;

        if (own->workers < 2)
            continue;
        chart = charts_add(charts, CHART_STRIPS, "workers",
                           arena_format(arena, "Workers of %s", found[i].name));
        if (chart == NULL)
            return;
        add_workers(arena, chart, own, "lag", "updates", false);
        add_workers(arena, chart, own, "gap", "rms a parameter", true);
        chart->unit = "gradients, by the lower edge of the bin";
        chart->note = own->workers > WORKERS_MAX
                          ? "A tenth of the workers a strip, by their numbers."
                          : "A worker a strip.";
        charts_drop_empty(charts);
    }
}
