/* Shared memory transport, what its files share.
 *
 *   shm.c       the table; regions, control messages, grant, drop, put, get, notify
 *   poll.c      the mailbox, what a peer is made of; poll: events and waiting
 *   client.c    connect and window
 *   listener.c  the server's listener: a thread that accepts, reads control messages
 *               and notices hang-ups
 *   fd.c        memory, sockets, frames
 *
 *   client process                                  server process
 *   say, window ────┬─ Unix socket: frames, ──┬── listener thread ─> mailbox ──> poll
 *   poll <──────────┘      descriptors        └──── say, grant, drop
 *   put, notify ────── control page: ring up ─────────────────────────────────> poll
 *   poll <──────────── control page: ring down ──── notify
 *
 * One control page a connection, made by the server, and one doorbell an endpoint, mapped
 * by its peers. The socket carries what is rare and has to be reliable about death: the
 * kernel closes it however a process ends. All memory is memfd, without a name, so that
 * nothing can be left behind.
 *
 * Ownership. A peer's slot belongs to the listener (on a client: to the one thread there
 * is) while FREE, and to the thread that polls from its TP_UP until its TP_DOWN was
 * delivered (OVER); the state is the flag. Mail slots pass the same way. So nothing
 * here needs a lock.
 */
#ifndef GAPLESS_SHM_H
#define GAPLESS_SHM_H

#include "transport/common.h"
#include "transport/ring.h"
#include "transport/transport.h"

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

/* First in every frame of every version; the number after it changes when frames or
 * pages do. */
#define SHM_MAGIC 0x47415053u /* "GAPS" */
#define SHM_PROTOCOL 2

/* A doorbell has this many bits; far above the processes one host can run. */
#define SHM_PEERS_MAX DOORBELL_BITS
/* 2 x 4 x 64 Ki bytes of rings a peer at most. */
#define SHM_NOTES_MAX 65536u
#define SHM_WINDOWS_MAX 4096u
/* Control messages that may wait for one poll; then the socket's reader pauses. */
#define SHM_MAILS 64u
/* Sleeps are cut into slices, see ring.h; also how soon a client notices that its
 * server died. */
#define SHM_SLICE_NS INT64_C(100000000)
/* What a negative timeout means. */
#define SHM_BOUND_NS INT64_C(1000000000)
/* Notes taken from one peer before the next one's turn. */
#define SHM_TURN 8
/* Descriptors in one frame at most. */
#define SHM_FDS 2

/* ---- frames -------------------------------------------------------------- */

enum shm_frame_kind {
    SHM_HELLO =
        1,       /* client: a = its doorbell's bit, b = windows_max; fd: its doorbell */
    SHM_WELCOME, /* server: a = capacity of a ring, b = bit in its doorbell; fds: control,
                      doorbell */
    SHM_REFUSE, /* server: a = -status; then a sentence, without its terminator */
    SHM_TEXT,   /* then the message */
    SHM_GRANT /* server: a = window, b = access, c = bytes; fd: the memory. TP_SPLIT: d =
                   bytes of the first memory, of two; fds: that and the second */
};

struct shm_frame {
    uint32_t magic;
    uint16_t protocol;
    uint16_t kind;
    uint32_t a;
    uint32_t b;
    uint64_t c;
    uint64_t d;
};

/* A frame as received; the descriptors belong to the receiver. */
struct shm_packet {
    struct shm_frame head;
    uint32_t bytes;
    int fd_count;
    int fds[SHM_FDS];
};

/* ---- pages --------------------------------------------------------------- */

/* One connection's page; the two rings follow, up (client to server) first. */
struct shm_control {
    _Alignas(
        RING_LINE) struct flag_word said; /* frames the server sent; so that the client
                                              reads its socket only if there is one */
    uint32_t unused[15];
};

struct shm_window {
    int fd;   /* -1: not granted */
    int tail; /* TP_SPLIT: the memory from `head` on; else -1 */
    enum tp_access access;
    uint64_t bytes;
    uint64_t head; /* TP_SPLIT */
};

/* ---- peers, mail, regions ------------------------------------------------ */

enum shm_state {
    SHM_FREE,
    SHM_LIVE,
    SHM_LEAVING, /* its DOWN is in the mailbox */
    SHM_OVER     /* its DOWN was delivered; the listener may clear the slot away */
};

/* Why a connection was ended by us. */
enum shm_last_error {
    SHM_REASON_UNKNOWN, /* it was not: it closed or died, which a socket cannot tell apart
                      */
    SHM_REASON_RING,    /* its ring was rejected */
    SHM_REASON_FRAME,   /* it sent a frame that cannot be */
    SHM_REASON_DEAF     /* it did not read */
};

struct shm_peer {
    struct flag_word state;
    struct flag_word reason; /* enum shm_reason; until the slot is used again */
    uint32_t generation; /* counts uses of the slot, so that mail of an earlier one is
                            known */
    int fd;
    int process_fd; /* readable when the process has ended; or -1, and then ... */
    int32_t pid;    /* ... it is looked at now and then; 0: not known */
    uint64_t born;  /* when it was started, as /proc counts; 0: cannot be read */
    struct shm_control *control;
    size_t control_bytes;
    struct doorbell *doorbell; /* theirs */
    uint32_t doorbell_bit;     /* ours in it */
    uint32_t windows_max;
    struct shm_window *windows; /* client */
    /* The polling thread's. */
    struct ring_end in;
    struct ring_end out;
    uint32_t drain_left; /* notes still taken after the end */
    uint32_t frames;     /* server: said so far; client: control->said when last read */
    bool unread;         /* client: the mailbox was full, frames are left */
    bool up;
    bool dropped; /* by us: its events are swallowed */
    bool broken;  /* its ring is not to be believed */
    /* The socket reader's: listener or client. */
    bool gone;
};

struct shm_mail {
    enum tp_event_kind kind;
    uint32_t peer;
    uint32_t generation;
    uint32_t bytes;
    uint8_t text[TP_TEXT_MAX];
};

struct shm_region {
    struct tp_entry common;
    int fd; /* -1: a window */
    void *base;
    size_t bytes;
    /* Two memories, side by side in one address space, since pages of one cannot be had
     * with two accesses and be safe. 0: one. */
    size_t head; /* bytes of the first */
    int tail;    /* the second; -1: none. Of a window both are mapped, ... */
    int source;  /* ... and this is the first one's descriptor, for scratch; -1: none */
    bool scratch;
};

/* A connection that has not been given a peer number yet. */
struct shm_pending_conn {
    int fd; /* -1: unused entry */
    bool ready;
    uint64_t deadline_ns;
    struct shm_packet hello;
};
#define SHM_PENDING_CONNS 32

enum shm_role {
    SHM_NEITHER,
    SHM_SERVER,
    SHM_CLIENT
};

struct tp {
    struct tp_config config;
    uint32_t owner; /* the process that opened it */
    enum shm_role role;
    struct doorbell *doorbell;
    int doorbell_fd;
    struct shm_peer *peers;
    struct shm_window *windows;
    struct tp_table regions; /* of struct shm_region */
    struct shm_mail *mails;
    uint32_t mail_count; /* a power of two */

    /* poll's */
    _Alignas(RING_LINE) uint32_t mail_taken;
    uint32_t cursor; /* whose turn it is */
    uint32_t words;  /* of attention in use */
    bool notes_first;
    uint64_t *pending; /* bit: a peer to look at */
    uint32_t *over;    /* peers whose DOWN was just delivered */
    uint32_t over_count;
    /* Of the listener: how many it refused, and minus the last's status. */
    struct flag_word refused, refused_status;
    uint64_t swept_ns; /* when all rings, and a client's sockets, were last looked at */
    uint64_t wakeups;  /* sleeps of poll that ended */

    /* The listener's, or the client's own. */
    _Alignas(RING_LINE) uint32_t mail_posted;
    uint32_t gone_count; /* peers gone whose DOWN is not posted yet */
    uint32_t refusals;   /* connections that were not let in */
    uint64_t looked_ns;  /* when processes without a descriptor were last looked at */
    bool listening;      /* the listening socket is watched */
    uint64_t listen_ns;  /* if not: when to try again */
    struct shm_pending_conn pending_conns[SHM_PENDING_CONNS];
    int epoll_fd;
    int listen_fd;
    int stop_fd;
    bool has_thread;
    pthread_t thread;
    struct sockaddr_un address;
    uint64_t address_inode; /* of a file system socket; 0: none */

    _Alignas(RING_LINE) struct flag_word mail_head; /* posted, for poll */
    _Alignas(RING_LINE) struct flag_word mail_tail; /* released, for who posts */
};

/* ---- fd.c ---------------------------------------------------------------- */

/* Zeroed memory without a name that can neither shrink nor grow, its pages present. */
int shm_memory_new(const char *name, size_t bytes, int *ret_fd, void **ret_base,
                   struct gapless_error *error);
/* Maps memory that a peer handed over, after checking that it cannot shrink under
 * us. */
int shm_memory_map(int fd, size_t bytes, enum tp_access access, void **ret,
                   struct gapless_error *error);
void shm_memory_unmap(void *base, size_t bytes);
/* Gives the bytes from `head` on, a multiple of a page, memory of their own, at the same place
 * and with what they hold. */
int shm_memory_split(int fd, void *base, size_t bytes, size_t head, int *ret_tail,
                     struct gapless_error *error);
/* Maps two memories that a peer handed over, side by side: the first for reading. */
int shm_memory_map_two(const struct shm_window *window, void **ret,
                       struct gapless_error *error);
/* Maps [at, at + bytes) of `base` anew, of the same memory: it may be written, and what is
 * written is ours alone. An errno. */
int shm_memory_private(int fd, void *base, size_t at, size_t bytes);
/* What was written there since is forgotten. An errno. */
int shm_memory_forget(void *base, size_t at, size_t bytes);
/* Before the first grant of the memory, which then is one for reading or one for
 * writing for ever. Returns an errno. */
int shm_memory_seal(int fd, enum tp_access access);

int shm_address(const char *address, struct sockaddr_un *ret, socklen_t *ret_bytes,
                struct gapless_error *error);
int shm_listen_socket(const char *address, struct sockaddr_un *ret_address,
                      uint64_t *ret_inode, int *ret_fd, struct gapless_error *error);
/* Is the process at the other end ours, or root's? */
bool shm_trusted(int fd);
/* A descriptor that becomes readable when the process at the other end ends, even if a
 * process that it forked keeps the connection open. -1: cannot be had, do without. */
int shm_process_open(int fd);
/* The number of the process at the other end (0: of another world), and when it was started
 * (0: not known). Has it ended since? A number may be another's by now. */
int32_t shm_process_number(int fd, uint64_t *ret_born);
bool shm_process_ended(int32_t pid, uint64_t born);

struct shm_frame shm_frame(enum shm_frame_kind kind, uint32_t a, uint32_t b);
/* GAPLESS_OK, GAPLESS_AGAIN, GAPLESS_PEER_LOST, or GAPLESS_SYSTEM with errno set. */
int shm_frame_send(int fd, const struct shm_frame *head, const void *data,
                   uint32_t bytes, const int *fds, int fd_count);
/* GAPLESS_OK, GAPLESS_AGAIN (nothing there), GAPLESS_PEER_LOST (the end),
 * GAPLESS_PROTOCOL. */
int shm_frame_receive(int fd, struct shm_packet *ret, void *data, uint32_t bytes_max);
void shm_packet_close(struct shm_packet *packet);
void shm_close_fd(int *fd);

/* ---- listener.c ---------------------------------------------------------- */

int shm_listener_open(struct tp *tp, struct gapless_error *error);
void shm_listener_close(struct tp *tp);
/* In a forked child: its descriptors alone. */
void shm_listener_free(struct tp *tp);

/* ---- client.c ------------------------------------------------------------ */

int shm_connect(struct tp *tp, const char *address, int64_t timeout_ns, tp_peer *ret,
                struct gapless_error *error);
int shm_window(struct tp *tp, tp_peer peer, uint32_t window, int64_t timeout_ns,
               struct tp_region *ret, struct gapless_error *error);

/* ---- poll.c -------------------------------------------------------------- */

uint32_t shm_mail_room(const struct tp *tp);
/* There must be room. data may already be the slot's own text. */
void shm_mail_post(struct tp *tp, enum tp_event_kind kind, uint32_t peer,
                   uint32_t bytes);
/* The text of the slot that the next post will use. */
void *shm_mail_text(struct tp *tp);

size_t shm_control_bytes(uint32_t capacity);
/* Puts the ends of the rings right; `server` says which side we are. */
void shm_peer_rings(struct shm_peer *peer, uint32_t capacity, bool server);
/* The polling thread: a connected peer that we still listen to, or NULL. */
struct shm_peer *shm_peer_find(struct tp *tp, tp_peer index);
/* The polling thread: the ring holds nonsense. The thread that reads the socket sees the end,
 * and DOWN follows. */
void shm_peer_break(struct shm_peer *peer);
/* The polling thread: resets what is its own in the slot, before the slot goes back. */
void shm_peer_forget(struct shm_peer *peer);
/* Closes and unmaps what the slot holds, in this process alone. */
void shm_peer_free(struct tp *tp, struct shm_peer *peer);
/* Ends the connection, frees what the slot holds and makes it SHM_FREE. */
void shm_peer_clear(struct tp *tp, struct shm_peer *peer);
/* Reads at most `most` frames: texts to the mailbox, grants to the windows. At the end
 * of the connection sets peer->gone. Stops while the mailbox is full. */
void shm_peer_pump(struct tp *tp, uint32_t index, int most);
/* Posts DOWN of peers that are gone, as far as there is room. */
void shm_post_gone(struct tp *tp);
/* Wakes the owner of a doorbell. */
void shm_futex_wake(struct doorbell *doorbell);

/* Gives back the slots of peers whose DOWN was delivered. */
void shm_release_over(struct tp *tp);
int shm_poll(struct tp *tp, struct tp_event *events, int max, int64_t timeout_ns);

/* ---- shm.c --------------------------------------------------------------- */

/* Enters memory in the table of regions, which owns fd and base from then on. */
int shm_region_add(struct tp *tp, const struct shm_region *region,
                   struct tp_region *ret, struct gapless_error *error);

#endif
