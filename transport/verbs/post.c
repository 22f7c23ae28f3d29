/* The verbs transport: posting work. Every request has its place in the lane's ring, in
 * order; a completion of one says that all before it are done. */
#include "transport/verbs/verbs.h"

#include <string.h>

bool verbs_room(struct verbs_lane *lane, uint32_t requests)
{
    if (lane->depth - lane->sent_count >= requests)
        return true;
    (void)verbs_drain(lane->tp, 64);
    return lane->depth - lane->sent_count >= requests;
}

void verbs_request_add(struct verbs_lane *lane, struct ibv_send_wr *wr,
                       const struct verbs_sent *sent, bool signalled)
{
    uint32_t at = (lane->sent_head + lane->sent_count) % lane->depth;

    lane->sent[at] = *sent;
    lane->sent_count++;
    wr->wr_id = verbs_number(lane, at);
    if (signalled || ++lane->unsignalled >= lane->depth / 4) {
        wr->send_flags |= IBV_SEND_SIGNALED;
        lane->unsignalled = 0;
    }
}

int verbs_requests_post(struct verbs_lane *lane, struct ibv_send_wr *first,
                        uint32_t count)
{
    struct gapless_error why = {0};
    struct ibv_send_wr *bad = NULL;
    int failed = ibv_post_send(lane->qp, first, &bad);

    lane->tp->counters.doorbells++;
    lane->tp->counters.requests += count;
    if (failed == 0)
        return GAPLESS_OK;
    for (; bad != NULL; bad = bad->next)
        lane->sent_count--;
    (void)gapless_error_set(&why, GAPLESS_PEER_LOST, failed < 0 ? -failed : failed,
                            "work for %s cannot be posted", lane->name);
    if (lane->peer != NULL)
        verbs_peer_end(lane->peer, &why);
    else
        verbs_lane_end(lane, &why);
    return GAPLESS_PEER_LOST;
}

/* ---- receives and frames ------------------------------------------------- */

int verbs_receives_post(struct verbs_lane *lane, const uint32_t *buffers,
                        uint32_t count)
{
    struct ibv_recv_wr wr[VERBS_RECEIVES], *bad = NULL;
    struct ibv_sge sge[VERBS_RECEIVES];
    uint32_t i;

    for (i = 0; i < count; i++) {
        sge[i] = verbs_sge(lane->frames + (size_t)buffers[i] * VERBS_FRAME_BYTES,
                           VERBS_FRAME_BYTES, lane->mr);
        wr[i] = (struct ibv_recv_wr){.wr_id =
                                         verbs_number(lane, buffers[i]) | VERBS_RECEIVE,
                                     .next = i + 1 < count ? &wr[i + 1] : NULL,
                                     .sg_list = &sge[i],
                                     .num_sge = 1};
    }
    if (ibv_post_recv(lane->qp, wr, &bad) != 0) {
        for (; bad != NULL; bad = bad->next)
            count--;
        lane->posted += count;
        return GAPLESS_SYSTEM;
    }
    lane->posted += count;
    return GAPLESS_OK;
}

int verbs_receive_again(struct verbs_lane *lane, uint32_t buffer)
{
    lane->again[lane->again_count++] = buffer;
    if (lane->again_count < VERBS_RECEIVES)
        return GAPLESS_OK;
    lane->again_count = 0;
    return verbs_receives_post(lane, lane->again, VERBS_RECEIVES);
}

uint16_t verbs_frame_take(struct verbs_lane *lane, char **ret)
{
    uint16_t frame = lane->spare_frame[--lane->spare_frames];

    *ret = lane->frames + (size_t)(lane->receives + frame) * VERBS_FRAME_BYTES;
    return (uint16_t)(frame + 1);
}

int verbs_frame_send(struct verbs_lane *lane, const struct verbs_frame *frame,
                     bool needs_credit)
{
    size_t bytes = VERBS_FRAME_HEAD + frame->bytes;
    bool in_line = bytes <= lane->inline_max;
    struct ibv_send_wr wr = {.opcode = IBV_WR_SEND, .num_sge = 1};
    struct verbs_sent sent = {.what = VERBS_FRAME};
    struct ibv_sge sge;
    char *buffer;
    int status;

    if (lane->state == LANE_ENDING || lane->qp == NULL)
        return GAPLESS_PEER_LOST;
    if (!verbs_room(lane, 1) ||
        (needs_credit && lane->frames_out >= lane->frames_may) ||
        (!in_line && lane->spare_frames == 0))
        return GAPLESS_AGAIN;
    if (in_line) {
        sge = (struct ibv_sge){.addr = (uint64_t)(uintptr_t)frame,
                               .length = (uint32_t)bytes};
        wr.send_flags = IBV_SEND_INLINE;
    } else {
        sent.frame = verbs_frame_take(lane, &buffer);
        memcpy(buffer, frame, bytes);
        sge = verbs_sge(buffer, bytes, lane->mr);
    }
    wr.sg_list = &sge;
    verbs_request_add(lane, &wr, &sent, !in_line);
    status = verbs_requests_post(lane, &wr, 1);
    if (status == GAPLESS_OK && needs_credit)
        lane->frames_out++;
    return status;
}

void verbs_credit_give(struct verbs_lane *lane)
{
    struct verbs_frame frame = {.kind = VERBS_CREDIT, .bytes = sizeof frame.as.credit};

    if ((lane->notes_read < lane->notes_batch || lane->notes_read == 0) &&
        lane->frames_read < VERBS_FRAMES / 2)
        return;
    frame.as.credit =
        (struct verbs_credit){.notes = lane->notes_read, .frames = lane->frames_read};
    if (verbs_frame_send(lane, &frame, false) == GAPLESS_OK)
        lane->notes_read = lane->frames_read = 0;
}

static int texts_send(struct verbs_lane *lane, const char *data, uint32_t bytes)
{
    struct verbs_frame frame = {.kind = VERBS_TEXT};
    uint32_t at = 0, part;
    int status;

    do {
        part = bytes - at < VERBS_FRAME_DATA ? bytes - at : VERBS_FRAME_DATA;
        frame.bytes = (uint16_t)part;
        frame.last = at + part == bytes;
        if (part > 0)
            memcpy(frame.as.data, data + at, part);
        status = verbs_frame_send(lane, &frame, true);
        at += part;
    } while (status == GAPLESS_OK && at < bytes);
    return status;
}

int verbs_say(struct tp *tp, tp_peer index, const void *data, uint32_t bytes,
              struct gapless_error *error)
{
    uint32_t frames =
        bytes == 0 ? 1 : (bytes + VERBS_FRAME_DATA - 1) / VERBS_FRAME_DATA;
    struct verbs_peer *peer = verbs_peer_at(tp, index);
    struct gapless_error why = {0};
    struct verbs_lane *lane;

    if (bytes > TP_TEXT_MAX || (data == NULL && bytes != 0))
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "a control message of %u bytes; at most %u", bytes,
                                 TP_TEXT_MAX);
    if (peer == NULL)
        return gapless_error_set(error, GAPLESS_PEER_LOST, 0,
                                 "peer %u is not connected", index);
    lane = peer->lane[0];
    if (lane->frames_may - lane->frames_out < frames || lane->spare_frames < frames)
        (void)verbs_drain(tp, 64);
    if (lane->frames_may - lane->frames_out >= frames && lane->spare_frames >= frames &&
        verbs_room(lane, frames))
        return texts_send(lane, data, bytes) == GAPLESS_OK
                   ? GAPLESS_OK
                   : gapless_error_set(error, GAPLESS_PEER_LOST, 0,
                                       "the connection to %s broke", lane->name);
    if (tp->role == VERBS_CLIENT)
        return gapless_error_set(
            error, GAPLESS_AGAIN, 0,
            "the master has not read earlier control messages yet");
    (void)gapless_error_set(
        &why, GAPLESS_PEER_LOST, 0,
        "%s does not read its control messages and was disconnected", lane->name);
    verbs_peer_end(peer, &why);
    if (error != NULL)
        *error = why;
    return GAPLESS_PEER_LOST;
}

/* ---- windows and signs of life ------------------------------------------- */

int verbs_bind(struct verbs_lane *lane, struct ibv_mw *mw, struct ibv_mr *mr,
               void *base, size_t bytes, unsigned access)
{
    struct ibv_send_wr wr = {
        .opcode = IBV_WR_BIND_MW,
        .bind_mw = {.mw = mw,
                    .rkey = ibv_inc_rkey(mw->rkey),
                    .bind_info = {.mr = mr,
                                  .addr = (uint64_t)(uintptr_t)base,
                                  .length = bytes,
                                  .mw_access_flags = access}},
    };
    int status;

    if (!verbs_room(lane, 1))
        return GAPLESS_AGAIN;
    verbs_request_add(lane, &wr, &(struct verbs_sent){.what = VERBS_BIND}, true);
    status = verbs_requests_post(lane, &wr, 1);
    if (status == GAPLESS_OK)
        mw->rkey = wr.bind_mw.rkey;
    return status;
}

/* A client over iWARP, where a WRITE is done when it is sent, reads a few bytes. */
static bool beat_by_read(const struct verbs_lane *lane, struct ibv_send_wr *wr,
                         struct ibv_sge *sge)
{
    uint32_t i;

    for (i = 0; lane->nic->iwarp && i < lane->tp->config.windows_max; i++)
        if (lane->grant[i].far != NULL && lane->grant[i].far->read_key != 0 &&
            lane->grant[i].far->bytes >= 8) {
            *sge = verbs_sge(lane->frames +
                                 (size_t)(lane->receives + VERBS_FRAMES + VERBS_SPARE) *
                                     VERBS_FRAME_BYTES,
                             8, lane->mr);
            wr->opcode = IBV_WR_RDMA_READ;
            wr->sg_list = sge;
            wr->num_sge = 1;
            wr->wr.rdma.remote_addr = lane->grant[i].far->address;
            wr->wr.rdma.rkey = lane->grant[i].far->read_key;
            return true;
        }
    return false;
}

void verbs_beat(struct verbs_lane *lane, uint64_t now_ns)
{
    struct ibv_send_wr wr = {.opcode = IBV_WR_RDMA_WRITE};
    struct ibv_sge sge;

    if (lane->state == LANE_ENDING || lane->depth == lane->sent_count)
        return;
    if (now_ns > 0 && lane->tp->role == VERBS_CLIENT)
        (void)beat_by_read(lane, &wr, &sge);
    verbs_request_add(lane, &wr, &(struct verbs_sent){.what = VERBS_BEAT}, true);
    if (verbs_requests_post(lane, &wr, 1) == GAPLESS_OK && now_ns > 0) {
        lane->beating = true;
        lane->beat_ns = now_ns;
    }
}

void verbs_last(struct verbs_lane *lane)
{
    struct ibv_send_wr wr = {.opcode = IBV_WR_RDMA_WRITE};
    struct ibv_send_wr *bad = NULL;

    if (lane->sent_count == 0 || lane->sent_count == lane->depth)
        return;
    verbs_request_add(lane, &wr, &(struct verbs_sent){.what = VERBS_BEAT}, true);
    if (ibv_post_send(lane->qp, &wr, &bad) != 0)
        lane->sent_count--; /* then the bound of the drain ends it */
}
