/* The pure step: scenarios by hand, then a seeded fuzz in which anything may happen in
 * any order. After every run each batch must have been consumed exactly once: applied
 * in every range, or dropped, or counted as partial. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/master_core.h"

#include <stdlib.h>
#include <string.h>

#define TICKETS_MAX 400
#define WORKERS_MAX 9
#define RANGES_MAX 5

struct world {
    struct master_core *core;
    uint64_t now_ns, random;
    unsigned bad_share;                       /* of 1024 gradients: not finite */
    uint8_t applied[TICKETS_MAX][RANGES_MAX]; /* times */
    uint8_t dropped[TICKETS_MAX], given[TICKETS_MAX], partial[TICKETS_MAX];
    uint64_t version[RANGES_MAX], read[WORKERS_MAX][RANGES_MAX];
    bool waits_for_ready[WORKERS_MAX][RANGES_MAX];
    bool sent[WORKERS_MAX][RANGES_MAX]; /* of the present message */
    bool told_to_stop[WORKERS_MAX];
    bool refused;
    unsigned most_actions;
};

static uint64_t draw(struct world *w, uint64_t below)
{
    w->random = w->random * 6364136223846793005ull + 1442695040888963407ull;
    return (w->random >> 33) % below;
}

static void feed(struct world *w, enum core_event_kind kind, uint32_t worker,
                 uint32_t range, bool finite);
static void feed_applied(struct world *w, uint32_t worker, uint32_t range, bool finite,
                         uint32_t applied);
static void feed_event(struct world *w, const struct core_event *e);

static void begin(struct world *w, const struct core_config *config, uint64_t seed)
{
    memset(w, 0, sizeof *w);
    w->random = seed * 2654435761u + 1;
    w->core = malloc(core_bytes(config));
    assert_non_null(w->core);
    core_init(w->core, config);
}

static void end(struct world *w)
{
    free(w->core);
}

static uint32_t ranges_of(const struct world *w)
{
    return w->core->config.ranges;
}

static void ready_one(struct world *w, uint32_t worker, uint32_t range)
{
    struct core_worker *cw = &w->core->worker[worker];
    uint32_t r;

    if (!cw->ready)
        return;
    for (r = 0; r < ranges_of(w); r++)
        if (range == CORE_ALL || r == range) {
            if (cw->refresh)
                w->read[worker][r] = w->version[r];
            w->waits_for_ready[worker][r] = false;
        }
    if (cw->stop)
        w->told_to_stop[worker] = true;
    cw->ready = cw->refresh = false;
}

/* The truth about what an update does, kept apart from the core. Of all ranges that are
 * not finite, those below `applied` were applied. */
static void note_applied(struct world *w, uint32_t worker, uint32_t range, bool finite,
                         uint32_t applied)
{
    uint64_t t = w->core->worker[worker].ticket;
    uint32_t r;

    for (r = 0; r < ranges_of(w); r++)
        if (range == CORE_ALL || r == range) {
            if (!w->core->config.round)
                assert_int_equal(core_lag(w->core, worker, r),
                                 w->version[r] - w->read[worker][r]);
            w->applied[t][r]++;
            if ((finite || (range == CORE_ALL && r < applied)) &&
                !w->core->config.round)
                w->version[r]++;
            w->read[worker][r] = w->version[r];
        }
    if (!finite)
        w->dropped[t] = 1;
}

static void do_round(struct world *w, bool finite)
{
    uint32_t i, r;

    assert_int_equal(core_next(w->core, CORE_COMPUTING, CORE_ALL), CORE_ALL);
    for (r = 0; finite && r < ranges_of(w); r++)
        w->version[r]++;
    for (i = core_next(w->core, CORE_PUSHED, CORE_ALL); i != CORE_ALL;
         i = core_next(w->core, CORE_PUSHED, i)) {
        bool bad = finite && draw(w, 1024) < w->bad_share;

        if (bad)
            core_spoil(w->core, i);
        note_applied(w, i, CORE_ALL, finite && !bad, 0);
    }
}

static void perform(struct world *w, const struct core_action *a)
{
    bool finite = draw(w, 1024) >= w->bad_share;
    uint32_t i, r, applied;

    switch (a->kind) {
    case CORE_WELCOME:
        for (r = 0; r < ranges_of(w); r++) {
            w->read[a->worker][r] = w->version[r];
            w->waits_for_ready[a->worker][r] = true;
        }
        w->told_to_stop[a->worker] = false;
        break;
    case CORE_APPLY:
        applied = a->range == CORE_ALL && !w->core->config.whole
                      ? (uint32_t)draw(w, ranges_of(w))
                      : 0;
        note_applied(w, a->worker, a->range, finite, applied);
        feed_applied(w, a->worker, a->range, finite, applied);
        break;
    case CORE_ROUND:
        do_round(w, finite);
        feed(w, CORE_APPLIED, CORE_ALL, CORE_ALL, finite);
        break;
    case CORE_READY:
        for (i = 0; i < w->core->config.workers_max; i++)
            if ((a->worker == CORE_ALL || a->worker == i) &&
                w->core->worker[i].state != CORE_FREE)
                ready_one(w, i, a->range);
        break;
    case CORE_DROP:
        if (a->worker != CORE_ALL)
            feed(w, CORE_GONE, a->worker, 0, false);
        else
            w->refused = true;
        break;
    case CORE_FORGET:
    case CORE_FINISH:
        break;
    }
}

static void feed(struct world *w, enum core_event_kind kind, uint32_t worker,
                 uint32_t range, bool finite)
{
    feed_event(w, &(struct core_event){kind, worker, range, finite, w->now_ns, 0});
}

static void feed_applied(struct world *w, uint32_t worker, uint32_t range, bool finite,
                         uint32_t applied)
{
    feed_event(w, &(struct core_event){CORE_APPLIED, worker, range, finite, w->now_ns,
                                       finite ? 0 : applied});
}

static void feed_event(struct world *w, const struct core_event *e)
{
    struct todo todo;
    uint32_t i;

    assert_int_equal(core_step(w->core, e, &todo), 0);
    assert_true(todo.count <= CORE_ACTIONS_MAX);
    if (todo.count > w->most_actions)
        w->most_actions = todo.count;
    for (i = 0; i < todo.count; i++)
        perform(w, &todo.action[i]);
}

static void hello(struct world *w)
{
    feed(w, CORE_HELLO, 0, 0, true);
}

/* One range of a worker that computes; -1: it has none to push. */
static int push(struct world *w, uint32_t worker, bool finite)
{
    struct core_worker *cw = &w->core->worker[worker];
    uint32_t r, skip;

    if (cw->state != CORE_COMPUTING || cw->pushed == ranges_of(w))
        return -1;
    for (r = 0; r < ranges_of(w);
         r++) /* an honest worker pushes when all it asked for is there */
        if (cw->pushed == 0 && w->waits_for_ready[worker][r])
            return -1;
    if (cw->pushed == 0) {
        w->given[cw->ticket]++;
        memset(w->sent[worker], 0, sizeof w->sent[worker]);
    }
    if (!finite && cw->pushed == 0) {
        w->dropped[cw->ticket] = 1;
        for (r = 0; r < ranges_of(w); r++)
            w->waits_for_ready[worker][r] = true;
        feed(w, CORE_GRADIENT, worker, 0, false);
        return 0;
    }
    if (cw->pushed == 0 && draw(w, 2) == 0) { /* all ranges at once */
        for (r = 0; r < ranges_of(w); r++)
            w->sent[worker][r] = w->waits_for_ready[worker][r] = true;
        feed(w, CORE_GRADIENT, worker, CORE_ALL, true);
        return 0;
    }
    skip = (uint32_t)draw(w, ranges_of(w));
    for (r = skip;; r = (r + 1) % ranges_of(w))
        if (!w->sent[worker][r]) {
            w->sent[worker][r] = w->waits_for_ready[worker][r] = true;
            feed(w, CORE_GRADIENT, worker, r, true);
            return 0;
        }
}

static struct core_config config_of(uint32_t workers, uint32_t ranges, uint64_t tickets)
{
    return (struct core_config){
        .workers_max = workers, .ranges = ranges, .tickets = tickets};
}

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
    assert_true(w.told_to_stop[0]);
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
    assert_true(w.told_to_stop[0] && w.told_to_stop[1]);
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

/* ---- fuzz ---- */

static void someone_dies(struct world *w, uint32_t worker)
{
    struct core_worker *cw = &w->core->worker[worker];
    bool held = cw->state == CORE_COMPUTING || cw->state == CORE_PUSHED;

    if (held && cw->applied > 0)
        w->partial[cw->ticket] = 1;
    if (held && cw->applied == 0 && cw->ticket < TICKETS_MAX) {
        w->given[cw->ticket] = 0;
        w->dropped[cw->ticket] = 0;
    }
    feed(w, CORE_GONE, worker, 0, draw(w, 4) == 0);
}

static void one_thing(struct world *w)
{
    uint32_t worker = (uint32_t)draw(w, w->core->config.workers_max);

    w->now_ns += draw(w, 1000);
    switch (draw(w, 32)) {
    case 0:
    case 1:
        hello(w);
        break;
    case 2:
        someone_dies(w, worker);
        break;
    case 3:
        feed(w, CORE_TICK, 0, 0, true);
        break;
    default:
        (void)push(w, worker, draw(w, 1024) >= w->bad_share);
    }
}

static void check_books(const struct world *w)
{
    uint64_t t, partial = 0, dropped = 0;
    uint32_t r;

    assert_int_equal(w->core->consumed, w->core->config.tickets);
    for (t = 0; t < w->core->config.tickets; t++) {
        partial += w->partial[t];
        dropped += w->dropped[t] && !w->partial[t];
        for (r = 0; r < ranges_of(w); r++) {
            assert_true(w->applied[t][r] <= 1);
            assert_true(w->applied[t][r] == 1 || w->partial[t] || w->dropped[t]);
        }
    }
    assert_int_equal(w->core->partial, partial);
    assert_int_equal(w->core->dropped, dropped);
    for (r = 0; r < ranges_of(w); r++)
        assert_int_equal(core_version(w->core, r), w->version[r]);
}

static void fuzz(uint64_t seed)
{
    struct core_config config =
        config_of(1 + (uint32_t)(seed % WORKERS_MAX),
                  1 + (uint32_t)(seed / 7 % RANGES_MAX), 1 + seed * 37 % TICKETS_MAX);
    struct world w;
    uint32_t steps;

    config.round = seed % 5 == 0;
    config.whole = config.round || seed % 5 == 1;
    config.workers_wait = seed % 3 == 0 ? config.workers_max : 0;
    config.wait_ns = 5000;
    begin(&w, &config, seed);
    w.bad_share = seed % 4 == 0 ? 100 : 0;
    for (steps = 0; steps < 200000 && w.core->phase != CORE_OVER_NOW; steps++)
        one_thing(&w);
    assert_int_equal(w.core->phase, CORE_OVER_NOW);
    check_books(&w);
    end(&w);
}

static void test_fuzz(void **state)
{
    uint64_t seed;

    (void)state;
    for (seed = 1; seed <= 2000; seed++)
        fuzz(seed);
}

/* Garbage in any order: no assertion, no fault, the counters stay consistent. */
static void test_any_event_order(void **state)
{
    struct core_config config = config_of(5, 3, 1000000);
    struct core_event e;
    struct world w;
    struct todo todo;
    uint64_t i;

    (void)state;
    begin(&w, &config, 77);
    for (i = 0; i < 300000; i++) {
        e = (struct core_event){.kind = (enum core_event_kind)draw(&w, CORE_TICK + 1),
                                .worker = (uint32_t)draw(&w, 6),
                                .range = (uint32_t)draw(&w, 5),
                                .finite = draw(&w, 8) != 0,
                                .now_ns = i};
        if (e.range == 4)
            e.range = CORE_ALL;
        if (e.kind == CORE_APPLIED)
            continue; /* only ever the answer to an action */
        if (core_step(w.core, &e, &todo) != 0)
            continue;
        for (uint32_t a = 0; a < todo.count; a++)
            if (todo.action[a].kind == CORE_APPLY) {
                struct core_event applied = {.kind = CORE_APPLIED,
                                             .worker = todo.action[a].worker,
                                             .range = todo.action[a].range,
                                             .finite = true,
                                             .now_ns = i};
                struct todo more;

                assert_int_equal(core_step(w.core, &applied, &more), 0);
                assert_true(more.count <= CORE_ACTIONS_MAX);
            }
        assert_true(w.core->active <= config.workers_max);
        assert_true(w.core->computing <= w.core->active);
        assert_true(w.core->returned <= config.workers_max);
        assert_true(w.core->issued - w.core->consumed <= config.workers_max);
    }
    end(&w);
}

/* The state has no pointers: a copy continues exactly as the original. */
static void test_copy_and_replay(void **state)
{
    struct core_config config = config_of(6, 2, 300);
    struct world a, b;
    int i;

    (void)state;
    begin(&a, &config, 5);
    for (i = 0; i < 200; i++)
        one_thing(&a);
    b = a;
    b.core = malloc(a.core->bytes);
    memcpy(b.core, a.core, a.core->bytes);
    for (i = 0; i < 200; i++) {
        one_thing(&a);
        one_thing(&b);
    }
    assert_memory_equal(a.core, b.core, a.core->bytes);
    end(&a);
    end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lag_of_round_robin),
        cmocka_unit_test(test_one_worker_has_no_lag),
        cmocka_unit_test(test_start_waits_for_all_but_not_for_ever),
        cmocka_unit_test(test_full_and_over),
        cmocka_unit_test(test_ticket_of_the_dead),
        cmocka_unit_test(test_slow_worker_is_dropped),
        cmocka_unit_test(test_broken_protocol),
        cmocka_unit_test(test_impossible_numbers),
        cmocka_unit_test(test_stop_lets_gradients_in),
        cmocka_unit_test(test_stop_is_bounded),
        cmocka_unit_test(test_fuzz),
        cmocka_unit_test(test_any_event_order),
        cmocka_unit_test(test_copy_and_replay),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
