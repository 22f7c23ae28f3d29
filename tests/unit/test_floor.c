/* Bytes a parameter: the floor as it is derived from the algorithms, written here once
 * more by hand, against the table of the program and against what the kernels move. */
#include "bench/gpu/bench_gpu.h"
#include "engine/rules/rules.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

/* Reads and writes of a message in vectors as long as the model, one fused pass: the
 * gradient is read, the reply written; theta_i, where it is kept, is the reply of last
 * time. */
static const struct {
    const char *rule;
    unsigned reads, writes;
} least[] = {
    /* theta */
    {"asgd", 2, 2},
    {"sa-plain", 2, 2},
    {"dana-slim", 2, 2},
    {"easgd", 2, 2},
    {"eamsgd", 2, 2},
    /* theta, theta_i */
    {"dc-plain", 3, 2},
    /* theta and a velocity, shared or the worker's */
    {"nag-asgd", 3, 3},
    {"hb-asgd", 3, 3},
    {"lwp", 3, 3},
    {"sa", 3, 3},
    {"multi-asgd", 3, 3},
    {"ssgd", 3, 3},
    {"dana-shared", 3, 3},
    {"shared-lga-dot", 3, 3},
    /* theta, v, theta_i; with a mean square: one more */
    {"dc-asgd", 4, 3},
    {"dc-asgd-a", 5, 4},
    {"ga", 5, 4},
    {"ga-plain", 4, 3},
    /* a norm of theta - theta_i before the step: two more reads */
    {"ga-global", 5, 3},
    {"dana-ga-global", 6, 4},
    /* theta, v_i, v_0 */
    {"dana-zero", 4, 4},
    {"dana-sa", 4, 4},
    {"dana-dc", 5, 4},
    {"dana-dc-a", 6, 5},
    {"dana-ga", 6, 5},
    /* with a gate that is measured from theta_i */
    {"dana-lga", 5, 4},
    {"shared-lga", 4, 3},
    /* theta, v, b */
    {"dn", 4, 4},
    /* AdamW: theta, m, v; its look-aheads are made of the same */
    {"adamw", 4, 4},
    {"la-adamw", 4, 4},
    {"ssgd-adamw", 4, 4},
    {"lga-adamw", 5, 4},
    {"shared-lga-adamw", 5, 4},
    {"dana-adamw", 5, 5},
    {"dana-lga-adamw", 6, 5},
    /* Muon, of a matrix: theta, m and what NS makes of it; the gate's sent; and with a sum
     * each worker's m, the sum and the worker's last step */
    {"muon", 4, 4},
    {"muon-lga", 5, 4},
    {"dana-lga-muon", 7, 6},
};

/* A rule without a floor is shown without one. */
static void floors_are_those_derived_here(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof least / sizeof least[0]; i++) {
        const struct bg_floor *floor = bg_floor_of(least[i].rule);

        if (floor == NULL || floor->reads != least[i].reads ||
            floor->writes != least[i].writes)
            fail_msg("%s", least[i].rule);
        assert_non_null(rules_find(least[i].rule));
    }
    assert_null(bg_floor_of("nothing"));
}

/* Equal, for every rule that has a floor: no kernel moves a vector twice. */
static void kernels_are_at_the_floor(void **state)
{
    (void)state;
    for (int i = 0; i < rules_count; i++) {
        const struct bg_floor *floor = bg_floor_of(rules[i].name);

        if (floor == NULL)
            continue;
        if (rules_bytes(&rules[i]) != 4 * (floor->reads + floor->writes))
            fail_msg("%s: %u bytes, the floor is %u", rules[i].name,
                     rules_bytes(&rules[i]), 4 * (floor->reads + floor->writes));
    }
}

/* What a rule with a number per block reads again, from a cache. */
static void blocks_are_read_again(void **state)
{
    (void)state;
    for (int i = 0; i < rules_count; i++)
        assert_int_equal(bg_again_bytes(&rules[i]) > 0,
                         (rules[i].flags & RULE_BLOCK) != 0);
    /* dana-lga visits theta, g and all again; shared-lga too */
    assert_int_equal(bg_again_bytes(rules_find("dana-lga")), 12);
    assert_int_equal(bg_again_bytes(rules_find("shared-lga")), 12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(floors_are_those_derived_here),
        cmocka_unit_test(kernels_are_at_the_floor),
        cmocka_unit_test(blocks_are_read_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
