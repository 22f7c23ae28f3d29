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

/* A pass takes as long as this many operations of products an element: it waits for memory,
 * of which it moves some 40 bytes. (This project: 1.6 ms and 333 ms of 1,024 x 1,024.) */
#define PASS_COST 150.0

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

enum {
    PRODUCTS = 3 /* of one iteration, y = (a I + b A + c A^2) x, or x times that */
};

/* Product `which` of an iteration. */
static struct product product_of(const struct matrix_walk *w, uint32_t which)
{
    const struct matrix_scratch *s = w->scratch;
    bool tall = w->rows > w->cols;
    size_t side = tall ? w->cols : w->rows, other = tall ? w->rows : w->cols;

    if (which == 0)
        return (struct product){.rows = side,
                                .cols = side,
                                .inner = other,
                                .a_transposed = tall,
                                .b_transposed = !tall,
                                .alpha = 1,
                                .a = w->from,
                                .b = w->from,
                                .c = s->a};
    if (which == 1)
        return (struct product){.rows = side,
                                .cols = side,
                                .inner = side,
                                .alpha = (number)MATRIX_C,
                                .beta = (number)MATRIX_B,
                                .a = s->a,
                                .b = s->a,
                                .c = s->b};
    return (struct product){.rows = w->rows,
                            .cols = w->cols,
                            .inner = side,
                            .alpha = 1,
                            .a = tall ? w->from : s->b,
                            .b = tall ? s->b : w->from,
                            .c = w->to};
}

static void turn_begin(struct matrix_walk *w, const struct compute *compute,
                       struct matrix_scratch *scratch, size_t phase, uint32_t rows,
                       uint32_t cols)
{
    size_t elements = (size_t)rows * cols;
    size_t padded = (phase + elements + SUM_LANES - 1) / SUM_LANES * SUM_LANES;
    double norm = sqrt(compute->norm_sq(scratch->x, padded));

    compute->scale(scratch->x, (number)(1.0 / (norm + MATRIX_LEAST)), padded);
    *w = (struct matrix_walk){.scratch = scratch,
                              .from = scratch->x + phase,
                              .to = scratch->y + phase,
                              .rows = rows,
                              .cols = cols};
}

static bool turn_done(const struct matrix_walk *w)
{
    return w->product == PRODUCTS * MATRIX_ITERATIONS;
}

/* The next product. */
static void turn_step(struct matrix_walk *w)
{
    const struct product p = product_of(w, w->product % PRODUCTS);
    number *was = w->from;

    products_best(&p);
    if (w->product % PRODUCTS == 0) {
        memcpy(w->scratch->b, p.c, p.rows * p.cols * sizeof *p.c);
    } else if (w->product % PRODUCTS == 1) {
        for (size_t i = 0; i < p.rows; i++)
            p.c[i * p.rows + i] += (number)MATRIX_A;
    } else {
        w->from = w->to;
        w->to = was;
    }
    w->product++;
}

number *matrix_turn(const struct compute *compute, struct matrix_scratch *scratch,
                    size_t phase, uint32_t rows, uint32_t cols)
{
    struct matrix_walk w;

    turn_begin(&w, compute, scratch, phase, rows, cols);
    while (!turn_done(&w))
        turn_step(&w);
    return w.from - phase;
}

/* ---- parts of a stretch -------------------------------------------------- */

/* What is done with each part: whole chunks in place, or copies of one. */
typedef void part_fn(struct stretch_work *work, const struct arrays *at, size_t n);

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
                 part_fn *part, struct stretch_work *work)
{
    struct chunk_copy copy;
    struct arrays copies = chunk_take(&copy, at, from, to, from);

    part(work, &copies, SUM_LANES);
    if (store)
        chunk_put(&copy, at, from, to, from);
}

/* Elements from .. to - 1. */
static void each_part(const struct arrays *at, size_t from, size_t to, bool store,
                      part_fn *part, struct stretch_work *work)
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

static void apply_part(struct stretch_work *w, const struct arrays *at, size_t n)
{
    struct sums sums;

    w->compute->apply(w->rule, at, &w->scalars, NULL, n, w->want, &sums);
    add_sums(&w->sums, &sums);
}

static void gather_part(struct stretch_work *w, const struct arrays *at, size_t n)
{
    w->compute->gather(w->rule, at, &w->scalars, n);
}

static void turn_part(struct stretch_work *w, const struct arrays *at, size_t n)
{
    struct sums sums;

    w->compute->turn(w->rule, at, &w->scalars, n, w->want, &sums);
    add_sums(&w->sums, &sums);
}

static void measure_part(struct stretch_work *w, const struct arrays *at, size_t n)
{
    w->sum += w->compute->measure(w->rule, at, &w->scalars, n);
}

static void matrix_measure_part(struct stretch_work *w, const struct arrays *at,
                                size_t n)
{
    w->sum += w->compute->matrix_measure(w->rule, at, &w->scalars, n);
}

static void look_ahead_part(struct stretch_work *w, const struct arrays *at, size_t n)
{
    w->compute->look_ahead(w->rule, at, &w->scalars, n);
}

static void matrix_look_ahead_part(struct stretch_work *w, const struct arrays *at,
                                   size_t n)
{
    w->compute->matrix_look_ahead(w->rule, at, &w->scalars, n);
}

/* ---- a stretch ----------------------------------------------------------- */

static struct stretch_work work_of(const struct compute *compute,
                                   const struct rule *rule,
                                   const struct step_scalars *scalars,
                                   const struct stretch *stretch)
{
    struct stretch_work ret = {.compute = compute, .rule = rule, .scalars = *scalars};

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

void stretch_walk_begin(struct stretch_walk *walk, const struct compute *compute,
                        const struct rule *rule, const struct arrays *at,
                        const struct step_scalars *scalars,
                        const struct stretch *stretch, unsigned want)
{
    *walk = (struct stretch_walk){.work = work_of(compute, rule, scalars, stretch),
                                  .at = *at,
                                  .stretch = *stretch};
    walk->work.want = want;
}

/* The gate of this stretch alone. */
static void measure_gate(struct stretch_walk *walk)
{
    struct stretch_work *work = &walk->work;

    if ((work->rule->flags & RULE_BLOCK) && work->scalars.lagging) {
        double q = stretch_measure(work->compute, work->rule, &walk->at, &work->scalars,
                                   &walk->stretch);

        work->scalars.gate = gate_loss_gap(q * walk->stretch.pieces, &work->scalars);
        work->scalars.lagging = 0;
    }
}

/* Of a matrix, before the products. */
static void gather(struct stretch_walk *walk, struct matrix_scratch *scratch)
{
    const struct stretch *stretch = &walk->stretch;
    size_t from = stretch->from % SUM_LANES;
    size_t to = from + (stretch->to - stretch->from);
    struct arrays at = arrays_of_stretch(&walk->at, stretch);

    at.turned = matrix_input(scratch);
    memset(at.turned, 0, SUM_LANES * sizeof(number));
    memset(at.turned + to / SUM_LANES * SUM_LANES, 0, SUM_LANES * sizeof(number));
    each_part(&at, from, to, true, gather_part, &walk->work);
    turn_begin(&walk->turned, walk->work.compute, scratch, from, stretch->rows,
               stretch->cols);
}

/* The passes that write theta and sent. */
static void last_step(struct stretch_walk *walk)
{
    const struct stretch *stretch = &walk->stretch;
    struct stretch_work *work = &walk->work;
    size_t from = stretch->from % SUM_LANES;
    struct arrays at = arrays_of_stretch(&walk->at, stretch);

    if (stretch->rows > 0)
        at.turned = walk->turned.from - from;
    each_part(&at, from, from + (stretch->to - stretch->from), true,
              stretch->rows > 0 ? turn_part : apply_part, work);
    walk->sums = work->sums;
    if (work->rule->flags & RULE_BLOCK)
        walk->sums.gate_sum =
            (double)work->scalars.gate * (stretch->to - stretch->from);
}

bool stretch_walk_writes(const struct stretch_walk *walk)
{
    return walk->stretch.rows == 0 || (walk->begun && turn_done(&walk->turned));
}

bool stretch_walk_step(struct stretch_walk *walk, struct matrix_scratch *scratch)
{
    bool last = stretch_walk_writes(walk);

    if (!walk->begun)
        measure_gate(walk);
    if (last)
        last_step(walk);
    else if (!walk->begun)
        gather(walk, scratch);
    else
        turn_step(&walk->turned);
    walk->begun = true;
    return last;
}

double stretch_walk_cost(const struct stretch_walk *walk)
{
    const struct stretch *stretch = &walk->stretch;
    struct product p;

    if (!walk->begun || stretch_walk_writes(walk))
        return PASS_COST * (double)(stretch->to - stretch->from);
    p = product_of(&walk->turned, walk->turned.product % PRODUCTS);
    return 2.0 * (double)p.rows * (double)p.cols * (double)p.inner;
}

/* What is done to the whole stretch: to a matrix, or to the rest. */
static void walk(struct stretch_work *work, const struct arrays *at,
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
    struct stretch_work work = work_of(compute, rule, scalars, stretch);

    walk(&work, at, stretch, false, matrix_measure_part, measure_part);
    return work.sum;
}

void stretch_look_ahead(const struct compute *compute, const struct rule *rule,
                        const struct arrays *at, const struct step_scalars *scalars,
                        const struct stretch *stretch)
{
    struct stretch_work work = work_of(compute, rule, scalars, stretch);

    walk(&work, at, stretch, true, matrix_look_ahead_part, look_ahead_part);
}
