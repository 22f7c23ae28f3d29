/* A small seeded generator: the only source of chance.
 *
 * xoshiro256** (Blackman, Vigna, "Scrambled linear pseudorandom number generators",
 * 2021), seeded through splitmix64 (Steele, Lea, Flood, OOPSLA 2014). The same seed
 * gives the same numbers on every machine, normals included (portable.h). Not for
 * secrets.
 *
 *     struct rng r = rng_seed(seed, STREAM_WEIGHTS);
 *     double x = rng_normal(&r);
 */
#ifndef GAPLESS_RNG_H
#define GAPLESS_RNG_H

#include "engine/base/portable.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

struct rng {
    uint64_t state[4];
    double spare; /* the second normal of a pair */
    bool spared;
};

/* A bijection of 64-bit words in which every input bit reaches every output bit: the
 * finaliser of splitmix64. */
static inline uint64_t rng_mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* The next word of splitmix64, whose state is one word. */
static inline uint64_t rng_split(uint64_t *state)
{
    *state += UINT64_C(0x9e3779b97f4a7c15);
    return rng_mix(*state);
}

/* A generator for a pair of numbers: different streams of one seed are unrelated. */
static inline struct rng rng_seed(uint64_t seed, uint64_t stream)
{
    struct rng ret = {.spared = false};
    uint64_t state = rng_mix(seed + UINT64_C(0x9e3779b97f4a7c15)) ^ stream;

    for (int i = 0; i < 4; i++)
        ret.state[i] = rng_split(&state);
    return ret;
}

static inline uint64_t rng_rotate(uint64_t x, int by)
{
    return (x << by) | (x >> (64 - by));
}

/* 64 random bits. */
static inline uint64_t rng_u64(struct rng *r)
{
    uint64_t *s = r->state;
    uint64_t ret = rng_rotate(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rng_rotate(s[3], 45);
    return ret;
}

/* Uniform in [0, 1), a multiple of 2^-53. */
static inline double rng_unit(struct rng *r)
{
    return (double)(rng_u64(r) >> 11) * 0x1p-53;
}

/* Uniform in 0 .. bound-1 without bias; `bound` > 0. */
static inline uint64_t rng_below(struct rng *r, uint64_t bound)
{
    uint64_t skip = (UINT64_MAX - bound + 1) % bound; /* 2^64 mod bound */
    uint64_t x;

    do {
        x = rng_u64(r);
    } while (x < skip);
    return x % bound;
}

/* Normal with mean 0 and deviation 1, by Marsaglia's polar method. */
static inline double rng_normal(struct rng *r)
{
    double u, v, s, factor;

    if (r->spared) {
        r->spared = false;
        return r->spare;
    }
    do {
        u = 2.0 * rng_unit(r) - 1.0;
        v = 2.0 * rng_unit(r) - 1.0;
        s = u * u + v * v;
    } while (s >= 1.0 || s <= 0.0);
    factor = sqrt(-2.0 * portable_log(s) / s);
    r->spare = v * factor;
    r->spared = true;
    return u * factor;
}

#endif
