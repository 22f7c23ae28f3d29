/* Which of the compiled instruction sets this machine runs. (Not by target_clones or
 * ifunc: those choose before a sanitizer's run time is up.) */
#include "engine/compute/compute.h"

#include <stdlib.h>
#include <string.h>

extern const struct compute compute_cpu_generic;

#if defined(__x86_64__) && !defined(GAPLESS_ISA_ONE)

extern const struct compute compute_cpu_avx2, compute_cpu_avx512;

/* Best first; each runs wherever the one before it does. */
static const struct compute *const list[] = {&compute_cpu_avx512, &compute_cpu_avx2,
                                             &compute_cpu_generic, NULL};

/* The levels x86-64-v3 and -v4 by the features that tell them apart. */
static int best(void)
{
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") ||
        !__builtin_cpu_supports("bmi") || !__builtin_cpu_supports("bmi2"))
        return 2;
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512cd") &&
                   __builtin_cpu_supports("avx512dq") &&
                   __builtin_cpu_supports("avx512vl")
               ? 0
               : 1;
}

#else

static const struct compute *const list[] = {&compute_cpu_generic, NULL};

static int best(void)
{
    return 0;
}

#endif

const struct compute *const *compute_cpu_all(void)
{
    return list + best();
}

const struct compute *compute_cpu(void)
{
    const struct compute *const *all = compute_cpu_all();
    const char *wanted = getenv("GAPLESS_ISA");

    for (int i = 0; wanted && all[i]; i++)
        if (!strcmp(all[i]->name + strlen("cpu-"), wanted))
            return all[i];
    return all[0];
}
