/* Brings data, model and batches together. */
#include "cluster/task/task.h"

#include "cluster/options/parse.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What may be rounded up to a gradient. */
#define EPOCHS_LEAST 0.1

static const char *data_name_at(const void *context, unsigned index)
{
    static const char *const names[] = {"fashion-mnist", "mnist", "cifar-10",
                                        "synthetic"};

    (void)context;
    return index < sizeof names / sizeof names[0] ? names[index] : NULL;
}

/* Adds "did you mean" to an error about a name. */
static void suggest(const char *text, struct gapless_error *error)
{
    const char *near = parse_nearest(text, data_name_at, NULL);
    size_t used = strlen(error->text);

    if (near != NULL && strcmp(near, text) != 0)
        (void)snprintf(error->text + used, sizeof error->text - used,
                       "; did you mean '%s'?", near);
}

static void describe(struct task *task)
{
    for (uint32_t i = 0; i < task->model.tensor_count; i++) {
        const struct model_tensor *from = &task->model.tensors[i];

        task->tensors[i] =
            (struct gapless_tensor){.name = from->name, .dims = from->rank};
        for (uint32_t d = 0; d < from->rank; d++)
            task->tensors[i].dim[d] = from->dims[d];
    }
    task->shape.tensors = task->tensors;
    task->shape.tensors_count = task->model.tensor_count;
}

static int open_task(const struct job *job, int data_fd, const struct data_standard *as,
                     struct task *ret, struct gapless_error *error)
{
    struct gapless_error reason = {0};
    int status;

    memset(ret, 0, sizeof *ret);
    if (toy_is(job->model))
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "--model %.60s is a test function, which only gapless simulate has; here "
            "choose one of: " MODEL_CHOICES,
            job->model);
    ret->job = *job;
    if (data_fd >= 0)
        status = data_open_fd(data_fd, &ret->data, &reason);
    else
        status =
            data_load_as(job->data, job->data_dir[0] != '\0' ? job->data_dir : NULL, as,
                         &ret->data, &reason);
    if (status == GAPLESS_INVALID)
        suggest(job->data, &reason);
    if (status == GAPLESS_OK)
        status = model_parse(job->model, ret->data->features, ret->data->classes,
                             &ret->model, &reason);
    if (status == GAPLESS_OK)
        status = sampler_init(ret->data->train_count, job->batch, job->seed,
                              &ret->sampler, &reason);
    if (status != GAPLESS_OK) {
        task_close(ret);
        if (error != NULL)
            *error = reason;
        return status;
    }
    describe(ret);
    return GAPLESS_OK;
}

int task_open(const struct job *job, int data_fd, struct task *ret,
              struct gapless_error *error)
{
    return open_task(job, data_fd, NULL, ret, error);
}

int task_open_as(const struct job *job, const struct data_standard *as,
                 struct task *ret, struct gapless_error *error)
{
    return open_task(job, -1, as, ret, error);
}

int task_open_toy(const struct job *job, struct task *ret, struct gapless_error *error)
{
    struct toy toy;
    int status = toy_parse(job->model, &toy, error);

    if (status != GAPLESS_OK)
        return status;
    memset(ret, 0, sizeof *ret);
    ret->job = *job;
    ret->has_toy = true;
    ret->toy = toy;
    ret->model.parameters = toy.dim;
    ret->tensors[0] = (struct gapless_tensor){.name = "x", .dims = 1, .dim = {toy.dim}};
    ret->shape.tensors = ret->tensors;
    ret->shape.tensors_count = 1;
    return GAPLESS_OK;
}

void task_open_foreign(const struct gapless_model *shape, uint64_t parameters,
                       uint64_t epoch, struct task *ret)
{
    memset(ret, 0, sizeof *ret);
    ret->is_foreign = true;
    ret->foreign_epoch = epoch;
    ret->model.parameters = parameters;
    ret->shape = *shape;
}

int task_open_workload(const char *command, const struct job *job, struct task *ret,
                       struct gapless_error *error)
{
    struct workload *workload = NULL;
    struct workload_about about;
    struct gapless_model shape;
    int status = workload_open(command, job->seed, &workload, error);

    if (status != GAPLESS_OK)
        return status;
    workload_about(workload, &about);
    shape = (struct gapless_model){.tensors = about.tensors,
                                   .tensors_count = about.tensors_count};
    task_open_foreign(&shape, about.parameters, about.epoch, ret);
    ret->job = *job;
    ret->job.data[0] = '\0';
    ret->job.batch = about.batch;
    workload_name(command, ret->job.model, sizeof ret->job.model);
    ret->workload = workload;
    return GAPLESS_OK;
}

void task_close(struct task *task)
{
    workload_close(task->workload);
    task->workload = NULL;
    data_free(task->data);
    task->data = NULL;
}

uint64_t task_epoch(const struct task *task)
{
    if (task->is_foreign)
        return task->foreign_epoch;
    return task->has_toy ? TASK_TOY_EPOCH : sampler_batches_per_epoch(&task->sampler);
}

int task_gradients(const struct task *task, double epochs, uint64_t *ret,
                   struct gapless_error *error)
{
    double count = epochs * (double)task_epoch(task);

    if (count > 1e15)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "--epochs %g is too long a run: %g gradients", epochs,
                                 count);
    if (count < EPOCHS_LEAST)
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "--epochs %g is far from one gradient: an epoch is %llu "
            "of them; give at least %.2g",
            epochs, (unsigned long long)task_epoch(task),
            1.0 / (double)task_epoch(task));
    *ret = count < 1.0 ? 1 : (uint64_t)(count + 0.5);
    return GAPLESS_OK;
}

int task_initial(const struct task *task, float **ret, struct gapless_error *error)
{
    float *theta = malloc(task->model.parameters * sizeof *theta);

    if (theta == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for %zu parameters",
                                 task->model.parameters);
    if (task->workload != NULL) {
        int status = workload_initial(task->workload, theta, error);

        if (status != GAPLESS_OK) {
            free(theta);
            return status;
        }
    } else if (task->has_toy)
        toy_init(&task->toy, task->job.seed, theta);
    else
        model_init(&task->model, task->job.seed, theta);
    *ret = theta;
    return GAPLESS_OK;
}

double task_rms(const struct task *task, const float *params)
{
    size_t count = task->model.parameters;
    double sum = 0.0;

    for (size_t i = 0; i < count; i++)
        sum += (double)params[i] * (double)params[i];
    return sqrt(sum / (double)count);
}
