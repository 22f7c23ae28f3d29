/* The pure step under a seeded fuzz: anything may happen in any order. After every run
 * each batch must have been consumed exactly once: applied in every range, or dropped,
 * or counted as partial. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/unit/core_world.h"

static void someone_dies(struct world *w, uint32_t worker)
{
    struct core_worker *cw = &w->core->worker[worker];
    bool held = cw->state == CORE_COMPUTING || cw->state == CORE_PUSHED;

    if (held && cw->applied > 0)
        memset(&w->partial[cw->ticket], 1, cw->steps);
    if (held && cw->applied == 0 && cw->ticket < TICKETS_MAX) {
        w->given[cw->ticket] = 0;
        memset(&w->dropped[cw->ticket], 0, cw->steps);
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

/* Every batch that was given out is consumed, computed, kept for a worker or to be given
 * again, once. */
static void check_tickets(const struct world *w)
{
    const struct core_ticket *returned =
        (const void *)((const char *)w->core + w->core->at_returned);
    uint64_t out = w->core->consumed;
    uint32_t i;

    for (i = 0; i < w->core->config.workers_max; i++) {
        const struct core_worker *cw = &w->core->worker[i];
        bool holds = cw->state == CORE_COMPUTING || cw->state == CORE_PUSHED;

        out += holds ? cw->steps : 0;
        if (cw->state != CORE_FREE && cw->next.first != CORE_NO_TICKET) {
            assert_true(holds && cw->ahead);
            out += cw->next.steps;
        }
    }
    for (i = 0; i < w->core->returned; i++)
        out += returned[i].steps;
    assert_int_equal(out, w->core->issued);
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
    config.local = !config.round && seed % 7 < 3;
    config.steps = seed % 11 < 4 ? (uint32_t)(1 + seed % 9) : 0;
    config.adapt = config.steps > 0 && seed % 2 == 0;
    config.workers_wait = seed % 3 == 0 ? config.workers_max : 0;
    config.wait_ns = 5000;
    begin(&w, &config, seed);
    w.bad_share = seed % 4 == 0 ? 100 : 0;
    w.ahead = seed % 13 < 6;
    for (steps = 0; steps < 200000 && w.core->phase != CORE_OVER_NOW; steps++) {
        one_thing(&w);
        check_tickets(&w);
    }
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
static void any_event_order(bool local)
{
    struct core_config config = config_of(5, 3, 1000000);
    struct core_event e;
    struct world w;
    struct todo todo;
    uint64_t i;

    config.local = local;
    begin(&w, &config, 77);
    for (i = 0; i < 300000; i++) {
        e = (struct core_event){.kind = (enum core_event_kind)draw(&w, CORE_TICK + 1),
                                .worker = (uint32_t)draw(&w, 6),
                                .range = (uint32_t)draw(&w, 5),
                                .finite = draw(&w, 8) != 0,
                                .ahead = i % 3 == 0,
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
        assert_true(w.core->returned <= 2 * config.workers_max);
        assert_true(w.core->issued - w.core->consumed <= 2 * config.workers_max);
    }
    end(&w);
}

static void test_any_event_order(void **state)
{
    (void)state;
    any_event_order(false);
    any_event_order(true);
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
        cmocka_unit_test(test_fuzz),
        cmocka_unit_test(test_any_event_order),
        cmocka_unit_test(test_copy_and_replay),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
