/* What the scanner of nvcc's output has read, and its checks. */
#ifndef GAPLESS_TESTS_SCAN_H
#define GAPLESS_TESTS_SCAN_H

#include "tests/gpu/scan/cubin.h"
#include "tests/gpu/scan/ptx.h"

enum {
    SCAN_MAX = 4096
};

/* Kernels of all files given, of all architectures. */
struct scan {
    struct code *codes;
    struct ptx *ptx;
    unsigned codes_count, ptx_count;
};

/* Prints what is wrong, on standard output, and counts it. */
void scan_fault(unsigned *faults, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Are the kernels of calibrate.cu seen as what they are? Returns how many are not. */
unsigned calibrate_check(const struct scan *scan);
/* Of registers and stack frames in the cubins, against what ptxas -v says in `log`. */
unsigned calibrate_compare(const struct scan *scan, const char *log);
/* calibrate.cu compiled without care: are its faults seen? */
unsigned calibrate_careless(const struct scan *scan);

/* The kernels of the plugin against the table of rules. */
unsigned expect_check(const struct scan *scan);
/* Prints registers and accesses of 128 bits, a line for each kernel. */
void expect_table(const struct scan *scan);

#endif
