/* Makes and holds the folder of a run. */
#include "cluster/task/run_folder.h"

#include "engine/base/clock.h"
#include "engine/base/file_out.h"
#include "engine/base/hash.h"
#include "engine/base/rng.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Twenty a second. Where the process that took the lock is dead, those that it started
 * are ending. */
#define LOCK_TRIES_ALIVE 10u
#define LOCK_TRIES_DEAD 200u
#define NAMES_MAX 10000u
#define OPTIONS_EMIT_MAX 256u /* more than a command has */

/* ---- making -------------------------------------------------------------- */

/* The folders above the last part of the path. */
static int make_above(const char *path, struct gapless_error *error)
{
    char above[RESULTS_PATH_MAX];
    char *slash;

    (void)snprintf(above, sizeof above, "%s", path);
    slash = strrchr(above, '/');
    if (slash == NULL || slash == above)
        return GAPLESS_OK;
    *slash = '\0';
    return results_folder(above, error);
}

/* mkdir says who was first: of processes that choose the same name one gets it. */
static int make_new(char path[RESULTS_PATH_MAX], size_t *ret_missing,
                    struct gapless_error *error)
{
    char name[RESULTS_PATH_MAX];
    int status = make_above(path, error);

    for (unsigned i = 1; status == GAPLESS_OK && i <= NAMES_MAX; i++) {
        int used = i == 1 ? snprintf(name, sizeof name, "%s", path)
                          : snprintf(name, sizeof name, "%s-%u", path, i);

        if (used < 0 || (size_t)used + 64 >= sizeof name)
            return gapless_error_set(error, GAPLESS_INVALID, 0,
                                     "the path of the output folder is too long");
        if (mkdir(name, 0777) == 0) {
            if (*ret_missing == 0) /* all above it were there */
                *ret_missing = strlen(name);
            memcpy(path, name, strlen(name) + 1);
            return GAPLESS_OK;
        }
        if (errno != EEXIST)
            return gapless_error_set(error, GAPLESS_IO, errno,
                                     "cannot make the folder %.150s", name);
    }
    return status != GAPLESS_OK
               ? status
               : gapless_error_set(error, GAPLESS_IO, 0,
                                   "%.150s and %u more are there: choose another --out",
                                   path, NAMES_MAX - 1);
}

/* ---- the lock ------------------------------------------------------------ */

/* Is the file still the one of that name? Who had it before may have removed it. */
static bool is_there(int fd, const char *path)
{
    struct stat ours, named;

    return fstat(fd, &ours) == 0 && stat(path, &named) == 0 &&
           ours.st_ino == named.st_ino && ours.st_dev == named.st_dev;
}

/* 0: it is ours; EWOULDBLOCK: another's; other: this file system has no locks. */
static int try_lock(int fd)
{
    return flock(fd, LOCK_EX | LOCK_NB) == 0 ? 0 : errno;
}

static bool wait_for_lock(int fd, char *ret_who, size_t max)
{
    static const struct timespec pause = {0, 50000000};
    int os;

    for (unsigned i = 0; (os = try_lock(fd)) == EWOULDBLOCK || os == EINTR; i++) {
        ssize_t bytes = pread(fd, ret_who, max - 1, 0);
        bool alive;

        ret_who[bytes > 0 ? bytes : 0] = '\0';
        alive = kill((pid_t)strtol(ret_who, NULL, 10), 0) == 0 || errno == EPERM;
        if (i >= (alive ? LOCK_TRIES_ALIVE : LOCK_TRIES_DEAD))
            return false;
        (void)nanosleep(&pause, NULL);
    }
    return true;
}

static int take_lock(const char *folder, bool inherited, int *ret,
                     struct gapless_error *error)
{
    char path[RESULTS_PATH_MAX], who[32] = "";
    int fd, status = results_path(folder, ".lock", path, error);

    if (status != GAPLESS_OK)
        return status;
    for (;;) {
        fd = open(path, O_RDWR | O_CREAT | (inherited ? 0 : O_CLOEXEC), 0666);
        if (fd < 0)
            return gapless_error_set(error, GAPLESS_IO, errno, "cannot write %.200s",
                                     path);
        if (!wait_for_lock(fd, who, sizeof who)) {
            (void)close(fd);
            return gapless_error_set(error, GAPLESS_REFUSED, 0,
                                     "another run is at work in %.200s (process %s): "
                                     "wait for it, or choose another --out",
                                     folder, who);
        }
        if (is_there(fd, path))
            break;
        (void)close(fd);
    }
    (void)snprintf(who, sizeof who, "%d", (int)getpid());
    if (ftruncate(fd, 0) != 0 || file_out_all(fd, who, strlen(who)) != 0) {
        status =
            gapless_error_set(error, GAPLESS_IO, errno, "cannot write %.200s", path);
        (void)close(fd);
        return status;
    }
    *ret = fd;
    return GAPLESS_OK;
}

/* ---- both ---------------------------------------------------------------- */

int run_folder_take(char path[RESULTS_PATH_MAX], bool chosen, bool inherited,
                    struct run_folder *ret, struct gapless_error *error)
{
    struct run_folder folder = {.held = true,
                                .missing = chosen ? 0 : results_missing(path)};
    int status;

    if (chosen) {
        size_t first = results_missing(path);

        folder.missing = first < strlen(path) ? first : 0;
        status = make_new(path, &folder.missing, error);
    } else {
        status = results_folder(path, error);
    }
    if (status == GAPLESS_OK)
        status = take_lock(path, inherited, &folder.lock, error);
    if (status == GAPLESS_OK)
        *ret = folder;
    else
        results_unmake(path, folder.missing);
    return status;
}

void run_folder_leave(const char *path, struct run_folder *folder)
{
    char lock[RESULTS_PATH_MAX];

    if (!folder->held)
        return;
    if (results_path(path, ".lock", lock, NULL) == GAPLESS_OK)
        (void)unlink(lock); /* while it is held: see is_there */
    (void)close(folder->lock);
    results_unmake(path, folder->missing);
    *folder = (struct run_folder){.held = false};
}

/* ---- the name of a run --------------------------------------------------- */

/* Over the options that say what is simulated, in the table's order. */
static uint64_t of_settings(const struct settings *settings)
{
    static const char *const except[] = {
        "out",      "data-dir", "data-fd", "quiet",      "no-color",  "threads", "help",
        "launched", "force",    "resume",  "save-every", "save-keep", NULL};
    char *text[OPTIONS_EMIT_MAX] = {NULL};
    uint64_t hash = HASH_BEGIN;
    size_t count = 0;

    (void)options_emit(settings, FOR_SIMULATE, except, text, OPTIONS_EMIT_MAX, &count);
    for (size_t i = 0; i < count; i++) {
        hash = hash_bytes(hash_bytes(hash, text[i], strlen(text[i])), "\n", 1);
        free(text[i]);
    }
    return hash;
}

const char *run_folder_id(const struct settings *settings, char ret[RUN_ID_BYTES])
{
    uint64_t id = 0;

    if (settings != NULL)
        id = of_settings(settings);
    else if (getrandom(&id, sizeof id, GRND_NONBLOCK) != (ssize_t)sizeof id)
        id = rng_mix(clock_ns() ^ ((uint64_t)getpid() << 32));
    (void)snprintf(ret, RUN_ID_BYTES, "%016llx", (unsigned long long)id);
    return ret;
}
