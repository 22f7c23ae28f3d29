/* The promises of transport/transport.h, kept by every transport: what put and get
 * bring, when they are done, and what of a region a peer may touch. Where windows are
 * mapped most of it is there at once; the same tests hold. */
#include "tests/conformance/side.h"

#include <string.h>

#define LARGE (1u << 20)

static void fill(void *at, size_t bytes, unsigned seed)
{
    unsigned char *to = at;

    for (size_t i = 0; i < bytes; i++)
        to[i] = (unsigned char)(seed + i * 7 + i / 251);
}

static bool is_filled(const void *at, size_t bytes, unsigned seed)
{
    const unsigned char *from = at;

    for (size_t i = 0; i < bytes; i++)
        if (from[i] != (unsigned char)(seed + i * 7 + i / 251))
            return false;
    return true;
}

/* A pair with a large region more, at window 1. */
struct wide {
    struct pair pair;
    struct tp_region region;
    struct tp_region window;
};

static void wide_open(struct wide *ret, void *state, enum tp_access access,
                      const struct tp_config *config)
{
    pair_open(&ret->pair, state, config);
    must_region_new(&ret->pair.server, LARGE, &ret->region);
    ret->region.split = LARGE / 2;
    must_grant(&ret->pair.server, ret->pair.to_client, &ret->region, 1, access);
    must_window(&ret->pair.client, ret->pair.to_server, 1, &ret->window);
    assert_int_equal(ret->window.bytes, LARGE);
}

/* ---- put and get --------------------------------------------------------- */

static void test_get(void **state)
{
    struct wide w;

    wide_open(&w, *state, TP_READ, NULL);
    for (unsigned round = 0; round < 3; round++) {
        /* Odd places and sizes, and all of it. */
        const size_t at[] = {0, 4095, 77777, 0}, bytes[] = {1, 8193, 300001, LARGE};

        fill(w.region.base, LARGE, round);
        for (size_t i = 0; i < 4; i++) {
            must_get(&w.pair.client, w.pair.to_server, &w.window, at[i], bytes[i]);
            assert_memory_equal((char *)w.window.base + at[i],
                                (char *)w.region.base + at[i], bytes[i]);
        }
        assert_true(is_filled(w.window.base, LARGE, round));
    }
    pair_close(&w.pair);
}

/* A note brings its own bytes and all before it; once it is done its source may be
 * written again, and nobody sees that. */
static void test_put(void **state)
{
    const size_t piece = LARGE / 8;
    struct wide w;

    wide_open(&w, *state, TP_READ_WRITE, NULL);
    for (unsigned round = 0; round < 4; round++) {
        fill(w.window.base, LARGE, round);
        for (uint32_t i = 0; i < 8; i++)
            must_put_at(&w.pair.client, w.pair.to_server, &w.window, i * piece, piece,
                        round * 8 + i);
        for (uint32_t i = 0; i < 8; i++) {
            (void)want_note(&w.pair.server, round * 8 + i);
            assert_memory_equal((char *)w.region.base + i * piece,
                                (char *)w.window.base + i * piece, piece);
        }
        assert_true(is_filled(w.region.base, LARGE, round));
        side_drain(&w.pair.client);
    }
    if (!w.pair.client.t->mapped) {
        memset(w.window.base, 0, LARGE);
        assert_true(is_filled(w.region.base, LARGE, 3));
    }
    /* A few bytes with a note of their own; nothing beside them is touched. */
    fill(w.window.base, LARGE, 9);
    must_put_at(&w.pair.client, w.pair.to_server, &w.window, 12345, 24, 5);
    (void)want_note(&w.pair.server, 5);
    assert_memory_equal((char *)w.region.base + 12345, (char *)w.window.base + 12345,
                        24);
    if (!w.pair.client.t->mapped) {
        assert_true(is_filled(w.region.base, 12345, 3));
        assert_memory_not_equal((char *)w.region.base + 12369,
                                (char *)w.window.base + 12369, 24);
    }
    side_drain(&w.pair.client);
    pair_close(&w.pair);
}

/* Not mapped: each side has memory of its own, the client's zero at first. */
static void test_own_memory(void **state)
{
    struct wide w;
    char zero[64] = {0};

    wide_open(&w, *state, TP_READ_WRITE, NULL);
    if (w.pair.client.t->mapped) {
        fill(w.region.base, LARGE, 4);
        assert_true(is_filled(w.window.base, LARGE, 4));
        pair_close(&w.pair);
        return;
    }
    assert_int_equal((uintptr_t)w.window.base % PAGE, 0);
    fill(w.region.base, LARGE, 4);
    assert_memory_equal(w.window.base, zero, sizeof zero);
    assert_memory_equal((char *)w.window.base + LARGE - 64, zero, sizeof zero);
    must_get(&w.pair.client, w.pair.to_server, &w.window, 128, 64);
    assert_memory_equal(w.window.base, zero, sizeof zero);
    assert_memory_equal((char *)w.window.base + 128, (char *)w.region.base + 128, 64);
    assert_memory_equal((char *)w.window.base + 192, zero, sizeof zero);
    memset(w.window.base, 0xee, LARGE);
    must_notify(&w.pair.client, w.pair.to_server, 1);
    (void)want_note(&w.pair.server, 1);
    assert_true(is_filled(w.region.base, LARGE, 4));
    pair_close(&w.pair);
}

/* ---- TP_DONE ------------------------------------------------------------- */

/* Many at once: each gives its own TP_DONE, in the order asked, with the bytes
 * there. */
static void test_done_in_order(void **state)
{
    enum {
        MANY = 200
    };
    struct wide w;
    uint32_t asked = 0;
    int status;

    wide_open(&w, *state, TP_READ, NULL);
    fill(w.region.base, LARGE, 1);
    while (asked < MANY) {
        status = side_get(&w.pair.client, w.pair.to_server, &w.window,
                          (size_t)asked * 4096, 4000, 1000 + asked);
        asked += status >= 0 ? 1 : 0;
        if (status == GAPLESS_AGAIN)
            side_silent(&w.pair.client, 1 * MS);
        else if (w.pair.client.t->mapped)
            assert_int_equal(status, GAPLESS_OK);
        else
            assert_int_equal(status, 1);
    }
    side_drain(&w.pair.client);
    assert_int_equal(w.pair.client.dones, w.pair.client.t->mapped ? 0 : MANY);
    for (uint32_t i = 0; i < w.pair.client.dones; i++)
        assert_int_equal(w.pair.client.done[i], 1000 + i);
    for (size_t i = 0; i < MANY; i++)
        assert_memory_equal((char *)w.window.base + i * 4096,
                            (char *)w.region.base + i * 4096, 4000);
    pair_close(&w.pair);
}

/* Those of puts carry their notes; a put that needs none says so at once. */
static void test_done_of_put(void **state)
{
    struct wide w;
    uint32_t done = 0;

    wide_open(&w, *state, TP_READ_WRITE, NULL);
    for (uint32_t i = 0; i < 20; i++) {
        size_t bytes = i % 2 == 0 ? 100000 : 0;
        int status = side_put(&w.pair.client, w.pair.to_server, &w.window, 0, bytes, i);

        assert_in_range(status, 0, w.pair.client.t->mapped ? 0 : 1);
        (void)want_note(&w.pair.server, i);
        side_drain(&w.pair.client);
        if (status == 1)
            assert_int_equal(w.pair.client.done[done++], i);
        assert_int_equal(w.pair.client.dones, done);
    }
    pair_close(&w.pair);
}

/* A full queue is a value; polling makes room, on either side of the table. */
static void test_full_queue(void **state)
{
    struct tp_config config = {.notes_max = 16};
    uint32_t went, noted = 0;
    struct wide w;
    struct tp_event event;

    wide_open(&w, *state, TP_READ_WRITE, &config);
    for (int round = 0; round < 3; round++) {
        went = side_fill(&w.pair.client, w.pair.to_server, &w.window, 5000);
        assert_in_range(went, 16, 1000);
        for (uint32_t i = 0; i < went; i++)
            (void)want_note(&w.pair.server, i);
        side_drain(&w.pair.client);
    }
    /* Gets wait for nobody but the card: polling alone goes on with them. */
    for (uint32_t i = 0; i < 2000; i++) {
        int status = GAPLESS_AGAIN;

        for (int tries = 0; status == GAPLESS_AGAIN && tries < 1000; tries++) {
            status = side_get(&w.pair.client, w.pair.to_server, &w.window, 0, 4096, i);
            if (status == GAPLESS_AGAIN)
                side_silent(&w.pair.client, 1 * MS);
        }
        assert_in_range(status, 0, 1);
    }
    side_drain(&w.pair.client);
    must_notify(&w.pair.client, w.pair.to_server, 7);
    while (side_next(&w.pair.server, &event, noted == 0 ? LONG_NS : 0))
        noted++;
    assert_int_equal(noted, 1);
    pair_close(&w.pair);
}

/* What is under way when the server goes: the client hears TP_DOWN, not silence, and
 * what came before stays readable. */
static void test_server_goes(void **state)
{
    struct wide w;

    wide_open(&w, *state, TP_READ, NULL);
    fill(w.region.base, LARGE, 2);
    must_get(&w.pair.client, w.pair.to_server, &w.window, 0, LARGE);
    for (uint32_t i = 0; i < 4; i++)
        (void)side_get(&w.pair.client, w.pair.to_server, &w.window, 0, LARGE, i);
    side_close(&w.pair.server);
    (void)side_want(&w.pair.client, TP_DOWN);
    assert_true(is_filled(w.window.base, LARGE, 2));
    assert_true(side_get(&w.pair.client, w.pair.to_server, &w.window, 0, 1, 1) < 0);
    assert_true(side_put(&w.pair.client, w.pair.to_server, &w.window, 0, 0, 1) < 0);
    side_close(&w.pair.client);
}

/* ---- a region in two parts ----------------------------------------------- */

static void test_split(void **state)
{
    const size_t half = LARGE / 2;
    struct wide w;
    struct side *client;
    tp_peer to;

    wide_open(&w, *state, TP_SPLIT, NULL);
    client = &w.pair.client;
    to = w.pair.to_server;
    /* Before the split it reads, from there on it writes. */
    fill(w.region.base, half, 1);
    must_get(client, to, &w.window, 0, half);
    assert_true(is_filled(w.window.base, half, 1));
    fill((char *)w.window.base + half, half, 2);
    must_put_at(client, to, &w.window, half, half, 3);
    (void)want_note(&w.pair.server, 3);
    assert_true(is_filled((char *)w.region.base + half, half, 2));
    side_drain(client);
    /* A note without bytes may name any place. */
    must_put_at(client, to, &w.window, 0, 0, 4);
    (void)want_note(&w.pair.server, 4);
    if (!client->t->mapped) {
        assert_int_equal(side_put(client, to, &w.window, 0, 1, 1), GAPLESS_INVALID);
        assert_int_equal(side_put(client, to, &w.window, half - 1, 2, 1),
                         GAPLESS_INVALID);
        assert_int_equal(side_put(client, to, &w.window, 0, LARGE, 1), GAPLESS_INVALID);
        assert_int_equal(side_get(client, to, &w.window, half, 1, 1), GAPLESS_INVALID);
        assert_int_equal(side_get(client, to, &w.window, half - 1, 2, 1),
                         GAPLESS_INVALID);
        assert_int_equal(side_get(client, to, &w.window, LARGE - 1, 1, 1),
                         GAPLESS_INVALID);
        assert_true(is_filled(w.region.base, half, 1));
    }
    side_silent(&w.pair.server, 20 * MS);
    pair_close(&w.pair);
}

/* One access for everybody, for ever; and a split within the region. */
static void test_split_is_for_ever(void **state)
{
    static const enum tp_access access[] = {TP_READ, TP_READ_WRITE, TP_SPLIT};
    struct tp_region region;
    struct pair pair;

    pair_open(&pair, *state, NULL);
    for (uint32_t a = 0; a < 3; a++) {
        must_region_new(&pair.server, 3 * PAGE, &region);
        region.split = PAGE;
        must_grant(&pair.server, pair.to_client, &region, 1 + a, access[a]);
        must_grant(&pair.server, pair.to_client, &region, 1 + a, access[a]);
        for (uint32_t b = 0; b < 3; b++)
            if (a != b)
                assert_int_equal(
                    side_grant(&pair.server, pair.to_client, &region, 3, access[b]),
                    GAPLESS_INVALID);
    }
    must_region_new(&pair.server, 3 * PAGE, &region);
    region.split = 3 * PAGE + 1;
    assert_int_equal(side_grant(&pair.server, pair.to_client, &region, 3, TP_SPLIT),
                     GAPLESS_INVALID);
    pair_close(&pair);
}

/* ---- looking at it ------------------------------------------------------- */

static void describe(struct side *side, tp_peer peer)
{
    char text[256], small[8];
    size_t bytes;

    memset(text, 'x', sizeof text);
    memset(small, 'x', sizeof small);
    bytes = side->t->describe(side->tp, peer, text, sizeof text);
    assert_non_null(memchr(text, '\0', sizeof text));
    assert_true(strlen(text) <= bytes || bytes == 0);
    assert_null(strchr(text, '\n'));
    (void)side->t->describe(side->tp, peer, small, sizeof small);
    assert_non_null(memchr(small, '\0', sizeof small));
}

static void test_looking(void **state)
{
    const tp_peer odd[] = {0, 1, 77, TP_NOBODY};
    struct tp_counters before, after;
    struct gapless_error reason;
    struct wide w;

    wide_open(&w, *state, TP_READ_WRITE, NULL);
    for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
        describe(&w.pair.server, odd[i]);
        describe(&w.pair.client, odd[i]);
        reason.status = 1;
        w.pair.client.t->last_error(w.pair.client.tp, odd[i], &reason);
        assert_int_equal(reason.status, GAPLESS_OK);
    }
    w.pair.client.t->count(w.pair.client.tp, &before);
    for (uint32_t i = 0; i < 5; i++) {
        must_put_at(&w.pair.client, w.pair.to_server, &w.window, 0, 70000, i);
        (void)want_note(&w.pair.server, i);
    }
    side_drain(&w.pair.client);
    w.pair.client.t->count(w.pair.client.tp, &after);
    if (w.pair.client.t->mapped) {
        assert_int_equal(after.requests, 0);
        assert_int_equal(after.regions, 0);
    } else {
        assert_true(after.requests - before.requests >= 5);
        assert_true(after.doorbells - before.doorbells >= 5);
        assert_true(after.completions - before.completions >= 5);
        assert_true(after.regions >= 2);
        assert_true(after.doorbells <= after.requests);
    }
    /* Who closed in order is no mystery, whatever the text says of it. */
    side_close(&w.pair.client);
    (void)side_want(&w.pair.server, TP_DOWN);
    w.pair.server.t->last_error(w.pair.server.tp, w.pair.to_client, &reason);
    assert_int_equal(reason.status, GAPLESS_OK);
    side_close(&w.pair.server);
}

/* A client that does not read what it is told is ended, and the server can say why. */
static void test_why(void **state)
{
    struct gapless_error reason = {0};
    struct pair pair;
    char text[1000] = {0};
    int status = GAPLESS_OK;

    pair_open(&pair, *state, NULL);
    for (int i = 0; i < 100000 && status == GAPLESS_OK; i++)
        status = side_send_control(&pair.server, pair.to_client, text, sizeof text);
    assert_int_equal(status, GAPLESS_PEER_LOST);
    assert_int_equal(side_want(&pair.server, TP_DOWN).peer, pair.to_client);
    pair.server.t->last_error(pair.server.tp, pair.to_client, &reason);
    assert_int_equal(reason.status, GAPLESS_PEER_LOST);
    assert_non_null(strstr(reason.text, "control messages"));
    pair_close(&pair);
}

/* ---- the table ----------------------------------------------------------- */

#define TEST(name)                                                                     \
    {                                                                                  \
#name, name                                                                    \
    }
static const struct side_test tests[] = {
    TEST(test_get),           TEST(test_put),         TEST(test_own_memory),
    TEST(test_done_in_order), TEST(test_done_of_put), TEST(test_full_queue),
    TEST(test_server_goes),   TEST(test_split),       TEST(test_split_is_for_ever),
    TEST(test_looking),       TEST(test_why),
};

int main(void)
{
    return side_run(tests, sizeof tests / sizeof tests[0]);
}
