/* What Adam's momenta share. (Kingma and Ba, ICLR 2015; decoupled weight decay: Loshchilov
 * and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019.)
 *
 *   square = mean of g^2, corrected for its beginning; g as it came, whatever the
 *            correction made of it
 *   theta -= rate*(m/(sqrt(square) + eps) + lambda*theta)     theta as it was
 *
 * With one worker this is torch.optim.AdamW: m and square are its exp_avg and exp_avg_sq
 * already divided by their bias corrections. lambda is 0 for tensors of one dimension. */
#ifndef GAPLESS_ADAM_H
#define GAPLESS_ADAM_H

#include "engine/rules/element.h"

/* 1/(sqrt(square) + eps) */
RULE_FN real adam_inverse(const struct element *e, const struct step_scalars *k)
{
    return (scalar)1 / (real_sqrt(e->square) + k->epsilon);
}

RULE_FN void adam_square(struct element *e, scalar keep, scalar add)
{
    e->square = keep * e->square + add * (e->raw * e->raw);
}

RULE_FN void adam_move(struct element *e, const struct step_scalars *k, real direction)
{
    e->step = direction + e->decay * e->theta;
    e->theta -= k->rate * e->step;
}

/* With one mean of the gradients, `all`, for all workers. */
RULE_FN void adam_one(struct element *e, const struct step_scalars *k)
{
    adam_square(e, k->square_keep, k->square_add);
    e->all = k->one_keep * e->all + k->one_add * e->grad;
    adam_move(e, k, e->all * adam_inverse(e, k));
}

#endif
