/* kernel_apply, and the kernels of apply.cuh without gap_sq. */
#define GAP 0
#include "gpu/apply_kernels.cuh"
#include "gpu/grid.cuh"
#include "gpu/parts.cuh"

size_t kernel_scratch_bytes(size_t n, uint32_t blocks)
{
    size_t sums = 2 * DEVICE_QUEUE; /* gap_sq and step_sq of each */
    size_t partial = sums * stretches_of(n) * SUM_LANES * sizeof(double);
    size_t gates = (size_t)blocks * sizeof(float);

    return sizeof(struct scratch) + (partial > gates ? partial : gates);
}

/* One launch for gradients with one gate for `gated` elements, or none. */
static cudaError_t apply_queue(const struct kernel_place *place,
                               const struct rule *rule, const struct device_pass *pass,
                               uint32_t count, double gated, size_t n,
                               struct device_result *ret)
{
    bool gap = (pass[0].want & WANT_GAP) != 0;
    bool own = pass[0].scalars.gap_ref != GAP_REF_SENT;
    apply_kernel *const *kernels =
        (gap ? apply_kernels_gap : apply_kernels_plain)[rule->index];
    unsigned slots = rule->reads | rule->writes; /* all rules write sent */
    struct apply_work work;

    for (uint32_t i = 0; i < count; i++) {
        work.at[i] = pass[i].at;
        work.scalars[i] = pass[i].scalars;
    }
    work.tally = tally_of(place, n);
    work.ret = ret;
    work.n = n;
    work.gated = gated;
    work.count = count;
    work.aligned = true;
    for (uint32_t i = 0; i < count; i++)
        work.aligned = work.aligned && arrays_aligned(&pass[i].at, slots);
    return GAPLESS_LAUNCH(own && kernels[1] ? kernels[1] : kernels[0],
                          grid_of(place, n), THREADS, place->stream, work);
}

/* Do these go into one launch? */
static bool alike(const struct device_pass *a, const struct device_pass *b)
{
    return a->want == b->want && a->scalars.gap_ref == b->scalars.gap_ref;
}

cudaError_t kernel_apply(const struct kernel_place *place, const struct rule *rule,
                         const struct device_pass *pass, uint32_t count,
                         const struct kernel_blocks *blocks, size_t n,
                         struct device_result *ret)
{
    bool gated = (rule->flags & RULE_BLOCK) != 0;
    size_t elements = blocks && blocks->count ? blocks->elements : n;
    cudaError_t code = cudaSuccess;

    if (count == 0 || count > DEVICE_QUEUE || rule->index < 0)
        return cudaErrorInvalidValue;
    for (uint32_t i = 0, next; i < count && code == cudaSuccess; i = next) {
        next = i + 1;
        if (gated && pass[i].scalars.lagging) {
            code = blocks_apply(place, rule, &pass[i], blocks, i, n, &ret[i]);
            continue;
        }
        while (next < count && alike(&pass[i], &pass[next]) &&
               !(gated && pass[next].scalars.lagging))
            next++;
        code = apply_queue(place, rule, &pass[i], next - i,
                           gated ? (double)elements : 0.0, n, &ret[i]);
    }
    return code;
}
