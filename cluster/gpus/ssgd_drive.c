/* The driver: one update after another, until the end. */
#include "cluster/gpus/ssgd.h"

#include "engine/run/schedule.h"

#include <math.h>
#include <string.h>

#define LOSSES 100u /* that the running mean is over, as the master's */

/* What the driver should do next, and what it has done. */
static bool ask(struct ssgd *run, bool *ret_snapshot)
{
    bool go;

    (void)pthread_mutex_lock(&run->lock);
    go = !run->stop && run->stats.gradients < run->total;
    *ret_snapshot = run->want;
    (void)pthread_mutex_unlock(&run->lock);
    return go;
}

static void note_snapshot(struct ssgd *run)
{
    (void)pthread_mutex_lock(&run->lock);
    run->want = false;
    run->have = true;
    (void)pthread_mutex_unlock(&run->lock);
}

static void note_update(struct ssgd *run, double rate, double loss, bool applied)
{
    struct gapless_stats *stats = &run->stats;
    double n;

    (void)pthread_mutex_lock(&run->lock);
    stats->gradients += run->size;
    stats->rate = rate;
    if (applied) {
        stats->updates++;
        n = stats->updates < LOSSES ? (double)stats->updates : (double)LOSSES;
        stats->loss += (loss - stats->loss) / n;
        run->last_loss = loss;
    } else {
        stats->dropped += run->size;
    }
    stats->seconds = now_seconds() - run->began;
    (void)pthread_mutex_unlock(&run->lock);
}

static int update(struct ssgd *run, struct gapless_error *error)
{
    uint64_t first = run->stats.gradients; /* written by this thread only */
    double loss = 0.0, rate = schedule_rate(&run->schedule, run->total, first);
    bool applied = false;
    int status;

    if (run->settings.ssgd_scale_rate)
        rate *= (double)run->size;
    status = gpus_step(run->gpus, first, rate, &loss, &applied, error);
    if (status == GAPLESS_OK)
        note_update(run, rate, loss, applied);
    return status;
}

static void begin(struct ssgd *run)
{
    (void)pthread_mutex_lock(&run->lock);
    run->began = now_seconds();
    run->stats.state = GAPLESS_RUN_GOING;
    (void)pthread_mutex_unlock(&run->lock);
}

void *ssgd_drive(void *context)
{
    struct ssgd *run = context;
    struct gapless_error error = {0};
    int status = GAPLESS_OK;
    bool snapshot = false;

    begin(run);
    while (status == GAPLESS_OK && ask(run, &snapshot)) {
        status = update(run, &error);
        if (status == GAPLESS_OK && snapshot) {
            status = gpus_read(run->gpus, run->evaluator.theta, &error);
            note_snapshot(run);
        }
    }
    (void)pthread_mutex_lock(&run->lock);
    if (status != GAPLESS_OK)
        run->failure = error;
    run->stats.state = GAPLESS_RUN_DONE;
    run->ended = true;
    (void)pthread_mutex_unlock(&run->lock);
    return NULL;
}

/* A GPU is a worker: each has handed in as many gradients as there were updates. */
static void look_at_workers(struct ssgd *run, double loss)
{
    uint64_t updates = run->facts.stats.updates;

    for (uint32_t r = 0; r < run->size; r++) {
        struct gapless_worker_stats *worker = &run->worker[r];

        worker->state = 2;
        worker->gradients = updates;
        worker->dropped = run->facts.stats.dropped / run->size;
        worker->lag_count = updates;
        worker->lag_bins[0] = updates < UINT32_MAX ? (uint32_t)updates : UINT32_MAX;
        worker->loss = loss;
    }
}

bool ssgd_look(struct ssgd *run)
{
    double loss;
    bool ended;

    (void)pthread_mutex_lock(&run->lock);
    run->facts.stats = run->stats;
    loss = run->last_loss;
    ended = run->ended;
    (void)pthread_mutex_unlock(&run->lock);
    run->facts.stats.lag.count = run->facts.stats.updates * run->size;
    run->facts.elapsed = now_seconds() - run->start;
    look_at_workers(run, loss);
    return ended;
}
