/* The end of a run: the final parameters, the files, the table. */
#include "train.h"

#include "cluster/program.h"

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

static void line_of(const char *name, const struct gapless_summary *of, bool small)
{
    if (of->count == 0)
        (void)printf("  %-18s not measured\n", name);
    else if (small)
        (void)printf("  %-18s mean %s   p50 %s   p99 %s   max %s\n", name,
                     word_small(of->mean).text, word_small(of->p50).text,
                     word_small(of->p99).text, word_small(of->max).text);
    else
        (void)printf("  %-18s mean %s   p50 %.0f   p99 %.0f   max %.0f\n", name,
                     word_real(of->mean, 2).text, of->p50, of->p99, of->max);
}

/* How far staleness was tamed, in measured numbers only. */
static void print_staleness(const struct train *train)
{
    const struct gapless_stats *stats = &train->facts.stats;
    double share = 100.0 * stats->gap_rms.mean / train->parameters_rms;

    if (stats->gap_rms.count == 0 || stats->lag.count == 0)
        return;
    (void)printf("\n  While a gradient was under way, %s other updates were applied on "
                 "average.\n  When it arrived, the parameters were %s (rms, each) from "
                 "where it had been computed",
                 word_real(stats->lag.mean, 2).text,
                 word_small(stats->gap_rms.mean).text);
    if (isfinite(share))
        (void)printf(":\n  %.2g %% of their own size, %s.\n", share,
                     word_small(train->parameters_rms).text);
    else
        (void)printf(".\n");
}

static void print_table(const struct train *train)
{
    const struct gapless_stats *stats = &train->facts.stats;
    uint32_t lost =
        train->lost > stats->workers_lost ? train->lost : stats->workers_lost;

    (void)printf("\n  %-18s %s %%   (loss %s)\n", "test accuracy",
                 word_real(100.0 * train->evaluator.accuracy, 2).text,
                 word_real(train->evaluator.mean_loss, 4).text);
    (void)printf("  %-18s %s\n", "training loss", word_real(stats->loss, 4).text);
    (void)printf("  %-18s %s in %.1f s, %.0f a second\n", "updates",
                 word_count(stats->updates).text, stats->seconds,
                 stats->seconds > 0.0 ? (double)stats->updates / stats->seconds : 0.0);
    line_of("lag", &stats->lag, false);
    line_of("gap (rms)", &stats->gap_rms, true);
    (void)printf("  %-18s %s not finite, %s cut short\n", "dropped",
                 word_count(stats->dropped).text, word_count(stats->partial).text);
    (void)printf("  %-18s %u, %u lost\n", "workers", train->settings.workers, lost);
    print_staleness(train);
    (void)fflush(stdout);
}

static int write_result(struct train *train, struct gapless_error *error)
{
    uint32_t lost = train->lost > train->facts.stats.workers_lost
                        ? train->lost
                        : train->facts.stats.workers_lost;
    struct outcome outcome = {
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

    return results_write(&train->results, &outcome, error);
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
        say("train", "%s", train->failure);
    else
        say("train", "stopped before the run began");
    return train->failure[0] != '\0' ? EXIT_FAILED : 128 + train->signal;
}

int train_finish(struct train *train)
{
    struct gapless_error error = {0};
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
        say("train", "ended at once; metrics.jsonl is in %s", train->folder);
        return 128 + train->signal;
    }
    written = write_result(train, &error) == GAPLESS_OK;
    print_table(train);
    print_files(train, written);
    if (!written)
        (void)say_error("train", &error);
    if (train->results.failed)
        (void)say_error("train", &train->results.error);
    if (train->failure[0] != '\0')
        say("train", "%s", train->failure);
    failed = !written || train->results.failed || train->failure[0] != '\0';
    return failed ? EXIT_FAILED : train->signal != 0 ? 128 + train->signal : EXIT_DONE;
}
