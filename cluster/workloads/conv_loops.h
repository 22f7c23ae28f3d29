/* Private to conv.c: the loops over pixels that are no matrix arithmetic, as a table,
 * because they are compiled once for each instruction set. Every element is computed by
 * itself, in one order: all tables give the same bits.
 *
 * As in the layers, NaN passes through everything: it wins against any number where the
 * largest of four is picked, and no ReLU turns it into 0.
 */
#ifndef GAPLESS_WORKLOADS_CONV_LOOPS_H
#define GAPLESS_WORKLOADS_CONV_LOOPS_H

#include "cluster/workloads/model.h"

#include <stddef.h>
#include <stdint.h>

enum {
    CONV_TAPS = 9 /* pixels under a kernel */
};

struct conv_loops {
    const char *name; /* as struct compute's */
    /* An image with its border -> what a kernel sees at every pixel of it. */
    void (*unroll)(struct model_image i, const float *image, float *ret_patches);
    /* The transpose: adds every float of the patches to the pixel it came from. What
     * falls on the border is left there; it must not be read. */
    void (*roll_up)(struct model_image i, const float *patches, float *ret_image);
    /* z [rows][columns][outputs] of an image -> the inside of an image half its size:
     * the largest of four pixels, the first of equals, then ReLU. ret_picked
     * [rows / 2][columns / 2][outputs] is which it was: 0, 1 above, 2, 3 below. */
    void (*shrink)(struct model_image from, struct model_image to, const float *z,
                   float *ret_image, uint32_t *ret_picked);
    /* The transpose, for the gradient `delta` of `image`, which shrink made: it goes to
     * where each value was picked from, and is added to that of its bias; where the
     * ReLU was off, nothing goes. */
    void (*widen)(struct model_image from, struct model_image to, const float *delta,
                  const float *image, const uint32_t *picked, float *ret_dz,
                  float *bias);
};

/* The table for this machine, or for the instruction set that GAPLESS_ISA asks for. */
const struct conv_loops *conv_loops_best(void);

/* Sizes of an image: its pixels; floats of a row and of the whole with the border; and
 * floats that a kernel sees of it. */
static inline size_t image_pixels(struct model_image i)
{
    return (size_t)i.height * i.width;
}

static inline size_t image_row(struct model_image i)
{
    return ((size_t)i.width + 2) * i.channels;
}

static inline size_t image_floats(struct model_image i)
{
    return ((size_t)i.height + 2) * image_row(i);
}

static inline size_t image_patch(struct model_image i)
{
    return (size_t)CONV_TAPS * i.channels;
}

#endif
