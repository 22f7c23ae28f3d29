/* One pass over memory: load the lanes a rule reads, update, store what it writes.
 *
 * Everything here is inlined into one loop per rule, with the slots and the functions
 * of the rule as constants. Knobs and pointers are copied to locals whose address is
 * not taken after inlining, so that they stay in registers whatever the stores might
 * alias. */
#ifndef GAPLESS_COMPUTE_SWEEP_H
#define GAPLESS_COMPUTE_SWEEP_H

#include "engine/compute/compute.h"
#include "engine/compute/compute_lanes.h"
#include "engine/rules/element.h"

#include <stddef.h>

typedef void element_fn(struct element *e, const struct step_scalars *k);

/* The constants of an expanded loop. */
struct plan {
    unsigned reads, writes; /* enum slot bits */
    element_fn *ahead;      /* sets e->ahead, or NULL: it is 0 */
    element_fn *correct, *move;
    unsigned reads_first; /* those the correction needs, or has written */
    bool slow;            /* the correction has a division: start it a chunk ahead */
    bool want_gap;        /* sums.gap_sq */
    bool want_step;       /* sums.step_sq */
    bool decays;          /* RULE_ADAM: e->decay */
    unsigned ways;        /* WAY bits; the caller's, no constant */
};

enum {
    CACHED_ELEMENTS = 128 * 1024, /* of a range that stays in the caches of a core */
    AHEAD_ELEMENTS = 512 /* so far ahead lines are asked for: 320 to 768 are as good
                            (measured on Intel, family 6, model 207) */
};

/* What a pass adds up. */
struct tally {
    struct chunk gap_sq; /* of this stretch */
    struct spans gap_sq_all;
    struct chunk step_sq;         /* of the last CHUNKS_EXACT chunks */
    struct lanes step_sq_stretch; /* of this stretch, and before those */
    struct spans step_sq_all;
};

RULE_FN struct tally tally_zero(void)
{
    struct tally ret = {chunk_zero(), spans_zero(), chunk_zero(), lanes_zero(),
                        spans_zero()};
    return ret;
}

/* Chunk `chunks` is the next: what is complete goes on. A stretch that is empty may
 * come again. */
RULE_FN void tally_reach(struct tally *tally, bool want_gap, bool want_step,
                         size_t chunks)
{
    if (want_gap) {
        lanes_flush(&tally->gap_sq_all.span, &tally->gap_sq);
        spans_reach(&tally->gap_sq_all, chunks);
    }
    if (want_step) {
        lanes_flush(&tally->step_sq_stretch, &tally->step_sq);
        lanes_move(&tally->step_sq_all.span, &tally->step_sq_stretch);
        spans_reach(&tally->step_sq_all, chunks);
    }
}

RULE_FN void tally_total(struct tally *tally, struct sums *ret)
{
    ret->gap_sq = spans_total(&tally->gap_sq_all);
    ret->step_sq = spans_total(&tally->step_sq_all);
    ret->gate_sum = 0.0;
}

RULE_FN struct element element_load(const struct arrays *at, size_t i, unsigned slots)
{
    struct element e;
    e.theta = slots & SLOT_THETA ? lanes_load(at->theta + i) : real_zero();
    e.own = slots & SLOT_OWN ? lanes_load(at->own + i) : real_zero();
    e.all = slots & SLOT_ALL ? lanes_load(at->all + i) : real_zero();
    e.stat = slots & SLOT_STAT ? lanes_load(at->stat + i) : real_zero();
    e.sent = slots & SLOT_SENT ? lanes_load(at->sent + i) : real_zero();
    e.grad = slots & SLOT_GRAD ? lanes_load(at->grad + i) : real_zero();
    e.square = slots & SLOT_SQUARE ? lanes_load(at->square + i) : real_zero();
    e.ahead = real_zero();
    e.gate = real_zero();
    e.step = real_zero();
    e.raw = e.grad;
    e.decay = real_zero();
    e.mean = slots & SLOT_MEAN ? lanes_load(at->mean + i) : real_zero();
    e.turned = slots & SLOT_TURNED ? lanes_load(at->turned + i) : real_zero();
    return e;
}

/* Takes what was loaded later. Never `grad`: it is loaded first, and a correction has
 * changed it. */
RULE_FN void element_take(struct element *e, unsigned slots, const struct element *from)
{
    if (slots & SLOT_THETA)
        e->theta = from->theta;
    if (slots & SLOT_OWN)
        e->own = from->own;
    if (slots & SLOT_ALL)
        e->all = from->all;
    if (slots & SLOT_STAT)
        e->stat = from->stat;
    if (slots & SLOT_SENT)
        e->sent = from->sent;
    if (slots & SLOT_SQUARE)
        e->square = from->square;
    if (slots & SLOT_MEAN)
        e->mean = from->mean;
    if (slots & SLOT_TURNED)
        e->turned = from->turned;
}

RULE_FN void element_store(const struct arrays *at, size_t i, unsigned slots,
                           const struct element *e)
{
    if (slots & SLOT_THETA)
        lanes_store(at->theta + i, e->theta);
    if (slots & SLOT_OWN)
        lanes_store(at->own + i, e->own);
    if (slots & SLOT_ALL)
        lanes_store(at->all + i, e->all);
    if (slots & SLOT_STAT)
        lanes_store(at->stat + i, e->stat);
    if (slots & SLOT_SENT)
        lanes_store(at->sent + i, e->sent);
    if (slots & SLOT_SQUARE)
        lanes_store(at->square + i, e->square);
    if (slots & SLOT_MEAN)
        lanes_store(at->mean + i, e->mean);
    if (slots & SLOT_TURNED)
        lanes_store(at->turned + i, e->turned);
}

/* `sent` is written without being read. */
RULE_FN bool sends_unread(const struct plan *plan)
{
    return (plan->writes & SLOT_SENT) && !plan->want_gap &&
           !((plan->reads | plan->reads_first) & SLOT_SENT);
}

/* Stores all that the rule writes. */
RULE_FN void sweep_store(const struct plan *plan, const struct arrays *at, size_t i,
                         const struct element *e)
{
    if (!sends_unread(plan)) {
        element_store(at, i, plan->writes, e);
        return;
    }
    element_store(at, i, plan->writes & ~(unsigned)SLOT_SENT, e);
    if (plan->ways & WAY_PAST)
        lanes_store_past(at->sent + i, e->sent);
    else
        lanes_store(at->sent + i, e->sent);
}

/* Weight decay of the elements of one vector: of nearly all vectors it is one number. */
RULE_FN real sweep_decay(const struct arrays *at, const struct step_scalars *k,
                         size_t i)
{
    const unsigned every = (1u << WIDTH) - 1;
    unsigned bits = at->decays ? (unsigned)at->decays[i / LANES] >> i % LANES : every;
    _Alignas(64) number decay[WIDTH];

    if ((bits & every) == every)
        return real_of(k->decay);
    for (int lane = 0; lane < WIDTH; lane++)
        decay[lane] = bits >> lane & 1 ? k->decay : 0;
    return lanes_load(decay);
}

/* Loads and corrects one vector: the first half of an update. Stores nothing. */
RULE_FN struct element sweep_correct(const struct plan *plan, const struct arrays *at,
                                     const struct step_scalars *k, size_t i, real gate)
{
    unsigned slots = plan->reads_first | (plan->want_gap ? SLOT_SENT : 0);
    struct element e = element_load(at, i, slots);
    if (plan->ahead)
        plan->ahead(&e, k);
    e.gate = gate;
    plan->correct(&e, k);
    return e;
}

/* The second half: the arrays that only the momentum needs, and all stores. */
RULE_FN void sweep_move(const struct plan *plan, const struct arrays *at,
                        const struct step_scalars *k, size_t i, int p,
                        struct element *e, struct tally *tally)
{
    unsigned slots = plan->reads_first | (plan->want_gap ? SLOT_SENT : 0);
    struct element rest = element_load(at, i, plan->reads & ~slots);
    if (plan->want_gap) {
        real moved = e->theta - e->sent;
        tally->gap_sq.part[p] += moved * moved;
    }
    element_take(e, plan->reads & ~slots, &rest);
    if (plan->decays)
        e->decay = sweep_decay(at, k, i);
    plan->move(e, k);
    if (plan->want_step)
        tally->step_sq.part[p] += e->step * e->step;
    sweep_store(plan, at, i, e);
}

/* Updates the 16 elements from i on; `gate` is used by RULE_BLOCK rules only. */
RULE_FN void sweep_chunk(const struct plan *plan, const struct arrays *at,
                         const struct step_scalars *k, size_t i,
                         const struct chunk *gate, struct tally *tally)
{
    for (int p = 0; p < PARTS; p++, i += WIDTH) {
        struct element e = sweep_correct(plan, at, k, i, gate->part[p]);
        sweep_move(plan, at, k, i, p, &e, tally);
    }
}

/* To read; past the end of an array it does nothing. */
RULE_FN void prefetch(const number *line, bool near)
{
    if (near)
        __builtin_prefetch(line, 0, 3);
    else
        __builtin_prefetch(line, 0, 2);
}

/* Takes the line from another core that has it, too. */
RULE_FN void prefetch_to_write(const number *line)
{
    __builtin_prefetch(line, 1, 3);
}

/* Asks for chunk i of the arrays in `slots`: for L1 if `near`, else for L2. */
RULE_FN void prefetch_chunk(unsigned slots, const struct arrays *at, size_t i,
                            bool near)
{
    if (slots & SLOT_THETA)
        prefetch(at->theta + i, near);
    if (slots & SLOT_SENT)
        prefetch(at->sent + i, near);
    if (slots & SLOT_GRAD)
        prefetch(at->grad + i, near);
    if (slots & SLOT_OWN)
        prefetch(at->own + i, near);
    if (slots & SLOT_ALL)
        prefetch(at->all + i, near);
    if (slots & SLOT_STAT)
        prefetch(at->stat + i, near);
    if (slots & SLOT_SQUARE)
        prefetch(at->square + i, near);
}

/* Asks for what the chunk AHEAD_ELEMENTS behind i will need: for `sent` where it is written
 * without being read, because a store waits for its line; and, where it comes from `far`,
 * for all that is read, because arithmetic keeps the processor from looking ahead. */
RULE_FN void sweep_ask(const struct plan *plan, const struct arrays *at, size_t i,
                       bool far)
{
    if (far)
        prefetch_chunk(plan->reads | plan->reads_first, at, i + AHEAD_ELEMENTS, true);
    if (sends_unread(plan) && !(plan->ways & WAY_PAST))
        prefetch_to_write(at->sent + i + AHEAD_ELEMENTS);
}

RULE_FN struct chunk chunk_of(number x)
{
    struct chunk ret;
    for (int p = 0; p < PARTS; p++)
        ret.part[p] = x + real_zero();
    return ret;
}

/* A division and a root take longer than everything else in their loop. Started early,
 * they are done when the momentum needs them, and what waits for them does not fill the
 * processor's queues: two chunks early, or one where a chunk is several vectors.
 * (Variables and not an array of them: gcc 12 leaves an array in memory.) */
struct early {
    struct element next[PARTS], then[PARTS];
};

/* The corrections of the chunk `by` chunks from i on; the last one stands in for those
 * behind the end of the array. */
RULE_FN void early_correct(const struct plan *plan, const struct arrays *at,
                           const struct step_scalars *k, size_t i, size_t by, size_t n,
                           int p, struct element *ret)
{
    size_t from = i + by * LANES < n ? i + by * LANES : n - LANES;
    *ret = sweep_correct(plan, at, k, from + (size_t)(p * WIDTH), real_zero());
}

/* Updates chunk i, whose corrections were made early. */
RULE_FN void early_chunk(const struct plan *plan, const struct arrays *at,
                         const struct step_scalars *k, size_t i, size_t n,
                         struct early *early, struct tally *tally)
{
    for (int p = 0; p < PARTS; p++) {
        struct element e = early->next[p];
        if (PARTS == 1) {
            early->next[p] = early->then[p];
            early_correct(plan, at, k, i, 2, n, p, &early->then[p]);
        } else {
            early_correct(plan, at, k, i, 1, n, p, &early->next[p]);
        }
        sweep_move(plan, at, k, i + (size_t)(p * WIDTH), p, &e, tally);
    }
}

/* The whole pass, with one gate for all: k->gate. */
RULE_FN void sweep(const struct plan *plan, const struct arrays *arrays,
                   const struct step_scalars *scalars, size_t n, struct sums *ret)
{
    const struct arrays at = *arrays;
    const struct step_scalars k = *scalars;
    const struct chunk gate = chunk_of(k.gate);
    const bool asks = (plan->ways & WAY_ASK) != 0, far = n > CACHED_ELEMENTS;
    struct tally tally = tally_zero();
    struct early early;

    if (plan->slow && n)
        for (int p = 0; p < PARTS; p++) {
            early_correct(plan, &at, &k, 0, 0, n, p, &early.next[p]);
            early_correct(plan, &at, &k, 0, 1, n, p, &early.then[p]);
        }
    for (size_t i = 0; i < n;) {
        size_t stretch = CHUNKS_FLUSH * LANES;
        bool sums = plan->want_gap || plan->want_step;
        size_t end = sums && n - i > stretch ? i + stretch : n;
        for (; i < end; i += LANES) {
            if (asks)
                sweep_ask(plan, &at, i, far);
            if (plan->slow)
                early_chunk(plan, &at, &k, i, n, &early, &tally);
            else
                sweep_chunk(plan, &at, &k, i, &gate, &tally);
            if (plan->want_step && i / LANES % CHUNKS_EXACT == CHUNKS_EXACT - 1)
                lanes_flush(&tally.step_sq_stretch, &tally.step_sq);
        }
        tally_reach(&tally, plan->want_gap, plan->want_step, i / LANES);
    }
    if (sends_unread(plan) && plan->ways & WAY_PAST)
        stores_past_done();
    tally_total(&tally, ret);
}

#endif
