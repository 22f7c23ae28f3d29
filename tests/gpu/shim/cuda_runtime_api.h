/* Fake CUDA: the runtime's interface without the kernel language. */
#include "runtime_api.h"
