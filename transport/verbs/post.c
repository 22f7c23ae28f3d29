/* The verbs transport: posting work, and the data path that is made of it. Every request
 * has its place in the channel's ring, in order; a completion of one says that all
 * before it are done. A put or get becomes requests, each within one part of the region
 * on either side, and a note after them:
 *
 *   window    | own       | placed                   | own |
 *   region    | own |  placed           |  own             |
 *   requests  |WRITE|WRITE| WRITE       | WRITE      |WRITE WITH_IMM
 */
#include "transport/verbs/verbs.h"

#include "engine/base/array.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

/* Requests posted by one call. */
#define CHAIN 16u

/* ---- requests ------------------------------------------------------------ */

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

int verbs_frame_send(struct verbs_channel *channel, struct verbs_frame *frame,
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
    verbs_tag(channel, frame);
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

/* ---- put, get, notify ---------------------------------------------------- */

/* Bytes of a window that go over a channel, and how far its requests have come. */
struct transfer {
    struct verbs_channel *channel;
    const struct verbs_grant *grant;
    bool writes;
    size_t at, end;                /* of the window */
    const struct verbs_part *near; /* that `at` is in, here and at the server */
    const struct verbs_remote *remote;
    uint32_t pieces; /* left */
};

/* Bytes of the next request: no more than a message may have, in one part on either
 * side. */
static size_t piece_bytes(const struct transfer *t)
{
    size_t bytes = size_least(t->end - t->at, t->channel->nic->piece);

    bytes = size_least(bytes, t->near->offset + t->near->bytes - t->at);
    return size_least(bytes, (size_t)(t->remote->offset + t->remote->bytes) - t->at);
}

static void piece_step(struct transfer *t, size_t bytes)
{
    t->at += bytes;
    if (t->at == t->end)
        return;
    while (t->at - t->near->offset >= t->near->bytes)
        t->near++;
    while (t->at - t->remote->offset >= t->remote->bytes)
        t->remote++;
}

/* Its requests are counted, for room, before the first is posted. */
static void transfer_start(struct transfer *t, const struct verbs_region *region)
{
    struct transfer walk;

    t->near = region->part;
    t->remote = t->grant->remote;
    if (t->at == t->end)
        return;
    t->near = verbs_part_at(region, t->at);
    while (t->at - t->remote->offset >= t->remote->bytes)
        t->remote++;
    for (walk = *t; walk.at < walk.end; t->pieces++)
        piece_step(&walk, piece_bytes(&walk));
}

/* Window, bounds and rights; and on which channel. GAPLESS_INVALID, GAPLESS_PEER_LOST. */
static int transfer_check(struct tp *tp, tp_peer index, const struct tp_region *window,
                          size_t offset, size_t bytes, bool writes,
                          struct transfer *ret)
{
    struct verbs_region *region = verbs_region_find(tp, window);
    struct verbs_peer *peer;
    struct verbs_channel *channel;
    size_t low = 0, high;

    if (tp->role != VERBS_CLIENT || index >= tp->config.peers_max || region == NULL ||
        !region->window || region->peer != index || offset > region->bytes ||
        bytes > region->bytes - offset)
        return GAPLESS_INVALID;
    high = region->bytes;
    if (region->access == TP_SPLIT && writes)
        low = region->split;
    else if (region->access == TP_SPLIT)
        high = region->split;
    if (bytes > 0 && (offset < low || offset + bytes > high ||
                      (writes && region->access == TP_READ)))
        return GAPLESS_INVALID;
    peer = verbs_peer_at(tp, index);
    if (peer == NULL)
        return GAPLESS_PEER_LOST;
    channel = peer->channel[bytes == 0 ? 0 : peer->next_channel % peer->channel_count];
    if (region->life != peer->life ||
        channel->grant[region->number].serial != region->serial)
        return GAPLESS_INVALID;
    region->moved = true;
    *ret = (struct transfer){.channel = channel,
                             .grant = &channel->grant[region->number],
                             .writes = writes,
                             .at = offset,
                             .end = offset + bytes};
    transfer_start(ret, region);
    return ret->pieces < channel->depth / 2 ? GAPLESS_OK : GAPLESS_INVALID;
}

/* The next channel, for the next range. */
static void channel_turn(struct verbs_channel *channel)
{
    if (channel->peer->channel_count > 1)
        channel->peer->next_channel =
            (channel->number + 1) % channel->peer->channel_count;
}

/* The next request of a transfer. Returns its bytes. */
static size_t piece_make(struct transfer *t, struct ibv_send_wr *wr,
                         struct ibv_sge *sge)
{
    size_t bytes = piece_bytes(t);

    *sge = verbs_sge(t->near->at + (t->at - t->near->offset), bytes,
                     t->near->whole[t->channel->nic_at]);
    wr->sg_list = sge;
    wr->num_sge = 1;
    wr->wr.rdma.remote_addr = t->remote->address + (t->at - t->remote->offset);
    wr->wr.rdma.rkey = t->writes ? t->remote->write_key : t->remote->read_key;
    piece_step(t, bytes);
    t->pieces--;
    return bytes;
}

/* All requests but the last `rest`, in chains. */
static int pieces_post(struct transfer *t, uint32_t rest)
{
    enum ibv_wr_opcode opcode = t->writes ? IBV_WR_RDMA_WRITE : IBV_WR_RDMA_READ;
    struct ibv_send_wr wr[CHAIN];
    struct ibv_sge sge[CHAIN];
    uint32_t n;

    while (t->pieces > rest) {
        n = t->pieces - rest < CHAIN ? t->pieces - rest : CHAIN;
        for (uint32_t i = 0; i < n; i++) {
            wr[i] = (struct ibv_send_wr){.opcode = opcode,
                                         .next = i + 1 < n ? &wr[i + 1] : NULL};
            (void)piece_make(t, &wr[i], &sge[i]);
            verbs_request_add(t->channel, &wr[i],
                              &(struct verbs_sent){.what = VERBS_PIECE_OF}, false);
        }
        if (verbs_requests_post(t->channel, wr, n) != GAPLESS_OK)
            return GAPLESS_PEER_LOST;
    }
    return GAPLESS_OK;
}

/* Notes travel as SENDs where there are no immediates, and where several channels may
 * overtake each other. */
static bool notes_by_frame(const struct verbs_channel *channel)
{
    return channel->nic->iwarp ||
           (channel->peer != NULL && channel->peer->channel_count > 1);
}

static int note_frame(struct verbs_channel *channel, uint32_t note, bool tell)
{
    struct verbs_frame frame = {.kind = VERBS_NOTICE,
                                .bytes = sizeof frame.as.note,
                                .as.note = {note, channel->peer->note_out}};
    struct ibv_sge sge = {.addr = (uint64_t)(uintptr_t)&frame,
                          .length = VERBS_FRAME_HEAD + sizeof frame.as.note};
    struct ibv_send_wr wr = {.opcode = IBV_WR_SEND,
                             .sg_list = &sge,
                             .num_sge = 1,
                             .send_flags = IBV_SEND_INLINE};
    struct verbs_sent sent = {
        .what = tell ? VERBS_PUT : VERBS_NOTE, .tell = tell, .note = note};

    verbs_tag(channel, &frame);
    if (channel->inline_max < sge.length) {
        char *buffer;

        sent.frame = verbs_frame_take(channel, &buffer);
        memcpy(buffer, &frame, sge.length);
        sge = verbs_sge(buffer, sge.length, channel->mr);
        wr.send_flags = 0;
    }
    verbs_request_add(channel, &wr, &sent, tell || sent.frame != 0);
    if (verbs_requests_post(channel, &wr, 1) != GAPLESS_OK)
        return GAPLESS_PEER_LOST;
    channel->peer->note_out++;
    channel->notes_out++;
    return GAPLESS_OK;
}

/* The last piece, if there is one, and the note in one request. Few bytes go with it,
 * but not those that only a card can read. */
static int note_immediate(struct verbs_channel *channel, struct transfer *t, bool only,
                          uint32_t note)
{
    struct ibv_sge sge = {0};
    struct ibv_send_wr wr = {.opcode = IBV_WR_RDMA_WRITE_WITH_IMM,
                             .imm_data = htonl(note)};
    struct verbs_sent sent = {.what = VERBS_NOTE, .note = note};

    if (t != NULL && t->pieces > 0) {
        bool card = t->near->card;
        size_t bytes = piece_make(t, &wr, &sge);

        if (only && !card && bytes <= channel->inline_max) {
            wr.send_flags = IBV_SEND_INLINE;
        } else {
            sent.what = VERBS_PUT;
            sent.tell = true;
        }
    }
    verbs_request_add(channel, &wr, &sent, sent.tell);
    if (verbs_requests_post(channel, &wr, 1) != GAPLESS_OK)
        return GAPLESS_PEER_LOST;
    channel->notes_out++;
    return sent.tell ? 1 : GAPLESS_OK;
}

/* Credit for one note, and room for `requests`. */
static bool note_may(struct verbs_channel *channel, uint32_t requests)
{
    bool buffer = notes_by_frame(channel) &&
                  channel->inline_max < VERBS_FRAME_HEAD + sizeof(struct verbs_note);

    if (channel->notes_out >= channel->notes_may ||
        (buffer && channel->spare_frames == 0))
        (void)verbs_drain(channel->tp, 64);
    return channel->notes_out < channel->notes_may &&
           (!buffer || channel->spare_frames > 0) && verbs_room(channel, requests);
}

int verbs_put(struct tp *tp, tp_peer index, const struct tp_region *window,
              size_t offset, size_t bytes, uint32_t note)
{
    struct transfer t;
    int status = transfer_check(tp, index, window, offset, bytes, true, &t);

    if (status != GAPLESS_OK)
        return status;
    if (!note_may(t.channel, t.pieces + 1))
        return verbs_peer_at(tp, index) != NULL ? GAPLESS_AGAIN : GAPLESS_PEER_LOST;
    if (bytes > 0)
        channel_turn(t.channel);
    if (!notes_by_frame(t.channel)) {
        bool only = t.pieces == 1;

        status = pieces_post(&t, 1);
        return status == GAPLESS_OK ? note_immediate(t.channel, &t, only, note)
                                    : status;
    }
    status = pieces_post(&t, 0);
    if (status == GAPLESS_OK)
        status = note_frame(t.channel, note, bytes > 0);
    return status == GAPLESS_OK && bytes > 0 ? 1 : status;
}

int verbs_get(struct tp *tp, tp_peer index, const struct tp_region *window,
              size_t offset, size_t bytes, uint32_t tag)
{
    struct ibv_send_wr wr = {.opcode = IBV_WR_RDMA_READ};
    struct ibv_sge sge;
    struct transfer t;
    int status = transfer_check(tp, index, window, offset, bytes, false, &t);

    if (status != GAPLESS_OK || bytes == 0)
        return status;
    if (!verbs_room(t.channel, t.pieces))
        return verbs_peer_at(tp, index) != NULL ? GAPLESS_AGAIN : GAPLESS_PEER_LOST;
    channel_turn(t.channel);
    status = pieces_post(&t, 1);
    if (status != GAPLESS_OK)
        return status;
    (void)piece_make(&t, &wr, &sge);
    verbs_request_add(
        t.channel, &wr,
        &(struct verbs_sent){.what = VERBS_GET, .tell = true, .note = tag}, true);
    status = verbs_requests_post(t.channel, &wr, 1);
    return status == GAPLESS_OK ? 1 : status;
}

static int note_send(struct verbs_channel *channel, uint32_t note)
{
    return notes_by_frame(channel) ? note_frame(channel, note, false)
                                   : note_immediate(channel, NULL, false, note);
}

/* A server's notes wait where the client has not as much room as was promised to ours:
 * a model of very many ranges. */
static int note_queue(struct verbs_channel *channel, uint32_t note)
{
    uint32_t most = channel->tp->config.notes_max;

    if (channel->tp->role != VERBS_SERVER || channel->notes_may >= most ||
        channel->queue_count == most)
        return GAPLESS_AGAIN;
    if (channel->queue_notes == NULL)
        channel->queue_notes = calloc(most, sizeof *channel->queue_notes);
    if (channel->queue_notes == NULL)
        return GAPLESS_AGAIN;
    channel->queue_notes[(channel->queue_at + channel->queue_count++) % most] = note;
    return GAPLESS_OK;
}

void verbs_notes_go_on(struct verbs_channel *channel)
{
    while (channel->queue_count > 0 && channel->state == CHANNEL_LIVE &&
           channel->notes_out < channel->notes_may && note_may(channel, 1)) {
        if (note_send(channel, channel->queue_notes[channel->queue_at]) < 0)
            return;
        channel->queue_at = (channel->queue_at + 1) % channel->tp->config.notes_max;
        channel->queue_count--;
    }
}

int verbs_notify(struct tp *tp, tp_peer index, uint32_t note)
{
    struct verbs_peer *peer = verbs_peer_at(tp, index);
    struct verbs_channel *channel;

    if (peer == NULL)
        return index < tp->config.peers_max ? GAPLESS_PEER_LOST : GAPLESS_INVALID;
    channel = peer->channel[0];
    if (channel->queue_count == 0 && note_may(channel, 1))
        return note_send(channel, note);
    if (verbs_peer_at(tp, index) == NULL)
        return GAPLESS_PEER_LOST;
    return note_queue(channel, note);
}
