/* Expands rules.def into the kernels of apply.cuh. Included once with GAP 0, for those
 * without gap_sq, and once with GAP 1.
 *
 *   gapless_apply_SYMBOL_sent       the gap is measured against what was sent
 *   gapless_apply_SYMBOL_own        ... and the worker's own look-ahead, where that
 *                                   makes a difference
 *   gapless_apply_SYMBOL_sent_gap, _own_gap   the same with gap_sq
 *
 * Four blocks on a multiprocessor leave 64 registers to a thread. Without saying so,
 * nvcc 13 aims at more blocks in two kernels for sm_80, and spills.
 */
#ifndef GAPLESS_GPU_APPLY_KERNELS_CUH
#define GAPLESS_GPU_APPLY_KERNELS_CUH

#include "gpu/apply.cuh"

#if GAP
#define VARIANT(symbol, reference) gapless_apply_##symbol##_##reference##_gap
#define GAP_READS SLOT_SENT
#define GAP_SUMS SUM_GAP
#define TABLE apply_kernels_gap
#else
#define VARIANT(symbol, reference) gapless_apply_##symbol##_##reference
#define GAP_READS 0
#define GAP_SUMS 0
#define TABLE apply_kernels_plain
#endif

#define KERNEL(symbol, correction, reference, ahead)                                   \
    extern "C" __global__ void __launch_bounds__(THREADS, 4)                           \
        VARIANT(symbol, reference)(const __grid_constant__ struct apply_work work)     \
    {                                                                                  \
        constexpr unsigned READS = rule_##symbol##_reads | (GAP_READS);                \
        constexpr unsigned STEP =                                                      \
            (rule_##symbol##_flags & RULE_GLOBAL) ? SUM_STEP : 0;                      \
        apply_all<READS, rule_##symbol##_writes, (GAP_SUMS) | STEP,                    \
                  (rule_##symbol##_flags & RULE_ADAM) != 0, ahead,                     \
                  correct_##correction, move_##symbol>(&work);                         \
    }
#define RULE(symbol, name, correction, momentum, extra, source)                        \
    KERNEL(symbol, correction, sent, ahead_is_zero)                                    \
    IF_ELEMENT_GAP(correction, IF_OWN_AHEAD(momentum, KERNEL(symbol, correction, own,  \
                                                             ahead_of_##symbol)))
#include "engine/rules/rules.def"
#undef RULE

#define RULE(symbol, name, correction, momentum, extra, source)                        \
    {VARIANT(symbol, sent),                                                            \
     IF_ELEMENT_GAP(correction, IF_OWN_AHEAD(momentum, VARIANT(symbol, own)))},
apply_kernel *const TABLE[][2] = {
#include "engine/rules/rules.def"
};
#undef RULE

#endif
