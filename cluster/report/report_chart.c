/* Charts are built here: samples to panels, lines, means and ranges. */
#include "cluster/report/report_chart.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct chart *charts_add(struct charts *charts, enum chart_kind kind, const char *id,
                         const char *title)
{
    struct chart *grown =
        arena_grow(charts->arena, charts->chart, charts->count, sizeof *grown);
    size_t same = 0, bytes = strlen(id);

    if (grown == NULL)
        return NULL;
    charts->chart = grown;
    for (size_t i = 0; i < charts->count; i++)
        if (strncmp(grown[i].id, id, bytes) == 0 &&
            (grown[i].id[bytes] == '\0' ||
             strspn(grown[i].id + bytes, "-0123456789") == strlen(grown[i].id + bytes)))
            same++;
    grown += charts->count++;
    *grown = (struct chart){.kind = kind, .title = title, .id = id};
    if (same > 0)
        grown->id = arena_format(charts->arena, "%s-%zu", id, same + 1);
    return grown;
}

void chart_interleave(struct report_arena *arena, struct chart *chart, size_t first,
                      size_t half)
{
    struct chart_panel *panel = arena_take(arena, (2 * half + 1) * sizeof *panel);

    if (panel == NULL || half == 0 || chart->panels != first + 2 * half)
        return;
    for (size_t p = 0; p < half; p++) {
        panel[2 * p] = chart->panel[first + p];
        panel[2 * p + 1] = chart->panel[first + half + p];
    }
    memcpy(chart->panel + first, panel, 2 * half * sizeof *panel);
}

void charts_drop_empty(struct charts *charts)
{
    const struct chart *last;

    if (charts->count == 0)
        return;
    last = &charts->chart[charts->count - 1];
    for (size_t p = 0; p < last->panels; p++)
        if (last->panel[p].lines > 0)
            return;
    charts->count--;
    charts->chart[charts->count] = (struct chart){.kind = CHART_LINES};
}

struct chart_panel *chart_panel_add(struct report_arena *arena, struct chart *chart,
                                    const char *title)
{
    struct chart_panel *grown =
        arena_grow(arena, chart->panel, chart->panels, sizeof *grown);

    if (grown == NULL)
        return NULL;
    chart->panel = grown;
    grown += chart->panels++;
    grown->title = title;
    return grown;
}

struct chart_line *chart_line_add(struct report_arena *arena, struct chart_panel *panel,
                                  const char *name)
{
    struct chart_line *grown =
        arena_grow(arena, panel->line, panel->lines, sizeof *grown);

    if (grown == NULL)
        return NULL;
    panel->line = grown;
    grown += panel->lines++;
    grown->name = name;
    return grown;
}

void chart_point_add(struct report_arena *arena, struct chart_line *line,
                     struct svg_point point)
{
    struct svg_point *grown =
        line != NULL ? arena_grow(arena, line->point, line->points, sizeof *grown)
                     : NULL;

    if (grown == NULL)
        return;
    line->point = grown;
    line->point[line->points++] = point;
}

/* ---- samples ------------------------------------------------------------- */

void samples_add(struct samples *samples, const char *panel, const char *line,
                 const char *choice, double x, double y)
{
    struct sample *grown =
        arena_grow(samples->arena, samples->sample, samples->count, sizeof *grown);

    if (grown == NULL || !isfinite(x))
        return;
    samples->sample = grown;
    grown[samples->count++] =
        (struct sample){panel, line, choice != NULL ? choice : "", x, y};
}

static int by_group(const void *a, const void *b)
{
    const struct sample *one = a, *other = b;
    int ret = report_compare(one->panel, other->panel);

    if (ret == 0)
        ret = report_compare(one->line, other->line);
    if (ret == 0)
        ret = (one->x > other->x) - (one->x < other->x);
    if (ret == 0)
        ret = report_compare(one->choice, other->choice);
    return ret;
}

/* The mean of samples that differ in their seeds only. */
static struct svg_point mean(const struct sample *sample, size_t count)
{
    struct svg_point ret = {
        .x = sample->x, .y = 0, .low = (double)NAN, .high = (double)NAN, .count = 0};

    for (size_t i = 0; i < count; i++) {
        double y = sample[i].y;

        if (!isfinite(y))
            continue;
        ret.y += y;
        ret.count++;
        if (!(ret.low <= y))
            ret.low = y;
        if (!(ret.high >= y))
            ret.high = y;
    }
    ret.y = ret.count > 0 ? ret.y / ret.count : (double)NAN;
    return ret;
}

static const char *note_of(struct samples *samples, const char *choice, size_t count,
                           unsigned found)
{
    if (choice[0] != '\0' && samples->named != NULL)
        return arena_format(samples->arena, "%s %s", samples->named, choice);
    if (found > 0 && found < count)
        return arena_format(samples->arena, "%u of %zu", found, count);
    return NULL;
}

/* The point of the samples with one x: of several choices, the best. */
static struct svg_point best_point(struct samples *samples, const struct sample *sample,
                                   size_t count)
{
    struct svg_point ret = {.x = sample->x, .y = (double)NAN};
    bool first = true;

    for (size_t from = 0, to; from < count; from = to) {
        struct svg_point point;

        to = from;
        while (to < count && strcmp(sample[to].choice, sample[from].choice) == 0)
            to++;
        point = mean(sample + from, to - from);
        point.note = note_of(samples, sample[from].choice, to - from, point.count);
        if (first || (isfinite(point.y) &&
                      !(samples->better * point.y <= samples->better * ret.y)))
            ret = point;
        samples->chosen = samples->chosen || !first;
        first = false;
    }
    return ret;
}

static double last_y(const struct chart_line *line)
{
    for (size_t k = line->points; k-- > 0;)
        if (isfinite(line->point[k].y))
            return line->point[k].y;
    return (double)NAN;
}

static int by_last(const void *a, const void *b)
{
    double one = last_y(a), other = last_y(b);

    if (isfinite(one) != isfinite(other))
        return isfinite(one) ? -1 : 1;
    if (isfinite(one) && (one < other || one > other))
        return one > other ? -1 : 1;
    return report_compare(((const struct chart_line *)a)->name,
                          ((const struct chart_line *)b)->name);
}

static int by_last_reversed(const void *a, const void *b)
{
    double one = last_y(a), other = last_y(b);

    if (isfinite(one) && isfinite(other) && (one < other || one > other))
        return one < other ? -1 : 1;
    return by_last(a, b);
}

void samples_panels(struct samples *samples, struct chart *chart, struct svg_axis x,
                    struct svg_axis y)
{
    struct report_arena *arena = samples->arena;
    size_t from = 0, first = chart->panels;
    struct chart_panel *panel = NULL;
    struct chart_line *line = NULL;

    if (samples->count > 0)
        qsort(samples->sample, samples->count, sizeof *samples->sample, by_group);
    while (from < samples->count) {
        const struct sample *s = &samples->sample[from];
        size_t to = from;

        while (to < samples->count &&
               strcmp(samples->sample[to].panel, s->panel) == 0 &&
               strcmp(samples->sample[to].line, s->line) == 0 &&
               !(samples->sample[to].x > s->x))
            to++;
        if (panel == NULL || strcmp(panel->title, s->panel) != 0) {
            panel = chart_panel_add(arena, chart, s->panel);
            line = NULL;
            if (panel == NULL)
                return;
            panel->x = x;
            panel->y = y;
        }
        if (line == NULL || strcmp(line->name, s->line) != 0)
            line = chart_line_add(arena, panel, s->line);
        chart_point_add(arena, line, best_point(samples, s, to - from));
        from = to;
    }
    for (size_t p = first; p < chart->panels; p++)
        qsort(chart->panel[p].line, chart->panel[p].lines, sizeof *line,
              samples->better > 0 ? by_last : by_last_reversed);
}
