/* AdamW with one mean of the gradients for all workers, and a look-ahead over the T updates
 * of the others: along m they go beta1 + beta1^2 + ... + beta1^T = L times as far as the
 * last. (For comparison: linear weight prediction, as lwp, for Adam.)
 *
 *   all, square, theta as under adam
 *   send theta - eta L m/(sqrt(v) + eps)                                    sent */
#ifndef GAPLESS_MOMENTA_ADAM_HORIZON_H
#define GAPLESS_MOMENTA_ADAM_HORIZON_H

#include "engine/rules/adam.h"
#include "engine/rules/element.h"
#include "engine/rules/rules.h"

#define FORMULA_adam_horizon                                                           \
    "v = mean of g^2; m = mean of g; theta -= rate*(m/(sqrt(v) + eps) + "              \
    "lambda*theta); send theta - rate*L*m/(sqrt(v) + eps)"
#define AHEAD_adam_horizon NOTHING_AHEAD
enum {
    adam_horizon_reads = SLOT_THETA | SLOT_ALL | SLOT_SQUARE | SLOT_GRAD,
    adam_horizon_writes = SLOT_THETA | SLOT_ALL | SLOT_SQUARE | SLOT_SENT,
    adam_horizon_flags = RULE_ADAM | RULE_HISTORY,
    adam_horizon_settings = SETTING_MOMENTUM | SETTING_ADAM | SETTING_HORIZON,
    adam_horizon_ahead_reads = 0
};

/* What a worker is given. */
RULE_FN real look_ahead_adam_horizon(const struct element *e,
                                     const struct step_scalars *k)
{
    return e->theta - k->rate_reach * (e->all * adam_inverse(e, k));
}

RULE_FN real ahead_adam_horizon(const struct element *e, const struct step_scalars *k)
{
    (void)e, (void)k;
    return real_zero();
}

RULE_FN void momentum_adam_horizon(struct element *e, const struct step_scalars *k)
{
    adam_one(e, k);
    e->sent = look_ahead_adam_horizon(e, k);
}

#endif
