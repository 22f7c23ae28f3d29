/* GPUs and cards in a made-up sysfs: how far apart they are, BAR1, nvidia-peermem, the
 * kernel module; and the lines that a person gets. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/device/device.h"
#include <gapless/gapless.h>
#include "tests/gpu/fake/fake_cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char root[64];
static const struct gpu_plugin *plugin;
static const struct fake_cuda *fake;

static void shell(const char *format, ...) __attribute__((format(printf, 1, 2)));

static void shell(const char *format, ...)
{
    char line[1024];
    va_list list;

    va_start(list, format);
    (void)vsnprintf(line, sizeof line, format, list);
    va_end(list);
    if (system(line) != 0) /* NOLINT(cert-env33-c): the test's own commands */
        fail_msg("%s", line);
}

static void write_file(const char *name, const char *text)
{
    char path[512];
    FILE *out;

    (void)snprintf(path, sizeof path, "%s/%s", root, name);
    out = fopen(path, "w");
    assert_non_null(out);
    assert_true(fputs(text, out) >= 0);
    assert_int_equal(fclose(out), 0);
}

/* A device of PCI; `link` is where it is found. */
static void pci(const char *path, const char *link, int node)
{
    char name[256], text[16];

    shell("mkdir -p %s/sys/devices/%s && ln -s %s/sys/devices/%s %s/sys/%s", root, path,
          root, path, root, link);
    (void)snprintf(name, sizeof name, "sys/devices/%s/numa_node", path);
    (void)snprintf(text, sizeof text, "%d\n", node);
    write_file(name, text);
}

#define SWITCH "pci0000:17/0000:17:01.0/0000:18:00.0"
#define GPU SWITCH "/0000:19:00.0/0000:1a:00.0"

static int make_tree(void **state)
{
    (void)state;
    (void)snprintf(root, sizeof root, "/tmp/gapless-survey-XXXXXX");
    if (mkdtemp(root) == NULL)
        return -1;
    shell("mkdir -p %s/sys/bus/pci/devices", root);
    for (const char *card = "abcde"; *card != '\0'; card++)
        shell("mkdir -p %s/sys/class/infiniband/mlx5_%c", root, *card);
    shell("mkdir -p %s/sys/class/infiniband/rxe0", root);
    pci(GPU, "bus/pci/devices/0000:1a:00.0", 0);
    write_file("sys/devices/" GPU "/resource",
               "0x00000000a0000000 0x00000000a0ffffff 0x0000000000040200\n"
               "0x000000f800000000 0x000000f9ffffffff 0x000000000014220c\n");
    pci("pci0000:97/0000:97:01.0/0000:98:00.0", "class/infiniband/mlx5_a/device", 1);
    pci("pci0000:17/0000:17:03.0/0000:1f:00.0", "class/infiniband/mlx5_b/device", 0);
    pci(SWITCH "/0000:19:01.0/0000:1b:00.0", "class/infiniband/mlx5_c/device", 0);
    pci("pci0000:27/0000:27:01.0/0000:28:00.0", "class/infiniband/mlx5_d/device", 0);
    pci(SWITCH "/0000:19:01.0/0000:1b:00.1", "class/infiniband/mlx5_e/device", 0);
    return 0;
}

static int remove_tree(void **state)
{
    (void)state;
    shell("rm -r %s", root);
    return 0;
}

static void distances(void **state)
{
    static const struct {
        const char *card;
        enum device_way way;
        int node;
    } wanted[] = {{"mlx5_c", DEVICE_SAME_SWITCH, 0},  {"mlx5_e", DEVICE_SAME_SWITCH, 0},
                  {"mlx5_b", DEVICE_SAME_ROOT, 0},    {"mlx5_d", DEVICE_SAME_NODE, 0},
                  {"mlx5_a", DEVICE_ACROSS_NODES, 1}, {"rxe0", DEVICE_WAY_UNKNOWN, -1}};
    struct device_near near[8];

    (void)state;
    assert_int_equal(device_near_read(root, "0000:1a:00.0", near, 8), 6);
    for (int i = 0; i < 6; i++) {
        assert_string_equal(near[i].card, wanted[i].card);
        assert_int_equal(near[i].way, wanted[i].way);
        assert_int_equal(near[i].node, wanted[i].node);
        assert_non_null(device_way_text(near[i].way));
    }
    assert_int_equal(device_near_read(root, "0000:1a:00.0", near, 2), 2);
    /* A GPU that sysfs does not show. */
    assert_int_equal(device_near_read(root, "0000:99:00.0", near, 8), 6);
    for (int i = 0; i < 6; i++)
        assert_int_equal(near[i].way, DEVICE_WAY_UNKNOWN);
    assert_int_equal(device_near_read("/nowhere", "0000:1a:00.0", near, 8), 0);
}

static void places(void **state)
{
    struct device_place place = {0};

    (void)state;
    device_place_read(root, "0000:1a:00.0", &place);
    assert_int_equal(place.node, 0);
    assert_int_equal(place.bar1, UINT64_C(8) << 30);
    device_place_read(root, "0000:99:00.0", &place);
    assert_int_equal(place.node, -1);
    assert_int_equal(place.bar1, 0);
    write_file("sys/devices/" GPU "/resource", "0x0 0x0 0x0\n");
    device_place_read(root, "0000:1a:00.0", &place);
    assert_int_equal(place.bar1, 0);
    write_file("sys/devices/" GPU "/resource", "");
    device_place_read(root, "0000:1a:00.0", &place);
    assert_int_equal(place.bar1, 0);
}

static void modules(void **state)
{
    char text[64] = "untouched";

    (void)state;
    assert_false(device_peermem(root, text, sizeof text));
    assert_string_equal(text, "untouched");
    assert_int_equal(device_open_module(root), -1);
    shell("mkdir -p %s/sys/module/nvidia_peermem %s/proc/driver/nvidia", root, root);
    write_file("sys/module/nvidia_peermem/version", "575.57.08\n");
    assert_true(device_peermem(root, text, sizeof text));
    assert_string_equal(text, "nvidia-peermem 575.57.08");
    write_file("proc/driver/nvidia/version",
               "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  575.57.08\n");
    assert_int_equal(device_open_module(root), 1);
    write_file("proc/driver/nvidia/version",
               "NVRM version: NVIDIA UNIX x86_64 Kernel Module  575.57.08\n");
    assert_int_equal(device_open_module(root), 0);
}

static void has(const char *text, const char *part)
{
    if (strstr(text, part) == NULL)
        fail_msg("'%s' is not in:\n%s", part, text);
}

static void with(const char *name, const char *value)
{
    assert_int_equal(setenv(name, value, 1), 0);
    fake->reset();
}

static void tells(void **state)
{
    struct gapless_error lack = {GAPLESS_MISSING, 0, "no plugin, and what to do"};
    char text[4096];

    (void)state;
    with("FAKE_CUDA_GPUS", "2");
    assert_int_equal(device_survey(root, plugin, NULL, text, sizeof text), 2);
    has(text, "GPU 0: Fake GPU, PCI 0000:1a:00.0, compute capability 9.0, 0.2 GiB");
    has(text, "memory 3352 GB/s at its peak, BAR1 8.00 GiB, NUMA node 0\n");
    has(text, "by DMA-BUF\n");
    has(text, "flushed by a read of the card");
    has(text, "to mlx5_c: same PCIe switch, NUMA node 0\n");
    has(text, "to mlx5_a: across NUMA nodes: slow, NUMA node 1\n");
    has(text, "to rxe0: distance unknown\n");
    has(text, "GPU 1: Fake GPU, PCI 0000:1b:00.0");
    with("FAKE_CUDA_ORDERING", "100");
    with("FAKE_CUDA_DMABUF", "0");
    assert_int_equal(device_survey(root, plugin, NULL, text, sizeof text), 2);
    has(text, "in order for this GPU, no flush");
    has(text, "no way in: load the open kernel module");
    shell("mkdir -p %s/sys/module/nvidia_peermem", root);
    write_file("sys/module/nvidia_peermem/version", "575.57.08\n");
    assert_int_equal(device_survey(root, plugin, NULL, text, sizeof text), 2);
    has(text, "GPUDirect RDMA: by nvidia-peermem 575.57.08\n");
    with("FAKE_CUDA_RDMA", "0");
    assert_int_equal(device_survey(root, plugin, NULL, text, sizeof text), 2);
    has(text, "not supported by this GPU");
    with("FAKE_CUDA_DRIVER", "none");
    assert_int_equal(device_survey(root, plugin, NULL, text, sizeof text),
                     GAPLESS_MISSING);
    has(text, "libcuda.so.1 was not found");
    assert_int_equal(device_survey(root, NULL, &lack, text, sizeof text),
                     GAPLESS_MISSING);
    assert_string_equal(text, "no plugin, and what to do\n");
}

/* However little room there is, the text ends. */
static void short_of_room(void **state)
{
    char text[300];

    (void)state;
    for (size_t bytes = 1; bytes < sizeof text; bytes++) {
        memset(text, 'x', sizeof text);
        assert_int_equal(device_survey(root, plugin, NULL, text, bytes), 1);
        assert_true(strlen(text) < bytes);
        assert_int_equal(text[bytes], 'x');
    }
    assert_int_equal(device_survey(root, plugin, NULL, NULL, 0), 1);
    assert_int_equal(gapless_device_survey(text, sizeof text), 1);
    has(text, "GPU 0: Fake GPU");
}

static int find_plugin(void **state)
{
    struct gapless_error error = {0};

    (void)state;
    if (device_plugin(&plugin, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    fake = fake_cuda_of_plugin();
    assert_non_null(fake);
    return 0;
}

static int fresh(void **state)
{
    static const char *const names[] = {"FAKE_CUDA_GPUS", "FAKE_CUDA_DRIVER",
                                        "FAKE_CUDA_ORDERING", "FAKE_CUDA_RDMA",
                                        "FAKE_CUDA_DMABUF"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        assert_int_equal(unsetenv(names[i]), 0);
    fake->reset();
    return make_tree(state);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fresh, remove_tree)

int main(void)
{
    const struct CMUnitTest tests[] = {TEST(distances), TEST(places), TEST(modules),
                                       TEST(tells), TEST(short_of_room)};

    return cmocka_run_group_tests(tests, find_plugin, NULL);
}
