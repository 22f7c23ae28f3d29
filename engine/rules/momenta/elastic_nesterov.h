/* As elastic, and the worker has Nesterov momentum of its own. (EAMSGD: the same
 * paper.) */
#ifndef GAPLESS_MOMENTA_ELASTIC_NESTEROV_H
#define GAPLESS_MOMENTA_ELASTIC_NESTEROV_H

#include "engine/rules/momenta/elastic.h"

#define FORMULA_elastic_nesterov                                                       \
    "worker v = gamma*v + g, x -= rate*(g + gamma*v); every period-th time "           \
    "d = alpha*(x - theta), theta += d, worker x -= d"
#define AHEAD_elastic_nesterov NOTHING_AHEAD
enum {
    elastic_nesterov_reads = elastic_reads,
    elastic_nesterov_writes = elastic_writes,
    elastic_nesterov_flags = RULE_WORKER_ELASTIC | RULE_WORKER_NESTEROV,
    elastic_nesterov_settings = SETTING_MOMENTUM | SETTING_ELASTIC,
    elastic_nesterov_ahead_reads = 0
};

RULE_FN real look_ahead_elastic_nesterov(const struct element *e,
                                         const struct step_scalars *k)
{
    return look_ahead_elastic(e, k);
}

RULE_FN real ahead_elastic_nesterov(const struct element *e,
                                    const struct step_scalars *k)
{
    return ahead_elastic(e, k);
}

RULE_FN void momentum_elastic_nesterov(struct element *e, const struct step_scalars *k)
{
    momentum_elastic(e, k);
}

#endif
