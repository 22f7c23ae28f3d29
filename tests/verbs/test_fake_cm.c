/* The fake network itself, with plain verbs code: connecting and parting, and that
 * misuse is told. */
#include "tests/verbs/ends.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- connecting and parting ---------------------------------------------- */

static void private_data(void **state)
{
    struct both *both = aligned_alloc(4096, sizeof *both);
    char text[57] = "hello";
    struct rdma_conn_param param = {.private_data = text, .private_data_len = 6};
    struct rdma_cm_event *it;
    struct rdma_cm_id *asked;

    (void)state;
    assert_non_null(both);
    memset(both, 0, sizeof *both);
    fake_begin();
    listen_at(both, "10.1.1.1");
    end_ask(&both->client, "10.1.1.1", PORT, &param);
    it = next(&both->server, RDMA_CM_EVENT_CONNECT_REQUEST);
    asked = it->id;
    assert_int_equal(it->param.conn.private_data_len, 56);
    assert_string_equal(it->param.conn.private_data, "hello");
    assert_int_equal(rdma_ack_cm_event(it), 0);
    assert_int_equal(rdma_reject(asked, "no", 3), 0);
    it = next(&both->client, RDMA_CM_EVENT_REJECTED);
    assert_int_equal(it->status, 28);
    assert_int_equal(it->param.conn.private_data_len, 148);
    assert_string_equal(it->param.conn.private_data, "no");
    assert_int_equal(rdma_ack_cm_event(it), 0);
    assert_int_equal(rdma_destroy_id(asked), 0);
    param.private_data_len = 57;
    assert_int_equal(rdma_connect(both->client.id, &param), -1);
    assert_int_equal(errno, EINVAL);
    part(both);
}

static void nobody_listens(void **state)
{
    struct end *client = aligned_alloc(4096, sizeof *client);
    struct rdma_conn_param param = {.retry_count = 6};

    (void)state;
    assert_non_null(client);
    memset(client, 0, sizeof *client);
    fake_begin();
    end_ask(client, "10.1.2.1", PORT, &param);
    assert_int_equal(event(client, RDMA_CM_EVENT_REJECTED), 8);
    end_close(client);
    free(client);
    assert_int_equal(fake_end(), 0);
}

static void addresses(void **state)
{
    struct rdma_event_channel *channel;
    struct end end;
    struct sockaddr_in loop = at("127.0.0.1", 1);
    struct sockaddr_in strange = at("10.9.9.9", 1);

    (void)state;
    fake_begin();
    assert_non_null(channel = rdma_create_event_channel());
    end.channel = channel;
    assert_int_equal(rdma_create_id(channel, &end.id, NULL, RDMA_PS_TCP), 0);
    assert_int_equal(rdma_bind_addr(end.id, (struct sockaddr *)&loop), -1);
    assert_int_equal(errno, ENODEV);
    assert_int_equal(rdma_bind_addr(end.id, (struct sockaddr *)&strange), -1);
    assert_int_equal(errno, EADDRNOTAVAIL);
    assert_int_equal(rdma_resolve_addr(end.id, NULL, (struct sockaddr *)&strange, 1),
                     0);
    assert_int_equal(event(&end, RDMA_CM_EVENT_ADDR_ERROR), -EHOSTUNREACH);
    assert_int_equal(rdma_destroy_id(end.id), 0);
    rdma_destroy_event_channel(channel);
    assert_int_equal(fake_end(), 0);
}

static void disconnecting(void **state)
{
    struct both *both = joined("10.1.1.1", 7);

    (void)state;
    assert_int_equal(receive(&both->client, 0, 0, 8), 0);
    assert_int_equal(receive(&both->server, 0, 0, 8), 0);
    assert_int_equal(rdma_disconnect(both->client.id), 0);
    want(&both->client, IBV_WC_WR_FLUSH_ERR);
    want_nothing(&both->server); /* until it disconnects too */
    assert_false(readable(both->client.channel->fd));
    (void)event(&both->server, RDMA_CM_EVENT_DISCONNECTED);
    assert_int_equal(rdma_disconnect(both->server.id), 0);
    want(&both->server, IBV_WC_WR_FLUSH_ERR);
    (void)event(&both->client, RDMA_CM_EVENT_DISCONNECTED);
    (void)event(&both->client, RDMA_CM_EVENT_TIMEWAIT_EXIT);
    part(both);
}

static void vanishing(void **state)
{
    struct both *both = joined("10.1.1.1", 7);

    (void)state;
    fake_vanish(0);
    assert_int_equal(transfer_in(both, IBV_WR_RDMA_WRITE, 0), 0);
    want(&both->client, IBV_WC_RETRY_EXC_ERR);
    assert_false(readable(both->server.channel->fd));
    part(both);
}

static void a_device_goes(void **state)
{
    struct both *both = joined("10.1.1.1", 7);
    struct ibv_async_event reported;

    (void)state;
    assert_int_equal(receive(&both->client, 0, 0, 8), 0);
    fake_fatal("fake0");
    want(&both->client, IBV_WC_WR_FLUSH_ERR);
    assert_int_equal(ibv_get_async_event(both->client.id->verbs, &reported), 0);
    assert_int_equal(reported.event_type, IBV_EVENT_DEVICE_FATAL);
    ibv_ack_async_event(&reported);
    fake_remove("fake0");
    assert_int_equal(ibv_get_async_event(both->client.id->verbs, &reported), 0);
    ibv_ack_async_event(&reported);
    (void)event(&both->client, RDMA_CM_EVENT_DEVICE_REMOVAL);
    assert_null(ibv_alloc_pd(both->client.id->verbs));
    part(both);
}

/* ---- misuse is told ------------------------------------------------------ */

static void wrong_order(void **state)
{
    struct both *both = joined("10.1.1.1", 7);

    (void)state;
    assert_int_equal(ibv_dealloc_pd(both->client.pd), EBUSY);
    assert_int_equal(ibv_destroy_cq(both->client.cq), EBUSY);
    assert_int_equal(ibv_destroy_comp_channel(both->client.cc), EBUSY);
    assert_int_equal(rdma_destroy_id(both->client.id), -1);
    assert_int_equal(fake_faults(), 4);
    fake_forgive();
    part(both);
}

static void a_queue_overflows(void **state)
{
    struct both *both = joined("10.1.1.1", 7);
    struct ibv_cq *small = ibv_create_cq(both->client.id->verbs, 1, NULL, NULL, 0);
    struct ibv_cq *kept = both->client.id->qp->send_cq;
    struct ibv_async_event reported;

    (void)state;
    assert_non_null(small);
    both->client.id->qp->send_cq = small;
    assert_int_equal(transfer_in(both, IBV_WR_RDMA_WRITE, 8), 0);
    assert_int_equal(fake_faults(), 0);
    assert_int_equal(transfer_in(both, IBV_WR_RDMA_WRITE, 8), 0);
    assert_int_equal(fake_faults(), 1);
    assert_int_equal(ibv_get_async_event(both->client.id->verbs, &reported), 0);
    assert_int_equal(reported.event_type, IBV_EVENT_CQ_ERR);
    ibv_ack_async_event(&reported);
    both->client.id->qp->send_cq = kept;
    assert_int_equal(ibv_destroy_cq(small), 0);
    fake_forgive();
    part(both);
}

static void what_is_left_is_found(void **state)
{
    struct rdma_event_channel *channel;
    struct fake_live live;

    (void)state;
    fake_begin();
    assert_non_null(channel = rdma_create_event_channel());
    assert_int_equal(fake_live(&live), 1);
    assert_int_equal(live.cm_channels, 1);
    assert_int_equal(fake_end(), 1);
    fake_forgive();
    (void)close(channel->fd); /* it was written off */
    free(channel);
}

static void calls_fail_in_turn(void **state)
{
    struct rdma_event_channel *channel;

    (void)state;
    fake_begin();
    fake_fail_at(1, false);
    assert_non_null(channel = rdma_create_event_channel());
    assert_null(rdma_create_event_channel());
    assert_string_equal(fake_failed(), "rdma_create_event_channel");
    rdma_destroy_event_channel(channel);
    assert_non_null(channel = rdma_create_event_channel());
    assert_int_equal(fake_fallible(), 3);
    rdma_destroy_event_channel(channel);
    fake_fail_at(0, true);
    assert_null(rdma_create_event_channel());
    assert_null(rdma_create_event_channel());
    assert_int_equal(fake_end(), 0);
    fake_begin();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(private_data),
        cmocka_unit_test(nobody_listens),
        cmocka_unit_test(addresses),
        cmocka_unit_test(disconnecting),
        cmocka_unit_test(vanishing),
        cmocka_unit_test(a_device_goes),
        cmocka_unit_test(wrong_order),
        cmocka_unit_test(a_queue_overflows),
        cmocka_unit_test(what_is_left_is_found),
        cmocka_unit_test(calls_fail_in_turn),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
