/* Which GPUs a group is made of. */
#ifndef CLUSTER_GPUS_WHERE_H
#define CLUSTER_GPUS_WHERE_H

#include "cluster/options/options.h"
#include <gapless/status.h>

/* The GPUs of a group, as --`option` (device, worker-device) has them: all, if it was
 * not given. GAPLESS_INVALID where it names no GPUs. */
int gpus_where(const struct settings *settings, const char *option, const char **ret,
               struct gapless_error *error);

#endif
