/* Private to gpus*.c: the state of a group of GPUs. */
#ifndef CLUSTER_GPUS_INSIDE_H
#define CLUSTER_GPUS_INSIDE_H

#include "cluster/gpus/gpus.h"
#include "cluster/gpus/ranks.h"
#include "engine/device/device.h"

#include <pthread.h>

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

/* What group_run runs, in gpus_turn.c. The argument is a struct gpus_step. */
struct gpus_step {
    uint64_t batch;
    double rate;
};
group_fn gpus_step_gradient, gpus_step_apply;

#endif
