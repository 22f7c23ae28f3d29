/* The rules of the Muon family: what must be equal to what. Built twice: test_muon.c (float,
 * with the library's products of matrices) and test_muon_double.c (plain products).
 *
 * "bits": equal to the last bit. Elsewhere NS of a float matrix is held to 1e-4 of its size:
 * it makes rounding of a small singular value up to 485 times larger. */
#ifndef GAPLESS_TESTS_MUON_CASES_H
#define GAPLESS_TESTS_MUON_CASES_H

#include "tests/property/drive.h"
#include "tests/property/oracle.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

/* Wide, tall, square and small matrices, that begin and end inside chunks of 16 and on
 * their edges; two in one chunk; and others in between. */
static const struct stretch model[] = {
    {.from = 0, .to = 24, .rows = 4, .cols = 6, .pieces = 1, .decays = true},
    {.from = 24, .to = 29, .pieces = 1},
    {.from = 29, .to = 56, .rows = 9, .cols = 3, .pieces = 1, .decays = true},
    {.from = 56, .to = 60, .rows = 2, .cols = 2, .pieces = 1, .decays = true},
    {.from = 60, .to = 64, .pieces = 1, .decays = true},
    {.from = 64, .to = 144, .rows = 8, .cols = 10, .pieces = 1, .decays = true},
    {.from = 144, .to = 150, .pieces = 1}};
enum {
    STRETCHES = sizeof model / sizeof *model,
    K = 150,
    STEPS = 200,
    VECTOR = K * sizeof(number)
};

static const struct compute *under_test;
static const double tolerance = sizeof(number) == sizeof(double) ? 1e-11 : 1e-4;
static const double rate = 0.01;

static void open_with(struct drive *d, const char *rule, uint32_t workers)
{
    drive_open(d, under_test, rule, K, workers);
    drive_matrices(d, model, STRETCHES);
    for (size_t j = 0; j < K; j++)
        d->theta[j] = (number)(0.01 * (double)(j * 37 % 101) - 0.5);
    for (uint32_t w = 0; w < workers; w++)
        drive_give(d, w, 0.0);
}

/* ---- one worker ---------------------------------------------------------- */

/* As it is written: decay first; Muon for matrices, torch.optim.AdamW for the rest. */
struct textbook {
    double theta[K], first[K], second[K];
    double rest_scale;
    int steps;
};

static void textbook_matrix(struct textbook *t, const struct stretch *s,
                            const double *g, double lr)
{
    static double u[K];

    for (uint32_t j = s->from; j < s->to; j++)
        t->first[j] = 0.95 * t->first[j] + 0.05 * g[j];
    oracle_turn(t->first + s->from, (int)s->rows, (int)s->cols, u);
    for (uint32_t j = s->from; j < s->to; j++)
        t->theta[j] = t->theta[j] * (1.0 - lr * 0.1) - lr * u[j - s->from];
}

static void textbook_rest(struct textbook *t, const struct stretch *s, const double *g,
                          double lr)
{
    double scale = 1.0 - pow(0.9, t->steps), scale2 = 1.0 - pow(0.95, t->steps);

    for (uint32_t j = s->from; j < s->to; j++) {
        t->theta[j] *= 1.0 - (s->decays ? lr * 0.1 : 0.0);
        t->first[j] = 0.9 * t->first[j] + 0.1 * g[j];
        t->second[j] = 0.95 * t->second[j] + 0.05 * g[j] * g[j];
        t->theta[j] -=
            lr / scale * t->first[j] / (sqrt(t->second[j]) / sqrt(scale2) + 1e-8);
    }
}

static void textbook_step(struct textbook *t, const double *g, double lr)
{
    t->steps++;
    for (int i = 0; i < STRETCHES; i++)
        if (model[i].rows > 0)
            textbook_matrix(t, &model[i], g, lr);
        else
            textbook_rest(t, &model[i], g, lr * t->rest_scale);
}

/* For the gradients that it is given; the scale of the rest's rate is in it. */
static void one_worker_is_the_textbook(const char *rule, bool sends_theta, double scale)
{
    struct textbook t = {.rest_scale = scale};
    struct drive d;
    number x[K];
    double g[K];

    open_with(&d, rule, 1);
    d.settings.rest_scale = scale;
    for (int j = 0; j < K; j++)
        t.theta[j] = (double)d.theta[j];
    for (int step = 0; step < STEPS; step++) {
        double lr = step < 20 ? rate * step / 20 : step < 150 ? rate : rate / 10;

        for (int j = 0; j < K; j++)
            x[j] = sends_theta ? (number)t.theta[j] : d.sent[0][j];
        drive_gradient(x, step, K, g);
        drive_push(&d, 0, g, lr);
        textbook_step(&t, g, lr);
        for (int j = 0; j < K; j++)
            if (!(fabs((double)d.theta[j] - t.theta[j]) < tolerance))
                fail_msg("%s with one worker, step %d: element %d is %.17g, not %.17g",
                         rule, step, j, (double)d.theta[j], t.theta[j]);
        if (sends_theta)
            assert_memory_equal(d.sent[0], d.theta, VECTOR);
    }
    drive_close(&d);
}

static void one_worker_is_muon(void **state)
{
    (void)state;
    one_worker_is_the_textbook("muon", true, 1.0);
    one_worker_is_the_textbook("muon-lga", true, 0.3);
    one_worker_is_the_textbook("dana-lga-muon", false, 1.0);
    one_worker_is_the_textbook("dana-lga-muon", false, 2.5);
}

/* A lone worker's own look-ahead is all of it: without it nothing is left of the gap, and
 * no kappa closes a gate, of a tensor or of all. */
static void the_gap_of_one_worker_is_zero_to_the_bit(void **state)
{
    (void)state;
    for (int whole = 0; whole < 2; whole++) {
        struct drive d;
        double g[K];

        open_with(&d, "dana-lga-muon", 1);
        d.settings.kappa = 1e30;
        d.whole = whole;
        for (int step = 0; step < STEPS; step++) {
            drive_gradient(d.sent[0], step, K, g);
            d.read[0] = d.version - 1; /* as if it had a lag: the gap is measured */
            drive_push(&d, 0, g, step < 100 ? rate : rate / 10);
            assert_true(d.sums.gate_sum >= K);
        }
        drive_close(&d);
    }
}

/* ---- several ------------------------------------------------------------- */

static void without_kappa_there_is_no_gate(void **state)
{
    struct drive gated, open;
    double g[K];

    (void)state;
    open_with(&gated, "muon-lga", 4);
    open_with(&open, "muon", 4);
    gated.settings.kappa = 1e-300;
    for (int step = 0; step < STEPS; step++) {
        uint32_t w = drive_pick(step, 4);

        drive_gradient(open.sent[w], step, K, g);
        drive_push(&gated, w, g, rate);
        drive_push(&open, w, g, rate);
        assert_memory_equal(gated.theta, open.theta, VECTOR);
        assert_memory_equal(gated.sent[w], open.sent[w], VECTOR);
    }
    drive_close(&gated);
    drive_close(&open);
}

/* A matrix whose gate is closed decays, and moves by what its mean still is. */
static void a_gate_changes_neither_square_nor_decay(void **state)
{
    struct drive gated, open;
    double g[K], closed = 0.0;

    (void)state;
    open_with(&gated, "muon-lga", 4);
    open_with(&open, "muon", 4);
    gated.settings.kappa = 1e6;
    for (int step = 0; step < STEPS; step++) {
        uint32_t w = drive_pick(step, 4);

        drive_gradient(gated.sent[w], step, K, g);
        for (uint32_t j = model[3].from; j < model[3].to; j++)
            g[j] = 0.0; /* this matrix only decays */
        drive_push(&gated, w, g, rate);
        drive_push(&open, w, g, rate);
        assert_memory_equal(gated.square, open.square, VECTOR);
        for (uint32_t j = model[3].from; j < model[3].to; j++)
            assert_memory_equal(gated.theta + j, open.theta + j, sizeof(number));
        assert_true(gated.sums.gate_sum >= 0.0);
        assert_true(gated.sums.gate_sum <= K);
        closed += 1.0 - gated.sums.gate_sum / K;
    }
    assert_true(closed > STEPS / 2); /* there were gates */
    drive_close(&gated);
    drive_close(&open);
}

static void compare_sum(const struct drive *d)
{
    for (int j = 0; j < K; j++) {
        double sum = 0.0;
        for (uint32_t w = 0; w < d->workers; w++)
            sum += (double)d->own[w][j];
        assert_true(fabs(sum - (double)d->all[j]) < 2e-5);
    }
}

/* Of the steps; what they are made of is kept of matrices only. */
static void all_is_the_sum_of_steps_through_joins_and_leaves(void **state)
{
    enum {
        N = 6
    };
    bool here[N] = {true, true, true, true, true, true};
    struct drive d;
    double g[K];

    (void)state;
    open_with(&d, "dana-lga-muon", N);
    for (int step = 0; step < 5 * STEPS; step++) {
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
        for (int i = 0; i < STRETCHES; i++)
            for (uint32_t j = model[i].from; j < model[i].to && !model[i].rows; j++)
                assert_true(fpclassify(d.mean[w][j]) == FP_ZERO);
    }
    drive_close(&d);
}

/* own of a newcomer is the mean step of the others, its mean that of their means. */
static void who_joins_begins_with_the_means(void **state)
{
    static number theta[K], square[K];
    struct drive d;
    double g[K];

    (void)state;
    open_with(&d, "dana-lga-muon", 4);
    drive_forget(&d, 3);
    for (int step = 0; step < STEPS; step++) {
        uint32_t w = drive_pick(step, 3);
        drive_gradient(d.sent[w], step, K, g);
        drive_push(&d, w, g, rate);
    }
    memcpy(theta, d.theta, sizeof theta);
    memcpy(square, d.square, sizeof square);
    drive_join(&d, 3);
    for (int j = 0; j < K; j++) {
        double own = 0.0, mean = 0.0;
        for (int w = 0; w < 3; w++)
            own += (double)d.own[w][j] / 3.0, mean += (double)d.mean[w][j] / 3.0;
        assert_true(fabs((double)d.own[3][j] - own) < 1e-5);
        assert_true(fabs((double)d.mean[3][j] - mean) < 1e-5);
    }
    compare_sum(&d);
    drive_give(&d, 3, rate);
    drive_forget(&d, 3);
    compare_sum(&d);
    for (int j = 0; j < K; j++)
        assert_true(fpclassify(d.mean[3][j]) == FP_ZERO);
    assert_memory_equal(theta, d.theta, sizeof theta);
    assert_memory_equal(square, d.square, sizeof square);
    drive_close(&d);
}

/* ---- NS ------------------------------------------------------------------ */

enum {
    SIDE = 24
};

/* NS of a matrix in the middle of a chunk; the result in ret. */
static void turned(const number *m, uint32_t rows, uint32_t cols, number *ret)
{
    struct matrix_scratch *scratch = matrix_scratch_new(SIDE * SIDE, SIDE);

    assert_non_null(scratch);
    memcpy(matrix_input(scratch) + 5, m, rows * cols * sizeof *m);
    memcpy(ret, matrix_turn(under_test, scratch, 5, rows, cols) + 5,
           rows * cols * sizeof *m);
    matrix_scratch_free(scratch);
}

/* A diagonal of singular values, turned by reflections from both sides. */
static void with_values(uint32_t rows, uint32_t cols, double least, number *ret)
{
    static double x[SIDE * SIDE], v[2][SIDE];
    double norm[2] = {0.0, 0.0};

    for (uint32_t i = 0; i < SIDE; i++)
        for (int side = 0; side < 2; side++)
            v[side][i] = i < (side ? cols : rows) ? drive_draw() - 0.5 : 0.0,
            norm[side] += v[side][i] * v[side][i];
    for (uint32_t i = 0; i < rows; i++)
        for (uint32_t j = 0; j < cols; j++)
            x[i * cols + j] = i == j ? least + (1.0 - least) * drive_draw() : 0.0;
    for (uint32_t j = 0; j < cols; j++) {
        double dot = 0.0;
        for (uint32_t i = 0; i < rows; i++)
            dot += v[0][i] * x[i * cols + j];
        for (uint32_t i = 0; i < rows; i++)
            x[i * cols + j] -= 2.0 * dot / norm[0] * v[0][i];
    }
    for (uint32_t i = 0; i < rows; i++) {
        double dot = 0.0;
        for (uint32_t j = 0; j < cols; j++)
            dot += v[1][j] * x[i * cols + j];
        for (uint32_t j = 0; j < cols; j++)
            ret[i * cols + j] =
                (number)(x[i * cols + j] - 2.0 * dot / norm[1] * v[1][j]);
    }
}

/* Singular values between least and most: those of U U' - c I are at most c off their
 * middle in every direction, which is found by the power method. */
static void has_values(const number *u, uint32_t rows, uint32_t cols, double least,
                       double most)
{
    double middle = 0.5 * (least * least + most * most), x[SIDE], grown = 0.0;
    uint32_t side = rows < cols ? rows : cols, other = rows < cols ? cols : rows;

    for (uint32_t i = 0; i < side; i++)
        x[i] = drive_draw() - 0.5;
    for (int step = 0; step < 300; step++) {
        double y[SIDE] = {0.0}, norm = 0.0;
        for (uint32_t t = 0; t < other; t++) {
            double dot = 0.0;
            for (uint32_t i = 0; i < side; i++)
                dot += (double)(rows < cols ? u[i * cols + t] : u[t * cols + i]) * x[i];
            for (uint32_t i = 0; i < side; i++)
                y[i] += (double)(rows < cols ? u[i * cols + t] : u[t * cols + i]) * dot;
        }
        for (uint32_t i = 0; i < side; i++)
            y[i] -= middle * x[i], norm += y[i] * y[i];
        grown = sqrt(norm);
        for (uint32_t i = 0; i < side; i++)
            x[i] = y[i] / grown;
    }
    if (!(grown < middle - least * least))
        fail_msg("%ux%u: a singular value is outside of %g to %g (%g, not %g)", rows,
                 cols, least, most, grown, middle - least * least);
}

static void ns_makes_singular_values_alike(void **state)
{
    static const uint32_t sizes[][2] = {{2, 2},  {3, 17}, {17, 3}, {8, 8},
                                        {24, 5}, {5, 24}, {24, 24}};
    static number m[SIDE * SIDE], u[SIDE * SIDE], t[SIDE * SIDE], v[SIDE * SIDE];

    (void)state;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int again = 0; again < 5; again++) {
            uint32_t rows = sizes[s][0], cols = sizes[s][1];

            with_values(rows, cols, 0.3, m);
            turned(m, rows, cols, u);
            has_values(u, rows, cols, 0.65, 1.25);
            for (uint32_t i = 0; i < rows; i++)
                for (uint32_t j = 0; j < cols; j++)
                    t[j * rows + i] = m[i * cols + j];
            turned(t, cols, rows, v);
            for (uint32_t i = 0; i < rows; i++)
                for (uint32_t j = 0; j < cols; j++)
                    assert_true(fabs((double)v[j * rows + i] -
                                     (double)u[i * cols + j]) < tolerance);
        }
}

static void ns_of_zero_is_zero(void **state)
{
    static number m[SIDE * SIDE], u[SIDE * SIDE];

    (void)state;
    memset(m, 0, sizeof m);
    turned(m, 7, SIDE, u);
    assert_memory_equal(m, u, 7 * SIDE * sizeof(number));
}

/* Beyond what keeps 0 from being divided by 0. */
static void ns_does_not_see_scale(void **state)
{
    static number m[SIDE * SIDE], u[SIDE * SIDE], v[SIDE * SIDE];

    (void)state;
    with_values(8, SIDE, 0.3, m);
    turned(m, 8, SIDE, u);
    for (int i = 0; i < 8 * SIDE; i++)
        m[i] *= (number)0x1p20;
    turned(m, 8, SIDE, v);
    for (int i = 0; i < 8 * SIDE; i++)
        assert_true(fabs((double)u[i] - (double)v[i]) < 10 * tolerance);
}

/* The products that the library was built with, and the plain ones, in every form. */
static void products_agree(void **state)
{
    static number a[SIDE * SIDE], b[SIDE * SIDE], c[SIDE * SIDE], plain[SIDE * SIDE];

    (void)state;
    for (int form = 0; form < 8; form++) {
        struct product p = {.rows = 7,
                            .cols = 11,
                            .inner = 13,
                            .a_transposed = form & 1,
                            .b_transposed = (form & 2) != 0,
                            .alpha = (number)1.5,
                            .beta = form & 4 ? (number)0.5 : 0,
                            .a = a,
                            .b = b,
                            .c = c};

        for (int i = 0; i < SIDE * SIDE; i++)
            a[i] = (number)(drive_draw() - 0.5), b[i] = (number)(drive_draw() - 0.5),
            c[i] = plain[i] = (number)drive_draw();
        products_best(&p);
        p.c = plain;
        products_plain(&p);
        for (uint32_t i = 0; i < 7; i++)
            for (uint32_t j = 0; j < 11; j++) {
                double sum = 0.0;
                for (uint32_t t = 0; t < 13; t++)
                    sum += (double)a[form & 1 ? t * 7 + i : i * 13 + t] *
                           (double)b[form & 2 ? j * 13 + t : t * 11 + j];
                (void)sum;
                assert_true(fabs((double)c[i * 11 + j] - (double)plain[i * 11 + j]) <
                            1e-5);
                if (!(form & 4))
                    assert_true(fabs((double)c[i * 11 + j] - 1.5 * sum) < 1e-5);
            }
    }
}

static int muon_cases(const struct compute *compute)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_worker_is_muon),
        cmocka_unit_test(the_gap_of_one_worker_is_zero_to_the_bit),
        cmocka_unit_test(without_kappa_there_is_no_gate),
        cmocka_unit_test(a_gate_changes_neither_square_nor_decay),
        cmocka_unit_test(all_is_the_sum_of_steps_through_joins_and_leaves),
        cmocka_unit_test(who_joins_begins_with_the_means),
        cmocka_unit_test(ns_makes_singular_values_alike),
        cmocka_unit_test(ns_of_zero_is_zero),
        cmocka_unit_test(ns_does_not_see_scale),
        cmocka_unit_test(products_agree),
    };
    under_test = compute;
    return cmocka_run_group_tests_name(compute->name, tests, NULL, NULL);
}

#endif
