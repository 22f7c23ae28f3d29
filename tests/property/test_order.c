/* The order of operations, to the bit: one update of each half of a rule, in scalar
 * float written out as decided. Another order of the same formula has other last bits,
 * and then machines that should agree do not. */
#include "tests/property/drive.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

enum {
    N = 496,
    WORKERS = 5,
    LAG = 4
};

struct scalar_element {
    float theta, own, all, stat, sent, grad, square;
    float raw, decay; /* the gradient as it came; lambda, or 0 */
};

static const float rate = 0.05f, momentum = 0.9f, rate_momentum = (float)(0.05 * 0.9);

/* ---- corrections: return what enters the momentum ------------------------ */

static float staleness(struct scalar_element *e)
{
    return e->grad * (float)(1.0 / LAG);
}

static float delay_comp(struct scalar_element *e)
{
    float square = e->grad * e->grad, product = square * (e->theta - e->sent);
    float more = 0.04f * product;
    return e->grad + more;
}

static float delay_comp_adaptive(struct scalar_element *e)
{
    float square = e->grad * e->grad;
    float old = 0.95f * e->stat, new = (float)(1.0 - 0.95) * square;
    e->stat = old + new;
    float lambda = 2.0f / sqrtf(e->stat + 1e-7f);
    float product = square * (e->theta - e->sent), more = lambda * product;
    return e->grad + more;
}

static float gap_aware(struct scalar_element *e)
{
    double power = 1.0;
    for (int i = 0; i < 30; i++)
        power *= 0.999;
    float root = sqrtf(e->stat * (float)(1.0 / (1.0 - power)));
    float largest = 0.1f * (root + 1e-8f), gap = fabsf(e->theta - e->sent);
    float share = largest / (largest + gap);
    return e->grad * share;
}

static float none(struct scalar_element *e)
{
    return e->grad;
}

/* ---- momenta: return the vector that was multiplied by the rate ---------- */

static float move(struct scalar_element *e, float step)
{
    float way = rate * step;
    e->theta = e->theta - way;
    return step;
}

static float plain(struct scalar_element *e, float g)
{
    move(e, g);
    e->sent = e->theta;
    return g;
}

static float velocity(float *v, float g)
{
    float old = momentum * *v;
    return *v = old + g;
}

static float nag(struct scalar_element *e, float g)
{
    float v = move(e, velocity(&e->all, g)), ahead = rate_momentum * v;
    e->sent = e->theta - ahead;
    return v;
}

static float heavy_ball(struct scalar_element *e, float g)
{
    float v = move(e, velocity(&e->all, g));
    e->sent = e->theta;
    return v;
}

static float lwp(struct scalar_element *e, float g)
{
    float v = move(e, velocity(&e->all, g)), ahead = (float)(0.05 * (WORKERS - 1)) * v;
    e->sent = e->theta - ahead;
    return v;
}

static float multi(struct scalar_element *e, float g)
{
    float v = move(e, velocity(&e->own, g));
    e->sent = e->theta;
    return v;
}

static float dana(struct scalar_element *e, float g)
{
    float old = e->own, new = velocity(&e->own, g), difference = new - old, ahead;
    e->all = e->all + difference;
    move(e, new);
    ahead = rate_momentum * e->all;
    e->sent = e->theta - ahead;
    return new;
}

static float shared(struct scalar_element *e, float g)
{
    float mine = (float)(0.9 / WORKERS) * e->all, step = mine + g;
    float kept = (float)(((WORKERS - 1) + 0.9) / WORKERS) * e->all, ahead;
    move(e, step);
    e->all = kept + g;
    ahead = rate_momentum * e->all;
    e->sent = e->theta - ahead;
    return step;
}

/* ---- Adam ---------------------------------------------------------------- */

/* As decided, in double, rounded once: 30 updates so far, 4 of this worker. */
static const struct step_history history = {0.04, 30, 0.8, 0.3, 0.5, 0.4, 2, 3};

static float weight_of(double keep, double seen, bool added)
{
    double after = keep * seen + (1.0 - keep);
    return (float)(added ? (1.0 - keep) / after : keep * seen / after);
}

static float first_of(double faded, bool added)
{
    double keep = 0.9 * (1.0 - faded) / (1.0 - 0.9 * faded);
    return (float)(added ? 1.0 - keep : keep);
}

static double power(double x, int n)
{
    double ret = 1.0; /* by squaring, as decided */
    for (; n; n >>= 1, x *= x)
        if (n & 1)
            ret *= x;
    return ret;
}

static void adam_square(struct scalar_element *e, double keep, double seen)
{
    float squared = e->raw * e->raw, old = weight_of(keep, seen, false) * e->square;
    float new = weight_of(keep, seen, true) * squared;
    e->square = old + new;
}

static float mean_of(float x, float keep, float add, float g)
{
    float old = keep * x, new = add *g;
    return old + new;
}

static float adam_inverse(const struct scalar_element *e)
{
    float root = sqrtf(e->square) + (float)1e-8;
    return 1.0f / root;
}

static float adam_move(struct scalar_element *e, float m)
{
    float direction = m * adam_inverse(e), shrink = e->decay * e->theta;
    return move(e, direction + shrink);
}

static float adam_one(struct scalar_element *e, float g)
{
    double faded = power(0.9, 30);
    adam_square(e, 0.95, history.square);
    e->all = mean_of(e->all, first_of(faded, false), first_of(faded, true), g);
    return adam_move(e, e->all);
}

static float adam(struct scalar_element *e, float g)
{
    float step = adam_one(e, g);
    e->sent = e->theta;
    return step;
}

static float adam_horizon(struct scalar_element *e, float g)
{
    double reach = 0.05 * 0.9 * (1.0 - power(0.9, WORKERS - 1)) / (1.0 - 0.9);
    float step = adam_one(e, g), ahead = e->all * adam_inverse(e);
    ahead = (float)reach * ahead;
    e->sent = e->theta - ahead;
    return step;
}

static float adam_dana(struct scalar_element *e, float g)
{
    double faded = power(0.9, 4);
    float new = mean_of(e->own, first_of(faded, false), first_of(faded, true), g);
    float difference = new - e->own, step, ahead;
    adam_square(e, rules_root(0.95, WORKERS), history.round);
    e->all = e->all + difference;
    e->own = new;
    step = adam_move(e, new);
    ahead = e->all * adam_inverse(e);
    ahead = rate_momentum * ahead;
    e->sent = e->theta - ahead;
    return step;
}

static float adam_shared(struct scalar_element *e, float g)
{
    double faded = 1.0 - history.share, mean = ((WORKERS - 1) + 0.9) / WORKERS;
    float new = mean_of(e->all, first_of(faded, false), first_of(faded, true), g), step;
    float ahead;
    adam_square(e, rules_root(0.95, WORKERS), history.round);
    e->all = mean_of(e->all, weight_of(mean, history.mean, false),
                     weight_of(mean, history.mean, true), g);
    step = adam_move(e, new);
    ahead = e->all * adam_inverse(e);
    ahead = (float)(0.05 * 0.9 * WORKERS) * ahead;
    e->sent = e->theta - ahead;
    return step;
}

static const struct {
    const char *rule;
    float (*correct)(struct scalar_element *e);
    float (*step)(struct scalar_element *e, float g);
} rows[] = {
    {"asgd", none, plain},
    {"dana-slim", none, plain},
    {"nag-asgd", none, nag},
    {"ssgd", none, nag},
    {"hb-asgd", none, heavy_ball},
    {"lwp", none, lwp},
    {"multi-asgd", none, multi},
    {"dana-zero", none, dana},
    {"dana-shared", none, shared},
    {"sa", staleness, nag},
    {"sa-plain", staleness, plain},
    {"dana-sa", staleness, dana},
    {"dc-asgd", delay_comp, nag},
    {"dc-plain", delay_comp, plain},
    {"dana-dc", delay_comp, dana},
    {"dc-asgd-a", delay_comp_adaptive, nag},
    {"dana-dc-a", delay_comp_adaptive, dana},
    {"ga", gap_aware, nag},
    {"ga-plain", gap_aware, plain},
    {"dana-ga", gap_aware, dana},
    {"adamw", none, adam},
    {"ssgd-adamw", none, adam},
    {"la-adamw", none, adam_horizon},
    {"dana-adamw", none, adam_dana},
    {"shared-lga-adamw", none, adam_shared}, /* with a lag of 0: every gate is 1 */
};

static void expect(const char *rule, const char *what, size_t j, float x, float y)
{
    if (memcmp(&x, &y, sizeof x))
        fail_msg("%s, %s of element %zu: %.9g, not %.9g", rule, what, j, (double)x,
                 (double)y);
}

static void check(size_t row, uint64_t samples)
{
    const struct rule *rule = rules_find(rows[row].rule);
    struct settings settings = {.momentum = 0.9, .rate_max = 0.1, .decay = 0.1};
    struct step_context context = {.rate = 0.05,
                                   .lag = rule->flags & RULE_BLOCK ? 0 : LAG,
                                   .active = WORKERS,
                                   .samples = samples,
                                   .history = history,
                                   .own_updates = 4};
    static _Alignas(64) float x[7][N];
    uint16_t decays[N / 16] = {0};
    struct scalar_element e[N];
    struct arrays at = {.theta = x[0],
                        .own = x[1],
                        .all = x[2],
                        .stat = x[3],
                        .sent = x[4],
                        .grad = x[5],
                        .square = x[6],
                        .decays = decays};
    float (*correct)(struct scalar_element *) = rows[row].correct;
    struct step_scalars scalars;
    struct sums sums;

    settings_default(&settings);
    rules_step_scalars(rule, &settings, &context, &scalars);
    for (size_t j = 0; j < N; j++) {
        for (int a = 0; a < 7; a++)
            x[a][j] = (float)((drive_draw() - 0.5) * exp2(4.0 * drive_draw()));
        x[3][j] *= x[3][j];
        x[6][j] *= x[6][j];
        e[j] = (struct scalar_element){
            x[0][j], x[1][j], x[2][j],
            x[3][j], x[4][j], x[5][j],
            x[6][j], x[5][j], drive_decays(j) ? (float)0.1 : 0.0f};
        if (drive_decays(j))
            decays[j / 16] |= (uint16_t)(1u << j % 16);
    }
    compute_cpu()->apply(rule, &at, &scalars, NULL, N, 0, &sums);
    if (!samples && correct == gap_aware)
        correct = none; /* no step was seen yet: nothing to hold the gap against */
    for (size_t j = 0; j < N; j++) {
        float step = rows[row].step(&e[j], correct(&e[j]));
        if (rows[row].correct == gap_aware) {
            float square = step * step, new = (float)(1.0 - 0.999) * square;
            e[j].stat = 0.999f * e[j].stat + new;
        }
        expect(rule->name, "theta", j, x[0][j], e[j].theta);
        expect(rule->name, "own", j, x[1][j], e[j].own);
        expect(rule->name, "all", j, x[2][j], e[j].all);
        expect(rule->name, "stat", j, x[3][j], e[j].stat);
        expect(rule->name, "sent", j, x[4][j], e[j].sent);
        expect(rule->name, "square", j, x[6][j], e[j].square);
    }
}

static void as_decided(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++)
        for (size_t row = 0; row < sizeof rows / sizeof *rows; row++)
            check(row, i % 2 ? 30 : 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(as_decided)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
