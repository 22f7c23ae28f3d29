/* Compiled like engine/compute/compute_cpu_isa.c: once for each instruction set, with its flags
 * and GAPLESS_ISA_NAME. Channels are side by side, so every inner loop runs over
 * neighbouring floats; the usual numbers of channels are constants to it, because a
 * loop of one or two vectors is soon all overhead. */
#include "cluster/workloads/conv_loops.h"

#include <string.h>

#ifndef GAPLESS_ISA_NAME
#define GAPLESS_ISA_NAME generic
#endif

#define INLINE static inline __attribute__((always_inline))

/* f(N, ...) with N a constant where it is one of the usual numbers. */
#define BY_CHANNELS(n, f, ...)                                                         \
    do {                                                                               \
        if ((n) == 1)                                                                  \
            f(1, __VA_ARGS__);                                                         \
        else if ((n) == 3)                                                             \
            f(3, __VA_ARGS__);                                                         \
        else if ((n) == 4)                                                             \
            f(4, __VA_ARGS__);                                                         \
        else if ((n) == 8)                                                             \
            f(8, __VA_ARGS__);                                                         \
        else if ((n) == 16)                                                            \
            f(16, __VA_ARGS__);                                                        \
        else if ((n) == 32)                                                            \
            f(32, __VA_ARGS__);                                                        \
        else                                                                           \
            f(n, __VA_ARGS__);                                                         \
    } while (0)

/* Three runs of 3 * channels floats a pixel. */
INLINE void unroll_runs(uint32_t channels, struct model_image i,
                        const float *restrict image, float *restrict patches)
{
    size_t run = (size_t)3 * channels, row = ((size_t)i.width + 2) * channels;

    for (uint32_t y = 0; y < i.height; y++, image += row)
        for (uint32_t x = 0; x < i.width; x++, patches += 3 * run) {
            const float *at = image + (size_t)x * channels;

            memcpy(patches, at, run * sizeof *at);
            memcpy(patches + run, at + row, run * sizeof *at);
            memcpy(patches + 2 * run, at + 2 * row, run * sizeof *at);
        }
}

static void unroll(struct model_image i, const float *image, float *ret_patches)
{
    BY_CHANNELS(i.channels, unroll_runs, i, image, ret_patches);
}

INLINE void roll_up_runs(uint32_t channels, struct model_image i,
                         const float *restrict patches, float *restrict image)
{
    uint32_t run = 3 * channels;
    size_t row = image_row(i);

    memset(image, 0, image_floats(i) * sizeof *image);
    for (uint32_t y = 0; y < i.height; y++)
        for (uint32_t x = 0; x < i.width; x++)
            for (uint32_t k = 0; k < 3; k++, patches += run) {
                float *at = image + (y + k) * row + (size_t)x * channels;

                for (uint32_t j = 0; j < run; j++)
                    at[j] += patches[j];
            }
}

static void roll_up(struct model_image i, const float *patches, float *ret_image)
{
    BY_CHANNELS(i.channels, roll_up_runs, i, patches, ret_image);
}

/* x where it is larger than best, or NaN. */
#define TAKES(x, best) ((x) > (best) || (x) != (x))

INLINE void pick(uint32_t n, const float *restrict a, const float *restrict b,
                 const float *restrict c, const float *restrict d, float *restrict ret,
                 uint32_t *restrict ret_which)
{
    for (uint32_t i = 0; i < n; i++) {
        float best = a[i];
        uint32_t which = 0;

        which = TAKES(b[i], best) ? 1 : which;
        best = TAKES(b[i], best) ? b[i] : best;
        which = TAKES(c[i], best) ? 2 : which;
        best = TAKES(c[i], best) ? c[i] : best;
        which = TAKES(d[i], best) ? 3 : which;
        best = TAKES(d[i], best) ? d[i] : best;
        ret[i] = best < 0.0F ? 0.0F : best;
        ret_which[i] = which;
    }
}

INLINE void shrink_by(uint32_t n, struct model_image from, struct model_image to,
                      const float *z, float *image, uint32_t *picked)
{
    size_t row = (size_t)from.width * n;

    for (uint32_t y = 0; y < to.height; y++) {
        const float *at = z + 2 * y * row;
        float *ret = image + (y + 1) * image_row(to) + n;

        for (uint32_t x = 0; x < to.width; x++) {
            pick(n, at, at + n, at + row, at + row + n, ret, picked);
            at += (size_t)2 * n;
            ret += n;
            picked += n;
        }
    }
}

static void shrink(struct model_image from, struct model_image to, const float *z,
                   float *ret_image, uint32_t *ret_picked)
{
    BY_CHANNELS(to.channels, shrink_by, from, to, z, ret_image, ret_picked);
}

INLINE void unpick(uint32_t n, const float *restrict delta, const float *restrict value,
                   const uint32_t *restrict which, float *restrict a, float *restrict b,
                   float *restrict c, float *restrict d, float *restrict bias)
{
    for (uint32_t i = 0; i < n; i++) {
        float dz = value[i] <= 0.0F ? 0.0F : delta[i]; /* NaN passes */

        a[i] = which[i] == 0 ? dz : 0.0F;
        b[i] = which[i] == 1 ? dz : 0.0F;
        c[i] = which[i] == 2 ? dz : 0.0F;
        d[i] = which[i] == 3 ? dz : 0.0F;
        bias[i] += dz;
    }
}

INLINE void widen_by(uint32_t n, struct model_image from, struct model_image to,
                     const float *delta, const float *image, const uint32_t *picked,
                     float *dz, float *bias)
{
    size_t row = (size_t)from.width * n;

    if (from.height % 2 != 0) /* the last row had no part in anything */
        memset(dz + (from.height - 1) * row, 0, row * sizeof *dz);
    for (uint32_t y = 0; y < to.height; y++) {
        float *at = dz + 2 * y * row;
        size_t inside = (y + 1) * image_row(to) + n;

        for (uint32_t x = 0; x < to.width; x++) {
            unpick(n, delta + inside, image + inside, picked, at, at + n, at + row,
                   at + row + n, bias);
            at += (size_t)2 * n;
            inside += n;
            picked += n;
        }
        if (from.width % 2 != 0) {
            memset(at, 0, n * sizeof *at);
            memset(at + row, 0, n * sizeof *at);
        }
    }
}

static void widen(struct model_image from, struct model_image to, const float *delta,
                  const float *image, const uint32_t *picked, float *ret_dz,
                  float *bias)
{
    BY_CHANNELS(to.channels, widen_by, from, to, delta, image, picked, ret_dz, bias);
}

#define JOIN(a, b) a##b
#define TABLE(isa) JOIN(conv_loops_, isa)
#define TEXT(x) #x
#define NAME(isa) "cpu-" TEXT(isa)

extern const struct conv_loops TABLE(GAPLESS_ISA_NAME);
const struct conv_loops TABLE(GAPLESS_ISA_NAME) = {.name = NAME(GAPLESS_ISA_NAME),
                                                   .unroll = unroll,
                                                   .roll_up = roll_up,
                                                   .shrink = shrink,
                                                   .widen = widen};
