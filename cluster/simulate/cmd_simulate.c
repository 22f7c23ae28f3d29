/* gapless simulate: many workers in virtual time, with the real master, rules and
 * workers. Checks everything that can be checked before anything is computed. */
#include "cluster/simulate/simulate.h"

#include "cluster/task/config.h"
#include "cluster/task/model_file.h"
#include "cluster/task/evaluate.h"
#include "cluster/program/program_options.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define SAMPLE_S 0.001 /* virtual time of a sample, where --batch-time is not given */

static uint64_t nanoseconds(double seconds)
{
    return (uint64_t)(seconds * 1e9 + 0.5);
}

/* ---- before the run ------------------------------------------------------ */

/* A workload has data, model and batch of its own, which are words of it. */
static int open_workload(struct simulate *s, const struct job *job,
                         struct gapless_error *error)
{
    static const char *const own[] = {"data", "model", "batch", "data-dir", "replay"};
    struct settings *settings = &s->settings;
    int status;

    for (unsigned i = 0; i < sizeof own / sizeof own[0]; i++)
        if (!settings->launched && options_source(settings, own[i]) > OPTION_DEFAULT)
            return gapless_error_set(
                error, GAPLESS_INVALID, 0,
                "--workload and --%s do not go together: give a workload's settings as "
                "its words, --workload \"%.100s NAME=VALUE\"",
                own[i], settings->workload);
    program_python_path();
    status = task_open_workload(settings->workload, job, &s->task, error);
    if (status != GAPLESS_OK)
        return status;
    settings->data = NULL;
    settings->model = s->task.job.model;
    settings->batch = s->task.job.batch;
    return GAPLESS_OK;
}

static int open_task(struct simulate *s, struct gapless_error *error)
{
    const struct settings *settings = &s->settings;
    struct job job;
    int status = job_set(settings->data, settings->data_dir, settings->model,
                         settings->batch, settings->seed, &job, error);

    if (status != GAPLESS_OK)
        return status;
    if (settings->workload != NULL)
        return open_workload(s, &job, error);
    if (toy_is(settings->model))
        return task_open_toy(&job, &s->task, error);
    status = task_open(&job, settings->data_fd, &s->task, error);
    s->no_data = status == GAPLESS_MISSING;
    return status;
}

/* Who comes and goes, and how much room that takes. */
static int set_workers(struct simulate *s, struct gapless_error *error)
{
    struct settings *settings = &s->settings;
    struct gapless_incident *incidents = NULL;
    uint32_t joins = 0, most;
    int status = GAPLESS_OK;

    if (settings->events != NULL)
        status = simulate_events(settings->events, settings->workers, &incidents,
                                 &s->config.incidents_count, &joins, error);
    if (status != GAPLESS_OK)
        return status;
    s->config.incidents = incidents;
    most = joins < GAPLESS_WORKERS_MAX - settings->workers ? settings->workers + joins
                                                           : GAPLESS_WORKERS_MAX;
    if (settings->workers_max == 0)
        settings->workers_max = most;
    s->config.workers = settings->workers;
    return GAPLESS_OK;
}

static int set_clock(struct simulate *s, struct gapless_error *error)
{
    struct settings *settings = &s->settings;
    struct gapless_batch_time *times = NULL;
    int status;

    if (options_source(settings, "batch-time") == OPTION_UNSET)
        settings->batch_time = SAMPLE_S * (double)settings->batch;
    s->config.seed = settings->seed;
    s->config.batch_ns = nanoseconds(settings->batch_time);
    s->config.latency_ns = nanoseconds(settings->latency);
    s->config.bandwidth = settings->bandwidth * 1e9 / 8.0;
    s->config.pass_ns = nanoseconds(settings->pass_time);
    s->config.replay = settings->replay;
    if (settings->replay != NULL)
        return GAPLESS_OK;
    status = simulate_clock(settings->clock, settings->workers, &s->config.clock,
                            &times, &s->config.times_count, error);
    if (status == GAPLESS_OK)
        s->config.times = times;
    return status;
}

/* --save-every, --resume. */
static int open_states(struct simulate *s, struct gapless_error *error)
{
    const struct settings *settings = &s->settings;
    struct gapless_master_config *config = &s->config.master;
    int64_t ns = 0;
    int status = states_every(settings->save_every, s->total,
                              (double)task_epoch(&s->task), &ns, &s->save_every, error);

    if (status != GAPLESS_OK ||
        (s->save_every == 0 && ns == 0 && settings->resume == NULL))
        return status;
    if (ns > 0)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "--save-every of a simulation is a span, such as "
                                 "1000updates or 1epoch, not '%.60s'",
                                 settings->save_every);
    if (settings->local_steps > 0 || settings->replay != NULL)
        return gapless_error_set(
            error, GAPLESS_UNSUPPORTED, 0,
            "a simulation with %s has no states: leave --save-every "
            "and --resume out",
            settings->replay != NULL ? "--replay" : "--local-steps");
    status = states_open(settings, &s->task, s->save_every > 0 ? s->folder : NULL,
                         &s->states, config, error);
    s->save_at = s->states.gradients / (s->save_every > 0 ? s->save_every : 1);
    s->save_at = (s->save_at + 1) * s->save_every;
    return status;
}

static int open_simulation(struct simulate *s, struct gapless_error *error)
{
    float *initial = NULL;
    int status = task_initial(&s->task, &initial, error);

    if (status != GAPLESS_OK)
        return status;
    config_set(&s->settings, &s->task, s->total, initial, NULL, NULL,
               &s->config.master);
    status = open_states(s, error);
    if (status != GAPLESS_OK) {
        free(initial);
        return status;
    }
    s->config.threads = s->pool.threads;
    config_local(&s->settings, &s->task, s->total, &s->pool.plan);
    s->config.gradient = pool_gradient;
    s->config.local = pool_local;
    s->config.context = &s->pool;
    status = gapless_simulation_open(&s->config, &s->simulation, error);
    s->config.master.initial = NULL;
    free(initial);
    return status;
}

static int prepare(struct simulate *s, struct gapless_error *error)
{
    const struct settings *settings = &s->settings;
    enum model_ops ops =
        strcmp(settings->gradients, "reference") == 0 ? MODEL_REF : MODEL_BLAS;
    int status;

    if (strlen(settings->out != NULL ? settings->out : "") > 900)
        return gapless_error_set(error, GAPLESS_INVALID, 0, "--out is too long");
    results_choose(settings->out, settings->rule, s->folder);
    status = config_check_local(settings, error);
    if (status == GAPLESS_OK)
        status = set_workers(s, error);
    if (status == GAPLESS_OK)
        status = open_task(s, error); /* a workload says how large a batch is */
    if (status == GAPLESS_OK)
        status = set_clock(s, error);
    if (status == GAPLESS_OK)
        status = task_gradients(&s->task, settings->epochs, &s->total, error);
    if (status == GAPLESS_OK)
        status = config_check_local_length(settings, s->total, error);
    if (status == GAPLESS_OK)
        status = config_check("simulate", settings, &s->task, s->total, error);
    if (status == GAPLESS_OK)
        status = config_memory(settings, &s->task, error);
    if (status == GAPLESS_OK)
        status = pool_open(&s->task, settings->threads, ops, &s->pool, error);
    s->settings.run_id = run_folder_id(settings, s->run_id);
    if (status == GAPLESS_OK) /* late: of a mistake nothing is made */
        status =
            run_folder_take(s->folder, settings->out == NULL, false, &s->hold, error);
    if (status == GAPLESS_OK)
        status = results_check(s->folder, s->task.model.parameters, error);
    if (status == GAPLESS_OK)
        status = open_simulation(s, error);
    return status;
}

static void announce(struct simulate *s)
{
    const struct settings *settings = &s->settings;
    time_t now = time(NULL);
    struct tm utc;

    if (gmtime_r(&now, &utc) != NULL)
        (void)strftime(s->started, sizeof s->started, "%Y-%m-%dT%H:%M:%SZ", &utc);
    s->facts.rule = settings->rule;
    s->facts.workers = settings->workers;
    s->facts.total = s->total;
    progress_open(&s->progress, settings->quiet, settings->no_color);
    config_report_warmup("simulate", settings);
    if (settings->quiet)
        return;
    (void)printf("gapless simulate: %s, %u worker%s, %s%s%s (%s parameters), %g "
                 "epoch%s, %s, to %s\n",
                 settings->rule, settings->workers, settings->workers == 1 ? "" : "s",
                 s->task.data == NULL ? "" : settings->data,
                 s->task.data == NULL ? "" : ", ", settings->model,
                 word_count(s->task.model.parameters).text, settings->epochs,
                 settings->epochs > 1.0 ? "s" : "",
                 settings->replay != NULL ? "a replay" : settings->clock, s->folder);
    (void)fflush(stdout);
}

/* ---- after the run ------------------------------------------------------- */

static int save_model(const struct simulate *s, struct gapless_error *error)
{
    struct model_file_metadata metadata;
    char path[RESULTS_PATH_MAX];
    int status = results_path(s->folder, "model.safetensors", path, error);

    if (status == GAPLESS_OK)
        status = results_set_aside(s->folder, "model.safetensors",
                                   "model.previous.safetensors", error);
    if (status == GAPLESS_OK)
        status = model_file_metadata(&s->task, &metadata, error);
    if (status != GAPLESS_OK)
        return status;
    status = gapless_master_save_with(gapless_simulation_master(s->simulation), path,
                                      metadata.text, error);
    model_file_metadata_free(&metadata);
    return status;
}

static struct gapless_worker_stats *worker_stats(const struct simulate *s)
{
    struct gapless_worker_stats *ret = calloc(s->settings.workers_max, sizeof *ret);

    for (uint32_t i = 0; ret != NULL && i < s->settings.workers_max; i++)
        (void)gapless_master_worker_stats(gapless_simulation_master(s->simulation), i,
                                          &ret[i]);
    return ret;
}

static double master_us(const struct simulate *s)
{
    uint64_t updates = s->stats.updates - s->half_updates;

    return updates > 0 ? 1e6 * (s->sim.master_s - s->half_master_s) / (double)updates
                       : (double)NAN;
}

static int write_cost(struct simulate *s, double real_s, struct gapless_error *error)
{
    char host[256] = "";
    struct rusage usage = {0};
    struct run_cost cost = {
        .argc = s->argc,
        .argv = s->argv,
        .host = host,
        .started = s->started,
        .threads = s->pool.threads,
        .real_seconds = real_s,
        .gradient_seconds = s->sim.gradient_s,
        .master_seconds = s->sim.master_s,
        .evaluate_seconds = s->evaluate_s,
        .master_us = master_us(s),
        .buffer_bytes = s->sim.buffer_bytes,
    };

    (void)gethostname(host, sizeof host - 1);
    if (getrusage(RUSAGE_SELF, &usage) == 0)
        cost.peak_rss_bytes = (uint64_t)usage.ru_maxrss * 1024u;
    return results_cost(&s->results, &cost, error);
}

static void print_cost(const struct simulate *s, double real_s)
{
    double all = 100.0 / real_s;
    double virtual_s = s->facts.virtual_s;

    (void)printf("\n  %-18s %s s for %s virtual ones, %s updates a second\n",
                 "real time", word_real(real_s, real_s < 10.0 ? 3 : 1).text,
                 word_real(virtual_s, virtual_s < 10.0 ? 3 : 1).text,
                 word_count((uint64_t)((double)s->stats.updates / real_s)).text);
    (void)printf("  %-18s gradients %.0f %% of %u thread%s, master %.0f %%, measuring "
                 "%.0f %%\n",
                 "", all * s->sim.gradient_s / s->pool.threads, s->pool.threads,
                 s->pool.threads == 1 ? "" : "s", all * s->sim.master_s,
                 all * s->evaluate_s);
    (void)printf("\n  %s/: result.json, metrics.jsonl, model.safetensors, run.json\n",
                 s->folder);
    (void)fflush(stdout);
}

/* Nothing learnt must not replace something learnt before. */
static int finish_unbegun(const struct simulate *s)
{
    if (s->failure[0] != '\0')
        report_failure("simulate", "%s", s->failure);
    else if (report_diverged("simulate", &s->stats))
        return EXIT_FAILED;
    else if (s->signal != 0)
        report_failure("simulate", "stopped before the first update");
    else
        report_failure("simulate", "the run was over before the first update");
    return s->signal != 0 && s->failure[0] == '\0' ? 128 + s->signal : EXIT_FAILED;
}

static int finish(struct simulate *s)
{
    double real_s = now_seconds() - s->start;
    struct simulated simulated = {
        .clock = s->settings.replay != NULL ? "replay" : s->settings.clock,
        .virtual_seconds = s->facts.virtual_s,
        .batch_time = s->settings.batch_time,
        .grad_norm_sq_min = s->grad_norm_sq_min,
        .grad_norm_sq_last = s->grad_norm_sq_last,
        .master_bytes = s->sim.master_bytes,
        .table_bytes = s->sim.table_bytes,
        .worker_bytes = s->sim.worker_bytes,
    };
    struct outcome outcome = {
        .settings = &s->settings,
        .task = &s->task,
        .stats = &s->stats,
        .worker = worker_stats(s),
        .worker_count = s->settings.workers_max,
        .workers_lost = s->stats.workers_lost,
        .accuracy = s->accuracy,
        .test_loss = s->test_loss,
        .parameters_rms = task_rms(
            &s->task, gapless_master_params(gapless_simulation_master(s->simulation))),
        .stopped = s->signal != 0,
        .failure = s->failure[0] != '\0' ? s->failure : NULL,
        .simulated = &simulated,
    };
    struct gapless_error error = {0};
    int status = GAPLESS_OK;

    s->tensor_gates = calloc(s->task.shape.tensors_count, sizeof *s->tensor_gates);
    if (s->tensor_gates != NULL &&
        gapless_master_tensor_gates(gapless_simulation_master(s->simulation),
                                    s->task.shape.tensors_count,
                                    s->tensor_gates) == GAPLESS_OK)
        outcome.tensor_gates = s->tensor_gates;
    if (outcome.worker == NULL)
        status = gapless_error_set(&error, GAPLESS_NO_MEMORY, 0, "no memory");
    if (status == GAPLESS_OK)
        status = save_model(s, &error);
    if (status == GAPLESS_OK)
        status = write_cost(s, real_s, &error);
    if (status == GAPLESS_OK) /* last: a reader that finds it has all of them */
        status = results_write(&s->results, &outcome, &error);
    if (status == GAPLESS_OK) {
        results_print(&outcome, stdout);
        print_cost(s, real_s);
    } else {
        (void)report_error("simulate", &error);
    }
    free((void *)(uintptr_t)outcome.worker);
    if (s->results.failed)
        (void)report_error("simulate", &s->results.error);
    if (s->failure[0] != '\0')
        report_failure("simulate", "%s", s->failure);
    else if (report_diverged("simulate", &s->stats))
        return EXIT_FAILED;
    else if (s->signal != 0)
        report_failure("simulate", "stopped after %s of %s gradients",
                       word_count(s->stats.gradients).text, word_count(s->total).text);
    if (status != GAPLESS_OK || s->results.failed || s->failure[0] != '\0')
        return EXIT_FAILED;
    return s->signal != 0 ? 128 + s->signal : EXIT_DONE;
}

/* ---- the command --------------------------------------------------------- */

static void close_all(struct simulate *s)
{
    gapless_simulation_close(s->simulation);
    states_close(&s->states);
    results_close(&s->results);
    pool_close(&s->pool);
    task_close(&s->task);
    free((void *)(uintptr_t)s->config.incidents);
    free((void *)(uintptr_t)s->config.times);
    free(s->tensor_gates);
    run_folder_leave(s->folder, &s->hold);
}

static int run(struct simulate *s, struct gapless_error *error)
{
    struct settings given = s->settings;
    int status = GAPLESS_OK, code;

    status = states_settings(FOR_SIMULATE, &s->settings, error);
    if (status == GAPLESS_OK && given.replay != NULL)
        status = simulate_replay(&given, &s->settings, error);
    else if (status == GAPLESS_OK && !given.launched &&
             given.resume == NULL) /* by a study, which gives every option */
        config_report_unused("simulate", &given);
    if (status == GAPLESS_OK)
        status = prepare(s, error);
    if (status != GAPLESS_OK) {
        code = report_error("simulate", error);
        if (s->no_data)
            report_failure("simulate",
                           "what is here: gapless doctor; without any files: gapless "
                           "simulate --data synthetic");
        return code;
    }
    announce(s);
    simulate_run(s);
    return s->begun ? finish(s) : finish_unbegun(s);
}

int cmd_simulate(int argc, char **argv)
{
    static struct simulate simulate;
    struct gapless_error error = {0};
    int code;

    if (!program_options(FOR_SIMULATE, argc, argv, &simulate.settings, &code))
        return code;
    simulate.argc = argc;
    simulate.argv = argv;
    code = run(&simulate, &error);
    close_all(&simulate);
    return code;
}
