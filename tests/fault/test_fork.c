/* ctest: link=-Wl,--wrap=syscall
 *
 * Objects belong to the process that opened them: a forked child can only close its copy, and
 * the parent goes on. And a process that has ended is noticed though a helper that it forked
 * lives, where the kernel gives no descriptor for it, too. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/worker/worker.h"
#include "tests/fault/engine.h"
#include "tests/property/simulated.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

static bool refuses_pidfd;

long __real_syscall(long what, long a, long b, long c, long d, long e, long f);
long __wrap_syscall(long what, long a, long b, long c, long d, long e, long f);
long __wrap_syscall(long what, long a, long b, long c, long d, long e, long f)
{
    if (what == SYS_pidfd_open && refuses_pidfd) {
        errno = ENOSYS;
        return -1;
    }
    return __real_syscall(what, a, b, c, d, e, f);
}

static struct gapless_master *master;

static void *serve(void *argument)
{
    (void)argument;
    while (gapless_master_run(master, 5000000, NULL) == GAPLESS_OK)
        ;
    return NULL;
}

/* Is it refused, with the owner's number? */
static bool refused(int status, const struct gapless_error *error)
{
    char owner[32];

    (void)snprintf(owner, sizeof owner, "process %ld,", (long)getppid());
    return status == GAPLESS_INVALID && strstr(error->text, owner) != NULL;
}

/* What a child may try with objects of its parent's. 0: all as it should be. */
static int child_tries(struct gapless_worker *worker, struct gapless_observer *observer,
                       struct gapless_simulation *simulation)
{
    static float params[ENGINE_COUNT];
    struct gapless_error error = {0};
    struct gapless_stats stats;
    uint64_t batch;

    if (!refused(gapless_worker_pull(worker, &batch, &error), &error) ||
        !refused(gapless_worker_push(worker, 0, &error), &error) ||
        !refused(gapless_worker_poll(worker, 0, &error), &error) ||
        gapless_worker_set_rate(worker, 1) != GAPLESS_INVALID)
        return 1;
    if (!refused(gapless_observer_read(observer, params, 0, NULL, &error), &error) ||
        !refused(gapless_observer_stats(observer, &stats, &error), &error))
        return 2;
    if (!refused(gapless_master_run(master, 0, &error), &error) ||
        !refused(gapless_master_save(master, "/dev/null", &error), &error))
        return 3;
    if (!refused(gapless_simulation_run(simulation, 0, &error), &error))
        return 4;
    gapless_master_stop(master);
    gapless_worker_close(worker);
    gapless_observer_close(observer);
    gapless_master_close(master);
    gapless_simulation_close(simulation);
    return 0;
}

static void a_batch(struct gapless_worker *worker)
{
    struct gapless_error error = {0};
    uint64_t batch;

    if (gapless_worker_pull(worker, &batch, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    (void)engine_gradient(gapless_worker_params(worker), batch,
                          gapless_worker_grad(worker));
    if (gapless_worker_push(worker, 0, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
}

static void test_objects_are_the_process_s_that_opened_them(void **state)
{
    struct gapless_master_config config = engine_config("dana-ga", 0);
    const struct gapless_simulation_config simulated = sim_config("asgd", 2, 50);
    struct gapless_worker_config as = {.wait_ns = ENGINE_WAIT_NS};
    struct gapless_observer_config seen = {0};
    struct gapless_simulation *simulation;
    struct gapless_observer *observer;
    struct gapless_worker *worker, *second;
    struct gapless_stats stats;
    struct pace_bound bound;
    struct stat info;
    pthread_t thread;
    char path[120], address[130];
    pid_t pid;

    (void)state;
    (void)snprintf(path, sizeof path, "/tmp/gapless-fork-%ld.sock", (long)getpid());
    (void)snprintf(address, sizeof address, "shm:%s", path);
    config.address = as.address = seen.address = address;
    master = open_master(&config);
    assert_int_equal(pthread_create(&thread, NULL, serve, NULL), 0);
    assert_int_equal(gapless_worker_open(&as, &worker, NULL), GAPLESS_OK);
    assert_int_equal(gapless_observer_open(&seen, &observer, NULL), GAPLESS_OK);
    assert_int_equal(gapless_simulation_open(&simulated, &simulation, NULL),
                     GAPLESS_OK);
    a_batch(worker);
    (void)fflush(NULL);
    pid = fork();
    if (pid == 0)
        _exit(child_tries(worker, observer, simulation));
    assert_int_equal(engine_wait(pid), 0);
    for (int i = 0; i < 5; i++)
        a_batch(worker); /* nobody said goodbye, no connection was shut */
    assert_int_equal(lstat(path, &info), 0);
    assert_int_equal(gapless_worker_open(&as, &second, NULL), GAPLESS_OK);
    assert_int_equal(gapless_observer_stats(observer, &stats, NULL), GAPLESS_OK);
    assert_int_equal(stats.workers_lost, 0);
    assert_int_equal(stats.workers_joined, 2);
    assert_int_equal(gapless_simulation_run(simulation, 0, NULL), GAPLESS_STOPPED);
    gapless_simulation_close(simulation);
    gapless_worker_close(second);
    worker_abandon(worker); /* without a word: nor did the child say goodbye for it */
    bound = pace_begin(20 * ENGINE_SECOND_NS);
    do
        assert_int_equal(gapless_observer_stats(observer, &stats, NULL), GAPLESS_OK);
    while (stats.workers_active > 0 && !pace_over(&bound));
    assert_int_equal(stats.workers_lost, 1);
    gapless_observer_close(observer);
    gapless_master_stop(master);
    assert_int_equal(pthread_join(thread, NULL), 0);
    gapless_master_close(master);
    assert_int_equal(lstat(path, &info), -1);
}

/* A worker with a helper, as a data loader starts them, that outlives it. */
static int worker_with_helper(int until)
{
    const struct gapless_worker_config config = {.address = engine_address,
                                                 .wait_ns = ENGINE_WAIT_NS};
    struct gapless_worker *worker;
    char byte;

    if (gapless_worker_open(&config, &worker, NULL) != GAPLESS_OK)
        return 1;
    if (fork() == 0) {
        (void)!read(until, &byte, 1); /* until the test closes its end */
        _exit(0);
    }
    (void)pause();
    return 2;
}

static void killed(bool without_pidfd)
{
    struct gapless_master_config config = engine_config("dana-ga", 0);
    struct gapless_master *m;
    int until[2];
    pid_t pid;

    refuses_pidfd = without_pidfd;
    m = open_master(&config);
    assert_int_equal(pipe(until), 0);
    (void)fflush(NULL);
    pid = fork();
    if (pid == 0) {
        (void)close(until[1]);
        _exit(worker_with_helper(until[0]));
    }
    (void)close(until[0]);
    run_until(m, stats_of(m).workers_active == 1);
    (void)gapless_master_run(m, ENGINE_SECOND_NS / 3, NULL);
    assert_int_equal(stats_of(m).workers_lost, 0); /* it lives */
    assert_int_equal(kill(pid, SIGKILL), 0);
    run_until(m, stats_of(m).workers_lost == 1); /* though nobody has reaped it */
    assert_int_equal(engine_wait(pid), -1);
    (void)close(until[1]);
    gapless_master_close(m);
    refuses_pidfd = false;
}

static void test_a_helper_that_lives_hides_no_death(void **state)
{
    (void)state;
    killed(false);
    killed(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_objects_are_the_process_s_that_opened_them),
        cmocka_unit_test(test_a_helper_that_lives_hides_no_death),
    };

    pace_alarm(120);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
