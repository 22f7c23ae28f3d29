/* Reading the files of one run: result.json, run.json, metrics.jsonl. */
#include "cluster/report/report_data.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define JSON_MAX ((size_t)64 << 20) /* 4096 workers' histograms are a tenth of this */
#define LINE_MAX_BYTES 65536
#define LINES_MAX 4000000u
#define MOMENTS_MAX 2048u /* kept of a run; of more, every second, fourth, ... */
#define MOMENTS_LIGHT 128u
#define RUNS_LIGHT 2000u /* from this many on, less is kept of each */
#define COMMAND_WORDS_MAX 200u

/* ---- the columns --------------------------------------------------------- */

enum origin {
    RESULT, /* a path in result.json */
    RUN,    /* a key of run.json */
    OWN     /* worked out here */
};

static const struct column {
    const char *name, *path;
    enum origin origin;
    bool optional; /* taken out again if it says the same of all runs */
} columns[] = {
    {"cell", NULL, OWN, false},
    {"grid", NULL, OWN, false},
    {"rule", "rule", RESULT, false},
    {"workers", "workers", RESULT, false},
    {"seed", "seed", RESULT, false},
    {"data", "data", RESULT, false},
    {"model", "model", RESULT, false},
    {"batch", "batch", RESULT, false},
    {"lr", "lr", RESULT, false},
    {"momentum", "momentum", RESULT, false},
    {"epochs", "epochs", RESULT, false},
    {"clock", "clock", RESULT, false},
    {"mode", "mode", RESULT, true},
    {"weight-decay", "weight_decay", RESULT, true},
    {"clip-norm", "clip_norm", RESULT, true},
    {"gap-ref", "gap_ref", RESULT, true},
    {"batch-time", "batch_time", RESULT, true},
    {"latency", "latency", RESULT, true},
    {"bandwidth", "bandwidth", RESULT, true},
    {"pass-time", "pass_time", RESULT, true},
    {"events", "events", RESULT, true},
    {"kappa", "kappa", RESULT, true},
    {"lambda", "lambda", RESULT, true},
    {"horizon", "horizon", RESULT, true},
    {"block-elements", "block_elements", RESULT, true},
    {"elastic", "elastic", RESULT, true},
    {"period", "period", RESULT, true},
    {"final_accuracy", "final_accuracy", RESULT, false},
    {"final_loss", "final_loss", RESULT, false},
    {"training_loss", "training_loss", RESULT, false},
    {"lag_mean", "lag.mean", RESULT, false},
    {"lag_p99", "lag.p99", RESULT, false},
    {"gap_mean", "gap_rms.mean", RESULT, false},
    {"gap_p99", "gap_rms.p99", RESULT, false},
    {"updates", "updates", RESULT, false},
    {"gradients", "gradients", RESULT, false},
    {"virtual_seconds", "virtual_seconds", RESULT, false},
    {"time_to_target", NULL, OWN, false},
    {"grad_norm_sq_min", "grad_norm_sq_min", RESULT, false},
    {"master_bytes", "bytes.master", RESULT, false},
    {"worker_bytes", "bytes.workers", RESULT, false},
    {"real_seconds", "real_seconds", RUN, false},
    {"master_us_per_update", "master_us_per_update", RUN, false},
    {"status", NULL, OWN, false},
};
#define COLUMNS (sizeof columns / sizeof columns[0])

void report_run_columns(struct report *report, struct report_set *set)
{
    set->column = arena_take(&report->arena, COLUMNS * sizeof *set->column);
    if (set->column == NULL)
        return;
    set->columns = COLUMNS;
    for (size_t i = 0; i < COLUMNS; i++)
        set->column[i] = columns[i].name;
    set->options = 2;
    set->results = report_column(set, "final_accuracy");
}

void report_run_tidy(struct report *report, struct report_set *set)
{
    const char **kept;
    size_t used = 0;

    if (set->columns != COLUMNS)
        return; /* no memory, and that was noted */
    kept = arena_take(&report->arena, COLUMNS * sizeof *kept);
    if (kept == NULL)
        return;
    for (size_t c = 0; c < COLUMNS; c++) {
        const char *first = NULL;
        bool varies = false;

        for (size_t i = 0; columns[c].optional && i < set->runs && !varies; i++) {
            const char *own = set->run[i].field[c] != NULL ? set->run[i].field[c] : "";

            if (strcmp(report_field(set, &set->run[i], "status"), "missing") == 0)
                continue;
            varies = first != NULL && strcmp(first, own) != 0;
            first = own;
        }
        if (columns[c].optional && !varies)
            continue;
        kept[used] = columns[c].name;
        for (size_t i = 0; i < set->runs; i++)
            set->run[i].field[used] = set->run[i].field[c];
        used++;
    }
    set->column = kept;
    set->columns = used;
    set->results = report_column(set, "final_accuracy");
}

/* ---- JSON ---------------------------------------------------------------- */

/* The object in a file; NULL: there is none, or it was complained of. */
static json_t *read_object(struct report *report, const char *path, bool *missing)
{
    char reason[REPORT_WHY], *bytes = NULL;
    json_error_t wrong;
    size_t size = 0;
    json_t *ret;
    int status = report_read(path, JSON_MAX, &bytes, &size, reason);

    *missing = status == GAPLESS_MISSING;
    if (status != GAPLESS_OK) {
        if (!*missing)
            report_complain(report, "%s: %s", path, reason);
        return NULL;
    }
    ret = json_loadb(bytes, size, 0, &wrong);
    free(bytes);
    if (ret == NULL)
        report_complain(report, "%s, line %d: %s (cut off, or not JSON)", path,
                        wrong.line, size == 0 ? "it is empty" : wrong.text);
    else if (!json_is_object(ret)) {
        report_complain(report, "%s: it holds no JSON object", path);
        json_decref(ret);
        ret = NULL;
    }
    return ret;
}

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

static const char *text(struct report *report, const json_t *object, const char *path)
{
    const json_t *value = at_path(object, path);

    if (json_is_string(value))
        return arena_copy(&report->arena, json_string_value(value));
    if (json_is_integer(value))
        return arena_format(&report->arena, "%lld",
                            (long long)json_integer_value(value));
    if (json_is_real(value))
        return arena_format(&report->arena, "%.9g", json_real_value(value));
    return NULL;
}

/* A word as a shell takes it. */
static void quote(struct html *out, const char *word)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                "0123456789_./:=,+@%-";

    if (word[0] != '\0' && strspn(word, plain) == strlen(word)) {
        html_raw(out, word);
        return;
    }
    html_raw(out, "'");
    for (; *word != '\0'; word++)
        if (*word == '\'')
            html_raw(out, "'\\''");
        else
            html_bytes(out, word, 1);
    html_raw(out, "'");
}

static const char *command_of(struct report *report, const json_t *object)
{
    const json_t *words = json_object_get(object, "command");
    struct html line = {0};
    const char *ret = NULL;

    for (size_t i = 0; i < json_array_size(words) && i < COMMAND_WORDS_MAX; i++) {
        const char *word = json_string_value(json_array_get(words, i));

        if (i > 0)
            html_raw(&line, " ");
        if (word != NULL)
            quote(&line, word);
    }
    if (line.used > 0 && !line.failed)
        ret = arena_copy(&report->arena, line.bytes);
    html_free(&line);
    return ret;
}

/* ---- histograms ---------------------------------------------------------- */

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

static bool worker_read(const json_t *row, struct report_worker *ret)
{
    double lag[REPORT_BINS], gap[REPORT_BINS];

    ret->worker = number(row, "worker");
    if (!isfinite(ret->worker) || !numbers(json_object_get(row, "lag"), lag) ||
        !numbers(json_object_get(row, "gap"), gap))
        return false;
    for (size_t i = 0; i < REPORT_BINS; i++) {
        ret->lag[i] = (float)fmin(fabs(lag[i]), 1e30);
        ret->gap[i] = (float)fmin(fabs(gap[i]), 1e30);
    }
    return true;
}

static void histograms_read(struct report *report, struct report_run *run,
                            const json_t *from)
{
    const json_t *rows = json_object_get(from, "workers");
    struct report_histograms *ret = arena_take(&report->arena, sizeof *ret);

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
    if (json_array_size(rows) == 0 || report->loaded > RUNS_LIGHT)
        return;
    ret->worker =
        arena_take(&report->arena, json_array_size(rows) * sizeof *ret->worker);
    for (size_t i = 0; ret->worker != NULL && i < json_array_size(rows); i++)
        if (worker_read(json_array_get(rows, i), &ret->worker[ret->workers]))
            ret->workers++;
}

/* ---- metrics.jsonl ------------------------------------------------------- */

struct metrics {
    struct report *report;
    struct report_run *run;
    double target, met; /* met: seconds; NaN: not yet */
    size_t stride, seen, max;
    bool pending; /* `last` was left out, and is the last so far */
    struct report_moment last;
};

static struct report_moment moment_of(const json_t *line)
{
    struct report_moment ret = {
        .elapsed = number(line, "elapsed"),
        .epoch = number(line, "epoch"),
        .gradients = number(line, "gradients"),
        .updates = number(line, "updates"),
        .accuracy = number(line, "accuracy"),
        .test_loss = number(line, "test_loss"),
        .loss = number(line, "loss"),
        .lag = number(line, "lag_mean"),
        .gap = number(line, "gap_rms_mean"),
        .grad_norm_sq = number(line, "grad_norm_sq"),
    };

    if (!isfinite(ret.elapsed))
        ret.elapsed = number(line, "seconds");
    if (json_object_get(line, "lag_mean") ==
        NULL) /* not a simulation: from its start */
        ret.lag = number(line, "lag.mean");
    if (json_object_get(line, "gap_rms_mean") == NULL)
        ret.gap = number(line, "gap_rms.mean");
    return ret;
}

static void moment_keep(struct metrics *m, const struct report_moment *moment)
{
    struct report_run *run = m->run;
    struct report_moment *grown =
        arena_grow(&m->report->arena, run->moment, run->moments, sizeof *run->moment);

    if (grown == NULL)
        return;
    run->moment = grown;
    run->moment[run->moments++] = *moment;
}

static void moment_add(struct metrics *m, const struct report_moment *moment)
{
    struct report_run *run = m->run;

    if (!isfinite(m->met) && moment->accuracy >= m->target)
        m->met = moment->elapsed;
    m->pending = m->seen++ % m->stride != 0;
    m->last = *moment;
    if (m->pending)
        return;
    moment_keep(m, moment);
    if (run->moments < m->max)
        return;
    for (size_t i = 0; 2 * i < run->moments; i++)
        run->moment[i] = run->moment[2 * i];
    run->moments = (run->moments + 1) / 2;
    m->stride *= 2;
    m->pending = m->last.elapsed > run->moment[run->moments - 1].elapsed;
}

/* Reads the lines; says in `why` what ended the reading before its time. */
static void metrics_lines(struct metrics *m, FILE *file, char *line, char *reason)
{
    for (unsigned number_of = 1; number_of < LINES_MAX; number_of++) {
        json_error_t wrong;
        json_t *object;
        struct report_moment moment;

        if (fgets(line, LINE_MAX_BYTES, file) == NULL)
            return;
        if (line[0] == '\n')
            continue;
        object = json_loads(line, 0, &wrong);
        if (!json_is_object(object)) {
            (void)snprintf(reason, REPORT_WHY,
                           "line %u is cut off or not a JSON object: it is read up to "
                           "there",
                           number_of);
            json_decref(object);
            return;
        }
        moment = moment_of(object);
        json_decref(object);
        moment_add(m, &moment);
    }
}

double report_metrics_read(struct report *report, const struct report_set *set,
                           struct report_run *run)
{
    struct metrics m = {.report = report,
                        .run = run,
                        .target = report_target(report, set),
                        .met = (double)NAN,
                        .stride = 1,
                        .max =
                            report->loaded > RUNS_LIGHT ? MOMENTS_LIGHT : MOMENTS_MAX};
    const char *path = arena_format(&report->arena, "%s/metrics.jsonl", run->folder);
    char reason[REPORT_WHY] = "", *line;
    struct stat info;
    FILE *file;

    if (stat(path, &info) != 0)
        return m.met;
    if (!S_ISREG(info.st_mode)) {
        report_complain(report, "%s: it is not a regular file", path);
        return m.met;
    }
    file = fopen(path, "re");
    line = malloc(LINE_MAX_BYTES);
    if (file == NULL || line == NULL)
        (void)snprintf(reason, sizeof reason, "it cannot be opened");
    else
        metrics_lines(&m, file, line, reason);
    if (m.pending)
        moment_keep(&m, &m.last);
    if (reason[0] != '\0')
        report_complain(report, "%s: %s", path, reason);
    free(line);
    if (file != NULL)
        (void)fclose(file);
    return m.met;
}

/* ---- a run --------------------------------------------------------------- */

static void set_field(struct report_set *set, struct report_run *run, const char *name,
                      const char *value)
{
    size_t at = report_column(set, name);

    if (at != SIZE_MAX && value != NULL && value[0] != '\0')
        run->field[at] = value;
}

static void fill_fields(struct report *report, struct report_set *set,
                        struct report_run *run, const json_t *result,
                        const json_t *real)
{
    const char *status = "done";
    bool train = strcmp(json_string_value(json_object_get(result, "mode")) != NULL
                            ? json_string_value(json_object_get(result, "mode"))
                            : "train",
                        "train") == 0;

    for (size_t c = 0; c < COLUMNS; c++)
        if (columns[c].origin != OWN)
            run->field[c] =
                text(report, columns[c].origin == RUN ? real : result, columns[c].path);
    if (train && result != NULL)
        set_field(set, run, "real_seconds", text(report, result, "seconds"));
    if (result == NULL)
        status = "missing";
    else if (json_is_string(json_object_get(result, "failure")))
        status = "failed";
    else if (json_is_true(json_object_get(result, "stopped")))
        status = "stopped";
    set_field(set, run, "status", status);
}

static void origin_read(struct report *report, struct report_run *run,
                        const json_t *result, const json_t *real)
{
    run->command = command_of(report, real);
    if (run->command == NULL)
        run->command = command_of(report, result);
    run->version = text(report, real, "version");
    if (run->version == NULL)
        run->version = text(report, result, "version");
    run->host = text(report, real, "host");
    run->started = text(report, real, "started");
    run->updates_per_second = number(result, "updates_per_second");
    run->real_seconds = number(real, "real_seconds");
    if (!isfinite(run->real_seconds) &&
        json_object_get(result, "virtual_seconds") == NULL)
        run->real_seconds = number(result, "seconds");
}

void report_run_read(struct report *report, struct report_set *set,
                     struct report_run *run, bool fields)
{
    bool no_result, no_real;
    json_t *result =
        read_object(report, arena_format(&report->arena, "%s/result.json", run->folder),
                    &no_result);
    json_t *real = read_object(
        report, arena_format(&report->arena, "%s/run.json", run->folder), &no_real);
    double met = report_metrics_read(report, set, run);

    report->loaded++;
    origin_read(report, run, result, real);
    if (fields)
        fill_fields(report, set, run, result, real);
    else if (no_result && report_done(set, run))
        report_complain(report,
                        "%s/result.json: it is not there, but study.csv says done",
                        run->folder);
    if (fields || report->target > 0) {
        size_t at = report_column(set, "time_to_target");

        if (at != SIZE_MAX && run->field != NULL)
            run->field[at] =
                isfinite(met) ? arena_format(&report->arena, "%.9g", met) : NULL;
    }
    histograms_read(report, run, json_object_get(result, "histograms"));
    json_decref(result);
    json_decref(real);
}
