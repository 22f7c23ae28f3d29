/* Which runs a chart is about, and how its lines and panels are given apart: by the
 * options that vary. */
#include "cluster/report/report_chart.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

static const char *field(const struct report_run *run, size_t column)
{
    return run->field[column] != NULL ? run->field[column] : "";
}

void scope_fill(struct scope *ret, struct report_arena *arena,
                const struct report_set *set, const char *grid)
{
    *ret = (struct scope){.set = set, .grid = grid};
    ret->run = arena_take(arena, (set->runs + 1) * sizeof *ret->run);
    for (size_t i = 0; ret->run != NULL && i < set->runs; i++)
        if (report_done(set, &set->run[i]) &&
            (grid == NULL ||
             strcmp(report_field(set, &set->run[i], "grid"), grid) == 0))
            ret->run[ret->runs++] = &set->run[i];
}

static bool varies(const struct scope *scope, size_t column)
{
    for (size_t i = 1; i < scope->runs; i++)
        if (strcmp(field(scope->run[0], column), field(scope->run[i], column)) != 0)
            return true;
    return false;
}

/* Among the options only: a result may have an option's name. */
static size_t option(const struct report_set *set, const char *name)
{
    for (size_t c = set->options; c < set->results; c++)
        if (strcmp(set->column[c], name) == 0)
            return c;
    return SIZE_MAX;
}

bool scope_varies(const struct scope *scope, const char *column)
{
    size_t at = option(scope->set, column);

    return at != SIZE_MAX && varies(scope, at);
}

size_t scopes_find(struct report_arena *arena, const struct report_set *set,
                   const char *x, struct scope **ret)
{
    struct scope *scope = NULL;
    size_t count = 0;
    bool any = false;

    for (size_t i = 0; i < set->runs; i++) {
        const char *grid = report_field(set, &set->run[i], "grid");
        struct scope *grown;
        bool known = false;

        for (size_t k = 0; k < count && !known; k++)
            known = strcmp(scope[k].grid, grid) == 0;
        if (known)
            continue;
        grown = arena_grow(arena, scope, count, sizeof *scope);
        if (grown == NULL)
            return 0;
        scope = grown;
        scope_fill(&scope[count], arena, set, grid);
        any = any || scope_varies(&scope[count], x);
        count++;
    }
    if (count > 1 && !any) {
        scope_fill(&scope[0], arena, set, NULL);
        count = 1;
    } else if (count == 1) {
        scope[0].grid = NULL;
    }
    *ret = scope;
    return count;
}

/* ---- names --------------------------------------------------------------- */

#define SEEN_MAX 64

/* Does the value of column `by` say that of column `of`? */
static bool determined(const struct scope *scope, size_t of, size_t by)
{
    const struct report_run *seen[SEEN_MAX];
    size_t count = 0;

    for (size_t i = 0; i < scope->runs; i++) {
        const struct report_run *run = scope->run[i];
        size_t k = 0;

        while (k < count && strcmp(field(seen[k], by), field(run, by)) != 0)
            k++;
        if (k == SEEN_MAX)
            return false;
        if (k == count)
            seen[count++] = run;
        else if (strcmp(field(seen[k], of), field(run, of)) != 0)
            return false;
    }
    return true;
}

static bool listed(const char *name, const char *const *list)
{
    for (; list != NULL && *list != NULL; list++)
        if (strcmp(*list, name) == 0)
            return true;
    return false;
}

void scope_settle(struct scope *scope, const char *x, const char *const *except,
                  const char *extra)
{
    static const char *const apart[] = {"data", "model", "clock", NULL};
    const struct report_set *set = scope->set;
    size_t rule = option(set, "rule"), x_at = option(set, x);

    scope->names = scope->panels = 0;
    for (size_t c = set->options; c < set->results; c++) {
        const char *name = set->column[c];

        if (strcmp(name, "seed") == 0 || strcmp(name, x) == 0 || c == rule ||
            listed(name, except) || !varies(scope, c))
            continue;
        if (listed(name, apart) || (extra != NULL && strcmp(name, extra) == 0)) {
            if (scope->panels < SCOPE_COLUMNS)
                scope->panel[scope->panels++] = c;
        } else if (scope->names < SCOPE_COLUMNS &&
                   (rule == SIZE_MAX || !determined(scope, c, rule)) &&
                   (x_at == SIZE_MAX || !determined(scope, c, x_at))) {
            scope->name[scope->names++] = c;
        }
    }
}

const char *scope_name(struct report_arena *arena, const struct scope *scope,
                       const struct report_run *run)
{
    const char *ret = report_field(scope->set, run, "rule");

    /* One rule only, and something else varies: that says it all. */
    if (scope->names > 0 && !scope_varies(scope, "rule"))
        ret = "";
    for (size_t i = 0; i < scope->names; i++)
        ret = arena_format(
            arena, "%s%s%s %s", ret, ret[0] != '\0' ? ", " : "",
            scope->set->column[scope->name[i]],
            field(run, scope->name[i])[0] != '\0' ? field(run, scope->name[i]) : "-");
    return ret[0] != '\0' ? ret : "run";
}

const char *scope_panel(struct report_arena *arena, const struct scope *scope,
                        const struct report_run *run)
{
    const char *ret = "";

    for (size_t i = 0; i < scope->panels; i++) {
        const char *column = scope->set->column[scope->panel[i]];
        const char *value = field(run, scope->panel[i]);

        if (strcmp(column, "workers") == 0)
            ret =
                arena_format(arena, "%s%s%s worker%s", ret, ret[0] != '\0' ? ", " : "",
                             value, strcmp(value, "1") == 0 ? "" : "s");
        else
            ret = arena_format(arena, "%s%s%s", ret, ret[0] != '\0' ? ", " : "", value);
    }
    return ret;
}

double scope_workers(const struct scope *scope)
{
    double ret = (double)NAN;

    for (size_t i = 0; i < scope->runs; i++) {
        double workers = report_number(scope->set, scope->run[i], "workers");

        if (!(ret >= workers) && isfinite(workers))
            ret = workers;
    }
    return ret;
}

/* ---- colours ------------------------------------------------------------- */

struct score {
    const char *rule;
    double sum;
    size_t count;
    bool ours, baseline;
};

static double score_of(const struct score *score)
{
    return score->count > 0 ? score->sum / (double)score->count : -1e300;
}

/* The rules of a set with their mean accuracy at the largest number of workers; of test
 * functions, minus the gradient's norm. */
static size_t scores_find(struct report_arena *arena, const struct report_set *set,
                          struct score **ret)
{
    struct scope all;
    struct score *score = NULL;
    size_t count = 0;
    double most;

    scope_fill(&all, arena, set, NULL);
    most = scope_workers(&all);
    for (size_t i = 0; i < all.runs; i++) {
        const char *rule = report_field(set, all.run[i], "rule");
        double value = report_number(set, all.run[i], "final_accuracy"), norm;
        size_t k = 0;

        while (k < count && strcmp(score[k].rule, rule) != 0)
            k++;
        if (k == count) {
            struct score *grown = arena_grow(arena, score, count, sizeof *score);
            struct gapless_rule known;

            if (grown == NULL)
                break;
            score = grown;
            score[k].rule = rule;
            score[k].baseline =
                strcmp(rule, "nag-asgd") == 0 || strcmp(rule, "ssgd") == 0;
            score[k].ours = gapless_rule_find(rule, &known, NULL) == GAPLESS_OK &&
                            strcmp(known.source, "this project") == 0;
            count++;
        }
        norm = report_number(set, all.run[i], "grad_norm_sq_min");
        if (!isfinite(value))
            value = -norm;
        if (isfinite(value) && report_number(set, all.run[i], "workers") >= most) {
            score[k].sum += value;
            score[k].count++;
        }
    }
    *ret = score;
    return count;
}

/* Takes the best that is left, of ours, of the baselines, or of all. */
static void take(struct styles *ret, struct score *score, size_t count, size_t wanted,
                 bool ours, bool baseline)
{
    for (; wanted > 0 && ret->count < SVG_STYLES; wanted--) {
        struct score *best = NULL;

        for (size_t i = 0; i < count; i++)
            if (score[i].rule != NULL && (!ours || score[i].ours) &&
                (!baseline || score[i].baseline) &&
                (best == NULL || score_of(&score[i]) > score_of(best)))
                best = &score[i];
        if (best == NULL)
            return;
        ret->name[ret->count++] = best->rule;
        best->rule = NULL;
    }
}

void styles_choose(struct styles *ret, struct report_arena *arena,
                   const struct report_set *set)
{
    struct score *score;
    size_t count = scores_find(arena, set, &score);

    *ret = (struct styles){.rules = count};
    if (count <= SVG_STYLES) {
        take(ret, score, count, count, false, false);
        return;
    }
    take(ret, score, count, 3, true, false);  /* ours */
    take(ret, score, count, 2, false, true);  /* what to beat */
    take(ret, score, count, 2, false, false); /* the best of the rest */
}

#define NAMES_MAX 256

void styles_apply(const struct styles *styles, struct chart *chart)
{
    const char *name[NAMES_MAX];
    int style[NAMES_MAX];
    bool taken[SVG_STYLES] = {false};
    size_t count = 0, matched = 0, next = 0;

    for (size_t p = chart->panels; p-- > 0;) /* the last panel has the largest N */
        for (size_t i = 0; i < chart->panel[p].lines; i++) {
            const char *own = chart->panel[p].line[i].name;
            size_t k = 0;

            while (k < count && strcmp(name[k], own) != 0)
                k++;
            if (k < count || count == NAMES_MAX)
                continue;
            style[k] = SVG_GREY;
            name[count++] = own;
            for (size_t s = 0; s < styles->count; s++)
                if (strcmp(styles->name[s], own) == 0) {
                    style[k] = (int)s;
                    taken[s] = true;
                    matched++;
                }
        }
    for (size_t k = 0; k < count; k++) {
        if (style[k] != SVG_GREY || (count > SVG_STYLES && (matched > 0 || next >= 6)))
            continue;
        while (next < SVG_STYLES && taken[next])
            next++;
        if (next < SVG_STYLES)
            style[k] = (int)next++;
    }
    for (size_t p = 0; p < chart->panels; p++)
        for (size_t i = 0; i < chart->panel[p].lines; i++) {
            struct chart_line *line = &chart->panel[p].line[i];

            line->style = SVG_GREY;
            for (size_t k = 0; k < count; k++)
                if (strcmp(name[k], line->name) == 0)
                    line->style = style[k];
        }
}
