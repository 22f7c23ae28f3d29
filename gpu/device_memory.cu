/* A device's memory: taking it, page-locking the host's, and sharing it with network
 * cards. */
#include "gpu/device_inside.h"

#include <stdlib.h>
#include <unistd.h>

#define MIB 1048576.0

static char *align_up(char *at)
{
    return at + (UNIT - (uintptr_t)at % UNIT) % UNIT;
}

/* No memory: how much there is. */
static void tell_memory(const struct device *device, size_t bytes,
                        struct gapless_error *error)
{
    size_t free_bytes = 0, total = 0;

    (void)cudaGetLastError();
    if (cudaMemGetInfo(&free_bytes, &total) != cudaSuccess) {
        (void)cudaGetLastError();
        gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                          "cudaMalloc: GPU %u has no %.1f MiB more: see nvidia-smi",
                          device->number, (double)bytes / MIB);
        return;
    }
    gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                      "cudaMalloc: GPU %u has %.1f MiB free of %.1f, and %.1f MiB more "
                      "are needed: end "
                      "other programs on it (nvidia-smi), use more GPUs, fewer "
                      "workers, or a rule with "
                      "less state (gapless rules)",
                      device->number, (double)free_bytes / MIB, (double)total / MIB,
                      (double)bytes / MIB);
}

/* CUDA aligns large pieces far more than we need and small ones to 256 bytes, and
 * promises the latter: take more where it was not enough. */
static bool allocate(struct device *device, struct holding *ret,
                     struct gapless_error *error)
{
    void *memory = NULL;
    cudaError_t code = cudaMalloc(&memory, ret->bytes);

    if (code == cudaSuccess && (uintptr_t)memory % UNIT != 0) {
        (void)device_check(device, cudaFree(memory), "cudaFree");
        code = cudaMalloc(&memory, ret->bytes + UNIT);
    }
    if (code == cudaErrorMemoryAllocation) {
        tell_memory(device, ret->bytes, error);
        return false;
    }
    if (!device_check(device, code, "cudaMalloc")) {
        (void)device_failure(device, error);
        return false;
    }
    ret->given = (char *)memory;
    ret->start = align_up(ret->given);
    return true;
}

/* Synchronous copies of this memory then end before their call does, so that a network
 * card that reads it afterwards sees them (GPUDirect RDMA guide). Nothing here depends
 * on it, and drivers that do not have it are fine. */
static void set_sync(const struct device *device, const struct holding *held)
{
    unsigned yes = 1;

    if (device->driver.set_pointer != NULL)
        (void)device->driver.set_pointer(&yes, CU_POINTER_ATTRIBUTE_SYNC_MEMOPS,
                                         (CUdeviceptr)(uintptr_t)held->start);
}

struct holding *device_hold(struct device *device, size_t bytes,
                            struct gapless_error *error)
{
    struct holding *held;

    if (!device_enter(device)) {
        (void)device_failure(device, error);
        return NULL;
    }
    if (bytes == 0 || bytes > SIZE_MAX / 2) {
        gapless_error_set(error, GAPLESS_INVALID, 0,
                          "GPU %u: %zu bytes is no amount of memory", device->number,
                          bytes);
        return NULL;
    }
    held = (struct holding *)calloc(1, sizeof *held);
    if (held == NULL) {
        gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "out of memory of the host");
        return NULL;
    }
    held->kind = HELD_MEMORY;
    held->bytes = (bytes + UNIT - 1) / UNIT * UNIT;
    if (!allocate(device, held, error)) {
        free(held);
        return NULL;
    }
    held->next = device->holdings;
    device->holdings = held;
    set_sync(device, held);
    device_zero(device, held->start, held->bytes);
    if (device_drain(device, DEVICE_WORK, error) != GAPLESS_OK) {
        device_release(device, held);
        return NULL;
    }
    return held;
}

/* Frees also on a device that has failed: what CUDA then says is of no use. */
void device_release(struct device *device, struct holding *held)
{
    cudaError_t code;

    if (held == NULL)
        return;
    for (struct holding **link = &device->holdings; *link != NULL;
         link = &(*link)->next)
        if (*link == held) {
            *link = held->next;
            break;
        }
    (void)device_enter(device);
    code = held->kind == HELD_MEMORY ? cudaFree(held->given)
                                     : cudaHostUnregister(held->given);
    (void)device_check(device, code,
                       held->kind == HELD_MEMORY ? "cudaFree" : "cudaHostUnregister");
    free(held);
}

/* The holding of a kind that a pointer is in. */
static struct holding *holding_find(const struct device *device, enum holding_kind kind,
                                    const void *memory)
{
    const char *at = (const char *)memory;

    for (struct holding *held = device->holdings; held != NULL; held = held->next)
        if (held->kind == kind && at >= held->start && at < held->start + held->bytes)
            return held;
    return NULL;
}

int device_take(struct device *device, size_t bytes, void **ret,
                struct gapless_error *error)
{
    struct gapless_error reason = {};
    const struct holding *held = device_hold(device, bytes, &reason);

    if (held == NULL) {
        if (error != NULL)
            *error = reason;
        return reason.status;
    }
    *ret = held->start;
    return GAPLESS_OK;
}

void device_give(struct device *device, void *memory)
{
    struct holding *held = holding_find(device, HELD_MEMORY, memory);

    if (memory != NULL && (held == NULL || held->start != memory))
        (void)device_break(device, GAPLESS_INVALID,
                           "gave back memory it does not have");
    else
        device_release(device, held);
}

/* What other code has page-locked is as good, and theirs to release. */
int device_pin(struct device *device, void *host, size_t bytes,
               struct gapless_error *error)
{
    struct holding *held;
    cudaError_t code;

    if (!device_enter(device))
        return device_failure(device, error);
    held = (struct holding *)calloc(1, sizeof *held);
    if (held == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "out of memory of the host");
    code = cudaHostRegister(host, bytes, cudaHostRegisterPortable);
    if (code != cudaSuccess) {
        free(held);
        if (code != cudaErrorHostMemoryAlreadyRegistered)
            return cuda_error_set(error, code, "cudaHostRegister");
        (void)cudaGetLastError();
        return GAPLESS_OK;
    }
    held->kind = HELD_PINNED;
    held->given = held->start = (char *)host;
    held->bytes = bytes;
    held->next = device->holdings;
    device->holdings = held;
    return GAPLESS_OK;
}

void device_unpin(struct device *device, void *host)
{
    struct holding *held = holding_find(device, HELD_PINNED, host);

    if (held != NULL && held->start == host)
        device_release(device, held);
}

/* What is exported for [memory, memory + bytes): the whole of what was taken; of memory
 * that another process took (a framework), the pages of the host's size that it is in,
 * since a DMA-BUF begins and ends with pages. */
static bool export_of(const struct device *device, char *memory, size_t bytes,
                      struct holding *ret)
{
    const struct holding *held = holding_find(device, HELD_MEMORY, memory);
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), start = (uintptr_t)memory;
    uint32_t of = 0;

    if (held != NULL) {
        *ret = *held;
        return bytes <= (size_t)(held->start + held->bytes - memory);
    }
    if (device_kind_of(memory, &of) != DEVICE_MEMORY || of != device->number ||
        bytes == 0 || bytes > SIZE_MAX / 2)
        return false;
    ret->kind = HELD_MEMORY;
    ret->start = memory - start % page;
    ret->bytes = (start % page + bytes + page - 1) / page * page;
    return true;
}

int device_share(struct device *device, void *memory, size_t bytes, int *ret_fd,
                 uint64_t *ret_offset, struct gapless_error *error)
{
    struct holding range = {};
    const struct holding *held = &range;
    const char *at = (const char *)memory;
    CUresult result;
    int fd = -1;

    if (!export_of(device, (char *)memory, bytes, &range))
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "GPU %u: memory to share that it does not have",
                                 device->number);
    if (!device_enter(device))
        return device_failure(device, error);
    if (device->driver.share == NULL)
        return gapless_error_set(
            error, GAPLESS_UNSUPPORTED, 0,
            "this NVIDIA driver exports no DMA-BUF: it needs to be "
            "of CUDA 11.7 or later (515)");
    set_sync(device, held);
    result = device->driver.share(&fd, (CUdeviceptr)(uintptr_t)held->start, held->bytes,
                                  CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD, 0);
    if (result != CUDA_SUCCESS)
        return gapless_error_set(
            error, GAPLESS_UNSUPPORTED, 0,
            "cuMemGetHandleForAddressRange: GPU %u exports no DMA-BUF (CUDA error %d): "
            "it needs the open kernel module of the NVIDIA driver and a Linux kernel "
            "since 5.12 (`modinfo -F license nvidia` says \"Dual MIT/GPL\")",
            device->number, (int)result);
    *ret_fd = fd;
    *ret_offset = (uint64_t)(at - held->start);
    return GAPLESS_OK;
}

enum device_kind device_kind_of(const void *pointer, uint32_t *ret_number)
{
    struct cudaPointerAttributes attributes = {};

    if (cudaPointerGetAttributes(&attributes, pointer) != cudaSuccess) {
        /* Before CUDA 11, and without a driver: an error for plain host memory. */
        (void)cudaGetLastError();
        return DEVICE_HOST;
    }
    if (attributes.type == cudaMemoryTypeManaged)
        return DEVICE_MANAGED;
    if (attributes.type != cudaMemoryTypeDevice)
        return DEVICE_HOST;
    *ret_number = (uint32_t)attributes.device;
    return DEVICE_MEMORY;
}

int device_flush(struct device *device)
{
    if (!device->can_flush)
        return GAPLESS_UNSUPPORTED;
    if (!device_enter(device) ||
        !device_check(device,
                      cudaDeviceFlushGPUDirectRDMAWrites(
                          cudaFlushGPUDirectRDMAWritesTargetCurrentDevice,
                          cudaFlushGPUDirectRDMAWritesToOwner),
                      "cudaDeviceFlushGPUDirectRDMAWrites"))
        return device->failure.status;
    return GAPLESS_OK;
}
