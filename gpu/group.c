/* A group of GPUs by NCCL: one communicator, of which every rank holds its end.
 *
 *     rank 0   ── mean ──┐                    Collectives run on the WORK stream, so
 *     rank 1   ── mean ──┼── sum, 1/size      they come after the passes asked for
 *     rank 2   ── mean ──┘                    before. Each call waits until its own
 *                                             rank's part is complete.
 *
 * The communicator is a non-blocking one: no call of NCCL's waits for another rank, and
 * every wait is a loop here that looks at the communicator's state, at the stream and
 * at the time. So a rank that never comes, or that an error takes away in the middle,
 * costs the others their timeout at most. After the first failure the communicator is
 * aborted and every later call gives the same error.
 *
 * abort() may come from another thread: it only raises a flag. NCCL's own abort is
 * asked for by the thread that uses the communicator, because it frees what that thread
 * is looking at; it has a bound, too (group_abort.c).
 *
 * The mean is a sum and then a multiplication by 1/size, not NCCL's own average: the
 * passes of the CPU master do it so (compute_cpu_isa.c, round), and the multiplication
 * is exactly rounded. In which order NCCL adds is its own choice, so only sums of two
 * are the same bits everywhere.
 */
#include "gpu/group.h"

#include "gpu/plugin.h"

#include "engine/base/clock.h"

#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SPIN_NS 200000ll /* polled without a pause: a collective takes about that */
#define PAUSE_NS 20000l  /* then with one */
#define CLOSE_NS 5000000000ll  /* at most, for the other ranks to close, too */
#define ABORT_NS 30000000000ll /* at most, for NCCL to let go of everything */
#define ABORT_TEXT "the group was ended from outside"

struct gpu_group {
    const struct nccl *nccl;
    struct device *device;
    nccl_comm comm;             /* NULL: aborted */
    int64_t close_ns, abort_ns; /* for leaving: no longer than joining may take */
    uint32_t rank, size;
    struct gapless_error failure; /* the first; status 0: none */
    pthread_mutex_t mutex;
    bool abort; /* guarded */
};

static int64_t now_ns(void)
{
    return (int64_t)clock_ns();
}

/* The end of a wait; one that does not fit is for ever, or as good. */
static int64_t end_of(int64_t timeout_ns)
{
    int64_t now = now_ns();

    return timeout_ns < INT64_MAX - now ? now + timeout_ns : INT64_MAX;
}

static void rest(int64_t since)
{
    static const struct timespec pause = {0, PAUSE_NS};

    if (now_ns() - since < SPIN_NS)
        (void)sched_yield();
    else
        (void)nanosleep(&pause, NULL);
}

static bool asked_to_abort(struct gpu_group *group)
{
    bool ret;

    (void)pthread_mutex_lock(&group->mutex);
    ret = group->abort;
    (void)pthread_mutex_unlock(&group->mutex);
    return ret;
}

/* ---- failures ------------------------------------------------------------ */

/* Ends the communicator: what its kernels wait for on this GPU will not come. */
static void end_comm(struct gpu_group *group)
{
    static const char stuck[] =
        "; NCCL does not let go of its GPU, which is free when this process has ended";
    char *text = group->failure.text;
    size_t used = strlen(text);

    if (group->comm != NULL &&
        !group_end_now(group->nccl, group->comm, group->abort_ns) && used > 0)
        (void)snprintf(text + used, sizeof group->failure.text - used, "%s", stuck);
    group->comm = NULL;
}

/* Keeps the first failure, with the rank's name before it, and ends the
 * communicator. */
static int fail(struct gpu_group *group, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int fail(struct gpu_group *group, int status, const char *format, ...)
{
    char text[400];
    va_list list;

    va_start(list, format);
    (void)vsnprintf(text, sizeof text, format, list);
    va_end(list);
    if (group->failure.status == GAPLESS_OK)
        (void)gapless_error_set(&group->failure, status, 0, "rank %u of %u: %s",
                                group->rank, group->size, text);
    end_comm(group);
    return group->failure.status;
}

/* Hands the kept failure out. */
static int reported(const struct gpu_group *group, struct gapless_error *error)
{
    if (error != NULL)
        *error = group->failure;
    return group->failure.status;
}

/* A call of NCCL's that did not do. */
static int fail_call(struct gpu_group *group, const char *what, int result)
{
    const struct nccl *nccl = group->nccl;
    const char *last = nccl->GetLastError(group->comm);

    return fail(group, result == NCCL_REMOTE_ERROR ? GAPLESS_PEER_LOST : GAPLESS_SYSTEM,
                "NCCL failed at %s: %.100s%s%.160s", what, nccl->GetErrorString(result),
                last != NULL && last[0] ? ": " : "", last != NULL ? last : "");
}

/* An error that came up while the call was under way. It is rarely this rank's own. */
static int fail_async(struct gpu_group *group, const char *what, int result)
{
    const char *last = group->nccl->GetLastError(group->comm);

    return fail(group, GAPLESS_PEER_LOST,
                "another rank failed or left during %s (NCCL: %.80s%s%.160s)", what,
                group->nccl->GetErrorString(result),
                last != NULL && last[0] ? ": " : "", last != NULL ? last : "");
}

static int fail_device(struct gpu_group *group, const char *what)
{
    struct gapless_error reason = {0};

    (void)device_failure(group->device, &reason);
    return fail(group, GAPLESS_SYSTEM, "its GPU failed during %s: %.240s", what,
                reason.text[0] != '\0' ? reason.text : "no text");
}

/* ---- waiting ------------------------------------------------------------- */

/* One look: is there a reason not to wait on? */
static int look(struct gpu_group *group, const char *what, int64_t since, int64_t end,
                int *ret_state)
{
    int state = NCCL_SUCCESS;
    int result = group->nccl->CommGetAsyncError(group->comm, &state);

    if (result != NCCL_SUCCESS)
        return fail_call(group, what, result);
    if (state != NCCL_SUCCESS && state != NCCL_IN_PROGRESS)
        return fail_async(group, what, state);
    if (asked_to_abort(group))
        return fail(group, GAPLESS_PEER_LOST, ABORT_TEXT " during %s", what);
    if (now_ns() >= end)
        return fail(group, GAPLESS_TIMEOUT,
                    "%s took more than %.3g s: another rank did not come", what,
                    (double)(end - since) * 1e-9);
    *ret_state = state;
    return GAPLESS_OK;
}

/* Until the communicator is ready for the next call: it does some of its work behind
 * the scenes. */
static int await_state(struct gpu_group *group, const char *what, int64_t since,
                       int64_t end)
{
    int state = NCCL_IN_PROGRESS, status;

    for (;;) {
        status = look(group, what, since, end, &state);
        if (status != GAPLESS_OK || state == NCCL_SUCCESS)
            return status;
        rest(since);
    }
}

/* Until all that was asked for on the stream is done. */
static int drain(struct gpu_group *group, const char *what, int64_t since, int64_t end)
{
    uint64_t ticket = gpu_device.mark(group->device, DEVICE_WORK);
    int state, status;

    for (;;) {
        int done = gpu_device.done(group->device, ticket);

        if (done < 0)
            return fail_device(group, what);
        if (done > 0)
            return GAPLESS_OK;
        status = look(group, what, since, end, &state);
        if (status != GAPLESS_OK)
            return status;
        rest(since);
    }
}

/* ---- the group ----------------------------------------------------------- */

static int join(struct gpu_group *group, const unsigned char *name, int64_t timeout_ns)
{
    struct nccl_config config = {
        .size = sizeof config,
        .magic = NCCL_API_MAGIC,
        .version = NCCL_API_OLDEST,
        .blocking = 0,
        .cga_cluster_size = NCCL_API_UNSET,
        .min_ctas = NCCL_API_UNSET,
        .max_ctas = NCCL_API_UNSET,
        .net_name = NULL,
        .split_share = NCCL_API_UNSET,
        .spare = NCCL_API_UNSET,
    };
    struct nccl_id id;
    int64_t since = now_ns(), end = end_of(timeout_ns);
    int result;

    memcpy(id.bytes, name, sizeof id.bytes);
    result = group->nccl->CommInitRankConfig(&group->comm, (int)group->size, id,
                                             (int)group->rank, &config);
    if (result != NCCL_SUCCESS && result != NCCL_IN_PROGRESS)
        return fail_call(group, "joining the group", result);
    return await_state(group, "joining the group", since, end);
}

static int check_open(const struct device *device, uint32_t rank, uint32_t size,
                      struct gapless_error *error)
{
    if (device == NULL || size == 0 || size > DEVICE_MAX || rank >= size)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "rank %u of %u GPUs: a group has 1 to %u, with ranks "
                                 "from 0 on",
                                 rank, size, DEVICE_MAX);
    return GAPLESS_OK;
}

static int group_open(struct device *device, const unsigned char id[GPU_GROUP_ID],
                      uint32_t rank, uint32_t size, int64_t timeout_ns,
                      struct gpu_group **ret, struct gapless_error *error)
{
    struct gpu_group *group;
    const struct nccl *nccl;
    int status = check_open(device, rank, size, error);

    if (status == GAPLESS_OK)
        status = group_nccl(&nccl, error);
    if (status == GAPLESS_OK && !device_enter(device)) /* NCCL asks which is current */
        status = device_failure(device, error);
    if (status != GAPLESS_OK)
        return status;
    group = calloc(1, sizeof *group);
    if (group == NULL || pthread_mutex_init(&group->mutex, NULL) != 0) {
        free(group);
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for a group");
    }
    group->nccl = nccl;
    group->device = device;
    group->rank = rank;
    group->size = size;
    group->close_ns = timeout_ns < CLOSE_NS ? timeout_ns : CLOSE_NS;
    group->abort_ns = timeout_ns < ABORT_NS ? timeout_ns : ABORT_NS;
    status = join(group, id, timeout_ns);
    if (status == GAPLESS_OK) {
        *ret = group;
        return GAPLESS_OK;
    }
    (void)reported(group, error);
    (void)pthread_mutex_destroy(&group->mutex);
    free(group);
    return status;
}

/* In order: a rank's buffers are read by the others until they have finished, too. A
 * group in which a rank failed ends by the abort that fail() made. */
static void leave(struct gpu_group *group)
{
    int64_t since = now_ns();
    int result = group->nccl->CommFinalize(group->comm);

    if ((result == NCCL_SUCCESS || result == NCCL_IN_PROGRESS) &&
        await_state(group, "leaving", since, since + group->close_ns) == GAPLESS_OK) {
        (void)group->nccl->CommDestroy(group->comm);
        group->comm = NULL;
    }
    end_comm(group);
}

static void group_close(struct gpu_group *group)
{
    if (group == NULL)
        return;
    (void)device_enter(group->device);
    if (group->comm != NULL)
        leave(group);
    (void)pthread_mutex_destroy(&group->mutex);
    free(group);
}

/* Before a collective: neither the group nor the GPU has failed. */
static int ready(struct gpu_group *group, const char *what, struct gapless_error *error)
{
    if (group->failure.status == GAPLESS_OK && asked_to_abort(group))
        (void)fail(group, GAPLESS_PEER_LOST, ABORT_TEXT);
    if (group->failure.status == GAPLESS_OK && !device_enter(group->device))
        (void)fail_device(group, what);
    return group->failure.status == GAPLESS_OK ? GAPLESS_OK : reported(group, error);
}

static int group_mean(struct gpu_group *group, float *x, size_t n, int64_t timeout_ns,
                      struct gapless_error *error)
{
    static const char what[] = "averaging";
    int64_t since = now_ns(), end = end_of(timeout_ns);
    int result, status = ready(group, what, error);

    if (status != GAPLESS_OK)
        return status;
    result = group->nccl->AllReduce(x, x, n, NCCL_FLOAT32, NCCL_SUM, group->comm,
                                    device_work_stream(group->device));
    status = result == NCCL_SUCCESS || result == NCCL_IN_PROGRESS
                 ? await_state(group, what, since, end)
                 : fail_call(group, what, result);
    if (status == GAPLESS_OK && group->size > 1)
        gpu_device.scale(group->device, x, (float)(1.0 / (double)group->size), n);
    if (status == GAPLESS_OK)
        status = drain(group, what, since, end);
    return status == GAPLESS_OK ? status : reported(group, error);
}

static int group_broadcast(struct gpu_group *group, float *x, size_t n, uint32_t root,
                           int64_t timeout_ns, struct gapless_error *error)
{
    static const char what[] = "handing out parameters";
    int64_t since = now_ns(), end = end_of(timeout_ns);
    int result, status;

    if (root >= group->size)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "a group of %u has no rank %u", group->size, root);
    status = ready(group, what, error);
    if (status != GAPLESS_OK)
        return status;
    result = group->nccl->Broadcast(x, x, n, NCCL_FLOAT32, (int)root, group->comm,
                                    device_work_stream(group->device));
    status = result == NCCL_SUCCESS || result == NCCL_IN_PROGRESS
                 ? await_state(group, what, since, end)
                 : fail_call(group, what, result);
    if (status == GAPLESS_OK)
        status = drain(group, what, since, end);
    return status == GAPLESS_OK ? status : reported(group, error);
}

static void group_abort(struct gpu_group *group)
{
    (void)pthread_mutex_lock(&group->mutex);
    group->abort = true;
    (void)pthread_mutex_unlock(&group->mutex);
}

const struct gpu_group_ops gpu_group_nccl = {
    .version = group_version,
    .id = group_id,
    .open = group_open,
    .close = group_close,
    .mean = group_mean,
    .broadcast = group_broadcast,
    .abort = group_abort,
};
