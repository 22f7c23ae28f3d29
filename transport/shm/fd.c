/* Shared memory transport: descriptors. Memory without a name, Unix sockets, frames. */
#include "transport/shm/shm.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Linux 6.3: memory that no one may execute. Where the administrator demands it, a
 * memfd without it is refused; where the kernel is older, one with it is. */
#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

void shm_close_fd(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}

/* ---- memory -------------------------------------------------------------- */

/* Takes the pages now: a machine without memory says so here, and not by SIGBUS in the
 * middle of a run. In steps, since a signal undoes the step it interrupts. */
static int memory_fill(int fd, size_t bytes)
{
    const size_t step_max = (size_t)16 << 20;

    for (size_t at = 0; at < bytes; at += step_max) {
        size_t step = bytes - at < step_max ? bytes - at : step_max;
        int tries = 100;

        while (fallocate(fd, 0, (off_t)at, (off_t)step) != 0) {
            if (errno != EINTR || --tries == 0)
                return errno;
        }
    }
    return 0;
}

static void *memory_place(int fd, size_t bytes, int protection)
{
    return mmap(NULL, bytes, protection, MAP_SHARED | MAP_POPULATE, fd, 0);
}

int shm_memory_new(const char *name, size_t bytes, int *ret_fd, void **ret_base,
                   struct gapless_error *error)
{
    void *base;
    int status;
    int os;
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);

    if (fd < 0 && errno == EINVAL)
        fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) {
        os = errno;
        return gapless_error_set(
            error, GAPLESS_SYSTEM, os,
            "cannot create shared memory (%s); if descriptors have "
            "run out, raise the limit: ulimit -n",
            name);
    }
    os = ftruncate(fd, (off_t)bytes) != 0 ? errno : memory_fill(fd, bytes);
    if (os != 0) {
        status = gapless_error_set(error, GAPLESS_NO_MEMORY, os,
                                   "cannot get %zu bytes of shared memory (%s); the "
                                   "machine or the container's limit is too small",
                                   bytes, name);
        goto close_fd;
    }
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0) {
        os = errno;
        status = gapless_error_set(error, GAPLESS_SYSTEM, os,
                                   "cannot seal shared memory (%s)", name);
        goto close_fd;
    }
    base = memory_place(fd, bytes, PROT_READ | PROT_WRITE);
    if (base == MAP_FAILED) {
        os = errno;
        status = gapless_error_set(error, GAPLESS_NO_MEMORY, os,
                                   "cannot map %zu bytes of shared memory (%s)", bytes,
                                   name);
        goto close_fd;
    }
    *ret_fd = fd;
    *ret_base = base;
    return GAPLESS_OK;

close_fd:
    (void)close(fd);
    return status;
}

/* Memory that its owner can cut off is a SIGBUS waiting to happen. */
static int memory_check(int fd, size_t bytes, struct gapless_error *error)
{
    struct stat stat;
    int seals = fcntl(fd, F_GET_SEALS);

    if (seals >= 0 && (seals & F_SEAL_SHRINK) != 0 && fstat(fd, &stat) == 0 &&
        (uint64_t)stat.st_size >= bytes)
        return GAPLESS_OK;
    return gapless_error_set(error, GAPLESS_PROTOCOL, 0,
                             "the peer handed over memory that is not sealed or not "
                             "%zu bytes long",
                             bytes);
}

int shm_memory_map(int fd, size_t bytes, enum tp_access access, void **ret,
                   struct gapless_error *error)
{
    int protection = access == TP_READ ? PROT_READ : PROT_READ | PROT_WRITE;
    int status = memory_check(fd, bytes, error), os;
    void *base;

    if (status != GAPLESS_OK)
        return status;
    base = memory_place(fd, bytes, protection);
    if (base == MAP_FAILED) {
        os = errno;
        return gapless_error_set(error, GAPLESS_NO_MEMORY, os,
                                 "cannot map %zu bytes of shared memory", bytes);
    }
    *ret = base;
    return GAPLESS_OK;
}

void shm_memory_unmap(void *base, size_t bytes)
{
    if (base != NULL)
        (void)munmap(base, bytes);
}

int shm_memory_split(int fd, void *base, size_t bytes, size_t head, int *ret_tail,
                     struct gapless_error *error)
{
    char *at = (char *)base + head;
    void *second = NULL;
    int tail = -1, os;
    int status = shm_memory_new("gapless-split", bytes - head, &tail, &second, error);

    if (status != GAPLESS_OK || second == NULL)
        return status;
    memcpy(second, at, bytes - head);
    (void)munmap(second, bytes - head);
    if (mmap(at, bytes - head, PROT_READ | PROT_WRITE,
             MAP_SHARED | MAP_FIXED | MAP_POPULATE, tail, 0) == MAP_FAILED) {
        os = errno;
        (void)close(tail);
        return gapless_error_set(error, GAPLESS_NO_MEMORY, os,
                                 "cannot map %zu bytes of shared memory", bytes - head);
    }
    /* Nobody sees these pages of the first any more. */
    (void)fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)head,
                    (off_t)(bytes - head));
    *ret_tail = tail;
    return GAPLESS_OK;
}

/* Maps a part into a place that is ours. */
static bool memory_put(void *base, size_t at, size_t bytes, int protection, int fd)
{
    return mmap((char *)base + at, bytes, protection,
                MAP_SHARED | MAP_FIXED | MAP_POPULATE, fd, 0) != MAP_FAILED;
}

int shm_memory_map_two(const struct shm_window *window, void **ret,
                       struct gapless_error *error)
{
    size_t bytes = (size_t)window->bytes, head = (size_t)window->head;
    int status = memory_check(window->fd, head, error), os;
    void *base;

    if (status == GAPLESS_OK)
        status = memory_check(window->tail, bytes - head, error);
    if (status != GAPLESS_OK)
        return status;
    base = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                0);
    if (base == MAP_FAILED || !memory_put(base, 0, head, PROT_READ, window->fd) ||
        !memory_put(base, head, bytes - head, PROT_READ | PROT_WRITE, window->tail)) {
        os = errno;
        if (base != MAP_FAILED)
            (void)munmap(base, bytes);
        return gapless_error_set(error, GAPLESS_NO_MEMORY, os,
                                 "cannot map %zu bytes of shared memory", bytes);
    }
    *ret = base;
    return GAPLESS_OK;
}

int shm_memory_private(int fd, void *base, size_t at, size_t bytes)
{
    return mmap((char *)base + at, bytes, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_FIXED, fd, (off_t)at) == MAP_FAILED
               ? errno
               : 0;
}

int shm_memory_forget(void *base, size_t at, size_t bytes)
{
    return madvise((char *)base + at, bytes, MADV_DONTNEED) != 0 ? errno : 0;
}

/* F_SEAL_FUTURE_WRITE leaves our writable mapping alone and forbids every later one. A
 * descriptor opened for reading would not do: its holder can open /proc/self/fd/N for
 * writing. F_SEAL_SEAL, so that no peer can add a seal that spoils the next grant. */
int shm_memory_seal(int fd, enum tp_access access)
{
    int seals = access == TP_READ ? F_SEAL_FUTURE_WRITE | F_SEAL_SEAL : F_SEAL_SEAL;

    return fcntl(fd, F_ADD_SEALS, seals) != 0 ? errno : 0;
}

/* ---- addresses ----------------------------------------------------------- */

int shm_address(const char *address, struct sockaddr_un *ret, socklen_t *ret_bytes,
                struct gapless_error *error)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int used;

    if (address == NULL || address[0] == '\0')
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "the address is empty; give a name (shm:run1) or an "
                                 "absolute path (shm:/tmp/run1.sock)");
    if (address[0] == '/') {
        if (strlen(address) >= sizeof to.sun_path)
            return gapless_error_set(
                error, GAPLESS_INVALID, 0,
                "the socket path is longer than %zu bytes: %.80s...",
                sizeof to.sun_path - 1, address);
        memcpy(to.sun_path, address, strlen(address));
        *ret_bytes = sizeof to;
    } else {
        if (strchr(address, '/') != NULL)
            return gapless_error_set(error, GAPLESS_INVALID, 0,
                                     "shm:%.80s is neither a name (no '/') nor an "
                                     "absolute path",
                                     address);
        /* Abstract: the first byte is 0 and the length is part of the name. */
        used = snprintf(to.sun_path + 1, sizeof to.sun_path - 1, "gapless-%u-%s",
                        (unsigned)geteuid(), address);
        if (used < 0 || (size_t)used >= sizeof to.sun_path - 1)
            return gapless_error_set(error, GAPLESS_INVALID, 0,
                                     "the name is too long: shm:%.80s...", address);
        *ret_bytes =
            (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)used);
    }
    *ret = to;
    return GAPLESS_OK;
}

/* Removes a socket file that no server listens on any more. True: try to bind again. */
static bool address_reclaim(const struct sockaddr_un *to, socklen_t bytes)
{
    struct stat before;
    struct stat after;
    bool refused;
    int fd;

    if (lstat(to->sun_path, &before) != 0)
        return errno == ENOENT;
    if (!S_ISSOCK(before.st_mode))
        return false;
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return false;
    refused =
        connect(fd, (const struct sockaddr *)to, bytes) != 0 && errno == ECONNREFUSED;
    (void)close(fd);
    if (!refused || lstat(to->sun_path, &after) != 0 || before.st_ino != after.st_ino)
        return false;
    return unlink(to->sun_path) == 0;
}

static int listen_bind(int fd, const char *address, const struct sockaddr_un *to,
                       socklen_t bytes, struct gapless_error *error)
{
    int os;

    for (int tries = 0; tries < 3; tries++) {
        if (bind(fd, (const struct sockaddr *)to, bytes) == 0)
            return GAPLESS_OK;
        os = errno;
        if (os != EADDRINUSE)
            return gapless_error_set(error, GAPLESS_SYSTEM, os,
                                     "cannot listen on shm:%s", address);
        if (address[0] != '/' || !address_reclaim(to, bytes))
            break;
    }
    if (address[0] == '/')
        return gapless_error_set(error, GAPLESS_SYSTEM, EADDRINUSE,
                                 "another process listens on shm:%s, or it is a file; "
                                 "stop that process or choose another path",
                                 address);
    return gapless_error_set(error, GAPLESS_SYSTEM, EADDRINUSE,
                             "another master listens on shm:%s; stop it or choose "
                             "another name",
                             address);
}

int shm_listen_socket(const char *address, struct sockaddr_un *ret_address,
                      uint64_t *ret_inode, int *ret_fd, struct gapless_error *error)
{
    struct sockaddr_un to;
    struct stat stat = {0};
    socklen_t bytes = 0;
    int status;
    int os;
    int fd;

    status = shm_address(address, &to, &bytes, error);
    if (status != GAPLESS_OK)
        return status;
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        os = errno;
        return gapless_error_set(error, GAPLESS_SYSTEM, os, "cannot create a socket");
    }
    /* The mode of the socket becomes that of the file, from its first instant. */
    (void)fchmod(fd, S_IRUSR | S_IWUSR);
    status = listen_bind(fd, address, &to, bytes, error);
    if (status != GAPLESS_OK)
        goto close_fd;
    if (listen(fd, SOMAXCONN) != 0) {
        os = errno;
        status = gapless_error_set(error, GAPLESS_SYSTEM, os, "cannot listen on shm:%s",
                                   address);
        goto unlink_path;
    }
    if (address[0] == '/' && lstat(to.sun_path, &stat) == 0)
        *ret_inode = stat.st_ino;
    *ret_address = to;
    *ret_fd = fd;
    return GAPLESS_OK;

unlink_path:
    if (address[0] == '/')
        (void)unlink(to.sun_path);
close_fd:
    (void)close(fd);
    return status;
}

bool shm_trusted(int fd)
{
    struct ucred them;
    socklen_t bytes = sizeof them;

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &them, &bytes) != 0)
        return false;
    return them.uid == geteuid() || them.uid == 0;
}

int shm_process_open(int fd)
{
    struct ucred them;
    socklen_t bytes = sizeof them;

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &them, &bytes) != 0 || them.pid <= 0)
        return -1;
    return (int)syscall(SYS_pidfd_open, them.pid, 0);
}

/* Of /proc/PID/stat, behind the name, which may hold anything: a letter for its state, and in
 * the 20th field from there when it was started. 0: no process, or nobody reaps it. */
static uint64_t process_born(int32_t pid)
{
    char path[40], text[1024];
    char *at, *word, *rest = NULL;
    ssize_t bytes;
    int fd;

    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    bytes = read(fd, text, sizeof text - 1);
    (void)close(fd);
    if (bytes <= 0)
        return 0;
    text[bytes] = '\0';
    at = strrchr(text, ')');
    word = at == NULL ? NULL : strtok_r(at + 1, " ", &rest);
    if (word == NULL || word[0] == 'Z' || word[0] == 'X')
        return 0;
    for (int field = 1; word != NULL && field < 20; field++)
        word = strtok_r(NULL, " ", &rest);
    return word == NULL ? 0 : strtoull(word, NULL, 10);
}

int32_t shm_process_number(int fd, uint64_t *ret_born)
{
    struct ucred them;
    socklen_t bytes = sizeof them;

    *ret_born = 0;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &them, &bytes) != 0 || them.pid <= 0)
        return 0;
    *ret_born = process_born(them.pid);
    return them.pid;
}

bool shm_process_ended(int32_t pid, uint64_t born)
{
    if (pid <= 0)
        return false;
    if (born != 0)
        return process_born(pid) != born;
    return kill(pid, 0) != 0 && errno == ESRCH;
}

/* ---- frames -------------------------------------------------------------- */

/* Room for the descriptors of one frame, aligned as the kernel wants it. */
union frame_space {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(sizeof(int) * SHM_FDS)];
};

struct shm_frame shm_frame(enum shm_frame_kind kind, uint32_t a, uint32_t b)
{
    return (struct shm_frame){
        .magic = SHM_MAGIC,
        .protocol = SHM_PROTOCOL,
        .kind = (uint16_t)kind,
        .a = a,
        .b = b,
    };
}

int shm_frame_send(int fd, const struct shm_frame *head, const void *data,
                   uint32_t bytes, const int *fds, int fd_count)
{
    union frame_space space = {.bytes = {0}};
    struct shm_frame copy = *head;
    struct iovec parts[2] = {
        {.iov_base = &copy, .iov_len = sizeof copy},
        /* sendmsg only reads, but its structure has no const. */
        {.iov_base = (void *)(uintptr_t)data, .iov_len = bytes},
    };
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = bytes != 0 ? 2 : 1};

    if (fd_count > 0) {
        size_t fd_bytes = sizeof(int) * (size_t)fd_count;

        message.msg_control = space.bytes;
        message.msg_controllen = CMSG_SPACE(fd_bytes);
        space.align.cmsg_level = SOL_SOCKET;
        space.align.cmsg_type = SCM_RIGHTS;
        space.align.cmsg_len = CMSG_LEN(fd_bytes);
        memcpy(CMSG_DATA(&space.align), fds, fd_bytes);
    }
    while (sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
        switch (errno) {
        case EINTR:
            break;
        case EAGAIN:
            return GAPLESS_AGAIN;
        case EPIPE:
        case ECONNRESET:
        case ENOTCONN:
            return GAPLESS_PEER_LOST;
        default:
            return GAPLESS_SYSTEM;
        }
    }
    return GAPLESS_OK;
}

static void packet_take_fds(struct shm_packet *packet, struct msghdr *message)
{
    struct cmsghdr *header = CMSG_FIRSTHDR(message);

    packet->fd_count = 0;
    if (header == NULL || header->cmsg_level != SOL_SOCKET ||
        header->cmsg_type != SCM_RIGHTS || header->cmsg_len <= CMSG_LEN(0))
        return;
    packet->fd_count = (int)((header->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    memcpy(packet->fds, CMSG_DATA(header), sizeof(int) * (size_t)packet->fd_count);
}

void shm_packet_close(struct shm_packet *packet)
{
    while (packet->fd_count > 0)
        (void)close(packet->fds[--packet->fd_count]);
}

int shm_frame_receive(int fd, struct shm_packet *ret, void *data, uint32_t bytes_max)
{
    union frame_space space = {.bytes = {0}};
    struct shm_packet packet = {.fd_count = 0};
    struct iovec parts[2] = {
        {.iov_base = &packet.head, .iov_len = sizeof packet.head},
        {.iov_base = data, .iov_len = bytes_max},
    };
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
    ssize_t got;

    /* A peer that closes with unread frames of ours makes the kernel report ECONNRESET
     * once; its own frames are still there behind it. */
    for (int resets = 0;;) {
        message.msg_control = space.bytes;
        message.msg_controllen = sizeof space.bytes;
        got = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        if (got >= 0)
            break;
        if (errno == EAGAIN)
            return GAPLESS_AGAIN;
        if (errno == EINTR)
            continue;
        if (errno != ECONNRESET || ++resets > 1)
            return GAPLESS_PEER_LOST;
    }
    if (got == 0)
        return GAPLESS_PEER_LOST;
    packet_take_fds(&packet, &message);
    if ((size_t)got < sizeof packet.head || packet.head.magic != SHM_MAGIC ||
        (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
        shm_packet_close(&packet);
        return GAPLESS_PROTOCOL;
    }
    packet.bytes = (uint32_t)((size_t)got - sizeof packet.head);
    *ret = packet;
    return GAPLESS_OK;
}
