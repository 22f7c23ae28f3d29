/* The folders of a study's runs: is one done, what are its numbers. */
#include "cluster/study/study.h"

#include "cluster/task/results.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TAIL_BYTES 8192 /* of metrics.jsonl: more than a line */

bool trial_path(const char *folder, const struct trial *trial, const char *file,
                char *ret, size_t max)
{
    int used = snprintf(ret, max, "%s/cells/%s%s%s", folder, trial->name,
                        file != NULL ? "/" : "", file != NULL ? file : "");

    return used > 0 && (size_t)used < max;
}

/* ---- reading ------------------------------------------------------------- */

/* A JSON file of the trial that is an object, or NULL. */
static json_t *load(const char *folder, const struct trial *trial, const char *file)
{
    char path[RESULTS_PATH_MAX];
    json_t *ret;

    if (!trial_path(folder, trial, file, path, sizeof path))
        return NULL;
    ret = json_load_file(path, 0, NULL);
    if (ret != NULL && !json_is_object(ret)) {
        json_decref(ret);
        ret = NULL;
    }
    return ret;
}

/* The number at "key" or "key.key"; NaN: none. */
static double number_at(const json_t *object, const char *path)
{
    const char *dot = strchr(path, '.');
    char key[32];

    if (dot == NULL) {
        const json_t *value = json_object_get(object, path);

        return json_is_number(value) ? json_number_value(value) : (double)NAN;
    }
    (void)snprintf(key, sizeof key, "%.*s", (int)(dot - path), path);
    return number_at(json_object_get(object, key), dot + 1);
}

static const struct {
    const char *result, *run; /* where in result.json, or in run.json */
} places[TRIAL_NUMBERS] = {
    [TRIAL_FINAL_ACCURACY] = {"final_accuracy", NULL},
    [TRIAL_FINAL_LOSS] = {"final_loss", NULL},
    [TRIAL_TRAINING_LOSS] = {"training_loss", NULL},
    [TRIAL_LAG_MEAN] = {"lag.mean", NULL},
    [TRIAL_LAG_P99] = {"lag.p99", NULL},
    [TRIAL_GAP_MEAN] = {"gap_rms.mean", NULL},
    [TRIAL_GAP_P99] = {"gap_rms.p99", NULL},
    [TRIAL_UPDATES] = {"updates", NULL},
    [TRIAL_GRADIENTS] = {"gradients", NULL},
    [TRIAL_VIRTUAL_SECONDS] = {"virtual_seconds", NULL},
    [TRIAL_TIME_TO_TARGET] = {NULL, NULL}, /* from metrics.jsonl */
    [TRIAL_GRAD_NORM_SQ_MIN] = {"grad_norm_sq_min", NULL},
    [TRIAL_MASTER_BYTES] = {"bytes.master", NULL},
    [TRIAL_WORKER_BYTES] = {"bytes.workers", NULL},
    [TRIAL_REAL_SECONDS] = {NULL, "real_seconds"},
    [TRIAL_MASTER_US_PER_UPDATE] = {NULL, "master_us_per_update"},
};

/* Virtual seconds of the first line whose accuracy reaches the target; NaN: never. */
static double time_to_target(const char *folder, const struct trial *trial,
                             double target)
{
    char path[RESULTS_PATH_MAX], *line = NULL;
    double ret = (double)NAN;
    size_t size = 0;
    FILE *file;

    if (!trial_path(folder, trial, "metrics.jsonl", path, sizeof path))
        return ret;
    file = fopen(path, "re");
    while (file != NULL && isnan(ret) && getline(&line, &size, file) > 0) {
        json_t *row = json_loads(line, 0, NULL);

        if (number_at(row, "accuracy") >= target) /* false for NaN */
            ret = number_at(row, "elapsed");
        json_decref(row);
    }
    free(line);
    if (file != NULL)
        (void)fclose(file);
    return ret;
}

/* Whether cell.txt has these very options. */
static bool same_options(const struct plan *plan, const char *folder,
                         const struct trial *trial)
{
    char path[RESULTS_PATH_MAX];
    char *now = plan_text(plan, trial), *then = NULL;
    size_t size = 0;
    ssize_t bytes = -1;
    FILE *file = NULL;
    bool ret;

    if (now != NULL && trial_path(folder, trial, "cell.txt", path, sizeof path))
        file = fopen(path, "re");
    if (file != NULL) {
        bytes = getdelim(&then, &size, '\0', file);
        (void)fclose(file);
    }
    ret = bytes > 0 && (size_t)bytes == strlen(now) &&
          memcmp(now, then, (size_t)bytes) == 0;
    free(now);
    free(then);
    return ret;
}

void trial_look(const struct plan *plan, const char *folder, struct trial *trial,
                double target)
{
    json_t *result = NULL, *run;

    trial->state = TRIAL_MISSING;
    for (size_t i = 0; i < TRIAL_NUMBERS; i++)
        trial->number[i] = (double)NAN;
    if (same_options(plan, folder, trial))
        result = load(folder, trial, "result.json");
    if (result == NULL)
        return;
    if (json_is_true(json_object_get(result, "stopped")) ||
        json_is_string(json_object_get(result, "failure"))) {
        json_decref(result);
        return;
    }
    run = load(folder, trial, "run.json");
    for (size_t i = 0; i < TRIAL_NUMBERS; i++) {
        if (places[i].result != NULL)
            trial->number[i] = number_at(result, places[i].result);
        if (places[i].run != NULL)
            trial->number[i] = number_at(run, places[i].run);
    }
    trial->number[TRIAL_TIME_TO_TARGET] = time_to_target(folder, trial, target);
    trial->state = TRIAL_DONE;
    json_decref(result);
    json_decref(run);
}

/* ---- a run that goes on -------------------------------------------------- */

double trial_progress(const struct plan *plan, const char *folder,
                      const struct trial *trial)
{
    char path[RESULTS_PATH_MAX], tail[TAIL_BYTES];
    const char *epochs = plan_value(plan, trial, "epochs");
    double whole = epochs != NULL ? strtod(epochs, NULL) : 0.0, share = 0.0;
    char *end, *line;
    FILE *file = NULL;
    size_t bytes;
    json_t *row;

    if (trial_path(folder, trial, "metrics.jsonl", path, sizeof path))
        file = fopen(path, "re");
    if (file == NULL)
        return 0.0;
    if (fseek(file, -(long)(sizeof tail - 1), SEEK_END) != 0)
        rewind(file); /* it is shorter */
    bytes = fread(tail, 1, sizeof tail - 1, file);
    (void)fclose(file);
    tail[bytes] = '\0';
    end = strrchr(tail, '\n');
    if (end == NULL)
        return 0.0;
    *end = '\0';
    line = strrchr(tail, '\n');
    row = json_loads(line != NULL ? line + 1 : tail, 0, NULL);
    if (whole > 0.0)
        share = number_at(row, "epoch") / whole;
    json_decref(row);
    return share > 0.0 && share <= 1.0 ? share : 0.0;
}

/* ---- before a run -------------------------------------------------------- */

int trial_prepare(const struct plan *plan, const char *folder,
                  const struct trial *trial, struct gapless_error *error)
{
    /* result.json first: from then on the trial is not done, whatever happens. */
    static const char *const old[] = {
        "result.json",       "result.previous.json",       "metrics.jsonl",
        "run.json",          "run.previous.json",          "metrics.previous.jsonl",
        "model.safetensors", "model.previous.safetensors", "run.log",
    };
    char path[RESULTS_PATH_MAX];
    char *text;
    int status;

    if (!trial_path(folder, trial, "model.previous.safetensors", path, sizeof path) ||
        !trial_path(folder, trial, NULL, path, sizeof path))
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "the path of the output folder is too long");
    status = results_folder(path, error);
    if (status != GAPLESS_OK)
        return status;
    for (size_t i = 0; i < sizeof old / sizeof old[0]; i++)
        if (trial_path(folder, trial, old[i], path, sizeof path) && unlink(path) != 0 &&
            errno != ENOENT)
            return gapless_error_set(error, GAPLESS_IO, errno, "cannot remove %.200s",
                                     path);
    text = plan_text(plan, trial);
    if (text == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory");
    (void)trial_path(folder, trial, "cell.txt", path, sizeof path);
    status = results_file(path, text, strlen(text), error);
    free(text);
    return status;
}
