/* CUDA on the CPU, for tests: stands where the toolkit's header of this name stands.
 * The kernel language is in kernel_language.h and sched.cpp, the runtime's functions in
 * runtime_api.h and ../fake. */
#ifndef SHIM_CUDA_RUNTIME_H
#define SHIM_CUDA_RUNTIME_H

#include "tests/gpu/shim/runtime_api.h"

#ifdef __cplusplus
#include "tests/gpu/shim/kernel_language.h"
#endif

#endif
