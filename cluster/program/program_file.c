/* Where this program is. */
#include "cluster/program/program.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void program_file(char *ret, size_t max)
{
    static const char link[] = "/proc/self/exe";
    ssize_t bytes = readlink(link, ret, max - 1);

    if (bytes > 0)
        ret[bytes] = '\0';
    if (bytes <= 0 || access(ret, X_OK) != 0)
        (void)snprintf(ret, max, "%s", link);
}

void program_python_path(void)
{
    char program[1024], folder[1100], file[1200], path[4096];
    const char *given = getenv("PYTHONPATH");
    char *slash;

    program_file(program, sizeof program);
    slash = strrchr(program, '/');
    if (slash == NULL)
        return;
    *slash = '\0';
    (void)snprintf(folder, sizeof folder, "%s/../python", program);
    (void)snprintf(file, sizeof file, "%s/gapless/__init__.py", folder);
    if (access(file, R_OK) != 0)
        return;
    (void)snprintf(path, sizeof path, "%s%s%s", given != NULL ? given : "",
                   given != NULL && given[0] != '\0' ? ":" : "", folder);
    if (strlen(path) + 1 < sizeof path)
        (void)setenv("PYTHONPATH", path, 1);
}
