/* Starts and ends processes. */
#include "cluster/launch/launch.h"

#include "cluster/program/program.h"

#include "engine/base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define KILL_WAIT_S                                                                    \
    5.0 /* a killed process ends at once, unless the kernel holds it                   \
         */

/* In the child, until it becomes the program. Only calls that are safe after fork. */
static void become(int log, pid_t parent, const char *program, char *const *argv)
{
    struct sigaction usual = {.sa_handler = SIG_DFL};
    int nothing;
    sigset_t none;

    (void)setpgid(0, 0);
    (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        _exit(1); /* it died before the line above */
    (void)sigaction(SIGPIPE, &usual, NULL);
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (nothing < 0 || dup2(nothing, STDIN_FILENO) < 0 ||
        dup2(nothing, STDOUT_FILENO) < 0 || dup2(log, STDERR_FILENO) < 0)
        _exit(1);
    (void)execv(program, argv);
    _exit(127);
}

bool launch_argument(struct launch_arguments *to, const char *format, ...)
{
    va_list list;
    int bytes;

    if (to->count == LAUNCH_ARGUMENTS_MAX)
        return false;
    va_start(list, format);
    bytes = vasprintf(&to->text[to->count], format, list);
    va_end(list);
    if (bytes < 0)
        return false;
    to->text[++to->count] = NULL;
    return true;
}

void launch_arguments_free(struct launch_arguments *arguments)
{
    for (size_t i = 0; i < arguments->count; i++)
        free(arguments->text[i]);
    arguments->count = 0;
}

int launch_child(const char *name, const char *log_folder, char *const *argv,
                 struct child *ret, struct gapless_error *error)
{
    struct child child = {.pid = 0};
    char program[LAUNCH_PATH_MAX];
    pid_t parent = getpid();
    int log, used;

    (void)snprintf(child.name, sizeof child.name, "%s", name);
    used = snprintf(child.log, sizeof child.log, "%s/%s.log", log_folder, name);
    if (used < 0 || (size_t)used >= sizeof child.log)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "the path of the log folder is too long");
    log = open(child.log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0666);
    if (log < 0)
        return gapless_error_set(error, GAPLESS_IO, errno, "cannot write %.150s",
                                 child.log);
    program_file(program, sizeof program);
    child.pid = fork();
    if (child.pid == 0)
        become(log, parent, program, argv);
    (void)close(log);
    if (child.pid < 0)
        return gapless_error_set(error, GAPLESS_SYSTEM, errno,
                                 "cannot start %s: the limit on processes (ulimit -u) "
                                 "or memory",
                                 name);
    *ret = child;
    return GAPLESS_OK;
}

static bool runs(const struct child *child)
{
    return child->pid > 0 && !child->ended;
}

bool launch_reap(struct child *children, uint32_t count)
{
    bool any = false;

    for (uint32_t i = 0; i < count; i++) {
        pid_t got;

        if (!runs(&children[i]))
            continue;
        got = waitpid(children[i].pid, &children[i].status, WNOHANG);
        if (got == children[i].pid || (got < 0 && errno == ECHILD))
            any = children[i].ended = true;
    }
    return any;
}

void launch_signal(const struct child *children, uint32_t count, int number)
{
    for (uint32_t i = 0; i < count; i++)
        if (runs(&children[i]))
            (void)kill(children[i].pid, number);
}

bool launch_wait(struct child *children, uint32_t count, double seconds)
{
    static const struct timespec pause = {0, 5000000};
    double end = clock_seconds() + seconds;

    for (;;) {
        uint32_t left = 0;

        (void)launch_reap(children, count);
        for (uint32_t i = 0; i < count; i++)
            left += runs(&children[i]);
        if (left == 0)
            return true;
        if (clock_seconds() >= end)
            return false;
        (void)nanosleep(&pause, NULL);
    }
}

void launch_end(struct child *children, uint32_t count, double abort_wait)
{
    launch_signal(children, count, SIGTERM);
    launch_signal(children, count, SIGCONT); /* one that was stopped cannot end */
    if (launch_wait(children, count, abort_wait))
        return;
    launch_signal(children, count, SIGKILL);
    (void)launch_wait(children, count, KILL_WAIT_S);
}

void launch_describe(const struct child *child, char *ret, size_t max)
{
    if (WIFSIGNALED(child->status))
        (void)snprintf(ret, max, "was killed by signal %d (%s)",
                       WTERMSIG(child->status), strsignal(WTERMSIG(child->status)));
    else
        (void)snprintf(ret, max, "ended with code %d%s", WEXITSTATUS(child->status),
                       WEXITSTATUS(child->status) == EXIT_LOST ? " (it lost the master)"
                                                               : "");
}

void launch_last_words(const struct child *child, char *ret, size_t max)
{
    char tail[2048];
    int fd = open(child->log, O_RDONLY | O_CLOEXEC);
    ssize_t bytes = -1;
    char *line;

    ret[0] = '\0';
    if (fd < 0)
        return;
    if (lseek(fd, -(off_t)(sizeof tail - 1), SEEK_END) < 0)
        (void)lseek(fd, 0, SEEK_SET); /* it is shorter */
    bytes = read(fd, tail, sizeof tail - 1);
    (void)close(fd);
    while (bytes > 0 && (tail[bytes - 1] == '\n' || tail[bytes - 1] == ' '))
        bytes--;
    if (bytes <= 0)
        return;
    tail[bytes] = '\0';
    line = strrchr(tail, '\n');
    (void)snprintf(ret, max, "%s", line != NULL ? line + 1 : tail);
}

void launch_tidy(const struct child *children, uint32_t count, const char *log_folder)
{
    for (uint32_t i = 0; i < count; i++) {
        struct stat info;

        if (children[i].log[0] != '\0' && stat(children[i].log, &info) == 0 &&
            info.st_size == 0)
            (void)unlink(children[i].log);
    }
    (void)rmdir(log_folder); /* fails, as it should, where a log is left */
}
