/* What a test may ask of the emulator of the kernel language (kernel_language.h). */
#ifndef SHIM_CUEMU_H
#define SHIM_CUEMU_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* From the next launch on: the order of threads and blocks by this seed (0: their own),
 * and one time in `preempt` another thread goes on at an atomic or fence (0: never). In
 * place of the environment's. */
void cuemu_order(uint64_t seed, unsigned preempt);
/* Launches so far, of this process. */
unsigned long cuemu_launches(void);

#ifdef __cplusplus
}
#endif

#endif
