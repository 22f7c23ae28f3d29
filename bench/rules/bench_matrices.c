/* Matrices: passes, products, and the products alone, in turns. What is shown are medians
 * over rounds, of the processor's time. */
#include "bench/bench.h"
#include "bench/rules/bench_matrices.h"

#include "engine/base/array.h"
#include "engine/base/clock.h"
#include "engine/compute/matrices.h"
#include "engine/rules/rules.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ROUNDS_LEAST = 3,
    ROUNDS_MOST = 30,
    VECTORS = 6
};

/* Of a small perceptron's first layer, to a language model's feed-forward layer. */
static const uint32_t sizes[BENCH_MATRICES][2] = {
    {64, 784}, {256, 256}, {256, 1024}, {1024, 1024}, {1024, 4096}};

struct bed {
    const struct compute *compute;
    struct matrix_scratch *scratch;
    number *memory, *side[2], *wide;
    size_t n; /* of a vector, padded */
    struct arrays at;
    struct step_scalars scalars;
};

/* Of the processor: products take longer than a scheduler's slice. */
static double thread_seconds(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static void bed_close(struct bed *b)
{
    matrix_scratch_free(b->scratch);
    free(b->memory);
    free(b->side[0]);
    free(b->side[1]);
    free(b->wide);
}

static bool bed_open(struct bed *b, const struct compute *compute, uint32_t rows,
                     uint32_t cols)
{
    size_t elements = (size_t)rows * cols, side = u32_least(rows, cols);

    *b = (struct bed){.compute = compute,
                      .n = size_round_up(elements, SUM_LANES),
                      .scratch = matrix_scratch_new(elements, side)};
    b->memory = array_zeroed(ARRAY_LINE, VECTORS * b->n * sizeof(number));
    b->side[0] = array_zeroed(ARRAY_LINE, side * side * sizeof(number));
    b->side[1] = array_zeroed(ARRAY_LINE, side * side * sizeof(number));
    b->wide = array_zeroed(ARRAY_LINE, elements * sizeof(number));
    if (b->scratch == NULL || b->memory == NULL || b->side[0] == NULL ||
        b->side[1] == NULL || b->wide == NULL) {
        bed_close(b);
        return false;
    }
    for (size_t i = 0; i < VECTORS * b->n; i++)
        b->memory[i] = (number)(0.01 * (double)(i * 7919 % 101) - 0.5);
    b->at = (struct arrays){.theta = b->memory,
                            .own = b->memory + b->n,
                            .all = b->memory + 2 * b->n,
                            .sent = b->memory + 3 * b->n,
                            .grad = b->memory + 4 * b->n,
                            .mean = b->memory + 5 * b->n,
                            .turned = matrix_input(b->scratch)};
    b->scalars = (struct step_scalars){.mu = (scalar)0.95,
                                       .mu_rest = (scalar)0.05,
                                       .matrix_rate = (scalar)1e-6,
                                       .spread = (scalar)matrix_spread(rows, cols),
                                       .gate = 1};
    return true;
}

static double passes_before(const struct bed *b, const struct rule *rule)
{
    double began = thread_seconds();

    b->compute->gather(rule, &b->at, &b->scalars, b->n);
    return thread_seconds() - began;
}

static double turned(const struct bed *b, uint32_t rows, uint32_t cols)
{
    double began = thread_seconds();

    (void)matrix_turn(b->compute, b->scratch, 0, rows, cols);
    return thread_seconds() - began;
}

static double passes_after(const struct bed *b, const struct rule *rule)
{
    double began = thread_seconds();
    struct sums sums;

    b->compute->turn(rule, &b->at, &b->scalars, b->n, 0, &sums);
    return thread_seconds() - began;
}

/* What NS multiplies, and nothing else; of no more rows than columns. */
static double products(const struct bed *b, uint32_t rows, uint32_t cols)
{
    size_t side = u32_least(rows, cols), other = rows < cols ? cols : rows;
    const struct product squared = {.rows = side,
                                    .cols = side,
                                    .inner = other,
                                    .b_transposed = true,
                                    .alpha = 1,
                                    .a = b->at.theta,
                                    .b = b->at.theta,
                                    .c = b->side[0]},
                         fourth = {.rows = side,
                                   .cols = side,
                                   .inner = side,
                                   .alpha = 1,
                                   .a = b->side[0],
                                   .b = b->side[0],
                                   .c = b->side[1]},
                         last = {.rows = side,
                                 .cols = other,
                                 .inner = side,
                                 .alpha = 1,
                                 .a = b->side[1],
                                 .b = b->at.theta,
                                 .c = b->wide};
    double began = thread_seconds();

    for (int i = 0; i < MATRIX_ITERATIONS; i++) {
        products_best(&squared);
        products_best(&fourth);
        products_best(&last);
    }
    return thread_seconds() - began;
}

static void measure(const struct bed *b, double seconds, struct bench_matrix *ret)
{
    const struct rule *rule = rules_find("dana-lga-muon");
    double passes[ROUNDS_MOST], turn[ROUNDS_MOST], gemm[ROUNDS_MOST];
    double started = clock_seconds();
    int rounds = 0;

    (void)products(b, ret->rows, ret->cols); /* the library wakes up */
    while (rounds < ROUNDS_MOST &&
           (rounds < ROUNDS_LEAST || clock_seconds() - started < seconds)) {
        passes[rounds] = passes_before(b, rule);
        turn[rounds] = turned(b, ret->rows, ret->cols);
        passes[rounds] += passes_after(b, rule);
        gemm[rounds++] = products(b, ret->rows, ret->cols);
    }
    ret->passes_s = bench_median(passes, (size_t)rounds);
    ret->turn_s = bench_median(turn, (size_t)rounds);
    ret->gemm_s = bench_median(gemm, (size_t)rounds);
}

int bench_matrices(const struct compute *compute, double seconds,
                   struct bench_matrix ret[BENCH_MATRICES])
{
    double rate = 0; /* operations a second, of the matrix before */
    int count = 0;
    struct bed b;

    printf("\nmatrices, products by %s\n%-12s %10s %10s %9s %9s %8s\n", products_name(),
           "R x C", "passes us", "NS us", "GFLOP/s", "gemm", "of gemm");
    for (int i = 0; i < BENCH_MATRICES; i++) {
        struct bench_matrix *m = &ret[count];
        char name[24];

        *m = (struct bench_matrix){.rows = sizes[i][0], .cols = sizes[i][1]};
        m->work = matrix_work(m->rows, m->cols);
        if (rate > 0 && 2 * ROUNDS_LEAST * m->work > rate * seconds)
            break;
        if (!bed_open(&b, compute, m->rows, m->cols))
            break;
        measure(&b, seconds / BENCH_MATRICES, m);
        bed_close(&b);
        rate = m->work / m->turn_s;
        (void)snprintf(name, sizeof name, "%u x %u", m->rows, m->cols);
        printf("%-12s %10.1f %10.1f %9.1f %9.1f %8.2f\n", name, 1e6 * m->passes_s,
               1e6 * m->turn_s, 1e-9 * m->work / m->turn_s, 1e-9 * m->work / m->gemm_s,
               m->gemm_s / m->turn_s);
        fflush(stdout);
        count++;
    }
    return count;
}
