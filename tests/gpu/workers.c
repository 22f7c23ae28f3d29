/* Workers with buffers of their own, for tests. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/gpu/workers.h"

#include "transport/sim/sim.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WAIT_NS INT64_C(20000000000)
#define ELEMENTS_MAX (1u << 20)

static struct device *gpu;
static void (*tell)(void *base, size_t bytes, int fd);

const struct device_ops *workers_ops(void)
{
    const struct gpu_plugin *plugin = NULL;
    struct gapless_error error = {0};

    if (device_plugin(&plugin, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    return plugin->device;
}

struct device *workers_device(void)
{
    struct gapless_error error = {0};

    if (gpu == NULL &&
        workers_ops()->open(0, ELEMENTS_MAX, 1, &gpu, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    return gpu;
}

void workers_end(void)
{
    workers_ops()->close(gpu);
    gpu = NULL;
}

void workers_tell(void (*reported)(void *base, size_t bytes, int fd))
{
    tell = reported;
}

float *workers_take(size_t floats)
{
    size_t bytes = (floats + 1) * sizeof(float);
    struct gapless_error error = {0};
    void *memory = NULL;
    uint64_t at = 0;
    int fd = -1;

    if (workers_ops()->take(workers_device(), bytes, &memory, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    if (tell != NULL) {
        if (workers_ops()->share(workers_device(), memory, bytes, &fd, &at, &error) !=
            GAPLESS_OK)
            fail_msg("%s", error.text);
        assert_int_equal(at, 0);
        tell(memory, bytes, fd);
        assert_int_equal(close(fd), 0);
    }
    return (float *)memory + 1;
}

void workers_give(float *memory)
{
    workers_ops()->give(workers_device(), memory - 1);
}

static void settle(enum device_stream stream)
{
    uint64_t ticket = workers_ops()->mark(workers_device(), stream);
    struct gapless_error error = {0};

    if (workers_ops()->wait(workers_device(), ticket, WAIT_NS, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
}

void workers_in(float *to, const float *from, size_t floats)
{
    workers_ops()->copy_in(workers_device(), to, from, floats * sizeof *to);
    settle(DEVICE_IN);
}

void workers_out(float *to, const float *from, size_t floats)
{
    workers_ops()->copy_out(workers_device(), to, from, floats * sizeof *to);
    settle(DEVICE_OUT);
}

static void pump(void *user)
{
    (void)gapless_master_run(user, 0, NULL);
}

struct gapless_master *workers_master(struct gapless_master_config *config,
                                      const char *transport)
{
    static char address[80];
    struct gapless_error error = {0};
    struct gapless_master *m = NULL;

    (void)snprintf(address, sizeof address, "%s:bed", transport);
    config->address = address;
    if (gapless_master_open(config, &m, &error) != GAPLESS_OK)
        fail_msg("%s", error.text);
    sim_pump_set(sim_world_of(m->tp), pump, m);
    return m;
}

static void make_buffers(struct test_worker *bed)
{
    const float guard = MEMORY_GUARD;

    if (bed->memory == MEMORY_HOST) {
        bed->params = calloc(bed->count + 1, sizeof(float));
        bed->grad = calloc(bed->count + 1, sizeof(float));
        assert_non_null(bed->params);
        assert_non_null(bed->grad);
        bed->params[bed->count] = bed->grad[bed->count] = guard;
    } else if (bed->memory == MEMORY_GPU) {
        bed->params = workers_take(bed->count + 1);
        bed->grad = workers_take(bed->count + 1);
        workers_in(bed->params + bed->count, &guard, 1);
        workers_in(bed->grad + bed->count, &guard, 1);
    }
}

static void check_guard(const struct test_worker *bed, const float *buffer)
{
    float seen =
        buffer == NULL || bed->memory == MEMORY_GPU ? MEMORY_GUARD : buffer[bed->count];

    if (bed->memory == MEMORY_GPU)
        workers_out(&seen, buffer + bed->count, 1);
    assert_true(seen == MEMORY_GUARD);
}

static void end_buffers(struct test_worker *bed)
{
    check_guard(bed, bed->params);
    check_guard(bed, bed->grad);
    if (bed->memory == MEMORY_GPU) {
        workers_give(bed->params);
        workers_give(bed->grad);
    } else {
        free(bed->params);
        free(bed->grad);
    }
}

int workers_join(const struct gapless_worker_config *config, enum workers_memory memory,
                 size_t count, struct test_worker *ret, struct gapless_error *error)
{
    struct gapless_worker_config own = *config;
    int status;

    *ret = (struct test_worker){.memory = memory, .count = count};
    make_buffers(ret);
    own.params = ret->params;
    own.grad = ret->grad;
    status = gapless_worker_open(&own, &ret->worker, error);
    if (status != GAPLESS_OK)
        end_buffers(ret);
    return status;
}

void workers_part(struct test_worker *bed)
{
    gapless_worker_close(bed->worker);
    end_buffers(bed);
}

void workers_params(const struct test_worker *bed, float *ret)
{
    const float *params = gapless_worker_params(bed->worker);

    if (bed->params != NULL)
        assert_ptr_equal(params, bed->params);
    if (bed->memory == MEMORY_GPU)
        workers_out(ret, params, bed->count);
    else
        memcpy(ret, params, bed->count * sizeof *ret);
}

void workers_grad(struct test_worker *bed, const float *grad)
{
    float *to = gapless_worker_grad(bed->worker);

    if (bed->grad != NULL)
        assert_ptr_equal(to, bed->grad);
    if (bed->memory == MEMORY_GPU)
        workers_in(to, grad, bed->count);
    else
        memcpy(to, grad, bed->count * sizeof *grad);
}

uint32_t workers_bits(float value)
{
    uint32_t ret;

    memcpy(&ret, &value, sizeof ret);
    return ret;
}
