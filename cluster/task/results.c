/* The files of a run, so that nothing already written is ever lost. */
#include "cluster/task/results.h"

#include "engine/base/file_out.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#define ROOM_MIN (1u << 20) /* metrics, result and log of a run */

int results_path(const char *folder, const char *name, char ret[RESULTS_PATH_MAX],
                 struct gapless_error *error)
{
    int used = snprintf(ret, RESULTS_PATH_MAX, "%s/%s", folder, name);

    if (used < 0 || used >= RESULTS_PATH_MAX)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "the path of the output folder is too long");
    return GAPLESS_OK;
}

void results_choose(const char *out, const char *rule, char ret[RESULTS_PATH_MAX])
{
    char date[32] = "";
    time_t now = time(NULL);
    struct tm local;

    if (out != NULL) {
        (void)snprintf(ret, RESULTS_PATH_MAX, "%s", out);
        return;
    }
    if (localtime_r(&now, &local) != NULL)
        (void)strftime(date, sizeof date, "%Y%m%d-%H%M%S", &local);
    (void)snprintf(ret, RESULTS_PATH_MAX, "runs/%s-%s", date, rule);
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

size_t results_missing(const char *folder)
{
    char part[RESULTS_PATH_MAX];
    size_t bytes = strlen(folder);

    for (size_t i = 1; i <= bytes && i < sizeof part; i++) {
        if (folder[i] != '/' && folder[i] != '\0')
            continue;
        memcpy(part, folder, i);
        part[i] = '\0';
        if (access(part, F_OK) != 0)
            return i;
    }
    return 0;
}

void results_unmake(const char *folder, size_t missing)
{
    char part[RESULTS_PATH_MAX];
    size_t bytes = strlen(folder);

    if (missing == 0 || bytes >= sizeof part)
        return;
    memcpy(part, folder, bytes + 1);
    for (; bytes >= missing; bytes--) {
        bool end = folder[bytes] == '/' || folder[bytes] == '\0';

        part[bytes] = '\0';
        if (end && rmdir(part) != 0 && errno != ENOENT)
            return; /* something is in it */
    }
}

int results_file(const char *path, const void *bytes, size_t count,
                 struct gapless_error *error)
{
    return file_out_whole(path, bytes, count, error);
}

int results_check(const char *folder, uint64_t parameters, struct gapless_error *error)
{
    static const char probe[4096];
    char path[RESULTS_PATH_MAX];
    uint64_t need = parameters * sizeof(float) + ROOM_MIN, free_bytes;
    struct statvfs space;
    int status = results_folder(folder, error);

    if (status == GAPLESS_OK)
        status = results_path(folder, ".probe", path, error);
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
    int status = results_path(folder, name, from, error);

    if (status == GAPLESS_OK)
        status = results_path(folder, previous, to, error);
    if (status == GAPLESS_OK && rename(from, to) != 0 && errno != ENOENT)
        status =
            gapless_error_set(error, GAPLESS_IO, errno, "cannot rename %.150s", from);
    return status;
}

int results_open(const char *folder, const char *id, struct results *ret,
                 struct gapless_error *error)
{
    char path[RESULTS_PATH_MAX];
    int status;

    memset(ret, 0, sizeof *ret);
    ret->id = id;
    (void)snprintf(ret->folder, sizeof ret->folder, "%s", folder);
    status = results_set_aside(folder, "result.json", "result.previous.json", error);
    if (status == GAPLESS_OK)
        status = results_set_aside(folder, "run.json", "run.previous.json", error);
    if (status == GAPLESS_OK)
        status =
            results_set_aside(folder, "metrics.jsonl", "metrics.previous.jsonl", error);
    if (status == GAPLESS_OK)
        status = results_path(folder, "metrics.jsonl", path, error);
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
