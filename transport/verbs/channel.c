/* The verbs transport: lanes and peers, how they begin and how they end.
 *
 *   MAKING ── GREETED ── WAITING ── LIVE ──┬── LEAVING ──┐
 *      └─────────┴──────────┴──────────────┴─────────────┴── ENDING ── FREE
 *
 * An ENDING lane is disconnected: its queue pair gives back every request, after what
 * it had received. When all lanes of a peer are empty, TP_DOWN is delivered.
 */
#include "transport/verbs/verbs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* The least that bandwidth wants: pieces and notes of a client under way. */
#define CLIENT_DEPTH 512u
#define SENDS (VERBS_FRAMES + VERBS_SPARE)
/* Behind the frames, what a beat reads. */
#define SCRATCH 64u

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

void verbs_lane_needs(const struct tp *tp, const struct ibv_device_attr *attr,
                      uint32_t *ret_receives, uint32_t *ret_depth)
{
    uint32_t most = attr->max_qp_wr > 0 ? (uint32_t)attr->max_qp_wr : 1024;
    uint32_t notes = tp->role == VERBS_CLIENT
                         ? VERBS_CLIENT_NOTES
                         : tp->config.notes_max + tp->config.notes_max / 2 + 1;
    uint32_t depth = tp->role == VERBS_CLIENT ? CLIENT_DEPTH
                                              : notes + VERBS_FRAMES + 2 * VERBS_SPARE;

    *ret_receives = least(most, notes + VERBS_FRAMES + VERBS_SPARE);
    *ret_depth = least(most, depth);
}

struct verbs_lane *verbs_lane_new(struct tp *tp)
{
    struct verbs_lane *lane = NULL;
    uint32_t i, life = 0;

    for (i = 0; i < tp->lanes_max; i++)
        if (tp->lanes[i] == NULL || tp->lanes[i]->state == LANE_FREE)
            break;
    if (i == tp->lanes_max)
        return NULL;
    if (tp->lanes[i] == NULL)
        tp->lanes[i] = calloc(1, sizeof *tp->lanes[i]);
    lane = tp->lanes[i];
    if (lane == NULL)
        return NULL;
    life = lane->life + 1;
    *lane = (struct verbs_lane){.tp = tp,
                                .index = i,
                                .life = life,
                                .event = -1,
                                .async = -1,
                                .chosen = "the client"};
    return lane;
}

void verbs_lane_state(struct verbs_lane *lane, enum verbs_lane_state state)
{
    bool was = lane->state != LANE_FREE && lane->state != LANE_LIVE;
    bool is = state != LANE_FREE && state != LANE_LIVE;

    lane->tp->busy_lanes += (is ? 1u : 0u) - (was ? 1u : 0u);
    lane->state = state;
}

/* ---- making -------------------------------------------------------------- */

static int lane_buffers(struct verbs_lane *lane, struct gapless_error *error)
{
    /* Over iWARP a READ, which a beat may be, is answered by a write. */
    unsigned access = IBV_ACCESS_LOCAL_WRITE |
                      (lane->nic->iwarp ? (unsigned)IBV_ACCESS_REMOTE_WRITE : 0);
    size_t bytes = (size_t)(lane->receives + SENDS) * VERBS_FRAME_BYTES + SCRATCH;
    uint32_t i;

    lane->frames = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    lane->spare_frame = calloc(SENDS, sizeof *lane->spare_frame);
    lane->sent = calloc(lane->depth, sizeof *lane->sent);
    lane->grant = calloc(lane->tp->config.windows_max, sizeof *lane->grant);
    lane->text = malloc(TP_TEXT_MAX);
    if (lane->frames == NULL || lane->spare_frame == NULL || lane->sent == NULL ||
        lane->grant == NULL || lane->text == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for a connection");
    memset(lane->frames, 0, bytes);
    for (i = 0; i < SENDS; i++)
        lane->spare_frame[i] = (uint16_t)i;
    lane->spare_frames = SENDS;
    errno = 0;
    lane->mr = ibv_reg_mr(lane->pd, lane->frames, bytes, access);
    if (lane->mr == NULL)
        return verbs_memory_error(bytes, errno == 0 ? ENOMEM : errno, error);
    lane->tp->counters.regions++;
    return GAPLESS_OK;
}

static int lane_pair(struct verbs_lane *lane, struct gapless_error *error)
{
    struct ibv_qp_init_attr attr = {
        .qp_context = lane,
        .send_cq = lane->nic->cq[lane->queue],
        .recv_cq = lane->nic->cq[lane->queue],
        .cap = {.max_send_sge = 1, .max_recv_sge = 1},
        .qp_type = IBV_QPT_RC,
    };
    int failed = -1, try;

    for (try = 0; try < 3 && failed != 0; try++) {
        /* libsiw takes it for a failure when the kernel happens to place the queue of
         * receives at offset 0x90000: of another size, the one before it moves it. */
        attr.cap.max_send_wr = try == 1 ? 2 * lane->depth : lane->depth;
        attr.cap.max_recv_wr = lane->receives;
        /* And a device may be without inline data. */
        attr.cap.max_inline_data = try == 2 ? 0 : VERBS_INLINE;
        errno = 0;
        failed = rdma_create_qp(lane->id, lane->pd, &attr);
    }
    if (failed != 0)
        return gapless_error_set(
            error, GAPLESS_CAPACITY, errno,
            "%s cannot make one more connection (it says at most %d): use fewer "
            "workers or lanes, or several masters",
            ibv_get_device_name(lane->nic->context->device), lane->nic->attr.max_qp);
    lane->qp = lane->id->qp;
    lane->inline_max = least(attr.cap.max_inline_data, VERBS_INLINE);
    return GAPLESS_OK;
}

int verbs_lane_open(struct verbs_lane *lane, struct gapless_error *error)
{
    struct tp *tp = lane->tp;
    uint32_t i;
    int status = verbs_nic_get(tp, lane->id, &lane->nic_at, error);

    if (status != GAPLESS_OK)
        return status;
    lane->nic = &tp->nic[lane->nic_at];
    verbs_lane_needs(tp, &lane->nic->attr, &lane->receives, &lane->depth);
    status = verbs_nic_queue(tp, lane->nic, lane->receives + lane->depth, &lane->queue,
                             error);
    if (status != GAPLESS_OK) {
        lane->nic = NULL;
        return status;
    }
    lane->pd = lane->nic->pd;
    lane->windows = lane->nic->windows && !tp->apart;
    if (tp->role == VERBS_SERVER && !lane->windows) {
        errno = 0;
        lane->pd = ibv_alloc_pd(lane->nic->context);
        if (lane->pd == NULL)
            return gapless_error_set(error, GAPLESS_CAPACITY, errno,
                                     "no protection domain for one more connection");
    }
    status = lane_buffers(lane, error);
    if (status == GAPLESS_OK)
        status = lane_pair(lane, error);
    for (i = 0; status == GAPLESS_OK && i < lane->receives; i++)
        if (verbs_receives_post(lane, &i, 1) != GAPLESS_OK)
            status = gapless_error_set(error, GAPLESS_SYSTEM, 0,
                                       "receives cannot be posted");
    return status;
}

/* ---- ending -------------------------------------------------------------- */

static bool lane_empty(const struct verbs_lane *lane)
{
    return lane->posted == 0 && lane->sent_count == 0;
}

void verbs_lane_end(struct verbs_lane *lane, const struct gapless_error *why)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};

    if (lane->state == LANE_FREE || lane->state == LANE_ENDING)
        return;
    if (why != NULL && lane->refusal.status == GAPLESS_OK)
        lane->refusal = *why;
    /* A lane that is greeted may be so before ESTABLISHED has been taken. */
    if (lane->qp == NULL || (!lane->connected && lane->state == LANE_MAKING)) {
        lane->posted = lane->sent_count = 0;
    } else if (rdma_disconnect(lane->id) != 0) {
        (void)ibv_modify_qp(lane->qp, &attr, IBV_QP_STATE);
    }
    verbs_lane_state(lane, LANE_ENDING);
    lane->deadline_ns = verbs_now_ns() + VERBS_DRAIN_NS;
    verbs_last(lane);
}

void verbs_peer_end(struct verbs_peer *peer, const struct gapless_error *why)
{
    uint32_t i;

    if (!peer->used)
        return;
    if (why != NULL && peer->why.status == GAPLESS_OK && !peer->said_bye)
        peer->why = *why;
    peer->ending = true;
    for (i = 0; i < peer->lane_count; i++)
        if (peer->lane[i] != NULL)
            verbs_lane_end(peer->lane[i], why);
}

void verbs_lane_free(struct verbs_lane *lane)
{
    struct tp *tp = lane->tp;
    uint32_t left, n;

    if (lane->state == LANE_FREE)
        return;
    verbs_lane_end(lane, NULL);
    verbs_grants_end(lane);
    if (lane->qp != NULL)
        rdma_destroy_qp(lane->id);
    if (lane->mr != NULL && ibv_dereg_mr(lane->mr) == 0)
        tp->counters.regions--;
    if (lane->pd != NULL && lane->pd != lane->nic->pd)
        (void)ibv_dealloc_pd(lane->pd);
    if (lane->id != NULL)
        (void)rdma_destroy_id(lane->id);
    if (lane->nic != NULL)
        lane->nic->cq_used[lane->queue] -= lane->receives + lane->depth;
    free(lane->frames);
    free(lane->spare_frame);
    free(lane->sent);
    free(lane->grant);
    free(lane->text);
    free(lane->queue_notes);
    lane->queue_notes = NULL;
    lane->frames = lane->text = NULL;
    lane->spare_frame = NULL;
    lane->sent = NULL;
    lane->grant = NULL;
    lane->mr = NULL;
    lane->qp = NULL;
    lane->pd = NULL;
    lane->id = NULL;
    lane->nic = NULL;
    lane->peer = NULL;
    lane->posted = lane->sent_count = 0;
    verbs_lane_state(lane, LANE_FREE);
    /* Some devices leave the completions of a queue pair that is gone in the queue,
     * where the next lane's have been given their room. */
    for (left = lane->receives + lane->depth; left > 0; left -= n < left ? n : left) {
        n = (uint32_t)verbs_drain(tp, 64);
        if (n == 0)
            break;
    }
}

/* The number is free for another. What it was granted is gone; its lanes stay until the
 * other side has heard of the end: a request to disconnect is taken back by the
 * connection manager when its connection is destroyed too soon. */
void verbs_peer_free(struct verbs_peer *peer)
{
    uint32_t i;

    for (i = 0; i < VERBS_LANES; i++)
        if (peer->lane[i] != NULL) {
            verbs_lane_end(peer->lane[i], NULL);
            verbs_grants_end(peer->lane[i]);
            peer->lane[i]->peer = NULL;
        }
    memset(peer->lane, 0, sizeof(struct verbs_lane *) * VERBS_LANES);
    peer->used = peer->up = peer->ending = peer->dropped = false;
    peer->lane_count = peer->early_count = 0;
    peer->life++;
}

static bool peer_empty(const struct verbs_peer *peer, uint64_t now_ns)
{
    uint32_t i;

    for (i = 0; i < peer->lane_count; i++) {
        const struct verbs_lane *lane = peer->lane[i];

        if (lane != NULL && (lane->state != LANE_ENDING ||
                             (!lane_empty(lane) && now_ns < lane->deadline_ns)))
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

static void tidy_lane(struct verbs_lane *lane, uint64_t now_ns)
{
    bool late = now_ns >= lane->deadline_ns;
    struct gapless_error why = {0};

    switch (lane->state) {
    case LANE_MAKING:
    case LANE_GREETED:
    case LANE_WAITING:
        if (!late)
            return;
        (void)gapless_error_set(&why, GAPLESS_TIMEOUT, 0,
                                "%s did not finish its greeting in time", lane->name);
        if (lane->peer != NULL)
            verbs_peer_end(lane->peer, &why);
        else
            verbs_lane_end(lane, &why);
        return;
    case LANE_LEAVING:
        if (late || lane->sent_count == 0)
            verbs_lane_end(lane, NULL);
        return;
    case LANE_ENDING:
        if (lane->peer == NULL &&
            (late || (lane_empty(lane) && (lane->disconnected || !lane->connected))))
            verbs_lane_free(lane);
        return;
    case LANE_FREE:
    case LANE_LIVE:
        return;
    }
}

void verbs_tidy(struct tp *tp, uint64_t now_ns)
{
    uint32_t i;

    if (tp->busy_lanes == 0)
        return;
    for (i = 0; i < tp->lanes_max; i++) /* a client that connects keeps its own time */
        if (tp->lanes[i] != NULL &&
            (tp->role == VERBS_SERVER || tp->lanes[i]->state == LANE_ENDING))
            tidy_lane(tp->lanes[i], now_ns);
    tidy_peers(tp, now_ns);
    if (tp->role == VERBS_SERVER)
        verbs_hand_seats(tp);
}

/* Says that this end is in order. */
static void peer_bye(struct verbs_peer *peer)
{
    struct verbs_frame frame = {.kind = VERBS_BYE};

    if (peer->lane[0] != NULL && peer->lane[0]->state == LANE_LIVE)
        (void)verbs_frame_send(peer->lane[0], &frame, false);
}

/* Waits until what was posted has arrived, or the bound has passed. */
static void peer_flush(struct verbs_peer *peer)
{
    struct tp *tp = peer->lane[0]->tp;
    uint64_t end = verbs_now_ns() + VERBS_FLUSH_NS;
    bool busy = true;
    uint32_t i;

    for (i = 0; i < peer->lane_count; i++)
        if (peer->lane[i] != NULL && peer->lane[i]->state == LANE_LIVE &&
            peer->lane[i]->sent_count > 0)
            verbs_beat(peer->lane[i], 0);
    while (busy && verbs_now_ns() < end) {
        busy = false;
        (void)verbs_drain(tp, 64);
        for (i = 0; i < peer->lane_count; i++)
            busy =
                busy || (peer->lane[i] != NULL && peer->lane[i]->state == LANE_LIVE &&
                         peer->lane[i]->sent_count > 0);
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
