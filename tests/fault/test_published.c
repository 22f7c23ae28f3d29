/* One published look-ahead for all workers (shared-lga-dot): what a worker copied is
 * always one whole version, however busy the master is; and what may go wrong. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/fault/engine.h"
#include "engine/master/master.h"
#include "engine/worker/worker.h"

#include <math.h>
#include <string.h>

#define RULE_NAME "shared-lga-dot"
#define WORKERS 4u
#define LARGE 120001u
#define GRADIENTS PACE_TIMES(2000u, 400u)
#define RATE 0.001

static const struct gapless_tensor large[] = {
    {.name = "w", .dims = 1, .dim = {LARGE - 3}}, {.name = "b", .dims = 1, .dim = {3}}};

/* ---- torn copies --------------------------------------------------------- */

/* What is published after each number of updates, all gradients being 1 and every
 * element like every other: by the same passes on one chunk. */
static void expect(float *ret, uint32_t versions)
{
    static _Alignas(64) float theta[16], all[16], sent[16], grad[16];
    const struct rule *rule = rules_find(RULE_NAME);
    const struct arrays at = {.theta = theta, .all = all, .sent = sent, .grad = grad};
    struct settings settings = {.momentum = 0.9, .rate_max = RATE};
    const struct step_context context = {.rate = RATE, .active = WORKERS};
    struct step_scalars scalars;
    struct sums sums;

    settings_default(&settings);
    rules_step_scalars(rule, &settings, &context, &scalars);
    for (int i = 0; i < 16; i++)
        grad[i] = 1;
    ret[0] = 0;
    for (uint32_t v = 1; v < versions; v++) {
        compute_cpu()->apply(rule, &at, &scalars, NULL, 16, 0, &sums);
        ret[v] = sent[0];
    }
}

/* Every element of every range must be what was published at the version that the
 * worker tells. */
static bool copy_is_whole(const struct gapless_worker *w, const float *expected)
{
    const float *params = gapless_worker_params(w);
    bool whole = true;

    for (uint32_t r = 0; r < w->client.welcome.ranges; r++) {
        uint64_t end = w->starts[r + 1] < LARGE ? w->starts[r + 1] : LARGE;
        float value =
            w->reported[r] <= GRADIENTS ? expected[w->reported[r]] : (float)NAN;

        for (uint64_t i = w->starts[r]; i < end; i++)
            whole &= params[i] >= value && params[i] <= value;
    }
    return whole;
}

static int hurry(bool by_range)
{
    static float expected[GRADIENTS + 1];
    const struct gapless_worker_config config = {
        .address = engine_address, .wait_ns = ENGINE_WAIT_NS, .by_range = by_range};
    struct gapless_worker *w;
    uint64_t batch;
    int status;

    pace_alarm(60);
    expect(expected, GRADIENTS + 1);
    if (gapless_worker_open(&config, &w, NULL) != GAPLESS_OK)
        return 1;
    for (uint32_t i = 0; i < LARGE; i++)
        gapless_worker_grad(w)[i] = 1;
    while ((status = gapless_worker_pull(w, &batch, NULL)) == GAPLESS_OK) {
        if (!copy_is_whole(w, expected))
            return 2;
        if (gapless_worker_push(w, 0, NULL) != GAPLESS_OK)
            return 3;
    }
    gapless_worker_close(w);
    return status == GAPLESS_STOPPED ? 0 : 4;
}

static void copies_are_whole(uint64_t range_elements, bool by_range)
{
    struct gapless_master_config config = engine_config(RULE_NAME, GRADIENTS);
    struct gapless_master *m;
    pid_t pid[WORKERS];

    config.model = (struct gapless_model){large, 2};
    config.schedule.rate = RATE;
    config.workers_max = config.workers_wait = WORKERS;
    config.kappa = 1e-300; /* every gate is 1 */
    config.range_elements = range_elements;
    m = open_master(&config);
    (void)fflush(NULL);
    for (uint32_t w = 0; w < WORKERS; w++) {
        pid[w] = fork();
        if (pid[w] == 0)
            _exit(hurry(by_range));
    }
    run_to_end(m);
    for (uint32_t w = 0; w < WORKERS; w++)
        assert_int_equal(engine_wait(pid[w]), 0);
    assert_int_equal(stats_of(m).gradients, GRADIENTS);
    assert_int_equal(stats_of(m).dropped + stats_of(m).partial, 0);
    assert_int_equal(stats_of(m).lag.count, GRADIENTS);
    assert_true(stats_of(m).lag.max > 0);
    gapless_master_close(m);
}

static void test_copies_are_whole(void **state)
{
    (void)state;
    copies_are_whole(0, false);
    copies_are_whole(20000, false);
    copies_are_whole(20000, true);
}

/* ---- one worker ---------------------------------------------------------- */

static void learn(const char *rule, uint64_t range_elements, bool by_range, float *ret)
{
    struct gapless_master_config config = engine_config(rule, 400);
    const struct engine_fault fault = {.by_range = by_range};
    struct gapless_master *m;
    pid_t pid;

    config.range_elements = range_elements;
    config.weight_decay = 0.01;
    config.clip_norm = 20;
    m = open_master(&config);
    pid = engine_start(&fault);
    run_to_end(m);
    assert_int_equal(engine_wait(pid), 0);
    assert_int_equal(stats_of(m).gradients, 400);
    assert_true(stats_of(m).lag.max <= 0);
    assert_true(stats_of(m).gate >= 1);
    memcpy(ret, gapless_master_params(m), ENGINE_COUNT * sizeof *ret);
    gapless_master_close(m);
}

static void test_one_worker_is_nesterov(void **state)
{
    static float nag[ENGINE_COUNT], dot[ENGINE_COUNT];

    (void)state;
    learn("nag-asgd", 0, false, nag);
    learn(RULE_NAME, 0, false, dot);
    assert_memory_equal(nag, dot, sizeof nag);
    learn(RULE_NAME, 512, true, dot);
    assert_memory_equal(nag, dot, sizeof nag);
}

/* ---- what a worker may tell ---------------------------------------------- */

/* Versions of the future, dots that are no numbers: the worker harms its own gradients
 * and nothing else. */
static int lie(void)
{
    const struct gapless_worker_config config = {.address = engine_address};
    struct gapless_worker *w;
    uint64_t batch, random = 1;
    int status;

    pace_alarm(60);
    if (gapless_worker_open(&config, &w, NULL) != GAPLESS_OK)
        return 1;
    while ((status = gapless_worker_pull(w, &batch, NULL)) == GAPLESS_OK) {
        (void)engine_gradient(gapless_worker_params(w), batch, gapless_worker_grad(w));
        if (gapless_worker_grad(w)[0] < 1e-30f)
            gapless_worker_grad(w)[0] = 0;
        w->reported[0] = engine_random(&random) * engine_random(&random);
        for (uint64_t b = 0; b < w->client.shared_stats->blocks; b++)
            w->dots[b] = batch % 3 ? (double)NAN : 1e300;
        w->copy = NULL; /* so that push does not tell the truth */
        if (gapless_worker_push(w, 0, NULL) != GAPLESS_OK)
            return 2;
        w->copy = (float *)(uintptr_t)w->params;
    }
    gapless_worker_close(w);
    return status == GAPLESS_STOPPED ? 0 : 3;
}

static void test_a_worker_that_lies(void **state)
{
    struct gapless_master_config config = engine_config(RULE_NAME, 2000);
    const struct engine_fault no_fault = {0};
    struct gapless_master *m;
    pid_t liar, honest;

    (void)state;
    config.workers_wait = 2;
    m = open_master(&config);
    (void)fflush(NULL);
    liar = fork();
    if (liar == 0)
        _exit(lie());
    honest = engine_start(&no_fault);
    run_to_end(m);
    assert_int_equal(engine_wait(liar), 0);
    assert_int_equal(engine_wait(honest), 0);
    assert_int_equal(stats_of(m).gradients, 2000);
    for (uint32_t i = 0; i < ENGINE_COUNT; i++)
        assert_true(isfinite(gapless_master_params(m)[i]));
    gapless_master_close(m);
}

/* ---- what it costs ------------------------------------------------------- */

static void test_nothing_is_kept_per_worker(void **state)
{
    struct gapless_master_config config = engine_config(RULE_NAME, 10);
    struct gapless_master *m;
    struct gapless_rule rule;

    (void)state;
    assert_int_equal(gapless_rule_find(RULE_NAME, &rule, NULL), GAPLESS_OK);
    assert_int_equal(rule.vectors_per_worker, 0);
    assert_int_equal(rule.vectors_shared, 3);
    assert_int_equal(rule.bytes_per_parameter, 24);
    config.model = (struct gapless_model){large, 2};
    m = open_master(&config);
    assert_true(m->slot_bytes <
                2 * LARGE * sizeof(float)); /* its gradient and little */
    assert_true(m->grad_at < 16384);
    gapless_master_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copies_are_whole),
        cmocka_unit_test(test_one_worker_is_nesterov),
        cmocka_unit_test(test_a_worker_that_lies),
        cmocka_unit_test(test_nothing_is_kept_per_worker),
    };

    pace_alarm(110);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
