/* What all pictures share: scales, ticks, the frame, markers. */
#include "cluster/report/svg.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- scales -------------------------------------------------------------- */

static double transformed(enum svg_scale scale, double value)
{
    switch (scale) {
    case SVG_LOG2:
        return value > 0 ? log2(value) : (double)NAN;
    case SVG_LOG10:
        return value > 0 ? log10(value) : (double)NAN;
    case SVG_LINEAR:
        break;
    }
    return isfinite(value) ? value : (double)NAN;
}

double svg_at(const struct svg_range *range, double value)
{
    double low = transformed(range->scale, range->low);
    double high = transformed(range->scale, range->high);
    double at = transformed(range->scale, value);

    if (!isfinite(at) || !(high > low))
        return (double)NAN;
    return range->from + (at - low) / (high - low) * (range->to - range->from);
}

void svg_include(enum svg_scale scale, double value, double *low, double *high)
{
    if (!isfinite(transformed(scale, value)) || fabs(value) > 1e300)
        return;
    if (!(*low <= value)) /* also where it is NaN */
        *low = value;
    if (!(*high >= value))
        *high = value;
}

void svg_settle(enum svg_scale scale, double *low, double *high)
{
    if (!isfinite(*low) || !isfinite(*high) || *low > *high) {
        *low = scale == SVG_LINEAR ? 0 : 1;
        *high = scale == SVG_LINEAR ? 1 : 10;
    } else if (scale == SVG_LINEAR) {
        double width = *high - *low;

        if (!(width > 1e-12 * fabs(*high)))
            width = fabs(*high) > 0 ? fabs(*high) : 1;
        if (!(*high - *low > 0.5 * width)) {
            *low -= 0.5 * width;
            *high += 0.5 * width;
        }
    } else if (!(*high > 1.2 * *low)) {
        *low /= 2;
        *high *= 2;
    }
}

/* ---- ticks --------------------------------------------------------------- */

static size_t ticks_linear(const struct svg_range *range, size_t wanted, double *ret)
{
    double width = range->high - range->low, raw = width / (double)wanted;
    double unit = pow(10, floor(log10(raw))), step = 10 * unit, first;
    double last = range->high + 1e-9 * width;
    size_t used = 0;

    if (raw <= unit * 1.001)
        step = unit;
    else if (raw <= 2 * unit)
        step = 2 * unit;
    else if (raw <= 5 * unit)
        step = 5 * unit;
    first = ceil(range->low / step - 1e-9);
    while (used < SVG_TICKS_MAX && (first + (double)used) * step <= last) {
        ret[used] =
            fabs(first + (double)used) < 0.5 ? 0 : (first + (double)used) * step;
        used++;
    }
    return used;
}

static size_t ticks_log2(const struct svg_range *range, size_t wanted, double *ret)
{
    double low = ceil(log2(range->low) - 1e-9), high = floor(log2(range->high) + 1e-9);
    double step = fmax(ceil((high - low + 1) / (double)wanted), 1);
    size_t used = 0;

    while (used < SVG_TICKS_MAX && low + (double)used * step <= high) {
        ret[used] = exp2(low + (double)used * step);
        used++;
    }
    return used;
}

static size_t ticks_log10(const struct svg_range *range, size_t wanted, double *ret)
{
    static const double mantissas[3][5] = {{1}, {1, 3}, {1, 2, 5}};
    double decades = log10(range->high / range->low);
    double step = fmax(1, ceil(decades / (double)wanted));
    double first = floor(log10(range->low));
    unsigned set = decades < 2 ? 2 : (decades < 3 && wanted > 3 ? 1 : 0);
    size_t used = 0;

    for (unsigned i = 0; first + i * step <= log10(range->high); i++)
        for (unsigned k = 0; k <= set; k++) {
            double tick = mantissas[set][k] * pow(10, first + i * step);

            if (tick >= range->low * 0.9999 && tick <= range->high * 1.0001 &&
                used < SVG_TICKS_MAX)
                ret[used++] = tick;
        }
    return used >= 2 ? used : ticks_linear(range, wanted, ret);
}

size_t svg_ticks(const struct svg_range *range, size_t wanted,
                 double ret[SVG_TICKS_MAX])
{
    size_t used;

    switch (range->scale) {
    case SVG_LOG2:
        used = ticks_log2(range, wanted, ret);
        return used >= 2 ? used : ticks_linear(range, wanted, ret);
    case SVG_LOG10:
        return ticks_log10(range, wanted, ret);
    case SVG_LINEAR:
        break;
    }
    return ticks_linear(range, wanted, ret);
}

/* 10 to the power of n, with raised figures. */
static void power_text(double mantissa, int exponent, char *ret, size_t max)
{
    static const char *const raised[] = {"⁰", "¹", "²", "³", "⁴",
                                         "⁵", "⁶", "⁷", "⁸", "⁹"};
    char figures[16];
    size_t used = 0;

    if (fabs(mantissa - 1) > 1e-6)
        used = (size_t)snprintf(ret, max, "%.3g·", mantissa);
    used += (size_t)snprintf(ret + used, max - used, "10");
    (void)snprintf(figures, sizeof figures, "%d", exponent);
    for (const char *c = figures; *c != '\0' && used + 4 < max; c++)
        used += (size_t)snprintf(ret + used, max - used, "%s",
                                 *c == '-' ? "⁻" : raised[*c - '0']);
}

void svg_tick_text(double value, bool percent, char *ret, size_t max)
{
    int exponent = fabs(value) > 0 ? (int)floor(log10(fabs(value)) + 1e-9) : 0;

    if (percent)
        (void)snprintf(ret, max, "%.4g %%", 100 * value);
    else if (exponent >= -3 && exponent <= 4)
        (void)snprintf(ret, max, "%.6g", value);
    else if (exponent > 4 && exponent < 9 && fmod(fabs(value), 1000) < 1e-6)
        (void)snprintf(ret, max, "%.4g%s", value / (exponent < 6 ? 1e3 : 1e6),
                       exponent < 6 ? "k" : "M");
    else
        power_text(value / pow(10, exponent), exponent, ret, max);
}

/* ---- the frame ----------------------------------------------------------- */

void svg_open(struct html *out, const char *id, const char *title, const char *unit,
              double width, double height)
{
    size_t letters = (size_t)(width / 7.4), used = html_letters(title);
    bool both = unit != NULL && unit[0] != '\0' && strstr(title, unit) == NULL;

    html_format(out,
                "<svg xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" "
                "viewBox=\"0 0 %g %g\" style=\"--w:%gpx\" aria-labelledby=\"%s-t\">"
                "<title id=\"%s-t\">",
                width, height, width, id, id);
    html_text(out, title);
    html_raw(out, both ? ", " : "");
    html_text(out, both ? unit : "");
    html_raw(out, "</title>\n<text class=\"pt\" x=\"4\" y=\"14\">");
    html_text_cut(out, title, letters);
    if (both && used + 3 < letters) {
        html_raw(out, "<tspan class=\"pu\" dx=\"5\"> ");
        html_text_cut(out, unit, letters - used - 2);
        html_raw(out, "</tspan>");
    }
    html_raw(out, "</text>\n");
}

void svg_x_axis(struct html *out, const struct svg_range *range,
                const struct svg_axis *axis, double y)
{
    double tick[SVG_TICKS_MAX];
    double each = range->scale == SVG_LOG2 ? 34 : 55;
    size_t count = svg_ticks(range, (size_t)((range->to - range->from) / each), tick);

    html_format(out, "<path class=\"ax\" d=\"M%.1f %.1fH%.1f", range->from, y,
                range->to);
    for (size_t i = 0; i < count; i++)
        html_format(out, "M%.1f %.1fv4", svg_at(range, tick[i]), y);
    html_raw(out, "\"/>\n<g class=\"tk\" text-anchor=\"middle\">");
    for (size_t i = 0; i < count; i++) {
        char text[48];

        svg_tick_text(tick[i], axis->percent, text, sizeof text);
        html_format(out, "<text x=\"%.1f\" y=\"%.1f\">%s</text> ",
                    svg_at(range, tick[i]), y + 16, text);
    }
    html_format(out,
                "</g>\n<text class=\"al\" text-anchor=\"middle\" x=\"%.1f\" "
                "y=\"%.1f\">",
                (range->from + range->to) / 2, y + 32);
    html_text(out, axis->label);
    html_raw(out, "</text>\n");
}

void svg_marker(struct html *out, int style, double x, double y, double size)
{
    double r = size, d = 1.25 * size;

    switch (style) {
    case 0:
        html_format(out, "M%.1f %.1fa%.1f %.1f 0 1 0 %.1f 0a%.1f %.1f 0 1 0 %.1f 0z",
                    x - r, y, r, r, 2 * r, r, r, -2 * r);
        break;
    case 1:
        html_format(out, "M%.1f %.1fh%.1fv%.1fh%.1fz", x - r, y - r, 2 * r, 2 * r,
                    -2 * r);
        break;
    case 2:
        html_format(out, "M%.1f %.1fl%.1f %.1fh%.1fz", x, y - d, d, 2 * r, -2 * d);
        break;
    case 3:
        html_format(out, "M%.1f %.1fl%.1f %.1fl%.1f %.1fl%.1f %.1fz", x, y - d - 0.6, d,
                    d + 0.6, -d, d + 0.6, -d, -d - 0.6);
        break;
    case 4:
        html_format(out, "M%.1f %.1fl%.1f %.1fh%.1fz", x, y + d, d, -2 * r, -2 * d);
        break;
    case 5:
        html_format(out,
                    "M%.1f %.1fh%.1fv%.1fh%.1fv%.1fh%.1fv%.1fh%.1fv%.1fh%.1fv%.1f"
                    "h%.1fz",
                    x - 1, y - d, 2.0, d - 1, d - 1, 2.0, 1 - d, d - 1, -2.0, 1 - d,
                    1 - d, -2.0, d - 1);
        break;
    case 6:
        html_format(out, "M%.1f %.1fl%.1f %.1fv%.1fz", x - d, y, 2 * r, -d, 2 * d);
        break;
    default:
        html_format(out, "M%.1f %.1fl%.1f %.1fv%.1fz", x + d, y, -2 * r, -d, 2 * d);
        break;
    }
}
