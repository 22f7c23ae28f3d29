/* Closed forms that the rules must meet, in double: gaps on a linear loss, how far one
 * gradient moves the parameters in all, momentum with the rate inside, synchronous
 * shards. */
#include "tests/property/drive.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

extern const struct compute compute_cpu_generic; /* the double build has one */

enum {
    K = 16
};

static void open_with(struct drive *d, const char *rule, uint32_t workers, double rate)
{
    drive_open(d, &compute_cpu_generic, rule, K, workers);
    for (uint32_t w = 0; w < workers; w++)
        drive_give(d, w, rate);
}

static void constant(double *g, double value)
{
    for (int j = 0; j < K; j++)
        g[j] = value;
}

/* Every gradient is 1, workers take turns: the gap when a gradient is applied, in
 * rates. */
static double steady_gap(const char *rule, uint32_t workers)
{
    struct drive d;
    double g[K], gap = 0.0;
    open_with(&d, rule, workers, 0.0);
    d.want = WANT_GAP;
    constant(g, 1.0);
    /* 0.9^400 is 5e-19: a velocity that sees every workers-th step has settled */
    for (uint32_t step = 0; step < 400 * workers; step++) {
        drive_push(&d, step % workers, g, 0.01);
        gap = sqrt(d.sums.gap_sq / K) / 0.01;
    }
    drive_close(&d);
    return gap;
}

static void gaps_on_a_linear_loss(void **state)
{
    static const struct {
        const char *rule;
        double gap[3];
    } rows[] = {
        {"asgd", {1, 7, 31}},
        {"hb-asgd", {10, 70, 310}},
        {"multi-asgd", {10, 70, 310}},
        {"nag-asgd", {1, 61, 301}},
        {"lwp", {0, 0, 0}},
        {"dana-zero", {8, 2, 22}},
        {"dana-shared", {8, 2, 22}},
    };
    static const uint32_t workers[] = {2, 8, 32};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        for (int n = 0; n < 3; n++) {
            double gap = steady_gap(rows[i].rule, workers[n]), want = rows[i].gap[n];
            if (fabs(gap - want) > 1e-6)
                fail_msg("%s, %u workers: gap %.9f, not %.9f", rows[i].rule,
                         (unsigned)workers[n], gap, want);
        }
}

/* One gradient of 1, then none: theta moves by rate/(1 - gamma), whoever is heard
 * after. */
static void one_gradient_moves_theta_by_the_same_in_all(void **state)
{
    static const char *const names[] = {"nag-asgd",  "hb-asgd",     "multi-asgd",
                                        "dana-zero", "dana-shared", "lwp"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        for (uint32_t workers = 1; workers <= 8; workers += 7) {
            struct drive d;
            double g[K];
            open_with(&d, names[i], workers, 0.01);
            constant(g, 1.0);
            drive_push(&d, 0, g, 0.01);
            constant(g, 0.0);
            for (uint32_t step = 1; step < 400 * workers; step++)
                drive_push(&d, step % workers, g, 0.01);
            assert_true(fabs(d.theta[3] + 0.01 / (1.0 - 0.9)) < 1e-12);
            drive_close(&d);
        }
}

/* A loss gate of the expected size: 4 workers, one moved against worker 1's
 * gradient. */
static void the_loss_gate_is_one_plus_kappa_q(void **state)
{
    static const uint32_t ends[] = {4, 16};
    struct drive d;
    double g[K];
    (void)state;
    open_with(&d, "dana-lga", 2, 0.01);
    d.settings.momentum = 0.0; /* nothing is ahead */
    d.blocks.ends = ends;
    d.blocks.count = 2;
    constant(g, 0.5);
    drive_push(&d, 0, g, 0.01); /* theta = -0.005 */
    drive_push(&d, 1, g, 0.01);
    /* q = 4 * 0.5 * -0.005 = -0.01 and 12 * 0.5 * -0.005 = -0.03 */
    assert_true(fabs(d.sums.gate_sum - (4 * 0.9 + 12 * 0.7)) < 1e-12);
    assert_true(fabs(d.theta[0] + 0.005 + 0.01 * 0.9 * 0.5) < 1e-12);
    assert_true(fabs(d.theta[9] + 0.005 + 0.01 * 0.7 * 0.5) < 1e-12);
    constant(g, 100.0);
    drive_push(&d, 0, g, 0.01); /* q is far below -0.1: dropped */
    assert_true(fabs(d.sums.gate_sum) < 1e-12);
    constant(g, -1.0);
    drive_push(&d, 1, g, 0.01); /* nobody moved since */
    assert_true(fabs(d.sums.gate_sum - 16.0) < 1e-12);
    drive_close(&d);
}

/* E17: the rate outside the velocity, as here, is the rate inside with the velocities
 * scaled by rate_new/rate_old at each change (Goyal et al. 2017). */
static void rate_inside_the_velocity(void **state)
{
    static const char *const names[] = {"nag-asgd", "multi-asgd", "dana-zero"};
    enum {
        N = 3
    };
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct drive d;
        double g[K], theta[K] = {0}, v[N][K] = {{0}}, before = 0.1;
        bool shared = i == 0;
        open_with(&d, names[i], N, 0.1);
        for (int step = 0; step < 200; step++) {
            int w = shared ? 0 : step * 7 / 3 % N;
            double rate = step < 70 ? 0.1 : step < 140 ? 0.02 : 0.05;
            for (int n = 0; n < N; n++)
                for (int j = 0; j < K; j++)
                    v[n][j] *= rate / before;
            before = rate;
            for (int j = 0; j < K; j++)
                g[j] = sin(step + 0.3 * j);
            drive_push(&d, (uint32_t)(step * 7 / 3 % N), g, rate);
            for (int j = 0; j < K; j++) {
                double sent, sum = 0.0;
                v[w][j] = 0.9 * v[w][j] + rate * g[j];
                theta[j] -= v[w][j];
                for (int n = 0; n < N; n++)
                    sum += v[n][j];
                sent = theta[j] - (i == 1 ? 0.0 : 0.9 * sum);
                assert_true(fabs(sent - d.sent[step * 7 / 3 % N][j]) < 1e-12);
            }
        }
        drive_close(&d);
    }
}

/* E13: N shards in a round are one worker with the mean of their gradients. */
static void a_round_is_one_worker_with_the_mean(void **state)
{
    (void)state;
    for (uint32_t workers = 1; workers <= 7; workers += 3) {
        struct drive round, one;
        number *grad[DRIVE_WORKERS];
        double mean[K];
        open_with(&round, "ssgd", workers, 0.1);
        open_with(&one, "nag-asgd", 1, 0.1);
        for (uint32_t w = 0; w < workers; w++)
            grad[w] = drive_array(round.n);
        for (int step = 0; step < 50; step++) {
            memset(mean, 0, sizeof mean);
            for (uint32_t w = 0; w < workers; w++)
                for (int j = 0; j < K; j++) {
                    grad[w][j] = sin(step * 3.0 + w + 0.1 * j);
                    mean[j] += grad[w][j] / workers;
                }
            drive_round(&round, (const number *const *)grad, 0.1);
            drive_push(&one, 0, mean, 0.1);
            for (uint32_t w = 0; w < workers; w++)
                for (int j = 0; j < K; j++)
                    assert_true(fabs(round.sent[w][j] - one.sent[0][j]) < 1e-12);
        }
        for (uint32_t w = 0; w < workers; w++)
            free(grad[w]);
        drive_close(&round);
        drive_close(&one);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gaps_on_a_linear_loss),
        cmocka_unit_test(one_gradient_moves_theta_by_the_same_in_all),
        cmocka_unit_test(the_loss_gate_is_one_plus_kappa_q),
        cmocka_unit_test(rate_inside_the_velocity),
        cmocka_unit_test(a_round_is_one_worker_with_the_mean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
