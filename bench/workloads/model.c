/* What a model is: reading its name, laying out its parameters, starting values. */
#include "bench/workloads/model.h"

#include "bench/workloads/rng.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int bad_spec(struct gapless_error *error, const char *spec)
{
    return gapless_error_set(error, GAPLESS_INVALID, 0,
                             "no model is called \"%.60s\": choose one of %s", spec,
                             MODEL_CHOICES);
}

/* Appends the hidden widths of "64,32" to ret->widths. */
static int parse_widths(const char *spec, const char *at, struct model *ret,
                        struct gapless_error *error)
{
    for (;;) {
        unsigned long width;
        char *end;

        if (*at < '0' || *at > '9')
            return bad_spec(error, spec);
        errno = 0;
        width = strtoul(at, &end, 10);
        if (errno != 0 || width < 1 || width > MODEL_WIDTH_MAX)
            return gapless_error_set(error, GAPLESS_INVALID, 0,
                                     "model %.60s: a hidden layer has 1 to %d units",
                                     spec, MODEL_WIDTH_MAX);
        if (ret->layers == MODEL_LAYERS_MAX - 1)
            return gapless_error_set(error, GAPLESS_INVALID, 0,
                                     "model %.60s: at most %d hidden layers", spec,
                                     MODEL_LAYERS_MAX - 1);
        ret->layers++;
        ret->widths[ret->layers] = (uint32_t)width;
        if (*end == '\0')
            return GAPLESS_OK;
        if (*end != ',' && *end != 'x')
            return bad_spec(error, spec);
        at = end + 1;
    }
}

static void add_tensor(struct model *m, uint32_t layer, const char *kind, uint32_t rank,
                       uint32_t inputs)
{
    struct model_tensor *t = &m->tensors[m->tensor_count++];

    (void)snprintf(t->name, sizeof t->name, "layer%" PRIu32 ".%s", layer, kind);
    t->rank = rank;
    t->dims[0] = m->widths[layer];
    t->dims[1] = inputs;
    t->offset = m->parameters;
    t->count = (size_t)t->dims[0] * inputs;
    m->parameters += t->count;
}

int model_parse(const char *spec, uint32_t features, uint32_t classes,
                struct model *ret, struct gapless_error *error)
{
    struct model m = {.features = features, .classes = classes};

    if (features < 1 || features > MODEL_FEATURES_MAX || classes < 2 ||
        classes > MODEL_CLASSES_MAX)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "model %.60s: %" PRIu32 " features (1 to %d) and "
                                 "%" PRIu32 " classes (2 to %d) cannot be modelled",
                                 spec, features, MODEL_FEATURES_MAX, classes,
                                 MODEL_CLASSES_MAX);
    if (strlen(spec) >= sizeof m.spec)
        return bad_spec(error, spec);
    m.widths[0] = features;
    if (strncmp(spec, "mlp:", strlen("mlp:")) == 0) {
        int status = parse_widths(spec, spec + strlen("mlp:"), &m, error);

        if (status != GAPLESS_OK)
            return status;
    } else if (strcmp(spec, "softmax") != 0) {
        return bad_spec(error, spec);
    }
    m.layers++;
    m.widths[m.layers] = classes;
    for (uint32_t l = 1; l <= m.layers; l++) { /* each adds at most 2^36 */
        add_tensor(&m, l, "weight", 2, m.widths[l - 1]);
        add_tensor(&m, l, "bias", 1, 1);
    }
    if (m.parameters > MODEL_PARAMETERS_MAX)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "model %.60s has %zu parameters on %" PRIu32
                                 " features: at most %d",
                                 spec, m.parameters, features, MODEL_PARAMETERS_MAX);
    (void)snprintf(m.spec, sizeof m.spec, "%s", spec);
    *ret = m;
    return GAPLESS_OK;
}

void model_init(const struct model *model, uint64_t seed, float *ret_theta)
{
    for (uint32_t i = 0; i < model->tensor_count; i++) {
        const struct model_tensor *t = &model->tensors[i];
        struct rng r = rng_seed(seed, i); /* a stream a tensor */
        double deviation = t->rank == 2 ? sqrt(2.0 / t->dims[1]) : 0.0;

        for (size_t j = 0; j < t->count; j++)
            ret_theta[t->offset + j] =
                t->rank == 2 ? (float)(deviation * rng_normal(&r)) : 0.0F;
    }
}
