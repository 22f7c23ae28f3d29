/* Worker and master move towards each other. (EASGD: Zhang, Choromanska, LeCun, "Deep
 * Learning with Elastic Averaging SGD", NIPS 2015.)
 *
 *   worker                                       master
 *   params -= rate*g      by itself, period times
 *   params ----------------------------------->  sent = theta
 *                                                theta += alpha*(params - theta)
 *   params -= alpha*(params - sent)  <---------  sent
 *
 * What the worker puts in `grad` is its parameters. Both sides move by the same number,
 * so params + theta is the same after an exchange as before it. */
#ifndef GAPLESS_MOMENTA_ELASTIC_H
#define GAPLESS_MOMENTA_ELASTIC_H

#include "engine/rules/element.h"
#include "engine/rules/rules.h"

#define FORMULA_elastic                                                                \
    "worker x -= rate*g; every period-th time d = alpha*(x - theta), theta += d, "     \
    "worker x -= d"
#define AHEAD_elastic NOTHING_AHEAD
enum {
    elastic_reads = SLOT_THETA | SLOT_GRAD,
    elastic_writes = SLOT_THETA | SLOT_SENT,
    elastic_flags = RULE_WORKER_ELASTIC,
    elastic_settings = SETTING_ELASTIC,
    elastic_ahead_reads = 0
};

/* What a worker is given to start from. */
RULE_FN real look_ahead_elastic(const struct element *e, const struct step_scalars *k)
{
    (void)k;
    return e->theta;
}

/* The part of it that is the worker's own. */
RULE_FN real ahead_elastic(const struct element *e, const struct step_scalars *k)
{
    (void)e, (void)k;
    return real_zero();
}

RULE_FN void momentum_elastic(struct element *e, const struct step_scalars *k)
{
    e->step = e->grad - e->theta;
    e->sent = e->theta;
    e->theta += k->elastic * e->step;
}

#endif
