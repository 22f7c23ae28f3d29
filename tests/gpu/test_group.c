/* Groups of GPUs (gpu/group.c), on a fake NCCL in which everything that can go wrong
 * does: nobody hangs, and the error says who and why. */
#include "engine/device/device.h"
#include "tests/gpu/fake/fake_cuda.h"
#include "tests/gpu/fake_nccl.h"
#include "tests/pace.h"

#include <dlfcn.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define RANKS_MAX 8u
#define SECOND 1000000000ll
#define ELEMENTS_MAX 5000u

static const struct gpu_plugin *plugin;
static void (*set_plan)(const char *plan);
static unsigned (*open_comms)(void);
static unsigned (*aborted_comms)(void);

/* One rank of a test, and what it found. */
struct rank {
    pthread_t thread;
    uint32_t number, size;
    size_t n;
    int64_t timeout_ns;
    unsigned means; /* and then a broadcast from rank 1 (or 0) */
    bool lose;      /* the GPU is lost before the first mean */
    bool quit;      /* it closes instead of taking part */
    unsigned char id[GPU_GROUP_ID];
    pthread_barrier_t *opened, *done; /* all ranks are this far */
    struct device *device;
    struct gpu_group *group;
    float *x;
    float host[ELEMENTS_MAX];
    int joined, status;
    struct gapless_error error;
    double seconds;
};

static double now_seconds(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static float value(uint32_t rank, size_t i)
{
    return (float)(rank + 1u) + 0.25f * (float)(i % 7) - 0.001f * (float)i;
}

static bool same_bits(float a, float b)
{
    uint32_t left, right;

    memcpy(&left, &a, sizeof left);
    memcpy(&right, &b, sizeof right);
    return left == right;
}

static void put(struct rank *rank)
{
    const struct device_ops *ops = plugin->device;

    for (size_t i = 0; i < rank->n; i++)
        rank->host[i] = value(rank->number, i);
    ops->copy_in(rank->device, rank->x, rank->host, rank->n * sizeof(float));
    ops->after(rank->device, DEVICE_WORK, ops->mark(rank->device, DEVICE_IN));
}

static int get(struct rank *rank)
{
    const struct device_ops *ops = plugin->device;

    ops->after(rank->device, DEVICE_OUT, ops->mark(rank->device, DEVICE_WORK));
    ops->copy_out(rank->device, rank->host, rank->x, rank->n * sizeof(float));
    return ops->wait(rank->device, ops->mark(rank->device, DEVICE_OUT),
                     pace_ns(10 * SECOND), &rank->error);
}

static int check_mean(struct rank *rank)
{
    float scale = (float)(1.0 / (double)rank->size);
    int status = get(rank);

    for (size_t i = 0; status == GAPLESS_OK && i < rank->n; i++) {
        float sum = value(0, i);

        for (uint32_t r = 1; r < rank->size; r++)
            sum += value(r, i);
        if (rank->size > 1)
            sum *= scale;
        if (!same_bits(rank->host[i], sum))
            return gapless_error_set(&rank->error, GAPLESS_CORRUPT, 0,
                                     "element %zu is %.9g, not %.9g", i,
                                     (double)rank->host[i], (double)sum);
    }
    return status;
}

static int check_broadcast(struct rank *rank, uint32_t root)
{
    int status = get(rank);

    for (size_t i = 0; status == GAPLESS_OK && i < rank->n; i++) {
        float want = value(root, i);

        if (!same_bits(rank->host[i], want))
            return gapless_error_set(&rank->error, GAPLESS_CORRUPT, 0,
                                     "element %zu is %.9g, not %.9g", i,
                                     (double)rank->host[i], (double)want);
    }
    return status;
}

static int take_part(struct rank *rank)
{
    const struct gpu_group_ops *ops = plugin->group;
    uint32_t root = rank->size > 1 ? 1 : 0;
    int status = GAPLESS_OK;

    for (unsigned i = 0; status == GAPLESS_OK && i < rank->means; i++) {
        put(rank);
        status =
            ops->mean(rank->group, rank->x, rank->n, rank->timeout_ns, &rank->error);
        if (status == GAPLESS_OK)
            status = check_mean(rank);
    }
    if (status != GAPLESS_OK)
        return status;
    put(rank);
    status = ops->broadcast(rank->group, rank->x, rank->n, root, rank->timeout_ns,
                            &rank->error);
    return status == GAPLESS_OK ? check_broadcast(rank, root) : status;
}

static void *live(void *context)
{
    const struct fake_cuda *fake = fake_cuda_of_plugin();
    struct rank *rank = context;
    void *memory = NULL;
    double began;

    rank->status = plugin->device->open(rank->number, ELEMENTS_MAX, 1, &rank->device,
                                        &rank->error);
    if (rank->status == GAPLESS_OK)
        rank->status = plugin->device->take(rank->device, ELEMENTS_MAX * sizeof(float),
                                            &memory, &rank->error);
    rank->x = memory;
    began = now_seconds();
    if (rank->status == GAPLESS_OK)
        rank->status =
            plugin->group->open(rank->device, rank->id, rank->number, rank->size,
                                rank->timeout_ns, &rank->group, &rank->error);
    rank->joined = rank->status;
    (void)pthread_barrier_wait(rank->opened);
    if (rank->lose)
        fake->lose(rank->number);
    if (rank->status == GAPLESS_OK && !rank->quit)
        rank->status = take_part(rank);
    rank->seconds = now_seconds() - began;
    (void)pthread_barrier_wait(rank->done);
    plugin->group->close(rank->group);
    if (memory != NULL)
        plugin->device->give(rank->device, memory);
    plugin->device->close(rank->device);
    return NULL;
}

__attribute__((noinline)) static void begin(struct rank *ranks, uint32_t size, size_t n,
                                            int64_t timeout_ns)
{
    struct gapless_error error = {0};

    unsigned char id[GPU_GROUP_ID];

    assert_int_equal(plugin->group->id(id, &error), GAPLESS_OK);
    for (uint32_t r = 0; r < size && r < RANKS_MAX; r++) {
        ranks[r] = (struct rank){.number = r, .size = size};
        for (uint32_t i = 0; i < GPU_GROUP_ID; i++)
            ranks[r].id[i] = id[i];
        ranks[r].n = n;
        ranks[r].timeout_ns = timeout_ns;
        ranks[r].means = 2;
    }
}

static void go(struct rank *ranks, uint32_t size)
{
    pthread_barrier_t opened, done;

    (void)pthread_barrier_init(&opened, NULL, size);
    (void)pthread_barrier_init(&done, NULL, size);
    for (uint32_t r = 0; r < size; r++) {
        ranks[r].opened = &opened;
        ranks[r].done = &done;
        assert_int_equal(pthread_create(&ranks[r].thread, NULL, live, &ranks[r]), 0);
    }
    for (uint32_t r = 0; r < size; r++)
        assert_int_equal(pthread_join(ranks[r].thread, NULL), 0);
    (void)pthread_barrier_destroy(&done);
    (void)pthread_barrier_destroy(&opened);
    assert_int_equal(open_comms(), 0);
}

static struct rank ranks[RANKS_MAX];

static void check_good(uint32_t size)
{
    for (uint32_t r = 0; r < size; r++)
        if (ranks[r].status != GAPLESS_OK)
            fail_msg("rank %u: %s", r, ranks[r].error.text);
    assert_int_equal(aborted_comms(), 0);
}

/* ---- what works ---------------------------------------------------------- */

static void test_mean(void **state)
{
    static const size_t lengths[] = {1, 3, 16, 1000, ELEMENTS_MAX};

    (void)state;
    for (uint32_t size = 1; size <= RANKS_MAX; size++) {
        set_plan("");
        begin(ranks, size, lengths[size % 5], pace_ns(20 * SECOND));
        go(ranks, size);
        check_good(size);
    }
}

/* Communicators that are long in progress, collectives that are long under way. */
static void test_slow(void **state)
{
    (void)state;
    set_plan("progress=5,late=40");
    begin(ranks, 3, 100, pace_ns(20 * SECOND));
    go(ranks, 3);
    check_good(3);
}

static void test_version(void **state)
{
    struct gapless_error error = {0};
    unsigned char one[GPU_GROUP_ID], two[GPU_GROUP_ID];
    int version = 0;

    (void)state;
    set_plan("");
    assert_int_equal(plugin->group->version(&version, &error), GAPLESS_OK);
    assert_int_equal(version, 22809);
    assert_int_equal(plugin->group->id(one, &error), GAPLESS_OK);
    assert_int_equal(plugin->group->id(two, &error), GAPLESS_OK);
    assert_memory_not_equal(one, two, sizeof one);
    set_plan("GetUniqueId@0#1:system");
    assert_int_equal(plugin->group->id(one, &error), GAPLESS_SYSTEM);
    assert_non_null(strstr(error.text, "NCCL_SOCKET_IFNAME"));
    plugin->group->close(NULL);
}

/* ---- what fails ---------------------------------------------------------- */

/* Every rank fails within its bound; `odd` says `text`, with its own name. */
static void check_failed(uint32_t size, uint32_t odd, int status, const char *text,
                         double seconds)
{
    for (uint32_t r = 0; r < size; r++) {
        char name[32];

        (void)snprintf(name, sizeof name, "rank %u of %u: ", r, size);
        if (ranks[r].status >= 0)
            fail_msg("rank %u did not notice", r);
        if (strncmp(ranks[r].error.text, name, strlen(name)) != 0)
            fail_msg("rank %u does not say so: %s", r, ranks[r].error.text);
        if (r != odd && ranks[r].status != GAPLESS_TIMEOUT &&
            ranks[r].status != GAPLESS_PEER_LOST)
            fail_msg("rank %u: %s", r, ranks[r].error.text);
        if (!pace_within((uint64_t)(1e9 * ranks[r].seconds), 0,
                         (int64_t)(1e9 * seconds)))
            fail_msg("rank %u took %g s", r, ranks[r].seconds);
    }
    if (ranks[odd].status != status || strstr(ranks[odd].error.text, text) == NULL)
        fail_msg("rank %u: %d: %s", odd, ranks[odd].status, ranks[odd].error.text);
}

struct trouble {
    const char *plan;
    uint32_t odd;
    int status;
    const char *text;
    int joined; /* of the odd rank */
};

static void test_trouble(void **state)
{
    static const struct trouble troubles[] = {
        {"CommInitRankConfig@1#1:error", 1, GAPLESS_SYSTEM, "unhandled cuda error",
         GAPLESS_SYSTEM},
        {"CommInitRankConfig@0#1:system", 0, GAPLESS_SYSTEM, "joining", GAPLESS_SYSTEM},
        {"CommInitRankConfig@2#1:never", 2, GAPLESS_TIMEOUT, "joining",
         GAPLESS_TIMEOUT},
        {"CommInitRankConfig@2#1:async", 2, GAPLESS_PEER_LOST, "remote error",
         GAPLESS_PEER_LOST},
        {"AllReduce@0#1:error", 0, GAPLESS_SYSTEM, "averaging", GAPLESS_OK},
        {"AllReduce@2#2:usage", 2, GAPLESS_SYSTEM, "invalid usage", GAPLESS_OK},
        {"AllReduce@1#2:never", 1, GAPLESS_TIMEOUT, "averaging", GAPLESS_OK},
        {"AllReduce@1#1:async", 1, GAPLESS_PEER_LOST, "remote error", GAPLESS_OK},
        {"Broadcast@1#1:error", 1, GAPLESS_SYSTEM, "handing out", GAPLESS_OK},
        {"Broadcast@0#1:never", 0, GAPLESS_TIMEOUT, "handing out", GAPLESS_OK},
        {"Broadcast@2#1:async,progress=3", 2, GAPLESS_PEER_LOST, "another rank",
         GAPLESS_OK},
        {"CommGetAsyncError@1#9:system,progress=20", 1, GAPLESS_SYSTEM,
         "unhandled system error", GAPLESS_OK},
        {"AllReduce@1#1:error,CommAbort@1#1:stuck", 1, GAPLESS_SYSTEM,
         "NCCL does not let go of its GPU", GAPLESS_OK},
        {"CommInitRankConfig@0#1:never,CommAbort@0#1:stuck", 0, GAPLESS_TIMEOUT,
         "NCCL does not let go of its GPU", GAPLESS_TIMEOUT},
    };

    (void)state;
    for (size_t i = 0; i < sizeof troubles / sizeof troubles[0]; i++) {
        const struct trouble *one = &troubles[i];

        set_plan(one->plan);
        begin(ranks, 3, 50, pace_most_ns(SECOND / 4));
        go(ranks, 3);
        check_failed(3, one->odd, one->status, one->text, 5.0);
        if (one->joined != GAPLESS_OK)
            assert_int_equal(ranks[one->odd].joined, one->joined);
    }
}

/* A rank that leaves without a word: the others time out, and leave, too. */
static void test_quitter(void **state)
{
    (void)state;
    set_plan("");
    begin(ranks, 4, 50, pace_most_ns(SECOND / 4));
    ranks[3].quit = true;
    go(ranks, 4);
    assert_int_equal(ranks[3].status, GAPLESS_OK);
    for (uint32_t r = 0; r < 3; r++) {
        assert_int_equal(ranks[r].status, GAPLESS_TIMEOUT);
        assert_non_null(strstr(ranks[r].error.text, "another rank did not come"));
    }
}

static void test_lost_gpu(void **state)
{
    (void)state;
    set_plan("");
    begin(ranks, 3, 50, pace_most_ns(SECOND / 4));
    ranks[1].lose = true;
    go(ranks, 3);
    check_failed(3, 1, GAPLESS_SYSTEM, "GPU failed", 5.0);
    fake_cuda_of_plugin()->reset();
}

/* A rank that closes in order while another was told to end. */
static void test_finalize(void **state)
{
    (void)state;
    set_plan("CommFinalize@1#1:error");
    begin(ranks, 2, 50, pace_ns(SECOND));
    go(ranks, 2);
    assert_int_equal(ranks[0].status, GAPLESS_OK);
    assert_int_equal(ranks[1].status, GAPLESS_OK);
    assert_int_equal(aborted_comms(), 2);
}

/* ---- abort from another thread ------------------------------------------- */

static void *abort_soon(void *context)
{
    struct rank *rank = context;

    (void)pthread_barrier_wait(rank->opened);
    (void)usleep(50000);
    plugin->group->abort(ranks[0].group);
    plugin->group->abort(ranks[1].group);
    plugin->group->abort(ranks[2].group); /* which is closing by now */
    return NULL;
}

static void test_abort(void **state)
{
    pthread_barrier_t opened, done;
    pthread_t thread;

    (void)state;
    set_plan("");
    begin(ranks, 3, 50, pace_ns(60 * SECOND));
    (void)pthread_barrier_init(&opened, NULL, 4);
    (void)pthread_barrier_init(&done, NULL, 3);
    ranks[2].quit = true; /* so that the other two wait */
    for (uint32_t r = 0; r < 3; r++) {
        ranks[r].opened = &opened;
        ranks[r].done = &done;
        assert_int_equal(pthread_create(&ranks[r].thread, NULL, live, &ranks[r]), 0);
    }
    assert_int_equal(pthread_create(&thread, NULL, abort_soon, &ranks[0]), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    for (uint32_t r = 0; r < 3; r++)
        assert_int_equal(pthread_join(ranks[r].thread, NULL), 0);
    (void)pthread_barrier_destroy(&done);
    (void)pthread_barrier_destroy(&opened);
    for (uint32_t r = 0; r < 2; r++) {
        assert_int_equal(ranks[r].status, GAPLESS_PEER_LOST);
        assert_non_null(strstr(ranks[r].error.text, "ended from outside"));
        assert_true(pace_within((uint64_t)(1e9 * ranks[r].seconds), 0, 20 * SECOND));
    }
    assert_int_equal(open_comms(), 0);
}

/* ---- misuse -------------------------------------------------------------- */

static void test_refused(void **state)
{
    struct gapless_error error = {0}, again = {0};
    unsigned char id[GPU_GROUP_ID] = {0};
    struct gpu_group *group = NULL;
    struct device *device = NULL;
    void *memory = NULL;

    (void)state;
    set_plan("");
    assert_int_equal(plugin->device->open(0, 100, 1, &device, &error), GAPLESS_OK);
    assert_int_equal(plugin->device->take(device, 400, &memory, &error), GAPLESS_OK);
    assert_int_equal(plugin->group->open(device, id, 1, 1, SECOND, &group, &error),
                     GAPLESS_INVALID);
    assert_int_equal(plugin->group->open(device, id, 0, 0, SECOND, &group, &error),
                     GAPLESS_INVALID);
    assert_int_equal(
        plugin->group->open(device, id, 0, DEVICE_MAX + 1, SECOND, &group, &error),
        GAPLESS_INVALID);
    assert_null(group);
    assert_int_equal(plugin->group->id(id, &error), GAPLESS_OK);
    assert_int_equal(plugin->group->open(device, id, 0, 1, SECOND, &group, &error),
                     GAPLESS_OK);
    assert_int_equal(plugin->group->broadcast(group, memory, 100, 1, SECOND, &error),
                     GAPLESS_INVALID);
    assert_int_equal(plugin->group->mean(group, memory, 100, SECOND, &error),
                     GAPLESS_OK);
    plugin->group->abort(group);
    assert_int_equal(plugin->group->mean(group, memory, 100, SECOND, &error),
                     GAPLESS_PEER_LOST);
    assert_int_equal(plugin->group->broadcast(group, memory, 100, 0, SECOND, &again),
                     GAPLESS_PEER_LOST);
    assert_string_equal(error.text, again.text);
    plugin->group->close(group);
    plugin->device->give(device, memory);
    plugin->device->close(device);
}

/* ---- the bed ------------------------------------------------------------- */

static void find(void *library, const char *name, void *ret)
{
    void *found = dlsym(library, name);

    assert_non_null(found);
    memcpy(ret, &found, sizeof found);
}

static int bed_open(void **state)
{
    struct gapless_error error = {0};
    char path[4096];
    void *library;

    (void)state;
    (void)snprintf(path, sizeof path, "%s/tests/libgapless_fake_nccl.so",
                   GAPLESS_BUILD_DIR);
    (void)setenv("GAPLESS_NCCL", path, 1);
    (void)setenv("FAKE_CUDA_GPUS", "8", 1);
    library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        fail_msg("%s", dlerror());
    find(library, "fake_nccl_plan", &set_plan);
    find(library, "fake_nccl_open", &open_comms);
    find(library, "fake_nccl_aborted", &aborted_comms);
    if (device_plugin(&plugin, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_version),  cmocka_unit_test(test_mean),
        cmocka_unit_test(test_slow),     cmocka_unit_test(test_trouble),
        cmocka_unit_test(test_quitter),  cmocka_unit_test(test_finalize),
        cmocka_unit_test(test_abort),    cmocka_unit_test(test_refused),
        cmocka_unit_test(test_lost_gpu),
    };

    return cmocka_run_group_tests(tests, bed_open, NULL);
}
