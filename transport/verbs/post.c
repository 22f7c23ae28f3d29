/* The verbs transport: posting work. Every request has its place in the channel's ring, in
 * order; a completion of one says that all before it are done. */
#include "transport/verbs/verbs.h"

#include <string.h>

bool verbs_room(struct verbs_channel *channel, uint32_t requests)
{
    if (channel->depth - channel->sent_count >= requests)
        return true;
    (void)verbs_drain(channel->tp, 64);
    return channel->depth - channel->sent_count >= requests;
}

void verbs_request_add(struct verbs_channel *channel, struct ibv_send_wr *wr,
                       const struct verbs_sent *sent, bool signalled)
{
    uint32_t at = (channel->sent_head + channel->sent_count) % channel->depth;

    channel->sent[at] = *sent;
    channel->sent_count++;
    wr->wr_id = verbs_number(channel, at);
    if (signalled || ++channel->unsignalled >= channel->depth / 4) {
        wr->send_flags |= IBV_SEND_SIGNALED;
        channel->unsignalled = 0;
    }
}

int verbs_requests_post(struct verbs_channel *channel, struct ibv_send_wr *first,
                        uint32_t count)
{
    struct gapless_error reason = {0};
    struct ibv_send_wr *bad = NULL;
    int failed = ibv_post_send(channel->qp, first, &bad);

    channel->tp->counters.doorbells++;
    channel->tp->counters.requests += count;
    if (failed == 0)
        return GAPLESS_OK;
    for (; bad != NULL; bad = bad->next)
        channel->sent_count--;
    (void)gapless_error_set(&reason, GAPLESS_PEER_LOST, failed < 0 ? -failed : failed,
                            "work for %s cannot be posted", channel->name);
    if (channel->peer != NULL)
        verbs_peer_end(channel->peer, &reason);
    else
        verbs_channel_end(channel, &reason);
    return GAPLESS_PEER_LOST;
}

/* ---- receives and frames ------------------------------------------------- */

int verbs_receives_post(struct verbs_channel *channel, const uint32_t *buffers,
                        uint32_t count)
{
    struct ibv_recv_wr wr[VERBS_RECEIVES], *bad = NULL;
    struct ibv_sge sge[VERBS_RECEIVES];
    uint32_t i;

    for (i = 0; i < count; i++) {
        sge[i] = verbs_sge(channel->frames + (size_t)buffers[i] * VERBS_FRAME_BYTES,
                           VERBS_FRAME_BYTES, channel->mr);
        wr[i] = (struct ibv_recv_wr){.wr_id = verbs_number(channel, buffers[i]) |
                                              VERBS_RECEIVE,
                                     .next = i + 1 < count ? &wr[i + 1] : NULL,
                                     .sg_list = &sge[i],
                                     .num_sge = 1};
    }
    if (ibv_post_recv(channel->qp, wr, &bad) != 0) {
        for (; bad != NULL; bad = bad->next)
            count--;
        channel->posted += count;
        return GAPLESS_SYSTEM;
    }
    channel->posted += count;
    return GAPLESS_OK;
}

int verbs_receive_again(struct verbs_channel *channel, uint32_t buffer)
{
    channel->again[channel->again_count++] = buffer;
    if (channel->again_count < VERBS_RECEIVES)
        return GAPLESS_OK;
    channel->again_count = 0;
    return verbs_receives_post(channel, channel->again, VERBS_RECEIVES);
}

uint16_t verbs_frame_take(struct verbs_channel *channel, char **ret)
{
    uint16_t frame = channel->spare_frame[--channel->spare_frames];

    *ret = channel->frames + (size_t)(channel->receives + frame) * VERBS_FRAME_BYTES;
    return (uint16_t)(frame + 1);
}

int verbs_frame_send(struct verbs_channel *channel, const struct verbs_frame *frame,
                     bool needs_credit)
{
    size_t bytes = VERBS_FRAME_HEAD + frame->bytes;
    bool in_line = bytes <= channel->inline_max;
    struct ibv_send_wr wr = {.opcode = IBV_WR_SEND, .num_sge = 1};
    struct verbs_sent sent = {.what = VERBS_FRAME};
    struct ibv_sge sge;
    char *buffer;
    int status;

    if (channel->state == CHANNEL_ENDING || channel->qp == NULL)
        return GAPLESS_PEER_LOST;
    if (!verbs_room(channel, 1) ||
        (needs_credit && channel->frames_out >= channel->frames_may) ||
        (!in_line && channel->spare_frames == 0))
        return GAPLESS_AGAIN;
    if (in_line) {
        sge = (struct ibv_sge){.addr = (uint64_t)(uintptr_t)frame,
                               .length = (uint32_t)bytes};
        wr.send_flags = IBV_SEND_INLINE;
    } else {
        sent.frame = verbs_frame_take(channel, &buffer);
        memcpy(buffer, frame, bytes);
        sge = verbs_sge(buffer, bytes, channel->mr);
    }
    wr.sg_list = &sge;
    verbs_request_add(channel, &wr, &sent, !in_line);
    status = verbs_requests_post(channel, &wr, 1);
    if (status == GAPLESS_OK && needs_credit)
        channel->frames_out++;
    return status;
}

void verbs_credit_give(struct verbs_channel *channel)
{
    struct verbs_frame frame = {.kind = VERBS_CREDIT, .bytes = sizeof frame.as.credit};

    if ((channel->notes_read < channel->notes_batch || channel->notes_read == 0) &&
        channel->frames_read < VERBS_FRAMES / 2)
        return;
    frame.as.credit = (struct verbs_credit){.notes = channel->notes_read,
                                            .frames = channel->frames_read};
    if (verbs_frame_send(channel, &frame, false) == GAPLESS_OK)
        channel->notes_read = channel->frames_read = 0;
}

static int texts_send(struct verbs_channel *channel, const char *data, uint32_t bytes)
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
        status = verbs_frame_send(channel, &frame, true);
        at += part;
    } while (status == GAPLESS_OK && at < bytes);
    return status;
}

int verbs_send_control(struct tp *tp, tp_peer index, const void *data, uint32_t bytes,
                       struct gapless_error *error)
{
    uint32_t frames =
        bytes == 0 ? 1 : (bytes + VERBS_FRAME_DATA - 1) / VERBS_FRAME_DATA;
    struct verbs_peer *peer = verbs_peer_at(tp, index);
    struct gapless_error reason = {0};
    struct verbs_channel *channel;

    if (bytes > TP_TEXT_MAX || (data == NULL && bytes != 0))
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "a control message of %u bytes; at most %u", bytes,
                                 TP_TEXT_MAX);
    if (peer == NULL)
        return gapless_error_set(error, GAPLESS_PEER_LOST, 0,
                                 "peer %u is not connected", index);
    channel = peer->channel[0];
    if (channel->frames_may - channel->frames_out < frames ||
        channel->spare_frames < frames)
        (void)verbs_drain(tp, 64);
    if (channel->frames_may - channel->frames_out >= frames &&
        channel->spare_frames >= frames && verbs_room(channel, frames))
        return texts_send(channel, data, bytes) == GAPLESS_OK
                   ? GAPLESS_OK
                   : gapless_error_set(error, GAPLESS_PEER_LOST, 0,
                                       "the connection to %s broke", channel->name);
    if (tp->role == VERBS_CLIENT)
        return gapless_error_set(
            error, GAPLESS_AGAIN, 0,
            "the master has not read earlier control messages yet");
    (void)gapless_error_set(
        &reason, GAPLESS_PEER_LOST, 0,
        "%s does not read its control messages and was disconnected", channel->name);
    verbs_peer_end(peer, &reason);
    if (error != NULL)
        *error = reason;
    return GAPLESS_PEER_LOST;
}

/* ---- windows and signs of life ------------------------------------------- */

int verbs_bind(struct verbs_channel *channel, struct ibv_mw *mw, struct ibv_mr *mr,
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

    if (!verbs_room(channel, 1))
        return GAPLESS_AGAIN;
    verbs_request_add(channel, &wr, &(struct verbs_sent){.what = VERBS_BIND}, true);
    status = verbs_requests_post(channel, &wr, 1);
    if (status == GAPLESS_OK)
        mw->rkey = wr.bind_mw.rkey;
    return status;
}

/* A client over iWARP, where a WRITE is done when it is sent, reads a few bytes. */
static bool keepalive_by_read(const struct verbs_channel *channel,
                              struct ibv_send_wr *wr, struct ibv_sge *sge)
{
    uint32_t i;

    for (i = 0; channel->nic->iwarp && i < channel->tp->config.windows_max; i++)
        if (channel->grant[i].remote != NULL &&
            channel->grant[i].remote->read_key != 0 &&
            channel->grant[i].remote->bytes >= 8) {
            *sge = verbs_sge(channel->frames + (size_t)(channel->receives +
                                                        VERBS_FRAMES + VERBS_SPARE) *
                                                   VERBS_FRAME_BYTES,
                             8, channel->mr);
            wr->opcode = IBV_WR_RDMA_READ;
            wr->sg_list = sge;
            wr->num_sge = 1;
            wr->wr.rdma.remote_addr = channel->grant[i].remote->address;
            wr->wr.rdma.rkey = channel->grant[i].remote->read_key;
            return true;
        }
    return false;
}

void verbs_keepalive(struct verbs_channel *channel, uint64_t now_ns)
{
    struct ibv_send_wr wr = {.opcode = IBV_WR_RDMA_WRITE};
    struct ibv_sge sge;

    if (channel->state == CHANNEL_ENDING || channel->depth == channel->sent_count)
        return;
    if (now_ns > 0 && channel->tp->role == VERBS_CLIENT)
        (void)keepalive_by_read(channel, &wr, &sge);
    verbs_request_add(channel, &wr, &(struct verbs_sent){.what = VERBS_BEAT}, true);
    if (verbs_requests_post(channel, &wr, 1) == GAPLESS_OK && now_ns > 0) {
        channel->keepalive_pending = true;
        channel->keepalive_ns = now_ns;
    }
}

void verbs_last(struct verbs_channel *channel)
{
    struct ibv_send_wr wr = {.opcode = IBV_WR_RDMA_WRITE};
    struct ibv_send_wr *bad = NULL;

    if (channel->sent_count == 0 || channel->sent_count == channel->depth)
        return;
    verbs_request_add(channel, &wr, &(struct verbs_sent){.what = VERBS_BEAT}, true);
    if (ibv_post_send(channel->qp, &wr, &bad) != 0)
        channel->sent_count--; /* then the bound of the drain ends it */
}
