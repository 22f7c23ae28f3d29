/* Counts what a thread asks of the system while it should ask for nothing: system calls
 * and allocations. Include it in one file of a test program; x86-64 Linux with glibc,
 * and not in sanitizer builds (their runtime makes calls of its own): there
 * counting_open returns false and says why.
 *
 *   if (!counting_open(&why)) skip
 *   counting_start();            this thread, from here
 *   ... the busy path ...
 *   counting_stop();
 *   counting.calls[SYS_futex]    system calls of that stretch by number
 *   counting.allocations         malloc, calloc, realloc, aligned_alloc, free
 *
 * How. counting_open puts a seccomp filter on the calling thread that turns every
 * system call into SIGSYS; the handler counts it and makes it, from one instruction
 * whose address the filter lets through. So the program behaves as before, only slower.
 * The filter stays on the thread for ever, and on threads and processes that it starts;
 * other threads are not touched. Not counted: calls that cannot be made from a handler
 * (clone, exec, exit, and those that change the signal mask).
 */
#ifndef GAPLESS_TESTS_COUNTING_H
#define GAPLESS_TESTS_COUNTING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define COUNTING_CALLS 512

static struct {
    bool on;
    unsigned long calls[COUNTING_CALLS];
    unsigned long allocations;
} counting;

/* Other threads allocate freely. */
static _Thread_local bool counting_here;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define COUNTING_WHY "a sanitizer's runtime makes calls of its own"
#elif !defined(__x86_64__) || !defined(__GLIBC__)
#define COUNTING_WHY "counting knows x86-64 and glibc only"
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define COUNTING_WHY "a sanitizer's runtime makes calls of its own"
#endif
#endif

#ifdef COUNTING_WHY

static inline bool counting_open(const char **ret_reason)
{
    *ret_reason = COUNTING_WHY;
    return false;
}

#else

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>

/* ---- allocations: the program's malloc comes before libc's --------------- */

extern void *__libc_malloc(size_t bytes);
extern void *__libc_calloc(size_t count, size_t bytes);
extern void *__libc_realloc(void *memory, size_t bytes);
extern void *__libc_memalign(size_t alignment, size_t bytes);
extern void __libc_free(void *memory);
void *malloc(size_t bytes);
void *calloc(size_t count, size_t bytes);
void *realloc(void *memory, size_t bytes);
void *aligned_alloc(size_t alignment, size_t bytes);
int posix_memalign(void **ret, size_t alignment, size_t bytes);
void free(void *memory);

static void counting_allocation(void)
{
    if (counting_here && counting.on)
        counting.allocations++;
}

void *malloc(size_t bytes)
{
    counting_allocation();
    return __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
    counting_allocation();
    return __libc_calloc(count, bytes);
}

void *realloc(void *memory, size_t bytes)
{
    counting_allocation();
    return __libc_realloc(memory, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
    counting_allocation();
    return __libc_memalign(alignment, bytes);
}

int posix_memalign(void **ret, size_t alignment, size_t bytes)
{
    void *memory;

    counting_allocation();
    memory = __libc_memalign(alignment, bytes);
    if (memory == NULL)
        return ENOMEM;
    *ret = memory;
    return 0;
}

void free(void *memory)
{
    if (memory != NULL)
        counting_allocation();
    __libc_free(memory);
}

/* ---- system calls -------------------------------------------------------- */

/* The one place whose system calls the filter lets through. */
long counting_syscall(long number, long a, long b, long c, long d, long e, long f);
extern const char counting_gate[];
__asm__(".text\n"
        ".globl counting_syscall\n"
        ".type counting_syscall, @function\n"
        "counting_syscall:\n"
        "    mov %rdi, %rax\n"
        "    mov %rsi, %rdi\n"
        "    mov %rdx, %rsi\n"
        "    mov %rcx, %rdx\n"
        "    mov %r8, %r10\n"
        "    mov %r9, %r8\n"
        "    mov 8(%rsp), %r9\n"
        "    syscall\n"
        ".globl counting_gate\n"
        "counting_gate:\n"
        "    ret\n"
        ".size counting_syscall, .-counting_syscall\n");

static void counting_handler(int signal, siginfo_t *info, void *context)
{
    greg_t *reg = ((ucontext_t *)context)->uc_mcontext.gregs;
    int number = info->si_syscall;

    (void)signal;
    if (counting.on && number >= 0 && number < COUNTING_CALLS)
        counting.calls[number]++;
    reg[REG_RAX] = (greg_t)counting_syscall(
        number, (long)reg[REG_RDI], (long)reg[REG_RSI], (long)reg[REG_RDX],
        (long)reg[REG_R10], (long)reg[REG_R8], (long)reg[REG_R9]);
}

#define COUNTING_PASS(number)                                                          \
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (number), 0, 1),                               \
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
#define COUNTING_FIELD(field)                                                          \
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned)offsetof(struct seccomp_data, field))

/* Call it in the thread to be counted, when its threads and children are started. */
static inline bool counting_open(const char **ret_reason)
{
    uint64_t gate = (uint64_t)(uintptr_t)counting_gate;
    struct sock_filter filter[] = {
        /* The instruction pointer is that after the call; its upper half is 4
         * bytes on. */
        COUNTING_FIELD(instruction_pointer),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)gate, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                 (unsigned)offsetof(struct seccomp_data, instruction_pointer) + 4),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)(gate >> 32), 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        COUNTING_FIELD(nr),
        COUNTING_PASS(SYS_rt_sigreturn),
        COUNTING_PASS(SYS_rt_sigprocmask),
        COUNTING_PASS(SYS_clone),
        COUNTING_PASS(SYS_clone3),
        COUNTING_PASS(SYS_fork),
        COUNTING_PASS(SYS_vfork),
        COUNTING_PASS(SYS_execve),
        COUNTING_PASS(SYS_exit),
        COUNTING_PASS(SYS_exit_group),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
    };
    struct sock_fprog program = {
        .len = (unsigned short)(sizeof filter / sizeof filter[0]), .filter = filter};
    struct sigaction action = {.sa_sigaction = counting_handler,
                               .sa_flags = SA_SIGINFO | SA_NODEFER};

    *ret_reason = "this kernel lets no process filter its own system calls";
    if (sigaction(SIGSYS, &action, NULL) != 0 ||
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return false;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

#endif

static inline void counting_start(void)
{
    for (int i = 0; i < COUNTING_CALLS; i++)
        counting.calls[i] = 0;
    counting.allocations = 0;
    counting_here = true;
    counting.on = true;
}

static inline void counting_stop(void)
{
    counting.on = false;
    counting_here = false;
}

/* System calls counted but those in `allowed`, which ends with -1; tells stderr
 * which. */
static inline unsigned long counting_others(const int *allowed)
{
    unsigned long others = 0;

    for (int i = 0; i < COUNTING_CALLS; i++) {
        const int *number = allowed;

        while (*number != -1 && *number != i)
            number++;
        if (*number == -1 && counting.calls[i] != 0) {
            (void)fprintf(stderr, "system call %d: %lu times\n", i, counting.calls[i]);
            others += counting.calls[i];
        }
    }
    return others;
}

#endif
