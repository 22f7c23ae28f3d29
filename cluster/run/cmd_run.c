/* gapless run: copies of a program of one's own on this machine, and the master that they
 * train with. The model, and the settings that were not typed, are in the offer that the
 * program makes (cluster/task/offer.h). */
#include "cluster/run/run_ranks.h"

#include "cluster/options/device_choice.h"
#include "cluster/program/program_options.h"
#include "cluster/task/config.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SLICE_NS 50000000ll  /* between two looks at ranks and signals */
#define WAIT_S 0.02          /* the same, while no offer is there */
#define STOP_BY_S 60.0       /* for ranks to leave, when they were asked to */
#define END_S 2.0            /* the same, where nothing is left to be saved */
#define READER_S 5.0         /* for a reader of what ranks have printed */
#define DESCRIPTORS_EACH 16u /* a rank: pipes, a log, its slot; generous */
#define OBSERVERS_MORE 8u
#define OBSERVERS_MOST 1024u /* of a master */
#define OFFER_NAME "offer.safetensors"

/* ---- signals ------------------------------------------------------------- */

static void ask_to_stop(struct running *run, int number)
{
    struct serving *serving = &run->serving;

    if (run->signal != 0) {
        run->at_once = true;
        launch_signal(run->child, run->ranks, SIGKILL);
        return;
    }
    run->signal = number;
    run->stop_by = now_seconds() + STOP_BY_S;
    serving->stopped = serving->facts.stopping = true;
    if (run->served)
        gapless_master_stop(serving->master);
    launch_signal(run->child, run->ranks, number);
    launch_signal(run->child, run->ranks, SIGCONT);
    view_note(&serving->view,
              "gapless run: stopping: the ranks got the signal, too; once "
              "more to end at once");
}

/* Ctrl-Z: ranks have process groups of their own, and stop with this one. */
static void suspend(struct running *run)
{
    view_leave(&run->serving.view);
    launch_signal(run->child, run->ranks, SIGSTOP);
    (void)raise(SIGSTOP); /* and here it goes on after SIGCONT */
    launch_signal(run->child, run->ranks, SIGCONT);
}

/* Waits at most so long for a signal; does what those that came ask for. */
static void take_signals(struct running *run, double seconds)
{
    struct timespec wait = {0, (long)(seconds * 1e9)};
    int number;

    while ((number = sigtimedwait(&run->signals, NULL, &wait)) > 0) {
        if (number == SIGINT || number == SIGTERM || number == SIGHUP)
            ask_to_stop(run, number);
        else if (number == SIGTSTP)
            suspend(run);
        wait.tv_nsec = 0;
    }
}

/* Looks at signals and ranks. */
static void look_around(struct running *run, double seconds)
{
    bool over = run->served && run->serving.facts.stats.state >= GAPLESS_RUN_ENDING;

    take_signals(run, seconds);
    run_check(run, over);
    if (run->signal != 0 && !run->at_once && now_seconds() > run->stop_by) {
        view_note(&run->serving.view,
                  "gapless run: %u ranks did not leave within %g s: they are ended",
                  run_left(run), STOP_BY_S);
        launch_end(run->child, run->ranks, END_S);
        run->stop_by = (double)INFINITY;
    }
}

/* ---- before anything is started ------------------------------------------ */

static int join(char ret[RESULTS_PATH_MAX], const char *folder, const char *name,
                struct gapless_error *error)
{
    return results_path(folder, name, ret, error);
}

static int make_folders(struct running *run, struct gapless_error *error)
{
    struct settings *settings = &run->serving.settings;
    bool chosen = settings->out == NULL;
    int status;

    results_choose(settings->out, "run", run->folder);
    settings->out = run->folder;
    status = run_folder_take(run->folder, chosen, false, &run->serving.hold, error);
    if (status != GAPLESS_OK)
        return status;
    status = settings->log_dir == NULL
                 ? join(run->log_folder, run->folder, "log", error)
                 : GAPLESS_OK;
    if (settings->log_dir != NULL)
        (void)snprintf(run->log_folder, sizeof run->log_folder, "%s",
                       settings->log_dir);
    if (status == GAPLESS_OK)
        status = results_check(run->folder, 0, error);
    run->log_missing = results_missing(run->log_folder);
    if (status == GAPLESS_OK)
        status = results_folder(run->log_folder, error);
    if (status != GAPLESS_OK)
        return status;
    if (realpath(run->folder, run->absolute) == NULL)
        return gapless_error_set(error, GAPLESS_IO, errno, "cannot open %.150s",
                                 run->folder);
    status = join(run->offer_folder, run->absolute, "offer-XXXXXX", error);
    if (status == GAPLESS_OK && mkdtemp(run->offer_folder) == NULL) {
        run->offer_folder[0] = '\0';
        return gapless_error_set(error, GAPLESS_IO, errno,
                                 "cannot make a folder in "
                                 "%.150s",
                                 run->folder);
    }
    return status == GAPLESS_OK
               ? join(run->offer_path, run->offer_folder, OFFER_NAME, error)
               : status;
}

static int prepare(struct running *run, struct gapless_error *error)
{
    struct serving *serving = &run->serving;
    const struct settings *settings = &serving->settings;
    uint64_t need = 64 + (uint64_t)DESCRIPTORS_EACH * settings->workers;
    int status;

    launch_address("run", serving->address, sizeof serving->address);
    run->ranks = settings->workers;
    serving->settings.run_id = run_folder_id(NULL, serving->run_id);
    run->child = calloc(run->ranks, sizeof *run->child);
    run->starts = calloc(run->ranks, sizeof *run->starts);
    if (run->child == NULL || run->starts == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory");
    if (launch_descriptors(need) < need / 2)
        return gapless_error_set(error, GAPLESS_SYSTEM, 0,
                                 "%u ranks need more open files than the limit (ulimit "
                                 "-n): raise it or start fewer",
                                 run->ranks);
    status = metrics_open(settings->metrics, &serving->metrics, error);
    if (status == GAPLESS_OK)
        status = make_folders(run, error);
    return status == GAPLESS_OK ? relay_open(run->ranks, run->log_folder,
                                             !settings->view, &run->relay, error)
                                : status;
}

/* ---- the offer, and the master ------------------------------------------- */

/* A span of a run whose length, or epoch, is not known is no point of it. */
static int check_span(const struct running *run, const char *name, struct span span,
                      struct gapless_error *error)
{
    bool share = span.unit == SPAN_FRACTION && span.amount > 0.0;

    if (share && run->offer.gradients == 0)
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "--%s has a share of the run, and the program does not "
            "say how long the run is: write it in updates, as "
            "500updates",
            name);
    if (span.unit == SPAN_EPOCHS && run->offer.epoch == 0)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "--%s is in epochs, and the program does not say how "
                                 "long an epoch is: write it in updates, as 500updates",
                                 name);
    return GAPLESS_OK;
}

static int check_schedule(const struct running *run, struct gapless_error *error)
{
    const struct settings *settings = &run->serving.settings;
    int status = check_span(run, "warmup", settings->warmup, error);

    for (uint32_t i = 0; status == GAPLESS_OK && i < settings->steps.count; i++)
        status = check_span(run, "steps", settings->steps.step[i].at, error);
    if (status == GAPLESS_OK && settings->cosine && run->offer.gradients == 0)
        status = gapless_error_set(error, GAPLESS_INVALID, 0,
                                   "--schedule cosine is of a whole run, and the "
                                   "program does not say how long the run is");
    if (status == GAPLESS_OK && settings->local_steps > 0 &&
        (settings->warmup.amount > 0.0 || settings->steps.count > 0 ||
         settings->cosine))
        status = gapless_error_set(error, GAPLESS_INVALID, 0,
                                   "with --local-steps the rate is constant: leave "
                                   "--warmup, --steps and --schedule to the program's "
                                   "own optimizer");
    return status;
}

static int choose_device(struct running *run, struct gapless_error *error)
{
    struct settings *settings = &run->serving.settings;
    char note[512];
    int status = device_settle_passes(settings->rule, &settings->device, note,
                                      sizeof note, error);

    if (status == GAPLESS_OK && note[0] != '\0')
        view_note(&run->serving.view, "gapless run: %s", note);
    return status;
}

/* The settings, when all of them are known. */
static int settle(struct running *run, struct gapless_error *error)
{
    struct settings *settings = &run->serving.settings;
    const struct offer *offer = &run->offer;
    int status = offer_options(offer, FOR_RUN, settings, error);

    if (status == GAPLESS_OK)
        status = check_schedule(run, error);
    if (status == GAPLESS_OK)
        status = config_check_decay(settings, error);
    if (status == GAPLESS_OK)
        status = config_check_local(settings, error);
    if (status == GAPLESS_OK)
        status = choose_device(run, error);
    if (status != GAPLESS_OK)
        return status;
    config_report_unused("run", settings);
    settings->epochs =
        offer->epoch > 0 ? (double)offer->gradients / (double)offer->epoch : 0.0;
    task_open_foreign(&offer->model, offer->parameters, offer->epoch,
                      &run->serving.task);
    return GAPLESS_OK;
}

static void log_line(void *context, const char *line)
{
    view_note(context, "gapless run: %s", line);
}

/* Each rank may look at the run, and does when it leaves; and others beside them. */
static uint32_t observers_room(const struct running *run)
{
    uint32_t room = run->ranks + OBSERVERS_MORE;

    room = room < OBSERVERS_MOST ? room : OBSERVERS_MOST;
    return room > run->serving.settings.observers_max
               ? room
               : run->serving.settings.observers_max;
}

static int open_master(struct running *run, struct gapless_error *error)
{
    struct serving *serving = &run->serving;
    struct offer *offer = &run->offer;
    char *note = NULL;
    int status = offer_open(run->offer_path, offer, error);

    if (status == GAPLESS_OK)
        status = settle(run, error);
    if (status == GAPLESS_OK && serving->settings.record != NULL &&
        (note = config_note(&serving->settings)) == NULL)
        status = gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory");
    if (status != GAPLESS_OK)
        return status;
    config_set(&serving->settings, &serving->task, offer->gradients, offer->initial,
               offer->job, note, &serving->config);
    serving->config.address = serving->address;
    serving->config.observers_max = observers_room(run);
    serving->config.log = log_line;
    serving->config.log_context = &serving->view;
    status = gapless_master_check(&serving->config, error);
    if (status == GAPLESS_OK)
        status = config_memory(&serving->settings, &serving->task, error);
    if (status == GAPLESS_OK)
        status = results_check(run->folder, offer->parameters, error);
    if (status == GAPLESS_OK)
        status = gapless_master_open(&serving->config, &serving->master, error);
    free(note);
    free(offer->initial); /* the master has a copy */
    offer->initial = NULL;
    return status == GAPLESS_OK ? serving_room(serving, error) : status;
}

/* ---- the run ------------------------------------------------------------- */

/* Until there is an offer, or no rank left that could make one. */
static bool wait_for_offer(struct running *run)
{
    while (run_left(run) > 0 && run->signal == 0 && access(run->offer_path, F_OK) != 0)
        look_around(run, WAIT_S);
    return run->signal == 0 && access(run->offer_path, F_OK) == 0;
}

static void wait_for_ranks(struct running *run)
{
    while (run_left(run) > 0)
        look_around(run, WAIT_S);
}

/* Serves until all ranks have ended, and the master, too. */
static void serve(struct running *run)
{
    struct serving *serving = &run->serving;
    bool saved = false;
    int status = GAPLESS_OK;

    while (run_left(run) > 0 || status == GAPLESS_OK) {
        if (run_left(run) == 0)
            gapless_master_stop(serving->master);
        status = gapless_master_run(serving->master, SLICE_NS, &serving->failure);
        if (status != GAPLESS_OK && status != GAPLESS_STOPPED)
            break;
        serving_show(serving);
        if (status == GAPLESS_STOPPED && !saved) /* ranks may look for the model */
            (void)serving_save(serving, NULL);   /* serving_keep says why not */
        saved = status == GAPLESS_STOPPED;
        look_around(run, 0.0);
    }
    if (status == GAPLESS_STOPPED)
        serving->failure = (struct gapless_error){.status = GAPLESS_OK};
    else
        run_fail(run, "the master failed: %s", serving->failure.text);
}

/* The reason, where no rank did what it was started for. */
static void judge(struct running *run)
{
    const struct gapless_stats *stats = &run->serving.facts.stats;

    if (run->signal != 0 || run->ended_well + run->failed_late > 0) {
        if (!run->served && run->signal == 0)
            run_fail(run, "no rank made a gapless.Worker; was this program written for "
                          "gapless?");
        return;
    }
    if (!run->served)
        run_fail(run, "no rank is left, and none has made a gapless.Worker");
    else if (stats->updates == 0)
        run_fail(run, "no rank is left, and none has handed in a gradient");
    else
        run_fail(run, "no rank is left after %llu gradients",
                 (unsigned long long)stats->gradients);
}

/* Writes what there is; says what went wrong. The exit code. */
static int finish(struct running *run)
{
    struct serving *serving = &run->serving;
    struct gapless_error error = {0};
    bool diverged = false;
    int kept = GAPLESS_OK;

    judge(run);
    relay_close(run->relay, READER_S); /* before anything is printed below it */
    run->relay = NULL;
    if (run->served && run->failure[0] != '\0' && serving->failure.status == GAPLESS_OK)
        (void)gapless_error_set(&serving->failure, GAPLESS_PEER_LOST, 0, "%.300s",
                                run->failure);
    if (run->served && !run->at_once)
        kept = serving_keep(serving, &error);
    else
        view_leave(&serving->view);
    if (run->failure[0] != '\0' && !serving->failure_said)
        report_failure("run", "%s", run->failure);
    else if (run->served)
        diverged = report_diverged("run", &serving->facts.stats);
    if (kept != GAPLESS_OK)
        (void)report_error("run", &error);
    if (run->signal != 0 && !run->served)
        report_failure("run", "stopped before the run began");
    if (run->served && !run->at_once)
        serving_linger(serving);
    if (diverged || run->failure[0] != '\0' || kept != GAPLESS_OK)
        return EXIT_FAILED;
    if (run->signal != 0)
        return 128 + run->signal;
    return run->failed_late > 0 ? EXIT_FAILED : EXIT_DONE;
}

static int train(struct running *run)
{
    struct gapless_error error = {0};
    int status = run_start(run, &error);

    if (status == GAPLESS_OK && wait_for_offer(run)) {
        status = open_master(run, &error);
        run->served = status == GAPLESS_OK;
    }
    if (status != GAPLESS_OK) {
        run_fail(run, "%s", error.text);
        launch_end(run->child, run->ranks, END_S);
    }
    if (run->served) {
        serving_open_view(&run->serving);
        serve(run);
    }
    if (run->failure[0] != '\0')
        launch_end(run->child, run->ranks, END_S);
    wait_for_ranks(run);
    return finish(run);
}

/* The offer, and what a rank that was killed has left of another. */
static void remove_offers(const struct running *run)
{
    DIR *folder = run->offer_folder[0] != '\0' ? opendir(run->offer_folder) : NULL;
    const struct dirent *entry;
    char path[RESULTS_PATH_MAX + 300];

    while (folder != NULL && (entry = readdir(folder)) != NULL) {
        (void)snprintf(path, sizeof path, "%s/%s", run->offer_folder, entry->d_name);
        (void)unlink(path);
    }
    if (folder != NULL)
        (void)closedir(folder);
    if (run->offer_folder[0] != '\0')
        (void)rmdir(run->offer_folder);
}

static void close_all(struct running *run)
{
    if (run->child != NULL)
        launch_end(run->child, run->ranks, END_S);
    relay_close(run->relay, READER_S);
    remove_offers(run);
    if (run->log_folder[0] != '\0')
        results_unmake(run->log_folder, run->log_missing);
    serving_close(&run->serving);
    offer_close(&run->offer);
    free(run->child);
    free(run->starts);
    free(run->words);
}

int cmd_run(int argc, char **argv)
{
    static struct running run;
    struct gapless_error error = {0};
    int code;

    if (!program_options(FOR_RUN, argc, argv, &run.serving.settings, &code))
        return code;
    run.serving.command = "run";
    run.serving.argc = argc;
    run.serving.argv = argv;
    if (!run_find_program(&run))
        return EXIT_MISUSE;
    launch_block_signals(&run.signals);
    code =
        prepare(&run, &error) == GAPLESS_OK ? train(&run) : report_error("run", &error);
    close_all(&run);
    return code;
}
