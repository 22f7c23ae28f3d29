/* The driver: one update after another, until the end. */
#include "cluster/gpus/ssgd.h"
#include "cluster/task/model_file.h"

#include "engine/run/schedule.h"
#include "cluster/program/program.h"

#include <math.h>
#include <string.h>
#include <stdio.h>

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

/* ---- the end ------------------------------------------------------------- */

/* The final parameters, from the GPUs that still have them. */
static bool fetch(struct ssgd *run)
{
    size_t count = run->task.model.parameters;
    double sum = 0.0;

    run->parameters_rms = (double)NAN;
    if (run->failure.status != GAPLESS_OK)
        return false;
    if (gpus_read(run->gpus, run->evaluator.theta, &run->failure) != GAPLESS_OK)
        return false;
    for (size_t i = 0; i < count; i++)
        sum += (double)run->evaluator.theta[i] * (double)run->evaluator.theta[i];
    run->parameters_rms = sqrt(sum / (double)count);
    return true;
}

static void measure(struct ssgd *run, bool fetched)
{
    struct evaluator *evaluator = &run->evaluator;

    evaluator->accuracy = evaluator->mean_loss = (double)NAN;
    if (!fetched)
        return;
    evaluator_start(evaluator);
    while (!evaluator_work(evaluator, 0.1))
        ;
    follow_take(&run->follow);
}

static int save(struct ssgd *run, struct gapless_error *error)
{
    char path[RESULTS_PATH_MAX];
    int status = results_path(run->folder, "model.safetensors", path, error);

    if (status == GAPLESS_OK)
        status = results_set_aside(run->folder, "model.safetensors",
                                   "model.previous.safetensors", error);
    return status == GAPLESS_OK
               ? model_file_save(&run->task, run->evaluator.theta, run->settings.rule,
                                 run->facts.stats.gradients, path, -1, error)
               : status;
}

static int say_how(const struct ssgd *run, bool good)
{
    const char *failure = run->failure.text;

    if (run->follow.results.failed)
        (void)report_error("train", &run->follow.results.error);
    if (run->failure.status != GAPLESS_OK)
        report_failure("train", "the group failed and left: %s", failure);
    if (!good || run->failure.status != GAPLESS_OK || run->follow.results.failed)
        return EXIT_FAILED;
    return run->signal != 0 ? 128 + run->signal : EXIT_DONE;
}

int ssgd_finish(struct ssgd *run)
{
    struct gapless_error error = {0};
    struct outcome outcome = {
        .settings = &run->settings,
        .task = &run->task,
        .stats = &run->facts.stats,
        .worker = run->worker,
        .worker_count = run->size,
        .stopped = run->signal != 0,
        .argc = run->argc,
        .argv = run->argv,
    };
    bool fetched;
    int status = GAPLESS_OK;

    (void)ssgd_look(run);
    if (!run->follow.begun) {
        view_leave(&run->view);
        if (run->failure.status == GAPLESS_OK)
            report_failure("train", "stopped before the run began");
        return say_how(run, true);
    }
    fetched = fetch(run);
    measure(run, fetched);
    follow_metrics(&run->follow);
    view_leave(&run->view);
    outcome.accuracy = run->evaluator.accuracy;
    outcome.test_loss = run->evaluator.mean_loss;
    outcome.parameters_rms = run->parameters_rms;
    outcome.failure = run->failure.status != GAPLESS_OK ? run->failure.text : NULL;
    outcome.workers_lost = run->failure.status != GAPLESS_OK;
    if (fetched)
        status = save(run, &error);
    if (status == GAPLESS_OK)
        status = results_write(&run->follow.results, &outcome, &error);
    results_print(&outcome, stdout);
    (void)printf("\n  %s/: %smetrics.jsonl%s\n", run->folder,
                 status == GAPLESS_OK ? "result.json, " : "",
                 fetched && status == GAPLESS_OK ? ", model.safetensors" : "");
    (void)fflush(stdout);
    if (status != GAPLESS_OK)
        (void)report_error("train", &error);
    return say_how(run, status == GAPLESS_OK);
}
