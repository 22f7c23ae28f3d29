/* The processes of a run: the master's and the workers' command lines, and what is said
 * when one of them ends. */
#include "cluster/train/train.h"

#include "cluster/program/program.h"
#include "cluster/train/train_group.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define RECONNECT_S 60.0 /* for a master that died and is started again */
/* Between two looks at the processes and at signals. Over a network twice as long after each
 * try that was in vain, and at most CONNECT_MOST_NS: a slow machine may not answer within
 * less. */
#define CONNECT_TRY_NS 200000000ll
#define CONNECT_MOST_NS 5000000000ll
#define LOST_WAIT_S 0.2 /* for a master to have ended that a worker has lost */

void train_fail(struct train *train, const char *format, ...)
{
    va_list list;

    if (train->failure[0] != '\0')
        return;
    va_start(list, format);
    (void)vsnprintf(train->failure, sizeof train->failure, format, list);
    va_end(list);
}

/* ---- starting ------------------------------------------------------------ */

/* Not among the options that were read where it was made for this run. */
static bool token_argument(const struct train *train, struct launch_arguments *ret)
{
    return train->settings.token_file == NULL ||
           launch_argument(ret, "--token-file=%s", train->settings.token_file);
}

/* Before any is started: all of them. */
static uint32_t workers_running(const struct train *train)
{
    uint32_t count = 0;

    for (uint32_t i = 1; i < train->children; i++)
        count += train->child[i].pid == 0 || !train->child[i].ended;
    return count;
}

static bool master_arguments(const struct train *train, struct launch_arguments *ret)
{
    const struct settings *settings = &train->settings;
    /* The master tells a span that was asked for from its own default, which a GPU has not. */
    bool every = options_source(settings, "save-every") > OPTION_DEFAULT;
    const char *const except[] = {
        "address", "transport",    "listen",  "token-file", "out",
        "quiet",   "workers-wait", "data-fd", "launched",   "resume",
        "init",    "record",       "run-id",  "metrics",    every ? NULL : "save-every",
        NULL};
    bool again = train->restarted > 0;
    const char *resume = again ? train->folder : settings->resume;

    return launch_argument(ret, "gapless") && launch_argument(ret, "master") &&
           options_emit(&train->settings, FOR_MASTER, except, ret->text,
                        LAUNCH_ARGUMENTS_MAX, &ret->count) &&
           launch_argument(ret, "--address=%s", train->address) &&
           token_argument(train, ret) &&
           launch_argument(ret, "--out=%s", train->folder) &&
           (resume == NULL || launch_argument(ret, "--resume=%s", resume)) &&
           (again || settings->init == NULL ||
            launch_argument(ret, "--init=%s", settings->init)) &&
           (again || settings->record == NULL ||
            launch_argument(ret, "--record=%s", settings->record)) &&
           launch_argument(ret, "--workers-wait=%u", workers_running(train)) &&
           launch_argument(ret, "--data-fd=%d", train->data_fd) &&
           launch_argument(ret, "--run-id=%s", train->run_id) &&
           launch_argument(ret, "--launched") && launch_argument(ret, "--quiet");
}

static void say_places(const struct worker_places *places)
{
    uint32_t i;

    (void)printf("gapless train: workers compute on cuda:%u", places->number[0]);
    for (i = 1; i < places->gpus; i++)
        (void)printf(", cuda:%u", places->number[i]);
    (void)printf("%s\n", places->gpus > 1 ? ", in turn" : "");
    (void)fflush(stdout);
}

int train_places(struct train *train, struct gapless_error *error)
{
    const char *where = train->settings.worker_device;
    int status;

    if (train->settings.group != NULL)
        return train_group_places(train, error);
    if (train->settings.local_steps > 0 && strcmp(where, "auto") == 0)
        where = "cpu";
    if (train->settings.local_steps > 0 && strcmp(where, "cpu") != 0)
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "--worker-device %.60s is not for --local-steps, which "
            "workers take on the CPU only: leave one of them out",
            where);
    status = worker_places(where, &train->task.model, &train->places, error);
    if (status == GAPLESS_OK && train->places.note[0] != '\0')
        report_failure("train", "workers: %s", train->places.note);
    if (status == GAPLESS_OK && train->places.gpus > 0 && !train->settings.quiet)
        say_places(&train->places);
    return status;
}

/* --device of a worker: of several GPUs each takes one in turn. */
static bool device_argument(const struct train *train, uint32_t worker,
                            struct launch_arguments *ret)
{
    const struct worker_places *places = &train->places;

    if (train->settings.group != NULL)
        return train_group_argument(train, worker, ret);
    if (places->gpus == 0)
        return launch_argument(ret, "--device=cpu");
    return launch_argument(ret, "--device=cuda:%u",
                           places->number[worker % places->gpus]);
}

static bool worker_arguments(const struct train *train, uint32_t worker,
                             struct launch_arguments *ret)
{
    static const char *const except[] = {"master", "transport",       "token-file",
                                         "quiet",  "connect-timeout", "data-fd",
                                         "device", "reconnect",       NULL};

    return launch_argument(ret, "gapless") && launch_argument(ret, "worker") &&
           options_emit(&train->settings, FOR_WORKER, except, ret->text,
                        LAUNCH_ARGUMENTS_MAX, &ret->count) &&
           device_argument(train, worker, ret) &&
           launch_argument(ret, "--master=%s", train->address) &&
           token_argument(train, ret) &&
           launch_argument(ret, "--connect-timeout=%g", TRAIN_CONNECT_S) &&
           launch_argument(ret, "--data-fd=%d", train->data_fd) &&
           (train->settings.restarts == 0 ||
            launch_argument(ret, "--reconnect=%g", RECONNECT_S)) &&
           launch_argument(ret, "--number=%u", worker) &&
           launch_argument(ret, "--quiet");
}

int train_start_one(struct train *train, uint32_t index, struct gapless_error *error)
{
    struct launch_arguments arguments = {{NULL}, 0};
    char name[24] = "master";
    bool made;
    int status;

    if (index > 0)
        (void)snprintf(name, sizeof name, WORKER_NAME, index - 1);
    made = index == 0 ? master_arguments(train, &arguments)
                      : worker_arguments(train, index - 1, &arguments);
    if (made)
        status = launch_child(name, train->log_folder, arguments.text,
                              &train->child[index], error);
    else
        status = gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                   "no memory to start processes");
    launch_arguments_free(&arguments);
    return status;
}

int train_start(struct train *train, struct gapless_error *error)
{
    int status = results_folder(train->log_folder, error);

    /* A process each: threads inside them would only fight for the same cores. */
    (void)setenv("OPENBLAS_NUM_THREADS", "1", 1);
    (void)setenv("OMP_NUM_THREADS", "1", 1);
    for (uint32_t i = 0; status == GAPLESS_OK && i < train->children; i++)
        status = train_start_one(train, i, error);
    return status;
}

/* ---- watching ------------------------------------------------------------ */

static void describe(const struct child *child, char *ret, size_t max)
{
    char how[80], words[400];

    launch_describe(child, how, sizeof how);
    launch_last_words(child, words, sizeof words);
    (void)snprintf(ret, max, "%s (process %d) %s%s%s", child->name, (int)child->pid,
                   how, words[0] != '\0' ? "; its last words: " : "", words);
}

static bool run_over(const struct train *train)
{
    return train->facts.stats.state >= GAPLESS_RUN_ENDING;
}

int train_observe(struct train *train, struct gapless_error *error)
{
    struct gapless_observer_config config = {
        .address = train->address,
        .connect_ns = train->try_ns > 0 ? train->try_ns : CONNECT_TRY_NS,
        .net = train->network.net,
    };

    if (train->observer != NULL)
        return GAPLESS_OK;
    return gapless_observer_open(&config, &train->observer, error);
}

static void worker_ended(struct train *train, struct child *child)
{
    char what[560];

    if (WIFEXITED(child->status) && WEXITSTATUS(child->status) == EXIT_DONE)
        return; /* it was informed that the run is over */
    /* The statistics may be older than the death: a worker can join, work and die
     * between two looks, or before the first. */
    if (train->facts.stats.state == GAPLESS_RUN_WAITING &&
        train_observe(train, NULL) == GAPLESS_OK)
        (void)train_look(train);
    if (run_over(train) || train->failure[0] != '\0')
        return;
    /* Who lost the master is no news when the master is gone: that is said next. */
    if (WIFEXITED(child->status) && WEXITSTATUS(child->status) == EXIT_LOST &&
        launch_wait(train->child, 1, LOST_WAIT_S))
        return;
    describe(child, what, sizeof what);
    train->lost++;
    if (train->facts.stats.state == GAPLESS_RUN_WAITING && train->signal == 0) {
        train_fail(train, "the run cannot begin: %s", what);
        return;
    }
    view_note(&train->view, "gapless train: %s; the run goes on with %u", what,
              workers_running(train));
}

/* Settings that the master has refused are refused in its words alone: nobody has
 * started a master. */
static void master_ended(struct train *train)
{
    static const char own[] = "gapless master: ";
    const struct child *master = &train->child[0];
    char what[560];

    if (WIFEXITED(master->status) && WEXITSTATUS(master->status) == EXIT_MISUSE) {
        launch_last_words(master, what, sizeof what);
        if (strncmp(what, own, sizeof own - 1) == 0) {
            train_fail(train, "%s", what + sizeof own - 1);
            return;
        }
    }
    describe(master, what, sizeof what);
    if (!train_restart(train, what))
        train_fail(train, "the run ended early: %s", what);
}

void train_workers_check(struct train *train)
{
    (void)launch_reap(train->child, train->children);
    if (train->child[0].ended && !train->child[0].seen) { /* why the others end */
        train->child[0].seen = true;
        master_ended(train);
    }
    for (uint32_t i = 1; i < train->children; i++)
        if (train->child[i].ended && !train->child[i].seen) {
            train->child[i].seen = true;
            worker_ended(train, &train->child[i]);
        }
}

int train_connect(struct train *train, struct gapless_error *error)
{
    bool mapped = strncmp(train->address, "shm:", 4) == 0; /* is there, or is not */
    double end = now_seconds() + TRAIN_CONNECT_S;
    int status;

    train->try_ns = CONNECT_TRY_NS;
    do {
        train_signals(train, 0.01);
        train_workers_check(train);
        if (train->failure[0] != '\0')
            return gapless_error_set(error, GAPLESS_PEER_LOST, 0, "%.230s",
                                     train->failure);
        if (train->signal != 0)
            return gapless_error_set(error, GAPLESS_STOPPED, 0, "stopped");
        status = train_observe(train, error);
        if (!mapped && 2 * train->try_ns <= CONNECT_MOST_NS)
            train->try_ns *= 2;
    } while (status != GAPLESS_OK && now_seconds() < end);
    train->try_ns = 0; /* the usual */
    return status;
}
