/* gapless observe: statistics, accuracy and parameters of a run that another process
 * started: train's picture on a terminal, a line at a time in a log. */
#include "cluster/options/options.h"
#include "cluster/program/program_options.h"
#include "cluster/task/follow.h"
#include "cluster/task/job.h"
#include "cluster/task/model_file.h"
#include "cluster/task/network.h"
#include "cluster/task/task.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define READ_NS 1000000000ll
#define LIVE_READ_NS 200000000ll /* for a picture that shall go on moving */
#define TICK_S 0.1
#define EVALUATE_SLICE_S 0.04

struct observing {
    struct settings settings;
    struct gapless_observer *observer;
    struct job job;
    bool task_open;
    struct task task;
    struct evaluator evaluator;
    struct gapless_worker_stats *worker;
    struct view view;
    struct view_facts facts;
    struct follow follow;
    struct gapless_stats
        line_stats; /* as they were at the last line; 0: there is none */
    bool measured;  /* for this line */
    bool foreign;   /* the model is another program's */
    bool live;      /* a picture on a terminal, rather than lines */
    int save_fd;    /* of --save -: the standard output; -1: a file */
    double start;
};

static volatile sig_atomic_t leave;

static void on_signal(int number)
{
    leave = 1;
    (void)signal(number, SIG_DFL);
}

/* ---- what is needed ------------------------------------------------------ */

static int open_data(struct observing *observing, struct gapless_error *error)
{
    struct job job = observing->job;
    int status = GAPLESS_OK;

    if (observing->settings.data_dir != NULL)
        status = job_set(job.data, observing->settings.data_dir, job.model, job.batch,
                         job.seed, &job, error);
    if (status == GAPLESS_OK)
        status = task_open(&job, -1, &observing->task, error);
    if (status != GAPLESS_OK)
        return status;
    observing->task_open = true;
    if (observing->task.model.parameters != gapless_observer_count(observing->observer))
        return gapless_error_set(
            error, GAPLESS_MODEL, 0,
            "the master has %llu parameters, its job text speaks of "
            "%zu",
            (unsigned long long)gapless_observer_count(observing->observer),
            observing->task.model.parameters);
    return evaluator_open(&observing->task, &observing->evaluator, error);
}

/* Of another program's model there are no data here, and no names of its tensors. */
static int open_foreign(const struct observing *observing, struct gapless_error *error)
{
    const struct settings *settings = &observing->settings;

    if (!settings->accuracy && settings->save == NULL)
        return GAPLESS_OK;
    return gapless_error_set(
        error, GAPLESS_INVALID, 0,
        "--%s is not for this run: its model is another program's, "
        "which has no data %s here",
        settings->accuracy ? "accuracy" : "save",
        settings->accuracy ? "to measure it on" : "and no names of its tensors");
}

/* The data set is only needed to measure accuracy, and for the names of the tensors. A
 * picture does without where it is not here. */
static int open_task(struct observing *observing, struct gapless_error *error)
{
    const struct settings *settings = &observing->settings;
    const char *job = gapless_observer_job(observing->observer);
    struct gapless_error reason = {0};
    int status;

    observing->evaluator.accuracy = observing->evaluator.mean_loss = (double)NAN;
    observing->foreign = job_is_foreign(job);
    if (observing->foreign)
        return open_foreign(observing, error);
    status = job_read(job, &observing->job, error);
    if (status != GAPLESS_OK)
        return status;
    if (settings->accuracy || settings->save != NULL)
        return open_data(observing, error);
    if (observing->live && open_data(observing, &reason) != GAPLESS_OK)
        report_failure("observe", "the accuracy is not measured: %s", reason.text);
    return GAPLESS_OK;
}

static bool measures(const struct observing *observing)
{
    return observing->evaluator.theta != NULL &&
           (observing->settings.accuracy || observing->live);
}

/* How many workers the master has room for. */
static int open_facts(struct observing *observing, struct gapless_error *error)
{
    struct gapless_worker_stats one;
    struct view_facts *facts = &observing->facts;
    uint32_t room = 0;

    while (gapless_observer_worker_stats(observing->observer, room, &one) == GAPLESS_OK)
        room++;
    observing->worker = calloc(room > 0 ? room : 1, sizeof *observing->worker);
    if (observing->worker == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory");
    *facts = (struct view_facts){
        .rule = observing->job.rule,
        .data = observing->foreign ? NULL : observing->job.data,
        .model = observing->foreign ? "another program's model" : observing->job.model,
        .parameters = gapless_observer_count(observing->observer),
        .epoch_gradients = (double)observing->job.epoch,
        .accuracy = (double)NAN,
        .unmeasured = observing->foreign,
        .worker = observing->worker,
        .worker_count = room,
    };
    observing->follow = follow_new(facts, &observing->evaluator);
    return GAPLESS_OK;
}

static int look(struct observing *observing, struct gapless_error *error)
{
    struct view_facts *facts = &observing->facts;
    int status = gapless_observer_stats(observing->observer, &facts->stats, error);

    if (status != GAPLESS_OK)
        return status;
    for (uint32_t i = 0; i < facts->worker_count; i++)
        (void)gapless_observer_worker_stats(observing->observer, i,
                                            &observing->worker[i]);
    facts->workers = view_workers_known(facts);
    if (facts->epoch_gradients > 0.0)
        facts->epochs = (double)facts->stats.gradients_total / facts->epoch_gradients;
    facts->elapsed = now_seconds() - observing->start;
    follow_rate(&observing->follow);
    return GAPLESS_OK;
}

/* ---- lines --------------------------------------------------------------- */

static int measure(struct observing *observing, struct gapless_error *error)
{
    struct evaluator *evaluator = &observing->evaluator;
    uint64_t version;
    int status;

    observing->measured = false;
    if (!measures(observing) || observing->facts.stats.updates == 0)
        return GAPLESS_OK;
    status = gapless_observer_read(observing->observer, evaluator->theta, READ_NS,
                                   &version, error);
    if (status == GAPLESS_TORN)
        return GAPLESS_OK; /* it moves too fast just now: the next line may do better */
    if (status != GAPLESS_OK)
        return status;
    evaluator_start(evaluator);
    while (!evaluator_work(evaluator, 1.0))
        ;
    follow_measured(&observing->follow);
    observing->measured = true;
    return GAPLESS_OK;
}

/* Lately; where that is not known yet, since the start. */
static double updates_per_second(const struct observing *observing)
{
    const struct gapless_stats *stats = &observing->facts.stats;

    if (observing->follow.rate_known)
        return observing->facts.updates_per_second;
    return stats->seconds > 0.0 ? (double)stats->updates / stats->seconds : 0.0;
}

/* A line of metrics.jsonl. */
static void print_json(struct observing *observing)
{
    const struct gapless_stats *stats = &observing->facts.stats;
    bool measured = observing->measured;
    struct metrics_sample sample = {
        .elapsed = observing->facts.elapsed,
        .updates_per_second = updates_per_second(observing),
        .epoch = observing->job.epoch > 0
                     ? (double)stats->gradients / (double)observing->job.epoch
                     : (double)NAN,
        .accuracy = measured ? observing->evaluator.accuracy : (double)NAN,
        .test_loss = measured ? observing->evaluator.mean_loss : (double)NAN,
        .stats = stats,
        .grad_norm_sq = (double)NAN,
    };
    char *text;

    results_since(&sample, &observing->line_stats);
    observing->line_stats = *stats;
    text = results_sample(&sample);
    (void)printf("%s\n", text != NULL ? text : "{}");
    free(text);
}

/* "20:41:03  epoch 2.31/5  ...  0:21 left" */
static void print_line(const struct observing *observing)
{
    const struct view_facts *facts = &observing->facts;
    const struct gapless_stats *stats = &facts->stats;
    char clock[16] = "";
    time_t now = time(NULL);
    struct tm local;

    if (localtime_r(&now, &local) != NULL)
        (void)strftime(clock, sizeof clock, "%H:%M:%S", &local);
    (void)printf("%s  ", clock);
    if (facts->epoch_gradients > 0.0)
        (void)printf("epoch %.2f/%g  ",
                     (double)stats->gradients / facts->epoch_gradients, facts->epochs);
    (void)printf(
        "updates %s (%.0f/s)  gradients %s of %s  loss %s  rate %s  lag %s  gap %s  "
        "dropped %s  workers %u, %u lost",
        word_count(stats->updates).text, updates_per_second(observing),
        word_count(stats->gradients).text,
        stats->gradients_total > 0 ? word_count(stats->gradients_total).text : "no end",
        word_real(view_loss(stats), 4).text, word_small(stats->rate).text,
        word_real(stats->lag.count > 0 ? stats->lag.mean : (double)NAN, 2).text,
        word_small(stats->gap_rms.count > 0 ? stats->gap_rms.mean : (double)NAN).text,
        word_count(stats->dropped).text, stats->workers_active, stats->workers_lost);
    if (observing->settings.accuracy)
        (void)printf("  accuracy %s %%",
                     word_real(100.0 * observing->evaluator.accuracy, 2).text);
    if (stats->state == GAPLESS_RUN_DONE)
        (void)printf("  done");
    else if (stats->gradients_total > 0)
        (void)printf("  %s left", word_seconds(view_seconds_left(facts)).text);
    (void)printf("\n");
}

/* In pieces, so that the end of the run, or of the master, is noticed soon. */
static int pause_for(struct observing *observing, double seconds,
                     struct gapless_error *error)
{
    double end = now_seconds() + seconds, left;
    uint32_t state = observing->facts.stats.state;
    int status = GAPLESS_OK;

    while (status == GAPLESS_OK && (left = end - now_seconds()) > 0.0 && !leave &&
           observing->facts.stats.state == state) {
        struct timespec wait = {0, (long)(1e9 * (left < TICK_S ? left : TICK_S))};

        (void)nanosleep(&wait, NULL);
        status = look(observing, error);
    }
    return status;
}

static bool over(const struct observing *observing)
{
    return leave || observing->facts.stats.state == GAPLESS_RUN_DONE;
}

static int watch_lines(struct observing *observing, struct gapless_error *error)
{
    int status = look(observing, error);

    while (status == GAPLESS_OK) {
        status = measure(observing, error);
        if (status != GAPLESS_OK)
            break;
        if (observing->settings.json)
            print_json(observing);
        else
            print_line(observing);
        (void)fflush(stdout);
        if (ferror(stdout))
            return gapless_error_set(error, GAPLESS_IO, 0, "cannot write to stdout");
        if (observing->settings.once || over(observing))
            break;
        status = pause_for(observing, observing->settings.interval, error);
    }
    return status;
}

/* ---- the picture --------------------------------------------------------- */

/* Starts a round of evaluation if it is time, and does a slice of it. */
static void evaluate(struct observing *observing)
{
    struct evaluator *evaluator = &observing->evaluator;
    uint64_t version;

    if (evaluator_idle(evaluator)) {
        if (!follow_wants_accuracy(&observing->follow))
            return;
        if (gapless_observer_read(observing->observer, evaluator->theta, LIVE_READ_NS,
                                  &version, NULL) != GAPLESS_OK) {
            follow_put_off(&observing->follow); /* torn or gone */
            return;
        }
        evaluator_start(evaluator);
    }
    if (evaluator_work(evaluator, EVALUATE_SLICE_S))
        follow_measured(&observing->follow);
}

static int watch_live(struct observing *observing, struct gapless_error *error)
{
    int status = look(observing, error);

    while (status == GAPLESS_OK && !over(observing)) {
        if (measures(observing))
            evaluate(observing);
        follow_show(&observing->follow, &observing->view);
        status = pause_for(observing, TICK_S, error);
    }
    if (status == GAPLESS_OK && !leave)
        status = measure(observing, error); /* of the end */
    if (status == GAPLESS_OK)
        view_last(&observing->view, &observing->facts);
    view_leave(&observing->view);
    return status;
}

/* ---- the parameters ------------------------------------------------------ */

static int save(struct observing *observing, struct gapless_error *error)
{
    uint64_t version;
    int status = gapless_observer_read(observing->observer, observing->evaluator.theta,
                                       0, &version, error);

    return status == GAPLESS_OK
               ? model_file_save(&observing->task, observing->evaluator.theta,
                                 observing->job.rule, observing->facts.stats.gradients,
                                 observing->settings.save, observing->save_fd, error)
               : status;
}

/* --save -: the parameters alone go to the standard output, lines to stderr. */
static int take_standard_output(struct observing *observing,
                                struct gapless_error *error)
{
    const char *path = observing->settings.save;

    observing->save_fd = -1;
    if (path == NULL || strcmp(path, "-") != 0)
        return GAPLESS_OK;
    observing->save_fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0);
    if (observing->save_fd < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
        return gapless_error_set(error, GAPLESS_IO, errno,
                                 "cannot write to the standard output");
    return GAPLESS_OK;
}

int cmd_observe(int argc, char **argv)
{
    static struct observing observing;
    static struct network network;
    struct gapless_observer_config config = {0};
    struct sigaction action = {.sa_handler = on_signal};
    struct gapless_error error = {0};
    int status, code;

    if (!program_options(FOR_OBSERVE, argc, argv, &observing.settings, &code))
        return code;
    observing.start = now_seconds();
    config.address = observing.settings.address;
    config.connect_ns = (int64_t)(observing.settings.connect_timeout * 1e9);
    status = take_standard_output(&observing, &error);
    if (status == GAPLESS_OK)
        status = network_open(&observing.settings, &network, &error);
    config.net = network.net;
    if (status == GAPLESS_OK)
        status = gapless_observer_open(&config, &observing.observer, &error);
    network_close(&network);
    /* Not while it looks for a master, which a signal ends at once. */
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    view_open(&observing.view, false, observing.settings.no_color);
    observing.live = observing.view.terminal.fd == STDOUT_FILENO &&
                     !observing.settings.json && !observing.settings.once;
    if (status == GAPLESS_OK)
        status = open_task(&observing, &error);
    if (status == GAPLESS_OK)
        status = open_facts(&observing, &error);
    if (status == GAPLESS_OK)
        status = observing.live ? watch_live(&observing, &error)
                                : watch_lines(&observing, &error);
    if (status == GAPLESS_OK && observing.settings.save != NULL)
        status = save(&observing, &error);
    free(observing.worker);
    evaluator_close(&observing.evaluator);
    task_close(&observing.task);
    gapless_observer_close(observing.observer);
    if (observing.save_fd >= 0)
        (void)close(observing.save_fd);
    return status == GAPLESS_OK ? EXIT_DONE : report_error("observe", &error);
}
