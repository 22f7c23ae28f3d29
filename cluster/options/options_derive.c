/* Defaults that follow from other options. What was given is never touched, and what is
 * set here counts as a default. */
#include "cluster/options/options_table.h"

#include <stdio.h>
#include <string.h>

/* A warm-up by default is at most this part of the run. */
#define WARMUP_SHARE 0.1
static const char warmup_share[] = "0.1";

static void derive(enum option_command command, const char *name, const char *text,
                   struct settings *ret)
{
    struct settings other;
    struct parse_error reason;

    options_defaults(command, &other);
    if (!options_set(command, name, text, &other, &reason))
        return; /* the texts of this file are valid */
    for (unsigned i = 0; i < options_count; i++)
        if (strcmp(options_table[i].name, name) == 0)
            other.source[i] = OPTION_DEFAULT;
    options_take(ret, &other, name);
}

static bool by_default(const struct settings *settings, const char *name)
{
    return options_source(settings, name) == OPTION_DEFAULT;
}

static void derive_unset(enum option_command command, const char *name,
                         const char *text, struct settings *ret)
{
    if (options_source(ret, name) <= OPTION_DEFAULT)
        derive(command, name, text, ret);
}

/* The outer rate: DiLoCo's 0.7 where workers wait for each other; half of it where they do
 * not, for the lag, and over their number where a rule takes each difference in full
 * (measured: bench/results). An Adam rule's steps do not follow what is handed in. */
static const char *outer_rate(const struct settings *settings)
{
    static char parts[GAPLESS_WORKERS_MAX + 1][16]; /* settings point to their texts */
    char *part = parts[settings->workers];
    struct gapless_rule rule;

    if (gapless_rule_find(settings->rule, &rule, NULL) != GAPLESS_OK)
        return "0.7";
    if (rule.own_decay)
        return rule.synchronous ? "0.003" : "0.0003";
    if (rule.averages)
        return rule.synchronous ? "0.7" : "0.35";
    (void)snprintf(part, sizeof parts[0], "%.4g", 0.35 / settings->workers);
    return part;
}

/* AdamW's and Muon's steps do not follow the size of a gradient: a rate of theirs is torch's
 * for AdamW (measured, beside momentum SGD's: docs/rules.md). */
static void derive_rate(enum option_command command, struct settings *ret)
{
    struct gapless_rule rule;

    if (gapless_rule_find(ret->rule, &rule, NULL) == GAPLESS_OK && rule.own_decay)
        derive_unset(command, "lr", "0.001", ret);
}

/* The inner ones are torch's. */
static void derive_local(enum option_command command, struct settings *ret)
{
    bool adamw;

    derive_unset(command, "lr", outer_rate(ret), ret);
    if (command == FOR_RUN)
        return; /* the program has the inner optimizer */
    derive_unset(command, "inner", "adamw", ret);
    adamw = strcmp(ret->inner, "adamw") == 0;
    derive_unset(command, "inner-lr", adamw ? "0.001" : "0.05", ret);
    derive_unset(command, "inner-momentum", adamw ? "0.9" : "0", ret);
    if (!adamw)
        return;
    derive_unset(command, "inner-beta2", "0.999", ret);
    derive_unset(command, "inner-decay", "0.01", ret);
}

void options_derive(enum option_command command, struct settings *ret)
{
    if ((command & (FOR_TRAIN | FOR_MASTER | FOR_SIMULATE | FOR_RUN)) == 0)
        return;
    ret->horizon_set = options_source(ret, "horizon") != OPTION_UNSET;
    if (ret->local_steps > 0)
        derive_local(command, ret);
    else
        derive_rate(command, ret);
    if (ret->cosine && by_default(ret, "steps"))
        derive(command, "steps", "none", ret);
    if (command != FOR_RUN && by_default(ret, "warmup") &&
        ret->warmup.unit == SPAN_EPOCHS &&
        ret->warmup.amount > WARMUP_SHARE * ret->epochs)
        derive(command, "warmup", warmup_share, ret);
}

bool options_warmup_shortened(const struct settings *settings)
{
    return by_default(settings, "warmup") &&
           strcmp(options_text(settings, "warmup"), warmup_share) == 0;
}
