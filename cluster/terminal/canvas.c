/* Lines of styled text that never get wider than the terminal. */
#include "cluster/terminal/canvas.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const style_codes[] = {
    [STYLE_PLAIN] = "",          [STYLE_STRONG] = "\033[1m", [STYLE_FAINT] = "\033[2m",
    [STYLE_GOOD] = "\033[32m",   [STYLE_WARN] = "\033[33m",  [STYLE_BAD] = "\033[31m",
    [STYLE_ACCENT] = "\033[36m",
};

void canvas_begin(struct canvas *canvas, unsigned width, bool utf8, bool color)
{
    canvas->used = 0;
    canvas->text[0] = '\0';
    canvas->width = width;
    canvas->column = 0;
    canvas->lines = 0;
    canvas->utf8 = utf8;
    canvas->color = color;
}

static void append(struct canvas *canvas, const char *text, size_t bytes)
{
    if (canvas->used + bytes >= sizeof canvas->text)
        return;
    memcpy(canvas->text + canvas->used, text, bytes);
    canvas->used += bytes;
    canvas->text[canvas->used] = '\0';
}

/* Appends as many characters as fit in the line; a character is a byte with the
 * continuation bytes behind it. */
static void append_clipped(struct canvas *canvas, const char *text)
{
    while (*text != '\0' && canvas->column < canvas->width) {
        size_t bytes = 1;

        while (((unsigned char)text[bytes] & 0xc0u) == 0x80u)
            bytes++;
        append(canvas, text, bytes);
        text += bytes;
        canvas->column++;
    }
}

static void styled(struct canvas *canvas, enum canvas_style style, const char *text)
{
    bool code = canvas->color && style != STYLE_PLAIN;

    if (code)
        append(canvas, style_codes[style], strlen(style_codes[style]));
    append_clipped(canvas, text);
    if (code)
        append(canvas, "\033[0m", 4);
}

void canvas_put(struct canvas *canvas, enum canvas_style style, const char *format, ...)
{
    char text[512];
    va_list list;

    va_start(list, format);
    (void)vsnprintf(text, sizeof text, format, list);
    va_end(list);
    styled(canvas, style, text);
}

void canvas_to(struct canvas *canvas, unsigned column)
{
    while (canvas->column < column && canvas->column < canvas->width)
        append_clipped(canvas, " ");
}

void canvas_right(struct canvas *canvas, unsigned column, enum canvas_style style,
                  const char *format, ...)
{
    char text[256];
    unsigned columns = 0;
    va_list list;

    va_start(list, format);
    (void)vsnprintf(text, sizeof text, format, list);
    va_end(list);
    for (const char *at = text; *at != '\0'; at++)
        columns += ((unsigned char)*at & 0xc0u) != 0x80u;
    canvas_to(canvas, column > columns ? column - columns : 0);
    styled(canvas, style, text);
}

void canvas_bar(struct canvas *canvas, enum canvas_style style, unsigned width,
                double share, bool track)
{
    static const char *const eighths[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    unsigned filled, full, rest;
    char text[1024] = "";
    size_t used = 0;

    if (!(share > 0.0))
        share = 0.0;
    if (share > 1.0)
        share = 1.0;
    if (width > 200)
        width = 200;
    filled = (unsigned)(share * 8.0 * (double)width + 0.5);
    full = filled / 8;
    rest = canvas->utf8 ? filled % 8 : 0;
    for (unsigned i = 0; i < full; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s",
                                 canvas->utf8 ? "█" : "#");
    (void)snprintf(text + used, sizeof text - used, "%s", eighths[rest]);
    styled(canvas, style, text);
    used = 0;
    text[0] = '\0';
    for (unsigned i = full + (rest != 0); i < width; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s",
                                 !track         ? " "
                                 : canvas->utf8 ? "·"
                                                : ".");
    styled(canvas, STYLE_FAINT, text);
}

void canvas_curve(struct canvas *canvas, enum canvas_style style, unsigned width,
                  const double *values, unsigned count)
{
    static const char *const heights[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    double low = (double)INFINITY, high = -(double)INFINITY;
    char text[512] = "";
    size_t used = 0;

    if (!canvas->utf8 || count < 2)
        return;
    if (width > count)
        width = count;
    for (unsigned i = 0; i < count; i++) {
        low = fmin(low, values[i]); /* fmin and fmax pass over NaN */
        high = fmax(high, values[i]);
    }
    for (unsigned i = 0; i < width && used + 4 < sizeof text; i++) {
        double value = values[(uint64_t)(i + 1) * count / width - 1];
        double share = high > low ? (value - low) / (high - low) : 0.0;
        unsigned height = share > 0.0 ? (unsigned)(share * 7.0 + 0.5) : 0;

        used += (size_t)snprintf(text + used, sizeof text - used, "%s",
                                 isfinite(value) ? heights[height] : " ");
    }
    styled(canvas, style, text);
}

void canvas_dot(struct canvas *canvas)
{
    canvas_put(canvas, STYLE_FAINT, "%s", canvas->utf8 ? " · " : " - ");
}

void canvas_line(struct canvas *canvas)
{
    append(canvas, "\033[K\n", 4);
    canvas->column = 0;
    canvas->lines++;
}

/* ---- numbers for people -------------------------------------------------- */

struct word word_count(uint64_t count)
{
    struct word ret = {""};
    char digits[24];
    size_t many =
        (size_t)snprintf(digits, sizeof digits, "%llu", (unsigned long long)count);
    size_t used = 0;

    for (size_t i = 0; i < many; i++) {
        if (i > 0 && (many - i) % 3 == 0)
            ret.text[used++] = ',';
        ret.text[used++] = digits[i];
    }
    ret.text[used] = '\0';
    return ret;
}

struct word word_seconds(double seconds)
{
    struct word ret = {"--:--"};
    unsigned long whole;

    if (!(seconds >= 0.0) || seconds > 1e8)
        return ret;
    whole = (unsigned long)(seconds + 0.5);
    if (whole >= 3600)
        (void)snprintf(ret.text, sizeof ret.text, "%lu:%02lu:%02lu", whole / 3600,
                       whole / 60 % 60, whole % 60);
    else
        (void)snprintf(ret.text, sizeof ret.text, "%lu:%02lu", whole / 60, whole % 60);
    return ret;
}

struct word word_small(double value)
{
    struct word ret = {"--"};

    if (!isfinite(value))
        return ret;
    if (value == 0.0)
        (void)snprintf(ret.text, sizeof ret.text, "0");
    else if (fabs(value) >= 0.001 && fabs(value) < 1000.0)
        (void)snprintf(ret.text, sizeof ret.text, "%.3g", value);
    else
        (void)snprintf(ret.text, sizeof ret.text, "%.2e", value);
    return ret;
}

struct word word_real(double value, int digits)
{
    struct word ret = {"--"};

    if (isfinite(value))
        (void)snprintf(ret.text, sizeof ret.text, "%.*f", digits, value);
    return ret;
}
