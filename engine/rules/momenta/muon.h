/* Muon with one mean of the gradients for all workers; what is sent is theta. (Jordan et al.,
 * "Muon", 2024; the factor 0.2 sqrt(max(R, C)), which gives its steps the size of Adam's:
 * Liu et al., arXiv 2502.16982.)
 *
 * Of a matrix of R rows and C columns:
 *   m <- mu m + (1 - mu) g                                                  all
 *   U = 0.2 sqrt(max(R, C)) NS(m)        engine/compute/matrices.h          turned: NS
 *   theta <- theta - eta (U + lambda theta)                                 theta
 *   send theta                                                              sent
 *
 * All else is adam's, with eta times rest_scale: the functions that every momentum has are
 * those of the rest. */
#ifndef GAPLESS_MOMENTA_MUON_H
#define GAPLESS_MOMENTA_MUON_H

#include "engine/rules/element.h"
#include "engine/rules/momenta/adam.h"
#include "engine/rules/rules.h"

#define FORMULA_muon                                                                   \
    "of a matrix m = mean of g; theta -= rate*(0.2*sqrt(max(R, C))*NS(m) + "           \
    "lambda*theta); send theta; the rest as adamw"
#define AHEAD_muon NOTHING_AHEAD
enum {
    muon_reads = adam_reads,
    muon_writes = adam_writes,
    muon_flags = adam_flags | RULE_MATRIX,
    muon_settings = adam_settings | SETTING_MATRIX,
    muon_ahead_reads = 0,
    /* of a matrix: before the products, and after */
    muon_gather_reads = SLOT_GRAD | SLOT_ALL,
    muon_gather_writes = SLOT_ALL | SLOT_TURNED,
    muon_turn_reads = SLOT_THETA | SLOT_TURNED,
    muon_turn_writes = SLOT_THETA | SLOT_SENT
};

/* What a worker is given. */
RULE_FN real look_ahead_muon(const struct element *e, const struct step_scalars *k)
{
    return look_ahead_adam(e, k);
}

RULE_FN real ahead_muon(const struct element *e, const struct step_scalars *k)
{
    return ahead_adam(e, k);
}

RULE_FN void momentum_muon(struct element *e, const struct step_scalars *k)
{
    momentum_adam(e, k);
}

/* ---- an element of a matrix ---- */

/* m, which the products turn. */
RULE_FN void gather_muon(struct element *e, const struct step_scalars *k)
{
    e->all = k->mu * e->all + k->mu_rest * e->grad;
    e->turned = e->all;
}

/* `turned` is NS(m). */
RULE_FN void turn_muon(struct element *e, const struct step_scalars *k)
{
    e->step = k->spread * e->turned + e->decay * e->theta;
    e->theta -= k->matrix_rate * e->step;
    e->sent = e->theta;
}

RULE_FN void send_matrix_muon(struct element *e, const struct step_scalars *k)
{
    (void)k;
    e->sent = e->theta;
}

RULE_FN void ahead_matrix_muon(struct element *e, const struct step_scalars *k)
{
    (void)k;
    e->ahead = real_zero();
}

#endif
