/* Processors and memory by the limits of control groups, of both versions and of groups
 * above, in a tree of files as the kernel has them. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/base/machine.h"

#include <gapless/gapless.h>

#include <ftw.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char root[64];

/* A file below the root, with its folders. */
static void put(const char *name, const char *text)
{
    char path[512];
    FILE *file;

    (void)snprintf(path, sizeof path, "%s%s", root, name);
    for (char *at = path + strlen(root) + 1; *at != '\0'; at++)
        if (*at == '/') {
            *at = '\0';
            (void)mkdir(path, 0700);
            *at = '/';
        }
    file = fopen(path, "we");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static int remove_one(const char *path, const struct stat *is, int kind,
                      struct FTW *where)
{
    (void)is;
    (void)kind;
    (void)where;
    return remove(path);
}

static int set_up(void **state)
{
    (void)state;
    (void)snprintf(root, sizeof root, "/tmp/gapless-test-XXXXXX");
    if (mkdtemp(root) == NULL)
        return -1;
    put("/proc/meminfo", "MemTotal:  16000 kB\nMemAvailable:   8000 kB\n");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    return nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void test_no_limits(void **state)
{
    (void)state;
    assert_int_equal(machine_quota_at(root), UINT32_MAX);
    assert_int_equal(machine_memory_at(root), 8000 * 1024);
    put("/proc/self/cgroup", "0::/a\n");
    put("/sys/fs/cgroup/a/cpu.max", "max 100000\n");
    put("/sys/fs/cgroup/a/memory.max", "max\n");
    put("/sys/fs/cgroup/a/memory.current", "4096\n");
    assert_int_equal(machine_quota_at(root), UINT32_MAX);
    assert_int_equal(machine_memory_at(root), 8000 * 1024);
}

static void test_version_two(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "1:name=systemd:/x\n0::/a/b\n");
    put("/sys/fs/cgroup/a/b/cpu.max", "350000 100000\n");
    assert_int_equal(machine_quota_at(root), 4);
    put("/sys/fs/cgroup/a/cpu.max", "50000 100000\n"); /* above, and less */
    assert_int_equal(machine_quota_at(root), 1);
    put("/sys/fs/cgroup/a/memory.max", "1000000\n");
    put("/sys/fs/cgroup/a/memory.current", "700000\n");
    assert_int_equal(machine_memory_at(root), 300000);
    put("/sys/fs/cgroup/a/memory.stat", "anon 1\ninactive_file 200000\nx 3\n");
    assert_int_equal(machine_memory_at(root), 500000);
    put("/sys/fs/cgroup/a/b/memory.max", "100000\n");
    put("/sys/fs/cgroup/a/b/memory.current", "400000\n"); /* more than it may */
    assert_int_equal(machine_memory_at(root), 0);
}

/* Also where a container sees the root of the tree alone. */
static void test_version_one(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "5:memory:/docker/1\n4:cpuset:/docker/1\n"
                             "3:cpu,cpuacct:/docker/1\n0::/\n");
    put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
    put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    assert_int_equal(machine_quota_at(root), UINT32_MAX);
    put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "200000\n");
    assert_int_equal(machine_quota_at(root), 2);
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    put("/sys/fs/cgroup/memory/memory.usage_in_bytes", "1000\n");
    assert_int_equal(machine_memory_at(root), 8000 * 1024);
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "5000\n");
    put("/sys/fs/cgroup/memory/memory.stat",
        "inactive_file 1\ntotal_inactive_file 500\n");
    assert_int_equal(machine_memory_at(root), 4500);
}

static void test_nonsense(void **state)
{
    (void)state;
    put("/proc/self/cgroup", "\n0\n0:\n:::\n9:cpu\n0::/a\n");
    put("/sys/fs/cgroup/a/cpu.max", "much of it\n");
    put("/sys/fs/cgroup/a/memory.max", "-5\n");
    assert_int_equal(machine_quota_at(root), UINT32_MAX);
    assert_int_equal(machine_memory_at(root), 8000 * 1024);
    put("/proc/meminfo", "");
    assert_int_equal(machine_memory_at(root), UINT64_MAX);
}

static void test_affinity(void **state)
{
    cpu_set_t set, was;
    size_t first = 0;

    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof was, &was), 0);
    while (!CPU_ISSET(first, &was))
        first++;
    CPU_ZERO(&set);
    CPU_SET(first, &set);
    assert_int_equal(sched_setaffinity(0, sizeof set, &set), 0);
    assert_int_equal(machine_processors(), 1);
    assert_int_equal(sched_setaffinity(0, sizeof was, &was), 0);
    assert_true(machine_processors() <= (uint32_t)CPU_COUNT(&was));
}

static void test_short(void **state)
{
    (void)state;
    assert_false(machine_memory_short_at(root));
    put("/proc/self/cgroup", "0::/a/b\n");
    put("/sys/fs/cgroup/a/memory.events", "oom 1\noom_kill 0\n");
    assert_false(machine_memory_short_at(root));
    put("/sys/fs/cgroup/a/memory.events", "oom 1\noom_kill 3\n");
    assert_true(machine_memory_short_at(root));
    put("/sys/fs/cgroup/a/memory.events", "");
    put("/proc/meminfo", "MemTotal:  16000 kB\nMemAvailable:   900 kB\n");
    assert_true(machine_memory_short_at(root));
}

static void test_check(void **state)
{
    struct gapless_error e = {0};

    (void)state;
    assert_int_equal(machine_memory_check(4096, "this run", &e), GAPLESS_OK);
    assert_int_equal(machine_memory_check(UINT64_C(1) << 60, "this run", &e),
                     GAPLESS_NO_MEMORY);
    assert_non_null(strstr(e.text, "this run needs"));
    assert_non_null(strstr(e.text, "--force"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_no_limits, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_version_two, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_version_one, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_nonsense, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_short, set_up, tear_down),
        cmocka_unit_test(test_affinity),
        cmocka_unit_test(test_check),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
