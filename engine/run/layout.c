/* From tensors to one vector, blocks and ranges. */
#include "engine/run/layout.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint64_t hash_bytes(uint64_t hash, const void *data, size_t bytes)
{
    const unsigned char *p = data;
    size_t i;

    for (i = 0; i < bytes; i++)
        hash = (hash ^ p[i]) * 0x100000001b3ull; /* FNV-1a, 64 bits */
    return hash;
}

/* A name goes into a safetensors header as it is, so quotes and controls are
 * refused. */
static bool name_is_plain(const char *name)
{
    size_t i;

    for (i = 0; name[i] != '\0'; i++)
        if (i + 1 >= GAPLESS_NAME_MAX || name[i] < 0x20 || name[i] > 0x7e ||
            name[i] == '"' || name[i] == '\\')
            return false;
    return i > 0;
}

/* What a tensor has of its own. */
static int check_own(const struct gapless_tensor *tensor, struct gapless_error *error)
{
    if (!(tensor->rate >= 0) || !isfinite(tensor->rate))
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "tensor '%s' has a rate of %g times the run's: it must "
            "be a number that is not negative; 0 means 1",
            tensor->name, tensor->rate);
    if (!(tensor->decay >= 0 ||
          (tensor->decay <= GAPLESS_NO_DECAY && tensor->decay >= GAPLESS_NO_DECAY)) ||
        !isfinite(tensor->decay))
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "tensor '%s' has a weight decay of %g: it must be a "
                                 "number that is not negative; 0 means the run's, "
                                 "GAPLESS_NO_DECAY none",
                                 tensor->name, tensor->decay);
    if (!(tensor->average >= 0 && tensor->average <= 1))
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "tensor '%s' has an average of %g: it must be above 0 "
                                 "and at most 1; 0 means that it is a parameter",
                                 tensor->name, tensor->average);
    if (tensor->average > 0 &&
        (tensor->decay > 0 ||
         (tensor->rate > 0 && (tensor->rate < 1 || tensor->rate > 1))))
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "tensor '%s' is a running average, which has no rate "
                                 "and no weight decay: leave both at 0",
                                 tensor->name);
    return GAPLESS_OK;
}

static int tensor_elements(const struct gapless_tensor *tensor, uint32_t index,
                           uint64_t *ret, struct gapless_error *error)
{
    uint64_t elements = 1;
    uint32_t d;

    if (tensor->name == NULL || !name_is_plain(tensor->name))
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "tensor %u has no plain name of 1 to %d characters "
                                 "without quotes",
                                 index, GAPLESS_NAME_MAX - 1);
    if (tensor->dims < 1 || tensor->dims > 4)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "tensor '%s' has %u dimensions; 1 to 4 are possible",
                                 tensor->name, tensor->dims);
    if (tensor->flags & ~(uint32_t)GAPLESS_TENSOR_NOT_MATRIX)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "tensor '%s' has flags 0x%x, which this version does "
                                 "not know: set them to 0, or see enum "
                                 "gapless_tensor_flag",
                                 tensor->name, tensor->flags);
    if (check_own(tensor, error) != GAPLESS_OK)
        return GAPLESS_INVALID;
    for (d = 0; d < tensor->dims; d++) {
        if (tensor->dim[d] == 0 || tensor->dim[d] > GAPLESS_ELEMENTS_MAX ||
            elements > GAPLESS_ELEMENTS_MAX / tensor->dim[d])
            return gapless_error_set(error, GAPLESS_INVALID, 0,
                                     "tensor '%s': dimension %u is %llu, which is zero "
                                     "or beyond the limit of %llu elements",
                                     tensor->name, d,
                                     (unsigned long long)tensor->dim[d],
                                     (unsigned long long)GAPLESS_ELEMENTS_MAX);
        elements *= tensor->dim[d];
    }
    *ret = elements;
    return GAPLESS_OK;
}

int layout_measure(const struct gapless_model *model, uint64_t *ret_count,
                   uint64_t *ret_hash, struct gapless_error *error)
{
    uint64_t count = 0, hash = 0xcbf29ce484222325ull, elements = 0;
    uint32_t i;
    int status;

    if (model->tensors == NULL || model->tensors_count == 0 ||
        model->tensors_count > GAPLESS_TENSORS_MAX)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "a model has 1 to %u tensors; this one has %u",
                                 GAPLESS_TENSORS_MAX, model->tensors_count);
    for (i = 0; i < model->tensors_count; i++) {
        const struct gapless_tensor *t = &model->tensors[i];

        status = tensor_elements(t, i, &elements, error);
        if (status != GAPLESS_OK)
            return status;
        if (elements > GAPLESS_ELEMENTS_MAX - count)
            return gapless_error_set(error, GAPLESS_INVALID, 0,
                                     "the model has more than %llu parameters",
                                     (unsigned long long)GAPLESS_ELEMENTS_MAX);
        count += elements;
        hash = hash_bytes(hash, t->name, strlen(t->name) + 1);
        hash = hash_bytes(hash, &t->dims, sizeof t->dims);
        hash = hash_bytes(hash, t->dim, t->dims * sizeof t->dim[0]);
    }
    *ret_count = count;
    *ret_hash = hash;
    return GAPLESS_OK;
}

static uint64_t round_up(uint64_t x, uint64_t unit)
{
    return (x + unit - 1) / unit * unit;
}

/* Pieces of a tensor: as many as leave each at least block_elements after its cut moved
 * to a multiple of 16. */
static uint64_t pieces_of(uint64_t elements, uint64_t block_elements)
{
    if (elements < block_elements || elements - block_elements < LAYOUT_LANES)
        return 1;
    return elements / (block_elements + LAYOUT_LANES);
}

bool layout_is_matrix(const struct gapless_tensor *tensor, uint64_t *ret_rows,
                      uint64_t *ret_cols)
{
    uint64_t cols = 1;
    uint32_t d;

    for (d = 1; d < tensor->dims; d++)
        cols *= tensor->dim[d];
    if (tensor->dims < 2 || tensor->dim[0] < 2 || cols < 2 ||
        (tensor->flags & GAPLESS_TENSOR_NOT_MATRIX) != 0)
        return false;
    *ret_rows = tensor->dim[0];
    *ret_cols = cols;
    return true;
}

/* Walks the blocks; with `ret` filled in far enough it also writes them. A range ends
 * at the first block end that is a multiple of 16 once it has range_elements. */
static int cut(struct layout *ret, uint64_t range_elements, uint64_t block_elements,
               bool whole_matrices, bool write)
{
    uint64_t at = 0, start = 0;
    uint32_t blocks = 0, ranges = 0, i;

    for (i = 0; i < ret->tensors_count; i++) {
        const struct gapless_tensor *t = &ret->tensors[i];
        uint64_t elements = 1, pieces, p, rows, cols;
        uint32_t d;

        for (d = 0; d < t->dims; d++)
            elements *= t->dim[d];
        pieces = whole_matrices && layout_is_matrix(t, &rows, &cols)
                     ? 1
                     : pieces_of(elements, block_elements);
        for (p = 1; p <= pieces; p++) {
            uint64_t end = p == pieces
                               ? at + elements
                               : round_up(at + elements / pieces * p, LAYOUT_LANES);

            if (end - start > UINT32_MAX - LAYOUT_LANES || blocks == UINT32_MAX)
                return GAPLESS_CAPACITY;
            if (write) {
                ret->block_ends[blocks] = (uint32_t)(end - start);
                ret->block_pieces[blocks] = (uint32_t)pieces;
                ret->block_tensor[blocks] = i;
            }
            blocks++;
            if ((end - start >= range_elements && end % LAYOUT_LANES == 0) ||
                end == ret->count) {
                if (write) {
                    ret->range_start[ranges + 1] = end;
                    ret->block_first[ranges + 1] = blocks;
                }
                ranges++;
                start = end;
            }
        }
        at += elements;
    }
    ret->blocks_count = blocks;
    ret->ranges_count = ranges;
    return GAPLESS_OK;
}

static int copy_tensors(struct layout *ret, const struct gapless_model *model)
{
    uint32_t i;

    ret->tensors_count = model->tensors_count;
    ret->tensors = calloc(model->tensors_count, sizeof *ret->tensors);
    ret->names = calloc(model->tensors_count, GAPLESS_NAME_MAX);
    if (ret->tensors == NULL || ret->names == NULL)
        return GAPLESS_NO_MEMORY;
    for (i = 0; i < model->tensors_count; i++) {
        char *name = ret->names + (size_t)i * GAPLESS_NAME_MAX;

        memcpy(name, model->tensors[i].name, strlen(model->tensors[i].name) + 1);
        ret->tensors[i] = model->tensors[i];
        ret->tensors[i].name = name;
    }
    return GAPLESS_OK;
}

int layout_init(struct layout *ret, const struct gapless_model *model,
                uint64_t range_elements, uint64_t block_elements, bool whole_matrices,
                struct gapless_error *error)
{
    struct layout l = {0};
    int status;

    if (block_elements != 0 && block_elements < LAYOUT_BLOCK_MIN)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "blocks of %llu elements are too small; %u is the "
                                 "least, and 0 means %u",
                                 (unsigned long long)block_elements, LAYOUT_BLOCK_MIN,
                                 LAYOUT_BLOCK_DEFAULT);
    status = layout_measure(model, &l.count, &l.hash, error);
    if (status != GAPLESS_OK)
        return status;
    l.padded = round_up(l.count, LAYOUT_LANES);
    status = copy_tensors(&l, model);
    if (status != GAPLESS_OK)
        goto no_memory;
    if (range_elements == 0)
        range_elements = LAYOUT_RANGE_DEFAULT;
    if (block_elements == 0)
        block_elements = LAYOUT_BLOCK_DEFAULT;
    status = cut(&l, range_elements, block_elements, whole_matrices, false);
    if (status != GAPLESS_OK || l.ranges_count >= GAPLESS_RANGES_MAX) {
        status = gapless_error_set(
            error, GAPLESS_CAPACITY, 0,
            "ranges of about %llu elements, in whole blocks of at least %llu, do not "
            "fit this model: at most %u ranges of at most %u elements; choose another "
            "range size or smaller blocks",
            (unsigned long long)range_elements, (unsigned long long)block_elements,
            GAPLESS_RANGES_MAX - 1, UINT32_MAX);
        goto free_layout;
    }
    l.range_start = calloc(l.ranges_count + 1u, sizeof *l.range_start);
    l.block_first = calloc(l.ranges_count + 1u, sizeof *l.block_first);
    l.block_ends = calloc(l.blocks_count, sizeof *l.block_ends);
    l.block_pieces = calloc(l.blocks_count, sizeof *l.block_pieces);
    l.block_tensor = calloc(l.blocks_count, sizeof *l.block_tensor);
    if (l.range_start == NULL || l.block_first == NULL || l.block_ends == NULL ||
        l.block_pieces == NULL || l.block_tensor == NULL)
        goto no_memory;
    (void)cut(&l, range_elements, block_elements, whole_matrices, true);
    l.range_start[l.ranges_count] = l.padded;
    *ret = l;
    return GAPLESS_OK;

no_memory:
    status = gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                               "no memory for the layout of %u tensors",
                               model->tensors_count);
free_layout:
    layout_free(&l);
    return status;
}

void layout_decays(const struct layout *layout, bool all, uint16_t *ret)
{
    uint64_t at = 0, end;
    uint32_t i, d;

    memset(ret, 0, layout->padded / LAYOUT_LANES * sizeof *ret);
    for (i = 0; i < layout->tensors_count; i++) {
        const struct gapless_tensor *t = &layout->tensors[i];
        uint64_t elements = 1;

        for (d = 0; d < t->dims; d++)
            elements *= t->dim[d];
        for (end = at + elements; at < end; at++)
            if (all || t->dims > 1)
                ret[at / LAYOUT_LANES] |= (uint16_t)(1u << at % LAYOUT_LANES);
    }
}

uint32_t layout_matrices(const struct layout *layout)
{
    uint32_t count = 0, i;

    for (i = 0; i < layout->tensors_count; i++)
        count += layout->tensors[i].dims > 1 ? 1 : 0;
    return count;
}

void layout_free(struct layout *layout)
{
    free(layout->range_start);
    free(layout->block_first);
    free(layout->block_ends);
    free(layout->block_pieces);
    free(layout->block_tensor);
    free(layout->tensors);
    free(layout->names);
    *layout = (struct layout){0};
}
