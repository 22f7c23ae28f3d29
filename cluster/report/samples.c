/* Samples to panels, lines, means and ranges; the JSON of charts. */
#include "cluster/report/charts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Accuracies of one cell that are so far apart, or so far below the best of the panel,
 * are of a cell that collapses for some seeds or for all: a mean would say nothing. Of
 * other quantities, which have no scale of their own, a factor. */
#define APART_SHARE 0.05
#define APART_OF_BEST 0.5
#define APART_FACTOR 10.0

json_t *json_number(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

/* ---- charts -------------------------------------------------------------- */

json_t *chart_add(struct arena *arena, json_t *charts, const char *kind, const char *id,
                  const char *title)
{
    size_t same = 0, bytes = strlen(id);
    const char *own = id;
    json_t *ret;

    for (size_t i = 0; i < json_array_size(charts); i++) {
        const char *other =
            json_string_value(json_object_get(json_array_get(charts, i), "id"));

        if (strncmp(other, id, bytes) == 0 &&
            strspn(other + bytes, "-0123456789") == strlen(other + bytes))
            same++;
    }
    if (same > 0)
        own = arena_format(arena, "%s-%zu", id, same + 1);
    ret = json_pack("{s:s, s:s, s:s, s:s, s:[]}", "id", own, "kind", kind, "title",
                    text_utf8(arena, title), "note", "", "panels");
    if (json_array_append_new(charts, ret) != 0) {
        arena->failed = true;
        return NULL;
    }
    return ret;
}

static json_t *axis_json(struct axis axis)
{
    return json_pack("{s:s, s:s, s:b, s:i}", "label", axis.label, "scale", axis.scale,
                     "percent", axis.percent ? 1 : 0, "better", axis.better);
}

json_t *chart_panel_add(struct arena *arena, json_t *chart, const char *title,
                        struct axis x, struct axis y)
{
    json_t *ret = json_pack("{s:s, s:o, s:o, s:[]}", "title", text_utf8(arena, title),
                            "x", axis_json(x), "y", axis_json(y), "lines");

    if (json_array_append_new(json_object_get(chart, "panels"), ret) != 0) {
        arena->failed = true;
        return NULL;
    }
    return ret;
}

json_t *chart_line_add(struct arena *arena, json_t *panel, const char *name)
{
    json_t *ret = json_pack("{s:s, s:[]}", "name", text_utf8(arena, name), "points");

    if (json_array_append_new(json_object_get(panel, "lines"), ret) != 0) {
        arena->failed = true;
        return NULL;
    }
    return ret;
}

void chart_point_add(json_t *line, bool percent, double x, double y, double low,
                     double high)
{
    char text[120];
    int used = percent ? snprintf(text, sizeof text, "%.2f %%", 100 * y)
                       : snprintf(text, sizeof text, "%.6g", y);

    if (high > low)
        (void)snprintf(text + used, sizeof text - (size_t)used, " (%.4g to %.4g)", low,
                       high);
    (void)json_array_append_new(
        json_object_get(line, "points"),
        json_pack("{s:o, s:o, s:o, s:o, s:i, s:s, s:s}", "x", json_number(x), "y",
                  json_number(y), "low", json_number(low), "high", json_number(high),
                  "n", 1, "state", "mean", "text", isfinite(y) ? text : ""));
}

void charts_drop_empty(json_t *charts)
{
    size_t last = json_array_size(charts) - 1, i;
    const json_t *panels, *panel;

    if (json_array_size(charts) == 0)
        return;
    panels = json_object_get(json_array_get(charts, last), "panels");
    json_array_foreach(
        panels, i,
        panel) if (json_array_size(json_object_get(panel, "lines")) > 0 ||
                   json_array_size(json_object_get(panel, "runs")) > 0) return;
    (void)json_array_remove(charts, last);
}

/* ---- samples ------------------------------------------------------------- */

/* Where a name is in the list, in the order they were first seen. */
static size_t names_at(struct arena *arena, struct names *names, const char *name)
{
    const char **grown;

    for (size_t i = 0; i < names->count; i++)
        if (strcmp(names->name[i], name) == 0)
            return i;
    grown = arena_grow(arena, names->name, names->count, sizeof *grown);
    if (grown == NULL)
        return 0;
    names->name = grown;
    names->name[names->count] = name;
    return names->count++;
}

void samples_add(struct samples *samples, const char *panel, const char *line,
                 const struct sample *sample)
{
    struct sample *grown =
        arena_grow(samples->arena, samples->sample, samples->count, sizeof *grown);

    if (grown == NULL || !isfinite(sample->x))
        return;
    samples->sample = grown;
    grown += samples->count++;
    *grown = *sample;
    grown->panel = names_at(samples->arena, &samples->panels, panel);
    grown->line = names_at(samples->arena, &samples->lines, line);
}

static int by_cell(const void *a, const void *b)
{
    const struct sample *one = a, *other = b;

    if (one->panel != other->panel)
        return one->panel < other->panel ? -1 : 1;
    if (one->line != other->line)
        return one->line < other->line ? -1 : 1;
    if (one->x < other->x || one->x > other->x)
        return one->x < other->x ? -1 : 1;
    return text_compare(one->choice, other->choice);
}

/* Runs of one cell. */
struct cell {
    size_t n, seeds, out, asked; /* counted; left out; sound, reached or not */
    double sum, low, high;       /* of those counted; of those left out if none is */
    const char *why;             /* those left out are: "diverged" */
};

static void cell_include(struct cell *cell, double value)
{
    if (!isfinite(value))
        return;
    cell->low = isnan(cell->low) ? value : fmin(cell->low, value);
    cell->high = isnan(cell->high) ? value : fmax(cell->high, value);
}

static struct cell cell_of(const struct sample *sample, size_t count)
{
    struct cell ret = {.low = (double)NAN, .high = (double)NAN, .why = ""};

    for (size_t i = 0; i < count; i++) {
        bool known = false;

        if (sample[i].status != RUN_DONE) {
            ret.why = ret.out++ == 0 ||
                              strcmp(ret.why, run_status_name(sample[i].status)) == 0
                          ? run_status_name(sample[i].status)
                          : "left out";
            continue;
        }
        ret.asked++;
        if (!isfinite(sample[i].value))
            continue;
        for (size_t k = 0; k < i && !known; k++)
            known = sample[k].status == RUN_DONE && isfinite(sample[k].value) &&
                    strcmp(sample[k].seed, sample[i].seed) == 0;
        ret.seeds += known ? 0 : 1;
        ret.n++;
        ret.sum += sample[i].value;
        cell_include(&ret, sample[i].value);
    }
    for (size_t i = 0; i < count && ret.asked == 0; i++)
        cell_include(&ret, sample[i].value);
    return ret;
}

static bool apart(bool percent, const struct cell *cell, double best)
{
    double mean = cell->sum / (double)cell->n;

    if (cell->n < 2)
        return false;
    if (cell->n < cell->asked) /* the mean of those that got there would flatter */
        return true;
    if (percent)
        return cell->high - cell->low > APART_SHARE || mean < APART_OF_BEST * best;
    return cell->low > 0 && cell->high > APART_FACTOR * cell->low;
}

static const char *number_words(struct arena *arena, bool percent, double value)
{
    bool whole = fabs(value) < 9e15 && !(floor(value) < value); /* such as bytes */

    if (percent)
        return arena_format(arena, "%.2f %%", 100 * value);
    return arena_format(arena, whole ? "%.0f" : "%.6g", value);
}

static const char *range_words(struct arena *arena, bool percent,
                               const struct cell *cell)
{
    const char *low, *high;

    if (!isfinite(cell->low))
        return "";
    if (!(cell->high > cell->low))
        return number_words(arena, percent, cell->low);
    low =
        arena_format(arena, percent ? "%.0f" : "%.3g", (percent ? 100 : 1) * cell->low);
    high = arena_format(arena, percent ? "%.0f" : "%.3g",
                        (percent ? 100 : 1) * cell->high);
    if (strcmp(low, high) == 0) /* as far as that can be seen */
        return arena_format(arena, "%s%s", low, percent ? " %" : "");
    return arena_format(arena, "%s to %s%s", low, high, percent ? " %" : "");
}

/* "87.42 % (87.20 to 87.61)", "10 to 87 %, 1 of 3 diverged", "diverged: 9 to 11 %". */
static const char *words(struct arena *arena, bool percent, const struct cell *cell,
                         const char *state)
{
    const char *ret;

    if (cell->n == 0)
        return strcmp(state, "never") == 0 || !isfinite(cell->low)
                   ? state
                   : arena_format(arena, "%s: %s", state,
                                  range_words(arena, percent, cell));
    if (strcmp(state, "range") == 0) {
        ret = range_words(arena, percent, cell);
    } else {
        ret = number_words(arena, percent, cell->sum / (double)cell->n);
        if (cell->high > cell->low)
            ret = percent ? arena_format(arena, "%s (%.2f to %.2f)", ret,
                                         100 * cell->low, 100 * cell->high)
                          : arena_format(arena, "%s (%.4g to %.4g)", ret, cell->low,
                                         cell->high);
    }
    if (cell->n < cell->asked)
        ret = arena_format(arena, "%s, %zu of %zu", ret, cell->n, cell->asked);
    if (cell->n > cell->seeds)
        ret = arena_format(arena, "%s, %zu repeats of %zu seed%s", ret, cell->n,
                           cell->seeds, cell->seeds > 1 ? "s" : "");
    if (cell->out > 0)
        ret = arena_format(arena, "%s, %zu of %zu %s", ret, cell->out,
                           cell->out + cell->asked, cell->why);
    return ret;
}

json_t *samples_point(const struct samples *samples, const struct sample *sample,
                      size_t count, double best)
{
    struct cell cell = cell_of(sample, count);
    const char *state = "mean", *note = "";
    bool percent = sample->percent, range = apart(percent, &cell, best);

    if (cell.n == 0)
        state = cell.asked > 0 ? "never" : cell.why;
    else if (range)
        state = "range";
    if (sample->choice[0] != '\0')
        note = arena_format(samples->arena, "%s %s", samples->named, sample->choice);
    return json_pack(
        "{s:o, s:o, s:o, s:o, s:i, s:i, s:i, s:s, s:s, s:s}", "x",
        json_number(sample->x), "y",
        json_number(cell.n > 0 && !range ? cell.sum / (double)cell.n : (double)NAN),
        "low", json_number(cell.low), "high", json_number(cell.high), "n", (int)cell.n,
        "seeds", (int)cell.seeds, "out", (int)cell.out, "state", state, "note",
        text_utf8(samples->arena, note), "text",
        words(samples->arena, percent, &cell, state));
}

/* How many samples from `at` on have its panel, line and x; `choice` too. */
static size_t same_cell(const struct samples *samples, size_t at, bool choice)
{
    const struct sample *first = &samples->sample[at];
    size_t end = at + 1;

    while (end < samples->count && samples->sample[end].panel == first->panel &&
           samples->sample[end].line == first->line &&
           !(samples->sample[end].x > first->x) &&
           (!choice || strcmp(samples->sample[end].choice, first->choice) == 0))
        end++;
    return end - at;
}

/* What a choice is judged by: its mean, signed so that more is better. */
static double merit(const struct samples *samples, const struct sample *sample,
                    size_t count)
{
    struct cell cell = cell_of(sample, count);

    return cell.n > 0 ? samples->better * cell.sum / (double)cell.n : -(double)INFINITY;
}

/* Of the choices from `at` on, `count` samples, the best: where it begins. */
static size_t choose(struct samples *samples, size_t at, size_t count,
                     size_t *ret_count)
{
    size_t best = at, end = at + count;

    *ret_count = same_cell(samples, at, true);
    for (size_t i = at + *ret_count, own; i < end; i += own) {
        own = same_cell(samples, i, true);
        samples->chosen = true;
        if (merit(samples, &samples->sample[i], own) >
            merit(samples, &samples->sample[best], *ret_count)) {
            best = i;
            *ret_count = own;
        }
    }
    return best;
}

/* The highest mean of a panel, of shares; NaN: it has none. */
static double panel_best(const struct samples *samples, size_t at, size_t end)
{
    double ret = (double)NAN;

    for (size_t own; at < end; at += own) {
        struct cell cell;

        own = same_cell(samples, at, true);
        cell = cell_of(&samples->sample[at], own);
        if (samples->sample[at].percent && cell.n > 0)
            ret = fmax(ret, cell.sum / (double)cell.n);
    }
    return ret;
}

void samples_panels(struct samples *samples, json_t *chart, struct axis x,
                    struct axis y)
{
    json_t *panel = NULL, *line = NULL;
    double best = (double)NAN;

    if (samples->count > 0)
        qsort(samples->sample, samples->count, sizeof *samples->sample, by_cell);
    for (size_t i = 0, count; i < samples->count; i += count) {
        const struct sample *own = &samples->sample[i];
        size_t chosen, chosen_count, end = i;

        count = same_cell(samples, i, false);
        if (i == 0 || own->panel != own[-1].panel) {
            panel = chart_panel_add(samples->arena, chart,
                                    samples->panels.name[own->panel], x, y);
            while (end < samples->count && samples->sample[end].panel == own->panel)
                end++;
            best = panel_best(samples, i, end);
        }
        if (i == 0 || own->panel != own[-1].panel || own->line != own[-1].line)
            line =
                chart_line_add(samples->arena, panel, samples->lines.name[own->line]);
        chosen = choose(samples, i, count, &chosen_count);
        if (json_array_append_new(json_object_get(line, "points"),
                                  samples_point(samples, &samples->sample[chosen],
                                                chosen_count, best)) != 0)
            samples->arena->failed = true;
    }
}
