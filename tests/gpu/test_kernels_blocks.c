/* Rules that measure blocks, with the bits of the CPU: blocks of every shape, pieces,
 * dots, several gradients, grids and orders of threads.
 * */
#include "tests/gpu/kernels_bed.h"

enum {
    N_MAX = 150000,
    BLOCKS_MAX = 4000
};

static struct bed bed;
static uint32_t ends[BLOCKS_MAX], pieces[BLOCKS_MAX];
static double dots[BLOCKS_MAX * DEVICE_QUEUE];
static float cpu_gates[BLOCKS_MAX * DEVICE_QUEUE], gpu_gates[BLOCKS_MAX * DEVICE_QUEUE];
static unsigned half_open; /* passes with a gate that is neither 0 nor 1 */

static const struct rule *gated[64]; /* the rules that measure blocks */
static int gated_count;

static int open_bed(void **state)
{
    (void)state;
    for (int i = 0; i < rules_count && gated_count < 64; i++)
        if (rules[i].flags & RULE_BLOCK)
            gated[gated_count++] = &rules[i];
    assert_true(gated_count > 0);
    bed_open(&bed, N_MAX, BLOCKS_MAX);
    return 0;
}

static int close_bed(void **state)
{
    (void)state;
    bed_close(&bed);
    return 0;
}

enum with {
    WITH_PIECES = 1,
    WITH_DOTS = 2,
    WITHOUT_BLOCKS = 4, /* the range is one */
    MISALIGNED = 8,
    SPECIAL = 16
};

/* Applies `count` gradients to n elements in the blocks of ends[]. */
static void apply_once(const struct rule *rule, size_t n, uint32_t blocks_count,
                       uint64_t seed, unsigned kind, uint32_t count, unsigned with)
{
    const struct compute *cpu = bed_cpu(seed);
    struct blocks blocks = {.ends = ends, .count = blocks_count};
    struct kernel_blocks here = {
        .ends = ends, .count = blocks_count, .elements = ends[blocks_count - 1]};
    const uint32_t whole = (uint32_t)n;
    const struct blocks one = {.ends = &whole, .count = 1};
    struct device_pass pass[DEVICE_QUEUE];
    struct sums sums[DEVICE_QUEUE];
    unsigned want = kind & 4 ? WANT_GAP : 0;
    bool named = !(with & WITHOUT_BLOCKS);
    char what[128];

    snprintf(what, sizeof what, "%s, kind %u, seed %llu, %u gradients, %u blocks",
             rule->name, kind, (unsigned long long)seed, count, blocks_count);
    bed_fill(&bed, n, count, seed, with & MISALIGNED, with & SPECIAL);
    bed_order(&bed, seed);
    for (uint32_t i = 0; i < blocks_count; i++)
        pieces[i] = 1 + (uint32_t)bed_draw(&bed, 9);
    for (uint32_t i = 0; i < blocks_count * count; i++)
        dots[i] = ((double)bed_draw(&bed, 1000) - 500.0) * 1e-3;
    blocks.pieces = here.pieces = with & WITH_PIECES ? pieces : NULL;
    here.dots = with & WITH_DOTS ? dots : NULL;
    here.gates = gpu_gates;
    here.gates_stride = blocks_count;
    for (uint32_t q = 0; q < count; q++) {
        struct arrays at = bed_arrays(bed.cpu, q);
        pass[q].at = bed_arrays(bed.gpu, q);
        /* kind bit 3: every other gradient has no lag */
        pass[q].scalars =
            bed_scalars(rule, (kind & 3) | (kind & 8 && q % 2 ? 2 : 0), q);
        pass[q].scalars.kappa *=
            exp2(-(double)((seed + q) % 12)); /* some gates half open */
        pass[q].dots = NULL;
        pass[q].want = want;
        blocks.dots = with & WITH_DOTS ? dots + (size_t)q * blocks_count : NULL;
        blocks.gates = cpu_gates + (size_t)q * blocks_count;
        cpu->apply(rule, &at, &pass[q].scalars, named ? &blocks : &one, bed.padded,
                   want, &sums[q]);
    }
    bed_wait(&bed, kernel_apply(&bed.place, rule, pass, count, named ? &here : NULL, n,
                                bed.result));
    bed_compare(&bed, what);
    for (uint32_t q = 0; q < count; q++) {
        double gates = sums[q].gate_sum;
        bed_compare_sums(&sums[q], &bed.result[q].sums, what);
        if (named && pass[q].scalars.lagging)
            assert_memory_equal(cpu_gates + (size_t)q * blocks_count,
                                gpu_gates + (size_t)q * blocks_count,
                                blocks_count * sizeof(float));
        half_open += !bed_same_double(gates, floor(gates)) ? 1 : 0;
    }
    bed_empty(&bed);
}

/* All rules of the table that measure blocks, with all that blocks may have, on one shape. */
static void all_kinds(size_t n, uint32_t count, uint64_t seed)
{
    for (int r = 0; r < gated_count; r++)
        for (unsigned kind = 0; kind < 16; kind++) {
            uint64_t each = seed * 100 + (uint64_t)r * 16 + kind;
            if ((each * 11 + seed) % BED_PART == 0)
                apply_once(gated[r], n, count, each, kind, 1 + (uint32_t)each % 3,
                           (unsigned)(each * 5 / 3) % 32 & ~4u);
        }
}

/* Ends after each of so many elements, in turn; the last block ends at `last`. */
static uint32_t cut(uint32_t last, const uint32_t *steps, uint32_t steps_count)
{
    uint32_t count = 0;
    for (uint32_t end = 0; end < last && count < BLOCKS_MAX - 1; count++) {
        end += steps[count % steps_count];
        ends[count] = end < last ? end : last;
    }
    ends[count - 1] = last;
    return count;
}

static void blocks_of_few_elements(void **state)
{
    static const uint32_t ones[] = {1}, some[] = {1, 0, 2, 16, 3, 0, 0, 40, 7};
    (void)state;
    all_kinds(50, cut(47, ones, 1), 1);
    if (!BED_FEW)
        all_kinds(600, cut(589, some, sizeof some / sizeof *some), 2);
}

static void one_block_and_the_whole_range(void **state)
{
    static const size_t lengths[] = {1, 5, 16, 17, 100, 1024, 1040, 5003, 70001};
    (void)state;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
        for (int r = 0; r < gated_count; r++) {
            size_t n = lengths[i];
            uint64_t seed = i * 8 + (uint64_t)r;
            if (BED_FEW && (n > 6000 || i % (size_t)gated_count != (size_t)r))
                continue;
            ends[0] = (uint32_t)n;
            apply_once(gated[r], n, 1, seed, 4, 1, WITH_PIECES | WITH_DOTS);
            apply_once(gated[r], n, 1, seed, 0, 1, WITHOUT_BLOCKS);
            apply_once(gated[r], n, 1, seed, 6, 2, WITHOUT_BLOCKS);
        }
}

/* Ends inside chunks, on them, on stretches; empty blocks first and last. */
static void ragged_blocks(void **state)
{
    static const uint32_t some[] = {0,   0,   5, 11, 16,   17,   16, 300,
                                    700, 991, 1, 1,  2048, 1025, 0,  31};
    static const uint32_t large[] = {16384, 16000, 20001, 15, 17};
    (void)state;
    uint32_t count = cut(9001, some, sizeof some / sizeof *some);
    ends[count++] = 9001;
    ends[count++] = 9001;
    all_kinds(9016, count, 3);
    if (BED_PART == 1)
        all_kinds(100003, cut(100000, large, sizeof large / sizeof *large), 4);
}

/* As a model has them: pieces of 16 Ki elements, and what is left. */
static void pieces_of_16_ki(void **state)
{
    static const uint32_t piece[] = {16384};
    (void)state;
    for (int r = 0; r < gated_count; r++)
        if (!BED_FEW || r == 2)
            apply_once(gated[r], !BED_FEW ? 140000 : 40000,
                       cut(!BED_FEW ? 140000 : 40000, piece, 1), 70 + (uint64_t)r,
                       r == 0 ? 4 : 0, r == 1 ? 2 : 1, WITH_PIECES | WITH_DOTS);
}

/* Far more than there are threads in a block. */
static void thousands_of_blocks(void **state)
{
    static const uint32_t ones[] = {1, 2, 1};
    (void)state;
    if (BED_PART > 1)
        skip(); /* under a sanitizer it takes too long */
    apply_once(rules_find("shared-lga"), 4000, cut(3995, ones, 3), 5, 4, 1, 0);
}

/* What was published and what is measured here are nearly the same number, and kappa is
 * so large that the last bit of the sum decides about the gate. */
static void exact_once(size_t n, uint32_t blocks_count, uint64_t seed)
{
    const struct rule *rule = rules_find("shared-lga-dot");
    const struct compute *cpu = bed_cpu(seed);
    struct blocks blocks = {.ends = ends, .count = blocks_count, .dots = dots};
    struct kernel_blocks here = {.ends = ends,
                                 .count = blocks_count,
                                 .elements = ends[blocks_count - 1],
                                 .dots = dots};
    struct device_pass pass = {.want = WANT_GAP};
    double size = 0.0;
    struct sums sums;

    bed.wide = true;
    bed_fill(&bed, n, 1, seed, seed % 2 != 0, false);
    bed.wide = false;
    bed_order(&bed, seed);
    struct arrays at = bed_arrays(bed.cpu, 0);
    pass.at = bed_arrays(bed.gpu, 0);
    pass.scalars = bed_scalars(rule, 0, 0);
    for (size_t i = 0; i < n; i++) { /* sent: where the momentum's own part is out */
        float ahead = pass.scalars.rate_share * at.all[i];
        /* stretches of such different sizes that their sum rounds in double */
        bed.cpu[BED_GRAD][i] = bed.gpu[BED_GRAD][i] =
            ldexpf(at.grad[i], -(int)(i / 1024 * 7 % 60));
        at.sent[i] = pass.at.sent[i] = at.theta[i] - ahead;
        size += fabs((double)at.grad[i] * (double)at.sent[i]);
    }
    cpu->dots(at.grad, at.sent, &blocks, bed.padded, dots);
    pass.scalars.kappa = 1e13 / size;
    for (uint32_t i = 0; i < blocks_count; i++)
        dots[i] += 0.5 / pass.scalars.kappa;
    cpu->apply(rule, &at, &pass.scalars, &blocks, bed.padded, WANT_GAP, &sums);
    bed_wait(&bed, kernel_apply(&bed.place, rule, &pass, 1, &here, n, bed.result));
    bed_compare(&bed, "a measure to the last bit");
    bed_compare_sums(&sums, &bed.result[0].sums, "a measure to the last bit");
    assert_true(fabs(sums.gate_sum / (double)n - 0.5) < 0.3);
    bed_empty(&bed);
}

static void the_last_bit_of_a_measure(void **state)
{
    static const uint32_t some[] = {1000, 3007, 5, 16, 40, 2050, 1, 0, 300};
    static const size_t lengths[] = {100, 1030, 5001, 66000, 140000};
    (void)state;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
        for (uint64_t seed = i * 4; seed < i * 4 + 4; seed++) {
            uint32_t n = (uint32_t)lengths[i];
            if (BED_FEW && (n > 6000 || seed % 4))
                continue;
            ends[0] = n / 3, ends[1] = n; /* the second may be of many stretches */
            exact_once(n, 2, seed);
            exact_once(n, cut(n, some, sizeof some / sizeof *some), seed);
        }
}

/* The cases above are worth something. */
static void gates_were_half_open(void **state)
{
    (void)state;
    assert_true(half_open > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_of_few_elements),
        cmocka_unit_test(one_block_and_the_whole_range),
        cmocka_unit_test(ragged_blocks),
        cmocka_unit_test(pieces_of_16_ki),
        cmocka_unit_test(thousands_of_blocks),
        cmocka_unit_test(the_last_bit_of_a_measure),
        cmocka_unit_test(gates_were_half_open),
    };
    return cmocka_run_group_tests(tests, open_bed, close_bed);
}
