/* Files of tensors, safetensors, as they are read: a model that was saved, the model that
 * a run is offered.
 *
 *     8 bytes: the header's length, little-endian
 *     header: JSON: {"__metadata__": {"key": "text"}, "layer1.weight": {"dtype": "F32",
 *             "shape": [64, 784], "data_offsets": [0, 200704]}, ...}
 *     the tensors, little-endian floats; offsets count from here
 */
#ifndef CLUSTER_TENSOR_FILE_H
#define CLUSTER_TENSOR_FILE_H

#include <gapless/gapless.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

struct json_t;

struct tensor_file {
    const char *name; /* for messages */
    FILE *file;
    struct json_t *header;
    uint64_t tensors_at, bytes; /* where the tensors begin; bytes from there on */
};

/* Reads the header. `name` is what errors call the file; it must outlive *ret, and may be
 * the path. GAPLESS_MISSING, GAPLESS_CORRUPT, GAPLESS_IO: the text says what is wrong. */
int tensor_file_open(const char *path, const char *name, struct tensor_file *ret,
                     struct gapless_error *error);
/* Also of one that was not opened, if it is zero. */
void tensor_file_close(struct tensor_file *file);

/* A text of the metadata, the file's; "": there is none. */
const char *tensor_file_said(const struct tensor_file *file, const char *key);
/* Tensors in the file. */
size_t tensor_file_count(const struct tensor_file *file);
/* GAPLESS_CORRUPT, "NAME REASON". */
int tensor_file_corrupt(const struct tensor_file *file, struct gapless_error *error,
                        const char *reason);

/* A tensor as the header has it. */
#define TENSOR_DIMS_MAX 16u
struct tensor_entry {
    const char *name; /* as it was asked for */
    bool floats;      /* 32-bit ones: what can be read */
    char type[20];    /* "F32" */
    uint32_t dims;    /* 0: a scalar */
    uint64_t dim[TENSOR_DIMS_MAX];
    uint64_t from, to; /* its bytes, from the first tensor's on */
};
/* False: the file has none of this name, or one without a shape that makes sense. */
bool tensor_file_find(const struct tensor_file *file, const char *name,
                      struct tensor_entry *ret);
/* Reads its `count` elements. GAPLESS_MODEL: they are no 32-bit floats; GAPLESS_CORRUPT:
 * the header does not agree with the file. */
int tensor_file_read(const struct tensor_file *file, const struct tensor_entry *entry,
                     uint64_t count, float *ret, struct gapless_error *error);

#endif
