/* Workers that leave and join, through the whole engine in one process, against the scalar
 * double-precision master: every asynchronous rule whose momentum is the master's, in one
 * range and in two, with and without a bound on the lag. The master's sum of all velocities
 * is held against the velocities themselves. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/master/master.h"
#include "engine/run/schedule.h"
#include "tests/property/oracle.h"
#include "transport/sim/sim.h"

#include <stdio.h>
#include <stdlib.h>

#define WORKERS 4
#define COUNT 507
#define TOTAL 240

static const struct gapless_tensor tensors[] = {
    {.name = "w", .dims = 2, .dim = {24, 20}},
    {.name = "b", .dims = 1, .dim = {COUNT - 480}}};
static const uint32_t block_ends[] = {480, COUNT};
static const struct gapless_schedule schedule = {
    .rate = 0.02, .warmup = 40, .warmup_from = 0.25};
static struct oracle oracle;
static bool whole_gate; /* of the rules of Adam */
static uint32_t drop_lag;
static uint64_t consumed; /* gradients, applied or dropped */

static uint64_t draw(uint64_t *state, uint64_t below)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return (*state >> 33) % below;
}

static double gradient_of(double param, uint64_t batch, int i)
{
    uint64_t state = batch * 1000003u + (uint64_t)i;

    (void)draw(&state, 2);
    return (0.2 + 0.8 * (i % 7) / 6.0) * (param - 1) +
           0.5 * ((double)draw(&state, 2001) / 1000 - 1);
}

static void pump(void *user)
{
    (void)gapless_master_run(user, 0, NULL);
}

static struct gapless_worker *join(struct gapless_master *m, int w, uint64_t *ret_batch)
{
    const struct gapless_worker_config config = {
        .address = "sim:members", .model = {tensors, 2}, .wish = (uint32_t)w + 1};
    struct gapless_error error = {0};
    struct gapless_worker *ret;

    (void)m;
    if (gapless_worker_open(&config, &ret, &error) != GAPLESS_OK ||
        gapless_worker_pull(ret, ret_batch, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    assert_int_equal(gapless_worker_number(ret), w);
    return ret;
}

static void leave(struct gapless_master *m, struct gapless_worker *worker,
                  uint32_t stay)
{
    struct gapless_stats stats;

    gapless_worker_close(worker);
    for (int i = 0; i < 100; i++) {
        pump(m);
        gapless_master_stats(m, &stats);
        if (stats.workers_active == stay)
            return;
    }
    fail_msg("the master has not seen a worker leave");
}

static void oracle_open(const struct rule *rule)
{
    memset(&oracle, 0, sizeof oracle);
    oracle.rule = rule->name;
    assert_true(oracle_find(&oracle));
    oracle.k = COUNT;
    oracle.workers = oracle.active = WORKERS;
    oracle.blocks = 2;
    oracle.ends = block_ends;
    oracle.gamma = 0.9, oracle.rate_max = 0.02, oracle.rho = 0.999;
    oracle.lambda = 0.04, oracle.lambda_zero = 2, oracle.m = 0.95;
    oracle.whole = whole_gate && oracle_is_adam(&oracle);
    oracle.kappa = oracle.whole ? 30 : oracle_is_adam(&oracle) ? 10 : 5;
    oracle.rest_scale = 1;
    if (rule->flags & RULE_MATRIX)
        oracle.rows = 24, oracle.cols = 20;
    oracle.beta2 = 0.95, oracle.epsilon = 1e-8, oracle.decay = 0.1;
    for (int i = 0; i < 480; i++)
        oracle.decays[i] = true;
}

/* One gradient, on both sides. */
static void push_and_pull(struct gapless_worker *worker, int w, uint64_t *batch,
                          double rate)
{
    uint64_t lag = (uint64_t)(oracle.version - oracle.read[w]);
    const float *params = gapless_worker_params(worker);
    float *grad = gapless_worker_grad(worker);
    double gradient[COUNT];

    for (int i = 0; i < COUNT; i++) {
        grad[i] = (float)gradient_of((double)params[i], *batch, i);
        gradient[i] = gradient_of(oracle.x[w][i], *batch, i);
    }
    consumed++;
    if (drop_lag == 0 || lag < drop_lag)
        oracle_push(&oracle, w, gradient, rate);
    else
        oracle_give(&oracle, w, schedule_rate(&schedule, 0, consumed));
    assert_int_equal(gapless_worker_push(worker, 0, NULL), GAPLESS_OK);
    assert_int_equal(gapless_worker_pull(worker, batch, NULL), GAPLESS_OK);
}

/* What the master holds is what the oracle holds. */
static void compare(const struct gapless_master *m, const struct rule *rule, int step)
{
    for (int i = 0; i < COUNT; i++) {
        double sum = 0;

        if (!(fabs((double)m->theta[i] - oracle.theta[i]) < 2e-5))
            fail_msg("%s, gradient %d: parameter %d is %.9g, not %.9g", rule->name,
                     step, i, (double)m->theta[i], oracle.theta[i]);
        for (int w = 0; w < WORKERS && (rule->flags & RULE_SUM) != 0; w++)
            if (m->core->worker[w].state != CORE_FREE)
                sum += (double)m->slot[w].own[i];
        if ((rule->flags & RULE_SUM) && !(fabs(sum - (double)m->all[i]) < 1e-5))
            fail_msg("%s, gradient %d: the sum of all is off by %g", rule->name, step,
                     sum - (double)m->all[i]);
    }
}

/* Worker 1 leaves at 60, worker 2 at 90; 1 is back at 130, 2 at 160. */
static void come_and_go(struct gapless_master *m, int step, double rate,
                        struct gapless_worker *worker[WORKERS], uint64_t *batch)
{
    int who = step == 60 || step == 130 ? 1 : step == 90 || step == 160 ? 2 : 0;

    if (who == 0)
        return;
    if (step < 100) {
        leave(m, worker[who], (uint32_t)oracle.active - 1);
        worker[who] = NULL;
        oracle_leave(&oracle, who);
    } else {
        worker[who] = join(m, who, &batch[who]);
        oracle_join(&oracle, who);
        oracle_give(&oracle, who, rate);
    }
}

static void run(const struct rule *rule, uint64_t range_elements)
{
    struct gapless_master_config config = {.address = "sim:members",
                                           .model = {tensors, 2},
                                           .rule = rule->name,
                                           .schedule = schedule,
                                           .workers_max = WORKERS,
                                           .workers_wait = WORKERS,
                                           .gate = whole_gate ? GAPLESS_GATE_AUTO
                                                              : GAPLESS_GATE_TENSOR,
                                           .drop_lag = drop_lag,
                                           .range_elements = range_elements};
    const struct gapless_worker_config own = {.address = config.address,
                                              .model = config.model};
    struct gapless_worker *worker[WORKERS];
    uint64_t batch[WORKERS], random = 99;
    struct gapless_error error = {0};
    struct gapless_master *m;

    if (gapless_master_open(&config, &m, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    sim_pump_set(sim_world_of(m->tp), pump, m);
    oracle_open(rule);
    consumed = 0;
    for (int w = 0; w < WORKERS; w++)
        assert_int_equal(gapless_worker_open(&own, &worker[w], &error), GAPLESS_OK);
    for (int w = 0; w < WORKERS; w++)
        assert_int_equal(gapless_worker_pull(worker[w], &batch[w], &error), GAPLESS_OK);
    for (int step = 0; step < TOTAL; step++) {
        int w = (int)draw(&random, WORKERS);
        double rate = schedule_rate(&schedule, 0, consumed);

        come_and_go(m, step, rate, worker, batch);
        if (worker[w] == NULL)
            continue;
        push_and_pull(worker[w], w, &batch[w], rate);
        compare(m, rule, step);
    }
    for (int w = 0; w < WORKERS; w++)
        gapless_worker_close(worker[w]);
    gapless_master_close(m);
}

static void every_rule(void **state)
{
    const unsigned at_the_worker =
        RULE_ROUND | RULE_WORKER_SLIM | RULE_WORKER_ELASTIC | RULE_PUBLISHED;

    (void)state;
    for (int i = 0; i < rules_count; i++)
        for (uint64_t range = 0; range <= 256; range += 256)
            if (!(rules[i].flags & at_the_worker)) {
                whole_gate = range == 0;
                drop_lag = range == 0 ? 0 : 1000; /* which is never reached */
                run(&rules[i], range);
                drop_lag = 4;
                run(&rules[i], range);
            }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_rule)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
