/* A chart on the page: its panels as pictures, then the same numbers as tables. */
#include "cluster/report/report_chart.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MATRIX_MAX 16 /* different x that still make columns */
#define GREY_NAMED_MAX 40

static const char *shown(const struct chart_line *line)
{
    return line->label != NULL ? line->label : line->name;
}

/* ---- pictures ------------------------------------------------------------ */

static const char *panel_title(const struct chart *chart,
                               const struct chart_panel *panel)
{
    if (panel->title[0] != '\0')
        return panel->title;
    return chart->kind == CHART_LINES && panel->y.label != NULL ? panel->y.label
                                                                : chart->title;
}

static void draw_strips(struct html *out, const struct chart *chart,
                        const struct chart_panel *panel, const char *id,
                        struct svg_strip *strip)
{
    struct svg_strips strips = {.id = id,
                                .title = panel_title(chart, panel),
                                .label = panel->x.label,
                                .width = 540,
                                .edge = panel->edge,
                                .strip = strip,
                                .strips = panel->lines,
                                .first = SVG_BINS,
                                .last = 0};

    for (size_t i = 0; i < panel->lines; i++) {
        strip[i] = (struct svg_strip){shown(&panel->line[i]), panel->line[i].count};
        for (size_t b = 0; b < SVG_BINS; b++) {
            if (!(strip[i].count[b] > 0))
                continue;
            strips.first = b < strips.first ? b : strips.first;
            strips.last = b > strips.last ? b : strips.last;
        }
    }
    if (strips.first > strips.last)
        strips.first = 0;
    svg_strips(out, &strips);
}

static void draw_lines(struct html *out, const struct chart *chart,
                       const struct chart_panel *panel, const char *id,
                       struct svg_line *line)
{
    struct svg_panel svg = {.id = id,
                            .title = panel_title(chart, panel),
                            .width = chart->small ? 400 : 560,
                            .height = chart->small ? 270 : 350,
                            .x = panel->x,
                            .y = panel->y,
                            .line = line,
                            .lines = panel->lines};

    if (chart->panels == 1)
        svg.width = 720;
    for (size_t i = 0; i < panel->lines; i++)
        line[i] = (struct svg_line){shown(&panel->line[i]), panel->line[i].style,
                                    panel->line[i].point, panel->line[i].points};
    if (chart->kind == CHART_DOTS)
        svg_dots(out, &svg);
    else
        svg_lines(out, &svg);
}

static void draw_panel(struct html *out, const struct chart *chart, size_t at)
{
    const struct chart_panel *panel = &chart->panel[at];
    struct report_arena arena = {0};
    char id[96];

    (void)snprintf(id, sizeof id, "%.60s-p%zu", chart->id, at + 1);
    if (chart->kind == CHART_STRIPS) {
        struct svg_strip *strip =
            arena_take(&arena, (panel->lines + 1) * sizeof *strip);

        if (strip != NULL)
            draw_strips(out, chart, panel, id, strip);
    } else {
        struct svg_line *line = arena_take(&arena, (panel->lines + 1) * sizeof *line);

        if (line != NULL)
            draw_lines(out, chart, panel, id, line);
    }
    if (arena.failed)
        out->failed = true;
    arena_free(&arena);
}

/* ---- tables -------------------------------------------------------------- */

/* The different x of a panel, sorted; MATRIX_MAX + 1: too many. */
static size_t find_columns(const struct chart_panel *panel, double ret[MATRIX_MAX])
{
    size_t count = 0;

    for (size_t i = 0; i < panel->lines; i++)
        for (size_t k = 0; k < panel->line[i].points; k++) {
            double x = panel->line[i].point[k].x;
            size_t at = 0;

            while (at < count && ret[at] < x)
                at++;
            if (at < count && !(ret[at] > x))
                continue;
            if (count == MATRIX_MAX)
                return MATRIX_MAX + 1;
            memmove(ret + at + 1, ret + at, (count - at) * sizeof *ret);
            ret[at] = x;
            count++;
        }
    return count;
}

static void cell(struct html *out, const struct svg_point *point)
{
    if (point == NULL || !isfinite(point->y)) {
        html_raw(out, "<td></td>");
        return;
    }
    html_format(out, "<td>%.6g", point->y);
    if (point->count > 1 && point->high > point->low)
        html_format(out, "<br><small>%.6g to %.6g</small>", point->low, point->high);
    if (point->note != NULL) {
        html_raw(out, "<br><small>");
        html_text(out, point->note);
        html_raw(out, "</small>");
    }
    html_raw(out, "</td>");
}

static void row_head(struct html *out, const struct chart_line *line)
{
    html_raw(out, "<tr><th scope=\"row\">");
    html_text(out, shown(line));
    html_raw(out, "</th>");
}

static void matrix(struct html *out, const struct chart_panel *panel, const double *x,
                   size_t columns)
{
    html_raw(out, "<thead><tr><th scope=\"col\">");
    html_text(out, panel->x.label);
    html_raw(out, "</th>");
    for (size_t c = 0; c < columns; c++)
        html_format(out, "<th scope=\"col\">%.6g</th>", x[c]);
    html_raw(out, "</tr></thead><tbody>\n");
    for (size_t i = 0; i < panel->lines; i++) {
        const struct chart_line *line = &panel->line[i];

        row_head(out, line);
        for (size_t c = 0; c < columns; c++) {
            const struct svg_point *found = NULL;

            for (size_t k = 0; k < line->points && found == NULL; k++)
                if (!(line->point[k].x < x[c]) && !(line->point[k].x > x[c]))
                    found = &line->point[k];
            cell(out, found);
        }
        html_raw(out, "</tr>\n");
    }
    html_raw(out, "</tbody>");
}

static void long_rows(struct html *out, const struct chart_panel *panel)
{
    html_raw(out, "<thead><tr><th scope=\"col\">line</th><th scope=\"col\">");
    html_text(out, panel->x.label);
    html_raw(out, "</th><th scope=\"col\">");
    html_text(out, panel->y.label);
    html_raw(out, "</th></tr></thead><tbody>\n");
    for (size_t i = 0; i < panel->lines; i++)
        for (size_t k = 0; k < panel->line[i].points; k++) {
            row_head(out, &panel->line[i]);
            html_format(out, "<td>%.6g</td>", panel->line[i].point[k].x);
            cell(out, &panel->line[i].point[k]);
            html_raw(out, "</tr>\n");
        }
    html_raw(out, "</tbody>");
}

static void dot_rows(struct html *out, const struct chart_panel *panel)
{
    html_raw(out, "<thead><tr><th scope=\"col\">line</th><th scope=\"col\">");
    html_text(out, panel->y.label);
    html_raw(out, "</th></tr></thead><tbody>\n");
    for (size_t i = 0; i < panel->lines; i++) {
        const struct chart_line *line = &panel->line[i];

        row_head(out, line);
        if (line->points > 0 && isfinite(line->point->y))
            cell(out, line->point);
        else
            html_raw(out, "<td>never</td>");
        html_raw(out, "</tr>\n");
    }
    html_raw(out, "</tbody>");
}

/* Bins that are empty in all strips are left out. */
static void strip_rows(struct html *out, const struct chart_panel *panel)
{
    bool used[SVG_BINS] = {false};

    for (size_t i = 0; i < panel->lines; i++)
        for (size_t b = 0; b < SVG_BINS; b++)
            used[b] = used[b] || panel->line[i].count[b] > 0;
    html_raw(out, "<thead><tr><th scope=\"col\">");
    html_text(out, panel->x.label);
    html_raw(out, "</th>");
    for (size_t b = 0; b < SVG_BINS; b++)
        if (used[b])
            html_format(out, "<th scope=\"col\">%.3g</th>", panel->edge[b]);
    html_raw(out, "</tr></thead><tbody>\n");
    for (size_t i = 0; i < panel->lines; i++) {
        row_head(out, &panel->line[i]);
        for (size_t b = 0; b < SVG_BINS; b++)
            if (used[b])
                html_format(out, "<td>%.9g</td>", panel->line[i].count[b]);
        html_raw(out, "</tr>\n");
    }
    html_raw(out, "</tbody>");
}

void chart_table(struct html *out, const struct chart *chart,
                 const struct chart_panel *panel)
{
    double x[MATRIX_MAX];
    size_t columns;

    html_raw(out, "<div class=\"tw\"><table class=\"data\"><caption>");
    html_text(out, panel_title(chart, panel));
    if (chart->unit != NULL) {
        html_raw(out, ": ");
        html_text(out, chart->unit);
    }
    html_raw(out, "</caption>");
    if (chart->kind == CHART_STRIPS)
        strip_rows(out, panel);
    else if (chart->kind == CHART_DOTS)
        dot_rows(out, panel);
    else if ((columns = find_columns(panel, x)) <= MATRIX_MAX)
        matrix(out, panel, x, columns);
    else
        long_rows(out, panel);
    html_raw(out, "</table></div>\n");
}

/* ---- the whole ----------------------------------------------------------- */

/* Says which lines are the grey ones. */
static void grey_names(struct html *out, const struct chart *chart)
{
    const struct chart_panel *last = &chart->panel[chart->panels - 1];
    size_t count = 0;

    for (size_t i = 0; chart->kind == CHART_LINES && i < last->lines; i++)
        count += last->line[i].style == SVG_GREY ? 1 : 0;
    if (count == 0)
        return;
    html_raw(out, " Grey, named when pointed at: ");
    for (size_t i = 0, done = 0; i < last->lines && done < GREY_NAMED_MAX; i++) {
        if (last->line[i].style != SVG_GREY)
            continue;
        html_raw(out, done++ > 0 ? ", " : "");
        html_text(out, last->line[i].name);
    }
    html_raw(out, count > GREY_NAMED_MAX ? " and more." : ".");
}

void chart_html(struct html *out, const struct chart *chart)
{
    html_format(out, "<section class=\"chart\" id=\"%s\">\n<h3>", chart->id);
    html_text(out, chart->title);
    html_format(out, "</h3>\n<div class=\"panels%s\">\n", chart->small ? " small" : "");
    for (size_t p = 0; p < chart->panels; p++)
        draw_panel(out, chart, p);
    html_raw(out, "</div>\n<p class=\"note\">");
    if (chart->note != NULL)
        html_text(out, chart->note);
    grey_names(out, chart);
    html_raw(out, "</p>\n<details><summary>The numbers of this chart</summary>\n");
    for (size_t p = 0; p < chart->panels; p++)
        if (!chart->panel[p].zoom)
            chart_table(out, chart, &chart->panel[p]);
    html_raw(out, "</details>\n</section>\n");
}
