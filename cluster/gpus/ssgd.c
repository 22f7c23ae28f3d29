/* Synchronous SGD on GPUs: what is checked before anything is computed, and the tick of
 * the main thread while the driver works. */
#include "cluster/gpus/ssgd.h"

#include "cluster/task/config.h"
#include "cluster/program/program.h"
#include "cluster/gpus/where.h"
#include "engine/run/schedule.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define TICK_S 0.05
#define EVALUATE_SLICE_S 0.04

bool ssgd_asked(const struct settings *settings)
{
    return settings->group != NULL && strcmp(settings->rule, "ssgd") == 0;
}

/* ---- before the run ------------------------------------------------------ */

/* There is no master: what is said of one is a mistake. */
static int check_options(const struct settings *settings, struct gapless_error *error)
{
    static const char *const names[] = {"address", "listen",     "transport",
                                        "record",  "token-file", "rdma-device",
                                        "workers", "workers-max"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (options_source(settings, names[i]) == OPTION_FLAG)
            return gapless_error_set(
                error, GAPLESS_INVALID, 0,
                "--%s: rule ssgd with --group nccl has no master and as many workers "
                "as GPUs (--device): leave one of them out",
                names[i]);
    if (strlen(settings->out != NULL ? settings->out : "") > 900)
        return gapless_error_set(error, GAPLESS_INVALID, 0, "--out is too long");
    return config_check_local(settings, error);
}

/* All GPUs, unless some are named. */
static int choose_device(struct settings *settings, struct gapless_error *error)
{
    bool named = options_source(settings, "device") > OPTION_DEFAULT;
    bool workers = options_source(settings, "worker-device") > OPTION_DEFAULT;
    const char *where = NULL;
    int status = gpus_where(settings, !named && workers ? "worker-device" : "device",
                            &where, error);

    if (status == GAPLESS_OK)
        settings->device = settings->worker_device = where;
    return status;
}

static int open_task(struct ssgd *run, struct gapless_error *error)
{
    const struct settings *settings = &run->settings;
    struct job job;
    int status = job_set(settings->data, settings->data_dir, settings->model,
                         settings->batch, settings->seed, &job, error);

    if (status == GAPLESS_OK)
        status = task_open(&job, -1, &run->task, error);
    if (status == GAPLESS_OK)
        status = task_gradients(&run->task, settings->epochs, &run->total, error);
    if (status == GAPLESS_OK)
        status = task_initial(&run->task, &run->initial, error);
    return status;
}

static int open_gpus(struct ssgd *run, struct gapless_error *error)
{
    const struct settings *settings = &run->settings;
    struct gpus_config config = {
        .device = settings->device,
        .task = &run->task,
        .initial = run->initial,
        .momentum = settings->momentum,
        .clip_norm = settings->clip_norm,
        .weight_decay = settings->weight_decay,
    };

    return gpus_open(&config, &run->gpus, error);
}

/* The same schedule as a master's with this many workers. */
static int set_schedule(struct ssgd *run, struct gapless_error *error)
{
    struct gapless_master_config config;

    run->settings.workers = run->settings.workers_max = run->size;
    run->total = (run->total + run->size - 1) / run->size * run->size;
    config_set(&run->settings, &run->task, run->total, run->initial, NULL, NULL,
               &config);
    run->schedule = config.schedule;
    if (run->schedule.warmup > 0 && !(run->schedule.warmup_from > 0.0))
        run->schedule.warmup_from = 1.0 / (double)run->size;
    return schedule_check(&run->schedule, run->total, error);
}

static int prepare(struct ssgd *run, struct gapless_error *error)
{
    int status = check_options(&run->settings, error);

    if (status == GAPLESS_OK)
        status = choose_device(&run->settings, error);
    if (status == GAPLESS_OK)
        status = open_task(run, error);
    if (status == GAPLESS_OK)
        status = open_gpus(run, error);
    if (status != GAPLESS_OK)
        return status;
    run->size = gpus_count(run->gpus);
    status = set_schedule(run, error);
    if (status == GAPLESS_OK)
        status = evaluator_open(&run->task, &run->evaluator, error);
    results_choose(run->settings.out, run->settings.rule, run->folder);
    if (status == GAPLESS_OK) /* last: a mistake leaves no folder behind */
        status = run_folder_take(run->folder, run->settings.out == NULL, false,
                                 &run->hold, error);
    if (status == GAPLESS_OK)
        status = results_check(run->folder, run->task.model.parameters, error);
    if (status != GAPLESS_OK)
        return status;
    run->worker = calloc(run->size, sizeof *run->worker);
    if (run->worker == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory");
    return GAPLESS_OK;
}

static void announce(struct ssgd *run)
{
    const struct settings *settings = &run->settings;
    char where[320];

    view_open(&run->view, settings->quiet, settings->no_color);
    run->facts = view_facts_of(settings, run->task.model.parameters,
                               (double)sampler_batches_per_epoch(&run->task.sampler),
                               run->worker, run->size);
    run->follow = follow_new(&run->facts, &run->evaluator);
    run->stats = (struct gapless_stats){.workers_active = run->size,
                                        .workers_joined = run->size,
                                        .gradients_total = run->total,
                                        .gate = 1.0};
    if (settings->quiet || run->view.terminal.fd >= 0)
        return;
    gpus_describe(run->gpus, where, sizeof where);
    (void)printf("gapless train: ssgd without a master, %s, %s, %s (%s parameters), %g "
                 "epoch%s, to %s\n",
                 where, settings->data, settings->model,
                 word_count(run->task.model.parameters).text, settings->epochs,
                 settings->epochs > 1.0 ? "s" : "", run->folder);
    (void)fflush(stdout);
}

/* ---- the tick ------------------------------------------------------------ */

static void stop(struct ssgd *run)
{
    (void)pthread_mutex_lock(&run->lock);
    run->stop = true;
    (void)pthread_mutex_unlock(&run->lock);
}

/* Waits for a signal for so long. A second one ends the process at once. */
static void watch_signals(struct ssgd *run, double seconds)
{
    struct timespec wait = {(time_t)seconds, (long)((seconds - floor(seconds)) * 1e9)};
    int number = sigtimedwait(&run->signals, NULL, &wait);

    if (number == SIGTSTP) {
        view_leave(&run->view);
        (void)raise(SIGSTOP);
    }
    if (number != SIGINT && number != SIGTERM && number != SIGHUP)
        return;
    if (run->signal != 0) {
        view_leave(&run->view);
        report_failure("train", "ended at once; metrics.jsonl is in %s", run->folder);
        _exit(128 + number);
    }
    run->signal = number;
    run->facts.stopping = true;
    stop(run);
    view_note(&run->view, "gapless train: stopping, the files will be written; once "
                          "more to end at once");
}

static void begin(struct ssgd *run)
{
    struct results *results = &run->follow.results;

    if (follow_begin(&run->follow, run->folder, run->settings.run_id,
                     &results->error) != GAPLESS_OK) {
        results->failed = true;
        stop(run);
    }
}

/* Asks for a snapshot if it is time, and measures the one there is. */
static void evaluate(struct ssgd *run)
{
    struct evaluator *evaluator = &run->evaluator;
    bool have;

    (void)pthread_mutex_lock(&run->lock);
    have = run->have;
    if (!have && !run->evaluating && follow_wants_accuracy(&run->follow))
        run->want = true;
    run->have = false;
    (void)pthread_mutex_unlock(&run->lock);
    if (have) {
        run->evaluating = true;
        evaluator_start(evaluator);
    }
    if (!run->evaluating || !evaluator_work(evaluator, EVALUATE_SLICE_S))
        return;
    run->evaluating = false;
    follow_measured(&run->follow);
}

static int drive(struct ssgd *run, struct gapless_error *error)
{
    pthread_t driver;
    int code;

    run->start = now_seconds();
    code = pthread_create(&driver, NULL, ssgd_drive, run);
    if (code != 0)
        return gapless_error_set(error, GAPLESS_SYSTEM, code, "cannot start a thread");
    while (!ssgd_look(run)) {
        watch_signals(run, TICK_S);
        follow_rate(&run->follow);
        begin(run);
        evaluate(run);
        follow_show(&run->follow, &run->view);
    }
    (void)pthread_join(driver, NULL);
    begin(run);
    return GAPLESS_OK;
}

/* ---- the whole ----------------------------------------------------------- */

static void catch_signals(struct ssgd *run)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGTSTP, SIGWINCH};

    (void)sigemptyset(&run->signals);
    for (unsigned i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        (void)sigaddset(&run->signals, numbers[i]);
    (void)sigprocmask(SIG_BLOCK, &run->signals, NULL); /* threads inherit it */
    (void)signal(SIGPIPE, SIG_IGN);
}

/* A GPU that hangs keeps its thread, and that everything else: then nothing is
 * freed. */
static int close_all(struct ssgd *run, int code)
{
    struct gapless_error error = {0};

    if (!gpus_close(run->gpus, &error)) {
        report_failure("train", "%s", error.text);
        (void)fflush(NULL);
        _exit(EXIT_FAILED);
    }
    results_close(&run->follow.results);
    run_folder_leave(run->folder, &run->hold);
    evaluator_close(&run->evaluator);
    free(run->worker);
    free(run->initial);
    task_close(&run->task);
    (void)pthread_mutex_destroy(&run->lock);
    return code;
}

int ssgd_train(const struct settings *settings, int argc, char **argv)
{
    static struct ssgd run;
    struct gapless_error error = {0};
    int code;

    run.settings = *settings;
    run.settings.run_id = run_folder_id(NULL, run.run_id);
    run.argc = argc;
    run.argv = argv;
    run.parameters_rms = (double)NAN;
    (void)pthread_mutex_init(&run.lock, NULL);
    catch_signals(&run);
    if (prepare(&run, &error) != GAPLESS_OK)
        return close_all(&run, report_error("train", &error));
    config_report_warmup("train", &run.settings);
    announce(&run);
    run.evaluator.accuracy = run.evaluator.mean_loss = (double)NAN;
    if (drive(&run, &error) != GAPLESS_OK)
        return close_all(&run, report_error("train", &error));
    code = ssgd_finish(&run);
    return close_all(&run, code);
}
