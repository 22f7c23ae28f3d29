/* How passes go over memory on this processor (compute.h). */
#include "engine/compute/compute.h"

/* From this size on `sent` is in no cache near the worker anyway when it is read there: pass
 * and the worker's first read of it together take 0.97 and 0.84 of the time at 16 MiB,
 * 0.88 and 0.92 at 64 MiB, and more at 8 MiB and below (asgd and dana-zero over shared
 * memory, Intel, family 6, model 207). */
#define PAST_BYTES (16u << 20)

unsigned compute_cpu_ways(uint64_t elements)
{
    unsigned ways = 0;

#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_is("intel"))
        ways = WAY_WOVEN | WAY_ASK |
               (elements >= PAST_BYTES / sizeof(number) ? WAY_PAST : 0);
#endif
    (void)elements;
    return ways;
}
