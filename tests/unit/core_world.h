/* A world around the protocol step: workers that push what they may, and the truth
 * about what was applied, kept apart from the core. */
#ifndef GAPLESS_TESTS_CORE_WORLD_H
#define GAPLESS_TESTS_CORE_WORLD_H

#include "engine/master/core.h"

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
    bool reported_to_stop[WORKERS_MAX];
    bool refused;
    bool ahead; /* most workers want to know their next ticket */
    unsigned most_actions;
};

static inline uint64_t draw(struct world *w, uint64_t below)
{
    w->random = w->random * 6364136223846793005ull + 1442695040888963407ull;
    return (w->random >> 33) % below;
}

static inline void feed(struct world *w, enum core_event_kind kind, uint32_t worker,
                        uint32_t range, bool finite);
static inline void feed_applied(struct world *w, uint32_t worker, uint32_t range,
                                bool finite, uint32_t applied);
static inline void feed_event(struct world *w, const struct core_event *e);

static inline void begin(struct world *w, const struct core_config *config,
                         uint64_t seed)
{
    memset(w, 0, sizeof *w);
    w->random = seed * 2654435761u + 1;
    w->core = malloc(core_bytes(config));
    assert_non_null(w->core);
    core_init(w->core, config);
}

static inline void end(struct world *w)
{
    free(w->core);
}

static inline uint32_t ranges_of(const struct world *w)
{
    return w->core->config.ranges;
}

static inline void ready_one(struct world *w, uint32_t worker, uint32_t range)
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
        w->reported_to_stop[worker] = true;
    cw->ready = cw->refresh = false;
}

/* The truth about what an update does, by batch, kept apart from the core. Of all ranges that are
 * not finite, those below `applied` were applied. */
static inline void note_applied(struct world *w, uint32_t worker, uint32_t range,
                                bool finite, uint32_t applied)
{
    uint64_t t = w->core->worker[worker].ticket;
    uint32_t steps = w->core->worker[worker].steps, r;

    for (r = 0; r < ranges_of(w); r++)
        if (range == CORE_ALL || r == range) {
            if (!w->core->config.round)
                assert_int_equal(core_lag(w->core, worker, r),
                                 w->version[r] - w->read[worker][r]);
            for (uint32_t b = 0; b < steps; b++)
                w->applied[t + b][r]++;
            if ((finite || (range == CORE_ALL && r < applied)) &&
                !w->core->config.round)
                w->version[r]++;
            w->read[worker][r] = w->version[r];
        }
    if (!finite)
        memset(&w->dropped[t], 1, steps);
}

static inline void do_round(struct world *w, bool finite)
{
    uint32_t i, r;

    assert_int_equal(core_next(w->core, CORE_COMPUTING, CORE_ALL), CORE_ALL);
    for (r = 0; finite && r < ranges_of(w); r++)
        w->version[r]++;
    for (i = core_next(w->core, CORE_PUSHED, CORE_ALL); i != CORE_ALL;
         i = core_next(w->core, CORE_PUSHED, i)) {
        bool bad = finite && draw(w, 1024) < w->bad_share;

        if (bad)
            core_reject(w->core, i);
        note_applied(w, i, CORE_ALL, finite && !bad, 0);
    }
}

static inline void perform(struct world *w, const struct core_action *a)
{
    bool finite = draw(w, 1024) >= w->bad_share;
    uint32_t i, r, applied;

    switch (a->kind) {
    case CORE_WELCOME:
        for (r = 0; r < ranges_of(w); r++) {
            w->read[a->worker][r] = w->version[r];
            w->waits_for_ready[a->worker][r] = true;
        }
        w->reported_to_stop[a->worker] = false;
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

static inline void feed(struct world *w, enum core_event_kind kind, uint32_t worker,
                        uint32_t range, bool finite)
{
    feed_event(w, &(struct core_event){.kind = kind,
                                       .worker = worker,
                                       .range = range,
                                       .finite = finite,
                                       .now_ns = w->now_ns});
}

static inline void feed_applied(struct world *w, uint32_t worker, uint32_t range,
                                bool finite, uint32_t applied)
{
    feed_event(w, &(struct core_event){.kind = CORE_APPLIED,
                                       .worker = worker,
                                       .range = range,
                                       .finite = finite,
                                       .now_ns = w->now_ns,
                                       .applied = finite ? 0 : applied});
}

static inline void feed_event(struct world *w, const struct core_event *e)
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

static inline void hello(struct world *w)
{
    feed_event(w, &(struct core_event){.kind = CORE_HELLO,
                                       .finite = true,
                                       .ahead = w->ahead && draw(w, 4) != 0,
                                       .now_ns = w->now_ns});
}

/* A gradient that its worker used itself: consumed, and nothing else changes. */
static inline void local(struct world *w, uint32_t worker)
{
    uint64_t t = w->core->worker[worker].ticket, position[RANGES_MAX] = {0};
    uint32_t steps = w->core->worker[worker].steps, r;

    for (r = 0; r < ranges_of(w); r++) {
        for (uint32_t b = 0; b < steps; b++)
            w->applied[t + b][r]++;
        w->waits_for_ready[worker][r] = true;
        position[r] = core_position(w->core, r);
    }
    feed(w, CORE_LOCAL, worker, 0, true);
    for (r = 0; r < ranges_of(w); r++) {
        assert_int_equal(core_version(w->core, r), w->version[r]);
        assert_int_equal(core_position(w->core, r), position[r] + steps);
        assert_int_equal(core_lag(w->core, worker, r),
                         w->version[r] - w->read[worker][r]);
    }
}

/* One range of a worker that computes; -1: it has none to push. */
static inline int push(struct world *w, uint32_t worker, bool finite)
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
        memset(&w->dropped[cw->ticket], 1, cw->steps);
        for (r = 0; r < ranges_of(w); r++)
            w->waits_for_ready[worker][r] = true;
        feed(w, CORE_GRADIENT, worker, 0, false);
        return 0;
    }
    if (w->core->config.local && cw->pushed == 0 && draw(w, 4) != 0) {
        local(w, worker);
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

static inline struct core_config config_of(uint32_t workers, uint32_t ranges,
                                           uint64_t tickets)
{
    return (struct core_config){
        .workers_max = workers, .ranges = ranges, .tickets = tickets};
}

#endif
