/* Writes whole files. */
#include "engine/base/file_out.h"

#include <gapless/gapless.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WRITE_MAX ((size_t)1 << 30) /* Linux takes at most 2 GiB at once */

int file_out_all(int fd, const void *bytes, size_t count)
{
    const char *at = bytes;

    while (count > 0) {
        ssize_t done = write(fd, at, count < WRITE_MAX ? count : WRITE_MAX);

        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return done < 0 ? errno : ENOSPC;
        at += done;
        count -= (size_t)done;
    }
    return 0;
}

static int cannot(const char *path, int os, struct gapless_error *error)
{
    return gapless_error_set(error, GAPLESS_IO, os,
                             "cannot write %.150s; what was there is unchanged", path);
}

/* The file itself, behind links; malloc'ed. *ret_mode: of the one that is there; 0: none. */
static int find(const char *path, char **ret, mode_t *ret_mode,
                struct gapless_error *error)
{
    struct stat is;
    char *real;

    *ret_mode = 0;
    if (lstat(path, &is) != 0) { /* a folder that is missing is found by open */
        *ret = strdup(path);
        return *ret != NULL ? GAPLESS_OK : cannot(path, ENOMEM, error);
    }
    if (stat(path, &is) != 0)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "%.150s is a link that leads nowhere: remove it, or "
                                 "choose another name",
                                 path);
    if (!S_ISREG(is.st_mode))
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "%.150s is there and is no regular file: it stays as "
                                 "it is; choose another name",
                                 path);
    real = realpath(path, NULL);
    if (real == NULL)
        return cannot(path, errno, error);
    *ret = real;
    *ret_mode = is.st_mode & 0777;
    return GAPLESS_OK;
}

/* A file system that cannot reserve says so at the write that finds no room. */
static int reserve(int fd, uint64_t bytes)
{
    if (bytes == 0 || fallocate(fd, 0, 0, (off_t)bytes) == 0)
        return 0;
    return errno == ENOSPC || errno == EDQUOT || errno == EFBIG ? errno : 0;
}

struct file_out file_out_pipe(int fd, const char *given)
{
    return (struct file_out){.fd = fd, .given = given};
}

static void forget(struct file_out *file)
{
    free(file->path);
    free(file->temporary);
    file->path = file->temporary = NULL;
    file->fd = -1;
}

int file_out_open(struct file_out *ret, const char *path, uint64_t bytes,
                  struct gapless_error *error)
{
    char *real = NULL, *temporary = NULL;
    mode_t mode = 0;
    int fd, os, status = find(path, &real, &mode, error);

    if (status != GAPLESS_OK)
        return status;
    if (real == NULL || asprintf(&temporary, "%s.%ld.part", real, (long)getpid()) < 0) {
        free(real);
        return cannot(path, ENOMEM, error);
    }
    fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    os = fd < 0 ? errno : reserve(fd, bytes);
    if (os == 0) {
        if (mode != 0)
            (void)fchmod(fd, mode); /* as the one that it replaces */
        *ret = (struct file_out){
            .fd = fd, .given = path, .path = real, .temporary = temporary};
        return GAPLESS_OK;
    }
    if (fd >= 0) {
        (void)close(fd);
        (void)unlink(temporary);
    }
    free(temporary);
    free(real);
    return cannot(path, os, error);
}

void file_out_write(struct file_out *file, const void *bytes, size_t count)
{
    if (file->os == 0)
        file->os = file_out_all(file->fd, bytes, count);
}

void file_out_sync_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *folder =
        slash == NULL ? strdup(".") : strndup(path, (size_t)(slash - path) + 1);
    int fd = folder != NULL ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

    if (fd >= 0) {
        (void)fsync(fd);
        (void)close(fd);
    }
    free(folder);
}

/* What was asked for and not written is given back. */
static void trim(struct file_out *file)
{
    off_t end = lseek(file->fd, 0, SEEK_CUR);

    if (file->os == 0 && (end < 0 || ftruncate(file->fd, end) != 0))
        file->os = errno;
}

int file_out_close(struct file_out *file, struct gapless_error *error)
{
    const char *given = file->given;
    int os;

    if (file->path == NULL)
        return file->os == 0 ? GAPLESS_OK
                             : gapless_error_set(error, GAPLESS_IO, file->os,
                                                 "cannot write to %.150s", given);
    trim(file);
    if (file->os == 0 && fsync(file->fd) != 0)
        file->os = errno;
    if (close(file->fd) != 0 && file->os == 0)
        file->os = errno;
    if (file->os == 0 && rename(file->temporary, file->path) != 0)
        file->os = errno;
    os = file->os;
    if (os != 0)
        (void)unlink(file->temporary);
    else
        file_out_sync_folder(file->path);
    forget(file);
    return os == 0 ? GAPLESS_OK : cannot(given, os, error);
}

int file_out_whole(const char *path, const void *bytes, size_t count,
                   struct gapless_error *error)
{
    struct file_out file = {.fd = -1};
    int status = file_out_open(&file, path, count, error);

    if (status != GAPLESS_OK)
        return status;
    file_out_write(&file, bytes, count);
    return file_out_close(&file, error);
}
