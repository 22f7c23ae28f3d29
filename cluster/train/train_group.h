/* Groups among the options: which GPUs they are made of. */
#ifndef CLUSTER_TRAIN_GROUP_H
#define CLUSTER_TRAIN_GROUP_H

#include "cluster/launch/launch.h"
#include "cluster/options/options.h"
#include <gapless/status.h>

struct train;

/* gapless train --group nccl with a master: each worker process is a group of as many
 * GPUs as the others; one group of all GPUs unless --workers was given. */
int train_group_places(struct train *train, struct gapless_error *error);
/* --device of worker number `worker`: "cuda:4,5,6,7". False: no memory. */
bool train_group_argument(const struct train *train, uint32_t worker,
                          struct launch_arguments *ret);

#endif
