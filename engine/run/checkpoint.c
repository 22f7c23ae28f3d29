/* Writes the parameters as safetensors. */
#include "engine/run/checkpoint.h"

#include "engine/base/file_out.h"
#include "engine/run/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Pairs of a list that NULL ends; NULL: none. */
static void say_all(struct header_text *t, const char *const *metadata)
{
    for (; metadata != NULL && metadata[0] != NULL; metadata += 2)
        header_say(t, metadata[0], metadata[1]);
}

static struct header_text header_of(const struct layout *layout,
                                    const char *const *metadata,
                                    const char *const *more)
{
    struct header_text t = {0};
    uint32_t i;

    header_begin(&t);
    say_all(&t, metadata);
    say_all(&t, more);
    header_metadata_end(&t);
    for (i = 0; i < layout->tensors_count; i++) {
        const struct gapless_tensor *tensor = &layout->tensors[i];
        struct header_tensor one = {.name = tensor->name,
                                    .type = "F32",
                                    .dims = tensor->dims,
                                    .element_bytes = sizeof(float)};

        memcpy(one.dim, tensor->dim, sizeof one.dim);
        header_tensor(&t, &one);
    }
    header_end(&t, 0);
    return t;
}

static void write_all(struct file_out *file, const struct header_text *header,
                      const float *theta, size_t bytes)
{
    uint64_t length = header->used;

    file_out_write(file, &length, sizeof length);
    file_out_write(file, header->data, header->used);
    file_out_write(file, theta, bytes);
}

static int no_memory(const char *path, struct gapless_error *error)
{
    return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                             "no memory to write the parameters to %.150s", path);
}

int checkpoint_save(const struct layout *layout, const float *theta, const char *path,
                    const char *const *metadata, const char *const *more,
                    struct gapless_error *error)
{
    struct header_text header = header_of(layout, metadata, more);
    size_t bytes = (size_t)layout->count * sizeof *theta;
    struct file_out file;
    int status =
        header.failed
            ? no_memory(path, error)
            : file_out_open(&file, path, sizeof(uint64_t) + header.used + bytes, error);

    if (status == GAPLESS_OK) {
        write_all(&file, &header, theta, bytes);
        status = file_out_close(&file, error);
    }
    free(header.data);
    return status;
}

int checkpoint_print(const struct layout *layout, const float *theta, int fd,
                     const char *const *metadata, const char *const *more,
                     struct gapless_error *error)
{
    struct header_text header = header_of(layout, metadata, more);
    struct file_out file = file_out_pipe(fd, "the standard output");
    int status;

    if (!header.failed)
        write_all(&file, &header, theta, (size_t)layout->count * sizeof *theta);
    status =
        header.failed ? no_memory(file.given, error) : file_out_close(&file, error);
    free(header.data);
    return status;
}
