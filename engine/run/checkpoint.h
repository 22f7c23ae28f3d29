/* Checkpoints: safetensors files (8-byte little-endian header length, JSON header, raw
 * tensors). */
#ifndef GAPLESS_CHECKPOINT_H
#define GAPLESS_CHECKPOINT_H

#include "engine/run/layout.h"

/* Writes `theta` under the names of `layout` to `path`: a temporary file beside it,
 * synced, renamed, so that `path` is either as it was or complete. What is there and is
 * no regular file (a device, a pipe, a folder) is refused. `metadata` and `more` are lists of key, value, ..., NULL of UTF-8 texts; either may be NULL. */
int checkpoint_save(const struct layout *layout, const float *theta, const char *path,
                    const char *const *metadata, const char *const *more,
                    struct gapless_error *error);

#endif
