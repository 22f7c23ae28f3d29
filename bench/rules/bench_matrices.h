/* What a matrix costs under the rules that work on matrices (Muon), beside its passes. */
#ifndef GAPLESS_BENCH_MATRICES_H
#define GAPLESS_BENCH_MATRICES_H

#include "engine/compute/compute.h"

#include <stdint.h>

enum {
    BENCH_MATRICES = 5
};

struct bench_matrix {
    uint32_t rows, cols;
    double passes_s; /* before and after the products, of dana-lga-muon */
    double turn_s;   /* the products, and what else NS is */
    double gemm_s;   /* the same products alone, by the same library */
    double work;     /* floating-point operations of either */
};

/* One thread; in about this many seconds, and of each matrix that takes longer none. Prints
 * a table; how many rows are filled. */
int bench_matrices(const struct compute *compute, double seconds,
                   struct bench_matrix ret[BENCH_MATRICES]);

#endif
