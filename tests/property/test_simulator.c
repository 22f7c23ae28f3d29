/* The simulator: repeatable to the bit with any number of threads, clocks that take the
 * time they should, lags, incidents, the link, memory. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/property/simulated.h"

#include <math.h>

static void must(const struct sim_outcome *o)
{
    if (o->status != GAPLESS_STOPPED)
        fail_msg("status %d: %s", o->status, o->error.text);
}

static void same(const struct sim_outcome *a, const struct sim_outcome *b,
                 const char *what)
{
    must(a);
    must(b);
    if (memcmp(a->params, b->params, sizeof a->params) != 0 ||
        memcmp(&a->stats.lag, &b->stats.lag, sizeof a->stats.lag) != 0 ||
        memcmp(&a->stats.gap_rms, &b->stats.gap_rms, sizeof a->stats.gap_rms) != 0 ||
        a->costs.virtual_ns != b->costs.virtual_ns)
        fail_msg("%s: two runs differ", what);
}

/* Every rule: again, and with other numbers of threads. */
static void test_repeats(void **state)
{
    static struct sim_outcome first, again;
    struct gapless_rule rule;

    (void)state;
    for (unsigned i = 0; gapless_rule_at(i, &rule) == GAPLESS_OK; i++) {
        struct gapless_simulation_config config = sim_config(rule.name, 7, 200);

        sim_run(&config, &first);
        must(&first);
        assert_int_equal(first.stats.gradients, 200);
        sim_run(&config, &again);
        same(&first, &again, rule.name);
        for (uint32_t threads = 2; threads <= 4; threads++) {
            config.threads = threads;
            sim_run(&config, &again);
            same(&first, &again, rule.name);
        }
    }
}

static void test_seeds_differ(void **state)
{
    static struct sim_outcome a, b;
    struct gapless_simulation_config config = sim_config("dana-ga", 7, 200);

    (void)state;
    sim_run(&config, &a);
    config.seed = 8;
    sim_run(&config, &b);
    must(&a);
    must(&b);
    assert_memory_not_equal(a.params, b.params, sizeof a.params);
}

/* In pieces, with looks in between. */
static void test_in_pieces(void **state)
{
    static struct sim_outcome whole;
    struct gapless_simulation_config config = sim_config("dana-lga", 5, 100);
    struct gapless_simulation *s;
    struct gapless_stats stats;

    (void)state;
    sim_run(&config, &whole);
    must(&whole);
    assert_int_equal(gapless_simulation_open(&config, &s, NULL), GAPLESS_OK);
    for (uint64_t at = 1; at < 100; at += 7) {
        assert_int_equal(gapless_simulation_run(s, at, NULL), GAPLESS_OK);
        gapless_master_stats(gapless_simulation_master(s), &stats);
        assert_int_equal(stats.gradients, at);
    }
    assert_int_equal(gapless_simulation_run(s, 0, NULL), GAPLESS_STOPPED);
    assert_int_equal(gapless_simulation_run(s, 0, NULL), GAPLESS_STOPPED);
    assert_memory_equal(gapless_master_params(gapless_simulation_master(s)),
                        whole.params, sizeof whole.params);
    gapless_simulation_close(s);
    gapless_simulation_close(NULL);
}

/* In turn: lag N - 1 from the second turn on, k-th gradient of each at time k. */
static void test_round_robin(void **state)
{
    static struct sim_outcome o;
    struct gapless_simulation_config config = sim_config("asgd", 6, 60);

    (void)state;
    config.clock = GAPLESS_CLOCK_ROUND_ROBIN;
    sim_run(&config, &o);
    must(&o);
    assert_int_equal(o.costs.virtual_ns, 10 * SIM_BATCH_NS);
    assert_true(o.stats.lag.max <= 5.0 && o.stats.lag.max >= 5.0);
    /* 0, 1, ... 5 in the first turn, then 5 each: 15 + 54 * 5 over 60 */
    assert_true(fabs(o.stats.lag.mean - 285.0 / 60.0) < 1e-9);
}

static void test_listed_times(void **state)
{
    static const struct gapless_batch_time times[] = {
        {0, 3000}, {1, 1000}, {1, 2000}, {0, 500}};
    static struct sim_outcome o;
    struct gapless_simulation_config config = sim_config("asgd", 2, 5);

    (void)state;
    config.clock = GAPLESS_CLOCK_TIMES;
    config.times = times;
    config.times_count = 4;
    sim_run(&config, &o);
    must(&o);
    /* worker 1 at 1000, 3000, 4000, worker 0 at 3000, 3500: the last at 4000 */
    assert_int_equal(o.costs.virtual_ns, 4000);
    config.times_count = 1;
    sim_run(&config, &o);
    assert_int_equal(o.status, GAPLESS_INVALID);
    assert_non_null(strstr(o.error.text, "worker 1"));
}

static double duration(const char *rule, uint32_t workers, enum gapless_clock clock,
                       uint64_t seed, uint64_t each)
{
    static struct sim_outcome o;
    struct gapless_simulation_config config = sim_config(rule, workers, workers * each);

    config.clock = clock;
    config.seed = seed;
    sim_run(&config, &o);
    must(&o);
    return (double)o.costs.virtual_ns;
}

/* Time of synchronous over asynchronous for as many gradients (algorithms, 3). */
static void test_time_ratios(void **state)
{
    static const struct {
        uint32_t workers;
        double homogeneous, heterogeneous;
    } want[] = {{4, 1.10, 2.1},  {8, 1.15, 2.7},  {16, 1.19, 3.4},
                {32, 1.22, 3.9}, {64, 1.25, 4.5}, {128, 1.28, 5.0}};

    (void)state;
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        double ratio[201], found;
        uint32_t n = want[i].workers, seeds = n <= 16 ? 201 : 3264 / n;

        uint64_t each = n <= 16 ? 120 : 60; /* few would favour who waits */

        found = duration("ssgd", n, GAPLESS_CLOCK_HOMOGENEOUS, 3, 150) /
                duration("asgd", n, GAPLESS_CLOCK_HOMOGENEOUS, 3, 150);
        if (fabs(found - want[i].homogeneous) > 0.015)
            fail_msg("N = %u, homogeneous: %.3f, not %.2f", n, found,
                     want[i].homogeneous);
        for (uint32_t seed = 0; seed < seeds; seed++) {
            double r =
                duration("ssgd", n, GAPLESS_CLOCK_HETEROGENEOUS, 100 + seed, each) /
                duration("asgd", n, GAPLESS_CLOCK_HETEROGENEOUS, 100 + seed, each);
            uint32_t at = seed;

            for (; at > 0 && ratio[at - 1] > r; at--)
                ratio[at] = ratio[at - 1];
            ratio[at] = r;
        }
        found = ratio[seeds / 2]; /* the median over clusters */
        if (fabs(found / want[i].heterogeneous - 1) > 0.1)
            fail_msg("N = %u, heterogeneous: %.2f, not %.1f", n, found,
                     want[i].heterogeneous);
    }
}

/* A worker's batches have the mean and the variation that they should. */
static void test_gamma(void **state)
{
    double n = 4000, took;

    (void)state;
    took = duration("asgd", 1, GAPLESS_CLOCK_HOMOGENEOUS, 5, (uint64_t)n);
    /* deviation of the mean: 0.1 / sqrt(4000) = 0.16 % */
    assert_true(fabs(took / (n * (double)SIM_BATCH_NS) - 1) < 0.007);
}

static void test_incidents(void **state)
{
    static const struct gapless_incident incidents[] = {
        {5500000, GAPLESS_KILL, 1, 0},         {6500000, GAPLESS_JOIN, 0, 0},
        {6500000, GAPLESS_JOIN, 0, 0},         {7500000, GAPLESS_LEAVE, 2, 0},
        {8500000, GAPLESS_STALL, 0, 20000000},
    };
    static struct sim_outcome o;
    struct gapless_simulation_config config = sim_config("dana-ga", 4, 120);

    (void)state;
    config.clock = GAPLESS_CLOCK_ROUND_ROBIN;
    config.incidents = incidents;
    config.incidents_count = sizeof incidents / sizeof incidents[0];
    sim_run(&config, &o);
    must(&o);
    assert_int_equal(o.stats.workers_lost, 1);
    assert_int_equal(o.stats.workers_joined, 6);
    assert_int_equal(o.stats.gradients, 120);
    assert_int_equal(o.stats.dropped, 0);
    /* 0's gradient of 9 ms comes at 29 ms; meanwhile three others made 60 updates. */
    assert_true(o.stats.lag.max >= 55.0);
}

static void test_incident_errors(void **state)
{
    static const struct gapless_incident nobody[] = {{1500000, GAPLESS_KILL, 9, 0}};
    static const struct gapless_incident all[] = {{1500000, GAPLESS_KILL, 0, 0},
                                                  {1500000, GAPLESS_LEAVE, 1, 0}};
    static const struct gapless_incident order[] = {{2, GAPLESS_KILL, 0, 0},
                                                    {1, GAPLESS_KILL, 1, 0}};
    static struct sim_outcome o;
    struct gapless_simulation_config config = sim_config("dana-ga", 2, 120);

    (void)state;
    config.incidents = nobody;
    config.incidents_count = 1;
    sim_run(&config, &o);
    assert_int_equal(o.status, GAPLESS_INVALID);
    assert_non_null(strstr(o.error.text, "no worker 9"));
    config.incidents = all;
    config.incidents_count = 2;
    sim_run(&config, &o);
    assert_int_equal(o.status, GAPLESS_INVALID);
    assert_non_null(strstr(o.error.text, "stands still"));
    config.incidents = order;
    sim_run(&config, &o);
    assert_int_equal(o.status, GAPLESS_INVALID);
    config = sim_config("dana-ga", 0, 120);
    sim_run(&config, &o);
    assert_int_equal(o.status, GAPLESS_INVALID);
}

/* A synchronous round goes on without the one that died in it. */
static void test_round_survives(void **state)
{
    static const struct gapless_incident incidents[] = {
        {1500000, GAPLESS_STALL, 2, 3000000}, {3500000, GAPLESS_KILL, 2, 0}};
    static struct sim_outcome o;
    struct gapless_simulation_config config = sim_config("ssgd", 3, 33);

    (void)state;
    config.clock = GAPLESS_CLOCK_ROUND_ROBIN;
    config.incidents = incidents;
    config.incidents_count = 2;
    sim_run(&config, &o);
    must(&o);
    assert_int_equal(o.stats.gradients, 33);
    assert_int_equal(o.stats.workers_lost, 1);
}

/* A time limit of the master ends a worker that holds a batch too long. */
static void test_too_slow(void **state)
{
    static const struct gapless_incident incidents[] = {
        {5500000, GAPLESS_STALL, 1, 10000000000}};
    static struct sim_outcome o;
    struct gapless_simulation_config config = sim_config("dana-ga", 3, 600);

    (void)state;
    config.incidents = incidents;
    config.incidents_count = 1;
    config.master.worker_timeout_ns = 100000000;
    sim_run(&config, &o);
    must(&o);
    assert_int_equal(o.stats.workers_lost, 1);
    assert_true(o.costs.virtual_ns < 1000000000);
}

static void test_link(void **state)
{
    static struct sim_outcome o;
    struct gapless_simulation_config config = sim_config("asgd", 1, 10);

    (void)state;
    config.clock = GAPLESS_CLOCK_ROUND_ROBIN;
    config.latency_ns = 1000;
    sim_run(&config, &o);
    must(&o);
    /* READY, the question and the answer of the read, the batch, the gradient */
    assert_int_equal(o.costs.virtual_ns, 10 * (SIM_BATCH_NS + 4 * 1000));
    config = sim_config("asgd", 50, 1000);
    config.clock = GAPLESS_CLOCK_ROUND_ROBIN;
    config.pass_ns = 100000; /* 50 workers could hand in one each 20 us */
    sim_run(&config, &o);
    must(&o);
    assert_true(fabs((double)o.costs.virtual_ns / 1000e5 - 1) < 0.03);
    config.pass_ns = 0;
    /* 112 padded floats and the head of the slot, 64 bytes, go out to the worker */
    config.bandwidth = (112 * 4 + 64) / 50e-6;
    sim_run(&config, &o);
    must(&o);
    assert_true(fabs((double)o.costs.virtual_ns / 1000 / 50e3 - 1) < 0.04);
}

static double not_finite(void *context, uint32_t thread, uint64_t batch,
                         const float *params, float *grad)
{
    double loss = sim_gradient(context, thread, batch, params, grad);

    if (batch % 10 == 3)
        grad[batch % SIM_COUNT] = (float)NAN;
    return loss;
}

static void test_not_finite(void **state)
{
    static struct sim_outcome o;
    struct gapless_simulation_config config = sim_config("dana-lga", 5, 100);

    (void)state;
    config.gradient = not_finite;
    sim_run(&config, &o);
    must(&o);
    assert_int_equal(o.stats.dropped, 10);
    assert_int_equal(o.stats.gradients, 100);
    for (uint32_t i = 0; i < SIM_COUNT; i++)
        assert_true(isfinite(o.params[i]));
}

/* Buffers for gradients do not grow with the workers. */
static void test_memory(void **state)
{
    static struct sim_outcome few, many;
    struct gapless_simulation_config config = sim_config("dana-ga", 4, 2000);

    (void)state;
    sim_run(&config, &few);
    config.workers = 900;
    sim_run(&config, &many);
    must(&few);
    must(&many);
    assert_int_equal(few.costs.buffer_bytes, many.costs.buffer_bytes);
    assert_int_equal(many.stats.workers_joined, 900);
    config.threads = 3;
    sim_run(&config, &many);
    must(&many);
    assert_true(many.costs.buffer_bytes <= 6 * few.costs.buffer_bytes);
}

/* Several matrices, and others, of one update at a time: in one range, and in two. */
static void test_threads_for_matrices(void **state)
{
    static const struct gapless_tensor tensors[] = {
        {.name = "v", .dims = 2, .dim = {4, 8}},
        {.name = "b", .dims = 1, .dim = {9}},
        {.name = "w", .dims = 2, .dim = {7, 2}},
        {.name = "u", .dims = 2, .dim = {11, 4}}};
    static const char *const names[] = {"muon", "muon-lga", "dana-lga-muon"};
    static struct sim_outcome one, more;

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        for (uint64_t range = 0; range <= 32; range += 32) {
            struct gapless_simulation_config config = sim_config(names[i], 6, 400);

            config.master.model = (struct gapless_model){tensors, 4};
            config.master.range_elements = range;
            sim_run(&config, &one);
            must(&one);
            config.master.matrix_threads = 3;
            sim_run(&config, &more);
            must(&more);
            assert_memory_equal(one.params, more.params, sizeof one.params);
        }
}

/* Vectors at the master: as many as the rule says. */
static void test_master_memory(void **state)
{
    static const uint32_t counts[] = {1, 7, 300};
    static struct sim_outcome o;
    struct gapless_rule rule;

    (void)state;
    for (unsigned i = 0; gapless_rule_at(i, &rule) == GAPLESS_OK; i++)
        for (size_t k = 0; k < sizeof counts / sizeof counts[0]; k++) {
            struct gapless_simulation_config config =
                sim_config(rule.name, counts[k], 2 * counts[k]);
            uint64_t vectors =
                1 + rule.vectors_shared + (uint64_t)rule.vectors_per_worker * counts[k];

            sim_run(&config, &o);
            must(&o);
            if (o.costs.master_bytes != vectors * 112 * sizeof(float))
                fail_msg("%s, %u workers: %llu bytes, not %llu vectors", rule.name,
                         counts[k], (unsigned long long)o.costs.master_bytes,
                         (unsigned long long)vectors);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_repeats),
        cmocka_unit_test(test_seeds_differ),
        cmocka_unit_test(test_in_pieces),
        cmocka_unit_test(test_round_robin),
        cmocka_unit_test(test_listed_times),
        cmocka_unit_test(test_time_ratios),
        cmocka_unit_test(test_gamma),
        cmocka_unit_test(test_incidents),
        cmocka_unit_test(test_incident_errors),
        cmocka_unit_test(test_round_survives),
        cmocka_unit_test(test_too_slow),
        cmocka_unit_test(test_link),
        cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_threads_for_matrices),
        cmocka_unit_test(test_master_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
