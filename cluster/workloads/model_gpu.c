/* Models on a GPU: the plugin's, with memory for parameters and gradient. */
#include "cluster/workloads/model_gpu.h"

#include "engine/device/device.h"

#include <inttypes.h>
#include <stdlib.h>

/* Copies that tests and faults ask for. */
#define COPY_NS INT64_C(60000000000)

struct model_gpu {
    const struct gpu_plugin *plugin;
    struct device *device;
    struct gpu_model *model;
    void *params, *grad;
};

static int ready(const struct model *model, const struct gpu_plugin **ret,
                 struct gapless_error *error)
{
    int status;

    if (model->convs > 0) {
        (void)gapless_error_set(error, GAPLESS_UNSUPPORTED, 0,
                                "model %s is not computed on GPUs: let the CPU do it, "
                                "or take an mlp",
                                model->spec);
        return GAPLESS_UNSUPPORTED;
    }
    status = device_plugin(ret, error);
    return status == GAPLESS_OK ? (*ret)->model->ready(error) : status;
}

int model_gpu_ready(const struct model *model, struct gapless_error *error)
{
    const struct gpu_plugin *plugin = NULL;

    return ready(model, &plugin, error);
}

static int take(struct model_gpu *gpu, const struct model *model, uint32_t batch_max,
                struct gapless_error *error)
{
    const struct device_ops *ops = gpu->plugin->device;
    size_t bytes = model->parameters * sizeof(float);
    int status = ops->take(gpu->device, bytes, &gpu->params, error);

    if (status == GAPLESS_OK)
        status = ops->take(gpu->device, bytes, &gpu->grad, error);
    if (status == GAPLESS_OK)
        status = gpu->plugin->model->open(gpu->device, model->widths, model->layers,
                                          batch_max, &gpu->model, error);
    return status;
}

int model_gpu_open(const struct model *model, uint32_t which, uint32_t batch_max,
                   struct model_gpu **ret, struct gapless_error *error)
{
    const struct gpu_plugin *plugin = NULL;
    struct model_gpu *gpu;
    int status;

    if (batch_max < 1 || batch_max > MODEL_BATCH_MAX)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "a batch of %" PRIu32 ": it has 1 to %d samples",
                                 batch_max, MODEL_BATCH_MAX);
    status = ready(model, &plugin, error);
    if (status != GAPLESS_OK)
        return status;
    gpu = calloc(1, sizeof *gpu);
    if (gpu == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for a model");
    gpu->plugin = plugin;
    status = plugin->device->open(which, model->parameters, 1, &gpu->device, error);
    if (status == GAPLESS_OK)
        status = take(gpu, model, batch_max, error);
    if (status != GAPLESS_OK) {
        model_gpu_close(gpu);
        return status;
    }
    *ret = gpu;
    return GAPLESS_OK;
}

void model_gpu_close(struct model_gpu *gpu)
{
    const struct device_ops *ops;

    if (gpu == NULL)
        return;
    ops = gpu->plugin->device;
    gpu->plugin->model->close(gpu->model);
    if (gpu->params != NULL)
        ops->give(gpu->device, gpu->params);
    if (gpu->grad != NULL)
        ops->give(gpu->device, gpu->grad);
    ops->close(gpu->device);
    free(gpu);
}

float *model_gpu_params(struct model_gpu *gpu)
{
    return gpu->params;
}

float *model_gpu_grad(struct model_gpu *gpu)
{
    return gpu->grad;
}

int model_gpu_gradient(struct model_gpu *gpu, const float *x, const uint8_t *labels,
                       uint32_t batch, double *ret_loss, struct gapless_error *error)
{
    return gpu->plugin->model->gradient(gpu->model, gpu->params, x, labels, batch,
                                        gpu->grad, ret_loss, error);
}

static int settle(struct model_gpu *gpu, enum device_stream stream,
                  struct gapless_error *error)
{
    const struct device_ops *ops = gpu->plugin->device;

    return ops->wait(gpu->device, ops->mark(gpu->device, stream), COPY_NS, error);
}

int model_gpu_set(struct model_gpu *gpu, float *to, const float *from, size_t count,
                  struct gapless_error *error)
{
    gpu->plugin->device->copy_in(gpu->device, to, from, count * sizeof *to);
    return settle(gpu, DEVICE_IN, error);
}

int model_gpu_get(struct model_gpu *gpu, float *to, const float *from, size_t count,
                  struct gapless_error *error)
{
    gpu->plugin->device->copy_out(gpu->device, to, from, count * sizeof *to);
    return settle(gpu, DEVICE_OUT, error);
}
