/* NCCL's abort, which may wait for what does not come: in a thread of its own, with a
 * bound. */
#include "gpu/group.h"

#include "engine/base/clock.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

/* Two have it, the thread and the one who waits; the last to leave frees it. */
struct ending {
    const struct nccl *nccl;
    nccl_comm comm;
    pthread_mutex_t mutex;
    pthread_cond_t over;
    bool done, alone; /* guarded; alone: the other one has left */
};

static void free_ending(struct ending *ending)
{
    (void)pthread_cond_destroy(&ending->over);
    (void)pthread_mutex_destroy(&ending->mutex);
    free(ending);
}

/* With the mutex held, which it gives back. */
static void leave_ending(struct ending *ending)
{
    bool last = ending->alone;

    ending->alone = true;
    (void)pthread_mutex_unlock(&ending->mutex);
    if (last)
        free_ending(ending);
}

static void *abort_comm(void *context)
{
    struct ending *ending = context;

    (void)ending->nccl->CommAbort(ending->comm);
    (void)pthread_mutex_lock(&ending->mutex);
    ending->done = true;
    (void)pthread_cond_signal(&ending->over);
    leave_ending(ending);
    return NULL;
}

static struct ending *new_ending(const struct nccl *nccl, nccl_comm comm)
{
    struct ending *ret = calloc(1, sizeof *ret);
    pthread_condattr_t clock;

    if (ret == NULL)
        return NULL;
    ret->nccl = nccl;
    ret->comm = comm;
    (void)pthread_mutex_init(&ret->mutex, NULL);
    (void)pthread_condattr_init(&clock);
    (void)pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&ret->over, &clock);
    (void)pthread_condattr_destroy(&clock);
    return ret;
}

static bool start_thread(struct ending *ending)
{
    pthread_attr_t attributes;
    pthread_t thread;
    int code;

    (void)pthread_attr_init(&attributes);
    (void)pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    code = pthread_create(&thread, &attributes, abort_comm, ending);
    (void)pthread_attr_destroy(&attributes);
    return code == 0;
}

bool group_end_now(const struct nccl *nccl, nccl_comm comm, int64_t timeout_ns)
{
    struct ending *ending = new_ending(nccl, comm);
    struct timespec end;
    bool ret;

    if (ending == NULL)
        return false;
    end = clock_after(timeout_ns);
    if (!start_thread(ending)) {
        free_ending(ending);
        return false;
    }
    (void)pthread_mutex_lock(&ending->mutex);
    while (!ending->done &&
           pthread_cond_timedwait(&ending->over, &ending->mutex, &end) != ETIMEDOUT)
        ;
    ret = ending->done;
    leave_ending(ending);
    return ret;
}
