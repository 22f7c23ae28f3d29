/* The verbs transport: memory of the caller's takes the place of a region's own; and a
 * card's way to that memory and back.
 *
 *   before   | own                                   |
 *   place    | own      | placed          | own      |    the cards' requests go to
 *                       └ DMA-BUF, or its address         memory->base there
 *
 * A DMA-BUF is registered so that its bytes are called as the GPU calls them (iova =
 * memory->base); mr->addr is something else then, so the part keeps the address. Where
 * that fails the address itself is registered: nvidia-peermem answers for a GPU's, and
 * memory of the host needs no plugin.
 */
#include "transport/verbs/verbs.h"

#include "engine/base/array.h"
#include "engine/base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096u
#define BOUND_NS UINT64_C(1000000000)
/* Looks at the queue before the clock is read. */
#define LOOKS 32u
#define GIDS 256

/* ---- registering --------------------------------------------------------- */

/* Why a DMA-BUF was not taken, and what to do: by the errors of Linux 5.12 and later
 * (uverbs_std_types_mr.c, dma-buf.c) and of NVIDIA's open kernel modules. */
static const char *dmabuf_text(int os)
{
    switch (os) {
    case EOPNOTSUPP:
    case EPROTONOSUPPORT:
    case ENOSYS:
        return "this card's driver does not take them (mlx5 does, from Linux 5.12 on)";
    case EINVAL:
        return "the kernel refused them (offset and address must agree in their last "
               "12 bits)";
    case EBADF:
        return "the descriptor was not one";
    case ENOMEM:
    case ENOSPC:
        return "there was no room: BAR1 of the GPU is too small (nvidia-smi -q -d "
               "MEMORY; turn on Above 4G Decoding and Resizable BAR in the firmware), "
               "or the card's tables are full";
    default:
        return "the GPU's driver refused them: an IOMMU or PCIe ACS may keep the two "
               "apart (iommu=pt, and ACS off on the switches between them)";
    }
}

/* The same of the address. */
static const char *address_text(int os)
{
    if (os == EFAULT || os == EINVAL || os == EOPNOTSUPP)
        return "the kernel knows no memory there, try 'modprobe nvidia-peermem'";
    if (os == ENOMEM)
        return "there was no room: BAR1 is too small, or 'ulimit -l'";
    return "the card's driver refused";
}

static int card_error(const struct ibv_pd *pd, size_t bytes, int by_dmabuf,
                      int by_address, struct gapless_error *error)
{
    const char *card = ibv_get_device_name(pd->context->device);

    if (by_dmabuf == 0)
        return gapless_error_set(error, GAPLESS_UNSUPPORTED, by_address,
                                 "%s cannot reach %zu bytes of a GPU. There was no "
                                 "DMA-BUF of them; by address: %s",
                                 card, bytes, address_text(by_address));
    return gapless_error_set(error, GAPLESS_UNSUPPORTED, by_dmabuf,
                             "%s cannot reach %zu bytes of a GPU. By address: %s (%s); "
                             "as DMA-BUF: %s",
                             card, bytes, address_text(by_address),
                             strerror(by_address), dmabuf_text(by_dmabuf));
}

/* Of several ways the one that says least of what was hoped for. */
static void describe_how(struct verbs_part *part, const char *how)
{
    if (part->how == NULL || strcmp(how, "DMA-BUF") != 0)
        part->how = how;
}

struct ibv_mr *verbs_placed_register(struct ibv_pd *pd, struct verbs_part *part,
                                     size_t from, size_t bytes, unsigned access,
                                     struct gapless_error *error)
{
    size_t skip = from - part->offset;
    int by_dmabuf = 0, by_address;
    struct ibv_mr *mr = NULL;

    if (part->dmabuf >= 0) {
        errno = 0;
        mr = ibv_reg_dmabuf_mr(pd, part->dmabuf_at + skip, bytes,
                               (uint64_t)(uintptr_t)(part->at + skip), part->dmabuf,
                               (int)access);
        by_dmabuf = errno == 0 ? EIO : errno;
    }
    if (mr != NULL) {
        describe_how(part, "DMA-BUF");
        return mr;
    }
    errno = 0;
    mr = ibv_reg_mr(pd, part->at + skip, bytes, access);
    by_address = errno == 0 ? ENOMEM : errno;
    if (mr != NULL)
        describe_how(part, part->card ? "nvidia-peermem" : "host");
    else if (part->card)
        (void)card_error(pd, bytes, by_dmabuf, by_address, error);
    else
        (void)verbs_memory_error(bytes, by_address, error);
    return mr;
}

/* With the cards known now. */
static int register_now(struct tp *tp, struct verbs_part *part,
                        struct gapless_error *error)
{
    int status = GAPLESS_OK;
    uint32_t i;

    for (i = 0; status == GAPLESS_OK && i < tp->nics; i++)
        status = verbs_part_whole(tp, part, i, error);
    return status;
}

/* Those that a server listens at are known before anybody has come by them. */
static int cards_open(struct tp *tp, struct gapless_error *error)
{
    int status = GAPLESS_OK;
    uint32_t i, nic;

    for (i = 0; status == GAPLESS_OK && i < tp->listeners; i++)
        if (tp->listener[i]->verbs != NULL)
            status = verbs_nic_get(tp, tp->listener[i], &nic, error);
    return status;
}

int verbs_bind_all(struct tp *tp, struct gapless_error *error)
{
    int status = GAPLESS_OK;
    bool open = false;
    uint32_t i, k;

    for (i = 0; i < tp->region_count; i++) {
        struct verbs_region *region = tp->regions[i];

        for (k = 0; region != NULL && status == GAPLESS_OK && k < region->parts; k++) {
            if (!region->part[k].placed)
                continue;
            if (!open)
                status = cards_open(tp, error);
            open = true;
            if (status == GAPLESS_OK)
                status = register_now(tp, &region->part[k], error);
        }
    }
    return status;
}

/* ---- placing ------------------------------------------------------------- */

/* What is asked for makes sense. *ret_in: the part that it takes from. */
static int place_check(const struct verbs_region *region, size_t offset,
                       const struct tp_memory *memory, uint32_t *ret_in,
                       struct gapless_error *error)
{
    uint64_t base, at;
    size_t end;
    uint32_t i;

    if (region == NULL || memory == NULL || memory->base == NULL ||
        memory->bytes == 0 || offset > region->bytes ||
        memory->bytes > region->bytes - offset ||
        (uintptr_t)memory->base > UINTPTR_MAX - memory->bytes)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "memory to be placed lies within its region");
    if (region->granted || region->moved)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "memory is placed before a region is granted, or "
                                 "anything of it is put or got");
    base = (uint64_t)(uintptr_t)memory->base;
    *ret_in = (uint32_t)(verbs_part_at(region, offset) - region->part);
    end = region->part[*ret_in].offset + region->part[*ret_in].bytes;
    if (region->part[*ret_in].placed || offset + memory->bytes > end)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "memory was placed there before");
    for (i = 0; i < region->parts; i++) {
        at = (uint64_t)(uintptr_t)region->part[i].at;
        if (region->part[i].placed && base < at + region->part[i].bytes &&
            at < base + memory->bytes)
            return gapless_error_set(error, GAPLESS_INVALID, 0,
                                     "the same memory cannot be in two places of a "
                                     "region");
    }
    if (region->parts + 2 > VERBS_PARTS)
        return gapless_error_set(error, GAPLESS_CAPACITY, 0,
                                 "a region has at most %u parts", VERBS_PARTS);
    return GAPLESS_OK;
}

static int placed_make(size_t offset, const struct tp_memory *memory,
                       struct verbs_part *ret, struct gapless_error *error)
{
    *ret = (struct verbs_part){.offset = offset,
                               .bytes = memory->bytes,
                               .at = memory->base,
                               .placed = true,
                               .card = memory->gpu || memory->dmabuf >= 0,
                               .dmabuf = -1,
                               .dmabuf_at = memory->dmabuf_at};
    if (memory->dmabuf < 0)
        return GAPLESS_OK;
    /* The caller closes his; cards that come later need one. */
    ret->dmabuf = fcntl(memory->dmabuf, F_DUPFD_CLOEXEC, 0);
    return ret->dmabuf >= 0 ? GAPLESS_OK
                            : gapless_error_set(error, GAPLESS_SYSTEM, errno,
                                                "the DMA-BUF cannot be kept open");
}

static void part_drop(struct tp *tp, struct verbs_part *part)
{
    verbs_part_forget(tp, part);
    if (part->dmabuf >= 0)
        (void)close(part->dmabuf);
}

/* Own memory beside what is placed. It is registered with the cards with which `of`,
 * that it is a piece of, was. */
static int own_make(struct tp *tp, const struct verbs_part *of, size_t from, size_t to,
                    struct verbs_part *ret, struct gapless_error *error)
{
    int status = GAPLESS_OK;
    uint32_t i;

    *ret = (struct verbs_part){.offset = from,
                               .bytes = to - from,
                               .at = of->at + (from - of->offset),
                               .dmabuf = -1};
    for (i = 0; status == GAPLESS_OK && i < tp->nics && from < to; i++)
        if (of->whole[i] != NULL)
            status = verbs_part_whole(tp, ret, i, error);
    if (status != GAPLESS_OK)
        verbs_part_forget(tp, ret);
    return status;
}

/* Part `in` of the region is [left] [placed] [right] from now on. */
static int parts_cut(struct tp *tp, struct verbs_region *region, uint32_t in,
                     const struct verbs_part *placed, struct gapless_error *error)
{
    struct verbs_part *old = &region->part[in], left, right;
    struct verbs_part *more = calloc(region->parts + 2, sizeof *more);
    size_t from = placed->offset, to = from + placed->bytes;
    uint32_t count = 0, i;
    int status;

    if (more == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for the parts of a region");
    status = own_make(tp, old, old->offset, from, &left, error);
    if (status != GAPLESS_OK) {
        free(more);
        return status;
    }
    status = own_make(tp, old, to, old->offset + old->bytes, &right, error);
    if (status != GAPLESS_OK) {
        verbs_part_forget(tp, &left);
        free(more);
        return status;
    }
    verbs_part_forget(tp, old);
    for (i = 0; i < region->parts; i++) {
        if (i != in) {
            more[count++] = region->part[i];
            continue;
        }
        if (left.bytes > 0)
            more[count++] = left;
        more[count++] = *placed;
        if (right.bytes > 0)
            more[count++] = right;
    }
    free(region->part);
    region->part = more;
    region->parts = count;
    return GAPLESS_OK;
}

/* Own memory that no peer reaches any more, which a client had locked, goes back to the
 * system, page by page; its addresses stay. */
static void own_release(const struct verbs_region *region,
                        const struct verbs_part *placed)
{
    uintptr_t base = (uintptr_t)region->base;
    uintptr_t from = base + (placed->offset + PAGE - 1) / PAGE * PAGE;
    uintptr_t to = base + (placed->offset + placed->bytes) / PAGE * PAGE;

    if (from < to)
        (void)madvise((void *)from, to - from, MADV_DONTNEED);
}

int verbs_bind_memory(struct tp *tp, struct tp_region *region, size_t offset,
                      const struct tp_memory *memory, const char **ret_how,
                      struct gapless_error *error)
{
    struct verbs_region *entry = verbs_region_find(tp, region);
    struct verbs_part placed;
    uint32_t in = 0;
    int status = place_check(entry, offset, memory, &in, error);

    if (status == GAPLESS_OK)
        status = cards_open(tp, error);
    if (status == GAPLESS_OK)
        status = placed_make(offset, memory, &placed, error);
    if (status != GAPLESS_OK)
        return status;
    status = register_now(tp, &placed, error);
    if (status == GAPLESS_OK)
        status = parts_cut(tp, entry, in, &placed, error);
    if (status != GAPLESS_OK) {
        part_drop(tp, &placed);
        return status;
    }
    own_release(entry, &placed);
    tp->apart = tp->apart || (placed.card && tp->role != VERBS_CLIENT);
    *ret_how = placed.how != NULL ? placed.how : "not registered yet";
    return GAPLESS_OK;
}

/* ---- loopback: making ---------------------------------------------------- */

/* A card's own way to placed memory and back, to prove that it reaches it, and to order
 * what it wrote there.
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
struct verbs_loopback {
    struct ibv_cq *cq;
    struct ibv_qp *qp;
    struct ibv_mr *mr;
    char *bounce; /* TP_LOOPBACK_MAX */
};

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
    loop->bounce = array_zeroed(PAGE, TP_LOOPBACK_MAX);
    if (loop->bounce == NULL)
        return ENOMEM;
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

/* ---- loopback: moving ---------------------------------------------------- */

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
    uint64_t end = clock_ns() + BOUND_NS;
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
    while (count == 0 && (++looks % LOOKS != 0 || clock_ns() < end)) {
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
