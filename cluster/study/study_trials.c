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
    char path[RESULTS_PATH_MAX];

    trial->state = TRIAL_MISSING;
    if (!same_options(plan, folder, trial) ||
        !trial_path(folder, trial, NULL, path, sizeof path))
        return;
    run_result_read(path, target, &trial->result);
    if (trial->result.status == RUN_DONE || trial->result.status == RUN_DIVERGED)
        trial->state = TRIAL_DONE;
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
        share = json_number_value(json_object_get(row, "epoch")) / whole;
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
