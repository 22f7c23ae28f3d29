/* What is written about a run, as JSON: a line of metrics.jsonl, result.json, run.json.
 *
 * Of a simulation nothing is written here that may differ between two runs of the same
 * settings, but in run.json.
 */
#include "cluster/task/results.h"

#include "cluster/terminal/canvas.h"
#include "cluster/terminal/view.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define DIGITS JSON_REAL_PRECISION(9)

static json_t *real(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

static json_t *text(const char *value)
{
    json_t *ret = value != NULL ? json_string(value) : NULL;

    return ret != NULL ? ret : json_null(); /* NULL also where it is not UTF-8 */
}

static json_t *count(uint64_t value)
{
    return json_integer((json_int_t)value);
}

static void set(json_t *object, const char *key, json_t *value)
{
    (void)json_object_set_new(object, key, value);
}

static json_t *summary(const struct gapless_summary *of)
{
    json_t *ret = json_object();
    bool any = of->count > 0;

    set(ret, "mean", any ? real(of->mean) : json_null());
    set(ret, "p50", any ? real(of->p50) : json_null());
    set(ret, "p99", any ? real(of->p99) : json_null());
    set(ret, "max", any ? real(of->max) : json_null());
    return ret;
}

static json_t *sample_json(const struct metrics_sample *sample)
{
    const struct gapless_stats *stats = sample->stats;
    json_t *ret = json_object();

    set(ret, "elapsed", real(sample->elapsed));
    set(ret, "seconds", real(stats->seconds));
    set(ret, "epoch", real(sample->epoch));
    set(ret, "gradients", count(stats->gradients));
    set(ret, "updates", count(stats->updates));
    set(ret, "updates_per_second", real(sample->updates_per_second));
    set(ret, "rate", real(stats->rate));
    set(ret, "loss", real(view_loss(stats)));
    set(ret, "gate", real(stats->gate));
    set(ret, "accuracy", real(sample->accuracy));
    set(ret, "test_loss", real(sample->test_loss));
    set(ret, "lag", summary(&stats->lag));
    set(ret, "gap_rms", summary(&stats->gap_rms));
    set(ret, "dropped", count(stats->dropped));
    set(ret, "workers", count(stats->workers_active));
    set(ret, "workers_lost", count(stats->workers_lost));
    set(ret, "lag_mean", real(sample->lag_mean));
    set(ret, "gap_rms_mean", real(sample->gap_rms_mean));
    if (isfinite(sample->grad_norm_sq))
        set(ret, "grad_norm_sq", real(sample->grad_norm_sq));
    return ret;
}

static double sum_of(const struct gapless_summary *of)
{
    return of->count > 0 ? of->mean * (double)of->count : 0.0;
}

static double mean_since(const struct gapless_summary *now,
                         const struct gapless_summary *before)
{
    if (now->count <= before->count)
        return (double)NAN;
    return (sum_of(now) - sum_of(before)) / (double)(now->count - before->count);
}

void results_since(struct metrics_sample *sample, const struct gapless_stats *before)
{
    sample->lag_mean = mean_since(&sample->stats->lag, &before->lag);
    sample->gap_rms_mean = mean_since(&sample->stats->gap_rms, &before->gap_rms);
}

static char *dumped(json_t *line)
{
    char *text = json_dumps(line, JSON_COMPACT | DIGITS);

    json_decref(line);
    return text;
}

char *results_sample(const struct metrics_sample *sample)
{
    return dumped(sample_json(sample));
}

void results_metrics(struct results *results, const struct metrics_sample *sample)
{
    json_t *line;
    char *text;

    if (results->failed || results->metrics == NULL)
        return;
    line = sample_json(sample);
    if (!results->id_written)
        (void)json_object_set_new(line, "run_id", json_string(results->id));
    results->id_written = true;
    text = dumped(line);
    if (text == NULL || fprintf(results->metrics, "%s\n", text) < 0 ||
        fflush(results->metrics) != 0) {
        results->failed = true;
        (void)gapless_error_set(&results->error, GAPLESS_IO, errno,
                                "cannot write %.150s/metrics.jsonl", results->folder);
    }
    free(text);
}

/* A slot that no worker ever had. */
static bool unused(const struct gapless_worker_stats *worker)
{
    return worker->state == 0 && worker->gradients == 0 && worker->dropped == 0;
}

static json_t *workers_json(const struct outcome *outcome)
{
    json_t *ret = json_array();

    for (uint32_t i = 0; i < outcome->worker_count; i++) {
        const struct gapless_worker_stats *worker = &outcome->worker[i];
        char name[24];
        json_t *row;

        if (unused(worker))
            continue;
        row = json_object();
        (void)snprintf(name, sizeof name, WORKER_NAME, i);
        set(row, "worker", count(i));
        set(row, "name", text(name));
        set(row, "gradients", count(worker->gradients));
        set(row, "dropped", count(worker->dropped));
        set(row, "lag_mean",
            worker->lag_count > 0 ? real(worker->lag_sum / (double)worker->lag_count)
                                  : json_null());
        set(row, "gap_rms_mean",
            worker->gap_count > 0 ? real(worker->gap_sum / (double)worker->gap_count)
                                  : json_null());
        (void)json_array_append_new(ret, row);
    }
    return ret;
}

/* Of a rule with a gate; else null. */
static json_t *gate_json(const struct outcome *outcome)
{
    const struct gapless_stats *stats = outcome->stats;
    const struct gapless_model *shape = &outcome->task->shape;
    json_t *ret, *rows = json_array();
    char advice[256];

    for (uint32_t i = 0; outcome->tensor_gates != NULL && i < shape->tensors_count; i++)
        (void)json_array_append_new(
            rows, json_pack("{s:o,s:o}", "tensor", text(shape->tensors[i].name), "mean",
                            real(outcome->tensor_gates[i])));
    if (!(stats->kappa > 0.0)) {
        json_decref(rows);
        return json_null();
    }
    ret = json_object();
    set(ret, "kappa", real(stats->kappa));
    set(ret, "mean", stats->gate_count > 0 ? real(stats->gate_mean) : json_null());
    set(ret, "gradients", count(stats->gate_count));
    set(ret, "warning",
        text(gapless_gate_advice(stats, advice, sizeof advice) ? advice : NULL));
    set(ret, "tensors", rows);
    return ret;
}

static json_t *bins_json(const uint32_t *bins)
{
    json_t *ret = json_array();

    for (unsigned i = 0; i < GAPLESS_BINS; i++)
        (void)json_array_append_new(ret, count(bins[i]));
    return ret;
}

static json_t *totals_json(const uint64_t *bins)
{
    json_t *ret = json_array();

    for (unsigned i = 0; i < GAPLESS_BINS; i++)
        (void)json_array_append_new(ret, count(bins[i]));
    return ret;
}

static json_t *edges_json(double (*edge)(unsigned))
{
    json_t *ret = json_array();

    for (unsigned i = 0; i < GAPLESS_BINS; i++)
        (void)json_array_append_new(ret, real(edge(i)));
    return ret;
}

static json_t *histograms_json(const struct outcome *outcome)
{
    uint64_t lag[GAPLESS_BINS] = {0}, gap[GAPLESS_BINS] = {0};
    json_t *ret = json_object(), *workers = json_array();

    for (uint32_t i = 0; i < outcome->worker_count; i++) {
        const struct gapless_worker_stats *worker = &outcome->worker[i];
        json_t *row;

        if (unused(worker))
            continue;
        row = json_object();
        set(row, "worker", count(i));
        set(row, "lag", bins_json(worker->lag_bins));
        set(row, "gap", bins_json(worker->gap_bins));
        (void)json_array_append_new(workers, row);
        for (unsigned b = 0; b < GAPLESS_BINS; b++) {
            lag[b] += worker->lag_bins[b];
            gap[b] += worker->gap_bins[b];
        }
    }
    set(ret, "lag_edges", edges_json(gapless_lag_edge));
    set(ret, "gap_edges", edges_json(gapless_gap_edge));
    set(ret, "lag", totals_json(lag));
    set(ret, "gap", totals_json(gap));
    set(ret, "workers", workers);
    return ret;
}

static json_t *span_json(struct span span)
{
    static const char *const units[] = {
        [SPAN_FRACTION] = "of the run",
        [SPAN_EPOCHS] = "epochs",
        [SPAN_UPDATES] = "updates",
    };

    return json_pack("{s:f,s:s}", "amount", span.amount, "unit", units[span.unit]);
}

static json_t *schedule_json(const struct settings *settings)
{
    json_t *ret = json_object(), *steps = json_array();

    set(ret, "warmup", span_json(settings->warmup));
    for (uint32_t i = 0; i < settings->steps.count; i++) {
        json_t *step = span_json(settings->steps.step[i].at);

        set(step, "factor", real(settings->steps.step[i].factor));
        (void)json_array_append_new(steps, step);
    }
    set(ret, "steps", steps);
    set(ret, "kind", text(settings->cosine ? "cosine" : "constant"));
    if (settings->cosine)
        set(ret, "cosine_to", real(settings->cosine_to));
    return ret;
}

/* The value of an option; null where it was not given and has no default. */
static json_t *option(const struct settings *settings, const char *name, double value)
{
    return options_source(settings, name) == OPTION_UNSET ? json_null() : real(value);
}

static json_t *option_count(const struct settings *settings, const char *name,
                            uint64_t value)
{
    return options_source(settings, name) == OPTION_UNSET ? json_null() : count(value);
}

static json_t *local_json(const struct settings *settings)
{
    json_t *ret = json_object();

    set(ret, "steps", count(settings->local_steps));
    set(ret, "adapt", count(settings->adapt_steps ? 1 : 0));
    set(ret, "inner", text(settings->inner));
    set(ret, "lr", real(settings->inner_lr));
    set(ret, "momentum", real(settings->inner_momentum));
    set(ret, "beta2", option(settings, "inner-beta2", settings->inner_beta2));
    set(ret, "decay", option(settings, "inner-decay", settings->inner_decay));
    return ret;
}

/* A foreign model's batches and seed are its program's, unless it is a workload. */
static void set_settings(json_t *ret, const struct outcome *outcome)
{
    const struct settings *settings = outcome->settings;
    const struct task *task = outcome->task;
    const bool foreign = task->is_foreign && task->workload == NULL;

    set(ret, "rule", text(settings->rule));
    set(ret, "workers", count(settings->workers));
    set(ret, "data", text(task->has_toy ? NULL : settings->data));
    set(ret, "model", text(settings->model));
    set(ret, "parameters", count(task->model.parameters));
    if (settings->workload != NULL)
        set(ret, "workload", text(settings->workload));
    if (!foreign) {
        set(ret, "batch", count(settings->batch));
        set(ret, "epochs", real(settings->epochs));
    }
    set(ret, "lr", real(settings->lr));
    set(ret, "momentum", real(settings->momentum));
    set(ret, "weight_decay", real(settings->weight_decay));
    set(ret, "clip_norm", real(settings->clip_norm));
    set(ret, "gap_ref", text(settings->gap_ref));
    set(ret, "schedule",
        schedule_json(settings)); /* with local steps the inner rate's */
    if (settings->local_steps > 0 && !foreign)
        set(ret, "local", local_json(settings));
    if (!foreign)
        set(ret, "seed", count(settings->seed));
    if (settings->device != NULL)
        set(ret, "device", text(settings->device));
    if (settings->worker_device != NULL)
        set(ret, "worker_device", text(settings->worker_device));
    if (settings->group != NULL)
        set(ret, "group", text(settings->group));
    set(ret, "version", text(gapless_version()));
}

static json_t *command_json(int argc, char *const *argv)
{
    json_t *ret = json_array();

    (void)json_array_append_new(ret, text("gapless"));
    for (int i = 0; i < argc; i++)
        (void)json_array_append_new(ret, text(argv[i]));
    return ret;
}

static void set_simulated(json_t *ret, const struct settings *settings,
                          const struct simulated *simulated)
{
    json_t *bytes = json_object();

    set(ret, "clock", text(simulated->clock));
    set(ret, "virtual_seconds", real(simulated->virtual_seconds));
    set(ret, "batch_time", real(simulated->batch_time));
    set(ret, "latency", real(settings->latency));
    set(ret, "bandwidth", real(settings->bandwidth));
    set(ret, "pass_time", real(settings->pass_time));
    set(ret, "events", text(settings->events));
    set(ret, "gradients_by", text(settings->gradients));
    set(ret, "kappa",
        settings->kappa > 0 ? option(settings, "kappa", settings->kappa)
                            : text("auto"));
    set(ret, "gate_of", text(settings->gate));
    set(ret, "beta2", option(settings, "beta2", settings->beta2));
    set(ret, "epsilon", option(settings, "epsilon", settings->epsilon));
    set(ret, "decay", option(settings, "decay", settings->decay));
    set(ret, "decay_all", json_boolean(settings->decay_all));
    set(ret, "rest_scale", option(settings, "rest-scale", settings->rest_scale));
    set(ret, "lambda", option(settings, "lambda", settings->lambda));
    set(ret, "horizon", option(settings, "horizon", settings->horizon));
    set(ret, "block_elements",
        option_count(settings, "block-elements", settings->block_elements));
    set(ret, "elastic", option(settings, "elastic", settings->elastic));
    set(ret, "drop_lag", option_count(settings, "drop-lag", settings->drop_lag));
    set(ret, "period", option_count(settings, "period", settings->period));
    set(ret, "grad_norm_sq_min", real(simulated->grad_norm_sq_min));
    set(ret, "grad_norm_sq_last", real(simulated->grad_norm_sq_last));
    set(bytes, "master", count(simulated->master_bytes));
    set(bytes, "tables", count(simulated->table_bytes));
    set(bytes, "workers", count(simulated->worker_bytes));
    set(ret, "bytes", bytes);
}

/* ---- files: wide where they can be, a line for each of a list of things -- */

/* Has it a list of things somewhere inside? */
static bool tall(json_t *value)
{
    const char *key;
    json_t *member;

    if (json_is_array(value))
        return json_is_object(json_array_get(value, 0));
    json_object_foreach(value, key, member) if (tall(member)) return true;
    return false;
}

static void put(FILE *out, json_t *value, int indent)
{
    const char *key, *comma = "";
    json_t *member;
    size_t i;

    if (!tall(value)) {
        (void)json_dumpf(value, out, JSON_ENCODE_ANY | DIGITS);
        return;
    }
    (void)fputs(json_is_array(value) ? "[" : "{", out);
    json_array_foreach(value, i, member)
    {
        (void)fprintf(out, "%s\n%*s", comma, indent + 2, "");
        put(out, member, indent + 2);
        comma = ",";
    }
    json_object_foreach(value, key, member)
    {
        (void)fprintf(out, "%s\n%*s\"%s\": ", comma, indent + 2, "", key);
        put(out, member, indent + 2);
        comma = ",";
    }
    (void)fprintf(out, "\n%*s%s", indent, "", json_is_array(value) ? "]" : "}");
}

/* Consumes the object, which is written with every key on a line of its own. */
static int write_object(const struct results *results, const char *name, json_t *object,
                        struct gapless_error *error)
{
    char path[RESULTS_PATH_MAX];
    char *bytes = NULL;
    size_t used = 0;
    const char *key, *comma = "";
    json_t *member;
    FILE *out = open_memstream(&bytes, &used);
    bool good;
    int status;

    if (out == NULL) {
        json_decref(object);
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for %s", name);
    }
    (void)fputs("{", out);
    json_object_foreach(object, key, member)
    {
        (void)fprintf(out, "%s\n  \"%s\": ", comma, key);
        put(out, member, 2);
        comma = ",";
    }
    (void)fputs("\n}\n", out);
    json_decref(object);
    good = ferror(out) == 0;
    good = fclose(out) == 0 && good;
    status = results_path(results->folder, name, path, error);
    if (status == GAPLESS_OK && !good)
        status =
            gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for %s", name);
    if (status == GAPLESS_OK)
        status = results_file(path, bytes, used, error);
    free(bytes);
    return status;
}

int results_write(struct results *results, const struct outcome *outcome,
                  struct gapless_error *error)
{
    const struct gapless_stats *stats = outcome->stats;
    json_t *ret = json_object();

    set(ret, "run_id", text(outcome->settings->run_id));
    set(ret, "mode",
        text(outcome->simulated != NULL  ? "simulate"
             : outcome->task->is_foreign ? "run"
                                         : "train"));
    set(ret, "final_accuracy", real(outcome->accuracy));
    set(ret, "final_loss", real(outcome->test_loss));
    set(ret, "training_loss", real(stats->loss));
    set(ret, "updates", count(stats->updates));
    set(ret, "updates_per_second", real((double)stats->updates / stats->seconds));
    set(ret, "seconds", real(stats->seconds));
    set(ret, "lag", summary(&stats->lag));
    set(ret, "gap_rms", summary(&stats->gap_rms));
    set(ret, "gate", gate_json(outcome));
    set(ret, "parameters_rms", real(outcome->parameters_rms));
    set(ret, "gradients", count(stats->gradients));
    set(ret, "gradients_total", count(stats->gradients_total));
    set(ret, "dropped", count(stats->dropped));
    set(ret, "partial", count(stats->partial));
    set(ret, "workers_lost", count(outcome->workers_lost));
    if (outcome->restarts > 0) {
        set(ret, "restarts", count(outcome->restarts));
        set(ret, "gradients_lost", count(outcome->gradients_lost));
    }
    set(ret, "stopped", json_boolean(outcome->stopped));
    set(ret, "diverged_at",
        stats->diverged_at > 0 ? count(stats->diverged_at) : json_null());
    set(ret, "failure", text(outcome->failure));
    set_settings(ret, outcome);
    if (outcome->simulated != NULL)
        set_simulated(ret, outcome->settings, outcome->simulated);
    else
        set(ret, "command", command_json(outcome->argc, outcome->argv));
    set(ret, "per_worker", workers_json(outcome));
    set(ret, "histograms", histograms_json(outcome));
    return write_object(results, "result.json", ret, error);
}

int results_cost(struct results *results, const struct run_cost *cost,
                 struct gapless_error *error)
{
    json_t *ret = json_object();

    set(ret, "command", command_json(cost->argc, cost->argv));
    set(ret, "version", text(gapless_version()));
    set(ret, "run_id", text(results->id));
    set(ret, "host", text(cost->host));
    set(ret, "started", text(cost->started));
    set(ret, "threads", count(cost->threads));
    set(ret, "real_seconds", real(cost->real_seconds));
    set(ret, "gradient_seconds", real(cost->gradient_seconds));
    set(ret, "master_seconds", real(cost->master_seconds));
    set(ret, "evaluate_seconds", real(cost->evaluate_seconds));
    set(ret, "master_us_per_update", real(cost->master_us));
    set(ret, "peak_rss_bytes", count(cost->peak_rss_bytes));
    set(ret, "buffer_bytes", count(cost->buffer_bytes));
    return write_object(results, "run.json", ret, error);
}
