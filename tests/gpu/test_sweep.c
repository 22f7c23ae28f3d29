/* A short life of a device with each call of CUDA failing in turn, once or with all
 * calls after it: nothing crashes, nothing is left behind, and where something was
 * refused the text says which call it was. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/device/device.h"
#include "tests/gpu/fake/fake_cuda.h"
#include "tests/pace.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define N 256
#define BYTES (N * sizeof(float))
#define SECOND pace_ns(INT64_C(1000000000))
/* There are hundreds of events, and one is like the other: a few of them are enough. */
#define STRIDE 61

static const struct device_ops *ops;
static const struct fake_cuda *fake;

struct life {
    struct gapless_error error; /* the first that was told */
    bool opened, whole;         /* all went well */
    float back[N];
};

static bool good(struct life *life, int status, const struct gapless_error *error)
{
    if (status != GAPLESS_OK && life->error.status == GAPLESS_OK)
        life->error = *error;
    return status == GAPLESS_OK;
}

/* What may be missing with no harm: page-locking, a DMA-BUF. */
static void extras(struct device *device, void *memory, float *host)
{
    struct gapless_error reason = {0};
    uint64_t offset;
    int fd = -1;

    if (ops->pin(device, host, BYTES, &reason) != GAPLESS_OK)
        assert_true(reason.text[0] != '\0');
    if (ops->share(device, memory, BYTES, &fd, &offset, &reason) == GAPLESS_OK)
        assert_int_equal(close(fd), 0);
    else
        assert_true(reason.text[0] != '\0');
    (void)ops->flush(device);
}

static void work(struct device *device, const float *host, struct life *life)
{
    uint32_t end = N;
    struct blocks one = {.ends = &end, .count = 1};
    struct device_blocks *blocks = NULL;
    struct gapless_error reason = {0};
    const float *own[2];
    void *memory[2] = {NULL, NULL};

    if (!good(life, ops->take(device, BYTES, &memory[0], &reason), &reason) ||
        !good(life, ops->take(device, BYTES, &memory[1], &reason), &reason) ||
        !good(life, ops->blocks_new(device, &one, &blocks, &reason), &reason))
        return;
    extras(device, memory[0], life->back);
    ops->copy_in(device, memory[0], host, BYTES);
    ops->after(device, DEVICE_WORK, ops->mark(device, DEVICE_IN));
    ops->copy(device, memory[1], memory[0], BYTES);
    ops->zero(device, memory[1], 4);
    own[0] = memory[0];
    own[1] = memory[1];
    ops->resum(device, memory[0], own, 2, N);
    ops->norm_sq(device, memory[0], N, 3);
    ops->after(device, DEVICE_OUT, ops->mark(device, DEVICE_WORK));
    ops->copy_out(device, life->back, memory[0], BYTES);
    life->whole = good(
        life, ops->wait(device, ops->mark(device, DEVICE_OUT), 9 * SECOND, &reason),
        &reason);
    ops->blocks_free(device, blocks);
    ops->give(device, memory[1]);
    ops->unpin(device, life->back);
}

static void live(struct life *life)
{
    struct gapless_error reason = {0};
    struct device *device = NULL;
    float host[N];

    memset(life, 0, sizeof *life);
    for (int i = 0; i < N; i++)
        host[i] = (float)i;
    life->opened = good(life, ops->open(0, N, 4, &device, &reason), &reason);
    if (!life->opened) {
        assert_null(device);
        return;
    }
    work(device, host, life);
    ops->close(device);
}

static void check(const struct life *life, unsigned long n, bool named)
{
    if (fake->leaks() != 0)
        fail_msg("call %lu, %s: %u things left", n, fake->failed(), fake->leaks());
    if (life->whole) {
        assert_true(life->back[0] == 0.0f); /* 0 + zeroed */
        for (int i = 1; i < N; i++)
            assert_true(life->back[i] == 2.0f * (float)i);
        return;
    }
    if (life->error.status >= 0 || life->error.text[0] == '\0')
        fail_msg("call %lu, %s: no error was told", n, fake->failed());
    if (named && strstr(life->error.text, fake->failed()) == NULL &&
        strcmp(fake->failed(), "launch") != 0)
        fail_msg("call %lu, %s, is not named: %s", n, fake->failed(), life->error.text);
}

static void sweep(bool all_after)
{
    unsigned long calls, lives = 0, opening = 0, harmless = 0;
    struct life life;

    fake->reset();
    live(&life);
    assert_true(life.whole && life.error.status == GAPLESS_OK);
    calls = fake->calls();
    assert_true(calls > 500 && calls < 4000);
    for (unsigned long n = 1; n <= calls; n++) {
        fake->reset();
        fake->fail_at(n, all_after);
        live(&life);
        fake->fail_at(0, false);
        check(&life, n, !all_after); /* else a later one may be told of */
        opening += !life.opened;
        harmless += life.whole;
        lives++;
        if (strcmp(fake->failed(), "cudaEventCreateWithFlags") == 0 ||
            strcmp(fake->failed(), "cudaEventDestroy") == 0)
            n += STRIDE;
    }
    assert_true(lives > 100 && opening > 15 && opening < lives);
    assert_true(harmless > 3);
    fake->reset();
    live(&life); /* nothing has stuck */
    assert_true(life.whole);
}

static void once(void **state)
{
    (void)state;
    sweep(false);
}

static void from_then_on(void **state)
{
    (void)state;
    sweep(true);
}

/* What is asked of the machine before any device is opened. */
static void questions(void **state)
{
    (void)state;
    for (unsigned long n = 1; n < 40; n++) {
        struct gapless_error error = {0};
        struct device_facts facts;
        uint32_t count = 7;
        int status;

        fake->reset();
        fake->fail_at(n, false);
        status = ops->count(&count, &error);
        if (status == GAPLESS_OK)
            status = ops->facts(0, &facts, &error);
        fake->fail_at(0, false);
        assert_true(status == GAPLESS_OK || error.text[0] != '\0');
        assert_true(count == 7 || count == 1);
    }
}

static int find_plugin(void **state)
{
    const struct gpu_plugin *plugin;
    struct gapless_error error = {0};

    (void)state;
    if (device_plugin(&plugin, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    ops = plugin->device;
    fake = fake_cuda_of_plugin();
    assert_non_null(fake);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(once),
        cmocka_unit_test(from_then_on),
        cmocka_unit_test(questions),
    };

    return cmocka_run_group_tests(tests, find_plugin, NULL);
}
