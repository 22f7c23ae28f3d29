/* FNV-1a, 64 bits (Fowler, Noll, Vo; RFC 9923): tells things apart, keeps nobody out.
 *
 *     uint64_t hash = HASH_BEGIN;
 *     hash = hash_bytes(hash, data, bytes);      any number of times
 */
#ifndef GAPLESS_HASH_H
#define GAPLESS_HASH_H

#include <stddef.h>
#include <stdint.h>

#define HASH_BEGIN UINT64_C(0xcbf29ce484222325)

static inline uint64_t hash_bytes(uint64_t hash, const void *data, size_t bytes)
{
    const unsigned char *p = data;

    for (size_t i = 0; i < bytes; i++)
        hash = (hash ^ p[i]) * UINT64_C(0x100000001b3);
    return hash;
}

#endif
