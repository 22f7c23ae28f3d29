/* Layout: how a model's tensors become one vector, its blocks and its ranges.
 *
 *   tensors  |----------- w1 -----------|-b1-|--- w2 ---|b2|   one after another
 *   blocks   |-- piece --|---- piece ---|----|----------|--|   a tensor, or a piece of
 *                                                              a large one
 *   ranges   |------------------ range 0 ------------------|   whole blocks, about
 *                                                              range_elements
 *
 * A range starts at a multiple of 16 elements, so that a pass over it never shares a
 * vector lane or a cache line with its neighbour. The whole vector is padded with zeros
 * to a multiple of 16.
 */
#ifndef GAPLESS_LAYOUT_H
#define GAPLESS_LAYOUT_H

#include <gapless/gapless.h>

#define LAYOUT_LANES 16u
/* Smallest piece of a large tensor by default: smaller ones lose the effect of a block
 * rule (algorithms, section 8). */
#define LAYOUT_BLOCK_DEFAULT 16384u
#define LAYOUT_BLOCK_MIN LAYOUT_LANES
#define LAYOUT_RANGE_DEFAULT (1u << 20)

struct layout {
    uint64_t count;  /* parameters */
    uint64_t padded; /* the same, rounded up to a multiple of 16 */
    uint32_t ranges_count;
    uint32_t blocks_count;
    uint64_t *range_start;  /* ranges_count + 1 entries; the last is padded */
    uint32_t *block_first;  /* ranges_count + 1 entries: first block of each range */
    uint32_t *block_ends;   /* blocks_count entries: end of each block, from its range's
                               start */
    uint32_t *block_pieces; /* blocks_count entries: how many its tensor was cut into */
    uint32_t *block_tensor; /* blocks_count entries: which tensor that is */
    uint64_t hash;          /* of the tensors' names and sizes; not of their flags,
                               which the master alone looks at */
    struct gapless_tensor *tensors; /* a copy */
    uint32_t tensors_count;
    char *names;
};

/* GAPLESS_INVALID names the tensor that is wrong. range_elements 0: the default.
 * block_elements is the smallest piece of a large tensor, at least 16: a tensor that
 * has not twice as many is one block; 0: LAYOUT_BLOCK_DEFAULT. The hash depends on
 * neither. whole_matrices: a matrix is one block, whatever its size, so that no range cuts
 * it. GAPLESS_CAPACITY: the ranges would be too many or too long. */
int layout_init(struct layout *ret, const struct gapless_model *model,
                uint64_t range_elements, uint64_t block_elements, bool whole_matrices,
                struct gapless_error *error);
void layout_free(struct layout *layout);
/* The elements that weight decay applies to, those of tensors of two dimensions or more, or
 * all: padded/16 words, a bit for each of 16 elements, of the first the lowest. */
void layout_decays(const struct layout *layout, bool all, uint16_t *ret);
/* Tensors of two dimensions or more. */
uint32_t layout_matrices(const struct layout *layout);
/* Is it a matrix to a rule that works on matrices (enum gapless_tensor_flag)? How many rows
 * and columns it has then. */
bool layout_is_matrix(const struct gapless_tensor *tensor, uint64_t *ret_rows,
                      uint64_t *ret_cols);
/* Elements of a model, and its hash, without building a layout; checks the same
 * things. */
int layout_measure(const struct gapless_model *model, uint64_t *ret_count,
                   uint64_t *ret_hash, struct gapless_error *error);

#endif
