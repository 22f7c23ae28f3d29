/* Shared memory transport: the server's listener. One thread that is blocked in epoll
 * nearly always; it accepts and checks connections, reads control messages and notices
 * hang-ups, so that the thread that polls makes no system call for any of it and a
 * death is noticed at once however busy that one is.
 *
 *   accept ──> pending connection ── HELLO ──> peer slot: number, control page, WELCOME ──> UP
 *                 └── silence, wrong version, no peer slot ──> REFUSE
 *   frame ──> TEXT
 *   hang-up, nonsense ──> DOWN ──> delivered: the slot is cleared
 *
 * Nothing here can make it spin: what it cannot go on with (mailbox full, descriptors
 * used up) it leaves alone for a pause.
 */
#include "transport/shm/shm.h"

#include "engine/base/clock.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

/* A client says HELLO right after it connected; who is silent for so long is not
 * one. */
#define GREET_NS UINT64_C(1000000000)
/* While something has to be looked at again: full mailbox, slots to clear away. */
#define PAUSE_MS 5
/* Between two looks at processes, see door_look. */
#define LOOK_NS UINT64_C(100000000)
#define LISTEN_TAG UINT64_MAX
#define STOP_TAG (UINT64_MAX - 1)
#define PENDING_CONN_TAG (UINT64_C(1) << 32)
#define PROCESS_TAG (UINT64_C(1) << 33)
#define EVENTS_MAX 64
/* Frames read from one peer before the next one's turn. */
#define FRAMES_A_TURN 4

static int door_watch(struct tp *tp, int operation, int fd, uint64_t tag)
{
    struct epoll_event event = {.events = EPOLLIN, .data = {.u64 = tag}};

    return epoll_ctl(tp->epoll_fd, operation, fd, &event);
}

/* ---- pending connections ------------------------------------------------- */

static void pending_conn_close(struct tp *tp, struct shm_pending_conn *pending_conn)
{
    if (pending_conn->ready)
        shm_packet_close(&pending_conn->hello);
    if (pending_conn->fd >= 0)
        (void)door_watch(tp, EPOLL_CTL_DEL, pending_conn->fd, 0);
    pending_conn->ready = false;
    shm_close_fd(&pending_conn->fd);
}

static void pending_conn_refuse(struct tp *tp, struct shm_pending_conn *pending_conn,
                                enum gapless_status status, const char *text)
{
    struct shm_frame frame = shm_frame(SHM_REFUSE, (uint32_t)-status, 0);

    (void)shm_frame_send(pending_conn->fd, &frame, text, (uint32_t)strlen(text), NULL,
                         0);
    flag_word_publish(&tp->refused_status, (uint32_t)-status);
    flag_word_publish(&tp->refused, ++tp->refusals);
    pending_conn_close(tp, pending_conn);
}

static void pending_conn_read(struct tp *tp, struct shm_pending_conn *pending_conn)
{
    char text[200];
    int status;

    if (pending_conn->fd < 0 || pending_conn->ready)
        return;
    status = shm_frame_receive(pending_conn->fd, &pending_conn->hello, NULL, 0);
    if (status == GAPLESS_AGAIN)
        return;
    if (status == GAPLESS_PEER_LOST) {
        pending_conn_close(tp, pending_conn);
        return;
    }
    pending_conn->ready = status == GAPLESS_OK;
    if (!pending_conn->ready || pending_conn->hello.head.kind != SHM_HELLO) {
        pending_conn_refuse(
            tp, pending_conn, GAPLESS_VERSION,
            "the master did not understand: what connected is not a gapless "
            "client, or one of a very different version");
        return;
    }
    if (pending_conn->hello.head.protocol != SHM_PROTOCOL) {
        (void)snprintf(
            text, sizeof text,
            "the master speaks version %d of the shared memory protocol, the "
            "client version %u; use the same gapless on both sides",
            SHM_PROTOCOL, (unsigned)pending_conn->hello.head.protocol);
        pending_conn_refuse(tp, pending_conn, GAPLESS_VERSION, text);
        return;
    }
    if (pending_conn->hello.fd_count != 1 ||
        pending_conn->hello.head.a >= DOORBELL_BITS) {
        pending_conn_refuse(tp, pending_conn, GAPLESS_PROTOCOL,
                            "the client's greeting is malformed");
        return;
    }
    /* Nothing more to read before it has a peer slot; and its hang-up must not keep us
     * awake. */
    (void)door_watch(tp, EPOLL_CTL_DEL, pending_conn->fd, 0);
}

static void door_accept(struct tp *tp)
{
    for (uint32_t i = 0; i < SHM_PENDING_CONNS; i++) {
        struct shm_pending_conn *pending_conn = &tp->pending_conns[i];
        int fd;

        if (pending_conn->fd >= 0)
            continue;
        fd = accept4(tp->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            if (errno == EAGAIN)
                return;
            break; /* descriptors or memory used up: the pause below */
        }
        pending_conn->fd = fd;
        pending_conn->ready = false;
        pending_conn->deadline_ns = clock_ns() + GREET_NS;
        if (!shm_trusted(fd))
            pending_conn_refuse(tp, pending_conn, GAPLESS_REFUSED,
                                "the master belongs to another user");
        else if (door_watch(tp, EPOLL_CTL_ADD, fd, PENDING_CONN_TAG | i) != 0)
            pending_conn_close(tp, pending_conn);
    }
    /* No free pending connection, or an error: stop looking at the listening socket, which would
     * be ready all the time; door_tidy looks again after a pause. */
    (void)door_watch(tp, EPOLL_CTL_DEL, tp->listen_fd, 0);
    tp->listening = false;
    tp->listen_ns = clock_ns() + PAUSE_MS * UINT64_C(1000000);
}

/* ---- peer slots ---------------------------------------------------------- */

/* The index of a free slot, or peers_max. Slots that are over are cleared on the way.
 * *ret_leaving: one will be free soon. */
static uint32_t peer_slot_find(struct tp *tp, bool *ret_leaving)
{
    *ret_leaving = false;
    for (uint32_t i = 0; i < tp->config.peers_max; i++) {
        struct shm_peer *peer = &tp->peers[i];

        switch ((enum shm_state)flag_word_read(&peer->state)) {
        case SHM_OVER:
            shm_peer_clear(tp, peer);
            return i;
        case SHM_FREE:
            return i;
        case SHM_LIVE:
            *ret_leaving = *ret_leaving || peer->gone;
            break;
        case SHM_LEAVING:
            *ret_leaving = true;
            break;
        }
    }
    return tp->config.peers_max;
}

static void peer_slot_take(struct tp *tp, struct shm_peer *peer,
                           struct shm_pending_conn *pending_conn)
{
    uint32_t index = (uint32_t)(peer - tp->peers);
    uint32_t capacity = tp->config.notes_max;
    struct shm_frame welcome = shm_frame(SHM_WELCOME, capacity, index);
    struct gapless_error error;
    void *control;
    void *doorbell;
    int fds[SHM_FDS];

    if (shm_memory_map(pending_conn->hello.fds[0], sizeof(struct doorbell),
                       TP_READ_WRITE, &doorbell, &error) != GAPLESS_OK) {
        pending_conn_refuse(tp, pending_conn, (enum gapless_status)error.status,
                            error.text);
        return;
    }
    peer->control_bytes = shm_control_bytes(capacity);
    if (shm_memory_new("gapless-control", peer->control_bytes, &fds[0], &control,
                       &error) != GAPLESS_OK) {
        shm_memory_unmap(doorbell, sizeof(struct doorbell));
        pending_conn_refuse(tp, pending_conn, (enum gapless_status)error.status,
                            error.text);
        return;
    }
    fds[1] = tp->doorbell_fd;
    peer->doorbell = doorbell;
    peer->control = control;
    peer->doorbell_bit = pending_conn->hello.head.a;
    peer->windows_max = pending_conn->hello.head.b < tp->config.windows_max
                            ? pending_conn->hello.head.b
                            : tp->config.windows_max;
    shm_peer_rings(peer, capacity, true);
    flag_word_publish(&peer->reason, SHM_REASON_UNKNOWN);
    peer->fd = pending_conn->fd;
    pending_conn->fd = -1;
    pending_conn_close(tp, pending_conn);
    /* WELCOME before UP, which makes the server's thread grant: the client expects it
     * first. A note that comes before UP was polled waits in its ring. */
    if (shm_frame_send(peer->fd, &welcome, NULL, 0, fds, 2) != GAPLESS_OK) {
        shm_peer_clear(tp, peer);
        goto close_control;
    }
    flag_word_publish(&peer->state, SHM_LIVE);
    shm_mail_post(tp, TP_UP, index, 0);
    peer->process_fd = shm_process_open(peer->fd);
    peer->pid = 0;
    if (peer->process_fd < 0)
        peer->pid = shm_process_number(peer->fd, &peer->born);
    if (peer->process_fd >= 0)
        (void)door_watch(tp, EPOLL_CTL_ADD, peer->process_fd, PROCESS_TAG | index);
    if (door_watch(tp, EPOLL_CTL_ADD, peer->fd, index) != 0) {
        (void)shutdown(peer->fd, SHUT_RDWR);
        peer->gone = true;
        tp->gone_count++;
    }

close_control:
    (void)close(fds[0]);
}

/* Who said HELLO gets a peer slot, or is refused, or waits for one that is becoming free. */
static void peer_slot_pending_conns(struct tp *tp)
{
    char text[200];

    for (uint32_t i = 0; i < SHM_PENDING_CONNS; i++) {
        struct shm_pending_conn *pending_conn = &tp->pending_conns[i];
        uint32_t index;
        bool leaving;

        if (pending_conn->fd < 0 || !pending_conn->ready || shm_mail_room(tp) == 0)
            continue;
        index = peer_slot_find(tp, &leaving);
        if (index < tp->config.peers_max) {
            peer_slot_take(tp, &tp->peers[index], pending_conn);
        } else if (!leaving) {
            (void)snprintf(text, sizeof text,
                           "the master has room for %" PRIu32 " peers and all are "
                           "connected; start it with room for more, or end one",
                           tp->config.peers_max);
            pending_conn_refuse(tp, pending_conn, GAPLESS_CAPACITY, text);
        }
    }
}

/* ---- the loop ------------------------------------------------------------ */

/* Where no descriptor tells that a peer's process has ended (an old kernel, a filter of
 * system calls), a look now and then does; see door_process. True: there are such peers. */
static bool door_look(struct tp *tp, uint64_t now)
{
    bool due = now - tp->looked_ns >= LOOK_NS, any = false;

    for (uint32_t i = 0; i < tp->config.peers_max; i++) {
        struct shm_peer *peer = &tp->peers[i];

        if (flag_word_read(&peer->state) != SHM_LIVE || peer->gone || peer->pid == 0)
            continue;
        any = true;
        if (!due || !shm_process_ended(peer->pid, peer->born))
            continue;
        peer->pid = 0;
        (void)shutdown(peer->fd, SHUT_RDWR);
    }
    tp->looked_ns = due ? now : tp->looked_ns;
    return any;
}

/* Whatever waits for time to pass. True: look again after a pause. */
static bool door_tidy(struct tp *tp, bool *ret_look)
{
    uint64_t now = clock_ns();
    bool again;

    shm_post_gone(tp);
    peer_slot_pending_conns(tp);
    again = tp->gone_count > 0 || shm_mail_room(tp) == 0;
    for (uint32_t i = 0; i < SHM_PENDING_CONNS; i++) {
        struct shm_pending_conn *pending_conn = &tp->pending_conns[i];

        if (pending_conn->fd >= 0 && now >= pending_conn->deadline_ns)
            pending_conn_refuse(
                tp, pending_conn, GAPLESS_TIMEOUT,
                "the master had no peer slot free in time, or heard no greeting");
        again = again || pending_conn->fd >= 0;
    }
    if (!tp->listening && now >= tp->listen_ns)
        tp->listening = door_watch(tp, EPOLL_CTL_ADD, tp->listen_fd, LISTEN_TAG) == 0;
    again = again || !tp->listening;
    for (uint32_t i = 0; i < tp->config.peers_max; i++) {
        struct shm_peer *peer = &tp->peers[i];
        uint32_t state = flag_word_read(&peer->state);

        if (state == SHM_OVER)
            shm_peer_clear(tp, peer);
        again = again || state == SHM_LEAVING;
    }
    *ret_look = door_look(tp, now);
    return again;
}

static void door_peer(struct tp *tp, uint32_t index)
{
    struct shm_peer *peer = &tp->peers[index];

    if (flag_word_read(&peer->state) != SHM_LIVE || peer->gone)
        return;
    shm_peer_pump(tp, index, FRAMES_A_TURN);
    if (peer->gone)
        (void)door_watch(tp, EPOLL_CTL_DEL, peer->fd, 0);
}

/* A peer's process has ended. As a rule its socket says so too, but a process that it
 * forked may keep that open: shut, it gives what was sent and then the end. */
static void door_process(struct tp *tp, uint32_t index)
{
    struct shm_peer *peer = &tp->peers[index];

    (void)door_watch(tp, EPOLL_CTL_DEL, peer->process_fd, 0);
    if (flag_word_read(&peer->state) == SHM_LIVE)
        (void)shutdown(peer->fd, SHUT_RDWR);
}

static void *door_run(void *argument)
{
    struct tp *tp = argument;
    struct epoll_event events[EVENTS_MAX];
    bool again = false, look = false;

    for (;;) {
        int count = epoll_wait(tp->epoll_fd, events, EVENTS_MAX,
                               again  ? PAUSE_MS
                               : look ? (int)(LOOK_NS / 1000000)
                                      : -1);

        for (int i = 0; i < count; i++) {
            uint64_t tag = events[i].data.u64;

            if (tag == STOP_TAG)
                return NULL;
            if (tag == LISTEN_TAG)
                door_accept(tp);
            else if ((tag & PENDING_CONN_TAG) != 0)
                pending_conn_read(tp, &tp->pending_conns[tag & (PENDING_CONN_TAG - 1)]);
            else if ((tag & PROCESS_TAG) != 0)
                door_process(tp, (uint32_t)tag);
            else
                door_peer(tp, (uint32_t)tag);
        }
        again = door_tidy(tp, &look);
        if (shm_mail_room(tp) == 0) {
            /* Sockets stay ready while nothing can be taken from them. */
            struct pollfd stop = {.fd = tp->stop_fd, .events = POLLIN};

            (void)poll(&stop, 1, PAUSE_MS);
        }
    }
}

/* A signal is for the threads of the program, not for this one. */
static int door_start(struct tp *tp)
{
    sigset_t all;
    sigset_t before;
    int os;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    os = pthread_create(&tp->thread, NULL, door_run, tp);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    tp->has_thread = os == 0;
    if (os == 0)
        (void)pthread_setname_np(tp->thread, "gapless-listen");
    return os;
}

int shm_listener_open(struct tp *tp, struct gapless_error *error)
{
    struct rlimit limit;
    int os = 0;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 &&
        limit.rlim_cur < (rlim_t)tp->config.peers_max * 2 + SHM_PENDING_CONNS)
        return gapless_error_set(error, GAPLESS_CAPACITY, 0,
                                 "%" PRIu32 " peers need two descriptors each and the "
                                 "limit is %llu; raise it: ulimit -n",
                                 tp->config.peers_max,
                                 (unsigned long long)limit.rlim_cur);
    tp->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (tp->epoll_fd < 0)
        os = errno;
    if (os == 0) {
        tp->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        os = tp->stop_fd < 0 ? errno : 0;
    }
    if (os == 0 && (door_watch(tp, EPOLL_CTL_ADD, tp->stop_fd, STOP_TAG) != 0 ||
                    door_watch(tp, EPOLL_CTL_ADD, tp->listen_fd, LISTEN_TAG) != 0))
        os = errno;
    if (os == 0) {
        tp->listening = true;
        os = door_start(tp);
    }
    if (os != 0)
        return gapless_error_set(error, GAPLESS_SYSTEM, os,
                                 "cannot start the thread that accepts peers");
    return GAPLESS_OK;
}

/* The thread, the epoll set and the socket file are the parent's. */
void shm_listener_free(struct tp *tp)
{
    for (uint32_t i = 0; i < SHM_PENDING_CONNS; i++) {
        shm_packet_close(&tp->pending_conns[i].hello);
        shm_close_fd(&tp->pending_conns[i].fd);
    }
    shm_close_fd(&tp->listen_fd);
    shm_close_fd(&tp->stop_fd);
    shm_close_fd(&tp->epoll_fd);
}

/* Also right after a shm_listener_open that failed anywhere. */
void shm_listener_close(struct tp *tp)
{
    uint64_t one = 1;
    struct stat stat;

    if (tp->has_thread) {
        if (write(tp->stop_fd, &one, sizeof one) == (ssize_t)sizeof one)
            (void)pthread_join(tp->thread, NULL);
        tp->has_thread = false;
    }
    for (uint32_t i = 0; i < SHM_PENDING_CONNS; i++)
        pending_conn_close(tp, &tp->pending_conns[i]);
    /* Only the file that we made. */
    if (tp->address_inode != 0 && lstat(tp->address.sun_path, &stat) == 0 &&
        stat.st_ino == tp->address_inode)
        (void)unlink(tp->address.sun_path);
    tp->address_inode = 0;
    shm_close_fd(&tp->listen_fd);
    shm_close_fd(&tp->stop_fd);
    shm_close_fd(&tp->epoll_fd);
}
