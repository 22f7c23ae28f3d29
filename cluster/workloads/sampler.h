/* Which samples make up batch number t.
 *
 * Batches are numbered by global tickets 0, 1, 2, ... over all workers together. Any
 * process can ask for any ticket in any order and gets the same answer:
 *
 *     ticket:   0   1   2  | 3   4   5  | 6 ...       3 batches an epoch
 *     epoch:        0      |     1      |
 *     samples:  a permutation of all, then another, ...
 *
 * so that every sample is seen exactly once an epoch, whichever worker takes which ticket and
 * however fast. The last batch of an epoch is smaller where the batch size does not
 * divide the samples.
 *
 * The permutation of an epoch is never stored: it is a keyed bijection of the indices
 * (an alternating Feistel network on the smallest power of two that holds them, walking
 * on until the result is an index; Black and Rogaway, "Ciphers with arbitrary finite
 * domains", 2002). A ticket costs about 0.02 us a sample, an epoch costs nothing.
 */
#ifndef GAPLESS_WORKLOADS_SAMPLER_H
#define GAPLESS_WORKLOADS_SAMPLER_H

#include <gapless/status.h>

#include <stdint.h>

/* A value: copy it freely; nothing to free. Read-only after sampler_init, so that
 * threads may share one. */
struct sampler {
    uint32_t samples;
    uint32_t batch;
    uint64_t seed;
    uint64_t batches; /* in an epoch: samples / batch, rounded up */
    uint32_t left_bits, right_bits;
};

/* For `samples` samples in batches of `batch` (both at least 1, else GAPLESS_INVALID).
 * A batch larger than the samples means one batch an epoch, of all samples. */
int sampler_init(uint32_t samples, uint32_t batch, uint64_t seed, struct sampler *ret,
                 struct gapless_error *error);

/* Batches in an epoch. */
uint64_t sampler_batches_per_epoch(const struct sampler *s);

/* The epoch, from 0, that a ticket belongs to. */
uint64_t sampler_epoch(const struct sampler *s, uint64_t ticket);

/* The samples of a ticket: fills ret_indices, which has room for min(batch, samples),
 * and sets ret_count to how many there are (at least 1). Cannot fail. */
void sampler_batch(const struct sampler *s, uint64_t ticket, uint32_t *ret_indices,
                   uint32_t *ret_count);

#endif
