/* The promises of transport/transport.h, kept by every transport: how peers come and
 * go, addresses, time, many peers. */
#include "tests/conformance/side.h"

#include <stdlib.h>
#include <string.h>

/* ---- the end of a peer --------------------------------------------------- */

/* All that was sent comes before TP_DOWN, nothing after. */
static void test_down_is_last(void **state)
{
    struct pair pair;
    struct tp_event event;
    uint32_t notes = 0;
    uint32_t texts = 0;

    pair_open(&pair, *state, NULL);
    for (uint32_t i = 0; i < 20; i++) {
        must_put(&pair.client, pair.to_server, &pair.window, i);
        if (i % 4 == 0)
            must_say(&pair.client, pair.to_server, "bye");
    }
    side_close(&pair.client);
    for (;;) {
        assert_true(side_next(&pair.server, &event, LONG_NS));
        assert_int_equal(event.peer, pair.to_client);
        if (event.kind == TP_DOWN)
            break;
        if (event.kind == TP_NOTE)
            assert_int_equal(event.note, notes++);
        else
            texts++;
    }
    assert_int_equal(notes, 20);
    assert_int_equal(texts, 5);
    side_silent(&pair.server, 20 * MS);
    assert_int_equal(side_notify(&pair.server, pair.to_client, 1), GAPLESS_PEER_LOST);
    assert_int_equal(side_send_control(&pair.server, pair.to_client, "x", 1),
                     GAPLESS_PEER_LOST);

    /* The other way round. */
    side_open(&pair.client, *state, NULL);
    pair.to_client = side_join(&pair.server, &pair.client, &pair.to_server);
    for (uint32_t i = 0; i < 20; i++)
        must_notify(&pair.server, pair.to_client, i);
    must_say(&pair.server, pair.to_client, "bye");
    side_close(&pair.server);
    notes = texts = 0;
    for (;;) {
        assert_true(side_next(&pair.client, &event, LONG_NS));
        if (event.kind == TP_DOWN)
            break;
        if (event.kind == TP_NOTE)
            assert_int_equal(event.note, notes++);
        else
            texts++;
    }
    assert_int_equal(notes, 20);
    assert_int_equal(texts, 1);
    assert_int_equal(side_notify(&pair.client, pair.to_server, 1), GAPLESS_PEER_LOST);
    side_close(&pair.client);
}

static void test_drop(void **state)
{
    struct pair pair;

    pair_open(&pair, *state, NULL);
    /* By the server: what it said arrives, what the client sent does not. */
    must_put(&pair.client, pair.to_server, &pair.window, 1);
    must_say(&pair.client, pair.to_server, "unheard");
    must_say(&pair.server, pair.to_client, "go away");
    side_drop(&pair.server, pair.to_client);
    side_drop(&pair.server, pair.to_client);
    assert_int_equal(side_notify(&pair.server, pair.to_client, 1), GAPLESS_PEER_LOST);
    want_text(&pair.client, "go away");
    (void)side_want(&pair.client, TP_DOWN);
    side_silent(&pair.server, 50 * MS);

    /* By the client: the server hears the rest. Both connect again in the same peer slot. */
    pair.to_client = side_join(&pair.server, &pair.client, &pair.to_server);
    assert_int_equal(pair.to_client, 0);
    must_notify(&pair.client, pair.to_server, 5);
    must_say(&pair.server, pair.to_client, "unheard");
    side_drop(&pair.client, pair.to_server);
    side_drop(&pair.client, pair.to_server);
    (void)want_note(&pair.server, 5);
    (void)side_want(&pair.server, TP_DOWN);
    side_silent(&pair.client, 20 * MS);
    pair.to_client = side_join(&pair.server, &pair.client, &pair.to_server);
    side_silent(&pair.client, 20 * MS);
    pair_close(&pair);
}

/* Peer slots are used again, soon and for ever, and no window of an earlier life is
 * valid. */
static void test_reconnect(void **state)
{
    struct tp_config config = {.peers_max = 2};
    struct tp_region old;
    struct side server;
    struct side stays;
    struct side comes;
    struct tp_region region;
    tp_peer to_server;
    tp_peer kept;
    tp_peer peer;

    side_open(&server, *state, &config);
    side_open(&stays, *state, NULL);
    side_open(&comes, *state, NULL);
    must_listen(&server);
    must_region_new(&server, 64, &region);
    kept = side_join(&server, &stays, &to_server);
    for (uint32_t i = 0; i < (side_is_slow(&server) ? 10u : 100u); i++) {
        peer = side_join(&server, &comes, &to_server);
        assert_int_equal(peer, 1 - kept);
        must_grant(&server, peer, &region, 0, TP_READ_WRITE);
        if (i > 0)
            assert_int_equal(side_put(&comes, to_server, &old, 0, 1, i),
                             GAPLESS_INVALID);
        must_window(&comes, to_server, 0, &old);
        must_put(&comes, to_server, &old, i);
        side_drop(&comes, to_server);
        (void)want_note(&server, i);
        assert_int_equal(side_want(&server, TP_DOWN).peer, peer);
    }
    must_notify(&server, kept, 3);
    (void)want_note(&stays, 3);
    side_close(&comes);
    side_close(&stays);
    side_close(&server);
}

static void test_capacity(void **state)
{
    struct pair pair;
    struct side third;
    struct connecting it;
    tp_peer peer;

    pair_open(&pair, *state, NULL);
    side_open(&third, *state, NULL);
    connecting_start(&it, &third);
    while (pthread_tryjoin_np(it.thread, NULL) != 0)
        side_silent(&pair.server, 10 * MS); /* it may take its polling to refuse */
    assert_int_equal(it.status, GAPLESS_CAPACITY);
    assert_non_null(strstr(it.error.text, "room for 1"));
    side_silent(&pair.server, 10 * MS);
    side_close(&pair.client);
    (void)side_want(&pair.server, TP_DOWN);
    (void)side_join(&pair.server, &third, &peer);
    side_close(&third);
    side_close(&pair.server);
}

/* ---- addresses and time -------------------------------------------------- */

static void test_connect_in_vain(void **state)
{
    struct side client;
    uint64_t start = side_clock_ns();
    tp_peer peer = 12;

    side_open(&client, *state, NULL);
    assert_int_equal(side_connect(&client, side_address, 100 * MS, &peer),
                     GAPLESS_TIMEOUT);
    assert_true(pace_within(side_clock_ns() - start, 100 * MS, 2000 * MS));
    assert_non_null(strstr(side_error.text, side_address));
    assert_int_equal(peer, 12);
    start = side_clock_ns();
    assert_int_equal(side_connect(&client, side_address, 0, &peer), GAPLESS_TIMEOUT);
    assert_true(pace_within(side_clock_ns() - start, 0, 1000 * MS));
    assert_int_equal(side_connect(&client, "", 0, &peer), GAPLESS_INVALID);
    assert_int_equal(side_connect(&client, NULL, 0, &peer), GAPLESS_INVALID);
    assert_int_equal(side_listen(&client, ""), GAPLESS_INVALID);
    side_close(&client);
}

static void test_connect_first(void **state)
{
    struct side server;
    struct side client;
    struct connecting it;

    side_open(&client, *state, NULL);
    side_open(&server, *state, NULL);
    connecting_start(&it, &client);
    side_nap(100 * MS);
    must_listen(&server);
    (void)side_want(&server, TP_UP);
    (void)connecting_end(&it);
    side_close(&server);
    side_close(&client);
}

static void test_two_servers(void **state)
{
    struct pair pair;
    struct side second;

    pair_open(&pair, *state, NULL);
    side_open(&second, *state, NULL);
    assert_int_equal(side_listen(&second, side_address), GAPLESS_SYSTEM);
    assert_non_null(strstr(side_error.text, side_address));
    must_put(&pair.client, pair.to_server, &pair.window, 1);
    (void)want_note(&pair.server, 1);
    pair_close(&pair);
    must_listen(&second); /* free again at once */
    side_close(&second);
}

/* By the transport's own clock, which is virtual in a simulation. */
static void test_timeouts(void **state)
{
    struct tp_event event;
    struct pair pair;
    uint64_t start;

    pair_open(&pair, *state, NULL);
    assert_int_equal(side_poll(&pair.server, &event, 0, 0), GAPLESS_INVALID);
    assert_int_equal(side_poll(&pair.server, NULL, 1, 0), GAPLESS_INVALID);
    start = side_clock_ns();
    for (int i = 0; i < 1000; i++)
        assert_int_equal(side_poll(&pair.server, &event, 1, 0), 0);
    assert_true(pace_within(side_clock_ns() - start, 0, 1000 * MS));
    for (int64_t wait = 10 * MS / 1000; wait <= 150 * MS; wait *= 25) {
        start = pair.server.t->now_ns(pair.server.tp);
        assert_int_equal(side_poll(&pair.server, &event, 1, wait), 0);
        assert_true(pace_within(pair.server.t->now_ns(pair.server.tp) - start, wait,
                                wait + 1000 * MS));
        start = pair.client.t->now_ns(pair.client.tp);
        assert_int_equal(side_poll(&pair.client, &event, 1, wait), 0);
        assert_true(pace_within(pair.client.t->now_ns(pair.client.tp) - start, wait,
                                wait + 1000 * MS));
    }
    /* One event at a time: all of them come. */
    for (uint32_t i = 0; i < 10; i++) {
        must_put(&pair.client, pair.to_server, &pair.window, i);
        must_say(&pair.client, pair.to_server, "and a text");
    }
    for (uint32_t notes = 0, texts = 0; notes < 10 || texts < 10;) {
        assert_int_equal(side_poll(&pair.server, &event, 1, LONG_NS), 1);
        if (event.kind == TP_NOTE)
            assert_int_equal(event.note, notes++);
        else
            texts++;
    }
    pair_close(&pair);
}

static void *notify_later(void *argument)
{
    struct pair *pair = argument;

    side_nap(150 * MS); /* past the spinning, and past one slice of a sleep */
    (void)side_notify(&pair->server, pair->to_client, 42);
    return NULL;
}

static void *put_later(void *argument)
{
    struct pair *pair = argument;

    side_nap(150 * MS);
    (void)side_put(&pair->client, pair->to_server, &pair->window, 0, 8, 43);
    return NULL;
}

/* A sleeper is woken; it does not wait for its timeout. */
static void test_wake(void **state)
{
    struct pair pair;
    pthread_t thread;
    uint64_t start;

    pair_open(&pair, *state, NULL);
    start = side_clock_ns();
    assert_int_equal(pthread_create(&thread, NULL, notify_later, &pair), 0);
    (void)want_note(&pair.client, 42);
    assert_true(pace_within(side_clock_ns() - start, 100 * MS, 2000 * MS));
    assert_int_equal(pthread_join(thread, NULL), 0);
    start = side_clock_ns();
    assert_int_equal(pthread_create(&thread, NULL, put_later, &pair), 0);
    (void)want_note(&pair.server, 43);
    assert_true(pace_within(side_clock_ns() - start, 100 * MS, 2000 * MS));
    assert_int_equal(pthread_join(thread, NULL), 0);
    pair_close(&pair);
}

/* ---- many ---------------------------------------------------------------- */

#define MANY 130 /* more than two words of 64 bits */

static void test_many(void **state)
{
    static struct side clients[MANY];
    static tp_peer to_server[MANY];
    static tp_peer to_client[MANY];
    bool seen[MANY] = {false};
    struct tp_config config = {.peers_max = MANY};
    struct side server;
    uint32_t many;

    side_open(&server, *state, &config);
    many = side_is_slow(&server) ? 20 : MANY;
    must_listen(&server);
    for (uint32_t i = 0; i < many; i++) {
        side_open(&clients[i], *state, NULL);
        to_client[i] = side_join(&server, &clients[i], &to_server[i]);
    }
    for (uint32_t round = 0; round < 5; round++) {
        memset(seen, 0, sizeof seen);
        for (uint32_t i = 0; i < many; i++)
            must_notify(&clients[i], to_server[i], i);
        for (uint32_t i = 0; i < many; i++) {
            struct tp_event event = side_want(&server, TP_NOTE);

            assert_in_range(event.note, 0, many - 1);
            assert_false(seen[event.note]);
            assert_int_equal(event.peer, to_client[event.note]);
            seen[event.note] = true;
        }
    }
    for (uint32_t i = 0; i < many; i += 2)
        side_close(&clients[i]);
    for (uint32_t i = 0; i < many; i += 2)
        (void)side_want(&server, TP_DOWN);
    for (uint32_t i = 1; i < many; i += 2) {
        must_notify(&server, to_client[i], i);
        (void)want_note(&clients[i], i);
    }
    side_close(&server);
    for (uint32_t i = 1; i < many; i += 2) {
        (void)side_want(&clients[i], TP_DOWN);
        side_close(&clients[i]);
    }
}

/* Who floods does not keep others waiting. A simulation and a network card deliver in
 * the order of arrival: there it is what was sent before that comes before, no more. */
static void test_fair(void **state)
{
    struct tp_config config = {.peers_max = 2, .notes_max = 64};
    const struct transport *t = *state;
    bool simulated = t == &transport_sim || t == &transport_simnet;
    uint32_t most = simulated ? config.notes_max : t->mapped ? 48 : 150;
    struct side server;
    struct side clients[2];
    tp_peer to_server[2];
    tp_peer to_client[2];
    uint32_t before = 0;

    side_open(&server, *state, &config);
    must_listen(&server);
    for (int i = 0; i < 2; i++) {
        side_open(&clients[i], *state, NULL);
        to_client[i] = side_join(&server, &clients[i], &to_server[i]);
    }
    while (side_notify(&clients[0], to_server[0], 0) == GAPLESS_OK)
        ;
    must_notify(&clients[1], to_server[1], 1);
    while (side_want(&server, TP_NOTE).peer != to_client[1]) {
        before++;
        (void)side_notify(&clients[0], to_server[0], 0);
    }
    assert_in_range(before, 0, most);
    for (int i = 0; i < 2; i++)
        side_close(&clients[i]);
    side_close(&server);
}

/* One client of two servers, as workers of a master in two shards are. */
static void test_two_masters(void **state)
{
    struct tp_config config = {.peers_max = 2};
    struct side servers[2];
    struct side client;
    tp_peer to_server[2];
    tp_peer to_client[2];
    struct connecting it;

    side_open(&client, *state, &config);
    for (int i = 0; i < 2; i++) {
        side_open(&servers[i], *state, NULL);
        if (i == 1)
            side_address_next();
        must_listen(&servers[i]);
        connecting_start(&it, &client);
        to_client[i] = side_want(&servers[i], TP_UP).peer;
        to_server[i] = connecting_end(&it);
    }
    assert_int_not_equal(to_server[0], to_server[1]);
    for (uint32_t i = 0; i < 2; i++) {
        must_notify(&client, to_server[i], 10 + i);
        (void)want_note(&servers[i], 10 + i);
        must_notify(&servers[i], to_client[i], 20 + i);
        (void)want_note(&client, 20 + i);
    }
    side_close(&servers[0]);
    assert_int_equal(side_want(&client, TP_DOWN).peer, to_server[0]);
    must_say(&client, to_server[1], "you remain");
    want_text(&servers[1], "you remain");
    side_close(&client);
    side_close(&servers[1]);
}

/* ---- the table ----------------------------------------------------------- */

#define TEST(name)                                                                     \
    {                                                                                  \
#name, name                                                                    \
    }
static const struct side_test tests[] = {
    TEST(test_down_is_last),
    TEST(test_drop),
    TEST(test_reconnect),
    TEST(test_capacity),
    TEST(test_connect_in_vain),
    TEST(test_connect_first),
    TEST(test_two_servers),
    TEST(test_timeouts),
    TEST(test_wake),
    TEST(test_many),
    TEST(test_fair),
    TEST(test_two_masters),
};

int main(void)
{
    return side_run(tests, sizeof tests / sizeof tests[0]);
}
