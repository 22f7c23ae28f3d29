/* Builds the header of a safetensors file. Names are plain (layout.c checked them), so that
 * only metadata needs escapes. */
#include "engine/run/safetensors.h"

#include "engine/base/array.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

static void append(struct header_text *t, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void append(struct header_text *t, const char *format, ...)
{
    va_list list;
    char *more;
    int n;

    more = array_room(t->data, &t->room, t->used + 1024, 1);
    if (more == NULL) {
        t->failed = true;
        return;
    }
    t->data = more;
    va_start(list, format);
    n = vsnprintf(t->data + t->used, t->room - t->used, format, list);
    va_end(list);
    if (n < 0 || (size_t)n >= t->room - t->used)
        t->failed = true;
    else
        t->used += (size_t)n;
}

/* As a JSON string, however long. */
static void append_string(struct header_text *t, const char *text)
{
    append(t, "\"");
    for (; *text != '\0' && !t->failed; text++) {
        unsigned char byte = (unsigned char)*text;

        if (byte == '"' || byte == '\\')
            append(t, "\\%c", byte);
        else if (byte < 0x20)
            append(t, "\\u%04x", byte);
        else
            append(t, "%c", byte);
    }
    append(t, "\"");
}

void header_begin(struct header_text *t)
{
    append(t, "{\"" HEADER_METADATA "\":{\"format\":\"pt\"");
}

void header_say(struct header_text *t, const char *key, const char *value)
{
    append(t, ",");
    append_string(t, key);
    append(t, ":");
    append_string(t, value);
}

void header_metadata_end(struct header_text *t)
{
    append(t, "}");
}

void header_tensor(struct header_text *t, const struct header_tensor *tensor)
{
    uint64_t bytes = tensor->element_bytes;
    uint32_t d;

    append(t, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", tensor->name, tensor->type);
    for (d = 0; d < tensor->dims; d++) {
        append(t, d == 0 ? "%" PRIu64 : ",%" PRIu64, tensor->dim[d]);
        bytes *= tensor->dim[d];
    }
    append(t, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", t->at, t->at + bytes);
    t->at += bytes;
}

void header_end(struct header_text *t, size_t bytes)
{
    append(t, "}");
    while (!t->failed && (t->used % 8 != 0 || t->used < bytes))
        append(t, " ");
}
