/* Buffers of the caller's: whose memory they are, the staged path, the end. */
#include "engine/worker/worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of anything that a GPU is asked for: gigabytes take less than a second. */
#define DEVICE_WAIT_NS 60000000000ll

/* ---- whose memory -------------------------------------------------------- */

/* Without a plugin every pointer is of the host: no library could have made another. */
static int find_ops(const struct device_ops **ret, struct gapless_error *error)
{
    const struct gpu_plugin *plugin = NULL;
    int status = device_plugin(&plugin, error);

    if (status == GAPLESS_OK)
        *ret = plugin->device;
    return status == GAPLESS_MISSING ? GAPLESS_OK : status;
}

static int find_kind(struct worker_buffers *b, struct gapless_error *error)
{
    const struct device_ops *ops = NULL;
    uint32_t params_at = 0, grad_at = 0;
    bool params, grad; /* of a GPU, and not of the host as well */
    int status = find_ops(&ops, error);

    if (status != GAPLESS_OK || ops == NULL)
        return status;
    params = ops->kind(b->params, &params_at) == DEVICE_MEMORY;
    grad = ops->kind(b->grad, &grad_at) == DEVICE_MEMORY;
    if (params != grad || (params && params_at != grad_at))
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "params and grad are not of the same memory: give both of one GPU, or both "
            "of the host");
    if (params) {
        b->kind = BUFFERS_STAGED; /* until the other path is open */
        b->number = params_at;
        b->ops = ops;
    }
    return GAPLESS_OK;
}

int buffers_look(const struct gapless_worker_config *config, struct worker_buffers *ret,
                 struct gapless_error *error)
{
    struct worker_buffers b = {.params = config->params, .grad = config->grad};
    int status;

    if ((b.params == NULL) != (b.grad == NULL))
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "a worker's buffers: %s is missing, give params and "
                                 "grad, or neither",
                                 b.params == NULL ? "params" : "grad");
    if (b.params == NULL)
        return GAPLESS_OK;
    if (b.params == b.grad)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "a worker's buffers: params and grad are the same");
    if (config->model.tensors == NULL)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "a worker's buffers: say which model they are for, or "
                                 "a master of a larger one would write behind them");
    b.kind = BUFFERS_HOST;
    status = find_kind(&b, error);
    if (status == GAPLESS_OK)
        *ret = b;
    return status;
}

/* ---- opening ------------------------------------------------------------- */

/* Copies from and to memory that is not page-locked work too, at about half the
 * speed. */
static bool pin(struct gapless_worker *w, const float *vector)
{
    const struct worker_buffers *b = &w->buffers;

    return b->ops->pin(b->device, (void *)(uintptr_t)vector, w->padded * sizeof(float),
                       NULL) == GAPLESS_OK;
}

static int open_device(struct gapless_worker *w, struct gapless_error *error)
{
    struct worker_buffers *b = &w->buffers;
    int status = b->ops->facts(b->number, &b->facts, error);

    if (status == GAPLESS_OK)
        status = b->ops->open(b->number, w->padded, 1, &b->device, error);
    return status;
}

static int no_way(const struct gapless_worker *w, const struct gapless_error *reason,
                  struct gapless_error *error)
{
    return gapless_error_set(
        error, GAPLESS_UNSUPPORTED, 0,
        "the network cannot reach the buffers of " WORKER_NAME
        " on GPU %u (%s): %.230s. "
        "'gapless doctor' shows what is there; to copy through host memory instead: "
        "--allow-staging (allow_staging)",
        w->client.welcome.number, w->buffers.number, w->buffers.facts.name,
        reason->text);
}

/* The direct path where there is one; true: it is taken, or *ret_status is a
 * failure. */
static bool try_direct(struct gapless_worker *w, const struct gapless_worker_config *c,
                       int *ret_status, struct gapless_error *error)
{
    struct gapless_error reason = {0};

    if (w->client.transport->mapped)
        return false;
    if (w->own != NULL || w->copy != NULL) {
        w->buffers.cause = "the rule keeps parameters at the worker";
        return false;
    }
    *ret_status = direct_open(w, &reason);
    if (*ret_status == GAPLESS_UNSUPPORTED && c->allow_staging) {
        w->buffers.cause = "no network card reaches it";
        *ret_status = worker_map_slot(w, error); /* nothing is placed in a new one */
        return *ret_status != GAPLESS_OK;
    }
    if (*ret_status == GAPLESS_UNSUPPORTED)
        *ret_status = no_way(w, &reason, error);
    else if (*ret_status != GAPLESS_OK && error != NULL)
        *error = reason;
    return true;
}

int buffers_open(struct gapless_worker *w, const struct gapless_worker_config *config,
                 struct gapless_error *error)
{
    struct worker_buffers *b = &w->buffers;
    int status;

    if (b->ops == NULL)
        return GAPLESS_OK;
    status = open_device(w, error);
    if (status != GAPLESS_OK || try_direct(w, config, &status, error))
        return status;
    b->locked = pin(w, w->params);
    b->locked = pin(w, w->grad) && b->locked;
    return GAPLESS_OK;
}

/* ---- copies -------------------------------------------------------------- */

static int broken(struct worker_buffers *b, int status,
                  const struct gapless_error *reason, struct gapless_error *error)
{
    if (status == GAPLESS_TIMEOUT)
        (void)gapless_error_set(
            &b->broken, GAPLESS_SYSTEM, 0,
            "GPU %u (%s) did not finish within %.0f s: see 'dmesg' for its messages, "
            "and whether others use it",
            b->number, b->facts.name, 1e-9 * (double)DEVICE_WAIT_NS);
    else
        b->broken = *reason; /* it names the GPU */
    if (error != NULL)
        *error = b->broken;
    return b->broken.status;
}

int buffers_wait(struct worker_buffers *b, enum device_stream stream,
                 struct gapless_error *error)
{
    struct gapless_error reason = {0};
    uint64_t ticket = b->ops->mark(b->device, stream);
    int status = b->ops->wait(b->device, ticket, DEVICE_WAIT_NS, &reason);

    return status == GAPLESS_OK ? status : broken(b, status, &reason, error);
}

int buffers_sound(const struct worker_buffers *b, struct gapless_error *error)
{
    if (b->broken.status != GAPLESS_OK && error != NULL)
        *error = b->broken;
    return b->broken.status;
}

int buffers_fill(struct gapless_worker *w, struct gapless_error *error)
{
    struct worker_buffers *b = &w->buffers;
    size_t bytes = (size_t)w->client.welcome.count * sizeof(float);

    switch (b->kind) {
    case BUFFERS_OWN:
        break;
    case BUFFERS_HOST:
        memcpy(b->params, w->params, bytes);
        break;
    case BUFFERS_STAGED:
        b->ops->copy_in(b->device, b->params, w->params, bytes);
        return buffers_wait(b, DEVICE_IN, error);
    case BUFFERS_DIRECT:
        return direct_flush(b, error);
    }
    return GAPLESS_OK;
}

int buffers_take(struct gapless_worker *w, struct gapless_error *error)
{
    struct worker_buffers *b = &w->buffers;
    size_t bytes = (size_t)w->client.welcome.count * sizeof(float);

    if (b->kind == BUFFERS_HOST)
        memcpy(w->grad, b->grad, bytes);
    if (b->kind != BUFFERS_STAGED)
        return GAPLESS_OK;
    b->ops->copy_out(b->device, w->grad, b->grad, bytes);
    return buffers_wait(b, DEVICE_OUT, error);
}

/* ---- what there is, and the end ------------------------------------------ */

void buffers_describe(const struct gapless_worker *w, char *ret, size_t bytes)
{
    const struct worker_buffers *b = &w->buffers;
    const char *passes = w->compute->name;

    switch (b->kind) {
    case BUFFERS_OWN:
        (void)snprintf(ret, bytes, "%s", passes);
        break;
    case BUFFERS_HOST:
        (void)snprintf(ret, bytes, "%s, buffers of the caller in host memory", passes);
        break;
    case BUFFERS_STAGED:
        (void)snprintf(
            ret, bytes,
            "cuda:%u %s: staged through %s host memory%s%s; the worker's passes on %s",
            b->number, b->facts.name, b->locked ? "page-locked" : "pageable",
            b->cause != NULL ? ", since " : "", b->cause != NULL ? b->cause : "",
            passes);
        break;
    case BUFFERS_DIRECT:
        (void)snprintf(ret, bytes,
                       "cuda:%u %s: direct, the network card reaches it (%s); the "
                       "worker's passes on the GPU",
                       b->number, b->facts.name, b->how);
        break;
    }
}

void buffers_close(struct gapless_worker *w)
{
    struct worker_buffers *b = &w->buffers;

    if (b->device != NULL)
        b->ops->close(b->device); /* what was taken and page-locked, too */
    free(b->proof);
}
