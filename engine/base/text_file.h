/* The one reader of text files that people write or edit: studies, batch times, records
 * of a run, tokens, tables. It takes what editors leave (a byte order mark, CRLF, a last
 * line without an end) and refuses what is no text, naming file and line.
 *
 *     while ((status = text_file_line(&file, &line, error)) == GAPLESS_OK)
 *         ... line, file.line ...
 *     status == GAPLESS_STOPPED: that was all
 */
#ifndef ENGINE_BASE_TEXT_FILE_H
#define ENGINE_BASE_TEXT_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct gapless_error;

struct text_file {
    const char *path; /* the caller's */
    uint64_t line;    /* that was read last, from 1 on; at the end, one more */
    bool ended;       /* the last line read had an end: it was not cut off */
    FILE *stream;
    bool ours; /* the stream: closed by text_file_close */
    size_t line_max;
    char *text;
    size_t room;
};

/* Only a regular file of at most max_bytes is opened, so that no pipe or device keeps the
 * program waiting. line_max: bytes of a line without its end. GAPLESS_MISSING: there
 * is none. GAPLESS_IO: it cannot be opened. GAPLESS_INVALID: it is something else, or too
 * large. GAPLESS_CORRUPT: it begins as UTF-16. `what` is how messages call it: "the study". */
int text_file_open(struct text_file *ret, const char *path, const char *what,
                   uint64_t max_bytes, size_t line_max, struct gapless_error *error);
/* The same of a stream that is open and can be rewound; closing it
 * stays the caller's. */
int text_file_stream(struct text_file *ret, FILE *stream, const char *path,
                     size_t line_max, struct gapless_error *error);
/* The next line without its end, the caller's to change until the next call. GAPLESS_STOPPED: there is none. GAPLESS_CORRUPT: it has
 * a NUL or is too long. GAPLESS_IO: it cannot be read. */
int text_file_line(struct text_file *file, char **ret, struct gapless_error *error);
/* Also of one that was not opened, if it is zero. */
void text_file_close(struct text_file *file);

/* All of a file, as it is, with a NUL behind it; freed by the caller. Refuses what
 * text_file_open refuses, and a NUL within. */
int text_file_all(const char *path, const char *what, uint64_t max_bytes, char **ret,
                  size_t *ret_bytes, struct gapless_error *error);

/* The first line of a file of the system (sysfs, procfs), without its end, cut to what
 * `ret` has room for. False: there is none. */
bool text_first_line(const char *path, char *ret, size_t bytes);

#endif
