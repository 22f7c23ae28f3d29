/* The table of rules and the scalars of one update. */
#include "engine/rules/rules.h"
#include "engine/rules/compute_rules.h"
#include "engine/rules/element.h"

#include <string.h>

#define RULE(symbol, text, correction, momentum, extra, paper) ROW_##symbol,
enum {
#include "engine/rules/rules.def"
    ROWS
};
#undef RULE

#define RULE(symbol, text, correct, move, extra, paper)                                \
    {.name = (text),                                                                   \
     .formula = FORMULA_##correct FORMULA_##move,                                      \
     .source = (paper),                                                                \
     .correction = #correct,                                                           \
     .momentum = #move,                                                                \
     .reads = rule_##symbol##_reads,                                                   \
     .writes = rule_##symbol##_writes,                                                 \
     .measure_reads = rule_##symbol##_measure_reads,                                   \
     .flags = rule_##symbol##_flags,                                                   \
     .index = ROW_##symbol},

const struct rule rules[] = {
#include "engine/rules/rules.def"
};
#undef RULE

const int rules_count = ROWS;

const struct rule *rules_find(const char *name)
{
    for (int i = 0; name && i < rules_count; i++)
        if (!strcmp(rules[i].name, name))
            return &rules[i];
    return NULL;
}

unsigned rules_bytes(const struct rule *rule)
{
    unsigned reads = rule->reads, again = 0;

    if (rule->flags & RULE_BLOCK)
        reads |= rule->measure_reads; /* what the measure brings in, the update finds */
    if (rule->flags & RULE_GLOBAL)
        again = rule->measure_reads; /* of the whole vector: out of every cache */
    return 4u * (unsigned)(__builtin_popcount(reads) + __builtin_popcount(again) +
                           __builtin_popcount(rule->writes));
}

static void default_to(double *setting, double value)
{
    if (!(*setting < 0.0 || *setting > 0.0))
        *setting = value;
}

void settings_default(struct settings *settings)
{
    default_to(&settings->rho, 0.999);        /* the Gap-Aware authors' code */
    default_to(&settings->lambda, 0.04);      /* DC-ASGD in Apache MXNet */
    default_to(&settings->lambda_zero, 2.0);  /* DC-ASGD-a, CIFAR-10 and ImageNet */
    default_to(&settings->mean_square, 0.95); /* DC-ASGD-a, CIFAR-10 */
    default_to(&settings->kappa, 10.0); /* this project: 0.1 nat drops a gradient */
}

/* By squaring, and not by pow(): the same bits whatever the C library. */
static double power(double base, uint64_t exponent)
{
    double ret = 1.0;
    for (; exponent; exponent >>= 1, base *= base)
        if (exponent & 1)
            ret *= base;
    return ret;
}

/* Gap-Aware: scalars shared by the parameter-wise and the global form. */
static void gap_aware_scalars(const struct settings *settings,
                              const struct step_context *context,
                              struct step_scalars *ret)
{
    double rho = settings->rho;
    double bias = context->samples ? 1.0 / (1.0 - power(rho, context->samples)) : 1.0;
    double smallest = settings->rate_max * 1e-8; /* of C, where nothing ever moved */

    ret->rate_max = (scalar)settings->rate_max;
    ret->bias = (scalar)bias;
    ret->rho = (scalar)rho;
    ret->rho_rest = (scalar)(1.0 - rho);
    /* With no sample there is no step to measure by; with C rounded to 0 there would be
     * a division of 0 by 0. */
    ret->penalised = context->samples > 0 && smallest > (double)__FLT_MIN__;
    ret->penalty = 1;
    if (ret->penalised) {
        double largest =
            settings->rate_max * (__builtin_sqrt(context->global_stat * bias) + 1e-8);
        ret->penalty = (scalar)(1.0 / (1.0 + context->global_gap / largest));
    }
}

void rules_step_scalars(const struct rule *rule, const struct settings *settings,
                        const struct step_context *context, struct step_scalars *ret)
{
    double rate = context->rate, gamma = settings->momentum;
    double workers = context->active ? (double)context->active : 1.0;
    double horizon = settings->horizon < 0.0   ? 0.0
                     : settings->horizon > 0.0 ? settings->horizon
                                               : workers - 1.0;

    (void)rule; /* every rule's scalars cost less than finding out which are needed */
    memset(ret, 0, sizeof *ret);
    ret->rate = (scalar)rate;
    ret->momentum = (scalar)gamma;
    ret->rate_momentum = (scalar)(rate * gamma);
    ret->rate_horizon = (scalar)(rate * horizon);
    ret->share = (scalar)(gamma / workers);
    /* 1 - (1 - gamma)/N, written so that N = 1 gives gamma to the last bit */
    ret->keep = (scalar)(((workers - 1.0) + gamma) / workers);
    ret->rate_share = (scalar)(rate * gamma / workers);
    ret->elastic = (scalar)settings->elastic;

    ret->freshness = (scalar)(1.0 / (context->lag > 1 ? (double)context->lag : 1.0));
    ret->lambda = (scalar)settings->lambda;
    ret->lambda_zero = (scalar)settings->lambda_zero;
    ret->mean_square = (scalar)settings->mean_square;
    ret->mean_square_rest = (scalar)(1.0 - settings->mean_square);
    ret->kappa = settings->kappa;

    ret->lagging = context->lag > 0;
    ret->alone = context->active <= 1;
    ret->gap_ref = settings->gap_ref == GAP_REF_OWN_LOOKAHEAD;
    gap_aware_scalars(settings, context, ret);
}
