/* The layers by CBLAS: OpenBLAS, or any other that has cblas_sgemm. */
#include "cluster/workloads/model_ops.h"

#include <cblas.h>

/* Only OpenBLAS has it; with another CBLAS the address is NULL. */
extern void openblas_set_num_threads(int) __attribute__((weak));

static void forward(struct layer_size n, const float *a, const float *w, float *z)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, (int)n.batch, (int)n.outputs,
                (int)n.inputs, 1.0F, a, (int)n.inputs, w, (int)n.inputs, 1.0F, z,
                (int)n.outputs);
}

static void weight(struct layer_size n, const float *dz, const float *a, float *dw)
{
    cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, (int)n.outputs, (int)n.inputs,
                (int)n.batch, 1.0F, dz, (int)n.outputs, a, (int)n.inputs, 0.0F, dw,
                (int)n.inputs);
}

static void input(struct layer_size n, const float *dz, const float *w, float *da)
{
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, (int)n.batch, (int)n.inputs,
                (int)n.outputs, 1.0F, dz, (int)n.outputs, w, (int)n.inputs, 0.0F, da,
                (int)n.inputs);
}

static void prepare(void)
{
    if (openblas_set_num_threads != NULL)
        openblas_set_num_threads(1);
}

const struct layer_ops layer_ops_blas = {forward, weight, input, prepare};
