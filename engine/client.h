/* What worker and observer have in common: reach the master, say hello, be welcomed or
 * refused. */
#ifndef GAPLESS_CLIENT_H
#define GAPLESS_CLIENT_H

#include "backends.h"
#include "wire.h"

#define CLIENT_CONNECT_NS 10000000000ll

struct client {
    const struct transport *transport;
    struct tp *tp;
    tp_peer peer;
    bool connected;
    char address[128];
    struct wire_welcome welcome;
    bool welcomed;
    uint64_t done; /* gets completed so far */
    struct gapless_error
        refusal; /* status not 0: the master refused or dropped us, in its words */
    const struct board *board; /* mapped, read only */
};

/* Connects, says `hello`, waits for the answer. `on_note` gets notes that arrive
 * meanwhile. */
int client_open(struct client *ret, const char *address, const struct wire_hello *hello,
                int64_t connect_ns, int64_t spin_ns, uint32_t notes_max,
                void (*on_note)(void *user, uint32_t note), void *user,
                struct gapless_error *error);
/* One wait of at most timeout_ns; hands notes on. GAPLESS_OK, or why the connection is
 * over. */
int client_poll(struct client *client, int64_t timeout_ns,
                void (*on_note)(void *user, uint32_t note), void *user,
                struct gapless_error *error);
/* Opens a window the master has granted. At least `bytes` long or GAPLESS_PROTOCOL. */
int client_window(struct client *client, enum wire_window window, size_t bytes,
                  struct tp_region *ret, struct gapless_error *error);
/* Opens the board and checks its table against the welcome. */
int client_board(struct client *client, struct gapless_error *error);
/* May be called on a zeroed or half-open client. */
void client_close(struct client *client);

#endif
