/* Where a worker computes. */
#include "cluster/run/worker_device.h"

#include "cluster/options/device_choice.h"
#include "engine/device/device.h"
#include "cluster/program/program.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

_Static_assert(WORKER_GPUS_MAX == DEVICE_MAX, "room for all that can be chosen");

/* The GPUs that are there, and whether the model can be computed on them. */
static int choose(const char *use, const struct model *model, struct worker_places *ret,
                  struct gapless_error *error)
{
    const struct gpu_plugin *plugin = NULL;
    int status = model_gpu_ready(model, error);

    if (status == GAPLESS_OK)
        status = device_plugin(&plugin, error);
    if (status == GAPLESS_OK)
        status = device_choose(plugin, use, ret->number, &ret->gpus, error);
    return status;
}

int worker_places(const char *text, const struct model *model,
                  struct worker_places *ret, struct gapless_error *error)
{
    struct worker_places places = {.gpus = 0};
    struct gapless_error reason = {0};
    const char *use = "cpu";
    int status =
        device_settle(text, &use, &places.gpus, places.note, sizeof places.note, error);

    if (status == GAPLESS_OK && places.gpus > 0) {
        status = choose(use, model, &places, &reason);
        if (status != GAPLESS_OK && strcmp(text, "auto") == 0) {
            places = (struct worker_places){.gpus = 0};
            (void)snprintf(places.note, sizeof places.note, "no GPU is used: %s",
                           reason.text);
            status = GAPLESS_OK;
        } else if (status != GAPLESS_OK && error != NULL) {
            *error = reason;
        }
    }
    if (status == GAPLESS_OK)
        *ret = places;
    return status;
}

int worker_compute_open(const char *text, const struct model *model, uint32_t batch_max,
                        struct worker_compute *ret, struct gapless_error *error)
{
    struct worker_places places;
    int status = worker_places(text, model, &places, error);

    if (status != GAPLESS_OK)
        return status;
    if (places.note[0] != '\0')
        report_failure("worker", "%s", places.note);
    if (places.gpus > 1)
        report_failure("worker",
                       "a worker computes on one GPU: of %u the first, cuda:%u",
                       places.gpus, places.number[0]);
    ret->model = model;
    if (places.gpus > 0)
        return model_gpu_open(model, places.number[0], batch_max, &ret->gpu, error);
    return model_scratch_new(model, batch_max, MODEL_BLAS, &ret->scratch, error);
}

void worker_compute_close(struct worker_compute *compute)
{
    model_gpu_close(compute->gpu);
    model_scratch_free(compute->scratch);
    *compute = (struct worker_compute){.model = NULL};
}

float *worker_compute_params(const struct worker_compute *compute)
{
    return compute->gpu != NULL ? model_gpu_params(compute->gpu) : NULL;
}

float *worker_compute_grad(const struct worker_compute *compute)
{
    return compute->gpu != NULL ? model_gpu_grad(compute->gpu) : NULL;
}

int worker_compute_gradient(const struct worker_compute *compute, const float *params,
                            const float *x, const uint8_t *labels, uint32_t batch,
                            float *grad, double *ret_loss, struct gapless_error *error)
{
    if (compute->gpu != NULL)
        return model_gpu_gradient(compute->gpu, x, labels, batch, ret_loss, error);
    *ret_loss = model_gradient(compute->model, compute->scratch, params, x, labels,
                               batch, grad);
    return GAPLESS_OK;
}

int worker_compute_poison(const struct worker_compute *compute, float *grad,
                          struct gapless_error *error)
{
    float bad = (float)NAN;

    if (compute->gpu != NULL)
        return model_gpu_set(compute->gpu, grad, &bad, 1, error);
    *grad = bad;
    return GAPLESS_OK;
}
