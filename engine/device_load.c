/* Opening the GPU plugin, and choosing GPUs. */
#include "device.h"

#include "gapless.h"
