/* DANA with one velocity for all: each worker's velocity is replaced by the mean all/N,
 * so nothing is kept per worker. (This project.) N is the number of active workers;
 * with N = 1 this is nag to the last bit. One gradient still moves theta by rate/(1 -
 * gamma) in all, as under dana. */
#ifndef GAPLESS_MOMENTA_SHARED_H
#define GAPLESS_MOMENTA_SHARED_H

#include "engine/rules/element.h"
#include "engine/rules/rules.h"

#define FORMULA_shared                                                                 \
    "theta -= rate*(gamma/N*all + g); all = (1 - (1 - gamma)/N)*all + g; "             \
    "send theta - rate*gamma*all"
#define AHEAD_shared OWN_AHEAD
enum {
    shared_reads = SLOT_THETA | SLOT_ALL | SLOT_GRAD,
    shared_writes = SLOT_THETA | SLOT_ALL | SLOT_SENT,
    shared_flags = 0,
    shared_settings = SETTING_MOMENTUM,
    shared_ahead_reads = SLOT_ALL
};

/* What a worker is given. */
RULE_FN real look_ahead_shared(const struct element *e, const struct step_scalars *k)
{
    return e->theta - k->rate_momentum * e->all;
}

/* The part of it that is the worker's own. */
RULE_FN real ahead_shared(const struct element *e, const struct step_scalars *k)
{
    return k->rate_share * e->all;
}

RULE_FN void momentum_shared(struct element *e, const struct step_scalars *k)
{
    e->step = k->share * e->all + e->grad;
    e->theta -= k->rate * e->step;
    e->all = k->keep * e->all + e->grad;
    e->sent = look_ahead_shared(e, k);
}

#endif
