/* On the master's path, from a note to the next look-ahead, nothing is allocated and
 * nothing is asked of the system but sched_yield while it polls. (A worker that fell
 * asleep costs it one futex call; here the workers poll as well.) Counted for a rule of
 * every shape, under real traffic of two workers. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/fault/counting.h"
#include "tests/fault/engine.h"

#include <sys/syscall.h>

/* Results of a child. */
enum {
    QUIET,
    NO_COUNTING,
    NOISY,
    IDLE,
    FAILED
};

/* Runs in a child process, which is left with a filter on its system calls. */
static int count_run(const char *rule, uint64_t range_elements)
{
    const struct engine_fault polls = {.spin_ns = 5000000000, .by_range = true};
    struct gapless_master_config config = engine_config(rule, 0);
    struct gapless_stats before = {0}, after;
    struct gapless_master *m;
    unsigned long others;
    const char *reason;
    pid_t a, b;
    int i;

    config.range_elements = range_elements;
    config.spin_ns = 5000000000; /* polls, never sleeps */
    config.schedule.warmup = 300;
    if (gapless_master_open(&config, &m, NULL) != GAPLESS_OK)
        return FAILED;
    a = engine_start(&polls);
    b = engine_start(&polls);
    if (!counting_open(&reason)) {
        (void)fprintf(stderr, "%s\n", reason);
        (void)kill(a, SIGKILL);
        (void)kill(b, SIGKILL);
        return NO_COUNTING;
    }
    for (i = 0; i < 200; i++) { /* until both work, well past the first updates */
        (void)gapless_master_run(m, 20000000, NULL);
        gapless_master_stats(m, &before);
        if (before.workers_active == 2 && before.gradients > 300)
            break;
    }
    counting_start();
    (void)gapless_master_run(m, 200000000, NULL);
    counting_stop();
    gapless_master_stats(m, &after);
    gapless_master_stop(m);
    while (gapless_master_run(m, -1, NULL) == GAPLESS_OK)
        ;
    if (engine_wait(a) + engine_wait(b) != 0)
        return FAILED;
    others = counting_others((const int[]){SYS_sched_yield, -1});
    (void)fprintf(stderr,
                  "%s: %llu gradients, %lu yields, %lu other calls, %lu allocations\n",
                  rule, (unsigned long long)(after.gradients - before.gradients),
                  counting.calls[SYS_sched_yield], others, counting.allocations);
    if (after.gradients < before.gradients + 10)
        return IDLE;
    return others + counting.allocations == 0 ? QUIET : NOISY;
}

static void check(const char *rule, uint64_t range_elements)
{
    pid_t pid;
    int code;

    (void)fflush(NULL);
    pid = fork();
    if (pid == 0)
        _exit(count_run(rule, range_elements));
    code = engine_wait(pid);
    if (code == NO_COUNTING)
        skip();
    assert_int_equal(code, QUIET);
}

static void test_no_call_and_no_allocation(void **state)
{
    (void)state;
    check("dana-ga", 0);
    check("dana-lga", 512);
    check("ga-global", 512);
    check("ssgd", 0);
    check("dana-slim", 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_call_and_no_allocation)};

    pace_alarm(100);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
