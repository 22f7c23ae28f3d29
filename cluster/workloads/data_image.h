/* Private to the data readers: a data set being filled.
 *
 * A set lives in a memfd: one page of header, then rows and labels. A reader learns the
 * shape, asks for an image of it, fills the four arrays, and finishes it, which checks
 * the labels, computes mean and deviation, and seals the memory for good: no process, in
 * any process, can write to it or shrink it afterwards.
 *
 *     page 0: header | train_x | test_x | train_y | test_y | means | deviations | words
 */
#ifndef GAPLESS_WORKLOADS_DATA_IMAGE_H
#define GAPLESS_WORKLOADS_DATA_IMAGE_H

#include "cluster/workloads/data.h"

#include <stddef.h>
#include <stdint.h>

struct data_shape {
    uint32_t train_count, test_count, features, classes;
    uint32_t numbers;     /* 1: rows are floats; 0: bytes */
    uint32_t words_bytes; /* of the names of classes and columns, with two ends */
};

/* What a reader is asked for. `as` may be NULL. */
struct data_from {
    const char *name, *dir; /* dir: the folder, or of a table the file, that has it */
    const struct data_standard *as;
};

struct data_image {
    struct data_shape shape;
    uint8_t *train_x, *test_x, *train_y, *test_y; /* to be filled; zero before */
    float *train_numbers, *test_numbers; /* in place of _x, as they are in the files */
    char *words; /* the names of the classes, the end, those of the columns, the end */
    const struct data_standard *as;
    void *map;
    uint64_t bytes;
    int fd;
};

/* Memory for a set of this shape. GAPLESS_INVALID where a count is 0 or the whole is
 * larger than a set may be; the caller has checked the shape against its files. */
int data_image_new(const struct data_from *from, const struct data_shape *shape,
                   struct data_image *ret, struct gapless_error *error);
/* Gives up an image that was not finished. */
void data_image_drop(struct data_image *image);
/* Seals the image and turns it into a set. Consumes the image, also on failure. */
int data_image_finish(struct data_image *image, struct data **ret,
                      struct gapless_error *error);

/* The position of the first label that is not below `classes`, or `count`. */
uint32_t data_bad_label(const uint8_t *labels, uint32_t count, uint32_t classes);

/* The last part of a path, short enough for an error text. */
const char *data_path_tail(const char *path);

/* The readers. */
int data_read_idx(const struct data_from *from, struct data **ret,
                  struct gapless_error *error);
/* Of any number of classes. */
int data_read_own_idx(const struct data_from *from, struct data **ret,
                      struct gapless_error *error);
int data_read_npy(const struct data_from *from, struct data **ret,
                  struct gapless_error *error);
/* `name` is "csv:...", `dir` the file or folder. */
int data_read_csv(const struct data_from *from, struct data **ret,
                  struct gapless_error *error);
int data_read_cifar(const struct data_from *from, struct data **ret,
                    struct gapless_error *error);
/* `name` is "synthetic" or "synthetic:COUNTxFEATURESxCLASSES[:SEED]". */
int data_make_synthetic(const struct data_from *from, struct data **ret,
                        struct gapless_error *error);

/* Where the column of the labels begins in "csv:FILE:label=COLUMN"; NULL: it has none. */
const char *data_label_of(const char *name);

/* Whether the first file of a set is in a folder. */
int data_has_idx(const char *dir);
int data_has_cifar(const char *dir);

#endif
