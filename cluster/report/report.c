/* The report: reads, then writes. */
#include "cluster/report/report.h"

#include "cluster/task/results.h"
#include "cluster/report/report_data.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static bool is_page(const char *path)
{
    const char *dot = strrchr(path, '.');

    return dot != NULL && (strcmp(dot, ".html") == 0 || strcmp(dot, ".htm") == 0);
}

int report_out_path(const char *first, const char *out, char *ret, size_t max,
                    struct gapless_error *error)
{
    const char *folder = out != NULL ? out : first;
    size_t bytes = strlen(folder);
    int status = GAPLESS_OK, used;
    struct stat info;

    if (out != NULL &&
        (stat(out, &info) == 0 ? !S_ISDIR(info.st_mode) : is_page(out))) {
        used = snprintf(ret, max, "%s", out);
    } else {
        used = snprintf(ret, max, "%s%sreport.html", folder,
                        bytes > 0 && folder[bytes - 1] == '/' ? "" : "/");
    }
    if (used < 0 || (size_t)used >= max)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "the path of the page is too long");
    if (out != NULL) { /* the folder that it goes into */
        char parent[RESULTS_PATH_MAX];
        const char *slash = strrchr(ret, '/');

        (void)snprintf(parent, sizeof parent, "%.*s",
                       slash != NULL ? (int)(slash - ret) : 0, ret);
        if (parent[0] != '\0')
            status = results_folder(parent, error);
    }
    return status;
}

int report_write(const char *const *dirs, size_t count, const char *out_path,
                 const char *title, double target, struct gapless_error *error)
{
    struct report report = {.target = target};
    char path[RESULTS_PATH_MAX];
    int status;

    if (count == 0)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "name the folder of a run or a study");
    status = report_load(&report, dirs, count, error);
    if (status == GAPLESS_OK)
        status = report_out_path(dirs[0], out_path, path, sizeof path, error);
    if (status == GAPLESS_OK)
        status = report_page_write(&report, path, title, error);
    report_free(&report);
    return status;
}
