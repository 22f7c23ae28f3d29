/* Both components of every rule, a correction and a momentum, and for each row of
 * rules.def the functions that apply them to an element. What expands the table into
 * loops (CPU, CUDA) includes this.
 *
 * What a component says of itself stands in its own header:
 *
 *   corrections/NAME.h   FORMULA_NAME, GAP_NAME, NAME_reads, NAME_writes, NAME_flags,
 *                        NAME_settings;
 *                        correct_NAME, after_NAME; with BLOCK_GAP measure_NAME, gate_NAME
 *   momenta/NAME.h       FORMULA_NAME, AHEAD_NAME, NAME_reads, NAME_writes, NAME_flags,
 *                        NAME_settings, NAME_ahead_reads; momentum_NAME, look_ahead_NAME, ahead_NAME
 *
 *                        of matrices (RULE_MATRIX), also: NAME_gather_reads, NAME_gather_writes,
 *                        NAME_turn_reads, NAME_turn_writes; gather_NAME, turn_NAME,
 *                        send_matrix_NAME, ahead_matrix_NAME. Those momenta are listed in
 *                        engine/rules/matrix_momenta.def, made by cmake/rules.cmake, and
 *                        IF_MATRIX_NAME(...) is its arguments for them alone
 *
 *   GAP_NAME     how the correction looks at the gap:
 *     NO_GAP         not at all
 *     ELEMENT_GAP    at the gap of each element
 *     BLOCK_GAP      one number for each block, made of measure_NAME: RULE_BLOCK
 *     VECTOR_GAP     one number for the whole vector, rms(gap): RULE_GLOBAL
 *   AHEAD_NAME   how much of the look-ahead is the worker's own (ahead_NAME):
 *     OWN_AHEAD      what is computed from the slots NAME_ahead_reads
 *     NOTHING_AHEAD  nothing
 */
#ifndef GAPLESS_COMPUTE_RULES_H
#define GAPLESS_COMPUTE_RULES_H

#include "engine/rules/components.h" /* made by cmake/rules.cmake */
#include "engine/rules/element.h"
#include "engine/rules/rules.h"

#include <assert.h>

/* ---- what the preprocessor asks of a component ---- */

/* Its arguments where the correction, or the momentum, is of the kind; else nothing. So
 * no kernel is compiled twice. */
#define IF_ELEMENT_GAP(correction, ...)                                                \
    RULE_JOIN(IF_ELEMENT_, GAP_##correction)(__VA_ARGS__)
#define IF_BLOCK_GAP(correction, ...)                                                  \
    RULE_JOIN(IF_BLOCK_, GAP_##correction)(__VA_ARGS__)
#define IF_VECTOR_GAP(correction, ...)                                                 \
    RULE_JOIN(IF_VECTOR_, GAP_##correction)(__VA_ARGS__)
#define IF_OWN_AHEAD(momentum, ...) RULE_JOIN(IF_OWN_, AHEAD_##momentum)(__VA_ARGS__)
/* Its arguments where the flags of the row are RULE_ROUND; they may also be 0. */
#define IF_ROUND(extra, ...) IF_ROUND_##extra(__VA_ARGS__)

#define RULE_JOIN(a, b) RULE_JOIN_EXPANDED(a, b)
#define RULE_JOIN_EXPANDED(a, b) a##b
#define IF_ELEMENT_NO_GAP(...)
#define IF_ELEMENT_ELEMENT_GAP(...) __VA_ARGS__
#define IF_ELEMENT_BLOCK_GAP(...)
#define IF_ELEMENT_VECTOR_GAP(...)
#define IF_BLOCK_NO_GAP(...)
#define IF_BLOCK_ELEMENT_GAP(...)
#define IF_BLOCK_BLOCK_GAP(...) __VA_ARGS__
#define IF_BLOCK_VECTOR_GAP(...)
#define IF_VECTOR_NO_GAP(...)
#define IF_VECTOR_ELEMENT_GAP(...)
#define IF_VECTOR_BLOCK_GAP(...)
#define IF_VECTOR_VECTOR_GAP(...) __VA_ARGS__
#define IF_OWN_OWN_AHEAD(...) __VA_ARGS__
#define IF_OWN_NOTHING_AHEAD(...)
#define IF_ROUND_0(...)
#define IF_ROUND_RULE_ROUND(...) __VA_ARGS__

/* ---- constants of a rule, more than the table has room for ---- */

/* reads, writes   enum slot bits of the update
 * send_reads      ... of a look-ahead without an update: there is no gradient, and what
 *                 was sent is about to be overwritten
 * own_gap         GAP_REF_OWN_LOOKAHEAD makes a difference: the correction looks at the
 *                 gap, and the momentum sends something of the worker's own ahead
 * measure_reads   enum slot bits
 * settings        enum rule_setting bits */
#define RULE(symbol, name, correction, momentum, extra, source)                        \
    enum {                                                                             \
        rule_##symbol##_reads = correction##_reads | momentum##_reads,                 \
        rule_##symbol##_writes = correction##_writes | momentum##_writes,              \
        rule_##symbol##_send_reads = momentum##_reads & ~(SLOT_GRAD | SLOT_SENT),      \
        rule_##symbol##_flags = IF_BLOCK_GAP(correction, RULE_BLOCK |)                 \
                                    IF_VECTOR_GAP(correction, RULE_GLOBAL |)           \
                                        correction##_flags |                           \
                                momentum##_flags | (extra),                            \
        rule_##symbol##_own_gap =                                                      \
            0 IF_ELEMENT_GAP(correction, IF_OWN_AHEAD(momentum, +1))                   \
                IF_VECTOR_GAP(correction, IF_OWN_AHEAD(momentum, +1)),                 \
        rule_##symbol##_measure_reads =                                                \
            (rule_##symbol##_flags & RULE_BLOCK)                                       \
                ? SLOT_THETA | SLOT_GRAD | momentum##_ahead_reads |                    \
                      ((rule_##symbol##_flags & RULE_PUBLISHED) ? 0 : SLOT_SENT)       \
            : (rule_##symbol##_flags & RULE_GLOBAL) ? SLOT_THETA | SLOT_SENT           \
                                                    : 0,                               \
        rule_##symbol##_settings =                                                     \
            correction##_settings | momentum##_settings |                              \
            (rule_##symbol##_own_gap ? SETTING_GAP_REF : 0) |                          \
            ((rule_##symbol##_flags & RULE_ROUND) ? SETTING_SCALE_RATE : 0)            \
    };
#include "engine/rules/rules.def"
#undef RULE

/* ---- what a rule must not be ---- */

#define ONE_WRITER(name, correction, momentum, slot, array)                            \
    static_assert(!(correction##_writes & momentum##_writes & (slot)),                 \
                  "rule " name ": the correction " #correction                         \
                  " and the momentum " #momentum " both write " array);
#define RULE(symbol, name, correction, momentum, extra, source)                        \
    ONE_WRITER(name, correction, momentum, SLOT_THETA, "theta")                        \
    ONE_WRITER(name, correction, momentum, SLOT_OWN, "own")                            \
    ONE_WRITER(name, correction, momentum, SLOT_ALL, "all")                            \
    ONE_WRITER(name, correction, momentum, SLOT_STAT, "stat")                          \
    ONE_WRITER(name, correction, momentum, SLOT_SQUARE, "square")                      \
    ONE_WRITER(name, correction, momentum, SLOT_SENT, "sent")                          \
    static_assert(!(rule_##symbol##_writes & SLOT_GRAD),                               \
                  "rule " name " writes grad, which is the worker's");                 \
    static_assert((momentum##_reads & SLOT_THETA) && (momentum##_reads & SLOT_GRAD) && \
                      (momentum##_writes & SLOT_THETA) &&                              \
                      (momentum##_writes & SLOT_SENT),                                 \
                  "rule " name ": the momentum " #momentum                             \
                  " reads theta and grad, and writes theta and sent");                 \
    static_assert(!(momentum##_ahead_reads & ~rule_##symbol##_send_reads),             \
                  "rule " name ": " #momentum "_ahead_reads is a part of " #momentum   \
                  "_reads, without grad and sent");                                    \
    static_assert((0 IF_OWN_AHEAD(momentum, +1)) == (momentum##_ahead_reads != 0),     \
                  "rule " name ": AHEAD_" #momentum " and " #momentum                  \
                  "_ahead_reads say the same");                                        \
    static_assert(                                                                     \
        !(rule_##symbol##_flags & RULE_SUM) ||                                         \
            ((momentum##_reads & SLOT_OWN) && (momentum##_reads & SLOT_ALL)),          \
        "rule " name ": a sum (RULE_SUM) is `all`, of every `own`");                   \
    static_assert((0 IF_MATRIX_##momentum(+1)) ==                                      \
                      ((momentum##_flags & RULE_MATRIX) != 0),                         \
                  "rule " name ": a momentum of matrices (RULE_MATRIX) says what its " \
                  "passes read and write: " #momentum "_gather_reads and so on");      \
    static_assert(!(rule_##symbol##_flags & RULE_ROUND) ||                             \
                      (!(rule_##symbol##_reads & (SLOT_OWN | SLOT_SENT)) &&            \
                       !(rule_##symbol##_flags & (RULE_BLOCK | RULE_GLOBAL))),         \
                  "rule " name ": a round (RULE_ROUND) is of gradients as they come");
#include "engine/rules/rules.def"
#undef RULE

/* ---- one element of one update ---- */

/* A RULE_BLOCK rule expects e->gate; where the gap is against the worker's own
 * look-ahead, ahead_of_SYMBOL comes first. */
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
