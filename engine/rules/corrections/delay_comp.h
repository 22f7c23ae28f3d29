/* First-order guess of the gradient at the present parameters, with lambda*g*g for the
 * diagonal of the Hessian. (DC-ASGD-c: Zheng et al., "Asynchronous Stochastic Gradient
 * Descent with Delay Compensation", ICML 2017, the constant form.) */
#ifndef GAPLESS_CORRECTIONS_DELAY_COMP_H
#define GAPLESS_CORRECTIONS_DELAY_COMP_H

#include "engine/rules/element.h"
#include "engine/rules/rules.h"

#define FORMULA_delay_comp "g = g + lambda*g*g*gap; "
#define GAP_delay_comp ELEMENT_GAP
enum {
    delay_comp_reads = SLOT_THETA | SLOT_SENT,
    delay_comp_writes = 0,
    delay_comp_flags = 0,
    delay_comp_settings = SETTING_LAMBDA
};

RULE_FN void correct_delay_comp(struct element *e, const struct step_scalars *k)
{
    e->grad = e->grad + k->lambda * ((e->grad * e->grad) * gap(e));
}

RULE_FN void after_delay_comp(struct element *e, const struct step_scalars *k)
{
    (void)e, (void)k;
}

#endif
