/* The master's loop: poll, step, perform. */
#include "engine/master/waiting.h"

#include "engine/base/process.h"
#include "engine/master/saved.h"
#include "engine/master/saving.h"
#include "engine/run/checkpoint.h"
#include "engine/run/network.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* Sleep no longer than this, so that a stop from another thread and time-outs are
 * seen. */
#define TICK_NS 50000000
/* At most so often for all observers together. */
#define COPY_EVERY_NS 50000000ull
/* Theta is looked at after each 16 gradients in a row that are not finite. */
#define LOOK_EVERY 16u

/* ---- events in, actions out ---------------------------------------------- */

void master_notify(struct gapless_master *m, uint32_t worker, uint32_t note)
{
    tp_peer peer = m->slot[worker].peer;

    if (peer != MASTER_NO_PEER &&
        m->transport->notify(m->tp, peer, note) == GAPLESS_AGAIN)
        member_drop(m, worker, CORE_BROKE_PROTOCOL);
}

static void ready_one(struct gapless_master *m, uint32_t w, uint32_t range)
{
    struct core_worker *cw = &m->core->worker[w];
    struct master_slot *slot = &m->slot[w];
    uint32_t note;

    if (!cw->ready || slot->peer == MASTER_NO_PEER)
        return;
    if (cw->refresh)
        pass_look_ahead(m, w, range);
    slot->head->ticket = cw->ticket;
    slot->head->steps = cw->steps;
    slot->head->next = cw->next.first;
    slot->head->stop = cw->stop ? 1 : 0;
    slot->head->check_ns = slot->check_ns;
    slot->head->pass_ns = slot->pass_ns;
    slot->head->rate = pass_rate(m);
    shared_stats_workers(m->shared_stats)[w].state = 2;
    cw->ready = cw->refresh = false;
    note = cw->stop ? NOTE(NOTE_OVER, 0)
                    : NOTE(NOTE_READY, range == CORE_ALL ? NOTE_ALL_RANGES : range);
    m->passes->notify(m, w, note);
}

static void ready(struct gapless_master *m, uint32_t w, uint32_t range)
{
    if (w != CORE_ALL) {
        ready_one(m, w, range);
        return;
    }
    for (w = 0; w < m->core->config.workers_max; w++)
        if (m->core->worker[w].state != CORE_FREE)
            ready_one(m, w, CORE_ALL);
}

void master_applied(struct gapless_master *m, uint32_t worker, uint32_t range,
                    bool finite, uint32_t ranges)
{
    queue_add_first(&m->queue,
                    &(struct core_event){.kind = CORE_APPLIED,
                                         .worker = worker,
                                         .range = range,
                                         .finite = finite,
                                         .now_ns = m->transport->now_ns(m->tp),
                                         .applied = ranges});
}

static void perform(struct gapless_master *m, const struct core_action *action)
{
    switch (action->kind) {
    case CORE_WELCOME:
        member_welcome(m, action->worker);
        break;
    case CORE_APPLY:
        pass_apply(m, action->worker, action->range);
        break;
    case CORE_ROUND:
        master_applied(m, CORE_ALL, CORE_ALL, pass_round(m), 0);
        break;
    case CORE_READY:
        ready(m, action->worker, action->range);
        break;
    case CORE_FORGET:
        pass_forget(m, action->worker);
        break;
    case CORE_DROP:
        member_drop(m, action->worker, action->reason);
        break;
    case CORE_FINISH: /* count_stats says so */
        m->telemetry->stats.record_failed = !record_good(m->record);
        break;
    }
}

/* The core's counters, for observers. */
static void count_stats(struct gapless_master *m, uint64_t now_ns)
{
    static const uint32_t state[] = {
        [CORE_GATHERING] = GAPLESS_RUN_WAITING,
        [CORE_RUNNING] = GAPLESS_RUN_GOING,
        [CORE_STOPPING] = GAPLESS_RUN_ENDING,
        [CORE_OVER_NOW] = GAPLESS_RUN_DONE,
    };
    struct gapless_stats *s = &m->telemetry->stats;

    s->workers_active = m->core->active;
    s->workers_joined = (uint32_t)m->core->joined;
    s->workers_lost = (uint32_t)m->core->lost;
    s->gradients = m->core->consumed;
    s->updates = m->core->updates;
    s->dropped = m->core->dropped;
    s->partial = m->core->partial;
    s->diverged_at = m->core->diverged_at;
    s->state = state[m->core->phase];
    m->shared_stats->now_ns = now_ns;
}

/* What kind of line an event makes in a record; false: none. */
static bool record_kind_of(const struct core_event *event, enum record_kind *ret)
{
    switch (event->kind) {
    case CORE_GRADIENT:
        *ret = event->finite ? RECORD_GRADIENT : RECORD_BAD;
        return true;
    case CORE_LOCAL:
        *ret = RECORD_GRADIENT;
        return true;
    case CORE_GONE:
        *ret = event->finite ? RECORD_LEFT : RECORD_LOST;
        return true;
    case CORE_TICK:
        *ret = RECORD_TICK;
        return true;
    case CORE_STOP:
        *ret = RECORD_STOP;
        return true;
    case CORE_HELLO:
        *ret = RECORD_HELLO;
        return true;
    case CORE_APPLIED:
    case CORE_DIVERGED:
        return false; /* follows from the others */
    }
    return false;
}

/* A line of the record, for an event that changed something: `was` is its worker, and
 * `phase` the run's, before it; `read` the version that it had read. A gradient that
 * arrives in ranges makes a line with the first of them. */
static void record_event(struct gapless_master *m, const struct core_event *event,
                         const struct core_worker *was, enum core_phase phase,
                         uint64_t read, const struct todo *todo)
{
    struct record_event line = {.at_ns = event->now_ns - m->opened_ns,
                                .worker = event->worker,
                                .batch = was->ticket,
                                .version = read,
                                .factor = 1};

    if (!record_kind_of(event, &line.kind))
        return;
    if (event->kind == CORE_HELLO) {
        if (todo->count == 0 || todo->action[0].kind != CORE_WELCOME)
            return;
        line.worker = todo->action[0].worker;
        line.ahead = event->ahead;
    } else if (event->kind == CORE_TICK || event->kind == CORE_STOP) {
        if (m->core->phase == phase)
            return;
        line.worker = 0;
    } else if (was->state == CORE_FREE ||
               ((event->kind == CORE_GRADIENT || event->kind == CORE_LOCAL) &&
                (was->state != CORE_COMPUTING || was->pushed > 0))) {
        return;
    } else if (line.kind == RECORD_GRADIENT || line.kind == RECORD_BAD) {
        line.factor = m->slot[event->worker].factor;
        if (line.factor < 0)
            line.kind = RECORD_BAD, line.factor = 1;
    }
    record_add(m->record, &line);
}

/* Sums of a pass that measures the gap say, at no cost, that parameters may not be finite;
 * then a look at theta says whether they are not. All that was asked for is done. */
static void judge(struct gapless_master *m)
{
    if (!m->suspect || m->core->diverged_at > 0 || matrices_under_way(m, CORE_ALL))
        return;
    m->suspect = false;
    m->passes->theta(m);
    if (!m->compute->finite(m->theta, (size_t)m->layout.padded))
        master_event(m, CORE_DIVERGED, 0, 0, true);
}

/* One event: what follows from it is performed and counted. */
static void step(struct gapless_master *m, const struct core_event *event)
{
    uint32_t worker = event->worker;
    bool one = worker < m->core->config.workers_max;
    double rate = event->kind == CORE_LOCAL ? pass_local_begin(m, worker) : 0;
    uint64_t dropped = m->core->dropped, consumed = m->core->consumed, read = 0;
    enum core_phase phase = m->core->phase;
    struct core_worker was = {0};
    struct todo todo;
    uint32_t i;

    if (m->record != NULL && one) {
        was = m->core->worker[worker];
        read = core_version(m->core, 0) - core_lag(m->core, worker, 0);
    }
    if (core_step(m->core, event, &todo) != 0)
        return;
    if (m->record != NULL)
        record_event(m, event, &was, phase, read, &todo);
    if (one && m->core->dropped > dropped)
        shared_stats_workers(m->shared_stats)[worker].dropped +=
            m->core->dropped - dropped;
    if (m->kept && phase == CORE_GATHERING && m->core->phase != phase)
        saved_let_go(m);
    for (i = 0; i < todo.count; i++)
        perform(m, &todo.action[i]);
    if (event->kind == CORE_APPLIED && one)
        pass_record(m, worker); /* now that the worker has its note */
    m->suspect |= m->core->bad_row > 0 && m->core->bad_row % LOOK_EVERY == 0;
    if (m->passes->sound)
        judge(m);
    if (event->kind == CORE_LOCAL && m->core->consumed > consumed)
        pass_local_count(m, worker, rate);
}

void master_drain(struct gapless_master *m)
{
    struct core_event event;

    assert(!m->queue.draining);
    m->queue.draining = true;
    do {
        while (queue_take(&m->queue, &event))
            if (!waiting_keeps(m, &event))
                step(m, &event);
        if (!waiting_next(m, &event))
            break;
        step(m, &event);
    } while (true);
    m->queue.draining = false;
}

void master_event(struct gapless_master *m, enum core_event_kind kind, uint32_t worker,
                  uint32_t range, bool finite)
{
    queue_add(&m->queue, &(struct core_event){.kind = kind,
                                              .worker = worker,
                                              .range = range,
                                              .finite = finite,
                                              .now_ns = m->transport->now_ns(m->tp)});
}

/* An observer found every read torn: one copy, between two updates. Seldom, so that
 * no observer can slow the run by asking; one that asks too soon asks again. */
static void copy_for_observer(struct gapless_master *m)
{
    uint64_t now = m->transport->now_ns(m->tp);

    if (m->copied_ns != 0 && now - m->copied_ns < COPY_EVERY_NS)
        return;
    if (m->passes->drain(m, NULL) != GAPLESS_OK)
        return; /* the run ends with this batch */
    m->copied_ns = now;
    m->passes->theta(m);
    waiting_copy(m);
}

static void on_note(struct gapless_master *m, tp_peer peer, uint32_t note)
{
    struct master_peer *who = &m->peer[peer];
    uint32_t range = NOTE_RANGE(note);

    if (who->role == ROLE_OBSERVER && NOTE_WHAT(note) == NOTE_COPY)
        copy_for_observer(m);
    if (who->role != ROLE_WORKER || NOTE_WHAT(note) == NOTE_WARMUP)
        return;

    pass_announced(m, who->worker);
    if (NOTE_WHAT(note) == NOTE_PUSH)
        pass_reported(m, who->worker);
    if (NOTE_WHAT(note) == NOTE_PUSH && range == NOTE_ALL_RANGES)
        master_event(m, CORE_GRADIENT, who->worker, CORE_ALL, true);
    else if (NOTE_WHAT(note) == NOTE_PUSH && range < m->layout.ranges_count)
        master_event(m, CORE_GRADIENT, who->worker, range, true);
    else if (NOTE_WHAT(note) == NOTE_BAD)
        master_event(m, CORE_GRADIENT, who->worker, 0, false);
    else if (NOTE_WHAT(note) == NOTE_LOCAL)
        master_event(m, CORE_LOCAL, who->worker, 0, true);
    else
        member_drop(m, who->worker, CORE_BROKE_PROTOCOL);
}

static void on_event(struct gapless_master *m, const struct tp_event *e)
{
    switch (e->kind) {
    case TP_UP:
        m->peer[e->peer] =
            (struct master_peer){.role = ROLE_UNKNOWN,
                                 .worker = MASTER_NO_WORKER,
                                 .since_ns = m->transport->now_ns(m->tp)};
        break;
    case TP_DOWN:
        member_down(m, e->peer);
        break;
    case TP_TEXT:
        if (m->peer[e->peer].role != ROLE_NONE)
            member_text(m, e->peer, e->data, e->bytes);
        break;
    case TP_NOTE:
        on_note(m, e->peer, e->note);
        break;
    case TP_DONE:
        break; /* the master puts and gets nothing itself */
    }
    master_drain(m);
}

static void tick(struct gapless_master *m, uint64_t now_ns)
{
    if (flag_word_read(&m->stop) != 0)
        master_event(m, CORE_STOP, 0, 0, true);
    master_drain(m);
    if (now_ns - m->ticked_ns < TICK_NS || m->untimed)
        return;
    m->ticked_ns = now_ns;
    member_tick(m, now_ns);
    if (waiting_tick(m, now_ns))
        master_event(m, CORE_TICK, 0, 0, true);
    master_drain(m);
}

static bool is_over(const struct gapless_master *m)
{
    return m->core->phase == CORE_OVER_NOW;
}

static int transport_failed(const struct gapless_master *m, int status,
                            struct gapless_error *error)
{
    struct gapless_error reason = {0};

    m->transport->last_error(m->tp, TP_NOBODY, &reason);
    return gapless_error_set(error, status, 0, "the master's transport failed: %s",
                             reason.text[0] != '\0' ? reason.text
                                                    : gapless_strerror(status));
}

/* All that a batch of events led to is done, counted and sent. A worker that has no
 * room for its note goes, and what follows from that is done, too: each time round
 * takes one out. */
static int finish_batch(struct gapless_master *m, struct gapless_error *error)
{
    for (;;) {
        int status = m->passes->drain(m, error);

        if (status != GAPLESS_OK)
            return status;
        m->suspect |= is_over(m) && !m->judged;
        m->judged = is_over(m);
        judge(m);
        if (m->queue.count == 0)
            return GAPLESS_OK;
        master_drain(m);
    }
}

static void nap(int64_t ns)
{
    const struct timespec t = {0, ns < TICK_NS ? ns : TICK_NS};

    if (ns > 0)
        (void)nanosleep(&t, NULL);
}

/* One look at what happened, for at most this long (negative: not at all), and all that
 * follows from it but what matrices leave under way. */
static int serve(struct gapless_master *m, int64_t left_ns, struct gapless_error *error)
{
    int64_t wait = matrices_go_on(m);
    int n = 0, i;

    if (left_ns < TICK_NS && wait == INT64_MAX)
        wait = left_ns < 0 ? 0 : left_ns;
    if (wait > TICK_NS)
        wait = TICK_NS;
    if (waiting_full(m))
        nap(wait);
    else
        n = m->transport->poll(m->tp, m->events, MASTER_EVENTS, wait);
    if (n < 0) {
        while (!waiting_ends(m)) /* nobody works on the parameters behind the caller */
            nap(matrices_go_on(m));
        return transport_failed(m, n, error);
    }
    m->passes->begin(m, m->events, n);
    for (i = 0; i < n; i++)
        on_event(m, &m->events[i]);
    return n;
}

/* GAPLESS_INVALID in a process that was forked since. */
static int check_process(const struct gapless_master *m, struct gapless_error *error)
{
    return process_check(m->owner, "this master", error);
}

int gapless_master_run(struct gapless_master *m, int64_t timeout_ns,
                       struct gapless_error *error)
{
    uint64_t began = m->transport->now_ns(m->tp), now = began;
    bool was_over = is_over(m);
    int64_t left;
    int n = check_process(m, error);

    if (n != GAPLESS_OK)
        return n;
    waiting_begins(m);
    master_drain(m);
    for (;;) {
        if (is_over(m) && (!was_over || timeout_ns < 0))
            return GAPLESS_STOPPED;
        left = timeout_ns < 0 ? TICK_NS : timeout_ns - (int64_t)(now - began);
        if (left <= 0 && now != began && waiting_ends(m))
            return is_over(m) ? GAPLESS_STOPPED : GAPLESS_OK;
        n = serve(m, left, error);
        if (n < 0)
            return n;
        now = m->transport->now_ns(m->tp);
        now += now == began ? 1 : 0;
        tick(m, now);
        n = finish_batch(m, error);
        if (n != GAPLESS_OK)
            return n;
        saving_go_on(m, now);
        count_stats(m, now);
    }
}

void gapless_master_stop(struct gapless_master *m)
{
    if (process_is(m->owner))
        flag_word_publish(&m->stop, 1);
}

/* ---- looking at it ------------------------------------------------------- */

void gapless_master_stats(const struct gapless_master *m, struct gapless_stats *ret)
{
    telemetry_stats(m->telemetry, m->transport->now_ns(m->tp), ret);
}

int gapless_master_worker_stats(const struct gapless_master *m, uint32_t worker,
                                struct gapless_worker_stats *ret)
{
    if (worker >= m->core->config.workers_max)
        return GAPLESS_MISSING;
    *ret = shared_stats_workers(m->shared_stats)[worker];
    return GAPLESS_OK;
}

int gapless_master_tensor_gates(const struct gapless_master *m, uint32_t count,
                                double *ret)
{
    return shared_stats_gate_means(m->shared_stats, count, ret);
}

const float *gapless_master_params(const struct gapless_master *m)
{
    m->passes->theta(m);
    return m->theta;
}

uint32_t gapless_master_observers(const struct gapless_master *m)
{
    return m->observers;
}

int gapless_master_save(const struct gapless_master *m, const char *path,
                        struct gapless_error *error)
{
    return gapless_master_save_with(m, path, NULL, error);
}

int gapless_master_save_with(const struct gapless_master *m, const char *path,
                             const char *const *more, struct gapless_error *error)
{
    char gradients[24];
    const char *const metadata[] = {"gapless",     gapless_version(), "rule",
                                    m->rule->name, "gradients",       gradients,
                                    NULL};

    if (check_process(m, error) != GAPLESS_OK)
        return GAPLESS_INVALID;
    (void)snprintf(gradients, sizeof gradients, "%llu",
                   (unsigned long long)m->core->consumed);
    return checkpoint_save(&m->layout, gapless_master_params(m), path, metadata, more,
                           error);
}

int gapless_master_save_state(const struct gapless_master *m, const char *path,
                              const char *const *more, struct gapless_error *error)
{
    struct state_write *w = NULL;
    int status = check_process(m, error);

    if (status == GAPLESS_OK)
        status = state_write_new(path, &w, error);
    if (status != GAPLESS_OK)
        return status;
    state_write_say_all(w, more);
    status = saved_plan(m, w, error);
    if (status == GAPLESS_OK)
        status = state_write_begin(w, error);
    if (status != GAPLESS_OK) {
        state_write_drop(w);
        return status;
    }
    saved_copy(m, w);
    return state_write_end(w, error);
}

void gapless_master_device(const struct gapless_master *m, char *ret, size_t bytes)
{
    if (bytes > 0)
        (void)snprintf(ret, bytes, "%s", m->passes->describe(m));
}

void gapless_master_traffic(const struct gapless_master *m, struct gapless_traffic *ret)
{
    network_traffic(m->transport, m->tp, ret);
}

void gapless_master_link(const struct gapless_master *m, char *ret, size_t bytes)
{
    network_link(m->transport, m->tp, TP_NOBODY, ret, bytes);
}
