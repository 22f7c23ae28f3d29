/* The end of a run: the final parameters, the files, the table. */
#include "cluster/train/train.h"

#include "cluster/program/program.h"

#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define READ_NS 5000000000ll /* nothing moves any more: one copy, however large */
#define MASTER_S 60.0        /* for the master to write the model and leave */
#define WORKERS_S 5.0
#define GRACE_S 2.0

/* Measures the final parameters, unless somebody cannot wait. */
static void measure(struct train *train)
{
    struct evaluator *evaluator = &train->evaluator;
    size_t count = train->task.model.parameters;
    double sum = 0.0;
    uint64_t version;

    evaluator->accuracy = evaluator->mean_loss = (double)NAN;
    if (train->observer == NULL || train->at_once ||
        gapless_observer_read(train->observer, evaluator->theta, READ_NS, &version,
                              NULL) != GAPLESS_OK)
        return;
    for (size_t i = 0; i < count; i++)
        sum += (double)evaluator->theta[i] * (double)evaluator->theta[i];
    train->parameters_rms = sqrt(sum / (double)count);
    evaluator_start(evaluator);
    while (!evaluator_work(evaluator, 0.1) && !train->at_once)
        train_signals(train, 0.0);
    train->facts.accuracy = evaluator->accuracy;
}

static bool wait_for(struct train *train, uint32_t from, uint32_t count, double seconds)
{
    double end = now_seconds() + seconds;

    while (!launch_wait(&train->child[from], count, 0.05)) {
        train_signals(train, 0.0);
        if (train->at_once || now_seconds() > end)
            return false;
    }
    return true;
}

/* The master has written the model when it has ended; whoever does not end is ended. */
static void end_processes(struct train *train)
{
    char how[80], words[400];

    if (train->failure[0] != '\0')
        launch_signal(train->child, 1, SIGTERM);
    gapless_observer_close(train->observer);
    train->observer = NULL;
    if (!wait_for(train, 0, 1, train->failure[0] != '\0' ? 10.0 : MASTER_S))
        train_fail(train, "the master did not end within %g s", MASTER_S);
    if (!wait_for(train, 1, train->children - 1, WORKERS_S) && !train->at_once)
        view_note(&train->view, "gapless train: a worker did not end by itself");
    launch_end(train->child, train->children, GRACE_S);
    if (train->child[0].ended && train->child[0].status != 0) {
        launch_describe(&train->child[0], how, sizeof how);
        launch_last_words(&train->child[0], words, sizeof words);
        train_fail(train, "the master failed at the end: it %s; %s%s", how,
                   words[0] != '\0' ? "its last words: " : "it could not say why",
                   words);
    }
}

static struct outcome outcome_of(struct train *train)
{
    uint32_t lost = train->lost > train->facts.stats.workers_lost
                        ? train->lost
                        : train->facts.stats.workers_lost;

    return (struct outcome){
        .settings = &train->settings,
        .task = &train->task,
        .stats = &train->facts.stats,
        .worker = train->worker,
        .worker_count = train->worker_count,
        .workers_lost = lost,
        .accuracy = train->evaluator.accuracy,
        .test_loss = train->evaluator.mean_loss,
        .parameters_rms = train->parameters_rms,
        .stopped = train->signal != 0,
        .failure = train->failure[0] != '\0' ? train->failure : NULL,
        .argc = train->argc,
        .argv = train->argv,
    };
}

static void print_files(const struct train *train, bool result)
{
    char model[RESULTS_PATH_MAX + 32];
    struct stat info;
    bool kept;

    (void)snprintf(model, sizeof model, "%s/model.safetensors", train->folder);
    kept = stat(model, &info) == 0;
    (void)printf("\n  %s/: %smetrics.jsonl%s\n", train->folder,
                 result ? "result.json, " : "", kept ? ", model.safetensors" : "");
    (void)fflush(stdout);
}

/* There is nothing to write when nothing was learnt. */
static int finish_unbegun(struct train *train)
{
    if (train->failure[0] != '\0')
        report_failure("train", "%s", train->failure);
    else
        report_failure("train", "stopped before the run began");
    return train->failure[0] != '\0' ? EXIT_FAILED : 128 + train->signal;
}

int train_finish(struct train *train)
{
    struct gapless_error error = {0};
    struct outcome outcome;
    bool written, failed;

    (void)train_look(train);
    measure(train);
    train_metrics(train); /* the last line has what was measured last */
    if (train->view.drawn && !train->at_once)
        view_show(&train->view, &train->facts);
    end_processes(train);
    view_leave(&train->view);
    launch_tidy(train->child, train->children, train->log_folder);
    if (!train->begun)
        return finish_unbegun(train);
    if (train->at_once) {
        report_failure("train", "ended at once; metrics.jsonl is in %s", train->folder);
        return 128 + train->signal;
    }
    outcome = outcome_of(train);
    written = results_write(&train->results, &outcome, &error) == GAPLESS_OK;
    results_print(&outcome);
    print_files(train, written);
    if (!written)
        (void)report_error("train", &error);
    if (train->results.failed)
        (void)report_error("train", &train->results.error);
    if (train->failure[0] != '\0')
        report_failure("train", "%s", train->failure);
    failed = !written || train->results.failed || train->failure[0] != '\0';
    return failed ? EXIT_FAILED : train->signal != 0 ? 128 + train->signal : EXIT_DONE;
}
