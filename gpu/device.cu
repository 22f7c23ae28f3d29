/* A device: opening and closing it, its first failure, and the table of its
 * functions. */
#include "gpu/device_inside.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- failures ------------------------------------------------------------ */

int device_failure(const struct device *device, struct gapless_error *error)
{
    if (device->failure.status != GAPLESS_OK && error != NULL)
        *error = device->failure;
    return device->failure.status;
}

int device_break(struct device *device, int status, const char *format, ...)
{
    char text[sizeof device->failure.text];
    va_list list;

    if (device->failure.status == GAPLESS_OK) {
        va_start(list, format);
        (void)vsnprintf(text, sizeof text, format, list);
        va_end(list);
        (void)gapless_error_set(&device->failure, status, 0, "GPU %u: %s",
                                device->number, text);
    }
    return status;
}

/* What to do about it, for the few failures where that is known. */
static const char *remedy(cudaError_t code)
{
    switch ((int)code) {
    case cudaErrorNoKernelImageForDevice:
        return ". This build has no code for this GPU: configure with "
               "-DGAPLESS_CUDA_ARCHITECTURES=native";
    case cudaErrorMemoryAllocation:
        return ". End other programs on it (nvidia-smi), or raise `ulimit -l`";
    default:
        return ". What it held is lost; `dmesg | grep -i xid` tells of a fault of the "
               "GPU. Then start again, from the last checkpoint";
    }
}

bool device_check(struct device *device, cudaError_t code, const char *call)
{
    struct gapless_error lack = {};
    int status;

    if (code == cudaSuccess)
        return true;
    status = cuda_error_set(&lack, code, call);
    if (status == GAPLESS_MISSING)
        (void)device_break(device, status, "%s: %s", call, lack.text);
    else
        (void)device_break(device, status, "%s: %s (%s)%s", call,
                           cudaGetErrorString(code), cudaGetErrorName(code),
                           remedy(code));
    return false;
}

bool device_enter(struct device *device)
{
    return device->failure.status == GAPLESS_OK &&
           device_check(device, cudaSetDevice((int)device->number), "cudaSetDevice");
}

uint32_t device_number(const struct device *device)
{
    return device->number;
}

cudaStream_t device_work_stream(const struct device *device)
{
    return device->streams[DEVICE_WORK].stream;
}

/* ---- open and close ------------------------------------------------------ */

static bool open_streams(struct device *device)
{
    for (uint32_t i = 0; i < DEVICE_STREAMS; i++) {
        struct stream_state *state = &device->streams[i];

        /* Non-blocking: else a caller's default stream would hold them up. */
        if (!device_check(
                device,
                cudaStreamCreateWithFlags(&state->stream, cudaStreamNonBlocking),
                "cudaStreamCreateWithFlags"))
            return false;
        for (uint32_t k = 0; k < EVENTS; k++)
            if (!device_check(
                    device,
                    cudaEventCreateWithFlags(&state->events[k], cudaEventDisableTiming),
                    "cudaEventCreateWithFlags"))
                return false;
    }
    device->place.stream = device->streams[DEVICE_WORK].stream;
    return true;
}

/* Page-locked memory, zero. */
static void *open_pinned(struct device *device, size_t bytes)
{
    void *host = NULL;

    if (!device_check(
            device,
            cudaHostAlloc(&host, bytes, cudaHostAllocPortable | cudaHostAllocMapped),
            "cudaHostAlloc"))
        return NULL;
    memset(host, 0, bytes);
    return host;
}

static bool open_results(struct device *device)
{
    void *there = NULL;

    device->results = (struct device_result *)open_pinned(
        device, DEVICE_RESULTS * sizeof(struct device_result));
    if (device->results == NULL ||
        !device_check(device, cudaHostGetDevicePointer(&there, device->results, 0),
                      "cudaHostGetDevicePointer"))
        return false;
    device->results_there = (struct device_result *)there;
    return true;
}

static bool open_gates(struct device *device)
{
    void *there = NULL;

    if (device->blocks_max == 0 || device->blocks_max > GATES_MAX)
        return true;
    device->gates = (float *)open_pinned(
        device, (size_t)DEVICE_RESULTS * device->blocks_max * sizeof(float));
    if (device->gates == NULL ||
        !device_check(device, cudaHostGetDevicePointer(&there, device->gates, 0),
                      "cudaHostGetDevicePointer"))
        return false;
    device->gates_there = (float *)there;
    device->gates_max = device->blocks_max;
    return true;
}

static bool open_uploads(struct device *device, struct gapless_error *error)
{
    size_t lists = 2 * WORKERS_MAX * sizeof(void *);
    size_t dots = (size_t)device->blocks_max * DEVICE_QUEUE * sizeof(double);
    const struct holding *held;

    device->uploads.bytes = lists > dots ? lists : dots;
    device->uploads.host = (char *)open_pinned(device, UPLOADS * device->uploads.bytes);
    if (device->uploads.host == NULL)
        return false;
    held = device_hold(device, device->uploads.bytes, error);
    if (held == NULL)
        return false;
    device->uploads.there = held->start;
    return true;
}

static bool open_scratch(struct device *device, struct gapless_error *error)
{
    size_t bytes = kernel_scratch_bytes(device->elements_max, device->blocks_max);
    const struct holding *held = device_hold(device, bytes > 0 ? bytes : UNIT, error);

    if (held == NULL)
        return false;
    device->place.scratch = held->start;
    return true;
}

/* One launch, so that a GPU for which there is no code is found here: 0*1, in scratch
 * that is zero. */
static bool open_trial(struct device *device, struct gapless_error *error)
{
    return device_check(
               device,
               kernel_scale(&device->place, (float *)device->place.scratch, 1.0f, 16),
               "first launch") &&
           device_drain(device, DEVICE_WORK, error) == GAPLESS_OK;
}

static bool open_all(struct device *device, struct gapless_error *error)
{
    return device_enter(device) && open_streams(device) && open_results(device) &&
           open_gates(device) && open_uploads(device, error) &&
           open_scratch(device, error) && open_trial(device, error);
}

static void device_close(struct device *device);

static int device_open(uint32_t which, size_t elements_max, uint32_t blocks_max,
                       struct device **ret, struct gapless_error *error)
{
    struct gapless_error reason = {};
    struct device_facts facts;
    struct device *device;
    int status = device_facts_of(which, &facts, error);

    if (status != GAPLESS_OK)
        return status;
    device = (struct device *)calloc(1, sizeof *device);
    if (device == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "out of memory of the host");
    device->number = which;
    device->elements_max = elements_max;
    device->blocks_max = blocks_max;
    device->can_flush = facts.can_flush;
    device->place.processors = facts.processors;
    device_driver(&device->driver);
    if (!open_all(device, &reason)) {
        (void)device_failure(device,
                             &reason); /* else `why` is what was no failure of it */
        if (error != NULL)
            *error = reason;
        device_close(device);
        return reason.status;
    }
    *ret = device;
    return GAPLESS_OK;
}

/* All that was asked for: in the order of the data. False: it does not come to an
 * end. */
static bool close_drain(struct device *device)
{
    static const enum device_stream order[] = {DEVICE_IN, DEVICE_WORK, DEVICE_OUT};

    for (enum device_stream stream : order)
        if (device->streams[stream].stream != NULL &&
            device_drain(device, stream, NULL) == GAPLESS_TIMEOUT)
            return false;
    return true;
}

/* After a failure CUDA may refuse all of this; nothing can then be done about it, and
 * the end of the process frees the rest. */
static void close_streams(struct device *device)
{
    for (struct stream_state &state : device->streams) {
        for (cudaEvent_t event : state.events)
            if (event != NULL)
                (void)device_check(device, cudaEventDestroy(event), "cudaEventDestroy");
        if (state.stream != NULL)
            (void)device_check(device, cudaStreamDestroy(state.stream),
                               "cudaStreamDestroy");
    }
}

static void device_close(struct device *device)
{
    if (device == NULL)
        return;
    /* A GPU that does not answer would hold cudaFree for ever: leave it its memory. */
    if (close_drain(device)) {
        (void)cudaSetDevice((int)device->number); /* also after a failure */
        while (device->holdings != NULL)
            device_release(device, device->holdings);
        (void)device_check(device, cudaFreeHost(device->uploads.host), "cudaFreeHost");
        (void)device_check(device, cudaFreeHost(device->gates), "cudaFreeHost");
        (void)device_check(device, cudaFreeHost(device->results), "cudaFreeHost");
        close_streams(device);
    }
    (void)cudaGetLastError();
    free(device);
}

/* In the order of engine/device/device.h. */
const struct device_ops gpu_device = {
    device_count,     device_facts_of, device_open,       device_close,
    device_failure,   device_take,     device_give,       device_pin,
    device_unpin,     device_share,    device_kind_of,    device_flush,
    device_copy_in,   device_copy_out, device_copy,       device_zero,
    device_mark,      device_after,    device_done,       device_wait,
    device_result_at, device_gates_at, device_blocks_new, device_blocks_free,
    device_apply,     device_measure,  device_round,      device_look_ahead,
    device_forget,    device_resum,    device_finite,     device_norm_sq,
    device_scale,     device_decay,    device_slim,       device_average,
};
