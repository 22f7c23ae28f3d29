/* The passes over memory, on every instruction set of this machine, with numbers whose
 * sums are exact so that each result is known to the bit. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/compute/compute.h"
#include "engine/rules/element.h"
#include "engine/rules/rules.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    N = 3008,
    BIG = 70000 / 16 * 16
};

static _Alignas(64) number a[N], b[N], c[N], d[N];

static void equal(double x, double y)
{
    if (!(x >= y && x <= y))
        fail_msg("%.17g is not %.17g", x, y);
}

/* Small integers: every sum of up to 2^24 of them is exact in float. */
static void fill(number *x, size_t n, int seed)
{
    for (size_t i = 0; i < n; i++)
        x[i] = (number)((int)((i * 7 + (size_t)seed * 13) % 31) - 15);
}

#define EACH(compute)                                                                  \
    for (const struct compute *const *each = compute_cpu_all(), *compute = *each;      \
         compute; compute = *++each)

static void the_best_comes_first_and_the_environment_chooses(void **state)
{
    const struct compute *const *all = compute_cpu_all();
    int count = 0;
    (void)state;
    while (all[count])
        count++;
    assert_true(count >= 1);
    assert_string_equal(all[count - 1]->name, "cpu-generic");
#if defined(__x86_64__) && !defined(GAPLESS_ISA_ONE)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl"))
        assert_string_equal(all[0]->name, "cpu-avx512");
#endif
    for (int i = 0; i < count; i++) {
        assert_int_equal(setenv("GAPLESS_ISA", all[i]->name + strlen("cpu-"), 1), 0);
        assert_ptr_equal(compute_cpu(), all[i]);
    }
    assert_int_equal(setenv("GAPLESS_ISA", "z80", 1), 0);
    assert_ptr_equal(compute_cpu(), all[0]);
    assert_int_equal(unsetenv("GAPLESS_ISA"), 0);
    assert_ptr_equal(compute_cpu(), all[0]);
}

static void finite_sees_every_element(void **state)
{
    static const number bad[] = {(number)NAN, (number)INFINITY, (number)-INFINITY};
    (void)state;
    EACH(compute)
    {
        fill(a, N, 1);
        a[5] = (number)3e38; /* large is finite */
        a[6] = (number)1e-45;
        assert_true(compute->finite(a, N));
        assert_true(isfinite(compute->norm_sq(a, N)));
        for (size_t i = 0; i < 80; i++) {
            number kept = a[i * 37];
            a[i * 37] = bad[i % 3];
            assert_false(compute->finite(a, N));
            assert_true(!isfinite(compute->norm_sq(a, N)));
            a[i * 37] = kept;
        }
        assert_true(compute->finite(a, 0));
    }
}

static void the_small_passes(void **state)
{
    (void)state;
    EACH(compute)
    {
        double norm = 0.0, decayed = 0.0;
        fill(a, N, 1), fill(b, N, 2), fill(c, N, 3);
        for (int i = 0; i < N; i++)
            norm += (double)a[i] * (double)a[i];
        equal(compute->norm_sq(a, N), norm);
        compute->scale(a, (number)0.5, N);
        equal(compute->norm_sq(a, N), norm / 4.0);
        fill(a, N, 1);
        for (int i = 0; i < N; i++)
            decayed += pow((double)a[i] + 2.0 * (double)b[i], 2.0);
        equal(compute->decay(a, b, (number)2, N), decayed);
        equal((double)a[9], (double)(9 * 7 + 13) - 15 - 62 + 2.0 * (double)b[9]);
        fill(a, N, 1);
        compute->slim(a, c, (number)0.5, N); /* v = v/2 + g; g = v/2 + g */
        for (int i = 0; i < N; i++) {
            double g = (i * 7 + 13) % 31 - 15, v = 0.5 * ((i * 7 + 39) % 31 - 15) + g;
            equal((double)c[i], v);
            equal((double)a[i], 0.5 * v + g);
        }
        fill(a, N, 1), fill(b, N, 2), fill(c, N, 3);
        assert_true(compute->local(a, b, NULL, (number)0.25, 7, N));
        for (int i = 0; i < N; i++)
            equal((double)a[i], (i * 7 + 13) % 31 - 15 - 0.25 * (double)b[i]);
        fill(a, N, 1); /* v = v/2 + g; x = x - (g + v/2)/4 */
        assert_true(compute->local(a, b, c, (number)0.25, (number)0.5, N));
        for (int i = 0; i < N; i++) {
            double v = 0.5 * ((i * 7 + 39) % 31 - 15) + (double)b[i];
            equal((double)c[i], v);
            equal((double)a[i],
                  (i * 7 + 13) % 31 - 15 - 0.25 * ((double)b[i] + 0.5 * v));
        }
        fill(a, N, 1);
        compute->approach(a, b, (number)0.25, N);
        for (int i = 0; i < N; i++) {
            double x = (i * 7 + 13) % 31 - 15;
            equal((double)a[i], x - 0.25 * (x - (double)b[i]));
        }
        for (int i = 0; i < 40; i++) { /* every lane is looked at */
            fill(a, N, 1), fill(b, N, 2), fill(c, N, 3);
            a[i * 37] = (number)3e38, b[i * 37] = (number)-3e38;
            assert_false(
                compute->local(a, b, i % 2 ? c : NULL, (number)0.25, (number)0.5, N));
            fill(a, N, 1), fill(c, N, 3);
            b[i * 37] = (number)NAN;
            assert_false(
                compute->local(a, b, i % 2 ? c : NULL, (number)0.25, (number)0.5, N));
        }
    }
}

/* Lane 0 first: 2^54 swallows each 1 that comes after it, but not 15 of them at
 * once. */
static void lanes_are_added_in_order(void **state)
{
    (void)state;
    EACH(compute)
    {
        for (int i = 0; i < 16; i++)
            a[i] = (number)(i ? 1.0 : 0x1p27);
        equal(compute->norm_sq(a, 16), 0x1p54);
    }
}

static void who_leaves_is_taken_out_of_the_sum(void **state)
{
    const struct rule *dana = rules_find("dana-zero"),
                      *multi = rules_find("multi-asgd");
    (void)state;
    EACH(compute)
    {
        const number *owns[] = {a, b, a, b, b};
        struct arrays at = {.own = a, .all = c};
        fill(a, N, 1), fill(b, N, 2);
        compute->resum(c, owns, 5, N);
        for (int i = 0; i < N; i++)
            equal((double)c[i], 2.0 * (double)a[i] + 3.0 * (double)b[i]);
        compute->forget(dana, &at, N);
        for (int i = 0; i < N; i++) {
            equal((double)c[i], (i * 7 + 13) % 31 - 15 + 3.0 * (double)b[i]);
            equal((double)a[i], 0.0);
        }
        at.own = b, at.all = NULL;
        compute->forget(multi, &at, N);
        equal(compute->norm_sq(b, N), 0.0);
        at.own = NULL;
        compute->forget(rules_find("nag-asgd"), &at, N); /* has none */
        compute->resum(c, owns, 0, N);
        equal(compute->norm_sq(c, N), 0.0);
    }
}

static void look_aheads(void **state)
{
    struct settings settings = {.momentum = 0.5};
    struct step_context context = {.rate = 0.25, .active = 3};
    static const struct {
        const char *rule;
        double ahead; /* of `all` */
    } rows[] = {{"asgd", 0},      {"nag-asgd", 0.125},      {"hb-asgd", 0},
                {"lwp", 0.5},     {"multi-asgd", 0},        {"dana-zero", 0.125},
                {"dana-slim", 0}, {"dana-shared", 0.125},   {"dana-lga", 0.125},
                {"ga-plain", 0},  {"dana-ga", 0.125},       {"easgd", 0},
                {"eamsgd", 0},    {"shared-lga-dot", 0.125}};
    (void)state;
    settings_default(&settings);
    EACH(compute)
    {
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
            const struct rule *rule = rules_find(rows[r].rule);
            /* A momentum sees every slot that it reads, its own velocity too. */
            struct arrays at = {.theta = a, .own = d, .all = b, .sent = c};
            struct step_scalars scalars;
            fill(a, N, 1), fill(b, N, 2), fill(c, N, 3), fill(d, N, 4);
            rules_step_scalars(rule, &settings, &context, &scalars);
            compute->look_ahead(rule, &at, &scalars, N);
            for (int i = 0; i < N; i++)
                equal((double)c[i], (double)a[i] - rows[r].ahead * (double)b[i]);
        }
    }
}

/* Blocks: gradients of 1, every element moved by a known amount, no momentum. */

static number *big(number value)
{
    number *ret = aligned_alloc(64, BIG * sizeof *ret);
    assert_non_null(ret);
    for (size_t i = 0; i < BIG; i++)
        ret[i] = value;
    return ret;
}

/* theta - sent is -1/1024 everywhere, so a block of n elements has q = -n/1024, and
 * with kappa = 1/64 the gate is max(0, 1 - n/65536): exact. Every third block is one of
 * three pieces, and counts for all of them. */
static void gates_of_rule(const struct compute *compute, const char *name,
                          const uint32_t *ends, uint32_t count, bool cut, unsigned ways)
{
    const struct rule *rule = rules_find(name);
    double *dots = calloc(count, sizeof *dots);
    uint32_t *pieces = calloc(count, sizeof *pieces);
    number *gates = calloc(count, sizeof *gates);
    struct settings settings = {.kappa = 1.0 / 64.0};
    struct step_context context = {.rate = 1.0, .lag = 1, .active = 2};
    struct blocks blocks = {.ends = ends, .count = count, .gates = gates};
    struct arrays at = {.theta = big(0), .all = big(0), .grad = big(1)};
    number *sent = at.sent = big((number)(1.0 / 1024.0));
    struct step_scalars scalars;
    struct sums sums;
    double sum = 0.0;

    assert_non_null(dots);
    assert_non_null(pieces);
    assert_non_null(gates);
    for (uint32_t block = 0; block < count; block++)
        pieces[block] = cut && block % 3 == 0 ? 3 : 1;
    blocks.pieces = cut ? pieces : NULL;
    settings_default(&settings);
    rules_step_scalars(rule, &settings, &context, &scalars);
    compute->dots(at.grad, at.sent, &blocks, BIG, dots);
    if (rule->flags & RULE_PUBLISHED)
        blocks.dots = dots;
    compute->apply(rule, &at, &scalars, &blocks, BIG, WANT_GAP | ways, &sums);
    for (uint32_t block = 0, from = 0; block < count; from = ends[block++]) {
        double gate = fmax(0.0, 1.0 - pieces[block] * (ends[block] - from) / 65536.0);
        sum += gate * (ends[block] - from);
        equal((double)gates[block], gate);
        for (uint32_t i = from; i < ends[block]; i++)
            if (!((double)at.theta[i] >= -gate && (double)at.theta[i] <= -gate))
                fail_msg("%s, block %u, element %u: %.9g, not %.9g", compute->name,
                         block, i, (double)at.theta[i], -gate);
    }
    equal(sums.gate_sum, sum);
    free(gates);
    equal(sums.gap_sq, BIG / 1048576.0);
    free(at.theta);
    free(at.all);
    free(sent);
    free((number *)(uintptr_t)at.grad);
    free(dots);
    free(pieces);
}

static void gates_of(const struct compute *compute, const uint32_t *ends,
                     uint32_t count)
{
    for (int way = 0; way < 4; way++) {
        unsigned ways = way & 1 ? WAY_WOVEN : 0;
        gates_of_rule(compute, "shared-lga", ends, count, way >= 2, ways);
        gates_of_rule(compute, "shared-lga-dot", ends, count, way >= 2, ways);
    }
}

/* Blocks that end anywhere, single elements, empty ones; sums that are exact. */
static void dots_of_blocks(void **state)
{
    static const uint32_t ends[] = {0,  1,   2,    16,   16,   17,   40,  64,
                                    64, 700, 1024, 1031, 2000, 2049, 3003};
    enum {
        BLOCKS = sizeof ends / sizeof *ends
    };
    const struct blocks blocks = {.ends = ends, .count = BLOCKS};
    double dots[BLOCKS];
    (void)state;
    EACH(compute)
    {
        fill(a, N, 1), fill(b, N, 2);
        for (uint32_t i = 0; i < BLOCKS; i++)
            dots[i] = -1;
        compute->dots(a, b, &blocks, N, dots);
        for (uint32_t block = 0, i = 0; block < BLOCKS; block++) {
            double sum = 0;
            for (; i < ends[block]; i++)
                sum += (double)a[i] * (double)b[i];
            equal(dots[block], sum);
        }
    }
}

static void a_gate_for_every_block(void **state)
{
    static uint32_t ends[BIG];
    (void)state;
    EACH(compute)
    {
        uint32_t many = 0;
        for (uint32_t end = 0; end < BIG; many++) {
            end += 1 + many % 3;
            ends[many] = end < BIG ? end : BIG;
        }
        gates_of(compute, ends, many); /* far more blocks than gates are kept for */
        ends[0] = BIG;
        gates_of(compute, ends, 1); /* closed: one large block */
        ends[0] = 40000, ends[1] = 40001, ends[2] = BIG;
        gates_of(compute, ends, 3);
        ends[0] = 40000, ends[1] = 40016, ends[2] = 40016, ends[3] = 40031,
        ends[4] = BIG;
        gates_of(compute, ends, 5); /* one of them is empty */
        for (uint32_t i = 0; i < 3000; i++)
            ends[i] = 0; /* far more empty ones than gates are kept for */
        ends[3000] = BIG;
        gates_of(compute, ends, 3001);
        for (uint32_t i = 0; i < 3000; i++)
            ends[i] = 30000 + i; /* a long one, then too many of one element each */
        ends[3000] = BIG;
        gates_of(compute, ends, 3001);
        uint32_t count = 0;
        for (uint32_t end = 5; end < BIG; end += 1 + count * 37 % 1201)
            ends[count++] = end;
        ends[count++] = BIG;
        gates_of(compute, ends, count);
    }
}

static void gates_at_their_ends(void **state)
{
    const struct rule *rule = rules_find("dana-lga");
    struct settings settings = {.momentum = 0.5};
    struct step_context context = {.rate = 1.0, .lag = 0, .active = 2};
    static _Alignas(64) number all[N], own[N];
    struct step_scalars scalars;
    struct sums sums;
    (void)state;
    settings_default(&settings);
    EACH(compute)
    {
        struct arrays at = {.theta = a, .own = own, .all = all, .sent = b, .grad = c};
        memset(own, 0, sizeof own), memset(all, 0, sizeof all);
        fill(a, N, 1), fill(b, N, 2), fill(c, N, 3);
        context.lag = 0;
        rules_step_scalars(rule, &settings, &context, &scalars);
        compute->apply(rule, &at, &scalars, NULL, N, 0, &sums);
        equal(sums.gate_sum, (double)N); /* no lag: as it is, whatever the gap */
        equal((double)own[77], (double)c[77]);
        context.lag = 1;
        rules_step_scalars(rule, &settings, &context, &scalars);
        memset(own, 0, sizeof own), memset(all, 0, sizeof all);
        a[N - 20] = (number)NAN; /* a sum that is no number closes the gate */
        compute->apply(rule, &at, &scalars, NULL, N, 0, &sums);
        equal(sums.gate_sum, 0.0);
        equal((double)own[77], 0.0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_best_comes_first_and_the_environment_chooses),
        cmocka_unit_test(finite_sees_every_element),
        cmocka_unit_test(the_small_passes),
        cmocka_unit_test(lanes_are_added_in_order),
        cmocka_unit_test(who_leaves_is_taken_out_of_the_sum),
        cmocka_unit_test(look_aheads),
        cmocka_unit_test(dots_of_blocks),
        cmocka_unit_test(a_gate_for_every_block),
        cmocka_unit_test(gates_at_their_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
