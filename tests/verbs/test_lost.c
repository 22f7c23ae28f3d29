/* ctest: link=-Wl,--wrap=getifaddrs,--wrap=freeifaddrs,--wrap=opendir
 * What goes wrong outside of the verbs transport: peers and devices that go, addresses
 * that lead nowhere, memory that cannot be locked; and which devices are used. */
#include "tests/verbs/bed.h"

#include "engine/base/clock.h"
#include "transport/verbs/verbs.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define TOKEN "a token of this run"

static const struct transport *const t = &transport_verbs;

/* ---- peers and devices that go ------------------------------------------- */

static void want_down(struct bed_end *end, tp_peer peer, const char *name)
{
    struct gapless_error reason = {0};

    assert_int_equal(must_event(end, TP_DOWN).peer, peer);
    t->last_error(end->tp, peer, &reason);
    if (reason.status != GAPLESS_PEER_LOST || strstr(reason.text, name) == NULL)
        fail_msg("status %d: %s", reason.status, reason.text);
}

/* The machine of one side, or the network, has gone without a word. */
static void want_noticed(const char *address, const char *host)
{
    struct bed bed;

    fake_begin();
    must_bed(&bed, address, PAGE);
    fake_vanish(0);
    want_down(&bed.server, bed.to_client, host);
    want_down(&bed.client, bed.to_server, address);
    assert_int_equal(t->notify(bed.client.tp, bed.to_server, 1), GAPLESS_PEER_LOST);
    assert_int_equal(t->put(bed.client.tp, bed.to_server, &bed.window, PAGE / 2, 8, 1),
                     GAPLESS_PEER_LOST);
    bed_end(&bed);
}

static void silence_is_noticed(void **state)
{
    (void)state;
    want_noticed(ROCE, "10.1.1.1:");
    want_noticed(IWARP, "10.2.1.1:");
}

/* A process that was away, for a long pass or a stop, has the answer in its queue. */
static void who_was_away_has_lost_nobody(void **state)
{
    struct bed bed;

    (void)state;
    fake_begin();
    must_bed(&bed, ROCE, PAGE);
    verbs_keepalive(bed.server.tp->peers[bed.to_client].channel[0], clock_ns());
    (void)usleep(VERBS_LEASE_NS / 1000 + 100000);
    verbs_pause(bed.server.tp, 0);
    must_work(&bed.server, bed.to_client, &bed.client, bed.to_server, &bed.window,
              &bed.region);
    bed_end(&bed);
}

static void disconnected(void **state)
{
    struct bed bed;

    (void)state;
    fake_begin();
    must_bed(&bed, ROCE, PAGE);
    fake_cut(0);
    want_down(&bed.server, bed.to_client, "10.1.1.1:");
    want_down(&bed.client, bed.to_server, ROCE);
    bed_end(&bed);
}

/* A server that drops a peer at once, before it has taken ESTABLISHED, and does not poll
 * again: the peer hears of it all the same, and need not ask for a sign of life. */
static void dropped_at_once(void **state)
{
    struct tp_config config = bed_config(1, TOKEN);
    struct gapless_error error = {0};
    struct bed_end server, client;
    tp_peer to_client, to_server;

    (void)state;
    config.net.exact = true; /* no signs of life */
    fake_begin();
    fake_late(5000);
    must_open(&server, &config);
    must_open(&client, &config);
    assert_int_equal(t->listen(server.tp, ROCE, &error), GAPLESS_OK);
    assert_int_equal(
        bed_join(&server, &client, ROCE, LONG_NS, &to_server, &to_client, &error),
        GAPLESS_OK);
    assert_true(fake_late_left() > 0);
    t->drop(server.tp, to_client);
    assert_int_equal(must_event(&client, TP_DOWN).peer, to_server);
    bed_close_both(&server, &client);
    must_be_clean();
}

/* Said now and then of a link that is down; whether it is lost the card decides. */
static void an_established_link_is_unreachable(void **state)
{
    struct bed bed;

    (void)state;
    fake_begin();
    must_bed(&bed, ROCE, PAGE);
    fake_tell(0, FAKE_ACTIVE, RDMA_CM_EVENT_UNREACHABLE, -110);
    fake_tell(0, FAKE_PASSIVE, RDMA_CM_EVENT_ADDR_CHANGE, 0);
    must_work(&bed.server, bed.to_client, &bed.client, bed.to_server, &bed.window,
              &bed.region);
    bed_end(&bed);
}

static void the_device_fails(void **state)
{
    struct bed bed;

    (void)state;
    fake_begin();
    must_bed(&bed, ROCE, PAGE);
    fake_fatal("fake0");
    /* The event is told once, to whoever of this process looks first. */
    want_down(&bed.server, bed.to_client, "device");
    (void)must_event(&bed.client, TP_DOWN);
    bed_end(&bed);
}

static void a_port_goes_down_and_comes_up(void **state)
{
    struct bed bed;

    (void)state;
    fake_begin();
    must_bed(&bed, ROCE, PAGE);
    fake_port_event("fake0", IBV_EVENT_PORT_ERR);
    fake_port_event("fake0", IBV_EVENT_PORT_ACTIVE);
    must_work(&bed.server, bed.to_client, &bed.client, bed.to_server, &bed.window,
              &bed.region);
    bed_end(&bed);
}

static void the_device_is_removed(void **state)
{
    struct gapless_error reason = {0};
    struct tp_event events[4];
    struct bed bed;
    int status = 0;

    (void)state;
    fake_begin();
    must_bed(&bed, ROCE, PAGE);
    fake_remove("fake0");
    want_down(&bed.client, bed.to_server, ROCE);
    for (int i = 0; i < 1000 && status >= 0; i++)
        status = t->poll(bed.server.tp, events, 4, 1 * MS);
    assert_int_equal(status, GAPLESS_SYSTEM);
    t->last_error(bed.server.tp, TP_NOBODY, &reason);
    assert_non_null(strstr(reason.text, "removed"));
    bed_end(&bed);
}

/* ---- connecting in vain -------------------------------------------------- */

/* Bounded, and the words name the address. */
static void want_in_vain(const char *address, const char *needle)
{
    struct tp_config config = bed_config(1, TOKEN);
    struct gapless_error error = {0};
    uint64_t began = bed_clock_ns();
    struct bed_end client;
    tp_peer peer;

    must_open(&client, &config);
    assert_int_equal(
        t->connect(client.tp, address, pace_most_ns(150 * MS), &peer, &error),
        GAPLESS_TIMEOUT);
    assert_true(pace_within(bed_clock_ns() - began, 0, 5000 * MS));
    if (strstr(error.text, address) == NULL || strstr(error.text, needle) == NULL)
        fail_msg("%s", error.text);
    bed_close(&client);
    must_be_clean();
}

static void in_vain(void **state)
{
    (void)state;
    fake_begin();
    want_in_vain(ROCE, "no process listens");
    want_in_vain(IWARP, "no process listens");
    want_in_vain("10.9.9.9:7471", "cannot be reached");
    fake_rules.unresolvable = true;
    want_in_vain(ROCE, "cannot be reached");
    fake_rules.unresolvable = false;
    fake_rules.no_route = true;
    want_in_vain(ROCE, "cannot be reached");
    fake_rules.no_route = false;
    fake_rules.no_answer = true;
    want_in_vain(ROCE, "did not answer");
}

static void no_device_there(void **state)
{
    struct tp_config config = bed_config(1, TOKEN);
    struct gapless_error error = {0};
    struct bed_end end;
    tp_peer peer;

    (void)state;
    fake_begin();
    must_open(&end, &config);
    assert_int_equal(t->connect(end.tp, "127.0.0.1:7471", 50 * MS, &peer, &error),
                     GAPLESS_UNSUPPORTED);
    assert_non_null(strstr(error.text, "127.0.0.1:7471"));
    assert_int_equal(t->listen(end.tp, "127.0.0.1:7471", &error), GAPLESS_INVALID);
    bed_close(&end);
    must_open(&end, &config);
    assert_int_equal(t->listen(end.tp, "10.9.9.9:7471", &error), GAPLESS_SYSTEM);
    assert_non_null(strstr(error.text, "10.9.9.9:7471"));
    assert_int_equal(t->listen(end.tp, "10.1.1.1", &error), GAPLESS_INVALID);
    assert_int_equal(t->listen(end.tp, "10.1.1.1:99999", &error), GAPLESS_INVALID);
    bed_close(&end);
    fake_rules.no_devices = true;
    assert_int_equal(bed_open(&end, &config, &error), GAPLESS_UNSUPPORTED);
    assert_non_null(strstr(error.text, "rdma_ucm"));
    must_be_clean();
}

static void full(void **state)
{
    struct tp_config config = bed_config(1, TOKEN);
    struct gapless_error error = {0};
    struct bed_end server, first, second;
    tp_peer peer, number;

    (void)state;
    fake_begin();
    fake_rules.stale = true; /* of the refused the completions stay */
    must_open(&server, &config);
    must_open(&first, &config);
    must_open(&second, &config);
    assert_int_equal(t->listen(server.tp, ROCE, &error), GAPLESS_OK);
    assert_int_equal(bed_join(&server, &first, ROCE, LONG_NS, &peer, &number, &error),
                     GAPLESS_OK);
    for (int i = 0; i < 20; i++)
        assert_int_equal(
            bed_join(&server, &second, ROCE, LONG_NS, &peer, &number, &error),
            GAPLESS_CAPACITY);
    assert_non_null(strstr(error.text, "10.1.1.1:7471"));
    assert_non_null(strstr(error.text, "room for 1"));
    bed_close(&second);
    bed_close(&first);
    bed_close(&server);
    must_be_clean();
}

/* Coming and going leaves nothing behind at the server. */
static void come_and_go(void **state)
{
    struct tp_config config = bed_config(1, TOKEN);
    struct tp_counters before, after;
    struct tp_region window;
    struct bed_end client;
    tp_peer peer, number;
    struct fake_live then, now;
    struct bed bed;
    unsigned sum;

    (void)state;
    fake_begin();
    must_bed(&bed, ROCE, PAGE);
    sum = fake_live(&then);
    t->count(bed.server.tp, &before);
    for (int i = 0; i < 20; i++) {
        must_open(&client, &config);
        must_join(&bed, &client, ROCE, &peer, &number, &window);
        t->drop(client.tp, peer);
        (void)must_event(&bed.server, TP_DOWN);
        bed_close(&client);
    }
    for (int i = 0;
         i < 5000 && fake_live(&now) - now.unacknowledged > sum - then.unacknowledged;
         i++)
        (void)t->poll(bed.server.tp, bed.server.events, 64, 1 * MS);
    t->count(bed.server.tp, &after);
    assert_int_equal(after.regions, before.regions);
    assert_int_equal(now.pairs, then.pairs);
    assert_int_equal(now.ids, then.ids);
    bed_end(&bed);
}

/* ---- memory -------------------------------------------------------------- */

static void memory_that_cannot_be_locked(void **state)
{
    struct rlimit was, small;
    struct gapless_error error = {0};
    struct tp_region region, window;
    struct bed bed;

    (void)state;
    fake_begin();
    assert_int_equal(getrlimit(RLIMIT_MEMLOCK, &was), 0);
    small = was;
    small.rlim_cur = 64 << 10;
    assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &small), 0);
    must_bed(&bed, ROCE, PAGE);
    fake_rules.memory_most = 9u << 20;
    assert_int_equal(t->region_new(bed.server.tp, 8u << 20, &region, &error),
                     GAPLESS_OK);
    assert_int_equal(
        t->grant(bed.server.tp, bed.to_client, &region, 1, TP_READ, &error),
        GAPLESS_OK);
    assert_int_equal(
        t->window(bed.client.tp, bed.to_server, 1, LONG_NS, &window, &error),
        GAPLESS_NO_MEMORY);
    assert_non_null(strstr(error.text, "ulimit -l"));
    must_work(&bed.server, bed.to_client, &bed.client, bed.to_server, &bed.window,
              &bed.region);
    assert_int_equal(setrlimit(RLIMIT_MEMLOCK, &was), 0);
    bed_end(&bed);
}

static void devices_without_windows(void **state)
{
    struct bed bed;

    (void)state;
    fake_begin();
    fake_rules.no_windows = true;
    must_bed(&bed, ROCE, 4 * PAGE);
    must_work(&bed.server, bed.to_client, &bed.client, bed.to_server, &bed.window,
              &bed.region);
    bed_end(&bed);
}

/* ---- devices ------------------------------------------------------------- */

static int join_with(const char *server_devices, const char *client_devices,
                     const char *address, struct gapless_error *error)
{
    struct tp_config config = bed_config(1, TOKEN);
    struct bed_end server, client;
    tp_peer peer, number;
    int status;

    fake_begin();
    config.net.devices = server_devices;
    must_open(&server, &config);
    config.net.devices = client_devices;
    must_open(&client, &config);
    status = t->listen(server.tp, address, error);
    if (status == GAPLESS_OK)
        status = bed_join(&server, &client, address, LONG_NS, &peer, &number, error);
    if (status == GAPLESS_OK && client_devices != NULL) {
        const struct ibv_device *device =
            fake_id(fake_connections() - 1, FAKE_ACTIVE)->verbs->device;
        const char *last = strrchr(client_devices, ',');

        assert_string_equal(device->name, last != NULL ? last + 1 : client_devices);
    }
    bed_close_both(&server, &client);
    must_be_clean();
    return status;
}

static void devices_by_name(void **state)
{
    struct gapless_error error = {0};

    (void)state;
    assert_int_equal(join_with(NULL, NULL, "[fd10::1]:7471", &error), GAPLESS_OK);
    assert_int_equal(fake_connections(), 1);
    assert_int_equal(join_with("fake0", "fake1", ROCE, &error), GAPLESS_OK);
    assert_int_equal(join_with(NULL, "fake0,fake1", ROCE, &error), GAPLESS_OK);
    assert_int_equal(fake_connections(), 2);
    assert_int_equal(join_with(NULL, "fake1", "[fd10::1]:7471", &error), GAPLESS_OK);
    assert_int_equal(join_with(NULL, "none", ROCE, &error), GAPLESS_INVALID);
    assert_non_null(strstr(error.text, "none"));
    assert_int_equal(join_with("fake1,fake2", NULL, ROCE, &error), GAPLESS_INVALID);
    assert_non_null(strstr(error.text, "fake0"));
}

static void what_the_machine_has(void **state)
{
    char text[4000], little[20];

    (void)state;
    fake_begin();
    assert_int_equal(verbs_survey(text, sizeof text), 3);
    assert_non_null(strstr(text, "fake0: InfiniBand or RoCE"));
    assert_non_null(strstr(text, "fake2: iWARP"));
    assert_non_null(strstr(text, "10.1.2.1"));
    assert_int_equal(verbs_survey(little, sizeof little), 3);
    assert_true(strlen(little) < sizeof little);
    for (long n = 0; n < 30; n++) {
        fake_fail_at(n, false);
        assert_in_range(verbs_survey(text, sizeof text), 0, 3);
        must_be_clean();
    }
    fake_fail_at(-1, false);
    fake_rules.no_devices = true;
    assert_int_equal(verbs_survey(text, sizeof text), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(silence_is_noticed),
        cmocka_unit_test(who_was_away_has_lost_nobody),
        cmocka_unit_test(disconnected),
        cmocka_unit_test(dropped_at_once),
        cmocka_unit_test(an_established_link_is_unreachable),
        cmocka_unit_test(the_device_fails),
        cmocka_unit_test(a_port_goes_down_and_comes_up),
        cmocka_unit_test(the_device_is_removed),
        cmocka_unit_test(in_vain),
        cmocka_unit_test(no_device_there),
        cmocka_unit_test(full),
        cmocka_unit_test(come_and_go),
        cmocka_unit_test(memory_that_cannot_be_locked),
        cmocka_unit_test(devices_without_windows),
        cmocka_unit_test(devices_by_name),
        cmocka_unit_test(what_the_machine_has),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
