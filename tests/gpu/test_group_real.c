/* The real NCCL, where it is installed: what works of it without a GPU, which is its
 * loading, its version and names for groups; and joining fails soon and clearly. */
#include "engine/device/device.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static const struct gpu_plugin *plugin;
static int installed;

static void test_version(void **state)
{
    struct gapless_error error = {0};
    int version = 0;

    (void)state;
    assert_int_equal(plugin->group->version(&version, &error), GAPLESS_OK);
    assert_true(version >= 21800 && version < 30000);
    assert_int_equal(version, installed);
}

static void test_id(void **state)
{
    unsigned char one[GPU_GROUP_ID] = {0}, two[GPU_GROUP_ID] = {0};
    struct gapless_error error = {0};

    (void)state;
    assert_int_equal(plugin->group->id(one, &error), GAPLESS_OK);
    assert_int_equal(plugin->group->id(two, &error), GAPLESS_OK);
    assert_memory_not_equal(one, two, sizeof one);
}

/* The GPU is the fake CUDA's: NCCL, which asks the real one, finds none. Where there is
 * one, NCCL must not be given a pointer of the fake's. */
static void test_open(void **state)
{
    struct gapless_error error = {0};
    unsigned char id[GPU_GROUP_ID];
    struct gpu_group *group = NULL;
    struct device *device = NULL;
    struct timespec before, after;

    (void)state;
    if (access("/dev/nvidiactl", F_OK) == 0)
        skip();
    assert_int_equal(plugin->group->id(id, &error), GAPLESS_OK);
    assert_int_equal(plugin->device->open(0, 1000, 1, &device, &error), GAPLESS_OK);
    (void)clock_gettime(CLOCK_MONOTONIC, &before);
    assert_int_equal(
        plugin->group->open(device, id, 0, 1, 20000000000ll, &group, &error),
        GAPLESS_SYSTEM);
    (void)clock_gettime(CLOCK_MONOTONIC, &after);
    assert_true(after.tv_sec - before.tv_sec < 15);
    (void)printf("%s\n", error.text);
    assert_non_null(strstr(error.text, "rank 0 of 1"));
    assert_non_null(strstr(error.text, "unhandled cuda error"));
    assert_non_null(strstr(error.text, "NCCL_DEBUG"));
    assert_null(group);
    plugin->device->close(device);
}

/* Where the loader of the system does not look, but toolkits put it. */
static void find(void)
{
    static const char *const places[] = {"/usr/local/cuda/lib64/libnccl.so.2",
                                         "/usr/local/cuda/lib/libnccl.so.2"};

    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
        if (access(places[i], R_OK) == 0) {
            (void)setenv("GAPLESS_NCCL", places[i], 1);
            return;
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_version),
        cmocka_unit_test(test_id),
        cmocka_unit_test(test_open),
    };
    struct gapless_error error = {0};
    int status;

    (void)unsetenv("GAPLESS_NCCL");
    (void)setenv("NCCL_SOCKET_IFNAME", "lo", 0); /* a test machine may have no other */
    if (device_plugin(&plugin, &error) != GAPLESS_OK) {
        (void)printf("%s\n", error.text);
        return 1;
    }
    status = plugin->group->version(&installed, &error);
    if (status == GAPLESS_MISSING) {
        if (strstr(error.text, "libnccl is not installed") == NULL ||
            strstr(error.text, "GAPLESS_NCCL=") == NULL) {
            (void)printf("no help in: %s\n", error.text);
            return 1;
        }
        find();
        status = plugin->group->version(&installed, &error);
    }
    if (status != GAPLESS_OK) {
        (void)printf("SKIP: %s\n", error.text);
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
