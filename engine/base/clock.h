/* Time by the clock that only goes forward: how long things take, and until when to wait.
 * C and CUDA. */
#ifndef GAPLESS_CLOCK_H
#define GAPLESS_CLOCK_H

#include <stdint.h>
#include <time.h>

#define CLOCK_SECOND_NS 1000000000

static inline uint64_t clock_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * CLOCK_SECOND_NS + (uint64_t)now.tv_nsec;
}

static inline double clock_seconds(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* `ns` (>= 0) from now, for calls that wait until a time of CLOCK_MONOTONIC. */
static inline struct timespec clock_after(int64_t ns)
{
    struct timespec ret;

    (void)clock_gettime(CLOCK_MONOTONIC, &ret);
    ret.tv_sec += (time_t)(ns / CLOCK_SECOND_NS);
    ret.tv_nsec += (long)(ns % CLOCK_SECOND_NS);
    if (ret.tv_nsec >= CLOCK_SECOND_NS) {
        ret.tv_nsec -= CLOCK_SECOND_NS;
        ret.tv_sec++;
    }
    return ret;
}

#endif
