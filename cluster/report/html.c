/* Text that grows, and what has to be escaped in it. */
#include "cluster/report/html.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HTML_MAX ((size_t)1 << 30) /* no page is a gigabyte: something is wrong */

static bool reserve(struct html *html, size_t more)
{
    size_t room = html->room < 4096 ? 4096 : html->room;
    char *bytes;

    if (html->failed || more > HTML_MAX || html->used + more + 1 > HTML_MAX) {
        html->failed = true;
        return false;
    }
    while (room < html->used + more + 1)
        room *= 2;
    if (room == html->room)
        return true;
    bytes = realloc(html->bytes, room);
    if (bytes == NULL) {
        html->failed = true;
        return false;
    }
    html->bytes = bytes;
    html->room = room;
    return true;
}

void html_bytes(struct html *html, const char *bytes, size_t count)
{
    if (!reserve(html, count))
        return;
    memcpy(html->bytes + html->used, bytes, count);
    html->used += count;
    html->bytes[html->used] = '\0';
}

void html_raw(struct html *html, const char *text)
{
    html_bytes(html, text, strlen(text));
}

void html_format(struct html *html, const char *format, ...)
{
    va_list list, again;
    int bytes;

    va_start(list, format);
    va_copy(again, list);
    bytes = vsnprintf(NULL, 0, format, list);
    if (bytes < 0)
        html->failed = true;
    else if (reserve(html, (size_t)bytes)) {
        (void)vsnprintf(html->bytes + html->used, (size_t)bytes + 1, format, again);
        html->used += (size_t)bytes;
    }
    va_end(again);
    va_end(list);
}

/* ---- UTF-8 --------------------------------------------------------------- */

/* Bytes of the well-formed character at `text`; 0: it is none. */
static size_t character(const char *text)
{
    const unsigned char *c = (const unsigned char *)text;
    size_t more = 0;
    uint32_t code, low;

    if (c[0] < 0x80)
        return 1;
    if (c[0] >= 0xc2 && c[0] <= 0xdf)
        more = 1, code = c[0] & 0x1fu, low = 0x80;
    else if ((c[0] & 0xf0) == 0xe0)
        more = 2, code = c[0] & 0x0fu, low = 0x800;
    else if (c[0] >= 0xf0 && c[0] <= 0xf4)
        more = 3, code = c[0] & 0x07u, low = 0x10000;
    else
        return 0;
    for (size_t i = 1; i <= more; i++) {
        if ((c[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (c[i] & 0x3fu);
    }
    if (code < low || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff) ||
        code == 0xfffe || code == 0xffff)
        return 0;
    return more + 1;
}

static const char *entity(char c)
{
    switch (c) {
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '&':
        return "&amp;";
    case '"':
        return "&quot;";
    case '\'':
        return "&#39;";
    default:
        return NULL;
    }
}

static bool control(const char *text)
{
    unsigned char c = (unsigned char)text[0];

    /* The second: U+0080 to U+009F, which HTML does not allow. */
    return (c < 0x20 && c != '\n' && c != '\t') || c == 0x7f ||
           (c == 0xc2 && (unsigned char)text[1] < 0xa0);
}

void html_text_cut(struct html *html, const char *text, size_t letters)
{
    bool cut = html_letters(text) > letters;

    if (cut && letters > 0)
        letters--;
    while (*text != '\0' && letters-- > 0) {
        size_t bytes = character(text);
        const char *written = bytes == 1 ? entity(*text) : NULL;

        if (written != NULL)
            html_raw(html, written);
        else if (bytes == 0 || control(text))
            html_raw(html, "\xef\xbf\xbd");
        else
            html_bytes(html, text, bytes);
        text += bytes > 0 ? bytes : 1;
    }
    if (cut)
        html_raw(html, "\xe2\x80\xa6");
}

void html_text(struct html *html, const char *text)
{
    html_text_cut(html, text, SIZE_MAX);
}

size_t html_letters(const char *text)
{
    size_t ret = 0;

    for (; *text != '\0'; ret++) {
        size_t bytes = character(text);

        text += bytes > 0 ? bytes : 1;
    }
    return ret;
}

void html_free(struct html *html)
{
    free(html->bytes);
    *html = (struct html){0};
}
