/* Text for a terminal, built line by line in memory and never wider than it: styled
 * words, bars, small curves. What would go past the right edge is cut off. Without
 * UTF-8 or colours the same calls draw plain ASCII. */
#ifndef CLUSTER_CANVAS_H
#define CLUSTER_CANVAS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CANVAS_BYTES 65536 /* 250 lines of 80 columns with a style on every third */

enum canvas_style {
    STYLE_PLAIN,
    STYLE_STRONG,
    STYLE_FAINT,
    STYLE_GOOD,
    STYLE_WARN,
    STYLE_BAD,
    STYLE_ACCENT
};

struct canvas {
    char text[CANVAS_BYTES];
    size_t used;
    unsigned width, column, lines;
    bool utf8, color;
};

/* Starts afresh. */
void canvas_begin(struct canvas *canvas, unsigned width, bool utf8, bool color);
/* Adds to the line. */
void canvas_put(struct canvas *canvas, enum canvas_style style, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Spaces up to a column, the leftmost being 0. */
void canvas_to(struct canvas *canvas, unsigned column);
/* So that the text ends left of `column`. */
void canvas_right(struct canvas *canvas, unsigned column, enum canvas_style style,
                  const char *format, ...) __attribute__((format(printf, 4, 5)));
/* A bar of `width` columns, filled by `share` (cut to 0..1); the rest dotted if
 * `track`. */
void canvas_bar(struct canvas *canvas, enum canvas_style style, unsigned width,
                double share, bool track);
/* A curve of `width` columns, one row high, from the least to the largest value.
 * Nothing without UTF-8. */
void canvas_curve(struct canvas *canvas, enum canvas_style style, unsigned width,
                  const double *values, unsigned count);
/* " · " or " - ". */
void canvas_dot(struct canvas *canvas);
/* Ends the line: clears what an earlier frame left right of it. */
void canvas_line(struct canvas *canvas);

/* What a worker is called, by its number: in the picture, in messages, in result.json and
 * by the file of its log. */
#define WORKER_NAME "worker-%02u"

/* ---- numbers for people -------------------------------------------------- */

#define WORD_MAX 32
struct word {
    char text[WORD_MAX];
};
struct word word_count(uint64_t count);   /* 1,234,567 */
struct word word_seconds(double seconds); /* 0:07, 12:34, 1:02:03; --:-- if unknown */
struct word word_small(double value);     /* 0.0123, 1.2e-05, -- */
struct word word_real(double value, int digits); /* fixed point, -- if not finite */

#endif
