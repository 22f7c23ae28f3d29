/* Measure: sums over a range of what a gate is made of. */
#ifndef GAPLESS_GPU_MEASURE_CUH
#define GAPLESS_GPU_MEASURE_CUH

#include "gpu/apply.cuh"
#include "gpu/grid.cuh"

/* One launch; not all have all of it. */
struct rule_work {
    struct arrays at;
    struct step_scalars scalars;
    struct tally tally;
    struct device_result *ret;
    const float *const *grad; /* round: of each worker */
    float *const *sent;
    float share; /* 1/workers */
    uint32_t workers;
    size_t n;
    bool aligned;
};

typedef void rule_kernel(const struct rule_work work);

typedef float product_fn(const struct element *e);

/* The sum of PRODUCT over all of it. SUM: SUM_GAP or SUM_STEP, how it is added up. */
template <unsigned READS, unsigned SUM, element_fn *AHEAD, product_fn *PRODUCT>
DEVICE_FN void measure_all(const struct rule_work *work)
{
    size_t stretches = stretches_of(work->n);
    unsigned filled = 0;

#pragma unroll 1
    EACH_STRETCH(stretch, stretches)
    {
        struct group g = group_here(stretch, work->n, work->aligned);
        struct four x = four_zero();
        float4 product;

        four_load(&work->at, g, READS, &x);
#define ELEMENT(c)                                                                     \
    do {                                                                               \
        struct element e = FOUR_ELEMENT(x, c, 0.0f);                                   \
        AHEAD(&e, &work->scalars);                                                     \
        product.c = PRODUCT(&e);                                                       \
    } while (0)
        FOUR_EACH(ELEMENT);
#undef ELEMENT
        tiles_add(&filled, SUM, &work->tally, 0, stretch, some_only(g, product));
    }
    tiles_flush(filled, SUM, &work->tally);
    if (last_block(work->tally.ticket)) {
        double total = tally_total(&work->tally, 0);
        if (threadIdx.x == 0) {
            work->ret->value = total;
            __threadfence_system();
        }
    }
}

#endif
