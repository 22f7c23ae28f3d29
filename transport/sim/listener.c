/* Simulated transport: listen and connect, and how a connection ends. Nothing of this
 * takes virtual time. A server that is not there yet can only come by another thread,
 * so that connect waits for it in real time, in short naps. */
#include "transport/sim/world.h"

#include "engine/base/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char *name_of(const struct tp *tp)
{
    return tp->apart ? "simnet" : "sim";
}

static int address_check(const char *address, struct gapless_error *error)
{
    if (address == NULL || address[0] == '\0')
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "the address is empty; give a name (sim:run1)");
    if (strlen(address) >= SIM_NAME_MAX)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "the name is longer than %u bytes: %.80s...",
                                 SIM_NAME_MAX - 1, address);
    return GAPLESS_OK;
}

/* ---- listen -------------------------------------------------------------- */

static int listen_named(struct tp *tp, const char *address, struct gapless_error *error)
{
    struct sim_world *world = sim_world_find(address, tp->apart);
    struct sim_world *root;

    if (world != NULL && world->server != NULL)
        return gapless_error_set(error, GAPLESS_SYSTEM, EADDRINUSE,
                                 "another master listens on %s:%s; stop it or choose "
                                 "another name",
                                 name_of(tp), address);
    if (world == NULL)
        world = sim_world_new(address, tp->apart);
    if (world == NULL || !sim_world_enter(tp, world)) {
        sim_world_release(world);
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory to listen on %s:%s", name_of(tp), address);
    }
    tp->role = SIM_SERVER; /* before a client can find it */
    world->server = tp;
    /* A port of its own, whatever an earlier server on this name left undone. */
    root = sim_lock(tp);
    world->in = world->out = (struct sim_port){0};
    world->busy_ns = 0;
    sim_unlock(root);
    return GAPLESS_OK;
}

int sim_listen(struct tp *tp, const char *address, struct gapless_error *error)
{
    int status;

    if (tp->role != SIM_NEITHER)
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "this endpoint listens or connects already; open another");
    status = address_check(address, error);
    if (status != GAPLESS_OK)
        return status;
    sim_names_lock();
    status = listen_named(tp, address, error);
    sim_names_unlock();
    return status;
}

/* ---- the end of a connection --------------------------------------------- */

void sim_peer_down(struct sim_world *root, struct tp *tp, uint32_t index)
{
    uint64_t last_ns = tp->peers[index].last_ns;

    sim_queue_add(root, tp,
                  &(struct sim_item){
                      .at_ns = last_ns > root->now_ns ? last_ns : root->now_ns,
                      .kind = TP_DOWN,
                      .peer = index,
                  });
}

static void peer_leave(struct tp *tp, uint32_t index)
{
    tp->peers[index].state = SIM_LEAVING;
    tp->peers[index].remote = NULL;
    tp->item_kept--;
}

void sim_peer_cut(struct sim_world *root, struct tp *tp, uint32_t index)
{
    struct tp *remote = tp->peers[index].remote;
    tp_peer there = tp->peers[index].remote_peer;

    peer_leave(tp, index);
    peer_leave(remote, there);
    sim_peer_down(root, remote, there);
}

void sim_peer_over(struct tp *tp, uint32_t index)
{
    tp->peers[index].state = SIM_OVER;
    tp->over[tp->over_count++] = index;
}

void sim_release_over(struct tp *tp)
{
    while (tp->over_count > 0) {
        struct sim_peer *peer = &tp->peers[tp->over[--tp->over_count]];

        for (uint32_t i = 0; peer->windows != NULL && i < tp->config.windows_max; i++) {
            sim_memory_release(peer->windows[i].memory);
            peer->windows[i].memory = NULL;
        }
        peer->state = SIM_FREE;
        peer->up = false;
        peer->generation++;
    }
}

/* ---- connect ------------------------------------------------------------- */

/* The first free peer slot, or peers_max. *ret_leaving: one will be free soon. */
static uint32_t peer_slot_find(const struct tp *tp, bool *ret_leaving)
{
    *ret_leaving = false;
    for (uint32_t i = 0; i < tp->config.peers_max; i++) {
        if (tp->peers[i].state == SIM_FREE)
            return i;
        *ret_leaving = *ret_leaving || tp->peers[i].state != SIM_LIVE;
    }
    return tp->config.peers_max;
}

static void peer_slot_take(struct tp *tp, uint32_t index, struct tp *remote,
                           uint32_t there, const struct tp_config *server)
{
    struct sim_peer *peer = &tp->peers[index];

    peer->state = SIM_LIVE;
    peer->up = tp->role == SIM_CLIENT;
    peer->remote = remote;
    peer->remote_peer = there;
    peer->notes_max = server->notes_max;
    peer->windows_max = tp->config.windows_max < remote->config.windows_max
                            ? tp->config.windows_max
                            : remote->config.windows_max;
    peer->last_ns = peer->note_ns = peer->done_ns = 0;
    peer->notes = peer->texts = peer->dones = 0;
    peer->not_reading = false;
    tp->item_kept++;
}

static int no_memory(struct gapless_error *error)
{
    return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                             "no memory for one more simulated connection");
}

/* With the names locked: the server stays, and no other client takes the peer slot. */
static int connect_peer_slot(struct tp *tp, uint32_t index, struct sim_world *world,
                             uint32_t peer_slot, struct gapless_error *error)
{
    struct tp *server = world->server;
    struct sim_world *root;
    bool room;

    if (!sim_world_enter(tp, world))
        return no_memory(error);
    root = sim_lock(tp);
    room = sim_queue_room(server, 2) && sim_queue_room(tp, 1);
    if (room) {
        peer_slot_take(tp, index, server, peer_slot, &server->config);
        peer_slot_take(server, peer_slot, tp, index, &server->config);
        sim_queue_add(root, server,
                      &(struct sim_item){
                          .at_ns = root->now_ns, .kind = TP_UP, .peer = peer_slot});
    }
    sim_unlock(root);
    return room ? GAPLESS_OK : no_memory(error);
}

/* One try, with the names locked. GAPLESS_AGAIN: no server there, or no peer slot free, yet. */
static int connect_try(struct tp *tp, uint32_t index, const char *address,
                       bool *ret_there, struct gapless_error *error)
{
    struct sim_world *world = sim_world_find(address, tp->apart);
    struct sim_world *root;
    uint32_t peer_slot;
    bool leaving;

    *ret_there = world != NULL && world->server != NULL;
    if (!*ret_there)
        return GAPLESS_AGAIN;
    root = sim_world_lock(world);
    peer_slot = peer_slot_find(world->server, &leaving);
    /* Where one thread drives everything it is no use to wait for the server. */
    leaving = leaving && root->pump == NULL;
    sim_unlock(root);
    if (peer_slot < world->server->config.peers_max)
        return connect_peer_slot(tp, index, world, peer_slot, error);
    if (leaving)
        return GAPLESS_AGAIN;
    return gapless_error_set(
        error, GAPLESS_CAPACITY, 0,
        "the master has room for %u peers and all are connected; start "
        "it with room for more, or end one",
        (unsigned)world->server->config.peers_max);
}

static int connect_windows(struct tp *tp, struct gapless_error *error)
{
    size_t count = (size_t)tp->config.peers_max * tp->config.windows_max;

    if (tp->windows != NULL)
        return GAPLESS_OK;
    tp->windows = calloc(count, sizeof *tp->windows);
    if (tp->windows == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for %zu windows", count);
    for (uint32_t i = 0; i < tp->config.peers_max; i++)
        tp->peers[i].windows = tp->windows + (size_t)i * tp->config.windows_max;
    return GAPLESS_OK;
}

/* A number for the connection on this side. */
static int connect_begin(struct tp *tp, const char *address, uint32_t *ret,
                         struct gapless_error *error)
{
    struct sim_world *root;
    bool leaving;
    uint32_t index;
    int status;

    if (tp->role == SIM_SERVER)
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "an endpoint that listens cannot connect; open another");
    root = sim_lock(tp);
    /* A client that connects has seen the TP_DOWN of what was connected before. */
    sim_release_over(tp);
    index = peer_slot_find(tp, &leaving);
    sim_unlock(root);
    if (index == tp->config.peers_max)
        return gapless_error_set(error, GAPLESS_CAPACITY, 0,
                                 "this endpoint was opened for %u connections",
                                 (unsigned)tp->config.peers_max);
    status = address_check(address, error);
    if (status == GAPLESS_OK)
        status = connect_windows(tp, error);
    if (status == GAPLESS_OK)
        *ret = index;
    return status;
}

int sim_connect(struct tp *tp, const char *address, int64_t timeout_ns, tp_peer *ret,
                struct gapless_error *error)
{
    uint64_t start = clock_ns();
    uint64_t bound = (uint64_t)(timeout_ns < 0 ? SIM_BOUND_NS : timeout_ns);
    uint64_t deadline = sim_later(start, bound);
    uint32_t index = 0;
    bool there = false;
    int status;

    status = connect_begin(tp, address, &index, error);
    if (status != GAPLESS_OK)
        return status;
    tp->role = SIM_CLIENT;
    for (;;) {
        sim_names_lock();
        status = connect_try(tp, index, address, &there, error);
        sim_names_unlock();
        if (status != GAPLESS_AGAIN)
            break;
        if (clock_ns() >= deadline && there)
            return gapless_error_set(
                error, GAPLESS_TIMEOUT, 0,
                "the master at %s:%s had no peer slot free in time: it does not poll",
                name_of(tp), address);
        if (clock_ns() >= deadline)
            return gapless_error_set(
                error, GAPLESS_TIMEOUT, 0,
                "no master at %s:%s in %.1f s; one of this same process must listen "
                "there (processes meet over shm:)",
                name_of(tp), address, (double)(clock_ns() - start) * 1e-9);
        sim_nap_until(deadline);
    }
    if (status == GAPLESS_OK)
        *ret = index;
    return status;
}
