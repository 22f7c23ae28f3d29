/* Shrink a block's gradient by what the others have already taken off this batch's
 * loss. (Loss-Gap-Aware, this project.)
 *
 * To first order the batch's loss has changed by q = <g, gap> since the worker read the
 * parameters, in nats; what is already done is not done again:
 *
 *   q = sum over the block of g*(theta - ahead - sent)
 *   f = min(1, max(0, 1 + kappa*q))     kappa = 10: dropped once 0.1 nat is gone
 *   g = f*g
 *
 * Where a large tensor is cut into pieces (so that a block fits in a cache), q of a
 * piece is taken times the number of pieces: it stands for the q of the whole tensor,
 * of which it sees only its share. Without that, cutting weakens the gate (measured:
 * 0.15, 0.3 and 1.0 points of accuracy with 32, 64 and 128 workers).
 *
 * `ahead` is always the worker's own part of the look-ahead, whatever gap_ref says. */
#ifndef GAPLESS_CORRECTIONS_LOSS_GAP_H
#define GAPLESS_CORRECTIONS_LOSS_GAP_H

#include "engine/rules/element.h"
#include "engine/rules/rules.h"

#define FORMULA_loss_gap "per block g = clip(1 + kappa*<g, gap>, 0, 1)*g; "
#define GAP_loss_gap BLOCK_GAP
enum {
    loss_gap_reads = 0, /* what the measure reads is counted apart */
    loss_gap_writes = 0,
    loss_gap_flags = 0,
    loss_gap_settings = SETTING_KAPPA
};

/* The summand of q. */
RULE_FN real measure_loss_gap(const struct element *e)
{
    return e->grad * gap(e);
}

/* From q to f. A q that is not a number gates the block off. */
RULE_FN scalar gate_loss_gap(double q, const struct step_scalars *k)
{
    double f = 1.0 + k->kappa * q;
    return f >= 1.0 ? (scalar)1 : f > 0.0 ? (scalar)f : (scalar)0;
}

RULE_FN void correct_loss_gap(struct element *e, const struct step_scalars *k)
{
    (void)k;
    e->grad = e->gate * e->grad;
}

RULE_FN void after_loss_gap(struct element *e, const struct step_scalars *k)
{
    (void)e, (void)k;
}

#endif
