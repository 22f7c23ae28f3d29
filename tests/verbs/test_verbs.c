/* What the verbs transport does besides what every transport does: tokens, cutting of
 * long messages, channels, credit, counters. */
#include "tests/verbs/bed.h"

#include <stdio.h>
#include <string.h>

#define TOKEN "a token of this run"

static const struct transport *const t = &transport_verbs;

/* ---- tokens -------------------------------------------------------------- */

/* What a client with one token says of a server with another. */
static void want_refusal(const char *at_server, const char *at_client)
{
    struct tp_config config = bed_config(2, at_server);
    struct gapless_error error = {0};
    struct bed_end server, client;
    struct tp_counters counters = {0};
    struct tp_event event;
    struct tp_region region;
    tp_peer peer, number;

    fake_begin();
    must_open(&server, &config);
    config = bed_config(1, at_client);
    must_open(&client, &config);
    assert_int_equal(t->region_new(server.tp, PAGE, &region, &error), GAPLESS_OK);
    assert_int_equal(t->listen(server.tp, ROCE, &error), GAPLESS_OK);
    assert_int_equal(bed_join(&server, &client, ROCE, LONG_NS, &peer, &number, &error),
                     GAPLESS_REFUSED);
    assert_non_null(strstr(error.text, "10.1.1.1:7471"));
    assert_non_null(strstr(error.text, "token"));
    assert_int_equal(fake_keys(NULL, 0), 0);
    for (int i = 0; i < 500 && counters.refused == 0; i++) { /* it hears of the end */
        (void)bed_event(&server, TP_NOTE, &event, 10 * MS);
        t->count(server.tp, &counters);
    }
    assert_int_equal(counters.refused, 1);
    t->last_error(server.tp, TP_NOBODY, &error);
    assert_non_null(strstr(error.text, "10.1.1.1:4"));
    bed_close_both(&server, &client);
    must_be_clean();
}

static void tokens_must_agree(void **state)
{
    (void)state;
    want_refusal(TOKEN, "a token of another run");
    want_refusal(TOKEN, NULL);
    want_refusal(NULL, TOKEN);
}

static void a_token_or_insecure(void **state)
{
    struct tp_config config = bed_config(2, NULL);
    struct gapless_error error = {0};
    struct bed_end server;

    (void)state;
    fake_begin();
    config.net.insecure = false;
    must_open(&server, &config);
    assert_int_equal(t->listen(server.tp, ROCE, &error), GAPLESS_INVALID);
    assert_non_null(strstr(error.text, "--token-file"));
    bed_close(&server);
    config.net.token = "short";
    config.net.token_bytes = 5;
    assert_int_equal(bed_open(&server, &config, &error), GAPLESS_INVALID);
    must_be_clean();
}

/* ---- long messages ------------------------------------------------------- */

static void fill(void *at, size_t bytes, uint32_t seed)
{
    for (size_t i = 0; i < bytes; i++)
        ((unsigned char *)at)[i] = (unsigned char)((i + seed) * 2654435761u >> 24);
}

static void long_messages_are_cut(void **state)
{
    size_t bytes = (7u << 20) + 10;
    struct fake_counters count;
    struct bed bed;

    (void)state;
    fake_begin();
    must_bed(&bed, ROCE, bytes);
    fill(bed.region.base, bytes, 1);
    fill(bed.window.base, bytes, 2);
    assert_int_equal(t->put(bed.client.tp, bed.to_server, &bed.window, bytes / 2,
                            bytes - bytes / 2, 5),
                     1);
    assert_int_equal(must_event(&bed.server, TP_NOTE).note, 5);
    assert_memory_equal((char *)bed.region.base + bytes / 2,
                        (char *)bed.window.base + bytes / 2, bytes - bytes / 2);
    assert_int_equal(must_event(&bed.client, TP_DONE).note, 5);
    assert_int_equal(
        t->get(bed.client.tp, bed.to_server, &bed.window, 3, bytes / 2 - 3, 6), 1);
    assert_int_equal(must_event(&bed.client, TP_DONE).note, 6);
    assert_memory_equal((char *)bed.region.base + 3, (char *)bed.window.base + 3,
                        bytes / 2 - 3);
    fake_count(&count);
    assert_int_equal(count.longest, 1u << 20);
    assert_true(count.writes >= 4);
    bed_end(&bed);
}

/* ---- channels ------------------------------------------------------------ */

#define TWO "10.1.1.1:7471,10.1.2.1:7471"

static void notes_of_channels_keep_their_order(void **state)
{
    uint32_t next = 0, sent = 0;
    struct tp_event event;
    struct bed bed;

    (void)state;
    fake_begin();
    must_bed(&bed, TWO, 1u << 20);
    assert_int_equal(fake_connections(), 2);
    assert_string_equal(ibv_get_device_name(fake_id(0, FAKE_PASSIVE)->verbs->device),
                        "fake0");
    assert_string_equal(ibv_get_device_name(fake_id(1, FAKE_PASSIVE)->verbs->device),
                        "fake1");
    fake_pace(FAKE_BY_THREAD);
    while (next < 300) {
        size_t bytes = sent % 3 == 0 ? 0 : sent % 3 == 1 ? 8 : 100000;
        char *at = (char *)bed.window.base + (1u << 19);
        int status = GAPLESS_AGAIN;

        if (sent < 300) {
            memcpy(at, &sent, sizeof sent);
            status = t->put(bed.client.tp, bed.to_server, &bed.window, 1u << 19, bytes,
                            sent);
            assert_in_range(status + 1, 0, 2);
            sent += status >= 0 ? 1 : 0;
            if (status == 1) /* before the bytes are written again */
                (void)must_event(&bed.client, TP_DONE);
        }
        status = bed_event(&bed.server, TP_NOTE, &event, 0);
        if (status == GAPLESS_OK)
            assert_int_equal(event.note, next++);
    }
    fake_pace(FAKE_AT_POST);
    must_work(&bed.server, bed.to_client, &bed.client, bed.to_server, &bed.window,
              &bed.region);
    bed_end(&bed);
}

/* The same, with the second channel always ahead of the first. */
static void a_channel_overtakes(void **state)
{
    struct tp_event event;
    struct bed bed;
    uint32_t next = 0;

    (void)state;
    fake_begin();
    must_bed(&bed, TWO, 16 * PAGE);
    fake_pace(FAKE_BY_HAND);
    for (uint32_t i = 0; i < 20; i++)
        assert_in_range(t->put(bed.client.tp, bed.to_server, &bed.window,
                               8 * PAGE + 64 * (size_t)i, 64, i),
                        0, 1);
    assert_true(fake_pump_one(fake_pair(1, FAKE_ACTIVE), INT32_MAX) > 0);
    if (bed_event(&bed.server, TP_NOTE, &event, 20 * MS) == GAPLESS_OK)
        assert_int_equal(event.note, next++);
    assert_true(fake_pump_one(fake_pair(0, FAKE_ACTIVE), INT32_MAX) > 0);
    while (next < 20)
        assert_int_equal(must_event(&bed.server, TP_NOTE).note, next++);
    fake_pace(FAKE_AT_POST);
    bed_end(&bed);
}

/* One channel goes: the peer goes, and says so. */
static void a_peer_is_all_its_channels(void **state)
{
    struct gapless_error reason = {0};
    struct tp_event event;
    struct bed bed;

    (void)state;
    fake_begin();
    must_bed(&bed, TWO, PAGE);
    fake_cut(1);
    (void)must_event(&bed.server, TP_DOWN);
    t->last_error(bed.server.tp, bed.to_client, &reason);
    assert_int_equal(reason.status, GAPLESS_PEER_LOST);
    assert_non_null(strstr(reason.text, "10.1.2.1"));
    event = must_event(&bed.client, TP_DOWN);
    assert_int_equal(event.peer, bed.to_server);
    bed_end(&bed);
}

/* ---- credit -------------------------------------------------------------- */

static void notes_stop_at_the_credit(void **state)
{
    struct fake_counters count;
    uint32_t sent = 0, reported = 0;
    struct bed bed;

    (void)state;
    fake_begin();
    must_bed(&bed, ROCE, PAGE);
    while (t->notify(bed.client.tp, bed.to_server, sent) == GAPLESS_OK)
        sent++;
    assert_in_range(sent, 64, 1000);
    for (; reported < sent; reported++)
        assert_int_equal(must_event(&bed.server, TP_NOTE).note, reported);
    assert_int_equal(t->notify(bed.client.tp, bed.to_server, 7), GAPLESS_OK);
    assert_int_equal(must_event(&bed.server, TP_NOTE).note, 7);
    fake_count(&count);
    assert_int_equal(count.not_ready, 0);
    bed_end(&bed);
}

/* The client's send ring is full while many notes come, so that it cannot give credit
 * back at once: the notes keep their order, and the credit comes later. */
static void notes_into_a_full_ring(void **state)
{
    uint32_t sent = 0, reported = 0, on_wire;
    struct tp_event event;
    struct bed bed;
    int gets = 0;

    (void)state;
    fake_begin();
    must_bed(&bed, ROCE, PAGE);
    fake_pace(FAKE_BY_HAND);
    while (t->get(bed.client.tp, bed.to_server, &bed.window, 0, 8, 1) == 1)
        gets++;
    assert_true(gets > 100);
    while (t->notify(bed.server.tp, bed.to_client, sent) == GAPLESS_OK)
        sent++;
    assert_in_range(sent, 64, 1000);
    on_wire = (uint32_t)fake_pump_one(fake_pair(0, FAKE_PASSIVE), INT32_MAX);
    assert_in_range(on_wire, 64, sent);
    while (reported < on_wire)
        assert_int_equal(must_event(&bed.client, TP_NOTE).note, reported++);
    fake_pace(FAKE_AT_POST);
    while (reported < sent) {
        (void)bed_event(&bed.server, TP_NOTE, &event, 0);
        if (bed_event(&bed.client, TP_NOTE, &event, 0) == GAPLESS_OK)
            assert_int_equal(event.note, reported++);
    }
    while (t->notify(bed.server.tp, bed.to_client, 5) == GAPLESS_AGAIN) {
        (void)bed_event(&bed.server, TP_NOTE, &event, 0);
        (void)bed_event(&bed.client, TP_NOTE, &event, 0);
    }
    assert_int_equal(must_event(&bed.client, TP_NOTE).note, 5);
    bed_end(&bed);
}

static void a_client_that_does_not_read_is_ended(void **state)
{
    struct gapless_error error = {0};
    char text[TP_TEXT_MAX] = "";
    struct tp_event event;
    struct bed bed;
    int status = GAPLESS_OK;

    (void)state;
    fake_begin();
    must_bed(&bed, ROCE, PAGE);
    for (int i = 0; i < 1000 && status == GAPLESS_OK; i++)
        status =
            t->send_control(bed.server.tp, bed.to_client, text, sizeof text, &error);
    assert_int_equal(status, GAPLESS_PEER_LOST);
    assert_non_null(strstr(error.text, "10.1.1.1:"));
    (void)must_event(&bed.server, TP_DOWN);
    /* All that was said before is there. */
    event = must_event(&bed.client, TP_TEXT);
    assert_int_equal(event.bytes, sizeof text);
    bed_end(&bed);
}

/* ---- grants -------------------------------------------------------------- */

/* Granted again before the card has got round to the first: the last grant holds, and
 * nobody is ended for it. */
static void grants_in_quick_succession(void **state)
{
    struct gapless_error error = {0};
    struct tp_event event;
    struct bed bed;

    (void)state;
    fake_begin();
    must_bed(&bed, ROCE, 4 * PAGE);
    fake_pace(FAKE_BY_HAND);
    for (int i = 0; i < 3; i++)
        assert_int_equal(
            t->grant(bed.server.tp, bed.to_client, &bed.region, 0, TP_SPLIT, &error),
            GAPLESS_OK);
    fake_pace(FAKE_AT_POST);
    assert_int_equal(bed_event(&bed.client, TP_TEXT, &event, 20 * MS), GAPLESS_TIMEOUT);
    assert_int_equal(
        t->window(bed.client.tp, bed.to_server, 0, LONG_NS, &bed.window, &error),
        GAPLESS_OK);
    must_work(&bed.server, bed.to_client, &bed.client, bed.to_server, &bed.window,
              &bed.region);
    bed_end(&bed);
}

/* A put under way when its window is granted anew is no crime. */
static void a_put_meets_a_new_grant(void **state)
{
    struct gapless_error error = {0};
    struct bed bed;

    (void)state;
    fake_begin();
    must_bed(&bed, ROCE, 4 * PAGE);
    assert_int_equal(
        t->grant(bed.server.tp, bed.to_client, &bed.region, 0, TP_SPLIT, &error),
        GAPLESS_OK);
    assert_int_equal(t->put(bed.client.tp, bed.to_server, &bed.window, 2 * PAGE, 8, 1),
                     GAPLESS_OK);
    assert_int_equal(must_event(&bed.server, TP_NOTE).note, 1);
    assert_int_equal(
        t->window(bed.client.tp, bed.to_server, 0, LONG_NS, &bed.window, &error),
        GAPLESS_OK);
    must_work(&bed.server, bed.to_client, &bed.client, bed.to_server, &bed.window,
              &bed.region);
    bed_end(&bed);
}

/* A region may go before the peers it was granted to. */
static void a_granted_region_goes(void **state)
{
    struct bed bed;

    (void)state;
    fake_begin();
    must_bed(&bed, ROCE, 4 * PAGE);
    t->region_free(bed.server.tp, &bed.region);
    bed_end(&bed);
}

/* ---- signs of life, counters, words -------------------------------------- */

/* *ret_most: for four a second, and some more. */
static unsigned long writes_when_idle(bool exact, unsigned long *ret_most)
{
    struct tp_config config = bed_config(1, TOKEN);
    struct fake_counters before, after;
    struct gapless_error error = {0};
    struct bed_end server, client;
    struct tp_event event;
    uint64_t began;
    tp_peer peer, number;

    fake_begin();
    config.net.exact = exact;
    must_open(&server, &config);
    must_open(&client, &config);
    assert_int_equal(t->listen(server.tp, ROCE, &error), GAPLESS_OK);
    assert_int_equal(bed_join(&server, &client, ROCE, LONG_NS, &peer, &number, &error),
                     GAPLESS_OK);
    fake_count(&before);
    began = bed_clock_ns();
    assert_int_equal(bed_event(&server, TP_NOTE, &event, 700 * MS), GAPLESS_TIMEOUT);
    fake_count(&after);
    *ret_most = 2 + (unsigned long)((bed_clock_ns() - began) / (250 * MS));
    bed_close_both(&server, &client);
    must_be_clean();
    return after.posts - before.posts;
}

static void idle_peers_are_asked(void **state)
{
    unsigned long writes, most;

    (void)state;
    assert_int_equal(writes_when_idle(true, &most), 0);
    writes = writes_when_idle(false, &most);
    assert_in_range(writes, 1, most);
}

static void one_put_is_one_request(void **state)
{
    struct tp_counters before, after;
    struct bed bed;

    (void)state;
    fake_begin();
    must_bed(&bed, ROCE, 4 * PAGE);
    t->count(bed.client.tp, &before);
    assert_int_equal(
        t->put(bed.client.tp, bed.to_server, &bed.window, 2 * PAGE, 2 * PAGE, 1), 1);
    (void)must_event(&bed.server, TP_NOTE);
    (void)must_event(&bed.client, TP_DONE);
    t->count(bed.client.tp, &after);
    assert_int_equal(after.requests - before.requests, 1);
    assert_int_equal(after.doorbells - before.doorbells, 1);
    assert_true(after.regions > 0);
    bed_end(&bed);
}

static void words(void **state)
{
    char text[400];
    struct bed bed;

    (void)state;
    fake_begin();
    must_bed(&bed, ROCE, PAGE);
    assert_true(t->describe(bed.client.tp, bed.to_server, text, sizeof text) > 0);
    assert_non_null(strstr(text, "fake0"));
    assert_non_null(strstr(text, "10.1.1.1:7471"));
    assert_true(t->describe(bed.server.tp, bed.to_client, text, sizeof text) > 0);
    assert_non_null(strstr(text, "10.1.1.1:4"));
    assert_true(t->describe(bed.server.tp, TP_NOBODY, text, sizeof text) > 0);
    assert_non_null(strstr(text, "with a token"));
    assert_int_equal(t->describe(bed.server.tp, bed.to_client, text, 5), 4);
    assert_int_equal(t->describe(bed.server.tp, 3, text, sizeof text), 0);
    bed_end(&bed);
}

/* A driver that says what it does not know with a negative number. */
static void posts_refused_with_a_negative_number(void **state)
{
    struct gapless_error reason = {0};
    struct bed bed;

    (void)state;
    fake_begin();
    must_bed(&bed, ROCE, PAGE);
    fake_rules.no_immediates = true;
    assert_int_equal(t->notify(bed.client.tp, bed.to_server, 1), GAPLESS_PEER_LOST);
    t->last_error(bed.client.tp, bed.to_server, &reason);
    assert_int_equal(reason.os, 22);
    assert_non_null(strstr(reason.text, "10.1.1.1:7471"));
    (void)must_event(&bed.client, TP_DOWN);
    (void)must_event(&bed.server, TP_DOWN);
    bed_end(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_must_agree),
        cmocka_unit_test(a_token_or_insecure),
        cmocka_unit_test(long_messages_are_cut),
        cmocka_unit_test(notes_of_channels_keep_their_order),
        cmocka_unit_test(a_channel_overtakes),
        cmocka_unit_test(a_peer_is_all_its_channels),
        cmocka_unit_test(notes_stop_at_the_credit),
        cmocka_unit_test(notes_into_a_full_ring),
        cmocka_unit_test(a_client_that_does_not_read_is_ended),
        cmocka_unit_test(grants_in_quick_succession),
        cmocka_unit_test(a_put_meets_a_new_grant),
        cmocka_unit_test(a_granted_region_goes),
        cmocka_unit_test(idle_peers_are_asked),
        cmocka_unit_test(one_put_is_one_request),
        cmocka_unit_test(words),
        cmocka_unit_test(posts_refused_with_a_negative_number),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
