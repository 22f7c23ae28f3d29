/* Finding a data set by its name, and gathering batches from it. */
#include "cluster/workloads/data.h"

#include "cluster/workloads/data_image.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* One row a kind of set. */
struct kind {
    const char *name;
    int (*read)(const struct data_from *from, struct data **ret,
                struct gapless_error *error);
    int (*has)(const char *dir); /* NULL: needs no files */
    const char *remedy;          /* what to do where the files are nowhere */
};

static const struct kind kinds[] = {
    {"fashion-mnist", data_read_idx, data_has_idx,
     "apt-get install dataset-fashion-mnist (or put the four IDX files in "
     "$GAPLESS_DATA_DIR/fashion-mnist)"},
    {"mnist", data_read_idx, data_has_idx,
     "cluster/workloads/fetch-data mnist, where it is installed gapless-fetch-data "
     "mnist (or put train-images-idx3-ubyte, "
     "train-labels-idx1-ubyte, "
     "t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, plain or .gz, in "
     "$GAPLESS_DATA_DIR/mnist)"},
    {"cifar-10", data_read_cifar, data_has_cifar,
     "cluster/workloads/fetch-data cifar-10, where it is installed "
     "gapless-fetch-data cifar-10 (or put data_batch_1.bin to "
     "data_batch_5.bin and "
     "test_batch.bin, the binary version, in $GAPLESS_DATA_DIR/cifar-10)"},
    {"synthetic", data_make_synthetic, NULL, NULL},
};

/* Sets of one's own: the rest of the name says where they are. The remedy is what has to
 * be there: a folder, or of csv: also a file. */
static const struct kind own_kinds[] = {
    {"csv:", data_read_csv, NULL,
     "csv:FILE is a table, csv:DIR a folder with train.csv and test.csv"},
    {"idx:", data_read_own_idx, data_has_idx,
     "idx:DIR is a folder with train-images-idx3-ubyte, train-labels-idx1-ubyte, "
     "t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte, plain or .gz"},
    {"npy:", data_read_npy, NULL,
     "npy:DIR is a folder with x_train.npy, y_train.npy, x_test.npy and y_test.npy"},
};

static const struct kind *find_own(const char *name)
{
    for (size_t i = 0; i < sizeof own_kinds / sizeof own_kinds[0]; i++)
        if (strncmp(name, own_kinds[i].name, strlen(own_kinds[i].name)) == 0)
            return &own_kinds[i];
    return NULL;
}

const char *data_label_of(const char *name)
{
    static const char mark[] = ":label=";
    const char *found = NULL;

    for (const char *at = name; (at = strstr(at, mark)) != NULL; at++)
        found = at + strlen(mark);
    return strncmp(name, "csv:", 4) == 0 ? found : NULL;
}

/* The path in the name of a set of one's own. */
static int own_path(const char *name, char ret[PATH_MAX], struct gapless_error *error)
{
    const char *label = data_label_of(name);
    const char *path = strchr(name, ':') + 1;
    size_t bytes =
        label != NULL ? (size_t)(label - path) - strlen(":label=") : strlen(path);

    if (label != NULL && label[0] == '\0')
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "--data %.200s names no column: write the name of the "
                                 "one that has the labels behind label=, or leave "
                                 ":label= out where it is called label",
                                 name);
    if (bytes == 0 || bytes >= PATH_MAX || strlen(name) >= DATA_NAME_MAX ||
        strchr(name, '\n') != NULL)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "--data %.60s: the path is missing or too long: at "
                                 "most %d bytes in all; choose one of %s",
                                 name, DATA_NAME_MAX - 1, DATA_CHOICES);
    (void)snprintf(ret, PATH_MAX, "%.*s", (int)bytes, path);
    return GAPLESS_OK;
}

/* Is there anything at `path`, and may it be what the kind of set wants? */
static int check_path(const struct kind *kind, const char *path,
                      struct gapless_error *error)
{
    const char *shown = data_path_tail(path);
    bool may_be_file = kind->read == data_read_csv;
    struct stat is;

    if (stat(path, &is) != 0 && errno != ENOENT && errno != ENOTDIR)
        return gapless_error_set(error, GAPLESS_IO, errno, "cannot look at %s", shown);
    if (stat(path, &is) != 0)
        return gapless_error_set(error, GAPLESS_MISSING, 0, "%s does not exist; %s",
                                 shown, kind->remedy);
    if (!may_be_file && !S_ISDIR(is.st_mode))
        return gapless_error_set(error, GAPLESS_INVALID, 0, "%s is no folder; %s",
                                 shown, kind->remedy);
    if (kind->has != NULL && !kind->has(path))
        return gapless_error_set(error, GAPLESS_MISSING, 0,
                                 "%s has none of the files of a set; %s", shown,
                                 kind->remedy);
    return GAPLESS_OK;
}

/* Where the files are: data_dir counts for the folder that the name says. */
static int load_own(const struct kind *kind, const char *name, const char *data_dir,
                    const struct data_standard *as, struct data **ret,
                    struct gapless_error *error)
{
    char path[PATH_MAX], moved[PATH_MAX];
    struct data_from from = {.name = name, .dir = path, .as = as};
    const char *slash;
    int status = own_path(name, path, error), used;

    if (status != GAPLESS_OK)
        return status;
    if (data_dir != NULL) {
        slash = strrchr(path, '/');
        used = strcmp(kind->name, "csv:") == 0
                   ? snprintf(moved, sizeof moved, "%s/%s", data_dir,
                              slash != NULL ? slash + 1 : path)
                   : snprintf(moved, sizeof moved, "%s", data_dir);
        if (used < 0 || used >= (int)sizeof moved)
            return gapless_error_set(error, GAPLESS_INVALID, 0,
                                     "--data-dir is too long");
        from.dir = moved;
    }
    status = check_path(kind, from.dir, error);
    return status == GAPLESS_OK ? kind->read(&from, ret, error) : status;
}

int data_absolute(const char *name, char ret[DATA_NAME_MAX],
                  struct gapless_error *error)
{
    const struct kind *kind = find_own(name);
    const char *label = kind != NULL ? data_label_of(name) : NULL;
    char path[PATH_MAX], real[PATH_MAX];
    int status = kind != NULL ? own_path(name, path, error) : GAPLESS_OK, used;

    if (status != GAPLESS_OK)
        return status;
    if (kind == NULL || realpath(path, real) == NULL)
        used = snprintf(ret, DATA_NAME_MAX, "%s", name); /* its reader says more */
    else
        used = snprintf(ret, DATA_NAME_MAX, "%s%s%s%s", kind->name, real,
                        label != NULL ? ":label=" : "", label != NULL ? label : "");
    if (used >= 0 && used < DATA_NAME_MAX)
        return GAPLESS_OK;
    return gapless_error_set(error, GAPLESS_INVALID, 0,
                             "--data %.60s: the whole path has more than %d bytes",
                             name, DATA_NAME_MAX - 1);
}

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

/* The files of a set that is known by name are not there. */
static int nowhere(const struct kind *kind, const char *data_dir,
                   struct gapless_error *error)
{
    if (data_dir == NULL)
        return gapless_error_set(error, GAPLESS_MISSING, 0, "%s is not installed: %s",
                                 kind->name, kind->remedy);
    if (access(data_dir, F_OK) != 0)
        return gapless_error_set(
            error, GAPLESS_MISSING, 0,
            "%s does not exist: give the folder that has the files "
            "of %s, or none to search the usual places",
            data_path_tail(data_dir), kind->name);
    return gapless_error_set(error, GAPLESS_MISSING, 0,
                             "no files of %s in %s: give the folder that has them, or "
                             "none to search the usual places",
                             kind->name, data_path_tail(data_dir));
}

int data_load(const char *name, const char *data_dir, struct data **ret,
              struct gapless_error *error)
{
    return data_load_as(name, data_dir, NULL, ret, error);
}

int data_load_as(const char *name, const char *data_dir, const struct data_standard *as,
                 struct data **ret, struct gapless_error *error)
{
    const struct kind *kind = find_kind(name), *own = find_own(name);
    char folder[PATH_MAX];
    struct data_from from = {.name = name, .dir = folder, .as = as};

    if (own != NULL)
        return load_own(own, name, data_dir, as, ret, error);
    if (kind == NULL)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "no data set is called \"%.60s\": choose one of %s",
                                 name, DATA_CHOICES);
    if (kind->has == NULL)
        return kind->read(&from, ret, error);
    if (find_folder(kind, data_dir, folder))
        return kind->read(&from, ret, error);
    return nowhere(kind, data_dir, error);
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
    const float *numbers =
        part == DATA_TRAIN ? data->train_numbers : data->test_numbers;
    size_t row = data->features;

    for (uint32_t i = 0; i < count; i++) {
        ret_y[i] = y[indices[i]];
        if (numbers != NULL) {
            memcpy(ret_x + i * row, numbers + indices[i] * row, row * sizeof *ret_x);
            continue;
        }
        standardise_row(x + (size_t)indices[i] * data->features, data->features,
                        data->scale, data->offset, ret_x + (size_t)i * data->features);
    }
}

struct data data_test_slice(const struct data *data, uint32_t from, uint32_t count)
{
    struct data ret = *data;
    size_t skipped = (size_t)from * data->features;

    ret.test_count = count;
    ret.test_y += from;
    if (data->test_numbers != NULL)
        ret.test_numbers += skipped;
    else
        ret.test_x += skipped;
    return ret;
}
