/* Gap-Aware with one number for the whole vector (Barkai, Hakimi, Schuster, ICLR 2020,
 * discuss it beside the parameter-wise form):
 *
 *   G = 1 + sqrt(mean(gap^2))/C,    C = rate_max*(sqrt(s/(1 - rho^n)) + 1e-8)
 *   s = rho*s + (1 - rho)*mean(step^2)           a scalar, kept by the master
 *
 * The sum has to be known before anything is applied: compute->measure goes over the
 * whole vector first, rules_step_scalars turns it into the knob `penalty` = 1/G. */
#ifndef GAPLESS_CORRECTIONS_GAP_AWARE_GLOBAL_H
#define GAPLESS_CORRECTIONS_GAP_AWARE_GLOBAL_H

#include "engine/rules/element.h"
#include "engine/rules/rules.h"

#define FORMULA_gap_aware_global                                                       \
    "C = rate_max*(sqrt(s/(1 - rho^n)) + 1e-8); g = g/(1 + rms(gap)/C); "
#define GAP_gap_aware_global VECTOR_GAP
enum {
    gap_aware_global_reads = 0,
    gap_aware_global_writes = 0,
    gap_aware_global_flags = 0,
    gap_aware_global_settings = 0
};

RULE_FN void correct_gap_aware_global(struct element *e, const struct step_scalars *k)
{
    e->grad = k->penalty * e->grad;
}

RULE_FN void after_gap_aware_global(struct element *e, const struct step_scalars *k)
{
    (void)e, (void)k;
}

#endif
