/* The scalars with which passes are timed. */
#include "bench/bench.h"
#include "engine/rules/element.h"
#include "engine/rules/rules.h"

void bench_scalars(const struct rule *rule, struct step_scalars *ret)
{
    /* A small rate and kappa keep all numbers finite and every gate open for any number
     * of passes: numbers that shrink to denormals would take longer. */
    struct settings settings = {.momentum = 0.9, .rate_max = 1e-6, .kappa = 1e-12};
    struct step_context context = {
        .rate = 1e-6, .lag = 7, .active = 8, .samples = 1000};
    context.global_gap = 1e-6;
    context.global_stat = 1e-2;
    context.history = (struct step_history){.rate = 1e-6,
                                            .updates = 1000,
                                            .square = 1,
                                            .round = 1,
                                            .mean = 1,
                                            .share = 1,
                                            .waiting = 1,
                                            .together = 8};
    context.own_updates = 100;
    settings_default(&settings);
    rules_step_scalars(rule, &settings, &context, ret);
}
