/* DANA for AdamW with one mean for all: `all` is the mean of what the workers' means of
 * their gradients would be, and stands for each of them, so that nothing is kept per
 * worker. (This project.) N workers are active.
 *
 *   m = a all + (1 - a) g              what this worker's mean would be
 *   all <- b all + (1 - b) g           b = ((N - 1) + beta1)/N: one in N is replaced
 *   theta <- theta - eta (m/(sqrt(v) + eps) + lambda theta)                 theta
 *   send theta - eta beta1 N all/(sqrt(v) + eps)                            sent
 *
 * v is as under adam_dana; a and b are corrected for the beginning. */
#ifndef GAPLESS_MOMENTA_ADAM_SHARED_H
#define GAPLESS_MOMENTA_ADAM_SHARED_H

#include "engine/rules/adam.h"
#include "engine/rules/element.h"
#include "engine/rules/rules.h"

#define FORMULA_adam_shared                                                            \
    "v = mean of g^2; m = a*all + (1 - a)*g; all = mean of m; "                        \
    "theta -= rate*(m/(sqrt(v) + eps) + lambda*theta); "                               \
    "send theta - rate*beta1*N*all/(sqrt(v) + eps)"
#define AHEAD_adam_shared OWN_AHEAD
enum {
    adam_shared_reads = SLOT_THETA | SLOT_ALL | SLOT_SQUARE | SLOT_GRAD,
    adam_shared_writes = SLOT_THETA | SLOT_ALL | SLOT_SQUARE | SLOT_SENT,
    adam_shared_flags = RULE_ADAM | RULE_HISTORY | RULE_ROUND_SQUARE,
    adam_shared_settings = SETTING_MOMENTUM | SETTING_ADAM,
    adam_shared_ahead_reads = SLOT_ALL | SLOT_SQUARE
};

/* What a worker is given. */
RULE_FN real look_ahead_adam_shared(const struct element *e,
                                    const struct step_scalars *k)
{
    return e->theta - k->rate_round * (e->all * adam_inverse(e, k));
}

/* The part of it that is the worker's own. */
RULE_FN real ahead_adam_shared(const struct element *e, const struct step_scalars *k)
{
    return k->last_momentum * (e->all * adam_inverse(e, k));
}

RULE_FN void momentum_adam_shared(struct element *e, const struct step_scalars *k)
{
    real own = k->share_keep * e->all + k->share_add * e->grad;

    adam_square(e, k->round_keep, k->round_add);
    e->all = k->mean_keep * e->all + k->mean_add * e->grad;
    adam_move(e, k, own * adam_inverse(e, k));
    e->sent = look_ahead_adam_shared(e, k);
}

#endif
