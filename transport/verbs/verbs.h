/* Inside of the verbs transport (InfiniBand, RoCE, iWARP): shared by verbs*.c. No other
 * file includes this.
 *
 *   peer ── channel 0 ── queue pair on a nic          nic: device with one protection
 *        └─ channel 1 ── queue pair on another        domain, one completion queue
 *
 * A channel is a connection. On it go, all in order:
 *   WRITE ... WRITE WITH_IMM   a put, cut into pieces, and its note
 *   READ ...                   a get
 *   WRITE WITH_IMM, 0 bytes    a note alone
 *   SEND of a frame            handshake, control messages, grants, credits; and notes
 *                              where there are no immediates, or several channels
 *   WRITE, 0 bytes             is the other side there?
 *
 * Who receives posts as many receives as the other side may have unread notes and
 * frames, and gives credit back when half of them have been read; no side ever sends
 * without credit, so no receiver is ever not ready.
 *
 * There is no thread: everything happens in the calls of the table. Only connect,
 * window, drop and close wait, each with a bound.
 */
#ifndef GAPLESS_VERBS_H
#define GAPLESS_VERBS_H

#include "transport/common.h"
#include "transport/verbs/wire.h"

#include <infiniband/verbs.h>
#include <poll.h>
#include <rdma/rdma_cma.h>

#define VERBS_NICS 8u
#define VERBS_CHANNELS 16u
#define VERBS_QUEUES 16u
/* Connections that are not welcome yet, at a server. */
#define VERBS_PENDING_CONNS 64u
#define VERBS_LISTENERS 8u
/* Receives that are posted at once. */
#define VERBS_RECEIVES 8u
/* Receives beyond those for notes and frames: credits under way, and those that wait to
 * be posted. */
#define VERBS_SPARE (8u + VERBS_RECEIVES)
/* Unread notes that a client has room for; beyond them they wait at the server. */
#define VERBS_CLIENT_NOTES 256u
#define VERBS_INLINE 64u
/* A message is cut above this even where the device would take more. */
#define VERBS_PIECE (1u << 30)
/* A peer that does nothing is asked for a sign of life so often. */
#define VERBS_KEEPALIVE_NS UINT64_C(250000000)
/* A peer that owes one so long, or as long as the card tries, is lost. */
#define VERBS_LEASE_NS UINT64_C(1000000000)
/* After so long in which this endpoint was not looked after (a long pass, a stopped
 * process) what has arrived is taken before any deadline is looked at. */
#define VERBS_AWAY_NS UINT64_C(100000000)
/* A connection that is not made, greeted or ended by then is given up. */
#define VERBS_GREET_NS UINT64_C(5000000000)
#define VERBS_DRAIN_NS UINT64_C(1000000000)
/* drop and close: what was sent before has so long to arrive. */
#define VERBS_FLUSH_NS UINT64_C(1000000000)

/* close: the other sides have so long to hear of it. */
#define VERBS_LINGER_NS UINT64_C(250000000)

struct verbs_nic {
    struct ibv_context *context; /* of librdmacm, kept open by `holder` */
    struct rdma_cm_id *holder;
    struct ibv_pd *pd;
    struct ibv_comp_channel *channel;
    /* One, unless the device's are too short for all channels. */
    struct ibv_cq *cq[VERBS_QUEUES];
    uint32_t cq_used[VERBS_QUEUES]; /* completions that may wait at once */
    uint32_t unacked[VERBS_QUEUES]; /* events of the channel */
    uint32_t queues;
    struct ibv_device_attr attr;
    uint32_t piece;              /* most bytes of a message */
    bool iwarp;                  /* no immediates */
    bool windows;                /* memory windows of type 2 */
    struct verbs_loopback *loop; /* made at its first use */
};

/* Bytes of a region that are in one place: its own memory, or what was placed. A region
 * is its parts, one after the other. */
struct verbs_part {
    size_t offset, bytes; /* of the region */
    char *at;             /* what the other side's requests, and ours, call it */
    bool placed;
    bool card;          /* of a GPU, not for a processor's loads and stores */
    int dmabuf;         /* our own descriptor; -1: none */
    uint64_t dmabuf_at; /* where in that it starts */
    const char *how;    /* placed: it was registered; NULL: not yet */
    struct ibv_mr *whole[VERBS_NICS];   /* for our own use; placed: always there */
    struct ibv_mr *half[2][VERBS_NICS]; /* to bind windows in: below the split, above */
};

struct verbs_region {
    uint32_t id; /* 0: free */
    void *base;
    size_t bytes, mapped_bytes;
    bool granted, moved; /* too late to place anything */
    enum tp_access access;
    struct verbs_part *part;
    uint32_t parts;
    /* a client's window */
    bool window;
    tp_peer peer;
    uint32_t life;   /* of the peer */
    uint32_t number; /* of the window, whose remote half is in the peer */
    uint32_t serial; /* of the grant */
    size_t split;
};

/* One half of a part of a grant at the server: what dies with the peer. */
struct verbs_key {
    struct ibv_mw *mw;
    struct ibv_mr *mr;
    uint32_t region; /* id */
};

/* A part of a grant at the client: where it is on the other side. */
struct verbs_remote {
    uint64_t offset, bytes; /* of the region */
    uint64_t address;
    uint32_t read_key, write_key;
};

/* What a peer may touch, on every channel. At the client the remote side's numbers. */
struct verbs_grant {
    uint32_t serial; /* counts grants of this number; 0: none */
    enum tp_access access;
    uint64_t bytes, split;
    struct verbs_key *key;       /* server: 2 * parts, for reading and for writing */
    struct verbs_remote *remote; /* client */
    uint32_t parts;
    struct verbs_remote
        *coming;              /* client: the next grant, of which frames are missing */
    struct verbs_offer offer; /* the head of the first of them */
    uint32_t came;
};

/* What a work request was, in order of posting. */
enum verbs_what {
    VERBS_PIECE_OF, /* of a put or get whose end follows */
    VERBS_PUT,
    VERBS_GET,
    VERBS_NOTE,
    VERBS_FRAME,
    VERBS_BIND,
    VERBS_BEAT
};

struct verbs_sent {
    uint8_t what;
    bool tell;      /* TP_DONE follows */
    uint16_t frame; /* number + 1 of the buffer it was sent from; 0: none */
    uint32_t note;
};

enum verbs_channel_state {
    CHANNEL_FREE,
    CHANNEL_MAKING,  /* client: addresses are looked up; server: accepted */
    CHANNEL_GREETED, /* connected; the two prove to each other who they are */
    CHANNEL_WAITING, /* server: all is well but there is no peer slot */
    CHANNEL_LIVE,
    CHANNEL_LEAVING, /* server's drop: what was said is still on its way */
    CHANNEL_ENDING   /* disconnected: completions still come, then it is over */
};

struct verbs_channel {
    enum verbs_channel_state state;
    struct tp *tp;
    uint32_t index; /* in tp->channels */
    uint32_t life;  /* so that a completion of an earlier life is known */
    struct rdma_cm_id *id;
    struct ibv_qp *qp;
    struct ibv_pd *pd; /* the nic's; a server's without windows: its own, so that
                          another peer's key is worth nothing here */
    bool windows;      /* memory windows are bound for it */
    struct verbs_nic *nic;
    uint32_t nic_at, queue;
    bool connected, disconnected;
    bool established; /* ESTABLISHED was taken; what is received may come before it */
    struct verbs_peer *peer; /* NULL before it is welcome */
    uint32_t number;         /* of the channel in its peer */
    uint64_t deadline_ns;
    int event; /* connecting: the last CM event, or -1 */
    int event_status;
    char name[64];      /* the other side's address */
    const char *chosen; /* client: how its device was */

    char *frames; /* buffers: receives, then sends */
    struct ibv_mr *mr;
    uint32_t receives, posted; /* buffers for receiving; receives posted now */
    uint32_t again[VERBS_RECEIVES], again_count; /* read, to be posted again */
    uint16_t *spare_frame;                       /* buffers for sending that are free */
    uint32_t spare_frames;
    struct verbs_sent
        *sent; /* ring of `depth` work requests, the oldest at sent_head */
    uint32_t depth, sent_head, sent_count;
    uint32_t unsignalled;
    uint32_t inline_max;

    /* credit: what we may send; what we have read and not given back */
    uint32_t notes_may, notes_out, frames_may, frames_out;
    uint32_t notes_batch, notes_read, frames_read;
    /* server: notes for which there is no credit yet; notes_max, made when needed */
    uint32_t *queue_notes, queue_at, queue_count;

    struct verbs_hello hello;         /* of the client */
    struct verbs_challenge challenge; /* of the server */
    uint32_t far_pair;                /* the other side's queue pair */
    bool proved;                      /* frames have tags from here on */
    uint8_t tag_key[2][VERBS_TAG];    /* of the client's frames, of the server's */
    uint64_t tags_in, tags_out;       /* frames that had one */
    struct gapless_error refusal;     /* in the other side's words */

    bool heard, keepalive_pending; /* since the last look; a keepalive is under way */
    uint64_t keepalive_ns;
    int async; /* an asynchronous event of the queue pair, or -1 */

    struct verbs_grant *grant; /* windows_max */
    struct verbs_key *retired; /* of grants that others took the place of */
    uint32_t retired_count;
    char *text; /* of a control message, half received */
    uint32_t text_bytes;
};

struct verbs_peer {
    bool up;      /* TP_UP was delivered, TP_DOWN was not */
    bool dropped; /* nothing of it is delivered any more */
    bool ending;
    bool said_bye; /* the other side: its end is in order */
    bool used;     /* there are channels */
    uint32_t life;
    uint64_t session;
    uint32_t channel_count, next_channel;
    struct verbs_channel *channel[VERBS_CHANNELS];
    uint32_t windows_max, notes_max;
    uint32_t note_out, note_in; /* sequence, where there are several channels */
    struct verbs_note *early;   /* came before its turn */
    uint32_t early_count, early_max;
    struct gapless_error reason;
};

/* A completion's number: channel, its life, a receive or not, buffer or place in the
 * ring. */
#define VERBS_LIFE_BITS 11
#define VERBS_RECEIVE (UINT64_C(1) << 32)
static inline uint64_t verbs_number(const struct verbs_channel *channel, uint32_t at)
{
    return (uint64_t)channel->index << 44 |
           (uint64_t)(channel->life & ((1u << VERBS_LIFE_BITS) - 1)) << 33 | at;
}

enum verbs_role {
    VERBS_NEW,
    VERBS_SERVER,
    VERBS_CLIENT
};

struct verbs_text { /* delivered, or waiting */
    struct verbs_text *next;
    char data[];
};

struct tp {
    struct tp_config config;
    uint32_t owner; /* the process that opened it */
    enum verbs_role role;
    uint8_t key[VERBS_MAC];
    bool has_token;
    char *devices;
    uint32_t serial; /* of regions, grants, lives */

    struct rdma_event_channel *channel;
    struct rdma_cm_id *listener[VERBS_LISTENERS];
    uint32_t listeners;
    struct verbs_nic nic[VERBS_NICS];
    uint32_t nics;
    struct verbs_peer *peers;
    struct verbs_channel *
        *channels; /* of peers, and pending connections; made at their first use */
    uint32_t channels_max;

    struct verbs_region **regions;
    uint32_t region_count;
    /* Memory of a card was placed. Windows cannot be bound in it (the kernel registers
     * no DMA-BUF for that), so channels from then on have a protection domain each. */
    bool apart;

    /* where events go: the caller's array, then the ring */
    struct tp_event *out;
    int out_count, out_max;
    struct tp_event *pending;
    uint32_t pending_count, pending_at, pending_max;
    struct verbs_text *delivered; /* freed at the next poll */

    bool draining;
    uint32_t turn;  /* the completion queue to look at first */
    uint32_t looks; /* since the clock was read */
    uint64_t looked_ns, keepalive_ns;
    uint32_t busy_channels; /* that are neither free nor live: they have deadlines */
    int broken;             /* a status: nothing works any more */
    struct gapless_error reason;  /* why it broke */
    struct gapless_error refused; /* why the last connection was not let in */
    struct tp_counters counters;
    char link[256];
    char address[128];
};

/* ---- verbs.c ------------------------------------------------------------- */
struct verbs_peer *verbs_peer_at(struct tp *tp, tp_peer peer);

/* ---- memory.c ------------------------------------------------------------ */
/* The nic of an id that is bound to a device; opened at its first use. */
int verbs_nic_get(struct tp *tp, struct rdma_cm_id *id, uint32_t *ret,
                  struct gapless_error *error);
/* A completion queue with room for this many more; more queues if the device's are
 * short. */
int verbs_nic_queue(struct tp *tp, struct verbs_nic *nic, uint32_t completions,
                    uint32_t *ret, struct gapless_error *error);
void verbs_nics_close(struct tp *tp);
int verbs_region_new(struct tp *tp, size_t bytes, struct tp_region *ret,
                     struct gapless_error *error);
void verbs_region_free(struct tp *tp, struct tp_region *region);
struct verbs_region *verbs_region_find(struct tp *tp, const struct tp_region *region);
void verbs_region_release(struct tp *tp, struct verbs_region *region);
/* The part that holds the byte at `offset` (< bytes). */
const struct verbs_part *verbs_part_at(const struct verbs_region *region,
                                       size_t offset);
/* [from, from + bytes) of the region, inside of the part. NULL: the error is set. */
struct ibv_mr *verbs_part_register(struct tp *tp, struct ibv_pd *pd,
                                   struct verbs_part *part, size_t from, size_t bytes,
                                   unsigned access, struct gapless_error *error);
/* All of it, for our own use (part->whole), if that has not been done. */
int verbs_part_whole(struct tp *tp, struct verbs_part *part, uint32_t nic,
                     struct gapless_error *error);
/* Gives back all registrations. */
void verbs_part_forget(struct tp *tp, struct verbs_part *part);

/* ---- bind.c -------------------------------------------------------------- */
int verbs_bind_memory(struct tp *tp, struct tp_region *region, size_t offset,
                      const struct tp_memory *memory, const char **ret_how,
                      struct gapless_error *error);
/* A server that listens: what was placed before is registered with the cards that it
 * listens at. */
int verbs_bind_all(struct tp *tp, struct gapless_error *error);
struct ibv_mr *verbs_placed_register(struct ibv_pd *pd, struct verbs_part *part,
                                     size_t from, size_t bytes, unsigned access,
                                     struct gapless_error *error);
int verbs_loopback(struct tp *tp, const struct tp_region *region, size_t offset,
                   void *host, size_t bytes, enum tp_way way,
                   struct gapless_error *error);
void verbs_loopback_end(struct tp *tp, struct verbs_nic *nic);

/* ---- grant.c ------------------------------------------------------------- */
int verbs_grant(struct tp *tp, tp_peer peer, const struct tp_region *region,
                uint32_t window, enum tp_access access, struct gapless_error *error);
int verbs_window(struct tp *tp, tp_peer peer, uint32_t window, int64_t timeout_ns,
                 struct tp_region *ret, struct gapless_error *error);
/* What the server offers, in frames. False: it makes no sense; ret_what says why. */
bool verbs_offer_take(struct verbs_channel *channel, const struct verbs_offer *offer,
                      uint32_t bytes, const char **ret_what);
void verbs_grants_end(struct verbs_channel *channel);
/* What peers may do with a region ends before it. */
void verbs_region_keys_end(struct tp *tp, uint32_t region);

/* ---- address.c ----------------------------------------------------------- */
#define VERBS_HOST 108
struct verbs_address {
    struct sockaddr_storage to;
    char text[VERBS_HOST];
};
/* "HOST:PORT,HOST:PORT": at most `max` of them. */
int verbs_addresses(const char *text, bool listening, struct verbs_address *ret,
                    uint32_t max, uint32_t *ret_count, struct gapless_error *error);
/* The name of device number `at` of a list with commas; false: there is none. */
bool verbs_device_at(const char *list, uint32_t at, char *ret, size_t bytes);
/* An address of a device's network interface, of the family of `to`, in the same
 * network if there is one. False: none. */
bool verbs_device_source(struct tp *tp, const char *device,
                         const struct sockaddr_storage *to,
                         struct sockaddr_storage *ret);
/* Where several devices are in the network of `to`, the address of one that is as near
 * to this processor's memory as it can be (NUMA). False: the route may decide. */
bool verbs_device_near(struct tp *tp, const struct sockaddr_storage *to,
                       struct sockaddr_storage *ret);
void verbs_address_text(const struct sockaddr *address, char *ret, size_t bytes);
bool verbs_is_loopback(const struct sockaddr_storage *address);

/* ---- channel.c ----------------------------------------------------------- */
/* Receives and work requests of a channel. */
void verbs_channel_needs(const struct tp *tp, const struct ibv_device_attr *attr,
                         uint32_t *ret_receives, uint32_t *ret_depth);
/* A channel that is free, or NULL. */
struct verbs_channel *verbs_channel_new(struct tp *tp);
/* Queue pair, buffers, receives. The id is bound to a device. */
int verbs_channel_open(struct verbs_channel *channel, struct gapless_error *error);
void verbs_channel_state(struct verbs_channel *channel, enum verbs_channel_state state);
/* Disconnects; what has been received before is still delivered. */
void verbs_channel_end(struct verbs_channel *channel,
                       const struct gapless_error *reason);
/* Frees everything of a channel. */
void verbs_channel_free(struct verbs_channel *channel);
/* The whole peer, because of one channel. */
void verbs_peer_end(struct verbs_peer *peer, const struct gapless_error *reason);
/* Channels that have drained are freed; TP_DOWN is delivered. Deadlines. */
void verbs_tidy(struct tp *tp, uint64_t now_ns);
void verbs_drop(struct tp *tp, tp_peer peer);
void verbs_peer_free(struct verbs_peer *peer);

/* ---- cm.c ---------------------------------------------------------------- */
int verbs_listen(struct tp *tp, const char *address, struct gapless_error *error);
int verbs_connect(struct tp *tp, const char *address, int64_t timeout_ns, tp_peer *ret,
                  struct gapless_error *error);
/* Takes events of the connection manager, without waiting. */
void verbs_cm_take(struct tp *tp);

/* ---- survey.c ------------------------------------------------------------ */
size_t verbs_describe(struct tp *tp, tp_peer peer, char *ret, size_t bytes);

/* ---- handshake.c: the handshake ------------------------------------------ */
void verbs_request_mac(const struct tp *tp, const struct rdma_cm_id *id,
                       uint8_t ret[VERBS_ASK]);
int verbs_handshake_start(struct verbs_channel *channel, uint64_t session,
                          uint32_t number, uint32_t channels);
/* A frame of the handshake has come. */
void verbs_handshake_frame(struct verbs_channel *channel, struct verbs_frame *frame);
/* Gives a frame its tag; all zero before both sides have proved themselves. */
void verbs_tag(struct verbs_channel *channel, struct verbs_frame *frame);
/* Is the frame the next that the other side sent? Its tag is lost. */
bool verbs_tag_good(struct verbs_channel *channel, struct verbs_frame *frame);
/* Server: greets channels that wait for a peer slot. */
void verbs_handshake_peer_slots(struct tp *tp);

/* ---- post.c -------------------------------------------------------------- */
/* Gives the request its number, and its place in the ring. Asked to complete are those
 * whose end a thread waits for, and every this many: else the ring would never empty. */
void verbs_request_add(struct verbs_channel *channel, struct ibv_send_wr *wr,
                       const struct verbs_sent *sent, bool signalled);
/* Any result but 0 of a driver is a failure: some return a negative number. What was
 * not posted leaves the ring again, and the peer ends. */
int verbs_requests_post(struct verbs_channel *channel, struct ibv_send_wr *first,
                        uint32_t count);
/* A buffer for sending. Its number, from 1 on, goes into the ring. */
uint16_t verbs_frame_take(struct verbs_channel *channel, char **ret);
static inline struct ibv_sge verbs_sge(const void *at, size_t bytes,
                                       const struct ibv_mr *mr)
{
    return (struct ibv_sge){
        .addr = (uint64_t)(uintptr_t)at, .length = (uint32_t)bytes, .lkey = mr->lkey};
}
int verbs_send_control(struct tp *tp, tp_peer peer, const void *data, uint32_t bytes,
                       struct gapless_error *error);
/* Sends a frame of `bytes` payload, with its tag. GAPLESS_AGAIN: no room, or (if it needs it) no credit. */
int verbs_frame_send(struct verbs_channel *channel, struct verbs_frame *frame,
                     bool needs_credit);
/* Binds a memory window, which takes a new key. */
int verbs_bind(struct verbs_channel *channel, struct ibv_mw *mw, struct ibv_mr *mr,
               void *base, size_t bytes, unsigned access);
/* Buffers for receives, several at once. */
int verbs_receives_post(struct verbs_channel *channel, const uint32_t *buffers,
                        uint32_t count);
/* A buffer that has been read: posted with the next ones. */
int verbs_receive_again(struct verbs_channel *channel, uint32_t buffer);
void verbs_credit_give(struct verbs_channel *channel);
/* Asks for a sign of life; also makes all that was posted before complete. */
void verbs_keepalive(struct verbs_channel *channel, uint64_t now_ns);
/* The last request of a channel whose queue pair is in error: it is given back after all
 * others, some of which are done but did not ask to complete. */
void verbs_last(struct verbs_channel *channel);
/* Room for `requests` more; takes completions if there is none. */
bool verbs_room(struct verbs_channel *channel, uint32_t requests);
int verbs_put(struct tp *tp, tp_peer peer, const struct tp_region *window,
              size_t offset, size_t bytes, uint32_t note);
int verbs_get(struct tp *tp, tp_peer peer, const struct tp_region *window,
              size_t offset, size_t bytes, uint32_t tag);
int verbs_notify(struct tp *tp, tp_peer peer, uint32_t note);
/* Notes that waited for credit or room. */
void verbs_notes_go_on(struct verbs_channel *channel);

/* ---- poll.c -------------------------------------------------------------- */
int verbs_poll(struct tp *tp, struct tp_event *events, int max, int64_t timeout_ns);
/* Takes completions, at most about `max` of them; returns how many. */
int verbs_drain(struct tp *tp, int max);
/* Takes all that are there, but for a flood. */
void verbs_drain_all(struct tp *tp);
void verbs_emit(struct tp *tp, const struct tp_event *event);
void verbs_emit_forget(struct tp *tp, tp_peer peer);
/* Completions, events and time, for at most ns; for calls that wait. */
void verbs_pause(struct tp *tp, uint64_t ns);

/* ---- error.c ------------------------------------------------------------- */
/* What a completion that failed means. */
void verbs_completion_error(const struct verbs_channel *channel,
                            const struct ibv_wc *wc, enum verbs_what what,
                            struct gapless_error *ret);
/* Did the device say that the other side reached for memory it may not? */
bool verbs_access_error(struct verbs_channel *channel, struct gapless_error *ret);
/* The queue pair broke, and no request of ours was the reason. */
void verbs_broken_error(const struct verbs_channel *channel, struct gapless_error *ret);
/* What an event of the connection manager means. */
void verbs_event_error(const struct verbs_channel *channel, int event, int status,
                       struct gapless_error *ret);
/* Takes the devices' asynchronous events, which tell what broke a queue pair. */
void verbs_async_take(struct tp *tp);
/* Registering memory failed with `os`. */
int verbs_memory_error(size_t bytes, int os, struct gapless_error *error);

#endif
