/* The threads of a kernel: stacks, switches between them, and what a kernel calls. See
 * cuemu_inside.h. */
#include "tests/gpu/shim/cuemu_inside.h"

#include <cstdio>
#include <cstdlib>
#include <sys/mman.h>
#include <thread>

#if !defined(__x86_64__)
#error "the switch of stacks below is written for x86-64"
#endif

/* There where the program has TSan, which this file cannot know at compile time. */
extern "C" {
__attribute__((weak)) void *__tsan_get_current_fiber(void);
__attribute__((weak)) void *__tsan_create_fiber(unsigned flags);
__attribute__((weak)) void __tsan_switch_to_fiber(void *fiber, unsigned flags);
__attribute__((weak)) void __tsan_acquire(void *p);
__attribute__((weak)) void __tsan_release(void *p);
}
#if defined(CUEMU_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

namespace cuemu
{
__thread thread *cur;
__thread runner *here;

static fiber *self()
{
    return static_cast<fiber *>(cur);
}

[[noreturn]] void die(const char *what)
{
    fprintf(stderr, "cuemu: block %u: %s\n", here ? here->place.index.x : 0, what);
    abort();
}

/* ---- what TSan and ASan are told ----------------------------------------- */

bool tsan()
{
    return __tsan_create_fiber != nullptr;
}

void acquire(void *p)
{
    if (tsan())
        __tsan_acquire(p);
}

void release(void *p)
{
    if (tsan())
        __tsan_release(p);
}

void *tsan_this()
{
    return tsan() ? __tsan_get_current_fiber() : nullptr;
}

namespace
{
void tsan_enter(void *fiber)
{
    constexpr unsigned NO_ORDER = 1; /* by a switch itself */
    if (tsan())
        __tsan_switch_to_fiber(fiber, NO_ORDER);
}

/* `fake`: where to keep what is left; NULL: it is left for good. */
void asan_leave(void **fake, const void *stack, size_t bytes)
{
#if defined(CUEMU_ASAN)
    __sanitizer_start_switch_fiber(fake, stack, bytes);
#else
    (void)fake, (void)stack, (void)bytes;
#endif
}

void asan_arrived(void *fake, const void **from, size_t *from_bytes)
{
#if defined(CUEMU_ASAN)
    __sanitizer_finish_switch_fiber(fake, from, from_bytes);
#else
    (void)fake, (void)from, (void)from_bytes;
#endif
}

/* ---- carriers ------------------------------------------------------------ */

carrier carrier_new()
{
    void *stack = mmap(nullptr, STACK, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack == MAP_FAILED)
        die("no memory for another stack");
    return {static_cast<char *>(stack), tsan() ? __tsan_create_fiber(0) : nullptr};
}

std::vector<carrier> unused;
std::vector<carrier> used; /* under TSan: in this launch */
int spin;
} // namespace

void lock()
{
    while (__atomic_exchange_n(&spin, 1, __ATOMIC_ACQUIRE))
        std::this_thread::yield();
}
void unlock()
{
    __atomic_store_n(&spin, 0, __ATOMIC_RELEASE);
}

namespace
{
carrier carrier_take()
{
    carrier ret = {};
    lock();
    if (unused.empty() && used.size() >= LIVE_MAX)
        unused.swap(used);
    if (!unused.empty()) {
        ret = unused.back();
        unused.pop_back();
    }
    unlock();
    if (!ret.stack)
        ret = carrier_new();
#if defined(CUEMU_ASAN)
    __asan_unpoison_memory_region(ret.stack, STACK); /* frames that ended there */
#endif
    return ret;
}

void carrier_give(carrier on)
{
    lock();
    (tsan() ? used : unused).push_back(on);
    unlock();
}

} // namespace

/* Room for all there can be: what grows while blocks run would look like a race. */
void carriers_begin_launch()
{
    lock();
    unused.reserve(LIVE_MAX + BLOCKS_AT_ONCE * THREADS_MAX);
    used.reserve(LIVE_MAX + BLOCKS_AT_ONCE * THREADS_MAX);
    unlock();
}

void carriers_end_of_launch()
{
    lock();
    unused.insert(unused.end(), used.begin(), used.end());
    used.clear();
    unlock();
}

/* ---- switching ----------------------------------------------------------- */

/* Saves what a call must keep (System V, x86-64) and changes stacks. Not swapcontext:
 * it makes a system call for the signal mask, and takes twenty times as long. */
extern "C" void cuemu_swap(void **save, void *load)
    __attribute__((visibility("hidden")));
__asm__(".text\n.globl cuemu_swap\n.hidden cuemu_swap\n"
        ".type cuemu_swap,@function\ncuemu_swap:\n"
        "pushq %rbp\npushq %rbx\npushq %r12\npushq %r13\npushq %r14\npushq %r15\n"
        "movq %rsp,(%rdi)\nmovq %rsi,%rsp\n"
        "popq %r15\npopq %r14\npopq %r13\npopq %r12\npopq %rbx\npopq %rbp\nret\n"
        ".size cuemu_swap,.-cuemu_swap\n");

namespace
{
/* Where a fiber begins; it never returns. */
void entry()
{
    asan_arrived(nullptr, &here->asan_stack, &here->asan_bytes);
    acquire(&self()->tokens->begin);
    acquire(self()->on.stack); /* whoever was on it before */
    (*here->body)();
    self()->at = DONE;
    release(self()->on.stack);
    release(&self()->tokens->end);
    tsan_enter(here->tsan);
    asan_leave(nullptr, here->asan_stack, here->asan_bytes);
    void *never;
    cuemu_swap(&never, here->stack_pointer);
    abort();
}

void leave()
{
    fiber *f = self();
    void *fake = nullptr;
    asan_leave(&fake, here->asan_stack, here->asan_bytes);
    tsan_enter(here->tsan);
    cuemu_swap(&f->stack_pointer, here->stack_pointer);
    asan_arrived(fake, &here->asan_stack, &here->asan_bytes);
}

void start(fiber *f)
{
    f->on = carrier_take();
    f->started = true;
    /* rsp % 16 == 8 at entry, as after a call; six registers below it. */
    void **top = reinterpret_cast<void **>(f->on.stack + STACK) - 3;
    *--top = reinterpret_cast<void *>(entry);
    for (int i = 0; i < 6; i++)
        *--top = nullptr;
    f->stack_pointer = top;
    release(f->on.stack); /* this thread's own thread_locals, made when first used */
}

} // namespace

void resume(fiber *f)
{
    if (!f->started)
        start(f);
    cur = f;
    asan_leave(&here->asan_fake, f->on.stack, STACK);
    tsan_enter(f->on.tsan);
    cuemu_swap(&here->stack_pointer, f->stack_pointer);
    asan_arrived(here->asan_fake, nullptr, nullptr);
    if (f->at == DONE)
        carrier_give(f->on);
}

unsigned draw(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return static_cast<unsigned>(*state >> 20);
}

static void perhaps_leave()
{
    if (here->preempt && draw(&here->random) % here->preempt == 0)
        leave();
}

/* ---- what kernels call --------------------------------------------------- */

void barrier(const char *where)
{
    void *token = &here->tokens->of[self()->barriers++ % 2];
    release(token);
    self()->at = AT_BARRIER;
    self()->where = where;
    leave();
    acquire(token);
}

void fence()
{
    self()->fenced = true;
    if (self()->last_atomic)
        acquire(self()->last_atomic);
    perhaps_leave();
}

void atomic_begin(void *p)
{
    perhaps_leave();
    if (self()->fenced)
        release(p);
}

void atomic_end(void *p)
{
    self()->fenced = false;
    self()->last_atomic = p;
    perhaps_leave();
}

/* Gives a value to the warp, and waits until all of `mask` have. */
uint64_t shuffle(unsigned mask, uint64_t value, unsigned lane, const char *where)
{
    fiber *f = self();
    if (!(mask >> f->linear % WARP & 1)) {
        fprintf(stderr, "cuemu: %s: thread %u is not in its own mask %08x\n", where,
                f->linear, mask);
        abort();
    }
    f->value = value;
    f->mask = mask;
    f->lane = lane;
    f->where = where;
    f->at = AT_WARP;
    leave();
    return f->got;
}

unsigned ballot(unsigned mask, bool yes, const char *where)
{
    return static_cast<unsigned>(shuffle(mask, yes, BALLOT, where));
}
} // namespace cuemu
