/* The check `bits`: every pass of the GPU gives the bits of the CPU, for every rule, at
 * lengths around every boundary, at every alignment, for one gradient and for several
 * in one pass; and writes nothing beside its vectors.
 *
 * The vectors of a case lie in one piece of GPU memory, with words between them that
 * must come back as they went:
 *
 *   |guard|theta...|guard|all...|guard|stat...|guard|square...|guard|own 0|guard| ...
 */
#include "bench/gpu/bench_gpu.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GUARD 32u /* words between vectors, and before the first */
#define GUARD_WORD 0x7fc0f00du
#define BLOCKS 7u
#define ROUND_WORKERS 5u

enum place {
    THETA,
    ALL,
    STAT,
    SQUARE,
    OWN,
    SENT = OWN + DEVICE_QUEUE,
    GRAD = SENT + DEVICE_QUEUE,
    PLACES = GRAD + DEVICE_QUEUE
};

struct bits {
    const struct bg_run *run;
    const struct device_ops *ops;
    const struct compute *cpu;
    struct device *device;
    size_t n_max;
    size_t stride; /* elements of a place of this case, guard included */
    float *there;  /* PLACES * stride, of the GPU */
    uint32_t *went, *came;
    float *start, *want; /* PLACES vectors of n_max, aligned for the CPU */
    uint32_t seed;
    /* the case */
    const struct rule *rule;
    const char *pass;
    size_t n;
    uint32_t shift[PLACES]; /* elements by which a vector is off its alignment */
    uint32_t count;         /* gradients */
    uint64_t cases, words;
    char reason[BG_TEXT_MAX];
};

/* ---- numbers ------------------------------------------------------------- */

static uint32_t next(struct bits *b)
{
    b->seed ^= b->seed << 13; /* xorshift32: Marsaglia 2003 */
    b->seed ^= b->seed >> 17;
    b->seed ^= b->seed << 5;
    return b->seed;
}

/* Of many sizes and both signs, some of them 0 or denormal. */
static float draw(struct bits *b, bool positive)
{
    uint32_t r = next(b);
    float x = (float)((int)(r >> 8) - (1 << 23)) * 0x1p-23f;

    if (r % 61 == 0)
        return r & 64 ? 0.0f : positive ? 0.0f : -0.0f;
    if (r % 67 == 0)
        return x * 0x1p-126f * (positive && x < 0 ? -1.0f : 1.0f);
    x *= 0.125f;
    return positive ? x * x : x;
}

static void fill(struct bits *b)
{
    for (size_t p = 0; p < PLACES; p++)
        for (size_t i = 0; i < b->n_max; i++)
            b->start[p * b->n_max + i] = draw(b, p == STAT || p == SQUARE);
}

static size_t padded(size_t n)
{
    return (n + 15) / 16 * 16;
}

/* Cases over n elements from now on. */
static void length(struct bits *b, size_t n)
{
    b->n = n;
    b->stride = padded(n) + GUARD + 16;
}

/* ---- memory -------------------------------------------------------------- */

static void bits_close(struct bits *b)
{
    if (b->device != NULL)
        b->ops->close(b->device);
    free(b->went);
    free(b->came);
    free(b->start);
    free(b->want);
}

static int bits_open(const struct bg_run *run, size_t n_max, struct bits *ret,
                     struct gapless_error *error)
{
    size_t bytes;
    void *memory = NULL;
    int status;

    *ret = (struct bits){.run = run,
                         .ops = run->gpu.ops,
                         .cpu = compute_cpu(),
                         .n_max = padded(n_max),
                         .seed = 2463534242u};
    length(ret, n_max);
    bytes = PLACES * ret->stride * sizeof(float);
    ret->went = malloc(bytes);
    ret->came = malloc(bytes);
    ret->start = aligned_alloc(64, PLACES * ret->n_max * sizeof(float));
    ret->want = aligned_alloc(64, PLACES * ret->n_max * sizeof(float));
    if (ret->went == NULL || ret->came == NULL || ret->start == NULL ||
        ret->want == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for %zu elements on the host", n_max);
    status = run->gpu.ops->open(run->gpu.facts.number, ret->n_max, BLOCKS, &ret->device,
                                error);
    if (status == GAPLESS_OK)
        status = ret->ops->take(ret->device, bytes, &memory, error);
    ret->there = memory;
    if (status == GAPLESS_OK)
        fill(ret);
    return status;
}

static size_t at_of(const struct bits *b, size_t place)
{
    return place * b->stride + GUARD + b->shift[place];
}

static float *gpu_at(const struct bits *b, size_t place)
{
    return b->there + at_of(b, place);
}

static float *cpu_at(const struct bits *b, size_t place)
{
    return b->want + place * b->n_max;
}

/* Both sides get the same numbers; on the CPU zeros up to the padding. */
static void begin(struct bits *b)
{
    size_t words = PLACES * b->stride;

    for (size_t i = 0; i < words; i++)
        b->went[i] = GUARD_WORD;
    for (size_t p = 0; p < PLACES; p++) {
        float *to = cpu_at(b, p);

        memcpy(to, b->start + p * b->n_max, b->n * sizeof(float));
        memset(to + b->n, 0, (padded(b->n) - b->n) * sizeof(float));
        memcpy(b->went + at_of(b, p), to, b->n * sizeof(float));
    }
    b->ops->copy_in(b->device, b->there, b->went, words * sizeof(float));
    b->ops->after(b->device, DEVICE_WORK, b->ops->mark(b->device, DEVICE_IN));
}

static enum bg_verdict differs(struct bits *b, const char *what, size_t element)
{
    (void)snprintf(b->reason, sizeof b->reason,
                   "%s of %s over %zu elements, %u gradient%s, off by %u: %s differs "
                   "from the CPU's at %zu",
                   b->pass, b->rule != NULL ? b->rule->name : "a vector", b->n,
                   b->count, b->count == 1 ? "" : "s", b->shift[THETA], what, element);
    return BG_FAILED;
}

/* Which vector a word belongs to, for a person. */
static enum bg_verdict name_difference(struct bits *b, size_t word)
{
    static const char *const shared[] = {"theta", "all", "stat", "square"};
    static const char *const own[] = {"own", "sent", "grad"};
    size_t place = word / b->stride, from = at_of(b, place);
    char what[48];

    if (word < from || word >= from + b->n)
        (void)snprintf(what, sizeof what, "memory beside vector %zu", place);
    else if (place < OWN)
        (void)snprintf(what, sizeof what, "%s", shared[place]);
    else
        (void)snprintf(what, sizeof what, "%s of gradient %zu",
                       own[(place - OWN) / DEVICE_QUEUE], (place - OWN) % DEVICE_QUEUE);
    return differs(b, what, word < from ? 0 : word - from);
}

/* What came back, against what the CPU made of the same. */
static enum bg_verdict end(struct bits *b, struct gapless_error *error)
{
    const struct device_ops *ops = b->ops;
    size_t words = PLACES * b->stride;

    ops->after(b->device, DEVICE_OUT, ops->mark(b->device, DEVICE_WORK));
    ops->copy_out(b->device, b->came, b->there, words * sizeof(float));
    if (ops->wait(b->device, ops->mark(b->device, DEVICE_OUT), BG_WAIT_NS, error) !=
        GAPLESS_OK)
        return BG_NOT_RUN;
    for (size_t p = 0; p < PLACES; p++)
        memcpy(b->went + at_of(b, p), cpu_at(b, p), b->n * sizeof(float));
    b->cases++;
    b->words += words;
    if (memcmp(b->went, b->came, words * sizeof(float)) == 0)
        return BG_PASSED;
    for (size_t i = 0; i < words; i++)
        if (b->went[i] != b->came[i])
            return name_difference(b, i);
    return BG_PASSED;
}

/* ---- the passes of a rule ------------------------------------------------ */

static void scalars_of(const struct bits *b, uint32_t gradient, unsigned variant,
                       struct step_scalars *ret)
{
    struct settings settings = {
        .momentum = 0.9, .rate_max = 0.25, .elastic = 0.3, .decay = 0.1};
    struct step_context context = {.rate = 0.125 / (1 + gradient),
                                   .lag = (variant & 1) ? 3 + gradient : 0,
                                   .active = (variant & 2) ? 4 : 1,
                                   .samples = (variant & 4) ? 100 + gradient : 0,
                                   .global_gap = 0.3,
                                   .global_stat = 0.01};
    struct step_history history = {.rate = 0.1,
                                   .updates = 100 + gradient,
                                   .square = 0.9,
                                   .round = 0.7,
                                   .mean = 0.8,
                                   .share = 0.6,
                                   .waiting = gradient % 3,
                                   .together = 3};

    if (variant & 4) {
        context.history = history;
        context.own_updates = 30 + gradient;
    }
    settings.gap_ref = (variant & 8) ? GAP_REF_OWN_LOOKAHEAD : GAP_REF_SENT;
    settings_default(&settings);
    rules_step_scalars(b->rule, &settings, &context, ret);
}

static struct arrays arrays_of(const struct bits *b, uint32_t gradient, bool gpu)
{
    float *(*at)(const struct bits *, size_t) = gpu ? gpu_at : cpu_at;

    return (struct arrays){.theta = at(b, THETA),
                           .own = at(b, OWN + gradient),
                           .all = at(b, ALL),
                           .stat = at(b, STAT),
                           .sent = at(b, SENT + gradient),
                           .grad = at(b, GRAD + gradient),
                           .square = at(b, SQUARE)};
}

/* Ragged blocks, an element or more each, and how many pieces their tensors had. */
static void make_blocks(const struct bits *b, uint32_t *ends, uint32_t *pieces,
                        struct blocks *ret)
{
    static const double at[BLOCKS] = {0.003, 0.07, 0.31, 0.32, 0.66, 0.9, 1.0};
    uint32_t count = 0;

    for (uint32_t i = 0; i < BLOCKS; i++) {
        uint32_t end =
            i + 1 == BLOCKS ? (uint32_t)b->n : (uint32_t)((double)b->n * at[i]);

        if (end > (count > 0 ? ends[count - 1] : 0)) {
            pieces[count] = 1 + i % 3;
            ends[count++] = end;
        }
    }
    *ret = (struct blocks){.ends = ends, .count = count, .pieces = pieces};
}

static bool sums_differ(struct bits *b, const struct sums *cpu, const struct sums *gpu,
                        uint32_t gradient)
{
    const char *what = !bg_same(cpu->gap_sq, gpu->gap_sq)       ? "the sum of the gap"
                       : !bg_same(cpu->step_sq, gpu->step_sq)   ? "the sum of the step"
                       : !bg_same(cpu->gate_sum, gpu->gate_sum) ? "the sum of the gates"
                                                                : NULL;

    if (what != NULL)
        (void)differs(b, what, gradient);
    return what != NULL;
}

static enum bg_verdict apply(struct bits *b, unsigned variant,
                             struct gapless_error *error)
{
    struct device_pass pass[DEVICE_QUEUE];
    struct sums sums[DEVICE_QUEUE] = {{0}};
    double dots[DEVICE_QUEUE][BLOCKS];
    uint32_t ends[BLOCKS], pieces[BLOCKS];
    unsigned want = (variant & 16) ? WANT_GAP : 0;
    bool blocked = (b->rule->flags & RULE_BLOCK) != 0;
    struct device_blocks *there = NULL;
    struct blocks blocks = {0};
    enum bg_verdict ret;

    b->pass = "apply";
    begin(b);
    make_blocks(b, ends, pieces, &blocks);
    if (blocked && b->ops->blocks_new(b->device, &blocks, &there, error) != GAPLESS_OK)
        return BG_NOT_RUN;
    for (uint32_t i = 0; i < b->count; i++) {
        struct arrays at = arrays_of(b, i, false);

        for (uint32_t k = 0; k < BLOCKS; k++)
            dots[i][k] = 0.01 * (double)draw(b, false);
        pass[i] = (struct device_pass){
            .at = arrays_of(b, i, true), .dots = dots[i], .want = want};
        scalars_of(b, i, variant, &pass[i].scalars);
        blocks.dots = dots[i];
        b->cpu->apply(b->rule, &at, &pass[i].scalars, blocked ? &blocks : NULL,
                      padded(b->n), want, &sums[i]);
    }
    b->ops->apply(b->device, b->rule, pass, b->count, there, b->n, 3);
    ret = end(b, error);
    for (uint32_t i = 0; ret == BG_PASSED && i < b->count; i++)
        if (sums_differ(b, &sums[i], &b->ops->result(b->device, 3 + i)->sums, i))
            ret = BG_FAILED;
    b->ops->blocks_free(b->device, there);
    return ret;
}

static enum bg_verdict look_ahead(struct bits *b, struct gapless_error *error)
{
    struct arrays cpu = arrays_of(b, 0, false), gpu = arrays_of(b, 0, true);
    struct step_scalars scalars;

    b->pass = "look_ahead";
    scalars_of(b, 0, 7, &scalars);
    begin(b);
    b->cpu->look_ahead(b->rule, &cpu, &scalars, padded(b->n));
    b->ops->look_ahead(b->device, b->rule, &gpu, &scalars, b->n);
    return end(b, error);
}

static enum bg_verdict forget(struct bits *b, struct gapless_error *error)
{
    struct arrays cpu = arrays_of(b, 0, false), gpu = arrays_of(b, 0, true);

    b->pass = "forget";
    if (((b->rule->reads | b->rule->writes) & SLOT_OWN) == 0)
        return BG_PASSED;
    begin(b);
    b->cpu->forget(b->rule, &cpu, padded(b->n));
    b->ops->forget(b->device, b->rule, &gpu, b->n);
    return end(b, error);
}

static enum bg_verdict measure(struct bits *b, struct gapless_error *error)
{
    struct arrays cpu = arrays_of(b, 0, false), gpu = arrays_of(b, 0, true);
    struct step_scalars scalars;
    enum bg_verdict ret;
    double sum;

    b->pass = "measure";
    if (!(b->rule->flags & (RULE_GLOBAL | RULE_BLOCK)))
        return BG_PASSED;
    scalars_of(b, 0, 7, &scalars);
    begin(b);
    sum = b->cpu->measure(b->rule, &cpu, &scalars, padded(b->n));
    b->ops->measure(b->device, b->rule, &gpu, &scalars, b->n, 1);
    ret = end(b, error);
    if (ret == BG_PASSED && !bg_same(sum, b->ops->result(b->device, 1)->value))
        ret = differs(b, "the sum", 0);
    return ret;
}

static enum bg_verdict a_round(struct bits *b, struct gapless_error *error)
{
    struct arrays cpu = arrays_of(b, 0, false), gpu = arrays_of(b, 0, true);
    const float *grad[2][ROUND_WORKERS];
    float *sent[2][ROUND_WORKERS];
    struct step_scalars scalars;
    struct sums sums;
    enum bg_verdict ret;

    b->pass = "round";
    if (!(b->rule->flags & RULE_ROUND))
        return BG_PASSED;
    for (uint32_t w = 0; w < ROUND_WORKERS; w++) {
        grad[0][w] = cpu_at(b, GRAD + w);
        grad[1][w] = gpu_at(b, GRAD + w);
        sent[0][w] = cpu_at(b, SENT + w);
        sent[1][w] = gpu_at(b, SENT + w);
    }
    scalars_of(b, 0, 7, &scalars);
    begin(b);
    b->cpu->round(b->rule, &cpu, &scalars, grad[0], sent[0], ROUND_WORKERS,
                  padded(b->n), WANT_GAP, &sums);
    b->ops->round(b->device, b->rule, &gpu, &scalars, grad[1], sent[1], ROUND_WORKERS,
                  b->n, WANT_GAP, 2);
    ret = end(b, error);
    if (ret == BG_PASSED &&
        sums_differ(b, &sums, &b->ops->result(b->device, 2)->sums, 0))
        ret = BG_FAILED;
    return ret;
}

/* ---- passes without a rule ----------------------------------------------- */

static enum bg_verdict sums_of_a_vector(struct bits *b, struct gapless_error *error)
{
    enum bg_verdict ret;
    double norm, decayed;
    size_t bad = b->n / 2;

    b->pass = "norm_sq, decay, scale, finite";
    begin(b);
    norm = b->cpu->norm_sq(cpu_at(b, GRAD), padded(b->n));
    b->ops->norm_sq(b->device, gpu_at(b, GRAD), b->n, 0);
    decayed = b->cpu->decay(cpu_at(b, GRAD), cpu_at(b, THETA), 0.01f, padded(b->n));
    b->ops->decay(b->device, gpu_at(b, GRAD), gpu_at(b, THETA), 0.01f, b->n, 1);
    b->cpu->scale(cpu_at(b, GRAD), 0.3f, padded(b->n));
    b->ops->scale(b->device, gpu_at(b, GRAD), 0.3f, b->n);
    b->ops->finite(b->device, gpu_at(b, GRAD), b->n, 4);
    ret = end(b, error);
    if (ret != BG_PASSED)
        return ret;
    if (!bg_same(norm, b->ops->result(b->device, 0)->value))
        return differs(b, "norm_sq", 0);
    if (!bg_same(decayed, b->ops->result(b->device, 1)->value))
        return differs(b, "the norm of decay", 0);
    if (b->ops->result(b->device, 4)->finite != 1)
        return differs(b, "finite", 0);
    begin(b);
    cpu_at(b, GRAD)[bad] = (b->n & 1) ? -HUGE_VALF : __builtin_nanf("");
    b->ops->copy_in(b->device, gpu_at(b, GRAD) + bad, cpu_at(b, GRAD) + bad,
                    sizeof(float));
    b->ops->after(b->device, DEVICE_WORK, b->ops->mark(b->device, DEVICE_IN));
    b->ops->finite(b->device, gpu_at(b, GRAD), b->n, 4);
    ret = end(b, error);
    if (ret == BG_PASSED && b->ops->result(b->device, 4)->finite != 0)
        ret = differs(b, "finite", bad);
    return ret;
}

static enum bg_verdict moves_of_a_vector(struct bits *b, struct gapless_error *error)
{
    const float *own[2][DEVICE_QUEUE];

    b->pass = "slim, resum, average";
    for (uint32_t w = 0; w < DEVICE_QUEUE; w++) {
        own[0][w] = cpu_at(b, OWN + w);
        own[1][w] = gpu_at(b, OWN + w);
    }
    begin(b);
    b->cpu->slim(cpu_at(b, GRAD), cpu_at(b, OWN), 0.9f, padded(b->n));
    b->ops->slim(b->device, gpu_at(b, GRAD), gpu_at(b, OWN), 0.9f, b->n);
    b->cpu->resum(cpu_at(b, ALL), own[0], DEVICE_QUEUE, padded(b->n));
    b->ops->resum(b->device, gpu_at(b, ALL), own[1], DEVICE_QUEUE, b->n);
    b->cpu->average(cpu_at(b, THETA), cpu_at(b, SENT), cpu_at(b, GRAD), 1.0f, 0.1f,
                    padded(b->n));
    b->ops->average(b->device, gpu_at(b, THETA), gpu_at(b, SENT), gpu_at(b, GRAD), 1.0f,
                    0.1f, b->n);
    return end(b, error);
}

/* ---- all cases ----------------------------------------------------------- */

/* How vectors lie: all aligned, all off by so much, each off by another. */
static void shift(struct bits *b, unsigned how)
{
    for (uint32_t p = 0; p < PLACES; p++)
        b->shift[p] = how < 4 ? how : (p * 5 + how) % 7;
}

static enum bg_verdict rule_cases(struct bits *b, bool large,
                                  struct gapless_error *error)
{
    static const struct {
        uint32_t count;
        unsigned shift, variant;
    } cases[] = {{1, 0, 31}, {8, 0, 31}, {2, 1, 7},  {3, 5, 23}, {1, 2, 2},
                 {4, 0, 14}, {5, 3, 17}, {6, 0, 30}, {7, 6, 22}, {1, 0, 0}};
    size_t count = large ? 2 : sizeof cases / sizeof cases[0];
    enum bg_verdict ret = BG_PASSED;

    for (size_t i = 0; ret == BG_PASSED && i < count; i++) {
        b->count = cases[i].count;
        shift(b, cases[i].shift);
        ret = apply(b, cases[i].variant, error);
    }
    b->count = 1;
    if (ret == BG_PASSED)
        ret = look_ahead(b, error);
    if (ret == BG_PASSED)
        ret = forget(b, error);
    if (ret == BG_PASSED)
        ret = measure(b, error);
    if (ret == BG_PASSED)
        ret = a_round(b, error);
    return ret;
}

static enum bg_verdict all_cases(struct bits *b, const size_t *lengths, size_t count,
                                 struct gapless_error *error)
{
    enum bg_verdict ret = BG_PASSED;

    for (size_t l = 0; l < count && ret == BG_PASSED; l++) {
        length(b, lengths[l]);
        for (int r = 0; ret == BG_PASSED && r < rules_count; r++) {
            b->rule = &rules[r];
            if (bench_has(b->run->options->rules, r))
                ret = rule_cases(b, b->n > 100000, error);
        }
        b->rule = NULL;
        b->count = 1;
        for (unsigned how = 0; ret == BG_PASSED && how < 6; how += 2) {
            shift(b, how);
            ret = sums_of_a_vector(b, error);
            if (ret == BG_PASSED)
                ret = moves_of_a_vector(b, error);
        }
    }
    return ret;
}

void bg_bits(struct bg_run *run, struct bg_check *ret)
{
    /* Around every boundary: 4 in a load, 16 channels, 1,024 and 65,536 in a sum. */
    static const size_t lengths[] = {
        1,    2,    3,     15,    16,    17,    63,     1000,          1024,
        1025, 4095, 20011, 65535, 65536, 65537, 200003, (1u << 20) + 5};
    static const size_t quick[] = {1, 17, 1000, 2065};
    bool small = run->options->quick;
    const size_t *list = small ? quick : lengths;
    size_t count =
        small ? sizeof quick / sizeof quick[0] : sizeof lengths / sizeof lengths[0];
    struct gapless_error error = {0};
    struct bits b = {0};
    enum bg_verdict verdict = BG_NOT_RUN;

    if (bits_open(run, list[count - 1], &b, &error) == GAPLESS_OK)
        verdict = all_cases(&b, list, count, &error);
    (void)json_object_set_new(ret->figures, "cases", json_integer((json_int_t)b.cases));
    (void)json_object_set_new(ret->figures, "words_compared",
                              json_integer((json_int_t)b.words));
    (void)json_object_set_new(ret->figures, "longest",
                              json_integer((json_int_t)list[count - 1]));
    (void)json_object_set_new(ret->figures, "cpu", json_string(b.cpu->name));
    if (verdict == BG_PASSED)
        (void)bg_says(ret, BG_PASSED,
                      "%llu cases, up to %zu elements: every word is that of %s",
                      (unsigned long long)b.cases, list[count - 1], b.cpu->name);
    else
        (void)bg_says(ret, BG_FAILED, "%s",
                      b.reason[0] != '\0' ? b.reason : error.text);
    bits_close(&b);
}
