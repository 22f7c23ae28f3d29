// Kernels whose instructions are known, to see that the scanner sees them: each says in
// its name's rows of scan.c what must be found. Compiled twice: as the plugin is, and
// with the options that the plugin must not have (see test_codegen.sh).
#include <cuda_runtime.h>

#define KERNEL extern "C" __global__ void

static __device__ __forceinline__ unsigned index_of_thread(void)
{
    return blockIdx.x * blockDim.x + threadIdx.x;
}

KERNEL calibrate_32(float *__restrict__ to, const float *__restrict__ from)
{
    unsigned i = index_of_thread();
    to[i] = from[i];
}

KERNEL calibrate_64(float2 *__restrict__ to, const float2 *__restrict__ from)
{
    unsigned i = index_of_thread();
    to[i] = from[i];
}

// Three loads and two stores of 128 bits.
KERNEL calibrate_128(float4 *__restrict__ to, float4 *__restrict__ also,
                     const float4 *__restrict__ a, const float4 *__restrict__ b,
                     const float4 *__restrict__ c)
{
    unsigned i = index_of_thread();
    float4 x = a[i], y = b[i], z = c[i];
    to[i] = make_float4(x.x + y.x, x.y + y.y, x.z + y.z, x.w + y.w);
    also[i] = make_float4(x.x - z.x, x.y - z.y, x.z - z.z, x.w - z.w);
}

// Not through the read-only cache, and past the first-level one.
KERNEL calibrate_cached(float4 *to, const float4 *from)
{
    unsigned i = index_of_thread();
    to[i] = __ldcg(from + i);
    __stcg(to + i + 7, from[i + 1]);
}

// An array whose index is known at run time only: local memory.
KERNEL calibrate_local(float *to, const float *from, unsigned at)
{
    float array[32];
    for (unsigned i = 0; i < 32; i++)
        array[i] = from[i * at];
    for (unsigned i = 0; i < 32; i++)
        array[(i * at + 5) & 31] += array[i];
    to[index_of_thread()] = array[at & 31];
}

// More values alive than registers: spills.
KERNEL __launch_bounds__(1024, 2) calibrate_spill(float *to, const float *from)
{
    unsigned i = index_of_thread();
    float value[64];
#pragma unroll
    for (unsigned j = 0; j < 64; j++)
        value[j] = from[i + j * 1024];
    __syncthreads();
#pragma unroll
    for (unsigned j = 0; j < 64; j++)
        to[i + j * 1024] = value[j] * value[63 - j];
}

KERNEL calibrate_shared(float *to, const float *from)
{
    __shared__ float tile[256];
    tile[threadIdx.x & 255] = from[index_of_thread()];
    __syncthreads();
    to[index_of_thread()] = tile[255 - (threadIdx.x & 255)];
}

// The addresses come from memory; that they are global is concluded all the same.
KERNEL calibrate_pointers(float4 *const *to, const float4 *const *from)
{
    unsigned i = index_of_thread();
    to[1][i] = from[1][i];
}

// Shared memory or global: only known at run time.
KERNEL calibrate_generic(float *to, float *from, int which)
{
    __shared__ float tile[256];
    float *source = which != 0 ? tile : from;
    float *target = which != 0 ? from : tile;
    tile[threadIdx.x & 255] = 0;
    __syncthreads();
    float x = source[which];
    target[which + 1] = x;
    __syncthreads();
    to[index_of_thread()] = tile[255 - (threadIdx.x & 255)];
}

KERNEL calibrate_fma(float *to, const float *from)
{
    unsigned i = index_of_thread();
    to[i] = fmaf(from[i], from[i + 1], from[i + 2]);
}

KERNEL calibrate_fma_double(double *to, const double *from)
{
    unsigned i = index_of_thread();
    to[i] = fma(from[i], from[i + 1], from[i + 2]);
}

// Fused only where --fmad is not off.
KERNEL calibrate_contract(float *to, const float *from)
{
    unsigned i = index_of_thread();
    to[i] = from[i] * from[i + 1] + from[i + 2];
}

KERNEL calibrate_contract_double(double *to, const double *from)
{
    unsigned i = index_of_thread();
    to[i] = from[i] * from[i + 1] + from[i + 2];
}

KERNEL calibrate_div(float *to, const float *from)
{
    unsigned i = index_of_thread();
    to[i] = from[i] / from[i + 1];
}

KERNEL calibrate_sqrt(float *to, const float *from)
{
    unsigned i = index_of_thread();
    to[i] = sqrtf(from[i]);
}
