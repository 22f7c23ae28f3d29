/* The GPUs of a group: opening and closing them, a step of each in its own thread, and
 * what the caller asks of them. */
#include "cluster/gpus/gpus.h"

#include "cluster/gpus/ranks.h"
#include "engine/device/device.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <pthread.h>

#define TIMEOUT_S 60.0
#define TIMEOUT_MOST_S 86400.0

/* Places of results on each GPU. */
enum {
    PLACE_NORM,
    PLACE_DECAY,
    PLACE_FINITE,
    PLACE_APPLY
};

struct gpu_rank {
    uint32_t number; /* of the GPU, as CUDA counts */
    struct device_facts facts;
    struct device *device;
    struct gpu_model *model;
    float *params, *grad;    /* what gradients are computed at, and they */
    float *theta, *velocity; /* gpus_step; NULL: not asked for */
    /* a batch, of the host */
    uint32_t *index;
    float *x;
    uint8_t *label;
    double loss; /* of the last turn: this rank's part of the mean */
    bool applied;
    struct gpu_group *group; /* guarded by the lock of the gpus */
};

struct gpus {
    const struct gpu_plugin *plugin;
    const struct task *task;
    struct gpus_config config;
    uint32_t size, batch_max;
    int nccl; /* its version */
    int64_t timeout_ns;
    unsigned char id[GPU_GROUP_ID];
    struct group *group;
    pthread_mutex_t lock;
    bool locked, aborted;
    struct gpu_rank rank[DEVICE_MAX];
};

/* What group_run runs: the argument of a step. */
struct gpus_step {
    uint64_t batch;
    double rate;
};

/* ---- what there is ------------------------------------------------------- */

static int read_timeout(int64_t *ret, struct gapless_error *error)
{
    const char *text = getenv("GAPLESS_GROUP_TIMEOUT");
    double seconds = TIMEOUT_S;
    char *end = NULL;

    if (text != NULL && text[0] != '\0') {
        seconds = strtod(text, &end);
        if (*end != '\0' || !(seconds >= 0.1 && seconds <= TIMEOUT_MOST_S))
            return gapless_error_set(error, GAPLESS_INVALID, 0,
                                     "GAPLESS_GROUP_TIMEOUT must be seconds from 0.1 "
                                     "to %g, not '%.60s'",
                                     TIMEOUT_MOST_S, text);
    }
    *ret = (int64_t)(seconds * 1e9);
    return GAPLESS_OK;
}

/* The GPUs, NCCL, and a name for the group: all that can be missing, before anything
 * is started. */
static int find(struct gpus *gpus, struct gapless_error *error)
{
    uint32_t numbers[DEVICE_MAX];
    int status = device_plugin(&gpus->plugin, error);

    if (status == GAPLESS_OK)
        status = device_choose(gpus->plugin, gpus->config.device, numbers, &gpus->size,
                               error);
    if (status == GAPLESS_OK)
        status = gpus->plugin->model->ready(error);
    for (uint32_t r = 0; status == GAPLESS_OK && r < gpus->size; r++) {
        gpus->rank[r].number = numbers[r];
        status = gpus->plugin->device->facts(numbers[r], &gpus->rank[r].facts, error);
    }
    if (status == GAPLESS_OK)
        status = gpus->plugin->group->version(&gpus->nccl, error);
    if (status == GAPLESS_OK)
        status = gpus->plugin->group->id(gpus->id, error);
    return status;
}

static int check_task(const struct task *task, struct gapless_error *error)
{
    if (task->has_toy || task->model.convs > 0)
        return gapless_error_set(error, GAPLESS_UNSUPPORTED, 0,
                                 "a group of GPUs computes softmax and mlp models, "
                                 "not %.40s: choose one of those, or leave --group "
                                 "out",
                                 task->job.model);
    return GAPLESS_OK;
}

/* ---- each rank, in its own thread ---------------------------------------- */

static int take(const struct gpus *gpus, struct gpu_rank *rank, float **ret,
                struct gapless_error *error)
{
    size_t bytes = gpus->task->model.parameters * sizeof(float);
    void *memory = NULL;
    int status = gpus->plugin->device->take(rank->device, bytes, &memory, error);

    if (status == GAPLESS_OK)
        *ret = memory;
    return status;
}

static int open_buffers(struct gpus *gpus, struct gpu_rank *rank,
                        struct gapless_error *error)
{
    rank->index = calloc(gpus->batch_max, sizeof *rank->index);
    rank->x =
        calloc((size_t)gpus->batch_max * gpus->task->model.features, sizeof *rank->x);
    rank->label = calloc(gpus->batch_max, sizeof *rank->label);
    if (rank->index == NULL || rank->x == NULL || rank->label == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for a batch of %u samples",
                                 gpus->batch_max);
    return GAPLESS_OK;
}

/* theta = look-ahead = the start; the velocity is zero. */
static int set_initial(struct gpus *gpus, struct gpu_rank *rank,
                       struct gapless_error *error)
{
    const struct device_ops *ops = gpus->plugin->device;
    size_t bytes = gpus->task->model.parameters * sizeof(float);
    int status = take(gpus, rank, &rank->theta, error);

    if (status == GAPLESS_OK)
        status = take(gpus, rank, &rank->velocity, error);
    if (status != GAPLESS_OK)
        return status;
    ops->copy_in(rank->device, rank->theta, gpus->config.initial, bytes);
    ops->copy_in(rank->device, rank->params, gpus->config.initial, bytes);
    return ops->wait(rank->device, ops->mark(rank->device, DEVICE_IN), gpus->timeout_ns,
                     error);
}

static int open_rank(void *context, uint32_t r, const void *argument,
                     struct gapless_error *error)
{
    struct gpus *gpus = context;
    struct gpu_rank *rank = &gpus->rank[r];
    const struct model *model = &gpus->task->model;
    int status = gpus->plugin->device->open(rank->number, model->parameters, 1,
                                            &rank->device, error);

    (void)argument;
    if (status == GAPLESS_OK)
        status = open_buffers(gpus, rank, error);
    if (status == GAPLESS_OK)
        status = take(gpus, rank, &rank->params, error);
    if (status == GAPLESS_OK)
        status = take(gpus, rank, &rank->grad, error);
    if (status == GAPLESS_OK && gpus->config.initial != NULL)
        status = set_initial(gpus, rank, error);
    if (status == GAPLESS_OK)
        status = gpus->plugin->model->open(rank->device, model->widths, model->layers,
                                           gpus->batch_max, &rank->model, error);
    return status;
}

static int join_rank(void *context, uint32_t r, const void *argument,
                     struct gapless_error *error)
{
    struct gpus *gpus = context;
    struct gpu_group *group = NULL;
    int status = gpus->plugin->group->open(gpus->rank[r].device, gpus->id, r,
                                           gpus->size, gpus->timeout_ns, &group, error);

    (void)argument;
    if (status != GAPLESS_OK)
        return status;
    (void)pthread_mutex_lock(&gpus->lock);
    gpus->rank[r].group = group;
    if (gpus->aborted)
        gpus->plugin->group->abort(group);
    (void)pthread_mutex_unlock(&gpus->lock);
    return GAPLESS_OK;
}

static void abort_rank(void *context, uint32_t r)
{
    struct gpus *gpus = context;

    (void)pthread_mutex_lock(&gpus->lock);
    gpus->aborted = true;
    if (gpus->rank[r].group != NULL)
        gpus->plugin->group->abort(gpus->rank[r].group);
    (void)pthread_mutex_unlock(&gpus->lock);
}

static int close_rank(void *context, uint32_t r, const void *argument,
                      struct gapless_error *error)
{
    struct gpus *gpus = context;
    struct gpu_rank *rank = &gpus->rank[r];
    const struct device_ops *ops = gpus->plugin->device;
    struct gpu_group *group;

    (void)argument, (void)error;
    (void)pthread_mutex_lock(&gpus->lock);
    group = rank->group;
    rank->group = NULL;
    (void)pthread_mutex_unlock(&gpus->lock);
    gpus->plugin->group->close(group);
    gpus->plugin->model->close(rank->model);
    if (rank->device != NULL) {
        ops->give(rank->device, rank->velocity);
        ops->give(rank->device, rank->theta);
        ops->give(rank->device, rank->grad);
        ops->give(rank->device, rank->params);
    }
    ops->close(rank->device);
    rank->device = NULL;
    rank->model = NULL;
    free(rank->label);
    free(rank->x);
    free(rank->index);
    return GAPLESS_OK;
}

/* ---- all of them --------------------------------------------------------- */

static int start(struct gpus *gpus, struct gapless_error *error)
{
    struct group_config config = {
        .size = gpus->size,
        .context = gpus,
        .abort = abort_rank,
        .peer_wait_ns = 2 * gpus->timeout_ns,
        .abort_wait_ns = 2 * gpus->timeout_ns,
    };
    int status = group_open(&config, &gpus->group, error);

    if (status == GAPLESS_OK)
        status = group_run(gpus->group, open_rank, NULL, error);
    if (status == GAPLESS_OK) /* no process waits in vain for one without a GPU */
        status = group_run(gpus->group, join_rank, NULL, error);
    return status;
}

int gpus_open(const struct gpus_config *config, struct gpus **ret,
              struct gapless_error *error)
{
    const struct sampler *sampler = &config->task->sampler;
    struct gpus *gpus = calloc(1, sizeof *gpus);
    struct gapless_error stuck;
    int status;

    if (gpus == NULL || pthread_mutex_init(&gpus->lock, NULL) != 0) {
        free(gpus);
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for a group");
    }
    gpus->config = *config;
    gpus->task = config->task;
    gpus->batch_max =
        sampler->batch < sampler->samples ? sampler->batch : sampler->samples;
    status = read_timeout(&gpus->timeout_ns, error);
    if (status == GAPLESS_OK)
        status = check_task(gpus->task, error);
    if (status == GAPLESS_OK)
        status = find(gpus, error);
    if (status == GAPLESS_OK)
        status = start(gpus, error);
    if (status == GAPLESS_OK)
        *ret = gpus;
    else
        (void)gpus_close(gpus, &stuck); /* what failed first is reported */
    return status;
}

bool gpus_close(struct gpus *gpus, struct gapless_error *error)
{
    if (gpus == NULL)
        return true;
    if (gpus->group != NULL) {
        (void)group_run_last(gpus->group, close_rank, NULL);
        if (!group_close(gpus->group, error))
            return false; /* a thread uses the rest */
    }
    (void)pthread_mutex_destroy(&gpus->lock);
    free(gpus);
    return true;
}

uint32_t gpus_count(const struct gpus *gpus)
{
    return gpus->size;
}

void gpus_describe(const struct gpus *gpus, char *ret, size_t bytes)
{
    char list[160] = "";
    size_t used = 0;

    for (uint32_t r = 0; r < gpus->size && used < sizeof list; r++) {
        int more = snprintf(list + used, sizeof list - used, "%s%u", r > 0 ? ", " : "",
                            gpus->rank[r].number);

        used += more > 0 ? (size_t)more : 0;
    }
    (void)snprintf(ret, bytes, "%u GPU%s (%s: %s), averaging by NCCL %d.%d.%d",
                   gpus->size, gpus->size == 1 ? "" : "s", list,
                   gpus->rank[0].facts.name, gpus->nccl / 10000, gpus->nccl / 100 % 100,
                   gpus->nccl % 100);
}

float *gpus_params(const struct gpus *gpus)
{
    return gpus->rank[0].params;
}

float *gpus_grad(const struct gpus *gpus)
{
    return gpus->rank[0].grad;
}

/* ---- a step of a rank, in its own thread --------------------------------- */

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
static int drain(const struct gpus *gpus, struct gpu_rank *rank,
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

static int step_gradient(void *context, uint32_t r, const void *argument,
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
        status = drain(gpus, rank, error);
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

static int step_apply(void *context, uint32_t r, const void *argument,
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
    status = drain(gpus, rank, error);
    if (status != GAPLESS_OK)
        return status;
    rank->applied = ops->result(rank->device, PLACE_FINITE)->finite != 0;
    if (rank->applied)
        apply_step(gpus, rank, step->rate);
    return GAPLESS_OK;
}

static double sum_of_losses(const struct gpus *gpus)
{
    double sum = 0.0;

    for (uint32_t r = 0; r < gpus->size; r++)
        sum += gpus->rank[r].loss;
    return sum;
}

int gpus_gradient(struct gpus *gpus, uint64_t batch, double *ret_loss,
                  struct gapless_error *error)
{
    struct gpus_step step = {.batch = batch};
    int status = group_run(gpus->group, step_gradient, &step, error);

    if (status == GAPLESS_OK)
        *ret_loss = sum_of_losses(gpus);
    return status;
}

int gpus_poison(struct gpus *gpus, struct gapless_error *error)
{
    static const float bad = (float)NAN;
    const struct device_ops *ops = gpus->plugin->device;
    struct gpu_rank *rank = &gpus->rank[0];

    ops->copy_in(rank->device, rank->grad, &bad, sizeof bad);
    return ops->wait(rank->device, ops->mark(rank->device, DEVICE_IN), gpus->timeout_ns,
                     error);
}

int gpus_step(struct gpus *gpus, uint64_t first, double rate, double *ret_loss,
              bool *ret_applied, struct gapless_error *error)
{
    struct gpus_step step = {.batch = first, .rate = rate};
    int status = group_run(gpus->group, step_apply, &step, error);

    if (status != GAPLESS_OK)
        return status;
    *ret_loss = sum_of_losses(gpus);
    *ret_applied = gpus->rank[0].applied;
    return GAPLESS_OK;
}

int gpus_read(struct gpus *gpus, float *ret_theta, struct gapless_error *error)
{
    const struct device_ops *ops = gpus->plugin->device;
    struct gpu_rank *rank = &gpus->rank[0];

    ops->after(rank->device, DEVICE_OUT, ops->mark(rank->device, DEVICE_WORK));
    ops->copy_out(rank->device, ret_theta, rank->theta,
                  gpus->task->model.parameters * sizeof(float));
    return ops->wait(rank->device, ops->mark(rank->device, DEVICE_OUT),
                     gpus->timeout_ns, error);
}
