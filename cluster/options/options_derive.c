/* Defaults that follow from other options. What was given is never touched, and what is
 * set here counts as a default. */
#include "cluster/options/options_table.h"

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

void options_derive(enum option_command command, struct settings *ret)
{
    if ((command & (FOR_TRAIN | FOR_MASTER | FOR_SIMULATE)) == 0)
        return;
    if (ret->cosine && by_default(ret, "steps"))
        derive(command, "steps", "none", ret);
    if (by_default(ret, "warmup") && ret->warmup.unit == SPAN_EPOCHS &&
        ret->warmup.amount > WARMUP_SHARE * ret->epochs)
        derive(command, "warmup", warmup_share, ret);
}

bool options_warmup_shortened(const struct settings *settings)
{
    return by_default(settings, "warmup") &&
           strcmp(options_text(settings, "warmup"), warmup_share) == 0;
}
