/* The fake's queue pairs: making and ending them, posting to them, and completing what
 * was posted. */
#include "tests/verbs/fake_own.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct fake_qp *fake_pair_numbered(uint32_t number)
{
    struct fake_qp *qp = fake_world.pairs;

    while (qp != NULL && qp->pub.qp_num != number)
        qp = qp->next;
    return qp;
}

/* ---- making -------------------------------------------------------------- */

static int pair_problem(const struct fake_id *id, const struct ibv_pd *pd,
                        const struct ibv_qp_init_attr *attr)
{
    const struct ibv_qp_cap *cap = &attr->cap;
    uint32_t sge_most;

    if (id->pub.verbs == NULL || id->pub.qp != NULL || pd == NULL ||
        pd->context != id->pub.verbs || attr->qp_type != IBV_QPT_RC ||
        attr->srq != NULL || attr->send_cq == NULL || attr->recv_cq == NULL ||
        attr->send_cq->context != pd->context || attr->recv_cq->context != pd->context)
        return EINVAL;
    sge_most = id->device->iwarp ? 6 : FAKE_SGE_MOST;
    if (cap->max_send_wr < 1 || cap->max_send_wr > 4096 || cap->max_recv_wr > 4096 ||
        cap->max_send_sge > sge_most || cap->max_recv_sge > sge_most ||
        cap->max_inline_data > id->device->inline_most)
        return EINVAL;
    if (fake_fails("rdma_create_qp"))
        return ENOMEM;
    return id->device->removed ? EIO : 0;
}

static uint32_t number_new(void)
{
    do {
        fake_world.next_pair = (fake_world.next_pair + 1) & 0xffffff;
    } while (fake_world.next_pair < 17 ||
             fake_pair_numbered(fake_world.next_pair) != NULL);
    return fake_world.next_pair;
}

struct fake_qp *fake_pair_new(struct ibv_pd *pd, const struct ibv_qp_init_attr *attr)
{
    struct fake_qp *qp = calloc(1, sizeof *qp);

    if (qp == NULL)
        return NULL;
    qp->sends = calloc(attr->cap.max_send_wr, sizeof *qp->sends);
    qp->receives = calloc(attr->cap.max_recv_wr + 1, sizeof *qp->receives);
    if (qp->sends == NULL || qp->receives == NULL) {
        free(qp->sends);
        free(qp->receives);
        free(qp);
        return NULL;
    }
    qp->pub.context = pd->context;
    qp->pub.qp_context = attr->qp_context;
    qp->pub.pd = pd;
    qp->pub.send_cq = attr->send_cq;
    qp->pub.recv_cq = attr->recv_cq;
    qp->pub.qp_num = number_new();
    qp->pub.qp_type = IBV_QPT_RC;
    qp->device = fake_context(pd->context)->device;
    qp->cap = attr->cap;
    qp->signal_all = attr->sq_sig_all != 0;
    qp->next = fake_world.pairs;
    fake_world.pairs = qp;
    fake_world.live.pairs++;
    ((struct fake_pd *)pd)->children++;
    ((struct fake_cq *)attr->send_cq)->children++;
    ((struct fake_cq *)attr->recv_cq)->children++;
    return qp;
}

int rdma_create_qp(struct rdma_cm_id *id, struct ibv_pd *pd,
                   struct ibv_qp_init_attr *attr)
{
    struct fake_qp *qp = NULL;
    int problem;

    fake_lock();
    problem = pair_problem((struct fake_id *)id, pd, attr);
    if (problem == 0) {
        qp = fake_pair_new(pd, attr);
        problem = qp != NULL ? 0 : ENOMEM;
    }
    if (qp != NULL) {
        qp->pub.state = IBV_QPS_INIT;
        qp->id = (struct fake_id *)id;
        id->qp = &qp->pub;
        id->pd = pd;
        id->send_cq = attr->send_cq;
        id->recv_cq = attr->recv_cq;
    }
    fake_unlock();
    return fake_answer(problem);
}

void fake_pair_free(struct fake_qp *qp)
{
    struct fake_qp **at = &fake_world.pairs;

    while (*at != qp)
        at = &(*at)->next;
    *at = qp->next;
    if (qp->windows != 0)
        fake_fault("a queue pair goes with %u memory windows bound to it", qp->windows);
    for (uint32_t i = 0; i < FAKE_KEYS && qp->windows != 0; i++) {
        struct fake_mw *window = fake_world.windows[i];

        if (window != NULL && window->qp == qp)
            (void)fake_invalidate(qp, window->key);
    }
    if (!fake_rules.stale) {
        fake_queue_forget(qp->pub.send_cq, qp->pub.qp_num);
        fake_queue_forget(qp->pub.recv_cq, qp->pub.qp_num);
    }
    fake_async_forget(qp->pub.context, &qp->pub);
    ((struct fake_pd *)qp->pub.pd)->children--;
    ((struct fake_cq *)qp->pub.send_cq)->children--;
    ((struct fake_cq *)qp->pub.recv_cq)->children--;
    fake_world.live.pairs--;
    free(qp->sends);
    free(qp->receives);
    free(qp);
}

void rdma_destroy_qp(struct rdma_cm_id *id)
{
    uint32_t peer;

    fake_lock();
    if (id->qp == NULL)
        fake_fault("rdma_destroy_qp of an id without one");
    else {
        peer = ((struct fake_qp *)id->qp)->peer;
        fake_pair_free((struct fake_qp *)id->qp);
        id->qp = NULL;
        fake_run_to(peer);
    }
    fake_unlock();
}

/* ---- asking and changing ------------------------------------------------- */

int ibv_modify_qp(struct ibv_qp *pub, struct ibv_qp_attr *attr, int attr_mask)
{
    int problem = 0;

    fake_lock();
    if (fake_fails("ibv_modify_qp"))
        problem = EIO;
    else if (((struct fake_qp *)pub)->looped)
        problem = fake_loop_turn((struct fake_qp *)pub, attr, attr_mask);
    else if ((attr_mask & IBV_QP_STATE) == 0 || attr->qp_state != IBV_QPS_ERR)
        problem = (attr_mask & IBV_QP_STATE) != 0 ? EINVAL : 0;
    else
        fake_pair_end((struct fake_qp *)pub);
    fake_unlock();
    return problem;
}

int ibv_query_qp(struct ibv_qp *pub, struct ibv_qp_attr *attr, int attr_mask,
                 struct ibv_qp_init_attr *init)
{
    const struct fake_qp *qp = (const struct fake_qp *)pub;
    bool fails;

    (void)attr_mask;
    fake_lock();
    fails = fake_fails("ibv_query_qp");
    if (!fails) {
        memset(attr, 0, sizeof *attr);
        memset(init, 0, sizeof *init);
        attr->qp_state = attr->cur_qp_state = pub->state;
        attr->path_mtu = IBV_MTU_1024;
        attr->dest_qp_num = qp->peer;
        attr->cap = init->cap = qp->cap;
        attr->max_rd_atomic = qp->reads;
        attr->max_dest_rd_atomic = qp->answers;
        attr->port_num = 1;
        if (!qp->device->iwarp && !qp->looped) {
            attr->timeout = qp->id->timeout;
            attr->retry_cnt = qp->retries;
            attr->rnr_retry = qp->rnr_retries;
        }
        init->send_cq = pub->send_cq;
        init->recv_cq = pub->recv_cq;
        init->qp_type = IBV_QPT_RC;
        init->sq_sig_all = qp->signal_all;
    }
    fake_unlock();
    return fails ? EIO : 0;
}

/* ---- completing ---------------------------------------------------------- */

/* What a failed completion does not define. */
static struct ibv_wc failed_wc(uint64_t wr_id, enum ibv_wc_status status, bool receive)
{
    return (struct ibv_wc){
        .wr_id = wr_id,
        .status = status,
        .opcode = receive ? IBV_WC_TSO : IBV_WC_TM_RECV,
        .vendor_err = 0x81,
        .byte_len = 0xdeadbeef,
        .imm_data = 0x0badf00d,
        .src_qp = 0xffffff,
        .wc_flags = IBV_WC_WITH_IMM,
    };
}

static enum ibv_wc_opcode done_opcode(enum ibv_wr_opcode opcode)
{
    if (opcode == IBV_WR_RDMA_WRITE || opcode == IBV_WR_RDMA_WRITE_WITH_IMM)
        return IBV_WC_RDMA_WRITE;
    if (opcode == IBV_WR_RDMA_READ)
        return IBV_WC_RDMA_READ;
    if (opcode == IBV_WR_BIND_MW)
        return IBV_WC_BIND_MW;
    return opcode == IBV_WR_LOCAL_INV ? IBV_WC_LOCAL_INV : IBV_WC_SEND;
}

void fake_sent(struct fake_qp *qp, enum ibv_wc_status status)
{
    struct fake_send *it = &qp->sends[qp->done++ % qp->cap.max_send_wr];
    struct fake_cqe entry = {.pair = qp->pub.qp_num, .upto = qp->done};

    if (status != IBV_WC_SUCCESS)
        entry.wc = failed_wc(it->wr.wr_id, status, false);
    else if (qp->signal_all || (it->wr.send_flags & IBV_SEND_SIGNALED) != 0)
        entry.wc = (struct ibv_wc){.wr_id = it->wr.wr_id,
                                   .opcode = done_opcode(it->wr.opcode),
                                   .byte_len = (uint32_t)it->bytes};
    else
        return;
    entry.wc.qp_num = qp->pub.qp_num;
    fake_complete(qp->pub.send_cq, &entry);
    if (status != IBV_WC_SUCCESS)
        fake_pair_end(qp);
}

void fake_received(struct fake_qp *qp, const struct ibv_wc *wc)
{
    struct fake_receive *it = &qp->receives[qp->r_done++ % qp->cap.max_recv_wr];
    struct fake_cqe entry = {
        .pair = qp->pub.qp_num, .receive = true, .upto = qp->r_done};

    entry.wc =
        wc->status == IBV_WC_SUCCESS ? *wc : failed_wc(it->wr_id, wc->status, true);
    entry.wc.wr_id = it->wr_id;
    entry.wc.qp_num = qp->pub.qp_num;
    fake_complete(qp->pub.recv_cq, &entry);
    if (wc->status != IBV_WC_SUCCESS)
        fake_pair_end(qp);
}

/* Completes what is left of its work; its state is ERR, so that it does not come here
 * again for each of them. */
static void flush(struct fake_qp *qp)
{
    struct ibv_wc flushed = {.status = IBV_WC_WR_FLUSH_ERR};

    while (qp->done < qp->posted)
        fake_sent(qp, IBV_WC_WR_FLUSH_ERR);
    while (qp->r_done < qp->r_posted)
        fake_received(qp, &flushed);
}

void fake_pair_end(struct fake_qp *qp)
{
    if (qp->pub.state == IBV_QPS_ERR)
        return;
    qp->pub.state = IBV_QPS_ERR;
    flush(qp);
    fake_run_to(qp->peer);
}

/* ---- posting ------------------------------------------------------------- */

static int send_problem(const struct fake_qp *qp, const struct ibv_send_wr *wr,
                        uint64_t bytes)
{
    bool local = wr->opcode == IBV_WR_BIND_MW || wr->opcode == IBV_WR_LOCAL_INV;
    bool known = wr->opcode == IBV_WR_RDMA_WRITE || wr->opcode == IBV_WR_SEND ||
                 wr->opcode == IBV_WR_RDMA_READ ||
                 wr->opcode == IBV_WR_RDMA_WRITE_WITH_IMM || local;

    if (qp->pub.state != IBV_QPS_RTS && qp->pub.state != IBV_QPS_ERR)
        return EINVAL;
    if (!known ||
        (qp->device->iwarp && (local || wr->opcode == IBV_WR_RDMA_WRITE_WITH_IMM)))
        return qp->device->iwarp ? -EINVAL : EINVAL;
    if (fake_rules.no_immediates && wr->opcode == IBV_WR_RDMA_WRITE_WITH_IMM)
        return -EINVAL;
    if (qp->posted - qp->freed >= qp->cap.max_send_wr)
        return ENOMEM;
    if (wr->num_sge < 0 || (uint32_t)wr->num_sge > qp->cap.max_send_sge)
        return EINVAL;
    if (qp->device->iwarp && wr->opcode == IBV_WR_RDMA_READ && wr->num_sge > 1)
        return -EINVAL;
    if ((wr->send_flags & IBV_SEND_INLINE) != 0 &&
        (bytes > qp->cap.max_inline_data || wr->opcode == IBV_WR_RDMA_READ || local))
        return EINVAL;
    return fake_fails("ibv_post_send") ? ENOMEM : 0;
}

static int send_one(struct fake_qp *qp, const struct ibv_send_wr *wr)
{
    struct fake_send *it = &qp->sends[qp->posted % qp->cap.max_send_wr];
    uint64_t bytes = 0;
    int problem;

    for (int i = 0; i < wr->num_sge; i++)
        bytes += wr->sg_list[i].length;
    problem = send_problem(qp, wr, bytes);
    if (problem != 0)
        return problem;
    it->wr = *wr;
    it->wr.next = NULL;
    it->wr.sg_list = NULL;
    it->bytes = bytes;
    it->tries = 0;
    if (wr->opcode == IBV_WR_BIND_MW) {
        it->window_key = wr->bind_mw.mw->rkey;
        it->region_key = wr->bind_mw.bind_info.mr->lkey;
    }
    bytes = 0;
    for (int i = 0; i < wr->num_sge; i++) {
        it->sge[i] = wr->sg_list[i];
        if ((wr->send_flags & IBV_SEND_INLINE) != 0 && wr->sg_list[i].length > 0) {
            memcpy(it->text + bytes, (const void *)(uintptr_t)wr->sg_list[i].addr,
                   wr->sg_list[i].length);
            bytes += wr->sg_list[i].length;
        }
    }
    qp->posted++;
    return 0;
}

int fake_post_send(struct ibv_qp *pub, struct ibv_send_wr *wr, struct ibv_send_wr **bad)
{
    struct fake_qp *qp = (struct fake_qp *)pub;
    int problem = 0;

    fake_lock();
    fake_world.counters.posts++;
    while (wr != NULL && problem == 0) {
        problem = send_one(qp, wr);
        if (problem != 0)
            *bad = wr;
        wr = wr->next;
    }
    if (pub->state == IBV_QPS_ERR)
        flush(qp);
    else if (fake_world.pace == FAKE_AT_POST)
        (void)fake_run(qp, INT32_MAX);
    fake_wake();
    fake_unlock();
    return problem;
}

static int receive_one(struct fake_qp *qp, const struct ibv_recv_wr *wr)
{
    struct fake_receive *it;

    if (qp->r_posted - qp->r_freed >= qp->cap.max_recv_wr)
        return ENOMEM;
    if (wr->num_sge < 0 || (uint32_t)wr->num_sge > qp->cap.max_recv_sge)
        return EINVAL;
    /* Of the many before there is a connection, the first and the second. */
    if ((qp->pub.state != IBV_QPS_INIT || qp->r_posted < 2) &&
        fake_fails("ibv_post_recv"))
        return ENOMEM;
    it = &qp->receives[qp->r_posted++ % qp->cap.max_recv_wr];
    it->wr_id = wr->wr_id;
    it->num_sge = wr->num_sge;
    for (int i = 0; i < wr->num_sge; i++)
        it->sge[i] = wr->sg_list[i];
    return 0;
}

int fake_post_recv(struct ibv_qp *pub, struct ibv_recv_wr *wr, struct ibv_recv_wr **bad)
{
    struct fake_qp *qp = (struct fake_qp *)pub;
    int problem = 0;

    fake_lock();
    while (wr != NULL && problem == 0) {
        problem = receive_one(qp, wr);
        if (problem != 0)
            *bad = wr;
        wr = wr->next;
    }
    if (pub->state == IBV_QPS_ERR)
        flush(qp);
    else
        fake_run_to(qp->peer);
    fake_wake();
    fake_unlock();
    return problem;
}
