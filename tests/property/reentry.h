/* The master drains one queue in one loop. Workers that have no room for their notes,
 * one after another or all at once, make it neither call itself nor hold more events
 * than there is room for; and after any order of joins, gradients, ends and refused
 * notes everything that it keeps agrees.
 *
 * How deep the stack is when a note is sent tells whether the master stepped the core
 * inside of a step: the transport's notify is replaced by one that looks.
 *
 * For passes on the processor (tests/property/test_reentry.c) and on GPUs
 * (tests/gpu/test_reentry.c). After cmocka.h. */
#ifndef GAPLESS_TESTS_REENTRY_H
#define GAPLESS_TESTS_REENTRY_H

#include "tests/fault/remote.h"

#define MANY 60u
#define SOME 6u
#define STEPS 90

static const char *probe_device; /* NULL: passes run on this processor */

static struct {
    struct transport table; /* the real one, but for notify */
    int (*notify)(struct tp *tp, tp_peer peer, uint32_t note);
    unsigned refuse; /* notes of a hundred */
    char *base;      /* of the stack, where the master was called */
    ptrdiff_t depth; /* the deepest since */
} probe;

static int probe_notify(struct tp *tp, tp_peer peer, uint32_t note)
{
    char *here = __builtin_frame_address(0);

    if (probe.base != NULL && probe.base - here > probe.depth)
        probe.depth = probe.base - here;
    return draw(100) < probe.refuse ? GAPLESS_AGAIN : probe.notify(tp, peer, note);
}

static __attribute__((noinline)) void run_for(int64_t ns)
{
    probe.base = __builtin_frame_address(0);
    (void)gapless_master_run(bed.m, ns, NULL);
    probe.base = NULL;
}

static void run_once(void)
{
    run_for(0);
}

static void do_nothing(void)
{
}

static void open_probed(struct gapless_master_config *config, uint64_t seed)
{
    config->device = probe_device;
    config->allow_staging = true;
    open_bed(config);
    bed.random = seed;
    bed.also = run_once;
    probe.table = *bed.m->transport;
    probe.notify = probe.table.notify;
    probe.table.notify = probe_notify;
    probe.refuse = 0;
    bed.m->transport = &probe.table;
}

/* ---- what the master keeps agrees ---------------------------------------- */

static double sum_of_owns(uint32_t element)
{
    double sum = 0;

    for (uint32_t w = 0; w < bed.m->core->config.workers_max; w++)
        if (bed.m->core->worker[w].state != CORE_FREE)
            sum += (double)bed.m->slot[w].own[element];
    return sum;
}

static void vectors_agree(void)
{
    const float *theta = gapless_master_params(bed.m);

    for (uint32_t i = 0; i < COUNT; i += 97) {
        assert_true(isfinite(theta[i]));
        if ((bed.m->rule->flags & RULE_SUM) && bed.m->slot[0].own != NULL &&
            probe_device == NULL)
            assert_true(fabs(sum_of_owns(i) - (double)bed.m->all[i]) < 1e-3);
    }
}

static void all_agrees(void)
{
    const struct master_core *core = bed.m->core;
    uint32_t active = 0, computing = 0, pushed = 0;

    assert_false(bed.m->queue.draining);
    assert_int_equal(bed.m->queue.count, 0);
    assert_true(bed.m->queue.most <= core->config.workers_max + 1);
    for (uint32_t w = 0; w < core->config.workers_max; w++) {
        const struct core_worker *one = &core->worker[w];
        tp_peer peer = bed.m->slot[w].peer;

        assert_int_equal(one->state == CORE_FREE, peer == MASTER_NO_PEER);
        if (peer != MASTER_NO_PEER) {
            assert_int_equal(bed.m->peer[peer].role, ROLE_WORKER);
            assert_int_equal(bed.m->peer[peer].worker, w);
        }
        active += one->state != CORE_FREE;
        computing += one->state == CORE_COMPUTING;
        pushed += one->state == CORE_PUSHED;
        for (uint32_t v = 0; one->state == CORE_COMPUTING && v < w; v++)
            assert_false(core->worker[v].state == CORE_COMPUTING &&
                         core->worker[v].ticket == one->ticket);
    }
    assert_int_equal(core->active, active);
    assert_int_equal(core->computing, computing);
    assert_int_equal(core->pushed_workers, pushed);
    vectors_agree();
}

/* ---- a gradient ---------------------------------------------------------- */

/* The note that follows a gradient is sent from where the note that follows a hello is:
 * that the gradient is applied is an event like another. */
static void gradient_is_no_deeper(const char *rule)
{
    struct gapless_master_config config = settings(rule);
    bool round = (rules_find(rule)->flags & RULE_ROUND) != 0;
    struct gapless_worker *first, *second = NULL;
    ptrdiff_t hello, gradient;

    open_probed(&config, 1);
    probe.depth = 0;
    first = worker(); /* starts the run: all who are there are notified */
    hello = probe.depth;
    if (!round) {
        probe.depth = 0;
        second = worker();
        hello = probe.depth;
    }
    probe.depth = 0;
    update(first, 0.5f);
    run_for(1000000);
    gradient = probe.depth;
    assert_true(hello > 0);
    assert_int_equal(gradient, hello);
    assert_int_equal(bed.m->core->updates, 1);
    worker_abandon(second);
    worker_abandon(first);
    close_bed();
}

static void test_gradient(void **state)
{
    (void)state;
    gradient_is_no_deeper("dana-ga");
    gradient_is_no_deeper("ga-global");
    gradient_is_no_deeper("ssgd");
}

/* ---- one after another, and all at once ---------------------------------- */

/* One batch, which goes from worker to worker: none has room for the note of it. */
static ptrdiff_t cascade(uint32_t workers)
{
    struct gapless_master_config config = settings("dana-ga");
    struct gapless_worker *w[MANY];

    config.workers_max = workers;
    config.gradients = 1;
    open_probed(&config, 1);
    for (uint32_t i = 0; i < workers; i++)
        w[i] = worker();
    assert_int_equal(bed.m->core->active, workers);
    assert_int_equal(bed.m->core->computing, 1);
    bed.also = do_nothing;
    gapless_worker_close(w[0]);
    probe.refuse = 100;
    probe.depth = 0;
    run_for(1000000);
    assert_int_equal(bed.m->core->active, 0);
    assert_int_equal(bed.m->core->lost, workers - 1);
    assert_int_equal(bed.m->core->returned, 1);
    all_agrees();
    for (uint32_t i = 1; i < workers; i++)
        worker_abandon(w[i]);
    close_bed();
    return probe.depth;
}

static void test_one_after_another(void **state)
{
    ptrdiff_t few, many;

    (void)state;
    few = cascade(3);
    many = cascade(MANY);
    assert_true(few > 0);
    assert_int_equal(many, few);
}

/* The first batches of a run: every worker is notified by one action, and goes. */
static void test_all_at_once(void **state)
{
    struct gapless_master_config config = settings("asgd");
    struct gapless_worker *w[MANY];
    struct gapless_error error;

    (void)state;
    config.workers_max = config.workers_wait = MANY;
    open_probed(&config, 1);
    for (uint32_t i = 0; i + 1 < MANY; i++)
        w[i] = worker();
    probe.refuse = 100;
    if (try_worker(&w[MANY - 1], &error) != GAPLESS_OK)
        w[MANY - 1] = NULL;
    run_once();
    assert_int_equal(bed.m->core->active, 0);
    assert_int_equal(bed.m->core->lost, MANY);
    assert_int_equal(bed.m->queue.most, MANY);
    assert_int_equal(bed.m->queue.room, MANY + 2); /* that it diverged, and APPLIED */
    all_agrees();
    for (uint32_t i = 0; i < MANY; i++)
        worker_abandon(w[i]);
    close_bed();
}

/* ---- any order ----------------------------------------------------------- */

/* False: the worker is of no more use. */
static bool compute(struct gapless_worker *w)
{
    struct gapless_error error = {0};
    uint64_t batch;
    int status = gapless_worker_pull(w, &batch, &error);

    if (status != GAPLESS_OK)
        return false;
    for (uint32_t i = 0; i < COUNT; i++)
        gapless_worker_grad(w)[i] = 0.001f * (float)draw(1000) - 0.5f;
    if (draw(20) == 0)
        gapless_worker_grad(w)[draw(COUNT)] = NAN;
    status = gapless_worker_push(w, 0.5, &error);
    return status == GAPLESS_OK || status == GAPLESS_NOT_FINITE;
}

static void something_happens(struct gapless_worker **w)
{
    struct gapless_error error;
    uint64_t what = draw(100);

    if (*w == NULL) {
        if (try_worker(w, &error) != GAPLESS_OK)
            *w = NULL;
    } else if (what < 85) {
        if (compute(*w))
            return;
        worker_abandon(*w);
        *w = NULL;
    } else if (what < 91) {
        gapless_worker_close(*w);
        *w = NULL;
    } else if (what < 96) {
        worker_abandon(*w);
        *w = NULL;
    } else { /* what was not asked for */
        (void)(*w)->client.transport->notify((*w)->client.tp, 0,
                                             NOTE(draw(16), (uint32_t)draw(6)));
    }
}

static void any_order(const char *rule, uint64_t seed, bool refusing)
{
    struct gapless_master_config config = settings(rule);
    struct gapless_worker *w[SOME] = {NULL};

    bed.random = seed;
    config.workers_max = SOME - 1; /* one of them is refused */
    config.workers_wait = (uint32_t)draw(4);
    config.gradients = 4 + draw(60);
    open_probed(&config, bed.random);
    for (int i = 0; i < STEPS; i++) {
        if (draw(10) == 0)
            probe.refuse = refusing ? (unsigned)draw(3) * 30 : 0;
        if (draw(STEPS) == 0)
            gapless_master_stop(bed.m);
        something_happens(&w[draw(SOME)]);
        run_once();
        all_agrees();
    }
    probe.refuse = 0;
    for (uint32_t i = 0; i < SOME; i++)
        worker_abandon(w[i]);
    run_for(1000000);
    assert_int_equal(bed.m->core->active, 0);
    all_agrees();
    close_bed();
}

/* Returns the deepest stack of a note. */
static ptrdiff_t any_orders(uint64_t seeds, bool refusing)
{
    static const char *const names[] = {
        "dana-ga", "asgd", "ssgd", "dana-shared", "easgd", "ga-global", "dana-slim"};

    probe.depth = 0;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        for (uint64_t seed = 1; seed <= seeds; seed++)
            any_order(names[i], seed, refusing);
    return probe.depth;
}

#endif
