/* What is trained: a data set, a model that fits it, and the order of the batches; or a
 * test function (cluster/workloads/toy.h), which needs none of them; or the model of
 * another program, of which only the tensors are known. */
#ifndef CLUSTER_TASK_H
#define CLUSTER_TASK_H

#include "cluster/workloads/data.h"
#include "cluster/workloads/model.h"
#include "cluster/workloads/sampler.h"
#include "cluster/workloads/toy.h"
#include "cluster/workloads/workload.h"
#include "cluster/task/job.h"
#include <gapless/gapless.h>

#include <stdbool.h>
#include <stdint.h>

#define TASK_TOY_EPOCH 1000u /* gradients that count as an epoch of a test function */

struct task {
    struct job job;
    struct data *data;  /* NULL where has_toy or is_foreign */
    struct model model; /* ... and only its parameters are given */
    struct sampler sampler;
    bool has_toy;
    struct toy toy;
    bool is_foreign;
    uint64_t foreign_epoch;    /* gradients; 0: not known */
    struct workload *workload; /* a foreign model's, where this process asks for its
                                  gradients; or NULL */
    struct gapless_tensor tensors[MODEL_TENSORS_MAX];
    struct gapless_model
        shape; /* the model as the engine wants it; points into the task, but of a
                  foreign one */
};

/* Loads the data (from data_fd if it is not -1) and makes the model. GAPLESS_INVALID:
 * misuse, a name that does not exist, or a test function; the text names the choices.
 * Otherwise a failure, such as GAPLESS_MISSING; the text says what to do. The task must
 * not be moved afterwards. */
int task_open(const struct job *job, int data_fd, struct task *ret,
              struct gapless_error *error);
/* The same without a descriptor, for a model that was trained before: see data_load_as.
 * `as` may be NULL. */
int task_open_as(const struct job *job, const struct data_standard *as,
                 struct task *ret, struct gapless_error *error);
/* The same for a test function, as job->model names it (see toy_is). */
int task_open_toy(const struct job *job, struct task *ret, struct gapless_error *error);
/* The same for a model of another program: its tensors, which must outlive the task, the
 * number of its parameters, and the gradients of an epoch (0: not known). */
void task_open_foreign(const struct gapless_model *shape, uint64_t parameters,
                       uint64_t epoch, struct task *ret);
/* The same for a workload, which is started: settings of `job` that are not its own (data,
 * batch) are set from it. */
int task_open_workload(const char *command, const struct job *job, struct task *ret,
                       struct gapless_error *error);
void task_close(struct task *task);

/* Gradients that make an epoch; of a foreign model 0 where that is not known. */
uint64_t task_epoch(const struct task *task);

/* Gradients in this many epochs, rounded; at least 1. GAPLESS_INVALID when there are more
 * than can be counted, or less than a tenth of one. */
int task_gradients(const struct task *task, double epochs, uint64_t *ret,
                   struct gapless_error *error);
/* The root of the mean square of parameters. */
double task_rms(const struct task *task, const float *params);
/* The initial parameters: malloc'ed. */
int task_initial(const struct task *task, float **ret, struct gapless_error *error);

#endif
