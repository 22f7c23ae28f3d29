/* exp and log with the same bits on every machine.
 *
 * The C library's own may differ in the last bit from one version or processor to the
 * next. These use only + - * / and exact operations, so that initial weights, synthetic
 * data and the reference gradient can be compared bit for bit between machines (given
 * -ffp-contract=off and IEEE double). Accurate to a few units in the last place.
 */
#ifndef GAPLESS_PORTABLE_H
#define GAPLESS_PORTABLE_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* ln 2 in two parts; the first has 21 trailing zero bits, so that k * HIGH is exact. */
#define PORTABLE_LN2_HIGH 0x1.62e42fee00000p-1
#define PORTABLE_LN2_LOW 0x1.a39ef35793c76p-33
#define PORTABLE_LOG2_E 0x1.71547652b82fep+0
#define PORTABLE_SQRT_HALF 0x1.6a09e667f3bcdp-1

/* e^x; 0 below -700, infinity above 700, NaN for NaN. */
static inline double portable_exp(double x)
{
    double r, z, even, odd, scale;
    uint64_t bits;
    int k;

    if (x != x)
        return x;
    if (x < -700.0)
        return 0.0;
    if (x > 700.0)
        return (double)INFINITY;
    k = (int)(x * PORTABLE_LOG2_E + (x < 0.0 ? -0.5 : 0.5));
    r = (x - (double)k * PORTABLE_LN2_HIGH) - (double)k * PORTABLE_LN2_LOW;
    z = r * r; /* Taylor's series: |r| <= 0.35, the rest is below 2^-56 */
    even =
        1.0 + z * (1.0 / 2 +
                   z * (1.0 / 24 +
                        z * (1.0 / 720 +
                             z * (1.0 / 40320 + z * (1.0 / 3628800 + z / 479001600)))));
    odd = 1.0 +
          z * (1.0 / 6 +
               z * (1.0 / 120 +
                    z * (1.0 / 5040 +
                         z * (1.0 / 362880 + z * (1.0 / 39916800 + z / 6227020800)))));
    bits = (uint64_t)(k + 1023) << 52; /* 2^k, a normal number for |x| <= 700 */
    memcpy(&scale, &bits, sizeof scale);
    return (even + r * odd) * scale;
}

/* ln x for a positive finite x; NaN for anything else. */
static inline double portable_log(double x)
{
    double m, s, z, sum = 0.0;
    int k;

    if (!(x > 0.0 && x < (double)INFINITY))
        return (double)NAN;
    m = frexp(x, &k);
    if (m < PORTABLE_SQRT_HALF) {
        m *= 2.0;
        k--;
    }
    s = (m - 1.0) / (m + 1.0); /* ln m = 2 artanh s, |s| <= 0.172 */
    z = s * s;
    for (int i = 23; i >= 1; i -= 2)
        sum = sum * z + 1.0 / (double)i;
    return (double)k * PORTABLE_LN2_HIGH +
           (2.0 * s * sum + (double)k * PORTABLE_LN2_LOW);
}

#endif
