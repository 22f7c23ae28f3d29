/* Scans what nvcc made of kernels. Exit status: 0 as it must be, 1 not, 2 misuse.
 *
 *   gapless_gpu_scan show FILE.cubin|FILE.ptx...    each file's kernels
 *   gapless_gpu_scan table FILE.cubin...            each kernel, of all architectures
 *   gapless_gpu_scan calibrate CUBIN PTX LOG     of calibrate.cu; LOG: ptxas -v
 *   gapless_gpu_scan careless PTX                of calibrate.cu, compiled without care
 *   gapless_gpu_scan check FILE.cubin|FILE.ptx...   the plugin's, of all architectures
 */
#include "tests/gpu/scan/scan.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void scan_fault(unsigned *faults, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    (*faults)++;
}

/* A whole file, with a 0 after it; NULL if it cannot be read. */
static unsigned char *slurp(const char *path, size_t *ret_size)
{
    FILE *file = fopen(path, "rb");
    unsigned char *bytes = NULL;
    size_t size = 0, room = 1 << 16;
    while (file != NULL) {
        unsigned char *more = realloc(bytes, room);
        if (more == NULL)
            break;
        bytes = more;
        size_t got = fread(bytes + size, 1, room - 1 - size, file);
        size += got;
        if (got == 0 && !ferror(file)) {
            fclose(file);
            bytes[size] = 0;
            *ret_size = size;
            return bytes;
        }
        if (got == 0)
            break;
        if (size == room - 1)
            room *= 2;
    }
    if (file != NULL)
        fclose(file);
    free(bytes);
    return NULL;
}

static int ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), end_length = strlen(end);
    return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

static int read_file(const char *path, struct scan *scan)
{
    size_t size = 0;
    unsigned char *bytes = slurp(path, &size);
    const char *reason = "cannot be read";
    if (bytes != NULL && ends_with(path, ".cubin"))
        reason = cubin_read(bytes, size, scan->codes, SCAN_MAX, &scan->codes_count);
    else if (bytes != NULL && ends_with(path, ".ptx"))
        reason = ptx_read((const char *)bytes, scan->ptx, SCAN_MAX, &scan->ptx_count);
    else if (bytes != NULL)
        reason = "its name ends neither in .cubin nor in .ptx";
    if (reason != NULL)
        printf("%s: %s\n", path, reason);
    free(bytes);
    return reason == NULL;
}

static void show(const struct scan *scan)
{
    if (scan->codes_count > 0)
        puts("arch regs frame instr LDG.128 STG.128 LDG.32 STG.32 LD/ST LDL/STL FFMA "
             "kernel");
    for (unsigned i = 0; i < scan->codes_count; i++) {
        const struct code *code = &scan->codes[i];
        printf("%4u %4u %5u %5u %7u %7u %6u %6u %5u %7u %4u %s\n", code->architecture,
               code->registers, code->frame, code->instructions,
               code->count[CODE_LDG][WIDTH_128], code->count[CODE_STG][WIDTH_128],
               code->count[CODE_LDG][WIDTH_32], code->count[CODE_STG][WIDTH_32],
               code_sum(code, CODE_LD) + code_sum(code, CODE_ST),
               code_sum(code, CODE_LDL) + code_sum(code, CODE_STL),
               code_sum(code, CODE_FFMA), code->name);
    }
    if (scan->ptx_count > 0)
        puts(" ptx fused loose flushed div.rn sqrt.rn local ld.128 st.128 kernel");
    for (unsigned i = 0; i < scan->ptx_count; i++) {
        const struct ptx *ptx = &scan->ptx[i];
        printf("%4u %5u %5u %7u %6u %7u %5u %6u %6u %s\n", ptx->target, ptx->fused,
               ptx->loose, ptx->flushed, ptx->divisions, ptx->roots, ptx->local,
               ptx->loads_128, ptx->stores_128, ptx->name);
    }
}

static int run(const char *what, struct scan *scan, int count, char **paths)
{
    unsigned faults = 0;
    int files = strcmp(what, "calibrate") == 0 ? 2 : count;
    for (int i = 0; i < files && i < count; i++) {
        if (!read_file(paths[i], scan))
            return 1;
    }
    if (strcmp(what, "show") == 0) {
        show(scan);
    } else if (strcmp(what, "calibrate") == 0 && count == 3) {
        size_t size;
        unsigned char *log = slurp(paths[2], &size);
        if (log == NULL)
            return printf("%s: cannot be read\n", paths[2]), 1;
        faults = calibrate_check(scan) + calibrate_compare(scan, (const char *)log);
        free(log);
    } else if (strcmp(what, "table") == 0) {
        expect_table(scan);
    } else if (strcmp(what, "careless") == 0) {
        faults = calibrate_careless(scan);
    } else if (strcmp(what, "check") == 0) {
        faults = expect_check(scan);
    } else {
        return 2;
    }
    return faults == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    struct scan scan = {calloc(SCAN_MAX, sizeof(struct code)),
                        calloc(SCAN_MAX, sizeof(struct ptx)), 0, 0};
    int result = 2;
    if (argc >= 3 && scan.codes != NULL && scan.ptx != NULL)
        result = run(argv[1], &scan, argc - 2, argv + 2);
    if (result == 2)
        fputs("usage: gapless_gpu_scan show|table|calibrate|careless|check FILE...\n",
              stderr);
    free(scan.codes);
    free(scan.ptx);
    return result;
}
