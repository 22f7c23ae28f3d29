/* Which device a command uses: the CPU, GPUs that are there, or a clear no. */
#include "cluster/options/device_choice.h"

#include "engine/device/device.h"

#include <stdio.h>
#include <string.h>

bool device_is_place(const char *text)
{
    return strcmp(text, "cpu") == 0 || strcmp(text, "auto") == 0 ||
           strcmp(text, "cuda") == 0 || strncmp(text, "cuda:", 5) == 0;
}

/* No GPU can be used: with auto the CPU is, and the note says why; else that is a failure. */
static int without_gpu(bool any, int status, const struct gapless_error *reason,
                       const char **ret_use, char *ret_note, size_t bytes,
                       struct gapless_error *error)
{
    if (!any) {
        if (error != NULL)
            *error = *reason;
        return status;
    }
    (void)snprintf(ret_note, bytes, "no GPU is used: %s", reason->text);
    *ret_use = "cpu";
    return GAPLESS_OK;
}

int device_settle(const char *text, const char **ret_use, uint32_t *ret_gpus,
                  char *ret_note, size_t bytes, struct gapless_error *error)
{
    bool any = strcmp(text, "auto") == 0;
    const struct gpu_plugin *plugin = NULL;
    uint32_t numbers[DEVICE_MAX], count = 0;
    struct gapless_error reason = {0};
    int status;

    if (!device_is_place(text))
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "'%.60s' is no device: write cpu, cuda, cuda:1, "
                                 "cuda:0,2, cuda:all or auto",
                                 text);
    if (bytes > 0)
        ret_note[0] = '\0';
    if (strcmp(text, "cpu") == 0) {
        *ret_use = "cpu";
        *ret_gpus = 0;
        return GAPLESS_OK;
    }
    status = device_plugin(&plugin, &reason);
    if (status == GAPLESS_OK)
        status = device_choose(plugin, any ? "cuda" : text, numbers, &count, &reason);
    if (status == GAPLESS_OK) {
        *ret_use = any ? "cuda" : text;
        *ret_gpus = count;
        return GAPLESS_OK;
    }
    if (any)
        *ret_gpus = 0;
    return without_gpu(any, status, &reason, ret_use, ret_note, bytes, error);
}

int device_settle_passes(const char *rule, const char **device, char *ret_note,
                         size_t bytes, struct gapless_error *error)
{
    bool any = strcmp(*device, "auto") == 0;
    const struct gpu_plugin *plugin = NULL;
    struct gapless_error reason = {0};
    struct gapless_rule found;
    uint32_t gpus = 0;
    int status = device_settle(*device, device, &gpus, ret_note, bytes, error);

    if (status != GAPLESS_OK || gpus == 0 ||
        gapless_rule_find(rule, &found, NULL) != GAPLESS_OK || !found.matrices)
        return status;
    status = device_plugin(&plugin, &reason);
    if (status == GAPLESS_OK)
        status = plugin->matrices->ready(&reason);
    if (status == GAPLESS_OK)
        return GAPLESS_OK;
    return without_gpu(any, status, &reason, device, ret_note, bytes, error);
}
