/* A bed for tests of kernels: the same numbers in arrays for the CPU, padded and
 * aligned as compute.h wants them, and for the kernels: exactly as long as they are and
 * at any alignment. What comes out is compared to the bit; a number that is none is
 * equal to any other such. */
#ifndef GAPLESS_TESTS_KERNELS_BED_H
#define GAPLESS_TESTS_KERNELS_BED_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "cuemu.h"
#include "engine/compute/compute.h"
#include "engine/device/device.h"
#include "engine/rules/element.h"
#include "engine/rules/rules.h"
#include "gpu/kernels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#define BED_ASAN 1
#elif defined(__SANITIZE_THREAD__)
#define BED_TSAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define BED_ASAN 1
#elif __has_feature(thread_sanitizer)
#define BED_TSAN 1
#endif
#endif

/* How much a test does: all of it, or under a sanitizer one case in BED_PART; few, and
 * short, where a thread costs as much as under TSan. */
#if defined(BED_TSAN)
enum {
    BED_PART = 20,
    BED_FEW = 1
};
#elif defined(BED_ASAN)
enum {
    BED_PART = 3,
    BED_FEW = 0
};
#else
enum {
    BED_PART = 1,
    BED_FEW = 0
};
#endif

enum {
    BED_SHARED = 4, /* theta, all, stat, square */
    BED_EACH = 3,   /* own, sent, grad of each */
    BED_ARRAYS = BED_SHARED + BED_EACH * (int)DEVICE_QUEUE,
    BED_OWN = BED_SHARED,
    BED_SENT = BED_SHARED + 1,
    BED_GRAD = BED_SHARED + 2, /* of the first */
    BED_CHUNKS = 1 << 16
};

/* Where weight decay applies, on both sides: a word of chance for each chunk of 16. */
static uint16_t bed_decays[BED_CHUNKS];

struct bed {
    size_t n, padded;
    int arrays; /* in use */
    float *cpu[BED_ARRAYS];
    float *gpu[BED_ARRAYS], *memory[BED_ARRAYS];
    struct device_result result[DEVICE_QUEUE];
    struct kernel_place place;
    uint64_t chance;
    bool wide; /* see bed_number */
};

static inline uint64_t bed_draw(struct bed *bed, uint64_t below)
{
    bed->chance = bed->chance * 6364136223846793005ull + 1442695040888963407ull;
    return (bed->chance >> 33) % below;
}

/* Of many sizes, and of both signs. wide: of so many that sums in double round. */
static inline float bed_number(struct bed *bed)
{
    double x = (double)bed_draw(bed, 1u << 24) / (1 << 24) - 0.5;
    double size =
        bed->wide ? (double)bed_draw(bed, 50) - 25.0 : (double)bed_draw(bed, 12) - 8.0;
    return (float)(x * exp2(size));
}

static inline float bed_special(struct bed *bed)
{
    static const float some[] = {INFINITY, -INFINITY, NAN,      1e-40f, -1e-44f,
                                 -0.0f,    3e38f,     -3.4e38f, 1e-38f, 0.0f};
    return some[bed_draw(bed, sizeof some / sizeof *some)];
}

static inline void *bed_take(size_t alignment, size_t bytes)
{
    void *ret = aligned_alloc(alignment, (bytes / alignment + 1) * alignment);
    assert_non_null(ret);
    memset(ret, 0, bytes);
    return ret;
}

/* Arrays for `count` gradients. misaligned: pointers of the kernels' arrays start
 * anywhere. special: one number in 40 is odd. */
static inline void bed_fill(struct bed *bed, size_t n, uint32_t count, uint64_t seed,
                            bool misaligned, bool special)
{
    bed->chance = seed * 2654435761u + 1;
    bed->n = n;
    bed->padded = (n + 15) / 16 * 16;
    bed->arrays = BED_SHARED + BED_EACH * (int)count;
    assert_true(bed->padded / 16 <= BED_CHUNKS);
    for (size_t c = 0; c < bed->padded / 16; c++)
        bed_decays[c] = c % 4 == 0 ? 0xffff : (uint16_t)bed_draw(bed, 0x10000);
    for (int a = 0; a < bed->arrays; a++) {
        size_t shift = misaligned ? bed_draw(bed, 4) : 0;
        bed->cpu[a] = bed_take(64, (bed->padded + 16) * sizeof(float));
        /* malloc'ed memory is aligned to 16; the end is exact, for ASan */
        bed->memory[a] = malloc((n + shift) * sizeof(float));
        assert_non_null(bed->memory[a]);
        bed->gpu[a] = bed->memory[a] + shift;
        for (size_t i = 0; i < n; i++) {
            float x = bed_number(bed);
            if (a == 2 || a == 3) /* a mean of squares */
                x *= x;
            if (special && bed_draw(bed, 40) == 0)
                x = bed_special(bed);
            bed->cpu[a][i] = bed->gpu[a][i] = x;
        }
    }
    memset(bed->result, 0xA5, sizeof bed->result);
}

static inline void bed_empty(struct bed *bed)
{
    for (int a = 0; a < bed->arrays; a++) {
        free(bed->cpu[a]);
        free(bed->memory[a]);
        bed->cpu[a] = bed->memory[a] = NULL;
    }
}

/* The arrays of gradient q. */
static inline struct arrays bed_arrays(float *const *of, uint32_t q)
{
    float *const *each = of + BED_SHARED + (size_t)q * BED_EACH;
    struct arrays ret = {.theta = of[0],
                         .own = each[0],
                         .all = of[1],
                         .stat = of[2],
                         .sent = each[1],
                         .grad = each[2],
                         .square = of[3],
                         .decays = bed_decays};
    return ret;
}

static inline void bed_open(struct bed *bed, size_t n_max, uint32_t blocks_max)
{
    memset(bed, 0, sizeof *bed);
    assert_int_equal(
        cudaStreamCreateWithFlags(&bed->place.stream, cudaStreamNonBlocking), 0);
    bed->place.scratch = bed_take(256, kernel_scratch_bytes(n_max, blocks_max));
    bed->place.processors = 1;
}

static inline void bed_close(struct bed *bed)
{
    assert_int_equal(cudaStreamDestroy(bed->place.stream), 0);
    free(bed->place.scratch);
    memset(bed, 0, sizeof *bed);
}

/* Grid and order of threads, another for each case. Under TSan a block of threads costs
 * much, so there are few. */
static inline void bed_order(struct bed *bed, uint64_t seed)
{
    static const uint32_t processors[] = {132, 1, 2, 5};
    bool ordered = seed % 2 == 0;
    bed->place.processors = BED_FEW ? 1 : processors[seed / 2 % 4];
    cuemu_order(ordered ? 0 : seed, ordered ? 0 : (unsigned)(seed % 3 * 20));
}

static inline void bed_wait(struct bed *bed, cudaError_t code)
{
    assert_int_equal(code, cudaSuccess);
    assert_int_equal(cudaStreamSynchronize(bed->place.stream), cudaSuccess);
}

static inline bool bed_same(const void *a, const void *b, size_t bytes)
{
    return memcmp(a, b, bytes) == 0;
}

static inline bool bed_same_double(double a, double b)
{
    return bed_same(&a, &b, sizeof a) || (isnan(a) && isnan(b));
}

/* Fails, with `what`, at the first element of all arrays that differs. */
static inline void bed_compare(const struct bed *bed, const char *what)
{
    static const char *const names[] = {"theta", "all", "stat", "square"};
    static const char *const each[] = {"own", "sent", "grad"};

    for (int a = 0; a < bed->arrays; a++) {
        if (bed_same(bed->cpu[a], bed->gpu[a], bed->n * sizeof(float)))
            continue;
        for (size_t i = 0; i < bed->n; i++) {
            float cpu = bed->cpu[a][i], gpu = bed->gpu[a][i];
            if (bed_same(&cpu, &gpu, sizeof cpu) || (isnan(cpu) && isnan(gpu)))
                continue;
            fail_msg("%s: %s %d, element %zu of %zu: %.9g on the CPU, %.9g here", what,
                     a < BED_SHARED ? names[a] : each[(a - BED_SHARED) % BED_EACH],
                     a < BED_SHARED ? 0 : (a - BED_SHARED) / BED_EACH, i, bed->n,
                     (double)cpu, (double)gpu);
        }
    }
}

static inline void bed_compare_double(double cpu, double gpu, const char *what,
                                      const char *name)
{
    if (!bed_same_double(cpu, gpu))
        fail_msg("%s: %s is %.17g on the CPU, %.17g here", what, name, cpu, gpu);
}

static inline void bed_compare_sums(const struct sums *cpu, const struct sums *gpu,
                                    const char *what)
{
    bed_compare_double(cpu->gap_sq, gpu->gap_sq, what, "gap_sq");
    bed_compare_double(cpu->step_sq, gpu->step_sq, what, "step_sq");
    bed_compare_double(cpu->gate_sum, gpu->gate_sum, what, "gate_sum");
}

/* The instruction sets of this machine in turn. */
static inline const struct compute *bed_cpu(uint64_t which)
{
    const struct compute *const *all = compute_cpu_all();
    uint64_t count = 0;
    do
        count++;
    while (all[count]);
    return all[which % count];
}

/* kind: bit 0: the worker's own look-ahead is the reference; bit 1: a first update,
 * alone and without lag. Each gradient of a queue has other numbers. */
static inline struct step_scalars bed_scalars(const struct rule *rule, unsigned kind,
                                              uint32_t q)
{
    struct settings settings = {
        .momentum = 0.9, .rate_max = 0.1, .kappa = 0.02, .elastic = 0.3, .decay = 0.1};
    struct step_context context = {
        .rate = 0.05 + 0.01 * q, .lag = 7 + q, .active = 8, .samples = 30 + q};
    struct step_scalars ret;

    settings.gap_ref = kind & 1 ? GAP_REF_OWN_LOOKAHEAD : GAP_REF_SENT;
    context.global_gap = 0.3;
    context.global_stat = 0.2;
    context.history =
        (struct step_history){0.04, 30 + q, 0.8, 0.3 + 0.01 * q, 0.5, 0.4, q % 3u, 3};
    context.own_updates = 4 + q;
    if (kind & 2) {
        context.lag = context.samples = context.own_updates = 0;
        context.history = (struct step_history){0};
        context.active = 1;
    }
    settings_default(&settings);
    rules_step_scalars(rule, &settings, &context, &ret);
    return ret;
}

#endif
