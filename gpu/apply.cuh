/* Apply: the pass of an element-wise rule, and of every rule whose gate is known.
 *
 * Gradients that wait are applied one after another while theta, all, stat and square stay
 * in registers: the same bits as this many passes.
 */
#ifndef GAPLESS_GPU_APPLY_CUH
#define GAPLESS_GPU_APPLY_CUH

#include "gpu/sums.cuh"

#include "engine/rules/compute_rules.h"

typedef void element_fn(struct element *e, const struct step_scalars *k);

/* One launch. */
struct apply_work {
    struct arrays at[DEVICE_QUEUE]; /* theta, all, stat, square: the same in all */
    struct step_scalars scalars[DEVICE_QUEUE];
    struct tally tally;
    struct device_result *ret; /* one for each gradient */
    size_t n;
    double gated; /* RULE_BLOCK: elements, for the sum of the gates; else 0 */
    uint32_t count;
    bool aligned; /* all pointers, to 16 bytes */
};

typedef void apply_kernel(const struct apply_work work);

/* Row by row of rules.def, without and with gap_sq: the gap measured against what was
 * sent, and against the worker's own look-ahead (NULL where that is the same). */
extern apply_kernel *const apply_kernels_plain[][2], *const apply_kernels_gap[][2];

/* A correction that does not ask for the worker's own part of the look-ahead. */
DEVICE_FN void ahead_is_zero(struct element *e, const struct step_scalars *k)
{
    (void)e, (void)k;
}

/* Updates four elements; what is to be added up goes to *gap_sq and *step_sq. `decay` is
 * that of each (RULE_ADAM). */
template <element_fn *AHEAD, element_fn *CORRECT, element_fn *MOVE>
DEVICE_FN void four_update(struct four *x, const struct step_scalars *k, float gate,
                           float4 decay, float4 *gap_sq, float4 *step_sq)
{
#define ELEMENT(c)                                                                     \
    do {                                                                               \
        struct element e = FOUR_ELEMENT(*x, c, gate);                                  \
        e.decay = decay.c;                                                             \
        AHEAD(&e, k);                                                                  \
        CORRECT(&e, k);                                                                \
        float moved = e.theta - e.sent;                                                \
        MOVE(&e, k);                                                                   \
        gap_sq->c = moved * moved;                                                     \
        step_sq->c = e.step * e.step;                                                  \
        x->theta.c = e.theta, x->own.c = e.own, x->all.c = e.all;                      \
        x->stat.c = e.stat, x->sent.c = e.sent, x->square.c = e.square;                \
        x->mean.c = e.mean, x->turned.c = e.turned;                                    \
    } while (0)
    FOUR_EACH(ELEMENT);
#undef ELEMENT
}

/* Sums of a launch that has none. */
DEVICE_FN void results_without_sums(const struct apply_work *work)
{
    if (blockIdx.x == 0 && threadIdx.x < work->count) {
        struct sums *ret = &work->ret[threadIdx.x].sums;
        ret->gap_sq = 0.0;
        ret->step_sq = 0.0;
        ret->gate_sum = (double)work->scalars[threadIdx.x].gate * work->gated;
        __threadfence_system();
    }
}

/* The last block adds up what all have left. */
template <unsigned SUMS> DEVICE_FN void results_with_sums(const struct apply_work *work)
{
    constexpr unsigned KINDS = SUMS == (SUM_GAP | SUM_STEP) ? 2 : 1;

    if (!last_block(work->tally.ticket))
        return;
    for (unsigned q = 0; q < work->count; q++) {
        double gap_sq = SUMS & SUM_GAP ? tally_total(&work->tally, q * KINDS) : 0.0;
        double step_sq =
            SUMS & SUM_STEP ? tally_total(&work->tally, q * KINDS + KINDS - 1) : 0.0;
        if (threadIdx.x == 0) {
            struct sums *ret = &work->ret[q].sums;
            ret->gap_sq = gap_sq;
            ret->step_sq = step_sq;
            ret->gate_sum = (double)work->scalars[q].gate * work->gated;
        }
    }
    if (threadIdx.x == 0)
        __threadfence_system();
}

/* The whole pass. READS, WRITES: enum slot bits; SUMS: SUM_GAP, SUM_STEP; DECAYS:
 * RULE_ADAM. */
template <unsigned READS, unsigned WRITES, unsigned SUMS, bool DECAYS,
          element_fn *AHEAD, element_fn *CORRECT, element_fn *MOVE>
DEVICE_FN void apply_all(const struct apply_work *work)
{
    constexpr unsigned STAY = SLOT_THETA | SLOT_ALL | SLOT_STAT | SLOT_SQUARE;
    constexpr unsigned KINDS = SUMS == (SUM_GAP | SUM_STEP) ? 2 : 1;
    size_t stretches = stretches_of(work->n);
    unsigned filled = 0;

#pragma unroll 1
    EACH_STRETCH(stretch, stretches)
    {
        struct group g = group_here(stretch, work->n, work->aligned);
        struct four x = four_zero();

        four_load(&work->at[0], g, READS & STAY, &x);
#pragma unroll 1
        for (unsigned q = 0; q < work->count; q++) {
            float4 gap_sq, step_sq, decay = four_of(0.0f);
            four_load(&work->at[q], g, READS & ~STAY, &x);
            if (DECAYS)
                decay = four_decay(&work->at[q], g, &work->scalars[q]);
            four_update<AHEAD, CORRECT, MOVE>(
                &x, &work->scalars[q], work->scalars[q].gate, decay, &gap_sq, &step_sq);
            four_store(&work->at[q], g, WRITES & ~STAY, &x);
            if (SUMS & SUM_GAP)
                tiles_add(&filled, SUMS, &work->tally, q * KINDS, stretch,
                          some_only(g, gap_sq));
            if (SUMS & SUM_STEP)
                tiles_add(&filled, SUMS, &work->tally, q * KINDS + KINDS - 1, stretch,
                          some_only(g, step_sq));
        }
        four_store(&work->at[0], g, WRITES & STAY, &x);
    }
    if (SUMS) {
        tiles_flush(filled, SUMS, &work->tally);
        results_with_sums<SUMS>(work);
    } else {
        results_without_sums(work);
    }
}

#endif
