/* The direct path: the network card moves bytes from and to the caller's buffers on a
 * GPU, and the passes over the gradient are the GPU's.
 *
 *   window of the slot    | head | sent ......... | reports    | grad ......... |
 *   where the bytes are     host   params on the     host        grad on the
 *                                  GPU, tail host                GPU, tail host
 *
 * A tail is what pads `count` elements to 16: it stays in the window's own memory, and
 * is zero.
 */
#include "engine/worker/worker.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Where passes leave their sums. */
enum {
    PLACE_MOST,
    PLACE_REST,
    PLACE_DECAY
};

/* ---- opening ------------------------------------------------------------- */

static int place_one(struct gapless_worker *w, uint64_t at, float *vector,
                     struct gapless_error *error)
{
    struct worker_buffers *b = &w->buffers;
    struct tp_memory memory = {.base = vector,
                               .bytes =
                                   (size_t)w->client.welcome.count * sizeof *vector,
                               .dmabuf = -1,
                               .gpu = true};
    const char *how = NULL;
    int status = b->ops->share(b->device, vector, memory.bytes, &memory.dmabuf,
                               &memory.dmabuf_at, error);

    /* Without a DMA-BUF the address may still do: nvidia-peermem. */
    if (status != GAPLESS_OK && status != GAPLESS_UNSUPPORTED)
        return status;
    status = w->client.transport->bind_memory(w->client.tp, &w->slot, (size_t)at,
                                              &memory, &how, error);
    if (memory.dmabuf >= 0)
        (void)close(memory.dmabuf);
    if (status == GAPLESS_OK)
        b->how = how;
    return status;
}

/* What is new to memory at every place, and in every one of the proofs. */
static void pattern(unsigned char *ret, size_t bytes, uint32_t seed)
{
    uint32_t x = seed * 2654435761u + 1;
    size_t i;

    for (i = 0; i < bytes; i++) {
        x = x * 1664525u + 1013904223u; /* Numerical Recipes, "ranqd1" */
        ret[i] = (unsigned char)(x >> 24);
    }
}

static int unproven(const char *what, struct gapless_error *error)
{
    return gapless_error_set(error, GAPLESS_UNSUPPORTED, 0,
                             "it was registered, but %s did not come out as they went "
                             "in: an IOMMU or a PCIe "
                             "switch between card and GPU may be in the way",
                             what);
}

/* However a card fails at it, it does not reach the memory. */
static int loop(struct gapless_worker *w, uint64_t at, void *host, size_t bytes,
                enum tp_way way, struct gapless_error *error)
{
    struct gapless_error reason = {0};
    int status = w->client.transport->loopback(w->client.tp, &w->slot, (size_t)at, host,
                                               bytes, way, &reason);

    if (status == GAPLESS_OK)
        return GAPLESS_OK;
    return gapless_error_set(error, GAPLESS_UNSUPPORTED, 0,
                             "a trial over the network card failed: %.200s",
                             reason.text);
}

/* Bytes go through the card into the GPU's memory, and out of it, and are looked at
 * from the other side. */
static int prove_at(struct gapless_worker *w, uint64_t at, char *memory, size_t bytes,
                    struct gapless_error *error)
{
    struct worker_buffers *b = &w->buffers;
    unsigned char *sent = b->proof, *seen = b->proof + TP_LOOPBACK_MAX;
    int status;

    memset(seen, 0, bytes);
    pattern(sent, bytes, (uint32_t)at);
    status = loop(w, at, sent, bytes, TP_INTO, error);
    if (status == GAPLESS_OK)
        status = direct_flush(b, error);
    if (status != GAPLESS_OK)
        return status;
    b->ops->copy_out(b->device, seen, memory, bytes);
    status = buffers_wait(b, DEVICE_OUT, error);
    if (status != GAPLESS_OK)
        return status;
    if (memcmp(sent, seen, bytes) != 0)
        return unproven("bytes that the network card wrote", error);
    pattern(sent, bytes, (uint32_t)at + 1);
    b->ops->copy_in(b->device, memory, sent, bytes);
    status = buffers_wait(b, DEVICE_IN, error);
    if (status == GAPLESS_OK)
        status = loop(w, at, seen, bytes, TP_OUT_OF, error);
    if (status == GAPLESS_OK && memcmp(sent, seen, bytes) != 0)
        status = unproven("bytes that the network card read", error);
    return status;
}

/* At both ends of a buffer. */
static int prove_one(struct gapless_worker *w, uint64_t at, float *vector,
                     struct gapless_error *error)
{
    size_t bytes = (size_t)w->client.welcome.count * sizeof *vector;
    size_t piece = bytes < TP_LOOPBACK_MAX ? bytes : TP_LOOPBACK_MAX,
           last = bytes - piece;
    char *memory = (char *)vector;
    int status = prove_at(w, at, memory, piece, error);

    if (status == GAPLESS_OK)
        status = prove_at(w, at + last, memory + last, piece, error);
    return status;
}

/* DANA-Slim's velocity moves to where the gradient is. */
static int move_velocity(struct gapless_worker *w, struct gapless_error *error)
{
    struct worker_buffers *b = &w->buffers;
    void *memory = NULL;
    int status = b->ops->take(b->device, w->padded * sizeof(float), &memory, error);

    if (status != GAPLESS_OK)
        return status;
    b->velocity = memory;
    free(w->velocity);
    w->velocity = NULL;
    return GAPLESS_OK;
}

int direct_open(struct gapless_worker *w, struct gapless_error *error)
{
    const struct wire_welcome *welcome = &w->client.welcome;
    struct worker_buffers *b = &w->buffers;
    size_t bytes = (size_t)welcome->count * sizeof(float);
    int status;

    b->proof = malloc((size_t)2 * TP_LOOPBACK_MAX);
    if (b->proof == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory to prove a network card with");
    status = place_one(w, welcome->sent_at, b->params, error);
    if (status == GAPLESS_OK)
        status = place_one(w, welcome->grad_at, b->grad, error);
    if (status == GAPLESS_OK)
        status = prove_one(w, welcome->sent_at, b->params, error);
    if (status == GAPLESS_OK)
        status = prove_one(w, welcome->grad_at, b->grad, error);
    if (status == GAPLESS_OK && welcome->slim != 0)
        status = move_velocity(w, error);
    if (status != GAPLESS_OK)
        return status;
    b->ops->zero(b->device, b->params, bytes);
    b->ops->zero(b->device, b->grad, bytes);
    status = buffers_wait(b, DEVICE_WORK, error);
    if (status == GAPLESS_OK)
        b->kind = BUFFERS_DIRECT;
    return status;
}

/* ---- what the card wrote ------------------------------------------------- */

/* The completion was seen by the CPU, and whatever kernel reads the bytes is launched
 * after that: NVIDIA's documented order ("GPUDirect RDMA", Synchronization and Memory
 * Ordering). The flush costs microseconds and holds even where a GPU does not order
 * what a card writes. */
int direct_flush(struct worker_buffers *b, struct gapless_error *error)
{
    if (b->facts.ordering >= DEVICE_ORDERS_OWNER || !b->facts.can_flush ||
        b->ops->flush(b->device) == GAPLESS_OK)
        return GAPLESS_OK;
    return gapless_error_set(error, GAPLESS_SYSTEM, 0,
                             "GPU %u (%s) did not flush what the network card wrote",
                             b->number, b->facts.name);
}

/* ---- passes over the gradient -------------------------------------------- */

static double value(const struct worker_buffers *b, uint32_t place)
{
    return b->ops->result(b->device, place)->value;
}

/* The sum of squares; cut where worker.c cuts it, for the same bits. */
static int norm_sq(struct gapless_worker *w, double *ret, struct gapless_error *error)
{
    struct worker_buffers *b = &w->buffers;
    size_t most = worker_norm_cut(w), count = (size_t)w->client.welcome.count;
    int status;

    if (most > 0)
        b->ops->norm_sq(b->device, b->grad, most, PLACE_MOST);
    b->ops->norm_sq(b->device, b->grad + most, count - most, PLACE_REST);
    status = buffers_wait(b, DEVICE_WORK, error);
    if (status == GAPLESS_OK)
        *ret = (most > 0 ? value(b, PLACE_MOST) : 0) + value(b, PLACE_REST);
    return status;
}

static int decay(struct gapless_worker *w, double *ret_norm,
                 struct gapless_error *error)
{
    struct worker_buffers *b = &w->buffers;
    int status;

    b->ops->decay(b->device, b->grad, b->params, (float)w->client.welcome.weight_decay,
                  (size_t)w->client.welcome.count, PLACE_DECAY);
    status = buffers_wait(b, DEVICE_WORK, error);
    if (status == GAPLESS_OK)
        *ret_norm = sqrt(value(b, PLACE_DECAY));
    return status;
}

static int prepare_parts(struct gapless_worker *w, double *ret_norm,
                         struct gapless_error *error)
{
    int status = parts_prepare(w, parts_pass_direct, ret_norm, error);

    return status == GAPLESS_OK ? buffers_wait(&w->buffers, DEVICE_WORK, error)
                                : status;
}

int direct_prepare(struct gapless_worker *w, double *ret_norm,
                   struct gapless_error *error)
{
    const struct wire_welcome *welcome = &w->client.welcome;
    struct worker_buffers *b = &w->buffers;
    size_t count = (size_t)welcome->count;
    double norm = 0;
    int status;

    if (w->parts != NULL)
        return prepare_parts(w, ret_norm, error);
    status = norm_sq(w, &norm, error);
    if (status != GAPLESS_OK)
        return status;
    norm = sqrt(norm);
    if (!isfinite(norm))
        return GAPLESS_NOT_FINITE;
    if (welcome->clip_norm > 0 && norm > welcome->clip_norm) {
        b->ops->scale(b->device, b->grad, (float)(welcome->clip_norm / norm), count);
        norm = welcome->clip_norm;
    }
    if (welcome->weight_decay > 0)
        status = decay(w, &norm, error);
    if (status != GAPLESS_OK)
        return status;
    if (!isfinite(norm))
        return GAPLESS_NOT_FINITE;
    if (welcome->slim != 0)
        b->ops->slim(b->device, b->grad, b->velocity, (float)welcome->momentum, count);
    *ret_norm = norm;
    /* The card reads the gradient next: it has to be complete. */
    return buffers_wait(b, DEVICE_WORK, error);
}
