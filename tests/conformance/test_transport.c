/* The promises of transport/transport.h, kept by every transport: objects, control
 * messages, windows, notes. What only one transport has (files, processes, hostile
 * peers) is tested in its own tests. */
#include "tests/conformance/side.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- objects ------------------------------------------------------------- */

static void test_open(void **state)
{
    const struct transport *t = *state;
    struct tp_config huge = {.peers_max = UINT32_MAX};
    struct tp_region region;
    struct tp *tp = (struct tp *)&huge;
    struct side side;
    uint64_t then;

    assert_non_null(t->name);
    t->close(NULL);
    assert_int_equal(t->open(&huge, &tp, &side_error), GAPLESS_INVALID);
    assert_ptr_equal(tp, &huge); /* outputs are untouched on failure */
    assert_true(side_error.text[0] != '\0');

    side_open(&side, *state, NULL);
    then = t->now_ns(side.tp);
    /* Its own time need not be ours: what a poll waits of it may be less than we do. */
    for (int i = 0; i < 100 && t->now_ns(side.tp) < then + 2 * MS; i++)
        side_silent(&side, 2 * MS);
    assert_true(t->now_ns(side.tp) >= then + 2 * MS);
    assert_int_equal(side_region_new(&side, 0, &region), GAPLESS_INVALID);
    assert_int_equal(side_notify(&side, 0, 1), GAPLESS_PEER_LOST);
    assert_int_equal(side_notify(&side, 99, 1), GAPLESS_INVALID);
    assert_int_equal(side_send_control(&side, 0, "x", 1), GAPLESS_PEER_LOST);
    side_drop(&side, 0);
    side_drop(&side, 99);
    side_close(&side);

    side_open(&side, *state, NULL);
    must_listen(&side);
    assert_int_equal(side_listen(&side, side_address), GAPLESS_INVALID);
    side_close(&side); /* listening, with nobody there */
}

static void test_regions(void **state)
{
    struct tp_region regions[20];
    struct tp_region stale;
    struct side side;

    side_open(&side, *state, NULL);
    for (size_t i = 0; i < 20; i++) {
        size_t bytes = i * 1000 + 1;
        const char *base;

        must_region_new(&side, bytes, &regions[i]);
        base = regions[i].base;
        assert_int_equal(regions[i].bytes, bytes);
        assert_int_equal((uintptr_t)base % 4096, 0);
        for (size_t j = 0; j < bytes; j++)
            assert_int_equal(base[j], 0);
        memset(regions[i].base, (int)i + 1, bytes);
    }
    for (size_t i = 0; i < 20; i += 2) {
        stale = regions[i];
        side_region_free(&side, &regions[i]);
        assert_null(regions[i].base);
        side_region_free(&side, &stale); /* known as stale */
        side_region_free(&side, &regions[i]);
    }
    assert_int_equal(*(char *)regions[19].base, 20);
    must_region_new(&side, 5, &regions[0]);
    side_region_free(&side, &stale); /* its place is used again */
    assert_int_equal(*(char *)regions[0].base, 0);
    side_close(&side);
}

static void test_roles(void **state)
{
    struct pair pair;
    struct tp_region region;
    tp_peer peer;

    pair_open(&pair, *state, NULL);
    /* A server does not connect, put or get; a client does not listen or grant. */
    assert_int_equal(side_connect(&pair.server, side_address, 1 * MS, &peer),
                     GAPLESS_INVALID);
    assert_int_equal(side_put(&pair.server, pair.to_client, &pair.region, 0, 1, 0),
                     GAPLESS_INVALID);
    assert_int_equal(side_get(&pair.server, pair.to_client, &pair.region, 0, 1, 0),
                     GAPLESS_INVALID);
    assert_int_equal(side_window(&pair.server, pair.to_client, 0, 1 * MS, &region),
                     GAPLESS_INVALID);
    assert_int_equal(side_listen(&pair.client, side_address), GAPLESS_INVALID);
    must_region_new(&pair.client, 16, &region);
    assert_int_equal(side_grant(&pair.client, pair.to_server, &region, 1, TP_READ),
                     GAPLESS_INVALID);
    /* It was opened for one connection. */
    assert_int_equal(side_connect(&pair.client, side_address, 1 * MS, &peer),
                     GAPLESS_CAPACITY);
    pair_close(&pair);
}

/* ---- control messages ---------------------------------------------------- */

static void test_texts(void **state)
{
    static char text[TP_TEXT_MAX + 1];
    static const uint32_t sizes[] = {0, 1, 100, TP_TEXT_MAX};
    struct pair pair;
    struct tp_event event;

    pair_open(&pair, *state, NULL);
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)(i * 7);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        assert_int_equal(
            side_send_control(&pair.client, pair.to_server, text, sizes[i]),
            GAPLESS_OK);
        event = side_want(&pair.server, TP_TEXT);
        assert_int_equal(event.peer, pair.to_client);
        assert_int_equal(event.bytes, sizes[i]);
        assert_memory_equal(event.data, text, sizes[i]);
        assert_int_equal(
            side_send_control(&pair.server, pair.to_client, text, sizes[i]),
            GAPLESS_OK);
        event = side_want(&pair.client, TP_TEXT);
        assert_int_equal(event.peer, pair.to_server);
        assert_int_equal(event.bytes, sizes[i]);
        assert_memory_equal(event.data, text, sizes[i]);
    }
    assert_int_equal(
        side_send_control(&pair.client, pair.to_server, text, TP_TEXT_MAX + 1),
        GAPLESS_INVALID);
    assert_int_equal(
        side_send_control(&pair.server, pair.to_client, text, TP_TEXT_MAX + 1),
        GAPLESS_INVALID);
    pair_close(&pair);
}

/* The server does not look: the client is told to try later, and nothing is lost. */
static void test_texts_back_pressure(void **state)
{
    struct pair pair;
    struct tp_event event;
    uint32_t said = 0;
    uint32_t heard = 0;
    uint32_t again = 0;
    int status;

    pair_open(&pair, *state, NULL);
    while (again < 50 && said < 100000) {
        status = side_send_control(&pair.client, pair.to_server, &said, sizeof said);
        if (status == GAPLESS_OK) {
            said++;
        } else {
            assert_int_equal(status, GAPLESS_AGAIN);
            again++;
            side_nap(1 * MS);
        }
    }
    assert_int_equal(again, 50);
    while (heard < said) {
        event = side_want(&pair.server, TP_TEXT);
        assert_int_equal(event.bytes, sizeof heard);
        assert_memory_equal(event.data, &heard, sizeof heard);
        heard++;
    }
    side_silent(&pair.server, 20 * MS);
    must_say(&pair.client, pair.to_server, "still there");
    want_text(&pair.server, "still there");
    pair_close(&pair);
}

/* ---- windows ------------------------------------------------------------- */

static void test_windows(void **state)
{
    struct pair pair;
    struct tp_config config = {.windows_max = 3};
    struct tp_region read_only;
    struct tp_region region;
    uint64_t start;

    pair_open(&pair, *state, &config);
    assert_int_equal(pair.window.bytes, PAGE);
    ((char *)pair.window.base)[5] = 55;
    must_put(&pair.client, pair.to_server, &pair.window, 9);
    (void)want_note(&pair.server, 9);
    assert_int_equal(((char *)pair.region.base)[5], 55);

    must_region_new(&pair.server, 100, &region);
    ((char *)region.base)[99] = 99;
    must_grant(&pair.server, pair.to_client, &region, 2, TP_READ);
    must_window(&pair.client, pair.to_server, 2, &read_only);
    assert_int_equal(read_only.bytes, 100);
    must_get(&pair.client, pair.to_server, &read_only, 0, 100);
    assert_int_equal(((char *)read_only.base)[99], 99);

    /* One access for ever; numbers have an end; what is not granted is waited for. */
    assert_int_equal(
        side_grant(&pair.server, pair.to_client, &region, 1, TP_READ_WRITE),
        GAPLESS_INVALID);
    assert_int_equal(side_grant(&pair.server, pair.to_client, &pair.region, 1, TP_READ),
                     GAPLESS_INVALID);
    assert_int_equal(side_grant(&pair.server, pair.to_client, &region, 3, TP_READ),
                     GAPLESS_CAPACITY);
    start = side_clock_ns();
    assert_int_equal(side_window(&pair.client, pair.to_server, 1, 50 * MS, &region),
                     GAPLESS_TIMEOUT);
    assert_true(pace_within(side_clock_ns() - start, 50 * MS, 2000 * MS));

    /* A number may be granted again, and memory stays when its peer goes. */
    must_region_new(&pair.server, 2 * PAGE, &region);
    must_grant(&pair.server, pair.to_client, &region, 0, TP_READ_WRITE);
    side_silent(&pair.client, 20 * MS);
    side_region_free(&pair.client, &pair.window);
    must_window(&pair.client, pair.to_server, 0, &pair.window);
    assert_int_equal(pair.window.bytes, 2 * PAGE);
    side_close(&pair.server);
    (void)side_want(&pair.client, TP_DOWN);
    assert_int_equal(side_window(&pair.client, pair.to_server, 0, MS, &region),
                     GAPLESS_PEER_LOST);
    assert_int_equal(((char *)read_only.base)[99], 99);
    side_close(&pair.client);
}

/* Texts that arrive before a grant are kept; too many are a reason to poll. */
static void test_window_behind_texts(void **state)
{
    struct pair pair;
    struct tp_region region;
    int status = GAPLESS_AGAIN;
    uint32_t heard = 0;

    pair_open(&pair, *state, NULL);
    for (uint32_t i = 0; i < 20; i++)
        assert_int_equal(side_send_control(&pair.server, pair.to_client, &i, sizeof i),
                         GAPLESS_OK);
    must_grant(&pair.server, pair.to_client, &pair.region, 1, TP_READ_WRITE);
    while (status == GAPLESS_AGAIN) {
        status = side_window(&pair.client, pair.to_server, 1, LONG_NS, &region);
        for (; status == GAPLESS_AGAIN && heard < 20; heard++) {
            struct tp_event event;

            if (!side_next(&pair.client, &event, 0))
                break;
            assert_int_equal(event.kind, TP_TEXT);
            assert_memory_equal(event.data, &heard, sizeof heard);
        }
    }
    assert_int_equal(status, GAPLESS_OK);
    for (; heard < 20; heard++)
        assert_memory_equal(side_want(&pair.client, TP_TEXT).data, &heard,
                            sizeof heard);
    pair_close(&pair);
}

static void test_bounds(void **state)
{
    static const size_t bad[][2] = {
        {0, PAGE + 1},    {PAGE, 1},         {PAGE + 1, 0},
        {SIZE_MAX, 1},    {1, SIZE_MAX},     {SIZE_MAX, SIZE_MAX},
        {PAGE, SIZE_MAX}, {SIZE_MAX - 1, 2}, {PAGE - 1, SIZE_MAX - PAGE + 2},
    };
    static const size_t good[][2] = {{0, PAGE}, {0, 0}, {PAGE, 0}, {PAGE - 1, 1}};
    struct pair pair;
    struct tp_region region;
    struct tp_region wrong;

    pair_open(&pair, *state, NULL);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(side_put(&pair.client, pair.to_server, &pair.window, bad[i][0],
                                  bad[i][1], 1),
                         GAPLESS_INVALID);
        assert_int_equal(side_get(&pair.client, pair.to_server, &pair.window, bad[i][0],
                                  bad[i][1], 1),
                         GAPLESS_INVALID);
    }
    for (uint32_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        must_put_at(&pair.client, pair.to_server, &pair.window, good[i][0], good[i][1],
                    i);
        (void)want_note(&pair.server, i);
    }
    /* Regions that are no window, or of nobody. */
    must_region_new(&pair.client, PAGE, &region);
    wrong = pair.window;
    wrong.id += 100;
    assert_int_equal(side_put(&pair.client, pair.to_server, &region, 0, 1, 1),
                     GAPLESS_INVALID);
    assert_int_equal(side_put(&pair.client, pair.to_server, &wrong, 0, 1, 1),
                     GAPLESS_INVALID);
    assert_int_equal(side_put(&pair.client, pair.to_server, NULL, 0, 0, 1),
                     GAPLESS_INVALID);
    assert_int_equal(side_put(&pair.client, 77, &pair.window, 0, 1, 1),
                     GAPLESS_INVALID);
    /* A window granted for reading takes no bytes, but notes. */
    must_region_new(&pair.server, PAGE, &region);
    must_grant(&pair.server, pair.to_client, &region, 1, TP_READ);
    must_window(&pair.client, pair.to_server, 1, &wrong);
    assert_int_equal(side_put(&pair.client, pair.to_server, &wrong, 0, 1, 1),
                     GAPLESS_INVALID);
    must_put_at(&pair.client, pair.to_server, &wrong, 0, 0, 8);
    (void)want_note(&pair.server, 8);
    pair_close(&pair);
}

/* ---- notes --------------------------------------------------------------- */

static void test_would_block(void **state)
{
    struct tp_config config = {.notes_max = 16};
    struct pair pair;
    uint32_t notify_count = 0;
    int status;

    pair_open(&pair, *state, &config);
    for (int round = 0; round < 3; round++) {
        uint32_t put_count =
            side_fill(&pair.client, pair.to_server, &pair.window, round == 1 ? 800 : 8);

        assert_in_range(put_count, 16, 1000);
        for (uint32_t i = 0; i < put_count; i++)
            (void)want_note(&pair.server, i);

        for (int tries = 0; tries < 3; tries += status == GAPLESS_AGAIN ? 1 : 0) {
            status = side_notify(&pair.server, pair.to_client, notify_count);
            notify_count += status == GAPLESS_OK ? 1 : 0;
            /* It hears that there is room again by polling. */
            if (status == GAPLESS_AGAIN)
                side_silent(&pair.server, pace_ns(5 * MS));
            else
                assert_int_equal(status, GAPLESS_OK);
        }
        assert_in_range(notify_count, 16, 1000);
        for (uint32_t i = 0; i < notify_count; i++)
            (void)want_note(&pair.client, i);
        notify_count = 0;
        /* A client may notify too. */
        must_notify(&pair.client, pair.to_server, UINT32_MAX);
        (void)want_note(&pair.server, UINT32_MAX);
    }
    pair_close(&pair);
}

/* Each client writes a cell, then puts it; the server finds in the cell what the note
 * says, and every client's notes in order. There are twice as many cells as notes can
 * wait, but a cell may be written again while the server still has its note in hand:
 * hence atomic, for where both sides have the memory at the same address. */
#define WRITERS 3
#define CELLS 128u

static uint32_t puts_of(const struct side *side)
{
    return side_is_slow(side) ? 2000 : 20000;
}

struct writer {
    struct side side;
    pthread_t thread;
    tp_peer to_server;
    struct tp_region region;
    bool failed;
};

static void *writer_run(void *argument)
{
    struct writer *me = argument;
    struct tp_region cells;

    if (side_window(&me->side, me->to_server, 0, LONG_NS, &cells) != GAPLESS_OK) {
        me->failed = true;
        return NULL;
    }
    for (uint32_t i = 0; i < puts_of(&me->side); i++) {
        size_t at = i % CELLS * sizeof(uint32_t);
        int status;

        /* A cell may be written again when its put is done. */
        while (me->side.undone >= CELLS / 2) {
            struct tp_event event;

            if (side_poll(&me->side, &event, 1, MS) < 0)
                break;
        }
        __atomic_store_n((uint32_t *)cells.base + i % CELLS, i, __ATOMIC_RELAXED);
        while ((status = side_put(&me->side, me->to_server, &cells, at, sizeof i, i)) ==
               GAPLESS_AGAIN) {
            struct tp_event event;

            if (side_poll(&me->side, &event, 1, MS) < 0)
                break;
        }
        if (status < 0) {
            me->failed = true;
            return NULL;
        }
    }
    return NULL;
}

static void test_order(void **state)
{
    struct writer writers[WRITERS];
    struct tp_config config = {.peers_max = WRITERS, .notes_max = CELLS / 2};
    struct writer *by_peer[WRITERS] = {NULL};
    uint32_t next[WRITERS] = {0};
    struct side server;

    side_open(&server, *state, &config);
    must_listen(&server);
    for (int i = 0; i < WRITERS; i++) {
        struct writer *it = &writers[i];
        tp_peer peer;

        *it = (struct writer){.failed = false};
        side_open(&it->side, *state, NULL);
        peer = side_join(&server, &it->side, &it->to_server);
        assert_in_range(peer, 0, WRITERS - 1);
        assert_null(by_peer[peer]);
        by_peer[peer] = it;
        must_region_new(&server, CELLS * sizeof(uint32_t), &it->region);
        must_grant(&server, peer, &it->region, 0, TP_READ_WRITE);
    }
    for (int i = 0; i < WRITERS; i++)
        assert_int_equal(
            pthread_create(&writers[i].thread, NULL, writer_run, &writers[i]), 0);
    for (uint32_t i = 0; i < WRITERS * puts_of(&server); i++) {
        struct tp_event event = side_want(&server, TP_NOTE);
        uint32_t cell;

        assert_int_equal(event.note, next[event.peer]);
        next[event.peer]++;
        cell = __atomic_load_n((uint32_t *)by_peer[event.peer]->region.base +
                                   event.note % CELLS,
                               __ATOMIC_RELAXED);
        assert_true(cell == event.note || cell == event.note + CELLS);
    }
    for (int i = 0; i < WRITERS; i++) {
        assert_int_equal(pthread_join(writers[i].thread, NULL), 0);
        assert_false(writers[i].failed);
        side_close(&writers[i].side);
    }
    side_close(&server);
}

/* ---- the table ----------------------------------------------------------- */

#define TEST(name)                                                                     \
    {                                                                                  \
#name, name                                                                    \
    }
static const struct side_test tests[] = {
    TEST(test_open),
    TEST(test_regions),
    TEST(test_roles),
    TEST(test_texts),
    TEST(test_texts_back_pressure),
    TEST(test_windows),
    TEST(test_window_behind_texts),
    TEST(test_bounds),
    TEST(test_would_block),
    TEST(test_order),
};

int main(void)
{
    return side_run(tests, sizeof tests / sizeof tests[0]);
}
