/* Products by cuBLAS: see products.h. */
#include "gpu/products.h"

/* What NVIDIA recommends for Hopper; others need 4 MiB ("cuBLAS", cublasSetWorkspace).
 * With a workspace of its own a handle gives the same bits on every run. */
#define WORKSPACE_BYTES ((size_t)32 << 20)

static int refused(const struct gpu_products *p, const char *call, int code,
                   struct gapless_error *error)
{
    return gapless_error_set(
        error, GAPLESS_SYSTEM, 0,
        "GPU %u: cublas%s failed with status %d: cuBLAS, driver and GPU may not fit "
        "together, or the GPU's memory is full (see nvidia-smi)",
        device_number(p->device), call, code);
}

/* The stream first: cuBLAS forgets a workspace when it is given a stream. */
static int open_handle(struct gpu_products *p, struct gapless_error *error)
{
    int code;

    if (!device_enter(p->device))
        return device_failure(p->device, error);
    code = p->cublas->Create_v2(&p->handle);
    if (code != CUBLAS_OK) {
        p->handle = NULL;
        return refused(p, "Create", code, error);
    }
    code = p->cublas->SetStream_v2(p->handle, device_work_stream(p->device));
    if (code != CUBLAS_OK)
        return refused(p, "SetStream", code, error);
    code = p->cublas->SetWorkspace_v2(p->handle, p->workspace, WORKSPACE_BYTES);
    if (code != CUBLAS_OK)
        return refused(p, "SetWorkspace", code, error);
    code = p->cublas->SetMathMode(p->handle, CUBLAS_PLAIN_FLOATS);
    if (code != CUBLAS_OK)
        return refused(p, "SetMathMode", code, error);
    code = p->cublas->SetPointerMode_v2(p->handle, CUBLAS_FROM_HOST);
    return code == CUBLAS_OK ? GAPLESS_OK : refused(p, "SetPointerMode", code, error);
}

int gpu_products_open(struct device *device, struct gpu_products *ret,
                      struct gapless_error *error)
{
    int status;

    *ret = gpu_products{device, NULL, NULL, NULL};
    status = cublas_find(&ret->cublas, error);
    if (status == GAPLESS_OK)
        status = gpu_device.take(device, WORKSPACE_BYTES, &ret->workspace, error);
    return status == GAPLESS_OK ? open_handle(ret, error) : status;
}

void gpu_products_close(struct gpu_products *products)
{
    if (products->device == NULL)
        return;
    (void)device_enter(products->device);
    if (products->handle != NULL)
        (void)products->cublas->Destroy_v2(products->handle);
    if (products->workspace != NULL)
        gpu_device.give(products->device, products->workspace);
    *products = gpu_products{NULL, NULL, NULL, NULL};
}

bool gpu_multiply(const struct gpu_products *products, const struct gpu_product *p)
{
    int code;

    if (!device_enter(products->device))
        return false;
    code = products->cublas->Sgemm_v2(products->handle, p->op_a, p->op_b, p->rows,
                                      p->columns, p->inner, &p->alpha, p->a, p->a_step,
                                      p->b, p->b_step, &p->beta, p->c, p->rows);
    if (code == CUBLAS_OK)
        return true;
    (void)device_break(products->device, GAPLESS_SYSTEM,
                       "cublasSgemm failed with status %d", code);
    return false;
}
