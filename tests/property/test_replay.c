/* A live run that was recorded comes out the same, to the bit, when it is replayed; and
 * what is wrong with a record is said with its line. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/run/record.h"
#include "tests/fault/engine.h"

#include <math.h>
#include <string.h>

static char path[64];

static double gradient(void *context, uint32_t thread, uint64_t batch,
                       const float *params, float *grad)
{
    (void)context, (void)thread;
    return engine_gradient(params, batch, grad);
}

static struct gapless_simulation_config
replay_config(const struct gapless_master_config *live)
{
    struct gapless_simulation_config ret = {
        .master = *live, .replay = path, .threads = 2, .gradient = gradient};

    ret.master.record = NULL;
    return ret;
}

/* The exit code of a worker; -1 if it was killed. Until it ends its master answers it: one
 * that came when all was done does not know it yet. */
static int served_to_its_end(struct gapless_master *m, pid_t pid)
{
    int status = 0;

    while (waitpid(pid, &status, WNOHANG) == 0)
        (void)gapless_master_run(m, 10000000, NULL);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Workers come, send rubbish, die and come again while it is recorded. */
static void live(const struct gapless_master_config *config, float *ret)
{
    static const struct engine_fault honest = {.sleep_us = 200,
                                               .rates = true,
                                               .ahead = true},
                                     rubbish = {.nan_every = 7, .sleep_us = 100};
    struct gapless_master *m = open_master(config);
    pid_t a, b, c = -1, d = -1;
    int status;

    a = engine_start(&honest);
    b = engine_start(&rubbish);
    do {
        struct gapless_stats stats;

        status = gapless_master_run(m, 2000000, NULL);
        gapless_master_stats(m, &stats);
        if (c < 0 && stats.gradients > 60)
            c = engine_start(&honest);
        if (c > 0 && d < 0 && stats.gradients > 150) {
            (void)kill(a, SIGKILL);
            d = engine_start(&honest);
        }
    } while (status == GAPLESS_OK);
    assert_int_equal(status, GAPLESS_STOPPED);
    (void)served_to_its_end(m, a);
    assert_int_equal(served_to_its_end(m, b), 0);
    if (c > 0)
        assert_int_equal(served_to_its_end(m, c), 0);
    if (d > 0)
        assert_int_equal(served_to_its_end(m, d), 0);
    memcpy(ret, gapless_master_params(m), ENGINE_COUNT * sizeof *ret);
    gapless_master_close(m);
}

static void replayed(const struct gapless_simulation_config *config, float *ret)
{
    struct gapless_simulation *s;
    struct gapless_error error = {0};
    int status = gapless_simulation_open(config, &s, &error);

    if (status == GAPLESS_OK)
        status = gapless_simulation_run(s, 0, &error);
    if (status != GAPLESS_STOPPED)
        fail_msg("%d: %s", status, error.text);
    memcpy(ret, gapless_master_params(gapless_simulation_master(s)),
           ENGINE_COUNT * sizeof *ret);
    gapless_simulation_close(s);
}

/* A rate and an average of their own: the master's alone count. */
static const struct gapless_tensor own_tensors[] = {
    {.name = "w", .dims = 2, .dim = {2048, 2}, .rate = 0.5, .decay = 0.01},
    {.name = "b", .dims = 1, .dim = {3}, .average = 0.1}};

static void test_replay(void **state)
{
    static const char *const rules[] = {"dana-ga",    "dana-slim", "shared-lga",
                                        "ssgd",       "nag-asgd",  "shared-lga-dot",
                                        "eamsgd",     "adamw",     "dana-lga-adamw",
                                        "ssgd-adamw", "muon",      "dana-lga-muon"};
    static float first[ENGINE_COUNT], again[ENGINE_COUNT];

    (void)state;
    for (size_t i = 0; i < sizeof rules / sizeof rules[0]; i++) {
        struct gapless_master_config config = engine_config(rules[i], 600);
        struct gapless_simulation_config simulated;
        char *note = NULL;

        config.record = path;
        config.record_note = "rule=x\nsecond line";
        config.weight_decay =
            strstr(rules[i], "adamw") || strstr(rules[i], "muon") ? 0 : 0.001;
        config.kappa = 10.0 / ENGINE_COUNT; /* the loss is a sum over all */
        config.clip_norm = 20;
        if (i % 2 > 0 && strcmp(rules[i], "shared-lga-dot") != 0)
            config.model.tensors = own_tensors;
        live(&config, first);
        simulated = replay_config(&config);
        replayed(&simulated, again);
        assert_memory_equal(first, again, sizeof first);
        simulated.threads = 1;
        replayed(&simulated, again);
        assert_memory_equal(first, again, sizeof first);
        assert_int_equal(gapless_record_note(path, &note, NULL), GAPLESS_OK);
        assert_string_equal(note, "rule=x\nsecond line\n");
        free(note);
    }
}

/* ---- records that are wrong ---------------------------------------------- */

static void write_record(const char *text)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

#define LINES                                                                          \
    "gapless-record 1\nmodel 4099 parameters 2 tensors hash 00\n"                      \
    "run 10 gradients 8 workers 0 wait 1 ranges\nbegin\n"

static void test_wrong_records(void **state)
{
    static const struct {
        const char *text, *where;
    } cases[] = {
        {"", ":1:"},
        {"nonsense\n", ":1:"},
        {"gapless-record 2\n", ":1:"},
        {"gapless-record 1\nbegin\n", ":2:"},
        {"gapless-record 1\nmodel x\n", ":2:"},
        {"gapless-record 1\nmodel 4 parameters 2 tensors hash 00\n", ":3:"},
        {LINES "hello 5\n", ":5:"},
        {LINES "hello 5 8\n", ":5:"},
        {LINES "hello -5 0\n", ":5:"},
        {LINES "hello 5 0 9\n", ":5:"},
        {LINES "hello 5 0 ahea\n", ":5:"},
        {"gapless-record 1\nown 1 2\n", ":2:"},
        {"gapless-record 1\nown x\n", ":2:"},
        {LINES "hello 5 0 ahead 1\n", ":5:"},
        {LINES "left 5 0 ahead\n", ":5:"},
        {LINES "hello 99999999999999999999 0\n", ":5:"},
        {LINES "jump 5 0\n", ":5:"},
        {LINES "hello 5 0\nhello 4 1\n", ":6:"},
        {LINES "gradient 5 0 1\n", ":5:"},
        {LINES "gradient 5 0 1 0 3fe000000000000g\n", ":5:"},
        {LINES "gradient 5 0 1 0 7ff0000000000000\n", ":5:"},
        {LINES "gradient 5 0 1 0 bff0000000000000\n", ":5:"},
        {LINES "gradient 5 0 1 0 3fe0000000000000 1\n", ":5:"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct record *record = NULL;
        struct gapless_error error = {0};

        write_record(cases[i].text);
        assert_int_equal(record_read(path, &record, &error), GAPLESS_CORRUPT);
        if (strstr(error.text, cases[i].where) == NULL)
            fail_msg("case %zu: %s", i, error.text);
        assert_null(record);
    }
    (void)unlink(path);
    assert_int_equal(gapless_record_note(path, NULL, NULL), GAPLESS_MISSING);
}

/* A last line without its end is left out; what is before it counts. */
static void test_cut_record(void **state)
{
    struct record *record = NULL;

    (void)state;
    write_record(LINES "hello 5 0\ngradient 6 0 0 0\ngradient 7 0 1");
    assert_int_equal(record_read(path, &record, NULL), GAPLESS_OK);
    assert_int_equal(record->count, 2);
    assert_int_equal(record->events[1].line, 6);
    record_free(record);
}

/* A record of something else is refused, or the first line that does not fit is. */
static void test_other_runs(void **state)
{
    struct gapless_master_config config = engine_config("dana-ga", 10);
    struct gapless_simulation_config simulated = replay_config(&config);
    struct gapless_simulation *s = NULL;
    struct gapless_error error = {0};
    char text[512], *at;
    struct gapless_master *m;
    FILE *file;

    (void)state;
    config.record = path;
    m = open_master(&config);
    gapless_master_close(m);
    file = fopen(path, "r");
    assert_non_null(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    assert_int_equal(fclose(file), 0);
    at = strstr(text, "begin\n");
    assert_non_null(at);

    (void)snprintf(at, sizeof text - (size_t)(at - text),
                   "begin\nhello 1 0\ngradient 2 0 3 0\n");
    write_record(text);
    assert_int_equal(gapless_simulation_open(&simulated, &s, &error), GAPLESS_OK);
    assert_int_equal(gapless_simulation_run(s, 0, &error), GAPLESS_INVALID);
    assert_non_null(strstr(error.text, "batch 3"));
    error.text[0] = '\0';
    assert_int_equal(gapless_simulation_run(s, 0, &error), GAPLESS_INVALID);
    assert_non_null(strstr(error.text, "batch 3")); /* it stays so */
    gapless_simulation_close(s);

    simulated.master.gradients = 11;
    assert_int_equal(gapless_simulation_open(&simulated, &s, &error), GAPLESS_OK);
    assert_int_equal(gapless_simulation_run(s, 0, &error), GAPLESS_INVALID);
    assert_non_null(strstr(error.text, "10 gradients"));
    gapless_simulation_close(s);
}

/* A folder that is not there, a full disk. */
/* Rates, decays and averages of tensors decide the bits, too: both must have the same. */
static void test_tensors_of_their_own(void **state)
{
    struct gapless_tensor other[2] = {own_tensors[0], own_tensors[1]};
    const struct gapless_tensor *const models[] = {engine_tensors, own_tensors, other};

    (void)state;
    other[1].average = 0.2;
    for (int recorded = 0; recorded < 3; recorded++) {
        struct gapless_master_config config = engine_config("dana-ga", 10);

        config.record = path;
        config.model.tensors = models[recorded];
        gapless_master_close(open_master(&config));
        for (int now = 0; now < 3; now++) {
            struct gapless_simulation_config simulated = replay_config(&config);
            struct gapless_simulation *s = NULL;
            struct gapless_error error = {0};
            int status;

            simulated.master.model.tensors = models[now];
            assert_int_equal(gapless_simulation_open(&simulated, &s, NULL), GAPLESS_OK);
            status = gapless_simulation_run(s, 0, &error);
            if (now == recorded)
                assert_int_not_equal(status, GAPLESS_MODEL);
            else
                assert_int_equal(status, GAPLESS_MODEL);
            assert_true(now == recorded || strstr(error.text, "averages of their own"));
            gapless_simulation_close(s);
        }
    }
}

static void test_record_not_written(void **state)
{
    struct gapless_master_config config = engine_config("dana-ga", 10);
    struct gapless_master *m = NULL;
    struct gapless_error error = {0};

    (void)state;
    config.record = "/nowhere/at/all";
    assert_int_equal(gapless_master_open(&config, &m, &error), GAPLESS_IO);
    assert_non_null(strstr(error.text, "/nowhere/at/all"));
    config.record = "/dev/full";
    assert_int_equal(gapless_master_open(&config, &m, &error), GAPLESS_IO);
    assert_null(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_replay),
        cmocka_unit_test(test_wrong_records),
        cmocka_unit_test(test_cut_record),
        cmocka_unit_test(test_other_runs),
        cmocka_unit_test(test_tensors_of_their_own),
        cmocka_unit_test(test_record_not_written),
    };
    int failed;

    (void)snprintf(path, sizeof path, "/tmp/gapless-record-%ld", (long)getpid());
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)unlink(path);
    return failed;
}
