/* Compute: the passes over memory that the master needs, as a table, so that a CPU loop
 * and a CUDA stream look alike to it.
 *
 * All arrays of one call are equally long, start on a 64-byte boundary and are padded
 * with zeros to a multiple of 16 elements; `n` is that padded count. The padding stays
 * zero under every rule.
 */
#ifndef GAPLESS_COMPUTE_H
#define GAPLESS_COMPUTE_H

#include "engine/rules/rules.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef GAPLESS_REAL_DOUBLE
typedef double number; /* the test build that checks the formulas */
#else
typedef float number;
#endif

/* Where a pass works: pointers to the first element of a range; unused ones may be
 * NULL. */
struct arrays {
    number *theta; /* the parameters */
    number *own;   /* this worker's velocity */
    number *all;   /* shared velocity, or the sum of all `own` */
    number *stat;  /* running mean of squares */
    number *sent;  /* what this worker was last given; becomes what it is given next */
    const number *grad; /* what this worker computed at `sent` */
    number *square;     /* running mean of the squared gradients */
    /* RULE_ADAM: a word for each 16 elements; weight decay applies where the element's
     * bit is 1, of the first the lowest. NULL: to all. */
    const uint16_t *decays;
    /* RULE_MATRIX, of matrices only: this worker's mean of the gradients; and what the
     * products work on, for the time of one update. */
    number *mean, *turned;
};

/* Blocks of a range, for rules that want one number per block: ends[i] is the
 * (unpadded) end of block i, counted from the start of the range; block i starts at
 * ends[i-1] (0 for the first). */
struct blocks {
    const uint32_t *ends;
    uint32_t count;
    const double *dots; /* RULE_PUBLISHED: of each block, from the worker; NULL: 0 */
    const uint32_t *pieces; /* of each block: how many its tensor was cut into; NULL: 1.
                               What is measured on one of them stands for all */
    /* Gets the gate f of each block where it is measured (`lagging` of the scalars); NULL:
     * not wanted. */
    number *gates;
};

/* What a pass is asked for beside the update, and ways for it to go over memory. Ways change
 * no bit; which are fast depends on the processor and on how much there is to go over. */
enum {
    WANT_GAP = 1,  /* telemetry: gap_sq; a read of `sent`, where the rule has none */
    WAY_WOVEN = 2, /* RULE_BLOCK: see compute_blocks.h */
    WAY_ASK = 4,   /* lines are asked for ahead */
    WAY_PAST = 8   /* `sent`, where it is written without being read, is stored past the
                      caches, and has arrived in memory when the pass returns */
};

/* The ways that are fast on this processor, for that number of parameters. Only where they
 * were measured: none on other makers' processors than Intel. */
unsigned compute_cpu_ways(uint64_t elements);

/* The order in which every backend adds, so that sums have the same bits everywhere:
 * see compute_lanes.h. */
enum {
    SUM_LANES = 16,   /* element i goes to lane i % 16; 16 elements are a chunk */
    SUM_EXACT = 4,    /* chunks that a lane adds in float where a gate is made of it */
    SUM_STRETCH = 64, /* chunks that are added to 16 sums of their own */
    SUM_SPAN = 64,    /* stretches, likewise */
    SUM_STRETCH_ELEMENTS = SUM_LANES * SUM_STRETCH,
    SUM_SPAN_ELEMENTS = SUM_STRETCH_ELEMENTS * SUM_SPAN
};

/* Sums over one pass; each pass writes all fields, those not computed as 0. */
struct sums {
    double gap_sq;   /* sum of (theta - sent)^2, both as before the update, if wanted */
    double step_sq;  /* sum of step^2, only for rules with RULE_GLOBAL */
    double gate_sum; /* sum over elements of f, only for rules with RULE_BLOCK */
};

struct compute {
    const char *name; /* "cpu-avx512" */

    /* Applies one gradient in one pass: correction, momentum, look-ahead (algorithms:
     * Decisions 2-6). */
    void (*apply)(const struct rule *rule, const struct arrays *at,
                  const struct step_scalars *scalars, const struct blocks *blocks,
                  size_t n, unsigned want, struct sums *ret);
    /* The sum the gate of the whole vector needs, range by range: for rules with
     * RULE_GLOBAL of squared gaps, for those with RULE_BLOCK as over one block, with
     * step_context.whole. */
    double (*measure)(const struct rule *rule, const struct arrays *at,
                      const struct step_scalars *scalars, size_t n);
    /* For rules with RULE_MATRIX, of a matrix (apply, measure and look_ahead are of the
     * rest): before the products, `turned` = the momentum of this update, of k->gate times
     * the gradient; and after them, with `turned` as they have left it, the step and what
     * is sent. */
    void (*gather)(const struct rule *rule, const struct arrays *at,
                   const struct step_scalars *scalars, size_t n);
    void (*turn)(const struct rule *rule, const struct arrays *at,
                 const struct step_scalars *scalars, size_t n, unsigned want,
                 struct sums *ret);
    double (*matrix_measure)(const struct rule *rule, const struct arrays *at,
                             const struct step_scalars *scalars, size_t n);
    void (*matrix_look_ahead)(const struct rule *rule, const struct arrays *at,
                              const struct step_scalars *scalars, size_t n);
    /* For rules with RULE_ROUND: averages `workers` gradients in the order given, one
     * momentum step, the same look-ahead into every sent[i]. at->grad and at->sent are
     * not used. gap_sq is of the first worker. */
    void (*round)(const struct rule *rule, const struct arrays *at,
                  const struct step_scalars *scalars, const number *const *grad,
                  number *const *sent, uint32_t workers, size_t n, unsigned want,
                  struct sums *ret);
    /* sent = what the momentum would send now, with no update (a worker joined, or its
     * gradient was dropped). */
    void (*look_ahead)(const struct rule *rule, const struct arrays *at,
                       const struct step_scalars *scalars, size_t n);
    /* A worker left: all -= own where all is the sum of owns; own = 0, and mean. */
    void (*forget)(const struct rule *rule, const struct arrays *at, size_t n);
    /* all = sum of the owns given, in order. */
    void (*resum)(number *all, const number *const *own, uint32_t workers, size_t n);

    /* A running average: theta -= share*grad + average*(theta - sent); sent = theta. grad is
     * what the worker took off what it was sent; see struct gapless_tensor. */
    void (*average)(number *theta, number *sent, const number *grad, number share,
                    number average, size_t n);

    /* True when every element is finite. */
    bool (*finite)(const number *x, size_t n);
    /* Sum of squares in double: not finite exactly when an element is not. */
    double (*norm_sq)(const number *x, size_t n);
    /* x *= factor */
    void (*scale)(number *x, number factor, size_t n);
    /* grad += decay * params; returns the new sum of squares as norm_sq does */
    double (*decay)(number *grad, const number *params, number decay, size_t n);
    /* DANA-Slim at the worker: v = momentum*v + grad; grad = momentum*v + grad. */
    void (*slim)(number *grad, number *velocity, number momentum, size_t n);
    /* RULE_PUBLISHED at the worker: of each block of a range, the sum of grad*params,
     * by the same lanes as the sum it is subtracted from. */
    void (*dots)(const number *grad, const number *params, const struct blocks *blocks,
                 size_t n, double *ret);
    /* EASGD at the worker: params -= rate*grad; where there is a velocity, v =
     * momentum*v + grad; params -= rate*(grad + momentum*v). False: what came out is
     * not finite. */
    bool (*local)(number *params, const number *grad, number *velocity, number rate,
                  number momentum, size_t n);
    /* EASGD at the worker: params -= elastic*(params - sent) */
    void (*approach)(number *params, const number *sent, number elastic, size_t n);
};

/* The best of this machine, chosen once; GAPLESS_ISA=generic|avx2|avx512 narrows it. */
const struct compute *compute_cpu(void);
/* All that this build has and this machine can run, best first; ends with NULL. For
 * tests and benchmarks. */
const struct compute *const *compute_cpu_all(void);

#endif
