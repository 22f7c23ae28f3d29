/* Built-in models: softmax regression, multi-layer perceptrons and small convolutional
 * networks, on flat vectors.
 *
 * A model is a chain of layers z = W a + b, with ReLU between them and the mean
 * cross-entropy of a softmax at the end. All parameters are one float vector theta
 * without gaps, layer after layer, weight before bias; gradients have the same shape:
 *
 *     mlp:64 on 784 features and 10 classes: 50,890 parameters
 *     layer1.weight [64, 784] | layer1.bias [64] |
 *     layer2.weight [10, 64]  | layer2.bias [10]
 *
 * A weight is [outputs, inputs], row-major, one row an output: what torch.nn.Linear and
 * safetensors files hold. Batches are [samples, features], row-major.
 *
 * A convolutional network puts stages before one such layer. A stage is a convolution
 * by 3x3 kernels (stride 1, a border of zeros, a bias), ReLU, and the largest of each
 * 2x2 square (stride 2; an odd last row or column is left out):
 *
 *     cnn:16,32 on 3072 features and 10 classes: 25,578 parameters
 *
 *     3x32x32 ─conv1─> 16x32x32 ─2x2─> 16x16x16 ─conv2─> 32x16x16 ─2x2─> 32x8x8
 *             ─fc─> 10
 *
 *     conv1.weight [16, 3, 3, 3] | conv1.bias [16] | conv2.weight [32, 16, 3, 3] |
 *     conv2.bias [32] | fc.weight [10, 2048] | fc.bias [10]
 *
 * Features are planes of channels, rows, columns; so are fc's inputs. An image's shape
 * follows from the number of features: a square of one channel (784: 1x28x28), or else
 * three square channels (3072: 3x32x32).
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

#include "cluster/workloads/data.h"
#include <gapless/status.h>

#include <stddef.h>
#include <stdint.h>

/* For usage texts. */
#define MODEL_CHOICES                                                                  \
    "softmax, mlp:WIDTH[,WIDTH...] (such as mlp:64 or mlp:256,64), "                   \
    "cnn:CHANNELS[,CHANNELS...] (such as cnn:16,32)"

enum {
    MODEL_LAYERS_MAX = 8,                     /* matrices: up to 7 hidden layers */
    MODEL_CONVS_MAX = 4,                      /* convolutions */
    MODEL_TENSORS_MAX = 2 * MODEL_LAYERS_MAX, /* of a cnn: 2 * MODEL_CONVS_MAX + 2 */
    MODEL_RANK_MAX = 4,
    MODEL_WIDTH_MAX = 65536, /* units of a hidden layer, channels of a convolution */
    MODEL_CLASSES_MAX = DATA_CLASSES_MAX,
    MODEL_FEATURES_MAX = DATA_FEATURES_MAX,
    MODEL_PARAMETERS_MAX = 1 << 30, /* 4 GiB of floats */
    MODEL_BATCH_MAX = 65536,
    MODEL_NAME_MAX = 32,
    MODEL_SPEC_MAX = 64
};

struct model_tensor {
    char name[MODEL_NAME_MAX]; /* "layer1.weight", "conv1.bias", "fc.weight", ... */
    uint32_t rank;             /* 1: a bias; 2: a layer's weight; 4: a convolution's */
    uint32_t dims[MODEL_RANK_MAX]; /* outputs, inputs, rows, columns; 1 beyond rank */
    size_t offset, count;          /* in floats from the start of theta */
};

struct model_image {
    uint32_t channels, height, width;
};

/* A value: copy it freely; nothing to free. */
struct model {
    char spec[MODEL_SPEC_MAX];
    uint32_t features, classes;
    uint32_t convs; /* stages before the layers; 0 unless it is a cnn */
    struct model_image images[MODEL_CONVS_MAX + 1]; /* the input, then each stage's */
    uint32_t layers;
    /* inputs (features, or what the last stage leaves), hidden ..., classes */
    uint32_t widths[MODEL_LAYERS_MAX + 1];
    uint32_t tensor_count; /* 2 * (convs + layers) */
    struct model_tensor tensors[MODEL_TENSORS_MAX];
    size_t parameters; /* floats in theta */
};

/* Which implementation of the arithmetic. */
enum model_ops {
    MODEL_REF, /* plain C in a fixed order: the same bits on every machine; slow */
    MODEL_BLAS /* CBLAS; the last bits depend on the library and the processor */
};

/* Buffers of one thread for one model. */
struct model_scratch;

/* Reads "softmax", "mlp:64", "mlp:256,64" (or "mlp:256x64") or "cnn:16,32" for inputs
 * of `features` (1 to MODEL_FEATURES_MAX) and `classes` (2 to MODEL_CLASSES_MAX).
 * GAPLESS_INVALID otherwise, also where a cnn gets features that are no square image,
 * or too small a one to be halved so often; the text names the choices or the limit. */
int model_parse(const char *spec, uint32_t features, uint32_t classes,
                struct model *ret, struct gapless_error *error);

/* Weights normal with variance 2 / inputs (He et al., "Delving deep into rectifiers",
 * ICCV 2015; a convolution has channels * 9 inputs), biases zero. The same seed gives
 * the same bits on every machine. */
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
