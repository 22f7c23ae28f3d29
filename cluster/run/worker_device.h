/* Where a worker computes: the CPU, or one GPU of those that its --device names (train:
 * --worker-device). The model's gradient behind one function, wherever it is. */
#ifndef CLUSTER_WORKER_DEVICE_H
#define CLUSTER_WORKER_DEVICE_H

#include "cluster/workloads/model_gpu.h"

#include <stdint.h>

/* At most this many GPUs in turn: DEVICE_MAX of engine/device/device.h. */
#define WORKER_GPUS_MAX 16u

/* GPUs that workers may take in turn; none: the CPU. */
struct worker_places {
    uint32_t gpus;
    uint32_t number[WORKER_GPUS_MAX]; /* as CUDA counts */
    char note[512];                   /* "auto" and no GPU: why, a line; "" else */
};

/* Settles what `text` asks for, for workers that train `model`: there is a GPU, the
 * plugin, cuBLAS, and the model can be computed there; or "auto" takes the CPU.
 * GAPLESS_INVALID: no such text. Otherwise exactly what is missing, and what to do. */
int worker_places(const char *text, const struct model *model,
                  struct worker_places *ret, struct gapless_error *error);

/* What computes gradients; zeroed at first. */
struct worker_compute {
    const struct model *model;
    struct model_scratch *scratch; /* the CPU */
    struct model_gpu *gpu;         /* or a GPU */
};

/* As `text` asks for; of several GPUs the first. A note, if there is one, is said. */
int worker_compute_open(const char *text, const struct model *model, uint32_t batch_max,
                        struct worker_compute *ret, struct gapless_error *error);
void worker_compute_close(struct worker_compute *compute);
/* Buffers for gapless_worker_config; NULL: the engine's own will do. */
float *worker_compute_params(const struct worker_compute *compute);
float *worker_compute_grad(const struct worker_compute *compute);
/* The mean loss of a batch at params and its gradient in grad, which are the worker's,
 * and of the GPU where that computes. */
int worker_compute_gradient(const struct worker_compute *compute, const float *params,
                            const float *x, const uint8_t *labels, uint32_t batch,
                            float *grad, double *ret_loss, struct gapless_error *error);
/* The first element of grad becomes NaN: a fault on purpose. */
int worker_compute_poison(const struct worker_compute *compute, float *grad,
                          struct gapless_error *error);

#endif
