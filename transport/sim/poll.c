/* Simulated transport: poll, which hands out what is due and moves the clock, and
 * window, which waits for a grant.
 *
 * A poll that has nothing to hand out moves the clock to where it has, or to the end of
 * its timeout, and does not wait in real time. With a pump it stops on the way wherever
 * the server has something to do, and lets it: an exchange takes its modelled time and
 * no more.
 */
#include "transport/sim/world.h"

#include "engine/base/clock.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>

#define NAP_NS UINT64_C(1000000)

void sim_nap_until(uint64_t deadline_ns)
{
    uint64_t now = clock_ns();
    uint64_t left = now < deadline_ns ? deadline_ns - now : 0;
    struct timespec nap = {.tv_nsec = (long)(left < NAP_NS ? left : NAP_NS)};

    (void)nanosleep(&nap, NULL);
}

/* ---- events -------------------------------------------------------------- */

static struct tp_event deliver_one(struct sim_world *root, struct tp *tp)
{
    struct sim_item item = sim_queue_take(root, tp);
    struct sim_peer *peer = &tp->peers[item.peer];
    struct tp_event event = {.kind = item.kind, .peer = item.peer, .note = item.note};

    switch (item.kind) {
    case TP_UP:
        peer->up = true;
        break;
    case TP_DOWN:
        peer->up = false;
        sim_peer_over(tp, item.peer);
        break;
    case TP_TEXT:
        peer->texts--;
        item.text->next = tp->held;
        tp->held = item.text;
        event.bytes = item.text->bytes;
        event.data = item.text->data;
        break;
    case TP_NOTE:
        peer->notes--;
        if (item.pass_ns > 0)
            tp->busy_ns = sim_later(item.at_ns, item.pass_ns);
        break;
    case TP_DONE:
        peer->dones--;
        tp->counters.completions++;
        break;
    }
    sim_move_end(item.move, true);
    tp->taken++;
    return event;
}

static bool due(const struct sim_world *root, const struct tp *tp)
{
    return tp->item_count > 0 && tp->items[0].at_ns <= root->now_ns;
}

static int deliver(struct sim_world *root, struct tp *tp, struct tp_event *events,
                   int max)
{
    int count = 0;

    while (count < max && due(root, tp))
        events[count++] = deliver_one(root, tp);
    return count;
}

/* ---- the pump ------------------------------------------------------------ */

bool sim_pump(struct tp *tp, struct sim_world **root)
{
    void (*pump)(void *user) = (*root)->pump;
    void *user = (*root)->pump_user;

    if (pump == NULL || (*root)->pumping)
        return false;
    (*root)->pumping = true;
    sim_unlock(*root);
    pump(user);
    *root = sim_lock(tp);
    (*root)->pumping = false;
    return true;
}

/* What the servers of a client have taken so far; and is more waiting for them? */
static uint64_t servers_taken(const struct sim_world *root, const struct tp *tp,
                              bool *ret_due)
{
    uint64_t taken = 0;

    *ret_due = false;
    for (uint32_t i = 0; i < tp->config.peers_max; i++) {
        if (tp->peers[i].state != SIM_LIVE)
            continue;
        taken += tp->peers[i].remote->taken;
        *ret_due = *ret_due || due(root, tp->peers[i].remote);
    }
    return taken;
}

/* Lets the server work as long as it gets on with what it has now. True: it worked, so
 * that it is worth looking again. */
static bool pump_round(struct tp *tp, struct sim_world **root, bool *ret_more)
{
    uint64_t before;
    bool more;

    if (tp->role != SIM_CLIENT)
        return false;
    before = servers_taken(*root, tp, &more);
    if (!sim_pump(tp, root))
        return false;
    *ret_more = servers_taken(*root, tp, &more) != before && more;
    return true;
}

static int poll_pumped(struct tp *tp, struct sim_world **root, struct tp_event *events,
                       int max)
{
    bool more = true;
    int count = 0;

    while (count == 0 && more) {
        if (!pump_round(tp, root, &more))
            return 0;
        count = deliver(*root, tp, events, max);
    }
    return count;
}

/* ---- poll ---------------------------------------------------------------- */

/* Where the clock goes next: after now, at most to the deadline. */
static uint64_t next_stop(const struct sim_world *root, const struct tp *tp,
                          uint64_t deadline_ns)
{
    uint64_t stop = deadline_ns;

    if (tp->item_count > 0 && tp->items[0].at_ns < stop)
        stop = tp->items[0].at_ns;
    if (tp->role != SIM_CLIENT || root->pump == NULL || root->pumping)
        return stop;
    for (uint32_t i = 0; i < tp->config.peers_max; i++) {
        const struct tp *server = tp->peers[i].remote;

        if (tp->peers[i].state == SIM_LIVE && server->item_count > 0 &&
            !due(root, server) && server->items[0].at_ns < stop)
            stop = server->items[0].at_ns;
    }
    return stop;
}

/* What the last poll delivered is done with. */
static void poll_release(struct tp *tp)
{
    while (tp->held != NULL) {
        struct sim_text *text = tp->held;

        tp->held = text->next;
        free(text);
    }
    sim_release_over(tp);
}

int sim_poll(struct tp *tp, struct tp_event *events, int max, int64_t timeout_ns)
{
    uint64_t bound = (uint64_t)(timeout_ns < 0 ? SIM_BOUND_NS : timeout_ns);
    struct sim_world *root;
    uint64_t deadline;
    bool others = true;
    int count = 0;

    if (max <= 0 || events == NULL)
        return GAPLESS_INVALID;
    root = sim_lock(tp);
    if (root == NULL) {
        tp->alone_ns = sim_later(tp->alone_ns, bound);
    } else {
        poll_release(tp);
        deadline = sim_later(root->now_ns, bound);
        count = deliver(root, tp, events, max);
        while (count == 0) {
            count = poll_pumped(tp, &root, events, max);
            if (count > 0 || root->now_ns >= deadline)
                break;
            root->now_ns = next_stop(root, tp, deadline);
            count = deliver(root, tp, events, max);
        }
        others = root->pump == NULL;
        sim_unlock(root);
    }
    /* Where other threads are at work, a thread that waits in a loop lets them. */
    if (count == 0 && bound > 0 && others)
        (void)sched_yield();
    return count;
}

/* ---- window -------------------------------------------------------------- */

/* Local memory for a window that is not mapped; the region has the server's. */
static int window_apart(struct sim_region *region, struct gapless_error *error)
{
    size_t bytes = region->memory->bytes;

    region->remote = region->memory;
    region->memory = sim_memory_new(bytes);
    if (region->memory != NULL)
        return GAPLESS_OK;
    sim_memory_release(region->remote);
    return gapless_error_set(error, GAPLESS_NO_MEMORY, errno,
                             "no memory for a window of %zu bytes", bytes);
}

/* GAPLESS_AGAIN: not granted yet. */
static int window_take(struct tp *tp, tp_peer index, uint32_t window,
                       struct tp_region *ret, struct gapless_error *error)
{
    const struct sim_peer *peer = &tp->peers[index];
    const struct sim_window *granted = &peer->windows[window];
    struct sim_region region = {
        .common = {.access = granted->access,
                   .split = granted->split,
                   .peer = index,
                   .generation = peer->generation},
        .memory = granted->memory,
        .opened = true,
    };
    int status = GAPLESS_OK;

    if (!peer->up || peer->state == SIM_OVER)
        return gapless_error_set(error, GAPLESS_PEER_LOST, 0,
                                 "the connection to the master is closed");
    if (granted->memory != NULL) {
        region.memory->refs++;
        if (tp->apart)
            status = window_apart(&region, error);
        return status == GAPLESS_OK ? sim_region_add(tp, &region, ret, error) : status;
    }
    if (peer->state != SIM_LIVE)
        return gapless_error_set(error, GAPLESS_PEER_LOST, 0,
                                 "the master went away before it granted window %u",
                                 (unsigned)window);
    return GAPLESS_AGAIN;
}

/* Once the server has done what it can. *ret_driven: one thread drives everything. */
static int window_pumped(struct tp *tp, tp_peer index, uint32_t window,
                         bool *ret_driven, struct tp_region *ret,
                         struct gapless_error *error)
{
    struct sim_world *root = sim_lock(tp);
    int status = window_take(tp, index, window, ret, error);
    bool more = true;

    while (status == GAPLESS_AGAIN && more && pump_round(tp, &root, &more))
        status = window_take(tp, index, window, ret, error);
    *ret_driven = root != NULL && root->pump != NULL;
    sim_unlock(root);
    return status;
}

int sim_window(struct tp *tp, tp_peer index, uint32_t window, int64_t timeout_ns,
               struct tp_region *ret, struct gapless_error *error)
{
    uint64_t bound = (uint64_t)(timeout_ns < 0 ? SIM_BOUND_NS : timeout_ns);
    uint64_t deadline = sim_later(clock_ns(), bound);
    bool driven;
    int status;

    if (tp->role != SIM_CLIENT || index >= tp->config.peers_max ||
        window >= tp->config.windows_max)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "window %u of peer %u: not a client, or out of range",
                                 (unsigned)window, (unsigned)index);
    for (;;) {
        status = window_pumped(tp, index, window, &driven, ret, error);
        if (status != GAPLESS_AGAIN)
            return status;
        /* A grant takes no virtual time, so only another thread can still make it; not
         * so where one thread drives everything. */
        if (driven || clock_ns() >= deadline)
            return gapless_error_set(error, GAPLESS_TIMEOUT, 0,
                                     "the master did not grant window %u in time",
                                     (unsigned)window);
        sim_nap_until(deadline);
    }
}
