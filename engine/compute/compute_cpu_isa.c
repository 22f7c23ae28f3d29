/* The passes for one instruction set. This file is compiled once for each, with its
 * flags and GAPLESS_ISA_NAME (generic, avx2, avx512); compute_cpu.c chooses at run
 * time.
 *
 * Flags matter here: -O3 -ffp-contract=off -fno-math-errno. */
#include "engine/compute/compute.h"
#include "engine/compute/compute_blocks.h"
#include "engine/compute/compute_lanes.h"
#include "engine/rules/compute_rules.h"
#include "engine/compute/compute_sweep.h"
#include "engine/rules/element.h"
#include "engine/rules/rules.h"

#ifndef GAPLESS_ISA_NAME
#define GAPLESS_ISA_NAME generic
#endif

#define JOIN(a, b) JOIN_EXPANDED(a, b)
#define JOIN_EXPANDED(a, b) a##b

/* Flags that do not fit the name would cost half of the speed or more, and nothing
 * else. */
enum {
    BYTES_generic = 16,
    BYTES_avx2 = 32,
    BYTES_avx512 = 64
};
_Static_assert(REAL_BYTES == sizeof(double) ||
                   REAL_BYTES >= (int)JOIN(BYTES_, GAPLESS_ISA_NAME),
               "compiled with the vectors of its instruction set");

typedef void pass_fn(const struct arrays *at, const struct step_scalars *k,
                     const struct blocks *blocks, size_t n, unsigned ways,
                     struct sums *ret);
typedef double measure_fn(const struct arrays *at, const struct step_scalars *k,
                          size_t n);
typedef void send_fn(const struct arrays *at, const struct step_scalars *k, size_t n);

struct passes {
    pass_fn *apply[2][2]; /* [gap_ref][want] */
    measure_fn *measure[2];
    send_fn *look_ahead;
};

RULE_FN size_t stretch_end(size_t i, size_t n)
{
    return n - i > SUM_STRETCH_ELEMENTS ? i + SUM_STRETCH_ELEMENTS : n;
}

/* The sum of gap^2, of which the gate of a RULE_GLOBAL rule is made. */
RULE_FN double sweep_gap(const struct arrays *arrays,
                         const struct step_scalars *scalars, size_t n, unsigned reads,
                         element_fn *ahead)
{
    const struct arrays at = *arrays;
    const struct step_scalars k = *scalars;
    struct spans sum = spans_zero();

    for (size_t i = 0; i < n;) {
        size_t end = stretch_end(i, n);
        struct lanes stretch = lanes_zero();
        while (i < end) {
            struct chunk some = chunk_zero();
            for (int c = 0; c < CHUNKS_EXACT && i < end; c++, i += LANES)
                for (int p = 0; p < PARTS; p++) {
                    struct element e =
                        element_load(&at, i + (size_t)(p * WIDTH), reads);
                    if (ahead)
                        ahead(&e, &k);
                    some.part[p] += gap(&e) * gap(&e);
                }
            lanes_flush(&stretch, &some);
        }
        lanes_move(&sum.span, &stretch);
        spans_reach(&sum, i / LANES);
    }
    return spans_total(&sum);
}

RULE_FN void sweep_send(const struct arrays *arrays, const struct step_scalars *scalars,
                        size_t n, unsigned reads, element_fn *send)
{
    const struct arrays at = *arrays;
    const struct step_scalars k = *scalars;

    for (size_t i = 0; i < n; i += WIDTH) {
        struct element e = element_load(&at, i, reads);
        send(&e, &k);
        element_store(&at, i, SLOT_SENT, &e);
    }
}

/* A range whose blocks the caller did not name is one block; a gradient without lag has
 * nothing to be measured against. */
RULE_FN void sweep_gated(const struct plan *plan, const struct block_plan *measure,
                         const struct arrays *at, const struct step_scalars *k,
                         const struct blocks *blocks, size_t n, struct sums *ret)
{
    uint32_t end = (uint32_t)n;
    struct blocks whole = {.ends = &end, .count = 1};

    if (!blocks || !blocks->count)
        blocks = &whole;
    if (k->lagging) {
        struct plan visited = *plan;
        if (measure->reads & SLOT_SENT)
            visited.ways &= ~(unsigned)WAY_PAST; /* it is in the cache */
        sweep_blocks(&visited, measure, at, k, blocks, n, ret);
    } else {
        sweep(plan, at, k, n, ret);
        ret->gate_sum = (double)k->gate * (double)blocks->ends[blocks->count - 1];
    }
}

/* The loops of one rule. Of the four variants only those that differ are compiled:
 * where the reference of the gap makes no difference the table below names the same
 * function twice. */
#define VARIANT(symbol, correction, momentum, variant, own, want)                      \
    static void apply_##symbol##_##variant(                                            \
        const struct arrays *at, const struct step_scalars *k,                         \
        const struct blocks *blocks, size_t n, unsigned ways, struct sums *ret)        \
    {                                                                                  \
        const struct plan plan = {rule_##symbol##_reads,                               \
                                  rule_##symbol##_writes,                              \
                                  (own) ? ahead_of_##symbol : NULL,                    \
                                  correct_##correction,                                \
                                  move_##symbol,                                       \
                                  SLOT_THETA | SLOT_GRAD | correction##_reads |        \
                                      (correction##_writes & momentum##_reads) |       \
                                      ((own) ? momentum##_ahead_reads : 0),            \
                                  ((correction##_reads) & SLOT_STAT) != 0,             \
                                  (want),                                              \
                                  (rule_##symbol##_flags & RULE_GLOBAL) != 0,          \
                                  (rule_##symbol##_flags & RULE_ADAM) != 0,            \
                                  ways};                                               \
        const struct block_plan measure = {                                            \
            .reads = rule_##symbol##_measure_reads,                                    \
            .reads_later = rule_##symbol##_reads & ~rule_##symbol##_measure_reads,     \
            .ahead = ahead_of_##symbol,                                                \
            IF_BLOCK_GAP(correction, .measure = measure_##correction,                  \
                         .gate = gate_##correction, )                                  \
                .less_dots = (rule_##symbol##_flags & RULE_PUBLISHED) != 0};           \
        if (rule_##symbol##_flags & RULE_BLOCK)                                        \
            sweep_gated(&plan, &measure, at, k, blocks, n, ret);                       \
        else                                                                           \
            sweep(&plan, at, k, n, ret);                                               \
    }
#define RULE(symbol, name, correction, momentum, extra, source)                        \
    VARIANT(symbol, correction, momentum, sent, false, false)                          \
    VARIANT(symbol, correction, momentum, sent_gap, false, true)                       \
    VARIANT(symbol, correction, momentum, own, true, false)                            \
    VARIANT(symbol, correction, momentum, own_gap, true, true)                         \
    static double measure_##symbol##_sent(const struct arrays *at,                     \
                                          const struct step_scalars *k, size_t n)      \
    {                                                                                  \
        return sweep_gap(at, k, n, SLOT_THETA | SLOT_SENT, NULL);                      \
    }                                                                                  \
    static double measure_##symbol##_own(const struct arrays *at,                      \
                                         const struct step_scalars *k, size_t n)       \
    {                                                                                  \
        return sweep_gap(at, k, n, SLOT_THETA | SLOT_SENT | momentum##_ahead_reads,    \
                         ahead_of_##symbol);                                           \
    }                                                                                  \
    static double measure_##symbol##_whole(const struct arrays *at,                    \
                                           const struct step_scalars *k, size_t n)     \
    {                                                                                  \
        if (!(rule_##symbol##_flags & RULE_BLOCK))                                     \
            return 0.0;                                                                \
        const struct block_plan plan = {                                               \
            .reads = rule_##symbol##_measure_reads,                                    \
            .ahead = ahead_of_##symbol,                                                \
            IF_BLOCK_GAP(correction, .measure = measure_##correction, ).only_sums =    \
                true};                                                                 \
        uint32_t end = (uint32_t)n;                                                    \
        const struct blocks whole = {.ends = &end, .count = 1};                        \
        double sum = 0.0;                                                              \
        sweep_sums(&plan, at, k, &whole, n, compute_cpu_ways(n), &sum);                \
        return sum;                                                                    \
    }                                                                                  \
    static void sends_##symbol(const struct arrays *at, const struct step_scalars *k,  \
                               size_t n)                                               \
    {                                                                                  \
        sweep_send(at, k, n, rule_##symbol##_send_reads, send_##symbol);               \
    }
#include "engine/rules/rules.def"
#undef RULE

#define OWN(symbol, function)                                                          \
    (rule_##symbol##_own_gap ? function##_own : function##_sent)
#define OWN_GAP(symbol, function)                                                      \
    (rule_##symbol##_own_gap ? function##_own_gap : function##_sent_gap)
#define MEASURE(symbol, function)                                                      \
    ((rule_##symbol##_flags & RULE_GLOBAL)  ? (function)                               \
     : (rule_##symbol##_flags & RULE_BLOCK) ? measure_##symbol##_whole                 \
                                            : measure_nothing)
#define RULE(symbol, name, correction, momentum, extra, source)                        \
    {{{apply_##symbol##_sent, apply_##symbol##_sent_gap},                              \
      {OWN(symbol, apply_##symbol), OWN_GAP(symbol, apply_##symbol)}},                 \
     {MEASURE(symbol, measure_##symbol##_sent),                                        \
      MEASURE(symbol, OWN(symbol, measure_##symbol))},                                 \
     sends_##symbol},

static double measure_nothing(const struct arrays *at, const struct step_scalars *k,
                              size_t n)
{
    (void)at, (void)k, (void)n;
    return 0.0;
}

static const struct passes passes[] = {
#include "engine/rules/rules.def"
};
#undef RULE

static void cpu_apply(const struct rule *rule, const struct arrays *at,
                      const struct step_scalars *scalars, const struct blocks *blocks,
                      size_t n, unsigned want, struct sums *ret)
{
    int gap = (want & WANT_GAP) != 0;
    passes[rule->index].apply[scalars->gap_ref != 0][gap](at, scalars, blocks, n, want,
                                                          ret);
}

static double cpu_measure(const struct rule *rule, const struct arrays *at,
                          const struct step_scalars *scalars, size_t n)
{
    return passes[rule->index].measure[scalars->gap_ref != 0](at, scalars, n);
}

static void cpu_look_ahead(const struct rule *rule, const struct arrays *at,
                           const struct step_scalars *scalars, size_t n)
{
    passes[rule->index].look_ahead(at, scalars, n);
}

static void copy(number *to, const number *from, size_t n)
{
    for (size_t i = 0; i < n; i += WIDTH)
        lanes_store(to + i, lanes_load(from + i));
}

static void add(number *to, const number *from, size_t n)
{
    for (size_t i = 0; i < n; i += WIDTH)
        lanes_store(to + i, lanes_load(to + i) + lanes_load(from + i));
}

static void cpu_scale(number *x, number factor, size_t n)
{
    for (size_t i = 0; i < n; i += WIDTH)
        lanes_store(x + i, factor * lanes_load(x + i));
}

/* Elements that are summed over workers at a time: 8 KiB of each array in turn, because
 * more than about a dozen streams at once are more than a prefetcher follows. */
enum {
    TILE = 2 * SUM_STRETCH_ELEMENTS
};

static void cpu_resum(number *all, const number *const *own, uint32_t workers, size_t n)
{
    for (size_t at = 0; at < n; at += TILE) {
        size_t len = n - at < TILE ? n - at : TILE;
        if (workers)
            copy(all + at, own[0] + at, len);
        else
            __builtin_memset(all + at, 0, len * sizeof *all);
        for (uint32_t i = 1; i < workers; i++)
            add(all + at, own[i] + at, len);
    }
}

/* (theta - sent)^2 of a tile that begins a stretch. */
RULE_FN void tile_gap(const number *theta, const number *sent, size_t from, size_t n,
                      struct tally *tally)
{
    for (size_t i = 0; i < n;) {
        for (size_t end = stretch_end(i, n); i < end; i += LANES)
            for (int p = 0; p < PARTS; p++) {
                size_t at = i + (size_t)(p * WIDTH);
                real moved = lanes_load(theta + at) - lanes_load(sent + at);
                tally->gap_sq.part[p] += moved * moved;
            }
        tally_reach(tally, true, false, (from + i) / LANES);
    }
}

static void cpu_round(const struct rule *rule, const struct arrays *arrays,
                      const struct step_scalars *scalars, const number *const *grad,
                      number *const *sent, uint32_t workers, size_t n, unsigned want,
                      struct sums *ret)
{
    _Alignas(64) number mean[TILE];
    struct tally tally = tally_zero();
    struct sums part;

    for (size_t from = 0; from < n; from += TILE) {
        size_t len = n - from < TILE ? n - from : TILE;
        struct arrays at = {.theta = arrays->theta + from, .grad = mean};
        if (rule->reads & SLOT_ALL)
            at.all = arrays->all + from;
        if (rule->reads & SLOT_STAT)
            at.stat = arrays->stat + from;
        if (rule->reads & SLOT_SQUARE)
            at.square = arrays->square + from;
        if (arrays->decays)
            at.decays = arrays->decays + from / LANES;
        at.sent = sent[0] + from;
        copy(mean, grad[0] + from, len);
        for (uint32_t i = 1; i < workers; i++)
            add(mean, grad[i] + from, len);
        cpu_scale(mean, (number)(1.0 / (double)workers), len);
        if (want & WANT_GAP)
            tile_gap(at.theta, at.sent, from, len, &tally);
        cpu_apply(rule, &at, scalars, NULL, len, 0, &part);
        for (uint32_t i = 1; i < workers; i++)
            copy(sent[i] + from, at.sent, len);
    }
    tally_total(&tally, ret);
}

static void cpu_forget(const struct rule *rule, const struct arrays *at, size_t n)
{
    if (!(rule->writes & SLOT_OWN))
        return;
    for (size_t i = 0; i < n; i += WIDTH) {
        if (rule->flags & RULE_SUM)
            lanes_store(at->all + i, lanes_load(at->all + i) - lanes_load(at->own + i));
        lanes_store(at->own + i, real_zero());
        if (at->mean)
            lanes_store(at->mean + i, real_zero());
    }
}

static void cpu_average(number *theta, number *sent, const number *grad, number share,
                        number average, size_t n)
{
    for (size_t i = 0; i < n; i += WIDTH) {
        real x = lanes_load(theta + i), moved = x - lanes_load(sent + i);
        x = x - (share * lanes_load(grad + i) + average * moved);
        lanes_store(theta + i, x);
        lanes_store(sent + i, x);
    }
}

enum {
    NORM_AHEAD =
        1024 /* elements; of one array alone. A norm is 1.5 times as fast, a check
                         1.1 times (Intel, family 6, model 207, out of cache) */
};

static double cpu_norm_sq(const number *x, size_t n)
{
    const bool asks = (compute_cpu_ways(n) & WAY_ASK) && n > CACHED_ELEMENTS;
    struct spans sum = spans_zero();
    for (size_t i = 0; i < n;) {
        struct lanes stretch = lanes_zero();
        for (size_t end = stretch_end(i, n); i < end; i += LANES) {
            if (asks)
                prefetch(x + i + NORM_AHEAD, true);
            for (int p = 0; p < PARTS; p++)
                lanes_add_square(&stretch, p, lanes_load(x + i + p * WIDTH));
        }
        lanes_move(&sum.span, &stretch);
        spans_reach(&sum, i / LANES);
    }
    return spans_total(&sum);
}

/* x*0 is 0 exactly when x is finite, else not a number; a sum keeps that. */
static bool all_finite(struct chunk *sum)
{
    struct spans total = spans_zero();
    lanes_flush(&total.span, sum);
    double zero = spans_total(&total);
    return zero >= 0.0 && zero <= 0.0;
}

static bool cpu_finite(const number *x, size_t n)
{
    const bool asks = (compute_cpu_ways(n) & WAY_ASK) && n > CACHED_ELEMENTS;
    struct chunk sum = chunk_zero();
    for (size_t i = 0; i < n; i += LANES) {
        if (asks)
            prefetch(x + i + NORM_AHEAD, true);
        for (int p = 0; p < PARTS; p++)
            sum.part[p] += lanes_load(x + i + p * WIDTH) * (number)0;
    }
    return all_finite(&sum);
}

static double cpu_decay(number *grad, const number *params, number decay, size_t n)
{
    struct spans sum = spans_zero();
    for (size_t i = 0; i < n;) {
        struct lanes stretch = lanes_zero();
        for (size_t end = stretch_end(i, n); i < end; i += LANES)
            for (int p = 0; p < PARTS; p++) {
                number *to = grad + i + p * WIDTH;
                real g = lanes_load(to) + decay * lanes_load(params + i + p * WIDTH);
                lanes_add_square(&stretch, p, g);
                lanes_store(to, g);
            }
        lanes_move(&sum.span, &stretch);
        spans_reach(&sum, i / LANES);
    }
    return spans_total(&sum);
}

static void cpu_slim(number *grad, number *velocity, number momentum, size_t n)
{
    for (size_t i = 0; i < n; i += WIDTH) {
        real g = lanes_load(grad + i);
        real v = momentum * lanes_load(velocity + i) + g;
        lanes_store(velocity + i, v);
        lanes_store(grad + i, momentum * v + g);
    }
}

static void cpu_dots(const number *grad, const number *params,
                     const struct blocks *blocks, size_t n, double *ret)
{
    const struct block_plan plan = {
        .reads = SLOT_GRAD | SLOT_SENT, .measure = measure_dot, .only_sums = true};
    const struct step_scalars none = {0};
    const struct arrays at = {.grad = grad, .sent = (number *)(uintptr_t)params};
    sweep_sums(&plan, &at, &none, blocks, n, compute_cpu_ways(n), ret);
}

static bool cpu_local(number *params, const number *grad, number *velocity, number rate,
                      number momentum, size_t n)
{
    struct chunk sum = chunk_zero();
    for (size_t i = 0; i < n; i += LANES)
        for (int p = 0; p < PARTS; p++) {
            size_t at = i + (size_t)(p * WIDTH);
            real step = lanes_load(grad + at);
            if (velocity) {
                real v = momentum * lanes_load(velocity + at) + step;
                lanes_store(velocity + at, v);
                step = step + momentum * v;
            }
            real x = lanes_load(params + at) - rate * step;
            lanes_store(params + at, x);
            sum.part[p] += x * (number)0; /* see cpu_finite */
        }
    return all_finite(&sum);
}

static void cpu_approach(number *params, const number *sent, number elastic, size_t n)
{
    for (size_t i = 0; i < n; i += WIDTH) {
        real x = lanes_load(params + i);
        lanes_store(params + i, x - elastic * (x - lanes_load(sent + i)));
    }
}

/* ---- matrices (RULE_MATRIX) ---- */

/* The passes over a matrix of one momentum; it need not have a row in the table. */
#define UNUSED static __attribute__((unused))
#define MATRIX_MOMENTUM(momentum)                                                      \
    UNUSED void gather_all_##momentum(const struct arrays *at,                         \
                                      const struct step_scalars *k, size_t n)          \
    {                                                                                  \
        const struct plan plan = {.reads = momentum##_gather_reads,                    \
                                  .writes = momentum##_gather_writes,                  \
                                  .correct = correct_loss_gap,                         \
                                  .move = gather_##momentum,                           \
                                  .reads_first = SLOT_GRAD};                           \
        struct sums none;                                                              \
        sweep(&plan, at, k, n, &none);                                                 \
    }                                                                                  \
    UNUSED void turn_all_##momentum(const struct arrays *at,                           \
                                    const struct step_scalars *k, size_t n, bool gap,  \
                                    struct sums *ret)                                  \
    {                                                                                  \
        struct plan plan = {.reads = momentum##_turn_reads,                            \
                            .writes = momentum##_turn_writes,                          \
                            .correct = correct_none,                                   \
                            .move = turn_##momentum,                                   \
                            .reads_first = SLOT_THETA,                                 \
                            .decays = true};                                           \
        if (!gap) {                                                                    \
            sweep(&plan, at, k, n, ret);                                               \
            return;                                                                    \
        }                                                                              \
        plan.want_gap = true;                                                          \
        sweep(&plan, at, k, n, ret);                                                   \
    }                                                                                  \
    UNUSED double measure_matrix_##momentum(const struct arrays *at,                   \
                                            const struct step_scalars *k, size_t n)    \
    {                                                                                  \
        const struct block_plan plan = {.reads = SLOT_THETA | SLOT_GRAD | SLOT_SENT |  \
                                                 (momentum##_turn_reads & SLOT_OWN),   \
                                        .ahead = ahead_matrix_##momentum,              \
                                        .measure = measure_loss_gap,                   \
                                        .only_sums = true};                            \
        uint32_t end = (uint32_t)n;                                                    \
        const struct blocks whole = {.ends = &end, .count = 1};                        \
        double sum = 0.0;                                                              \
        sweep_sums(&plan, at, k, &whole, n, compute_cpu_ways(n), &sum);                \
        return sum;                                                                    \
    }                                                                                  \
    UNUSED void send_all_##momentum(const struct arrays *at,                           \
                                    const struct step_scalars *k, size_t n)            \
    {                                                                                  \
        sweep_send(at, k, n, SLOT_THETA | (momentum##_turn_reads & SLOT_ALL),          \
                   send_matrix_##momentum);                                            \
    }
#include "engine/rules/matrix_momenta.def"
#undef MATRIX_MOMENTUM

/* By rule; of those without matrices all are 0. */
static const struct {
    bool matrices;
    void (*gather)(const struct arrays *at, const struct step_scalars *k, size_t n);
    void (*turn)(const struct arrays *at, const struct step_scalars *k, size_t n,
                 bool gap, struct sums *ret);
    double (*measure)(const struct arrays *at, const struct step_scalars *k, size_t n);
    void (*send)(const struct arrays *at, const struct step_scalars *k, size_t n);
} matrix_passes[] = {
#define RULE(symbol, name, correction, momentum, extra, source)                        \
    {0 IF_MATRIX_##momentum(+1, gather_all_##momentum, turn_all_##momentum,            \
                            measure_matrix_##momentum, send_all_##momentum)},
#include "engine/rules/rules.def"
#undef RULE
};

static void cpu_gather(const struct rule *rule, const struct arrays *at,
                       const struct step_scalars *scalars, size_t n)
{
    matrix_passes[rule->index].gather(at, scalars, n);
}

static void cpu_turn(const struct rule *rule, const struct arrays *at,
                     const struct step_scalars *scalars, size_t n, unsigned want,
                     struct sums *ret)
{
    matrix_passes[rule->index].turn(at, scalars, n, (want & WANT_GAP) != 0, ret);
}

static double cpu_matrix_measure(const struct rule *rule, const struct arrays *at,
                                 const struct step_scalars *scalars, size_t n)
{
    return matrix_passes[rule->index].measure(at, scalars, n);
}

static void cpu_matrix_look_ahead(const struct rule *rule, const struct arrays *at,
                                  const struct step_scalars *scalars, size_t n)
{
    matrix_passes[rule->index].send(at, scalars, n);
}

#define TABLE(isa) JOIN(compute_cpu_, isa)
#define TEXT(x) #x
#define NAME(isa) "cpu-" TEXT(isa)

extern const struct compute TABLE(GAPLESS_ISA_NAME);
const struct compute TABLE(GAPLESS_ISA_NAME) = {
    .name = NAME(GAPLESS_ISA_NAME),
    .apply = cpu_apply,
    .measure = cpu_measure,
    .gather = cpu_gather,
    .turn = cpu_turn,
    .matrix_measure = cpu_matrix_measure,
    .matrix_look_ahead = cpu_matrix_look_ahead,
    .round = cpu_round,
    .look_ahead = cpu_look_ahead,
    .forget = cpu_forget,
    .resum = cpu_resum,
    .average = cpu_average,
    .finite = cpu_finite,
    .norm_sq = cpu_norm_sq,
    .scale = cpu_scale,
    .decay = cpu_decay,
    .slim = cpu_slim,
    .dots = cpu_dots,
    .local = cpu_local,
    .approach = cpu_approach,
};
