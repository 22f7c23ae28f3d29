/* Who comes and goes at the master: hello, welcome, refusal, departure. */
#include "engine/master/master.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* A peer that has connected says hello at once; a hello takes microseconds. */
#define HELLO_BOUND_NS 10000000000ull
/* A line about refused peers at most so often, so that a flood of them fills no log. */
#define REFUSED_EVERY_NS 10000000000ull

void master_log(const struct gapless_master *m, const char *format, ...)
{
    char line[640];
    va_list list;

    if (m->log == NULL)
        return;
    va_start(list, format);
    (void)vsnprintf(line, sizeof line, format, list);
    va_end(list);
    m->log(m->log_context, line);
}

uint64_t gapless_master_refused(const struct gapless_master *m)
{
    return m->refused + m->refused_below;
}

static void report_refused(struct gapless_master *m)
{
    uint64_t now_ns = m->transport->now_ns(m->tp);
    uint64_t all = gapless_master_refused(m), more = all - m->refused_reported;

    if (more == 0 ||
        (m->refused_reported > 0 && now_ns - m->refused_ns < REFUSED_EVERY_NS))
        return;
    m->refused_reported = all;
    m->refused_ns = now_ns;
    if (more == 1)
        master_log(m, "refused a peer: %s", m->refused_last.text);
    else
        master_log(m, "refused %llu peers, the last: %s", (unsigned long long)more,
                   m->refused_last.text);
}

static void note_refused(struct gapless_master *m, const struct gapless_error *reason)
{
    m->refused++;
    m->refused_last = *reason;
    report_refused(m);
}

/* Of those that the transport did not let in. */
static void look_refused(struct gapless_master *m)
{
    struct tp_counters counters;

    m->transport->count(m->tp, &counters);
    if (counters.refused > m->refused_below)
        m->transport->last_error(m->tp, TP_NOBODY, &m->refused_last);
    m->refused_below = counters.refused;
    report_refused(m);
}

static void refuse(struct gapless_master *m, tp_peer peer,
                   const struct gapless_error *reason)
{
    struct wire_refused refused = {.head = wire_head(WIRE_REFUSED),
                                   .status = reason->status};

    memcpy(refused.text, reason->text, sizeof refused.text);
    (void)m->transport->send_control(m->tp, peer, &refused, sizeof refused, NULL);
    m->transport->drop(m->tp, peer);
    m->peer[peer] = (struct master_peer){.worker = MASTER_NO_WORKER};
}

static int check_hello(const struct gapless_master *m, const struct wire_hello *hello,
                       uint32_t bytes, struct gapless_error *ret)
{
    if (bytes < sizeof hello->head || hello->head.magic != WIRE_MAGIC)
        return gapless_error_set(
            ret, GAPLESS_PROTOCOL, 0,
            "the master did not understand the hello: is this a gapless "
            "worker?");
    if (hello->head.protocol != WIRE_PROTOCOL || bytes != sizeof *hello ||
        strncmp(hello->version, gapless_version(), sizeof hello->version) != 0)
        return gapless_error_set(
            ret, GAPLESS_VERSION, 0,
            "the master is gapless %s (protocol %u), the worker is %.15s (protocol "
            "%u): "
            "install the same version on both",
            gapless_version(), WIRE_PROTOCOL,
            bytes == sizeof *hello && hello->version[sizeof hello->version - 1] == '\0'
                ? hello->version
                : "unknown",
            hello->head.protocol);
    if (hello->head.kind != WIRE_HELLO ||
        (hello->role != WIRE_WORKER && hello->role != WIRE_OBSERVER))
        return gapless_error_set(
            ret, GAPLESS_PROTOCOL, 0,
            "the first message was no hello of a worker or observer");
    if (hello->count != 0 && hello->count != m->layout.count)
        return gapless_error_set(
            ret, GAPLESS_MODEL, 0,
            "the master's model has %llu parameters, the worker's has "
            "%llu: start the worker with the master's model",
            (unsigned long long)m->layout.count, (unsigned long long)hello->count);
    if (hello->model_hash != 0 && hello->model_hash != m->layout.hash)
        return gapless_error_set(
            ret, GAPLESS_MODEL, 0,
            "the worker's model has as many parameters as the master's "
            "(%llu), but other tensors (%016llx, not %016llx): start it "
            "with the master's model",
            (unsigned long long)m->layout.count, (unsigned long long)hello->model_hash,
            (unsigned long long)m->layout.hash);
    return GAPLESS_OK;
}

static uint32_t elastic_kind(const struct gapless_master *m)
{
    if (!(m->rule->flags & RULE_WORKER_ELASTIC))
        return WIRE_NOT_ELASTIC;
    return m->rule->flags & RULE_WORKER_NESTEROV ? WIRE_ELASTIC_NESTEROV : WIRE_ELASTIC;
}

static void fill_welcome(const struct gapless_master *m, uint32_t worker,
                         struct wire_welcome *ret)
{
    *ret = (struct wire_welcome){
        .head = wire_head(WIRE_WELCOME),
        .number = worker,
        .ranges = m->layout.ranges_count,
        .count = m->layout.count,
        .momentum = m->settings.momentum,
        .weight_decay = m->weight_decay,
        .clip_norm = m->clip_norm,
        .slim = m->rule->flags & RULE_WORKER_SLIM ? 1 : 0,
        .elastic = elastic_kind(m),
        .alpha = m->settings.elastic,
        .period = m->elastic_period,
        .whole = m->core->config.whole ? 1 : 0,
    };
    memcpy(ret->job, m->job, strlen(m->job) + 1);
}

static void hello_observer(struct gapless_master *m, tp_peer peer, uint32_t pid)
{
    struct gapless_error reason = {0};
    struct wire_welcome welcome;

    fill_welcome(m, 0, &welcome);
    if (m->transport->grant(m->tp, peer, &m->shared_stats_region, WIRE_BOARD, TP_READ,
                            &reason) != 0 ||
        m->transport->grant(m->tp, peer, &m->theta_region, WIRE_THETA, TP_READ,
                            &reason) != 0 ||
        m->transport->grant(m->tp, peer, &m->copy_region, WIRE_COPY, TP_READ,
                            &reason) != 0 ||
        m->transport->send_control(m->tp, peer, &welcome, sizeof welcome, &reason) !=
            0) {
        if (reason.status != GAPLESS_PEER_LOST)
            master_log(m, "an observer (pid %u) could not be served: %s", pid,
                       reason.text);
        m->transport->drop(m->tp, peer);
        return;
    }
    m->peer[peer].role = ROLE_OBSERVER;
    m->peer[peer].pid = pid;
    m->observers++;
}

void member_text(struct gapless_master *m, tp_peer peer, const void *data,
                 uint32_t bytes)
{
    struct wire_hello hello = {0};
    struct gapless_error reason = {0};

    memcpy(&hello, data, bytes < sizeof hello ? bytes : sizeof hello);
    if (m->peer[peer].role == ROLE_WORKER || m->peer[peer].role == ROLE_OBSERVER) {
        if (hello.head.magic == WIRE_MAGIC && hello.head.kind == WIRE_BYE &&
            m->peer[peer].role == ROLE_WORKER)
            m->slot[m->peer[peer].worker].left = true;
        return;
    }
    if (check_hello(m, &hello, bytes, &reason) != GAPLESS_OK) {
        note_refused(m, &reason);
        refuse(m, peer, &reason);
        return;
    }
    if (hello.role == WIRE_OBSERVER) {
        if (m->observers < m->observers_max) {
            hello_observer(m, peer, hello.pid);
            return;
        }
        (void)gapless_error_set(
            &reason, GAPLESS_CAPACITY, 0,
            "the master has room for %u observers and all are there", m->observers_max);
        note_refused(m, &reason);
        refuse(m, peer, &reason);
        return;
    }
    if (m->peer[peer].hello != 0)
        return; /* its first one waits */
    m->hello_peer = peer;
    m->hello_pid = hello.pid;
    queue_add(&m->queue,
              &(struct core_event){
                  .kind = CORE_HELLO,
                  .worker = hello.wish < m->core->config.workers_max ? hello.wish : 0,
                  .finite = true,
                  .ahead = hello.ahead != 0,
                  .now_ns = m->transport->now_ns(m->tp)});
}

/* Memory of a slot, at its first use. A slot that was used before keeps its memory, but
 * where that is mapped into the process of a worker that did not say goodbye: that process
 * may still live, stopped or hung, and would write into its successor's gradient. */
static int slot_memory(struct gapless_master *m, struct master_slot *slot,
                       struct gapless_error *error)
{
    char *base;
    int status;

    if (slot->region.base != NULL && m->transport->mapped && !slot->left) {
        m->passes->slot_release(m, (uint32_t)(slot - m->slot));
        m->transport->region_free(m->tp, &slot->region);
    }
    if (slot->region.base == NULL) {
        status = m->transport->region_new(m->tp, m->slot_bytes, &slot->region, error);
        if (status == GAPLESS_OK)
            status = m->transport->region_split(m->tp, &slot->region, m->split, error);
        if (status != GAPLESS_OK)
            return status;
    }
    base = slot->region.base;
    memset(base, 0, m->slot_used);
    slot->head = (struct slot_head *)(void *)base;
    slot->push = (const struct slot_push *)(const void *)(base + m->push_at);
    if (master_publishes(m)) {
        slot->reported = (const uint64_t *)(const void *)(base + m->reported_at);
        slot->dots = (const double *)(slot->reported + m->layout.ranges_count);
    } else if (m->external_buffers) {
        memset(slot->sent, 0, (size_t)m->layout.padded * sizeof(float));
    } else {
        slot->sent = (float *)(void *)(base + m->sent_at);
    }
    slot->grad = (const float *)(const void *)(base + m->grad_at);
    return m->passes->slot_memory(m, (uint32_t)(slot - m->slot), error);
}

/* A peer is no longer there: who it was. What its worker left behind is done with when
 * the core has it forgotten (pass_forget), before its slot is another's. */
static void depart(struct gapless_master *m, tp_peer peer)
{
    struct master_peer was = m->peer[peer];

    m->peer[peer] = (struct master_peer){.worker = MASTER_NO_WORKER};
    if (was.role == ROLE_OBSERVER)
        m->observers--;
    if (was.role != ROLE_WORKER)
        return;
    m->slot[was.worker].peer = MASTER_NO_PEER;
    shared_stats_workers(m->shared_stats)[was.worker].state = 0;
    master_event(m, CORE_GONE, was.worker, 0, m->slot[was.worker].left);
}

void member_welcome(struct gapless_master *m, uint32_t worker)
{
    struct master_slot *slot = &m->slot[worker];
    struct gapless_error reason = {0};
    struct gapless_worker_stats *stats;
    struct wire_welcome welcome;
    tp_peer peer = m->hello_peer;

    if (slot_memory(m, slot, &reason) != GAPLESS_OK) {
        slot->peer = MASTER_NO_PEER;
        refuse(m, peer, &reason);
        master_event(m, CORE_GONE, worker, 0, true);
        return;
    }
    slot->peer = peer;
    slot->left = false;
    slot->factor = 1;
    m->peer[peer] = (struct master_peer){
        .role = ROLE_WORKER, .worker = worker, .pid = m->hello_pid};
    stats = &shared_stats_workers(m->shared_stats)[worker];
    stats->state = 1; /* what its number counted before stays: the counts add up */
    stats->pid = m->hello_pid;
    if (!slot->kept) /* else it goes on with what is there */
        pass_join(m, worker);
    slot->kept = false;
    pass_look_ahead(m, worker, CORE_ALL);
    fill_welcome(m, worker, &welcome);
    welcome.sent_at = m->sent_at;
    welcome.push_at = m->push_at;
    welcome.grad_at = m->grad_at;
    welcome.reported_at = m->reported_at;
    welcome.second_at = m->second_at;
    if (m->transport->grant(m->tp, peer, &slot->region, WIRE_SLOT, TP_SPLIT, &reason) !=
            0 ||
        m->transport->grant(m->tp, peer, &m->shared_stats_region, WIRE_BOARD, TP_READ,
                            &reason) != 0 ||
        (m->reported_at != 0 &&
         m->transport->grant(m->tp, peer, &m->published_region, WIRE_PUBLISHED, TP_READ,
                             &reason) != 0) ||
        m->transport->send_control(m->tp, peer, &welcome, sizeof welcome, &reason) !=
            0) {
        if (reason.status != GAPLESS_PEER_LOST)
            master_log(m, WORKER_NAME " (pid %u) could not be served: %s", worker,
                       m->hello_pid, reason.text);
        m->transport->drop(m->tp, peer);
        depart(m, peer);
    }
}

/* Who went without a word, and why as far as the transport knows. */
static void say_lost(struct gapless_master *m, tp_peer peer)
{
    const struct master_peer *who = &m->peer[peer];
    struct gapless_error reason = {0};

    if (m->log == NULL || who->role == ROLE_NONE)
        return;
    m->transport->last_error(m->tp, peer, &reason);
    if (who->role == ROLE_WORKER && !m->slot[who->worker].left &&
        (reason.status != GAPLESS_OK || m->core->phase != CORE_OVER_NOW))
        master_log(
            m, WORKER_NAME " (pid %u) was lost: %s", who->worker, who->pid,
            reason.status != GAPLESS_OK
                ? reason.text
                : "it ended without a word, as if it was killed: look at its last "
                  "messages");
    else if (who->role == ROLE_OBSERVER && reason.status != GAPLESS_OK)
        master_log(m, "an observer (pid %u) was lost: %s", who->pid, reason.text);
    else if (who->role == ROLE_UNKNOWN && reason.status != GAPLESS_OK)
        master_log(m, "a peer that had not said hello yet was lost: %s", reason.text);
}

void member_down(struct gapless_master *m, tp_peer peer)
{
    say_lost(m, peer);
    depart(m, peer);
}

void member_tick(struct gapless_master *m, uint64_t now_ns)
{
    struct gapless_error reason = {0};
    tp_peer p;

    (void)gapless_error_set(&reason, GAPLESS_TIMEOUT, 0,
                            "the master waited 10 s for a hello");
    for (p = 0; p < m->peers_max; p++)
        if (m->peer[p].role == ROLE_UNKNOWN && m->peer[p].hello == 0 &&
            now_ns - m->peer[p].since_ns > HELLO_BOUND_NS) {
            note_refused(m, &reason);
            refuse(m, p, &reason);
        }
    look_refused(m);
}

static void drop_text(const struct gapless_master *m, uint32_t worker,
                      enum core_reason reason, struct gapless_error *ret)
{
    switch (reason) {
    case CORE_FULL:
        (void)gapless_error_set(
            ret, GAPLESS_CAPACITY, 0,
            "the master has room for %u workers and all are there: start "
            "it with a larger capacity",
            m->core->config.workers_max);
        break;
    case CORE_OVER:
        (void)gapless_error_set(ret, GAPLESS_STOPPED, 0, "the run is over");
        break;
    case CORE_TOO_SLOW:
        (void)gapless_error_set(
            ret, GAPLESS_TIMEOUT, 0,
            WORKER_NAME " held batch %llu for longer than the %.1f s that "
                        "the master allows",
            worker, (unsigned long long)m->core->worker[worker].ticket,
            1e-9 * (double)m->core->config.timeout_ns);
        break;
    case CORE_BROKE_PROTOCOL:
        (void)gapless_error_set(ret, GAPLESS_PROTOCOL, 0,
                                WORKER_NAME " sent a gradient that was not its turn",
                                worker);
        break;
    }
}

void member_drop(struct gapless_master *m, uint32_t worker, enum core_reason reason)
{
    struct gapless_error text = {0};
    tp_peer peer = worker == CORE_ALL ? m->hello_peer : m->slot[worker].peer;

    drop_text(m, worker, reason, &text);
    if (worker == CORE_ALL) {
        if (reason != CORE_OVER)
            note_refused(m, &text);
        refuse(m, peer, &text);
        return;
    }
    if (peer == MASTER_NO_PEER)
        return;
    master_log(m, WORKER_NAME " (pid %u) was dropped: %s", worker, m->peer[peer].pid,
               text.text);
    refuse(m, peer, &text);
    m->peer[peer] = (struct master_peer){.role = ROLE_WORKER, .worker = worker};
    depart(m, peer);
}
