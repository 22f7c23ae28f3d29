/* Group: threads of this process that work in step as ranks 0 to size - 1, one for each
 * GPU of a worker. Who does what when, and what happens if one of them cannot; nothing
 * of GPUs or NCCL is in here.
 *
 *     rank 0 (the caller)   group_run ──┬── fn(0) ──┬── back ── pull, push, ... ──
 *     rank 1                            ├── fn(1) ──┤
 *     rank 2                            └── fn(2) ──┘
 *
 * What ranks do in fn may wait for one another (they average gradients there). So when
 * one fails, the abort that was given at the start is called for every rank, which must
 * make such waits end; then all come back, and group_run says which rank failed, and
 * why. A rank that only says that others failed (GAPLESS_PEER_LOST) or did not come
 * (GAPLESS_TIMEOUT) is not the one that is named if another knows better.
 *
 * After a failure nothing more is run but what group_run_last is given: leaving. A
 * thread that does not come back even then is given up after a bound, see group_close.
 */
#ifndef CLUSTER_GROUP_H
#define CLUSTER_GROUP_H

#include <gapless/status.h>

#include <stdbool.h>
#include <stdint.h>

#define GROUP_MAX 16u

struct group;

/* What a rank does; an error's text says what and why, it need not name the rank. */
typedef int group_fn(void *context, uint32_t rank, const void *argument,
                     struct gapless_error *error);

struct group_config {
    uint32_t size; /* 1 to GROUP_MAX */
    void *context;
    /* Ends what a rank is waiting for, now and from now on. Called once for each rank,
     * from the thread of any. */
    void (*abort)(void *context, uint32_t rank);
    int64_t peer_wait_ns;  /* for the others, when one rank is back */
    int64_t abort_wait_ns; /* for them to come back after an abort */
};

/* Starts size - 1 threads. GAPLESS_NO_MEMORY, GAPLESS_SYSTEM. */
int group_open(const struct group_config *config, struct group **ret,
               struct gapless_error *error);
/* Every rank runs fn, the caller as rank 0; returns when all are back. The failure of a
 * rank: its error with "rank R of N: " before the text where N > 1, and its status, but
 * never GAPLESS_PEER_LOST, which is for a lost master: that becomes GAPLESS_SYSTEM. */
int group_run(struct group *group, group_fn *fn, const void *argument,
              struct gapless_error *error);
/* The same also after a failure, in every rank that is still there; what fails here is
 * not reported. For closing. False: a rank did not come back. */
bool group_run_last(struct group *group, group_fn *fn, const void *argument);
/* Which rank failed first of its own; size: none did. */
uint32_t group_first_failed(const struct group *group);
/* Ends the threads. NULL is a no-op. False: a thread does not end, which is said in
 * *error; what it uses was not freed, and the process had better end. */
bool group_close(struct group *group, struct gapless_error *error);

/* The part of a batch of `count` samples that a rank takes: *ret_from on, this many; as
 * even as can be. 0: more ranks than samples. */
uint32_t group_share(uint32_t count, uint32_t rank, uint32_t size, uint32_t *ret_from);

#endif
