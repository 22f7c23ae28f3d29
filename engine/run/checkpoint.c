/* Writes the parameters as safetensors. */
#include "engine/run/checkpoint.h"

#include "engine/run/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Pairs of a list that NULL ends; NULL: none. */
static void say_all(struct header_text *t, const char *const *metadata)
{
    for (; metadata != NULL && metadata[0] != NULL; metadata += 2)
        header_say(t, metadata[0], metadata[1]);
}

static struct header_text header_of(const struct layout *layout,
                                    const char *const *metadata,
                                    const char *const *more)
{
    struct header_text t = {0};
    uint32_t i;

    header_begin(&t);
    say_all(&t, metadata);
    say_all(&t, more);
    header_metadata_end(&t);
    for (i = 0; i < layout->tensors_count; i++) {
        const struct gapless_tensor *tensor = &layout->tensors[i];
        struct header_tensor one = {.name = tensor->name,
                                    .type = "F32",
                                    .dims = tensor->dims,
                                    .element_bytes = sizeof(float)};

        memcpy(one.dim, tensor->dim, sizeof one.dim);
        header_tensor(&t, &one);
    }
    header_end(&t, 0);
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

static int write_file(const char *temporary, const struct header_text *header,
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
    struct header_text header = header_of(layout, metadata, more);
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
    header_sync_folder(path);
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
