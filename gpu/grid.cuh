/* Grid: how launches are cut, and what they share of the scratch memory. */
#ifndef GAPLESS_GPU_GRID_CUH
#define GAPLESS_GPU_GRID_CUH

#include "gpu/kernels.h"
#include "gpu/launch.cuh"
#include "gpu/sums.cuh"

/* Blocks of 256 threads for each multiprocessor: 8 fill any of them (2,048 threads);
 * where fewer fit at a time the others follow. */
constexpr unsigned BLOCKS_EACH = 8;

/* The start of kernel_place.scratch; partial sums come behind it. */
struct scratch {
    unsigned ticket;
    unsigned flaw; /* finite: there was an element that is not */
    alignas(256) double partial[32];
};

static inline struct tally tally_of(const struct kernel_place *place, size_t n)
{
    struct scratch *scratch = static_cast<struct scratch *>(place->scratch);
    struct tally ret = {scratch->partial, &scratch->ticket, stretches_of(n)};
    return ret;
}

/* A block for each stretch, but not more than fill the GPU. */
static inline unsigned grid_of(const struct kernel_place *place, size_t n)
{
    size_t stretches = stretches_of(n);
    size_t most = (size_t)(place->processors ? place->processors : 1) * BLOCKS_EACH;

    return (unsigned)(stretches < most ? stretches ? stretches : 1 : most);
}

static inline bool aligned(const void *p)
{
    return reinterpret_cast<uintptr_t>(p) % sizeof(float4) == 0;
}

/* Of the arrays that are in use. */
static inline bool arrays_aligned(const struct arrays *at, unsigned slots)
{
    return (!(slots & SLOT_THETA) || aligned(at->theta)) &&
           (!(slots & SLOT_OWN) || aligned(at->own)) &&
           (!(slots & SLOT_ALL) || aligned(at->all)) &&
           (!(slots & SLOT_STAT) || aligned(at->stat)) &&
           (!(slots & SLOT_SENT) || aligned(at->sent)) &&
           (!(slots & SLOT_GRAD) || aligned(at->grad)) &&
           (!(slots & SLOT_SQUARE) || aligned(at->square)) &&
           (!(slots & SLOT_MEAN) || aligned(at->mean)) &&
           (!(slots & SLOT_TURNED) || aligned(at->turned));
}

#endif
