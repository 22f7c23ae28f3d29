/* Which of the compiled tables this machine runs: that of the engine's passes. */
#include "cluster/workloads/conv_loops.h"

#include "engine/compute/compute.h"

#include <string.h>

extern const struct conv_loops conv_loops_generic;
#if defined(__x86_64__) && !defined(GAPLESS_ISA_ONE)
extern const struct conv_loops conv_loops_avx2, conv_loops_avx512;
#endif

const struct conv_loops *conv_loops_best(void)
{
#if defined(__x86_64__) && !defined(GAPLESS_ISA_ONE)
    const char *name = compute_cpu()->name;

    if (strcmp(name, conv_loops_avx512.name) == 0)
        return &conv_loops_avx512;
    if (strcmp(name, conv_loops_avx2.name) == 0)
        return &conv_loops_avx2;
#endif
    return &conv_loops_generic;
}
