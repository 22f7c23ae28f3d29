/* Private to `gapless bench transport`: what its files share.
 *
 *   client (this process)                       server (a child, or another machine)
 *   say "region BYTES" ───────────────────────> takes it and grants it as window 0
 *   put, get ─────────────────────────────────> nothing; a note with ECHO is notified
 *   say "update BYTES RANGE" ─────────────────> opens a master at the second address
 *   <─────────────────────────────── say "open"
 *   gapless_worker at the second address <────> gapless_master, until the worker leaves
 *   <──────────── say "closed" and its counts
 *   say "bye" ────────────────────────────────> ends
 *
 * The second address is the first with the next port, or with "-update" behind its
 * name.
 */
#ifndef GAPLESS_BENCH_TRANSPORT_H
#define GAPLESS_BENCH_TRANSPORT_H

#include "bench/bench.h"

#include "engine/base/clock.h"

#include <gapless/gapless.h>
#include "transport/transport.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#define BT_SAMPLES_MAX 200000
#define BT_NOTES 512        /* most notes under way */
#define BT_ECHO 0x80000000u /* of a note: the server answers it */
#define BT_BOUND_S 30.0     /* without any progress something is broken */
#define BT_REGION_MIN (16u << 20)
#define BT_UPDATE_BYTES (16u << 20)
#define BT_SPIN_NS 1000000000ull /* both sides poll, as they do under load */

enum bt_op {
    BT_WRITE,
    BT_READ,
    BT_WRITE_LAT,
    BT_READ_LAT,
    BT_UPDATE,
    BT_OPS
};
extern const char *const bt_op_names[BT_OPS];

struct bt_options {
    enum bench_role role;
    char transport[16];
    char address[BENCH_ADDRESS_MAX], update_address[BENCH_ADDRESS_MAX];
    bool op[BT_OPS];
    struct bench_sizes sizes; /* none: each operation's own */
    double seconds;
    bool json, sleep;
    struct gapless_net net;
    unsigned char token[BENCH_TOKEN_MAX];
    /* Of a server: `place` puts the region where it shall be, before anybody connects;
     * it has place_bytes, which must be enough for the client. NULL: it stays where it
     * is. */
    int (*place)(void *context, const struct transport *t, struct tp *tp,
                 struct tp_region *region, struct gapless_error *error);
    void *place_context;
    size_t place_bytes;
};

/* One measured figure. Counts are of an operation, at the side that is named; NaN where
 * there is none. */
struct bt_counts {
    double requests, doorbells, completions, wakeups;
};
struct bt_figure {
    enum bt_op op;
    uint64_t bytes;
    uint32_t ranges; /* of an update */
    uint64_t ops;    /* that were measured */
    double seconds;
    bool stable;
    double gb_s, gb_s_best;                  /* 1e9 bytes a second; NaN: none */
    double p50_us, p99_us, p999_us, mean_us; /* NaN: only the mean was taken */
    double ceiling_gb_s;                     /* NaN: none */
    struct bt_counts client, server;
};
struct bt_figure bt_figure_of(enum bt_op op, uint64_t bytes);

/* bench_transport_server.c */
/* Serves one client until it says bye or goes. An exit code; what failed was
 * printed. */
int bt_serve(const struct bt_options *o);

/* bench_transport_client.c */
struct bt_client {
    const struct bt_options *o;
    const struct transport *t;
    struct tp *tp;
    tp_peer peer;
    struct tp_region window;
    unsigned char *local; /* where the window is mapped: what is copied to and fro */
    uint64_t under_way;   /* puts and gets that a TP_DONE will end */
    uint64_t echoes;
    bool down;
    char text[TP_TEXT_MAX + 1]; /* the last control message; "": none */
    char link[256];
};
/* `server`: a child that may have failed, and then the client need not wait; 0:
 * none. */
int bt_client_open(const struct bt_options *o, pid_t server, struct bt_client *ret,
                   struct gapless_error *error);
void bt_client_close(struct bt_client *client);
/* Takes what has arrived, waits at most so long. */
int bt_client_poll(struct bt_client *client, int64_t timeout_ns,
                   struct gapless_error *error);
int bt_client_send_control(struct bt_client *client, const char *text,
                           struct gapless_error *error);
/* Waits for a control message; it is in client->text. */
int bt_client_hear(struct bt_client *client, struct gapless_error *error);
/* Measures put or get of this many bytes. */
int bt_bandwidth(struct bt_client *client, enum bt_op op, uint64_t bytes,
                 struct bt_figure *ret, struct gapless_error *error);
int bt_latency(struct bt_client *client, enum bt_op op, uint64_t bytes,
               struct bt_figure *ret, struct gapless_error *error);

/* bench_transport_update.c */
/* A worker's round trips; `range`: elements of a range. */
int bt_update(struct bt_client *client, uint64_t range, struct bt_figure *ret,
              struct gapless_error *error);
/* The other side: opens the master that the words of `text` ask for, runs it until its
 * worker has left. */
int bt_update_serve(const struct bt_options *o, const struct transport *t,
                    struct tp *tp, tp_peer peer, const char *text,
                    struct gapless_error *error);

/* bench_transport_report.c */
void bt_head(const struct bt_options *o, const struct bt_client *client);
void bt_row(const struct bt_figure *figure);
struct json_t;
struct json_t *bt_json(const struct bt_figure *figure);

/* bench_transport_time.c: a clock that costs nothing even where the system's is slow */
uint64_t bt_ticks(void);
double clock_seconds(void); /* s */
struct bt_scale {
    uint64_t ticks;
    double seconds;
};
struct bt_scale bt_scale_start(void);
/* Seconds of a tick, by what has passed of both clocks since the start. */
double bt_scale_end(const struct bt_scale *start);
/* Sorts; p50, p99, p99.9 and the mean. */
void bt_quantiles(double *sample, uint64_t count, double scale, struct bt_figure *ret);

#endif
