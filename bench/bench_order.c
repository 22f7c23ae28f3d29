/* Samples in order. */
#include "bench/bench.h"

#include <stdlib.h>

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

void bench_sort(double *values, size_t count)
{
    qsort(values, count, sizeof *values, by_value);
}

double bench_median(double *values, size_t count)
{
    bench_sort(values, count);
    return count % 2 != 0 ? values[count / 2]
                          : 0.5 * (values[count / 2 - 1] + values[count / 2]);
}
