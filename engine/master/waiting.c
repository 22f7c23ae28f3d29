/* Events that wait while matrices are in work: see waiting.h. */
#include "engine/master/waiting.h"

#include <stdlib.h>
#include <string.h>

#define WAITING_MOST 4096u
#define OPEN UINT64_MAX

struct kept_event {
    struct core_event event;
    uint64_t number; /* rises */
    tp_peer peer;    /* CORE_HELLO: who said it */
    uint32_t pid;
};

struct master_waiting {
    struct kept_event *kept; /* in order */
    uint32_t count, room;
    uint32_t barriers; /* of these: that want all ranges */
    bool stop;         /* one of these is CORE_STOP */
    bool changed;      /* since waiting_next found nothing */
    uint64_t next;     /* number */
    uint64_t
        closed;     /* from this number on no gradient goes to matrices; OPEN: all do */
    bool *copy_due; /* by range */
    uint32_t copies_due;
};

int waiting_open(struct gapless_master *m, struct gapless_error *error)
{
    size_t ranges = m->layout.ranges_count;
    struct master_waiting *w;

    if (m->matrices == NULL || m->passes != &pass_ops_cpu || m->external_buffers)
        return GAPLESS_OK;
    m->waiting = w = calloc(1, sizeof *w);
    if (w != NULL) {
        w->room = WAITING_MOST + MASTER_EVENTS + m->core->config.workers_max + 1;
        w->kept = calloc(w->room, sizeof *w->kept);
        w->copy_due = calloc(ranges, sizeof *w->copy_due);
        w->next = 1;
        w->closed = OPEN;
    }
    if (w == NULL || w->kept == NULL || w->copy_due == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for events that wait for matrices");
    return GAPLESS_OK;
}

void waiting_close(struct gapless_master *m)
{
    struct master_waiting *w = m->waiting;

    if (w == NULL)
        return;
    free(w->kept);
    free(w->copy_due);
    free(w);
    m->waiting = NULL;
}

/* ---- who waits for whom -------------------------------------------------- */

static bool is_gradient(const struct core_event *event)
{
    return event->kind == CORE_GRADIENT && event->finite;
}

static bool wants_all(const struct gapless_master *m, const struct core_event *event)
{
    return !is_gradient(event) || event->range == CORE_ALL || m->core->config.whole;
}

/* For what is under way; `at` is the event's number. */
static bool must_wait(const struct gapless_master *m, const struct core_event *event,
                      uint64_t at)
{
    bool all = wants_all(m, event);

    if (matrices_under_way(m, all ? CORE_ALL : event->range))
        return true;
    return at >= m->waiting->closed && is_gradient(event) &&
           (all || matrices_in(m, event->range));
}

static void keep(struct gapless_master *m, const struct core_event *event)
{
    struct master_waiting *w = m->waiting;
    struct kept_event *kept = &w->kept[w->count++];

    *kept = (struct kept_event){.event = *event, .number = w->next++};
    w->barriers += wants_all(m, event) ? 1 : 0;
    w->stop |= event->kind == CORE_STOP;
    if (event->kind != CORE_HELLO)
        return;
    kept->peer = m->hello_peer;
    kept->pid = m->hello_pid;
    m->peer[kept->peer].hello = kept->number;
}

bool waiting_keeps(struct gapless_master *m, const struct core_event *event)
{
    struct master_waiting *w = m->waiting;

    if (w == NULL || event->kind == CORE_APPLIED || event->kind == CORE_TICK ||
        event->kind == CORE_DIVERGED)
        return false;
    if (event->kind == CORE_STOP && w->stop)
        return true; /* once is enough */
    /* Of a range for which something is kept without a barrier: that waits for what this
     * one waits for, too. */
    if (w->barriers == 0 && !(wants_all(m, event) && w->count > 0) &&
        !must_wait(m, event, w->next))
        return false;
    keep(m, event);
    return true;
}

/* Takes it out. False: it was a hello of a peer that is gone. */
static bool release(struct gapless_master *m, uint32_t at, struct core_event *ret)
{
    struct master_waiting *w = m->waiting;
    struct kept_event kept = w->kept[at];

    w->count--;
    memmove(&w->kept[at], &w->kept[at + 1], (w->count - at) * sizeof *w->kept);
    w->barriers -= wants_all(m, &kept.event) ? 1 : 0;
    *ret = kept.event;
    ret->now_ns = m->transport->now_ns(m->tp);
    if (kept.event.kind == CORE_STOP)
        w->stop = false;
    if (kept.event.kind != CORE_HELLO)
        return true;
    if (m->peer[kept.peer].hello != kept.number)
        return false;
    m->peer[kept.peer].hello = 0;
    m->hello_peer = kept.peer;
    m->hello_pid = kept.pid;
    return true;
}

/* The first kept event that may go; `count`: there is none. */
static uint32_t find(const struct gapless_master *m)
{
    const struct master_waiting *w = m->waiting;
    uint32_t i;

    for (i = 0; i < w->count; i++) {
        const struct kept_event *kept = &w->kept[i];
        bool waits = must_wait(m, &kept->event, kept->number);

        if (wants_all(m, &kept->event))
            return i == 0 && !waits ? i : w->count;
        if (!waits)
            return i;
    }
    return w->count;
}

bool waiting_next(struct gapless_master *m, struct core_event *ret)
{
    struct master_waiting *w = m->waiting;

    while (w != NULL && w->changed) {
        uint32_t at = find(m);

        w->changed = at < w->count;
        if (w->changed && release(m, at, ret))
            return true;
    }
    return false;
}

bool waiting_full(const struct gapless_master *m)
{
    return m->waiting != NULL && m->waiting->count > WAITING_MOST;
}

void waiting_begins(struct gapless_master *m)
{
    if (m->waiting == NULL)
        return;
    m->waiting->closed = OPEN;
    m->waiting->changed = true;
}

bool waiting_ends(struct gapless_master *m)
{
    struct master_waiting *w = m->waiting;

    if (w == NULL)
        return true;
    if (w->closed == OPEN)
        w->closed = w->next;
    return !matrices_under_way(m, CORE_ALL) &&
           (w->count == 0 || w->kept[0].number >= w->closed);
}

bool waiting_tick(struct gapless_master *m, uint64_t now_ns)
{
    struct master_waiting *w = m->waiting;
    uint32_t i;

    if (w == NULL || (w->count == 0 && !matrices_under_way(m, CORE_ALL)))
        return true;
    if (m->core->phase == CORE_STOPPING)
        return false;
    for (i = 0; i < w->count; i++)
        if (w->kept[i].event.kind == CORE_GRADIENT)
            core_excuse(m->core, w->kept[i].event.worker, now_ns);
    matrices_excuse(m, now_ns);
    return true;
}

/* ---- copies for observers ------------------------------------------------ */

static void copy_range(struct gapless_master *m, uint32_t range)
{
    size_t from = (size_t)m->layout.range_start[range];

    memcpy((float *)m->copy_region.base + from, m->theta + from,
           pass_elements(m, range) * sizeof(float));
}

static void copy_ends(struct gapless_master *m)
{
    m->shared_stats->copy_version = m->version_base + core_version(m->core, 0);
    seq_write_end(&m->shared_stats->copy);
}

void waiting_copy(struct gapless_master *m)
{
    struct master_waiting *w = m->waiting;
    uint32_t r;

    if (w != NULL && w->copies_due > 0)
        return;
    seq_write_begin(&m->shared_stats->copy);
    for (r = 0; r < m->layout.ranges_count; r++) {
        if (w != NULL && matrices_under_way(m, r)) {
            w->copy_due[r] = true;
            w->copies_due++;
        } else {
            copy_range(m, r);
        }
    }
    if (w == NULL || w->copies_due == 0)
        copy_ends(m);
}

void waiting_freed(struct gapless_master *m, const struct pass_work *work)
{
    struct master_waiting *w = m->waiting;
    uint32_t first = work->range == CORE_ALL ? 0 : work->range, r;
    uint32_t end = work->range == CORE_ALL ? m->layout.ranges_count : first + 1;

    w->changed = true;
    for (r = first; w->copies_due > 0 && r < end; r++) {
        if (!w->copy_due[r])
            continue;
        copy_range(m, r);
        w->copy_due[r] = false;
        if (--w->copies_due == 0)
            copy_ends(m);
    }
}
