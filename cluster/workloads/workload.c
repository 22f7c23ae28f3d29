/* A workload's children, and the talk with them. */
#include "cluster/workloads/workload.h"

#include "cluster/workloads/tensor_list.h"
#include "engine/base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define CHILD_SOCKET 3
#define CHILD_MEMORY 4
#define END_WAIT_S 2.0 /* for a child that was asked to end */

enum {
    WHAT_HELLO = 1,
    WHAT_INITIAL = 2,
    WHAT_GRADIENT = 3,
    WHAT_MEASURE = 4
};

struct request {
    uint32_t what, part;
    uint64_t number;
};

struct answer {
    uint32_t failed, bytes;
    double loss, correct, weight;
};

struct child {
    pid_t pid;
    int socket, memory;
    float *params, *grad; /* of both sides */
    size_t mapped;        /* bytes */
    pthread_mutex_t lock; /* one question at a time */
};

struct workload {
    char *command; /* a copy, cut into words */
    char *words[WORKLOAD_WORDS_MAX + 4];
    char name[64];
    uint64_t seed;
    struct child **child;
    uint32_t children;
    json_t *said; /* by the first */
    struct tensor_list list;
    struct workload_about about;
};

/* ---- starting and ending ------------------------------------------------- */

static bool is_python(const char *file)
{
    size_t bytes = strlen(file);

    return bytes > 3 && strcmp(file + bytes - 3, ".py") == 0;
}

void workload_name(const char *command, char *ret, size_t max)
{
    size_t bytes = strcspn(command, " \t");
    const char *from = command;

    for (size_t i = 0; i < bytes; i++)
        if (command[i] == '/')
            from = command + i + 1;
    bytes -= (size_t)(from - command);
    if (bytes > 3 && strncmp(from + bytes - 3, ".py", 3) == 0)
        bytes -= 3;
    (void)snprintf(ret, max, "%.*s", (int)bytes, from);
}

/* Cuts the command into argv. */
static int cut(struct workload *w, struct gapless_error *error)
{
    const char *python = getenv("PYTHON");
    uint32_t count = 0;
    char *at, *save = NULL, *first;

    first = strtok_r(w->command, " \t", &save);
    if (first == NULL)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "--workload names no file: give that of a program, or "
                                 "of a Python script");
    if (access(first, R_OK) != 0)
        return gapless_error_set(error, GAPLESS_MISSING, errno,
                                 "the workload %.200s cannot be read", first);
    if (is_python(first)) {
        w->words[count++] =
            (char *)(uintptr_t)(python != NULL && python[0] != '\0' ? python
                                                                    : "python3");
        w->words[count++] = (char *)(uintptr_t) "-u";
    }
    for (at = first; at != NULL; at = strtok_r(NULL, " \t", &save)) {
        if (count >= WORKLOAD_WORDS_MAX)
            return gapless_error_set(error, GAPLESS_INVALID, 0,
                                     "--workload has more than %d words",
                                     WORKLOAD_WORDS_MAX);
        w->words[count++] = at;
    }
    return GAPLESS_OK;
}

/* In the child, until it becomes the program. Only calls that are safe after fork. */
static void become(const struct workload *w, int socket, int memory, pid_t parent)
{
    int nothing, high_socket, high_memory;
    sigset_t none;

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);        /* it died before the line above */
    (void)setpgid(0, 0); /* Ctrl-C is the parent's to hear */
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    nothing = open("/dev/null", O_RDONLY);
    high_socket = fcntl(socket, F_DUPFD, CHILD_MEMORY + 1);
    high_memory = fcntl(memory, F_DUPFD, CHILD_MEMORY + 1);
    if (nothing < 0 || high_socket < 0 || high_memory < 0 ||
        dup2(nothing, STDIN_FILENO) < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0 ||
        dup2(high_socket, CHILD_SOCKET) < 0 || dup2(high_memory, CHILD_MEMORY) < 0)
        _exit(1);
    (void)close(high_socket);
    (void)close(high_memory);
    (void)execvp(w->words[0], w->words);
    _exit(127);
}

static void child_free(struct child *child)
{
    if (child == NULL)
        return;
    if (child->socket >= 0)
        (void)close(child->socket); /* it ends when it reads no more */
    if (child->pid > 0) {
        static const struct timespec pause = {0, 5000000};
        double end = clock_seconds() + END_WAIT_S;
        pid_t got = 0;

        while ((got = waitpid(child->pid, NULL, WNOHANG)) == 0 && clock_seconds() < end)
            (void)nanosleep(&pause, NULL);
        if (got == 0) {
            (void)kill(child->pid, SIGKILL);
            (void)waitpid(child->pid, NULL, 0);
        }
    }
    if (child->params != NULL)
        (void)munmap(child->params, child->mapped);
    if (child->memory >= 0)
        (void)close(child->memory);
    (void)pthread_mutex_destroy(&child->lock);
    free(child);
}

static int child_new(const struct workload *w, struct child **ret,
                     struct gapless_error *error)
{
    struct child *child = calloc(1, sizeof *child);
    int pair[2] = {-1, -1};
    pid_t parent = getpid();

    if (child == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory");
    (void)pthread_mutex_init(&child->lock, NULL);
    child->socket = -1;
    child->memory = memfd_create("gapless-workload", MFD_CLOEXEC);
    if (child->memory < 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
        int os = errno;

        child_free(child);
        return gapless_error_set(error, GAPLESS_SYSTEM, os,
                                 "no descriptors for the workload's process");
    }
    child->socket = pair[0];
    child->pid = fork();
    if (child->pid == 0)
        become(w, pair[1], child->memory, parent);
    (void)close(pair[1]);
    if (child->pid < 0) {
        int os = errno;

        child_free(child);
        return gapless_error_set(error, GAPLESS_SYSTEM, os,
                                 "cannot start the workload %.60s", w->name);
    }
    *ret = child;
    return GAPLESS_OK;
}

/* ---- question and answer ------------------------------------------------- */

/* How the child ended, if it did; waits a moment for that. */
static int gone(const struct workload *w, struct child *child,
                struct gapless_error *error)
{
    static const struct timespec pause = {0, 5000000};
    int status = 0;

    for (int i = 0; child->pid > 0 && i < 200; i++) {
        if (waitpid(child->pid, &status, WNOHANG) == child->pid) {
            child->pid = 0;
            break;
        }
        (void)nanosleep(&pause, NULL);
    }
    if (child->pid == 0 && WIFEXITED(status) && WEXITSTATUS(status) == 127)
        return gapless_error_set(error, GAPLESS_MISSING, 0,
                                 "%.100s cannot be run, which the workload %.60s needs "
                                 "(for Python: set PYTHON to the interpreter)",
                                 w->words[0], w->name);
    if (child->pid == 0 && WIFSIGNALED(status))
        return gapless_error_set(error, GAPLESS_PEER_LOST, 0,
                                 "the workload %.60s was ended by signal %d%s", w->name,
                                 WTERMSIG(status),
                                 WTERMSIG(status) == SIGKILL ? ": out of memory?" : "");
    return gapless_error_set(error, GAPLESS_PEER_LOST, 0,
                             "the workload %.60s ended with exit code %d in the middle "
                             "of the run; what it said stands above",
                             w->name, child->pid == 0 ? WEXITSTATUS(status) : -1);
}

/* Reads all of it, until `end`. */
static int take(const struct workload *w, struct child *child, void *to, size_t bytes,
                double end, struct gapless_error *error)
{
    char *at = to;

    while (bytes > 0) {
        struct pollfd wait = {.fd = child->socket, .events = POLLIN};
        double left = end - clock_seconds();
        ssize_t got;

        if (left <= 0.0)
            return gapless_error_set(error, GAPLESS_TIMEOUT, 0,
                                     "the workload %.60s did not answer for %d s",
                                     w->name, WORKLOAD_ANSWER_S);
        if (poll(&wait, 1, 1000) == 0)
            continue;
        got = recv(child->socket, at, bytes, 0);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return gone(w, child, error);
        at += got;
        bytes -= (size_t)got;
    }
    return GAPLESS_OK;
}

/* Asks, and waits for the answer; its text is malloc'ed, NULL where ret_text is. */
static int ask(const struct workload *w, struct child *child, struct request request,
               struct answer *ret, char **ret_text, struct gapless_error *error)
{
    double end = clock_seconds() + WORKLOAD_ANSWER_S;
    char *text;
    int status;

    if (child->socket < 0 || send(child->socket, &request, sizeof request,
                                  MSG_NOSIGNAL) != (ssize_t)sizeof request)
        return gone(w, child, error);
    *ret = (struct answer){0};
    status = take(w, child, ret, sizeof *ret, end, error);
    if (status != GAPLESS_OK)
        return status;
    if (ret->bytes > WORKLOAD_TEXT_MAX)
        return gapless_error_set(error, GAPLESS_PROTOCOL, 0,
                                 "the workload %.60s does not answer as a workload "
                                 "does: see cluster/workloads/workload.h",
                                 w->name);
    text = calloc(1, (size_t)ret->bytes + 1);
    if (text == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory");
    status = take(w, child, text, ret->bytes, end, error);
    if (status == GAPLESS_OK && ret->failed != 0)
        status = gapless_error_set(error, GAPLESS_INVALID, 0,
                                   "the workload %.60s: %.380s", w->name, text);
    if (status == GAPLESS_OK && ret_text != NULL)
        *ret_text = text;
    else
        free(text);
    return status;
}

/* ---- the description ----------------------------------------------------- */

static int count_of(const struct workload *w, const char *key, uint64_t usual,
                    uint64_t most, uint64_t *ret, struct gapless_error *error)
{
    const json_t *value = json_object_get(w->said, key);
    json_int_t count = json_integer_value(value);

    if (value == NULL && usual > 0) {
        *ret = usual;
        return GAPLESS_OK;
    }
    if (!json_is_integer(value) || count < 1 || (uint64_t)count > most)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "the workload %.60s says no %s from 1 to %llu",
                                 w->name, key, (unsigned long long)most);
    *ret = (uint64_t)count;
    return GAPLESS_OK;
}

static int describe(struct workload *w, const char *text, struct gapless_error *error)
{
    char who[100];
    uint64_t batch = 0, parts = 0;
    int status;

    w->said = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(w->said))
        return gapless_error_set(error, GAPLESS_PROTOCOL, 0,
                                 "the workload %.60s does not say what it is: see "
                                 "cluster/workloads/workload.h",
                                 w->name);
    (void)snprintf(who, sizeof who, "the workload %.60s", w->name);
    status =
        tensor_list_read(json_object_get(w->said, "tensors"), who, &w->list, error);
    if (status == GAPLESS_OK)
        status = count_of(w, "epoch", 0, 1ull << 40, &w->about.epoch, error);
    if (status == GAPLESS_OK)
        status = count_of(w, "batch", 0, 1u << 30, &batch, error);
    if (status == GAPLESS_OK)
        status = count_of(w, "parts", 1, WORKLOAD_PARTS_MAX, &parts, error);
    if (status != GAPLESS_OK)
        return status;
    w->about.tensors = w->list.tensors;
    w->about.tensors_count = w->list.count;
    w->about.parameters = w->list.parameters;
    w->about.batch = (uint32_t)batch;
    w->about.parts = (uint32_t)parts;
    return GAPLESS_OK;
}

/* Gives the child its memory. */
static int map(const struct workload *w, struct child *child,
               struct gapless_error *error)
{
    size_t bytes = w->about.parameters * sizeof(float) * 2;
    void *at;

    if (ftruncate(child->memory, (off_t)bytes) != 0)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, errno,
                                 "no memory for two vectors of %llu parameters",
                                 (unsigned long long)w->about.parameters);
    at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, child->memory, 0);
    if (at == MAP_FAILED)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, errno,
                                 "two vectors of %llu parameters cannot be mapped",
                                 (unsigned long long)w->about.parameters);
    child->params = at;
    child->grad = child->params + w->about.parameters;
    child->mapped = bytes;
    return GAPLESS_OK;
}

/* Hears what child number `index` says of itself: the first says what the workload is,
 * others have to say the same. */
static int hear(struct workload *w, uint32_t index, struct gapless_error *error)
{
    struct request hello = {.what = WHAT_HELLO, .part = index, .number = w->seed};
    struct child *child = w->child[index];
    struct answer answer = {0};
    char *text = NULL;
    int status = ask(w, child, hello, &answer, &text, error);

    if (status == GAPLESS_OK && w->said == NULL) {
        status = describe(w, text, error);
    } else if (status == GAPLESS_OK) {
        json_t *said = json_loads(text, 0, NULL);

        if (!json_equal(said, w->said))
            status = gapless_error_set(error, GAPLESS_INVALID, 0,
                                       "the workload %.60s says another thing in each "
                                       "of its processes",
                                       w->name);
        json_decref(said);
    }
    free(text);
    return status == GAPLESS_OK ? map(w, child, error) : status;
}

/* Starts children up to this many, all at once: each may take seconds to load. */
static int start(struct workload *w, uint32_t children, struct gapless_error *error)
{
    uint32_t first = w->children;
    int status = GAPLESS_OK;

    while (status == GAPLESS_OK && w->children < children) {
        status = child_new(w, &w->child[w->children], error);
        w->children += status == GAPLESS_OK;
    }
    for (uint32_t i = first; status == GAPLESS_OK && i < children; i++)
        status = hear(w, i, error);
    return status;
}

/* ---- what others call ---------------------------------------------------- */

int workload_open(const char *command, uint64_t seed, struct workload **ret,
                  struct gapless_error *error)
{
    struct workload *w = calloc(1, sizeof *w);
    int status = GAPLESS_NO_MEMORY;

    if (w != NULL) {
        w->command = strdup(command);
        w->child = calloc(1, sizeof *w->child);
        w->seed = seed;
        workload_name(command, w->name, sizeof w->name);
    }
    if (w == NULL || w->command == NULL || w->child == NULL)
        (void)gapless_error_set(error, status, 0, "no memory");
    else
        status = cut(w, error);
    if (status == GAPLESS_OK)
        status = start(w, 1, error);
    if (status != GAPLESS_OK) {
        workload_close(w);
        return status;
    }
    *ret = w;
    return GAPLESS_OK;
}

void workload_about(const struct workload *workload, struct workload_about *ret)
{
    *ret = workload->about;
}

int workload_threads(struct workload *workload, uint32_t threads,
                     struct gapless_error *error)
{
    struct child **more = realloc(workload->child, threads * sizeof *more);

    if (more == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory");
    workload->child = more;
    return start(workload, threads, error);
}

static int ask_at(struct workload *w, struct child *child, struct request request,
                  const float *params, float *ret_vector, struct answer *ret,
                  struct gapless_error *error)
{
    size_t bytes = w->about.parameters * sizeof(float);
    int status;

    (void)pthread_mutex_lock(&child->lock);
    if (params != NULL)
        memcpy(child->params, params, bytes);
    status = ask(w, child, request, ret, NULL, error);
    if (status == GAPLESS_OK && ret_vector != NULL)
        memcpy(ret_vector, params != NULL ? child->grad : child->params, bytes);
    (void)pthread_mutex_unlock(&child->lock);
    return status;
}

int workload_initial(struct workload *workload, float *ret, struct gapless_error *error)
{
    struct request request = {.what = WHAT_INITIAL};
    struct answer answer = {0};

    return ask_at(workload, workload->child[0], request, NULL, ret, &answer, error);
}

int workload_gradient(struct workload *workload, uint32_t thread, uint64_t batch,
                      const float *params, float *ret_grad, double *ret_loss,
                      struct gapless_error *error)
{
    struct request request = {.what = WHAT_GRADIENT, .number = batch};
    struct answer answer = {0};
    int status = ask_at(workload, workload->child[thread], request, params, ret_grad,
                        &answer, error);

    if (status == GAPLESS_OK)
        *ret_loss = answer.loss;
    return status;
}

int workload_measure(struct workload *workload, uint32_t thread, uint32_t part,
                     const float *params, struct workload_measured *ret,
                     struct gapless_error *error)
{
    struct request request = {.what = WHAT_MEASURE, .part = part};
    struct answer answer = {0};
    int status = ask_at(workload, workload->child[thread], request, params, NULL,
                        &answer, error);

    if (status == GAPLESS_OK)
        *ret = (struct workload_measured){
            .loss = answer.loss, .correct = answer.correct, .weight = answer.weight};
    return status;
}

void workload_close(struct workload *workload)
{
    if (workload == NULL)
        return;
    for (uint32_t i = 0; i < workload->children; i++)
        child_free(workload->child[i]);
    tensor_list_free(&workload->list);
    json_decref(workload->said);
    free(workload->child);
    free(workload->command);
    free(workload);
}
