/* Small data sets in files, for the tests of the readers: made in memory, written to a
 * temporary folder that the group's set-up makes and its tear-down removes. */
#ifndef GAPLESS_TESTS_DATA_FILES_H
#define GAPLESS_TESTS_DATA_FILES_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "cluster/workloads/data.h"
#include "engine/base/rng.h"

#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

enum {
    TRAIN = 20,
    TEST = 8,
    ROWS = 4,
    COLUMNS = 3,
    PIXELS = ROWS * COLUMNS
};
enum {
    CIFAR_RECORD = 3073,
    FILES = 6,
    BYTES_MAX = 2 * CIFAR_RECORD
};

/* A file in memory; `bytes` is what a test may damage. */
struct file {
    char name[64];
    uint8_t bytes[BYTES_MAX];
    size_t length;
};

static char root[PATH_MAX]; /* a temporary folder, removed at the end */
static char home[PATH_MAX]; /* an empty one in it */
static struct file idx[4], idx_gz[4], cifar[FILES];

static inline void path_of(char ret[PATH_MAX], const char *dir, const char *name)
{
    int used = snprintf(ret, PATH_MAX, "%s/%s", dir, name);

    assert_true(used > 0 && used < PATH_MAX);
}

static inline void write_file(const char *dir, const struct file *f)
{
    char path[PATH_MAX];
    FILE *to;

    path_of(path, dir, f->name);
    to = fopen(path, "wb");
    assert_non_null(to);
    assert_int_equal(fwrite(f->bytes, 1, f->length, to), f->length);
    assert_int_equal(fclose(to), 0);
}

static inline void write_files(const char *dir, const struct file *files, int count)
{
    for (int i = 0; i < count; i++)
        write_file(dir, &files[i]);
}

static inline void remove_file(const char *dir, const struct file *f)
{
    char path[PATH_MAX];

    path_of(path, dir, f->name);
    assert_int_equal(unlink(path), 0);
}

/* Removes a folder and all in it. */
static inline void remove_tree(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *entry;

    if (dir == NULL)
        return;
    while ((entry = readdir(dir)) != NULL) {
        char inner[PATH_MAX];

        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        path_of(inner, path, entry->d_name);
        if (unlink(inner) != 0)
            remove_tree(inner);
    }
    (void)closedir(dir);
    (void)rmdir(path);
}

/* A new folder in the temporary one, which may be "a/b" if "a" is there. */
static inline void make_folder(char ret[PATH_MAX], const char *name)
{
    path_of(ret, root, name);
    remove_tree(ret);
    assert_int_equal(mkdir(ret, 0700), 0);
}

static inline void put_size(struct file *f, size_t at, uint32_t size)
{
    f->bytes[at] = (uint8_t)(size >> 24);
    f->bytes[at + 1] = (uint8_t)(size >> 16);
    f->bytes[at + 2] = (uint8_t)(size >> 8);
    f->bytes[at + 3] = (uint8_t)size;
}

static inline uint8_t pixel_at(int test, uint32_t i)
{
    return (uint8_t)rng_mix(i + (test ? 1000000U : 0U));
}

static inline void compress_file(const struct file *from, struct file *ret)
{
    z_stream z = {.next_in = NULL};

    *ret = *from;
    (void)snprintf(ret->name, sizeof ret->name, "%.48s.gz", from->name);
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY),
                     Z_OK);
    z.next_in = (uint8_t *)(uintptr_t)from->bytes;
    z.avail_in = (uInt)from->length;
    z.next_out = ret->bytes;
    z.avail_out = BYTES_MAX;
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    ret->length = z.total_out;
    (void)deflateEnd(&z);
}

static inline void make_idx(void)
{
    static const char *const names[] = {
        "train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte",
        "t10k-labels-idx1-ubyte"};

    for (int i = 0; i < 4; i++) {
        uint32_t count = i < 2 ? TRAIN : TEST, row = i % 2 == 0 ? PIXELS : 1;
        size_t header = i % 2 == 0 ? 16 : 8;
        struct file *f = &idx[i];

        (void)snprintf(f->name, sizeof f->name, "%s", names[i]);
        put_size(f, 0, i % 2 == 0 ? 0x803 : 0x801);
        put_size(f, 4, count);
        if (i % 2 == 0) {
            put_size(f, 8, ROWS);
            put_size(f, 12, COLUMNS);
        }
        for (uint32_t j = 0; j < count * row; j++)
            f->bytes[header + j] =
                i % 2 == 0 ? pixel_at(i == 2, j) : (uint8_t)((j + (uint32_t)i) % 10);
        f->length = header + (size_t)count * row;
        compress_file(f, &idx_gz[i]);
    }
}

static inline void make_cifar(void)
{
    for (uint32_t i = 0; i < FILES; i++) {
        struct file *f = &cifar[i];

        if (i < 5)
            (void)snprintf(f->name, sizeof f->name, "data_batch_%d.bin", (int)i + 1);
        else
            (void)snprintf(f->name, sizeof f->name, "test_batch.bin");
        f->length = BYTES_MAX;
        for (uint32_t j = 0; j < BYTES_MAX; j++)
            f->bytes[j] = j % CIFAR_RECORD == 0 ? (uint8_t)((i + j) % 10)
                                                : pixel_at(0, i * BYTES_MAX + j);
    }
}

static inline int set_up(void **state)
{
    const char *base = getenv("TMPDIR");

    (void)state;
    path_of(root, base != NULL ? base : "/tmp", "gapless-data-XXXXXX");
    if (mkdtemp(root) == NULL)
        return -1;
    make_folder(home, "home");
    make_idx();
    make_cifar();
    return setenv("HOME", home, 1) | unsetenv("XDG_CACHE_HOME") |
           unsetenv("GAPLESS_DATA") | unsetenv("GAPLESS_DATA_DIR");
}

static inline int tear_down(void **state)
{
    (void)state;
    remove_tree(root);
    return 0;
}

static inline struct data *loaded(const char *name, const char *dir)
{
    struct gapless_error error = {.text = ""};
    struct data *ret = NULL;

    if (data_load(name, dir, &ret, &error) != GAPLESS_OK)
        fail_msg("%s: %s", name, error.text);
    return ret;
}

static inline void refused(const char *name, const char *dir, int status,
                           const char *says, const char *says_too)
{
    struct gapless_error error = {.text = ""};
    struct data *data = NULL;
    int is = data_load(name, dir, &data, &error);

    if (is != status || strstr(error.text, says) == NULL ||
        strstr(error.text, says_too) == NULL)
        fail_msg("%s: status %d, \"%s\"; expected %d, \"%s\", \"%s\"", name, is,
                 error.text, status, says, says_too);
    assert_null(data);
    assert_int_equal(error.status, status);
    assert_int_equal(data_load(name, dir, &data, NULL), status);
}

static inline int open_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int ret = 0;

    assert_non_null(dir);
    while (readdir(dir) != NULL)
        ret++;
    (void)closedir(dir);
    return ret;
}

#endif
