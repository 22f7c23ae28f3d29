/* What a rank does in a turn, in its own thread. */
#include "cluster/gpus/gpus_inside.h"

#include <math.h>

/* A rank's samples, from the data set into its buffers. */
static void gather(const struct gpus *gpus, struct gpu_rank *rank, uint32_t from,
                   uint32_t count)
{
    if (count > 0)
        data_gather(gpus->task->data, DATA_TRAIN, rank->index + from, count, rank->x,
                    rank->label);
}

static int compute(const struct gpus *gpus, struct gpu_rank *rank, uint32_t count,
                   double *ret_loss, struct gapless_error *error)
{
    return gpus->plugin->model->gradient(rank->model, rank->params, rank->x,
                                         rank->label, count, rank->grad, ret_loss,
                                         error);
}

/* Until all passes are done. */
static int settle(const struct gpus *gpus, struct gpu_rank *rank,
                  struct gapless_error *error)
{
    const struct device_ops *ops = gpus->plugin->device;

    return ops->wait(rank->device, ops->mark(rank->device, DEVICE_WORK),
                     gpus->timeout_ns, error);
}

/* ---- a worker of several GPUs -------------------------------------------- */

/* The mean over a batch is the mean over ranks of each part's mean times its weight,
 * size * part / batch: exactly 1 where the parts are equal. */
static int part_gradient(const struct gpus *gpus, struct gpu_rank *rank, uint32_t count,
                         uint32_t batch, struct gapless_error *error)
{
    const struct device_ops *ops = gpus->plugin->device;
    size_t n = gpus->task->model.parameters;
    double loss = 0.0;
    int status;

    if (count == 0) { /* more GPUs than samples */
        rank->loss = 0.0;
        ops->zero(rank->device, rank->grad, n * sizeof(float));
        return GAPLESS_OK;
    }
    status = compute(gpus, rank, count, &loss, error);
    if (status != GAPLESS_OK)
        return status;
    rank->loss = loss * (double)count / (double)batch;
    if ((uint64_t)count * gpus->size != batch)
        ops->scale(rank->device, rank->grad,
                   (float)((double)count * (double)gpus->size / (double)batch), n);
    return GAPLESS_OK;
}

int gpus_step_gradient(void *context, uint32_t r, const void *argument,
                       struct gapless_error *error)
{
    const struct gpus_step *step = argument;
    struct gpus *gpus = context;
    struct gpu_rank *rank = &gpus->rank[r];
    const struct gpu_group_ops *ops = gpus->plugin->group;
    size_t n = gpus->task->model.parameters;
    uint32_t batch, from, count;
    int status = GAPLESS_OK;

    sampler_batch(&gpus->task->sampler, step->batch, rank->index, &batch);
    count = group_share(batch, r, gpus->size, &from);
    gather(gpus, rank, from, count);
    if (gpus->size > 1)
        status =
            ops->broadcast(rank->group, rank->params, n, 0, gpus->timeout_ns, error);
    if (status == GAPLESS_OK)
        status = part_gradient(gpus, rank, count, batch, error);
    if (status == GAPLESS_OK)
        status = ops->mean(rank->group, rank->grad, n, gpus->timeout_ns, error);
    return status;
}

/* ---- synchronous SGD ----------------------------------------------------- */

/* Norm, clipping, decay, as every worker does with its gradient (engine/worker/worker.c). A
 * norm that is not finite is left to the check of the mean. */
static int own_part(const struct gpus *gpus, struct gpu_rank *rank,
                    struct gapless_error *error)
{
    const struct device_ops *ops = gpus->plugin->device;
    const struct gpus_config *config = &gpus->config;
    size_t n = gpus->task->model.parameters;
    double norm;
    int status;

    if (config->clip_norm > 0.0) {
        ops->norm_sq(rank->device, rank->grad, n, PLACE_NORM);
        status = settle(gpus, rank, error);
        if (status != GAPLESS_OK)
            return status;
        norm = sqrt(ops->result(rank->device, PLACE_NORM)->value);
        if (isfinite(norm) && norm > config->clip_norm)
            ops->scale(rank->device, rank->grad, (float)(config->clip_norm / norm), n);
    }
    if (config->weight_decay > 0.0)
        ops->decay(rank->device, rank->grad, rank->params, (float)config->weight_decay,
                   n, PLACE_DECAY);
    return GAPLESS_OK;
}

/* The step of rule ssgd on the mean, which all ranks have bit for bit: so have they the
 * parameters. No rank is ahead of another, so there is no lag. */
static void apply_step(const struct gpus *gpus, struct gpu_rank *rank, double rate)
{
    const struct device_ops *ops = gpus->plugin->device;
    const struct rule *rule = rules_find("ssgd");
    struct settings settings = {.momentum = gpus->config.momentum};
    struct step_context context = {.rate = rate, .active = 1};
    struct device_pass pass = {
        .at = {.theta = rank->theta,
               .all = rank->velocity,
               .sent = rank->params,
               .grad = rank->grad},
    };

    settings_default(&settings);
    rules_step_scalars(rule, &settings, &context, &pass.scalars);
    ops->apply(rank->device, rule, &pass, 1, NULL, gpus->task->model.parameters,
               PLACE_APPLY);
}

int gpus_step_apply(void *context, uint32_t r, const void *argument,
                    struct gapless_error *error)
{
    const struct gpus_step *step = argument;
    struct gpus *gpus = context;
    struct gpu_rank *rank = &gpus->rank[r];
    const struct device_ops *ops = gpus->plugin->device;
    size_t n = gpus->task->model.parameters;
    uint32_t count;
    double loss = 0.0;
    int status;

    sampler_batch(&gpus->task->sampler, step->batch + r, rank->index, &count);
    gather(gpus, rank, 0, count);
    status = compute(gpus, rank, count, &loss, error);
    if (status == GAPLESS_OK)
        status = own_part(gpus, rank, error);
    if (status == GAPLESS_OK)
        status = gpus->plugin->group->mean(rank->group, rank->grad, n, gpus->timeout_ns,
                                           error);
    if (status != GAPLESS_OK)
        return status;
    rank->loss = loss / (double)gpus->size;
    ops->finite(rank->device, rank->grad, n, PLACE_FINITE);
    status = settle(gpus, rank, error);
    if (status != GAPLESS_OK)
        return status;
    rank->applied = ops->result(rank->device, PLACE_FINITE)->finite != 0;
    if (rank->applied)
        apply_step(gpus, rank, step->rate);
    return GAPLESS_OK;
}
