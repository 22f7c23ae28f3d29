/* Fake cuBLAS: the functions of gpu/cublas_api.h, over the fake CUDA of the plugin. A
 * product is worked off when its stream gets there, in GPU memory that nobody else may
 * touch. Sums are in double, so they are not the bits of any other cuBLAS.
 *
 * Misuse ends the process: a handle that is closed, a stream or workspace or math mode
 * that was not set, sizes that make no sense.
 *
 * Environment: FAKE_CUBLAS_FAIL=NAME makes every call of that function ("Create",
 * "Sgemm") fail with status 13, CUBLAS_STATUS_EXECUTION_FAILED.
 */
#include "gpu/cublas_api.h"
#include "tests/gpu/fake/fake_work.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>

struct cublasContext {
    bool open;
    cudaStream_t stream;
    void *workspace;
    int math;
};

namespace
{
const int failed = 13;

void misuse(const char *what)
{
    std::fprintf(stderr, "fake cuBLAS: %s\n", what);
    std::abort();
}

bool fails(const char *name)
{
    const char *which = std::getenv("FAKE_CUBLAS_FAIL");

    return which != nullptr && std::strcmp(which, name) == 0;
}

fake_work_fn *look_for_work()
{
    const char *path = std::getenv("GAPLESS_CUDA_PLUGIN");
    void *plugin =
        path != nullptr ? dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_NOLOAD) : nullptr;
    void *symbol = plugin != nullptr ? dlsym(plugin, FAKE_WORK_SYMBOL) : nullptr;

    if (symbol == nullptr)
        misuse("GAPLESS_CUDA_PLUGIN is not the fake plugin, or is not open");
    return reinterpret_cast<fake_work_fn *>(symbol);
}

fake_work_fn *find_work()
{
    static fake_work_fn *found = look_for_work();

    return found;
}

void must_be_open(cublas_handle handle)
{
    if (handle == nullptr || !handle->open)
        misuse("a handle that is not open");
}

struct product {
    bool turn_a, turn_b;
    size_t m, n, k;
    float alpha, beta;
    const float *a, *b;
    float *c;
    size_t a_step, b_step, c_step;
};

/* Column j of a matrix begins at j * step. */
bool multiply(void *context)
{
    product *p = static_cast<product *>(context);

    for (size_t j = 0; j < p->n; j++)
        for (size_t i = 0; i < p->m; i++) {
            float *to = p->c + j * p->c_step + i;
            double sum = 0.0;

            for (size_t l = 0; l < p->k; l++) {
                float a = p->a[p->turn_a ? i * p->a_step + l : l * p->a_step + i];
                float b = p->b[p->turn_b ? l * p->b_step + j : j * p->b_step + l];

                sum += static_cast<double>(a) * static_cast<double>(b);
            }
            /* As BLAS: with beta 0 what was there is not read. */
            *to = static_cast<float>(sum) * p->alpha +
                  (p->beta != 0.0F ? p->beta * *to : 0.0F);
        }
    delete p;
    return true;
}
} // namespace

#define SHOWN extern "C" __attribute__((visibility("default")))

SHOWN int cublasCreate_v2(cublas_handle *ret);
SHOWN int cublasDestroy_v2(cublas_handle handle);
SHOWN int cublasSetStream_v2(cublas_handle handle, cudaStream_t stream);
SHOWN int cublasSetWorkspace_v2(cublas_handle handle, void *memory, size_t bytes);
SHOWN int cublasSetMathMode(cublas_handle handle, int mode);
SHOWN int cublasSetPointerMode_v2(cublas_handle handle, int mode);
SHOWN int cublasSgemm_v2(cublas_handle handle, int op_a, int op_b, int m, int n, int k,
                         const float *alpha, const float *a, int a_step, const float *b,
                         int b_step, const float *beta, float *c, int c_step);

int cublasCreate_v2(cublas_handle *ret)
{
    if (fails("Create"))
        return failed;
    *ret = new cublasContext{true, nullptr, nullptr, -1};
    return CUBLAS_OK;
}

int cublasDestroy_v2(cublas_handle handle)
{
    must_be_open(handle);
    handle->open = false;
    delete handle;
    return CUBLAS_OK;
}

int cublasSetStream_v2(cublas_handle handle, cudaStream_t stream)
{
    must_be_open(handle);
    handle->stream = stream;
    handle->workspace = nullptr; /* as the real one does */
    return fails("SetStream") ? failed : CUBLAS_OK;
}

int cublasSetWorkspace_v2(cublas_handle handle, void *memory, size_t bytes)
{
    must_be_open(handle);
    if (memory == nullptr || reinterpret_cast<uintptr_t>(memory) % 256 != 0 ||
        bytes < (size_t{1} << 20))
        misuse("a workspace that is too small or not aligned");
    handle->workspace = memory;
    return fails("SetWorkspace") ? failed : CUBLAS_OK;
}

int cublasSetMathMode(cublas_handle handle, int mode)
{
    must_be_open(handle);
    handle->math = mode;
    return fails("SetMathMode") ? failed : CUBLAS_OK;
}

int cublasSetPointerMode_v2(cublas_handle handle, int mode)
{
    must_be_open(handle);
    if (mode != CUBLAS_FROM_HOST)
        misuse("alpha and beta of the GPU");
    return fails("SetPointerMode") ? failed : CUBLAS_OK;
}

int cublasSgemm_v2(cublas_handle handle, int op_a, int op_b, int m, int n, int k,
                   const float *alpha, const float *a, int a_step, const float *b,
                   int b_step, const float *beta, float *c, int c_step)
{
    product *p;

    must_be_open(handle);
    if (fails("Sgemm"))
        return failed;
    if (handle->stream == nullptr || handle->workspace == nullptr ||
        handle->math != CUBLAS_PLAIN_FLOATS)
        misuse("a product before stream, workspace and math mode are set");
    if (m < 1 || n < 1 || k < 1 || a_step < (op_a == CUBLAS_AS_IT_IS ? m : k) ||
        b_step < (op_b == CUBLAS_AS_IT_IS ? k : n) || c_step < m)
        return 7; /* CUBLAS_STATUS_INVALID_VALUE */
    p = new product{op_a != CUBLAS_AS_IT_IS,
                    op_b != CUBLAS_AS_IT_IS,
                    static_cast<size_t>(m),
                    static_cast<size_t>(n),
                    static_cast<size_t>(k),
                    *alpha,
                    *beta,
                    a,
                    b,
                    c,
                    static_cast<size_t>(a_step),
                    static_cast<size_t>(b_step),
                    static_cast<size_t>(c_step)};
    if (find_work()(handle->stream, "cublasSgemm", multiply, p) == cudaSuccess)
        return CUBLAS_OK;
    delete p;
    return failed;
}
