/* Gradients and parameters that are not finite: a gradient is looked at in every range and
 * block of it, under every rule; and a run that diverges ends, and says where. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/master/master.h"
#include "engine/worker/worker.h"
#include "tests/fault/engine.h"
#include "tests/property/simulated.h"

#include <math.h>
#include <pthread.h>
#include <string.h>

enum {
    WORKERS = 2,
    RANGE = 1024,
    BLOCK = 256
};

/* Of the first, a middle and the last range: first, middle and last block; of each the
 * first and last element. */
static const uint32_t places[] = {
    0,    255,  300,  1023,              /* the first range */
    2048, 2303, 2500, 2600, 2900, 3071,  /* one in the middle */
    3072, 4000, 4095, 4096, 4097, 4098}; /* the last ranges, and the small tensor */

static struct bed {
    struct gapless_master *m;
    pthread_t thread;
    struct gapless_worker *worker[WORKERS];
    pthread_mutex_t lock;
    pthread_cond_t spoiled;
    bool spoil;
    uint32_t spoil_at;
    float spoil_by;
} bed = {.lock = PTHREAD_MUTEX_INITIALIZER, .spoiled = PTHREAD_COND_INITIALIZER};

/* Between two slices nobody works on the parameters: then they are spoiled, if asked for. */
static void *serve(void *argument)
{
    struct gapless_master *m = argument;
    int status;

    do {
        status = gapless_master_run(m, 2000000, NULL);
        assert_int_equal(pthread_mutex_lock(&bed.lock), 0);
        if (bed.spoil)
            m->theta[bed.spoil_at] = bed.spoil_by;
        bed.spoil = false;
        assert_int_equal(pthread_cond_signal(&bed.spoiled), 0);
        assert_int_equal(pthread_mutex_unlock(&bed.lock), 0);
    } while (status == GAPLESS_OK);
    return NULL;
}

static void spoil(uint32_t at, float by)
{
    assert_int_equal(pthread_mutex_lock(&bed.lock), 0);
    bed.spoil = true, bed.spoil_at = at, bed.spoil_by = by;
    while (bed.spoil)
        assert_int_equal(pthread_cond_wait(&bed.spoiled, &bed.lock), 0);
    assert_int_equal(pthread_mutex_unlock(&bed.lock), 0);
}

static void bed_open(const struct gapless_master_config *config)
{
    const struct gapless_worker_config worker = {
        .address = config->address, .model = config->model, .wait_ns = ENGINE_WAIT_NS};
    struct gapless_error error = {0};

    bed.m = open_master(config);
    assert_int_equal(pthread_create(&bed.thread, NULL, serve, bed.m), 0);
    for (uint32_t i = 0; i < WORKERS; i++)
        if (gapless_worker_open(&worker, &bed.worker[i], &error) != GAPLESS_OK)
            fail_msg("%s: %s", config->rule, error.text);
}

/* The run's end; of its parameters, are all finite? */
static struct gapless_stats bed_close(bool *ret_finite)
{
    struct gapless_stats ret;

    gapless_master_stop(bed.m);
    for (uint32_t i = 0; i < WORKERS; i++)
        gapless_worker_close(bed.worker[i]);
    assert_int_equal(pthread_join(bed.thread, NULL), 0);
    ret = stats_of(bed.m);
    *ret_finite = true;
    for (uint32_t k = 0; k < ENGINE_COUNT; k++)
        *ret_finite &= isfinite(gapless_master_params(bed.m)[k]) != 0;
    gapless_master_close(bed.m);
    return ret;
}

/* Hands in what no worker of ours would: the gradient as it is. False: the run is over. */
static bool hand_in(uint32_t i, uint32_t bad_at, float bad, bool by_range)
{
    struct gapless_worker *w = bed.worker[i];
    struct gapless_error error = {0};
    uint64_t batch;
    int status = gapless_worker_pull(w, &batch, &error);

    if (status == GAPLESS_STOPPED)
        return false;
    if (status != GAPLESS_OK)
        fail_msg("%s", error.text);
    for (uint32_t k = 0; k < ENGINE_COUNT; k++)
        w->grad[k] = 0.001f * (float)(k % 7);
    if (bad_at < ENGINE_COUNT)
        w->grad[bad_at] = bad;
    w->push->rate = 1;
    w->push->loss = 1;
    w->has_params = false;
    for (uint32_t r = 0; by_range && r < w->client.welcome.ranges; r++)
        assert_int_equal(
            client_put(&w->client, &w->slot, 0, 0, NOTE(NOTE_PUSH, r), NULL),
            GAPLESS_OK);
    if (!by_range)
        assert_int_equal(client_put(&w->client, &w->slot, 0, 0,
                                    NOTE(NOTE_PUSH, NOTE_ALL_RANGES), NULL),
                         GAPLESS_OK);
    return true;
}

static void everywhere(const char *rule, enum gapless_gate gate, bool by_range)
{
    static const float bad[] = {(float)NAN, (float)INFINITY, -(float)INFINITY};
    const uint32_t count = sizeof places / sizeof *places;
    struct gapless_master_config config = engine_config(rule, 0);
    struct gapless_stats stats;
    bool finite;

    config.range_elements = RANGE;
    config.block_elements = BLOCK;
    config.workers_wait = WORKERS;
    config.gate = gate;
    bed_open(&config);
    for (uint32_t i = 0; i < 2; i++)
        (void)(hand_in(0, ENGINE_COUNT, 0, by_range) &&
               hand_in(1, ENGINE_COUNT, 0, by_range));
    for (uint32_t i = 0; i < count; i++)
        (void)(hand_in(i % 2, places[i], bad[i % 3], by_range) &&
               hand_in((i + 1) % 2, ENGINE_COUNT, 0, by_range));
    (void)hand_in(0, ENGINE_COUNT, 0, by_range); /* what was before is done */
    stats = bed_close(&finite);
    if (!finite || stats.dropped != count)
        fail_msg("%s, %s, %s: %llu of %u found, the parameters are %sfinite", rule,
                 gate == GAPLESS_GATE_WHOLE ? "one gate" : "its own gate",
                 by_range ? "by range" : "all at once",
                 (unsigned long long)stats.dropped, count, finite ? "" : "not ");
    assert_int_equal(stats.diverged_at, 0);
}

static void test_a_gradient_is_looked_at_everywhere(void **state)
{
    struct gapless_rule rule;

    (void)state;
    for (unsigned i = 0; gapless_rule_at(i, &rule) == GAPLESS_OK; i++)
        for (int by_range = 0; by_range < 2; by_range++)
            everywhere(rule.name, GAPLESS_GATE_AUTO, by_range != 0);
    for (int by_range = 0; by_range < 2; by_range++) {
        everywhere("lga-adamw", GAPLESS_GATE_TENSOR, by_range != 0);
        everywhere("dana-lga-adamw", GAPLESS_GATE_WHOLE, by_range != 0);
        everywhere("muon-lga", GAPLESS_GATE_WHOLE, by_range != 0);
    }
}

/* ---- parameters ---------------------------------------------------------- */

/* An element of theta is not finite, as after an update that overflowed; the gradients
 * are. Where the gap is measured the run ends soon, else at its end. */
static void spoiled(const char *rule, bool measured, uint32_t at, float by)
{
    struct gapless_master_config config = engine_config(rule, 40);
    struct gapless_stats stats;
    char words[256] = "";
    uint32_t i;
    bool finite;

    config.range_elements = RANGE;
    config.gap_every = 1;
    config.workers_wait = WORKERS;
    bed_open(&config);
    for (i = 0; i < 6; i++)
        assert_true(hand_in(i % 2, ENGINE_COUNT, 0, false));
    spoil(at, by);
    while (hand_in(i % 2, ENGINE_COUNT, 0, false))
        i++;
    stats = bed_close(&finite);
    if (stats.diverged_at < 5 || stats.diverged_at > (measured ? 12 : 40) || finite)
        fail_msg("%s: diverged at %llu, after %llu gradients", rule,
                 (unsigned long long)stats.diverged_at,
                 (unsigned long long)stats.gradients);
    assert_true(gapless_divergence(&stats, words, sizeof words));
    if (strstr(words, "diverged at gradient ") == NULL ||
        strstr(words, "rate 0.01 is too high") == NULL ||
        strstr(words, "try a rate of 0.001") == NULL)
        fail_msg("%s", words);
}

static void test_parameters_that_are_not_finite_end_a_run(void **state)
{
    struct gapless_rule rule;

    (void)state;
    for (unsigned i = 0; gapless_rule_at(i, &rule) == GAPLESS_OK; i++)
        spoiled(rule.name, strcmp(rule.name, "shared-lga-dot") != 0, places[i % 16],
                i % 2 ? (float)NAN : (float)INFINITY);
}

/* ---- whole runs ---------------------------------------------------------- */

static void diverges(const char *rule, uint32_t workers)
{
    struct gapless_simulation_config config = sim_config(rule, workers, 4000);
    static struct sim_outcome o;

    config.master.schedule = (struct gapless_schedule){.rate = 9e5};
    config.master.gap_every = 0;
    sim_run(&config, &o);
    if (o.status != GAPLESS_STOPPED || o.stats.diverged_at == 0 ||
        o.stats.diverged_at > 1500 || o.stats.gradients > 2000)
        fail_msg("%s: %d %s, diverged at %llu, %llu gradients", rule, o.status,
                 o.error.text, (unsigned long long)o.stats.diverged_at,
                 (unsigned long long)o.stats.gradients);
}

static void test_every_rule_diverges(void **state)
{
    struct gapless_rule rule;

    (void)state;
    /* A step of Adam's is as long as the rate, and one of Muon's: these come home. */
    for (unsigned i = 0; gapless_rule_at(i, &rule) == GAPLESS_OK; i++)
        if (!(rule.settings & (GAPLESS_SETS_ADAM | GAPLESS_SETS_MATRIX)))
            diverges(rule.name, 4);
}

static double some_bad(void *context, uint32_t thread, uint64_t batch,
                       const float *params, float *grad)
{
    uint64_t row = *(const uint64_t *)context;
    double loss = sim_gradient(context, thread, batch, params, grad);

    if (batch >= 20 && batch < 20 + row)
        grad[batch % SIM_COUNT] = (float)NAN;
    return loss;
}

/* So many in a row end a run; one less does not, as at the start of mixed precision. */
static void rows(uint32_t workers, uint64_t gradients, uint64_t most)
{
    struct gapless_simulation_config config = sim_config("dana-ga", workers, gradients);
    static struct sim_outcome o;
    uint64_t row = most - 1;

    config.clock = GAPLESS_CLOCK_ROUND_ROBIN;
    config.gradient = some_bad;
    config.context = &row;
    sim_run(&config, &o);
    assert_int_equal(o.status, GAPLESS_STOPPED);
    assert_int_equal(o.stats.diverged_at, 0);
    assert_int_equal(o.stats.dropped, row);
    assert_int_equal(o.stats.gradients, gradients);
    row = UINT64_MAX - 20;
    sim_run(&config, &o);
    assert_int_equal(o.status, GAPLESS_STOPPED);
    assert_int_equal(o.stats.diverged_at, 21);
    assert_in_range(o.stats.gradients, 20 + most, 20 + most + workers);
}

static void test_many_in_a_row_end_a_run(void **state)
{
    (void)state;
    rows(2, 3000, 100);
    rows(10, 3000, 160);
    rows(10, 300, 30); /* a tenth of a short run */
    rows(3, 50, 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_gradient_is_looked_at_everywhere),
        cmocka_unit_test(test_parameters_that_are_not_finite_end_a_run),
        cmocka_unit_test(test_every_rule_diverges),
        cmocka_unit_test(test_many_in_a_row_end_a_run),
    };

    pace_alarm(240);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
