/* gapless bench gpu --accept finds what it is there to find: with a GPU that does one
 * thing wrong each time, the check `bits` fails and names it; a GPU that is lost fails
 * one check, and those after it that need it are not run. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "bench/gpu/bench_gpu.h"
#include "engine/rules/rules.h"
#include "tests/gpu/fake/fake_cuda.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct bg_gpu gpu;           /* the fake one, through the plugin */
static const struct device_ops *ok; /* its table */
static struct device_ops bad;       /* a copy with something wrong in it */
static unsigned long applied;

/* ---- what may be wrong --------------------------------------------------- */

static void apply_too_few(struct device *device, const struct rule *rule,
                          const struct device_pass *pass, uint32_t count,
                          const struct device_blocks *blocks, size_t n, uint32_t place)
{
    ok->apply(device, rule, pass, count > 1 ? count - 1 : 1, blocks, n, place);
}

static void apply_too_short(struct device *device, const struct rule *rule,
                            const struct device_pass *pass, uint32_t count,
                            const struct device_blocks *blocks, size_t n,
                            uint32_t place)
{
    ok->apply(device, rule, pass, count, blocks, n - 1, place);
}

static void apply_too_far(struct device *device, const struct rule *rule,
                          const struct device_pass *pass, uint32_t count,
                          const struct device_blocks *blocks, size_t n, uint32_t place)
{
    ok->apply(device, rule, pass, count, blocks, n, place);
    ok->copy(device, pass[0].at.theta + n, pass[0].at.theta, sizeof(float));
}

static void apply_other_scalars(struct device *device, const struct rule *rule,
                                const struct device_pass *pass, uint32_t count,
                                const struct device_blocks *blocks, size_t n,
                                uint32_t place)
{
    struct device_pass copy[DEVICE_QUEUE];

    memcpy(copy, pass, count * sizeof *pass);
    copy[count - 1].scalars.rate = nextafterf(copy[count - 1].scalars.rate, 1.0f);
    ok->apply(device, rule, copy, count, blocks, n, place);
}

static void apply_then_lost(struct device *device, const struct rule *rule,
                            const struct device_pass *pass, uint32_t count,
                            const struct device_blocks *blocks, size_t n,
                            uint32_t place)
{
    if (++applied == 5)
        fake_cuda_of_plugin()->lose(0);
    ok->apply(device, rule, pass, count, blocks, n, place);
}

static struct device_result wrong_result;
static enum {
    WRONG_GAP,
    WRONG_STEP,
    WRONG_GATE,
    WRONG_VALUE,
    WRONG_FINITE
} wrong;

static const struct device_result *result_wrong(const struct device *device,
                                                uint32_t place)
{
    wrong_result = *ok->result(device, place);
    switch (wrong) {
    case WRONG_GAP:
        wrong_result.sums.gap_sq = nextafter(wrong_result.sums.gap_sq, 1e9);
        break;
    case WRONG_STEP:
        wrong_result.sums.step_sq = nextafter(wrong_result.sums.step_sq, 1e9);
        break;
    case WRONG_GATE:
        wrong_result.sums.gate_sum = nextafter(wrong_result.sums.gate_sum, 1e9);
        break;
    case WRONG_VALUE:
        wrong_result.value = nextafter(wrong_result.value, 1e9);
        break;
    case WRONG_FINITE:
        wrong_result.finite = 1;
        break;
    }
    return &wrong_result;
}

static void no_look_ahead(struct device *device, const struct rule *rule,
                          const struct arrays *at, const struct step_scalars *scalars,
                          size_t n)
{
    (void)device, (void)rule, (void)at, (void)scalars, (void)n;
}

static void no_forget(struct device *device, const struct rule *rule,
                      const struct arrays *at, size_t n)
{
    (void)device, (void)rule, (void)at, (void)n;
}

static void no_resum(struct device *device, float *all, const float *const *own,
                     uint32_t workers, size_t n)
{
    ok->resum(device, all, own, workers - 1, n);
}

static void no_scale(struct device *device, float *x, float factor, size_t n)
{
    (void)device, (void)x, (void)factor, (void)n;
}

static void no_slim(struct device *device, float *grad, float *velocity, float momentum,
                    size_t n)
{
    ok->slim(device, grad, velocity, nextafterf(momentum, 1.0f), n);
}

static void no_average(struct device *device, float *theta, float *sent,
                       const float *grad, float share, float average, size_t n)
{
    ok->average(device, theta, sent, grad, share, nextafterf(average, 1.0f), n);
}

static void round_of_fewer(struct device *device, const struct rule *rule,
                           const struct arrays *at, const struct step_scalars *scalars,
                           const float *const *grad, float *const *sent,
                           uint32_t workers, size_t n, unsigned want, uint32_t place)
{
    ok->round(device, rule, at, scalars, grad, sent, workers - 1, n, want, place);
}

/* ---- the check ----------------------------------------------------------- */

static int set_up(void **state)
{
    uint32_t which = 0, count = 0;
    struct gapless_error error = {0};

    (void)state;
    if (device_plugin(&gpu.plugin, &error) != GAPLESS_OK ||
        device_choose(gpu.plugin, "cuda", &which, &count, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    ok = gpu.plugin->device;
    gpu.ops = &bad;
    assert_int_equal(ok->facts(which, &gpu.facts, NULL), GAPLESS_OK);
    gpu.fake = true;
    return 0;
}

/* Runs it over one rule. */
static enum bg_verdict bits_of(const char *rule, char *text, size_t bytes)
{
    struct bench_gpu_config options = {.quick = true,
                                       .rules = 1ull << rules_find(rule)->index};
    struct bg_run run = {.options = &options, .gpu = gpu};
    struct bg_check check = {.name = BG_BITS, .figures = json_object()};

    bg_bits(&run, &check);
    json_decref(check.figures);
    (void)snprintf(text, bytes, "%s", check.text);
    return check.verdict;
}

static void finds(const char *rule, const char *what)
{
    char text[BG_TEXT_MAX];

    if (bits_of(rule, text, sizeof text) != BG_FAILED || strstr(text, what) == NULL)
        fail_msg("%s: '%s' is not in '%s'", rule, what, text);
    bad = *ok;
}

static void all_is_well(void **state)
{
    static const char *const some[] = {"dana-ga", "ga-global", "shared-lga-dot",
                                       "ssgd"};
    char text[BG_TEXT_MAX];

    (void)state;
    bad = *ok;
    for (size_t i = 0; i < sizeof some / sizeof some[0]; i++)
        if (bits_of(some[i], text, sizeof text) != BG_PASSED)
            fail_msg("%s", text);
}

static void passes_of_a_rule(void **state)
{
    (void)state;
    bad = *ok;
    bad.apply = apply_too_few;
    finds("dana-ga", "apply of dana-ga over 1 elements, 8 gradients");
    bad.apply = apply_too_short;
    finds("asgd", "apply of asgd over 1 elements, 1 gradient, off by 0: theta");
    bad.apply = apply_too_far;
    finds("nag-asgd", "memory beside vector 0 differs");
    bad.apply = apply_other_scalars;
    finds("dana-zero", "apply of dana-zero");
    bad.look_ahead = no_look_ahead;
    finds("nag-asgd", "look_ahead of nag-asgd");
    bad.forget = no_forget;
    finds("dana-ga", "forget of dana-ga");
    bad.round = round_of_fewer;
    finds("ssgd", "round of ssgd");
}

static void sums(void **state)
{
    (void)state;
    bad = *ok;
    bad.result = result_wrong;
    wrong = WRONG_GAP;
    finds("asgd", "the sum of the gap");
    bad.result = result_wrong;
    wrong = WRONG_STEP;
    finds("ga-global", "the sum of the step");
    bad.result = result_wrong;
    wrong = WRONG_GATE;
    finds("dana-lga", "the sum of the gates");
    bad.result = result_wrong;
    wrong = WRONG_VALUE;
    finds("ga-global", "measure of ga-global");
    bad.result = result_wrong;
    wrong = WRONG_VALUE;
    finds("asgd", "norm_sq differs");
    bad.result = result_wrong;
    wrong = WRONG_FINITE;
    finds("asgd", "finite differs");
}

static void passes_of_a_vector(void **state)
{
    (void)state;
    bad = *ok;
    bad.scale = no_scale;
    finds("asgd", "norm_sq, decay, scale, finite of a vector");
    bad.slim = no_slim;
    finds("asgd", "slim, resum, average of a vector");
    bad.resum = no_resum;
    finds("asgd", "slim, resum, average of a vector");
    bad = *ok;
    bad.average = no_average;
    finds("asgd", "slim, resum, average of a vector");
}

/* The report of a run in which the GPU goes in the first of two checks. */
static void a_lost_gpu(void **state)
{
    char out[] = "/tmp/gapless-accept-XXXXXX", path[64];
    static const uint64_t elements[] = {256};
    struct bench_gpu_config options = {
        .accept = true,
        .quick = true,
        .out = out,
        .sizes = {1, elements},
        .seconds = 0.1,
        .rules = 1,
        .checks = 1u << BG_BITS | 1u << BG_LATENCY,
    };
    const json_t *checks;
    json_t *root;

    (void)state;
    assert_non_null(mkdtemp(out));
    bad = *ok;
    bad.apply = apply_then_lost;
    assert_int_equal(bg_accept(&options, &gpu), 1);
    (void)snprintf(path, sizeof path, "%s/gpu-acceptance.json", out);
    root = json_load_file(path, 0, NULL);
    assert_non_null(root);
    assert_true(json_is_true(json_object_get(root, "fake")));
    assert_int_equal(json_integer_value(json_object_get(root, "failed")), 1);
    assert_int_equal(json_integer_value(json_object_get(root, "not_run")), 1);
    checks = json_object_get(root, "checks");
    assert_int_equal(json_array_size(checks), 2);
    assert_string_equal(
        json_string_value(json_object_get(json_array_get(checks, 0), "verdict")),
        "failed");
    assert_non_null(
        strstr(json_string_value(json_object_get(json_array_get(checks, 1), "text")),
               "lost in an earlier check"));
    json_decref(root);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(out), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_is_well), cmocka_unit_test(passes_of_a_rule),
        cmocka_unit_test(sums),        cmocka_unit_test(passes_of_a_vector),
        cmocka_unit_test(a_lost_gpu), /* the last: it does not come back */
    };

    return cmocka_run_group_tests(tests, set_up, NULL);
}
