/* What a model is: reading its name, laying out its parameters, starting values. */
#include "cluster/workloads/model.h"

#include "engine/base/rng.h"

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

/* Reads the numbers of "64,32" at `at`, 1 to MODEL_WIDTH_MAX each, at most `max` of
 * them; `what` names one of them, as in "a hidden layer has 1 to 65536 units". */
static int parse_numbers(const char *spec, const char *at, uint32_t max,
                         const char *const what[2], uint32_t *ret, uint32_t *ret_count,
                         struct gapless_error *error)
{
    uint32_t count = 0;

    for (;;) {
        unsigned long number;
        char *end;

        if (*at < '0' || *at > '9')
            return bad_spec(error, spec);
        errno = 0;
        number = strtoul(at, &end, 10);
        if (errno != 0 || number < 1 || number > MODEL_WIDTH_MAX)
            return gapless_error_set(error, GAPLESS_INVALID, 0,
                                     "model %.60s: a %s has 1 to %d %s", spec, what[0],
                                     MODEL_WIDTH_MAX, what[1]);
        if (count == max)
            return gapless_error_set(error, GAPLESS_INVALID, 0,
                                     "model %.60s: at most %" PRIu32 " %ss", spec, max,
                                     what[0]);
        ret[count++] = (uint32_t)number;
        if (*end == '\0')
            break;
        if (*end != ',' && *end != 'x')
            return bad_spec(error, spec);
        at = end + 1;
    }
    *ret_count = count;
    return GAPLESS_OK;
}

static void add_tensor(struct model *m, const char *name, const char *kind,
                       uint32_t rank, const uint32_t dims[MODEL_RANK_MAX])
{
    struct model_tensor *t = &m->tensors[m->tensor_count++];

    (void)snprintf(t->name, sizeof t->name, "%s.%s", name, kind);
    t->rank = rank;
    t->offset = m->parameters;
    t->count = 1;
    for (uint32_t i = 0; i < MODEL_RANK_MAX; i++) {
        t->dims[i] = i < rank ? dims[i] : 1;
        t->count *= t->dims[i];
    }
    m->parameters += t->count;
}

static void add_weights(struct model *m)
{
    char name[MODEL_NAME_MAX / 2];

    for (uint32_t i = 1; i <= m->convs; i++) { /* each adds at most 2^36 */
        uint32_t dims[] = {m->images[i].channels, m->images[i - 1].channels, 3, 3};

        (void)snprintf(name, sizeof name, "conv%" PRIu32, i);
        add_tensor(m, name, "weight", 4, dims);
        add_tensor(m, name, "bias", 1, dims);
    }
    for (uint32_t l = 1; l <= m->layers; l++) {
        uint32_t dims[MODEL_RANK_MAX] = {m->widths[l], m->widths[l - 1]};

        if (m->convs > 0)
            (void)snprintf(name, sizeof name, "fc");
        else
            (void)snprintf(name, sizeof name, "layer%" PRIu32, l);
        add_tensor(m, name, "weight", 2, dims);
        add_tensor(m, name, "bias", 1, dims);
    }
}

static int parse_mlp(const char *spec, struct model *m, struct gapless_error *error)
{
    static const char *const what[] = {"hidden layer", "units"};

    return parse_numbers(spec, spec + strlen("mlp:"), MODEL_LAYERS_MAX - 1, what,
                         m->widths + 1, &m->layers, error);
}

/* The root of a square number; 0 of any other. */
static uint32_t side_of(uint32_t square)
{
    uint32_t side = 0;

    while (side * side < square) /* at most 1024 times */
        side++;
    return side * side == square ? side : 0;
}

/* Reads "cnn:16,32": the images, and how many features are left at the end. */
static int parse_cnn(const char *spec, struct model *m, struct gapless_error *error)
{
    static const char *const what[] = {"convolution", "channels"};
    uint32_t side = side_of(m->features), channels[MODEL_CONVS_MAX] = {0};
    uint64_t left;
    int status = parse_numbers(spec, spec + strlen("cnn:"), MODEL_CONVS_MAX, what,
                               channels, &m->convs, error);

    if (status != GAPLESS_OK)
        return status;
    m->images[0] = (struct model_image){1, side, side};
    if (side == 0 && m->features % 3 == 0) {
        side = side_of(m->features / 3);
        m->images[0] = (struct model_image){3, side, side};
    }
    if (side == 0)
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "model %.60s wants square images of 1 or 3 channels, "
            "such as 784 features (28x28) or 3072 (3x32x32): %" PRIu32
            " features are neither; take an mlp",
            spec, m->features);
    if (side >> m->convs == 0)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "model %.60s halves its images %" PRIu32
                                 " times, which %" PRIu32 "x%" PRIu32
                                 " pixels do not allow: take fewer convolutions",
                                 spec, m->convs, side, side);
    for (uint32_t i = 1; i <= m->convs; i++)
        m->images[i] = (struct model_image){channels[i - 1], side >> i, side >> i};
    side >>= m->convs;
    left = (uint64_t)m->images[m->convs].channels * side * side;
    if (left > MODEL_PARAMETERS_MAX)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "model %.60s leaves %" PRIu64 " features of %" PRIu32
                                 " for its last layer: at most %d",
                                 spec, left, m->features, MODEL_PARAMETERS_MAX);
    m->widths[0] = (uint32_t)left;
    return GAPLESS_OK;
}

int model_parse(const char *spec, uint32_t features, uint32_t classes,
                struct model *ret, struct gapless_error *error)
{
    struct model m = {.features = features, .classes = classes};
    int status = GAPLESS_OK;

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
    if (strncmp(spec, "mlp:", strlen("mlp:")) == 0)
        status = parse_mlp(spec, &m, error);
    else if (strncmp(spec, "cnn:", strlen("cnn:")) == 0)
        status = parse_cnn(spec, &m, error);
    else if (strcmp(spec, "softmax") != 0)
        status = bad_spec(error, spec);
    if (status != GAPLESS_OK)
        return status;
    m.layers++;
    m.widths[m.layers] = classes;
    add_weights(&m);
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
        size_t inputs = t->count / t->dims[0];
        double deviation = sqrt(2.0 / (double)inputs);

        for (size_t j = 0; j < t->count; j++)
            ret_theta[t->offset + j] =
                t->rank > 1 ? (float)(deviation * rng_normal(&r)) : 0.0F;
    }
}
