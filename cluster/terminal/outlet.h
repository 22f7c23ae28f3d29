/* Text for a terminal, a pipe or a file, written without ever waiting for its reader: a
 * terminal that is stopped (Ctrl-S), an ssh that hangs, a pager that is not scrolled. What
 * does not fit at once waits here, whole, until there is room.
 *
 *     outlet_write   a picture: all of it, or nothing while an earlier one still waits
 *     outlet_add     a line: behind what waits, as long as there is room
 *
 * A terminal or pipe is opened a second time, so that "do not block" holds for this process
 * alone: the mode belongs to what was opened, which a shell and others share. Where that is
 * not allowed (the terminal of another user, a socket), the mode is set for each write and
 * put back at once.
 */
#ifndef CLUSTER_OUTLET_H
#define CLUSTER_OUTLET_H

#include "cluster/terminal/canvas.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define OUTLET_BYTES (CANVAS_BYTES + 4096) /* a picture, and some lines */

struct outlet {
    bool open;
    int fd;
    int flags; /* of a descriptor that is shared, to be put back; -1: it is our own */
    size_t used, sent;
    char text[OUTLET_BYTES];
};

/* `fd`: STDOUT_FILENO or STDERR_FILENO. All 0 is an outlet that is not open; one that is
 * stays as it is. Closed with the process. */
void outlet_open(struct outlet *outlet, int fd);
/* False: nothing was taken. */
bool outlet_write(struct outlet *outlet, const char *text, size_t bytes);
bool outlet_add(struct outlet *outlet, const char *text, size_t bytes);
/* Waits at most so long for all to be written. True: it is. */
bool outlet_flush(struct outlet *outlet, int wait_ms);
/* One write that does not wait, past what waits; as write(2). For signal handlers, too. */
ssize_t outlet_now(const struct outlet *outlet, const char *text, size_t bytes);

#endif
