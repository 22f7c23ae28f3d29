/* Built-in models: softmax regression and multi-layer perceptrons, on flat vectors.
 *
 * A model is a chain of layers z = W a + b, with ReLU between them and the mean
 * cross-entropy of a softmax at the end. All parameters are one float vector theta
 * without gaps, layer after layer, weight before bias; gradients have the same shape:
 *
 *     mlp:64 on 784 features and 10 classes: 50,890 parameters
 *     layer1.weight [64, 784] | layer1.bias [64] | layer2.weight [10, 64] | layer2.bias
 *
 * A weight is [outputs, inputs], row-major, one row an output: what torch.nn.Linear and
 * safetensors files hold. Batches are [samples, features], row-major.
 *
 *     struct model model;
 *     struct model_scratch *scratch;
 *     model_parse("mlp:64", 784, 10, &model, &error);
 *     model_scratch_new(&model, 32, MODEL_BLAS, &scratch, &error);
 *     theta = malloc(model.parameters * sizeof *theta); grad likewise
 *     model_init(&model, seed, theta);
 *     loss = model_gradient(&model, scratch, theta, x, labels, 32, grad);
 *
 * Numbers that are not finite never crash anything. A NaN anywhere in theta or x gives
 * a loss that is not finite; an infinity does so unless a ReLU switches it off.
 */
#ifndef GAPLESS_WORKLOADS_MODEL_H
#define GAPLESS_WORKLOADS_MODEL_H

#include "bench/workloads/data.h"
#include "engine/status.h"

#include <stddef.h>
#include <stdint.h>

/* For usage texts. */
#define MODEL_CHOICES "softmax, mlp:WIDTH[,WIDTH...] (such as mlp:64 or mlp:256,64)"

enum {
    MODEL_LAYERS_MAX = 8,    /* matrices: up to 7 hidden layers */
    MODEL_WIDTH_MAX = 65536, /* units of a hidden layer */
    MODEL_CLASSES_MAX = DATA_CLASSES_MAX,
    MODEL_FEATURES_MAX = DATA_FEATURES_MAX,
    MODEL_PARAMETERS_MAX = 1 << 30, /* 4 GiB of floats */
    MODEL_BATCH_MAX = 65536,
    MODEL_NAME_MAX = 32,
    MODEL_SPEC_MAX = 64
};

struct model_tensor {
    char
        name[MODEL_NAME_MAX]; /* "layer1.weight", "layer1.bias", "layer2.weight", ... */
    uint32_t rank;            /* 2 for a weight, 1 for a bias */
    uint32_t dims[2];         /* outputs, inputs; a bias has dims[1] == 1 */
    size_t offset, count;     /* in floats from the start of theta */
};

/* A value: copy it freely; nothing to free. */
struct model {
    char spec[MODEL_SPEC_MAX];
    uint32_t features, classes;
    uint32_t layers;
    uint32_t widths[MODEL_LAYERS_MAX + 1]; /* features, hidden ..., classes */
    uint32_t tensor_count;                 /* 2 * layers */
    struct model_tensor tensors[2 * MODEL_LAYERS_MAX];
    size_t parameters; /* floats in theta */
};

/* Which implementation of the arithmetic. */
enum model_ops {
    MODEL_REF, /* plain C in a fixed order: the same bits on every machine; slow */
    MODEL_BLAS /* CBLAS; the last bits depend on the library and the processor */
};

/* Buffers of one thread for one model. */
struct model_scratch;

/* Reads "softmax", "mlp:64", "mlp:256,64" or "mlp:256x64" for inputs of `features` (1
 * to MODEL_FEATURES_MAX) and `classes` (2 to MODEL_CLASSES_MAX). GAPLESS_INVALID
 * otherwise; the text names the choices or the limit. */
int model_parse(const char *spec, uint32_t features, uint32_t classes,
                struct model *ret, struct gapless_error *error);

/* Weights normal with variance 2 / inputs (He et al., "Delving deep into rectifiers",
 * ICCV 2015), biases zero. The same seed gives the same bits on every machine. */
void model_init(const struct model *model, uint64_t seed, float *ret_theta);

/* All memory that gradients of up to `batch_max` samples need. Not for two threads at
 * once. MODEL_BLAS sets OpenBLAS, where that is the CBLAS linked, to one thread in this
 * process: workers are processes. Fails with GAPLESS_INVALID (batch_max not within 1 ..
 * MODEL_BATCH_MAX) or GAPLESS_NO_MEMORY. */
int model_scratch_new(const struct model *model, uint32_t batch_max, enum model_ops ops,
                      struct model_scratch **ret, struct gapless_error *error);
void model_scratch_free(struct model_scratch *scratch); /* NULL: nothing */

/* The mean cross-entropy (in nats) of `batch` samples x with `labels`, and its
 * gradient, which overwrites ret_grad (model->parameters floats; must not overlap
 * theta). Allocates nothing. Returns NaN, leaving ret_grad as it was, where batch is
 * not within 1 .. batch_max or a label is not below classes. */
double model_gradient(const struct model *model, struct model_scratch *scratch,
                      const float *theta, const float *x, const uint8_t *labels,
                      uint32_t batch, float *ret_grad);

/* The share of a part's samples whose label has the largest output, in 0 .. 1 (outputs
 * that are not finite count as wrong), and the mean cross-entropy in nats. Works in
 * batches of the scratch's batch_max. GAPLESS_INVALID where data and model differ in
 * features or classes. */
int model_evaluate(const struct model *model, struct model_scratch *scratch,
                   const float *theta, const struct data *data, enum data_part part,
                   double *ret_accuracy, double *ret_loss, struct gapless_error *error);

#endif
