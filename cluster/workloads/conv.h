/* Private to the models: the convolutional stages of a cnn, before its last layer.
 *
 * Images are kept with the channels of a pixel side by side and a border of zeros, so
 * that what a 3x3 kernel sees is three runs of 3 * channels neighbouring floats. All
 * arithmetic on weights is then that of a layer (model_ops.h) whose samples are pixels:
 *
 *     image [rows + 2][columns + 2][channels]
 *       │ unroll
 *       v
 *     patches [rows * columns][9 * channels] ── layer ──> z [rows * columns][outputs]
 *                                                           │ largest of 2x2, ReLU
 *                                                           v
 *                              image [rows / 2 + 2][columns / 2 + 2][outputs]
 *
 * and back again: z's gradient goes where the largest was, the layer gives the
 * gradients of the kernels and of the patches, and the patches are added up to an
 * image's. Patches and z exist for a few images at a time, so that they stay in a
 * processor's cache; they are unrolled again on the way back, which is faster than
 * fetching them from memory.
 */
#ifndef GAPLESS_WORKLOADS_CONV_H
#define GAPLESS_WORKLOADS_CONV_H

#include "cluster/workloads/model.h"
#include "cluster/workloads/model_ops.h"

#include <stdint.h>

/* Buffers for batches of up to batch_max samples. */
struct conv;

/* NULL: no memory. Free the result with conv_free. */
struct conv *conv_new(const struct model *model, uint32_t batch_max,
                      const struct layer_ops *ops);
void conv_free(struct conv *conv); /* NULL: nothing */

/* Runs the stages over x [batch][features]. Returns what the last one leaves, as planes
 * [batch][model->widths[0]]; it stays valid until the next call. */
const float *conv_forward(const struct model *model, struct conv *conv,
                          const float *theta, const float *x, uint32_t batch);

/* After conv_forward of the same batch: from the gradient of its result (as planes),
 * writes the gradients of all the stages' tensors into ret_grad (all of the model's).
 */
void conv_backward(const struct model *model, struct conv *conv, const float *delta,
                   uint32_t batch, float *ret_grad);

#endif
