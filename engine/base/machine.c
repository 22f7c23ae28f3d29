/* Processors and memory that this process may use. */
#include "engine/base/machine.h"

#include "engine/base/text_file.h"

#include <gapless/gapless.h>

#include <inttypes.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PATH_BYTES 4096
#define GROUPS "/sys/fs/cgroup"

/* ---- files of the kernel ------------------------------------------------- */

/* The first line of root/folder/name. */
static bool first_line(const char *root, const char *folder, const char *name,
                       char *ret, size_t bytes)
{
    char path[PATH_BYTES];
    int used = snprintf(path, sizeof path, "%s%s/%s", root, folder, name);

    return used > 0 && (size_t)used < sizeof path && text_first_line(path, ret, bytes);
}

/* A number alone on the first line. False also for "max". */
static bool number(const char *root, const char *folder, const char *name, int64_t *ret)
{
    char line[64], *end;

    if (!first_line(root, folder, name, line, sizeof line))
        return false;
    *ret = strtoll(line, &end, 10);
    return end != line;
}

/* The number behind `key` at the beginning of a line. */
static bool keyed(const char *root, const char *folder, const char *name,
                  const char *key, uint64_t *ret)
{
    char path[PATH_BYTES], line[256];
    size_t bytes = strlen(key);
    bool found = false;
    FILE *file;

    (void)snprintf(path, sizeof path, "%s%s/%s", root, folder, name);
    file = fopen(path, "re");
    while (file != NULL && !found && fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, key, bytes) == 0) {
            *ret = strtoull(line + bytes, NULL, 10);
            found = true;
        }
    if (file != NULL)
        (void)fclose(file);
    return found;
}

static bool has_word(const char *list, size_t bytes, const char *word)
{
    size_t length = strlen(word);

    for (size_t at = 0; at + length <= bytes; at += strcspn(list + at, ",:") + 1)
        if (strncmp(list + at, word, length) == 0 &&
            (list[at + length] == ',' || list[at + length] == ':'))
            return true;
    return false;
}

/* The folder of this process's group: of version 1 that of `controller`, of version 2 (""
 * for the controller) the one of all. A line is ID:CONTROLLERS:PATH. */
static bool group_folder(const char *root, const char *controller, char *ret,
                         size_t bytes)
{
    char path[PATH_BYTES], line[PATH_BYTES];
    bool found = false;
    FILE *file;

    (void)snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    file = fopen(path, "re");
    while (file != NULL && !found && fgets(line, sizeof line, file) != NULL) {
        const char *list = strchr(line, ':');
        const char *where = list != NULL ? strchr(list + 1, ':') : NULL;
        size_t size;

        if (where == NULL)
            continue;
        size = (size_t)(where - list);
        line[strcspn(line, "\n")] = '\0';
        if (controller[0] == '\0' ? size != 1
                                  : !has_word(list + 1, size - 1, controller))
            continue;
        found =
            snprintf(ret, bytes, GROUPS "%s%.*s%s", controller[0] != '\0' ? "/" : "",
                     (int)(size - 1), list + 1, where + 1) < (int)bytes;
    }
    if (file != NULL)
        (void)fclose(file);
    return found;
}

/* The group above, as far as the root of its tree, which may be all that a container sees.
 * False: there is none. */
static bool go_up(char *folder, const char *root_folder)
{
    char *slash = strrchr(folder, '/');

    if (strlen(folder) <= strlen(root_folder) || slash == NULL)
        return false;
    *slash = '\0';
    return true;
}

/* The root of the tree that `folder` is in. */
static void tree_of(const char *folder, const char *controller, char *ret, size_t bytes)
{
    size_t used = strlen(GROUPS);

    if (controller[0] != '\0') /* /sys/fs/cgroup/cpu,cpuacct */
        used += 1 + strcspn(folder + used + 1, "/");
    (void)snprintf(ret, bytes, "%.*s", (int)used, folder);
}

/* From the group of this process up, for (there = groups_begin(); there; there = go_up()). */
struct groups {
    char folder[PATH_BYTES], tree[PATH_BYTES];
};

static bool groups_begin(const char *root, const char *controller, struct groups *ret)
{
    if (!group_folder(root, controller, ret->folder, sizeof ret->folder))
        return false;
    tree_of(ret->folder, controller, ret->tree, sizeof ret->tree);
    return true;
}

/* ---- processors ---------------------------------------------------------- */

static double quota_two(const char *root, const char *folder)
{
    char line[64], *end;
    double quota, period;

    if (!first_line(root, folder, "cpu.max", line, sizeof line))
        return 0.0;
    quota = strtod(line, &end);
    period = strtod(end, NULL);
    return end != line && quota > 0.0 && period > 0.0 ? quota / period : 0.0;
}

static double quota_one(const char *root, const char *folder)
{
    int64_t quota, period;

    return number(root, folder, "cpu.cfs_quota_us", &quota) &&
                   number(root, folder, "cpu.cfs_period_us", &period) && quota > 0 &&
                   period > 0
               ? (double)quota / (double)period
               : 0.0;
}

uint32_t machine_quota_at(const char *root)
{
    static const struct {
        const char *controller;
        double (*read)(const char *root, const char *folder);
    } versions[] = {{"", quota_two}, {"cpu", quota_one}};
    struct groups groups;
    double least = 0.0;

    for (size_t i = 0; i < sizeof versions / sizeof versions[0]; i++) {
        bool there = groups_begin(root, versions[i].controller, &groups);

        for (; there; there = go_up(groups.folder, groups.tree)) {
            double here = versions[i].read(root, groups.folder);

            if (here > 0.0 && (least <= 0.0 || here < least))
                least = here;
        }
    }
    if (least <= 0.0 || least >= 1e9)
        return UINT32_MAX;
    return (uint32_t)least + ((double)(uint32_t)least < least);
}

uint32_t machine_processors(void)
{
    uint32_t quota = machine_quota_at(""), ours = 1;
    cpu_set_t set;
    long online;

    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        ours = (uint32_t)CPU_COUNT(&set);
    } else { /* more than the set has room for */
        online = sysconf(_SC_NPROCESSORS_ONLN);
        ours = online > 0 ? (uint32_t)online : 1;
    }
    if (quota < ours)
        ours = quota;
    return ours > 0 ? ours : 1;
}

/* ---- memory -------------------------------------------------------------- */

/* What one group leaves; UINT64_MAX: no limit. */
static uint64_t left(const char *root, const char *folder, const char *limit_name,
                     const char *used_name, const char *droppable)
{
    int64_t limit, used;
    uint64_t files = 0;

    if (!number(root, folder, limit_name, &limit) || limit <= 0 ||
        limit >= INT64_C(1) << 60 || !number(root, folder, used_name, &used))
        return UINT64_MAX;
    (void)keyed(root, folder, "memory.stat", droppable, &files);
    if (files < (uint64_t)used)
        used -= (int64_t)files;
    else
        used = 0;
    return used < limit ? (uint64_t)(limit - used) : 0;
}

uint64_t machine_memory_at(const char *root)
{
    static const struct {
        const char *controller, *limit, *used, *droppable;
    } versions[] = {{"", "memory.max", "memory.current", "inactive_file "},
                    {"memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
                     "total_inactive_file "}};
    uint64_t least = UINT64_MAX, kib;
    struct groups groups;

    if (keyed(root, "/proc", "meminfo", "MemAvailable:", &kib))
        least = 1024 * kib;
    for (size_t i = 0; i < sizeof versions / sizeof versions[0]; i++) {
        bool there = groups_begin(root, versions[i].controller, &groups);

        for (; there; there = go_up(groups.folder, groups.tree)) {
            uint64_t here = left(root, groups.folder, versions[i].limit,
                                 versions[i].used, versions[i].droppable);

            least = here < least ? here : least;
        }
    }
    return least;
}

uint64_t machine_memory(void)
{
    return machine_memory_at("");
}

int machine_memory_check(uint64_t bytes, const char *what, struct gapless_error *error)
{
    uint64_t there = machine_memory();

    if (bytes <= there)
        return GAPLESS_OK;
    return gapless_error_set(
        error, GAPLESS_NO_MEMORY, 0,
        "%s needs %.3g GiB of memory at least, and %.3g GiB are free "
        "for it (MemAvailable, limits of control groups): take fewer "
        "workers, a smaller model or another rule, or give --force",
        what, (double)bytes / (1 << 30), (double)there / (1 << 30));
}

/* Version 2 counts them in memory.events, version 1 in memory.oom_control. */
static bool ended_any(const char *root)
{
    static const struct {
        const char *controller, *file;
    } versions[] = {{"", "memory.events"}, {"memory", "memory.oom_control"}};
    struct groups groups;

    for (size_t i = 0; i < sizeof versions / sizeof versions[0]; i++) {
        bool there = groups_begin(root, versions[i].controller, &groups);
        uint64_t ended = 0;

        for (; there; there = go_up(groups.folder, groups.tree))
            if (keyed(root, groups.folder, versions[i].file, "oom_kill ", &ended) &&
                ended > 0)
                return true;
    }
    return false;
}

bool machine_memory_short_at(const char *root)
{
    uint64_t kib = 0;

    return ended_any(root) || (keyed(root, "/proc", "meminfo", "MemTotal:", &kib) &&
                               machine_memory_at(root) < 1024 * kib / 16);
}

bool machine_memory_short(void)
{
    return machine_memory_short_at("");
}
