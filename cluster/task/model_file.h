/* Files of parameters, and what they say about themselves: enough to use the model
 * without knowing how it was trained.
 *
 *     model.safetensors    8 bytes: the header's length
 *                          header: JSON: {"__metadata__": {...}, "layer1.weight": {...}}
 *                          the tensors, little-endian floats
 *
 * All of the metadata are texts: gapless (the version), rule, gradients, model, data,
 * features, classes; data_mean and data_deviation, a number of bytes and a JSON array, an
 * entry a column, of numbers; class_names and columns, JSON arrays, where there are names.
 * A sample of bytes is used as (byte / 255 - mean) / deviation, one of numbers as
 * (number - mean) / deviation.
 */
#ifndef CLUSTER_MODEL_FILE_H
#define CLUSTER_MODEL_FILE_H

#include "cluster/task/task.h"
#include "cluster/task/tensor_file.h"

#include <stdint.h>

#define MODEL_FILE_TEXTS 20

/* key, value, ..., NULL */
struct model_file_metadata {
    const char *text[MODEL_FILE_TEXTS + 1];
};
/* What is said of a task's model. Without data, of a test function or a foreign model: nothing. */
int model_file_metadata(const struct task *task, struct model_file_metadata *ret,
                        struct gapless_error *error);
void model_file_metadata_free(struct model_file_metadata *metadata);

/* Writes parameters: to a temporary file, synced, renamed; to fd, where it is not -1. */
int model_file_save(const struct task *task, const float *theta, const char *rule,
                    uint64_t gradients, const char *path, int fd,
                    struct gapless_error *error);

/* A file that is open. */
struct model_file {
    struct tensor_file file;
    /* what it says; "" and 0: nothing. The texts are the header's */
    const char *model, *data, *rule, *version, *gradients;
    struct data_standard standard; /* count 0: it does not say */
    double *numbers;               /* behind standard.mean and .deviation */
    char *class_names, *column_names;
};
/* Reads the header. GAPLESS_MISSING, GAPLESS_CORRUPT: the text says what is wrong. */
int model_file_open(const char *path, struct model_file *ret,
                    struct gapless_error *error);
/* Reads the tensors of a model. GAPLESS_MODEL: the file has others. */
int model_file_read(struct model_file *file, const struct model *model,
                    float *ret_theta, struct gapless_error *error);
/* Also of one that was not opened, if it is zero. */
void model_file_close(struct model_file *file);

#endif
