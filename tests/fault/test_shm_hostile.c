/* Peers of the shared memory transport that break its rules, by mistake or on purpose:
 * each is refused or dropped, and the server goes on serving the others. */
#include "tests/fault/shm_raw.h"

#include "engine/base/clock.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- greetings ----------------------------------------------------------- */

/* What a bad greeting gets; the connection ends behind it. */
static void want_refusal(struct raw *raw, enum gapless_status status, const char *word)
{
    struct shm_packet packet = raw_answer(raw);

    assert_int_equal(packet.head.kind, SHM_REFUSE);
    assert_int_equal(-(int)packet.head.a, status);
    if (strstr(raw_error.text, word) == NULL)
        fail_msg("no \"%s\" in: %s", word, raw_error.text);
    raw_ended(raw);
    raw_close(raw);
}

static void test_greetings(void **state)
{
    struct tp *server = raw_server(4);
    struct shm_frame frame = shm_frame(SHM_HELLO, 0, 4);
    struct raw raw;
    void *base;
    tp_peer peer;
    struct tp *good = raw_good_client(server, &peer);
    struct tp_counters counters;
    int pipe_fds[2];
    int fd;

    (void)state;
    raw_dial(&raw);
    frame.magic = 0x12345678;
    assert_int_equal(shm_frame_send(raw.fd, &frame, NULL, 0, NULL, 0), GAPLESS_OK);
    want_refusal(&raw, GAPLESS_VERSION, "not a gapless client");

    raw_dial(&raw);
    assert_int_equal(send(raw.fd, "GET / HTTP/1.1\r\n\r\n", 18, 0), 18);
    want_refusal(&raw, GAPLESS_VERSION, "not a gapless client");

    raw_dial(&raw);
    frame = shm_frame(SHM_HELLO, 0, 4);
    frame.protocol = SHM_PROTOCOL + 1;
    assert_int_equal(shm_frame_send(raw.fd, &frame, NULL, 0, NULL, 0), GAPLESS_OK);
    want_refusal(&raw, GAPLESS_VERSION, "same gapless on both sides");

    raw_dial(&raw); /* not HELLO */
    assert_int_equal(raw_frame(&raw, SHM_TEXT, 0, 0, NULL, 0), GAPLESS_OK);
    want_refusal(&raw, GAPLESS_VERSION, "");
    raw_dial(&raw); /* without a doorbell */
    assert_int_equal(raw_frame(&raw, SHM_HELLO, 0, 4, NULL, 0), GAPLESS_OK);
    want_refusal(&raw, GAPLESS_PROTOCOL, "malformed");

    assert_int_equal(shm_memory_new("raw", 4096, &fd, &base, &raw_error), GAPLESS_OK);
    raw_dial(&raw); /* a bit that its doorbell cannot have */
    assert_int_equal(raw_frame(&raw, SHM_HELLO, DOORBELL_BITS, 4, &fd, 1), GAPLESS_OK);
    want_refusal(&raw, GAPLESS_PROTOCOL, "malformed");
    shm_memory_unmap(base, 4096);
    shm_close_fd(&fd);

    /* Bells that would blow up: too short, one that can shrink, no memory at all. */
    assert_int_equal(shm_memory_new("raw", 64, &fd, &base, &raw_error), GAPLESS_OK);
    raw_dial(&raw);
    assert_int_equal(raw_frame(&raw, SHM_HELLO, 0, 4, &fd, 1), GAPLESS_OK);
    want_refusal(&raw, GAPLESS_PROTOCOL, "sealed");
    shm_memory_unmap(base, 64);
    shm_close_fd(&fd);
    fd = memfd_create("raw", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(ftruncate(fd, sizeof(struct doorbell)), 0);
    raw_dial(&raw);
    assert_int_equal(raw_frame(&raw, SHM_HELLO, 0, 4, &fd, 1), GAPLESS_OK);
    want_refusal(&raw, GAPLESS_PROTOCOL, "sealed");
    shm_close_fd(&fd);
    assert_int_equal(pipe(pipe_fds), 0);
    raw_dial(&raw);
    assert_int_equal(raw_frame(&raw, SHM_HELLO, 0, 4, pipe_fds, 1), GAPLESS_OK);
    want_refusal(&raw, GAPLESS_PROTOCOL, "sealed");
    shm_close_fd(&pipe_fds[0]);
    shm_close_fd(&pipe_fds[1]);

    raw_t->count(server, &counters);
    assert_int_equal(counters.refused, 9);
    raw_t->last_error(server, TP_NOBODY, &raw_error);
    assert_int_equal(raw_error.status, GAPLESS_PROTOCOL);
    raw_silent(server, 10 * MS);
    raw_ping(server, good, peer);
    raw_t->close(good);
    raw_t->close(server);
}

/* More connections that say nothing than the door has places for: a good client has to
 * wait, not to give up. */
static void test_silence(void **state)
{
    struct tp *server = raw_server(4);
    struct raw silent[SHM_PENDING_CONNS + 5];
    tp_peer peer;
    struct tp *good;

    (void)state;
    for (size_t i = 0; i < sizeof silent / sizeof silent[0]; i++)
        raw_dial(&silent[i]);
    good = raw_good_client(server, &peer);
    raw_ping(server, good, peer);
    for (size_t i = 0; i < sizeof silent / sizeof silent[0]; i++)
        raw_close(&silent[i]);
    raw_t->close(good);
    raw_t->close(server);
}

/* Its peer slot becomes free at the next poll: it waits instead of being refused. */
static void test_peer_slot_soon_free(void **state)
{
    struct tp *server = raw_server(1);
    struct shm_packet packet;
    struct raw raw;
    tp_peer peer;
    struct tp *good = raw_good_client(server, &peer);
    void *base;

    (void)state;
    raw_t->close(good);
    raw_nap(20 * MS);
    raw_dial(&raw);
    assert_int_equal(shm_memory_new("raw", sizeof(struct doorbell), &raw.doorbell_fd,
                                    &base, &raw_error),
                     GAPLESS_OK);
    raw.doorbell = base;
    assert_int_equal(raw_frame(&raw, SHM_HELLO, 0, 4, &raw.doorbell_fd, 1), GAPLESS_OK);
    raw_nap(50 * MS);
    (void)raw_want(server, TP_DOWN);
    (void)raw_want(server, TP_UP);
    packet = raw_answer(&raw);
    assert_int_equal(packet.head.kind, SHM_WELCOME);
    shm_packet_close(&packet);
    raw_close(&raw);
    (void)raw_want(server, TP_DOWN);
    raw_t->close(server);
}

/* ---- frames -------------------------------------------------------------- */

static uint32_t random_next(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* Every kind of nonsense that a client with a peer slot can send ends its connection, and nothing
 * else. */
static void send_nonsense(struct raw *raw, uint32_t kind, uint32_t *random)
{
    static uint8_t bytes[sizeof(struct shm_frame) + TP_TEXT_MAX + 100];
    struct shm_frame frame = shm_frame(SHM_TEXT, 0, 0);
    int fds[SHM_FDS] = {raw->doorbell_fd, raw->fd};
    size_t size = sizeof bytes;

    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)random_next(random);
    switch (kind) {
    case 0: /* noise of any length */
        size = 1 + random_next(random) % sizeof bytes;
        break;
    case 1: /* a good head with too long a text */
        memcpy(bytes, &frame, sizeof frame);
        break;
    case 2: /* part of a head */
        memcpy(bytes, &frame, sizeof frame);
        size = 1 + random_next(random) % (sizeof frame - 1);
        break;
    case 3: /* empty */
        size = 0;
        break;
    case 4: /* what only a server may say */
        assert_int_equal(raw_frame(raw, SHM_GRANT, 0, TP_READ_WRITE, fds, 1),
                         GAPLESS_OK);
        return;
    case 5:
        assert_int_equal(raw_frame(raw, SHM_WELCOME, 64, 0, fds, 2), GAPLESS_OK);
        return;
    case 6: /* a second greeting */
        assert_int_equal(raw_frame(raw, SHM_HELLO, 0, 4, fds, 1), GAPLESS_OK);
        return;
    case 7: /* a text that carries descriptors */
        assert_int_equal(raw_frame(raw, SHM_TEXT, 0, 0, fds, 2), GAPLESS_OK);
        return;
    default: /* a kind that does not exist */
        frame.kind = (uint16_t)(100 + random_next(random) % 1000);
        assert_int_equal(shm_frame_send(raw->fd, &frame, NULL, 0, NULL, 0), GAPLESS_OK);
        return;
    }
    assert_int_equal(send(raw->fd, bytes, size, MSG_NOSIGNAL), size);
}

static void test_nonsense(void **state)
{
    struct tp *server = raw_server(2);
    uint32_t random = 2024;
    struct raw raw;
    tp_peer peer;
    struct tp *good = raw_good_client(server, &peer);

    (void)state;
    for (uint32_t i = 0; i < 90; i++) {
        raw_open(&raw, server);
        assert_int_equal(raw.bit, 1 - peer); /* the peer slot is free each time */
        send_nonsense(&raw, i % 9, &random);
        assert_int_equal(raw_want(server, TP_DOWN).peer, raw.bit);
        raw_ping(server, good, peer);
        raw_close(&raw);
    }
    raw_silent(server, 10 * MS);
    raw_t->close(good);
    raw_t->close(server);
}

/* ---- pages --------------------------------------------------------------- */

static void test_rings(void **state)
{
    static const uint32_t lies[] = {65, 1000, 0x80000000u, UINT32_MAX};
    struct tp *server = raw_server(2);
    struct raw raw;
    tp_peer peer;
    struct tp *good = raw_good_client(server, &peer);
    int status;

    (void)state;
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        /* Up: more notes than fit, or fewer than none. */
        raw_open(&raw, server);
        atomic_store(&raw.up->head, lies[i]);
        (void)doorbell_ring(raw.server_doorbell, raw.bit);
        assert_int_equal(raw_want(server, TP_DOWN).peer, raw.bit);
        raw_close(&raw);
        raw_ping(server, good, peer);

        /* Down: it claims to have read what was never sent. */
        raw_open(&raw, server);
        atomic_store(&raw.down->tail, lies[i]);
        for (uint32_t note = 0;
             (status = raw_t->notify(server, raw.bit, note)) == GAPLESS_OK; note++)
            assert_in_range(note, 0, raw.capacity);
        assert_int_equal(status, GAPLESS_PEER_LOST);
        assert_int_equal(raw_want(server, TP_DOWN).peer, raw.bit);
        raw_close(&raw);
        raw_ping(server, good, peer);
    }

    /* It writes the indices that are ours: we do not read them back. */
    raw_open(&raw, server);
    atomic_store(&raw.up->tail, 12345);
    atomic_store(&raw.down->head, 54321);
    atomic_store(&raw.up->notes[0], 7);
    atomic_store(&raw.up->head, 1);
    (void)doorbell_ring(raw.server_doorbell, raw.bit);
    assert_int_equal(raw_want(server, TP_NOTE).note, 7);
    assert_int_equal(raw_t->notify(server, raw.bit, 1), GAPLESS_OK);
    raw_ping(server, good, peer);

    /* It goes on writing after it has gone: at most a ring full is believed. */
    atomic_store(&raw.up->head, 1 + raw.capacity);
    shm_close_fd(&raw.fd);
    for (uint32_t i = 0; i < raw.capacity; i++)
        (void)raw_want(server, TP_NOTE);
    atomic_store(&raw.up->head, 1 + 2 * raw.capacity);
    for (uint32_t i = 0; i <= raw.capacity; i++) {
        if (raw_event(server, LONG_NS).kind == TP_DOWN)
            break;
        assert_true(i < raw.capacity);
    }
    raw_close(&raw);
    raw_ping(server, good, peer);
    raw_t->close(good);
    raw_t->close(server);
}

/* The doorbell is everybody's: whoever spoils it delays the others, at most until the end
 * of a slice of sleep. */
static void test_doorbell(void **state)
{
    struct tp *server = raw_server(70); /* two words, the second in part */
    struct raw raw;
    tp_peer peer;
    struct tp *good = raw_good_client(server, &peer);

    (void)state;
    raw_open(&raw, server);
    for (uint32_t word = 0; word < DOORBELL_WORDS; word++)
        atomic_store(&raw.server_doorbell->attention[word], UINT64_MAX);
    raw_silent(server, 20 * MS);
    raw_ping(server, good, peer);

    /* Nobody's bit remains: the note is found by looking at all rings. */
    for (int i = 0; i < 3; i++) {
        raw_silent(server, 5 * MS); /* it has seen that the rings are empty */
        assert_int_equal(raw_t->notify(good, 0, 99), GAPLESS_OK);
        atomic_store(&raw.server_doorbell->attention[0], 0);
        assert_int_equal(raw_want(server, TP_NOTE).note, 99);
    }
    for (uint32_t i = 0; i < 200; i++) {
        atomic_store(&raw.server_doorbell->asleep, i * 0x01010101u);
        raw_ping(server, good, peer);
    }
    raw_close(&raw);
    (void)raw_want(server, TP_DOWN);
    raw_t->close(good);
    raw_t->close(server);
}

struct thief {
    struct raw *raw;
    uint32_t stolen;
};

/* A ringer that is killed between taking the flag and the system call. */
static void *thief_run(void *argument)
{
    struct thief *me = argument;

    while (atomic_load(&me->raw->server_doorbell->asleep) == 0)
        raw_nap(MS / 10);
    atomic_store(&me->raw->up->notes[0], 5);
    atomic_store(&me->raw->up->head, 1);
    me->stolen = doorbell_ring(me->raw->server_doorbell, me->raw->bit);
    return NULL;
}

static void test_stolen_wake(void **state)
{
    struct tp *server = raw_server(2);
    struct tp_event event = {.kind = TP_DONE};
    struct raw raw;
    struct thief thief = {.raw = &raw};
    pthread_t thread;
    uint64_t start;

    (void)state;
    raw_open(&raw, server);
    start = clock_ns();
    assert_int_equal(pthread_create(&thread, NULL, thief_run, &thief), 0);
    while (clock_ns() - start < (uint64_t)LONG_NS && event.kind != TP_NOTE)
        (void)raw_t->poll(server, &event, 1, LONG_NS);
    assert_int_equal(event.note, 5);
    assert_true(pace_within(clock_ns() - start, 0, 800 * MS));
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(thief.stolen, 1);
    raw_close(&raw);
    raw_t->close(server);
}

/* ---- idlers -------------------------------------------------------------- */

/* It never reads its control messages: the server finds out by writing, and does not
 * wait. */
static void test_not_reading(void **state)
{
    static char text[TP_TEXT_MAX];
    struct tp *server = raw_server(2);
    uint64_t start = clock_ns();
    struct raw raw;
    int status;

    (void)state;
    raw_open(&raw, server);
    while ((status = raw_t->send_control(server, raw.bit, text, sizeof text,
                                         &raw_error)) == GAPLESS_OK)
        assert_in_range(clock_ns() - start, 0, LONG_NS);
    assert_int_equal(status, GAPLESS_PEER_LOST);
    assert_non_null(strstr(raw_error.text, "does not read"));
    assert_int_equal(raw_want(server, TP_DOWN).peer, raw.bit);
    raw_close(&raw);
    raw_t->close(server);
}

/* It floods the control plane, and stops in the middle of it: others get through. */
static void test_chatter(void **state)
{
    struct tp *server = raw_server(3);
    struct tp_event event;
    struct raw raw;
    tp_peer peer;
    struct tp *good = raw_good_client(server, &peer);
    bool heard = false;

    (void)state;
    raw_open(&raw, server);
    while (raw_frame(&raw, SHM_TEXT, 0, 0, NULL, 0) == GAPLESS_OK)
        ;
    assert_int_equal(raw_t->send_control(good, 0, "me too", 6, &raw_error), GAPLESS_OK);
    assert_int_equal(raw_t->notify(good, 0, 1), GAPLESS_OK);
    assert_int_not_equal(raw_event(server, LONG_NS).kind, TP_DONE);
    shm_close_fd(&raw.fd);
    for (;;) {
        event = raw_event(server, LONG_NS);
        if (event.kind == TP_DOWN)
            break;
        assert_int_not_equal(event.kind, TP_DONE);
        heard = heard || (event.kind == TP_TEXT && event.peer == peer);
    }
    assert_int_equal(event.peer, raw.bit);
    if (!heard)
        assert_int_equal(raw_want(server, TP_TEXT).peer, peer);
    raw_ping(server, good, peer);
    raw_close(&raw);
    raw_t->close(good);
    raw_t->close(server);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, raw_setup, raw_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_greetings),   TEST(test_silence),     TEST(test_peer_slot_soon_free),
        TEST(test_nonsense),    TEST(test_rings),       TEST(test_doorbell),
        TEST(test_stolen_wake), TEST(test_not_reading), TEST(test_chatter),
    };

    pace_alarm(50);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
