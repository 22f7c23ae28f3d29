/* Built-in models on a GPU: softmax regression and multi-layer perceptrons. What
 * model_gradient is on the CPU, with the parameters and the gradient in GPU memory; the
 * arithmetic is cuBLAS's in plain floats (no TF32), so the last bits are not the CPU's.
 * Convolutional networks stay on the CPU.
 *
 *     struct model_gpu *gpu;
 *     model_gpu_open(&model, 0, 32, &gpu, &error);      GPU 0, batches of at most 32
 *     worker config: .params = model_gpu_params(gpu), .grad = model_gpu_grad(gpu)
 *     pull
 *     model_gpu_gradient(gpu, x, labels, 32, &loss, &error);
 *     push
 *
 * The plugin libgapless_cuda.so and cuBLAS are opened at run time. Not for two threads
 * at once.
 */
#ifndef GAPLESS_WORKLOADS_MODEL_GPU_H
#define GAPLESS_WORKLOADS_MODEL_GPU_H

#include "cluster/workloads/model.h"

struct model_gpu;

/* Can the model be computed on a GPU of this machine, as far as it can be seen without
 * using one: GAPLESS_UNSUPPORTED: not this model; GAPLESS_MISSING, GAPLESS_VERSION: the
 * plugin or cuBLAS; the text says what to do. */
int model_gpu_ready(const struct model *model, struct gapless_error *error);

/* Takes all memory: parameters, gradient, and what batches of up to `batch_max` samples
 * need. `which` is as CUDA counts GPUs. GAPLESS_INVALID (batch_max),
 * GAPLESS_NO_MEMORY, what model_gpu_ready says, or why the GPU cannot be used. */
int model_gpu_open(const struct model *model, uint32_t which, uint32_t batch_max,
                   struct model_gpu **ret, struct gapless_error *error);
void model_gpu_close(struct model_gpu *gpu); /* NULL: nothing */

/* GPU memory, model->parameters floats each. */
float *model_gpu_params(struct model_gpu *gpu);
float *model_gpu_grad(struct model_gpu *gpu);

/* The mean cross-entropy (in nats) of `batch` samples x with `labels`, which are of the
 * host, at params; its gradient is complete in grad when this returns. *ret_loss is
 * NaN, and grad as it was, where batch is not within 1 .. batch_max or a label is not
 * below classes. */
int model_gpu_gradient(struct model_gpu *gpu, const float *x, const uint8_t *labels,
                       uint32_t batch, double *ret_loss, struct gapless_error *error);

/* `count` floats from the host to GPU memory, or the other way; waits. For tests, and
 * faults on purpose. */
int model_gpu_set(struct model_gpu *gpu, float *to, const float *from, size_t count,
                  struct gapless_error *error);
int model_gpu_get(struct model_gpu *gpu, float *to, const float *from, size_t count,
                  struct gapless_error *error);

#endif
