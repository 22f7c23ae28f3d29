/* Test functions for convergence studies: a gradient that costs nothing, whose exact
 * value is known everywhere, with noise of a chosen size on top. They need no data set.
 *
 *     quadratic  f(x) = sum of h_i / 2 * x_i^2      one bowl, condition number 10
 *     valley     f(x) = sum of h_i * v(x_i)         not convex, one minimum
 *
 *                v(x) = x^2 / (2 (1 + x^2)) + x^2 / 40
 *
 *         f    \                           /        steep floor, flat shoulders: v'' is
 *               '-.                     .-'         1.05 at 0, negative from |x| = 0.69
 *                  `-.___         ___.-'            to 2.02 (least -0.2 at 1), and 0.05
 *                        `-.   .-'                  far out; v' is never 0 but at 0.
 *              -2    -1   `-.-'   1     2    x
 *
 * The h_i are spaced evenly in their logarithm from 0.1 (first coordinate) to 1 (last;
 * h is 1 where there is only one). So gradients are Lipschitz with constant 1
 * (quadratic) or 1.05 (valley), and the least value of both is 0, at 0.
 *
 * A stochastic gradient is the exact one plus normal noise of deviation sigma in every
 * coordinate, independent between coordinates and between batches. The noise depends
 * only on (seed, batch), as the samples of a batch would: two workers that take the
 * same batch at the same point get the same bits, on any machine.
 *
 *     struct toy toy;
 *     toy_parse("quadratic:64:0.1", &toy, &error);
 *     theta = malloc(toy.dim * sizeof *theta); grad likewise
 *     toy_init(&toy, seed, theta);
 *     loss = toy_gradient(&toy, seed, batch, theta, grad);
 *     how_far = toy_grad_norm_sq(&toy, theta);
 *
 * Numbers that are not finite give a loss and a norm that are not finite.
 */
#ifndef GAPLESS_WORKLOADS_TOY_H
#define GAPLESS_WORKLOADS_TOY_H

#include <gapless/status.h>

#include <stdbool.h>
#include <stdint.h>

/* For usage texts. */
#define TOY_CHOICES "quadratic[:DIM[:SIGMA]], valley[:DIM[:SIGMA]]"

enum {
    TOY_DIM = 64, /* where no DIM is given */
    TOY_DIM_MAX = 1 << 24,
    TOY_SPEC_MAX = 64
};

/* Where no SIGMA is given, and the largest. */
#define TOY_SIGMA 0.1
#define TOY_SIGMA_MAX 1e6

enum toy_kind {
    TOY_QUADRATIC,
    TOY_VALLEY
};

/* A value: copy it freely; nothing to free. */
struct toy {
    char spec[TOY_SPEC_MAX]; /* as given */
    uint32_t dim;            /* coordinates: floats in theta and in a gradient */
    double sigma;            /* deviation of the noise in each coordinate */
    int kind;                /* enum toy_kind */
};

/* Whether a model's spec names a test function (it may still be wrong in the rest). */
bool toy_is(const char *spec);

/* Reads "quadratic", "quadratic:DIM" or "quadratic:DIM:SIGMA", and the same of valley:
 * DIM 1 to TOY_DIM_MAX, SIGMA 0 (exact gradients) to TOY_SIGMA_MAX. GAPLESS_INVALID
 * otherwise; the text says what is wrong. */
int toy_parse(const char *spec, struct toy *ret, struct gapless_error *error);

/* A starting point: dim normal numbers, of deviation 1 for the quadratic and 2 for the
 * valley (about half of the coordinates begin where it is not convex). The same seed
 * gives the same bits on every machine, unlike those of any batch's noise. */
void toy_init(const struct toy *toy, uint64_t seed, float *ret_theta);

/* The stochastic gradient of a batch at theta, into ret_grad (dim floats, must not
 * overlap theta; NULL: only the loss is wanted). Returns the exact loss f(theta),
 * without noise. */
double toy_gradient(const struct toy *toy, uint64_t seed, uint64_t batch,
                    const float *theta, float *ret_grad);

/* The squared length of the exact gradient at theta: what convergence theorems
 * bound. */
double toy_grad_norm_sq(const struct toy *toy, const float *theta);

#endif
