/* gapless train: a whole run on this machine. Checks everything that can be checked
 * before a process is started. */
#include "cluster/train/train.h"

#include "cluster/options/device_choice.h"
#include "cluster/program/program_options.h"
#include "cluster/task/config.h"
#include "cluster/task/states.h"
#include "cluster/gpus/ssgd.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The folder is held by the master, too, which writes the model. */
static int take_folder(struct train *train, struct gapless_error *error)
{
    int status = run_folder_take(train->folder, train->settings.out == NULL, true,
                                 &train->hold, error);

    if (status != GAPLESS_OK)
        return status;
    (void)snprintf(train->log_folder, sizeof train->log_folder, "%.1000s/log",
                   train->folder);
    return results_check(train->folder, train->task.model.parameters, error);
}

static void choose_names(struct train *train)
{
    const struct settings *settings = &train->settings;

    results_choose(settings->out, settings->rule, train->folder);
    launch_address("train", train->address, sizeof train->address);
}

/* Where the master will listen, and the token: one of this run where none was given, so
 * that a run on one machine over RDMA needs no preparation. */
static int choose_network(struct train *train, struct gapless_error *error)
{
    struct settings *settings = &train->settings;
    char found[ADDRESS_MAX];
    const char *address = NULL;
    int status = network_listen(settings, found, &address, error);

    if (status == GAPLESS_OK && address != NULL) {
        if (address_is_wildcard(address))
            return gapless_error_set(error, GAPLESS_INVALID, 0,
                                     "the workers of this run cannot connect to "
                                     "%.100s: name the address of an interface",
                                     address);
        (void)snprintf(train->address, sizeof train->address, "%s", address);
    }
    if (status == GAPLESS_OK && strncmp(train->address, "verbs:", 6) == 0 &&
        settings->token_file == NULL && !settings->insecure) {
        status = network_token_new(&train->token_fd, error);
        if (status == GAPLESS_OK)
            (void)snprintf(train->token_file, sizeof train->token_file,
                           "/proc/self/fd/%d", train->token_fd);
        settings->token_file = train->token_file;
    }
    if (status == GAPLESS_OK)
        status = network_open(settings, &train->network, error);
    return status;
}

/* The master opens it, which is a process later. */
static int check_record(const char *path, struct gapless_error *error)
{
    int fd;

    if (path == NULL)
        return GAPLESS_OK;
    fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0)
        return gapless_error_set(error, GAPLESS_IO, errno,
                                 "cannot write the record %.150s", path);
    (void)close(fd);
    return GAPLESS_OK;
}

/* --save-every and --resume, before a process is started. */
static int check_states(const struct train *train, uint64_t gradients,
                        struct gapless_error *error)
{
    const struct settings *settings = &train->settings;
    bool gpu = strcmp(settings->device, "cpu") != 0;
    int64_t ns;
    uint64_t every;
    int status = states_every(settings->save_every, gradients,
                              (double)task_epoch(&train->task), &ns, &every, error);

    if (status == GAPLESS_OK && gpu && (ns > 0 || every > 0) &&
        options_source(settings, "save-every") > OPTION_DEFAULT)
        return gapless_error_set(
            error, GAPLESS_UNSUPPORTED, 0,
            "--save-every %.60s and --device %.60s: a state cannot "
            "be saved while the passes run on a GPU",
            settings->save_every, settings->device);
    if (status == GAPLESS_OK)
        status = states_check(settings, &train->task, gradients, error);
    return status;
}

/* Before anything is started: is there what --device asks for? */
static int choose_device(struct train *train, struct gapless_error *error)
{
    char note[512];
    int status = device_settle_passes(train->settings.rule, &train->settings.device,
                                      note, sizeof note, error);

    if (status == GAPLESS_OK && note[0] != '\0')
        report_failure("train", "%s", note);
    return status;
}

static int prepare(struct train *train, struct gapless_error *error)
{
    const struct settings *settings = &train->settings;
    uint64_t gradients;
    struct job job;
    int status;

    if (strlen(settings->out != NULL ? settings->out : "") > 900)
        return gapless_error_set(error, GAPLESS_INVALID, 0, "--out is too long");
    choose_names(train);
    train->settings.run_id = run_folder_id(NULL, train->run_id);
    status = config_check_decay(settings, error);
    if (status == GAPLESS_OK)
        status = config_check_local(settings, error);
    if (status == GAPLESS_OK)
        status = choose_device(train, error);
    if (status == GAPLESS_OK)
        status = choose_network(train, error);
    if (status != GAPLESS_OK)
        return status;
    status = job_set(settings->data, settings->data_dir, settings->model,
                     settings->batch, settings->seed, &job, error);
    if (status == GAPLESS_OK)
        status = task_open(&job, -1, &train->task, error);
    if (status == GAPLESS_OK)
        status = train_places(train, error);
    if (status == GAPLESS_OK)
        status = task_gradients(&train->task, settings->epochs, &gradients, error);
    if (status == GAPLESS_OK)
        status = config_check("train", settings, &train->task, gradients, error);
    if (status == GAPLESS_OK)
        status = config_check_local_length(settings, gradients, error);
    if (status == GAPLESS_OK)
        status = check_states(train, gradients, error);
    if (status == GAPLESS_OK)
        status = config_memory(settings, &train->task, error);
    if (status == GAPLESS_OK)
        status = launch_room(settings->workers, error);
    if (status == GAPLESS_OK)
        status = metrics_open(settings->metrics, &train->metrics, error);
    if (status == GAPLESS_OK)
        status = data_share(train->task.data, &train->data_fd, error);
    if (status == GAPLESS_OK)
        status = evaluator_open(&train->task, &train->evaluator, error);
    if (status == GAPLESS_OK)
        status = take_folder(train, error);
    if (status == GAPLESS_OK)
        status = check_record(settings->record, error);
    if (status != GAPLESS_OK)
        return status;
    train->children = settings->workers + 1;
    train->child = calloc(train->children, sizeof *train->child);
    train->worker_count = settings->workers_max;
    train->worker = calloc(train->worker_count, sizeof *train->worker);
    if (train->child == NULL || train->worker == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory");
    return GAPLESS_OK;
}

static void open_view(struct train *train)
{
    const struct settings *settings = &train->settings;

    view_open(&train->view, settings->quiet, settings->no_color);
    train->facts =
        view_facts_of(settings, train->task.model.parameters,
                      (double)sampler_batches_per_epoch(&train->task.sampler),
                      train->worker, train->worker_count);
    train->follow = follow_new(&train->facts, &train->evaluator);
    if (!settings->quiet && train->view.terminal.fd < 0) {
        (void)printf(
            "gapless train: %s, %u worker%s, %s, %s (%s parameters), %g epoch%s, "
            "to %s\n",
            settings->rule, settings->workers, settings->workers == 1 ? "" : "s",
            settings->data, settings->model,
            word_count(train->task.model.parameters).text, settings->epochs,
            settings->epochs > 1.0 ? "s" : "", train->folder);
        (void)fflush(stdout);
    }
}

static void close_all(struct train *train)
{
    gapless_observer_close(train->observer);
    if (train->child != NULL)
        launch_end(train->child, train->children, 1.0);
    results_close(&train->follow.results);
    metrics_close(&train->metrics);
    evaluator_close(&train->evaluator);
    if (train->data_fd >= 0)
        (void)close(train->data_fd);
    if (train->token_fd >= 0)
        (void)close(train->token_fd);
    network_close(&train->network);
    task_close(&train->task);
    free(train->worker);
    free(train->child);
    run_folder_leave(train->folder, &train->hold);
}

static int run(struct train *train, struct gapless_error *error)
{
    int status = prepare(train, error), code;

    if (status != GAPLESS_OK) {
        code = report_error("train", error);
        if (status == GAPLESS_MISSING && train->settings.group == NULL &&
            strcmp(train->settings.device, "cpu") == 0)
            report_failure("train",
                           "what is here: gapless doctor; without any files: gapless "
                           "train --data synthetic");
        return code;
    }
    config_report_warmup("train", &train->settings);
    open_view(train);
    train->start = now_seconds();
    status = train_start(train, error);
    if (status == GAPLESS_OK)
        status = train_connect(train, error);
    if (status == GAPLESS_OK) {
        train_watch(train);
        return train_finish(train);
    }
    launch_end(train->child, train->children, 1.0);
    view_leave(&train->view);
    launch_tidy(train->child, train->children, train->log_folder);
    if (status == GAPLESS_STOPPED) {
        report_failure("train", "stopped before the run began");
        return 128 + train->signal;
    }
    code = WIFEXITED(train->child[0].status) &&
                   WEXITSTATUS(train->child[0].status) == EXIT_MISUSE
               ? EXIT_MISUSE /* what the master alone can know of the settings */
               : EXIT_FAILED;
    report_failure("train", "%s",
                   train->failure[0] != '\0' ? train->failure : error->text);
    return code;
}

int cmd_train(int argc, char **argv)
{
    static const int more[] = {SIGUSR1, SIGUSR2, SIGXCPU};
    static struct train train;
    struct gapless_error error = {0};
    int code;

    if (!program_options(FOR_TRAIN, argc, argv, &train.settings, &code))
        return code;
    if (states_settings(FOR_TRAIN, &train.settings, &error) != GAPLESS_OK)
        return report_error("train", &error);
    if (train.settings.resume == NULL)
        config_report_unused("train", &train.settings);
    if (ssgd_asked(&train.settings))
        return ssgd_train(&train.settings, argc, argv);
    train.argc = argc;
    train.argv = argv;
    train.data_fd = train.token_fd = -1;
    train.parameters_rms = (double)NAN;
    launch_block_signals(&train.signals); /* see train_signals */
    for (unsigned i = 0; i < sizeof more / sizeof more[0]; i++)
        (void)sigaddset(&train.signals, more[i]);
    (void)sigprocmask(SIG_BLOCK, &train.signals, NULL);
    code = run(&train, &error);
    close_all(&train);
    return code;
}
