/* A server whose regions are partly in memory of accelerators that this process cannot
 * touch, and a client that may have such memory too. The functions fail the test. */
#ifndef GAPLESS_TESTS_VERBS_PLACED_H
#define GAPLESS_TESTS_VERBS_PLACED_H

#include "tests/verbs/bed.h"

#define TWO "10.1.1.1:7471,10.1.2.1:7471"

/* Memory of an accelerator: `base` is its address, where a load or store ends the
 * program; `look` are the same bytes for the test. */
struct accel {
    char *base, *look;
    size_t bytes;
    int fd;
};
void accel_take(struct accel *ret, size_t bytes);
void accel_give(struct accel *gpu);
/* [at, at + bytes) of it, as it is placed. */
struct tp_memory accel_memory(const struct accel *gpu, size_t at, size_t bytes);

/* A slot as the master has it, after the server listens and before anybody came:
 *
 *   0      PAGE                 PAGE + SENT  2 PAGE + SENT            SLOT_BYTES
 *   | head | sent: gpu[0]       || push      | grad: gpu[1]           |
 *                               split
 */
#define SENT_BYTES (3 * PAGE + 20)
#define GRAD_BYTES (5 * PAGE + 4)
#define SLOT_SPLIT (PAGE + SENT_BYTES)
#define GRAD_AT (SLOT_SPLIT + PAGE)
#define SLOT_BYTES (GRAD_AT + GRAD_BYTES)
struct slot {
    struct bed bed;
    struct accel gpu[2];
};
/* Listens at the address, places, and (if join) connects and grants. */
void placed_open(struct slot *ret, const char *address, bool join);
void placed_join(struct slot *slot, const char *address);
/* The client puts all it may and gets all it may; both arrive, in one note. */
void placed_works(struct slot *slot, unsigned seed);
void placed_end(struct slot *slot);

void placed_fill(void *at, size_t bytes, unsigned seed);
bool placed_filled(const void *at, size_t bytes, unsigned seed);
/* A put or get is done: 1 is waited for at the client. */
void placed_move(struct bed_end *client, int status, uint32_t note);

#endif
