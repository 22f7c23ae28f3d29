/* Writes and reads files of parameters. */
#include "cluster/task/model_file.h"

#include "engine/run/checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEADER_MAX (100u << 20) /* as the safetensors library has it */

/* ---- writing ------------------------------------------------------------- */

/* Adds a pair; takes `value`. */
static bool add(struct model_file_metadata *to, const char *key, char *value)
{
    size_t count = 0;

    while (to->text[count] != NULL)
        count += 2;
    if (value == NULL || count + 2 > MODEL_FILE_TEXTS) {
        free(value);
        return false;
    }
    to->text[count] = key;
    to->text[count + 1] = value;
    return true;
}

static char *dumped(json_t *value)
{
    char *ret =
        value != NULL ? json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT) : NULL;

    json_decref(value);
    return ret;
}

static char *number_text(double value)
{
    return dumped(json_real(value));
}

static char *numbers_text(const double *values, uint32_t count)
{
    json_t *list = json_array();

    for (uint32_t i = 0; i < count; i++)
        (void)json_array_append_new(list, json_real(values[i]));
    return dumped(list);
}

/* ["a","b"] of a line each. NULL also where a name is not UTF-8. */
static char *names_text(const char *names)
{
    json_t *list = json_array();

    while (names[0] != '\0') {
        size_t bytes = strcspn(names, "\n");

        if (json_array_append_new(list, json_stringn(names, bytes)) != 0) {
            json_decref(list);
            return NULL;
        }
        names += bytes + (names[bytes] == '\n');
    }
    return dumped(list);
}

static char *count_text(uint32_t count)
{
    return dumped(json_integer((json_int_t)count));
}

static bool add_all(struct model_file_metadata *to, const struct task *task)
{
    const struct data *data = task->data;
    bool numbers = data->mean_each != NULL;

    return add(to, "model", strdup(task->model.spec)) &&
           add(to, "data", strdup(task->job.data)) &&
           add(to, "features", count_text(data->features)) &&
           add(to, "classes", count_text(data->classes)) &&
           add(to, "data_mean",
               numbers ? numbers_text(data->mean_each, data->features)
                       : number_text(data->mean)) &&
           add(to, "data_deviation",
               numbers ? numbers_text(data->deviation_each, data->features)
                       : number_text(data->deviation)) &&
           (data->class_names[0] == '\0' ||
            add(to, "class_names", names_text(data->class_names))) &&
           (data->column_names[0] == '\0' ||
            add(to, "columns", names_text(data->column_names)));
}

int model_file_metadata(const struct task *task, struct model_file_metadata *ret,
                        struct gapless_error *error)
{
    memset(ret, 0, sizeof *ret);
    if (task->has_toy || add_all(ret, task))
        return GAPLESS_OK;
    model_file_metadata_free(ret);
    return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                             "the names of %.100s are not UTF-8, or there is no memory "
                             "for them",
                             task->job.data);
}

void model_file_metadata_free(struct model_file_metadata *metadata)
{
    for (size_t i = 0; metadata->text[i] != NULL; i += 2)
        free((char *)(uintptr_t)metadata->text[i + 1]);
    memset(metadata, 0, sizeof *metadata);
}

int model_file_save(const struct task *task, const float *theta, const char *rule,
                    uint64_t gradients, const char *path, struct gapless_error *error)
{
    char consumed[24];
    const char *const own[] = {"gapless",   gapless_version(), "rule", rule,
                               "gradients", consumed,          NULL};
    struct model_file_metadata metadata;
    struct layout layout;
    int status = model_file_metadata(task, &metadata, error);

    (void)snprintf(consumed, sizeof consumed, "%" PRIu64, gradients);
    if (status != GAPLESS_OK)
        return status;
    status = layout_init(&layout, &task->shape, 0, 0, false, error);
    if (status == GAPLESS_OK) {
        status = checkpoint_save(&layout, theta, path, own, metadata.text, error);
        layout_free(&layout);
    }
    model_file_metadata_free(&metadata);
    return status;
}

/* ---- reading ------------------------------------------------------------- */

static int corrupt(const struct model_file *file, struct gapless_error *error,
                   const char *reason)
{
    return gapless_error_set(error, GAPLESS_CORRUPT, 0, "%.200s %s", file->path,
                             reason);
}

static int open_header(struct model_file *file, struct gapless_error *error)
{
    int fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat info;
    uint8_t start[8];
    uint64_t length = 0;
    json_error_t reason;
    char *text;

    if (fd < 0)
        return gapless_error_set(error, errno == ENOENT ? GAPLESS_MISSING : GAPLESS_IO,
                                 errno, "cannot read %.200s", file->path);
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) ||
        (file->file = fdopen(fd, "rb")) == NULL) {
        (void)close(fd);
        return corrupt(file, error, "is no regular file: name a model.safetensors");
    }
    if (fread(start, 1, sizeof start, file->file) != sizeof start)
        return corrupt(file, error, "is too short for a safetensors file");
    for (size_t i = 0; i < sizeof start; i++)
        length |= (uint64_t)start[i] << (8 * i);
    if (length > HEADER_MAX || length + 8 > (uint64_t)info.st_size)
        return corrupt(file, error, "is no safetensors file, or is truncated");
    text = malloc(length + 1);
    if (text == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for %.200s",
                                 file->path);
    if (fread(text, 1, length, file->file) == length)
        file->header = json_loadb(text, length, JSON_REJECT_DUPLICATES, &reason);
    free(text);
    if (!json_is_object(file->header))
        return corrupt(file, error, "is no safetensors file: its header is not JSON");
    file->tensors_at = length + 8;
    file->bytes = (uint64_t)info.st_size - file->tensors_at;
    return GAPLESS_OK;
}

static const char *said(const struct model_file *file, const char *key)
{
    const json_t *metadata = json_object_get(file->header, "__metadata__");
    const char *ret = json_string_value(json_object_get(metadata, key));

    return ret != NULL ? ret : "";
}

/* A number or a list of them, into ret. 0: it is neither, or too long. */
static uint32_t read_numbers(const char *text, double *ret, uint32_t max)
{
    json_t *value = json_loads(text, JSON_DECODE_ANY, NULL);
    uint32_t count = 0;

    if (json_is_number(value) && max > 0) {
        ret[0] = json_number_value(value);
        count = 1;
    }
    if (json_is_array(value) && json_array_size(value) <= max) {
        for (; count < json_array_size(value); count++) {
            const json_t *number = json_array_get(value, count);

            ret[count] =
                json_is_number(number) ? json_number_value(number) : (double)NAN;
        }
    }
    for (uint32_t i = 0; i < count; i++)
        if (!isfinite(ret[i])) {
            count = 0;
            break;
        }
    json_decref(value);
    return count;
}

/* A line each, malloc'ed; "" where there are none. */
static char *read_names(const char *text)
{
    json_t *list = json_loads(text, 0, NULL);
    size_t bytes = 1, used = 0;
    const json_t *name;
    char *ret;
    size_t i;

    json_array_foreach(list, i, name) bytes += json_string_length(name) + 1;
    ret = calloc(1, bytes);
    if (ret != NULL)
        json_array_foreach(list, i, name) used +=
            (size_t)snprintf(ret + used, bytes - used, "%s%s", i > 0 ? "\n" : "",
                             json_is_string(name) ? json_string_value(name) : "");
    json_decref(list);
    return ret;
}

/* How data were standardised. A file of another program need not say it. */
static int read_standard(struct model_file *file, struct gapless_error *error)
{
    uint32_t features = (uint32_t)strtoul(said(file, "features"), NULL, 10), i;
    uint32_t classes = (uint32_t)strtoul(said(file, "classes"), NULL, 10);
    struct data_standard *ret = &file->standard;

    file->class_names = read_names(said(file, "class_names"));
    file->column_names = read_names(said(file, "columns"));
    if (file->class_names == NULL || file->column_names == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory");
    ret->class_names = file->class_names;
    ret->column_names = file->column_names;
    if (said(file, "data_mean")[0] == '\0')
        return GAPLESS_OK;
    if (features < 1 || features > DATA_FEATURES_MAX || classes < 2 ||
        classes > DATA_CLASSES_MAX)
        return corrupt(file, error,
                       "has metadata that make no sense: features, classes");
    file->numbers = calloc(2 * (size_t)features, sizeof *file->numbers);
    if (file->numbers == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory");
    ret->classes = classes;
    ret->mean = file->numbers;
    ret->deviation = file->numbers + features;
    ret->count = read_numbers(said(file, "data_mean"), file->numbers, features);
    if (ret->count == 0 ||
        read_numbers(said(file, "data_deviation"), file->numbers + features,
                     features) != ret->count)
        return corrupt(file, error, "has metadata that make no sense: data_mean");
    for (i = 0; i < ret->count; i++)
        if (!(ret->deviation[i] > 0.0))
            return corrupt(file, error,
                           "has metadata that make no sense: data_deviation");
    return GAPLESS_OK;
}

int model_file_open(const char *path, struct model_file *ret,
                    struct gapless_error *error)
{
    int status;

    memset(ret, 0, sizeof *ret);
    ret->path = path;
    status = open_header(ret, error);
    if (status == GAPLESS_OK)
        status = read_standard(ret, error);
    if (status != GAPLESS_OK) {
        model_file_close(ret);
        return status;
    }
    ret->model = said(ret, "model");
    ret->data = said(ret, "data");
    ret->rule = said(ret, "rule");
    ret->version = said(ret, "gapless");
    ret->gradients = said(ret, "gradients");
    return GAPLESS_OK;
}

static bool same_shape(const json_t *shape, const struct model_tensor *tensor)
{
    bool same = json_array_size(shape) == tensor->rank;

    for (uint32_t i = 0; same && i < tensor->rank; i++)
        same =
            json_integer_value(json_array_get(shape, i)) == (json_int_t)tensor->dims[i];
    return same;
}

static int read_tensor(struct model_file *file, const struct model_tensor *tensor,
                       float *ret, struct gapless_error *error)
{
    const json_t *row = json_object_get(file->header, tensor->name);
    const json_t *offsets = json_object_get(row, "data_offsets");
    const char *type = json_string_value(json_object_get(row, "dtype"));
    uint64_t bytes = (uint64_t)tensor->count * sizeof *ret;
    json_int_t from = json_integer_value(json_array_get(offsets, 0));
    json_int_t to = json_integer_value(json_array_get(offsets, 1));

    if (row == NULL || !same_shape(json_object_get(row, "shape"), tensor))
        return gapless_error_set(error, GAPLESS_MODEL, 0,
                                 "%.200s has no tensor %s of the size that the model "
                                 "has: give its --model and --data",
                                 file->path, tensor->name);
    if (type == NULL || strcmp(type, "F32") != 0)
        return gapless_error_set(error, GAPLESS_MODEL, 0,
                                 "%.200s: tensor %s is of type %.20s; only F32 is read",
                                 file->path, tensor->name,
                                 type != NULL ? type : "none");
    if (from < 0 || to < from || (uint64_t)(to - from) != bytes ||
        (uint64_t)to > file->bytes)
        return corrupt(file, error, "is truncated, or its header is wrong");
    if (fseek(file->file, (long)(file->tensors_at + (uint64_t)from), SEEK_SET) != 0 ||
        fread(ret, sizeof *ret, tensor->count, file->file) != tensor->count)
        return gapless_error_set(error, GAPLESS_IO, errno, "cannot read %.200s",
                                 file->path);
    return GAPLESS_OK;
}

int model_file_read(struct model_file *file, const struct model *model,
                    float *ret_theta, struct gapless_error *error)
{
    size_t metadata = json_object_get(file->header, "__metadata__") != NULL;
    int status = GAPLESS_OK;

    if (json_object_size(file->header) != model->tensor_count + metadata)
        return gapless_error_set(error, GAPLESS_MODEL, 0,
                                 "%.200s has %zu tensors, the model %.60s has %u",
                                 file->path, json_object_size(file->header) - metadata,
                                 model->spec, model->tensor_count);
    for (uint32_t i = 0; status == GAPLESS_OK && i < model->tensor_count; i++)
        status = read_tensor(file, &model->tensors[i],
                             ret_theta + model->tensors[i].offset, error);
    if (status == GAPLESS_OK && file->bytes > model->parameters * sizeof *ret_theta)
        status =
            corrupt(file, error,
                    "has bytes behind its last tensor: it is damaged, or two files in "
                    "one");
    return status;
}

void model_file_close(struct model_file *file)
{
    if (file->file != NULL)
        (void)fclose(file->file);
    json_decref(file->header);
    free(file->numbers);
    free(file->class_names);
    free(file->column_names);
    memset(file, 0, sizeof *file);
}
