/* A peer of the shared memory transport taken apart: a client that says and writes what
 * it likes, and the few things that the fault tests of the transport share. The
 * functions fail the test unless they return a status. */
#ifndef GAPLESS_TESTS_SHM_RAW_H
#define GAPLESS_TESTS_SHM_RAW_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/pace.h"
#include "transport/shm/shm.h"

#define MS INT64_C(1000000)
/* For what should take no time. */
#define LONG_NS pace_ns(5000 * MS)

extern const struct transport *const raw_t; /* the transport */
extern struct gapless_error raw_error;
extern char raw_name[128]; /* an address of this test */

/* cmocka: a new address before each test; afterwards no descriptor is left open. */
int raw_setup(void **state);
int raw_teardown(void **state);

int raw_fd_count(void);
void raw_nap(int64_t ns);
/* Seconds of processor time this process has used. */
double raw_cpu(void);
/* Memory that this process and its children share, zeroed; never freed. */
void *raw_shared(size_t bytes);

/* ---- a server ------------------------------------------------------------ */

struct tp *raw_server(uint32_t peers_max);
/* The next event, or kind TP_DONE if there is none within timeout_ns. */
struct tp_event raw_event(struct tp *tp, int64_t timeout_ns);
struct tp_event raw_want(struct tp *tp, enum tp_event_kind kind);
void raw_silent(struct tp *tp, int64_t timeout_ns);
/* A well-behaved client of the server; *ret_peer is the server's number of it. */
struct tp *raw_good_client(struct tp *server, tp_peer *ret_peer);
/* The server serves: a note there and a note back. */
void raw_ping(struct tp *server, struct tp *client, tp_peer peer);

/* ---- a client in pieces -------------------------------------------------- */

struct raw {
    int fd;
    int doorbell_fd;
    struct doorbell *doorbell; /* its own */
    struct shm_control *control;
    struct doorbell *server_doorbell;
    uint32_t bit; /* in it: the server's number of this peer */
    struct ring *up;
    struct ring *down;
    uint32_t capacity;
};

/* Connects the socket, and says nothing. */
void raw_dial(struct raw *ret);
/* Greets as a good client would, and maps what it gets. */
void raw_open(struct raw *ret, struct tp *server);
void raw_close(struct raw *raw);
int raw_frame(struct raw *raw, enum shm_frame_kind kind, uint32_t a, uint32_t b,
              const int *fds, int fd_count);
/* The server's answer to what was said; its text, if any, in raw_error. */
struct shm_packet raw_answer(struct raw *raw);
/* Nothing more comes: the server has closed the connection. */
void raw_ended(struct raw *raw);

#endif
