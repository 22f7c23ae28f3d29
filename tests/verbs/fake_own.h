/* What the parts of the fake share. Every function here is called with the lock held.
 *
 *   fake_world.c   the lock, faults, failures, what is alive, names of things
 *   fake_device.c  devices, contexts, protection domains, asynchronous events
 *   fake_memory.c  memory regions and windows, and who may touch what
 *   fake_card.c    memory of accelerators: registered as DMA-BUF, or by its address
 *   fake_queue.c   completion channels and queues
 *   fake_pair.c    queue pairs: making, posting, flushing
 *   fake_wire.c    doing what was posted
 *   fake_loop.c    queue pairs that are connected to themselves
 *   fake_cm.c      ids: binding, listening, resolving
 *   fake_connect.c ids: connecting and parting
 *   fake_event.c   event channels of ids
 */
#ifndef GAPLESS_TESTS_VERBS_FAKE_OWN_H
#define GAPLESS_TESTS_VERBS_FAKE_OWN_H

#include "tests/verbs/fake.h"

#include <netinet/in.h>

#define FAKE_DEVICES 3
#define FAKE_KEYS 8192 /* regions and windows alive */
#define FAKE_CARDS 64  /* accelerators' memory, in pieces */
#define FAKE_SGE_MOST 16
#define FAKE_INLINE_MOST 220
#define FAKE_WAITING 4096  /* events of a channel not fetched */
#define FAKE_DATA_MOST 256 /* private data */

struct fake_device {
    struct ibv_device pub;
    struct in_addr address;
    struct in6_addr address6;
    bool iwarp;
    bool removed;
    bool misrouted;
    uint32_t inline_most;
    uint32_t message_most;
    struct fake_context *cm; /* that of librdmacm; not counted as alive */
    unsigned cm_users;       /* ids and lists; the last one closes it */
};

struct fake_context {
    struct fake_context *next;
    struct fake_device *device;
    unsigned children;
    struct ibv_async_event waiting[FAKE_WAITING];
    unsigned count;
    struct verbs_context verbs; /* the last member: its own last is the ibv_context */
};

struct fake_pd {
    struct ibv_pd pub;
    unsigned children;
};

struct fake_mr {
    struct ibv_mr pub;
    uint64_t base;     /* what requests call its first byte */
    unsigned char *at; /* where the card finds that */
    void *map;         /* of memory that is not the process's; NULL */
    size_t mapped;
    unsigned access;
    unsigned windows; /* bound to it */
};

struct fake_mw {
    struct ibv_mw pub;
    uint32_t key;       /* that a peer has to know */
    struct fake_mr *mr; /* NULL: not bound */
    struct fake_qp *qp;
    uint64_t base;
    uint64_t bytes;
    unsigned access;
};

struct fake_channel {
    struct ibv_comp_channel pub;
    unsigned children;
    struct fake_cq *waiting[FAKE_WAITING];
    unsigned count;
};

struct fake_cqe {
    struct ibv_wc wc;
    uint32_t pair;
    bool receive;
    uint64_t upto; /* slots of the pair's queue that are free when it is taken */
};

struct fake_cq {
    struct ibv_cq pub;
    struct fake_cqe *ring;
    unsigned head;
    unsigned count;
    unsigned children;
    unsigned unacknowledged;
    bool armed;
};

struct fake_send {
    struct ibv_send_wr wr;
    struct ibv_sge sge[FAKE_SGE_MOST];
    unsigned char text[FAKE_INLINE_MOST]; /* inline */
    uint64_t bytes;
    unsigned tries;
    uint32_t window_key; /* binds: of the window and its region, when it was posted */
    uint32_t region_key;
};

struct fake_receive {
    uint64_t wr_id;
    int num_sge;
    struct ibv_sge sge[FAKE_SGE_MOST];
};

struct fake_qp {
    struct ibv_qp pub;
    struct fake_qp *next;
    struct fake_device *device;
    struct fake_id *id;
    struct ibv_qp_cap cap;
    bool signal_all;
    uint32_t peer;    /* number */
    bool looped;      /* of ibv_create_qp: no id, connected to itself */
    bool mute;        /* nothing gets out of it or to it */
    unsigned windows; /* bound to it */
    uint8_t reads;    /* it may have under way */
    uint8_t answers;  /* reads it answers at a time; 0: none */
    uint8_t retries;
    uint8_t rnr_retries;
    struct fake_send *sends; /* ring; posted >= done >= freed */
    uint64_t posted, done, freed;
    struct fake_receive *receives;
    uint64_t r_posted, r_done, r_freed;
};

enum fake_state {
    FAKE_IDLE,
    FAKE_BOUND,
    FAKE_LISTENING,
    FAKE_ADDR_ASKED,
    FAKE_ADDR,
    FAKE_ROUTE_ASKED,
    FAKE_ROUTE,
    FAKE_CONNECTING, /* active: asked */
    FAKE_REQUESTED,  /* passive: to be accepted or rejected */
    FAKE_ACCEPTED,   /* passive: the other side has yet to hear of it */
    FAKE_CONNECTED,
    FAKE_TOLD,    /* the other side has disconnected, this one not yet */
    FAKE_PARTING, /* and the other way round */
    FAKE_ENDED
};

struct fake_connection {
    struct fake_connection *next;
    unsigned number;
    struct fake_id *side[2];
    bool vanished;              /* nothing gets from one side to the other */
    struct fake_device *device; /* of the passive side */
    struct rdma_conn_param asked;
    struct sockaddr_storage from;
    struct sockaddr_storage to;
    uint8_t bytes; /* private data of the request */
    unsigned char data[FAKE_DATA_MOST];
    uint32_t pair; /* active: number of its queue pair */
};

struct fake_id {
    struct rdma_cm_id pub;
    struct fake_id *next;
    struct fake_device *device;
    enum fake_state state;
    struct fake_connection *connection;
    enum fake_side side;
    uint8_t timeout;
    bool reuse;
    int backlog;
    int requests;     /* not fetched */
    bool established; /* passive: it has fetched the event */
    unsigned unacknowledged;
};

struct fake_event {
    struct rdma_cm_event pub;
    struct fake_event *next;
    struct fake_id *to; /* whose events it counts among */
    struct fake_connection *connection;
    unsigned char data[FAKE_DATA_MOST];
};

struct fake_cm_channel {
    struct rdma_event_channel pub;
    struct fake_event *first;
    struct fake_event **last;
    unsigned children;
};

/* Memory of an accelerator: in nobody's page tables, but in a file. */
struct fake_card {
    uint64_t base;
    uint64_t bytes;
    int fd;
};

struct fake_world {
    struct fake_card cards[FAKE_CARDS];
    unsigned card_count;
    struct fake_device devices[FAKE_DEVICES];
    struct fake_context *contexts;
    struct fake_qp *pairs;
    struct fake_id *ids;
    struct fake_connection *connections;
    struct fake_mr *regions[FAKE_KEYS];
    struct fake_mw *windows[FAKE_KEYS];
    uint32_t next_key;
    uint32_t next_pair;
    uint16_t next_port;
    unsigned connection_count;
    size_t registered;
    unsigned late; /* looks until a passive side's ESTABLISHED is found */
    enum fake_pace pace;
    struct fake_live live;
    struct fake_counters counters;
};
extern struct fake_world fake_world;

/* ---- fake_world.c -------------------------------------------------------- */
void fake_lock(void);
void fake_unlock(void);
void fake_fault(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* True: the caller must fail. */
bool fake_fails(const char *what);
/* To the thread that does what was posted, if there is one. */
void fake_wake(void);
/* eventfds that count. */
int fake_fd_new(void);
void fake_fd_add(int fd);
void fake_fd_take(int fd); /* never waits */

/* ---- fake_device.c ------------------------------------------------------- */
void fake_devices_make(void);
void fake_devices_clear(void);
struct fake_device *fake_device_named(const char *name);
struct fake_device *fake_device_at(const struct sockaddr *address);
/* That of librdmacm, opened at its first use, which must be given back. NULL: errno. */
struct ibv_context *fake_device_cm(struct fake_device *device);
void fake_device_cm_back(struct fake_device *device);
struct fake_context *fake_context(struct ibv_context *context);
void fake_async(struct ibv_context *context, const struct ibv_async_event *event);
void fake_async_forget(struct ibv_context *context, const void *element);

/* The entry of its table of addresses. False: there is none. */
bool fake_gid_at(const struct fake_device *device, uint32_t index, union ibv_gid *ret);

/* ---- fake_memory.c ------------------------------------------------------- */
/* Where `key` permits `access` to [at, at + bytes); NULL: it does not. */
unsigned char *fake_local(const struct ibv_pd *pd, uint32_t key, uint64_t at,
                          uint64_t bytes, unsigned access);
unsigned char *fake_remote(const struct fake_qp *responder, uint32_t key, uint64_t at,
                           uint64_t bytes, unsigned access);
bool fake_bind(struct fake_qp *qp, const struct fake_send *send);
bool fake_invalidate(struct fake_qp *qp, uint32_t key);
/* Adds a region whose bytes requests call by `base`; a mapping goes with it. With the
 * lock. NULL: errno. */
struct fake_mr *fake_region_new(struct ibv_pd *pd, const struct fake_mr *like);
struct ibv_mw *fake_alloc_mw(struct ibv_pd *pd, enum ibv_mw_type type);
int fake_dealloc_mw(struct ibv_mw *mw);

/* ---- fake_card.c --------------------------------------------------------- */
/* Is some of it an accelerator's? Then *ret is it, if all is. */
bool fake_card_at(uint64_t at, size_t bytes, const struct fake_card **ret);
/* The card's own mapping of [offset, offset + bytes) of a file. False: errno. */
bool fake_card_map(struct fake_mr *ret, int fd, uint64_t offset, size_t bytes);
/* Where the card gets to, that means to reach `skip` bytes into the region. */
unsigned char *fake_card_route(const struct fake_mr *mr, uint64_t skip, uint64_t bytes);
void fake_cards_clear(void);

/* ---- fake_queue.c -------------------------------------------------------- */
void fake_complete(struct ibv_cq *cq, const struct fake_cqe *entry);
void fake_queue_forget(struct ibv_cq *cq, uint32_t pair);
int fake_poll_cq(struct ibv_cq *cq, int most, struct ibv_wc *ret);
int fake_req_notify_cq(struct ibv_cq *cq, int solicited_only);

/* ---- fake_pair.c --------------------------------------------------------- */
struct fake_qp *fake_pair_numbered(uint32_t number);
/* With the lock, and what is asked for checked. NULL: out of memory. */
struct fake_qp *fake_pair_new(struct ibv_pd *pd, const struct ibv_qp_init_attr *attr);
void fake_pair_free(struct fake_qp *qp);
/* Ends it: what is left of its work completes with WR_FLUSH_ERR. */
void fake_pair_end(struct fake_qp *qp);
/* Completes the oldest request or receive not done. */
void fake_sent(struct fake_qp *qp, enum ibv_wc_status status);
void fake_received(struct fake_qp *qp, const struct ibv_wc *wc);
int fake_post_send(struct ibv_qp *pub, struct ibv_send_wr *wr,
                   struct ibv_send_wr **bad);
int fake_post_recv(struct ibv_qp *pub, struct ibv_recv_wr *wr,
                   struct ibv_recv_wr **bad);

/* ---- fake_loop.c --------------------------------------------------------- */
/* Steps of a looped pair. Returns 0 or an errno. With the lock. */
int fake_loop_turn(struct fake_qp *qp, const struct ibv_qp_attr *attr, int mask);

/* ---- fake_wire.c --------------------------------------------------------- */
/* Does what can be done of the pair's requests, at most `most`; returns how many. */
int fake_run(struct fake_qp *qp, int most);
/* A receive or a connection may let others go on. */
void fake_run_to(uint32_t pair);

/* ---- fake_cm.c, fake_connect.c, fake_event.c ----------------------------- */
struct fake_cm_channel *fake_cm_channel(struct rdma_event_channel *channel);
/* 0 is success; what an rdma_ function returns. */
int fake_answer(int problem);
/* The id bound to the address and port, or to the port of all addresses. */
struct fake_id *fake_bound_to(const struct sockaddr *address, bool listening);
struct fake_id *fake_id_new(struct fake_cm_channel *channel, void *context,
                            enum rdma_port_space space);
uint16_t fake_port_of(const struct sockaddr *address);
/* Ends its side of a connection, if there is one, and tells the other. */
void fake_id_part(struct fake_id *id);
/* Queues an event; data may be NULL. NULL: out of memory, which is a fault. */
struct fake_event *fake_event_new(struct fake_id *to, enum rdma_cm_event_type kind,
                                  int status, const void *data, size_t bytes);
void fake_event_put(struct fake_id *to, enum rdma_cm_event_type kind, int status);
/* Drops the events of the id that were not fetched. */
void fake_events_forget(struct fake_id *id);
/* The request will not be fetched or accepted: tells the active side. */
void fake_refuse(struct fake_connection *connection, const void *data, size_t bytes);
void fake_connections_clear(void);

#endif
