/* What is used of cuBLAS, in declarations of our own: the library is opened at run
 * time, and a machine that builds Gapless need not have it.
 *
 * Names, values and types are those of cuBLAS 11 and later (NVIDIA, "cuBLAS",
 * docs.nvidia.com/cuda/cublas); tests/gpu/test_cublas_abi.sh compares them with a
 * cublas_v2.h where there is one.
 */
#ifndef GAPLESS_GPU_CUBLAS_API_H
#define GAPLESS_GPU_CUBLAS_API_H

#include <gapless/status.h>

#include <cuda_runtime_api.h>
#include <stddef.h>

typedef struct cublasContext *cublas_handle;

enum {
    CUBLAS_OK = 0,           /* CUBLAS_STATUS_SUCCESS */
    CUBLAS_AS_IT_IS = 0,     /* CUBLAS_OP_N */
    CUBLAS_TRANSPOSED = 1,   /* CUBLAS_OP_T */
    CUBLAS_PLAIN_FLOATS = 0, /* CUBLAS_DEFAULT_MATH: no TF32 */
    CUBLAS_FROM_HOST = 0     /* CUBLAS_POINTER_MODE_HOST: of alpha and beta */
};

/* The functions, by the name that dlsym looks for: FUNCTION(name, result, (arguments)).
 * Enumerations of cuBLAS are ints. */
#define CUBLAS_API_FUNCTIONS(FUNCTION)                                                 \
    FUNCTION(Create_v2, int, (cublas_handle * ret))                                    \
    FUNCTION(Destroy_v2, int, (cublas_handle handle))                                  \
    FUNCTION(SetStream_v2, int, (cublas_handle handle, cudaStream_t stream))           \
    FUNCTION(SetWorkspace_v2, int, (cublas_handle handle, void *memory, size_t bytes)) \
    FUNCTION(SetMathMode, int, (cublas_handle handle, int mode))                       \
    FUNCTION(SetPointerMode_v2, int, (cublas_handle handle, int mode))                 \
    FUNCTION(Sgemm_v2, int,                                                            \
             (cublas_handle handle, int op_a, int op_b, int m, int n, int k,           \
              const float *alpha, const float *a, int a_step, const float *b,          \
              int b_step, const float *beta, float *c, int c_step))

struct cublas {
#define CUBLAS_MEMBER(name, result, arguments) result(*name) arguments;
    CUBLAS_API_FUNCTIONS(CUBLAS_MEMBER)
#undef CUBLAS_MEMBER
};

#ifdef __cplusplus
extern "C" {
#endif

/* Opens cuBLAS, once in a process; from any thread. The file is GAPLESS_CUBLAS of the
 * environment, or libcublas.so.13, .12 or .so where the system looks. It is never
 * closed. GAPLESS_MISSING, GAPLESS_VERSION. */
int cublas_find(const struct cublas **ret, struct gapless_error *error);

#ifdef __cplusplus
}
#endif

#endif
