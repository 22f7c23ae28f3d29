#include "cluster/report/text.h"

#include <ctype.h>
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK_BYTES ((size_t)64 << 10)
#define REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */

/* ---- memory -------------------------------------------------------------- */

struct arena_block {
    struct arena_block *before;
    size_t used, room;
    max_align_t bytes[];
};

void *arena_take(struct arena *arena, size_t bytes)
{
    const size_t align = sizeof(max_align_t);
    struct arena_block *block = arena->last;
    size_t need;

    if (bytes > SIZE_MAX / 4) {
        arena->failed = true;
        return NULL;
    }
    need = (bytes + align - 1) / align * align;
    if (block == NULL || block->room - block->used < need) {
        size_t room = need > BLOCK_BYTES / 4 ? need : BLOCK_BYTES;

        block = calloc(1, sizeof *block + room);
        if (block == NULL) {
            arena->failed = true;
            return NULL;
        }
        block->room = room;
        block->before = arena->last;
        arena->last = block;
    }
    block->used += need;
    return (char *)block->bytes + (block->used - need);
}

void *arena_grow(struct arena *arena, const void *items, size_t count, size_t bytes)
{
    void *ret;

    if (count > 0 && (count < 8 || (count & (count - 1)) != 0))
        return (void *)(uintptr_t)items; /* room for 8, 16, 32, ... is there */
    if (count > SIZE_MAX / 4 / bytes) {
        arena->failed = true;
        return NULL;
    }
    ret = arena_take(arena, (count < 8 ? 8 : 2 * count) * bytes);
    if (ret != NULL && count > 0)
        memcpy(ret, items, count * bytes);
    return ret;
}

const char *arena_copy(struct arena *arena, const char *text)
{
    size_t bytes = strlen(text) + 1;
    char *ret = arena_take(arena, bytes);

    return ret != NULL ? memcpy(ret, text, bytes) : "";
}

const char *arena_format(struct arena *arena, const char *format, ...)
{
    va_list list, again;
    char *ret = NULL;
    int bytes;

    va_start(list, format);
    va_copy(again, list);
    bytes = vsnprintf(NULL, 0, format, list);
    if (bytes >= 0)
        ret = arena_take(arena, (size_t)bytes + 1);
    if (ret != NULL)
        (void)vsnprintf(ret, (size_t)bytes + 1, format, again);
    va_end(again);
    va_end(list);
    return ret != NULL ? ret : "";
}

void arena_free(struct arena *arena)
{
    while (arena->last != NULL) {
        struct arena_block *block = arena->last;

        arena->last = block->before;
        free(block);
    }
}

/* ---- HTML and UTF-8 ------------------------------------------------------ */

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

/* The second: U+0080 to U+009F, which HTML does not allow. */
static bool control(const char *text)
{
    unsigned char c = (unsigned char)text[0];

    return (c < 0x20 && c != '\n' && c != '\t') || c == 0x7f ||
           (c == 0xc2 && (unsigned char)text[1] < 0xa0);
}

static void write_utf8(FILE *out, const char *text, bool entities)
{
    static const char special[] = "<>&\"'", *const entity[] = {"&lt;", "&gt;", "&amp;",
                                                               "&quot;", "&#39;"};

    while (*text != '\0') {
        size_t bytes = character(text);
        const char *at = entities ? strchr(special, *text) : NULL;

        if (at != NULL)
            (void)fputs(entity[at - special], out);
        else if (bytes == 0 || control(text))
            (void)fputs(REPLACEMENT, out);
        else
            (void)fwrite(text, 1, bytes, out);
        text += bytes > 0 ? bytes : 1;
    }
}

void html_text(FILE *out, const char *text)
{
    write_utf8(out, text, true);
}

const char *text_utf8(struct arena *arena, const char *text)
{
    size_t room = 3 * strlen(text) + 1;
    char *ret = arena_take(arena, room);
    FILE *out = ret != NULL ? fmemopen(ret, room, "w") : NULL;

    if (out == NULL) {
        arena->failed = true;
        return "";
    }
    write_utf8(out, text, false);
    if (fclose(out) != 0)
        arena->failed = true;
    return ret;
}

/* ---- CSV ----------------------------------------------------------------- */

void csv_text(FILE *out, const char *text)
{
    if (text == NULL || strpbrk(text, ",\"\r\n") == NULL) {
        (void)fputs(text != NULL ? text : "", out);
        return;
    }
    (void)fputc('"', out);
    for (; *text != '\0'; text++) {
        if (*text == '"')
            (void)fputc('"', out);
        (void)fputc(*text, out);
    }
    (void)fputc('"', out);
}

void csv_number(FILE *out, double number)
{
    bool whole = fabs(number) < 9e15 && !(floor(number) < number);

    if (isfinite(number))
        (void)fprintf(out, whole ? "%.0f" : "%.9g", number);
}

/* One field from `at` on, into the arena; returns where it ended. */
static const char *field_read(struct arena *arena, const char *at, const char **ret)
{
    size_t bytes = 0, i = 0;
    const char *end;
    char *copy;

    if (*at != '"') {
        bytes = strcspn(at, ",\r\n");
        copy = arena_take(arena, bytes + 1);
        if (copy != NULL)
            memcpy(copy, at, bytes);
        *ret = copy != NULL ? copy : "";
        return at + bytes;
    }
    for (end = at + 1; *end != '\0' && (*end != '"' || end[1] == '"'); end++)
        end += *end == '"' ? 1 : 0;
    copy = arena_take(arena, (size_t)(end - at) + 1);
    for (at++; copy != NULL && at < end; at++) {
        copy[i++] = *at;
        at += *at == '"' ? 1 : 0;
    }
    *ret = copy != NULL ? copy : "";
    end += *end == '"' ? 1 : 0;
    return end + strcspn(end, ",\r\n"); /* what follows a closing quote is no field */
}

size_t csv_row(struct arena *arena, const char **at, const char ***ret)
{
    const char **field = NULL, *c = *at + strspn(*at, "\r\n");
    size_t count = 0;
    bool more = *c != '\0';

    while (more) {
        const char **grown = arena_grow(arena, field, count, sizeof *field);

        if (grown == NULL)
            return 0;
        field = grown;
        c = field_read(arena, c, &field[count++]);
        more = *c == ',';
        c += more ? 1 : 0;
    }
    *at = c;
    *ret = field;
    return count;
}

/* ---- comparing ----------------------------------------------------------- */

double text_number(const char *text)
{
    char *end;
    double ret;

    if (!isdigit((unsigned char)text[0]) && text[0] != '-' && text[0] != '.')
        return (double)NAN;
    ret = strtod(text, &end);
    return *end == '\0' && isfinite(ret) ? ret : (double)NAN;
}

int text_compare(const char *a, const char *b)
{
    double one = text_number(a), other = text_number(b);

    if (isfinite(one) && isfinite(other) && (one < other || one > other))
        return one < other ? -1 : 1;
    while (*a != '\0' && *b != '\0') {
        if (isdigit((unsigned char)*a) && isdigit((unsigned char)*b)) {
            char *a_end, *b_end;
            unsigned long long m = strtoull(a, &a_end, 10), n = strtoull(b, &b_end, 10);

            if (m != n)
                return m < n ? -1 : 1;
            a = a_end, b = b_end;
        } else if (*a != *b) {
            return (unsigned char)*a < (unsigned char)*b ? -1 : 1;
        } else {
            a++, b++;
        }
    }
    return (*a != '\0') - (*b != '\0');
}
