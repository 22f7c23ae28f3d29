/* Delayed Nesterov: gradients move the parameters at once, their mean joins the momentum
 * only when there are as many as workers, so that stale gradients do not each push it.
 * (Liu et al. 2024, arXiv 2401.09135, Algorithm 3: an outer optimizer for asynchronous
 * local steps.)
 *
 *   n = active workers when the buffer was empty
 *   theta <- theta - (eta/n) g;  b <- b + g                                 theta, stat
 *   after the n-th: v <- gamma v + b/n                                      all
 *                   theta <- theta - eta gamma v;  b <- 0                   theta, stat
 *   send theta                                                              sent
 *
 * n gradients of one theta make one step of Nesterov's momentum along their mean. */
#ifndef GAPLESS_MOMENTA_DELAYED_NESTEROV_H
#define GAPLESS_MOMENTA_DELAYED_NESTEROV_H

#include "engine/rules/element.h"
#include "engine/rules/rules.h"

#define FORMULA_delayed_nesterov                                                       \
    "theta -= rate/N*g; b += g; every N: v = gamma*v + b/N, theta -= rate*gamma*v, "   \
    "b = 0; send theta"
#define AHEAD_delayed_nesterov NOTHING_AHEAD
enum {
    delayed_nesterov_reads = SLOT_THETA | SLOT_ALL | SLOT_STAT | SLOT_GRAD,
    delayed_nesterov_writes = SLOT_THETA | SLOT_ALL | SLOT_STAT | SLOT_SENT,
    delayed_nesterov_flags = RULE_HISTORY,
    delayed_nesterov_settings = SETTING_MOMENTUM,
    delayed_nesterov_ahead_reads = 0
};

/* What a worker is given. */
RULE_FN real look_ahead_delayed_nesterov(const struct element *e,
                                         const struct step_scalars *k)
{
    (void)k;
    return e->theta;
}

RULE_FN real ahead_delayed_nesterov(const struct element *e,
                                    const struct step_scalars *k)
{
    (void)e, (void)k;
    return real_zero();
}

RULE_FN void momentum_delayed_nesterov(struct element *e, const struct step_scalars *k)
{
    e->stat += e->grad;
    e->step = e->grad / k->together;
    e->theta -= k->rate_part * e->grad;
    if (k->turn) {
        e->all = k->momentum * e->all + e->stat / k->together;
        e->step += k->momentum * e->all;
        e->theta -= k->rate_momentum * e->all;
        e->stat = real_zero();
    }
    e->sent = look_ahead_delayed_nesterov(e, k);
}

#endif
