/* The report's memory, and small questions about what was read. */
#include "cluster/report/report_data.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK_BYTES ((size_t)64 << 10)
#define COMPLAINTS_MAX 200u

/* ---- the arena ----------------------------------------------------------- */

struct report_block {
    struct report_block *before;
    size_t used, room;
    max_align_t bytes[];
};

void *arena_take(struct report_arena *arena, size_t bytes)
{
    struct report_block *block = arena->last;
    size_t need;

    if (bytes > SIZE_MAX / 4) {
        arena->failed = true;
        return NULL;
    }
    need =
        (bytes + sizeof(max_align_t) - 1) / sizeof(max_align_t) * sizeof(max_align_t);
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

void *arena_grow(struct report_arena *arena, const void *items, size_t count,
                 size_t bytes)
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

const char *arena_copy(struct report_arena *arena, const char *text)
{
    size_t bytes = strlen(text) + 1;
    char *ret = arena_take(arena, bytes);

    return ret != NULL ? memcpy(ret, text, bytes) : "";
}

const char *arena_format(struct report_arena *arena, const char *format, ...)
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

void arena_free(struct report_arena *arena)
{
    while (arena->last != NULL) {
        struct report_block *block = arena->last;

        arena->last = block->before;
        free(block);
    }
}

void report_free(struct report *report)
{
    arena_free(&report->arena);
    *report = (struct report){0};
}

/* ---- files --------------------------------------------------------------- */

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

static int read_open(int fd, size_t max, char **ret, size_t *size, char *reason)
{
    struct stat info;
    size_t used = 0, room;
    char *bytes;

    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        (void)snprintf(reason, REPORT_WHY, "it is not a regular file");
        return GAPLESS_IO;
    }
    if ((uintmax_t)info.st_size > max) {
        (void)snprintf(reason, REPORT_WHY, "it is larger than %zu MiB", max >> 20);
        return GAPLESS_CORRUPT;
    }
    room = (size_t)info.st_size;
    bytes = malloc(room + 1);
    if (bytes == NULL) {
        (void)snprintf(reason, REPORT_WHY, "no memory for it");
        return GAPLESS_NO_MEMORY;
    }
    while (used < room) {
        ssize_t got = read(fd, bytes + used, room - used);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0) {
            (void)snprintf(reason, REPORT_WHY, "%s", strerrordesc_np(errno));
            free(bytes);
            return GAPLESS_IO;
        }
        if (got == 0)
            break;
        used += (size_t)got;
    }
    bytes[used] = '\0';
    *ret = bytes;
    *size = used;
    return GAPLESS_OK;
}

int report_read(const char *path, size_t max, char **ret, size_t *size, char *reason)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), status; /* no FIFO blocks */

    if (fd < 0) {
        (void)snprintf(reason, REPORT_WHY, "%s", strerrordesc_np(errno));
        return errno == ENOENT || errno == ENOTDIR ? GAPLESS_MISSING : GAPLESS_IO;
    }
    status = read_open(fd, max, ret, size, reason);
    (void)close(fd);
    return status;
}

/* ---- questions ----------------------------------------------------------- */

size_t report_column(const struct report_set *set, const char *name)
{
    for (size_t i = 0; i < set->columns; i++)
        if (strcmp(set->column[i], name) == 0)
            return i;
    return SIZE_MAX;
}

const char *report_field(const struct report_set *set, const struct report_run *run,
                         const char *column)
{
    size_t at = report_column(set, column);

    return at != SIZE_MAX && run->field[at] != NULL ? run->field[at] : "";
}

double report_parse(const char *text)
{
    char *end;
    double ret;

    if (!isdigit((unsigned char)text[0]) && text[0] != '-' && text[0] != '.')
        return (double)NAN;
    ret = strtod(text, &end);
    return *end == '\0' && isfinite(ret) ? ret : (double)NAN;
}

double report_number(const struct report_set *set, const struct report_run *run,
                     const char *column)
{
    return report_parse(report_field(set, run, column));
}

bool report_done(const struct report_set *set, const struct report_run *run)
{
    const char *status = report_field(set, run, "status");

    return strcmp(status, "done") == 0 || strcmp(status, "stopped") == 0;
}

double report_target(const struct report *report, const struct report_set *set)
{
    if (report->target > 0)
        return report->target;
    return set->target > 0 ? set->target : REPORT_TARGET;
}

int report_compare(const char *a, const char *b)
{
    double one = report_parse(a), other = report_parse(b);

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
