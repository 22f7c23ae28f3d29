/* ctest: serial
 * What the shared memory transport costs: no system call but sched_yield and no
 * allocation per event while the server is busy; next to no processor time while it is
 * not; and more processes than cores do not starve each other. */
#include "tests/fault/counting.h"

#include "tests/fault/shm_raw.h"

#include "engine/base/clock.h"
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* What the processes tell each other. */
struct shared_stats {
    struct flag_word listening;
    struct flag_word stop;
    struct stat_word echoes;
    struct stat_word guests; /* connections that came and went while it was counted */
};

static pid_t start(int (*run)(struct shared_stats *), struct shared_stats *shared_stats)
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        pace_alarm(40);
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(run(shared_stats));
    }
    return pid;
}

static int end(pid_t pid)
{
    int status = -1;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFEXITED(status))
        fail_msg("a child was killed by signal %d", WTERMSIG(status));
    return WEXITSTATUS(status);
}

static void wait_listening(struct shared_stats *shared_stats)
{
    for (int i = 0; i < 5000 && flag_word_read(&shared_stats->listening) == 0; i++)
        raw_nap(MS);
    assert_int_equal(flag_word_read(&shared_stats->listening), 1);
}

/* ---- silence ------------------------------------------------------------- */

enum {
    QUIET,
    LOUD,      /* it made system calls */
    ALLOCATED, /* it allocated */
    NO_COUNTING,
    BROKEN
};

/* Events counted; on a loaded machine what comes in the time, but not fewer than ... */
#define COUNTED 30000u
#define COUNTED_MIN 100u
#define COUNTED_NS UINT64_C(3000000000)
#define UNCOUNTED 100u

/* The counting itself: it sees what is done, and only between start and stop. */
static int control_run(struct shared_stats *shared_stats)
{
    const int allowed[] = {SYS_getppid, -1};
    const char *reason;
    void *volatile memory;

    (void)shared_stats;
    if (!counting_open(&reason))
        return NO_COUNTING;
    (void)syscall(SYS_getpgid, 0);
    free(malloc(10));
    counting_start();
    for (int i = 0; i < 3; i++) {
        if (syscall(SYS_getppid) != getppid())
            return BROKEN;
    }
    memory = malloc(10);
    memory = realloc(memory, 20);
    free(memory);
    if (syscall(SYS_close, -1) != -1 || errno != EBADF)
        return BROKEN;
    counting_stop();
    (void)syscall(SYS_getpgid, 0);
    return counting.calls[SYS_getppid] == 6 && counting.calls[SYS_close] == 1 &&
                   counting_others(allowed) == 1 && counting.allocations == 3
               ? QUIET
               : BROKEN;
}

static void test_counting(void **state)
{
    int status = end(start(control_run, NULL));

    (void)state;
    if (status == NO_COUNTING)
        skip();
    assert_int_equal(status, QUIET);
}

/* Echoes notes; the first ones uncounted. Children do not assert: the status says
 * it. */
static int quiet_server(struct shared_stats *shared_stats)
{
    /* It never sleeps, so that no futex call is needed. */
    struct tp_config config = {.peers_max = 4, .spin_ns = UINT64_C(60000000000)};
    const int64_t long_ns = LONG_NS; /* measured before it is counted */
    const int allowed[] = {SYS_sched_yield, -1};
    struct tp_event events[16];
    struct tp *tp = NULL;
    uint64_t end_ns = UINT64_MAX;
    uint32_t notes = 0;
    const char *reason;
    unsigned long others;
    int count;

    if (raw_t->open(&config, &tp, NULL) != GAPLESS_OK ||
        raw_t->listen(tp, raw_name, NULL) != GAPLESS_OK)
        return BROKEN;
    if (!counting_open(&reason)) {
        (void)fprintf(stderr, "SKIP: %s\n", reason);
        return NO_COUNTING;
    }
    flag_word_publish(&shared_stats->listening, 1);
    while (notes < UNCOUNTED + COUNTED) {
        if (notes >= UNCOUNTED + COUNTED_MIN && clock_ns() > end_ns)
            break;
        count = raw_t->poll(tp, events, 16, long_ns);
        if (count <= 0)
            return BROKEN;
        for (int i = 0; i < count; i++) {
            if (events[i].kind == TP_DOWN)
                stat_set(&shared_stats->guests,
                         stat_get(&shared_stats->guests) + counting.on);
            if (events[i].kind != TP_NOTE)
                continue;
            if (++notes == UNCOUNTED) {
                counting_start();
                end_ns = clock_ns() + COUNTED_NS;
            }
            while (raw_t->notify(tp, events[i].peer, events[i].note) == GAPLESS_AGAIN)
                (void)sched_yield();
        }
    }
    counting_stop();
    others = counting_others(allowed);
    (void)printf("%u events: %lu sched_yield, %lu other calls, %lu allocations\n",
                 notes - UNCOUNTED, counting.calls[SYS_sched_yield], others,
                 counting.allocations);
    (void)fflush(stdout);
    flag_word_publish(&shared_stats->stop, 1);
    if (others != 0)
        return LOUD;
    return counting.allocations != 0 ? ALLOCATED : QUIET;
}

/* Puts a note and waits for its echo without ever sleeping. */
static int quiet_client(struct shared_stats *shared_stats)
{
    struct tp_config config = {.spin_ns = UINT64_C(60000000000)};
    struct tp_event event;
    struct tp *tp = NULL;
    tp_peer peer;

    if (raw_t->open(&config, &tp, NULL) != GAPLESS_OK ||
        raw_t->connect(tp, raw_name, LONG_NS, &peer, NULL) != GAPLESS_OK)
        return 1;
    while (flag_word_read(&shared_stats->stop) == 0) {
        if (raw_t->notify(tp, peer, 1) != GAPLESS_OK)
            break;
        if (raw_t->poll(tp, &event, 1, LONG_NS) != 1)
            return 2;
    }
    raw_t->close(tp);
    return 0;
}

/* Comes and goes: the door deals with it, not the thread that is counted. */
static int quiet_guest(struct shared_stats *shared_stats)
{
    while (flag_word_read(&shared_stats->stop) == 0) {
        struct tp *tp = NULL;
        tp_peer peer;

        if (raw_t->open(NULL, &tp, NULL) == GAPLESS_OK &&
            raw_t->connect(tp, raw_name, 100 * MS, &peer, NULL) == GAPLESS_OK)
            (void)raw_t->send_control(tp, peer, "hello", 5, NULL);
        raw_nap(5 * MS);
        raw_t->close(tp);
    }
    return 0;
}

static void test_quiet(void **state)
{
    struct shared_stats *shared_stats = raw_shared(sizeof *shared_stats);
    pid_t server;
    pid_t client;
    pid_t guest;
    int status;

    (void)state;
    (void)fflush(stdout);
    server = start(quiet_server, shared_stats);
    client = start(quiet_client, shared_stats);
    guest = start(quiet_guest, shared_stats);
    status = end(server);
    flag_word_publish(&shared_stats->stop, 1);
    (void)end(client);
    (void)end(guest);
    if (status == NO_COUNTING)
        skip();
    assert_int_equal(status, QUIET);
    assert_true(stat_get(&shared_stats->guests) > 0);
}

/* ---- sleep --------------------------------------------------------------- */

/* Idle, both sides sleep; a slice of sleep is 100 ms. */
static void test_idle(void **state)
{
    struct tp *server = raw_server(1000);
    struct tp_event event;
    tp_peer peer;
    struct tp *client = raw_good_client(server, &peer);
    double used = raw_cpu();

    (void)state;
    assert_int_equal(raw_t->poll(server, &event, 1, 1000 * MS), 0);
    assert_int_equal(raw_t->poll(client, &event, 1, 300 * MS), 0);
    used = raw_cpu() - used;
    print_message("%.2f %% of a core\n", used / 1.3 * 100);
    assert_true(used / 1.3 < 0.05);
    raw_t->close(client);
    raw_t->close(server);
}

/* ---- more processes than cores ------------------------------------------- */

#define CROWD 8u
#define ROUNDS 2000u
#define CROWD_NS UINT64_C(2000000000)

static int crowd_client(struct shared_stats *shared_stats)
{
    struct tp_event event;
    struct tp *tp = NULL;
    volatile uint32_t work = 0;
    uint64_t end_ns = clock_ns() + CROWD_NS;
    tp_peer peer;

    (void)shared_stats;
    (void)work;
    if (raw_t->open(NULL, &tp, NULL) != GAPLESS_OK ||
        raw_t->connect(tp, raw_name, LONG_NS, &peer, NULL) != GAPLESS_OK)
        return 1;
    for (uint32_t i = 0; i < ROUNDS && clock_ns() < end_ns; i++) {
        for (uint32_t j = 0; j < 20000; j++) /* a few us */
            work += j;
        if (raw_t->notify(tp, peer, i) != GAPLESS_OK)
            return 2;
        if (raw_t->poll(tp, &event, 1, LONG_NS) != 1 || event.note != i)
            return 3;
    }
    raw_t->close(tp);
    return 0;
}

static int crowd_server(struct shared_stats *shared_stats)
{
    struct tp_config config = {.peers_max = CROWD};
    struct tp_event events[64];
    struct tp *tp = NULL;
    uint32_t gone = 0;

    if (raw_t->open(&config, &tp, NULL) != GAPLESS_OK ||
        raw_t->listen(tp, raw_name, NULL) != GAPLESS_OK)
        return 1;
    flag_word_publish(&shared_stats->listening, 1);
    while (gone < CROWD) {
        int count = raw_t->poll(tp, events, 64, LONG_NS);

        if (count <= 0)
            return 2;
        for (int i = 0; i < count; i++) {
            if (events[i].kind == TP_DOWN)
                gone++;
            if (events[i].kind == TP_NOTE &&
                raw_t->notify(tp, events[i].peer, events[i].note) == GAPLESS_OK)
                stat_set(&shared_stats->echoes, stat_get(&shared_stats->echoes) + 1);
        }
    }
    raw_t->close(tp);
    return 0;
}

static void test_crowd(void **state)
{
    struct shared_stats *shared_stats = raw_shared(sizeof *shared_stats);
    pid_t server = start(crowd_server, shared_stats);
    pid_t clients[CROWD];
    uint64_t begin;

    (void)state;
    wait_listening(shared_stats);
    begin = clock_ns();
    for (uint32_t i = 0; i < CROWD; i++)
        clients[i] = start(crowd_client, shared_stats);
    for (uint32_t i = 0; i < CROWD; i++)
        assert_int_equal(end(clients[i]), 0);
    assert_int_equal(end(server), 0);
    assert_true(stat_get(&shared_stats->echoes) >= CROWD);
    print_message("%.0f echoes a second, %u clients\n",
                  (double)stat_get(&shared_stats->echoes) /
                      ((double)(clock_ns() - begin) * 1e-9),
                  CROWD);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, raw_setup, raw_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_counting),
        TEST(test_quiet),
        TEST(test_idle),
        TEST(test_crowd),
    };

    pace_alarm(50);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
