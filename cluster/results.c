/* The files of a run, so that nothing already written is ever lost. */
#include "results.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define ROOM_MIN (1u << 20) /* metrics, result and log of a run */

/* ---- files -------------------------------------------------------------------------
 */

static int path_join(const char *folder, const char *name, char ret[RESULTS_PATH_MAX],
                     struct gapless_error *error)
{
    int used = snprintf(ret, RESULTS_PATH_MAX, "%s/%s", folder, name);

    if (used < 0 || used >= RESULTS_PATH_MAX)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "the path of the output folder is too long");
    return GAPLESS_OK;
}

int results_folder(const char *path, struct gapless_error *error)
{
    char part[RESULTS_PATH_MAX];
    struct stat info;
    size_t bytes = strlen(path);

    if (bytes + 64 > sizeof part)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "the path of the output folder is too long");
    for (size_t i = 1; i <= bytes; i++) {
        if (path[i] != '/' && path[i] != '\0')
            continue;
        memcpy(part, path, i);
        part[i] = '\0';
        if (mkdir(part, 0777) == 0 || errno == EEXIST)
            continue;
        return gapless_error_set(error, GAPLESS_IO, errno,
                                 "cannot make the folder %.150s", part);
    }
    if (stat(path, &info) != 0)
        return gapless_error_set(error, GAPLESS_IO, errno,
                                 "cannot open the folder %.150s", path);
    if (!S_ISDIR(info.st_mode))
        return gapless_error_set(error, GAPLESS_IO, 0,
                                 "%.150s is a file, not a folder: choose another --out",
                                 path);
    return GAPLESS_OK;
}

static bool write_all(int fd, const char *bytes, size_t count)
{
    while (count > 0) {
        ssize_t done = write(fd, bytes, count);

        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return false;
        bytes += done;
        count -= (size_t)done;
    }
    return true;
}

/* So that a rename survives a crash of the machine; where a folder cannot be synced, it
 * is as good as it gets. */
static void sync_folder(const char *path)
{
    char folder[RESULTS_PATH_MAX];
    const char *slash = strrchr(path, '/');
    int fd;

    (void)snprintf(folder, sizeof folder, "%.*s",
                   slash != NULL ? (int)(slash - path) + 1 : 1,
                   slash != NULL ? path : ".");
    fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    (void)fsync(fd);
    (void)close(fd);
}

int results_file(const char *path, const void *bytes, size_t count,
                 struct gapless_error *error)
{
    char temporary[RESULTS_PATH_MAX];
    int fd, os;

    if (snprintf(temporary, sizeof temporary, "%s.%d.tmp", path, (int)getpid()) >=
        (int)sizeof temporary)
        return gapless_error_set(error, GAPLESS_INVALID, 0, "the path is too long");
    fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return gapless_error_set(error, GAPLESS_IO, errno, "cannot write %.150s",
                                 temporary);
    if (!write_all(fd, bytes, count) || fsync(fd) != 0) {
        os = errno;
        (void)close(fd);
        goto remove_temporary;
    }
    if (close(fd) != 0 || rename(temporary, path) != 0) {
        os = errno;
        goto remove_temporary;
    }
    sync_folder(path);
    return GAPLESS_OK;

remove_temporary:
    (void)unlink(temporary);
    return gapless_error_set(error, GAPLESS_IO, os, "cannot write %.150s", path);
}

int results_check(const char *folder, uint64_t parameters, struct gapless_error *error)
{
    static const char probe[4096];
    char path[RESULTS_PATH_MAX];
    uint64_t need = parameters * sizeof(float) + ROOM_MIN, free_bytes;
    struct statvfs space;
    int status = results_folder(folder, error);

    if (status == GAPLESS_OK)
        status = path_join(folder, ".probe", path, error);
    if (status == GAPLESS_OK)
        status = results_file(path, probe, sizeof probe, error);
    if (status != GAPLESS_OK)
        return status;
    (void)unlink(path);
    if (statvfs(folder, &space) != 0)
        return GAPLESS_OK; /* it can be written; how much, it does not say */
    free_bytes = (uint64_t)space.f_bavail * space.f_frsize;
    if (free_bytes < need)
        return gapless_error_set(
            error, GAPLESS_IO, 0,
            "%.100s has room for %llu KiB, the run needs %llu: make "
            "room or choose another --out",
            folder, (unsigned long long)free_bytes / 1024,
            (unsigned long long)need / 1024);
    return GAPLESS_OK;
}

int results_set_aside(const char *folder, const char *name, const char *previous,
                      struct gapless_error *error)
{
    char from[RESULTS_PATH_MAX], to[RESULTS_PATH_MAX];
    int status = path_join(folder, name, from, error);

    if (status == GAPLESS_OK)
        status = path_join(folder, previous, to, error);
    if (status == GAPLESS_OK && rename(from, to) != 0 && errno != ENOENT)
        status =
            gapless_error_set(error, GAPLESS_IO, errno, "cannot rename %.150s", from);
    return status;
}

int results_open(const char *folder, struct results *ret, struct gapless_error *error)
{
    char path[RESULTS_PATH_MAX];
    int status;

    memset(ret, 0, sizeof *ret);
    (void)snprintf(ret->folder, sizeof ret->folder, "%s", folder);
    status = results_set_aside(folder, "result.json", "result.previous.json", error);
    if (status == GAPLESS_OK)
        status =
            results_set_aside(folder, "metrics.jsonl", "metrics.previous.jsonl", error);
    if (status == GAPLESS_OK)
        status = path_join(folder, "metrics.jsonl", path, error);
    if (status != GAPLESS_OK)
        return status;
    ret->metrics = fopen(path, "we");
    if (ret->metrics == NULL)
        return gapless_error_set(error, GAPLESS_IO, errno, "cannot write %.150s", path);
    return GAPLESS_OK;
}

void results_close(struct results *results)
{
    if (results->metrics != NULL)
        (void)fclose(results->metrics);
    results->metrics = NULL;
}

/* ---- JSON --------------------------------------------------------------------------
 */

static json_t *real(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
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

static json_t *moment_json(const struct moment *moment)
{
    const struct gapless_stats *stats = moment->stats;
    json_t *ret = json_object();

    set(ret, "elapsed", real(moment->elapsed));
    set(ret, "seconds", real(stats->seconds));
    set(ret, "epoch", real(moment->epoch));
    set(ret, "gradients", count(stats->gradients));
    set(ret, "updates", count(stats->updates));
    set(ret, "updates_per_second", real(moment->updates_per_second));
    set(ret, "rate", real(stats->rate));
    set(ret, "loss", real(stats->loss));
    set(ret, "gate", real(stats->gate));
    set(ret, "accuracy", real(moment->accuracy));
    set(ret, "test_loss", real(moment->test_loss));
    set(ret, "lag", summary(&stats->lag));
    set(ret, "gap_rms", summary(&stats->gap_rms));
    set(ret, "dropped", count(stats->dropped));
    set(ret, "workers", count(stats->workers_active));
    set(ret, "workers_lost", count(stats->workers_lost));
    return ret;
}

char *results_moment(const struct moment *moment)
{
    json_t *line = moment_json(moment);
    char *text = json_dumps(line, JSON_COMPACT | JSON_REAL_PRECISION(9));

    json_decref(line);
    return text;
}

void results_metrics(struct results *results, const struct moment *moment)
{
    char *text;

    if (results->failed || results->metrics == NULL)
        return;
    text = results_moment(moment);
    if (text == NULL || fprintf(results->metrics, "%s\n", text) < 0 ||
        fflush(results->metrics) != 0) {
        results->failed = true;
        (void)gapless_error_set(&results->error, GAPLESS_IO, errno,
                                "cannot write %.150s/metrics.jsonl", results->folder);
    }
    free(text);
}

static json_t *workers_json(const struct outcome *outcome)
{
    json_t *ret = json_array();

    for (uint32_t i = 0; i < outcome->worker_count; i++) {
        const struct gapless_worker_stats *worker = &outcome->worker[i];
        json_t *row;

        if (worker->state == 0 && worker->gradients == 0 && worker->dropped == 0)
            continue;
        row = json_object();
        set(row, "worker", count(i));
        set(row, "gradients", count(worker->gradients));
        set(row, "dropped", count(worker->dropped));
        set(row, "lag_mean",
            worker->gradients > 0 ? real(worker->lag_sum / (double)worker->gradients)
                                  : json_null());
        set(row, "gap_rms_mean",
            worker->gap_count > 0 ? real(worker->gap_sum / (double)worker->gap_count)
                                  : json_null());
        (void)json_array_append_new(ret, row);
    }
    return ret;
}

static json_t *text(const char *value)
{
    json_t *ret = value != NULL ? json_string(value) : NULL;

    return ret != NULL ? ret : json_null(); /* NULL also where it is not UTF-8 */
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

static void set_settings(json_t *ret, const struct outcome *outcome)
{
    const struct settings *settings = outcome->settings;
    json_t *command = json_array();

    set(ret, "rule", text(settings->rule));
    set(ret, "workers", count(settings->workers));
    set(ret, "data", text(settings->data));
    set(ret, "model", text(settings->model));
    set(ret, "parameters", count(outcome->task->model.parameters));
    set(ret, "batch", count(settings->batch));
    set(ret, "epochs", real(settings->epochs));
    set(ret, "lr", real(settings->lr));
    set(ret, "momentum", real(settings->momentum));
    set(ret, "weight_decay", real(settings->weight_decay));
    set(ret, "clip_norm", real(settings->clip_norm));
    set(ret, "gap_ref", text(settings->gap_ref));
    set(ret, "schedule", schedule_json(settings));
    set(ret, "seed", count(settings->seed));
    set(ret, "version", text(gapless_version()));
    (void)json_array_append_new(command, text("gapless"));
    for (int i = 0; i < outcome->argc; i++)
        (void)json_array_append_new(command, text(outcome->argv[i]));
    set(ret, "command", command);
}

int results_write(struct results *results, const struct outcome *outcome,
                  struct gapless_error *error)
{
    const struct gapless_stats *stats = outcome->stats;
    char path[RESULTS_PATH_MAX];
    json_t *ret = json_object();
    char *bytes;
    int status;

    set(ret, "final_accuracy", real(outcome->accuracy));
    set(ret, "final_loss", real(outcome->test_loss));
    set(ret, "training_loss", real(stats->loss));
    set(ret, "updates", count(stats->updates));
    set(ret, "updates_per_second", real((double)stats->updates / stats->seconds));
    set(ret, "seconds", real(stats->seconds));
    set(ret, "lag", summary(&stats->lag));
    set(ret, "gap_rms", summary(&stats->gap_rms));
    set(ret, "parameters_rms", real(outcome->parameters_rms));
    set(ret, "gradients", count(stats->gradients));
    set(ret, "gradients_total", count(stats->gradients_total));
    set(ret, "dropped", count(stats->dropped));
    set(ret, "partial", count(stats->partial));
    set(ret, "workers_lost", count(outcome->workers_lost));
    set(ret, "stopped", json_boolean(outcome->stopped));
    set(ret, "failure", text(outcome->failure));
    set_settings(ret, outcome);
    set(ret, "per_worker", workers_json(outcome));
    bytes = json_dumps(ret, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    json_decref(ret);
    if (bytes == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for the result");
    status = path_join(results->folder, "result.json", path, error);
    if (status == GAPLESS_OK) {
        size_t used = strlen(bytes);

        bytes[used] = '\n'; /* in the place of its end: a text file ends in one */
        status = results_file(path, bytes, used + 1, error);
    }
    free(bytes);
    return status;
}
