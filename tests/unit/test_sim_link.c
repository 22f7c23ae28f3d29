/* The simulated transport: what the link costs, the pump, and many peers. */
#include "tests/unit/sim_net.h"

#include <math.h>

/* ---- the link ------------------------------------------------------------ */

static void test_latency(void **state)
{
    struct net net;

    (void)state;
    net_open(&net, 1, 0);
    sim_link_set(net.world, &(struct sim_link){.latency_ns = 1000});
    sim_advance(net.world, 7);
    ok(put(&net, 0, 64, 1));
    ok(put(&net, 0, 0, 2));
    ok(text(&net, 0, "takes no time"));
    want(net.server, TP_TEXT, 0);
    want_nothing(net.server);
    arrives(&net, 1007, net.server);
    want(net.server, TP_NOTE, 1);
    want(net.server, TP_NOTE, 2);
    ok(T->notify(net.server, 0, 3));
    arrives(&net, 2007, net.clients[0].tp);
    want(net.clients[0].tp, TP_NOTE, 3);
    net_close(&net);
}

static void test_port(void **state)
{
    struct net net;

    (void)state;
    net_open(&net, 2, 0);
    sim_link_set(net.world, &(struct sim_link){.latency_ns = 100, .bytes_per_ns = 2});
    /* One after another through the port, whoever sent them. */
    ok(put(&net, 0, 1000, 1));
    ok(put(&net, 1, 400, 2));
    ok(put(&net, 1, 0, 3)); /* needs no port, but does not overtake */
    ok(put(&net, 0, 0, 4));
    arrives(&net, 600, net.server);
    want(net.server, TP_NOTE, 1);
    want(net.server, TP_NOTE, 4);
    arrives(&net, 800, net.server);
    want(net.server, TP_NOTE, 2);
    want(net.server, TP_NOTE, 3);
    /* A port that was free for long begins anew. */
    sim_advance(net.world, 5000);
    ok(put(&net, 1, 10, 5));
    arrives(&net, 5105, net.server);
    want(net.server, TP_NOTE, 5);
    /* Parts of a ns add up: three of a third are one. */
    sim_link_set(net.world, &(struct sim_link){.bytes_per_ns = 3});
    sim_advance(net.world, 10000);
    for (uint32_t i = 0; i < 30; i++)
        ok(put(&net, 0, 1, i));
    sim_advance(net.world, 10009);
    for (uint32_t i = 0; i < 28; i++)
        want(net.server, TP_NOTE, i);
    arrives(&net, 10010, net.server);
    net_close(&net);
}

static void test_busy_server(void **state)
{
    struct net net;

    (void)state;
    net_open(&net, 3, 0);
    sim_link_set(net.world, &(struct sim_link){.latency_ns = 10, .pass_ns = 50});
    ok(put(&net, 0, 8, 1));
    ok(put(&net, 1, 8, 2));
    ok(put(&net, 2, 0, 3)); /* nothing to pass over */
    ok(put(&net, 2, 8, 4));
    arrives(&net, 10, net.server);
    want(net.server, TP_NOTE, 1);
    want(net.server, TP_NOTE, 3);
    ok(T->notify(net.server, 0, 9)); /* 10, after the pass 60, there 70 */
    arrives(&net, 60, net.server);
    want(net.server, TP_NOTE, 2);
    arrives(&net, 70, net.clients[0].tp);
    want(net.clients[0].tp, TP_NOTE, 9);
    arrives(&net, 110, net.server);
    want(net.server, TP_NOTE, 4);
    /* Busy until 160. */
    ok(put(&net, 0, 8, 5));
    arrives(&net, 160, net.server);
    want(net.server, TP_NOTE, 5);
    net_close(&net);
}

static void test_get(void **state)
{
    struct net net;

    (void)state;
    net_open(&net, 2, 0);
    assert_int_equal(sim_gets_done_ns(net.clients[0].tp), 0);
    assert_int_equal(get(&net, 0, 8), GAPLESS_OK);
    assert_int_equal(sim_gets_done_ns(net.clients[0].tp), 0);
    sim_link_set(net.world, &(struct sim_link){.latency_ns = 100, .bytes_per_ns = 4});
    sim_advance(net.world, 1000);
    ok(get(&net, 0, 400)); /* asked at 1100, out from 1100 to 1200 */
    assert_int_equal(sim_gets_done_ns(net.clients[0].tp), 1300);
    ok(get(&net, 1, 80)); /* behind it */
    assert_int_equal(sim_gets_done_ns(net.clients[1].tp), 1320);
    assert_int_equal(sim_gets_done_ns(net.clients[0].tp), 1300);
    ok(get(&net, 0, 0));
    assert_int_equal(sim_gets_done_ns(net.clients[0].tp), 1320);
    /* The other direction is not held up. */
    ok(put(&net, 1, 40, 1));
    arrives(&net, 1110, net.server);
    sim_advance(net.world, 9000);
    assert_int_equal(sim_gets_done_ns(net.clients[0].tp), 1320);
    ok(get(&net, 0, 4));
    assert_int_equal(sim_gets_done_ns(net.clients[0].tp), 9201);
    /* All of it: what is there sooner does not count. */
    sim_link_set(net.world, &(struct sim_link){.latency_ns = 1});
    ok(get(&net, 0, 4));
    assert_int_equal(sim_gets_done_ns(net.clients[0].tp), 9201);
    want_nothing(net.clients[0].tp);
    net_close(&net);
}

/* Numbers that nobody would give give no undefined ones. */
static void test_absurd_links(void **state)
{
    static const double rates[] = {-1, 0, NAN, 1e-300, 5e-324, INFINITY, 1e300};
    struct net net;
    uint32_t sent = 0;
    uint64_t ns = 0;
    struct tp *tp;

    (void)state;
    net_open(&net, 1, 0);
    for (size_t i = 0; i < sizeof rates / sizeof rates[0]; i++) {
        sim_link_set(net.world,
                     &(struct sim_link){.latency_ns = i % 2 == 0 ? 5 : UINT64_MAX - 3,
                                        .bytes_per_ns = rates[i],
                                        .pass_ns = i % 3 == 0 ? UINT64_MAX : 1,
                                        .pass_bytes_per_ns = rates[i]});
        ok(put(&net, 0, 1000, sent++));
        ok(get(&net, 0, 1000));
        ok(tell(&net, 0, sent++));
    }
    for (uint32_t heard = 0; heard < sent; heard++) {
        uint64_t before = ns;

        assert_true(sim_next(net.world, &ns, &tp));
        assert_true(ns >= before);
        sim_advance(net.world, ns);
        want(net.server, TP_NOTE, heard);
    }
    assert_false(sim_next(net.world, &ns, &tp));
    net_close(&net);
}

/* ---- the pump ------------------------------------------------------------ */

struct pumped {
    struct net net;
    int calls;
    struct tp *poll_too; /* from within the pump */
};

/* A server that answers each note with the next number. */
static void pump(void *user)
{
    struct pumped *it = user;
    struct tp_event event;

    it->calls++;
    while (T->poll(it->net.server, &event, 1, 0) == 1) {
        if (event.kind == TP_NOTE)
            ok(T->notify(it->net.server, event.peer, event.note + 1));
        if (event.kind == TP_TEXT)
            ok(T->grant(it->net.server, event.peer, &it->net.region, 1, TP_READ_WRITE,
                        &error));
    }
    if (it->poll_too != NULL)
        assert_int_equal(T->poll(it->poll_too, &event, 1, 0), 0);
}

static void test_pump(void **state)
{
    struct pumped it = {.calls = 0};
    struct tp_region window;
    struct tp *client;
    struct tp_event event;

    (void)state;
    net_open(&it.net, 2, 0);
    client = it.net.clients[0].tp;
    sim_pump_set(it.net.world, pump, &it);
    /* Without latency: within one look. */
    ok(tell(&it.net, 0, 10));
    want(client, TP_NOTE, 11);
    assert_int_equal(it.calls, 1);
    /* What is there needs no pump. */
    ok(T->notify(it.net.server, 0, 1));
    want(client, TP_NOTE, 1);
    assert_int_equal(it.calls, 1);
    /* A window is asked for and granted. */
    ok(text(&it.net, 0, "please"));
    ok(T->window(client, it.net.clients[0].peer, 1, SOON_NS, &window, &error));
    assert_ptr_equal(window.base, it.net.region.base);
    assert_int_equal(it.calls, 2);
    assert_int_equal(
        T->window(client, it.net.clients[0].peer, 2, INT64_MAX, &window, &error),
        GAPLESS_TIMEOUT);
    assert_int_equal(sim_now_ns(it.net.world), 0);
    /* With latency: there and back, at the right time, within one poll. */
    sim_link_set(it.net.world, &(struct sim_link){.latency_ns = 100, .pass_ns = 7});
    ok(tell(&it.net, 0, 20));
    assert_int_equal(T->poll(client, &event, 1, SOON_NS), 1);
    assert_int_equal(event.note, 21);
    assert_int_equal(sim_now_ns(it.net.world), 207);
    /* The server's own poll does not call it, nor does it call itself. */
    it.calls = 0;
    assert_int_equal(T->poll(it.net.server, &event, 1, 50), 0);
    assert_int_equal(it.calls, 0);
    it.poll_too = it.net.clients[1].tp;
    assert_int_equal(T->poll(client, &event, 1, 0), 0);
    assert_int_equal(it.calls, 1);
    sim_pump_set(it.net.world, NULL, NULL);
    assert_int_equal(T->poll(client, &event, 1, SOON_NS), 0);
    assert_int_equal(it.calls, 1);
    net_close(&it.net);
}

/* A pump that does one thing at a time is called until its work is done. */
static void pump_a_little(void *user)
{
    struct pumped *it = user;
    struct tp_event event;

    it->calls++;
    if (T->poll(it->net.server, &event, 1, 0) == 1 && event.peer == 0)
        ok(T->notify(it->net.server, 0, event.note + 1));
}

static void test_pump_goes_on(void **state)
{
    struct pumped it = {.calls = 0};

    (void)state;
    net_open(&it.net, 2, 0);
    sim_pump_set(it.net.world, pump_a_little, &it);
    for (uint32_t i = 0; i < 20; i++)
        ok(tell(&it.net, 1, i));
    ok(tell(&it.net, 0, 30));
    want(it.net.clients[0].tp, TP_NOTE, 31);
    assert_int_equal(it.calls, 21);
    assert_int_equal(sim_now_ns(it.net.world), 0);
    /* One that does nothing ends a wait all the same. */
    sim_pump_set(it.net.world, nothing, NULL);
    ok(tell(&it.net, 0, 30));
    assert_int_equal(T->poll(it.net.clients[0].tp, &(struct tp_event){0}, 1, SOON_NS),
                     0);
    assert_int_equal(sim_now_ns(it.net.world), SOON_NS);
    net_close(&it.net);
}

/* ---- many ---------------------------------------------------------------- */

#define MANY 4096u

static void test_thousands(void **state)
{
    struct net net;
    struct tp_event events[64];
    uint64_t last = 0;
    uint64_t ns;
    struct tp *tp;
    uint32_t done = 0;

    (void)state;
    net_open(&net, MANY, 0);
    for (uint32_t i = 0; i < MANY; i++)
        sim_user_set(net.clients[i].tp, &net.clients[i]);
    assert_ptr_equal(sim_user(net.clients[MANY - 1].tp), &net.clients[MANY - 1]);
    assert_null(sim_user(net.server));
    for (uint32_t i = 0; i < MANY; i++) {
        sim_link_set(net.world, &(struct sim_link){.latency_ns = i * 7919 % MANY});
        ok(put(&net, i, 8, i));
    }
    /* The server answers at once; who has its answer asks once more. */
    sim_link_set(net.world, &(struct sim_link){.latency_ns = 1000, .bytes_per_ns = 1});
    while (sim_next(net.world, &ns, &tp)) {
        int count;

        assert_true(ns >= last);
        last = ns;
        sim_advance(net.world, ns);
        count = T->poll(tp, events, 64, 0);
        assert_true(count > 0);
        for (int i = 0; i < count; i++) {
            assert_int_equal(events[i].kind, TP_NOTE);
            if (tp == net.server) {
                assert_int_equal(events[i].peer, events[i].note % MANY);
                ok(T->notify(tp, events[i].peer, events[i].note));
            } else {
                assert_ptr_equal(tp, net.clients[events[i].note % MANY].tp);
                done++;
                if (events[i].note < 4 * MANY)
                    ok(put(&net, events[i].note % MANY, 8, events[i].note + MANY));
            }
        }
    }
    assert_int_equal(done, 5 * MANY);
    net_close(&net);
}

/* Random sending, polling and parting: times never fall, every peer's notes come in
 * order and all of them before its end, and the same seed gives the same run. A life is
 * one connection of a client; the server hears its number first of all. */
#define CROWD 12u
#define STEPS 20000

struct crowd {
    struct net net;
    uint64_t random;
    uint64_t hash;
    uint32_t life[CROWD];      /* of the client */
    uint32_t peer_slot[CROWD]; /* the life in a peer slot of the server */
    bool gone[CROWD];
    uint32_t lives;
    uint32_t sent[STEPS];
    uint32_t heard[STEPS];
    uint32_t ended;
};

/* Steele et al., 2014: SplitMix64. */
static uint32_t dice(struct crowd *it, uint32_t below)
{
    uint64_t mixed = it->random += UINT64_C(0x9e3779b97f4a7c15);

    mixed = (mixed ^ mixed >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    mixed = (mixed ^ mixed >> 27) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)((mixed ^ mixed >> 31) % below);
}

static void crowd_live(struct crowd *it, uint32_t who)
{
    struct end *end = &it->net.clients[who];

    it->life[who] = it->lives++;
    it->gone[who] = false;
    ok(T->send_control(end->tp, end->peer, &it->life[who], sizeof it->life[who],
                       &error));
}

static void crowd_act(struct crowd *it)
{
    uint32_t who = dice(it, CROWD);
    struct end *end = &it->net.clients[who];
    uint32_t *sent = &it->sent[it->life[who]];
    int status;

    if (it->gone[who]) {
        /* Where a peer slot is free already. */
        if (T->connect(end->tp, "unit", 0, &end->peer, &error) == GAPLESS_OK)
            crowd_live(it, who);
        return;
    }
    switch (dice(it, 8)) {
    case 0:
    case 1:
        status = put(&it->net, who, 1 + dice(it, 500), *sent);
        /* A window of an earlier life is refused. */
        if (it->life[who] >= CROWD)
            assert_int_equal(status, GAPLESS_INVALID);
        else
            assert_true(status == GAPLESS_OK || status == GAPLESS_AGAIN);
        *sent += status == GAPLESS_OK ? 1 : 0;
        break;
    case 2:
        status = tell(&it->net, who, *sent);
        assert_true(status == GAPLESS_OK || status == GAPLESS_AGAIN);
        *sent += status == GAPLESS_OK ? 1 : 0;
        break;
    case 3:
        (void)T->notify(it->net.server, who, 0);
        break;
    case 4:
        it->gone[who] = dice(it, 20) == 0;
        if (it->gone[who])
            T->drop(end->tp, end->peer);
        break;
    default:
        (void)T->poll(end->tp, &(struct tp_event){0}, 1, dice(it, 200));
    }
}

static void crowd_serve(struct crowd *it)
{
    struct tp_event events[16];
    int count = T->poll(it->net.server, events, 1 + (int)dice(it, 16), 3 * dice(it, 2));

    for (int i = 0; i < count; i++) {
        uint32_t *life = &it->peer_slot[events[i].peer];

        it->hash = (it->hash ^ events[i].kind ^ (uint64_t)events[i].peer << 8 ^
                    (uint64_t)events[i].note << 20 ^ sim_now_ns(it->net.world)) *
                   UINT64_C(1099511628211);
        if (events[i].kind == TP_TEXT) {
            assert_int_equal(events[i].bytes, sizeof *life);
            memcpy(life, events[i].data, sizeof *life);
        } else if (events[i].kind == TP_NOTE) {
            assert_int_equal(events[i].note, it->heard[*life]++);
        } else if (events[i].kind == TP_DOWN) {
            assert_int_equal(it->heard[*life], it->sent[*life]);
            it->ended++;
        }
    }
}

static uint64_t crowd_run(uint64_t seed)
{
    static struct crowd it;
    uint64_t last = 0;

    it = (struct crowd){.random = seed};
    net_open(&it.net, CROWD, 8);
    for (uint32_t i = 0; i < CROWD; i++)
        crowd_live(&it, i);
    for (int i = 0; i < STEPS; i++) {
        uint64_t now;

        if (i % 1000 == 0)
            sim_link_set(it.net.world,
                         &(struct sim_link){.latency_ns = dice(&it, 200),
                                            .bytes_per_ns = dice(&it, 3) * 3.7,
                                            .pass_ns = dice(&it, 2) * 40});
        if (dice(&it, 3) == 0)
            crowd_serve(&it);
        else
            crowd_act(&it);
        now = sim_now_ns(it.net.world);
        assert_true(now >= last);
        last = now;
    }
    assert_true(it.ended > 20);
    net_close(&it.net);
    return it.hash;
}

static void test_crowd(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 5; seed++)
        assert_int_equal(crowd_run(seed), crowd_run(seed));
    assert_int_not_equal(crowd_run(1), crowd_run(2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_latency),      cmocka_unit_test(test_port),
        cmocka_unit_test(test_busy_server),  cmocka_unit_test(test_get),
        cmocka_unit_test(test_absurd_links), cmocka_unit_test(test_pump),
        cmocka_unit_test(test_pump_goes_on), cmocka_unit_test(test_thousands),
        cmocka_unit_test(test_crowd),
    };

    return cmocka_run_group_tests_name("simulated link", tests, NULL, NULL);
}
