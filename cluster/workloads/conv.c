/* The stages of a cnn: buffers, and the order of the work. Everything is added up in
 * one order that only the model decides, so that the bits are the same everywhere as
 * far as those of the layer arithmetic are. */
#include "cluster/workloads/conv.h"

#include "cluster/workloads/conv_loops.h"

#include "engine/base/array.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum {
    ALIGN = 64,
    CHUNK_BYTES_MAX = 384 << 10 /* of patches and z together: fits usual L2 caches */
};

struct conv {
    uint32_t stages;
    const struct layer_ops *ops;
    const struct conv_loops *loops;
    /* Of the input and of what each stage leaves, for the whole batch. */
    float *images[MODEL_CONVS_MAX + 1];
    float *deltas[MODEL_CONVS_MAX + 1]; /* their gradients; none of the input's */
    /* Of each stage. */
    uint32_t *picked[MODEL_CONVS_MAX]; /* 0..3: which of the four was the largest */
    float *kernels[MODEL_CONVS_MAX];   /* [outputs][3][3][channels], as a patch is */
    float *planes;                     /* what the last stage leaves, without border */
    /* Of the images that are worked on together, in any stage. */
    float *patches, *z;
    float *part, *sum; /* gradients of kernels: of these images, and of all so far */
};

/* How many images of a stage are worked on together: depends on nothing but the model,
 * because it decides the order in which gradients are added up. */
static uint32_t chunk_of(const struct model *m, uint32_t stage)
{
    size_t floats = image_pixels(m->images[stage]) *
                    (image_patch(m->images[stage]) + m->images[stage + 1].channels);
    size_t count = CHUNK_BYTES_MAX / sizeof(float) / floats;

    return count > 0 ? (uint32_t)count : 1;
}

/* `count` floats of 0 on cache lines of their own. */
static float *take(size_t count, bool *complete)
{
    float *ret = array_zeroed(ALIGN, count * sizeof *ret); /* borders stay so */

    if (ret == NULL)
        *complete = false;
    return ret;
}

struct conv *conv_new(const struct model *model, uint32_t batch_max,
                      const struct layer_ops *ops)
{
    struct conv *c = calloc(1, sizeof *c);
    size_t patches = 0, z = 0, kernels = 0;
    bool complete = true;

    if (c == NULL)
        return NULL;
    c->stages = model->convs;
    c->ops = ops;
    c->loops = conv_loops_best();
    for (uint32_t i = 0; i <= model->convs; i++) {
        struct model_image image = model->images[i];

        c->images[i] = take(batch_max * image_floats(image), &complete);
        if (i > 0)
            c->deltas[i] = take(batch_max * image_floats(image), &complete);
    }
    for (uint32_t i = 0; i < model->convs; i++) {
        struct model_image from = model->images[i], to = model->images[i + 1];
        size_t weights = to.channels * image_patch(from);
        size_t chunk = chunk_of(model, i);

        chunk = chunk < batch_max ? chunk : batch_max;
        patches = size_most(patches, chunk * image_pixels(from) * image_patch(from));
        z = size_most(z, chunk * image_pixels(from) * to.channels);
        kernels = size_most(kernels, weights);
        c->kernels[i] = take(weights, &complete);
        c->picked[i] =
            calloc(batch_max * image_pixels(to), to.channels * sizeof(uint32_t));
        complete = complete && c->picked[i] != NULL;
    }
    c->planes = take((size_t)batch_max * model->widths[0], &complete);
    c->patches = take(patches, &complete);
    c->z = take(z, &complete);
    c->part = take(kernels, &complete);
    c->sum = take(kernels, &complete);
    if (complete)
        return c;
    conv_free(c);
    return NULL;
}

void conv_free(struct conv *conv)
{
    if (conv == NULL)
        return;
    for (int i = 0; i <= MODEL_CONVS_MAX; i++) {
        free(conv->images[i]);
        free(conv->deltas[i]);
    }
    for (int i = 0; i < MODEL_CONVS_MAX; i++) {
        free(conv->picked[i]);
        free(conv->kernels[i]);
    }
    free(conv->planes);
    free(conv->patches);
    free(conv->z);
    free(conv->part);
    free(conv->sum);
    free(conv);
}

/* Planes [channels][rows][columns] into the inside of an image with a border. */
static void from_planes(struct model_image i, const float *restrict planes,
                        float *restrict image)
{
    for (uint32_t c = 0; c < i.channels; c++)
        for (uint32_t y = 0; y < i.height; y++) {
            float *row = image + (y + 1) * image_row(i) + i.channels + c;

            for (uint32_t x = 0; x < i.width; x++)
                row[(size_t)x * i.channels] = *planes++;
        }
}

static void to_planes(struct model_image i, const float *restrict image,
                      float *restrict planes)
{
    for (uint32_t c = 0; c < i.channels; c++)
        for (uint32_t y = 0; y < i.height; y++) {
            const float *row = image + (y + 1) * image_row(i) + i.channels + c;

            for (uint32_t x = 0; x < i.width; x++)
                *planes++ = row[(size_t)x * i.channels];
        }
}

/* A weight [outputs][channels][9] as kernels [outputs][9][channels], and back. */
static void to_kernels(uint32_t outputs, uint32_t channels,
                       const float *restrict weight, float *restrict kernels)
{
    for (uint32_t o = 0; o < outputs; o++, kernels += (size_t)CONV_TAPS * channels)
        for (uint32_t c = 0; c < channels; c++)
            for (uint32_t t = 0; t < CONV_TAPS; t++)
                kernels[(size_t)t * channels + c] = *weight++;
}

static void from_kernels(uint32_t outputs, uint32_t channels,
                         const float *restrict kernels, float *restrict weight)
{
    for (uint32_t o = 0; o < outputs; o++, kernels += (size_t)CONV_TAPS * channels)
        for (uint32_t c = 0; c < channels; c++)
            for (uint32_t t = 0; t < CONV_TAPS; t++)
                *weight++ = kernels[(size_t)t * channels + c];
}

/* The sizes of a stage's arithmetic over `images` images: its samples are pixels. */
static struct layer_size size_of(const struct model *m, uint32_t stage, uint32_t images)
{
    return (struct layer_size){images * (uint32_t)image_pixels(m->images[stage]),
                               (uint32_t)image_patch(m->images[stage]),
                               m->images[stage + 1].channels};
}

static const struct model_tensor *weight_of(const struct model *m, uint32_t stage)
{
    return &m->tensors[2 * (size_t)stage];
}

static const struct model_tensor *bias_of(const struct model *m, uint32_t stage)
{
    return &m->tensors[2 * (size_t)stage + 1];
}

static void unroll_chunk(const struct model *m, struct conv *c, uint32_t stage,
                         uint32_t first, uint32_t count)
{
    struct model_image from = m->images[stage];

    for (uint32_t b = 0; b < count; b++)
        c->loops->unroll(from, c->images[stage] + (first + b) * image_floats(from),
                         c->patches + b * image_pixels(from) * image_patch(from));
}

static void forward_chunk(const struct model *m, struct conv *c, uint32_t stage,
                          const float *bias, uint32_t first, uint32_t count)
{
    struct model_image from = m->images[stage], to = m->images[stage + 1];
    struct layer_size n = size_of(m, stage, count);

    unroll_chunk(m, c, stage, first, count);
    for (uint32_t p = 0; p < n.batch; p++)
        memcpy(c->z + (size_t)p * n.outputs, bias, n.outputs * sizeof *bias);
    c->ops->forward(n, c->patches, c->kernels[stage], c->z);
    for (uint32_t b = 0; b < count; b++)
        c->loops->shrink(from, to, c->z + b * image_pixels(from) * to.channels,
                         c->images[stage + 1] + (first + b) * image_floats(to),
                         c->picked[stage] +
                             (first + b) * image_pixels(to) * to.channels);
}

const float *conv_forward(const struct model *model, struct conv *conv,
                          const float *theta, const float *x, uint32_t batch)
{
    uint32_t last = conv->stages;

    for (uint32_t b = 0; b < batch; b++)
        from_planes(model->images[0], x + (size_t)b * model->features,
                    conv->images[0] + b * image_floats(model->images[0]));
    for (uint32_t s = 0; s < conv->stages; s++) {
        uint32_t count, chunk = chunk_of(model, s);

        to_kernels(model->images[s + 1].channels, model->images[s].channels,
                   theta + weight_of(model, s)->offset, conv->kernels[s]);
        for (uint32_t first = 0; first < batch; first += count) {
            count = batch - first < chunk ? batch - first : chunk;
            forward_chunk(model, conv, s, theta + bias_of(model, s)->offset, first,
                          count);
        }
    }
    for (uint32_t b = 0; b < batch; b++)
        to_planes(model->images[last],
                  conv->images[last] + b * image_floats(model->images[last]),
                  conv->planes + (size_t)b * model->widths[0]);
    return conv->planes;
}

/* Adds to c->sum and to bias; leaves the gradient of the stage's input, unless it is
 * the first: that of the pixels is not needed. */
static void backward_chunk(const struct model *m, struct conv *c, uint32_t stage,
                           float *bias, uint32_t first, uint32_t count)
{
    struct model_image from = m->images[stage], to = m->images[stage + 1];
    struct layer_size n = size_of(m, stage, count);
    size_t weights = weight_of(m, stage)->count;

    for (uint32_t b = first; b < first + count; b++)
        c->loops->widen(from, to, c->deltas[stage + 1] + b * image_floats(to),
                        c->images[stage + 1] + b * image_floats(to),
                        c->picked[stage] + b * image_pixels(to) * to.channels,
                        c->z + (b - first) * image_pixels(from) * to.channels, bias);
    unroll_chunk(m, c, stage, first, count);
    c->ops->weight(n, c->z, c->patches, c->part);
    for (size_t i = 0; i < weights; i++)
        c->sum[i] += c->part[i];
    if (stage == 0)
        return;
    c->ops->input(n, c->z, c->kernels[stage], c->patches);
    for (uint32_t b = 0; b < count; b++)
        c->loops->roll_up(from, c->patches + b * image_pixels(from) * image_patch(from),
                          c->deltas[stage] + (first + b) * image_floats(from));
}

void conv_backward(const struct model *model, struct conv *conv, const float *delta,
                   uint32_t batch, float *ret_grad)
{
    uint32_t last = conv->stages;

    for (uint32_t b = 0; b < batch; b++)
        from_planes(model->images[last], delta + (size_t)b * model->widths[0],
                    conv->deltas[last] + b * image_floats(model->images[last]));
    for (uint32_t s = conv->stages; s-- > 0;) {
        const struct model_tensor *weight = weight_of(model, s);
        const struct model_tensor *bias = bias_of(model, s);
        uint32_t count, chunk = chunk_of(model, s);

        memset(ret_grad + bias->offset, 0, bias->count * sizeof *ret_grad);
        memset(conv->sum, 0, weight->count * sizeof *conv->sum);
        for (uint32_t first = 0; first < batch; first += count) {
            count = batch - first < chunk ? batch - first : chunk;
            backward_chunk(model, conv, s, ret_grad + bias->offset, first, count);
        }
        from_kernels(weight->dims[0], weight->dims[1], conv->sum,
                     ret_grad + weight->offset);
    }
}
