/* Pictures in rows: a dot with its range, or a strip of shades. */
#include "cluster/report/svg.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define TOP 26.0
#define ROW 17.0
#define BOTTOM 42.0
#define LETTER 6.9
#define LETTERS_MAX 28u
#define SHADES 8

/* ---- dots ---------------------------------------------------------------- */

static struct svg_range dots_range(const struct svg_panel *panel)
{
    struct svg_range ret = {
        .scale = panel->x.scale, .low = (double)NAN, .high = (double)NAN};

    for (size_t i = 0; i < panel->lines; i++) {
        const struct svg_point *p = panel->line[i].point;

        if (panel->line[i].points == 0)
            continue;
        svg_include(ret.scale, p->y, &ret.low, &ret.high);
        svg_include(ret.scale, p->low, &ret.low, &ret.high);
        svg_include(ret.scale, p->high, &ret.low, &ret.high);
    }
    svg_settle(ret.scale, &ret.low, &ret.high);
    if (ret.scale == SVG_LINEAR) {
        double room = 0.04 * (ret.high - ret.low);

        /* Times are read by their ratio, so from 0; shares where they reach far
         * down. */
        ret.low = ret.low >= 0 && (!panel->x.percent || ret.low < 0.6 * ret.high)
                      ? 0
                      : ret.low - room;
        ret.high += room;
    }
    if (panel->x.low < panel->x.high) {
        ret.low = panel->x.low;
        ret.high = panel->x.high;
    }
    return ret;
}

static double dots_names(const struct svg_panel *panel)
{
    size_t letters = 4;

    for (size_t i = 0; i < panel->lines; i++) {
        size_t own = html_letters(panel->line[i].name);

        letters = own > letters ? own : letters;
    }
    return 14 + LETTER * (double)(letters < LETTERS_MAX ? letters : LETTERS_MAX);
}

static void dot_mark(struct html *out, const struct svg_range *x, double y,
                     const struct svg_line *line, bool percent)
{
    const struct svg_point *p = line->point;
    double at = line->points > 0 ? svg_at(x, p->y) : (double)NAN;
    double low = line->points > 0 ? svg_at(x, p->low) : (double)NAN;
    double high = line->points > 0 ? svg_at(x, p->high) : (double)NAN;

    if (!isfinite(at)) {
        html_format(out, "<text class=\"tk\" x=\"%.1f\" y=\"%.1f\">never</text>",
                    x->to + 10, y + 4);
        return;
    }
    if (isfinite(low) && isfinite(high) && high > low)
        html_format(out, "<path class=\"rg\" d=\"M%.1f %.1fH%.1f\"/>", low, y, high);
    html_raw(out, "<path class=\"mk\" d=\"");
    svg_marker(out, line->style == SVG_GREY ? 0 : line->style, at, y, 3.2);
    html_format(out, "\"><title>%.6g</title></path>", p->y);
    html_format(out, "<text class=\"tk\" x=\"%.1f\" y=\"%.1f\">%.4g%s", x->to + 10,
                y + 4, percent ? 100 * p->y : p->y, percent ? " %" : "");
    if (p->note != NULL) {
        html_raw(out, " (");
        html_text(out, p->note);
        html_raw(out, ")");
    }
    html_raw(out, "</text>");
}

/* Room for the numbers on the right. */
static double dots_values(const struct svg_panel *panel)
{
    size_t letters = 0;

    for (size_t i = 0; i < panel->lines; i++)
        if (panel->line[i].points > 0 && panel->line[i].point->note != NULL &&
            html_letters(panel->line[i].point->note) > letters)
            letters = html_letters(panel->line[i].point->note);
    return 58 + (letters > 0 ? LETTER * (double)(letters + 3) : 0);
}

void svg_dots(struct html *out, const struct svg_panel *panel)
{
    struct svg_range x = dots_range(panel);
    double height = TOP + BOTTOM + ROW * (double)panel->lines;
    double tick[SVG_TICKS_MAX];
    size_t ticks;

    x.from = dots_names(panel);
    x.to = panel->width - dots_values(panel);
    svg_open(out, panel->id, panel->title, NULL, panel->width, height);
    ticks = svg_ticks(&x, (size_t)((x.to - x.from) / 55), tick);
    html_raw(out, "<path class=\"gr\" d=\"");
    for (size_t i = 0; i < ticks; i++)
        html_format(out, "M%.1f %.1fV%.1f", svg_at(&x, tick[i]), TOP - 4,
                    height - BOTTOM);
    html_raw(out, "\"/>\n");
    svg_x_axis(out, &x, &panel->x, height - BOTTOM);
    for (size_t i = 0; i < panel->lines; i++) {
        const struct svg_line *line = &panel->line[i];
        double y = TOP + ROW * ((double)i + 0.4);

        if (line->style == SVG_GREY)
            html_raw(out, "<g class=\"sg\">");
        else
            html_format(out, "<g class=\"s%d\">", line->style % SVG_STYLES);
        html_format(out,
                    "<text class=\"nm\" text-anchor=\"end\" x=\"%.1f\" y=\"%.1f\">",
                    x.from - 8, y + 4);
        html_text_cut(out, line->name, LETTERS_MAX);
        html_raw(out, "</text> ");
        dot_mark(out, &x, y, line, panel->x.percent);
        html_raw(out, "</g>\n");
    }
    html_raw(out, "</svg>\n");
}

/* ---- strips -------------------------------------------------------------- */

struct cells {
    const struct svg_strips *strips;
    double left, wide, row;
};

static double strip_most(const struct svg_strip *strip)
{
    double most = 0;

    for (size_t b = 0; b < SVG_BINS; b++)
        most = fmax(most, strip->count[b]);
    return most;
}

/* 1..SHADES for a bin that has something in it: by the root, so that tails are seen. */
static int shade(const struct svg_strip *strip, size_t bin, double most)
{
    double share = most > 0 ? strip->count[bin] / most : 0;

    if (!(share > 0))
        return 0;
    return 1 + (int)fmin(SHADES - 1, floor(sqrt(share) * SHADES));
}

/* One path a shade, over all rows: neighbours of one shade become one piece. */
static void draw_shade(struct html *out, const struct cells *cells, int wanted)
{
    const struct svg_strips *s = cells->strips;
    bool any = false;

    for (size_t i = 0; i < s->strips; i++) {
        double most = strip_most(&s->strip[i]);

        for (size_t b = s->first; b <= s->last; b++) {
            size_t from = b;

            while (b <= s->last && shade(&s->strip[i], b, most) == wanted)
                b++;
            if (b == from)
                continue;
            if (!any)
                html_format(out, "<path class=\"h%d\" d=\"", wanted);
            any = true;
            html_format(out, "M%.1f %.1fh%.1fv%.1fh%.1fz",
                        cells->left + cells->wide * (double)(from - s->first),
                        TOP + cells->row * (double)i, cells->wide * (double)(b - from),
                        cells->row - 1, -cells->wide * (double)(b - from));
        }
    }
    if (any)
        html_raw(out, "\"/>\n");
}

/* Edges are no round numbers, and two figures say where they are. */
static double two_figures(double value)
{
    double unit = value > 0 ? pow(10, floor(log10(value)) - 1) : 1;

    return value < 100 && value >= 1 ? round(value) : round(value / unit) * unit;
}

static void strip_axis(struct html *out, const struct cells *cells, double y)
{
    const struct svg_strips *s = cells->strips;
    size_t shown = s->last - s->first + 1, step = 1;
    double right = cells->left + cells->wide * (double)shown;

    while ((double)step * cells->wide < 44)
        step++;
    html_format(out, "<path class=\"ax\" d=\"M%.1f %.1fH%.1f", cells->left, y, right);
    for (size_t b = 0; b < shown; b += step)
        html_format(out, "M%.1f %.1fv4", cells->left + cells->wide * (double)b, y);
    html_raw(out, "\"/>\n<g class=\"tk\" text-anchor=\"middle\">");
    for (size_t b = 0; b < shown; b += step) {
        char text[48];

        svg_tick_text(two_figures(s->edge[s->first + b]), false, text, sizeof text);
        html_format(out, "<text x=\"%.1f\" y=\"%.1f\">%s</text> ",
                    cells->left + cells->wide * (double)b, y + 16, text);
    }
    html_format(out,
                "</g>\n<text class=\"al\" text-anchor=\"middle\" x=\"%.1f\" "
                "y=\"%.1f\">",
                (cells->left + right) / 2, y + 32);
    html_text(out, s->label);
    html_raw(out, "</text>\n");
}

void svg_strips(struct html *out, const struct svg_strips *strips)
{
    struct cells cells = {.strips = strips, .row = strips->strips > 12 ? 14 : ROW};
    size_t letters = 2;
    double bottom;

    for (size_t i = 0; i < strips->strips; i++) {
        size_t own = html_letters(strips->strip[i].name);

        letters = own > letters ? own : letters;
    }
    cells.left = 14 + LETTER * (double)(letters < LETTERS_MAX ? letters : LETTERS_MAX);
    cells.wide =
        (strips->width - 12 - cells.left) / (double)(strips->last - strips->first + 1);
    bottom = TOP + cells.row * (double)strips->strips;
    svg_open(out, strips->id, strips->title, NULL, strips->width, bottom + BOTTOM);
    for (int s = 1; s <= SHADES; s++)
        draw_shade(out, &cells, s);
    html_raw(out, "<g class=\"tk\" text-anchor=\"end\">");
    for (size_t i = 0; i < strips->strips; i++) {
        html_format(out, "<text x=\"%.1f\" y=\"%.1f\">", cells.left - 6,
                    TOP + cells.row * ((double)i + 0.5) + 3);
        html_text_cut(out, strips->strip[i].name, LETTERS_MAX);
        html_raw(out, "</text> ");
    }
    html_raw(out, "</g>\n");
    strip_axis(out, &cells, bottom + 2);
    html_raw(out, "</svg>\n");
}
