/* Divide every element of the gradient by how many steps its parameter has moved since
 * the worker read it. (GA: Barkai, Hakimi, Schuster, "Gap-Aware Mitigation of Gradient
 * Staleness", ICLR 2020, the parameter-wise form.)
 *
 *   C = rate_max*(sqrt(s/(1 - rho^n)) + 1e-8)    the largest normal step
 *   G = 1 + |theta - sent|/C
 *   g = g/G                                      the penalty
 *   s = rho*s + (1 - rho)*step^2                 after the update
 *
 * g/G is computed as g*(C/(C + |gap|)): one division, not three; exactly g where the
 * gap is 0, and never more than g.
 *
 * 1e-8 keeps C above 0 where nothing ever moved. (The authors' released code.) */
#ifndef GAPLESS_CORRECTIONS_GAP_AWARE_H
#define GAPLESS_CORRECTIONS_GAP_AWARE_H

#include "engine/rules/element.h"
#include "engine/rules/rules.h"

#define FORMULA_gap_aware                                                              \
    "C = rate_max*(sqrt(s/(1 - rho^n)) + 1e-8); g = g/(1 + |gap|/C); "
#define GAP_gap_aware ELEMENT_GAP
enum {
    gap_aware_reads = SLOT_THETA | SLOT_SENT | SLOT_STAT,
    gap_aware_writes = SLOT_STAT,
    gap_aware_flags = 0,
    gap_aware_settings = 0
};

RULE_FN void correct_gap_aware(struct element *e, const struct step_scalars *k)
{
    real largest = k->rate_max * (real_sqrt(e->stat * k->bias) + (scalar)1e-8);
    if (k->penalised)
        e->grad = e->grad * (largest / (largest + real_abs(gap(e))));
}

RULE_FN void after_gap_aware(struct element *e, const struct step_scalars *k)
{
    e->stat = k->rho * e->stat + k->rho_rest * (e->step * e->step);
}

#endif
