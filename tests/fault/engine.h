/* A small model, a master in this process and workers in child processes: for tests
 * that run the whole engine. */
#ifndef GAPLESS_TESTS_ENGINE_H
#define GAPLESS_TESTS_ENGINE_H

#include <gapless/gapless.h>

#include "tests/pace.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ENGINE_COUNT 4099u /* no multiple of anything */
#define ENGINE_WORKERS_MAX 8u
/* A worker waits for its master so long: longer than any machine lets it wait. */
#define ENGINE_WAIT_NS INT64_C(120000000000)
#define ENGINE_SECOND_NS INT64_C(1000000000)

static const struct gapless_tensor engine_tensors[] = {
    {.name = "w", .dims = 2, .dim = {2048, 2}}, {.name = "b", .dims = 1, .dim = {3}}};

static char engine_address[64];

static inline struct gapless_master_config engine_config(const char *rule,
                                                         uint64_t gradients)
{
    static int runs;

    (void)snprintf(engine_address, sizeof engine_address, "shm:test-%ld-%d",
                   (long)getpid(), runs++);
    return (struct gapless_master_config){
        .address = engine_address,
        .model = {engine_tensors, 2},
        .rule = rule,
        .schedule = {.rate = 0.01},
        .gradients = gradients,
        .workers_max = ENGINE_WORKERS_MAX,
        .job = "a job",
    };
}

static inline uint64_t engine_random(uint64_t *state)
{
    *state = *state * 6364136223846793005ull + 1442695040888963407ull;
    return *state >> 33;
}

static inline void engine_sleep(long microseconds)
{
    struct timespec t = {microseconds / 1000000, microseconds % 1000000 * 1000};

    (void)nanosleep(&t, NULL);
}

/* The gradient of 0.5 |theta - 1|^2 plus noise of the batch's own. */
static inline double engine_gradient(const float *params, uint64_t batch, float *grad)
{
    uint64_t random = batch * 2654435761u + 12345;
    double loss = 0;
    uint32_t i;

    for (i = 0; i < ENGINE_COUNT; i++) {
        float noise = 0.1f * ((float)(engine_random(&random) % 2001) / 1000.0f - 1.0f);

        grad[i] = params[i] - 1.0f + noise;
        loss += 0.5 * (double)((params[i] - 1.0f) * (params[i] - 1.0f));
    }
    return loss / ENGINE_COUNT;
}

/* What a worker does differently; 0: nothing. */
struct engine_fault {
    uint64_t
        nan_every; /* after each stretch of this many batches, a gradient that is not finite */
    long sleep_us;     /* per batch */
    bool by_range;     /* pushes range by range */
    bool pieces;       /* hands its gradient in by pieces, in any order, one left out */
    bool ahead;        /* a next batch is kept for it */
    int64_t spin_ns;   /* polls so long before it sleeps */
    bool rates;        /* sets a rate for each batch */
    uint64_t hang_at;  /* never pushes this batch (and sleeps for long) */
    uint64_t haunt_at; /* the same, and writes into its gradient all the time */
};

/* Writes what would ruin any model, for half a minute. */
static inline void engine_haunt(struct gapless_worker *worker)
{
    for (int i = 0; i < 30000; i++) {
        for (uint32_t k = 0; k < ENGINE_COUNT; k++)
            gapless_worker_grad(worker)[k] = 1e20f;
        engine_sleep(1000);
    }
}

/* Six of seven pieces of the gradient, each batch in another order. */
static inline int engine_pieces(struct gapless_worker *worker, uint64_t batch,
                                struct gapless_error *error)
{
    uint64_t random = batch * 747796405u + 1;
    uint32_t order[7] = {0, 1, 2, 3, 4, 5, 6}, i;
    int status = GAPLESS_OK;

    for (i = 6; i > 0; i--) {
        uint32_t other = (uint32_t)(engine_random(&random) % (i + 1)), kept = order[i];

        order[i] = order[other];
        order[other] = kept;
    }
    for (i = 0; i < 6 && status == GAPLESS_OK; i++) {
        uint64_t from = (uint64_t)ENGINE_COUNT * order[i] / 7;
        uint64_t end = (uint64_t)ENGINE_COUNT * (order[i] + 1) / 7;

        status = gapless_worker_push_range(worker, from, end - from, error);
    }
    return status;
}

/* A worker until the run is over. Returns its exit code: 0 if it ended in order. */
static inline int engine_work(const struct engine_fault *fault)
{
    struct gapless_worker_config config = {.address = engine_address,
                                           .model = {engine_tensors, 2},
                                           .spin_ns = fault->spin_ns,
                                           .by_range = fault->by_range,
                                           .ahead = fault->ahead,
                                           .wait_ns = ENGINE_WAIT_NS};
    struct gapless_worker *worker;
    struct gapless_error error = {0};
    uint64_t batch;
    int status;
    double loss;

    status = gapless_worker_open(&config, &worker, &error);
    if (status == GAPLESS_STOPPED)
        return 0; /* came when all was done */
    if (status != GAPLESS_OK) {
        (void)fprintf(stderr, "worker: %s\n", error.text);
        return 2;
    }
    while ((status = gapless_worker_pull(worker, &batch, &error)) == GAPLESS_OK) {
        loss = engine_gradient(gapless_worker_params(worker), batch,
                               gapless_worker_grad(worker));
        if (fault->nan_every > 0 && batch % fault->nan_every == fault->nan_every - 1)
            gapless_worker_grad(worker)[batch % ENGINE_COUNT] =
                batch % 2 ? 1e38f * 10 : 0.0f / 0.0f;
        if (fault->hang_at > 0 && batch >= fault->hang_at)
            engine_sleep(30000000);
        if (fault->haunt_at > 0 && batch >= fault->haunt_at)
            engine_haunt(worker);
        if (fault->rates &&
            gapless_worker_set_rate(worker, 0.25 * (double)(batch % 6)) != GAPLESS_OK)
            return 4;
        if (fault->sleep_us > 0)
            engine_sleep(fault->sleep_us);
        if (fault->pieces && engine_pieces(worker, batch, &error) != GAPLESS_OK) {
            (void)fprintf(stderr, "worker: %s\n", error.text);
            return 5;
        }
        status = gapless_worker_push(worker, loss, &error);
        if (status != GAPLESS_OK && status != GAPLESS_NOT_FINITE)
            break;
    }
    gapless_worker_close(worker);
    if (status == GAPLESS_STOPPED)
        return 0;
    (void)fprintf(stderr, "worker: %s\n", error.text);
    return 3;
}

static inline pid_t engine_start(const struct engine_fault *fault)
{
    pid_t pid;

    (void)fflush(NULL);
    pid = fork();
    if (pid == 0)
        _exit(engine_work(fault));
    return pid;
}

/* Exit code of a child, -1 if it was killed. */
static inline int engine_wait(pid_t pid)
{
    int status = 0;

    (void)waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* ---- the master, in a test of cmocka ------------------------------------- */

static inline struct gapless_master *
open_master(const struct gapless_master_config *config)
{
    struct gapless_error error = {0};
    struct gapless_master *m = NULL;

    if (gapless_master_open(config, &m, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    return m;
}

static inline struct gapless_stats stats_of(const struct gapless_master *m)
{
    struct gapless_stats s;

    gapless_master_stats(m, &s);
    return s;
}

/* A run may take as long as it needs. It has failed when nothing has happened for
 * a minute of an idle machine. */
static inline void run_to_end(struct gapless_master *m)
{
    struct pace_bound bound = pace_begin(60 * ENGINE_SECOND_NS);
    struct gapless_error error = {0};
    uint64_t seen = 0;

    while (gapless_master_run(m, ENGINE_SECOND_NS / 10, &error) != GAPLESS_STOPPED) {
        struct gapless_stats s = stats_of(m);
        uint64_t now = s.gradients + s.dropped + s.workers_joined + s.workers_lost;

        if (now != seen)
            bound = pace_begin(60 * ENGINE_SECOND_NS);
        else if (pace_over(&bound))
            fail_msg("the run does not go on: %s", error.text);
        seen = now;
    }
}

/* Runs the master until a condition holds, for a minute of an idle machine at most. */
#define run_until(m, condition)                                                        \
    do {                                                                               \
        struct pace_bound bound_ = pace_begin(60 * ENGINE_SECOND_NS);                  \
                                                                                       \
        while (!(condition)) {                                                         \
            if (pace_over(&bound_))                                                    \
                fail_msg("in vain: %s", #condition);                                   \
            (void)gapless_master_run((m), ENGINE_SECOND_NS / 100, NULL);               \
        }                                                                              \
    } while (0)

#endif
