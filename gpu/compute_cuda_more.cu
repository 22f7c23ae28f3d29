/* The passes that no rule has a part in: norms, weight decay, who comes and goes. */
#include "gpu/grid.cuh"
#include "gpu/parts.cuh"

#define KERNEL extern "C" __global__ void __launch_bounds__(THREADS)

/* One launch. */
struct more_work {
    float *a;       /* changed, or not */
    float *b;       /* changed, or not */
    const float *c; /* never changed */
    float factor, share;
    struct tally tally;
    unsigned *flaw;
    struct device_result *ret;
    size_t n;
    bool aligned;
};

DEVICE_FN float4 plus(float4 a, float4 b)
{
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

DEVICE_FN float4 minus(float4 a, float4 b)
{
    return make_float4(a.x - b.x, a.y - b.y, a.z - b.z, a.w - b.w);
}

DEVICE_FN float4 times(float a, float4 b)
{
    return make_float4(a * b.x, a * b.y, a * b.z, a * b.w);
}

DEVICE_FN float4 squares(float4 a)
{
    return make_float4(a.x * a.x, a.y * a.y, a.z * a.z, a.w * a.w);
}

/* The total, for thread 0 of the last block; elsewhere false. */
DEVICE_FN bool total_here(const struct more_work *work, double *ret)
{
    if (!last_block(work->tally.ticket))
        return false;
    *ret = tally_total(&work->tally, 0);
    return threadIdx.x == 0;
}

DEVICE_FN void value_of_total(const struct more_work *work)
{
    double total;

    if (total_here(work, &total)) {
        work->ret->value = total;
        __threadfence_system();
    }
}

/* a: theta, c: sent */
KERNEL gapless_gap(const __grid_constant__ struct more_work work)
{
    unsigned filled = 0;
    double total;

#pragma unroll 1
    EACH_STRETCH(stretch, stretches_of(work.n))
    {
        struct group g = group_here(stretch, work.n, work.aligned);
        float4 moved = minus(array_load(work.a, g), array_load(work.c, g));
        tiles_add(&filled, SUM_GAP, &work.tally, 0, stretch, squares(moved));
    }
    tiles_flush(filled, SUM_GAP, &work.tally);
    if (total_here(&work, &total)) {
        work.ret->sums.gap_sq = total;
        __threadfence_system();
    }
}

KERNEL gapless_norm_sq(const __grid_constant__ struct more_work work)
{
    unsigned filled = 0;

#pragma unroll 1
    EACH_STRETCH(stretch, stretches_of(work.n))
    {
        struct group g = group_here(stretch, work.n, work.aligned);
        tiles_add(&filled, SUM_SQUARES, &work.tally, 0, stretch, array_load(work.c, g));
    }
    tiles_flush(filled, SUM_SQUARES, &work.tally);
    value_of_total(&work);
}

/* a: grad, c: params */
KERNEL gapless_decay(const __grid_constant__ struct more_work work)
{
    unsigned filled = 0;

#pragma unroll 1
    EACH_STRETCH(stretch, stretches_of(work.n))
    {
        struct group g = group_here(stretch, work.n, work.aligned);
        float4 x =
            plus(array_load(work.a, g), times(work.factor, array_load(work.c, g)));
        array_store(work.a, g, x);
        tiles_add(&filled, SUM_SQUARES, &work.tally, 0, stretch, some_only(g, x));
    }
    tiles_flush(filled, SUM_SQUARES, &work.tally);
    value_of_total(&work);
}

KERNEL gapless_scale(const __grid_constant__ struct more_work work)
{
#pragma unroll 1
    EACH_STRETCH(stretch, stretches_of(work.n))
    {
        struct group g = group_here(stretch, work.n, work.aligned);
        array_store(work.a, g, times(work.factor, array_load(work.a, g)));
    }
}

/* a: grad, b: velocity */
KERNEL gapless_slim(const __grid_constant__ struct more_work work)
{
#pragma unroll 1
    EACH_STRETCH(stretch, stretches_of(work.n))
    {
        struct group g = group_here(stretch, work.n, work.aligned);
        float4 grad = array_load(work.a, g);
        float4 velocity = plus(times(work.factor, array_load(work.b, g)), grad);
        array_store(work.b, g, velocity);
        array_store(work.a, g, plus(times(work.factor, velocity), grad));
    }
}

/* a: own, b: all, or NULL */
KERNEL gapless_forget(const __grid_constant__ struct more_work work)
{
#pragma unroll 1
    EACH_STRETCH(stretch, stretches_of(work.n))
    {
        struct group g = group_here(stretch, work.n, work.aligned);
        if (work.b)
            array_store(work.b, g, minus(array_load(work.b, g), array_load(work.a, g)));
        array_store(work.a, g, four_of(0.0f));
    }
}

/* x*0 is 0 exactly when x is finite, else not a number. */
DEVICE_FN bool all_finite(float4 x)
{
    float zero = (x.x * 0.0f + x.y * 0.0f) + (x.z * 0.0f + x.w * 0.0f);

    return zero >= 0.0f;
}

/* a: theta, b: sent, c: grad, factor: the average */
KERNEL gapless_average(const __grid_constant__ struct more_work work)
{
#pragma unroll 1
    EACH_STRETCH(stretch, stretches_of(work.n))
    {
        struct group g = group_here(stretch, work.n, work.aligned);
        float4 theta = array_load(work.a, g);
        float4 moved = minus(theta, array_load(work.b, g));
        float4 step =
            plus(times(work.share, array_load(work.c, g)), times(work.factor, moved));
        theta = minus(theta, step);
        array_store(work.a, g, theta);
        array_store(work.b, g, theta);
    }
}

KERNEL gapless_finite(const __grid_constant__ struct more_work work)
{
    bool finite = true;

#pragma unroll 1
    EACH_STRETCH(stretch, stretches_of(work.n))
    {
        struct group g = group_here(stretch, work.n, work.aligned);
        finite = all_finite(array_load(work.c, g)) && finite;
    }
    if (!finite)
        atomicOr(work.flaw, 1u);
    if (last_block(work.tally.ticket) && threadIdx.x == 0) {
        work.ret->finite = atomicExch(work.flaw, 0u) == 0;
        __threadfence_system();
    }
}

struct resum_work {
    float *all;
    const float *const *own;
    uint32_t workers;
    size_t n;
};

DEVICE_FN bool aligned_here(const void *p)
{
    return reinterpret_cast<uintptr_t>(p) % sizeof(float4) == 0;
}

KERNEL gapless_resum(const __grid_constant__ struct resum_work work)
{
#pragma unroll 1
    EACH_STRETCH(stretch, stretches_of(work.n))
    {
        struct group g = group_here(stretch, work.n, false);
        float4 sum = four_of(0.0f);
#pragma unroll 1
        for (uint32_t w = 0; w < work.workers; w++) {
            const float *own = work.own[w];
            g.whole = aligned_here(own) && g.from == 0 && g.to == EACH;
            float4 x = array_load(own, g);
            sum = w ? plus(sum, x) : x;
        }
        g.whole = aligned_here(work.all) && g.from == 0 && g.to == EACH;
        array_store(work.all, g, sum);
    }
}

/* ---- launches ------------------------------------------------------------ */

static struct more_work work_of(const struct kernel_place *place, float *a, float *b,
                                const float *c, float factor, size_t n,
                                struct device_result *ret)
{
    struct scratch *scratch = static_cast<struct scratch *>(place->scratch);
    struct more_work work;

    work.a = a;
    work.b = b;
    work.c = c;
    work.factor = factor;
    work.share = 1.0f;
    work.tally = tally_of(place, n);
    work.flaw = &scratch->flaw;
    work.ret = ret;
    work.n = n;
    work.aligned = aligned(a) && aligned(b) && aligned(c); /* NULL is */
    return work;
}

#define LAUNCH(kernel, ...)                                                            \
    GAPLESS_LAUNCH(kernel, grid_of(place, n), THREADS, place->stream, __VA_ARGS__)

cudaError_t gap_alone(const struct kernel_place *place, const float *theta,
                      const float *sent, size_t n, struct device_result *ret)
{
    float *a = const_cast<float *>(theta); /* not changed */

    return LAUNCH(gapless_gap, work_of(place, a, NULL, sent, 0.0f, n, ret));
}

cudaError_t kernel_forget(const struct kernel_place *place, const struct rule *rule,
                          const struct arrays *at, size_t n)
{
    float *all = (rule->flags & RULE_SUM) ? at->all : NULL;

    if (!(rule->writes & SLOT_OWN))
        return cudaSuccess;
    return LAUNCH(gapless_forget, work_of(place, at->own, all, NULL, 0.0f, n, NULL));
}

cudaError_t kernel_resum(const struct kernel_place *place, float *all,
                         const float *const *own, uint32_t workers, size_t n)
{
    struct resum_work work = {all, own, workers, n};

    return LAUNCH(gapless_resum, work);
}

cudaError_t kernel_finite(const struct kernel_place *place, const float *x, size_t n,
                          struct device_result *ret)
{
    return LAUNCH(gapless_finite, work_of(place, NULL, NULL, x, 0.0f, n, ret));
}

cudaError_t kernel_norm_sq(const struct kernel_place *place, const float *x, size_t n,
                           struct device_result *ret)
{
    return LAUNCH(gapless_norm_sq, work_of(place, NULL, NULL, x, 0.0f, n, ret));
}

cudaError_t kernel_scale(const struct kernel_place *place, float *x, float factor,
                         size_t n)
{
    return LAUNCH(gapless_scale, work_of(place, x, NULL, NULL, factor, n, NULL));
}

cudaError_t kernel_decay(const struct kernel_place *place, float *grad,
                         const float *params, float decay, size_t n,
                         struct device_result *ret)
{
    return LAUNCH(gapless_decay, work_of(place, grad, NULL, params, decay, n, ret));
}

cudaError_t kernel_slim(const struct kernel_place *place, float *grad, float *velocity,
                        float momentum, size_t n)
{
    return LAUNCH(gapless_slim,
                  work_of(place, grad, velocity, NULL, momentum, n, NULL));
}

cudaError_t kernel_average(const struct kernel_place *place, float *theta, float *sent,
                           const float *grad, float share, float average, size_t n)
{
    struct more_work work = work_of(place, theta, sent, grad, average, n, NULL);

    work.share = share;
    return LAUNCH(gapless_average, work);
}
