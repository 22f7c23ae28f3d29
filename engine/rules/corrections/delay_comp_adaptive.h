/* Delay compensation whose lambda follows a running mean of squared gradients.
 * (DC-ASGD-a: Zheng et al., ICML 2017; the mean is updated before it is used, and 1e-7
 * is inside the root, as in the authors' code for Multiverso.) One mean for all
 * workers. */
#ifndef GAPLESS_CORRECTIONS_DELAY_COMP_ADAPTIVE_H
#define GAPLESS_CORRECTIONS_DELAY_COMP_ADAPTIVE_H

#include "engine/rules/element.h"
#include "engine/rules/rules.h"

#define FORMULA_delay_comp_adaptive                                                    \
    "ms = m*ms + (1 - m)*g*g; g = g + (lambda0/sqrt(ms + 1e-7))*g*g*gap; "
#define GAP_delay_comp_adaptive ELEMENT_GAP
enum {
    delay_comp_adaptive_reads = SLOT_THETA | SLOT_SENT | SLOT_STAT,
    delay_comp_adaptive_writes = SLOT_STAT,
    delay_comp_adaptive_flags = 0,
    delay_comp_adaptive_settings = SETTING_LAMBDA
};

RULE_FN void correct_delay_comp_adaptive(struct element *e,
                                         const struct step_scalars *k)
{
    real square = e->grad * e->grad;
    e->stat = k->mean_square * e->stat + k->mean_square_rest * square;
    real lambda = k->lambda_zero / real_sqrt(e->stat + (scalar)1e-7);
    e->grad = e->grad + lambda * (square * gap(e));
}

RULE_FN void after_delay_comp_adaptive(struct element *e, const struct step_scalars *k)
{
    (void)e, (void)k;
}

#endif
