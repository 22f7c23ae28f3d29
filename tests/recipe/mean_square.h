/* For the test of CONTRIBUTING's recipe: one velocity and a mean of squares, both of the
 * master, as a synchronous rule may have them. (Of no paper.)
 *
 *   v = gamma*v + g; s = m*s + (1 - m)*g^2; theta -= rate*v/(1 + sqrt(s))
 *   send theta - rate*gamma*v/(1 + sqrt(s)) */
#ifndef GAPLESS_MOMENTA_MEAN_SQUARE_H
#define GAPLESS_MOMENTA_MEAN_SQUARE_H

#include "engine/rules/element.h"
#include "engine/rules/rules.h"

#define FORMULA_mean_square                                                            \
    "v = gamma*v + g; s = m*s + (1 - m)*g^2; theta -= rate*v/(1 + sqrt(s))"
#define AHEAD_mean_square OWN_AHEAD
enum {
    mean_square_reads = SLOT_THETA | SLOT_ALL | SLOT_STAT | SLOT_GRAD,
    mean_square_writes = SLOT_THETA | SLOT_ALL | SLOT_STAT | SLOT_SENT,
    mean_square_flags = 0,
    mean_square_settings = SETTING_MOMENTUM,
    mean_square_ahead_reads = SLOT_ALL | SLOT_STAT
};

/* The part of the look-ahead that is the worker's own: all of it. */
RULE_FN real ahead_mean_square(const struct element *e, const struct step_scalars *k)
{
    return k->rate_momentum * (e->all / ((scalar)1 + real_sqrt(e->stat)));
}

/* What a worker is given. */
RULE_FN real look_ahead_mean_square(const struct element *e,
                                    const struct step_scalars *k)
{
    return e->theta - ahead_mean_square(e, k);
}

RULE_FN void momentum_mean_square(struct element *e, const struct step_scalars *k)
{
    e->all = k->momentum * e->all + e->grad;
    e->stat = k->mean_square * e->stat + k->mean_square_rest * (e->grad * e->grad);
    e->step = e->all / ((scalar)1 + real_sqrt(e->stat));
    e->theta -= k->rate * e->step;
    e->sent = look_ahead_mean_square(e, k);
}

#endif
