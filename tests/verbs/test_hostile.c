/* Clients that keep to no rules, over verbs: what was not granted cannot be touched,
 * what was granted ends with the peer, and a server outlives whatever is sent to it. */
#include "tests/verbs/bed.h"
#include "tests/verbs/ends.h"

#include "transport/verbs/wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define BYTES (2 * PAGE)

static const struct transport *const t = &transport_verbs;

/* ---- strangers ----------------------------------------------------------- */

/* Acknowledges an event; what it was, -1: there was none. */
static int event_end(struct rdma_cm_event *reported)
{
    int kind;

    if (reported == NULL)
        return -1;
    kind = (int)reported->event;
    assert_int_equal(rdma_ack_cm_event(reported), 0);
    return kind;
}

/* A stranger: connected, and that is all. */
static void stranger_comes(struct bed *bed, struct end *end)
{
    struct verbs_request hello = {.magic = VERBS_MAGIC, .protocol = VERBS_PROTOCOL};
    struct rdma_conn_param param = {.private_data = &hello,
                                    .private_data_len = sizeof hello,
                                    .responder_resources = 4,
                                    .initiator_depth = 4,
                                    .retry_count = 6,
                                    .rnr_retry_count = 6};
    struct tp_event events[4];
    struct rdma_cm_event *reported = NULL;

    memset(end, 0, sizeof *end);
    end_resolve(end, "10.1.1.1", 7471);
    bed_request_mac(end->id, "a token of this run", hello.mac);
    assert_int_equal(rdma_connect(end->id, &param), 0);
    for (int i = 0; i < 1000 && reported == NULL; i++) {
        (void)t->poll(bed->server.tp, events, 4, 1 * MS);
        (void)rdma_get_cm_event(end->channel, &reported);
    }
    assert_int_equal(event_end(reported), RDMA_CM_EVENT_ESTABLISHED);
    for (uint64_t i = 0; i < RECEIVES; i++)
        assert_int_equal(
            receive(end, i, (uint32_t)i * VERBS_FRAME_BYTES, VERBS_FRAME_BYTES), 0);
}

/* ---- keys ---------------------------------------------------------------- */

/* The server's key that permits `access` to the client of a connection, the last made
 * of them; those of windows belong to one pair, others to everybody. */
static struct fake_key key_of(unsigned connection, unsigned access)
{
    const struct ibv_qp *pair = fake_pair(connection, FAKE_PASSIVE);
    struct fake_key all[64], found = {0};
    size_t count = fake_keys(all, 64);

    assert_in_range(count, 1, 64);
    for (size_t i = 0; i < count; i++) {
        if (all[i].pd == pair->pd && (all[i].access & access) != 0 &&
            (all[i].pair == 0 || all[i].pair == pair->qp_num) &&
            all[i].rkey > found.rkey)
            found = all[i];
    }
    assert_int_not_equal(found.rkey, 0);
    return found;
}

/* A client's card is told to write where `key` leads, or to read from there. */
static void reach(unsigned connection, uint32_t key, uint64_t at, bool writes)
{
    static char bad[8] = "intrude";
    struct ibv_qp *qp = fake_pair(connection, FAKE_ACTIVE);
    struct ibv_mr *mr = ibv_reg_mr(qp->pd, bad, sizeof bad,
                                   IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
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

static unsigned long refusals(void)
{
    struct fake_counters count;

    fake_count(&count);
    return count.refused;
}

/* The card refuses; the server ends the peer, says why, and goes on with another. */
static void want_refused(const char *address, unsigned access, int64_t off, bool writes)
{
    struct gapless_error reason = {0};
    struct tp_config config = bed_config(1, "a token of this run");
    struct tp_region window;
    struct bed_end other;
    struct fake_key key;
    tp_peer peer, number;
    struct bed bed;
    char before[BYTES];

    fake_begin();
    must_bed(&bed, address, BYTES);
    must_open(&other, &config);
    must_join(&bed, &other, address, &peer, &number, &window);
    memcpy(before, bed.region.base, BYTES);
    key = key_of(0, access);
    assert_int_equal(refusals(), 0);
    reach(0, key.rkey, key.base + (uint64_t)off, writes);
    assert_int_equal(refusals(), 1);
    assert_memory_equal(bed.region.base, before, BYTES);
    assert_int_equal(must_event(&bed.server, TP_DOWN).peer, bed.to_client);
    t->last_error(bed.server.tp, bed.to_client, &reason);
    assert_int_equal(reason.status, GAPLESS_PROTOCOL);
    assert_non_null(strstr(reason.text, "not granted"));
    must_work(&bed.server, number, &other, peer, &window, &bed.region);
    bed_close(&other);
    bed_end(&bed);
}

static void out_of_bounds(void **state)
{
    (void)state;
    want_refused(ROCE, IBV_ACCESS_REMOTE_WRITE, BYTES / 2, true);
    want_refused(ROCE, IBV_ACCESS_REMOTE_WRITE, -1, true);
    want_refused(ROCE, IBV_ACCESS_REMOTE_READ, BYTES / 2, false);
    want_refused(IWARP, IBV_ACCESS_REMOTE_WRITE, BYTES / 2, true);
}

static void the_wrong_way(void **state)
{
    (void)state;
    want_refused(ROCE, IBV_ACCESS_REMOTE_WRITE, 0, false);
    want_refused(ROCE, IBV_ACCESS_REMOTE_READ, 0, true);
    want_refused(IWARP, IBV_ACCESS_REMOTE_READ, 0, true);
}

/* What one client was granted is of no use to another, should it guess the key: a
 * window belongs to one queue pair, and without windows each has a domain of its own.
 */
static void the_key_of_another(const char *address)
{
    struct tp_config config = bed_config(1, "a token of this run");
    struct tp_region window;
    struct bed_end other;
    struct fake_key key;
    tp_peer peer, number;
    struct bed bed;

    fake_begin();
    must_bed(&bed, address, BYTES);
    must_open(&other, &config);
    must_join(&bed, &other, address, &peer, &number, &window);
    key = key_of(0, IBV_ACCESS_REMOTE_WRITE);
    reach(1, key.rkey, key.base, true);
    assert_int_equal(refusals(), 1);
    assert_int_equal(must_event(&bed.server, TP_DOWN).peer, number);
    must_work(&bed.server, bed.to_client, &bed.client, bed.to_server, &bed.window,
              &bed.region);
    bed_close(&other);
    bed_end(&bed);
}

static void keys_of_others(void **state)
{
    (void)state;
    the_key_of_another(ROCE);
    the_key_of_another(IWARP);
}

/* What all may read, a stranger who has only connected may not, should it guess the
 * key. */
static void a_stranger_reads(void **state)
{
    struct end *end = aligned_alloc(4096, sizeof *end);
    struct gapless_error error = {0};
    struct tp_region shared;
    struct fake_key key;
    struct bed bed;

    (void)state;
    assert_non_null(end);
    fake_begin();
    must_bed(&bed, ROCE, BYTES);
    assert_int_equal(t->region_new(bed.server.tp, BYTES, &shared, &error), GAPLESS_OK);
    assert_int_equal(
        t->grant(bed.server.tp, bed.to_client, &shared, 1, TP_READ, &error),
        GAPLESS_OK);
    key = key_of(0, IBV_ACCESS_REMOTE_READ);
    assert_int_equal(key.base, (uintptr_t)shared.base);
    stranger_comes(&bed, end);
    reach(1, key.rkey, key.base, false);
    assert_int_equal(refusals(), 1);
    must_work(&bed.server, bed.to_client, &bed.client, bed.to_server, &bed.window,
              &bed.region);
    end_close(end);
    free(end);
    bed_end(&bed);
}

/* A slot that was taken away: what its old owner still sends finds nothing. */
static void keys_end_with_their_peer(const char *address)
{
    struct tp_config config = bed_config(1, "a token of this run");
    struct tp_region window;
    struct bed_end other;
    struct fake_key key, fresh;
    tp_peer peer, number;
    struct bed bed;

    fake_begin();
    must_bed(&bed, address, BYTES);
    key = key_of(0, IBV_ACCESS_REMOTE_WRITE);
    t->drop(bed.server.tp, bed.to_client);
    (void)must_event(&bed.client, TP_DOWN);
    must_open(&other, &config);
    must_join(&bed, &other, address, &peer, &number, &window);
    fresh = key_of(1, IBV_ACCESS_REMOTE_WRITE);
    assert_int_not_equal(fresh.rkey, key.rkey);
    assert_int_equal(fresh.base, key.base);
    memset(bed.region.base, 0, BYTES);
    reach(1, key.rkey, key.base, true);
    assert_int_equal(refusals(), 1);
    assert_int_equal(((char *)bed.region.base)[BYTES / 2], 0);
    bed_close(&other);
    bed_end(&bed);
}

static void a_late_write_finds_nothing(void **state)
{
    (void)state;
    keys_end_with_their_peer(ROCE);
    keys_end_with_their_peer(IWARP);
}

/* ---- frames -------------------------------------------------------------- */

static void stranger_sends(struct end *end, const void *data, uint32_t bytes)
{
    char *at = (char *)end->memory + RECEIVES * VERBS_FRAME_BYTES;
    struct ibv_sge sge = {(uintptr_t)at, bytes, end->mr->lkey};
    struct ibv_send_wr wr = request(IBV_WR_SEND, &sge);

    memcpy(at, data, bytes);
    assert_int_equal(post(end, &wr), 0);
}

/* The server says goodbye, and is well. */
static void want_shown_the_door(struct bed *bed, struct end *end)
{
    struct rdma_cm_event *reported = NULL;
    struct tp_event events[8];
    uint64_t bound = bed_clock_ns() + (uint64_t)LONG_NS;

    while (reported == NULL && bed_clock_ns() < bound) {
        int count = t->poll(bed->server.tp, events, 8, 1 * MS);

        assert_in_range(count, 0, 8);
        for (int i = 0; i < count; i++)
            assert_int_not_equal(events[i].kind, TP_UP);
        (void)rdma_get_cm_event(end->channel, &reported);
    }
    assert_int_equal(event_end(reported), RDMA_CM_EVENT_DISCONNECTED);
    must_work(&bed->server, bed->to_client, &bed->client, bed->to_server, &bed->window,
              &bed->region);
}

static void frames_of_strangers(void **state)
{
    struct end *end = aligned_alloc(4096, sizeof *end);
    struct verbs_frame frame;
    struct bed bed;

    (void)state;
    assert_non_null(end);
    fake_begin();
    must_bed(&bed, ROCE, BYTES);
    for (uint32_t kind = 0; kind < 14; kind++) {
        for (uint32_t i = 0; i < 4; i++) {
            static const uint16_t sizes[] = {0, 8, VERBS_FRAME_DATA, 65535};

            if (kind == VERBS_HELLO && sizes[i] == sizeof frame.as.hello)
                continue;
            memset(&frame, (int)(kind * 37), sizeof frame);
            frame.kind = (uint8_t)kind;
            frame.bytes = sizes[i];
            stranger_comes(&bed, end);
            stranger_sends(end, &frame,
                           VERBS_FRAME_HEAD +
                               (sizes[i] <= VERBS_FRAME_DATA ? sizes[i] : 0u));
            want_shown_the_door(&bed, end);
            end_close(end);
        }
    }
    free(end);
    bed_end(&bed);
}

/* Shorter and longer than a frame. */
static void pieces_of_frames(void **state)
{
    static const char data[VERBS_FRAME_BYTES] = "\001";
    struct end *end = aligned_alloc(4096, sizeof *end);
    struct bed bed;

    (void)state;
    assert_non_null(end);
    fake_begin();
    must_bed(&bed, ROCE, BYTES);
    for (uint32_t bytes = 0; bytes <= VERBS_FRAME_BYTES; bytes += 5) {
        if (bytes == VERBS_FRAME_HEAD)
            continue;
        stranger_comes(&bed, end);
        stranger_sends(end, data, bytes);
        want_shown_the_door(&bed, end);
        end_close(end);
    }
    free(end);
    bed_end(&bed);
}

/* A note, and a proof without a question, before the welcome. */
static void out_of_turn(void **state)
{
    struct end *end = aligned_alloc(4096, sizeof *end);
    struct verbs_frame frame = {.kind = VERBS_PROOF, .bytes = sizeof frame.as.proof};
    struct ibv_send_wr wr = request(IBV_WR_RDMA_WRITE_WITH_IMM, NULL);
    struct bed bed;

    (void)state;
    assert_non_null(end);
    fake_begin();
    must_bed(&bed, ROCE, BYTES);
    stranger_comes(&bed, end);
    wr.imm_data = htonl(1);
    assert_int_equal(post(end, &wr), 0);
    want_shown_the_door(&bed, end);
    end_close(end);
    stranger_comes(&bed, end);
    stranger_sends(end, &frame, VERBS_FRAME_HEAD + sizeof frame.as.proof);
    want_shown_the_door(&bed, end);
    end_close(end);
    free(end);
    bed_end(&bed);
}

/* A request to connect that is not ours. */
static void another_protocol(void **state)
{
    struct rdma_conn_param param = {
        .private_data = "GET / HTTP/1.0", .private_data_len = 14, .retry_count = 6};
    struct end *end = aligned_alloc(4096, sizeof *end);
    struct rdma_cm_event *reported = NULL;
    struct tp_event events[4];
    struct bed bed;

    (void)state;
    assert_non_null(end);
    memset(end, 0, sizeof *end);
    fake_begin();
    must_bed(&bed, ROCE, BYTES);
    end_ask(end, "10.1.1.1", 7471, &param);
    for (int i = 0; i < 1000 && reported == NULL; i++) {
        (void)t->poll(bed.server.tp, events, 4, 1 * MS);
        (void)rdma_get_cm_event(end->channel, &reported);
    }
    assert_int_equal(event_end(reported), RDMA_CM_EVENT_REJECTED);
    end_close(end);
    free(end);
    must_work(&bed.server, bed.to_client, &bed.client, bed.to_server, &bed.window,
              &bed.region);
    bed_end(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(out_of_bounds),
        cmocka_unit_test(the_wrong_way),
        cmocka_unit_test(keys_of_others),
        cmocka_unit_test(a_stranger_reads),
        cmocka_unit_test(a_late_write_finds_nothing),
        cmocka_unit_test(frames_of_strangers),
        cmocka_unit_test(pieces_of_frames),
        cmocka_unit_test(out_of_turn),
        cmocka_unit_test(another_protocol),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
