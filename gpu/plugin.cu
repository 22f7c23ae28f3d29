/* The plugin's one exported function. */
#include "gpu/plugin.h"

#include <stdio.h>

static struct gpu_plugin plugin = {
    DEVICE_ABI,           sizeof(struct gpu_plugin), "", /* see below */
    &gpu_device,          &gpu_model_cublas,         &gpu_group_nccl,
    &gpu_matrices_cublas,
};

extern "C" __attribute__((visibility("default"))) const struct gpu_plugin *
gapless_gpu_plugin(uint32_t abi);

/* The engine calls it once, before anything else. */
extern "C" const struct gpu_plugin *gapless_gpu_plugin(uint32_t abi)
{
    (void)snprintf(plugin.version, sizeof plugin.version, GAPLESS_RELEASE " CUDA %d.%d",
                   CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
    return abi == DEVICE_ABI ? &plugin : NULL;
}
