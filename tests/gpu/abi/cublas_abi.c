/* Compiled where there is a cublas_v2.h: are our declarations those of cuBLAS? */
#include "gpu/cublas_api.h"

#include <cublas_v2.h>

#define SAME(ours, theirs) _Static_assert((int)(ours) == (int)(theirs), #theirs)

SAME(CUBLAS_OK, CUBLAS_STATUS_SUCCESS);
SAME(CUBLAS_AS_IT_IS, CUBLAS_OP_N);
SAME(CUBLAS_TRANSPOSED, CUBLAS_OP_T);
SAME(CUBLAS_PLAIN_FLOATS, CUBLAS_DEFAULT_MATH);
SAME(CUBLAS_FROM_HOST, CUBLAS_POINTER_MODE_HOST);
SAME(sizeof(int), sizeof(cublasStatus_t));
SAME(sizeof(int), sizeof(cublasOperation_t));
SAME(sizeof(int), sizeof(cublasMath_t));
SAME(sizeof(int), sizeof(cublasPointerMode_t));
_Static_assert(__builtin_types_compatible_p(cublas_handle, cublasHandle_t), "handle");

/* The functions: a call by cuBLAS's declaration with arguments of our types. Enums and
 * int are passed alike. */
int cublas_abi_calls(cublas_handle handle, cudaStream_t stream, void *memory,
                     const float *one, float *c);
int cublas_abi_calls(cublas_handle handle, cudaStream_t stream, void *memory,
                     const float *one, float *c)
{
    int ret = 0;

    ret |= (int)cublasCreate_v2(&handle);
    ret |= (int)cublasSetStream_v2(handle, stream);
    ret |= (int)cublasSetWorkspace_v2(handle, memory, (size_t)1);
    ret |= (int)cublasSetMathMode(handle, (cublasMath_t)CUBLAS_PLAIN_FLOATS);
    ret |= (int)cublasSetPointerMode_v2(handle, (cublasPointerMode_t)CUBLAS_FROM_HOST);
    ret |= (int)cublasSgemm_v2(handle, (cublasOperation_t)CUBLAS_AS_IT_IS,
                               (cublasOperation_t)CUBLAS_TRANSPOSED, 1, 1, 1, one, one,
                               1, one, 1, one, c, 1);
    ret |= (int)cublasDestroy_v2(handle);
    return ret;
}
