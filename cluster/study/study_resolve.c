/* Checks the values of a study before anything runs, by the readers of the command
 * line. */
#include "cluster/study/study.h"

#include "cluster/task/config.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LIST_COMPARED_MAX 2000 /* in longer lists doubles are found by the folder */

static const char *const chart_names[] = {
    [CHART_TABLE] = "table",
    [CHART_ACCURACY_WORKERS] = "accuracy-workers",
    [CHART_LOSS_WORKERS] = "loss-workers",
    [CHART_ACCURACY_LR] = "accuracy-lr",
    [CHART_TIME_TO_TARGET] = "time-to-target",
    [CHART_GAP_COURSE] = "gap-course",
    [CHART_CONVERGENCE] = "convergence",
    [CHART_SCALE] = "scale",
};
#define CHARTS (sizeof chart_names / sizeof chart_names[0])

const char *study_chart_name(enum study_chart chart)
{
    return chart_names[chart];
}

__attribute__((format(printf, 4, 5))) static int refuse(const struct study *study,
                                                        unsigned line,
                                                        struct gapless_error *error,
                                                        const char *format, ...)
{
    char what[400];
    va_list list;

    va_start(list, format);
    (void)vsnprintf(what, sizeof what, format, list);
    va_end(list);
    return gapless_error_set(error, GAPLESS_INVALID, 0, "%.100s:%u: %s", study->path,
                             line, what);
}

/* ---- [study] ------------------------------------------------------------- */

static bool name_set(const char *text, struct study *study, struct parse_error *reason)
{
    size_t bytes = strlen(text);
    bool plain = bytes > 0 && bytes < sizeof study->name && text[0] != '.';

    for (size_t i = 0; i < bytes && plain; i++)
        plain = isalnum((unsigned char)text[i]) || strchr("._-", text[i]) != NULL;
    if (plain)
        (void)snprintf(study->name, sizeof study->name, "%s", text);
    else
        (void)snprintf(
            reason->text, sizeof reason->text,
            "takes letters, digits, '.', '_' and '-', at most %zu of them: it "
            "names a folder",
            sizeof study->name - 1);
    return plain;
}

static bool title_set(const char *text, struct study *study, struct parse_error *reason)
{
    if (strlen(text) >= sizeof study->title) {
        (void)snprintf(reason->text, sizeof reason->text,
                       "is longer than %zu bytes; say more in `about`",
                       sizeof study->title - 1);
        return false;
    }
    (void)snprintf(study->title, sizeof study->title, "%s", text);
    return true;
}

static bool about_set(const char *text, struct study *study, struct parse_error *reason)
{
    (void)reason;
    study->about = text;
    return true;
}

static bool target_set(const char *text, struct study *study,
                       struct parse_error *reason)
{
    static const struct real_bounds share = {0, 1, true, true};

    return parse_real(text, share, &study->target, reason);
}

static bool jobs_set(const char *text, struct study *study, struct parse_error *reason)
{
    uint64_t jobs;

    if (!parse_count(text, 0, 1024, &jobs, reason))
        return false;
    study->jobs = (uint32_t)jobs;
    return true;
}

static bool chart_set(const char *text, struct study *study, struct parse_error *reason)
{
    size_t used;

    for (size_t i = 0; i < CHARTS; i++)
        if (strcmp(text, chart_names[i]) == 0) {
            study->chart = (enum study_chart)i;
            return true;
        }
    used = (size_t)snprintf(reason->text, sizeof reason->text, "must be one of");
    for (size_t i = 0; i < CHARTS; i++)
        used += (size_t)snprintf(reason->text + used, sizeof reason->text - used,
                                 " %s,", chart_names[i]);
    (void)snprintf(reason->text + used, sizeof reason->text - used, " not '%.40s'",
                   text);
    return false;
}

static const struct {
    const char *name;
    bool (*set)(const char *text, struct study *study, struct parse_error *reason);
} head_keys[] = {
    {"name", name_set},     {"title", title_set}, {"about", about_set},
    {"target", target_set}, {"jobs", jobs_set},   {"chart", chart_set},
};
#define HEAD_KEYS (sizeof head_keys / sizeof head_keys[0])

static int head_one(struct study *study, const struct study_option *option,
                    struct gapless_error *error)
{
    struct parse_error reason;

    for (size_t i = 0; i < HEAD_KEYS; i++) {
        if (strcmp(option->name, head_keys[i].name) != 0)
            continue;
        if (option->count == 0)
            return refuse(study, option->line, error, "%s has no value", option->name);
        if (head_keys[i].set(option->value[0].text, study, &reason))
            return GAPLESS_OK;
        return refuse(study, option->line, error, "%s %s", option->name, reason.text);
    }
    return refuse(study, option->line, error,
                  "[study] knows name, title, about, target, jobs and chart, not "
                  "'%.40s'; options of the runs stand in [run] or [grid]",
                  option->name);
}

/* The name of the file, without folder and ending, as far as it is one. */
static void name_by_file(struct study *study)
{
    const char *slash = strrchr(study->path, '/');
    const char *base = slash != NULL ? slash + 1 : study->path;
    size_t bytes = strlen(base), used = 0;

    if (bytes > 4 && strcmp(base + bytes - 4, ".ini") == 0)
        bytes -= 4;
    for (size_t i = 0; i < bytes && used + 1 < sizeof study->name; i++)
        if (isalnum((unsigned char)base[i]) ||
            (used > 0 && strchr("._-", base[i]) != NULL))
            study->name[used++] = base[i];
    study->name[used] = '\0';
    if (used == 0)
        (void)snprintf(study->name, sizeof study->name, "study");
}

static int head_settle(struct study *study, struct gapless_error *error)
{
    int status = GAPLESS_OK;

    for (size_t i = 0; status == GAPLESS_OK && i < study->head.count; i++)
        status = head_one(study, &study->head.option[i], error);
    if (study->name[0] == '\0')
        name_by_file(study);
    if (study->title[0] == '\0')
        (void)snprintf(study->title, sizeof study->title, "%s", study->name);
    return status;
}

/* ---- options of the runs ------------------------------------------------- */

/* Options that the study itself sets, or that make no sense in it. */
static const char *reserved(const char *name)
{
    static const struct {
        const char *name, *reason;
    } list[] = {
        {"out", "is chosen by the study, a folder for each run"},
        {"data-fd", "is chosen by the study"},
        {"data-dir", "goes on the command line: gapless study FILE.ini --data-dir DIR"},
        {"threads", "is 1 in a study: it has a process a run; see jobs in [study]"},
        {"quiet", "goes on the command line: gapless study FILE.ini --quiet"},
        {"no-color", "goes on the command line: gapless study FILE.ini --no-color"},
        {"help", "goes on the command line: gapless simulate --help"},
        {"replay", "takes its settings from a record and has no place in a grid"},
    };

    for (size_t i = 0; i < sizeof list / sizeof list[0]; i++)
        if (strcmp(name, list[i].name) == 0)
            return list[i].reason;
    return NULL;
}

static int all_rules(struct study_option *option)
{
    struct gapless_rule rule;
    unsigned line = option->value[0].line, count = 0;
    struct study_value *list;

    while (gapless_rule_at(count, &rule) == GAPLESS_OK)
        count++;
    list = calloc(count, sizeof *list);
    if (list == NULL)
        return GAPLESS_NO_MEMORY;
    for (unsigned i = 0; i < count; i++) {
        (void)gapless_rule_at(i, &rule);
        list[i] = (struct study_value){strdup(rule.name), line};
    }
    free(option->value[0].text);
    free(option->value);
    option->value = list;
    option->count = count;
    option->all = true;
    for (unsigned i = 0; i < count; i++)
        if (list[i].text == NULL)
            return GAPLESS_NO_MEMORY;
    return GAPLESS_OK;
}

static int list_check(const struct study *study, const struct study_option *option,
                      bool lists, struct gapless_error *error)
{
    struct settings settings;
    struct parse_error reason;

    options_defaults(FOR_SIMULATE, &settings);
    for (size_t i = 0; i < option->count; i++) {
        const struct study_value *value = &option->value[i];

        if (!options_set(FOR_SIMULATE, option->name, value->text, &settings, &reason))
            return refuse(study, value->line, error, "%.60s %s%s", option->name,
                          reason.text,
                          !lists && strchr(value->text, ' ') != NULL
                              ? "; lists of values go to [grid]"
                              : "");
        for (size_t j = 0; j < i && option->count <= LIST_COMPARED_MAX; j++)
            if (strcmp(value->text, option->value[j].text) == 0)
                return refuse(study, value->line, error,
                              "%s has '%.60s' twice in its list", option->name,
                              value->text);
    }
    return GAPLESS_OK;
}

static int options_check(const struct study *study, struct study_options *options,
                         bool lists, struct gapless_error *error)
{
    for (size_t i = 0; i < options->count; i++) {
        struct study_option *option = &options->option[i];
        const char *reason = reserved(option->name);
        int status;

        if (reason != NULL)
            return refuse(study, option->line, error, "%s %s", option->name, reason);
        if (option->count == 0)
            return refuse(study, option->line, error, "%.60s has no value",
                          option->name);
        if (lists && strcmp(option->name, "rule") == 0 && option->count == 1 &&
            strcmp(option->value[0].text, "all") == 0 &&
            all_rules(option) != GAPLESS_OK)
            return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory");
        status = list_check(study, option, lists, error);
        if (status != GAPLESS_OK)
            return status;
    }
    return GAPLESS_OK;
}

/* ---- which rules are all ------------------------------------------------- */

static void set_first(const struct study_options *options, struct settings *settings)
{
    struct parse_error reason;

    for (size_t i = 0; i < options->count; i++)
        if (!options->option[i].all)
            (void)options_set(FOR_SIMULATE, options->option[i].name,
                              options->option[i].value[0].text, settings, &reason);
}

/* With every value of every list: the others are the first of theirs. */
static bool admits(const struct study *study, const struct study_options *grid,
                   const char *rule, struct gapless_error *error)
{
    struct settings settings;
    struct parse_error reason;

    for (size_t i = 0; i < grid->count; i++)
        for (size_t k = 0; k < grid->option[i].count; k++) {
            const struct study_option *option = &grid->option[i];

            options_defaults(FOR_SIMULATE, &settings);
            set_first(&study->run, &settings);
            set_first(grid, &settings);
            if (!option->all)
                (void)options_set(FOR_SIMULATE, option->name, option->value[k].text,
                                  &settings, &reason);
            settings.rule = rule;
            if (config_check_decay(&settings, error) != GAPLESS_OK ||
                config_check_local(&settings, error) != GAPLESS_OK)
                return false;
            if (option->all)
                break; /* once is enough */
        }
    return true;
}

static int say_left_out(struct study *study, const struct study_grid *grid,
                        const char *names, const struct gapless_error *why)
{
    char *text;

    if (asprintf(&text, "%sgapless study: rule = all in [%s] leaves out%s: %s\n",
                 study->left_out != NULL ? study->left_out : "", grid->name, names,
                 why->text) < 0)
        return GAPLESS_NO_MEMORY;
    free(study->left_out);
    study->left_out = text;
    return GAPLESS_OK;
}

/* Takes out what the other options do not admit; where that is all of them, it is no matter of
 * the rule, and a run will say what it is. */
static int leave_out(struct study *study, struct study_grid *grid,
                     struct study_option *option)
{
    struct gapless_error why = {0}, error = {0};
    char names[1200] = "";
    size_t kept = 0, used = 0;
    bool *good = calloc(option->count, sizeof *good);

    if (good == NULL)
        return GAPLESS_NO_MEMORY;
    for (size_t i = 0; i < option->count; i++) {
        good[i] = admits(study, &grid->options, option->value[i].text, &error);
        kept += good[i] ? 1 : 0;
        if (!good[i] && used + GAPLESS_NAME_MAX < sizeof names)
            used += (size_t)snprintf(names + used, sizeof names - used, "%s %.60s",
                                     used > 0 ? "," : "", option->value[i].text);
        if (!good[i] && why.status == GAPLESS_OK)
            why = error;
    }
    if (kept > 0 && kept < option->count) {
        size_t to = 0;

        for (size_t i = 0; i < option->count; i++)
            if (good[i])
                option->value[to++] = option->value[i];
            else
                free(option->value[i].text);
        option->count = to;
    }
    free(good);
    return kept > 0 && used > 0 ? say_left_out(study, grid, names, &why) : GAPLESS_OK;
}

static int settle_all(struct study *study, struct gapless_error *error)
{
    for (size_t i = 0; i < study->grids; i++)
        for (size_t k = 0; k < study->grid[i].options.count; k++) {
            struct study_option *option = &study->grid[i].options.option[k];

            if (option->all && leave_out(study, &study->grid[i], option) != GAPLESS_OK)
                return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory");
        }
    return GAPLESS_OK;
}

/* A workload's file is looked for beside the study's, then where the command was given. */
static bool place_workload(const struct study *study, struct study_value *value)
{
    const char *slash = strrchr(study->path, '/');
    size_t file = strcspn(value->text, " \t");
    int folder = slash != NULL ? (int)(slash - study->path) : 0;
    char *beside, *whole;
    bool there;

    if (value->text[0] == '/' || slash == NULL)
        return true;
    if (asprintf(&beside, "%.*s/%.*s", folder, study->path, (int)file, value->text) < 0)
        return false;
    there = access(beside, R_OK) == 0;
    free(beside);
    if (!there)
        return true;
    if (asprintf(&whole, "%.*s/%s", folder, study->path, value->text) < 0)
        return false;
    free(value->text);
    value->text = whole;
    return true;
}

static int place_workloads(const struct study *study, struct study_options *options,
                           struct gapless_error *error)
{
    for (size_t i = 0; i < options->count; i++)
        for (size_t k = 0; k < options->option[i].count; k++)
            if (strcmp(options->option[i].name, "workload") == 0 &&
                !place_workload(study, &options->option[i].value[k]))
                return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory");
    return GAPLESS_OK;
}

int study_resolve(struct study *study, struct gapless_error *error)
{
    int status = head_settle(study, error);

    if (status == GAPLESS_OK)
        status = options_check(study, &study->run, false, error);
    for (size_t i = 0; status == GAPLESS_OK && i < study->grids; i++)
        status = options_check(study, &study->grid[i].options, true, error);
    if (status == GAPLESS_OK)
        status = settle_all(study, error);
    if (status == GAPLESS_OK)
        status = place_workloads(study, &study->run, error);
    for (size_t i = 0; status == GAPLESS_OK && i < study->grids; i++)
        status = place_workloads(study, &study->grid[i].options, error);
    return status;
}
