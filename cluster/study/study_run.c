/* Runs the trials of a study: a process each, a few at a time, the longest first. */
#include "cluster/study/study.h"

#include "cluster/program/program.h"
#include "cluster/task/evaluate.h"
#include "cluster/task/results.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TICK_S 0.1
#define LOOK_EVERY_S 1.0 /* into the metrics of trials that run */
#define CSV_EVERY_S 5.0  /* and not more often than that... */
#define CSV_SHARE 20.0   /* ...it takes one part in this many of the time */
#define CHILD_END_S 3.0  /* for a child to write what it has */
#define NOTES_MAX 10u    /* failures that are reported; the rest is counted */
#define LEFT_KNOWN_S 2.0 /* before this nothing is said of the time left */

struct pool {
    struct study_run *run;
    struct child *child; /* `jobs` of them */
    size_t *trial;       /* of each child */
    size_t *order;       /* trials to run, the longest first */
    size_t pending, next, running;
    size_t done, failed; /* of all trials */
    double work, work_done, work_going;
    double start, look_due, csv_due;
    bool csv_stale;
    unsigned reported; /* failures */
    bool ending;       /* what ends now was ended */
};

/* ---- one trial ----------------------------------------------------------- */

static bool make_arguments(const struct study_run *run, const struct trial *trial,
                           const char *folder, struct launch_arguments *ret)
{
    static const char *const except[] = {"out",      "data-fd", "threads",  "quiet",
                                         "no-color", "help",    "launched", NULL};
    struct settings settings;
    int data_fd = check_data_fd(run->check, trial);

    return launch_argument(ret, "gapless") && launch_argument(ret, "simulate") &&
           plan_settings(run->plan, trial, &settings) &&
           options_emit(&settings, FOR_SIMULATE, except, ret->text,
                        LAUNCH_ARGUMENTS_MAX, &ret->count) &&
           launch_argument(ret, "--out=%s", folder) &&
           launch_argument(ret, "--threads=1") && launch_argument(ret, "--launched") &&
           (data_fd < 0 || launch_argument(ret, "--data-fd=%d", data_fd)) &&
           launch_argument(ret, "--quiet");
}

static int start_trial(struct pool *pool, uint32_t slot, size_t index,
                       struct gapless_error *error)
{
    struct study_run *run = pool->run;
    struct trial *trial = &run->plan->trial[index];
    struct launch_arguments arguments = {{NULL}, 0};
    char folder[RESULTS_PATH_MAX];
    int status = trial_prepare(run->plan, run->folder, trial, error);

    if (status != GAPLESS_OK)
        return status;
    (void)trial_path(run->folder, trial, NULL, folder, sizeof folder);
    if (make_arguments(run, trial, folder, &arguments))
        status = launch_child("run", folder, arguments.text, &pool->child[slot], error);
    else
        status =
            gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory to start a run");
    launch_arguments_free(&arguments);
    if (status != GAPLESS_OK)
        return status;
    trial->state = TRIAL_RUNNING;
    pool->trial[slot] = index;
    pool->running++;
    return GAPLESS_OK;
}

static void tell_failure(struct pool *pool, const struct child *child,
                         const struct trial *trial)
{
    char how[80], words[400];

    if (pool->reported == NOTES_MAX)
        show_note(&pool->run->show,
                  "more runs failed: see %s/cells/*/run.log and the column status of "
                  "study.csv",
                  pool->run->folder);
    if (pool->reported++ >= NOTES_MAX)
        return;
    launch_describe(child, how, sizeof how);
    launch_last_words(child, words, sizeof words);
    if (WIFEXITED(child->status) && WEXITSTATUS(child->status) == 0)
        (void)snprintf(how, sizeof how, "ended, but its result.json is not whole");
    show_note(&pool->run->show, "%s %s%s%s", trial->name, how,
              words[0] != '\0' ? "; its last words: " : "", words);
}

/* Takes in what a child left that has ended. */
static void end_trial(struct pool *pool, uint32_t slot)
{
    struct study_run *run = pool->run;
    struct child *child = &pool->child[slot];
    struct trial *trial = &run->plan->trial[pool->trial[slot]];
    bool good = WIFEXITED(child->status) && WEXITSTATUS(child->status) == 0;
    char folder[RESULTS_PATH_MAX];

    trial_look(run->plan, run->folder, trial, run->target);
    /* It writes its result last: one that was whole when we ended it is whole. So is one of
     * a run that diverged, which ends with a code of its own. */
    good = good || (trial->state == TRIAL_DONE &&
                    (pool->ending || (WIFEXITED(child->status) &&
                                      WEXITSTATUS(child->status) == EXIT_FAILED &&
                                      trial->result.ended_early)));
    if (!good && trial->state == TRIAL_DONE &&
        trial_path(run->folder, trial, "result.json", folder, sizeof folder))
        (void)unlink(folder); /* the rest of its files is not whole: run it again */
    if (good && trial->state == TRIAL_DONE) {
        pool->done++;
    } else if (pool->ending) {
        trial->state = TRIAL_MISSING;
    } else {
        trial->state = TRIAL_FAILED;
        pool->failed++;
        tell_failure(pool, child, trial);
    }
    pool->work_done += trial->work;
    pool->csv_stale = true;
    pool->running--;
    if (trial_path(run->folder, trial, NULL, folder, sizeof folder))
        launch_tidy(child, 1, folder);
    memset(child, 0, sizeof *child);
}

/* ---- all of them --------------------------------------------------------- */

static int fill_slots(struct pool *pool, struct gapless_error *error)
{
    int status = GAPLESS_OK;

    for (uint32_t i = 0; i < pool->run->jobs && status == GAPLESS_OK; i++)
        if (pool->child[i].pid == 0 && pool->next < pool->pending)
            status = start_trial(pool, i, pool->order[pool->next++], error);
    return status;
}

static void reap(struct pool *pool)
{
    if (!launch_reap(pool->child, pool->run->jobs))
        return;
    for (uint32_t i = 0; i < pool->run->jobs; i++)
        if (pool->child[i].pid > 0 && pool->child[i].ended)
            end_trial(pool, i);
}

/* Ctrl-Z: children have process groups of their own, and stop with this one. */
static void suspend(struct pool *pool)
{
    show_leave(&pool->run->show);
    launch_signal(pool->child, pool->run->jobs, SIGSTOP);
    (void)raise(SIGSTOP); /* and here it goes on after SIGCONT */
    launch_signal(pool->child, pool->run->jobs, SIGCONT);
}

static void wait_signal(struct pool *pool, double seconds)
{
    struct timespec wait = {(time_t)seconds, (long)((seconds - floor(seconds)) * 1e9)};
    int number = sigtimedwait(&pool->run->signals, NULL, &wait);

    if (number == SIGINT || number == SIGTERM || number == SIGHUP)
        pool->run->signal = number;
    else if (number == SIGTSTP)
        suspend(pool);
}

static void show(struct pool *pool)
{
    double now = now_seconds(), elapsed = now - pool->start, share;
    struct study_counts counts = {
        .trials = pool->run->plan->trials,
        .done = pool->done,
        .failed = pool->failed,
        .running = pool->running,
        .seconds = (double)NAN,
    };

    if (pool->run->show.quiet)
        return;
    if (now >= pool->look_due) {
        pool->look_due = now + LOOK_EVERY_S;
        pool->work_going = 0.0;
        for (uint32_t i = 0; i < pool->run->jobs; i++)
            if (pool->child[i].pid > 0) {
                const struct trial *trial = &pool->run->plan->trial[pool->trial[i]];

                pool->work_going +=
                    trial->work *
                    trial_progress(pool->run->plan, pool->run->folder, trial);
            }
    }
    share = pool->work > 0.0 ? (pool->work_done + pool->work_going) / pool->work : 0.0;
    counts.share = share < 1.0 ? share : 1.0;
    if (elapsed > LEFT_KNOWN_S && share > 0.0)
        counts.seconds = elapsed * (1.0 - counts.share) / share;
    show_progress(&pool->run->show, &counts, now);
}

static int write_csv(struct pool *pool, struct gapless_error *error)
{
    double before = now_seconds(), after;
    int status;

    if (!pool->csv_stale || before < pool->csv_due)
        return GAPLESS_OK;
    status = study_csv(pool->run->plan, pool->run->folder, error);
    after = now_seconds();
    pool->csv_stale = false;
    pool->csv_due = after + CSV_EVERY_S + CSV_SHARE * (after - before);
    return status;
}

static int go(struct pool *pool, struct gapless_error *error)
{
    int status = GAPLESS_OK;

    while (status == GAPLESS_OK && pool->run->signal == 0) {
        status = fill_slots(pool, error);
        if (status == GAPLESS_OK && pool->running == 0)
            break;
        show(pool);
        wait_signal(pool, TICK_S);
        reap(pool);
        if (status == GAPLESS_OK)
            status = write_csv(pool, error);
    }
    pool->ending = true;
    if (pool->running > 0) {
        launch_end(pool->child, pool->run->jobs, CHILD_END_S);
        reap(pool);
        for (uint32_t i = 0; i < pool->run->jobs;
             i++) /* those that launch_end reaped */
            if (pool->child[i].pid > 0 && pool->child[i].ended)
                end_trial(pool, i);
    }
    show(pool);
    show_leave(&pool->run->show);
    if (status == GAPLESS_OK && pool->run->signal != 0)
        status = gapless_error_set(error, GAPLESS_STOPPED, 0, "stopped");
    return status;
}

/* ---- before -------------------------------------------------------------- */

static const struct plan *sorted; /* for by_work: qsort has no context */

/* The longest first, so that at the end none is waited for alone; else in order. */
static int by_work(const void *a, const void *b)
{
    size_t left = *(const size_t *)a, right = *(const size_t *)b;
    double x = sorted->trial[left].work, y = sorted->trial[right].work;

    if (x > y || x < y)
        return x > y ? -1 : 1;
    return (left > right) - (left < right);
}

static void take_in(struct pool *pool)
{
    const struct plan *plan = pool->run->plan;

    for (size_t i = 0; i < plan->trials; i++) {
        if (plan->trial[i].state == TRIAL_DONE) {
            pool->done++;
            continue;
        }
        pool->order[pool->pending++] = i;
        pool->work += plan->trial[i].work;
    }
    sorted = plan;
    qsort(pool->order, pool->pending, sizeof *pool->order, by_work);
}

/* What stands in the environment must not leak into the runs: a trial is what its
 * cell.txt says. A process each: threads inside them would fight for the same cores. */
static void set_environment(void)
{
    bool again = true;

    while (again) {
        again = false;
        for (char **at = environ; *at != NULL && !again; at++) {
            char name[128];

            if (strncmp(*at, "GAPLESS_", 8) != 0 || strcspn(*at, "=") >= sizeof name)
                continue; /* no option has so long a name */
            (void)snprintf(name, sizeof name, "%.*s", (int)strcspn(*at, "="), *at);
            again = unsetenv(name) == 0;
        }
    }
    (void)setenv("OPENBLAS_NUM_THREADS", "1", 1);
    (void)setenv("OMP_NUM_THREADS", "1", 1);
}

int study_run(struct study_run *run, struct gapless_error *error)
{
    struct pool pool = {.run = run, .start = now_seconds()};
    int status;

    pool.child = calloc(run->jobs, sizeof *pool.child);
    pool.trial = calloc(run->jobs, sizeof *pool.trial);
    pool.order = calloc(run->plan->trials, sizeof *pool.order);
    if (pool.child != NULL && pool.trial != NULL && pool.order != NULL) {
        take_in(&pool);
        set_environment();
        status = go(&pool, error);
    } else {
        status = gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory");
    }
    free(pool.child);
    free(pool.trial);
    free(pool.order);
    return status;
}
