/* The test functions: values, exact gradients, noise, determinism, names. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "cluster/workloads/toy.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[] = {"quadratic", "valley"};

static struct toy make(const char *spec)
{
    struct gapless_error error = {.text = ""};
    struct toy toy = {.dim = 0};

    if (toy_parse(spec, &toy, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    return toy;
}

static void names_are_known(void **state)
{
    struct toy toy = make("quadratic");

    (void)state;
    assert_true(toy_is("quadratic") && toy_is("valley:") && toy_is("valley:8:x"));
    assert_false(toy_is("quadratics") || toy_is("") || toy_is("mlp:64") ||
                 toy_is("Valley") || toy_is("quad"));
    assert_int_equal(toy.dim, 64);
    assert_true(fabs(toy.sigma - 0.1) < 1e-15);
    assert_int_equal(toy.kind, TOY_QUADRATIC);
    toy = make("valley:7:0.25");
    assert_string_equal(toy.spec, "valley:7:0.25");
    assert_int_equal(toy.dim, 7);
    assert_true(fabs(toy.sigma - 0.25) < 1e-15);
    assert_int_equal(toy.kind, TOY_VALLEY);
    assert_true(fabs(make("valley:1:1e-3").sigma - 1e-3) < 1e-15);
    assert_true(fabs(make("valley:1:0").sigma) < 1e-15);
}

static void refuses(const char *spec, const char *says)
{
    struct gapless_error error = {.text = ""};
    struct toy toy = {.dim = 77};

    assert_int_equal(toy_parse(spec, &toy, &error), GAPLESS_INVALID);
    if (strstr(error.text, says) == NULL)
        fail_msg("\"%s\": \"%s\" does not say \"%s\"", spec, error.text, says);
    assert_int_equal(toy.dim, 77);
    assert_int_equal(toy_parse(spec, &toy, NULL), GAPLESS_INVALID);
}

static void bad_specs_are_refused(void **state)
{
    static const char *const wrong[] = {"",
                                        "mlp:64",
                                        "valley:",
                                        "valley:-1",
                                        "valley:x",
                                        "valley:8,8",
                                        "valley:8:",
                                        "valley:8:x",
                                        "valley:8:+1",
                                        "valley:8:0x1",
                                        "valley: 8",
                                        "valley:8:inf",
                                        "valley:8:nan",
                                        "valley:8:1:2",
                                        "valley:8:0.1.2",
                                        "valley:8 ",
                                        "valley:8:1e",
                                        "valley:8: 0.1",
                                        "valley:8:0.1 ",
                                        "valley%s%n:3"};
    char huge[200];

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        refuses(wrong[i], "choose one of quadratic[:DIM");
    refuses("valley:0", "1 to 16777216");
    refuses("valley:16777217", "1 to 16777216");
    refuses("valley:99999999999999999999999", "1 to 16777216");
    refuses("valley:8:-1", "0 to 1e+06");
    refuses("valley:8:1e7", "0 to 1e+06");
    refuses("valley:8:1e999", "0 to 1e+06");
    memset(huge, '0', sizeof huge);
    memcpy(huge, "valley:8:0.", 11);
    huge[sizeof huge - 1] = '\0';
    refuses(huge, "choose one of");
}

/* The functions again, from their formulas. */
static double plain(const struct toy *toy, const double *x)
{
    double sum = 0.0;

    for (uint32_t i = 0; i < toy->dim; i++) {
        double h = toy->dim == 1 ? 1.0 : pow(10.0, (double)i / (toy->dim - 1) - 1.0);
        double square = x[i] * x[i];

        sum += h * (toy->kind == TOY_QUADRATIC
                        ? square / 2
                        : square / (2 * (1 + square)) + square / 40);
    }
    return sum;
}

static void exact_gradients(void **state)
{
    static const char *const specs[] = {"quadratic:64:0", "valley:64:0",
                                        "quadratic:1:0", "valley:1:0", "valley:5:0"};

    (void)state;
    for (size_t s = 0; s < sizeof specs / sizeof specs[0]; s++) {
        struct toy toy = make(specs[s]);
        float theta[64], grad[64];
        double x[64], norm = 0.0, loss;

        toy_init(&toy, 4, theta);
        loss = toy_gradient(&toy, 1, 0, theta, grad);
        for (uint32_t i = 0; i < toy.dim; i++)
            x[i] = (double)theta[i];
        assert_true(fabs(loss - plain(&toy, x)) < 1e-12 * (1.0 + loss));
        assert_true(fabs(toy_gradient(&toy, 1, 0, theta, NULL) - loss) < 1e-15);
        for (uint32_t i = 0; i < toy.dim; i++) {
            double was = x[i], up, down;

            x[i] = was + 1e-5;
            up = plain(&toy, x);
            x[i] = was - 1e-5;
            down = plain(&toy, x);
            x[i] = was;
            norm += (up - down) / 2e-5 * ((up - down) / 2e-5);
            assert_true(fabs((up - down) / 2e-5 - (double)grad[i]) < 1e-6);
        }
        assert_true(norm > 0.0);
        assert_true(fabs(toy_grad_norm_sq(&toy, theta) - norm) < 1e-6 * norm);
    }
}

/* The bounds on the curvature that the header states. */
static void curvature_is_bounded(void **state)
{
    struct toy toy = make("valley:1:0");
    double least = 0.0, most = 0.0;

    (void)state;
    for (int i = -4000; i < 4000; i++) {
        float a = (float)i / 256.0F, b = (float)(i + 1) / 256.0F, at, to;
        double slope;

        (void)toy_gradient(&toy, 1, 0, &a, &at);
        (void)toy_gradient(&toy, 1, 0, &b, &to);
        slope = ((double)to - (double)at) * 256.0;
        least = fmin(least, slope);
        most = fmax(most, slope);
        if (i != 0) /* downhill is always towards 0 */
            assert_true((at > 0.0F) == (a > 0.0F));
    }
    assert_true(most < 1.0501 && most > 1.049);
    assert_true(least > -0.2001 && least < -0.199);
}

static void noise_is_as_asked(void **state)
{
    enum {
        BATCHES = 4000,
        DIM = 4
    };

    (void)state;
    for (size_t k = 0; k < 2; k++) {
        struct toy toy = make(k == 0 ? "quadratic:4:0.3" : "valley:4:0.3");
        struct toy exact = make(k == 0 ? "quadratic:4:0" : "valley:4:0");
        float theta[DIM], grad[DIM], want[DIM];
        double sum[DIM] = {0}, squares[DIM] = {0}, products = 0.0;

        toy_init(&toy, 9, theta);
        (void)toy_gradient(&exact, 0, 0, theta, want);
        for (uint64_t b = 0; b < BATCHES; b++) {
            double loss = toy_gradient(&toy, 5, b, theta, grad);

            assert_true(fabs(loss - toy_gradient(&exact, 0, 0, theta, NULL)) < 1e-15);
            for (size_t i = 0; i < DIM; i++) {
                double n = (double)grad[i] - (double)want[i];

                sum[i] += n;
                squares[i] += n * n;
            }
            products += ((double)grad[0] - (double)want[0]) *
                        ((double)grad[1] - (double)want[1]);
        }
        for (size_t i = 0; i < DIM; i++) { /* four deviations of each estimate */
            assert_true(fabs(sum[i] / BATCHES) < 4 * 0.3 / sqrt(BATCHES));
            assert_true(fabs(squares[i] / BATCHES / 0.09 - 1.0) <
                        4 * sqrt(2.0 / BATCHES));
        }
        assert_true(fabs(products / BATCHES / 0.09) < 4 / sqrt(BATCHES));
    }
}

static void same_seed_same_bits(void **state)
{
    (void)state;
    for (size_t k = 0; k < 2; k++) {
        struct toy toy = make(names[k]);
        float a[64], b[64], theta[64];

        toy_init(&toy, 3, theta);
        toy_init(&toy, 3, a);
        assert_memory_equal(a, theta, sizeof a);
        toy_init(&toy, 4, a);
        assert_memory_not_equal(a, theta, sizeof a);
        (void)toy_gradient(&toy, 1, 10, theta, a);
        (void)toy_gradient(&toy, 1, 11, theta, b); /* another batch */
        assert_memory_not_equal(a, b, sizeof a);
        (void)toy_gradient(&toy, 2, 10, theta, b); /* another seed */
        assert_memory_not_equal(a, b, sizeof a);
        (void)toy_gradient(&toy, 1, 10, theta, b);
        assert_memory_equal(a, b, sizeof a);
    }
}

static void broken_numbers_show(void **state)
{
    (void)state;
    for (size_t k = 0; k < 2; k++)
        for (int v = 0; v < 2; v++) {
            struct toy toy = make(names[k]);
            float theta[64], grad[64];

            toy_init(&toy, 3, theta);
            theta[5] = v == 0 ? NAN : INFINITY;
            assert_true(!isfinite(toy_gradient(&toy, 1, 0, theta, grad)));
            assert_true(!isfinite(grad[5]));
            assert_true(isfinite(grad[6]));
            assert_true(!isfinite(toy_grad_norm_sq(&toy, theta)));
        }
}

/* Plain descent ends at the bottom, as near as the noise lets it. */
static void descent_converges(void **state)
{
    (void)state;
    for (size_t k = 0; k < 2; k++) {
        struct toy toy = make(names[k]);
        float theta[64], grad[64];
        double before, after;

        toy_init(&toy, 1, theta);
        before = toy_grad_norm_sq(&toy, theta);
        for (uint64_t b = 0; b < 5000; b++) {
            (void)toy_gradient(&toy, 1, b, theta, grad);
            for (size_t i = 0; i < 64; i++)
                theta[i] -= 0.1F * grad[i];
        }
        after = toy_grad_norm_sq(&toy, theta);
        assert_true(after < 0.05 * before && after < 0.1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_known),     cmocka_unit_test(bad_specs_are_refused),
        cmocka_unit_test(exact_gradients),     cmocka_unit_test(curvature_is_bounded),
        cmocka_unit_test(noise_is_as_asked),   cmocka_unit_test(same_seed_same_bits),
        cmocka_unit_test(broken_numbers_show), cmocka_unit_test(descent_converges),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
