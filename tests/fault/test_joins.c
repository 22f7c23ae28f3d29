/* Workers that come and go: what a number counts adds up, nothing is left mapped or open, who
 * says nothing is ended, and a worker that comes after the end learns that it is over. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/master/master.h"
#include "engine/worker/worker.h"
#include "tests/fault/engine.h"

#include <dirent.h>
#include <math.h>
#include <pthread.h>
#include <string.h>

static struct bed {
    struct gapless_master *m;
    pthread_t thread;
} bed;

static void *serve(void *argument)
{
    while (gapless_master_run(argument, 5000000, NULL) == GAPLESS_OK)
        ;
    return NULL;
}

/* For a while, in slices after the end. */
static void *serve_on(void *argument)
{
    for (int i = 0; i < 100; i++)
        (void)gapless_master_run(argument, 10000000, NULL);
    return NULL;
}

static void bed_open(struct gapless_master_config *config)
{
    bed = (struct bed){0};
    bed.m = open_master(config);
    assert_int_equal(pthread_create(&bed.thread, NULL, serve, bed.m), 0);
}

static void bed_stop(void)
{
    gapless_master_stop(bed.m);
    assert_int_equal(pthread_join(bed.thread, NULL), 0);
}

static struct gapless_worker *join_as(uint32_t as)
{
    const struct gapless_worker_config config = {
        .address = engine_address, .wait_ns = ENGINE_WAIT_NS, .wish = 1 + as};
    struct gapless_error error = {0};
    struct gapless_worker *ret = NULL;

    if (gapless_worker_open(&config, &ret, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    return ret;
}

/* Batches of a worker, each third of which is not finite. */
static void work(struct gapless_worker *worker, uint32_t batches, uint64_t *good,
                 uint64_t *bad)
{
    uint64_t batch;

    for (uint32_t i = 0; i < batches; i++) {
        bool spoil = i % 3 == 2;

        assert_int_equal(gapless_worker_pull(worker, &batch, NULL), GAPLESS_OK);
        (void)engine_gradient(gapless_worker_params(worker), batch,
                              gapless_worker_grad(worker));
        if (spoil)
            gapless_worker_grad(worker)[ENGINE_COUNT - 1] = (float)NAN;
        assert_int_equal(gapless_worker_push(worker, 0, NULL),
                         spoil ? GAPLESS_NOT_FINITE : GAPLESS_OK);
        *(spoil ? bad : good) += 1;
    }
    /* All of it is done. */
    assert_int_equal(gapless_worker_pull(worker, &batch, NULL), GAPLESS_OK);
}

static void counts_add_up(const char *rule)
{
    struct gapless_master_config config = engine_config(rule, 0);
    uint64_t good[2] = {0}, bad[2] = {0}, in_all = 0;
    struct gapless_worker_stats stats;

    bed_open(&config);
    for (int round = 0; round < 3; round++)
        for (uint32_t w = 0; w < 2; w++) {
            struct gapless_worker *worker = join_as(w);

            assert_int_equal(gapless_worker_number(worker), w);
            work(worker, 3 + w, &good[w], &bad[w]);
            gapless_worker_close(worker);
        }
    bed_stop();
    for (uint32_t w = 0; w < 2; w++) {
        assert_int_equal(gapless_master_worker_stats(bed.m, w, &stats), GAPLESS_OK);
        if (stats.gradients != good[w] || stats.dropped != bad[w])
            fail_msg("%s, worker %u: %llu and %llu dropped, not %llu and %llu", rule, w,
                     (unsigned long long)stats.gradients,
                     (unsigned long long)stats.dropped, (unsigned long long)good[w],
                     (unsigned long long)bad[w]);
        in_all += stats.gradients + stats.dropped;
    }
    assert_int_equal(stats_of(bed.m).gradients, in_all);
    assert_int_equal(stats_of(bed.m).updates, good[0] + good[1]);
    gapless_master_close(bed.m);
}

static void test_counts_add_up(void **state)
{
    (void)state;
    counts_add_up("dana-ga");
    counts_add_up("dana-lga-adamw");
    counts_add_up("ssgd");
}

static uint32_t entries(const char *folder)
{
    DIR *at = opendir(folder);
    uint32_t ret = 0;

    assert_non_null(at);
    while (readdir(at) != NULL)
        ret++;
    (void)closedir(at);
    return ret;
}

static uint32_t mappings(void)
{
    FILE *file = fopen("/proc/self/maps", "re");
    char line[512];
    uint32_t ret = 0;

    assert_non_null(file);
    while (fgets(line, sizeof line, file) != NULL)
        ret += strstr(line, "memfd:gapless") != NULL ? 1 : 0;
    (void)fclose(file);
    return ret;
}

/* Master and workers are this process: each mapping and descriptor is its own. */
static void test_nothing_is_left_of_a_worker(void **state)
{
    struct gapless_master_config config = engine_config("dana-ga", 0);
    uint32_t open_before = 0, mapped_before = 0;
    const struct gapless_observer_config seen = {.address = engine_address};
    struct gapless_observer *observer;
    struct gapless_stats stats;

    (void)state;
    bed_open(&config);
    assert_int_equal(gapless_observer_open(&seen, &observer, NULL), GAPLESS_OK);
    for (int i = 0; i < 24; i++) {
        struct gapless_worker *worker = join_as(0);
        struct pace_bound bound = pace_begin(20 * ENGINE_SECOND_NS);

        if (i % 2)
            gapless_worker_close(worker);
        else
            worker_abandon(worker); /* without a word: the slot's memory is made anew */
        do
            assert_int_equal(gapless_observer_stats(observer, &stats, NULL),
                             GAPLESS_OK);
        while (stats.workers_active > 0 && !pace_over(&bound));
        if (i == 3) {
            open_before = entries("/proc/self/fd");
            mapped_before = mappings();
        }
    }
    /* The listener clears a place away a moment later. */
    for (int i = 0; i < 400 && (entries("/proc/self/fd") > open_before ||
                                mappings() > mapped_before);
         i++)
        engine_sleep(10000);
    assert_true(mapped_before > 0);
    assert_in_range(mappings(), 1, mapped_before);
    assert_in_range(entries("/proc/self/fd"), 1, open_before);
    gapless_observer_close(observer);
    bed_stop();
    gapless_master_close(bed.m);
}

/* It connects and says nothing: after ten seconds, here of no real time, its place is free. */
static void test_who_says_nothing_is_ended(void **state)
{
    struct gapless_master_config config = engine_config("dana-ga", 0);
    const struct transport *t = &transport_shm;
    struct pace_bound bound = pace_begin(20 * ENGINE_SECOND_NS);
    struct gapless_error error = {0};
    struct tp_event event;
    struct tp *silent;
    tp_peer to;
    uint64_t now;
    int n = 0;

    (void)state;
    bed = (struct bed){0};
    bed.m = open_master(&config);
    assert_int_equal(t->open(NULL, &silent, &error), GAPLESS_OK);
    assert_int_equal(t->connect(silent, config.address + strlen("shm:"), ENGINE_WAIT_NS,
                                &to, &error),
                     GAPLESS_OK);
    run_until(bed.m, bed.m->peer[0].role == ROLE_UNKNOWN);
    now = bed.m->transport->now_ns(bed.m->tp);
    member_tick(bed.m, now + 9 * ENGINE_SECOND_NS);
    assert_int_equal(bed.m->peer[0].role, ROLE_UNKNOWN);
    member_tick(bed.m, now + 11 * ENGINE_SECOND_NS);
    assert_int_equal(bed.m->peer[0].role, ROLE_NONE);
    while (n == 0 && !pace_over(&bound)) {
        n = t->poll(silent, &event, 1, ENGINE_SECOND_NS / 10);
        if (n == 1 && event.kind == TP_TEXT)
            n = 0; /* why */
    }
    assert_int_equal(n, 1);
    assert_int_equal(event.kind, TP_DOWN);
    t->close(silent);
    gapless_master_close(bed.m);
}

static void test_a_late_joiner_is_told(void **state)
{
    const struct gapless_worker_config config = {.address = engine_address};
    struct gapless_master_config master = engine_config("dana-ga", 4);
    struct gapless_worker *worker, *late = NULL;
    struct gapless_error error = {0};
    uint64_t batch;
    int status;

    (void)state;
    bed = (struct bed){0};
    bed.m = open_master(&master);
    assert_int_equal(pthread_create(&bed.thread, NULL, serve, bed.m), 0);
    worker = join_as(0);
    while (gapless_worker_pull(worker, &batch, NULL) == GAPLESS_OK) {
        (void)engine_gradient(gapless_worker_params(worker), batch,
                              gapless_worker_grad(worker));
        assert_int_equal(gapless_worker_push(worker, 0, NULL), GAPLESS_OK);
    }
    assert_int_equal(pthread_join(bed.thread, NULL), 0);
    /* After the end it is served on, for observers. */
    assert_int_equal(pthread_create(&bed.thread, NULL, serve_on, bed.m), 0);
    status = gapless_worker_open(&config, &late, &error);
    if (status != GAPLESS_STOPPED || strstr(error.text, "the run is over") == NULL)
        fail_msg("%d: %s", status, error.text);
    gapless_worker_close(worker);
    assert_int_equal(pthread_join(bed.thread, NULL), 0);
    gapless_master_close(bed.m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts_add_up),
        cmocka_unit_test(test_nothing_is_left_of_a_worker),
        cmocka_unit_test(test_who_says_nothing_is_ended),
        cmocka_unit_test(test_a_late_joiner_is_told),
    };

    pace_alarm(120);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
