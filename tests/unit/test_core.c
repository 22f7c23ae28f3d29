/* The pure step of the master: scenarios by hand. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/core_world.h"

static void test_lag_of_round_robin(void **state)
{
    struct core_config config = config_of(4, 1, 100);
    struct world w;
    uint32_t i;

    (void)state;
    begin(&w, &config, 1);
    for (i = 0; i < 4; i++)
        hello(&w);
    for (i = 0; i < 40; i++) {
        if (i >= 4)
            assert_int_equal(core_lag(w.core, i % 4, 0), 3);
        assert_int_equal(push(&w, i % 4, true), 0);
    }
    assert_int_equal(core_version(w.core, 0), 40);
    end(&w);
}

static void test_one_worker_has_no_lag(void **state)
{
    struct core_config config = config_of(1, 3, 10);
    struct world w;
    uint32_t i;

    (void)state;
    begin(&w, &config, 1);
    hello(&w);
    for (i = 0; i < 30 && w.core->phase == CORE_RUNNING; i++) {
        assert_int_equal(core_lag(w.core, 0, i % 3), 0);
        assert_int_equal(push(&w, 0, true), 0);
    }
    assert_int_equal(w.core->phase, CORE_OVER_NOW);
    assert_int_equal(w.core->updates, 10);
    assert_true(w.reported_to_stop[0]);
    end(&w);
}

/* A gradient of drop_lag updates ago changes nothing, in one piece and in ranges, and its
 * worker has new parameters. */
static void test_late_gradients_are_dropped(void **state)
{
    (void)state;
    for (int whole = 0; whole < 2; whole++)
        for (int by_range = 0; by_range < 2; by_range++) {
            struct core_config config = config_of(3, 2, 100);
            struct world w;

            config.drop_lag = 3;
            config.whole = whole;
            begin(&w, &config, 1);
            for (int i = 0; i < 3; i++)
                hello(&w);
            for (int i = 0; i < 2; i++)
                feed(&w, CORE_GRADIENT, 0, CORE_ALL, true);
            feed(&w, CORE_GRADIENT, 1, CORE_ALL, true); /* a lag of 2 */
            assert_int_equal(w.core->dropped, 0);
            assert_int_equal(core_lag(w.core, 2, 1), 3);
            for (uint32_t r = 0; by_range && r < 2; r++)
                feed(&w, CORE_GRADIENT, 2, r, true);
            if (!by_range)
                feed(&w, CORE_GRADIENT, 2, CORE_ALL, true);
            assert_int_equal(w.core->dropped, 1);
            assert_int_equal(w.core->consumed, 4);
            assert_int_equal(w.core->updates, 3);
            for (uint32_t r = 0; r < 2; r++) {
                assert_int_equal(core_version(w.core, r), 3);
                assert_int_equal(core_position(w.core, r), 4);
                assert_int_equal(core_lag(w.core, 2, r), 0);
            }
            assert_int_equal(w.core->worker[2].state, CORE_COMPUTING);
            feed(&w, CORE_GRADIENT, 2, CORE_ALL, true);
            assert_int_equal(w.core->updates, 4);
            end(&w);
        }
}

/* A worker gets the number that it wishes if that is free, else the lowest. */
static void test_numbers(void **state)
{
    static const uint32_t wishes[] = {2, 2, 3, 4}, expected[] = {2, 0, 3, 1};
    struct core_config config = config_of(4, 1, 10);
    struct world w;

    (void)state;
    begin(&w, &config, 1);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(w.core->worker[expected[i]].state, CORE_FREE);
        feed(&w, CORE_HELLO, wishes[i], 0, true);
        assert_int_not_equal(w.core->worker[expected[i]].state, CORE_FREE);
    }
    assert_int_equal(w.core->active, 4);
    feed(&w, CORE_GONE, 0, 0, false);
    feed(&w, CORE_GONE, 3, 0, false);
    feed(&w, CORE_HELLO, 3, 0, true);
    assert_int_equal(w.core->worker[0].state, CORE_FREE);
    assert_int_not_equal(w.core->worker[3].state, CORE_FREE);
    end(&w);
}

static void test_start_waits_for_all_but_not_for_ever(void **state)
{
    struct core_config config = config_of(4, 1, 10);
    struct world w;

    (void)state;
    config.workers_wait = 3;
    config.wait_ns = 1000;
    begin(&w, &config, 1);
    hello(&w);
    hello(&w);
    assert_int_equal(push(&w, 0, true), -1);
    w.now_ns = 999;
    feed(&w, CORE_TICK, 0, 0, true);
    assert_int_equal(push(&w, 0, true), -1);
    w.now_ns = 1000;
    feed(&w, CORE_TICK, 0, 0, true);
    assert_int_equal(push(&w, 0, true), 0);
    assert_int_equal(push(&w, 1, true), 0);
    end(&w);
}

static void test_full_and_over(void **state)
{
    struct core_config config = config_of(2, 1, 1);
    struct world w;

    (void)state;
    begin(&w, &config, 1);
    hello(&w);
    hello(&w);
    hello(&w);
    assert_true(w.refused);
    assert_int_equal(w.core->active, 2);
    assert_int_equal(push(&w, 0, true), 0);
    assert_int_equal(w.core->phase, CORE_OVER_NOW);
    w.refused = false;
    hello(&w);
    assert_true(w.refused);
    end(&w);
}

/* The batch of a dead worker goes to the next, even if that one was already waiting for
 * the end. */
static void test_ticket_of_the_dead(void **state)
{
    struct core_config config = config_of(3, 1, 2);
    struct world w;

    (void)state;
    begin(&w, &config, 1);
    hello(&w);
    hello(&w);
    hello(&w); /* no ticket left: waits */
    assert_int_equal(w.core->worker[2].state, CORE_WAITING);
    assert_int_equal(push(&w, 0, true), 0);
    feed(&w, CORE_GONE, 1, 0, false);
    assert_int_equal(w.core->lost, 1);
    assert_int_equal(w.core->phase, CORE_RUNNING);
    assert_true(w.core->worker[0].state == CORE_COMPUTING ||
                w.core->worker[2].state == CORE_COMPUTING);
    while (w.core->phase == CORE_RUNNING)
        assert_true(push(&w, 0, true) == 0 || push(&w, 2, true) == 0);
    assert_int_equal(w.applied[0][0], 1);
    assert_int_equal(w.applied[1][0], 1);
    end(&w);
}

static void hello_ahead(struct world *w)
{
    feed_event(w, &(struct core_event){
                      .kind = CORE_HELLO, .finite = true, .ahead = true, .now_ns = 1});
}

static void holds(const struct world *w, uint32_t worker, uint64_t ticket,
                  uint64_t next)
{
    assert_int_equal(w->core->worker[worker].ticket, ticket);
    assert_int_equal(w->core->worker[worker].next.first, next);
}

static void test_tickets_that_are_kept(void **state)
{
    struct core_config config = config_of(3, 1, 6);
    struct world w;

    (void)state;
    begin(&w, &config, 1);
    hello_ahead(&w);
    hello_ahead(&w);
    hello(&w);
    holds(&w, 0, 0, 1);
    holds(&w, 1, 2, 3);
    holds(&w, 2, 4, CORE_NO_TICKET); /* did not ask */
    assert_int_equal(push(&w, 0, true), 0);
    holds(&w, 0, 1, 5);
    assert_int_equal(push(&w, 2, true), 0); /* nothing is left but what is kept */
    holds(&w, 2, 3, CORE_NO_TICKET);
    holds(&w, 1, 2, CORE_NO_TICKET);
    holds(&w, 0, 1, 5);
    feed(&w, CORE_GONE, 1, 0, false);
    assert_int_equal(push(&w, 0, true), 0);
    holds(&w, 0, 2, 5); /* it came back, and is earlier */
    feed(&w, CORE_GONE, 0, 0, false);
    assert_int_equal(push(&w, 2, true), 0);
    holds(&w, 2, 2, CORE_NO_TICKET);
    assert_int_equal(push(&w, 2, true), 0);
    holds(&w, 2, 5, CORE_NO_TICKET);
    assert_int_equal(w.core->phase, CORE_RUNNING);
    assert_int_equal(push(&w, 2, true), 0);
    assert_int_equal(w.core->consumed, 6);
    assert_int_equal(w.core->phase, CORE_OVER_NOW);
    end(&w);
}

/* A saved state has what is kept, too; who goes on from it deals all of it again. */
static void test_kept_tickets_are_saved(void **state)
{
    struct core_config config = config_of(2, 1, 100);
    struct world w, copy, next;
    uint64_t *words;

    (void)state;
    begin(&w, &config, 1);
    hello_ahead(&w);
    hello(&w);
    words = calloc(core_words(w.core), sizeof *words);
    assert_non_null(words);
    core_export(w.core, words);
    begin(&copy, &config, 1);
    assert_true(core_import(copy.core, words, core_words(w.core)));
    assert_true(copy.core->worker[0].ahead && !copy.core->worker[1].ahead);
    holds(&copy, 0, 0, 1);
    holds(&copy, 1, 2, CORE_NO_TICKET);
    begin(&next, &config, 1);
    assert_true(core_go_on(next.core, copy.core));
    assert_int_equal(next.core->returned, 3);
    assert_int_equal(next.core->issued, 3);
    free(words);
    end(&w);
    end(&copy);
    end(&next);
}

static void test_none_is_kept_where_steps_adapt(void **state)
{
    struct core_config config = config_of(2, 1, 100);
    struct world w;

    (void)state;
    config.steps = 4;
    begin(&w, &config, 1);
    hello_ahead(&w);
    holds(&w, 0, 0, 4);
    assert_int_equal(w.core->worker[0].next.steps, 4);
    end(&w);
    config.adapt = true;
    begin(&w, &config, 1);
    hello_ahead(&w);
    holds(&w, 0, 0, CORE_NO_TICKET);
    end(&w);
    config = config_of(2, 1, 100); /* nor where the run is about to end */
    begin(&w, &config, 1);
    hello_ahead(&w);
    feed(&w, CORE_STOP, 0, 0, true);
    assert_int_equal(push(&w, 0, true), 0);
    assert_int_equal(w.core->phase, CORE_OVER_NOW);
    assert_int_equal(w.core->consumed, 1);
    end(&w);
}

static void test_slow_worker_is_dropped(void **state)
{
    struct core_config config = config_of(2, 1, 0);
    struct world w;

    (void)state;
    config.timeout_ns = 100;
    begin(&w, &config, 1);
    hello(&w);
    hello(&w);
    w.now_ns = 90;
    assert_int_equal(push(&w, 1, true), 0);
    w.now_ns = 101;
    feed(&w, CORE_TICK, 0, 0, true);
    assert_int_equal(w.core->worker[0].state, CORE_FREE);
    assert_int_equal(w.core->worker[1].state, CORE_COMPUTING);
    end(&w);
}

static void test_broken_protocol(void **state)
{
    struct core_config config = config_of(2, 2, 0);
    struct world w;

    (void)state;
    begin(&w, &config, 1);
    feed(&w, CORE_GRADIENT, 1, 0,
         true); /* nobody there: dropped, which is no news for a free slot */
    assert_int_equal(w.core->consumed, 0);
    hello(&w);
    feed(&w, CORE_GRADIENT, 0, 1, true);
    feed(&w, CORE_GRADIENT, 0, 1, true); /* the same range again */
    assert_int_equal(w.core->worker[0].state, CORE_FREE);
    assert_int_equal(w.core->partial, 1);
    end(&w);
}

static void test_impossible_numbers(void **state)
{
    struct core_config config = config_of(2, 2, 0);
    struct core_event e = {.kind = CORE_GRADIENT, .worker = 2, .finite = true};
    struct world w;
    struct todo todo;

    (void)state;
    begin(&w, &config, 1);
    assert_int_equal(core_step(w.core, &e, &todo), -1);
    e.worker = 0;
    e.range = 2;
    assert_int_equal(core_step(w.core, &e, &todo), -1);
    e = (struct core_event){.kind = CORE_APPLIED, .range = CORE_ALL, .applied = 3};
    assert_int_equal(core_step(w.core, &e, &todo), -1);
    config.workers_max = 1u << 20;
    config.ranges = 1u << 20;
    assert_int_equal(core_bytes(&config), 0);
    end(&w);
}

/* A gradient that its worker uses itself moves the schedule and the books, not the
 * versions; what the worker was given is not written over, whatever comes between. */
static void test_local_gradients(void **state)
{
    struct core_config config = config_of(2, 2, 6);
    struct world w;

    (void)state;
    config.local = true;
    begin(&w, &config, 1);
    hello(&w);
    hello(&w);
    local(&w, 0);
    local(&w, 0);
    assert_int_equal(core_position(w.core, 1), 2);
    assert_int_equal(w.core->consumed, 2);
    assert_int_equal(w.core->updates, 0);
    feed(&w, CORE_GRADIENT, 1, CORE_ALL, true);
    assert_int_equal(w.core->updates, 1);
    assert_int_equal(core_version(w.core, 0), 1);
    assert_int_equal(core_lag(w.core, 0, 0), 1);
    local(&w, 1);
    feed(&w, CORE_GRADIENT, 0, CORE_ALL, true); /* the last: no ticket for it */
    assert_int_equal(w.core->worker[0].state, CORE_WAITING);
    feed(&w, CORE_GONE, 1, 0, false);
    assert_int_equal(w.core->worker[0].state, CORE_COMPUTING);
    assert_int_equal(core_lag(w.core, 0, 0), w.version[0] - w.read[0][0]);
    local(&w, 0);
    assert_int_equal(w.core->phase, CORE_OVER_NOW);
    assert_int_equal(w.core->consumed, 6);
    feed(&w, CORE_LOCAL, 0, 0, true); /* too late: nobody minds */
    assert_int_equal(w.core->consumed, 6);
    end(&w);
}

static void test_local_is_refused_where_nobody_does_it(void **state)
{
    struct core_config config = config_of(2, 2, 0);
    struct world w;

    (void)state;
    begin(&w, &config, 1);
    hello(&w);
    feed(&w, CORE_LOCAL, 0, 0, true);
    assert_int_equal(w.core->worker[0].state, CORE_FREE);
    assert_int_equal(w.core->consumed, 0);
    end(&w);
    config.local = true;
    begin(&w, &config, 1);
    hello(&w);
    feed(&w, CORE_GRADIENT, 0, 1, true);
    feed(&w, CORE_LOCAL, 0, 0, true); /* in the middle of a message */
    assert_int_equal(w.core->worker[0].state, CORE_FREE);
    feed(&w, CORE_LOCAL, 1, 0, true); /* nobody there */
    assert_int_equal(w.core->consumed, 1);
    assert_int_equal(w.core->partial, 1);
    end(&w);
}

static void test_stop_lets_gradients_in(void **state)
{
    struct core_config config = config_of(2, 1, 0);
    struct world w;

    (void)state;
    begin(&w, &config, 1);
    hello(&w);
    hello(&w);
    assert_int_equal(push(&w, 0, true), 0);
    feed(&w, CORE_STOP, 0, 0, true);
    assert_int_equal(w.core->phase, CORE_STOPPING);
    assert_int_equal(push(&w, 0, true), 0);
    assert_int_equal(push(&w, 1, true), 0);
    assert_int_equal(w.core->phase, CORE_OVER_NOW);
    assert_int_equal(w.core->consumed, 3);
    assert_true(w.reported_to_stop[0] && w.reported_to_stop[1]);
    end(&w);
}

static void test_stop_is_bounded(void **state)
{
    struct core_config config = config_of(1, 1, 0);
    struct world w;

    (void)state;
    begin(&w, &config, 1);
    hello(&w);
    feed(&w, CORE_STOP, 0, 0, true);
    w.now_ns = 10000000000ull;
    feed(&w, CORE_TICK, 0, 0, true);
    assert_int_equal(w.core->phase, CORE_OVER_NOW);
    end(&w);
}

/* A ticket of several batches: what is counted is batches, the last is as short as need
 * be, and one that is given back is given on as it was. */
static void test_tickets_of_several(void **state)
{
    struct core_config config = config_of(3, 2, 21);
    struct world w;

    (void)state;
    config.steps = 4;
    begin(&w, &config, 1);
    hello(&w);
    hello(&w);
    assert_int_equal(w.core->worker[0].ticket, 0);
    assert_int_equal(w.core->worker[1].ticket, 4);
    assert_int_equal(w.core->worker[1].steps, 4);
    feed(&w, CORE_GONE, 1, 0, false);
    hello(&w);
    assert_int_equal(w.core->worker[1].ticket, 4);
    while (w.core->worker[1].pushed < 2 && w.core->worker[1].ticket == 4)
        assert_int_equal(push(&w, 1, true), 0);
    assert_int_equal(w.core->consumed, 4);
    assert_int_equal(w.core->updates, 1);
    assert_int_equal(core_position(w.core, 0), 4);
    assert_int_equal(push(&w, 0, false), 0);
    assert_int_equal(w.core->dropped, 4);
    assert_int_equal(w.core->consumed, 8);
    while (w.core->phase == CORE_RUNNING)
        if (push(&w, 0, true) != 0)
            assert_int_equal(push(&w, 1, true), 0);
    assert_int_equal(w.core->consumed, 21);
    assert_int_equal(w.core->updates, 5); /* of 4, 4, 4, 4 and 1; 4 were dropped */
    end(&w);
}

/* A worker that takes four times as long for a batch gets a quarter of them. */
static void test_fewer_for_the_slow(void **state)
{
    struct core_config config = config_of(3, 1, 0);
    struct world w;

    (void)state;
    config.steps = 16;
    config.adapt = true;
    begin(&w, &config, 1);
    w.now_ns = 1000;
    hello(&w);
    hello(&w);
    w.now_ns += 1600;
    assert_int_equal(push(&w, 0, true), 0);
    assert_int_equal(w.core->worker[0].steps, 16);
    w.now_ns += 4800;
    assert_int_equal(push(&w, 1, true), 0); /* 400 ns a batch, and 100 at worker 0 */
    assert_int_equal(w.core->worker[1].steps, 4);
    w.now_ns += 4 * 200; /* from 400 a quarter of the way to 200 */
    assert_int_equal(push(&w, 1, true), 0);
    assert_int_equal(w.core->worker[1].step_ns, 350);
    assert_int_equal(w.core->worker[1].steps, 5); /* 16 * 100/350 = 4.6 */
    hello(&w);
    assert_int_equal(w.core->worker[2].steps, 16); /* not known yet */
    w.now_ns += 16 * 1000000;
    assert_int_equal(push(&w, 2, true), 0);
    assert_int_equal(w.core->worker[2].steps, 1); /* at least */
    end(&w);
}

/* The time of a worker begins with the event that a record has, not with the end of the
 * master's pass, which it has not: so a replay gives the same number of steps. */
static void test_time_is_that_of_a_record(void **state)
{
    struct core_config config = config_of(1, 1, 0);
    struct core_event e = {.kind = CORE_HELLO, .finite = true, .now_ns = 1000};
    struct world w;
    struct todo todo;

    (void)state;
    config.steps = 4;
    config.adapt = true;
    begin(&w, &config, 1);
    assert_int_equal(core_step(w.core, &e, &todo), 0);
    for (int i = 0; i < 2; i++) {
        e = (struct core_event){
            .kind = CORE_GRADIENT, .finite = true, .now_ns = e.now_ns + 800};
        assert_int_equal(core_step(w.core, &e, &todo), 0);
        assert_int_equal(w.core->worker[0].step_ns, 200);
        e.kind = CORE_APPLIED;
        e.now_ns += 100; /* the pass */
        assert_int_equal(core_step(w.core, &e, &todo), 0);
        e.now_ns -= 100;
    }
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lag_of_round_robin),
        cmocka_unit_test(test_one_worker_has_no_lag),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_late_gradients_are_dropped),
        cmocka_unit_test(test_start_waits_for_all_but_not_for_ever),
        cmocka_unit_test(test_full_and_over),
        cmocka_unit_test(test_ticket_of_the_dead),
        cmocka_unit_test(test_tickets_that_are_kept),
        cmocka_unit_test(test_kept_tickets_are_saved),
        cmocka_unit_test(test_none_is_kept_where_steps_adapt),
        cmocka_unit_test(test_slow_worker_is_dropped),
        cmocka_unit_test(test_broken_protocol),
        cmocka_unit_test(test_impossible_numbers),
        cmocka_unit_test(test_local_gradients),
        cmocka_unit_test(test_local_is_refused_where_nobody_does_it),
        cmocka_unit_test(test_stop_lets_gradients_in),
        cmocka_unit_test(test_stop_is_bounded),
        cmocka_unit_test(test_tickets_of_several),
        cmocka_unit_test(test_fewer_for_the_slow),
        cmocka_unit_test(test_time_is_that_of_a_record),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
