/* The kernels of compute_cuda.cu that also add up gap_sq: apart, so that the two can be
 * compiled beside each other. */
#define GAP 1
#include "gpu/apply_kernels.cuh"
