/* Convolutional models: layout, gradients against finite differences of a network
 * written here again as plainly as possible, in double; and the loops behind them, in
 * every instruction set. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "cluster/workloads/conv_loops.h"
#include "cluster/workloads/sampler.h"
#include "tests/unit/model_bed.h"

#include <stdio.h>

static const enum model_ops both[] = {MODEL_REF, MODEL_BLAS};
static const char *const isas[] = {"generic", "avx2", "avx512"};

enum {
    PLAIN_MAX = 4096 /* floats of the largest image of the plain network */
};

/* The value of a plane outside of which there is nothing. */
static double at(const double *plane, uint32_t side, uint32_t y, uint32_t x)
{
    return y < side && x < side ? plane[y * side + x] : 0.0; /* -1 is large */
}

/* One stage on planes `from` (side x side): 3x3, ReLU, the largest of 2x2. */
static void plain_stage(const double *from, uint32_t inputs, uint32_t side,
                        const double *weight, uint32_t outputs, double *to)
{
    const double *bias = weight + (size_t)outputs * inputs * 9;

    for (uint32_t o = 0; o < outputs; o++)
        for (uint32_t y = 0; y < side / 2; y++)
            for (uint32_t x = 0; x < side / 2; x++) {
                double largest = 0.0; /* the ReLU */

                for (uint32_t q = 0; q < 4; q++) {
                    double z = bias[o];

                    for (uint32_t c = 0; c < inputs; c++)
                        for (uint32_t k = 0; k < 9; k++)
                            z += weight[((size_t)o * inputs + c) * 9 + k] *
                                 at(from + (size_t)c * side * side, side,
                                    2 * y + q / 2 + k / 3 - 1,
                                    2 * x + q % 2 + k % 3 - 1);
                    largest = fmax(largest, z);
                }
                *to++ = largest;
            }
}

static double plain_loss(const struct bed *bed, const double *theta)
{
    const struct model *m = &bed->model;
    double a[PLAIN_MAX] = {0}, next[PLAIN_MAX] = {0}, loss = 0.0;

    for (uint32_t b = 0; b < bed->batch; b++) {
        const double *w = theta;
        uint32_t left = m->widths[0];
        double sum = 0.0, z[32];

        for (uint32_t i = 0; i < m->features; i++)
            a[i] = (double)bed->x[b * m->features + i];
        for (uint32_t s = 0; s < m->convs; s++) {
            uint32_t inputs = m->images[s].channels,
                     outputs = m->images[s + 1].channels;

            plain_stage(a, inputs, m->images[s].height, w, outputs, next);
            memcpy(a, next, sizeof a);
            w += (size_t)outputs * inputs * 9 + outputs;
        }
        for (uint32_t c = 0; c < m->classes; c++) {
            z[c] = w[m->classes * left + c];
            for (uint32_t i = 0; i < left; i++)
                z[c] += w[c * left + i] * a[i];
            sum += exp(z[c]);
        }
        loss += log(sum) - z[bed->labels[b]];
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
        if (!(fabs(loss - plain_loss(&bed, theta)) < 2e-6 * (1.0 + loss)))
            fail_msg("%s loss %g, plainly %g", spec, loss, plain_loss(&bed, theta));
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
    against_differences("cnn:1", 4, 2, 1); /* 2x2 -> 1x1 */
    against_differences("cnn:3", 16, 3, 4);
    against_differences("cnn:2,3", 48, 4, 3);  /* 3x4x4 -> 2x2 -> 1x1 */
    against_differences("cnn:4,3", 49, 3, 3);  /* 7x7 -> 3x3 -> 1x1: odd sizes */
    against_differences("cnn:8", 27, 3, 2);    /* 3x3x3 */
    against_differences("cnn:16x8", 64, 3, 2); /* the widths that have loops of their */
    against_differences("cnn:17,2", 25, 2, 2); /* own, and one that has not */
    against_differences("cnn:2,3,2", 121, 3, 2); /* 11 -> 5 -> 2 -> 1 */
    against_differences("cnn:2,1,2,3", 256, 3, 2);
}

/* A batch that is worked on in several pieces is the mean of its samples. */
static void large_batches(void **state)
{
    enum {
        BATCH = 150
    };

    (void)state;
    for (int o = 0; o < 2; o++) {
        struct bed all, one;
        double *sum, loss = 0.0, scale = 0.0;

        make_bed(&all, "cnn:5,8", 64, 4, BATCH, both[o]);
        make_bed(&one, "cnn:5,8", 64, 4, 1, both[o]);
        memcpy(one.theta, all.theta, all.model.parameters * sizeof(float));
        sum = calloc(all.model.parameters, sizeof *sum);
        assert_non_null(sum);
        for (uint32_t b = 0; b < BATCH; b++) {
            memcpy(one.x, all.x + (size_t)b * 64, 64 * sizeof(float));
            one.labels[0] = all.labels[b];
            loss += gradient_of(&one) / BATCH;
            for (size_t i = 0; i < all.model.parameters; i++)
                sum[i] += (double)one.grad[i] / BATCH;
        }
        assert_true(fabs(gradient_of(&all) - loss) < 1e-6 * (1.0 + loss));
        for (size_t i = 0; i < all.model.parameters; i++)
            scale = fmax(scale, fabs(sum[i]));
        for (size_t i = 0; i < all.model.parameters; i++)
            assert_true(fabs((double)all.grad[i] - sum[i]) < 1e-5 * scale);
        free(sum);
        free_bed(&all);
        free_bed(&one);
    }
}

static void ref_and_blas_agree(void **state)
{
    static const struct {
        const char *spec;
        uint32_t features;
    } cases[] = {{"cnn:16,32", 3072}, {"cnn:7,12,9", 784}, {"cnn:8", 100}};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (uint32_t batch = 1; batch <= 9; batch += 4) {
            struct bed ref, blas;
            double worst = 0.0, scale = 0.0, loss;

            make_bed(&ref, cases[i].spec, cases[i].features, 10, batch, MODEL_REF);
            make_bed(&blas, cases[i].spec, cases[i].features, 10, batch, MODEL_BLAS);
            loss = gradient_of(&ref);
            assert_true(fabs(gradient_of(&blas) - loss) < 1e-5 * (1.0 + loss));
            for (size_t j = 0; j < ref.model.parameters; j++) {
                worst = fmax(worst, fabs((double)ref.grad[j] - (double)blas.grad[j]));
                scale = fmax(scale, fabs((double)ref.grad[j]));
            }
            if (!(worst < 1e-5 * scale))
                fail_msg("%s batch %u: off by %g of %g", cases[i].spec, batch, worst,
                         scale);
            free_bed(&ref);
            free_bed(&blas);
        }
}

/* The reference has the same bits on every machine and for every instruction set; the
 * numbers may change only on purpose. */
static void golden_bits(void **state)
{
    (void)state;
    for (size_t isa = 0; isa < sizeof isas / sizeof isas[0]; isa++) {
        struct bed bed;
        double loss = 0.0;
        uint64_t h;

        assert_int_equal(setenv("GAPLESS_ISA", isas[isa], 1), 0);
        make_bed(&bed, "cnn:6,16,8", 432, 5, 70, MODEL_REF); /* 3x12x12 */
        assert_int_equal(unsetenv("GAPLESS_ISA"), 0);
        model_init(&bed.model, 1, bed.theta);
        assert_hash(hash(0, bed.theta, bed.model.parameters * sizeof(float)),
                    UINT64_C(0xcb47d1fea5c60434));
        for (uint32_t step = 0; step < 10; step++) {
            loss = gradient_of(&bed);
            for (size_t i = 0; i < bed.model.parameters; i++)
                bed.theta[i] -= 0.05F * bed.grad[i];
        }
        h = hash(0, &loss, sizeof loss);
        assert_hash(hash(h, bed.theta, bed.model.parameters * sizeof(float)),
                    UINT64_C(0x404edeed708ff5e1));
        free_bed(&bed);
    }
}

static void is_tensor(const struct model *m, uint32_t i, const char *name,
                      uint32_t rank, uint32_t d0, uint32_t d1, uint32_t d2, size_t from)
{
    const struct model_tensor *t = &m->tensors[i];

    assert_string_equal(t->name, name);
    assert_int_equal(t->rank, rank);
    assert_int_equal(t->dims[0], d0);
    assert_int_equal(t->dims[1], d1);
    assert_int_equal(t->dims[2], d2);
    assert_int_equal(t->dims[3], d2);
    assert_int_equal(t->count, d0 * d1 * d2 * d2);
    assert_int_equal(t->offset, from);
}

static void layout_is_as_documented(void **state)
{
    struct model m;

    (void)state;
    assert_int_equal(model_parse("cnn:16,32", 3072, 10, &m, NULL), 0);
    assert_int_equal(m.parameters, 25578);
    assert_int_equal(m.tensor_count, 6);
    assert_int_equal(m.convs, 2);
    assert_int_equal(m.layers, 1);
    assert_string_equal(m.spec, "cnn:16,32");
    is_tensor(&m, 0, "conv1.weight", 4, 16, 3, 3, 0);
    is_tensor(&m, 1, "conv1.bias", 1, 16, 1, 1, 432);
    is_tensor(&m, 2, "conv2.weight", 4, 32, 16, 3, 448);
    is_tensor(&m, 3, "conv2.bias", 1, 32, 1, 1, 5056);
    is_tensor(&m, 4, "fc.weight", 2, 10, 2048, 1, 5088);
    is_tensor(&m, 5, "fc.bias", 1, 10, 1, 1, 25568);
    assert_int_equal(model_parse("cnn:8", 784, 10, &m, NULL), 0);
    is_tensor(&m, 0, "conv1.weight", 4, 8, 1, 3, 0);
    is_tensor(&m, 2, "fc.weight", 2, 10, 8 * 14 * 14, 1, 80);
    assert_int_equal(model_parse("cnn:4x5x6", 784, 10, &m, NULL), 0); /* 28 14 7 3 */
    assert_int_equal(m.widths[0], 6 * 3 * 3);
    assert_int_equal(model_parse("cnn:4,5", 64, 10, &m, NULL), 0);
    assert_int_equal(m.images[0].channels, 1);
    assert_int_equal(m.images[0].height, 8);
    assert_int_equal(m.widths[0], 5 * 2 * 2);
    assert_int_equal(model_parse("cnn:4", 12, 2, &m, NULL), 0); /* 3x2x2 */
    assert_int_equal(m.images[0].channels, 3);
}

static void refuses(const char *spec, uint32_t features, const char *says)
{
    struct gapless_error error = {.text = ""};
    struct model m = {.layers = 77};

    assert_int_equal(model_parse(spec, features, 10, &m, &error), GAPLESS_INVALID);
    if (strstr(error.text, says) == NULL)
        fail_msg("\"%s\": \"%s\" does not say \"%s\"", spec, error.text, says);
    assert_int_equal(m.layers, 77);
}

static void bad_models_are_refused(void **state)
{
    static const char *const wrong[] = {"cnn",     "cnn:",   "cnn:,",  "cnn:16,",
                                        "cnn:-1",  "cnn: 8", "Cnn:16", "cnn:16,,32",
                                        "cnn:16;", "cnn:x8", "cnn:8 ", "cnn:%s%n"};

    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        refuses(wrong[i], 784, "cnn:CHANNELS");
    refuses("cnn:0", 784, "1 to 65536");
    refuses("cnn:16,65537", 784, "1 to 65536");
    refuses("cnn:99999999999999999999", 784, "1 to 65536");
    refuses("cnn:1,1,1,1,1", 3072, "at most 4 convolutions");
    refuses("cnn:8", 785, "785 features are neither");
    refuses("cnn:8", 2, "neither");
    refuses("cnn:8", 3, "1x1 pixels"); /* 3x1x1 */
    refuses("cnn:8", 1, "1x1 pixels");
    refuses("cnn:8,8,8", 49, "3 times, which 7x7 pixels");
    refuses("cnn:65536", 1 << 20, "for its last layer");
    refuses("cnn:65536,65536", 64, "parameters");
}

static void starting_values(void **state)
{
    struct bed bed;
    struct model_tensor *t;
    double squares = 0.0;

    (void)state;
    make_bed(&bed, "cnn:16,32", 3072, 10, 1, MODEL_REF);
    model_init(&bed.model, 3, bed.theta);
    for (t = bed.model.tensors; t < bed.model.tensors + 6; t++)
        for (size_t j = 0; t->rank == 1 && j < t->count; j++)
            assert_true(bed.theta[t->offset + j] == 0.0F);
    t = &bed.model.tensors[2];
    for (size_t j = 0; j < t->count; j++)
        squares += (double)bed.theta[t->offset + j] * (double)bed.theta[t->offset + j];
    assert_true(fabs(squares / (double)t->count / (2.0 / 144) - 1.0) < 0.1);
    free_bed(&bed);
}

/* A batch smaller than the scratch's is the same as in a scratch of its size, whatever
 * was in the scratch before. */
static void batches_up_to_the_largest(void **state)
{
    (void)state;
    for (int o = 0; o < 2; o++) {
        struct bed small, large;
        double loss;

        make_bed(&small, "cnn:8,4", 100, 3, 4, both[o]);
        make_bed(&large, "cnn:8,4", 100, 3, 9, both[o]);
        memcpy(large.theta, small.theta, small.model.parameters * sizeof(float));
        for (size_t i = 0; i < 900; i++)
            large.x[i] = NAN;
        assert_true(isnan(gradient_of(&large)));
        memcpy(large.x, small.x, sizeof(float) * 4 * 100);
        memcpy(large.labels, small.labels, 4);
        large.batch = 4;
        loss = gradient_of(&small);
        assert_true(isfinite(loss));
        assert_true(gradient_of(&large) == loss);
        assert_memory_equal(large.grad, small.grad,
                            small.model.parameters * sizeof(float));
        large.labels[3] = 3;
        assert_true(isnan(gradient_of(&large)));
        free_bed(&small);
        free_bed(&large);
    }
}

/* What is not finite shows in the loss, wherever it comes in; nothing crashes. */
static void broken_numbers_show(void **state)
{
    const float values[] = {NAN, INFINITY, -INFINITY};

    (void)state;
    for (int o = 0; o < 2; o++) {
        struct bed bed;

        make_bed(&bed, "cnn:3,2", 49, 3, 2, both[o]);
        for (int v = 0; v < 3; v++)
            for (size_t i = 0; i < bed.model.parameters + 98; i++) {
                float *where = i < 98 ? &bed.x[i] : &bed.theta[i - 98], was = *where;
                double loss;

                *where = values[v];
                loss = gradient_of(&bed);
                *where = was;
                if (v == 0 && isfinite(loss)) /* a ReLU may switch an infinity off */
                    fail_msg("NaN at %zu gives a loss of %g", i, loss);
            }
        assert_true(isfinite(gradient_of(&bed)));
        free_bed(&bed);
    }
}

static void evaluation_is_that_of_single_samples(void **state)
{
    struct gapless_error error;
    struct data *data;
    double accuracy, loss, want = 0.0;
    struct bed bed, one;

    (void)state;
    assert_int_equal(data_load("synthetic:200x36x4", NULL, &data, &error), 0);
    make_bed(&bed, "cnn:6", 36, 4, 7, MODEL_BLAS); /* 40 = 5 * 7 + 5 */
    make_bed(&one, "cnn:6", 36, 4, 1, MODEL_REF);
    memcpy(one.theta, bed.theta, bed.model.parameters * sizeof(float));
    for (uint32_t i = 0; i < data->test_count; i++) {
        data_gather(data, DATA_TEST, &i, 1, one.x, one.labels);
        want += gradient_of(&one) / data->test_count;
    }
    assert_int_equal(model_evaluate(&bed.model, bed.scratch, bed.theta, data, DATA_TEST,
                                    &accuracy, &loss, &error),
                     0);
    assert_true(fabs(loss - want) < 1e-5);
    assert_true(accuracy >= 0.0 && accuracy <= 1.0);
    bed.theta[0] = NAN;
    assert_int_equal(model_evaluate(&bed.model, bed.scratch, bed.theta, data, DATA_TEST,
                                    &accuracy, &loss, &error),
                     0);
    assert_true(accuracy == 0.0 && isnan(loss));
    free_bed(&bed);
    free_bed(&one);
    data_free(data);
}

/* The table of an instruction set, or that of the best there is. */
static const struct conv_loops *loops_of(const char *isa)
{
    const struct conv_loops *ret;

    assert_int_equal(setenv("GAPLESS_ISA", isa, 1), 0);
    ret = conv_loops_best();
    assert_int_equal(unsetenv("GAPLESS_ISA"), 0);
    return ret;
}

/* Of equal values the first is picked, of any number of NaN one of them; the gradient
 * goes there and nowhere else, and only where the ReLU was on. */
static void picking(const struct conv_loops *loops, uint32_t channels)
{
    const struct model_image from = {channels, 3, 2}, to = {channels, 1, 1};
    const float cases[][4] = {{1, 1, 1, 1},    {0, 2, 2, 1},     {0, 1, 3, 3},
                              {0, 1, 2, 3},    {NAN, 1, 2, 3},   {4, 1, NAN, 3},
                              {4, 1, 2, NAN},  {-4, -1, -2, -3}, {-1, NAN, -1, -1},
                              {NAN, 9, NAN, 1}};
    const uint32_t picks[] = {0, 1, 2, 3, 0, 2, 3, 1, 1, 2};
    float *z = floats((size_t)6 * channels), *image = floats(image_floats(to));
    float *dz = floats((size_t)6 * channels), *delta = floats(image_floats(to));
    float *bias = floats(channels);
    uint32_t *picked = calloc(channels, sizeof *picked);

    assert_non_null(picked);
    for (uint32_t c = 0; c < channels; c++)
        for (uint32_t q = 0; q < 6; q++) { /* the last row has no part in it */
            z[q * channels + c] = q < 4 ? cases[c % 10][q] : 100.0F;
            dz[q * channels + c] = NAN;
            delta[image_row(to) + channels + c] = 2.0F;
        }
    loops->shrink(from, to, z, image, picked);
    loops->widen(from, to, delta, image, picked, dz, bias);
    for (uint32_t c = 0; c < channels; c++) {
        float value = image[image_row(to) + channels + c];
        float most = cases[c % 10][picks[c % 10]];
        float goes = most < 0.0F ? 0.0F : 2.0F;

        assert_int_equal(picked[c], picks[c % 10]);
        assert_true(isnan(most) ? isnan(value) : value == fmaxf(most, 0.0F));
        assert_true(bias[c] == goes);
        for (uint32_t q = 0; q < 6; q++)
            assert_true(dz[q * channels + c] == (q == picked[c] ? goes : 0.0F));
    }
    free(z);
    free(image);
    free(dz);
    free(delta);
    free(bias);
    free(picked);
}

/* <unroll(a), b> is <a, roll_up(b)>, with small whole numbers exactly so. */
static void transposes(const struct conv_loops *loops, struct model_image i)
{
    size_t wide = image_pixels(i) * image_patch(i), narrow = image_floats(i);
    float *a = floats(narrow), *b = floats(wide), *patches = floats(wide);
    float *rolled = floats(narrow), left = 0.0F, right = 0.0F;
    struct rng r = rng_seed(3, i.channels);

    for (size_t j = 0; j < narrow; j++) {
        a[j] = (float)rng_below(&r, 9);
        rolled[j] = NAN;
    }
    for (size_t j = 0; j < wide; j++)
        b[j] = (float)rng_below(&r, 9);
    loops->unroll(i, a, patches);
    loops->roll_up(i, b, rolled);
    for (size_t j = 0; j < wide; j++)
        left += patches[j] * b[j];
    for (size_t j = 0; j < narrow; j++)
        right += a[j] * rolled[j];
    assert_true(left > 0.0F && left < 0x1p24F && left == right);
    /* The patch of the last pixel ends with the last float of the border. */
    assert_true(patches[wide - 1] == a[narrow - 1]);
    assert_true(patches[0] == a[0]);
    free(a);
    free(b);
    free(patches);
    free(rolled);
}

static void loops_of_every_instruction_set(void **state)
{
    static const uint32_t channels[] = {1, 2, 3, 4, 8, 10, 16, 17, 32, 50};

    (void)state;
    for (size_t isa = 0; isa < sizeof isas / sizeof isas[0]; isa++)
        for (size_t c = 0; c < sizeof channels / sizeof channels[0]; c++) {
            picking(loops_of(isas[isa]), channels[c]);
            transposes(loops_of(isas[isa]), (struct model_image){channels[c], 5, 4});
            transposes(loops_of(isas[isa]), (struct model_image){channels[c], 2, 2});
        }
}

/* Images that only where something is, not how much of it there is, tells apart. */
static void make_image(struct rng *r, uint8_t label, float *ret)
{
    for (uint32_t i = 0; i < 144; i++)
        ret[i] = 0.3F * (float)rng_normal(r);
    for (uint32_t k = 0, y = (uint32_t)rng_below(r, 8), x = (uint32_t)rng_below(r, 8);
         k < 4; k++) /* a bar of four pixels: down, across or slanting */
        ret[(y + (label != 1 ? k : 0)) * 12 + x + (label != 0 ? k : 0)] += 2.0F;
}

static void learns_shapes(void **state)
{
    struct rng r = rng_seed(8, 8);
    struct bed bed;
    double loss = 0.0;

    (void)state;
    make_bed(&bed, "cnn:8,8", 144, 3, 32, MODEL_BLAS);
    model_init(&bed.model, 1, bed.theta);
    for (uint32_t step = 0; step < 300; step++) {
        for (uint32_t b = 0; b < 32; b++)
            make_image(&r, bed.labels[b] = (uint8_t)rng_below(&r, 3), bed.x + b * 144);
        loss = 0.95 * loss + 0.05 * gradient_of(&bed);
        for (size_t i = 0; i < bed.model.parameters; i++)
            bed.theta[i] -= 0.1F * bed.grad[i];
    }
    print_message("shapes: loss %.4f after 300 batches\n", loss);
    assert_true(loss < 0.1);
    free_bed(&bed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(layout_is_as_documented),
        cmocka_unit_test(bad_models_are_refused),
        cmocka_unit_test(starting_values),
        cmocka_unit_test(gradients_match_differences),
        cmocka_unit_test(large_batches),
        cmocka_unit_test(ref_and_blas_agree),
        cmocka_unit_test(golden_bits),
        cmocka_unit_test(batches_up_to_the_largest),
        cmocka_unit_test(broken_numbers_show),
        cmocka_unit_test(evaluation_is_that_of_single_samples),
        cmocka_unit_test(loops_of_every_instruction_set),
        cmocka_unit_test(learns_shapes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
