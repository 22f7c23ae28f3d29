/* The fake's memory regions and windows: keys, and what each of them permits. */
#include "tests/verbs/fake_own.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#undef ibv_reg_mr

#define REMOTE                                                                         \
    (IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC)

/* A key is the place in its table, and 8 bits that change each time it is used. */
static uint32_t place_of(uint32_t key)
{
    return (key >> 8) % FAKE_KEYS;
}

/* A free place; 0: none. Places are used in turn, so that old keys stay invalid. */
static uint32_t key_new(void)
{
    for (uint32_t i = 0; i < FAKE_KEYS; i++) {
        uint32_t number = fake_world.next_key++;
        uint32_t place = number % FAKE_KEYS;

        if (fake_world.next_key == 1u << 24)
            fake_world.next_key = 1;
        if (place != 0 && fake_world.regions[place] == NULL &&
            fake_world.windows[place] == NULL)
            return number << 8 | 0x31;
    }
    return 0;
}

/* ---- regions ------------------------------------------------------------- */

static int region_problem(const struct ibv_pd *pd, size_t length, unsigned access)
{
    unsigned known = IBV_ACCESS_LOCAL_WRITE | REMOTE | IBV_ACCESS_MW_BIND |
                     IBV_ACCESS_RELAXED_ORDERING;

    if (fake_fails("ibv_reg_mr"))
        return ENOMEM;
    if (fake_context(pd->context)->device->removed)
        return EIO;
    if (length == 0 || (access & ~known) != 0)
        return EINVAL;
    if ((access & (IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC)) != 0 &&
        (access & IBV_ACCESS_LOCAL_WRITE) == 0)
        return EINVAL;
    if ((access & IBV_ACCESS_MW_BIND) != 0 &&
        (fake_rules.no_windows || fake_context(pd->context)->device->iwarp))
        return EOPNOTSUPP;
    if (fake_rules.memory_most != 0 &&
        fake_world.registered + length > fake_rules.memory_most)
        return ENOMEM;
    return 0;
}

struct fake_mr *fake_region_new(struct ibv_pd *pd, const struct fake_mr *like)
{
    struct fake_mr *it = calloc(1, sizeof *it);
    uint32_t key = key_new();

    if (it == NULL || key == 0) {
        free(it);
        errno = ENOMEM;
        return NULL;
    }
    *it = *like;
    it->pub.context = pd->context;
    it->pub.pd = pd;
    it->pub.lkey = key;
    it->pub.rkey = key;
    fake_world.regions[place_of(key)] = it;
    fake_world.registered += it->pub.length;
    fake_world.live.regions++;
    ((struct fake_pd *)pd)->children++;
    return it;
}

/* With the lock. NULL: errno. */
static struct fake_mr *region_new(struct ibv_pd *pd, void *addr, size_t length,
                                  unsigned access)
{
    struct fake_mr like = {.pub = {.addr = addr, .length = length},
                           .base = (uintptr_t)addr,
                           .at = addr,
                           .access = access};
    const struct fake_card *card = NULL;
    struct fake_mr *it;

    errno = region_problem(pd, length, access);
    if (errno != 0)
        return NULL;
    if (fake_card_at(like.base, length, &card)) {
        errno = EFAULT; /* no page of the process is there */
        if (!fake_rules.peermem || card == NULL ||
            !fake_card_map(&like, card->fd, like.base - card->base, length))
            return NULL;
    }
    it = fake_region_new(pd, &like);
    if (it == NULL && like.map != NULL)
        (void)munmap(like.map, like.mapped);
    return it;
}

struct ibv_mr *ibv_reg_mr(struct ibv_pd *pd, void *addr, size_t length, int access)
{
    struct fake_mr *it;
    int problem;

    fake_lock();
    it = region_new(pd, addr, length, (unsigned)access);
    problem = errno;
    fake_unlock();
    if (it == NULL)
        errno = problem;
    return it != NULL ? &it->pub : NULL;
}

struct ibv_mr *ibv_reg_mr_iova2(struct ibv_pd *pd, void *addr, size_t length,
                                uint64_t iova, unsigned int access)
{
    if (iova != (uintptr_t)addr) {
        errno = EOPNOTSUPP;
        return NULL;
    }
    return ibv_reg_mr(pd, addr, length, (int)access);
}

int ibv_dereg_mr(struct ibv_mr *mr)
{
    struct fake_mr *it = (struct fake_mr *)mr;

    fake_lock();
    if (it->windows != 0) {
        fake_fault("a memory region goes with %u windows bound to it", it->windows);
        fake_unlock();
        return EBUSY;
    }
    fake_world.regions[place_of(mr->lkey)] = NULL;
    fake_world.registered -= mr->length;
    fake_world.live.regions--;
    ((struct fake_pd *)mr->pd)->children--;
    fake_unlock();
    if (it->map != NULL)
        (void)munmap(it->map, it->mapped);
    free(it);
    return 0;
}

/* ---- windows ------------------------------------------------------------- */

/* With the lock. NULL: errno. */
static struct fake_mw *window_new(struct ibv_pd *pd, enum ibv_mw_type type)
{
    struct fake_mw *it;
    uint32_t key;

    errno = EOPNOTSUPP;
    if (fake_rules.no_windows || fake_context(pd->context)->device->iwarp)
        return NULL;
    errno = EINVAL;
    if (type != IBV_MW_TYPE_2)
        return NULL;
    errno = ENOMEM;
    if (fake_fails("ibv_alloc_mw") || fake_context(pd->context)->device->removed)
        return NULL;
    it = calloc(1, sizeof *it);
    key = key_new();
    if (it == NULL || key == 0) {
        free(it);
        errno = ENOMEM;
        return NULL;
    }
    it->pub.context = pd->context;
    it->pub.pd = pd;
    it->pub.type = type;
    it->pub.rkey = key;
    it->key = key;
    fake_world.windows[place_of(key)] = it;
    fake_world.live.windows++;
    ((struct fake_pd *)pd)->children++;
    return it;
}

struct ibv_mw *fake_alloc_mw(struct ibv_pd *pd, enum ibv_mw_type type)
{
    struct fake_mw *it;
    int problem;

    fake_lock();
    it = window_new(pd, type);
    problem = errno;
    fake_unlock();
    if (it == NULL)
        errno = problem;
    return it != NULL ? &it->pub : NULL;
}

static void unbind(struct fake_mw *it)
{
    if (it->mr == NULL)
        return;
    it->mr->windows--;
    it->qp->windows--;
    it->mr = NULL;
    it->qp = NULL;
}

int fake_dealloc_mw(struct ibv_mw *mw)
{
    struct fake_mw *it = (struct fake_mw *)mw;

    fake_lock();
    unbind(it);
    fake_world.windows[place_of(it->key)] = NULL;
    fake_world.live.windows--;
    ((struct fake_pd *)mw->pd)->children--;
    fake_unlock();
    free(it);
    return 0;
}

/* What a kernel driver asks of a bind of type 2. */
bool fake_bind(struct fake_qp *qp, const struct fake_send *send)
{
    const struct ibv_send_wr *wr = &send->wr;
    const struct ibv_mw_bind_info *info = &wr->bind_mw.bind_info;
    struct fake_mw *it = fake_world.windows[place_of(send->window_key)];
    struct fake_mr *mr = fake_world.regions[place_of(send->region_key)];
    uint64_t base;

    if (it == NULL || mr == NULL || mr->pub.lkey != send->region_key)
        return false; /* gone since */
    if (it->mr != NULL)
        return false; /* one that is bound has to be invalidated first */
    base = mr->base;
    if (it->pub.pd != qp->pub.pd || mr->pub.pd != qp->pub.pd ||
        (mr->access & IBV_ACCESS_MW_BIND) == 0)
        return false;
    if (info->length == 0 || info->addr < base || info->length > mr->pub.length ||
        info->addr - base > mr->pub.length - info->length)
        return false;
    if ((info->mw_access_flags & ~(unsigned)REMOTE) != 0 ||
        ((info->mw_access_flags & IBV_ACCESS_REMOTE_WRITE) != 0 &&
         (mr->access & IBV_ACCESS_LOCAL_WRITE) == 0))
        return false;
    if (send->window_key != it->key || wr->bind_mw.rkey >> 8 != it->key >> 8 ||
        wr->bind_mw.rkey == it->key)
        return false; /* the new key is the old one with other low bits */
    it->key = wr->bind_mw.rkey;
    it->mr = mr;
    it->qp = qp;
    it->base = info->addr;
    it->bytes = info->length;
    it->access = info->mw_access_flags;
    mr->windows++;
    qp->windows++;
    return true;
}

bool fake_invalidate(struct fake_qp *qp, uint32_t key)
{
    struct fake_mw *it = fake_world.windows[place_of(key)];

    if (it == NULL || it->key != key || it->qp != qp)
        return false;
    unbind(it);
    return true;
}

/* ---- who may touch what -------------------------------------------------- */

static bool inside(uint64_t base, uint64_t size, uint64_t at, uint64_t bytes)
{
    return at >= base && bytes <= size && at - base <= size - bytes;
}

unsigned char *fake_local(const struct ibv_pd *pd, uint32_t key, uint64_t at,
                          uint64_t bytes, unsigned access)
{
    const struct fake_mr *it = fake_world.regions[place_of(key)];

    if (it == NULL || it->pub.lkey != key || it->pub.pd != pd ||
        (it->access & access) != access || !inside(it->base, it->pub.length, at, bytes))
        return NULL;
    return fake_card_route(it, at - it->base, bytes);
}

unsigned char *fake_remote(const struct fake_qp *responder, uint32_t key, uint64_t at,
                           uint64_t bytes, unsigned access)
{
    const struct fake_mw *it = fake_world.windows[place_of(key)];

    if (it == NULL)
        return fake_local(responder->pub.pd, key, at, bytes, access);
    if (it->key != key || it->qp != responder || (it->access & access) != access ||
        !inside(it->base, it->bytes, at, bytes))
        return NULL;
    return fake_card_route(it->mr, at - it->mr->base, bytes);
}

size_t fake_keys(struct fake_key *ret, size_t most)
{
    size_t count = 0;

    fake_lock();
    for (uint32_t i = 0; i < FAKE_KEYS; i++) {
        const struct fake_mr *mr = fake_world.regions[i];
        const struct fake_mw *mw = fake_world.windows[i];
        struct fake_key key = {0};

        if (mr != NULL && (mr->access & REMOTE) != 0) {
            key = (struct fake_key){.rkey = mr->pub.rkey,
                                    .base = mr->base,
                                    .bytes = mr->pub.length,
                                    .access = mr->access & REMOTE,
                                    .pd = mr->pub.pd};
        } else if (mw != NULL && mw->mr != NULL) {
            key = (struct fake_key){.rkey = mw->key,
                                    .base = mw->base,
                                    .bytes = mw->bytes,
                                    .access = mw->access,
                                    .pair = mw->qp->pub.qp_num,
                                    .pd = mw->pub.pd};
        } else
            continue;
        if (count < most)
            ret[count] = key;
        count++;
    }
    fake_unlock();
    return count;
}
