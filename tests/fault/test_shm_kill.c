/* Processes that are killed at any instant, over the shared memory transport. A
 * supervisor without threads forks the server, a steady client and one victim after
 * another; the server checks every note it gets.
 *
 *   supervisor ─┬─ server   checks: the notes of each connection are 0, 1, 2 ..., and
 *               │           the cell that a note speaks of holds its number
 *               ├─ steady   puts a note, waits for its echo, as long as victims die
 *               └─ victim   floods until SIGKILL; how many puts it knows of stays in
 *                           shared memory */
#include "tests/fault/shm_raw.h"

#include "engine/base/clock.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROUNDS 40u
#define CELLS 128u

/* What the processes tell each other. */
struct shared_stats {
    struct flag_word forks; /* server and steady client fork somebody who stays */
    struct flag_word listening;
    struct flag_word stop;    /* the steady client: finish */
    struct stat_word made;    /* puts that the present victim knows it made */
    struct stat_word up;      /* server: its connections */
    struct stat_word down;    /* ... and ends */
    struct stat_word last;    /* ... notes it had of the connection that ended last */
    struct stat_word steady;  /* echoes that the steady client got */
    struct stat_word refused; /* victims that found no peer slot */
};

static void count(struct stat_word *word)
{
    stat_set(word, stat_get(word) + 1);
}

/* ---- children: each returns its exit status ------------------------------ */

/* A process that inherits all descriptors and outlives the one that forked it, as the
 * helpers of a data loader may. It ends when told to, or when the test does. */
static void fork_heir(struct shared_stats *board)
{
    pid_t supervisor = getppid();

    if (flag_word_read(&board->forks) == 0 || fork() != 0)
        return;
    while (flag_word_read(&board->stop) == 0 && kill(supervisor, 0) == 0)
        raw_nap(5 * MS);
    _exit(0);
}

struct peer_slot {
    struct tp_region region;
    uint32_t next;
};

/* Serves until all its clients have gone and it was told to stop. */
static int server_run(struct shared_stats *board)
{
    struct tp_config config = {.peers_max = 2};
    struct peer_slot peer_slots[2];
    struct tp_event events[64];
    struct tp *tp = NULL;

    if (raw_t->open(&config, &tp, NULL) != GAPLESS_OK)
        return 1;
    for (int i = 0; i < 2; i++) {
        if (raw_t->region_new(tp, CELLS * sizeof(uint32_t), &peer_slots[i].region,
                              NULL) != GAPLESS_OK)
            return 2;
    }
    if (raw_t->listen(tp, raw_name, NULL) != GAPLESS_OK)
        return 3;
    fork_heir(board);
    flag_word_publish(&board->listening, 1);
    while (flag_word_read(&board->stop) == 0 ||
           stat_get(&board->up) != stat_get(&board->down)) {
        int got = raw_t->poll(tp, events, 64, 100 * MS);

        if (got < 0)
            return 4;
        for (int i = 0; i < got; i++) {
            const struct tp_event *event = &events[i];
            struct peer_slot *peer_slot = &peer_slots[event->peer];
            uint32_t cell;

            if (event->kind == TP_UP) {
                count(&board->up);
                peer_slot->next = 0;
                /* It may be dead already. */
                (void)raw_t->grant(tp, event->peer, &peer_slot->region, 0,
                                   TP_READ_WRITE, NULL);
            } else if (event->kind == TP_DOWN) {
                stat_set(&board->last, peer_slot->next);
                count(&board->down);
            } else if (event->kind == TP_NOTE) {
                memcpy(&cell, (char *)peer_slot->region.base + event->note % CELLS * 4,
                       4);
                if (event->note != peer_slot->next)
                    return 5; /* lost or doubled */
                if (cell != event->note && cell != event->note + CELLS)
                    return 6; /* its bytes are not there */
                peer_slot->next++;
                /* Victims do not read: full. */
                (void)raw_t->notify(tp, event->peer, event->note);
            }
        }
    }
    raw_t->close(tp);
    return 0;
}

static int client_open(struct tp **ret_tp, tp_peer *ret_peer, struct tp_region *ret)
{
    int status = raw_t->open(NULL, ret_tp, NULL);

    if (status == GAPLESS_OK)
        status = raw_t->connect(*ret_tp, raw_name, LONG_NS, ret_peer, NULL);
    if (status == GAPLESS_OK)
        status = raw_t->window(*ret_tp, *ret_peer, 0, LONG_NS, ret, NULL);
    return status;
}

static int client_put(struct tp *tp, tp_peer peer, const struct tp_region *cells,
                      uint32_t note)
{
    size_t at = note % CELLS * sizeof note;

    memcpy((char *)cells->base + at, &note, sizeof note);
    return raw_t->put(tp, peer, cells, at, sizeof note, note);
}

static int steady_run(struct shared_stats *board)
{
    struct tp_region cells;
    struct tp *tp = NULL;
    tp_peer peer;

    if (client_open(&tp, &peer, &cells) != GAPLESS_OK)
        return 1;
    fork_heir(board);
    for (uint32_t note = 0; flag_word_read(&board->stop) == 0; note++) {
        struct tp_event event = {.kind = TP_DONE};

        if (client_put(tp, peer, &cells, note) != GAPLESS_OK)
            return 2;
        if (raw_t->poll(tp, &event, 1, LONG_NS) != 1 || event.kind != TP_NOTE ||
            event.note != note)
            return 3;
        count(&board->steady);
    }
    raw_t->close(tp);
    return 0;
}

static int victim_run(struct shared_stats *board)
{
    struct tp_region cells;
    struct tp *tp = NULL;
    tp_peer peer;
    int status = client_open(&tp, &peer, &cells);

    if (status != GAPLESS_OK) {
        count(&board->refused);
        return 1;
    }
    for (uint32_t note = 0;;) {
        if (client_put(tp, peer, &cells, note) == GAPLESS_OK) {
            note++;
            stat_set(&board->made, note);
        }
    }
}

/* ---- the supervisor ------------------------------------------------------ */

static pid_t start(int (*run)(struct shared_stats *), struct shared_stats *board)
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        pace_alarm(40);
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(run(board));
    }
    return pid;
}

static int end(pid_t pid)
{
    int status = -1;

    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void want_end(pid_t pid)
{
    int status = end(pid);

    if (status != 0)
        fail_msg("a child ended with %s %d", WIFSIGNALED(status) ? "signal" : "status",
                 WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

static void wait_listening(struct shared_stats *board)
{
    for (int i = 0; i < 5000 && flag_word_read(&board->listening) == 0; i++)
        raw_nap(MS);
    assert_int_equal(flag_word_read(&board->listening), 1);
}

/* Is a socket of this test still known to the kernel? */
static bool name_in_use(void)
{
    static char line[512];
    FILE *list = fopen("/proc/net/unix", "r");
    bool found = false;

    assert_non_null(list);
    while (fgets(line, sizeof line, list) != NULL)
        found = found || strstr(line, raw_name) != NULL;
    assert_int_equal(fclose(list), 0);
    return found;
}

static int shm_files(void)
{
    DIR *directory = opendir("/dev/shm");
    int files = 0;

    while (directory != NULL && readdir(directory) != NULL)
        files++;
    if (directory != NULL)
        (void)closedir(directory);
    return files;
}

static uint32_t random_next(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

static void test_kill_clients(void **state)
{
    struct shared_stats *board = raw_shared(sizeof *board);
    uint32_t random = 1; /* the seed of the instants */
    uint32_t flooded = 0;
    uint64_t steady = 0;
    int files = shm_files();
    pid_t server = start(server_run, board);
    pid_t client;

    (void)state;
    wait_listening(board);
    client = start(steady_run, board);
    while (stat_get(&board->steady) == 0)
        raw_nap(MS);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        /* In even rounds counted from the fork, to meet the steps of connecting; in odd
         * rounds from the first note, to meet the flood however slow the machine is. */
        int64_t instant = random_next(&random) % (5 * MS);
        bool flood = round % 2 == 1;
        uint64_t down = stat_get(&board->down);
        uint64_t up = stat_get(&board->up);
        uint64_t made;
        pid_t victim;

        stat_set(&board->made, 0);
        victim = start(victim_run, board);
        for (int i = 0; flood && i < 5000 && stat_get(&board->made) == 0; i++)
            raw_nap(MS);
        raw_nap(instant);
        assert_int_equal(kill(victim, SIGKILL), 0);
        (void)end(victim);
        made = stat_get(&board->made);
        raw_nap(MS);
        /* If it had a peer slot: what it knows it put was delivered, and at most one more
         * that it had not yet counted. */
        for (int i = 0; i < 5000 && stat_get(&board->up) != stat_get(&board->down) + 1;
             i++)
            raw_nap(MS);
        assert_true(stat_get(&board->up) == stat_get(&board->down) + 1);
        assert_true(stat_get(&board->up) - up == stat_get(&board->down) - down);
        if (made > 0) {
            assert_in_range(stat_get(&board->last), made, made + 1);
            flooded++;
        }
        for (int i = 0; i < 5000 && stat_get(&board->steady) == steady; i++)
            raw_nap(MS);
        assert_true(stat_get(&board->steady) > steady);
        steady = stat_get(&board->steady);
    }
    assert_true(stat_get(&board->refused) == 0);
    assert_in_range(flooded, ROUNDS / 2, ROUNDS);
    flag_word_publish(&board->stop, 1);
    want_end(client);
    want_end(server);
    print_message("%u of %u victims died flooding; the steady client had %llu echoes\n",
                  flooded, ROUNDS, (unsigned long long)stat_get(&board->steady));
    assert_false(name_in_use());
    assert_int_equal(shm_files(), files);
}

/* A client notices that its server was killed, keeps what it has mapped, and the name
 * is free for the next server. */
static void test_kill_server(void **state)
{
    struct shared_stats *board = raw_shared(sizeof *board);
    struct tp_event event = {.kind = TP_DONE};
    int files = shm_files();
    struct tp_region cells;
    struct tp *tp = NULL;
    uint64_t killed;
    tp_peer peer;
    pid_t server = start(server_run, board);

    (void)state;
    wait_listening(board);
    assert_true(name_in_use());
    assert_int_equal(client_open(&tp, &peer, &cells), GAPLESS_OK);
    assert_int_equal(client_put(tp, peer, &cells, 0), GAPLESS_OK);
    assert_int_equal(raw_want(tp, TP_NOTE).note, 0);
    assert_int_equal(kill(server, SIGKILL), 0);
    killed = clock_ns();
    while (event.kind != TP_DOWN && clock_ns() - killed < 10 * (uint64_t)LONG_NS)
        (void)raw_t->poll(tp, &event, 1, LONG_NS);
    assert_int_equal(event.kind, TP_DOWN);
    assert_true(pace_within(clock_ns() - killed, 0, 1000 * MS));
    print_message("noticed after %.1f ms\n", (double)(clock_ns() - killed) * 1e-6);
    assert_int_equal(client_put(tp, peer, &cells, 1), GAPLESS_PEER_LOST);
    assert_int_equal(((uint32_t *)cells.base)[1], 1);
    (void)end(server);
    assert_false(name_in_use());
    assert_int_equal(shm_files(), files);

    /* A new server takes the name; the same client joins it. */
    flag_word_publish(&board->listening, 0);
    stat_set(&board->up, 0);
    stat_set(&board->down, 0);
    server = start(server_run, board);
    assert_int_equal(raw_t->connect(tp, raw_name, LONG_NS, &peer, &raw_error),
                     GAPLESS_OK);
    raw_t->region_free(tp, &cells);
    assert_int_equal(raw_t->window(tp, peer, 0, LONG_NS, &cells, &raw_error),
                     GAPLESS_OK);
    assert_int_equal(client_put(tp, peer, &cells, 0), GAPLESS_OK);
    assert_int_equal(raw_want(tp, TP_NOTE).note, 0);
    flag_word_publish(&board->stop, 1);
    raw_t->close(tp);
    want_end(server);
}

/* Who was killed is gone, though a process that it forked holds its connection open. */
static void test_heirs(void **state)
{
    struct shared_stats *board = raw_shared(sizeof *board);
    struct tp_event event = {.kind = TP_DONE};
    struct tp *tp = NULL;
    tp_peer peer;
    uint64_t killed;
    pid_t server;
    pid_t client;

    (void)state;
    flag_word_publish(&board->forks, 1);
    server = start(server_run, board);
    wait_listening(board);
    client = start(steady_run, board);
    for (int i = 0; i < 5000 && stat_get(&board->steady) == 0; i++)
        raw_nap(MS);
    assert_int_equal(kill(client, SIGKILL), 0);
    (void)end(client);
    for (int i = 0; i < 1000 && stat_get(&board->down) == 0; i++)
        raw_nap(MS);
    assert_true(stat_get(&board->down) == 1);

    assert_int_equal(raw_t->open(NULL, &tp, &raw_error), GAPLESS_OK);
    assert_int_equal(raw_t->connect(tp, raw_name, LONG_NS, &peer, &raw_error),
                     GAPLESS_OK);
    assert_int_equal(kill(server, SIGKILL), 0);
    (void)end(server);
    killed = clock_ns();
    while (event.kind != TP_DOWN && clock_ns() - killed < (uint64_t)LONG_NS)
        (void)raw_t->poll(tp, &event, 1, LONG_NS);
    assert_int_equal(event.kind, TP_DOWN);
    assert_true(pace_within(clock_ns() - killed, 0, 1000 * MS));
    raw_t->close(tp);
    flag_word_publish(&board->stop, 1);
}

/* A server that polls without pause, and one that is stopped: neither is mistaken for
 * the other. */
static void test_stopped_server(void **state)
{
    struct shared_stats *board = raw_shared(sizeof *board);
    pid_t server = start(server_run, board);
    struct tp *tp = NULL;
    struct tp_event event;
    uint64_t begin;
    tp_peer peer;
    int status;

    (void)state;
    wait_listening(board);
    assert_int_equal(kill(server, SIGSTOP), 0);
    assert_int_equal(waitpid(server, &status, WUNTRACED), server);
    assert_int_equal(raw_t->open(NULL, &tp, &raw_error), GAPLESS_OK);
    begin = clock_ns();
    assert_int_equal(raw_t->connect(tp, raw_name, 150 * MS, &peer, &raw_error),
                     GAPLESS_TIMEOUT);
    assert_true(pace_within(clock_ns() - begin, 150 * MS, 2000 * MS));
    assert_non_null(strstr(raw_error.text, "stopped"));
    assert_int_equal(kill(server, SIGCONT), 0);
    assert_int_equal(raw_t->connect(tp, raw_name, LONG_NS, &peer, &raw_error),
                     GAPLESS_OK);
    /* Stopped later, it is silent, not gone. */
    assert_int_equal(kill(server, SIGSTOP), 0);
    assert_int_equal(raw_t->poll(tp, &event, 1, 250 * MS), 0);
    assert_int_equal(kill(server, SIGCONT), 0);
    assert_int_equal(raw_t->notify(tp, peer, 0), GAPLESS_OK);
    raw_t->close(tp);
    flag_word_publish(&board->stop, 1);
    want_end(server);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, raw_setup, raw_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_kill_clients),
        TEST(test_kill_server),
        TEST(test_heirs),
        TEST(test_stopped_server),
    };

    pace_alarm(50);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
