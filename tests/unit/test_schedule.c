/* The learning rate over a run. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/run/schedule.h"

#include <math.h>
#include <string.h>

static void same(double a, double b)
{
    assert_true(fabs(a - b) <= 1e-15 * fabs(b));
}

static const struct gapless_schedule flagship = {
    .rate = 0.005,
    .warmup = 1875,
    .warmup_from = 0.125,
    .steps_count = 2,
    .steps = {{5625, 0.1}, {7968, 0.1}},
};

static void test_warm_up_and_steps(void **state)
{
    (void)state;
    same(schedule_rate(&flagship, 9375, 0), 0.005 / 8);
    same(schedule_rate(&flagship, 9375, 1875 / 5 * 2), 0.005 * (0.125 + 0.875 * 0.4));
    same(schedule_rate(&flagship, 9375, 1875), 0.005);
    same(schedule_rate(&flagship, 9375, 5624), 0.005);
    same(schedule_rate(&flagship, 9375, 5625), 0.005 * 0.1);
    same(schedule_rate(&flagship, 9375, 7968), 0.005 * 0.1 * 0.1);
    same(schedule_rate(&flagship, 9375, 1000000), 0.005 * 0.1 * 0.1);
    same(schedule_peak(&flagship), 0.005);
}

static void test_stages(void **state)
{
    (void)state;
    assert_int_equal(schedule_stage(&flagship, 0), 0);
    assert_int_equal(schedule_stage(&flagship, 1874), 0);
    assert_int_equal(schedule_stage(&flagship, 1875), 1);
    assert_int_equal(schedule_stage(&flagship, 5625), 2);
    assert_int_equal(schedule_stage(&flagship, 9000), 3);
}

static void test_cosine(void **state)
{
    const struct gapless_schedule s = {
        .rate = 2, .warmup = 100, .warmup_from = 0.5, .cosine = true, .cosine_to = 0.1};

    (void)state;
    same(schedule_rate(&s, 1100, 100), 2);
    same(schedule_rate(&s, 1100, 600), 2 * (0.1 + 0.9 * 0.5));
    same(schedule_rate(&s, 1100, 1100), 2 * 0.1);
    same(schedule_rate(&s, 1100, 5000), 2 * 0.1);
    assert_true(schedule_rate(&s, 1100, 300) > schedule_rate(&s, 1100, 301));
}

static void test_constant(void **state)
{
    const struct gapless_schedule s = {.rate = 0.3};

    (void)state;
    same(schedule_rate(&s, 0, 0), 0.3);
    same(schedule_rate(&s, 0, UINT64_MAX), 0.3);
}

static void refused(struct gapless_schedule s, uint64_t total, const char *word)
{
    struct gapless_error e = {0};

    assert_true(schedule_check(&s, total, &e) < 0);
    assert_non_null(strstr(e.text, word));
}

static void test_nonsense_is_refused(void **state)
{
    struct gapless_schedule s = flagship;

    (void)state;
    assert_int_equal(schedule_check(&s, 9375, NULL), 0);
    s.rate = 0;
    refused(s, 1, "rate");
    s.rate = NAN;
    refused(s, 1, "rate");
    s.rate = INFINITY;
    refused(s, 1, "rate");
    s = flagship;
    s.warmup_from = 2;
    refused(s, 1, "warm-up");
    s = flagship;
    s.steps[0].factor = 0;
    refused(s, 1, "milestone 1");
    s = flagship;
    s.steps[1].at = 1;
    refused(s, 1, "milestone 2");
    s = flagship;
    s.steps_count = 99;
    refused(s, 1, "99");
    s = flagship;
    s.cosine = true;
    refused(s, 0, "cosine");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_warm_up_and_steps),
        cmocka_unit_test(test_stages),
        cmocka_unit_test(test_cosine),
        cmocka_unit_test(test_constant),
        cmocka_unit_test(test_nonsense_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
