/* Four: what a thread holds of every array, four neighbouring elements, moved by one
 * load or store of 128 bits where all pointers are aligned and all four elements are in
 * the range; else element by element.
 *
 *   stretch s of a range: 1,024 elements, 256 threads
 *   |0 1 2 3|4 5 6 7|...                    |1020 .. 1023|
 *    thread 0        1                        255
 */
#ifndef GAPLESS_GPU_FOUR_CUH
#define GAPLESS_GPU_FOUR_CUH

#include "engine/compute/compute.h"
#include "engine/rules/element.h"
#include "engine/rules/rules.h"

#include <cuda_runtime.h>

#define DEVICE_FN static __device__ __forceinline__

constexpr unsigned EACH = 4; /* elements of a thread */
constexpr unsigned THREADS = SUM_STRETCH_ELEMENTS / EACH;

/* Elements i + from .. i + to - 1 of a range. */
struct group {
    size_t i;
    unsigned from, to; /* 0..EACH; from = to: none */
    bool whole;        /* four, at an address for 128 bits */
};

struct four {
    float4 theta, own, all, stat, sent, grad, square;
    float4 mean, turned; /* RULE_MATRIX: the kernels of matrices alone */
};

/* Of the four elements from i on, those in begin..end - 1. */
DEVICE_FN struct group group_of(size_t i, size_t begin, size_t end, bool aligned)
{
    struct group ret;

    ret.i = i;
    ret.from = begin <= i ? 0 : begin < i + EACH ? (unsigned)(begin - i) : EACH;
    ret.to = end >= i + EACH ? EACH : end > i ? (unsigned)(end - i) : 0;
    if (ret.from > ret.to)
        ret.from = ret.to;
    ret.whole = aligned && ret.from == 0 && ret.to == EACH;
    return ret;
}

DEVICE_FN bool group_has(struct group g, unsigned element)
{
    return g.from <= element && element < g.to;
}

DEVICE_FN float4 four_of(float x)
{
    return make_float4(x, x, x, x);
}

DEVICE_FN float4 whole_load(const float *from, struct group g)
{
    return *reinterpret_cast<const float4 *>(from + g.i);
}

/* __stwb is the store as ever; said so because nvcc 13 otherwise splits some of these
 * stores into four. */
DEVICE_FN void whole_store(float *to, struct group g, float4 x)
{
    __stwb(reinterpret_cast<float4 *>(to + g.i), x);
}

/* 0 where the group has no element. */
DEVICE_FN float4 some_load(const float *from, struct group g)
{
    float4 ret;

    ret.x = group_has(g, 0) ? from[g.i] : 0.0f;
    ret.y = group_has(g, 1) ? from[g.i + 1] : 0.0f;
    ret.z = group_has(g, 2) ? from[g.i + 2] : 0.0f;
    ret.w = group_has(g, 3) ? from[g.i + 3] : 0.0f;
    return ret;
}

DEVICE_FN void some_store(float *to, struct group g, float4 x)
{
    if (group_has(g, 0))
        to[g.i] = x.x;
    if (group_has(g, 1))
        to[g.i + 1] = x.y;
    if (group_has(g, 2))
        to[g.i + 2] = x.z;
    if (group_has(g, 3))
        to[g.i + 3] = x.w;
}

/* What is added up of elements that are not in the group is 0, whatever the rule made
 * of the zeros that were loaded. */
DEVICE_FN float4 some_only(struct group g, float4 x)
{
    if (!group_has(g, 0))
        x.x = 0.0f;
    if (!group_has(g, 1))
        x.y = 0.0f;
    if (!group_has(g, 2))
        x.z = 0.0f;
    if (!group_has(g, 3))
        x.w = 0.0f;
    return x;
}

DEVICE_FN float4 array_load(const float *from, struct group g)
{
    return g.whole ? whole_load(from, g) : some_load(from, g);
}

DEVICE_FN void array_store(float *to, struct group g, float4 x)
{
    if (g.whole)
        whole_store(to, g, x);
    else
        some_store(to, g, x);
}

/* `slots` is a constant at every call. */
DEVICE_FN void four_load(const struct arrays *at, struct group g, unsigned slots,
                         struct four *ret)
{
    if (g.whole) {
        if (slots & SLOT_THETA)
            ret->theta = whole_load(at->theta, g);
        if (slots & SLOT_OWN)
            ret->own = whole_load(at->own, g);
        if (slots & SLOT_ALL)
            ret->all = whole_load(at->all, g);
        if (slots & SLOT_STAT)
            ret->stat = whole_load(at->stat, g);
        if (slots & SLOT_SENT)
            ret->sent = whole_load(at->sent, g);
        if (slots & SLOT_GRAD)
            ret->grad = whole_load(at->grad, g);
        if (slots & SLOT_SQUARE)
            ret->square = whole_load(at->square, g);
        if (slots & SLOT_MEAN)
            ret->mean = whole_load(at->mean, g);
        if (slots & SLOT_TURNED)
            ret->turned = whole_load(at->turned, g);
    } else {
        if (slots & SLOT_THETA)
            ret->theta = some_load(at->theta, g);
        if (slots & SLOT_OWN)
            ret->own = some_load(at->own, g);
        if (slots & SLOT_ALL)
            ret->all = some_load(at->all, g);
        if (slots & SLOT_STAT)
            ret->stat = some_load(at->stat, g);
        if (slots & SLOT_SENT)
            ret->sent = some_load(at->sent, g);
        if (slots & SLOT_GRAD)
            ret->grad = some_load(at->grad, g);
        if (slots & SLOT_SQUARE)
            ret->square = some_load(at->square, g);
        if (slots & SLOT_MEAN)
            ret->mean = some_load(at->mean, g);
        if (slots & SLOT_TURNED)
            ret->turned = some_load(at->turned, g);
    }
}

DEVICE_FN void four_store(const struct arrays *at, struct group g, unsigned slots,
                          const struct four *x)
{
    if (g.whole) {
        if (slots & SLOT_THETA)
            whole_store(at->theta, g, x->theta);
        if (slots & SLOT_OWN)
            whole_store(at->own, g, x->own);
        if (slots & SLOT_ALL)
            whole_store(at->all, g, x->all);
        if (slots & SLOT_STAT)
            whole_store(at->stat, g, x->stat);
        if (slots & SLOT_SENT)
            whole_store(at->sent, g, x->sent);
        if (slots & SLOT_SQUARE)
            whole_store(at->square, g, x->square);
        if (slots & SLOT_MEAN)
            whole_store(at->mean, g, x->mean);
        if (slots & SLOT_TURNED)
            whole_store(at->turned, g, x->turned);
    } else {
        if (slots & SLOT_THETA)
            some_store(at->theta, g, x->theta);
        if (slots & SLOT_OWN)
            some_store(at->own, g, x->own);
        if (slots & SLOT_ALL)
            some_store(at->all, g, x->all);
        if (slots & SLOT_STAT)
            some_store(at->stat, g, x->stat);
        if (slots & SLOT_SENT)
            some_store(at->sent, g, x->sent);
        if (slots & SLOT_SQUARE)
            some_store(at->square, g, x->square);
        if (slots & SLOT_MEAN)
            some_store(at->mean, g, x->mean);
        if (slots & SLOT_TURNED)
            some_store(at->turned, g, x->turned);
    }
}

/* Weight decay of the elements of a group. */
DEVICE_FN float4 four_decay(const struct arrays *at, struct group g,
                            const struct step_scalars *k)
{
    unsigned bits = 15;

    if (at->decays && g.from < g.to)
        bits = (unsigned)at->decays[g.i / SUM_LANES] >> g.i % SUM_LANES;
    return make_float4(bits & 1 ? k->decay : 0.0f, bits & 2 ? k->decay : 0.0f,
                       bits & 4 ? k->decay : 0.0f, bits & 8 ? k->decay : 0.0f);
}

/* One of the four, by its letter, as a rule sees it. */
#define FOUR_ELEMENT(x, c, gate)                                                       \
    {                                                                                  \
        (x).theta.c, (x).own.c, (x).all.c, (x).stat.c, (x).sent.c, (x).grad.c,         \
            (x).square.c, 0.0f, (gate), 0.0f, (x).grad.c, 0.0f, (x).mean.c,            \
            (x).turned.c                                                               \
    }

/* DO(c) for the letter of each of the four. */
#define FOUR_EACH(DO)                                                                  \
    do {                                                                               \
        DO(x);                                                                         \
        DO(y);                                                                         \
        DO(z);                                                                         \
        DO(w);                                                                         \
    } while (0)

DEVICE_FN struct four four_zero(void)
{
    float4 zero = four_of(0.0f);
    struct four ret = {zero, zero, zero, zero, zero, zero, zero, zero, zero};
    return ret;
}

#endif
