/* The tick: looks at the run, measures, draws, writes a line; until it is over. */
#include "cluster/train/train.h"

#include <math.h>
#include <time.h>

#define TICK_S 0.1
#define VIEW_EVERY_S 0.2
#define METRICS_EVERY_S 1.0
#define EVALUATE_EVERY_S 0.4
#define EVALUATE_SHARE 20.0   /* at most one part in so many of a processor's time */
#define EVALUATE_SLICE_S 0.04 /* in one tick */
#define READ_NS 200000000ll   /* for a consistent copy of the parameters */
#define RATE_OVER_S 2.0       /* what updates_per_second is averaged over */
#define STOP_BY_S 20.0        /* for the master to end cleanly */
#define GONE_S 3.0            /* without any worker, that may be just ending */

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

static void suspend(struct train *train)
{
    view_leave(&train->view);
    (void)raise(SIGSTOP); /* and here it goes on after SIGCONT */
}

void train_signals(struct train *train, double seconds)
{
    struct timespec wait = {(time_t)seconds, (long)((seconds - floor(seconds)) * 1e9)};
    int number = sigtimedwait(&train->signals, NULL, &wait);

    switch (number) {
    case SIGINT:
    case SIGTERM:
    case SIGHUP:
        ask_to_stop(train, number);
        break;
    case SIGTSTP:
        suspend(train);
        break;
    case SIGWINCH:
        view_resized(&train->view);
        break;
    default: /* none in time, or SIGCHLD: the end of a child is looked for anyway */
        break;
    }
}

/* ---- looking ------------------------------------------------------------- */

static void measure_rate(struct train *train)
{
    struct view_facts *facts = &train->facts;
    double over = facts->elapsed - train->rate_from_s;

    if (facts->stats.updates < train->rate_from || train->rate_from_s <= 0.0) {
        train->rate_from = facts->stats.updates;
        train->rate_from_s = facts->elapsed;
        return;
    }
    if (over > 0.0 && (over >= RATE_OVER_S || facts->updates_per_second <= 0.0))
        facts->updates_per_second =
            (double)(facts->stats.updates - train->rate_from) / over;
    if (over >= RATE_OVER_S) {
        train->rate_from = facts->stats.updates;
        train->rate_from_s = facts->elapsed;
    }
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
    measure_rate(train);
    return true;
}

/* Starts a round of evaluation if it is time, and does a slice of it. */
static void evaluate(struct train *train)
{
    struct evaluator *evaluator = &train->evaluator;
    double now = now_seconds(), pause;
    uint64_t version;

    if (evaluator_idle(evaluator)) {
        if (now < train->evaluate_due || train->facts.stats.updates == 0)
            return;
        if (gapless_observer_read(train->observer, evaluator->theta, READ_NS, &version,
                                  NULL) != GAPLESS_OK) {
            train->evaluate_due = now + EVALUATE_EVERY_S; /* torn or gone: later */
            return;
        }
        evaluator_start(evaluator);
    }
    if (!evaluator_work(evaluator, EVALUATE_SLICE_S))
        return;
    train->facts.accuracy = evaluator->accuracy;
    history_add(&train->facts.accuracies, evaluator->accuracy);
    pause = EVALUATE_SHARE * evaluator->last_s;
    train->evaluate_due = now + (pause > EVALUATE_EVERY_S ? pause : EVALUATE_EVERY_S);
}

/* Not before the run has really begun: until then the folder stays as an earlier run
 * left it. */
static void begin(struct train *train)
{
    struct gapless_error error = {0};

    if (train->begun || train->facts.stats.updates == 0)
        return;
    train->begun = true;
    if (results_open(train->folder, &train->results, &error) != GAPLESS_OK)
        train_fail(train, "%s", error.text);
}

void train_metrics(struct train *train)
{
    struct metrics_sample sample = {
        .elapsed = train->facts.elapsed,
        .updates_per_second = train->facts.updates_per_second,
        .epoch = (double)train->facts.stats.gradients / train->facts.epoch_gradients,
        .accuracy = train->evaluator.accuracy,
        .test_loss = train->evaluator.mean_loss,
        .stats = &train->facts.stats,
    };

    if (!train->begun || train->results.failed)
        return;
    results_metrics(&train->results, &sample);
    if (train->results.failed)
        view_note(&train->view, "gapless train: %s; the run goes on without",
                  train->results.error.text);
}

static void show(struct train *train)
{
    double now = now_seconds();

    if (train->facts.stats.state == GAPLESS_RUN_WAITING && !train->facts.stopping &&
        train->view.terminal.fd < 0)
        return; /* nothing yet to put into a log */
    if (now >= train->metrics_due && train->facts.stats.state != GAPLESS_RUN_WAITING) {
        train->metrics_due = now + METRICS_EVERY_S;
        train_metrics(train);
    }
    if (now >= train->view_due) {
        train->view_due = now + VIEW_EVERY_S;
        if (train->facts.stats.updates > 0)
            history_add(&train->facts.losses, train->facts.stats.loss);
        view_show(&train->view, &train->facts);
    }
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

void train_watch(struct train *train)
{
    while (!over(train)) {
        bool there;

        train_signals(train, TICK_S);
        there = train_look(train);
        train_workers_check(train);
        if (!there && train->failure[0] == '\0' && !train->child[0].ended) {
            if (launch_wait(train->child, 1, 2.0))
                continue; /* it died: the next check says how */
            train_fail(train, "the master (process %d) no longer answers",
                       (int)train->child[0].pid);
        }
        if (!there)
            continue;
        begin(train);
        evaluate(train);
        show(train);
        check_alone(train);
    }
    if (train->facts.stats.updates > 0 && train->view.terminal.fd >= 0)
        view_show(&train->view, &train->facts);
}
