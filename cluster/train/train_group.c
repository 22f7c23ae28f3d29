/* Worker processes that are groups of GPUs, for gapless train. */
#include "cluster/train/train_group.h"

#include "cluster/gpus/where.h"
#include "cluster/train/train.h"

#include <stdio.h>
#include <string.h>

int train_group_places(struct train *train, struct gapless_error *error)
{
    struct settings *settings = &train->settings;
    struct parse_error reason;
    int status = gpus_where(settings, "worker-device", &settings->worker_device, error);

    if (status == GAPLESS_OK)
        status = worker_places(settings->worker_device, &train->task.model,
                               &train->places, error);
    if (status != GAPLESS_OK)
        return status;
    if (options_source(settings, "workers") <= OPTION_DEFAULT &&
        !options_set(FOR_TRAIN, "workers", "1", settings, &reason))
        return gapless_error_set(error, GAPLESS_INVALID, 0, "--workers %s",
                                 reason.text);
    if (train->places.gpus % settings->workers != 0)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "%u GPUs cannot be dealt evenly to %u groups: choose "
                                 "another number of --workers, or GPUs with "
                                 "--worker-device",
                                 train->places.gpus, settings->workers);
    return GAPLESS_OK;
}

bool train_group_argument(const struct train *train, uint32_t worker,
                          struct launch_arguments *ret)
{
    uint32_t each = train->places.gpus / train->settings.workers;
    char list[128] = "";
    size_t used = 0;

    for (uint32_t i = 0; i < each && used < sizeof list; i++) {
        int more = snprintf(list + used, sizeof list - used, "%s%u", i > 0 ? "," : "",
                            train->places.number[worker * each + i]);

        used += more > 0 ? (size_t)more : 0;
    }
    return launch_argument(ret, "--device=cuda:%s", list);
}
