/* A worker with buffers of the caller's: the same bits as without them, for every rule,
 * whether they are of the host or of a (fake) GPU, over memory that is mapped and over
 * a network; what is refused, and what happens when the GPU fails. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/gpu/fake/fake_cuda.h"
#include "tests/gpu/workers.h"
#include "tests/pace.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WORKERS 3
#define COUNT 1507u
#define TOTAL 60

static const struct gapless_tensor tensors[] = {
    {.name = "w", .dims = 2, .dim = {10, 148}},
    {.name = "b", .dims = 1, .dim = {COUNT - 1480}}};

static const struct gapless_master_config usual = {
    .model = {tensors, 2},
    .schedule = {.rate = 0.02, .warmup = 20, .steps_count = 1, .steps = {{45, 0.5}}},
    .workers_max = WORKERS,
    .workers_wait = WORKERS,
    .gap_every = 1,
    .clip_norm = 30,
    .weight_decay = 0.01,
    .block_elements = 64,
};

/* ---- the same bits ------------------------------------------------------- */

static uint64_t draw(uint64_t *state, uint64_t below)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return (*state >> 33) % below;
}

static void pull(struct test_worker *w, uint64_t *ret)
{
    struct gapless_error error = {0};

    if (gapless_worker_pull(w->worker, ret, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
}

/* Every ninth batch is not finite, and must leave no trace but a count. False: it was
 * one. */
static bool push(struct test_worker *w, uint64_t batch)
{
    static float params[COUNT], grad[COUNT];
    uint64_t state = batch * 1000003u + 17;
    struct gapless_error error = {0};
    int status;

    workers_params(w, params);
    for (uint32_t i = 0; i < COUNT; i++)
        grad[i] = (0.2f + 0.1f * (float)(i % 7)) * (params[i] - 1) +
                  0.5f * ((float)draw(&state, 2001) / 1000 - 1);
    if (batch % 9 == 8)
        grad[batch % COUNT] = (float)NAN;
    workers_grad(w, grad);
    status = gapless_worker_push(w->worker, 0.25 * (double)batch, &error);
    if (status != (batch % 9 == 8 ? GAPLESS_NOT_FINITE : GAPLESS_OK))
        fail_msg("%d %s", status, error.text);
    return status == GAPLESS_OK;
}

struct outcome {
    float params[COUNT];
    struct gapless_stats stats;
    double loss[WORKERS];
};

/* A run in a seeded order of arrival: who has pushed pulls before the next one pushes,
 * but for synchronous rules, where all do. */
static void run(const char *transport, const char *rule, uint64_t range_elements,
                const enum workers_memory memory[WORKERS], struct outcome *ret)
{
    struct gapless_master_config config = usual;
    struct gapless_worker_config own = {.allow_staging = true};
    struct test_worker w[WORKERS];
    struct gapless_worker_stats stats;
    struct gapless_error error = {0};
    uint64_t batch[WORKERS], random = 5;
    bool round = strncmp(rule, "ssgd", 4) == 0;
    struct gapless_master *m;

    config.rule = rule;
    if (rules_find(rule)->flags & RULE_ADAM)
        config.weight_decay = 0; /* it has one of its own */
    config.range_elements = range_elements;
    m = workers_master(&config, transport);
    own.address = config.address;
    own.model = config.model;
    own.by_range = range_elements > 0;
    for (int i = 0; i < WORKERS; i++)
        if (workers_join(&own, memory[i], COUNT, &w[i], &error) != GAPLESS_OK)
            fail_msg("%s over %s: %s", rule, transport, error.text);
    for (int i = 0; i < WORKERS; i++)
        pull(&w[i], &batch[i]);
    for (int t = 0; t < TOTAL; t++) {
        int i = round ? t % WORKERS : (int)draw(&random, WORKERS);

        /* A round waits for the others, but not for who has nothing to give. */
        while (!push(&w[i], batch[i]) && round)
            pull(&w[i], &batch[i]);
        if (!round)
            pull(&w[i], &batch[i]);
        for (int k = 0; round && i == WORKERS - 1 && k < WORKERS; k++)
            pull(&w[k], &batch[k]);
    }
    memcpy(ret->params, gapless_master_params(m), sizeof ret->params);
    gapless_master_stats(m, &ret->stats);
    for (uint32_t i = 0; i < WORKERS; i++) {
        assert_int_equal(gapless_master_worker_stats(m, i, &stats), GAPLESS_OK);
        ret->loss[i] = stats.loss;
        workers_part(&w[i]);
    }
    gapless_master_close(m);
}

static void same(const char *rule, const struct outcome *a, const struct outcome *b)
{
    for (uint32_t i = 0; i < COUNT; i++)
        if (workers_bits(a->params[i]) != workers_bits(b->params[i]))
            fail_msg("%s, parameter %u: %.9g, not %.9g", rule, i, (double)b->params[i],
                     (double)a->params[i]);
    assert_int_equal(a->stats.gradients, b->stats.gradients);
    assert_int_equal(a->stats.dropped, b->stats.dropped);
    assert_int_equal(a->stats.updates, b->stats.updates);
    assert_memory_equal(&a->stats.lag, &b->stats.lag, sizeof a->stats.lag);
    assert_memory_equal(&a->stats.gap_rms, &b->stats.gap_rms, sizeof a->stats.gap_rms);
    assert_memory_equal(a->loss, b->loss, sizeof a->loss);
}

static void every_rule(void **state)
{
    static const enum workers_memory plain[] = {MEMORY_OWN, MEMORY_OWN, MEMORY_OWN},
                                     mixed[] = {MEMORY_GPU, MEMORY_HOST, MEMORY_GPU};
    static struct outcome expected, seen;
    struct gapless_rule rule;

    (void)state;
    for (unsigned i = 0; gapless_rule_at(i, &rule) == GAPLESS_OK; i++) {
        uint64_t range = i % 2 == 0 ? 0 : 256;

        run("sim", rule.name, range, plain, &expected);
        assert_true(expected.stats.gradients >= TOTAL);
        assert_true(expected.stats.dropped > 2);
        run("sim", rule.name, range, mixed, &seen);
        same(rule.name, &expected, &seen);
        run("simnet", rule.name, range, mixed, &seen);
        same(rule.name, &expected, &seen);
    }
}

/* ---- more than is summed at once ----------------------------------------- */

static void large_gradient(void **state)
{
    const size_t count = 300001;
    const struct gapless_tensor one = {.name = "w", .dims = 1, .dim = {count}};
    struct gapless_master_config config = {.model = {&one, 1},
                                           .rule = "asgd",
                                           .schedule = {.rate = 0.5},
                                           .workers_max = 1,
                                           .clip_norm = 10};
    struct gapless_worker_config own = {.model = {&one, 1}};
    float *before = calloc(count, sizeof(float)), *after = calloc(count, sizeof(float));
    struct gapless_master *m = NULL;
    struct gapless_error error = {0};
    struct test_worker w;
    uint64_t batch;
    char text[512];

    (void)state;
    assert_non_null(before);
    assert_non_null(after);
    config.address = "sim:big";
    m = workers_master(&config, "sim");
    own.address = config.address;
    if (workers_join(&own, MEMORY_GPU, count, &w, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    gapless_worker_device(w.worker, text, sizeof text);
    assert_non_null(strstr(text, "cuda:0"));
    assert_non_null(strstr(text, "staged through page-locked host memory"));
    pull(&w, &batch);
    for (size_t i = 0; i < count; i++)
        before[i] = (float)(i % 5) - 2.0f;
    workers_grad(&w, before);
    assert_int_equal(gapless_worker_push(w.worker, 0, NULL), GAPLESS_OK);
    pull(&w, &batch);
    workers_params(&w, after);
    /* ||grad|| = sqrt(2 * count) was scaled down to 10, by 0.5 */
    for (size_t i = 0; i < count; i += 997)
        assert_true(fabs((double)after[i] +
                         5.0 / sqrt(2.0 * (double)count) * (double)before[i]) < 1e-5);
    workers_part(&w);
    gapless_master_close(m);
    free(before);
    free(after);
}

/* ---- what is said -------------------------------------------------------- */

static void describes(void **state)
{
    struct gapless_master_config config = usual;
    struct gapless_worker_config own = {.allow_staging = true};
    struct gapless_error error = {0};
    struct gapless_master *m;
    struct test_worker w;
    char text[512];

    (void)state;
    m = workers_master(&config, "simnet");
    own.address = config.address;
    own.model = config.model;
    assert_int_equal(workers_join(&own, MEMORY_OWN, COUNT, &w, &error), GAPLESS_OK);
    gapless_worker_device(w.worker, text, sizeof text);
    assert_int_equal(strncmp(text, "cpu-", 4), 0);
    assert_null(strstr(text, "buffers"));
    workers_part(&w);
    assert_int_equal(workers_join(&own, MEMORY_HOST, COUNT, &w, &error), GAPLESS_OK);
    gapless_worker_device(w.worker, text, sizeof text);
    assert_non_null(strstr(text, "buffers of the caller in host memory"));
    workers_part(&w);
    assert_int_equal(workers_join(&own, MEMORY_GPU, COUNT, &w, &error), GAPLESS_OK);
    gapless_worker_device(w.worker, text, sizeof text);
    assert_non_null(strstr(text, "staged"));
    assert_non_null(strstr(text, "no network card reaches it"));
    workers_part(&w);
    gapless_master_close(m);
}

/* ---- what is refused ----------------------------------------------------- */

static void refuse(const struct gapless_worker_config *config, int status,
                   const char *text)
{
    struct gapless_worker *worker = NULL;
    struct gapless_error error = {0};

    assert_int_equal(gapless_worker_open(config, &worker, &error), status);
    assert_null(worker);
    if (strstr(error.text, text) == NULL)
        fail_msg("'%s' does not say '%s'", error.text, text);
}

static void wrong_buffers(void **state)
{
    static float one[COUNT], two[COUNT];
    const struct gapless_model model = {tensors, 2};
    float *gpu_memory = workers_take(COUNT);

    (void)state;
    /* Nobody is asked to connect for these: the address would not be found. */
    refuse(&(struct gapless_worker_config){.address = "sim:nobody",
                                           .model = model,
                                           .params = one},
           GAPLESS_INVALID, "grad is missing");
    refuse(&(struct gapless_worker_config){.address = "sim:nobody",
                                           .model = model,
                                           .grad = one},
           GAPLESS_INVALID, "params is missing");
    refuse(
        &(struct gapless_worker_config){
            .address = "sim:nobody", .model = model, .params = one, .grad = one},
        GAPLESS_INVALID, "the same");
    refuse(&(struct gapless_worker_config){.address = "sim:nobody",
                                           .params = one,
                                           .grad = two},
           GAPLESS_INVALID, "which model");
    refuse(
        &(struct gapless_worker_config){
            .address = "sim:nobody", .model = model, .params = gpu_memory, .grad = two},
        GAPLESS_INVALID, "not of the same memory");
    workers_give(gpu_memory);
}

/* A network without a card that reaches a GPU: only if the caller allows copies. */
static void staging_is_asked_for(void **state)
{
    struct gapless_master_config config = usual;
    struct gapless_worker_config own = {.wait_ns = 1000000000};
    struct gapless_error error = {0};
    struct gapless_master *m;
    struct test_worker w;
    char text[512];

    (void)state;
    m = workers_master(&config, "simnet");
    own.address = config.address;
    own.model = config.model;
    assert_int_equal(workers_join(&own, MEMORY_GPU, COUNT, &w, &error),
                     GAPLESS_UNSUPPORTED);
    assert_non_null(strstr(error.text, "--allow-staging"));
    assert_non_null(strstr(error.text, "no network card"));
    gapless_master_close(m);
    /* Under a rule that keeps parameters at the worker there is no other way. */
    config.rule = "easgd";
    m = workers_master(&config, "simnet");
    own.address = config.address;
    if (workers_join(&own, MEMORY_GPU, COUNT, &w, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    gapless_worker_device(w.worker, text, sizeof text);
    assert_non_null(strstr(text, "keeps parameters at the worker"));
    workers_part(&w);
    gapless_master_close(m);
}

/* ---- what fails ---------------------------------------------------------- */

/* The GPU is lost between two batches: pull and push say so, again and again, and
 * nothing waits. */
static void lost_gpu(void **state)
{
    const struct fake_cuda *fake = fake_cuda_of_plugin();
    struct gapless_master_config config = usual;
    struct gapless_worker_config own = {.wait_ns = pace_ns(1000000000)};
    struct gapless_error error = {0};
    struct gapless_worker *worker = NULL;
    struct gapless_master *m;
    float *params = workers_take(COUNT), *grad = workers_take(COUNT);
    uint64_t batch;

    (void)state;
    assert_non_null(fake);
    config.workers_wait = 1;
    m = workers_master(&config, "sim");
    own.address = config.address;
    own.model = config.model;
    own.params = params;
    own.grad = grad;
    assert_int_equal(gapless_worker_open(&own, &worker, &error), GAPLESS_OK);
    assert_int_equal(gapless_worker_pull(worker, &batch, &error), GAPLESS_OK);
    fake->lose(0);
    assert_int_equal(gapless_worker_push(worker, 0, &error), GAPLESS_SYSTEM);
    assert_non_null(strstr(error.text, "GPU 0"));
    assert_int_equal(gapless_worker_pull(worker, &batch, &error), GAPLESS_SYSTEM);
    assert_non_null(strstr(error.text, "GPU 0"));
    gapless_worker_close(worker);
    gapless_master_close(m);
    workers_give(params);
    workers_give(grad);
    workers_end();
    fake->reset();
}

/* A worker opens while call number `fails` of CUDA fails; 0: none does. Returns how
 * many were made. */
static unsigned long open_once(const struct gapless_worker_config *own,
                               unsigned long fails)
{
    const struct fake_cuda *fake = fake_cuda_of_plugin();
    struct gapless_worker *worker = NULL;
    struct gapless_error error = {0};
    unsigned before = fake->leaks();
    unsigned long made = fake->calls();
    int status;

    fake->fail_at(fails, false);
    status = gapless_worker_open(own, &worker, &error);
    fake->fail_at(0, false);
    made = fake->calls() - made;
    if (status != GAPLESS_OK && error.text[0] == '\0')
        fail_msg("call %lu failed, and nothing says why", fails);
    if (status != GAPLESS_OK)
        assert_null(worker);
    else if (fails == 0)
        assert_non_null(worker);
    gapless_worker_close(worker);
    assert_int_equal(fake->leaks(), before);
    return made;
}

/* Calls of CUDA fail while a worker opens, one at a time: an error in words or, for
 * memory that cannot be page-locked, none; nothing is left behind. Of the hundreds of
 * events that a stream has not every one. */
static void calls_fail_one_by_one(void **state)
{
    struct gapless_master_config config = usual;
    struct gapless_worker_config own = {.wait_ns = 1000000000};
    float *params = workers_take(COUNT), *grad = workers_take(COUNT);
    struct gapless_master *m;
    unsigned long calls;

    (void)state;
    config.workers_max = 400;
    m = workers_master(&config, "sim");
    own.address = config.address;
    own.model = config.model;
    own.params = params;
    own.grad = grad;
    calls = open_once(&own, 0);
    assert_true(calls > 10);
    for (unsigned long i = 1; i <= calls; i++)
        if (i < 20 || i + 20 > calls || i % 41 == 0)
            (void)open_once(&own, i);
    gapless_master_close(m);
    workers_give(params);
    workers_give(grad);
}

static int end(void **state)
{
    const struct fake_cuda *fake = fake_cuda_of_plugin();

    (void)state;
    workers_end();
    return fake != NULL && fake->leaks() == 0 ? 0 : 1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_rule),
        cmocka_unit_test(large_gradient),
        cmocka_unit_test(describes),
        cmocka_unit_test(wrong_buffers),
        cmocka_unit_test(staging_is_asked_for),
        cmocka_unit_test(lost_gpu),
        cmocka_unit_test(calls_fail_one_by_one),
    };

    pace_alarm(400);
    return cmocka_run_group_tests(tests, NULL, end);
}
