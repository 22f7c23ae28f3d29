/* The tick: looks at the run, measures, draws, writes a line; until it is over; then
 * what is left: the final parameters, the files, the table. */
#include "cluster/train/train.h"
#include "cluster/program/program.h"

#include <math.h>
#include <time.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define TICK_S 0.1
#define EVALUATE_SLICE_S 0.04     /* in one tick */
#define READ_NS 200000000ll       /* for a consistent copy of the parameters */
#define STOP_BY_S 20.0            /* for the master to end cleanly */
#define GONE_S 3.0                /* without any worker, that may be just ending */
#define LAST_READ_NS 5000000000ll /* nothing moves any more: one copy, however large */
#define MASTER_S 60.0             /* for the master to write the model and leave */
#define WORKERS_S 5.0
#define CHILD_END_S 2.0

/* ---- signals ------------------------------------------------------------- */

static void ask_to_stop(struct train *train, int number)
{
    if (train->signal != 0) {
        train->at_once = true;
        launch_signal(train->child, train->children, SIGKILL);
        return;
    }
    train->signal = number;
    train->stop_by = now_seconds() + STOP_BY_S;
    train->facts.stopping = true;
    launch_signal(train->child, 1, SIGTERM);
    view_note(&train->view, "gapless train: stopping, the files will be written; once "
                            "more to end at once");
}

/* Ctrl-Z: children have process groups of their own, and stop with this one. Over a
 * network the master would take who is silent for lost: there only the view stops. */
static void suspend(struct train *train)
{
    bool all = strncmp(train->address, "verbs:", 6) != 0;

    view_leave(&train->view);
    if (all)
        launch_signal(train->child, train->children, SIGSTOP);
    (void)raise(SIGSTOP); /* and here it goes on after SIGCONT */
    if (all)
        launch_signal(train->child, train->children, SIGCONT);
}

void train_signals(struct train *train, double seconds)
{
    struct timespec wait = {(time_t)seconds, (long)((seconds - floor(seconds)) * 1e9)};
    int number = sigtimedwait(&train->signals, NULL, &wait);

    switch (number) {
    case SIGINT:
    case SIGTERM:
    case SIGHUP:
    case SIGUSR2:
    case SIGXCPU:
        ask_to_stop(train, number);
        break;
    case SIGUSR1:
        (void)train_look(train);
        view_leave(&train->view);
        results_say_workers("train", train->worker, train->worker_count, stderr);
        break;
    case SIGTSTP:
        suspend(train);
        break;
    default: /* none in time; SIGWINCH: the next picture has another size; SIGCHLD: the
                end of a child is looked for anyway */
        break;
    }
}

/* ---- looking ------------------------------------------------------------- */

/* What the gate says of kappa, once. */
static void advise(struct train *train)
{
    char advice[256];

    if (train->advised ||
        !gapless_gate_advice(&train->facts.stats, advice, sizeof advice))
        return;
    train->advised = true;
    view_note(&train->view, "gapless train: %s", advice);
}

bool train_look(struct train *train)
{
    struct gapless_stats stats;

    if (train->observer == NULL ||
        gapless_observer_stats(train->observer, &stats, NULL) != GAPLESS_OK)
        return false;
    train->facts.stats = stats;
    for (uint32_t i = 0; i < train->worker_count; i++)
        (void)gapless_observer_worker_stats(train->observer, i, &train->worker[i]);
    train->facts.elapsed = now_seconds() - train->start;
    follow_rate(&train->follow);
    advise(train);
    return true;
}

/* Starts a round of evaluation if it is time, and does a slice of it. */
static void evaluate(struct train *train)
{
    struct evaluator *evaluator = &train->evaluator;
    uint64_t version;

    if (evaluator_idle(evaluator)) {
        if (!follow_wants_accuracy(&train->follow))
            return;
        if (gapless_observer_read(train->observer, evaluator->theta, READ_NS, &version,
                                  NULL) != GAPLESS_OK) {
            follow_put_off(&train->follow); /* torn or gone */
            return;
        }
        evaluator_start(evaluator);
    }
    if (evaluator_work(evaluator, EVALUATE_SLICE_S))
        follow_measured(&train->follow);
}

static void begin(struct train *train)
{
    struct gapless_error error = {0};

    if (follow_begin(&train->follow, train->folder, train->settings.run_id, &error) !=
        GAPLESS_OK)
        train_fail(train, "%s", error.text);
}

static void show(struct train *train)
{
    bool failed = train->follow.results.failed;

    if (train->facts.stats.state == GAPLESS_RUN_WAITING && !train->facts.stopping &&
        train->view.terminal.fd < 0)
        return; /* nothing yet to put into a log */
    follow_show(&train->follow, &train->view);
    if (train->follow.results.failed && !failed)
        view_note(&train->view, "gapless train: %s; the run goes on without",
                  train->follow.results.error.text);
}

/* Without workers nothing will happen any more; some may have come from elsewhere,
 * though. */
static void check_alone(struct train *train)
{
    bool alone = train->facts.stats.workers_active == 0;

    for (uint32_t i = 1; i < train->children; i++)
        alone = alone && train->child[i].ended;
    if (!alone) {
        train->gone_since = 0.0;
        return;
    }
    if (train->gone_since <= 0.0)
        train->gone_since = now_seconds();
    if (now_seconds() - train->gone_since < GONE_S)
        return;
    train_fail(
        train,
        "all workers are gone after %llu of %llu gradients; what they said is in "
        "%.200s",
        (unsigned long long)train->facts.stats.gradients,
        (unsigned long long)train->facts.stats.gradients_total, train->log_folder);
}

static bool over(struct train *train)
{
    if (train->at_once || train->failure[0] != '\0' ||
        train->facts.stats.state == GAPLESS_RUN_DONE)
        return true;
    if (train->signal != 0 && now_seconds() > train->stop_by)
        train_fail(train, "the master did not end within %g s", STOP_BY_S);
    return train->failure[0] != '\0';
}

static void serve_metrics(struct train *train)
{
    struct metrics_facts facts = {.stats = &train->facts.stats,
                                  .worker = train->worker,
                                  .worker_count = train->worker_count};

    metrics_serve(&train->metrics, &facts);
}

void train_watch(struct train *train)
{
    while (!over(train)) {
        bool there;

        train_signals(train, TICK_S);
        if (train->observer == NULL)
            (void)train_observe(train, NULL);
        there = train_look(train);
        train_workers_check(train);
        there = there && train->observer != NULL; /* it may have died just now */
        if (!there && now_seconds() < train->connect_by)
            continue; /* a master that was started again */
        if (!there && train->failure[0] == '\0' && !train->child[0].ended) {
            if (launch_wait(train->child, 1, 2.0))
                continue; /* it died: the next check says how */
            train_fail(train, "the master (process %d) no longer answers",
                       (int)train->child[0].pid);
        }
        if (!there)
            continue;
        serve_metrics(train);
        begin(train);
        evaluate(train);
        show(train);
        check_alone(train);
    }
    if (train->facts.stats.updates > 0 && train->view.terminal.fd >= 0)
        view_show(&train->view, &train->facts);
}

/* ---- the end ------------------------------------------------------------- */

/* Measures the final parameters, unless a second signal came. */
static void measure(struct train *train)
{
    struct evaluator *evaluator = &train->evaluator;
    uint64_t version;

    evaluator->accuracy = evaluator->mean_loss = (double)NAN;
    if (train->observer == NULL || train->at_once ||
        gapless_observer_read(train->observer, evaluator->theta, LAST_READ_NS, &version,
                              NULL) != GAPLESS_OK)
        return;
    train->parameters_rms = task_rms(&train->task, evaluator->theta);
    evaluator_start(evaluator);
    while (!evaluator_work(evaluator, 0.1) && !train->at_once)
        train_signals(train, 0.0);
    follow_take(&train->follow);
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

/* The master has written the model when it has ended; a process that does not end is killed. */
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
    launch_end(train->child, train->children, CHILD_END_S);
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
        .restarts = train->restarted,
        .gradients_lost = train->gradients_lost,
        .accuracy = train->evaluator.accuracy,
        .test_loss = train->evaluator.mean_loss,
        .parameters_rms = train->parameters_rms,
        .tensor_gates = train->gates_known ? train->tensor_gates : NULL,
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
    else if (report_diverged("train", &train->facts.stats))
        return EXIT_FAILED;
    else
        report_failure("train", "stopped before the run began");
    return train->failure[0] != '\0' ? EXIT_FAILED : 128 + train->signal;
}

int train_finish(struct train *train)
{
    struct gapless_error error = {0};
    struct outcome outcome;
    bool written, failed, diverged = false;

    train->gates_known =
        train_look(train) &&
        gapless_observer_tensor_gates(train->observer, train->task.shape.tensors_count,
                                      train->tensor_gates) == GAPLESS_OK;
    measure(train);
    follow_metrics(&train->follow); /* the last line has what was measured last */
    if (!train->at_once)
        view_last(&train->view, &train->facts);
    end_processes(train);
    view_leave(&train->view);
    launch_tidy(train->child, train->children, train->log_folder);
    if (!train->follow.begun)
        return finish_unbegun(train);
    if (train->at_once) {
        report_failure("train", "ended at once; metrics.jsonl is in %s", train->folder);
        return 128 + train->signal;
    }
    outcome = outcome_of(train);
    written = results_write(&train->follow.results, &outcome, &error) == GAPLESS_OK;
    if (train->failure[0] != '\0')
        report_failure("train", "%s", train->failure);
    else
        diverged = report_diverged("train", &train->facts.stats);
    results_print(&outcome, stdout);
    print_files(train, written);
    if (!written)
        (void)report_error("train", &error);
    if (train->follow.results.failed)
        (void)report_error("train", &train->follow.results.error);
    failed = diverged || !written || train->follow.results.failed ||
             train->failure[0] != '\0';
    return failed ? EXIT_FAILED : train->signal != 0 ? 128 + train->signal : EXIT_DONE;
}
