/* Text that grows: what pages, pictures and data files are written into before they
 * become files. Adding never fails in the caller's hands: the first lack of memory sets
 * `failed`, and from there on nothing is added.
 */
#ifndef CLUSTER_HTML_H
#define CLUSTER_HTML_H

#include <stdbool.h>
#include <stddef.h>

struct html {
    char *bytes; /* ends in '\0' once something was added */
    size_t used, room;
    bool failed;
};

/* Adds bytes as they are. */
void html_raw(struct html *html, const char *text);
void html_bytes(struct html *html, const char *bytes, size_t count);
/* Formatted, as it is: for numbers and for text that needs no escaping. */
void html_format(struct html *html, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Text from outside, for HTML and XML, between tags and in quoted attributes: < > & "
 * and ' become entities; what is not UTF-8, and control characters, become U+FFFD. */
void html_text(struct html *html, const char *text);
/* The same, cut to at most `letters` with an ellipsis at the end. */
void html_text_cut(struct html *html, const char *text, size_t letters);
/* Letters (code points, roughly) of a text. */
size_t html_letters(const char *text);
void html_free(struct html *html);

#endif
