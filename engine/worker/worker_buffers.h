/* Buffers of the caller's, of the host or of a GPU, in place of a worker's own. Part of
 * the inside of a worker (worker.h).
 *
 *   staged   sent, own or copy ──copy_in──> params ... grad ──copy_out──> slot's grad
 *            Everything else is as without them: the passes are the CPU's, over host
 *            memory. For memory that is mapped; for rules that keep parameters at the
 *            worker; over a network where a card cannot reach the buffers and the
 *            caller allows it. Host buffers are always staged, by memcpy.
 *   direct   master ──get──> params ... grad ──put──> master
 *            The network card moves bytes straight from and to the buffers, which take
 *            the places of sent and grad in the slot's window. The passes over the
 *            gradient are the GPU's, with the CPU's bits.
 *
 * The engine's vectors are padded with zeros to 16 elements; the caller's have `count`
 * elements, and nothing behind them is touched.
 *
 * A failure of the GPU is kept: every later pull and push says it again.
 */
#ifndef GAPLESS_WORKER_BUFFERS_H
#define GAPLESS_WORKER_BUFFERS_H

#include "engine/device/device.h"
#include <gapless/gapless.h>

struct gapless_worker;

enum buffers_kind {
    BUFFERS_OWN,    /* the engine's: there are no others */
    BUFFERS_HOST,   /* staged, by memcpy */
    BUFFERS_STAGED, /* of a GPU */
    BUFFERS_DIRECT
};

struct worker_buffers {
    enum buffers_kind kind;
    float *params, *grad;         /* the caller's */
    uint32_t number;              /* of the GPU */
    const struct device_ops *ops; /* NULL: host memory */
    struct device *device;
    struct device_facts facts;
    float *velocity;      /* direct, DANA-Slim: of the GPU */
    bool locked;          /* staged: through page-locked memory of the host */
    unsigned char *proof; /* direct: bytes on their way; a GPU that has failed may still
                             touch them */
    const char *how;      /* direct: how the network reaches them */
    const char *cause;    /* staged over a network: why not direct */
    struct gapless_error broken; /* status GAPLESS_OK: it is not */
};

/* Before joining: are there buffers, and of which memory? GAPLESS_INVALID. */
int buffers_look(const struct gapless_worker_config *config, struct worker_buffers *ret,
                 struct gapless_error *error);
/* After the worker's memory is mapped: opens the GPU and takes one of the two paths.
 * What the caller's buffers hold is lost. GAPLESS_UNSUPPORTED says what is missing, and
 * how to allow staging. */
int buffers_open(struct gapless_worker *worker,
                 const struct gapless_worker_config *config,
                 struct gapless_error *error);
/* What has failed before, if something has. */
int buffers_sound(const struct worker_buffers *buffers, struct gapless_error *error);
/* The end of a pull: what to compute at is in params. */
int buffers_fill(struct gapless_worker *worker, struct gapless_error *error);
/* The start of a push, staged: the gradient is in the slot. */
int buffers_take(struct gapless_worker *worker, struct gapless_error *error);
/* One line, see gapless_worker_device. */
void buffers_describe(const struct gapless_worker *worker, char *ret, size_t bytes);
/* Waits until the GPU is done with the slot; so, before that is given up. */
void buffers_close(struct gapless_worker *worker);

/* Waits, with a bound, until all that was asked for on a stream is done. What fails is
 * kept. */
int buffers_wait(struct worker_buffers *buffers, enum device_stream stream,
                 struct gapless_error *error);

/* ---- worker_direct.c ----------------------------------------------------- */
/* Places the buffers in the slot's window and proves that the network's cards reach
 * them. GAPLESS_UNSUPPORTED: they do not; the text says why, and the window may be
 * spoiled. */
int direct_open(struct gapless_worker *worker, struct gapless_error *error);
/* What the card wrote is there for kernels that are launched after this. */
int direct_flush(struct worker_buffers *buffers, struct gapless_error *error);
/* Norm, clipping, decay, momentum of DANA-Slim. GAPLESS_NOT_FINITE: it is not,
 * nothing more was done, and there is no text. */
int direct_prepare(struct gapless_worker *worker, double *ret_norm,
                   struct gapless_error *error);
#endif
