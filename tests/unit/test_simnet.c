/* The simulated transport that does not map memory: when bytes are there, when they are
 * done, and what a source that is changed too soon gives. What all transports promise
 * is in tests/conformance. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "transport/sim/sim.h"

#include <string.h>

#define T (&transport_simnet)
#define BYTES 10000u

static struct gapless_error error;

struct net {
    struct tp *server, *client;
    struct sim_world *world;
    tp_peer to_server;
    struct tp_region region, window;
};

static void ok(int status)
{
    if (status != GAPLESS_OK)
        print_error("%d: %s\n", status, error.text);
    assert_int_equal(status, GAPLESS_OK);
}

static struct tp_event next(struct tp *tp)
{
    struct tp_event event = {.kind = TP_DOWN};

    assert_int_equal(T->poll(tp, &event, 1, 0), 1);
    return event;
}

static void nothing(struct tp *tp)
{
    struct tp_event event;

    assert_int_equal(T->poll(tp, &event, 1, 0), 0);
}

static void net_open(struct net *n, const struct sim_link *link)
{
    *n = (struct net){0};
    ok(T->open(NULL, &n->server, &error));
    ok(T->open(NULL, &n->client, &error));
    ok(T->listen(n->server, "unit", &error));
    ok(T->connect(n->client, "unit", 0, &n->to_server, &error));
    n->world = sim_world_of(n->server);
    assert_int_equal(next(n->server).kind, TP_UP);
    ok(T->region_new(n->server, BYTES, &n->region, &error));
    ok(T->grant(n->server, 0, &n->region, 0, TP_READ_WRITE, &error));
    ok(T->window(n->client, n->to_server, 0, 0, &n->window, &error));
    assert_ptr_not_equal(n->region.base, n->window.base);
    sim_link_set(n->world, link);
}

static void net_close(struct net *n)
{
    T->close(n->client);
    T->close(n->server);
}

static int put(struct net *n, size_t bytes, uint32_t note)
{
    return T->put(n->client, n->to_server, &n->window, 0, bytes, note);
}

static int get(struct net *n, size_t bytes, uint32_t tag)
{
    return T->get(n->client, n->to_server, &n->window, 0, bytes, tag);
}

/* The earliest delivery is this one, and it is taken. */
static void arrives(struct net *n, uint64_t at_ns, struct tp *at,
                    enum tp_event_kind kind, uint32_t note)
{
    uint64_t ns = 0;
    struct tp *tp = NULL;
    struct tp_event event;

    assert_true(sim_next(n->world, &ns, &tp));
    assert_int_equal(ns, at_ns);
    assert_ptr_equal(tp, at);
    sim_advance(n->world, ns);
    event = next(tp);
    assert_int_equal(event.kind, kind);
    assert_int_equal(event.note, note);
}

static void test_times(void **state)
{
    const struct sim_link link = {
        .latency_ns = 10, .bytes_per_ns = 2, .pass_ns = 5, .pass_bytes_per_ns = 4};
    struct net n;

    (void)state;
    net_open(&n, &link);
    /* 500 ns on the wire each, 10 there, 255 of work, 10 back. */
    assert_int_equal(put(&n, 1000, 1), 1);
    assert_int_equal(put(&n, 1000, 2), 1);
    arrives(&n, 510, n.server, TP_NOTE, 1);
    /* An answer leaves when the pass is over. */
    ok(T->notify(n.server, 0, 3));
    arrives(&n, 520, n.client, TP_DONE, 1);
    arrives(&n, 510 + 255 + 10, n.client, TP_NOTE, 3);
    arrives(&n, 1010, n.server, TP_NOTE, 2);
    arrives(&n, 1020, n.client, TP_DONE, 2);
    /* Reads: the question, their bytes one after another, the answer. */
    assert_int_equal(get(&n, 1000, 7), 1);
    assert_int_equal(get(&n, 200, 8), 1);
    arrives(&n, 1020 + 10 + 500 + 10, n.client, TP_DONE, 7);
    arrives(&n, 1020 + 10 + 600 + 10, n.client, TP_DONE, 8);
    /* A put behind a busy server is done before it is taken. */
    assert_int_equal(put(&n, 400, 4), 1);
    assert_int_equal(put(&n, 400, 5), 1);
    sim_link_set(n.world, &(struct sim_link){0});
    arrives(&n, 1640 + 200 + 10, n.server, TP_NOTE, 4);
    arrives(&n, 1640 + 200 + 20, n.client, TP_DONE, 4);
    arrives(&n, 1640 + 400 + 10, n.server, TP_NOTE, 5);
    arrives(&n, 1640 + 400 + 20, n.client, TP_DONE, 5);
    nothing(n.client);
    net_close(&n);
}

/* A source that is written again before its TP_DONE is seen as it is then; small ones
 * go with the request. */
static void test_source(void **state)
{
    const struct sim_link link = {.latency_ns = 10};
    struct net n;
    char *from, *to;

    (void)state;
    net_open(&n, &link);
    from = n.window.base, to = n.region.base;
    memset(from, 1, BYTES);
    assert_int_equal(put(&n, 65, 1), 1);
    assert_int_equal(T->put(n.client, n.to_server, &n.window, 100, 64, 2), GAPLESS_OK);
    memset(from, 2, BYTES);
    assert_int_equal(to[0] + to[100], 0); /* nothing is there before its note */
    arrives(&n, 10, n.server, TP_NOTE, 1);
    assert_int_equal(to[0], 2);
    assert_int_equal(to[64], 2);
    assert_int_equal(to[65], 0);
    arrives(&n, 10, n.server, TP_NOTE, 2);
    assert_int_equal(to[100], 1);
    assert_int_equal(to[163], 1);
    assert_int_equal(to[164], 0);
    memset(from, 3, BYTES);
    arrives(&n, 20, n.client, TP_DONE, 1);
    assert_int_equal(to[0], 2); /* carried once */
    /* A read gives what is there when it arrives. */
    memset(to, 4, BYTES);
    assert_int_equal(get(&n, 10, 9), 1);
    memset(to, 5, BYTES);
    assert_int_equal(from[0], 3);
    arrives(&n, 40, n.client, TP_DONE, 9);
    assert_int_equal(from[9], 5);
    assert_int_equal(from[10], 3);
    net_close(&n);
}

/* Whoever is dropped reaches nothing any more; whoever goes by itself has sent what it
 * sent. */
static void test_ends(void **state)
{
    const struct sim_link link = {.latency_ns = 10};
    struct tp_event event;
    struct net n;
    char *to;

    (void)state;
    net_open(&n, &link);
    to = n.region.base;
    memset(n.window.base, 1, BYTES);
    assert_int_equal(put(&n, 1000, 1), 1);
    T->drop(n.server, 0);
    while (T->poll(n.client, &event, 1, 1000) == 1)
        ;
    assert_int_equal(to[0], 0);
    nothing(n.server);
    net_close(&n);

    net_open(&n, &link);
    to = n.region.base;
    memset(n.window.base, 1, BYTES);
    assert_int_equal(put(&n, 1000, 1), 1);
    T->close(n.client);
    assert_int_equal(to[0], 0);
    arrives(&n, 10, n.server, TP_NOTE, 1);
    assert_int_equal(to[999], 1);
    sim_advance(n.world, 100);
    assert_int_equal(next(n.server).kind, TP_DOWN);
    T->close(n.server);
}

/* A client of sim finds no server of simnet on the same name, nor the other way. */
static void test_names(void **state)
{
    struct net n;
    struct tp *tp;
    tp_peer peer;

    (void)state;
    net_open(&n, &(struct sim_link){0});
    ok(transport_sim.open(NULL, &tp, &error));
    assert_int_equal(transport_sim.connect(tp, "unit", 0, &peer, &error),
                     GAPLESS_TIMEOUT);
    assert_non_null(strstr(error.text, "sim:unit"));
    transport_sim.close(tp);
    ok(transport_sim.open(NULL, &tp, &error));
    ok(transport_sim.listen(tp, "unit", &error));
    transport_sim.close(tp);
    net_close(&n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_source),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
