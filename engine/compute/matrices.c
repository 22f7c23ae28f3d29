/* Updates of whole matrices: see matrices.h. */
#include "engine/compute/matrices.h"

#include "engine/base/array.h"
#include "engine/compute/chunk_copy.h"
#include "engine/rules/corrections/loss_gap.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Only OpenBLAS has it; with another CBLAS, or none, its address is NULL. */
extern void openblas_set_num_threads(int threads) __attribute__((weak));

struct matrix_scratch {
    number *x, *y; /* the matrix, in turns */
    number *a, *b; /* side x side */
};

struct matrix_scratch *matrix_scratch_new(size_t elements, size_t side)
{
    struct matrix_scratch *ret = calloc(1, sizeof *ret);
    size_t bytes = (elements + 2 * (size_t)SUM_LANES) * sizeof(number);

    if (ret == NULL)
        return NULL;
    ret->x = array_zeroed(ARRAY_LINE, bytes);
    ret->y = array_zeroed(ARRAY_LINE, bytes);
    ret->a = array_zeroed(ARRAY_LINE, side * side * sizeof(number));
    ret->b = array_zeroed(ARRAY_LINE, side * side * sizeof(number));
    if (ret->x == NULL || ret->y == NULL || ret->a == NULL || ret->b == NULL) {
        matrix_scratch_free(ret);
        return NULL;
    }
    if (openblas_set_num_threads != NULL)
        openblas_set_num_threads(1);
    return ret;
}

void matrix_scratch_free(struct matrix_scratch *scratch)
{
    if (scratch == NULL)
        return;
    free(scratch->x);
    free(scratch->y);
    free(scratch->a);
    free(scratch->b);
    free(scratch);
}

number *matrix_input(struct matrix_scratch *scratch)
{
    return scratch->x;
}

double matrix_work(uint32_t rows, uint32_t cols)
{
    double r = rows < cols ? rows : cols, s = rows < cols ? cols : rows;

    return MATRIX_ITERATIONS * (4 * r * r * s + 2 * r * r * r);
}

/* ---- Newton-Schulz ------------------------------------------------------- */

/* One iteration: y = (a I + b A + c A^2) x, or x times that. */
static void iterate(struct matrix_scratch *s, const number *x, number *y, uint32_t rows,
                    uint32_t cols)
{
    bool tall = rows > cols;
    size_t side = tall ? cols : rows, other = tall ? rows : cols;

    products_best(&(struct product){.rows = side,
                                    .cols = side,
                                    .inner = other,
                                    .a_transposed = tall,
                                    .b_transposed = !tall,
                                    .alpha = 1,
                                    .a = x,
                                    .b = x,
                                    .c = s->a});
    memcpy(s->b, s->a, side * side * sizeof *s->b);
    products_best(&(struct product){.rows = side,
                                    .cols = side,
                                    .inner = side,
                                    .alpha = (number)MATRIX_C,
                                    .beta = (number)MATRIX_B,
                                    .a = s->a,
                                    .b = s->a,
                                    .c = s->b});
    for (size_t i = 0; i < side; i++)
        s->b[i * side + i] += (number)MATRIX_A;
    products_best(&(struct product){.rows = rows,
                                    .cols = cols,
                                    .inner = side,
                                    .alpha = 1,
                                    .a = tall ? x : s->b,
                                    .b = tall ? s->b : x,
                                    .c = y});
}

number *matrix_turn(const struct compute *compute, struct matrix_scratch *scratch,
                    size_t phase, uint32_t rows, uint32_t cols)
{
    size_t elements = (size_t)rows * cols;
    size_t padded = (phase + elements + SUM_LANES - 1) / SUM_LANES * SUM_LANES;
    double norm = sqrt(compute->norm_sq(scratch->x, padded));
    number *from = scratch->x, *to = scratch->y;

    compute->scale(from, (number)(1.0 / (norm + MATRIX_LEAST)), padded);
    for (int i = 0; i < MATRIX_ITERATIONS; i++) {
        number *was = from;

        iterate(scratch, from + phase, to + phase, rows, cols);
        from = to;
        to = was;
    }
    return from;
}

/* ---- parts of a stretch -------------------------------------------------- */

/* What is done with each part: whole chunks in place, or copies of one. */
struct work {
    const struct compute *compute;
    const struct rule *rule;
    struct step_scalars scalars;
    unsigned want;
    struct sums sums;
    double sum;
};
typedef void part_fn(struct work *work, const struct arrays *at, size_t n);

static struct arrays arrays_from(const struct arrays *at, size_t n)
{
    number *vector[CHUNK_VECTORS];

    chunk_vectors(at, vector);
    for (int i = 0; i < CHUNK_VECTORS; i++)
        vector[i] = vector[i] == NULL ? NULL : vector[i] + n;
    return chunk_arrays(vector);
}

/* Lanes from .. to - 1 of the chunk at `at`: on copies, the other lanes of which are 0. */
static void edge(const struct arrays *at, size_t from, size_t to, bool store,
                 part_fn *part, struct work *work)
{
    struct chunk_copy copy;
    struct arrays copies = chunk_take(&copy, at, from, to, from);

    part(work, &copies, SUM_LANES);
    if (store)
        chunk_put(&copy, at, from, to, from);
}

/* Elements from .. to - 1. */
static void each_part(const struct arrays *at, size_t from, size_t to, bool store,
                      part_fn *part, struct work *work)
{
    size_t lane = from % SUM_LANES, chunk = from - lane, whole;
    struct arrays here = arrays_from(at, chunk);

    if (lane > 0) {
        edge(&here, lane, to - chunk < SUM_LANES ? to - chunk : SUM_LANES, store, part,
             work);
        chunk += SUM_LANES;
    }
    if (to <= chunk)
        return;
    whole = (to - chunk) / SUM_LANES * SUM_LANES;
    here = arrays_from(at, chunk);
    if (whole > 0)
        part(work, &here, whole);
    here = arrays_from(at, chunk + whole);
    if (to > chunk + whole)
        edge(&here, 0, to - chunk - whole, store, part, work);
}

static void add_sums(struct sums *to, const struct sums *from)
{
    to->gap_sq += from->gap_sq;
    to->step_sq += from->step_sq;
}

static void apply_part(struct work *w, const struct arrays *at, size_t n)
{
    struct sums sums;

    w->compute->apply(w->rule, at, &w->scalars, NULL, n, w->want, &sums);
    add_sums(&w->sums, &sums);
}

static void gather_part(struct work *w, const struct arrays *at, size_t n)
{
    w->compute->gather(w->rule, at, &w->scalars, n);
}

static void turn_part(struct work *w, const struct arrays *at, size_t n)
{
    struct sums sums;

    w->compute->turn(w->rule, at, &w->scalars, n, w->want, &sums);
    add_sums(&w->sums, &sums);
}

static void measure_part(struct work *w, const struct arrays *at, size_t n)
{
    w->sum += w->compute->measure(w->rule, at, &w->scalars, n);
}

static void matrix_measure_part(struct work *w, const struct arrays *at, size_t n)
{
    w->sum += w->compute->matrix_measure(w->rule, at, &w->scalars, n);
}

static void look_ahead_part(struct work *w, const struct arrays *at, size_t n)
{
    w->compute->look_ahead(w->rule, at, &w->scalars, n);
}

static void matrix_look_ahead_part(struct work *w, const struct arrays *at, size_t n)
{
    w->compute->matrix_look_ahead(w->rule, at, &w->scalars, n);
}

/* ---- a stretch ----------------------------------------------------------- */

static struct work work_of(const struct compute *compute, const struct rule *rule,
                           const struct step_scalars *scalars,
                           const struct stretch *stretch)
{
    struct work ret = {.compute = compute, .rule = rule, .scalars = *scalars};

    if (!stretch->decays)
        ret.scalars.decay = 0;
    ret.scalars.spread = (scalar)matrix_spread(stretch->rows, stretch->cols);
    return ret;
}

/* The vectors of the chunk in which the stretch begins. */
static struct arrays arrays_of_stretch(const struct arrays *at,
                                       const struct stretch *stretch)
{
    struct arrays ret = arrays_from(at, stretch->from - stretch->from % SUM_LANES);

    ret.turned = NULL;
    return ret;
}

static void apply_matrix(struct work *work, const struct arrays *arrays,
                         const struct stretch *stretch, struct matrix_scratch *scratch)
{
    size_t from = stretch->from % SUM_LANES;
    size_t to = from + (stretch->to - stretch->from);
    struct arrays at = *arrays;

    at.turned = matrix_input(scratch);
    memset(at.turned, 0, SUM_LANES * sizeof(number));
    memset(at.turned + to / SUM_LANES * SUM_LANES, 0, SUM_LANES * sizeof(number));
    each_part(&at, from, to, true, gather_part, work);
    at.turned = matrix_turn(work->compute, scratch, from, stretch->rows, stretch->cols);
    each_part(&at, from, to, true, turn_part, work);
}

void stretch_apply(const struct compute *compute, const struct rule *rule,
                   const struct arrays *at, const struct step_scalars *scalars,
                   const struct stretch *stretch, unsigned want,
                   struct matrix_scratch *scratch, struct sums *ret)
{
    struct work work = work_of(compute, rule, scalars, stretch);
    struct arrays here = arrays_of_stretch(at, stretch);
    size_t from = stretch->from % SUM_LANES;

    work.want = want;
    if ((rule->flags & RULE_BLOCK) && scalars->lagging) {
        double q = stretch_measure(compute, rule, at, scalars, stretch);

        work.scalars.gate = gate_loss_gap(q * stretch->pieces, scalars);
        work.scalars.lagging = 0;
    }
    if (stretch->rows > 0)
        apply_matrix(&work, &here, stretch, scratch);
    else
        each_part(&here, from, from + (stretch->to - stretch->from), true, apply_part,
                  &work);
    *ret = work.sums;
    if (rule->flags & RULE_BLOCK)
        ret->gate_sum = (double)work.scalars.gate * (stretch->to - stretch->from);
}

/* What is done to the whole stretch: to a matrix, or to the rest. */
static void walk(struct work *work, const struct arrays *at,
                 const struct stretch *stretch, bool writes, part_fn *matrix,
                 part_fn *rest)
{
    struct arrays here = arrays_of_stretch(at, stretch);
    size_t from = stretch->from % SUM_LANES;

    each_part(&here, from, from + (stretch->to - stretch->from), writes,
              stretch->rows > 0 ? matrix : rest, work);
}

double stretch_measure(const struct compute *compute, const struct rule *rule,
                       const struct arrays *at, const struct step_scalars *scalars,
                       const struct stretch *stretch)
{
    struct work work = work_of(compute, rule, scalars, stretch);

    walk(&work, at, stretch, false, matrix_measure_part, measure_part);
    return work.sum;
}

void stretch_look_ahead(const struct compute *compute, const struct rule *rule,
                        const struct arrays *at, const struct step_scalars *scalars,
                        const struct stretch *stretch)
{
    struct work work = work_of(compute, rule, scalars, stretch);

    walk(&work, at, stretch, true, matrix_look_ahead_part, look_ahead_part);
}
