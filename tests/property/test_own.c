/* Tensors with a rate, a decay or an average of their own, in runs of the simulator: what
 * running averages come to under many stale workers, and that no bit depends on threads, on
 * ranges, or on whether a run is repeated from its record. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/run/layout.h"
#include "engine/run/record.h"
#include "engine/simulator/simulator.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define COUNT 300u
#define AVERAGES                                                                       \
    101u /* the first of the averages, of which two kinds are next to each other */
#define OTHERS 180u /* and the first of the parameters behind them */

static const struct gapless_tensor tensors[] = {
    {.name = "w", .dims = 2, .dim = {9, 10}},
    {.name = "b", .dims = 1, .dim = {11}},
    {.name = "mean", .dims = 1, .dim = {40}, .average = 0.1},
    {.name = "var", .dims = 1, .dim = {9}, .average = 0.1},
    {.name = "slow", .dims = 2, .dim = {3, 10}, .average = 0.01},
    {.name = "u", .dims = 1, .dim = {100}, .rate = 0.5, .decay = 0.01},
    {.name = "v", .dims = 1, .dim = {20}, .rate = 2, .decay = GAPLESS_NO_DECAY}};

/* Half a dozen roundings of numbers of about 2 are 1e-6 an update, of which those of the last 100
 * count: at random signs ten times that. A wrong average is off by 1e-2. */
#define ROUNDING 1e-5

static char path[64];

static double average_at(uint32_t i)
{
    return i < AVERAGES || i >= OTHERS ? 0 : i < 150 ? 0.1 : 0.01;
}

static uint64_t draw(uint64_t *state)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return *state >> 33;
}

/* The statistic of a batch that an average is of. */
static double statistic(uint64_t batch, uint32_t i)
{
    uint64_t state = batch * 2654435761u + i * 40503u;

    (void)draw(&state);
    return (double)(draw(&state) % 2001) / 500 - 1 + (double)i / COUNT;
}

/* Parameters in a noisy bowl; averages as a worker hands them in, after `steps` batches. */
static double local(void *context, uint32_t thread, uint32_t joined, uint64_t batch,
                    uint32_t steps, const float *params, float *grad)
{
    double loss = 0;

    (void)context, (void)thread, (void)joined;
    for (uint32_t i = 0; i < COUNT; i++) {
        float off = params[i] - 1, now = params[i];
        float average = (float)average_at(i);

        loss += 0.5 * (double)(off * off) / COUNT;
        for (uint32_t s = 0; s < steps && average > 0; s++)
            now = (1 - average) * now + average * (float)statistic(batch + s, i);
        grad[i] = average > 0 ? params[i] - now
                              : off + 0.3f * (float)(statistic(batch, i) - 1);
    }
    return loss;
}

static double gradient(void *context, uint32_t thread, uint64_t batch,
                       const float *params, float *grad)
{
    return local(context, thread, 0, batch, 1, params, grad);
}

static struct gapless_simulation_config config_of(const char *rule, uint32_t workers,
                                                  uint64_t gradients)
{
    return (struct gapless_simulation_config){
        .master = {.model = {tensors, 7},
                   .rule = rule,
                   .schedule = {.rate = 0.01},
                   .gradients = gradients,
                   .gap_every = 1,
                   .clip_norm = 20},
        .workers = workers,
        .seed = 3,
        .clock = GAPLESS_CLOCK_HETEROGENEOUS,
        .batch_ns = 1000000,
        .latency_ns = 20000,
        .gradient = gradient,
        .local = local,
    };
}

static void run(const struct gapless_simulation_config *config, float *ret,
                struct gapless_stats *ret_stats)
{
    struct gapless_simulation *s = NULL;
    struct gapless_error error = {0};
    int status = gapless_simulation_open(config, &s, &error);

    if (status == GAPLESS_OK)
        status = gapless_simulation_run(s, 0, &error);
    if (status != GAPLESS_STOPPED)
        fail_msg("%s: %d, %s", config->master.rule, status, error.text);
    memcpy(ret, gapless_master_params(gapless_simulation_master(s)),
           COUNT * sizeof *ret);
    if (ret_stats != NULL)
        gapless_master_stats(gapless_simulation_master(s), ret_stats);
    gapless_simulation_close(s);
}

static bool is(const struct gapless_rule *rule, const char *name)
{
    return strcmp(rule->name, name) == 0;
}

/* Muon's rules want tensors in another order: a matrix may not be cut. */
static bool takes_part(const struct gapless_rule *rule)
{
    return !is(rule, "shared-lga-dot") && !rule->matrices;
}

/* ---- averages ------------------------------------------------------------ */

/* What one process has that sees the batches in the order of arrival, `steps` in a row. */
static void recur(const struct record *record, const uint32_t *steps, double *ret)
{
    memset(ret, 0, COUNT * sizeof *ret);
    for (size_t e = 0; e < record->count; e++) {
        uint64_t batch = record->events[e].batch;

        if (record->events[e].kind != RECORD_GRADIENT)
            continue;
        for (uint32_t s = 0; s < (steps != NULL ? steps[batch] : 1); s++)
            for (uint32_t i = AVERAGES; i < OTHERS; i++)
                ret[i] = (1 - average_at(i)) * ret[i] +
                         average_at(i) * statistic(batch + s, i);
    }
}

/* The largest part of an average that is off. */
static double off(const float *params, const double *want)
{
    double worst = 0;

    for (uint32_t i = AVERAGES; i < OTHERS; i++)
        worst = fmax(worst, fabs((double)params[i] - want[i]));
    return worst;
}

static struct record *record_of(void)
{
    struct record *ret = NULL;

    assert_int_equal(record_read(path, &ret, NULL), GAPLESS_OK);
    return ret;
}

/* 64 workers, and gradients that are about 63 updates old. */
static void test_stale_averages(void **state)
{
    static float params[COUNT];
    static double want[COUNT];
    struct gapless_rule rule;

    (void)state;
    for (unsigned r = 0; gapless_rule_at(r, &rule) == GAPLESS_OK; r++) {
        struct gapless_simulation_config config = config_of(rule.name, 64, 2000);
        struct gapless_stats stats;
        struct record *record;

        if (!takes_part(&rule) || rule.synchronous || rule.elastic)
            continue;
        config.master.record = path;
        run(&config, params, &stats);
        assert_true(stats.lag.mean > 50);
        record = record_of();
        recur(record, NULL, want);
        record_free(record);
        if (!(off(params, want) < ROUNDING))
            fail_msg("%s: an average is off by %g", rule.name, off(params, want));
    }
}

/* As many batches in a row as each worker has time for. */
static uint32_t taken[4096];

static double local_noted(void *context, uint32_t thread, uint32_t joined,
                          uint64_t batch, uint32_t steps, const float *params,
                          float *grad)
{
    taken[batch] = steps;
    return local(context, thread, joined, batch, steps, params, grad);
}

static void test_averages_of_local_steps(void **state)
{
    static const char *const names[] = {"nag-asgd", "dn", "dana-ga", "dana-adamw"};
    static float params[COUNT];
    static double want[COUNT];

    (void)state;
    for (size_t r = 0; r < sizeof names / sizeof *names; r++) {
        struct gapless_simulation_config config = config_of(names[r], 16, 4000);
        struct gapless_tensor without_decay[7];
        uint32_t least = UINT32_MAX, most = 0;
        struct record *record;

        memcpy(without_decay, tensors, sizeof tensors);
        without_decay[5].decay = 0;
        config.master.model.tensors = without_decay;

        config.local = local_noted;
        config.master.local_steps = 8;
        config.master.adapt_steps = true;
        config.master.record = path;
        config.master.clip_norm = 0;
        run(&config, params, NULL);
        record = record_of();
        for (size_t e = 0; e < record->count; e++)
            if (record->events[e].kind == RECORD_GRADIENT) {
                uint32_t steps = taken[record->events[e].batch];

                least = steps < least ? steps : least,
                most = steps > most ? steps : most;
            }
        assert_true(least < most);
        recur(record, taken, want);
        record_free(record);
        if (!(off(params, want) < ROUNDING))
            fail_msg("%s: an average is off by %g", names[r], off(params, want));
    }
}

/* A round: theta is the mean of the workers' new. */
static void test_averages_of_rounds(void **state)
{
    const uint32_t workers = 5, rounds = 100;
    static float params[COUNT];
    static double want[COUNT];

    (void)state;
    for (int adam = 0; adam < 2; adam++) {
        struct gapless_simulation_config config =
            config_of(adam ? "ssgd-adamw" : "ssgd", workers, workers * rounds);

        run(&config, params, NULL);
        memset(want, 0, sizeof want);
        for (uint64_t batch = 0; batch < workers * rounds; batch += workers)
            for (uint32_t i = AVERAGES; i < OTHERS; i++) {
                double mean = 0;

                for (uint32_t w = 0; w < workers; w++)
                    mean += statistic(batch + w, i) / workers;
                want[i] = (1 - average_at(i)) * want[i] + average_at(i) * mean;
            }
        if (!(off(params, want) < ROUNDING))
            fail_msg("%s: an average is off by %g", config.master.rule,
                     off(params, want));
    }
}

/* ---- bits ---------------------------------------------------------------- */

static void same(const char *rule, const char *what, const float *a, const float *b)
{
    for (uint32_t i = 0; i < COUNT; i++)
        if (memcmp(&a[i], &b[i], sizeof *a) != 0)
            fail_msg("%s, %s, element %u: %.9g, not %.9g", rule, what, i, (double)b[i],
                     (double)a[i]);
}

/* Threads, ranges of 16 elements, and a replay: the same parameters. Sums over a whole
 * gradient are the only thing that a cut into ranges changes: those rules stay as they are. */
static void test_bits(void **state)
{
    static float first[COUNT], again[COUNT];
    struct gapless_rule rule;

    (void)state;
    for (unsigned r = 0; gapless_rule_at(r, &rule) == GAPLESS_OK; r++) {
        struct gapless_simulation_config config = config_of(rule.name, 6, 300);

        if (!takes_part(&rule))
            continue;
        config.master.record = path;
        run(&config, first, NULL);
        config.master.record = NULL;
        config.threads = 3;
        run(&config, again, NULL);
        same(rule.name, "threads", first, again);
        config.replay = path;
        run(&config, again, NULL);
        same(rule.name, "replay", first, again);
        config.replay = NULL;
        config.master.range_elements = 16;
        if (rule.settings & GAPLESS_SETS_KAPPA || rule.whole)
            continue;
        run(&config, again, NULL);
        same(rule.name, "ranges", first, again);
    }
}

/* All fields as they are where nothing is said: the bits of a model that says nothing. */
static void test_nothing_of_their_own(void **state)
{
    struct gapless_tensor plain[7], said[7];
    static float first[COUNT], again[COUNT];
    struct gapless_rule rule;

    (void)state;
    for (int t = 0; t < 7; t++) {
        plain[t] = tensors[t];
        plain[t].rate = plain[t].decay = plain[t].average = 0;
        said[t] = plain[t];
        said[t].rate = 1;
    }
    for (unsigned r = 0; gapless_rule_at(r, &rule) == GAPLESS_OK; r++) {
        struct gapless_simulation_config config = config_of(rule.name, 6, 300);

        config.master.model.tensors = plain;
        run(&config, first, NULL);
        config.master.model.tensors = said;
        run(&config, again, NULL);
        same(rule.name, "rate 1", first, again);
    }
}

/* ---- what is refused ----------------------------------------------------- */

static void refused(const struct gapless_master_config *config, const char *word)
{
    struct gapless_error error = {0};

    assert_int_equal(gapless_master_check(config, &error), GAPLESS_INVALID);
    if (strstr(error.text, word) == NULL)
        fail_msg("'%s' does not say '%s'", error.text, word);
}

static void test_refused(void **state)
{
    struct gapless_tensor t[] = {{.name = "a", .dims = 2, .dim = {5, 5}},
                                 {.name = "m", .dims = 1, .dim = {5}, .average = 0.1},
                                 {.name = "d", .dims = 1, .dim = {5}, .decay = 0.1}};
    struct gapless_master_config config = config_of("nag-asgd", 2, 10).master;

    (void)state;
    config.clip_norm = 0;
    config.model = (struct gapless_model){t, 3};
    assert_int_equal(gapless_master_check(&config, NULL), GAPLESS_OK);
    config.rule = "shared-lga-dot";
    refused(&config, "shared-lga, which keeps one");
    config.rule = "muon"; /* elements 16 to 31 are of the matrix and of the average */
    refused(&config, "'a' is a matrix");
    config.rule = "nag-asgd", config.local_steps = 4;
    refused(&config, "'d'");
    config.local_steps = 0;
    t[2].rate = 1e300;
    refused(&config, "'d' has a rate");
    t[2].rate = 1e-300;
    refused(&config, "'d' has a rate");
    config.model.tensors = t + 1, config.model.tensors_count = 1;
    refused(&config, "nothing to train");
}

/* ---- what is not finite -------------------------------------------------- */

static double bad_average(void *context, uint32_t thread, uint64_t batch,
                          const float *params, float *grad)
{
    double ret = gradient(context, thread, batch, params, grad);

    if (batch % 5 == 4)
        grad[AVERAGES + batch % (OTHERS - AVERAGES)] = batch % 2 ? NAN : INFINITY;
    return ret;
}

/* An average that is not finite leaves no trace, although it is in no norm. */
static void test_not_finite(void **state)
{
    static float params[COUNT];
    struct gapless_simulation_config config = config_of("dana-ga", 4, 100);
    struct gapless_stats stats;

    (void)state;
    config.gradient = bad_average;
    run(&config, params, &stats);
    assert_int_equal(stats.dropped, 20);
    for (uint32_t i = 0; i < COUNT; i++)
        assert_true(isfinite(params[i]));
}

/* A worker that says no factor: its gradients are dropped. */
static void test_no_factor(void **state)
{
    static const double bad[] = {NAN, INFINITY, -1, -1e-300};

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct gapless_simulation_config config = config_of("dana-ga", 1, 4);
        struct gapless_simulation *s = NULL;
        struct gapless_stats stats;

        assert_int_equal(gapless_simulation_open(&config, &s, NULL), GAPLESS_OK);
        assert_int_equal(gapless_simulation_run(s, 1, NULL), GAPLESS_OK);
        assert_int_equal(gapless_worker_set_rate(s->worker[0].worker, bad[i]),
                         GAPLESS_INVALID);
        assert_int_equal(gapless_worker_set_rate(s->worker[0].worker, 0), GAPLESS_OK);
        s->worker[0].worker->factor = bad[i];
        assert_int_equal(gapless_simulation_run(s, 0, NULL), GAPLESS_STOPPED);
        gapless_master_stats(gapless_simulation_master(s), &stats);
        assert_int_equal(stats.gradients, 4);
        assert_int_equal(stats.dropped, 3);
        assert_int_equal(stats.updates, 1);
        gapless_simulation_close(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stale_averages),
        cmocka_unit_test(test_averages_of_local_steps),
        cmocka_unit_test(test_averages_of_rounds),
        cmocka_unit_test(test_bits),
        cmocka_unit_test(test_nothing_of_their_own),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_no_factor),
    };
    int failed;

    (void)snprintf(path, sizeof path, "/tmp/gapless-own-%ld", (long)getpid());
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)unlink(path);
    return failed;
}
