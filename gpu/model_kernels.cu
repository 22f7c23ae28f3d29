/* The kernels of models. Simple ones: matrix products take nearly all of the time. */
#include "gpu/model_kernels.h"

#include "gpu/launch.cuh"

#define THREADS 256u
/* Blocks beyond what fills any GPU only wait their turn. */
#define BLOCKS_MAX 4096u

static uint32_t blocks_for(size_t items, uint32_t each)
{
    size_t blocks = (items + each - 1) / each;

    return blocks < BLOCKS_MAX ? (uint32_t)blocks : BLOCKS_MAX;
}

/* A block takes row after row. */
static __global__ void bias_kernel(float *z, const float *bias, uint32_t batch,
                                   uint32_t width, bool relu)
{
    for (uint32_t row = blockIdx.x; row < batch; row += gridDim.x)
        for (uint32_t i = threadIdx.x; i < width; i += blockDim.x) {
            float x = z[(size_t)row * width + i] + bias[i];

            z[(size_t)row * width + i] = relu && x < 0.0F ? 0.0F : x;
        }
}

/* A thread takes a sample; the largest logit is taken out first, so that nothing
 * overflows. There are at most 256 classes. */
static __global__ void loss_kernel(const float *z, const uint8_t *labels,
                                   uint32_t batch, uint32_t classes, float *ret_loss,
                                   float *ret_dz)
{
    float share = 1.0F / (float)batch;

    for (uint32_t row = blockIdx.x * blockDim.x + threadIdx.x; row < batch;
         row += gridDim.x * blockDim.x) {
        const float *logits = z + (size_t)row * classes;
        float *dz = ret_dz + (size_t)row * classes;
        uint32_t label = labels[row];
        float max = logits[0], sum = 0.0F;

        for (uint32_t c = 1; c < classes; c++)
            max = logits[c] > max ? logits[c] : max;
        for (uint32_t c = 0; c < classes; c++) {
            float e = expf(logits[c] - max);

            dz[c] = e;
            sum += e;
        }
        for (uint32_t c = 0; c < classes; c++)
            dz[c] = (dz[c] / sum - (c == label ? 1.0F : 0.0F)) * share;
        ret_loss[row] = logf(sum) - (logits[label] - max);
    }
}

/* A thread takes a column: the order of the sum is that of the rows, always. */
static __global__ void columns_kernel(const float *rows, uint32_t batch, uint32_t width,
                                      float *ret)
{
    for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < width;
         i += gridDim.x * blockDim.x) {
        float sum = rows[i];

        for (uint32_t b = 1; b < batch; b++)
            sum += rows[(size_t)b * width + i];
        ret[i] = sum;
    }
}

static __global__ void mask_kernel(float *da, const float *a, size_t n)
{
    for (size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x; i < n;
         i += (size_t)gridDim.x * blockDim.x)
        if (a[i] <= 0.0F)
            da[i] = 0.0F;
}

cudaError_t model_bias(cudaStream_t stream, float *z, const float *bias, uint32_t batch,
                       uint32_t width, bool relu)
{
    return GAPLESS_LAUNCH(bias_kernel, blocks_for(batch, 1),
                          width < THREADS ? (width + 31) / 32 * 32 : THREADS, stream, z,
                          bias, batch, width, relu);
}

cudaError_t model_loss(cudaStream_t stream, const float *z, const uint8_t *labels,
                       uint32_t batch, uint32_t classes, float *ret_loss, float *ret_dz)
{
    return GAPLESS_LAUNCH(loss_kernel, blocks_for(batch, 32), 32, stream, z, labels,
                          batch, classes, ret_loss, ret_dz);
}

cudaError_t model_columns(cudaStream_t stream, const float *rows, uint32_t batch,
                          uint32_t width, float *ret)
{
    return GAPLESS_LAUNCH(columns_kernel, blocks_for(width, 32), 32, stream, rows,
                          batch, width, ret);
}

cudaError_t model_mask(cudaStream_t stream, float *da, const float *a, size_t n)
{
    return GAPLESS_LAUNCH(mask_kernel, blocks_for(n, THREADS), THREADS, stream, da, a,
                          n);
}
