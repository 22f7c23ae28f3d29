#include "engine/base/process.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

/* A page of zeros in a forked child, however it was forked (Linux 4.14). */
static volatile uint32_t *page;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void page_open(void)
{
    const size_t bytes = (size_t)sysconf(_SC_PAGESIZE);
    void *memory =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED)
        return;
    if (madvise(memory, bytes, MADV_WIPEONFORK) == 0)
        page = memory;
    else
        (void)munmap(memory, bytes);
}

uint32_t process_number(void)
{
    (void)pthread_once(&once, page_open);
    if (page == NULL) /* an old kernel */
        return (uint32_t)getpid();
    if (*page == 0)
        *page = (uint32_t)getpid(); /* every thread writes the same */
    return *page;
}

int process_check(uint32_t owner, const char *what, struct gapless_error *error)
{
    if (process_is(owner))
        return GAPLESS_OK;
    return gapless_error_set(
        error, GAPLESS_INVALID, 0,
        "%s belongs to process %u, which opened it; this is process "
        "%u: after a fork, open one of its own",
        what, (unsigned)owner, (unsigned)process_number());
}
