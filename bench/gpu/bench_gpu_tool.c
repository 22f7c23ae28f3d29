/* Starting programs: output into a file, every wait bounded, nothing left behind. */
#include "bench/gpu/bench_gpu.h"

#include "engine/base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TAIL_MAX 4096

static void nap(void)
{
    const struct timespec pause = {0, 5000000};

    (void)nanosleep(&pause, NULL);
}

/* In the child: only what is safe between fork and exec where threads may have been. */
static void become(const char *const *words, char *const *environment, int output,
                   pid_t parent)
{
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent || dup2(output, 1) < 0 || dup2(output, 2) < 0)
        _exit(127);
    (void)execve(words[0], (char *const *)(uintptr_t)words, environment);
    _exit(127);
}

/* The environment with more on top. NULL: no memory. */
static char **environment_of(const char *const *more)
{
    size_t count = 0, added = 0, at = 0;
    char **ret;

    while (environ[count] != NULL)
        count++;
    while (more != NULL && more[added] != NULL)
        added++;
    ret = calloc(count + added + 1, sizeof *ret);
    for (size_t i = 0; ret != NULL && i < count; i++) {
        bool replaced = false;

        for (size_t k = 0; k < added; k++)
            replaced = replaced ||
                       strncmp(environ[i], more[k], strcspn(more[k], "=") + 1) == 0;
        if (!replaced)
            ret[at++] = environ[i];
    }
    for (size_t k = 0; ret != NULL && k < added; k++)
        ret[at++] = (char *)(uintptr_t)more[k];
    return ret;
}

int bg_start(const char *const *words, const char *const *environment,
             struct bg_tool *ret, struct gapless_error *error)
{
    char path[] = "/tmp/gapless-bench-XXXXXX", **all = environment_of(environment);
    int output = mkostemp(path, O_CLOEXEC);
    pid_t parent = getpid(), pid = -1;

    if (output >= 0 && all != NULL) {
        (void)fflush(NULL);
        pid = fork();
    }
    if (pid == 0)
        become(words, all, output, parent);
    free(all);
    if (output >= 0)
        (void)close(output);
    if (pid < 0) {
        if (output >= 0)
            (void)unlink(path);
        return gapless_error_set(error, GAPLESS_SYSTEM, errno, "cannot start %.200s",
                                 words[0]);
    }
    *ret = (struct bg_tool){.pid = pid};
    (void)snprintf(ret->output, sizeof ret->output, "%s", path);
    return GAPLESS_OK;
}

bool bg_wait(struct bg_tool *tool, double seconds)
{
    double end = clock_seconds() + seconds;

    while (tool->pid > 0) {
        int status = 0;
        pid_t got = waitpid(tool->pid, &status, WNOHANG);

        if (got == tool->pid || (got < 0 && errno != EINTR)) {
            tool->code = got < 0               ? 127
                         : WIFSIGNALED(status) ? -WTERMSIG(status)
                                               : WEXITSTATUS(status);
            tool->pid = 0;
            break;
        }
        if (clock_seconds() >= end)
            return false;
        nap();
    }
    return true;
}

void bg_end(struct bg_tool *tool)
{
    if (tool->pid > 0) {
        (void)kill(tool->pid, SIGKILL);
        (void)bg_wait(tool, 10.0);
    }
    if (tool->output[0] != '\0')
        (void)unlink(tool->output);
    tool->output[0] = '\0';
}

json_t *bg_object(const struct bg_tool *tool)
{
    FILE *file = fopen(tool->output, "re");
    json_t *ret = NULL;
    int c;

    if (file == NULL)
        return NULL;
    do
        c = fgetc(file);
    while (c != EOF && c != '{');
    if (c == '{' && ungetc(c, file) == c)
        ret = json_loadf(file, JSON_DISABLE_EOF_CHECK, NULL);
    (void)fclose(file);
    return ret;
}

void bg_tail(const struct bg_tool *tool, char *ret, size_t bytes)
{
    char text[TAIL_MAX];
    FILE *file = fopen(tool->output, "re");
    size_t got = 0, from;

    ret[0] = '\0';
    if (file == NULL)
        return;
    if (fseek(file, -(long)(sizeof text - 1), SEEK_END) != 0)
        (void)fseek(file, 0, SEEK_SET);
    got = fread(text, 1, sizeof text - 1, file);
    (void)fclose(file);
    while (got > 0 && (text[got - 1] == '\n' || text[got - 1] == ' '))
        got--;
    text[got] = '\0';
    from = got >= bytes ? got - bytes + 1 : 0;
    for (size_t i = from; i <= got; i++)
        ret[i - from] = (char)(text[i] == '\n' ? ' ' : text[i]);
}

static bool runs(const char *folder, size_t length, const char *name, char *ret,
                 size_t bytes)
{
    int wrote = snprintf(ret, bytes, "%.*s/%s", (int)length, folder, name);

    return length > 0 && wrote > 0 && (size_t)wrote < bytes && access(ret, X_OK) == 0;
}

bool bg_find(const char *name, char *ret, size_t bytes)
{
    static const char *const usual[] = {"/usr/local/cuda/bin", "/opt/cuda/bin"};
    const char *path = getenv("PATH"), *home = getenv("CUDA_HOME");
    char folder[400];

    while (path != NULL && *path != '\0') {
        size_t length = strcspn(path, ":");

        if (runs(path, length, name, ret, bytes))
            return true;
        path += length;
        path += *path == ':';
    }
    if (home != NULL) {
        (void)snprintf(folder, sizeof folder, "%.380s/bin", home);
        if (runs(folder, strlen(folder), name, ret, bytes))
            return true;
    }
    for (size_t i = 0; i < sizeof usual / sizeof usual[0]; i++)
        if (runs(usual[i], strlen(usual[i]), name, ret, bytes))
            return true;
    return false;
}
