/* A gradient that is handed in piece by piece: over a network, over one whose memory is
 * mapped, over shared memory. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/fault/engine.h"
#include "tests/fault/remote.h"

static const char *const networks[] = {"simnet", "sim"};
static char place[64];

/* Tensors of their own decay and rate, and averages; borders within chunks of 16. */
static const struct gapless_tensor own[] = {
    {.name = "w", .dims = 2, .dim = {1000, 2}, .decay = 0.1},
    {.name = "b", .dims = 1, .dim = {1301}, .rate = 0.5},
    {.name = "mean", .dims = 1, .dim = {399}, .average = 0.1},
    {.name = "var", .dims = 1, .dim = {399}, .average = 0.2}};

static struct gapless_master_config config_over(const char *network, const char *rule)
{
    struct gapless_master_config config = settings(rule);
    static int count;

    (void)snprintf(place, sizeof place, "%s:pieces-%d", network, count++);
    (void)snprintf(address, sizeof address, "%s", place);
    config.address = address;
    return config;
}

static void open_any(const struct gapless_master_config *config)
{
    struct gapless_error error = {0};

    bed = (struct bed){.random = 3};
    if (gapless_master_open(config, &bed.m, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    sim_pump_set(sim_world_of(bed.m->tp), pump, NULL);
}

static uint64_t pull(struct gapless_worker *w)
{
    struct gapless_error error = {0};
    uint64_t batch = 0;

    if (gapless_worker_pull(w, &batch, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    return batch;
}

static void fill(struct gapless_worker *w, uint64_t batch)
{
    const float *params = gapless_worker_params(w);
    uint64_t random = batch * 77 + 5;

    for (uint64_t i = 0; i < gapless_worker_count(w); i++)
        gapless_worker_grad(w)[i] =
            0.01f * params[i] + 0.001f * (float)(engine_random(&random) % 1001);
}

static void hand(struct gapless_worker *w, uint64_t from, uint64_t end)
{
    struct gapless_error error = {0};

    if (gapless_worker_push_range(w, from, end - from, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
}

/* All but one of nine pieces, in an order that `batch` decides. */
static void hand_most(struct gapless_worker *w, uint64_t batch)
{
    uint64_t count = gapless_worker_count(w), at = batch * 5 % 9;

    for (int i = 0; i < 8; i++, at = (at + 4) % 9) {
        hand(w, count * at / 9, count * (at + 1) / 9);
        if (i % 3 == 2) /* the master works on what is there */
            (void)gapless_master_run(bed.m, 1000000000, NULL);
    }
}

/* ---- the bits ------------------------------------------------------------ */

static void trained(const struct gapless_master_config *config, bool pieces, float *ret)
{
    struct gapless_error error = {0};
    struct gapless_stats stats;
    struct gapless_worker *w;

    open_any(config);
    w = worker();
    for (int i = 0; i < 25; i++) {
        uint64_t batch = pull(w);

        fill(w, batch);
        assert_int_equal(gapless_worker_set_rate(w, i % 4 == 1 ? 0.5 : 1), GAPLESS_OK);
        if (pieces)
            hand_most(w, batch);
        if (gapless_worker_push(w, (double)i, &error) != GAPLESS_OK)
            fail_msg("%s", error.text);
    }
    (void)pull(w);
    gapless_master_stats(bed.m, &stats);
    assert_int_equal(stats.gradients, 25);
    assert_int_equal(stats.dropped + stats.partial, 0);
    assert_int_equal(bed.m->slot[0].loss, 24); /* not that of the batch before */
    memcpy(ret, gapless_master_params(bed.m),
           (size_t)bed.m->layout.count * sizeof(float));
    gapless_worker_close(w);
    close_bed();
}

static void test_the_bits(void **state)
{
    static const char *const names[] = {"nag-asgd", "dana-ga", "muon", "adamw"};
    static float once[COUNT], pieces[COUNT];

    (void)state;
    for (size_t i = 0; i < 16; i++) {
        struct gapless_master_config config =
            config_over(networks[i % 2], names[i / 2 % 4]);

        if (i >= 8)
            config.model = (struct gapless_model){own, 4};
        if (i / 2 % 4 < 2)
            config.weight_decay = 0.01;
        trained(&config, false, once);
        (void)config_over(networks[i % 2], names[i / 2 % 4]);
        trained(&config, true, pieces);
        assert_memory_equal(once, pieces, sizeof once);
        assert_true(once[5] < 0 || once[5] > 0);
    }
}

/* ---- when ---------------------------------------------------------------- */

static void test_ranges_go_at_once(void **state)
{
    (void)state;
    for (int n = 0; n < 2; n++) {
        struct gapless_master_config config = config_over(networks[n], "dana-ga");
        const uint64_t *at;
        struct gapless_worker *w;

        open_bed(&config);
        at = bed.m->layout.range_start;
        w = worker();
        for (int i = 0; i < 3; i++) {
            fill(w, pull(w));
            hand(w, at[3], COUNT); /* the last range, with its padding */
            hand(w, at[1] + 6, at[2]);
            (void)gapless_master_run(bed.m, 1000000000, NULL);
            assert_int_equal(core_version(bed.m->core, 3), (uint64_t)i + 1);
            assert_int_equal(core_version(bed.m->core, 1), (uint64_t)i);
            /* What was missing of range 1; and range 0, which waits. */
            hand(w, 0, at[1] + 6);
            (void)gapless_master_run(bed.m, 1000000000, NULL);
            assert_int_equal(core_version(bed.m->core, 1), (uint64_t)i + 1);
            assert_int_equal(core_version(bed.m->core, 0), (uint64_t)i);
            hand(w, at[2], at[2] + 5);
            hand(w, at[2] + 5, at[3] - (i == 1)); /* once, one element is missing */
            (void)gapless_master_run(bed.m, 1000000000, NULL);
            assert_int_equal(core_version(bed.m->core, 2),
                             (uint64_t)i + (i == 1 ? 0 : 1));
            assert_int_equal(gapless_worker_push(w, 1, NULL), GAPLESS_OK);
        }
        (void)pull(w);
        assert_int_equal(core_version(bed.m->core, 2), 3);
        gapless_worker_close(w);
        close_bed();
    }
}

/* ---- what cannot be ------------------------------------------------------ */

static void refused(struct gapless_worker *w, uint64_t from, uint64_t count, int status,
                    const char *words)
{
    struct gapless_error error = {0};

    assert_int_equal(gapless_worker_push_range(w, from, count, &error), status);
    if (strstr(error.text, words) == NULL)
        fail_msg("'%s' does not say '%s'", error.text, words);
}

static void test_bad_calls(void **state)
{
    struct gapless_master_config config = config_over("simnet", "dana-ga");
    struct gapless_worker *w;

    (void)state;
    open_bed(&config);
    w = worker();
    assert_int_equal(gapless_worker_push_range(w, 0, 0, NULL), GAPLESS_OK);
    refused(w, 0, 8, GAPLESS_INVALID, "without a pull");
    fill(w, pull(w));
    refused(w, 0, COUNT + 1, GAPLESS_INVALID, "there are 4099");
    refused(w, COUNT, 1, GAPLESS_INVALID, "there are 4099");
    refused(w, UINT64_MAX, 2, GAPLESS_INVALID, "there are 4099");
    hand(w, 2048, 3072);
    refused(w, 2048, 1024, GAPLESS_INVALID, "handed in before");
    refused(w, 3071, 2, GAPLESS_INVALID, "handed in before");
    refused(w, 2040, 9, GAPLESS_INVALID, "handed in before");
    refused(w, 0, COUNT, GAPLESS_INVALID, "handed in before");
    hand(w, 3072, COUNT);
    hand(w, 0, 10);
    hand(w, 20, 30);
    hand(w, 10, 20); /* joins its two neighbours */
    refused(w, 29, 1, GAPLESS_INVALID, "handed in before");
    refused(w, 0, 1, GAPLESS_INVALID, "handed in before");
    hand(w, 30, 31);
    assert_int_equal(gapless_worker_push(w, 1, NULL), GAPLESS_OK);
    refused(w, 50, 8, GAPLESS_INVALID, "without a pull");
    fill(w, pull(w));
    hand(w, 0, COUNT); /* a new gradient: all of it again */
    assert_int_equal(gapless_worker_push(w, 1, NULL), GAPLESS_OK);
    (void)pull(w);
    assert_int_equal(core_version(bed.m->core, 2), 2);
    assert_int_equal(bed.lines, 0); /* the master had nothing to complain of */
    gapless_worker_close(w);
    close_bed();
}

static void test_rules_that_need_all(void **state)
{
    static const struct {
        const char *rule, *why;
    } cases[] = {{"dana-ga-global", "as a whole"}, {"ssgd", "as a whole"},
                 {"dana-slim", "needs all of it"}, {"easgd", "needs all of it"},
                 {"shared-lga-dot", "needs all"},  {"dana-ga", "clip_norm"}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct gapless_master_config config = config_over("simnet", cases[i].rule);
        struct gapless_worker *w;

        if (strcmp(cases[i].why, "clip_norm") == 0)
            config.clip_norm = 1;
        open_any(&config);
        w = worker();
        refused(w, 0, 0, GAPLESS_UNSUPPORTED, cases[i].why);
        fill(w, pull(w));
        refused(w, 0, 1024, GAPLESS_UNSUPPORTED, cases[i].why);
        assert_int_equal(gapless_worker_push(w, 1, NULL), GAPLESS_OK);
        (void)pull(w); /* and all was as ever */
        gapless_worker_close(w);
        close_bed();
    }
}

/* ---- gradients that are not finite, workers that go ---------------------- */

static void test_not_finite(void **state)
{
    (void)state;
    for (int n = 0; n < 4; n++) {
        struct gapless_master_config config = config_over(networks[n % 2], "nag-asgd");
        bool first = n < 2; /* in the range that comes first, or in a later one */
        struct gapless_error error = {0};
        struct gapless_stats stats;
        struct gapless_worker *w;

        open_bed(&config);
        w = worker();
        fill(w, pull(w));
        gapless_worker_grad(w)[first ? 3500 : 1500] = first ? NAN : INFINITY;
        hand(w, 2048, COUNT);
        hand(w, 1000, 2048);
        assert_int_equal(gapless_worker_push(w, 1, &error), GAPLESS_NOT_FINITE);
        assert_non_null(strstr(error.text, "batch 0 is not finite"));
        assert_int_equal(pull(w), 1);
        gapless_master_stats(bed.m, &stats);
        assert_int_equal(stats.dropped, 1);
        assert_int_equal(core_version(bed.m->core, 3), first ? 0 : 1);
        assert_int_equal(core_version(bed.m->core, 1), 0);
        for (uint32_t i = 0; i < COUNT; i++)
            assert_true(isfinite(gapless_worker_params(w)[i]));
        fill(w, 1);
        hand(w, 2048, COUNT);
        assert_int_equal(gapless_worker_push(w, 1, &error), GAPLESS_OK);
        gapless_worker_close(w);
        close_bed();
    }
}

static void test_leaves_in_the_middle(void **state)
{
    struct gapless_master_config config = config_over("simnet", "dana-zero");
    struct gapless_worker *w, *next;
    struct gapless_stats stats;

    (void)state;
    open_bed(&config);
    w = worker();
    fill(w, pull(w));
    hand(w, 2048, COUNT);
    (void)gapless_master_run(bed.m, 1000000000, NULL);
    gapless_worker_close(w);
    next = worker();
    assert_int_equal(pull(next), 1); /* what is applied in part is not dealt again */
    gapless_master_stats(bed.m, &stats);
    assert_int_equal(stats.partial, 1);
    fill(next, 1);
    hand(next, 0, 1000); /* nothing that could go yet */
    gapless_worker_close(next);
    w = worker();
    assert_int_equal(pull(w), 1);
    gapless_worker_close(w);
    close_bed();
}

/* ---- shared memory ------------------------------------------------------- */

static void over_shm(const struct engine_fault *fault, uint32_t workers, float *ret)
{
    struct gapless_master_config config = engine_config("dana-ga", 400);
    struct gapless_master *m;
    pid_t pid[3];

    config.range_elements = 512;
    config.weight_decay = 0.001;
    config.workers_wait = workers;
    for (uint32_t w = 0; w < workers; w++) /* before there are threads */
        pid[w] = engine_start(fault);
    m = open_master(&config);
    run_to_end(m);
    for (uint32_t w = 0; w < workers; w++)
        assert_int_equal(engine_wait(pid[w]), 0);
    assert_int_equal(stats_of(m).gradients, 400);
    assert_int_equal(stats_of(m).dropped + stats_of(m).partial, 0);
    memcpy(ret, gapless_master_params(m), ENGINE_COUNT * sizeof(float));
    gapless_master_close(m);
}

static void test_shm(void **state)
{
    const struct engine_fault plain = {0}, pieces = {.pieces = true, .rates = true},
                              whole = {.rates = true};
    static float a[ENGINE_COUNT], b[ENGINE_COUNT];

    (void)state;
    over_shm(&whole, 1, a);
    over_shm(&pieces, 1, b);
    assert_memory_equal(a, b, sizeof a);
    over_shm(&plain, 1, b);
    assert_memory_not_equal(a, b, sizeof a); /* rates do count */
    over_shm(&pieces, 3, b);
    for (uint32_t i = 0; i < ENGINE_COUNT; i++)
        assert_true(fabsf(b[i] - 1) < 0.2f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_bits),   cmocka_unit_test(test_ranges_go_at_once),
        cmocka_unit_test(test_bad_calls),  cmocka_unit_test(test_rules_that_need_all),
        cmocka_unit_test(test_not_finite), cmocka_unit_test(test_leaves_in_the_middle),
        cmocka_unit_test(test_shm),
    };

    pace_alarm(100);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
