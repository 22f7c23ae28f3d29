/* What the passes of compute.h are held against: a stream with the same reads and
 * writes and hardly any arithmetic, and the same arithmetic one operation at a time. */
#ifndef GAPLESS_BENCH_PASSES_H
#define GAPLESS_BENCH_PASSES_H

#include "engine/compute/compute.h"
#include "engine/rules/element.h"

enum {
    BENCH_SCRATCH = 3
};

/* Ways for a stream; which is the fastest is measured. */
enum bench_way {
    BENCH_PLAIN,
    BENCH_ASKED,      /* lines are prefetched, those that are only written, too */
    BENCH_PAST,       /* `sent`, where it is only written, goes past the caches */
    BENCH_PAST_ASKED, /* ... and the others are prefetched */
    BENCH_WAYS
};

/* Over what the slots of a rule are streamed. Where it has a measure its reads come first: */
enum bench_visits {
    BENCH_ONCE, /* ... no: a block that was measured is in the cache when it is updated */
    BENCH_TILES, /* ... of tiles of 16 Ki elements: all is in a cache, and a visit is felt */
    BENCH_TWICE /* ... over the whole range */
};

struct bench_passes {
    const char *name; /* as struct compute's */
    /* In place, with the slots of the rule and hardly any arithmetic. */
    void (*stream)(const struct rule *rule, const struct arrays *at, size_t n,
                   enum bench_visits visits, enum bench_way way);
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
