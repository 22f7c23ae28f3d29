/* A master on GPUs (the fake ones of this folder) beside one on the processor, live
 * over shared memory: the same workers in the same order give the same parameters, to
 * the bit, and the same statistics; on one GPU and on three, in one range and in
 * several, for every rule. Then what may go wrong.
 *
 * A worker that has pushed pulls before the next one pushes, so the order is known. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <gapless/gapless.h>
#include "tests/gpu/fake/fake_cuda.h"
#include "tests/pace.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif
/* A run takes seconds under the thread sanitizer, which has the threads of the host to
 * look at; those of a kernel are gpu/kernels'. */
#define RULES_APART (SANITIZED ? PACE_TIMES(5u, 12u) : 1u)
/* Rules that are tried with tensors of their own, which add no thread, and with workers that
 * come back. */
#define OWN_RULES PACE_TIMES(1000u, 3u)
#define BACK_RULES (SANITIZED ? PACE_TIMES(2u, 1u) : 4u)

#define WORKERS 3
#define COUNT 3333
#define TOTAL 21

static const struct gapless_tensor tensors[] = {
    {.name = "w1", .dims = 1, .dim = {1500}},
    {.name = "w2", .dims = 1, .dim = {1033}},
    {.name = "b", .dims = 1, .dim = {800}}};

/* For rules of matrices: a wide one, a tall one, and vectors between them, none of which
 * starts at a chunk of 16; 1,600 elements are whole chunks, where a range may end. */
static const struct gapless_tensor with_matrices[] = {
    {.name = "b0", .dims = 1, .dim = {5}},
    {.name = "w1", .dims = 2, .dim = {30, 50}},
    {.name = "b1", .dims = 1, .dim = {95}},
    {.name = "b2", .dims = 1, .dim = {933}},
    {.name = "w2", .dims = 2, .dim = {40, 20}}};

/* The same number of elements, with what is their own: where that changes, it is within 16 of
 * them, but never at a matrix. */
static const struct gapless_tensor own_tensors[] = {
    {.name = "w1", .dims = 1, .dim = {1500}, .rate = 0.5},
    {.name = "w2", .dims = 1, .dim = {1033}, .decay = 0.02},
    {.name = "mean", .dims = 1, .dim = {301}, .average = 0.1},
    {.name = "var", .dims = 1, .dim = {7}, .average = 0.3},
    {.name = "b", .dims = 1, .dim = {492}}};
static const struct gapless_tensor own_matrices[] = {
    {.name = "b0", .dims = 1, .dim = {5}, .rate = 0.5, .decay = 0.05},
    {.name = "w1", .dims = 2, .dim = {30, 50}, .rate = 0.5, .decay = 0.05},
    {.name = "b1", .dims = 1, .dim = {95}, .rate = 0.5, .decay = 0.05},
    {.name = "mean", .dims = 1, .dim = {403}, .average = 0.1},
    {.name = "b2", .dims = 1, .dim = {530}},
    {.name = "w2", .dims = 2, .dim = {40, 20}}};
#define GATES 6

/* One run: what the master is, and what came of it. */
struct run {
    const char *rule, *device;
    uint64_t range_elements;
    bool by_range, clip;
    bool whole; /* muon's gate is of the whole gradient, not of each tensor */
    enum gapless_gap_ref gap_ref;
    bool rejoin; /* a worker leaves half-way, and is back */
    bool own;    /* tensors and batches have what is their own */
};

struct came {
    float params[COUNT];
    float seen[COUNT]; /* by an observer */
    struct gapless_stats stats;
    int gated;
    double gates[GATES]; /* of the tensors */
};

static char address[64];

/* Of a bowl around 1, with the noise of its batch. */
static void gradient(const float *params, uint64_t batch, float *grad)
{
    uint64_t state = batch * 2654435761u + 99;
    int i;

    for (i = 0; i < COUNT; i++) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        grad[i] = 0.3f * (params[i] - 1.0f) +
                  0.2f * ((float)((state >> 40) % 2001) / 1000.0f - 1.0f);
    }
}

static bool of_matrices(const char *rule)
{
    return strstr(rule, "muon") != NULL;
}

static bool gates_matrices(const char *rule)
{
    return of_matrices(rule) && strstr(rule, "lga") != NULL;
}

static struct gapless_model model_of(const struct run *run)
{
    if (run->own)
        return of_matrices(run->rule) ? (struct gapless_model){own_matrices, 6}
                                      : (struct gapless_model){own_tensors, 5};
    return of_matrices(run->rule) ? (struct gapless_model){with_matrices, 5}
                                  : (struct gapless_model){tensors, 3};
}

static int pull(struct gapless_worker *worker, uint64_t *ret_batch)
{
    struct gapless_error error = {0};
    int status = gapless_worker_pull(worker, ret_batch, &error);

    if (status != GAPLESS_OK && status != GAPLESS_STOPPED)
        (void)fprintf(stderr, "pull: %s\n", error.text);
    return status;
}

static bool synchronous(const char *rule)
{
    return strncmp(rule, "ssgd", 4) == 0;
}

/* Leaves and is back as the same worker, once the master has seen it go: nothing else is
 * under way. NULL: it is not let in again. */
static struct gapless_worker *leave_and_join(const struct gapless_worker_config *config,
                                             struct gapless_worker *worker)
{
    struct gapless_error error = {0};
    struct gapless_worker *ret = NULL;
    int status = GAPLESS_CAPACITY;

    gapless_worker_close(worker);
    for (int tries = 0; status == GAPLESS_CAPACITY && tries < 10000; tries++) {
        status = gapless_worker_open(config, &ret, &error);
        if (status == GAPLESS_CAPACITY)
            (void)usleep(1000);
    }
    if (status != GAPLESS_OK)
        (void)fprintf(stderr, "join: %s\n", error.text);
    return ret;
}

/* All workers in one process, so that their order is fixed. */
static int work(const struct run *run)
{
    struct gapless_worker_config config = {
        .address = address, .model = model_of(run), .by_range = run->by_range};
    struct gapless_worker *worker[WORKERS];
    uint64_t batch[WORKERS];
    int i, w, status = GAPLESS_OK;

    for (w = 0; w < WORKERS; w++)
        if (gapless_worker_open(&config, &worker[w], NULL) != GAPLESS_OK)
            return 1;
    for (w = 0; w < WORKERS; w++)
        status = pull(worker[w], &batch[w]);
    for (i = 0; status == GAPLESS_OK && i < TOTAL; i++) {
        w = i % WORKERS;
        if (run->rejoin && i == TOTAL / 2) {
            worker[w] = leave_and_join(&config, worker[w]);
            status = worker[w] == NULL ? GAPLESS_CAPACITY : pull(worker[w], &batch[w]);
            if (status != GAPLESS_OK)
                return 1;
        }
        gradient(gapless_worker_params(worker[w]), batch[w],
                 gapless_worker_grad(worker[w]));
        if (run->own && gapless_worker_set_rate(
                            worker[w], 0.5 * (double)(1 + batch[w] % 3)) != GAPLESS_OK)
            return 1;
        status = gapless_worker_push(worker[w], 0.5, NULL);
        if (status == GAPLESS_OK && !synchronous(run->rule))
            status = pull(worker[w], &batch[w]);
        for (w = 0; synchronous(run->rule) && i % WORKERS == WORKERS - 1 &&
                    status == GAPLESS_OK && w < WORKERS;
             w++)
            status = pull(worker[w], &batch[w]);
    }
    for (w = 0; w < WORKERS; w++)
        gapless_worker_close(worker[w]);
    return status == GAPLESS_OK ? 0 : 1;
}

static void configure(const struct run *run, const float *initial,
                      struct gapless_master_config *ret)
{
    static int runs;

    (void)snprintf(address, sizeof address, "shm:gpu-%ld-%d", (long)getpid(), runs++);
    *ret = (struct gapless_master_config){
        .address = address,
        .model = model_of(run),
        .initial = initial,
        .rule = run->rule,
        .schedule = {.rate = 0.05,
                     .warmup = 6,
                     .warmup_from = 0.25,
                     .steps_count = 1,
                     .steps = {{14, 0.1}}},
        .workers_max = WORKERS,
        .workers_wait = WORKERS,
        .range_elements = run->range_elements,
        .block_elements = 256,
        .gap_every = 1,
        .gap_ref = run->gap_ref,
        /* so that some gates are neither 0 nor 1 */
        .kappa = !gates_matrices(run->rule) ? 0
                 : run->whole               ? 0.02
                                            : 0.1,
        .gate = gates_matrices(run->rule) && !run->whole ? GAPLESS_GATE_TENSOR
                                                         : GAPLESS_GATE_AUTO,
        .clip_norm = run->clip ? 5 : 0,
        .weight_decay =
            run->clip && strstr(run->rule, "adam") == NULL && !of_matrices(run->rule)
                ? 0.01
                : 0,
        .device = run->device,
    };
}

static double initial_at(int i)
{
    return (i % 17) / 8.0 - 1.0;
}

static void observe(struct gapless_master *master, float *ret)
{
    struct gapless_observer_config config = {.address = address};
    struct gapless_observer *observer = NULL;
    struct gapless_error error = {0};
    pid_t child;
    int status = -1, pipes[2];

    assert_int_equal(pipe(pipes), 0);
    child = fork(); /* who is served and who serves may not wait for each other */
    if (child == 0) {
        static float params[COUNT];

        if (gapless_observer_open(&config, &observer, &error) != GAPLESS_OK ||
            gapless_observer_read(observer, params, 0, NULL, &error) != GAPLESS_OK)
            (void)fprintf(stderr, "observer: %s\n", error.text);
        else if (write(pipes[1], params, sizeof params) == (ssize_t)sizeof params)
            status = 0;
        _exit(status == 0 ? 0 : 1);
    }
    while (waitpid(child, &status, WNOHANG) == 0)
        (void)gapless_master_run(master, 10000000, NULL);
    assert_int_equal(status, 0);
    assert_int_equal(read(pipes[0], ret, COUNT * sizeof *ret), COUNT * sizeof *ret);
    (void)close(pipes[0]);
    (void)close(pipes[1]);
}

static void go(const struct run *run, struct came *ret)
{
    static float initial[COUNT];
    struct gapless_master_config config;
    struct gapless_master *master = NULL;
    struct gapless_error error = {0};
    int status, ended = -1;
    pid_t child, gone;
    char device[512];

    for (int i = 0; i < COUNT; i++)
        initial[i] = (float)initial_at(i);
    configure(run, initial, &config);
    if (gapless_master_open(&config, &master, &error) != GAPLESS_OK)
        fail_msg("%s on %s: %s", run->rule, run->device, error.text);
    gapless_master_device(master, device, sizeof device);
    assert_int_equal(strstr(device, "GPU") != NULL, strcmp(run->device, "cpu") != 0);
    child = fork();
    if (child == 0)
        _exit(work(run));
    do {
        status = gapless_master_run(master, 5000000, &error);
        gone = waitpid(child, &ended, WNOHANG);
    } while (status == GAPLESS_OK && gone == 0);
    if (status != GAPLESS_OK)
        fail_msg("%s on %s: %d, %s", run->rule, run->device, status, error.text);
    assert_int_equal(ended, 0);
    assert_int_equal(gapless_master_run(master, 5000000, &error), GAPLESS_OK);
    observe(master, ret->seen);
    memcpy(ret->params, gapless_master_params(master), sizeof ret->params);
    gapless_master_stats(master, &ret->stats);
    memset(ret->gates, 0, sizeof ret->gates);
    ret->gated =
        gapless_master_tensor_gates(master, model_of(run).tensors_count, ret->gates);
    gapless_master_close(master);
}

static void same(const struct run *run, const struct came *one, const struct came *two)
{
    for (int i = 0; i < COUNT; i++)
        if (memcmp(&one->params[i], &two->params[i], sizeof(float)) != 0)
            fail_msg("%s on %s, parameter %d: %.9g, not %.9g", run->rule, run->device,
                     i, (double)two->params[i], (double)one->params[i]);
    assert_memory_equal(two->params, two->seen, sizeof two->params);
    assert_int_equal(one->stats.gradients, two->stats.gradients);
    assert_int_equal(one->stats.updates, two->stats.updates);
    assert_int_equal(two->stats.gap_rms.count, one->stats.gap_rms.count);
    /* the sums of a range are the same bits, and there are no parts of a range here */
    assert_memory_equal(&one->stats.gap_rms.mean, &two->stats.gap_rms.mean,
                        sizeof(double));
    assert_memory_equal(&one->stats.gate, &two->stats.gate, sizeof(double));
    assert_memory_equal(&one->stats.gate_mean, &two->stats.gate_mean, sizeof(double));
    assert_int_equal(one->gated, two->gated);
    assert_memory_equal(one->gates, two->gates, sizeof one->gates);
    assert_memory_equal(&one->stats.lag.mean, &two->stats.lag.mean, sizeof(double));
}

/* Of a range that is not one stretch, sums of the gap are added in another order. An average
 * has no gate. */
static void alike(double one, double two)
{
    assert_true((isnan(one) && isnan(two)) || fabs(one - two) <= 1e-5 * fabs(one));
}

/* What is no matrix has the same bits, and its gates, where nothing that is of the whole
 * gradient is in between (a norm, a gate); products are added up in another order. */
static void nearly_same(const struct run *run, const struct came *one,
                        const struct came *two)
{
    const struct gapless_model model = model_of(run);
    bool apart = !run->clip && !run->whole;
    int at = 0;

    for (uint32_t t = 0; t < model.tensors_count; t++) {
        const struct gapless_tensor *tensor = &model.tensors[t];
        int n = (int)(tensor->dim[0] * (tensor->dims > 1 ? tensor->dim[1] : 1));
        double far = 0, gone = 0;

        for (int i = at; i < at + n; i++) {
            double off = (double)two->params[i] - (double)one->params[i];
            double went = (double)one->params[i] - initial_at(i);

            far += off * off;
            gone += went * went;
        }
        if (tensor->dims > 1 || !apart ? sqrt(far) > 1e-4 * sqrt(gone) : far > 0)
            fail_msg("%s on %s, tensor %s: off by %g, having gone %g", run->rule,
                     run->device, tensor->name, sqrt(far), sqrt(gone));
        if (tensor->dims > 1 || !apart)
            alike(one->gates[t], two->gates[t]);
        else
            assert_memory_equal(&one->gates[t], &two->gates[t], sizeof(double));
        at += n;
    }
    assert_memory_equal(two->params, two->seen, sizeof two->params);
    assert_int_equal(one->stats.gradients, two->stats.gradients);
    assert_int_equal(one->stats.updates, two->stats.updates);
    assert_int_equal(two->stats.gap_rms.count, one->stats.gap_rms.count);
    alike(one->stats.gap_rms.mean, two->stats.gap_rms.mean);
    alike(one->stats.gate_mean, two->stats.gate_mean);
    assert_int_equal(one->gated, two->gated);
    assert_memory_equal(&one->stats.lag.mean, &two->stats.lag.mean, sizeof(double));
}

static void compare(struct run run)
{
    static const char *const devices[] = {"cuda", "cuda:0,1,2"};
    static struct came cpu, gpu;
    uint32_t i;

    run.device = "cpu";
    go(&run, &cpu);
    assert_true(isfinite(cpu.params[0]) && cpu.stats.updates > 0);
    for (i = 0; i < (run.range_elements < COUNT ? 2u : 1u); i++) {
        run.device = devices[i];
        go(&run, &gpu);
        if (of_matrices(run.rule))
            nearly_same(&run, &cpu, &gpu);
        else
            same(&run, &cpu, &gpu);
    }
}

static void every_rule(void **state)
{
    struct gapless_rule rule;
    unsigned i;

    (void)state;
    for (i = 0; gapless_rule_at(i, &rule) == GAPLESS_OK; i++) {
        if (i % RULES_APART != 3 % RULES_APART && !rule.matrices)
            continue;
        compare((struct run){.rule = rule.name, .range_elements = 1 << 20});
        compare((struct run){
            .rule = rule.name, .range_elements = 1024, .by_range = i % 2 == 0});
    }
}

static void tensors_of_their_own(void **state)
{
    struct gapless_rule rule;
    unsigned i;

    (void)state;
    for (i = 0; i < OWN_RULES && gapless_rule_at(i, &rule) == GAPLESS_OK; i++) {
        if ((i % RULES_APART != 2 % RULES_APART && (SANITIZED || !rule.matrices)) ||
            strcmp(rule.name, "shared-lga-dot") == 0)
            continue;
        if (!SANITIZED || i < RULES_APART)
            compare((struct run){.rule = rule.name,
                                 .range_elements = 1 << 20,
                                 .own = true,
                                 .clip = true});
        compare((struct run){.rule = rule.name,
                             .range_elements = 1024,
                             .by_range = i % 2 == 0,
                             .own = true});
    }
    compare((struct run){
        .rule = "dana-adamw", .range_elements = 256, .rejoin = true, .own = true});
    compare((struct run){
        .rule = "dana-ga", .range_elements = 256, .rejoin = true, .own = true});
}

/* Whose velocity is the mean of the others' then, or none. */
static void who_is_back(void **state)
{
    static const char *const rules[] = {"dana-lga-muon", "dana-lga-adamw", "dana-adamw",
                                        "dana-ga"};

    (void)state;
    for (unsigned i = 0; i < BACK_RULES; i++) {
        compare(
            (struct run){.rule = rules[i], .range_elements = 1 << 20, .rejoin = true});
        compare((struct run){.rule = rules[i], .range_elements = 1024, .rejoin = true});
    }
}

static void variants(void **state)
{
    static const char *const rules[] = {"dana-ga",        "dana-lga",  "ga-global",
                                        "shared-lga-dot", "dana-slim", "dana-lga-muon"};
    unsigned i;

    (void)state;
    for (i = 0; i < (SANITIZED ? 2u : 6u); i++) {
        compare((struct run){.rule = rules[i],
                             .range_elements = 1024,
                             .gap_ref = GAPLESS_GAP_OWN_LOOKAHEAD});
        compare((struct run){
            .rule = rules[i], .range_elements = 1024, .by_range = true, .clip = true});
    }
    compare(
        (struct run){.rule = "dana-lga-muon", .range_elements = 1024, .whole = true});
}

/* ---- what may go wrong --------------------------------------------------- */

static void refused_rule(const char *rule, const char *device, int status,
                         const char *text)
{
    const struct run run = {.rule = rule, .device = device};
    struct gapless_master_config config;
    struct gapless_master *master = NULL;
    struct gapless_error error = {0};

    configure(&run, NULL, &config);
    assert_int_equal(gapless_master_open(&config, &master, &error), status);
    assert_null(master);
    if (strstr(error.text, text) == NULL)
        fail_msg("'%s' does not say '%s'", error.text, text);
}

static void refused(const char *device, int status, const char *text)
{
    refused_rule("dana-ga", device, status, text);
}

static void bad_devices(void **state)
{
    (void)state;
    refused("cuda:3", GAPLESS_MISSING, "3");
    refused("cuda:", GAPLESS_INVALID, "cuda");
    refused("gpu", GAPLESS_INVALID, "gpu");
    refused("cuda:0,0", GAPLESS_INVALID, "0");
}

static int lines;
static char last[600];

static void on_line(void *context, const char *line)
{
    (void)context;
    lines++;
    (void)snprintf(last, sizeof last, "%s", line);
}

static void auto_finds_it(void **state)
{
    const struct run run = {.rule = "dana-ga", .device = "auto"};
    struct gapless_master_config config;
    struct gapless_master *master = NULL;
    char text[512];

    (void)state;
    configure(&run, NULL, &config);
    config.log = on_line;
    assert_int_equal(gapless_master_open(&config, &master, NULL), GAPLESS_OK);
    gapless_master_device(master, text, sizeof text);
    assert_non_null(strstr(text, "GPU 0"));
    assert_non_null(strstr(text, "copied through host memory"));
    gapless_master_close(master);
}

/* First of all: once found, it stays. */
static void no_cublas(void **state)
{
    const struct run run = {.rule = "dana-lga-muon", .device = "auto"};
    struct gapless_master_config config;
    struct gapless_master *master = NULL;
    char text[512];

    (void)state;
    assert_int_equal(setenv("GAPLESS_CUBLAS", "/nothing.so", 1), 0);
    refused_rule("dana-lga-muon", "cuda", GAPLESS_MISSING, "GAPLESS_CUBLAS");
    configure(&run, NULL, &config);
    config.log = on_line;
    assert_int_equal(gapless_master_open(&config, &master, NULL), GAPLESS_OK);
    gapless_master_device(master, text, sizeof text);
    assert_non_null(strstr(text, "cpu"));
    assert_non_null(strstr(last, "passes run on the CPU: GAPLESS_CUBLAS"));
    gapless_master_close(master);
    assert_int_equal(setenv("GAPLESS_CUBLAS",
                            GAPLESS_BUILD_DIR "/tests/libgapless_fake_cublas.so", 1),
                     0);
}

/* Each function of cuBLAS refuses once: nothing left behind. */
static void cublas_refuses(void **state)
{
    static const char *const names[] = {"Create", "SetStream", "SetWorkspace",
                                        "SetMathMode", "SetPointerMode"};
    const struct fake_cuda *fake = fake_cuda_of_plugin();

    (void)state;
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++) {
        unsigned before = fake->leaks();

        assert_int_equal(setenv("FAKE_CUBLAS_FAIL", names[i], 1), 0);
        refused_rule("dana-lga-muon", "cuda:0,1", GAPLESS_SYSTEM, names[i]);
        assert_int_equal(fake->leaks(), before);
    }
    assert_int_equal(unsetenv("FAKE_CUBLAS_FAIL"), 0);
}

/* Every call of CUDA fails once while a master opens: an error in words, nothing left
 * behind. Of the many that make an event, a few do. */
static void no_call_of(const char *rule)
{
    const struct run run = {.rule = rule, .device = "cuda:0,1", .range_elements = 1024};
    const struct fake_cuda *fake = fake_cuda_of_plugin();
    struct gapless_master_config config;
    struct gapless_master *master;
    struct gapless_error error;
    unsigned n, failed = 0;

    assert_non_null(fake);
    for (n = 1; n < 2000; n += SANITIZED ? 7 : 1) {
        unsigned before = fake->leaks();
        int status;

        master = NULL;
        error = (struct gapless_error){0};
        configure(&run, NULL, &config);
        fake->fail_at(n, false);
        status = gapless_master_open(&config, &master, &error);
        if (status == GAPLESS_OK) {
            fake->fail_at(0, false);
            gapless_master_close(master);
        } else {
            assert_null(master);
            assert_true(strlen(error.text) > 10);
            failed++;
        }
        assert_int_equal(fake->leaks(), before);
        if (status == GAPLESS_OK && strcmp(fake->failed(), "") == 0)
            break;
        if (strcmp(fake->failed(), "cudaEventCreateWithFlags") == 0)
            n += 60;
    }
    assert_true(failed > 30);
}

static void no_call_is_taken_for_granted(void **state)
{
    (void)state;
    no_call_of("dana-lga");
    no_call_of("dana-lga-muon");
}

/* A product fails in the middle: so does the run. */
static void a_failed_product_ends_the_run(void **state)
{
    const struct run run = {.rule = "muon", .device = "cuda:1"};
    struct gapless_master_config config;
    struct gapless_master *master = NULL;
    struct gapless_error error = {0};
    int status, ended;
    pid_t child;

    (void)state;
    configure(&run, NULL, &config);
    assert_int_equal(gapless_master_open(&config, &master, &error), GAPLESS_OK);
    child = fork();
    if (child == 0) {
        (void)signal(SIGPIPE, SIG_IGN);
        _exit(work(&run));
    }
    assert_int_equal(setenv("FAKE_CUBLAS_FAIL", "Sgemm", 1), 0);
    do
        status = gapless_master_run(master, 1000000000, &error);
    while (status == GAPLESS_OK);
    assert_true(status < 0 && status != GAPLESS_STOPPED);
    assert_non_null(strstr(error.text, "GPU 1: cublasSgemm"));
    gapless_master_close(master);
    assert_true(waitpid(child, &ended, 0) == child);
    assert_int_equal(unsetenv("FAKE_CUBLAS_FAIL"), 0);
}

/* A GPU is lost in the middle: the run ends with a text that names it, and the workers
 * are not told anything that is not so. */
static void a_lost_gpu_ends_the_run(void **state)
{
    const struct run run = {.rule = "dana-zero", .device = "cuda:1"};
    const struct fake_cuda *fake = fake_cuda_of_plugin();
    struct gapless_master_config config;
    struct gapless_master *master = NULL;
    struct gapless_error error = {0};
    struct gapless_stats stats = {0};
    int status, ended;
    pid_t child;

    (void)state;
    configure(&run, NULL, &config);
    assert_int_equal(gapless_master_open(&config, &master, &error), GAPLESS_OK);
    child = fork();
    if (child == 0) {
        (void)signal(SIGPIPE, SIG_IGN);
        _exit(work(&run));
    }
    while (stats.updates < 5 &&
           (status = gapless_master_run(master, 2000000, &error)) == GAPLESS_OK)
        gapless_master_stats(master, &stats);
    fake->lose(1);
    do
        status = gapless_master_run(master, 1000000000, &error);
    while (status == GAPLESS_OK);
    assert_true(status < 0 && status != GAPLESS_STOPPED);
    assert_non_null(strstr(error.text, "GPU 1"));
    gapless_master_close(master);
    assert_true(waitpid(child, &ended, 0) == child);
    fake->reset();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_cublas),
        cmocka_unit_test(every_rule),
        cmocka_unit_test(variants),
        cmocka_unit_test(tensors_of_their_own),
        cmocka_unit_test(who_is_back),
        cmocka_unit_test(bad_devices),
        cmocka_unit_test(auto_finds_it),
        cmocka_unit_test(cublas_refuses),
        cmocka_unit_test(no_call_is_taken_for_granted),
        cmocka_unit_test(a_failed_product_ends_the_run),
        cmocka_unit_test(a_lost_gpu_ends_the_run),
    };

    (void)setenv("FAKE_CUDA_GPUS", "3", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
