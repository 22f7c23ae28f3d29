/* The events that the master makes itself, in one queue that one loop drains.
 *
 *   a note, a text, an end of a peer, a tick ──> │ event │ event │ ... │ ──> core_step
 *                                                    ^                          │
 *                                                    │                  at most four
 *              GONE: a peer could not be served      │                       actions
 *              APPLIED: comes first, see below       └──────── perform <────────┘
 *
 * Performing an action never steps the core: it adds an event, and the loop that is
 * running takes it. So the core is never stepped inside of a step, an action that was
 * begun is finished before another event is looked at, and the stack is as deep with a
 * thousand workers that go at once as with one.
 *
 * APPLIED is added in front: memory has changed, and the core must count that before
 * anything else reads versions.
 *
 * Bound. A worker can go once until it is welcome again, which only an event from
 * outside does, and such an event is taken from outside when the queue is empty. So the
 * queue holds at most one GONE per worker, one DIVERGED in all and, in front, one APPLIED:
 * workers_max + 2 places, taken when the master is opened.
 */
#ifndef GAPLESS_MASTER_QUEUE_H
#define GAPLESS_MASTER_QUEUE_H

#include "engine/master/core.h"

#include <assert.h>

struct event_queue {
    struct core_event *event; /* `room` places, around the end */
    uint32_t room, first, count;
    uint32_t most; /* that ever waited at once */
    bool draining; /* the loop is running */
};

static inline void queue_add(struct event_queue *queue, const struct core_event *event)
{
    assert(queue->count < queue->room);
    queue->event[(queue->first + queue->count++) % queue->room] = *event;
    if (queue->count > queue->most)
        queue->most = queue->count;
}

static inline void queue_add_first(struct event_queue *queue,
                                   const struct core_event *event)
{
    assert(queue->count < queue->room);
    queue->first = (queue->first == 0 ? queue->room : queue->first) - 1;
    queue->event[queue->first] = *event;
    if (++queue->count > queue->most)
        queue->most = queue->count;
}

/* False: it is empty. */
static inline bool queue_take(struct event_queue *queue, struct core_event *ret)
{
    if (queue->count == 0)
        return false;
    *ret = queue->event[queue->first];
    queue->first = queue->first + 1 == queue->room ? 0 : queue->first + 1;
    queue->count--;
    return true;
}

#endif
