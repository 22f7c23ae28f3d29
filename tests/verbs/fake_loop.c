/* The fake's queue pairs that are connected to themselves: made without an id, turned
 * RESET, INIT, RTR, RTS by hand. */
#include "tests/verbs/fake_own.h"

#include <errno.h>
#include <string.h>

static int create_problem(const struct ibv_pd *pd, const struct ibv_qp_init_attr *attr)
{
    const struct ibv_qp_cap *cap = &attr->cap;
    const struct fake_device *device = fake_context(pd->context)->device;

    if (device->iwarp)
        return EOPNOTSUPP; /* they belong to TCP connections */
    if (attr->qp_type != IBV_QPT_RC || attr->srq != NULL || attr->send_cq == NULL ||
        attr->recv_cq == NULL || attr->send_cq->context != pd->context ||
        attr->recv_cq->context != pd->context || cap->max_send_wr < 1 ||
        cap->max_send_wr > 4096 || cap->max_recv_wr > 4096 ||
        cap->max_send_sge > FAKE_SGE_MOST || cap->max_recv_sge > FAKE_SGE_MOST ||
        cap->max_inline_data > device->inline_most)
        return EINVAL;
    if (fake_fails("ibv_create_qp"))
        return ENOMEM;
    return device->removed ? EIO : 0;
}

struct ibv_qp *ibv_create_qp(struct ibv_pd *pd, struct ibv_qp_init_attr *attr)
{
    struct fake_qp *qp = NULL;
    int problem;

    fake_lock();
    problem = create_problem(pd, attr);
    if (problem == 0) {
        qp = fake_pair_new(pd, attr);
        problem = ENOMEM;
    }
    if (qp != NULL) {
        qp->pub.state = IBV_QPS_RESET;
        qp->looped = true;
    }
    fake_unlock();
    if (qp == NULL)
        errno = problem;
    return qp != NULL ? &qp->pub : NULL;
}

int ibv_destroy_qp(struct ibv_qp *pub)
{
    fake_lock();
    if (!((struct fake_qp *)pub)->looped)
        fake_fault("ibv_destroy_qp of a queue pair of an id");
    else
        fake_pair_free((struct fake_qp *)pub);
    fake_unlock();
    return 0;
}

/* To itself, by an address of its own port. */
static bool leads_home(const struct fake_qp *qp, const struct ibv_qp_attr *attr)
{
    union ibv_gid gid;

    return attr->dest_qp_num == qp->pub.qp_num && attr->ah_attr.port_num == 1 &&
           attr->ah_attr.is_global == 1 &&
           fake_gid_at(qp->device, attr->ah_attr.grh.sgid_index, &gid) &&
           memcmp(&gid, &attr->ah_attr.grh.dgid, sizeof gid) == 0 &&
           attr->path_mtu >= IBV_MTU_256 && attr->path_mtu <= IBV_MTU_1024;
}

int fake_loop_turn(struct fake_qp *qp, const struct ibv_qp_attr *attr, int mask)
{
    const int init =
        IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_ACCESS_FLAGS;
    const int rtr = IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
                    IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER;
    const int rts = IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT |
                    IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC;

    if ((mask & IBV_QP_STATE) == 0)
        return EINVAL;
    if (attr->qp_state == IBV_QPS_ERR) {
        fake_pair_end(qp);
        return 0;
    }
    if (qp->pub.state == IBV_QPS_RESET && attr->qp_state == IBV_QPS_INIT &&
        mask == init && attr->port_num == 1) {
        qp->pub.state = IBV_QPS_INIT;
        return 0;
    }
    if (qp->pub.state == IBV_QPS_INIT && attr->qp_state == IBV_QPS_RTR && mask == rtr &&
        leads_home(qp, attr)) {
        qp->peer = qp->pub.qp_num;
        qp->answers = attr->max_dest_rd_atomic;
        qp->pub.state = IBV_QPS_RTR;
        return 0;
    }
    if (qp->pub.state == IBV_QPS_RTR && attr->qp_state == IBV_QPS_RTS && mask == rts &&
        attr->retry_cnt <= 7 && attr->rnr_retry <= 7 && attr->timeout < 32) {
        qp->reads = attr->max_rd_atomic;
        qp->retries = attr->retry_cnt;
        qp->rnr_retries = attr->rnr_retry;
        qp->pub.state = IBV_QPS_RTS;
        return 0;
    }
    return EINVAL;
}
