/* The page as a whole, and report.csv beside it. */
#include "cluster/report/page.h"
#include "cluster/report/charts.h"
#include "cluster/report/tables.h"

#include "cluster/task/results.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

/* ---- facts: only what the runs say, counted here ------------------------- */

static size_t with_status(const struct set *set, enum run_status status)
{
    size_t ret = 0;

    for (size_t i = 0; i < set->runs; i++)
        ret += run_status(set, &set->run[i]) == status ? 1 : 0;
    return ret;
}

#define TITLE_RUNS 4u
#define DIFFERENT_MAX 64
/* The different values of a column, up to DIFFERENT_MAX. */
static size_t different(const struct set *set, const char *column, const char **one)
{
    const char *seen[DIFFERENT_MAX];
    size_t count = 0;

    for (size_t i = 0; i < set->runs && count < DIFFERENT_MAX; i++) {
        const char *field = run_field(set, &set->run[i], column);
        size_t k = 0;

        while (k < count && strcmp(seen[k], field) != 0)
            k++;
        if (k == count && field[0] != '\0')
            seen[count++] = field;
    }
    *one = count > 0 ? seen[0] : "";
    return count;
}

static void facts(FILE *out, const struct set *set)
{
    static const char *const columns[][2] = {{"rule", "rules"},
                                             {"workers", "numbers of workers"},
                                             {"seed", "seeds"},
                                             {"model", "models"},
                                             {"data", "data sets"}};
    static const char *const marks[] = {[RUN_MISSING] = "missing",
                                        [RUN_DIVERGED] = "diverged",
                                        [RUN_STOPPED] = "stopped",
                                        [RUN_FAILED] = "failed"};

    (void)fprintf(out, "<p class=\"fact\">%zu run%s", set->runs,
                  set->runs == 1 ? "" : "s");
    for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++) {
        const char *one;
        size_t count = different(set, columns[i][0], &one);

        if (count > 1)
            (void)fprintf(out, ", %zu%s %s", count, count == DIFFERENT_MAX ? "+" : "",
                          columns[i][1]);
        else if (count == 1) {
            (void)fprintf(out, ", %s ", columns[i][0]);
            html_text(out, one);
        }
    }
    (void)fputs(".", out);
    for (enum run_status i = RUN_MISSING; i <= RUN_FAILED; i++)
        if (i != RUN_DONE && with_status(set, i) > 0)
            (void)fprintf(out, " <b class=\"mark\">%zu %s.</b>", with_status(set, i),
                          marks[i]);
    (void)fputs("</p>\n", out);
}

/* ---- parts --------------------------------------------------------------- */

struct page {
    FILE *out;
    struct report *report;
    const char *title;
    const struct page_assets *assets;
    json_t *charts, *runs;
    size_t *first; /* chart of each set; one more at the end */
};

/* Of plain runs their names, as long as they are few. */
static const char *set_title(struct arena *arena, const struct set *set)
{
    const char *ret;

    if (set->title != NULL || set->study)
        return set->title != NULL ? set->title : set->name;
    ret = set->run[0].field[0];
    for (size_t i = 1; i < set->runs && i < TITLE_RUNS; i++)
        ret = arena_format(arena, "%s, %s", ret, set->run[i].field[0]);
    if (set->runs > TITLE_RUNS)
        ret = arena_format(arena, "%s, and %zu more runs", ret, set->runs - TITLE_RUNS);
    return ret;
}

static void paragraph(FILE *out, const char *class, const char *text)
{
    if (text == NULL || text[0] == '\0')
        return;
    (void)fprintf(out, "<p class=\"%s\">", class);
    html_text(out, text);
    (void)fputs("</p>\n", out);
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *ret = json_string_value(json_object_get(object, key));

    return ret != NULL ? ret : "";
}

static void complaints(FILE *out, const struct report *report)
{
    if (report->complaints == 0)
        return;
    (void)fputs("<section class=\"bad\" id=\"unreadable\"><h2>Could not be read</h2>"
                "<ul>\n",
                out);
    for (size_t i = 0; i < report->complaints; i++) {
        (void)fputs("<li>", out);
        html_text(out, report->complaint[i]);
        (void)fputs("</li>\n", out);
    }
    if (report->complaints_more > 0)
        (void)fprintf(out, "<li>and %zu more</li>\n", report->complaints_more);
    (void)fputs("</ul></section>\n", out);
}

static void link_to(FILE *out, const char *id, const char *text)
{
    (void)fprintf(out, "<li><a href=\"#%s\">", id);
    html_text(out, text);
    (void)fputs("</a></li>\n", out);
}

static void navigation(const struct page *page)
{
    FILE *out = page->out;
    const struct report *report = page->report;
    const json_t *chart;
    size_t i;

    (void)fputs("<nav aria-label=\"Contents\"><ul>\n", out);
    for (i = 0; i < report->sets && report->sets > 1; i++) {
        char id[40];

        (void)snprintf(id, sizeof id, "set-%zu", i + 1);
        link_to(out, id, set_title(&page->report->arena, &report->set[i]));
    }
    if (report->sets == 1) {
        json_array_foreach(page->charts, i, chart)
            link_to(out, text_of(chart, "id"), text_of(chart, "title"));
        link_to(out, "runs", "All runs");
        link_to(out, "commands", "Commands");
    }
    (void)fputs("</ul></nav>\n", out);
}

static void intro(const struct page *page)
{
    FILE *out = page->out;
    time_t now = time(NULL);
    char date[64] = "";
    struct tm utc;

    if (page->report->sets == 1) {
        paragraph(out, "about", page->report->set[0].about);
        facts(out, &page->report->set[0]);
    }
    if (gmtime_r(&now, &utc) != NULL)
        (void)strftime(date, sizeof date, "%Y-%m-%d %H:%M UTC", &utc);
    (void)fprintf(out, "<p class=\"meta\">Written %s by Gapless %s.</p>\n", date,
                  gapless_version());
    if (page->assets->chart_js == NULL)
        (void)fputs("<p class=\"bad\" id=\"no-charts\">Only tables: this program was "
                    "built without Chart.js, which draws the charts. Install it "
                    "(Debian, Ubuntu: <code>apt-get install libjs-chart.js</code>), "
                    "build again, and write the page again.</p>\n",
                    out);
    else
        (void)fputs("<noscript><p class=\"bad\">The charts need JavaScript, which is "
                    "off here. The tables have every number.</p></noscript>\n",
                    out);
    navigation(page);
}

static void chart_section(const struct page *page, size_t at)
{
    FILE *out = page->out;
    const json_t *chart = json_array_get(page->charts, at);
    bool table = strcmp(text_of(chart, "kind"), "table") == 0;
    bool course = strcmp(text_of(chart, "kind"), "course") == 0;

    (void)fprintf(out, "<section class=\"chart\" id=\"%s\"><h2>", text_of(chart, "id"));
    html_text(out, text_of(chart, "title"));
    (void)fputs("</h2>\n", out);
    paragraph(out, "note", text_of(chart, "note"));
    if (!table && page->assets->chart_js != NULL)
        (void)fprintf(out, "<div class=\"plots\" data-chart=\"%zu\"></div>\n", at);
    if (course)
        (void)fputs(
            "<p class=\"note\">The numbers are in <a href=\"#moments\">the runs "
            "over time</a>.</p>\n",
            out);
    else if (!table)
        (void)fprintf(out, "<details class=\"numbers\"%s><summary>Numbers</summary>\n",
                      page->assets->chart_js == NULL ? " open" : "");
    if (!course)
        tables_chart(out, chart);
    (void)fprintf(out, "%s</section>\n", table || course ? "" : "</details>");
}

static void one_set(const struct page *page, size_t at)
{
    const struct set *set = &page->report->set[at];
    FILE *out = page->out;
    char suffix[24] = "";

    if (at > 0)
        (void)snprintf(suffix, sizeof suffix, "-%zu", at + 1);
    if (page->report->sets > 1) {
        (void)fprintf(out, "<h2 class=\"set\" id=\"set-%zu\">", at + 1);
        html_text(out, set_title(&page->report->arena, set));
        (void)fputs("</h2>\n", out);
        paragraph(out, "about", set->about);
        facts(out, set);
    }
    for (size_t i = page->first[at]; i < page->first[at + 1]; i++)
        chart_section(page, i);
    tables_all_runs(out, set, suffix);
    tables_commands(out, set, suffix);
}

/* In strings '<' may be written as an escape, and only in strings it occurs: so nothing
 * in them can end the script element. */
static int write_json(const char *bytes, size_t size, void *out)
{
    for (size_t i = 0; i < size; i++)
        if (bytes[i] == '<')
            (void)fputs("\\u003c", out);
        else
            (void)fputc(bytes[i], out);
    return ferror((FILE *)out) ? -1 : 0;
}

static void data(const struct page *page)
{
    json_t *all = json_pack("{s:s, s:O, s:O}", "title",
                            text_utf8(&page->report->arena, page->title), "charts",
                            page->charts, "runs", page->runs);

    if (all == NULL || json_dump_callback(all, write_json, page->out,
                                          JSON_COMPACT | JSON_REAL_PRECISION(9)) != 0)
        page->report->arena.failed = true;
    json_decref(all);
}

/* ---- the template -------------------------------------------------------- */

static void part(const struct page *page, const char *name, size_t bytes)
{
    const struct page_assets *assets = page->assets;
    const struct {
        const char *name, *text;
    } texts[] = {{"style", assets->css},
                 {"script", assets->chart_js != NULL ? assets->js : ""},
                 {"chart.js", assets->chart_js != NULL ? assets->chart_js : ""}};

    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        if (strlen(texts[i].name) == bytes && memcmp(name, texts[i].name, bytes) == 0)
            (void)fputs(texts[i].text, page->out);
    if (bytes == 5 && memcmp(name, "title", 5) == 0)
        html_text(page->out, page->title);
    else if (bytes == 5 && memcmp(name, "intro", 5) == 0)
        intro(page);
    else if (bytes == 4 && memcmp(name, "data", 4) == 0)
        data(page);
    else if (bytes == 4 && memcmp(name, "main", 4) == 0) {
        complaints(page->out, page->report);
        for (size_t i = 0; i < page->report->sets; i++)
            one_set(page, i);
        tables_runs(page->out, page->runs);
    }
}

void page_write(FILE *out, struct report *report, const char *title,
                const struct page_assets *assets)
{
    struct arena *arena = &report->arena;
    struct page page = {out, report, title, assets, NULL, NULL, NULL};
    const char *at = assets->html, *open, *close;

    page.first = arena_take(arena, (report->sets + 1) * sizeof *page.first);
    if (page.first == NULL)
        return;
    page.charts = json_array();
    page.runs = json_array();
    for (size_t i = 0; i < report->sets; i++) {
        page.first[i] = json_array_size(page.charts);
        charts_make(report, &report->set[i], page.charts, page.runs);
        page.first[i + 1] = json_array_size(page.charts);
    }
    if (page.title == NULL)
        page.title = report->sets > 1 ? arena_format(arena, "%s, and %zu more",
                                                     set_title(arena, &report->set[0]),
                                                     report->sets - 1)
                                      : set_title(arena, &report->set[0]);
    while (!arena->failed && (open = strstr(at, "{{")) != NULL &&
           (close = strstr(open, "}}")) != NULL) {
        (void)fwrite(at, 1, (size_t)(open - at), out);
        part(&page, open + 2, (size_t)(close - open) - 2);
        at = close + 2;
    }
    (void)fputs(at, out);
    json_decref(page.charts);
    json_decref(page.runs);
}

/* ---- files --------------------------------------------------------------- */

static bool is_page(const char *path)
{
    const char *dot = strrchr(path, '.');

    return dot != NULL && (strcmp(dot, ".html") == 0 || strcmp(dot, ".htm") == 0);
}

/* PATH with its last part replaced. */
static int beside(const char *path, const char *name, char *ret, size_t max,
                  struct gapless_error *error)
{
    const char *slash = strrchr(path, '/');
    int used = snprintf(ret, max, "%.*s%s", slash != NULL ? (int)(slash - path) + 1 : 0,
                        path, name);

    if (used < 0 || (size_t)used >= max)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "the path of the page is too long");
    return GAPLESS_OK;
}

int report_out_path(const char *first, const char *out, char *ret, size_t max,
                    struct gapless_error *error)
{
    const char *folder = out != NULL ? out : first;
    size_t bytes = strlen(folder);
    char parent[RESULTS_PATH_MAX];
    struct stat info;
    int used, status = GAPLESS_OK;

    if (out != NULL && (stat(out, &info) == 0 ? !S_ISDIR(info.st_mode) : is_page(out)))
        used = snprintf(ret, max, "%s", out);
    else
        used = snprintf(ret, max, "%s%sreport.html", folder,
                        bytes > 0 && folder[bytes - 1] == '/' ? "" : "/");
    if (used < 0 || (size_t)used >= max)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "the path of the page is too long");
    if (out != NULL)
        status = beside(ret, "", parent, sizeof parent, error);
    if (out == NULL || status != GAPLESS_OK || parent[0] == '\0')
        return status;
    bytes = strlen(parent);
    if (bytes > 1) /* not its last slash, but that of the root */
        parent[bytes - 1] = '\0';
    return results_folder(parent, error);
}

static int no_memory(struct gapless_error *error)
{
    return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for the page");
}

void report_print(struct report *report, const char *title, FILE *out)
{
    page_write(out, report, title, &page_assets);
}

int report_page(struct report *report, const char *path, const char *title,
                struct gapless_error *error)
{
    char csv[RESULTS_PATH_MAX], *text[2] = {NULL, NULL};
    size_t bytes[2] = {0, 0};
    int status = beside(path, "report.csv", csv, sizeof csv, error);

    for (int i = 0; i < 2 && status == GAPLESS_OK; i++) {
        FILE *out = open_memstream(&text[i], &bytes[i]);
        bool good = out != NULL;

        if (out != NULL && i == 0)
            page_write(out, report, title, &page_assets);
        else if (out != NULL)
            report_csv(report, out);
        good = good && ferror(out) == 0;
        if ((out != NULL && fclose(out) != 0) || !good || report->arena.failed)
            status = no_memory(error);
        else
            status = results_file(i == 0 ? path : csv, text[i], bytes[i], error);
    }
    free(text[0]);
    free(text[1]);
    return status;
}
