/* Two ends of a connection over the fake network, in plain verbs: for the tests of the
 * fake itself, and for clients that keep to no rules. The functions fail the test. */
#ifndef GAPLESS_TESTS_VERBS_ENDS_H
#define GAPLESS_TESTS_VERBS_ENDS_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/verbs/fake.h"

#include <netinet/in.h>

#define PORT 7000
#define BUFFER 4096
#define RECEIVES 8
#define SENDS 8

struct end {
    struct rdma_event_channel *channel;
    struct rdma_cm_id *id;
    struct ibv_pd *pd;
    struct ibv_comp_channel *cc;
    struct ibv_cq *cq;
    struct ibv_mr *mr;
    _Alignas(4096) unsigned char memory[BUFFER];
};

struct both {
    struct rdma_cm_id *listener;
    struct end client, server;
};

struct sockaddr_in at(const char *host, uint16_t port);
bool readable(int fd);
struct rdma_cm_event *next(struct end *end, enum rdma_cm_event_type want);
int event(struct end *end, enum rdma_cm_event_type want);
/* What an id that has a device needs to send and receive. */
void end_open(struct end *end);
void end_close(struct end *end);
void listen_at(struct both *both, const char *host);
/* Up to a queue pair. */
void end_resolve(struct end *client, const char *host, uint16_t port);
/* Up to the request to connect. */
void end_ask(struct end *client, const char *host, uint16_t port,
             struct rdma_conn_param *param);
struct both *joined(const char *host, uint8_t rnr_retries);
void part(struct both *both);
int receive(struct end *end, uint64_t number, uint32_t offset, uint32_t bytes);
struct ibv_send_wr request(enum ibv_wr_opcode opcode, struct ibv_sge *sge);
int post(struct end *end, struct ibv_send_wr *wr);
int transfer(struct both *both, enum ibv_wr_opcode opcode, uint32_t bytes, uint32_t key,
             uint64_t remote);
int transfer_in(struct both *both, enum ibv_wr_opcode opcode, uint32_t bytes);
struct ibv_wc take(struct end *end);
void want(struct end *end, enum ibv_wc_status status);
void want_nothing(struct end *end);

#endif
