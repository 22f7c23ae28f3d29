/* The header of a safetensors file, as text that grows: 8-byte little-endian length, JSON,
 * then raw tensors one after another.
 *
 *     struct header_text t = {0};
 *     header_begin(&t);
 *     header_say(&t, "rule", "dana-ga");          any number of times
 *     header_metadata_end(&t);
 *     header_tensor(&t, &tensor);                 each; the first offset is 0
 *     header_end(&t);
 *     if (t.failed) ... no memory
 *     free(t.data);
 */
#ifndef GAPLESS_SAFETENSORS_H
#define GAPLESS_SAFETENSORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Grows with every append; `failed` sticks. */
struct header_text {
    char *data;
    size_t used, room;
    bool failed;
    uint64_t at; /* offset of the next tensor */
};

/* The key of the metadata: no tensor can have this name. */
#define HEADER_METADATA "__metadata__"

struct header_tensor {
    const char *name; /* plain: without quotes, backslashes, control characters */
    const char *type; /* "F32" */
    uint32_t dims;    /* 1..4 */
    uint64_t dim[4];
    uint32_t element_bytes;
};

void header_begin(struct header_text *t);
/* A pair of the metadata: UTF-8, however long. */
void header_say(struct header_text *t, const char *key, const char *value);
void header_metadata_end(struct header_text *t);
void header_tensor(struct header_text *t, const struct header_tensor *tensor);
/* Ends it, padded with spaces to a multiple of 8 and to at least `bytes`. */
void header_end(struct header_text *t, size_t bytes);

#endif
