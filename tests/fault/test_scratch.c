/* A worker that writes into its parameters ruins nothing but its own step: they are read
 * only, or its own until the next pull. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/fault/engine.h"

#include <math.h>
#include <string.h>
#include <sys/resource.h>

enum {
    GRADIENTS = 60
};

/* Writes what is not finite, or is far off, into its parameters when it has computed, and
 * looks at what it is given next. 0: all was as it should be. */
static int scribbler(bool by_range)
{
    const struct gapless_worker_config config = {.address = engine_address,
                                                 .model = {engine_tensors, 2},
                                                 .wait_ns = ENGINE_WAIT_NS,
                                                 .by_range = by_range,
                                                 .scratch_params = true};
    struct gapless_worker *worker;
    uint64_t batch;
    int status;

    if (gapless_worker_open(&config, &worker, NULL) != GAPLESS_OK)
        return 1;
    while ((status = gapless_worker_pull(worker, &batch, NULL)) == GAPLESS_OK) {
        float *params = (float *)(uintptr_t)gapless_worker_params(worker);

        for (uint32_t i = 0; i < ENGINE_COUNT; i++)
            if (!(fabsf(params[i]) < 100))
                return 2;
        (void)engine_gradient(params, batch, gapless_worker_grad(worker));
        for (uint32_t i = 0; i < ENGINE_COUNT; i += batch % 2 ? 1 : 1200)
            params[i] = batch % 3 ? (float)NAN : 1e30f;
        if (batch % 3 == 0 && params[0] < 1e30f)
            return 3; /* it reads what it wrote */
        if (gapless_worker_push(worker, 0, NULL) != GAPLESS_OK)
            return 4;
    }
    gapless_worker_close(worker);
    return status == GAPLESS_STOPPED ? 0 : 5;
}

static void scribbled(const char *rule, bool by_range)
{
    struct gapless_master_config config = engine_config(rule, GRADIENTS);
    const struct engine_fault none = {0};
    struct gapless_master *m;
    struct gapless_stats stats;
    pid_t honest, other;
    int code;

    config.gap_every = 1;
    config.workers_wait = 2;
    config.range_elements = by_range ? 1024 : 0;
    m = open_master(&config);
    honest = engine_start(&none);
    (void)fflush(NULL);
    other = fork();
    if (other == 0)
        _exit(scribbler(by_range));
    run_to_end(m);
    (void)gapless_master_run(m, 10000000, NULL);
    stats = stats_of(m);
    code = engine_wait(other);
    if (code != 0 || stats.dropped != 0 || stats.diverged_at != 0)
        fail_msg("%s: %d, %llu dropped, diverged at %llu", rule, code,
                 (unsigned long long)stats.dropped,
                 (unsigned long long)stats.diverged_at);
    for (uint32_t i = 0; i < ENGINE_COUNT; i++)
        assert_true(fabsf(gapless_master_params(m)[i]) < 100);
    gapless_master_close(m);
    assert_int_equal(engine_wait(honest), 0);
}

static void test_what_a_worker_writes_is_its_own(void **state)
{
    struct gapless_rule rule;

    (void)state;
    for (unsigned i = 0; gapless_rule_at(i, &rule) == GAPLESS_OK; i++)
        if (!rule.elastic) /* a worker of these moves parameters of its own */
            scribbled(rule.name, false);
    scribbled("dana-ga", true);
    scribbled("dc-asgd", true);
}

/* Without being asked for, they are read only: the process ends, the run goes on. */
static int careless(void)
{
    const struct gapless_worker_config config = {.address = engine_address,
                                                 .wait_ns = ENGINE_WAIT_NS};
    struct rlimit none = {0, 0};
    struct gapless_worker *worker;
    uint64_t batch;

    (void)setrlimit(RLIMIT_CORE, &none);
    (void)signal(SIGSEGV, SIG_DFL);
    if (gapless_worker_open(&config, &worker, NULL) != GAPLESS_OK ||
        gapless_worker_pull(worker, &batch, NULL) != GAPLESS_OK)
        return 1;
    *(volatile float *)(uintptr_t)gapless_worker_params(worker) = (float)NAN;
    return 0;
}

static void test_parameters_are_read_only(void **state)
{
    struct gapless_master_config config = engine_config("dana-ga", 200);
    const struct engine_fault none = {0};
    struct gapless_master *m;
    pid_t honest, other;
    int status = 0;

    (void)state;
    config.workers_wait = 2;
    m = open_master(&config);
    honest = engine_start(&none);
    (void)fflush(NULL);
    other = fork();
    if (other == 0)
        _exit(careless());
    run_to_end(m);
    assert_int_equal(waitpid(other, &status, 0), other);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGSEGV);
    assert_int_equal(stats_of(m).updates, 200);
    gapless_master_close(m);
    assert_int_equal(engine_wait(honest), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_a_worker_writes_is_its_own),
        cmocka_unit_test(test_parameters_are_read_only),
    };

    pace_alarm(240);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
