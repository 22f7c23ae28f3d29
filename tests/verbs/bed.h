/* A server and clients of the verbs transport over the fake network, in one thread but
 * for connecting. Functions that return a status leave it to the test what to make of
 * it; those that begin with must fail the test. */
#ifndef GAPLESS_TESTS_VERBS_BED_H
#define GAPLESS_TESTS_VERBS_BED_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/verbs/fake.h"
#include "tests/pace.h"
#include "transport/transport.h"

#include <pthread.h>
#include <stdbool.h>

#define MS INT64_C(1000000)
#define ROCE "10.1.1.1:7471"
#define IWARP "10.2.1.1:7471"
#define PAGE 4096u
/* For what should take no time. */
#define LONG_NS pace_ns(5000 * MS)

/* One endpoint, and what it has been told but the test has not taken. */
struct bed_end {
    struct tp *tp;
    struct tp_event events[64];
    int count;
    int next;
};

/* Tokens are strings here; NULL: none, and that is all right. */
struct tp_config bed_config(uint32_t peers, const char *token);

uint64_t bed_clock_ns(void);

int bed_open(struct bed_end *ret, const struct tp_config *config,
             struct gapless_error *error);
void bed_close(struct bed_end *end);
/* Closes the client while the server looks, so that neither waits for the other, then
 * the server. */
void bed_close_both(struct bed_end *server, struct bed_end *client);

/* The next event of the kind, at most LONG_NS away. Others are dropped on the way; but
 * a TP_DOWN that is not wanted is GAPLESS_PEER_LOST. GAPLESS_TIMEOUT: none. */
int bed_event(struct bed_end *end, enum tp_event_kind kind, struct tp_event *ret,
              int64_t timeout_ns);
/* Connects while the server looks. *ret_server: the server's number of the client;
 * GAPLESS_TIMEOUT: the client is connected and the server knows nothing of it. */
int bed_join(struct bed_end *server, struct bed_end *client, const char *address,
             int64_t timeout_ns, tp_peer *ret, tp_peer *ret_server,
             struct gapless_error *error);

/* What a request to connect has to say to a server with this token, made from the words of
 * transport/verbs/wire.h; the id's addresses are known. */
struct rdma_cm_id;
void bed_request_mac(struct rdma_cm_id *id, const char *token, uint8_t ret[16]);

/* A server with a region granted as window 0, half to read, half to write, and one
 * client. */
struct bed {
    struct bed_end server, client;
    tp_peer to_client, to_server;
    struct tp_region region, window;
};
void must_bed(struct bed *ret, const char *address, size_t bytes);
/* Another client of the same server; the region is granted to it too. */
void must_join(struct bed *bed, struct bed_end *client, const char *address,
               tp_peer *ret, tp_peer *ret_server, struct tp_region *ret_window);
void must_open(struct bed_end *ret, const struct tp_config *config);
struct tp_event must_event(struct bed_end *end, enum tp_event_kind kind);
/* A put of the second half of the window goes through, and a get of the first. */
void must_work(struct bed_end *server, tp_peer to_client, struct bed_end *client,
               tp_peer to_server, struct tp_region *window, struct tp_region *region);
/* Ends both, and wants nothing left and no faults. */
void bed_end(struct bed *bed);
/* Nothing is left and there were no faults. */
void must_be_clean(void);

#endif
