/* The whole engine on one machine, and what can go wrong: bad hellos, gradients that
 * are not finite, workers that die, hang, come late. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/fault/engine.h"
#include "engine/worker/client.h"
#include "engine/master/master.h"

#include <math.h>
#include <string.h>

static const struct engine_fault no_fault = {0};

/* all == sum of owns to rounding; a slot that nobody uses has own == 0 (E6). */
static void check_sum_of_owns(const struct gapless_master *m)
{
    uint32_t w, i;

    if (!(m->rule->flags & RULE_SUM))
        return;
    for (i = 0; i < ENGINE_COUNT; i++) {
        double sum = 0;

        for (w = 0; w < ENGINE_WORKERS_MAX; w++) {
            sum += (double)m->slot[w].own[i];
            if (m->core->worker[w].state == CORE_FREE)
                assert_true(fabs((double)m->slot[w].own[i]) <= 0);
        }
        assert_true(fabs(sum - (double)m->all[i]) < 1e-3);
    }
}

static void check_learned(const struct gapless_master *m)
{
    const float *theta = gapless_master_params(m);
    double off = 0;
    uint32_t i;

    for (i = 0; i < ENGINE_COUNT; i++) {
        assert_true(isfinite(theta[i]));
        off += fabs((double)theta[i] - 1);
    }
    if (off / ENGINE_COUNT >= 0.2)
        fail_msg("%s is off by %.3f", m->rule->name, off / ENGINE_COUNT);
}

/* Did all workers work, up to the last quarter? A run takes some 30 ms, in which a busy
 * machine may leave a worker out: then its velocity of long ago, in DANA's sum, or its
 * parameters of long ago, in EASGD, hold the others off, as they should. */
static bool was_fair(const struct gapless_master *m, const struct gapless_stats *s,
                     uint32_t workers)
{
    uint64_t last = 0;
    uint32_t w;

    for (w = 0; w < workers; w++)
        if (shared_stats_workers(m->shared_stats)[w].seen_ns > last)
            last = shared_stats_workers(m->shared_stats)[w].seen_ns;
    for (w = 0; w < workers; w++) {
        const struct gapless_worker_stats *it =
            &shared_stats_workers(m->shared_stats)[w];

        if (it->gradients < s->gradients / 10 ||
            (double)(last - it->seen_ns) > 0.25e9 * s->seconds)
            return false;
    }
    return true;
}

/* Returns whether the run was fair; if so, what it learned is checked. */
static bool train_once(const char *rule, uint32_t workers, uint64_t range_elements,
                       bool by_range)
{
    const struct engine_fault fault = {.by_range = by_range};
    struct gapless_master_config config = engine_config(rule, 1500);
    struct gapless_master *m;
    struct gapless_stats s;
    pid_t pid[ENGINE_WORKERS_MAX];
    uint32_t w;
    bool fair;

    config.workers_wait = config.workers_expected = workers;
    config.range_elements = range_elements;
    config.decay = GAPLESS_NO_DECAY;    /* it would hold off parameters of 1 from 1 */
    config.kappa = 10.0 / ENGINE_COUNT; /* the loss is a sum, and no mean, over all */
    m = open_master(&config);
    for (w = 0; w < workers; w++)
        pid[w] = engine_start(&fault);
    run_to_end(m);
    for (w = 0; w < workers; w++)
        assert_int_equal(engine_wait(pid[w]), 0);
    s = stats_of(m);
    assert_int_equal(s.gradients, 1500);
    assert_int_equal(s.dropped + s.partial, 0);
    assert_int_equal(s.workers_lost, 0);
    fair = was_fair(m, &s, workers);
    if (fair)
        check_learned(m);
    gapless_master_close(m);
    return fair;
}

static void train(const char *rule, uint32_t workers, uint64_t range_elements,
                  bool by_range)
{
    for (int tries = 0; tries < PACE_TIMES(4, 1); tries++)
        if (train_once(rule, workers, range_elements, by_range))
            return;
    print_message("%s: in %d runs some worker was left out by the machine: what was "
                  "learned is not checked\n",
                  rule, PACE_TIMES(4, 1));
}

static void test_every_rule_trains(void **state)
{
    struct gapless_rule rule;
    unsigned i;

    (void)state;
    for (i = 0; gapless_rule_at(i, &rule) == GAPLESS_OK; i++) {
        print_message("%s\n", rule.name);
        train(rule.name, 3, 0, false);
    }
    assert_true(i >= 34);
}

static void test_ranges(void **state)
{
    (void)state;
    train("dana-ga", 3, 512, false);
    train("dana-ga", 3, 512, true);
    train("dana-lga", 3, 512, false);
    train("dana-lga", 3, 512, true);
    train("ga-global", 3, 512, false);
    train("ga-global", 3, 512, true);
    train("ssgd", 3, 512, false);
    train("ssgd", 3, 512, true);
    train("easgd", 3, 512, false);
    train("eamsgd", 3, 512, true);
    train("shared-lga-dot", 3, 512, false);
    train("shared-lga-dot", 3, 512, true);
}

/* ---- hello --------------------------------------------------------------- */

static void ignore_note(void *user, uint32_t note)
{
    (void)user;
    (void)note;
}

/* Says a hello of one's own making to a master that runs meanwhile; the answer's status
 * and text. */
static int say_hello(const struct wire_hello *hello, char *ret_text)
{
    struct client client;
    struct gapless_error error = {0};
    int status = client_open(&client,
                             &(struct client_wishes){.address = engine_address,
                                                     .hello = hello,
                                                     .connect_ns = ENGINE_WAIT_NS,
                                                     .on_note = ignore_note},
                             &error);

    (void)snprintf(ret_text, 480, "%s", error.text);
    if (status == GAPLESS_OK)
        client_close(&client);
    return status;
}

/* The child says hello, the master serves for a while; the child's answer comes back by
 * a pipe. */
static int refusal(struct gapless_master *m, const struct wire_hello *hello,
                   char *ret_text)
{
    int fd[2], status = 0;
    pid_t pid;

    assert_int_equal(pipe(fd), 0);
    pid = fork();
    if (pid == 0) {
        status = say_hello(hello, ret_text);
        _exit(write(fd[1], &status, sizeof status) < 0 ||
              write(fd[1], ret_text, 480) < 0);
    }
    run_until(m, waitpid(pid, NULL, WNOHANG) == pid);
    assert_int_equal(read(fd[0], &status, sizeof status), sizeof status);
    assert_int_equal(read(fd[0], ret_text, 480), 480);
    (void)close(fd[0]);
    (void)close(fd[1]);
    return status;
}

static void test_bad_hellos(void **state)
{
    struct gapless_master_config config = engine_config("asgd", 0);
    struct gapless_master *m = open_master(&config);
    const struct wire_hello good = {
        .head = wire_head(WIRE_HELLO), .role = WIRE_WORKER, .version = GAPLESS_RELEASE};
    struct wire_hello hello = good;
    char text[480];

    (void)state;
    assert_int_equal(refusal(m, &hello, text), GAPLESS_OK);
    (void)snprintf(hello.version, sizeof hello.version, "9.9.9");
    assert_int_equal(refusal(m, &hello, text), GAPLESS_VERSION);
    assert_non_null(strstr(text, "9.9.9"));
    assert_non_null(strstr(text, GAPLESS_RELEASE));
    hello = good;
    hello.head.protocol = 77;
    assert_int_equal(refusal(m, &hello, text), GAPLESS_VERSION);
    assert_non_null(strstr(text, "77"));
    hello = good;
    hello.count = 123;
    assert_int_equal(refusal(m, &hello, text), GAPLESS_MODEL);
    assert_non_null(strstr(text, "123"));
    assert_non_null(strstr(text, "4099"));
    hello = good;
    hello.count = ENGINE_COUNT;
    hello.model_hash = 1;
    assert_int_equal(refusal(m, &hello, text), GAPLESS_MODEL);
    hello = good;
    hello.role = 9;
    assert_int_equal(refusal(m, &hello, text), GAPLESS_PROTOCOL);
    hello = good;
    hello.head.magic = 0;
    assert_int_equal(refusal(m, &hello, text), GAPLESS_PROTOCOL);
    gapless_master_close(m);
}

static void test_capacity(void **state)
{
    struct gapless_master_config config = engine_config("asgd", 300);
    const struct wire_hello hello = {
        .head = wire_head(WIRE_HELLO), .role = WIRE_WORKER, .version = GAPLESS_RELEASE};
    const struct engine_fault slow = {.sleep_us = 10000};
    struct gapless_master *m;
    char text[480];
    pid_t pid;

    (void)state;
    config.workers_max = 1;
    m = open_master(&config);
    pid = engine_start(&slow);
    run_until(m, stats_of(m).gradients > 0);
    assert_int_equal(refusal(m, &hello, text), GAPLESS_CAPACITY);
    assert_non_null(strstr(text, "1 workers"));
    gapless_master_stop(m);
    run_to_end(m);
    assert_int_equal(engine_wait(pid), 0);
    gapless_master_close(m);
}

/* ---- gradients that are not finite --------------------------------------- */

static void drops_nan(const char *rule)
{
    struct gapless_master_config config = engine_config(rule, 1000);
    const struct engine_fault fault = {.nan_every = 10};
    struct gapless_master *m;
    pid_t a, b;

    config.workers_wait = 2; /* one that came after the end would find nobody */
    m = open_master(&config);
    a = engine_start(&fault);
    b = engine_start(&fault);
    run_to_end(m);
    assert_int_equal(engine_wait(a), 0);
    assert_int_equal(engine_wait(b), 0);
    assert_int_equal(stats_of(m).gradients, 1000);
    assert_int_equal(stats_of(m).dropped, 100);
    check_learned(m);
    gapless_master_close(m);
}

static void test_worker_finds_nan(void **state)
{
    (void)state;
    drops_nan("dana-ga");
    drops_nan("ssgd");
    drops_nan("ga-global");
    drops_nan("dana-slim");
    drops_nan("easgd");
    drops_nan("eamsgd");
}

static void count_note(void *user, uint32_t note)
{
    *(int *)user += NOTE_WHAT(note) == NOTE_READY || NOTE_WHAT(note) == NOTE_OVER;
}

/* A worker that does not look at its gradient: speaks the protocol by hand. */
static int careless_worker(uint32_t nan_every)
{
    struct wire_hello hello = {
        .head = wire_head(WIRE_HELLO), .role = WIRE_WORKER, .version = GAPLESS_RELEASE};
    struct tp_region slot;
    struct client c;
    uint32_t r, n = 0;
    int ready = 0;
    float *grad;

    if (client_open(&c,
                    &(struct client_wishes){.address = engine_address,
                                            .hello = &hello,
                                            .on_note = count_note,
                                            .user = &ready},
                    NULL) != GAPLESS_OK ||
        client_window(&c, WIRE_SLOT, 0, &slot, NULL) != GAPLESS_OK)
        return 1;
    grad = (float *)(void *)((char *)slot.base + c.welcome.grad_at);
    while (client_poll(&c, 100000000, NULL) == GAPLESS_OK) {
        if (ready == 0)
            continue;
        ready = 0;
        if (((const struct slot_head *)slot.base)->stop)
            break;
        for (r = 0; r < ENGINE_COUNT; r++)
            grad[r] = 0.01f;
        if (++n % nan_every == 0) /* anywhere; every second one in the small tensor */
            grad[n / nan_every % 2 != 0 ? n * 1367u % ENGINE_COUNT
                                        : ENGINE_COUNT - 1 - n / nan_every % 3] =
                n % 3 == 0 ? (float)NAN : (float)INFINITY;
        (void)c.transport->put(c.tp, c.peer, &slot, 0, 0,
                               NOTE(NOTE_PUSH, NOTE_ALL_RANGES));
    }
    client_close(&c);
    return 0;
}

static void master_finds_nan(const char *rule)
{
    struct gapless_master_config config = engine_config(rule, 500);
    struct gapless_master *m = open_master(&config);
    pid_t pid = fork();
    uint32_t i;

    if (pid == 0)
        _exit(careless_worker(5));
    run_to_end(m);
    gapless_master_run(m, 10000000, NULL);
    assert_int_equal(stats_of(m).gradients, 500);
    assert_int_equal(stats_of(m).dropped, 100);
    for (i = 0; i < ENGINE_COUNT; i++)
        assert_true(isfinite(gapless_master_params(m)[i]));
    gapless_master_close(m);
    assert_int_equal(engine_wait(pid), 0);
}

static void test_master_finds_nan(void **state)
{
    (void)state;
    master_finds_nan("asgd");
    master_finds_nan("dana-lga");
    master_finds_nan("dana-lga-adamw");
    master_finds_nan("ssgd");
}

/* With two workers gradients have a lag, and the gate of the whole gradient is measured.
 * `average`: of the small tensor, which then has no part in the gate. */
static void a_gate_of_all_finds_nan(const char *rule, enum gapless_gate gate,
                                    double average)
{
    struct gapless_tensor tensors[] = {engine_tensors[0], engine_tensors[1]};
    struct gapless_master_config config = engine_config(rule, 500);
    struct gapless_stats stats;
    struct gapless_master *m;
    pid_t pid[2];
    uint32_t i;

    tensors[1].average = average;
    config.model.tensors = tensors;
    config.gate = gate;
    config.workers_wait = 2;
    m = open_master(&config);
    for (i = 0; i < 2; i++)
        if ((pid[i] = fork()) == 0)
            _exit(careless_worker(5));
    run_to_end(m);
    gapless_master_run(m, 10000000, NULL);
    stats = stats_of(m);
    assert_int_equal(stats.gradients, 500);
    assert_in_range(stats.dropped, 98, 102); /* each counts its own to five */
    for (i = 0; i < ENGINE_COUNT; i++)
        assert_true(isfinite(gapless_master_params(m)[i]));
    gapless_master_close(m);
    for (i = 0; i < 2; i++)
        assert_int_equal(engine_wait(pid[i]), 0);
}

static void test_a_gate_of_all_finds_nan(void **state)
{
    (void)state;
    a_gate_of_all_finds_nan("dana-lga-adamw", GAPLESS_GATE_WHOLE, 0);
    a_gate_of_all_finds_nan("dana-lga-adamw", GAPLESS_GATE_WHOLE, 0.1);
    a_gate_of_all_finds_nan("lga-adamw", GAPLESS_GATE_WHOLE, 0);
    a_gate_of_all_finds_nan("shared-lga-adamw", GAPLESS_GATE_WHOLE, 0);
    a_gate_of_all_finds_nan("muon-lga", GAPLESS_GATE_WHOLE, 0);
    a_gate_of_all_finds_nan("dana-lga-adamw", GAPLESS_GATE_TENSOR, 0);
    a_gate_of_all_finds_nan("dana-ga-global", GAPLESS_GATE_AUTO, 0);
}

/* ---- workers that come, go, die and hang --------------------------------- */

static void kill_twenty(const char *rule, uint64_t range_elements, bool by_range)
{
    struct gapless_master_config config = engine_config(rule, 12000);
    const struct engine_fault steady = {.sleep_us = 200, .by_range = by_range};
    struct gapless_master *m;
    pid_t pid[4];
    uint64_t random = 42;
    int i, w;

    config.range_elements = range_elements;
    m = open_master(&config);
    for (w = 0; w < 4; w++)
        pid[w] = engine_start(&steady);
    for (i = 0; i < 20; i++) {
        w = i % 3 + 1; /* number 0 lives */
        (void)gapless_master_run(
            m, 1000000 + (int64_t)(engine_random(&random) % 20000000), NULL);
        assert_int_equal(kill(pid[w], SIGKILL), 0);
        (void)waitpid(pid[w], NULL, 0);
        (void)gapless_master_run(m, 20000000, NULL);
        check_sum_of_owns(m);
        pid[w] = engine_start(&steady);
    }
    run_until(m, stats_of(m).workers_active == 4);
    run_to_end(m);
    for (w = 0; w < 4; w++)
        assert_int_equal(engine_wait(pid[w]), 0);
    assert_int_equal(stats_of(m).gradients, 12000);
    assert_true(stats_of(m).workers_lost >= 1 && stats_of(m).workers_lost <= 20);
    check_learned(m);
    check_sum_of_owns(m);
    gapless_master_close(m);
}

static void test_kill_at_twenty_instants(void **state)
{
    (void)state;
    kill_twenty("dana-ga", 0, false);
    kill_twenty("dana-zero", 512, true);
    kill_twenty("ssgd", 0, false);
    kill_twenty("eamsgd", 512, true);
    kill_twenty("shared-lga-dot", 512, true);
}

static void test_hung_worker_is_dropped(void **state)
{
    struct gapless_master_config config = engine_config("dana-ga", 500);
    const struct engine_fault hang = {.hang_at = 1};
    struct gapless_master *m;
    pid_t good, hung;

    (void)state;
    config.worker_timeout_ns = pace_ns(100000000); /* the good one is never so slow */
    m = open_master(&config);
    hung = engine_start(&hang);
    run_until(m, stats_of(m).gradients > 0);
    good = engine_start(&no_fault);
    run_to_end(m);
    assert_int_equal(engine_wait(good), 0);
    assert_int_equal(stats_of(m).gradients, 500);
    assert_int_equal(stats_of(m).workers_lost, 1);
    (void)kill(hung, SIGKILL);
    (void)waitpid(hung, NULL, 0);
    check_learned(m);
    gapless_master_close(m);
}

/* One that was dropped, and goes on writing into the gradient that it had: not into that of
 * the worker who has its number now. */
static void test_dropped_worker_that_lives(void **state)
{
    struct gapless_master_config config = engine_config("dana-ga", 500);
    const struct engine_fault haunt = {.haunt_at = 1};
    struct gapless_master *m;
    pid_t good, dropped;

    (void)state;
    config.workers_max = 1;
    config.worker_timeout_ns = pace_ns(100000000);
    m = open_master(&config);
    dropped = engine_start(&haunt);
    run_until(m, stats_of(m).gradients > 0);
    run_until(m, stats_of(m).workers_lost == 1);
    good = engine_start(&no_fault);
    run_to_end(m);
    assert_int_equal(engine_wait(good), 0);
    assert_int_equal(stats_of(m).gradients, 500);
    assert_int_equal(stats_of(m).dropped, 0);
    assert_int_equal(kill(dropped, 0), 0); /* it did live */
    (void)kill(dropped, SIGKILL);
    (void)waitpid(dropped, NULL, 0);
    check_learned(m);
    gapless_master_close(m);
}

static void test_late_joiners(void **state)
{
    struct gapless_master_config config = engine_config("dana-ga", 0);
    const struct engine_fault slow = {.sleep_us = 300};
    struct gapless_worker_stats late = {0};
    struct gapless_master *m = open_master(&config);
    pid_t a, b, c;

    (void)state;
    a = engine_start(&slow);
    run_until(m, stats_of(m).gradients > 200);
    b = engine_start(&slow);
    run_until(m, stats_of(m).workers_joined == 2 && stats_of(m).gradients > 600);
    c = engine_start(&slow);
    run_until(m, gapless_master_worker_stats(m, 2, &late) == GAPLESS_OK &&
                     late.gradients > 300 && stats_of(m).gradients > 2000);
    gapless_master_stop(m);
    run_to_end(m);
    assert_int_equal(engine_wait(a) + engine_wait(b) + engine_wait(c), 0);
    assert_int_equal(stats_of(m).workers_joined, 3);
    assert_int_equal(gapless_master_worker_stats(m, 2, &late), GAPLESS_OK);
    assert_true(late.gradients > 300 && late.gradients < stats_of(m).gradients);
    assert_int_equal(gapless_master_worker_stats(m, ENGINE_WORKERS_MAX, &late),
                     GAPLESS_MISSING);
    check_learned(m);
    gapless_master_close(m);
}

static void test_dead_master_is_noticed(void **state)
{
    struct gapless_master_config config = engine_config("asgd", 0);
    struct gapless_master *m = open_master(&config);
    pid_t pid = engine_start(&no_fault);

    (void)state;
    run_until(m, stats_of(m).gradients > 0);
    gapless_master_close(m);
    assert_int_equal(engine_wait(pid),
                     3); /* says why and ends; engine_wait would hang if not */
}

/* ---- bad configurations -------------------------------------------------- */

static void refused(struct gapless_master_config config, int status, const char *word)
{
    struct gapless_error error = {0};
    struct gapless_master *m = NULL;

    assert_int_equal(gapless_master_open(&config, &m, &error), status);
    assert_null(m);
    if (strstr(error.text, word) == NULL)
        fail_msg("'%s' is not in: %s", word, error.text);
}

static void test_bad_configurations(void **state)
{
    const struct gapless_master_config good = engine_config("asgd", 10);
    struct gapless_master_config c = good;
    static float bad[ENGINE_COUNT];

    (void)state;
    c.rule = "sgd";
    refused(c, GAPLESS_MISSING, "dana-ga");
    c = good, c.address = "udp:x";
    refused(c, GAPLESS_INVALID, "shm");
    c = good, c.address = NULL;
    refused(c, GAPLESS_INVALID, "shm:demo");
    c = good, c.momentum = 1;
    refused(c, GAPLESS_INVALID, "momentum");
    c = good, c.momentum = NAN;
    refused(c, GAPLESS_INVALID, "momentum");
    c = good, c.schedule.rate = -1;
    refused(c, GAPLESS_INVALID, "rate");
    c = good, c.kappa = -1;
    refused(c, GAPLESS_INVALID, "kappa");
    c = good, c.kappa = INFINITY;
    refused(c, GAPLESS_INVALID, "kappa");
    c = good, c.beta2 = 1;
    refused(c, GAPLESS_INVALID, "beta2 is 1; it must be above 0 and below 1");
    c = good, c.beta2 = -0.5;
    refused(c, GAPLESS_INVALID, "beta2");
    c = good, c.beta2 = NAN;
    refused(c, GAPLESS_INVALID, "beta2");
    c = good, c.epsilon = -1e-8;
    refused(c, GAPLESS_INVALID, "epsilon");
    c = good, c.epsilon = 1e-40;
    refused(c, GAPLESS_INVALID, "at least 1e-30");
    c = good, c.epsilon = NAN;
    refused(c, GAPLESS_INVALID, "epsilon");
    c = good, c.decay = -0.1;
    refused(c, GAPLESS_INVALID, "GAPLESS_NO_DECAY none");
    c = good, c.decay = INFINITY;
    refused(c, GAPLESS_INVALID, "decay");
    c = good, c.rule = "ssgd", c.drop_lag = 8;
    refused(c, GAPLESS_INVALID, "all of a round are equally late");
    c = good, c.rule = "easgd", c.drop_lag = 8;
    refused(c, GAPLESS_INVALID, "drop_lag");
    c = good, c.rule = "dana-lga", c.gate = GAPLESS_GATE_WHOLE;
    refused(c, GAPLESS_INVALID, "leave the gate at tensor");
    c = good, c.gate = (enum gapless_gate)3;
    refused(c, GAPLESS_INVALID, "gate");
    c = good, c.rule = "dana-lga-adamw", c.weight_decay = 0.01;
    refused(c, GAPLESS_INVALID, "set decay (--decay)");
    c = good, c.rest_scale = -1;
    refused(c, GAPLESS_INVALID, "rest_scale");
    c = good, c.matrix_threads = 257;
    refused(c, GAPLESS_INVALID, "at most 256");
    c = good, c.rule = "dana-lga-muon", c.model.tensors = engine_tensors + 1,
    c.model.tensors_count = 1;
    refused(c, GAPLESS_INVALID, "take dana-lga-adamw");
    c.rule = "muon-lga";
    refused(c, GAPLESS_INVALID, "take lga-adamw");
    c = good, c.workers_max = 5000;
    refused(c, GAPLESS_INVALID, "4096");
    c = good, c.workers_expected = 100;
    refused(c, GAPLESS_INVALID, "capacity");
    c = good, c.model.tensors_count = 0;
    refused(c, GAPLESS_INVALID, "tensors");
    bad[7] = (float)INFINITY;
    c = good, c.initial = bad;
    refused(c, GAPLESS_NOT_FINITE, "7");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_rule_trains),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_bad_hellos),
        cmocka_unit_test(test_capacity),
        cmocka_unit_test(test_worker_finds_nan),
        cmocka_unit_test(test_master_finds_nan),
        cmocka_unit_test(test_a_gate_of_all_finds_nan),
        cmocka_unit_test(test_kill_at_twenty_instants),
        cmocka_unit_test(test_hung_worker_is_dropped),
        cmocka_unit_test(test_dropped_worker_that_lives),
        cmocka_unit_test(test_late_joiners),
        cmocka_unit_test(test_dead_master_is_noticed),
        cmocka_unit_test(test_bad_configurations),
    };

    pace_alarm(240);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
