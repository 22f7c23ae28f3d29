/* Reads safetensors. Nothing that a header says is believed before it was checked. */
#include "cluster/task/tensor_file.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEADER_MAX (100u << 20) /* as the safetensors library has it */
#define METADATA "__metadata__"

int tensor_file_corrupt(const struct tensor_file *file, struct gapless_error *error,
                        const char *reason)
{
    return gapless_error_set(error, GAPLESS_CORRUPT, 0, "%.200s %s", file->name,
                             reason);
}

static int open_header(const char *path, struct tensor_file *file,
                       struct gapless_error *error)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat info;
    uint8_t start[8];
    uint64_t length = 0;
    json_error_t reason;
    char *text;

    if (fd < 0)
        return gapless_error_set(error, errno == ENOENT ? GAPLESS_MISSING : GAPLESS_IO,
                                 errno, "cannot read %.200s", file->name);
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) ||
        (file->file = fdopen(fd, "rb")) == NULL) {
        (void)close(fd);
        return tensor_file_corrupt(file, error,
                                   "is no regular file: name a model.safetensors");
    }
    if (fread(start, 1, sizeof start, file->file) != sizeof start)
        return tensor_file_corrupt(file, error, "is too short for a safetensors file");
    for (size_t i = 0; i < sizeof start; i++)
        length |= (uint64_t)start[i] << (8 * i);
    if (length > HEADER_MAX || length + 8 > (uint64_t)info.st_size)
        return tensor_file_corrupt(file, error,
                                   "is no safetensors file, or is truncated");
    text = malloc(length + 1);
    if (text == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for %.200s",
                                 file->name);
    if (fread(text, 1, length, file->file) == length)
        file->header = json_loadb(text, length, JSON_REJECT_DUPLICATES, &reason);
    free(text);
    if (!json_is_object(file->header))
        return tensor_file_corrupt(file, error,
                                   "is no safetensors file: its header is not JSON");
    file->tensors_at = length + 8;
    file->bytes = (uint64_t)info.st_size - file->tensors_at;
    return GAPLESS_OK;
}

int tensor_file_open(const char *path, const char *name, struct tensor_file *ret,
                     struct gapless_error *error)
{
    int status;

    *ret = (struct tensor_file){.name = name};
    status = open_header(path, ret, error);
    if (status != GAPLESS_OK)
        tensor_file_close(ret);
    return status;
}

void tensor_file_close(struct tensor_file *file)
{
    if (file->file != NULL)
        (void)fclose(file->file);
    json_decref(file->header);
    *file = (struct tensor_file){.file = NULL};
}

const char *tensor_file_said(const struct tensor_file *file, const char *key)
{
    const json_t *metadata = json_object_get(file->header, METADATA);
    const char *ret = json_string_value(json_object_get(metadata, key));

    return ret != NULL ? ret : "";
}

size_t tensor_file_count(const struct tensor_file *file)
{
    return json_object_size(file->header) -
           (json_object_get(file->header, METADATA) != NULL);
}

/* A whole number that is not negative, into ret. */
static bool read_count(const json_t *value, uint64_t *ret)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0)
        return false;
    *ret = (uint64_t)json_integer_value(value);
    return true;
}

bool tensor_file_find(const struct tensor_file *file, const char *name,
                      struct tensor_entry *ret)
{
    const json_t *row = json_object_get(file->header, name);
    const json_t *shape = json_object_get(row, "shape");
    const json_t *offsets = json_object_get(row, "data_offsets");
    const char *type = json_string_value(json_object_get(row, "dtype"));

    if (strcmp(name, METADATA) == 0 || !json_is_array(shape) ||
        json_array_size(shape) > TENSOR_DIMS_MAX)
        return false;
    *ret =
        (struct tensor_entry){.name = name, .dims = (uint32_t)json_array_size(shape)};
    for (uint32_t i = 0; i < ret->dims; i++)
        if (!read_count(json_array_get(shape, i), &ret->dim[i]))
            return false;
    (void)snprintf(ret->type, sizeof ret->type, "%s", type != NULL ? type : "none");
    ret->floats = strcmp(ret->type, "F32") == 0;
    if (!read_count(json_array_get(offsets, 0), &ret->from) ||
        !read_count(json_array_get(offsets, 1), &ret->to))
        ret->from = ret->to = UINT64_MAX; /* tensor_file_read says so */
    return true;
}

int tensor_file_read(const struct tensor_file *file, const struct tensor_entry *entry,
                     uint64_t count, float *ret, struct gapless_error *error)
{
    if (!entry->floats)
        return gapless_error_set(
            error, GAPLESS_MODEL, 0,
            "%.200s: tensor %.100s is of type %s; only F32 is read", file->name,
            entry->name, entry->type);
    if (entry->to < entry->from || entry->to > file->bytes ||
        entry->to - entry->from != count * sizeof *ret)
        return tensor_file_corrupt(file, error, "is truncated, or its header is wrong");
    if (fseek(file->file, (long)(file->tensors_at + entry->from), SEEK_SET) != 0 ||
        fread(ret, sizeof *ret, count, file->file) != count)
        return gapless_error_set(error, GAPLESS_IO, errno, "cannot read %.200s",
                                 file->name);
    return GAPLESS_OK;
}
