/* Compiled like engine/compute/compute_cpu_isa.c: once for each instruction set, with its flags
 * and GAPLESS_ISA_NAME, so that a pass and what it is held against have the same means.
 */
#include "bench/rules/bench_passes.h"

#include "engine/rules/compute_rules.h"
#include "engine/compute/compute_sweep.h"

#include <string.h>

#ifndef GAPLESS_ISA_NAME
#define GAPLESS_ISA_NAME generic
#endif

/* ---- streams ------------------------------------------------------------- */

static volatile float sink; /* what was read was needed */

enum {
    ASK_AHEAD = 32 * LANES /* elements */
};

/* Lines of the arrays in `slots` that will be needed soon. */
RULE_FN void ask(const struct arrays *at, size_t i, unsigned slots)
{
    i += ASK_AHEAD;
    if (slots & SLOT_THETA)
        __builtin_prefetch(at->theta + i, 0, 3);
    if (slots & SLOT_OWN)
        __builtin_prefetch(at->own + i, 0, 3);
    if (slots & SLOT_ALL)
        __builtin_prefetch(at->all + i, 0, 3);
    if (slots & SLOT_STAT)
        __builtin_prefetch(at->stat + i, 0, 3);
    if (slots & SLOT_SENT)
        __builtin_prefetch(at->sent + i, 0, 3);
    if (slots & SLOT_GRAD)
        __builtin_prefetch(at->grad + i, 0, 3);
    if (slots & SLOT_SQUARE)
        __builtin_prefetch(at->square + i, 0, 3);
}

RULE_FN void read_only(const struct arrays *arrays, size_t n, unsigned reads,
                       enum bench_way way)
{
    const struct arrays at = *arrays;
    real sum = real_zero();
    for (size_t i = 0; i < n; i += WIDTH) {
        if ((way == BENCH_ASKED || way == BENCH_PAST_ASKED) && i % LANES == 0)
            ask(&at, i, reads);
        struct element e = element_load(&at, i, reads);
        sum += e.theta + e.own + e.all + e.stat + e.sent + e.grad + e.square;
    }
    sink = (float)sum[0];
}

RULE_FN void in_place(const struct arrays *arrays, size_t n, unsigned reads,
                      unsigned writes, enum bench_way way)
{
    const struct arrays at = *arrays;
    const bool past = !(reads & SLOT_SENT) && way >= BENCH_PAST;
    const unsigned asked = way == BENCH_ASKED        ? reads | writes
                           : way == BENCH_PAST_ASKED ? reads
                                                     : 0;

    for (size_t i = 0; i < n; i += WIDTH) {
        if (asked && i % LANES == 0)
            ask(&at, i, asked);
        struct element e = element_load(&at, i, reads);
        e.theta += e.grad;
        e.own += e.grad;
        e.all += e.grad;
        e.stat += e.grad;
        e.square += e.grad;
        if (reads & SLOT_SENT)
            e.sent += e.grad;
        else
            e.sent = e.theta;
        element_store(&at, i, past ? writes & ~(unsigned)SLOT_SENT : writes, &e);
        if (past && (writes & SLOT_SENT))
            lanes_store_past(at.sent + i, e.sent);
    }
    if (past)
        stores_past_done();
}

RULE_FN struct arrays arrays_from(const struct arrays *at, size_t i)
{
    struct arrays ret = {.theta = at->theta + i,
                         .own = at->own + i,
                         .all = at->all + i,
                         .stat = at->stat + i,
                         .sent = at->sent + i,
                         .grad = at->grad + i,
                         .square = at->square + i,
                         .mean = at->mean + i,
                         .turned = at->turned + i};
    return ret;
}

RULE_FN void stream_of(const struct arrays *at, size_t n, unsigned reads,
                       unsigned writes, unsigned measure_reads,
                       enum bench_visits visits, enum bench_way way)
{
    size_t tile = 16 * 1024;
    if (visits == BENCH_TWICE) {
        read_only(at, n, measure_reads, way);
        in_place(at, n, reads, writes, way);
    } else if (visits == BENCH_TILES) {
        for (size_t i = 0; i < n; i += tile) {
            struct arrays from = arrays_from(at, i);
            size_t len = n - i < tile ? n - i : tile;
            read_only(&from, len, measure_reads, way);
            in_place(&from, len, reads, writes, way);
        }
    } else {
        in_place(at, n, reads | measure_reads, writes, way);
    }
}

/* A loop for each way. */
#define WAY(symbol, way)                                                               \
    case way:                                                                          \
        stream_of(at, n, rule_##symbol##_reads, rule_##symbol##_writes,                \
                  rule_##symbol##_measure_reads, visits, way);                         \
        break;
#define RULE(symbol, name, correction, momentum, extra, source)                        \
    static void stream_##symbol(const struct arrays *at, size_t n,                     \
                                enum bench_visits visits, enum bench_way way)          \
    {                                                                                  \
        switch (way) {                                                                 \
            WAY(symbol, BENCH_PLAIN)                                                   \
            WAY(symbol, BENCH_ASKED)                                                   \
            WAY(symbol, BENCH_PAST)                                                    \
            WAY(symbol, BENCH_PAST_ASKED)                                              \
        case BENCH_WAYS:                                                               \
            break;                                                                     \
        }                                                                              \
    }
#include "engine/rules/rules.def"
#undef RULE
#undef WAY

#define RULE(symbol, name, correction, momentum, extra, source) stream_##symbol,
static void (*const streams[])(const struct arrays *, size_t, enum bench_visits,
                               enum bench_way) = {
#include "engine/rules/rules.def"
};
#undef RULE

static void stream(const struct rule *rule, const struct arrays *at, size_t n,
                   enum bench_visits visits, enum bench_way way)
{
    streams[rule->index](at, n, visits, way);
}

/* ---- separate passes ----------------------------------------------------- */

static int loops; /* counted while running */

#define LOOP(name, expression)                                                         \
    static __attribute__((noinline)) void name(number *y, const number *a,             \
                                               const number *b, number s, size_t n)    \
    {                                                                                  \
        loops++;                                                                       \
        (void)b, (void)s;                                                              \
        for (size_t i = 0; i < n; i += WIDTH)                                          \
            lanes_store(y + i, expression);                                            \
    }
#define A lanes_load(a + i)
#define B lanes_load(b + i)
LOOP(op_copy, A)
LOOP(op_add, A + B)
LOOP(op_sub, A - B)
LOOP(op_mul, A *B)
LOOP(op_div, A / B)
LOOP(op_abs, real_abs(A))
LOOP(op_root, real_sqrt(A))
LOOP(op_scale, s *A)
LOOP(op_offset, A + s)
LOOP(op_under, s / A)
LOOP(op_axpy, A + s * B)

static __attribute__((noinline)) double op_dot(const number *a, const number *b,
                                               size_t n)
{
    struct lanes total = lanes_zero();
    loops++;
    for (size_t i = 0; i < n;) {
        struct chunk sum = chunk_zero();
        size_t end = n - i > 1024 ? i + 1024 : n;
        for (; i < end; i += LANES)
            for (int p = 0; p < PARTS; p++)
                sum.part[p] +=
                    lanes_load(a + i + p * WIDTH) * lanes_load(b + i + p * WIDTH);
        lanes_flush(&total, &sum);
    }
    return lanes_total(&total);
}

/* What the steps of one update share. */
struct steps {
    const struct arrays *at;
    number *const *t; /* scratch */
    const struct step_scalars *k;
    const struct blocks *blocks;
    size_t n;
    const number *g;    /* the gradient as corrected so far */
    const number *step; /* the vector that was multiplied by the rate */
    const number
        *ahead_of; /* and its factor: the worker's part of the look-ahead; NULL:
                               there is none */
    number ahead;
};

/* clang-format off */
static void apart_staleness(struct steps *s)
{
    op_scale(s->t[0], s->g, NULL, s->k->freshness, s->n);
    s->g = s->t[0];
}

static void apart_gap_aware(struct steps *s)
{
    number *const *t = s->t;
    op_sub(t[1], s->at->theta, s->at->sent, 0, s->n);
    op_abs(t[1], t[1], NULL, 0, s->n);
    op_scale(t[0], s->at->stat, NULL, s->k->bias, s->n);
    op_root(t[0], t[0], NULL, 0, s->n);
    op_offset(t[0], t[0], NULL, 1e-8f, s->n);
    op_scale(t[0], t[0], NULL, s->k->rate_max, s->n);
    op_add(t[1], t[1], t[0], 0, s->n);
    op_div(t[0], t[0], t[1], 0, s->n);
    op_mul(t[0], t[0], s->g, 0, s->n);
    s->g = t[0];
}

static void apart_gap_aware_global(struct steps *s)
{
    op_sub(s->t[1], s->at->theta, s->at->sent, 0, s->n);
    sink = (float)op_dot(s->t[1], s->t[1], s->n);
    op_scale(s->t[0], s->g, NULL, s->k->penalty, s->n);
    s->g = s->t[0];
}

static void apart_delay_comp(struct steps *s)
{
    op_sub(s->t[1], s->at->theta, s->at->sent, 0, s->n);
    op_mul(s->t[0], s->g, s->g, 0, s->n);
    op_mul(s->t[0], s->t[0], s->t[1], 0, s->n);
    op_axpy(s->t[0], s->g, s->t[0], s->k->lambda, s->n);
    s->g = s->t[0];
}

static void apart_delay_comp_adaptive(struct steps *s)
{
    op_mul(s->t[0], s->g, s->g, 0, s->n);
    op_scale(s->at->stat, s->at->stat, NULL, s->k->mean_square, s->n);
    op_axpy(s->at->stat, s->at->stat, s->t[0], s->k->mean_square_rest, s->n);
    op_offset(s->t[2], s->at->stat, NULL, 1e-7f, s->n);
    op_root(s->t[2], s->t[2], NULL, 0, s->n);
    op_under(s->t[2], s->t[2], NULL, s->k->lambda_zero, s->n);
    op_sub(s->t[1], s->at->theta, s->at->sent, 0, s->n);
    op_mul(s->t[0], s->t[0], s->t[1], 0, s->n);
    op_mul(s->t[0], s->t[0], s->t[2], 0, s->n);
    op_add(s->t[0], s->t[0], s->g, 0, s->n);
    s->g = s->t[0];
}

/* Block by block, to whole chunks: the bits do not matter here. */
static void apart_loss_gap(struct steps *s)
{
    const number *here = s->at->theta;
    size_t from = 0;
    if (s->ahead_of) {
        op_axpy(s->t[1], here, s->ahead_of, -s->ahead, s->n);
        here = s->t[1];
    }
    op_sub(s->t[1], here, s->at->sent, 0, s->n);
    for (uint32_t b = 0; b < s->blocks->count; b++) {
        size_t to = (s->blocks->ends[b] + LANES - 1) / LANES * LANES;
        double q = op_dot(s->g + from, s->t[1] + from, to - from);
        op_scale(s->t[0] + from, s->g + from, NULL, gate_loss_gap(q, s->k), to - from);
        from = to;
    }
    s->g = s->t[0];
}

/* What the worker has summed up makes no difference to the time. */
static void apart_loss_gap_dot(struct steps *s)
{
    size_t from = 0;
    op_axpy(s->t[1], s->at->theta, s->ahead_of, -s->ahead, s->n);
    for (uint32_t b = 0; b < s->blocks->count; b++) {
        size_t to = (s->blocks->ends[b] + LANES - 1) / LANES * LANES;
        double q = op_dot(s->g + from, s->t[1] + from, to - from);
        op_scale(s->t[0] + from, s->g + from, NULL, gate_loss_gap(q, s->k), to - from);
        from = to;
    }
    s->g = s->t[0];
}


static void behind_gap_aware(struct steps *s)
{
    op_mul(s->t[1], s->step, s->step, 0, s->n);
    op_scale(s->at->stat, s->at->stat, NULL, s->k->rho, s->n);
    op_axpy(s->at->stat, s->at->stat, s->t[1], s->k->rho_rest, s->n);
}

static void behind_gap_aware_global(struct steps *s)
{
    sink = (float)op_dot(s->step, s->step, s->n);
}

static void velocity(struct steps *s, number *v)
{
    op_scale(v, v, NULL, s->k->momentum, s->n);
    op_add(v, v, s->g, 0, s->n);
    op_axpy(s->at->theta, s->at->theta, v, -s->k->rate, s->n);
    s->step = v;
}

static void step_plain(struct steps *s)
{
    op_axpy(s->at->theta, s->at->theta, s->g, -s->k->rate, s->n);
    s->step = s->g;
    op_copy(s->at->sent, s->at->theta, NULL, 0, s->n);
}

static void step_nag(struct steps *s)
{
    velocity(s, s->at->all);
    op_axpy(s->at->sent, s->at->theta, s->at->all, -s->k->rate_momentum, s->n);
}

static void step_heavy_ball(struct steps *s)
{
    velocity(s, s->at->all);
    op_copy(s->at->sent, s->at->theta, NULL, 0, s->n);
}

static void step_lwp(struct steps *s)
{
    velocity(s, s->at->all);
    op_axpy(s->at->sent, s->at->theta, s->at->all, -s->k->rate_horizon, s->n);
}

static void step_multi(struct steps *s)
{
    velocity(s, s->at->own);
    op_copy(s->at->sent, s->at->theta, NULL, 0, s->n);
}

static void step_dana(struct steps *s)
{
    op_copy(s->t[1], s->at->own, NULL, 0, s->n);
    velocity(s, s->at->own);
    op_sub(s->t[1], s->at->own, s->t[1], 0, s->n);
    op_add(s->at->all, s->at->all, s->t[1], 0, s->n);
    op_axpy(s->at->sent, s->at->theta, s->at->all, -s->k->rate_momentum, s->n);
}

static void step_shared(struct steps *s)
{
    op_axpy(s->t[1], s->g, s->at->all, s->k->share, s->n);
    op_axpy(s->at->theta, s->at->theta, s->t[1], -s->k->rate, s->n);
    s->step = s->t[1];
    op_scale(s->at->all, s->at->all, NULL, s->k->keep, s->n);
    op_add(s->at->all, s->at->all, s->g, 0, s->n);
    op_axpy(s->at->sent, s->at->theta, s->at->all, -s->k->rate_momentum, s->n);
}

static void step_elastic(struct steps *s)
{
    op_sub(s->t[1], s->g, s->at->theta, 0, s->n);
    op_copy(s->at->sent, s->at->theta, NULL, 0, s->n);
    op_axpy(s->at->theta, s->at->theta, s->t[1], s->k->elastic, s->n);
    s->step = s->t[1];
}

/* Adam's: 1/(sqrt(square) + eps), into t[2]. */
static void adam_inverse_apart(struct steps *s)
{
    op_root(s->t[2], s->at->square, NULL, 0, s->n);
    op_offset(s->t[2], s->t[2], NULL, s->k->epsilon, s->n);
    op_under(s->t[2], s->t[2], NULL, 1, s->n);
}

/* y = keep*y + add*x */
static void mean_apart(struct steps *s, number *y, const number *x, number keep,
                       number add)
{
    op_scale(y, y, NULL, keep, s->n);
    op_axpy(y, y, x, add, s->n);
}

/* square, then the step along `mean`; t[0] and t[1] are used up, t[2] is the inverse. */
static void adam_step_apart(struct steps *s, const number *mean, number keep, number add)
{
    op_mul(s->t[0], s->at->grad, s->at->grad, 0, s->n);
    mean_apart(s, s->at->square, s->t[0], keep, add);
    adam_inverse_apart(s);
    op_mul(s->t[1], mean, s->t[2], 0, s->n);
    op_axpy(s->t[1], s->t[1], s->at->theta, s->k->decay, s->n);
    op_axpy(s->at->theta, s->at->theta, s->t[1], -s->k->rate, s->n);
    s->step = s->t[1];
}

/* sent = theta - factor*all*inverse */
static void adam_send_apart(struct steps *s, number factor)
{
    op_mul(s->t[0], s->at->all, s->t[2], 0, s->n);
    op_axpy(s->at->sent, s->at->theta, s->t[0], -factor, s->n);
}

static void step_adam(struct steps *s)
{
    mean_apart(s, s->at->all, s->g, s->k->one_keep, s->k->one_add);
    adam_step_apart(s, s->at->all, s->k->square_keep, s->k->square_add);
    op_copy(s->at->sent, s->at->theta, NULL, 0, s->n);
}

static void step_adam_horizon(struct steps *s)
{
    mean_apart(s, s->at->all, s->g, s->k->one_keep, s->k->one_add);
    adam_step_apart(s, s->at->all, s->k->square_keep, s->k->square_add);
    adam_send_apart(s, s->k->rate_reach);
}

static void step_adam_dana(struct steps *s)
{
    op_copy(s->t[1], s->at->own, NULL, 0, s->n);
    mean_apart(s, s->at->own, s->g, s->k->own_keep, s->k->own_add);
    op_sub(s->t[1], s->at->own, s->t[1], 0, s->n);
    op_add(s->at->all, s->at->all, s->t[1], 0, s->n);
    adam_step_apart(s, s->at->own, s->k->round_keep, s->k->round_add);
    adam_send_apart(s, s->k->rate_momentum);
}

static void step_adam_shared(struct steps *s)
{
    op_scale(s->t[1], s->at->all, NULL, s->k->share_keep, s->n);
    op_axpy(s->t[1], s->t[1], s->g, s->k->share_add, s->n);
    mean_apart(s, s->at->all, s->g, s->k->mean_keep, s->k->mean_add);
    adam_step_apart(s, s->t[1], s->k->round_keep, s->k->round_add);
    adam_send_apart(s, s->k->rate_round);
}

/* clang-format on */

/* The components that are written here one operation at a time; a rule with another one
 * is not compared. */
typedef void steps_fn(struct steps *s);

static const struct {
    const char *name;
    steps_fn *before, *after; /* the momentum; NULL: nothing to do */
} corrections[] = {
    {"none", NULL, NULL},
    {"staleness", apart_staleness, NULL},
    {"gap_aware", apart_gap_aware, behind_gap_aware},
    {"gap_aware_global", apart_gap_aware_global, behind_gap_aware_global},
    {"delay_comp", apart_delay_comp, NULL},
    {"delay_comp_adaptive", apart_delay_comp_adaptive, NULL},
    {"loss_gap", apart_loss_gap, NULL},
    {"loss_gap_dot", apart_loss_gap_dot, NULL},
};

static const struct {
    const char *name;
    steps_fn *step;
} momenta[] = {
    {"plain", step_plain},
    {"slim", step_plain},
    {"nag", step_nag},
    {"heavy_ball", step_heavy_ball},
    {"lwp", step_lwp},
    {"multi", step_multi},
    {"dana", step_dana},
    {"shared", step_shared},
    {"elastic", step_elastic},
    {"elastic_nesterov", step_elastic},
    {"adam", step_adam},
    {"adam_horizon", step_adam_horizon},
    {"adam_dana", step_adam_dana},
    {"adam_shared", step_adam_shared},
};

/* What is done before the momentum, the momentum, what is done after. False: not here. */
static bool recipe_of(const struct rule *rule, steps_fn *ret[3])
{
    bool found = false;

    for (size_t i = 0; i < sizeof corrections / sizeof *corrections; i++)
        if (!strcmp(corrections[i].name, rule->correction)) {
            ret[0] = corrections[i].before;
            ret[2] = corrections[i].after;
            found = true;
        }
    for (size_t i = 0; i < sizeof momenta / sizeof *momenta; i++)
        if (!strcmp(momenta[i].name, rule->momentum)) {
            ret[1] = momenta[i].step;
            return found;
        }
    return false;
}

/* The worker's own part of Adam's look-ahead is made of `own` or `all`, divided by the root
 * of the squares before this update; into t[2]. */
static void adam_ahead(struct steps *s, const struct rule *rule)
{
    s->ahead_of = NULL;
    if (!(rule->measure_reads & (SLOT_OWN | SLOT_ALL)))
        return;
    adam_inverse_apart(s);
    op_mul(s->t[2], s->t[2], rule->measure_reads & SLOT_OWN ? s->at->own : s->at->all,
           0, s->n);
    s->ahead_of = s->t[2];
    s->ahead = s->k->last_momentum;
}

static void separate(const struct rule *rule, const struct arrays *at,
                     number *const *scratch, const struct step_scalars *k,
                     const struct blocks *blocks, size_t n)
{
    struct steps s = {.at = at, .t = scratch, .k = k, .blocks = blocks, .n = n};
    steps_fn *recipe[3];

    s.g = s.step = at->grad;
    s.ahead_of = rule->reads & SLOT_OWN ? at->own : at->all;
    s.ahead = rule->reads & SLOT_OWN ? k->rate_momentum : k->rate_share;
    if (!recipe_of(rule, recipe))
        return;
    if ((rule->flags & RULE_BLOCK) && (rule->flags & RULE_ADAM))
        adam_ahead(&s, rule);
    for (int i = 0; i < 3; i++)
        if (recipe[i])
            recipe[i](&s);
}

static int separate_count(const struct rule *rule)
{
    _Alignas(64) number x[10][LANES] = {{0}};
    number *scratch[BENCH_SCRATCH] = {x[7], x[8], x[9]};
    struct arrays at = {.theta = x[0],
                        .own = x[1],
                        .all = x[2],
                        .stat = x[3],
                        .sent = x[4],
                        .grad = x[5],
                        .square = x[6]};
    struct step_scalars k = {.penalised = 0};
    uint32_t end = LANES;
    struct blocks blocks = {.ends = &end, .count = 1};

    loops = 0;
    separate(rule, &at, scratch, &k, &blocks, LANES);
    return loops;
}

#define JOIN(a, b) a##b
#define TABLE(isa) JOIN(bench_passes_, isa)
#define TEXT(x) #x
#define NAME(isa) "cpu-" TEXT(isa)

extern const struct bench_passes TABLE(GAPLESS_ISA_NAME);
const struct bench_passes TABLE(GAPLESS_ISA_NAME) = {
    .name = NAME(GAPLESS_ISA_NAME),
    .stream = stream,
    .separate = separate,
    .separate_count = separate_count,
};
