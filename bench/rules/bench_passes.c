/* Which of the compiled instruction sets to hold a pass against: its own. */
#include "bench/rules/bench_passes.h"

#include <string.h>

extern const struct bench_passes bench_passes_generic;
#if defined(__x86_64__) && !defined(GAPLESS_ISA_ONE)
extern const struct bench_passes bench_passes_avx2, bench_passes_avx512;
#endif

const struct bench_passes *bench_passes_find(const char *compute_name)
{
    static const struct bench_passes *const list[] = {
#if defined(__x86_64__) && !defined(GAPLESS_ISA_ONE)
        &bench_passes_avx512,
        &bench_passes_avx2,
#endif
        &bench_passes_generic
    };

    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        if (!strcmp(list[i]->name, compute_name))
            return list[i];
    return NULL;
}
