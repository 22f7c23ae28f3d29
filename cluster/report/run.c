/* Reading the files of one run: result.json, run.json, metrics.jsonl. */
#include "cluster/report/data.h"
#include "engine/base/text_file.h"

#include <jansson.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define JSON_MAX ((size_t)64 << 20) /* 4096 workers' histograms are a tenth of this */
#define METRICS_MAX ((uint64_t)1 << 30)
#define LINE_MAX_BYTES 65536u
#define MOMENTS_MAX 2048u /* kept of a run; of more, every second, fourth, ... */
#define MOMENTS_LIGHT 128u
#define RUNS_LIGHT 2000u /* from this many on, less is kept of each */
#define COMMAND_WORDS_MAX 200u
#define DIVERGED_TIMES 1000.0 /* a loss that ended so far above where it began */

/* ---- the columns --------------------------------------------------------- */

/* Of a run that no study.csv describes. */
static const struct {
    const char *name, *path; /* in result.json */
    bool optional;           /* taken out again if it says the same of all runs */
} options[] = {
    {"rule", "rule", false},
    {"workers", "workers", false},
    {"seed", "seed", false},
    {"data", "data", false},
    {"model", "model", false},
    {"batch", "batch", false},
    {"lr", "lr", false},
    {"momentum", "momentum", false},
    {"epochs", "epochs", false},
    {"clock", "clock", false},
    {"mode", "mode", true},
    {"weight-decay", "weight_decay", true},
    {"clip-norm", "clip_norm", true},
    {"gap-ref", "gap_ref", true},
    {"batch-time", "batch_time", true},
    {"latency", "latency", true},
    {"bandwidth", "bandwidth", true},
    {"pass-time", "pass_time", true},
    {"events", "events", true},
    {"kappa", "kappa", true},
    {"gate", "gate_of", true},
    {"beta2", "beta2", true},
    {"epsilon", "epsilon", true},
    {"decay", "decay", true},
    {"rest-scale", "rest_scale", true},
    {"lambda", "lambda", true},
    {"horizon", "horizon", true},
    {"block-elements", "block_elements", true},
    {"elastic", "elastic", true},
    {"period", "period", true},
    {"drop-lag", "drop_lag", true},
    {"local-steps", "local.steps", true},
    {"adapt-steps", "local.adapt", true},
    {"inner", "local.inner", true},
    {"inner-lr", "local.lr", true},
    {"inner-momentum", "local.momentum", true},
    {"inner-beta2", "local.beta2", true},
    {"inner-decay", "local.decay", true},
};
#define OPTIONS (sizeof options / sizeof options[0])
#define BEFORE 2u /* cell, grid */
#define COLUMNS (BEFORE + OPTIONS + RUN_NUMBERS + 1)

#define TIME_TO_TARGET 11
const char *const run_number_names[RUN_NUMBERS] = {"final_accuracy",
                                                   "final_loss",
                                                   "training_loss",
                                                   "lag_mean",
                                                   "lag_p99",
                                                   "gap_mean",
                                                   "gap_p99",
                                                   "gate_mean",
                                                   "updates",
                                                   "gradients",
                                                   "virtual_seconds",
                                                   [TIME_TO_TARGET] = "time_to_target",
                                                   "grad_norm_sq_min",
                                                   "master_bytes",
                                                   "worker_bytes",
                                                   "real_seconds",
                                                   "master_us_per_update"};

/* Where they are: in result.json, or else in run.json; time_to_target is worked out. */
static const char *const number_path[RUN_NUMBERS] = {"final_accuracy",
                                                     "final_loss",
                                                     "training_loss",
                                                     "lag.mean",
                                                     "lag.p99",
                                                     "gap_rms.mean",
                                                     "gap_rms.p99",
                                                     "gate.mean",
                                                     "updates",
                                                     "gradients",
                                                     "virtual_seconds",
                                                     NULL,
                                                     "grad_norm_sq_min",
                                                     "bytes.master",
                                                     "bytes.workers",
                                                     "real_seconds",
                                                     "master_us_per_update"};

const struct quantity_info quantities[QUANTITIES] = {
    [AT_SECONDS] = {"seconds", "elapsed", "Time", "s", false, false},
    [AT_EPOCH] = {"epoch", "epoch", "Epoch", "", false, false},
    [AT_GRADIENTS] = {"gradients", "gradients", "Gradients", "", false, false},
    [TEST_ACCURACY] = {"accuracy", "accuracy", "Test accuracy", "", false, true},
    [TEST_LOSS] = {"test_loss", "test_loss", "Test loss", "", true, false},
    [TRAINING_LOSS] = {"loss", "loss", "Training loss", "", true, false},
    [LEARNING_RATE] = {"rate", "rate", "Learning rate", "", false, false},
    [THROUGHPUT] = {"updates_per_second", "updates_per_second", "Throughput",
                    "updates/s", false, false},
    [LAG] = {"lag", "lag_mean", "Lag", "updates", false, false},
    [GAP] = {"gap", "gap_rms_mean", "Gap", "rms a parameter", true, false},
    [GRAD_NORM_SQ] = {"grad_norm_sq", "grad_norm_sq", "Squared gradient norm", "", true,
                      false},
};

const char *run_status_name(enum run_status status)
{
    static const char *const names[] = {"missing", "done", "diverged", "stopped",
                                        "failed"};

    return names[status];
}

void run_columns(struct report *report, struct set *set)
{
    set->column = arena_take(&report->arena, COLUMNS * sizeof *set->column);
    if (set->column == NULL)
        return;
    set->columns = COLUMNS;
    set->column[0] = "cell";
    set->column[1] = "grid";
    for (size_t i = 0; i < OPTIONS; i++)
        set->column[BEFORE + i] = options[i].name;
    set->options = BEFORE;
    set->results = BEFORE + OPTIONS;
    for (size_t i = 0; i < RUN_NUMBERS; i++)
        set->column[set->results + i] = run_number_names[i];
    set->column[COLUMNS - 1] = "status";
}

static bool column_varies(const struct set *set, size_t column)
{
    const char *first = NULL;

    for (size_t i = 0; i < set->runs; i++) {
        const char *own = set->run[i].field[column];

        own = own != NULL ? own : "";
        if (run_status(set, &set->run[i]) == RUN_MISSING)
            continue;
        if (first != NULL && strcmp(first, own) != 0)
            return true;
        first = own;
    }
    return false;
}

void run_columns_tidy(struct report *report, struct set *set)
{
    const char **kept;
    bool keep[COLUMNS];
    size_t used = 0;

    if (set->columns != COLUMNS)
        return; /* no memory, and that was noted */
    kept = arena_take(&report->arena, COLUMNS * sizeof *kept);
    for (size_t c = 0; c < COLUMNS; c++)
        keep[c] = c < set->options || c >= set->results ||
                  !options[c - BEFORE].optional || column_varies(set, c);
    for (size_t c = 0; kept != NULL && c < COLUMNS; c++) {
        if (!keep[c])
            continue;
        kept[used] = set->column[c];
        for (size_t i = 0; i < set->runs; i++)
            set->run[i].field[used] = set->run[i].field[c];
        used++;
    }
    if (kept == NULL)
        return;
    set->column = kept;
    set->results -= COLUMNS - used;
    set->columns = used;
}

/* ---- JSON ---------------------------------------------------------------- */

/* "lag.mean" of an object; NULL: not there. */
static const json_t *at_path(const json_t *object, const char *path)
{
    const char *dot = strchr(path, '.');
    char first[32];

    if (dot == NULL)
        return json_object_get(object, path);
    (void)snprintf(first, sizeof first, "%.*s", (int)(dot - path), path);
    return json_object_get(json_object_get(object, first), dot + 1);
}

static double number(const json_t *object, const char *path)
{
    const json_t *value = at_path(object, path);
    double ret = json_is_number(value) ? json_number_value(value) : (double)NAN;

    return isfinite(ret) ? ret : (double)NAN;
}

static const char *number_text(struct arena *arena, double value)
{
    char text[40] = "";
    FILE *out = isfinite(value) ? fmemopen(text, sizeof text, "w") : NULL;

    if (out == NULL)
        return NULL;
    csv_number(out, value);
    return fclose(out) == 0 ? arena_copy(arena, text) : NULL;
}

static const char *text(struct arena *arena, const json_t *object, const char *path)
{
    const json_t *value = at_path(object, path);

    return json_is_string(value) ? arena_copy(arena, json_string_value(value))
                                 : number_text(arena, number(object, path));
}

/* The object in a file; NULL: there is none, or it is complained of (unless `report` is
 * NULL). */
static json_t *read_object(struct report *report, const char *path, bool *missing)
{
    struct gapless_error error = {0};
    json_error_t wrong = {0};
    char *bytes = NULL;
    size_t size = 0;
    json_t *ret = NULL;
    int status = text_file_all(path, "this file", JSON_MAX, &bytes, &size, &error);

    *missing = status == GAPLESS_MISSING;
    if (status == GAPLESS_OK)
        ret = json_loadb(bytes, size, 0, &wrong);
    free(bytes);
    if (json_is_object(ret))
        return ret;
    if (report == NULL || *missing)
        json_decref(ret);
    else if (status != GAPLESS_OK)
        report_complain(report, "%s", error.text);
    else if (ret == NULL)
        report_complain(report, "%s, line %d: %s (cut off, or not JSON)", path,
                        wrong.line, size == 0 ? "it is empty" : wrong.text);
    else {
        report_complain(report, "%s: it holds no JSON object", path);
        json_decref(ret);
    }
    return NULL;
}

/* ---- metrics.jsonl ------------------------------------------------------- */

struct metrics {
    struct arena *arena; /* NULL: no moment is kept */
    struct run *run;
    double target, met; /* met: seconds; NaN: not yet */
    double first_loss;
    size_t stride, seen, max;
    bool pending; /* `last` was left out, and is the last so far */
    struct moment last;
};

static struct metrics metrics_begin(struct arena *arena, struct run *run, double target)
{
    return (struct metrics){.arena = arena,
                            .run = run,
                            .target = target,
                            .met = (double)NAN,
                            .first_loss = (double)NAN,
                            .stride = 1};
}

static struct moment moment_of(const json_t *line)
{
    struct moment ret;

    for (enum quantity q = AT_SECONDS; q < QUANTITIES; q++)
        ret.of[q] = number(line, quantities[q].path);
    return ret;
}

void moment_carry(struct moment *to, const struct moment *left_out)
{
    for (enum quantity q = TEST_ACCURACY; q < QUANTITIES; q++)
        if (!isfinite(to->of[q]))
            to->of[q] = left_out->of[q];
}

static void moment_keep(struct metrics *m, const struct moment *moment)
{
    struct run *run = m->run;
    struct moment *grown =
        arena_grow(m->arena, run->moment, run->moments, sizeof *run->moment);

    if (grown == NULL)
        return;
    run->moment = grown;
    run->moment[run->moments++] = *moment;
}

static void moment_add(struct metrics *m, const struct moment *moment)
{
    struct run *run = m->run;
    struct moment own;

    if (!isfinite(m->met) && moment->of[TEST_ACCURACY] >= m->target)
        m->met = moment->of[AT_SECONDS];
    if (!isfinite(m->first_loss))
        m->first_loss = moment->of[TRAINING_LOSS];
    if (m->arena == NULL)
        return;
    own = *moment;
    if (m->pending)
        moment_carry(&own, &m->last);
    m->pending = m->seen++ % m->stride != 0;
    m->last = own;
    if (m->pending)
        return;
    moment_keep(m, &own);
    if (run->moments < m->max)
        return;
    for (size_t i = 0; 2 * i < run->moments; i++) {
        if (i > 0)
            moment_carry(&run->moment[2 * i], &run->moment[2 * i - 1]);
        run->moment[i] = run->moment[2 * i];
    }
    run->moments = (run->moments + 1) / 2;
    m->stride *= 2;
    m->pending = m->last.of[AT_SECONDS] > run->moment[run->moments - 1].of[AT_SECONDS];
}

/* Up to the first line that is none. `report` NULL: nothing is complained of. */
static void metrics_read(struct report *report, struct metrics *m, const char *path)
{
    struct gapless_error error = {0};
    struct text_file file;
    char *line;
    int status =
        text_file_open(&file, path, "this file", METRICS_MAX, LINE_MAX_BYTES, &error);
    bool missing = status == GAPLESS_MISSING;

    while (status == GAPLESS_OK &&
           (status = text_file_line(&file, &line, &error)) == GAPLESS_OK) {
        json_t *object = line[0] != '\0' ? json_loads(line, 0, NULL) : NULL;

        if (json_is_object(object)) {
            struct moment moment = moment_of(object);

            moment_add(m, &moment);
        } else if (line[0] != '\0')
            status = gapless_error_set(&error, GAPLESS_CORRUPT, 0,
                                       "%.150s: line %llu is cut off or not a JSON "
                                       "object: it is read up to there",
                                       path, (unsigned long long)file.line);
        json_decref(object);
    }
    text_file_close(&file);
    if (m->pending)
        moment_keep(m, &m->last);
    if (status != GAPLESS_STOPPED && !missing && report != NULL)
        report_complain(report, "%s", error.text);
}

/* ---- its numbers --------------------------------------------------------- */

static bool diverged(const json_t *result, double first_loss)
{
    double loss = number(result, "training_loss");

    if (number(result, "diverged_at") > 0) /* the run noticed it, and ended */
        return true;
    if (isfinite(number(result, "final_accuracy")) &&
        json_is_null(json_object_get(result, "final_loss")))
        return true;
    if (number(result, "updates") > 0 &&
        (json_is_null(json_object_get(result, "training_loss")) ||
         json_is_null(json_object_get(result, "parameters_rms"))))
        return true;
    return loss > DIVERGED_TIMES * fabs(first_loss);
}

static void result_of(const json_t *result, const json_t *real, const struct metrics *m,
                      struct run_result *ret)
{
    for (size_t i = 0; i < RUN_NUMBERS; i++) {
        const char *path = number_path[i];

        ret->number[i] = path != NULL ? number(result, path) : m->met;
        if (path != NULL && !isfinite(ret->number[i]))
            ret->number[i] = number(real, path);
    }
    if (result == NULL)
        ret->status = RUN_MISSING;
    else if (json_is_string(json_object_get(result, "failure")))
        ret->status = RUN_FAILED;
    else if (json_is_true(json_object_get(result, "stopped")))
        ret->status = RUN_STOPPED;
    else
        ret->status = diverged(result, m->first_loss) ? RUN_DIVERGED : RUN_DONE;
    ret->ended_early = ret->status == RUN_DIVERGED && number(result, "diverged_at") > 0;
}

struct files {
    json_t *result, *real;
    bool no_result;
};

static struct files files_read(struct report *report, struct arena *arena,
                               const char *folder)
{
    struct files ret;
    bool no_real;

    ret.result = read_object(report, arena_format(arena, "%s/result.json", folder),
                             &ret.no_result);
    ret.real =
        read_object(report, arena_format(arena, "%s/run.json", folder), &no_real);
    return ret;
}

void run_result_read(const char *folder, double target, struct run_result *ret)
{
    struct arena arena = {0};
    struct metrics m = metrics_begin(NULL, NULL, target);
    struct files files = files_read(NULL, &arena, folder);

    if (files.result != NULL)
        metrics_read(NULL, &m, arena_format(&arena, "%s/metrics.jsonl", folder));
    result_of(files.result, files.real, &m, ret);
    json_decref(files.result);
    json_decref(files.real);
    arena_free(&arena);
}

/* ---- the rest of it ------------------------------------------------------ */

static bool numbers(const json_t *array, double ret[REPORT_BINS])
{
    if (json_array_size(array) != REPORT_BINS)
        return false;
    for (size_t i = 0; i < REPORT_BINS; i++) {
        const json_t *value = json_array_get(array, i);

        if (!json_is_number(value) || !isfinite(json_number_value(value)))
            return false;
        ret[i] = json_number_value(value);
    }
    return true;
}

/* The lower edges of the bins below and above which a tenth of the counts is. */
static void tenths(const json_t *counts, const double *edge, double *low, double *high)
{
    double count[REPORT_BINS], all = 0, sum = 0;

    *low = *high = (double)NAN;
    if (!numbers(counts, count))
        return;
    for (size_t i = 0; i < REPORT_BINS; i++)
        all += count[i];
    for (size_t i = 0; i < REPORT_BINS && all > 0; i++) {
        sum += count[i];
        if (!isfinite(*low) && sum >= 0.1 * all)
            *low = edge[i];
        if (!isfinite(*high) && sum >= 0.9 * all)
            *high = edge[i];
    }
}

/* The row of a worker in an array of such. */
static const json_t *row_of(const json_t *rows, double worker)
{
    for (size_t i = 0; i < json_array_size(rows); i++)
        if (fabs(number(json_array_get(rows, i), "worker") - worker) < 0.5)
            return json_array_get(rows, i);
    return NULL;
}

static void workers_read(struct arena *arena, struct run *run, const json_t *result)
{
    const json_t *rows = json_object_get(result, "per_worker");
    const json_t *bins =
        json_object_get(json_object_get(result, "histograms"), "workers");
    size_t count = json_array_size(rows);

    run->worker = count > 0 ? arena_take(arena, count * sizeof *run->worker) : NULL;
    for (size_t i = 0; run->worker != NULL && i < count; i++) {
        const json_t *row = json_array_get(rows, i), *own = json_array_get(bins, i);
        struct worker *worker = &run->worker[run->workers];

        *worker = (struct worker){number(row, "worker"),
                                  number(row, "gradients"),
                                  number(row, "lag_mean"),
                                  number(row, "gap_rms_mean"),
                                  (double)NAN,
                                  (double)NAN,
                                  (double)NAN,
                                  (double)NAN};
        if (!isfinite(worker->number))
            continue;
        if (!(fabs(number(own, "worker") - worker->number) < 0.5))
            own = row_of(bins, worker->number);
        if (own != NULL && run->histograms != NULL) {
            tenths(json_object_get(own, "lag"), run->histograms->lag_edge,
                   &worker->lag_low, &worker->lag_high);
            tenths(json_object_get(own, "gap"), run->histograms->gap_edge,
                   &worker->gap_low, &worker->gap_high);
        }
        run->workers++;
    }
}

static void histograms_read(struct report *report, struct run *run, const json_t *from)
{
    struct histograms *ret = arena_take(&report->arena, sizeof *ret);

    if (ret == NULL || from == NULL || json_is_null(from))
        return;
    if (!numbers(json_object_get(from, "lag_edges"), ret->lag_edge) ||
        !numbers(json_object_get(from, "gap_edges"), ret->gap_edge) ||
        !numbers(json_object_get(from, "lag"), ret->lag) ||
        !numbers(json_object_get(from, "gap"), ret->gap)) {
        report_complain(report,
                        "%s/result.json: its histograms do not have %d bins each",
                        run->folder, REPORT_BINS);
        return;
    }
    run->histograms = ret;
}

/* A word as a shell takes it. */
static void quote(FILE *out, const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                "0123456789_./:=,+@%-";

    if (word[0] != '\0' && strspn(word, plain) == strlen(word)) {
        (void)fputs(word, out);
        return;
    }
    (void)fputc('\'', out);
    for (; *word != '\0'; word++)
        if (*word == '\'')
            (void)fputs("'\\''", out);
        else
            (void)fputc(*word, out);
    (void)fputc('\'', out);
}

static const char *command_of(struct arena *arena, const json_t *object)
{
    const json_t *words = json_object_get(object, "command");
    const char *ret = NULL;
    char *line = NULL;
    size_t bytes = 0;
    FILE *out = json_array_size(words) > 0 ? open_memstream(&line, &bytes) : NULL;

    if (out == NULL)
        return NULL;
    for (size_t i = 0; i < json_array_size(words) && i < COMMAND_WORDS_MAX; i++) {
        const char *word = json_string_value(json_array_get(words, i));

        if (i > 0)
            (void)fputc(' ', out);
        if (word != NULL)
            quote(out, word);
    }
    if (fclose(out) == 0 && bytes > 0)
        ret = arena_copy(arena, line);
    free(line);
    return ret;
}

static void origin_read(struct arena *arena, struct run *run, const struct files *files)
{
    run->command = command_of(arena, files->real);
    if (run->command == NULL)
        run->command = command_of(arena, files->result);
    run->version = text(arena, files->real, "version");
    if (run->version == NULL)
        run->version = text(arena, files->result, "version");
    run->host = text(arena, files->real, "host");
    run->started = text(arena, files->real, "started");
    run->seconds = number(files->real, "real_seconds");
    if (!isfinite(run->seconds) &&
        json_object_get(files->result, "virtual_seconds") == NULL)
        run->seconds = number(files->result, "seconds");
}

/* ---- a run --------------------------------------------------------------- */

static void field_set(struct set *set, struct run *run, const char *name,
                      const char *value)
{
    size_t at = set_column(set, name);

    if (at != SIZE_MAX)
        run->field[at] = value;
}

static void fields_fill(struct report *report, struct set *set, struct run *run,
                        const struct run_result *numbers_of, const json_t *result)
{
    for (size_t i = 0; i < OPTIONS; i++)
        run->field[BEFORE + i] = text(&report->arena, result, options[i].path);
    for (size_t i = 0; i < RUN_NUMBERS; i++)
        field_set(set, run, run_number_names[i],
                  number_text(&report->arena, numbers_of->number[i]));
    if (result != NULL && json_object_get(result, "virtual_seconds") == NULL)
        field_set(set, run, "real_seconds",
                  number_text(&report->arena, number(result, "seconds")));
    field_set(set, run, "status", run_status_name(numbers_of->status));
}

void run_read(struct report *report, struct set *set, struct run *run, bool fields)
{
    struct arena *arena = &report->arena;
    struct files files = files_read(report, arena, run->folder);
    bool light = report->loaded++ > RUNS_LIGHT;
    struct metrics m = metrics_begin(arena, run, set->target);
    struct run_result numbers_of;

    m.max = light ? MOMENTS_LIGHT : MOMENTS_MAX;
    metrics_read(report, &m, arena_format(arena, "%s/metrics.jsonl", run->folder));
    result_of(files.result, files.real, &m, &numbers_of);
    origin_read(arena, run, &files);
    if (fields)
        fields_fill(report, set, run, &numbers_of, files.result);
    else if (files.no_result && run_has_numbers(set, run))
        report_complain(report,
                        "%s/result.json: it is not there, but study.csv says %s",
                        run->folder, run_field(set, run, "status"));
    else if (numbers_of.status == RUN_DIVERGED &&
             run_status(set, run) == RUN_DONE) /* of a study that did not say so */
        field_set(set, run, "status", run_status_name(RUN_DIVERGED));
    if (!fields && report->target > 0)
        field_set(set, run, "time_to_target", number_text(arena, m.met));
    histograms_read(report, run, json_object_get(files.result, "histograms"));
    if (!light)
        workers_read(arena, run, files.result);
    json_decref(files.result);
    json_decref(files.real);
}
