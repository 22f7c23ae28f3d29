/* Writes safetensors. Names are plain (layout.c checked them), so that only metadata
 * needs escapes. */
#include "engine/run/checkpoint.h"

#include "engine/base/array.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Grows with every append; `failed` sticks. */
struct text {
    char *data;
    size_t used, room;
    bool failed;
};

static void append(struct text *t, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void append(struct text *t, const char *format, ...)
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
static void append_string(struct text *t, const char *text)
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

static void append_tensor(struct text *t, const struct gapless_tensor *tensor,
                          uint64_t *at)
{
    uint64_t bytes = sizeof(float);
    uint32_t d;

    append(t, ",\"%s\":{\"dtype\":\"F32\",\"shape\":[", tensor->name);
    for (d = 0; d < tensor->dims; d++) {
        append(t, d == 0 ? "%" PRIu64 : ",%" PRIu64, tensor->dim[d]);
        bytes *= tensor->dim[d];
    }
    append(t, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", *at, *at + bytes);
    *at += bytes;
}

static void append_metadata(struct text *t, const char *const *metadata)
{
    for (; metadata != NULL && metadata[0] != NULL; metadata += 2) {
        append(t, ",");
        append_string(t, metadata[0]);
        append(t, ":");
        append_string(t, metadata[1]);
    }
}

static struct text header_text(const struct layout *layout, const char *const *metadata,
                               const char *const *more)
{
    struct text t = {0};
    uint64_t at = 0;
    uint32_t i;

    append(&t, "{\"__metadata__\":{\"format\":\"pt\"");
    append_metadata(&t, metadata);
    append_metadata(&t, more);
    append(&t, "}");
    for (i = 0; i < layout->tensors_count; i++)
        append_tensor(&t, &layout->tensors[i], &at);
    append(&t, "}");
    while (!t.failed && t.used % 8 != 0)
        append(&t, " ");
    return t;
}

static int write_all(int fd, const void *data, size_t bytes)
{
    const char *p = data;

    while (bytes > 0) {
        ssize_t n = write(fd, p, bytes < (1u << 30) ? bytes : (1u << 30));

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? errno : ENOSPC;
        p += n;
        bytes -= (size_t)n;
    }
    return 0;
}

/* Makes the rename itself last. A file system that cannot is no failure. */
static void sync_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *folder =
        slash == NULL ? strdup(".") : strndup(path, (size_t)(slash - path) + 1);
    int fd;

    if (folder == NULL)
        return;
    fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)fsync(fd);
        (void)close(fd);
    }
    free(folder);
}

static int write_file(const char *temporary, const struct text *header,
                      const float *theta, size_t bytes)
{
    uint64_t length = header->used;
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666), os;

    if (fd < 0)
        return errno;
    os = write_all(fd, &length, sizeof length);
    if (os == 0)
        os = write_all(fd, header->data, header->used);
    if (os == 0)
        os = write_all(fd, theta, bytes);
    if (os == 0 && fsync(fd) != 0)
        os = errno;
    if (close(fd) != 0 && os == 0)
        os = errno;
    return os;
}

int checkpoint_save(const struct layout *layout, const float *theta, const char *path,
                    const char *const *metadata, const char *const *more,
                    struct gapless_error *error)
{
    struct text header = header_text(layout, metadata, more);
    char *temporary = NULL;
    struct stat is;
    int os = ENOMEM, status = GAPLESS_OK;

    if (stat(path, &is) == 0 && !S_ISREG(is.st_mode)) { /* rename would replace it */
        os = S_ISDIR(is.st_mode) ? EISDIR : ENOTSUP;
        goto failed;
    }
    if (header.failed ||
        asprintf(&temporary, "%s.%ld.part", path, (long)getpid()) < 0) {
        temporary = NULL;
        goto failed;
    }
    os = write_file(temporary, &header, theta, (size_t)layout->count * sizeof *theta);
    if (os == 0 && rename(temporary, path) != 0)
        os = errno;
    if (os != 0) {
        (void)unlink(temporary);
        goto failed;
    }
    sync_folder(path);
    goto free_text;

failed:
    status = gapless_error_set(error, GAPLESS_IO, os,
                               "cannot write the parameters to '%s'; what was there is "
                               "unchanged",
                               path);
free_text:
    free(temporary);
    free(header.data);
    return status;
}
