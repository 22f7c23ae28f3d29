/* A model with room for all that a test of it needs. After cmocka.h. */
#ifndef TESTS_MODEL_BED_H
#define TESTS_MODEL_BED_H

#include "cluster/workloads/model.h"
#include "engine/base/rng.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

struct bed {
    struct model model;
    struct model_scratch *scratch;
    float *theta, *grad, *x;
    uint8_t *labels;
    uint32_t batch;
};

static inline float *floats(size_t count)
{
    float *ret = calloc(count, sizeof *ret);

    assert_non_null(ret);
    return ret;
}

static inline void make_bed(struct bed *ret, const char *spec, uint32_t features,
                            uint32_t classes, uint32_t batch, enum model_ops ops)
{
    struct rng r = rng_seed(11, features);
    struct gapless_error error = {.text = ""};

    if (model_parse(spec, features, classes, &ret->model, &error) != GAPLESS_OK ||
        model_scratch_new(&ret->model, batch, ops, &ret->scratch, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    ret->batch = batch;
    ret->theta = floats(ret->model.parameters);
    ret->grad = floats(ret->model.parameters);
    ret->x = floats((size_t)batch * features);
    ret->labels = calloc(batch, 1);
    assert_non_null(ret->labels);
    model_init(&ret->model, 5, ret->theta);
    for (size_t i = 0; i < (size_t)batch * features; i++)
        ret->x[i] = (float)rng_normal(&r);
    for (uint32_t i = 0; i < batch; i++)
        ret->labels[i] = (uint8_t)rng_below(&r, classes);
    for (uint32_t i = 0; i < ret->model.tensor_count; i++) /* biases matter as well */
        if (ret->model.tensors[i].rank == 1)
            for (size_t j = 0; j < ret->model.tensors[i].count; j++)
                ret->theta[ret->model.tensors[i].offset + j] =
                    0.3F * (float)rng_normal(&r);
}

static inline void free_bed(struct bed *bed)
{
    model_scratch_free(bed->scratch);
    free(bed->theta);
    free(bed->grad);
    free(bed->x);
    free(bed->labels);
}

static inline double gradient_of(struct bed *bed)
{
    return model_gradient(&bed->model, bed->scratch, bed->theta, bed->x, bed->labels,
                          bed->batch, bed->grad);
}

static inline uint64_t hash(uint64_t h, const void *bytes, size_t count)
{
    const uint8_t *at = bytes;

    for (size_t i = 0; i < count; i++) /* FNV-1a */
        h = (h ^ at[i]) * UINT64_C(0x100000001b3);
    return h;
}

static inline void assert_hash(uint64_t is, uint64_t want)
{
    if (is != want)
        fail_msg("hash 0x%016" PRIx64 ", expected 0x%016" PRIx64, is, want);
}

#endif
