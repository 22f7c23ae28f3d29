/* Shared memory transport: the mailbox, and what a peer is made of. Used by the
 * server's door thread and, on a client, by its only thread. */
#include "transport/shm/shm.h"

#include <linux/futex.h>
#include <limits.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- the mailbox ------------------------------------------------------------
 *
 * A ring of slots from the thread that reads the sockets to the one that polls. A slot is released
 * at the poll after the one that delivered it, so that an event can point into it. On a
 * client both ends are the same thread. */

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

void shm_peer_clear(struct tp *tp, struct shm_peer *peer)
{
    /* A descriptor that a forked process holds too must be taken out of the epoll set
     * and shut down: closing ours would do neither. */
    if (tp->epoll_fd >= 0 && peer->process_fd >= 0)
        (void)epoll_ctl(tp->epoll_fd, EPOLL_CTL_DEL, peer->process_fd, NULL);
    if (peer->fd >= 0)
        (void)shutdown(peer->fd, SHUT_RDWR);
    shm_close_fd(&peer->process_fd);
    shm_close_fd(&peer->fd);
    shm_memory_unmap(peer->control, peer->control_bytes);
    shm_memory_unmap(peer->doorbell, sizeof *peer->doorbell);
    peer->control = NULL;
    peer->doorbell = NULL;
    for (uint32_t i = 0; peer->windows != NULL && i < tp->config.windows_max; i++)
        shm_close_fd(&peer->windows[i].fd);
    peer->gone = false;
    peer->generation++;
    flag_word_publish(&peer->state, SHM_FREE);
}

/* ---- frames -------------------------------------------------------------- */

static bool pump_grant(struct shm_peer *peer, struct shm_packet *packet)
{
    struct shm_window *window;

    if (packet->fd_count != 1 || packet->bytes != 0 ||
        packet->head.a >= peer->windows_max || packet->head.b > TP_READ_WRITE ||
        packet->head.c == 0 || packet->head.c > PTRDIFF_MAX)
        return false;
    window = &peer->windows[packet->head.a];
    shm_close_fd(&window->fd);
    window->fd = packet->fds[0];
    window->access = (enum tp_access)packet->head.b;
    window->bytes = packet->head.c;
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
