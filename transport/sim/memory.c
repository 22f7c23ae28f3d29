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
    int status = tp_table_add(&tp->regions, region, ret, error);

    if (status != GAPLESS_OK) {
        sim_memory_release(region->memory);
        sim_memory_release(region->remote);
        return status;
    }
    ret->base = region->memory->base;
    ret->bytes = region->memory->bytes;
    return GAPLESS_OK;
}

struct sim_region *sim_region_find(struct tp *tp, const struct tp_region *region)
{
    return tp_table_find(&tp->regions, region);
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
