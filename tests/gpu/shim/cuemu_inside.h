/* The inside of the scheduler: sched.cpp has the threads of a kernel and what they
 * call, sched_launch.cpp blocks and launches. Both are always compiled without
 * -fsanitize=thread: they tell TSan what the GPU orders, and their own workings are no
 * order.
 *
 * A thread of a kernel takes a carrier (a stack, and TSan's idea of a fiber) when it
 * first runs, and gives it back at its end; so threads that never wait use one stack
 * after another, and that stack stays in the cache. Under TSan a carrier is taken anew
 * for every thread, or what came before on it would be ordered with what comes after.
 */
#ifndef SHIM_CUEMU_INSIDE_H
#define SHIM_CUEMU_INSIDE_H

#include "tests/gpu/shim/runtime_api.h"

#include "tests/gpu/shim/kernel_language.h"

#include <vector>

namespace cuemu
{
constexpr size_t STACK = 64 * 1024;
constexpr unsigned WARP = 32, BALLOT = WARP;
constexpr unsigned THREADS_MAX = 1024; /* of a block */
/* Carriers before they are used again in a launch, under TSan: each takes about 1 MiB
 * there, and there cannot be more than 8,128. */
constexpr unsigned LIVE_MAX = 1024;
constexpr unsigned BLOCKS_AT_ONCE = 2; /* under TSan, each on an OS thread */

enum state {
    RUNNABLE,
    AT_BARRIER,
    AT_WARP, /* a shuffle, a ballot */
    DONE
};

struct carrier {
    char *stack;
    void *tsan;
};

/* Tokens: what TSan knows is their address. */
struct launch_tokens {
    uint64_t begin, end;
};

/* Of the barriers of a block, in turn: when a thread leaves a barrier others may have
 * come to the next, and what they did on the way is not ordered with it. */
struct barrier_tokens {
    uint64_t of[2];
};

struct fiber : thread {
    state at;
    bool started;
    bool fenced; /* the next atomic releases */
    carrier on;
    void *stack_pointer;
    uint64_t value, got; /* given to a shuffle, and got from it */
    unsigned mask, lane; /* of a shuffle; lane BALLOT: a bit of every lane */
    const char *where;   /* it waits: for reports, and to tell shuffles apart */
    void *last_atomic;   /* what a fence acquires */
    unsigned barriers;   /* that it came to */
    launch_tokens *tokens;
};

/* What one block has, on the OS thread that runs it. */
struct runner {
    block place;
    std::vector<fiber> fibers;
    const std::function<void()> *body;
    void *stack_pointer; /* of the scheduler, while a fiber runs */
    void *tsan;
    const void *asan_stack; /* of the scheduler's OS thread */
    size_t asan_bytes;
    void *asan_fake;
    uint64_t random;
    unsigned preempt;
    struct barrier_tokens *tokens; /* of this block alone: not of the runner, which
                                      goes on to another block */
};

extern __thread runner *here;

[[noreturn]] void die(const char *what);
unsigned draw(uint64_t *state); /* a number by chance */

/* Does this program have TSan? What TSan is told of orders. */
bool tsan();
void acquire(void *p);
void release(void *p);
void *tsan_this();

/* A lock that TSan does not see: taking it is no order between blocks. */
void lock();
void unlock();

/* Runs a fiber until it waits or ends. */
void resume(fiber *f);
/* All that ran in this launch has ended, and the launcher is after it. */
void carriers_begin_launch();
void carriers_end_of_launch();
} // namespace cuemu

#endif
