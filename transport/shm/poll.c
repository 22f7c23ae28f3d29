/* Shared memory transport: poll, where notes and mail become events and where waiting
 * is done.
 *
 *   collect: attention bits of the doorbell -> pending -> rings -> TP_NOTE
 *                                          mailbox -> TP_UP, TP_TEXT, TP_DOWN
 *
 * Busy, this makes no system call and touches no memory but the bits, the rings that
 * have something and the head of the mailbox. With nothing to do it yields for a while
 * and then sleeps on the doorbell.
 */
#include "transport/shm/shm.h"

#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

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

    if (peer->process_fd >= 0 && poll(&ended, 1, 0) == 1)
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
        /* It writes nonsense. The door (or our next pump) sees the end; DOWN
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
    start = shm_now_ns();
    for (now = start;; now = shm_now_ns()) {
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
