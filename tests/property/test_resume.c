/* A run that was stopped, saved and begun again ends with the bits of one that was not, under
 * every rule; what is not the same is refused, and named. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/property/simulated.h"

#include <unistd.h>

#define WORKERS 5u
#define GRADIENTS 240u

static char path[64];

static const struct gapless_incident incidents[] = {
    {.at_ns = 12000000, .kind = GAPLESS_KILL, .worker = 3},
    {.at_ns = 15000000, .kind = GAPLESS_JOIN},
    {.at_ns = 33000000, .kind = GAPLESS_LEAVE, .worker = 1},
    {.at_ns = 35000000, .kind = GAPLESS_JOIN}};

/* Local steps without a state of their own. */
static double local(void *context, uint32_t thread, uint32_t joined, uint64_t batch,
                    uint32_t steps, const float *params, float *grad)
{
    float at[SIM_COUNT], by[SIM_COUNT];
    double loss = 0;

    (void)joined;
    memcpy(at, params, sizeof at);
    for (uint32_t i = 0; i < steps; i++) {
        loss += sim_gradient(context, thread, batch + i, at, by);
        for (uint32_t k = 0; k < SIM_COUNT; k++)
            at[k] -= 0.1f * by[k];
    }
    for (uint32_t k = 0; k < SIM_COUNT; k++)
        grad[k] = params[k] - at[k];
    return loss / steps;
}

static struct gapless_simulation_config config_of(const struct gapless_rule *rule,
                                                  bool local_steps)
{
    struct gapless_simulation_config ret = sim_config(rule->name, WORKERS, GRADIENTS);

    ret.clock = GAPLESS_CLOCK_HETEROGENEOUS;
    ret.threads = 2;
    ret.incidents = incidents;
    ret.incidents_count = sizeof incidents / sizeof incidents[0];
    ret.master.kappa = 1;
    ret.master.range_elements = 32;
    ret.master.block_elements = 16;
    ret.master.drop_lag = rule->synchronous || rule->elastic ? 0 : 9;
    if (rule->synchronous)
        ret.incidents_count = 0; /* a round waits for all */
    if (local_steps) {
        ret.master.local_steps = 3;
        ret.master.adapt_steps = true;
        ret.local = local;
        ret.gradient = NULL;
    }
    return ret;
}

static struct gapless_simulation *opened(const struct gapless_simulation_config *config)
{
    struct gapless_simulation *s = NULL;
    struct gapless_error error = {0};

    if (gapless_simulation_open(config, &s, &error) != GAPLESS_OK)
        fail_msg("%s: %s", config->master.rule, error.text);
    return s;
}

static void ended(struct gapless_simulation *s, struct sim_outcome *ret)
{
    memset(ret, 0, sizeof *ret);
    ret->status = gapless_simulation_run(s, 0, &ret->error);
    if (ret->status != GAPLESS_STOPPED)
        fail_msg("%d: %s", ret->status, ret->error.text);
    memcpy(ret->params, gapless_master_params(gapless_simulation_master(s)),
           sizeof ret->params);
    gapless_master_stats(gapless_simulation_master(s), &ret->stats);
    gapless_simulation_stats(s, &ret->costs);
    gapless_simulation_close(s);
}

/* Stopped at `at` gradients, and begun again by a new simulation. */
static void interrupted(const struct gapless_simulation_config *config, uint64_t at,
                        struct sim_outcome *ret)
{
    struct gapless_simulation_config again = *config;
    struct gapless_simulation *s = opened(config);
    struct gapless_error error = {0};

    if (at > 0)
        assert_int_equal(gapless_simulation_run(s, at, &error), GAPLESS_OK);
    if (gapless_simulation_save(s, path, NULL, &error) != GAPLESS_OK)
        fail_msg("%s: %s", config->master.rule, error.text);
    gapless_simulation_close(s);
    again.master.resume = path;
    ended(opened(&again), ret);
}

static void same(const char *rule, uint64_t at, const struct sim_outcome *a,
                 const struct sim_outcome *b)
{
    if (memcmp(a->params, b->params, sizeof a->params) != 0)
        fail_msg("%s, stopped at %llu: other parameters", rule, (unsigned long long)at);
    assert_int_equal(a->stats.gradients, b->stats.gradients);
    assert_int_equal(a->stats.updates, b->stats.updates);
    assert_int_equal(a->stats.dropped, b->stats.dropped);
    assert_int_equal(a->stats.workers_lost, b->stats.workers_lost);
    assert_int_equal(a->costs.virtual_ns, b->costs.virtual_ns);
    assert_memory_equal(&a->stats.lag, &b->stats.lag, sizeof a->stats.lag);
    assert_memory_equal(&a->stats.gap_rms, &b->stats.gap_rms, sizeof a->stats.gap_rms);
    assert_memory_equal(&a->stats.loss, &b->stats.loss, sizeof a->stats.loss);
    assert_memory_equal(&a->stats.gate_mean, &b->stats.gate_mean, sizeof(double));
}

static void test_every_rule(void **state)
{
    static const uint64_t stops[] = {1, 87, 201};
    struct sim_outcome whole, cut;
    struct gapless_rule rule;

    (void)state;
    for (unsigned i = 0; gapless_rule_at(i, &rule) == GAPLESS_OK; i++)
        for (int locals = 0; locals < (rule.elastic || rule.slim ? 1 : 2); locals++) {
            struct gapless_simulation_config config = config_of(&rule, locals == 1);

            ended(opened(&config), &whole);
            for (unsigned k = 0; k < sizeof stops / sizeof stops[0]; k++) {
                interrupted(&config, stops[k], &cut);
                same(rule.name, stops[k], &whole, &cut);
            }
        }
}

/* Twice; and by another number of threads. */
static void test_again_and_again(void **state)
{
    struct gapless_rule rule = {0};
    struct gapless_simulation_config config, again;
    struct gapless_simulation *s;
    struct sim_outcome whole, cut;

    (void)state;
    assert_int_equal(gapless_rule_find("dana-lga-adamw", &rule, NULL), GAPLESS_OK);
    config = config_of(&rule, false);
    ended(opened(&config), &whole);
    again = config;
    for (uint64_t at = 20; at < GRADIENTS; at += 40) {
        again.threads = 1 + (uint32_t)(at / 20 % 3);
        s = opened(&again);
        assert_int_equal(gapless_simulation_run(s, at, NULL), GAPLESS_OK);
        assert_int_equal(gapless_simulation_save(s, path, NULL, NULL), GAPLESS_OK);
        gapless_simulation_close(s);
        again.master.resume = path;
    }
    ended(opened(&again), &cut);
    same("dana-lga-adamw", 220, &whole, &cut);
}

static void refused(const struct gapless_simulation_config *config, int status,
                    const char *what)
{
    struct gapless_simulation *s = NULL;
    struct gapless_error error = {0};
    int was = gapless_simulation_open(config, &s, &error);

    if (was != status || strstr(error.text, what) == NULL)
        fail_msg("%s: %d: %s", what, was, error.text);
    assert_null(s);
}

static void test_other_runs(void **state)
{
    static const struct gapless_tensor others[] = {
        {.name = "w", .dims = 2, .dim = {9, 10}}, {.name = "c", .dims = 1, .dim = {9}}};
    struct gapless_rule rule = {0};
    struct gapless_simulation_config config, other;
    struct gapless_simulation *s;

    (void)state;
    assert_int_equal(gapless_rule_find("dana-ga", &rule, NULL), GAPLESS_OK);
    config = config_of(&rule, false);
    s = opened(&config);
    assert_int_equal(gapless_simulation_run(s, 50, NULL), GAPLESS_OK);
    assert_int_equal(gapless_simulation_save(s, path, NULL, NULL), GAPLESS_OK);
    gapless_simulation_close(s);
    config.master.resume = path;
    other = config;
    other.master.momentum = 0.8;
    refused(&other, GAPLESS_INVALID, "momentum=0,");
    other = config;
    other.master.rule = "nag-asgd";
    refused(&other, GAPLESS_INVALID, "rule=dana-ga");
    other = config;
    other.master.schedule.rate = 0.03;
    refused(&other, GAPLESS_INVALID, "rate=0.02");
    other = config;
    other.master.range_elements = 64;
    refused(&other, GAPLESS_INVALID, "ranges=");
    other = config;
    other.master.model.tensors = others;
    refused(&other, GAPLESS_MODEL, "'c'");
    other = config;
    other.seed++;
    refused(&other, GAPLESS_INVALID, "seed");
    other = config;
    other.workers++;
    refused(&other, GAPLESS_INVALID, "workers");
    other = config;
    other.latency_ns = 1;
    refused(&other, GAPLESS_UNSUPPORTED, "wire");
    assert_int_equal(truncate(path, 5000), 0);
    refused(&config, GAPLESS_CORRUPT, "damaged");
    assert_int_equal(unlink(path), 0);
    refused(&config, GAPLESS_MISSING, path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_rule),
        cmocka_unit_test(test_again_and_again),
        cmocka_unit_test(test_other_runs),
    };
    int failed;

    (void)snprintf(path, sizeof path, "/tmp/gapless-resume-%ld", (long)getpid());
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)unlink(path);
    return failed;
}
