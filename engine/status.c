/* Texts of status codes, and the one function that writes an error. */
#include <gapless/status.h>

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *gapless_strerror(int status)
{
    switch (status) {
#define GAPLESS_STATUS_CASE(symbol, value, text)                                       \
    case value:                                                                        \
        return text;
        GAPLESS_STATUS_TABLE(GAPLESS_STATUS_CASE)
#undef GAPLESS_STATUS_CASE
    default:
        return "unknown status";
    }
}

int gapless_error_set(struct gapless_error *ret, int status, int os, const char *format,
                      ...)
{
    va_list list;
    int used;

    if (ret == NULL)
        return status;
    ret->status = status;
    ret->os = os;
    va_start(list, format);
    used = vsnprintf(ret->text, sizeof ret->text, format, list);
    va_end(list);
    if (os != 0 && used >= 0 && (size_t)used < sizeof ret->text)
        (void)snprintf(ret->text + used, sizeof ret->text - (size_t)used, " (%s)",
                       strerror(os));
    return status;
}
