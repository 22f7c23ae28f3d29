/* The fake's wire: does what was posted, with the checks that hardware makes on both
 * sides. */
#include "tests/verbs/fake_own.h"

#include <string.h>

#define PIECES (FAKE_SGE_MOST + 1)

/* Memory in pieces; its end is a piece of no bytes. */
struct pieces {
    unsigned char *at[PIECES];
    uint64_t bytes[PIECES];
};

/* The memory that a list names; false: not permitted. */
static bool pieces_of(struct pieces *ret, const struct ibv_pd *pd,
                      const struct ibv_sge *sge, int count, unsigned access)
{
    memset(ret, 0, sizeof *ret);
    for (int i = 0, n = 0; i < count; i++) {
        if (sge[i].length == 0)
            continue;
        ret->at[n] = fake_local(pd, sge[i].lkey, sge[i].addr, sge[i].length, access);
        ret->bytes[n] = sge[i].length;
        if (ret->at[n++] == NULL)
            return false;
    }
    return true;
}

static void pieces_copy(struct pieces *to, struct pieces *from, uint64_t bytes)
{
    int t = 0;
    int f = 0;

    while (bytes > 0 && to->at[t] != NULL && from->at[f] != NULL) {
        uint64_t n = bytes;

        if (n > to->bytes[t])
            n = to->bytes[t];
        if (n > from->bytes[f])
            n = from->bytes[f];
        memmove(to->at[t], from->at[f], n);
        to->at[t] += n;
        from->at[f] += n;
        to->bytes[t] -= n;
        from->bytes[f] -= n;
        bytes -= n;
        if (to->bytes[t] == 0)
            t++;
        if (from->bytes[f] == 0)
            f++;
    }
}

/* The responder ends too. iWARP tells the requester of it by ending the connection: its
 * write was handed over long before. */
static void refuse(struct fake_qp *qp, struct fake_qp *peer, enum ibv_wc_status status)
{
    bool reported = qp->device->iwarp;
    struct ibv_async_event event = {.element = {.qp = &peer->pub},
                                    .event_type = IBV_EVENT_QP_ACCESS_ERR};

    fake_world.counters.refused++;
    fake_async(peer->pub.context, &event);
    if (!reported)
        fake_sent(qp, status);
    else if (qp->sends[qp->done % qp->cap.max_send_wr].wr.opcode == IBV_WR_RDMA_READ)
        fake_sent(qp, IBV_WC_WR_FLUSH_ERR);
    else
        fake_sent(qp, IBV_WC_SUCCESS);
    fake_pair_end(peer);
    if (reported) {
        fake_pair_end(qp);
        fake_event_put(qp->id, RDMA_CM_EVENT_DISCONNECTED, 0);
        fake_event_put(peer->id, RDMA_CM_EVENT_DISCONNECTED, 0);
    }
}

static void lost(struct fake_qp *qp)
{
    fake_sent(qp, qp->device->iwarp ? IBV_WC_WR_FLUSH_ERR : IBV_WC_RETRY_EXC_ERR);
}

/* A receive is missing. True: it waits for one. */
static bool not_ready(struct fake_qp *qp, struct fake_qp *peer, struct fake_send *it)
{
    if (it->tries++ == 0)
        fake_world.counters.not_ready++;
    if (qp->device->iwarp) {
        refuse(qp, peer, IBV_WC_WR_FLUSH_ERR); /* it does not know to wait */
        return false;
    }
    if (qp->rnr_retries == 7)
        return true;
    if (fake_world.pace != FAKE_AT_POST && it->tries <= qp->rnr_retries)
        return true;
    fake_sent(qp, IBV_WC_RNR_RETRY_EXC_ERR);
    return false;
}

static void do_send(struct fake_qp *qp, struct fake_qp *peer, struct fake_send *it,
                    struct pieces *from)
{
    const struct fake_receive *in =
        &peer->receives[peer->r_done % peer->cap.max_recv_wr];
    struct ibv_wc wc = {.opcode = IBV_WC_RECV, .byte_len = (uint32_t)it->bytes};
    struct pieces to;
    uint64_t room = 0;

    for (int i = 0; i < in->num_sge; i++)
        room += in->sge[i].length;
    if (room < it->bytes) {
        wc.status = IBV_WC_LOC_LEN_ERR;
        fake_received(peer, &wc);
        fake_sent(qp, IBV_WC_REM_INV_REQ_ERR);
        return;
    }
    if (!pieces_of(&to, peer->pub.pd, in->sge, in->num_sge, IBV_ACCESS_LOCAL_WRITE)) {
        wc.status = IBV_WC_LOC_PROT_ERR;
        fake_received(peer, &wc);
        fake_sent(qp, IBV_WC_REM_OP_ERR);
        return;
    }
    pieces_copy(&to, from, it->bytes);
    fake_world.counters.sends++;
    fake_received(peer, &wc);
    fake_sent(qp, IBV_WC_SUCCESS);
}

static void do_write(struct fake_qp *qp, struct fake_qp *peer, struct fake_send *it,
                     struct pieces *from)
{
    struct pieces to = {.bytes = {it->bytes}};
    struct ibv_wc wc = {.opcode = IBV_WC_RECV_RDMA_WITH_IMM,
                        .byte_len = (uint32_t)it->bytes,
                        .imm_data = it->wr.imm_data,
                        .wc_flags = IBV_WC_WITH_IMM};

    if (it->bytes > 0) { /* an empty one needs no key */
        to.at[0] = fake_remote(peer, it->wr.wr.rdma.rkey, it->wr.wr.rdma.remote_addr,
                               it->bytes, IBV_ACCESS_REMOTE_WRITE);
        if (to.at[0] == NULL) {
            refuse(qp, peer, IBV_WC_REM_ACCESS_ERR);
            return;
        }
        pieces_copy(&to, from, it->bytes);
    } else
        fake_world.counters.empty_writes++;
    fake_world.counters.writes++;
    if (it->wr.opcode == IBV_WR_RDMA_WRITE_WITH_IMM) {
        fake_world.counters.writes_imm++;
        fake_received(peer, &wc);
    }
    fake_sent(qp, IBV_WC_SUCCESS);
}

static void do_read(struct fake_qp *qp, struct fake_qp *peer, struct fake_send *it)
{
    /* Over iWARP the answer is a write by the other side. */
    unsigned access = IBV_ACCESS_LOCAL_WRITE |
                      (qp->device->iwarp ? (unsigned)IBV_ACCESS_REMOTE_WRITE : 0);
    struct pieces from = {.bytes = {it->bytes}};
    struct pieces to;

    if (!pieces_of(&to, qp->pub.pd, it->sge, it->wr.num_sge, access)) {
        fake_sent(qp, IBV_WC_LOC_PROT_ERR);
        return;
    }
    if (qp->reads == 0) {
        fake_sent(qp, IBV_WC_LOC_QP_OP_ERR);
        return;
    }
    if (peer->answers < qp->reads) {
        refuse(qp, peer, IBV_WC_REM_INV_REQ_ERR);
        return;
    }
    if (it->bytes > 0) {
        from.at[0] = fake_remote(peer, it->wr.wr.rdma.rkey, it->wr.wr.rdma.remote_addr,
                                 it->bytes, IBV_ACCESS_REMOTE_READ);
        if (from.at[0] == NULL) {
            refuse(qp, peer, IBV_WC_REM_ACCESS_ERR);
            return;
        }
        pieces_copy(&to, &from, it->bytes);
    }
    fake_world.counters.reads++;
    fake_sent(qp, IBV_WC_SUCCESS);
}

static void do_local(struct fake_qp *qp, const struct fake_send *it)
{
    bool done;

    if (it->wr.opcode == IBV_WR_BIND_MW)
        done = !fake_fails("the bind of a window") && fake_bind(qp, it);
    else
        done = fake_invalidate(qp, it->wr.invalidate_rkey);
    if (done && it->wr.opcode == IBV_WR_BIND_MW)
        fake_world.counters.binds++;
    fake_sent(qp, done ? IBV_WC_SUCCESS : IBV_WC_MW_BIND_ERR);
}

/* The checks of the requester's own side; false: it has completed with an error. */
static bool own_side(struct fake_qp *qp, struct fake_send *it, struct pieces *ret)
{
    if (it->bytes > qp->device->message_most) {
        fake_sent(qp, IBV_WC_LOC_LEN_ERR);
        return false;
    }
    if (it->bytes > fake_world.counters.longest)
        fake_world.counters.longest = (unsigned long)it->bytes;
    if ((it->wr.send_flags & IBV_SEND_INLINE) != 0) {
        memset(ret, 0, sizeof *ret);
        ret->at[0] = it->text;
        ret->bytes[0] = it->bytes;
        return true;
    }
    if (!pieces_of(ret, qp->pub.pd, it->sge, it->wr.num_sge, 0)) {
        fake_sent(qp, IBV_WC_LOC_PROT_ERR);
        return false;
    }
    return true;
}

/* The oldest request. False: it has to wait. */
static bool run_one(struct fake_qp *qp)
{
    struct fake_send *it = &qp->sends[qp->done % qp->cap.max_send_wr];
    struct fake_qp *peer = fake_pair_numbered(qp->peer);
    enum ibv_wr_opcode opcode = it->wr.opcode;
    struct pieces from;

    if (opcode == IBV_WR_BIND_MW || opcode == IBV_WR_LOCAL_INV) {
        do_local(qp, it);
        return true;
    }
    if (peer != NULL && peer->pub.state == IBV_QPS_INIT && !qp->mute)
        return false;
    if (!own_side(qp, it, &from))
        return true;
    if (peer == NULL || qp->mute || peer->pub.state == IBV_QPS_ERR) {
        if (qp->retries == 7 && !qp->device->iwarp)
            return false; /* tries for ever */
        lost(qp);
        return true;
    }
    if (fake_fails("the answer to a request")) {
        lost(qp);
        return true;
    }
    if ((opcode == IBV_WR_SEND || opcode == IBV_WR_RDMA_WRITE_WITH_IMM) &&
        peer->r_done == peer->r_posted)
        return !not_ready(qp, peer, it);
    if (opcode == IBV_WR_SEND)
        do_send(qp, peer, it, &from);
    else if (opcode == IBV_WR_RDMA_READ)
        do_read(qp, peer, it);
    else
        do_write(qp, peer, it, &from);
    return true;
}

int fake_run(struct fake_qp *qp, int most)
{
    int done = 0;

    while (done < most && qp->done < qp->posted && qp->pub.state == IBV_QPS_RTS &&
           run_one(qp))
        done++;
    return done;
}

void fake_run_to(uint32_t number)
{
    struct fake_qp *qp = fake_pair_numbered(number);

    if (qp != NULL && fake_world.pace == FAKE_AT_POST)
        (void)fake_run(qp, INT32_MAX);
    fake_wake();
}
