/* Parts of kernel_apply that are in other files. */
#ifndef GAPLESS_GPU_PARTS_CUH
#define GAPLESS_GPU_PARTS_CUH

#include "gpu/kernels.h"

/* One gradient of a RULE_BLOCK rule that is measured: compute_cuda_blocks.cu. `q`:
 * which it is of those that came together (for dots). */
cudaError_t blocks_apply(const struct kernel_place *place, const struct rule *rule,
                         const struct device_pass *pass,
                         const struct kernel_blocks *blocks, uint32_t q, size_t n,
                         struct device_result *ret);

/* sums.gap_sq alone: compute_cuda_more.cu. */
cudaError_t gap_alone(const struct kernel_place *place, const float *theta,
                      const float *sent, size_t n, struct device_result *ret);

#endif
