/* gapless study: the runs of an INI file, on all processors; one that was stopped goes
 * on. */
#include "cluster/study/study.h"
#include "engine/base/machine.h"
#include "engine/base/text_file.h"

#include "cluster/program/program_options.h"
#include "cluster/report/report.h"
#include "cluster/task/results.h"
#include "cluster/task/run_folder.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define FOLDER_BYTES_MAX 700

/* ---- the folder ---------------------------------------------------------- */

/* DIR/study.ini: what the study was when this ran. */
static int copy_file(const char *from, const char *folder, struct gapless_error *error)
{
    char path[RESULTS_PATH_MAX], *text = NULL;
    size_t bytes = 0;
    int status = results_path(folder, "study.ini", path, error);

    if (status == GAPLESS_OK)
        status = text_file_all(from, "the study", STUDY_FILE_MAX, &text, &bytes, error);
    if (status == GAPLESS_OK)
        status = results_file(path, text, bytes, error);
    free(text);
    return status;
}

/* ---- the command --------------------------------------------------------- */

struct work {
    struct settings settings;
    struct study study;
    struct plan plan;
    struct check check;
    struct study_run run;
    char folder[RESULTS_PATH_MAX];
    double target;
    struct run_folder hold; /* on the folder */
};

static size_t count(const struct plan *plan, enum trial_state state)
{
    size_t ret = 0;

    for (size_t i = 0; i < plan->trials; i++)
        ret += plan->trial[i].state == state;
    return ret;
}

static const char *plural(size_t number)
{
    return number == 1 ? "" : "s";
}

static void report_left_out(const struct work *work)
{
    if (work->study.left_out == NULL || work->settings.quiet)
        return;
    (void)printf("%s", work->study.left_out);
    (void)fflush(stdout);
}

static int dry_run(const struct work *work)
{
    const struct plan *plan = &work->plan;
    size_t done = count(plan, TRIAL_DONE);

    for (size_t i = 0; i < plan->trials; i++)
        (void)printf("%s  %s\n", plan->trial[i].state == TRIAL_DONE ? "done" : "    ",
                     plan->trial[i].name);
    (void)printf("%zu run%s in %s: %zu done, %zu to go\n", plan->trials,
                 plural(plan->trials), work->folder, done, plan->trials - done);
    report_left_out(work);
    return EXIT_DONE;
}

static uint32_t choose_jobs(const struct work *work)
{
    uint32_t jobs = work->settings.jobs != 0 ? work->settings.jobs : work->study.jobs;

    if (jobs == 0)
        jobs = machine_processors();
    if (jobs > 1024)
        jobs = 1024;
    return jobs < work->plan.trials ? jobs : (uint32_t)work->plan.trials;
}

static void block_signals(sigset_t *ret)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGCHLD, SIGTSTP};

    (void)sigemptyset(ret);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        (void)sigaddset(ret, numbers[i]);
    (void)sigprocmask(SIG_BLOCK, ret, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
}

/* One study at a time in a folder, which its runs hold, too. */
static int enter_folder(struct work *work, struct gapless_error *error)
{
    return run_folder_take(work->folder, false, true, &work->hold, error);
}

/* Everything that can be found wrong before a run is started; a folder is made only if
 * nothing is. */
static int prepare(struct work *work, struct gapless_error *error)
{
    bool fresh = access(work->folder, F_OK) != 0;
    int status = GAPLESS_OK;

    program_python_path(); /* for workloads */
    if (!fresh)
        status = enter_folder(work, error);
    for (size_t i = 0; i < work->plan.trials && status == GAPLESS_OK; i++)
        trial_look(&work->plan, work->folder, &work->plan.trial[i], work->target);
    if (status == GAPLESS_OK)
        status = check_open(&work->plan, work->settings.data_dir, &work->check, error);
    if (status == GAPLESS_OK && fresh)
        status = enter_folder(work, error);
    if (status == GAPLESS_OK)
        status = copy_file(work->study.path, work->folder, error);
    return status;
}

/* Prints the tables and writes the page: what was written is read once for both. */
static int make_report(const struct work *work, struct gapless_error *error)
{
    const char *folder = work->folder;
    struct report report = {.target = work->target};
    char path[RESULTS_PATH_MAX];
    int status = results_path(folder, "report.html", path, error);

    if (status == GAPLESS_OK)
        status = report_load(&report, &folder, 1, error);
    if (status == GAPLESS_OK) {
        report_tables(&report, work->run.show.terminal.color && isatty(STDOUT_FILENO),
                      stdout);
        status = report_page(&report, path, work->study.title, error);
    }
    report_free(&report);
    return status;
}

/* What is said and written when nothing runs any more. */
static int finish(struct work *work, int status, struct gapless_error *error)
{
    const struct plan *plan = &work->plan;
    size_t done = count(plan, TRIAL_DONE), failed = count(plan, TRIAL_FAILED);
    struct gapless_error late = {0};
    int code = EXIT_DONE;

    if (status != GAPLESS_OK && status != GAPLESS_STOPPED)
        code = report_error("study", error);
    if (study_csv(plan, work->folder, &late) != GAPLESS_OK)
        code = report_error("study", &late);
    if (status != GAPLESS_OK) {
        report_failure(
            "study",
            "%s with %zu of %zu runs done; the same command goes on from there",
            status == GAPLESS_STOPPED ? "stopped" : "ended", done, plan->trials);
        return status == GAPLESS_STOPPED ? 128 + work->run.signal : code;
    }
    (void)printf("\n%s\n", work->study.title);
    if (make_report(work, &late) != GAPLESS_OK)
        code = report_error("study", &late);
    (void)printf("\n  %zu of %zu run%s done; a row a run: %s/study.csv\n", done,
                 plan->trials, plural(plan->trials), work->folder);
    if (code == EXIT_DONE)
        (void)printf("  the page: %s/report.html\n", work->folder);
    if (failed == 0)
        return code;
    report_failure("study", "%zu run%s failed; the same command runs %s again", failed,
                   plural(failed), failed == 1 ? "it" : "them");
    return EXIT_FAILED;
}

/* Whether, and of how many runs, the warm-up is shorter than usual. */
static void report_warmup(const struct work *work)
{
    struct settings settings;
    size_t runs = 0;

    for (size_t i = 0; i < work->plan.trials; i++)
        runs += plan_settings(&work->plan, &work->plan.trial[i], &settings) &&
                options_warmup_shortened(&settings);
    if (runs == 0 || work->settings.quiet)
        return;
    (void)printf("gapless study: the warm-up is a tenth of the run in %zu of %zu runs; "
                 "warmup = SPAN in [run] chooses another\n",
                 runs, work->plan.trials);
    (void)fflush(stdout);
}

static int execute(struct work *work, struct gapless_error *error)
{
    int status = prepare(work, error);
    size_t done;

    if (status != GAPLESS_OK)
        return report_error("study", error);
    done = count(&work->plan, TRIAL_DONE);
    work->run = (struct study_run){
        .plan = &work->plan,
        .check = &work->check,
        .folder = work->folder,
        .target = work->target,
        .jobs = choose_jobs(work),
        .show = {.terminal = terminal_find(work->settings.no_color),
                 .quiet = work->settings.quiet},
    };
    if (!work->settings.quiet) {
        (void)printf("gapless study: %s, %zu run%s (%zu done), %u at a time, to %s\n",
                     work->study.name, work->plan.trials, plural(work->plan.trials),
                     done, work->run.jobs, work->folder);
        (void)fflush(stdout);
    }
    report_left_out(work);
    report_warmup(work);
    block_signals(&work->run.signals);
    status = study_run(&work->run, error);
    return finish(work, status, error);
}

static int read_all(struct work *work, struct gapless_error *error)
{
    const struct settings *settings = &work->settings;
    const char *out = settings->out;
    int used, status = study_read(settings->operand[0], &work->study, error);

    if (status == GAPLESS_OK)
        status = plan_make(&work->study, &work->plan, error);
    if (status != GAPLESS_OK)
        return status;
    work->target = settings->target > 0.0 ? settings->target : work->study.target;
    used = out != NULL ? snprintf(work->folder, sizeof work->folder, "%s", out)
                       : snprintf(work->folder, sizeof work->folder, "runs/%s",
                                  work->study.name);
    if (used < 0 || used > FOLDER_BYTES_MAX)
        return gapless_error_set(error, GAPLESS_INVALID, 0, "--out is too long");
    return GAPLESS_OK;
}

static int start(struct work *work)
{
    struct gapless_error error = {0};

    if (work->settings.operands != 1) {
        report_failure("study",
                       "give the file of %s, as in 'gapless study FILE.ini'; some are "
                       "in bench/studies",
                       work->settings.operands == 0 ? "a study" : "one study");
        return EXIT_MISUSE;
    }
    if (read_all(work, &error) != GAPLESS_OK)
        return report_error("study", &error);
    if (!work->settings.dry_run)
        return execute(work, &error);
    for (size_t i = 0; i < work->plan.trials; i++)
        trial_look(&work->plan, work->folder, &work->plan.trial[i], work->target);
    return dry_run(work);
}

int cmd_study(int argc, char **argv)
{
    static struct work work;
    int code;

    if (!program_options(FOR_STUDY, argc, argv, &work.settings, &code))
        return code;
    code = start(&work);
    check_close(&work.check);
    plan_close(&work.plan);
    study_close(&work.study);
    run_folder_leave(work.folder, &work.hold);
    return code;
}
