/* What a model does between matrix products: one launch each. model.cu calls these.
 *
 * All matrices are row-major, `batch` rows. Pointers are the GPU's. NaN passes through
 * ReLU and its mask, as in cluster/workloads/model_gradient.c. Nothing waits.
 */
#ifndef GAPLESS_GPU_MODEL_KERNELS_H
#define GAPLESS_GPU_MODEL_KERNELS_H

#include <cuda_runtime.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* z += bias in each row; then ReLU, if so wanted. */
cudaError_t model_bias(cudaStream_t stream, float *z, const float *bias, uint32_t batch,
                       uint32_t width, bool relu);
/* By sample: its cross-entropy in nats, and the gradient of the batch's mean of them
 * with respect to the logits z. */
cudaError_t model_loss(cudaStream_t stream, const float *z, const uint8_t *labels,
                       uint32_t batch, uint32_t classes, float *ret_loss,
                       float *ret_dz);
/* ret[i] = sum of column i, first row first. */
cudaError_t model_columns(cudaStream_t stream, const float *rows, uint32_t batch,
                          uint32_t width, float *ret);
/* da = 0 where ReLU's output a was 0. */
cudaError_t model_mask(cudaStream_t stream, float *da, const float *a, size_t n);

#endif
