/* Lines of text for people. */
#include "engine/base/text_page.h"

#include <stdarg.h>
#include <stdio.h>

struct text_page text_page(char *text, size_t bytes)
{
    if (bytes > 0)
        text[0] = '\0';
    return (struct text_page){text, bytes, 0};
}

void text_add(struct text_page *page, const char *format, ...)
{
    size_t room = page->bytes - page->used;
    va_list list;
    int length;

    if (room == 0)
        return;
    va_start(list, format);
    length = vsnprintf(page->text + page->used, room, format, list);
    va_end(list);
    if (length > 0)
        page->used += (size_t)length < room ? (size_t)length : room - 1;
}
