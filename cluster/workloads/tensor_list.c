/* Reads a list of tensors, of which nothing is believed before it was checked. */
#include "cluster/workloads/tensor_list.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DIMS_MAX 4u
#define FLAGS_KNOWN ((json_int_t)GAPLESS_TENSOR_NOT_MATRIX)

struct reading {
    const char *who;
    struct gapless_error *error;
};

static int wrong(const struct reading *r, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static int wrong(const struct reading *r, const char *format, ...)
{
    char text[300];
    va_list list;

    va_start(list, format);
    (void)vsnprintf(text, sizeof text, format, list);
    va_end(list);
    return gapless_error_set(r->error, GAPLESS_INVALID, 0, "%.80s %s", r->who, text);
}

uint64_t tensor_list_elements(const struct gapless_tensor *tensor)
{
    uint64_t ret = 1;

    for (uint32_t d = 0; d < tensor->dims; d++)
        ret *= tensor->dim[d];
    return ret;
}

static int read_shape(const struct reading *r, const json_t *shape,
                      struct gapless_tensor *ret)
{
    uint64_t count = 1;

    if (!json_is_array(shape) || json_array_size(shape) < 1 ||
        json_array_size(shape) > DIMS_MAX)
        return wrong(r, "has tensor %.80s without a shape of one to %u sizes",
                     ret->name, DIMS_MAX);
    ret->dims = (uint32_t)json_array_size(shape);
    for (uint32_t d = 0; d < ret->dims; d++) {
        json_int_t size = json_integer_value(json_array_get(shape, d));

        if (size < 1 || (uint64_t)size > GAPLESS_ELEMENTS_MAX / count)
            return wrong(r, "has tensor %.80s with a size that cannot be", ret->name);
        ret->dim[d] = (uint64_t)size;
        count *= (uint64_t)size;
    }
    return GAPLESS_OK;
}

/* A number that may be missing. */
static int read_number(const struct reading *r, const json_t *row, const char *key,
                       const struct gapless_tensor *tensor, double *ret)
{
    const json_t *value = json_object_get(row, key);

    if (value != NULL && !json_is_number(value))
        return wrong(r, "has tensor %.80s with a %s that is no number", tensor->name,
                     key);
    *ret = json_number_value(value);
    return GAPLESS_OK;
}

static int read_row(const struct reading *r, const json_t *row, uint32_t index,
                    struct gapless_tensor *ret)
{
    const json_t *flags = json_object_get(row, "flags");
    int status;

    ret->name = json_string_value(json_object_get(row, "name"));
    if (ret->name == NULL || ret->name[0] == '\0')
        return wrong(r, "has a tensor without a name, number %u", index);
    if (strlen(ret->name) >= GAPLESS_NAME_MAX)
        return wrong(r, "has a name of %zu bytes; %u are allowed: %.80s",
                     strlen(ret->name), GAPLESS_NAME_MAX - 1, ret->name);
    if (flags != NULL &&
        (!json_is_integer(flags) || (json_integer_value(flags) & ~FLAGS_KNOWN) != 0))
        return wrong(r, "has tensor %.80s with flags that are not known", ret->name);
    ret->flags = (uint32_t)json_integer_value(flags);
    status = read_shape(r, json_object_get(row, "shape"), ret);
    if (status == GAPLESS_OK)
        status = read_number(r, row, "rate", ret, &ret->rate);
    if (status == GAPLESS_OK)
        status = read_number(r, row, "decay", ret, &ret->decay);
    return status == GAPLESS_OK ? read_number(r, row, "average", ret, &ret->average)
                                : status;
}

int tensor_list_read(const json_t *list, const char *who, struct tensor_list *ret,
                     struct gapless_error *error)
{
    const struct reading r = {.who = who, .error = error};
    struct tensor_list read = {.count = 0};
    size_t count = json_array_size(list);
    int status = GAPLESS_OK;

    if (count < 1 || count > GAPLESS_TENSORS_MAX)
        return wrong(&r, "has no list of 1 to %u tensors", GAPLESS_TENSORS_MAX);
    read.tensors = calloc(count, sizeof *read.tensors);
    if (read.tensors == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory");
    for (; status == GAPLESS_OK && read.count < count; read.count++) {
        struct gapless_tensor *tensor = &read.tensors[read.count];

        status = read_row(&r, json_array_get(list, read.count), read.count, tensor);
        if (status == GAPLESS_OK)
            read.parameters += tensor_list_elements(tensor);
        if (status == GAPLESS_OK && read.parameters > GAPLESS_ELEMENTS_MAX)
            status = wrong(&r, "has more than %llu parameters",
                           (unsigned long long)GAPLESS_ELEMENTS_MAX);
    }
    if (status != GAPLESS_OK) {
        tensor_list_free(&read);
        return status;
    }
    *ret = read;
    return GAPLESS_OK;
}

void tensor_list_free(struct tensor_list *list)
{
    free(list->tensors);
    *list = (struct tensor_list){.count = 0};
}
