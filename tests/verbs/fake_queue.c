/* The fake's completion channels and completion queues. */
#include "tests/verbs/fake_own.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- channels ------------------------------------------------------------ */

struct ibv_comp_channel *ibv_create_comp_channel(struct ibv_context *context)
{
    struct fake_channel *it = NULL;

    fake_lock();
    if (!fake_fails("ibv_create_comp_channel") &&
        !fake_context(context)->device->removed)
        it = calloc(1, sizeof *it);
    if (it != NULL) {
        it->pub.context = context;
        it->pub.fd = fake_fd_new();
        if (it->pub.fd < 0) {
            free(it);
            it = NULL;
        }
    }
    if (it != NULL) {
        fake_context(context)->children++;
        fake_world.live.channels++;
    }
    fake_unlock();
    if (it == NULL)
        errno = EMFILE;
    return it != NULL ? &it->pub : NULL;
}

int ibv_destroy_comp_channel(struct ibv_comp_channel *channel)
{
    struct fake_channel *it = (struct fake_channel *)channel;

    fake_lock();
    if (it->children != 0) {
        fake_fault("a completion channel goes with %u queues on it", it->children);
        fake_unlock();
        return EBUSY;
    }
    fake_context(channel->context)->children--;
    fake_world.live.channels--;
    fake_unlock();
    (void)close(channel->fd);
    free(it);
    return 0;
}

/* Taking the first event of a channel that waits. */
static struct fake_cq *event_take(struct fake_channel *it)
{
    struct fake_cq *cq = it->waiting[0];

    memmove(it->waiting, it->waiting + 1, --it->count * sizeof(struct fake_cq *));
    cq->unacknowledged++;
    fake_world.live.unacknowledged++;
    return cq;
}

int ibv_get_cq_event(struct ibv_comp_channel *channel, struct ibv_cq **cq,
                     void **cq_context)
{
    struct fake_channel *it = (struct fake_channel *)channel;
    struct fake_cq *from = NULL;
    uint64_t one;

    while (from == NULL) {
        bool fails;

        if (read(channel->fd, &one, sizeof one) != (ssize_t)sizeof one)
            return -1;
        fake_lock();
        fails = it->count > 0 && fake_fails("ibv_get_cq_event");
        if (fails)
            fake_fd_add(channel->fd);
        else if (it->count > 0)
            from = event_take(it);
        fake_unlock();
        if (fails) {
            errno = EIO;
            return -1;
        }
    }
    *cq = &from->pub;
    *cq_context = from->pub.cq_context;
    return 0;
}

void ibv_ack_cq_events(struct ibv_cq *cq, unsigned int nevents)
{
    struct fake_cq *it = (struct fake_cq *)cq;

    fake_lock();
    if (nevents > it->unacknowledged) {
        fake_fault("%u completion events are acknowledged, there were %u", nevents,
                   it->unacknowledged);
        nevents = it->unacknowledged;
    }
    it->unacknowledged -= nevents;
    fake_world.live.unacknowledged -= nevents;
    fake_unlock();
}

/* ---- queues -------------------------------------------------------------- */

/* With the lock. NULL: errno. */
static struct fake_cq *queue_new(struct ibv_context *context, int cqe,
                                 struct ibv_comp_channel *channel, int vector)
{
    struct fake_cq *it;

    errno = EINVAL;
    if (cqe < 1 || cqe > 32767 || vector != 0 ||
        (channel != NULL && channel->context != context))
        return NULL;
    errno = ENOMEM;
    if (fake_fails("ibv_create_cq") || fake_context(context)->device->removed)
        return NULL;
    it = calloc(1, sizeof *it);
    if (it == NULL)
        return NULL;
    it->ring = calloc((size_t)cqe, sizeof *it->ring);
    if (it->ring == NULL) {
        free(it);
        return NULL;
    }
    it->pub.context = context;
    it->pub.channel = channel;
    it->pub.cqe = cqe;
    if (channel != NULL)
        ((struct fake_channel *)channel)->children++;
    fake_context(context)->children++;
    fake_world.live.queues++;
    return it;
}

struct ibv_cq *ibv_create_cq(struct ibv_context *context, int cqe, void *cq_context,
                             struct ibv_comp_channel *channel, int comp_vector)
{
    struct fake_cq *it;
    int problem;

    fake_lock();
    it = queue_new(context, cqe, channel, comp_vector);
    problem = errno;
    if (it != NULL)
        it->pub.cq_context = cq_context;
    fake_unlock();
    if (it == NULL)
        errno = problem;
    return it != NULL ? &it->pub : NULL;
}

static void channel_forget(struct fake_channel *channel, const struct fake_cq *cq)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < channel->count; i++) {
        if (channel->waiting[i] == cq)
            fake_fd_take(channel->pub.fd);
        else
            channel->waiting[kept++] = channel->waiting[i];
    }
    channel->count = kept;
}

int ibv_destroy_cq(struct ibv_cq *cq)
{
    struct fake_cq *it = (struct fake_cq *)cq;

    fake_lock();
    if (it->children != 0) {
        fake_fault("a completion queue goes with %u queue pairs on it", it->children);
        fake_unlock();
        return EBUSY;
    }
    if (it->unacknowledged != 0)
        fake_fault("a completion queue goes with %u events not acknowledged: this "
                   "would wait for ever",
                   it->unacknowledged);
    fake_world.live.unacknowledged -= it->unacknowledged;
    if (cq->channel != NULL) {
        channel_forget((struct fake_channel *)cq->channel, it);
        ((struct fake_channel *)cq->channel)->children--;
    }
    fake_async_forget(cq->context, cq);
    fake_context(cq->context)->children--;
    fake_world.live.queues--;
    fake_unlock();
    free(it->ring);
    free(it);
    return 0;
}

static void queue_tell(struct fake_cq *it)
{
    struct fake_channel *channel = (struct fake_channel *)it->pub.channel;

    if (!it->armed)
        return;
    it->armed = false;
    if (channel->count == FAKE_WAITING) {
        fake_fault("nobody takes the events of a completion channel");
        return;
    }
    channel->waiting[channel->count++] = it;
    fake_fd_add(channel->pub.fd);
}

void fake_complete(struct ibv_cq *cq, const struct fake_cqe *entry)
{
    struct fake_cq *it = (struct fake_cq *)cq;
    struct ibv_async_event overrun = {.element = {.cq = cq},
                                      .event_type = IBV_EVENT_CQ_ERR};

    if (it->count == (unsigned)cq->cqe) {
        fake_fault("a completion queue of %d entries overflows", cq->cqe);
        fake_async(cq->context, &overrun);
        return;
    }
    it->ring[(it->head + it->count) % (unsigned)cq->cqe] = *entry;
    it->count++;
    if (it->count > fake_world.counters.most_in_queue)
        fake_world.counters.most_in_queue = it->count;
    queue_tell(it);
}

/* The completions of a queue pair that goes are taken out. */
void fake_queue_forget(struct ibv_cq *cq, uint32_t pair)
{
    struct fake_cq *it = (struct fake_cq *)cq;
    unsigned size = (unsigned)cq->cqe;
    unsigned kept = 0;

    for (unsigned i = 0; i < it->count; i++) {
        struct fake_cqe *from = &it->ring[(it->head + i) % size];

        if (from->pair != pair)
            it->ring[(it->head + kept++) % size] = *from;
    }
    it->count = kept;
}

static void entry_taken(const struct fake_cqe *entry)
{
    struct fake_qp *qp = fake_pair_numbered(entry->pair);

    if (qp == NULL)
        return;
    if (entry->receive)
        qp->r_freed = entry->upto;
    else
        qp->freed = entry->upto;
}

int fake_poll_cq(struct ibv_cq *cq, int most, struct ibv_wc *ret)
{
    struct fake_cq *it = (struct fake_cq *)cq;
    int count = 0;

    fake_lock();
    if (it->count > 0 && fake_fails("ibv_poll_cq"))
        count = -1;
    while (count >= 0 && count < most && it->count > 0) {
        entry_taken(&it->ring[it->head]);
        ret[count++] = it->ring[it->head].wc;
        it->head = (it->head + 1) % (unsigned)cq->cqe;
        it->count--;
    }
    fake_unlock();
    return count;
}

int fake_req_notify_cq(struct ibv_cq *cq, int solicited_only)
{
    struct fake_cq *it = (struct fake_cq *)cq;
    int problem = 0;

    fake_lock();
    if (cq->channel == NULL || solicited_only != 0)
        problem = EINVAL;
    else if (!it->armed && fake_fails("ibv_req_notify_cq"))
        problem = ENOMEM;
    else
        it->armed = true;
    fake_unlock();
    return problem;
}
