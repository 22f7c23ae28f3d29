/* Time for bench transport. A virtual machine may have no clock that is read without
 * leaving it: a call of clock_gettime then costs as much as the operation it times. So
 * single operations are timed with the processor's counter, and its rate is found
 * afterwards, over the whole figure. */
#include "bench/transport/bench_transport.h"

#include "engine/base/clock.h"

#include <math.h>
#include <time.h>

uint64_t bt_ticks(void)
{
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t ticks;

    __asm__ __volatile__("mrs %0, cntvct_el0" : "=r"(ticks));
    return ticks;
#else
    return clock_ns();
#endif
}

struct bt_scale bt_scale_start(void)
{
    return (struct bt_scale){bt_ticks(), clock_seconds()};
}

double bt_scale_end(const struct bt_scale *start)
{
    double seconds = clock_seconds() - start->seconds;
    uint64_t ticks = bt_ticks() - start->ticks;

    return ticks > 0 ? seconds / (double)ticks : 0.0;
}

void bt_quantiles(double *sample, uint64_t count, double scale, struct bt_figure *ret)
{
    double sum = 0.0;

    if (count == 0)
        return;
    bench_sort(sample, count);
    for (uint64_t i = 0; i < count; i++)
        sum += sample[i];
    ret->p50_us = scale * sample[count / 2];
    ret->p99_us = scale * sample[count * 99 / 100];
    ret->p999_us = scale * sample[count * 999 / 1000];
    ret->mean_us = scale * sum / (double)count;
}

struct bt_figure bt_figure_of(enum bt_op op, uint64_t bytes)
{
    static const double none = (double)NAN;
    struct bt_counts counts = {none, none, none, none};

    return (struct bt_figure){
        .op = op,
        .bytes = bytes,
        .ranges = 1,
        .gb_s = none,
        .gb_s_best = none,
        .p50_us = none,
        .p99_us = none,
        .p999_us = none,
        .mean_us = none,
        .ceiling_gb_s = none,
        .client = counts,
        .server = counts,
    };
}
