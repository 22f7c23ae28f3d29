/* Sums with the bits of the CPU (engine/compute/compute_lanes.h has the order), whatever the
 * grid.
 *
 *   products of a stretch ──> tile in shared memory    by all threads of a block
 *   tile ──> 16 sums of 64 terms ──> partial[stretch]  by a thread for each lane
 *   the block that ends last:
 *   partial ──> a sum for each span and lane           by a thread for each
 *           ──> a sum for each lane, span after span   by 16 threads
 *           ──> lane 0 first, lane 15 last             by one
 *
 * The last block is found by a ticket. What orders memory: every thread writes its
 * partial sums; the barrier; one thread's fence before it takes the ticket and its
 * fence after, before the barrier that lets its block go on. No block waits for
 * another.
 */
#ifndef GAPLESS_GPU_SUMS_CUH
#define GAPLESS_GPU_SUMS_CUH

#include "gpu/four.cuh"

#include "engine/device/device.h"

/* What is added up, and how a lane of a stretch adds its 64 terms. */
constexpr unsigned SUM_GAP = 1;     /* in float */
constexpr unsigned SUM_STEP = 2;    /* in float by SUM_EXACT chunks, those in double */
constexpr unsigned SUM_SQUARES = 4; /* squares of what is in the tile, in double */

/* So that the threads that add do it rarely, and several at once. */
constexpr unsigned TILES = 4;
/* The pad puts the same lane of two tiles into different banks. */
constexpr unsigned TILE_FLOATS = SUM_STRETCH_ELEMENTS + SUM_LANES;
constexpr unsigned ROWS = THREADS / SUM_LANES;

/* Scratch memory of one launch. */
struct tally {
    double *partial; /* [sum][stretch][lane] */
    unsigned *ticket;
    size_t stretches;
};

struct tiles {
    alignas(16) float product[TILES][TILE_FLOATS];
    size_t where[TILES]; /* of partial[], as if it were [sum*stretches + stretch] */
};

/* Those of the block that calls. */
DEVICE_FN struct tiles *tiles_here(void)
{
    __shared__ struct tiles tiles;
    return &tiles;
}

/* On both sides: launches are cut by it, too. */
static __host__ __device__ __forceinline__ size_t stretches_of(size_t n)
{
    return (n + SUM_STRETCH_ELEMENTS - 1) / SUM_STRETCH_ELEMENTS;
}

/* Every stretch is some block's, whatever the grid. */
#define EACH_STRETCH(stretch, stretches)                                               \
    for (size_t stretch = blockIdx.x; stretch < (stretches); stretch += gridDim.x)

/* This thread's four elements of a stretch. */
DEVICE_FN struct group group_here(size_t stretch, size_t n, bool aligned)
{
    return group_of(stretch * SUM_STRETCH_ELEMENTS + EACH * threadIdx.x, 0, n, aligned);
}

/* The sum of one lane of one tile. */
DEVICE_FN double lane_sum(const float *lane, unsigned kind)
{
    float some = 0.0f;
    double sum = 0.0;

#pragma unroll 16
    for (int chunk = 0; chunk < SUM_STRETCH; chunk++) {
        float x = lane[chunk * SUM_LANES];
        if (kind == SUM_SQUARES) {
            sum += (double)x * (double)x;
        } else {
            some += x;
            if (kind == SUM_STEP && chunk % SUM_EXACT == SUM_EXACT - 1) {
                sum += (double)some;
                some = 0.0f;
            }
        }
    }
    return kind == SUM_GAP ? (double)some : sum;
}

/* Puts what this thread has of a stretch into a tile. */
DEVICE_FN void tile_fill(unsigned tile, const struct tally *tally, unsigned sum,
                         size_t stretch, float4 x)
{
    struct tiles *tiles = tiles_here();

    *reinterpret_cast<float4 *>(tiles->product[tile] + EACH * threadIdx.x) = x;
    if (threadIdx.x == 0)
        tiles->where[tile] = sum * tally->stretches + stretch;
}

/* Adds up the tiles that were filled. `kinds` is a constant; of two kinds the smaller
 * is in the even tiles. */
DEVICE_FN void tiles_flush(unsigned filled, unsigned kinds, const struct tally *tally)
{
    struct tiles *tiles = tiles_here();
    unsigned tile = threadIdx.x / SUM_LANES, lane = threadIdx.x % SUM_LANES;

    __syncthreads();
    if (tile < filled) {
        const float *from = tiles->product[tile] + lane;
        double sum;
        if (kinds == (SUM_GAP | SUM_STEP))
            sum = tile % 2 ? lane_sum(from, SUM_STEP) : lane_sum(from, SUM_GAP);
        else
            sum = lane_sum(from, kinds);
        tally->partial[tiles->where[tile] * SUM_LANES + lane] = sum;
    }
    __syncthreads();
}

/* Adds four products of each thread to a sum. *filled: tiles in use, 0 at first; the
 * caller flushes the rest. */
DEVICE_FN void tiles_add(unsigned *filled, unsigned kinds, const struct tally *tally,
                         unsigned sum, size_t stretch, float4 x)
{
    tile_fill((*filled)++, tally, sum, stretch, x);
    if (*filled == TILES) {
        tiles_flush(*filled, kinds, tally);
        *filled = 0;
    }
}

/* Is this the last block of the grid to come here? All threads of a block call it. */
DEVICE_FN bool last_block(unsigned *ticket)
{
    __shared__ unsigned last;

    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        last = atomicAdd(ticket, 1u) == gridDim.x - 1;
        __threadfence();
        if (last)
            atomicExch(ticket, 0u); /* for the next launch */
    }
    __syncthreads();
    return last != 0;
}

/* The total of one sum, for thread 0; all THREADS threads of the last block call it. */
DEVICE_FN double tally_total(const struct tally *tally, unsigned sum)
{
    __shared__ double part[ROWS][SUM_LANES];
    const double *partial = tally->partial + sum * tally->stretches * SUM_LANES;
    size_t spans = (tally->stretches + SUM_SPAN - 1) / SUM_SPAN;
    unsigned row = threadIdx.x / SUM_LANES, lane = threadIdx.x % SUM_LANES;
    double total = 0.0;

    for (size_t first = 0; first < spans; first += ROWS) {
        size_t begin = (first + row) * SUM_SPAN, end = begin + SUM_SPAN;
        double some = 0.0;
        if (end > tally->stretches)
            end = tally->stretches;
#pragma unroll 8
        for (size_t stretch = begin; stretch < end; stretch++)
            some += __ldcg(partial + stretch * SUM_LANES + lane);
        part[row][lane] = some;
        __syncthreads();
        if (row == 0)
            for (unsigned r = 0; r < ROWS && first + r < spans; r++)
                total += part[r][lane];
        __syncthreads();
    }
    if (row == 0)
        part[0][lane] = total;
    __syncthreads();
    total = 0.0;
    if (threadIdx.x == 0)
        for (int l = 0; l < SUM_LANES; l++)
            total += part[0][l];
    __syncthreads();
    return total;
}

#endif
