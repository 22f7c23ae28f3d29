/* The kernel language on the CPU: what makes a .cu file a C++ source whose kernels run.
 *
 *   launch ──> block ──> 256 threads, each a fiber with a stack of its own
 *                            │ runs until __syncthreads, a shuffle or its end
 *                            v
 *              sched.cpp: the next fiber; all have arrived: on with all of them
 *
 * What it finds: threads that do not meet at a barrier or shuffle (a report of where
 * each of them waits); shared memory that is read before it is written (it is filled
 * with NaN before each block); results that depend on the order of threads or blocks
 * (seeds, and preemption at atomics and fences). Under ASan: accesses out of bounds.
 * Under TSan: a missing barrier, fence or atomic, because each thread is a fiber of
 * TSan's, each block has an OS thread, and only what orders memory on a GPU is an order
 * to TSan:
 *
 *   __syncthreads     a release and an acquire, of the block
 *   atomics           relaxed, by themselves no order
 *   __threadfence     makes the thread's next atomic a release, and acquires what was
 *                     released by the atomic before it
 *   shuffles          none, as CUDA promises none
 *
 * gcc's TSan keeps all threads of a launch apart; clang's, from 14 on, only 255 at a
 * time, so that it misses some races between blocks of more threads.
 *
 * Not there: extern __shared__, cooperative grids (blocks that wait for each other
 * hang), cuda::atomic, asynchronous copies, lockstep of a warp. __syncwarp() is a
 * meeting of the warp without order.
 *
 * Environment, read at the first launch:
 *   CUEMU_SEED=n     threads and blocks in an order by this seed; unset: in their own
 *   CUEMU_PREEMPT=n  at atomics and fences, one time in n, another thread goes on; 0
 */
#ifndef SHIM_KERNEL_LANGUAGE_H
#define SHIM_KERNEL_LANGUAGE_H

#include "tests/gpu/shim/cuemu.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>

#if defined(__SANITIZE_ADDRESS__)
#define CUEMU_ASAN 1
#elif defined(__SANITIZE_THREAD__)
#define CUEMU_TSAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define CUEMU_ASAN 1
#elif __has_feature(thread_sanitizer)
#define CUEMU_TSAN 1
#endif
#endif

#define __global__
#define __device__
#define __host__
#define __constant__
#define __grid_constant__
/* Not forced: it would make the sanitizers' builds ten times longer. */
#define __forceinline__ inline
#define __launch_bounds__(...)

/* One copy for each block that runs. One block runs at a time but under TSan; ASan has
 * no red zones between variables of a named section. */
#if defined(CUEMU_TSAN)
#define __shared__ static thread_local
#elif defined(CUEMU_ASAN)
#define __shared__ static
#else
#define __shared__ static __attribute__((section("cuemu_shared")))
#endif

struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) float2 {
    float x, y;
};
struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c)
    {
    }
};
static inline float4 make_float4(float x, float y, float z, float w)
{
    return {x, y, z, w};
}

namespace cuemu
{
struct block {
    uint3 index;
    dim3 dim, grid;
};
struct fiber; /* sched.cpp */
struct thread {
    uint3 index;
    unsigned linear; /* in the block */
    const block *in;
};
extern __thread thread *cur;

/* Runs a whole grid, now; returns when all of it is done. */
void run(dim3 grid, dim3 block, const std::function<void()> &body);

void barrier(const char *where);
uint64_t shuffle(unsigned mask, uint64_t value, unsigned lane, const char *where);
unsigned ballot(unsigned mask, bool yes, const char *where);
void fence();
void atomic_begin(void *p);
void atomic_end(void *p);

template <class T>
T shuffle_of(unsigned mask, T value, unsigned lane, const char *where)
{
    static_assert(sizeof(T) <= 8, "what a shuffle carries");
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = shuffle(mask, bits, lane, where);
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* All atomics are relaxed: only a fence orders what is around them. */
template <class T, class F> T atomic(T *p, F &&next)
{
    T before, after;
    atomic_begin(p);
    __atomic_load(p, &before, __ATOMIC_RELAXED);
    do
        after = next(before);
    while (!__atomic_compare_exchange(p, &before, &after, false, __ATOMIC_RELAXED,
                                      __ATOMIC_RELAXED));
    atomic_end(p);
    return before;
}
} // namespace cuemu

#define threadIdx (cuemu::cur->index)
#define blockIdx (cuemu::cur->in->index)
#define blockDim (cuemu::cur->in->dim)
#define gridDim (cuemu::cur->in->grid)
#define warpSize 32

#define CUEMU_TEXT_OF(x) #x
#define CUEMU_TEXT(x) CUEMU_TEXT_OF(x)
#define CUEMU_HERE __FILE__ ":" CUEMU_TEXT(__LINE__)
#define CUEMU_LANE (cuemu::cur->linear % 32)
#define __syncthreads() cuemu::barrier(CUEMU_HERE)
#define __syncwarp() ((void)cuemu::shuffle(0xffffffffu, 0, 0, CUEMU_HERE))
#define __threadfence() cuemu::fence()
#define __threadfence_system() cuemu::fence()
#define __threadfence_block() cuemu::fence()
#define __shfl_down_sync(mask, value, by)                                              \
    cuemu::shuffle_of((mask), (value),                                                 \
                      CUEMU_LANE + (by) < 32 ? CUEMU_LANE + (by) : CUEMU_LANE,         \
                      CUEMU_HERE)
#define __shfl_xor_sync(mask, value, by)                                               \
    cuemu::shuffle_of((mask), (value), CUEMU_LANE ^ (by), CUEMU_HERE)
#define __shfl_sync(mask, value, lane)                                                 \
    cuemu::shuffle_of((mask), (value), (lane) % 32u, CUEMU_HERE)
#define __ballot_sync(mask, yes) cuemu::ballot((mask), (yes), CUEMU_HERE)

template <class T> static inline T __ldcg(const T *p)
{
    return *p;
}
template <class T> static inline void __stwb(T *p, T value)
{
    *p = value;
}
static inline unsigned atomicAdd(unsigned *p, unsigned value)
{
    return cuemu::atomic(p, [value](unsigned x) { return x + value; });
}
static inline float atomicAdd(float *p, float value)
{
    return cuemu::atomic(p, [value](float x) { return x + value; });
}
static inline unsigned atomicExch(unsigned *p, unsigned value)
{
    return cuemu::atomic(p, [value](unsigned) { return value; });
}
static inline unsigned atomicOr(unsigned *p, unsigned value)
{
    return cuemu::atomic(p, [value](unsigned x) { return x | value; });
}

/* What GAPLESS_LAUNCH of gpu/launch.cuh is here. The arguments are copied now; the
 * kernel runs when the stream gets there. */
template <class... P, class... A>
static inline cudaError_t cuemu_launch(void (*kernel)(P...), dim3 grid, dim3 block,
                                       cudaStream_t stream, A... args)
{
    return fake_stream_launch(stream, grid, block, [=] { kernel(args...); });
}

#endif
