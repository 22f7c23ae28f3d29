/* Observers: one-sided reads that are never torn, and a copy where the parameters
 * change too fast to be read. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/fault/engine.h"
#include "engine/worker/client.h"
#include "engine/master/master.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Large enough that a copy takes as long as an update: without the check of versions
 * about every second read here is torn. */
#define LARGE 400000u
/* Reads and updates of it. */
#define READS PACE_TIMES(300u, 60u)

static const struct gapless_tensor large[] = {{.name = "w", .dims = 1, .dim = {LARGE}}};

/* Of a child: says why. */
static int failed(int code, const struct gapless_error *error)
{
    (void)fprintf(stderr, "%s\n", error->text);
    return code;
}

/* With every gradient the same in all places, every version of the parameters is one
 * number repeated: a torn copy would show two. Reads on until READS updates have gone by.
 */
static int watch(void)
{
    struct gapless_observer_config config = {.address = engine_address};
    static float params[LARGE];
    struct gapless_observer *o;
    struct gapless_error error = {0};
    struct gapless_stats stats;
    uint64_t version, last = 0;
    uint32_t i, reads;

    if (gapless_observer_open(&config, &o, &error) != GAPLESS_OK)
        return failed(1, &error);
    if (gapless_observer_count(o) != LARGE ||
        strcmp(gapless_observer_job(o), "a job") != 0)
        return 1;
    for (reads = 0; reads < READS || last < READS; reads++) {
        if (gapless_observer_read(o, params, 0, &version, &error) != GAPLESS_OK)
            return failed(2, &error);
        for (i = 1; i < LARGE; i++)
            if (params[i] < params[i - 1] || params[i] > params[i - 1])
                return 3;
        if (version < last || gapless_observer_stats(o, &stats, NULL) != GAPLESS_OK)
            return 4;
        last = version;
    }
    gapless_observer_close(o);
    return 0;
}

static int push_ones(void)
{
    struct gapless_worker_config config = {.address = engine_address};
    struct gapless_error error = {0};
    struct gapless_worker *w;
    uint64_t batch;
    uint32_t i;

    if (gapless_worker_open(&config, &w, &error) != GAPLESS_OK)
        return failed(1, &error);
    while (gapless_worker_pull(w, &batch, NULL) == GAPLESS_OK) {
        for (i = 0; i < LARGE; i++)
            gapless_worker_grad(w)[i] = 1e-4f;
        if (gapless_worker_push(w, 0, NULL) != GAPLESS_OK)
            break;
    }
    gapless_worker_close(w);
    return 0;
}

/* Serves until a child has ended; its exit code, -1 if it was killed. */
static int run_until_ended(struct gapless_master *m, pid_t pid)
{
    int status = 0;

    run_until(m, waitpid(pid, &status, WNOHANG) == pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void test_reads_are_never_torn(void **state)
{
    struct gapless_master_config config = engine_config("nag-asgd", 0);
    struct gapless_master *m;
    pid_t worker, observer;

    (void)state;
    config.model = (struct gapless_model){large, 1};
    config.range_elements = LARGE; /* one range */
    m = open_master(&config);
    worker = fork();
    if (worker == 0)
        _exit(push_ones());
    observer = fork();
    if (observer == 0)
        _exit(watch());
    assert_int_equal(run_until_ended(m, observer), 0);
    run_until(m, gapless_master_observers(m) == 0); /* it hears of it */
    gapless_master_stop(m);
    run_to_end(m);
    assert_int_equal(engine_wait(worker), 0);
    gapless_master_close(m);
}

/* A range that is being written whenever one looks: the observer must still get its
 * parameters, as a copy. */
static int read_once(void)
{
    struct gapless_observer_config config = {.address = engine_address};
    static float params[ENGINE_COUNT];
    struct gapless_observer *o;
    struct gapless_error error = {0};
    uint64_t version = 99;

    if (gapless_observer_open(&config, &o, &error) != GAPLESS_OK)
        return failed(1, &error);
    if (gapless_observer_read(o, params, 0, &version, &error) != GAPLESS_OK)
        return failed(2, &error);
    if (version != 0)
        return 2;
    if (params[5] < 7 || params[5] > 7)
        return 3;
    gapless_observer_close(o);
    return 0;
}

static void test_copy_when_reads_are_torn(void **state)
{
    struct gapless_master_config config = engine_config("nag-asgd", 0);
    static float initial[ENGINE_COUNT];
    struct gapless_master *m;
    pid_t pid;
    int i;

    (void)state;
    for (i = 0; i < (int)ENGINE_COUNT; i++)
        initial[i] = 7;
    config.initial = initial;
    m = open_master(&config);
    seq_write_begin(&shared_stats_versions(m->shared_stats)[0]);
    pid = fork();
    if (pid == 0)
        _exit(read_once());
    assert_int_equal(run_until_ended(m, pid), 0);
    gapless_master_close(m);
}

/* Once the master is gone every call says so, and what is mapped is still there to
 * read. */
static void test_lost_master_stays_lost(void **state)
{
    struct gapless_master_config config = engine_config("asgd", 0);
    struct gapless_observer_config observer = {.address = engine_address};
    struct gapless_master *m = open_master(&config);
    static float params[ENGINE_COUNT];
    struct gapless_observer *o;
    struct gapless_stats stats;
    int go[2], ready[2], i;
    char byte = 'x';
    pid_t pid;

    (void)state;
    assert_int_equal(pipe(go), 0);
    assert_int_equal(pipe2(ready, O_NONBLOCK), 0);
    pid = fork();
    if (pid == 0) {
        if (gapless_observer_open(&observer, &o, NULL) != GAPLESS_OK ||
            gapless_observer_stats(o, &stats, NULL) != GAPLESS_OK ||
            write(ready[1], &byte, 1) != 1 || read(go[0], &byte, 1) != 1)
            _exit(1);
        for (i = 0; i < 300 && gapless_observer_stats(o, &stats, NULL) == GAPLESS_OK;
             i++)
            engine_sleep(10000);
        for (i = 0; i < 3; i++)
            if (gapless_observer_stats(o, &stats, NULL) != GAPLESS_PEER_LOST ||
                gapless_observer_read(o, params, 0, NULL, NULL) != GAPLESS_PEER_LOST)
                _exit(2);
        gapless_observer_close(o);
        _exit(0);
    }
    run_until(m, read(ready[0], &byte, 1) == 1);
    assert_int_equal(gapless_master_observers(m), 1);
    gapless_master_close(m);
    assert_int_equal(write(go[1], &byte, 1), 1);
    assert_int_equal(engine_wait(pid), 0);
    for (i = 0; i < 2; i++) {
        (void)close(go[i]);
        (void)close(ready[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads_are_never_torn),
        cmocka_unit_test(test_copy_when_reads_are_torn),
        cmocka_unit_test(test_lost_master_stays_lost),
    };

    pace_alarm(100);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
