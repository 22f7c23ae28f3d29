/* Placed memory and those who keep to no rules: rights hold for each part, grants that
 * make no sense end their peer, what a peer left half done is never told as done, and
 * nothing reaches memory that was given back. */
#include "tests/verbs/placed.h"

#include "transport/verbs/verbs.h"

#include <string.h>

static const struct transport *const t = &transport_verbs;

/* ---- rights -------------------------------------------------------------- */

/* The n-th of the keys that the server's side of a connection was given. */
static struct fake_key key_at(unsigned connection, unsigned n)
{
    const struct ibv_qp *pair = fake_pair(connection, FAKE_PASSIVE);
    struct fake_key all[64];
    size_t count = fake_keys(all, 64);

    assert_in_range(count, 0, 64);
    for (size_t i = 0; i < count; i++)
        if (all[i].pd == pair->pd &&
            (all[i].pair == 0 || all[i].pair == pair->qp_num) && n-- == 0)
            return all[i];
    return (struct fake_key){0};
}

/* A client's card is told to write where `key` leads, or to read from there. */
static void reach(unsigned connection, uint32_t key, uint64_t at, bool writes)
{
    static char bad[8] = "intrude";
    struct ibv_qp *qp = fake_pair(connection, FAKE_ACTIVE);
    struct ibv_mr *mr = ibv_reg_mr(qp->pd, bad, sizeof bad, IBV_ACCESS_LOCAL_WRITE);
    struct ibv_sge sge = {(uintptr_t)bad, sizeof bad, mr->lkey};
    struct ibv_send_wr wr = {.wr_id = UINT64_MAX,
                             .sg_list = &sge,
                             .num_sge = 1,
                             .opcode = writes ? IBV_WR_RDMA_WRITE : IBV_WR_RDMA_READ};
    struct ibv_send_wr *ret = NULL;

    wr.wr.rdma.rkey = key;
    wr.wr.rdma.remote_addr = at;
    assert_int_equal(ibv_post_send(qp, &wr, &ret), 0);
    assert_int_equal(ibv_dereg_mr(mr), 0);
}

static void want_refused(unsigned long refusals)
{
    struct fake_counters count;

    fake_count(&count);
    assert_int_equal(count.refused, refusals);
}

/* The n-th key is used for what it is not: the other way, before it, behind it. False:
 * there is no such key. */
static bool misuse(unsigned n, int how, bool peermem)
{
    struct gapless_error reason = {0};
    struct fake_key key;
    struct slot slot;
    bool there, writes;

    fake_begin();
    fake_rules.peermem = fake_rules.no_dmabuf = peermem;
    placed_open(&slot, ROCE, true);
    memset(slot.gpu[0].look, 1, slot.gpu[0].bytes);
    memset(slot.gpu[1].look, 2, slot.gpu[1].bytes);
    key = key_at(0, n);
    there = key.rkey != 0;
    writes = (key.access & IBV_ACCESS_REMOTE_WRITE) != 0;
    if (there) {
        assert_true(key.access == IBV_ACCESS_REMOTE_WRITE ||
                    key.access == IBV_ACCESS_REMOTE_READ);
        reach(0, key.rkey,
              how == 0   ? key.base
              : how == 1 ? key.base - 1
                         : key.base + key.bytes - 7,
              how == 0 ? !writes : writes);
        want_refused(1);
        assert_int_equal(must_event(&slot.bed.server, TP_DOWN).peer,
                         slot.bed.to_client);
        t->last_error(slot.bed.server.tp, slot.bed.to_client, &reason);
        assert_int_equal(reason.status, GAPLESS_PROTOCOL);
        for (size_t i = 0; i < slot.gpu[0].bytes; i++)
            assert_int_equal(slot.gpu[0].look[i], 1);
        for (size_t i = 0; i < slot.gpu[1].bytes; i++)
            assert_int_equal(slot.gpu[1].look[i], 2);
    }
    placed_end(&slot);
    return there;
}

static void rights_hold_for_each_part(void **state)
{
    (void)state;
    for (int how = 0; how < 3; how++) {
        unsigned n = 0;

        while (misuse(n, how, false))
            n++;
        assert_int_equal(n, 4); /* head, sent, push, gradient */
        assert_true(misuse(3, how, true));
    }
}

/* Not the key of another, who has the same parts. */
static void keys_of_others(void **state)
{
    struct tp_config config = bed_config(1, "a token of this run");
    static const char *const where[] = {ROCE, IWARP};
    struct tp_region window;
    struct bed_end other;
    tp_peer peer, number;
    struct slot slot;

    (void)state;
    for (int i = 0; i < 2; i++) {
        fake_begin();
        fake_rules.peermem = true;
        placed_open(&slot, where[i], true);
        must_open(&other, &config);
        must_join(&slot.bed, &other, where[i], &peer, &number, &window);
        reach(1, key_at(0, 3).rkey, key_at(0, 3).base, true);
        want_refused(1);
        assert_int_equal(must_event(&slot.bed.server, TP_DOWN).peer, number);
        placed_works(&slot, 5);
        bed_close(&other);
        placed_end(&slot);
    }
}

/* Memory of the host has windows, bound in what was registered when it was placed; but
 * in two registrations where it has both halves. */
static void windows_in_placed_memory(void **state)
{
    static _Alignas(4096) char host[8 * PAGE];
    struct tp_config config = bed_config(2, "a token of this run");
    struct gapless_error error = {0};
    struct fake_counters count;
    struct bed bed;
    const char *how;
    char *window;

    (void)state;
    for (size_t split = 2 * PAGE; split <= 6 * PAGE; split += 2 * PAGE) {
        struct tp_memory memory = {.base = host, .bytes = 4 * PAGE, .dmabuf = -1};

        bed = (struct bed){0};
        fake_begin();
        must_open(&bed.server, &config);
        assert_int_equal(t->region_new(bed.server.tp, 8 * PAGE, &bed.region, &error),
                         0);
        bed.region.split = split;
        assert_int_equal(t->listen(bed.server.tp, ROCE, &error), GAPLESS_OK);
        assert_int_equal(
            t->bind_memory(bed.server.tp, &bed.region, 2 * PAGE, &memory, &how, &error),
            GAPLESS_OK);
        must_open(&bed.client, &config);
        must_join(&bed, &bed.client, ROCE, &bed.to_server, &bed.to_client, &bed.window);
        fake_count(&count);
        assert_int_equal(count.binds, split == 4 * PAGE ? 4 : 3);
        window = bed.window.base;
        placed_fill(window + split, 8 * PAGE - split, 3);
        memset(host, 0, sizeof host);
        placed_fill(bed.region.base, 2 * PAGE, 4);
        placed_move(&bed.client,
                    t->put(bed.client.tp, bed.to_server, &bed.window, split,
                           8 * PAGE - split, 1),
                    1);
        assert_int_equal(must_event(&bed.server, TP_NOTE).note, 1);
        if (split < 6 * PAGE)
            assert_memory_equal(host + split - 2 * PAGE, window + split,
                                6 * PAGE - split);
        placed_move(&bed.client,
                    t->get(bed.client.tp, bed.to_server, &bed.window, 0, split, 2), 2);
        assert_true(placed_filled(window, 2 * PAGE, 4));
        assert_memory_equal(host, window + 2 * PAGE, split - 2 * PAGE);
        reach(0, key_at(0, 0).rkey, key_at(0, 0).base, true);
        want_refused(1);
        bed_end(&bed);
    }
}

/* ---- grants -------------------------------------------------------------- */

/* The server's card sends a frame that the server knows nothing of but its tag. */
static void send_offer(struct bed *bed, unsigned connection,
                       const struct verbs_offer *offer, uint32_t bytes)
{
    struct verbs_frame frame = {.kind = VERBS_GRANT, .bytes = (uint16_t)bytes};
    struct ibv_qp *qp = fake_pair(connection, FAKE_PASSIVE);
    struct ibv_mr *mr =
        ibv_reg_mr(qp->pd, &frame, sizeof frame, IBV_ACCESS_LOCAL_WRITE);
    struct ibv_sge sge = {(uintptr_t)&frame, VERBS_FRAME_HEAD + bytes, mr->lkey};
    struct ibv_send_wr wr = {
        .wr_id = UINT64_MAX, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND};
    struct ibv_send_wr *ret = NULL;

    frame.as.offer = *offer;
    verbs_tag(bed->server.tp->peers[bed->to_client].channel[connection], &frame);
    assert_int_equal(ibv_post_send(qp, &wr, &ret), 0);
    assert_int_equal(ibv_dereg_mr(mr), 0);
}

/* Two parts of a page, at addresses that are fine. */
static struct verbs_offer good(void)
{
    return (struct verbs_offer){.window = 1,
                                .access = TP_SPLIT,
                                .parts = 2,
                                .count = 2,
                                .bytes = 2 * PAGE,
                                .split = PAGE,
                                .part = {{PAGE, 1 << 20, 1, 2}, {PAGE, 1 << 24, 3, 4}}};
}

static void want_ended(const struct verbs_offer *first, const struct verbs_offer *then,
                       uint32_t bytes)
{
    struct gapless_error reason = {0};
    struct bed bed;

    fake_begin();
    must_bed(&bed, ROCE, 2 * PAGE);
    send_offer(&bed, 0, first, then != NULL ? VERBS_OFFER_BYTES(first->count) : bytes);
    if (then != NULL)
        send_offer(&bed, 0, then, bytes);
    (void)must_event(&bed.client, TP_DOWN);
    t->last_error(bed.client.tp, bed.to_server, &reason);
    assert_int_equal(reason.status, GAPLESS_PROTOCOL);
    assert_non_null(strstr(reason.text, "granted"));
    bed_end(&bed);
}

#define WRONG(field, value)                                                            \
    do {                                                                               \
        struct verbs_offer bad = good();                                               \
                                                                                       \
        bad.field = (value);                                                           \
        want_ended(&bad, NULL, VERBS_OFFER_BYTES(2));                                  \
    } while (0)

static void grants_that_make_no_sense(void **state)
{
    struct verbs_offer first = good(), then = good();

    (void)state;
    WRONG(window, 4);
    WRONG(window, UINT32_MAX);
    WRONG(access, TP_SPLIT + 1);
    WRONG(parts, 0);
    WRONG(parts, 1);
    WRONG(parts, VERBS_PARTS + 1);
    WRONG(first, 1);
    WRONG(first, 255);
    WRONG(count, 0);
    WRONG(count, 1);
    WRONG(count, 9);
    WRONG(count, 255);
    WRONG(bytes, 0);
    WRONG(bytes, UINT64_MAX);
    WRONG(bytes, 2 * PAGE - 1); /* the parts exceed it */
    WRONG(bytes, 2 * PAGE + 1);
    WRONG(split, 2 * PAGE + 1);
    WRONG(part[0].bytes, 0);
    WRONG(part[1].bytes, 0);
    WRONG(part[0].bytes, UINT64_MAX);
    WRONG(part[1].bytes, UINT64_MAX - PAGE + 1);
    WRONG(part[0].address, UINT64_MAX - 5);
    WRONG(part[1].address, UINT64_MAX - PAGE + 1);
    WRONG(part[1].address, (1 << 20) + PAGE - 1); /* they overlap */
    WRONG(part[1].address, (1 << 20) - PAGE + 1);
    WRONG(part[1].address, 1 << 20);
    want_ended(&first, NULL, 0);
    want_ended(&first, NULL, VERBS_OFFER_HEAD - 1);
    want_ended(&first, NULL, VERBS_OFFER_HEAD);
    want_ended(&first, NULL, VERBS_OFFER_BYTES(2) - 1);
    want_ended(&first, NULL, VERBS_FRAME_DATA);
    /* In two frames: begun anew, another region, one part too many. */
    first.count = 1;
    want_ended(&first, &first, VERBS_OFFER_BYTES(1));
    then.first = then.count = 1;
    then.part[0] = then.part[1];
    then.bytes++;
    want_ended(&first, &then, VERBS_OFFER_BYTES(1));
    then = good();
    then.first = 1;
    want_ended(&first, &then, VERBS_OFFER_BYTES(2));
}

/* In as many frames as there are parts; the one before holds until the last has
 * come. */
static void a_grant_in_pieces(void **state)
{
    struct gapless_error error = {0};
    struct verbs_offer offer = good();
    struct tp_event event;
    struct tp_region window;
    struct bed bed;

    (void)state;
    fake_begin();
    must_bed(&bed, ROCE, 2 * PAGE);
    offer.window = 0;
    offer.count = 1;
    send_offer(&bed, 0, &offer, VERBS_OFFER_BYTES(1));
    assert_int_equal(bed_event(&bed.client, TP_TEXT, &event, 20 * MS), GAPLESS_TIMEOUT);
    must_work(&bed.server, bed.to_client, &bed.client, bed.to_server, &bed.window,
              &bed.region);
    offer.first = 1;
    offer.part[0] = offer.part[1];
    send_offer(&bed, 0, &offer, VERBS_OFFER_BYTES(1));
    assert_int_equal(bed_event(&bed.client, TP_TEXT, &event, 20 * MS), GAPLESS_TIMEOUT);
    assert_int_equal(t->put(bed.client.tp, bed.to_server, &bed.window, PAGE, 8, 1),
                     GAPLESS_INVALID);
    assert_int_equal(
        t->window(bed.client.tp, bed.to_server, 0, LONG_NS, &window, &error),
        GAPLESS_OK);
    assert_int_equal(window.bytes, 2 * PAGE);
    bed_end(&bed);
}

static void channels_are_granted_the_same(void **state)
{
    struct gapless_error reason = {0};
    struct verbs_offer offer = good();
    struct bed bed;

    (void)state;
    fake_begin();
    must_bed(&bed, TWO, 2 * PAGE);
    send_offer(&bed, 0, &offer, VERBS_OFFER_BYTES(2));
    offer.bytes += PAGE;
    offer.part[1].bytes += PAGE;
    send_offer(&bed, 1, &offer, VERBS_OFFER_BYTES(2));
    (void)must_event(&bed.client, TP_DOWN);
    t->last_error(bed.client.tp, bed.to_server, &reason);
    assert_non_null(strstr(reason.text, "different things"));
    bed_end(&bed);
}

static void granted_again(void **state)
{
    struct gapless_error error = {0};
    struct tp_event event;
    struct slot slot;
    struct bed *bed = &slot.bed;

    (void)state;
    fake_begin();
    placed_open(&slot, ROCE, true);
    fake_pace(FAKE_BY_HAND);
    for (int i = 0; i < 3; i++)
        assert_int_equal(
            t->grant(bed->server.tp, bed->to_client, &bed->region, 0, TP_SPLIT, &error),
            GAPLESS_OK);
    fake_pace(FAKE_AT_POST);
    assert_int_equal(bed_event(&bed->client, TP_TEXT, &event, 20 * MS),
                     GAPLESS_TIMEOUT);
    assert_int_equal(
        t->put(bed->client.tp, bed->to_server, &bed->window, GRAD_AT, 8, 1),
        GAPLESS_INVALID);
    assert_int_equal(
        t->window(bed->client.tp, bed->to_server, 0, LONG_NS, &bed->window, &error),
        GAPLESS_OK);
    placed_works(&slot, 6);
    placed_end(&slot);
}

/* ---- ends ---------------------------------------------------------------- */

/* Some of a put's requests arrive, and then its sender is gone: no note tells of it.
 * False: all of them arrived. */
static bool dies_after(int requests)
{
    struct slot slot;
    struct bed *bed = &slot.bed;
    struct tp_event event;
    int status, done, notes = 0;

    fake_begin();
    placed_open(&slot, ROCE, true);
    placed_fill(bed->window.base, SLOT_BYTES, 3);
    fake_pace(FAKE_BY_HAND);
    assert_int_equal(t->put(bed->client.tp, bed->to_server, &bed->window, SLOT_SPLIT,
                            SLOT_BYTES - SLOT_SPLIT, 1),
                     1);
    done = fake_pump_one(fake_pair(0, FAKE_ACTIVE), requests);
    fake_vanish(0);
    fake_cut(0);
    do {
        status = t->poll(bed->server.tp, &event, 1, 10 * MS);
        assert_in_range(status, 0, 1);
        notes += status == 1 && event.kind == TP_NOTE ? 1 : 0;
    } while (status != 1 || event.kind != TP_DOWN);
    fake_pace(FAKE_AT_POST);
    assert_int_equal(notes, requests >= 2 ? 1 : 0);
    placed_end(&slot);
    return done == requests;
}

static void half_a_gradient_is_not_reported(void **state)
{
    int requests = 0;

    (void)state;
    while (dies_after(requests))
        requests++;
    assert_int_equal(requests, 3);
}

/* A region that is freed is reached by nobody, so its memory may go, before the
 * peers. */
static void the_region_goes_first(void **state)
{
    struct fake_counters count;
    struct fake_key key;
    struct slot slot;

    (void)state;
    fake_begin();
    placed_open(&slot, TWO, true);
    placed_works(&slot, 3);
    key = key_at(0, 3);
    t->region_free(slot.bed.server.tp, &slot.bed.region);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(key_at(i, 0).rkey, 0);
    memset(slot.gpu[1].look, 5, slot.gpu[1].bytes);
    reach(0, key.rkey, key.base, true);
    fake_count(&count);
    assert_int_equal(count.refused, 1);
    assert_int_equal(slot.gpu[1].look[0], 5);
    placed_end(&slot);
}

/* ---- failures ------------------------------------------------------------ */

/* All that is new in a slot's life; every status but the last is let go by when the
 * peer is gone for it. */
static int life(struct slot *slot, struct accel *mine, struct gapless_error *error)
{
    struct bed *bed = &slot->bed;
    struct tp_memory memory = accel_memory(mine, 0, GRAD_BYTES);
    struct tp_event event;
    const char *how;
    char byte = 0;
    int status =
        t->grant(bed->server.tp, bed->to_client, &bed->region, 0, TP_SPLIT, error);

    if (status == GAPLESS_OK)
        status = t->window(bed->client.tp, bed->to_server, 0, pace_most_ns(150 * MS),
                           &bed->window, error);
    if (status == GAPLESS_OK)
        status =
            t->bind_memory(bed->client.tp, &bed->window, GRAD_AT, &memory, &how, error);
    if (status == GAPLESS_OK)
        status = t->loopback(bed->server.tp, &bed->region, GRAD_AT, &byte, 1, TP_OUT_OF,
                             error);
    if (status != GAPLESS_OK)
        return status;
    status = t->put(bed->client.tp, bed->to_server, &bed->window, SLOT_SPLIT,
                    SLOT_BYTES - SLOT_SPLIT, 1);
    if (status >= 0)
        status = bed_event(&bed->server, TP_NOTE, &event, pace_most_ns(150 * MS));
    if (status == GAPLESS_TIMEOUT) /* then the other side knows of it */
        (void)bed_event(&bed->client, TP_DOWN, &event, pace_most_ns(150 * MS));
    if (status < 0)
        t->last_error(bed->client.tp, bed->to_server, error);
    if (status < 0 && error->status == GAPLESS_OK)
        t->last_error(bed->server.tp, bed->to_client, error);
    return status;
}

static bool live(const char *address, long n, bool forever)
{
    struct tp_config config = bed_config(1, "a token of this run");
    struct gapless_error error = {0};
    const char *failed;
    struct accel mine;
    struct slot slot;
    int status;

    fake_begin();
    placed_open(&slot, address, false);
    accel_take(&mine, GRAD_BYTES);
    must_open(&slot.bed.client, &config);
    assert_int_equal(bed_join(&slot.bed.server, &slot.bed.client, address, LONG_NS,
                              &slot.bed.to_server, &slot.bed.to_client, &error),
                     GAPLESS_OK);
    fake_fail_at(n, forever);
    status = life(&slot, &mine, &error);
    failed = fake_failed();
    if (status > 0 || (status < 0 && error.text[0] == '\0'))
        fail_msg("failure %ld, of %s: status %d and no words", n, failed, status);
    if (status < 0 && failed[0] == '\0')
        fail_msg("status %d though nothing failed: %s", status, error.text);
    fake_fail_at(-1, false);
    placed_end(&slot);
    accel_give(&mine);
    return failed[0] != '\0';
}

static void every_call_fails(void **state)
{
    static const char *const where[] = {ROCE, TWO};

    (void)state;
    for (int w = 0; w < 2; w++)
        for (int forever = 0; forever < 2; forever++) {
            long n = 0;

            while (live(where[w], n, forever != 0))
                n += forever != 0 ? 7 : w == 0 ? 1 : 5;
            assert_in_range(n, 20, 500);
        }
}

/* Placing alone: whatever fails, it is as before, and goes well the next time. */
static void placing_fails(void **state)
{
    const char *failed = "none";
    long n = 0;

    (void)state;
    for (; failed[0] != '\0'; n++) {
        struct tp_config config = bed_config(2, "a token of this run");
        struct gapless_error error = {0};
        struct bed_end server;
        struct tp_region region;
        struct tp_memory memory;
        const char *how = NULL;
        struct accel gpu;
        int status;

        fake_begin();
        accel_take(&gpu, 2 * PAGE);
        memory = accel_memory(&gpu, 0, PAGE);
        must_open(&server, &config);
        assert_int_equal(t->region_new(server.tp, 4 * PAGE, &region, &error), 0);
        assert_int_equal(t->listen(server.tp, TWO, &error), 0);
        fake_fail_at(n, false);
        status = t->bind_memory(server.tp, &region, PAGE, &memory, &how, &error);
        failed = fake_failed();
        fake_fail_at(-1, false);
        if (status < 0) {
            assert_true(failed[0] != '\0' && error.text[0] != '\0' && how == NULL);
            status = t->bind_memory(server.tp, &region, PAGE, &memory, &how, &error);
        }
        assert_int_equal(status, GAPLESS_OK);
        assert_string_equal(how, "DMA-BUF");
        bed_close(&server);
        must_be_clean();
        accel_give(&gpu);
    }
    assert_in_range(n, 8, 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rights_hold_for_each_part),
        cmocka_unit_test(keys_of_others),
        cmocka_unit_test(windows_in_placed_memory),
        cmocka_unit_test(grants_that_make_no_sense),
        cmocka_unit_test(a_grant_in_pieces),
        cmocka_unit_test(channels_are_granted_the_same),
        cmocka_unit_test(granted_again),
        cmocka_unit_test(half_a_gradient_is_not_reported),
        cmocka_unit_test(the_region_goes_first),
        cmocka_unit_test(every_call_fails),
        cmocka_unit_test(placing_fails),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
