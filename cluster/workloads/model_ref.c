/* The reference arithmetic: three loops, each sum in one fixed order, so that the
 * result has the same bits whatever compiler, vector width or machine (without
 * contraction). */
#include "cluster/workloads/model_ops.h"

#include <string.h>

/* Sums in 16 interleaved parts, which compilers can keep in vectors without changing
 * the order, and which lose less to rounding than one. */
enum {
    LANES = 16
};

static float dot(const float *a, const float *b, uint32_t n)
{
    float lanes[LANES] = {0};
    uint32_t i = 0;

    for (; i + LANES <= n; i += LANES)
        for (uint32_t j = 0; j < LANES; j++)
            lanes[j] += a[i + j] * b[i + j];
    for (uint32_t j = 0; i + j < n; j++)
        lanes[j] += a[i + j] * b[i + j];
    for (uint32_t width = LANES / 2; width > 0; width /= 2)
        for (uint32_t j = 0; j < width; j++)
            lanes[j] += lanes[j + width];
    return lanes[0];
}

static void add_scaled(float *restrict to, const float *restrict from, float factor,
                       uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        to[i] += factor * from[i];
}

static void forward(struct layer_size n, const float *a, const float *w, float *z)
{
    for (uint32_t b = 0; b < n.batch; b++)
        for (uint32_t o = 0; o < n.outputs; o++)
            z[(size_t)b * n.outputs + o] +=
                dot(a + (size_t)b * n.inputs, w + (size_t)o * n.inputs, n.inputs);
}

static void weight(struct layer_size n, const float *dz, const float *a, float *dw)
{
    memset(dw, 0, (size_t)n.outputs * n.inputs * sizeof *dw);
    for (uint32_t o = 0; o < n.outputs; o++)
        for (uint32_t b = 0; b < n.batch; b++)
            add_scaled(dw + (size_t)o * n.inputs, a + (size_t)b * n.inputs,
                       dz[(size_t)b * n.outputs + o], n.inputs);
}

static void input(struct layer_size n, const float *dz, const float *w, float *da)
{
    memset(da, 0, (size_t)n.batch * n.inputs * sizeof *da);
    for (uint32_t b = 0; b < n.batch; b++)
        for (uint32_t o = 0; o < n.outputs; o++)
            add_scaled(da + (size_t)b * n.inputs, w + (size_t)o * n.inputs,
                       dz[(size_t)b * n.outputs + o], n.inputs);
}

static void prepare(void)
{
}

const struct layer_ops layer_ops_ref = {forward, weight, input, prepare};
