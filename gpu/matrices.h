/* Passes over matrices, inside the plugin: compute_cuda_matrices.cu launches, matrices.cu
 * says in which order and has the products done. All on kernel_place.stream. */
#ifndef GAPLESS_GPU_MATRICES_H
#define GAPLESS_GPU_MATRICES_H

#include "gpu/kernels.h"

enum {
    MATRIX_PARTS =
        3 /* of a stretch: the end of a chunk, whole ones, the start of one */
};

/* In GPU memory: what the kernels of a stretch leave for each other. */
struct matrix_facts {
    struct device_result part[MATRIX_PARTS]; /* value: what was measured of a part */
    struct device_result norm;               /* value: the sum of squares of a matrix */
    double sum;                              /* over the stretches so far */
    float gate;                              /* of this stretch */
};

/* What becomes of what was measured. */
struct matrix_gate {
    struct step_scalars scalars;
    double pieces, elements;
    unsigned parts; /* that were measured; 0: the gate is scalars.gate */
    bool first;     /* of the stretches */
    bool gated;     /* RULE_BLOCK */
    bool gap;       /* gap_sq was written by a launch before */
};

enum matrix_step {
    MATRIX_REST,   /* a tensor that is no matrix: all of its update */
    MATRIX_GATHER, /* before the products */
    MATRIX_TURN,   /* after them */
    MATRIX_SEND    /* a look-ahead alone */
};

#ifdef __cplusplus
extern "C" {
#endif

/* Elements begin .. end - 1 of `at`. */
cudaError_t matrix_pass(const struct kernel_place *place, const struct rule *rule,
                        enum matrix_step step, const struct arrays *at,
                        const struct step_scalars *scalars,
                        const struct matrix_facts *facts, size_t begin, size_t end);
/* ret->value, in GPU memory, of n elements of a matrix. */
cudaError_t matrix_measure(const struct kernel_place *place, const struct rule *rule,
                           const struct arrays *at, const struct step_scalars *scalars,
                           size_t n, struct device_result *ret);
/* facts->gate, ret->sums and *shown (NULL: not wanted). */
cudaError_t matrix_decide(const struct kernel_place *place,
                          const struct matrix_gate *gate, struct matrix_facts *facts,
                          struct device_result *ret, float *shown);
/* ret->value */
cudaError_t matrix_sum(const struct kernel_place *place, const struct matrix_gate *gate,
                       struct matrix_facts *facts, struct device_result *ret);
/* x /= root of facts->norm */
cudaError_t matrix_normalise(const struct kernel_place *place, float *x, size_t n,
                             const struct matrix_facts *facts);
/* b += MATRIX_A on the diagonal of side x side. */
cudaError_t matrix_diagonal(const struct kernel_place *place, float *b, size_t side);
/* ret->sums.gap_sq */
cudaError_t matrix_gap(const struct kernel_place *place, const float *theta,
                       const float *sent, size_t n, struct device_result *ret);

#ifdef __cplusplus
}
#endif

#endif
