/* The fake's accelerators: memory that a process has an address for and cannot touch,
 * and the ways a network card gets to it. */
#include "tests/verbs/fake_own.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE 4096u
/* What Linux 5.12 to 6.12 let a DMA-BUF be registered for (uverbs_std_types_mr.c):
 * windows cannot be bound in it. */
#define DMABUF_ACCESS                                                                  \
    ((unsigned)(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ |                      \
                IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC |                   \
                IBV_ACCESS_RELAXED_ORDERING))

void fake_card(void *base, size_t bytes, int fd)
{
    struct fake_card *it;

    fake_lock();
    it = &fake_world.cards[fake_world.card_count % FAKE_CARDS];
    if (fake_world.card_count == FAKE_CARDS)
        fake_fault("too many pieces of accelerators' memory");
    *it = (struct fake_card){
        .base = (uintptr_t)base, .bytes = bytes, .fd = fcntl(fd, F_DUPFD_CLOEXEC, 0)};
    if (it->fd < 0)
        fake_fault("the file of an accelerator's memory is not open");
    else if (fake_world.card_count < FAKE_CARDS)
        fake_world.card_count++;
    fake_unlock();
}

void fake_cards_clear(void)
{
    while (fake_world.card_count > 0)
        (void)close(fake_world.cards[--fake_world.card_count].fd);
}

bool fake_card_at(uint64_t at, size_t bytes, const struct fake_card **ret)
{
    bool some = false;

    for (unsigned i = 0; i < fake_world.card_count; i++) {
        const struct fake_card *it = &fake_world.cards[i];

        if (at >= it->base + it->bytes || at + bytes <= it->base)
            continue;
        some = true;
        if (at >= it->base && at + bytes <= it->base + it->bytes)
            *ret = it;
    }
    return some;
}

bool fake_card_map(struct fake_mr *ret, int fd, uint64_t offset, size_t bytes)
{
    uint64_t skip = offset % PAGE;
    void *map;

    ret->mapped = (size_t)(skip + bytes);
    map = mmap(NULL, ret->mapped, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
               (off_t)(offset - skip));
    if (map == MAP_FAILED)
        return false;
    ret->map = map;
    ret->at = (unsigned char *)map + skip;
    return true;
}

unsigned char *fake_card_route(const struct fake_mr *mr, uint64_t skip, uint64_t bytes)
{
    static unsigned char elsewhere[1u << 16];

    if (mr->map == NULL || bytes > sizeof elsewhere ||
        !fake_context(mr->pub.context)->device->misrouted)
        return mr->at + skip;
    return elsewhere;
}

void fake_misroute(const char *device, bool wrong)
{
    fake_lock();
    fake_device_named(device)->misrouted = wrong;
    fake_unlock();
}

/* What the kernel asks, in its order. */
static int dmabuf_problem(const struct ibv_pd *pd, uint64_t offset, size_t length,
                          uint64_t iova, int fd, unsigned access)
{
    struct stat file;

    if (fake_fails("ibv_reg_dmabuf_mr"))
        return ENOMEM;
    if (fake_rules.no_dmabuf || fake_context(pd->context)->device->iwarp)
        return EOPNOTSUPP;
    if (fake_context(pd->context)->device->removed)
        return EIO;
    if (((offset ^ iova) & (PAGE - 1)) != 0 || (access & ~DMABUF_ACCESS) != 0)
        return EINVAL;
    if ((access & (IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC)) != 0 &&
        (access & IBV_ACCESS_LOCAL_WRITE) == 0)
        return EINVAL;
    if (fstat(fd, &file) != 0)
        return EBADF;
    if (length == 0 || !S_ISREG(file.st_mode) || offset > (uint64_t)file.st_size ||
        length > (uint64_t)file.st_size - offset)
        return EINVAL;
    if (fake_rules.memory_most != 0 &&
        fake_world.registered + length > fake_rules.memory_most)
        return ENOMEM;
    return 0;
}

struct ibv_mr *ibv_reg_dmabuf_mr(struct ibv_pd *pd, uint64_t offset, size_t length,
                                 uint64_t iova, int fd, int access)
{
    /* The address that a caller sees is of no use to him. */
    struct fake_mr like = {.pub = {.addr = (void *)(uintptr_t)offset, .length = length},
                           .base = iova,
                           .access = (unsigned)access};
    struct fake_mr *it = NULL;
    int problem;

    fake_lock();
    problem = dmabuf_problem(pd, offset, length, iova, fd, (unsigned)access);
    if (problem == 0 && !fake_card_map(&like, fd, offset, length))
        problem = ENOMEM;
    if (problem == 0) {
        it = fake_region_new(pd, &like);
        problem = errno;
    }
    fake_unlock();
    if (it == NULL && like.map != NULL)
        (void)munmap(like.map, like.mapped);
    if (it == NULL)
        errno = problem;
    return it != NULL ? &it->pub : NULL;
}
