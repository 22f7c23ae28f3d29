/* The rules of the Adam family: what must be equal to what, and what keeps them bounded.
 * Built twice: test_adam.c (float) and test_adam_double.c.
 *
 * "bits": equal to the last bit, which holds because the operations are the same ones. */
#ifndef GAPLESS_TESTS_ADAM_CASES_H
#define GAPLESS_TESTS_ADAM_CASES_H

#include "tests/property/drive.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

enum {
    K = 100,
    STEPS = 200,
    VECTOR = K * sizeof(number)
};

static const struct compute *under_test;
static const uint32_t ends[] = {7, 32, 61, 100};
static const double tolerance = sizeof(number) == sizeof(double) ? 1e-12 : 2e-5;
static const double rate = 0.01;

static void open_with(struct drive *d, const char *rule, uint32_t workers)
{
    drive_open(d, under_test, rule, K, workers);
    d->blocks.ends = ends;
    d->blocks.count = sizeof ends / sizeof *ends;
    for (size_t j = 0; j < K; j++)
        d->theta[j] = (number)(0.01 * (double)j - 0.5);
    for (uint32_t w = 0; w < workers; w++)
        drive_give(d, w, 0.0);
}

/* ---- one worker ---------------------------------------------------------- */

/* As torch.optim.AdamW has it: decay first, both means from 0, corrected when used. */
struct textbook {
    double theta[K], first[K], second[K];
    int steps;
};

static void textbook_step(struct textbook *t, const double *g, double lr)
{
    double scale = 1.0 - pow(0.9, ++t->steps), scale2 = 1.0 - pow(0.95, t->steps);

    for (int j = 0; j < K; j++) {
        if (drive_decays((size_t)j))
            t->theta[j] *= 1.0 - lr * 0.1;
        t->first[j] = 0.9 * t->first[j] + 0.1 * g[j];
        t->second[j] = 0.95 * t->second[j] + 0.05 * g[j] * g[j];
        t->theta[j] -=
            lr / scale * t->first[j] / (sqrt(t->second[j]) / sqrt(scale2) + 1e-8);
    }
}

/* For the gradients that it is given, theta is AdamW's; a rule that sends theta is AdamW
 * altogether. */
static void one_worker_is_adamw(void **state)
{
    static const struct {
        const char *rule;
        bool sends_theta;
    } rows[] = {{"adamw", true},
                {"lga-adamw", true},
                {"la-adamw", true},
                {"ssgd-adamw", true},
                {"dana-adamw", false},
                {"dana-lga-adamw", false},
                {"shared-lga-adamw", false}};
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct textbook t = {.steps = 0};
        struct drive d;
        number x[K];
        double g[K];

        open_with(&d, rows[i].rule, 1);
        for (int j = 0; j < K; j++)
            t.theta[j] = (double)d.theta[j];
        for (int step = 0; step < STEPS; step++) {
            double lr = step < 20 ? rate * step / 20 : step < 150 ? rate : rate / 10;
            for (int j = 0; j < K; j++)
                x[j] = rows[i].sends_theta ? (number)t.theta[j] : d.sent[0][j];
            drive_gradient(x, step, K, g);
            drive_push(&d, 0, g, lr);
            textbook_step(&t, g, lr);
            for (int j = 0; j < K; j++)
                if (!(fabs((double)d.theta[j] - t.theta[j]) < tolerance))
                    fail_msg("%s with one worker, step %d: %.17g, not %.17g",
                             rows[i].rule, step, (double)d.theta[j], t.theta[j]);
            if (rows[i].sends_theta)
                assert_memory_equal(d.sent[0], d.theta, VECTOR);
        }
        drive_close(&d);
    }
}

/* A lone worker's own look-ahead is all of it: without it nothing is left of the gap, and
 * no kappa closes a gate. */
static void the_gap_of_one_worker_is_zero_to_the_bit(void **state)
{
    static const char *const names[] = {"dana-lga-adamw", "shared-lga-adamw",
                                        "lga-adamw"};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct drive d;
        double g[K];

        open_with(&d, names[i], 1);
        d.settings.kappa = 1e30;
        for (int step = 0; step < STEPS; step++) {
            drive_gradient(d.sent[0], step, K, g);
            d.read[0] = d.version - 1; /* as if it had a lag: the gap is measured */
            drive_push(&d, 0, g, step < 100 ? rate : rate / 10);
            assert_true(d.sums.gate_sum >= (double)K);
        }
        drive_close(&d);
    }
}

static void shared_is_dana_for_one_worker(void **state)
{
    struct drive x, y;
    double g[K];

    (void)state;
    open_with(&x, "dana-adamw", 1);
    open_with(&y, "shared-lga-adamw", 1);
    for (int step = 0; step < STEPS; step++) {
        drive_gradient(x.sent[0], step, K, g);
        drive_push(&x, 0, g, rate);
        drive_push(&y, 0, g, rate);
        for (int j = 0; j < K; j++)
            assert_true(fabs((double)x.sent[0][j] - (double)y.sent[0][j]) < tolerance);
    }
    drive_close(&x);
    drive_close(&y);
}

/* ---- several ------------------------------------------------------------- */

/* Without a first mean there is nothing to look ahead along, and the rules differ in
 * nothing but whether beta2 is given for a round or for an update. */
static void without_beta1_all_are_one_rule_to_the_bit(void **state)
{
    static const char *const names[] = {"dana-adamw", "shared-lga-adamw", "adamw"};
    enum {
        N = 5
    };
    struct drive d[3];
    double g[K];

    (void)state;
    for (int i = 0; i < 3; i++) {
        open_with(&d[i], names[i], N);
        d[i].settings.momentum = 0.0;
        d[i].settings.kappa = 1e-300;
    }
    d[2].settings.beta2 = rules_root(d[2].settings.beta2, N);
    for (int step = 0; step < STEPS; step++) {
        uint32_t w = drive_pick(step, N);

        for (int i = 0; i < 3; i++) {
            drive_gradient(d[i].sent[w], step, K, g);
            drive_push(&d[i], w, g, rate);
            assert_memory_equal(d[i].theta, d[0].theta, VECTOR);
            assert_memory_equal(d[i].square, d[0].square, VECTOR);
            assert_memory_equal(d[i].sent[w], d[i].theta, VECTOR);
        }
    }
    for (int i = 0; i < 3; i++)
        drive_close(&d[i]);
}

/* Adam does not see the scale of a loss, if epsilon has it, too; nor does the gate, if
 * kappa is in the loss's unit. */
static void the_scale_of_the_loss_does_not_matter(void **state)
{
    (void)state;
    for (int i = 0; i < rules_count; i++) {
        struct drive x, y;
        double g[K];

        if (!(rules[i].flags & RULE_ADAM))
            continue;
        open_with(&x, rules[i].name, 4);
        open_with(&y, rules[i].name, 4);
        y.settings.epsilon *= 1024.0;
        y.settings.kappa /= 1024.0;
        for (int step = 0; step < STEPS; step++) {
            uint32_t w = drive_pick(step, 4);

            drive_gradient(x.sent[w], step, K, g);
            drive_push(&x, w, g, rate);
            for (int j = 0; j < K; j++)
                g[j] *= 1024.0;
            drive_push(&y, w, g, rate);
            if (memcmp(x.theta, y.theta, VECTOR) ||
                memcmp(x.sent[w], y.sent[w], VECTOR))
                fail_msg("%s, step %d: other bits with 1024 times the gradient",
                         rules[i].name, step);
        }
        drive_close(&x);
        drive_close(&y);
    }
}

static void compare_sum(const struct drive *d)
{
    for (int j = 0; j < K; j++) {
        double sum = 0.0;
        for (uint32_t w = 0; w < d->workers; w++)
            sum += (double)d->own[w][j];
        assert_true(fabs(sum - (double)d->all[j]) < 10 * tolerance);
    }
}

static void all_is_the_sum_of_own_through_joins_and_leaves(void **state)
{
    enum {
        N = 6
    };
    struct drive d;
    double g[K];
    bool here[N] = {true, true, true, true, true, true};

    (void)state;
    open_with(&d, "dana-lga-adamw", N);
    for (int step = 0; step < 10 * STEPS; step++) {
        uint32_t w = drive_pick(step, N), other = drive_pick(step + 77777, N);

        if (step % 37 == 36 && d.active > 2 && here[other]) {
            drive_forget(&d, other);
            here[other] = false;
        } else if (step % 23 == 22 && !here[other]) {
            drive_join(&d, other);
            drive_give(&d, other, rate);
            here[other] = true;
        }
        if (!here[w])
            continue;
        drive_gradient(d.sent[w], step, K, g);
        drive_push(&d, w, g, rate);
        compare_sum(&d);
    }
    drive_close(&d);
}

static void who_joins_and_leaves_changes_nothing(void **state)
{
    static number theta[K], square[K];
    struct step_history history;
    struct drive d;
    double g[K];

    (void)state;
    open_with(&d, "dana-adamw", 4);
    drive_forget(&d, 3);
    for (int step = 0; step < STEPS; step++) {
        uint32_t w = drive_pick(step, 3);
        drive_gradient(d.sent[w], step, K, g);
        drive_push(&d, w, g, rate);
    }
    memcpy(theta, d.theta, sizeof theta);
    memcpy(square, d.square, sizeof square);
    history = d.history;
    drive_join(&d, 3);
    drive_give(&d, 3, rate);
    drive_forget(&d, 3);
    assert_memory_equal(theta, d.theta, sizeof theta);
    assert_memory_equal(square, d.square, sizeof square);
    assert_memory_equal(&history, &d.history, sizeof history);
    drive_close(&d);
}

/* ---- bounds -------------------------------------------------------------- */

/* Element 0 has gradients in the first 100 updates only. Its square fades with every
 * update, the first mean of each worker only with its own: with beta2 for each update,
 * the worker that is last to move it would make 2,400 steps of it. */
static void a_silent_element_stays_bounded(void **state)
{
    enum {
        N = 32
    };
    struct drive d;
    double g[K];

    (void)state;
    open_with(&d, "dana-adamw", N);
    for (int step = 0; step < 200 * N; step++) {
        uint32_t w = step < 3 * N ? (uint32_t)step % N : drive_pick(step, N);
        double inverse, moved, ahead;

        drive_gradient(d.sent[w], step, K, g);
        g[0] = step < 100 ? (double)(number)1e-3 : 0.0;
        if (step && step % (100 * N) == 0) /* as the master does */
            drive_resum(&d);
        drive_push(&d, w, g, 1e-3);
        inverse = 1.0 / (sqrt((double)d.square[0]) + d.settings.epsilon);
        moved = fabs((double)d.own[w][0]) * inverse;
        ahead = fabs((double)d.all[0]) * inverse;
        if (!(moved < 4.0))
            fail_msg("update %d: a silent element moves by %g steps", step, moved);
        if (step > 110 * N && !(ahead < 0.1))
            fail_msg("update %d: a silent element is sent %g steps ahead", step, ahead);
    }
    drive_close(&d);
}

/* A gate is for the first mean alone. */
static void a_gate_changes_neither_square_nor_decay(void **state)
{
    struct drive gated, open;
    double g[K], closed = 0.0;

    (void)state;
    open_with(&gated, "lga-adamw", 4);
    open_with(&open, "adamw", 4);
    gated.settings.kappa = 1e6;
    for (int step = 0; step < STEPS; step++) {
        uint32_t w = drive_pick(step, 4);

        drive_gradient(gated.sent[w], step, K, g);
        for (int j = 90; j < K; j++)
            g[j] = 0.0; /* these only decay, or stay */
        drive_push(&gated, w, g, rate);
        drive_push(&open, w, g, rate);
        assert_memory_equal(gated.square, open.square, VECTOR);
        assert_memory_equal(gated.theta + 90, open.theta + 90, 10 * sizeof(number));
        assert_true(gated.sums.gate_sum >= 0.0);
        assert_true(gated.sums.gate_sum <= (double)K);
        closed += ((double)K - gated.sums.gate_sum) / K;
    }
    assert_true(closed > STEPS / 2); /* there were gates */
    drive_close(&gated);
    drive_close(&open);
}

static void weight_decay_is_where_it_applies(void **state)
{
    (void)state;
    for (int i = 0; i < rules_count; i++) {
        struct drive d;
        double g[K] = {0.0};
        number theta[K];

        if (!(rules[i].flags & RULE_ADAM))
            continue;
        open_with(&d, rules[i].name, 2);
        memcpy(theta, d.theta, sizeof theta);
        for (int step = 0; step < STEPS; step++) {
            drive_push(&d, (uint32_t)step % 2, g, rate);
            for (int j = 0; j < K; j++) {
                number shrink = (number)0.1 * theta[j];
                if (drive_decays((size_t)j))
                    theta[j] = theta[j] - (number)rate * shrink;
            }
            assert_memory_equal(theta, d.theta, sizeof theta);
        }
        drive_close(&d);
    }
}

static int adam_cases(const struct compute *compute)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_worker_is_adamw),
        cmocka_unit_test(the_gap_of_one_worker_is_zero_to_the_bit),
        cmocka_unit_test(shared_is_dana_for_one_worker),
        cmocka_unit_test(without_beta1_all_are_one_rule_to_the_bit),
        cmocka_unit_test(the_scale_of_the_loss_does_not_matter),
        cmocka_unit_test(all_is_the_sum_of_own_through_joins_and_leaves),
        cmocka_unit_test(who_joins_and_leaves_changes_nothing),
        cmocka_unit_test(a_silent_element_stays_bounded),
        cmocka_unit_test(a_gate_changes_neither_square_nor_decay),
        cmocka_unit_test(weight_decay_is_where_it_applies),
    };
    under_test = compute;
    return cmocka_run_group_tests_name(compute->name, tests, NULL, NULL);
}

#endif
