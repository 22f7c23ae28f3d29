/* Fake CUDA: the runtime's interface without the kernel language. */
#ifndef FAKE_CUDA_RUNTIME_API_H
#define FAKE_CUDA_RUNTIME_API_H

#include "tests/gpu/shim/runtime_api.h"

#endif
