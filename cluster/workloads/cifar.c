/* CIFAR-10 in its official binary form: records of a label and 3 planes (red, green,
 * blue) of 32 x 32 bytes; 5 equally long training files and one test file. */
#include "cluster/workloads/data_image.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    CIFAR_CLASSES = 10,
    CIFAR_PIXELS = 3 * 32 * 32,
    CIFAR_RECORD = 1 + CIFAR_PIXELS,
    CIFAR_TRAIN_FILES = 5,
    CIFAR_FILES = CIFAR_TRAIN_FILES + 1,
    BUFFER_BYTES = 1 << 16
};

static const char *const files[CIFAR_FILES] = {"data_batch_1.bin", "data_batch_2.bin",
                                               "data_batch_3.bin", "data_batch_4.bin",
                                               "data_batch_5.bin", "test_batch.bin"};
/* As unpacked from the official archive, or moved out of its folder. */
static const char *const folders[] = {"", "/cifar-10-batches-bin"};

struct cifar {
    FILE *file;
    char path[PATH_MAX];
    uint32_t count;
};

static bool find_file(const char *dir, int which, char ret[PATH_MAX])
{
    for (int i = 0; i < 2; i++) {
        int used = snprintf(ret, PATH_MAX, "%s%s/%s", dir, folders[i], files[which]);

        if (used > 0 && used < PATH_MAX && access(ret, F_OK) == 0)
            return true;
    }
    return false;
}

int data_has_cifar(const char *dir)
{
    char path[PATH_MAX];

    for (int i = 0; i < CIFAR_FILES; i++)
        if (find_file(dir, i, path))
            return 1;
    return 0;
}

static int open_file(const char *dir, int which, struct cifar *f,
                     struct gapless_error *error)
{
    struct stat info;
    int fd;

    if (!find_file(dir, which, f->path))
        return gapless_error_set(error, GAPLESS_MISSING, 0,
                                 "%s has no %s, which belongs to the others",
                                 data_path_tail(dir), files[which]);
    fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not hang us */
    if (fd < 0)
        return gapless_error_set(error, GAPLESS_IO, errno, "opening %s",
                                 data_path_tail(f->path));
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size == 0 ||
        info.st_size % CIFAR_RECORD != 0 ||
        info.st_size / CIFAR_RECORD > UINT32_MAX / CIFAR_FILES) {
        (void)close(fd);
        return gapless_error_set(error, GAPLESS_CORRUPT, 0,
                                 "%s is not a file of whole records of %d bytes: "
                                 "truncated, or not the binary version of CIFAR-10",
                                 data_path_tail(f->path), CIFAR_RECORD);
    }
    f->count = (uint32_t)(info.st_size / CIFAR_RECORD);
    f->file = fdopen(fd, "rb");
    if (f->file == NULL) {
        (void)close(fd);
        return gapless_error_set(error, GAPLESS_NO_MEMORY, errno,
                                 "no memory to read %s", data_path_tail(f->path));
    }
    (void)setvbuf(f->file, NULL, _IOFBF, BUFFER_BYTES);
    return GAPLESS_OK;
}

static int open_all(const char *dir, struct cifar *f, struct gapless_error *error)
{
    for (int i = 0; i < CIFAR_FILES; i++) {
        int status = open_file(dir, i, &f[i], error);

        if (status != GAPLESS_OK)
            return status;
        if (i < CIFAR_TRAIN_FILES && f[i].count != f[0].count)
            return gapless_error_set(
                error, GAPLESS_CORRUPT, 0,
                "%s holds %" PRIu32 " records where %s holds %" PRIu32
                ": one of them is truncated",
                data_path_tail(f[i].path), f[i].count, files[0], f[0].count);
    }
    return GAPLESS_OK;
}

static int read_file(struct cifar *f, uint8_t *x, uint8_t *y,
                     struct gapless_error *error)
{
    for (uint32_t i = 0; i < f->count; i++) {
        if (fread(&y[i], 1, 1, f->file) != 1 ||
            fread(x + (size_t)i * CIFAR_PIXELS, CIFAR_PIXELS, 1, f->file) != 1)
            return gapless_error_set(error, GAPLESS_IO, ferror(f->file) ? errno : 0,
                                     "reading %s: it ended early",
                                     data_path_tail(f->path));
        if (y[i] >= CIFAR_CLASSES)
            return gapless_error_set(error, GAPLESS_CORRUPT, 0,
                                     "%s: label %" PRIu32 " is %d, labels are 0 to %d",
                                     data_path_tail(f->path), i, y[i],
                                     CIFAR_CLASSES - 1);
    }
    return GAPLESS_OK;
}

static int read_all(struct cifar *f, const struct data_image *image,
                    struct gapless_error *error)
{
    uint8_t *x = image->train_x, *y = image->train_y;

    for (int i = 0; i < CIFAR_TRAIN_FILES; i++) {
        int status = read_file(&f[i], x, y, error);

        if (status != GAPLESS_OK)
            return status;
        x += (size_t)f[i].count * CIFAR_PIXELS;
        y += f[i].count;
    }
    return read_file(&f[CIFAR_TRAIN_FILES], image->test_x, image->test_y, error);
}

int data_read_cifar(const struct data_from *from, struct data **ret,
                    struct gapless_error *error)
{
    struct cifar f[CIFAR_FILES] = {{.file = NULL}};
    struct data_image image;
    struct data_shape shape;
    int status = open_all(from->dir, f, error);

    if (status != GAPLESS_OK)
        goto close_files;
    shape = (struct data_shape){.train_count = f[0].count * CIFAR_TRAIN_FILES,
                                .test_count = f[CIFAR_TRAIN_FILES].count,
                                .features = CIFAR_PIXELS,
                                .classes = CIFAR_CLASSES};
    status = data_image_new(from, &shape, &image, error);
    if (status != GAPLESS_OK)
        goto close_files;
    status = read_all(f, &image, error);
    if (status == GAPLESS_OK)
        status = data_image_finish(&image, ret, error);
    else
        data_image_drop(&image);

close_files:
    for (int i = 0; i < CIFAR_FILES; i++)
        if (f[i].file != NULL)
            (void)fclose(f[i].file);
    return status;
}
