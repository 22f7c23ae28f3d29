/* gapless bench update says in every case why there are no figures. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "bench/bench.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static const uint64_t bytes[] = {4096};

/* Runs it with stderr in a file; its exit code, and what it said. */
static int said(const struct bench_update_config *config, char *ret, size_t max)
{
    char path[] = "/tmp/gapless-test-XXXXXX";
    int file = mkstemp(path), before = dup(STDERR_FILENO), code;
    ssize_t got;

    assert_true(file >= 0 && before >= 0);
    (void)unlink(path);
    (void)fflush(stderr);
    assert_true(dup2(file, STDERR_FILENO) >= 0);
    code = bench_update(config);
    (void)fflush(stderr);
    assert_true(dup2(before, STDERR_FILENO) >= 0);
    (void)close(before);
    got = pread(file, ret, max - 1, 0);
    (void)close(file);
    assert_true(got >= 0);
    ret[got] = '\0';
    return code;
}

static struct bench_update_config config(uint32_t reps)
{
    return (struct bench_update_config){
        .transport = "shm",
        .rule = "asgd",
        .sizes = {1, bytes},
        .reps = reps,
        .sleep = true,
    };
}

static void test_figures(void **state)
{
    struct bench_update_config short_run = config(3);
    char text[600];

    (void)state;
    assert_int_equal(said(&short_run, text, sizeof text), 0);
    assert_string_equal(text, "");
}

static void test_bound(void **state)
{
    struct bench_update_config long_run = config(5000);
    char text[600];

    (void)state;
    long_run.bound_s = 1e-9;
    assert_int_equal(said(&long_run, text, sizeof text), 1);
    if (strstr(text, "gapless bench update: 4 KiB: ") == NULL ||
        strstr(text, "of 5000 round trips were made within 1e-09 s") == NULL ||
        strstr(text, "--reps") == NULL)
        fail_msg("it said '%s'", text);
}

static void test_no_master(void **state)
{
    struct bench_update_config wrong = config(3);
    char text[600];

    (void)state;
    wrong.transport = "pigeon";
    assert_int_equal(said(&wrong, text, sizeof text), 1);
    if (strstr(text, "pigeon") == NULL)
        fail_msg("it said '%s'", text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_figures),
        cmocka_unit_test(test_bound),
        cmocka_unit_test(test_no_master),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
