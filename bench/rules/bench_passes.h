/* What the passes of compute.h are held against: a stream with the same reads and
 * writes and hardly any arithmetic, and the same arithmetic one operation at a time. */
#ifndef GAPLESS_BENCH_PASSES_H
#define GAPLESS_BENCH_PASSES_H

#include "engine/compute/compute.h"
#include "engine/rules/element.h"

enum {
    BENCH_SCRATCH = 3
};

struct bench_passes {
    const char *name; /* as struct compute's */
    /* In place, with the slots of the rule. Where the rule has a measure its reads are
     * streamed first: over the whole range (RULE_GLOBAL), or, if `cached`, over tiles
     * of 16 Ki elements (RULE_BLOCK; out of cache a block is read once). */
    void (*stream)(const struct rule *rule, const struct arrays *at, size_t n,
                   bool cached);
    /* One loop over memory for each operation, in place with scratch arrays, the way
     * one writes it with an array library. `y += s*x` counts as one operation. */
    void (*separate)(const struct rule *rule, const struct arrays *at,
                     number *const *scratch, const struct step_scalars *k,
                     const struct blocks *blocks, size_t n);
    /* How many loops the last one makes, for one block. 0: a component of the rule is
     * not written that way, and `separate` does nothing. */
    int (*separate_count)(const struct rule *rule);
};

/* Those compiled for the same instruction set, or NULL. */
const struct bench_passes *bench_passes_find(const char *compute_name);

#endif
