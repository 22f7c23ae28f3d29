/* Simulated transport: regions and windows, and bytes under way between them. */
#include "transport/sim/world.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* ---- memory -------------------------------------------------------------- */

struct sim_memory *sim_memory_new(size_t bytes)
{
    struct sim_memory *memory = calloc(1, sizeof *memory);
    int os;

    if (memory == NULL)
        return NULL;
    memory->bytes = bytes;
    memory->refs = 1;
    memory->base = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory->base != MAP_FAILED)
        return memory;
    os = errno;
    free(memory);
    errno = os;
    return NULL;
}

void sim_memory_release(struct sim_memory *memory)
{
    if (memory == NULL || --memory->refs > 0)
        return;
    (void)munmap(memory->base, memory->bytes);
    free(memory);
}

struct sim_move *sim_move_new(struct sim_memory *from, struct sim_memory *to,
                              size_t offset, size_t bytes, uint32_t refs)
{
    struct sim_move *move = calloc(1, sizeof *move);

    if (move == NULL)
        return NULL;
    *move = (struct sim_move){
        .from = from, .to = to, .offset = offset, .bytes = bytes, .refs = refs};
    from->refs++;
    to->refs++;
    if (bytes <= SIM_INLINE) {
        memcpy(move->inlined, (const char *)from->base + offset, bytes);
        move->is_inlined = true;
    }
    return move;
}

void sim_move_end(struct sim_move *move, bool delivered)
{
    if (move == NULL)
        return;
    if (delivered && !move->carried)
        memcpy((char *)move->to->base + move->offset,
               move->is_inlined ? move->inlined
                                : (const char *)move->from->base + move->offset,
               move->bytes);
    move->carried = move->carried || delivered;
    if (--move->refs > 0)
        return;
    sim_memory_release(move->from);
    sim_memory_release(move->to);
    free(move);
}

/* ---- regions ------------------------------------------------------------- */

int sim_region_add(struct tp *tp, const struct sim_region *region,
                   struct tp_region *ret, struct gapless_error *error)
{
    struct sim_region *regions;
    uint32_t at = 0;

    while (at < tp->region_count && tp->regions[at].id != 0)
        at++;
    if (at == tp->region_count) {
        size_t count = (size_t)tp->region_count * 2 + 8;

        regions = realloc(tp->regions, count * sizeof *regions);
        if (regions == NULL) {
            sim_memory_release(region->memory);
            sim_memory_release(region->remote);
            return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                     "no memory for %zu regions", count);
        }
        memset(regions + tp->region_count, 0,
               (count - tp->region_count) * sizeof *regions);
        tp->regions = regions;
        tp->region_count = (uint32_t)count;
    }
    /* A number of its own, so that a handle kept after region_free is known as
     * stale. */
    if (++tp->region_serial == 0)
        tp->region_serial = 1;
    tp->regions[at] = *region;
    tp->regions[at].id = tp->region_serial;
    *ret = (struct tp_region){
        .base = region->memory->base,
        .bytes = region->memory->bytes,
        .split = region->split,
        .id = tp->region_serial,
        .handle = at,
    };
    return GAPLESS_OK;
}

struct sim_region *sim_region_find(struct tp *tp, const struct tp_region *region)
{
    if (region == NULL || region->id == 0 || region->handle >= tp->region_count ||
        tp->regions[region->handle].id != region->id)
        return NULL;
    return &tp->regions[region->handle];
}

int sim_region_new(struct tp *tp, size_t bytes, struct tp_region *ret,
                   struct gapless_error *error)
{
    struct sim_memory *memory;

    if (bytes == 0 || bytes > PTRDIFF_MAX)
        return gapless_error_set(error, GAPLESS_INVALID, 0, "a region of %zu bytes",
                                 bytes);
    memory = sim_memory_new(bytes);
    if (memory == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, errno,
                                 "no memory for a region of %zu bytes; use a smaller "
                                 "model or fewer workers",
                                 bytes);
    return sim_region_add(tp, &(struct sim_region){.memory = memory}, ret, error);
}

void sim_region_free(struct tp *tp, struct tp_region *region)
{
    struct sim_region *entry = sim_region_find(tp, region);
    struct sim_world *root;

    if (entry == NULL)
        return;
    root = sim_lock(tp);
    sim_memory_release(entry->memory);
    sim_memory_release(entry->remote);
    sim_unlock(root);
    *entry = (struct sim_region){0};
    *region = (struct tp_region){0};
}
