/* The one reader of text files. */
#include "engine/base/text_file.h"

#include <gapless/status.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *kind_of(mode_t mode)
{
    if (S_ISDIR(mode))
        return "a folder";
    if (S_ISFIFO(mode))
        return "a pipe";
    if (S_ISSOCK(mode))
        return "a socket";
    return "a device";
}

static int check(int fd, const char *path, const char *what, uint64_t max_bytes,
                 struct gapless_error *error)
{
    struct stat info;

    if (fstat(fd, &info) != 0)
        return gapless_error_set(error, GAPLESS_IO, errno, "cannot read %s %.150s",
                                 what, path);
    if (!S_ISREG(info.st_mode))
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "%.150s is %s, no regular file: save %s to a file and "
                                 "name that",
                                 path, kind_of(info.st_mode), what);
    if ((uint64_t)info.st_size > max_bytes)
        return gapless_error_set(
            error, GAPLESS_INVALID, 0, "%.150s has %lld bytes; %s has at most %llu",
            path, (long long)info.st_size, what, (unsigned long long)max_bytes);
    return GAPLESS_OK;
}

/* Takes a byte order mark away. */
static int begin(struct text_file *file, const char *path, struct gapless_error *error)
{
    unsigned char mark[3];
    size_t got = fread(mark, 1, sizeof mark, file->stream);

    if (got >= 2 &&
        ((mark[0] == 0xff && mark[1] == 0xfe) || (mark[0] == 0xfe && mark[1] == 0xff)))
        return gapless_error_set(error, GAPLESS_CORRUPT, 0,
                                 "%.150s:1: this is UTF-16; save it as UTF-8", path);
    if (got == 3 && memcmp(mark, "\xef\xbb\xbf", 3) == 0)
        return GAPLESS_OK;
    rewind(file->stream);
    return GAPLESS_OK;
}

int text_file_stream(struct text_file *ret, FILE *stream, const char *path,
                     size_t line_max, struct gapless_error *error)
{
    *ret = (struct text_file){.path = path, .stream = stream, .line_max = line_max};
    return begin(ret, path, error);
}

int text_file_open(struct text_file *ret, const char *path, const char *what,
                   uint64_t max_bytes, size_t line_max, struct gapless_error *error)
{
    /* O_NONBLOCK: a pipe that no process writes into is opened at once, and refused. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY), status;
    FILE *stream = NULL;

    *ret = (struct text_file){.path = path};
    if (fd < 0)
        return gapless_error_set(error, errno == ENOENT ? GAPLESS_MISSING : GAPLESS_IO,
                                 errno, "cannot read %s %.150s", what, path);
    status = check(fd, path, what, max_bytes, error);
    if (status == GAPLESS_OK && (stream = fdopen(fd, "r")) == NULL)
        status = gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory to read %s",
                                   what);
    if (status != GAPLESS_OK) {
        (void)close(fd);
        return status;
    }
    status = text_file_stream(ret, stream, path, line_max, error);
    ret->ours = true;
    if (status != GAPLESS_OK)
        text_file_close(ret);
    return status;
}

int text_file_line(struct text_file *file, char **ret, struct gapless_error *error)
{
    ssize_t got;
    size_t bytes;

    errno = 0;
    got = getline(&file->text, &file->room, file->stream);
    file->line++;
    if (got < 0 && ferror(file->stream) == 0 && errno != ENOMEM)
        return GAPLESS_STOPPED;
    if (got < 0)
        return gapless_error_set(error, GAPLESS_IO, errno,
                                 "%.150s:%llu: cannot be read", file->path,
                                 (unsigned long long)file->line);
    bytes = (size_t)got;
    if (memchr(file->text, '\0', bytes) != NULL)
        return gapless_error_set(
            error, GAPLESS_CORRUPT, 0,
            "%.150s:%llu: there is a NUL in this line: this is not a text file",
            file->path, (unsigned long long)file->line);
    file->ended = bytes > 0 && file->text[bytes - 1] == '\n';
    bytes -= file->ended;
    bytes -= bytes > 0 && file->text[bytes - 1] == '\r';
    if (bytes > file->line_max)
        return gapless_error_set(
            error, GAPLESS_CORRUPT, 0,
            "%.150s:%llu: this line has %zu bytes; a line has at most %zu", file->path,
            (unsigned long long)file->line, bytes, file->line_max);
    file->text[bytes] = '\0';
    *ret = file->text;
    return GAPLESS_OK;
}

void text_file_close(struct text_file *file)
{
    if (file->stream != NULL && file->ours)
        (void)fclose(file->stream);
    free(file->text);
    file->stream = NULL;
    file->text = NULL;
}

int text_file_all(const char *path, const char *what, uint64_t max_bytes, char **ret,
                  size_t *ret_bytes, struct gapless_error *error)
{
    struct text_file file;
    char *text = NULL;
    size_t room = 0;
    ssize_t got;
    int status = text_file_open(&file, path, what, max_bytes, 0, error);

    if (status != GAPLESS_OK)
        return status;
    errno = 0;
    got = getdelim(&text, &room, '\0', file.stream);
    if (got < 0 && (ferror(file.stream) != 0 || errno == ENOMEM))
        status = gapless_error_set(error, GAPLESS_IO, errno, "cannot read %s %.150s",
                                   what, path);
    else if (got > 0 && text[got - 1] == '\0')
        status = gapless_error_set(
            error, GAPLESS_CORRUPT, 0,
            "%.150s: there is a NUL in it: this is not a text file", path);
    else if (got < 0) { /* an empty file */
        free(text);
        text = strdup("");
        got = 0;
        if (text == NULL)
            status = gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory");
    }
    text_file_close(&file);
    if (status != GAPLESS_OK) {
        free(text);
        return status;
    }
    *ret = text;
    *ret_bytes = (size_t)got;
    return GAPLESS_OK;
}

bool text_first_line(const char *path, char *ret, size_t bytes)
{
    FILE *in = fopen(path, "re");
    bool good = in != NULL && fgets(ret, (int)bytes, in) != NULL;

    if (in != NULL)
        (void)fclose(in);
    if (good)
        ret[strcspn(ret, "\n")] = '\0';
    return good;
}
