/* The verbs transport: channels and peers, how they begin and how they end.
 *
 *   MAKING ── GREETED ── WAITING ── LIVE ──┬── LEAVING ──┐
 *      └─────────┴──────────┴──────────────┴─────────────┴── ENDING ── FREE
 *
 * An ENDING channel is disconnected: its queue pair gives back every request, after what
 * it had received. When all channels of a peer are empty, TP_DOWN is delivered.
 */
#include "transport/verbs/verbs.h"

#include "engine/base/array.h"
#include "engine/base/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The least that bandwidth wants: pieces and notes of a client under way. */
#define CLIENT_DEPTH 512u
#define SENDS (VERBS_FRAMES + VERBS_SPARE)
/* Behind the frames, what a keepalive reads. */
#define SCRATCH 64u

void verbs_channel_needs(const struct tp *tp, const struct ibv_device_attr *attr,
                         uint32_t *ret_receives, uint32_t *ret_depth)
{
    uint32_t most = attr->max_qp_wr > 0 ? (uint32_t)attr->max_qp_wr : 1024;
    uint32_t notes = tp->role == VERBS_CLIENT
                         ? VERBS_CLIENT_NOTES
                         : tp->config.notes_max + tp->config.notes_max / 2 + 1;
    uint32_t depth = tp->role == VERBS_CLIENT ? CLIENT_DEPTH
                                              : notes + VERBS_FRAMES + 2 * VERBS_SPARE;

    *ret_receives = u32_least(most, notes + VERBS_FRAMES + VERBS_SPARE);
    *ret_depth = u32_least(most, depth);
}

struct verbs_channel *verbs_channel_new(struct tp *tp)
{
    struct verbs_channel *channel = NULL;
    uint32_t i, life = 0;

    for (i = 0; i < tp->channels_max; i++)
        if (tp->channels[i] == NULL || tp->channels[i]->state == CHANNEL_FREE)
            break;
    if (i == tp->channels_max)
        return NULL;
    if (tp->channels[i] == NULL)
        tp->channels[i] = calloc(1, sizeof *tp->channels[i]);
    channel = tp->channels[i];
    if (channel == NULL)
        return NULL;
    life = channel->life + 1;
    *channel = (struct verbs_channel){.tp = tp,
                                      .index = i,
                                      .life = life,
                                      .event = -1,
                                      .async = -1,
                                      .chosen = "the client"};
    return channel;
}

void verbs_channel_state(struct verbs_channel *channel, enum verbs_channel_state state)
{
    bool was = channel->state != CHANNEL_FREE && channel->state != CHANNEL_LIVE;
    bool is = state != CHANNEL_FREE && state != CHANNEL_LIVE;

    channel->tp->busy_channels += (is ? 1u : 0u) - (was ? 1u : 0u);
    channel->state = state;
}

/* ---- making -------------------------------------------------------------- */

static int channel_buffers(struct verbs_channel *channel, struct gapless_error *error)
{
    /* Over iWARP a READ, which a keepalive may be, is answered by a write. */
    unsigned access = IBV_ACCESS_LOCAL_WRITE |
                      (channel->nic->iwarp ? (unsigned)IBV_ACCESS_REMOTE_WRITE : 0);
    size_t bytes = (size_t)(channel->receives + SENDS) * VERBS_FRAME_BYTES + SCRATCH;
    uint32_t i;

    channel->frames = array_zeroed(4096, bytes);
    channel->spare_frame = calloc(SENDS, sizeof *channel->spare_frame);
    channel->sent = calloc(channel->depth, sizeof *channel->sent);
    channel->grant = calloc(channel->tp->config.windows_max, sizeof *channel->grant);
    channel->text = malloc(TP_TEXT_MAX);
    if (channel->frames == NULL || channel->spare_frame == NULL ||
        channel->sent == NULL || channel->grant == NULL || channel->text == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for a connection");
    for (i = 0; i < SENDS; i++)
        channel->spare_frame[i] = (uint16_t)i;
    channel->spare_frames = SENDS;
    errno = 0;
    channel->mr = ibv_reg_mr(channel->pd, channel->frames, bytes, access);
    if (channel->mr == NULL)
        return verbs_memory_error(bytes, errno == 0 ? ENOMEM : errno, error);
    channel->tp->counters.regions++;
    return GAPLESS_OK;
}

static int channel_pair(struct verbs_channel *channel, struct gapless_error *error)
{
    struct ibv_qp_init_attr attr = {
        .qp_context = channel,
        .send_cq = channel->nic->cq[channel->queue],
        .recv_cq = channel->nic->cq[channel->queue],
        .cap = {.max_send_sge = 1, .max_recv_sge = 1},
        .qp_type = IBV_QPT_RC,
    };
    int failed = -1, try;

    for (try = 0; try < 3 && failed != 0; try++) {
        /* libsiw takes it for a failure when the kernel happens to place the queue of
         * receives at offset 0x90000: of another size, the one before it moves it. */
        attr.cap.max_send_wr = try == 1 ? 2 * channel->depth : channel->depth;
        attr.cap.max_recv_wr = channel->receives;
        /* And a device may be without inline data. */
        attr.cap.max_inline_data = try == 2 ? 0 : VERBS_INLINE;
        errno = 0;
        failed = rdma_create_qp(channel->id, channel->pd, &attr);
    }
    if (failed != 0)
        return gapless_error_set(
            error, GAPLESS_CAPACITY, errno,
            "%s cannot make one more connection (it says at most %d): use fewer "
            "workers or channels, or several masters",
            ibv_get_device_name(channel->nic->context->device),
            channel->nic->attr.max_qp);
    channel->qp = channel->id->qp;
    channel->inline_max = u32_least(attr.cap.max_inline_data, VERBS_INLINE);
    return GAPLESS_OK;
}

int verbs_channel_open(struct verbs_channel *channel, struct gapless_error *error)
{
    struct tp *tp = channel->tp;
    uint32_t i;
    int status = verbs_nic_get(tp, channel->id, &channel->nic_at, error);

    if (status != GAPLESS_OK)
        return status;
    channel->nic = &tp->nic[channel->nic_at];
    verbs_channel_needs(tp, &channel->nic->attr, &channel->receives, &channel->depth);
    status = verbs_nic_queue(tp, channel->nic, channel->receives + channel->depth,
                             &channel->queue, error);
    if (status != GAPLESS_OK) {
        channel->nic = NULL;
        return status;
    }
    channel->pd = channel->nic->pd;
    channel->windows = channel->nic->windows && !tp->apart;
    if (tp->role == VERBS_SERVER && !channel->windows) {
        errno = 0;
        channel->pd = ibv_alloc_pd(channel->nic->context);
        if (channel->pd == NULL)
            return gapless_error_set(error, GAPLESS_CAPACITY, errno,
                                     "no protection domain for one more connection");
    }
    status = channel_buffers(channel, error);
    if (status == GAPLESS_OK)
        status = channel_pair(channel, error);
    for (i = 0; status == GAPLESS_OK && i < channel->receives; i++)
        if (verbs_receives_post(channel, &i, 1) != GAPLESS_OK)
            status = gapless_error_set(error, GAPLESS_SYSTEM, 0,
                                       "receives cannot be posted");
    return status;
}

/* ---- ending -------------------------------------------------------------- */

static bool channel_empty(const struct verbs_channel *channel)
{
    return channel->posted == 0 && channel->sent_count == 0;
}

/* Whose connection was not let in, and why. */
static void note_refused(const struct verbs_channel *channel)
{
    struct tp *tp = channel->tp;
    const char *text = channel->refusal.text;
    bool named = strncmp(text, channel->name, strlen(channel->name)) == 0;

    if (tp->role != VERBS_SERVER || channel->peer != NULL || !channel->connected)
        return;
    tp->counters.refused++;
    (void)gapless_error_set(
        &tp->refused,
        channel->refusal.status == GAPLESS_OK ? GAPLESS_PROTOCOL
                                              : channel->refusal.status,
        0, "%s%s%s", named ? "" : channel->name, named ? "" : ": ",
        text[0] != '\0' ? text
                        : "it went, or sent what makes no sense, before it was let in");
}

void verbs_channel_end(struct verbs_channel *channel,
                       const struct gapless_error *reason)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};

    if (channel->state == CHANNEL_FREE || channel->state == CHANNEL_ENDING)
        return;
    if (reason != NULL && channel->refusal.status == GAPLESS_OK)
        channel->refusal = *reason;
    note_refused(channel);
    /* A channel that is greeted may be so before ESTABLISHED has been taken. */
    if (channel->qp == NULL ||
        (!channel->connected && channel->state == CHANNEL_MAKING)) {
        channel->posted = channel->sent_count = 0;
    } else if (rdma_disconnect(channel->id) != 0) {
        (void)ibv_modify_qp(channel->qp, &attr, IBV_QP_STATE);
    }
    verbs_channel_state(channel, CHANNEL_ENDING);
    channel->deadline_ns = clock_ns() + VERBS_DRAIN_NS;
    verbs_last(channel);
}

void verbs_peer_end(struct verbs_peer *peer, const struct gapless_error *reason)
{
    uint32_t i;

    if (!peer->used)
        return;
    if (reason != NULL && peer->reason.status == GAPLESS_OK && !peer->said_bye)
        peer->reason = *reason;
    peer->ending = true;
    for (i = 0; i < peer->channel_count; i++)
        if (peer->channel[i] != NULL)
            verbs_channel_end(peer->channel[i], reason);
}

void verbs_channel_free(struct verbs_channel *channel)
{
    struct tp *tp = channel->tp;
    uint32_t left, n;

    if (channel->state == CHANNEL_FREE)
        return;
    verbs_channel_end(channel, NULL);
    verbs_grants_end(channel);
    if (channel->qp != NULL)
        rdma_destroy_qp(channel->id);
    if (channel->mr != NULL && ibv_dereg_mr(channel->mr) == 0)
        tp->counters.regions--;
    if (channel->pd != NULL && channel->pd != channel->nic->pd)
        (void)ibv_dealloc_pd(channel->pd);
    if (channel->id != NULL)
        (void)rdma_destroy_id(channel->id);
    if (channel->nic != NULL)
        channel->nic->cq_used[channel->queue] -= channel->receives + channel->depth;
    free(channel->frames);
    free(channel->spare_frame);
    free(channel->sent);
    free(channel->grant);
    free(channel->text);
    free(channel->queue_notes);
    channel->queue_notes = NULL;
    channel->frames = channel->text = NULL;
    channel->spare_frame = NULL;
    channel->sent = NULL;
    channel->grant = NULL;
    channel->mr = NULL;
    channel->qp = NULL;
    channel->pd = NULL;
    channel->id = NULL;
    channel->nic = NULL;
    channel->peer = NULL;
    channel->posted = channel->sent_count = 0;
    verbs_channel_state(channel, CHANNEL_FREE);
    /* Some devices leave the completions of a queue pair that is gone in the queue,
     * where the next channel's have been given their room. */
    for (left = channel->receives + channel->depth; left > 0;
         left -= n < left ? n : left) {
        n = (uint32_t)verbs_drain(tp, 64);
        if (n == 0)
            break;
    }
}

/* The number is free for another. What it was granted is gone; its channels stay until the
 * other side has heard of the end: a request to disconnect is taken back by the
 * connection manager when its connection is destroyed too soon. */
void verbs_peer_free(struct verbs_peer *peer)
{
    uint32_t i;

    for (i = 0; i < VERBS_CHANNELS; i++)
        if (peer->channel[i] != NULL) {
            verbs_channel_end(peer->channel[i], NULL);
            verbs_grants_end(peer->channel[i]);
            peer->channel[i]->peer = NULL;
        }
    memset(peer->channel, 0, sizeof(struct verbs_channel *) * VERBS_CHANNELS);
    peer->used = peer->up = peer->ending = peer->dropped = false;
    peer->channel_count = peer->early_count = 0;
    peer->life++;
}

static bool peer_empty(const struct verbs_peer *peer, uint64_t now_ns)
{
    uint32_t i;

    for (i = 0; i < peer->channel_count; i++) {
        const struct verbs_channel *channel = peer->channel[i];

        if (channel != NULL &&
            (channel->state != CHANNEL_ENDING ||
             (!channel_empty(channel) && now_ns < channel->deadline_ns)))
            return false;
    }
    return true;
}

static void tidy_peers(struct tp *tp, uint64_t now_ns)
{
    uint32_t i;

    for (i = 0; i < tp->config.peers_max; i++) {
        struct verbs_peer *peer = &tp->peers[i];
        bool tell = peer->up && !peer->dropped;

        if (!peer->used || !peer->ending || !peer_empty(peer, now_ns))
            continue;
        verbs_peer_free(peer);
        if (tell)
            verbs_emit(tp, &(struct tp_event){.kind = TP_DOWN, .peer = i});
    }
}

static void tidy_channel(struct verbs_channel *channel, uint64_t now_ns)
{
    bool late = now_ns >= channel->deadline_ns;
    struct gapless_error reason = {0};

    switch (channel->state) {
    case CHANNEL_MAKING:
    case CHANNEL_GREETED:
    case CHANNEL_WAITING:
        if (!late)
            return;
        (void)gapless_error_set(&reason, GAPLESS_TIMEOUT, 0,
                                "%s did not finish its greeting in time",
                                channel->name);
        if (channel->peer != NULL)
            verbs_peer_end(channel->peer, &reason);
        else
            verbs_channel_end(channel, &reason);
        return;
    case CHANNEL_LEAVING:
        if (late || channel->sent_count == 0)
            verbs_channel_end(channel, NULL);
        return;
    case CHANNEL_ENDING:
        if (channel->peer == NULL &&
            (late || (channel_empty(channel) &&
                      (channel->disconnected || !channel->connected))))
            verbs_channel_free(channel);
        return;
    case CHANNEL_FREE:
    case CHANNEL_LIVE:
        return;
    }
}

void verbs_tidy(struct tp *tp, uint64_t now_ns)
{
    uint32_t i;

    if (tp->busy_channels == 0)
        return;
    for (i = 0; i < tp->channels_max;
         i++) /* a client that connects keeps its own time */
        if (tp->channels[i] != NULL &&
            (tp->role == VERBS_SERVER || tp->channels[i]->state == CHANNEL_ENDING))
            tidy_channel(tp->channels[i], now_ns);
    tidy_peers(tp, now_ns);
    if (tp->role == VERBS_SERVER)
        verbs_handshake_peer_slots(tp);
}

/* Says that this end is in order. */
static void peer_bye(struct verbs_peer *peer)
{
    struct verbs_frame frame = {.kind = VERBS_BYE};

    if (peer->channel[0] != NULL && peer->channel[0]->state == CHANNEL_LIVE)
        (void)verbs_frame_send(peer->channel[0], &frame, false);
}

/* Has something to say or to hear before it ends: what was posted arrives; and while
 * ESTABLISHED is under way, rdma_disconnect would tell the other side nothing (Linux
 * returns 0 all the same). */
static bool is_busy(const struct verbs_channel *channel)
{
    return channel != NULL && channel->state == CHANNEL_LIVE &&
           (channel->sent_count > 0 || !channel->established);
}

/* Waits until nothing of it is busy, or the bound has passed. */
static void peer_flush(struct verbs_peer *peer)
{
    struct tp *tp = peer->channel[0]->tp;
    uint64_t end = clock_ns() + VERBS_FLUSH_NS;
    bool busy = true;
    uint32_t i;

    for (i = 0; i < peer->channel_count; i++)
        if (peer->channel[i] != NULL && peer->channel[i]->state == CHANNEL_LIVE &&
            peer->channel[i]->sent_count > 0)
            verbs_keepalive(peer->channel[i], 0);
    while (busy && clock_ns() < end) {
        busy = false;
        (void)verbs_drain(tp, 64);
        verbs_cm_take(tp);
        for (i = 0; i < peer->channel_count; i++)
            busy = busy || is_busy(peer->channel[i]);
    }
}

void verbs_drop(struct tp *tp, tp_peer index)
{
    struct verbs_peer *peer;

    if (index >= tp->config.peers_max || !tp->peers[index].up)
        return;
    peer = &tp->peers[index];
    peer->dropped = true;
    peer->up = false;
    verbs_emit_forget(tp, index);
    if (!peer->ending) {
        peer_bye(peer);
        peer_flush(peer);
    }
    verbs_peer_end(peer, NULL);
}
