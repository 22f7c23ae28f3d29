/* The plugin's one exported function. */
#include "gpu/plugin.h"

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)

/* CUDART_VERSION is 1000*major + 10*minor. */
static const struct gpu_plugin plugin = {
    DEVICE_ABI,
    sizeof(struct gpu_plugin),
    GAPLESS_RELEASE " for CUDA " TEXT(CUDART_VERSION),
    &gpu_device,
    &gpu_model_cublas,
    &gpu_group_nccl,
};

extern "C" __attribute__((visibility("default"))) const struct gpu_plugin *
gapless_gpu_plugin(uint32_t abi);

extern "C" const struct gpu_plugin *gapless_gpu_plugin(uint32_t abi)
{
    return abi == DEVICE_ABI ? &plugin : NULL;
}
