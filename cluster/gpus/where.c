/* Which GPUs a group is made of. */
#include "cluster/gpus/where.h"

#include <string.h>

int gpus_where(const struct settings *settings, const char *option, const char **ret,
               struct gapless_error *error)
{
    const char *where =
        strcmp(option, "device") == 0 ? settings->device : settings->worker_device;

    if (options_source(settings, option) <= OPTION_DEFAULT)
        where = "cuda:all";
    if (strcmp(where, "cpu") == 0 || strcmp(where, "auto") == 0)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "--group nccl is for GPUs, not for --%s %s: write "
                                 "cuda:all or which ones, or leave --group out",
                                 option, where);
    *ret = where;
    return GAPLESS_OK;
}
