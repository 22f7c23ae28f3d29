/* One velocity at the master, look-ahead over a horizon of T updates. (Linear weight
 * prediction, velocity form: Kosson et al., "Pipelined Backpropagation at Scale",
 * 2020.) T = gamma would be nag. */
#ifndef GAPLESS_MOMENTA_LWP_H
#define GAPLESS_MOMENTA_LWP_H

#include "engine/rules/element.h"
#include "engine/rules/rules.h"

#define FORMULA_lwp "v = gamma*v + g; theta -= rate*v; send theta - T*rate*v"
#define AHEAD_lwp OWN_AHEAD
enum {
    lwp_reads = SLOT_THETA | SLOT_ALL | SLOT_GRAD,
    lwp_writes = SLOT_THETA | SLOT_ALL | SLOT_SENT,
    lwp_flags = 0,
    lwp_settings = SETTING_MOMENTUM | SETTING_HORIZON,
    lwp_ahead_reads = SLOT_ALL
};

/* What a worker is given. */
RULE_FN real look_ahead_lwp(const struct element *e, const struct step_scalars *k)
{
    return e->theta - k->rate_horizon * e->all;
}

/* The part of it that is the worker's own. */
RULE_FN real ahead_lwp(const struct element *e, const struct step_scalars *k)
{
    return k->rate_horizon * e->all;
}

RULE_FN void momentum_lwp(struct element *e, const struct step_scalars *k)
{
    e->all = k->momentum * e->all + e->grad;
    e->step = e->all;
    e->theta -= k->rate * e->step;
    e->sent = look_ahead_lwp(e, k);
}

#endif
