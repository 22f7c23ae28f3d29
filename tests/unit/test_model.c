/* The built-in models: names, layout, starting values, and gradients against finite
 * differences of a loss written here again, in double. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "cluster/workloads/sampler.h"
#include "tests/unit/model_bed.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const enum model_ops both[] = {MODEL_REF, MODEL_BLAS};

/* The loss again, as plainly as possible, knowing only the documented layout. */
static double plain_loss(const struct bed *bed, const double *theta)
{
    const struct model *m = &bed->model;
    double loss = 0.0;

    for (uint32_t b = 0; b < bed->batch; b++) {
        double a[512], z[512], sum = 0.0;
        const double *at = theta;

        for (uint32_t i = 0; i < m->features; i++)
            a[i] = (double)bed->x[b * m->features + i];
        for (uint32_t l = 1; l <= m->layers; l++) {
            uint32_t inputs = m->widths[l - 1], outputs = m->widths[l];
            const double *bias = at + (size_t)inputs * outputs;

            for (uint32_t o = 0; o < outputs; o++) {
                z[o] = bias[o];
                for (uint32_t i = 0; i < inputs; i++)
                    z[o] += at[o * inputs + i] * a[i];
            }
            for (uint32_t o = 0; o < outputs; o++)
                a[o] = l < m->layers ? fmax(z[o], 0.0) : z[o];
            at = bias + outputs;
        }
        for (uint32_t c = 0; c < m->classes; c++)
            sum += exp(a[c]);
        loss += log(sum) - a[bed->labels[b]];
    }
    return loss / bed->batch;
}

static void against_differences(const char *spec, uint32_t features, uint32_t classes,
                                uint32_t batch)
{
    for (int o = 0; o < 2; o++) {
        const double step = 1e-6;
        struct bed bed;
        double *theta, loss, scale = 0.0;

        make_bed(&bed, spec, features, classes, batch, both[o]);
        theta = malloc(bed.model.parameters * sizeof *theta);
        assert_non_null(theta);
        for (size_t i = 0; i < bed.model.parameters; i++) {
            theta[i] = (double)bed.theta[i];
            bed.grad[i] = NAN; /* to be overwritten */
        }
        loss = gradient_of(&bed);
        assert_true(fabs(loss - plain_loss(&bed, theta)) < 2e-6 * (1.0 + loss));
        for (size_t i = 0; i < bed.model.parameters; i++)
            scale = fmax(scale, fabs((double)bed.grad[i]));
        assert_true(scale > 1e-3);
        for (size_t i = 0; i < bed.model.parameters; i++) {
            double was = theta[i], up, down;

            theta[i] = was + step;
            up = plain_loss(&bed, theta);
            theta[i] = was - step;
            down = plain_loss(&bed, theta);
            theta[i] = was;
            if (!(fabs((up - down) / (2 * step) - (double)bed.grad[i]) < 4e-6 * scale))
                fail_msg("%s ops %d parameter %zu: %g, by differences %g", spec, o, i,
                         (double)bed.grad[i], (up - down) / (2 * step));
        }
        free(theta);
        free_bed(&bed);
    }
}

static void gradients_match_differences(void **state)
{
    (void)state;
    against_differences("softmax", 6, 3, 1);
    against_differences("softmax", 17, 10, 5);
    against_differences("mlp:7", 5, 4, 1);
    against_differences("mlp:9", 20, 2, 6);
    against_differences("mlp:8,6", 12, 5, 7);
    against_differences("mlp:5x4x6x3", 4, 3, 9);
    against_differences("mlp:1", 1, 2, 3);
}

static void ref_and_blas_agree(void **state)
{
    static const char *const specs[] = {"softmax", "mlp:64", "mlp:33,17", "mlp:100"};

    (void)state;
    for (size_t i = 0; i < sizeof specs / sizeof specs[0]; i++) {
        for (uint32_t batch = 1; batch <= 33; batch += 16) {
            struct bed ref, blas;
            double worst = 0.0, scale = 0.0, loss;

            make_bed(&ref, specs[i], 203, 10, batch, MODEL_REF);
            make_bed(&blas, specs[i], 203, 10, batch, MODEL_BLAS);
            loss = gradient_of(&ref);
            assert_true(fabs(gradient_of(&blas) - loss) < 1e-5 * (1.0 + loss));
            for (size_t j = 0; j < ref.model.parameters; j++) {
                worst = fmax(worst, fabs((double)ref.grad[j] - (double)blas.grad[j]));
                scale = fmax(scale, fabs((double)ref.grad[j]));
            }
            assert_true(worst < 1e-5 * scale);
            free_bed(&ref);
            free_bed(&blas);
        }
    }
}

/* Starting values and reference gradients have the same bits on every machine; these
 * numbers may change only on purpose. */
static void golden_bits(void **state)
{
    struct gapless_error error;
    struct data *data;
    struct bed bed;
    uint32_t indices[32];
    uint64_t h;
    double loss = 0.0;

    (void)state;
    assert_int_equal(data_load("synthetic:100x24x5:3", NULL, &data, &error), 0);
    make_bed(&bed, "mlp:16,9", 24, 5, 32, MODEL_REF);
    model_init(&bed.model, 1, bed.theta);
    assert_hash(hash(0, bed.theta, bed.model.parameters * sizeof(float)),
                UINT64_C(0x3824f438612bacff));
    for (uint32_t step = 0; step < 20; step++) {
        for (uint32_t i = 0; i < 32; i++)
            indices[i] = (step * 32 + i) % 100;
        data_gather(data, DATA_TRAIN, indices, 32, bed.x, bed.labels);
        loss = gradient_of(&bed);
        for (size_t i = 0; i < bed.model.parameters; i++)
            bed.theta[i] -= 0.05F * bed.grad[i];
    }
    h = hash(0, &loss, sizeof loss);
    assert_hash(hash(h, bed.theta, bed.model.parameters * sizeof(float)),
                UINT64_C(0x43164335be5bb20e));
    free_bed(&bed);
    data_free(data);
}

static void layout_is_as_documented(void **state)
{
    static const char *const names[] = {"layer1.weight", "layer1.bias",
                                        "layer2.weight", "layer2.bias",
                                        "layer3.weight", "layer3.bias"};
    struct model m, x, softmax;
    size_t next = 0;

    (void)state;
    assert_int_equal(model_parse("mlp:64", 784, 10, &m, NULL), 0);
    assert_int_equal(m.parameters, 50890);
    assert_int_equal(model_parse("softmax", 784, 10, &softmax, NULL), 0);
    assert_int_equal(softmax.parameters, 7850);
    assert_int_equal(softmax.tensor_count, 2);
    assert_int_equal(model_parse("mlp:64,32", 784, 10, &m, NULL), 0);
    assert_int_equal(model_parse("mlp:64x32", 784, 10, &x, NULL), 0);
    assert_int_equal(x.parameters, m.parameters);
    assert_int_equal(m.parameters, 784 * 64 + 64 + 64 * 32 + 32 + 32 * 10 + 10);
    assert_int_equal(m.tensor_count, 6);
    assert_string_equal(m.spec, "mlp:64,32");
    for (uint32_t i = 0; i < 6; i++) {
        const struct model_tensor *t = &m.tensors[i];

        assert_string_equal(t->name, names[i]);
        assert_int_equal(t->offset, next);
        assert_int_equal(t->rank, i % 2 == 0 ? 2 : 1);
        assert_int_equal(t->dims[0], m.widths[i / 2 + 1]);
        assert_int_equal(t->dims[1], i % 2 == 0 ? m.widths[i / 2] : 1);
        assert_int_equal(t->count, t->dims[0] * t->dims[1]);
        next += t->count;
    }
    assert_int_equal(next, m.parameters);
}

static void refuses(const char *spec, uint32_t features, uint32_t classes,
                    const char *says)
{
    struct gapless_error error = {.text = ""};
    struct model m = {.layers = 77};

    assert_int_equal(model_parse(spec, features, classes, &m, &error), GAPLESS_INVALID);
    if (strstr(error.text, says) == NULL)
        fail_msg("\"%s\": \"%s\" does not say \"%s\"", spec, error.text, says);
    assert_int_equal(m.layers, 77);
    assert_int_equal(model_parse(spec, features, classes, &m, NULL), GAPLESS_INVALID);
}

static void bad_models_are_refused(void **state)
{
    static const char *const wrong[] = {
        "",        "Softmax",  "softmax:3", "mlp",         "mlp:",     "mlp:,",
        "mlp:64,", "mlp:6 4",  "mlp:-1",    "mlp:64,,32",  "mlp:+4",   "mlp:x10",
        "mlp:64;", "resnet20", "mlp:64,x",  "mlp:64%n%s%", "mlp:64\n", "mlp: 64"};
    char huge[5000];

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        refuses(wrong[i], 10, 2, "softmax, mlp:WIDTH");
    refuses("mlp:0", 10, 2, "1 to 65536");
    refuses("mlp:64x0", 10, 2, "1 to 65536");
    refuses("mlp:65537", 10, 2, "1 to 65536");
    refuses("mlp:99999999999999999999999999", 10, 2, "1 to 65536");
    refuses("mlp:18446744073709551680", 10, 2, "1 to 65536");
    refuses("mlp:1,1,1,1,1,1,1,1", 10, 2, "at most 7 hidden");
    refuses("mlp:65536,65536", 10, 2, "parameters");
    refuses("mlp:65536", 1 << 20, 2, "parameters");
    refuses("softmax", 0, 2, "features");
    refuses("softmax", (1 << 20) + 1, 2, "features");
    refuses("softmax", 10, 1, "classes");
    refuses("softmax", 10, 257, "classes");
    memset(huge, '1', sizeof huge);
    memcpy(huge, "mlp:", 4);
    huge[sizeof huge - 1] = '\0';
    refuses(huge, 10, 2, "choose one of");
}

static void starting_values(void **state)
{
    struct bed bed;
    float *other;
    double sum = 0.0, squares = 0.0;
    const struct model_tensor *t;

    (void)state;
    make_bed(&bed, "mlp:64", 784, 10, 1, MODEL_REF);
    model_init(&bed.model, 1, bed.theta);
    other = floats(bed.model.parameters);
    model_init(&bed.model, 1, other);
    assert_memory_equal(other, bed.theta, bed.model.parameters * sizeof *other);
    model_init(&bed.model, 2, other);
    assert_memory_not_equal(other, bed.theta, 1000);
    t = &bed.model.tensors[0];
    for (size_t i = 0; i < t->count; i++) {
        sum += (double)bed.theta[i];
        squares += (double)bed.theta[i] * (double)bed.theta[i];
    }
    assert_true(fabs(sum / (double)t->count) < 0.001);
    assert_true(fabs(squares / (double)t->count / (2.0 / 784) - 1.0) < 0.03);
    for (uint32_t i = 1; i < bed.model.tensor_count; i += 2)
        for (size_t j = 0; j < bed.model.tensors[i].count; j++)
            assert_true(bed.theta[bed.model.tensors[i].offset + j] == 0.0F);
    free(other);
    free_bed(&bed);
}

/* A batch smaller than the scratch's is the same as in a scratch of its size. */
static void batches_up_to_the_largest(void **state)
{
    (void)state;
    for (int o = 0; o < 2; o++) {
        struct bed small, large;
        double loss;

        make_bed(&small, "mlp:8", 10, 3, 4, both[o]);
        make_bed(&large, "mlp:8", 10, 3, 9, both[o]);
        memcpy(large.theta, small.theta, small.model.parameters * sizeof(float));
        (void)gradient_of(&large); /* leaves its traces in the scratch */
        memcpy(large.x, small.x, sizeof(float) * 4 * 10);
        memcpy(large.labels, small.labels, 4);
        large.batch = 4;
        loss = gradient_of(&small);
        assert_true(gradient_of(&large) == loss);
        assert_memory_equal(large.grad, small.grad,
                            small.model.parameters * sizeof(float));
        for (large.batch = 0; large.batch < 11; large.batch += 10) {
            assert_true(isnan(gradient_of(&large)));
            assert_memory_equal(large.grad, small.grad,
                                small.model.parameters * sizeof(float));
        }
        large.batch = 4;
        large.labels[3] = 3;
        assert_true(isnan(gradient_of(&large)));
        assert_memory_equal(large.grad, small.grad,
                            small.model.parameters * sizeof(float));
        free_bed(&small);
        free_bed(&large);
    }
}

static void scratch_limits(void **state)
{
    struct gapless_error error;
    struct model_scratch *scratch = NULL;
    struct model m;

    (void)state;
    assert_int_equal(model_parse("softmax", 4, 2, &m, NULL), 0);
    assert_int_equal(model_scratch_new(&m, 0, MODEL_REF, &scratch, &error),
                     GAPLESS_INVALID);
    assert_int_equal(model_scratch_new(&m, 65537, MODEL_REF, &scratch, &error),
                     GAPLESS_INVALID);
    assert_non_null(strstr(error.text, "65536"));
    assert_null(scratch);
    model_scratch_free(NULL);
}

/* What is not finite shows in the loss, wherever it comes in; nothing crashes. */
static void broken_numbers_show(void **state)
{
    const float values[] = {NAN, INFINITY, -INFINITY};

    (void)state;
    for (int o = 0; o < 2; o++) {
        struct bed bed;

        make_bed(&bed, "mlp:6,5", 4, 3, 3, both[o]);
        for (int v = 0; v < 3; v++) {
            for (size_t i = 0; i < bed.model.parameters + 12; i++) {
                float *at = i < 12 ? &bed.x[i] : &bed.theta[i - 12], was = *at;
                double loss;

                *at = values[v];
                loss = gradient_of(&bed);
                *at = was;
                if (v == 0) /* an infinity may be switched off by a ReLU */
                    assert_true(!isfinite(loss));
            }
        }
        assert_true(isfinite(gradient_of(&bed)));
        free_bed(&bed);
    }
}

static void large_logits_do_not_overflow(void **state)
{
    (void)state;
    for (int o = 0; o < 2; o++) {
        struct bed bed;
        double loss;

        make_bed(&bed, "softmax", 8, 4, 5, both[o]);
        for (size_t i = 0; i < bed.model.parameters; i++)
            bed.theta[i] *= 1e6F;
        loss = gradient_of(&bed);
        assert_true(isfinite(loss) && loss > 1e3);
        for (size_t i = 0; i < bed.model.parameters; i++)
            assert_true(isfinite(bed.grad[i]));
        free_bed(&bed);
    }
}

static void evaluation_counts_every_sample(void **state)
{
    struct gapless_error error;
    struct data *data;
    double accuracy, loss, want = 0.0;
    uint32_t right = 0;

    (void)state;
    assert_int_equal(data_load("synthetic:333x20x7", NULL, &data, &error), 0);
    for (int o = 0; o < 2; o++) {
        struct bed bed, one;

        make_bed(&bed, "mlp:11", 20, 7, 8, both[o]); /* 67 = 8 * 8 + 3 */
        make_bed(&one, "mlp:11", 20, 7, 1, MODEL_REF);
        memcpy(one.theta, bed.theta, bed.model.parameters * sizeof(float));
        want = 0.0;
        right = 0;
        for (uint32_t i = 0; i < data->test_count; i++) {
            double best = (double)INFINITY, losses[7];

            data_gather(data, DATA_TEST, &i, 1, one.x, one.labels);
            want += gradient_of(&one);
            for (uint32_t c = 0; c < 7; c++) { /* the likeliest label loses least */
                uint8_t label = one.labels[0];

                one.labels[0] = (uint8_t)c;
                losses[c] = gradient_of(&one);
                best = fmin(best, losses[c]);
                one.labels[0] = label;
            }
            right += losses[one.labels[0]] <= best;
        }
        assert_int_equal(model_evaluate(&bed.model, bed.scratch, bed.theta, data,
                                        DATA_TEST, &accuracy, &loss, &error),
                         0);
        assert_true(fabs(loss - want / data->test_count) < 1e-5);
        assert_true(fabs(accuracy - (double)right / data->test_count) < 1e-9);
        bed.theta[0] = NAN;
        assert_int_equal(model_evaluate(&bed.model, bed.scratch, bed.theta, data,
                                        DATA_TEST, &accuracy, &loss, &error),
                         0);
        assert_true(accuracy == 0.0 && isnan(loss));
        free_bed(&bed);
        free_bed(&one);
        make_bed(&bed, "mlp:11", 21, 7, 8, both[o]);
        assert_int_equal(model_evaluate(&bed.model, bed.scratch, bed.theta, data,
                                        DATA_TEST, &accuracy, &loss, &error),
                         GAPLESS_INVALID);
        assert_non_null(strstr(error.text, "21 features"));
        free_bed(&bed);
    }
    data_free(data);
}

/* Trains by plain SGD and returns the test accuracy. */
static double train(const struct data *data, const char *spec, float rate,
                    uint32_t epochs)
{
    struct gapless_error error;
    struct sampler sampler;
    struct bed bed;
    double accuracy = 0.0, loss;
    uint32_t indices[32];

    make_bed(&bed, spec, data->features, data->classes, 32, MODEL_BLAS);
    model_init(&bed.model, 1, bed.theta);
    assert_int_equal(sampler_init(data->train_count, 32, 1, &sampler, &error), 0);
    for (uint64_t t = 0; t < sampler_batches_per_epoch(&sampler) * epochs; t++) {
        sampler_batch(&sampler, t, indices, &bed.batch);
        data_gather(data, DATA_TRAIN, indices, bed.batch, bed.x, bed.labels);
        assert_true(isfinite(gradient_of(&bed)));
        for (size_t i = 0; i < bed.model.parameters; i++)
            bed.theta[i] -= rate * bed.grad[i];
    }
    assert_int_equal(model_evaluate(&bed.model, bed.scratch, bed.theta, data, DATA_TEST,
                                    &accuracy, &loss, &error),
                     0);
    free_bed(&bed);
    return accuracy;
}

static void models_learn(void **state)
{
    struct gapless_error error;
    struct data *data;
    double linear, network;

    (void)state;
    assert_int_equal(data_load("synthetic", NULL, &data, &error), 0);
    linear = train(data, "softmax", 0.03F, 3);
    network = train(data, "mlp:64", 0.1F, 4);
    print_message("synthetic: softmax %.3f, mlp:64 %.3f\n", linear, network);
    assert_true(linear > 0.65 && linear < 0.80);
    assert_true(network > 0.86 && network < 0.95);
    data_free(data);
}

static void learns_fashion_mnist(void **state)
{
    struct gapless_error error;
    struct data *data;
    double accuracy;

    (void)state;
    if (data_load("fashion-mnist", NULL, &data, &error) != GAPLESS_OK) {
        print_message("skipped: %s\n", error.text);
        skip();
        return;
    }
    accuracy = train(data, "mlp:64", 0.05F, 1);
    print_message("fashion-mnist: mlp:64 %.3f after an epoch\n", accuracy);
    assert_true(accuracy > 0.80 && accuracy < 0.90);
    data_free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layout_is_as_documented),
        cmocka_unit_test(bad_models_are_refused),
        cmocka_unit_test(starting_values),
        cmocka_unit_test(gradients_match_differences),
        cmocka_unit_test(ref_and_blas_agree),
        cmocka_unit_test(golden_bits),
        cmocka_unit_test(batches_up_to_the_largest),
        cmocka_unit_test(scratch_limits),
        cmocka_unit_test(broken_numbers_show),
        cmocka_unit_test(large_logits_do_not_overflow),
        cmocka_unit_test(evaluation_counts_every_sample),
        cmocka_unit_test(models_learn),
        cmocka_unit_test(learns_fashion_mnist),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
