/* What the instructions of a PTX file are, by kernel: the level above machine code,
 * which is documented, and in which arithmetic has not been taken apart yet.
 */
#ifndef GAPLESS_TESTS_PTX_H
#define GAPLESS_TESTS_PTX_H

#include <stddef.h>
#include <stdint.h>

struct ptx {
    char name[256];
    uint32_t target;    /* 90 is sm_90 */
    uint32_t fused;     /* fma, mad of floats: rounded once */
    uint32_t loose;     /* .full or .approx: not rounded correctly */
    uint32_t flushed;   /* .ftz: denormals taken as zero */
    uint32_t divisions; /* div.rn */
    uint32_t roots;     /* sqrt.rn */
    uint32_t local;     /* loads and stores of local memory */
    uint32_t loads_128; /* of global memory, 128 bits */
    uint32_t stores_128;
};

/* Adds the kernels (and functions) of a text to ret[*ret_count ...], of which there are
 * `max`. NULL if that worked, else what is wrong with it. */
const char *ptx_read(const char *text, struct ptx *ret, unsigned max,
                     unsigned *ret_count);

#endif
