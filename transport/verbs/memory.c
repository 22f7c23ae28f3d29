/* The verbs transport: memory. Regions, their parts, and registrations of these.
 *
 *   region    | own memory | placed (a GPU's) | own memory |     one part, unless
 *             offset 0     offset                       bytes    something is placed
 *
 *   whole     for our own use: a client's put and get; what is placed, always
 *   half      server: windows are bound in it, below the split and from it on
 *   shared    server, TP_READ: one more, for reading, that all peers share
 *
 * What only one peer may do has a registration or window of its own (grant.c).
 */
#include "transport/verbs/verbs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096u
#define HUGE_PAGE (2u << 20)

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
        mr_end(tp, &part->shared[i]);
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
