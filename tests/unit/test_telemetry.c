/* Histograms against sorting the same numbers. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/run/telemetry.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static struct histogram h;

static void test_whole_numbers_are_exact(void **state)
{
    struct gapless_summary s;
    int i;

    (void)state;
    memset(&h, 0, sizeof h);
    for (i = 0; i < 1000; i++)
        histogram_add(&h, i % 10 == 9 ? 31 : 7);
    histogram_summary(&h, true, &s);
    assert_int_equal(s.count, 1000);
    assert_true(fabs(s.mean - (0.9 * 7 + 0.1 * 31)) < 1e-12);
    assert_true(s.p50 >= 7 && s.p50 <= 7);
    assert_true(s.p99 >= 31 && s.p99 <= 31);
    assert_true(s.max >= 31 && s.max <= 31);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void test_quantiles_are_within_a_bin(void **state)
{
    static double values[5000];
    uint64_t random = 3;
    struct gapless_summary s;
    int i;

    (void)state;
    memset(&h, 0, sizeof h);
    for (i = 0; i < 5000; i++) {
        random = random * 6364136223846793005ull + 1442695040888963407ull;
        values[i] = exp((double)(random >> 40) / 16777216.0 * 20 - 15);
        histogram_add(&h, values[i]);
    }
    qsort(values, 5000, sizeof values[0], compare);
    histogram_summary(&h, false, &s);
    assert_true(fabs(s.p50 / values[2499] - 1) < 0.04);
    assert_true(fabs(s.p99 / values[4949] - 1) < 0.04);
    assert_true(s.max >= values[4999] && s.max <= values[4999]);
}

static void test_extremes(void **state)
{
    struct gapless_summary s;

    (void)state;
    memset(&h, 0, sizeof h);
    histogram_summary(&h, true, &s);
    assert_int_equal(s.count, 0);
    histogram_add(&h, 0);
    histogram_add(&h, 1e-300);
    histogram_add(&h, 1e300);
    histogram_summary(&h, false, &s);
    assert_int_equal(s.count, 3);
    assert_true(s.max >= 1e300);
    assert_true(s.p50 >= 0 && s.p50 < 1e-10);
}

static void test_gradient_is_counted_once(void **state)
{
    static struct telemetry t;
    struct gapless_worker_stats w = {0};
    struct gapless_stats s;

    (void)state;
    memset(&t, 0, sizeof t);
    telemetry_gradient(&t, &w, 1, 3, 0.5, 2.0, 1000000000);
    telemetry_gradient(&t, &w, 1, 5, -1, NAN, 3000000000);
    telemetry_stats(&t, 4000000000, &s);
    assert_int_equal(s.lag.count, 2);
    assert_int_equal(s.gap_rms.count, 1);
    assert_int_equal(w.gradients, 2);
    assert_int_equal(w.gap_count, 1);
    assert_true(fabs(s.lag.mean - 4) < 1e-12);
    assert_true(fabs(s.loss - 2) < 1e-12);
    assert_true(fabs(s.seconds - 3) < 1e-9);
}

/* The running mean is of the last gradients, and starts again after the warm-up; the other
 * is of all after it. */
static void test_mean_gates(void **state)
{
    static struct telemetry t;
    struct gate_moment moment = {.most = 1.0, .window = 4};

    (void)state;
    memset(&t, 0, sizeof t);
    assert_false(telemetry_gate(&t, 0.5, &moment));
    assert_true(fabs(t.stats.gate - 0.5) < 1e-12);
    assert_int_equal(t.stats.gate_count, 0);
    moment.counts = true;
    assert_false(telemetry_gate(&t, 1.0, &moment));
    assert_false(telemetry_gate(&t, 0.0, &moment));
    assert_true(fabs(t.stats.gate - 0.5) < 1e-12);
    for (int i = 0; i < 98; i++)
        assert_false(telemetry_gate(&t, 1.0, &moment));
    assert_true(t.stats.gate > 0.999);
    assert_int_equal(t.stats.gate_count, 100);
    assert_true(fabs(t.stats.gate_mean - 0.99) < 1e-12);
}

/* Gradients with this gate until it warns; 0: it never does. */
static uint32_t warned_after(double gate, double most, bool tells,
                             struct gapless_stats *ret)
{
    static struct telemetry t;
    struct gate_moment moment = {
        .counts = true, .tells = tells, .most = most, .window = 1000};
    uint32_t after = 0;

    memset(&t, 0, sizeof t);
    t.stats.kappa = 30;
    for (uint32_t i = 1; i <= 5000; i++)
        if (telemetry_gate(&t, gate, &moment)) {
            assert_int_equal(after, 0); /* once */
            after = i;
        }
    *ret = t.stats;
    return after;
}

static void test_gates_tell_of_kappa(void **state)
{
    struct gapless_stats s;
    char text[256] = "";

    (void)state;
    assert_int_equal(warned_after(0.94, 0.95, true, &s), 0);
    assert_false(gapless_gate_advice(&s, text, sizeof text));
    assert_int_equal(warned_after(0.21, 0.95, true, &s), 0);
    assert_int_equal(warned_after(0.96, 0.95, false, &s), 0);
    assert_int_equal(warned_after(1.0, 1.0, true, &s), 0);
    assert_int_equal(warned_after(0.96, 0.95, true, &s), 1000);
    assert_int_equal(s.gate_warning, GAPLESS_GATE_HIGH);
    assert_true(gapless_gate_advice(&s, text, sizeof text));
    assert_non_null(strstr(text, "96.0 %"));
    assert_non_null(strstr(text, "kappa 30 is probably too small; try --kappa 90"));
    assert_int_equal(warned_after(0.1, 1.0, true, &s), 1000);
    assert_int_equal(s.gate_warning, GAPLESS_GATE_LOW);
    assert_true(gapless_gate_advice(&s, text, sizeof text));
    assert_non_null(strstr(text, "probably too large; try --kappa 10"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_numbers_are_exact),
        cmocka_unit_test(test_quantiles_are_within_a_bin),
        cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_gradient_is_counted_once),
        cmocka_unit_test(test_mean_gates),
        cmocka_unit_test(test_gates_tell_of_kappa),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
