/* The passes beside apply, with the bits of the CPU: measure, round, look-ahead, norms,
 * decay, finite, slim, averages, scale, who comes and who goes.
 * */
#include "tests/gpu/kernels_bed.h"

enum {
    N_MAX = 140000,
    WORKERS = 5
};

static const size_t lengths[] = {1,    2,    15,   16,   17,    40,    1023,  1024,
                                 1025, 4096, 4111, 9000, 65536, 66000, 131073};
enum {
    LENGTHS = sizeof lengths / sizeof *lengths
};

static struct bed bed;

static int open_bed(void **state)
{
    (void)state;
    bed_open(&bed, N_MAX, 1);
    return 0;
}

static int close_bed(void **state)
{
    (void)state;
    bed_close(&bed);
    return 0;
}

/* Calls `each` for lengths, alignments and odd numbers; arrays for so many
 * gradients. */
static void all_lengths(uint32_t count, void (*each)(uint64_t seed, const char *what))
{
    for (size_t i = 0; i < LENGTHS; i++)
        for (unsigned kind = 0; kind < 4; kind++) {
            uint64_t seed = i * 4 + kind;
            char what[64];
            if ((BED_PART > 1 && lengths[i] > 5000 && kind) ||
                (BED_FEW && (lengths[i] > 1100 || seed % 3)))
                continue;
            snprintf(what, sizeof what, "%zu elements, seed %llu", lengths[i],
                     (unsigned long long)seed);
            bed_fill(&bed, lengths[i], count, seed, kind & 1, kind == 2);
            bed_order(&bed, seed);
            each(seed, what);
            bed_compare(&bed, what);
            bed_empty(&bed);
        }
}

static void measure_each(uint64_t seed, const char *what)
{
    struct arrays cpu = bed_arrays(bed.cpu, 0), gpu = bed_arrays(bed.gpu, 0);

    for (int r = 0; r < rules_count; r++) {
        struct step_scalars scalars =
            bed_scalars(&rules[r], (unsigned)(seed + (uint64_t)r / 2), 0);
        if (!(rules[r].flags & RULE_GLOBAL) && (uint64_t)r != seed % 8)
            continue;
        bed_wait(&bed, kernel_measure(&bed.place, &rules[r], &gpu, &scalars, bed.n,
                                      bed.result));
        bed_compare_double(
            bed_cpu(seed)->measure(&rules[r], &cpu, &scalars, bed.padded),
            bed.result[0].value, what, rules[r].name);
    }
}

static void measures(void **state)
{
    (void)state;
    all_lengths(1, measure_each);
}

static void norms_each(uint64_t seed, const char *what)
{
    const struct compute *cpu = bed_cpu(seed);
    float *const *grad = bed.cpu + BED_GRAD, *const *here = bed.gpu + BED_GRAD;

    bed_wait(&bed, kernel_norm_sq(&bed.place, *here, bed.n, bed.result));
    bed_compare_double(cpu->norm_sq(*grad, bed.padded), bed.result[0].value, what,
                       "norm_sq");
    bed_wait(&bed, kernel_finite(&bed.place, *here, bed.n, bed.result));
    assert_int_equal(bed.result[0].finite, cpu->finite(*grad, bed.padded));
    bed_wait(&bed,
             kernel_decay(&bed.place, *here, bed.gpu[0], 0.013f, bed.n, bed.result));
    bed_compare_double(cpu->decay(*grad, bed.cpu[0], 0.013f, bed.padded),
                       bed.result[0].value, what, "decay");
    bed_wait(&bed, kernel_scale(&bed.place, bed.gpu[1], 0.7f, bed.n));
    cpu->scale(bed.cpu[1], 0.7f, bed.padded);
    bed_wait(&bed, kernel_slim(&bed.place, *here, bed.gpu[2], 0.9f, bed.n));
    cpu->slim(*grad, bed.cpu[2], 0.9f, bed.padded);
    bed_wait(&bed, kernel_average(&bed.place, bed.gpu[1], bed.gpu[BED_SENT], *here,
                                  0.3f, 0.1f, bed.n));
    cpu->average(bed.cpu[1], bed.cpu[BED_SENT], *grad, 0.3f, 0.1f, bed.padded);
}

static void norms_decay_scale_slim(void **state)
{
    (void)state;
    all_lengths(1, norms_each);
}

/* One that is not, at any place, is seen; and the next launch does not see it. */
static void finite_sees_every_element(void **state)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    (void)state;
    bed_fill(&bed, 2100, 1, 5, false, false);
    bed.gpu[0][3] = 3.4e38f;
    bed.gpu[0][4] = 1e-45f;
    for (size_t i = 0; i < bed.n; i += 1 + 17 * BED_PART) {
        float kept = bed.gpu[0][i];
        bed.gpu[0][i] = bad[i % 3];
        bed_wait(&bed, kernel_finite(&bed.place, bed.gpu[0], bed.n, bed.result));
        assert_int_equal(bed.result[0].finite, 0);
        bed.gpu[0][i] = kept;
        bed_wait(&bed, kernel_finite(&bed.place, bed.gpu[0], bed.n, bed.result));
        assert_int_equal(bed.result[0].finite, 1);
    }
    bed_empty(&bed);
}

static void look_ahead_each(uint64_t seed, const char *what)
{
    struct arrays cpu = bed_arrays(bed.cpu, 0), gpu = bed_arrays(bed.gpu, 0);

    for (int r = (int)(seed % 3); r < rules_count; r += 3) {
        struct step_scalars scalars = bed_scalars(&rules[r], 0, (uint32_t)r);
        bed_wait(&bed, kernel_look_ahead(&bed.place, &rules[r], &gpu, &scalars, bed.n));
        bed_cpu(seed)->look_ahead(&rules[r], &cpu, &scalars, bed.padded);
        bed_compare(&bed, what);
    }
}

static void look_aheads(void **state)
{
    (void)state;
    all_lengths(1, look_ahead_each);
}

static void leave_each(uint64_t seed, const char *what)
{
    const struct compute *cpu = bed_cpu(seed);
    const float *own[WORKERS], *here[WORKERS];
    const char *name = seed % 3 == 0   ? "dana-zero"
                       : seed % 3 == 1 ? "multi-asgd"
                                       : "nag-asgd";
    uint32_t workers = (uint32_t)seed % (WORKERS + 1);
    (void)what;
    for (uint32_t w = 0; w < WORKERS; w++) {
        struct arrays at = bed_arrays(bed.cpu, w), to = bed_arrays(bed.gpu, w);
        own[w] = at.own;
        here[w] = to.own;
        if (w == 1) {
            cpu->forget(rules_find(name), &at, bed.padded);
            bed_wait(&bed, kernel_forget(&bed.place, rules_find(name), &to, bed.n));
            bed_compare(&bed, name);
        }
    }
    cpu->resum(bed.cpu[1], own, workers, bed.padded);
    bed_wait(&bed, kernel_resum(&bed.place, bed.gpu[1], here, workers, bed.n));
}

static void who_leaves_is_taken_out(void **state)
{
    (void)state;
    all_lengths(WORKERS, leave_each);
}

/* One of the rules with a round, by chance. */
static const struct rule *synchronous(uint64_t chance)
{
    const struct rule *found[8];
    uint64_t count = 0;

    for (int i = 0; i < rules_count && count < 8; i++)
        if (rules[i].flags & RULE_ROUND)
            found[count++] = &rules[i];
    assert_true(count > 0);
    return found[chance % count];
}

static void round_each(uint64_t seed, const char *what)
{
    const struct rule *rule = synchronous(seed / 2);
    struct arrays cpu = bed_arrays(bed.cpu, 0), gpu = bed_arrays(bed.gpu, 0);
    struct step_scalars scalars = bed_scalars(rule, 0, 1);
    uint32_t workers = 1 + (uint32_t)seed % WORKERS;
    unsigned want = seed % 2 ? WANT_GAP : 0;
    const float *grad[2][WORKERS];
    float *sent[2][WORKERS];
    struct sums sums;

    for (uint32_t w = 0; w < WORKERS; w++) {
        grad[0][w] = bed_arrays(bed.cpu, w).grad;
        sent[0][w] = bed_arrays(bed.cpu, w).sent;
        grad[1][w] = bed_arrays(bed.gpu, w).grad;
        sent[1][w] = bed_arrays(bed.gpu, w).sent;
    }
    bed_cpu(seed)->round(rule, &cpu, &scalars, grad[0], sent[0], workers, bed.padded,
                         want, &sums);
    bed_wait(&bed, kernel_round(&bed.place, rule, &gpu, &scalars, grad[1], sent[1],
                                workers, bed.n, want, bed.result));
    bed_compare_sums(&sums, &bed.result[0].sums, what);
}

static void rounds(void **state)
{
    (void)state;
    all_lengths(WORKERS, round_each);
    assert_int_equal(kernel_round(&bed.place, rules_find("asgd"), NULL, NULL, NULL,
                                  NULL, 0, 0, 0, bed.result),
                     cudaErrorInvalidValue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(measures),
        cmocka_unit_test(norms_decay_scale_slim),
        cmocka_unit_test(finite_sees_every_element),
        cmocka_unit_test(look_aheads),
        cmocka_unit_test(who_leaves_is_taken_out),
        cmocka_unit_test(rounds),
    };
    return cmocka_run_group_tests(tests, open_bed, close_bed);
}
