/* Kernels: the passes of a device, each one launch (or a few) on a stream. device.cu
 * calls these; compute_cuda*.cu have them. Nothing here waits or allocates.
 *
 * All functions return what the launch returned. Pointers are the GPU's. A struct
 * device_result lies in host memory that the GPU can write.
 */
#ifndef GAPLESS_GPU_KERNELS_H
#define GAPLESS_GPU_KERNELS_H

#include "engine/device/device.h"

#include <cuda_runtime.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Where a launch works. */
struct kernel_place {
    cudaStream_t stream;
    uint32_t processors; /* of the GPU: how many blocks fill it */
    void *scratch;       /* kernel_scratch_bytes(), 256-byte aligned, zero at first;
                            one launch after another uses it */
};

/* Scratch for passes over at most n elements in at most this many blocks, of up to
 * DEVICE_QUEUE gradients. */
size_t kernel_scratch_bytes(size_t n, uint32_t blocks);

/* struct blocks on the GPU. */
struct kernel_blocks {
    const uint32_t *ends, *pieces; /* pieces: NULL means 1 for each */
    uint32_t count;
    const double *dots; /* count for each gradient of an apply, one after another; NULL:
                           0 */
    size_t elements;    /* the last of `ends`, which is on the GPU */
    float *gates;       /* of each gradient of an apply, `gates_stride` apart; NULL: not
                           wanted. See struct blocks */
    size_t gates_stride;
};

cudaError_t kernel_apply(const struct kernel_place *place, const struct rule *rule,
                         const struct device_pass *pass, uint32_t count,
                         const struct kernel_blocks *blocks, size_t n,
                         struct device_result *ret);
cudaError_t kernel_measure(const struct kernel_place *place, const struct rule *rule,
                           const struct arrays *at, const struct step_scalars *scalars,
                           size_t n, struct device_result *ret);
/* grad, sent: `workers` pointers each, in GPU memory. */
cudaError_t kernel_round(const struct kernel_place *place, const struct rule *rule,
                         const struct arrays *at, const struct step_scalars *scalars,
                         const float *const *grad, float *const *sent, uint32_t workers,
                         size_t n, unsigned want, struct device_result *ret);
cudaError_t kernel_look_ahead(const struct kernel_place *place, const struct rule *rule,
                              const struct arrays *at,
                              const struct step_scalars *scalars, size_t n);
cudaError_t kernel_forget(const struct kernel_place *place, const struct rule *rule,
                          const struct arrays *at, size_t n);
/* own: `workers` pointers in GPU memory. */
cudaError_t kernel_resum(const struct kernel_place *place, float *all,
                         const float *const *own, uint32_t workers, size_t n);
cudaError_t kernel_finite(const struct kernel_place *place, const float *x, size_t n,
                          struct device_result *ret);
cudaError_t kernel_norm_sq(const struct kernel_place *place, const float *x, size_t n,
                           struct device_result *ret);
cudaError_t kernel_scale(const struct kernel_place *place, float *x, float factor,
                         size_t n);
cudaError_t kernel_decay(const struct kernel_place *place, float *grad,
                         const float *params, float decay, size_t n,
                         struct device_result *ret);
cudaError_t kernel_slim(const struct kernel_place *place, float *grad, float *velocity,
                        float momentum, size_t n);
cudaError_t kernel_average(const struct kernel_place *place, float *theta, float *sent,
                           const float *grad, float share, float average, size_t n);

#ifdef __cplusplus
}
#endif

#endif
