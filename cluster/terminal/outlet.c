/* Writing without waiting. */
#include "cluster/terminal/outlet.h"

#include "engine/base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOOK_MS 50 /* between two looks at a terminal that is stopped */

void outlet_open(struct outlet *outlet, int fd)
{
    char path[32];
    struct stat is;

    if (outlet->open)
        return;
    outlet->open = true;
    outlet->used = outlet->sent = 0;
    outlet->fd = outlet->flags = -1;
    if (fstat(fd, &is) != 0)
        return;
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (S_ISCHR(is.st_mode) || S_ISFIFO(is.st_mode))
        outlet->fd = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (outlet->fd >= 0)
        return;
    outlet->fd = fd;
    if (!S_ISREG(is.st_mode)) /* a file never makes its writer wait for a reader */
        outlet->flags = fcntl(fd, F_GETFL);
}

ssize_t outlet_now(const struct outlet *outlet, const char *text, size_t bytes)
{
    ssize_t done;
    int os;

    if (outlet->flags < 0)
        return write(outlet->fd, text, bytes);
    if (fcntl(outlet->fd, F_SETFL, outlet->flags | O_NONBLOCK) != 0)
        return -1;
    done = write(outlet->fd, text, bytes);
    os = errno;
    (void)fcntl(outlet->fd, F_SETFL, outlet->flags);
    errno = os;
    return done;
}

/* Writes what waits, as far as it goes. */
static void send_waiting(struct outlet *outlet)
{
    while (outlet->sent < outlet->used) {
        ssize_t done = outlet_now(outlet, outlet->text + outlet->sent,
                                  outlet->used - outlet->sent);

        if (done > 0)
            outlet->sent += (size_t)done;
        else if (done < 0 && errno == EAGAIN)
            return;
        else if (done == 0 || errno != EINTR)
            break; /* there is no reader any more */
    }
    outlet->used = outlet->sent = 0;
}

bool outlet_write(struct outlet *outlet, const char *text, size_t bytes)
{
    send_waiting(outlet);
    return outlet->used == 0 && outlet_add(outlet, text, bytes);
}

bool outlet_add(struct outlet *outlet, const char *text, size_t bytes)
{
    size_t waiting = outlet->used - outlet->sent;

    if (bytes > sizeof outlet->text - waiting)
        return false;
    memmove(outlet->text, outlet->text + outlet->sent, waiting);
    memcpy(outlet->text + waiting, text, bytes);
    outlet->sent = 0;
    outlet->used = waiting + bytes;
    send_waiting(outlet);
    return true;
}

bool outlet_flush(struct outlet *outlet, int wait_ms)
{
    uint64_t end = clock_ns() + (uint64_t)wait_ms * 1000000;

    for (send_waiting(outlet); outlet->used > 0; send_waiting(outlet)) {
        struct pollfd room = {outlet->fd, POLLOUT, 0};

        if (clock_ns() >= end)
            return false;
        (void)poll(&room, 1, LOOK_MS);
    }
    return true;
}
