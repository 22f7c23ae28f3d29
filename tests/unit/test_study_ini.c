/* A study's file: what is read, what is refused and in which line; which runs there
 * are, in which order and folders. */
#include "cluster/study/study.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>

#include <cmocka.h>
#include <glob.h>
#include <stdlib.h>
#include <string.h>

static int read_text(const char *text, struct study *ret, struct gapless_error *error)
{
    FILE *stream = fmemopen((void *)(uintptr_t)text, strlen(text), "r");
    int status;

    assert_non_null(stream);
    status = study_read_stream(stream, "dir/some.ini", ret, error);
    (void)fclose(stream);
    return status;
}

static void good(const char *text, struct study *ret)
{
    struct gapless_error error = {0};

    if (read_text(text, ret, &error) != GAPLESS_OK)
        fail_msg("%s\n%s", text, error.text);
}

static const struct study_option *find(const struct study_options *in, const char *name)
{
    for (size_t i = 0; i < in->count; i++)
        if (strcmp(in->option[i].name, name) == 0)
            return &in->option[i];
    fail_msg("there is no %s", name);
    return NULL;
}

static void expect(const struct study_option *option, size_t index, const char *text,
                   unsigned line)
{
    assert_true(index < option->count);
    assert_string_equal(option->value[index].text, text);
    assert_int_equal(option->value[index].line, line);
}

/* ---- what is read -------------------------------------------------------- */

static void test_all_of_it(void **state)
{
    static const char text[] = "\xef\xbb\xbf; a study\r\n"
                               "[ study ]\r\n"
                               "name = one.two-3\r\n"
                               "title = A title ; and a comment\r\n"
                               "about = The first line,\r\n"
                               "   # a comment in between\r\n"
                               "\r\n"
                               "\tthe second; x = y ; not this\r\n"
                               "target = 0.5\r\n"
                               "jobs = 3\r\n"
                               "chart = scale\r\n"
                               "[run]\r\n"
                               "data: synthetic\r\n"
                               "events = 1s kill 0; 2s join\r\n"
                               "[grid a.b]\r\n"
                               "rule = asgd\r\n"
                               "   nag-asgd\tga\r\n"
                               "events = \"3s join\" \"1s kill 1; 2s join\"\r\n"
                               "[grid]\r\n"
                               "lr=.5 5e-1";
    struct study study;

    (void)state;
    good(text, &study);
    assert_string_equal(study.name, "one.two-3");
    assert_string_equal(study.title, "A title");
    assert_string_equal(study.about, "The first line, the second; x = y");
    assert_true(study.target > 0.499 && study.target < 0.501);
    assert_int_equal(study.jobs, 3);
    assert_int_equal(study.chart, CHART_SCALE);
    expect(find(&study.run, "data"), 0, "synthetic", 13);
    expect(find(&study.run, "events"), 0, "1s kill 0; 2s join", 14);
    assert_int_equal(study.grids, 2);
    assert_string_equal(study.grid[0].name, "a.b");
    assert_int_equal(find(&study.grid[0].options, "rule")->count, 3);
    expect(find(&study.grid[0].options, "rule"), 0, "asgd", 16);
    expect(find(&study.grid[0].options, "rule"), 2, "ga", 17);
    expect(find(&study.grid[0].options, "events"), 0, "3s join", 18);
    expect(find(&study.grid[0].options, "events"), 1, "1s kill 1; 2s join", 18);
    assert_string_equal(study.grid[1].name, "grid");
    assert_int_equal(find(&study.grid[1].options, "lr")->count, 2);
    study_close(&study);
}

static void test_defaults(void **state)
{
    struct study study;

    (void)state;
    good("", &study);
    assert_string_equal(study.name, "some");
    assert_string_equal(study.title, "some");
    assert_string_equal(study.about, "");
    assert_true(study.target > 0.849 && study.target < 0.851);
    assert_int_equal(study.jobs, 0);
    assert_int_equal(study.chart, CHART_TABLE);
    assert_int_equal(study.grids, 1); /* one run */
    assert_int_equal(study.grid[0].options.count, 0);
    study_close(&study);
}

static void test_all_rules(void **state)
{
    struct gapless_rule rule;
    struct study study;
    unsigned rules = 0;

    (void)state;
    good("[grid]\nrule = all\n", &study);
    while (gapless_rule_at(rules, &rule) == GAPLESS_OK)
        expect(&study.grid[0].options.option[0], rules++, rule.name, 2);
    assert_true(rules > 20);
    assert_int_equal(study.grid[0].options.option[0].count, rules);
    study_close(&study);
}

/* `all` is what the other options admit; what is not is named, with the reason. */
static void test_all_rules_that_fit(void **state)
{
    struct study study;
    const struct study_option *option;
    size_t every;

    (void)state;
    good("[grid]\nrule = all\n", &study);
    every = study.grid[0].options.option[0].count;
    assert_null(study.left_out);
    study_close(&study);
    good("[run]\nkappa = 5\n[grid]\nrule = all\nlocal-steps = 4 8\n[grid two]\nrule = "
         "all\n",
         &study);
    option = &study.grid[0].options.option[0];
    assert_true(option->count < every && option->count > every - 6);
    for (size_t i = 0; i < option->count; i++)
        assert_true(strcmp(option->value[i].text, "easgd") != 0 &&
                    strcmp(option->value[i].text, "dana-slim") != 0);
    assert_non_null(strstr(study.left_out, "in [grid] leaves out"));
    assert_non_null(strstr(study.left_out, "easgd, eamsgd"));
    assert_non_null(strstr(study.left_out, "is not for rule"));
    assert_null(strstr(study.left_out, "[two]"));
    assert_int_equal(study.grid[1].options.option[0].count, every);
    study_close(&study);
    good("[run]\nweight-decay = 0.1\n[grid]\nrule = all\n", &study);
    assert_non_null(strstr(study.left_out, " adamw"));
    study_close(&study);
    good("[run]\nclip-norm = 1\nlocal-steps = 4\n[grid]\nrule = all\n", &study);
    assert_int_equal(study.grid[0].options.option[0].count, every); /* of no rule */
    assert_null(study.left_out);
    study_close(&study);
}

/* ---- what is refused ----------------------------------------------------- */

static const struct {
    const char *text;
    unsigned line; /* 0: none is told */
    const char *part;
} mistakes[] = {
    {"[grid]\n\nwrokers = 1\n", 3, "did you mean workers?"},
    {"[run]\nhalf-life = 1\n", 2, "is no option of gapless simulate"},
    {"[grid]\nworkers = 1 0\n", 2, "at least 1"},
    {"[grid]\nworkers = 1\n 2\n x\n", 4, "whole number"},
    {"[grid]\nworkers = 1 8 1\n", 2, "'1' twice"},
    {"[grid]\nlr = 0\n", 2, "above 0"},
    {"[grid]\nrule = asgd dana-gaa\n", 2, "did you mean 'dana-ga'?"},
    {"[run]\nrule = all\n", 2, "no rule 'all'"},
    {"[grid]\nrule = all asgd\n", 2, "no rule 'all'"},
    {"[grid]\nworkers = 1\n[grid two]\nworkers = 1\nworkers = 2\n", 5,
     "line 4 already"},
    {"[run]\nlr = 1\nlr = 1\n", 3, "line 2 already"},
    {"[run]\nlr = 1 2\n", 2, "lists of values go to [grid]"},
    {"[grid]\nworkers =\n", 2, "no value"},
    {"[run]\nworkers = ; 3\n", 2, "no value"},
    {"[study]\ntitle =\n", 2, "no value"},
    {"# nothing\nworkers = 1\n", 2, "in no section"},
    {"[run]\nworkers 1\n", 2, "neither NAME = VALUE"},
    {"[run]\nworkers 1\n[grid]\nfoo = 1\n", 2, "neither NAME = VALUE"},
    {"[run\nworkers = 1\n", 1, "ends with ']'"},
    {"[nothing]\n", 1, "no section [nothing]"},
    {"[gridlock]\nlr = 1\n", 1, "no section [gridlock]"},
    {"[run]\n[study]\n[run]\n", 3, "[run] already"},
    {"[grid]\n[grid a]\n[grid]\n", 3, "line 1"},
    {"[grid a b]\n", 1, "grid's name"},
    {"[grid ../x]\n", 1, "grid's name"},
    {"[grid 12345678901234567890123456789012345678901]\n", 1, "grid's name"},
    {"[study]\nrule = asgd\n", 2, "stand in [run] or [grid]"},
    {"[study]\nchart = pie\n", 2, "accuracy-workers"},
    {"[study]\nname = a/b\n", 2, "names a folder"},
    {"[study]\nname = ..\n", 2, "names a folder"},
    {"[study]\ntarget = 1\n", 2, "below 1"},
    {"[study]\njobs = -1\n", 2, "whole number"},
    {"[grid]\nout = x\n", 2, "chosen by the study"},
    {"[run]\nthreads = 4\n", 2, "jobs in [study]"},
    {"[run]\ndata-dir = /\n", 2, "command line"},
    {"[run]\nhelp = 1\n", 2, "command line"},
    {"[run]\nreplay = x\n", 2, "no place in a grid"},
    {"[run]\nworker-timeout = 1\n", 2, "is no option of gapless simulate"},
    {"[run]\nssgd-scale-rate = perhaps\n", 2, "1 or 0"},
    {"[grid]\nevents = \"1s kill 0\n", 2, "quotation mark"},
    {"[grid]\nevents = \"1s\"kill 0\n", 2, "quotation mark"},
    {"[grid]\nrule = asgd\n  workers = 3\n", 3, "goes on with the value of 'rule'"},
};

static void test_mistakes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof mistakes / sizeof mistakes[0]; i++) {
        struct study study = {.jobs = 77};
        struct gapless_error error = {0};
        char where[40];

        (void)snprintf(where, sizeof where, "dir/some.ini:%u: ", mistakes[i].line);
        if (read_text(mistakes[i].text, &study, &error) != GAPLESS_INVALID ||
            strncmp(error.text, where, strlen(where)) != 0 ||
            strstr(error.text, mistakes[i].part) == NULL)
            fail_msg("%s\nsays '%s', not '%s... %s'", mistakes[i].text, error.text,
                     where, mistakes[i].part);
        assert_int_equal(study.jobs, 77); /* untouched */
    }
}

static void test_long_lines(void **state)
{
    char text[2000] = "[grid]\nseed = 1\n";
    struct gapless_error error = {0};
    struct study study;
    size_t used = strlen(text);

    (void)state;
    for (unsigned i = 2; i < 300; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%u",
                                 i % 20 == 0 ? "\n  " : " ", i);
    good(text, &study);
    assert_int_equal(study.grid[0].options.option[0].count, 299);
    expect(&study.grid[0].options.option[0], 298, "299", 17);
    study_close(&study);

    (void)snprintf(text, sizeof text, "[run]\nlr = %0400d\n", 1);
    assert_int_equal(read_text(text, &study, &error), GAPLESS_INVALID);
    assert_non_null(strstr(error.text, "some.ini:2: the line is longer than"));
}

static void test_no_text(void **state)
{
    struct gapless_error error = {0};
    struct study study;
    FILE *stream = fmemopen((void *)(uintptr_t) "[run]\nlr\0 = 1\n", 14, "r");

    (void)state;
    assert_non_null(stream);
    assert_int_equal(study_read_stream(stream, "x.ini", &study, &error),
                     GAPLESS_CORRUPT);
    assert_string_equal(
        error.text, "x.ini:2: there is a NUL in this line: this is not a text file");
    (void)fclose(stream);
    assert_int_equal(study_read("/nowhere/x.ini", &study, &error), GAPLESS_MISSING);
    assert_non_null(strstr(error.text, "/nowhere/x.ini"));
    assert_int_equal(study_read("/", &study, &error), GAPLESS_INVALID);
    assert_non_null(strstr(error.text, "is a folder"));
}

/* ---- which runs ---------------------------------------------------------- */

static void make_plan(const char *text, struct study *study, struct plan *ret)
{
    struct gapless_error error = {0};

    good(text, study);
    if (plan_make(study, ret, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
}

static void value_is(const struct plan *plan, size_t trial, const char *option,
                     const char *text)
{
    const char *value = plan_value(plan, &plan->trial[trial], option);

    if (value == NULL || text == NULL)
        assert_true(value == text);
    else
        assert_string_equal(value, text);
}

static void test_order_and_names(void **state)
{
    static const char *const names[] = {
        "grid-rule_ga-workers_2-seed_1", "grid-rule_ga-workers_2-seed_5",
        "grid-rule_ga-workers_8-seed_1", "grid-rule_ga-workers_8-seed_5",
        "grid-rule_sa-workers_2-seed_1", "grid-rule_sa-workers_2-seed_5",
        "grid-rule_sa-workers_8-seed_1", "grid-rule_sa-workers_8-seed_5",
        "b-kappa_3-model_cnn.16,32",
    };
    struct study study;
    struct plan plan;

    (void)state;
    make_plan("[run]\nepochs = 2\nlr = 0.1\n"
              "[grid]\nseed = 1 5\nrule = ga sa\nworkers = 2 8\n"
              "[grid b]\nkappa = 3\nmodel = cnn:16,32\n",
              &study, &plan);
    assert_int_equal(plan.trials, 9);
    for (size_t i = 0; i < 9; i++)
        assert_string_equal(plan.trial[i].name, names[i]);
    value_is(&plan, 5, "rule", "sa");
    value_is(&plan, 5, "workers", "2");
    value_is(&plan, 5, "seed", "5");
    value_is(&plan, 5, "epochs", "2");
    value_is(&plan, 5, "lr", "0.1");
    value_is(&plan, 5, "batch", "32"); /* a default, told all the same */
    value_is(&plan, 5, "clock", "homogeneous");
    value_is(&plan, 5, "kappa", NULL);
    value_is(&plan, 8, "kappa", "3");
    value_is(&plan, 8, "workers", "8");
    assert_int_equal(plan.trial[8].grid, 1);
    assert_string_equal(plan.column[0], "rule");
    assert_int_equal(plan_column(&plan, "kappa"), 10);
    assert_int_equal(plan_column(&plan, "steps"), -1);
    assert_int_equal(plan_line(&plan, &plan.trial[8], "kappa"), 9);
    assert_int_equal(plan_line(&plan, &plan.trial[8], "lr"), 3);
    assert_int_equal(plan_line(&plan, &plan.trial[8], "batch"), 0);
    plan_close(&plan);
    study_close(&study);
}

/* A cell's folder does not depend on the other cells, so that a longer list keeps what
 * is done. */
static void test_names_stay(void **state)
{
    struct study study;
    struct plan plan;

    (void)state;
    make_plan("[grid]\nrule = ga\nworkers = 2\n", &study, &plan);
    assert_string_equal(plan.trial[0].name, "grid-rule_ga-workers_2");
    plan_close(&plan);
    study_close(&study);
    make_plan("", &study, &plan);
    assert_int_equal(plan.trials, 1);
    assert_string_equal(plan.trial[0].name, "run");
    plan_close(&plan);
    study_close(&study);
}

static void test_strange_names(void **state)
{
    struct study study;
    struct plan plan;

    (void)state;
    make_plan("[grid]\nclock = a/b a_b ../x\nevents = \"1s kill 0\" \"1s kill_0\"\n",
              &study, &plan);
    for (size_t i = 0; i < plan.trials; i++)
        for (const char *at = plan.trial[i].name; *at != '\0'; at++)
            assert_true(*at != '/' && *at != ' ');
    plan_close(&plan); /* and plan_make has found that all differ */
    study_close(&study);

    make_plan(
        "[grid]\nclock = "
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\nseed = 11111111 11111112\n",
        &study, &plan);
    assert_int_equal(plan.trials, 2);
    assert_true(strlen(plan.trial[0].name) == TRIAL_NAME_MAX - 1);
    assert_string_not_equal(plan.trial[0].name, plan.trial[1].name);
    plan_close(&plan);
    study_close(&study);
}

static void test_too_many(void **state)
{
    char text[4096] = "[grid a]\nseed = 0\n[grid b]\n";
    static const char *const lists[] = {"seed", "workers", "batch", "lr"};
    struct gapless_error error = {0};
    size_t used = strlen(text);
    struct study study;
    struct plan plan;

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        used += (size_t)snprintf(text + used, sizeof text - used, "%s =", lists[i]);
        for (unsigned j = 1; j <= 20; j++)
            used += (size_t)snprintf(text + used, sizeof text - used, " %u", j);
        used += (size_t)snprintf(text + used, sizeof text - used, "\n");
    }
    good(text, &study);
    assert_int_equal(plan_make(&study, &plan, &error), GAPLESS_INVALID);
    assert_non_null(strstr(error.text, "some.ini:3: "));
    assert_non_null(strstr(error.text, "100000 runs"));
    study_close(&study);
}

/* Two grids whose names run into one another. */
static void test_same_folder(void **state)
{
    struct gapless_error error = {0};
    struct study study;
    struct plan plan;

    (void)state;
    good("[grid a]\nlr = 1\nseed = 1\n[grid a-lr_1]\nseed = 1\n", &study);
    assert_int_equal(plan_make(&study, &plan, &error), GAPLESS_INVALID);
    assert_non_null(strstr(error.text, "a-lr_1-seed_1"));
    study_close(&study);
}

/* What a run is told: also what nobody gave. */
static void test_text(void **state)
{
    struct settings settings;
    struct study study;
    struct plan plan;
    char *text;

    (void)state;
    make_plan("[run]\nssgd-scale-rate = yes\nschedule = cosine\n[grid]\nlr = 0.25\n",
              &study, &plan);
    assert_true(plan_settings(&plan, &plan.trial[0], &settings));
    assert_true(settings.ssgd_scale_rate && settings.cosine);
    assert_int_equal(settings.steps.count, 0);
    text = plan_text(&plan, &plan.trial[0]);
    assert_non_null(strstr(text, "lr=0.25\n"));
    assert_non_null(strstr(text, "momentum=0.9\n"));
    assert_non_null(strstr(text, "ssgd-scale-rate\n"));
    assert_non_null(strstr(text, "steps=none\n")); /* a cosine has none by default */
    assert_null(strstr(text, "out="));
    free(text);
    plan_close(&plan);
    study_close(&study);

    make_plan("[grid]\nssgd-scale-rate = no\nmodel = quadratic:8\n", &study, &plan);
    text = plan_text(&plan, &plan.trial[0]);
    assert_null(strstr(text, "ssgd-scale-rate"));
    value_is(&plan, 0, "data", NULL); /* a test function has none */
    free(text);
    plan_close(&plan);
    study_close(&study);
}

/* The studies that come with Gapless: whole, and named after their files. */
static void test_shipped(void **state)
{
    glob_t found;

    (void)state;
    assert_int_equal(glob(GAPLESS_SOURCE_DIR "/bench/studies/*.ini", 0, NULL, &found),
                     0);
    assert_true(found.gl_pathc >= 9);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        struct gapless_error error = {0};
        const char *file = strrchr(found.gl_pathv[i], '/') + 1;
        struct study study = {0};
        struct plan plan = {0};

        if (study_read(found.gl_pathv[i], &study, &error) != GAPLESS_OK ||
            plan_make(&study, &plan, &error) != GAPLESS_OK)
            fail_msg("%s", error.text);
        assert_memory_equal(file, study.name, strlen(study.name));
        assert_string_equal(file + strlen(study.name), ".ini");
        assert_true(study.about[0] != '\0' && plan.trials > 1);
        plan_close(&plan);
        study_close(&study);
    }
    globfree(&found);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_of_it),  cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_all_rules),  cmocka_unit_test(test_all_rules_that_fit),
        cmocka_unit_test(test_mistakes),   cmocka_unit_test(test_long_lines),
        cmocka_unit_test(test_no_text),    cmocka_unit_test(test_order_and_names),
        cmocka_unit_test(test_names_stay), cmocka_unit_test(test_strange_names),
        cmocka_unit_test(test_too_many),   cmocka_unit_test(test_same_folder),
        cmocka_unit_test(test_text),       cmocka_unit_test(test_shipped),
    };

    return cmocka_run_group_tests_name("study_ini", tests, NULL, NULL);
}
