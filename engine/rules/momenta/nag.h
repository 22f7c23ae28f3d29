/* One velocity at the master, look-ahead along it. (Nesterov 1983, in the form of
 * Sutskever et al., ICML 2013, with the rate outside the velocity; NAG-ASGD in the DANA
 * paper.) With one worker this is sequential Nesterov momentum. */
#ifndef GAPLESS_MOMENTA_NAG_H
#define GAPLESS_MOMENTA_NAG_H

#include "engine/rules/element.h"
#include "engine/rules/rules.h"

#define FORMULA_nag "v = gamma*v + g; theta -= rate*v; send theta - rate*gamma*v"
#define AHEAD_nag OWN_AHEAD
enum {
    nag_reads = SLOT_THETA | SLOT_ALL | SLOT_GRAD,
    nag_writes = SLOT_THETA | SLOT_ALL | SLOT_SENT,
    nag_flags = 0,
    nag_settings = SETTING_MOMENTUM,
    nag_ahead_reads = SLOT_ALL
};

/* What a worker is given. */
RULE_FN real look_ahead_nag(const struct element *e, const struct step_scalars *k)
{
    return e->theta - k->rate_momentum * e->all;
}

/* The part of it that is the worker's own. */
RULE_FN real ahead_nag(const struct element *e, const struct step_scalars *k)
{
    return k->rate_momentum * e->all;
}

RULE_FN void momentum_nag(struct element *e, const struct step_scalars *k)
{
    e->all = k->momentum * e->all + e->grad;
    e->step = e->all;
    e->theta -= k->rate * e->step;
    e->sent = look_ahead_nag(e, k);
}

#endif
