/* The GPUs of a group: each a rank with its own thread, model and buffers (group.h has
 * the steps, engine/device/device.h what a GPU can do, NCCL joins them).
 *
 *          rank 0             rank 1 ...
 *   params [theta ]──NCCL──>[theta ]         gpus_gradient: a worker of several GPUs.
 *             │                │             Each takes its part of the batch; the mean
 *          samples          samples          of the parts is the batch's gradient, in
 *             v                v             the grad of all.
 *     grad [  g0  ]<─mean──>[  g1  ]
 *             v                v             gpus_step: synchronous SGD. Each takes a
 *          theta, v         theta, v         batch of its own, and does the same step.
 *
 * gpus_* are called from one thread, which is rank 0's. After a failure everything
 * gives it again; the text names the rank that failed. Waits for other ranks end after
 * GAPLESS_GROUP_TIMEOUT seconds of the environment (60).
 */
#ifndef CLUSTER_GPUS_H
#define CLUSTER_GPUS_H

#include "cluster/task/task.h"
#include <gapless/gapless.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gpus;

struct gpus_config {
    const char *device; /* "cuda:all", "cuda:0,1" */
    const struct task *task;
    /* gpus_step: the rest of its arrays are taken, too, and start at `initial`. NULL:
     * only what gpus_gradient needs. */
    const float *initial;
    double momentum;
    double clip_norm;    /* of each rank's gradient; 0: do not */
    double weight_decay; /* of each rank's gradient; 0: none */
};

/* Finds NCCL and the GPUs, opens a model on each, joins them. GAPLESS_MISSING: exactly
 * what is missing. GAPLESS_UNSUPPORTED: a convolutional network. The task must stay. */
int gpus_open(const struct gpus_config *config, struct gpus **ret,
              struct gapless_error *error);
/* Leaves in order, or after a failure as it can. NULL is a no-op. False: a GPU hangs,
 * the text says which; the process had better end. */
bool gpus_close(struct gpus *gpus, struct gapless_error *error);

uint32_t gpus_count(const struct gpus *gpus);
/* "4 GPUs (0, 1, 2, 3: NVIDIA H100 80GB HBM3), averaging by NCCL 2.28.9" */
void gpus_describe(const struct gpus *gpus, char *ret, size_t bytes);
/* Of rank 0's GPU, for gapless_worker_config: they stay until gpus_close. */
float *gpus_params(const struct gpus *gpus);
float *gpus_grad(const struct gpus *gpus);

/* The mean gradient of batch number `batch` at rank 0's params, into rank 0's grad, and
 * the mean loss. A batch is cut into as many parts as there are GPUs. */
int gpus_gradient(struct gpus *gpus, uint64_t batch, double *ret_loss,
                  struct gapless_error *error);

/* The first element of rank 0's grad becomes NaN: a fault on purpose. */
int gpus_poison(struct gpus *gpus, struct gapless_error *error);

/* One update of synchronous SGD with Nesterov momentum (rule ssgd: the same formula and
 * passes): rank r takes batch number first + r. *ret_applied: false where a gradient
 * was not finite; then nothing was applied. */
int gpus_step(struct gpus *gpus, uint64_t first, double rate, double *ret_loss,
              bool *ret_applied, struct gapless_error *error);
/* The parameters that gpus_step moves, of rank 0. */
int gpus_read(struct gpus *gpus, float *ret_theta, struct gapless_error *error);

#endif
