/* IDX files, plain or gzip: MNIST and all that is published in its format.
 *
 *     bytes 0-3   0, 0, 8 (unsigned bytes), dimensions
 *     then        one big-endian 32-bit size a dimension, then the bytes
 */
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
#include <zlib.h>

enum {
    IDX_CLASSES = 10,
    DEFLATE_RATIO_MAX = 1032, /* no deflate stream expands by more (zlib's manual) */
    BUFFER_BYTES = 1 << 18,
    READ_BYTES = 1 << 20 /* a gzread counts in int */
};

/* A file being read. */
struct idx {
    gzFile file;
    char path[PATH_MAX];
    uint64_t bytes_max; /* that this file can possibly hold */
    uint32_t count, row;
};

/* The four files; both spellings are in use. */
static const char *const stems[4][2] = {
    {"train-images-idx3-ubyte", "train-images.idx3-ubyte"},
    {"train-labels-idx1-ubyte", "train-labels.idx1-ubyte"},
    {"t10k-images-idx3-ubyte", "t10k-images.idx3-ubyte"},
    {"t10k-labels-idx1-ubyte", "t10k-labels.idx1-ubyte"},
};

static bool find_file(const char *dir, const char *const stem[2], char ret[PATH_MAX])
{
    static const char *const ends[] = {"", ".gz"};

    for (int i = 0; i < 4; i++) {
        int used = snprintf(ret, PATH_MAX, "%s/%s%s", dir, stem[i / 2], ends[i % 2]);

        if (used > 0 && used < PATH_MAX && access(ret, F_OK) == 0)
            return true;
    }
    return false;
}

int data_has_idx(const char *dir)
{
    char path[PATH_MAX];

    for (int i = 0; i < 4; i++)
        if (find_file(dir, stems[i], path))
            return 1;
    return 0;
}

static int corrupt(const struct idx *f, struct gapless_error *error, const char *reason)
{
    return gapless_error_set(error, GAPLESS_CORRUPT, 0, "%s %s: fetch it again",
                             data_path_tail(f->path), reason);
}

/* Exactly `bytes` bytes, or an error. */
static int read_bytes(struct idx *f, void *to, uint64_t bytes,
                      struct gapless_error *error)
{
    uint8_t *at = to;

    while (bytes > 0) {
        unsigned want = bytes < READ_BYTES ? (unsigned)bytes : READ_BYTES;
        int got = gzread(f->file, at, want), code;

        if (got < 0) {
            (void)gzerror(f->file, &code);
            if (code == Z_ERRNO)
                return gapless_error_set(error, GAPLESS_IO, errno, "reading %s",
                                         data_path_tail(f->path));
            return corrupt(f, error, "is not valid gzip data");
        }
        if (got == 0)
            return corrupt(f, error, "is truncated");
        at += got;
        bytes -= (unsigned)got;
    }
    return GAPLESS_OK;
}

/* Nothing may follow; reading past the end also has zlib check the gzip trailer. */
static int read_end(struct idx *f, struct gapless_error *error)
{
    uint8_t byte;
    int got = gzread(f->file, &byte, 1), code;

    (void)gzerror(f->file, &code);
    if (got > 0)
        return corrupt(f, error, "holds more than its header says");
    if (code == Z_BUF_ERROR)
        return corrupt(f, error, "is truncated");
    if (got < 0 || code != Z_OK)
        return corrupt(f, error, "fails its checksum");
    return GAPLESS_OK;
}

static uint32_t big_endian(const uint8_t *b)
{
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

/* Reads the header: how many records of how many bytes. `dims` is 1 for labels, 3 for
 * images (2 and 4 are read as well: rows of the product of the rest). */
static int read_header(struct idx *f, bool labels, struct gapless_error *error)
{
    uint8_t raw[4 + 4 * 4];
    uint64_t row = 1;
    int status = read_bytes(f, raw, 4, error), dims;

    if (status != GAPLESS_OK)
        return status;
    dims = raw[3];
    if (raw[0] != 0 || raw[1] != 0 || raw[2] != 8 ||
        (labels ? dims != 1 : dims < 2 || dims > 4))
        return gapless_error_set(
            error, GAPLESS_CORRUPT, 0, "%s starts with %08" PRIx32 ", not with %s",
            data_path_tail(f->path), big_endian(raw),
            labels ? "00000801 (IDX labels)" : "00000803 (IDX images)");
    status = read_bytes(f, raw + 4, 4 * (size_t)dims, error);
    if (status != GAPLESS_OK)
        return status;
    f->count = big_endian(raw + 4);
    for (int i = 1; i < dims; i++) {
        uint32_t size = big_endian(raw + 4 + 4 * (size_t)i);

        if (size == 0 || size > DATA_FEATURES_MAX || row * size > DATA_FEATURES_MAX)
            return corrupt(f, error, "has records of an absurd size");
        row *= size;
    }
    f->row = (uint32_t)row;
    if (f->count == 0)
        return corrupt(f, error, "has no records");
    if (f->count * row > f->bytes_max) /* below 2^52 */
        return corrupt(f, error, "is truncated: its header says more than it can hold");
    return GAPLESS_OK;
}

static int open_file(const char *dir, int which, struct idx *f,
                     struct gapless_error *error)
{
    struct stat info;
    int fd;

    if (!find_file(dir, stems[which], f->path))
        return gapless_error_set(error, GAPLESS_MISSING, 0,
                                 "%s has no %s (or .gz), which belongs to the others",
                                 data_path_tail(dir), stems[which][0]);
    fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not hang us */
    if (fd < 0)
        return gapless_error_set(error, GAPLESS_IO, errno, "opening %s",
                                 data_path_tail(f->path));
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        (void)close(fd);
        return corrupt(f, error, "is not a regular file");
    }
    f->bytes_max = (uint64_t)info.st_size < UINT64_MAX / DEFLATE_RATIO_MAX
                       ? (uint64_t)info.st_size * DEFLATE_RATIO_MAX
                       : UINT64_MAX;
    f->file = gzdopen(fd, "rb");
    if (f->file == NULL) {
        (void)close(fd);
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory to read %s",
                                 data_path_tail(f->path));
    }
    (void)gzbuffer(f->file, BUFFER_BYTES);
    return GAPLESS_OK;
}

/* Opens all four and compares what their headers say. */
static int open_all(const char *dir, struct idx f[4], struct gapless_error *error)
{
    for (int i = 0; i < 4; i++) {
        int status = open_file(dir, i, &f[i], error);

        if (status == GAPLESS_OK)
            status = read_header(&f[i], i % 2 == 1, error);
        if (status != GAPLESS_OK)
            return status;
    }
    for (int i = 0; i < 4; i += 2)
        if (f[i].count != f[i + 1].count)
            return gapless_error_set(error, GAPLESS_CORRUPT, 0,
                                     "%s has %" PRIu32 " labels for %" PRIu32
                                     " images: the files do not belong together",
                                     data_path_tail(f[i + 1].path), f[i + 1].count,
                                     f[i].count);
    if (f[0].row != f[2].row)
        return gapless_error_set(error, GAPLESS_CORRUPT, 0,
                                 "%s has images of %" PRIu32
                                 " pixels, the training set of %" PRIu32,
                                 data_path_tail(f[2].path), f[2].row, f[0].row);
    return GAPLESS_OK;
}

static int read_all(struct idx f[4], const struct data_image *image, uint32_t classes,
                    struct gapless_error *error)
{
    uint8_t *const to[4] = {image->train_x, image->train_y, image->test_x,
                            image->test_y};

    for (int i = 0; i < 4; i++) {
        int status = read_bytes(&f[i], to[i], (uint64_t)f[i].count * f[i].row, error);
        uint32_t bad;

        if (status == GAPLESS_OK)
            status = read_end(&f[i], error);
        if (status != GAPLESS_OK)
            return status;
        if (i % 2 == 0)
            continue;
        bad = data_bad_label(to[i], f[i].count, classes);
        if (bad != f[i].count)
            return gapless_error_set(error, GAPLESS_CORRUPT, 0,
                                     "%s: label %" PRIu32 " is %d, labels are 0 to %d",
                                     data_path_tail(f[i].path), bad, to[i][bad],
                                     (int)classes - 1);
    }
    return GAPLESS_OK;
}

/* The labels of a file, and how many classes they make: one more than the largest. */
static int count_classes(const char *dir, int which, uint32_t *ret,
                         struct gapless_error *error)
{
    struct idx f = {.file = NULL};
    uint8_t label[4096];
    int status = open_file(dir, which, &f, error);

    if (status == GAPLESS_OK)
        status = read_header(&f, true, error);
    for (uint32_t left = f.count; status == GAPLESS_OK && left > 0;) {
        uint32_t part = left < sizeof label ? left : (uint32_t)sizeof label;

        status = read_bytes(&f, label, part, error);
        for (uint32_t i = 0; status == GAPLESS_OK && i < part; i++)
            if (label[i] >= *ret)
                *ret = label[i] + 1u;
        left -= part;
    }
    if (f.file != NULL)
        (void)gzclose_r(f.file);
    return status;
}

static int read_set(const struct data_from *from, uint32_t classes, struct data **ret,
                    struct gapless_error *error)
{
    struct idx f[4] = {{.file = NULL}};
    struct data_image image;
    struct data_shape shape;
    int status = open_all(from->dir, f, error);

    if (status != GAPLESS_OK)
        goto close_files;
    shape = (struct data_shape){.train_count = f[0].count,
                                .test_count = f[2].count,
                                .features = f[0].row,
                                .classes = classes};
    status = data_image_new(from, &shape, &image, error);
    if (status != GAPLESS_OK)
        goto close_files;
    status = read_all(f, &image, classes, error);
    if (status == GAPLESS_OK)
        status = data_image_finish(&image, ret, error);
    else
        data_image_drop(&image);

close_files:
    for (int i = 0; i < 4; i++)
        if (f[i].file != NULL)
            (void)gzclose_r(f[i].file);
    return status;
}

int data_read_idx(const struct data_from *from, struct data **ret,
                  struct gapless_error *error)
{
    return read_set(from, IDX_CLASSES, ret, error);
}

int data_read_own_idx(const struct data_from *from, struct data **ret,
                      struct gapless_error *error)
{
    uint32_t classes = from->as != NULL ? from->as->classes : 2;
    int status = GAPLESS_OK;

    for (int i = 1; from->as == NULL && status == GAPLESS_OK && i < 4; i += 2)
        status = count_classes(from->dir, i, &classes, error);
    return status == GAPLESS_OK ? read_set(from, classes, ret, error) : status;
}
