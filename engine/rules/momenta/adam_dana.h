/* DANA for AdamW: a mean of the gradients per worker and the sum of these means; look-ahead
 * along the sum, as under dana. (This project.)
 *
 *   m^i = mean of g^i, corrected for worker i's own beginning               own
 *   v = mean of g^2, by beta2^(1/N): beta2 is given per round               square
 *   theta <- theta - eta (m^i/(sqrt(v) + eps) + lambda theta)               theta
 *   M = sum of m^j                                                          all
 *   send theta - eta beta1 M/(sqrt(v) + eps)                                sent
 *
 * The difference comes first in `all += own - old`, and with one active worker `all` is
 * set to `own`, as under dana. */
#ifndef GAPLESS_MOMENTA_ADAM_DANA_H
#define GAPLESS_MOMENTA_ADAM_DANA_H

#include "engine/rules/adam.h"
#include "engine/rules/element.h"
#include "engine/rules/rules.h"

#define FORMULA_adam_dana                                                              \
    "v = mean of g^2; own = mean of g; all = sum of own; "                             \
    "theta -= rate*(own/(sqrt(v) + eps) + lambda*theta); "                             \
    "send theta - rate*beta1*all/(sqrt(v) + eps)"
#define AHEAD_adam_dana OWN_AHEAD
enum {
    adam_dana_reads = SLOT_THETA | SLOT_OWN | SLOT_ALL | SLOT_SQUARE | SLOT_GRAD,
    adam_dana_writes = SLOT_THETA | SLOT_OWN | SLOT_ALL | SLOT_SQUARE | SLOT_SENT,
    adam_dana_flags = RULE_SUM | RULE_ADAM | RULE_HISTORY | RULE_ROUND_SQUARE,
    adam_dana_settings = SETTING_MOMENTUM | SETTING_ADAM,
    adam_dana_ahead_reads = SLOT_OWN | SLOT_SQUARE
};

/* What a worker is given. */
RULE_FN real look_ahead_adam_dana(const struct element *e, const struct step_scalars *k)
{
    return e->theta - k->rate_momentum * (e->all * adam_inverse(e, k));
}

/* The part of it that is the worker's own. */
RULE_FN real ahead_adam_dana(const struct element *e, const struct step_scalars *k)
{
    return k->last_momentum * (e->own * adam_inverse(e, k));
}

RULE_FN void momentum_adam_dana(struct element *e, const struct step_scalars *k)
{
    real own = k->own_keep * e->own + k->own_add * e->grad;

    adam_square(e, k->round_keep, k->round_add);
    if (k->alone)
        e->all = own;
    else
        e->all += own - e->own;
    e->own = own;
    adam_move(e, k, own * adam_inverse(e, k));
    e->sent = look_ahead_adam_dana(e, k);
}

#endif
