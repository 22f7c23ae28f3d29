/* The simulated transport beyond what every transport promises: its clock and order,
 * its queues, and that everything is given back. */
#include "tests/unit/sim_net.h"

#include <errno.h>
#include <sys/mman.h>

/* ---- the clock and the order --------------------------------------------- */

static void test_order_at_one_time(void **state)
{
    static const uint32_t order[] = {2, 0, 2, 1, 3, 0, 1, 2};
    struct net net;

    (void)state;
    net_open(&net, 4, 0);
    for (uint32_t i = 0; i < 8; i++) {
        if (i % 3 == 2)
            ok(text(&net, order[i], "x"));
        else
            ok(tell(&net, order[i], i));
    }
    for (uint32_t i = 0; i < 8; i++) {
        struct tp_event event = one_event(net.server, 0);

        assert_int_equal(event.peer, order[i]);
        assert_int_equal(event.kind, i % 3 == 2 ? TP_TEXT : TP_NOTE);
        if (event.kind == TP_NOTE)
            assert_int_equal(event.note, i);
    }
    want_nothing(net.server);
    assert_int_equal(sim_now_ns(net.world), 0);
    net_close(&net);
}

/* By time, whatever was sent first; but notes of one peer never overtake each other. */
static void test_order_by_time(void **state)
{
    struct net net;

    (void)state;
    net_open(&net, 2, 0);
    sim_link_set(net.world, &(struct sim_link){.latency_ns = 1000});
    ok(tell(&net, 0, 1));
    sim_link_set(net.world, &(struct sim_link){.latency_ns = 10});
    ok(tell(&net, 1, 2));
    ok(tell(&net, 0, 3));
    ok(T->notify(net.server, 1, 4));
    want_nothing(net.server);
    arrives(&net, 10, net.server);
    want(net.server, TP_NOTE, 2);
    want_nothing(net.server);
    arrives(&net, 10, net.clients[1].tp);
    sim_advance(net.world, 999);
    want_nothing(net.server);
    /* Due and not polled yet is still what comes next. */
    arrives(&net, 10, net.clients[1].tp);
    assert_int_equal(sim_now_ns(net.world), 999);
    want(net.clients[1].tp, TP_NOTE, 4);
    arrives(&net, 1000, net.server);
    want(net.server, TP_NOTE, 1);
    want(net.server, TP_NOTE, 3);
    net_close(&net);
}

/* What comes first for all changes with what comes first for one. */
static void test_next(void **state)
{
    static const uint64_t latency[] = {1000, 500, 700, 10, 600};
    struct net net;
    uint64_t ns;
    struct tp *tp;

    (void)state;
    net_open(&net, 2, 0);
    assert_false(sim_next(net.world, &ns, &tp));
    for (uint32_t i = 0; i < 5; i++) {
        sim_link_set(net.world, &(struct sim_link){.latency_ns = latency[i]});
        if (i % 2 == 0)
            ok(tell(&net, i == 4 ? 1 : 0, i)); /* at 1000, 1000 and 600 */
        else
            ok(T->notify(net.server, i == 3 ? 1 : 0, i));
    }
    arrives(&net, 10, net.clients[1].tp);
    want(net.clients[1].tp, TP_NOTE, 3);
    arrives(&net, 500, net.clients[0].tp);
    /* An earlier one for whom something waits already. */
    sim_link_set(net.world, &(struct sim_link){.latency_ns = 20});
    want(net.clients[0].tp, TP_NOTE, 1);
    ok(tell(&net, 1, 5)); /* behind the one before */
    ok(T->notify(net.server, 0, 6));
    ok(text(&net, 0, "now"));
    arrives(&net, 500, net.server);
    want(net.server, TP_TEXT, 0);
    arrives(&net, 520, net.clients[0].tp);
    T->drop(net.clients[0].tp, net.clients[0].peer);
    arrives(&net, 600, net.server);
    want(net.server, TP_NOTE, 4);
    want(net.server, TP_NOTE, 5);
    arrives(&net, 1000, net.server);
    want(net.server, TP_NOTE, 0);
    want(net.server, TP_NOTE, 2);
    want(net.server, TP_DOWN, 0);
    assert_false(sim_next(net.world, &ns, &tp));
    net_close(&net);
}

static void test_polls_move_the_clock(void **state)
{
    struct net net;
    struct tp *client;
    struct tp_event event;

    (void)state;
    net_open(&net, 1, 0);
    client = net.clients[0].tp;
    sim_link_set(net.world, &(struct sim_link){.latency_ns = 300});
    assert_int_equal(T->poll(client, &event, 1, 0), 0);
    assert_int_equal(sim_now_ns(net.world), 0);
    assert_int_equal(T->poll(client, &event, 1, 70), 0);
    assert_int_equal(T->now_ns(client), 70);
    assert_int_equal(T->now_ns(net.server), 70);
    ok(T->notify(net.server, 0, 5));
    assert_int_equal(T->poll(client, &event, 1, 299), 0);
    assert_int_equal(sim_now_ns(net.world), 369);
    assert_int_equal(T->poll(client, &event, 1, 1000), 1);
    assert_int_equal(sim_now_ns(net.world), 370);
    /* What is for others does not stop it; a poll never goes back. */
    ok(T->notify(net.server, 0, 6));
    assert_int_equal(T->poll(net.server, &event, 1, 1000), 0);
    assert_int_equal(sim_now_ns(net.world), 1370);
    want(client, TP_NOTE, 6);
    sim_advance(net.world, 5);
    assert_int_equal(sim_now_ns(net.world), 1370);
    assert_int_equal(T->poll(client, &event, 1, -1), 0);
    assert_int_equal(sim_now_ns(net.world), 1370 + 1000000000);
    net_close(&net);
}

/* Before it belongs to a world an endpoint has its own time, which counts later. */
static void test_alone(void **state)
{
    struct tp *server = opened(1, 0);
    struct tp *client = opened(1, 0);
    struct tp_event event;
    tp_peer peer;

    (void)state;
    assert_int_equal(T->now_ns(server), 0);
    assert_int_equal(T->poll(server, &event, 1, 40), 0);
    assert_int_equal(T->poll(client, &event, 1, 90), 0);
    assert_int_equal(T->now_ns(server), 40);
    ok(T->listen(server, "unit", &error));
    assert_int_equal(T->now_ns(server), 40);
    assert_int_equal(T->now_ns(client), 90);
    ok(T->connect(client, "unit", 0, &peer, &error));
    assert_int_equal(T->now_ns(server), 90);
    assert_int_equal(T->now_ns(client), 90);
    T->close(client);
    T->close(server);
}

/* ---- queues -------------------------------------------------------------- */

/* Unread is what is on the way, too; each direction on its own, each peer on its
 * own. */
static void test_again(void **state)
{
    struct net net;

    (void)state;
    net_open(&net, 2, 5);
    sim_link_set(net.world, &(struct sim_link){.latency_ns = 50});
    for (uint32_t i = 0; i < 5; i++)
        ok(i % 2 == 0 ? put(&net, 0, 8, i) : tell(&net, 0, i));
    assert_int_equal(put(&net, 0, 8, 9), GAPLESS_AGAIN);
    assert_int_equal(tell(&net, 0, 9), GAPLESS_AGAIN);
    ok(tell(&net, 1, 7));
    sim_advance(net.world, 50);
    assert_int_equal(tell(&net, 0, 9), GAPLESS_AGAIN);
    want(net.server, TP_NOTE, 0);
    ok(tell(&net, 0, 5));
    assert_int_equal(tell(&net, 0, 9), GAPLESS_AGAIN);
    for (uint32_t i = 0; i < 5; i++)
        ok(T->notify(net.server, 0, i));
    assert_int_equal(T->notify(net.server, 0, 9), GAPLESS_AGAIN);
    ok(T->notify(net.server, 1, 9));
    net_close(&net);
}

/* A refused put took nothing of the port. */
static void test_again_is_free(void **state)
{
    struct net net;

    (void)state;
    net_open(&net, 2, 1);
    sim_link_set(net.world, &(struct sim_link){.bytes_per_ns = 1, .pass_ns = 1000});
    ok(put(&net, 0, 10, 1));
    for (int i = 0; i < 100; i++)
        assert_int_equal(put(&net, 0, 50000, 2), GAPLESS_AGAIN);
    ok(put(&net, 1, 10, 3));
    arrives(&net, 10, net.server);
    want(net.server, TP_NOTE, 1);
    arrives(&net, 1010, net.server);
    want(net.server, TP_NOTE, 3);
    net_close(&net);
}

static void test_texts(void **state)
{
    struct net net;
    struct tp_event events[4];
    uint32_t said = 0;
    uint32_t heard = 0;
    int status;

    (void)state;
    net_open(&net, 2, 0);
    /* All texts of one poll stay until the next. */
    ok(text(&net, 0, "one"));
    ok(text(&net, 1, "two"));
    ok(text(&net, 0, ""));
    assert_int_equal(T->poll(net.server, events, 4, 0), 3);
    assert_memory_equal(events[0].data, "one", 3);
    assert_memory_equal(events[1].data, "two", 3);
    assert_int_equal(events[2].bytes, 0);
    /* A client that does not read is ended, and still reads what was said before. */
    do
        status = T->send_control(net.server, 0, &said, sizeof said, &error);
    while (status == GAPLESS_OK && said++ < 100000);
    assert_int_equal(status, GAPLESS_PEER_LOST);
    assert_non_null(strstr(error.text, "does not read"));
    assert_int_equal(T->send_control(net.server, 0, "x", 1, &error), GAPLESS_PEER_LOST);
    assert_int_equal(tell(&net, 0, 1), GAPLESS_PEER_LOST);
    for (; heard < said; heard++) {
        *events = one_event(net.clients[0].tp, 0);
        assert_int_equal(events[0].kind, TP_TEXT);
        assert_memory_equal(events[0].data, &heard, sizeof heard);
    }
    want(net.clients[0].tp, TP_DOWN, 0);
    want(net.server, TP_DOWN, 0);
    want_nothing(net.server);
    ok(tell(&net, 1, 5));
    want(net.server, TP_NOTE, 5);
    net_close(&net);
}

/* ---- the end of a peer --------------------------------------------------- */

static void test_loss_is_last(void **state)
{
    struct net net;
    struct tp_event event;

    (void)state;
    net_open(&net, 2, 0);
    sim_link_set(net.world, &(struct sim_link){.latency_ns = 1000});
    ok(put(&net, 0, 8, 1));
    ok(text(&net, 0, "bye"));
    T->close(net.clients[0].tp);
    net.clients[0].tp = NULL;
    assert_int_equal(T->notify(net.server, 0, 1), GAPLESS_PEER_LOST);
    want(net.server, TP_TEXT, 0);
    want_nothing(net.server);
    arrives(&net, 1000, net.server);
    want(net.server, TP_NOTE, 1);
    want(net.server, TP_DOWN, 0);
    /* Without anything on the way it is at once. */
    ok(T->notify(net.server, 1, 2));
    T->drop(net.clients[1].tp, net.clients[1].peer);
    event = one_event(net.server, 0);
    assert_int_equal(event.kind, TP_DOWN);
    assert_int_equal(event.peer, 1);
    want_nothing(net.clients[1].tp);
    assert_int_equal(tell(&net, 1, 1), GAPLESS_PEER_LOST);
    sim_advance(net.world, 5000);
    want_nothing(net.clients[1].tp);
    net_close(&net);
}

static void test_drop(void **state)
{
    struct net net;
    uint64_t ns;
    struct tp *tp;

    (void)state;
    net_open(&net, 3, 0);
    sim_link_set(net.world, &(struct sim_link){.latency_ns = 100});
    for (uint32_t i = 0; i < 9; i++)
        ok(i % 2 == 0 ? put(&net, i % 3, 8, i) : text(&net, i % 3, "words"));
    ok(T->notify(net.server, 1, 77));
    T->drop(net.server, 1);
    assert_int_equal(put(&net, 1, 8, 9), GAPLESS_PEER_LOST);
    assert_int_equal(get(&net, 1, 8), GAPLESS_PEER_LOST);
    sim_advance(net.world, 100);
    for (uint32_t i = 0; i < 6; i++)
        assert_int_not_equal(one_event(net.server, 0).peer, 1);
    want_nothing(net.server);
    want(net.clients[1].tp, TP_NOTE, 77);
    want(net.clients[1].tp, TP_DOWN, 0);
    assert_false(sim_next(net.world, &ns, &tp));
    /* Its peer slot is free, and notes of before do not come back. */
    ok(T->connect(net.clients[1].tp, "unit", 0, &net.clients[1].peer, &error));
    assert_int_equal(one_event(net.server, 0).peer, 1);
    want_nothing(net.server);
    assert_int_equal(put(&net, 1, 8, 9), GAPLESS_INVALID);
    net_close(&net);
}

/* ---- memory and names ---------------------------------------------------- */

static bool is_mapped(void *base)
{
    unsigned char present;

    return mincore(base, 1, &present) == 0 || errno != ENOMEM;
}

static void test_memory(void **state)
{
    struct net net;
    char *base;

    (void)state;
    net_open(&net, 2, 0);
    base = net.region.base;
    base[5] = 5;
    T->region_free(net.server, &net.region);
    assert_int_equal(((char *)net.clients[0].window.base)[5], 5);
    T->region_free(net.clients[1].tp, &net.clients[1].window);
    T->close(net.server);
    net.server = NULL;
    want(net.clients[0].tp, TP_DOWN, 0);
    want_nothing(net.clients[0].tp);
    assert_int_equal(base[5], 5);
    /* The second client's grant may open it again until the connection is over. */
    want(net.clients[1].tp, TP_DOWN, 0);
    want_nothing(net.clients[1].tp);
    assert_true(is_mapped(base));
    T->region_free(net.clients[0].tp, &net.clients[0].window);
    assert_false(is_mapped(base));
    net_close(&net);
}

static void test_names(void **state)
{
    char name[200];
    struct tp *second;
    struct net net;
    tp_peer peer;

    (void)state;
    net_open(&net, 1, 0);
    sim_advance(net.world, 500);
    second = opened(1, 0);
    assert_int_equal(T->listen(second, "unit", &error), GAPLESS_SYSTEM);
    assert_null(sim_world_of(second));
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    assert_int_equal(T->listen(second, name, &error), GAPLESS_INVALID);
    assert_int_equal(T->connect(second, "unit", 0, &peer, &error), GAPLESS_CAPACITY);
    T->close(second);
    /* The next server of a world that still has a client goes on in it, with a port of
     * its own. */
    sim_link_set(net.world, &(struct sim_link){.bytes_per_ns = 1, .pass_ns = 9000});
    ok(put(&net, 0, 90000, 1));
    sim_advance(net.world, 90000);
    ok(put(&net, 0, 90000, 1));
    T->close(net.server);
    net.server = opened(1, 0);
    ok(T->listen(net.server, "unit", &error));
    assert_ptr_equal(sim_world_of(net.server), net.world);
    assert_int_equal(sim_now_ns(net.world), 90000);
    want(net.clients[0].tp, TP_DOWN, 0);
    ok(T->connect(net.clients[0].tp, "unit", 0, &net.clients[0].peer, &error));
    want(net.server, TP_UP, 0);
    ok(T->region_new(net.server, 1000, &net.region, &error));
    ok(T->grant(net.server, 0, &net.region, 0, TP_READ_WRITE, &error));
    ok(T->window(net.clients[0].tp, net.clients[0].peer, 0, 0, &net.clients[0].window,
                 &error));
    ok(put(&net, 0, 1000, 2));
    arrives(&net, 91000, net.server);
    net_close(&net);
    /* When the last has gone, so has the world. */
    net_open(&net, 1, 0);
    assert_int_equal(sim_now_ns(net.world), 0);
    net_close(&net);
}

/* The peer slot of one who has gone is free after the server's next poll. Where one thread
 * drives everything connect says so at once: waiting would be in vain. */
static void test_peer_slot_is_leaving(void **state)
{
    struct net net;
    struct tp *next = opened(1, 0);
    tp_peer peer;

    (void)state;
    net_open(&net, 1, 0);
    sim_pump_set(net.world, nothing, NULL);
    T->close(net.clients[0].tp);
    net.clients[0].tp = next;
    assert_int_equal(T->connect(next, "unit", 10 * SOON_NS, &peer, &error),
                     GAPLESS_CAPACITY);
    want(net.server, TP_DOWN, 0);
    want_nothing(net.server);
    ok(T->connect(next, "unit", 0, &peer, &error));
    net_close(&net);
}

/* A client of two servers brings their worlds together: one clock, each its own
 * link. */
static void test_two_servers(void **state)
{
    struct tp *servers[2] = {opened(2, 0), opened(2, 0)};
    struct tp *both = opened(2, 0);
    struct tp *other = opened(1, 0);
    struct sim_world *worlds[2];
    struct tp *tp = NULL;
    uint64_t ns = 0;
    tp_peer to[2];
    tp_peer to_second;

    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        ok(T->listen(servers[i], i == 0 ? "a" : "b", &error));
        worlds[i] = sim_world_of(servers[i]);
        sim_link_set(worlds[i], &(struct sim_link){.latency_ns = 100 + 100 * i});
    }
    ok(T->connect(other, "b", 0, &to_second, &error));
    sim_advance(worlds[0], 1000);
    sim_advance(worlds[1], 50);
    ok(T->notify(other, to_second, 1));
    for (int i = 0; i < 2; i++)
        ok(T->connect(both, i == 0 ? "a" : "b", 0, &to[i], &error));
    assert_int_equal(sim_now_ns(worlds[1]), 1000);
    for (uint32_t i = 0; i < 2; i++)
        ok(T->notify(both, to[i], 2 + i));
    want(servers[1], TP_UP, 0);
    want(servers[1], TP_NOTE, 1);
    want(servers[1], TP_UP, 0);
    want(servers[0], TP_UP, 0);
    assert_true(sim_next(worlds[1], &ns, &tp));
    assert_int_equal(ns, 1100);
    assert_ptr_equal(tp, servers[0]);
    sim_advance(worlds[1], ns);
    want(servers[0], TP_NOTE, 2);
    assert_true(sim_next(worlds[0], &ns, &tp));
    assert_int_equal(ns, 1200);
    assert_ptr_equal(tp, servers[1]);
    T->close(servers[0]);
    want(both, TP_DOWN, 0);
    sim_advance(worlds[1], ns);
    want(servers[1], TP_NOTE, 3);
    /* Both names are as before. */
    servers[0] = opened(1, 0);
    ok(T->listen(servers[0], "a", &error));
    T->close(both);
    T->close(servers[0]);
    T->close(other);
    T->close(servers[1]);
}

/* A client connects to `first` of two servers, then to the other; world 0 is behind. */
static void unite(uint32_t first)
{
    struct tp *servers[2] = {opened(9, 0), opened(9, 0)};
    struct tp *clients[8];
    struct tp *both = opened(2, 0);
    uint64_t ns = 0;
    struct tp *tp;
    tp_peer to;

    for (uint32_t i = 0; i < 2; i++) {
        ok(T->listen(servers[i], i == 0 ? "a" : "b", &error));
        sim_advance(sim_world_of(servers[i]), 300 + 400 * i);
    }
    for (uint32_t i = 0; i < 8; i++) {
        clients[i] = opened(1, 0);
        ok(T->connect(clients[i], i % 2 == 0 ? "a" : "b", 0, &to, &error));
        want(servers[i % 2], TP_UP, 0);
        sim_link_set(sim_world_of(clients[i]), &(struct sim_link){.latency_ns = 8 - i});
        ok(T->notify(servers[i % 2], i / 2, i));
        /* World 1 has counted further. */
        for (uint32_t more = 0; i % 2 == 1 && more < 9; more++) {
            ok(T->send_control(clients[i], to, "", 0, &error));
            want(servers[1], TP_TEXT, 0);
        }
    }
    for (uint32_t i = 0; i < 2; i++) {
        ok(T->connect(both, (first + i) % 2 == 0 ? "a" : "b", 0, &to, &error));
        assert_int_equal(T->now_ns(both), first + i == 0 ? 300 : 700);
    }
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(T->now_ns(servers[i]), 700);
        want(servers[i], TP_UP, 0);
    }
    ok(T->notify(servers[1], 3, 100)); /* as early as what waits there: behind it */
    for (uint32_t i = 0; i < 8; i++) {
        /* Those of 0 were due long ago: at 302, 304, .. and 701, 703, .. */
        uint32_t from = i < 4 ? 6 - 2 * i : 7 - 2 * (i - 4);

        assert_true(sim_next(sim_world_of(servers[i % 2]), &ns, &tp));
        assert_int_equal(ns, i < 4 ? 302 + 2 * i : 701 + 2 * (i - 4));
        assert_ptr_equal(tp, clients[from]);
        sim_advance(sim_world_of(clients[i]), ns);
        want(tp, TP_NOTE, from);
        if (from == 7)
            want(tp, TP_NOTE, 100);
    }
    T->close(both);
    for (uint32_t i = 0; i < 2; i++)
        T->close(servers[i]);
    for (uint32_t i = 0; i < 8; i++)
        T->close(clients[i]);
}

static void test_worlds_unite(void **state)
{
    (void)state;
    unite(0);
    unite(1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_at_one_time),
        cmocka_unit_test(test_order_by_time),
        cmocka_unit_test(test_next),
        cmocka_unit_test(test_polls_move_the_clock),
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_again),
        cmocka_unit_test(test_again_is_free),
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_loss_is_last),
        cmocka_unit_test(test_drop),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_peer_slot_is_leaving),
        cmocka_unit_test(test_two_servers),
        cmocka_unit_test(test_worlds_unite),
    };

    return cmocka_run_group_tests_name("simulated transport", tests, NULL, NULL);
}
