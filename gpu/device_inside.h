/* A device from inside: what device*.cu share. See engine/device/device.h for what it does.
 *
 *   streams[IN]    copies from the host        events of its own, a ring
 *   streams[WORK]  uploads, copies, passes     events
 *   streams[OUT]   copies to the host          events
 *
 * A ticket is the number of a mark on its stream and the stream, in one word. Marks of
 * a stream are reached in order, so an event may serve a later mark: a caller that then asks
 * for the earlier one waits for the later, which is late, but never wrong.
 */
#ifndef GAPLESS_GPU_DEVICE_INSIDE_H
#define GAPLESS_GPU_DEVICE_INSIDE_H

#include "gpu/kernels.h"
#include "gpu/plugin.h"

#include <cuda.h>

/* Marks of a stream that have an event of their own; a master with every result place
 * in use has one pass for each. */
#define EVENTS DEVICE_RESULTS
/* Largest round, or sum of velocities. */
#define WORKERS_MAX 4096u
/* Uploads that may wait at a time. */
#define UPLOADS 16u
/* Memory is taken in units of this: a page of a GPU as network cards see it, and a
 * multiple of every page of a host. */
#define UNIT 65536u
/* Blocks of a range whose gates are given back one by one: 4 MiB of page-locked memory
 * for all results. */
#define GATES_MAX 4096u
/* Bound of what should take microseconds: a memset at open, the end of what was asked
 * for at close. */
#define SETTLE_NS 30000000000

struct stream_state {
    cudaStream_t stream;
    cudaEvent_t events[EVENTS];
    uint64_t marked, reached; /* marks, from 1 */
};

/* Something that close gives back. */
enum holding_kind {
    HELD_MEMORY,
    HELD_PINNED
};
struct holding {
    struct holding *next;
    enum holding_kind kind;
    char *given; /* by CUDA */
    char *start; /* what the caller has */
    size_t bytes;
};

/* The driver's functions, NULL where it has none. */
struct driver {
    decltype(&cuDeviceGet) device_get;
    decltype(&cuDeviceGetAttribute) attribute;
    decltype(&cuPointerSetAttribute) set_pointer;
    decltype(&cuMemGetHandleForAddressRange) share;
};

struct device_blocks {
    struct holding *held; /* ends, then pieces */
    const uint32_t *ends, *pieces;
    uint32_t count;
    size_t elements; /* the last of `ends` */
};

/* Small arrays of the host on their way to a pass: copied to page-locked memory, from
 * there on WORK to one place of the GPU. */
struct uploads {
    char *host;           /* UPLOADS of `bytes` */
    void *there;          /* one */
    size_t bytes;         /* largest */
    uint64_t at[UPLOADS]; /* ticket after which a place of `host` is free */
    uint32_t next;
};

struct device {
    uint32_t number;
    uint32_t blocks_max;
    size_t elements_max;
    bool can_flush;
    struct driver driver;
    struct stream_state streams[DEVICE_STREAMS];
    struct holding *holdings;
    struct kernel_place place; /* its scratch is a holding */
    struct uploads uploads;
    struct device_result *results; /* page-locked */
    struct device_result *results_there;
    /* Page-locked: for each result a gate of each block, gates_max; NULL where that is 0. */
    float *gates, *gates_there;
    uint32_t gates_max;
    struct gapless_error failure; /* status GAPLESS_OK: none */
};

int64_t device_now_ns(void);

/* device_facts.cu */
void device_driver(struct driver *ret);
int device_count(uint32_t *ret, struct gapless_error *error);
int device_facts_of(uint32_t which, struct device_facts *ret,
                    struct gapless_error *error);

/* device_memory.cu */
/* A whole holding; `start` aligned to UNIT, `bytes` a multiple of it. NULL: why is in
 * error. */
struct holding *device_hold(struct device *device, size_t bytes,
                            struct gapless_error *error);
/* Gives one back; NULL is a no-op. */
void device_release(struct device *device, struct holding *held);
int device_take(struct device *device, size_t bytes, void **ret,
                struct gapless_error *error);
void device_give(struct device *device, void *memory);
int device_pin(struct device *device, void *host, size_t bytes,
               struct gapless_error *error);
void device_unpin(struct device *device, void *host);
int device_share(struct device *device, void *memory, size_t bytes, int *ret_fd,
                 uint64_t *ret_offset, struct gapless_error *error);
enum device_kind device_kind_of(const void *pointer, uint32_t *ret_number);
int device_flush(struct device *device);

/* device_streams.cu */
void device_copy_in(struct device *device, void *to, const void *from, size_t bytes);
void device_copy_out(struct device *device, void *to, const void *from, size_t bytes);
void device_copy(struct device *device, void *to, const void *from, size_t bytes);
void device_zero(struct device *device, void *to, size_t bytes);
uint64_t device_mark(struct device *device, enum device_stream stream);
void device_after(struct device *device, enum device_stream stream, uint64_t ticket);
int device_done(struct device *device, uint64_t ticket);
int device_wait(struct device *device, uint64_t ticket, int64_t timeout_ns,
                struct gapless_error *error);
/* Waits for all that was asked of a stream so far, at most SETTLE_NS. */
int device_drain(struct device *device, enum device_stream stream,
                 struct gapless_error *error);

/* device_passes.cu */
const struct device_result *device_result_at(const struct device *device,
                                             uint32_t place);
const float *device_gates_at(const struct device *device, uint32_t place);
int device_blocks_new(struct device *device, const struct blocks *blocks,
                      struct device_blocks **ret, struct gapless_error *error);
void device_blocks_free(struct device *device, struct device_blocks *blocks);
void device_apply(struct device *device, const struct rule *rule,
                  const struct device_pass *pass, uint32_t count,
                  const struct device_blocks *blocks, size_t n, uint32_t place);
void device_measure(struct device *device, const struct rule *rule,
                    const struct arrays *at, const struct step_scalars *scalars,
                    size_t n, uint32_t place);
void device_round(struct device *device, const struct rule *rule,
                  const struct arrays *at, const struct step_scalars *scalars,
                  const float *const *grad, float *const *sent, uint32_t workers,
                  size_t n, unsigned want, uint32_t place);
void device_look_ahead(struct device *device, const struct rule *rule,
                       const struct arrays *at, const struct step_scalars *scalars,
                       size_t n);
void device_forget(struct device *device, const struct rule *rule,
                   const struct arrays *at, size_t n);
void device_resum(struct device *device, float *all, const float *const *own,
                  uint32_t workers, size_t n);
void device_finite(struct device *device, const float *x, size_t n, uint32_t place);
void device_norm_sq(struct device *device, const float *x, size_t n, uint32_t place);
void device_scale(struct device *device, float *x, float factor, size_t n);
void device_decay(struct device *device, float *grad, const float *params, float decay,
                  size_t n, uint32_t place);
void device_slim(struct device *device, float *grad, float *velocity, float momentum,
                 size_t n);
void device_average(struct device *device, float *theta, float *sent, const float *grad,
                    float share, float average, size_t n);

#endif
