/* Reads over a transport that does not map memory: never torn, never lapped, bounded,
 * and what they say when the master is gone. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/fault/remote.h"

/* ---- observers ----------------------------------------------------------- */

static void test_observer(void **state)
{
    struct gapless_master_config config = settings("nag-asgd");
    static float initial[COUNT], params[COUNT];
    struct gapless_worker_stats one, live;
    struct gapless_stats stats, own;
    struct gapless_observer *o;
    struct gapless_worker *w;
    uint64_t version = 9;

    (void)state;
    for (uint32_t i = 0; i < COUNT; i++)
        initial[i] = (float)i;
    config.initial = initial;
    open_bed(&config);
    o = observer();
    assert_int_equal(gapless_observer_count(o), COUNT);
    assert_string_equal(gapless_observer_job(o), "a job");
    assert_int_equal(gapless_observer_read(o, params, 0, &version, NULL), GAPLESS_OK);
    assert_int_equal(version, 0);
    assert_memory_equal(params, initial, sizeof params);
    w = worker();
    for (int i = 0; i < 7; i++)
        update(w, 0.5f);
    (void)gapless_master_run(bed.m, 1000000000, NULL);
    assert_int_equal(gapless_observer_read(o, params, 0, &version, NULL), GAPLESS_OK);
    assert_int_equal(version, 7);
    assert_memory_equal(params, gapless_master_params(bed.m), sizeof params);
    /* Statistics, and the times in them, are the master's. */
    assert_int_equal(gapless_observer_stats(o, &stats, NULL), GAPLESS_OK);
    gapless_master_stats(bed.m, &own);
    assert_int_equal(stats.gradients, 7);
    assert_int_equal(stats.lag.count, 7);
    assert_true(stats.seconds > 0.9 && stats.seconds <= own.seconds);
    assert_int_equal(gapless_observer_worker_stats(o, 0, &one), GAPLESS_OK);
    assert_int_equal(gapless_master_worker_stats(bed.m, 0, &live), GAPLESS_OK);
    assert_int_equal(one.gradients, 7);
    assert_int_equal(one.state, 2);
    assert_true(one.seen_ns >= live.seen_ns && one.seen_ns < live.seen_ns + 100000000);
    update(w, 0.5f);
    (void)gapless_master_run(bed.m, 1000000000, NULL);
    assert_int_equal(gapless_observer_worker_stats(o, 0, &one), GAPLESS_OK);
    assert_int_equal(one.gradients, 8);
    assert_int_equal(gapless_observer_worker_stats(o, 3, &one), GAPLESS_MISSING);
    gapless_worker_close(w);
    gapless_observer_close(o);
    (void)gapless_master_run(bed.m, 1000000, NULL);
    assert_int_equal(gapless_master_observers(bed.m), 0);
    assert_int_equal(bed.lines, 0);
    close_bed();
}

/* A pass that takes its time: a range is half old and half new between two calls. */
static struct writer {
    uint32_t range, one_in;
    bool half;
    float value;
    uint64_t passes;
} writer;

static void write_some(void)
{
    const struct layout *l = &bed.m->layout;
    struct seq_word *word = &shared_stats_versions(bed.m->shared_stats)[writer.range];
    size_t from = (size_t)l->range_start[writer.range];
    size_t n = (size_t)l->range_start[writer.range + 1] - from;

    if (!writer.half)
        (void)gapless_master_run(bed.m, 0, NULL); /* copies between two updates */
    if (draw(writer.one_in) != 0)
        return;
    if (!writer.half) {
        seq_write_begin(word);
        writer.value += 1;
    }
    for (size_t i = writer.half ? n / 2 : 0; i < (writer.half ? n : n / 2); i++)
        bed.m->theta[from + i] = writer.value;
    if (writer.half) {
        seq_write_end(word);
        writer.range = (writer.range + 1) % l->ranges_count;
        writer.passes++;
    }
    writer.half = !writer.half;
}

static void one_moment_each(const float *params)
{
    const struct layout *l = &bed.m->layout;

    for (uint32_t r = 0; r < l->ranges_count; r++)
        for (uint64_t i = l->range_start[r]; i < l->range_start[r + 1] && i < COUNT;
             i++)
            assert_true(params[i] >= params[l->range_start[r]] &&
                        params[i] <= params[l->range_start[r]]);
}

static void test_reads_are_never_torn(void **state)
{
    struct gapless_master_config config = settings("asgd");
    static float params[COUNT];
    struct gapless_observer *o;
    struct gapless_error error = {0};
    uint64_t version, before, last = 0;

    (void)state;
    open_bed(&config);
    o = observer();
    writer = (struct writer){.one_in = 3};
    bed.also = write_some;
    for (int i = 0; i < 300; i++) {
        if (gapless_observer_read(o, params, 0, &version, &error) != GAPLESS_OK)
            fail_msg("%s", error.text);
        one_moment_each(params);
        assert_true(version >= last);
        last = version;
    }
    assert_true(writer.passes > 300);
    assert_int_equal(seq_read_begin(&bed.m->shared_stats->copy),
                     0); /* nobody asked for one */

    /* Too fast for any read: a copy, of one moment. */
    bed.m->layout.ranges_count = 1; /* of the writer: always the first range */
    writer.range = 0;
    writer.one_in = 1;
    before = seq_read_begin(&bed.m->shared_stats->copy);
    for (int i = 0; i < 5; i++) {
        if (gapless_observer_read(o, params, 3000000000, &version, &error) !=
            GAPLESS_OK)
            fail_msg("%s", error.text);
        one_moment_each(params);
    }
    assert_true(seq_read_begin(&bed.m->shared_stats->copy) >= before + 2);
    bed.m->layout.ranges_count = RANGES;
    bed.also = NULL;
    gapless_observer_close(o);
    close_bed();
}

/* The master does nothing any more: a bound is a bound. */
static void stand_still(void)
{
}

static void test_bounds(void **state)
{
    struct gapless_master_config config = settings("asgd");
    static float params[COUNT];
    struct gapless_observer *o;
    struct gapless_worker *w;
    struct gapless_error error = {0};
    uint64_t batch, began;

    (void)state;
    open_bed(&config);
    o = observer();
    w = worker();
    update(w, 1);
    seq_write_begin(&shared_stats_versions(bed.m->shared_stats)[2]);
    bed.also = stand_still;
    began = sim_now_ns(sim_world_of(bed.m->tp));
    assert_int_equal(gapless_observer_read(o, params, 300000000, NULL, &error),
                     GAPLESS_TORN);
    assert_non_null(strstr(error.text, "longer bound"));
    assert_in_range(sim_now_ns(sim_world_of(bed.m->tp)) - began, 300000000, 400000000);
    began = sim_now_ns(sim_world_of(bed.m->tp));
    assert_int_equal(gapless_worker_pull(w, &batch, &error), GAPLESS_TIMEOUT);
    assert_in_range(sim_now_ns(sim_world_of(bed.m->tp)) - began, 2000000000,
                    2200000000);
    began = sim_now_ns(sim_world_of(bed.m->tp));
    assert_int_equal(gapless_worker_poll(w, 300000000, &error), GAPLESS_AGAIN);
    assert_in_range(sim_now_ns(sim_world_of(bed.m->tp)) - began, 300000000, 400000000);
    assert_int_equal(gapless_worker_poll(w, 0, &error), GAPLESS_AGAIN);
    /* It may pull again, and is served once the master goes on. */
    bed.also = NULL;
    assert_int_equal(gapless_worker_poll(w, 2000000000, &error), GAPLESS_OK);
    assert_int_equal(gapless_worker_pull(w, &batch, &error), GAPLESS_OK);
    assert_int_equal(gapless_worker_poll(w, 300000000, &error), GAPLESS_AGAIN);
    gapless_worker_close(w);
    gapless_observer_close(o);
    close_bed();
}

static void test_lost_master(void **state)
{
    struct gapless_master_config config = settings("asgd");
    static float params[COUNT];
    struct gapless_stats stats;
    struct gapless_observer *o;
    struct gapless_worker *w;
    struct gapless_error error = {0};
    uint64_t batch;

    (void)state;
    open_bed(&config);
    o = observer();
    w = worker();
    update(w, 1);
    assert_int_equal(gapless_observer_stats(o, &stats, NULL), GAPLESS_OK);
    sim_pump_set(sim_world_of(bed.m->tp), NULL, NULL);
    close_bed();
    for (int i = 0; i < 2; i++) {
        assert_int_equal(gapless_observer_read(o, params, 0, NULL, &error),
                         GAPLESS_PEER_LOST);
        assert_non_null(strstr(error.text, " is gone"));
        assert_int_equal(gapless_observer_stats(o, &stats, &error), GAPLESS_PEER_LOST);
        assert_int_equal(gapless_worker_pull(w, &batch, &error), GAPLESS_PEER_LOST);
        assert_non_null(strstr(error.text, " is gone"));
    }
    gapless_worker_close(w);
    gapless_observer_close(o);
}

/* ---- one look-ahead for all ---------------------------------------------- */

#define UPDATES 3000u

static struct gapless_worker *busy;
static uint32_t busy_updates;
static float expected[UPDATES];

/* What is published after each number of updates, by the same pass on one chunk. */
static void expect(double rate)
{
    static _Alignas(64) float theta[16], all[16], sent[16], grad[16];
    const struct rule *rule = rules_find("shared-lga-dot");
    const struct arrays at = {.theta = theta, .all = all, .sent = sent, .grad = grad};
    struct settings own = {.momentum = 0.9, .rate_max = rate};
    const struct step_context context = {.rate = rate, .active = 2};
    struct step_scalars scalars;
    struct sums sums;

    settings_default(&own);
    rules_step_scalars(rule, &own, &context, &scalars);
    for (int i = 0; i < 16; i++)
        grad[i] = 1;
    for (uint32_t v = 1; v < UPDATES; v++) {
        compute_cpu()->apply(rule, &at, &scalars, NULL, 16, 0, &sums);
        expected[v] = sent[0];
    }
}

/* Updates of another worker, as fast as the master can: what its gradient is lies in
 * the master's memory already, and it reads nothing. */
static void others_work(void)
{
    bool ready;

    (void)gapless_master_run(bed.m, 0, NULL);
    if (draw(3) != 0 || busy_updates >= UPDATES / 2)
        return;
    assert_int_equal(worker_look(busy, &ready, NULL), GAPLESS_OK);
    master_event(bed.m, CORE_GRADIENT, gapless_worker_number(busy), CORE_ALL, true);
    busy_updates++;
}

static void copy_is_whole(const struct gapless_worker *w)
{
    for (uint32_t r = 0; r < w->client.welcome.ranges; r++)
        for (uint64_t i = w->starts[r]; i < w->starts[r + 1] && i < COUNT; i++) {
            assert_true(w->reported[r] < UPDATES);
            assert_true(w->params[i] >= expected[w->reported[r]] &&
                        w->params[i] <= expected[w->reported[r]]);
        }
}

static void test_published(void **state)
{
    struct gapless_master_config config = settings("shared-lga-dot");
    struct gapless_worker *w;
    struct gapless_stats stats;
    uint64_t batch;
    uint32_t before, apart = 0;
    float *grad;

    (void)state;
    config.kappa = 1e-300; /* every gate is 1 */
    expect(config.schedule.rate);
    open_bed(&config);
    busy = worker();
    w = worker();
    busy_updates = 0;
    grad = (float *)(uintptr_t)bed.m->slot[gapless_worker_number(busy)].grad;
    for (uint32_t k = 0; k < COUNT; k++)
        grad[k] = 1;
    bed.also = others_work;
    for (int i = 0; i < 200; i++) {
        before = busy_updates;
        assert_int_equal(gapless_worker_pull(w, &batch, NULL), GAPLESS_OK);
        apart += busy_updates > before + 2 ? 1 : 0;
        copy_is_whole(w);
        for (uint32_t k = 0; k < COUNT; k++)
            gapless_worker_grad(w)[k] = 1;
        assert_int_equal(gapless_worker_push(w, 0, NULL), GAPLESS_OK);
    }
    assert_true(apart > 20); /* so that some reads were lapped */
    bed.also = NULL;
    (void)gapless_master_run(bed.m, 1000000, NULL);
    gapless_master_stats(bed.m, &stats);
    assert_int_equal(stats.gradients, 200 + busy_updates);
    assert_int_equal(stats.dropped + stats.partial, 0);
    gapless_worker_close(busy);
    gapless_worker_close(w);
    close_bed();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_observer),  cmocka_unit_test(test_reads_are_never_torn),
        cmocka_unit_test(test_bounds),    cmocka_unit_test(test_lost_master),
        cmocka_unit_test(test_published),
    };

    pace_alarm(100);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
