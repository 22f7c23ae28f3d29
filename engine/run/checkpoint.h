/* Checkpoints: safetensors files (8-byte little-endian header length, JSON header, raw
 * tensors). */
#ifndef GAPLESS_CHECKPOINT_H
#define GAPLESS_CHECKPOINT_H

#include "engine/run/layout.h"

/* Writes `theta` under the names of `layout` to `path`, by engine/base/file_out.h: `path`
 * is either as it was or complete; GAPLESS_INVALID where what is there is no regular file.
 * `metadata` and `more` are lists of key, value, ..., NULL of UTF-8 texts; either may be
 * NULL. */
int checkpoint_save(const struct layout *layout, const float *theta, const char *path,
                    const char *const *metadata, const char *const *more,
                    struct gapless_error *error);
/* The same to a descriptor that is open, which stays open. */
int checkpoint_print(const struct layout *layout, const float *theta, int fd,
                     const char *const *metadata, const char *const *more,
                     struct gapless_error *error);

#endif
