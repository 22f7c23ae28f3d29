/* The verbs transport: posting work. Every request has its place in the lane's ring, in
 * order; a completion of one says that all before it are done. */
#include "transport/verbs.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

/* Requests posted by one call. */
#define CHAIN 16u

bool verbs_room(struct verbs_lane *lane, uint32_t requests)
{
    if (lane->depth - lane->sent_count >= requests)
        return true;
    (void)verbs_drain(lane->tp, 64);
    return lane->depth - lane->sent_count >= requests;
}

/* Gives the request its number, and its place in the ring. Asked to complete are those
 * whose end somebody waits for, and every so many: else the ring would never empty. */
static void request_add(struct verbs_lane *lane, struct ibv_send_wr *wr,
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

/* Any result but 0 is a failure: some drivers return a negative number. What was not
 * posted leaves the ring again. */
static int requests_post(struct verbs_lane *lane, struct ibv_send_wr *first,
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

static struct ibv_sge sge_of(const void *at, size_t bytes, const struct ibv_mr *mr)
{
    return (struct ibv_sge){
        .addr = (uint64_t)(uintptr_t)at, .length = (uint32_t)bytes, .lkey = mr->lkey};
}

/* ---- receives and frames -------------------------------------------------------- */

int verbs_receives_post(struct verbs_lane *lane, const uint32_t *buffers,
                        uint32_t count)
{
    struct ibv_recv_wr wr[VERBS_RECEIVES], *bad = NULL;
    struct ibv_sge sge[VERBS_RECEIVES];
    uint32_t i;

    for (i = 0; i < count; i++) {
        sge[i] = sge_of(lane->frames + (size_t)buffers[i] * VERBS_FRAME_BYTES,
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

/* A buffer for sending. Its number, from 1 on, goes into the ring. */
static uint16_t frame_take(struct verbs_lane *lane, char **ret)
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
        sent.frame = frame_take(lane, &buffer);
        memcpy(buffer, frame, bytes);
        sge = sge_of(buffer, bytes, lane->mr);
    }
    wr.sg_list = &sge;
    request_add(lane, &wr, &sent, !in_line);
    status = requests_post(lane, &wr, 1);
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

/* ---- windows and signs of life -------------------------------------------------- */

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
    request_add(lane, &wr, &(struct verbs_sent){.what = VERBS_BIND}, true);
    status = requests_post(lane, &wr, 1);
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
        if (lane->grant[i].read_key != 0 && lane->grant[i].bytes >= 8) {
            *sge = sge_of(lane->frames +
                              (size_t)(lane->receives + VERBS_FRAMES + VERBS_SPARE) *
                                  VERBS_FRAME_BYTES,
                          8, lane->mr);
            wr->opcode = IBV_WR_RDMA_READ;
            wr->sg_list = sge;
            wr->num_sge = 1;
            wr->wr.rdma.remote_addr = lane->grant[i].address;
            wr->wr.rdma.rkey = lane->grant[i].read_key;
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
    request_add(lane, &wr, &(struct verbs_sent){.what = VERBS_BEAT}, true);
    if (requests_post(lane, &wr, 1) == GAPLESS_OK && now_ns > 0) {
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
    request_add(lane, &wr, &(struct verbs_sent){.what = VERBS_BEAT}, true);
    if (ibv_post_send(lane->qp, &wr, &bad) != 0)
        lane->sent_count--; /* then the bound of the drain ends it */
}

/* ---- the data path -------------------------------------------------------------- */

struct transfer {
    struct verbs_lane *lane;
    const struct verbs_region *region;
    const struct verbs_grant *grant;
    size_t offset, bytes;
    uint32_t pieces;
};

/* Window, bounds and rights; and on which lane. GAPLESS_INVALID, GAPLESS_PEER_LOST. */
static int transfer_check(struct tp *tp, tp_peer index, const struct tp_region *window,
                          size_t offset, size_t bytes, bool writes,
                          struct transfer *ret)
{
    const struct verbs_region *region = verbs_region_find(tp, window);
    struct verbs_peer *peer;
    struct verbs_lane *lane;
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
    lane = peer->lane[bytes == 0 ? 0 : peer->next_lane % peer->lane_count];
    if (region->life != peer->life ||
        lane->grant[region->number].serial != region->serial)
        return GAPLESS_INVALID;
    *ret = (struct transfer){.lane = lane,
                             .region = region,
                             .grant = &lane->grant[region->number],
                             .offset = offset,
                             .bytes = bytes};
    ret->pieces = (uint32_t)((bytes + lane->nic->piece - 1) / lane->nic->piece);
    return ret->pieces < lane->depth / 2 ? GAPLESS_OK : GAPLESS_INVALID;
}

/* The next lane, for the next range. */
static void lane_turn(struct verbs_lane *lane)
{
    if (lane->peer->lane_count > 1)
        lane->peer->next_lane = (lane->number + 1) % lane->peer->lane_count;
}

/* One piece of a transfer. Returns its bytes. */
static size_t piece_make(const struct transfer *t, uint32_t number,
                         struct ibv_send_wr *wr, struct ibv_sge *sge)
{
    size_t from = (size_t)number * t->lane->nic->piece;
    size_t bytes =
        t->bytes - from < t->lane->nic->piece ? t->bytes - from : t->lane->nic->piece;

    *sge = sge_of((char *)t->region->base + t->offset + from, bytes,
                  t->region->mr[t->lane->nic_at]);
    wr->sg_list = sge;
    wr->num_sge = 1;
    wr->wr.rdma.remote_addr = t->grant->address + t->offset + from;
    return bytes;
}

/* All pieces but the last `rest`, in chains. */
static int pieces_post(const struct transfer *t, uint32_t count,
                       enum ibv_wr_opcode opcode, uint32_t key)
{
    struct ibv_send_wr wr[CHAIN];
    struct ibv_sge sge[CHAIN];
    uint32_t at = 0, n;

    while (at < count) {
        n = count - at < CHAIN ? count - at : CHAIN;
        for (uint32_t i = 0; i < n; i++) {
            wr[i] = (struct ibv_send_wr){.opcode = opcode,
                                         .next = i + 1 < n ? &wr[i + 1] : NULL};
            (void)piece_make(t, at + i, &wr[i], &sge[i]);
            wr[i].wr.rdma.rkey = key;
            request_add(t->lane, &wr[i], &(struct verbs_sent){.what = VERBS_PIECE_OF},
                        false);
        }
        if (requests_post(t->lane, wr, n) != GAPLESS_OK)
            return GAPLESS_PEER_LOST;
        at += n;
    }
    return GAPLESS_OK;
}

/* Notes travel as SENDs where there are no immediates, and where several lanes may
 * overtake each other. */
static bool notes_by_frame(const struct verbs_lane *lane)
{
    return lane->nic->iwarp || (lane->peer != NULL && lane->peer->lane_count > 1);
}

static int note_frame(struct verbs_lane *lane, uint32_t note, bool tell)
{
    struct verbs_frame frame = {.kind = VERBS_NOTICE,
                                .bytes = sizeof frame.as.note,
                                .as.note = {note, lane->peer->note_out}};
    struct ibv_sge sge = {.addr = (uint64_t)(uintptr_t)&frame,
                          .length = VERBS_FRAME_HEAD + sizeof frame.as.note};
    struct ibv_send_wr wr = {.opcode = IBV_WR_SEND,
                             .sg_list = &sge,
                             .num_sge = 1,
                             .send_flags = IBV_SEND_INLINE};
    struct verbs_sent sent = {.what = tell ? VERBS_PUT : VERBS_NOTE,
                              .tell = tell,

                              .note = note};

    if (lane->inline_max < sge.length) {
        char *buffer;

        sent.frame = frame_take(lane, &buffer);
        memcpy(buffer, &frame, sge.length);
        sge = sge_of(buffer, sge.length, lane->mr);
        wr.send_flags = 0;
    }
    request_add(lane, &wr, &sent, tell || sent.frame != 0);
    if (requests_post(lane, &wr, 1) != GAPLESS_OK)
        return GAPLESS_PEER_LOST;
    lane->peer->note_out++;
    lane->notes_out++;
    return GAPLESS_OK;
}

/* The last piece, if there is one, and the note in one request. */
static int note_immediate(struct verbs_lane *lane, const struct transfer *t,
                          uint32_t note)
{
    struct ibv_sge sge = {0};
    struct ibv_send_wr wr = {.opcode = IBV_WR_RDMA_WRITE_WITH_IMM,
                             .imm_data = htonl(note)};
    struct verbs_sent sent = {.what = VERBS_NOTE, .note = note};

    if (t != NULL && t->pieces > 0) {
        size_t bytes = piece_make(t, t->pieces - 1, &wr, &sge);

        wr.wr.rdma.rkey = t->grant->write_key;
        if (t->pieces == 1 && bytes <= lane->inline_max) {
            wr.send_flags = IBV_SEND_INLINE;
        } else {
            sent.what = VERBS_PUT;
            sent.tell = true;
        }
    }
    request_add(lane, &wr, &sent, sent.tell);
    if (requests_post(lane, &wr, 1) != GAPLESS_OK)
        return GAPLESS_PEER_LOST;
    lane->notes_out++;
    return sent.tell ? 1 : GAPLESS_OK;
}

/* Credit for one note, and room for `requests`. */
static bool note_may(struct verbs_lane *lane, uint32_t requests)
{
    bool buffer = notes_by_frame(lane) &&
                  lane->inline_max < VERBS_FRAME_HEAD + sizeof(struct verbs_note);

    if (lane->notes_out >= lane->notes_may || (buffer && lane->spare_frames == 0))
        (void)verbs_drain(lane->tp, 64);
    return lane->notes_out < lane->notes_may && (!buffer || lane->spare_frames > 0) &&
           verbs_room(lane, requests);
}

int verbs_put(struct tp *tp, tp_peer index, const struct tp_region *window,
              size_t offset, size_t bytes, uint32_t note)
{
    struct transfer t;
    int status = transfer_check(tp, index, window, offset, bytes, true, &t);

    if (status != GAPLESS_OK)
        return status;
    if (!note_may(t.lane, t.pieces + 1))
        return verbs_peer_at(tp, index) != NULL ? GAPLESS_AGAIN : GAPLESS_PEER_LOST;
    if (bytes > 0)
        lane_turn(t.lane);
    if (!notes_by_frame(t.lane)) {
        if (t.pieces > 1)
            status =
                pieces_post(&t, t.pieces - 1, IBV_WR_RDMA_WRITE, t.grant->write_key);
        return status == GAPLESS_OK ? note_immediate(t.lane, &t, note) : status;
    }
    status = pieces_post(&t, t.pieces, IBV_WR_RDMA_WRITE, t.grant->write_key);
    if (status == GAPLESS_OK)
        status = note_frame(t.lane, note, bytes > 0);
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
    if (!verbs_room(t.lane, t.pieces))
        return verbs_peer_at(tp, index) != NULL ? GAPLESS_AGAIN : GAPLESS_PEER_LOST;
    lane_turn(t.lane);
    status = pieces_post(&t, t.pieces - 1, IBV_WR_RDMA_READ, t.grant->read_key);
    if (status != GAPLESS_OK)
        return status;
    (void)piece_make(&t, t.pieces - 1, &wr, &sge);
    wr.wr.rdma.rkey = t.grant->read_key;
    request_add(t.lane, &wr,
                &(struct verbs_sent){.what = VERBS_GET, .tell = true, .note = tag},
                true);
    status = requests_post(t.lane, &wr, 1);
    return status == GAPLESS_OK ? 1 : status;
}

static int note_send(struct verbs_lane *lane, uint32_t note)
{
    return notes_by_frame(lane) ? note_frame(lane, note, false)
                                : note_immediate(lane, NULL, note);
}

/* A server's notes wait where the client has not as much room as was promised to ours:
 * a model of very many ranges. */
static int note_queue(struct verbs_lane *lane, uint32_t note)
{
    uint32_t most = lane->tp->config.notes_max;

    if (lane->tp->role != VERBS_SERVER || lane->notes_may >= most ||
        lane->queue_count == most)
        return GAPLESS_AGAIN;
    if (lane->queue_notes == NULL)
        lane->queue_notes = calloc(most, sizeof *lane->queue_notes);
    if (lane->queue_notes == NULL)
        return GAPLESS_AGAIN;
    lane->queue_notes[(lane->queue_at + lane->queue_count++) % most] = note;
    return GAPLESS_OK;
}

void verbs_notes_go_on(struct verbs_lane *lane)
{
    while (lane->queue_count > 0 && lane->state == LANE_LIVE &&
           lane->notes_out < lane->notes_may && note_may(lane, 1)) {
        if (note_send(lane, lane->queue_notes[lane->queue_at]) < 0)
            return;
        lane->queue_at = (lane->queue_at + 1) % lane->tp->config.notes_max;
        lane->queue_count--;
    }
}

int verbs_notify(struct tp *tp, tp_peer index, uint32_t note)
{
    struct verbs_peer *peer = verbs_peer_at(tp, index);
    struct verbs_lane *lane;

    if (peer == NULL)
        return index < tp->config.peers_max ? GAPLESS_PEER_LOST : GAPLESS_INVALID;
    lane = peer->lane[0];
    if (lane->queue_count == 0 && note_may(lane, 1))
        return note_send(lane, note);
    if (verbs_peer_at(tp, index) == NULL)
        return GAPLESS_PEER_LOST;
    return note_queue(lane, note);
}
