/* Threads that go through a list together (by pthread_create, in engine/base/team.c): each
 * entry once, whichever of them does it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/base/team.h"

#include <string.h>

enum {
    ENTRIES = 1000
};

struct list {
    uint32_t done[ENTRIES], thread[ENTRIES];
};

static void do_entry(void *context, uint32_t index, uint32_t thread)
{
    struct list *list = context;

    list->done[index]++;
    list->thread[index] = thread;
}

static void test_each_entry_once(void **state)
{
    static struct list list;

    (void)state;
    for (uint32_t threads = 1; threads <= 5; threads++) {
        struct team *team = team_new(threads);

        assert_non_null(team);
        assert_int_equal(team_threads(team), threads);
        for (uint32_t round = 0; round < 200; round++) {
            uint32_t count = round * 7 % 31;

            memset(&list, 0, sizeof list);
            team_run(team, count, do_entry, &list);
            for (uint32_t i = 0; i < ENTRIES; i++) {
                assert_int_equal(list.done[i], i < count);
                assert_true(list.thread[i] < threads);
            }
        }
        team_run(team, ENTRIES, do_entry, &list);
        team_free(team);
    }
}

static void test_nothing_to_do(void **state)
{
    struct team *team = team_new(3);

    (void)state;
    assert_non_null(team);
    team_run(team, 0, do_entry, NULL);
    team_free(team);
    team_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_entry_once),
        cmocka_unit_test(test_nothing_to_do),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
