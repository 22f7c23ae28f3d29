/* Simulated transport: endpoints of one process on a virtual clock, over a modelled
 * link. Read sim.h for what takes how long, and world.h for how it is kept; the
 * table at the end of this file is what the engine sees.
 *
 * In sim put moves nothing: a window is the server's memory, as with shared memory.
 * What takes time is the note, whose delivery is entered for when all bytes would have
 * arrived. In simnet a client has memory of its own, and the bytes are copied.
 */
#include "transport/sim/world.h"

#include <stdlib.h>
#include <string.h>

/* About 30 years: keeps what a nonsensical rate gives within an integer. */
#define LONGEST_NS 1e18

/* ---- open and close ------------------------------------------------------ */

static void tp_free(struct tp *tp)
{
    while (tp->held != NULL) {
        struct sim_text *text = tp->held;

        tp->held = text->next;
        free(text);
    }
    free(tp->items);
    free(tp->regions.entries);
    free(tp->windows);
    free(tp->over);
    free(tp->peers);
    free(tp);
}

static int sim_open(const struct tp_config *given, struct tp **ret,
                    struct gapless_error *error)
{
    static const struct tp_limits limits = {"a simulated master", SIM_PEERS_MAX,
                                            SIM_NOTES_MAX, SIM_WINDOWS_MAX};
    struct tp_config config = {0};
    struct tp *tp;
    int status;

    status = transport_config(given, &limits, &config, error);
    if (status != GAPLESS_OK)
        return status;
    tp = calloc(1, sizeof *tp);
    if (tp == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory to open sim");
    tp->config = config;
    tp->regions.entry_bytes = sizeof(struct sim_region);
    tp->place = SIM_NOWHERE;
    tp->peers = calloc(config.peers_max, sizeof *tp->peers);
    tp->over = calloc(config.peers_max, sizeof *tp->over);
    if (tp->peers == NULL || tp->over == NULL) {
        tp_free(tp);
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for %u peers",
                                 (unsigned)config.peers_max);
    }
    *ret = tp;
    return GAPLESS_OK;
}

static int simnet_open(const struct tp_config *given, struct tp **ret,
                       struct gapless_error *error)
{
    int status = sim_open(given, ret, error);

    if (status == GAPLESS_OK)
        (*ret)->apart = true;
    return status;
}

static void sim_close(struct tp *tp)
{
    struct sim_world *root;

    if (tp == NULL)
        return;
    if (tp->world != NULL) {
        sim_names_lock();
        if (tp->world->server == tp)
            tp->world->server = NULL;
        sim_names_unlock();
    }
    /* From here on no client connects to us. */
    root = sim_lock(tp);
    for (uint32_t i = 0; i < tp->config.peers_max; i++) {
        if (tp->peers[i].state == SIM_LIVE)
            sim_peer_cut(root, tp, i);
    }
    if (root != NULL)
        sim_queue_purge(root, tp, UINT32_MAX);
    for (uint32_t i = 0; i < tp->regions.count; i++) {
        struct sim_region *entry = tp_table_at(&tp->regions, i);

        sim_memory_release(entry->memory);
        sim_memory_release(entry->remote);
    }
    for (size_t i = 0; tp->windows != NULL &&
                       i < (size_t)tp->config.peers_max * tp->config.windows_max;
         i++)
        sim_memory_release(tp->windows[i].memory);
    sim_unlock(root);
    if (root != NULL) {
        sim_names_lock();
        sim_world_leave(tp);
        sim_names_unlock();
    }
    tp_free(tp);
}

/* ---- the control plane --------------------------------------------------- */

/* With the root locked: a connected peer, or NULL. */
static struct sim_peer *peer_find(struct tp *tp, tp_peer index)
{
    if (index >= tp->config.peers_max || tp->peers[index].state != SIM_LIVE ||
        !tp->peers[index].up)
        return NULL;
    return &tp->peers[index];
}

static int not_connected(tp_peer index, struct gapless_error *error)
{
    return gapless_error_set(error, GAPLESS_PEER_LOST, 0, "peer %u is not connected",
                             (unsigned)index);
}

/* With the root locked. Sets *text to NULL if it was sent: then it is the
 * receiver's. */
static int text_send(struct sim_world *root, struct tp *tp, tp_peer index,
                     struct sim_text **text, struct gapless_error *error)
{
    struct sim_peer *peer = peer_find(tp, index);
    struct sim_peer *there;

    if (peer == NULL)
        return not_connected(index, error);
    there = &peer->remote->peers[peer->remote_peer];
    if (there->texts >= SIM_TEXTS_MAX && tp->role == SIM_CLIENT)
        return gapless_error_set(
            error, GAPLESS_AGAIN, 0,
            "the master has not read earlier control messages yet");
    if (there->texts >= SIM_TEXTS_MAX) {
        peer->not_reading = true;
        sim_peer_cut(root, tp, index);
        sim_peer_down(root, tp, index);
        return gapless_error_set(error, GAPLESS_PEER_LOST, 0,
                                 "peer %u does not read its control messages and was "
                                 "disconnected",
                                 (unsigned)index);
    }
    if (!sim_queue_room(peer->remote, 1))
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for a control message to peer %u",
                                 (unsigned)index);
    there->texts++;
    if (there->last_ns < root->now_ns)
        there->last_ns = root->now_ns;
    sim_queue_add(root, peer->remote,
                  &(struct sim_item){.at_ns = root->now_ns,
                                     .kind = TP_TEXT,
                                     .peer = peer->remote_peer,
                                     .text = *text});
    *text = NULL;
    return GAPLESS_OK;
}

static int sim_send_control(struct tp *tp, tp_peer index, const void *data,
                            uint32_t bytes, struct gapless_error *error)
{
    struct sim_text *text;
    struct sim_world *root;
    int status;

    if (bytes > TP_TEXT_MAX || (data == NULL && bytes != 0))
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "a control message of %u bytes; at most %u", bytes,
                                 TP_TEXT_MAX);
    text = malloc(sizeof *text + bytes);
    if (text == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for a control message to peer %u",
                                 (unsigned)index);
    text->next = NULL;
    text->bytes = bytes;
    if (bytes > 0)
        memcpy(text->data, data, bytes);
    root = sim_lock(tp);
    status = text_send(root, tp, index, &text, error);
    sim_unlock(root);
    free(text);
    return status;
}

/* With the root locked. */
static int grant_give(struct tp *tp, tp_peer index, struct sim_region *entry,
                      uint32_t window, enum tp_access access, size_t split,
                      struct gapless_error *error)
{
    struct sim_peer *peer = peer_find(tp, index);
    struct sim_window *there;
    int status;

    if (peer != NULL && window >= peer->windows_max)
        return gapless_error_set(
            error, GAPLESS_CAPACITY, 0, "window %u: peer %u was promised %u windows",
            (unsigned)window, (unsigned)index, (unsigned)peer->windows_max);
    status = tp_grant_check(&entry->common, entry->memory->bytes, access, split, error);
    if (status != GAPLESS_OK)
        return status;
    entry->common.granted = true;
    entry->common.access = access;
    entry->common.split = split;
    if (peer == NULL)
        return not_connected(index, error);
    there = &peer->remote->peers[peer->remote_peer].windows[window];
    sim_memory_release(there->memory);
    there->memory = entry->memory;
    there->memory->refs++;
    there->access = access;
    there->split = split;
    return GAPLESS_OK;
}

static int sim_grant(struct tp *tp, tp_peer index, const struct tp_region *region,
                     uint32_t window, enum tp_access access,
                     struct gapless_error *error)
{
    struct sim_region *entry = sim_region_find(tp, region);
    struct sim_world *root;
    int status;

    if (tp->role != SIM_SERVER || entry == NULL)
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "only a server can grant, and only a region of its own");
    root = sim_lock(tp);
    status = grant_give(tp, index, entry, window, access,
                        access == TP_SPLIT ? region->split : 0, error);
    sim_unlock(root);
    return status;
}

static void sim_drop(struct tp *tp, tp_peer index)
{
    struct sim_world *root = sim_lock(tp);

    if (root != NULL && index < tp->config.peers_max && tp->peers[index].up) {
        if (tp->peers[index].state == SIM_LIVE)
            sim_peer_cut(root, tp, index);
        sim_queue_purge(root, tp, index);
        tp->peers[index].up = false;
        sim_peer_over(tp, index);
    }
    sim_unlock(root);
}

/* ---- the link ------------------------------------------------------------ */

/* How long this many bytes take, at most LONGEST_NS. */
static double span_ns(size_t bytes, double rate)
{
    double time = rate > 0 ? (double)bytes / rate : 0;

    return time > LONGEST_NS ? LONGEST_NS : time;
}

/* Bytes go through a port, behind those before them. Returns when the last is through.
 * Fractions of a ns are kept, so that many small puts take as long as one large. */
static uint64_t port_pass(struct sim_port *port, uint64_t start_ns, size_t bytes,
                          double rate)
{
    double time;

    if (start_ns > port->free_ns)
        *port = (struct sim_port){.free_ns = start_ns};
    if (rate > 0 && bytes > 0) {
        time = port->part + span_ns(bytes, rate);
        port->free_ns = sim_later(port->free_ns, (uint64_t)time);
        port->part = time - (double)(uint64_t)time;
    }
    return sim_later(port->free_ns, port->part >= 0.5 ? 1 : 0);
}

/* The world of the server's name, whose port and link it is. */
static struct sim_world *line_of(const struct tp *tp, const struct sim_peer *peer)
{
    return tp->role == SIM_SERVER ? tp->world : peer->remote->world;
}

/* When a put of `bytes` is there, and (*ret_taken) the server free to take it. */
static uint64_t put_time(struct sim_world *line, uint64_t now_ns, size_t bytes,
                         uint64_t not_before_ns, uint64_t *ret_taken,
                         uint64_t *ret_pass_ns)
{
    uint64_t there = sim_later(now_ns, line->link.latency_ns), at = there;

    *ret_pass_ns = 0;
    if (bytes > 0) {
        there = port_pass(&line->in, now_ns, bytes, line->link.bytes_per_ns);
        there = sim_later(there, line->link.latency_ns);
        at = there < line->busy_ns ? line->busy_ns : there;
    }
    if (at < not_before_ns)
        at = not_before_ns;
    if (bytes > 0) {
        *ret_pass_ns = sim_later(
            line->link.pass_ns, (uint64_t)span_ns(bytes, line->link.pass_bytes_per_ns));
        line->busy_ns = sim_later(at, *ret_pass_ns);
    }
    *ret_taken = at;
    return there;
}

/* ---- the data path ------------------------------------------------------- */

static void count_request(struct tp *tp)
{
    tp->counters.requests++;
    tp->counters.doorbells++;
}

/* With the root locked and room in the queue: a TP_DONE for ourselves, not before
 * `at_ns`. */
static void done_later(struct sim_world *root, struct tp *tp, tp_peer index,
                       uint64_t at_ns, struct sim_move *move, uint32_t note)
{
    struct sim_peer *peer = &tp->peers[index];

    /* Behind the ones before: a queue pair completes in order. */
    if (at_ns < peer->done_ns)
        at_ns = peer->done_ns;
    peer->done_ns = at_ns;
    peer->dones++;
    if (peer->last_ns < at_ns)
        peer->last_ns = at_ns;
    sim_queue_add(root, tp,
                  &(struct sim_item){.at_ns = at_ns,
                                     .kind = TP_DONE,
                                     .peer = index,
                                     .move = move,
                                     .note = note});
}

/* With the root locked. `from`, of a put that moves bytes, is the window they are of;
 * NULL: nothing is moved. GAPLESS_OK, or 1: a TP_DONE follows. */
static int note_send(struct sim_world *root, struct tp *tp, tp_peer index,
                     const struct sim_region *from, size_t offset, size_t bytes,
                     uint32_t note)
{
    struct sim_peer *peer = peer_find(tp, index);
    bool waits = from != NULL && bytes > SIM_INLINE;
    struct sim_item item = {.kind = TP_NOTE, .note = note};
    struct sim_peer *there;
    struct sim_world *line;
    uint64_t leaves, through;

    if (peer == NULL)
        return index < tp->config.peers_max ? GAPLESS_PEER_LOST : GAPLESS_INVALID;
    there = &peer->remote->peers[peer->remote_peer];
    if (there->notes >= peer->notes_max || (waits && peer->dones >= peer->notes_max))
        return GAPLESS_AGAIN;
    if (!sim_queue_room(peer->remote, 1) || !sim_queue_room(tp, waits ? 1 : 0))
        return GAPLESS_NO_MEMORY;
    if (from != NULL) {
        item.move =
            sim_move_new(from->memory, from->remote, offset, bytes, waits ? 2 : 1);
        if (item.move == NULL)
            return GAPLESS_NO_MEMORY;
    }
    line = line_of(tp, peer);
    leaves = root->now_ns;
    if (tp->role == SIM_SERVER) {
        leaves = sim_later(leaves, line->link.pass_ns);
        leaves = leaves < tp->busy_ns ? tp->busy_ns : leaves;
    }
    there->notes++;
    through = put_time(line, leaves, bytes, there->note_ns, &item.at_ns, &item.pass_ns);
    there->note_ns = item.at_ns;
    if (there->last_ns < item.at_ns)
        there->last_ns = item.at_ns;
    item.peer = peer->remote_peer;
    sim_queue_add(root, peer->remote, &item);
    if (waits)
        done_later(root, tp, index, sim_later(through, line->link.latency_ns),
                   item.move, note);
    return waits ? 1 : GAPLESS_OK;
}

/* Is [offset, offset + bytes) inside a window of this peer that allows the access?
 * Where windows are mapped a split cannot be seen. */
static struct sim_region *window_check(struct tp *tp, tp_peer index,
                                       const struct tp_region *window, size_t offset,
                                       size_t bytes, enum tp_access access)
{
    struct sim_region *entry = sim_region_find(tp, window);
    bool split;

    if (tp->role != SIM_CLIENT || entry == NULL || !entry->opened ||
        entry->common.peer != index || index >= tp->config.peers_max ||
        entry->common.generation != tp->peers[index].generation ||
        offset > entry->memory->bytes || bytes > entry->memory->bytes - offset)
        return NULL;
    split = tp->apart && entry->common.access == TP_SPLIT && bytes > 0;
    if (access == TP_READ)
        return split && offset + bytes > entry->common.split ? NULL : entry;
    return entry->common.access == TP_READ || (split && offset < entry->common.split)
               ? NULL
               : entry;
}

static int sim_put(struct tp *tp, tp_peer index, const struct tp_region *window,
                   size_t offset, size_t bytes, uint32_t note)
{
    struct sim_world *root = sim_lock(tp);
    const struct sim_region *entry = window_check(tp, index, window, offset, bytes,
                                                  bytes == 0 ? TP_READ : TP_READ_WRITE);
    int status = GAPLESS_INVALID;

    if (entry != NULL)
        status = note_send(root, tp, index, tp->apart && bytes > 0 ? entry : NULL,
                           offset, bytes, note);
    if (status >= 0 && tp->apart)
        count_request(tp);
    sim_unlock(root);
    return status;
}

/* With the root locked: the bytes travel. */
static int get_apart(struct sim_world *root, struct tp *tp, tp_peer index,
                     const struct sim_region *entry, size_t offset, size_t bytes,
                     uint32_t tag, uint64_t at_ns)
{
    struct sim_move *move;

    if (!sim_queue_room(tp, 1))
        return GAPLESS_NO_MEMORY;
    move = sim_move_new(entry->remote, entry->memory, offset, bytes, 1);
    if (move == NULL)
        return GAPLESS_NO_MEMORY;
    move->is_inlined = false; /* read when it is delivered, not when it is asked for */
    done_later(root, tp, index, at_ns, move, tag);
    count_request(tp);
    return 1;
}

static int sim_get(struct tp *tp, tp_peer index, const struct tp_region *window,
                   size_t offset, size_t bytes, uint32_t tag)
{
    struct sim_world *root = sim_lock(tp);
    struct sim_peer *peer = peer_find(tp, index);
    const struct sim_region *entry =
        window_check(tp, index, window, offset, bytes, TP_READ);
    int status = GAPLESS_INVALID;

    if (entry != NULL)
        status = peer != NULL ? GAPLESS_OK : GAPLESS_PEER_LOST;
    if (status == GAPLESS_OK && tp->apart && peer->dones >= peer->notes_max)
        status = GAPLESS_AGAIN;
    if (status == GAPLESS_OK) {
        struct sim_world *line = line_of(tp, peer);
        uint64_t asked = sim_later(root->now_ns, line->link.latency_ns);
        uint64_t there = port_pass(&line->out, asked, bytes, line->link.bytes_per_ns);

        there = sim_later(there, line->link.latency_ns);
        if (tp->gets_done_ns < there)
            tp->gets_done_ns = there;
        if (tp->apart)
            status = get_apart(root, tp, index, entry, offset, bytes, tag, there);
    }
    sim_unlock(root);
    return status;
}

static int sim_notify(struct tp *tp, tp_peer index, uint32_t note)
{
    struct sim_world *root = sim_lock(tp);
    int status = note_send(root, tp, index, NULL, 0, 0, note);

    if (status == GAPLESS_OK && tp->apart)
        count_request(tp);
    sim_unlock(root);
    return status;
}

/* ---- looking at it ------------------------------------------------------- */

static size_t sim_describe(struct tp *tp, tp_peer index, char *ret, size_t bytes)
{
    (void)tp, (void)index;
    if (bytes > 0)
        ret[0] = '\0';
    return 0;
}

static void sim_last_error(struct tp *tp, tp_peer index, struct gapless_error *ret)
{
    struct sim_world *root = sim_lock(tp);

    *ret = (struct gapless_error){0};
    if (index < tp->config.peers_max && tp->peers[index].not_reading)
        (void)gapless_error_set(ret, GAPLESS_PEER_LOST, 0,
                                "it did not read its control messages and was "
                                "disconnected: it is stopped, or does not poll");
    sim_unlock(root);
}

static void sim_count(struct tp *tp, struct tp_counters *ret)
{
    struct sim_world *root = sim_lock(tp);

    *ret = tp->counters;
    for (uint32_t i = 0; tp->apart && i < tp->regions.count; i++)
        ret->regions +=
            ((const struct sim_region *)tp_table_at(&tp->regions, i))->common.id != 0;
    sim_unlock(root);
}

static uint64_t sim_now(struct tp *tp)
{
    return tp->world == NULL ? tp->alone_ns : sim_now_ns(tp->world);
}

/* ---- beside the table (sim.h) -------------------------------------------- */

uint64_t sim_gets_done_ns(const struct tp *tp)
{
    /* The endpoint's own thread's, like its user pointer: no lock. */
    return tp->gets_done_ns;
}

void sim_user_set(struct tp *tp, void *user)
{
    tp->user = user;
}

void *sim_user(const struct tp *tp)
{
    return tp->user;
}

/* The two differ in nothing but what open says and in `mapped`. */
#define SIM_TABLE(name_, mapped_, open_)                                               \
    {                                                                                  \
        .name = (name_), .mapped = (mapped_), .open = (open_), .close = sim_close,     \
        .region_new = sim_region_new, .region_free = sim_region_free,                  \
        .region_split = transport_region_split, .scratch = transport_scratch_none,     \
        .bind_memory = transport_bind_memory_none,                                     \
        .loopback = transport_loopback_none, .listen = sim_listen,                     \
        .connect = sim_connect, .drop = sim_drop, .send_control = sim_send_control,    \
        .grant = sim_grant, .window = sim_window, .put = sim_put, .get = sim_get,      \
        .notify = sim_notify, .poll = sim_poll, .now_ns = sim_now,                     \
        .describe = sim_describe, .last_error = sim_last_error, .count = sim_count,    \
    }

const struct transport transport_sim = SIM_TABLE("sim", true, sim_open);
const struct transport transport_simnet = SIM_TABLE("simnet", false, simnet_open);
