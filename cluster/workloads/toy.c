/* The test functions: everything in double and by + - * / only, so that the bits are
 * the same on every machine. */
#include "cluster/workloads/toy.h"

#include "engine/base/rng.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The weak bowl under the valley: x^2 / 40. */
static const double VALLEY_BOWL = 0.05;
/* The spread of the h_i: from 1 / CONDITION to 1. */
static const double CONDITION = 10.0;
/* Batches count up from 0, so that no run reaches this stream of the seed. */
static const uint64_t STREAM_START = UINT64_MAX;

static const struct {
    const char *name;
    double start; /* deviation of the starting point */
} kinds[] = {[TOY_QUADRATIC] = {"quadratic", 1.0}, [TOY_VALLEY] = {"valley", 2.0}};

enum {
    KINDS = sizeof kinds / sizeof kinds[0]
};

/* The kind whose name the spec begins with, and what follows it; -1: none. */
static int find_kind(const char *spec, const char **ret_rest)
{
    for (int i = 0; i < KINDS; i++) {
        size_t length = strlen(kinds[i].name);

        if (strncmp(spec, kinds[i].name, length) == 0 &&
            (spec[length] == '\0' || spec[length] == ':')) {
            *ret_rest = spec + length;
            return i;
        }
    }
    return -1;
}

bool toy_is(const char *spec)
{
    const char *rest;

    return find_kind(spec, &rest) >= 0;
}

static int bad_spec(struct gapless_error *error, const char *spec)
{
    return gapless_error_set(error, GAPLESS_INVALID, 0,
                             "no test function is called \"%.60s\": choose one of %s, "
                             "such as quadratic:64 or valley:64:0.1",
                             spec, TOY_CHOICES);
}

/* Reads ":DIM" at *at and moves on. */
static int parse_dim(const char *spec, const char **at, struct toy *ret,
                     struct gapless_error *error)
{
    unsigned long dim;
    char *end;

    if ((*at)[1] < '0' || (*at)[1] > '9')
        return bad_spec(error, spec);
    errno = 0;
    dim = strtoul(*at + 1, &end, 10);
    if (*end != '\0' && *end != ':')
        return bad_spec(error, spec);
    if (errno != 0 || dim < 1 || dim > TOY_DIM_MAX)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "model %.60s: it has 1 to %d coordinates", spec,
                                 TOY_DIM_MAX);
    ret->dim = (uint32_t)dim;
    *at = end;
    return GAPLESS_OK;
}

/* Reads ":SIGMA", which is the last. */
static int parse_sigma(const char *spec, const char *at, struct toy *ret,
                       struct gapless_error *error)
{
    double sigma;
    char *end;

    at++;
    if (*at == '\0' || strspn(at, "0123456789.eE+-") != strlen(at) || *at == '+')
        return bad_spec(error, spec);
    sigma = strtod(at, &end);
    if (end == at || *end != '\0')
        return bad_spec(error, spec);
    if (!(sigma >= 0.0 && sigma <= TOY_SIGMA_MAX))
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "model %.60s: the noise has a deviation of 0 to %g",
                                 spec, TOY_SIGMA_MAX);
    ret->sigma = sigma;
    return GAPLESS_OK;
}

int toy_parse(const char *spec, struct toy *ret, struct gapless_error *error)
{
    struct toy toy = {.dim = TOY_DIM, .sigma = TOY_SIGMA};
    const char *at;
    int status = GAPLESS_OK;

    toy.kind = find_kind(spec, &at);
    if (toy.kind < 0 || strlen(spec) >= sizeof toy.spec)
        return bad_spec(error, spec);
    if (*at == ':')
        status = parse_dim(spec, &at, &toy, error);
    if (status == GAPLESS_OK && *at == ':')
        status = parse_sigma(spec, at, &toy, error);
    if (status != GAPLESS_OK)
        return status;
    (void)snprintf(toy.spec, sizeof toy.spec, "%s", spec);
    *ret = toy;
    return GAPLESS_OK;
}

void toy_init(const struct toy *toy, uint64_t seed, float *ret_theta)
{
    struct rng r = rng_seed(seed, STREAM_START);

    for (uint32_t i = 0; i < toy->dim; i++)
        ret_theta[i] = (float)(kinds[toy->kind].start * rng_normal(&r));
}

/* h of the first coordinate, and the factor from one to the next: h_i is
 * CONDITION^(i / (dim-1) - 1). */
static double first_weight(const struct toy *toy, double *ret_ratio)
{
    if (toy->dim == 1) {
        *ret_ratio = 1.0;
        return 1.0;
    }
    *ret_ratio = portable_exp(portable_log(CONDITION) / (double)(toy->dim - 1));
    return 1.0 / CONDITION;
}

/* The slope of one coordinate's function, before its weight; its value in ret_value. */
static double slope(int kind, double x, double *ret_value)
{
    double q;

    if (kind == TOY_QUADRATIC) {
        *ret_value = 0.5 * x * x;
        return x;
    }
    q = 1.0 / (1.0 + x * x);
    *ret_value = 0.5 * (x * x * q + VALLEY_BOWL * x * x);
    return x * (q * q + VALLEY_BOWL);
}

double toy_gradient(const struct toy *toy, uint64_t seed, uint64_t batch,
                    const float *theta, float *ret_grad)
{
    struct rng r = rng_seed(seed, batch);
    double ratio, h = first_weight(toy, &ratio), loss = 0.0;

    for (uint32_t i = 0; i < toy->dim; i++, h *= ratio) {
        double value, g = h * slope(toy->kind, (double)theta[i], &value);

        loss += h * value;
        if (ret_grad != NULL)
            ret_grad[i] = (float)(g + toy->sigma * rng_normal(&r));
    }
    return loss;
}

double toy_grad_norm_sq(const struct toy *toy, const float *theta)
{
    double ratio, h = first_weight(toy, &ratio), sum = 0.0;

    for (uint32_t i = 0; i < toy->dim; i++, h *= ratio) {
        double value, g = h * slope(toy->kind, (double)theta[i], &value);

        sum += g * g;
    }
    return sum;
}
