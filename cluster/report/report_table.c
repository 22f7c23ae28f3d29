/* Tables of runs: means by rule, every run as in the CSV, the exact commands. */
#include "cluster/report/report_chart.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROWS_OPEN 40u  /* a longer table of runs starts folded */
#define ROWS_MAX 5000u /* of the page; the CSV has all */
#define COMMANDS_MAX 2000u

/* ---- means by rule ------------------------------------------------------- */

static const struct {
    const char *column, *head;
} means[] = {
    {"final_accuracy", "test accuracy"},
    {"final_loss", "test loss"},
    {"training_loss", "training loss"},
    {"time_to_target", "time to target, s"},
    {"virtual_seconds", "virtual s"},
    {"lag_mean", "lag"},
    {"gap_mean", "gap"},
    {"grad_norm_sq_min", "least |grad|²"},
    {"real_seconds", "real s"},
};
#define MEANS (sizeof means / sizeof means[0])

struct row {
    const char *place, *name;
    const struct report_run *run;
};

struct mean {
    double sum, low, high;
    unsigned count;
};

struct group {
    const struct row *row;
    size_t count;
    struct mean mean[MEANS];
};

static int by_row(const void *a, const void *b)
{
    const struct row *one = a, *other = b;
    int ret = report_compare(one->place, other->place);

    return ret != 0 ? ret : report_compare(one->name, other->name);
}

static double first_mean(const struct group *group)
{
    for (size_t m = 0; m < MEANS; m++)
        if (group->mean[m].count > 0)
            return (m == 0 ? -1 : 1) * group->mean[m].sum / group->mean[m].count;
    return (double)INFINITY;
}

/* The most accurate first; without accuracies, the least of the first quantity. */
static int by_mean(const void *a, const void *b)
{
    double one = first_mean(a), other = first_mean(b);

    if (one < other || one > other)
        return one < other ? -1 : 1;
    return by_row(((const struct group *)a)->row, ((const struct group *)b)->row);
}

static void group_fill(struct group *group, const struct report_set *set)
{
    for (size_t m = 0; m < MEANS; m++)
        for (size_t i = 0; i < group->count; i++) {
            double value = report_number(set, group->row[i].run, means[m].column);
            struct mean *mean = &group->mean[m];

            if (!isfinite(value))
                continue;
            mean->low = mean->count == 0 ? value : fmin(mean->low, value);
            mean->high = mean->count == 0 ? value : fmax(mean->high, value);
            mean->sum += value;
            mean->count++;
        }
}

static void group_cells(struct html *out, const struct group *group, const bool *used)
{
    html_raw(out, "<tr><th scope=\"row\">");
    html_text(out, group->row->name);
    html_format(out, "</th><td>%zu</td>", group->count);
    for (size_t m = 0; m < MEANS; m++) {
        const struct mean *mean = &group->mean[m];

        if (!used[m])
            continue;
        if (mean->count == 0) {
            html_raw(out, "<td></td>");
            continue;
        }
        html_format(out, "<td>%.5g", mean->sum / mean->count);
        if (mean->high > mean->low)
            html_format(out, " <small>%.4g to %.4g</small>", mean->low, mean->high);
        html_raw(out, "</td>");
    }
    html_raw(out, "</tr>\n");
}

static void place_table(struct html *out, struct group *group, size_t count,
                        const char *place)
{
    bool used[MEANS] = {false};

    for (size_t i = 0; i < count; i++)
        for (size_t m = 0; m < MEANS; m++)
            used[m] = used[m] || group[i].mean[m].count > 0;
    qsort(group, count, sizeof *group, by_mean);
    html_raw(out, "<div class=\"tw\"><table class=\"means\"><caption>");
    html_text(out, place[0] != '\0' ? place : "Means");
    html_raw(out, "</caption>\n<thead><tr><th scope=\"row\">rule</th>"
                  "<th scope=\"col\">runs</th>");
    for (size_t m = 0; m < MEANS; m++)
        if (used[m])
            html_format(out, "<th scope=\"col\">%s</th>", means[m].head);
    html_raw(out, "</tr></thead><tbody>\n");
    for (size_t i = 0; i < count; i++)
        group_cells(out, &group[i], used);
    html_raw(out, "</tbody></table></div>\n");
}

static void all_places(struct html *out, struct report_arena *arena,
                       const struct report_set *set, const struct row *row, size_t rows)
{
    struct group *group = arena_take(arena, (rows + 1) * sizeof *group);
    size_t groups = 0, place = 0;

    for (size_t i = 0; group != NULL && i < rows; i++) {
        if (i > 0 && by_row(&row[i], &row[i - 1]) == 0) {
            group[groups - 1].count++;
            continue;
        }
        group[groups++] = (struct group){.row = &row[i], .count = 1};
    }
    for (size_t i = 0; i < groups; i++)
        group_fill(&group[i], set);
    for (size_t i = 1; i <= groups; i++)
        if (i == groups || strcmp(group[i].row->place, group[place].row->place) != 0) {
            place_table(out, group + place, i - place, group[place].row->place);
            place = i;
        }
}

void page_summary(struct html *out, const struct report_set *set, const char *suffix)
{
    bool every = set->chart != NULL && strcmp(set->chart, "table") == 0;
    struct report_arena arena = {0};
    struct scope scope;
    struct row *row;
    size_t rows = 0;
    double most;

    scope_fill(&scope, &arena, set, NULL);
    scope_settle(&scope, "", NULL, "workers");
    most = scope_workers(&scope);
    row = arena_take(&arena, (scope.runs + 1) * sizeof *row);
    for (size_t i = 0; row != NULL && i < scope.runs; i++)
        if (every || !(report_number(set, scope.run[i], "workers") < most))
            row[rows++] =
                (struct row){scope_panel(&arena, &scope, scope.run[i]),
                             scope_name(&arena, &scope, scope.run[i]), scope.run[i]};
    if (rows > 1) {
        qsort(row, rows, sizeof *row, by_row);
        html_format(out, "<section id=\"means%s\"><h3>Means by rule</h3>\n", suffix);
        all_places(out, &arena, set, row, rows);
        html_raw(out, "<p class=\"note\">Means over the seeds, with the least and the "
                      "most of them.</p></section>\n");
    }
    if (arena.failed)
        out->failed = true;
    arena_free(&arena);
}

/* ---- every run ----------------------------------------------------------- */

/* A column of texts reads better from the left. */
static bool is_text(const struct report_set *set, size_t column)
{
    for (size_t i = 0; i < set->runs; i++) {
        const char *field = set->run[i].field[column];

        if (field != NULL)
            return !isfinite(report_parse(field));
    }
    return false;
}

static void run_row(struct html *out, const struct report_set *set, size_t at,
                    const bool *text)
{
    const struct report_run *run = &set->run[at];

    html_raw(out, "<tr>");
    for (size_t c = 0; c < set->columns; c++) {
        html_raw(out, c == 0    ? "<th scope=\"row\">"
                      : text[c] ? "<td class=\"t\">"
                                : "<td>");
        html_text(out, run->field[c] != NULL ? run->field[c] : "");
        html_raw(out, c == 0 ? "</th>" : "</td>");
    }
    html_raw(out, "</tr>\n");
}

void page_runs(struct html *out, const struct report_set *set, const char *suffix)
{
    struct report_arena arena = {0};
    bool *text = arena_take(&arena, (set->columns + 1) * sizeof *text);

    if (text == NULL) {
        out->failed = true;
        return;
    }
    html_format(
        out,
        "<section id=\"runs%s\"><h3>All runs</h3>\n<details%s><summary>%zu run%s, "
        "the columns of the CSV</summary>\n<div class=\"tw\">"
        "<table class=\"runs\"><thead><tr>",
        suffix, set->runs <= ROWS_OPEN ? " open" : "", set->runs,
        set->runs == 1 ? "" : "s");
    for (size_t c = 0; c < set->columns; c++) {
        text[c] = is_text(set, c);
        html_raw(out,
                 text[c] ? "<th scope=\"col\" class=\"t\">" : "<th scope=\"col\">");
        html_text(out, set->column[c]);
        html_raw(out, "</th>");
    }
    html_raw(out, "</tr></thead><tbody>\n");
    for (size_t i = 0; i < set->runs && i < ROWS_MAX; i++)
        run_row(out, set, i, text);
    html_raw(out, "</tbody></table></div>");
    if (set->runs > ROWS_MAX)
        html_format(out, "<p class=\"note\">The first %u; the CSV has all.</p>",
                    ROWS_MAX);
    html_raw(out, "</details></section>\n");
    arena_free(&arena);
}

/* ---- commands ------------------------------------------------------------ */

/* The different texts of all runs, in one line: hosts, versions. */
static void different(struct html *out, const struct report_set *set, bool host)
{
    const char *seen[8];
    size_t count = 0;

    for (size_t i = 0; i < set->runs && count < 8; i++) {
        const char *text = host ? set->run[i].host : set->run[i].version;
        bool known = text == NULL;

        for (size_t k = 0; k < count && !known; k++)
            known = strcmp(seen[k], text) == 0;
        if (known)
            continue;
        if (count == 0)
            html_raw(out, host ? " Host: " : " Gapless ");
        html_raw(out, count > 0 ? ", " : "");
        html_text(out, text);
        seen[count++] = text;
    }
    if (count > 0)
        html_raw(out, ".");
}

static const char *started(const struct report_set *set, bool last)
{
    const char *ret = NULL;

    for (size_t i = 0; i < set->runs; i++) {
        const char *own = set->run[i].started;

        if (own != NULL &&
            (ret == NULL || (last ? strcmp(own, ret) > 0 : strcmp(own, ret) < 0)))
            ret = own;
    }
    return ret;
}

static void run_commands(struct html *out, const struct report_set *set)
{
    size_t count = 0;

    for (size_t i = 0; i < set->runs; i++)
        count += set->run[i].command != NULL ? 1 : 0;
    if (count == 0)
        return;
    html_format(out,
                "<details%s><summary>The command of each run</summary>"
                "<pre class=\"commands\">",
                count <= 4 ? " open" : "");
    for (size_t i = 0, done = 0; i < set->runs && done < COMMANDS_MAX; i++) {
        if (set->run[i].command == NULL)
            continue;
        html_text(out, set->run[i].command);
        html_raw(out, "\n");
        done++;
    }
    html_raw(out, "</pre></details>\n");
}

void page_commands(struct html *out, const struct report_set *set, const char *suffix)
{
    const char *first = started(set, false), *last = started(set, true);

    html_format(out, "<section id=\"commands%s\"><h3>How to repeat it</h3>\n", suffix);
    if (set->study) {
        html_raw(out, "<pre>gapless study ");
        html_text(out, set->folder);
        html_raw(out, "/study.ini --out ");
        html_text(out, set->folder);
        html_raw(out, "</pre>\n");
    }
    run_commands(out, set);
    if (set->ini != NULL) {
        html_raw(out, "<details><summary>study.ini</summary><pre class=\"ini\">");
        html_text(out, set->ini);
        html_raw(out, "</pre></details>\n");
    }
    html_raw(out, "<p class=\"meta\">");
    different(out, set, false);
    different(out, set, true);
    if (first != NULL) {
        html_raw(out, " Started ");
        html_text(out, first);
        if (strcmp(first, last) != 0) {
            html_raw(out, " to ");
            html_text(out, last);
        }
        html_raw(out, ".");
    }
    html_raw(out, "</p></section>\n");
}
