/* What a study found, for the terminal: tables that fit its chart, means over seeds.
 *
 *     accuracy in %, mean of 3 seeds; best of a column: *
 *
 *     rule            1       8      32
 *     nag-asgd    88.1*   87.1    61.7
 *     dana-ga     88.0    87.9*   86.9*
 */
#include "cluster/study/study.h"

#include "cluster/terminal/canvas.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TABLES_MAX 16u /* more are in the report */
#define COLUMNS_MAX 12u
#define TRIAL_COLUMNS 9

enum best {
    BEST_NONE,
    BEST_LEAST,
    BEST_MOST
};

struct measure {
    enum trial_number number;
    const char *name;
    double scale;
    int digits; /* behind the point; -1: three that count */
    enum best best;
};

static const struct measure accuracy = {TRIAL_FINAL_ACCURACY, "accuracy %", 100.0, 1,
                                        BEST_MOST};
static const struct measure seconds = {TRIAL_TIME_TO_TARGET, "time s", 1.0, 2,
                                       BEST_LEAST};
static const struct measure lag = {TRIAL_LAG_MEAN, "lag", 1.0, 2, BEST_NONE};
static const struct measure gap = {TRIAL_GAP_MEAN, "gap", 1.0, -1, BEST_NONE};
static const struct measure loss = {TRIAL_FINAL_LOSS, "loss", 1.0, 4, BEST_LEAST};
static const struct measure norm = {TRIAL_GRAD_NORM_SQ_MIN, "least squared gradient",
                                    1.0, -1, BEST_LEAST};
static const struct measure update_us = {TRIAL_MASTER_US_PER_UPDATE,
                                         "master, us an update", 1.0, 1, BEST_NONE};
static const struct measure master_mib = {TRIAL_MASTER_BYTES, "master, MiB",
                                          1.0 / 1048576.0, 1, BEST_NONE};

/* A chart's tables: a row a rule; across, the values of an option, or measures. */
static const struct layout {
    const char *across; /* option; NULL: the measures stand beside one another */
    const struct measure *measure[4];
    const char *besides; /* an option that goes along with `across`: not kept apart */
} layouts[] = {
    [CHART_TABLE] = {NULL, {&accuracy, &loss, &lag, &gap}, NULL},
    [CHART_ACCURACY_WORKERS] = {"workers", {&accuracy}, NULL},
    [CHART_ACCURACY_LR] = {"lr", {&accuracy}, NULL},
    [CHART_TIME_TO_TARGET] = {NULL, {&accuracy, &seconds}, NULL},
    [CHART_GAP_COURSE] = {NULL, {&accuracy, &lag, &gap}, NULL},
    [CHART_CONVERGENCE] = {"epochs", {&norm}, "lr"},
    [CHART_SCALE] = {"workers", {&update_us, &master_mib}, NULL},
};

/* One table: the trials that agree in all options but rule, seed and what is across. */
struct table {
    const struct plan *plan;
    const struct layout *layout;
    const struct measure *measure; /* where options are across */
    const struct trial *first;     /* stands for the table's options */
    const char *row[256], *column[COLUMNS_MAX];
    size_t rows, columns;
    bool columns_cut;
};

static bool same(const char *a, const char *b)
{
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

/* Whether an option may differ within a table. */
static bool within(const struct layout *layout, const char *option)
{
    return strcmp(option, "rule") == 0 || strcmp(option, "seed") == 0 ||
           (layout->across != NULL && strcmp(option, layout->across) == 0) ||
           (layout->besides != NULL && strcmp(option, layout->besides) == 0);
}

static bool in_table(const struct table *table, const struct trial *trial)
{
    const struct plan *plan = table->plan;

    /* Grids are kept apart, unless the study has one for each value across. */
    if (table->layout->besides == NULL && trial->grid != table->first->grid)
        return false;
    for (size_t i = 0; i < plan->columns; i++)
        if (!within(table->layout, plan->column[i]) &&
            !same(trial->value[i], table->first->value[i]))
            return false;
    return true;
}

static bool add_once(const char **list, size_t *count, size_t max, const char *text)
{
    for (size_t i = 0; i < *count; i++)
        if (same(list[i], text))
            return true;
    if (*count == max)
        return false;
    list[(*count)++] = text;
    return true;
}

static void collect(struct table *table)
{
    const struct plan *plan = table->plan;

    for (size_t i = 0; i < plan->trials; i++) {
        const struct trial *trial = &plan->trial[i];

        if (!in_table(table, trial))
            continue;
        (void)add_once(table->row, &table->rows, 256, plan_value(plan, trial, "rule"));
        if (table->layout->across != NULL &&
            !add_once(table->column, &table->columns, COLUMNS_MAX,
                      plan_value(plan, trial, table->layout->across)))
            table->columns_cut = true;
    }
}

/* The mean over seeds; NaN: no run is done, or one that is has not this number, as
 * where only some came to the target: their mean would flatter. */
static double mean_of(const struct table *table, const struct measure *measure,
                      const char *row, const char *column)
{
    const struct plan *plan = table->plan;
    double sum = 0.0;
    unsigned count = 0;

    for (size_t i = 0; i < plan->trials; i++) {
        const struct trial *trial = &plan->trial[i];

        if (trial->state != TRIAL_DONE || !same(plan_value(plan, trial, "rule"), row) ||
            !in_table(table, trial))
            continue;
        if (column != NULL &&
            !same(plan_value(plan, trial, table->layout->across), column))
            continue;
        if (!isfinite(trial->number[measure->number]))
            return (double)NAN;
        sum += trial->number[measure->number];
        count++;
    }
    return count > 0 ? measure->scale * sum / (double)count : (double)NAN;
}

static void number_text(const struct measure *measure, double value, char ret[32])
{
    if (!isfinite(value))
        (void)snprintf(ret, 32, "-");
    else if (measure->digits < 0)
        (void)snprintf(ret, 32, "%.3g", value);
    else
        (void)snprintf(ret, 32, "%.*f", measure->digits, value);
}

static bool is_best(const struct table *table, const struct measure *measure,
                    const double *values, size_t stride, size_t row)
{
    char mine[32], other[32];

    if (measure->best == BEST_NONE || !isfinite(values[row * stride]) ||
        table->rows < 2)
        return false;
    number_text(measure, values[row * stride], mine);
    for (size_t i = 0; i < table->rows; i++) {
        double value = values[i * stride];
        bool better = measure->best == BEST_MOST ? value > values[row * stride]
                                                 : value < values[row * stride];

        number_text(measure, value, other);
        if (better && strcmp(mine, other) != 0) /* as printed: ties are all marked */
            return false;
    }
    return true;
}

static const struct measure *measure_at(const struct table *table, size_t column)
{
    return table->layout->across != NULL ? table->measure
                                         : table->layout->measure[column];
}

static void print_rows(const struct table *table, size_t columns, const double *values,
                       bool color, FILE *out)
{
    for (size_t i = 0; i < table->rows; i++) {
        (void)fprintf(out, "  %-15.15s", table->row[i] != NULL ? table->row[i] : "");
        for (size_t j = 0; j < columns; j++) {
            const struct measure *measure = measure_at(table, j);
            bool best = is_best(table, measure, values + j, columns, i);
            char text[32];

            number_text(measure, values[i * columns + j], text);
            (void)fprintf(out, "%s%*s%s%s", best && color ? "\033[1;32m" : "",
                          TRIAL_COLUMNS + (table->layout->across == NULL ? 3 : 0), text,
                          best ? "*" : " ", best && color ? "\033[0m" : "");
        }
        (void)fputc('\n', out);
    }
}

static void print_head(const struct table *table, size_t columns, FILE *out)
{
    (void)fprintf(out, "  rule%s%-*s", table->layout->across != NULL ? " \\ " : "",
                  table->layout->across != NULL ? 8 : 11,
                  table->layout->across != NULL ? table->layout->across : "");
    for (size_t j = 0; j < columns; j++)
        (void)fprintf(out, "%*s ",
                      TRIAL_COLUMNS + (table->layout->across == NULL ? 3 : 0),
                      table->layout->across != NULL ? table->column[j]
                                                    : measure_at(table, j)->name);
    (void)fputc('\n', out);
}

static unsigned seeds_of(const struct plan *plan)
{
    const char *seed[16];
    size_t count = 0;

    for (size_t i = 0; i < plan->trials && count < 16; i++)
        (void)add_once(seed, &count, 16, plan_value(plan, &plan->trial[i], "seed"));
    return (unsigned)count;
}

/* What tells this table from the others of the study. */
static void print_title(const struct table *table, FILE *out)
{
    const struct plan *plan = table->plan;
    unsigned seeds = seeds_of(plan);
    bool any = false;

    (void)fprintf(out, "\n");
    if (plan->study->grids > 1 && table->layout->besides == NULL) {
        (void)fprintf(out, "  %s", plan->study->grid[table->first->grid].name);
        any = true;
    }
    for (size_t i = 0; i < plan->columns; i++) {
        bool differs = false;

        for (size_t j = 0; j < plan->trials && !differs; j++)
            differs = !same(plan->trial[j].value[i], table->first->value[i]);
        if (!differs || within(table->layout, plan->column[i]) ||
            table->first->value[i] == NULL)
            continue;
        (void)fprintf(out, "%s%s %s", any ? ", " : "  ", plan->column[i],
                      table->first->value[i]);
        any = true;
    }
    if (table->layout->across != NULL)
        (void)fprintf(out, "%s%s", any ? ": " : "  ", table->measure->name);
    any = any || table->layout->across != NULL;
    if (seeds > 1)
        (void)fprintf(out, "%smean of %u seeds", any ? ", " : "  ", seeds);
    if (any || seeds > 1)
        (void)fprintf(out, "\n");
}

static void print_table(struct table *table, bool color, FILE *out)
{
    size_t columns = 0;
    double *values;

    if (table->layout->across != NULL)
        columns = table->columns;
    else
        while (columns < 4 && table->layout->measure[columns] != NULL)
            columns++;
    values = calloc(table->rows * columns + 1, sizeof *values);
    if (values == NULL)
        return;
    for (size_t i = 0; i < table->rows; i++)
        for (size_t j = 0; j < columns; j++)
            values[i * columns + j] =
                mean_of(table, measure_at(table, j), table->row[i],
                        table->layout->across != NULL ? table->column[j] : NULL);
    print_title(table, out);
    print_head(table, columns, out);
    print_rows(table, columns, values, color, out);
    if (table->columns_cut)
        (void)fprintf(out, "  (more columns in study.csv)\n");
    free(values);
}

void study_tables(const struct plan *plan, bool color, FILE *out)
{
    static struct table table; /* large, and used once */
    const struct layout *layout = &layouts[plan->study->chart];
    bool *reported = calloc(plan->trials, sizeof *reported);
    unsigned tables = 0;

    for (size_t i = 0; reported != NULL && i < plan->trials; i++) {
        if (reported[i])
            continue;
        if (tables++ == TABLES_MAX)
            break;
        table =
            (struct table){.plan = plan, .layout = layout, .first = &plan->trial[i]};
        for (size_t j = i; j < plan->trials; j++)
            reported[j] = reported[j] || in_table(&table, &plan->trial[j]);
        collect(&table);
        for (size_t k = 0; k == 0 || (layout->across != NULL && k < 4); k++) {
            table.measure = layout->measure[k];
            if (table.measure != NULL)
                print_table(&table, color, out);
        }
    }
    if (tables > TABLES_MAX)
        (void)fprintf(out, "\n  (more tables in study.csv)\n");
    free(reported);
}
