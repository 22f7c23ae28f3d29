/* DANA for Muon: a mean of the gradients and the last step per worker, and the sum of these
 * steps, along which is looked ahead. (This project.) Of a matrix:
 *
 *   m^i <- mu m^i + (1 - mu) g^i                                            mean
 *   U = 0.2 sqrt(max(R, C)) NS(m^i)                                         turned: NS
 *   S <- S + U - u^i; u^i <- U                                              all, own
 *   theta <- theta - eta (U + lambda theta)                                 theta
 *   send theta - eta beta1 S                                                sent
 *
 * S is the sum of the steps that will be done, not of the m^i: NS is not linear. The
 * difference comes first in `all += U - own`, and with one active worker `all` is set to
 * `own`, as under dana. All else is adam_dana's, with eta times rest_scale: the functions
 * that every momentum has are those of the rest. */
#ifndef GAPLESS_MOMENTA_MUON_DANA_H
#define GAPLESS_MOMENTA_MUON_DANA_H

#include "engine/rules/element.h"
#include "engine/rules/momenta/adam_dana.h"
#include "engine/rules/rules.h"

#define FORMULA_muon_dana                                                              \
    "of a matrix mean = mean of g; own = 0.2*sqrt(max(R, C))*NS(mean); all = sum of "  \
    "own; theta -= rate*(own + lambda*theta); send theta - rate*beta1*all; the rest "  \
    "as dana-lga-adamw"
#define AHEAD_muon_dana OWN_AHEAD
enum {
    muon_dana_reads = adam_dana_reads,
    muon_dana_writes = adam_dana_writes,
    muon_dana_flags = adam_dana_flags | RULE_MATRIX,
    muon_dana_settings = adam_dana_settings | SETTING_MATRIX,
    muon_dana_ahead_reads = adam_dana_ahead_reads,
    /* of a matrix: before the products, and after */
    muon_dana_gather_reads = SLOT_GRAD | SLOT_MEAN,
    muon_dana_gather_writes = SLOT_MEAN | SLOT_TURNED,
    muon_dana_turn_reads = SLOT_THETA | SLOT_OWN | SLOT_ALL | SLOT_TURNED,
    muon_dana_turn_writes = SLOT_THETA | SLOT_OWN | SLOT_ALL | SLOT_SENT
};

/* What a worker is given. */
RULE_FN real look_ahead_muon_dana(const struct element *e, const struct step_scalars *k)
{
    return look_ahead_adam_dana(e, k);
}

RULE_FN real ahead_muon_dana(const struct element *e, const struct step_scalars *k)
{
    return ahead_adam_dana(e, k);
}

RULE_FN void momentum_muon_dana(struct element *e, const struct step_scalars *k)
{
    momentum_adam_dana(e, k);
}

/* ---- an element of a matrix ---- */

/* m^i, which the products turn. */
RULE_FN void gather_muon_dana(struct element *e, const struct step_scalars *k)
{
    e->mean = k->mu * e->mean + k->mu_rest * e->grad;
    e->turned = e->mean;
}

RULE_FN void send_matrix_muon_dana(struct element *e, const struct step_scalars *k)
{
    e->sent = e->theta - k->matrix_momentum * e->all;
}

/* `turned` is NS(m^i). */
RULE_FN void turn_muon_dana(struct element *e, const struct step_scalars *k)
{
    real step = k->spread * e->turned;

    if (k->alone)
        e->all = step;
    else
        e->all += step - e->own;
    e->own = step;
    e->step = step + e->decay * e->theta;
    e->theta -= k->matrix_rate * e->step;
    send_matrix_muon_dana(e, k);
}

/* The part of the look-ahead that is the worker's own. */
RULE_FN void ahead_matrix_muon_dana(struct element *e, const struct step_scalars *k)
{
    e->ahead = k->matrix_last * e->own;
}

#endif
