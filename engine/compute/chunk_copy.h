/* Copies of some of a chunk's 16 elements, of every vector of a pass: for what starts or ends
 * within a chunk. The other lanes of the copies are 0, as padding is, and stay it. */
#ifndef GAPLESS_CHUNK_COPY_H
#define GAPLESS_CHUNK_COPY_H

#include "engine/compute/compute.h"

#include <string.h>

enum {
    CHUNK_VECTORS = 9,
    CHUNK_WRITTEN = CHUNK_VECTORS - 1 /* `grad`, the last, is only read */
};

struct chunk_copy {
    _Alignas(64) number lanes[CHUNK_VECTORS][SUM_LANES];
};

/* The vectors of struct arrays. `grad` is only read, here as there. */
static inline void chunk_vectors(const struct arrays *at, number *ret[CHUNK_VECTORS])
{
    ret[0] = at->theta, ret[1] = at->own, ret[2] = at->all, ret[3] = at->stat;
    ret[4] = at->sent, ret[5] = at->square, ret[6] = at->mean, ret[7] = at->turned;
    ret[8] = (number *)(uintptr_t)at->grad;
}

static inline struct arrays chunk_arrays(number *const vector[CHUNK_VECTORS])
{
    return (struct arrays){.theta = vector[0],
                           .own = vector[1],
                           .all = vector[2],
                           .stat = vector[3],
                           .sent = vector[4],
                           .square = vector[5],
                           .mean = vector[6],
                           .turned = vector[7],
                           .grad = vector[8]};
}

/* Elements from .. to - 1 of `at`, at most 16, into the lanes from `lane` on: what a pass over
 * 16 elements then takes. */
static inline struct arrays chunk_take(struct chunk_copy *copy, const struct arrays *at,
                                       size_t from, size_t to, size_t lane)
{
    number *vector[CHUNK_VECTORS], *there[CHUNK_VECTORS];

    memset(copy, 0, sizeof *copy);
    chunk_vectors(at, vector);
    for (int i = 0; i < CHUNK_VECTORS; i++) {
        there[i] = vector[i] == NULL ? NULL : copy->lanes[i];
        if (vector[i] != NULL)
            memcpy(copy->lanes[i] + lane, vector[i] + from,
                   (to - from) * sizeof(number));
    }
    return chunk_arrays(there);
}

/* What a pass has made of them, back. */
static inline void chunk_put(const struct chunk_copy *copy, const struct arrays *at,
                             size_t from, size_t to, size_t lane)
{
    number *vector[CHUNK_VECTORS];

    chunk_vectors(at, vector);
    for (int i = 0; i < CHUNK_WRITTEN; i++)
        if (vector[i] != NULL)
            memcpy(vector[i] + from, copy->lanes[i] + lane,
                   (to - from) * sizeof(number));
}

#endif
