/* Data sets: read once, kept as bytes, shared between processes, standardised on the
 * way into a batch.
 *
 *     files (IDX, plain or gzip; CIFAR binary;         launcher            workers
 *     CSV; npy) or a seeded generator ── data_load ──> sealed memory ─ data_share ─ fd ─>
 *                                             uint8 pixels      data_open_fd: the same
 *                                                  │            pages, mapped read-only
 *                                             data_gather ──> float batch
 *
 * Sets of bytes, such as images: pixels stay the bytes that the files hold (Fashion-MNIST: 55 MB, once a machine where
 * the processes share it). data_gather returns (pixel/255 - mean) / deviation, with one
 * mean and one deviation over all pixels of the training set, computed exactly from
 * integers. Sets of numbers (tables, arrays of floats) hold floats, standardised once, when
 * they are read: each column by a mean and a deviation of its own.
 *
 * Where files are looked for, in this order (the first folder that has one of the set's
 * files must have them all):
 *
 *     the folder given (then <folder>/<name>; if given, nowhere else)
 *     $GAPLESS_DATA_DIR/<name>, $GAPLESS_DATA_DIR
 *     the same of $GAPLESS_DATA where that is a path (has a '/')
 *     $XDG_CACHE_HOME/gapless/<name>, or ~/.cache/gapless/<name>
 *     /usr/share/datasets/<name>
 *
 * Files are not trusted: whatever they hold, loading ends in a data set whose every
 * label is below `classes`, or in an error that names the file and what is wrong with
 * it.
 */
#ifndef GAPLESS_WORKLOADS_DATA_H
#define GAPLESS_WORKLOADS_DATA_H

#include <gapless/status.h>

#include <stdint.h>

/* For usage texts. */
#define DATA_CHOICES                                                                   \
    "fashion-mnist, mnist, cifar-10, synthetic[:COUNTxFEATURESxCLASSES[:SEED]], "      \
    "csv:FILE[:label=COLUMN], idx:DIR, npy:DIR"

enum {
    DATA_NAME_MAX = 384,   /* bytes of a name with its end; it may have a path in it */
    DATA_SOURCE_MAX = 256, /* bytes of a folder's path, cut at the front where longer */
    DATA_CLASSES_MAX = 256, /* a label is one byte */
    DATA_FEATURES_MAX = 1 << 20
};

enum data_part {
    DATA_TRAIN,
    DATA_TEST
};

/* Read-only, and so may be used by several threads. */
struct data {
    char name[DATA_NAME_MAX];     /* as asked for */
    char source[DATA_SOURCE_MAX]; /* the folder it was read from, or "generated" */
    uint32_t train_count, test_count;
    uint32_t features;   /* pixels a sample: 784, 3072 (red, green, blue planes), ... */
    uint32_t classes;    /* labels are 0 .. classes-1 */
    double mean;         /* of the training pixels / 255 */
    double deviation;    /* theirs; 1 where it is 0 */
    float scale, offset; /* a standardised pixel is pixel * scale + offset */
    const uint8_t *train_x; /* train_count rows of `features`; NULL of numbers */
    const uint8_t *train_y; /* train_count labels */
    const uint8_t *test_x;
    const uint8_t *test_y;
    const float
        *train_numbers; /* rows of a set of numbers, standardised; NULL of bytes */
    const float *test_numbers;
    const double *mean_each; /* of each feature of a set of numbers; NULL of bytes */
    const double *deviation_each;
    const char *class_names; /* a line each, in the order of the classes; "": numbers */
    const char *column_names; /* of a table, without its labels, a line each; or "" */
    /* private */
    void *map;
    uint64_t map_bytes;
    int fd;
};

/* What a model was trained on: for measuring it on other data. `count` is 1, of bytes, or
 * the number of features; the texts are as in struct data. */
struct data_standard {
    uint32_t count, classes;
    const double *mean, *deviation;
    const char *class_names, *column_names;
};

/* Loads a set by name:
 *     fashion-mnist   60,000 + 10,000 images 28x28, 10 classes
 *     mnist           the same shape
 *     cifar-10        50,000 + 10,000 images 3x32x32, 10 classes
 *     synthetic       generated: 12000x64x10 with seed 1 unless said otherwise, and a
 *                     fifth as many test samples; two overlapping clouds a class
 *     idx:DIR         files named as those of mnist, of any size of images
 *     npy:DIR         x_train.npy, y_train.npy, x_test.npy, y_test.npy
 *     csv:FILE        a table whose first line names the columns; csv:FILE:label=COLUMN
 *                     where the labels' is not called "label". Every fifth row is for
 *                     testing; FILE may be a folder with train.csv and test.csv
 * `data_dir` is a folder or NULL; of the last three it is where the files are instead.
 * Free the result with data_free. Fails with
 * GAPLESS_INVALID (unknown name: the text lists the choices), GAPLESS_MISSING (the text
 * says what to do), GAPLESS_CORRUPT, GAPLESS_IO, GAPLESS_NO_MEMORY, GAPLESS_SYSTEM. */
int data_load(const char *name, const char *data_dir, struct data **ret,
              struct gapless_error *error);
/* The same, standardised as given, and with these classes; GAPLESS_INVALID where the set
 * does not fit. */
int data_load_as(const char *name, const char *data_dir, const struct data_standard *as,
                 struct data **ret, struct gapless_error *error);
void data_free(struct data *data); /* NULL: nothing */
/* A name without its path being relative to anywhere, for another process: of "csv:a.csv"
 * "csv:/home/me/a.csv". Others stay as they are. */
int data_absolute(const char *name, char ret[DATA_NAME_MAX],
                  struct gapless_error *error);
/* The set with all test samples left out but `count` from `from` on. Shares the memory of
 * `data`; never freed. */
struct data data_test_slice(const struct data *data, uint32_t from, uint32_t count);

/* A descriptor of the set for data_open_fd in another process. It survives exec; the
 * caller closes it (this does not disturb `data`). */
int data_share(const struct data *data, int *ret_fd, struct gapless_error *error);

/* The set behind a descriptor of data_share, sharing its memory; costs no copy. The
 * descriptor stays the caller's and may be closed at once. Refuses with GAPLESS_CORRUPT
 * any that is not a sealed data set, and checks it as it would a file. */
int data_open_fd(int fd, struct data **ret, struct gapless_error *error);

/* Samples of a part: count, rows and labels. */
uint32_t data_count(const struct data *data, enum data_part part);

/* Standardises `count` samples into ret_x (count x features, row-major) and copies
 * their labels into ret_y. Each index must be below data_count. */
void data_gather(const struct data *data, enum data_part part, const uint32_t *indices,
                 uint32_t count, float *ret_x, uint8_t *ret_y);

#endif
