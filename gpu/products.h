/* Products of matrices on a device's stream of passes, by cuBLAS, in plain floats (no
 * TF32). cuBLAS counts columns first: to it, a row-major matrix is its own transpose. */
#ifndef GAPLESS_GPU_PRODUCTS_H
#define GAPLESS_GPU_PRODUCTS_H

#include "gpu/cublas_api.h"
#include "gpu/plugin.h"

#ifdef __cplusplus
extern "C" {
#endif

struct gpu_products {
    struct device *device;
    const struct cublas *cublas;
    cublas_handle handle;
    void *workspace;
};

/* Loads cuBLAS if need be. What was taken when it fails is given back by close. */
int gpu_products_open(struct device *device, struct gpu_products *ret,
                      struct gapless_error *error);
/* All zero is a no-op. */
void gpu_products_close(struct gpu_products *products);

/* c = alpha a b + beta c, of matrices whose columns lie one after another: c is rows x
 * columns. beta 0: what c held does not matter. */
struct gpu_product {
    int op_a, op_b;
    int rows, columns, inner;
    float alpha, beta;
    const float *a, *b;
    int a_step, b_step;
    float *c;
};
/* Asks for it. False: kept as the device's failure. */
bool gpu_multiply(const struct gpu_products *products,
                  const struct gpu_product *product);

#ifdef __cplusplus
}
#endif

#endif
