/* The worker keeps the momentum and sends u = gamma*v + g with v already updated
 * (compute->slim); the master is plain and holds the look-ahead point itself.
 * (DANA-Slim: Hakimi, Barkai, Gabel, Schuster, "Taming Momentum in a Distributed
 * Asynchronous Environment", 2019.) Equal to dana while the rate is constant. */
#ifndef GAPLESS_MOMENTA_SLIM_H
#define GAPLESS_MOMENTA_SLIM_H

#include "engine/rules/element.h"
#include "engine/rules/rules.h"

#define FORMULA_slim "theta -= rate*u, u = gamma*v + g from the worker; send theta"
#define AHEAD_slim NOTHING_AHEAD
enum {
    slim_reads = SLOT_THETA | SLOT_GRAD,
    slim_writes = SLOT_THETA | SLOT_SENT,
    slim_flags = RULE_WORKER_SLIM,
    slim_settings = SETTING_MOMENTUM,
    slim_ahead_reads = 0
};

/* What a worker is given. */
RULE_FN real look_ahead_slim(const struct element *e, const struct step_scalars *k)
{
    (void)k;
    return e->theta;
}

/* The part of it that is the worker's own. */
RULE_FN real ahead_slim(const struct element *e, const struct step_scalars *k)
{
    (void)e, (void)k;
    return real_zero();
}

RULE_FN void momentum_slim(struct element *e, const struct step_scalars *k)
{
    e->step = e->grad;
    e->theta -= k->rate * e->step;
    e->sent = look_ahead_slim(e, k);
}

#endif
