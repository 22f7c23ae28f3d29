/* Ranks in step: one lock, one condition for those who wait for work and one for the
 * rank that waits for them. */
#include "cluster/gpus/ranks.h"

#include "engine/base/clock.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct group_rank {
    struct group *group;
    uint32_t number;
    pthread_t thread;
    bool started, busy, ended;
    int status; /* of its last run */
    struct gapless_error error;
};

struct group {
    struct group_config config;
    pthread_mutex_t mutex;
    pthread_cond_t work, back;
    group_fn *fn; /* of the turn */
    const void *argument;
    uint64_t step; /* counts the runs */
    bool leave;    /* the threads shall end */
    bool aborted, failed;
    uint32_t first_failed;
    struct gapless_error failure;
    struct group_rank rank[GROUP_MAX];
};

/* ---- failures ------------------------------------------------------------ */

/* With the lock held; gives it back while it aborts, for a thread that is to be woken may
 * need it first. */
static void abort_all(struct group *group)
{
    bool first = !group->aborted;

    group->aborted = true;
    if (!first || group->config.abort == NULL)
        return;
    (void)pthread_mutex_unlock(&group->mutex);
    for (uint32_t r = 0; r < group->config.size; r++)
        group->config.abort(group->config.context, r);
    (void)pthread_mutex_lock(&group->mutex);
}

static bool second_hand(int status)
{
    return status == GAPLESS_PEER_LOST || status == GAPLESS_TIMEOUT;
}

/* Keeps why a rank failed: the first, but one's own reason before what is said of
 * others. */
static void keep(struct group *group, uint32_t rank, const struct gapless_error *error)
{
    if (group->failed &&
        (!second_hand(group->failure.status) || second_hand(error->status)))
        return;
    group->failed = true;
    group->first_failed = rank;
    group->failure = *error;
}

static void came_back(struct group_rank *rank, int status,
                      const struct gapless_error *error)
{
    struct group *group = rank->group;
    struct gapless_error reason = *error;

    rank->status = status;
    if (status == GAPLESS_OK)
        return;
    if (reason.status != status)
        (void)gapless_error_set(&reason, status, 0, "%s", gapless_strerror(status));
    keep(group, rank->number, &reason);
    abort_all(group);
}

static int tell(const struct group *group, struct gapless_error *error)
{
    const struct gapless_error *reason = &group->failure;
    int status = reason->status == GAPLESS_PEER_LOST ? GAPLESS_SYSTEM : reason->status;
    bool named = strncmp(reason->text, "rank ", 5) == 0; /* NCCL's side has done so */

    if (group->config.size == 1 || named)
        return gapless_error_set(error, status, 0, "%s", reason->text);
    return gapless_error_set(error, status, 0, "rank %u of %u: %.440s",
                             group->first_failed, group->config.size, reason->text);
}

/* ---- the threads --------------------------------------------------------- */

static void run_one(struct group_rank *rank, group_fn *fn, const void *argument)
{
    struct group *group = rank->group;
    struct gapless_error error = {0};
    int status = fn(group->config.context, rank->number, argument, &error);

    (void)pthread_mutex_lock(&group->mutex);
    came_back(rank, status, &error);
    rank->busy = false;
    (void)pthread_cond_broadcast(&group->back);
    (void)pthread_mutex_unlock(&group->mutex);
}

static void *follow(void *context)
{
    struct group_rank *rank = context;
    struct group *group = rank->group;
    uint64_t done = 0;

    (void)pthread_mutex_lock(&group->mutex);
    for (;;) {
        group_fn *fn;
        const void *argument;

        /* No bound: it waits for its own process, whose end ends it, too. */
        while (group->step == done && !group->leave)
            (void)pthread_cond_wait(&group->work, &group->mutex);
        if (group->step == done)
            break;
        done = group->step;
        fn = group->fn;
        argument = group->argument;
        (void)pthread_mutex_unlock(&group->mutex);
        run_one(rank, fn, argument);
        (void)pthread_mutex_lock(&group->mutex);
    }
    rank->ended = true;
    (void)pthread_cond_broadcast(&group->back);
    (void)pthread_mutex_unlock(&group->mutex);
    return NULL;
}

/* A rank that is still out; size: all are back. */
static uint32_t missing(const struct group *group, bool threads)
{
    for (uint32_t r = 1; r < group->config.size; r++) {
        const struct group_rank *rank = &group->rank[r];

        if (rank->started && !rank->ended && (threads || rank->busy))
            return r;
    }
    return group->config.size;
}

/* With the lock held. Until all are back, or have ended (threads), or the time is
 * up. */
static uint32_t await(struct group *group, bool threads, int64_t ns, bool until_failure)
{
    struct timespec end = clock_after(ns);
    uint32_t out;
    int code = 0;

    while ((out = missing(group, threads)) < group->config.size && code != ETIMEDOUT &&
           !(until_failure && group->failed))
        code = pthread_cond_timedwait(&group->back, &group->mutex, &end);
    return out;
}

/* ---- runs ---------------------------------------------------------------- */

static void begin(struct group *group, group_fn *fn, const void *argument)
{
    (void)pthread_mutex_lock(&group->mutex);
    group->fn = fn;
    group->argument = argument;
    group->step++;
    for (uint32_t r = 1; r < group->config.size; r++)
        group->rank[r].busy = true;
    (void)pthread_cond_broadcast(&group->work);
    (void)pthread_mutex_unlock(&group->mutex);
    run_one(&group->rank[0], fn, argument);
}

/* With the lock held: a rank that takes much longer than rank 0 has failed, too. */
static void wait_for_others(struct group *group)
{
    uint32_t out = await(group, false, group->config.peer_wait_ns, true);
    struct gapless_error reason;

    if (out < group->config.size && !group->failed) {
        (void)gapless_error_set(&reason, GAPLESS_TIMEOUT, 0,
                                "it did not finish within %.3g s of rank 0",
                                1e-9 * (double)group->config.peer_wait_ns);
        keep(group, out, &reason);
        abort_all(group);
    }
    if (group->failed)
        (void)await(group, false, group->config.abort_wait_ns, false);
}

int group_run(struct group *group, group_fn *fn, const void *argument,
              struct gapless_error *error)
{
    int status = GAPLESS_OK;
    bool run;

    (void)pthread_mutex_lock(&group->mutex);
    run = !group->failed;
    (void)pthread_mutex_unlock(&group->mutex);
    if (run)
        begin(group, fn, argument);
    (void)pthread_mutex_lock(&group->mutex);
    if (run)
        wait_for_others(group);
    if (group->failed)
        status = tell(group, error);
    (void)pthread_mutex_unlock(&group->mutex);
    return status;
}

bool group_run_last(struct group *group, group_fn *fn, const void *argument)
{
    bool all;

    (void)pthread_mutex_lock(&group->mutex);
    all = missing(group, false) == group->config.size;
    (void)pthread_mutex_unlock(&group->mutex);
    if (!all) /* one that is stuck holds on to what the others share */
        return false;
    begin(group, fn, argument);
    (void)pthread_mutex_lock(&group->mutex);
    all = await(group, false, group->config.abort_wait_ns, false) == group->config.size;
    (void)pthread_mutex_unlock(&group->mutex);
    return all;
}

uint32_t group_first_failed(const struct group *group)
{
    return group->failed ? group->first_failed : group->config.size;
}

/* ---- open, close --------------------------------------------------------- */

static int prepare(struct group *group)
{
    pthread_condattr_t clock;
    bool good = pthread_condattr_init(&clock) == 0;

    good = good && pthread_condattr_setclock(&clock, CLOCK_MONOTONIC) == 0 &&
           pthread_mutex_init(&group->mutex, NULL) == 0 &&
           pthread_cond_init(&group->work, &clock) == 0 &&
           pthread_cond_init(&group->back, &clock) == 0;
    (void)pthread_condattr_destroy(&clock);
    return good ? GAPLESS_OK : GAPLESS_NO_MEMORY;
}

int group_open(const struct group_config *config, struct group **ret,
               struct gapless_error *error)
{
    struct group *group;
    int code = 0;

    if (config->size == 0 || config->size > GROUP_MAX)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "a group has 1 to %u ranks, not %u", GROUP_MAX,
                                 config->size);
    group = calloc(1, sizeof *group);
    if (group == NULL || prepare(group) != GAPLESS_OK) {
        free(group);
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for a group");
    }
    group->config = *config;
    for (uint32_t r = 0; r < config->size && code == 0; r++) {
        group->rank[r].group = group;
        group->rank[r].number = r;
        if (r == 0)
            continue;
        code = pthread_create(&group->rank[r].thread, NULL, follow, &group->rank[r]);
        group->rank[r].started = code == 0;
    }
    if (code == 0) {
        *ret = group;
        return GAPLESS_OK;
    }
    (void)group_close(group, NULL);
    return gapless_error_set(error, GAPLESS_SYSTEM, code,
                             "cannot start a thread for each of %u GPUs", config->size);
}

bool group_close(struct group *group, struct gapless_error *error)
{
    uint32_t out;

    if (group == NULL)
        return true;
    (void)pthread_mutex_lock(&group->mutex);
    group->leave = true;
    (void)pthread_cond_broadcast(&group->work);
    out = await(group, true, group->config.abort_wait_ns, false);
    (void)pthread_mutex_unlock(&group->mutex);
    if (out < group->config.size) {
        (void)gapless_error_set(error, GAPLESS_TIMEOUT, 0,
                                "rank %u of %u does not come back, not even %.3g s "
                                "after it was asked to: its GPU may hang (see "
                                "nvidia-smi)",
                                out, group->config.size,
                                1e-9 * (double)group->config.abort_wait_ns);
        return false;
    }
    for (uint32_t r = 1; r < group->config.size; r++)
        if (group->rank[r].started)
            (void)pthread_join(group->rank[r].thread, NULL);
    (void)pthread_cond_destroy(&group->back);
    (void)pthread_cond_destroy(&group->work);
    (void)pthread_mutex_destroy(&group->mutex);
    free(group);
    return true;
}

uint32_t group_share(uint32_t count, uint32_t rank, uint32_t size, uint32_t *ret_from)
{
    uint32_t from = (uint32_t)((uint64_t)count * rank / size);
    uint32_t end = (uint32_t)((uint64_t)count * (rank + 1u) / size);

    *ret_from = from;
    return end - from;
}
