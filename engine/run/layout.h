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
 *
 * Where the next tensor has another rate, decay or average, a range ends. If that is not
 * at a multiple of 16, the 16 elements around it are a range of their own, a seam, which passes
 * take block by block:
 *
 *   tensors  |-------- w1, w2 --------|------- w3, w4 -------|   rate 1 and 0.1
 *   ranges   |---- 0 ----|--------- 1 ----------|---- 2 ----|
 *   units    |---- 0 ----|----- 1 -----|--- 2 ---|---- 3 ----|   1 and 2: pieces of a seam
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

/* What a pass works on: elements with one rate, decay and average. */
struct layout_unit {
    uint64_t from;          /* its first element */
    uint32_t elements;      /* to the end of its range; of a piece, its own */
    uint32_t range, tensor; /* tensor: the first of those that it is of */
    uint32_t block;         /* its first block; a piece is one */
    bool piece;             /* of a seam: it starts and ends anywhere */
};

struct layout {
    uint64_t count;  /* parameters */
    uint64_t padded; /* the same, rounded up to a multiple of 16 */
    uint32_t ranges_count;
    uint32_t blocks_count;
    uint64_t *range_start; /* ranges_count + 1 entries; the last is padded */
    uint32_t *block_first; /* ranges_count + 1 entries: first block of each range */
    uint32_t *block_ends;  /* blocks_count entries: end of each block, from its range's
                               start */
    uint32_t
        *block_pieces; /* blocks_count entries: how many its tensor was cut into; of
                               what is cut by a seam, how often the block goes into it */
    uint32_t *block_tensor;    /* blocks_count entries: which tensor that is */
    struct layout_unit *units; /* units_count entries */
    uint32_t *unit_first;      /* ranges_count + 1 entries: first unit of each range */
    uint32_t units_count;
    uint64_t moved; /* elements that are no running averages */
    bool seams;     /* there are any */
    uint64_t hash;  /* of the tensors' names and sizes; not of their flags,
                               which the master alone looks at */
    struct gapless_tensor *tensors; /* a copy */
    uint32_t tensors_count;
    char *names;
};

/* GAPLESS_INVALID names the tensor that is wrong. range_elements 0: the default.
 * block_elements is the smallest piece of a large tensor, at least 16: a tensor that
 * has not twice as many is one block; 0: LAYOUT_BLOCK_DEFAULT. The hash depends on
 * neither. whole_matrices: a matrix is one block, whatever its size, so that no range cuts
 * it; GAPLESS_INVALID where a seam would. GAPLESS_CAPACITY: the ranges would be too many or
 * too long. */
int layout_init(struct layout *ret, const struct gapless_model *model,
                uint64_t range_elements, uint64_t block_elements, bool whole_matrices,
                struct gapless_error *error);
void layout_free(struct layout *layout);
/* Of a tensor, without the defaults: its rate; does AdamW's decay apply to it; has it all
 * that the other has? */
double layout_rate(const struct gapless_tensor *tensor);
bool layout_tensor_decays(const struct gapless_tensor *tensor, bool all);
bool layout_alike(const struct gapless_tensor *a, const struct gapless_tensor *b);
/* Elements of a tensor. */
uint64_t layout_elements(const struct gapless_tensor *tensor);
/* The elements that weight decay applies to, those of tensors with a decay of their own and of
 * tensors of two dimensions or more, or all: padded/16 words, a bit for each of 16 elements, of the first the lowest. */
void layout_decays(const struct layout *layout, bool all, uint16_t *ret);
/* Tensors of two dimensions or more that are no averages. */
uint32_t layout_matrices(const struct layout *layout);
/* Is it a matrix to a rule that works on matrices (enum gapless_tensor_flag)? How many rows
 * and columns it has then. */
bool layout_is_matrix(const struct gapless_tensor *tensor, uint64_t *ret_rows,
                      uint64_t *ret_cols);
/* A number of what tensors have of their own: rate, decay, average; 0: nothing. */
uint64_t layout_own_hash(const struct layout *layout);
/* Elements of a model, and its hash, without building a layout; checks the same
 * things. */
int layout_measure(const struct gapless_model *model, uint64_t *ret_count,
                   uint64_t *ret_hash, struct gapless_error *error);

#endif
