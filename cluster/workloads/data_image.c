/* The memory of a data set: made, filled, sealed, shared, opened. */
#include "cluster/workloads/data_image.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define IMAGE_MAGIC "gapless-data-2" /* the version of struct header is in it */
#define IMAGE_SEALS (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

enum {
    HEADER_BYTES = 4096, /* a page, so that rows start on one */
    ARRAY_ALIGN = 64,    /* a cache line */
    PATH_SHOWN = 120     /* leaves half of an error's text for what is wrong */
};

/* Larger than CIFAR-10 by 23 times; keeps every size below well inside 64 bits. */
static const uint64_t image_bytes_max = UINT64_C(1) << 32;

struct header {
    char magic[16];
    char name[DATA_NAME_MAX];
    char source[DATA_SOURCE_MAX];
    struct data_shape shape;
    double mean, deviation;
};

/* Offsets from the start of the memory. */
struct layout {
    uint64_t train_x, test_x, train_y, test_y, means, words, bytes;
};

static uint64_t aligned(uint64_t bytes)
{
    return (bytes + ARRAY_ALIGN - 1) / ARRAY_ALIGN * ARRAY_ALIGN;
}

/* False where the shape is not one that a set may have. */
static bool layout_of(const struct data_shape *s, struct layout *ret)
{
    /* a count is below 2^32 and a row at most 2^22 bytes: no sum here exceeds 2^56 */
    uint64_t row = (uint64_t)s->features * (s->numbers ? sizeof(float) : 1);

    if (s->train_count == 0 || s->test_count == 0 || s->features == 0 ||
        s->features > DATA_FEATURES_MAX || s->classes < 2 ||
        s->classes > DATA_CLASSES_MAX || s->numbers > 1 || s->words_bytes < 2)
        return false;
    ret->train_x = HEADER_BYTES;
    ret->test_x = ret->train_x + aligned(s->train_count * row);
    ret->train_y = ret->test_x + aligned(s->test_count * row);
    ret->test_y = ret->train_y + aligned(s->train_count);
    ret->means = ret->test_y + aligned(s->test_count);
    ret->words =
        ret->means + (s->numbers ? aligned(2 * s->features * sizeof(double)) : 0);
    ret->bytes = ret->words + aligned(s->words_bytes);
    return ret->bytes <= image_bytes_max;
}

const char *data_path_tail(const char *path)
{
    size_t length = strlen(path);

    return length > PATH_SHOWN ? path + length - PATH_SHOWN : path;
}

uint32_t data_bad_label(const uint8_t *labels, uint32_t count, uint32_t classes)
{
    for (uint32_t i = 0; i < count; i++)
        if (labels[i] >= classes)
            return i;
    return count;
}

/* Mean and deviation of pixels / 255, exact until the last few operations. */
static void standardise(const uint8_t *x, uint64_t count, double *ret_mean,
                        double *ret_deviation)
{
    enum {
        CHUNK = 1 << 14
    }; /* 2^14 * 255^2 fits 32 bits, which vectorises best */
    uint64_t sum = 0, squares = 0;
    double mean, variance;

    for (uint64_t at = 0; at < count; at += CHUNK) {
        uint64_t n = count - at < CHUNK ? count - at : CHUNK;
        uint32_t chunk_sum = 0, chunk_squares = 0;

        for (uint64_t i = at; i < at + n; i++) {
            uint32_t pixel = x[i];

            chunk_sum += pixel;
            chunk_squares += pixel * pixel;
        }
        sum += chunk_sum;
        squares += chunk_squares;
    }
    mean = (double)sum / (double)count;
    variance = (double)squares / (double)count - mean * mean;
    *ret_mean = mean / 255.0;
    *ret_deviation = variance > 0.0 ? sqrt(variance) / 255.0 : 1.0;
}

/* The same of each column of a set of numbers, in two passes. */
static void standardise_each(const float *rows, uint64_t count, uint32_t features,
                             double *ret_mean, double *ret_deviation)
{
    memset(ret_mean, 0, features * sizeof *ret_mean);
    memset(ret_deviation, 0, features * sizeof *ret_deviation);
    for (uint64_t i = 0; i < count; i++)
        for (uint32_t j = 0; j < features; j++)
            ret_mean[j] += (double)rows[i * features + j];
    for (uint32_t j = 0; j < features; j++)
        ret_mean[j] /= (double)count;
    for (uint64_t i = 0; i < count; i++)
        for (uint32_t j = 0; j < features; j++) {
            double off = (double)rows[i * features + j] - ret_mean[j];

            ret_deviation[j] += off * off;
        }
    for (uint32_t j = 0; j < features; j++)
        ret_deviation[j] =
            ret_deviation[j] > 0.0 ? sqrt(ret_deviation[j] / (double)count) : 1.0;
}

static void apply_each(float *rows, uint64_t count, uint32_t features,
                       const double *mean, const double *deviation)
{
    for (uint64_t i = 0; i < count; i++)
        for (uint32_t j = 0; j < features; j++) {
            float *at = &rows[i * features + j];

            *at = (float)(((double)*at - mean[j]) / deviation[j]);
        }
}

int data_image_new(const struct data_from *from, const struct data_shape *given,
                   struct data_image *ret, struct gapless_error *error)
{
    const char *name = from->name, *source = from->dir;
    struct data_shape sized = *given, *shape = &sized;
    struct data_image image = {.as = from->as};
    struct header *header;
    struct layout at;
    int status;

    if (shape->words_bytes < 2)
        shape->words_bytes = 2;
    image.shape = *shape;
    if (!layout_of(shape, &at))
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "%.100s (%s): a set of %" PRIu32 " + %" PRIu32
                                 " samples of %" PRIu32 " features in %" PRIu32
                                 " classes is empty or too large",
                                 name, data_path_tail(source), shape->train_count,
                                 shape->test_count, shape->features, shape->classes);
    image.bytes = at.bytes;
    image.fd = memfd_create("gapless-data", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (image.fd < 0)
        return gapless_error_set(error, GAPLESS_SYSTEM, errno,
                                 "no memory file for data set %s", name);
    if (ftruncate(image.fd, (off_t)at.bytes) != 0) {
        status =
            gapless_error_set(error, GAPLESS_NO_MEMORY, errno,
                              "no %" PRIu64 " bytes for data set %s", at.bytes, name);
        goto close_fd;
    }
    image.map = mmap(NULL, at.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, image.fd, 0);
    if (image.map == MAP_FAILED) {
        status = gapless_error_set(error, GAPLESS_NO_MEMORY, errno,
                                   "cannot map data set %s", name);
        goto close_fd;
    }
    header = image.map;
    memcpy(header->magic, IMAGE_MAGIC, sizeof IMAGE_MAGIC);
    (void)snprintf(header->name, sizeof header->name, "%s", name);
    (void)snprintf(header->source, sizeof header->source, "%s",
                   strlen(source) < sizeof header->source ? source
                                                          : data_path_tail(source));
    header->shape = *shape;
    if (shape->numbers) {
        image.train_numbers = (float *)(void *)((char *)image.map + at.train_x);
        image.test_numbers = (float *)(void *)((char *)image.map + at.test_x);
    } else {
        image.train_x = (uint8_t *)image.map + at.train_x;
        image.test_x = (uint8_t *)image.map + at.test_x;
    }
    image.words = (char *)image.map + at.words;
    image.train_y = (uint8_t *)image.map + at.train_y;
    image.test_y = (uint8_t *)image.map + at.test_y;
    *ret = image;
    return GAPLESS_OK;

close_fd:
    (void)close(image.fd);
    return status;
}

void data_image_drop(struct data_image *image)
{
    (void)munmap(image->map, image->bytes);
    (void)close(image->fd);
}

/* Rows of numbers are standardised in place; bytes keep how they will be. */
static int standardise_image(struct data_image *image, struct gapless_error *error)
{
    const struct data_shape *s = &image->shape;
    const struct data_standard *as = image->as;
    struct header *header = image->map;
    struct layout at = {0};
    double *mean, *deviation;

    header->mean = 0.0;
    header->deviation = 1.0;
    if (as != NULL && (as->count != (s->numbers ? s->features : 1)))
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "the model has %" PRIu32
                                 " means and deviations, %.100s needs %" PRIu32
                                 ": it was trained on other data",
                                 as->count, header->name, s->numbers ? s->features : 1);
    if (!s->numbers && as != NULL) {
        header->mean = as->mean[0];
        header->deviation = as->deviation[0];
        return GAPLESS_OK;
    }
    if (!s->numbers) {
        standardise(image->train_x, (uint64_t)s->train_count * s->features,
                    &header->mean, &header->deviation);
        return GAPLESS_OK;
    }
    (void)layout_of(s, &at);
    mean = (double *)(void *)((char *)image->map + at.means);
    deviation = mean + s->features;
    if (as != NULL) {
        memcpy(mean, as->mean, s->features * sizeof *mean);
        memcpy(deviation, as->deviation, s->features * sizeof *deviation);
    } else {
        standardise_each(image->train_numbers, s->train_count, s->features, mean,
                         deviation);
    }
    apply_each(image->train_numbers, s->train_count, s->features, mean, deviation);
    apply_each(image->test_numbers, s->test_count, s->features, mean, deviation);
    return GAPLESS_OK;
}

int data_image_finish(struct data_image *image, struct data **ret,
                      struct gapless_error *error)
{
    int status = standardise_image(image, error);

    if (status != GAPLESS_OK) {
        data_image_drop(image);
        return status;
    }
    (void)munmap(image->map, image->bytes); /* a writable mapping forbids the seal */
    if (fcntl(image->fd, F_ADD_SEALS, IMAGE_SEALS) != 0)
        status = gapless_error_set(error, GAPLESS_SYSTEM, errno,
                                   "cannot seal the memory of a data set");
    else
        status = data_open_fd(image->fd, ret, error);
    (void)close(image->fd);
    return status;
}

static int not_a_set(struct gapless_error *error, int fd, const char *reason)
{
    return gapless_error_set(error, GAPLESS_CORRUPT, 0,
                             "descriptor %d is not a shared data set: %s", fd, reason);
}

/* Two texts, one behind the other. */
static bool words_end(const char *words, uint32_t bytes)
{
    const char *end = memchr(words, 0, bytes);

    return words[bytes - 1] == '\0' && end != NULL && end < words + bytes - 1;
}

static bool deviations_good(const double *means, uint32_t features)
{
    for (uint32_t j = 0; j < features; j++)
        if (!isfinite(means[j]) || !(means[features + j] > 0.0) ||
            !isfinite(means[features + j]))
            return false;
    return true;
}

/* Where the parts of the memory are. */
static void point_into(struct data *d, const struct data_shape *s,
                       const struct layout *at)
{
    const uint8_t *base = d->map;

    d->train_y = base + at->train_y;
    d->test_y = base + at->test_y;
    d->class_names = (const char *)base + at->words;
    d->column_names = d->class_names + strlen(d->class_names) + 1;
    if (!s->numbers) {
        d->train_x = base + at->train_x;
        d->test_x = base + at->test_x;
        return;
    }
    d->train_numbers = (const float *)(const void *)(base + at->train_x);
    d->test_numbers = (const float *)(const void *)(base + at->test_x);
    d->mean_each = (const double *)(const void *)(base + at->means);
    d->deviation_each = d->mean_each + s->features;
}

/* Sets what struct data has in its header and arrays, or says what is wrong. */
static int open_map(struct data *d, struct gapless_error *error)
{
    const struct header *header = d->map;
    const struct data_shape *s = &header->shape;
    const uint8_t *base = d->map;
    struct layout at;

    if (memcmp(header->magic, IMAGE_MAGIC, sizeof IMAGE_MAGIC) != 0)
        return not_a_set(error, d->fd, "it starts differently");
    if (!layout_of(s, &at) || at.bytes != d->map_bytes)
        return not_a_set(error, d->fd, "its size does not fit its header");
    if (memchr(header->name, 0, sizeof header->name) == NULL ||
        memchr(header->source, 0, sizeof header->source) == NULL ||
        !(header->deviation > 0.0 && header->deviation <= 1.0) ||
        !(header->mean >= 0.0 && header->mean <= 1.0) ||
        !words_end((const char *)base + at.words, s->words_bytes) ||
        (s->numbers && !deviations_good((const double *)(const void *)(base + at.means),
                                        s->features)))
        return not_a_set(error, d->fd, "its header is damaged");
    if (data_bad_label(base + at.train_y, s->train_count, s->classes) !=
            s->train_count ||
        data_bad_label(base + at.test_y, s->test_count, s->classes) != s->test_count)
        return not_a_set(error, d->fd, "a label is out of range");
    memcpy(d->name, header->name, sizeof d->name);
    memcpy(d->source, header->source, sizeof d->source);
    d->train_count = s->train_count;
    d->test_count = s->test_count;
    d->features = s->features;
    d->classes = s->classes;
    d->mean = header->mean;
    d->deviation = header->deviation;
    d->scale = (float)(1.0 / (255.0 * header->deviation));
    d->offset = (float)(-header->mean / header->deviation);
    point_into(d, s, &at);
    return GAPLESS_OK;
}

int data_open_fd(int fd, struct data **ret, struct gapless_error *error)
{
    struct data *d;
    struct stat info;
    int seals = fcntl(fd, F_GET_SEALS), status;

    /* sealed memory cannot shrink under a reader, nor change after the checks */
    if (seals < 0 || (seals & IMAGE_SEALS) != IMAGE_SEALS)
        return not_a_set(error, fd, "it is not sealed memory");
    if (fstat(fd, &info) != 0)
        return gapless_error_set(error, GAPLESS_SYSTEM, errno, "descriptor %d", fd);
    if (info.st_size < HEADER_BYTES)
        return not_a_set(error, fd, "it is too short");
    d = calloc(1, sizeof *d);
    if (d == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for a data set");
    d->map_bytes = (uint64_t)info.st_size;
    d->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (d->fd < 0) {
        status = gapless_error_set(error, GAPLESS_SYSTEM, errno,
                                   "cannot duplicate descriptor %d", fd);
        goto free_data;
    }
    d->map = mmap(NULL, d->map_bytes, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (d->map == MAP_FAILED) {
        status =
            gapless_error_set(error, GAPLESS_NO_MEMORY, errno,
                              "cannot map %" PRIu64 " bytes of data", d->map_bytes);
        goto close_fd;
    }
    status = open_map(d, error);
    if (status != GAPLESS_OK)
        goto unmap;
    *ret = d;
    return GAPLESS_OK;

unmap:
    (void)munmap(d->map, d->map_bytes);
close_fd:
    (void)close(d->fd);
free_data:
    free(d);
    return status;
}

int data_share(const struct data *data, int *ret_fd, struct gapless_error *error)
{
    int fd = fcntl(data->fd, F_DUPFD, 3); /* never one of the standard three */

    if (fd < 0)
        return gapless_error_set(error, GAPLESS_SYSTEM, errno,
                                 "cannot duplicate the descriptor of data set %s",
                                 data->name);
    *ret_fd = fd;
    return GAPLESS_OK;
}

void data_free(struct data *data)
{
    if (data == NULL)
        return;
    (void)munmap(data->map, data->map_bytes);
    (void)close(data->fd);
    free(data);
}
