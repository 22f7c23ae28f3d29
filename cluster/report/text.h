/* Texts of the report: memory that is freed at once, HTML, CSV, and comparing. */
#ifndef CLUSTER_REPORT_TEXT_H
#define CLUSTER_REPORT_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* ---- memory -------------------------------------------------------------- */

struct arena {
    struct arena_block *last;
    bool failed; /* there was no memory: all that follows is not complete */
};
/* Zeroed; NULL: no memory. */
void *arena_take(struct arena *arena, size_t bytes);
/* An array of `count` elements gets room for one more, zeroed; it may move. NULL: no
 * memory. */
void *arena_grow(struct arena *arena, const void *items, size_t count, size_t bytes);
/* Copies; "" where there is no memory. */
const char *arena_copy(struct arena *arena, const char *text);
const char *arena_format(struct arena *arena, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void arena_free(struct arena *arena);

/* ---- HTML and UTF-8 ------------------------------------------------------ */

/* Writes text from outside, for use between tags and in quoted attributes: < > & " and '
 * become entities; what is not UTF-8, and control characters, become U+FFFD. */
void html_text(FILE *out, const char *text);
/* The text in UTF-8, what is not replaced as above; for JSON. */
const char *text_utf8(struct arena *arena, const char *text);

/* ---- CSV (RFC 4180) ------------------------------------------------------ */

/* In quotes where it has to be; nothing for NULL. */
void csv_text(FILE *out, const char *text);
/* Nine digits; whole numbers, such as bytes, in full; nothing if it is not finite. */
void csv_number(FILE *out, double number);
/* A row, from *at on; moves *at behind it. Returns the fields, which lie in the arena; 0
 * at the end. */
size_t csv_row(struct arena *arena, const char **at, const char ***ret);

/* ---- comparing ----------------------------------------------------------- */

/* The number that is the whole text; NaN otherwise. */
double text_number(const char *text);
/* Numbers by value, other texts by letter with the numbers in them by value. */
int text_compare(const char *a, const char *b);

#endif
