/* The other passes of a rule: the sum of a RULE_GLOBAL rule, the round of a synchronous
 * one, and what a momentum sends without an update. */
#include "gpu/measure.cuh"

#define KERNEL extern "C" __global__ void __launch_bounds__(THREADS)

/* ---- measure ------------------------------------------------------------- */

DEVICE_FN float gap_squared(const struct element *e)
{
    return gap(e) * gap(e);
}

/* Other rules have nothing to measure. */
KERNEL gapless_measure_nothing(const __grid_constant__ struct rule_work work)
{
    if (blockIdx.x == 0 && threadIdx.x == 0) {
        work.ret->value = 0.0;
        __threadfence_system();
    }
}

#define MEASURE(symbol, momentum)                                                      \
    KERNEL gapless_measure_##symbol##_sent(                                            \
        const __grid_constant__ struct rule_work work)                                 \
    {                                                                                  \
        measure_all<SLOT_THETA | SLOT_SENT, SUM_STEP, ahead_is_zero, gap_squared>(     \
            &work);                                                                    \
    }                                                                                  \
    IF_OWN_AHEAD(                                                                      \
        momentum, KERNEL gapless_measure_##symbol##_own(                               \
                      const __grid_constant__ struct rule_work work) {                 \
            measure_all<SLOT_THETA | SLOT_SENT | momentum##_ahead_reads, SUM_STEP,     \
                        ahead_of_##symbol, gap_squared>(&work);                        \
        })
#define MEASURE_WHOLE(symbol, correction)                                              \
    KERNEL gapless_measure_##symbol##_sent(                                            \
        const __grid_constant__ struct rule_work work)                                 \
    {                                                                                  \
        measure_all<rule_##symbol##_measure_reads, SUM_GAP, ahead_of_##symbol,         \
                    measure_##correction>(&work);                                      \
    }
#define RULE(symbol, name, correction, momentum, extra, source)                        \
    IF_VECTOR_GAP(correction, MEASURE(symbol, momentum))                               \
    IF_BLOCK_GAP(correction, MEASURE_WHOLE(symbol, correction))
#include "engine/rules/rules.def"
#undef RULE

/* ---- look-ahead ---------------------------------------------------------- */

template <unsigned READS, element_fn *SEND>
DEVICE_FN void send_all(const struct rule_work *work)
{
    size_t stretches = stretches_of(work->n);

#pragma unroll 1
    EACH_STRETCH(stretch, stretches)
    {
        struct group g = group_here(stretch, work->n, work->aligned);
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

#define RULE(symbol, name, correction, momentum, extra, source)                        \
    KERNEL gapless_send_##symbol(const __grid_constant__ struct rule_work work)        \
    {                                                                                  \
        send_all<rule_##symbol##_send_reads, send_##symbol>(&work);                    \
    }
#include "engine/rules/rules.def"
#undef RULE

/* ---- round --------------------------------------------------------------- */

DEVICE_FN struct group group_at(struct group g, const void *p)
{
    g.whole = reinterpret_cast<uintptr_t>(p) % sizeof(float4) == 0 && g.from == 0 &&
              g.to == EACH;
    return g;
}

/* The mean of the gradients, in the order given. */
DEVICE_FN float4 mean_of(const struct rule_work *work, struct group g)
{
    float4 sum = four_of(0.0f);

#pragma unroll 1
    for (uint32_t w = 0; w < work->workers; w++) {
        const float *grad = work->grad[w];
        float4 x = array_load(grad, group_at(g, grad));
        sum = w ? make_float4(sum.x + x.x, sum.y + x.y, sum.z + x.z, sum.w + x.w) : x;
    }
    return make_float4(work->share * sum.x, work->share * sum.y, work->share * sum.z,
                       work->share * sum.w);
}

template <unsigned READS, unsigned WRITES, unsigned SUMS, bool DECAYS,
          element_fn *CORRECT, element_fn *MOVE>
DEVICE_FN void round_all(const struct rule_work *work)
{
    size_t stretches = stretches_of(work->n);
    unsigned filled = 0;

#pragma unroll 1
    EACH_STRETCH(stretch, stretches)
    {
        struct group g = group_here(stretch, work->n, work->aligned);
        struct four x = four_zero();
        float4 gap_sq, step_sq, decay = four_of(0.0f);

        four_load(&work->at, g, READS & ~(unsigned)(SLOT_GRAD | SLOT_SENT), &x);
        x.grad = mean_of(work, g);
        if (SUMS)
            x.sent = array_load(work->sent[0], group_at(g, work->sent[0]));
        if (DECAYS)
            decay = four_decay(&work->at, g, &work->scalars);
        four_update<ahead_is_zero, CORRECT, MOVE>(&x, &work->scalars, 1.0f, decay,
                                                  &gap_sq, &step_sq);
        four_store(&work->at, g, WRITES & ~(unsigned)SLOT_SENT, &x);
#pragma unroll 1
        for (uint32_t w = 0; w < work->workers; w++)
            array_store(work->sent[w], group_at(g, work->sent[w]), x.sent);
        if (SUMS)
            tiles_add(&filled, SUM_GAP, &work->tally, 0, stretch, some_only(g, gap_sq));
    }
    if (SUMS)
        tiles_flush(filled, SUM_GAP, &work->tally);
    if (last_block(work->tally.ticket)) {
        double total = SUMS ? tally_total(&work->tally, 0) : 0.0;
        if (threadIdx.x == 0) {
            work->ret->sums.gap_sq = total;
            work->ret->sums.step_sq = 0.0;
            work->ret->sums.gate_sum = 0.0;
            __threadfence_system();
        }
    }
}

#define ROUND(symbol, correction, variant, sums)                                       \
    KERNEL gapless_round_##symbol##_##variant(                                         \
        const __grid_constant__ struct rule_work work)                                 \
    {                                                                                  \
        round_all<rule_##symbol##_reads, rule_##symbol##_writes, sums,                 \
                  (rule_##symbol##_flags & RULE_ADAM) != 0, correct_##correction,      \
                  move_##symbol>(&work);                                               \
    }
#define RULE(symbol, name, correction, momentum, extra, source)                        \
    IF_ROUND(extra, ROUND(symbol, correction, sent, 0)                                 \
                        ROUND(symbol, correction, sent_gap, SUM_GAP))
#include "engine/rules/rules.def"
#undef RULE

/* ---- launches ------------------------------------------------------------ */

/* Row by row of rules.def; NULL where there is none. */
#define RULE(symbol, name, correction, momentum, extra, source) gapless_send_##symbol,
static rule_kernel *const sends[] = {
#include "engine/rules/rules.def"
};
#undef RULE

#define MEASURES_OF(symbol, momentum)                                                  \
    gapless_measure_##symbol##_sent,                                                   \
        IF_OWN_AHEAD(momentum, gapless_measure_##symbol##_own)
#define RULE(symbol, name, correction, momentum, extra, source)                        \
    {IF_VECTOR_GAP(correction, MEASURES_OF(symbol, momentum))                          \
         IF_BLOCK_GAP(correction, gapless_measure_##symbol##_sent)},
static rule_kernel *const measures[][2] = {
#include "engine/rules/rules.def"
};
#undef RULE

#define RULE(symbol, name, correction, momentum, extra, source)                        \
    {IF_ROUND(extra, gapless_round_##symbol##_sent, gapless_round_##symbol##_sent_gap)},
static rule_kernel *const rounds[][2] = {
#include "engine/rules/rules.def"
};
#undef RULE

static struct rule_work work_of(const struct kernel_place *place,
                                const struct arrays *at,
                                const struct step_scalars *scalars, size_t n,
                                unsigned slots, struct device_result *ret)
{
    struct rule_work work;

    work.at = *at;
    work.scalars = *scalars;
    work.tally = tally_of(place, n);
    work.ret = ret;
    work.grad = NULL;
    work.sent = NULL;
    work.share = 0.0f;
    work.workers = 0;
    work.n = n;
    work.aligned = arrays_aligned(at, slots);
    return work;
}

cudaError_t kernel_measure(const struct kernel_place *place, const struct rule *rule,
                           const struct arrays *at, const struct step_scalars *scalars,
                           size_t n, struct device_result *ret)
{
    bool own = scalars->gap_ref != GAP_REF_SENT;
    struct rule_work work = work_of(place, at, scalars, n, rule->measure_reads, ret);
    rule_kernel *kernel = measures[rule->index][0];

    if (own && measures[rule->index][1]) {
        work.aligned = arrays_aligned(at, rule->measure_reads | rule->reads);
        kernel = measures[rule->index][1];
    }
    if (!kernel)
        kernel = gapless_measure_nothing;
    return GAPLESS_LAUNCH(kernel, grid_of(place, n), THREADS, place->stream, work);
}

cudaError_t kernel_look_ahead(const struct kernel_place *place, const struct rule *rule,
                              const struct arrays *at,
                              const struct step_scalars *scalars, size_t n)
{
    unsigned slots = SLOT_SENT | (rule->reads & ~(unsigned)SLOT_GRAD);
    struct rule_work work = work_of(place, at, scalars, n, slots, NULL);

    return GAPLESS_LAUNCH(sends[rule->index], grid_of(place, n), THREADS, place->stream,
                          work);
}

cudaError_t kernel_round(const struct kernel_place *place, const struct rule *rule,
                         const struct arrays *at, const struct step_scalars *scalars,
                         const float *const *grad, float *const *sent, uint32_t workers,
                         size_t n, unsigned want, struct device_result *ret)
{
    unsigned slots = (rule->reads | rule->writes) &
                     (SLOT_THETA | SLOT_ALL | SLOT_STAT | SLOT_SQUARE);
    rule_kernel *kernel = rounds[rule->index][(want & WANT_GAP) != 0];
    struct rule_work work;

    if (!kernel || !workers)
        return cudaErrorInvalidValue;
    work = work_of(place, at, scalars, n, slots, ret);
    work.grad = grad;
    work.sent = sent;
    work.share = (float)(1.0 / (double)workers);
    work.workers = workers;
    return GAPLESS_LAUNCH(kernel, grid_of(place, n), THREADS, place->stream, work);
}
