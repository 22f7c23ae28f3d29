/* The pass of a RULE_BLOCK rule: blocks are measured, gated and updated while they are
 * in the cache, so that memory is read and written once.
 *
 *      measured ->  m                       the sum of block `mb` is being formed
 *   |.....|.....|...+.|.....|.....|
 *      u  <- updated                        with the gates of the blocks behind `mb`
 *
 * Two cursors go over the range in turn: the measure takes whole blocks, at least
 * GROUP_CHUNKS, from memory; then the update takes what is gated from the cache. Blocks
 * of at most 32 Ki elements keep that (five arrays of 128 KiB) in a cache of 1 MiB;
 * larger ones, which a run may ask for, come from memory twice.
 *
 * One loop that measures a block while it updates the one before was tried: it is
 * slower (by 1.15 to 1.2 on Zen 4, out of cache). What one core can ask of memory is
 * bounded by its buffers for outstanding lines; the update's lines from L2 take such
 * buffers too, and its instructions shorten what the measure sees ahead. Prefetching
 * every line does not help for the same reason; a quarter of the next group, during the
 * update, gains a few percent. Where the update has a root and a division it leaves memory
 * more time, and half of the next group gains 3 to 6 percent more (Zen 4, out of cache).
 *
 * Blocks may end anywhere. A chunk of 16 elements that belongs to more than one block
 * is ragged: it is measured with the lanes of other blocks set to 0, and updated with a
 * gate per lane. So every sum has the same bits whatever the width of the machine. */
#ifndef GAPLESS_COMPUTE_BLOCKS_H
#define GAPLESS_COMPUTE_BLOCKS_H

#include "engine/compute/compute_sweep.h"

enum {
    GATES = 1024,           /* gates known and not yet used, at most; a power of 2 */
    GATES_FREE = LANES + 1, /* a ragged chunk may end this many blocks */
    GROUP_CHUNKS = 16 * 1024 / LANES,
    CHUNKS_CACHED = 128 * 1024 / LANES, /* a range that stays in the caches of a core */
    PREFETCH_ONE_IN = 4,     /* chunks of the next group, during the update */
    PREFETCH_SLOW_ONE_IN = 2 /* ... of a rule whose update computes longer (Adam's) */
};

/* The constants of an expanded loop, beside its plan. */
struct block_plan {
    unsigned reads;       /* of the measure */
    unsigned reads_later; /* of the update, and not of the measure */
    element_fn *ahead;
    real (*measure)(const struct element *e);
    scalar (*gate)(double sum, const struct step_scalars *k);
    bool less_dots; /* of the sum is taken what the worker has summed up */
    bool only_sums; /* the sums are what is wanted */
};

struct cursors {
    const uint32_t *ends;
    uint32_t count;
    size_t chunks;

    size_t m;          /* the next chunk to measure */
    uint32_t mb;       /* the block it is in */
    uint32_t gates_in; /* blocks gated so far, empty ones not counted */
    size_t fill;       /* chunks of block mb measured */
    struct chunk some; /* the sum of block mb: its last stretch, and the rest */
    struct spans sum;
    double gate_sum;
    const double *dots; /* from the worker, or NULL */
    const uint32_t *pieces;
    number *gates; /* for the caller, or NULL */
    double *sums;  /* only_sums */

    size_t u;           /* the next chunk to update */
    uint32_t ub;        /* the first block that ends behind its start */
    uint32_t gates_out; /* blocks passed, empty ones not counted */

    number gate[GATES];
};

RULE_FN size_t block_begin(const struct cursors *c, uint32_t block)
{
    return block ? c->ends[block - 1] : 0;
}

RULE_FN bool block_covers(const struct cursors *c, uint32_t block, size_t chunk)
{
    return block_begin(c, block) <= chunk * LANES &&
           c->ends[block] >= (chunk + 1) * LANES;
}

/* The sum of block mb is complete. */
RULE_FN void block_close(struct cursors *c, const struct block_plan *plan,
                         const struct step_scalars *k)
{
    lanes_flush(&c->sum.span, &c->some);
    double sum = spans_total(&c->sum);
    if (plan->less_dots && c->dots)
        sum -= c->dots[c->mb];
    if (plan->only_sums)
        c->sums[c->mb] = sum;
    else if (c->pieces)
        sum *= (double)c->pieces[c->mb];
    number gate = plan->only_sums ? 1 : plan->gate(sum, k);
    size_t elements = c->ends[c->mb] - block_begin(c, c->mb);
    if (elements > 0)
        c->gate[c->gates_in++ % GATES] = gate;
    if (c->gates)
        c->gates[c->mb] = gate;
    c->gate_sum += (double)gate * (double)elements;
    c->sum = spans_zero();
    c->fill = 0;
    c->mb++;
}

/* `chunks` more of block mb were added to `some`. */
RULE_FN void block_measured(struct cursors *c, const struct block_plan *plan,
                            const struct step_scalars *k, size_t chunks, size_t end)
{
    c->fill += chunks;
    if (c->fill % CHUNKS_FLUSH == 0) {
        lanes_flush(&c->sum.span, &c->some);
        spans_reach(&c->sum, c->fill);
    }
    if (c->ends[c->mb] <= end)
        block_close(c, plan, k);
}

RULE_FN struct chunk measure_chunk(const struct block_plan *plan,
                                   const struct arrays *at,
                                   const struct step_scalars *k, size_t i)
{
    struct chunk ret;
    for (int p = 0; p < PARTS; p++, i += WIDTH) {
        struct element e = element_load(at, i, plan->reads);
        if (plan->ahead)
            plan->ahead(&e, k);
        ret.part[p] = plan->measure(&e);
    }
    return ret;
}

/* Measures a chunk that block mb shares with others. */
RULE_FN void measure_ragged(struct cursors *c, const struct block_plan *plan,
                            const struct arrays *at, const struct step_scalars *k)
{
    _Alignas(64) number all[LANES] = {0}, some[LANES] = {0};
    size_t begin = c->m * LANES, end = begin + LANES;
    struct chunk product = measure_chunk(plan, at, k, begin);
    __builtin_memcpy(all, &product, sizeof all);

    while (c->mb < c->count && block_begin(c, c->mb) < end) {
        size_t from = block_begin(c, c->mb), to = c->ends[c->mb];
        for (size_t i = begin; i < end; i++)
            some[i - begin] = i >= from && i < to ? all[i - begin] : 0;
        for (int p = 0; p < PARTS; p++)
            c->some.part[p] += lanes_load(some + p * WIDTH);
        block_measured(c, plan, k, 1, end);
        if (to > end)
            break;
    }
    c->m++;
}

/* Updates a chunk that block ub shares with others; all of them are gated. */
RULE_FN void update_ragged(struct cursors *c, const struct plan *plan,
                           const struct arrays *at, const struct step_scalars *k,
                           struct tally *tally)
{
    _Alignas(64) number gate[LANES];
    uint32_t block = c->ub, gates = c->gates_out;
    struct chunk each;

    for (size_t i = 0; i < LANES; i++) {
        size_t element = c->u * LANES + i;
        while (block < c->count && c->ends[block] <= element) {
            gates += c->ends[block] > block_begin(c, block);
            block++;
        }
        gate[i] = block < c->count ? c->gate[gates % GATES] : 1;
    }
    __builtin_memcpy(&each, gate, sizeof each);
    sweep_chunk(plan, at, k, c->u * LANES, &each, tally);
    c->u++;
}

/* Brings the lines of chunk i into the cache that only the update reads. By loads: of
 * them a prefetcher makes a stream, and memory then serves all arrays at once, not one
 * of them late and alone during the update (1.2 times slower). */
RULE_FN void touch_chunk(unsigned slots, const struct arrays *at, size_t i)
{
    if (slots & SLOT_OWN)
        (void)*(const volatile number *)(at->own + i);
    if (slots & SLOT_ALL)
        (void)*(const volatile number *)(at->all + i);
    if (slots & SLOT_STAT)
        (void)*(const volatile number *)(at->stat + i);
    if (slots & SLOT_SENT)
        (void)*(const volatile number *)(at->sent + i);
    if (slots & SLOT_SQUARE)
        (void)*(const volatile number *)(at->square + i);
}

/* Measures on to the end of block mb, or to the next ragged chunk and over it. */
RULE_FN void measure_block(struct cursors *c, const struct block_plan *plan,
                           const struct arrays *at, const struct step_scalars *k)
{
    if (c->ends[c->mb] <= c->m * LANES) {
        block_close(c, plan, k); /* empty */
    } else if (!block_covers(c, c->mb, c->m)) {
        measure_ragged(c, plan, at, k);
    } else {
        size_t whole = c->ends[c->mb] / LANES - c->m;
        size_t left = CHUNKS_FLUSH - c->fill % CHUNKS_FLUSH;
        size_t i = c->m * LANES, take = whole < left ? whole : left;
        struct chunk some = c->some;
        for (size_t end = i + take * LANES; i < end; i += LANES) {
            struct chunk product = measure_chunk(plan, at, k, i);
            if (c->chunks > CHUNKS_CACHED)
                touch_chunk(plan->reads_later, at, i);
            for (int p = 0; p < PARTS; p++)
                some.part[p] += product.part[p];
        }
        c->some = some;
        c->m += take;
        block_measured(c, plan, k, take, i);
    }
}

/* Asks for chunk i of all that the measure reads, for L2. */
RULE_FN void prefetch_chunk(const struct block_plan *plan, const struct arrays *at,
                            size_t i)
{
    enum {
        TO_READ = 0,
        INTO_L2 = 2
    };
    __builtin_prefetch(at->theta + i, TO_READ, INTO_L2);
    if (plan->reads & SLOT_SENT)
        __builtin_prefetch(at->sent + i, TO_READ, INTO_L2);
    __builtin_prefetch(at->grad + i, TO_READ, INTO_L2);
    if (plan->reads & SLOT_OWN)
        __builtin_prefetch(at->own + i, TO_READ, INTO_L2);
    if (plan->reads & SLOT_ALL)
        __builtin_prefetch(at->all + i, TO_READ, INTO_L2);
    if (plan->reads & SLOT_STAT)
        __builtin_prefetch(at->stat + i, TO_READ, INTO_L2);
    if (plan->reads & SLOT_SQUARE)
        __builtin_prefetch(at->square + i, TO_READ, INTO_L2);
}

/* Updates from u on to the end of a block, or a ragged chunk, but not beyond
 * `ready`. */
RULE_FN void update_block(struct cursors *c, const struct plan *plan,
                          const struct block_plan *measure, const struct arrays *at,
                          const struct step_scalars *k, size_t ready, size_t *next,
                          struct tally *tally)
{
    const size_t one_in = plan->decays ? PREFETCH_SLOW_ONE_IN : PREFETCH_ONE_IN;
    size_t end = ready, i = c->u;

    while (c->ub < c->mb && c->ends[c->ub] <= c->u * LANES) {
        c->gates_out += c->ends[c->ub] > block_begin(c, c->ub);
        c->ub++;
    }
    if (c->ub < c->count && !block_covers(c, c->ub, c->u)) {
        update_ragged(c, plan, at, k, tally);
    } else {
        struct chunk gate =
            chunk_of(c->ub < c->count ? c->gate[c->gates_out % GATES] : 1);
        if (c->ub < c->count && c->ends[c->ub] / LANES < end)
            end = c->ends[c->ub] / LANES;
        if (end > (i / CHUNKS_FLUSH + 1) * CHUNKS_FLUSH)
            end = (i / CHUNKS_FLUSH + 1) * CHUNKS_FLUSH;
        for (; i < end; i++) {
            if (i % one_in == 0 && *next < c->chunks)
                prefetch_chunk(measure, at, (*next)++ * LANES);
            sweep_chunk(plan, at, k, i * LANES, &gate, tally);
        }
        c->u = end;
    }
    if (c->u % CHUNKS_FLUSH == 0)
        tally_reach(tally, plan->want_gap, false, c->u);
}

RULE_FN void cursors_begin(struct cursors *c, const struct blocks *blocks, size_t n,
                           double *sums)
{
    c->ends = blocks->ends, c->count = blocks->count, c->chunks = n / LANES;
    c->m = c->u = 0, c->mb = c->ub = c->gates_in = c->gates_out = 0, c->fill = 0;
    c->some = chunk_zero(), c->sum = spans_zero(), c->gate_sum = 0.0;
    c->dots = blocks->dots, c->pieces = blocks->pieces, c->sums = sums;
    c->gates = sums ? NULL : blocks->gates;
}

/* The sums alone, of each block. */
RULE_FN void sweep_sums(const struct block_plan *plan, const struct arrays *arrays,
                        const struct step_scalars *scalars, const struct blocks *blocks,
                        size_t n, double *ret)
{
    const struct arrays at = *arrays;
    const struct step_scalars k = *scalars;
    struct cursors c;

    cursors_begin(&c, blocks, n, ret);
    while (c.mb < c.count)
        measure_block(&c, plan, &at, &k);
}

RULE_FN void sweep_blocks(const struct plan *plan, const struct block_plan *measure,
                          const struct arrays *arrays,
                          const struct step_scalars *scalars,
                          const struct blocks *blocks, size_t n, struct sums *ret)
{
    const struct arrays at = *arrays;
    const struct step_scalars k = *scalars;
    struct tally tally = tally_zero();
    struct cursors c;

    cursors_begin(&c, blocks, n, NULL);
    while (c.u < c.chunks) {
        size_t ready = 0, next;
        while (c.mb < c.count && c.gates_in - c.gates_out <= GATES - GATES_FREE &&
               (c.m < c.u + GROUP_CHUNKS || ready <= c.u)) {
            measure_block(&c, measure, &at, &k);
            ready = block_begin(&c, c.mb) / LANES;
        }
        if (c.mb == c.count)
            ready = c.chunks;
        next = c.m;
        while (c.u < ready)
            update_block(&c, plan, measure, &at, &k, ready, &next, &tally);
    }
    while (c.mb < c.count)
        measure_block(&c, measure, &at, &k); /* empty ones at the end */
    tally_reach(&tally, plan->want_gap, false, c.chunks);
    tally_total(&tally, ret);
    ret->gate_sum = c.gate_sum;
}

#endif
