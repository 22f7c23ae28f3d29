/* Shared memory transport: the mailbox, what a peer is made of, and poll, where notes and
 * mail become events and where waiting is done.
 *
 *   collect: attention bits of the doorbell -> pending -> rings -> TP_NOTE
 *                                              mailbox -> TP_UP, TP_TEXT, TP_DOWN
 *
 * Busy, poll makes no system call and touches no memory but the bits, the rings that have
 * something and the head of the mailbox. With nothing to do it yields for a while and
 * then sleeps on the doorbell.
 *
 * The mailbox and peers are used by the server's thread of the listener too; on a client
 * there is one thread.
 */
#include "transport/shm/shm.h"

#include "engine/base/clock.h"

#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* ---- the mailbox ------------------------------------------------------------
 *
 * A ring of slots from the thread that reads the sockets to the one that polls. A slot
 * is released at the poll after the one that delivered it, so that an event can point
 * into it. On a client both ends are the same thread. */

uint32_t shm_mail_room(const struct tp *tp)
{
    return tp->mail_count - (tp->mail_posted - flag_word_read(&tp->mail_tail));
}

static struct shm_mail *mail_next(struct tp *tp)
{
    return &tp->mails[tp->mail_posted & (tp->mail_count - 1)];
}

void *shm_mail_text(struct tp *tp)
{
    return mail_next(tp)->text;
}

void shm_mail_post(struct tp *tp, enum tp_event_kind kind, uint32_t peer,
                   uint32_t bytes)
{
    struct shm_mail *mail = mail_next(tp);

    mail->kind = kind;
    mail->peer = peer;
    mail->generation = tp->peers[peer].generation;
    mail->bytes = bytes;
    flag_word_publish(&tp->mail_head, ++tp->mail_posted);
    if (tp->role == SHM_SERVER && doorbell_wake(tp->doorbell))
        shm_futex_wake(tp->doorbell);
}

void shm_futex_wake(struct doorbell *doorbell)
{
    /* Not FUTEX_PRIVATE: the sleeper may be another process. */
    (void)syscall(SYS_futex, &doorbell->asleep, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/* ---- peers --------------------------------------------------------------- */

size_t shm_control_bytes(uint32_t capacity)
{
    return sizeof(struct shm_control) + 2 * ring_bytes(capacity);
}

void shm_peer_rings(struct shm_peer *peer, uint32_t capacity, bool server)
{
    char *at = (char *)peer->control + sizeof(struct shm_control);
    struct ring *up = (void *)at;
    struct ring *down = (void *)(at + ring_bytes(capacity));

    peer->in = ring_end(server ? up : down, capacity);
    peer->out = ring_end(server ? down : up, capacity);
    peer->drain_left = capacity;
}

struct shm_peer *shm_peer_find(struct tp *tp, tp_peer index)
{
    struct shm_peer *peer;

    if (index >= tp->config.peers_max)
        return NULL;
    peer = &tp->peers[index];
    return peer->up && !peer->dropped && !peer->broken ? peer : NULL;
}

void shm_peer_break(struct shm_peer *peer)
{
    peer->broken = true;
    flag_word_publish(&peer->reason, SHM_REASON_RING);
    (void)shutdown(peer->fd, SHUT_RDWR);
}

void shm_peer_forget(struct shm_peer *peer)
{
    peer->frames = 0;
    peer->unread = false;
    peer->up = false;
    peer->dropped = false;
    peer->broken = false;
}

void shm_peer_free(struct tp *tp, struct shm_peer *peer)
{
    shm_close_fd(&peer->process_fd);
    shm_close_fd(&peer->fd);
    shm_memory_unmap(peer->control, peer->control_bytes);
    shm_memory_unmap(peer->doorbell, sizeof *peer->doorbell);
    peer->control = NULL;
    peer->doorbell = NULL;
    for (uint32_t i = 0; peer->windows != NULL && i < tp->config.windows_max; i++) {
        shm_close_fd(&peer->windows[i].fd);
        shm_close_fd(&peer->windows[i].tail);
    }
}

void shm_peer_clear(struct tp *tp, struct shm_peer *peer)
{
    /* A descriptor that a forked process holds too must be taken out of the epoll set
     * and shut down: closing ours would do neither. */
    if (tp->epoll_fd >= 0 && peer->process_fd >= 0)
        (void)epoll_ctl(tp->epoll_fd, EPOLL_CTL_DEL, peer->process_fd, NULL);
    if (peer->fd >= 0)
        (void)shutdown(peer->fd, SHUT_RDWR);
    shm_peer_free(tp, peer);
    peer->gone = false;
    peer->generation++;
    flag_word_publish(&peer->state, SHM_FREE);
}

/* ---- frames -------------------------------------------------------------- */

static bool pump_grant(struct shm_peer *peer, struct shm_packet *packet)
{
    bool two = packet->head.b == TP_SPLIT;
    struct shm_window *window;

    if (packet->fd_count != (two ? 2 : 1) || packet->bytes != 0 ||
        packet->head.a >= peer->windows_max || packet->head.b > TP_SPLIT ||
        packet->head.c == 0 || packet->head.c > PTRDIFF_MAX ||
        (two && (packet->head.d == 0 || packet->head.d >= packet->head.c ||
                 packet->head.d % (uint64_t)sysconf(_SC_PAGESIZE) != 0)))
        return false;
    window = &peer->windows[packet->head.a];
    shm_close_fd(&window->fd);
    shm_close_fd(&window->tail);
    window->fd = packet->fds[0];
    window->tail = two ? packet->fds[1] : -1;
    window->access = (enum tp_access)packet->head.b;
    window->bytes = packet->head.c;
    window->head = packet->head.d;
    packet->fd_count = 0;
    return true;
}

/* False: the peer breaks the protocol. */
static bool pump_frame(struct tp *tp, uint32_t index, struct shm_packet *packet)
{
    struct shm_peer *peer = &tp->peers[index];

    switch ((enum shm_frame_kind)packet->head.kind) {
    case SHM_TEXT:
        if (packet->fd_count != 0)
            return false;
        shm_mail_post(tp, TP_TEXT, index, packet->bytes);
        return true;
    case SHM_GRANT:
        return tp->role == SHM_CLIENT && pump_grant(peer, packet);
    case SHM_HELLO:
    case SHM_WELCOME:
    case SHM_REFUSE:
        break;
    }
    return false;
}

void shm_peer_pump(struct tp *tp, uint32_t index, int most)
{
    struct shm_peer *peer = &tp->peers[index];
    struct shm_packet packet;
    int status = GAPLESS_OK;

    for (; most > 0 && !peer->gone && shm_mail_room(tp) > 0; most--) {
        status = shm_frame_receive(peer->fd, &packet, shm_mail_text(tp), TP_TEXT_MAX);
        if (status == GAPLESS_AGAIN)
            return;
        if (status != GAPLESS_OK) {
            if (status == GAPLESS_PROTOCOL)
                flag_word_publish(&peer->reason, SHM_REASON_FRAME);
            peer->gone = true;
        } else if (!pump_frame(tp, index, &packet)) {
            shm_packet_close(&packet);
            flag_word_publish(&peer->reason, SHM_REASON_FRAME);
            peer->gone = true;
        }
        if (peer->gone) {
            /* The descriptor stays until the slot is cleared: another thread may be
             * about to use it. This ends the connection for the other side. */
            (void)shutdown(peer->fd, SHUT_RDWR);
            tp->gone_count++;
        }
    }
}

void shm_post_gone(struct tp *tp)
{
    for (uint32_t i = 0; tp->gone_count > 0 && i < tp->config.peers_max; i++) {
        struct shm_peer *peer = &tp->peers[i];

        if (shm_mail_room(tp) == 0)
            return;
        if (flag_word_read(&peer->state) != SHM_LIVE || !peer->gone)
            continue;
        tp->gone_count--;
        flag_word_publish(&peer->state, SHM_LEAVING);
        shm_mail_post(tp, TP_DOWN, i, 0);
    }
}

/* ---- which peers --------------------------------------------------------- */

static void pending_set(struct tp *tp, uint32_t index)
{
    tp->pending[index / 64] |= UINT64_C(1) << (index % 64);
}

static void pending_clear(struct tp *tp, uint32_t index)
{
    tp->pending[index / 64] &= ~(UINT64_C(1) << (index % 64));
}

/* The first pending peer at or after `from`, around the end; peers_max if there is
 * none. */
static uint32_t pending_next(const struct tp *tp, uint32_t from)
{
    uint32_t word = from / 64;
    uint64_t bits = tp->pending[word] & (UINT64_MAX << (from % 64));

    for (uint32_t looked = 0; bits == 0 && looked < tp->words; looked++) {
        word = word + 1 < tp->words ? word + 1 : 0;
        bits = tp->pending[word];
    }
    if (bits == 0)
        return tp->config.peers_max;
    return word * 64 + (uint32_t)__builtin_ctzll(bits);
}

/* A server may have forked a process that keeps the connection open for ever: then this
 * end is shut, and its last words are still read. */
static void client_check(struct shm_peer *peer)
{
    struct pollfd ended = {.fd = peer->process_fd, .events = POLLIN};

    if ((peer->process_fd >= 0 && poll(&ended, 1, 0) == 1) ||
        (peer->process_fd < 0 && shm_process_ended(peer->pid, peer->born)))
        (void)shutdown(peer->fd, SHUT_RDWR);
}

/* All that the client's sockets have. */
static void client_pump(struct tp *tp)
{
    for (uint32_t i = 0; i < tp->config.peers_max; i++) {
        struct shm_peer *peer = &tp->peers[i];

        if (flag_word_read(&peer->state) != SHM_LIVE)
            continue;
        client_check(peer);
        peer->frames = flag_word_read(&peer->control->said);
        shm_peer_pump(tp, i, (int)tp->mail_count);
        peer->unread = shm_mail_room(tp) == 0;
    }
    shm_post_gone(tp);
}

/* Which peers have something? */
static void poll_collect(struct tp *tp)
{
    bool pump;

    for (uint32_t word = 0; word < tp->words; word++)
        tp->pending[word] |= doorbell_take(tp->doorbell, word);
    /* A peer that shares the doorbell may set bits of peers that cannot be. */
    if (tp->config.peers_max % 64 != 0)
        tp->pending[tp->words - 1] &= (UINT64_C(1) << (tp->config.peers_max % 64)) - 1;
    if (tp->role != SHM_CLIENT)
        return;
    pump = tp->gone_count > 0;
    for (uint32_t i = 0; i < tp->config.peers_max; i++) {
        struct shm_peer *peer = &tp->peers[i];

        pump = pump ||
               (flag_word_read(&peer->state) == SHM_LIVE &&
                (peer->unread || flag_word_read(&peer->control->said) != peer->frames));
    }
    if (pump)
        client_pump(tp);
}

/* ---- events -------------------------------------------------------------- */

static int notes_of(struct tp *tp, uint32_t index, struct tp_event *events, int max)
{
    struct shm_peer *peer = &tp->peers[index];
    int count = 0;
    uint32_t note;

    /* A bit of a peer that is not up yet is dropped; its UP makes it pending again. */
    while (shm_peer_find(tp, index) != NULL && count < max) {
        switch (ring_take(&peer->in, &note)) {
        case RING_OK:
            events[count++] =
                (struct tp_event){.kind = TP_NOTE, .peer = index, .note = note};
            continue;
        case RING_WAIT:
            pending_clear(tp, index);
            return count;
        case RING_BROKEN:
            break;
        }
        /* It writes nonsense. The listener (or our next pump) sees the end; DOWN
         * follows. */
        shm_peer_break(peer);
    }
    if (count < max)
        pending_clear(tp, index);
    return count;
}

/* In turns, so that who floods waits like all others. */
static int poll_notes(struct tp *tp, struct tp_event *events, int max)
{
    int count = 0;

    while (count < max) {
        int most = max - count < SHM_TURN ? max - count : SHM_TURN;
        uint32_t index = pending_next(tp, tp->cursor);

        if (index == tp->config.peers_max)
            break;
        count += notes_of(tp, index, events + count, most);
        tp->cursor = index + 1 < tp->config.peers_max ? index + 1 : 0;
    }
    return count;
}

/* The end of a peer: first the rest of its notes. False: no room for all of it. */
static bool poll_down(struct tp *tp, uint32_t index, struct tp_event *events, int max,
                      int *count)
{
    struct shm_peer *peer = &tp->peers[index];
    uint32_t note;

    /* At most a ring full: it may be alive, and writing. */
    while (!peer->dropped && !peer->broken && peer->drain_left > 0) {
        if (*count == max)
            return false;
        if (ring_take(&peer->in, &note) != RING_OK)
            break;
        peer->drain_left--;
        events[(*count)++] =
            (struct tp_event){.kind = TP_NOTE, .peer = index, .note = note};
    }
    if (!peer->dropped) {
        if (*count == max)
            return false;
        events[(*count)++] = (struct tp_event){.kind = TP_DOWN, .peer = index};
    }
    peer->up = false;
    pending_clear(tp, index);
    tp->over[tp->over_count++] = index;
    return true;
}

static int poll_mail(struct tp *tp, struct tp_event *events, int max)
{
    int count = 0;

    while (count < max && tp->mail_taken != flag_word_read(&tp->mail_head)) {
        struct shm_mail *mail = &tp->mails[tp->mail_taken & (tp->mail_count - 1)];
        struct shm_peer *peer = &tp->peers[mail->peer];
        struct tp_event event = {.kind = mail->kind, .peer = mail->peer};

        if (mail->generation == peer->generation) {
            if (mail->kind == TP_DOWN) {
                if (!poll_down(tp, mail->peer, events, max, &count))
                    break;
            } else if (!peer->dropped) {
                if (mail->kind == TP_UP) {
                    peer->up = true;
                    pending_set(tp, mail->peer);
                } else {
                    event.bytes = mail->bytes;
                    event.data = mail->text;
                }
                events[count++] = event;
            }
        }
        tp->mail_taken++;
    }
    return count;
}

/* One look at everything; takes turns in what it looks at first. */
static int poll_look(struct tp *tp, struct tp_event *events, int max)
{
    int count = 0;

    poll_collect(tp);
    tp->notes_first = !tp->notes_first;
    if (tp->notes_first)
        count = poll_notes(tp, events, max);
    count += poll_mail(tp, events + count, max - count);
    if (!tp->notes_first)
        count += poll_notes(tp, events + count, max - count);
    return count;
}

/* ---- waiting ------------------------------------------------------------- */

void shm_release_over(struct tp *tp)
{
    while (tp->over_count > 0) {
        struct shm_peer *peer = &tp->peers[tp->over[--tp->over_count]];

        shm_peer_forget(peer);
        if (tp->role == SHM_CLIENT)
            shm_peer_clear(tp, peer);
        else
            flag_word_publish(&peer->state, SHM_OVER);
    }
}

/* What the last poll delivered is done with: its texts, and the peers that ended. Not
 * sooner, or an event still in the caller's hand could name a peer that is another now.
 */
static void poll_release(struct tp *tp)
{
    if (flag_word_read(&tp->mail_tail) != tp->mail_taken)
        flag_word_publish(&tp->mail_tail, tp->mail_taken);
    shm_release_over(tp);
}

/* Now and then, though no peer rang: whatever a ringer left undone, because it was
 * killed or because a peer overwrote the doorbell, is found; and a client looks after its
 * server. */
static void poll_sweep(struct tp *tp, uint64_t now_ns)
{
    tp->swept_ns = now_ns;
    for (uint32_t i = 0; i < tp->config.peers_max; i++) {
        if (tp->peers[i].up)
            pending_set(tp, i);
    }
    if (tp->role == SHM_CLIENT)
        client_pump(tp);
}

/* One slice of sleep. */
static int poll_sleep(struct tp *tp, struct tp_event *events, int max, uint64_t left_ns)
{
    long slice = (long)(left_ns < (uint64_t)SHM_SLICE_NS ? left_ns : SHM_SLICE_NS);
    struct timespec bound = {.tv_nsec = slice};
    int count;

    doorbell_sleep(tp->doorbell);
    count = poll_look(tp, events, max);
    if (count == 0) {
        (void)syscall(SYS_futex, &tp->doorbell->asleep, FUTEX_WAIT, 1, &bound, NULL, 0);
        tp->wakeups++;
    }
    doorbell_awake(tp->doorbell);
    return count > 0 ? count : poll_look(tp, events, max);
}

int shm_poll(struct tp *tp, struct tp_event *events, int max, int64_t timeout_ns)
{
    uint64_t bound = (uint64_t)(timeout_ns < 0 ? SHM_BOUND_NS : timeout_ns);
    uint64_t start;
    uint64_t now;
    int count;

    if (max <= 0 || events == NULL)
        return GAPLESS_INVALID;
    poll_release(tp);
    count = poll_look(tp, events, max);
    if (count > 0)
        return count;
    start = clock_ns();
    for (now = start;; now = clock_ns()) {
        if (count == 0 && now - tp->swept_ns >= (uint64_t)SHM_SLICE_NS) {
            poll_sweep(tp, now);
            count = poll_look(tp, events, max);
        }
        if (count > 0 || now - start >= bound)
            return count;
        if (now - start < tp->config.spin_ns) {
            (void)sched_yield();
            count = poll_look(tp, events, max);
        } else {
            count = poll_sleep(tp, events, max, bound - (now - start));
        }
    }
}
