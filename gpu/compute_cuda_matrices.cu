/* The passes of a RULE_MATRIX rule over one stretch of a range: a matrix before and after
 * its products, or a tensor that is none. engine/compute/matrices.h says what is done; the
 * order of every sum is the CPU's.
 *
 *   |0 .. begin - 1| begin .. end - 1 |     `at`: from the chunk of 16 in which it begins
 *     a neighbour's   the stretch
 *
 * Gates stay on the GPU: the kernels of a stretch read the one that gapless_matrix_gate
 * wrote, on the same stream. */
#include "gpu/matrices.h"
#include "gpu/measure.cuh"
#include "gpu/parts.cuh"

#define KERNEL extern "C" __global__ void __launch_bounds__(THREADS)

/* One launch over the elements of a stretch. */
struct matrix_work {
    struct arrays at;
    struct step_scalars scalars;
    const float *gate;
    size_t begin, end;
    bool aligned;
};
typedef void matrix_kernel(const struct matrix_work work);

/* One launch over what was measured. */
struct gate_work {
    struct matrix_gate gate;
    struct matrix_facts *facts;
    struct device_result *ret;
    float *shown;
};

template <unsigned READS, unsigned WRITES, bool DECAYS, element_fn *MOVE>
DEVICE_FN void matrix_update(const struct matrix_work *work)
{
    float gate = *work->gate;

#pragma unroll 1
    EACH_STRETCH(stretch, stretches_of(work->end))
    {
        struct group g = group_of(stretch * SUM_STRETCH_ELEMENTS + EACH * threadIdx.x,
                                  work->begin, work->end, work->aligned);
        float4 decay = four_of(DECAYS ? work->scalars.decay : 0.0f);
        struct four x = four_zero();
        float4 gap_sq, step_sq; /* of no use here */

        four_load(&work->at, g, READS, &x);
        four_update<ahead_is_zero, correct_loss_gap, MOVE>(&x, &work->scalars, gate,
                                                           decay, &gap_sq, &step_sq);
        four_store(&work->at, g, WRITES, &x);
    }
}

template <unsigned READS, element_fn *SEND>
DEVICE_FN void matrix_send(const struct matrix_work *work)
{
#pragma unroll 1
    EACH_STRETCH(stretch, stretches_of(work->end))
    {
        struct group g = group_of(stretch * SUM_STRETCH_ELEMENTS + EACH * threadIdx.x,
                                  work->begin, work->end, work->aligned);
        struct four x = four_zero();

        four_load(&work->at, g, READS, &x);
#define ELEMENT(c)                                                                     \
    do {                                                                               \
        struct element e = FOUR_ELEMENT(x, c, 0.0f);                                   \
        SEND(&e, &work->scalars);                                                      \
        x.sent.c = e.sent;                                                             \
    } while (0)
        FOUR_EACH(ELEMENT);
#undef ELEMENT
        four_store(&work->at, g, SLOT_SENT, &x);
    }
}

/* The kernels of one momentum: of what is no matrix, of a matrix before the products and
 * after them, and of a matrix the look-ahead and the measure. */
#define MATRIX_MOMENTUM(momentum)                                                      \
    KERNEL gapless_matrix_rest_##momentum(                                             \
        const __grid_constant__ struct matrix_work work)                               \
    {                                                                                  \
        matrix_update<momentum##_reads, momentum##_writes, true, momentum_##momentum>( \
            &work);                                                                    \
    }                                                                                  \
    KERNEL gapless_matrix_gather_##momentum(                                           \
        const __grid_constant__ struct matrix_work work)                               \
    {                                                                                  \
        matrix_update<momentum##_gather_reads, momentum##_gather_writes, false,        \
                      gather_##momentum>(&work);                                       \
    }                                                                                  \
    KERNEL gapless_matrix_turn_##momentum(                                             \
        const __grid_constant__ struct matrix_work work)                               \
    {                                                                                  \
        matrix_update<momentum##_turn_reads, momentum##_turn_writes, true,             \
                      turn_##momentum>(&work);                                         \
    }                                                                                  \
    KERNEL gapless_matrix_send_##momentum(                                             \
        const __grid_constant__ struct matrix_work work)                               \
    {                                                                                  \
        matrix_send<SLOT_THETA | (momentum##_turn_reads & SLOT_ALL),                   \
                    send_matrix_##momentum>(&work);                                    \
    }                                                                                  \
    KERNEL gapless_matrix_measure_##momentum(                                          \
        const __grid_constant__ struct rule_work work)                                 \
    {                                                                                  \
        measure_all<SLOT_THETA | SLOT_GRAD | SLOT_SENT |                               \
                        (momentum##_turn_reads & SLOT_OWN),                            \
                    SUM_GAP, ahead_matrix_##momentum, measure_loss_gap>(&work);        \
    }
#include "engine/rules/matrix_momenta.def"
#undef MATRIX_MOMENTUM

/* What was measured of a stretch: of its parts in order. */
DEVICE_FN double parts_sum(const struct gate_work *work)
{
    double sum = 0.0;

    for (unsigned i = 0; i < work->gate.parts; i++)
        sum += work->facts->part[i].value;
    return sum;
}

/* One thread. The gate of a stretch, and the sum of the gates so far. */
KERNEL gapless_matrix_gate(const __grid_constant__ struct gate_work work)
{
    struct matrix_facts *facts = work.facts;
    float gate = work.gate.scalars.gate;

    if (work.gate.parts > 0)
        gate = gate_loss_gap(parts_sum(&work) * work.gate.pieces, &work.gate.scalars);
    if (work.gate.first)
        facts->sum = 0.0;
    facts->gate = gate;
    facts->sum += (double)gate * work.gate.elements;
    if (work.shown)
        *work.shown = gate;
    if (work.gate.first && !work.gate.gap)
        work.ret->sums.gap_sq = 0.0;
    work.ret->sums.step_sq = 0.0;
    work.ret->sums.gate_sum = work.gate.gated ? facts->sum : 0.0;
    __threadfence_system();
}

/* One thread. What was measured of the stretches so far. */
KERNEL gapless_matrix_sum(const __grid_constant__ struct gate_work work)
{
    if (work.gate.first)
        work.facts->sum = 0.0;
    work.facts->sum += parts_sum(&work);
    work.ret->value = work.facts->sum;
    __threadfence_system();
}

/* x /= its norm, whose square is in `facts`. */
KERNEL gapless_matrix_normalise(const __grid_constant__ struct matrix_work work,
                                const struct matrix_facts *facts)
{
    float factor = (float)(1.0 / (sqrt(facts->norm.value) + MATRIX_LEAST));

#pragma unroll 1
    EACH_STRETCH(stretch, stretches_of(work.end))
    {
        struct group g = group_here(stretch, work.end, work.aligned);
        float4 x = array_load(work.at.turned, g);
        array_store(
            work.at.turned, g,
            make_float4(x.x * factor, x.y * factor, x.z * factor, x.w * factor));
    }
}

/* b += MATRIX_A on the diagonal. */
KERNEL gapless_matrix_diagonal(float *b, size_t side)
{
    for (size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x; i < side;
         i += (size_t)gridDim.x * THREADS)
        b[i * side + i] += (float)MATRIX_A;
}

/* ---- launches ------------------------------------------------------------ */

/* By rule, and enum matrix_step; of rules without matrices all are NULL. */
static matrix_kernel *const kernels[][4] = {
#define RULE(symbol, name, correction, momentum, extra, source)                        \
    {IF_MATRIX_##momentum(                                                             \
        gapless_matrix_rest_##momentum, gapless_matrix_gather_##momentum,              \
        gapless_matrix_turn_##momentum, gapless_matrix_send_##momentum)},
#include "engine/rules/rules.def"
#undef RULE
};
static rule_kernel *const measures[][1] = {
#define RULE(symbol, name, correction, momentum, extra, source)                        \
    {IF_MATRIX_##momentum(gapless_matrix_measure_##momentum)},
#include "engine/rules/rules.def"
#undef RULE
};

static const unsigned every_slot = SLOT_THETA | SLOT_OWN | SLOT_ALL | SLOT_SENT |
                                   SLOT_GRAD | SLOT_SQUARE | SLOT_MEAN | SLOT_TURNED;

cudaError_t matrix_pass(const struct kernel_place *place, const struct rule *rule,
                        enum matrix_step step, const struct arrays *at,
                        const struct step_scalars *scalars,
                        const struct matrix_facts *facts, size_t begin, size_t end)
{
    struct matrix_work work;

    work.at = *at;
    work.scalars = *scalars;
    work.gate = &facts->gate;
    work.begin = begin;
    work.end = end;
    work.aligned = arrays_aligned(at, every_slot);
    return GAPLESS_LAUNCH(kernels[rule->index][step], grid_of(place, end), THREADS,
                          place->stream, work);
}

cudaError_t matrix_measure(const struct kernel_place *place, const struct rule *rule,
                           const struct arrays *at, const struct step_scalars *scalars,
                           size_t n, struct device_result *ret)
{
    struct rule_work work = {};

    work.at = *at;
    work.scalars = *scalars;
    work.tally = tally_of(place, n);
    work.ret = ret;
    work.n = n;
    work.aligned = arrays_aligned(at, every_slot);
    return GAPLESS_LAUNCH(measures[rule->index][0], grid_of(place, n), THREADS,
                          place->stream, work);
}

cudaError_t matrix_decide(const struct kernel_place *place,
                          const struct matrix_gate *gate, struct matrix_facts *facts,
                          struct device_result *ret, float *shown)
{
    struct gate_work work = {*gate, facts, ret, shown};

    return GAPLESS_LAUNCH(gapless_matrix_gate, 1, 1, place->stream, work);
}

cudaError_t matrix_sum(const struct kernel_place *place, const struct matrix_gate *gate,
                       struct matrix_facts *facts, struct device_result *ret)
{
    struct gate_work work = {*gate, facts, ret, NULL};

    return GAPLESS_LAUNCH(gapless_matrix_sum, 1, 1, place->stream, work);
}

cudaError_t matrix_normalise(const struct kernel_place *place, float *x, size_t n,
                             const struct matrix_facts *facts)
{
    struct matrix_work work = {};

    work.at.turned = x;
    work.end = n;
    work.aligned = aligned(x);
    return GAPLESS_LAUNCH(gapless_matrix_normalise, grid_of(place, n), THREADS,
                          place->stream, work, facts);
}

cudaError_t matrix_diagonal(const struct kernel_place *place, float *b, size_t side)
{
    return GAPLESS_LAUNCH(gapless_matrix_diagonal, grid_of(place, 4 * side), THREADS,
                          place->stream, b, side);
}

cudaError_t matrix_gap(const struct kernel_place *place, const float *theta,
                       const float *sent, size_t n, struct device_result *ret)
{
    return gap_alone(place, theta, sent, n, ret);
}
