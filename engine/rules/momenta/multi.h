/* A velocity per worker, sent without look-ahead. (Multi-ASGD, a baseline of the DANA
 * paper: Hakimi et al., 2019) */
#ifndef GAPLESS_MOMENTA_MULTI_H
#define GAPLESS_MOMENTA_MULTI_H

#include "engine/rules/element.h"
#include "engine/rules/rules.h"

#define FORMULA_multi "own = gamma*own + g; theta -= rate*own; send theta"
#define AHEAD_multi NOTHING_AHEAD
enum {
    multi_reads = SLOT_THETA | SLOT_OWN | SLOT_GRAD,
    multi_writes = SLOT_THETA | SLOT_OWN | SLOT_SENT,
    multi_flags = 0,
    multi_settings = SETTING_MOMENTUM,
    multi_ahead_reads = 0
};

/* What a worker is given. */
RULE_FN real look_ahead_multi(const struct element *e, const struct step_scalars *k)
{
    (void)k;
    return e->theta;
}

/* The part of it that is the worker's own. */
RULE_FN real ahead_multi(const struct element *e, const struct step_scalars *k)
{
    (void)e, (void)k;
    return real_zero();
}

RULE_FN void momentum_multi(struct element *e, const struct step_scalars *k)
{
    e->own = k->momentum * e->own + e->grad;
    e->step = e->own;
    e->theta -= k->rate * e->step;
    e->sent = look_ahead_multi(e, k);
}

#endif
