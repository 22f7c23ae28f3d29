/* Finding the runs and studies in the folders that were named. */
#include "cluster/report/report_data.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEPTH_MAX 2 /* levels below a DIR in which runs are looked for */
#define RUNS_MAX 100000u
#define SEEN_MAX 20000u /* from this many on, no look for a folder named twice */

struct finder {
    struct report *report;
    struct report_set plain; /* the runs that belong to no study */
    dev_t *device;           /* folders already read: one named twice counts once */
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
    struct report_arena *arena = &finder->report->arena;
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
static const char *last_part(struct report_arena *arena, const char *path)
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
    struct report_set *grown =
        arena_grow(&report->arena, report->set, report->sets, sizeof *grown);

    if (grown == NULL)
        return;
    report->set = grown;
    grown += report->sets;
    grown->folder = arena_copy(&report->arena, folder);
    grown->name = last_part(&report->arena, folder);
    report_study_read(report, grown);
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
    struct report_set *set = &finder->plain;
    struct report_run *grown;

    if (set->runs == RUNS_MAX)
        return;
    if (set->columns == 0)
        report_run_columns(report, set);
    grown = arena_grow(&report->arena, set->run, set->runs, sizeof *grown);
    if (grown == NULL)
        return;
    set->run = grown;
    grown += set->runs;
    grown->folder = arena_copy(&report->arena, folder);
    grown->place = set->runs;
    grown->field =
        arena_take(&report->arena, (set->columns + 1) * sizeof *grown->field);
    if (grown->field == NULL || set->columns == 0)
        return;
    set->runs++;
    report_run_read(report, set, grown, true);
    grown->field[0] = last_part(&report->arena, folder);
}

static int visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
    return report_compare((*a)->d_name, (*b)->d_name);
}

/* What a folder is; of one that is neither, what is in it. */
static void look(struct finder *finder, const char *folder, int depth)
{
    struct dirent **entry = NULL;
    int count;

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
    count = scandir(folder, &entry, visible, by_name);
    for (int i = 0; i < count; i++) {
        const char *path = arena_format(&finder->report->arena, "%s%s%s", folder,
                                        folder[strlen(folder) - 1] == '/' ? "" : "/",
                                        entry[i]->d_name);
        struct stat info;

        if (stat(path, &info) == 0 && S_ISDIR(info.st_mode))
            look(finder, path, depth - 1);
        free(entry[i]);
    }
    free(entry);
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

/* The plain runs are a set too, if there are any: the last. */
static void add_plain(struct finder *finder, const char *dir)
{
    struct report *report = finder->report;
    struct report_set *grown;

    if (finder->plain.runs == 0)
        return;
    report_run_tidy(report, &finder->plain);
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

    for (size_t i = 0; i < count; i++) {
        int status = check(dirs[i], error);

        if (status != GAPLESS_OK)
            return status;
    }
    for (size_t i = 0; i < count; i++) {
        look(&finder, dirs[i], DEPTH_MAX);
        if (finder.found == before)
            return gapless_error_set(
                error, GAPLESS_MISSING, 0,
                "there is no run in %.300s: name a folder that train, simulate or "
                "study "
                "wrote (one with result.json or study.ini), or one that holds such",
                dirs[i]);
        before = finder.found;
    }
    add_plain(&finder, count > 0 ? dirs[0] : ".");
    if (report->arena.failed)
        return gapless_error_set(
            error, GAPLESS_NO_MEMORY, 0,
            "no memory for this many runs: report on fewer at a time");
    if (report->sets == 0)
        return gapless_error_set(error, GAPLESS_MISSING, 0,
                                 "no run could be read%s%.360s",
                                 report->complaints > 0 ? ": " : "",
                                 report->complaints > 0 ? report->complaint[0] : "");
    return GAPLESS_OK;
}
