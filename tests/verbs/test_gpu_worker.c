/* ctest: source=tests/gpu/workers.c source=tests/gpu/plugin_fake.c
 * Workers over (fake) RDMA whose parameters and gradients are in the memory of a (fake)
 * GPU that network cards reach by themselves: the same bits as with memory of the host,
 * and no byte of them through it; where a card does not reach it: copies, if they are
 * allowed, else an error that says what to do. */
#include "tests/verbs/bed.h"

#include "tests/gpu/fake/fake_cuda.h"
#include "tests/gpu/workers.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if defined(__SANITIZE_THREAD__)
#define RACES 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define RACES 1
#endif
#endif
#ifndef RACES
#define RACES 0
#endif

#define WORKERS 2
#define COUNT_MAX 300001u

static const struct gapless_tensor small[] = {{.name = "w",
                                               .dims = 2,
                                               .dim = {10, 148}},
                                              {.name = "b", .dims = 1, .dim = {27}}},
                                   large[] = {
                                       {.name = "w", .dims = 1, .dim = {COUNT_MAX}}};
/* What a worker treats differently changes within 16 elements. */
static const struct gapless_tensor own[] = {
    {.name = "w", .dims = 1, .dim = {700}, .decay = GAPLESS_NO_DECAY},
    {.name = "e", .dims = 1, .dim = {9}, .average = 0.1},
    {.name = "f", .dims = 1, .dim = {2}, .decay = 0.2},
    {.name = "g", .dims = 1, .dim = {500}, .average = 0.3},
    {.name = "v", .dims = 1, .dim = {296}}};
static struct gapless_model model = {small, 2};
static uint32_t count = 1507;
static int total = 40;
static const char *at = ROCE;
static bool by_address;
static uint32_t waited_for = WORKERS;

/* ---- a master in a thread ------------------------------------------------ */

struct serving {
    struct gapless_master *master;
    pthread_t thread;
    bool end; /* under the lock */
    pthread_mutex_t lock;
};

static bool asked_to_end(struct serving *s)
{
    bool ret;

    (void)pthread_mutex_lock(&s->lock);
    ret = s->end;
    (void)pthread_mutex_unlock(&s->lock);
    return ret;
}

static void *serve(void *context)
{
    struct serving *s = context;
    struct gapless_error error = {0};
    int status = GAPLESS_OK;

    while (!asked_to_end(s) && (status == GAPLESS_OK || status == GAPLESS_STOPPED))
        status = gapless_master_run(s->master, 5 * MS, &error);
    if (error.text[0] != '\0')
        (void)fprintf(stderr, "master: %s\n", error.text);
    return NULL;
}

static void begin(struct serving *s, const char *rule, uint64_t range_elements)
{
    static char address[64];
    struct gapless_master_config config = {
        .address = address,
        .model = model,
        .rule = rule,
        .schedule = {.rate = 0.02, .warmup = 10},
        .workers_max = WORKERS,
        .workers_wait = waited_for,
        .gap_every = 1,
        .clip_norm = 30,
        .weight_decay = 0.01,
        .range_elements = range_elements,
        .block_elements = 64,
        .net = {.insecure = true},
    };
    struct gapless_error error = {0};

    (void)snprintf(address, sizeof address, "verbs:%s", at);
    *s = (struct serving){.lock = PTHREAD_MUTEX_INITIALIZER};
    if (gapless_master_open(&config, &s->master, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

static void stop(struct serving *s)
{
    (void)pthread_mutex_lock(&s->lock);
    s->end = true;
    (void)pthread_mutex_unlock(&s->lock);
    (void)pthread_join(s->thread, NULL);
}

static int join(enum workers_memory memory, bool allow_staging, struct test_worker *ret,
                struct gapless_error *error)
{
    char address[64];
    struct gapless_worker_config config = {.address = address,
                                           .model = model,
                                           .allow_staging = allow_staging,
                                           .wait_ns = pace_ns(20000 * MS)};

    (void)snprintf(address, sizeof address, "verbs:%s", at);
    return workers_join(&config, memory, count, ret, error);
}

/* ---- the same bits ------------------------------------------------------- */

static void pull(struct test_worker *w, uint64_t *ret)
{
    struct gapless_error error = {0};

    if (gapless_worker_pull(w->worker, ret, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
}

/* Every ninth batch is not finite. */
static void push(struct test_worker *w, uint64_t batch)
{
    static float params[COUNT_MAX], grad[COUNT_MAX];
    uint64_t state = batch * 1000003u + 17;
    struct gapless_error error = {0};
    int status;

    workers_params(w, params);
    for (uint32_t i = 0; i < count; i++) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        grad[i] = (0.2f + 0.1f * (float)(i % 7)) * (params[i] - 1) +
                  0.5f * ((float)((state >> 33) % 2001) / 1000 - 1);
    }
    if (batch % 9 == 8)
        grad[batch % 1507] = (float)NAN;
    workers_grad(w, grad);
    status = gapless_worker_push(w->worker, 0.25, &error);
    if (status != (batch % 9 == 8 ? GAPLESS_NOT_FINITE : GAPLESS_OK))
        fail_msg("%d %s", status, error.text);
}

/* Workers in turn; the last words of each are for the caller. */
static void run(const char *rule, uint64_t range_elements, enum workers_memory memory,
                float *ret, char *ret_device)
{
    struct test_worker w[WORKERS];
    struct gapless_error error = {0};
    uint64_t batch[WORKERS];
    struct serving s;

    fake_begin();
    fake_rules.stale = true;
    fake_rules.no_dmabuf = fake_rules.peermem = by_address;
    fake_pace(FAKE_BY_THREAD);
    begin(&s, rule, range_elements);
    for (int i = 0; i < WORKERS; i++)
        if (join(memory, true, &w[i], &error) != GAPLESS_OK)
            fail_msg("%s: %s", rule, error.text);
    gapless_worker_device(w[0].worker, ret_device, 512);
    for (int i = 0; i < WORKERS; i++)
        pull(&w[i], &batch[i]);
    for (int t = 0; t < total; t++) {
        push(&w[t % WORKERS], batch[t % WORKERS]);
        pull(&w[t % WORKERS], &batch[t % WORKERS]);
    }
    stop(&s);
    memcpy(ret, gapless_master_params(s.master), count * sizeof *ret);
    gapless_master_close(s.master);
    for (int i = 0; i < WORKERS; i++)
        workers_part(&w[i]);
    must_be_clean();
}

static void compare(const char *rule, uint64_t range_elements, const char *says)
{
    static float want[COUNT_MAX], is[COUNT_MAX];
    char device[512];

    run(rule, range_elements, MEMORY_OWN, want, device);
    assert_true(isfinite(want[0]));
    run(rule, range_elements, MEMORY_GPU, is, device);
    if (strstr(device, says) == NULL)
        fail_msg("%s: '%s' does not say '%s'", rule, device, says);
    for (uint32_t i = 0; i < count; i++)
        if (workers_bits(want[i]) != workers_bits(is[i]))
            fail_msg("%s, parameter %u: %.9g, not %.9g", rule, i, (double)is[i],
                     (double)want[i]);
}

static void straight_from_the_gpu(void **state)
{
    (void)state;
    at = ROCE;
    compare("asgd", 0, "direct, the network card reaches it (DMA-BUF)");
    compare("dana-ga", 256, "direct");
    compare("dana-slim", 0, "direct");
    compare("dana-slim", 256, "direct");
    compare("dana-lga", 256, "direct");
}

/* More elements than a norm is summed of at once, and than a proof goes over. */
static void a_large_one(void **state)
{
    (void)state;
    at = ROCE;
    model = (struct gapless_model){large, 1};
    count = COUNT_MAX;
    total = 6;
    compare("dana-slim", 65536, "direct");
    model = (struct gapless_model){small, 2};
    count = 1507;
    total = 40;
}

static void tensors_of_their_own(void **state)
{
    (void)state;
    at = ROCE;
    model = (struct gapless_model){own, 5};
    compare("asgd", 256, "direct");
    compare("dana-slim", 0, "direct");
    compare("dana-ga", 256, "direct");
    compare("easgd", 0, "staged");
    model = (struct gapless_model){small, 2};
}

static void parameters_at_the_worker(void **state)
{
    (void)state;
    at = ROCE;
    compare("easgd", 0, "staged");
    compare("shared-lga-dot", 256, "the rule keeps parameters at the worker");
}

/* Where a driver or kernel has no DMA-BUF. */
static void by_its_address(void **state)
{
    (void)state;
    at = ROCE;
    by_address = true;
    compare("dana-ga", 256, "direct, the network card reaches it (nvidia-peermem)");
    by_address = false;
}

/* A card that cannot prove itself. */
static void iwarp(void **state)
{
    (void)state;
    at = IWARP;
    compare("dana-ga", 256, "staged");
}

/* ---- cards that do not reach it ------------------------------------------ */

static void without(void (*prepare)(void), const char *text)
{
    struct gapless_error error = {0};
    struct test_worker w;
    struct serving s;
    char device[512];

    fake_begin();
    fake_pace(FAKE_BY_THREAD);
    at = ROCE;
    begin(&s, "dana-ga", 256);
    prepare();
    assert_int_equal(join(MEMORY_GPU, false, &w, &error), GAPLESS_UNSUPPORTED);
    if (strstr(error.text, text) == NULL ||
        strstr(error.text, "--allow-staging") == NULL)
        fail_msg("'%s' does not say '%s' or --allow-staging", error.text, text);
    if (join(MEMORY_GPU, true, &w, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    gapless_worker_device(w.worker, device, sizeof device);
    assert_non_null(strstr(device, "staged through page-locked host memory"));
    fake_misroute("fake0", false);
    stop(&s);
    gapless_master_close(s.master);
    workers_part(&w);
    must_be_clean();
}

static void no_dmabuf(void)
{
    fake_rules.no_dmabuf = true;
}

static void wrong_way(void)
{
    fake_misroute("fake0", true);
}

static void cards_that_do_not_reach_it(void **state)
{
    (void)state;
    without(no_dmabuf, "nvidia-peermem");
    without(wrong_way, "did not come out as they went in");
}

/* ---- GPUs that fail ------------------------------------------------------ */

static void lost_gpu(void **state)
{
    const struct fake_cuda *cuda = fake_cuda_of_plugin();
    struct gapless_error error = {0};
    float *params, *grad;
    char address[64];
    struct gapless_worker_config config = {
        .address = address, .model = model, .wait_ns = LONG_NS};
    struct gapless_worker *worker = NULL;
    struct serving s;
    uint64_t batch;

    (void)state;
    fake_begin();
    fake_pace(FAKE_BY_THREAD);
    at = ROCE;
    (void)snprintf(address, sizeof address, "verbs:%s", at);
    waited_for = 1;
    begin(&s, "dana-ga", 256);
    waited_for = WORKERS;
    params = workers_take(count);
    grad = workers_take(count);
    config.params = params;
    config.grad = grad;
    if (gapless_worker_open(&config, &worker, &error) != GAPLESS_OK ||
        gapless_worker_pull(worker, &batch, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    cuda->lose(0);
    assert_int_equal(gapless_worker_push(worker, 0, &error), GAPLESS_SYSTEM);
    assert_non_null(strstr(error.text, "GPU 0"));
    assert_int_equal(gapless_worker_pull(worker, &batch, &error), GAPLESS_SYSTEM);
    gapless_worker_close(worker);
    workers_give(params);
    workers_give(grad);
    workers_end();
    cuda->reset();
    stop(&s);
    gapless_master_close(s.master);
    must_be_clean();
}

/* Calls of CUDA fail while a worker opens, one at a time: an error in words, or copies
 * instead, which are allowed here; nothing is left behind. */
static void calls_fail_one_by_one(void **state)
{
    const struct fake_cuda *cuda = fake_cuda_of_plugin();
    float *params, *grad;
    char address[64];
    struct gapless_worker_config config = {
        .address = address, .model = model, .allow_staging = true};
    unsigned long calls = 1;
    struct serving s;

    (void)state;
    fake_begin();
    fake_pace(FAKE_BY_THREAD);
    at = ROCE;
    (void)snprintf(address, sizeof address, "verbs:%s", at);
    begin(&s, "dana-slim", 256);
    config.params = params = workers_take(count);
    config.grad = grad = workers_take(count);
    for (unsigned long i = 0; i <= calls; i++) {
        struct gapless_worker *worker = NULL;
        struct gapless_error error = {0};
        unsigned before = cuda->leaks();
        unsigned long made = cuda->calls();

        if (i > 2 && i + 40 < calls)
            continue;
        cuda->fail_at(i, false);
        if (gapless_worker_open(&config, &worker, &error) != GAPLESS_OK)
            assert_true(i > 0 && error.text[0] != '\0');
        cuda->fail_at(0, false);
        calls = i == 0 ? cuda->calls() - made : calls;
        gapless_worker_close(worker);
        assert_int_equal(cuda->leaks(), before);
    }
    assert_true(calls > 60);
    workers_give(params);
    workers_give(grad);
    stop(&s);
    gapless_master_close(s.master);
    must_be_clean();
}

static int end(void **state)
{
    (void)state;
    workers_end();
    return fake_cuda_of_plugin()->leaks() == 0 ? 0 : 1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(straight_from_the_gpu),
        cmocka_unit_test(a_large_one),
        cmocka_unit_test(tensors_of_their_own),
        cmocka_unit_test(parameters_at_the_worker),
        cmocka_unit_test(by_its_address),
        cmocka_unit_test(iwarp),
        cmocka_unit_test(cards_that_do_not_reach_it),
        cmocka_unit_test(lost_gpu),
        cmocka_unit_test(calls_fail_one_by_one),
    };
    const char *plugin = getenv("GAPLESS_CUDA_FAKE");

    if (RACES) {
        (void)printf("SKIP: a card reads the board while the master writes it, as it "
                     "may; here both are threads of one process\n");
        return 77;
    }
    if (plugin == NULL) {
        (void)printf("SKIP: there is no fake plugin (it needs a C++ compiler)\n");
        return 77;
    }
    (void)setenv("GAPLESS_CUDA_PLUGIN", plugin, 1);
    workers_tell(fake_card);
    pace_alarm(400);
    return cmocka_run_group_tests(tests, NULL, end);
}
