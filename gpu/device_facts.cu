/* Which GPUs there are and what they can do, and what is missing where there are
 * none. */
#include "gpu/device_inside.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* No call of CUDA works on this machine: why, and what to do. NULL: something else. */
static const char *lack_text(cudaError_t code)
{
    switch ((int)code) {
    case cudaErrorNoDevice:
        return "the NVIDIA driver sees no GPU here: is one plugged in (nvidia-smi), "
               "and "
               "does CUDA_VISIBLE_DEVICES hide it? A container needs `--gpus all`, a "
               "Slurm job `--gpus=1`";
    case cudaErrorStubLibrary:
        return "the libcuda.so.1 found is the toolkit's stub, not the driver's: take "
               "the folder .../stubs out of LD_LIBRARY_PATH";
    case cudaErrorInitializationError:
        return "the driver does not start here: is the module nvidia_uvm loaded "
               "(`nvidia-modprobe -u`), may /dev/nvidia* be opened, what does dmesg "
               "say? After a fork, only the process that used CUDA first can use it";
    case cudaErrorSystemNotReady:
        return "the driver is not ready: machines with NVSwitch need the service "
               "nvidia-fabricmanager, of the driver's version";
    case cudaErrorSystemDriverMismatch:
        return "the kernel module and libcuda.so.1 are of different versions: reboot "
               "after an update of the driver, and give a container the host's";
    case cudaErrorCompatNotSupportedOnDevice:
        return "the CUDA compatibility package does not support this GPU: update the "
               "NVIDIA driver instead, or take it out of LD_LIBRARY_PATH";
    case cudaErrorDevicesUnavailable:
        return "every GPU is taken by another process in exclusive mode: end it, or "
               "`nvidia-smi -c DEFAULT`";
    default:
        return NULL;
    }
}

static int lack_driver(struct gapless_error *error)
{
    int driver = 0, runtime = 0;

    if (cudaDriverGetVersion(&driver) != cudaSuccess)
        driver = 0;
    if (cudaRuntimeGetVersion(&runtime) != cudaSuccess)
        runtime = CUDART_VERSION;
    (void)cudaGetLastError();
    if (driver == 0)
        return gapless_error_set(
            error, GAPLESS_MISSING, 0,
            "no NVIDIA driver: libcuda.so.1 was not found. Install the driver (Debian: "
            "nvidia-driver, Ubuntu: `ubuntu-drivers install`); a container gets it "
            "from "
            "the host by `--gpus all` and NVIDIA's container toolkit");
    return gapless_error_set(
        error, GAPLESS_MISSING, 0,
        "the NVIDIA driver is too old: it is for CUDA %d.%d, and this plugin was built "
        "with %d.%d. Update the driver, or build with the CUDA toolkit %d",
        driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10,
        driver / 1000);
}

int cuda_error_set(struct gapless_error *error, cudaError_t code, const char *call)
{
    const char *lack = lack_text(code);

    (void)cudaGetLastError(); /* else a launch would find it */
    if (code == cudaErrorInsufficientDriver)
        return lack_driver(error);
    if (lack != NULL)
        return gapless_error_set(error, GAPLESS_MISSING, 0, "%s", lack);
    if (code == cudaErrorMemoryAllocation)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "%s: no memory left of the GPU, or of the host's that "
                                 "may be page-locked: see nvidia-smi",
                                 call);
    return gapless_error_set(error, GAPLESS_SYSTEM, 0, "%s: %s (%s)", call,
                             cudaGetErrorString(code), cudaGetErrorName(code));
}

int device_count(uint32_t *ret, struct gapless_error *error)
{
    int count = 0;
    cudaError_t code = cudaGetDeviceCount(&count);

    if (code != cudaSuccess)
        return cuda_error_set(error, code, "cudaGetDeviceCount");
    if (count <= 0)
        return cuda_error_set(error, cudaErrorNoDevice, "cudaGetDeviceCount");
    *ret = (uint32_t)count;
    return GAPLESS_OK;
}

/* A function of the driver; NULL: it has none of that name. libcuda is never linked:
 * such a plugin would not load on a machine without the driver. */
static void *driver_function(const char *name, unsigned since)
{
    void *function = NULL;
    cudaError_t code;

#if CUDART_VERSION >= 12050
    enum cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;

    code = cudaGetDriverEntryPointByVersion(name, &function, since, cudaEnableDefault,
                                            &result);
    if (result != cudaDriverEntryPointSuccess)
        function = NULL;
#else
    (void)since;
    code = cudaGetDriverEntryPoint(name, &function, cudaEnableDefault);
#endif
    if (code != cudaSuccess) {
        (void)cudaGetLastError();
        return NULL;
    }
    return function;
}

/* The versions are those in which CUDA brought the functions. */
void device_driver(struct driver *ret)
{
    ret->device_get = (decltype(ret->device_get))driver_function("cuDeviceGet", 2000);
    ret->attribute =
        (decltype(ret->attribute))driver_function("cuDeviceGetAttribute", 2000);
    ret->set_pointer =
        (decltype(ret->set_pointer))driver_function("cuPointerSetAttribute", 6000);
    ret->share =
        (decltype(ret->share))driver_function("cuMemGetHandleForAddressRange", 11070);
}

/* An attribute; 0 where this driver does not know it. */
static int attribute(uint32_t which, enum cudaDeviceAttr what)
{
    int value = 0;

    if (cudaDeviceGetAttribute(&value, what, (int)which) == cudaSuccess)
        return value;
    (void)cudaGetLastError();
    return 0;
}

static bool exports(uint32_t which)
{
    struct driver driver;
    CUdevice device;
    int value = 0;

    device_driver(&driver);
    return driver.share != NULL && driver.device_get != NULL &&
           driver.attribute != NULL &&
           driver.device_get(&device, (int)which) == CUDA_SUCCESS &&
           driver.attribute(&value, CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED, device) ==
               CUDA_SUCCESS &&
           value != 0;
}

/* What it can do for network cards, and how fast its memory is. */
static void fill_abilities(uint32_t which, struct device_facts *ret)
{
    uint64_t khz = (uint64_t)attribute(which, cudaDevAttrMemoryClockRate);
    uint64_t bits = (uint64_t)attribute(which, cudaDevAttrGlobalMemoryBusWidth);

    ret->major = (uint32_t)attribute(which, cudaDevAttrComputeCapabilityMajor);
    ret->minor = (uint32_t)attribute(which, cudaDevAttrComputeCapabilityMinor);
    ret->processors = (uint32_t)attribute(which, cudaDevAttrMultiProcessorCount);
    ret->l2_bytes = (uint64_t)attribute(which, cudaDevAttrL2CacheSize);
    ret->bandwidth = 2 * khz * 1000 * (bits / 8); /* two transfers a clock */
    ret->rdma = attribute(which, cudaDevAttrGPUDirectRDMASupported) != 0;
    ret->ordering = attribute(which, cudaDevAttrGPUDirectRDMAWritesOrdering);
    ret->can_flush = (attribute(which, cudaDevAttrGPUDirectRDMAFlushWritesOptions) &
                      cudaFlushGPUDirectRDMAWritesOptionHost) != 0;
    ret->dmabuf = ret->rdma && exports(which);
}

/* As sysfs writes it: CUDA writes capitals. */
static cudaError_t fill_bus(uint32_t which, struct device_facts *ret)
{
    cudaError_t code =
        cudaDeviceGetPCIBusId(ret->bus, (int)sizeof ret->bus, (int)which);

    for (char *at = ret->bus; code == cudaSuccess && *at != '\0'; at++)
        *at = (char)tolower((unsigned char)*at);
    return code;
}

int device_facts_of(uint32_t which, struct device_facts *ret,
                    struct gapless_error *error)
{
    struct cudaDeviceProp properties;
    struct device_facts facts = {};
    size_t free_bytes = 0, total = 0;
    const char *call = "cudaSetDevice";
    cudaError_t code = cudaSetDevice((int)which);

    if (code == cudaSuccess) {
        call = "cudaGetDeviceProperties";
        code = cudaGetDeviceProperties(&properties, (int)which);
    }
    if (code == cudaSuccess) {
        call = "cudaDeviceGetPCIBusId";
        code = fill_bus(which, &facts);
    }
    if (code == cudaSuccess) {
        call = "cudaMemGetInfo";
        code = cudaMemGetInfo(&free_bytes, &total);
    }
    if (code == cudaSuccess) {
        call = "cudaDriverGetVersion";
        code = cudaDriverGetVersion(&facts.driver);
    }
    if (code == cudaSuccess) {
        call = "cudaRuntimeGetVersion";
        code = cudaRuntimeGetVersion(&facts.runtime);
    }
    if (code != cudaSuccess)
        return cuda_error_set(error, code, call);
    facts.number = which;
    (void)snprintf(facts.name, sizeof facts.name, "%.63s", properties.name);
    facts.memory_bytes = total;
    facts.free_bytes = free_bytes;
    fill_abilities(which, &facts);
    *ret = facts;
    return GAPLESS_OK;
}
