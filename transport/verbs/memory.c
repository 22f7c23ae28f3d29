/* The verbs transport: devices and memory. A nic is opened when the first connection
 * over it comes about, and closed with the endpoint. Regions, their parts, and
 * registrations of these:
 *
 *   region    | own memory | placed (a GPU's) | own memory |     one part, unless
 *             offset 0     offset                       bytes    something is placed
 *
 *   whole     for our own use: a client's put and get; what is placed, always
 *   half      server: windows are bound in it, below the split and from it on
 *
 * What only one peer may do has a registration or window of its own (grant.c).
 */
#include "transport/verbs/verbs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096u
#define HUGE_PAGE (2u << 20)
/* Completions that may wait at once: of all channels that peers_max and pending
 * connections make, but no more than this or what the device has. */
#define COMPLETIONS_MAX (1u << 20)

/* ---- devices ------------------------------------------------------------- */

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

/* ---- regions ------------------------------------------------------------- */

/* Memory of huge pages if there are any reserved, else of transparent ones. */
static void *memory_take(size_t bytes, size_t *ret_mapped)
{
    size_t huge = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    void *base = MAP_FAILED;

    if (bytes >= HUGE_PAGE)
        base = mmap(NULL, huge, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    if (base != MAP_FAILED) {
        *ret_mapped = huge;
        return base;
    }
    *ret_mapped = (bytes + PAGE - 1) / PAGE * PAGE;
    base = mmap(NULL, *ret_mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                -1, 0);
    if (base == MAP_FAILED)
        return NULL;
    if (bytes >= HUGE_PAGE)
        (void)madvise(base, *ret_mapped, MADV_HUGEPAGE);
    return base;
}

static int region_slot(struct tp *tp, uint32_t *ret, struct gapless_error *error)
{
    struct verbs_region **regions;
    uint32_t at = 0, count;

    while (at < tp->region_count &&
           !(tp->regions[at] == NULL || tp->regions[at]->id == 0))
        at++;
    if (at == tp->region_count) {
        count = tp->region_count * 2 + 8;
        regions = realloc(tp->regions, count * sizeof(struct verbs_region *));
        if (regions == NULL)
            return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                     "no memory for %u regions", count);
        memset(regions + tp->region_count, 0,
               (count - tp->region_count) * sizeof(struct verbs_region *));
        tp->regions = regions;
        tp->region_count = count;
    }
    if (tp->regions[at] == NULL)
        tp->regions[at] = calloc(1, sizeof *tp->regions[at]);
    if (tp->regions[at] == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for a region");
    *ret = at;
    return GAPLESS_OK;
}

int verbs_region_new(struct tp *tp, size_t bytes, struct tp_region *ret,
                     struct gapless_error *error)
{
    struct verbs_region *region;
    uint32_t at = 0;
    int status;

    if (bytes == 0 || bytes > PTRDIFF_MAX - HUGE_PAGE)
        return gapless_error_set(error, GAPLESS_INVALID, 0, "a region of %zu bytes",
                                 bytes);
    status = region_slot(tp, &at, error);
    if (status != GAPLESS_OK)
        return status;
    region = tp->regions[at];
    *region = (struct verbs_region){.bytes = bytes};
    region->part = calloc(1, sizeof *region->part);
    if (region->part != NULL)
        region->base = memory_take(bytes, &region->mapped_bytes);
    if (region->part == NULL || region->base == NULL) {
        int os = errno;

        free(region->part);
        region->part = NULL;
        return gapless_error_set(error, GAPLESS_NO_MEMORY, os,
                                 "no memory for a region of %zu bytes; use a smaller "
                                 "model or fewer workers",
                                 bytes);
    }
    region->part[0] =
        (struct verbs_part){.bytes = bytes, .at = region->base, .dmabuf = -1};
    region->parts = 1;
    if (++tp->serial == 0)
        tp->serial = 1;
    region->id = tp->serial;
    *ret = (struct tp_region){
        .base = region->base, .bytes = bytes, .id = region->id, .handle = at};
    return GAPLESS_OK;
}

struct verbs_region *verbs_region_find(struct tp *tp, const struct tp_region *region)
{
    if (region == NULL || region->id == 0 || region->handle >= tp->region_count ||
        tp->regions[region->handle] == NULL ||
        tp->regions[region->handle]->id != region->id)
        return NULL;
    return tp->regions[region->handle];
}

const struct verbs_part *verbs_part_at(const struct verbs_region *region, size_t offset)
{
    const struct verbs_part *part = region->part;

    while (offset - part->offset >= part->bytes)
        part++;
    return part;
}

static void mr_end(struct tp *tp, struct ibv_mr **mr)
{
    if (*mr != NULL && ibv_dereg_mr(*mr) == 0)
        tp->counters.regions--;
    *mr = NULL;
}

void verbs_part_forget(struct tp *tp, struct verbs_part *part)
{
    uint32_t i;

    for (i = 0; i < VERBS_NICS; i++) {
        mr_end(tp, &part->whole[i]);
        mr_end(tp, &part->half[0][i]);
        mr_end(tp, &part->half[1][i]);
    }
}

void verbs_region_release(struct tp *tp, struct verbs_region *region)
{
    uint32_t i;

    for (i = 0; i < region->parts; i++) {
        verbs_part_forget(tp, &region->part[i]);
        if (region->part[i].dmabuf >= 0)
            (void)close(region->part[i].dmabuf);
    }
    free(region->part);
    if (region->base != NULL)
        (void)munmap(region->base, region->mapped_bytes);
    *region = (struct verbs_region){0};
}

void verbs_region_free(struct tp *tp, struct tp_region *region)
{
    struct verbs_region *entry = verbs_region_find(tp, region);

    if (entry == NULL)
        return;
    verbs_region_keys_end(tp, entry->id);
    verbs_region_release(tp, entry);
    *region = (struct tp_region){0};
}

/* ---- registrations ------------------------------------------------------- */

struct ibv_mr *verbs_part_register(struct tp *tp, struct ibv_pd *pd,
                                   struct verbs_part *part, size_t from, size_t bytes,
                                   unsigned access, struct gapless_error *error)
{
    struct ibv_mr *mr;

    errno = 0;
    if (part->placed)
        mr = verbs_placed_register(pd, part, from, bytes, access, error);
    else
        mr = ibv_reg_mr(pd, part->at + (from - part->offset), bytes, access);
    if (mr != NULL)
        tp->counters.regions++;
    else if (!part->placed)
        (void)verbs_memory_error(bytes, errno == 0 ? ENOMEM : errno, error);
    return mr;
}

int verbs_part_whole(struct tp *tp, struct verbs_part *part, uint32_t nic,
                     struct gapless_error *error)
{
    unsigned access = IBV_ACCESS_LOCAL_WRITE;

    if (part->whole[nic] != NULL)
        return GAPLESS_OK;
    if (tp->role == VERBS_CLIENT && tp->nic[nic].iwarp)
        access |= IBV_ACCESS_REMOTE_WRITE; /* a READ is answered by a write */
    if (tp->role == VERBS_SERVER && tp->nic[nic].windows && !part->card)
        access |= IBV_ACCESS_MW_BIND;
    part->whole[nic] = verbs_part_register(tp, tp->nic[nic].pd, part, part->offset,
                                           part->bytes, access, error);
    if (part->whole[nic] != NULL)
        return GAPLESS_OK;
    return part->card ? GAPLESS_UNSUPPORTED : GAPLESS_NO_MEMORY;
}
