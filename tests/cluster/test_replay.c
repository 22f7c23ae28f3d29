/* A run of processes, recorded, and repeated in virtual time: the same parameters, bit
 * for bit, whatever the rule and whatever went wrong. */
#include "tests/cluster/run.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RUN "train --data synthetic:2000x16x4 --model mlp:8 --workers 4 --epochs 3 "

static void train(const char *environment, const char *more, int code)
{
    char line[500];

    (void)snprintf(line, sizeof line, RUN "%s --out %s/live --record %s/record", more,
                   run_dir, run_dir);
    run_whole(environment, line, code, "test accuracy");
}

static void replay(const char *environment, const char *more, int code,
                   const char *text)
{
    char line[500];

    (void)snprintf(line, sizeof line, "simulate --out %s/again --replay %s/record%s%s",
                   run_dir, run_dir, more[0] != '\0' ? " " : "", more);
    run_whole(environment, line, code, text);
}

static char *model_of(const char *name, size_t *ret)
{
    char path[128], *bytes = malloc(1 << 20);
    FILE *in;

    (void)snprintf(path, sizeof path, "%s/%s/model.safetensors", run_dir, name);
    in = fopen(path, "re");
    if (in == NULL)
        fail_msg("%s is not there", path);
    assert_non_null(bytes);
    *ret = fread(bytes, 1, 1 << 20, in);
    assert_true(*ret > 0 && *ret < 1 << 20);
    (void)fclose(in);
    return bytes;
}

static void check_same(const char *what)
{
    size_t live_bytes, again_bytes;
    char *live = model_of("live", &live_bytes);
    char *again = model_of("again", &again_bytes);

    if (live_bytes != again_bytes || memcmp(live, again, live_bytes) != 0)
        fail_msg("the parameters differ: %s", what);
    free(live);
    free(again);
}

/* Counts that both runs have, and that have to agree. */
static void check_counts(void)
{
    static const char *const keys[] = {"gradients", "updates", "dropped", "epochs"};
    json_t *live = run_json(run_dir, "live/result.json");
    json_t *again = run_json(run_dir, "again/result.json");

    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (run_number(live, keys[i]) != run_number(again, keys[i]))
            fail_msg("%s: %g live, %g repeated", keys[i], run_number(live, keys[i]),
                     run_number(again, keys[i]));
    assert_true(
        run_number(live, "final_loss") - run_number(again, "final_loss") < 1e-6 &&
        run_number(again, "final_loss") - run_number(live, "final_loss") < 1e-6);
    assert_string_equal(json_string_value(json_object_get(again, "clock")), "replay");
    json_decref(live);
    json_decref(again);
}

static const struct {
    const char *environment, *more;
} runs[] = {
    {NULL, "--rule dana-ga"},
    {NULL, "--rule ga-global --schedule cosine:0.1 --horizon 2"},
    {NULL, "--rule dana-slim --clip-norm 0.5 --weight-decay 1e-3 --gap-every 1"},
    {NULL, "--rule dana-lga --block-elements 32 --batch 7"},
    {NULL, "--rule ssgd --ssgd-scale-rate --momentum 0"},
    {NULL, "--rule easgd --elastic 0.1 --period 3"},
    {NULL, "--rule dana-lga-adamw --lr 0.001 --beta2 0.99 --epsilon 1e-7 --decay 0 "
           "--gate tensor --drop-lag 40"},
    {NULL, "--rule dana-zero --local-steps 4 --lr 0.1"},
    {NULL, "--rule nag-asgd --local-steps 8 --adapt-steps --lr 0.1 --inner sgd"},
    {"GAPLESS_FAULT=exit:5@2",
     "--rule ssgd --local-steps 4 --adapt-steps --inner-lr 0.002 --inner-decay 0"},
    {NULL, "--rule dana-lga-muon --lr 0.002 --rest-scale 0.5 --matrix-threads 2"},
    {"GAPLESS_FAULT=nan:5@1", "--rule sa --kappa 3"},
    {"GAPLESS_FAULT=exit:20@2", "--rule dana-dc --lambda 0.1"},
};

static void test_same(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof runs / sizeof runs[0]; i++) {
        train(runs[i].environment, runs[i].more, 0);
        replay("GAPLESS_LR=0.7 GAPLESS_FAULT=nan:1",
               i % 2 == 0 ? "--threads 1" : "--threads 3 --evaluate-every 0", 0,
               "a replay");
        check_same(runs[i].more);
        check_counts();
    }
}

/* A run that was stopped can be repeated up to there. */
static void test_stopped(void **state)
{
    char line[400];
    struct run run;

    (void)state;
    (void)snprintf(line, sizeof line,
                   "train --data synthetic:2000x16x4 --model mlp:8 --workers 3 "
                   "--epochs 100000 --out %s/live --record %s/record",
                   run_dir, run_dir);
    run = run_start(NULL, 0, line);
    run_expect(&run, "accuracy", 60.0);
    assert_int_equal(kill(run.pid, SIGINT), 0);
    assert_int_equal(run_wait(&run, 60.0), 130);
    run_close(&run);
    replay(NULL, "--evaluate-every 0", 0, "a replay");
    check_same("stopped");
    check_counts();
}

static void test_mistakes(void **state)
{
    char line[300];

    (void)state;
    train(NULL, "--lr 0.01", 0);
    replay(NULL, "--lr 0.02", 2, "--lr 0.02 is not what the record");
    replay(NULL, "--lr 0.02", 2, "was made with, 0.01");
    replay(NULL, "--rule sa", 2, "dana-ga");
    replay(NULL, "--horizon 3", 2, "not set");
    replay(NULL, "--ssgd-scale-rate", 2, "was made with, 0");
    replay(NULL, "--clock round-robin", 2, "--clock and --replay");
    replay(NULL, "--events 1s\tkill\t0", 2, "--events and --replay");
    replay(NULL, "--lr 1e-2 --workers 4 --quiet", 0, "test accuracy"); /* as it was */
    check_same("the same settings again");
    (void)snprintf(line, sizeof line, "simulate --replay %s/live/result.json", run_dir);
    run_whole(NULL, line, 1, "result.json:1:");
    (void)snprintf(line, sizeof line,
                   "train --data synthetic --out %s/x --record /nowhere/record",
                   run_dir);
    run_whole(NULL, line, 1, "cannot write the record /nowhere/record");
}

/* The note at the start, line by line. */
static void spoil(const char *from, const char *to)
{
    char path[128], *text, *at;
    size_t bytes;
    FILE *file;

    (void)snprintf(path, sizeof path, "%s/record", run_dir);
    file = fopen(path, "r+e");
    assert_non_null(file);
    text = calloc(1, 1 << 20);
    assert_non_null(text);
    bytes = fread(text, 1, (1 << 20) - 1, file);
    at = strstr(text, from);
    assert_non_null(at);
    assert_int_equal(strlen(from), strlen(to));
    for (size_t i = 0; to[i] != '\0'; i++)
        at[i] = to[i];
    rewind(file);
    assert_int_equal(fwrite(text, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
    free(text);
}

static void test_spoilt(void **state)
{
    (void)state;
    train(NULL, "--lr 0.01", 0);
    spoil("note lr=0.01", "note lr=-.01");
    replay(NULL, "", 1, ": lr must be above 0");
    spoil("note lr=-.01", "note ln=0.01");
    replay(NULL, "", 1, "'ln', which is no setting");
    spoil("note ln=0.01", "note lr=0.01");
    spoil("note model=mlp:8", "note model=mlp:9");
    replay(NULL, "", 1, "gapless simulate:"); /* another model than it says */
    spoil("note model=mlp:9", "note model=mlp:8");
    spoil("note ssgd-scale-rate=0", "note ssgd-scale-rate=2");
    replay(NULL, "", 1, "ssgd-scale-rate must be 1 or 0");
    spoil("note ssgd-scale-rate=2", "note ssgd-scale-rate=0");
    spoil("\nbegin", "\nbogin");
    replay(NULL, "", 1, "record:");
    spoil("\nbogin", "\nbegin");
    replay(NULL, "", 0, "a replay");
    check_same("after all");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_same, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_stopped, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_mistakes, run_set_up, run_tear_down),
        cmocka_unit_test_setup_teardown(test_spoilt, run_set_up, run_tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
