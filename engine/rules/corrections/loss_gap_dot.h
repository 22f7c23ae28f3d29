/* As loss_gap, without a vector per worker: what a worker read is known by one number
 * for each block, which it sends beside its gradient.
 *
 *   r = sum over the block of g*x         x: the parameters it computed at
 *   q = sum over the block of g*(theta - ahead) - r
 *
 * So all workers can read one published look-ahead. Two sums that are nearly equal are
 * subtracted, which puts q off by about 1e-6 where it is around 1e-3: with kappa = 10
 * the gate is off by 1e-5. */
#ifndef GAPLESS_CORRECTIONS_LOSS_GAP_DOT_H
#define GAPLESS_CORRECTIONS_LOSS_GAP_DOT_H

#include "engine/rules/corrections/loss_gap.h"

#define FORMULA_loss_gap_dot                                                           \
    "per block g = clip(1 + kappa*(<g, theta - ahead> - r), 0, 1)*g, "                 \
    "r = <g, x> from the worker; "
#define GAP_loss_gap_dot BLOCK_GAP
enum {
    loss_gap_dot_reads = 0, /* what the measure reads is counted apart */
    loss_gap_dot_writes = 0,
    loss_gap_dot_flags = RULE_PUBLISHED,
    loss_gap_dot_settings = SETTING_KAPPA
};

/* The summand of q + r. */
RULE_FN real measure_loss_gap_dot(const struct element *e)
{
    return e->grad * (e->theta - e->ahead);
}

/* The summand of r: `sent` is what the worker read. */
RULE_FN real measure_dot(const struct element *e)
{
    return e->grad * e->sent;
}

RULE_FN scalar gate_loss_gap_dot(double q, const struct step_scalars *k)
{
    return gate_loss_gap(q, k);
}

RULE_FN void correct_loss_gap_dot(struct element *e, const struct step_scalars *k)
{
    correct_loss_gap(e, k);
}

RULE_FN void after_loss_gap_dot(struct element *e, const struct step_scalars *k)
{
    (void)e, (void)k;
}

#endif
