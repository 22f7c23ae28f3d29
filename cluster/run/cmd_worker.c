/* gapless worker: takes a batch, computes its gradient at the parameters it was given,
 * hands it in; until the run is over. */
#include "cluster/terminal/canvas.h"
#include "cluster/task/evaluate.h"
#include "cluster/run/fault.h"
#include "cluster/gpus/gpus.h"
#include "cluster/task/job.h"
#include "cluster/task/network.h"
#include "cluster/options/options.h"
#include "cluster/program/program_options.h"
#include "cluster/run/reconnect.h"
#include "cluster/task/task.h"
#include "cluster/gpus/where.h"
#include "cluster/run/worker_device.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define PULL_NS 1000000000ll /* one wait; after it, has a person asked to leave? */
#define PULL_WAIT_S 600.0    /* all waits for one set of parameters together */
#define TRY_S 2.0            /* one try to find a lost master; then, shall we leave? */

struct working {
    struct settings settings;
    struct fault fault;
    struct task task;
    struct worker_compute compute;
    struct gpus *gpus; /* --group: they compute instead */
    uint32_t *index;
    float *x;
    uint8_t *label;
    struct network network;
    struct reconnect reconnect;
    struct gapless_worker *worker;
    bool takes_steps;    /* the master was asked, and wants local steps */
    struct local *local; /* of the master that was joined; NULL: it wants none */
    uint32_t wish;       /* 1 + the number that it would like to have; 0: any */
    uint64_t gradients, dropped; /* of batches */
    uint64_t handed;             /* gradients, or differences, for the master */
};

static volatile sig_atomic_t leave;

static void on_signal(int number)
{
    leave = 1;
    (void)signal(number, SIG_DFL); /* the second one is not asked about */
}

/* Is what the command line says of the task all there is to know? Then no master has to be
 * asked. */
static bool task_given(const struct settings *settings)
{
    static const char *const names[] = {"data", "model", "batch", "seed"};

    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++)
        if (options_source(settings, names[i]) != OPTION_FLAG)
            return false;
    return true;
}

/* Asks the master what is trained, as an observer: a worker that has joined is given a
 * batch at once, and one that then goes to load data would hold it for too long. */
static int ask_master(const struct working *working, struct job *ret,
                      struct gapless_error *error)
{
    const struct settings *settings = &working->settings;
    struct gapless_observer_config config = {
        .address = settings->address,
        .connect_ns = (int64_t)(settings->connect_timeout * 1e9),
        .net = working->network.net,
    };
    double end = now_seconds() + settings->connect_timeout;
    struct gapless_observer *observer;
    int status;

    while ((status = gapless_observer_open(&config, &observer, error)) ==
               GAPLESS_CAPACITY &&
           now_seconds() < end && !leave)
        (void)usleep(50000); /* other workers are asking */
    if (status != GAPLESS_OK)
        return status;
    status = job_read(gapless_observer_job(observer), ret, error);
    gapless_observer_close(observer);
    return status;
}

/* What was given on the command line or in the environment has to be what the master
 * says. */
static int check_given(const struct settings *settings, const struct job *job,
                       struct gapless_error *error)
{
    struct job given = *job;
    char data[DATA_NAME_MAX];
    const char *name;
    int status = data_absolute(settings->data, data, error);

    if (status != GAPLESS_OK)
        return status;
    status = job_set(
        options_source(settings, "data") > OPTION_DEFAULT ? data : job->data,
        job->data_dir,
        options_source(settings, "model") > OPTION_DEFAULT ? settings->model
                                                           : job->model,
        options_source(settings, "batch") > OPTION_DEFAULT ? settings->batch
                                                           : job->batch,
        options_source(settings, "seed") > OPTION_DEFAULT ? settings->seed : job->seed,
        &given, error);
    if (status != GAPLESS_OK)
        return status;
    name = job_difference(&given, job);
    if (name == NULL)
        return GAPLESS_OK;
    return gapless_error_set(error, GAPLESS_INVALID, 0,
                             "--%s is not what the master at %.80s trains (data %.40s, "
                             "model %.40s, batch %u, seed %llu): leave it out",
                             name, settings->address, job->data, job->model, job->batch,
                             (unsigned long long)job->seed);
}

static int open_task(struct working *working, struct gapless_error *error)
{
    const struct settings *settings = &working->settings;
    struct job job;
    int status;

    char data[DATA_NAME_MAX];

    status = data_absolute(settings->data, data, error);
    if (status != GAPLESS_OK)
        return status;
    if (task_given(settings))
        status = job_set(data, settings->data_dir, settings->model, settings->batch,
                         settings->seed, &job, error);
    else
        status = ask_master(working, &job, error);
    if (status == GAPLESS_OK)
        status = check_given(settings, &job, error);
    if (status == GAPLESS_OK)
        working->takes_steps = job.local[0] != '\0';
    if (status == GAPLESS_OK && settings->data_dir != NULL)
        status = job_set(job.data, settings->data_dir, job.model, job.batch, job.seed,
                         &job, error);
    if (status == GAPLESS_OK)
        status = task_open(&job, settings->data_fd, &working->task, error);
    return status;
}

static int open_group(struct working *working, struct gapless_error *error)
{
    struct gpus_config config = {.task = &working->task};
    int status = gpus_where(&working->settings, "device", &config.device, error);

    return status == GAPLESS_OK ? gpus_open(&config, &working->gpus, error) : status;
}

static int open_buffers(struct working *working, struct gapless_error *error)
{
    const struct task *task = &working->task;
    const char *device = working->settings.device;
    uint32_t batch = task->sampler.batch < task->sampler.samples
                         ? task->sampler.batch
                         : task->sampler.samples;

    if (working->settings.group != NULL)
        return open_group(working, error);
    working->index = calloc(batch, sizeof *working->index);
    working->x = calloc((size_t)batch * task->data->features, sizeof *working->x);
    working->label = calloc(batch, sizeof *working->label);
    if (working->index == NULL || working->x == NULL || working->label == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for a batch of %u samples", batch);
    if (working->takes_steps && strcmp(device, "auto") == 0)
        device = "cpu";
    return worker_compute_open(device, &task->model, batch, &working->compute, error);
}

/* What the master asks of its workers between two exchanges; they begin anew. */
static int open_local(struct working *working, const struct job *job,
                      struct gapless_error *error)
{
    struct local_plan plan;
    int status = local_read(job->local, &plan, error);

    local_free(working->local);
    working->local = NULL;
    if (status != GAPLESS_OK || plan.steps == 0)
        return status;
    if (working->gpus != NULL || working->compute.gpu != NULL)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "the master at %.80s asks for local steps, which are "
                                 "taken on the CPU only: start this worker with "
                                 "--device cpu%s",
                                 working->settings.address,
                                 working->gpus != NULL ? ", without --group" : "");
    return local_new(&plan, &working->task.shape, &working->local, error);
}

static int join(struct working *working, double connect_s, struct gapless_error *error)
{
    struct gapless_worker_config config = {
        .address = working->settings.address,
        .model = working->task.shape,
        .wish = working->wish,
        .connect_ns = (int64_t)(connect_s * 1e9),
        .wait_ns = PULL_NS,
        .params = working->gpus != NULL ? gpus_params(working->gpus)
                                        : worker_compute_params(&working->compute),
        .grad = working->gpus != NULL ? gpus_grad(working->gpus)
                                      : worker_compute_grad(&working->compute),
        .allow_staging = working->settings.allow_staging,
        .net = working->network.net,
    };
    struct job job;
    const char *name;
    int status = gapless_worker_open(&config, &working->worker, error);

    if (status == GAPLESS_OK)
        status = job_read(gapless_worker_job(working->worker), &job, error);
    if (status != GAPLESS_OK)
        return status;
    name = job_difference(&job, &working->task.job);
    if (name == NULL) {
        working->wish = 1 + gapless_worker_number(working->worker); /* next time, too */
        return open_local(working, &job, error);
    }
    status = check_given(&working->settings, &job, error);
    if (status != GAPLESS_OK) /* no master was asked before */
        return status;
    return gapless_error_set(error, GAPLESS_MODEL, 0,
                             "the master at %.80s trains something else by now, its "
                             "%s is not what this worker has: start it again",
                             working->settings.address, name);
}

static int pull(struct working *working, uint64_t *ret_batch,
                struct gapless_error *error)
{
    double end = now_seconds() + PULL_WAIT_S;
    int status;

    do
        status = gapless_worker_pull(working->worker, ret_batch, error);
    while (status == GAPLESS_TIMEOUT && !leave && now_seconds() < end);
    return leave ? GAPLESS_STOPPED : status;
}

/* Faults on purpose strike a word of the host; a gradient may be of a GPU. */
static int strike(struct working *working, float *grad, struct gapless_error *error)
{
    float word = 0.0F;

    fault_strike(&working->fault, gapless_worker_number(working->worker),
                 working->handed, &word);
    if (!isnan(word))
        return GAPLESS_OK;
    return working->gpus != NULL
               ? gpus_poison(working->gpus, error)
               : worker_compute_poison(&working->compute, grad, error);
}

static int one_gradient(void *context, uint64_t batch, const float *params, float *grad,
                        double *ret_loss, struct gapless_error *error)
{
    struct working *working = context;
    const struct task *task = &working->task;
    uint32_t count;

    working->gradients++;
    if (working->gpus != NULL)
        return gpus_gradient(working->gpus, batch, ret_loss, error);
    sampler_batch(&task->sampler, batch, working->index, &count);
    data_gather(task->data, DATA_TRAIN, working->index, count, working->x,
                working->label);
    return worker_compute_gradient(&working->compute, params, working->x,
                                   working->label, count, grad, ret_loss, error);
}

static int compute(struct working *working, uint64_t batch, double *ret_loss,
                   struct gapless_error *error)
{
    const float *params = gapless_worker_params(working->worker);
    float *grad = gapless_worker_grad(working->worker);
    int status;

    if (working->local != NULL)
        status =
            local_exchange(working->local, batch, gapless_worker_steps(working->worker),
                           params, one_gradient, working, grad, ret_loss, error);
    else
        status = one_gradient(working, batch, params, grad, ret_loss, error);
    working->handed++;
    return status == GAPLESS_OK ? strike(working, grad, error) : status;
}

static int push(struct working *working, uint64_t batch, struct gapless_error *error)
{
    double loss = 0.0;
    int status = compute(working, batch, &loss, error);

    if (status == GAPLESS_OK)
        status = gapless_worker_push(working->worker, loss, error);
    if (status != GAPLESS_NOT_FINITE)
        return status;
    if (working->dropped == 0)
        report_failure("worker",
                       WORKER_NAME
                       ": gradient %llu is not finite and was dropped (others "
                       "will be counted, not printed)",
                       gapless_worker_number(working->worker),
                       (unsigned long long)working->handed);
    working->dropped += gapless_worker_steps(working->worker);
    return GAPLESS_OK;
}

static int work(struct working *working, struct gapless_error *error)
{
    uint64_t batch = 0;
    int status;

    do {
        status = pull(working, &batch, error);
        if (status == GAPLESS_OK)
            status = push(working, batch, error);
        if (status == GAPLESS_OK)
            reconnect_proven(&working->reconnect);
    } while (status == GAPLESS_OK);
    return status == GAPLESS_STOPPED ? GAPLESS_OK : status;
}

/* ---- when the master is lost --------------------------------------------- */

static double chance(void)
{
    uint32_t bits = 0;

    (void)getrandom(&bits, sizeof bits, GRND_NONBLOCK); /* without it: all alike */
    return (double)bits / (double)UINT32_MAX;
}

/* In pieces, so that a signal is noticed soon. */
static void wait_for(double seconds)
{
    double end = now_seconds() + seconds;

    while (now_seconds() < end && !leave)
        (void)usleep(20000);
}

/* Joins the master that is there now, if it trains the same; gives up at the limit. The
 * error is that of the last try. */
static int rejoin(struct working *working, struct gapless_error *error)
{
    struct reconnect *reconnect = &working->reconnect;
    int status = GAPLESS_PEER_LOST;
    double pause;

    while (reconnect_hopeful(status) && !leave &&
           (pause = reconnect_pause(reconnect, now_seconds(), chance())) >= 0.0) {
        double left;

        wait_for(pause);
        if (leave)
            return GAPLESS_STOPPED;
        left = reconnect_left(reconnect, now_seconds());
        /* After a join that failed half-way: another job is there now. */
        gapless_worker_close(working->worker);
        working->worker = NULL;
        status = join(working, left < TRY_S ? left : TRY_S, error);
    }
    return leave ? GAPLESS_STOPPED : status;
}

static int lost_for_good(const struct working *working, struct gapless_error *error)
{
    struct gapless_error reason = *error;

    return gapless_error_set(
        error, GAPLESS_PEER_LOST, 0,
        "the master at %.80s was lost and did not come back within "
        "%g s: see whether it runs, start it and then this worker again, or wait "
        "longer: --reconnect SECONDS. The last try: %.160s",
        working->settings.address, working->reconnect.limit, reason.text);
}

/* Works until the run is over, through losses of the master if so asked. */
static int work_on(struct working *working, struct gapless_error *error)
{
    struct reconnect *reconnect = &working->reconnect;
    int status = work(working, error);

    while (status == GAPLESS_PEER_LOST && reconnect->limit > 0.0 && !leave) {
        reconnect_lost(reconnect, now_seconds());
        report_failure("worker", "%s; looking for it again for %.3g s", error->text,
                       reconnect_left(reconnect, now_seconds()));
        gapless_worker_close(working->worker);
        working->worker = NULL;
        status = rejoin(working, error);
        if (status == GAPLESS_STOPPED)
            return GAPLESS_OK;
        if (status != GAPLESS_OK)
            return reconnect_hopeful(status) ? lost_for_good(working, error) : status;
        reconnect_joined(reconnect);
        report_failure("worker", "joined %s again, as " WORKER_NAME,
                       working->settings.address,
                       gapless_worker_number(working->worker));
        status = work(working, error);
    }
    return status;
}

/* A GPU that hangs keeps its thread, and that everything else. */
static void close_group(struct working *working)
{
    struct gapless_error error = {0};

    if (gpus_close(working->gpus, &error))
        return;
    report_failure("worker", "%s", error.text);
    (void)fflush(NULL);
    _exit(EXIT_FAILED);
}

static void close_all(struct working *working)
{
    gapless_worker_close(working->worker); /* a group that failed leaves, too */
    close_group(working);
    network_close(&working->network);
    worker_compute_close(&working->compute);
    local_free(working->local);
    free(working->label);
    free(working->x);
    free(working->index);
    task_close(&working->task);
}

static void say_joined(const struct working *working)
{
    char link[512] = "";

    if (working->settings.quiet)
        return;
    (void)printf("gapless worker: joined %s as " WORKER_NAME "\n",
                 working->settings.address, gapless_worker_number(working->worker));
    gapless_worker_link(working->worker, link, sizeof link);
    if (link[0] != '\0')
        (void)printf("gapless worker: %s\n", link);
    if (working->gpus != NULL) {
        gpus_describe(working->gpus, link, sizeof link);
        (void)printf("gapless worker: a group of %s\n", link);
    }
    if (working->compute.gpu != NULL) {
        gapless_worker_device(working->worker, link, sizeof link);
        (void)printf("gapless worker: gradients on %s\n", link);
    }
    (void)fflush(stdout);
}

static void say_end(const struct working *working)
{
    if (working->settings.quiet)
        return;
    (void)printf("gapless worker: %s gradients, %s of them not finite",
                 word_count(working->gradients).text,
                 word_count(working->dropped).text);
    if (working->reconnect.times > 0)
        (void)printf("; the master was lost and found again %s time%s",
                     word_count(working->reconnect.times).text,
                     working->reconnect.times > 1 ? "s" : "");
    (void)printf("\n");
}

int cmd_worker(int argc, char **argv)
{
    static struct working working;
    struct sigaction action = {.sa_handler = on_signal};
    struct gapless_error error = {0};
    int status, code;

    if (!program_options(FOR_WORKER, argc, argv, &working.settings, &code))
        return code;
    working.reconnect = reconnect_new(working.settings.reconnect);
    if (options_source(&working.settings, "number") != OPTION_UNSET)
        working.wish = 1 + working.settings.number;
    status = fault_parse(getenv("GAPLESS_FAULT"), &working.fault, &error);
    if (status == GAPLESS_OK)
        status = network_open(&working.settings, &working.network, &error);
    if (status == GAPLESS_OK)
        status = open_task(&working, &error);
    if (status == GAPLESS_OK)
        status = open_buffers(&working, &error);
    if (status == GAPLESS_OK)
        status = join(&working, working.settings.connect_timeout, &error);
    if (status == GAPLESS_OK) {
        /* Before, there is nothing to leave in order: a signal ends the process at once,
         * however long it may look for a master. */
        (void)sigaction(SIGINT, &action, NULL);
        (void)sigaction(SIGTERM, &action, NULL);
        say_joined(&working);
        status = work_on(&working, &error);
    }
    if (status == GAPLESS_OK)
        say_end(&working);
    close_all(&working);
    if (status == GAPLESS_OK)
        return EXIT_DONE;
    (void)report_error("worker", &error);
    if (status == GAPLESS_PEER_LOST && working.reconnect.since >= 0.0)
        return EXIT_LOST;
    return status == GAPLESS_INVALID ? EXIT_MISUSE : EXIT_FAILED;
}
