/* A peer of the shared memory transport taken apart. */
#include "tests/fault/shm_raw.h"

#include "engine/base/clock.h"

#include <dirent.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

const struct transport *const raw_t = &transport_shm;
struct gapless_error raw_error;
char raw_name[128];

int raw_fd_count(void)
{
    DIR *directory = opendir("/proc/self/fd");
    int count = 0;

    assert_non_null(directory);
    while (readdir(directory) != NULL)
        count++;
    assert_int_equal(closedir(directory), 0);
    return count;
}

static int fds_before;

int raw_setup(void **state)
{
    static int number;

    (void)state;
    (void)snprintf(raw_name, sizeof raw_name, "fault-%d-%d", (int)getpid(), number++);
    fds_before = raw_fd_count();
    return 0;
}

int raw_teardown(void **state)
{
    (void)state;
    assert_int_equal(raw_fd_count(), fds_before);
    return 0;
}

void raw_nap(int64_t ns)
{
    struct timespec time = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};

    (void)nanosleep(&time, NULL);
}

double raw_cpu(void)
{
    struct timespec used;

    assert_int_equal(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used), 0);
    return (double)used.tv_sec + (double)used.tv_nsec * 1e-9;
}

void *raw_shared(size_t bytes)
{
    void *memory =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    assert_true(memory != MAP_FAILED);
    return memory;
}

static void ok(int status)
{
    if (status != GAPLESS_OK)
        print_error("%d: %s\n", status, raw_error.text);
    assert_int_equal(status, GAPLESS_OK);
}

/* ---- a server ------------------------------------------------------------ */

struct tp *raw_server(uint32_t peers_max)
{
    struct tp_config config = {.peers_max = peers_max};
    struct tp *tp = NULL;

    ok(raw_t->open(&config, &tp, &raw_error));
    ok(raw_t->listen(tp, raw_name, &raw_error));
    return tp;
}

struct tp_event raw_event(struct tp *tp, int64_t timeout_ns)
{
    uint64_t deadline = clock_ns() + (uint64_t)timeout_ns;
    struct tp_event event = {.kind = TP_DONE};
    int count;

    do {
        count = raw_t->poll(tp, &event, 1, MS);
        assert_in_range(count, 0, 1);
    } while (count == 0 && clock_ns() < deadline);
    return event;
}

struct tp_event raw_want(struct tp *tp, enum tp_event_kind kind)
{
    struct tp_event event = raw_event(tp, LONG_NS);

    assert_int_equal(event.kind, kind);
    return event;
}

void raw_silent(struct tp *tp, int64_t timeout_ns)
{
    assert_int_equal(raw_event(tp, timeout_ns).kind, TP_DONE);
}

struct tp *raw_good_client(struct tp *server, tp_peer *ret_peer)
{
    struct tp *tp = NULL;
    tp_peer peer;

    ok(raw_t->open(NULL, &tp, &raw_error));
    ok(raw_t->connect(tp, raw_name, LONG_NS, &peer, &raw_error));
    *ret_peer = raw_want(server, TP_UP).peer;
    return tp;
}

void raw_ping(struct tp *server, struct tp *client, tp_peer peer)
{
    static uint32_t note;
    struct tp_event event;

    ok(raw_t->notify(client, 0, ++note));
    event = raw_want(server, TP_NOTE);
    assert_int_equal(event.note, note);
    assert_int_equal(event.peer, peer);
    ok(raw_t->notify(server, peer, ++note));
    assert_int_equal(raw_want(client, TP_NOTE).note, note);
}

/* ---- a client in pieces -------------------------------------------------- */

void raw_dial(struct raw *ret)
{
    struct sockaddr_un to;
    socklen_t bytes;
    int tries = 100;

    *ret = (struct raw){.fd = -1, .doorbell_fd = -1};
    ok(shm_address(raw_name, &to, &bytes, &raw_error));
    ret->fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    assert_true(ret->fd >= 0);
    while (connect(ret->fd, (const struct sockaddr *)&to, bytes) != 0 && tries-- > 0)
        raw_nap(MS);
    assert_true(tries > 0);
}

int raw_frame(struct raw *raw, enum shm_frame_kind kind, uint32_t a, uint32_t b,
              const int *fds, int fd_count)
{
    struct shm_frame frame = shm_frame(kind, a, b);

    return shm_frame_send(raw->fd, &frame, NULL, 0, fds, fd_count);
}

struct shm_packet raw_answer(struct raw *raw)
{
    struct pollfd readable = {.fd = raw->fd, .events = POLLIN};
    struct shm_packet packet = {.fd_count = 0};

    assert_int_equal(poll(&readable, 1, (int)(LONG_NS / MS)), 1);
    memset(raw_error.text, 0, sizeof raw_error.text);
    ok(shm_frame_receive(raw->fd, &packet, raw_error.text, sizeof raw_error.text - 1));
    return packet;
}

void raw_ended(struct raw *raw)
{
    struct pollfd readable = {.fd = raw->fd, .events = POLLIN};
    struct shm_packet packet;
    char text[8];

    assert_int_equal(poll(&readable, 1, (int)(LONG_NS / MS)), 1);
    assert_int_equal(shm_frame_receive(raw->fd, &packet, text, sizeof text),
                     GAPLESS_PEER_LOST);
}

void raw_open(struct raw *ret, struct tp *server)
{
    struct shm_packet packet;
    void *base;

    raw_dial(ret);
    ok(shm_memory_new("raw", sizeof(struct doorbell), &ret->doorbell_fd, &base,
                      &raw_error));
    ret->doorbell = base;
    ok(raw_frame(ret, SHM_HELLO, 0, 4, &ret->doorbell_fd, 1));
    packet = raw_answer(ret);
    assert_int_equal(packet.head.kind, SHM_WELCOME);
    assert_int_equal(packet.fd_count, 2);
    ret->capacity = packet.head.a;
    ret->bit = packet.head.b;
    ok(shm_memory_map(packet.fds[0], shm_control_bytes(ret->capacity), TP_READ_WRITE,
                      &base, &raw_error));
    ret->control = base;
    ret->up = (void *)((char *)base + sizeof *ret->control);
    ret->down = (void *)((char *)ret->up + ring_bytes(ret->capacity));
    ok(shm_memory_map(packet.fds[1], sizeof(struct doorbell), TP_READ_WRITE, &base,
                      &raw_error));
    ret->server_doorbell = base;
    shm_packet_close(&packet);
    assert_int_equal(raw_want(server, TP_UP).peer, ret->bit);
}

void raw_close(struct raw *raw)
{
    shm_close_fd(&raw->fd);
    shm_close_fd(&raw->doorbell_fd);
    shm_memory_unmap(raw->doorbell, sizeof *raw->doorbell);
    shm_memory_unmap(raw->server_doorbell, sizeof *raw->server_doorbell);
    shm_memory_unmap(raw->control, shm_control_bytes(raw->capacity));
}
