/* The pass of a RULE_BLOCK rule: blocks are measured, gated and updated while they are
 * in the cache, so that memory is read and written once.
 *
 *      measured ->  m                       the sum of block `mb` is being formed
 *   |.....|.....|...+.|.....|.....|
 *      u  <- updated                        with the gates of the blocks behind `mb`
 *
 * Two cursors go over the range. The measure takes blocks from memory, the update takes
 * what is gated from the cache. Blocks of at most 32 Ki elements keep that (five arrays of
 * 128 KiB) in a cache of 1 MiB; larger ones, which a run may ask for, come from memory
 * twice. What a core can have outstanding is the bound: memory must never be left idle. How
 * that is done depends on the processor:
 *
 *   woven    (WAY_WOVEN) a chunk is updated, then one measured, in one loop, with all arrays
 *            asked for some chunks ahead of the measure. On Intel, family 6, model 207,
 *            out of cache, the update's lines from L2 and its divisions then cost hardly any
 *            time: 1.03 to 1.2 times as fast as in turn. `sent`, which the update does not
 *            read, is fetched from L2 before it is stored: 1.15 times as fast in L2.
 *            Updating first gains 1 percent. What is left to gain is in L2: blocks of 4 Ki
 *            elements in place of 16 Ki take 3 percent less
 *   in turn  whole blocks are measured, at least GROUP_CHUNKS, then updated. On Zen 4 a
 *            loop without prefetches that did both was slower by 1.15 to 1.2; prefetching
 *            every line did not help; a quarter of the next group, during the update, gains
 *            a few percent. Where the update has a root and a division it leaves memory
 *            more time, and half of the next group gains 3 to 6 percent more
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
    NEAR_ELEMENTS = 128, /* woven: `sent` comes from L2 so far ahead of the update */
    PREFETCH_ONE_IN = 4, /* chunks of the next group, during the update */
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

    bool touches;      /* the measure brings along what only the update reads */
    bool asks;         /* ... asks ahead for what it reads itself */
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

/* Another chunk may be measured: however many blocks it ends, their gates find room. */
RULE_FN bool gates_have_room(const struct cursors *c)
{
    return c->gates_in - c->gates_out <= GATES - GATES_FREE;
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

/* Whole chunks of block mb from m on, at most to the end of a stretch of its sum; 0 where
 * the next chunk is ragged, or the block is at its end. */
RULE_FN size_t measure_room(const struct cursors *c)
{
    size_t whole, left = CHUNKS_FLUSH - c->fill % CHUNKS_FLUSH;

    if (c->ends[c->mb] <= c->m * LANES || !block_covers(c, c->mb, c->m))
        return 0;
    whole = c->ends[c->mb] / LANES - c->m;
    return whole < left ? whole : left;
}

/* Measures on to the end of block mb, or to the next ragged chunk and over it. */
RULE_FN void measure_block(struct cursors *c, const struct block_plan *plan,
                           const struct arrays *at, const struct step_scalars *k)
{
    size_t i = c->m * LANES, take = measure_room(c);

    if (c->ends[c->mb] <= i) {
        block_close(c, plan, k); /* empty */
    } else if (!take) {
        measure_ragged(c, plan, at, k);
    } else {
        struct chunk some = c->some;
        for (size_t end = i + take * LANES; i < end; i += LANES) {
            struct chunk product = measure_chunk(plan, at, k, i);
            if (c->touches)
                touch_chunk(plan->reads_later, at, i);
            if (c->asks)
                prefetch_chunk(plan->reads, at, i + AHEAD_ELEMENTS, true);
            for (int p = 0; p < PARTS; p++)
                some.part[p] += product.part[p];
        }
        c->some = some;
        c->m += take;
        block_measured(c, plan, k, take, i);
    }
}

/* The block that chunk u is in is ub. */
RULE_FN void update_reach(struct cursors *c)
{
    while (c->ub < c->mb && c->ends[c->ub] <= c->u * LANES) {
        c->gates_out += c->ends[c->ub] > block_begin(c, c->ub);
        c->ub++;
    }
}

/* Chunks from u on with one gate, before `ready`, at most to the end of a stretch of the
 * tally; 0 where the next chunk is ragged. */
RULE_FN size_t update_room(const struct cursors *c, size_t ready)
{
    size_t end = ready, stretch = (c->u / CHUNKS_FLUSH + 1) * CHUNKS_FLUSH;

    if (c->ub < c->count && !block_covers(c, c->ub, c->u))
        return 0;
    if (c->ub < c->count && c->ends[c->ub] / LANES < end)
        end = c->ends[c->ub] / LANES;
    return (end < stretch ? end : stretch) - c->u;
}

/* The gate of block ub, or of what is behind the last one. */
RULE_FN struct chunk update_gate(const struct cursors *c)
{
    return chunk_of(c->ub < c->count ? c->gate[c->gates_out % GATES] : 1);
}

/* Updates from u on to the end of a block, or a ragged chunk, but not beyond
 * `ready`. */
RULE_FN void update_block(struct cursors *c, const struct plan *plan,
                          const struct block_plan *measure, const struct arrays *at,
                          const struct step_scalars *k, size_t ready, size_t *next,
                          struct tally *tally)
{
    const size_t one_in = plan->decays ? PREFETCH_SLOW_ONE_IN : PREFETCH_ONE_IN;
    size_t room;

    update_reach(c);
    room = update_room(c, ready);
    if (!room) {
        update_ragged(c, plan, at, k, tally);
    } else {
        struct chunk gate = update_gate(c);
        size_t end = c->u + room;
        for (size_t i = c->u; i < end; i++) {
            if (i % one_in == 0 && *next < c->chunks)
                prefetch_chunk(measure->reads, at, (*next)++ * LANES, false);
            sweep_chunk(plan, at, k, i * LANES, &gate, tally);
        }
        c->u = end;
    }
    if (c->u % CHUNKS_FLUSH == 0)
        tally_reach(tally, plan->want_gap, false, c->u);
}

/* Updates and measures `take` chunks, one and one. */
RULE_FN void weave(struct cursors *c, const struct plan *plan,
                   const struct block_plan *measure, const struct arrays *at,
                   const struct step_scalars *k, size_t take, struct tally *tally)
{
    size_t m = c->m * LANES, u = c->u * LANES;
    struct chunk gate = update_gate(c), some = c->some;

    for (size_t i = 0; i < take; i++, m += LANES, u += LANES) {
        prefetch_chunk((measure->reads | measure->reads_later) & ~(unsigned)SLOT_SENT,
                       at, m + AHEAD_ELEMENTS, true);
        if (!(plan->ways & WAY_PAST))
            prefetch_to_write(at->sent + m + AHEAD_ELEMENTS);
        if (sends_unread(plan) && !(plan->ways & WAY_PAST))
            prefetch_to_write(at->sent + u + NEAR_ELEMENTS);
        sweep_chunk(plan, at, k, u, &gate, tally);
        struct chunk product = measure_chunk(measure, at, k, m);
        for (int p = 0; p < PARTS; p++)
            some.part[p] += product.part[p];
    }
    c->some = some;
    c->m += take, c->u += take;
    block_measured(c, measure, k, take, m);
    if (c->u % CHUNKS_FLUSH == 0)
        tally_reach(tally, plan->want_gap, false, c->u);
}

RULE_FN void cursors_begin(struct cursors *c, const struct blocks *blocks, size_t n,
                           double *sums)
{
    c->ends = blocks->ends, c->count = blocks->count, c->chunks = n / LANES;
    c->m = c->u = 0, c->mb = c->ub = c->gates_in = c->gates_out = 0, c->fill = 0;
    c->touches = c->asks = false, c->some = chunk_zero(), c->sum = spans_zero(),
    c->gate_sum = 0.0;
    c->dots = blocks->dots, c->pieces = blocks->pieces, c->sums = sums;
    c->gates = sums ? NULL : blocks->gates;
}

/* The sums alone, of each block. */
RULE_FN void sweep_sums(const struct block_plan *plan, const struct arrays *arrays,
                        const struct step_scalars *scalars, const struct blocks *blocks,
                        size_t n, unsigned ways, double *ret)
{
    const struct arrays at = *arrays;
    const struct step_scalars k = *scalars;
    struct cursors c;

    cursors_begin(&c, blocks, n, ret);
    c.asks = (ways & WAY_ASK) && n > CACHED_ELEMENTS;
    while (c.mb < c.count)
        measure_block(&c, plan, &at, &k);
}

/* Whole blocks are measured, at least GROUP_CHUNKS, then updated. */
RULE_FN void blocks_in_turn(struct cursors *c, const struct plan *plan,
                            const struct block_plan *measure, const struct arrays *at,
                            const struct step_scalars *k, struct tally *tally)
{
    c->touches = c->chunks > CACHED_ELEMENTS / LANES;
    while (c->u < c->chunks) {
        size_t ready = 0, next;
        while (c->mb < c->count && gates_have_room(c) &&
               (c->m < c->u + GROUP_CHUNKS || ready <= c->u)) {
            measure_block(c, measure, at, k);
            ready = block_begin(c, c->mb) / LANES;
        }
        if (c->mb == c->count)
            ready = c->chunks;
        next = c->m;
        while (c->u < ready)
            update_block(c, plan, measure, at, k, ready, &next, tally);
    }
}

/* Both at once wherever whole chunks are there for both. The measure is ahead by the longest
 * block that came by. */
RULE_FN void blocks_woven(struct cursors *c, const struct plan *plan,
                          const struct block_plan *measure, const struct arrays *at,
                          const struct step_scalars *k, struct tally *tally)
{
    size_t nothing = c->chunks; /* update_block prefetches nothing */

    while (c->u < c->chunks) {
        size_t ready = c->mb == c->count ? c->chunks : block_begin(c, c->mb) / LANES;
        bool measures = c->mb < c->count && gates_have_room(c);
        size_t to_update = 0, both = 0;

        if (c->u < ready) {
            update_reach(c);
            to_update = update_room(c, ready);
        }
        if (measures && to_update > 0)
            both = measure_room(c);
        if (both > to_update)
            both = to_update;
        if (both > 0)
            weave(c, plan, measure, at, k, both, tally);
        else if (c->u < ready && (to_update == 0 || !measures))
            update_block(c, plan, measure, at, k, ready, &nothing, tally);
        else
            measure_block(c, measure, at, k);
    }
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
    if (plan->ways & WAY_WOVEN)
        blocks_woven(&c, plan, measure, &at, &k, &tally);
    else
        blocks_in_turn(&c, plan, measure, &at, &k, &tally);
    while (c.mb < c.count)
        measure_block(&c, measure, &at, &k); /* empty ones at the end */
    tally_reach(&tally, plan->want_gap, false, c.chunks);
    tally_total(&tally, ret);
    ret->gate_sum = c.gate_sum;
}

#endif
