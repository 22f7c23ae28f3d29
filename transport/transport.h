/* Transport: how peers move bytes. One table of functions; every transport fills every
 * entry, there is no NULL and no optional one. The engine knows only this file.
 *
 *   server (master)                              client (worker, observer)
 *   listen <──────────────────────────────────── connect       (returns a peer)
 *   TP_UP(peer)
 *   TP_TEXT <───────────── send_control ───── send_control      a few an hour
 *   grant(region, window) ─────────────────────> window()      what it may touch
 *   TP_NOTE <──────────────── put ────────────── put, get      one-sided, the data path
 *   notify ────────────────────────────────────> TP_NOTE
 *
 * Windows. The server owns memory (regions) and grants a peer access to a region under
 * a small number, the window. On the client, window() gives a local region that stands
 * for it: the shared memory transport maps the very same pages, so put and get move
 * nothing; a network transport registers local memory of the same size, put writes
 * [offset, offset + bytes) of it to the same place of the remote region, get reads it
 * back. Clients expose no memory to anybody.
 *
 * The promise. When TP_NOTE of a put is seen, all bytes of that put and of every
 * earlier put of that peer are visible. Notes of one peer arrive in order, and so do
 * its control messages; between the two, and among peers, there is no order. A local
 * range may be written again only after its put is done: when put returns GAPLESS_OK,
 * or with the TP_DONE that follows where it returned 1. Everything a peer sent before
 * it went away is delivered before its TP_DOWN. A note has 32 bits because a verbs
 * immediate has.
 *
 * Stores that bypass the cache (non-temporal) are ordered by nothing here: code that
 * makes them makes the fence (sfence) too, before put or notify.
 *
 * Would-block is a value (GAPLESS_AGAIN), never a wait; poll is the only call that
 * waits, except connect and window, which are bounded by their timeout. Waiting polls
 * with sched_yield for `spin_ns`, then sleeps. One transport object belongs to one
 * thread.
 */
#ifndef GAPLESS_TRANSPORT_H
#define GAPLESS_TRANSPORT_H

#include <gapless/status.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* An index below peers_max; reused after its TP_DOWN was delivered. */
typedef uint32_t tp_peer;

enum tp_event_kind {
    TP_UP,   /* server: a peer connected; it may say, nothing is granted yet */
    TP_DOWN, /* the peer is gone (closed, died, link lost); its number is free again */
    TP_TEXT, /* a control message: data, bytes; valid until the next poll */
    TP_NOTE, /* a note of put or notify */
    TP_DONE  /* a get (note = its tag) or put (note = its note) of ours has completed */
};

struct tp_event {
    enum tp_event_kind kind;
    tp_peer peer;
    uint32_t note;
    uint32_t bytes;   /* TP_TEXT: length of data */
    const void *data; /* TP_TEXT */
};

/* Memory known to the transport. `base` is aligned to a page and zero at first. `id`
 * and `handle` are the transport's; `split` is the owner's to set before a grant with
 * TP_SPLIT, or region_split's. */
struct tp_region {
    void *base;
    size_t bytes;
    size_t split;
    uint32_t id;
    uint64_t handle;
};

/* What a peer may do with a granted region. TP_SPLIT: it may read the bytes before
 * `split` and write those from it on, and nothing else. Over shared memory a page has one
 * access: of a `split` within a page it may write that page. */
enum tp_access {
    TP_READ,
    TP_READ_WRITE,
    TP_SPLIT
};

/* For transports over a network; the others take no notice. */
struct tp_net {
    const void *token; /* both sides must know it; NULL: none. Copied */
    size_t token_bytes;
    bool insecure;        /* listen beyond loopback without a token */
    const char *devices;  /* "mlx5_0,mlx5_1"; NULL: chosen by the address. Copied */
    uint32_t channels;    /* queue pairs a peer; 0: 1, or one for each device */
    uint32_t retries;     /* 1..6 before a peer counts as lost; 0: 6 */
    uint32_t ack_timeout; /* of one try: 4.096 us << n, n 8..20; 0: 14, 67 ms */
    bool exact; /* spend nothing on finding out whether idle peers live (tests) */
};

/* What has been done so far: what a network card, and a core that sleeps, would see. */
struct tp_counters {
    uint64_t requests;    /* work requests posted */
    uint64_t doorbells;   /* calls that posted them */
    uint64_t completions; /* taken from completion queues */
    uint64_t wakeups;     /* sleeps that ended */
    uint64_t regions;     /* registrations of memory, now */
    uint64_t refused;     /* connections that were not let in */
};

/* Memory of the caller's that a card can reach by itself: of a GPU, or of the host. */
struct tp_memory {
    void *base; /* its address, as the GPU has it */
    size_t bytes;
    int dmabuf; /* a descriptor of a DMA-BUF that holds it, the caller's to close;
                   -1: none, only by its address (host memory, nvidia-peermem) */
    uint64_t dmabuf_at; /* where in that it starts */
    bool gpu;           /* of a GPU; by its address it is nvidia-peermem's work */
};

/* Which way tp->loopback moves bytes. */
enum tp_way {
    TP_INTO, /* from the host buffer into the region */
    TP_OUT_OF
};
/* Most bytes of one tp->loopback. */
#define TP_LOOPBACK_MAX 4096u

struct tp_config {
    uint32_t peers_max; /* 0: 1 (a client) */
    uint32_t notes_max; /* most unread notes a peer may have in one direction; 0: 64 */
    uint32_t windows_max; /* most windows granted to a peer; 0: 4 */
    uint64_t spin_ns;     /* polling before sleeping; 0: 50,000 */
    struct tp_net net;
};

/* Most bytes of one control message. */
#define TP_TEXT_MAX 4096u

struct tp; /* one endpoint */

struct transport {
    const char *name; /* "shm", "verbs"; the part of an address before ':' */
    bool mapped; /* windows are the server's own memory: put and get move nothing */

    int (*open)(const struct tp_config *config, struct tp **ret,
                struct gapless_error *error);
    /* Drops all peers, ends, frees regions not freed. NULL is a no-op. */
    void (*close)(struct tp *tp);

    /* Memory that can be granted. Taken at start-up, never on the data path. */
    int (*region_new)(struct tp *tp, size_t bytes, struct tp_region *ret,
                      struct gapless_error *error);
    void (*region_free)(struct tp *tp, struct tp_region *region);
    /* Sets region->split, of a new region that will be granted with TP_SPLIT: shared memory
     * makes two memories of it then, side by side, before anybody
     * page-locks it (a grant does it, too; what the memory holds stays). */
    int (*region_split)(struct tp *tp, struct tp_region *region, size_t split,
                        struct gapless_error *error);
    /* The bytes [offset, offset + memory->bytes) of a region are in `memory` from now
     * on, which the caller keeps until the region is freed: peers and put and get reach
     * it there, whatever `base` holds at those bytes. Parts may be placed one after
     * another, apart from each other; before the region's first grant, or the first put
     * or get. How it was registered is given in a word or two ("DMA-BUF",
     * "nvidia-peermem", "host"), static text.
     *
     * It is registered at once with every card that is known: those that a server
     * listens at (so: after listen, at addresses of cards, before the first poll), or
     * that a client is connected by; with one that comes later when a peer over it is
     * granted the region, which ends the peer if it fails, or by listen, which fails
     * ("not registered yet"). GAPLESS_UNSUPPORTED: this transport, or its cards,
     * cannot; the text says why, and nothing has changed. GAPLESS_INVALID: it overlaps
     * what was placed before, or comes too late. GAPLESS_CAPACITY: too many parts. */
    int (*bind_memory)(struct tp *tp, struct tp_region *region, size_t offset,
                       const struct tp_memory *memory, const char **ret_how,
                       struct gapless_error *error);
    /* Moves at most TP_LOOPBACK_MAX bytes between host memory and one placed part, through
     * every card that has it registered, and waits for it, at most 1 s: proves that a
     * card reaches the memory; TP_OUT_OF also orders what that card wrote there before
     * (and fails if two cards read different bytes). Only the first call of all takes
     * anything from the system. GAPLESS_UNSUPPORTED: this transport, or a card of it
     * (iWARP), has no such way. GAPLESS_AGAIN: no card has it registered yet. */
    int (*loopback)(struct tp *tp, const struct tp_region *region, size_t offset,
                    void *host, size_t bytes, enum tp_way way,
                    struct gapless_error *error);

    /* Address without the "name:" prefix. An endpoint listens, once, or connects. */
    int (*listen)(struct tp *tp, const char *address, struct gapless_error *error);
    /* Waits for the server to appear, at most timeout_ns (negative: 1 s). */
    int (*connect)(struct tp *tp, const char *address, int64_t timeout_ns, tp_peer *ret,
                   struct gapless_error *error);
    /* Ends a connection after what was said is delivered. Nothing of the peer is
     * delivered on this side any more, nor a TP_DOWN. */
    void (*drop)(struct tp *tp, tp_peer peer);

    /* On a client GAPLESS_AGAIN means that the server has not read earlier ones. A
     * server never waits: a peer that does not read is ended with GAPLESS_PEER_LOST,
     * and its TP_DOWN follows. */
    int (*send_control)(struct tp *tp, tp_peer peer, const void *data, uint32_t bytes,
                        struct gapless_error *error);
    /* Server: the peer may now open `window` onto the region; said in order with send_control().
     * A region is granted with one access, to all peers: the first grant decides, any
     * other is GAPLESS_INVALID from then on. A window number
     * may be granted again. window >= windows_max of either side is GAPLESS_CAPACITY.
     */
    int (*grant)(struct tp *tp, tp_peer peer, const struct tp_region *region,
                 uint32_t window, enum tp_access access, struct gapless_error *error);
    /* Client: the local region that stands for a granted window. Waits for the grant at
     * most timeout_ns (negative: 1 s). GAPLESS_AGAIN: control messages wait unread
     * before it, poll first. Freed with region_free or close; readable after the peer
     * is gone. */
    int (*window)(struct tp *tp, tp_peer peer, uint32_t window, int64_t timeout_ns,
                  struct tp_region *ret, struct gapless_error *error);

    /* Client, of bytes that it may read of a window granted with TP_SPLIT: it may write
     * there, too, for itself alone, and what it wrote is forgotten when this is called
     * again: then the bytes are the server's as they are now. Whole pages are. Where
     * windows are memory of the client's own there is nothing to do. */
    int (*scratch)(struct tp *tp, const struct tp_region *window, size_t offset,
                   size_t bytes, struct gapless_error *error);

    /* Client: bytes of a window to the server, then a note to it. bytes may be 0, and
     * must be for a window granted for reading. Outside of the window, or of what may
     * be written of it: GAPLESS_INVALID. A full queue: GAPLESS_AGAIN. The peer has
     * ended: GAPLESS_PEER_LOST. GAPLESS_OK: the bytes may be written again at once; 1:
     * when TP_DONE with the note has come. */
    int (*put)(struct tp *tp, tp_peer peer, const struct tp_region *window,
               size_t offset, size_t bytes, uint32_t note);
    /* Client: bytes of a window from the server; TP_DONE with the tag when there. Where
     * the window is mapped the bytes are there already: returns GAPLESS_OK and gives no
     * TP_DONE; otherwise GAPLESS_AGAIN means the queue is full, and 1 that TP_DONE will
     * follow. */
    int (*get)(struct tp *tp, tp_peer peer, const struct tp_region *window,
               size_t offset, size_t bytes, uint32_t tag);
    int (*notify)(struct tp *tp, tp_peer peer, uint32_t note);

    /* Waits until something happened or timeout_ns passed (0: only looks; negative: a
     * bound of 1 s). Returns the number of events written (0..max), or a negative
     * status. */
    int (*poll)(struct tp *tp, struct tp_event *events, int max, int64_t timeout_ns);
    uint64_t (*now_ns)(struct tp *tp);

    /* One line on how a peer is reached, or (TP_NOBODY) on what the endpoint listens
     * at: device, port, path, and why these. Returns its length; 0: nothing to say. */
    size_t (*describe)(struct tp *tp, tp_peer peer, char *ret, size_t bytes);
    /* Why a peer went: valid from its TP_DOWN, or from the first GAPLESS_PEER_LOST,
     * until its number is used again. Names the peer, the operation, the likely cause
     * and the remedy. status GAPLESS_OK: it closed in order, or nothing is known.
     * TP_NOBODY: why the endpoint broke, or the last connection was not let in. */
    void (*last_error)(struct tp *tp, tp_peer peer, struct gapless_error *ret);
    void (*count)(struct tp *tp, struct tp_counters *ret);
};

#define TP_NOBODY UINT32_MAX

extern const struct transport transport_shm;
extern const struct transport transport_sim;
/* The same as sim, but nothing is mapped: clients have memory of their own, as over a
 * network, and bytes take the link's time. */
extern const struct transport transport_simnet;
/* InfiniBand, RoCE, iWARP. Address: HOST:PORT[,HOST:PORT...], an IPv6 address in []. */
extern const struct transport transport_verbs;
/* The RDMA devices of this machine, their ports, GIDs and limits: lines for a person,
 * cut at `bytes`. Returns the number of devices, or a negative status. */
int verbs_survey(char *ret, size_t bytes);

#endif
