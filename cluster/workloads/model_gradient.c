/* Forward, loss, backward, and evaluation, over either table of layer arithmetic.
 *
 *     x ──> z1 ─ReLU─> a1 ──> z2 ─ReLU─> a2 ──> z3 = logits ──> loss
 *           <── dz1 <─mask──      dz2 <─mask──      dz3 = (softmax - one hot) / batch
 *
 * In a cnn, x is what the convolutional stages leave (conv.h), and its gradient goes
 * back to them.
 *
 * ReLU and its mask are written so that NaN passes through them: max(0, NaN) would turn
 * a broken model into a plausible one.
 */
#include "cluster/workloads/model.h"

#include "cluster/workloads/conv.h"
#include "cluster/workloads/model_ops.h"
#include "engine/base/portable.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    SCRATCH_ALIGN = 64
};

struct model_scratch {
    const struct layer_ops *ops;
    uint32_t batch_max;
    float
        *outputs[MODEL_LAYERS_MAX]; /* of each layer, after ReLU; logits of the last */
    float *delta[2];                /* of the layer at hand and of the one before */
    struct conv *conv;              /* NULL where there are no stages */
    float *x;                       /* a gathered batch, for evaluation */
    uint32_t *indices;
    uint8_t *labels;
};

/* `count` times `size` bytes on a cache line of their own; NULL if there is no
 * memory. */
static void *take(size_t count, size_t size)
{
    size_t bytes = (count * size + SCRATCH_ALIGN - 1) / SCRATCH_ALIGN * SCRATCH_ALIGN;

    return aligned_alloc(SCRATCH_ALIGN, bytes);
}

int model_scratch_new(const struct model *model, uint32_t batch_max, enum model_ops ops,
                      struct model_scratch **ret, struct gapless_error *error)
{
    struct model_scratch *s;
    size_t batch = batch_max, widest = 0;
    int complete;

    if (batch_max < 1 || batch_max > MODEL_BATCH_MAX)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "a batch of %" PRIu32 ": it has 1 to %d samples",
                                 batch_max, MODEL_BATCH_MAX);
    s = calloc(1, sizeof *s);
    if (s == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for a model");
    s->ops = ops == MODEL_REF ? &layer_ops_ref : &layer_ops_blas;
    s->batch_max = batch_max;
    s->x = take(batch * model->features, sizeof *s->x); /* at most 2^38 bytes */
    s->indices = take(batch, sizeof *s->indices);
    s->labels = take(batch, sizeof *s->labels);
    complete = s->x != NULL && s->indices != NULL && s->labels != NULL;
    if (model->convs > 0) {
        s->conv = conv_new(model, batch_max, s->ops);
        complete = complete && s->conv != NULL;
        widest = model->widths[0];
    }
    for (uint32_t l = 0; l < model->layers; l++) {
        size_t width = model->widths[l + 1];

        s->outputs[l] = take(batch * width, sizeof(float));
        complete = complete && s->outputs[l] != NULL;
        widest = width > widest ? width : widest;
    }
    for (int i = 0; i < 2; i++) {
        s->delta[i] = take(batch * widest, sizeof(float));
        complete = complete && s->delta[i] != NULL;
    }
    if (!complete) {
        model_scratch_free(s);
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for batches of %" PRIu32 " of model %s",
                                 batch_max, model->spec);
    }
    s->ops->prepare();
    *ret = s;
    return GAPLESS_OK;
}

void model_scratch_free(struct model_scratch *scratch)
{
    if (scratch == NULL)
        return;
    for (int l = 0; l < MODEL_LAYERS_MAX; l++)
        free(scratch->outputs[l]);
    free(scratch->delta[0]);
    free(scratch->delta[1]);
    conv_free(scratch->conv);
    free(scratch->x);
    free(scratch->indices);
    free(scratch->labels);
    free(scratch);
}

static struct layer_size size_of(const struct model *m, uint32_t layer, uint32_t batch)
{
    return (struct layer_size){batch, m->widths[layer], m->widths[layer + 1]};
}

static const struct model_tensor *weight_of(const struct model *m, uint32_t layer)
{
    return &m->tensors[2 * ((size_t)m->convs + layer)];
}

static const struct model_tensor *bias_of(const struct model *m, uint32_t layer)
{
    return &m->tensors[2 * ((size_t)m->convs + layer) + 1];
}

static void relu(float *z, size_t n)
{
    for (size_t i = 0; i < n; i++)
        z[i] = z[i] < 0.0F ? 0.0F : z[i]; /* NaN stays */
}

/* Where the unit was off, nothing passes; NaN does. */
static void mask(float *restrict dz, const float *restrict a, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dz[i] = a[i] <= 0.0F ? 0.0F : dz[i];
}

/* Fills scratch->outputs; returns the logits. *x becomes the first layer's input. */
static const float *forward(const struct model *m, struct model_scratch *s,
                            const float *theta, const float **x, uint32_t batch)
{
    const float *a;

    if (s->conv != NULL)
        *x = conv_forward(m, s->conv, theta, *x, batch);
    a = *x;

    for (uint32_t l = 0; l < m->layers; l++) {
        struct layer_size n = size_of(m, l, batch);
        const float *bias = theta + bias_of(m, l)->offset;
        float *z = s->outputs[l];

        for (uint32_t b = 0; b < batch; b++)
            memcpy(z + (size_t)b * n.outputs, bias, n.outputs * sizeof *z);
        s->ops->forward(n, a, theta + weight_of(m, l)->offset, z);
        if (l + 1 < m->layers)
            relu(z, (size_t)batch * n.outputs);
        a = z;
    }
    return a;
}

/* Cross-entropy of one sample, -log softmax(z)[label], with the largest logit taken out
 * first so that nothing overflows. Leaves e^(z - max) in exps and their sum in ret_sum.
 */
static double cross_entropy(const float *z, uint32_t classes, uint32_t label,
                            double *exps, double *ret_sum)
{
    float max = z[0];
    double sum = 0.0;

    for (uint32_t c = 1; c < classes; c++)
        max = z[c] > max ? z[c] : max;
    for (uint32_t c = 0; c < classes; c++) {
        exps[c] = portable_exp((double)z[c] - (double)max);
        sum += exps[c];
    }
    *ret_sum = sum;
    return portable_log(sum) - ((double)z[label] - (double)max);
}

/* The mean loss, and its gradient with respect to the logits. */
static double loss_gradient(const struct model *m, const float *logits,
                            const uint8_t *labels, uint32_t batch, float *ret_dz)
{
    double exps[MODEL_CLASSES_MAX], sum, loss = 0.0;

    for (uint32_t b = 0; b < batch; b++) {
        float *dz = ret_dz + (size_t)b * m->classes;
        double factor;

        loss += cross_entropy(logits + (size_t)b * m->classes, m->classes, labels[b],
                              exps, &sum);
        factor = 1.0 / (sum * batch);
        for (uint32_t c = 0; c < m->classes; c++)
            dz[c] = (float)(exps[c] * factor - (c == labels[b] ? 1.0 / batch : 0.0));
    }
    return loss / batch;
}

static void sum_rows(const float *restrict rows, uint32_t count, uint32_t width,
                     float *restrict ret)
{
    memcpy(ret, rows, width * sizeof *ret);
    for (uint32_t b = 1; b < count; b++)
        for (uint32_t i = 0; i < width; i++)
            ret[i] += rows[(size_t)b * width + i];
}

double model_gradient(const struct model *model, struct model_scratch *scratch,
                      const float *theta, const float *x, const uint8_t *labels,
                      uint32_t batch, float *ret_grad)
{
    const float *logits;
    float *dz = scratch->delta[0], *da = scratch->delta[1], *swap;
    double loss;

    if (batch < 1 || batch > scratch->batch_max)
        return (double)NAN;
    for (uint32_t b = 0; b < batch; b++)
        if (labels[b] >= model->classes)
            return (double)NAN;
    logits = forward(model, scratch, theta, &x, batch);
    loss = loss_gradient(model, logits, labels, batch, dz);
    for (uint32_t l = model->layers; l-- > 0;) {
        struct layer_size n = size_of(model, l, batch);
        const float *a = l == 0 ? x : scratch->outputs[l - 1];

        sum_rows(dz, batch, n.outputs, ret_grad + bias_of(model, l)->offset);
        scratch->ops->weight(n, dz, a, ret_grad + weight_of(model, l)->offset);
        if (l == 0 && scratch->conv == NULL)
            break; /* the gradient of the pixels is not needed */
        scratch->ops->input(n, dz, theta + weight_of(model, l)->offset, da);
        if (l == 0) {
            conv_backward(model, scratch->conv, da, batch, ret_grad);
            break;
        }
        mask(da, a, (size_t)batch * n.inputs);
        swap = dz;
        dz = da;
        da = swap;
    }
    return loss;
}

/* 1 where the label's output is the largest, the first of equals counting; else 0. */
static uint32_t is_right(const float *z, uint32_t classes, uint32_t label)
{
    for (uint32_t c = 0; c < classes; c++)
        if (!isfinite(z[c]) || (c < label && z[c] >= z[label]) ||
            (c > label && z[c] > z[label]))
            return 0;
    return 1;
}

int model_evaluate(const struct model *model, struct model_scratch *scratch,
                   const float *theta, const struct data *data, enum data_part part,
                   double *ret_accuracy, double *ret_loss, struct gapless_error *error)
{
    uint32_t count = data_count(data, part), batch;
    double exps[MODEL_CLASSES_MAX], sum, loss = 0.0;
    uint64_t right = 0;

    if (data->features != model->features || data->classes != model->classes)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "model %s is for %" PRIu32 " features and %" PRIu32
                                 " classes, data set %s has %" PRIu32 " and %" PRIu32,
                                 model->spec, model->features, model->classes,
                                 data->name, data->features, data->classes);
    for (uint32_t first = 0; first < count; first += batch) {
        const float *logits, *x = scratch->x;

        batch = count - first < scratch->batch_max ? count - first : scratch->batch_max;
        for (uint32_t b = 0; b < batch; b++)
            scratch->indices[b] = first + b;
        data_gather(data, part, scratch->indices, batch, scratch->x, scratch->labels);
        logits = forward(model, scratch, theta, &x, batch);
        for (uint32_t b = 0; b < batch; b++) {
            const float *z = logits + (size_t)b * model->classes;

            loss += cross_entropy(z, model->classes, scratch->labels[b], exps, &sum);
            right += is_right(z, model->classes, scratch->labels[b]);
        }
    }
    *ret_accuracy = (double)right / count;
    *ret_loss = loss / count;
    return GAPLESS_OK;
}
