/* Arrays of engine/base: on lines of their own and 0, and growing without losing what
 * they hold; sizes. And the clock's moments to come. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/base/array.h"
#include "engine/base/clock.h"

static void test_sizes(void **state)
{
    (void)state;
    assert_int_equal(size_least(3, 5), 3);
    assert_int_equal(size_least(5, 3), 3);
    assert_int_equal(size_most(3, 5), 5);
    assert_int_equal(size_most(5, 3), 5);
    assert_int_equal(u32_least(UINT32_MAX, 7), 7);
    assert_int_equal(size_round_up(0, 64), 0);
    assert_int_equal(size_round_up(1, 64), 64);
    assert_int_equal(size_round_up(64, 64), 64);
    assert_int_equal(size_round_up(65, 64), 128);
}

static void test_zeroed(void **state)
{
    (void)state;
    for (size_t bytes = 0; bytes < 300; bytes += 13)
        for (size_t alignment = 64; alignment <= 4096; alignment *= 8) {
            unsigned char *array = array_zeroed(alignment, bytes);

            assert_non_null(array);
            assert_int_equal((uintptr_t)array % alignment, 0);
            for (size_t i = 0; i < bytes; i++)
                assert_int_equal(array[i], 0);
            memset(array, 0xff, bytes); /* for the next one */
            free(array);
        }
}

static void test_room(void **state)
{
    uint32_t *array = NULL;
    size_t room = 0, moves = 0;

    (void)state;
    assert_null(array_room(array, &room, 0, sizeof *array));
    for (uint32_t i = 0; i < 10000; i++) {
        size_t before = room;
        uint32_t *more = array_room(array, &room, i + 1u, sizeof *array);

        assert_non_null(more);
        assert_true(room >= i + 1u);
        moves += room != before;
        array = more;
        array[i] = i * 7;
    }
    assert_true(moves < 20);
    for (uint32_t i = 0; i < 10000; i++)
        assert_int_equal(array[i], i * 7);
    free(array);
}

/* What cannot be is refused, and what is there stays. */
static void test_no_room(void **state)
{
    size_t room = 0;
    uint32_t *array = array_room(NULL, &room, 1, sizeof *array);
    size_t before = room;

    (void)state;
    assert_non_null(array);
    array[0] = 5;
    assert_null(array_room(array, &room, SIZE_MAX / 4, sizeof *array));
    assert_null(array_room(array, &room, SIZE_MAX, sizeof *array));
    assert_int_equal(room, before);
    assert_int_equal(array[0], 5);
    free(array);
}

static double seconds_of(struct timespec at)
{
    return (double)at.tv_sec + 1e-9 * (double)at.tv_nsec;
}

static void test_clock(void **state)
{
    uint64_t before = clock_ns();
    double seconds = clock_seconds();
    struct timespec at = clock_after(2 * INT64_C(1000000000) + 999999999);
    uint64_t after = clock_ns();

    (void)state;
    assert_true(after >= before);
    assert_true(seconds >= 1e-9 * (double)before - 1e-6);
    assert_true(seconds <= 1e-9 * (double)after + 1e-6);
    assert_true(at.tv_nsec >= 0 && at.tv_nsec < 1000000000);
    assert_true(seconds_of(at) >= 1e-9 * (double)before + 2.999999);
    assert_true(seconds_of(at) <= 1e-9 * (double)after + 3.000001);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes), cmocka_unit_test(test_zeroed),
        cmocka_unit_test(test_room),  cmocka_unit_test(test_no_room),
        cmocka_unit_test(test_clock),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
