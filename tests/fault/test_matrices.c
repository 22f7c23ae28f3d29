/* Matrices are in work on a live master: what else arrives goes on, in the order that a record
 * repeats to the bit; and the wait of a small range beside a large matrix.
 *
 * One thread is all workers, so that messages arrive in an order that is known: after a push it
 * waits until the last range, which has no matrix, is answered. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/compute/matrices.h"
#include "engine/master/master.h"
#include "engine/worker/worker.h"
#include "tests/fault/engine.h"

#include <pthread.h>
#include <math.h>
#include <string.h>

enum {
    ROUNDS = 7,
    WORKERS = 4,
    SMALL = 1024 /* elements of the range without a matrix */
};

static uint32_t side; /* of the matrix, which is a range of its own */
/* Of the matrix beside which the wait is measured: test_matrices SIDE */
static uint32_t wait_side = 512;
static double update_ms;
static char record[64];

struct bed {
    struct gapless_master *m;
    pthread_t thread;
    struct gapless_worker *worker[WORKERS];
    bool answered[WORKERS]; /* the small range of its gradient is */
    int64_t slice_ns;       /* of gapless_master_run */
    bool under_way;         /* after such a slice */
};
static struct bed bed;

static struct gapless_master_config
matrices_config(const char *rule, uint32_t rows, uint32_t threads, uint64_t gradients)
{
    static struct gapless_tensor tensors[2];
    struct gapless_master_config ret = engine_config(rule, gradients);

    side = rows;
    tensors[0] = (struct gapless_tensor){.name = "w", .dims = 2, .dim = {rows, rows}};
    tensors[1] = (struct gapless_tensor){.name = "b", .dims = 1, .dim = {SMALL}};
    ret.model = (struct gapless_model){tensors, 2};
    ret.range_elements = SMALL;
    ret.matrix_threads = threads;
    ret.gate = GAPLESS_GATE_TENSOR;
    return ret;
}

static double gradient(void *context, uint32_t thread, uint64_t batch,
                       const float *params, float *grad)
{
    uint64_t random = batch * 2654435761u + 12345;
    size_t count = (size_t)side * side + SMALL;

    (void)context, (void)thread;
    for (size_t i = 0; i < count; i++)
        grad[i] = params[i] +
                  0.1f * ((float)(engine_random(&random) % 2001) / 1000.0f - 1.0f);
    return 1;
}

/* Whenever it returns, nobody works on the parameters. */
static void *serve(void *argument)
{
    struct gapless_master *m = argument;

    while (gapless_master_run(m, bed.slice_ns, NULL) == GAPLESS_OK)
        bed.under_way |= matrices_under_way(m, CORE_ALL);
    return NULL;
}

static void on_note(void *user, uint32_t note)
{
    struct gapless_worker *w = user;

    for (uint32_t i = 0; i < WORKERS; i++)
        if (w == bed.worker[i] && NOTE_WHAT(note) == NOTE_READY &&
            NOTE_RANGE(note) != 0) /* the small one, or all */
            bed.answered[i] = true;
    fetch_note(w, note);
}

static void join_one(const struct gapless_master_config *config, uint32_t i)
{
    const struct gapless_worker_config worker = {.address = config->address,
                                                 .model = config->model,
                                                 .by_range = true,
                                                 .wait_ns = ENGINE_WAIT_NS};
    struct gapless_error error = {0};

    if (gapless_worker_open(&worker, &bed.worker[i], &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    bed.worker[i]->client.on_note = on_note;
}

static void bed_open(const struct gapless_master_config *config, int64_t slice_ns)
{
    bed = (struct bed){.m = open_master(config), .slice_ns = slice_ns};
    assert_int_equal(bed.m->layout.ranges_count, 2);
    assert_int_equal(pthread_create(&bed.thread, NULL, serve, bed.m), 0);
}

/* The run, not the master, which is nobody else's then. */
static void bed_end(void)
{
    gapless_master_stop(bed.m);
    for (uint32_t i = 0; i < WORKERS; i++)
        gapless_worker_close(bed.worker[i]);
    assert_int_equal(pthread_join(bed.thread, NULL), 0);
    assert_false(bed.under_way);
}

static uint64_t pull(uint32_t i)
{
    struct gapless_error error = {0};
    uint64_t batch;

    if (gapless_worker_pull(bed.worker[i], &batch, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    return batch;
}

static void compute(uint32_t i)
{
    uint64_t batch = pull(i);

    (void)gradient(NULL, 0, batch, gapless_worker_params(bed.worker[i]),
                   gapless_worker_grad(bed.worker[i]));
}

/* Until the small range of its gradient is answered, or all of it. */
static void await(uint32_t i, bool all)
{
    struct pace_bound bound = pace_begin(60 * ENGINE_SECOND_NS);
    struct gapless_error error = {0};
    struct gapless_worker *w = bed.worker[i];

    while (all ? !fetch_done(w) : !bed.answered[i]) {
        if (client_poll(&w->client, 1000000, &error) != GAPLESS_OK)
            fail_msg("%s", error.text);
        assert_false(pace_over(&bound));
    }
}

static void push(uint32_t i)
{
    struct gapless_error error = {0};
    int status;

    bed.answered[i] = false;
    status = gapless_worker_push(bed.worker[i], 1, &error);

    if (status != GAPLESS_OK && status != GAPLESS_NOT_FINITE)
        fail_msg("%s", error.text);
}

static uint64_t now_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* ---- the wait ------------------------------------------------------------ */

static int by_size(const void *a, const void *b)
{
    const double *x = a, *y = b;

    return *x < *y ? -1 : *x > *y;
}

/* Two workers hand in, one after the other: the small range of the second is answered long
 * before the matrix of the first. One product of 15 is what may be in the way, and only of a
 * master without helpers. */
static void test_wait(void **state)
{
    double update[ROUNDS], small[ROUNDS];

    (void)state;
    for (uint32_t threads = 1; threads <= 2; threads++) {
        const struct gapless_master_config config =
            matrices_config("muon", wait_side, threads, 0);
        bed_open(&config, -1);
        join_one(&config, 0);
        join_one(&config, 1);
        for (int i = 0; i < ROUNDS; i++) {
            uint64_t began, pushed;

            compute(0);
            compute(1);
            began = now_ns();
            push(0);
            await(0, false);
            pushed = now_ns();
            push(1);
            await(1, false);
            small[i] = 1e-6 * (double)(now_ns() - pushed);
            await(0, true);
            update[i] = 1e-6 * (double)(now_ns() - began);
        }
        bed_end();
        gapless_master_close(bed.m);
        qsort(update, ROUNDS, sizeof *update, by_size);
        qsort(small, ROUNDS, sizeof *small, by_size);
        print_message(
            "%u thread(s): a matrix of %u x %u: %.1f ms; a gradient of another "
            "range beside it: %.2f ms (most: %.2f)\n",
            threads, side, side, update[ROUNDS / 2], small[ROUNDS / 2],
            small[ROUNDS - 1]);
        update_ms = update[ROUNDS / 2];
        assert_true(small[ROUNDS / 2] < update[ROUNDS / 2] / 3);
    }
}

/* ---- order --------------------------------------------------------------- */

/* Hands in, and waits until all of the message has arrived: its last range is answered. */
static void hand_in(uint32_t i)
{
    compute(i);
    push(i);
    await(i, false);
}

/* Three workers in turns, so that two gradients wait for the matrix of a third, and what else
 * may come in between: a worker that joins, one that goes while its gradient waits, one whose
 * gradient is not finite. */
static void live(const struct gapless_master_config *config, int64_t slice_ns,
                 float *ret)
{
    uint32_t i;

    bed_open(config, slice_ns);
    for (i = 0; i < 3; i++)
        join_one(config, i);
    for (int round = 0; round < 12; round++) {
        for (i = 0; i < 3; i++)
            if (bed.worker[i] != NULL)
                hand_in(i);
        if (round == 3)
            join_one(config, 3); /* is welcome when nothing is under way */
        if (round == 5) {
            compute(3);
            gapless_worker_grad(bed.worker[3])[SMALL] = (float)INFINITY;
            push(3);
        }
        if (round == 7) {
            gapless_worker_close(bed.worker[1]);
            bed.worker[1] = NULL;
        }
    }
    for (i = 0; i < WORKERS; i++)
        if (bed.worker[i] != NULL)
            compute(i); /* all that was handed in is applied */
    bed_end();
    memcpy(ret, bed.m->theta, ((size_t)side * side + SMALL) * sizeof *ret);
    assert_int_equal(bed.m->core->consumed, 12 * 3 - 4 + 1);
    gapless_master_close(bed.m);
}

static void replayed(const struct gapless_master_config *config, float *ret)
{
    struct gapless_simulation_config simulated = {
        .master = *config, .replay = record, .threads = 2, .gradient = gradient};
    struct gapless_simulation *s;
    struct gapless_error error = {0};
    int status;

    simulated.master.record = NULL;
    status = gapless_simulation_open(&simulated, &s, &error);
    if (status == GAPLESS_OK)
        status = gapless_simulation_run(s, 0, &error);
    if (status != GAPLESS_STOPPED)
        fail_msg("%s: %s", config->rule, error.text);
    memcpy(ret, gapless_master_params(gapless_simulation_master(s)),
           ((size_t)side * side + SMALL) * sizeof *ret);
    gapless_simulation_close(s);
}

static void test_order(void **state)
{
    static const struct {
        const char *rule;
        enum gapless_gate gate;
        uint32_t drop_lag;
    } cases[] = {{"muon", GAPLESS_GATE_TENSOR, 0},
                 {"muon", GAPLESS_GATE_TENSOR, 3},
                 {"muon-lga", GAPLESS_GATE_TENSOR, 0},
                 {"dana-lga-muon", GAPLESS_GATE_TENSOR, 0},
                 {"dana-lga-muon", GAPLESS_GATE_WHOLE, 0}};
    static float first[128 * 128 + SMALL], again[128 * 128 + SMALL];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (uint32_t threads = 1; threads <= 3; threads++) {
            struct gapless_master_config config =
                matrices_config(cases[i].rule, 128, threads, 0);

            config.gate = cases[i].gate;
            config.drop_lag = cases[i].drop_lag;
            config.kappa = 1;
            config.record = record;
            live(&config, threads == 2 ? 1000000 : -1, first);
            replayed(&config, again);
            assert_memory_equal(first, again, sizeof first);
        }
}

/* ---- what else goes on --------------------------------------------------- */

/* An observer that reads while a matrix is in work: it needs no copy, because products write
 * nothing that it reads; and a copy waits for the range, not the master for a copy. */
static void test_observer(void **state)
{
    static float seen[512 * 512 + SMALL];
    const struct gapless_master_config config = matrices_config("muon", 512, 2, 0);
    const struct gapless_observer_config observer = {.address = config.address};
    struct gapless_observer *o;
    struct gapless_error error = {0};
    (void)state;
    bed_open(&config, -1);
    join_one(&config, 0);
    if (gapless_observer_open(&observer, &o, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    for (int copies = 0; copies <= 1; copies++) {
        bed.m->shared_stats->copies_only = (uint64_t)copies;
        hand_in(0);
        if (gapless_observer_read(o, seen, ENGINE_WAIT_NS, NULL, &error) != GAPLESS_OK)
            fail_msg("%s", error.text);
        if (copies == 0)
            assert_int_equal(seq_read_begin(&bed.m->shared_stats->copy), 0);
        await(0, true);
    }
    gapless_observer_close(o);
    bed_end();
    assert_memory_equal(seen, bed.m->theta, sizeof seen);
    gapless_master_close(bed.m);
}

/* A worker whose gradient waits for the matrices of others is not too slow. */
static void test_not_slow(void **state)
{
    struct gapless_master_config config = matrices_config("muon", wait_side, 1, 0);
    uint32_t i;

    (void)state;
    config.worker_timeout_ns = (int64_t)(2e6 * update_ms);
    bed_open(&config, -1);
    for (i = 0; i < WORKERS; i++)
        join_one(&config, i);
    for (i = 0; i < WORKERS; i++)
        (void)pull(i); /* its gradient is 0: computing takes no time */
    for (i = 0; i < WORKERS; i++) {
        push(i);
        await(i, false);
    }
    for (i = 0; i < WORKERS; i++)
        (void)pull(i); /* would fail; then those that came first are too slow, truly */
    bed_end();
    gapless_master_close(bed.m);
}

int main(int count, char **word)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wait),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_observer),
        cmocka_unit_test(test_not_slow),
    };
    int failed;

    if (count > 1)
        wait_side = (uint32_t)strtoul(word[1], NULL, 10);
    (void)snprintf(record, sizeof record, "/tmp/gapless-matrices-%ld", (long)getpid());
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)remove(record);
    return failed;
}
