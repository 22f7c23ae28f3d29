/* The master on (fake) GPUs, where notes wait until passes are through, never steps its
 * core inside of a step either: see tests/property/reentry.h. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/property/reentry.h"

static void test_any_order(void **state)
{
    (void)state;
    assert_true(any_orders(1, true) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradient),
        cmocka_unit_test(test_one_after_another),
        cmocka_unit_test(test_all_at_once),
        cmocka_unit_test(test_any_order),
    };

    probe_device = "cuda";
    return cmocka_run_group_tests(tests, NULL, NULL);
}
