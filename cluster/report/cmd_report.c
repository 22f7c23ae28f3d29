/* gapless report: a page about runs and studies, or their numbers as CSV. */
#include "cluster/options/options.h"
#include "cluster/program/program_options.h"
#include "cluster/report/report.h"
#include "cluster/task/results.h"

#include <stdio.h>
#include <string.h>

#define SAID_MAX 10u /* files that cannot be read are named here; the page has all */

static void say_complaints(const struct report *report)
{
    size_t all = report->complaints + report->complaints_more;

    for (size_t i = 0; i < report->complaints && i < SAID_MAX; i++)
        report_failure("report", "left out: %s", report->complaint[i]);
    if (all > SAID_MAX)
        report_failure("report", "and %zu more files that could not be read",
                       all - SAID_MAX);
}

static int print_csv(const struct report *report)
{
    report_csv(report, stdout);
    return EXIT_DONE;
}

static int make_page(struct report *report, const struct settings *settings,
                     const char *first)
{
    struct gapless_error error = {0};
    char path[RESULTS_PATH_MAX];

    if (settings->out != NULL && strcmp(settings->out, "-") == 0) {
        report_print(report, settings->title, stdout);
        return EXIT_DONE;
    }
    if (report_out_path(first, settings->out, path, sizeof path, &error) !=
            GAPLESS_OK ||
        report_page(report, path, settings->title, &error) != GAPLESS_OK)
        return report_error("report", &error);
    if (!settings->quiet)
        (void)printf("%s: %zu run%s\n", path, report_runs(report),
                     report_runs(report) == 1 ? "" : "s");
    return EXIT_DONE;
}

int cmd_report(int argc, char **argv)
{
    struct gapless_error error = {0};
    struct settings settings;
    struct report report = {0};
    int code;

    if (!program_options(FOR_REPORT, argc, argv, &settings, &code))
        return code;
    if (settings.operands < 1) {
        report_failure("report", "name the folder of a run or a study, as in "
                                 "'gapless report runs/NAME'");
        return EXIT_MISUSE;
    }
    report.target = settings.target;
    if (report_load(&report, (const char *const *)settings.operand,
                    (size_t)settings.operands, &error) != GAPLESS_OK) {
        say_complaints(&report);
        report_free(&report);
        return report_error("report", &error);
    }
    say_complaints(&report);
    code = settings.csv ? print_csv(&report)
                        : make_page(&report, &settings, settings.operand[0]);
    report_free(&report);
    return code;
}
