/* What must be true of the plugin's kernels. How often a kernel loads and stores 128
 * bits follows from the table of rules: each array once in the body for four aligned
 * elements. */
#include "tests/gpu/scan/scan.h"

#include "engine/rules/compute_rules.h"
#include "engine/rules/rules.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum {
    REGISTERS_MAX = 64, /* four blocks of 256 threads share 65,536 */
    ARCHITECTURES_MAX = 16
};

static const char prefix[] = "gapless_"; /* of kernels with the bits of the CPU */

static unsigned bits(unsigned slots)
{
    unsigned count = 0;
    for (; slots != 0; slots &= slots - 1)
        count++;
    return count;
}

/* What the headers of a rule's halves say beyond the table. */
static const struct {
    const char *symbol;
    unsigned
        measured_own; /* read by measure where the gap is against the own look-ahead */
    unsigned sends;   /* read for a look-ahead without an update */
    bool own_gap;     /* has a kernel for that gap */
} halves[] = {
#define RULE(symbol, name, correction, momentum, extra, source)                        \
    {#symbol, rule_##symbol##_measure_reads | momentum##_ahead_reads,                  \
     rule_##symbol##_send_reads,                                                       \
     rule_##symbol##_own_gap &&                                                        \
         !(rule_##symbol##_flags & (RULE_GLOBAL | RULE_BLOCK))},
#include "engine/rules/rules.def"
#undef RULE
};

/* The row of the rule whose symbol `text` starts with; "dana_ga_global_own" is of
 * dana_ga_global, not of dana_ga. -1: none; else *ret_rest is what follows. */
static int row_of(const char *text, const char **ret_rest)
{
    size_t best = 0;
    int row = -1;
    for (int i = 0; i < rules_count; i++) {
        size_t length = strlen(halves[i].symbol);
        if (length > best && strncmp(text, halves[i].symbol, length) == 0 &&
            (text[length] == '_' || text[length] == 0)) {
            best = length;
            row = i;
        }
    }
    *ret_rest = text + best;
    return row;
}

/* Accesses of 128 bits in a kernel. */
struct moves {
    unsigned loads, stores;
    bool fewer; /* of the loads: what a momentum's look-ahead does not need is left out
                 */
    bool far; /* takes addresses from memory: the compiler cannot know of which kind */
};

/* The part of a rule's pass that is called `family`. */
static bool expect_rule(const char *family, int row, bool own, bool gap,
                        struct moves *ret)
{
    const struct rule *rule = &rules[row];
    unsigned looked_at = gap ? SLOT_SENT : 0;
    ret->stores = bits(rule->writes);
    if (strcmp(family, "apply") == 0 || strcmp(family, "round") == 0) {
        ret->loads = bits(rule->reads | looked_at);
        ret->far = family[0] == 'r';
    } else if (strcmp(family, "block") == 0) { /* measured, then updated */
        ret->loads = bits(rule->measure_reads) + bits(rule->reads);
    } else if (strcmp(family, "measure") == 0) {
        ret->loads = bits(own ? halves[row].measured_own : rule->measure_reads);
        ret->stores = 0;
    } else if (strcmp(family, "send") == 0) {
        ret->loads = bits(halves[row].sends);
        ret->stores = 1;
        ret->fewer = true;
    } else {
        return false;
    }
    return true;
}

/* Those of RULE_MATRIX, by momentum. */
#define COUNT(slots) (unsigned)__builtin_popcount(slots)
#define MATRIX(momentum)                                                               \
    {"matrix_rest_" #momentum,                                                         \
     {COUNT(momentum##_reads), COUNT(momentum##_writes), false, false}},               \
        {"matrix_gather_" #momentum,                                                   \
         {COUNT(momentum##_gather_reads), COUNT(momentum##_gather_writes), false,      \
          false}},                                                                     \
        {"matrix_turn_" #momentum,                                                     \
         {COUNT(momentum##_turn_reads), COUNT(momentum##_turn_writes), false, false}}, \
        {"matrix_send_" #momentum,                                                     \
         {COUNT(SLOT_THETA | (momentum##_turn_reads & SLOT_ALL)), 1, false, false}},   \
    {                                                                                  \
        "matrix_measure_" #momentum,                                                   \
        {                                                                              \
            COUNT(SLOT_THETA | SLOT_GRAD | SLOT_SENT |                                 \
                  (momentum##_turn_reads & SLOT_OWN)),                                 \
                0, false, false                                                        \
        }                                                                              \
    }

/* Kernels that are no rule's. */
static const struct {
    const char *name;
    struct moves moves;
} others[] = {
    {"measure_nothing", {0, 0, false, false}},
    {"gap", {2, 0, false, false}},
    {"norm_sq", {1, 0, false, false}},
    {"decay", {2, 1, false, false}},
    {"scale", {1, 1, false, false}},
    {"slim", {2, 2, false, false}},
    {"average", {3, 2, false, false}},
    {"forget", {2, 2, false, false}},
    {"finite", {1, 0, false, false}},
    {"resum", {1, 1, false, true}},
    {"matrix_normalise", {1, 1, false, false}},
    {"matrix_diagonal", {0, 0, false, false}},
    {"matrix_gate", {0, 0, false, false}},
    {"matrix_sum", {0, 0, false, false}},
    MATRIX(muon),
    MATRIX(muon_dana),
};

/* What a kernel called gapless_<name> moves; false if there should be none of that
 * name. */
static bool expect(const char *name, struct moves *ret)
{
    const char *rest, *under = strchr(name, '_');
    char family[32] = "";
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        if (strcmp(others[i].name, name) == 0) {
            *ret = others[i].moves;
            return true;
        }
    }
    if (under == NULL || (size_t)(under - name) >= sizeof(family))
        return false;
    memcpy(family, name, (size_t)(under - name));
    int row = row_of(under + 1, &rest);
    bool own = strncmp(rest, "_own", 4) == 0;
    bool gap = strstr(rest, "_gap") != NULL;
    *ret = (struct moves){0, 0, false, false};
    return row >= 0 && expect_rule(family, row, own, gap, ret);
}

static void check_moves(const struct code *code, unsigned *faults)
{
    struct moves want;
    unsigned far_loads = code->count[CODE_LD][WIDTH_128];
    unsigned far_stores = code->count[CODE_ST][WIDTH_128];
    unsigned loads = code->count[CODE_LDG][WIDTH_128] + far_loads;
    unsigned stores = code->count[CODE_STG][WIDTH_128] + far_stores;
    if (!expect(code->name + strlen(prefix), &want)) {
        scan_fault(faults, "sm_%u %s: what should it do? (expect.c)",
                   code->architecture, code->name);
        return;
    }
    bool right = want.fewer ? loads > 0 && loads <= want.loads : loads == want.loads;
    if (!right || stores != want.stores)
        scan_fault(faults,
                   "sm_%u %s: 128 bits are loaded %u times and stored %u times; "
                   "expected are %u and %u",
                   code->architecture, code->name, loads, stores, want.loads,
                   want.stores);
    if (!want.far && code_sum(code, CODE_LD) + code_sum(code, CODE_ST) != 0)
        scan_fault(faults,
                   "sm_%u %s: accesses memory without knowing of which kind it is",
                   code->architecture, code->name);
}

static const struct ptx *ptx_find(const struct scan *scan, const struct code *code)
{
    for (unsigned i = 0; i < scan->ptx_count; i++) {
        if (scan->ptx[i].target == code->architecture &&
            strcmp(scan->ptx[i].name, code->name) == 0)
            return &scan->ptx[i];
    }
    return NULL;
}

/* What holds for every kernel. */
static void check_lean(const struct code *code, unsigned *faults)
{
    uint32_t local = code_sum(code, CODE_LDL) + code_sum(code, CODE_STL);
    if (code->registers == 0 || code->registers > REGISTERS_MAX)
        scan_fault(faults, "sm_%u %s: %u registers, at most %u", code->architecture,
                   code->name, code->registers, (unsigned)REGISTERS_MAX);
    if (code->frame != 0 || local != 0)
        scan_fault(faults,
                   "sm_%u %s: spills: a frame of %u bytes, %u accesses to local memory",
                   code->architecture, code->name, code->frame, local);
}

/* Arithmetic with the bits of the CPU. */
static void check_exact(const struct scan *scan, const struct code *code,
                        unsigned *faults)
{
    const struct ptx *ptx = ptx_find(scan, code);
    if (ptx == NULL) {
        scan_fault(faults, "sm_%u %s: there is no PTX of it", code->architecture,
                   code->name);
        return;
    }
    if (ptx->fused != 0 || ptx->loose != 0 || ptx->flushed != 0 || ptx->local != 0)
        scan_fault(faults,
                   "sm_%u %s: PTX has %u fused, %u loosely rounded, %u flushing "
                   "instructions, %u of local memory",
                   code->architecture, code->name, ptx->fused, ptx->loose, ptx->flushed,
                   ptx->local);
    if (ptx->divisions + ptx->roots == 0 &&
        code_sum(code, CODE_FFMA) + code_sum(code, CODE_DFMA) != 0)
        scan_fault(
            faults,
            "sm_%u %s: fused multiply-adds that are no part of a division or root",
            code->architecture, code->name);
}

/* One kernel of that name on this architecture? */
static void check_there(const struct scan *scan, uint32_t architecture,
                        const char *family, const char *symbol, const char *variant,
                        unsigned *faults)
{
    char name[128];
    unsigned count = 0;
    snprintf(name, sizeof(name), "%s%s_%s%s", prefix, family, symbol, variant);
    for (unsigned i = 0; i < scan->codes_count; i++)
        count += scan->codes[i].architecture == architecture &&
                 strcmp(scan->codes[i].name, name) == 0;
    if (count != 1)
        scan_fault(faults, "sm_%u: %u kernels %s", architecture, count, name);
}

/* Every rule has its kernels. */
static void check_complete(const struct scan *scan, uint32_t architecture,
                           unsigned *faults)
{
    for (int i = 0; i < rules_count; i++) {
        const char *symbol = halves[i].symbol;
        check_there(scan, architecture, "apply", symbol, "_sent", faults);
        check_there(scan, architecture, "apply", symbol, "_sent_gap", faults);
        if (halves[i].own_gap) {
            check_there(scan, architecture, "apply", symbol, "_own", faults);
            check_there(scan, architecture, "apply", symbol, "_own_gap", faults);
        }
        if (rules[i].flags & RULE_BLOCK)
            check_there(scan, architecture, "block", symbol, "", faults);
        if (rules[i].flags & (RULE_GLOBAL | RULE_BLOCK))
            check_there(scan, architecture, "measure", symbol, "_sent", faults);
        if (rules[i].flags & RULE_ROUND)
            check_there(scan, architecture, "round", symbol, "_sent", faults);
        check_there(scan, architecture, "send", symbol, "", faults);
    }
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        unsigned count = 0;
        for (unsigned j = 0; j < scan->codes_count; j++)
            count += scan->codes[j].architecture == architecture &&
                     strncmp(scan->codes[j].name, prefix, strlen(prefix)) == 0 &&
                     strcmp(scan->codes[j].name + strlen(prefix), others[i].name) == 0;
        if (count != 1)
            scan_fault(faults, "sm_%u: %u kernels %s%s", architecture, count, prefix,
                       others[i].name);
    }
}

void expect_table(const struct scan *scan)
{
    puts("LDG.128 STG.128  kernel: registers (architecture)");
    for (unsigned i = 0; i < scan->codes_count; i++) {
        const struct code *code = &scan->codes[i];
        bool first = true;
        for (unsigned j = 0; j < i && first; j++)
            first = strcmp(scan->codes[j].name, code->name) != 0;
        if (!first)
            continue;
        printf("%7u %7u  %s:", code->count[CODE_LDG][WIDTH_128],
               code->count[CODE_STG][WIDTH_128], code->name);
        for (unsigned j = i; j < scan->codes_count; j++) {
            if (strcmp(scan->codes[j].name, code->name) == 0)
                printf(" %u (%u)", scan->codes[j].registers,
                       scan->codes[j].architecture);
        }
        putchar('\n');
    }
}

unsigned expect_check(const struct scan *scan)
{
    uint32_t architectures[ARCHITECTURES_MAX];
    unsigned count = 0, faults = 0, exact = 0;
    for (unsigned i = 0; i < scan->codes_count; i++) {
        const struct code *code = &scan->codes[i];
        unsigned known = 0;
        while (known < count && architectures[known] != code->architecture)
            known++;
        if (known == count && count < ARCHITECTURES_MAX)
            architectures[count++] = code->architecture;
        check_lean(code, &faults);
        if (strncmp(code->name, prefix, strlen(prefix)) == 0) {
            check_exact(scan, code, &faults);
            check_moves(code, &faults);
            exact++;
        }
    }
    for (unsigned i = 0; i < count; i++)
        check_complete(scan, architectures[i], &faults);
    if (count == 0)
        scan_fault(&faults, "there are no kernels");
    printf("%u kernels on %u architectures, %u with the bits of the CPU: %u faults\n",
           scan->codes_count, count, exact, faults);
    return faults;
}
