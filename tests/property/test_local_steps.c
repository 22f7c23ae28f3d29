/* Local steps: the inner optimizers against plain double, and runs of them in virtual
 * time. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "cluster/task/local.h"
#include "tests/property/simulated.h"

#include <math.h>

#define STEPS 200u
#define MATRIX 90u /* elements of sim_tensors' first tensor, which decays */

static const struct gapless_model model = {sim_tensors, 2};

static int gradient(void *context, uint64_t batch, const float *params, float *grad,
                    double *ret_loss, struct gapless_error *error)
{
    (void)error;
    *ret_loss = sim_gradient(context, 0, batch, params, grad);
    return GAPLESS_OK;
}

static struct local_plan plan_of(enum local_inner inner)
{
    return (struct local_plan){
        .steps = 8,
        .inner = inner,
        .momentum = 0.9,
        .beta2 = 0.999,
        .decay = 0.01,
        .schedule = {.rate = 0.01,
                     .warmup = 20,
                     .warmup_from = 0.25,
                     .steps_count = 1,
                     .steps = {{150, 0.5}},
                     .cosine = true,
                     .cosine_to = 0.1},
        .total = STEPS,
    };
}

static double inner_rate(const struct local_plan *plan, uint64_t t)
{
    const double pi = 3.14159265358979323846;

    if (t < plan->schedule.warmup)
        return plan->schedule.rate * (0.25 + 0.75 * (double)t / 20.0);
    return plan->schedule.rate * (t >= 150 ? 0.5 : 1.0) *
           (0.1 + 0.9 * 0.5 * (1 + cos(pi * ((double)t - 20) / (STEPS - 20.0))));
}

/* As torch.optim has them, one parameter after the other. */
struct plain {
    double x[SIM_COUNT], m[SIM_COUNT], s[SIM_COUNT];
};

static void plain_step(struct plain *p, const struct local_plan *plan, uint64_t t)
{
    float x[SIM_COUNT], given[SIM_COUNT];
    double d, lr = inner_rate(plan, t), mu = plan->momentum, b2 = plan->beta2;
    double one = 1 - pow(mu, (double)t + 1), two = 1 - pow(b2, (double)t + 1);

    for (uint32_t i = 0; i < SIM_COUNT; i++)
        x[i] = (float)p->x[i];
    (void)sim_gradient(NULL, 0, t, x, given);
    for (uint32_t i = 0; i < SIM_COUNT; i++) {
        d = (double)given[i];
        if (plan->inner == LOCAL_SGD) {
            p->m[i] = mu * p->m[i] + d;
            p->x[i] -= lr * p->m[i];
            continue;
        }
        p->x[i] *= 1 - lr * (i < MATRIX ? plan->decay : 0);
        p->m[i] = mu * p->m[i] + (1 - mu) * d;
        p->s[i] = b2 * p->s[i] + (1 - b2) * d * d;
        p->x[i] -= lr * (p->m[i] / one) / (sqrt(p->s[i] / two) + LOCAL_EPSILON);
    }
}

static void start(float *ret)
{
    for (uint32_t i = 0; i < SIM_COUNT; i++)
        ret[i] = 2.0f + 0.01f * (float)i;
}

/* Exchanges of `each` steps, one behind the other, at a master that takes what it gets
 * in full. */
static void run_local(const struct local_plan *plan, uint32_t each, float *x)
{
    float grad[SIM_COUNT];
    struct local *local;
    double loss;

    assert_int_equal(local_new(plan, &model, &local, NULL), GAPLESS_OK);
    start(x);
    for (uint32_t t = 0; t < STEPS; t += each) {
        assert_int_equal(
            local_exchange(local, t, each, x, gradient, NULL, grad, &loss, NULL),
            GAPLESS_OK);
        assert_true(isfinite(loss));
        for (uint32_t i = 0; i < SIM_COUNT; i++)
            x[i] -= grad[i];
    }
    local_free(local);
}

/* To 1e-6 of the length of the whole vector: it is all rounding. */
static void check_near(const struct plain *p, const float *x, int inner, uint32_t each)
{
    double off = 0, all = 0;

    for (uint32_t i = 0; i < SIM_COUNT; i++) {
        off += ((double)x[i] - p->x[i]) * ((double)x[i] - p->x[i]);
        all += p->x[i] * p->x[i];
    }
    if (!(sqrt(off / all) < 1e-6))
        fail_msg("inner %d, %u at a time: off by %g", inner, each, sqrt(off / all));
}

/* Also that the state stays from one exchange to the next: any cut of the same steps. */
static void test_as_torch(void **state)
{
    static const uint32_t each[] = {1, 8, STEPS};

    (void)state;
    for (int inner = LOCAL_SGD; inner <= LOCAL_ADAMW; inner++)
        for (size_t k = 0; k < 3; k++) {
            struct local_plan plan = plan_of((enum local_inner)inner);
            struct plain p = {.x = {0}};
            float x[SIM_COUNT];

            start(x);
            for (uint32_t i = 0; i < SIM_COUNT; i++)
                p.x[i] = (double)x[i];
            for (uint32_t t = 0; t < STEPS; t++)
                plain_step(&p, &plan, t);
            run_local(&plan, each[k], x);
            check_near(&p, x, inner, each[k]);
        }
}

static void test_loss_is_the_mean(void **state)
{
    struct local_plan plan = plan_of(LOCAL_SGD);
    float x[SIM_COUNT], grad[SIM_COUNT], one[SIM_COUNT];
    double loss, first, second;
    struct local *local;

    (void)state;
    plan.momentum = 0;
    plan.schedule = (struct gapless_schedule){.rate = 0.5};
    start(x);
    first = sim_gradient(NULL, 0, 6, x, one);
    for (uint32_t i = 0; i < SIM_COUNT; i++)
        one[i] = x[i] - 0.5f * one[i];
    second = sim_gradient(NULL, 0, 7, one, grad);
    assert_int_equal(local_new(&plan, &model, &local, NULL), GAPLESS_OK);
    assert_int_equal(local_exchange(local, 6, 2, x, gradient, NULL, grad, &loss, NULL),
                     GAPLESS_OK);
    assert_true(fabs(loss - 0.5 * (first + second)) < 1e-12);
    local_free(local);
}

static int bad_gradient(void *context, uint64_t batch, const float *params, float *grad,
                        double *ret_loss, struct gapless_error *error)
{
    int status = gradient(context, batch, params, grad, ret_loss, error);

    grad[3] = NAN;
    return status;
}

/* What is not finite is handed in, so that it is dropped, and leaves nothing behind. */
static void test_not_finite_starts_anew(void **state)
{
    struct local_plan plan = plan_of(LOCAL_ADAMW);
    float x[SIM_COUNT], grad[SIM_COUNT], fresh[SIM_COUNT];
    struct local *local, *other;
    double loss;

    (void)state;
    start(x);
    assert_int_equal(local_new(&plan, &model, &local, NULL), GAPLESS_OK);
    assert_int_equal(local_new(&plan, &model, &other, NULL), GAPLESS_OK);
    (void)local_exchange(local, 0, 3, x, gradient, NULL, grad, &loss, NULL);
    (void)local_exchange(local, 3, 3, x, bad_gradient, NULL, grad, &loss, NULL);
    assert_true(isnan(grad[3]));
    (void)local_exchange(local, 6, 3, x, gradient, NULL, grad, &loss, NULL);
    (void)local_exchange(other, 6, 3, x, gradient, NULL, fresh, &loss, NULL);
    assert_memory_equal(grad, fresh, sizeof grad);
    local_free(local);
    local_free(other);
}

static void test_text(void **state)
{
    static const char *const wrong[] = {
        "inner=adamw rate=0.1",
        "steps=0 inner=sgd rate=1",
        "steps=2 inner=adam rate=1",
        "steps=2 inner=sgd rate=-1",
        "steps=2 inner=sgd rate=0",
        "steps=2 inner=sgd rate=1 factor=0.5",
        "steps=2 inner=sgd rate=1 at=5:0.1",
        "steps=two inner=sgd rate=1",
        "steps=2 rate=1 momentum=nan",
    };
    struct local_plan plan = plan_of(LOCAL_ADAMW), again;
    struct gapless_error error = {0};
    char text[LOCAL_TEXT_MAX];

    (void)state;
    plan.schedule.rate = 0.1 + 0.2; /* not short */
    assert_true(local_write(&plan, text));
    assert_int_equal(local_read(text, &again, &error), GAPLESS_OK);
    assert_memory_equal(&plan, &again, sizeof plan);
    assert_int_equal(local_read("", &again, &error), GAPLESS_OK);
    assert_int_equal(again.steps, 0);
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        if (local_read(wrong[i], &again, &error) != GAPLESS_PROTOCOL)
            fail_msg("'%s' was read", wrong[i]);
        assert_true(error.text[0] != '\0');
    }
}

/* ---- in virtual time ----------------------------------------------------- */

#define LOCALS 16u

struct locals {
    struct local_plan plan;
    struct local *of[LOCALS]; /* by who joined */
};

static double sim_local(void *context, uint32_t thread, uint32_t joined, uint64_t batch,
                        uint32_t steps, const float *params, float *grad)
{
    struct locals *all = context;
    double loss = 0;

    (void)thread;
    assert_true(joined < LOCALS);
    if (all->of[joined] == NULL)
        assert_int_equal(local_new(&all->plan, &model, &all->of[joined], NULL),
                         GAPLESS_OK);
    (void)local_exchange(all->of[joined], batch, steps, params, gradient, NULL, grad,
                         &loss, NULL);
    return loss;
}

static void run_sim(struct gapless_simulation_config *config, struct local_plan plan,
                    struct sim_outcome *ret)
{
    struct locals all = {.plan = plan};

    config->local = sim_local;
    config->context = &all;
    sim_run(config, ret);
    for (uint32_t i = 0; i < LOCALS; i++)
        local_free(all.of[i]);
}

/* One step of plain SGD, handed in to a rule that takes it in full, is SGD. */
static void test_one_step_is_sgd(void **state)
{
    struct gapless_simulation_config config = sim_config("asgd", 4, 400);
    struct local_plan plan = {
        .steps = 1, .inner = LOCAL_SGD, .schedule = {.rate = 0.02}, .total = 400};
    struct sim_outcome plain, local;

    (void)state;
    config.master.schedule = plan.schedule;
    sim_run(&config, &plain);
    assert_int_equal(plain.status, GAPLESS_STOPPED);
    config.master.schedule.rate = 1;
    config.master.local_steps = 1;
    run_sim(&config, plan, &local);
    assert_int_equal(local.status, GAPLESS_STOPPED);
    for (uint32_t i = 0; i < SIM_COUNT; i++)
        if (fabsf(plain.params[i] - local.params[i]) > 2e-6f)
            fail_msg("parameter %u: %.9g, not %.9g", i, (double)local.params[i],
                     (double)plain.params[i]);
}

/* Batches are counted, an update is an exchange, and an exchange takes as long as its
 * batches. */
static void test_counts_and_time(void **state)
{
    struct gapless_simulation_config config = sim_config("nag-asgd", 2, 83);
    struct sim_outcome got;

    (void)state;
    config.clock = GAPLESS_CLOCK_ROUND_ROBIN;
    config.master.schedule = (struct gapless_schedule){.rate = 0.1};
    config.master.local_steps = 8;
    run_sim(&config, plan_of(LOCAL_ADAMW), &got);
    assert_int_equal(got.status, GAPLESS_STOPPED);
    assert_int_equal(got.stats.gradients, 83);
    assert_int_equal(got.stats.updates, 11); /* ten of 8 and one of 3 */
    assert_int_equal(got.stats.lag.count, 11);
    /* five exchanges each, and the one of 3 */
    assert_int_equal(got.costs.virtual_ns, 43 * SIM_BATCH_NS);
}

/* The same bits for any number of threads, also where workers come and go; every batch is
 * consumed. */
static void test_threads_and_events(void **state)
{
    static const struct gapless_incident incidents[] = {
        {.at_ns = 20 * SIM_BATCH_NS, .kind = GAPLESS_KILL, .worker = 1},
        {.at_ns = 30 * SIM_BATCH_NS, .kind = GAPLESS_JOIN},
        {.at_ns = 40 * SIM_BATCH_NS, .kind = GAPLESS_STALL, .worker = 2, .ns = 5000000},
        {.at_ns = 50 * SIM_BATCH_NS, .kind = GAPLESS_LEAVE, .worker = 0},
    };
    static const char *const rules[] = {"dn", "dana-zero", "ssgd", "adamw"};

    (void)state;
    for (int adapt = 0; adapt < 2; adapt++)
        for (size_t r = 0; r < 4; r++) {
            struct gapless_simulation_config config = sim_config(rules[r], 4, 500);
            struct sim_outcome one, many;

            config.clock = GAPLESS_CLOCK_HETEROGENEOUS;
            config.incidents = incidents;
            config.incidents_count = 4;
            config.master.schedule = (struct gapless_schedule){.rate = 0.1};
            config.master.local_steps = 8;
            config.master.adapt_steps = adapt;
            run_sim(&config, plan_of(LOCAL_ADAMW), &one);
            config.threads = 3;
            run_sim(&config, plan_of(LOCAL_ADAMW), &many);
            assert_int_equal(one.status, GAPLESS_STOPPED);
            assert_int_equal(one.stats.gradients, 500);
            assert_memory_equal(one.params, many.params, sizeof one.params);
            assert_int_equal(one.costs.virtual_ns, many.costs.virtual_ns);
        }
}

/* Of workers that take 1 and 4 ms for a batch, the slow one is 4 exchanges late with the
 * same number of steps, and one with steps that follow the speed. */
static void test_adapt_evens_the_lag(void **state)
{
    static const struct gapless_batch_time times[] = {{0, 1000000}, {1, 4000000}};
    struct sim_outcome same, adapted;

    (void)state;
    for (int adapt = 0; adapt < 2; adapt++) {
        struct gapless_simulation_config config = sim_config("asgd", 2, 2000);

        config.clock = GAPLESS_CLOCK_TIMES;
        config.times = times;
        config.times_count = 2;
        config.master.schedule = (struct gapless_schedule){.rate = 0.1};
        config.master.local_steps = 16;
        config.master.adapt_steps = adapt;
        run_sim(&config, plan_of(LOCAL_SGD), adapt ? &adapted : &same);
    }
    assert_true(same.stats.lag.max >= 4);
    /* the slow one's first exchange has all 16 steps; then one update of the other */
    assert_int_equal((int)adapted.stats.lag.p99, 1);
    assert_true(fabs(adapted.stats.lag.mean - 1) < 0.05);
    assert_int_equal(adapted.stats.gradients, 2000);
    /* 16 and 4 batches in 16 ms */
    assert_true(adapted.costs.virtual_ns < 1650 * 1000000ull);
}

static void test_refused(void **state)
{
    static const struct {
        const char *rule;
        uint32_t steps;
        bool adapt;
        double kappa, decay;
        const char *text; /* NULL: it opens */
    } cases[] = {
        {"easgd", 4, false, 0, 0, "local_steps"},
        {"dana-slim", 4, false, 0, 0, "dn"},
        {"dana-lga", 4, false, 0, 0, "kappa"},
        {"dana-lga", 4, false, 3, 0, NULL},
        {"shared-lga-dot", 4, false, 3, 0, NULL},
        {"dana-ga", 4, false, 0, 0.1, "weight_decay"},
        {"dana-ga", 0, true, 0, 0, "adapt_steps"},
        {"dana-ga", 4, true, 0, 0, NULL},
        {"ssgd-adamw", 4, true, 0, 0, NULL},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct gapless_simulation_config config = sim_config(cases[i].rule, 2, 100);
        struct sim_outcome got;

        config.master.local_steps = cases[i].steps;
        config.master.adapt_steps = cases[i].adapt;
        config.master.kappa = cases[i].kappa;
        config.master.weight_decay = cases[i].decay;
        run_sim(&config, plan_of(LOCAL_SGD), &got);
        assert_int_equal(got.status,
                         cases[i].text == NULL ? GAPLESS_STOPPED : GAPLESS_INVALID);
        if (cases[i].text != NULL && strstr(got.error.text, cases[i].text) == NULL)
            fail_msg("'%s' has no '%s'", got.error.text, cases[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_torch),
        cmocka_unit_test(test_loss_is_the_mean),
        cmocka_unit_test(test_not_finite_starts_anew),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_one_step_is_sgd),
        cmocka_unit_test(test_counts_and_time),
        cmocka_unit_test(test_threads_and_events),
        cmocka_unit_test(test_adapt_evens_the_lag),
        cmocka_unit_test(test_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
