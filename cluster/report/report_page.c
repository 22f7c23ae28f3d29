/* The page as a whole, and the files beside it. */
#include "cluster/report/report_chart.h"

#include "cluster/task/results.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define PAGE_DETAILS 3u /* more charts of workers than that are folded away */

/* ---- the charts of a set ------------------------------------------------- */

static void time_to_target(struct charts *charts, const struct report *report,
                           const struct report_set *set)
{
    charts_time_to_target(charts, set, report_target(report, set));
}

/* In this order, but for the one the study asks for, which comes first. */
static const struct {
    const char *name;
    void (*make)(struct charts *charts, const struct report_set *set);
    void (*make_with)(struct charts *charts, const struct report *report,
                      const struct report_set *set);
} makers[] = {
    {"accuracy-workers", charts_accuracy_workers, NULL},
    {"accuracy-lr", charts_accuracy_lr, NULL},
    {"time-to-target", NULL, time_to_target},
    {"convergence", charts_convergence, NULL},
    {"gap-course", charts_gap_course, NULL},
    {"course", charts_course, NULL},
    {"scale", charts_scale, NULL},
    {"updates-per-second", charts_speed, NULL},
    {"histograms", charts_strips, NULL},
};
#define MAKERS (sizeof makers / sizeof makers[0])

static void make(struct charts *charts, const struct report *report,
                 const struct report_set *set, size_t at)
{
    if (makers[at].make != NULL)
        makers[at].make(charts, set);
    else
        makers[at].make_with(charts, report, set);
}

void charts_make(struct charts *charts, const struct report *report,
                 const struct report_set *set)
{
    size_t first = MAKERS, before = charts->count;
    struct styles styles;

    for (size_t i = 0; i < MAKERS; i++)
        if (set->chart != NULL && strcmp(set->chart, makers[i].name) == 0)
            first = i;
    if (first < MAKERS)
        make(charts, report, set, first);
    for (size_t i = 0; i < MAKERS; i++)
        if (i != first)
            make(charts, report, set, i);
    styles_choose(&styles, charts->arena, set);
    for (size_t i = before; i < charts->count; i++)
        if (charts->chart[i].kind != CHART_STRIPS)
            styles_apply(&styles, &charts->chart[i]);
}

/* ---- parts of the page --------------------------------------------------- */

static void head(struct html *out, const char *title)
{
    html_raw(out, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n"
                  "<meta charset=\"utf-8\">\n<meta name=\"viewport\" "
                  "content=\"width=device-width, initial-scale=1\">\n"
                  "<meta name=\"color-scheme\" content=\"light dark\">\n<title>");
    html_text(out, title);
    html_raw(out, "</title>\n<style>\n");
    for (size_t i = 0; report_style[i] != NULL; i++)
        html_raw(out, report_style[i]);
    html_raw(out, "</style>\n</head>\n<body>\n<header>\n<h1>");
    html_text(out, title);
    html_raw(out, "</h1>\n");
}

static const char *set_title(const struct report_set *set)
{
    return set->title != NULL ? set->title : set->name;
}

static void made(struct html *out)
{
    time_t now = time(NULL);
    char date[64] = "";
    struct tm utc;

    if (gmtime_r(&now, &utc) != NULL)
        (void)strftime(date, sizeof date, "%Y-%m-%d %H:%M UTC", &utc);
    html_format(out, "<p class=\"meta\">Written %s by Gapless %s.</p>\n", date,
                gapless_version());
}

static void complaints(struct html *out, const struct report *report)
{
    if (report->complaints == 0)
        return;
    html_raw(out, "<section class=\"bad\" id=\"unreadable\"><h3>Could not be read</h3>"
                  "<ul>\n");
    for (size_t i = 0; i < report->complaints; i++) {
        html_raw(out, "<li>");
        html_text(out, report->complaint[i]);
        html_raw(out, "</li>\n");
    }
    if (report->complaints_more > 0)
        html_format(out, "<li>and %zu more</li>\n", report->complaints_more);
    html_raw(out, "</ul></section>\n");
}

static bool folded(const struct chart *chart)
{
    return strncmp(chart->id, "workers", 7) == 0;
}

static void link_to(struct html *out, const char *id, const char *text)
{
    html_format(out, "<li><a href=\"#%s\">", id);
    html_text(out, text);
    html_raw(out, "</a></li>\n");
}

static void navigation(struct html *out, const struct report *report,
                       const struct charts *charts)
{
    size_t hidden = 0;
    char id[40];

    html_raw(out, "<nav aria-label=\"Contents\"><ul>\n");
    for (size_t i = 0; i < report->sets && report->sets > 1; i++) {
        (void)snprintf(id, sizeof id, "set-%zu", i + 1);
        link_to(out, id, set_title(&report->set[i]));
    }
    for (size_t i = 0; i < charts->count && report->sets == 1; i++)
        if (!folded(&charts->chart[i]))
            link_to(out, charts->chart[i].id, charts->chart[i].title);
        else if (hidden++ == 0)
            link_to(out, charts->chart[i].id, "Worker by worker");
    if (report->sets == 1) {
        link_to(out, "runs", "All runs");
        link_to(out, "commands", "Commands");
    }
    html_raw(out, "</ul></nav>\n");
}

static void set_charts(struct html *out, const struct charts *charts, size_t first,
                       size_t end)
{
    size_t workers = 0;

    for (size_t i = first; i < end; i++)
        if (!folded(&charts->chart[i]))
            chart_html(out, &charts->chart[i]);
        else
            workers++;
    if (workers > PAGE_DETAILS)
        html_format(out,
                    "<details><summary>Worker by worker: lag and gap of %zu runs"
                    "</summary>\n",
                    workers);
    for (size_t i = first; i < end; i++)
        if (folded(&charts->chart[i]))
            chart_html(out, &charts->chart[i]);
    if (workers > PAGE_DETAILS)
        html_raw(out, "</details>\n");
}

static void about(struct html *out, const struct report_set *set)
{
    if (set->about == NULL)
        return;
    html_raw(out, "<p>");
    html_text(out, set->about);
    html_raw(out, "</p>\n");
}

static void one_set(struct html *out, const struct report *report,
                    const struct charts *charts, size_t at, const size_t *first)
{
    const struct report_set *set = &report->set[at];
    bool table = set->chart != NULL && strcmp(set->chart, "table") == 0;
    char suffix[24] = "";

    if (at > 0)
        (void)snprintf(suffix, sizeof suffix, "-%zu", at + 1);
    if (report->sets > 1) {
        html_format(out, "<h2 id=\"set-%zu\">", at + 1);
        html_text(out, set_title(set));
        html_raw(out, "</h2>\n");
        about(out, set);
        page_facts(out, set);
    }
    if (table)
        page_summary(out, set, suffix);
    set_charts(out, charts, first[at], first[at + 1]);
    if (!table && set->study)
        page_summary(out, set, suffix);
    page_runs(out, set, suffix);
    page_commands(out, set, suffix);
}

static void page(struct html *out, const struct report *report,
                 const struct charts *charts, const size_t *first, const char *title)
{
    head(out, title);
    if (report->sets == 1) {
        about(out, &report->set[0]);
        page_facts(out, &report->set[0]);
    }
    made(out);
    navigation(out, report, charts);
    html_raw(out, "</header>\n<main>\n");
    complaints(out, report);
    for (size_t i = 0; i < report->sets; i++)
        one_set(out, report, charts, i, first);
    html_raw(out, "</main>\n</body>\n</html>\n");
}

/* ---- files --------------------------------------------------------------- */

/* The path of a file beside the page. */
static int beside(const char *page_path, const char *name, char ret[RESULTS_PATH_MAX],
                  struct gapless_error *error)
{
    const char *slash = strrchr(page_path, '/');
    int used =
        snprintf(ret, RESULTS_PATH_MAX, "%.*s%s",
                 slash != NULL ? (int)(slash - page_path) + 1 : 0, page_path, name);

    if (used < 0 || used >= RESULTS_PATH_MAX)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "the path of the page is too long");
    return GAPLESS_OK;
}

/* Writes a whole file and empties the text. */
static int write_file(const char *path, struct html *text, struct gapless_error *error)
{
    int status = text->failed
                     ? gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                         "no memory to write %.300s", path)
                     : results_file(path, text->bytes != NULL ? text->bytes : "",
                                    text->used, error);

    html_free(text);
    return status;
}

/* The same for files that are many and easily made again: not synced to the disk. */
static int write_quickly(const char *path, struct html *text,
                         struct gapless_error *error)
{
    FILE *file = text->failed ? NULL : fopen(path, "we");
    bool good = file != NULL && fwrite(text->bytes, 1, text->used, file) == text->used;

    if (file != NULL && fclose(file) != 0)
        good = false;
    html_free(text);
    return good ? GAPLESS_OK
                : gapless_error_set(error, GAPLESS_IO, errno, "cannot write %.300s",
                                    path);
}

static int write_plot(const char *page_path, const struct chart *chart, bool data,
                      struct gapless_error *error)
{
    char name[160], path[RESULTS_PATH_MAX];
    struct html text = {0};
    int status;

    (void)snprintf(name, sizeof name, "report-plots/%.80s.%s", chart->id,
                   data ? "dat" : "gp");
    status = beside(page_path, name, path, error);
    if (status != GAPLESS_OK)
        return status;
    if (data)
        chart_data(&text, chart);
    else
        chart_gnuplot(&text, chart);
    return write_quickly(path, &text, error);
}

static int write_plots(const struct charts *charts, const char *page_path,
                       struct gapless_error *error)
{
    char folder[RESULTS_PATH_MAX];
    int status = beside(page_path, "report-plots", folder, error);

    if (status == GAPLESS_OK && charts->count > 0)
        status = results_folder(folder, error);
    for (size_t i = 0; i < charts->count && status == GAPLESS_OK; i++) {
        status = write_plot(page_path, &charts->chart[i], true, error);
        if (status == GAPLESS_OK)
            status = write_plot(page_path, &charts->chart[i], false, error);
    }
    return status;
}

int report_page_write(struct report *report, const char *page_path, const char *title,
                      struct gapless_error *error)
{
    struct charts charts = {.arena = &report->arena};
    size_t *first = arena_take(&report->arena, (report->sets + 1) * sizeof *first);
    char csv[RESULTS_PATH_MAX];
    const char *own = title;
    struct html text = {0};
    int status;

    if (own == NULL && report->sets > 1)
        own = arena_format(&report->arena, "%s, and %zu more",
                           set_title(&report->set[0]), report->sets - 1);
    else if (own == NULL)
        own = set_title(&report->set[0]);
    for (size_t i = 0; first != NULL && i < report->sets; i++) {
        first[i] = charts.count;
        charts_make(&charts, report, &report->set[i]);
        first[i + 1] = charts.count;
    }
    if (first != NULL)
        page(&text, report, &charts, first, own);
    if (report->arena.failed) {
        html_free(&text);
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for the page");
    }
    status = beside(page_path, "report.csv", csv, error);
    if (status == GAPLESS_OK)
        status = write_file(page_path, &text, error);
    if (status == GAPLESS_OK) {
        report_csv(report, &text);
        status = write_file(csv, &text, error);
    }
    if (status == GAPLESS_OK)
        status = write_plots(&charts, page_path, error);
    html_free(&text);
    return status;
}
