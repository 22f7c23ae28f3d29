/* Ranks in step, without GPUs (cluster/gpus/ranks.h): who is named when somebody fails, and
 * that nobody hangs. */
#include "cluster/gpus/ranks.h"
#include "tests/pace.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define SECOND 1000000000ll /* of an idle machine */

struct bed {
    pthread_mutex_t mutex;
    pthread_cond_t come;
    unsigned came, aborts, runs;
    bool aborted;
    uint32_t size;
    uint32_t odd;     /* the rank that does something else */
    int how;          /* its status */
    bool stay;        /* it waits until the abort instead of failing */
    int64_t stuck_ns; /* it ignores the abort, too, for so long */
    uint32_t seen[GROUP_MAX];
};

static void bed_open(struct bed *bed, uint32_t size)
{
    memset(bed, 0, sizeof *bed);
    (void)pthread_mutex_init(&bed->mutex, NULL);
    (void)pthread_cond_init(&bed->come, NULL);
    bed->size = size;
    bed->odd = GROUP_MAX;
}

static void bed_abort(void *context, uint32_t rank)
{
    struct bed *bed = context;

    (void)rank;
    (void)pthread_mutex_lock(&bed->mutex);
    bed->aborts++;
    bed->aborted = true;
    (void)pthread_cond_broadcast(&bed->come);
    (void)pthread_mutex_unlock(&bed->mutex);
}

/* As a collective does: waits until all ranks have come, or an abort. */
static int meet(void *context, uint32_t rank, const void *argument,
                struct gapless_error *error)
{
    struct bed *bed = context;
    int status = GAPLESS_OK;

    (void)argument;
    if (rank == bed->odd && bed->how != GAPLESS_OK)
        return gapless_error_set(error, bed->how, 0, "it is the odd one");
    (void)pthread_mutex_lock(&bed->mutex);
    bed->runs++;
    bed->seen[rank]++;
    if (!(rank == bed->odd && bed->stay))
        bed->came++;
    (void)pthread_cond_broadcast(&bed->come);
    while ((bed->came % bed->size != 0 || (rank == bed->odd && bed->stay)) &&
           !bed->aborted)
        (void)pthread_cond_wait(&bed->come, &bed->mutex);
    if (bed->aborted)
        status = GAPLESS_PEER_LOST;
    (void)pthread_mutex_unlock(&bed->mutex);
    if (rank == bed->odd && bed->stuck_ns > 0)
        (void)usleep((useconds_t)(bed->stuck_ns / 1000));
    return status == GAPLESS_OK
               ? status
               : gapless_error_set(error, status, 0, "another rank was lost");
}

static int nothing(void *context, uint32_t rank, const void *argument,
                   struct gapless_error *error)
{
    struct bed *bed = context;

    (void)argument, (void)error;
    (void)pthread_mutex_lock(&bed->mutex);
    bed->seen[rank]++;
    (void)pthread_mutex_unlock(&bed->mutex);
    return GAPLESS_OK;
}

static struct group *open_group(struct bed *bed, int64_t peer_wait_ns,
                                int64_t abort_wait_ns)
{
    struct group_config config = {.size = bed->size,
                                  .context = bed,
                                  .abort = bed_abort,
                                  .peer_wait_ns = peer_wait_ns,
                                  .abort_wait_ns = abort_wait_ns};
    struct gapless_error error = {0};
    struct group *ret = NULL;

    assert_int_equal(group_open(&config, &ret, &error), GAPLESS_OK);
    return ret;
}

static void test_in_step(void **state)
{
    (void)state;
    for (uint32_t size = 1; size <= GROUP_MAX; size += 5) {
        struct gapless_error error = {0};
        struct bed bed;
        struct group *group;

        bed_open(&bed, size);
        group = open_group(&bed, pace_ns(10 * SECOND), pace_ns(10 * SECOND));
        for (unsigned i = 0; i < 50; i++)
            assert_int_equal(group_run(group, nothing, NULL, &error), GAPLESS_OK);
        assert_int_equal(group_first_failed(group), size);
        for (uint32_t r = 0; r < size; r++)
            assert_int_equal(bed.seen[r], 50);
        assert_int_equal(group_run(group, meet, NULL, &error), GAPLESS_OK);
        assert_int_equal(bed.runs, size);
        assert_true(group_close(group, &error));
        assert_int_equal(bed.aborts, 0);
    }
}

/* Whoever fails, the others are woken, and it is named. */
static void test_failure(void **state)
{
    (void)state;
    for (uint32_t odd = 0; odd < 4; odd++) {
        struct gapless_error error = {0}, again = {0};
        struct bed bed;
        struct group *group;
        char name[32];

        bed_open(&bed, 4);
        bed.odd = odd;
        bed.how = GAPLESS_SYSTEM;
        group = open_group(&bed, pace_ns(10 * SECOND), pace_ns(10 * SECOND));
        assert_int_equal(group_run(group, meet, NULL, &error), GAPLESS_SYSTEM);
        (void)snprintf(name, sizeof name, "rank %u of 4: it is the odd one", odd);
        assert_string_equal(error.text, name);
        assert_int_equal(group_first_failed(group), odd);
        assert_int_equal(bed.aborts, 4);
        /* What comes after is not run, and says the same. */
        assert_int_equal(group_run(group, meet, NULL, &again), GAPLESS_SYSTEM);
        assert_string_equal(again.text, error.text);
        assert_int_equal(bed.runs, 3);
        /* But leaving is. */
        assert_true(group_run_last(group, nothing, NULL));
        for (uint32_t r = 0; r < 4; r++)
            assert_int_equal(bed.seen[r], r == odd ? 1 : 2);
        assert_true(group_close(group, &error));
    }
}

/* A rank that never comes back by itself: it is named when the bound on waiting is used up. */
static void test_late(void **state)
{
    struct gapless_error error = {0};
    struct bed bed;
    struct group *group;

    (void)state;
    bed_open(&bed, 3);
    bed.odd = 2;
    bed.stay = true;
    group = open_group(&bed, pace_most_ns(SECOND / 10), pace_ns(10 * SECOND));
    bed.size = 2; /* the other two are enough for one another */
    assert_int_equal(group_run(group, meet, NULL, &error), GAPLESS_TIMEOUT);
    assert_non_null(strstr(error.text, "rank 2 of 3"));
    assert_non_null(strstr(error.text, "did not finish"));
    assert_true(group_close(group, &error));
}

/* One that does not react to the abort, either. */
static void test_stuck(void **state)
{
    struct gapless_error error = {0};
    struct bed bed;
    struct group *group;
    struct pace_bound bound;
    int64_t wait_ns;

    (void)state;
    bed_open(&bed, 3);
    bed.odd = 1;
    bed.stay = true;
    wait_ns = pace_most_ns(SECOND / 20);
    bed.stuck_ns = 12 * wait_ns;
    group = open_group(&bed, wait_ns, wait_ns);
    bed.size = 2;
    assert_int_equal(group_run(group, meet, NULL, &error), GAPLESS_TIMEOUT);
    assert_false(group_run_last(group, nothing, NULL));
    assert_false(group_close(group, &error));
    assert_non_null(strstr(error.text, "rank 1 of 3"));
    bound = pace_begin(16 * wait_ns);
    while (!group_close(group,
                        &error)) /* it wakes up at last; a program would have ended */
        assert_false(pace_over(&bound));
}

/* A lost rank is not a lost master, and one that knows why is believed. */
static void test_second_hand(void **state)
{
    struct gapless_error error = {0};
    struct bed bed;
    struct group *group;

    (void)state;
    bed_open(&bed, 2);
    bed.odd = 1;
    bed.how = GAPLESS_PEER_LOST;
    group = open_group(&bed, pace_ns(10 * SECOND), pace_ns(10 * SECOND));
    assert_int_equal(group_run(group, meet, NULL, &error), GAPLESS_SYSTEM);
    assert_non_null(strstr(error.text, "odd one"));
    assert_true(group_close(group, &error));
}

static void test_share(void **state)
{
    (void)state;
    for (uint32_t size = 1; size <= GROUP_MAX; size++)
        for (uint32_t count = 0; count < 70; count++) {
            uint32_t next = 0, least = UINT32_MAX, most = 0;

            for (uint32_t r = 0; r < size; r++) {
                uint32_t from, part = group_share(count, r, size, &from);

                assert_int_equal(from, next);
                next += part;
                least = part < least ? part : least;
                most = part > most ? part : most;
            }
            assert_int_equal(next, count);
            assert_true(most - least <= 1);
        }
}

static void test_refused(void **state)
{
    struct group_config config = {.size = GROUP_MAX + 1};
    struct gapless_error error = {0};
    struct group *group = NULL;

    (void)state;
    assert_int_equal(group_open(&config, &group, &error), GAPLESS_INVALID);
    config.size = 0;
    assert_int_equal(group_open(&config, &group, &error), GAPLESS_INVALID);
    assert_null(group);
    assert_true(group_close(NULL, NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_in_step),     cmocka_unit_test(test_failure),
        cmocka_unit_test(test_late),        cmocka_unit_test(test_stuck),
        cmocka_unit_test(test_second_hand), cmocka_unit_test(test_share),
        cmocka_unit_test(test_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
