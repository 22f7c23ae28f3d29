/* Workers whose buffers are the engine's, of the host, or of a fake GPU, beside a
 * master in one thread: whenever a client waits, the master works (the pump of
 * transport/sim/sim.h). After cmocka.h. */
#ifndef TESTS_GPU_CREW_H
#define TESTS_GPU_CREW_H

#include "engine/device/device.h"
#include "engine/master/master.h"
#include "engine/worker/worker.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum workers_memory {
    MEMORY_OWN,
    MEMORY_HOST,
    MEMORY_GPU
};

/* A worker, and what it was opened with. */
struct test_worker {
    enum workers_memory memory;
    struct gapless_worker *worker;
    float *params, *grad; /* `count` floats, and one more that must stay */
    size_t count;
};

#define MEMORY_GUARD (-77.25f)

const struct device_ops *workers_ops(void);
/* GPU 0, opened once; workers_end closes it. */
struct device *workers_device(void);
void workers_end(void);

/* Who else has to know of GPU memory that is taken from now on: where it is, and a file
 * that holds it, the caller's to close. NULL: nobody. */
void workers_tell(void (*reported)(void *base, size_t bytes, int fd));
/* GPU memory of so many floats, not aligned to more than a float. */
float *workers_take(size_t floats);
void workers_give(float *memory);
void workers_in(float *to, const float *from, size_t floats);
void workers_out(float *to, const float *from, size_t floats);

/* A master at "sim" or "simnet" (not mapped), pumped. */
struct gapless_master *workers_master(struct gapless_master_config *config,
                                      const char *transport);
/* The status, and a worker if it is GAPLESS_OK. `config` is of anything but buffers. */
int workers_join(const struct gapless_worker_config *config, enum workers_memory memory,
                 size_t count, struct test_worker *ret, struct gapless_error *error);
/* Closes; wants the guards behind the buffers as they were. */
void workers_part(struct test_worker *worker);
/* The parameters that it was given; what it computed. */
void workers_params(const struct test_worker *worker, float *ret);
void workers_grad(struct test_worker *worker, const float *grad);

/* Of a float, for messages about the first that differs. */
uint32_t workers_bits(float value);

#endif
