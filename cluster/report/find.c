/* Finding the runs and studies in the folders that were named; small questions about
 * what was read. */
#include "cluster/report/data.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEPTH_MAX 2 /* levels below a DIR in which runs are looked for */
#define RUNS_MAX 100000u
#define SEEN_MAX 20000u /* from this many on, no look for a folder named twice */
#define NAMED_MAX 4000u /* plain runs kept apart by more than their folder */
#define COMPLAINTS_MAX 200u

/* ---- complaints ---------------------------------------------------------- */

void report_complain(struct report *report, const char *format, ...)
{
    char text[1400];
    const char **grown;
    va_list list;

    if (report->complaints == COMPLAINTS_MAX) {
        report->complaints_more++;
        return;
    }
    va_start(list, format);
    (void)vsnprintf(text, sizeof text, format, list);
    va_end(list);
    grown = arena_grow(&report->arena, report->complaint, report->complaints,
                       sizeof *grown);
    if (grown == NULL)
        return;
    report->complaint = grown;
    report->complaint[report->complaints++] = arena_copy(&report->arena, text);
}

/* ---- questions ----------------------------------------------------------- */

size_t set_column(const struct set *set, const char *name)
{
    for (size_t i = 0; i < set->columns; i++)
        if (strcmp(set->column[i], name) == 0)
            return i;
    return SIZE_MAX;
}

const char *run_field(const struct set *set, const struct run *run, const char *column)
{
    size_t at = set_column(set, column);

    return at != SIZE_MAX && run->field[at] != NULL ? run->field[at] : "";
}

double run_number(const struct set *set, const struct run *run, const char *column)
{
    return text_number(run_field(set, run, column));
}

enum run_status run_status(const struct set *set, const struct run *run)
{
    const char *status = run_field(set, run, "status");

    for (enum run_status i = RUN_MISSING; i <= RUN_FAILED; i++)
        if (strcmp(status, run_status_name(i)) == 0)
            return i;
    return RUN_MISSING;
}

bool run_has_numbers(const struct set *set, const struct run *run)
{
    enum run_status status = run_status(set, run);

    return status == RUN_DONE || status == RUN_DIVERGED || status == RUN_STOPPED;
}

size_t report_runs(const struct report *report)
{
    size_t ret = 0;

    for (size_t i = 0; i < report->sets; i++)
        ret += report->set[i].runs;
    return ret;
}

void report_free(struct report *report)
{
    arena_free(&report->arena);
    *report = (struct report){0};
}

/* ---- looking ------------------------------------------------------------- */

struct finder {
    struct report *report;
    struct set plain; /* the runs that belong to no study */
    dev_t *device;    /* folders already read: one named twice counts once */
    ino_t *inode;
    size_t seen, found;
};

static bool has(const char *folder, const char *name)
{
    char path[4096];
    struct stat info;
    int used = snprintf(path, sizeof path, "%s/%s", folder, name);

    return used > 0 && (size_t)used < sizeof path && stat(path, &info) == 0 &&
           !S_ISDIR(info.st_mode);
}

/* Notes the folder. False: it was noted before. */
static bool fresh(struct finder *finder, const char *folder)
{
    struct arena *arena = &finder->report->arena;
    struct stat info;
    dev_t *devices;
    ino_t *inodes;

    if (stat(folder, &info) != 0)
        return false;
    for (size_t i = 0; i < finder->seen && finder->seen < SEEN_MAX; i++)
        if (finder->device[i] == info.st_dev && finder->inode[i] == info.st_ino)
            return false;
    devices = arena_grow(arena, finder->device, finder->seen, sizeof *devices);
    inodes = arena_grow(arena, finder->inode, finder->seen, sizeof *inodes);
    if (devices == NULL || inodes == NULL)
        return false;
    devices[finder->seen] = info.st_dev;
    inodes[finder->seen] = info.st_ino;
    finder->device = devices;
    finder->inode = inodes;
    finder->seen++;
    return true;
}

/* The last part of a path: "b" of "/a/b/". Of "." it is that of the real path. */
static const char *last_part(struct arena *arena, const char *path)
{
    char *real = realpath(path, NULL);
    const char *slash, *ret;

    if (real == NULL)
        return path;
    slash = strrchr(real, '/');
    ret = arena_copy(arena, slash != NULL && slash[1] != '\0' ? slash + 1 : real);
    free(real);
    return ret;
}

static void add_study(struct finder *finder, const char *folder)
{
    struct report *report = finder->report;
    struct set *grown =
        arena_grow(&report->arena, report->set, report->sets, sizeof *grown);

    if (grown == NULL)
        return;
    report->set = grown;
    grown += report->sets;
    grown->folder = arena_copy(&report->arena, folder);
    grown->name = last_part(&report->arena, folder);
    study_folder_read(report, grown);
    if (grown->runs == 0) {
        report_complain(report, "%s: a study without a run", folder);
        memset(grown, 0, sizeof *grown);
        return;
    }
    report->sets++;
}

static void add_run(struct finder *finder, const char *folder)
{
    struct report *report = finder->report;
    struct set *set = &finder->plain;
    struct run *grown;

    if (set->runs == RUNS_MAX)
        return;
    if (set->columns == 0)
        run_columns(report, set);
    set->target = report->target > 0 ? report->target : REPORT_TARGET;
    grown = arena_grow(&report->arena, set->run, set->runs, sizeof *grown);
    if (grown == NULL)
        return;
    set->run = grown;
    grown += set->runs;
    grown->folder = arena_copy(&report->arena, folder);
    grown->field =
        arena_take(&report->arena, (set->columns + 1) * sizeof *grown->field);
    if (grown->field == NULL || set->columns == 0)
        return;
    set->runs++;
    run_read(report, set, grown, true);
    grown->field[0] = last_part(&report->arena, folder);
}

static int visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return text_compare((*a)->d_name, (*b)->d_name);
}

size_t folder_names(struct arena *arena, const char *folder, const char ***ret)
{
    struct dirent **entry = NULL;
    int count = scandir(folder, &entry, visible, by_name);
    const char **name =
        arena_take(arena, (count > 0 ? (size_t)count : 1) * sizeof *name);

    for (int i = 0; i < count; i++) {
        if (name != NULL)
            name[i] = arena_copy(arena, entry[i]->d_name);
        free(entry[i]);
    }
    free(entry);
    *ret = name;
    return name != NULL && count > 0 ? (size_t)count : 0;
}

/* What a folder is; of one that is neither, what is in it. */
static void look(struct finder *finder, const char *folder, int depth)
{
    const char **name;
    size_t count;

    if (has(folder, "study.ini") || has(folder, "study.csv")) {
        finder->found++;
        if (fresh(finder, folder))
            add_study(finder, folder);
        return;
    }
    if (has(folder, "result.json") || has(folder, "run.json") ||
        has(folder, "metrics.jsonl")) {
        finder->found++;
        if (fresh(finder, folder))
            add_run(finder, folder);
        return;
    }
    if (depth == 0)
        return;
    count = folder_names(&finder->report->arena, folder, &name);
    for (size_t i = 0; i < count; i++) {
        const char *path =
            arena_format(&finder->report->arena, "%s%s%s", folder,
                         folder[strlen(folder) - 1] == '/' ? "" : "/", name[i]);
        struct stat info;

        if (stat(path, &info) == 0 && S_ISDIR(info.st_mode))
            look(finder, path, depth - 1);
    }
}

static int check(const char *dir, struct gapless_error *error)
{
    struct stat info;

    if (dir[0] == '\0' || stat(dir, &info) != 0)
        return gapless_error_set(error, GAPLESS_MISSING,
                                 dir[0] != '\0' ? errno : ENOENT,
                                 "cannot open the folder '%.300s'", dir);
    if (!S_ISDIR(info.st_mode))
        return gapless_error_set(
            error, GAPLESS_MISSING, 0,
            "%.300s is a file: name the folder of a run or a study", dir);
    return GAPLESS_OK;
}

/* Runs whose folders have the same name are called by their paths. */
static void names_tell_apart(struct arena *arena, struct set *set)
{
    const char **name = arena_take(arena, set->runs * sizeof *name);

    for (size_t i = 0; name != NULL && i < set->runs; i++)
        name[i] = set->run[i].field[0];
    for (size_t i = 0; name != NULL && i < set->runs && set->runs <= NAMED_MAX; i++)
        for (size_t k = 0; k < set->runs; k++)
            if (k != i && strcmp(name[k], name[i]) == 0)
                set->run[i].field[0] = set->run[i].folder;
}

/* The plain runs are a set too, if there are any: the last. */
static void add_plain(struct finder *finder, const char *dir)
{
    struct report *report = finder->report;
    struct set *grown;

    if (finder->plain.runs == 0)
        return;
    run_columns_tidy(report, &finder->plain);
    names_tell_apart(&report->arena, &finder->plain);
    grown = arena_grow(&report->arena, report->set, report->sets, sizeof *grown);
    if (grown == NULL)
        return;
    report->set = grown;
    finder->plain.folder = arena_copy(&report->arena, dir);
    finder->plain.name = report->sets == 0 ? last_part(&report->arena, dir) : "runs";
    report->set[report->sets++] = finder->plain;
}

int report_load(struct report *report, const char *const *dirs, size_t count,
                struct gapless_error *error)
{
    struct finder finder = {.report = report};
    size_t before = 0;

    if (count == 0)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "name the folder of a run or a study");
    for (size_t i = 0; i < count; i++) {
        int status = check(dirs[i], error);

        if (status != GAPLESS_OK)
            return status;
    }
    for (size_t i = 0; i < count; i++) {
        look(&finder, dirs[i], DEPTH_MAX);
        if (finder.found == before &&
            faccessat(AT_FDCWD, dirs[i], R_OK | X_OK, AT_EACCESS) != 0)
            return gapless_error_set(error, GAPLESS_IO, errno,
                                     "cannot read the folder '%.300s'", dirs[i]);
        if (finder.found == before)
            return gapless_error_set(
                error, GAPLESS_MISSING, 0,
                "there is no run in %.300s: name a folder that train, simulate or "
                "study wrote (one with result.json or study.ini), or one that holds "
                "such",
                dirs[i]);
        before = finder.found;
    }
    add_plain(&finder, dirs[0]);
    if (report->arena.failed)
        return gapless_error_set(
            error, GAPLESS_NO_MEMORY, 0,
            "no memory for all these runs: report on fewer at a time");
    if (report->sets == 0)
        return gapless_error_set(error, GAPLESS_MISSING, 0,
                                 "no run could be read%s%.360s",
                                 report->complaints > 0 ? ": " : "",
                                 report->complaints > 0 ? report->complaint[0] : "");
    return GAPLESS_OK;
}
