/* Which kernels of OpenBLAS are taken: the decision on reported cores, processors and
 * variables that this machine need not have; the self-check on the real library. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "cluster/workloads/blas_core.h"

static const struct {
    const char *reported, *wanted, *before;
    bool runs_better, agrees;
    enum blas_core_action action;
} cases[] = {
    /* another BLAS; a core that knows the processor; a processor without AVX2 */
    {NULL, NULL, NULL, true, true, BLAS_CORE_KEEP},
    {"SkylakeX", NULL, NULL, true, true, BLAS_CORE_KEEP},
    {"Haswell", NULL, NULL, true, true, BLAS_CORE_KEEP},
    {"Zen", NULL, "", true, true, BLAS_CORE_KEEP},
    {"Sandybridge", NULL, NULL, true, true, BLAS_CORE_KEEP},
    {"a core of the future", NULL, NULL, true, true, BLAS_CORE_KEEP},
    {"Prescott", NULL, NULL, false, true, BLAS_CORE_KEEP},
    /* one that does not */
    {"Prescott", NULL, NULL, true, false, BLAS_CORE_TAKE},
    {"Prescott", "", "", true, false, BLAS_CORE_TAKE},
    {"prescott", NULL, NULL, true, false, BLAS_CORE_TAKE},
    {"Nehalem", NULL, NULL, true, false, BLAS_CORE_TAKE},
    /* the user's choice, whatever it is */
    {"Prescott", "Prescott", NULL, true, true, BLAS_CORE_KEEP},
    {"Prescott", "SkylakeX", NULL, true, true, BLAS_CORE_KEEP},
    {"Haswell", "Haswell", NULL, true, false, BLAS_CORE_KEEP},
    /* started again */
    {"Haswell", "Haswell", "Prescott", true, true, BLAS_CORE_TAKEN},
    {"Haswell", "Haswell", "Prescott", true, false, BLAS_CORE_RETURN},
    {"Prescott", "Haswell", "Prescott", true, true, BLAS_CORE_IGNORED},
    /* and once more, with what there was */
    {"Prescott", "Prescott", "Prescott", true, true, BLAS_CORE_RETURNED},
    {"Prescott", "Prescott", "Prescott", true, false, BLAS_CORE_RETURNED},
    /* nobody but this program sets it; these must not go round for ever */
    {"Haswell", "Haswell", "Haswell", true, false, BLAS_CORE_KEEP},
    {"Prescott", NULL, "Prescott", true, false, BLAS_CORE_IGNORED},
};

static void test_decision(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct blas_core_facts facts = {
            .reported = cases[i].reported,
            .wanted = cases[i].wanted,
            .before = cases[i].before,
            .runs_better = cases[i].runs_better,
            .agrees = cases[i].agrees,
        };
        enum blas_core_action action = blas_core_decide(&facts);

        if (action != cases[i].action)
            fail_msg("case %zu: %d, not %d", i, (int)action, (int)cases[i].action);
    }
}

/* What is set for the next start leads to an end in at most two more. */
static void test_ends(void **state)
{
    struct blas_core_facts facts = {.reported = "Prescott", .runs_better = true};

    (void)state;
    assert_int_equal(blas_core_decide(&facts), BLAS_CORE_TAKE);
    facts.before = "Prescott";
    facts.wanted = facts.reported = BLAS_CORE_BETTER;
    assert_int_equal(blas_core_decide(&facts), BLAS_CORE_RETURN);
    facts.wanted = facts.reported = facts.before;
    assert_int_equal(blas_core_decide(&facts), BLAS_CORE_RETURNED);
}

static void test_products_agree(void **state)
{
    (void)state;
    assert_true(blas_core_agrees());
    assert_true(blas_core_agrees());
}

static void test_nothing_was_done(void **state)
{
    (void)state;
    assert_string_equal(blas_core_note(), "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_decision),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_products_agree),
        cmocka_unit_test(test_nothing_was_done),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
