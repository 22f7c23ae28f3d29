/* Simulated transport: endpoints of one process on a virtual clock, over a modelled
 * link. Read sim.h for what takes how long, and sim_world.h for how it is kept; the
 * table at the end of this file is what the engine sees.
 *
 * put moves nothing: a window is the server's memory, as with shared memory. What takes
 * time is the note, whose delivery is entered for when all bytes would have arrived.
 */
#include "transport/sim_world.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define NOTES_DEFAULT 64u
#define WINDOWS_DEFAULT 4u
/* About 30 years: keeps what a nonsensical rate gives within an integer. */
#define LONGEST_NS 1e18

/* ---- open and close ------------------------------------------------------------- */

static int config_check(const struct tp_config *given, struct tp_config *ret,
                        struct gapless_error *error)
{
    struct tp_config config = given != NULL ? *given : (struct tp_config){0};

    if (config.peers_max == 0)
        config.peers_max = 1;
    if (config.notes_max == 0)
        config.notes_max = NOTES_DEFAULT;
    if (config.windows_max == 0)
        config.windows_max = WINDOWS_DEFAULT;
    if (config.peers_max > SIM_PEERS_MAX || config.notes_max > SIM_NOTES_MAX ||
        config.windows_max > SIM_WINDOWS_MAX)
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "a simulated master serves at most %u peers with %u notes and %u windows "
            "each",
            SIM_PEERS_MAX, SIM_NOTES_MAX, SIM_WINDOWS_MAX);
    *ret = config;
    return GAPLESS_OK;
}

static void tp_free(struct tp *tp)
{
    while (tp->held != NULL) {
        struct sim_text *text = tp->held;

        tp->held = text->next;
        free(text);
    }
    free(tp->items);
    free(tp->regions);
    free(tp->windows);
    free(tp->over);
    free(tp->peers);
    free(tp);
}

static int sim_open(const struct tp_config *given, struct tp **ret,
                    struct gapless_error *error)
{
    struct tp_config config = {0};
    struct tp *tp;
    int status;

    status = config_check(given, &config, error);
    if (status != GAPLESS_OK)
        return status;
    tp = calloc(1, sizeof *tp);
    if (tp == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory to open sim");
    tp->config = config;
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
    /* From here on nobody connects to us. */
    root = sim_lock(tp);
    for (uint32_t i = 0; i < tp->config.peers_max; i++) {
        if (tp->peers[i].state == SIM_LIVE)
            sim_peer_cut(root, tp, i);
    }
    if (root != NULL)
        sim_queue_purge(root, tp, UINT32_MAX);
    for (uint32_t i = 0; i < tp->region_count; i++)
        sim_memory_release(tp->regions[i].memory);
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

/* ---- regions -------------------------------------------------------------------- */

void sim_memory_release(struct sim_memory *memory)
{
    if (memory == NULL || --memory->refs > 0)
        return;
    (void)munmap(memory->base, memory->bytes);
    free(memory);
}

int sim_region_add(struct tp *tp, const struct sim_region *region,
                   struct tp_region *ret, struct gapless_error *error)
{
    struct sim_region *regions;
    uint32_t at = 0;

    while (at < tp->region_count && tp->regions[at].id != 0)
        at++;
    if (at == tp->region_count) {
        size_t count = (size_t)tp->region_count * 2 + 8;

        regions = realloc(tp->regions, count * sizeof *regions);
        if (regions == NULL) {
            sim_memory_release(region->memory);
            return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                     "no memory for %zu regions", count);
        }
        memset(regions + tp->region_count, 0,
               (count - tp->region_count) * sizeof *regions);
        tp->regions = regions;
        tp->region_count = (uint32_t)count;
    }
    /* A number of its own, so that a handle kept after region_free is known as stale.
     */
    if (++tp->region_serial == 0)
        tp->region_serial = 1;
    tp->regions[at] = *region;
    tp->regions[at].id = tp->region_serial;
    *ret = (struct tp_region){
        .base = region->memory->base,
        .bytes = region->memory->bytes,
        .id = tp->region_serial,
        .handle = at,
    };
    return GAPLESS_OK;
}

static struct sim_region *region_find(struct tp *tp, const struct tp_region *region)
{
    if (region == NULL || region->id == 0 || region->handle >= tp->region_count ||
        tp->regions[region->handle].id != region->id)
        return NULL;
    return &tp->regions[region->handle];
}

static int sim_region_new(struct tp *tp, size_t bytes, struct tp_region *ret,
                          struct gapless_error *error)
{
    struct sim_memory *memory;
    int os;

    if (bytes == 0 || bytes > PTRDIFF_MAX)
        return gapless_error_set(error, GAPLESS_INVALID, 0, "a region of %zu bytes",
                                 bytes);
    memory = calloc(1, sizeof *memory);
    if (memory == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for a region");
    memory->bytes = bytes;
    memory->refs = 1;
    memory->base = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory->base == MAP_FAILED) {
        os = errno;
        free(memory);
        return gapless_error_set(error, GAPLESS_NO_MEMORY, os,
                                 "no memory for a region of %zu bytes; use a smaller "
                                 "model or fewer workers",
                                 bytes);
    }
    return sim_region_add(tp, &(struct sim_region){.memory = memory}, ret, error);
}

static void sim_region_free(struct tp *tp, struct tp_region *region)
{
    struct sim_region *entry = region_find(tp, region);
    struct sim_world *root;

    if (entry == NULL)
        return;
    root = sim_lock(tp);
    sim_memory_release(entry->memory);
    sim_unlock(root);
    *entry = (struct sim_region){0};
    *region = (struct tp_region){0};
}

/* ---- the control plane ---------------------------------------------------------- */

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

/* With the root locked. Sets *text to NULL if it was sent: then it is the receiver's.
 */
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

static int sim_say(struct tp *tp, tp_peer index, const void *data, uint32_t bytes,
                   struct gapless_error *error)
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
                      uint32_t window, enum tp_access access,
                      struct gapless_error *error)
{
    struct sim_peer *peer = peer_find(tp, index);
    struct sim_window *there;

    if (peer != NULL && window >= peer->windows_max)
        return gapless_error_set(
            error, GAPLESS_CAPACITY, 0, "window %u: peer %u was promised %u windows",
            (unsigned)window, (unsigned)index, (unsigned)peer->windows_max);
    if (entry->granted && entry->access != access)
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "a region is granted either for reading or for writing; "
            "this one was granted for %s before",
            access == TP_READ ? "writing" : "reading");
    entry->granted = true;
    entry->access = access;
    if (peer == NULL)
        return not_connected(index, error);
    there = &peer->remote->peers[peer->remote_peer].windows[window];
    sim_memory_release(there->memory);
    there->memory = entry->memory;
    there->memory->refs++;
    there->access = access;
    return GAPLESS_OK;
}

static int sim_grant(struct tp *tp, tp_peer index, const struct tp_region *region,
                     uint32_t window, enum tp_access access,
                     struct gapless_error *error)
{
    struct sim_region *entry = region_find(tp, region);
    struct sim_world *root;
    int status;

    if (tp->role != SIM_SERVER || entry == NULL)
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "only a server can grant, and only a region of its own");
    root = sim_lock(tp);
    status = grant_give(tp, index, entry, window, access, error);
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

/* ---- the link ------------------------------------------------------------------- */

/* Bytes go through a port, behind those before them. Returns when the last is through.
 * Fractions of a ns are kept, so that many small puts take as long as one large. */
static uint64_t port_pass(struct sim_port *port, uint64_t start_ns, size_t bytes,
                          double rate)
{
    double time;

    if (start_ns > port->free_ns)
        *port = (struct sim_port){.free_ns = start_ns};
    if (rate > 0 && bytes > 0) {
        time = port->part + (double)bytes / rate;
        if (time > LONGEST_NS)
            time = LONGEST_NS;
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

/* When a put of `bytes` is there, and the server free to take it. */
static uint64_t put_time(struct sim_world *line, uint64_t now_ns, size_t bytes,
                         uint64_t not_before_ns)
{
    uint64_t at = sim_later(now_ns, line->link.latency_ns);

    if (bytes > 0) {
        at = port_pass(&line->in, now_ns, bytes, line->link.bytes_per_ns);
        at = sim_later(at, line->link.latency_ns);
        if (at < line->busy_ns)
            at = line->busy_ns;
    }
    if (at < not_before_ns)
        at = not_before_ns;
    if (bytes > 0)
        line->busy_ns = sim_later(at, line->link.pass_ns);
    return at;
}

/* ---- the data path -------------------------------------------------------------- */

static int note_send(struct sim_world *root, struct tp *tp, tp_peer index, size_t bytes,
                     uint32_t note)
{
    struct sim_peer *peer = peer_find(tp, index);
    struct sim_peer *there;
    struct sim_world *line;
    uint64_t leaves;

    if (peer == NULL)
        return index < tp->config.peers_max ? GAPLESS_PEER_LOST : GAPLESS_INVALID;
    there = &peer->remote->peers[peer->remote_peer];
    if (there->notes >= peer->notes_max)
        return GAPLESS_AGAIN;
    if (!sim_queue_room(peer->remote, 1))
        return GAPLESS_NO_MEMORY;
    line = line_of(tp, peer);
    leaves = root->now_ns;
    if (tp->role == SIM_SERVER)
        leaves = sim_later(leaves, line->link.pass_ns);
    there->notes++;
    there->note_ns = put_time(line, leaves, bytes, there->note_ns);
    if (there->last_ns < there->note_ns)
        there->last_ns = there->note_ns;
    sim_queue_add(root, peer->remote,
                  &(struct sim_item){.at_ns = there->note_ns,
                                     .kind = TP_NOTE,
                                     .peer = peer->remote_peer,
                                     .note = note});
    return GAPLESS_OK;
}

/* Is [offset, offset + bytes) inside a window of this peer that allows the access? */
static bool window_check(struct tp *tp, tp_peer index, const struct tp_region *window,
                         size_t offset, size_t bytes, enum tp_access access)
{
    const struct sim_region *entry = region_find(tp, window);

    return tp->role == SIM_CLIENT && entry != NULL && entry->opened &&
           entry->peer == index && index < tp->config.peers_max &&
           entry->generation == tp->peers[index].generation &&
           (access == TP_READ || entry->access == TP_READ_WRITE) &&
           offset <= entry->memory->bytes && bytes <= entry->memory->bytes - offset;
}

static int sim_put(struct tp *tp, tp_peer index, const struct tp_region *window,
                   size_t offset, size_t bytes, uint32_t note)
{
    struct sim_world *root = sim_lock(tp);
    int status = GAPLESS_INVALID;

    if (window_check(tp, index, window, offset, bytes,
                     bytes == 0 ? TP_READ : TP_READ_WRITE))
        status = note_send(root, tp, index, bytes, note);
    sim_unlock(root);
    return status;
}

static int sim_get(struct tp *tp, tp_peer index, const struct tp_region *window,
                   size_t offset, size_t bytes, uint32_t tag)
{
    struct sim_world *root = sim_lock(tp);
    struct sim_peer *peer = peer_find(tp, index);
    int status = GAPLESS_INVALID;

    (void)tag;
    if (window_check(tp, index, window, offset, bytes, TP_READ))
        status = peer != NULL ? GAPLESS_OK : GAPLESS_PEER_LOST;
    if (status == GAPLESS_OK) {
        struct sim_world *line = line_of(tp, peer);
        uint64_t asked = sim_later(root->now_ns, line->link.latency_ns);
        uint64_t there = port_pass(&line->out, asked, bytes, line->link.bytes_per_ns);

        there = sim_later(there, line->link.latency_ns);
        if (tp->settled_ns < there)
            tp->settled_ns = there;
    }
    sim_unlock(root);
    return status;
}

static int sim_notify(struct tp *tp, tp_peer index, uint32_t note)
{
    struct sim_world *root = sim_lock(tp);
    int status = note_send(root, tp, index, 0, note);

    sim_unlock(root);
    return status;
}

static uint64_t sim_now(struct tp *tp)
{
    return tp->world == NULL ? tp->alone_ns : sim_now_ns(tp->world);
}

/* ---- beside the table (sim.h) --------------------------------------------------- */

uint64_t sim_settled_ns(const struct tp *tp)
{
    /* The endpoint's own thread's, like its user pointer: no lock. */
    return tp->settled_ns;
}

void sim_user_set(struct tp *tp, void *user)
{
    tp->user = user;
}

void *sim_user(const struct tp *tp)
{
    return tp->user;
}

const struct transport transport_sim = {
    .name = "sim",
    .mapped = true,
    .open = sim_open,
    .close = sim_close,
    .region_new = sim_region_new,
    .region_free = sim_region_free,
    .listen = sim_listen,
    .connect = sim_connect,
    .drop = sim_drop,
    .say = sim_say,
    .grant = sim_grant,
    .window = sim_window,
    .put = sim_put,
    .get = sim_get,
    .notify = sim_notify,
    .poll = sim_poll,
    .now_ns = sim_now,
};
