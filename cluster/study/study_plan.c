/* Multiplies a study's lists out: which runs there are, in which order, and in which
 * folders. */
#include "cluster/study/study.h"

#include "cluster/workloads/toy.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

/* Columns that study.csv has in any case, and that every run is given. */
static const char *const always[] = {"rule",  "workers", "seed",     "data",   "model",
                                     "batch", "lr",      "momentum", "epochs", "clock"};
#define ALWAYS (sizeof always / sizeof always[0])
/* ... of which a workload has its own. */
static const char *const own[] = {"data", "model", "batch"};
#define OWN (sizeof own / sizeof own[0])

/* ---- columns ------------------------------------------------------------- */

int plan_column(const struct plan *plan, const char *option)
{
    for (size_t i = 0; i < plan->columns; i++)
        if (strcmp(plan->column[i], option) == 0)
            return (int)i;
    return -1;
}

const char *plan_value(const struct plan *plan, const struct trial *trial,
                       const char *option)
{
    int column = plan_column(plan, option);

    return column >= 0 ? trial->value[column] : NULL;
}

static void add_columns(struct plan *plan, const struct study_options *options)
{
    for (size_t i = 0; i < options->count; i++)
        if (plan_column(plan, options->option[i].name) < 0)
            plan->column[plan->columns++] = options->option[i].name;
}

static bool make_columns(struct plan *plan)
{
    const struct study *study = plan->study;
    size_t most = ALWAYS + study->run.count;

    for (size_t i = 0; i < study->grids; i++)
        most += study->grid[i].options.count;
    plan->column = calloc(most, sizeof *plan->column);
    if (plan->column == NULL)
        return false;
    for (size_t i = 0; i < ALWAYS; i++)
        plan->column[plan->columns++] = always[i];
    add_columns(plan, &study->run);
    for (size_t i = 0; i < study->grids; i++)
        add_columns(plan, &study->grid[i].options);
    return true;
}

/* ---- names --------------------------------------------------------------- */

static uint32_t hash(const char *text)
{
    uint32_t ret = 2166136261u; /* FNV-1a */

    for (; *text != '\0'; text++)
        ret = (ret ^ (unsigned char)*text) * 16777619u;
    return ret;
}

/* Characters that are harmless in every file system and shell; false: one was changed
 * so that the name could be that of another cell. */
static bool make_harmless(char *name)
{
    bool same = true;

    for (; *name != '\0'; name++) {
        if (isalnum((unsigned char)*name) || strchr("._,+-", *name) != NULL)
            continue;
        same = same && *name == ':';
        *name = *name == ':' ? '.' : '_';
    }
    return same;
}

/* GRID-KEY_VALUE-KEY_VALUE... with every key of the grid's section, `seed` last. What
 * is in [run] is the same for all and left out; cell.txt has it. */
static char *make_name(const struct study_grid *grid,
                       const struct study_option *const *order, const size_t *at)
{
    size_t max = sizeof grid->name + 1, count = grid->options.count, used;
    char *name;
    uint32_t whole;

    for (size_t i = 0; i < count; i++)
        max += strlen(order[i]->name) + strlen(order[i]->value[at[i]].text) + 2;
    max += 10; /* the hash */
    name = malloc(max);
    if (name == NULL)
        return NULL;
    used = (size_t)snprintf(name, max, "%s", grid->name);
    for (size_t i = 0; i < count; i++)
        used += (size_t)snprintf(name + used, max - used, "-%s_%s", order[i]->name,
                                 order[i]->value[at[i]].text);
    whole = hash(name);
    if (!make_harmless(name) || used >= TRIAL_NAME_MAX) {
        used = used < TRIAL_NAME_MAX - 10 ? used : TRIAL_NAME_MAX - 10;
        (void)snprintf(name + used, max - used, "-%08x", whole);
    }
    return name;
}

/* ---- trials -------------------------------------------------------------- */

/* The grid's options, later ones varying faster, with `seed` at the end. */
static const struct study_option **make_order(const struct study_grid *grid)
{
    size_t count = grid->options.count, used = 0;
    const struct study_option **ret = calloc(count + 1, sizeof *ret);

    for (int seeds = 0; seeds < 2 && ret != NULL; seeds++)
        for (size_t i = 0; i < count; i++)
            if ((strcmp(grid->options.option[i].name, "seed") == 0) == (seeds == 1))
                ret[used++] = &grid->options.option[i];
    return ret;
}

static void set_values(const struct plan *plan, const struct settings *defaults,
                       const struct study_option *const *order, const size_t *at,
                       struct trial *trial)
{
    const struct study *study = plan->study;
    const char *model;

    for (size_t i = 0; i < ALWAYS; i++)
        trial->value[i] = options_text(defaults, always[i]);
    for (size_t i = 0; i < study->run.count; i++)
        trial->value[plan_column(plan, study->run.option[i].name)] =
            study->run.option[i].value[0].text;
    for (size_t i = 0; i < study->grid[trial->grid].options.count; i++)
        trial->value[plan_column(plan, order[i]->name)] = order[i]->value[at[i]].text;
    model = plan_value(plan, trial, "model");
    if (toy_is(model)) /* it needs no data: say none, rather than the default */
        trial->value[plan_column(plan, "data")] = NULL;
    for (size_t i = 0; plan_value(plan, trial, "workload") != NULL && i < OWN; i++)
        trial->value[plan_column(plan, own[i])] = NULL;
}

/* Adds the trials of one grid. */
static int make_trials(struct plan *plan, size_t index, struct gapless_error *error)
{
    const struct study_grid *grid = &plan->study->grid[index];
    const struct study_option **order = make_order(grid);
    size_t *at = calloc(grid->options.count + 1, sizeof *at);
    struct settings defaults;
    size_t digit;
    int status = GAPLESS_NO_MEMORY;

    options_defaults(FOR_SIMULATE, &defaults);
    if (order == NULL || at == NULL)
        goto done;
    do {
        struct trial *trial = &plan->trial[plan->trials];

        trial->grid = index;
        trial->model = -1;
        trial->name = make_name(grid, order, at);
        trial->value = calloc(plan->columns, sizeof *trial->value);
        plan->trials++;
        if (trial->name == NULL || trial->value == NULL)
            goto done;
        set_values(plan, &defaults, order, at, trial);
        for (digit = grid->options.count; digit > 0; digit--) {
            if (++at[digit - 1] < order[digit - 1]->count)
                break;
            at[digit - 1] = 0;
        }
    } while (digit > 0);
    status = GAPLESS_OK;
done:
    free(order);
    free(at);
    return status == GAPLESS_OK
               ? status
               : gapless_error_set(error, status, 0, "no memory for the list of runs");
}

static int count_trials(const struct study *study, size_t *ret,
                        struct gapless_error *error)
{
    size_t all = 0;

    for (size_t i = 0; i < study->grids; i++) {
        size_t trials = 1;

        for (size_t j = 0; j < study->grid[i].options.count; j++)
            if (trials <= PLAN_TRIALS_MAX)
                trials *= study->grid[i].options.option[j].count;
        if (trials > PLAN_TRIALS_MAX || (all += trials) > PLAN_TRIALS_MAX)
            return gapless_error_set(error, GAPLESS_INVALID, 0,
                                     "%.100s:%u: with [%s] the study has more than %u "
                                     "runs: shorten its lists, or make it several",
                                     study->path, study->grid[i].line,
                                     study->grid[i].name, PLAN_TRIALS_MAX);
    }
    *ret = all;
    return GAPLESS_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Two runs must not write into the same folder. */
static int check_names(const struct plan *plan, struct gapless_error *error)
{
    const char **names = calloc(plan->trials, sizeof *names);
    int status = GAPLESS_OK;

    if (names == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for the list of runs");
    for (size_t i = 0; i < plan->trials; i++)
        names[i] = plan->trial[i].name;
    qsort(names, plan->trials, sizeof *names, by_name);
    for (size_t i = 1; i < plan->trials && status == GAPLESS_OK; i++)
        if (strcmp(names[i - 1], names[i]) == 0)
            status = gapless_error_set(
                error, GAPLESS_INVALID, 0,
                "%.100s: two runs would have the folder %s: is a value in a list "
                "twice? Else give the grids other names",
                plan->study->path, names[i]);
    free(names);
    return status;
}

int plan_make(const struct study *study, struct plan *ret, struct gapless_error *error)
{
    struct plan plan = {.study = study};
    size_t trials = 0;
    int status = count_trials(study, &trials, error);

    if (status != GAPLESS_OK || trials == 0)
        return status;
    plan.trial = calloc(trials, sizeof *plan.trial);
    if (plan.trial == NULL || !make_columns(&plan)) {
        plan_close(&plan);
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for the list of runs");
    }
    for (size_t i = 0; status == GAPLESS_OK && i < study->grids; i++)
        status = make_trials(&plan, i, error);
    if (status == GAPLESS_OK)
        status = check_names(&plan, error);
    if (status != GAPLESS_OK) {
        plan_close(&plan);
        return status;
    }
    *ret = plan;
    return GAPLESS_OK;
}

void plan_close(struct plan *plan)
{
    for (size_t i = 0; i < plan->trials; i++) {
        free(plan->trial[i].name);
        free(plan->trial[i].value);
    }
    free(plan->trial);
    free(plan->column);
    memset(plan, 0, sizeof *plan);
}

static unsigned line_in(const struct study_options *options, const char *option,
                        const char *text)
{
    for (size_t i = 0; i < options->count; i++)
        for (size_t j = 0; j < options->option[i].count; j++)
            if (strcmp(options->option[i].name, option) == 0 &&
                strcmp(options->option[i].value[j].text, text) == 0)
                return options->option[i].value[j].line;
    return 0;
}

unsigned plan_line(const struct plan *plan, const struct trial *trial,
                   const char *option)
{
    const char *text = plan_value(plan, trial, option);
    unsigned line = 0;

    if (text != NULL)
        line = line_in(&plan->study->grid[trial->grid].options, option, text);
    if (text != NULL && line == 0)
        line = line_in(&plan->study->run, option, text);
    return line;
}

/* ---- what a run is given ------------------------------------------------- */

bool plan_settings(const struct plan *plan, const struct trial *trial,
                   struct settings *ret)
{
    struct parse_error reason;

    options_defaults(FOR_SIMULATE, ret);
    for (size_t i = 0; i < plan->columns; i++)
        if (trial->value[i] != NULL &&
            !options_set(FOR_SIMULATE, plan->column[i], trial->value[i], ret, &reason))
            return false;
    options_derive(FOR_SIMULATE, ret);
    return true;
}

char *plan_text(const struct plan *plan, const struct trial *trial)
{
    static const char *const except[] = {"out", "data-fd", "threads", NULL};
    char *line[OPTIONS_MAX];
    struct settings settings;
    size_t lines = 0, bytes = 1, used = 0;
    bool made =
        plan_settings(plan, trial, &settings) &&
        options_emit(&settings, FOR_SIMULATE, except, line, OPTIONS_MAX, &lines);
    char *ret;

    for (size_t i = 0; i < lines; i++)
        bytes += strlen(line[i]) + 1;
    ret = made ? malloc(bytes) : NULL;
    for (size_t i = 0; i < lines; i++) {
        if (ret != NULL)
            used += (size_t)snprintf(ret + used, bytes - used, "%s\n", line[i] + 2);
        free(line[i]);
    }
    return ret;
}
