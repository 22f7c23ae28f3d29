/* The gradient as it comes. */
#ifndef GAPLESS_CORRECTIONS_NONE_H
#define GAPLESS_CORRECTIONS_NONE_H

#include "engine/rules/element.h"

#define FORMULA_none ""
#define GAP_none NO_GAP
enum {
    none_reads = 0,
    none_writes = 0,
    none_flags = 0,
    none_settings = 0
};

RULE_FN void correct_none(struct element *e, const struct step_scalars *k)
{
    (void)e, (void)k;
}

RULE_FN void after_none(struct element *e, const struct step_scalars *k)
{
    (void)e, (void)k;
}

#endif
