/* Batches by ticket: a keyed permutation of the sample indices an epoch. */
#include "cluster/workloads/sampler.h"

#include "engine/base/rng.h"

enum {
    ROUNDS = 8
}; /* 4 suffice for large domains in theory; tiny ones want more */

struct permutation {
    uint64_t keys[ROUNDS];
    uint32_t left_bits, right_bits, samples;
};

static struct permutation permutation_of(const struct sampler *s, uint64_t epoch)
{
    struct permutation ret = {
        .left_bits = s->left_bits, .right_bits = s->right_bits, .samples = s->samples};
    uint64_t state = rng_mix(s->seed ^ UINT64_C(0x73616d706c657273)) + rng_mix(epoch);

    for (int i = 0; i < ROUNDS; i++)
        ret.keys[i] = rng_split(&state);
    return ret;
}

/* Each round changes one half by a function of the other, so that it can be undone
 * whatever the function is: a bijection of left_bits + right_bits bits. */
static uint32_t encipher(const struct permutation *p, uint32_t x)
{
    uint32_t right_mask = (UINT32_C(1) << p->right_bits) - 1;
    uint32_t left_mask = (UINT32_C(1) << p->left_bits) - 1;
    uint32_t left = x >> p->right_bits, right = x & right_mask;

    for (int i = 0; i < ROUNDS; i += 2) {
        left ^= (uint32_t)(rng_mix(p->keys[i] + right) >> 32) & left_mask;
        right ^= (uint32_t)(rng_mix(p->keys[i + 1] + left) >> 32) & right_mask;
    }
    return left << p->right_bits | right;
}

/* The sample at a position of the epoch. A walk from an index along the cycle of the
 * bijection comes back to an index at the latest where it began, and no two walks meet.
 */
static uint32_t sample_at(const struct permutation *p, uint32_t position)
{
    uint32_t x = position;

    do {
        x = encipher(p, x);
    } while (x >= p->samples);
    return x;
}

int sampler_init(uint32_t samples, uint32_t batch, uint64_t seed, struct sampler *ret,
                 struct gapless_error *error)
{
    uint32_t bits = 2; /* each half has at least one */

    if (samples == 0)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "there are no samples to draw batches from");
    if (batch == 0)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "the batch size is 0: it must be at least 1");
    while (bits < 32 && samples - 1 >= UINT32_C(1) << bits)
        bits++;
    *ret = (struct sampler){.samples = samples,
                            .batch = batch,
                            .seed = seed,
                            .batches = ((uint64_t)samples + batch - 1) / batch,
                            .left_bits = bits / 2,
                            .right_bits = bits - bits / 2};
    return GAPLESS_OK;
}

uint64_t sampler_batches_per_epoch(const struct sampler *s)
{
    return s->batches;
}

uint64_t sampler_epoch(const struct sampler *s, uint64_t ticket)
{
    return ticket / s->batches;
}

void sampler_batch(const struct sampler *s, uint64_t ticket, uint32_t *ret_indices,
                   uint32_t *ret_count)
{
    struct permutation p = permutation_of(s, ticket / s->batches);
    uint64_t first = ticket % s->batches * s->batch; /* < samples */
    uint64_t left = s->samples - first;
    uint32_t count = left < s->batch ? (uint32_t)left : s->batch;

    for (uint32_t i = 0; i < count; i++)
        ret_indices[i] = sample_at(&p, (uint32_t)first + i);
    *ret_count = count;
}
