/* Folders of states: the latest, those that are not needed any more, the number of a start. */
#include "engine/run/state.h"

#include "engine/base/file_out.h"
#include "engine/base/text_file.h"
#include "engine/run/safetensors.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define EPOCH_FILE "epoch"

int state_folder_path(const char *folder, uint64_t gradients, char *ret, size_t bytes,
                      struct gapless_error *error)
{
    int n =
        snprintf(ret, bytes, "%s/" STATE_FILE_PREFIX "%016" PRIu64 STATE_FILE_SUFFIX,
                 folder, gradients);

    if (n > 0 && (size_t)n < bytes)
        return GAPLESS_OK;
    return gapless_error_set(error, GAPLESS_INVALID, 0,
                             "the name of the folder for states is too long");
}

/* Is it the name of a state? Its gradients. */
static bool is_state(const char *name, uint64_t *ret)
{
    static const size_t prefix = sizeof STATE_FILE_PREFIX - 1;
    char *end = NULL;

    if (strncmp(name, STATE_FILE_PREFIX, prefix) != 0 || name[prefix] < '0' ||
        name[prefix] > '9')
        return false;
    *ret = strtoull(name + prefix, &end, 10);
    return strcmp(end, STATE_FILE_SUFFIX) == 0;
}

/* The name of the state with the most gradients below `below`, or with as many and any;
 * false: none. */
static bool largest(const char *folder, uint64_t below, uint64_t *ret)
{
    DIR *dir = opendir(folder);
    const struct dirent *entry;
    uint64_t gradients = 0;
    bool any = false;

    while (dir != NULL && (entry = readdir(dir)) != NULL)
        if (is_state(entry->d_name, &gradients) && gradients < below &&
            (!any || gradients > *ret)) {
            *ret = gradients;
            any = true;
        }
    if (dir != NULL)
        (void)closedir(dir);
    return any;
}

int state_folder_latest(const char *path, char *ret, size_t bytes,
                        struct state_file **ret_file,
                        void (*log)(void *context, const char *line), void *context,
                        struct gapless_error *error)
{
    struct gapless_error reason = {0};
    struct state_file *file = NULL;
    uint64_t below = UINT64_MAX, found = 0;
    struct stat is;

    if (stat(path, &is) != 0)
        return gapless_error_set(error, GAPLESS_MISSING, errno,
                                 "there is no state to go on from at '%.300s'", path);
    if (!S_ISDIR(is.st_mode)) {
        (void)snprintf(ret, bytes, "%s", path);
        return ret_file != NULL ? state_open(path, ret_file, error) : GAPLESS_OK;
    }
    for (; largest(path, below, &found); below = found) {
        int status = state_folder_path(path, found, ret, bytes, error);

        if (status != GAPLESS_OK)
            return status;
        status = state_open(ret, &file, &reason);
        if (status == GAPLESS_OK) {
            if (ret_file != NULL)
                *ret_file = file;
            else
                state_close(file);
            return GAPLESS_OK;
        }
        if (log != NULL)
            log(context, reason.text);
    }
    if (reason.status != GAPLESS_OK) {
        if (error != NULL)
            *error = reason;
        return reason.status;
    }
    return gapless_error_set(error, GAPLESS_MISSING, 0,
                             "there is no state in '%.300s': a run keeps some there "
                             "with --save-every",
                             path);
}

/* What a writer that died has left: state-....safetensors.PID-....part. */
static void remove_parts(const char *folder)
{
    DIR *dir = opendir(folder);
    const struct dirent *entry;

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        const char *pid = strstr(entry->d_name, STATE_FILE_SUFFIX ".");
        size_t bytes = strlen(entry->d_name);

        if (strncmp(entry->d_name, STATE_FILE_PREFIX, sizeof STATE_FILE_PREFIX - 1) !=
                0 ||
            pid == NULL || bytes < 5 || strcmp(entry->d_name + bytes - 5, ".part") != 0)
            continue;
        pid += sizeof STATE_FILE_SUFFIX;
        if (*pid >= '1' && *pid <= '9' && kill((pid_t)strtol(pid, NULL, 10), 0) != 0 &&
            errno == ESRCH)
            (void)unlinkat(dirfd(dir), entry->d_name, 0);
    }
    if (dir != NULL)
        (void)closedir(dir);
}

void state_folder_prune(const char *folder, uint32_t keep)
{
    char path[4096];
    uint64_t below = UINT64_MAX, found = 0;
    uint32_t count = 0;

    while (largest(folder, below, &found)) {
        if (++count > keep &&
            state_folder_path(folder, found, path, sizeof path, NULL) == GAPLESS_OK)
            (void)unlink(path);
        below = found;
    }
    remove_parts(folder);
}

static uint64_t read_epoch(const char *path)
{
    char line[24];

    return text_first_line(path, line, sizeof line) ? strtoull(line, NULL, 10) : 0;
}

int state_folder_epoch(const char *folder, uint64_t least, uint64_t *ret,
                       struct gapless_error *error)
{
    char path[4096], text[24];
    struct gapless_error reason = {0};
    uint64_t epoch;
    int bytes;

    if (snprintf(path, sizeof path, "%s/" EPOCH_FILE, folder) >= (int)sizeof path)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "the name of the folder for states is too long");
    epoch = read_epoch(path);
    epoch = (epoch > least ? epoch : least) + 1;
    bytes = snprintf(text, sizeof text, "%" PRIu64 "\n", epoch);
    if (file_out_whole(path, text, (size_t)bytes, &reason) != GAPLESS_OK)
        return gapless_error_set(error, GAPLESS_IO, reason.os,
                                 "cannot write '%.300s', which numbers the starts of a "
                                 "run",
                                 path);
    *ret = epoch;
    return GAPLESS_OK;
}
