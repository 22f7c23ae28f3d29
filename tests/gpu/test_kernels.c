/* kernel_apply for every rule, with the bits of the CPU: all lengths and alignments,
 * grids and orders of threads, queues of gradients, numbers that are odd.
 * */
#include "tests/gpu/kernels_bed.h"

static struct bed bed;

static int open_bed(void **state)
{
    (void)state;
    bed_open(&bed, 140000, 1);
    return 0;
}

static int close_bed(void **state)
{
    (void)state;
    bed_close(&bed);
    return 0;
}

/* One queue of gradients, on the CPU one after another and here in one go. */
static void apply_once(const struct rule *rule, size_t n, uint64_t seed, unsigned kind,
                       uint32_t count, bool misaligned, bool special)
{
    const struct compute *cpu = bed_cpu(seed);
    const uint32_t end = (uint32_t)n;
    const struct blocks whole = {.ends = &end, .count = 1}; /* without the padding */
    struct device_pass pass[DEVICE_QUEUE];
    struct sums sums[DEVICE_QUEUE];
    unsigned want = kind & 4 ? WANT_GAP : 0;
    char what[128];

    snprintf(what, sizeof what, "%s, kind %u, seed %llu, %u gradients", rule->name,
             kind, (unsigned long long)seed, count);
    bed.wide = seed % 3 == 0;
    bed_fill(&bed, n, count, seed, misaligned, special);
    bed_order(&bed, seed);
    for (uint32_t q = 0; q < count; q++) {
        /* sometimes the same worker twice in a row */
        uint32_t worker = q && (seed + q) % 5 == 0 ? q - 1 : q;
        struct arrays at = bed_arrays(bed.cpu, worker);
        pass[q].at = bed_arrays(bed.gpu, worker);
        pass[q].scalars = bed_scalars(rule, kind & 3, q);
        pass[q].dots = NULL;
        pass[q].want = want;
        cpu->apply(rule, &at, &pass[q].scalars, &whole, bed.padded, want, &sums[q]);
    }
    bed_wait(&bed, kernel_apply(&bed.place, rule, pass, count, NULL, n, bed.result));
    bed_compare(&bed, what);
    for (uint32_t q = 0; q < count; q++)
        bed_compare_sums(&sums[q], &bed.result[q].sums, what);
    bed_empty(&bed);
}

static void dana_zero_has_the_bits_of_the_cpu(void **state)
{
    static const size_t lengths[] = {1, 3, 4, 16, 1000, 1024, 5000};
    (void)state;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
        for (unsigned kind = 0; kind < 8; kind++)
            apply_once(rules_find("dana-zero"), lengths[i], i, kind, 1, false, false);
}

/* Every length of the first few chunks. */
static void short_arrays(void **state)
{
    (void)state;
    for (int r = 0; r < rules_count; r++)
        for (size_t n = 1 + (size_t)r % BED_PART; n <= 70; n += BED_PART) {
            uint64_t seed = n * 31 + (uint64_t)r;
            apply_once(&rules[r], n, seed, (unsigned)seed % 8, 1 + (uint32_t)n % 8,
                       n % 3 == 0, false);
        }
}

/* Around the ends of chunks, stretches and spans. */
static void long_arrays(void **state)
{
    static const size_t lengths[] = {1023, 1024,  1025,  2047,  4100,
                                     8191, 17003, 65536, 65537, 100003};
    enum {
        LENGTHS = sizeof lengths / sizeof *lengths
    };
    (void)state;
    for (size_t i = 0; i < LENGTHS; i++)
        for (int r = 0; r < rules_count; r++)
            for (unsigned kind = 0; kind < 8; kind++) {
                uint64_t seed = i * 1000 + (uint64_t)r * 8 + kind;
                if ((seed * 7 + i) % BED_PART != 0 || (lengths[i] > 60000 && kind < 4))
                    continue;
                if (BED_FEW && lengths[i] > 5000)
                    continue;
                apply_once(&rules[r], lengths[i], seed, kind, 1 + (uint32_t)seed % 2,
                           seed % 4 == 3, false);
            }
}

static void queues_of_all_lengths(void **state)
{
    (void)state;
    for (int r = 0; r < rules_count; r++)
        for (uint32_t count = 1; count <= DEVICE_QUEUE; count++) {
            uint64_t seed = (uint64_t)r * 8 + count;
            if (seed % BED_PART == 0)
                apply_once(&rules[r], 1500 + seed * 3, seed, (unsigned)(seed * 5) % 8,
                           count, seed % 2 == 0, false);
        }
}

/* Denormals are kept, infinities and what is no number go the same ways. */
static void odd_numbers(void **state)
{
    (void)state;
    for (int r = 0; r < rules_count; r++)
        for (unsigned kind = 0; kind < 8; kind++)
            if (((unsigned)r + kind) % BED_PART == 0)
                apply_once(&rules[r], 300, (uint64_t)r * 8 + kind, kind, 2, false,
                           true);
}

static void misuse_is_refused(void **state)
{
    const struct rule *rule = rules_find("asgd");
    struct device_pass pass[1];
    unsigned long before = cuemu_launches();
    (void)state;
    memset(pass, 0, sizeof pass);
    assert_int_equal(kernel_apply(&bed.place, rule, pass, 0, NULL, 16, bed.result),
                     cudaErrorInvalidValue);
    assert_int_equal(
        kernel_apply(&bed.place, rule, pass, DEVICE_QUEUE + 1, NULL, 16, bed.result),
        cudaErrorInvalidValue);
    assert_int_equal(cuemu_launches(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dana_zero_has_the_bits_of_the_cpu),
        cmocka_unit_test(short_arrays),
        cmocka_unit_test(long_arrays),
        cmocka_unit_test(queues_of_all_lengths),
        cmocka_unit_test(odd_numbers),
        cmocka_unit_test(misuse_is_refused),
    };
    return cmocka_run_group_tests(tests, open_bed, close_bed);
}
