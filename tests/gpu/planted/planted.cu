/* Kernels with planted bugs, to see that the emulator finds them: test_planted.sh runs
 * this program for each bug in each build of it.
 *
 *   planted BUG    exits 0 where nothing was found wrong,
 *                  3 or as a sanitizer does where the emulator found it,
 *                  1 where a result was wrong
 *
 *   0  none
 *   1  the loop goes one too far: an access out of bounds
 *   2  no __syncthreads between the sums of warps and their use
 *   3  no __threadfence before the ticket is taken
 *   4  the shared array is one too small
 *   5  a shuffle with a full mask in code that not all lanes run
 *   6  the fence behind the ticket comes after the barrier, in the threads that wait
 *   7  a tile is filled again while others still add it up
 *   8  what is added up depends on the grid
 *   9  the ticket is taken before other threads have written their sums
 *   10 a barrier that only a part of the block comes to
 */
#include <cuda_runtime.h>

#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <unistd.h>
#include <vector>

enum {
    THREADS = 64, /* few, so that clang's TSan keeps all of a grid apart */
    WARPS = THREADS / 32,
    LANES = 16,
    ROUNDS = THREADS / LANES,
    PARTS_MAX = 1024
};

struct scratch {
    float part[PARTS_MAX];
    unsigned ticket;
};

__device__ static float warp_sum(float x)
{
    for (unsigned by = 16; by > 0; by /= 2)
        x += __shfl_down_sync(0xffffffffu, x, by);
    return x;
}

/* Takes a ticket; true in all threads of the block that takes the last. */
template <int BUG> __device__ static bool last_block(struct scratch *scratch)
{
    __shared__ bool last;
    if (BUG != 9)
        __syncthreads();
    if (threadIdx.x == 0) {
        if (BUG != 3)
            __threadfence();
        last = atomicAdd(&scratch->ticket, 1u) == gridDim.x - 1;
        if (BUG != 6)
            __threadfence();
        if (last)
            atomicExch(&scratch->ticket, 0u);
    }
    __syncthreads();
    if (BUG == 6 && last)
        __threadfence();
    return last;
}

/* y += a*x; sum[0] = the sum of x*x, sum[1] of x, by shuffles. */
template <int BUG>
__global__ void __launch_bounds__(THREADS)
    add_scaled(float *y, const float *x, float a, unsigned n, struct scratch *scratch,
               float *sum)
{
    __shared__ float of_warp[2][BUG == 4 ? WARPS - 1 : WARPS];
    unsigned stride = gridDim.x * blockDim.x, lane = threadIdx.x % 32;
    unsigned last = BUG == 1 ? n : n - 1;
    float mine = 0.0f, also = 0.0f;

    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i <= last; i += stride) {
        y[i] += a * x[i];
        mine += x[i] * x[i];
        also += x[i];
    }
    mine = warp_sum(mine);
    also = warp_sum(also);
    if (lane == 0) {
        of_warp[0][threadIdx.x / 32] = mine;
        of_warp[1][threadIdx.x / 32] = also;
    }
    if (BUG != 2)
        __syncthreads();
    if (threadIdx.x < 32) {
        mine = lane < WARPS ? of_warp[0][lane] : 0.0f;
        also = lane < WARPS ? of_warp[1][lane] : 0.0f;
        if (BUG == 5) {
            if (lane < WARPS)
                mine = warp_sum(mine);
        } else {
            mine = warp_sum(mine);
        }
        also = warp_sum(also);
        if (lane == 0) {
            scratch->part[2 * blockIdx.x] = mine;
            scratch->part[2 * blockIdx.x + 1] = also;
        }
    }
    if (BUG == 10 && threadIdx.x >= 32)
        return;
    if (!last_block<BUG>(scratch))
        return;
    if (threadIdx.x < 2) {
        float all = 0.0f;
        for (unsigned i = 0; i < gridDim.x; i++)
            all += __ldcg(&scratch->part[2 * i + threadIdx.x]);
        sum[threadIdx.x] = all;
    }
}

/* *sum = the sum of x*x, by lanes and stretches as the real kernels do it: the same
 * bits for every grid. */
template <int BUG>
__global__ void __launch_bounds__(THREADS)
    sum_squares(const float *x, unsigned n, struct scratch *scratch, float *sum)
{
    __shared__ float tile[THREADS];
    unsigned stretches = (n + THREADS - 1) / THREADS;

    float carried = 0.0f;
    for (unsigned s = blockIdx.x; s < stretches; s += gridDim.x) {
        unsigned i = s * THREADS + threadIdx.x;
        if (BUG != 7 && s != blockIdx.x)
            __syncthreads();
        tile[threadIdx.x] = i < n ? x[i] * x[i] : 0.0f;
        __syncthreads();
        if (threadIdx.x < LANES) {
            float lane = BUG == 8 ? carried : 0.0f;
            for (unsigned k = 0; k < ROUNDS; k++)
                lane += tile[k * LANES + threadIdx.x];
            carried = lane;
            scratch->part[s * LANES + threadIdx.x] = lane;
            if (BUG == 8 && s >= gridDim.x)
                scratch->part[(s - gridDim.x) * LANES + threadIdx.x] = 0.0f;
        }
    }
    if (!last_block<BUG>(scratch))
        return;
    if (threadIdx.x == 0) {
        float all = 0.0f;
        for (unsigned i = 0; i < stretches * LANES; i++)
            all += __ldcg(&scratch->part[i]);
        *sum = all;
    }
}

/* ---- the host ------------------------------------------------------------ */

static int wrong(const char *what, unsigned n, unsigned grid)
{
    printf("wrong %s: %u elements, %u blocks\n", what, n, grid);
    return 1;
}

template <int BUG> static int check(unsigned n, unsigned grid)
{
    std::vector<float> x(n), y(n), expected(n);
    struct scratch *scratch = new struct scratch();
    double exact = 0.0, also = 0.0;
    float sums[2] = {NAN, NAN}, sum = NAN, first = NAN;
    int ret = 0;

    for (unsigned i = 0; i < n; i++) {
        x[i] = float(i * 7 % 31) / 31.0f + 0.01f;
        y[i] = float(i % 5);
        expected[i] = y[i] + 0.5f * x[i];
        exact += double(x[i]) * double(x[i]);
        also += double(x[i]);
    }
    cuemu::run(grid, THREADS,
               [&] { add_scaled<BUG>(y.data(), x.data(), 0.5f, n, scratch, sums); });
    if (memcmp(y.data(), expected.data(), n * sizeof(float)))
        ret |= wrong("elements", n, grid);
    if (!(std::fabs(double(sums[0]) / exact - 1.0) < 1e-5) ||
        !(std::fabs(double(sums[1]) / also - 1.0) < 1e-5))
        ret |= wrong("sum by shuffles", n, grid);
    cuemu::run(1, THREADS, [&] { sum_squares<BUG>(x.data(), n, scratch, &first); });
    if (!(std::fabs(double(first) / exact - 1.0) < 1e-5))
        ret |= wrong("sum by lanes", n, 1);
    cuemu::run(grid, THREADS, [&] { sum_squares<BUG>(x.data(), n, scratch, &sum); });
    if (memcmp(&sum, &first, sizeof sum))
        ret |= wrong("bits of a sum by lanes", n, grid);
    delete scratch;
    return ret;
}

template <int BUG> static int check_all()
{
    static const unsigned lengths[] = {1000, 2003};
    int ret = 0;

    for (unsigned n : lengths)
        for (unsigned grid = 2; grid <= 3; grid++)
            ret |= check<BUG>(n, grid);
    return ret;
}

/* Else the shell says "Aborted" each time. */
static void aborted(int)
{
    _exit(3);
}

int main(int argc, char **argv)
{
    static int (*const checks[])() = {check_all<0>, check_all<1>, check_all<2>,
                                      check_all<3>, check_all<4>, check_all<5>,
                                      check_all<6>, check_all<7>, check_all<8>,
                                      check_all<9>, check_all<10>};
    unsigned long bug = argc == 2 ? strtoul(argv[1], nullptr, 10) : 99;

    if (bug >= sizeof checks / sizeof *checks) {
        fprintf(stderr, "usage: planted BUG\n");
        return 2;
    }
    signal(SIGABRT, aborted);
    return checks[bug]();
}
