/* A device through the plugin's table, over the fake of CUDA: facts, memory, copies,
 * order by tickets, sharing, loss of a GPU, several at a time. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/device/device.h"
#include "tests/gpu/fake/fake_cuda.h"
#include "tests/pace.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define N 4096
#define BYTES (N * sizeof(float))
#define SECOND pace_ns(INT64_C(1000000000))

static const struct gpu_plugin *plugin;
static const struct device_ops *ops;
static const struct fake_cuda *fake;

/* A variable for this test only: the fake reads it at its reset. */
static void with(const char *name, const char *value)
{
    assert_int_equal(setenv(name, value, 1), 0);
    fake->reset();
}

static int fresh(void **state)
{
    static const char *const names[] = {
        "FAKE_CUDA_GPUS", "FAKE_CUDA_DRIVER", "FAKE_CUDA_MEMORY", "FAKE_CUDA_ORDERING",
        "FAKE_CUDA_RDMA", "FAKE_CUDA_DMABUF", "FAKE_CUDA_FLUSH"};

    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        assert_int_equal(unsetenv(names[i]), 0);
    fake->reset();
    return 0;
}

static struct device *open_device(uint32_t which)
{
    struct gapless_error error = {0};
    struct device *device = NULL;
    int status = ops->open(which, N, 16, &device, &error);

    if (status != GAPLESS_OK)
        fail_msg("open: %s", error.text);
    assert_non_null(device);
    return device;
}

static float *take(struct device *device)
{
    struct gapless_error error = {0};
    void *memory = NULL;

    if (ops->take(device, BYTES, &memory, &error) != GAPLESS_OK)
        fail_msg("take: %s", error.text);
    return memory;
}

static void settle(struct device *device, enum device_stream stream)
{
    struct gapless_error error = {0};

    if (ops->wait(device, ops->mark(device, stream), 20 * SECOND, &error) != GAPLESS_OK)
        fail_msg("wait: %s", error.text);
}

/* ---- which there are ----------------------------------------------------- */

static void finds(void **state)
{
    struct gapless_error error = {0};
    struct device_facts facts = {0};
    uint32_t count = 0;

    (void)state;
    with("FAKE_CUDA_GPUS", "3");
    assert_int_equal(ops->count(&count, &error), GAPLESS_OK);
    assert_int_equal(count, 3);
    assert_int_equal(ops->facts(2, &facts, &error), GAPLESS_OK);
    assert_int_equal(facts.number, 2);
    assert_string_equal(facts.name, "Fake GPU");
    assert_string_equal(facts.bus, "0000:1c:00.0"); /* as sysfs writes it */
    assert_int_equal(facts.major, 9);
    assert_int_equal(facts.processors, 4);
    assert_int_equal(facts.memory_bytes, 256 << 20);
    assert_int_equal(facts.free_bytes, 256 << 20);
    assert_int_equal(facts.bandwidth, 2 * 2619000000ull * 640);
    assert_true(facts.rdma && facts.dmabuf && facts.can_flush);
    assert_int_equal(facts.ordering, DEVICE_ORDERS_NONE);
    assert_int_equal(facts.driver, 13000);
    assert_int_equal(facts.runtime, 13000);
    assert_true(ops->facts(3, &facts, &error) < 0);
    assert_non_null(strstr(error.text, "cudaSetDevice"));

    with("FAKE_CUDA_ORDERING", "200");
    with("FAKE_CUDA_DMABUF", "0");
    with("FAKE_CUDA_FLUSH", "0");
    assert_int_equal(ops->facts(0, &facts, &error), GAPLESS_OK);
    assert_int_equal(facts.ordering, DEVICE_ORDERS_ALL);
    assert_true(facts.rdma && !facts.dmabuf && !facts.can_flush);
    with("FAKE_CUDA_RDMA", "0");
    assert_int_equal(ops->facts(0, &facts, &error), GAPLESS_OK);
    assert_true(!facts.rdma && !facts.dmabuf);
}

/* What is missing is said, and the count left alone. */
static void misses(void **state)
{
    struct gapless_error error = {0};
    struct device *device = NULL;
    uint32_t count = 77;

    (void)state;
    with("FAKE_CUDA_DRIVER", "none");
    assert_int_equal(ops->count(&count, &error), GAPLESS_MISSING);
    assert_non_null(strstr(error.text, "libcuda.so.1 was not found"));
    assert_int_equal(ops->open(0, N, 1, &device, &error), GAPLESS_MISSING);
    with("FAKE_CUDA_DRIVER", "12040");
    assert_int_equal(ops->count(&count, &error), GAPLESS_MISSING);
    assert_non_null(strstr(error.text, "CUDA 12.4"));
    assert_non_null(strstr(error.text, "13.0"));
    with("FAKE_CUDA_DRIVER", "13000");
    with("FAKE_CUDA_GPUS", "0");
    assert_int_equal(ops->count(&count, &error), GAPLESS_MISSING);
    assert_non_null(strstr(error.text, "CUDA_VISIBLE_DEVICES"));
    assert_int_equal(count, 77);
    assert_null(device);
}

/* ---- memory -------------------------------------------------------------- */

static void takes(void **state)
{
    struct gapless_error error = {0};
    struct device *device = open_device(0);
    void *memory[5] = {NULL}, *none = NULL;
    float host[N];

    (void)state;
    fake->misalign(true);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(
            ops->take(device, i == 0 ? 1 : (size_t)i * 70000, &memory[i], &error),
            GAPLESS_OK);
        assert_int_equal((uintptr_t)memory[i] % 65536, 0);
    }
    fake->misalign(false);
    memset(host, 1, sizeof host);
    ops->copy_out(device, host, memory[1], BYTES);
    settle(device, DEVICE_OUT);
    for (int i = 0; i < N; i++)
        assert_true(host[i] == 0.0f);
    ops->give(device, memory[3]);
    ops->give(device, NULL);
    assert_true(ops->take(device, 0, &none, &error) == GAPLESS_INVALID);
    assert_int_equal(ops->take(device, 300u << 20, &none, &error), GAPLESS_NO_MEMORY);
    assert_non_null(strstr(error.text, "300.0 MiB"));
    assert_non_null(strstr(error.text, "of 256.0"));
    assert_null(none);
    assert_int_equal(ops->failure(device, &error), GAPLESS_OK); /* it goes on */
    ops->give(device, memory[0]);
    ops->close(device); /* the rest */
    assert_int_equal(fake->leaks(), 0);
    ops->close(NULL);
}

/* The host cannot touch it by mistake. */
static void guards(void **state)
{
    struct device *device = open_device(0);
    const volatile float *memory = take(device);
    int status = 0;
    pid_t child;

    (void)state;
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct rlimit none = {0, 0};

        (void)setrlimit(RLIMIT_CORE, &none);
        (void)signal(SIGSEGV, SIG_DFL); /* cmocka's */
        (void)!freopen("/dev/null", "w", stderr);
        (void)memory[0];
        _exit(42);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 42);
    ops->close(device);
}

static void pins(void **state)
{
    struct gapless_error error = {0};
    struct device *device = open_device(0), *other = open_device(0);
    float *host = aligned_alloc(4096, BYTES);
    uint32_t whose = 9;

    (void)state;
    assert_non_null(host);
    assert_int_equal(ops->pin(device, host, BYTES, &error), GAPLESS_OK);
    assert_int_equal(ops->pin(other, host, BYTES, &error), GAPLESS_OK); /* as good */
    ops->unpin(other, host);                                            /* not theirs */
    assert_int_equal(ops->kind(host, &whose), DEVICE_HOST);
    ops->unpin(device, host);
    ops->unpin(device, host);
    assert_true(ops->pin(device, NULL, BYTES, &error) < 0);
    assert_non_null(strstr(error.text, "cudaHostRegister"));
    assert_int_equal(ops->failure(device, NULL), GAPLESS_OK);
    assert_int_equal(ops->pin(device, host, BYTES, &error), GAPLESS_OK);
    ops->close(device);
    ops->close(other);
    assert_int_equal(fake->leaks(), 0);
    free(host);
}

static void knows_kinds(void **state)
{
    struct device *device;
    uint32_t whose = 9;
    float *memory;

    (void)state;
    with("FAKE_CUDA_GPUS", "2");
    device = open_device(1);
    memory = take(device);
    assert_int_equal(ops->kind(memory + 7, &whose), DEVICE_MEMORY);
    assert_int_equal(whose, 1);
    whose = 9;
    assert_int_equal(ops->kind(&whose, &whose), DEVICE_HOST);
    assert_int_equal(ops->kind(NULL, &whose), DEVICE_HOST);
    assert_int_equal(whose, 9);
    ops->close(device);
    assert_int_equal(ops->kind(memory, &whose), DEVICE_HOST); /* gone */
    with("FAKE_CUDA_DRIVER", "none");
    assert_int_equal(ops->kind(&whose, &whose), DEVICE_HOST);
}

/* A card that writes through the DMA-BUF writes that memory, also in the middle. */
static void shares(void **state)
{
    struct gapless_error error = {0};
    struct device *device = open_device(0);
    float *memory = take(device), *seen, host[N] = {0};
    uint64_t offset = 77;
    int fd = -1;

    (void)state;
    assert_int_equal(
        ops->share(device, memory + 1000, 96 * sizeof(float), &fd, &offset, &error),
        GAPLESS_OK);
    assert_int_equal(offset, 1000 * sizeof(float));
    seen = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(seen != MAP_FAILED);
    assert_int_equal(close(fd), 0);
    seen[offset / sizeof(float)] = 42.0f;
    ops->copy_out(device, host, memory, BYTES);
    settle(device, DEVICE_OUT);
    assert_true(host[1000] == 42.0f && host[999] == 0.0f && host[1001] == 0.0f);
    assert_int_equal(munmap(seen, BYTES), 0);
    assert_int_equal(ops->share(device, host, BYTES, &fd, &offset, &error),
                     GAPLESS_INVALID);
    assert_int_equal(ops->share(device, memory, 70000, &fd, &offset, &error),
                     GAPLESS_INVALID);
    ops->close(device);

    with("FAKE_CUDA_DMABUF", "0");
    device = open_device(0);
    fd = -5;
    assert_int_equal(ops->share(device, take(device), BYTES, &fd, &offset, &error),
                     GAPLESS_UNSUPPORTED);
    assert_non_null(strstr(error.text, "open kernel module"));
    assert_int_equal(fd, -5);
    assert_int_equal(ops->failure(device, NULL), GAPLESS_OK);
    ops->close(device);
}

static void flushes(void **state)
{
    struct device *device = open_device(0);

    (void)state;
    assert_int_equal(ops->flush(device), GAPLESS_OK);
    assert_int_equal(ops->flush(device), GAPLESS_OK);
    assert_int_equal(fake->flushes(), 2);
    ops->close(device);
    with("FAKE_CUDA_FLUSH", "0");
    device = open_device(0);
    assert_int_equal(ops->flush(device), GAPLESS_UNSUPPORTED);
    assert_int_equal(fake->flushes(), 0);
    assert_int_equal(ops->failure(device, NULL), GAPLESS_OK);
    ops->close(device);
}

/* ---- order --------------------------------------------------------------- */

static void fill(float *host, float value)
{
    for (int i = 0; i < N; i++)
        host[i] = value;
}

/* In, doubled on WORK, out. Without a ticket between them it comes out wrong. */
static float pipeline(struct device *device, float *memory, float value, bool in_order,
                      bool out_order)
{
    static _Thread_local float host[N], back[N];

    fill(host, value);
    ops->copy_in(device, memory, host, BYTES);
    if (in_order)
        ops->after(device, DEVICE_WORK, ops->mark(device, DEVICE_IN));
    ops->scale(device, memory, 2.0f, N);
    if (out_order)
        ops->after(device, DEVICE_OUT, ops->mark(device, DEVICE_WORK));
    ops->copy_out(device, back, memory, BYTES);
    settle(device, DEVICE_OUT);
    settle(device, DEVICE_WORK);
    settle(device, DEVICE_IN);
    for (int i = 1; i < N; i++)
        assert_true(back[i] == back[0]);
    return back[0];
}

static void orders(void **state)
{
    struct device *device = open_device(0);
    float *memory = take(device);
    int wrong_in = 0, wrong_out = 0;

    (void)state;
    for (uint64_t seed = 0; seed < 24; seed++) {
        float value = 3.0f + (float)seed;

        fake->seed(seed);
        assert_true(pipeline(device, memory, value, true, true) == 2.0f * value);
        wrong_in += pipeline(device, memory, 100.0f, false, true) != 200.0f;
        wrong_out += pipeline(device, memory, 500.0f, true, false) != 1000.0f;
    }
    assert_true(wrong_in > 0 && wrong_out > 0); /* so a missing order is found */
    ops->close(device);
}

/* Far more marks than there are events. */
static void reuses_events(void **state)
{
    struct device *device = open_device(0);
    float *memory = take(device), host[4] = {1.0f, 2.0f, 3.0f, 4.0f};
    uint64_t first, last = 0;
    int done;

    (void)state;
    assert_int_equal(ops->done(device, 0), 1); /* nothing to wait for */
    first = ops->mark(device, DEVICE_IN);
    for (int i = 0; i < 3000; i++) {
        ops->copy_in(device, memory, host, sizeof host);
        last = ops->mark(device, DEVICE_IN);
    }
    assert_true(last > first && first > 0);
    do
        done = ops->done(device, first);
    while (done == 0);
    assert_int_equal(done, 1);
    assert_int_equal(ops->wait(device, last, 20 * SECOND, NULL), GAPLESS_OK);
    assert_int_equal(ops->done(device, first), 1);
    ops->after(device, DEVICE_OUT, first);
    ops->copy_out(device, host, memory, sizeof host);
    settle(device, DEVICE_OUT);
    assert_true(host[3] == 4.0f);
    /* Marks that were never made. */
    assert_int_equal(ops->done(device, last + 4), GAPLESS_INVALID);
    assert_int_equal(ops->done(device, 3), GAPLESS_INVALID);
    ops->after(device, DEVICE_OUT, last + 4);
    assert_int_equal(ops->failure(device, NULL), GAPLESS_OK);
    ops->close(device);
}

static void bounds_waits(void **state)
{
    struct gapless_error error = {0};
    struct device *device = open_device(0);
    float *memory = take(device);
    uint64_t ticket, later;

    (void)state;
    ops->zero(device, memory, BYTES);
    ticket = ops->mark(device, DEVICE_WORK);
    ops->scale(device, memory, 2.0f, N);
    later = ops->mark(device, DEVICE_WORK);
    assert_int_equal(ops->wait(device, ticket, 0, &error), GAPLESS_TIMEOUT);
    assert_non_null(strstr(error.text, "GPU 0: not done after 0.000 s"));
    assert_int_equal(fake->waiting(), 4);
    assert_int_equal(ops->wait(device, ticket, 20 * SECOND, &error), GAPLESS_OK);
    assert_int_equal(fake->waiting(), 2); /* no more than was waited for */
    assert_int_equal(ops->done(device, later), 0);
    assert_int_equal(ops->done(device, ticket), 1);
    assert_int_equal(ops->wait(device, later, 20 * SECOND, &error), GAPLESS_OK);
    assert_int_equal(ops->wait(device, later + 4, SECOND, &error), GAPLESS_INVALID);
    ops->close(device);
}

/* ---- loss ---------------------------------------------------------------- */

static void keeps_the_first_failure(void **state)
{
    struct gapless_error error = {0}, again = {0};
    struct device *device = open_device(0);
    float *memory = take(device), host[N];
    uint64_t ticket;
    void *more = NULL;
    int status;

    (void)state;
    fill(host, 1.0f);
    ops->copy_in(device, memory, host, BYTES);
    ticket = ops->mark(device, DEVICE_IN);
    fake->lose(0);
    status = ops->done(device, ticket);
    assert_true(status < 0 && status != GAPLESS_INVALID);
    assert_int_equal(ops->failure(device, &error), status);
    assert_non_null(strstr(error.text, "GPU 0: "));
    assert_non_null(strstr(error.text, "cudaErrorIllegalAddress"));
    ops->copy_in(device, memory, host, BYTES);
    ops->scale(device, memory, 2.0f, N);
    assert_int_equal(ops->mark(device, DEVICE_WORK), 0);
    assert_int_equal(ops->done(device, 0), status);
    assert_int_equal(ops->wait(device, ticket, SECOND, &again), status);
    assert_string_equal(error.text, again.text);
    assert_int_equal(ops->take(device, 16, &more, &again), status);
    assert_int_equal(ops->flush(device), status);
    ops->close(device);
    assert_int_equal(fake->leaks(), 0);
}

/* A mistake of the caller's breaks the device, and not the process. */
static void refuses(void **state)
{
    struct gapless_error error = {0};
    uint32_t ends[] = {10, 5}, far[] = {N + 1};
    struct blocks wrong = {.ends = ends, .count = 2},
                  beyond = {.ends = far, .count = 1};
    struct blocks none = {.ends = ends}, many = {.ends = ends, .count = 17};
    struct device_blocks *blocks = NULL;
    struct device *device = open_device(0);
    float *memory = take(device);

    (void)state;
    assert_int_equal(ops->blocks_new(device, &wrong, &blocks, &error), GAPLESS_INVALID);
    assert_int_equal(ops->blocks_new(device, &beyond, &blocks, &error),
                     GAPLESS_INVALID);
    assert_int_equal(ops->blocks_new(device, &none, &blocks, &error), GAPLESS_INVALID);
    assert_int_equal(ops->blocks_new(device, &many, &blocks, &error), GAPLESS_INVALID);
    assert_null(blocks);
    assert_null(ops->result(device, DEVICE_RESULTS));
    assert_non_null(ops->result(device, DEVICE_RESULTS - 1));
    ops->scale(device, memory, 2.0f, N + 1);
    assert_int_equal(ops->failure(device, &error), GAPLESS_INVALID);
    assert_non_null(strstr(error.text, "scale over 4097 elements, opened for 4096"));
    ops->close(device);

    device = open_device(0);
    ops->finite(device, take(device), N, DEVICE_RESULTS);
    assert_int_equal(ops->failure(device, &error), GAPLESS_INVALID);
    assert_non_null(strstr(error.text, "finite with no result place 256"));
    ops->close(device);

    device = open_device(0);
    ops->give(device, take(device) + 1);
    assert_int_equal(ops->failure(device, &error), GAPLESS_INVALID);
    ops->close(device);
    assert_int_equal(fake->leaks(), 0);
}

/* ---- several ------------------------------------------------------------- */

static void *life(void *argument)
{
    uint32_t which = *(const uint32_t *)argument;
    struct gapless_error error = {0};
    struct device *device = NULL;
    void *memory = NULL;
    bool good;

    good = ops->open(which, N, 16, &device, &error) == GAPLESS_OK &&
           ops->take(device, BYTES, &memory, &error) == GAPLESS_OK;
    for (int i = 0; good && i < 20; i++) {
        float value = (float)(10 * which + (uint32_t)i);

        good = pipeline(device, memory, value, true, true) == 2.0f * value;
    }
    ops->close(device);
    return good ? argument : NULL;
}

static void several(void **state)
{
    uint32_t which[] = {0, 1, 2, 1}; /* two of them on one GPU */
    pthread_t threads[4];

    (void)state;
    with("FAKE_CUDA_GPUS", "3");
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, life, &which[i]), 0);
    for (int i = 0; i < 4; i++) {
        void *good = NULL;

        assert_int_equal(pthread_join(threads[i], &good), 0);
        assert_ptr_equal(good, &which[i]);
    }
    assert_int_equal(fake->leaks(), 0);
}

/* One thread, two GPUs in turn: the right one is current for each call. */
static void in_turn(void **state)
{
    struct device *device[2];
    float *memory[2];

    (void)state;
    with("FAKE_CUDA_GPUS", "2");
    for (uint32_t i = 0; i < 2; i++)
        device[i] = open_device(i);
    for (int i = 0; i < 2; i++)
        memory[i] = take(device[i]);
    for (int i = 0; i < 10; i++)
        assert_true(pipeline(device[i % 2], memory[i % 2], (float)i, true, true) ==
                    2.0f * (float)i);
    fake->lose(1); /* the other one goes on */
    assert_int_equal(ops->mark(device[1], DEVICE_IN), 0);
    assert_true(ops->done(device[1], 0) < 0);
    assert_true(pipeline(device[0], memory[0], 5.0f, true, true) == 10.0f);
    ops->close(device[0]);
    ops->close(device[1]);
    assert_int_equal(fake->leaks(), 0);
}

static int find_plugin(void **state)
{
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
        cmocka_unit_test_setup(finds, fresh),
        cmocka_unit_test_setup(misses, fresh),
        cmocka_unit_test_setup(takes, fresh),
        cmocka_unit_test_setup(guards, fresh),
        cmocka_unit_test_setup(pins, fresh),
        cmocka_unit_test_setup(knows_kinds, fresh),
        cmocka_unit_test_setup(shares, fresh),
        cmocka_unit_test_setup(flushes, fresh),
        cmocka_unit_test_setup(orders, fresh),
        cmocka_unit_test_setup(reuses_events, fresh),
        cmocka_unit_test_setup(bounds_waits, fresh),
        cmocka_unit_test_setup(keeps_the_first_failure, fresh),
        cmocka_unit_test_setup(refuses, fresh),
        cmocka_unit_test_setup(several, fresh),
        cmocka_unit_test_setup(in_turn, fresh),
    };

    return cmocka_run_group_tests(tests, find_plugin, NULL);
}
