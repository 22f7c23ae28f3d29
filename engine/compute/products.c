/* Products of matrices: CBLAS's, where the library is built with one. */
#include "engine/compute/matrices.h"

#include <string.h>

#if GAPLESS_HAVE_BLAS
#include <cblas.h>
#endif

static number at_a(const struct product *p, size_t row, size_t i)
{
    return p->a_transposed ? p->a[i * p->rows + row] : p->a[row * p->inner + i];
}

/* One row of c += alpha a b, b as it lies: row by row of b, so that the inner loop is over
 * neighbours. */
static void add_rows(const struct product *p, size_t row, number *to)
{
    for (size_t i = 0; i < p->inner; i++) {
        number factor = p->alpha * at_a(p, row, i);
        const number *from = p->b + i * p->cols;

        for (size_t col = 0; col < p->cols; col++)
            to[col] += factor * from[col];
    }
}

/* The same, b transposed: each element is a sum over neighbours of a and b, or of b. */
static void add_sums(const struct product *p, size_t row, number *to)
{
    for (size_t col = 0; col < p->cols; col++) {
        const number *from = p->b + col * p->inner;
        number sum = 0;

        for (size_t i = 0; i < p->inner; i++)
            sum += at_a(p, row, i) * from[i];
        to[col] += p->alpha * sum;
    }
}

void products_plain(const struct product *p)
{
    for (size_t row = 0; row < p->rows; row++) {
        number *to = p->c + row * p->cols;

        if (p->beta > 0 || p->beta < 0)
            for (size_t col = 0; col < p->cols; col++)
                to[col] *= p->beta;
        else
            memset(to, 0, p->cols * sizeof *to);
        if (p->b_transposed)
            add_sums(p, row, to);
        else
            add_rows(p, row, to);
    }
}

#if GAPLESS_HAVE_BLAS

static blasint step_of(size_t rows, size_t cols, bool transposed)
{
    return (blasint)(transposed ? rows : cols);
}

static enum CBLAS_TRANSPOSE how(bool transposed)
{
    return transposed ? CblasTrans : CblasNoTrans;
}

#ifdef GAPLESS_REAL_DOUBLE
#define GEMM cblas_dgemm
#else
#define GEMM cblas_sgemm
#endif

void products_best(const struct product *p)
{
    GEMM(CblasRowMajor, how(p->a_transposed), how(p->b_transposed), (blasint)p->rows,
         (blasint)p->cols, (blasint)p->inner, p->alpha, p->a,
         step_of(p->rows, p->inner, p->a_transposed), p->b,
         step_of(p->inner, p->cols, p->b_transposed), p->beta, p->c, (blasint)p->cols);
}

const char *products_name(void)
{
    return "cblas";
}

#else

void products_best(const struct product *p)
{
    products_plain(p);
}

const char *products_name(void)
{
    return "plain";
}

#endif
