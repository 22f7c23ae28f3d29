/* Which runs a chart is about, and how its lines and panels are kept apart: by the
 * options that vary. */
#include "cluster/report/charts.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

static const char *field(const struct run *run, size_t column)
{
    return run->field[column] != NULL ? run->field[column] : "";
}

void view_fill(struct view *ret, struct arena *arena, const struct set *set,
               const char *grid)
{
    *ret = (struct view){.arena = arena, .set = set, .grid = grid};
    ret->run = arena_take(arena, (set->runs + 1) * sizeof *ret->run);
    for (size_t i = 0; ret->run != NULL && i < set->runs; i++)
        if (run_has_numbers(set, &set->run[i]) &&
            (grid == NULL || strcmp(run_field(set, &set->run[i], "grid"), grid) == 0))
            ret->run[ret->runs++] = &set->run[i];
}

static bool varies(const struct view *view, size_t column)
{
    for (size_t i = 1; i < view->runs; i++)
        if (strcmp(field(view->run[0], column), field(view->run[i], column)) != 0)
            return true;
    return false;
}

/* Among the options only: a result may have an option's name. */
static size_t option(const struct set *set, const char *name)
{
    for (size_t c = set->options; c < set->results; c++)
        if (strcmp(set->column[c], name) == 0)
            return c;
    return SIZE_MAX;
}

bool view_varies(const struct view *view, const char *column)
{
    size_t at = option(view->set, column);

    return at != SIZE_MAX && varies(view, at);
}

size_t views_find(struct arena *arena, const struct set *set, const char *x,
                  struct view **ret)
{
    struct view *view = NULL;
    size_t count = 0;
    bool any = false;

    for (size_t i = 0; i < set->runs; i++) {
        const char *grid = run_field(set, &set->run[i], "grid");
        struct view *grown;
        bool known = false;

        for (size_t k = 0; k < count && !known; k++)
            known = strcmp(view[k].grid, grid) == 0;
        if (known)
            continue;
        grown = arena_grow(arena, view, count, sizeof *view);
        if (grown == NULL)
            return 0;
        view = grown;
        view_fill(&view[count], arena, set, grid);
        any = any || view_varies(&view[count], x);
        count++;
    }
    if (count > 1 && !any) {
        view_fill(&view[0], arena, set, NULL);
        count = 1;
    } else if (count == 1) {
        view[0].grid = NULL;
    }
    *ret = view;
    return count;
}

#define SEEN_MAX 64

/* Does the value of column `by` say that of column `of`? */
static bool determined(const struct view *view, size_t of, size_t by)
{
    const struct run *seen[SEEN_MAX];
    size_t count = 0;

    for (size_t i = 0; i < view->runs; i++) {
        const struct run *run = view->run[i];
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

void view_settle(struct view *view, const char *x, const char *const *except,
                 const char *extra)
{
    static const char *const apart[] = {"data", "model", "clock", NULL};
    const struct set *set = view->set;
    size_t rule = option(set, "rule"), x_at = option(set, x);

    view->names = view->panels = 0;
    for (size_t c = set->options; c < set->results; c++) {
        const char *name = set->column[c];

        if (strcmp(name, "seed") == 0 || strcmp(name, x) == 0 || c == rule ||
            listed(name, except) || !varies(view, c))
            continue;
        if (listed(name, apart) || (extra != NULL && strcmp(name, extra) == 0)) {
            if (view->panels < VIEW_COLUMNS)
                view->panel[view->panels++] = c;
        } else if (view->names < VIEW_COLUMNS &&
                   (rule == SIZE_MAX || !determined(view, c, rule)) &&
                   (x_at == SIZE_MAX || !determined(view, c, x_at))) {
            view->name[view->names++] = c;
        }
    }
}

const char *view_name(const struct view *view, const struct run *run)
{
    const char *ret = run_field(view->set, run, "rule");

    /* One rule only, and something else varies: that says it all. */
    if (view->names > 0 && !view_varies(view, "rule"))
        ret = "";
    for (size_t i = 0; i < view->names; i++) {
        const char *value = field(run, view->name[i]);

        ret = arena_format(view->arena, "%s%s%s %s", ret, ret[0] != '\0' ? ", " : "",
                           view->set->column[view->name[i]],
                           value[0] != '\0' ? value : "-");
    }
    return ret[0] != '\0' ? ret : "run";
}

const char *view_panel(const struct view *view, const struct run *run)
{
    const char *ret = view->grid != NULL ? view->grid : "";

    for (size_t i = 0; i < view->panels; i++) {
        const char *column = view->set->column[view->panel[i]];
        const char *value = field(run, view->panel[i]), *behind = "";

        if (value[0] == '\0')
            continue;
        if (strcmp(column, "workers") == 0)
            behind = strcmp(value, "1") == 0 ? " worker" : " workers";
        ret = arena_format(view->arena, "%s%s%s%s", ret, ret[0] != '\0' ? ", " : "",
                           value, behind);
    }
    return ret;
}

double view_most(const struct view *view, const char *column)
{
    double ret = (double)NAN;

    for (size_t i = 0; i < view->runs; i++) {
        double own = run_number(view->set, view->run[i], column);

        if (!(ret >= own) && isfinite(own))
            ret = own;
    }
    return ret;
}

void view_keep_most(struct view *view, const char *column)
{
    double most = view_most(view, column);
    size_t kept = 0;

    for (size_t i = 0; i < view->runs; i++)
        if (!(run_number(view->set, view->run[i], column) < most))
            view->run[kept++] = view->run[i];
    view->runs = kept;
}
