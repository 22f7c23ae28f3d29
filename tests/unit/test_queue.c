/* The master's queue of events: in order, APPLIED in front, around the end of its
 * places, and as many as there is room for. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/master/queue.h"

#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    ROOM = 5
};

static struct core_event place[ROOM];

static struct event_queue empty_queue(void)
{
    memset(place, 0xff, sizeof place);
    return (struct event_queue){.event = place, .room = ROOM};
}

static struct core_event gone(uint32_t worker)
{
    return (struct core_event){.kind = CORE_GONE, .worker = worker, .now_ns = worker};
}

static void takes(struct event_queue *queue, uint32_t worker)
{
    struct core_event got;

    assert_true(queue_take(queue, &got));
    assert_int_equal(got.worker, worker);
    assert_int_equal(got.now_ns, worker);
}

static void test_order(void **state)
{
    struct event_queue queue = empty_queue();
    struct core_event none = {.worker = 77};

    (void)state;
    assert_false(queue_take(&queue, &none));
    assert_int_equal(none.worker, 77);
    for (uint32_t i = 0; i < 3; i++)
        queue_add(&queue, &(struct core_event){.worker = i, .now_ns = i});
    queue_add_first(&queue, &(struct core_event){.worker = 9, .now_ns = 9});
    takes(&queue, 9);
    takes(&queue, 0);
    takes(&queue, 1);
    takes(&queue, 2);
    assert_false(queue_take(&queue, &none));
    assert_int_equal(queue.most, 4);
}

/* Against a list that is moved by hand, over all fillings and places of the start. */
static void test_around_the_end(void **state)
{
    uint64_t random = 5;

    (void)state;
    for (int round = 0; round < 200; round++) {
        struct event_queue queue = empty_queue();
        uint32_t list[ROOM], count = 0, next = 0, most = 0;

        for (int i = 0; i < 200; i++) {
            struct core_event event = gone(next), got;

            random = random * 6364136223846793005ull + 1442695040888963407ull;
            if ((random >> 33) % 2 == 0) {
                assert_int_equal(queue_take(&queue, &got), count > 0);
                if (count == 0)
                    continue;
                assert_int_equal(got.worker, list[0]);
                memmove(list, list + 1, --count * sizeof *list);
            } else if (count < ROOM && (random >> 40) % 3 == 0) {
                queue_add_first(&queue, &event);
                memmove(list + 1, list, count++ * sizeof *list);
                list[0] = next++;
            } else if (count < ROOM) {
                queue_add(&queue, &event);
                list[count++] = next++;
            }
            most = count > most ? count : most;
            assert_int_equal(queue.count, count);
            assert_int_equal(queue.most, most);
        }
    }
}

/* One more than there is room for is a fault of the master: it ends there, before it
 * loses an event or writes past the places. */
static void overflows(void (*add)(struct event_queue *, const struct core_event *))
{
    int status = 0;
    pid_t pid = fork();

    if (pid == 0) {
        struct event_queue queue = empty_queue();
        struct core_event event = gone(1);

        (void)close(2);
        (void)signal(SIGABRT, SIG_DFL);
        for (int i = 0; i < ROOM; i++)
            add(&queue, &event);
        if (queue.count != ROOM)
            _exit(1);
        add(&queue, &event);
        _exit(2);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
}

static void test_bound(void **state)
{
    (void)state;
    overflows(queue_add);
    overflows(queue_add_first);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_around_the_end),
        cmocka_unit_test(test_bound),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
