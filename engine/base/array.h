/* Arrays: on cache lines of their own, and growing; the smaller and the larger of two
 * sizes. */
#ifndef GAPLESS_ARRAY_H
#define GAPLESS_ARRAY_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define ARRAY_LINE 64u /* bytes of a cache line */

static inline size_t size_least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static inline size_t size_most(size_t a, size_t b)
{
    return a > b ? a : b;
}

static inline uint32_t u32_least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* The next multiple of `unit`. */
static inline size_t size_round_up(size_t bytes, size_t unit)
{
    return (bytes + unit - 1) / unit * unit;
}

/* Bytes that begin at a multiple of `alignment` (a power of two), all 0, to be given back
 * with free; NULL: no memory. */
static inline void *array_zeroed(size_t alignment, size_t bytes)
{
    size_t all = size_round_up(size_most(bytes, 1), alignment);
    void *ret = aligned_alloc(alignment, all);

    if (ret != NULL)
        memset(ret, 0, all);
    return ret;
}

/* An array with room for `count` elements of `bytes` each: `array` itself, or one that is
 * at least twice as large and has its content. NULL: no memory; nothing changed. */
static inline void *array_room(void *array, size_t *room, size_t count, size_t bytes)
{
    size_t more = size_most(count, *room * 2);
    void *ret;

    if (count <= *room)
        return array;
    if (count > SIZE_MAX / 2 / bytes)
        return NULL;
    more = size_most(more, 16);
    ret = realloc(array, more * bytes);
    if (ret != NULL)
        *room = more;
    return ret;
}

#endif
