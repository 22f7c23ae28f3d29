/* What worker and observer have in common: reach the master, say hello, be welcomed or
 * refused; read from the master and put to it.
 *
 * Where the transport maps memory, what is read is there already and every get is done
 * when it is asked for. Otherwise windows are memory of the client's own, gets and puts
 * are under way for a while, and `open` counts them.
 */
#ifndef GAPLESS_CLIENT_H
#define GAPLESS_CLIENT_H

#include "engine/run/backends.h"
#include "engine/run/wire.h"

#define CLIENT_CONNECT_NS 10000000000ll
/* The tag of a get: no note has it, which only helps to read a trace. */
#define CLIENT_GET NOTE(0x100, 0)

struct client {
    const struct transport *transport;
    struct tp *tp;
    uint32_t owner; /* the process that opened it */
    tp_peer peer;
    bool connected;
    char address[128];
    struct wire_welcome welcome;
    bool welcomed;
    uint32_t open; /* puts and gets whose TP_DONE has not come yet */
    struct gapless_error
        refusal; /* status not 0: the master refused or dropped us, in its words */
    struct tp_region shared_stats_region;
    const struct shared_stats *shared_stats; /* in it; read only */
    void (*on_note)(void *user, uint32_t note);
    void *user;
};

struct client_wishes {
    const char *address;
    const struct wire_hello *hello;
    int64_t connect_ns; /* 0: CLIENT_CONNECT_NS */
    int64_t spin_ns;
    const struct gapless_net *net; /* NULL: the defaults */
    /* Gets the notes that arrive, in any call below that polls. */
    void (*on_note)(void *user, uint32_t note);
    void *user;
};

/* Connects, says hello, waits for the answer. */
int client_open(struct client *ret, const struct client_wishes *wishes,
                struct gapless_error *error);
/* One wait of at most timeout_ns; hands notes on. GAPLESS_OK, or why the connection is
 * over. */
int client_poll(struct client *client, int64_t timeout_ns, struct gapless_error *error);
/* After a GAPLESS_PEER_LOST: reads what the master said last, then says why it went, as
 * far as anybody knows. Returns a status that is not GAPLESS_OK. */
int client_lost(struct client *client, struct gapless_error *error);
/* Opens a window the master has granted. At least `bytes` long or GAPLESS_PROTOCOL. */
int client_window(struct client *client, enum wire_window window, size_t bytes,
                  struct tp_region *ret, struct gapless_error *error);

/* Asks for bytes of a window, without waiting: GAPLESS_OK: they are there, or will be
 * once client_drain says so; GAPLESS_AGAIN: poll first. */
int client_get(struct client *client, const struct tp_region *window, size_t at,
               size_t bytes, struct gapless_error *error);
/* The same; where the queue is full, waits until `deadline_ns` of the transport's
 * clock. */
int client_fetch(struct client *client, const struct tp_region *window, size_t at,
                 size_t bytes, uint64_t deadline_ns, struct gapless_error *error);
/* Bytes of a window to the master, and a note, without waiting. Until client_drain
 * they must stay as they are. */
int client_put(struct client *client, const struct tp_region *window, size_t at,
               size_t bytes, uint32_t note, struct gapless_error *error);
/* Waits until everything that was asked for is there and everything put is through. */
int client_drain(struct client *client, uint64_t deadline_ns,
                 struct gapless_error *error);

/* Opens the shared statistics, brings all of it, and checks its table against the welcome. */
int client_shared_stats(struct client *client, struct gapless_error *error);
/* Brings the version words of all ranges again, and waits for them. */
int client_versions(struct client *client, uint64_t deadline_ns,
                    struct gapless_error *error);
/* `timeout_ns` from now, by the transport's clock. */
uint64_t client_deadline(const struct client *client, int64_t timeout_ns);
/* May be called on a zeroed or half-open client. */
void client_close(struct client *client);

#endif
