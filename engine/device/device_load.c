/* Opening the GPU plugin, and choosing GPUs. */
#include "engine/device/device.h"

#include <gapless/gapless.h>

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PLUGIN_FILE "libgapless_cuda.so"
#define PLUGIN_VARIABLE "GAPLESS_CUDA_PLUGIN"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const struct gpu_plugin *opened; /* stays open to the end of the process */

/* The tables of a file that dlopen has opened, or why they are not ours. */
static int tables(void *library, const char *path, const struct gpu_plugin **ret,
                  struct gapless_error *error)
{
    const char *version = gapless_version();
    size_t length = strlen(version);
    const struct gpu_plugin *plugin;
    gpu_plugin_fn *function;

    /* ISO C converts no pointer to an object into one to a function; POSIX does. */
    *(void **)(void *)&function = dlsym(library, DEVICE_PLUGIN_SYMBOL);
    if (function == NULL)
        return gapless_error_set(error, GAPLESS_VERSION, 0,
                                 "%s is no plugin of Gapless: it has no function "
                                 "%s. Install the " PLUGIN_FILE " of Gapless %s",
                                 path, DEVICE_PLUGIN_SYMBOL, version);
    plugin = function(DEVICE_ABI);
    if (plugin == NULL || plugin->abi != DEVICE_ABI || plugin->bytes != sizeof *plugin)
        return gapless_error_set(error, GAPLESS_VERSION, 0,
                                 "%s is of another Gapless: it has no tables of "
                                 "number %u. Install the one of Gapless %s",
                                 path, DEVICE_ABI, version);
    /* Rules are known to it by their row in the table of this very version. */
    if (strncmp(plugin->version, version, length) != 0 ||
        (plugin->version[length] != ' ' && plugin->version[length] != '\0'))
        return gapless_error_set(error, GAPLESS_VERSION, 0,
                                 "%s is of Gapless %.40s, and this is %s: install the "
                                 "plugin of the same version",
                                 path, plugin->version, version);
    *ret = plugin;
    return GAPLESS_OK;
}

static int open_file(const char *path, const struct gpu_plugin **ret,
                     struct gapless_error *error)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    int status;

    if (library == NULL) {
        const char *reason = dlerror();

        return gapless_error_set(error, GAPLESS_MISSING, 0,
                                 "the GPU plugin does not open: %.380s",
                                 reason != NULL ? reason : path);
    }
    status = tables(library, path, ret, error);
    if (status != GAPLESS_OK)
        (void)dlclose(library);
    return status;
}

/* The folder of the program, or of the library that this function is in. */
static bool folder_of_program(char *ret, size_t bytes)
{
    ssize_t length = readlink("/proc/self/exe", ret, bytes - 1);

    if (length <= 0)
        return false;
    ret[length] = '\0';
    *strrchr(ret, '/') = '\0';
    return true;
}

static bool folder_of_library(char *ret, size_t bytes)
{
    char file[PATH_MAX];
    Dl_info info;

    if (dladdr(&opened, &info) == 0 || info.dli_fname == NULL ||
        realpath(info.dli_fname, file) == NULL || strlen(file) >= bytes)
        return false;
    (void)snprintf(ret, bytes, "%s", file);
    *strrchr(ret, '/') = '\0';
    return true;
}

/* Beside the program or library, in its ../lib. True: there was one, and *ret_status is
 * how it went. */
static bool open_beside(const char *folder, const struct gpu_plugin **ret,
                        int *ret_status, struct gapless_error *error)
{
    static const char *const places[] = {"", "/../lib", "/../lib64"};
    char path[PATH_MAX + 64];

    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        (void)snprintf(path, sizeof path, "%s%s/" PLUGIN_FILE, folder, places[i]);
        if (access(path, F_OK) != 0)
            continue;
        *ret_status = open_file(path, ret, error);
        return true;
    }
    return false;
}

/* Where the system looks: LD_LIBRARY_PATH, ld.so.conf, /usr/lib. */
static int open_anywhere(const struct gpu_plugin **ret, const char *folder,
                         struct gapless_error *error)
{
    struct gapless_error reason = {0};
    int status = open_file(PLUGIN_FILE, ret, &reason);

    /* One that is there, and does not open, is reported as it is. */
    if (status == GAPLESS_MISSING &&
        strstr(reason.text, PLUGIN_FILE ": cannot open shared object file") != NULL)
        return gapless_error_set(
            error, GAPLESS_MISSING, 0,
            "GPUs need the plugin " PLUGIN_FILE ", and it is not in %.200s, its ../lib "
            "or where the system looks. Build it where nvcc is (cmake -B build "
            "-DGAPLESS_CUDA=ON && cmake --build build --target gapless_cuda), or "
            "set " PLUGIN_VARIABLE " to its path",
            folder);
    if (status != GAPLESS_OK && error != NULL)
        *error = reason;
    return status;
}

static int find(const struct gpu_plugin **ret, struct gapless_error *error)
{
    const char *wanted = getenv(PLUGIN_VARIABLE);
    char program[PATH_MAX] = "", library[PATH_MAX] = "";
    int status;

    if (wanted != NULL && wanted[0] != '\0')
        return open_file(wanted, ret, error);
    if (folder_of_program(program, sizeof program) &&
        open_beside(program, ret, &status, error))
        return status;
    if (folder_of_library(library, sizeof library) && strcmp(program, library) != 0 &&
        open_beside(library, ret, &status, error))
        return status;
    return open_anywhere(ret, program, error);
}

int device_plugin(const struct gpu_plugin **ret, struct gapless_error *error)
{
    int status = GAPLESS_OK;

    (void)pthread_mutex_lock(&lock);
    if (opened == NULL)
        status = find(&opened, error);
    if (status == GAPLESS_OK)
        *ret = opened;
    (void)pthread_mutex_unlock(&lock);
    return status;
}

/* ---- which GPUs ---------------------------------------------------------- */

static int refuse(const char *text, const char *reason, struct gapless_error *error)
{
    return gapless_error_set(error, GAPLESS_INVALID, 0,
                             "'%.60s' names no GPUs%s: write cuda (the first), cuda:1, "
                             "cuda:0,2 or cuda:all",
                             text, reason);
}

/* A number without sign, blank or leading zero, below 1000. NULL: none. */
static const char *read_number(const char *at, uint32_t *ret)
{
    uint32_t value = 0;
    int digits = 0;

    for (; at[digits] >= '0' && at[digits] <= '9'; digits++) {
        if (digits == 3 || (digits == 1 && at[0] == '0'))
            return NULL;
        value = value * 10 + (uint32_t)(at[digits] - '0');
    }
    *ret = value;
    return digits > 0 ? at + digits : NULL;
}

/* "0,2" */
static int read_list(const char *text, const char *at, uint32_t *ret,
                     uint32_t *ret_count, struct gapless_error *error)
{
    uint32_t count = 0;

    for (;; at++) {
        if (count == DEVICE_MAX)
            return refuse(text, ", more than 16", error);
        at = read_number(at, &ret[count]);
        if (at == NULL || (*at != ',' && *at != '\0'))
            return refuse(text, "", error);
        for (uint32_t i = 0; i < count; i++)
            if (ret[i] == ret[count])
                return refuse(text, ", one of them twice", error);
        count++;
        if (*at == '\0')
            break;
    }
    *ret_count = count;
    return GAPLESS_OK;
}

_Static_assert(DEVICE_MAX == 16, "read_list says so to people");

static int all_of(uint32_t there, uint32_t *ret, uint32_t *ret_count)
{
    uint32_t count = there < DEVICE_MAX ? there : DEVICE_MAX;

    for (uint32_t i = 0; i < count; i++)
        ret[i] = i;
    *ret_count = count;
    return GAPLESS_OK;
}

int device_choose(const struct gpu_plugin *plugin, const char *text, uint32_t *ret,
                  uint32_t *ret_count, struct gapless_error *error)
{
    uint32_t numbers[DEVICE_MAX] = {0}, count = 1, there = 0;
    bool all = strcmp(text, "cuda:all") == 0;
    int status = GAPLESS_OK;

    if (strncmp(text, "cuda", 4) != 0 || (text[4] != '\0' && text[4] != ':'))
        return refuse(text, "", error);
    if (text[4] == ':' && !all)
        status = read_list(text, text + 5, numbers, &count, error);
    if (status == GAPLESS_OK)
        status = plugin->device->count(&there, error);
    if (status != GAPLESS_OK)
        return status;
    if (all)
        return all_of(there, ret, ret_count);
    for (uint32_t i = 0; i < count; i++)
        if (numbers[i] >= there)
            return gapless_error_set(error, GAPLESS_MISSING, 0,
                                     "there is no GPU %u: this machine shows %u, from "
                                     "0 on (gapless doctor; CUDA_VISIBLE_DEVICES "
                                     "chooses what is shown)",
                                     numbers[i], there);
    memcpy(ret, numbers, count * sizeof *ret);
    *ret_count = count;
    return GAPLESS_OK;
}
