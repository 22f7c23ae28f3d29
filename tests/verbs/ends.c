/* Two ends of a connection over the fake network. */
#include "tests/verbs/ends.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

struct sockaddr_in at(const char *host, uint16_t port)
{
    struct sockaddr_in it = {.sin_family = AF_INET, .sin_port = htons(port)};

    assert_int_equal(inet_pton(AF_INET, host, &it.sin_addr), 1);
    return it;
}

static void no_wait(int fd)
{
    assert_int_equal(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK), 0);
}

bool readable(int fd)
{
    struct pollfd look = {.fd = fd, .events = POLLIN};

    return poll(&look, 1, 0) == 1;
}

struct rdma_cm_event *next(struct end *end, enum rdma_cm_event_type want)
{
    struct rdma_cm_event *event = NULL;

    assert_int_equal(rdma_get_cm_event(end->channel, &event), 0);
    assert_string_equal(rdma_event_str(event->event), rdma_event_str(want));
    return event;
}

int event(struct end *end, enum rdma_cm_event_type want)
{
    struct rdma_cm_event *it = next(end, want);
    int status = it->status;

    assert_int_equal(rdma_ack_cm_event(it), 0);
    return status;
}

void end_open(struct end *end)
{
    struct ibv_qp_init_attr attr = {
        .cap = {.max_send_wr = SENDS,
                .max_recv_wr = RECEIVES,
                .max_send_sge = 2,
                .max_recv_sge = 2,
                .max_inline_data = 64},
        .qp_type = IBV_QPT_RC,
    };

    assert_non_null(end->pd = ibv_alloc_pd(end->id->verbs));
    assert_non_null(end->cc = ibv_create_comp_channel(end->id->verbs));
    assert_non_null(
        end->cq = ibv_create_cq(end->id->verbs, SENDS + RECEIVES, end, end->cc, 0));
    no_wait(end->cc->fd);
    no_wait(end->id->verbs->async_fd);
    attr.send_cq = attr.recv_cq = end->cq;
    assert_int_equal(rdma_create_qp(end->id, end->pd, &attr), 0);
    end->mr = ibv_reg_mr(end->pd, end->memory, BUFFER,
                         IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ |
                             IBV_ACCESS_REMOTE_WRITE);
    assert_non_null(end->mr);
}

void end_close(struct end *end)
{
    if (end->id != NULL) {
        if (end->id->qp != NULL)
            rdma_destroy_qp(end->id);
        assert_int_equal(ibv_dereg_mr(end->mr), 0);
        assert_int_equal(ibv_destroy_cq(end->cq), 0);
        assert_int_equal(ibv_destroy_comp_channel(end->cc), 0);
        assert_int_equal(ibv_dealloc_pd(end->pd), 0);
        assert_int_equal(rdma_destroy_id(end->id), 0);
    }
    rdma_destroy_event_channel(end->channel);
}

void listen_at(struct both *both, const char *host)
{
    struct sockaddr_in here = at(host, PORT);

    assert_non_null(both->server.channel = rdma_create_event_channel());
    no_wait(both->server.channel->fd);
    assert_int_equal(
        rdma_create_id(both->server.channel, &both->listener, both, RDMA_PS_TCP), 0);
    assert_int_equal(rdma_bind_addr(both->listener, (struct sockaddr *)&here), 0);
    assert_int_equal(rdma_listen(both->listener, 4), 0);
}

void end_resolve(struct end *client, const char *host, uint16_t port)
{
    struct sockaddr_in there = at(host, port);

    assert_non_null(client->channel = rdma_create_event_channel());
    no_wait(client->channel->fd);
    assert_int_equal(rdma_create_id(client->channel, &client->id, NULL, RDMA_PS_TCP),
                     0);
    assert_int_equal(
        rdma_resolve_addr(client->id, NULL, (struct sockaddr *)&there, 1000), 0);
    assert_int_equal(event(client, RDMA_CM_EVENT_ADDR_RESOLVED), 0);
    assert_int_equal(rdma_resolve_route(client->id, 1000), 0);
    assert_int_equal(event(client, RDMA_CM_EVENT_ROUTE_RESOLVED), 0);
    end_open(client);
}

void end_ask(struct end *client, const char *host, uint16_t port,
             struct rdma_conn_param *param)
{
    end_resolve(client, host, port);
    assert_int_equal(rdma_connect(client->id, param), 0);
}

struct both *joined(const char *host, uint8_t rnr_retries)
{
    struct both *both = aligned_alloc(4096, sizeof *both);
    struct rdma_conn_param param = {.responder_resources = 4,
                                    .initiator_depth = 4,
                                    .retry_count = 6,
                                    .rnr_retry_count = rnr_retries};
    struct rdma_cm_event *request;

    assert_non_null(both);
    memset(both, 0, sizeof *both);
    fake_begin();
    listen_at(both, host);
    end_ask(&both->client, host, PORT, &param);
    request = next(&both->server, RDMA_CM_EVENT_CONNECT_REQUEST);
    assert_ptr_equal(request->listen_id, both->listener);
    assert_ptr_equal(request->id->context, both);
    both->server.id = request->id;
    assert_int_equal(rdma_ack_cm_event(request), 0);
    end_open(&both->server);
    assert_int_equal(rdma_accept(both->server.id, &param), 0);
    (void)event(&both->client, RDMA_CM_EVENT_ESTABLISHED);
    (void)event(&both->server, RDMA_CM_EVENT_ESTABLISHED);
    return both;
}

/* Nothing but what the test expected may be wrong. */
void part(struct both *both)
{
    end_close(&both->client);
    assert_int_equal(rdma_destroy_id(both->listener), 0);
    end_close(&both->server);
    free(both);
    assert_int_equal(fake_live(NULL), 0);
    assert_int_equal(fake_end(), 0);
}

/* ---- posting ------------------------------------------------------------- */

int receive(struct end *end, uint64_t number, uint32_t offset, uint32_t bytes)
{
    struct ibv_sge sge = {(uintptr_t)end->memory + offset, bytes, end->mr->lkey};
    struct ibv_recv_wr wr = {.wr_id = number, .sg_list = &sge, .num_sge = 1};
    struct ibv_recv_wr *bad;

    return ibv_post_recv(end->id->qp, &wr, &bad);
}

struct ibv_send_wr request(enum ibv_wr_opcode opcode, struct ibv_sge *sge)
{
    struct ibv_send_wr wr = {.wr_id = 1,
                             .sg_list = sge,
                             .num_sge = sge != NULL ? 1 : 0,
                             .opcode = opcode,
                             .send_flags = IBV_SEND_SIGNALED};

    return wr;
}

int post(struct end *end, struct ibv_send_wr *wr)
{
    struct ibv_send_wr *bad = NULL;
    int status = ibv_post_send(end->id->qp, wr, &bad);

    if (status != 0)
        assert_ptr_equal(bad, wr);
    return status;
}

/* `bytes` from the start of the client's memory to the server's key. */
int transfer(struct both *both, enum ibv_wr_opcode opcode, uint32_t bytes, uint32_t key,
             uint64_t remote)
{
    struct ibv_sge sge = {(uintptr_t)both->client.memory, bytes, both->client.mr->lkey};
    struct ibv_send_wr wr = request(opcode, &sge);

    wr.wr.rdma.rkey = key;
    wr.wr.rdma.remote_addr = remote;
    wr.imm_data = htonl(77);
    return post(&both->client, &wr);
}

int transfer_in(struct both *both, enum ibv_wr_opcode opcode, uint32_t bytes)
{
    return transfer(both, opcode, bytes, both->server.mr->rkey,
                    (uintptr_t)both->server.memory);
}

struct ibv_wc take(struct end *end)
{
    struct ibv_wc wc = {0};

    assert_int_equal(ibv_poll_cq(end->cq, 1, &wc), 1);
    assert_int_equal(wc.qp_num, end->id->qp->qp_num);
    return wc;
}

void want(struct end *end, enum ibv_wc_status status)
{
    struct ibv_wc wc = take(end);

    assert_string_equal(ibv_wc_status_str(wc.status), ibv_wc_status_str(status));
}

void want_nothing(struct end *end)
{
    struct ibv_wc wc;

    assert_int_equal(ibv_poll_cq(end->cq, 1, &wc), 0);
}
