/* Fake CUDA: what a test may ask of it, and set. The fake stands where the CUDA runtime
 * and driver stand, for the sources of gpu/ on a machine without a GPU.
 *
 *   asked:  copy_in  copy_in  mark   |  after  apply  mark  |   copy_out ...
 *           ──────── IN ───────────     ────── WORK ──────      ── OUT ──
 *   done:   nothing, until somebody asks whether a mark is reached; then what that mark
 *           needs, and (by the seed) little or nothing else
 *
 * - Memory of a GPU is a memfd. Its address is PROT_NONE but while an operation runs,
 *   so that the host's touch of it is a SIGSEGV; a DMA-BUF of it is that memfd.
 * - Streams are queues that are worked off late, in the thread that asks. A missing
 *   order between two of them is therefore found, by wrong bits.
 * - What an asynchronous copy reads of the host must stay; what it writes there is
 *   filled with 0xA5 at once.
 * - Misuse (a double free, memory that was not taken, another GPU's stream, a use after
 *   the end) is printed and ends the process.
 * - Every call can be made to fail.
 *
 * From the environment, read once:
 *   FAKE_CUDA_GPUS=n      GPUs; 1. 0: cudaErrorNoDevice
 *   FAKE_CUDA_DRIVER=none no driver: cudaErrorInsufficientDriver, version 0
 *   FAKE_CUDA_DRIVER=N    its version; 13000. Below 13000 it is too old
 *   FAKE_CUDA_MEMORY=n    bytes of each GPU; 256 MiB
 *   FAKE_CUDA_SEED=n      0: what is not asked for is done as late as it can be; else
 *                         streams advance as the seed wants
 *   FAKE_CUDA_FAIL=n      as fail_at(n, false)
 *   FAKE_CUDA_ORDERING=n  GPUDirect RDMA writes ordering, 0, 100 or 200; 0
 *   FAKE_CUDA_FLUSH=n     1: the host can flush; 1
 *   FAKE_CUDA_RDMA=n      GPUDirect RDMA is supported; 1
 *   FAKE_CUDA_DMABUF=n    DMA-BUF is supported; 1
 *   FAKE_CUDA_OPEN=1      memory is never closed to the host: for real network drivers
 *
 * The plugin is opened RTLD_LOCAL and has a fake of its own, apart from that of a test
 * which is linked to gapless_gpu_shim: fake_cuda_of_plugin() is the first's, and
 * fake_cuda the other's.
 */
#ifndef FAKE_CUDA_H
#define FAKE_CUDA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct fake_cuda {
    /* Calls since the process began, or since reset. */
    unsigned long (*calls)(void);
    /* The n-th call from now (1: the next) fails, or it and all after it. 0: none. */
    void (*fail_at)(unsigned long n, bool all_after);
    /* The name of the call that failed last by fail_at; "" before. */
    const char *(*failed)(void);
    /* The GPU is lost: every later call for it gives cudaErrorIllegalAddress, and
     * nothing asked of it is done. */
    void (*lose)(uint32_t number);
    /* Things not given back: memory, host memory, registrations, streams, events. */
    unsigned (*leaks)(void);
    /* Operations not yet worked off, on all streams of all GPUs. */
    unsigned (*waiting)(void);
    /* All as at the start of the process, and as the environment is now; ends the
     * process if something was not given back. */
    void (*reset)(void);
    /* Streams advance as this wants; 0: as late as can be. */
    void (*seed)(uint64_t seed);
    /* What cudaMalloc gives is aligned to 512 bytes and not more, as small pieces of a
     * real GPU are; for callers that align. */
    void (*misalign)(bool yes);
    /* Where a CPU may read and write memory of a GPU at any time (a network card's
     * way); NULL: no such memory. */
    void *(*window)(const void *memory);
    /* How often cudaDeviceFlushGPUDirectRDMAWrites was called. */
    unsigned long (*flushes)(void);
};

/* The fake that is linked to this program. */
extern const struct fake_cuda fake_cuda;
/* The fake inside the plugin of GAPLESS_CUDA_PLUGIN; NULL: that is not the fake. */
const struct fake_cuda *fake_cuda_of_plugin(void);

/* The symbol by which the plugin hands out its fake. */
#define FAKE_CUDA_SYMBOL "fake_cuda_table"
const struct fake_cuda *fake_cuda_table(void);

#ifdef __cplusplus
}
#endif

#endif
