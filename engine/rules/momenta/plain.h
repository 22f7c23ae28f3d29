/* No momentum: theta moves along the gradient and is sent as it is. (ASGD) */
#ifndef GAPLESS_MOMENTA_PLAIN_H
#define GAPLESS_MOMENTA_PLAIN_H

#include "engine/rules/element.h"
#include "engine/rules/rules.h"

#define FORMULA_plain "theta -= rate*g; send theta"
#define AHEAD_plain NOTHING_AHEAD
enum {
    plain_reads = SLOT_THETA | SLOT_GRAD,
    plain_writes = SLOT_THETA | SLOT_SENT,
    plain_flags = 0,
    plain_settings = 0,
    plain_ahead_reads = 0
};

/* What a worker is given. */
RULE_FN real look_ahead_plain(const struct element *e, const struct step_scalars *k)
{
    (void)k;
    return e->theta;
}

/* The part of it that is the worker's own. */
RULE_FN real ahead_plain(const struct element *e, const struct step_scalars *k)
{
    (void)e, (void)k;
    return real_zero();
}

RULE_FN void momentum_plain(struct element *e, const struct step_scalars *k)
{
    e->step = e->grad;
    e->theta -= k->rate * e->step;
    e->sent = look_ahead_plain(e, k);
}

#endif
