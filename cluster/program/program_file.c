/* Where this program is. */
#include "cluster/program/program.h"

#include <stdio.h>
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
