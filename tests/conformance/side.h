/* What the tests of all transports share: an endpoint that remembers what it has seen,
 * ways to wait for an event, a connected pair, and the table of transports to test. The
 * functions fail the test unless they return a status.
 *
 * Environment:
 *   GAPLESS_TEST_VERBS=IP      tests the verbs transport, and only that, at ports of
 *                              this IP (fe80::1%eth0 in []); not tested without it
 */
#ifndef GAPLESS_TESTS_SIDE_H
#define GAPLESS_TESTS_SIDE_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/pace.h"
#include "transport/transport.h"

#include <pthread.h>
#include <stdbool.h>

#define MS INT64_C(1000000)
/* For what should take no time. */
#define LONG_NS pace_ns(5000 * MS)
#define PAGE 4096u

#define SIDE_DONES 512u

struct side {
    const struct transport *t;
    struct tp *tp;
    struct tp_event events[64];
    int count;
    int next;
    uint32_t done[SIDE_DONES]; /* notes of every TP_DONE seen so far, round and round */
    uint32_t dones;
    uint32_t undone; /* puts and gets whose TP_DONE has not come */
};

extern struct gapless_error side_error; /* of the last call that has one */
extern char side_address[80];           /* of this test */

/* Over real network devices: fewer of everything. */
bool side_is_slow(const struct side *side);
/* Another one, for a test with two servers. */
void side_address_next(void);

uint64_t side_clock_ns(void);
void side_nap(int64_t ns);

/* `state` is what cmocka hands to a test. */
void side_open(struct side *ret, void *state, const struct tp_config *config);
void side_close(struct side *side);

/* The table's entries, with side_error; each returns its status. */
int side_region_new(struct side *side, size_t bytes, struct tp_region *ret);
void side_region_free(struct side *side, struct tp_region *region);
int side_listen(struct side *side, const char *address);
int side_connect(struct side *side, const char *address, int64_t timeout_ns,
                 tp_peer *ret);
void side_drop(struct side *side, tp_peer peer);
int side_send_control(struct side *side, tp_peer peer, const void *data,
                      uint32_t bytes);
int side_grant(struct side *side, tp_peer peer, const struct tp_region *region,
               uint32_t window, enum tp_access access);
int side_window(struct side *side, tp_peer peer, uint32_t window, int64_t timeout_ns,
                struct tp_region *ret);
int side_put(struct side *side, tp_peer peer, const struct tp_region *window,
             size_t offset, size_t bytes, uint32_t note);
int side_get(struct side *side, tp_peer peer, const struct tp_region *window,
             size_t offset, size_t bytes, uint32_t tag);
int side_notify(struct side *side, tp_peer peer, uint32_t note);
int side_poll(struct side *side, struct tp_event *events, int max, int64_t timeout_ns);

/* Must succeed; a put or get may be under way when they return, see side_settle. */
void must_listen(struct side *side);
void must_region_new(struct side *side, size_t bytes, struct tp_region *ret);
void must_say(struct side *side, tp_peer peer, const char *text);
void must_grant(struct side *side, tp_peer peer, const struct tp_region *region,
                uint32_t number, enum tp_access access);
void must_window(struct side *side, tp_peer peer, uint32_t number,
                 struct tp_region *ret);
void must_put(struct side *side, tp_peer peer, const struct tp_region *window,
              uint32_t note);
void must_put_at(struct side *side, tp_peer peer, const struct tp_region *window,
                 size_t offset, size_t bytes, uint32_t note);
/* Waits until the bytes are there. */
void must_get(struct side *side, tp_peer peer, const struct tp_region *window,
              size_t offset, size_t bytes);
void must_notify(struct side *side, tp_peer peer, uint32_t note);
/* Waits for the TP_DONE of all puts and gets so far; what else comes is kept, but for
 * texts, which must not come. */
void side_drain(struct side *side);
/* Puts until the queue is full although it polls, and returns how many went. */
uint32_t side_fill(struct side *side, tp_peer peer, const struct tp_region *window,
                   size_t bytes);

/* The next event but TP_DONE; false: none within timeout_ns. */
bool side_next(struct side *side, struct tp_event *ret, int64_t timeout_ns);
struct tp_event side_want(struct side *side, enum tp_event_kind kind);
struct tp_event want_note(struct side *side, uint32_t note);
void want_text(struct side *side, const char *text);
void side_silent(struct side *side, int64_t timeout_ns);

/* Connecting may need a server that polls, so it runs in a thread. */
struct connecting {
    struct side *side;
    int64_t timeout_ns;
    struct gapless_error error;
    tp_peer peer;
    int status;
    pthread_t thread;
};
void connecting_start(struct connecting *ret, struct side *side);
tp_peer connecting_end(struct connecting *it);
/* Returns the server's number of the client. */
tp_peer side_join(struct side *server, struct side *client, tp_peer *ret_server);

/* One server, one client, and window 0 onto a page that the client may write. */
struct pair {
    struct side server;
    struct side client;
    tp_peer to_client;
    tp_peer to_server;
    struct tp_region region;
    struct tp_region window;
};
void pair_open(struct pair *ret, void *state, const struct tp_config *config);
void pair_close(struct pair *pair);

struct side_test {
    const char *name;
    CMUnitTestFunction run;
};
/* Runs every test on every transport; what main returns. */
int side_run(const struct side_test *tests, size_t count);

#endif
