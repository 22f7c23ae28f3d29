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
     .matrix_reads = 0 IF_MATRIX_##move(| move##_gather_reads | move##_turn_reads),    \
     .matrix_writes = 0 IF_MATRIX_##move(| move##_gather_writes | move##_turn_writes), \
     .flags = rule_##symbol##_flags,                                                   \
     .settings = rule_##symbol##_settings,                                             \
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

unsigned rules_slots(const struct rule *rule)
{
    return rule->flags & RULE_MATRIX ? rule->matrix_reads | rule->matrix_writes
                                     : rule->reads | rule->writes;
}

unsigned rules_bytes(const struct rule *rule)
{
    bool matrix = (rule->flags & RULE_MATRIX) != 0;
    unsigned reads = matrix ? rule->matrix_reads : rule->reads, again = 0;
    unsigned writes = matrix ? rule->matrix_writes : rule->writes;

    if (matrix && rule->flags & RULE_BLOCK)
        reads |= SLOT_SENT; /* and `own`, which its second pass reads, too */
    else if (rule->flags & RULE_BLOCK)
        reads |= rule->measure_reads; /* what the measure brings in, the update finds */
    if (rule->flags & RULE_GLOBAL)
        again = rule->measure_reads; /* of the whole vector: out of every cache */
    return 4u * (unsigned)(__builtin_popcount(reads) + __builtin_popcount(again) +
                           __builtin_popcount(writes));
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
    default_to(&settings->kappa, 10.0);   /* this project: 0.1 nat drops a gradient */
    default_to(&settings->beta2, 0.95);   /* usual for language models */
    default_to(&settings->epsilon, 1e-8); /* Adam's authors */
    default_to(&settings->mu, 0.95);      /* Muon's author */
    default_to(&settings->rest_scale, 1.0);
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

static double scale_of(const struct step_context *context)
{
    return context->scale > 0.0 ? context->scale : 1.0;
}

/* Gap-Aware: scalars shared by the parameter-wise and the global form. */
static void gap_aware_scalars(const struct settings *settings,
                              const struct step_context *context,
                              struct step_scalars *ret)
{
    double rho = settings->rho;
    double bias = context->samples ? 1.0 / (1.0 - power(rho, context->samples)) : 1.0;
    double rate_max = scale_of(context) * settings->rate_max;
    double smallest = rate_max * 1e-8; /* of C, where nothing ever moved */

    ret->rate_max = (scalar)rate_max;
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

double rules_root(double beta, uint32_t n)
{
    double x = 1.0 - (1.0 - beta) / (double)n, next;

    if (n <= 1 || beta <= 0.0)
        return beta;
    for (;;) {
        double below = power(x, n - 1);
        next = x - (x - beta / below) / (double)n;
        if (!(next < x)) /* it fell no more, or is lost to rounding */
            return x;
        x = next;
    }
}

/* The weight that a running mean has seen, one update on. */
static double seen_after(double keep, double seen)
{
    return keep * seen + (1.0 - keep);
}

/* adam_shared's mean of the workers' m, of which an update replaces one in N. */
static double mean_keep_of(double beta1, double workers)
{
    return ((workers - 1.0) + beta1) / workers;
}

/* delayed_nesterov: as many as workers were active when the buffer was empty. */
static uint32_t together_of(const struct step_context *context)
{
    if (context->history.waiting > 0)
        return context->history.together;
    return context->active > 0 ? context->active : 1;
}

struct step_history rules_step_done(const struct settings *settings,
                                    const struct step_context *context)
{
    uint32_t workers = context->active > 0 ? context->active : 1;
    struct step_history ret = context->history;
    double beta1 = settings->momentum;

    ret.rate = context->rate;
    ret.updates++;
    ret.square = seen_after(settings->beta2, ret.square);
    ret.round = seen_after(rules_root(settings->beta2, workers), ret.round);
    ret.mean = seen_after(mean_keep_of(beta1, workers), ret.mean);
    ret.share = seen_after(rules_root(beta1, workers), ret.share);
    ret.together = together_of(context);
    ret.waiting = ret.waiting + 1 < ret.together ? ret.waiting + 1 : 0;
    return ret;
}

static void weights(double keep, double seen, scalar *ret_keep, scalar *ret_add)
{
    double after = seen_after(keep, seen);

    *ret_keep = (scalar)(keep * seen / after);
    *ret_add = (scalar)((1.0 - keep) / after);
}

/* Adam's first mean: a = beta1 (1 - beta1^before)/(1 - beta1^(before + 1)), and 1 - a. */
static void first_mean(double beta1, double faded, scalar *ret_keep, scalar *ret_add)
{
    double keep = beta1 * (1.0 - faded) / (1.0 - beta1 * faded);

    *ret_keep = (scalar)keep;
    *ret_add = (scalar)(1.0 - keep);
}

/* Muon: of the rate, for all that is no matrix. */
static double rest_scale_of(const struct rule *rule, const struct settings *settings)
{
    return rule->flags & RULE_MATRIX ? settings->rest_scale : 1.0;
}

static void matrix_scalars(const struct settings *settings,
                           const struct step_context *context, struct step_scalars *ret)
{
    double scale = scale_of(context), rate = scale * context->rate;

    ret->mu = (scalar)settings->mu;
    ret->mu_rest = (scalar)(1.0 - settings->mu);
    ret->matrix_rate = (scalar)rate;
    ret->matrix_momentum = (scalar)(rate * settings->momentum);
    ret->matrix_last = (scalar)(scale * context->history.rate * settings->momentum);
}

static void adam_scalars(const struct rule *rule, const struct settings *settings,
                         const struct step_context *context, double horizon,
                         struct step_scalars *ret)
{
    const struct step_history *history = &context->history;
    uint32_t workers = context->active > 0 ? context->active : 1;
    double beta1 = settings->momentum, beta2 = settings->beta2;
    double scale = rest_scale_of(rule, settings) * scale_of(context);
    double rate = scale * context->rate;

    weights(beta2, history->square, &ret->square_keep, &ret->square_add);
    weights(rules_root(beta2, workers), history->round, &ret->round_keep,
            &ret->round_add);
    first_mean(beta1, power(beta1, history->updates), &ret->one_keep, &ret->one_add);
    first_mean(beta1, power(beta1, context->own_updates), &ret->own_keep,
               &ret->own_add);
    first_mean(beta1, 1.0 - history->share, &ret->share_keep, &ret->share_add);
    weights(mean_keep_of(beta1, (double)workers), history->mean, &ret->mean_keep,
            &ret->mean_add);
    if (workers == 1) /* the mean of one is its own */
        ret->mean_keep = ret->share_keep, ret->mean_add = ret->share_add;
    ret->epsilon = (scalar)settings->epsilon;
    ret->decay = (scalar)(context->decay < 0.0   ? 0.0
                          : context->decay > 0.0 ? context->decay
                                                 : settings->decay);
    ret->last_momentum = (scalar)(scale * history->rate * beta1);
    ret->rate_round = (scalar)(rate * beta1 * (double)workers);
    ret->rate_reach = (scalar)(rate * beta1 * (1.0 - power(beta1, (uint64_t)horizon)) /
                               (1.0 - beta1));
}

/* delayed_nesterov */
static void delayed_scalars(const struct step_context *context,
                            struct step_scalars *ret)
{
    uint32_t together = together_of(context);

    ret->together = (scalar)together;
    ret->rate_part = (scalar)(scale_of(context) * context->rate / together);
    ret->turn = context->history.waiting + 1 >= together;
}

void rules_step_scalars(const struct rule *rule, const struct settings *settings,
                        const struct step_context *context, struct step_scalars *ret)
{
    double rate = rest_scale_of(rule, settings) * scale_of(context) * context->rate;
    double gamma = settings->momentum;
    double workers = context->active ? (double)context->active : 1.0;
    double horizon = settings->horizon < 0.0   ? 0.0
                     : settings->horizon > 0.0 ? settings->horizon
                                               : workers - 1.0;

    /* Those of all other rules cost less than to find out which are needed. */
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

    ret->lagging = context->lag > 0 && !context->whole;
    ret->gate = context->lag > 0 && context->whole
                    ? gate_loss_gap(context->whole_gap, ret)
                    : (scalar)1;
    ret->alone = context->active <= 1;
    ret->gap_ref = settings->gap_ref == GAP_REF_OWN_LOOKAHEAD;
    gap_aware_scalars(settings, context, ret);
    if (rule->flags & RULE_HISTORY)
        delayed_scalars(context, ret);
    if (rule->flags & RULE_ADAM)
        adam_scalars(rule, settings, context, horizon, ret);
    if (rule->flags & RULE_MATRIX)
        matrix_scalars(settings, context, ret);
}
