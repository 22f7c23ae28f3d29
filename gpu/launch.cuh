/* Launch: the one way in which kernels are asked for. Under nvcc a launch as CUDA has
 * it; in the tests (tests/gpu/shim) the same kernel, as C++, on the CPU.
 *
 *   return GAPLESS_LAUNCH(kernel, grid, block, stream, work);
 *
 * Its value is the error of the launch. The arguments are copied now, the kernel runs
 * when the stream gets there.
 */
#ifndef GAPLESS_GPU_LAUNCH_CUH
#define GAPLESS_GPU_LAUNCH_CUH

#include <cuda_runtime.h>

/* clang-format does not know the brackets of a launch. */
/* clang-format off */
#if defined(GAPLESS_CUDA_SHIM)
#define GAPLESS_LAUNCH(kernel, grid, block, stream, ...)                               \
    cuemu_launch((kernel), (grid), (block), (stream), __VA_ARGS__)
#else
#define GAPLESS_LAUNCH(kernel, grid, block, stream, ...)                               \
    ((kernel)<<<(grid), (block), 0, (stream)>>>(__VA_ARGS__), cudaGetLastError())
#endif
/* clang-format on */

#endif
