/* Which process is this, without a system call: objects belong to the process that opened
 * them, and a child that it forked must not use their sockets, cards and threads. */
#ifndef GAPLESS_PROCESS_H
#define GAPLESS_PROCESS_H

#include <gapless/status.h>

#include <stdbool.h>
#include <stdint.h>

/* The number of this process. */
uint32_t process_number(void);

static inline bool process_is(uint32_t owner)
{
    return process_number() == owner;
}

/* GAPLESS_OK, or GAPLESS_INVALID in another process than `owner`. `what`: "this worker". */
int process_check(uint32_t owner, const char *what, struct gapless_error *error);

#endif
