/* What a master shows and leaves. */
#include "cluster/run/serving.h"

#include "cluster/program/program.h"
#include "cluster/task/config.h"
#include "cluster/task/model_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SLICE_NS                                                                       \
    20000000ll        /* serving, while the final parameters are measured, or read */
#define LINGER_S 10.0 /* after the end, for observers that stay */

/* Does it show and write what gapless train does? Its launcher does, if it has one. */
static bool alone(const struct serving *serving)
{
    return !serving->settings.launched;
}

int serving_room(struct serving *serving, struct gapless_error *error)
{
    uint32_t tensors = serving->task.shape.tensors_count;

    serving->worker = calloc(serving->config.workers_max, sizeof *serving->worker);
    serving->tensor_gates = calloc(tensors, sizeof *serving->tensor_gates);
    if (serving->worker == NULL || serving->tensor_gates == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory");
    serving->background.evaluator.accuracy = (double)NAN; /* where it is not opened */
    serving->background.evaluator.mean_loss = (double)NAN;
    return GAPLESS_OK;
}

/* Of another program's model. */
static void say_what(struct serving *serving)
{
    const struct settings *settings = &serving->settings;

    view_note(
        &serving->view,
        "gapless %s: %s, %u rank%s, %s: %s parameters in %u tensors, to %s; watch "
        "it by: gapless observe --master %s",
        serving->command, settings->rule, settings->workers,
        settings->workers == 1 ? "" : "s", settings->model,
        word_count(serving->task.model.parameters).text,
        serving->task.shape.tensors_count, settings->out, serving->address);
}

static void say_where(struct serving *serving)
{
    const struct settings *settings = &serving->settings;
    const char *command = serving->command;
    char link[512] = "";

    view_note(&serving->view,
              "gapless %s: listening at %s; workers join by: gapless worker "
              "--master %s%s%s",
              command, serving->config.address,
              address_is_wildcard(serving->config.address)
                  ? "verbs:ADDR:PORT (ADDR: one of this machine)"
                  : serving->config.address,
              settings->token_file != NULL ? " --token-file " : "",
              settings->token_file != NULL ? settings->token_file : "");
    gapless_master_link(serving->master, link, sizeof link);
    if (link[0] != '\0')
        view_note(&serving->view, "gapless %s: %s", command, link);
    gapless_master_device(serving->master, link, sizeof link);
    view_note(&serving->view, "gapless %s: passes run on %s", command, link);
}

/* stdout and the screen are the ranks', unless a person wants the picture. */
static void open_foreign_view(struct serving *serving)
{
    struct view *view = &serving->view;

    if (!serving->settings.view)
        view->terminal.fd = -1;
    view->line_fd = STDERR_FILENO;
    view->line_every = serving->settings.interval;
    serving->facts.unmeasured = true;
}

void serving_open_view(struct serving *serving)
{
    const struct settings *settings = &serving->settings;

    view_open(&serving->view, settings->quiet, settings->no_color);
    serving->start = now_seconds();
    serving->facts = view_facts_of(settings, serving->task.model.parameters,
                                   (double)task_epoch(&serving->task), serving->worker,
                                   serving->config.workers_max);
    serving->follow = follow_new(&serving->facts, &serving->background.evaluator);
    if (serving->task.is_foreign)
        open_foreign_view(serving);
    if (!settings->quiet && serving->task.is_foreign)
        say_what(serving);
    if (!settings->quiet && !serving->task.is_foreign) {
        config_report_warmup(serving->command, settings);
        say_where(serving);
    }
    if (alone(serving) && settings->out == NULL)
        report_failure(serving->command,
                       "nothing of this run is kept, neither the model nor "
                       "result.json: --out DIR keeps them");
}

static void look(struct serving *serving)
{
    struct view_facts *facts = &serving->facts;

    gapless_master_stats(serving->master, &facts->stats);
    for (uint32_t i = 0; i < facts->worker_count; i++)
        (void)gapless_master_worker_stats(serving->master, i, &serving->worker[i]);
    facts->elapsed = now_seconds() - serving->start;
    if (view_workers_known(facts) > 0) /* before: as many as are expected */
        facts->workers = view_workers_known(facts);
    follow_rate(&serving->follow);
}

/* Hands the parameters to the thread that measures, and takes what it has found. */
static void evaluate(struct serving *serving)
{
    struct background *background = &serving->background;

    if (!background->open)
        return;
    if (background_take(background))
        follow_measured(&serving->follow);
    if (background_idle(background) && follow_wants_accuracy(&serving->follow))
        background_start(background, gapless_master_params(serving->master));
}

static void serve_metrics(struct serving *serving)
{
    struct metrics_facts facts = {.stats = &serving->facts.stats,
                                  .worker = serving->worker,
                                  .worker_count = serving->facts.worker_count,
                                  .refused_known = true,
                                  .refused = gapless_master_refused(serving->master)};

    metrics_serve(&serving->metrics, &facts);
}

void serving_show(struct serving *serving)
{
    struct results *results = &serving->follow.results;
    bool failed = results->failed;

    if (!alone(serving))
        return;
    look(serving);
    serve_metrics(serving);
    if (serving->settings.out != NULL &&
        follow_begin(&serving->follow, serving->settings.out, serving->settings.run_id,
                     &results->error) != GAPLESS_OK)
        results->failed = true;
    evaluate(serving);
    follow_show(&serving->follow, &serving->view);
    if (results->failed && !failed)
        view_note(&serving->view, "gapless %s: %s; the run goes on without",
                  serving->command, results->error.text);
}

void serving_say_workers(struct serving *serving)
{
    look(serving);
    view_leave(&serving->view);
    results_say_workers(serving->command, serving->worker, serving->config.workers_max,
                        stderr);
}

/* ---- the end ------------------------------------------------------------- */

static int save_model(struct serving *serving, struct gapless_error *error)
{
    const char *out = serving->settings.out;
    struct model_file_metadata metadata;
    char path[RESULTS_PATH_MAX];
    int status = results_path(out, "model.safetensors", path, error);

    if (status == GAPLESS_OK)
        status = results_set_aside(out, "model.safetensors",
                                   "model.previous.safetensors", error);
    if (status == GAPLESS_OK)
        status = model_file_metadata(&serving->task, &metadata, error);
    if (status != GAPLESS_OK)
        return status;
    status = gapless_master_save_with(serving->master, path, metadata.text, error);
    model_file_metadata_free(&metadata);
    serving->saved = status == GAPLESS_OK;
    return status;
}

int serving_save(struct serving *serving, struct gapless_error *error)
{
    look(serving);
    if (serving->facts.stats.updates == 0 || serving->settings.out == NULL ||
        serving->saved)
        return GAPLESS_OK;
    return save_model(serving, error);
}

/* The final parameters, by the thread that measures; observers are served meanwhile. */
static void measure(struct serving *serving)
{
    struct background *background = &serving->background;
    bool started = false, ended = !background->open;

    while (!ended) {
        bool took = background_take(background);

        ended = started && took;
        if (!started && background_idle(background)) {
            background_start(background, gapless_master_params(serving->master));
            started = true;
        }
        if (gapless_master_run(serving->master, SLICE_NS, NULL) != GAPLESS_STOPPED)
            (void)usleep(SLICE_NS / 1000); /* it failed before: this cannot wait */
    }
    if (background->open)
        follow_take(&serving->follow);
    look(serving);
}

/* A record that ends early repeats only a part of the run: better said than found. */
static int check_record(const struct serving *serving, struct gapless_error *error)
{
    if (!serving->facts.stats.record_failed)
        return GAPLESS_OK;
    return gapless_error_set(error, GAPLESS_IO, 0,
                             "the record %.150s could not be written to its end: is "
                             "the disk full? The run itself is complete",
                             serving->settings.record);
}

/* As many workers as there were, however many were expected. */
static struct outcome outcome_of(struct serving *serving)
{
    bool gates =
        gapless_master_tensor_gates(serving->master, serving->task.shape.tensors_count,
                                    serving->tensor_gates) == GAPLESS_OK;

    if (!serving->task.is_foreign || serving->facts.workers > serving->settings.workers)
        serving->settings.workers = serving->facts.workers;
    return (struct outcome){
        .settings = &serving->settings,
        .task = &serving->task,
        .stats = &serving->facts.stats,
        .worker = serving->worker,
        .worker_count = serving->config.workers_max,
        .workers_lost = serving->facts.stats.workers_lost,
        .accuracy = serving->background.evaluator.accuracy,
        .test_loss = serving->background.evaluator.mean_loss,
        .parameters_rms =
            task_rms(&serving->task, gapless_master_params(serving->master)),
        .tensor_gates = gates ? serving->tensor_gates : NULL,
        .stopped = serving->stopped,
        .failure = serving->failure.status != GAPLESS_OK ? serving->failure.text : NULL,
        .argc = serving->argc,
        .argv = serving->argv,
    };
}

/* stdout is the ranks', where there are any. */
static FILE *printed(const struct serving *serving)
{
    return serving->task.is_foreign ? stderr : stdout;
}

/* What train writes for a master that it has started. */
static int keep_results(struct serving *serving, struct gapless_error *error)
{
    struct follow *follow = &serving->follow;
    struct outcome outcome;
    int status = GAPLESS_OK;

    measure(serving);
    view_last(&serving->view, &serving->facts);
    view_leave(&serving->view);
    outcome = outcome_of(serving);
    if (serving->settings.out != NULL) {
        (void)follow_begin(follow, serving->settings.out, serving->settings.run_id,
                           NULL);
        follow_metrics(follow); /* the last line has what was measured last */
        status = results_write(&follow->results, &outcome, error);
    }
    if (outcome.failure != NULL) {
        report_failure(serving->command, "%s", outcome.failure);
        serving->failure_said = true;
    }
    results_print(&outcome, printed(serving));
    return status;
}

/* The run in one line; the table has more. */
static void report(const struct serving *serving, bool written)
{
    const struct gapless_stats *stats = &serving->facts.stats;
    const char *out = serving->settings.out;

    (void)fprintf(printed(serving),
                  "\ngapless %s: %s updates in %.1f s, %s gradients dropped, %u "
                  "workers lost; %s%s\n",
                  serving->command, word_count(stats->updates).text, stats->seconds,
                  word_count(stats->dropped).text, stats->workers_lost,
                  out == NULL ? "the parameters are not kept (--out)"
                  : written   ? "result.json, metrics.jsonl, model.safetensors are in "
                              : "metrics.jsonl is in ",
                  out != NULL ? out : "");
    (void)fflush(printed(serving));
}

int serving_keep(struct serving *serving, struct gapless_error *error)
{
    int status = serving_save(serving, error);

    if (serving->facts.stats.updates == 0) {
        view_leave(&serving->view); /* what was learnt before must stay */
        if (alone(serving))
            report_failure(serving->command,
                           "there were no updates: nothing is written");
        return GAPLESS_OK;
    }
    if (alone(serving)) {
        int results = keep_results(serving, status == GAPLESS_OK ? error : NULL);

        status = status == GAPLESS_OK ? results : status;
        report(serving, status == GAPLESS_OK);
    }
    if (status == GAPLESS_OK && serving->follow.results.failed) {
        *error = serving->follow.results.error;
        status = error->status;
    }
    return status == GAPLESS_OK ? check_record(serving, error) : status;
}

/* A short run may be over before its launcher has begun to observe. */
void serving_linger(struct serving *serving)
{
    double end = now_seconds() + LINGER_S;

    while (now_seconds() < end) {
        int status;

        if (gapless_master_observers(serving->master) > 0)
            serving->observed = true;
        else if (serving->observed || !serving->settings.launched ||
                 getppid() != serving->parent)
            return;
        status = gapless_master_run(serving->master, SLICE_NS, NULL);
        if (status != GAPLESS_OK && status != GAPLESS_STOPPED)
            return;
    }
}

void serving_close(struct serving *serving)
{
    background_close(&serving->background);
    metrics_close(&serving->metrics);
    results_close(&serving->follow.results);
    gapless_master_close(serving->master);
    serving->master = NULL;
    states_close(&serving->states);
    network_close(&serving->network);
    task_close(&serving->task);
    free(serving->worker);
    free(serving->tensor_gates);
    serving->worker = NULL;
    serving->tensor_gates = NULL;
    if (serving->settings.out != NULL)
        run_folder_leave(serving->settings.out, &serving->hold);
}
