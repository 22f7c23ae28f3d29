/* The pass of a RULE_BLOCK rule: a block of threads for each block of parameters, which
 * is measured from memory, gated, and updated from the cache (16 Ki elements of five
 * arrays are 320 KiB: more than a multiprocessor keeps, and a small part of L2).
 *
 *   |  block 0   | 1 |       block 2            |  padding
 *    CTA 0        CTA 1  CTA 2                    CTA 3: gate 1
 *
 * Blocks of parameters may end anywhere, also inside a chunk of 16 elements. Each CTA
 * reads and writes only elements of its own, so none sees what another changes; in the
 * sums the lanes of others are 0, as on the CPU.
 */
#include "gpu/apply.cuh"
#include "gpu/grid.cuh"
#include "gpu/parts.cuh"

typedef float product_fn(const struct element *e);
typedef float gate_fn(double sum, const struct step_scalars *k);

constexpr unsigned BLOCK_THREADS = 1024;
constexpr unsigned BLOCK_TILES = 8; /* 33 KiB: a block of 16 Ki takes two rounds */
static_assert(BLOCK_TILES * TILE_FLOATS * sizeof(float) >=
                  BLOCK_THREADS * sizeof(double),
              "block_results has a place for each thread");
constexpr unsigned SMALL = 4096; /* elements: for blocks of fewer, 256 threads do */

/* One launch. */
struct block_work {
    struct arrays at;
    struct step_scalars scalars;
    const uint32_t *ends; /* NULL: one block, the whole range */
    const uint32_t *pieces;
    const double *dots;
    float *gates; /* scratch, one for each block */
    float *shown; /* the same, for the host; NULL: not wanted */
    unsigned *ticket;
    struct device_result *ret;
    size_t n;
    uint32_t count;
    bool aligned;
    bool gap; /* gap_sq was written by the launch before */
};

struct block_tiles {
    alignas(16) float product[BLOCK_TILES][TILE_FLOATS];
    double stretch[BLOCK_TILES][SUM_LANES];
    float gate;
};

DEVICE_FN struct block_tiles *block_tiles_here(void)
{
    __shared__ struct block_tiles tiles;
    return &tiles;
}

/* The products of `filled` stretches from `begin_tiles` on. */
template <unsigned READS, element_fn *AHEAD, product_fn *PRODUCT>
DEVICE_FN void block_fill(const struct block_work *work, size_t begin, size_t end,
                          size_t begin_tiles, unsigned filled)
{
    struct block_tiles *tiles = block_tiles_here();

#pragma unroll 1
    for (unsigned t = threadIdx.x; t < filled * THREADS; t += blockDim.x) {
        struct group g =
            group_of(begin_tiles + (size_t)t * EACH, begin, end, work->aligned);
        struct four x = four_zero();
        float4 product;

        four_load(&work->at, g, READS, &x);
#define ELEMENT(c)                                                                     \
    do {                                                                               \
        struct element e = FOUR_ELEMENT(x, c, 0.0f);                                   \
        AHEAD(&e, &work->scalars);                                                     \
        product.c = PRODUCT(&e);                                                       \
    } while (0)
        FOUR_EACH(ELEMENT);
#undef ELEMENT
        *reinterpret_cast<float4 *>(&tiles->product[t / THREADS][t % THREADS * EACH]) =
            some_only(g, product);
    }
}

/* The sum over a block, for thread 0. */
template <unsigned READS, element_fn *AHEAD, product_fn *PRODUCT>
DEVICE_FN double block_sum(const struct block_work *work, size_t begin, size_t end)
{
    struct block_tiles *tiles = block_tiles_here();
    size_t base = begin / SUM_LANES * SUM_LANES;
    size_t stretches = begin < end ? stretches_of(end - base) : 0;
    unsigned tile = threadIdx.x / SUM_LANES, lane = threadIdx.x % SUM_LANES;
    double span = 0.0, all = 0.0, total = 0.0;

#pragma unroll 1
    for (size_t first = 0; first < stretches; first += BLOCK_TILES) {
        unsigned filled = stretches - first < BLOCK_TILES
                              ? (unsigned)(stretches - first)
                              : BLOCK_TILES;
        block_fill<READS, AHEAD, PRODUCT>(work, begin, end,
                                          base + first * SUM_STRETCH_ELEMENTS, filled);
        __syncthreads();
        if (tile < filled)
            tiles->stretch[tile][lane] = lane_sum(tiles->product[tile] + lane, SUM_GAP);
        __syncthreads();
        if (tile == 0)
            for (unsigned i = 0; i < filled; i++) {
                span += tiles->stretch[i][lane];
                if ((first + i + 1) % SUM_SPAN == 0) {
                    all += span;
                    span = 0.0;
                }
            }
    }
    if (tile == 0)
        tiles->stretch[0][lane] = all + span;
    __syncthreads();
    if (threadIdx.x == 0)
        for (int l = 0; l < SUM_LANES; l++)
            total += tiles->stretch[0][l];
    return total;
}

/* The gate of a block, for all threads. */
template <unsigned READS, bool LESS_DOTS, element_fn *AHEAD, product_fn *PRODUCT,
          gate_fn *GATE>
DEVICE_FN float block_gate(const struct block_work *work, size_t begin, size_t end)
{
    struct block_tiles *tiles = block_tiles_here();
    double sum = block_sum<READS, AHEAD, PRODUCT>(work, begin, end);

    if (threadIdx.x == 0) {
        if (LESS_DOTS && work->dots)
            sum -= work->dots[blockIdx.x];
        if (work->pieces)
            sum *= (double)work->pieces[blockIdx.x];
        tiles->gate = GATE(sum, &work->scalars);
        work->gates[blockIdx.x] = tiles->gate;
        if (work->shown)
            work->shown[blockIdx.x] = tiles->gate;
    }
    __syncthreads();
    return tiles->gate;
}

template <unsigned READS, unsigned WRITES, bool DECAYS, element_fn *CORRECT,
          element_fn *MOVE>
DEVICE_FN void block_update(const struct block_work *work, size_t begin, size_t end,
                            float gate)
{
    size_t first = begin / EACH * EACH + (size_t)threadIdx.x * EACH;

#pragma unroll 1
    for (size_t i = first; i < end; i += (size_t)blockDim.x * EACH) {
        struct group g = group_of(i, begin, end, work->aligned);
        struct four x = four_zero();
        float4 gap_sq, step_sq, decay = four_of(0.0f);

        four_load(&work->at, g, READS, &x);
        if (DECAYS)
            decay = four_decay(&work->at, g, &work->scalars);
        four_update<ahead_is_zero, CORRECT, MOVE>(&x, &work->scalars, gate, decay,
                                                  &gap_sq, &step_sq);
        four_store(&work->at, g, WRITES, &x);
    }
}

/* The elements of a block of parameters. */
DEVICE_FN size_t block_elements(const struct block_work *work, size_t block)
{
    if (!work->ends)
        return work->n;
    return work->ends[block] - (block > 0 ? work->ends[block - 1] : 0);
}

/* The last block adds up the gates of all elements, block after block. */
DEVICE_FN void block_results(const struct block_work *work)
{
    double *part = reinterpret_cast<double *>(block_tiles_here()->product);
    double sum = 0.0;

    if (!last_block(work->ticket))
        return;
    for (size_t first = 0; first < work->count; first += blockDim.x) {
        size_t block = first + threadIdx.x;
        if (block < work->count)
            part[threadIdx.x] = (double)__ldcg(work->gates + block) *
                                (double)block_elements(work, block);
        __syncthreads();
        if (threadIdx.x == 0)
            for (unsigned i = 0; i < blockDim.x && first + i < work->count; i++)
                sum += part[i];
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        if (!work->gap)
            work->ret->sums.gap_sq = 0.0;
        work->ret->sums.step_sq = 0.0;
        work->ret->sums.gate_sum = sum;
        __threadfence_system();
    }
}

template <unsigned MEASURE_READS, unsigned READS, unsigned WRITES, bool LESS_DOTS,
          bool DECAYS, element_fn *AHEAD, product_fn *PRODUCT, gate_fn *GATE,
          element_fn *CORRECT, element_fn *MOVE>
DEVICE_FN void block_all(const struct block_work *work)
{
    size_t begin = 0, end = work->n;
    float gate = 1.0f;

    if (work->ends && blockIdx.x > 0)
        begin = work->ends[blockIdx.x - 1];
    if (work->ends && blockIdx.x < work->count)
        end = work->ends[blockIdx.x];
    if (blockIdx.x < work->count)
        gate = block_gate<MEASURE_READS, LESS_DOTS, AHEAD, PRODUCT, GATE>(work, begin,
                                                                          end);
    block_update<READS, WRITES, DECAYS, CORRECT, MOVE>(work, begin, end, gate);
    block_results(work);
}

#define MEASURED(symbol, correction)                                                   \
    extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)                        \
        gapless_block_##symbol(const __grid_constant__ struct block_work work)         \
    {                                                                                  \
        block_all<rule_##symbol##_measure_reads, rule_##symbol##_reads,                \
                  rule_##symbol##_writes,                                              \
                  (rule_##symbol##_flags & RULE_PUBLISHED) != 0,                       \
                  (rule_##symbol##_flags & RULE_ADAM) != 0, ahead_of_##symbol,         \
                  measure_##correction, gate_##correction, correct_##correction,       \
                  move_##symbol>(&work);                                               \
    }
#define RULE(symbol, name, correction, momentum, extra, source)                        \
    IF_BLOCK_GAP(correction, MEASURED(symbol, correction))
#include "engine/rules/rules.def"
#undef RULE

typedef void block_kernel(const struct block_work work);

/* Row by row of rules.def. */
#define RULE(symbol, name, correction, momentum, extra, source)                        \
    {IF_BLOCK_GAP(correction, gapless_block_##symbol)},
static block_kernel *const kernels[][1] = {
#include "engine/rules/rules.def"
};
#undef RULE

cudaError_t blocks_apply(const struct kernel_place *place, const struct rule *rule,
                         const struct device_pass *pass,
                         const struct kernel_blocks *blocks, uint32_t q, size_t n,
                         struct device_result *ret)
{
    struct scratch *scratch = static_cast<struct scratch *>(place->scratch);
    bool named = blocks && blocks->count; /* else the range is one block */
    struct block_work work;
    cudaError_t code = cudaSuccess;

    work.at = pass->at;
    work.scalars = pass->scalars;
    work.ends = named ? blocks->ends : NULL;
    work.pieces = named ? blocks->pieces : NULL;
    work.count = named ? blocks->count : 1;
    work.dots = named && blocks->dots ? blocks->dots + (size_t)q * blocks->count : NULL;
    work.gates = reinterpret_cast<float *>(scratch->partial);
    work.shown =
        named && blocks->gates ? blocks->gates + q * blocks->gates_stride : NULL;
    work.ticket = &scratch->ticket;
    work.ret = ret;
    work.n = n;
    work.aligned =
        arrays_aligned(&pass->at, rule->reads | rule->writes | rule->measure_reads);
    work.gap = (pass->want & WANT_GAP) != 0;
    if (work.gap)
        code = gap_alone(place, pass->at.theta, pass->at.sent, n, ret);
    if (code != cudaSuccess)
        return code;
    /* One more for what is behind the last of the blocks that are named. */
    return GAPLESS_LAUNCH(kernels[rule->index][0], work.count + (named ? 1 : 0),
                          n / work.count < SMALL ? THREADS : BLOCK_THREADS,
                          place->stream, work);
}
