/* The sentences at the top of the page: only what the runs say, counted and compared
 * here. */
#include "cluster/report/report_chart.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static size_t with_status(const struct report_set *set, const char *status)
{
    size_t ret = 0;

    for (size_t i = 0; i < set->runs; i++)
        ret += strcmp(report_field(set, &set->run[i], "status"), status) == 0 ? 1 : 0;
    return ret;
}

/* The different values of a column, up to 64. */
static size_t different(const struct report_set *set, const char *column,
                        const char **one)
{
    const char *seen[64];
    size_t count = 0;

    for (size_t i = 0; i < set->runs && count < 64; i++) {
        const char *field = report_field(set, &set->run[i], column);
        size_t k = 0;

        while (k < count && strcmp(seen[k], field) != 0)
            k++;
        if (k == count && field[0] != '\0')
            seen[count++] = field;
    }
    *one = count > 0 ? seen[0] : "";
    return count;
}

static void least_and_most(const struct report_set *set, const char *column,
                           double *least, double *most)
{
    *least = *most = (double)NAN;
    for (size_t i = 0; i < set->runs; i++)
        svg_include(SVG_LINEAR, report_number(set, &set->run[i], column), least, most);
}

/* ", 24 rules" or ", rule dana-ga". */
static void counted(struct html *out, const struct report_set *set, const char *column,
                    const char *one_is, const char *many)
{
    const char *one;
    size_t count = different(set, column, &one);

    if (count > 1)
        html_format(out, ", %zu%s %s", count, count == 64 ? " or more" : "", many);
    else if (count == 1 && one_is != NULL) {
        html_format(out, ", %s ", one_is);
        html_text(out, one);
    }
}

static void counts(struct html *out, const struct report_set *set)
{
    size_t failed = with_status(set, "failed"), missing = with_status(set, "missing");
    double least, most;

    html_format(out, "%zu run%s", set->runs, set->runs == 1 ? "" : "s");
    counted(out, set, "rule", "rule", "rules");
    least_and_most(set, "workers", &least, &most);
    if (isfinite(most) && most > least)
        html_format(out, ", %g to %g workers", least, most);
    else if (isfinite(most))
        html_format(out, ", %g worker%s", most, most > 1 ? "s" : "");
    counted(out, set, "seed", NULL, "seeds");
    counted(out, set, "model", "model", "models");
    counted(out, set, "data", "data", "data sets");
    html_raw(out, ".");
    if (failed > 0)
        html_format(out, " %zu failed.", failed);
    if (missing > 0)
        html_format(out, " %zu %s missing.", missing, missing == 1 ? "is" : "are");
}

/* ---- best and worst ------------------------------------------------------ */

struct standing {
    const char *rule, *lr;
    double sum;
    unsigned count;
};

static double standing_mean(const struct standing *s)
{
    return s->sum / s->count;
}

#define STANDINGS_MAX 256

static size_t standings(const struct scope *scope, const char *column,
                        struct standing ret[STANDINGS_MAX])
{
    size_t count = 0;

    for (size_t i = 0; i < scope->runs; i++) {
        const char *rule = report_field(scope->set, scope->run[i], "rule");
        const char *lr = report_field(scope->set, scope->run[i], "lr");
        double value = report_number(scope->set, scope->run[i], column);
        size_t k = 0;

        if (!isfinite(value) || rule[0] == '\0')
            continue;
        while (k < count &&
               (strcmp(ret[k].rule, rule) != 0 || strcmp(ret[k].lr, lr) != 0))
            k++;
        if (k == STANDINGS_MAX)
            continue;
        if (k == count)
            ret[count++] = (struct standing){rule, lr, 0, 0};
        ret[k].sum += value;
        ret[k].count++;
    }
    return count;
}

/* Leaves each rule once, with the learning rate that was best for it. */
static size_t best_rates(struct standing *standing, size_t count, double sign)
{
    size_t kept = 0;

    for (size_t i = 0; i < count; i++) {
        size_t k = 0;

        while (k < kept && strcmp(standing[k].rule, standing[i].rule) != 0)
            k++;
        if (k == kept)
            standing[kept++] = standing[i];
        else if (sign * standing_mean(&standing[i]) >
                 sign * standing_mean(&standing[k]))
            standing[k] = standing[i];
    }
    return kept;
}

/* Keeps the runs with the largest number in a column. */
static void keep_most(struct scope *scope, const char *column)
{
    double most = (double)NAN;
    size_t kept = 0;

    for (size_t i = 0; i < scope->runs; i++) {
        double own = report_number(scope->set, scope->run[i], column);

        if (!(most >= own) && isfinite(own))
            most = own;
    }
    for (size_t i = 0; i < scope->runs; i++)
        if (!(report_number(scope->set, scope->run[i], column) < most))
            scope->run[kept++] = scope->run[i];
    scope->runs = kept;
}

static void sentence(struct html *out, const struct scope *scope,
                     const struct standing *standing, size_t count, bool norm)
{
    double workers = scope_workers(scope), sign = norm ? -1 : 1;
    size_t best = 0, worst = 0;

    for (size_t k = 1; k < count; k++) {
        double own = sign * standing_mean(&standing[k]);

        best = own > sign * standing_mean(&standing[best]) ? k : best;
        worst = own < sign * standing_mean(&standing[worst]) ? k : worst;
    }
    if (isfinite(workers))
        html_format(out, " With %g worker%s, ", workers, workers > 1 ? "s" : "");
    else
        html_raw(out, " Of all runs, ");
    if (scope_varies(scope, "lr"))
        html_raw(out, "each rule at its best learning rate, ");
    html_text(out, standing[best].rule);
    html_raw(out, norm ? " reaches a squared gradient norm of "
                       : " ends at a test accuracy of ");
    html_format(out, "%.4g%s", standing_mean(&standing[best]),
                standing[best].count > 1 ? " in the mean" : "");
    if (count > 1 && best != worst) {
        html_format(out, count > 2 ? ", the best of %zu rules; " : "; ", count);
        html_text(out, standing[worst].rule);
        html_format(out, " at %.4g%s.", standing_mean(&standing[worst]),
                    count > 2 ? ", the worst" : "");
    } else {
        html_raw(out, ".");
    }
}

/* Compares the rules at the most workers and the longest runs, if nothing but the seed
 * and the learning rate differs there: means over unlike runs would say nothing. */
static void compare(struct html *out, const struct report_set *set)
{
    static const char *const except[] = {"lr", NULL};
    struct standing standing[STANDINGS_MAX];
    struct report_arena arena = {0};
    struct scope scope;
    size_t count;
    bool norm = false;

    scope_fill(&scope, &arena, set, NULL);
    keep_most(&scope, "workers");
    keep_most(&scope, "epochs");
    scope_settle(&scope, "", except, NULL);
    count = scope.names + scope.panels > 0
                ? 0
                : standings(&scope, "final_accuracy", standing);
    if (count == 0 && scope.names + scope.panels == 0) {
        count = standings(&scope, "grad_norm_sq_min", standing);
        norm = true;
    }
    count = best_rates(standing, count, norm ? -1 : 1);
    if (count > 0)
        sentence(out, &scope, standing, count, norm);
    if (arena.failed)
        out->failed = true;
    arena_free(&arena);
}

void page_facts(struct html *out, const struct report_set *set)
{
    html_raw(out, "<p class=\"fact\">");
    counts(out, set);
    compare(out, set);
    html_raw(out, "</p>\n");
}
