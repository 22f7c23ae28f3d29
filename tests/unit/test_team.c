/* Threads that help one other (by pthread_create, in engine/base/team.c): each entry once,
 * whichever of them does it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/base/team.h"

#include <string.h>
#include <time.h>

enum {
    ENTRIES = 1000
};

struct list {
    uint32_t done[ENTRIES], thread[ENTRIES];
    long takes_ns; /* each entry */
    struct team *team;
};

static void do_entry(void *context, uint32_t entry, uint32_t thread)
{
    struct list *list = context;

    if (list->takes_ns > 0)
        (void)nanosleep(&(struct timespec){0, list->takes_ns}, NULL);
    list->done[entry]++;
    list->thread[entry] = thread;
}

/* Puts entries 0 .. count - 1 and sees them done, some by the owner if `takes`. */
static void go_through(struct list *list, uint32_t count, bool takes)
{
    uint32_t left = count, entry;

    memset(list->done, 0, sizeof list->done);
    for (uint32_t i = 0; i < count; i++)
        team_put(list->team, i);
    while (takes && team_take(list->team, &entry)) {
        do_entry(list, entry, 0);
        left--;
    }
    while (left > 0 && team_done(list->team, true, &entry)) {
        assert_int_equal(list->done[entry], 1);
        left--;
    }
    assert_int_equal(left, 0);
    assert_false(team_done(list->team, true, &entry));
    assert_false(team_take(list->team, &entry));
    for (uint32_t i = 0; i < ENTRIES; i++)
        assert_int_equal(list->done[i], i < count);
}

static void test_each_entry_once(void **state)
{
    static struct list list;

    (void)state;
    for (uint32_t threads = 1; threads <= 5; threads++) {
        list.team = team_new(threads, ENTRIES, do_entry, &list);
        assert_non_null(list.team);
        assert_int_equal(team_threads(list.team), threads);
        for (uint32_t round = 0; round < 200; round++) {
            go_through(&list, round * 7 % 31, true);
            if (threads > 1)
                go_through(&list, round * 7 % 31, false);
        }
        go_through(&list, ENTRIES, true);
        for (uint32_t i = 0; i < ENTRIES; i++)
            assert_true(list.thread[i] < threads);
        team_free(list.team);
    }
}

/* Alone, the owner waits for nobody, and what it does not take stays. */
static void test_alone(void **state)
{
    static struct list list;
    uint32_t entry;

    (void)state;
    list.team = team_new(1, 2, do_entry, &list);
    assert_non_null(list.team);
    assert_false(team_take(list.team, &entry));
    team_put(list.team, 1);
    team_put(list.team, 0);
    assert_false(team_done(list.team, true, &entry));
    assert_true(team_take(list.team, &entry));
    assert_int_equal(entry, 1);
    team_drop(list.team);
    assert_false(team_take(list.team, &entry));
    team_free(list.team);
    team_free(NULL);
}

/* What is dropped is not begun any more, and helpers are at rest. */
static void test_drop(void **state)
{
    static struct list list;
    uint32_t entry, begun = 0;

    (void)state;
    list.team = team_new(3, ENTRIES, do_entry, &list);
    assert_non_null(list.team);
    list.takes_ns = 10000000; /* 5 s for all: no machine is away so long */
    for (uint32_t i = 0; i < ENTRIES; i++)
        team_put(list.team, i);
    team_drop(list.team);
    for (uint32_t i = 0; i < ENTRIES; i++)
        begun += list.done[i];
    assert_true(begun < ENTRIES);
    assert_false(team_done(list.team, true, &entry));
    list.takes_ns = 10000;
    go_through(&list, ENTRIES, false);
    for (uint32_t i = 0; i < ENTRIES; i++)
        team_put(list.team, i); /* freed while they are at work */
    team_free(list.team);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_entry_once),
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_drop),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
