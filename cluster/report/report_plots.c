/* Charts as data and scripts for gnuplot:  cd report-plots; gnuplot NAME.gp  */
#include "cluster/report/report_chart.h"

#include <math.h>
#include <string.h>

/* Text for a comment or a quoted word: one line, no quotes that would end it. */
static void word(struct html *out, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '\'')
            html_raw(out, "''");
        else if ((unsigned char)*text < 0x20)
            html_raw(out, " ");
        else
            html_bytes(out, text, 1);
    }
}

static const char *title_of(const struct chart *chart, const struct chart_panel *panel)
{
    return panel->title[0] != '\0' ? panel->title : chart->title;
}

static void value(struct html *out, double number, const char *behind)
{
    if (isfinite(number))
        html_format(out, "%.9g%s", number, behind);
    else
        html_format(out, "NaN%s", behind);
}

static void line_data(struct html *out, const struct chart_line *line)
{
    for (size_t k = 0; k < line->points; k++) {
        const struct svg_point *p = &line->point[k];

        value(out, p->x, " ");
        value(out, p->y, " ");
        value(out, isfinite(p->low) ? p->low : p->y, " ");
        value(out, isfinite(p->high) ? p->high : p->y, "\n");
    }
}

static void block_end(struct html *out)
{
    html_raw(out, "\n\n");
}

/* Rows by number, so that the axis can name them. */
static void dots_data(struct html *out, const struct chart_panel *panel)
{
    for (size_t i = 0; i < panel->lines; i++) {
        const struct svg_point *p = panel->line[i].point;
        bool any = panel->line[i].points > 0 && isfinite(p->y);

        html_format(out, "%zu ", i + 1);
        value(out, any ? p->y : (double)NAN, " ");
        value(out, any ? p->low : (double)NAN, " ");
        value(out, any ? p->high : (double)NAN, "\n");
    }
}

static void strips_data(struct html *out, const struct chart_panel *panel)
{
    for (size_t i = 0; i < panel->lines; i++) {
        for (size_t b = 0; b < SVG_BINS; b++)
            html_format(out, "%.9g%s", panel->line[i].count[b],
                        b + 1 < SVG_BINS ? " " : "\n");
    }
}

void chart_data(struct html *out, const struct chart *chart)
{
    html_raw(out, "# ");
    word(out, chart->title);
    html_raw(out, chart->kind == CHART_LINES  ? "\n# x y least most\n"
                  : chart->kind == CHART_DOTS ? "\n# row value least most\n"
                                              : "\n# a row a strip, a column a bin\n");
    for (size_t p = 0; p < chart->panels; p++) {
        const struct chart_panel *panel = &chart->panel[p];

        if (panel->zoom)
            continue;
        html_raw(out, "# ");
        word(out, title_of(chart, panel));
        html_raw(out, "\n");
        for (size_t i = 0; i < panel->lines; i++) {
            html_raw(out, "# ");
            word(out, panel->line[i].name);
            html_raw(out, "\n");
            if (chart->kind != CHART_LINES)
                continue;
            line_data(out, &panel->line[i]);
            block_end(out);
        }
        if (chart->kind == CHART_DOTS)
            dots_data(out, panel);
        if (chart->kind == CHART_STRIPS)
            strips_data(out, panel);
        if (chart->kind != CHART_LINES)
            block_end(out);
    }
}

/* ---- scripts ------------------------------------------------------------- */

static void axis(struct html *out, char name, const struct svg_axis *of)
{
    html_format(out, "set %clabel '", name);
    word(out, of->label != NULL ? of->label : "");
    html_format(out, "' noenhanced\n%s logscale %c%s\n",
                of->scale == SVG_LINEAR ? "unset" : "set", name,
                of->scale == SVG_LOG2 ? " 2" : "");
    html_format(
        out, of->low < of->high ? "set %crange [%.9g:%.9g]\n" : "set %crange [*:*]\n",
        name, of->low, of->high);
}

static void lines_script(struct html *out, const struct chart *chart,
                         const struct chart_panel *panel, size_t block)
{
    axis(out, 'x', &panel->x);
    axis(out, 'y', &panel->y);
    for (size_t i = 0; i < panel->lines; i++) {
        html_format(out, "%s'%s.dat' index %zu using 1:2:3:4 with yerrorlines title '",
                    i == 0 ? "plot " : ", \\\n     ", chart->id, block + i);
        word(out, panel->line[i].name);
        html_raw(out, "' noenhanced");
    }
    html_raw(out, "\n");
}

static void row_names(struct html *out, const struct chart_panel *panel, double from)
{
    html_raw(out, "set ytics (");
    for (size_t i = 0; i < panel->lines; i++) {
        html_raw(out, i == 0 ? "'" : ", \\\n    '");
        word(out, panel->line[i].name);
        html_format(out, "' %g", from + (double)i);
    }
    html_raw(out, ") noenhanced\nunset ylabel\nunset logscale y\n");
    html_format(out, "set yrange [%g:%g]\n", from + (double)panel->lines - 0.5,
                from - 0.5);
}

static bool any_value(const struct chart_panel *panel)
{
    for (size_t i = 0; i < panel->lines; i++)
        if (panel->line[i].points > 0 && isfinite(panel->line[i].point->y))
            return true;
    return false;
}

static void dots_script(struct html *out, const struct chart *chart,
                        const struct chart_panel *panel, size_t block)
{
    axis(out, 'x', &panel->x);
    row_names(out, panel, 1);
    html_format(out,
                any_value(panel)
                    ? "plot '%s.dat' index %zu using 2:1:3:4 with xerrorbars notitle\n"
                    : "set xrange [0:1]\nplot NaN notitle # %s, %zu: never\n",
                chart->id, block);
}

static void strips_script(struct html *out, const struct chart *chart,
                          const struct chart_panel *panel, size_t block)
{
    axis(out, 'x', &panel->x);
    row_names(out, panel, 0);
    html_format(out, "set xrange [-0.5:%d.5]\nset xtics (", SVG_BINS - 1);
    for (int b = 0; b < SVG_BINS; b += 8)
        html_format(out, "%s'%.3g' %d", b > 0 ? ", " : "", panel->edge[b], b);
    html_format(out,
                ")\nset palette gray negative\nunset colorbox\n"
                "plot '%s.dat' index %zu matrix using 1:2:(sqrt($3)) with image "
                "notitle\n",
                chart->id, block);
}

void chart_gnuplot(struct html *out, const struct chart *chart)
{
    size_t panels = 0, columns, block = 0;

    for (size_t p = 0; p < chart->panels; p++)
        panels += chart->panel[p].zoom ? 0 : 1;
    columns = panels > 1 ? 2 : 1;
    html_raw(out, "# ");
    word(out, chart->title);
    html_format(out,
                "\n# In this folder: gnuplot %s.gp makes %s.svg\n"
                "set terminal svg size %zu,%zu noenhanced background 'white'\n"
                "set output '%s.svg'\nset encoding utf8\nset key outside right\n"
                "set multiplot layout %zu,%zu title '",
                chart->id, chart->id, 700 * columns,
                420 * ((panels + columns - 1) / columns), chart->id,
                (panels + columns - 1) / columns, columns);
    word(out, chart->title);
    html_raw(out, "' noenhanced\n");
    for (size_t p = 0; p < chart->panels; p++) {
        const struct chart_panel *panel = &chart->panel[p];

        if (panel->zoom)
            continue;
        html_raw(out, "set title '");
        word(out, title_of(chart, panel));
        html_raw(out, "' noenhanced\n");
        if (chart->kind == CHART_LINES)
            lines_script(out, chart, panel, block);
        else if (chart->kind == CHART_DOTS)
            dots_script(out, chart, panel, block);
        else
            strips_script(out, chart, panel, block);
        block += chart->kind == CHART_LINES ? panel->lines : 1;
    }
    html_raw(out, "unset multiplot\n");
}
