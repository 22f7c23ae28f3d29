/* Every call that the verbs transport makes into libibverbs and librdmacm fails once,
 * and then for good, in the course of a whole life: open, region, listen, connect,
 * greeting with a token, grants, windows, put, get, notes, texts, poll, drop, close.
 * Whatever fails: it ends soon, with a status and words, and nothing is left. */
#include "tests/verbs/bed.h"

#include <stdio.h>
#include <string.h>

#define BYTES (2u << 20)
/* A whole life may take so long: several bounds of the transport after each other. */
#define LIFE_NS (8000 * MS)
/* What comes is waited for so long, and what does not come, too; in a life that is tried
 * again, twice as long. */
#define WAIT_NS (150 * MS)
static int64_t wait_ns;

static const struct transport *const t = &transport_verbs;

struct life {
    struct bed_end server, client;
    tp_peer to_client, to_server;
    struct tp_region region[2], window[2];
    struct gapless_error error;
    const char *doing;
};

/* What a peer's end is explained with. */
static int why_down(struct life *it, struct bed_end *end, tp_peer peer, int status)
{
    if (status == GAPLESS_PEER_LOST || status == GAPLESS_TIMEOUT) {
        struct gapless_error reason = {0};

        t->last_error(end->tp, peer, &reason);
        if (reason.status != GAPLESS_OK)
            it->error = reason;
    } else if (status < 0) {
        t->last_error(end->tp, TP_NOBODY, &it->error);
    }
    return status;
}

/* An event at `end`; or the end of the connection, on whichever side it is known. */
static int want(struct life *it, struct bed_end *end, tp_peer peer,
                enum tp_event_kind kind, struct tp_event *ret)
{
    struct bed_end *other = end == &it->server ? &it->client : &it->server;
    uint64_t bound = bed_clock_ns() + (uint64_t)wait_ns;
    struct tp_event gone;
    int status;

    do {
        status = bed_event(end, kind, ret, 0);
        if (status != GAPLESS_TIMEOUT)
            return why_down(it, end, peer, status);
        status = bed_event(other, TP_DOWN, &gone, 0);
        if (status != GAPLESS_TIMEOUT)
            return why_down(it, other, gone.peer,
                            status == GAPLESS_OK ? GAPLESS_PEER_LOST : status);
    } while (bed_clock_ns() < bound);
    return GAPLESS_TIMEOUT;
}

static int begin(struct life *it, const char *address)
{
    struct tp_config config = bed_config(2, "a token of this run");
    int status;

    it->doing = "open";
    status = bed_open(&it->server, &config, &it->error);
    config.peers_max = 1;
    if (status == GAPLESS_OK)
        status = bed_open(&it->client, &config, &it->error);
    it->doing = "region";
    for (int i = 0; status == GAPLESS_OK && i < 2; i++)
        status = t->region_new(it->server.tp, BYTES, &it->region[i], &it->error);
    it->region[0].split = PAGE;
    it->doing = "listen";
    if (status == GAPLESS_OK)
        status = t->listen(it->server.tp, address, &it->error);
    it->doing = "connect";
    return status == GAPLESS_OK ? bed_join(&it->server, &it->client, address, wait_ns,
                                           &it->to_server, &it->to_client, &it->error)
                                : status;
}

static int windows(struct life *it)
{
    int status;

    it->doing = "grant";
    status =
        t->grant(it->server.tp, it->to_client, &it->region[0], 0, TP_SPLIT, &it->error);
    if (status == GAPLESS_OK)
        status = t->grant(it->server.tp, it->to_client, &it->region[1], 1, TP_READ,
                          &it->error);
    it->doing = "window";
    for (uint32_t i = 0; status == GAPLESS_OK && i < 2; i++)
        status = t->window(it->client.tp, it->to_server, i, wait_ns, &it->window[i],
                           &it->error);
    return status;
}

static int lost(struct life *it, struct bed_end *end, tp_peer peer, int status)
{
    return status < 0 ? why_down(it, end, peer, status) : GAPLESS_OK;
}

static int data(struct life *it)
{
    struct bed_end *server = &it->server, *client = &it->client;
    struct tp_event event;
    int status;

    it->doing = "put";
    memset((char *)it->window[0].base + PAGE, 5, BYTES - PAGE);
    status =
        lost(it, client, it->to_server,
             t->put(client->tp, it->to_server, &it->window[0], PAGE, BYTES - PAGE, 3));
    if (status == GAPLESS_OK)
        status = want(it, server, it->to_client, TP_NOTE, &event);
    if (status == GAPLESS_OK && ((char *)it->region[0].base)[BYTES - 1] != 5)
        fail_msg("a note without its bytes");
    it->doing = "get";
    if (status == GAPLESS_OK)
        status = lost(it, client, it->to_server,
                      t->get(client->tp, it->to_server, &it->window[1], 0, BYTES, 9));
    if (status == GAPLESS_OK)
        do
            status = want(it, client, it->to_server, TP_DONE, &event);
        while (status == GAPLESS_OK && event.note != 9);
    it->doing = "notify";
    if (status == GAPLESS_OK)
        status =
            lost(it, server, it->to_client, t->notify(server->tp, it->to_client, 11));
    if (status == GAPLESS_OK)
        status = want(it, client, it->to_server, TP_NOTE, &event);
    return status;
}

static int talk(struct life *it)
{
    static const char text[1000] = "a text of several frames";
    struct tp_event event;
    int status;

    it->doing = "say";
    status =
        t->send_control(it->client.tp, it->to_server, text, sizeof text, &it->error);
    if (status == GAPLESS_OK)
        status = want(it, &it->server, it->to_client, TP_TEXT, &event);
    if (status == GAPLESS_OK)
        status = t->send_control(it->server.tp, it->to_client, text, 5, &it->error);
    if (status == GAPLESS_OK)
        status = want(it, &it->client, it->to_server, TP_TEXT, &event);
    it->doing = "drop";
    if (status == GAPLESS_OK) {
        t->drop(it->client.tp, it->to_server);
        status = why_down(it, &it->server, it->to_client,
                          bed_event(&it->server, TP_DOWN, &event, LONG_NS));
    }
    return status;
}

static int life(struct life *it, const char *address)
{
    int status = begin(it, address);

    if (status == GAPLESS_OK)
        status = windows(it);
    if (status == GAPLESS_OK)
        status = data(it);
    if (status == GAPLESS_OK)
        status = talk(it);
    bed_close_both(&it->server, &it->client);
    return status;
}

/* One life with the n-th call failing. False: nothing failed any more. */
static bool live(const char *address, long n, bool forever)
{
    const char *failed = "";
    struct life it;
    uint64_t began, took = 0;
    int status = GAPLESS_TIMEOUT;

    /* A machine that is busy may need longer than these bounds. */
    for (int i = 0; i < 5 && status == GAPLESS_TIMEOUT && failed[0] == '\0'; i++) {
        it = (struct life){0};
        wait_ns = pace_most_ns(WAIT_NS << i);
        began = bed_clock_ns();
        fake_begin();
        fake_fail_at(n, forever);
        status = life(&it, address);
        failed = fake_failed();
        took = bed_clock_ns() - began;
    }
    if (status != GAPLESS_OK && failed[0] == '\0')
        fail_msg("%s failed (%d) though nothing failed: %s", it.doing, status,
                 it.error.text);
    if (status > 0 || (status < 0 && it.error.text[0] == '\0'))
        fail_msg("failure %ld, of %s: %s gave status %d and no words", n, failed,
                 it.doing, status);
    if (!pace_within(took, 0, LIFE_NS))
        fail_msg("failure %ld, of %s: took too long", n, failed);
    if (fake_live(NULL) != 0 || fake_faults() != 0) {
        (void)fake_end();
        fail_msg("failure %ld, of %s, in %s: %s", n, failed, it.doing,
                 fake_fault_text());
    }
    return failed[0] != '\0';
}

/* The lists of calls are not quite the same from one life to the next: who looks how
 * often depends on the time. */
static void sweep(const char *address, bool forever, long step)
{
    int quiet = 0;
    long n = 0;

    for (; quiet < 3; n += step)
        quiet = live(address, n, forever) ? 0 : quiet + 1;
    assert_true(n > 100);
}

static void once_over_roce(void **state)
{
    (void)state;
    sweep(ROCE, false, 1);
}

static void for_good_over_roce(void **state)
{
    (void)state;
    sweep(ROCE, true, 17);
}

static void once_over_iwarp(void **state)
{
    (void)state;
    sweep(IWARP, false, 3);
}

static void for_good_over_iwarp(void **state)
{
    (void)state;
    sweep(IWARP, true, 17);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(once_over_roce),
        cmocka_unit_test(for_good_over_roce),
        cmocka_unit_test(once_over_iwarp),
        cmocka_unit_test(for_good_over_iwarp),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
