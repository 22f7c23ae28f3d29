/* The job text, there and back. */
#include "cluster/task/job.h"

#include "cluster/options/parse.h"

#include <stdio.h>
#include <string.h>

static int copy(const char *key, const char *text, size_t bytes, char *ret, size_t max,
                struct gapless_error *error)
{
    if (bytes >= max)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "%s is longer than %zu bytes", key, max - 1);
    if (memchr(text, '\n', bytes) != NULL)
        return gapless_error_set(error, GAPLESS_INVALID, 0, "%s has a line's end in it",
                                 key);
    memcpy(ret, text, bytes);
    ret[bytes] = '\0';
    return GAPLESS_OK;
}

int job_set(const char *data, const char *data_dir, const char *model, uint32_t batch,
            uint64_t seed, struct job *ret, struct gapless_error *error)
{
    struct job job = {.batch = batch, .seed = seed};
    int status;

    if (data_dir == NULL)
        data_dir = "";
    status = copy("data", data, strlen(data), job.data, sizeof job.data, error);
    if (status == GAPLESS_OK)
        status = copy("data-dir", data_dir, strlen(data_dir), job.data_dir,
                      sizeof job.data_dir, error);
    if (status == GAPLESS_OK)
        status =
            copy("model", model, strlen(model), job.model, sizeof job.model, error);
    if (status == GAPLESS_OK)
        *ret = job;
    return status;
}

int job_write(const struct job *job, char ret[GAPLESS_JOB_MAX],
              struct gapless_error *error)
{
    int used = snprintf(ret, GAPLESS_JOB_MAX,
                        "data=%s\ndata_dir=%s\nmodel=%s\nbatch=%u\nseed=%llu\nrule=%s\n"
                        "epoch=%llu\nlocal=%s\n",
                        job->data, job->data_dir, job->model, job->batch,
                        (unsigned long long)job->seed, job->rule,
                        (unsigned long long)job->epoch, job->local);

    if (used < 0 || used >= GAPLESS_JOB_MAX)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "the names of data, folder and model are too long: "
                                 "together at most %d bytes",
                                 GAPLESS_JOB_MAX - 96 - (int)strlen(job->local));
    return GAPLESS_OK;
}

static int read_count(const char *key, const char *value, size_t bytes, uint64_t low,
                      uint64_t high, uint64_t *ret, struct gapless_error *error)
{
    struct parse_error reason = {""};
    char number[32];

    if (copy(key, value, bytes, number, sizeof number, error) != GAPLESS_OK ||
        !parse_count(number, low, high, ret, &reason))
        return gapless_error_set(error, GAPLESS_PROTOCOL, 0,
                                 "the master's job text: %s %s", key, reason.text);
    return GAPLESS_OK;
}

static int read_pair(const char *key, const char *value, size_t bytes, struct job *job,
                     struct gapless_error *error)
{
    const struct {
        const char *key;
        char *text;
        size_t max;
    } texts[] = {{"data", job->data, sizeof job->data},
                 {"data_dir", job->data_dir, sizeof job->data_dir},
                 {"model", job->model, sizeof job->model},
                 {"rule", job->rule, sizeof job->rule},
                 {"local", job->local, sizeof job->local}};
    uint64_t batch = 0;
    int status;

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (strcmp(key, texts[i].key) == 0)
            return copy(key, value, bytes, texts[i].text, texts[i].max, error);
    if (strcmp(key, "seed") == 0)
        return read_count(key, value, bytes, 0, UINT64_MAX, &job->seed, error);
    if (strcmp(key, "epoch") == 0)
        return read_count(key, value, bytes, 0, UINT64_MAX, &job->epoch, error);
    if (strcmp(key, "batch") != 0)
        return GAPLESS_OK;
    status = read_count(key, value, bytes, 1, UINT32_MAX, &batch, error);
    if (status == GAPLESS_OK)
        job->batch = (uint32_t)batch;
    return status;
}

int job_read(const char *text, struct job *ret, struct gapless_error *error)
{
    struct job job = {.batch = 0};

    while (*text != '\0') {
        size_t line = strcspn(text, "\n");
        size_t key_bytes = strcspn(text, "=\n");
        char key[32];

        if (key_bytes < line && key_bytes < sizeof key) {
            int status;

            memcpy(key, text, key_bytes);
            key[key_bytes] = '\0';
            status =
                read_pair(key, text + key_bytes + 1, line - key_bytes - 1, &job, error);
            if (status != GAPLESS_OK)
                return status;
        }
        text += line + (text[line] == '\n');
    }
    if (job.data[0] == '\0' || job.model[0] == '\0' || job.batch == 0)
        return gapless_error_set(error, GAPLESS_PROTOCOL, 0,
                                 "the master does not say what is trained (data, "
                                 "model, batch): it was not started by 'gapless "
                                 "master' or 'gapless train'");
    *ret = job;
    return GAPLESS_OK;
}

bool job_is_foreign(const char *text)
{
    static const char *const own[] = {"data=", "model=", "batch="};

    for (; *text != '\0'; text += strcspn(text, "\n"), text += *text == '\n')
        for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
            if (strncmp(text, own[i], strlen(own[i])) == 0)
                return false;
    return true;
}

const char *job_difference(const struct job *a, const struct job *b)
{
    if (strcmp(a->data, b->data) != 0)
        return "data";
    if (strcmp(a->model, b->model) != 0)
        return "model";
    if (a->batch != b->batch)
        return "batch";
    return a->seed != b->seed ? "seed" : NULL;
}
