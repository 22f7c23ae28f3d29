/* Bounds on real time that follow the machine. A test that says "within a second" means a
 * second of a machine that has nothing else to do; on a busy one, a slow one or an
 * emulated one the same work takes longer. How much longer is measured here, by three
 * things that take a known time on an idle machine:
 *
 *   work     a few milliseconds of arithmetic: what share of a core is left
 *   sleep    how late a thread wakes up from a millisecond's sleep, in slices of the
 *            processor that others had before it
 *   turns    two threads that hand a word to each other, yielding: how many slices it
 *            costs to wait for another thread
 *
 * The factor is the worst of the three, at least 1 and at most PACE_MOST; with two other
 * busy threads for each core it is about 3, with ten about 40. It is measured again when
 * the last measurement is older than two seconds, which takes 5 ms of an idle machine.
 * Any thread may ask.
 *
 *   pace_ns(ns)       a bound that is handed to the code under test: ns times the factor,
 *                     and never less than PACE_LEAST times: load may come later
 *   pace_most_ns(ns)  the same without that margin: a bound that a test waits out
 *   pace_within(took, least, most)   did something take so long? Only `most` is stretched
 *   pace_begin(ns)    a bound of a loop: while (!done) { assert_false(pace_over(&it)); }
 *   pace_over(&it)    measures when the time is over, and lets the loop go on if the
 *                     machine turns out to be slow
 *   pace_alarm(s)     the last resort against a hang that no bound covers
 *   PACE_TIMES(often, seldom)   how often to repeat something
 */
#ifndef GAPLESS_TESTS_PACE_H
#define GAPLESS_TESTS_PACE_H

#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

/* How often a test repeats something: under the thread sanitizer, where everything takes
 * ten times as long, less often. */
#if defined(__SANITIZE_THREAD__)
#define PACE_TIMES(often, seldom) (seldom)
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define PACE_TIMES(often, seldom) (seldom)
#endif
#endif
#ifndef PACE_TIMES
#define PACE_TIMES(often, seldom) (often)
#endif

#define PACE_LEAST 4.0
#define PACE_MOST 100.0
/* The arithmetic takes so long on an idle machine, rather less. */
#define PACE_WORK_STEPS 2000000u
#define PACE_WORK_NS 5e6
/* For so long the kernel lets another process run before it is our turn. */
#define PACE_SLICE_NS 4e6
/* Times that the word changes hands. */
#define PACE_TURNS 10u

static inline uint64_t pace_clock_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
}

static inline double pace_since(uint64_t begin_ns)
{
    return (double)(pace_clock_ns() - begin_ns);
}

/* Each step needs the one before, so no compiler and no processor shortens it. */
static inline double pace_work(void)
{
    uint64_t begin = pace_clock_ns(), x = begin;

    for (uint32_t i = 0; i < PACE_WORK_STEPS; i++) {
        x = x * UINT64_C(6364136223846793005) + 1442695040888963407u;
        __asm__ volatile("" : "+r"(x));
    }
    return pace_since(begin) / PACE_WORK_NS;
}

static inline double pace_sleep(void)
{
    const struct timespec nap = {.tv_nsec = 1000000};
    uint64_t begin = pace_clock_ns();

    (void)nanosleep(&nap, NULL);
    return pace_since(begin) / PACE_SLICE_NS;
}

/* The word counts up: even values are the caller's turn, odd ones the other's. */
static inline void pace_turns_of(uint32_t *word, uint32_t odd)
{
    for (uint32_t turn = odd; turn < PACE_TURNS; turn += 2) {
        while (__atomic_load_n(word, __ATOMIC_ACQUIRE) != turn)
            (void)sched_yield();
        __atomic_store_n(word, turn + 1, __ATOMIC_RELEASE);
    }
}

static inline void *pace_other(void *word)
{
    pace_turns_of(word, 1);
    return NULL;
}

static inline double pace_turns(void)
{
    uint64_t begin = pace_clock_ns();
    uint32_t word = 0;
    pthread_t other;

    if (pthread_create(&other, NULL, pace_other, &word) != 0)
        return 1;
    pace_turns_of(&word, 0);
    (void)pthread_join(other, NULL);
    return pace_since(begin) / PACE_TURNS / 1e6;
}

static inline double pace_measure(void)
{
    const double seen[] = {pace_work(), pace_sleep(), pace_turns()};
    double ret = 1;

    for (int i = 0; i < 3; i++)
        ret = seen[i] > ret ? seen[i] : ret;
    return ret < PACE_MOST ? ret : PACE_MOST;
}

/* The last measurement, or a new one; half of the one before counts as well, since load
 * comes in waves. */
static inline double pace_factor(void)
{
    static uint64_t measured_ns;
    static uint32_t thousandths;
    uint64_t last = __atomic_load_n(&measured_ns, __ATOMIC_ACQUIRE);
    double before = 1e-3 * __atomic_load_n(&thousandths, __ATOMIC_RELAXED), now;

    if (last != 0 && pace_since(last) < 2e9)
        return before;
    now = pace_measure();
    now = now > 0.5 * before ? now : 0.5 * before;
    now = now > 1 ? now : 1;
    __atomic_store_n(&thousandths, (uint32_t)(1e3 * now), __ATOMIC_RELAXED);
    __atomic_store_n(&measured_ns, pace_clock_ns(), __ATOMIC_RELEASE);
    return now;
}

static inline int64_t pace_most_ns(int64_t ns)
{
    return (int64_t)((double)ns * pace_factor());
}

static inline int64_t pace_ns(int64_t ns)
{
    double factor = pace_factor();

    return (int64_t)((double)ns * (factor > PACE_LEAST ? factor : PACE_LEAST));
}

static inline bool pace_within(uint64_t took_ns, int64_t least_ns, int64_t most_ns)
{
    bool ret =
        took_ns >= (uint64_t)least_ns && took_ns <= (uint64_t)pace_most_ns(most_ns);

    if (!ret)
        (void)fprintf(
            stderr, "took %.3f s, not %.3f to %.3f s (%.1f times an idle machine's)\n",
            1e-9 * (double)took_ns, 1e-9 * (double)least_ns, 1e-9 * (double)most_ns,
            pace_factor());
    return ret;
}

struct pace_bound {
    uint64_t begin_ns, end_ns;
    int64_t ns;
};

static inline struct pace_bound pace_begin(int64_t ns)
{
    uint64_t now = pace_clock_ns();

    return (struct pace_bound){now, now + (uint64_t)ns, ns};
}

static inline bool pace_over(struct pace_bound *bound)
{
    if (pace_clock_ns() < bound->end_ns)
        return false;
    bound->end_ns = bound->begin_ns + (uint64_t)pace_ns(bound->ns);
    return pace_clock_ns() >= bound->end_ns;
}

static inline void pace_alarm(unsigned seconds)
{
    (void)alarm(10 * seconds);
}

#endif
