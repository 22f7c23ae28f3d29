/* Lines of text for people, put together in room of the caller's: what does not fit is
 * cut off. */
#ifndef ENGINE_TEXT_PAGE_H
#define ENGINE_TEXT_PAGE_H

#include <stddef.h>

struct text_page {
    char *text; /* ends with a NUL */
    size_t bytes, used;
};

/* The page begins empty. `bytes` of room; with 0, nothing is ever written. */
struct text_page text_page(char *text, size_t bytes);
void text_add(struct text_page *page, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
