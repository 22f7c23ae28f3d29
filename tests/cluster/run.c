/* Processes under test. */
#include "tests/cluster/run.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

char run_dir[32];

double run_now(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void run_sleep(double seconds)
{
    struct timespec wait = {(time_t)seconds,
                            (long)((seconds - (double)(time_t)seconds) * 1e9)};

    (void)nanosleep(&wait, NULL);
}

const char *run_program(void)
{
    const char *path = getenv("GAPLESS_PROGRAM");

    if (path == NULL)
        path = getenv("GAPLESS_BIN");
    if (path == NULL || access(path, X_OK) != 0) {
        (void)printf("SKIP: the program is not built (GAPLESS_PROGRAM)\n");
        exit(77);
    }
    return path;
}

void run_folder(char *ret, size_t max)
{
    (void)snprintf(ret, max, "/tmp/gapless-test-XXXXXX");
    assert_non_null(mkdtemp(ret));
}

static int remove_one(const char *path, const struct stat *info, int kind,
                      struct FTW *where)
{
    (void)info;
    (void)kind;
    (void)where;
    return remove(path);
}

void run_remove(const char *folder)
{
    if (strncmp(folder, "/tmp/gapless-test-", 18) == 0)
        (void)nftw(folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

int run_set_up(void **state)
{
    (void)state;
    run_folder(run_dir, sizeof run_dir);
    return 0;
}

int run_tear_down(void **state)
{
    (void)state;
    run_none_left(run_dir);
    run_remove(run_dir);
    return 0;
}

/* Splits at spaces, in place. */
static void split(char *words, char **ret, unsigned from)
{
    char *rest = words;

    while (rest != NULL && from < RUN_ARGUMENTS_MAX)
        ret[from++] = strsep(&rest, " ");
    ret[from] = NULL;
}

void run_signals_as_usual(void)
{
    (void)signal(SIGINT, SIG_DFL);
    (void)signal(SIGQUIT, SIG_DFL);
}

static void become(int output, long file_limit, char *environment, char *arguments)
{
    static char name[] = "gapless";
    char *argv[RUN_ARGUMENTS_MAX + 1] = {name};
    struct rlimit limit = {(rlim_t)file_limit, (rlim_t)file_limit};
    char *rest = environment;

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    run_signals_as_usual();
    while (rest != NULL)
        (void)putenv(strsep(&rest, " "));
    split(arguments, argv, 1);
    if (file_limit > 0)
        (void)setrlimit(RLIMIT_FSIZE, &limit);
    (void)dup2(output, STDOUT_FILENO);
    (void)dup2(output, STDERR_FILENO);
    (void)execv(run_program(), argv);
    _exit(126);
}

struct run run_start(const char *environment, long file_limit, const char *line)
{
    struct run run = {.output = "/tmp/gapless-test-out-XXXXXX"};
    int output = mkostemp(run.output, O_APPEND | O_CLOEXEC);
    char *arguments = strdup(line);
    char *more = environment != NULL ? strdup(environment) : NULL;

    assert_true(output >= 0 && arguments != NULL);
    (void)fflush(NULL);
    run.pid = fork();
    if (run.pid == 0)
        become(output, file_limit, more, arguments);
    assert_true(run.pid > 0);
    free(arguments);
    free(more);
    (void)close(output);
    return run;
}

/* On some processors the program begins with a line on which kernels OpenBLAS has there:
 * tests/cluster/test_blas_core.sh looks at it, no other test does. */
static void leave_out_note(char *text)
{
    char *end = strchr(text, '\n'), *note = strstr(text, ": OpenBLAS took its ");

    if (end != NULL && note != NULL && note < end)
        memmove(text, end + 1, strlen(end + 1) + 1);
}

char *run_output(const struct run *run)
{
    FILE *file = fopen(run->output, "re");
    char *text = calloc(1, 1 << 20);

    assert_non_null(file);
    assert_non_null(text);
    (void)fread(text, 1, (1 << 20) - 1, file);
    (void)fclose(file);
    leave_out_note(text);
    return text;
}

static void show_output(const struct run *run)
{
    char *text = run_output(run);

    print_error("the program printed:\n%s\n", text);
    free(text);
}

int run_wait(struct run *run, double seconds)
{
    struct pace_bound bound = pace_begin((int64_t)(1e9 * seconds));
    int status = 0;

    while (waitpid(run->pid, &status, WNOHANG) == 0) {
        if (pace_over(&bound)) {
            show_output(run);
            run_close(run);
            fail_msg("it did not end within %g s of an idle machine", seconds);
        }
        run_sleep(0.005);
    }
    run->ended = true;
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

void run_expect(struct run *run, const char *text, double seconds)
{
    struct pace_bound bound = pace_begin((int64_t)(1e9 * seconds));

    for (;;) {
        siginfo_t info = {0};
        bool ended = run->ended || (waitid(P_PID, (id_t)run->pid, &info,
                                           WEXITED | WNOHANG | WNOWAIT) == 0 &&
                                    info.si_pid != 0);
        char *output = run_output(run);
        bool found = strstr(output, text) != NULL;

        free(output);
        if (found)
            return;
        if (ended || pace_over(&bound)) {
            show_output(run);
            run_close(run);
            fail_msg("it did not print '%s' within %g s of an idle machine", text,
                     seconds);
        }
        run_sleep(0.01);
    }
}

void run_close(struct run *run)
{
    if (run->pid > 0 && !run->ended) {
        (void)kill(run->pid, SIGKILL);
        (void)waitpid(run->pid, NULL, 0);
        run->ended = true;
    }
    (void)unlink(run->output);
}

void run_whole(const char *environment, const char *line, int code, const char *text)
{
    struct run run = run_start(environment, 0, line);
    int got = run_wait(&run, 120.0);
    char *output = run_output(&run);
    bool found = strstr(output, text) != NULL;

    if (got != code || !found) {
        print_error("gapless %s\nended with %d, not %d, and printed:\n%s\n", line, got,
                    code, output);
        if (!found)
            print_error("but not '%s'\n", text);
        fail();
    }
    free(output);
    run_close(&run);
}

static bool has_argument(const char *pid, const char *text)
{
    char path[300], line[8192];
    FILE *file;
    size_t bytes;

    (void)snprintf(path, sizeof path, "/proc/%s/cmdline", pid);
    file = fopen(path, "re");
    if (file == NULL)
        return false;
    bytes = fread(line, 1, sizeof line - 1, file);
    (void)fclose(file);
    for (size_t i = 0; i < bytes; i++)
        if (line[i] == '\0')
            line[i] = ' ';
    line[bytes] = '\0';
    return strstr(line, text) != NULL;
}

unsigned run_processes(const char *text, pid_t *ret, unsigned max)
{
    DIR *folder = opendir("/proc");
    const struct dirent *entry;
    unsigned count = 0;

    assert_non_null(folder);
    while ((entry = readdir(folder)) != NULL && count < max) {
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);

        if (pid > 0 && pid != getpid() && has_argument(entry->d_name, text))
            ret[count++] = pid;
    }
    (void)closedir(folder);
    return count;
}

static void check_shm(void)
{
    DIR *folder = opendir("/dev/shm");
    const struct dirent *entry;

    if (folder == NULL)
        return;
    while ((entry = readdir(folder)) != NULL)
        if (strstr(entry->d_name, "gapless") != NULL)
            fail_msg("/dev/shm/%s was left behind", entry->d_name);
    (void)closedir(folder);
}

void run_none_left(const char *text)
{
    struct pace_bound bound = pace_begin(5000000000);
    pid_t left[64];
    unsigned count;

    while ((count = run_processes(text, left, 64)) > 0 && !pace_over(&bound))
        run_sleep(0.02);
    for (unsigned i = 0; i < count; i++)
        (void)kill(left[i], SIGKILL);
    if (count > 0)
        fail_msg("%u processes were left behind", count);
    check_shm();
}

json_t *run_json(const char *folder, const char *name)
{
    char path[512];
    json_error_t error;
    json_t *ret;

    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    ret = json_load_file(path, 0, &error);
    if (ret == NULL)
        fail_msg("%s: %s", path, error.text);
    return ret;
}

double run_number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);

    if (!json_is_number(value))
        fail_msg("%s is not a number", key);
    return json_number_value(value);
}
