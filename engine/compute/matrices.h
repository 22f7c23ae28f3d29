/* Updates of rules that work on whole matrices (RULE_MATRIX: Muon), stretch by stretch of a
 * range.
 *
 *   range      |---- matrix ----|--|------ matrix ------|----|
 *   stretches          0         1           2            3       not at multiples of 16
 *
 *   of a matrix   gather: the momentum m, into scratch memory            one pass
 *                 X = NS(m), by products of matrices in scratch memory
 *                 turn: the step, what is sent                           one pass
 *   of the rest   compute->apply
 *
 * An update of a stretch is cut into steps, so that who walks it can look at other things in
 * between: gather, each of the 15 products, turn; one step of the rest.
 *
 * NS is Newton-Schulz's iteration towards the nearest matrix whose singular values are
 * alike (Jordan's Muon): X = m/(|m| + 1e-12), |m| the root of the sum of squares; 5 times
 * X = (a I + b A + c A^2) X with A = X X', or, of more rows than columns, A = X' X from the
 * right, which is the same of the transpose. 0 gives 0. Of r rows or columns, whichever are
 * fewer, and s of the other: 5 (4 r^2 s + 2 r^3) operations.
 *
 * Products are OpenBLAS's (or another CBLAS's) where the library is built with it
 * (GAPLESS_BLAS), else products_plain. The same machine, library and kernels give the same
 * bits; others do not: rounding of small singular values grows by up to 3.4445^5 = 485, and
 * what comes out agrees to 1e-4 of its norm. Everything else has the same bits everywhere.
 *
 * A stretch starts and ends anywhere: its chunks of 16 elements are worked on in place, and
 * those that it shares with a neighbour on copies. So several threads may each work on a
 * stretch of one range, each with scratch memory of its own. */
#ifndef GAPLESS_COMPUTE_MATRICES_H
#define GAPLESS_COMPUTE_MATRICES_H

#include "engine/compute/compute.h"
#include "engine/rules/element.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MATRIX_ITERATIONS = 5
};
/* a, b, c of the iteration, and what keeps 0 from being divided by 0 (Jordan's Muon). */
#define MATRIX_A 3.4445
#define MATRIX_B (-4.7750)
#define MATRIX_C 2.0315
#define MATRIX_LEAST 1e-12

/* What one update treats alike: a matrix, or another tensor or a piece of it. */
struct stretch {
    uint32_t from, to;   /* elements, from the start of the range */
    uint32_t rows, cols; /* of a matrix, row-major; else 0 */
    uint32_t pieces;     /* what its tensor was cut into: see struct blocks */
    bool decays;         /* AdamW's weight decay applies */
};

struct matrix_scratch;

/* Memory for matrices of at most this many elements, whose smaller number of rows or columns
 * is at most `side`. NULL: there is none. Sets OpenBLAS to one thread: callers have their
 * own. */
struct matrix_scratch *matrix_scratch_new(size_t elements, size_t side);
void matrix_scratch_free(struct matrix_scratch *scratch); /* NULL is a no-op */

/* `at` is of the range: theta, own and so on from its first element, which is at a multiple
 * of 16; `turned` is not used, and where decay applies says the stretch, not `decays`.
 * `scalars` are those of the whole range. */

/* What is done to the parts of a stretch. */
struct stretch_work {
    const struct compute *compute;
    const struct rule *rule;
    struct step_scalars scalars;
    unsigned want;
    struct sums sums;
    double sum;
};

/* NS under way, in scratch memory. */
struct matrix_walk {
    struct matrix_scratch *scratch;
    number *from, *to; /* X, and where the next one comes */
    uint32_t rows, cols;
    uint32_t product; /* that comes next */
};

/* One gradient in one stretch, under way: the fields are matrices.c's. `sums` holds what it
 * gave after the last step. */
struct stretch_walk {
    struct stretch_work work;
    struct arrays at;
    struct stretch stretch;
    struct matrix_walk turned;
    bool begun;
    struct sums sums;
};

/* One gradient: nothing is read or written before the first step. What `at` points to, and
 * `compute` and `rule`, stay where they are until the last one. */
void stretch_walk_begin(struct stretch_walk *walk, const struct compute *compute,
                        const struct rule *rule, const struct arrays *at,
                        const struct step_scalars *scalars,
                        const struct stretch *stretch, unsigned want);
/* The next step; true: it was the last one. `scratch` is the same at every step of a matrix,
 * and of nobody else meanwhile; of what is no matrix it is not looked at. With a gate for each
 * block (scalars->lagging) the first step measures. */
bool stretch_walk_step(struct stretch_walk *walk, struct matrix_scratch *scratch);
/* Does the next step write theta and sent? The last one does, and no other. */
bool stretch_walk_writes(const struct stretch_walk *walk);
/* Floating-point operations of the next step, about. */
double stretch_walk_cost(const struct stretch_walk *walk);
/* What a gate is made of: compute->measure. */
double stretch_measure(const struct compute *compute, const struct rule *rule,
                       const struct arrays *at, const struct step_scalars *scalars,
                       const struct stretch *stretch);
void stretch_look_ahead(const struct compute *compute, const struct rule *rule,
                        const struct arrays *at, const struct step_scalars *scalars,
                        const struct stretch *stretch);

/* The factor on NS(m) of a step: 0.2 sqrt(max(rows, cols)). */
static inline double matrix_spread(uint32_t rows, uint32_t cols)
{
    return 0.2 * sqrt((double)(rows > cols ? rows : cols));
}

/* Floating-point operations of NS. */
double matrix_work(uint32_t rows, uint32_t cols);
/* NS of x, which lies in rows * cols numbers at scratch_x, whose padding to whole chunks
 * before and behind is 0. Returns where the result lies, in scratch memory. */
number *matrix_turn(const struct compute *compute, struct matrix_scratch *scratch,
                    size_t phase, uint32_t rows, uint32_t cols);
/* Where x is put before matrix_turn: 64-byte aligned; x starts `phase` (0..15) behind. */
number *matrix_input(struct matrix_scratch *scratch);

/* c = alpha a b + beta c, row-major: a is rows x inner, or inner x rows and transposed; b
 * is inner x cols, or cols x inner and transposed. In a fixed order, without CBLAS. beta
 * 0: what c held does not matter. */
struct product {
    size_t rows, cols, inner;
    bool a_transposed, b_transposed;
    number alpha, beta;
    const number *a, *b;
    number *c;
};
void products_plain(const struct product *p);
/* The same by what the library was built with, and its name: "cblas", "plain". */
void products_best(const struct product *p);
const char *products_name(void);

#endif
