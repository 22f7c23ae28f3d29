/* Pictures for a page: lines over an axis, dots in rows, strips of shades; each is one
 * <svg> element that takes its colours from the page's CSS classes (report_style.c), so
 * that it follows a light or dark scheme.
 *
 *     title                                 title            title
 *     y  |     __--o name                   name  --o--      row  ..::##::.
 *        |  o-'  |  <- range                name o-          row  .:##::...
 *        +---------- x                      +---------- x         +------- bins
 *
 * Style 0..7 is a colour, a dash and a marker; SVG_GREY a thin grey line that says its
 * name when pointed at. A point that is not finite is left out.
 */
#ifndef CLUSTER_SVG_H
#define CLUSTER_SVG_H

#include "cluster/report/html.h"

#include <stdbool.h>
#include <stddef.h>

#define SVG_STYLES 8
#define SVG_GREY (-1)

enum svg_scale {
    SVG_LINEAR,
    SVG_LOG2,
    SVG_LOG10
};

struct svg_axis {
    const char *label;
    enum svg_scale scale;
    bool percent;     /* ticks of a share: "85 %" */
    double low, high; /* low < high: what is shown; otherwise what the points need */
};

struct svg_point {
    double x, y;
    double low, high; /* range of y over seeds; NaN: none */
    unsigned count;   /* runs it is the mean of */
    const char *note; /* "lr 0.02", or NULL */
};

struct svg_line {
    const char *name;
    int style;
    const struct svg_point *point;
    size_t points;
};

struct svg_panel {
    const char *id; /* unique in the page; letters, digits and '-' */
    const char *title;
    double width, height;
    struct svg_axis x, y;
    const struct svg_line *line;
    size_t lines;
};

/* Curves, with the names of the coloured ones at their ends. */
void svg_lines(struct html *out, const struct svg_panel *panel);
/* A row a line, in their order: point[0].y with its range, over the axis `x`; "never"
 * where there is no number. The height follows from the rows. */
void svg_dots(struct html *out, const struct svg_panel *panel);

#define SVG_BINS 48
struct svg_strip {
    const char *name;
    const double *count; /* SVG_BINS */
};
struct svg_strips {
    const char *id, *title, *label; /* label: of the bins */
    double width;
    const double *edge; /* SVG_BINS lower edges */
    const struct svg_strip *strip;
    size_t strips;
    size_t first, last; /* bins that are shown; first <= last */
};
/* A histogram a row: the darker, the more of the row's counts are in the bin. */
void svg_strips(struct html *out, const struct svg_strips *strips);

/* ---- shared by the three ------------------------------------------------- */

/* An axis with its range settled, and where it lies in the picture. */
struct svg_range {
    enum svg_scale scale;
    double low, high, from, to;
};
/* Where a value lies; NaN if the scale has no place for it. */
double svg_at(const struct svg_range *range, double value);
/* Widens *low, *high to hold the value, if it is one for the scale. */
void svg_include(enum svg_scale scale, double value, double *low, double *high);
/* Settles the range: nothing included, or one value only, is given some room. */
void svg_settle(enum svg_scale scale, double *low, double *high);
#define SVG_TICKS_MAX 24
/* Round values within the range, at most about `wanted`. Returns how many. */
size_t svg_ticks(const struct svg_range *range, size_t wanted,
                 double ret[SVG_TICKS_MAX]);
/* "85 %", "0.002", "3·10⁻⁷". */
void svg_tick_text(double value, bool percent, char *ret, size_t max);
/* Begins a picture: `title` is written above it, and `unit` behind that unless NULL or
 * already in it. */
void svg_open(struct html *out, const char *id, const char *title, const char *unit,
              double width, double height);
/* The marker of a style, centred; `size` is about its radius. */
void svg_marker(struct html *out, int style, double x, double y, double size);
/* Gridless x axis: ticks, their texts and the label below the line at height y. */
void svg_x_axis(struct html *out, const struct svg_range *range,
                const struct svg_axis *axis, double y);

#endif
