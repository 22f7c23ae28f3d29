/* The fake network itself, with plain verbs code: what moves bytes, and what it
 * refuses. */
#include "tests/verbs/ends.h"
#include "tests/verbs/placed.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- the tests: moving bytes --------------------------------------------- */

static void moves_bytes(void **state)
{
    struct both *both = joined("10.1.1.1", 7);
    struct ibv_wc wc;

    (void)state;
    memset(both->client.memory, 1, BUFFER);
    memset(both->server.memory, 2, BUFFER);
    assert_int_equal(receive(&both->server, 5, 2048, 100), 0);
    assert_int_equal(receive(&both->server, 6, 2048, 100), 0);
    assert_int_equal(transfer_in(both, IBV_WR_RDMA_WRITE, 1000), 0);
    want(&both->client, IBV_WC_SUCCESS);
    want_nothing(&both->server);
    assert_int_equal(both->server.memory[999], 1);
    assert_int_equal(both->server.memory[1000], 2);

    assert_int_equal(transfer_in(both, IBV_WR_RDMA_WRITE_WITH_IMM, 0), 0);
    wc = take(&both->server);
    assert_int_equal(wc.wr_id, 5);
    assert_int_equal(wc.opcode, IBV_WC_RECV_RDMA_WITH_IMM);
    assert_int_equal(ntohl(wc.imm_data), 77);
    assert_true((wc.wc_flags & IBV_WC_WITH_IMM) != 0);

    assert_int_equal(transfer_in(both, IBV_WR_SEND, 100), 0);
    wc = take(&both->server);
    assert_int_equal(wc.opcode, IBV_WC_RECV);
    assert_int_equal(wc.byte_len, 100);
    assert_int_equal(both->server.memory[2048 + 99], 1);

    want(&both->client, IBV_WC_SUCCESS);
    want(&both->client, IBV_WC_SUCCESS);
    assert_int_equal(transfer_in(both, IBV_WR_RDMA_READ, BUFFER), 0);
    wc = take(&both->client);
    assert_int_equal(wc.opcode, IBV_WC_RDMA_READ);
    assert_int_equal(both->client.memory[1000], 2);
    part(both);
}

static void inline_is_copied(void **state)
{
    struct both *both = joined("10.1.1.1", 7);
    char text[80] = "here";
    struct ibv_sge sge = {(uintptr_t)text, 64, 0};
    struct ibv_send_wr wr = request(IBV_WR_SEND, &sge);

    (void)state;
    fake_pace(FAKE_BY_HAND);
    assert_int_equal(receive(&both->server, 5, 0, 100), 0);
    wr.send_flags |= IBV_SEND_INLINE;
    assert_int_equal(post(&both->client, &wr), 0);
    memset(text, 0, sizeof text);
    assert_int_equal(fake_pump(10), 1);
    assert_string_equal((char *)both->server.memory, "here");
    sge.length = 65;
    assert_int_equal(post(&both->client, &wr), EINVAL);
    part(both);
}

static void unsignalled_ones_hold_their_places(void **state)
{
    struct both *both = joined("10.1.1.1", 7);
    struct ibv_send_wr wr = request(IBV_WR_RDMA_WRITE, NULL);

    (void)state;
    wr.send_flags = 0;
    for (int i = 0; i < SENDS - 1; i++)
        assert_int_equal(post(&both->client, &wr), 0);
    want_nothing(&both->client);
    wr.send_flags = IBV_SEND_SIGNALED;
    assert_int_equal(post(&both->client, &wr), 0);
    assert_int_equal(post(&both->client, &wr), ENOMEM);
    want(&both->client, IBV_WC_SUCCESS);
    want_nothing(&both->client);
    for (int i = 0; i < SENDS; i++)
        assert_int_equal(post(&both->client, &wr), 0);
    for (int i = 0; i < RECEIVES; i++)
        assert_int_equal(receive(&both->server, 0, 0, 8), 0);
    assert_int_equal(receive(&both->server, 0, 0, 8), ENOMEM);
    part(both);
}

static void tells_once(void **state)
{
    struct both *both = joined("10.1.1.1", 7);
    struct ibv_cq *cq = NULL;
    void *context = NULL;

    (void)state;
    assert_int_equal(transfer_in(both, IBV_WR_RDMA_WRITE, 8), 0);
    assert_false(readable(both->client.cc->fd));
    assert_int_equal(ibv_req_notify_cq(both->client.cq, 0), 0);
    assert_false(readable(both->client.cc->fd));
    assert_int_equal(transfer_in(both, IBV_WR_RDMA_WRITE, 8), 0);
    assert_int_equal(transfer_in(both, IBV_WR_RDMA_WRITE, 8), 0);
    assert_true(readable(both->client.cc->fd));
    assert_int_equal(ibv_get_cq_event(both->client.cc, &cq, &context), 0);
    assert_ptr_equal(cq, both->client.cq);
    assert_ptr_equal(context, &both->client);
    assert_int_equal(ibv_get_cq_event(both->client.cc, &cq, &context), -1);
    assert_int_equal(errno, EAGAIN);
    ibv_ack_cq_events(both->client.cq, 1);
    part(both);
}

static void a_thread_does_it_too(void **state)
{
    struct both *both = joined("10.1.1.1", 7);
    struct ibv_wc wc;
    int done = 0;

    (void)state;
    fake_pace(FAKE_BY_THREAD);
    for (int i = 0; i < SENDS; i++)
        assert_int_equal(transfer_in(both, IBV_WR_RDMA_WRITE, 8), 0);
    while (done < SENDS) {
        int count = ibv_poll_cq(both->client.cq, 1, &wc);

        assert_true(count >= 0);
        done += count;
    }
    fake_pace(FAKE_AT_POST);
    part(both);
}

/* ---- what is refused ----------------------------------------------------- */

/* The client's request is refused, and both ends are over. */
static void want_refused(struct both *both)
{
    struct ibv_async_event reported;

    assert_int_equal(receive(&both->client, 9, 0, 8), 0);
    want(&both->client, IBV_WC_REM_ACCESS_ERR);
    want(&both->client, IBV_WC_WR_FLUSH_ERR);
    assert_int_equal(ibv_get_async_event(both->server.id->verbs, &reported), 0);
    assert_int_equal(reported.event_type, IBV_EVENT_QP_ACCESS_ERR);
    assert_ptr_equal(reported.element.qp, both->server.id->qp);
    ibv_ack_async_event(&reported);
    assert_int_equal(both->server.id->qp->state, IBV_QPS_ERR);
    part(both);
}

static void outside_of_memory(void **state)
{
    struct both *both = joined("10.1.1.1", 7);

    (void)state;
    assert_int_equal(transfer(both, IBV_WR_RDMA_WRITE, 8, both->server.mr->rkey,
                              (uintptr_t)both->server.memory + BUFFER - 7),
                     0);
    want_refused(both);
}

static void a_key_of_before(void **state)
{
    struct both *both = joined("10.1.1.1", 7);
    uint32_t old = both->server.mr->rkey;

    (void)state;
    assert_int_equal(ibv_dereg_mr(both->server.mr), 0);
    both->server.mr = ibv_reg_mr(both->server.pd, both->server.memory, BUFFER,
                                 IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
    assert_int_equal(
        transfer(both, IBV_WR_RDMA_WRITE, 8, old, (uintptr_t)both->server.memory), 0);
    want_refused(both);
}

static void reading_what_may_be_written(void **state)
{
    struct both *both = joined("10.1.1.1", 7);

    (void)state;
    assert_int_equal(ibv_dereg_mr(both->server.mr), 0);
    both->server.mr = ibv_reg_mr(both->server.pd, both->server.memory, BUFFER,
                                 IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
    assert_int_equal(transfer_in(both, IBV_WR_RDMA_READ, 8), 0);
    want_refused(both);
}

static void local_memory_unknown(void **state)
{
    struct both *both = joined("10.1.1.1", 7);
    struct ibv_sge sge = {(uintptr_t)both->client.memory + 1, BUFFER,
                          both->client.mr->lkey};
    struct ibv_send_wr wr = request(IBV_WR_RDMA_WRITE, &sge);

    (void)state;
    wr.wr.rdma.rkey = both->server.mr->rkey;
    wr.wr.rdma.remote_addr = (uintptr_t)both->server.memory;
    assert_int_equal(post(&both->client, &wr), 0);
    want(&both->client, IBV_WC_LOC_PROT_ERR);
    assert_int_equal(post(&both->client, &wr), 0);
    want(&both->client, IBV_WC_WR_FLUSH_ERR);
    part(both);
}

static void no_receive(void **state)
{
    struct both *both = joined("10.1.1.1", 2);
    struct fake_counters count;

    (void)state;
    fake_pace(FAKE_BY_HAND);
    assert_int_equal(transfer_in(both, IBV_WR_SEND, 8), 0);
    assert_int_equal(fake_pump(1), 0);
    assert_int_equal(fake_pump(1), 0);
    want_nothing(&both->client);
    assert_int_equal(fake_pump(1), 1);
    want(&both->client, IBV_WC_RNR_RETRY_EXC_ERR);
    fake_count(&count);
    assert_int_equal(count.not_ready, 1);
    part(both);

    both = joined("10.1.1.1", 7);
    assert_int_equal(transfer_in(both, IBV_WR_SEND, 8), 0);
    want_nothing(&both->client);
    assert_int_equal(receive(&both->server, 3, 0, 8), 0);
    want(&both->client, IBV_WC_SUCCESS);
    part(both);
}

static void longer_than_a_message(void **state)
{
    struct both *both = joined("10.1.1.1", 7);
    size_t bytes = (1u << 20) + 1;
    void *memory = malloc(bytes);
    struct ibv_mr *mr = ibv_reg_mr(both->client.pd, memory, bytes, 0);
    struct ibv_sge sge = {(uintptr_t)memory, (uint32_t)bytes, mr->lkey};
    struct ibv_send_wr wr = request(IBV_WR_RDMA_WRITE, &sge);

    (void)state;
    assert_int_equal(post(&both->client, &wr), 0);
    want(&both->client, IBV_WC_LOC_LEN_ERR);
    assert_int_equal(ibv_dereg_mr(mr), 0);
    free(memory);
    part(both);
}

/* ---- windows ------------------------------------------------------------- */

struct window {
    struct ibv_mr *mr;
    struct ibv_mw *mw;
    uint32_t key;
};

/* The second half of the server's memory. */
static void window_open(struct both *both, struct window *ret, unsigned access)
{
    struct end *server = &both->server;
    struct ibv_send_wr wr = request(IBV_WR_BIND_MW, NULL);

    ret->mr = ibv_reg_mr(server->pd, server->memory, BUFFER,
                         IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_MW_BIND);
    assert_non_null(ret->mr);
    ret->mw = ibv_alloc_mw(server->pd, IBV_MW_TYPE_2);
    assert_non_null(ret->mw);
    ret->key = ibv_inc_rkey(ret->mw->rkey);
    wr.bind_mw.mw = ret->mw;
    wr.bind_mw.rkey = ret->key;
    wr.bind_mw.bind_info = (struct ibv_mw_bind_info){
        ret->mr, (uintptr_t)server->memory + 2048, 2048, access};
    assert_int_equal(post(server, &wr), 0);
}

static void window_close(struct window *it)
{
    assert_int_equal(ibv_dealloc_mw(it->mw), 0);
    assert_int_equal(ibv_dereg_mr(it->mr), 0);
}

static void windows(void **state)
{
    struct both *both = joined("10.1.1.1", 7);
    uintptr_t half = (uintptr_t)both->server.memory + 2048;
    struct window window;
    struct fake_key keys[8];

    (void)state;
    window_open(both, &window, IBV_ACCESS_REMOTE_WRITE);
    want(&both->server, IBV_WC_SUCCESS);
    assert_int_equal(fake_keys(keys, 8), 3); /* and the two ends' memory */
    assert_int_equal(keys[2].rkey, window.key);
    assert_int_equal(keys[2].pair, both->server.id->qp->qp_num);
    assert_int_equal(transfer(both, IBV_WR_RDMA_WRITE, 2048, window.key, half), 0);
    want(&both->client, IBV_WC_SUCCESS);
    assert_int_equal(transfer(both, IBV_WR_RDMA_WRITE, 8, window.key, half - 1), 0);
    window_close(&window);
    want_refused(both);
}

static void windows_read(void **state)
{
    struct both *both = joined("10.1.1.1", 7);
    struct window window;

    (void)state;
    window_open(both, &window, IBV_ACCESS_REMOTE_WRITE);
    want(&both->server, IBV_WC_SUCCESS);
    assert_int_equal(transfer(both, IBV_WR_RDMA_READ, 8, window.key,
                              (uintptr_t)both->server.memory + 2048),
                     0);
    window_close(&window);
    want_refused(both);
}

static void windows_bound_wrong(void **state)
{
    struct both *both = joined("10.1.1.1", 7);
    struct window window;

    (void)state;
    window_open(both, &window, IBV_ACCESS_LOCAL_WRITE);
    want(&both->server, IBV_WC_MW_BIND_ERR);
    window_close(&window);
    part(both);
}

/* ---- iWARP --------------------------------------------------------------- */

static void iwarp(void **state)
{
    struct both *both = joined("10.2.1.1", 7);
    struct ibv_async_event reported;

    (void)state;
    assert_int_equal(transfer_in(both, IBV_WR_RDMA_WRITE_WITH_IMM, 8), -EINVAL);
    assert_null(ibv_alloc_mw(both->server.pd, IBV_MW_TYPE_2));
    assert_int_equal(errno, EOPNOTSUPP);
    assert_int_equal(transfer_in(both, IBV_WR_RDMA_READ, 8), 0);
    want(&both->client, IBV_WC_SUCCESS);
    /* A write is over when it is handed on; that it was refused comes later. */
    assert_int_equal(
        transfer(both, IBV_WR_RDMA_WRITE, 8, 1, (uintptr_t)both->server.memory), 0);
    want(&both->client, IBV_WC_SUCCESS);
    assert_int_equal(both->client.id->qp->state, IBV_QPS_ERR);
    assert_int_equal(ibv_get_async_event(both->server.id->verbs, &reported), 0);
    ibv_ack_async_event(&reported);
    (void)event(&both->client, RDMA_CM_EVENT_DISCONNECTED);
    (void)event(&both->server, RDMA_CM_EVENT_DISCONNECTED);
    part(both);
}

/* Memory of an accelerator: what the kernel asks of a DMA-BUF, and who gets there. */
static void accelerators(void **state)
{
    struct ibv_device **list;
    struct ibv_context *context;
    struct ibv_pd *pd;
    struct ibv_mr *mr;
    struct accel gpu;
    uint64_t iova;

    (void)state;
    fake_begin();
    assert_non_null(list = ibv_get_device_list(NULL));
    assert_non_null(context = ibv_open_device(list[0]));
    assert_non_null(pd = ibv_alloc_pd(context));
    accel_take(&gpu, 4 * PAGE);
    iova = (uintptr_t)gpu.base;
    /* NCCL and UCX ask with a descriptor that is none. */
    assert_null(ibv_reg_dmabuf_mr(pd, 0, 0, 0, -1, 0));
    assert_int_equal(errno, EBADF);
    fake_rules.no_dmabuf = true;
    assert_null(ibv_reg_dmabuf_mr(pd, 0, 0, 0, -1, 0));
    assert_int_equal(errno, EOPNOTSUPP);
    fake_rules.no_dmabuf = false;
    assert_null(ibv_reg_dmabuf_mr(pd, 1, 8, iova, gpu.fd, IBV_ACCESS_LOCAL_WRITE));
    assert_int_equal(errno, EINVAL);
    assert_null(ibv_reg_dmabuf_mr(pd, 0, 5 * PAGE, iova, gpu.fd, 0));
    assert_int_equal(errno, EINVAL);
    assert_null(ibv_reg_dmabuf_mr(pd, 0, PAGE, iova, gpu.fd,
                                  IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_MW_BIND));
    assert_int_equal(errno, EINVAL);
    mr = ibv_reg_dmabuf_mr(pd, PAGE + 8, PAGE, iova + PAGE + 8, gpu.fd,
                           IBV_ACCESS_LOCAL_WRITE);
    assert_non_null(mr);
    assert_ptr_equal(mr->addr, (void *)(uintptr_t)(PAGE + 8)); /* as libibverbs says */
    assert_int_equal(ibv_dereg_mr(mr), 0);
    assert_null(ibv_reg_mr(pd, gpu.base + 8, PAGE, IBV_ACCESS_LOCAL_WRITE));
    assert_int_equal(errno, EFAULT);
    fake_rules.peermem = true;
    assert_null(ibv_reg_mr(pd, gpu.base - 8, PAGE, IBV_ACCESS_LOCAL_WRITE));
    mr = ibv_reg_mr(pd, gpu.base + 8, PAGE, IBV_ACCESS_LOCAL_WRITE);
    assert_non_null(mr);
    assert_int_equal(ibv_dereg_mr(mr), 0);
    assert_int_equal(ibv_dealloc_pd(pd), 0);
    assert_int_equal(ibv_close_device(context), 0);
    ibv_free_device_list(list);
    assert_int_equal(fake_live(NULL), 0);
    assert_int_equal(fake_end(), 0);
    accel_give(&gpu);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accelerators),
        cmocka_unit_test(moves_bytes),
        cmocka_unit_test(inline_is_copied),
        cmocka_unit_test(unsignalled_ones_hold_their_places),
        cmocka_unit_test(tells_once),
        cmocka_unit_test(a_thread_does_it_too),
        cmocka_unit_test(outside_of_memory),
        cmocka_unit_test(a_key_of_before),
        cmocka_unit_test(reading_what_may_be_written),
        cmocka_unit_test(local_memory_unknown),
        cmocka_unit_test(no_receive),
        cmocka_unit_test(longer_than_a_message),
        cmocka_unit_test(windows),
        cmocka_unit_test(windows_read),
        cmocka_unit_test(windows_bound_wrong),
        cmocka_unit_test(iwarp),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
