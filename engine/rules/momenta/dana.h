/* A velocity per worker and their sum; look-ahead along the sum: before this worker is
 * heard again every worker will on average have moved theta by rate*gamma times its own
 * velocity. (DANA-Zero: Hakimi, Barkai, Gabel, Schuster, "Taming Momentum in a
 * Distributed Asynchronous Environment", 2019.)
 *
 *   in the paper                          here
 *   v^i <- gamma v^i + g^i                own
 *   theta^0 <- theta^0 - eta v^i          theta
 *   v^0 <- v^0 + v^i - (v^i before)       all
 *   send theta^0 - eta gamma v^0          sent
 *
 * The difference comes first in `all += own - old`: it is small, so little is lost.
 * With one active worker `all` is `own`, and is set to it, so that one worker is
 * sequential Nesterov momentum to the last bit. */
#ifndef GAPLESS_MOMENTA_DANA_H
#define GAPLESS_MOMENTA_DANA_H

#include "engine/rules/element.h"
#include "engine/rules/rules.h"

#define FORMULA_dana                                                                   \
    "own = gamma*own + g; all = sum of own; theta -= rate*own; "                       \
    "send theta - rate*gamma*all"
#define AHEAD_dana OWN_AHEAD
enum {
    dana_reads = SLOT_THETA | SLOT_OWN | SLOT_ALL | SLOT_GRAD,
    dana_writes = SLOT_THETA | SLOT_OWN | SLOT_ALL | SLOT_SENT,
    dana_flags = RULE_SUM,
    dana_settings = SETTING_MOMENTUM,
    dana_ahead_reads = SLOT_OWN
};

/* What a worker is given. */
RULE_FN real look_ahead_dana(const struct element *e, const struct step_scalars *k)
{
    return e->theta - k->rate_momentum * e->all;
}

/* The part of it that is the worker's own. */
RULE_FN real ahead_dana(const struct element *e, const struct step_scalars *k)
{
    return k->rate_momentum * e->own;
}

RULE_FN void momentum_dana(struct element *e, const struct step_scalars *k)
{
    real own = k->momentum * e->own + e->grad;
    if (k->alone)
        e->all = own;
    else
        e->all += own - e->own;
    e->own = own;
    e->step = own;
    e->theta -= k->rate * e->step;
    e->sent = look_ahead_dana(e, k);
}

#endif
