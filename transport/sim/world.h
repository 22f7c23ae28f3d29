/* Simulated transport, what its files share.
 *
 *   sim.c         the tables; say, grant, drop, put, get, notify
 *   memory.c  regions, and bytes under way between them
 *   poll.c    poll and window: events, the pump, the clock
 *   listener.c    listen, connect, and the end of a connection
 *   world.c   worlds: names, locks, clock, queues
 *
 *   world   waiting:  [server 5 ns] [client B 7 ns] [client A 9 ns]      a heap of
 *                         |               |               |             endpoints
 *   tp      items:    5 8 8 12          7             9 11               a heap each
 *
 * An endpoint has a heap of what is on the way to it or waits to be polled, in order of
 * (time, sequence), and the world has a heap of the endpoints that have anything, in
 * order of their first items. So poll touches one endpoint, sim_next looks at one item,
 * and neither depends on the number of peers but by its logarithm.
 *
 * A world is what listened on one name. Where a client connects to a second server, the
 * two worlds become one: `into` says which of them has the clock and the queues from
 * then on, its root. The name, the link and the port stay each world's own.
 *
 * Locks. names_mutex (world.c): the list of names and what is marked so. The mutex
 * of the root: everything else, that of endpoints included, as soon as they belong to a
 * world. Order: names, then one root; two roots only by who holds names.
 */
#ifndef GAPLESS_SIM_WORLD_H
#define GAPLESS_SIM_WORLD_H

#include "transport/common.h"
#include "transport/sim/sim.h"

#include <pthread.h>

#define SIM_PEERS_MAX 65536u
#define SIM_NOTES_MAX 65536u
#define SIM_WINDOWS_MAX 4096u
/* Control messages that a peer may have unread in one direction. */
#define SIM_TEXTS_MAX 256u
#define SIM_NAME_MAX 100u
/* The bound of a timeout that is negative. */
#define SIM_BOUND_NS INT64_C(1000000000)
/* Not in the world's heap. */
#define SIM_NOWHERE SIZE_MAX

/* ---- memory -------------------------------------------------------------- */

/* Pages, freed by the last of the regions and granted windows that refer to them. */
struct sim_memory {
    void *base;
    size_t bytes;
    uint32_t refs;
};

/* What a grant left at a client, for window() to find. */
struct sim_window {
    struct sim_memory *memory; /* NULL: not granted */
    enum tp_access access;
    size_t split;
};

struct sim_region {
    struct tp_entry common;
    struct sim_memory *memory;
    struct sim_memory *remote; /* of a window that is not mapped: the server's */
    bool opened;               /* by window() */
};

/* ---- what is delivered --------------------------------------------------- */

struct sim_text {
    struct sim_text *next;
    uint32_t bytes;
    uint8_t data[];
};

/* This many bytes of a put go with the request, as a network card would take them. */
#define SIM_INLINE 64u

/* Bytes of a put or get that are under way between two memories (simnet). They are
 * copied when the first of its items is delivered: until then the source must stay as
 * it is, and a client that changes it too soon sees what comes of it. */
struct sim_move {
    struct sim_memory *from;
    struct sim_memory *to;
    size_t offset;
    size_t bytes;
    uint32_t refs; /* items */
    bool carried;
    bool is_inlined;
    char inlined[SIM_INLINE];
};

struct sim_item {
    uint64_t at_ns;
    uint64_t sequence;
    struct sim_text *text; /* TP_TEXT */
    struct sim_move *move; /* NULL: none */
    uint64_t pass_ns;      /* TP_NOTE: what its bytes keep the server at */
    uint32_t note;
    tp_peer peer; /* the receiver's number of the sender */
    enum tp_event_kind kind;
};

/* ---- peers and endpoints ------------------------------------------------- */

enum sim_state {
    SIM_FREE,
    SIM_LIVE,
    SIM_LEAVING, /* ended; its TP_DOWN is among the items */
    SIM_OVER     /* ended here; free at the next poll */
};

struct sim_peer {
    enum sim_state state;
    bool up;             /* its TP_UP was delivered */
    uint32_t generation; /* counts uses of the peer slot */
    struct tp *remote;   /* while LIVE */
    tp_peer remote_peer; /* our number there */
    uint32_t notes_max;
    uint32_t windows_max;
    /* From there to here. */
    uint64_t last_ns;           /* the latest delivery so far */
    uint64_t note_ns;           /* the latest note so far */
    uint32_t notes;             /* unread */
    uint32_t texts;             /* unread */
    uint32_t dones;             /* TP_DONE to come, of our own puts and gets */
    uint64_t done_ns;           /* the latest of them */
    bool not_reading;           /* it ended because it did not read */
    struct sim_window *windows; /* client */
};

enum sim_role {
    SIM_NEITHER,
    SIM_SERVER,
    SIM_CLIENT
};

struct tp {
    struct tp_config config;
    enum sim_role role;
    bool apart;              /* simnet: clients have memory of their own */
    struct sim_world *world; /* of the first name; NULL: none yet */
    uint64_t alone_ns;       /* the clock of an endpoint without a world */
    void *user;
    struct sim_peer *peers;
    struct sim_window *windows;
    struct tp_table regions; /* of struct sim_region */
    struct sim_item *items;
    size_t item_count;
    size_t item_max;
    size_t item_kept;      /* of these for a TP_DOWN each, which must not fail */
    size_t place;          /* in the world's heap */
    struct sim_text *held; /* delivered by the last poll */
    uint32_t *over;
    uint32_t over_count;
    uint64_t taken;   /* events delivered so far */
    uint64_t busy_ns; /* server: until then it is at the bytes delivered so far */
    uint64_t gets_done_ns;
    struct tp_counters counters;
};

/* One direction of a server's port: when all that was sent so far is through. */
struct sim_port {
    uint64_t free_ns;
    double part; /* of a ns after that */
};

struct sim_world {
    pthread_mutex_t mutex;
    struct sim_world *into; /* the clock and the queues are there; set once */

    /* Of a root. */
    uint64_t now_ns;
    uint64_t sequence;
    struct tp **waiting;
    size_t waiting_count;
    size_t waiting_max;
    size_t endpoints;
    void (*pump)(void *user);
    void *pump_user;
    bool pumping;

    /* Of the name; guarded by the root. */
    struct sim_link link;
    struct sim_port in;
    struct sim_port out;
    uint64_t busy_ns;

    /* Guarded by names_mutex. */
    struct sim_world *next;
    struct tp *server;
    bool apart;  /* simnet's names and sim's have nothing to do with each other */
    size_t refs; /* endpoints, and worlds that went into this one */
    char name[SIM_NAME_MAX];
};

/* ---- world.c ------------------------------------------------------------- */

/* a + b, or the end of time. */
uint64_t sim_later(uint64_t a_ns, uint64_t b_ns);

void sim_names_lock(void);
void sim_names_unlock(void);
/* With the names locked. NULL: no endpoint has the name. A new world has no reference yet:
 * sim_world_enter or sim_world_release must follow. */
struct sim_world *sim_world_find(const char *name, bool apart);
struct sim_world *sim_world_new(const char *name, bool apart);
/* Frees the world if nothing refers to it. */
void sim_world_release(struct sim_world *world);
/* The endpoint becomes one of the world, or its world becomes one with it. False: no
 * memory, and nothing changed. */
bool sim_world_enter(struct tp *tp, struct sim_world *world);
/* The endpoint is one of its world no longer. It must have no items. */
void sim_world_leave(struct tp *tp);

/* Locks the root and returns it. */
struct sim_world *sim_world_lock(struct sim_world *world);
/* The same for the world of an endpoint; NULL, and nothing is locked, if it has
 * none. */
struct sim_world *sim_lock(const struct tp *tp);
void sim_unlock(struct sim_world *root);

/* With the root locked. Room for this many more items besides those that are kept; false:
 * no memory. */
bool sim_queue_room(struct tp *tp, size_t more);
/* There must be room. Gives the item its sequence. */
void sim_queue_add(struct sim_world *root, struct tp *tp, const struct sim_item *item);
/* The first item leaves the queue; there must be one. */
struct sim_item sim_queue_take(struct sim_world *root, struct tp *tp);
/* Removes all items from a peer, or from all (UINT32_MAX), with their texts. */
void sim_queue_purge(struct sim_world *root, struct tp *tp, tp_peer peer);

/* ---- listener.c ---------------------------------------------------------- */

int sim_listen(struct tp *tp, const char *address, struct gapless_error *error);
int sim_connect(struct tp *tp, const char *address, int64_t timeout_ns, tp_peer *ret,
                struct gapless_error *error);
/* Ends the connection to a LIVE peer. The other side gets what is on the way to it and
 * then DOWN; on this side the peer slot is LEAVING, and sim_peer_down or _over follows. */
void sim_peer_cut(struct sim_world *root, struct tp *tp, uint32_t index);
/* DOWN, behind all that is on the way here. */
void sim_peer_down(struct sim_world *root, struct tp *tp, uint32_t index);
/* Nothing more of it is delivered here; free at the next poll. */
void sim_peer_over(struct tp *tp, uint32_t index);
/* Peer slots that are OVER become FREE. */
void sim_release_over(struct tp *tp);

/* ---- poll.c -------------------------------------------------------------- */

/* Real time, for what only another thread can do. */
void sim_nap_until(uint64_t deadline_ns);
/* With the root locked; it is given up meanwhile, so look at everything again. False:
 * there is no pump, or we are in it. */
bool sim_pump(struct tp *tp, struct sim_world **root);
int sim_poll(struct tp *tp, struct tp_event *events, int max, int64_t timeout_ns);
int sim_window(struct tp *tp, tp_peer index, uint32_t window, int64_t timeout_ns,
               struct tp_region *ret, struct gapless_error *error);

/* ---- memory.c ------------------------------------------------------------ */

/* NULL is a no-op, also for a move. */
void sim_memory_release(struct sim_memory *memory);
/* Zeroed pages with one reference; NULL: none to be had, see errno. */
struct sim_memory *sim_memory_new(size_t bytes);
/* With the root locked. NULL: no memory. */
struct sim_move *sim_move_new(struct sim_memory *from, struct sim_memory *to,
                              size_t offset, size_t bytes, uint32_t refs);
/* One item of it is delivered (the first carries the bytes), or never will be. */
void sim_move_end(struct sim_move *move, bool delivered);

int sim_region_new(struct tp *tp, size_t bytes, struct tp_region *ret,
                   struct gapless_error *error);
void sim_region_free(struct tp *tp, struct tp_region *region);
/* The entry of a handle; NULL: there is none, or it is stale. */
struct sim_region *sim_region_find(struct tp *tp, const struct tp_region *region);
/* Enters a region in the table, which owns its references to memory from then on; they
 * are released if it fails. */
int sim_region_add(struct tp *tp, const struct sim_region *region,
                   struct tp_region *ret, struct gapless_error *error);

#endif
