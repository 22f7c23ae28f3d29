/* What a cubin's instructions are: a GPU's machine code, counted by kind and width.
 *
 *   ELF file ── .text.NAME ──> 16-byte instructions: bits 0..8 what it does, 9..11 in
 *          │                   which form, 73..75 how wide a memory access is
 *          └─ .nv.info ──────> registers and stack frame of NAME
 *
 * The encoding is not documented by its maker. It was found by looking at kernels whose
 * instructions are known; calibrate.cu has such kernels, and a test that what is found
 * in them is what is there. It holds for compute capability 7.5 to 12.0.
 */
#ifndef GAPLESS_TESTS_CUBIN_H
#define GAPLESS_TESTS_CUBIN_H

#include <stddef.h>
#include <stdint.h>

enum code_kind {
    CODE_LDG, /* load, store: global memory */
    CODE_STG,
    CODE_LD, /* the same where it is not known of which kind the address is */
    CODE_ST,
    CODE_LDL, /* local memory: spilled registers, arrays with an index */
    CODE_STL,
    CODE_LDS, /* shared memory */
    CODE_STS,
    CODE_FFMA, /* fused multiply-add of floats: also part of a division or a root */
    CODE_DFMA, /* of doubles */
    CODE_KINDS
};

/* Of a memory access; as encoded. */
enum code_width {
    WIDTH_U8,
    WIDTH_S8,
    WIDTH_U16,
    WIDTH_S16,
    WIDTH_32,
    WIDTH_64,
    WIDTH_128,
    WIDTH_OTHER,
    WIDTHS
};

struct code {
    char name[256];        /* of the kernel, as the linker sees it */
    uint32_t architecture; /* 90 is sm_90 */
    uint32_t registers;    /* a thread's */
    uint32_t frame;        /* bytes of local memory */
    uint32_t instructions;
    uint32_t count[CODE_KINDS][WIDTHS]; /* arithmetic: all under WIDTH_OTHER */
};

/* All widths of a kind. */
uint32_t code_sum(const struct code *code, enum code_kind kind);

/* Adds the kernels of a cubin to ret[*ret_count ...], of which there are `max`. NULL if
 * that worked, else what is wrong with the file. */
const char *cubin_read(const unsigned char *bytes, size_t size, struct code *ret,
                       unsigned max, unsigned *ret_count);

#endif
