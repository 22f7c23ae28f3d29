/* The copies of a program: what is run, with which environment, and what is said when one
 * of them ends. */
#include "cluster/run/run_ranks.h"

#include "cluster/program/program.h"
#include "engine/base/machine.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define PYTHON "python3"
#define DRAIN_S 1.0 /* for what a rank printed last to be read */
#define SETTINGS_MAX 16u
#define SETTING_BYTES (RESULTS_PATH_MAX + 32)

void run_fail(struct running *run, const char *format, ...)
{
    va_list list;

    if (run->failure[0] != '\0')
        return;
    va_start(list, format);
    (void)vsnprintf(run->failure, sizeof run->failure, format, list);
    va_end(list);
}

/* ---- the program --------------------------------------------------------- */

static bool ends_with(const char *text, const char *end)
{
    size_t bytes = strlen(text), tail = strlen(end);

    return bytes > tail && strcmp(text + bytes - tail, end) == 0;
}

/* Sets words from `own`, NULL at the end, and the operands behind them. */
static bool set_words(struct running *run, const char *const *own)
{
    const struct settings *settings = &run->serving.settings;
    size_t used = 0;

    run->words = calloc((size_t)settings->operands + 5, sizeof *run->words);
    if (run->words == NULL) {
        report_failure("run", "no memory");
        return false;
    }
    for (; own[used] != NULL; used++)
        run->words[used] = (char *)(uintptr_t)own[used];
    for (int i = 0; i < settings->operands; i++)
        run->words[used++] = settings->operand[i];
    return true;
}

bool run_find_program(struct running *run)
{
    struct settings *settings = &run->serving.settings;
    const char *python = getenv("PYTHON"), *name, *slash;
    bool script;

    if (settings->operands == 0) {
        report_failure("run", "name the program behind the options: gapless run -n 8 "
                              "train.py");
        return false;
    }
    program_python_path();
    name = settings->operand[0];
    script = !settings->module && ends_with(name, ".py");
    if (script && access(name, R_OK) != 0) {
        report_failure("run", "cannot read %s: %s", name, strerror(errno));
        return false;
    }
    python = python != NULL && python[0] != '\0' ? python : PYTHON;
    if (!launch_find(script || settings->module ? python : name, run->file)) {
        report_failure("run", "there is no program %s that can be run%s",
                       script || settings->module ? python : name,
                       script || settings->module ? "; set PYTHON to the interpreter"
                                                  : "");
        return false;
    }
    slash = strrchr(name, '/');
    settings->model = slash != NULL && slash[1] != '\0' ? slash + 1 : name;
    if (settings->module)
        return set_words(run, (const char *const[]){python, "-u", "-m", NULL});
    if (script)
        return set_words(run, (const char *const[]){python, "-u", NULL});
    return set_words(run, (const char *const[]){NULL});
}

/* ---- starting ------------------------------------------------------------ */

struct rank_settings {
    char text[SETTINGS_MAX][SETTING_BYTES];
    char *list[SETTINGS_MAX + 1];
    uint32_t count;
};

static void set(struct rank_settings *to, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void set(struct rank_settings *to, const char *format, ...)
{
    va_list list;

    va_start(list, format);
    (void)vsnprintf(to->text[to->count], SETTING_BYTES, format, list);
    va_end(list);
    to->list[to->count] = to->text[to->count];
    to->count++;
}

/* What torchrun sets, where the master is, and the cores' share of the threads, unless a
 * person has set them. */
static void rank_settings(const struct running *run, uint32_t rank,
                          struct rank_settings *ret)
{
    static const char *const threads[] = {"OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS",
                                          "MKL_NUM_THREADS"};
    uint32_t share = machine_processors() / run->ranks;

    memset(ret, 0, sizeof *ret);
    set(ret, "RANK=%u", rank);
    set(ret, "LOCAL_RANK=%u", rank);
    set(ret, "WORLD_SIZE=%u", run->ranks);
    set(ret, "LOCAL_WORLD_SIZE=%u", run->ranks);
    set(ret, "GAPLESS_MASTER=%s", run->serving.address);
    set(ret, "GAPLESS_RUN_DIR=%s", run->absolute);
    set(ret, "GAPLESS_OFFER=%s", run->offer_path);
    for (size_t i = 0; i < sizeof threads / sizeof threads[0]; i++)
        if (getenv(threads[i]) == NULL)
            set(ret, "%s=%u", threads[i], share > 1 ? share : 1);
    if (getenv("PYTHONUNBUFFERED") == NULL) /* lines are shown when they are printed */
        set(ret, "PYTHONUNBUFFERED=1");
}

static int start_rank(struct running *run, uint32_t rank, struct gapless_error *error)
{
    struct rank_settings settings;
    struct launch_program program = {.file = run->file,
                                     .argv = run->words,
                                     .settings = settings.list,
                                     .out = -1,
                                     .err = -1};
    char name[24];
    int status = relay_rank(run->relay, rank, &program.out, &program.err, error);

    if (status != GAPLESS_OK)
        return status;
    (void)snprintf(name, sizeof name, "rank %u", rank);
    rank_settings(run, rank, &settings);
    status = launch_program(name, &program, &run->child[rank], error);
    (void)close(program.out);
    (void)close(program.err);
    if (status == GAPLESS_OK)
        run->starts[rank]++;
    return status;
}

int run_start(struct running *run, struct gapless_error *error)
{
    int status = GAPLESS_OK;

    for (uint32_t i = 0; status == GAPLESS_OK && i < run->ranks; i++)
        status = start_rank(run, i, error);
    return status;
}

/* ---- watching ------------------------------------------------------------ */

uint32_t run_left(const struct running *run)
{
    uint32_t left = 0;

    for (uint32_t i = 0; i < run->ranks; i++)
        left += run->child[i].pid > 0 && !run->child[i].ended;
    return left;
}

/* False: it may not, or cannot. */
static bool start_again(struct running *run, uint32_t rank, const char *what)
{
    struct view *view = &run->serving.view;
    uint32_t restarts = run->serving.settings.restarts;
    struct gapless_error error = {0};

    if (run->starts[rank] > restarts)
        return false;
    if (start_rank(run, rank, &error) != GAPLESS_OK) {
        view_note(view, "gapless run: %s", error.text);
        return false;
    }
    view_note(view, "gapless run: %s; it is started again, %u of %u times", what,
              run->starts[rank] - 1, restarts);
    return true;
}

static void rank_ended(struct running *run, uint32_t rank, bool over)
{
    const struct child *child = &run->child[rank];
    char how[80], words[RELAY_WORDS_MAX], what[RELAY_WORDS_MAX + 160];
    uint32_t left;

    relay_ended(run->relay, rank, DRAIN_S, words);
    if (WIFEXITED(child->status) && WEXITSTATUS(child->status) == EXIT_DONE) {
        run->ended_well++;
        return;
    }
    if (run->signal != 0 || run->failure[0] != '\0') {
        run->died++; /* as it was asked to */
        return;
    }
    launch_describe(child, how, sizeof how);
    (void)snprintf(what, sizeof what, "rank %u (process %d) %s%s%s", rank,
                   (int)child->pid, how, words[0] != '\0' ? "; its last words: " : "",
                   words);
    if (!over && start_again(run, rank, what))
        return;
    run->died += !over;
    run->failed_late += over;
    left = run_left(run);
    if (over)
        view_note(&run->serving.view, "gapless run: %s; the run was over", what);
    else if (left > 0)
        view_note(&run->serving.view, "gapless run: %s; the run goes on with %u", what,
                  left);
    else
        view_note(&run->serving.view, "gapless run: %s", what);
}

void run_check(struct running *run, bool over)
{
    (void)launch_reap(run->child, run->ranks);
    for (uint32_t i = 0; i < run->ranks; i++)
        if (run->child[i].ended && !run->child[i].seen) {
            run->child[i].seen = true;
            rank_ended(run, i, over);
        }
}
