/* Arrays as NumPy saves them: npy:DIR with x_train.npy, y_train.npy, x_test.npy and
 * y_test.npy.
 *
 *     bytes 0-5   \x93NUMPY            then "{'descr': '<f4', 'fortran_order': False,
 *     6, 7        version 1.0 to 3.0         'shape': (60000, 28, 28), }", blanks, \n,
 *     then        its length, 2 or         then the numbers, row-major
 *                 4 bytes, little-endian
 *
 * x has a sample a row: bytes (u1) are kept as pixels are, all other numbers become
 * floats. y has one whole number a sample, from 0 on.
 */
#include "cluster/workloads/data_image.h"

#include <errno.h>
#include <fcntl.h>
#include <float.h>
#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    HEADER_MAX = 65536,
    DIMS_MAX = 4,
    CHUNK = 4096 /* numbers that are converted at a time */
};

/* An array being read. */
struct npy {
    FILE *file;
    char path[PATH_MAX];
    char type;     /* u, i, f, b: as in the header */
    uint32_t size; /* bytes of a number */
    uint32_t dims;
    uint64_t dim[DIMS_MAX];
    uint64_t row; /* numbers of a sample */
};

static int corrupt(const struct npy *f, struct gapless_error *error, const char *reason)
{
    return gapless_error_set(error, GAPLESS_CORRUPT, 0, "%s %s",
                             data_path_tail(f->path), reason);
}

/* ---- the header ---------------------------------------------------------- */

/* What stands behind 'key': in the header's dictionary. NULL: nothing. */
static const char *value_of(const char *header, const char *key)
{
    const char *at = strstr(header, key);

    if (at == NULL)
        return NULL;
    at += strlen(key);
    at += strspn(at, "'\"");
    at += strspn(at, " ");
    return *at == ':' ? at + 1 + strspn(at + 1, " ") : NULL;
}

static int read_type(struct npy *f, const char *text, struct gapless_error *error)
{
    char order, size;

    if (text == NULL || sscanf(text, "%*1['\"]%c%c%c", &order, &f->type, &size) != 3 ||
        strchr("<>|=", order) == NULL || size < '1' || size > '8')
        return corrupt(f, error,
                       "holds no plain numbers: save an array of floats, integers or "
                       "bytes");
    f->size = (uint32_t)(size - '0');
    if (order == '>' && f->size > 1)
        return corrupt(f, error,
                       "is big-endian: save x.astype(x.dtype.newbyteorder('<'))");
    if ((f->type == 'f' && (f->size == 4 || f->size == 8)) ||
        ((f->type == 'u' || f->type == 'i') &&
         (f->size == 1 || f->size == 2 || f->size == 4 || f->size == 8)) ||
        (f->type == 'b' && f->size == 1))
        return GAPLESS_OK;
    return corrupt(f, error,
                   "holds numbers of a kind that is not read: save them as float32");
}

static int read_shape(struct npy *f, const char *text, struct gapless_error *error)
{
    char *end;

    if (text == NULL || *text != '(')
        return corrupt(f, error, "has no shape in its header");
    for (text++; *text != ')'; text = end + strspn(end, ", ")) {
        if (*text < '0' || *text > '9' || f->dims == DIMS_MAX)
            return corrupt(f, error,
                           f->dims == DIMS_MAX ? "has more than 4 dimensions"
                                               : "has a shape that makes no sense");
        errno = 0;
        f->dim[f->dims] = strtoull(text, &end, 10);
        if (errno != 0 || f->dim[f->dims] > UINT32_MAX)
            return corrupt(f, error, "has a shape that makes no sense");
        f->dims++;
    }
    f->row = 1;
    for (uint32_t i = 1; i < f->dims; i++) {
        f->row *= f->dim[i];
        if (f->row == 0 || f->row > DATA_FEATURES_MAX)
            return corrupt(f, error, "has samples of an absurd size");
    }
    return f->dims == 0 || f->dim[0] == 0 ? corrupt(f, error, "has no samples")
                                          : GAPLESS_OK;
}

static int read_header(struct npy *f, struct gapless_error *error)
{
    static char header[HEADER_MAX + 1];
    uint8_t start[12];
    size_t bytes = 2, length = 0;
    const char *order;
    int status;

    if (fread(start, 1, 8, f->file) != 8 || memcmp(start, "\x93NUMPY", 6) != 0)
        return corrupt(f, error, "does not begin as an npy file does");
    if (start[6] < 1 || start[6] > 3)
        return corrupt(f, error, "has a version of the npy format that is not known");
    bytes = start[6] == 1 ? 2 : 4;
    if (fread(start, 1, bytes, f->file) != bytes)
        return corrupt(f, error, "is truncated");
    for (size_t i = 0; i < bytes; i++)
        length |= (size_t)start[i] << (8 * i);
    if (length > HEADER_MAX || fread(header, 1, length, f->file) != length)
        return corrupt(f, error, "has a header that is truncated or too long");
    header[length] = '\0';
    order = value_of(header, "fortran_order");
    if (order == NULL || strncmp(order, "False", 5) != 0)
        return corrupt(f, error,
                       "is stored by columns: save numpy.ascontiguousarray(x)");
    status = read_type(f, value_of(header, "descr"), error);
    return status == GAPLESS_OK ? read_shape(f, value_of(header, "shape"), error)
                                : status;
}

static int open_file(const char *dir, const char *name, struct npy *ret,
                     struct gapless_error *error)
{
    int used = snprintf(ret->path, PATH_MAX, "%s/%s", dir, name), fd, status;
    struct stat info;
    uint64_t count;

    if (used < 0 || used >= PATH_MAX)
        return gapless_error_set(error, GAPLESS_INVALID, 0, "the path is too long");
    fd = open(ret->path,
              O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not hang us */
    if (fd < 0)
        return gapless_error_set(
            error, errno == ENOENT ? GAPLESS_MISSING : GAPLESS_IO, errno,
            "npy:DIR wants x_train.npy, y_train.npy, x_test.npy and "
            "y_test.npy: cannot read %s",
            data_path_tail(ret->path));
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        (void)close(fd);
        return corrupt(ret, error, "is not a regular file");
    }
    ret->file = fdopen(fd, "rb");
    if (ret->file == NULL) {
        (void)close(fd);
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory to read %s",
                                 data_path_tail(ret->path));
    }
    status = read_header(ret, error);
    if (status != GAPLESS_OK)
        return status;
    count = ret->dim[0] * ret->row; /* below 2^52 */
    if ((uint64_t)info.st_size != (uint64_t)ftell(ret->file) + count * ret->size)
        return corrupt(ret, error,
                       "is truncated, or longer than the shape in its header says");
    return GAPLESS_OK;
}

/* ---- numbers ------------------------------------------------------------- */

/* Number `i` of a chunk. */
static double number_at(const struct npy *f, const uint8_t *chunk, size_t i)
{
    const uint8_t *at = chunk + i * f->size;
    uint64_t bits = 0;
    double value;
    float single;

    if (f->type == 'f' && f->size == 8) {
        memcpy(&value, at, sizeof value);
        return value;
    }
    if (f->type == 'f') {
        memcpy(&single, at, sizeof single);
        return (double)single;
    }
    for (uint32_t b = 0; b < f->size; b++)
        bits |= (uint64_t)at[b] << (8 * b);
    if (f->type == 'i' && f->size > 0 && f->size < 8 && bits >> (8 * f->size - 1) != 0)
        return (double)bits - ldexp(1.0, 8 * (int)f->size);
    return f->type == 'i' ? (double)(int64_t)bits : (double)bits;
}

/* Calls `take` with each number of the file. */
static int each_number(struct npy *f,
                       bool (*take)(void *context, uint64_t index, double value),
                       void *context, const char *refused, struct gapless_error *error)
{
    uint8_t chunk[CHUNK * 8];
    uint64_t all = f->dim[0] * f->row, at = 0;

    while (at < all) {
        size_t count = all - at < CHUNK ? (size_t)(all - at) : CHUNK;

        if (fread(chunk, f->size, count, f->file) != count)
            return corrupt(f, error, "is truncated");
        for (size_t i = 0; i < count; i++)
            if (!take(context, at + i, number_at(f, chunk, i)))
                return gapless_error_set(error, GAPLESS_CORRUPT, 0,
                                         "%s: number %llu of sample %llu is %g: %s",
                                         data_path_tail(f->path),
                                         (unsigned long long)((at + i) % f->row),
                                         (unsigned long long)((at + i) / f->row),
                                         number_at(f, chunk, i), refused);
        at += count;
    }
    return GAPLESS_OK;
}

struct labels {
    uint8_t *at; /* NULL: only counted */
    uint32_t classes;
};

static bool take_label(void *context, uint64_t index, double value)
{
    struct labels *labels = context;

    if (!(value >= 0.0 && value < DATA_CLASSES_MAX && floor(value) >= value))
        return false;
    if (labels->at != NULL && value >= labels->classes)
        return false;
    if (labels->at != NULL)
        labels->at[index] = (uint8_t)value;
    else if (value >= labels->classes)
        labels->classes = (uint32_t)value + 1;
    return true;
}

static bool take_float(void *context, uint64_t index, double value)
{
    float *to = context;

    to[index] = (float)value;
    return fabs(value) <= (double)FLT_MAX;
}

static int read_labels(struct npy *f, uint8_t *to, uint32_t classes, uint32_t *ret,
                       struct gapless_error *error)
{
    struct labels labels = {to, classes};
    long start = ftell(f->file);
    int status;

    if (f->row != 1)
        return corrupt(f, error,
                       "has more than one number a sample: y holds the labels");
    status = each_number(f, take_label, &labels,
                         to == NULL ? "a label is a whole number from 0 to 255"
                                    : "the model has no such class",
                         error);
    *ret = labels.classes;
    (void)fseek(f->file, start, SEEK_SET);
    return status;
}

static int read_samples(struct npy *f, bool numbers, void *to,
                        struct gapless_error *error)
{
    size_t all = (size_t)(f->dim[0] * f->row);

    if (numbers)
        return each_number(f, take_float, to, "it must be finite, and fit a float",
                           error);
    return fread(to, 1, all, f->file) == all ? GAPLESS_OK
                                             : corrupt(f, error, "is truncated");
}

/* ---- the set ------------------------------------------------------------- */

static bool is_bytes(const struct npy *f)
{
    return f->type == 'u' && f->size == 1;
}

static int check_all(const struct npy f[4], struct gapless_error *error)
{
    for (int i = 0; i < 4; i += 2)
        if (f[i].dim[0] != f[i + 1].dim[0])
            return gapless_error_set(
                error, GAPLESS_CORRUPT, 0, "%s has %llu labels for %llu samples",
                data_path_tail(f[i + 1].path), (unsigned long long)f[i + 1].dim[0],
                (unsigned long long)f[i].dim[0]);
    if (f[0].row != f[2].row || is_bytes(&f[0]) != is_bytes(&f[2]))
        return gapless_error_set(
            error, GAPLESS_CORRUPT, 0,
            "%s has samples of %llu %s, the training part of %llu %s",
            data_path_tail(f[2].path), (unsigned long long)f[2].row,
            is_bytes(&f[2]) ? "bytes" : "numbers", (unsigned long long)f[0].row,
            is_bytes(&f[0]) ? "bytes" : "numbers");
    if (f[0].dims == 4 && f[0].dim[3] == 3 && f[0].dim[1] != 3)
        return corrupt(&f[0], error,
                       "has its colours last: save numpy.moveaxis(x, -1, 1), planes of "
                       "rows");
    return GAPLESS_OK;
}

static int fill(struct npy f[4], const struct data_from *from, uint32_t classes,
                struct data **ret, struct gapless_error *error)
{
    struct data_shape shape = {.train_count = (uint32_t)f[0].dim[0],
                               .test_count = (uint32_t)f[2].dim[0],
                               .features = (uint32_t)f[0].row,
                               .classes = classes,
                               .numbers = !is_bytes(&f[0])};
    struct data_image image;
    uint32_t unused;
    bool numbers = shape.numbers != 0;
    int status = data_image_new(from, &shape, &image, error);

    if (status != GAPLESS_OK)
        return status;
    status = read_samples(&f[0], numbers,
                          numbers ? (void *)image.train_numbers : image.train_x, error);
    if (status == GAPLESS_OK)
        status = read_samples(
            &f[2], numbers, numbers ? (void *)image.test_numbers : image.test_x, error);
    if (status == GAPLESS_OK)
        status = read_labels(&f[1], image.train_y, classes, &unused, error);
    if (status == GAPLESS_OK)
        status = read_labels(&f[3], image.test_y, classes, &unused, error);
    if (status == GAPLESS_OK)
        return data_image_finish(&image, ret, error);
    data_image_drop(&image);
    return status;
}

int data_read_npy(const struct data_from *from, struct data **ret,
                  struct gapless_error *error)
{
    static const char *const names[] = {"x_train.npy", "y_train.npy", "x_test.npy",
                                        "y_test.npy"};
    struct npy *f = calloc(4, sizeof *f);
    uint32_t classes = from->as != NULL ? from->as->classes : 2;
    int status = GAPLESS_OK;

    if (f == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for arrays");
    for (int i = 0; status == GAPLESS_OK && i < 4; i++)
        status = open_file(from->dir, names[i], &f[i], error);
    if (status == GAPLESS_OK)
        status = check_all(f, error);
    for (int i = 1; from->as == NULL && status == GAPLESS_OK && i < 4; i += 2)
        status = read_labels(&f[i], NULL, classes, &classes, error);
    if (status == GAPLESS_OK)
        status = fill(f, from, classes, ret, error);
    for (int i = 0; i < 4; i++)
        if (f[i].file != NULL)
            (void)fclose(f[i].file);
    free(f);
    return status;
}
