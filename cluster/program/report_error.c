/* What goes wrong, said on stderr in one line. */
#include "cluster/program/program.h"

#include <stdarg.h>
#include <stdio.h>

void report_failure(const char *command, const char *format, ...)
{
    va_list list;

    (void)fflush(stdout);
    (void)fprintf(stderr, "gapless %s: ", command);
    va_start(list, format);
    (void)vfprintf(stderr, format, list);
    va_end(list);
    (void)fprintf(stderr, "\n");
}

bool program_printed(const char *command)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return true;
    report_failure(command, "cannot write to the standard output");
    return false;
}

bool report_diverged(const char *command, const struct gapless_stats *stats)
{
    char words[256];
    bool ret = gapless_divergence(stats, words, sizeof words);

    if (ret)
        report_failure(command, "%s", words);
    return ret;
}

int report_error(const char *command, const struct gapless_error *error)
{
    report_failure(command, "%s",
                   error->text[0] != '\0' ? error->text
                                          : gapless_strerror(error->status));
    return error->status == GAPLESS_INVALID ? EXIT_MISUSE : EXIT_FAILED;
}
