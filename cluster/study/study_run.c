/* Runs the cells of a study: a process each, a few at a time, the longest first. */
#include "cluster/study/study.h"

#include "cluster/task/evaluate.h"
#include "cluster/task/results.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define TICK_S 0.1
#define LOOK_EVERY_S 1.0 /* into the metrics of cells that run */
#define CSV_EVERY_S 5.0  /* and not more often than that... */
#define CSV_SHARE 20.0   /* ...it takes one part in so many of the time */
#define GRACE_S 3.0      /* for a child to write what it has */
#define NOTES_MAX 10u    /* failures that are told of; the rest is counted */
#define LEFT_KNOWN_S 2.0 /* before this nothing is said of the time left */

struct crew {
    struct study_run *run;
    struct child *child; /* `jobs` of them */
    size_t *cell;        /* of each child */
    size_t *order;       /* cells to run, the longest first */
    size_t pending, next, running;
    size_t done, failed; /* of all cells */
    double work, work_done, work_going;
    double start, look_due, csv_due;
    bool csv_stale;
    unsigned told; /* failures */
    bool ending;   /* what ends now was ended */
};

/* ---- one cell ------------------------------------------------------------ */

static bool make_arguments(const struct study_run *run, const struct cell *cell,
                           const char *folder, struct launch_arguments *ret)
{
    static const char *const except[] = {"out",      "data-fd", "threads", "quiet",
                                         "no-color", "help",    NULL};
    struct settings settings;
    int data_fd = check_data_fd(run->check, cell);

    return launch_argument(ret, "gapless") && launch_argument(ret, "simulate") &&
           plan_settings(run->plan, cell, &settings) &&
           options_emit(&settings, FOR_SIMULATE, except, ret->text,
                        LAUNCH_ARGUMENTS_MAX, &ret->count) &&
           launch_argument(ret, "--out=%s", folder) &&
           launch_argument(ret, "--threads=1") &&
           (data_fd < 0 || launch_argument(ret, "--data-fd=%d", data_fd)) &&
           launch_argument(ret, "--quiet");
}

static int start_cell(struct crew *crew, uint32_t slot, size_t index,
                      struct gapless_error *error)
{
    struct study_run *run = crew->run;
    struct cell *cell = &run->plan->cell[index];
    struct launch_arguments arguments = {{NULL}, 0};
    char folder[RESULTS_PATH_MAX];
    int status = cell_prepare(run->plan, run->folder, cell, error);

    if (status != GAPLESS_OK)
        return status;
    (void)cell_path(run->folder, cell, NULL, folder, sizeof folder);
    if (make_arguments(run, cell, folder, &arguments))
        status = launch_child("run", folder, arguments.text, &crew->child[slot], error);
    else
        status =
            gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory to start a run");
    launch_arguments_free(&arguments);
    if (status != GAPLESS_OK)
        return status;
    cell->state = CELL_RUNNING;
    crew->cell[slot] = index;
    crew->running++;
    return GAPLESS_OK;
}

static void tell_failure(struct crew *crew, const struct child *child,
                         const struct cell *cell)
{
    char how[80], words[400];

    if (crew->told == NOTES_MAX)
        show_note(&crew->run->show,
                  "more runs failed: see %s/cells/*/run.log and the column status of "
                  "study.csv",
                  crew->run->folder);
    if (crew->told++ >= NOTES_MAX)
        return;
    launch_describe(child, how, sizeof how);
    launch_last_words(child, words, sizeof words);
    if (WIFEXITED(child->status) && WEXITSTATUS(child->status) == 0)
        (void)snprintf(how, sizeof how, "ended, but its result.json is not whole");
    show_note(&crew->run->show, "%s %s%s%s", cell->name, how,
              words[0] != '\0' ? "; its last words: " : "", words);
}

/* Takes in what a child left that has ended. */
static void end_cell(struct crew *crew, uint32_t slot)
{
    struct study_run *run = crew->run;
    struct child *child = &crew->child[slot];
    struct cell *cell = &run->plan->cell[crew->cell[slot]];
    bool good = WIFEXITED(child->status) && WEXITSTATUS(child->status) == 0;
    char folder[RESULTS_PATH_MAX];

    cell_look(run->plan, run->folder, cell, run->target);
    /* It writes its result last: one that was whole when we ended it is whole. */
    good = good || (crew->ending && cell->state == CELL_DONE);
    if (!good && cell->state == CELL_DONE &&
        cell_path(run->folder, cell, "result.json", folder, sizeof folder))
        (void)unlink(folder); /* the rest of its files is not whole: run it again */
    if (good && cell->state == CELL_DONE) {
        crew->done++;
    } else if (crew->ending) {
        cell->state = CELL_MISSING;
    } else {
        cell->state = CELL_FAILED;
        crew->failed++;
        tell_failure(crew, child, cell);
    }
    crew->work_done += cell->work;
    crew->csv_stale = true;
    crew->running--;
    if (cell_path(run->folder, cell, NULL, folder, sizeof folder))
        launch_tidy(child, 1, folder);
    memset(child, 0, sizeof *child);
}

/* ---- all of them --------------------------------------------------------- */

static int fill_slots(struct crew *crew, struct gapless_error *error)
{
    int status = GAPLESS_OK;

    for (uint32_t i = 0; i < crew->run->jobs && status == GAPLESS_OK; i++)
        if (crew->child[i].pid == 0 && crew->next < crew->pending)
            status = start_cell(crew, i, crew->order[crew->next++], error);
    return status;
}

static void reap(struct crew *crew)
{
    if (!launch_reap(crew->child, crew->run->jobs))
        return;
    for (uint32_t i = 0; i < crew->run->jobs; i++)
        if (crew->child[i].pid > 0 && crew->child[i].ended)
            end_cell(crew, i);
}

/* Ctrl-Z: children have process groups of their own, and stop with this one. */
static void suspend(struct crew *crew)
{
    show_leave(&crew->run->show);
    launch_signal(crew->child, crew->run->jobs, SIGSTOP);
    (void)raise(SIGSTOP); /* and here it goes on after SIGCONT */
    launch_signal(crew->child, crew->run->jobs, SIGCONT);
}

static void wait_signal(struct crew *crew, double seconds)
{
    struct timespec wait = {(time_t)seconds, (long)((seconds - floor(seconds)) * 1e9)};
    int number = sigtimedwait(&crew->run->signals, NULL, &wait);

    if (number == SIGINT || number == SIGTERM || number == SIGHUP)
        crew->run->signal = number;
    else if (number == SIGTSTP)
        suspend(crew);
}

static void show(struct crew *crew)
{
    double now = now_seconds(), elapsed = now - crew->start, share;
    struct study_counts counts = {
        .cells = crew->run->plan->cells,
        .done = crew->done,
        .failed = crew->failed,
        .running = crew->running,
        .seconds = (double)NAN,
    };

    if (crew->run->show.quiet)
        return;
    if (now >= crew->look_due) {
        crew->look_due = now + LOOK_EVERY_S;
        crew->work_going = 0.0;
        for (uint32_t i = 0; i < crew->run->jobs; i++)
            if (crew->child[i].pid > 0) {
                const struct cell *cell = &crew->run->plan->cell[crew->cell[i]];

                crew->work_going += cell->work * cell_progress(crew->run->plan,
                                                               crew->run->folder, cell);
            }
    }
    share = crew->work > 0.0 ? (crew->work_done + crew->work_going) / crew->work : 0.0;
    counts.share = share < 1.0 ? share : 1.0;
    if (elapsed > LEFT_KNOWN_S && share > 0.0)
        counts.seconds = elapsed * (1.0 - counts.share) / share;
    show_progress(&crew->run->show, &counts, now);
}

static int write_csv(struct crew *crew, struct gapless_error *error)
{
    double before = now_seconds(), after;
    int status;

    if (!crew->csv_stale || before < crew->csv_due)
        return GAPLESS_OK;
    status = study_csv(crew->run->plan, crew->run->folder, error);
    after = now_seconds();
    crew->csv_stale = false;
    crew->csv_due = after + CSV_EVERY_S + CSV_SHARE * (after - before);
    return status;
}

static int go(struct crew *crew, struct gapless_error *error)
{
    int status = GAPLESS_OK;

    while (status == GAPLESS_OK && crew->run->signal == 0) {
        status = fill_slots(crew, error);
        if (status == GAPLESS_OK && crew->running == 0)
            break;
        show(crew);
        wait_signal(crew, TICK_S);
        reap(crew);
        if (status == GAPLESS_OK)
            status = write_csv(crew, error);
    }
    crew->ending = true;
    if (crew->running > 0) {
        launch_end(crew->child, crew->run->jobs, GRACE_S);
        reap(crew);
        for (uint32_t i = 0; i < crew->run->jobs;
             i++) /* those that launch_end reaped */
            if (crew->child[i].pid > 0 && crew->child[i].ended)
                end_cell(crew, i);
    }
    show(crew);
    show_leave(&crew->run->show);
    if (status == GAPLESS_OK && crew->run->signal != 0)
        status = gapless_error_set(error, GAPLESS_STOPPED, 0, "stopped");
    return status;
}

/* ---- before -------------------------------------------------------------- */

static const struct plan *sorted; /* for by_work: qsort has no context */

/* The longest first, so that at the end none is waited for alone; else in order. */
static int by_work(const void *a, const void *b)
{
    size_t left = *(const size_t *)a, right = *(const size_t *)b;
    double x = sorted->cell[left].work, y = sorted->cell[right].work;

    if (x > y || x < y)
        return x > y ? -1 : 1;
    return (left > right) - (left < right);
}

static void take_in(struct crew *crew)
{
    const struct plan *plan = crew->run->plan;

    for (size_t i = 0; i < plan->cells; i++) {
        if (plan->cell[i].state == CELL_DONE) {
            crew->done++;
            continue;
        }
        crew->order[crew->pending++] = i;
        crew->work += plan->cell[i].work;
    }
    sorted = plan;
    qsort(crew->order, crew->pending, sizeof *crew->order, by_work);
}

/* What stands in the environment must not leak into the runs: a cell is what its
 * cell.txt says. A process each: threads inside them would fight for the same cores. */
static void set_environment(void)
{
    bool again = true;

    while (again) {
        again = false;
        for (char **at = environ; *at != NULL && !again; at++) {
            char name[128];

            if (strncmp(*at, "GAPLESS_", 8) != 0 || strcspn(*at, "=") >= sizeof name)
                continue; /* no option has so long a name */
            (void)snprintf(name, sizeof name, "%.*s", (int)strcspn(*at, "="), *at);
            again = unsetenv(name) == 0;
        }
    }
    (void)setenv("OPENBLAS_NUM_THREADS", "1", 1);
    (void)setenv("OMP_NUM_THREADS", "1", 1);
}

int study_run(struct study_run *run, struct gapless_error *error)
{
    struct crew crew = {.run = run, .start = now_seconds()};
    int status;

    crew.child = calloc(run->jobs, sizeof *crew.child);
    crew.cell = calloc(run->jobs, sizeof *crew.cell);
    crew.order = calloc(run->plan->cells, sizeof *crew.order);
    if (crew.child != NULL && crew.cell != NULL && crew.order != NULL) {
        take_in(&crew);
        set_environment();
        status = go(&crew, error);
    } else {
        status = gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory");
    }
    free(crew.child);
    free(crew.cell);
    free(crew.order);
    return status;
}
