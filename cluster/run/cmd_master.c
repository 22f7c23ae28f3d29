/* gapless master: keeps the parameters of a run, until it is over; then writes them and
 * serves observers a little longer. */
#include "cluster/launch/launch.h"
#include "cluster/options/device_choice.h"
#include "cluster/program/program_options.h"
#include "cluster/run/serving.h"
#include "cluster/task/config.h"
#include "cluster/task/job.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SLICE_NS 200000000ll /* between two looks at the terminal */

static struct gapless_master *stop_this; /* what the signals stop */
static volatile sig_atomic_t stopped;

static volatile sig_atomic_t asked_for_workers;
static bool quietly;

static void on_question(int number)
{
    (void)number;
    asked_for_workers = 1;
}

static void on_signal(int number)
{
    if (stop_this != NULL && !(stopped && number == SIGINT)) {
        stopped = 1;
        gapless_master_stop(stop_this);
        return;
    }
    (void)signal(number, SIG_DFL);
    (void)raise(number);
}

static void catch_signals(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR2, SIGXCPU};
    struct sigaction action = {.sa_handler = on_signal};

    for (unsigned i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        (void)sigaction(numbers[i], &action, NULL);
    action.sa_handler = on_question;
    (void)sigaction(SIGUSR1, &action, NULL);
    (void)signal(SIGPIPE,
                 SIG_IGN); /* a log without a reader is no reason to end a run */
}

/* What the library has to say while it runs: above the live view, or on stderr. */
static void log_line(void *context, const char *line)
{
    static const char usual[] = "saved the state";

    if (quietly && strncmp(line, usual, sizeof usual - 1) == 0)
        return; /* no last words for a launcher to find */
    view_note(context, "gapless master: %s", line);
}

/* What the workers have to know of local steps. */
static int set_local(const struct serving *serving, uint64_t total, struct job *ret,
                     struct gapless_error *error)
{
    struct local_plan plan;
    int status = config_check_local_length(&serving->settings, total, error);

    if (status != GAPLESS_OK || serving->settings.local_steps == 0)
        return status;
    config_local(&serving->settings, &serving->task, total, &plan);
    if (local_write(&plan, ret->local))
        return GAPLESS_OK;
    return gapless_error_set(error, GAPLESS_INVALID, 0,
                             "--steps is longer than what workers are sent: give "
                             "fewer, or shorter numbers");
}

static int open_task(struct serving *serving, char *ret_job, uint64_t *ret_total,
                     struct gapless_error *error)
{
    const struct settings *settings = &serving->settings;
    char folder[4096], data[DATA_NAME_MAX];
    struct job job;
    int status;

    if (settings->data_dir != NULL && realpath(settings->data_dir, folder) == NULL)
        return gapless_error_set(error, GAPLESS_MISSING, 0,
                                 "--data-dir %.150s is not there", settings->data_dir);
    status = data_absolute(settings->data, data, error);
    if (status == GAPLESS_OK)
        status = job_set(data, settings->data_dir != NULL ? folder : NULL,
                         settings->model, settings->batch, settings->seed, &job, error);
    if (status == GAPLESS_OK)
        status = task_open(&job, settings->data_fd, &serving->task, error);
    if (status != GAPLESS_OK)
        return status;
    job.epoch = task_epoch(&serving->task);
    (void)snprintf(job.rule, sizeof job.rule, "%s", settings->rule);
    status = task_gradients(&serving->task, settings->epochs, ret_total, error);
    if (status == GAPLESS_OK)
        status = set_local(serving, *ret_total, &job, error);
    return status == GAPLESS_OK ? job_write(&job, ret_job, error) : status;
}

/* The CPU, or GPUs that are there. */
static int choose_device(struct serving *serving, struct gapless_error *error)
{
    char note[512];
    int status = device_settle_passes(serving->settings.rule, &serving->settings.device,
                                      note, sizeof note, error);

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

/* Its launcher has taken it, where there is one. Without --out nothing is written. */
static int take_folder(struct serving *serving, struct gapless_error *error)
{
    struct settings *settings = &serving->settings;
    char folder[RESULTS_PATH_MAX];
    int status = GAPLESS_OK;

    if (settings->run_id == NULL)
        settings->run_id = run_folder_id(NULL, serving->run_id);
    if (settings->out == NULL)
        return GAPLESS_OK;
    (void)snprintf(folder, sizeof folder, "%s", settings->out);
    if (!settings->launched)
        status = run_folder_take(folder, false, false, &serving->hold, error);
    return status == GAPLESS_OK
               ? results_check(settings->out, serving->task.model.parameters, error)
               : status;
}

static int open_master(struct serving *serving, struct gapless_error *error)
{
    const char *address = NULL;
    static char job[GAPLESS_JOB_MAX];
    char *note = NULL;
    float *initial = NULL;
    uint64_t total = 0;
    int status = states_settings(FOR_MASTER, &serving->settings, error);

    if (status == GAPLESS_OK)
        status = config_check_local(&serving->settings, error);
    if (!serving->settings.launched && serving->settings.resume == NULL)
        config_report_unused("master", &serving->settings);
    if (status == GAPLESS_OK)
        status = choose_device(serving, error);
    if (status == GAPLESS_OK)
        status = open_network(serving, &address, error);
    if (status == GAPLESS_OK)
        status = open_task(serving, job, &total, error);
    if (status == GAPLESS_OK)
        status = task_initial(&serving->task, &initial, error);
    if (status == GAPLESS_OK)
        status = states_initial(&serving->settings, &serving->task, initial, error);
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
    status = gapless_master_check(&serving->config, error);
    if (status == GAPLESS_OK && !serving->settings.launched)
        status = config_memory(&serving->settings, &serving->task, error);
    if (status == GAPLESS_OK)
        status = take_folder(serving, error);
    if (status == GAPLESS_OK)
        status = states_open(&serving->settings, &serving->task, serving->settings.out,
                             &serving->states, &serving->config, error);
    serving->config.log = log_line;
    serving->config.log_context = &serving->view;
    if (status == GAPLESS_OK && !serving->settings.launched)
        status = launch_room(serving->settings.workers, error);
    if (status == GAPLESS_OK)
        status = metrics_open(serving->settings.metrics, &serving->metrics, error);
    if (status == GAPLESS_OK)
        status = gapless_master_open(&serving->config, &serving->master, error);
    free(initial);
    free(note);
    if (status != GAPLESS_OK)
        return status;
    status = serving_room(serving, error);
    return status != GAPLESS_OK || serving->settings.launched
               ? status
               : background_open(&serving->task, &serving->background, error);
}

static int serve(struct serving *serving, struct gapless_error *error)
{
    int status;

    do {
        status = gapless_master_run(serving->master, SLICE_NS, error);
        serving->observed |= gapless_master_observers(serving->master) > 0;
        serving_show(serving);
        if (asked_for_workers != 0) {
            asked_for_workers = 0;
            serving_say_workers(serving);
        }
    } while (status == GAPLESS_OK);
    if (status != GAPLESS_STOPPED)
        return status;
    return states_save(&serving->states, serving->master, error); /* before they go */
}

/* Serves, and keeps what there is then, also after a failure. The exit code. */
static int run(struct serving *serving)
{
    struct gapless_error error = {0};
    bool diverged = false;
    int status, kept;

    stop_this = serving->master;
    catch_signals();
    serving_open_view(serving);
    status = serve(serving, &serving->failure);
    serving->stopped = stopped != 0;
    kept = serving_keep(serving, &error);
    if (status != GAPLESS_OK && !serving->failure_said)
        (void)report_error("master", &serving->failure);
    if (kept != GAPLESS_OK)
        (void)report_error("master", &error);
    if (status == GAPLESS_OK && !serving->settings.launched) /* train says so itself */
        diverged = report_diverged("master", &serving->facts.stats);
    serving_linger(serving);
    return !diverged && status == GAPLESS_OK && kept == GAPLESS_OK ? EXIT_DONE
                                                                   : EXIT_FAILED;
}

int cmd_master(int argc, char **argv)
{
    static struct serving serving;
    struct gapless_error error = {0};
    int code;

    if (!program_options(FOR_MASTER, argc, argv, &serving.settings, &code))
        return code;
    serving.command = "master";
    serving.argc = argc;
    serving.argv = argv;
    serving.parent = getppid();
    quietly = serving.settings.launched || serving.settings.quiet;
    code = open_master(&serving, &error) == GAPLESS_OK ? run(&serving)
                                                       : report_error("master", &error);
    stop_this = NULL;
    serving_close(&serving);
    return code;
}
