/* From tensors to one vector, blocks and ranges. */
#include "engine/run/layout.h"

#include "engine/base/hash.h"
#include "engine/run/safetensors.h"
#include "engine/run/state.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

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

/* Names that a file of tensors has for something else. */
static int check_name(const char *name, struct gapless_error *error)
{
    if (strcmp(name, HEADER_METADATA) != 0 &&
        strncmp(name, STATE_PREFIX, sizeof STATE_PREFIX - 1) != 0)
        return GAPLESS_OK;
    return gapless_error_set(error, GAPLESS_INVALID, 0,
                             "a tensor cannot be called '%s': safetensors files have "
                             "'" HEADER_METADATA "' for their metadata, and states of "
                             "a run '" STATE_PREFIX "...' for what is no parameter",
                             name);
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
    if (check_name(tensor->name, error) != GAPLESS_OK ||
        check_own(tensor, error) != GAPLESS_OK)
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
    uint64_t count = 0, hash = HASH_BEGIN, elements = 0;
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

uint64_t layout_elements(const struct gapless_tensor *tensor)
{
    uint64_t ret = 1;
    uint32_t d;

    for (d = 0; d < tensor->dims; d++)
        ret *= tensor->dim[d];
    return ret;
}

double layout_rate(const struct gapless_tensor *tensor)
{
    return tensor->rate > 0 ? tensor->rate : 1;
}

static bool same(double x, double y)
{
    return x <= y && x >= y;
}

bool layout_alike(const struct gapless_tensor *a, const struct gapless_tensor *b)
{
    if (a->average > 0 || b->average > 0)
        return same(a->average, b->average);
    return same(layout_rate(a), layout_rate(b)) && same(a->decay, b->decay);
}

bool layout_tensor_decays(const struct gapless_tensor *tensor, bool all)
{
    if (tensor->average > 0 || tensor->decay < 0)
        return false;
    return all || tensor->dims > 1 || tensor->decay > 0;
}

bool layout_is_matrix(const struct gapless_tensor *tensor, uint64_t *ret_rows,
                      uint64_t *ret_cols)
{
    uint64_t cols = 1;
    uint32_t d;

    for (d = 1; d < tensor->dims; d++)
        cols *= tensor->dim[d];
    if (tensor->dims < 2 || tensor->dim[0] < 2 || cols < 2 || tensor->average > 0 ||
        (tensor->flags & GAPLESS_TENSOR_NOT_MATRIX) != 0)
        return false;
    *ret_rows = tensor->dim[0];
    *ret_cols = cols;
    return true;
}

/* A walk over the blocks. With `write` the layout has room for what is found; without, it
 * is counted. A range ends at the first block end that is a multiple of 16 once it has
 * range_elements, and where it has to. */
struct cut {
    struct layout *to;
    uint64_t range_elements, block_elements;
    bool whole_matrices, write;
    uint64_t at, start; /* of the present tensor and range */
    uint32_t blocks, ranges, units;
    uint32_t first;  /* block of the range */
    bool seam;       /* the range is one */
    uint32_t failed; /* tensor that a seam would cut */
};

static void write_unit(struct cut *c, const struct layout_unit *unit)
{
    if (c->write)
        c->to->units[c->units] = *unit;
    c->units++;
}

/* The range ends here, with the block before. */
static void end_range(struct cut *c, uint64_t end)
{
    struct layout *to = c->to;
    struct layout_unit unit = {
        .from = c->start, .range = c->ranges, .block = c->first, .piece = c->seam};
    uint32_t b;

    if (c->write) {
        to->range_start[c->ranges + 1] = end;
        to->block_first[c->ranges + 1] = c->blocks;
        unit.tensor = to->block_tensor[c->first];
        unit.elements = (uint32_t)(round_up(end, LAYOUT_LANES) -
                                   c->start); /* padded, if the last */
    }
    for (b = c->first; c->seam && b < c->blocks; b++) {
        unit.block = b;
        if (c->write) {
            uint32_t begin = b > c->first ? to->block_ends[b - 1] : 0;

            unit.from = c->start + begin;
            unit.elements = to->block_ends[b] - begin;
            unit.tensor = to->block_tensor[b];
        }
        write_unit(c, &unit);
    }
    if (!c->seam)
        write_unit(c, &unit);
    to->seams |= c->seam;
    c->ranges++;
    if (c->write)
        to->unit_first[c->ranges] = c->units;
    c->first = c->blocks;
    c->start = end;
    c->seam = false;
}

static int end_block(struct cut *c, uint64_t end, uint32_t tensor, uint64_t pieces)
{
    if (end - c->start > UINT32_MAX - LAYOUT_LANES || c->blocks == UINT32_MAX)
        return GAPLESS_CAPACITY;
    if (c->write) {
        c->to->block_ends[c->blocks] = (uint32_t)(end - c->start);
        c->to->block_pieces[c->blocks] = (uint32_t)pieces;
        c->to->block_tensor[c->blocks] = tensor;
    }
    c->blocks++;
    return GAPLESS_OK;
}

/* How often a block goes into its tensor: what is measured on it stands for all. */
static uint64_t times(uint64_t block, uint64_t elements)
{
    uint64_t ret = (elements + block / 2) / block;

    return ret > UINT32_MAX ? UINT32_MAX : ret > 0 ? ret : 1;
}

/* A piece of a tensor in a seam: elements from .. to - 1, with no multiple of 16 between. */
static int cut_piece(struct cut *c, uint32_t tensor, uint64_t from, uint64_t to)
{
    int status;

    if (from >= to)
        return GAPLESS_OK;
    if (from == c->start)
        c->seam = true;
    status = end_block(c, to, tensor,
                       times(to - from, layout_elements(&c->to->tensors[tensor])));
    if (status == GAPLESS_OK && (to % LAYOUT_LANES == 0 || to == c->to->count))
        end_range(c, to);
    return status;
}

/* A tensor, or what seams leave of it. last: a range has to end behind it. */
static int cut_tensor(struct cut *c, uint32_t tensor, uint64_t from, uint64_t to,
                      bool last)
{
    const struct gapless_tensor *t = &c->to->tensors[tensor];
    uint64_t elements = to - from, all = layout_elements(t), rows, cols;
    uint64_t pieces, p;

    if (from >= to)
        return GAPLESS_OK;
    pieces = c->whole_matrices && layout_is_matrix(t, &rows, &cols)
                 ? 1
                 : pieces_of(elements, c->block_elements);
    for (p = 1; p <= pieces; p++) {
        uint64_t end =
            p == pieces ? to : round_up(from + elements / pieces * p, LAYOUT_LANES);
        int status = end_block(
            c, end, tensor, elements == all ? pieces : times(elements / pieces, all));

        if (status != GAPLESS_OK)
            return status;
        if ((end - c->start >= c->range_elements && end % LAYOUT_LANES == 0) ||
            end == c->to->count || (last && end == to))
            end_range(c, end);
    }
    return GAPLESS_OK;
}

/* Tensors first .. end - 1, which are alike: elements from .. to - 1. */
static int cut_run(struct cut *c, uint32_t first, uint32_t end, uint64_t to)
{
    uint64_t from = c->at, inner = round_up(from, LAYOUT_LANES);
    uint64_t outer = to == c->to->count ? to : to / LAYOUT_LANES * LAYOUT_LANES;
    int status = GAPLESS_OK;
    uint32_t i;

    if (inner > outer) /* all of it is in one chunk of 16 */
        inner = outer = to;
    for (i = first; status == GAPLESS_OK && i < end; i++) {
        uint64_t at = c->at, behind = at + layout_elements(&c->to->tensors[i]), cols;

        if (c->whole_matrices && (at < inner || behind > outer) &&
            layout_is_matrix(&c->to->tensors[i], &cols, &cols)) {
            c->failed = i;
            return GAPLESS_INVALID;
        }
        status = cut_piece(c, i, at, behind < inner ? behind : inner);
        if (status == GAPLESS_OK)
            status = cut_tensor(c, i, at > inner ? at : inner,
                                behind < outer ? behind : outer, behind >= outer);
        if (status == GAPLESS_OK)
            status = cut_piece(c, i, at > outer ? at : outer, behind);
        c->at = behind;
    }
    return status;
}

/* GAPLESS_INVALID: a seam would cut a matrix, `failed`. */
static int cut(struct cut *c)
{
    struct layout *to = c->to;
    uint32_t first = 0, end;
    int status = GAPLESS_OK;

    while (status == GAPLESS_OK && first < to->tensors_count) {
        uint64_t behind = c->at;

        for (end = first; end < to->tensors_count &&
                          layout_alike(&to->tensors[first], &to->tensors[end]);
             end++)
            behind += layout_elements(&to->tensors[end]);
        status = cut_run(c, first, end, behind);
        first = end;
    }
    to->blocks_count = c->blocks;
    to->ranges_count = c->ranges;
    to->units_count = c->units;
    return status;
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

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* A file of tensors has each name once. */
static int check_names_differ(const struct layout *l, struct gapless_error *error)
{
    const char **names = calloc(l->tensors_count, sizeof *names);
    const char *twice = NULL;
    uint32_t i;

    if (names == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for the names of %u tensors",
                                 l->tensors_count);
    for (i = 0; i < l->tensors_count; i++)
        names[i] = l->tensors[i].name;
    qsort(names, l->tensors_count, sizeof *names, by_name);
    for (i = 1; i < l->tensors_count && twice == NULL; i++)
        twice = strcmp(names[i - 1], names[i]) == 0 ? names[i] : NULL;
    free(names);
    if (twice == NULL)
        return GAPLESS_OK;
    return gapless_error_set(error, GAPLESS_INVALID, 0,
                             "two tensors are called '%s': each needs a name of its "
                             "own, by which files have it",
                             twice);
}

/* Memory for what the first walk has counted. False: there is none. */
static bool take_tables(struct layout *l)
{
    l->range_start = calloc(l->ranges_count + 1u, sizeof *l->range_start);
    l->block_first = calloc(l->ranges_count + 1u, sizeof *l->block_first);
    l->unit_first = calloc(l->ranges_count + 1u, sizeof *l->unit_first);
    l->block_ends = calloc(l->blocks_count, sizeof *l->block_ends);
    l->block_pieces = calloc(l->blocks_count, sizeof *l->block_pieces);
    l->block_tensor = calloc(l->blocks_count, sizeof *l->block_tensor);
    l->units = calloc(l->units_count, sizeof *l->units);
    return l->range_start != NULL && l->block_first != NULL && l->unit_first != NULL &&
           l->block_ends != NULL && l->block_pieces != NULL &&
           l->block_tensor != NULL && l->units != NULL;
}

static int cannot_cut(const struct cut *cut, int status, struct gapless_error *error)
{
    if (status == GAPLESS_INVALID)
        return gapless_error_set(
            error, status, 0,
            "tensor '%s' is a matrix, and shares 16 elements with a tensor of another "
            "rate, decay or average, which no pass can cut: give tensors of one "
            "dimension between them, or tensors in another order",
            cut->to->tensors[cut->failed].name);
    return gapless_error_set(
        error, GAPLESS_CAPACITY, 0,
        "ranges of about %llu elements, in whole blocks of at least %llu, do not "
        "fit this model: at most %u ranges of at most %u elements; choose another "
        "range size or smaller blocks%s",
        (unsigned long long)cut->range_elements,
        (unsigned long long)cut->block_elements, GAPLESS_RANGES_MAX - 1, UINT32_MAX,
        cut->to->seams ? ", or give tensors of the same rate, decay and average one "
                         "after another"
                       : "");
}

int layout_init(struct layout *ret, const struct gapless_model *model,
                uint64_t range_elements, uint64_t block_elements, bool whole_matrices,
                struct gapless_error *error)
{
    struct layout l = {0};
    struct cut counts = {.to = &l, .whole_matrices = whole_matrices}, writes;
    uint32_t i;
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
    if (copy_tensors(&l, model) != GAPLESS_OK)
        goto no_memory;
    status = check_names_differ(&l, error);
    if (status != GAPLESS_OK)
        goto free_layout;
    for (i = 0; i < l.tensors_count; i++)
        l.moved += l.tensors[i].average > 0 ? 0 : layout_elements(&l.tensors[i]);
    counts.range_elements = range_elements == 0 ? LAYOUT_RANGE_DEFAULT : range_elements;
    counts.block_elements = block_elements == 0 ? LAYOUT_BLOCK_DEFAULT : block_elements;
    writes = counts;
    writes.write = true;
    status = cut(&counts);
    if (status != GAPLESS_OK || l.ranges_count >= GAPLESS_RANGES_MAX) {
        status = cannot_cut(&counts, status, error);
        goto free_layout;
    }
    if (!take_tables(&l))
        goto no_memory;
    (void)cut(&writes);
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
    uint32_t i;

    memset(ret, 0, layout->padded / LAYOUT_LANES * sizeof *ret);
    for (i = 0; i < layout->tensors_count; i++) {
        bool decays = layout_tensor_decays(&layout->tensors[i], all);

        for (end = at + layout_elements(&layout->tensors[i]); at < end; at++)
            if (decays)
                ret[at / LAYOUT_LANES] |= (uint16_t)(1u << at % LAYOUT_LANES);
    }
}

uint32_t layout_matrices(const struct layout *layout)
{
    uint32_t count = 0, i;

    for (i = 0; i < layout->tensors_count; i++)
        count +=
            layout->tensors[i].dims > 1 && !(layout->tensors[i].average > 0) ? 1 : 0;
    return count;
}

void layout_free(struct layout *layout)
{
    free(layout->range_start);
    free(layout->block_first);
    free(layout->block_ends);
    free(layout->block_pieces);
    free(layout->block_tensor);
    free(layout->units);
    free(layout->unit_first);
    free(layout->tensors);
    free(layout->names);
    *layout = (struct layout){0};
}

uint64_t layout_own_hash(const struct layout *l)
{
    uint64_t hash = HASH_BEGIN;
    bool any = false;

    for (uint32_t i = 0; i < l->tensors_count; i++) {
        const struct gapless_tensor *t = &l->tensors[i];
        double rate = layout_rate(t);

        any |= rate < 1 || rate > 1 || t->decay < 0 || t->decay > 0 || t->average > 0;
        hash = hash_bytes(hash, &rate, sizeof rate);
        hash = hash_bytes(hash, &t->decay, sizeof t->decay);
        hash = hash_bytes(hash, &t->average, sizeof t->average);
    }
    return !any ? 0 : hash != 0 ? hash : 1;
}
