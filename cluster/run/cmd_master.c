/* gapless master: keeps the parameters of a run, until it is over; then writes them and
 * serves observers a little longer. */
#include "cluster/task/config.h"
#include "cluster/options/device_choice.h"
#include "cluster/task/evaluate.h"
#include "cluster/task/job.h"
#include "cluster/task/network.h"
#include "cluster/options/options.h"
#include "cluster/program/program.h"
#include "cluster/task/results.h"
#include "cluster/task/task.h"
#include "cluster/terminal/view.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SLICE_NS 200000000ll /* between two looks at the terminal */
#define LINGER_S 10.0        /* after the end, for observers that stay */

struct serving {
    struct settings settings;
    struct task task;
    struct gapless_master_config config;
    struct network network;
    char address[ADDRESS_MAX]; /* where it had to be found */
    struct gapless_master *master;
    struct gapless_worker_stats *worker;
    struct view view;
    struct view_facts facts;
    char folder[RESULTS_PATH_MAX];
    double start;
    bool observed; /* somebody was there to see it */
    pid_t parent;
};

static struct gapless_master *stop_this; /* what the signals stop */

static void on_signal(int number)
{
    static volatile sig_atomic_t before;

    if (stop_this != NULL && !(before && number == SIGINT)) {
        before = 1;
        gapless_master_stop(stop_this);
        return;
    }
    (void)signal(number, SIG_DFL);
    (void)raise(number);
}

static void catch_signals(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action = {.sa_handler = on_signal};

    for (unsigned i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        (void)sigaction(numbers[i], &action, NULL);
}

/* What the library has to say while it runs: above the live view, or on stderr. */
static void log_line(void *context, const char *line)
{
    view_note(context, "gapless master: %s", line);
}

static int open_task(struct serving *serving, char *ret_job,
                     struct gapless_error *error)
{
    const struct settings *settings = &serving->settings;
    char folder[4096];
    struct job job;
    int status;

    if (settings->data_dir != NULL && realpath(settings->data_dir, folder) == NULL)
        return gapless_error_set(error, GAPLESS_MISSING, 0,
                                 "--data-dir %.150s is not there", settings->data_dir);
    status = job_set(settings->data, settings->data_dir != NULL ? folder : NULL,
                     settings->model, settings->batch, settings->seed, &job, error);
    if (status == GAPLESS_OK)
        status = job_write(&job, ret_job, error);
    if (status == GAPLESS_OK)
        status = task_open(&job, settings->data_fd, &serving->task, error);
    return status;
}

/* The CPU, or GPUs that are there. */
static int choose_device(struct serving *serving, struct gapless_error *error)
{
    char note[512];
    uint32_t gpus;
    int status = device_settle(serving->settings.device, &serving->settings.device,
                               &gpus, note, sizeof note, error);

    if (status == GAPLESS_OK && note[0] != '\0')
        report_failure("master", "%s", note);
    return status;
}

/* Where it listens, and with which token; before anything that takes long. */
static int open_network(struct serving *serving, const char **ret_address,
                        struct gapless_error *error)
{
    int status = network_open(&serving->settings, &serving->network, error);

    if (status == GAPLESS_OK)
        status =
            network_listen(&serving->settings, serving->address, ret_address, error);
    return status;
}

static int open_master(struct serving *serving, struct gapless_error *error)
{
    const char *address = NULL;
    static char job[GAPLESS_JOB_MAX];
    char *note = NULL;
    float *initial = NULL;
    uint64_t total = 0;
    int status = choose_device(serving, error);

    if (status == GAPLESS_OK)
        status = open_network(serving, &address, error);
    if (status == GAPLESS_OK)
        status = open_task(serving, job, error);
    if (status == GAPLESS_OK && serving->settings.out != NULL)
        status =
            results_check(serving->settings.out, serving->task.model.parameters, error);
    if (status == GAPLESS_OK)
        status =
            task_gradients(&serving->task, serving->settings.epochs, &total, error);
    if (status == GAPLESS_OK)
        status = task_initial(&serving->task, &initial, error);
    if (status == GAPLESS_OK && serving->settings.record != NULL &&
        (note = config_note(&serving->settings)) == NULL)
        status = gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory");
    if (status != GAPLESS_OK) {
        free(initial);
        return status;
    }
    config_set(&serving->settings, &serving->task, total, initial, job, note,
               &serving->config);
    serving->config.address = address != NULL ? address : "shm:gapless";
    serving->config.net = serving->network.net;
    serving->config.log = log_line;
    serving->config.log_context = &serving->view;
    status = gapless_master_open(&serving->config, &serving->master, error);
    free(initial);
    free(note);
    if (status != GAPLESS_OK)
        return status;
    serving->worker = calloc(serving->config.workers_max, sizeof *serving->worker);
    if (serving->worker == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory");
    return GAPLESS_OK;
}

static void open_view(struct serving *serving)
{
    const struct settings *settings = &serving->settings;
    char link[512] = "";

    view_open(&serving->view, settings->quiet, settings->no_color);
    serving->start = now_seconds();
    serving->facts =
        view_facts_of(settings, serving->task.model.parameters,
                      (double)sampler_batches_per_epoch(&serving->task.sampler),
                      serving->worker, serving->config.workers_max);
    if (settings->quiet)
        return;
    config_report_warmup("master", settings);
    view_note(&serving->view,
              "gapless master: listening at %s; workers join by: gapless worker "
              "--master %s%s%s",
              serving->config.address,
              address_is_wildcard(serving->config.address)
                  ? "verbs:ADDR:PORT (ADDR: one of this machine)"
                  : serving->config.address,
              settings->token_file != NULL ? " --token-file " : "",
              settings->token_file != NULL ? settings->token_file : "");
    gapless_master_link(serving->master, link, sizeof link);
    if (link[0] != '\0')
        view_note(&serving->view, "gapless master: %s", link);
    gapless_master_device(serving->master, link, sizeof link);
    view_note(&serving->view, "gapless master: passes run on %s", link);
}

static void show(struct serving *serving)
{
    struct view_facts *facts = &serving->facts;

    if (serving->settings.quiet)
        return;
    gapless_master_stats(serving->master, &facts->stats);
    for (uint32_t i = 0; i < facts->worker_count; i++)
        (void)gapless_master_worker_stats(serving->master, i, &serving->worker[i]);
    facts->elapsed = now_seconds() - serving->start;
    if (facts->stats.seconds > 0.0)
        facts->updates_per_second = (double)facts->stats.updates / facts->stats.seconds;
    if (facts->stats.updates > 0)
        history_add(&facts->losses, facts->stats.loss);
    view_show(&serving->view, facts);
}

static int serve(struct serving *serving, struct gapless_error *error)
{
    int status;

    do {
        status = gapless_master_run(serving->master, SLICE_NS, error);
        serving->observed |= gapless_master_observers(serving->master) > 0;
        show(serving);
    } while (status == GAPLESS_OK);
    view_leave(&serving->view);
    return status == GAPLESS_STOPPED ? GAPLESS_OK : status;
}

/* A record that ends early repeats only a part of the run: better said than found. */
static int check_record(const struct serving *serving, struct gapless_error *error)
{
    struct gapless_stats stats;

    gapless_master_stats(serving->master, &stats);
    if (!stats.record_failed)
        return GAPLESS_OK;
    return gapless_error_set(error, GAPLESS_IO, 0,
                             "the record %.150s could not be written to its end: is "
                             "the disk full? The run itself is complete",
                             serving->settings.record);
}

static int save(const struct serving *serving, struct gapless_error *error)
{
    char path[RESULTS_PATH_MAX + 32];
    struct gapless_stats stats;
    int status;

    gapless_master_stats(serving->master, &stats);
    if (serving->settings.out == NULL || stats.updates == 0)
        return GAPLESS_OK; /* nothing learnt must not replace something learnt before */
    (void)snprintf(path, sizeof path, "%s/model.safetensors", serving->settings.out);
    status = results_set_aside(serving->settings.out, "model.safetensors",
                               "model.previous.safetensors", error);
    return status == GAPLESS_OK ? gapless_master_save(serving->master, path, error)
                                : status;
}

/* Lets observers read the end. A short run may be over before its launcher has begun to
 * observe. */
static void linger(struct serving *serving)
{
    double end = now_seconds() + LINGER_S;

    while (now_seconds() < end) {
        int status;

        if (gapless_master_observers(serving->master) > 0)
            serving->observed = true;
        else if (serving->observed || !serving->settings.launched ||
                 getppid() != serving->parent)
            return;
        status = gapless_master_run(serving->master, SLICE_NS / 10, NULL);
        if (status != GAPLESS_OK && status != GAPLESS_STOPPED)
            return;
    }
}

static void report(const struct serving *serving)
{
    struct gapless_stats stats;

    if (serving->settings.quiet)
        return;
    gapless_master_stats(serving->master, &stats);
    (void)printf(
        "gapless master: %s updates in %.1f s, %s gradients dropped, %u workers "
        "lost%s%s\n",
        word_count(stats.updates).text, stats.seconds, word_count(stats.dropped).text,
        stats.workers_lost,
        serving->settings.out != NULL ? "; wrote model.safetensors to "
                                      : "; the parameters are not kept (--out)",
        serving->settings.out != NULL ? serving->settings.out : "");
    (void)fflush(stdout);
}

int cmd_master(int argc, char **argv)
{
    static struct serving serving;
    struct gapless_error error = {0};
    int status, saved = GAPLESS_OK;

    switch (options_read(FOR_MASTER, argc, argv, &serving.settings)) {
    case OPTIONS_HELPED:
        return EXIT_DONE;
    case OPTIONS_WRONG:
        return EXIT_MISUSE;
    case OPTIONS_GO:
        break;
    }
    serving.parent = getppid();
    status = open_master(&serving, &error);
    if (status != GAPLESS_OK)
        goto close;
    stop_this = serving.master;
    catch_signals();
    open_view(&serving);
    status = serve(&serving, &error);
    saved = save(&serving, status == GAPLESS_OK ? &error : NULL);
    if (status == GAPLESS_OK && saved == GAPLESS_OK)
        saved = check_record(&serving, &error);
    if (status == GAPLESS_OK && saved == GAPLESS_OK)
        report(&serving);
    else if (status == GAPLESS_OK)
        status = saved;
    if (status != GAPLESS_OK) {
        (void)report_error("master", &error);
        error.text[0] = '\0';
    }
    linger(&serving);
close:
    stop_this = NULL;
    gapless_master_close(serving.master);
    network_close(&serving.network);
    task_close(&serving.task);
    free(serving.worker);
    if (status == GAPLESS_OK)
        return EXIT_DONE;
    if (error.text[0] != '\0')
        return report_error("master", &error);
    return EXIT_FAILED;
}
