/* Plugin: what the parts of libgapless_cuda.so share. device.cu has the GPU itself,
 * model.cu the models, group.c the groups, matrices.cu the rules of matrices; plugin.cu
 * hands their tables out.
 *
 *   engine ── gapless_gpu_plugin(abi) ──> struct gpu_plugin
 *                                           device: gpu_device         device.cu
 *                                           model:  gpu_model_cublas   model.cu
 *                                           group:  gpu_group_nccl     group.c
 *                                           matrices: gpu_matrices_cublas  matrices.cu
 *
 * A function that works on a device calls device_enter first, since a process may use
 * several GPUs from several threads and CUDA keeps the current one by thread; it stays
 * current. What a CUDA function returns goes through device_check, which keeps the
 * first failure of a device: everything asked for after it is skipped.
 */
#ifndef GAPLESS_GPU_PLUGIN_H
#define GAPLESS_GPU_PLUGIN_H

#include "engine/device/device.h"

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

extern const struct device_ops gpu_device;
extern const struct gpu_model_ops gpu_model_cublas;
extern const struct gpu_group_ops gpu_group_nccl;
extern const struct gpu_matrix_ops gpu_matrices_cublas;

/* ---- the inside of a device ---------------------------------------------- */

/* As CUDA counts. */
uint32_t device_number(const struct device *device);
/* The stream of passes. */
cudaStream_t device_work_stream(const struct device *device);
/* Makes the device the current one of this thread. False: it has failed, before or
 * now; nothing should be asked of it. */
bool device_enter(struct device *device);
/* True: `code` is success. False: the first such is kept as the device's failure; its
 * text names `call` ("cudaMemcpyAsync") and says what CUDA says. */
bool device_check(struct device *device, cudaError_t code, const char *call);
/* The same for a failure that is not CUDA's own (cuBLAS, NCCL): the text is
 * "GPU N: " and the rest. Returns `status`. */
int device_break(struct device *device, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The failure that was kept, as device_ops.failure gives it: GAPLESS_OK if none. */
int device_failure(const struct device *device, struct gapless_error *error);

/* A CUDA error as a status and a text, with no device concerned: GAPLESS_NO_MEMORY,
 * GAPLESS_MISSING (no driver, no GPU), else GAPLESS_SYSTEM. Takes the error from CUDA's
 * memory of the last one. Returns the status. */
int cuda_error_set(struct gapless_error *error, cudaError_t code, const char *call);

#ifdef __cplusplus
}
#endif

#endif
