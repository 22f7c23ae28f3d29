/* Passes through the plugin's table: each of them gives the bits of the processor's, in
 * the arrays and in the result places, also when many are asked for before one of them
 * has run. What the kernels do with each rule and length is in test_kernels*.c. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/compute/compute.h"
#include "engine/device/device.h"
#include "engine/rules/rules.h"
#include "tests/gpu/fake/fake_cuda.h"
#include "tests/pace.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define N 2048u
#define BYTES (N * sizeof(float))
#define QUEUE 3u
#define SECOND pace_ns(INT64_C(1000000000))

static const struct device_ops *ops;
static const struct fake_cuda *fake;
static const struct compute *cpu;

/* theta, all, stat, square; own, sent, grad of each worker */
enum {
    THETA,
    ALL,
    STAT,
    SQUARE,
    OWN,
    SENT = OWN + QUEUE,
    GRAD = SENT + QUEUE,
    ARRAYS = GRAD + QUEUE
};

struct bed {
    struct device *device;
    float *host[ARRAYS];  /* the processor's */
    float *there[ARRAYS]; /* the GPU's */
    float *back;
};

static void set_up(struct bed *bed)
{
    struct gapless_error error = {0};
    uint32_t random = 12345;

    assert_int_equal(ops->open(0, N, 8, &bed->device, &error), GAPLESS_OK);
    bed->back = aligned_alloc(64, BYTES);
    assert_non_null(bed->back);
    for (int i = 0; i < ARRAYS; i++) {
        void *there = NULL;

        bed->host[i] = aligned_alloc(64, BYTES);
        assert_non_null(bed->host[i]);
        for (uint32_t k = 0; k < N; k++) {
            random = random * 1664525u + 1013904223u;
            bed->host[i][k] =
                (float)(random >> 8) * 0x1p-24f - (i == STAT || i == SQUARE ? 0 : 0.5f);
        }
        assert_int_equal(ops->take(bed->device, BYTES, &there, &error), GAPLESS_OK);
        bed->there[i] = there;
        ops->copy_in(bed->device, there, bed->host[i], BYTES);
    }
    ops->after(bed->device, DEVICE_WORK, ops->mark(bed->device, DEVICE_IN));
    assert_int_equal(
        ops->wait(bed->device, ops->mark(bed->device, DEVICE_IN), 60 * SECOND, &error),
        GAPLESS_OK);
}

static void settle(struct bed *bed, enum device_stream stream)
{
    struct gapless_error error = {0};

    if (ops->wait(bed->device, ops->mark(bed->device, stream), 60 * SECOND, &error) !=
        GAPLESS_OK)
        fail_msg("%s", error.text);
}

static bool bits_equal(const void *a, const void *b, size_t bytes)
{
    return memcmp(a, b, bytes) == 0;
}

/* Every array, bit by bit. */
static void same(struct bed *bed, const char *what)
{
    settle(bed, DEVICE_WORK);
    for (int i = 0; i < ARRAYS; i++) {
        ops->copy_out(bed->device, bed->back, bed->there[i], BYTES);
        settle(bed, DEVICE_OUT);
        if (!bits_equal(bed->back, bed->host[i], BYTES))
            fail_msg("%s: array %d differs", what, i);
    }
}

static void tear_down(struct bed *bed)
{
    ops->close(bed->device);
    for (int i = 0; i < ARRAYS; i++)
        free(bed->host[i]);
    free(bed->back);
    assert_int_equal(fake->leaks(), 0);
}

static struct arrays arrays_of(float *const *from, uint32_t worker)
{
    return (struct arrays){.theta = from[THETA],
                           .all = from[ALL],
                           .stat = from[STAT],
                           .own = from[OWN + worker],
                           .sent = from[SENT + worker],
                           .grad = from[GRAD + worker],
                           .square = from[SQUARE]};
}

static struct step_scalars scalars_of(const struct rule *rule, double rate,
                                      uint64_t lag)
{
    struct settings settings = {.momentum = 0.9, .rate_max = 0.2, .decay = 0.1};
    struct step_context context = {.rate = rate,
                                   .lag = lag,
                                   .active = QUEUE,
                                   .samples = 5,
                                   .global_gap = 0.3,
                                   .global_stat = 0.1,
                                   .history = {0.01, 5, 0.2, 0.1, 0.15, 0.3, 2, 3},
                                   .own_updates = 2};
    struct step_scalars scalars;

    settings_default(&settings);
    rules_step_scalars(rule, &settings, &context, &scalars);
    return scalars;
}

/* ---- apply --------------------------------------------------------------- */

static const uint32_t ends[] = {700, 1500, N};
static const uint32_t pieces[] = {1, 2, 1};
static const struct blocks cut = {.ends = ends, .count = 3, .pieces = pieces};

/* A queue of three gradients of three workers. */
static void apply_rule(struct bed *bed, const struct rule *rule,
                       const struct device_blocks *blocks)
{
    static const double dots[2][3] = {{0.5, -0.25, 0.125}, {-0.1, 0.2, 0.7}};
    bool published = (rule->flags & RULE_PUBLISHED) != 0;
    struct device_pass pass[QUEUE];
    struct sums sums[QUEUE];
    float gates[QUEUE][3];

    for (uint32_t w = 0; w < QUEUE; w++) {
        struct blocks here = cut;
        struct arrays at = arrays_of(bed->host, w);

        here.gates = gates[w];
        here.dots = published && w < 2 ? dots[w] : NULL;
        pass[w] = (struct device_pass){.at = arrays_of(bed->there, w),
                                       .scalars = scalars_of(rule, 0.01 * (w + 1), w),
                                       .dots = here.dots,
                                       .want = WANT_GAP};
        cpu->apply(rule, &at, &pass[w].scalars, blocks != NULL ? &here : NULL, N,
                   WANT_GAP, &sums[w]);
    }
    ops->apply(bed->device, rule, pass, QUEUE, blocks, N, 7);
    same(bed, rule->name);
    for (uint32_t w = 0; w < QUEUE; w++)
        if (!bits_equal(&ops->result(bed->device, 7 + w)->sums, &sums[w],
                        sizeof sums[w]))
            fail_msg("%s: sums of gradient %u differ", rule->name, w);
    for (uint32_t w = 0; w < QUEUE && blocks != NULL; w++)
        if (pass[w].scalars.lagging)
            assert_memory_equal(ops->gates(bed->device, 7 + w), gates[w],
                                sizeof gates[w]);
}

static void applies(void **state)
{
    struct gapless_error error = {0};
    struct device_blocks *blocks = NULL;
    struct bed bed;

    (void)state;
    set_up(&bed);
    assert_int_equal(ops->blocks_new(bed.device, &cut, &blocks, &error), GAPLESS_OK);
    for (int i = 0; i < rules_count; i++)
        if (!(rules[i].flags & RULE_ROUND))
            apply_rule(&bed, &rules[i], (rules[i].flags & RULE_BLOCK) ? blocks : NULL);
    ops->blocks_free(bed.device, blocks);
    ops->blocks_free(bed.device, NULL);
    tear_down(&bed);
}

/* With blocks where there are none, and the other way round. */
static void applies_wrongly(void **state)
{
    struct gapless_error error = {0};
    struct bed bed;
    struct device_pass pass;

    (void)state;
    set_up(&bed);
    pass = (struct device_pass){.at = arrays_of(bed.there, 0),
                                .scalars = scalars_of(rules_find("dana-lga"), 0.1, 1)};
    settle(&bed, DEVICE_WORK);
    ops->apply(bed.device, rules_find("dana-lga"), &pass, 1, NULL, N, 0);
    assert_int_equal(ops->failure(bed.device, &error), GAPLESS_INVALID);
    assert_non_null(strstr(error.text, "the rule dana-lga, without blocks"));
    assert_int_equal(fake->waiting(), 0);
    tear_down(&bed);
}

/* More lists under way than there are places for: each pass has its own. */
static void many_lists(void **state)
{
    const struct rule *rule = rules_find("shared-lga-dot");
    struct gapless_error error = {0};
    struct device_blocks *blocks = NULL;
    struct bed bed;

    (void)state;
    assert_non_null(rule);
    set_up(&bed);
    assert_int_equal(ops->blocks_new(bed.device, &cut, &blocks, &error), GAPLESS_OK);
    for (uint32_t i = 0; i < 50; i++) {
        double dots[3] = {0.1 * i, 0.2 - 0.01 * i, 0.3}; /* of the call only */
        struct arrays at = arrays_of(bed.host, i % QUEUE);
        struct device_pass pass = {.at = arrays_of(bed.there, i % QUEUE),
                                   .scalars = scalars_of(rule, 0.001, i),
                                   .dots = dots};
        struct blocks here = cut;
        struct sums sums;

        here.dots = dots;
        cpu->apply(rule, &at, &pass.scalars, &here, N, 0, &sums);
        ops->apply(bed.device, rule, &pass, 1, blocks, N, i);
    }
    same(&bed, "50 lists");
    ops->blocks_free(bed.device, blocks);
    tear_down(&bed);
}

/* ---- the others ---------------------------------------------------------- */

static void rounds_of(const struct rule *rule)
{
    struct sums sums = {0};
    struct bed bed;

    set_up(&bed);
    for (uint32_t i = 0; i < 40; i++) {
        struct step_scalars scalars = scalars_of(rule, 0.01, 0);
        struct arrays at = arrays_of(bed.host, 0), there = arrays_of(bed.there, 0);
        const float *grad[2][QUEUE];
        float *sent[2][QUEUE];

        for (uint32_t w = 0; w < QUEUE; w++) {
            uint32_t who = (w + i) % QUEUE;

            grad[0][w] = bed.host[GRAD + who];
            sent[0][w] = bed.host[SENT + who];
            grad[1][w] = bed.there[GRAD + who];
            sent[1][w] = bed.there[SENT + who];
        }
        cpu->round(rule, &at, &scalars, grad[0], sent[0], QUEUE, N, WANT_GAP, &sums);
        ops->round(bed.device, rule, &there, &scalars, grad[1], sent[1], QUEUE, N,
                   WANT_GAP, i);
    }
    same(&bed, "round");
    assert_memory_equal(&ops->result(bed.device, 39)->sums, &sums, sizeof sums);
    ops->round(bed.device, rule, NULL, NULL, NULL, NULL, 0, N, 0, 0);
    assert_int_equal(ops->failure(bed.device, NULL), GAPLESS_INVALID);
    tear_down(&bed);
}

static void rounds(void **state)
{
    (void)state;
    rounds_of(rules_find("ssgd"));
    rounds_of(rules_find("ssgd-adamw"));
}

static void measures(void **state)
{
    const struct rule *rule = rules_find("dana-ga-global");
    struct step_scalars scalars = scalars_of(rule, 0.01, 2);
    struct arrays at, there;
    struct bed bed;
    double value;

    (void)state;
    set_up(&bed);
    at = arrays_of(bed.host, 1);
    there = arrays_of(bed.there, 1);
    value = cpu->measure(rule, &at, &scalars, N);
    ops->measure(bed.device, rule, &there, &scalars, N, 255);
    same(&bed, "measure");
    assert_memory_equal(&ops->result(bed.device, 255)->value, &value, sizeof value);
    tear_down(&bed);
}

static void membership(void **state)
{
    const struct rule *rule = rules_find("dana-zero");
    struct step_scalars scalars = scalars_of(rule, 0.01, 2);
    const float *own[2][2];
    struct arrays at, there;
    struct bed bed;

    (void)state;
    set_up(&bed);
    at = arrays_of(bed.host, 1);
    there = arrays_of(bed.there, 1);
    cpu->look_ahead(rule, &at, &scalars, N);
    ops->look_ahead(bed.device, rule, &there, &scalars, N);
    same(&bed, "look_ahead");
    cpu->forget(rule, &at, N);
    ops->forget(bed.device, rule, &there, N);
    same(&bed, "forget");
    for (int i = 0; i < 2; i++) {
        own[0][i] = bed.host[OWN + 2 * i];
        own[1][i] = bed.there[OWN + 2 * i];
    }
    cpu->resum(bed.host[ALL], own[0], 2, N);
    ops->resum(bed.device, bed.there[ALL], own[1], 2, N);
    same(&bed, "resum");
    memset(bed.host[ALL], 0, BYTES);
    ops->resum(bed.device, bed.there[ALL], own[1], 0, N);
    same(&bed, "resum of none");
    tear_down(&bed);
}

static void small_ones(void **state)
{
    struct bed bed;
    double norm, decayed;

    (void)state;
    set_up(&bed);
    cpu->scale(bed.host[GRAD], 0.3f, N);
    ops->scale(bed.device, bed.there[GRAD], 0.3f, N);
    same(&bed, "scale");
    norm = cpu->norm_sq(bed.host[GRAD], N);
    decayed = cpu->decay(bed.host[GRAD], bed.host[THETA], 0.01f, N);
    ops->finite(bed.device, bed.there[GRAD], N, 0);
    ops->norm_sq(bed.device, bed.there[GRAD], N, 1);
    ops->decay(bed.device, bed.there[GRAD], bed.there[THETA], 0.01f, N, 2);
    same(&bed, "decay");
    assert_int_equal(ops->result(bed.device, 0)->finite, 1);
    assert_memory_equal(&ops->result(bed.device, 1)->value, &norm, sizeof norm);
    assert_memory_equal(&ops->result(bed.device, 2)->value, &decayed, sizeof decayed);
    cpu->slim(bed.host[GRAD + 1], bed.host[OWN + 1], 0.9f, N);
    ops->slim(bed.device, bed.there[GRAD + 1], bed.there[OWN + 1], 0.9f, N);
    same(&bed, "slim");
    cpu->average(bed.host[THETA], bed.host[SENT], bed.host[GRAD], 1.0f, 0.1f, N);
    ops->average(bed.device, bed.there[THETA], bed.there[SENT], bed.there[GRAD], 1.0f,
                 0.1f, N);
    same(&bed, "average");
    bed.host[GRAD][N - 1] = strtof("inf", NULL);
    ops->copy_in(bed.device, bed.there[GRAD], bed.host[GRAD], BYTES);
    ops->after(bed.device, DEVICE_WORK, ops->mark(bed.device, DEVICE_IN));
    ops->finite(bed.device, bed.there[GRAD], N, 0);
    settle(&bed, DEVICE_WORK);
    assert_int_equal(ops->result(bed.device, 0)->finite, 0);
    tear_down(&bed);
}

static int find_plugin(void **state)
{
    const struct gpu_plugin *plugin;
    struct gapless_error error = {0};

    (void)state;
    if (device_plugin(&plugin, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    ops = plugin->device;
    fake = fake_cuda_of_plugin();
    assert_non_null(fake);
    cpu = compute_cpu();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(applies),    cmocka_unit_test(applies_wrongly),
        cmocka_unit_test(many_lists), cmocka_unit_test(rounds),
        cmocka_unit_test(measures),   cmocka_unit_test(membership),
        cmocka_unit_test(small_ones),
    };

    return cmocka_run_group_tests(tests, find_plugin, NULL);
}
