/* Shared memory transport, the client's side of the control plane: connect, and windows
 * onto granted memory. A client needs no thread: it reads its socket here and in poll.
 */
#include "transport/shm/shm.h"

#include "engine/base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* Between two tries to reach a server that is not there yet. */
#define RETRY_NS UINT64_C(20000000)

static uint64_t deadline_after(int64_t timeout_ns)
{
    return clock_ns() + (uint64_t)(timeout_ns < 0 ? SHM_BOUND_NS : timeout_ns);
}

static void nap_until(uint64_t deadline)
{
    uint64_t now = clock_ns();
    uint64_t left = now < deadline ? deadline - now : 0;
    struct timespec nap = {.tv_nsec = (long)(left < RETRY_NS ? left : RETRY_NS)};

    (void)nanosleep(&nap, NULL);
}

/* Waits until the socket is readable, for a slice at most: the caller loops. */
static void wait_readable(int fd, uint64_t deadline)
{
    struct pollfd want = {.fd = fd, .events = POLLIN};
    uint64_t now = clock_ns();
    uint64_t left = now < deadline ? deadline - now : 0;

    if (left > (uint64_t)SHM_SLICE_NS)
        left = (uint64_t)SHM_SLICE_NS;
    (void)poll(&want, 1, (int)((left + 999999) / 1000000));
}

/* ---- connect ------------------------------------------------------------- */

/* One try. GAPLESS_AGAIN: no server there (yet). */
static int client_reach(const char *address, const struct sockaddr_un *to,
                        socklen_t bytes, int *ret, int *ret_os,
                        struct gapless_error *error)
{
    int os;
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0) {
        os = errno;
        return gapless_error_set(error, GAPLESS_SYSTEM, os, "cannot create a socket");
    }
    if (connect(fd, (const struct sockaddr *)to, bytes) != 0) {
        os = errno;
        (void)close(fd);
        *ret_os = os;
        /* EAGAIN: more connect at once than the kernel's queue holds. */
        if (os == ECONNREFUSED || os == ENOENT || os == EAGAIN || os == EINTR)
            return GAPLESS_AGAIN;
        return gapless_error_set(error, GAPLESS_SYSTEM, os,
                                 "cannot connect to shm:%.90s", address);
    }
    if (!shm_trusted(fd)) {
        (void)close(fd);
        return gapless_error_set(
            error, GAPLESS_REFUSED, 0,
            "the process that listens on shm:%.90s belongs to another "
            "user; master and workers must run as the same one",
            address);
    }
    *ret = fd;
    return GAPLESS_OK;
}

/* The server's answer to HELLO. GAPLESS_AGAIN: it closed the connection; try again. */
static int client_answer(const char *address, int fd, uint64_t deadline,
                         struct shm_packet *ret, struct gapless_error *error)
{
    char text[200];
    int status;

    for (;;) {
        status = shm_frame_receive(fd, ret, text, sizeof text - 1);
        if (status != GAPLESS_AGAIN)
            break;
        if (clock_ns() >= deadline)
            return gapless_error_set(
                error, GAPLESS_TIMEOUT, 0,
                "the master at shm:%.90s is there but did not answer "
                "in time: it may be stopped or overloaded",
                address);
        wait_readable(fd, deadline);
    }
    if (status == GAPLESS_PEER_LOST)
        return GAPLESS_AGAIN;
    if (status == GAPLESS_OK && ret->head.kind == SHM_REFUSE) {
        text[ret->bytes] = '\0';
        shm_packet_close(ret);
        status = -(int)ret->head.a;
        return gapless_error_set(error, status < 0 ? status : GAPLESS_REFUSED, 0, "%s",
                                 text);
    }
    if (status == GAPLESS_OK && ret->head.protocol == SHM_PROTOCOL &&
        ret->head.kind == SHM_WELCOME && ret->fd_count == 2 && ret->head.a != 0 &&
        ret->head.a <= SHM_NOTES_MAX && (ret->head.a & (ret->head.a - 1)) == 0 &&
        ret->head.b < DOORBELL_BITS)
        return GAPLESS_OK;
    if (status == GAPLESS_OK)
        shm_packet_close(ret);
    return gapless_error_set(
        error, GAPLESS_VERSION, 0,
        "what listens on shm:%.90s is not a gapless master of this "
        "version; use the same gapless on both sides",
        address);
}

static int client_greet(struct tp *tp, uint32_t index, const char *address, int fd,
                        uint64_t deadline, struct shm_packet *ret,
                        struct gapless_error *error)
{
    struct shm_frame hello = shm_frame(SHM_HELLO, index, tp->config.windows_max);
    int status = shm_frame_send(fd, &hello, NULL, 0, &tp->doorbell_fd, 1);

    if (status == GAPLESS_SYSTEM)
        return gapless_error_set(error, GAPLESS_SYSTEM, errno, "cannot greet shm:%.90s",
                                 address);
    if (status != GAPLESS_OK)
        return GAPLESS_AGAIN;
    return client_answer(address, fd, deadline, ret, error);
}

static int client_peer_slot(struct tp *tp, uint32_t index, int fd,
                            struct shm_packet *packet, struct gapless_error *error)
{
    struct shm_peer *peer = &tp->peers[index];
    size_t control_bytes = shm_control_bytes(packet->head.a);
    void *control;
    void *doorbell;
    int status;

    status =
        shm_memory_map(packet->fds[0], control_bytes, TP_READ_WRITE, &control, error);
    if (status != GAPLESS_OK)
        return status;
    status = shm_memory_map(packet->fds[1], sizeof(struct doorbell), TP_READ_WRITE,
                            &doorbell, error);
    if (status != GAPLESS_OK) {
        shm_memory_unmap(control, control_bytes);
        return status;
    }
    peer->control = control;
    peer->control_bytes = control_bytes;
    peer->doorbell = doorbell;
    peer->doorbell_bit = packet->head.b;
    peer->windows_max = tp->config.windows_max;
    shm_peer_rings(peer, packet->head.a, false);
    flag_word_publish(&peer->reason, SHM_REASON_UNKNOWN);
    peer->fd = fd;
    peer->process_fd = shm_process_open(fd);
    peer->pid = peer->process_fd < 0 ? shm_process_number(fd, &peer->born) : 0;
    peer->up = true;
    flag_word_publish(&peer->state, SHM_LIVE);
    return GAPLESS_OK;
}

static int client_windows(struct tp *tp, struct gapless_error *error)
{
    size_t count = (size_t)tp->config.peers_max * tp->config.windows_max;

    if (tp->windows != NULL)
        return GAPLESS_OK;
    tp->windows = calloc(count, sizeof *tp->windows);
    if (tp->windows == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for %zu windows", count);
    for (size_t i = 0; i < count; i++)
        tp->windows[i].fd = tp->windows[i].tail = -1;
    for (uint32_t i = 0; i < tp->config.peers_max; i++)
        tp->peers[i].windows = tp->windows + (size_t)i * tp->config.windows_max;
    return GAPLESS_OK;
}

static int client_try(struct tp *tp, uint32_t index, const char *address,
                      const struct sockaddr_un *to, socklen_t bytes, uint64_t deadline,
                      int *ret_os, struct gapless_error *error)
{
    struct shm_packet packet = {0};
    int status;
    int fd = -1;

    status = client_reach(address, to, bytes, &fd, ret_os, error);
    if (status != GAPLESS_OK)
        return status;
    status = client_greet(tp, index, address, fd, deadline, &packet, error);
    if (status != GAPLESS_OK)
        goto close_fd;
    status = client_peer_slot(tp, index, fd, &packet, error);
    shm_packet_close(&packet);
    if (status != GAPLESS_OK)
        goto close_fd;
    return GAPLESS_OK;

close_fd:
    (void)close(fd);
    return status;
}

int shm_connect(struct tp *tp, const char *address, int64_t timeout_ns, tp_peer *ret,
                struct gapless_error *error)
{
    uint64_t start = clock_ns();
    uint64_t deadline = deadline_after(timeout_ns);
    struct sockaddr_un to;
    socklen_t bytes;
    uint32_t index = 0;
    int status;
    int os = 0;

    if (tp->role == SHM_SERVER)
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "an endpoint that listens cannot connect; open another");
    /* A client that connects has seen the TP_DOWN of what was connected before. */
    shm_release_over(tp);
    while (index < tp->config.peers_max &&
           flag_word_read(&tp->peers[index].state) != SHM_FREE)
        index++;
    if (index == tp->config.peers_max)
        return gapless_error_set(error, GAPLESS_CAPACITY, 0,
                                 "this endpoint was opened for %u connections",
                                 (unsigned)tp->config.peers_max);
    status = shm_address(address, &to, &bytes, error);
    if (status == GAPLESS_OK)
        status = client_windows(tp, error);
    if (status != GAPLESS_OK)
        return status;
    tp->role = SHM_CLIENT;
    for (;;) {
        status = client_try(tp, index, address, &to, bytes, deadline, &os, error);
        if (status != GAPLESS_AGAIN)
            break;
        if (clock_ns() >= deadline)
            return gapless_error_set(
                error, GAPLESS_TIMEOUT, os,
                "no master at shm:%.80s in %.1f s; start it, or check name and user (a "
                "container needs the host's network namespace, or a socket path)",
                address, (double)(clock_ns() - start) * 1e-9);
        nap_until(deadline);
    }
    if (status == GAPLESS_OK)
        *ret = index;
    return status;
}

/* ---- windows ------------------------------------------------------------- */

static int window_map(const struct shm_window *granted, struct shm_region *region,
                      struct gapless_error *error)
{
    int status, os;

    if (granted->access != TP_SPLIT)
        return shm_memory_map(granted->fd, region->bytes, granted->access,
                              &region->base, error);
    status = shm_memory_map_two(granted, &region->base, error);
    if (status != GAPLESS_OK)
        return status;
    region->head = (size_t)granted->head;
    region->source = fcntl(granted->fd, F_DUPFD_CLOEXEC, 0);
    if (region->source >= 0)
        return GAPLESS_OK;
    os = errno;
    shm_memory_unmap(region->base, region->bytes);
    return gapless_error_set(error, GAPLESS_SYSTEM, os,
                             "no descriptor is left for a window");
}

int shm_window(struct tp *tp, tp_peer index, uint32_t window, int64_t timeout_ns,
               struct tp_region *ret, struct gapless_error *error)
{
    uint64_t deadline = deadline_after(timeout_ns);
    struct shm_region region = {
        .common.peer = index, .fd = -1, .tail = -1, .source = -1};
    struct shm_window *granted;
    struct shm_peer *peer;
    int status;

    if (tp->role != SHM_CLIENT || index >= tp->config.peers_max ||
        window >= tp->config.windows_max)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "window %u of peer %u: not a client, or out of range",
                                 (unsigned)window, (unsigned)index);
    peer = &tp->peers[index];
    if (!peer->up)
        return gapless_error_set(error, GAPLESS_PEER_LOST, 0,
                                 "the connection to the master is closed");
    granted = &peer->windows[window];
    for (;;) {
        shm_peer_pump(tp, index, (int)tp->mail_count);
        if (granted->fd >= 0)
            break;
        if (peer->gone)
            return gapless_error_set(error, GAPLESS_PEER_LOST, 0,
                                     "the master went away before it granted window %u",
                                     (unsigned)window);
        if (shm_mail_room(tp) == 0)
            return gapless_error_set(
                error, GAPLESS_AGAIN, 0,
                "%u control messages wait: poll, then ask again for "
                "window %u",
                (unsigned)tp->mail_count, (unsigned)window);
        if (clock_ns() >= deadline)
            return gapless_error_set(error, GAPLESS_TIMEOUT, 0,
                                     "the master did not grant window %u in time",
                                     (unsigned)window);
        wait_readable(peer->fd, deadline);
    }
    region.common.access = granted->access;
    region.bytes = (size_t)granted->bytes;
    region.common.generation = peer->generation;
    status = window_map(granted, &region, error);
    if (status != GAPLESS_OK)
        return status;
    status = shm_region_add(tp, &region, ret, error);
    if (status != GAPLESS_OK) {
        shm_memory_unmap(region.base, region.bytes);
        shm_close_fd(&region.source);
    }
    return status;
}
