/* Fake CUDA: which GPUs there are, how calls fail, and what a test sets. */
#include "tests/gpu/fake/fake_inside.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace fake
{
static std::recursive_mutex lock; /* of all that follows */
static struct wishes wanted;
static bool ready;
static unsigned long count, fail_number, flush_count;
static bool fail_after;
static char fail_name[64];
static struct gpu *gpus = new struct gpu[FAKE_GPUS_MAX];
static thread_local cudaError_t last = cudaSuccess;
static thread_local int now = 0;

static long number_of(const char *name, long standard)
{
    const char *text = getenv(name);

    return text != nullptr && text[0] != '\0' ? strtol(text, nullptr, 10) : standard;
}

static void fail_at(unsigned long n, bool all_after)
{
    std::lock_guard<std::recursive_mutex> hold(lock);

    fail_number = n == 0 ? 0 : count + n;
    fail_after = all_after;
    if (n != 0)
        fail_name[0] = '\0';
}

static void setup()
{
    const char *driver = getenv("FAKE_CUDA_DRIVER");
    long n;

    wanted.gpus = (int)number_of("FAKE_CUDA_GPUS", 1);
    if (wanted.gpus > FAKE_GPUS_MAX)
        wanted.gpus = FAKE_GPUS_MAX;
    wanted.driver = (int)number_of("FAKE_CUDA_DRIVER", CUDART_VERSION);
    if (driver != nullptr && strcmp(driver, "none") == 0)
        wanted.driver = 0;
    wanted.memory = (size_t)number_of("FAKE_CUDA_MEMORY", 256L << 20);
    wanted.ordering = (int)number_of("FAKE_CUDA_ORDERING", 0);
    wanted.flush = (int)number_of("FAKE_CUDA_FLUSH", 1);
    wanted.rdma = (int)number_of("FAKE_CUDA_RDMA", 1);
    wanted.dmabuf = (int)number_of("FAKE_CUDA_DMABUF", 1);
    wanted.misalign = false;
    seed((uint64_t)number_of("FAKE_CUDA_SEED", 0));
    ready = true;
    n = number_of("FAKE_CUDA_FAIL", 0);
    fail_at(n > 0 ? (unsigned long)n : 0, false);
}

const struct wishes &wishes_now()
{
    std::lock_guard<std::recursive_mutex> hold(lock);

    if (!ready)
        setup();
    return wanted;
}

void misalign(bool yes)
{
    (void)wishes_now();
    wanted.misalign = yes;
}

struct gpu &gpu_of(int number)
{
    if (number < 0 || number >= FAKE_GPUS_MAX)
        misuse("there is no GPU %d", number);
    return gpus[number];
}

void misuse(const char *format, ...)
{
    va_list list;

    (void)fflush(stdout);
    (void)fprintf(stderr, "fake CUDA: misuse: ");
    va_start(list, format);
    (void)vfprintf(stderr, format, list);
    va_end(list);
    (void)fprintf(stderr, "\n");
    abort();
}

/* cudaErrorNotReady too: frameworks clear it, so a launch must not find it. */
cudaError_t fail(cudaError_t code)
{
    if (code != cudaSuccess)
        last = code;
    return code;
}

/* Is it this call's turn to fail? */
bool injected(const char *call)
{
    std::lock_guard<std::recursive_mutex> hold(lock);

    count++;
    if (fail_number == 0 || count < fail_number || (count > fail_number && !fail_after))
        return false;
    if (fail_name[0] == '\0')
        (void)snprintf(fail_name, sizeof fail_name, "%s", call);
    return true;
}

cudaError_t begin(const char *call, int number)
{
    const struct wishes &wish = wishes_now();

    if (injected(call))
        return fail(strcmp(call, "cudaMalloc") == 0 ||
                            strcmp(call, "cudaHostAlloc") == 0
                        ? cudaErrorMemoryAllocation
                        : cudaErrorUnknown);
    if (wish.driver < CUDART_VERSION)
        return fail(cudaErrorInsufficientDriver);
    if (wish.gpus <= 0)
        return fail(cudaErrorNoDevice);
    if (number >= wish.gpus)
        return fail(cudaErrorInvalidDevice);
    if (number >= 0 && gpu_of(number).lost)
        return fail(cudaErrorIllegalAddress);
    return cudaSuccess;
}

int current()
{
    return now;
}

/* ---- the table of a test ------------------------------------------------- */

static unsigned long calls()
{
    std::lock_guard<std::recursive_mutex> hold(lock);

    return count;
}

static const char *failed()
{
    return fail_name;
}

static void lose(uint32_t number)
{
    struct gpu &gpu = gpu_of((int)number);
    std::lock_guard<std::recursive_mutex> hold(gpu.lock);

    gpu.lost = true;
}

static unsigned leaks()
{
    return memory_left() + streams_left();
}

static void reset()
{
    if (leaks() != 0)
        misuse("reset while %u things were not given back", leaks());
    memory_reset();
    streams_reset();
    for (int number = 0; number < FAKE_GPUS_MAX; number++)
        gpus[number].lost = false;
    std::lock_guard<std::recursive_mutex> hold(lock);
    count = 0;
    flush_count = 0;
    last = cudaSuccess;
    now = 0;
    setup();
}

static void *window_of(const void *memory)
{
    int number = owner(memory);

    return number < 0 ? nullptr : window(memory, 1, number);
}

static unsigned long flushes()
{
    std::lock_guard<std::recursive_mutex> hold(lock);

    return flush_count;
}
} // namespace fake

extern "C" {

const struct fake_cuda fake_cuda = {
    fake::calls,    fake::fail_at,         fake::failed,  fake::lose,
    fake::leaks,    fake::streams_waiting, fake::reset,   fake::seed,
    fake::misalign, fake::window_of,       fake::flushes,
};

__attribute__((visibility("default"))) const struct fake_cuda *fake_cuda_table(void)
{
    return &fake_cuda;
}

/* ---- the calls ----------------------------------------------------------- */

cudaError_t cudaGetDeviceCount(int *ret)
{
    cudaError_t code = fake::begin("cudaGetDeviceCount", -1);

    if (code == cudaSuccess)
        *ret = fake::wishes_now().gpus;
    return code;
}

cudaError_t cudaSetDevice(int number)
{
    cudaError_t code = fake::begin("cudaSetDevice", number);

    if (number < 0)
        return fake::fail(cudaErrorInvalidDevice);
    if (code == cudaSuccess || code == cudaErrorIllegalAddress)
        fake::now = number; /* a lost GPU too, so that what it held can be released */
    return code;
}

cudaError_t cudaGetDevice(int *number)
{
    cudaError_t code = fake::begin("cudaGetDevice", -1);

    if (code == cudaSuccess)
        *number = fake::now;
    return code;
}

/* Works without a driver. */
cudaError_t cudaDriverGetVersion(int *version)
{
    if (fake::injected("cudaDriverGetVersion"))
        return fake::fail(cudaErrorUnknown);
    *version = fake::wishes_now().driver;
    return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int *version)
{
    if (fake::injected("cudaRuntimeGetVersion"))
        return fake::fail(cudaErrorUnknown);
    *version = CUDART_VERSION;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int number)
{
    cudaError_t code = fake::begin("cudaGetDeviceProperties", number);

    if (code != cudaSuccess)
        return code;
    memset(properties, 0, sizeof *properties);
    (void)snprintf(properties->name, sizeof properties->name, "Fake GPU");
    properties->totalGlobalMem = fake::wishes_now().memory;
    properties->major = 9;
    properties->multiProcessorCount = 4;
    properties->l2CacheSize = 1 << 20;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr which, int number)
{
    cudaError_t code = fake::begin("cudaDeviceGetAttribute", number);
    const struct fake::wishes &wish = fake::wishes_now();

    if (code != cudaSuccess)
        return code;
    switch (which) {
    case cudaDevAttrMultiProcessorCount:
        *value = 4;
        return cudaSuccess;
    case cudaDevAttrMemoryClockRate: /* kHz */
        *value = 2619000;
        return cudaSuccess;
    case cudaDevAttrGlobalMemoryBusWidth: /* bits */
        *value = 5120;
        return cudaSuccess;
    case cudaDevAttrL2CacheSize:
        *value = 1 << 20;
        return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor:
        *value = 9;
        return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
        *value = 0;
        return cudaSuccess;
    case cudaDevAttrGPUDirectRDMASupported:
        *value = wish.rdma;
        return cudaSuccess;
    case cudaDevAttrGPUDirectRDMAFlushWritesOptions:
        *value = wish.flush ? cudaFlushGPUDirectRDMAWritesOptionHost : 0;
        return cudaSuccess;
    case cudaDevAttrGPUDirectRDMAWritesOrdering:
        *value = wish.ordering;
        return cudaSuccess;
    }
    return fake::fail(cudaErrorInvalidValue);
}

cudaError_t cudaDeviceGetPCIBusId(char *text, int bytes, int number)
{
    cudaError_t code = fake::begin("cudaDeviceGetPCIBusId", number);

    if (code == cudaSuccess) /* upper case, as CUDA writes it */
        (void)snprintf(text, (size_t)bytes, "0000:%02X:00.0", 0x1a + number);
    return code;
}

cudaError_t cudaGetLastError(void)
{
    cudaError_t code = fake::last;

    fake::last = cudaSuccess;
    return code;
}

cudaError_t cudaPeekAtLastError(void)
{
    return fake::last;
}

static const struct {
    cudaError_t code;
    const char *name, *text;
} errors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver",
     "CUDA driver version is insufficient for CUDA runtime version"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress",
     "an illegal memory access was encountered"},
    {cudaErrorUnknown, "cudaErrorUnknown", "unknown error"},
};

const char *cudaGetErrorName(cudaError_t code)
{
    for (const auto &error : errors)
        if (error.code == code)
            return error.name;
    return "unrecognized error code";
}

const char *cudaGetErrorString(cudaError_t code)
{
    for (const auto &error : errors)
        if (error.code == code)
            return error.text;
    return "unrecognized error code";
}

cudaError_t
cudaDeviceFlushGPUDirectRDMAWrites(enum cudaFlushGPUDirectRDMAWritesTarget target,
                                   enum cudaFlushGPUDirectRDMAWritesScope scope)
{
    cudaError_t code =
        fake::begin("cudaDeviceFlushGPUDirectRDMAWrites", fake::current());

    (void)target;
    (void)scope;
    if (code != cudaSuccess)
        return code;
    if (!fake::wishes_now().flush)
        return fake::fail(cudaErrorNotSupported);
    std::lock_guard<std::recursive_mutex> hold(fake::lock);
    fake::flush_count++;
    return cudaSuccess;
}

/* ---- the driver's -------------------------------------------------------- */

cudaError_t
cudaGetDriverEntryPointByVersion(const char *symbol, void **function,
                                 unsigned int version, unsigned long long flags,
                                 enum cudaDriverEntryPointQueryResult *result)
{
    cudaError_t code = fake::begin("cudaGetDriverEntryPointByVersion", -1);
    const struct {
        const char *name;
        void *function;
    } known[] = {
        {"cuDeviceGet", (void *)cuDeviceGet},
        {"cuDeviceGetAttribute", (void *)cuDeviceGetAttribute},
        {"cuPointerSetAttribute", (void *)cuPointerSetAttribute},
        {"cuMemGetHandleForAddressRange", (void *)cuMemGetHandleForAddressRange}};

    (void)version;
    (void)flags;
    if (code != cudaSuccess)
        return code;
    *function = nullptr;
    for (const auto &entry : known)
        if (strcmp(entry.name, symbol) == 0)
            *function = entry.function;
    if (result != nullptr)
        *result = *function != nullptr ? cudaDriverEntryPointSuccess
                                       : cudaDriverEntryPointSymbolNotFound;
    return cudaSuccess;
}

/* Calls of the driver leave nothing in cudaGetLastError. */
CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    if (fake::injected("cuDeviceGet"))
        return CUDA_ERROR_UNKNOWN;
    *device = ordinal;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute which, CUdevice device)
{
    (void)device;
    if (fake::injected("cuDeviceGetAttribute"))
        return CUDA_ERROR_UNKNOWN;
    if (which != CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED)
        return CUDA_ERROR_INVALID_VALUE;
    *value = fake::wishes_now().dmabuf;
    return CUDA_SUCCESS;
}
}
