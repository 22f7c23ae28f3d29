/* The fake of CUDA itself: misuse of CUDA is found, and ends the process with a word on
 * what it was. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/gpu/fake/fake_cuda.h"

#include <cuda_runtime_api.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define BYTES 4096u

struct bench {
    cudaStream_t one, two;
    cudaEvent_t event;
    char *memory, *host;
};

static void set_up(struct bench *bench)
{
    void *memory = NULL;

    assert_int_equal(cudaSetDevice(0), cudaSuccess);
    assert_int_equal(cudaStreamCreateWithFlags(&bench->one, cudaStreamNonBlocking), 0);
    assert_int_equal(cudaStreamCreateWithFlags(&bench->two, cudaStreamNonBlocking), 0);
    assert_int_equal(cudaEventCreateWithFlags(&bench->event, cudaEventDisableTiming),
                     0);
    assert_int_equal(cudaMalloc(&memory, BYTES), 0);
    bench->memory = memory;
    bench->host = calloc(1, BYTES);
    assert_non_null(bench->host);
}

static void tear_down(struct bench *bench)
{
    assert_int_equal(cudaFree(bench->memory), 0);
    assert_int_equal(cudaEventDestroy(bench->event), 0);
    assert_int_equal(cudaStreamDestroy(bench->one), 0);
    assert_int_equal(cudaStreamDestroy(bench->two), 0);
    free(bench->host);
    assert_int_equal(fake_cuda.leaks(), 0);
}

/* In a child: `wrong` has to end it by abort(), with `word` in what it prints. */
static void expect_misuse(void (*wrong)(struct bench *bench), const char *word)
{
    char text[512] = "";
    int ends[2], status = 0;
    size_t used = 0;
    ssize_t got;
    pid_t child;

    assert_int_equal(pipe(ends), 0);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct rlimit none = {0, 0};
        struct bench bench;

        (void)setrlimit(RLIMIT_CORE, &none);
        (void)signal(SIGABRT, SIG_DFL); /* cmocka's */
        (void)dup2(ends[1], STDERR_FILENO);
        set_up(&bench);
        wrong(&bench);
        _exit(0);
    }
    (void)close(ends[1]);
    do {
        got = read(ends[0], text + used, sizeof text - 1 - used);
        used += got > 0 ? (size_t)got : 0;
    } while (got > 0);
    (void)close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    if (strstr(text, word) == NULL)
        fail_msg("'%s' is not in: %s", word, text);
    assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void free_twice(struct bench *bench)
{
    (void)cudaFree(bench->memory);
    (void)cudaFree(bench->memory);
}

static void free_inside(struct bench *bench)
{
    (void)cudaFree(bench->memory + 256);
}

static void free_unknown(struct bench *bench)
{
    (void)cudaFreeHost(bench->host);
}

static void copy_too_much(struct bench *bench)
{
    char host[BYTES + 1] = {0};

    (void)cudaMemcpyAsync(bench->memory, host, BYTES + 1, cudaMemcpyHostToDevice,
                          bench->one);
}

static void copy_the_wrong_way(struct bench *bench)
{
    (void)cudaMemcpyAsync(bench->memory, bench->host, 16, cudaMemcpyDeviceToHost,
                          bench->one);
}

static void change_too_early(struct bench *bench)
{
    (void)cudaMemcpyAsync(bench->memory, bench->host, BYTES, cudaMemcpyHostToDevice,
                          bench->one);
    bench->host[8] = 1;
    (void)cudaStreamSynchronize(bench->one);
}

static void use_default_stream(struct bench *bench)
{
    (void)cudaMemsetAsync(bench->memory, 0, 16, NULL);
}

static void use_after_destroy(struct bench *bench)
{
    (void)cudaStreamDestroy(bench->one);
    (void)cudaMemsetAsync(bench->memory, 0, 16, bench->one);
}

static void use_gone_event(struct bench *bench)
{
    (void)cudaEventDestroy(bench->event);
    (void)cudaEventQuery(bench->event);
}

static void use_other_gpu(struct bench *bench)
{
    (void)cudaSetDevice(1);
    (void)cudaMemsetAsync(bench->memory, 0, 16, bench->one);
}

static void leak_it(struct bench *bench)
{
    (void)bench;
    fake_cuda.reset();
}

static void misuse(void **state)
{
    (void)state;
    expect_misuse(free_twice, "not taken, or freed before");
    expect_misuse(free_inside, "inside of what was taken");
    expect_misuse(free_unknown, "cudaFreeHost");
    expect_misuse(copy_too_much, "not within memory of GPU 0");
    expect_misuse(copy_the_wrong_way, "misuse");
    expect_misuse(change_too_early, "changed while a copy");
    expect_misuse(use_default_stream, "default stream");
    expect_misuse(use_after_destroy, "was destroyed");
    expect_misuse(use_gone_event, "not there");
    expect_misuse(use_other_gpu, "while GPU 1 is current");
    expect_misuse(leak_it, "not given back");
}

/* What is not asked for is not done; what is asked for is done in order. */
static void late(void **state)
{
    struct bench bench;

    (void)state;
    set_up(&bench);
    memset(bench.host, 7, BYTES);
    assert_int_equal(cudaMemcpyAsync(bench.memory, bench.host, BYTES,
                                     cudaMemcpyHostToDevice, bench.one),
                     0);
    assert_int_equal(cudaEventRecord(bench.event, bench.one), 0);
    assert_int_equal(cudaMemsetAsync(bench.memory, 9, 16, bench.two), 0);
    assert_int_equal(fake_cuda.waiting(), 3);
    assert_int_equal(cudaEventQuery(bench.event), cudaErrorNotReady);
    assert_int_equal(cudaGetLastError(), cudaErrorNotReady);
    while (cudaEventQuery(bench.event) == cudaErrorNotReady)
        ;
    assert_int_equal(fake_cuda.waiting(), 1); /* the other stream has not moved */
    assert_int_equal(((char *)fake_cuda.window(bench.memory))[0], 7);
    assert_int_equal(cudaStreamSynchronize(bench.two), 0);
    assert_int_equal(((char *)fake_cuda.window(bench.memory))[0], 9);
    assert_null(fake_cuda.window(bench.host));
    /* What is to be written on the host is not there before. */
    assert_int_equal(cudaMemcpyAsync(bench.host, bench.memory, BYTES,
                                     cudaMemcpyDeviceToHost, bench.one),
                     0);
    assert_int_equal((unsigned char)bench.host[100], 0xa5);
    assert_int_equal(cudaStreamWaitEvent(bench.two, bench.event, 0), 0);
    assert_int_equal(cudaDeviceSynchronize(), 0);
    assert_int_equal(bench.host[100], 7);
    (void)cudaGetLastError();
    tear_down(&bench);
}

/* A wait for an event draws in the other stream. */
static void waits(void **state)
{
    struct bench bench;

    (void)state;
    set_up(&bench);
    assert_int_equal(cudaMemsetAsync(bench.memory, 1, 16, bench.one), 0);
    assert_int_equal(cudaEventRecord(bench.event, bench.one), 0);
    assert_int_equal(cudaStreamWaitEvent(bench.two, bench.event, 0), 0);
    assert_int_equal(cudaMemsetAsync(bench.memory, 2, 8, bench.two), 0);
    assert_int_equal(cudaStreamSynchronize(bench.two), 0);
    assert_int_equal(((char *)fake_cuda.window(bench.memory))[0], 2);
    assert_int_equal(((char *)fake_cuda.window(bench.memory))[8], 1);
    tear_down(&bench);
}

static void fails(void **state)
{
    void *memory = NULL;

    (void)state;
    fake_cuda.reset();
    fake_cuda.fail_at(2, false);
    assert_int_equal(cudaSetDevice(0), 0);
    assert_int_equal(cudaMalloc(&memory, 16), cudaErrorMemoryAllocation);
    assert_string_equal(fake_cuda.failed(), "cudaMalloc");
    assert_int_equal(cudaGetLastError(), cudaErrorMemoryAllocation);
    assert_int_equal(cudaGetLastError(), cudaSuccess);
    assert_int_equal(cudaMalloc(&memory, 16), 0);
    assert_int_equal(fake_cuda.leaks(), 1);
    assert_int_equal(fake_cuda.calls(), 3);
    fake_cuda.lose(0);
    assert_int_equal(cudaFree(memory), cudaErrorIllegalAddress); /* and yet freed */
    assert_int_equal(fake_cuda.leaks(), 0);
    assert_int_equal(cudaMalloc(&memory, 16), cudaErrorIllegalAddress);
    fake_cuda.reset();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(misuse),
        cmocka_unit_test(late),
        cmocka_unit_test(waits),
        cmocka_unit_test(fails),
    };

    if (setenv("FAKE_CUDA_GPUS", "2", 1) != 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
