/* The verbs transport: a card's own way to placed memory and back, to prove that it
 * reaches it, and to order what it wrote there.
 *
 *   bounce buffer (host) <── a queue pair connected to itself ──> placed memory
 *        far end                                                    near end
 *
 *   TP_INTO    READ of the buffer: the card writes to the placed memory
 *   TP_OUT_OF  WRITE to the buffer: the card reads the placed memory
 *
 * A read by the card cannot pass what the card wrote to the same memory before (PCI
 * Express, ordering of non-posted behind posted requests), so when it is done those
 * bytes are there: what NCCL does with a READ over such a queue pair, and DOCA with a
 * DUMP of its requester. Placed memory is the near end both times: no key is made by
 * which a peer could reach it.
 */
#include "transport/verbs/verbs.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#define BOUND_NS UINT64_C(1000000000)
#define PAGE 4096u
/* Looks at the queue before the clock is read. */
#define LOOKS 32u
#define GIDS 256

struct verbs_loopback {
    struct ibv_cq *cq;
    struct ibv_qp *qp;
    struct ibv_mr *mr;
    char *bounce; /* TP_LOOPBACK_MAX */
};

/* ---- making -------------------------------------------------------------- */

/* The entry of the port's table that is the address the nic is bound to, of RoCE v2 if
 * it is there twice. */
static uint8_t gid_index(const struct verbs_nic *nic, const struct ibv_port_attr *port)
{
    const struct sockaddr *here = rdma_get_local_addr(nic->holder);
    uint8_t number = nic->holder->port_num == 0 ? 1 : nic->holder->port_num;
    union ibv_gid wanted = {.raw = {[10] = 0xff, [11] = 0xff}};
    struct ibv_gid_entry entry;
    uint8_t found = 0;
    uint32_t i;

    if (here->sa_family == AF_INET6)
        memcpy(wanted.raw,
               &((const struct sockaddr_in6 *)(const void *)here)->sin6_addr,
               sizeof wanted.raw);
    else
        memcpy(wanted.raw + 12,
               &((const struct sockaddr_in *)(const void *)here)->sin_addr, 4);
    for (i = 0; i < GIDS && i < (uint32_t)port->gid_tbl_len; i++) {
        if (ibv_query_gid_ex(nic->context, number, i, &entry, 0) != 0 ||
            memcmp(entry.gid.raw, wanted.raw, sizeof wanted.raw) != 0)
            continue;
        found = (uint8_t)i;
        if (entry.gid_type == IBV_GID_TYPE_ROCE_V2)
            break;
    }
    return found;
}

/* The way back to this port. False: it is unknown. */
static bool way_home(const struct verbs_nic *nic, struct ibv_qp_attr *ret)
{
    uint8_t number = nic->holder->port_num == 0 ? 1 : nic->holder->port_num;
    struct ibv_port_attr port;

    if (ibv_query_port(nic->context, number, &port) != 0)
        return false;
    ret->port_num = number;
    ret->path_mtu = port.active_mtu;
    ret->ah_attr = (struct ibv_ah_attr){.dlid = port.lid, .port_num = number};
    if (port.link_layer == IBV_LINK_LAYER_ETHERNET ||
        (port.flags & IBV_QPF_GRH_REQUIRED) != 0) {
        ret->ah_attr.is_global = 1;
        ret->ah_attr.grh.hop_limit = 255;
        if (port.link_layer == IBV_LINK_LAYER_ETHERNET)
            ret->ah_attr.grh.sgid_index = gid_index(nic, &port);
        if (ibv_query_gid(nic->context, number, ret->ah_attr.grh.sgid_index,
                          &ret->ah_attr.grh.dgid) != 0)
            return false;
    }
    return true;
}

/* RESET, INIT, RTR, RTS; what each step needs is in ibv_modify_qp(3). Returns
 * an errno. */
static int pair_turn(const struct tp *tp, const struct verbs_nic *nic,
                     struct ibv_qp *qp)
{
    struct ibv_qp_attr attr = {.qp_state = IBV_QPS_INIT,
                               .qp_access_flags =
                                   IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE,
                               .dest_qp_num = qp->qp_num,
                               .max_dest_rd_atomic = 1,
                               .max_rd_atomic = 1,
                               .min_rnr_timer = 12,
                               .timeout = (uint8_t)tp->config.net.ack_timeout,
                               .retry_cnt = 6,
                               .rnr_retry = 6};
    int failed;

    if (!way_home(nic, &attr))
        return errno == 0 ? EIO : errno;
    failed = ibv_modify_qp(qp, &attr,
                           IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT |
                               IBV_QP_ACCESS_FLAGS);
    attr.qp_state = IBV_QPS_RTR;
    if (failed == 0)
        failed = ibv_modify_qp(qp, &attr,
                               IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU |
                                   IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
                                   IBV_QP_MAX_DEST_RD_ATOMIC | IBV_QP_MIN_RNR_TIMER);
    attr.qp_state = IBV_QPS_RTS;
    if (failed == 0)
        failed = ibv_modify_qp(qp, &attr,
                               IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT |
                                   IBV_QP_RNR_RETRY | IBV_QP_SQ_PSN |
                                   IBV_QP_MAX_QP_RD_ATOMIC);
    return failed < 0 ? -failed : failed;
}

/* Returns an errno. */
static int loop_fill(struct tp *tp, struct verbs_nic *nic, struct verbs_loopback *loop)
{
    struct ibv_qp_init_attr attr = {
        .cap = {.max_send_wr = 4,
                .max_recv_wr = 1,
                .max_send_sge = 1,
                .max_recv_sge = 1},
        .qp_type = IBV_QPT_RC,
    };

    errno = 0;
    loop->bounce = aligned_alloc(PAGE, TP_LOOPBACK_MAX);
    if (loop->bounce == NULL)
        return ENOMEM;
    memset(loop->bounce, 0, TP_LOOPBACK_MAX);
    loop->mr = ibv_reg_mr(nic->pd, loop->bounce, TP_LOOPBACK_MAX,
                          IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ |
                              IBV_ACCESS_REMOTE_WRITE);
    if (loop->mr == NULL)
        return errno == 0 ? ENOMEM : errno;
    tp->counters.regions++;
    loop->cq = ibv_create_cq(nic->context, 8, NULL, NULL, 0);
    if (loop->cq == NULL)
        return errno == 0 ? ENOMEM : errno;
    attr.send_cq = attr.recv_cq = loop->cq;
    loop->qp = ibv_create_qp(nic->pd, &attr);
    if (loop->qp == NULL)
        return errno == 0 ? ENOMEM : errno;
    return pair_turn(tp, nic, loop->qp);
}

void verbs_loopback_end(struct tp *tp, struct verbs_nic *nic)
{
    struct verbs_loopback *loop = nic->loop;

    if (loop == NULL)
        return;
    if (loop->qp != NULL)
        (void)ibv_destroy_qp(loop->qp);
    if (loop->cq != NULL)
        (void)ibv_destroy_cq(loop->cq);
    if (loop->mr != NULL && ibv_dereg_mr(loop->mr) == 0)
        tp->counters.regions--;
    free(loop->bounce);
    free(loop);
    nic->loop = NULL;
}

static int loop_make(struct tp *tp, struct verbs_nic *nic, struct gapless_error *error)
{
    int os;

    if (nic->loop != NULL)
        return GAPLESS_OK;
    nic->loop = calloc(1, sizeof *nic->loop);
    if (nic->loop == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory");
    os = loop_fill(tp, nic, nic->loop);
    if (os == 0)
        return GAPLESS_OK;
    verbs_loopback_end(tp, nic);
    return gapless_error_set(error, GAPLESS_SYSTEM, os,
                             "%s cannot be connected to itself, for a trial of memory "
                             "of a GPU: see 'gapless doctor' for its ports",
                             ibv_get_device_name(nic->context->device));
}

/* ---- moving -------------------------------------------------------------- */

static int move_error(struct verbs_nic *nic, size_t bytes, enum tp_way way,
                      const struct ibv_wc *wc, struct gapless_error *error)
{
    const char *card = ibv_get_device_name(nic->context->device);
    const char *what = way == TP_INTO ? "write to" : "read";

    if (wc == NULL)
        return gapless_error_set(error, GAPLESS_TIMEOUT, 0,
                                 "%s was to %s placed memory (%zu bytes) and is not "
                                 "done after %.0f s: an IOMMU or PCIe ACS may keep it "
                                 "away, or its port is down",
                                 card, what, bytes, 1e-9 * (double)BOUND_NS);
    return gapless_error_set(error, GAPLESS_SYSTEM, 0,
                             "%s was to %s placed memory (%zu bytes) and failed (%s): "
                             "an IOMMU or PCIe ACS may keep it away, or its port is "
                             "down",
                             card, what, bytes, ibv_wc_status_str(wc->status));
}

static int move(struct tp *tp, struct verbs_nic *nic, const struct verbs_part *part,
                uint32_t number, size_t skip, size_t bytes, enum tp_way way,
                struct gapless_error *error)
{
    struct ibv_sge sge = verbs_sge(part->at + skip, bytes, part->whole[number]);
    struct ibv_send_wr wr = {.opcode =
                                 way == TP_INTO ? IBV_WR_RDMA_READ : IBV_WR_RDMA_WRITE,
                             .sg_list = &sge,
                             .num_sge = 1,
                             .send_flags = IBV_SEND_SIGNALED};
    uint64_t end = verbs_now_ns() + BOUND_NS;
    struct ibv_send_wr *bad = NULL;
    struct ibv_wc wc;
    uint32_t looks = 0;
    int failed, count = 0;

    wr.wr.rdma.remote_addr = (uint64_t)(uintptr_t)nic->loop->bounce;
    wr.wr.rdma.rkey = nic->loop->mr->rkey;
    failed = ibv_post_send(nic->loop->qp, &wr, &bad);
    tp->counters.doorbells++;
    tp->counters.requests++;
    if (failed != 0)
        return gapless_error_set(error, GAPLESS_SYSTEM, failed < 0 ? -failed : failed,
                                 "a trial of %s cannot be posted",
                                 ibv_get_device_name(nic->context->device));
    while (count == 0 && (++looks % LOOKS != 0 || verbs_now_ns() < end)) {
        count = ibv_poll_cq(nic->loop->cq, 1, &wc);
        if (looks > 64 * LOOKS && looks % LOOKS == 1)
            (void)sched_yield();
    }
    if (count < 0)
        return gapless_error_set(error, GAPLESS_SYSTEM, 0,
                                 "the completion queue of %s cannot be read",
                                 ibv_get_device_name(nic->context->device));
    tp->counters.completions += (uint64_t)count;
    if (count > 0 && wc.status == IBV_WC_SUCCESS)
        return GAPLESS_OK;
    return move_error(nic, bytes, way, count > 0 ? &wc : NULL, error);
}

static int loop_check(const struct tp *tp, const struct verbs_region *region,
                      size_t offset, const void *host, size_t bytes,
                      const struct verbs_part **ret, struct gapless_error *error)
{
    const struct verbs_part *part;
    uint32_t i, known = 0;

    if (region == NULL || host == NULL || bytes == 0 || bytes > TP_LOOPBACK_MAX ||
        offset >= region->bytes || bytes > region->bytes - offset)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "1 to %u bytes of one placed part can be tried",
                                 TP_LOOPBACK_MAX);
    part = verbs_part_at(region, offset);
    if (!part->placed || bytes > part->offset + part->bytes - offset)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "only bytes of one placed part can be tried");
    for (i = 0; i < tp->nics; i++) {
        if (part->whole[i] != NULL && tp->nic[i].iwarp)
            return gapless_error_set(error, GAPLESS_UNSUPPORTED, 0,
                                     "%s is iWARP, which cannot be connected to itself",
                                     ibv_get_device_name(tp->nic[i].context->device));
        known += part->whole[i] != NULL ? 1 : 0;
    }
    *ret = part;
    return known > 0 ? GAPLESS_OK
                     : gapless_error_set(error, GAPLESS_AGAIN, 0,
                                         "no card is known yet that could try it: "
                                         "listen at a card's address, or wait for a "
                                         "connection");
}

int verbs_loopback(struct tp *tp, const struct tp_region *region, size_t offset,
                   void *host, size_t bytes, enum tp_way way,
                   struct gapless_error *error)
{
    const struct verbs_part *part = NULL;
    bool first = true;
    uint32_t i;
    int status = loop_check(tp, verbs_region_find(tp, region), offset, host, bytes,
                            &part, error);

    if (status != GAPLESS_OK || part == NULL)
        return status;
    for (i = 0; status == GAPLESS_OK && i < tp->nics; i++) {
        struct verbs_nic *nic = &tp->nic[i];

        if (part->whole[i] == NULL)
            continue;
        status = loop_make(tp, nic, error);
        if (status != GAPLESS_OK || nic->loop == NULL)
            return status;
        if (way == TP_INTO)
            memcpy(nic->loop->bounce, host, bytes);
        status = move(tp, nic, part, i, offset - part->offset, bytes, way, error);
        if (status == GAPLESS_OK && way == TP_OUT_OF && !first &&
            memcmp(host, nic->loop->bounce, bytes) != 0)
            return gapless_error_set(error, GAPLESS_SYSTEM, 0,
                                     "%s reads other bytes of placed memory than the "
                                     "cards before it",
                                     ibv_get_device_name(nic->context->device));
        if (status == GAPLESS_OK && way == TP_OUT_OF)
            memcpy(host, nic->loop->bounce, bytes);
        first = false;
        if (status != GAPLESS_OK) /* what is still under way ends with the pair */
            verbs_loopback_end(tp, nic);
    }
    return status;
}
