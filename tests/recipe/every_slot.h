/* For the test of CONTRIBUTING's recipe: a momentum that reads every slot, and a look-ahead
 * that reads all that is there without a gradient. (Of no paper.)
 *
 *   own = gamma*own + g; all = sum of own; s = m*s + (1 - m)*g^2; z = m*z + (1 - m)*own^2
 *   theta -= rate*(own/(1 + sqrt(s + z)) + (theta - sent)/8)
 *   send theta - rate*gamma*(all + own)/(1 + sqrt(s + z)) */
#ifndef GAPLESS_MOMENTA_EVERY_SLOT_H
#define GAPLESS_MOMENTA_EVERY_SLOT_H

#include "engine/rules/element.h"
#include "engine/rules/rules.h"

#define FORMULA_every_slot                                                             \
    "own = gamma*own + g; all = sum of own; s = mean of g^2; z = mean of own^2; "      \
    "theta -= rate*(own/(1 + sqrt(s + z)) + (theta - sent)/8)"
#define AHEAD_every_slot OWN_AHEAD
enum {
    every_slot_reads = SLOT_THETA | SLOT_OWN | SLOT_ALL | SLOT_STAT | SLOT_SENT |
                       SLOT_GRAD | SLOT_SQUARE,
    every_slot_writes =
        SLOT_THETA | SLOT_OWN | SLOT_ALL | SLOT_STAT | SLOT_SENT | SLOT_SQUARE,
    every_slot_flags = RULE_SUM,
    every_slot_settings = SETTING_MOMENTUM,
    every_slot_ahead_reads = SLOT_OWN | SLOT_STAT | SLOT_SQUARE
};

/* What a worker is given. */
RULE_FN real look_ahead_every_slot(const struct element *e,
                                   const struct step_scalars *k)
{
    real size = (scalar)1 + real_sqrt(e->stat + e->square);
    return e->theta - k->rate_momentum * ((e->all + e->own) / size);
}

/* The part of it that is the worker's own. */
RULE_FN real ahead_every_slot(const struct element *e, const struct step_scalars *k)
{
    return k->rate_momentum * (e->own / ((scalar)1 + real_sqrt(e->stat + e->square)));
}

RULE_FN void momentum_every_slot(struct element *e, const struct step_scalars *k)
{
    real own = k->momentum * e->own + e->grad, pull = e->theta - e->sent;
    if (k->alone)
        e->all = own;
    else
        e->all += own - e->own;
    e->own = own;
    e->stat = k->mean_square * e->stat + k->mean_square_rest * (e->grad * e->grad);
    e->square = k->mean_square * e->square + k->mean_square_rest * (own * own);
    e->step = own / ((scalar)1 + real_sqrt(e->stat + e->square)) + (scalar)0.125 * pull;
    e->theta -= k->rate * e->step;
    e->sent = look_ahead_every_slot(e, k);
}

#endif
