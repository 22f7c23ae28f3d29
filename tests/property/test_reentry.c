/* The master on this processor never steps its core inside of a step: see reentry.h. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/property/reentry.h"

static void test_any_order(void **state)
{
    ptrdiff_t without = any_orders(40, false);

    (void)state;
    assert_int_equal(any_orders(40, true), without);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradient),
        cmocka_unit_test(test_one_after_another),
        cmocka_unit_test(test_all_at_once),
        cmocka_unit_test(test_any_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
