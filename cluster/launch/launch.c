/* Starts and ends processes. */
#include "cluster/launch/launch.h"

#include "cluster/program/program.h"

#include "engine/base/clock.h"
#include "engine/base/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Open files: of the program, and at the master for one worker. That one has a socket, a
 * pidfd and its memory; over a network more. */
#define DESCRIPTORS 64u
#define DESCRIPTORS_LEAST 3u
#define DESCRIPTORS_EACH 16u
#define LAUNCH_NOT_RUN 127 /* as a shell has it */
#define KILL_WAIT_S                                                                    \
    5.0 /* a killed process ends at once, unless the kernel holds it                   \
         */

void launch_block_signals(sigset_t *ret)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGCHLD, SIGTSTP, SIGWINCH};

    (void)sigemptyset(ret);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        (void)sigaddset(ret, numbers[i]);
    (void)sigprocmask(SIG_BLOCK, ret, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
}

void launch_address(const char *what, char *ret, size_t max)
{
    unsigned chance = 0;

    if (getrandom(&chance, sizeof chance, GRND_NONBLOCK) < 0)
        chance = (unsigned)time(NULL);
    (void)snprintf(ret, max, "shm:%s-%d-%08x", what, (int)getpid(), chance);
}

/* What a child becomes. */
struct image {
    const char *program;
    char *const *argv, *const *environment;
    int out, err;  /* -1: nothing */
    int death;     /* the signal that it gets when the parent dies */
    bool as_usual; /* what this program ignores is as usual for another */
};

/* In the child, until it becomes the program. Only calls that are safe after fork. */
static void become(const struct image *image, pid_t parent)
{
    static const int ignored[] = {SIGINT, SIGQUIT, SIGTERM, SIGHUP, SIGXFSZ};
    struct sigaction usual = {.sa_handler = SIG_DFL};
    int nothing;
    sigset_t none;

    (void)setpgid(0, 0);
    (void)prctl(PR_SET_PDEATHSIG, image->death);
    if (getppid() != parent)
        _exit(1); /* it died before the line above */
    (void)sigaction(SIGPIPE, &usual, NULL);
    for (size_t i = 0; image->as_usual && i < sizeof ignored / sizeof ignored[0]; i++)
        (void)sigaction(ignored[i], &usual, NULL);
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    nothing = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (nothing < 0 || dup2(nothing, STDIN_FILENO) < 0 ||
        dup2(image->out >= 0 ? image->out : nothing, STDOUT_FILENO) < 0 ||
        dup2(image->err >= 0 ? image->err : nothing, STDERR_FILENO) < 0)
        _exit(1);
    (void)execve(image->program, image->argv, image->environment);
    _exit(LAUNCH_NOT_RUN);
}

/* Starts it. The child's group is there when this returns, so that it can be signalled. */
static int start(const char *name, const struct image *image, pid_t *ret,
                 struct gapless_error *error)
{
    pid_t parent = getpid(), pid = fork();

    if (pid == 0)
        become(image, parent);
    if (pid < 0)
        return gapless_error_set(error, GAPLESS_SYSTEM, errno,
                                 "cannot start %s: the limit on processes (ulimit -u) "
                                 "or memory",
                                 name);
    (void)setpgid(pid, pid);
    *ret = pid;
    return GAPLESS_OK;
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
    struct image image = {program, argv, environ, -1, -1, SIGTERM, false};
    int used, status;

    (void)snprintf(child.name, sizeof child.name, "%s", name);
    used = snprintf(child.log, sizeof child.log, "%s/%s.log", log_folder, name);
    if (used < 0 || (size_t)used >= sizeof child.log)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "the path of the log folder is too long");
    image.err =
        open(child.log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0666);
    if (image.err < 0)
        return gapless_error_set(error, GAPLESS_IO, errno, "cannot write %.150s",
                                 child.log);
    program_file(program, sizeof program);
    status = start(name, &image, &child.pid, error);
    (void)close(image.err);
    if (status == GAPLESS_OK)
        *ret = child;
    return status;
}

/* This process's environment, but what `settings` has in its place: the texts are theirs,
 * the list malloc'ed. NULL: no memory. */
static char **environment_with(char *const *settings)
{
    size_t count = 0, more = 0, used = 0;
    char **ret;

    while (environ[count] != NULL)
        count++;
    while (settings[more] != NULL)
        more++;
    ret = calloc(count + more + 1, sizeof *ret);
    for (size_t i = 0; ret != NULL && i < count; i++) {
        size_t bytes = strcspn(environ[i], "=") + 1;
        bool other = true;

        for (size_t k = 0; other && k < more; k++)
            other = strncmp(environ[i], settings[k], bytes) != 0;
        if (other)
            ret[used++] = environ[i];
    }
    for (size_t k = 0; ret != NULL && k < more; k++)
        ret[used++] = settings[k];
    return ret;
}

int launch_program(const char *name, const struct launch_program *program,
                   struct child *ret, struct gapless_error *error)
{
    struct image image = {program->file, program->argv, NULL, program->out,
                          program->err,  SIGKILL,       true};
    char **environment = environment_with(program->settings);
    struct child child = {.group = true};
    int status;

    if (environment == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory");
    image.environment = environment;
    (void)snprintf(child.name, sizeof child.name, "%s", name);
    status = start(name, &image, &child.pid, error);
    free(environment);
    if (status == GAPLESS_OK)
        *ret = child;
    return status;
}

static bool runnable(const char *path)
{
    struct stat is;

    return stat(path, &is) == 0 && S_ISREG(is.st_mode) && access(path, X_OK) == 0;
}

bool launch_find(const char *file, char ret[LAUNCH_PATH_MAX])
{
    const char *path = getenv("PATH");

    if (strchr(file, '/') != NULL)
        return snprintf(ret, LAUNCH_PATH_MAX, "%s", file) < LAUNCH_PATH_MAX &&
               runnable(ret);
    for (const char *at = path != NULL ? path : "/bin:/usr/bin"; *at != '\0';) {
        size_t bytes = strcspn(at, ":");

        if (snprintf(ret, LAUNCH_PATH_MAX, "%.*s/%s", (int)bytes, at, file) <
                LAUNCH_PATH_MAX &&
            bytes > 0 && runnable(ret))
            return true;
        at += bytes + (at[bytes] == ':');
    }
    return false;
}

uint64_t launch_descriptors(uint64_t need)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return need;
    if (limit.rlim_cur >= need)
        return limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max == RLIM_INFINITY || limit.rlim_max > need
                         ? need
                         : limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_cur;
}

int launch_room(uint32_t workers, struct gapless_error *error)
{
    uint64_t limit =
        launch_descriptors(DESCRIPTORS + DESCRIPTORS_EACH * (uint64_t)workers);

    if (limit >= DESCRIPTORS + DESCRIPTORS_LEAST * (uint64_t)workers)
        return GAPLESS_OK;
    return gapless_error_set(error, GAPLESS_SYSTEM, 0,
                             "%u workers need more open files than the limit of %llu "
                             "(ulimit -n): raise it or start fewer",
                             workers, (unsigned long long)limit);
}

static bool runs(const struct child *child)
{
    return child->pid > 0 && !child->ended;
}

/* Of a child that has ended and was not waited for yet, so that its number is its own:
 * what is left in its group is killed. */
static void end_group(const struct child *child)
{
    siginfo_t info = {0};

    if (waitid(P_PID, (id_t)child->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
        info.si_pid == child->pid)
        (void)kill(-child->pid, SIGKILL);
}

bool launch_reap(struct child *children, uint32_t count)
{
    bool any = false;

    for (uint32_t i = 0; i < count; i++) {
        pid_t got;

        if (!runs(&children[i]))
            continue;
        if (children[i].group)
            end_group(&children[i]);
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
            (void)kill(children[i].group ? -children[i].pid : children[i].pid, number);
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
    if (WIFSIGNALED(child->status) && WTERMSIG(child->status) == SIGKILL)
        (void)snprintf(ret, max, "was killed by signal 9 (Killed)%s",
                       machine_memory_short()
                           ? "; memory is short here, or was: perhaps by the kernel"
                           : "");
    else if (WIFSIGNALED(child->status))
        (void)snprintf(ret, max, "was killed by signal %d (%s)",
                       WTERMSIG(child->status), strsignal(WTERMSIG(child->status)));
    else
        (void)snprintf(ret, max, "ended with code %d%s", WEXITSTATUS(child->status),
                       !child->group && WEXITSTATUS(child->status) == EXIT_LOST
                           ? " (it lost the master)"
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
