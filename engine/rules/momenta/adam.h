/* AdamW with one mean of the gradients for all workers; what is sent is theta.
 *
 *   m = mean of g; v = mean of g^2, both corrected for their beginning      all, square
 *   theta <- theta - eta (m/(sqrt(v) + eps) + lambda theta)                 theta
 *   send theta                                                              sent */
#ifndef GAPLESS_MOMENTA_ADAM_H
#define GAPLESS_MOMENTA_ADAM_H

#include "engine/rules/adam.h"
#include "engine/rules/element.h"
#include "engine/rules/rules.h"

#define FORMULA_adam                                                                   \
    "v = mean of g^2; m = mean of g; theta -= rate*(m/(sqrt(v) + eps) + "              \
    "lambda*theta); send theta"
#define AHEAD_adam NOTHING_AHEAD
enum {
    adam_reads = SLOT_THETA | SLOT_ALL | SLOT_SQUARE | SLOT_GRAD,
    adam_writes = SLOT_THETA | SLOT_ALL | SLOT_SQUARE | SLOT_SENT,
    adam_flags = RULE_ADAM | RULE_HISTORY,
    adam_settings = SETTING_MOMENTUM | SETTING_ADAM,
    adam_ahead_reads = 0
};

/* What a worker is given. */
RULE_FN real look_ahead_adam(const struct element *e, const struct step_scalars *k)
{
    (void)k;
    return e->theta;
}

RULE_FN real ahead_adam(const struct element *e, const struct step_scalars *k)
{
    (void)e, (void)k;
    return real_zero();
}

RULE_FN void momentum_adam(struct element *e, const struct step_scalars *k)
{
    adam_one(e, k);
    e->sent = look_ahead_adam(e, k);
}

#endif
