/* The version and the rule table, for users. */
#include <gapless/gapless.h>
#include "engine/rules/rules.h"
#include "engine/base/text_page.h"

#include <assert.h>
#include <string.h>

const char *gapless_version(void)
{
    return GAPLESS_RELEASE;
}

static_assert((int)GAPLESS_SETS_MOMENTUM == (int)SETTING_MOMENTUM &&
                  (int)GAPLESS_SETS_KAPPA == (int)SETTING_KAPPA &&
                  (int)GAPLESS_SETS_LAMBDA == (int)SETTING_LAMBDA &&
                  (int)GAPLESS_SETS_HORIZON == (int)SETTING_HORIZON &&
                  (int)GAPLESS_SETS_ELASTIC == (int)SETTING_ELASTIC &&
                  (int)GAPLESS_SETS_ADAM == (int)SETTING_ADAM &&
                  (int)GAPLESS_SETS_GAP_REF == (int)SETTING_GAP_REF &&
                  (int)GAPLESS_SETS_SCALE_RATE == (int)SETTING_SCALE_RATE &&
                  (int)GAPLESS_SETS_MATRIX == (int)SETTING_MATRIX,
              "users see the settings of a rule as they are");

static void describe(const struct rule *rule, struct gapless_rule *ret)
{
    unsigned used = rules_slots(rule);
    bool published = (rule->flags & RULE_PUBLISHED) != 0; /* in two places in turn */

    *ret = (struct gapless_rule){
        .name = rule->name,
        .formula = rule->formula,
        .source = rule->source,
        .vectors_shared = (used & SLOT_ALL ? 1u : 0u) + (used & SLOT_STAT ? 1u : 0u) +
                          (used & SLOT_SQUARE ? 1u : 0u) + (published ? 2u : 0u),
        .vectors_per_worker = (published ? 0u : 1u) + (used & SLOT_OWN ? 1u : 0u) +
                              (used & SLOT_MEAN ? 1u : 0u),
        .bytes_per_parameter = rules_bytes(rule),
        .whole = (rule->flags & RULE_GLOBAL) != 0,
        .synchronous = (rule->flags & RULE_ROUND) != 0,
        .elastic = (rule->flags & RULE_WORKER_ELASTIC) != 0,
        .matrices = (rule->flags & RULE_MATRIX) != 0,
        .own_decay = (rule->flags & RULE_ADAM) != 0,
        .averages = (rule->flags & RULE_ROUND) != 0 ||
                    (rule->flags & (RULE_HISTORY | RULE_ADAM)) == RULE_HISTORY,
        .slim = (rule->flags & RULE_WORKER_SLIM) != 0,
        .settings = rule->settings,
    };
}

int gapless_rule_at(unsigned index, struct gapless_rule *ret)
{
    if (index >= (unsigned)rules_count)
        return GAPLESS_MISSING;
    describe(&rules[index], ret);
    return GAPLESS_OK;
}

int gapless_rule_find(const char *name, struct gapless_rule *ret,
                      struct gapless_error *error)
{
    const struct rule *rule = name == NULL ? NULL : rules_find(name);
    char names[600];
    struct text_page page = text_page(names, sizeof names);

    if (rule != NULL) {
        describe(rule, ret);
        return GAPLESS_OK;
    }
    for (int i = 0; i < rules_count; i++)
        text_add(&page, "%s%s", i > 0 ? " " : "", rules[i].name);
    return gapless_error_set(error, GAPLESS_MISSING, 0,
                             "no rule '%.30s'; there are: %s", name == NULL ? "" : name,
                             names);
}
