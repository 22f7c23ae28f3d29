/* The one writer of whole files: models, results, pages. What is at the path is as it was
 * or complete, and what was written lasts: to a temporary file beside it, of which room is
 * asked for first, synced, renamed, the folder synced.
 *
 *     status = file_out_open(&file, path, bytes, error);
 *     if (status == GAPLESS_OK) {
 *         file_out_write(&file, header, n);
 *         file_out_write(&file, data, m);
 *         status = file_out_close(&file, error);
 *     }
 *
 * A rename would put a file in the place of what is there: a device, a pipe, a socket or
 * a folder is refused and stays as it is; of a symbolic link the file that it names is
 * written, and the link stays.
 */
#ifndef ENGINE_BASE_FILE_OUT_H
#define ENGINE_BASE_FILE_OUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gapless_error;

struct file_out {
    int fd;
    int os; /* errno of the first write that failed; 0: none */
    char *path, *temporary;
    const char *given; /* the caller's path: how messages call it */
};

/* `bytes`: how long it will be, asked for at once, so that a full disk is found before
 * anything is written; 0: not known. GAPLESS_INVALID: what is there is no regular file,
 * or the link leads nowhere. GAPLESS_IO: it cannot be written. */
int file_out_open(struct file_out *ret, const char *path, uint64_t bytes,
                  struct gapless_error *error);
/* A write that fails or falls short is kept, and reported by file_out_close. */
void file_out_write(struct file_out *file, const void *bytes, size_t count);
/* Syncs, renames, or removes the temporary file and says why. GAPLESS_IO. */
int file_out_close(struct file_out *file, struct gapless_error *error);

/* The same for a descriptor that is open, as the standard output: nothing is renamed, and
 * closing it stays the caller's. */
struct file_out file_out_pipe(int fd, const char *given);

/* Opens, writes and closes. */
int file_out_whole(const char *path, const void *bytes, size_t count,
                   struct gapless_error *error);
/* Makes a rename in the folder of `path` last. A file system that cannot is no failure. */
void file_out_sync_folder(const char *path);
/* Writes all of it into a descriptor. 0, or errno; ENOSPC where nothing more is taken. */
int file_out_all(int fd, const void *bytes, size_t count);

#endif
