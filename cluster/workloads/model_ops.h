/* Private to the models: what a layer needs of its arithmetic, as a table, so that the
 * reference and CBLAS differ in nothing else. */
#ifndef GAPLESS_WORKLOADS_MODEL_OPS_H
#define GAPLESS_WORKLOADS_MODEL_OPS_H

#include <stddef.h>
#include <stdint.h>

/* Sizes of one layer's step. All matrices are row-major and dense. */
struct layer_size {
    uint32_t batch, inputs, outputs;
};

struct layer_ops {
    /* z[batch][outputs] += a[batch][inputs] * transpose(w[outputs][inputs]) */
    void (*forward)(struct layer_size n, const float *a, const float *w, float *z);
    /* dw[outputs][inputs] = transpose(dz[batch][outputs]) * a[batch][inputs] */
    void (*weight)(struct layer_size n, const float *dz, const float *a, float *dw);
    /* da[batch][inputs] = dz[batch][outputs] * w[outputs][inputs] */
    void (*input)(struct layer_size n, const float *dz, const float *w, float *da);
    /* Once before use in a process. */
    void (*prepare)(void);
};

extern const struct layer_ops layer_ops_ref;
extern const struct layer_ops layer_ops_blas;

#endif
