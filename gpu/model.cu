/* Models on a GPU: softmax regression and multi-layer perceptrons. Matrix products by
 * cuBLAS, without TF32; the rest by kernels of our own (model_kernels.cu). All of it is
 * asked for on the device's stream of passes, one after another.
 *
 *   x ──copy──> x ──> z1 ─ReLU─> a1 ──> z2 = logits ──> losses ──copy──> host
 *                     <── dz1 <─mask──      dz2
 *
 * Parameters lie as in cluster/workloads/model.h: by layer a weight [outputs, inputs],
 * row-major, then a bias. cuBLAS counts columns first: to it, each matrix is its own
 * transpose.
 */
#include "gpu/model_kernels.h"
#include "gpu/plugin.h"
#include "gpu/products.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LAYERS_MAX 8u
#define BATCH_MAX 65536u
#define CLASSES_MAX 256u     /* a label has 8 bits */
#define WIDTH_MAX (1u << 20) /* features of the largest data set there can be */
#define WAIT_NS INT64_C(60000000000)

struct gpu_model {
    struct device *device;
    struct gpu_products products;
    uint32_t layers, batch_max;
    uint32_t widths[LAYERS_MAX + 1];
    /* of the GPU */
    float *x, *losses;
    uint8_t *labels;
    float *outputs[LAYERS_MAX]; /* of each layer, after ReLU; logits of the last */
    float *delta[2];            /* of the layer at hand and of the one before */
    /* of the host, page-locked */
    float *host_x, *host_losses;
    uint8_t *host_labels;
};

/* ---- opening ------------------------------------------------------------- */

static int take(struct gpu_model *m, size_t count, size_t size, void *ret,
                struct gapless_error *error)
{
    void *memory = NULL;
    int status = gpu_device.take(m->device, count * size, &memory, error);

    if (status == GAPLESS_OK)
        memcpy(ret, &memory, sizeof memory);
    return status;
}

static int take_host(struct gpu_model *m, size_t count, size_t size, void *ret,
                     struct gapless_error *error)
{
    void *memory = NULL;
    cudaError_t code;

    if (!device_enter(m->device))
        return device_failure(m->device, error);
    code = cudaHostAlloc(&memory, count * size, cudaHostAllocPortable);
    if (code != cudaSuccess)
        return cuda_error_set(error, code, "cudaHostAlloc");
    memcpy(ret, &memory, sizeof memory);
    return GAPLESS_OK;
}

static int take_all(struct gpu_model *m, struct gapless_error *error)
{
    size_t batch = m->batch_max, inputs = m->widths[0], widest = 0;
    int status = take(m, batch * inputs, sizeof(float), &m->x, error);

    if (status == GAPLESS_OK)
        status = take(m, batch, sizeof(float), &m->losses, error);
    if (status == GAPLESS_OK)
        status = take(m, batch, 1, &m->labels, error);
    for (uint32_t l = 0; status == GAPLESS_OK && l < m->layers; l++) {
        size_t width = m->widths[l + 1];

        status = take(m, batch * width, sizeof(float), &m->outputs[l], error);
        widest = width > widest ? width : widest;
    }
    for (int i = 0; status == GAPLESS_OK && i < 2; i++)
        status = take(m, batch * widest, sizeof(float), &m->delta[i], error);
    if (status == GAPLESS_OK)
        status = take_host(m, batch * inputs, sizeof(float), &m->host_x, error);
    if (status == GAPLESS_OK)
        status = take_host(m, batch, sizeof(float), &m->host_losses, error);
    if (status == GAPLESS_OK)
        status = take_host(m, batch, 1, &m->host_labels, error);
    return status;
}

static void give(struct gpu_model *m, void *memory)
{
    if (memory != NULL)
        gpu_device.give(m->device, memory);
}

static void give_host(void *memory)
{
    if (memory != NULL)
        (void)cudaFreeHost(memory);
}

static void model_close(struct gpu_model *m)
{
    if (m == NULL)
        return;
    gpu_products_close(&m->products);
    (void)device_enter(m->device);
    give(m, m->x);
    give(m, m->losses);
    give(m, m->labels);
    for (uint32_t l = 0; l < LAYERS_MAX; l++)
        give(m, m->outputs[l]);
    give(m, m->delta[0]);
    give(m, m->delta[1]);
    give_host(m->host_x);
    give_host(m->host_losses);
    give_host(m->host_labels);
    free(m);
}

static bool widths_fit(const uint32_t *widths, uint32_t layers, uint32_t batch_max)
{
    if (layers < 1 || layers > LAYERS_MAX || batch_max < 1 || batch_max > BATCH_MAX)
        return false;
    for (uint32_t l = 0; l <= layers; l++)
        if (widths[l] < 1 || widths[l] > WIDTH_MAX)
            return false;
    return widths[layers] <= CLASSES_MAX;
}

static int model_open(struct device *device, const uint32_t *widths, uint32_t layers,
                      uint32_t batch_max, struct gpu_model **ret,
                      struct gapless_error *error)
{
    struct gpu_model *m;
    int status;

    if (!widths_fit(widths, layers, batch_max))
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "no model has %u layers of these widths, or batches "
                                 "of %u samples",
                                 layers, batch_max);
    m = (struct gpu_model *)calloc(1, sizeof *m);
    if (m == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for a model");
    m->device = device;
    m->layers = layers;
    m->batch_max = batch_max;
    memcpy(m->widths, widths, (layers + 1) * sizeof *widths);
    status = gpu_products_open(device, &m->products, error);
    if (status == GAPLESS_OK)
        status = take_all(m, error);
    if (status != GAPLESS_OK) {
        model_close(m);
        return status;
    }
    *ret = m;
    return GAPLESS_OK;
}

/* ---- products ------------------------------------------------------------ */

/* Sizes of one layer's step, and where its parameters are. */
struct layer {
    int batch, inputs, outputs;
    size_t weight, bias; /* in floats from the start of theta */
};

static struct layer layer_at(const struct gpu_model *m, uint32_t layer, uint32_t batch)
{
    struct layer ret = {(int)batch, (int)m->widths[layer], (int)m->widths[layer + 1], 0,
                        0};

    for (uint32_t l = 0; l < layer; l++)
        ret.weight += ((size_t)m->widths[l] + 1) * m->widths[l + 1];
    ret.bias = ret.weight + (size_t)m->widths[layer] * m->widths[layer + 1];
    return ret;
}

/* c = a b, of matrices whose columns lie one after another. False: kept as the
 * device's failure. */
static bool multiply(struct gpu_model *m, int op_a, int op_b, int rows, int columns,
                     int inner, const float *a, int a_step, const float *b, int b_step,
                     float *c)
{
    const struct gpu_product it = {op_a, op_b, rows, columns, inner,  1.0F,
                                   0.0F, a,    b,    a_step,  b_step, c};

    return gpu_multiply(&m->products, &it);
}

static bool launched(struct gpu_model *m, cudaError_t code, const char *kernel)
{
    return device_check(m->device, code, kernel);
}

/* z[batch][outputs] = a[batch][inputs] * transpose(w[outputs][inputs]) + bias */
static bool layer_forward(struct gpu_model *m, uint32_t l, uint32_t batch,
                          const float *theta, const float *a)
{
    struct layer n = layer_at(m, l, batch);
    cudaStream_t stream = device_work_stream(m->device);

    return multiply(m, CUBLAS_TRANSPOSED, CUBLAS_AS_IT_IS, n.outputs, n.batch, n.inputs,
                    theta + n.weight, n.inputs, a, n.inputs, m->outputs[l]) &&
           launched(m,
                    model_bias(stream, m->outputs[l], theta + n.bias, batch,
                               m->widths[l + 1], l + 1 < m->layers),
                    "bias_kernel");
}

/* dw[outputs][inputs] = transpose(dz[batch][outputs]) * a[batch][inputs]; and, if there
 * is a layer before, da[batch][inputs] = dz * w[outputs][inputs], where a is not 0 */
static bool layer_backward(struct gpu_model *m, uint32_t l, uint32_t batch,
                           const float *theta, const float *a, const float *dz,
                           float *da, float *grad)
{
    struct layer n = layer_at(m, l, batch);
    cudaStream_t stream = device_work_stream(m->device);

    if (!launched(m, model_columns(stream, dz, batch, m->widths[l + 1], grad + n.bias),
                  "columns_kernel") ||
        !multiply(m, CUBLAS_AS_IT_IS, CUBLAS_TRANSPOSED, n.inputs, n.outputs, n.batch,
                  a, n.inputs, dz, n.outputs, grad + n.weight))
        return false;
    if (l == 0)
        return true; /* the gradient of the pixels is not needed */
    return multiply(m, CUBLAS_AS_IT_IS, CUBLAS_AS_IT_IS, n.inputs, n.batch, n.outputs,
                    theta + n.weight, n.inputs, dz, n.outputs, da) &&
           launched(m, model_mask(stream, da, a, (size_t)batch * m->widths[l]),
                    "mask_kernel");
}

/* ---- the gradient -------------------------------------------------------- */

static bool bring_batch(struct gpu_model *m, const float *x, const uint8_t *labels,
                        uint32_t batch)
{
    size_t bytes = (size_t)batch * m->widths[0] * sizeof *x;
    cudaStream_t stream = device_work_stream(m->device);

    memcpy(m->host_x, x, bytes);
    memcpy(m->host_labels, labels, batch);
    return device_enter(m->device) &&
           device_check(
               m->device,
               cudaMemcpyAsync(m->x, m->host_x, bytes, cudaMemcpyHostToDevice, stream),
               "cudaMemcpyAsync") &&
           device_check(m->device,
                        cudaMemcpyAsync(m->labels, m->host_labels, batch,
                                        cudaMemcpyHostToDevice, stream),
                        "cudaMemcpyAsync");
}

static bool pass(struct gpu_model *m, const float *theta, uint32_t batch, float *grad)
{
    cudaStream_t stream = device_work_stream(m->device);
    float *dz = m->delta[0], *da = m->delta[1], *swap;
    const float *a = m->x;

    for (uint32_t l = 0; l < m->layers; l++) {
        if (!layer_forward(m, l, batch, theta, a))
            return false;
        a = m->outputs[l];
    }
    if (!launched(m,
                  model_loss(stream, a, m->labels, batch, m->widths[m->layers],
                             m->losses, dz),
                  "loss_kernel"))
        return false;
    for (uint32_t l = m->layers; l-- > 0;) {
        a = l == 0 ? m->x : m->outputs[l - 1];
        if (!layer_backward(m, l, batch, theta, a, dz, da, grad))
            return false;
        swap = dz;
        dz = da;
        da = swap;
    }
    return device_check(m->device,
                        cudaMemcpyAsync(m->host_losses, m->losses,
                                        batch * sizeof *m->losses,
                                        cudaMemcpyDeviceToHost, stream),
                        "cudaMemcpyAsync");
}

static int model_gradient_of(struct gpu_model *m, const float *theta, const float *x,
                             const uint8_t *labels, uint32_t batch, float *grad,
                             double *ret_loss, struct gapless_error *error)
{
    bool known = batch >= 1 && batch <= m->batch_max;
    double loss = 0.0;
    int status;

    for (uint32_t b = 0; known && b < batch; b++)
        known = labels[b] < m->widths[m->layers];
    if (!known) {
        *ret_loss = (double)NAN;
        return GAPLESS_OK;
    }
    if (!bring_batch(m, x, labels, batch) || !pass(m, theta, batch, grad))
        return device_failure(m->device, error);
    status = gpu_device.wait(m->device, gpu_device.mark(m->device, DEVICE_WORK),
                             WAIT_NS, error);
    if (status != GAPLESS_OK)
        return status;
    for (uint32_t b = 0; b < batch; b++)
        loss += (double)m->host_losses[b];
    *ret_loss = loss / batch;
    return GAPLESS_OK;
}

static int model_ready(struct gapless_error *error)
{
    const struct cublas *cublas = NULL;

    return cublas_find(&cublas, error);
}

const struct gpu_model_ops gpu_model_cublas = {model_ready, model_open, model_close,
                                               model_gradient_of};
