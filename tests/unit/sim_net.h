/* A simulated server with some clients, for the tests of the simulated transport. The
 * functions fail the test unless they return a status. */
#ifndef GAPLESS_TESTS_SIM_NET_H
#define GAPLESS_TESTS_SIM_NET_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "transport/sim/sim.h"

#include <stdlib.h>
#include <string.h>

#define T (&transport_sim)
#define SOON_NS INT64_C(1000000)

static struct gapless_error error; /* of the last call that has one */

struct end {
    struct tp *tp;
    tp_peer peer; /* the server's number at the client */
    struct tp_region window;
};

struct net {
    struct tp *server;
    struct sim_world *world;
    struct tp_region region;
    struct end *clients;
    uint32_t count;
};

static inline void ok(int status)
{
    if (status != GAPLESS_OK)
        print_error("%d: %s\n", status, error.text);
    assert_int_equal(status, GAPLESS_OK);
}

static inline struct tp *opened(uint32_t peers_max, uint32_t notes_max)
{
    struct tp_config config = {.peers_max = peers_max, .notes_max = notes_max};
    struct tp *tp = NULL;

    ok(T->open(&config, &tp, &error));
    return tp;
}

static inline struct tp_event one_event(struct tp *tp, int64_t timeout_ns)
{
    struct tp_event event = {.kind = TP_DONE};

    assert_int_equal(T->poll(tp, &event, 1, timeout_ns), 1);
    return event;
}

static inline void want(struct tp *tp, enum tp_event_kind kind, uint32_t note)
{
    struct tp_event event = one_event(tp, 0);

    assert_int_equal(event.kind, kind);
    assert_int_equal(event.note, note);
}

static inline void want_nothing(struct tp *tp)
{
    struct tp_event event;

    assert_int_equal(T->poll(tp, &event, 1, 0), 0);
}

/* The earliest delivery is this one; the clock moves to it. */
static inline void arrives(const struct net *net, uint64_t at_ns, const struct tp *at)
{
    uint64_t ns = 0;
    struct tp *tp = NULL;

    assert_true(sim_next(net->world, &ns, &tp));
    assert_int_equal(ns, at_ns);
    assert_ptr_equal(tp, at);
    sim_advance(net->world, ns);
}

static inline void net_open(struct net *net, uint32_t count, uint32_t notes_max)
{
    *net = (struct net){.count = count, .server = opened(count, notes_max)};
    net->clients = calloc(count, sizeof *net->clients);
    assert_non_null(net->clients);
    assert_null(sim_world_of(net->server));
    ok(T->listen(net->server, "unit", &error));
    net->world = sim_world_of(net->server);
    assert_non_null(net->world);
    ok(T->region_new(net->server, 100000, &net->region, &error));
    for (uint32_t i = 0; i < count; i++) {
        struct end *it = &net->clients[i];
        struct tp_event event;

        it->tp = opened(0, 0);
        ok(T->connect(it->tp, "unit", 0, &it->peer, &error));
        assert_ptr_equal(sim_world_of(it->tp), net->world);
        event = one_event(net->server, 0);
        assert_int_equal(event.kind, TP_UP);
        assert_int_equal(event.peer, i);
        ok(T->grant(net->server, i, &net->region, 0, TP_READ_WRITE, &error));
        ok(T->window(it->tp, it->peer, 0, 0, &it->window, &error));
        assert_ptr_equal(it->window.base, net->region.base);
    }
    assert_int_equal(sim_now_ns(net->world), 0);
}

static inline void net_close(struct net *net)
{
    for (uint32_t i = 0; i < net->count; i++)
        T->close(net->clients[i].tp);
    T->close(net->server);
    free(net->clients);
}

static inline int put(struct net *net, uint32_t client, size_t bytes, uint32_t note)
{
    struct end *it = &net->clients[client];

    return T->put(it->tp, it->peer, &it->window, 0, bytes, note);
}

static inline int get(struct net *net, uint32_t client, size_t bytes)
{
    struct end *it = &net->clients[client];

    return T->get(it->tp, it->peer, &it->window, 0, bytes, 0);
}

static inline int tell(struct net *net, uint32_t client, uint32_t note)
{
    return T->notify(net->clients[client].tp, net->clients[client].peer, note);
}

static inline int text(struct net *net, uint32_t client, const char *words)
{
    return T->send_control(net->clients[client].tp, net->clients[client].peer, words,
                           (uint32_t)strlen(words), &error);
}

/* A pump that does nothing. */
static inline void nothing(void *user)
{
    (void)user;
}

#endif
