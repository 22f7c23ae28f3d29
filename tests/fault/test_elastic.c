/* Workers with parameters of their own (EASGD), and what can go wrong with them. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/fault/engine.h"
#include "engine/worker/client.h"

#include <math.h>
#include <string.h>

/* The worker's side of a test, in a child process; 0 if all was as it should be. */
static int child(int (*work)(struct gapless_worker *))
{
    const struct gapless_worker_config config = {.address = engine_address,
                                                 .wait_ns = ENGINE_WAIT_NS};
    struct gapless_worker *worker;
    int ret;

    pace_alarm(60);
    if (gapless_worker_open(&config, &worker, NULL) != GAPLESS_OK)
        return 1;
    ret = work(worker);
    gapless_worker_close(worker);
    return ret;
}

static struct gapless_stats run_with(const struct gapless_master_config *config,
                                     int (*work)(struct gapless_worker *), float *ret)
{
    struct gapless_master *m = open_master(config);
    struct gapless_stats stats;
    pid_t pid;

    (void)fflush(NULL);
    pid = fork();
    if (pid == 0)
        _exit(child(work));
    run_to_end(m);
    assert_int_equal(engine_wait(pid), 0);
    stats = stats_of(m);
    memcpy(ret, gapless_master_params(m), ENGINE_COUNT * sizeof(float));
    gapless_master_close(m);
    return stats;
}

static void fill(float *x, float value)
{
    for (uint32_t i = 0; i < ENGINE_COUNT; i++)
        x[i] = value;
}

static bool is_all(const float *x, double value)
{
    for (uint32_t i = 0; i < ENGINE_COUNT; i++)
        if (!(fabs((double)x[i] - value) < 1e-6))
            return false;
    return true;
}

/* Every other gradient leads to what is not finite: reported, and the worker starts
 * again from the master's parameters. */
static int diverge(struct gapless_worker *worker)
{
    uint64_t batch;
    int status;

    while ((status = gapless_worker_pull(worker, &batch, NULL)) == GAPLESS_OK) {
        const float *params = gapless_worker_params(worker);

        if (batch % 2 == 0 && !is_all(params, 0))
            return 2;
        fill(gapless_worker_grad(worker), batch % 2 ? -3e38f : 1.0f);
        status = gapless_worker_push(worker, 0, NULL);
        if (status != (batch % 2 ? GAPLESS_NOT_FINITE : GAPLESS_OK))
            return 3;
    }
    return status == GAPLESS_STOPPED ? 0 : 4;
}

static void test_a_worker_that_diverges_starts_again(void **state)
{
    struct gapless_master_config config = engine_config("eamsgd", 40);
    static float theta[ENGINE_COUNT];
    struct gapless_stats stats;

    (void)state;
    config.schedule.rate = 2;
    config.elastic_period = 100;
    stats = run_with(&config, diverge, theta);
    assert_int_equal(stats.gradients, 40);
    assert_int_equal(stats.dropped, 20);
    assert_int_equal(stats.updates, 0);
    assert_true(is_all(theta, 0));
}

/* A gradient that is not finite makes no step, and the next ones go on from there. */
static int falter(struct gapless_worker *worker)
{
    double x = 0;
    uint64_t batch;
    int status;

    while ((status = gapless_worker_pull(worker, &batch, NULL)) == GAPLESS_OK) {
        if (!is_all(gapless_worker_params(worker), x))
            return 2;
        fill(gapless_worker_grad(worker), batch % 3 == 1 ? (float)NAN : -1.0f);
        status = gapless_worker_push(worker, 0, NULL);
        if (status != (batch % 3 == 1 ? GAPLESS_NOT_FINITE : GAPLESS_OK))
            return 3;
        x += batch % 3 == 1 ? 0 : 0.125;
    }
    return status == GAPLESS_STOPPED ? 0 : 4;
}

static void test_a_bad_gradient_makes_no_step(void **state)
{
    struct gapless_master_config config = engine_config("easgd", 30);
    static float theta[ENGINE_COUNT];
    struct gapless_stats stats;

    (void)state;
    config.schedule.rate = 0.125;
    config.elastic_period = 1000;
    stats = run_with(&config, falter, theta);
    assert_int_equal(stats.gradients, 30);
    assert_int_equal(stats.dropped, 10);
    assert_int_equal(stats.lag.count, 0);
}

/* One worker: theta and its parameters follow from three lines; statistics tell
 * exchanges from gradients. */
static int walk(struct gapless_worker *worker)
{
    double x = 0, theta = 0, between;
    uint64_t batch;
    int status;

    while ((status = gapless_worker_pull(worker, &batch, NULL)) == GAPLESS_OK) {
        if (!is_all(gapless_worker_params(worker), x))
            return 2;
        fill(gapless_worker_grad(worker), -1.0f);
        if (gapless_worker_push(worker, 2.5, NULL) != GAPLESS_OK)
            return 3;
        x += 0.125;
        between = 0.25 * (x - theta);
        if (batch % 5 == 4)
            theta += between, x -= between;
    }
    return status == GAPLESS_STOPPED ? 0 : 4;
}

static void test_one_worker_by_hand(void **state)
{
    struct gapless_master_config config = engine_config("easgd", 50);
    static float theta[ENGINE_COUNT];
    struct gapless_stats stats;
    double x = 0, master = 0, between;

    (void)state;
    config.schedule.rate = 0.125;
    config.elastic = 0.25;
    config.elastic_period = 5;
    config.gap_every = 1;
    stats = run_with(&config, walk, theta);
    for (int i = 0; i < 10; i++) {
        x += 5 * 0.125;
        between = 0.25 * (x - master);
        master += between, x -= between;
    }
    assert_true(is_all(theta, master));
    assert_int_equal(stats.gradients, 50);
    assert_int_equal(stats.updates, 10);
    assert_int_equal(stats.lag.count, 10);
    assert_int_equal(stats.gap_rms.count, 10);
    assert_true(stats.gap_rms.max > 0.1 && fabs(stats.loss - 2.5) < 1e-9);
    assert_true(fabs(stats.rate - 0.125) < 1e-9);
}

static void count_note(void *user, uint32_t note)
{
    *(int *)user += NOTE_WHAT(note) == NOTE_READY || NOTE_WHAT(note) == NOTE_OVER;
}

/* Says LOCAL to a master that has no such rule. */
static int say_local(void)
{
    struct wire_hello hello = {
        .head = wire_head(WIRE_HELLO), .role = WIRE_WORKER, .version = GAPLESS_RELEASE};
    struct tp_region slot;
    struct client c;
    int ready = 0, status = GAPLESS_OK;

    if (client_open(&c,
                    &(struct client_wishes){.address = engine_address,
                                            .hello = &hello,
                                            .on_note = count_note,
                                            .user = &ready},
                    NULL) != GAPLESS_OK ||
        client_window(&c, WIRE_SLOT, 0, &slot, NULL) != GAPLESS_OK)
        return 1;
    while (ready == 0 && status == GAPLESS_OK)
        status = client_poll(&c, 100000000, NULL);
    (void)c.transport->put(c.tp, c.peer, &slot, 0, 0, NOTE(NOTE_LOCAL, 0));
    for (int i = 0; i < 50 && status == GAPLESS_OK; i++)
        status = client_poll(&c, 100000000, NULL);
    client_close(&c);
    return status == GAPLESS_PROTOCOL ? 0 : 2;
}

static void test_local_under_another_rule(void **state)
{
    struct gapless_master_config config = engine_config("asgd", 200);
    const struct engine_fault steady = {.sleep_us = 500};
    struct gapless_master *m = open_master(&config);
    pid_t liar, honest;

    (void)state;
    (void)fflush(NULL);
    liar = fork();
    if (liar == 0)
        _exit(say_local());
    run_until(m, stats_of(m).workers_lost == 1);
    assert_int_equal(stats_of(m).gradients, 0);
    honest = engine_start(&steady);
    run_to_end(m);
    assert_int_equal(engine_wait(honest), 0);
    assert_int_equal(engine_wait(liar), 0);
    assert_int_equal(stats_of(m).gradients, 200);
    gapless_master_close(m);
}

static void refused(const struct gapless_master_config *config, const char *word)
{
    struct gapless_error error = {0};
    struct gapless_master *m = NULL;

    assert_int_equal(gapless_master_open(config, &m, &error), GAPLESS_INVALID);
    if (strstr(error.text, word) == NULL)
        fail_msg("'%s' is not in: %s", word, error.text);
}

static void test_bad_numbers(void **state)
{
    const struct gapless_master_config good = engine_config("easgd", 10);
    struct gapless_master_config c = good;

    (void)state;
    c.elastic = 1.5;
    refused(&c, "elastic");
    c.elastic = -0.1;
    refused(&c, "elastic");
    c.elastic = NAN;
    refused(&c, "elastic");
    c = good, c.block_elements = 15;
    refused(&c, "blocks of 15");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_worker_that_diverges_starts_again),
        cmocka_unit_test(test_a_bad_gradient_makes_no_step),
        cmocka_unit_test(test_one_worker_by_hand),
        cmocka_unit_test(test_local_under_another_rule),
        cmocka_unit_test(test_bad_numbers),
    };

    pace_alarm(110);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
