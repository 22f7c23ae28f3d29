/* The verbs transport: devices. A nic is opened when the first connection over it comes
 * about, and closed with the endpoint. */
#include "transport/verbs/verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

/* Completions that may wait at once: of all channels that peers_max and pending connections make, but
 * no more than this or what the device has. */
#define COMPLETIONS_MAX (1u << 20)

/* librdmacm closes a device with the last id that uses it. One more id, bound to the
 * same address, keeps it. */
static int nic_hold(struct tp *tp, struct verbs_nic *nic, struct rdma_cm_id *id)
{
    struct sockaddr_storage here = {0};
    const struct sockaddr *address = rdma_get_local_addr(id);

    memcpy(&here, address,
           address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                          : sizeof(struct sockaddr_in));
    if (here.ss_family == AF_INET6)
        ((struct sockaddr_in6 *)(void *)&here)->sin6_port = 0;
    else
        ((struct sockaddr_in *)(void *)&here)->sin_port = 0;
    if (rdma_create_id(tp->channel, &nic->holder, NULL, RDMA_PS_TCP) != 0)
        return errno;
    if (rdma_bind_addr(nic->holder, (struct sockaddr *)(void *)&here) != 0)
        return errno;
    return nic->holder->verbs == nic->context ? 0 : ENODEV;
}

static uint32_t completions_wanted(const struct tp *tp, const struct verbs_nic *nic)
{
    uint32_t receives, depth;
    uint64_t channels = tp->config.peers_max + 8ull;
    uint64_t wanted;

    verbs_channel_needs(tp, &nic->attr, &receives, &depth);
    wanted = ((uint64_t)receives + depth) * channels;
    if (wanted > COMPLETIONS_MAX)
        wanted = COMPLETIONS_MAX;
    if (wanted > (uint64_t)nic->attr.max_cqe)
        wanted = (uint64_t)nic->attr.max_cqe;
    return (uint32_t)wanted;
}

static int nic_make(struct tp *tp, struct verbs_nic *nic, struct rdma_cm_id *id)
{
    struct ibv_port_attr port;
    int os;

    if (ibv_query_device(nic->context, &nic->attr) != 0)
        return errno == 0 ? EIO : errno;
    nic->piece = VERBS_PIECE;
    if (ibv_query_port(nic->context, id->port_num == 0 ? 1 : id->port_num, &port) ==
            0 &&
        port.max_msg_sz > 0 && port.max_msg_sz < nic->piece)
        nic->piece = port.max_msg_sz;
    nic->iwarp = nic->context->device->transport_type == IBV_TRANSPORT_IWARP;
    (void)fcntl(nic->context->async_fd, F_SETFL,
                fcntl(nic->context->async_fd, F_GETFL) | O_NONBLOCK);
    nic->windows = (nic->attr.device_cap_flags & (IBV_DEVICE_MEM_WINDOW_TYPE_2A |
                                                  IBV_DEVICE_MEM_WINDOW_TYPE_2B)) != 0;
    os = nic_hold(tp, nic, id);
    if (os != 0)
        return os;
    errno = 0;
    nic->pd = ibv_alloc_pd(nic->context);
    if (nic->pd == NULL)
        return errno == 0 ? ENOMEM : errno;
    nic->channel = ibv_create_comp_channel(nic->context);
    if (nic->channel == NULL)
        return errno == 0 ? ENOMEM : errno;
    if (fcntl(nic->channel->fd, F_SETFL,
              fcntl(nic->channel->fd, F_GETFL) | O_NONBLOCK) != 0)
        return errno;
    return 0;
}

static int queue_make(struct tp *tp, struct verbs_nic *nic)
{
    errno = 0;
    nic->cq[nic->queues] = ibv_create_cq(
        nic->context, (int)completions_wanted(tp, nic), NULL, nic->channel,
        (int)(nic->queues % (uint32_t)nic->context->num_comp_vectors));
    if (nic->cq[nic->queues] == NULL)
        return errno == 0 ? ENOMEM : errno;
    nic->queues++;
    return 0;
}

int verbs_nic_queue(struct tp *tp, struct verbs_nic *nic, uint32_t completions,
                    uint32_t *ret, struct gapless_error *error)
{
    uint32_t i;
    int os = 0;

    for (i = 0; i < VERBS_QUEUES && os == 0; i++) {
        if (i == nic->queues)
            os = queue_make(tp, nic);
        if (os == 0 && nic->cq_used[i] + completions <= (uint32_t)nic->cq[i]->cqe) {
            nic->cq_used[i] += completions;
            *ret = i;
            return GAPLESS_OK;
        }
    }
    return gapless_error_set(
        error, GAPLESS_CAPACITY, os,
        "%s has no completion queue for one more connection (%u of them, the longest "
        "has %d entries): use fewer workers, larger ranges, or several masters",
        ibv_get_device_name(nic->context->device), nic->queues, nic->attr.max_cqe);
}

static void nic_close(struct tp *tp, struct verbs_nic *nic)
{
    uint32_t i;

    verbs_loopback_end(tp, nic);
    for (i = 0; i < nic->queues; i++) {
        if (nic->unacked[i] > 0)
            ibv_ack_cq_events(nic->cq[i], nic->unacked[i]);
        (void)ibv_destroy_cq(nic->cq[i]);
    }
    if (nic->channel != NULL)
        (void)ibv_destroy_comp_channel(nic->channel);
    if (nic->pd != NULL)
        (void)ibv_dealloc_pd(nic->pd);
    if (nic->holder != NULL)
        (void)rdma_destroy_id(nic->holder);
    *nic = (struct verbs_nic){0};
}

int verbs_nic_get(struct tp *tp, struct rdma_cm_id *id, uint32_t *ret,
                  struct gapless_error *error)
{
    struct verbs_nic *nic;
    const char *name;
    uint32_t i;
    int os;

    for (i = 0; i < tp->nics; i++)
        if (tp->nic[i].context == id->verbs) {
            *ret = i;
            return GAPLESS_OK;
        }
    name = ibv_get_device_name(id->verbs->device);
    if (tp->nics == VERBS_NICS)
        return gapless_error_set(error, GAPLESS_CAPACITY, 0,
                                 "%s would be device number %u of one endpoint; at "
                                 "most %u are possible: name them with --device",
                                 name, VERBS_NICS + 1, VERBS_NICS);
    nic = &tp->nic[tp->nics];
    *nic = (struct verbs_nic){.context = id->verbs};
    os = nic_make(tp, nic, id);
    if (os != 0) {
        nic_close(tp, nic);
        return gapless_error_set(error, GAPLESS_SYSTEM, os,
                                 "the RDMA device %s cannot be used: 'gapless doctor' "
                                 "shows its limits and state",
                                 name);
    }
    *ret = tp->nics++;
    return GAPLESS_OK;
}

void verbs_nics_close(struct tp *tp)
{
    while (tp->nics > 0)
        nic_close(tp, &tp->nic[--tp->nics]);
}
