/* The verbs transport: memory of the caller's takes the place of a region's own.
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

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096u

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
