/* The engine over a transport that does not map memory: the same bits as over one that
 * does, for every rule; and what it takes, in the time of a modelled link, when ranges
 * overlap on the wire. One thread drives everything: whenever a client waits, the
 * master works (the pump of transport/sim/sim.h). */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/master/master.h"
#include "engine/worker/worker.h"
#include "tests/pace.h"
#include "transport/sim/sim.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WORKERS 3
#define COUNT 1507u
#define TOTAL 120

static const struct gapless_tensor tensors[] = {
    {.name = "w", .dims = 2, .dim = {10, 148}},
    {.name = "b", .dims = 1, .dim = {COUNT - 1480}}};
/* The same number of elements, whose rates, decays and averages change within 16 of them. */
static const struct gapless_tensor own_tensors[] = {
    {.name = "w", .dims = 2, .dim = {10, 70}},
    {.name = "b", .dims = 1, .dim = {9}},
    {.name = "c", .dims = 1, .dim = {300}, .rate = 0.5, .decay = GAPLESS_NO_DECAY},
    {.name = "d", .dims = 1, .dim = {7}, .decay = 0.1},
    {.name = "e", .dims = 1, .dim = {301}, .average = 0.1},
    {.name = "f", .dims = 1, .dim = {190}, .rate = 2}};
static const struct gapless_model own_model = {own_tensors, 6},
                                  usual_model = {tensors, 2};
static const struct gapless_model *model = &usual_model; /* of the present case */
static const struct sim_link slow = {
    .latency_ns = 2000, .bytes_per_ns = 0.7, .pass_ns = 300, .pass_bytes_per_ns = 1.3};

static void pump(void *user)
{
    (void)gapless_master_run(user, 0, NULL);
}

static struct gapless_master *master_of(struct gapless_master_config *config,
                                        const char *transport,
                                        const struct sim_link *link)
{
    static char address[80];
    struct gapless_error error = {0};
    struct gapless_master *m = NULL;

    (void)snprintf(address, sizeof address, "%s:far", transport);
    config->address = address;
    if (gapless_master_open(config, &m, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    sim_link_set(sim_world_of(m->tp), link);
    sim_pump_set(sim_world_of(m->tp), pump, m);
    return m;
}

static struct gapless_worker *worker_of(const struct gapless_master_config *config,
                                        bool by_range)
{
    const struct gapless_worker_config own = {
        .address = config->address, .model = config->model, .by_range = by_range};
    struct gapless_error error = {0};
    struct gapless_worker *w = NULL;

    if (gapless_worker_open(&own, &w, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    return w;
}

/* ---- the same bits ------------------------------------------------------- */

static uint64_t draw(uint64_t *state, uint64_t below)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return (*state >> 33) % below;
}

static void gradient(const float *params, uint64_t batch, float *grad)
{
    uint64_t state = batch * 1000003u + 17;

    for (uint32_t i = 0; i < COUNT; i++)
        grad[i] = (0.2f + 0.1f * (float)(i % 7)) * (params[i] - 1) +
                  0.5f * ((float)draw(&state, 2001) / 1000 - 1);
}

static void pull(struct gapless_worker *w, uint64_t *ret)
{
    struct gapless_error error = {0};

    if (gapless_worker_pull(w, ret, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
}

/* Pushes; every ninth batch is not finite, and must leave no trace but a count. False:
 * it was one. */
static bool push(struct gapless_worker *w, uint64_t batch)
{
    float *grad = gapless_worker_grad(w);
    int status;

    gradient(gapless_worker_params(w), batch, grad);
    if (batch % 9 == 8)
        grad[batch % COUNT] = (float)NAN;
    if (model == &own_model)
        assert_int_equal(gapless_worker_set_rate(w, 0.5 * (double)(batch % 4)),
                         GAPLESS_OK);
    status = gapless_worker_push(w, 0.25 * (double)batch, NULL);
    assert_int_equal(status, batch % 9 == 8 ? GAPLESS_NOT_FINITE : GAPLESS_OK);
    return status == GAPLESS_OK;
}

struct outcome {
    float params[COUNT];
    struct gapless_stats stats;
    double loss[WORKERS];
};

/* A run in a seeded order of arrival: who has pushed pulls before the next one pushes,
 * but for synchronous rules, where all do. */
static void run(const char *transport, const struct sim_link *link, const char *rule,
                uint64_t range_elements, bool by_range, struct outcome *ret)
{
    struct gapless_master_config config = {
        .model = *model,
        .rule = rule,
        .schedule = {.rate = 0.02,
                     .warmup = 40,
                     .steps_count = 1,
                     .steps = {{90, 0.5}}},
        .workers_max = WORKERS,
        .workers_wait = WORKERS,
        .range_elements = range_elements,
        .gap_every = 1,
        .clip_norm = 30,
        .weight_decay = rules_find(rule)->flags & RULE_ADAM ? 0 : 0.01,
    };
    struct gapless_master *m = master_of(&config, transport, link);
    struct gapless_worker *w[WORKERS];
    uint64_t batch[WORKERS], random = 5;
    struct gapless_worker_stats stats;
    bool round = strncmp(rule, "ssgd", 4) == 0;

    for (int i = 0; i < WORKERS; i++)
        w[i] = worker_of(&config, by_range);
    for (int i = 0; i < WORKERS; i++)
        pull(w[i], &batch[i]);
    for (int t = 0; t < TOTAL; t++) {
        int i = round ? t % WORKERS : (int)draw(&random, WORKERS);

        /* A round waits for the others, but not for who has nothing to give. */
        while (!push(w[i], batch[i]) && round)
            pull(w[i], &batch[i]);
        if (!round)
            pull(w[i], &batch[i]);
        for (int k = 0; round && i == WORKERS - 1 && k < WORKERS; k++)
            pull(w[k], &batch[k]);
    }
    memcpy(ret->params, gapless_master_params(m), sizeof ret->params);
    gapless_master_stats(m, &ret->stats);
    for (uint32_t i = 0; i < WORKERS; i++) {
        assert_int_equal(gapless_master_worker_stats(m, i, &stats), GAPLESS_OK);
        ret->loss[i] = stats.loss;
        gapless_worker_close(w[i]);
    }
    gapless_master_close(m);
}

static void same(const struct outcome *a, const struct outcome *b)
{
    assert_memory_equal(a->params, b->params, sizeof a->params);
    assert_int_equal(a->stats.gradients, b->stats.gradients);
    assert_int_equal(a->stats.dropped, b->stats.dropped);
    assert_int_equal(a->stats.updates, b->stats.updates);
    assert_memory_equal(&a->stats.lag, &b->stats.lag, sizeof a->stats.lag);
    assert_memory_equal(&a->stats.gap_rms, &b->stats.gap_rms, sizeof a->stats.gap_rms);
    assert_memory_equal(a->loss, b->loss, sizeof a->loss);
}

static void test_every_rule(void **state)
{
    static const struct sim_link none;
    static struct outcome near, remote;
    struct gapless_rule rule;

    (void)state;
    for (unsigned i = 0; gapless_rule_at(i, &rule) == GAPLESS_OK; i++)
        for (uint64_t range = 0; range <= 256; range += 256) {
            /* A clock that stands still and one that runs: neither is in the bits. */
            run("sim", &none, rule.name, range, true, &near);
            assert_true(near.stats.gradients >= TOTAL);
            assert_true(near.stats.dropped > 5);
            run("simnet", &none, rule.name, range, false, &remote);
            same(&near, &remote);
            run("simnet", &slow, rule.name, range, false, &remote);
            same(&near, &remote);
        }
}

/* The same of tensors with what is their own, and of rates of batches. */
static void test_tensors_of_their_own(void **state)
{
    static const struct sim_link none;
    static struct outcome near, remote;
    struct gapless_rule rule;

    (void)state;
    model = &own_model;
    for (unsigned i = 0; gapless_rule_at(i, &rule) == GAPLESS_OK; i++) {
        uint64_t range = i % 2 == 0 ? 0 : 256;

        if (strcmp(rule.name, "shared-lga-dot") == 0)
            continue;
        run("sim", &none, rule.name, range, i % 4 > 1, &near);
        assert_true(near.stats.dropped > 5);
        run("simnet", &slow, rule.name, range, false, &remote);
        same(&near, &remote);
    }
    model = &usual_model;
}

/* ---- overlap ------------------------------------------------------------- */

#define LARGE (4u << 20)
#define LINE 12.5 /* 100 Gb/s */
#define LATENCY 2000u

static const struct gapless_tensor large[] = {{.name = "w", .dims = 1, .dim = {LARGE}}};

/* Virtual time of one update: from push to the parameters of the next batch. */
static uint64_t update_ns(const char *rule, uint64_t range_elements,
                          const struct sim_link *link)
{
    struct gapless_master_config config = {.model = {large, 1},
                                           .rule = rule,
                                           .schedule = {.rate = 0.02},
                                           .workers_max = 1,
                                           .range_elements = range_elements};
    struct gapless_master *m = master_of(&config, "simnet", link);
    struct gapless_worker *w = worker_of(&config, false);
    uint64_t batch, began;

    pull(w, &batch);
    began = sim_now_ns(sim_world_of(m->tp));
    for (uint32_t i = 0; i < LARGE; i++)
        gapless_worker_grad(w)[i] = (float)(i % 17) * 1e-3f;
    assert_int_equal(gapless_worker_push(w, 0, NULL), GAPLESS_OK);
    pull(w, &batch);
    began = sim_now_ns(sim_world_of(m->tp)) - began;
    assert_true(gapless_worker_params(w)[16] < 0);
    gapless_worker_close(w);
    gapless_master_close(m);
    return began;
}

/* 16 MiB in 16 ranges at 100 Gb/s each way and a master as fast as that. With R ranges
 * a pipeline of three equal stages takes (R + 2) / (3 R) of their sum. */
static void test_overlap(void **state)
{
    const struct sim_link link = {
        .latency_ns = LATENCY, .bytes_per_ns = LINE, .pass_bytes_per_ns = LINE};
    const double stage = 4.0 * LARGE / LINE;
    double unsplit, split, ratio;

    (void)state;
    unsplit = (double)update_ns("asgd", LARGE, &link);
    /* out, pass, back, and four times the latency: gradient, READY, question, answer */
    assert_true(fabs(unsplit / (3 * stage + 4 * LATENCY) - 1) < 0.001);
    for (uint32_t ranges = 4; ranges <= 64; ranges *= 4) {
        split = (double)update_ns("asgd", LARGE / ranges, &link);
        ratio = split / unsplit;
        print_message("16 MiB, 100 Gb/s, %u ranges: %.0f us of %.0f us, ratio %.3f "
                      "(ideal %.3f)\n",
                      ranges, split / 1e3, unsplit / 1e3, ratio,
                      (ranges + 2.0) / (3.0 * ranges));
        assert_true(fabs(ratio - (ranges + 2.0) / (3.0 * ranges)) < 0.02);
        assert_true(ranges < 16 || ratio <= 0.65);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_rule),
        cmocka_unit_test(test_tensors_of_their_own),
        cmocka_unit_test(test_overlap),
    };

    pace_alarm(100);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
