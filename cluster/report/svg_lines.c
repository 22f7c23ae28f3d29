/* Curves: few lines in colour with their names at their ends, the rest thin and
 * grey. */
#include "cluster/report/svg.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TOP 26.0
#define BOTTOM 40.0
#define LETTER 6.9      /* width of a letter of a label, about */
#define LETTERS_MAX 26u /* of a name at a line's end */
#define LABEL_STEP 13.0
#define LABELS_MAX 24
#define MARKERS_MAX 16 /* points of a line that still get a marker each */

struct plot {
    const struct svg_panel *panel;
    struct svg_range x, y;
    double right; /* where the plot ends and the names begin */
};

/* ---- ranges -------------------------------------------------------------- */

static void find_ranges(struct plot *plot)
{
    const struct svg_panel *panel = plot->panel;
    double x[2] = {(double)NAN, (double)NAN}, y[2] = {(double)NAN, (double)NAN};

    for (size_t i = 0; i < panel->lines; i++)
        for (size_t k = 0; k < panel->line[i].points; k++) {
            const struct svg_point *p = &panel->line[i].point[k];

            if (!isfinite(p->y))
                continue;
            svg_include(panel->x.scale, p->x, &x[0], &x[1]);
            svg_include(panel->y.scale, p->y, &y[0], &y[1]);
            if (panel->line[i].style != SVG_GREY) {
                svg_include(panel->y.scale, p->low, &y[0], &y[1]);
                svg_include(panel->y.scale, p->high, &y[0], &y[1]);
            }
        }
    svg_settle(panel->x.scale, &x[0], &x[1]);
    if (panel->x.scale == SVG_LINEAR && x[0] > 0 && x[0] < 0.25 * x[1])
        x[0] = 0;
    svg_settle(panel->y.scale, &y[0], &y[1]);
    if (panel->y.low < panel->y.high) {
        y[0] = panel->y.low;
        y[1] = panel->y.high;
    } else if (panel->y.scale == SVG_LINEAR) {
        double room = 0.03 * (y[1] - y[0]);

        /* Counts from 0; shares where they reach far down. */
        y[0] = y[0] >= 0 && (!panel->y.percent || y[0] < 0.25 * y[1]) ? 0 : y[0] - room;
        y[1] += room;
    }
    plot->x.scale = panel->x.scale, plot->x.low = x[0], plot->x.high = x[1];
    plot->y.scale = panel->y.scale, plot->y.low = y[0], plot->y.high = y[1];
}

static double names_width(const struct svg_panel *panel)
{
    size_t letters = 0;

    for (size_t i = 0; i < panel->lines; i++) {
        size_t own = html_letters(panel->line[i].name);

        if (panel->line[i].style != SVG_GREY && own > letters)
            letters = own;
    }
    if (letters > LETTERS_MAX)
        letters = LETTERS_MAX;
    return letters > 0 ? 12 + LETTER * (double)letters : 14;
}

static void y_axis(struct html *out, const struct plot *plot)
{
    const struct svg_axis *axis = &plot->panel->y;
    double tick[SVG_TICKS_MAX];
    size_t count = svg_ticks(&plot->y, 5, tick);

    html_raw(out, "<path class=\"gr\" d=\"");
    for (size_t i = 0; i < count; i++)
        html_format(out, "M%.1f %.1fH%.1f", plot->x.from, svg_at(&plot->y, tick[i]),
                    plot->right);
    html_raw(out, "\"/>\n<g class=\"tk\" text-anchor=\"end\">");
    for (size_t i = 0; i < count; i++) {
        char text[48];

        svg_tick_text(tick[i], axis->percent, text, sizeof text);
        html_format(out, "<text x=\"%.1f\" y=\"%.1f\">%s</text> ", plot->x.from - 6,
                    svg_at(&plot->y, tick[i]) + 4, text);
    }
    html_raw(out, "</g>\n");
}

/* ---- lines --------------------------------------------------------------- */

static bool place(const struct plot *plot, const struct svg_point *p, double *x,
                  double *y)
{
    *x = svg_at(&plot->x, p->x);
    *y = svg_at(&plot->y, p->y);
    if (!isfinite(*x) || !isfinite(*y))
        return false;
    /* What is far outside is drawn outside, but not at numbers a viewer chokes on. */
    *y = fmin(fmax(*y, -2000), 4000);
    return true;
}

static void draw_path(struct html *out, const struct plot *plot,
                      const struct svg_line *line)
{
    bool down = false;

    for (size_t k = 0; k < line->points; k++) {
        double x, y;

        if (!place(plot, &line->point[k], &x, &y)) {
            down = false;
            continue;
        }
        html_format(out, "%s%.1f %.1f", down ? "L" : "M", x, y);
        down = true;
    }
}

static void draw_ranges(struct html *out, const struct plot *plot,
                        const struct svg_line *line)
{
    for (size_t k = 0; k < line->points; k++) {
        const struct svg_point *p = &line->point[k];
        struct svg_point ends[2] = {*p, *p};
        double x, low, high;

        ends[0].y = p->low;
        ends[1].y = p->high;
        if (!isfinite(p->low) || !isfinite(p->high) || !(p->high > p->low) ||
            !place(plot, &ends[0], &x, &low) || !place(plot, &ends[1], &x, &high))
            continue;
        html_format(out, "M%.1f %.1fV%.1f", x, low, high);
    }
}

static void point_title(struct html *out, const struct plot *plot,
                        const struct svg_line *line, const struct svg_point *p)
{
    html_raw(out, "<title>");
    html_text(out, line->name);
    html_format(out, ": %.6g at %s %.6g", p->y,
                plot->panel->x.label != NULL ? plot->panel->x.label : "", p->x);
    if (p->count > 1)
        html_format(out, " (mean of %u, %.6g to %.6g)", p->count, p->low, p->high);
    if (p->note != NULL) {
        html_raw(out, ", ");
        html_text(out, p->note);
    }
    html_raw(out, "</title>");
}

static void draw_markers(struct html *out, const struct plot *plot,
                         const struct svg_line *line)
{
    for (size_t k = 0; k < line->points; k++) {
        double x, y;

        if (!place(plot, &line->point[k], &x, &y))
            continue;
        html_raw(out, "<path class=\"mk\" d=\"");
        svg_marker(out, line->style, x, y, 3);
        html_raw(out, "\">");
        point_title(out, plot, line, &line->point[k]);
        html_raw(out, "</path>");
    }
}

static void draw_line(struct html *out, const struct plot *plot,
                      const struct svg_line *line)
{
    if (line->style == SVG_GREY)
        html_raw(out, "<g class=\"sg\"><title>");
    else
        html_format(out, "<g class=\"s%d%s\"><title>", line->style % SVG_STYLES,
                    line->points > MARKERS_MAX ? " da" : "");
    html_text(out, line->name);
    html_raw(out, "</title><path class=\"ln\" d=\"");
    draw_path(out, plot, line);
    html_raw(out, "\"/>");
    if (line->style != SVG_GREY) {
        html_raw(out, "<path class=\"rg\" d=\"");
        draw_ranges(out, plot, line);
        html_raw(out, "\"/>");
        if (line->points <= MARKERS_MAX)
            draw_markers(out, plot, line);
    } else if (line->points == 1) {
        draw_markers(out, plot, line);
    }
    html_raw(out, "</g>\n");
}

/* ---- names at the ends --------------------------------------------------- */

struct label {
    const struct svg_line *line;
    double x, wanted, y;
};

static int by_place(const void *a, const void *b)
{
    double one = ((const struct label *)a)->wanted;
    double other = ((const struct label *)b)->wanted;

    return (one > other) - (one < other);
}

/* Moves the labels apart, as little as need be: runs of labels that touch move as one
 * to where their wishes balance. */
static void spread(struct label *label, size_t count, double low, double high)
{
    size_t first[LABELS_MAX + 1]; /* of each run */
    size_t runs = 0;

    for (size_t i = 0; i < count; i++) {
        first[runs++] = i;
        for (;;) {
            size_t from = first[runs - 1];
            double sum = 0;

            for (size_t k = from; k <= i; k++)
                sum += label[k].wanted - LABEL_STEP * (double)(k - from);
            sum /= (double)(i - from + 1);
            sum = fmin(sum, high - LABEL_STEP * (double)(i - from));
            sum = fmax(sum, low + LABEL_STEP * (double)from);
            for (size_t k = from; k <= i; k++)
                label[k].y = sum + LABEL_STEP * (double)(k - from);
            if (runs < 2 || label[from].y - label[from - 1].y >= LABEL_STEP - 1e-9)
                break;
            runs--;
        }
    }
}

static bool last_point(const struct plot *plot, const struct svg_line *line, double *x,
                       double *y)
{
    for (size_t k = line->points; k-- > 0;)
        if (place(plot, &line->point[k], x, y))
            return true;
    return false;
}

static void draw_labels(struct html *out, const struct plot *plot)
{
    struct label label[LABELS_MAX];
    size_t count = 0;

    for (size_t i = 0; i < plot->panel->lines && count < LABELS_MAX; i++) {
        struct label *l = &label[count];

        l->line = &plot->panel->line[i];
        /* One that ends outside an enlarged part is named where all is shown. */
        if (l->line->style != SVG_GREY &&
            last_point(plot, l->line, &l->x, &l->wanted) &&
            l->wanted >= plot->y.to - 1 && l->wanted <= plot->y.from + 1)
            count++;
    }
    qsort(label, count, sizeof label[0], by_place);
    spread(label, count, plot->y.to, plot->y.from);
    for (size_t i = 0; i < count; i++) {
        const struct label *l = &label[i];

        html_format(out, "<g class=\"s%d\">", l->line->style % SVG_STYLES);
        if (fabs(l->y - l->wanted) > 3 || plot->right - l->x > 12)
            html_format(out, "<path class=\"ld\" d=\"M%.1f %.1fL%.1f %.1f\"/>",
                        l->x + 4, l->wanted, plot->right + 5, l->y);
        html_format(out, "<text class=\"nm\" x=\"%.1f\" y=\"%.1f\">", plot->right + 8,
                    l->y + 4);
        html_text_cut(out, l->line->name, LETTERS_MAX);
        html_raw(out, "</text></g> ");
    }
}

void svg_lines(struct html *out, const struct svg_panel *panel)
{
    struct plot plot = {.panel = panel};

    find_ranges(&plot);
    plot.right = panel->width - names_width(panel);
    plot.x.from = 54, plot.x.to = plot.right;
    plot.y.from = panel->height - BOTTOM, plot.y.to = TOP;
    svg_open(out, panel->id, panel->title, panel->y.label, panel->width, panel->height);
    html_format(out,
                "<clipPath id=\"%s-c\"><path d=\"M%.1f %.1fH%.1fV%.1fH%.1fz\"/>"
                "</clipPath>\n",
                panel->id, plot.x.from - 5, plot.y.to - 5, plot.right + 5,
                plot.y.from + 4, plot.x.from - 5);
    y_axis(out, &plot);
    svg_x_axis(out, &plot.x, &panel->x, plot.y.from);
    html_format(out, "<g clip-path=\"url(#%s-c)\">\n", panel->id);
    for (size_t i = 0; i < panel->lines; i++)
        if (panel->line[i].style == SVG_GREY)
            draw_line(out, &plot, &panel->line[i]);
    for (size_t i = panel->lines; i-- > 0;) /* the first is drawn last, on top */
        if (panel->line[i].style != SVG_GREY)
            draw_line(out, &plot, &panel->line[i]);
    html_raw(out, "</g>\n");
    draw_labels(out, &plot);
    html_raw(out, "</svg>\n");
}
