/* Rules of whole matrices on a GPU, stretch by stretch: kernels before and after
 * (compute_cuda_matrices.cu), products by cuBLAS. All of it is asked for on the device's
 * stream of passes, and nothing is waited for. engine/compute/matrices.c is the same on the
 * CPU.
 *
 *   measure ──> part[] ──> gate ──> gather ──> x ──> norm, x /= norm
 *                           │                        5 times: a = x x', b = (..a), y = b x
 *                           └─────> turn <── turned ─┘
 *
 * rows * cols is below 2^32 and both are 2 or more: each fits the int that cuBLAS has. */
#include "gpu/device_inside.h"
#include "gpu/matrices.h"
#include "gpu/products.h"

#include "engine/compute/matrices.h"

#include <stdlib.h>

struct gpu_matrices {
    struct device *device;
    struct gpu_products products;
    struct matrix_facts *facts;
    float *x, *y; /* the matrix, in turns; padded to whole chunks */
    float *a, *b; /* side x side */
    size_t elements, side;
};

/* ---- opening ------------------------------------------------------------- */

static int take_floats(struct gpu_matrices *m, size_t count, float **ret,
                       struct gapless_error *error)
{
    void *memory = NULL;
    int status = device_take(m->device, count * sizeof(float), &memory, error);

    if (status == GAPLESS_OK)
        *ret = (float *)memory;
    return status;
}

static int take_all(struct gpu_matrices *m, struct gapless_error *error)
{
    size_t padded = m->elements + 2 * (size_t)SUM_LANES;
    void *facts = NULL;
    int status = device_take(m->device, sizeof *m->facts, &facts, error);

    m->facts = (struct matrix_facts *)facts;
    if (status == GAPLESS_OK)
        status = take_floats(m, padded, &m->x, error);
    if (status == GAPLESS_OK)
        status = take_floats(m, padded, &m->y, error);
    if (status == GAPLESS_OK)
        status = take_floats(m, m->side * m->side, &m->a, error);
    return status == GAPLESS_OK ? take_floats(m, m->side * m->side, &m->b, error)
                                : status;
}

static void give(struct gpu_matrices *m, void *memory)
{
    if (memory != NULL)
        device_give(m->device, memory);
}

static void matrices_close(struct gpu_matrices *m)
{
    if (m == NULL)
        return;
    gpu_products_close(&m->products);
    give(m, m->facts);
    give(m, m->x);
    give(m, m->y);
    give(m, m->a);
    give(m, m->b);
    free(m);
}

static int matrices_open(struct device *device, size_t elements, size_t side,
                         struct gpu_matrices **ret, struct gapless_error *error)
{
    struct gpu_matrices *m = (struct gpu_matrices *)calloc(1, sizeof *m);
    int status;

    if (m == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for a table of matrices");
    m->device = device;
    m->elements = elements;
    m->side = side > 0 ? side : 1;
    status = gpu_products_open(device, &m->products, error);
    if (status == GAPLESS_OK)
        status = take_all(m, error);
    if (status != GAPLESS_OK) {
        matrices_close(m);
        return status;
    }
    *ret = m;
    return GAPLESS_OK;
}

static int matrices_ready(struct gapless_error *error)
{
    const struct cublas *cublas = NULL;

    return cublas_find(&cublas, error);
}

/* ---- Newton-Schulz ------------------------------------------------------- */

static bool checked(struct gpu_matrices *m, cudaError_t code, const char *kernel)
{
    return device_check(m->device, code, kernel);
}

/* Of row-major matrices: to cuBLAS they are transposed, and so is the product, whose
 * factors change places. */
static bool multiply(struct gpu_matrices *m, const struct product *p)
{
    struct gpu_product it = {};

    it.op_a = p->b_transposed ? CUBLAS_TRANSPOSED : CUBLAS_AS_IT_IS;
    it.op_b = p->a_transposed ? CUBLAS_TRANSPOSED : CUBLAS_AS_IT_IS;
    it.rows = (int)p->cols;
    it.columns = (int)p->rows;
    it.inner = (int)p->inner;
    it.alpha = p->alpha;
    it.beta = p->beta;
    it.a = p->b;
    it.a_step = (int)(p->b_transposed ? p->inner : p->cols);
    it.b = p->a;
    it.b_step = (int)(p->a_transposed ? p->rows : p->inner);
    it.c = p->c;
    return gpu_multiply(&m->products, &it);
}

/* One iteration: y = (a I + b A + c A^2) x, or x times that. */
static bool iterate(struct gpu_matrices *m, const float *x, float *y, size_t rows,
                    size_t cols)
{
    bool tall = rows > cols;
    size_t side = tall ? cols : rows, other = tall ? rows : cols;
    const struct product square = {side, side, other, tall, !tall,
                                   1.0f, 0.0f, x,     x,    m->a};
    const struct product mixed = {
        side, side, side, false, false, (float)MATRIX_C, (float)MATRIX_B,
        m->a, m->a, m->b};
    const struct product turned = {
        rows, cols, side, false, false, 1.0f, 0.0f, tall ? x : m->b, tall ? m->b : x,
        y};

    if (!multiply(m, &square))
        return false;
    device_copy(m->device, m->b, m->a, side * side * sizeof(float));
    return multiply(m, &mixed) &&
           checked(m, matrix_diagonal(&m->device->place, m->b, side),
                   "matrix_diagonal") &&
           multiply(m, &turned);
}

/* Of the matrix in m->x, which starts `phase` behind; where the result lies. */
static float *turn(struct gpu_matrices *m, size_t phase, size_t rows, size_t cols)
{
    const struct kernel_place *place = &m->device->place;
    size_t padded = (phase + rows * cols + SUM_LANES - 1) / SUM_LANES * SUM_LANES;
    float *from = m->x, *to = m->y;

    if (!checked(m, kernel_norm_sq(place, m->x, padded, &m->facts->norm), "norm_sq") ||
        !checked(m, matrix_normalise(place, m->x, padded, m->facts),
                 "matrix_normalise"))
        return NULL;
    for (int i = 0; i < MATRIX_ITERATIONS; i++) {
        float *was = from;

        if (!iterate(m, from + phase, to + phase, rows, cols))
            return NULL;
        from = to;
        to = was;
    }
    return from;
}

/* ---- stretches ----------------------------------------------------------- */

template <class T> static T *from_element(T *vector, size_t n)
{
    return vector == NULL ? NULL : vector + n;
}

static struct arrays arrays_from(const struct arrays *at, size_t n)
{
    struct arrays ret = {};

    ret.theta = from_element(at->theta, n);
    ret.own = from_element(at->own, n);
    ret.all = from_element(at->all, n);
    ret.stat = from_element(at->stat, n);
    ret.sent = from_element(at->sent, n);
    ret.grad = from_element(at->grad, n);
    ret.square = from_element(at->square, n);
    ret.mean = from_element(at->mean, n);
    return ret; /* where decay applies says the stretch */
}

static struct step_scalars scalars_of(const struct step_scalars *scalars,
                                      const struct stretch *s)
{
    struct step_scalars ret = *scalars;

    if (!s->decays)
        ret.decay = 0.0f;
    ret.spread = (float)matrix_spread(s->rows, s->cols);
    return ret;
}

/* A stretch, and what the passes over it share. */
struct at_stretch {
    struct arrays at; /* from the chunk in which it begins */
    struct step_scalars scalars;
    size_t begin, end; /* from there */
};

static struct at_stretch located(const struct arrays *at,
                                 const struct step_scalars *scalars,
                                 const struct stretch *s)
{
    size_t begin = s->from % SUM_LANES;
    struct at_stretch ret = {arrays_from(at, s->from - begin), scalars_of(scalars, s),
                             begin, begin + (s->to - s->from)};
    return ret;
}

/* Measures elements from .. to - 1 as part `part`, if there are any. */
static bool measure_part(struct gpu_matrices *m, const struct rule *rule,
                         const struct at_stretch *it, bool matrix, size_t from,
                         size_t to, unsigned *part)
{
    const struct kernel_place *place = &m->device->place;
    struct device_result *ret = &m->facts->part[*part];
    struct arrays at = arrays_from(&it->at, from);

    if (from >= to)
        return true;
    (*part)++;
    return checked(m,
                   matrix
                       ? matrix_measure(place, rule, &at, &it->scalars, to - from, ret)
                       : kernel_measure(place, rule, &at, &it->scalars, to - from, ret),
                   "measure");
}

/* In the parts of the CPU: the rest of the first chunk, whole chunks, the start of the
 * last. */
static bool measure(struct gpu_matrices *m, const struct rule *rule,
                    const struct at_stretch *it, bool matrix, unsigned *ret_parts)
{
    size_t lanes = SUM_LANES, edge = 0, whole;

    if (it->begin > 0)
        edge = it->end < lanes ? it->end : lanes;
    whole = it->end / lanes * lanes;
    if (whole < edge)
        whole = edge;
    *ret_parts = 0;
    return measure_part(m, rule, it, matrix, it->begin, edge, ret_parts) &&
           measure_part(m, rule, it, matrix, edge, whole, ret_parts) &&
           measure_part(m, rule, it, matrix, whole, it->end, ret_parts);
}

static bool pass(struct gpu_matrices *m, const struct rule *rule, enum matrix_step step,
                 const struct at_stretch *it)
{
    return checked(m,
                   matrix_pass(&m->device->place, rule, step, &it->at, &it->scalars,
                               m->facts, it->begin, it->end),
                   "matrix_pass");
}

static bool apply_matrix(struct gpu_matrices *m, const struct rule *rule,
                         struct at_stretch *it, const struct stretch *s)
{
    size_t bytes = SUM_LANES * sizeof(float);

    device_zero(m->device, m->x, bytes);
    device_zero(m->device, m->x + it->end / SUM_LANES * SUM_LANES, bytes);
    it->at.turned = m->x;
    if (!pass(m, rule, MATRIX_GATHER, it))
        return false;
    it->at.turned = turn(m, it->begin, s->rows, s->cols);
    return it->at.turned != NULL && pass(m, rule, MATRIX_TURN, it);
}

/* ---- ranges -------------------------------------------------------------- */

static bool ready(struct gpu_matrices *m, const struct stretch *stretches,
                  uint32_t count, uint32_t place)
{
    struct device *device = m->device;

    if (!device_enter(device))
        return false;
    for (uint32_t i = 0; i < count; i++) {
        const struct stretch *s = &stretches[i];
        size_t side = s->rows < s->cols ? s->rows : s->cols;

        if (s->to > device->elements_max || s->from > s->to ||
            place >= DEVICE_RESULTS || side > m->side ||
            (size_t)s->rows * s->cols > m->elements ||
            (s->rows > 0 && (size_t)s->rows * s->cols != s->to - s->from)) {
            (void)device_break(device, GAPLESS_INVALID,
                               "a matrix of %u x %u, or a place %u, that it was not "
                               "opened for",
                               s->rows, s->cols, place);
            return false;
        }
    }
    return true;
}

static void matrices_apply(struct gpu_matrices *m, const struct rule *rule,
                           const struct device_pass *pass_of,
                           const struct stretch *stretches, uint32_t count, size_t n,
                           uint32_t place)
{
    struct device *device = m->device;
    struct device_result *ret = device->results_there + place;
    bool gated = (rule->flags & RULE_BLOCK) != 0, good;
    bool gap = (pass_of->want & WANT_GAP) != 0;

    good = ready(m, stretches, count, place);
    if (good && gap)
        good = checked(
            m, matrix_gap(&device->place, pass_of->at.theta, pass_of->at.sent, n, ret),
            "gap");
    for (uint32_t i = 0; good && i < count; i++) {
        const struct stretch *s = &stretches[i];
        struct at_stretch it = located(&pass_of->at, &pass_of->scalars, s);
        struct matrix_gate gate = {
            it.scalars, (double)s->pieces, (double)(s->to - s->from), 0, i == 0, gated,
            gap};
        float *shown = i < device->gates_max
                           ? device->gates_there + (size_t)place * device->gates_max + i
                           : NULL;

        if (gated && it.scalars.lagging)
            good = measure(m, rule, &it, s->rows > 0, &gate.parts);
        good = good &&
               checked(m, matrix_decide(&device->place, &gate, m->facts, ret, shown),
                       "matrix_decide") &&
               (s->rows > 0 ? apply_matrix(m, rule, &it, s)
                            : pass(m, rule, MATRIX_REST, &it));
    }
}

static void matrices_measure(struct gpu_matrices *m, const struct rule *rule,
                             const struct arrays *at,
                             const struct step_scalars *scalars,
                             const struct stretch *stretches, uint32_t count,
                             uint32_t place)
{
    bool good = ready(m, stretches, count, place);

    for (uint32_t i = 0; good && i < count; i++) {
        struct at_stretch it = located(at, scalars, &stretches[i]);
        struct matrix_gate gate = {};

        gate.first = i == 0;
        good = measure(m, rule, &it, stretches[i].rows > 0, &gate.parts) &&
               checked(m,
                       matrix_sum(&m->device->place, &gate, m->facts,
                                  m->device->results_there + place),
                       "matrix_sum");
    }
}

static void matrices_look_ahead(struct gpu_matrices *m, const struct rule *rule,
                                const struct arrays *at,
                                const struct step_scalars *scalars,
                                const struct stretch *stretches, uint32_t count)
{
    bool good = ready(m, stretches, count, 0);

    for (uint32_t i = 0; good && i < count; i++) {
        struct at_stretch it = located(at, scalars, &stretches[i]);
        struct arrays here = arrays_from(&it.at, it.begin);

        good = stretches[i].rows > 0
                   ? pass(m, rule, MATRIX_SEND, &it)
                   : checked(m,
                             kernel_look_ahead(&m->device->place, rule, &here,
                                               &it.scalars, it.end - it.begin),
                             "look_ahead");
    }
}

const struct gpu_matrix_ops gpu_matrices_cublas = {
    matrices_ready, matrices_open,    matrices_close,
    matrices_apply, matrices_measure, matrices_look_ahead,
};
