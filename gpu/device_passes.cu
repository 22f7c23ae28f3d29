/* A device's passes: the blocks, uploads and result places that a launch needs.
 *
 * Launches are plain, not CUDA graphs: the scalars, pointers and lengths of a pass differ
 * from one to the next, so a graph would have to be updated each time, which costs as
 * much as the one launch it saves.
 */
#include "gpu/device_inside.h"

#include <stdlib.h>
#include <string.h>

const struct device_result *device_result_at(const struct device *device,
                                             uint32_t place)
{
    return place < DEVICE_RESULTS ? &device->results[place] : NULL;
}

const float *device_gates_at(const struct device *device, uint32_t place)
{
    return place < DEVICE_RESULTS && device->gates_max > 0
               ? device->gates + (size_t)place * device->gates_max
               : NULL;
}

/* ---- blocks -------------------------------------------------------------- */

static bool blocks_valid(const struct device *device, const struct blocks *blocks)
{
    if (blocks->count == 0 || blocks->count > device->blocks_max)
        return false;
    for (uint32_t i = 0; i < blocks->count; i++)
        if (blocks->ends[i] > device->elements_max ||
            (i > 0 && blocks->ends[i] < blocks->ends[i - 1]))
            return false;
    return true;
}

/* Waits for the copies: the caller's arrays are free when blocks_new returns. */
static int blocks_fill(struct device *device, const struct blocks *blocks,
                       struct device_blocks *ret, struct gapless_error *error)
{
    size_t bytes = blocks->count * sizeof(uint32_t);
    uint32_t *there;

    ret->held = device_hold(device, 2 * bytes, error);
    if (ret->held == NULL)
        return GAPLESS_NO_MEMORY;
    there = (uint32_t *)(void *)ret->held->start;
    ret->count = blocks->count;
    ret->elements = blocks->ends[blocks->count - 1];
    ret->ends = there;
    device_copy_in(device, there, blocks->ends, bytes);
    if (blocks->pieces != NULL) {
        ret->pieces = there + blocks->count;
        device_copy_in(device, there + blocks->count, blocks->pieces, bytes);
    }
    return device_drain(device, DEVICE_IN, error);
}

int device_blocks_new(struct device *device, const struct blocks *blocks,
                      struct device_blocks **ret, struct gapless_error *error)
{
    struct gapless_error reason = {};
    struct device_blocks *made;

    if (!blocks_valid(device, blocks))
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "GPU %u: %u blocks that are out of order, or more than "
            "the %u it was opened for",
            device->number, blocks->count, device->blocks_max);
    made = (struct device_blocks *)calloc(1, sizeof *made);
    if (made == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "out of memory of the host");
    if (blocks_fill(device, blocks, made, &reason) != GAPLESS_OK) {
        device_blocks_free(device, made);
        if (error != NULL)
            *error = reason;
        return reason.status;
    }
    *ret = made;
    return GAPLESS_OK;
}

void device_blocks_free(struct device *device, struct device_blocks *blocks)
{
    if (blocks == NULL)
        return;
    device_release(device, blocks->held);
    free(blocks);
}

/* ---- uploads ------------------------------------------------------------- */

/* A place of page-locked memory to fill. Where all are still on their way it waits for
 * the oldest: no caller needs to be further ahead of the GPU. NULL: failed. */
static char *upload_begin(struct device *device, size_t bytes)
{
    struct uploads *uploads = &device->uploads;
    struct gapless_error reason = {};

    if (device->failure.status != GAPLESS_OK)
        return NULL;
    if (bytes > uploads->bytes) {
        (void)device_break(device, GAPLESS_INVALID,
                           "a pass with %zu bytes of lists, opened for %zu", bytes,
                           uploads->bytes);
        return NULL;
    }
    if (device_wait(device, uploads->at[uploads->next], SETTLE_NS, &reason) !=
        GAPLESS_OK) {
        (void)device_break(device, reason.status, "an upload: %s", reason.text);
        return NULL;
    }
    return uploads->host + uploads->next * uploads->bytes;
}

/* Sends it. The GPU's place is one: on WORK the copy comes after the pass that read the
 * last one. NULL: failed. */
static const void *upload_end(struct device *device, const char *host, size_t bytes)
{
    struct uploads *uploads = &device->uploads;

    if (!device_enter(device) ||
        !device_check(device,
                      cudaMemcpyAsync(uploads->there, host, bytes,
                                      cudaMemcpyHostToDevice, device->place.stream),
                      "cudaMemcpyAsync"))
        return NULL;
    uploads->at[uploads->next] = device_mark(device, DEVICE_WORK);
    uploads->next = (uploads->next + 1) % UPLOADS;
    return uploads->there;
}

/* The published products of a queue of gradients, one after another. False: failed. */
static bool upload_dots(struct device *device, const struct device_pass *pass,
                        uint32_t count, uint32_t blocks, const double **ret)
{
    size_t bytes = blocks * sizeof(double);
    bool any = false;
    char *host;

    for (uint32_t i = 0; i < count; i++)
        any = any || pass[i].dots != NULL;
    if (!any)
        return true;
    host = upload_begin(device, count * bytes);
    if (host == NULL)
        return false;
    for (uint32_t i = 0; i < count; i++)
        if (pass[i].dots != NULL)
            memcpy(host + i * bytes, pass[i].dots, bytes);
        else
            memset(host + i * bytes, 0, bytes); /* 0.0 */
    *ret = (const double *)upload_end(device, host, count * bytes);
    return *ret != NULL;
}

/* ---- passes -------------------------------------------------------------- */

/* Is the pass one that the device was opened for? Makes it the current one. */
static bool ready(struct device *device, const char *call, size_t n, uint32_t place,
                  uint32_t places)
{
    if (n > device->elements_max) {
        (void)device_break(device, GAPLESS_INVALID,
                           "%s over %zu elements, opened for %zu", call, n,
                           device->elements_max);
        return false;
    }
    if (place >= DEVICE_RESULTS || places > DEVICE_RESULTS - place) {
        (void)device_break(device, GAPLESS_INVALID, "%s with no result place %u", call,
                           place + places - 1);
        return false;
    }
    return device_enter(device);
}

void device_apply(struct device *device, const struct rule *rule,
                  const struct device_pass *pass, uint32_t count,
                  const struct device_blocks *blocks, size_t n, uint32_t place)
{
    struct kernel_blocks there = {};

    if (!ready(device, "apply", n, place, count))
        return;
    if (count == 0 || count > DEVICE_QUEUE ||
        ((rule->flags & RULE_BLOCK) != 0) != (blocks != NULL)) {
        (void)device_break(device, GAPLESS_INVALID,
                           "apply of %u gradients of the rule %s, %s blocks", count,
                           rule->name, blocks != NULL ? "with" : "without");
        return;
    }
    if (blocks != NULL) {
        there.ends = blocks->ends;
        there.pieces = blocks->pieces;
        there.count = blocks->count;
        there.elements = blocks->elements;
        if (device->gates_max > 0) {
            there.gates = device->gates_there + (size_t)place * device->gates_max;
            there.gates_stride = device->gates_max;
        }
        if ((rule->flags & RULE_PUBLISHED) != 0 &&
            !upload_dots(device, pass, count, blocks->count, &there.dots))
            return;
    }
    (void)device_check(device,
                       kernel_apply(&device->place, rule, pass, count,
                                    blocks != NULL ? &there : NULL, n,
                                    device->results_there + place),
                       "apply");
}

void device_measure(struct device *device, const struct rule *rule,
                    const struct arrays *at, const struct step_scalars *scalars,
                    size_t n, uint32_t place)
{
    if (ready(device, "measure", n, place, 1))
        (void)device_check(device,
                           kernel_measure(&device->place, rule, at, scalars, n,
                                          device->results_there + place),
                           "measure");
}

void device_round(struct device *device, const struct rule *rule,
                  const struct arrays *at, const struct step_scalars *scalars,
                  const float *const *grad, float *const *sent, uint32_t workers,
                  size_t n, unsigned want, uint32_t place)
{
    size_t bytes = workers * sizeof(void *);
    const void *there;
    char *host;

    if (!ready(device, "round", n, place, 1))
        return;
    if (workers == 0) {
        (void)device_break(device, GAPLESS_INVALID, "a round of no workers");
        return;
    }
    host = upload_begin(device, 2 * bytes);
    if (host == NULL)
        return;
    memcpy(host, grad, bytes);
    memcpy(host + bytes, sent, bytes);
    there = upload_end(device, host, 2 * bytes);
    if (there != NULL)
        (void)device_check(device,
                           kernel_round(&device->place, rule, at, scalars,
                                        (const float *const *)there,
                                        (float *const *)there + workers, workers, n,
                                        want, device->results_there + place),
                           "round");
}

void device_look_ahead(struct device *device, const struct rule *rule,
                       const struct arrays *at, const struct step_scalars *scalars,
                       size_t n)
{
    if (ready(device, "look_ahead", n, 0, 0))
        (void)device_check(device,
                           kernel_look_ahead(&device->place, rule, at, scalars, n),
                           "look_ahead");
}

void device_forget(struct device *device, const struct rule *rule,
                   const struct arrays *at, size_t n)
{
    if (ready(device, "forget", n, 0, 0))
        (void)device_check(device, kernel_forget(&device->place, rule, at, n),
                           "forget");
}

void device_resum(struct device *device, float *all, const float *const *own,
                  uint32_t workers, size_t n)
{
    size_t bytes = workers * sizeof(void *);
    const void *there;
    char *host;

    if (!ready(device, "resum", n, 0, 0))
        return;
    if (workers == 0) { /* the sum of none */
        device_zero(device, all, n * sizeof(float));
        return;
    }
    host = upload_begin(device, bytes);
    if (host == NULL)
        return;
    memcpy(host, own, bytes);
    there = upload_end(device, host, bytes);
    if (there != NULL)
        (void)device_check(
            device,
            kernel_resum(&device->place, all, (const float *const *)there, workers, n),
            "resum");
}

void device_finite(struct device *device, const float *x, size_t n, uint32_t place)
{
    if (ready(device, "finite", n, place, 1))
        (void)device_check(
            device, kernel_finite(&device->place, x, n, device->results_there + place),
            "finite");
}

void device_norm_sq(struct device *device, const float *x, size_t n, uint32_t place)
{
    if (ready(device, "norm_sq", n, place, 1))
        (void)device_check(
            device, kernel_norm_sq(&device->place, x, n, device->results_there + place),
            "norm_sq");
}

void device_scale(struct device *device, float *x, float factor, size_t n)
{
    if (ready(device, "scale", n, 0, 0))
        (void)device_check(device, kernel_scale(&device->place, x, factor, n), "scale");
}

void device_decay(struct device *device, float *grad, const float *params, float decay,
                  size_t n, uint32_t place)
{
    if (ready(device, "decay", n, place, 1))
        (void)device_check(device,
                           kernel_decay(&device->place, grad, params, decay, n,
                                        device->results_there + place),
                           "decay");
}

void device_slim(struct device *device, float *grad, float *velocity, float momentum,
                 size_t n)
{
    if (ready(device, "slim", n, 0, 0))
        (void)device_check(
            device, kernel_slim(&device->place, grad, velocity, momentum, n), "slim");
}

void device_average(struct device *device, float *theta, float *sent, const float *grad,
                    float share, float average, size_t n)
{
    if (ready(device, "average", n, 0, 0))
        (void)device_check(
            device,
            kernel_average(&device->place, theta, sent, grad, share, average, n),
            "average");
}
