/* Fake CUDA: memory of GPUs, and host memory that is page-locked.
 *
 *   address space   [head 64 KiB][  memory of the GPU  ]     [ window ]
 *                    PROT_NONE     opened for kernels          CPU, always
 *                                          \_____ one memfd _____/
 */
#include "tests/gpu/fake/fake_inside.h"

#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#define HEAD 65536u
/* As far as small pieces of a real GPU are aligned. */
#define SMALL 512u

namespace fake
{
struct piece {
    int number;
    char *given; /* what cudaMalloc returned: memory, or a bit before it */
    char *head;  /* of the mapping */
    char *memory, *window;
    size_t bytes, mapped;
    int fd;
};

struct host_piece {
    char *start;
    size_t bytes;
    bool taken; /* by cudaHostAlloc, else registered */
};

static std::recursive_mutex lock;
static auto &pieces = *new std::vector<piece>;
static auto &host_pieces = *new std::vector<host_piece>;

static piece *find(const void *memory)
{
    for (piece &one : pieces)
        if ((const char *)memory >= one.given &&
            (const char *)memory < one.memory + one.bytes)
            return &one;
    return nullptr;
}

char *window(const void *memory, size_t bytes, int number)
{
    std::lock_guard<std::recursive_mutex> hold(lock);
    const piece *one = find(memory);
    const char *at = (const char *)memory;

    if (one == nullptr || one->number != number || at < one->memory ||
        bytes > (size_t)(one->memory + one->bytes - at))
        return nullptr;
    return one->window + (at - one->memory);
}

int owner(const void *memory)
{
    std::lock_guard<std::recursive_mutex> hold(lock);
    const piece *one = find(memory);

    return one == nullptr ? -1 : one->number;
}

/* Memory that nothing works on. With FAKE_CUDA_OPEN=1 it stays open, so that a real
 * driver can register it by its address. */
static int at_rest()
{
    const char *text = getenv("FAKE_CUDA_OPEN");

    return text != nullptr && text[0] == '1' ? PROT_READ | PROT_WRITE : PROT_NONE;
}

static void protect(int number, int protection)
{
    std::lock_guard<std::recursive_mutex> hold(lock);

    for (const piece &one : pieces)
        if (one.number == number && mprotect(one.memory, one.mapped, protection) != 0)
            misuse("mprotect failed");
}

void memory_open(int number)
{
    if (gpu_of(number).open++ == 0)
        protect(number, PROT_READ | PROT_WRITE);
}

void memory_close(int number)
{
    if (--gpu_of(number).open == 0)
        protect(number, at_rest());
}

unsigned memory_left()
{
    std::lock_guard<std::recursive_mutex> hold(lock);

    return (unsigned)(pieces.size() + host_pieces.size());
}

static size_t used(int number)
{
    size_t sum = 0;

    for (const piece &one : pieces)
        if (one.number == number)
            sum += one.bytes;
    return sum;
}

static bool map(piece *ret)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);

    ret->mapped = (ret->bytes + page - 1) / page * page;
    ret->fd = memfd_create("fake-gpu", MFD_CLOEXEC);
    if (ret->fd < 0 || ftruncate(ret->fd, (off_t)ret->mapped) != 0)
        return false;
    /* Room to align the memory to 64 KiB behind its head. */
    ret->head = (char *)mmap(nullptr, ret->mapped + 2 * HEAD, PROT_NONE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (ret->head == MAP_FAILED)
        return false;
    ret->memory = (char *)(((uintptr_t)ret->head + 2 * HEAD - 1) / HEAD * HEAD);
    if (mmap(ret->memory, ret->mapped, at_rest(), MAP_SHARED | MAP_FIXED, ret->fd, 0) ==
        MAP_FAILED)
        return false;
    ret->window = (char *)mmap(nullptr, ret->mapped, PROT_READ | PROT_WRITE, MAP_SHARED,
                               ret->fd, 0);
    return ret->window != MAP_FAILED;
}

static void unmap(const piece &one)
{
    (void)munmap(one.head, one.mapped + 2 * HEAD);
    (void)munmap(one.window, one.mapped);
    (void)close(one.fd);
}

/* What is new holds no zeros; of large ones the ends will do. */
static void soil(const piece &one)
{
    size_t some = one.bytes < (4u << 20) ? one.bytes : HEAD;

    memset(one.window, 0xa5, some);
    memset(one.window + one.bytes - some, 0xa5, some);
}

void memory_reset()
{
    std::lock_guard<std::recursive_mutex> hold(lock);

    pieces.clear();
    host_pieces.clear();
}

static host_piece *find_host(const void *memory, size_t bytes)
{
    uintptr_t at = (uintptr_t)memory; /* whatever it is, NULL too */

    for (host_piece &one : host_pieces)
        if (at < (uintptr_t)one.start + one.bytes && (uintptr_t)one.start < at + bytes)
            return &one;
    return nullptr;
}

static void host_forget(host_piece *one)
{
    host_pieces.erase(host_pieces.begin() + (one - host_pieces.data()));
}
} // namespace fake

extern "C" {

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total)
{
    cudaError_t code = fake::begin("cudaMemGetInfo", fake::current());

    if (code != cudaSuccess)
        return code;
    std::lock_guard<std::recursive_mutex> hold(fake::lock);
    *total = fake::wishes_now().memory;
    *free_bytes = *total - fake::used(fake::current());
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **memory, size_t bytes)
{
    int number = fake::current();
    cudaError_t code = fake::begin("cudaMalloc", number);
    fake::piece one = {};

    if (code != cudaSuccess)
        return code;
    *memory = nullptr;
    if (bytes == 0)
        return cudaSuccess;
    std::lock_guard<std::recursive_mutex> hold(fake::lock);
    if (bytes > fake::wishes_now().memory - fake::used(number))
        return fake::fail(cudaErrorMemoryAllocation);
    one.number = number;
    one.bytes = bytes;
    if (!fake::map(&one))
        fake::misuse("the machine has no %zu bytes for a GPU", bytes);
    one.given = fake::wishes_now().misalign ? one.memory - SMALL : one.memory;
    fake::soil(one);
    fake::pieces.push_back(one);
    *memory = one.given;
    return cudaSuccess;
}

/* Waits for the GPU first, as the real one does. */
cudaError_t cudaFree(void *memory)
{
    int number = memory != nullptr ? fake::owner(memory) : fake::current();
    cudaError_t code = fake::begin("cudaFree", number);

    if (memory == nullptr)
        return code;
    if (number < 0)
        fake::misuse("cudaFree(%p): not taken, or freed before", memory);
    (void)fake::drain(number);
    std::lock_guard<std::recursive_mutex> hold(fake::lock);
    for (size_t i = 0; i < fake::pieces.size(); i++)
        if (fake::pieces[i].given == memory) {
            fake::unmap(fake::pieces[i]);
            fake::pieces.erase(fake::pieces.begin() + (long)i);
            return code;
        }
    fake::misuse("cudaFree(%p): inside of what was taken", memory);
}

cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned int flags)
{
    cudaError_t code = fake::begin("cudaHostAlloc", fake::current());

    (void)flags;
    if (code != cudaSuccess)
        return code;
    *memory = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    if (*memory == nullptr)
        return fake::fail(cudaErrorMemoryAllocation);
    memset(*memory, 0xa5, bytes);
    std::lock_guard<std::recursive_mutex> hold(fake::lock);
    fake::host_pieces.push_back({(char *)*memory, bytes, true});
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *memory)
{
    cudaError_t code = fake::begin("cudaFreeHost", fake::current());
    fake::host_piece *one;

    if (memory == nullptr)
        return code;
    (void)fake::drain(fake::current());
    std::lock_guard<std::recursive_mutex> hold(fake::lock);
    one = fake::find_host(memory, 1);
    if (one == nullptr || !one->taken || one->start != memory)
        fake::misuse("cudaFreeHost(%p): not taken, or freed before", memory);
    fake::host_forget(one);
    free(memory);
    return code;
}

cudaError_t cudaHostGetDevicePointer(void **device, void *host, unsigned int flags)
{
    cudaError_t code = fake::begin("cudaHostGetDevicePointer", fake::current());

    if (code != cudaSuccess)
        return code;
    if (flags != 0)
        return fake::fail(cudaErrorInvalidValue);
    std::lock_guard<std::recursive_mutex> hold(fake::lock);
    if (fake::find_host(host, 1) == nullptr)
        return fake::fail(cudaErrorInvalidValue);
    *device = host;
    return cudaSuccess;
}

cudaError_t cudaHostRegister(void *host, size_t bytes, unsigned int flags)
{
    cudaError_t code = fake::begin("cudaHostRegister", fake::current());

    (void)flags;
    if (code != cudaSuccess)
        return code;
    if (host == nullptr || bytes == 0)
        return fake::fail(cudaErrorInvalidValue);
    std::lock_guard<std::recursive_mutex> hold(fake::lock);
    if (fake::find_host(host, bytes) != nullptr)
        return fake::fail(cudaErrorHostMemoryAlreadyRegistered);
    fake::host_pieces.push_back({(char *)host, bytes, false});
    return cudaSuccess;
}

cudaError_t cudaHostUnregister(void *host)
{
    cudaError_t code = fake::begin("cudaHostUnregister", fake::current());
    fake::host_piece *one;

    (void)fake::drain(fake::current());
    std::lock_guard<std::recursive_mutex> hold(fake::lock);
    one = fake::find_host(host, 1);
    if (one == nullptr || one->taken || one->start != host)
        fake::misuse("cudaHostUnregister(%p): not registered", host);
    fake::host_forget(one);
    return code;
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes,
                                     const void *pointer)
{
    cudaError_t code = fake::begin("cudaPointerGetAttributes", -1);
    int number;

    if (code != cudaSuccess)
        return code;
    memset(attributes, 0, sizeof *attributes);
    attributes->device = -1;
    number = fake::owner(pointer);
    std::lock_guard<std::recursive_mutex> hold(fake::lock);
    if (number >= 0) {
        attributes->type = cudaMemoryTypeDevice;
        attributes->device = number;
    } else if (fake::find_host(pointer, 1) != nullptr) {
        attributes->type = cudaMemoryTypeHost;
        attributes->device = fake::current();
    }
    return cudaSuccess;
}

CUresult cuPointerSetAttribute(const void *value, CUpointer_attribute which,
                               CUdeviceptr pointer)
{
    (void)value;
    if (fake::injected("cuPointerSetAttribute"))
        return CUDA_ERROR_UNKNOWN;
    return which == CU_POINTER_ATTRIBUTE_SYNC_MEMOPS &&
                   fake::owner((const void *)(uintptr_t)pointer) >= 0
               ? CUDA_SUCCESS
               : CUDA_ERROR_INVALID_VALUE;
}

/* The DMA-BUF begins at the address given, which is where a page begins. */
CUresult cuMemGetHandleForAddressRange(void *handle, CUdeviceptr pointer, size_t bytes,
                                       CUmemRangeHandleType type,
                                       unsigned long long flags)
{
    const char *memory = (const char *)(uintptr_t)pointer;
    size_t page = (size_t)sysconf(_SC_PAGESIZE);

    if (fake::injected("cuMemGetHandleForAddressRange"))
        return CUDA_ERROR_UNKNOWN;
    if (!fake::wishes_now().dmabuf)
        return CUDA_ERROR_NOT_SUPPORTED;
    std::lock_guard<std::recursive_mutex> hold(fake::lock);
    const fake::piece *one = fake::find(memory);
    if (type != CU_MEM_RANGE_HANDLE_TYPE_DMA_BUF_FD || flags != 0 || one == nullptr ||
        (uintptr_t)memory % page != 0 || bytes % page != 0 || bytes == 0 ||
        bytes > (size_t)(one->memory + one->bytes - memory))
        return CUDA_ERROR_INVALID_VALUE;
    if (memory != one->memory)
        fake::misuse("the fake exports memory from its start only");
    *(int *)handle = fcntl(one->fd, F_DUPFD_CLOEXEC, 0);
    return *(int *)handle >= 0 ? CUDA_SUCCESS : CUDA_ERROR_UNKNOWN;
}
}
