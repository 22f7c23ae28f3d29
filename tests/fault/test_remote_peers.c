/* Peers over a transport that does not map memory: workers that go in the middle,
 * masters that make no sense, settings that cannot be, and what it all costs. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/fault/remote.h"

/* ---- who goes, and what is said of it ------------------------------------ */

static void test_worker_dies(void **state)
{
    struct gapless_master_config config = settings("dana-ga");
    struct gapless_worker *w, *next;
    struct gapless_error error;
    struct gapless_stats stats;
    uint64_t batch, again;

    (void)state;
    open_bed(&config);
    w = worker();
    update(w, 1);
    assert_int_equal(gapless_worker_pull(w, &batch, NULL), GAPLESS_OK);
    assert_int_equal(gapless_worker_push(w, 0, NULL), GAPLESS_OK);
    worker_abandon(w); /* with its gradient under way: that was sent before it went */
    (void)gapless_master_run(bed.m, 1000000000, NULL);
    gapless_master_stats(bed.m, &stats);
    assert_int_equal(stats.gradients, 2);
    assert_int_equal(stats.workers_lost, 1);
    assert_true(logged("worker-00 (pid", "was lost"));
    assert_int_equal(bed.lines, 1);
    /* The slot is used again, by a worker that starts where the others are. */
    next = worker();
    assert_int_equal(gapless_worker_number(next), 0);
    assert_int_equal(gapless_worker_pull(next, &again, NULL), GAPLESS_OK);
    assert_int_equal(again, batch + 1); /* which the dead one had been given */
    assert_int_equal(try_worker(&w, &error), GAPLESS_OK);
    gapless_worker_close(w);
    gapless_worker_close(next);
    (void)gapless_master_run(bed.m, 1000000, NULL);
    assert_int_equal(bed.lines, 1); /* who says goodbye is no loss */
    close_bed();
}

static void test_dropped_and_refused(void **state)
{
    struct gapless_master_config config = settings("asgd");
    static const struct gapless_tensor other[] = {{.name = "x", .dims = 1, .dim = {7}}};
    const struct gapless_worker_config wrong = {.address = address,
                                                .model = {other, 1}};
    struct gapless_error error = {0};
    struct gapless_worker *w, *none = NULL;
    uint64_t batch;

    (void)state;
    config.worker_timeout_ns = 1000000000;
    open_bed(&config);
    assert_int_equal(gapless_worker_open(&wrong, &none, &error), GAPLESS_MODEL);
    assert_true(logged("refused", "parameters"));
    for (int i = 0; i < 3; i++)
        assert_int_equal(gapless_worker_open(&wrong, &none, &error), GAPLESS_MODEL);
    assert_int_equal(gapless_master_refused(bed.m), 4);
    assert_int_equal(bed.lines, 1); /* not a line each */
    w = worker();
    assert_int_equal(gapless_worker_pull(w, &batch, &error), GAPLESS_OK);
    (void)gapless_master_run(bed.m, 2000000000, NULL);
    assert_true(logged("worker-00 (pid", "was dropped"));
    assert_int_equal(bed.lines, 2);
    assert_int_equal(gapless_worker_push(w, 0, &error), GAPLESS_TIMEOUT);
    assert_non_null(strstr(error.text, "held batch 0"));
    gapless_worker_close(w);
    close_bed();
}

/* The run ends: that needs nothing to be read from a master that may be gone. */
static void test_the_end(void **state)
{
    struct gapless_master_config config = settings("asgd");
    struct gapless_worker *w;
    uint64_t batch;

    (void)state;
    config.gradients = 3;
    open_bed(&config);
    w = worker();
    for (int i = 0; i < 3; i++)
        update(w, 1);
    assert_int_equal(gapless_master_run(bed.m, -1, NULL), GAPLESS_STOPPED);
    sim_pump_set(sim_world_of(bed.m->tp), NULL, NULL);
    close_bed();
    assert_int_equal(gapless_worker_pull(w, &batch, NULL), GAPLESS_STOPPED);
    gapless_worker_close(w);
}

/* ---- what is not believed ------------------------------------------------ */

static void ignore(void *user, uint32_t note)
{
    (void)user, (void)note;
}

/* What a worker makes of a welcome with one number changed. */
static int mapped(size_t at, uint64_t value, bool set, struct gapless_error *error)
{
    const struct wire_hello hello = {
        .head = wire_head(WIRE_HELLO), .role = WIRE_WORKER, .version = GAPLESS_RELEASE};
    const struct client_wishes wishes = {
        .address = address, .hello = &hello, .on_note = ignore};
    struct gapless_worker *w = calloc(1, sizeof *w);
    int status;

    assert_non_null(w);
    assert_int_equal(client_open(&w->client, &wishes, error), GAPLESS_OK);
    if (set)
        memcpy((char *)&w->client.welcome + at, &value, sizeof value);
    status = worker_map(w, error);
    worker_abandon(w);
    (void)gapless_master_run(bed.m, 1000000, NULL);
    return status;
}

static void believes(const char *rule, const size_t *fields, size_t count)
{
    struct gapless_master_config config = settings(rule);
    struct gapless_error error = {0};

    open_bed(&config);
    assert_int_equal(mapped(0, 0, false, &error), GAPLESS_OK);
    for (size_t f = 0; f < count; f++) {
        const uint64_t wrong[] = {4,
                                  72,
                                  UINT64_MAX,
                                  UINT64_MAX - 63,
                                  UINT64_MAX / 2,
                                  bed.m->grad_at + 64,
                                  bed.m->push_at + 128};

        for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
            if (mapped(fields[f], wrong[i], true, &error) != GAPLESS_PROTOCOL)
                fail_msg("%s: field %zu was believed to be %llu", rule, f,
                         (unsigned long long)wrong[i]);
    }
    close_bed();
}

static void test_layouts(void **state)
{
    static const size_t slot[] = {offsetof(struct wire_welcome, sent_at),
                                  offsetof(struct wire_welcome, push_at),
                                  offsetof(struct wire_welcome, grad_at)};
    static const size_t published[] = {offsetof(struct wire_welcome, push_at),
                                       offsetof(struct wire_welcome, grad_at),
                                       offsetof(struct wire_welcome, reported_at)};

    (void)state;
    believes("dana-ga", slot, 3);
    believes("shared-lga-dot", published, 3);
}

/* What a worker makes of parts of which one number is changed. */
static void test_parts(void **state)
{
    static const struct gapless_tensor own[] = {
        {.name = "a", .dims = 1, .dim = {20}, .decay = 0.5},
        {.name = "b", .dims = 1, .dim = {COUNT - 20}, .average = 0.5}};
    static const double numbers[] = {-1, NAN, INFINITY};
    struct gapless_master_config config = settings("asgd");
    struct gapless_error error = {0};
    struct wire_part *parts;
    struct shared_stats *b;

    (void)state;
    config.model = (struct gapless_model){own, 2};
    config.range_elements = 2048; /* with the two at its start as many as RANGES */
    open_bed(&config);
    b = bed.m->shared_stats;
    parts = (struct wire_part *)(uintptr_t)shared_stats_parts(b);
    assert_int_equal(b->parts, 2);
    assert_int_equal(mapped(0, 0, false, &error), GAPLESS_OK);
#define WRONG(field, value)                                                            \
    do {                                                                               \
        __typeof__(field) was = (field);                                               \
        (field) = (value);                                                             \
        if (mapped(0, 0, false, &error) != GAPLESS_PROTOCOL)                           \
            fail_msg("believed: %s is %s", #field, #value);                            \
        (field) = was;                                                                 \
    } while (0)
    WRONG(b->parts, 1);
    WRONG(b->parts, 3);
    WRONG(b->parts, UINT64_MAX);
    WRONG(b->parts, GAPLESS_TENSORS_MAX);
    WRONG(b->parts_at, b->bytes - 8);
    WRONG(b->parts_at, b->parts_at + 4);
    WRONG(b->parts_at, UINT64_MAX - 7);
    WRONG(parts[0].end, 0);
    WRONG(parts[0].end, COUNT);
    WRONG(parts[1].end, COUNT - 1);
    WRONG(parts[1].end, COUNT + 1);
    WRONG(parts[1].average, 1.5);
    WRONG(parts[0].rate, 0);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        WRONG(parts[0].rate, numbers[i]);
        WRONG(parts[0].decay, numbers[i]);
        WRONG(parts[0].average, numbers[i]);
    }
#undef WRONG
    assert_int_equal(mapped(0, 0, false, &error), GAPLESS_OK);
    close_bed();
}

/* ---- settings and sights ------------------------------------------------- */

static void wrong_net(const struct gapless_net *net, const char *word)
{
    struct gapless_master_config config = settings("asgd");
    const struct gapless_worker_config worker_config = {.address = address,
                                                        .net = *net};
    const struct gapless_observer_config observer_config = {.address = address,
                                                            .net = *net};
    struct gapless_error error = {0};
    struct gapless_observer *o = NULL;
    struct gapless_master *m = NULL;
    struct gapless_worker *w = NULL;

    config.net = *net;
    assert_int_equal(gapless_master_open(&config, &m, &error), GAPLESS_INVALID);
    assert_non_null(strstr(error.text, word));
    error.text[0] = '\0';
    assert_int_equal(gapless_worker_open(&worker_config, &w, &error), GAPLESS_INVALID);
    assert_non_null(strstr(error.text, word));
    error.text[0] = '\0';
    assert_int_equal(gapless_observer_open(&observer_config, &o, &error),
                     GAPLESS_INVALID);
    assert_non_null(strstr(error.text, word));
}

static void test_settings(void **state)
{
    static const char token[5000] = "secret";
    const struct gapless_net good = {.token = token,
                                     .token_bytes = 4096,
                                     .channels = 16,
                                     .retries = 6,
                                     .ack_timeout = 20,
                                     .devices = "mlx5_0"};
    struct gapless_master_config config = settings("asgd");

    (void)state;
    wrong_net(&(struct gapless_net){.token = token, .token_bytes = 15}, "15 bytes");
    wrong_net(&(struct gapless_net){.token = token, .token_bytes = 4097}, "4097 bytes");
    wrong_net(&(struct gapless_net){.token_bytes = 16}, "not given");
    wrong_net(&(struct gapless_net){.retries = 7}, "retries");
    wrong_net(&(struct gapless_net){.ack_timeout = 7}, "timeout");
    wrong_net(&(struct gapless_net){.ack_timeout = 21}, "timeout");
    wrong_net(&(struct gapless_net){.channels = 17}, "channels");
    config.net = good;
    open_bed(&config);
    close_bed();
}

/* What an update costs in requests: each range out and back, and the head. */
static void test_traffic(void **state)
{
    struct gapless_master_config config = settings("asgd");
    struct gapless_traffic before, after;
    struct gapless_worker *w;
    char text[256] = "x", survey[512] = "x";
    uint64_t batch;
    int devices;

    (void)state;
    open_bed(&config);
    w = worker();
    update(w, 1);
    assert_int_equal(gapless_worker_pull(w, &batch, NULL), GAPLESS_OK);
    gapless_worker_traffic(w, &before);
    assert_int_equal(gapless_worker_push(w, 0, NULL), GAPLESS_OK);
    assert_int_equal(gapless_worker_pull(w, &batch, NULL), GAPLESS_OK);
    gapless_worker_traffic(w, &after);
    assert_int_equal(after.requests - before.requests, 2 * RANGES + 1);
    /* The last range is so small that its put goes with the request. */
    assert_int_equal(after.completions - before.completions, 2 * RANGES);
    assert_int_equal(after.regions, 2); /* the board and the slot */
    gapless_master_traffic(bed.m, &after);
    assert_true(after.requests >= RANGES);
    gapless_worker_link(w, text, sizeof text);
    assert_string_equal(text, "");
    gapless_master_link(bed.m, text, sizeof text);
    assert_string_equal(text, "");
    gapless_master_link(bed.m, NULL, 0);
    devices = gapless_network_survey(survey, sizeof survey);
    assert_true(devices >= 0 || devices == GAPLESS_MISSING ||
                devices == GAPLESS_SYSTEM);
    assert_non_null(memchr(survey, '\0', sizeof survey));
    gapless_worker_close(w);
    close_bed();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_worker_dies), cmocka_unit_test(test_dropped_and_refused),
        cmocka_unit_test(test_the_end),     cmocka_unit_test(test_layouts),
        cmocka_unit_test(test_parts),       cmocka_unit_test(test_settings),
        cmocka_unit_test(test_traffic),
    };

    pace_alarm(100);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
