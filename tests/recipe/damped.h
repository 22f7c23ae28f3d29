/* For the test of CONTRIBUTING's recipe: divide every element of the gradient by 1 + |gap|.
 * (Of no paper.) */
#ifndef GAPLESS_CORRECTIONS_DAMPED_H
#define GAPLESS_CORRECTIONS_DAMPED_H

#include "engine/rules/element.h"
#include "engine/rules/rules.h"

#define FORMULA_damped "g = g/(1 + |gap|); "
#define GAP_damped ELEMENT_GAP
enum {
    damped_reads = SLOT_THETA | SLOT_SENT,
    damped_writes = 0,
    damped_flags = 0,
    damped_settings = 0
};

RULE_FN void correct_damped(struct element *e, const struct step_scalars *k)
{
    (void)k;
    e->grad = e->grad / (real_of(1) + real_abs(gap(e)));
}

RULE_FN void after_damped(struct element *e, const struct step_scalars *k)
{
    (void)e, (void)k;
}

#endif
