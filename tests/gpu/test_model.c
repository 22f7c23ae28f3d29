/* Models on a (fake) GPU, with a fake cuBLAS, beside the reference on the processor:
 * loss and gradient within 1e-5, the same bits on every call; what is no batch and no
 * label; numbers that are not finite; what is missing, and what fails. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "cluster/workloads/model_gpu.h"
#include "tests/gpu/fake/fake_cuda.h"
#include "tests/pace.h"
#include "tests/unit/model_bed.h"

#include <stdio.h>
#include <unistd.h>

#define TOLERANCE 1e-5

static struct model_gpu *open_gpu(const struct bed *bed)
{
    struct model_gpu *gpu = NULL;
    struct gapless_error error = {0};

    if (model_gpu_open(&bed->model, 0, bed->batch, &gpu, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    return gpu;
}

/* The gradient of the bed's first `batch` samples, by the GPU. */
static double gpu_gradient(struct bed *bed, struct model_gpu *gpu, uint32_t batch,
                           float *ret)
{
    size_t count = bed->model.parameters;
    struct gapless_error error = {0};
    double loss = 0.0;

    if (model_gpu_set(gpu, model_gpu_params(gpu), bed->theta, count, &error) !=
            GAPLESS_OK ||
        model_gpu_gradient(gpu, bed->x, bed->labels, batch, &loss, &error) !=
            GAPLESS_OK ||
        model_gpu_get(gpu, ret, model_gpu_grad(gpu), count, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    return loss;
}

/* Errors are measured against the largest element, since sums cancel. */
static void close_to(const float *want, const float *is, size_t count)
{
    double largest = 0.0;

    for (size_t i = 0; i < count; i++)
        largest = fmax(largest, fabs((double)want[i]));
    assert_true(largest > 0.0);
    for (size_t i = 0; i < count; i++)
        if (!(fabs((double)want[i] - (double)is[i]) <= TOLERANCE * largest))
            fail_msg("element %zu is %.9g, not %.9g (the largest: %.9g)", i,
                     (double)is[i], (double)want[i], largest);
}

static void compare(const char *spec, uint32_t features, uint32_t classes,
                    uint32_t batch_max)
{
    const uint32_t batches[] = {batch_max, 1, batch_max / 2 + 1};
    struct bed bed;
    struct model_gpu *gpu;
    float *grad, *again;

    make_bed(&bed, spec, features, classes, batch_max, MODEL_REF);
    grad = floats(bed.model.parameters);
    again = floats(bed.model.parameters);
    gpu = open_gpu(&bed);
    for (unsigned i = 0; i < 3; i++) {
        double want, is;

        bed.batch = batches[i];
        want = gradient_of(&bed);
        is = gpu_gradient(&bed, gpu, batches[i], grad);
        if (!(fabs(is - want) <= TOLERANCE * want))
            fail_msg("%s, batch %u: loss %.9g, not %.9g", spec, batches[i], is, want);
        close_to(bed.grad, grad, bed.model.parameters);
        assert_true(gpu_gradient(&bed, gpu, batches[i], again) <= is &&
                    gpu_gradient(&bed, gpu, batches[i], again) >= is);
        assert_memory_equal(grad, again, bed.model.parameters * sizeof *grad);
    }
    model_gpu_close(gpu);
    free(again);
    free(grad);
    free_bed(&bed);
}

static void like_the_reference(void **state)
{
    (void)state;
    compare("softmax", 20, 4, 32);
    compare("softmax", 3, 2, 1);
    compare("mlp:16", 20, 10, 33);
    compare("mlp:300", 7, 3, 5); /* wider than a block */
    compare("mlp:31,17,8", 13, 5, 40);
    compare("mlp:4,4,4,4,4,4,4", 5, 256, 300);
}

static void no_batch_and_no_label(void **state)
{
    struct bed bed;
    struct model_gpu *gpu;
    float *grad, *before;
    double loss = 0.0;

    (void)state;
    make_bed(&bed, "mlp:8", 6, 3, 4, MODEL_REF);
    grad = floats(bed.model.parameters);
    before = floats(bed.model.parameters);
    gpu = open_gpu(&bed);
    (void)gpu_gradient(&bed, gpu, 4, before);
    assert_true(isnan(gpu_gradient(&bed, gpu, 0, grad)));
    assert_memory_equal(grad, before, bed.model.parameters * sizeof *grad);
    assert_true(isnan(gpu_gradient(&bed, gpu, 5, grad)));
    bed.labels[3] = 3;
    assert_true(isnan(gpu_gradient(&bed, gpu, 4, grad)));
    assert_memory_equal(grad, before, bed.model.parameters * sizeof *grad);
    /* behind the batch nobody looks */
    assert_int_equal(model_gpu_gradient(gpu, bed.x, bed.labels, 3, &loss, NULL),
                     GAPLESS_OK);
    assert_true(isfinite(loss));
    model_gpu_close(gpu);
    free(before);
    free(grad);
    free_bed(&bed);
}

/* A NaN in x or theta is in the loss and in the gradient; large logits are not. */
static void not_finite(void **state)
{
    struct bed bed;
    struct model_gpu *gpu;
    float *grad, kept;

    (void)state;
    make_bed(&bed, "mlp:8", 6, 3, 4, MODEL_REF);
    grad = floats(bed.model.parameters);
    gpu = open_gpu(&bed);
    kept = bed.x[2];
    bed.x[2] = (float)NAN;
    assert_true(!isfinite(gpu_gradient(&bed, gpu, 4, grad)));
    bed.x[2] = kept;
    kept = bed.theta[0];
    bed.theta[0] = (float)NAN;
    assert_true(!isfinite(gpu_gradient(&bed, gpu, 4, grad)));
    bed.theta[0] = kept;
    for (size_t i = 0; i < bed.model.parameters; i++)
        bed.theta[i] *= 300.0F;
    assert_true(isfinite(gpu_gradient(&bed, gpu, 4, grad)));
    for (size_t i = 0; i < bed.model.parameters; i++)
        assert_true(isfinite(grad[i]));
    model_gpu_close(gpu);
    free(grad);
    free_bed(&bed);
}

static void refuse(const char *spec, uint32_t batch, uint32_t which, int status,
                   const char *text)
{
    struct model model;
    struct model_gpu *gpu = NULL;
    struct gapless_error error = {0};

    assert_int_equal(model_parse(spec, 16, 3, &model, NULL), GAPLESS_OK);
    assert_int_equal(model_gpu_open(&model, which, batch, &gpu, &error), status);
    assert_null(gpu);
    if (strstr(error.text, text) == NULL)
        fail_msg("'%s' does not say '%s'", error.text, text);
}

static void what_is_refused(void **state)
{
    (void)state;
    refuse("cnn:4", 8, 0, GAPLESS_UNSUPPORTED, "let the CPU do it");
    refuse("mlp:4", 0, 0, GAPLESS_INVALID, "1 to 65536");
    refuse("mlp:4", 65537, 0, GAPLESS_INVALID, "1 to 65536");
    refuse("mlp:4", 8, 7, GAPLESS_SYSTEM, "cudaSetDevice");
    refuse("mlp:65536,16000", 8, 0, GAPLESS_NO_MEMORY, "MiB");
}

/* Each function of cuBLAS refuses once: an error that names it, nothing left behind. */
static void cublas_fails(void **state)
{
    static const char *const names[] = {"Create", "SetStream", "SetWorkspace",
                                        "SetMathMode", "SetPointerMode"};
    const struct fake_cuda *fake = fake_cuda_of_plugin();
    struct gapless_error error = {0};
    struct model_gpu *gpu;
    struct bed bed;
    double loss;

    (void)state;
    for (unsigned i = 0; i < sizeof names / sizeof names[0]; i++) {
        unsigned before = fake->leaks();

        assert_int_equal(setenv("FAKE_CUBLAS_FAIL", names[i], 1), 0);
        refuse("mlp:4", 8, 0, GAPLESS_SYSTEM, names[i]);
        assert_int_equal(fake->leaks(), before);
    }
    assert_int_equal(unsetenv("FAKE_CUBLAS_FAIL"), 0);
    make_bed(&bed, "mlp:8", 6, 3, 4, MODEL_REF);
    gpu = open_gpu(&bed);
    assert_int_equal(setenv("FAKE_CUBLAS_FAIL", "Sgemm", 1), 0);
    assert_int_equal(model_gpu_gradient(gpu, bed.x, bed.labels, 4, &loss, &error),
                     GAPLESS_SYSTEM);
    assert_non_null(strstr(error.text, "Sgemm"));
    assert_int_equal(unsetenv("FAKE_CUBLAS_FAIL"), 0);
    model_gpu_close(gpu);
    free_bed(&bed);
}

/* Calls of CUDA fail one at a time, while a model opens and computes: an error in
 * words, nothing left behind. */
static void calls_fail_one_by_one(void **state)
{
    const struct fake_cuda *fake = fake_cuda_of_plugin();
    unsigned long calls = 0, made;
    struct bed bed;

    (void)state;
    make_bed(&bed, "mlp:8", 6, 3, 4, MODEL_REF);
    for (unsigned long i = 0; i <= calls; i++) {
        struct model_gpu *gpu = NULL;
        struct gapless_error error = {0};
        unsigned before = fake->leaks();
        double loss = 0.0;
        int status;

        if (i > 5 && i + 50 < calls && i % 101 != 0)
            continue; /* hundreds of events */
        made = fake->calls();
        fake->fail_at(i, false);
        status = model_gpu_open(&bed.model, 0, 4, &gpu, &error);
        if (status == GAPLESS_OK)
            status = model_gpu_gradient(gpu, bed.x, bed.labels, 4, &loss, &error);
        fake->fail_at(0, false);
        if (i == 0) {
            assert_int_equal(status, GAPLESS_OK);
            calls = fake->calls() - made;
        }
        assert_true(status == GAPLESS_OK || error.text[0] != '\0');
        model_gpu_close(gpu);
        assert_int_equal(fake->leaks(), before);
    }
    assert_true(calls > 20);
    free_bed(&bed);
}

static void lost_gpu(void **state)
{
    const struct fake_cuda *fake = fake_cuda_of_plugin();
    struct gapless_error error = {0};
    struct model_gpu *gpu;
    struct bed bed;
    double loss = 0.0;

    (void)state;
    make_bed(&bed, "mlp:8", 6, 3, 4, MODEL_REF);
    gpu = open_gpu(&bed);
    fake->lose(0);
    for (int i = 0; i < 2; i++) {
        error.text[0] = '\0';
        assert_int_equal(model_gpu_gradient(gpu, bed.x, bed.labels, 4, &loss, &error),
                         GAPLESS_SYSTEM);
        assert_non_null(strstr(error.text, "GPU 0"));
    }
    model_gpu_close(gpu);
    fake->reset();
    free_bed(&bed);
}

static int end(void **state)
{
    (void)state;
    return fake_cuda_of_plugin()->leaks() == 0 ? 0 : 1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(like_the_reference), cmocka_unit_test(no_batch_and_no_label),
        cmocka_unit_test(not_finite),         cmocka_unit_test(what_is_refused),
        cmocka_unit_test(cublas_fails),       cmocka_unit_test(calls_fail_one_by_one),
        cmocka_unit_test(lost_gpu),
    };

    (void)setenv("GAPLESS_CUBLAS", GAPLESS_BUILD_DIR "/tests/libgapless_fake_cublas.so",
                 0);
    pace_alarm(400);
    return cmocka_run_group_tests(tests, NULL, end);
}
