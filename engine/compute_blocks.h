/* The pass of a RULE_BLOCK rule: every block is measured, gated and updated, in one pass
 * over memory.
 *
 *      measured ->  m                       the sum of block `mb` is being formed
 *   |.....|.....|...+.|.....|.....|
 *      u  <- updated                        with the gates of the blocks behind `mb`
 *
 * Two cursors go over the range. The measure reads from memory and runs ahead of the update
 * by at least a block; the update finds in the cache what the measure has just read. They
 * advance together, chunk by chunk in one loop, so that memory is never idle while the
 * update computes. Blocks of at most 32 Ki elements keep what lies between the cursors (four
 * arrays of 128 KiB) in a cache of 1 MiB.
 *
 * Blocks may end anywhere. A chunk of 16 elements that belongs to more than one block is
 * ragged: it is measured with the lanes of other blocks set to 0, and updated with a gate
 * per lane. So every sum has the same bits whatever the width of the machine. */
#ifndef GAPLESS_COMPUTE_BLOCKS_H
#define GAPLESS_COMPUTE_BLOCKS_H

#include "compute_sweep.h"

enum {
    GATES = 1024,                /* gates known and not yet used, at most; a power of 2 */
    GATES_FREE = LANES + 1,      /* a ragged chunk may end so many blocks */
    AHEAD_CHUNKS = 32 * 1024 / LANES /* let the update catch up beyond this */
};

/* The constants of an expanded loop, beside its plan. */
struct block_plan {
    unsigned reads; /* of the measure */
    lane_fn *ahead;
    real (*measure)(const struct lane *e);
    scalar (*gate)(double sum, const struct knobs *k);
};

struct cursors {
    const uint32_t *ends;
    uint32_t count;
    size_t chunks;

    size_t m;           /* the next chunk to measure */
    uint32_t mb;        /* the block it is in */
    uint32_t gates_in;  /* blocks gated so far, empty ones not counted */
    int fill;           /* chunks in `some` */
    struct chunk some;  /* the sum of block mb: its last chunks, and the rest */
    struct lanes sum;
    double gate_sum;

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
    return block_begin(c, block) <= chunk * LANES && c->ends[block] >= (chunk + 1) * LANES;
}

/* The sum of block mb is complete. */
RULE_FN void block_close(struct cursors *c, const struct block_plan *plan,
                         const struct knobs *k)
{
    lanes_flush(&c->sum, &c->some);
    number gate = plan->gate(lanes_total(&c->sum), k);
    if (c->ends[c->mb] > block_begin(c, c->mb))
        c->gate[c->gates_in++ % GATES] = gate;
    c->gate_sum += (double)gate;
    c->sum = lanes_zero();
    c->fill = 0;
    c->mb++;
}

/* `chunks` more of block mb were added to `some`. */
RULE_FN void block_measured(struct cursors *c, const struct block_plan *plan,
                            const struct knobs *k, size_t chunks, size_t end)
{
    c->fill += (int)chunks;
    if (c->fill == CHUNKS_FLUSH) {
        lanes_flush(&c->sum, &c->some);
        c->fill = 0;
    }
    if (c->ends[c->mb] <= end)
        block_close(c, plan, k);
}

RULE_FN struct chunk measure_chunk(const struct block_plan *plan, const struct arrays *at,
                                   const struct knobs *k, size_t i)
{
    struct chunk ret;
    for (int p = 0; p < PARTS; p++, i += WIDTH) {
        struct lane e = lane_load(at, i, plan->reads);
        plan->ahead(&e, k);
        ret.part[p] = plan->measure(&e);
    }
    return ret;
}

/* Measures a chunk that block mb shares with others. */
RULE_FN void measure_ragged(struct cursors *c, const struct block_plan *plan,
                            const struct arrays *at, const struct knobs *k)
{
    _Alignas(64) number all[LANES], some[LANES];
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
                           const struct arrays *at, const struct knobs *k,
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

/* How many whole chunks of one block can be measured from m on; 0: none for now. Goes over
 * ragged chunks and blocks that have ended on the way. */
RULE_FN size_t measure_reach(struct cursors *c, const struct block_plan *plan,
                             const struct arrays *at, const struct knobs *k, bool waiting)
{
    while (c->mb < c->count && c->gates_in - c->gates_out <= GATES - GATES_FREE &&
           (waiting || c->m - c->u <= AHEAD_CHUNKS)) {
        size_t left = (size_t)(CHUNKS_FLUSH - c->fill);
        if (c->ends[c->mb] <= c->m * LANES) {
            block_close(c, plan, k); /* empty */
        } else if (block_covers(c, c->mb, c->m)) {
            size_t whole = c->ends[c->mb] / LANES - c->m;
            return whole < left ? whole : left;
        } else {
            measure_ragged(c, plan, at, k);
            return 0; /* the update may be able to go on now */
        }
    }
    return 0;
}

/* The same for the update; *gate is the gate of those chunks. */
RULE_FN size_t update_reach(struct cursors *c, const struct plan *plan,
                            const struct arrays *at, const struct knobs *k,
                            struct chunk *gate, struct tally *tally)
{
    size_t ready = c->mb == c->count ? c->chunks : block_begin(c, c->mb) / LANES;
    while (c->u < ready) {
        size_t whole = ready - c->u;
        while (c->ub < c->mb && c->ends[c->ub] <= c->u * LANES) {
            c->gates_out += c->ends[c->ub] > block_begin(c, c->ub);
            c->ub++;
        }
        if (plan->want_gap && c->u % CHUNKS_FLUSH == 0)
            lanes_flush(&tally->gap_sq_all, &tally->gap_sq);
        if (c->ub < c->count && !block_covers(c, c->ub, c->u)) {
            update_ragged(c, plan, at, k, tally);
            continue;
        }
        *gate = chunk_of(c->ub < c->count ? c->gate[c->gates_out % GATES] : 1);
        if (c->ub < c->count && c->ends[c->ub] / LANES - c->u < whole)
            whole = c->ends[c->ub] / LANES - c->u;
        if (plan->want_gap && whole > CHUNKS_FLUSH - c->u % CHUNKS_FLUSH)
            whole = CHUNKS_FLUSH - c->u % CHUNKS_FLUSH;
        return whole;
    }
    return 0;
}

RULE_FN void sweep_blocks(const struct plan *plan, const struct block_plan *measure,
                          const struct arrays *arrays, const struct knobs *knobs,
                          const struct blocks *blocks, size_t n, struct sums *ret)
{
    const struct arrays at = *arrays;
    const struct knobs k = *knobs;
    struct tally tally = tally_zero();
    struct chunk gate = chunk_of(1);
    struct cursors c;

    c.ends = blocks->ends, c.count = blocks->count, c.chunks = n / LANES;
    c.m = c.u = 0, c.mb = c.ub = c.gates_in = c.gates_out = 0, c.fill = 0;
    c.some = chunk_zero(), c.sum = lanes_zero(), c.gate_sum = 0.0;

    while (c.u < c.chunks) {
        size_t update = update_reach(&c, plan, &at, &k, &gate, &tally);
        size_t ahead = measure_reach(&c, measure, &at, &k, update == 0);
        size_t both = ahead < update ? ahead : update;
        size_t m = c.m * LANES, u = c.u * LANES, i = 0;
        struct chunk some = c.some;

        if (!both)
            both = ahead + update; /* one of them is 0 */
        if (ahead && update) {
            for (; i < both * LANES; i += LANES) {
                struct chunk product = measure_chunk(measure, &at, &k, m + i);
                sweep_chunk(plan, &at, &k, u + i, &gate, &tally);
                for (int p = 0; p < PARTS; p++)
                    some.part[p] += product.part[p];
            }
        } else if (update) {
            for (; i < both * LANES; i += LANES)
                sweep_chunk(plan, &at, &k, u + i, &gate, &tally);
        } else {
            for (; i < both * LANES; i += LANES) {
                struct chunk product = measure_chunk(measure, &at, &k, m + i);
                for (int p = 0; p < PARTS; p++)
                    some.part[p] += product.part[p];
            }
        }
        c.u += update ? both : 0;
        if (ahead) {
            c.some = some;
            c.m += both;
            block_measured(&c, measure, &k, both, c.m * LANES);
        }
    }
    lanes_flush(&tally.gap_sq_all, &tally.gap_sq);
    tally_total(&tally, ret);
    ret->gate_sum = c.gate_sum;
}

#endif
