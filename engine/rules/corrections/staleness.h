/* Divide the gradient by its lag. (SA: Zhang, Gupta, Lian, Liu, "Staleness-aware
 * Async-SGD", IJCAI 2016; here before the momentum, as Gap-Aware compares it.) */
#ifndef GAPLESS_CORRECTIONS_STALENESS_H
#define GAPLESS_CORRECTIONS_STALENESS_H

#include "engine/rules/element.h"

#define FORMULA_staleness "g = g/max(1, lag); "
#define GAP_staleness NO_GAP
enum {
    staleness_reads = 0,
    staleness_writes = 0,
    staleness_flags = 0,
    staleness_settings = 0
};

RULE_FN void correct_staleness(struct element *e, const struct step_scalars *k)
{
    e->grad = k->freshness * e->grad;
}

RULE_FN void after_staleness(struct element *e, const struct step_scalars *k)
{
    (void)e, (void)k;
}

#endif
