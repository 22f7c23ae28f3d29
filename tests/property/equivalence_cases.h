/* What must be equal to what, and the closed forms that the papers' ideas lead to.
 * E1..E17 are the numbers of the list in the notes on algorithms that these tests
 * follow. Built twice: test_equivalences.c (float) and test_equivalences_double.c.
 *
 * "bits": equal to the last bit, which holds because the operations are the same ones.
 */
#ifndef GAPLESS_TESTS_EQUIVALENCE_CASES_H
#define GAPLESS_TESTS_EQUIVALENCE_CASES_H

#include "tests/property/drive.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

enum {
    K = 100,
    STEPS = 120
};

static const struct compute *under_test;
static const uint32_t ends[] = {7, 32, 61, 100};
static const double tolerance = sizeof(number) == sizeof(double) ? 1e-12 : 2e-5;

static void open_with(struct drive *d, const char *rule, uint32_t workers, double rate)
{
    drive_open(d, under_test, rule, K, workers);
    d->blocks.ends = ends;
    d->blocks.count = sizeof ends / sizeof *ends;
    for (size_t j = 0; j < K; j++)
        d->theta[j] = (number)(0.01 * (double)j - 0.5);
    for (uint32_t w = 0; w < workers; w++)
        drive_give(d, w, rate);
}

static double distance(const number *a, const number *b)
{
    double worst = 0.0;
    for (size_t j = 0; j < K; j++)
        worst = fmax(worst, fabs((double)a[j] - (double)b[j]));
    return worst;
}

#define AS_IT_IS (-1e300)

struct setup {
    const char *rule;
    bool own_lookahead;
    double momentum, lambda, kappa, horizon, rate_max; /* or AS_IT_IS */
};

#define RULE_AS_IS                                                                     \
    .momentum = AS_IT_IS, .lambda = AS_IT_IS, .kappa = AS_IT_IS, .horizon = AS_IT_IS,  \
    .rate_max = AS_IT_IS

static void set(double *setting, double value)
{
    if (value > AS_IT_IS)
        *setting = value;
}

static void open_setup(struct drive *d, const struct setup *s, uint32_t workers)
{
    open_with(d, s->rule, workers, 0.0); /* at first nothing is ahead */
    set(&d->settings.momentum, s->momentum);
    set(&d->settings.lambda, s->lambda);
    set(&d->settings.kappa, s->kappa);
    set(&d->settings.horizon, s->horizon);
    set(&d->settings.rate_max, s->rate_max);
    d->settings.gap_ref = s->own_lookahead ? GAP_REF_OWN_LOOKAHEAD : GAP_REF_SENT;
}

/* Both runs see the same order of workers, each its own gradients; all that is given
 * out must be as near as `within`. */
static void same_runs(const struct setup *a, const struct setup *b, uint32_t workers,
                      bool round_robin, bool rate_changes, double within)
{
    struct drive x, y;
    double g[K];
    open_setup(&x, a, workers);
    open_setup(&y, b, workers);
    for (int step = 0; step < STEPS; step++) {
        uint32_t w = round_robin ? (uint32_t)step % workers : drive_pick(step, workers);
        double rate = rate_changes && step > 60 ? 0.005 : 0.05;
        drive_gradient(drive_params(&x, w), step, K, g);
        drive_push(&x, w, g, rate);
        drive_gradient(drive_params(&y, w), step, K, g);
        drive_push(&y, w, g, rate);
        double off = distance(drive_params(&x, w), drive_params(&y, w));
        if (!(off <= within))
            fail_msg("%s and %s, %u workers, step %d: off by %g", a->rule, b->rule,
                     (unsigned)workers, step, off);
    }
    drive_close(&x);
    drive_close(&y);
}

#define AS_IS(name) ((struct setup){.rule = (name), RULE_AS_IS})

static void slim_is_zero_while_the_rate_is_constant(void **state) /* E1 */
{
    struct setup zero = AS_IS("dana-zero"), slim = AS_IS("dana-slim");
    (void)state;
    for (uint32_t workers = 1; workers <= 8; workers++) {
        same_runs(&zero, &slim, workers, false, false, tolerance);
        same_runs(&zero, &slim, workers, true, false, tolerance);
    }
}

/* E2, E9: with one worker every look-ahead rule is sequential Nesterov momentum, to the
 * last bit, also when the rate changes for those that do not look at the gap. */
static void one_worker_is_nesterov(void **state)
{
    static const char *const blind[] = {"dana-zero",   "dana-sa",    "dana-lga",
                                        "dana-shared", "shared-lga", "shared-lga-dot",
                                        "nag-asgd",    "sa",         "ssgd"};
    static const char *const gapped[] = {"ga",        "ga-global",     "dc-asgd",
                                         "dc-asgd-a", "dana-ga",       "dana-dc",
                                         "dana-dc-a", "dana-ga-global"};
    (void)state;
    for (size_t i = 0;
         i < sizeof blind / sizeof *blind + sizeof gapped / sizeof *gapped; i++) {
        bool gaps = i >= sizeof blind / sizeof *blind;
        struct drive d;
        number theta[K], v[K] = {0}, sent[K];
        double g[K];
        const char *rule = gaps ? gapped[i - sizeof blind / sizeof *blind] : blind[i];
        struct setup s = {.rule = rule, .own_lookahead = true, RULE_AS_IS};
        open_setup(&d, &s, 1);
        memcpy(theta, d.theta, sizeof theta);
        memcpy(sent, d.sent[0], sizeof sent);
        for (int step = 0; step < STEPS; step++) {
            double rate = !gaps && step > 60 ? 0.005 : 0.05;
            drive_gradient(sent, step, K, g);
            drive_push(&d, 0, g, rate);
            for (int j = 0; j < K; j++) {
                v[j] = (number)0.9 * v[j] + (number)g[j];
                theta[j] = theta[j] - (number)rate * v[j];
                sent[j] = theta[j] - (number)(rate * 0.9) * v[j];
            }
            if (memcmp(sent, d.sent[0], sizeof sent) ||
                memcmp(theta, d.theta, sizeof theta))
                fail_msg("%s with one worker is not Nesterov, step %d", rule, step);
        }
        drive_close(&d);
    }
}

/* E3: PyTorch's SGD(nesterov=True) holds the look-ahead point, and so does
 * DANA-Slim. */
static void slim_with_one_worker_is_nesterov_as_pytorch_has_it(void **state)
{
    struct drive d;
    number theta[K], v[K] = {0};
    double g[K];
    (void)state;
    open_with(&d, "dana-slim", 1, 0.1);
    memcpy(theta, d.theta, sizeof theta);
    for (int step = 0; step < STEPS; step++) {
        double rate = step > 60 ? 0.005 : 0.05;
        drive_gradient(theta, step, K, g);
        drive_push(&d, 0, g, rate);
        for (int j = 0; j < K; j++) {
            v[j] = (number)0.9 * v[j] + (number)g[j];
            theta[j] = theta[j] - (number)rate * ((number)0.9 * v[j] + (number)g[j]);
        }
        assert_memory_equal(theta, d.sent[0], sizeof theta);
    }
    drive_close(&d);
}

static void
limits_are_their_base_rules_to_the_bit(void **state) /* E4, E5, E9, E10, E11 */
{
    struct setup without = {RULE_AS_IS}, base;
    static const char *const flat[] = {"dana-zero",  "dana-slim", "multi-asgd",
                                       "nag-asgd",   "hb-asgd",   "lwp",
                                       "dana-shared"};
    static const char *const tau0[] = {"sa-plain", "ga-plain", "dc-plain"};
    (void)state;
    base = AS_IS("hb-asgd");
    same_runs(&(struct setup){.rule = "multi-asgd", RULE_AS_IS}, &base, 1, true, true,
              0);
    without.rule = "lwp", without.horizon = -1.0;
    same_runs(&without, &base, 5, false, true, 0);
    base = AS_IS("nag-asgd");
    without.horizon = 0.9;
    same_runs(&without, &base, 5, false, true, 0);
    same_runs(&(struct setup){.rule = "sa", RULE_AS_IS}, &base, 2, true, true, 0);

    base = AS_IS("asgd");
    for (size_t i = 0; i < sizeof flat / sizeof *flat; i++) {
        without = AS_IS(flat[i]), without.momentum = 0.0;
        without.horizon = -1.0;
        same_runs(&without, &base, 4, false, true, 0);
    }
    for (size_t i = 0; i < sizeof tau0 / sizeof *tau0; i++) {
        without = AS_IS(tau0[i]);
        same_runs(&without, &base, 1, true, true, 0);
    }
}

static void switched_off_is_the_base_rule_to_the_bit(void **state) /* E10 */
{
    static const struct {
        const char *rule, *base;
    } off[] = {{"dc-asgd", "nag-asgd"},
               {"dc-plain", "asgd"},
               {"dana-dc", "dana-zero"},
               {"dana-lga", "dana-zero"},
               {"ga", "nag-asgd"},
               {"ga-plain", "asgd"},
               {"ga-global", "nag-asgd"},
               {"dana-ga-global", "dana-zero"},
               {"dana-ga", "dana-zero"},
               {"shared-lga", "dana-shared"},
               {"shared-lga-dot", "dana-shared"},
               {"lga-adamw", "adamw"},
               {"dana-lga-adamw", "dana-adamw"}};
    (void)state;
    for (size_t i = 0; i < sizeof off / sizeof *off; i++)
        for (int own = 0; own < 2; own++) {
            struct setup none = {.rule = off[i].rule, .own_lookahead = own, RULE_AS_IS};
            struct setup base = AS_IS(off[i].base);
            none.lambda = none.kappa = 0.0;
            none.rate_max = 1e25; /* of Gap-Aware: no gap counts against such a step */
            same_runs(&none, &base, 6, false, true, 0);
        }
}

static void sum_of_owns(void **state) /* E6 */
{
    struct drive d;
    double g[K];
    number sum[K];
    (void)state;
    open_with(&d, "dana-zero", 7, 0.05);
    for (int step = 0; step < 20 * STEPS; step++) {
        uint32_t w = drive_pick(step, 7);
        drive_gradient(d.sent[w], step, K, g);
        drive_push(&d, w, g, 0.05);
    }
    memset(sum, 0, sizeof sum);
    for (uint32_t w = 0; w < 7; w++)
        for (int j = 0; j < K; j++)
            sum[j] += d.own[w][j];
    assert_true(distance(sum, d.all) < 10 * tolerance);
    drive_resum(&d);
    assert_memory_equal(sum, d.all, sizeof sum);
    drive_close(&d);
}

/* E7, E8: round robin, constant rate. Seen from its look-ahead, a worker's parameters
 * have moved by the N gradients in between and nothing else; just before its own update
 * by those of the others, and its own velocity's part of the look-ahead. */
static void the_look_ahead_cancels_momentum(void **state)
{
    enum {
        N = 5
    };
    struct drive d;
    double g[K], in_flight[STEPS][K], given[N][K] = {{0}};
    (void)state;
    open_with(&d, "dana-zero", N, 0.05);
    for (int step = 0; step < STEPS; step++) {
        uint32_t w = (uint32_t)step % N;
        drive_gradient(d.sent[w], step, K, g);
        memcpy(in_flight[step], g, sizeof g);
        for (int j = 0; j < K && step >= N; j++) {
            double others = 0.0, v = (double)d.own[w][j], before = (double)d.theta[j];
            for (int s = step - N + 1; s < step; s++)
                others += in_flight[s][j];
            double gap = before - (double)d.sent[w][j];
            assert_true(fabs(gap - (-0.05 * others + 0.05 * 0.9 * v)) < tolerance);
        }
        for (int j = 0; j < K; j++)
            given[w][j] = (double)d.sent[w][j];
        drive_push(&d, w, g, 0.05);
        for (int j = 0; j < K && step >= N; j++) {
            double all = 0.0;
            for (int s = step - N + 1; s <= step; s++)
                all += in_flight[s][j];
            assert_true(fabs((double)d.theta[j] - given[w][j] + 0.05 * all) <
                        tolerance);
        }
    }
    drive_close(&d);
}

static void ids_do_not_matter(void **state) /* E14 */
{
    enum {
        N = 4
    };
    static const uint32_t other[N] = {2, 0, 3, 1};
    (void)state;
    for (int i = 0; i < rules_count; i++) {
        struct drive x, y;
        double g[K];
        open_with(&x, rules[i].name, N, 0.0);
        open_with(&y, rules[i].name, N, 0.0);
        for (int step = 0; step < STEPS; step++) {
            uint32_t w = drive_pick(step, N);
            drive_gradient(drive_params(&x, w), step, K, g);
            drive_push(&x, w, g, 0.05);
            drive_push(&y, other[w], g, 0.05);
            assert_memory_equal(x.theta, y.theta, sizeof(number) * K);
            assert_memory_equal(x.sent[w], y.sent[other[w]], sizeof(number) * K);
            assert_memory_equal(x.own[w], y.own[other[w]], sizeof(number) * K);
        }
        drive_close(&x);
        drive_close(&y);
    }
}

/* E15: an exchange takes from one side what it gives to the other. With numbers that
 * have room for it nothing is rounded and the sum stays as it is to the bit. */
static void an_exchange_conserves(void **state)
{
    struct drive d;
    double g[K];
    (void)state;
    open_with(&d, "easgd", 2, 0.0);
    d.period = 1, d.settings.elastic = 0.25;
    for (int step = 0; step < STEPS; step++) {
        double before[K];
        uint32_t w = drive_pick(step, 2);
        drive_gradient(d.x[w], step, K, g);
        for (int j = 0; j < K; j++)
            before[j] = (double)(number)((double)d.x[w][j] -
                                         (double)((number)0.05 * (number)g[j])) +
                        (double)d.theta[j];
        drive_push(&d, w, g, 0.05);
        for (int j = 0; j < K; j++)
            assert_true(fabs((double)d.x[w][j] + (double)d.theta[j] - before[j]) <
                        tolerance / 50);
    }
    for (int j = 0; j < K; j++) {
        d.theta[j] = (number)(j - 50) / 64;
        d.x[0][j] = (number)(j * j % 101) / 64;
        g[j] = 0.0;
    }
    drive_push(&d, 0, g, 0.0);
    for (int j = 0; j < K; j++) {
        double kept = (j - 50) / 64.0 + j * j % 101 / 64.0;
        double sum = (double)d.x[0][j] + (double)d.theta[j];
        assert_true(sum >= kept && sum <= kept);
        assert_true(fabs((double)d.theta[j] - (double)(j - 50) / 64) > 0 ||
                    j * j % 101 == j - 50);
    }
    drive_close(&d);
}

/* The gradients between two exchanges are the worker's own affair: easgd walks as SGD
 * does, eamsgd as PyTorch's Nesterov does, and the master stays where it is. */
static void between_exchanges_a_worker_is_alone(void **state)
{
    (void)state;
    for (int nesterov = 0; nesterov < 2; nesterov++) {
        struct drive d;
        number x[K], theta[K], v[K] = {0};
        double g[K];
        open_with(&d, nesterov ? "eamsgd" : "easgd", 3, 0.0);
        d.period = STEPS + 1;
        memcpy(x, d.x[1], sizeof x);
        memcpy(theta, d.theta, sizeof theta);
        for (int step = 0; step < STEPS; step++) {
            double rate = step > 60 ? 0.005 : 0.05;
            drive_gradient(d.x[1], step, K, g);
            drive_push(&d, 1, g, rate);
            for (int j = 0; j < K; j++) {
                number by = (number)g[j];
                v[j] = (number)0.9 * v[j] + (number)g[j];
                if (nesterov)
                    by = (number)g[j] + (number)0.9 * v[j];
                x[j] = x[j] - (number)rate * by;
            }
            assert_memory_equal(x, d.x[1], sizeof x);
            assert_memory_equal(theta, d.theta, sizeof theta);
        }
        assert_int_equal(d.version, 0);
        drive_close(&d);
    }
}

/* With one worker, alpha = 1 and an exchange after every gradient, worker and master
 * change places each time: two independent walks, one gradient in two each. */
static void one_elastic_worker_with_alpha_one_changes_places(void **state)
{
    struct drive d;
    number theta[K], x[K];
    double g[K];
    (void)state;
    open_with(&d, "easgd", 1, 0.0);
    d.period = 1, d.settings.elastic = 1.0;
    for (int j = 0; j < K; j++)
        d.x[0][j] = theta[j] = (number)(j % 7) / 8, d.theta[j] = x[j] = (number)-1;
    for (int step = 0; step < STEPS; step++) {
        for (int j = 0; j < K; j++)
            g[j] = (step + j) % 5 - 2;
        drive_push(&d, 0, g, 0.125);
        for (int j = 0; j < K; j++) {
            number walked = theta[j] - (number)0.125 * (number)g[j];
            theta[j] = x[j], x[j] = walked;
        }
        assert_memory_equal(theta, d.x[0], sizeof theta);
        assert_memory_equal(x, d.theta, sizeof x);
    }
    drive_close(&d);
}

/* The gate from dot products, with nothing kept per worker, is the gate from the gap:
 * the same walk, and at every step the same gates. */
static void dots_are_as_good_as_the_gap(void **state)
{
    static const double kappas[] = {0.5, 10, 60};
    const double per_gate = sizeof(number) == sizeof(double) ? 1e-12 : 2e-5;
    struct setup gap = AS_IS("shared-lga"), dot = AS_IS("shared-lga-dot");
    double closed = 0.0;
    (void)state;
    for (size_t i = 0; i < sizeof kappas / sizeof *kappas; i++)
        for (uint32_t workers = 1; workers <= 16; workers *= 2) {
            struct drive x, y;
            double g[K];
            gap.kappa = dot.kappa = kappas[i];
            same_runs(&gap, &dot, workers, false, true, 5 * tolerance);
            open_setup(&x, &gap, workers);
            open_setup(&y, &dot, workers);
            for (int step = 0; step < STEPS; step++) {
                uint32_t w = drive_pick(step, workers);
                memcpy(y.theta, x.theta, sizeof(number) * K); /* step by step */
                memcpy(y.all, x.all, sizeof(number) * K);
                for (uint32_t other = 0; other < workers; other++)
                    memcpy(y.sent[other], x.sent[other], sizeof(number) * K);
                drive_gradient(x.sent[w], step, K, g);
                drive_push(&x, w, g, 0.05);
                drive_push(&y, w, g, 0.05);
                closed += (K - x.sums.gate_sum) / K;
                if (!(fabs(x.sums.gate_sum - y.sums.gate_sum) <=
                      per_gate * fmax(1, kappas[i] / 10) * K))
                    fail_msg("kappa %g, %u workers, step %d: gates %.9g and %.9g",
                             kappas[i], (unsigned)workers, step, x.sums.gate_sum,
                             y.sums.gate_sum);
            }
            drive_close(&x);
            drive_close(&y);
        }
    assert_true(closed > 10); /* there were gates to compare */
}

/* dn: as many gradients as workers, from any of them, are one step of Nesterov's
 * momentum along their mean; also while workers leave, then for as many as there were
 * when the first of them came. */
static void a_round_of_delayed_nesterov_is_nesterov(void **state)
{
    double theta[K], v[K] = {0}, mean[K] = {0}, g[K];
    uint32_t n = 4, in = 0;
    struct drive d;

    (void)state;
    open_with(&d, "dn", n, 0.05);
    for (int j = 0; j < K; j++)
        theta[j] = (double)d.theta[j];
    for (int step = 0; step < STEPS; step++) {
        uint32_t w = drive_pick(step, d.active);
        if (step == 50) /* two of four are in the buffer */
            d.active = 3;
        drive_gradient(d.sent[w], step, K, g);
        drive_push(&d, w, g, 0.05);
        for (int j = 0; j < K; j++)
            mean[j] += g[j] / n;
        if (++in < n)
            continue;
        for (int j = 0; j < K; j++) {
            v[j] = 0.9 * v[j] + mean[j];
            theta[j] -= 0.05 * (mean[j] + 0.9 * v[j]);
            mean[j] = 0.0;
            if (!(fabs(theta[j] - (double)d.theta[j]) < 10 * tolerance))
                fail_msg("element %d, step %d: %.17g, not %.17g", j, step,
                         (double)d.theta[j], theta[j]);
        }
        assert_memory_equal(d.theta, d.sent[w], sizeof(number) * K);
        in = 0, n = d.active;
    }
    assert_int_equal(n, 3);
    drive_close(&d);
}

static int equivalence_cases(const struct compute *compute)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slim_is_zero_while_the_rate_is_constant),
        cmocka_unit_test(one_worker_is_nesterov),
        cmocka_unit_test(slim_with_one_worker_is_nesterov_as_pytorch_has_it),
        cmocka_unit_test(limits_are_their_base_rules_to_the_bit),
        cmocka_unit_test(switched_off_is_the_base_rule_to_the_bit),
        cmocka_unit_test(sum_of_owns),
        cmocka_unit_test(the_look_ahead_cancels_momentum),
        cmocka_unit_test(ids_do_not_matter),
        cmocka_unit_test(dots_are_as_good_as_the_gap),
        cmocka_unit_test(a_round_of_delayed_nesterov_is_nesterov),
        cmocka_unit_test(an_exchange_conserves),
        cmocka_unit_test(between_exchanges_a_worker_is_alone),
        cmocka_unit_test(one_elastic_worker_with_alpha_one_changes_places),
    };
    under_test = compute;
    return cmocka_run_group_tests_name(compute->name, tests, NULL, NULL);
}

#endif
