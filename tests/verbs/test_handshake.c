/* The handshake over verbs, against what knows no token, or whose connection is not what
 * it seems: wire.h's proofs, made here once more from its words, and its tags. */
#include "tests/verbs/bed.h"
#include "tests/verbs/ends.h"

#include "engine/base/clock.h"
#include "transport/verbs/verbs.h"

#include <arpa/inet.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#define TOKEN "a token of this run"
#define RELAY "10.1.1.1:7000"

static const struct transport *const t = &transport_verbs;

/* ---- frames by hand ------------------------------------------------------ */

/* In a lot of `memory`: what is received first, then what is sent. */
static struct verbs_frame *frame_at(struct end *end, uint64_t number)
{
    return (struct verbs_frame *)(void *)(end->memory + number * VERBS_FRAME_BYTES);
}

static void receives_post(struct end *end)
{
    for (uint64_t i = 0; i < RECEIVES; i++)
        assert_int_equal(
            receive(end, i, (uint32_t)i * VERBS_FRAME_BYTES, VERBS_FRAME_BYTES), 0);
}

static void frame_post(struct end *end, const struct verbs_frame *frame)
{
    struct verbs_frame *at = frame_at(end, RECEIVES);
    struct ibv_sge sge = {(uintptr_t)at, VERBS_FRAME_HEAD + frame->bytes,
                          end->mr->lkey};
    struct ibv_send_wr wr = request(IBV_WR_SEND, &sge);

    wr.wr_id = UINT64_MAX;
    memcpy(at, frame, sizeof *frame);
    assert_int_equal(post(end, &wr), 0);
}

/* A frame that has come; NULL: none yet. */
static struct verbs_frame *frame_take(struct end *end)
{
    struct ibv_wc wc;

    while (ibv_poll_cq(end->cq, 1, &wc) == 1)
        if (wc.wr_id < RECEIVES && wc.status == IBV_WC_SUCCESS)
            return frame_at(end, wc.wr_id);
    return NULL;
}

static struct rdma_conn_param asking(const struct verbs_request *hello)
{
    return (struct rdma_conn_param){.private_data = hello,
                                    .private_data_len = sizeof *hello,
                                    .responder_resources = 4,
                                    .initiator_depth = 4,
                                    .retry_count = 6,
                                    .rnr_retry_count = 6};
}

static const struct verbs_request ours = {.magic = VERBS_MAGIC,
                                          .protocol = VERBS_PROTOCOL};

/* Whether the server has let somebody in while it was looked after. */
static bool server_looks(struct bed_end *server)
{
    struct tp_event events[8];
    int count = t->poll(server->tp, events, 8, 0);
    bool up = false;

    for (int i = 0; i < count; i++)
        up = up || events[i].kind == TP_UP;
    return up;
}

/* Connects to the server at ROCE; *ret_pair is the server's queue pair. */
static void stranger_connect(struct bed_end *server, struct end *end,
                             uint32_t *ret_pair)
{
    struct verbs_request hello = ours;
    struct rdma_conn_param param = asking(&hello);
    struct rdma_cm_event *event = NULL;

    memset(end, 0, sizeof *end);
    end_resolve(end, "10.1.1.1", 7471);
    bed_request_mac(end->id, TOKEN, hello.mac);
    assert_int_equal(rdma_connect(end->id, &param), 0);
    while (rdma_get_cm_event(end->channel, &event) != 0)
        (void)server_looks(server);
    assert_int_equal(event->event, RDMA_CM_EVENT_ESTABLISHED);
    *ret_pair = event->param.conn.qp_num;
    assert_int_equal(rdma_ack_cm_event(event), 0);
    receives_post(end);
}

static struct verbs_frame *frame_await(struct bed_end *server, struct end *end,
                                       bool *ret_up)
{
    uint64_t bound = bed_clock_ns() + (uint64_t)LONG_NS;
    struct verbs_frame *frame = NULL;

    while (frame == NULL && bed_clock_ns() < bound) {
        *ret_up = server_looks(server) || *ret_up;
        frame = frame_take(end);
    }
    assert_non_null(frame);
    return frame;
}

/* ---- proofs by hand ------------------------------------------------------ */

static void link_take(const struct end *end, uint32_t pair, struct verbs_link *ret)
{
    const struct sockaddr_in *here =
        (const struct sockaddr_in *)(void *)rdma_get_local_addr(end->id);
    const struct sockaddr_in *there =
        (const struct sockaddr_in *)(void *)rdma_get_peer_addr(end->id);

    memset(ret, 0, sizeof *ret);
    for (int i = 0; i < 2; i++)
        memset(ret->address[i] + 10, 0xff, 2);
    memcpy(ret->address[0] + 12, &here->sin_addr, 4);
    memcpy(ret->address[1] + 12, &there->sin_addr, 4);
    memcpy(ret->gid[0], &end->id->route.addr.addr.ibaddr.sgid, 16);
    memcpy(ret->gid[1], &end->id->route.addr.addr.ibaddr.dgid, 16);
    ret->port[0] = ntohs(here->sin_port);
    ret->port[1] = ntohs(there->sin_port);
    ret->pair[0] = end->id->qp->qp_num;
    ret->pair[1] = pair;
}

static void mac(const char *what, const struct verbs_hello *hello,
                const struct verbs_challenge *challenge, const struct verbs_link *link,
                uint8_t ret[VERBS_MAC])
{
    uint8_t key[VERBS_MAC], all[512];
    size_t bytes = 0;

    (void)crypto_generichash(key, sizeof key, (const uint8_t *)TOKEN, strlen(TOKEN),
                             NULL, 0);
    memcpy(all + bytes, what, strlen(what) + 1);
    bytes += strlen(what) + 1;
    memcpy(all + bytes, hello, sizeof *hello);
    bytes += sizeof *hello;
    memcpy(all + bytes, challenge, sizeof *challenge);
    bytes += sizeof *challenge;
    memcpy(all + bytes, link, sizeof *link);
    bytes += sizeof *link;
    (void)crypto_generichash(ret, VERBS_MAC, all, bytes, key, sizeof key);
}

/* What a stranger changes of a proof that would be right. */
struct twist {
    int byte;                        /* of the mac; -1: none */
    const struct verbs_proof *other; /* another connection's; NULL: none */
    int link;                        /* of the connection; -1: none */
};

static const struct verbs_hello hello_right = {.magic = VERBS_MAGIC,
                                               .protocol = VERBS_PROTOCOL,
                                               .nonce = "a nonce",
                                               .channels = 1,
                                               .notes_max = 8,
                                               .windows_max = 4};

/* Shakes hands with the server at ROCE. The kind of its answer; *ret: the proof. */
static int shake(struct bed_end *server, const struct twist *twist,
                 struct verbs_proof *ret, struct verbs_challenge *ret_challenge)
{
    struct end *end = aligned_alloc(4096, sizeof *end);
    struct verbs_frame out = {.kind = VERBS_HELLO, .bytes = sizeof out.as.hello};
    struct verbs_frame *in;
    bool up = false;
    uint32_t pair;
    int kind;

    assert_non_null(end);
    stranger_connect(server, end, &pair);
    out.as.hello = hello_right;
    frame_post(end, &out);
    in = frame_await(server, end, &up);
    assert_int_equal(in->kind, VERBS_CHALLENGE);
    assert_int_equal(in->bytes, sizeof in->as.challenge);
    *ret_challenge = in->as.challenge;
    out = (struct verbs_frame){.kind = VERBS_PROOF, .bytes = sizeof out.as.proof};
    link_take(end, pair, &out.as.proof.link);
    if (twist->link >= 0)
        ((uint8_t *)&out.as.proof.link)[twist->link] ^= 1;
    mac("gapless client", &hello_right, ret_challenge, &out.as.proof.link,
        out.as.proof.mac);
    if (twist->byte >= 0)
        out.as.proof.mac[twist->byte] ^= 0x10;
    if (twist->other != NULL)
        out.as.proof = *twist->other;
    *ret = out.as.proof;
    frame_post(end, &out);
    in = frame_await(server, end, &up);
    kind = in->kind;
    assert_int_equal(up, kind == VERBS_WELCOME);
    end_close(end);
    free(end);
    return kind;
}

static void server_open(struct bed_end *ret)
{
    struct tp_config config = bed_config(4, TOKEN);
    struct gapless_error error = {0};

    fake_begin();
    must_open(ret, &config);
    assert_int_equal(t->listen(ret->tp, ROCE, &error), GAPLESS_OK);
}

static void proofs(void **state)
{
    struct twist twist = {-1, NULL, -1};
    struct verbs_challenge challenge, before = {{0}, 0, 0};
    struct verbs_proof proof, old;
    struct bed_end server;

    (void)state;
    server_open(&server);
    assert_int_equal(shake(&server, &twist, &old, &before), VERBS_WELCOME);
    for (twist.byte = 0; twist.byte < (int)VERBS_MAC; twist.byte++)
        assert_int_equal(shake(&server, &twist, &proof, &challenge), VERBS_REFUSE);
    twist.byte = -1;
    for (twist.link = 0; twist.link < (int)sizeof(struct verbs_link); twist.link += 3)
        assert_int_equal(shake(&server, &twist, &proof, &challenge), VERBS_REFUSE);
    twist.link = -1;
    twist.other = &old; /* played back */
    assert_int_equal(shake(&server, &twist, &proof, &challenge), VERBS_REFUSE);
    assert_memory_not_equal(before.nonce, challenge.nonce, 8);
    assert_memory_not_equal(before.nonce + 24, challenge.nonce + 24, 8);
    twist.other = NULL;
    assert_int_equal(shake(&server, &twist, &proof, &challenge), VERBS_WELCOME);
    bed_close(&server);
    must_be_clean();
}

/* ---- asking without a token ---------------------------------------------- */

#define STRANGERS 10000

/* What comes of a request to connect that says this. */
static int asked(struct bed_end *server, const struct verbs_request *hello)
{
    struct rdma_conn_param param = asking(hello);
    struct end *end = aligned_alloc(4096, sizeof *end);
    struct rdma_cm_event *event = NULL;
    int kind;

    assert_non_null(end);
    memset(end, 0, sizeof *end);
    end_ask(end, "10.1.1.1", 7471, &param);
    while (rdma_get_cm_event(end->channel, &event) != 0)
        (void)server_looks(server);
    kind = (int)event->event;
    assert_int_equal(rdma_ack_cm_event(event), 0);
    end_close(end);
    free(end);
    return kind;
}

/* Half-open connections cost the master nothing that an honest worker could lack. */
static void ten_thousand_strangers(void **state)
{
    struct verbs_request hello = ours;
    struct tp_counters counters;
    struct gapless_error error = {0};
    struct bed_end server, client;
    struct tp_config config = bed_config(1, TOKEN);
    tp_peer peer, number;
    uint64_t began;

    (void)state;
    server_open(&server);
    for (int i = 0; i < STRANGERS; i++) {
        hello.mac[i % (int)VERBS_ASK] ^= (uint8_t)(1 + i);
        assert_int_equal(asked(&server, &hello), RDMA_CM_EVENT_REJECTED);
    }
    assert_int_equal(server.tp->busy_channels, 0);
    must_open(&client, &config);
    began = bed_clock_ns();
    assert_int_equal(bed_join(&server, &client, ROCE, LONG_NS, &peer, &number, &error),
                     GAPLESS_OK);
    assert_true(bed_clock_ns() - began < (uint64_t)pace_ns(1000 * MS));
    t->count(server.tp, &counters);
    assert_int_equal(counters.refused, STRANGERS);
    bed_close_both(&server, &client);
    must_be_clean();
}

/* ---- masters that are none, and relays ----------------------------------- */

struct joining {
    struct bed_end client;
    tp_peer peer;
    int status;
    struct gapless_error error;
    bool done; /* of both threads */
};

static void *join(void *context)
{
    struct joining *it = context;

    it->status = t->connect(it->client.tp, RELAY, 3000 * MS, &it->peer, &it->error);
    __atomic_store_n(&it->done, true, __ATOMIC_RELEASE);
    return NULL;
}

/* Takes the connection of a client that was led here. */
static bool relay_takes(struct both *both)
{
    struct rdma_conn_param param = {
        .responder_resources = 4, .initiator_depth = 4, .rnr_retry_count = 6};
    struct rdma_cm_event *event = NULL;

    if (rdma_get_cm_event(both->server.channel, &event) != 0)
        return false;
    assert_int_equal(event->event, RDMA_CM_EVENT_CONNECT_REQUEST);
    both->server.id = event->id;
    assert_int_equal(rdma_ack_cm_event(event), 0);
    end_open(&both->server);
    receives_post(&both->server);
    assert_int_equal(rdma_accept(both->server.id, &param), 0);
    return true;
}

/* To the right, what came from the left, and its receive is posted again. */
static void pass_on(struct end *from, struct end *to)
{
    struct verbs_frame *frame = frame_take(from);
    uint64_t number;

    if (frame == NULL)
        return;
    frame_post(to, frame);
    number = (uint64_t)((unsigned char *)frame - from->memory) / VERBS_FRAME_BYTES;
    assert_int_equal(
        receive(from, number, (uint32_t)number * VERBS_FRAME_BYTES, VERBS_FRAME_BYTES),
        0);
}

/* Takes everybody for a worker. */
static void impostor(struct end *end)
{
    struct verbs_frame *in = frame_take(end), out = {0};

    if (in != NULL && in->kind == VERBS_HELLO) {
        out.kind = VERBS_CHALLENGE;
        out.bytes = sizeof out.as.challenge;
        out.as.challenge.has_token = 1;
        frame_post(end, &out);
    } else if (in != NULL && in->kind == VERBS_PROOF) {
        out.kind = VERBS_WELCOME;
        out.bytes = sizeof out.as.welcome;
        out.as.welcome =
            (struct verbs_welcome){.session = 1, .notes_max = 8, .windows_max = 4};
        memcpy(out.tag, in->as.proof.mac, VERBS_TAG);
        frame_post(end, &out);
    }
}

/* A client is led to another than the master, who knows no token. */
static void led_astray(bool relayed, const char *said)
{
    struct both *both = aligned_alloc(4096, sizeof *both);
    struct tp_config config = bed_config(1, TOKEN);
    struct joining it = {.status = 0};
    struct bed_end server;
    pthread_t thread;
    bool taken = false, up = false;
    uint32_t pair;

    assert_non_null(both);
    memset(both, 0, sizeof *both);
    server_open(&server);
    listen_at(both, "10.1.1.1");
    must_open(&it.client, &config);
    if (relayed)
        stranger_connect(&server, &both->client, &pair);
    assert_int_equal(pthread_create(&thread, NULL, join, &it), 0);
    while (!__atomic_load_n(&it.done, __ATOMIC_ACQUIRE)) {
        taken = taken || relay_takes(both);
        if (taken && relayed) {
            pass_on(&both->server, &both->client);
            pass_on(&both->client, &both->server);
        } else if (taken) {
            impostor(&both->server);
        }
        up = server_looks(&server) || up;
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    if (it.status != GAPLESS_REFUSED || strstr(it.error.text, said) == NULL)
        fail_msg("status %d: %s", it.status, it.error.text);
    assert_false(up);
    assert_int_equal(fake_keys(NULL, 0),
                     relayed ? 2 : 1); /* those of the relay itself */
    bed_close_both(&server, &it.client);
    if (relayed)
        end_close(&both->client);
    assert_int_equal(rdma_destroy_id(both->listener), 0);
    end_close(&both->server);
    free(both);
    must_be_clean();
}

static void a_relay(void **state)
{
    (void)state;
    led_astray(true, "relayed");
}

static void a_master_that_takes_anybody(void **state)
{
    (void)state;
    led_astray(false, "does not know this run's token");
}

/* ---- tags ---------------------------------------------------------------- */

/* From the client's card, without its knowledge. */
static void inject(const struct verbs_frame *frame)
{
    struct ibv_qp *qp = fake_pair(0, FAKE_ACTIVE);
    struct ibv_mr *mr = ibv_reg_mr(qp->pd, (void *)(uintptr_t)frame, sizeof *frame, 0);
    struct ibv_sge sge = {(uintptr_t)frame, VERBS_FRAME_HEAD + frame->bytes, mr->lkey};
    struct ibv_send_wr wr = {
        .wr_id = UINT64_MAX, .sg_list = &sge, .num_sge = 1, .opcode = IBV_WR_SEND};
    struct ibv_send_wr *bad = NULL;

    assert_int_equal(ibv_post_send(qp, &wr, &bad), 0);
    assert_int_equal(ibv_dereg_mr(mr), 0);
}

enum forgery {
    RIGHT,
    NO_TAG,
    OTHER_BYTES,
    OTHER_TAG, /* in its last byte */
    TWICE
};

static void want_forgery(enum forgery what)
{
    struct verbs_frame frame = {.kind = VERBS_TEXT, .last = 1, .bytes = 4};
    struct gapless_error reason = {0};
    struct bed bed;

    fake_begin();
    must_bed(&bed, ROCE, PAGE);
    memcpy(frame.as.data, "text", 4);
    if (what != NO_TAG)
        verbs_tag(bed.client.tp->peers[bed.to_server].channel[0], &frame);
    frame.as.data[3] ^= what == OTHER_BYTES ? 1 : 0;
    frame.tag[VERBS_TAG - 1] ^= what == OTHER_TAG ? 1 : 0;
    inject(&frame);
    if (what == RIGHT || what == TWICE)
        assert_int_equal(must_event(&bed.server, TP_TEXT).bytes, 4);
    if (what == TWICE)
        inject(&frame);
    if (what != RIGHT) {
        (void)must_event(&bed.server, TP_DOWN);
        t->last_error(bed.server.tp, bed.to_client, &reason);
        assert_int_equal(reason.status, GAPLESS_PROTOCOL);
        assert_non_null(strstr(reason.text, "tag"));
    }
    bed_end(&bed);
}

static void forged_frames(void **state)
{
    (void)state;
    for (enum forgery what = RIGHT; what <= TWICE; what++)
        want_forgery(what);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(proofs),        cmocka_unit_test(ten_thousand_strangers),
        cmocka_unit_test(a_relay),       cmocka_unit_test(a_master_that_takes_anybody),
        cmocka_unit_test(forged_frames),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
