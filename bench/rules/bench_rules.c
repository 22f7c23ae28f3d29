/* gapless bench rules: is every rule one pass over memory at the speed of memory? And of
 * rules that work on matrices: what do the products cost beside it (bench_matrices.c)?
 *
 * Four things alternate in one process, because only ratios taken in the same second
 * mean anything on a shared machine:
 *
 *   stream      in place, with the reads and writes of the rule and hardly any
 *               arithmetic: plain, with prefetches, or with stores past the caches,
 *               whichever is the fastest of them here
 *   apply       the rule
 *   apply+gap   the rule with telemetry (WANT_GAP)
 *   separate    the same arithmetic, a loop over memory for each operation
 *
 * Where the gate of a rule may be one of the whole gradient the rule has two rows: with a
 * gate for each block, measured in the pass, and "(whole)": everything is measured, then
 * updated. Its stream reads, then goes over all in place, likewise.
 *
 * A sample is one pass of a small vector or a window of a large one, short, so that a
 * preempted one is an outlier; a round takes the median of its samples; ratios are
 * formed in a round, and what is printed is the median over rounds. Of a large vector each
 * kind takes another part than the kind before it, which may still be in a large cache.
 * Arrays are separate and staggered by an odd number of cache lines. */
#include "bench/bench.h"

#include "bench/rules/bench_matrices.h"
#include "bench/rules/bench_passes.h"

#include "engine/base/clock.h"
#include "engine/compute/compute.h"
#include "engine/rules/element.h"
#include "engine/rules/rules.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    SLOTS = 7,
    ARRAYS = SLOTS + BENCH_SCRATCH,
    ROUNDS_MAX = 64,
    SAMPLES_MAX = 64,
    CACHED = 128 << 10,   /* elements that stay in the caches of a core */
    CACHED_MAX = 4 << 20, /* beyond, a vector is swept in windows */
    WAY_TURNS = 3,
    WINDOW = 512 << 10, /* 3 ms or less, a scheduler's slice */
    SLICE = 8 << 20,    /* one kind's part of a large vector, in a round */
    STAGGER = 11 * 16,  /* elements: 11 cache lines */
    BLOCK = 20011 /* elements in a block of a large vector; odd, so most are ragged */
};

enum kind {
    STREAM,
    APPLY,
    APPLY_GAP,
    SEPARATE,
    KINDS
};

struct bench {
    const struct compute *compute;
    const struct bench_passes *passes;
    number *memory;
    size_t memory_bytes, stride;
    uint32_t *ends;
    size_t d; /* elements of the vector, padded */
};

/* A row: a rule, and whether its gate is one of the whole gradient. */
struct row {
    const struct rule *rule;
    bool whole;
};

struct result {
    struct row row;
    size_t size;
    enum bench_way way; /* of the stream */
    int rounds, loops;
    unsigned bytes;
    double seconds[KINDS];          /* per element */
    double stream, separate, extra; /* ratios to apply; extra: telemetry - 1 */
    double floor_stream;
    bool low;
};

/* ---- the vector ---------------------------------------------------------- */

/* Tensors of a 784-64-10 network, the large one in three; else blocks of BLOCK. */
static struct blocks blocks_of(struct bench *b, size_t size, size_t n)
{
    static const uint32_t mlp[] = {16726, 33451, 50176, 50240, 50880, 50890};
    struct blocks ret = {.ends = mlp, .count = 6};
    if (size == 50890)
        return ret;
    ret.ends = b->ends;
    ret.count = 0;
    for (size_t end = 0; end < n;) {
        end = n - end < 2 * BLOCK ? n : end + BLOCK;
        b->ends[ret.count++] = (uint32_t)end;
    }
    return ret;
}

static int bench_open(struct bench *b, size_t size)
{
    b->d = (size + 15) / 16 * 16;
    b->stride = (b->d + 1023) / 1024 * 1024 + STAGGER;
    b->memory_bytes = ARRAYS * b->stride * sizeof(number);
    b->ends = malloc((CACHED_MAX / BLOCK + 2) * sizeof *b->ends);
    b->memory = mmap(NULL, b->memory_bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (!b->ends || b->memory == MAP_FAILED) {
        fprintf(stderr, "bench rules: not enough memory for %zu elements (%zu MiB)\n",
                size, b->memory_bytes >> 20);
        free(b->ends);
        return -1;
    }
    madvise(b->memory, b->memory_bytes, MADV_HUGEPAGE);
    for (size_t i = 0; i < b->memory_bytes / sizeof(number); i++)
        b->memory[i] = 0.01f + 1e-5f * (float)(i % 97);
    return 0;
}

static void bench_close(struct bench *b)
{
    munmap(b->memory, b->memory_bytes);
    free(b->ends);
}

/* ---- one sample ---------------------------------------------------------- */

/* Is everything measured before anything is updated? */
static bool visits_twice(const struct row *row)
{
    return row->whole || (row->rule->flags & RULE_GLOBAL) != 0;
}

static void stream(const struct bench *b, const struct row *row,
                   const struct arrays *at, size_t n, enum bench_way way)
{
    bool tiles = (row->rule->flags & RULE_BLOCK) != 0 && b->d <= CACHED;

    b->passes->stream(row->rule, at, n,
                      visits_twice(row) ? BENCH_TWICE
                      : tiles           ? BENCH_TILES
                                        : BENCH_ONCE,
                      way);
}

static void apply(const struct bench *b, const struct row *row, const struct arrays *at,
                  const struct blocks *blocks, size_t n, unsigned want)
{
    struct step_scalars k;
    struct sums sums;

    bench_scalars(row->rule, &k);
    if (visits_twice(row))
        b->compute->measure(row->rule, at, &k, n);
    if (row->whole)
        k.lagging = 0; /* it has its gate */
    b->compute->apply(row->rule, at, &k, blocks, n, want | compute_cpu_ways(b->d),
                      &sums);
}

/* Seconds for an element. `way` is the stream's. */
static double sample(struct bench *b, const struct row *row, enum kind kind,
                     enum bench_way way, size_t size, size_t from, size_t n)
{
    number *m = b->memory + from, *scratch[BENCH_SCRATCH];
    struct arrays at = {.theta = m,
                        .own = m + b->stride,
                        .all = m + 2 * b->stride,
                        .stat = m + 3 * b->stride,
                        .sent = m + 4 * b->stride,
                        .grad = m + 5 * b->stride,
                        .square = m + 6 * b->stride};
    struct blocks blocks = blocks_of(b, size, n);
    struct step_scalars k;

    bench_scalars(row->rule, &k);
    for (size_t i = 0; i < BENCH_SCRATCH; i++)
        scratch[i] = m + (SLOTS + i) * b->stride;
    double start = clock_seconds();
    if (kind == STREAM)
        stream(b, row, &at, n, way);
    else if (kind == SEPARATE)
        b->passes->separate(row->rule, &at, scratch, &k, &blocks, n);
    else
        apply(b, row, &at, &blocks, n, kind == APPLY_GAP ? WANT_GAP : 0);
    return (clock_seconds() - start) / (double)n;
}

/* The median over one turn's samples of one kind. A large vector is swept window by
 * window over another slice each turn; a row that goes over the whole vector twice
 * takes the slice in large parts, or the second pass would find a window in the cache. */
static double turn_of(struct bench *b, const struct row *row, enum kind kind,
                      enum bench_way way, size_t size, int turn)
{
    double samples[SAMPLES_MAX];
    int count = 0;

    if (b->d <= CACHED_MAX) {
        int wanted = b->d <= CACHED ? 40 : 4;
        for (int i = -2; i < wanted; i++) {
            double t = sample(b, row, kind, way, size, 0, b->d);
            if (i >= 0)
                samples[count++] = t;
        }
    } else {
        size_t slice = SLICE < b->d ? SLICE : b->d;
        size_t begin = (size_t)turn % (b->d / slice) * slice, end = begin + slice;
        size_t window = visits_twice(row) ? CACHED_MAX : WINDOW;
        for (size_t from = begin; from < end && count < SAMPLES_MAX; from += window) {
            size_t n = end - from < window ? end - from : window;
            samples[count++] = sample(b, row, kind, way, size, from, n);
        }
    }
    return bench_median(samples, (size_t)count);
}

/* The fastest way for the stream, by turns of each. What a cache holds is not stored past
 * it: the worker, which reads `sent` next, would have to wait for memory. */
static enum bench_way fastest(struct bench *b, const struct row *row, size_t size,
                              int *turn)
{
    int ways = b->d > CACHED_MAX ? BENCH_WAYS : BENCH_PAST;
    double t[BENCH_WAYS][WAY_TURNS];
    int best = BENCH_PLAIN;

    for (int i = 0; i < WAY_TURNS; i++)
        for (int way = 0; way < ways; way++)
            t[way][i] = turn_of(b, row, STREAM, (enum bench_way)way, size, (*turn)++);
    for (int way = 0; way < ways; way++) {
        t[way][0] = bench_median(t[way], WAY_TURNS);
        best = t[way][0] < t[best][0] ? way : best;
    }
    return (enum bench_way)best;
}

/* ---- one rule ------------------------------------------------------------ */

/* What counts as a failure, of the speed of the stream.
 *
 * Out of cache nothing but memory may be felt, but by the RULE_BLOCK rules with a gate for
 * each block: they visit a block twice, the second time in L2. In L2 the root and the
 * division of gap_aware and delay_comp_adaptive are felt: they take the time of about
 * ten reads and writes, of which these rules have 7 to 11. Adam's have both, and its gated
 * rules twice: where they measure, and where they update. */
static double floor_of(const struct row *row, size_t size)
{
    const struct rule *rule = row->rule;
    bool cached = size <= CACHED;
    if (row->whole)
        return cached ? 0.50 : 0.90;
    if ((rule->flags & RULE_BLOCK) && (rule->flags & RULE_ADAM))
        return cached ? 0.52 : size <= CACHED_MAX ? 0.70 : 0.80;
    if (rule->flags & RULE_BLOCK)
        return cached ? 0.88 : size <= CACHED_MAX ? 0.80 : 0.82;
    if (!cached)
        return size <= CACHED_MAX ? 0.85 : 0.92; /* a cache that others share */
    if (!(rule->reads & (SLOT_STAT | SLOT_SQUARE)))
        return 0.90;
    return rule->reads & SLOT_OWN ? 0.72 : rule->reads & SLOT_ALL ? 0.60 : 0.45;
}

static unsigned bytes_of(const struct row *row)
{
    unsigned read = (unsigned)__builtin_popcount(row->rule->measure_reads);
    unsigned once =
        (unsigned)__builtin_popcount(row->rule->measure_reads & ~row->rule->reads);

    /* What only the measure reads is counted with the rule. */
    return rules_bytes(row->rule) +
           (row->whole ? (read - once) * (unsigned)sizeof(number) : 0);
}

static void measure(struct bench *b, const struct row *row, size_t size, double seconds,
                    int rounds_max, struct result *ret)
{
    double t[KINDS][ROUNDS_MAX], stream[ROUNDS_MAX], separate[ROUNDS_MAX],
        extra[ROUNDS_MAX];
    double start = clock_seconds();
    int rounds = 0, loops = row->whole ? 0 : b->passes->separate_count(row->rule);
    int turn = 0;
    enum bench_way way = fastest(b, row, size, &turn);

    while (rounds < rounds_max && (rounds < 3 || clock_seconds() - start < seconds)) {
        for (int i = 0; i < KINDS; i++)
            t[i][rounds] = i == SEPARATE && !loops
                               ? 0.0
                               : turn_of(b, row, (enum kind)i, way, size, turn++);
        stream[rounds] = t[STREAM][rounds] / t[APPLY][rounds];
        separate[rounds] = t[SEPARATE][rounds] / t[APPLY][rounds];
        extra[rounds] = t[APPLY_GAP][rounds] / t[APPLY][rounds] - 1.0;
        rounds++;
    }
    memset(ret, 0, sizeof *ret);
    ret->row = *row;
    ret->size = size;
    ret->way = way;
    ret->rounds = rounds;
    ret->bytes = bytes_of(row);
    ret->loops = loops;
    for (int i = 0; i < KINDS; i++)
        ret->seconds[i] = bench_median(t[i], (size_t)rounds);
    ret->stream = bench_median(stream, (size_t)rounds);
    ret->separate = bench_median(separate, (size_t)rounds);
    ret->extra = bench_median(extra, (size_t)rounds);
    ret->floor_stream = floor_of(row, size);
    ret->low = ret->stream < ret->floor_stream;
}

/* ---- output -------------------------------------------------------------- */

static void print_head(size_t size)
{
    printf("\n%zu elements\n%-24s %6s %8s %7s %8s %-12s %7s %6s %10s\n", size, "rule",
           "B/par", "ns/elem", "GB/s", "x stream", "which is", "x apart", "loops",
           "telemetry");
}

static const char *const way_names[BENCH_WAYS] = {"plain", "asked", "past",
                                                  "past, asked"};

static const char *row_name(const struct row *row, char *text, size_t room)
{
    (void)snprintf(text, room, "%s%s", row->rule->name, row->whole ? " (whole)" : "");
    return text;
}

static void print_result(const struct result *r)
{
    char name[40];
    char apart[32] = "     -      -"; /* no such loops: not compared */

    if (r->loops)
        snprintf(apart, sizeof apart, "%6.2f %6d", r->separate, r->loops);
    printf("%-24s %6u %8.3f %7.1f %8.2f%c %-11s %s %+9.1f%%\n",
           row_name(&r->row, name, sizeof name), r->bytes, r->seconds[APPLY] * 1e9,
           r->bytes * 1e-9 / r->seconds[APPLY], r->stream, r->low ? '!' : ' ',
           way_names[r->way], apart, 100.0 * r->extra);
    fflush(stdout);
}

/* NULL where the rule is not compared with separate loops: the key is left out. */
static json_t *json_apart(const struct result *r, double value)
{
    return r->loops ? json_real(value) : NULL;
}

static json_t *json_of(const struct result *r)
{
    return json_pack("{s:s,s:b,s:s,s:I,s:i,s:i,s:f,s:f,s:o*,s:f,s:f,s:o*,s:f,s:f}",
                     "rule", r->row.rule->name, "whole", (int)r->row.whole, "stream",
                     way_names[r->way], "elements", (json_int_t)r->size, "rounds",
                     r->rounds, "bytes_per_element", (int)r->bytes, "ns_per_element",
                     r->seconds[APPLY] * 1e9, "stream_ns", r->seconds[STREAM] * 1e9,
                     "separate_ns", json_apart(r, r->seconds[SEPARATE] * 1e9),
                     "telemetry_ns", r->seconds[APPLY_GAP] * 1e9, "of_stream",
                     r->stream, "times_separate", json_apart(r, r->separate),
                     "telemetry_cost", r->extra, "floor", r->floor_stream);
}

static json_t *json_of_matrix(const struct bench_matrix *m)
{
    return json_pack("{s:i,s:i,s:f,s:f,s:f,s:f}", "rows", (int)m->rows, "cols",
                     (int)m->cols, "passes_s", m->passes_s, "products_s", m->turn_s,
                     "gemm_s", m->gemm_s, "operations", m->work);
}

static int write_json(const char *path, const struct result *results, int count,
                      const struct bench_matrix *matrices, int matrices_count)
{
    json_t *root = json_pack("{s:s,s:s}", "benchmark", "rules", "statistic",
                             "median over rounds of medians over samples");
    json_t *rows = json_array();

    bench_machine(root);
    for (int i = 0; i < count; i++)
        (void)json_array_append_new(rows, json_of(&results[i]));
    (void)json_object_set_new(root, "results", rows);
    rows = json_array();
    for (int i = 0; i < matrices_count; i++)
        (void)json_array_append_new(rows, json_of_matrix(&matrices[i]));
    if (matrices_count > 0)
        (void)json_object_set_new(root, "matrices", json_incref(rows));
    json_decref(rows);
    return bench_write_json("bench rules", path, root) ? 0 : 1;
}

/* ---- all of it ----------------------------------------------------------- */

/* Of RULE_MATRIX rules the pass over what is no matrix is another rule's. */
static bool measured(const struct bench_rules_config *config, int rule)
{
    return bench_has(config->rules, rule) && !(rules[rule].flags & RULE_MATRIX);
}

/* One, or two where the gate may be one of the whole gradient, which is Adam's default. */
static int rows_of(const struct rule *rule)
{
    return (rule->flags & RULE_BLOCK) && (rule->flags & RULE_ADAM) ? 2 : 1;
}

static int chosen_count(const struct bench_rules_config *config)
{
    int ret = 0;
    for (int i = 0; i < rules_count; i++)
        if (measured(config, i))
            ret += rows_of(&rules[i]);
    return ret;
}

/* A large vector takes longer for a round. */
static double weight(size_t size)
{
    return size > CACHED_MAX ? 4.0 : size > 128 * 1024 ? 1.5 : 1.0;
}

static int run_size(struct bench *b, const struct bench_rules_config *config,
                    size_t size, double seconds, struct result *ret)
{
    int count = 0;

    if (bench_open(b, size))
        return -1;
    print_head(size);
    for (int i = 0; i < rules_count; i++) {
        for (int j = 0; measured(config, i) && j < rows_of(&rules[i]); j++) {
            const struct row row = {&rules[i], j == 1};
            fprintf(stderr, "\r%-40s\r%s, %zu elements", "", rules[i].name, size);
            measure(b, &row, size, seconds, (int)config->rounds, &ret[count]);
            fprintf(stderr, "\r%-40s\r", "");
            print_result(&ret[count++]);
        }
    }
    bench_close(b);
    return count;
}

static int verdict(const struct result *results, int count)
{
    char name[40];
    int low = 0;
    for (int i = 0; i < count; i++)
        low += results[i].low;
    if (!low) {
        printf("\nall %d at or above their floors\n", count);
        return 0;
    }
    printf("\nbelow the floor (marked !):");
    for (int i = 0; i < count; i++)
        if (results[i].low)
            printf(" %s at %zu (%.2f < %.2f)",
                   row_name(&results[i].row, name, sizeof name), results[i].size,
                   results[i].stream, results[i].floor_stream);
    printf("\n");
    return 1;
}

static bool has_matrices(const struct bench_rules_config *config)
{
    for (int i = 0; i < rules_count; i++)
        if (bench_has(config->rules, i) && (rules[i].flags & RULE_MATRIX))
            return true;
    return false;
}

int bench_rules(const struct bench_rules_config *config)
{
    struct bench_matrix matrices[BENCH_MATRICES];
    int matrices_count = 0;
    struct bench b = {.compute = compute_cpu()};
    double weights = 0.0;
    int count = 0, status;

    b.passes = bench_passes_find(b.compute->name);
    if (!b.passes) {
        fprintf(stderr, "bench rules: no streams for %s in this build\n",
                b.compute->name);
        return 1;
    }
    struct result *results =
        calloc((size_t)config->sizes.count * 2 * (size_t)rules_count, sizeof *results);
    if (!results)
        return 1;
    printf("%s, one thread; ratios are medians over rounds, above 1 is better\n",
           b.compute->name);
    for (uint32_t i = 0; i < config->sizes.count; i++)
        weights += weight(config->sizes.at[i]);
    for (uint32_t i = 0;
         i < config->sizes.count && count >= 0 && chosen_count(config) > 0; i++) {
        double seconds = config->seconds * weight(config->sizes.at[i]) / weights;
        int more = run_size(&b, config, config->sizes.at[i],
                            seconds / chosen_count(config), results + count);
        count = more < 0 ? -1 : count + more;
    }
    if (has_matrices(config))
        matrices_count = bench_matrices(b.compute, config->seconds, matrices);
    status = 1;
    if (count >= 0) {
        status = verdict(results, count) && config->check;
        if (config->json &&
            write_json(config->json, results, count, matrices, matrices_count))
            status = 1;
    }
    free(results);
    return status;
}
