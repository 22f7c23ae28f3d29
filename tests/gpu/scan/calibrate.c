/* What must be found in the kernels of calibrate.cu. */
#include "tests/gpu/scan/scan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ANY = -1 /* at least one */
};

static const struct {
    const char *kernel;
    enum code_kind kind;
    enum code_width width;
    int count;
} known[] = {
    {"calibrate_32", CODE_LDG, WIDTH_32, 1},
    {"calibrate_32", CODE_STG, WIDTH_32, 1},
    {"calibrate_64", CODE_LDG, WIDTH_64, 1},
    {"calibrate_64", CODE_STG, WIDTH_64, 1},
    {"calibrate_128", CODE_LDG, WIDTH_128, 3},
    {"calibrate_128", CODE_STG, WIDTH_128, 2},
    {"calibrate_cached", CODE_LDG, WIDTH_128, 2},
    {"calibrate_cached", CODE_STG, WIDTH_128, 2},
    {"calibrate_local", CODE_LDG, WIDTH_32, ANY},
    {"calibrate_local", CODE_STG, WIDTH_32, 1},
    {"calibrate_local", CODE_LDL, WIDTH_32, ANY},
    {"calibrate_local", CODE_STL, WIDTH_32, ANY},
    {"calibrate_local", CODE_STL, WIDTH_128, ANY},
    {"calibrate_spill", CODE_LDG, WIDTH_32, 64},
    {"calibrate_spill", CODE_STG, WIDTH_32, 64},
    {"calibrate_spill", CODE_LDL, WIDTH_32, ANY},
    {"calibrate_spill", CODE_STL, WIDTH_32, ANY},
    {"calibrate_shared", CODE_LDG, WIDTH_32, 1},
    {"calibrate_shared", CODE_STG, WIDTH_32, 1},
    {"calibrate_shared", CODE_LDS, WIDTH_32, 1},
    {"calibrate_shared", CODE_STS, WIDTH_32, 1},
    {"calibrate_pointers", CODE_LDG, WIDTH_64, 2},
    {"calibrate_pointers", CODE_LDG, WIDTH_128, 1},
    {"calibrate_pointers", CODE_STG, WIDTH_128, 1},
    {"calibrate_generic", CODE_LD, WIDTH_32, 1},
    {"calibrate_generic", CODE_ST, WIDTH_32, 1},
    {"calibrate_generic", CODE_STG, WIDTH_32, 1},
    {"calibrate_generic", CODE_LDS, WIDTH_32, 1},
    {"calibrate_generic", CODE_STS, WIDTH_32, 1},
    {"calibrate_fma", CODE_LDG, WIDTH_32, 3},
    {"calibrate_fma", CODE_STG, WIDTH_32, 1},
    {"calibrate_fma", CODE_FFMA, WIDTH_OTHER, 1},
    {"calibrate_fma_double", CODE_LDG, WIDTH_64, 3},
    {"calibrate_fma_double", CODE_STG, WIDTH_64, 1},
    {"calibrate_fma_double", CODE_DFMA, WIDTH_OTHER, 1},
    {"calibrate_contract", CODE_LDG, WIDTH_32, 3},
    {"calibrate_contract", CODE_STG, WIDTH_32, 1},
    {"calibrate_contract_double", CODE_LDG, WIDTH_64, 3},
    {"calibrate_contract_double", CODE_STG, WIDTH_64, 1},
    {"calibrate_div", CODE_LDG, WIDTH_32, 2},
    {"calibrate_div", CODE_STG, WIDTH_32, 1},
    {"calibrate_div", CODE_FFMA, WIDTH_OTHER, ANY},
    {"calibrate_sqrt", CODE_LDG, WIDTH_32, 1},
    {"calibrate_sqrt", CODE_STG, WIDTH_32, 1},
    {"calibrate_sqrt", CODE_FFMA, WIDTH_OTHER, ANY},
};

static uint32_t known_count(const char *kernel, enum code_kind kind,
                            enum code_width width)
{
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcmp(known[i].kernel, kernel) == 0 && known[i].kind == kind &&
            known[i].width == width)
            return known[i].count == ANY ? UINT32_MAX : (uint32_t)known[i].count;
    }
    return 0;
}

/* What a kernel has, and no more: an instruction that is taken for another one shows,
 * too. */
static void check_code(const struct code *code, unsigned *faults)
{
    for (unsigned kind = 0; kind < CODE_KINDS; kind++) {
        for (unsigned width = 0; width < WIDTHS; width++) {
            uint32_t want = known_count(code->name, kind, width);
            uint32_t have = code->count[kind][width];
            uint32_t all_widths = known_count(code->name, kind, WIDTH_32);
            if (all_widths == UINT32_MAX && have > 0)
                continue; /* the compiler is free to move these together */
            if (want == UINT32_MAX ? have == 0 : have != want)
                scan_fault(faults, "sm_%u %s: kind %u, width %u: %u found, %s%u there",
                           code->architecture, code->name, kind, width, have,
                           want == UINT32_MAX ? "at least " : "",
                           want == UINT32_MAX ? 1 : want);
        }
    }
    int framed = strcmp(code->name, "calibrate_local") == 0 ||
                 strcmp(code->name, "calibrate_spill") == 0;
    if ((code->frame > 0) != framed)
        scan_fault(faults, "sm_%u %s: a frame of %u bytes", code->architecture,
                   code->name, code->frame);
    if (code->registers < 4 || code->registers > 255)
        scan_fault(faults, "sm_%u %s: %u registers", code->architecture, code->name,
                   code->registers);
}

static const struct ptx *ptx_find(const struct scan *scan, const char *name)
{
    static const struct ptx none;
    for (unsigned i = 0; i < scan->ptx_count; i++) {
        if (strcmp(scan->ptx[i].name, name) == 0)
            return &scan->ptx[i];
    }
    return &none;
}

static void want(unsigned *faults, const char *what, uint32_t have, uint32_t wanted)
{
    if (have != wanted)
        scan_fault(faults, "PTX: %s: %u found, %u there", what, have, wanted);
}

unsigned calibrate_check(const struct scan *scan)
{
    unsigned faults = 0;
    for (unsigned i = 0; i < scan->codes_count; i++)
        check_code(&scan->codes[i], &faults);
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        unsigned found = 0;
        for (unsigned j = 0; j < scan->codes_count; j++)
            found += strcmp(scan->codes[j].name, known[i].kernel) == 0;
        if (found != 1)
            scan_fault(&faults, "%u kernels %s", found, known[i].kernel);
    }
    want(&faults, "loads of 128", ptx_find(scan, "calibrate_128")->loads_128, 3);
    want(&faults, "stores of 128", ptx_find(scan, "calibrate_128")->stores_128, 2);
    want(&faults, "loads of 128", ptx_find(scan, "calibrate_64")->loads_128, 0);
    want(&faults, "local", ptx_find(scan, "calibrate_local")->local > 0, 1);
    want(&faults, "fma", ptx_find(scan, "calibrate_fma")->fused, 1);
    want(&faults, "fma", ptx_find(scan, "calibrate_fma_double")->fused, 1);
    want(&faults, "contracted", ptx_find(scan, "calibrate_contract")->fused, 0);
    want(&faults, "contracted", ptx_find(scan, "calibrate_contract_double")->fused, 0);
    want(&faults, "div.rn", ptx_find(scan, "calibrate_div")->divisions, 1);
    want(&faults, "sqrt.rn", ptx_find(scan, "calibrate_sqrt")->roots, 1);
    for (unsigned i = 0; i < scan->ptx_count; i++) {
        want(&faults, "loose arithmetic", scan->ptx[i].loose, 0);
        want(&faults, ".ftz", scan->ptx[i].flushed, 0);
    }
    return faults;
}

unsigned calibrate_careless(const struct scan *scan)
{
    unsigned faults = 0;
    want(&faults, "contracted", ptx_find(scan, "calibrate_contract")->fused, 1);
    want(&faults, "contracted", ptx_find(scan, "calibrate_contract_double")->fused, 1);
    want(&faults, "div.full", ptx_find(scan, "calibrate_div")->loose, 1);
    want(&faults, "div.rn", ptx_find(scan, "calibrate_div")->divisions, 0);
    want(&faults, "sqrt.approx", ptx_find(scan, "calibrate_sqrt")->loose, 1);
    want(&faults, "sqrt.rn", ptx_find(scan, "calibrate_sqrt")->roots, 0);
    want(&faults, ".ftz", ptx_find(scan, "calibrate_128")->flushed, 8);
    return faults;
}

/* The number before `unit` in the text from `from` to the next kernel; UINT32_MAX if
 * there is none. */
static uint32_t number_before(const char *from, const char *to, const char *unit)
{
    const char *at = strstr(from, unit);
    if (at == NULL || (to != NULL && at > to))
        return UINT32_MAX;
    while (at > from && at[-1] >= '0' && at[-1] <= '9')
        at--;
    return (uint32_t)strtoul(at, NULL, 10);
}

unsigned calibrate_compare(const struct scan *scan, const char *log)
{
    unsigned faults = 0;
    for (unsigned i = 0; i < scan->codes_count; i++) {
        const struct code *code = &scan->codes[i];
        char head[320];
        snprintf(head, sizeof(head), "entry function '%s' for 'sm_%u'", code->name,
                 code->architecture);
        const char *from = strstr(log, head);
        if (from == NULL) {
            scan_fault(&faults, "ptxas says nothing of %s", head);
            continue;
        }
        const char *to = strstr(from + 1, "entry function '");
        uint32_t frame = number_before(from, to, " bytes stack frame");
        uint32_t registers = number_before(from, to, " registers");
        if (frame != code->frame || registers != code->registers)
            scan_fault(&faults,
                       "sm_%u %s: %u registers, a frame of %u; ptxas says %u, %u",
                       code->architecture, code->name, code->registers, code->frame,
                       registers, frame);
    }
    return faults;
}
