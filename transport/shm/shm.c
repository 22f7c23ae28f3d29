/* Shared memory transport: processes of one host and one user, and threads of one
 * process. The reference that other transports are compared with. Read shm.h first; the
 * table at the end of this file is what the engine sees.
 *
 * put moves nothing: a window is the server's memory. It pushes a note into a ring and
 * sets a bit in the server's doorbell; the server's poll reads one word of bits for 64
 * peers and looks only at rings that have something. Neither makes a system call,
 * unless the other side sleeps. The server's thread makes none for the control plane
 * either (listener.c), except say, grant and drop.
 */
#include "transport/shm/shm.h"

#include "engine/base/array.h"
#include "engine/base/clock.h"
#include "engine/base/process.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- open and close ------------------------------------------------------ */

static uint32_t power_of_two(uint32_t least)
{
    uint32_t power = 1;

    while (power < least)
        power *= 2;
    return power;
}

static int config_check(const struct tp_config *given, struct tp_config *ret,
                        struct gapless_error *error)
{
    static const struct tp_limits limits = {"shared memory", SHM_PEERS_MAX,
                                            SHM_NOTES_MAX, SHM_WINDOWS_MAX};
    int status = transport_config(given, &limits, ret, error);

    if (status == GAPLESS_OK)
        ret->notes_max = power_of_two(ret->notes_max);
    return status;
}

static void region_close(struct shm_region *entry)
{
    if (entry->common.id == 0)
        return;
    shm_memory_unmap(entry->base, entry->bytes);
    shm_close_fd(&entry->fd);
    shm_close_fd(&entry->tail);
    shm_close_fd(&entry->source);
    *entry = (struct shm_region){0};
}

static void shm_close(struct tp *tp)
{
    if (tp == NULL)
        return;
    /* Of a forked child's copy the connections go on: they are the parent's. */
    if (process_is(tp->owner))
        shm_listener_close(tp);
    else
        shm_listener_free(tp);
    for (uint32_t i = 0; tp->peers != NULL && i < tp->config.peers_max; i++)
        if (process_is(tp->owner))
            shm_peer_clear(tp, &tp->peers[i]);
        else
            shm_peer_free(tp, &tp->peers[i]);
    for (uint32_t i = 0; i < tp->regions.count; i++)
        region_close(tp_table_at(&tp->regions, i));
    shm_memory_unmap(tp->doorbell, sizeof *tp->doorbell);
    shm_close_fd(&tp->doorbell_fd);
    free(tp->regions.entries);
    free(tp->windows);
    free(tp->mails);
    free(tp->over);
    free(tp->pending);
    free(tp->peers);
    free(tp);
}

static int shm_open(const struct tp_config *given, struct tp **ret,
                    struct gapless_error *error)
{
    struct tp_config config;
    struct tp *tp;
    void *doorbell;
    int status;

    status = config_check(given, &config, error);
    if (status != GAPLESS_OK)
        return status;
    tp = array_zeroed(RING_LINE, sizeof *tp);
    if (tp == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory to open shm");
    tp->config = config;
    tp->owner = process_number();
    tp->regions.entry_bytes = sizeof(struct shm_region);
    tp->doorbell_fd = tp->epoll_fd = tp->listen_fd = tp->stop_fd = -1;
    for (uint32_t i = 0; i < SHM_PENDING_CONNS; i++)
        tp->pending_conns[i].fd = -1;
    tp->words = (config.peers_max + 63) / 64;
    /* A client with one connection makes do with eight. */
    tp->mail_count = config.peers_max > SHM_MAILS / 8
                         ? SHM_MAILS
                         : power_of_two(8 * config.peers_max);
    tp->peers = calloc(config.peers_max, sizeof *tp->peers);
    tp->pending = calloc(tp->words, sizeof *tp->pending);
    tp->over = calloc(config.peers_max, sizeof *tp->over);
    tp->mails = calloc(tp->mail_count, sizeof *tp->mails);
    if (tp->peers == NULL || tp->pending == NULL || tp->over == NULL ||
        tp->mails == NULL) {
        status =
            gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for %u peers",
                              (unsigned)config.peers_max);
        goto close_tp;
    }
    for (uint32_t i = 0; i < config.peers_max; i++)
        tp->peers[i].fd = tp->peers[i].process_fd = -1;
    status = shm_memory_new("gapless-doorbell", sizeof *tp->doorbell, &tp->doorbell_fd,
                            &doorbell, error);
    if (status != GAPLESS_OK)
        goto close_tp;
    tp->doorbell = doorbell;
    *ret = tp;
    return GAPLESS_OK;

close_tp:
    shm_close(tp);
    return status;
}

static int shm_listen(struct tp *tp, const char *address, struct gapless_error *error)
{
    int status;

    if (tp->role != SHM_NEITHER)
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "this endpoint listens or connects already; open another");
    status = shm_listen_socket(address, &tp->address, &tp->address_inode,
                               &tp->listen_fd, error);
    if (status != GAPLESS_OK)
        return status;
    tp->role = SHM_SERVER;
    status = shm_listener_open(tp, error);
    if (status != GAPLESS_OK) {
        shm_listener_close(tp);
        tp->role = SHM_NEITHER;
    }
    return status;
}

/* ---- regions ------------------------------------------------------------- */

int shm_region_add(struct tp *tp, const struct shm_region *region,
                   struct tp_region *ret, struct gapless_error *error)
{
    int status = tp_table_add(&tp->regions, region, ret, error);

    if (status == GAPLESS_OK) {
        ret->base = region->base;
        ret->bytes = region->bytes;
    }
    return status;
}

static int shm_region_new(struct tp *tp, size_t bytes, struct tp_region *ret,
                          struct gapless_error *error)
{
    struct shm_region region = {.fd = -1, .tail = -1, .source = -1, .bytes = bytes};
    int status;

    if (bytes == 0 || bytes > PTRDIFF_MAX)
        return gapless_error_set(error, GAPLESS_INVALID, 0, "a region of %zu bytes",
                                 bytes);
    status = shm_memory_new("gapless-region", bytes, &region.fd, &region.base, error);
    if (status != GAPLESS_OK)
        return status;
    status = shm_region_add(tp, &region, ret, error);
    if (status != GAPLESS_OK) {
        shm_memory_unmap(region.base, bytes);
        shm_close_fd(&region.fd);
    }
    return status;
}

static void shm_region_free(struct tp *tp, struct tp_region *region)
{
    struct shm_region *entry = tp_table_find(&tp->regions, region);

    if (entry == NULL)
        return;
    region_close(entry);
    *region = (struct tp_region){0};
}

/* Pages have one access each: those before the page that the split is in are the first
 * memory. */
static int region_halve(struct shm_region *entry, size_t split,
                        struct gapless_error *error)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), head = split / page * page;
    int status = GAPLESS_OK;

    if (entry->tail >= 0 || head == 0 || head >= entry->bytes)
        return GAPLESS_OK;
    status = shm_memory_split(entry->fd, entry->base, entry->bytes, head, &entry->tail,
                              error);
    if (status == GAPLESS_OK)
        entry->head = head;
    return status;
}

static int shm_region_split(struct tp *tp, struct tp_region *region, size_t split,
                            struct gapless_error *error)
{
    struct shm_region *entry = tp_table_find(&tp->regions, region);
    int status;

    if (entry == NULL || entry->fd < 0 || entry->common.granted || entry->tail >= 0)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "only a new region of one's own can be split");
    status = transport_region_split(tp, region, split, error);
    return status == GAPLESS_OK ? region_halve(entry, split, error) : status;
}

/* ---- the control plane, from the polling thread -------------------------- */

static void peer_ring(struct shm_peer *peer)
{
    if (doorbell_ring(peer->doorbell, peer->doorbell_bit))
        shm_futex_wake(peer->doorbell);
}

/* A frame to a peer. A server never waits for one who does not read: it ends there. */
static int peer_send(struct tp *tp, tp_peer index, const struct shm_frame *head,
                     const void *data, uint32_t bytes, const int *fds, int fd_count,
                     struct gapless_error *error)
{
    struct shm_peer *peer = shm_peer_find(tp, index);
    int status;

    if (peer == NULL)
        return gapless_error_set(error, GAPLESS_PEER_LOST, 0,
                                 "peer %u is not connected", (unsigned)index);
    status = shm_frame_send(peer->fd, head, data, bytes, fds, fd_count);
    if (status == GAPLESS_OK) {
        if (tp->role == SHM_SERVER) {
            flag_word_publish(&peer->control->said, ++peer->frames);
            peer_ring(peer);
        }
        return GAPLESS_OK;
    }
    if (status == GAPLESS_SYSTEM)
        return gapless_error_set(error, GAPLESS_SYSTEM, errno,
                                 "cannot send a control message to peer %u",
                                 (unsigned)index);
    if (status == GAPLESS_AGAIN && tp->role == SHM_CLIENT)
        return gapless_error_set(
            error, GAPLESS_AGAIN, 0,
            "the master has not read earlier control messages yet");
    if (status == GAPLESS_AGAIN)
        flag_word_publish(&peer->reason, SHM_REASON_DEAF);
    /* The listener sees the end and TP_DOWN follows. */
    (void)shutdown(peer->fd, SHUT_RDWR);
    return gapless_error_set(error, GAPLESS_PEER_LOST, 0,
                             status == GAPLESS_AGAIN
                                 ? "peer %u does not read its control messages and was "
                                   "disconnected"
                                 : "peer %u has gone",
                             (unsigned)index);
}

static int shm_send_control(struct tp *tp, tp_peer index, const void *data,
                            uint32_t bytes, struct gapless_error *error)
{
    struct shm_frame head = shm_frame(SHM_TEXT, 0, 0);

    if (bytes > TP_TEXT_MAX || (data == NULL && bytes != 0))
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "a control message of %u bytes; at most %u", bytes,
                                 TP_TEXT_MAX);
    return peer_send(tp, index, &head, data, bytes, NULL, 0, error);
}

/* Seals it for one access for ever. */
static int region_seal(struct shm_region *entry, enum tp_access access, size_t split,
                       struct gapless_error *error)
{
    int status = GAPLESS_OK, os;

    if (entry->common.granted)
        return GAPLESS_OK;
    if (access == TP_SPLIT)
        status = region_halve(entry, split, error);
    if (status != GAPLESS_OK)
        return status;
    os = shm_memory_seal(
        entry->fd, access == TP_READ || entry->tail >= 0 ? TP_READ : TP_READ_WRITE);
    if (os == 0 && entry->tail >= 0)
        os = shm_memory_seal(entry->tail, TP_READ_WRITE);
    if (os != 0)
        return gapless_error_set(error, GAPLESS_SYSTEM, os,
                                 "cannot seal memory before granting it");
    entry->common.granted = true;
    entry->common.access = access;
    entry->common.split = split;
    return GAPLESS_OK;
}

static int shm_grant(struct tp *tp, tp_peer index, const struct tp_region *region,
                     uint32_t window, enum tp_access access,
                     struct gapless_error *error)
{
    struct shm_region *entry = tp_table_find(&tp->regions, region);
    struct shm_peer *peer = shm_peer_find(tp, index);
    struct shm_frame head = shm_frame(SHM_GRANT, window, access);
    size_t split = access == TP_SPLIT && region != NULL ? region->split : 0;
    int status;

    if (tp->role != SHM_SERVER || entry == NULL)
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "only a server can grant, and only a region of its own");
    if (peer != NULL && window >= peer->windows_max)
        return gapless_error_set(
            error, GAPLESS_CAPACITY, 0, "window %u: peer %u was promised %u windows",
            (unsigned)window, (unsigned)index, (unsigned)peer->windows_max);
    status = tp_grant_check(&entry->common, entry->bytes, access, split, error);
    if (status == GAPLESS_OK)
        status = region_seal(entry, access, split, error);
    if (status != GAPLESS_OK)
        return status;
    head.c = entry->bytes;
    head.d = entry->head;
    if (access == TP_SPLIT && entry->tail < 0)
        head.b = TP_READ_WRITE; /* the split is in the first page */
    return peer_send(tp, index, &head, NULL, 0, (const int[]){entry->fd, entry->tail},
                     head.b == TP_SPLIT ? 2 : 1, error);
}

static void shm_drop(struct tp *tp, tp_peer index)
{
    struct shm_peer *peer;

    if (index >= tp->config.peers_max || !tp->peers[index].up)
        return;
    peer = &tp->peers[index];
    if (tp->role == SHM_SERVER) {
        /* What was sent stays readable for the peer. The listener sees the end and posts
         * DOWN, which poll swallows; until then the number is not used again. */
        peer->dropped = true;
        (void)shutdown(peer->fd, SHUT_RDWR);
        return;
    }
    if (peer->gone && flag_word_read(&peer->state) == SHM_LIVE)
        tp->gone_count--;
    shm_peer_forget(peer);
    shm_peer_clear(tp, peer);
}

/* ---- the data path ------------------------------------------------------- */

static int peer_note(struct tp *tp, tp_peer index, uint32_t note)
{
    struct shm_peer *peer = shm_peer_find(tp, index);

    if (peer == NULL)
        return index < tp->config.peers_max ? GAPLESS_PEER_LOST : GAPLESS_INVALID;
    switch (ring_put(&peer->out, note)) {
    case RING_OK:
        peer_ring(peer);
        return GAPLESS_OK;
    case RING_WAIT:
        return GAPLESS_AGAIN;
    case RING_BROKEN:
        break;
    }
    shm_peer_break(peer);
    return GAPLESS_PEER_LOST;
}

/* Is [offset, offset + bytes) inside a window of this peer that allows the access? */
static bool window_check(struct tp *tp, tp_peer index, const struct tp_region *window,
                         size_t offset, size_t bytes, enum tp_access access)
{
    const struct shm_region *entry = tp_table_find(&tp->regions, window);

    return tp->role == SHM_CLIENT && entry != NULL && entry->fd < 0 &&
           entry->common.peer == index && index < tp->config.peers_max &&
           entry->common.generation == tp->peers[index].generation &&
           (access == TP_READ || entry->common.access == TP_READ_WRITE ||
            (entry->common.access == TP_SPLIT && offset >= entry->head)) &&
           offset <= entry->bytes && bytes <= entry->bytes - offset;
}

static int shm_scratch(struct tp *tp, const struct tp_region *window, size_t offset,
                       size_t bytes, struct gapless_error *error)
{
    struct shm_region *entry = tp_table_find(&tp->regions, window);
    size_t page = (size_t)sysconf(_SC_PAGESIZE), from = offset / page * page, to;
    int os = 0;

    if (entry == NULL || entry->fd >= 0 || offset > entry->bytes ||
        bytes > entry->bytes - offset)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "a part of a window is needed that may be read");
    if (entry->common.access == TP_READ_WRITE)
        return GAPLESS_OK; /* there is nothing that it may not write */
    to = (offset + bytes + page - 1) / page * page;
    if (entry->source < 0 || to > entry->head)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "a part of a window is needed that may be read");
    /* Pages that were not written are the server's all the time, as it writes them. */
    if (!entry->scratch)
        os = shm_memory_private(entry->source, entry->base, from, to - from);
    else
        os = shm_memory_forget(entry->base, from, to - from);
    if (os != 0)
        return gapless_error_set(error, GAPLESS_SYSTEM, os,
                                 "cannot map %zu bytes for this process alone",
                                 to - from);
    entry->scratch = true;
    return GAPLESS_OK;
}

static int shm_put(struct tp *tp, tp_peer peer, const struct tp_region *window,
                   size_t offset, size_t bytes, uint32_t note)
{
    if (!window_check(tp, peer, window, offset, bytes,
                      bytes == 0 ? TP_READ : TP_READ_WRITE))
        return GAPLESS_INVALID;
    /* The bytes are there: the note's release makes them visible to who takes it. */
    return peer_note(tp, peer, note);
}

static int shm_get(struct tp *tp, tp_peer peer, const struct tp_region *window,
                   size_t offset, size_t bytes, uint32_t tag)
{
    (void)tag;
    if (!window_check(tp, peer, window, offset, bytes, TP_READ))
        return GAPLESS_INVALID;
    return shm_peer_find(tp, peer) != NULL ? GAPLESS_OK : GAPLESS_PEER_LOST;
}

static int shm_notify(struct tp *tp, tp_peer peer, uint32_t note)
{
    return peer_note(tp, peer, note);
}

static uint64_t shm_now(struct tp *tp)
{
    (void)tp;
    return clock_ns();
}

/* ---- looking at it ------------------------------------------------------- */

static size_t shm_describe(struct tp *tp, tp_peer index, char *ret, size_t bytes)
{
    (void)tp, (void)index;
    if (bytes > 0)
        ret[0] = '\0';
    return 0;
}

static const char *refusal_text(int status)
{
    switch (status) {
    case GAPLESS_REFUSED:
        return "a process of another user";
    case GAPLESS_VERSION:
        return "a process that is no gapless, or another version's";
    case GAPLESS_CAPACITY:
        return "there is no room for more peers";
    case GAPLESS_TIMEOUT:
        return "a process that did not greet in time, or for which no peer slot came "
               "free";
    default:
        return "a process whose greeting makes no sense";
    }
}

static void shm_last_error(struct tp *tp, tp_peer index, struct gapless_error *ret)
{
    static const char *const text[] = {
        [SHM_REASON_UNKNOWN] = NULL,
        [SHM_REASON_RING] = "it wrote nonsense into the memory that carries its notes, "
                            "and was disconnected: is it the same build of gapless?",
        [SHM_REASON_FRAME] = "it sent a control message that cannot be, and was "
                             "disconnected: is it the same build of gapless?",
        [SHM_REASON_DEAF] =
            "it did not read its control messages and was disconnected: "
            "it is stopped, or does not poll",
    };
    uint32_t reason = SHM_REASON_UNKNOWN;

    *ret = (struct gapless_error){0};
    if (index < tp->config.peers_max)
        reason = flag_word_read(&tp->peers[index].reason);
    else if (flag_word_read(&tp->refused) > 0)
        (void)gapless_error_set(
            ret, -(int)flag_word_read(&tp->refused_status), 0, "%s",
            refusal_text(-(int)flag_word_read(&tp->refused_status)));
    if (reason != SHM_REASON_UNKNOWN)
        (void)gapless_error_set(ret, GAPLESS_PEER_LOST, 0, "%s", text[reason]);
}

/* There are no requests: a put is a store. */
static void shm_count(struct tp *tp, struct tp_counters *ret)
{
    *ret = (struct tp_counters){.wakeups = tp->wakeups,
                                .refused = flag_word_read(&tp->refused)};
}

const struct transport transport_shm = {
    .name = "shm",
    .mapped = true,
    .open = shm_open,
    .close = shm_close,
    .region_new = shm_region_new,
    .region_free = shm_region_free,
    .region_split = shm_region_split,
    .scratch = shm_scratch,
    .bind_memory = transport_bind_memory_none,
    .loopback = transport_loopback_none,
    .listen = shm_listen,
    .connect = shm_connect,
    .drop = shm_drop,
    .send_control = shm_send_control,
    .grant = shm_grant,
    .window = shm_window,
    .put = shm_put,
    .get = shm_get,
    .notify = shm_notify,
    .poll = shm_poll,
    .now_ns = shm_now,
    .describe = shm_describe,
    .last_error = shm_last_error,
    .count = shm_count,
};
