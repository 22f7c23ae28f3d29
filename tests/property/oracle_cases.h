/* Every rule against the scalar master of oracle.h: the same gradients, compared after
 * every update. Built twice, by test_oracle.c for float and test_oracle_double.c for
 * double.
 *
 * Gradients are those of a noisy quadratic at the oracle's look-ahead, so that runs
 * stay bounded and float errors do not feed back. */
#ifndef GAPLESS_TESTS_ORACLE_CASES_H
#define GAPLESS_TESTS_ORACLE_CASES_H

#include "tests/property/drive.h"
#include "tests/property/oracle.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

/* double: formulas must agree but for the order of additions. float: theta, near 1, is
 * rounded at 6e-8; the gap is a difference of two such numbers, and GA holds it against
 * steps that here are as small as 1e-3, so a gradient near 1 may be off by some 1e-4,
 * and a velocity sums ten. A wrong formula is off by percents. */
static const double tolerance = sizeof(number) == sizeof(double) ? 1e-12 : 1e-3;

/* Blocks that end inside chunks of 16, on their edges, and several in one chunk. */
static const uint32_t ends[] = {5, 9, 16, 33, 48, 200, 201, 300, 403};
enum {
    ELEMENTS = 403,
    STEPS = 300
};

struct pair {
    struct oracle o;
    struct drive d;
    bool here[ORACLE_WORKERS];
};

static void pair_open(struct pair *p, const struct compute *compute, const char *rule,
                      uint32_t workers, bool own_lookahead)
{
    memset(p, 0, sizeof *p);
    drive_open(&p->d, compute, rule, ELEMENTS, workers);
    p->d.blocks.ends = ends;
    p->d.blocks.count = sizeof ends / sizeof *ends;
    p->d.settings.gap_ref = own_lookahead ? GAP_REF_OWN_LOOKAHEAD : GAP_REF_SENT;
    p->d.want = WANT_GAP;
    struct oracle o = {.rule = rule, .k = ELEMENTS, .workers = (int)workers};
    if (!oracle_find(&o))
        fail_msg("%s: add its new component to the tables in tests/property/oracle.h",
                 rule);
    o.active = o.workers;
    o.ends = ends;
    o.blocks = (int)p->d.blocks.count;
    o.gamma = 0.9, o.rate_max = 0.1, o.rho = 0.999, o.lambda = 0.04,
    o.lambda_zero = 2.0;
    o.m = 0.95, o.kappa = 10.0;
    o.rest_scale = 1.0;
    o.beta2 = 0.95, o.epsilon = 1e-8, o.decay = 0.1;
    for (int j = 0; j < ELEMENTS; j++)
        o.decays[j] = drive_decays((size_t)j);
    o.elastic = p->d.settings.elastic, o.period = (long)p->d.period;
    o.own_lookahead = own_lookahead;
    p->o = o;
    for (size_t j = 0; j < ELEMENTS; j++) {
        p->d.theta[j] = (number)(drive_draw() * 2.0 - 1.0);
        p->o.theta[j] = (double)p->d.theta[j];
    }
    for (uint32_t w = 0; w < workers; w++) {
        p->here[w] = true;
        drive_give(&p->d, w, 0.1);
        oracle_give(&p->o, (int)w, 0.1);
    }
}

static void near(const char *rule, const char *what, const number *x, const double *y,
                 size_t k, size_t n)
{
    double scale = 1.0, worst = 0.0;
    for (size_t j = 0; j < k; j++) {
        scale = fmax(scale, fabs(y[j]));
        worst = fmax(worst, fabs((double)x[j] - y[j]));
        if (!isfinite((double)x[j]))
            worst = 1e300;
    }
    if (worst > tolerance * scale)
        fail_msg("%s: %s is off by %.3g at scale %.3g", rule, what, worst, scale);
    for (size_t j = k; j < n; j++)
        if (fpclassify(x[j]) != FP_ZERO)
            fail_msg("%s: the padding of %s is not 0", rule, what);
}

static void pair_compare(struct pair *p, uint32_t w)
{
    const char *rule = p->o.rule;
    const struct drive *d = &p->d;
    near(rule, "theta", d->theta, p->o.theta, d->k, d->n);
    near(rule, "sent", d->sent[w], p->o.sent[w], d->k, d->n);
    near(rule, "params", drive_params(d, w), p->o.x[w], d->k, d->n);
    near(rule, "own", d->own[w], p->o.own[w], d->k, d->n);
    near(rule, "stat", d->stat, p->o.s, d->k, d->n);
    near(rule, "square", d->square, p->o.square, d->k, d->n);
    if (d->rule->flags & RULE_SUM) {
        double sum[ORACLE_ELEMENTS];
        for (int j = 0; j < p->o.k; j++)
            sum[j] = oracle_sum(&p->o, j);
        near(rule, "all", d->all, sum, d->k, d->n);
    } else {
        near(rule, "all", d->all, p->o.v, d->k, d->n);
    }
    if (d->rule->flags & RULE_PUBLISHED)
        return; /* the gap is known to the worker alone */
    if (fabs(d->sums.gap_sq - p->o.gap_sq) > 10.0 * tolerance * (1.0 + p->o.gap_sq))
        fail_msg("%s: gap_sq %.9g, not %.9g", rule, d->sums.gap_sq, p->o.gap_sq);
}

static void gradient_at(const struct pair *p, uint32_t w, double *ret)
{
    for (int j = 0; j < p->o.k; j++) {
        double curvature = 0.05 + 0.9 * (j % 13) / 13.0;
        double g = curvature * p->o.x[w][j] + 0.2 * (drive_draw() - 0.5);
        ret[j] = (double)(number)g; /* both sides get the same bits */
    }
}

/* Warm-up, a decay, and everybody re-sums at each change. */
static double rate_at(int step)
{
    return step < 40 ? 0.01 : step < 150 ? 0.03 : 0.005;
}

/* Worker 1 leaves, and is back later with a look-ahead and no velocity; under Adam with
 * the mean of the others'. */
static void come_and_go(struct pair *p, int step)
{
    if (p->d.workers < 2 || (step != 200 && step != 240))
        return;
    p->here[1] = step == 240;
    if (step == 200) {
        drive_forget(&p->d, 1);
        oracle_leave(&p->o, 1);
    } else {
        drive_join(&p->d, 1);
        oracle_join(&p->o, 1);
        drive_give(&p->d, 1, rate_at(step));
        oracle_give(&p->o, 1, rate_at(step));
    }
}

static void run(const struct compute *compute, const char *rule, uint32_t workers,
                bool own_lookahead, bool whole)
{
    static struct pair p;
    double g[ORACLE_ELEMENTS];

    pair_open(&p, compute, rule, workers, own_lookahead);
    p.o.whole = p.d.whole = whole;
    for (int step = 0; step < STEPS; step++) {
        uint32_t w = (uint32_t)(drive_draw() * workers);
        double rate = rate_at(step);
        come_and_go(&p, step);
        if (!p.here[w])
            continue;
        if (step && (rate < rate_at(step - 1) || rate > rate_at(step - 1)))
            drive_resum(&p.d);
        gradient_at(&p, w, g);
        oracle_push(&p.o, (int)w, g, rate);
        drive_push(&p.d, w, g, rate);
        pair_compare(&p, w);
        assert_true(p.d.sums.gate_sum >= 0.0);
        assert_true(p.d.sums.gate_sum <= (double)ends[p.d.blocks.count - 1]);
    }
    drive_close(&p.d);
}

static void run_rounds(const struct compute *compute, const char *rule,
                       uint32_t workers)
{
    static struct pair p;
    static double g[ORACLE_WORKERS][ORACLE_ELEMENTS];
    number *grad[DRIVE_WORKERS];

    pair_open(&p, compute, rule, workers, false);
    p.d.want = 0;
    for (uint32_t w = 0; w < workers; w++)
        grad[w] = drive_array(p.d.n);
    for (int step = 0; step < STEPS; step++) {
        for (uint32_t w = 0; w < workers; w++) {
            gradient_at(&p, w, g[w]);
            for (size_t j = 0; j < p.d.k; j++)
                grad[w][j] = (number)g[w][j];
        }
        oracle_round(&p.o, g, rate_at(step));
        drive_round(&p.d, (const number *const *)grad, rate_at(step));
        for (uint32_t w = 0; w < workers; w++)
            pair_compare(&p, w);
    }
    for (uint32_t w = 0; w < workers; w++)
        free(grad[w]);
    drive_close(&p.d);
}

static const struct compute *under_test;

static void every_rule(uint32_t workers)
{
    for (int i = 0; i < rules_count; i++)
        for (int own = 0; own < 2; own++) {
            run(under_test, rules[i].name, workers, own, false);
            if (rules[i].flags & RULE_BLOCK && !(rules[i].flags & RULE_PUBLISHED))
                run(under_test, rules[i].name, workers, own, true);
        }
}

static void one_worker(void **state)
{
    (void)state;
    every_rule(1);
}

static void three_workers(void **state)
{
    (void)state;
    every_rule(3);
}

static void eight_workers(void **state)
{
    (void)state;
    every_rule(8);
}

static void synchronous_rounds(void **state)
{
    (void)state;
    for (int i = 0; i < rules_count; i++)
        if (rules[i].flags & RULE_ROUND)
            for (uint32_t workers = 1; workers <= 8; workers++)
                run_rounds(under_test, rules[i].name, workers);
}

static int oracle_cases(const struct compute *compute)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_worker),
        cmocka_unit_test(three_workers),
        cmocka_unit_test(eight_workers),
        cmocka_unit_test(synchronous_rounds),
    };
    under_test = compute;
    return cmocka_run_group_tests_name(compute->name, tests, NULL, NULL);
}

#endif
