/* Reads what a program offers, and checks it. */
#include "cluster/task/offer.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define OFFER_FORM "1"
#define WHO "the offer"

static int wrong(struct gapless_error *error, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static int wrong(struct gapless_error *error, const char *format, ...)
{
    char text[300];
    va_list list;

    va_start(list, format);
    (void)vsnprintf(text, sizeof text, format, list);
    va_end(list);
    return gapless_error_set(error, GAPLESS_INVALID, 0, WHO " %s", text);
}

/* ---- the list of tensors ------------------------------------------------- */

/* Where the tensor is in the file: behind the one before it. */
static int check_entry(const struct offer *offer, const struct gapless_tensor *tensor,
                       uint64_t at, struct gapless_error *error)
{
    struct tensor_entry entry;
    uint64_t count = tensor_list_elements(tensor), has = 1;

    if (!tensor_file_find(&offer->file, tensor->name, &entry))
        return wrong(error, "lists tensor %.80s, which is not in the file",
                     tensor->name);
    for (uint32_t d = 0; d < entry.dims; d++)
        has = entry.dim[d] > 0 && has > UINT64_MAX / entry.dim[d] ? UINT64_MAX
                                                                  : has * entry.dim[d];
    if (has != count)
        return wrong(error,
                     "has tensor %.80s of %llu elements in the file, and %llu in its "
                     "list",
                     tensor->name, (unsigned long long)has, (unsigned long long)count);
    if (entry.from != at * sizeof(float))
        return wrong(error, "has tensor %.80s at another place than its list",
                     tensor->name);
    return GAPLESS_OK;
}

static int read_tensors(struct offer *offer, struct gapless_error *error)
{
    int status = tensor_list_read(offer->list, WHO, &offer->tensors, error);
    uint64_t at = 0;

    if (status != GAPLESS_OK)
        return status;
    if (offer->tensors.count != tensor_file_count(&offer->file))
        return wrong(error, "lists %u tensors, and the file has %zu",
                     offer->tensors.count, tensor_file_count(&offer->file));
    offer->model.tensors = offer->tensors.tensors;
    offer->model.tensors_count = offer->tensors.count;
    for (uint32_t i = 0; status == GAPLESS_OK && i < offer->tensors.count; i++) {
        status = check_entry(offer, &offer->tensors.tensors[i], at, error);
        at += tensor_list_elements(&offer->tensors.tensors[i]);
    }
    if (status == GAPLESS_OK && offer->file.bytes != at * sizeof(float))
        status = wrong(error, "has %llu bytes of tensors; its list makes %llu",
                       (unsigned long long)offer->file.bytes,
                       (unsigned long long)(at * sizeof(float)));
    offer->parameters = at;
    return status;
}

/* ---- their values -------------------------------------------------------- */

static int read_values(struct offer *offer, struct gapless_error *error)
{
    uint64_t at = 0;

    offer->initial = malloc(offer->parameters * sizeof *offer->initial);
    if (offer->initial == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for %llu parameters",
                                 (unsigned long long)offer->parameters);
    for (uint32_t i = 0; i < offer->tensors.count; i++) {
        const char *name = offer->tensors.tensors[i].name;
        uint64_t count = tensor_list_elements(&offer->tensors.tensors[i]);
        struct tensor_entry entry;
        int status;

        (void)tensor_file_find(&offer->file, name, &entry); /* read_row has found it */
        status =
            tensor_file_read(&offer->file, &entry, count, offer->initial + at, error);
        if (status != GAPLESS_OK)
            return status;
        for (uint64_t k = 0; k < count; k++)
            if (!isfinite(offer->initial[at + k]))
                return wrong(error,
                             "has a parameter that is not finite: %.80s, "
                             "element %llu",
                             name, (unsigned long long)k);
        at += count;
    }
    return GAPLESS_OK;
}

/* ---- the rest ------------------------------------------------------------ */

static int read_length(const struct offer *offer, const char *key, uint64_t *ret,
                       struct gapless_error *error)
{
    const char *text = tensor_file_said(&offer->file, key);
    struct parse_error reason;

    if (text[0] == '\0' || parse_count(text, 0, (uint64_t)1e15, ret, &reason))
        return GAPLESS_OK;
    return wrong(error, "has a %.40s that %.150s", key, reason.text);
}

static int read_metadata(struct offer *offer, struct gapless_error *error)
{
    const struct tensor_file *file = &offer->file;
    const char *form = tensor_file_said(file, "gapless.offer");
    const char *options = tensor_file_said(file, "gapless.options");
    int status;

    if (strcmp(form, OFFER_FORM) != 0)
        return wrong(error,
                     "is of form '%.20s', and this version reads " OFFER_FORM
                     ": are program and library of one version?",
                     form);
    offer->list = json_loads(tensor_file_said(file, "gapless.tensors"), 0, NULL);
    offer->options =
        json_loads(options[0] != '\0' ? options : "{}", JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(offer->options))
        return wrong(error, "has options that are no JSON object (gapless.options)");
    offer->job = tensor_file_said(file, "gapless.job");
    if (strlen(offer->job) >= GAPLESS_JOB_MAX)
        return wrong(error, "has a job of %zu bytes; %u are allowed",
                     strlen(offer->job), GAPLESS_JOB_MAX - 1);
    status = read_length(offer, "gapless.gradients", &offer->gradients, error);
    return status == GAPLESS_OK
               ? read_length(offer, "gapless.epoch", &offer->epoch, error)
               : status;
}

int offer_open(const char *path, struct offer *ret, struct gapless_error *error)
{
    int status;

    *ret = (struct offer){.initial = NULL};
    status = tensor_file_open(path, WHO, &ret->file, error);
    if (status == GAPLESS_OK)
        status = read_metadata(ret, error);
    if (status == GAPLESS_OK)
        status = read_tensors(ret, error);
    if (status == GAPLESS_OK)
        status = read_values(ret, error);
    if (status != GAPLESS_OK)
        offer_close(ret);
    return status;
}

int offer_options(const struct offer *offer, enum option_command command,
                  struct settings *settings, struct gapless_error *error)
{
    struct settings checked = *settings;
    const char *name;
    json_t *value;

    json_object_foreach(offer->options, name, value)
    {
        const char *text = json_string_value(value);
        struct parse_error reason;

        if (text == NULL)
            return wrong(error, "has option %.40s with a value that is no text", name);
        if (!options_set(command, name, text, &checked, &reason))
            return wrong(error, "has option %.40s, which %.200s", name, reason.text);
        if (options_source(settings, name) <= OPTION_DEFAULT)
            options_take(settings, &checked, name);
    }
    options_derive(command, settings);
    return GAPLESS_OK;
}

void offer_close(struct offer *offer)
{
    tensor_file_close(&offer->file);
    json_decref(offer->list);
    json_decref(offer->options);
    tensor_list_free(&offer->tensors);
    free(offer->initial);
    *offer = (struct offer){.initial = NULL};
}
