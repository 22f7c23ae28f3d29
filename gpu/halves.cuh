/* What the preprocessor must know of the halves of a rule, to have no kernel twice: it
 * cannot ask the enums of the headers. apply_kernels.cuh compares the two, and a half
 * that is not here does not compile.
 *
 *   LOOKS_correction(x)   x where its update looks at the gap
 *   MEASURES_correction(x)  x where it measures blocks (RULE_BLOCK)
 *   SUMS_UP_correction(x)   x where it measures the whole vector (RULE_GLOBAL)
 *   AHEAD_momentum(x)     x where it sends something of the worker's own ahead
 *   ROUND_flags(x)        x where the rule is synchronous (RULE_ROUND)
 */
#ifndef GAPLESS_GPU_HALVES_CUH
#define GAPLESS_GPU_HALVES_CUH

#define LOOKS_none(...)
#define LOOKS_staleness(...)
#define LOOKS_gap_aware(...) __VA_ARGS__
#define LOOKS_gap_aware_global(...)
#define LOOKS_delay_comp(...) __VA_ARGS__
#define LOOKS_delay_comp_adaptive(...) __VA_ARGS__
#define LOOKS_loss_gap(...)
#define LOOKS_loss_gap_dot(...)

#define MEASURES_none(...)
#define MEASURES_staleness(...)
#define MEASURES_gap_aware(...)
#define MEASURES_gap_aware_global(...)
#define MEASURES_delay_comp(...)
#define MEASURES_delay_comp_adaptive(...)
#define MEASURES_loss_gap(...) __VA_ARGS__
#define MEASURES_loss_gap_dot(...) __VA_ARGS__

#define SUMS_UP_none(...)
#define SUMS_UP_staleness(...)
#define SUMS_UP_gap_aware(...)
#define SUMS_UP_gap_aware_global(...) __VA_ARGS__
#define SUMS_UP_delay_comp(...)
#define SUMS_UP_delay_comp_adaptive(...)
#define SUMS_UP_loss_gap(...)
#define SUMS_UP_loss_gap_dot(...)

#define AHEAD_plain(...)
#define AHEAD_nag(...) __VA_ARGS__
#define AHEAD_heavy_ball(...)
#define AHEAD_multi(...)
#define AHEAD_lwp(...) __VA_ARGS__
#define AHEAD_elastic(...)
#define AHEAD_elastic_nesterov(...)
#define AHEAD_dana(...) __VA_ARGS__
#define AHEAD_slim(...)
#define AHEAD_shared(...) __VA_ARGS__

#define ROUND_0(...)
#define ROUND_RULE_ROUND(...) __VA_ARGS__

#define RULE(symbol, name, correction, momentum, extra, source)                        \
    static_assert(                                                                     \
        (0 LOOKS_##correction(AHEAD_##momentum(+1))) ==                                \
            (rule_##symbol##_own_gap && !(rule_##symbol##_flags & RULE_GLOBAL)),       \
        "halves.cuh and the headers of " name " agree about the gap");                 \
    static_assert((0 MEASURES_##correction(+1)) ==                                     \
                      ((rule_##symbol##_flags & RULE_BLOCK) != 0),                     \
                  "halves.cuh and the headers of " name " agree about blocks");        \
    static_assert((0 SUMS_UP_##correction(+1)) ==                                      \
                      ((rule_##symbol##_flags & RULE_GLOBAL) != 0),                    \
                  "halves.cuh and the headers of " name " agree about measure");       \
    static_assert((0 ROUND_##extra(+1)) ==                                             \
                      ((rule_##symbol##_flags & RULE_ROUND) != 0),                     \
                  "halves.cuh and the row of " name " agree about rounds");
#include "engine/rules/rules.def"
#undef RULE

#endif
