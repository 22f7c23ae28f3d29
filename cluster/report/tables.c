/* Tables: of charts, of courses, of all runs; the commands; CSV; and on a terminal.
 *
 *     rule \ workers       8       32
 *     nag-asgd         88.1*       10 to 61
 *     dana-ga          88.0      86.9*
 */
#include "cluster/report/tables.h"
#include "cluster/report/charts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define ROWS_OPEN 40u  /* a longer table of runs starts folded */
#define ROWS_MAX 5000u /* of the page; the CSV has all */
#define COMMANDS_MAX 2000u
#define ACROSS_MAX 16u /* columns; more are rows */

static const char *text_of(const json_t *object, const char *key)
{
    const char *ret = json_string_value(json_object_get(object, key));

    return ret != NULL ? ret : "";
}

static double number_of(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);

    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

/* ---- a panel as a grid of lines and x ------------------------------------ */

struct grid {
    const json_t *panel, *lines;
    double *x; /* in ascending order */
    size_t count;
};

static int by_value(const void *a, const void *b)
{
    double one = *(const double *)a, other = *(const double *)b;

    return (one > other) - (one < other);
}

/* Free x. */
static struct grid grid_of(const json_t *panel)
{
    struct grid ret = {panel, json_object_get(panel, "lines"), NULL, 0};
    const json_t *line, *point, *columns = json_object_get(panel, "columns");
    size_t all = json_array_size(columns), l, k;

    json_array_foreach(ret.lines, l, line) all +=
        json_array_size(json_object_get(line, "points"));
    ret.x = calloc(all + 1, sizeof *ret.x);
    if (ret.x == NULL)
        return ret;
    json_array_foreach(columns, k, point) ret.x[ret.count++] = number_of(point, "x");
    json_array_foreach(ret.lines, l, line) json_array_foreach(
        json_object_get(line, "points"), k, point) if (columns == NULL)
        ret.x[ret.count++] = number_of(point, "x");
    qsort(ret.x, ret.count, sizeof *ret.x, by_value);
    all = ret.count;
    ret.count = 0;
    for (k = 0; k < all; k++)
        if (k == 0 || ret.x[k] > ret.x[k - 1])
            ret.x[ret.count++] = ret.x[k];
    return ret;
}

/* NULL: the line has no such point. */
static const json_t *point_at(const json_t *line, double x)
{
    const json_t *point;
    size_t k;

    json_array_foreach(json_object_get(line, "points"), k,
                       point) if (!(number_of(point, "x") < x) &&
                                  !(number_of(point, "x") > x)) return point;
    return NULL;
}

/* What stands over a column. */
static void column_words(const struct grid *grid, size_t at, char *ret, size_t max)
{
    const json_t *columns = json_object_get(grid->panel, "columns");
    const json_t *column = json_array_get(columns, at);

    if (column != NULL)
        (void)snprintf(ret, max, "%s%s", text_of(column, "label"),
                       json_is_true(json_object_get(column, "percent")) ? " %" : "");
    else
        (void)snprintf(ret, max, "%.6g", grid->x[at]);
}

static const char *line_name(const json_t *line)
{
    return json_object_get(line, "label") != NULL ? text_of(line, "label")
                                                  : text_of(line, "name");
}

/* ---- charts in HTML ------------------------------------------------------ */

static void cell(FILE *out, const json_t *point)
{
    const char *state = text_of(point, "state");

    if (point == NULL) {
        (void)fputs("<td></td>", out);
        return;
    }
    (void)fprintf(out, strcmp(state, "mean") == 0 ? "<td>" : "<td class=\"mark\">");
    html_text(out, text_of(point, "text"));
    if (text_of(point, "note")[0] != '\0') {
        (void)fputs(" <small>", out);
        html_text(out, text_of(point, "note"));
        (void)fputs("</small>", out);
    }
    (void)fputs("</td>", out);
}

/* `mark`: behind it, why none of its numbers counts; "" where they do. */
static void marked_cell(FILE *out, const char *text, const char *mark, bool row)
{
    (void)fprintf(out, "<th scope=\"%s\">", row ? "row" : "col");
    html_text(out, text);
    if (mark[0] != '\0')
        (void)fprintf(out, " <b class=\"mark\">%s</b>", mark);
    (void)fputs("</th>", out);
}

static void head_cell(FILE *out, const char *text, bool row)
{
    marked_cell(out, text, "", row);
}

static void line_cell(FILE *out, const json_t *line, bool row)
{
    marked_cell(out, line_name(line), text_of(line, "mark"), row);
}

static void panel_rows(FILE *out, const struct grid *grid)
{
    size_t columns = json_array_size(json_object_get(grid->panel, "columns"));
    bool across = grid->count <= ACROSS_MAX || columns > 0;
    size_t rows = across ? json_array_size(grid->lines) : grid->count;
    size_t cells = across ? grid->count : json_array_size(grid->lines);
    char words[120];

    (void)fputs("<thead><tr>", out);
    head_cell(out, across ? "" : text_of(json_object_get(grid->panel, "x"), "label"),
              false);
    for (size_t i = 0; i < cells; i++) {
        column_words(grid, i < grid->count ? i : 0, words, sizeof words);
        if (across && text_of(json_object_get(grid->panel, "x"), "label")[0] == '\0' &&
            columns == 0)
            head_cell(out, text_of(json_object_get(grid->panel, "y"), "label"), false);
        else if (across)
            head_cell(out, words, false);
        else
            line_cell(out, json_array_get(grid->lines, i), false);
    }
    (void)fputs("</tr></thead><tbody>\n", out);
    for (size_t i = 0; i < rows; i++) {
        column_words(grid, i < grid->count ? i : 0, words, sizeof words);
        (void)fputs("<tr>", out);
        if (across)
            line_cell(out, json_array_get(grid->lines, i), true);
        else
            head_cell(out, words, true);
        for (size_t k = 0; k < cells; k++)
            cell(out, point_at(json_array_get(grid->lines, across ? i : k),
                               grid->x[across ? k : i]));
        (void)fputs("</tr>\n", out);
    }
    (void)fputs("</tbody>", out);
}

void tables_chart(FILE *out, const json_t *chart)
{
    const json_t *panel;
    size_t p;

    json_array_foreach(json_object_get(chart, "panels"), p, panel)
    {
        const json_t *x = json_object_get(panel, "x"), *y = json_object_get(panel, "y");
        struct grid grid = grid_of(panel);

        if (grid.x == NULL)
            continue;
        (void)fputs("<div class=\"tw\"><table class=\"data\"><caption>", out);
        html_text(out, text_of(panel, "title"));
        if (text_of(y, "label")[0] != '\0')
            (void)fprintf(
                out, "%s%s%s%s", text_of(panel, "title")[0] != '\0' ? ": " : "",
                text_of(y, "label"), text_of(x, "label")[0] != '\0' ? " by " : "",
                text_of(x, "label"));
        (void)fputs("</caption>\n", out);
        panel_rows(out, &grid);
        (void)fputs("</table></div>\n", out);
        free(grid.x);
    }
}

/* ---- courses ------------------------------------------------------------- */

static void run_table(FILE *out, const json_t *run)
{
    const json_t *columns = json_object_get(run, "columns");
    size_t rows = 0;

    (void)fputs("<details><summary>", out);
    html_text(out, text_of(run, "name"));
    if (text_of(run, "place")[0] != '\0') {
        (void)fputs(", ", out);
        html_text(out, text_of(run, "place"));
    }
    if (strcmp(text_of(run, "status"), "done") != 0)
        (void)fprintf(out, " <b class=\"mark\">%s</b>", text_of(run, "status"));
    if (strcmp(text_of(run, "cell"), text_of(run, "name")) != 0) {
        (void)fputs(" <small>", out);
        html_text(out, text_of(run, "cell"));
        (void)fputs("</small>", out);
    }
    (void)fputs("</summary>\n<div class=\"tw\"><table class=\"course\"><thead><tr>",
                out);
    for (enum quantity q = AT_SECONDS; q < QUANTITIES; q++) {
        const json_t *column = json_object_get(columns, quantities[q].name);

        if (column == NULL)
            continue;
        rows = json_array_size(column) > rows ? json_array_size(column) : rows;
        head_cell(out, quantities[q].name, false);
    }
    (void)fputs("</tr></thead><tbody>\n", out);
    for (size_t i = 0; i < rows; i++) {
        (void)fputs("<tr>", out);
        for (enum quantity q = AT_SECONDS; q < QUANTITIES; q++) {
            const json_t *column = json_object_get(columns, quantities[q].name);
            const json_t *value = json_array_get(column, i);

            if (json_is_number(value))
                (void)fprintf(out, "<td>%.9g</td>", json_number_value(value));
            else if (column != NULL)
                (void)fputs("<td></td>", out);
        }
        (void)fputs("</tr>\n", out);
    }
    (void)fputs("</tbody></table></div></details>\n", out);
}

void tables_runs(FILE *out, const json_t *runs)
{
    const json_t *run;
    size_t i;

    if (json_array_size(runs) == 0)
        return;
    (void)fputs("<section id=\"moments\"><h2>The runs over time</h2>\n", out);
    json_array_foreach(runs, i, run) run_table(out, run);
    (void)fputs("</section>\n", out);
}

/* ---- every run ----------------------------------------------------------- */

/* A column of texts reads better from the left. */
static bool is_text(const struct set *set, size_t column)
{
    for (size_t i = 0; i < set->runs; i++)
        if (set->run[i].field[column] != NULL)
            return !isfinite(text_number(set->run[i].field[column]));
    return false;
}

static void run_row(FILE *out, const struct set *set, const struct run *run,
                    const bool *text)
{
    enum run_status status = run_status(set, run);

    (void)fputs(status == RUN_DONE ? "<tr>" : "<tr class=\"out\">", out);
    for (size_t c = 0; c < set->columns; c++) {
        (void)fputs(c == 0    ? "<th scope=\"row\">"
                    : text[c] ? "<td class=\"t\">"
                              : "<td>",
                    out);
        html_text(out, run->field[c] != NULL ? run->field[c] : "");
        (void)fputs(c == 0 ? "</th>" : "</td>", out);
    }
    (void)fputs("</tr>\n", out);
}

void tables_all_runs(FILE *out, const struct set *set, const char *suffix)
{
    bool *text = calloc(set->columns + 1, sizeof *text);

    (void)fprintf(out,
                  "<section id=\"runs%s\"><h2>All runs</h2>\n<details%s><summary>%zu "
                  "run%s, the columns of report.csv</summary>\n<div class=\"tw\">"
                  "<table class=\"runs\"><thead><tr>",
                  suffix, set->runs <= ROWS_OPEN ? " open" : "", set->runs,
                  set->runs == 1 ? "" : "s");
    for (size_t c = 0; text != NULL && c < set->columns; c++) {
        text[c] = is_text(set, c);
        (void)fputs(text[c] ? "<th scope=\"col\" class=\"t\">" : "<th scope=\"col\">",
                    out);
        html_text(out, set->column[c]);
        (void)fputs("</th>", out);
    }
    (void)fputs("</tr></thead><tbody>\n", out);
    for (size_t i = 0; text != NULL && i < set->runs && i < ROWS_MAX; i++)
        run_row(out, set, &set->run[i], text);
    (void)fputs("</tbody></table></div>", out);
    if (set->runs > ROWS_MAX)
        (void)fprintf(out, "<p class=\"note\">The first %u; report.csv has all.</p>",
                      ROWS_MAX);
    (void)fputs("</details></section>\n", out);
    free(text);
}

/* ---- commands ------------------------------------------------------------ */

/* The different texts of all runs, in one line: hosts, versions. */
static void different(FILE *out, const struct set *set, bool host)
{
    const char *seen[8];
    size_t count = 0;

    for (size_t i = 0; i < set->runs && count < 8; i++) {
        const char *text = host ? set->run[i].host : set->run[i].version;
        bool known = text == NULL;

        for (size_t k = 0; k < count && !known; k++)
            known = strcmp(seen[k], text) == 0;
        if (known)
            continue;
        (void)fputs(count > 0 ? ", " : host ? " Host: " : " Gapless ", out);
        html_text(out, text);
        seen[count++] = text;
    }
    if (count > 0)
        (void)fputs(".", out);
}

static const char *started(const struct set *set, bool last)
{
    const char *ret = NULL;

    for (size_t i = 0; i < set->runs; i++) {
        const char *own = set->run[i].started;

        if (own != NULL &&
            (ret == NULL || (last ? strcmp(own, ret) > 0 : strcmp(own, ret) < 0)))
            ret = own;
    }
    return ret;
}

static void run_commands(FILE *out, const struct set *set)
{
    size_t count = 0;

    for (size_t i = 0; i < set->runs; i++)
        count += set->run[i].command != NULL ? 1 : 0;
    if (count == 0)
        return;
    (void)fprintf(out,
                  "<details%s><summary>The command of each run</summary>"
                  "<pre class=\"commands\">",
                  count <= 4 ? " open" : "");
    for (size_t i = 0, done = 0; i < set->runs && done < COMMANDS_MAX; i++) {
        if (set->run[i].command == NULL)
            continue;
        html_text(out, set->run[i].command);
        (void)fputs("\n", out);
        done++;
    }
    (void)fputs("</pre></details>\n", out);
}

void tables_commands(FILE *out, const struct set *set, const char *suffix)
{
    const char *first = started(set, false), *last = started(set, true);

    (void)fprintf(out, "<section id=\"commands%s\"><h2>How to repeat it</h2>\n",
                  suffix);
    if (set->study) {
        (void)fputs("<pre>gapless study ", out);
        html_text(out, set->folder);
        (void)fputs("/study.ini --out ", out);
        html_text(out, set->folder);
        (void)fputs("</pre>\n", out);
    }
    run_commands(out, set);
    if (set->ini != NULL) {
        (void)fputs("<details><summary>study.ini</summary><pre class=\"ini\">", out);
        html_text(out, set->ini);
        (void)fputs("</pre></details>\n", out);
    }
    (void)fputs("<p class=\"meta\">", out);
    different(out, set, false);
    different(out, set, true);
    if (first != NULL) {
        (void)fputs(" Started ", out);
        html_text(out, first);
        if (strcmp(first, last) != 0) {
            (void)fputs(" to ", out);
            html_text(out, last);
        }
        (void)fputs(".", out);
    }
    (void)fputs("</p></section>\n", out);
}

/* ---- CSV ----------------------------------------------------------------- */

static void names_add(struct arena *arena, struct names *names, const char *name)
{
    const char **grown;

    for (size_t i = 0; i < names->count; i++)
        if (strcmp(names->name[i], name) == 0)
            return;
    grown = arena_grow(arena, names->name, names->count, sizeof *grown);
    if (grown == NULL)
        return;
    names->name = grown;
    names->name[names->count++] = name;
}

/* The columns of all sets before the results, then the results: several
 * studies need not have the same options. */
static struct names names_all(const struct report *report, struct arena *arena)
{
    struct names ret = {NULL, 0};

    for (int results = 0; results < 2; results++)
        for (size_t i = 0; i < report->sets; i++) {
            const struct set *set = &report->set[i];

            for (size_t c = results ? set->results : 0;
                 c < (results ? set->columns : set->results); c++)
                names_add(arena, &ret, set->column[c]);
        }
    return ret;
}

void report_csv(const struct report *report, FILE *out)
{
    struct arena arena = {0};
    const struct set *one = &report->set[0];
    bool several = report->sets > 1; /* otherwise the columns as they are */
    struct names names =
        several ? names_all(report, &arena) : (struct names){one->column, one->columns};

    for (size_t c = 0; c < names.count; c++) {
        csv_text(out, names.name[c]);
        (void)fputs(c + 1 < names.count ? "," : "\n", out);
    }
    for (size_t i = 0; i < report->sets; i++) {
        const struct set *set = &report->set[i];

        for (size_t r = 0; r < set->runs; r++)
            for (size_t c = 0; c < names.count; c++) {
                const char *field = several
                                        ? run_field(set, &set->run[r], names.name[c])
                                        : set->run[r].field[c];

                if (c == 0 && several && set->study)
                    field = arena_format(&arena, "%s/%s", set->name, field);
                csv_text(out, field);
                (void)fputs(c + 1 < names.count ? "," : "\n", out);
            }
    }
    arena_free(&arena);
}

/* ---- on a terminal ------------------------------------------------------- */

#define TERMINAL_COLUMNS 10u
#define TERMINAL_NAME_MIN 18u
#define TERMINAL_NAME_MAX 48u
#define TERMINAL_TABLES 16u

/* A point in few letters: of shares, percent with one digit. */
static void short_words(const json_t *point, bool percent, char ret[32])
{
    const char *state = text_of(point, "state");
    double scale = percent ? 100 : 1, y = number_of(point, "y");
    double low = scale * number_of(point, "low"),
           high = scale * number_of(point, "high");

    if (point == NULL)
        (void)snprintf(ret, 32, "-");
    else if (isfinite(y))
        (void)snprintf(ret, 32, percent ? "%.1f" : "%.4g", scale * y);
    else if (strcmp(state, "range") == 0 && percent && high - low < 0.5)
        (void)snprintf(ret, 32, "%.0f", low);
    else if (strcmp(state, "range") == 0)
        (void)snprintf(ret, 32, percent ? "%.0f to %.0f" : "%.3g to %.3g", low, high);
    else
        (void)snprintf(ret, 32, "%.12s", state);
}

/* Of a table of measures those that a terminal has room for. */
static bool is_printed(const struct grid *grid, size_t at)
{
    const json_t *columns = json_object_get(grid->panel, "columns");

    return columns == NULL ||
           json_is_true(json_object_get(json_array_get(columns, at), "brief"));
}

/* Is none of the column better, as it is printed? */
static bool is_best(const struct grid *grid, const json_t *own, double x, bool percent,
                    int better)
{
    const json_t *line;
    char mine[32], other[32];
    size_t l;

    if (better == 0 || !isfinite(number_of(own, "y")) ||
        json_array_size(grid->lines) < 2)
        return false;
    short_words(own, percent, mine);
    json_array_foreach(grid->lines, l, line)
    {
        const json_t *point = point_at(line, x);

        if (better * number_of(point, "y") > better * number_of(own, "y")) {
            short_words(point, percent, other);
            if (strcmp(mine, other) != 0)
                return false;
        }
    }
    return true;
}

/* The width that the names of the rows need. */
static int name_columns(const struct grid *grid)
{
    size_t columns = TERMINAL_NAME_MIN, l;
    const json_t *line;

    json_array_foreach(grid->lines, l, line)
    {
        size_t own = strlen(text_of(line, "name"));

        columns = own > columns ? own : columns;
    }
    return (int)(columns < TERMINAL_NAME_MAX ? columns : TERMINAL_NAME_MAX);
}

static void print_row(FILE *out, const struct grid *grid, const json_t *line,
                      size_t columns, bool color)
{
    int width = name_columns(grid);
    const json_t *column = json_object_get(grid->panel, "columns");
    const json_t *y = json_object_get(grid->panel, "y");

    (void)fprintf(out, "  %-*.*s", width, width, text_of(line, "name"));
    for (size_t i = 0; i < columns; i++) {
        const json_t *point = point_at(line, grid->x[i]);
        const json_t *of = column != NULL ? json_array_get(column, i) : y;
        bool percent = json_is_true(json_object_get(of, "percent")), best;
        char words[32];

        if (!is_printed(grid, i))
            continue;
        short_words(point, percent, words);
        best = is_best(grid, point, grid->x[i], percent,
                       (int)json_integer_value(json_object_get(of, "better")));
        (void)fprintf(out, "%s%12s%s%s", best && color ? "\033[1;32m" : "", words,
                      best ? "*" : " ", best && color ? "\033[0m" : "");
    }
    (void)fputc('\n', out);
}

static void print_panel(FILE *out, const json_t *chart, const json_t *panel, bool color)
{
    const json_t *x = json_object_get(panel, "x"), *line;
    struct grid grid = grid_of(panel);
    size_t columns = grid.count < TERMINAL_COLUMNS ? grid.count : TERMINAL_COLUMNS, l;
    char words[64];

    if (grid.x == NULL)
        return;
    (void)fprintf(
        out, "\n  %s%s%s%s\n", text_of(chart, "title"),
        text_of(panel, "title")[0] != '\0' ? ": " : "", text_of(panel, "title"),
        json_is_true(json_object_get(json_object_get(panel, "y"), "percent")) ? ", %"
                                                                              : "");
    (void)snprintf(words, sizeof words, "rule%s%s",
                   text_of(x, "label")[0] != '\0' ? " \\ " : "", text_of(x, "label"));
    (void)fprintf(out, "  %-*s", name_columns(&grid), words);
    for (size_t i = 0; i < columns; i++) {
        column_words(&grid, i, words, sizeof words);
        if (is_printed(&grid, i))
            (void)fprintf(out, "%12.12s ", words);
    }
    (void)fputc('\n', out);
    json_array_foreach(grid.lines, l, line) print_row(out, &grid, line, columns, color);
    if (columns < grid.count)
        (void)fprintf(out, "  (more columns in the page)\n");
    free(grid.x);
}

/* How lag and gap are spread is no answer to what came of a study. */
static bool is_table_here(const json_t *chart)
{
    const char *kind = text_of(chart, "kind"), *id = text_of(chart, "id");

    if (strcmp(kind, "table") == 0)
        return true;
    return strcmp(kind, "lines") == 0 && strcmp(id, "histograms") != 0 &&
           strcmp(id, "workers") != 0;
}

void report_tables(struct report *report, bool color, FILE *out)
{
    json_t *charts = json_array(), *runs = json_array(), *panel, *chart;
    size_t p;

    if (report->sets > 0)
        charts_make(report, &report->set[0], charts, runs);
    chart = json_array_get(charts, 0);
    for (size_t i = 1; i < json_array_size(charts) && !is_table_here(chart); i++)
        chart = json_array_get(charts, i); /* at last the means */
    json_array_foreach(json_object_get(chart, "panels"), p,
                       panel) if (p < TERMINAL_TABLES)
        print_panel(out, chart, panel, color);
    if (json_array_size(json_object_get(chart, "panels")) > TERMINAL_TABLES)
        (void)fprintf(out, "\n  (more tables in the page)\n");
    json_decref(charts);
    json_decref(runs);
}
