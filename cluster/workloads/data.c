/* Finding a data set by its name, and gathering batches from it. */
#include "cluster/workloads/data.h"

#include "cluster/workloads/data_image.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int read_synthetic(const char *name, const char *dir, struct data **ret,
                          struct gapless_error *error)
{
    (void)dir;
    return data_make_synthetic(name, ret, error);
}

/* One row a kind of set. */
struct kind {
    const char *name;
    int (*read)(const char *name, const char *dir, struct data **ret,
                struct gapless_error *error);
    int (*has)(const char *dir); /* NULL: needs no files */
    const char *remedy;          /* what to do where the files are nowhere */
};

static const struct kind kinds[] = {
    {"fashion-mnist", data_read_idx, data_has_idx,
     "apt-get install dataset-fashion-mnist (or put the four IDX files in "
     "$GAPLESS_DATA_DIR/fashion-mnist)"},
    {"mnist", data_read_idx, data_has_idx,
     "cluster/workloads/fetch-data mnist (or put train-images-idx3-ubyte, "
     "train-labels-idx1-ubyte, "
     "t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, plain or .gz, in "
     "$GAPLESS_DATA_DIR/mnist)"},
    {"cifar-10", data_read_cifar, data_has_cifar,
     "cluster/workloads/fetch-data cifar-10 (or put data_batch_1.bin to "
     "data_batch_5.bin and "
     "test_batch.bin, the binary version, in $GAPLESS_DATA_DIR/cifar-10)"},
    {"synthetic", read_synthetic, NULL, NULL},
};

static const struct kind *find_kind(const char *name)
{
    size_t count = sizeof kinds / sizeof kinds[0];

    for (size_t i = 0; i < count; i++)
        if (strcmp(name, kinds[i].name) == 0)
            return &kinds[i];
    if (strncmp(name, "synthetic:", strlen("synthetic:")) == 0)
        return &kinds[count - 1];
    return NULL;
}

/* Writes "base/tail1/tail2" without the parts that are ""; false where base is not set,
 * empty or too long. */
static bool join(char ret[PATH_MAX], const char *base, const char *tail1,
                 const char *tail2)
{
    int used;

    if (base == NULL || base[0] == '\0')
        return false;
    used = snprintf(ret, PATH_MAX, "%s%s%s%s%s", base, tail1[0] != '\0' ? "/" : "",
                    tail1, tail2[0] != '\0' ? "/" : "", tail2);
    return used > 0 && used < PATH_MAX;
}

/* The first folder of the search order that has the set's first file. */
static bool find_folder(const struct kind *kind, const char *data_dir,
                        char ret[PATH_MAX])
{
    const char *dir = getenv("GAPLESS_DATA_DIR"), *env = getenv("GAPLESS_DATA");
    const char *cache = getenv("XDG_CACHE_HOME");
    const char *name = kind->name;

    if (data_dir != NULL)
        return (join(ret, data_dir, "", "") && kind->has(ret)) ||
               (join(ret, data_dir, name, "") && kind->has(ret));
    if (env != NULL && strchr(env, '/') == NULL)
        env = NULL; /* the name of a set: the program's --data */
    if ((join(ret, dir, name, "") && kind->has(ret)) ||
        (join(ret, dir, "", "") && kind->has(ret)) ||
        (join(ret, env, name, "") && kind->has(ret)) ||
        (join(ret, env, "", "") && kind->has(ret)))
        return true;
    if (cache != NULL && cache[0] != '\0') {
        if (join(ret, cache, "gapless", name) && kind->has(ret))
            return true;
    } else if (join(ret, getenv("HOME"), ".cache/gapless", name) && kind->has(ret)) {
        return true;
    }
    return join(ret, "/usr/share/datasets", name, "") && kind->has(ret);
}

int data_load(const char *name, const char *data_dir, struct data **ret,
              struct gapless_error *error)
{
    const struct kind *kind = find_kind(name);
    char folder[PATH_MAX];

    if (kind == NULL)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "no data set is called \"%.60s\": choose one of %s",
                                 name, DATA_CHOICES);
    if (kind->has == NULL)
        return kind->read(name, NULL, ret, error);
    if (find_folder(kind, data_dir, folder))
        return kind->read(name, folder, ret, error);
    if (data_dir != NULL)
        return gapless_error_set(error, GAPLESS_MISSING, 0,
                                 "no files of %s in %s: give the folder that has them, "
                                 "or none to search the usual places",
                                 name, data_path_tail(data_dir));
    return gapless_error_set(error, GAPLESS_MISSING, 0, "%s is not installed: %s", name,
                             kind->remedy);
}

uint32_t data_count(const struct data *data, enum data_part part)
{
    return part == DATA_TRAIN ? data->train_count : data->test_count;
}

/* Apart, so that the loop is vectorised: bytes to floats, then one multiply and add. */
static void standardise_row(const uint8_t *restrict pixels, uint32_t n, float scale,
                            float offset, float *restrict ret)
{
    for (uint32_t i = 0; i < n; i++)
        ret[i] = (float)pixels[i] * scale + offset;
}

void data_gather(const struct data *data, enum data_part part, const uint32_t *indices,
                 uint32_t count, float *ret_x, uint8_t *ret_y)
{
    const uint8_t *x = part == DATA_TRAIN ? data->train_x : data->test_x;
    const uint8_t *y = part == DATA_TRAIN ? data->train_y : data->test_y;

    for (uint32_t i = 0; i < count; i++) {
        standardise_row(x + (size_t)indices[i] * data->features, data->features,
                        data->scale, data->offset, ret_x + (size_t)i * data->features);
        ret_y[i] = y[indices[i]];
    }
}
