/* Both halves of every rule, and for each row of rules.def the one function that
 * applies it to a lane. What expands the table into loops (CPU, CUDA) includes this. */
#ifndef GAPLESS_COMPUTE_RULES_H
#define GAPLESS_COMPUTE_RULES_H

#include "engine/rules/corrections/delay_comp.h"
#include "engine/rules/corrections/delay_comp_adaptive.h"
#include "engine/rules/corrections/gap_aware.h"
#include "engine/rules/corrections/gap_aware_global.h"
#include "engine/rules/corrections/loss_gap.h"
#include "engine/rules/corrections/loss_gap_dot.h"
#include "engine/rules/corrections/none.h"
#include "engine/rules/corrections/staleness.h"
#include "engine/rules/momenta/dana.h"
#include "engine/rules/momenta/elastic.h"
#include "engine/rules/momenta/elastic_nesterov.h"
#include "engine/rules/momenta/heavy_ball.h"
#include "engine/rules/momenta/lwp.h"
#include "engine/rules/momenta/multi.h"
#include "engine/rules/momenta/nag.h"
#include "engine/rules/momenta/plain.h"
#include "engine/rules/momenta/shared.h"
#include "engine/rules/momenta/slim.h"

/* Constants of a rule that the table has no room for.
 *   reads, writes   enum slot bits
 *   own_gap         GAP_REF_OWN_LOOKAHEAD makes a difference: the correction looks at
 *                   the gap, and the momentum sends something of the worker's own ahead
 *   measure_reads   enum slot bits */
#define RULE(symbol, name, correction, momentum, extra, source)                        \
    enum {                                                                             \
        rule_##symbol##_reads = correction##_reads | momentum##_reads,                 \
        rule_##symbol##_writes = correction##_writes | momentum##_writes,              \
        rule_##symbol##_flags = correction##_flags | momentum##_flags | (extra),       \
        rule_##symbol##_own_gap =                                                      \
            correction##_uses_gap && momentum##_ahead_reads != 0,                      \
        rule_##symbol##_measure_reads =                                                \
            (rule_##symbol##_flags & RULE_BLOCK)                                       \
                ? SLOT_THETA | SLOT_GRAD | momentum##_ahead_reads |                    \
                      ((rule_##symbol##_flags & RULE_PUBLISHED) ? 0 : SLOT_SENT)       \
            : (rule_##symbol##_flags & RULE_GLOBAL) ? SLOT_THETA | SLOT_SENT           \
                                                    : 0                                \
    };
#include "engine/rules/rules.def"
#undef RULE

/* One lane of one update. `own` is a constant at every call: it chooses the reference
 * of the gap. A RULE_BLOCK rule expects e->gate. */
#define RULE(symbol, name, correction, momentum, extra, source)                        \
    RULE_FN void ahead_of_##symbol(struct element *e, const struct step_scalars *k)    \
    {                                                                                  \
        e->ahead = ahead_##momentum(e, k);                                             \
    }                                                                                  \
    RULE_FN void move_##symbol(struct element *e, const struct step_scalars *k)        \
    {                                                                                  \
        momentum_##momentum(e, k);                                                     \
        after_##correction(e, k);                                                      \
    }                                                                                  \
    RULE_FN void send_##symbol(struct element *e, const struct step_scalars *k)        \
    {                                                                                  \
        e->sent = look_ahead_##momentum(e, k);                                         \
    }
#include "engine/rules/rules.def"
#undef RULE

#endif
