/* A run that diverges, for real: each command ends it, with exit code 1, what it kept, and a
 * line that names the gradient and the rate; a study marks it and goes on. */
#include "tests/cluster/run.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OF_ALL                                                                         \
    "--data synthetic:1200x16x4 --model mlp:8 --rule asgd --epochs 12 "                \
    "--warmup 0 --lr 30000"
/* Said on stderr. */
#define SAID "rate 30000 is too high"

static char text[4000];

static void diverges(const char *command, const char *name)
{
    char line[500], file[80];
    json_t *result;

    (void)snprintf(line, sizeof line, "%s --out %s/%s", command, run_dir, name);
    run_whole(NULL, line, 1, SAID);
    (void)snprintf(file, sizeof file, "%s/result.json", name);
    result = run_json(run_dir, file);
    assert_true(run_number(result, "diverged_at") >= 1.0);
    assert_true(run_number(result, "diverged_at") <= run_number(result, "gradients"));
    assert_true(run_number(result, "gradients") <
                run_number(result, "gradients_total"));
    assert_true(json_is_false(json_object_get(result, "stopped")));
    assert_true(json_is_null(json_object_get(result, "failure")));
    json_decref(result);
}

static void test_each_command(void **state)
{
    (void)state;
    diverges("simulate " OF_ALL " --workers 3", "simulated");
    diverges("train " OF_ALL " --workers 2", "trained");
}

static void test_a_run_that_does_not(void **state)
{
    char line[500];
    json_t *result;

    (void)state;
    (void)snprintf(line, sizeof line,
                   "simulate --data synthetic:1200x16x4 --model mlp:8 --rule asgd "
                   "--workers 3 --epochs 2 --out %s/good",
                   run_dir);
    run_whole(NULL, line, 0, "test accuracy");
    result = run_json(run_dir, "good/result.json");
    assert_true(json_is_null(json_object_get(result, "diverged_at")));
    json_decref(result);
}

/* The cell is done: it is not run again, and has its mark. */
static void test_study(void **state)
{
    char path[300], line[300];
    size_t bytes;
    FILE *file;

    (void)state;
    (void)snprintf(path, sizeof path, "%s/s.ini", run_dir);
    file = fopen(path, "we");
    assert_non_null(file);
    (void)fputs("[study]\ntitle = One diverges\nchart = accuracy-lr\n"
                "[run]\ndata = synthetic:1200x16x4\nmodel = mlp:8\nrule = asgd\n"
                "workers = 3\nepochs = 12\nwarmup = 0\n"
                "[grid]\nlr = 0.01 30000\n",
                file);
    assert_int_equal(fclose(file), 0);
    (void)snprintf(line, sizeof line, "study %s/s.ini --out %s/out", run_dir, run_dir);
    run_whole(NULL, line, 0, "2 of 2 runs done");
    (void)snprintf(path, sizeof path, "%s/out/study.csv", run_dir);
    file = fopen(path, "re");
    assert_non_null(file);
    bytes = fread(text, 1, sizeof text - 1, file);
    text[bytes] = '\0';
    (void)fclose(file);
    assert_non_null(strstr(text, ",diverged\n"));
    assert_non_null(strstr(text, ",done\n"));
    (void)snprintf(line, sizeof line, "study %s/s.ini --out %s/out --dry-run", run_dir,
                   run_dir);
    run_whole(NULL, line, 0, "2 done, 0 to go");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_each_command, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_a_run_that_does_not, run_set_up,
                                        run_tear_down),
        cmocka_unit_test_setup_teardown(test_study, run_set_up, run_tear_down),
    };

    run_signals_as_usual();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
