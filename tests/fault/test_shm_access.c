/* Who may do what to whom over the shared memory transport: read-only memory, socket
 * files, other users, and a process that has run out of descriptors. */
#include "tests/fault/shm_raw.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- read-only memory ---------------------------------------------------- */

/* A child writes there; how it ended. */
static int write_in_child(volatile char *at)
{
    int status = 0;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        struct rlimit none = {0, 0};

        (void)setrlimit(RLIMIT_CORE, &none);
        (void)signal(SIGSEGV, SIG_DFL);
        *at = 1;
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

/* Everything a process can try with a descriptor that it was granted for reading. */
static void try_to_write(int fd, size_t bytes)
{
    char path[64];
    char byte = 1;
    int again;

    assert_true(mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) ==
                MAP_FAILED);
    assert_int_equal(errno, EPERM);
    assert_int_equal(pwrite(fd, &byte, 1, 0), -1);
    assert_int_equal(ftruncate(fd, 0), -1);
    assert_int_equal(ftruncate(fd, (off_t)bytes * 2), -1);
    assert_int_equal(
        fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)bytes), -1);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    again = open(path, O_RDWR | O_CLOEXEC);
    if (again >= 0) {
        assert_true(mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, again, 0) ==
                    MAP_FAILED);
        assert_int_equal(pwrite(again, &byte, 1, 0), -1);
        shm_close_fd(&again);
    }
}

static void test_read_only(void **state)
{
    struct tp *server = raw_server(2);
    struct tp_region region;
    struct tp_region window;
    struct shm_packet packet;
    struct raw raw;
    tp_peer peer;
    struct tp *client = raw_good_client(server, &peer);
    int status;

    (void)state;
    assert_int_equal(raw_t->region_new(server, 8192, &region, &raw_error), GAPLESS_OK);
    assert_int_equal(raw_t->grant(server, peer, &region, 0, TP_READ, &raw_error),
                     GAPLESS_OK);
    assert_int_equal(raw_t->window(client, 0, 0, LONG_NS, &window, &raw_error),
                     GAPLESS_OK);
    memset(region.base, 66, 8192); /* the server still may */
    assert_int_equal(((volatile char *)window.base)[8191], 66);
    status = write_in_child(window.base);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGSEGV);
    assert_int_equal(mprotect(window.base, 8192, PROT_READ | PROT_WRITE), -1);

    raw_open(&raw, server);
    assert_int_equal(raw_t->grant(server, raw.bit, &region, 0, TP_READ, &raw_error),
                     GAPLESS_OK);
    packet = raw_answer(&raw);
    assert_int_equal(packet.head.kind, SHM_GRANT);
    assert_int_equal(packet.fd_count, 1);
    try_to_write(packet.fds[0], 8192);
    shm_packet_close(&packet);
    assert_int_equal(((volatile char *)region.base)[0], 66);

    /* Memory for writing can be written, and not be pulled from under the server. */
    assert_int_equal(raw_t->region_new(server, 8192, &region, &raw_error), GAPLESS_OK);
    assert_int_equal(
        raw_t->grant(server, raw.bit, &region, 1, TP_READ_WRITE, &raw_error),
        GAPLESS_OK);
    packet = raw_answer(&raw);
    assert_int_equal(ftruncate(packet.fds[0], 0), -1);
    assert_int_equal(fcntl(packet.fds[0], F_ADD_SEALS, F_SEAL_FUTURE_WRITE), -1);
    assert_int_equal(pwrite(packet.fds[0], "x", 1, 8191), 1);
    assert_int_equal(((volatile char *)region.base)[8191], 'x');
    shm_packet_close(&packet);
    raw_close(&raw);
    raw_t->close(client);
    raw_t->close(server);
}

/* A region in two parts: before the split nobody but the server writes. */
static void test_split(void **state)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = 3 * page;
    struct tp *server = raw_server(2);
    struct tp_region region, window;
    struct shm_packet packet;
    struct raw raw;
    tp_peer peer;
    struct tp *client = raw_good_client(server, &peer);
    int status;

    (void)state;
    assert_int_equal(raw_t->region_new(server, bytes, &region, &raw_error), GAPLESS_OK);
    assert_int_equal(raw_t->region_split(server, &region, bytes + 1, &raw_error),
                     GAPLESS_INVALID);
    memset(region.base, 65, bytes);
    assert_int_equal(raw_t->region_split(server, &region, 2 * page, &raw_error),
                     GAPLESS_OK);
    assert_int_equal(region.split, 2 * page);
    assert_int_equal(((volatile char *)region.base)[bytes - 1], 65);
    assert_int_equal(raw_t->grant(server, peer, &region, 0, TP_SPLIT, &raw_error),
                     GAPLESS_OK);
    assert_int_equal(raw_t->region_split(server, &region, page, &raw_error),
                     GAPLESS_INVALID);
    assert_int_equal(raw_t->window(client, 0, 0, LONG_NS, &window, &raw_error),
                     GAPLESS_OK);
    memset(region.base, 66, bytes); /* what the server writes is seen in both */
    for (size_t at = 0; at < bytes; at += page - 1)
        assert_int_equal(((volatile char *)window.base)[at], 66);
    for (size_t at = 0; at < 2 * page; at += page) {
        status = write_in_child((char *)window.base + at + page - 1);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), SIGSEGV);
    }
    assert_int_equal(mprotect(window.base, page, PROT_READ | PROT_WRITE), -1);
    assert_int_equal(raw_t->put(client, 0, &window, 2 * page - 1, 1, 1),
                     GAPLESS_INVALID);
    ((volatile char *)window.base)[2 * page] = 67; /* the other part is one memory */
    assert_int_equal(((volatile char *)region.base)[2 * page], 67);
    assert_int_equal(raw_t->put(client, 0, &window, 2 * page, page, 1), GAPLESS_OK);
    assert_int_equal(raw_want(server, TP_NOTE).note, 1);

    raw_open(&raw, server);
    assert_int_equal(raw_t->grant(server, raw.bit, &region, 0, TP_SPLIT, &raw_error),
                     GAPLESS_OK);
    packet = raw_answer(&raw);
    assert_int_equal(packet.head.kind, SHM_GRANT);
    assert_int_equal(packet.fd_count, 2);
    assert_int_equal(packet.head.d, 2 * page);
    try_to_write(packet.fds[0], 2 * page);
    assert_int_equal(ftruncate(packet.fds[1], 0), -1);
    assert_int_equal(fcntl(packet.fds[1], F_ADD_SEALS, F_SEAL_FUTURE_WRITE), -1);
    assert_int_equal(pwrite(packet.fds[1], "x", 1, (off_t)page - 1), 1);
    assert_int_equal(((volatile char *)region.base)[bytes - 1], 'x');
    shm_packet_close(&packet);
    raw_close(&raw);
    raw_t->close(client);
    raw_t->close(server);
}

/* What a client writes into a part of its own is nobody else's, and forgotten. */
static void test_scratch(void **state)
{
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = 4 * page;
    struct tp *server = raw_server(2);
    struct tp_region region, window;
    volatile char *mine, *theirs;
    tp_peer peer;
    struct tp *client = raw_good_client(server, &peer);
    int status;

    (void)state;
    assert_int_equal(raw_t->region_new(server, bytes, &region, &raw_error), GAPLESS_OK);
    region.split = 3 * page + 5; /* a grant splits it, too, where a page begins */
    assert_int_equal(raw_t->grant(server, peer, &region, 0, TP_SPLIT, &raw_error),
                     GAPLESS_OK);
    assert_int_equal(raw_t->window(client, 0, 0, LONG_NS, &window, &raw_error),
                     GAPLESS_OK);
    mine = window.base, theirs = region.base;
    assert_int_equal(raw_t->scratch(client, &window, page, 2 * page + 1, &raw_error),
                     GAPLESS_INVALID); /* more than may be read alone */
    for (int round = 0; round < 3; round++) {
        memset(region.base, 10 * round + 1, bytes);
        assert_int_equal(raw_t->scratch(client, &window, page, 2 * page, &raw_error),
                         GAPLESS_OK);
        assert_int_equal(mine[page], 10 * round + 1);
        mine[page + 7] = 99;
        assert_int_equal(mine[page + 7], 99);
        assert_int_equal(theirs[page + 7], 10 * round + 1);
        theirs[2 * page + 3] = 55; /* a page that was not written follows */
        assert_int_equal(mine[2 * page + 3], 55);
    }
    status = write_in_child(window.base); /* the page before it stays as it was */
    assert_true(WIFSIGNALED(status));
    raw_t->close(client);
    raw_t->close(server);
}

/* ---- socket files -------------------------------------------------------- */

static char path[120];

static void path_new(void)
{
    const char *folder = getenv("TMPDIR");

    if (folder == NULL || strlen(folder) > 40)
        folder = "/tmp";
    (void)snprintf(path, sizeof path, "%.40s/gapless-%.60s.sock", folder, raw_name);
    (void)snprintf(raw_name, sizeof raw_name, "%s", path);
}

static int listen_on(const char *address, struct tp **ret)
{
    *ret = NULL;
    assert_int_equal(raw_t->open(NULL, ret, &raw_error), GAPLESS_OK);
    return raw_t->listen(*ret, address, &raw_error);
}

static void test_socket_file(void **state)
{
    struct tp *server;
    struct tp *second;
    struct tp *client;
    struct stat stat;
    tp_peer peer;
    int status = 0;
    pid_t pid;
    FILE *file;

    (void)state;
    path_new();
    assert_int_equal(listen_on(path, &server), GAPLESS_OK);
    assert_int_equal(lstat(path, &stat), 0);
    assert_true(S_ISSOCK(stat.st_mode));
    assert_int_equal(stat.st_mode & 0777, 0600);
    client = raw_good_client(server, &peer);
    raw_ping(server, client, peer);
    raw_t->close(client);
    (void)raw_want(server, TP_DOWN);

    assert_int_equal(listen_on(path, &second), GAPLESS_SYSTEM); /* in use */
    assert_non_null(strstr(raw_error.text, path));
    raw_t->close(second);
    assert_int_equal(lstat(path, &stat), 0);
    raw_t->close(server);
    assert_int_equal(lstat(path, &stat), -1); /* cleaned up */

    /* Left behind by a server that was killed: replaced. */
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        (void)listen_on(path, &server);
        (void)kill(getpid(), SIGKILL);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(lstat(path, &stat), 0);
    assert_int_equal(listen_on(path, &server), GAPLESS_OK);
    client = raw_good_client(server, &peer);
    raw_ping(server, client, peer);
    raw_t->close(client);

    /* Not ours any more: not removed. */
    assert_int_equal(unlink(path), 0);
    file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fclose(file), 0);
    raw_t->close(server);
    assert_int_equal(lstat(path, &stat), 0);
    assert_int_equal(listen_on(path, &server), GAPLESS_SYSTEM); /* a file of somebody */
    raw_t->close(server);
    assert_int_equal(lstat(path, &stat), 0);
    assert_int_equal(unlink(path), 0);
}

static void test_addresses(void **state)
{
    char name[200];
    struct tp *server;

    (void)state;
    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = '\0';
    assert_int_equal(listen_on(name, &server), GAPLESS_INVALID);
    raw_t->close(server);
    name[0] = '/';
    assert_int_equal(listen_on(name, &server), GAPLESS_INVALID);
    raw_t->close(server);
    assert_int_equal(listen_on("a/b", &server), GAPLESS_INVALID);
    raw_t->close(server);
    assert_int_equal(listen_on("/nowhere/at/all.sock", &server), GAPLESS_SYSTEM);
    assert_int_equal(raw_error.os, ENOENT);
    /* It failed half open; it can still be used. */
    assert_int_equal(raw_t->listen(server, raw_name, &raw_error), GAPLESS_OK);
    raw_t->close(server);
}

/* ---- other users --------------------------------------------------------- */

#define NOBODY 65534

/* As another user: the server's answer to a greeting; then listens on the path itself
 * until told to stop. */
static int stranger(struct flag_word *go)
{
    struct tp *tp = NULL;
    struct tp *server = NULL;
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    tp_peer peer;
    int name;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    struct shm_packet packet = {.fd_count = 0};
    char text[200];

    while (flag_word_read(go) != 1)
        raw_nap(MS);
    if (setuid(NOBODY) != 0 || raw_t->open(NULL, &tp, NULL) != GAPLESS_OK)
        return 1;
    /* By its own name it finds nobody; so it takes that of root's server. */
    if (raw_t->connect(tp, raw_name, 30 * MS, &peer, NULL) != GAPLESS_TIMEOUT)
        return 2;
    name =
        snprintf(to.sun_path + 1, sizeof to.sun_path - 1, "gapless-0-%.60s", raw_name);
    if (connect(fd, (const struct sockaddr *)&to,
                (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
                            (size_t)name)) != 0)
        return 3;
    while (shm_frame_receive(fd, &packet, text, sizeof text) == GAPLESS_AGAIN)
        raw_nap(MS);
    if (packet.head.kind != SHM_REFUSE || -(int)packet.head.a != GAPLESS_REFUSED)
        return 4;
    if (raw_t->open(NULL, &server, NULL) != GAPLESS_OK ||
        raw_t->listen(server, path, NULL) != GAPLESS_OK)
        return 5;
    flag_word_publish(go, 2);
    while (flag_word_read(go) == 2)
        raw_nap(MS);
    raw_t->close(server);
    raw_t->close(tp);
    (void)close(fd);
    return 0;
}

static void test_other_user(void **state)
{
    struct flag_word *go = raw_shared(sizeof *go);
    struct tp *server;
    struct tp *client = NULL;
    tp_peer peer;
    int status = 0;
    pid_t pid;

    (void)state;
    if (geteuid() != 0) {
        print_message("SKIP: only root can become another user\n");
        skip();
    }
    (void)snprintf(path, sizeof path, "/tmp/gapless-%.60s.sock", raw_name);
    /* Before there is a thread: the child starts one of its own. */
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        _exit(stranger(go));
    server = raw_server(2);
    flag_word_publish(go, 1);
    while (flag_word_read(go) == 1 && waitpid(pid, &status, WNOHANG) == 0)
        raw_nap(MS);
    assert_int_equal(status, 0);
    assert_int_equal(raw_t->open(NULL, &client, &raw_error), GAPLESS_OK);
    assert_int_equal(raw_t->connect(client, path, LONG_NS, &peer, &raw_error),
                     GAPLESS_REFUSED);
    assert_non_null(strstr(raw_error.text, "another user"));
    raw_silent(server, 10 * MS);
    flag_word_publish(go, 3);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    raw_t->close(client);
    raw_t->close(server);
}

/* ---- no descriptors left ------------------------------------------------- */

static void test_no_descriptors(void **state)
{
    struct flag_word *go = raw_shared(sizeof *go);
    struct tp_config huge = {.peers_max = 16000};
    struct tp *server;
    struct tp *crowd = NULL;
    struct rlimit before;
    struct rlimit low;
    int status = 0;
    double cpu;
    pid_t pid;

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct tp *tp = NULL;
        tp_peer peer;
        int failed = raw_t->open(NULL, &tp, NULL);

        while (flag_word_read(go) == 0)
            raw_nap(MS);
        if (failed == 0)
            failed = raw_t->connect(tp, raw_name, LONG_NS, &peer, NULL);
        raw_t->close(tp);
        _exit(failed != 0);
    }
    server = raw_server(2);
    low = before;
    low.rlim_cur = (rlim_t)dup(0);
    (void)close((int)low.rlim_cur);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    flag_word_publish(go, 1);
    cpu = raw_cpu();
    raw_silent(server, 10 * MS);
    raw_nap(200 * MS);
    /* It cannot accept, and does not spin over it. */
    assert_true(raw_cpu() - cpu < 0.1);
    assert_int_equal(raw_t->region_new(server, 10, &(struct tp_region){0}, &raw_error),
                     GAPLESS_SYSTEM);
    assert_non_null(strstr(raw_error.text, "ulimit"));
    low.rlim_cur = 100;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    (void)raw_want(server, TP_UP);
    (void)raw_want(server, TP_DOWN);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    /* Room for more peers than descriptors is refused at the start. */
    assert_int_equal(raw_t->open(&huge, &crowd, &raw_error), GAPLESS_OK);
    assert_int_equal(raw_t->listen(crowd, "crowd", &raw_error), GAPLESS_CAPACITY);
    assert_non_null(strstr(raw_error.text, "ulimit"));
    raw_t->close(crowd);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    raw_t->close(server);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, raw_setup, raw_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_read_only),      TEST(test_split),     TEST(test_scratch),
        TEST(test_socket_file),    TEST(test_addresses), TEST(test_other_user),
        TEST(test_no_descriptors),
    };

    pace_alarm(50);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
