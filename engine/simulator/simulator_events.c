/* What happens when: a binary heap. */
#include "engine/simulator/simulator.h"

#include <stdlib.h>

#define ROOM_FIRST 256u

static bool before(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

int events_add(struct sim_events *events, const struct sim_event *event,
               struct gapless_error *error)
{
    size_t at = events->count;

    if (events->count == events->room) {
        size_t room = events->room == 0 ? ROOM_FIRST : 2 * events->room;
        struct sim_event *heap = realloc(events->heap, room * sizeof *heap);

        if (heap == NULL)
            return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                     "no memory for %zu events of a simulation", room);
        events->heap = heap;
        events->room = room;
    }
    events->count++;
    while (at > 0 && before(event, &events->heap[(at - 1) / 2])) {
        events->heap[at] = events->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    events->heap[at] = *event;
    return GAPLESS_OK;
}

bool events_first(const struct sim_events *events, struct sim_event *ret)
{
    if (events->count == 0)
        return false;
    *ret = events->heap[0];
    return true;
}

void events_drop_first(struct sim_events *events)
{
    struct sim_event last;
    size_t at = 0, child;

    if (events->count == 0)
        return;
    last = events->heap[--events->count];
    while ((child = 2 * at + 1) < events->count) {
        if (child + 1 < events->count &&
            before(&events->heap[child + 1], &events->heap[child]))
            child++;
        if (!before(&events->heap[child], &last))
            break;
        events->heap[at] = events->heap[child];
        at = child;
    }
    if (events->count > 0)
        events->heap[at] = last;
}

void events_free(struct sim_events *events)
{
    free(events->heap);
    *events = (struct sim_events){0};
}
