/* The whole engine, live over shared memory, against the scalar double-precision
 * master: every rule, several workers in a seeded order of arrival, a schedule with
 * warm-up and a milestone, one range and two. A worker that has pushed pulls before the
 * next one pushes, so the order is known. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <gapless/gapless.h>
#include "engine/run/layout.h"
#include "engine/run/schedule.h"
#include "tests/pace.h"
#include "tests/property/oracle.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORKERS 4
#define COUNT 507
#define TOTAL 240

static const struct gapless_tensor tensors[] = {
    {.name = "w", .dims = 2, .dim = {24, 20}},
    {.name = "b", .dims = 1, .dim = {COUNT - 480}}};
static const struct gapless_schedule schedule = {.rate = 0.02,
                                                 .warmup = 40,
                                                 .warmup_from = 0.25,
                                                 .steps_count = 1,
                                                 .steps = {{150, 0.1}}};
/* The same number of elements; where rate, decay or average changes is no multiple of 16, and
 * the chunks of three changes are next to each other. `h` is none of a matrix's 16 elements. */
static const struct gapless_tensor own_tensors[] = {
    {.name = "w", .dims = 2, .dim = {24, 10}, .rate = 0.5},
    {.name = "b", .dims = 1, .dim = {7}, .rate = 0.5},
    {.name = "c", .dims = 1, .dim = {12}, .rate = 0.25, .decay = 0.05},
    {.name = "v",
     .dims = 2,
     .dim = {10, 10},
     .rate = 0.25,
     .decay = 0.05,
     .flags = GAPLESS_TENSOR_NOT_MATRIX},
    {.name = "d", .dims = 1, .dim = {5}, .rate = 2, .decay = GAPLESS_NO_DECAY},
    {.name = "e", .dims = 1, .dim = {9}, .average = 0.1},
    {.name = "f", .dims = 2, .dim = {3, 10}, .average = 0.1},
    {.name = "g", .dims = 1, .dim = {20}, .rate = 1, .average = 0.5},
    {.name = "h", .dims = 1, .dim = {COUNT - 423}}};
static struct gapless_tensor
    no_averages[9]; /* those, but that averages are parameters */
static struct gapless_model model = {tensors, 2}; /* of the present case */
static bool rates;                                /* likewise: batches have a rate */
static char address[64];
static double clip_norm, weight_decay; /* of the present case; 0: none */
static bool whole_gate = true;         /* of the rules of Adam */
static bool decay_all;                 /* likewise: of the bias, too */

static uint64_t draw(uint64_t *state, uint64_t below)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return (*state >> 33) % below;
}

static const struct gapless_tensor *tensor_of(int i)
{
    const struct gapless_tensor *t = model.tensors;

    for (; i >= (int)layout_elements(t); t++)
        i -= (int)layout_elements(t);
    return t;
}

static double average_of(int i)
{
    return tensor_of(i)->average;
}

/* The factor on the rate of a batch. */
static double factor_of(uint64_t batch)
{
    return rates ? 0.5 + 0.25 * (double)(batch % 4) : 1;
}

/* Of a quadratic bowl around 1, with the noise of its batch; of an average, of a statistic that is
 * somewhere about 1, too, what the average takes off. */
static double gradient_of(double param, uint64_t batch, int i)
{
    uint64_t state = batch * 1000003u + (uint64_t)i;

    (void)draw(&state, 2);
    if (average_of(i) > 0)
        return average_of(i) * (param - (double)draw(&state, 2001) / 1000);
    return (0.2 + 0.8 * (i % 7) / 6.0) * (param - 1) +
           0.5 * ((double)draw(&state, 2001) / 1000 - 1);
}

/* Who pushes next: the same for the workers' process and for the oracle. */
struct order {
    uint64_t random, issued;
    uint64_t ticket[WORKERS];
    bool round;
    int turn;
};

static void order_begin(struct order *o, bool round)
{
    *o = (struct order){.random = 99, .round = round};
    for (int w = 0; w < WORKERS; w++)
        o->ticket[w] = o->issued++;
}

static int order_next(struct order *o)
{
    return o->round ? o->turn++ % WORKERS : (int)draw(&o->random, WORKERS);
}

static void order_pushed(struct order *o, int w)
{
    o->ticket[w] = o->issued++;
}

/* ---- the live side ------------------------------------------------------- */

static int pull_one(struct gapless_worker *worker, uint64_t want)
{
    struct gapless_error error = {0};
    uint64_t batch = 0;
    int status = gapless_worker_pull(worker, &batch, &error);

    if (status != GAPLESS_OK || batch != want)
        (void)fprintf(stderr, "pull: %s, batch %llu, not %llu\n", error.text,
                      (unsigned long long)batch, (unsigned long long)want);
    return status != GAPLESS_OK || batch != want;
}

static int push_one(struct gapless_worker *worker, uint64_t batch)
{
    const float *params = gapless_worker_params(worker);
    float *grad = gapless_worker_grad(worker);

    for (int i = 0; i < COUNT; i++)
        grad[i] = (float)gradient_of((double)params[i], batch, i);
    if (rates && gapless_worker_set_rate(worker, factor_of(batch)) != GAPLESS_OK)
        return 1;
    return gapless_worker_push(worker, 0, NULL) != GAPLESS_OK;
}

/* All workers, in one process so that their order is fixed. 0 if all went as told. */
static int work(bool round, bool by_range)
{
    struct gapless_worker_config config = {
        .address = address, .model = model, .by_range = by_range};
    struct gapless_worker *worker[WORKERS];
    struct order order;
    int i, w, failed = 0;

    for (w = 0; w < WORKERS; w++)
        if (gapless_worker_open(&config, &worker[w], NULL) != GAPLESS_OK)
            return 1;
    order_begin(&order, round);
    for (w = 0; w < WORKERS; w++)
        failed |= pull_one(worker[w], order.ticket[w]);
    for (i = 0; i < TOTAL && !failed; i++) {
        w = order_next(&order);
        failed |= push_one(worker[w], order.ticket[w]);
        order_pushed(&order, w);
        if (!round)
            failed |= pull_one(worker[w], order.ticket[w]);
        for (w = 0; round && i % WORKERS == WORKERS - 1 && w < WORKERS; w++)
            failed |= pull_one(worker[w], order.ticket[w]);
    }
    for (w = 0; w < WORKERS; w++)
        gapless_worker_close(worker[w]);
    return failed;
}

/* ---- the oracle's side --------------------------------------------------- */

static struct oracle oracle;
static double mean_gap; /* of a rule that measures it at every gradient */
static double round_gradient[ORACLE_WORKERS][ORACLE_ELEMENTS];

/* What the worker does to its gradient before it hands it in: clips, then adds the
 * decay. */
static void oracle_prepare(double *gradient, const double *x)
{
    double norm = 0;

    for (int i = 0; i < COUNT; i++)
        norm += average_of(i) > 0 ? 0 : gradient[i] * gradient[i];
    norm = sqrt(norm);
    for (int i = 0; i < COUNT; i++) {
        double decay = tensor_of(i)->decay;

        if (average_of(i) > 0)
            continue;
        if (clip_norm > 0 && norm > clip_norm)
            gradient[i] *= clip_norm / norm;
        if (!oracle_is_adam(&oracle))
            gradient[i] += (decay > 0 ? decay : decay < 0 ? 0 : weight_decay) * x[i];
    }
}

/* The blocks of the whole vector, as the master cuts it. */
static void oracle_blocks(uint64_t range_elements)
{
    static uint32_t ends[64], times[64];
    bool matrices = (rules_find(oracle.rule)->flags & RULE_MATRIX) != 0;
    struct layout l;
    uint32_t r, b;

    assert_int_equal(layout_init(&l, &model, range_elements, 0, matrices, NULL),
                     GAPLESS_OK);
    assert_in_range(l.blocks_count, 1, 64);
    for (r = 0; r < l.ranges_count; r++)
        for (b = l.block_first[r]; b < l.block_first[r + 1]; b++) {
            ends[b] = (uint32_t)l.range_start[r] + l.block_ends[b];
            times[b] = l.block_pieces[b];
        }
    oracle.blocks = (int)l.blocks_count;
    oracle.ends = ends, oracle.times = times;
    layout_free(&l);
}

/* What elements have of their own. */
static void oracle_own_of(int i)
{
    const struct gapless_tensor *t = tensor_of(i);

    oracle.scale[i] = t->average > 0 ? 0 : t->rate;
    oracle.average[i] = t->average;
    oracle.decay_of[i] = t->decay;
    oracle.decays[i] =
        t->average <= 0 && t->decay >= 0 && (t->dims > 1 || decay_all || t->decay > 0);
}

static void oracle_run(const char *rule, bool own_lookahead, bool round,
                       uint64_t range_elements)
{
    static double factors;
    bool elastic = strcmp(rule, "easgd") == 0 || strcmp(rule, "eamsgd") == 0;
    uint64_t pulled[WORKERS] = {0};
    struct order order;
    double rate;

    memset(&oracle, 0, sizeof oracle);
    oracle.rule = rule;
    assert_true(oracle_find(&oracle));
    oracle.k = COUNT;
    oracle.workers = oracle.active = WORKERS;
    oracle_blocks(range_elements);
    oracle.gamma = 0.9, oracle.rate_max = 0.02, oracle.rho = 0.999,
    oracle.lambda = 0.04;
    oracle.lambda_zero = 2, oracle.m = 0.95;
    oracle.whole = whole_gate && oracle_is_adam(&oracle);
    oracle.kappa = oracle.whole ? 30
                   : oracle_is_adam(&oracle)
                       ? 10
                       : 5; /* auto, of each with two dimensions */
    for (uint32_t i = 1; i < model.tensors_count && !oracle.whole; i++)
        if (model.tensors[i].dims > 1 && model.tensors[i].average <= 0)
            oracle.kappa += oracle_is_adam(&oracle) ? 10 : 5;
    oracle.rest_scale = 1;
    if (rules_find(rule)->flags & RULE_MATRIX)
        oracle.rows = (int)model.tensors->dim[0],
        oracle.cols = (int)model.tensors->dim[1];
    oracle.beta2 = 0.95, oracle.epsilon = 1e-8, oracle.decay = 0.1;
    for (int i = 0; i < COUNT; i++)
        oracle_own_of(i);
    oracle.elastic = 0.9 / WORKERS, oracle.period = 4;
    oracle.own_lookahead = own_lookahead;
    order_begin(&order, round);
    mean_gap = 0;
    for (uint64_t t = 0; t < TOTAL; t++) {
        int w = order_next(&order);
        uint64_t batch = order.ticket[w];

        for (int i = 0; i < COUNT; i++)
            round_gradient[w][i] = gradient_of(oracle.x[w][i], order.ticket[w], i);
        oracle_prepare(round_gradient[w], oracle.x[w]);
        order_pushed(&order, w);
        rate = schedule_rate(&schedule, 0, round ? t - t % WORKERS : t);
        if (elastic) /* the worker has the rate from its last pull */
            rate = schedule_rate(&schedule, 0, pulled[w]);
        factors =
            round && t % WORKERS > 0 ? factors + factor_of(batch) : factor_of(batch);
        rate *= round ? factors / WORKERS : factors;
        pulled[w] = t + 1;
        if (!round)
            oracle_push(&oracle, w, round_gradient[w], rate);
        mean_gap += sqrt(oracle.gap_sq / oracle_moved(&oracle)) / TOTAL;
        if (!round)
            continue;
        if (t % WORKERS == WORKERS - 1)
            oracle_round(&oracle, round_gradient, rate);
    }
}

/* ---- both ---------------------------------------------------------------- */

static double worst_error(const struct gapless_master *m)
{
    double worst = 0;

    for (int i = 0; i < COUNT; i++)
        worst =
            fmax(worst, fabs((double)gapless_master_params(m)[i] - oracle.theta[i]));
    return worst;
}

static void compare(const char *rule, bool own_lookahead, uint64_t range_elements,
                    bool by_range)
{
    struct gapless_master_config config = {
        .address = address,
        .model = model,
        .rule = rule,
        .schedule = schedule,
        .workers_max = WORKERS,
        .workers_wait = WORKERS,
        .gap_ref = own_lookahead ? GAPLESS_GAP_OWN_LOOKAHEAD : GAPLESS_GAP_SENT,
        .range_elements = range_elements,
        .gap_every = 1,
        .clip_norm = clip_norm,
        .weight_decay = weight_decay,
        .gate = whole_gate ? GAPLESS_GATE_AUTO : GAPLESS_GATE_TENSOR,
        .decay_all = decay_all,
    };
    bool round = strncmp(rule, "ssgd", 4) == 0;
    struct gapless_error error = {0};
    struct gapless_stats stats;
    struct gapless_master *m;
    int status = 0, i;
    pid_t pid;

    (void)snprintf(address, sizeof address, "shm:live-%ld", (long)getpid());
    if (gapless_master_open(&config, &m, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    (void)fflush(NULL);
    pid = fork();
    if (pid == 0)
        _exit(work(round, by_range));
    for (i = 0; i < 2000 && waitpid(pid, &status, WNOHANG) != pid; i++)
        assert_int_equal(gapless_master_run(m, 10000000, &error), GAPLESS_OK);
    if (i == 2000)
        (void)kill(pid, SIGKILL);
    assert_int_equal(status, 0);
    oracle_run(rule, own_lookahead, round, range_elements);
    gapless_master_stats(m, &stats);
    (void)gapless_master_run(m, 1000000, NULL);
    print_message("%-16s %s %llu  off by %.1e of steps of about 1e-2\n", rule,
                  own_lookahead ? "own" : "sent", (unsigned long long)range_elements,
                  worst_error(m));
    assert_int_equal(stats.gradients, TOTAL);
    assert_int_equal(stats.updates, oracle.version);
    /* An elastic rule has a lag where worker and master exchange. */
    assert_int_equal(stats.lag.count, round ? TOTAL : oracle.version);
    /* Float against double over 240 updates: rounding of 6e-8 a step on parameters of
     * about 1. */
    assert_true(worst_error(m) < 2e-5);
    if (!round && oracle.version == TOTAL && strcmp(rule, "shared-lga-dot") != 0)
        assert_true(fabs(stats.gap_rms.mean - mean_gap) < 1e-3 * mean_gap);
    gapless_master_close(m);
}

static void test_every_rule(void **state)
{
    struct gapless_rule rule;
    unsigned i;

    (void)state;
    for (i = 0; gapless_rule_at(i, &rule) == GAPLESS_OK; i++) {
        compare(rule.name, false, 0, false);
        compare(rule.name, false, 256, false);
        compare(rule.name, false, 256, true);
    }
}

static void test_a_gate_for_each_tensor(void **state)
{
    (void)state;
    whole_gate = false;
    compare("dana-lga-adamw", false, 0, false);
    compare("shared-lga-adamw", false, 256, true);
    compare("lga-adamw", false, 256, false);
    compare("muon-lga", false, 0, false);
    compare("dana-lga-muon", false, 256, true);
    whole_gate = true;
}

static void test_decay_of_all_tensors(void **state)
{
    (void)state;
    decay_all = true;
    compare("adamw", false, 0, false);
    compare("dana-lga-adamw", false, 256, true);
    decay_all = false;
}

static void test_own_look_ahead(void **state)
{
    (void)state;
    compare("dana-ga", true, 0, false);
    compare("dana-dc", true, 256, true);
    compare("ga", true, 0, false);
    compare("dana-ga-global", true, 256, true);
}

static void test_clipping_and_decay(void **state)
{
    (void)state;
    clip_norm = 5; /* less than the gradients have at first */
    compare("nag-asgd", false, 0, false);
    weight_decay = 0.3;
    compare("dana-ga", false, 256, true);
    clip_norm = 0;
    compare("dana-slim", false, 0, false);
    compare("eamsgd", false, 256, true);
    weight_decay = 0;
}

/* Rates, decays and averages of tensors, and rates of batches. */
static void every_own(void)
{
    struct gapless_rule rule;
    unsigned i;

    rates = true;
    for (i = 0; gapless_rule_at(i, &rule) == GAPLESS_OK; i++) {
        model.tensors =
            strcmp(rule.name, "shared-lga-dot") == 0 ? no_averages : own_tensors;
        model.tensors_count = 9;
        compare(rule.name, false, 0, false);
        compare(rule.name, false, 64, true);
    }
}

static void test_tensors_of_their_own(void **state)
{
    (void)state;
    memcpy(no_averages, own_tensors, sizeof no_averages);
    for (int i = 0; i < 9; i++)
        no_averages[i].average = 0;
    every_own();
    whole_gate = false;
    compare("dana-lga-adamw", false, 0, false);
    compare("shared-lga-adamw", false, 64, true);
    compare("muon-lga", false, 64, false);
    compare("dana-lga-muon", false, 0, true);
    whole_gate = true;
    compare("dana-ga", true, 64, false);
    compare("dana-ga-global", true, 0, true);
    decay_all = true;
    compare("dana-adamw", false, 64, true);
    decay_all = false;
    clip_norm = 5, weight_decay = 0.3;
    compare("nag-asgd", false, 0, false);
    compare("dana-slim", false, 64, true);
    compare("eamsgd", false, 64, false);
    compare("ssgd", false, 64, true);
    clip_norm = weight_decay = 0, rates = false;
    model = (struct gapless_model){tensors, 2};
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_rule),
        cmocka_unit_test(test_a_gate_for_each_tensor),
        cmocka_unit_test(test_decay_of_all_tensors),
        cmocka_unit_test(test_own_look_ahead),
        cmocka_unit_test(test_clipping_and_decay),
        cmocka_unit_test(test_tensors_of_their_own),
    };

    pace_alarm(100);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
