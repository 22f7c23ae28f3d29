/* The sampler's promise, that every sample is seen once an epoch, and the generator and
 * portable functions under it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/base/portable.h"
#include "engine/base/rng.h"
#include "cluster/workloads/sampler.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static struct sampler sampler_of(uint32_t samples, uint32_t batch, uint64_t seed)
{
    struct sampler ret;
    struct gapless_error error;

    assert_int_equal(sampler_init(samples, batch, seed, &ret, &error), GAPLESS_OK);
    return ret;
}

/* The whole epoch in order; the caller frees it. */
static uint32_t *epoch_of(const struct sampler *s, uint64_t epoch)
{
    uint64_t batches = sampler_batches_per_epoch(s);
    uint32_t *ret = malloc(s->samples * sizeof *ret), count, used = 0;
    uint32_t *room = malloc(s->batch * sizeof *room);

    assert_non_null(ret);
    assert_non_null(room);
    for (uint64_t b = 0; b < batches; b++) {
        sampler_batch(s, epoch * batches + b, room, &count);
        assert_int_equal(count, b + 1 < batches ? s->batch : s->samples - used);
        assert_true(count >= 1);
        memcpy(ret + used, room, count * sizeof *ret);
        used += count;
    }
    assert_int_equal(used, s->samples);
    free(room);
    return ret;
}

static void every_epoch_is_a_permutation(void **state)
{
    static const uint32_t sizes[] = {1,   2,   3,   4,    5,     7,     16,   17,
                                     100, 255, 256, 1000, 16385, 60000, 65536};
    static const uint32_t batches[] = {1, 3, 32, 100000};

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (size_t j = 0; j < sizeof batches / sizeof batches[0]; j++) {
            struct sampler s = sampler_of(sizes[i], batches[j], i + j);
            uint8_t *seen = malloc(sizes[i]);

            assert_non_null(seen);
            assert_int_equal(sampler_batches_per_epoch(&s),
                             (sizes[i] + batches[j] - 1) / batches[j]);
            for (uint64_t epoch = 0; epoch < 3; epoch++) {
                uint32_t *order = epoch_of(&s, epoch);

                memset(seen, 0, sizes[i]);
                for (uint32_t k = 0; k < sizes[i]; k++) {
                    assert_true(order[k] < sizes[i]);
                    assert_int_equal(seen[order[k]], 0);
                    seen[order[k]] = 1;
                }
                free(order);
            }
            free(seen);
        }
    }
}

static void any_ticket_in_any_order(void **state)
{
    struct sampler s = sampler_of(1003, 10, 5), copy = sampler_of(1003, 10, 5);
    struct rng r = rng_seed(1, 1);
    uint32_t *orders[4], indices[10], count;

    (void)state;
    assert_int_equal(sampler_batches_per_epoch(&s), 101);
    for (uint64_t e = 0; e < 4; e++)
        orders[e] = epoch_of(&s, e);
    for (int i = 0; i < 2000; i++) {
        uint64_t ticket = rng_below(&r, 404);

        sampler_batch(&copy, ticket, indices, &count);
        assert_int_equal(sampler_epoch(&copy, ticket), ticket / 101);
        assert_int_equal(count, ticket % 101 == 100 ? 3 : 10);
        assert_memory_equal(indices, orders[ticket / 101] + ticket % 101 * 10,
                            count * sizeof *indices);
    }
    for (int e = 0; e < 4; e++)
        free(orders[e]);
}

static uint32_t equal_places(const uint32_t *a, const uint32_t *b, uint32_t n)
{
    uint32_t ret = 0;

    for (uint32_t i = 0; i < n; i++)
        ret += a[i] == b[i];
    return ret;
}

/* Two random permutations agree in one place on average; 15 would be a miracle. */
static void epochs_and_seeds_differ(void **state)
{
    enum {
        N = 60000,
        ORDERS = 8
    };
    uint32_t *orders[ORDERS], *identity = malloc(N * sizeof *identity);

    (void)state;
    assert_non_null(identity);
    for (uint32_t i = 0; i < N; i++)
        identity[i] = i;
    for (int i = 0; i < ORDERS; i++) {
        struct sampler s = sampler_of(N, 32, (uint64_t)i / 4);

        orders[i] = epoch_of(&s, (uint64_t)i % 4);
        assert_true(equal_places(orders[i], identity, N) < 15);
        for (int j = 0; j < i; j++)
            assert_true(equal_places(orders[i], orders[j], N) < 15);
    }
    for (int i = 0; i < ORDERS; i++)
        free(orders[i]);
    free(identity);
}

/* Neighbours in time are not neighbours in the file, and early places get all parts. */
static void order_is_unrelated_to_index(void **state)
{
    enum {
        N = 60000
    };
    struct sampler s = sampler_of(N, 32, 9);
    uint32_t *order = epoch_of(&s, 7);
    double centre = (N - 1) / 2.0, variance = ((double)N * N - 1) / 12.0;
    double with_place = 0.0, with_next = 0.0;

    (void)state;
    for (uint32_t i = 0; i < N; i++)
        with_place += (order[i] - centre) * (i - centre) / variance / N;
    for (uint32_t i = 0; i + 1 < N; i++)
        with_next += (order[i] - centre) * (order[i + 1] - centre) / variance / N;
    /* a correlation of unrelated numbers has deviation 1 / sqrt(N) = 0.004 */
    assert_true(fabs(with_place) < 0.02);
    assert_true(fabs(with_next) < 0.02);
    free(order);
}

/* Over many epochs every sample is equally often in every place, and after every other:
 * chi-square, whose mean is `cells` and deviation sqrt(2 * cells), within 6. */
static void places_are_uniform(void **state)
{
    enum {
        N = 11,
        EPOCHS = 22000
    };
    static uint32_t place[N][N], after[N][N];
    struct sampler s = sampler_of(N, N, 3);
    double chi_place = 0.0, chi_after = 0.0;
    double expected = (double)EPOCHS / N;

    (void)state;
    for (uint64_t e = 0; e < EPOCHS; e++) {
        uint32_t order[N], count;

        sampler_batch(&s, e, order, &count);
        for (uint32_t i = 0; i < N; i++) {
            place[i][order[i]]++;
            if (i > 0)
                after[order[i - 1]][order[i]]++;
        }
    }
    for (int i = 0; i < N; i++) {
        for (int j = 0; j < N; j++) {
            chi_place += pow(place[i][j] - expected, 2) / expected;
            if (i != j)
                chi_after += pow(after[i][j] - expected, 2) / expected;
        }
    }
    assert_true(chi_place < 100 + 6 * sqrt(200.0) && chi_place > 100 - 6 * sqrt(200.0));
    assert_true(chi_after < 110 + 6 * sqrt(220.0));
}

/* All processes on all machines must agree: these numbers may change only on
 * purpose. */
static void golden_batches(void **state)
{
    static const uint32_t first[4] = {860, 35338, 1471, 31787},
                          far[4] = {5081, 35690, 6169, 26193};
    struct sampler s = sampler_of(60000, 4, 1);
    uint32_t indices[4], count;

    (void)state;
    sampler_batch(&s, 0, indices, &count);
    assert_memory_equal(indices, first, sizeof first);
    sampler_batch(&s, UINT64_C(1000000007), indices, &count);
    assert_memory_equal(indices, far, sizeof far);
}

static void extremes(void **state)
{
    struct sampler s = sampler_of(UINT32_MAX, 7, 1);
    uint32_t indices[7], count;

    (void)state;
    sampler_batch(&s, UINT64_MAX, indices, &count);
    assert_true(count >= 1 && count <= 7);
    sampler_batch(&s, sampler_batches_per_epoch(&s) - 1, indices, &count);
    assert_int_equal(count, UINT32_MAX % 7);
    for (uint32_t i = 0; i < count; i++)
        assert_true(indices[i] < UINT32_MAX);
    s = sampler_of(5, UINT32_MAX, 1);
    assert_int_equal(sampler_batches_per_epoch(&s), 1);
    sampler_batch(&s, 3, indices, &count);
    assert_int_equal(count, 5);
}

static void nothing_to_sample(void **state)
{
    struct sampler s = {.samples = 77};
    struct gapless_error error;

    (void)state;
    assert_int_equal(sampler_init(0, 1, 0, &s, &error), GAPLESS_INVALID);
    assert_non_null(strstr(error.text, "no samples"));
    assert_int_equal(sampler_init(1, 0, 0, &s, &error), GAPLESS_INVALID);
    assert_non_null(strstr(error.text, "batch size"));
    assert_int_equal(s.samples, 77);
}

/* The published first outputs of both generators. */
static void rng_known_answers(void **state)
{
    struct rng r = {.state = {1, 2, 3, 4}};
    uint64_t split = 1234567;

    (void)state;
    assert_true(rng_u64(&r) == 11520);
    assert_true(rng_u64(&r) == 0);
    assert_true(rng_u64(&r) == 1509978240);
    assert_true(rng_u64(&r) == UINT64_C(1215971899390074240));
    assert_true(rng_split(&split) == UINT64_C(6457827717110365317));
    assert_true(rng_split(&split) == UINT64_C(3203168211198807973));
}

static void rng_moments(void **state)
{
    enum {
        N = 200000
    };
    struct rng r = rng_seed(3, 0), other = rng_seed(3, 1);
    double sum = 0.0, squares = 0.0, fourths = 0.0, product = 0.0;
    uint32_t counts[6] = {0};

    (void)state;
    for (int i = 0; i < N; i++) {
        double x = rng_normal(&r), y = rng_normal(&other);

        sum += x;
        squares += x * x;
        fourths += x * x * x * x;
        product += x * y;
        counts[rng_below(&r, 6)]++;
    }
    assert_true(fabs(sum / N) < 0.01);
    assert_true(fabs(squares / N - 1.0) < 0.02);
    assert_true(fabs(fourths / N - 3.0) < 0.15);
    assert_true(fabs(product / N) < 0.01);
    for (int i = 0; i < 6; i++)
        assert_true(fabs(counts[i] - N / 6.0) < 800); /* 5 deviations */
}

/* A bound of three quarters of 2^64: a plain remainder would favour its first third. */
static void rng_below_is_unbiased(void **state)
{
    enum {
        N = 20000
    };
    const uint64_t bound = UINT64_C(3) << 62;
    struct rng r = rng_seed(6, 0);
    double mean = 0.0;

    (void)state;
    for (int i = 0; i < N; i++) {
        uint64_t x = rng_below(&r, bound);

        assert_true(x < bound);
        mean += (double)x / (double)bound / N;
    }
    assert_true(fabs(mean - 0.5) < 0.015); /* 0.417 if biased */
    assert_int_equal(rng_below(&r, 1), 0);
}

static void portable_functions_are_accurate(void **state)
{
    struct rng r = rng_seed(4, 0);

    (void)state;
    for (int i = 0; i < 200000; i++) {
        double x = (rng_unit(&r) - 0.5) * (i % 2 == 0 ? 2.0 : 1300.0);
        double y = ldexp(rng_unit(&r) + 0x1p-60, (int)rng_below(&r, 2000) - 1000);
        double z = 1.0 + (rng_unit(&r) - 0.5) * 1e-3;

        assert_true(fabs(portable_exp(x) / exp(x) - 1.0) < 8e-16);
        assert_true(fabs(portable_log(y) - log(y)) <= 8e-16 * fabs(log(y)));
        assert_true(fabs(portable_log(z) - log(z)) <= 8e-16 * fabs(log(z)));
    }
    assert_true(portable_exp(0.0) == 1.0 && portable_log(1.0) == 0.0);
    assert_true(portable_exp(-1e300) == 0.0 && isinf(portable_exp(1e300)));
    assert_true(portable_exp((double)-INFINITY) == 0.0);
    assert_true(isnan(portable_exp((double)NAN)) && isnan(portable_log((double)NAN)));
    assert_true(isnan(portable_log(0.0)) && isnan(portable_log(-1.0)));
    assert_true(isnan(portable_log((double)INFINITY)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_epoch_is_a_permutation),
        cmocka_unit_test(any_ticket_in_any_order),
        cmocka_unit_test(epochs_and_seeds_differ),
        cmocka_unit_test(order_is_unrelated_to_index),
        cmocka_unit_test(places_are_uniform),
        cmocka_unit_test(golden_batches),
        cmocka_unit_test(extremes),
        cmocka_unit_test(nothing_to_sample),
        cmocka_unit_test(rng_known_answers),
        cmocka_unit_test(rng_moments),
        cmocka_unit_test(rng_below_is_unbiased),
        cmocka_unit_test(portable_functions_are_accurate),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
