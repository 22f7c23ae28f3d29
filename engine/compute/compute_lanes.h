/* Sums over an array with the same bits on every instruction set and on a GPU.
 *
 * Element i always goes to lane i % 16, whatever the width of the machine: a chunk of
 * 16 elements is 1 vector of 16 lanes, 2 of 8 or 4 of 4, and 4 threads of a GPU.
 *
 *   span        64 stretches
 *   |---------------------------------------------------------------- ...
 *   stretch     64 chunks, 1,024 elements
 *   |--------------|--------------|--------------|
 *   chunk       16 elements, one of each lane
 *   |-|-|-|-|-|-|-|
 *
 * Counted from the start of the array, or from the chunk a block starts in. Within a
 * stretch each lane adds its 64 terms one after another:
 *
 *   telemetry, block measures   in float: relative error below 64 half-ulps
 *   what a gate of the whole    in float over 4 chunks, and those sums in double: below
 *   vector is made of           4 half-ulps, not worse than the rounding of what is
 *                               squared; converting every chunk would take longer than
 *                               the rest of the loop
 *   norms                       the squares in double
 *
 * From there on in double: the sum of a stretch is added to that of its span, the sum
 * of a span to that of its lane, and the lanes in order, lane 0 first. So a GPU, which
 * works on all stretches at once, is left with few sums that wait for each other.
 */
#ifndef GAPLESS_COMPUTE_LANES_H
#define GAPLESS_COMPUTE_LANES_H

#include "engine/compute/compute.h"
#include "engine/rules/element.h"

enum {
    LANES = SUM_LANES,
    WIDTH = (int)(sizeof(real) / sizeof(number)),
    PARTS = LANES / WIDTH, /* vectors in a chunk */
    CHUNKS_EXACT = SUM_EXACT,
    CHUNKS_FLUSH = SUM_STRETCH,
    CHUNKS_SPAN = SUM_STRETCH * SUM_SPAN
};

/* One chunk of an array; also 16 sums. */
struct chunk {
    real part[PARTS];
};

RULE_FN real lanes_load(const number *from)
{
    return *(const real *)(const void *)from;
}

RULE_FN void lanes_store(number *to, real x)
{
    *(real *)(void *)to = x;
}

/* Past the caches, to memory, where the processor can; others see it after
 * stores_past_done. */
RULE_FN void lanes_store_past(number *to, real x)
{
#if defined(GAPLESS_REAL_DOUBLE)
    *to = x;
#elif defined(__AVX512F__)
    _mm512_stream_ps(to, (__m512)x);
#elif defined(__AVX__)
    _mm256_stream_ps(to, (__m256)x);
#elif defined(__SSE2__)
    _mm_stream_ps(to, (__m128)x);
#else
    lanes_store(to, x);
#endif
}

RULE_FN void stores_past_done(void)
{
#if !defined(GAPLESS_REAL_DOUBLE) && defined(__SSE2__)
    _mm_sfence();
#endif
}

RULE_FN struct chunk chunk_zero(void)
{
    struct chunk ret;
    for (int p = 0; p < PARTS; p++)
        ret.part[p] = real_zero();
    return ret;
}

/* Half a vector of floats is a whole vector of doubles. */
#if defined(GAPLESS_REAL_DOUBLE)
enum {
    WIDES = 1
};
typedef double wide;
RULE_FN void widen(real x, wide ret[WIDES])
{
    ret[0] = x;
}
#else
enum {
    WIDES = 2
};
typedef double wide __attribute__((vector_size(REAL_BYTES), may_alias));
RULE_FN void widen(real x, wide ret[WIDES])
{
#if defined(__AVX512F__)
    ret[0] = __builtin_convertvector(
        __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7), wide);
    ret[1] = __builtin_convertvector(
        __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15), wide);
#elif defined(__AVX__)
    ret[0] = __builtin_convertvector(__builtin_shufflevector(x, x, 0, 1, 2, 3), wide);
    ret[1] = __builtin_convertvector(__builtin_shufflevector(x, x, 4, 5, 6, 7), wide);
#else
    ret[0] = (wide){(double)x[0], (double)x[1]};
    ret[1] = (wide){(double)x[2], (double)x[3]};
#endif
}
#endif

struct lanes {
    wide at[PARTS][WIDES];
};

RULE_FN struct lanes lanes_zero(void)
{
    struct lanes ret;
    for (int p = 0; p < PARTS; p++)
        for (int w = 0; w < WIDES; w++)
            ret.at[p][w] = (wide){0};
    return ret;
}

RULE_FN void lanes_add(struct lanes *sum, int part, real x)
{
    wide half[WIDES];
    widen(x, half);
    for (int w = 0; w < WIDES; w++)
        sum->at[part][w] += half[w];
}

RULE_FN void lanes_add_square(struct lanes *sum, int part, real x)
{
    wide half[WIDES];
    widen(x, half);
    for (int w = 0; w < WIDES; w++)
        sum->at[part][w] += half[w] * half[w];
}

/* sum += *from; *from = 0 */
RULE_FN void lanes_flush(struct lanes *sum, struct chunk *from)
{
    for (int p = 0; p < PARTS; p++)
        lanes_add(sum, p, from->part[p]);
    *from = chunk_zero();
}

RULE_FN double lanes_total(const struct lanes *sum)
{
    double lane[LANES], total = 0.0;
    __builtin_memcpy(lane, sum, sizeof lane);
    for (int i = 0; i < LANES; i++)
        total += lane[i];
    return total;
}

/* sum += *from; *from = 0 */
RULE_FN void lanes_move(struct lanes *sum, struct lanes *from)
{
    for (int p = 0; p < PARTS; p++)
        for (int w = 0; w < WIDES; w++)
            sum->at[p][w] += from->at[p][w];
    *from = lanes_zero();
}

/* 16 sums, over stretches and spans. */
struct spans {
    struct lanes span; /* of the last stretches */
    struct lanes all;  /* of the spans before */
};

RULE_FN struct spans spans_zero(void)
{
    struct spans ret = {lanes_zero(), lanes_zero()};
    return ret;
}

/* `chunks` have been added up, or what is to be added is at its end. */
RULE_FN void spans_reach(struct spans *sum, size_t chunks)
{
    if (chunks % CHUNKS_SPAN == 0)
        lanes_move(&sum->all, &sum->span);
}

RULE_FN double spans_total(struct spans *sum)
{
    lanes_move(&sum->all, &sum->span);
    return lanes_total(&sum->all);
}

_Static_assert(sizeof(struct lanes) == LANES * sizeof(double), "16 lanes in order");

#endif
