/* Writes and reads files of parameters. */
#include "cluster/task/model_file.h"

#include "engine/run/checkpoint.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

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
    if (task->data == NULL || add_all(ret, task))
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
                    uint64_t gradients, const char *path, int fd,
                    struct gapless_error *error)
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
        status = fd >= 0
                     ? checkpoint_print(&layout, theta, fd, own, metadata.text, error)
                     : checkpoint_save(&layout, theta, path, own, metadata.text, error);
        layout_free(&layout);
    }
    model_file_metadata_free(&metadata);
    return status;
}

/* ---- reading ------------------------------------------------------------- */

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
    const struct tensor_file *from = &file->file;
    uint32_t features = (uint32_t)strtoul(tensor_file_said(from, "features"), NULL, 10),
             i;
    uint32_t classes = (uint32_t)strtoul(tensor_file_said(from, "classes"), NULL, 10);
    struct data_standard *ret = &file->standard;

    file->class_names = read_names(tensor_file_said(from, "class_names"));
    file->column_names = read_names(tensor_file_said(from, "columns"));
    if (file->class_names == NULL || file->column_names == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory");
    ret->class_names = file->class_names;
    ret->column_names = file->column_names;
    if (tensor_file_said(from, "data_mean")[0] == '\0')
        return GAPLESS_OK;
    if (features < 1 || features > DATA_FEATURES_MAX || classes < 2 ||
        classes > DATA_CLASSES_MAX)
        return tensor_file_corrupt(
            from, error, "has metadata that make no sense: features, classes");
    file->numbers = calloc(2 * (size_t)features, sizeof *file->numbers);
    if (file->numbers == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory");
    ret->classes = classes;
    ret->mean = file->numbers;
    ret->deviation = file->numbers + features;
    ret->count =
        read_numbers(tensor_file_said(from, "data_mean"), file->numbers, features);
    if (ret->count == 0 ||
        read_numbers(tensor_file_said(from, "data_deviation"), file->numbers + features,
                     features) != ret->count)
        return tensor_file_corrupt(from, error,
                                   "has metadata that make no sense: data_mean");
    for (i = 0; i < ret->count; i++)
        if (!(ret->deviation[i] > 0.0))
            return tensor_file_corrupt(
                from, error, "has metadata that make no sense: data_deviation");
    return GAPLESS_OK;
}

int model_file_open(const char *path, struct model_file *ret,
                    struct gapless_error *error)
{
    int status;

    memset(ret, 0, sizeof *ret);
    status = tensor_file_open(path, path, &ret->file, error);
    if (status == GAPLESS_OK)
        status = read_standard(ret, error);
    if (status != GAPLESS_OK) {
        model_file_close(ret);
        return status;
    }
    ret->model = tensor_file_said(&ret->file, "model");
    ret->data = tensor_file_said(&ret->file, "data");
    ret->rule = tensor_file_said(&ret->file, "rule");
    ret->version = tensor_file_said(&ret->file, "gapless");
    ret->gradients = tensor_file_said(&ret->file, "gradients");
    return GAPLESS_OK;
}

static bool same_shape(const struct tensor_entry *entry,
                       const struct model_tensor *tensor)
{
    bool same = entry->dims == tensor->rank;

    for (uint32_t i = 0; same && i < tensor->rank; i++)
        same = entry->dim[i] == tensor->dims[i];
    return same;
}

static int read_tensor(const struct model_file *file, const struct model_tensor *tensor,
                       float *ret, struct gapless_error *error)
{
    struct tensor_entry entry;

    if (!tensor_file_find(&file->file, tensor->name, &entry) ||
        !same_shape(&entry, tensor))
        return gapless_error_set(error, GAPLESS_MODEL, 0,
                                 "%.200s has no tensor %s of the size that the model "
                                 "has: give its --model and --data",
                                 file->file.name, tensor->name);
    return tensor_file_read(&file->file, &entry, tensor->count, ret, error);
}

int model_file_read(struct model_file *file, const struct model *model,
                    float *ret_theta, struct gapless_error *error)
{
    size_t count = tensor_file_count(&file->file);
    int status = GAPLESS_OK;

    if (count != model->tensor_count)
        return gapless_error_set(
            error, GAPLESS_MODEL, 0, "%.200s has %zu tensors, the model %.60s has %u",
            file->file.name, count, model->spec, model->tensor_count);
    for (uint32_t i = 0; status == GAPLESS_OK && i < model->tensor_count; i++)
        status = read_tensor(file, &model->tensors[i],
                             ret_theta + model->tensors[i].offset, error);
    if (status == GAPLESS_OK &&
        file->file.bytes > model->parameters * sizeof *ret_theta)
        status = tensor_file_corrupt(
            &file->file, error,
            "has bytes behind its last tensor: it is damaged, or two files in "
            "one");
    return status;
}

void model_file_close(struct model_file *file)
{
    tensor_file_close(&file->file);
    free(file->numbers);
    free(file->class_names);
    free(file->column_names);
    memset(file, 0, sizeof *file);
}
