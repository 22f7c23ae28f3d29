/* Threads that help one other. */
#include "engine/base/team.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

struct helper {
    struct team *team;
    pthread_t thread;
    uint32_t number;
};

/* Numbers, first in, first out. */
struct fifo {
    uint32_t *entry; /* as many places as there are entries, around the end */
    uint32_t first, count;
};

struct team {
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    struct fifo put, finished;
    uint32_t entries, under_way; /* by helpers */
    team_fn *fn;
    void *context;
    bool quit;
    uint32_t threads;
    uint32_t helpers; /* that were started */
    struct helper helper[];
};

static void fifo_add(const struct team *t, struct fifo *fifo, uint32_t entry)
{
    fifo->entry[(fifo->first + fifo->count++) % t->entries] = entry;
}

static bool fifo_take(const struct team *t, struct fifo *fifo, uint32_t *ret)
{
    if (fifo->count == 0)
        return false;
    *ret = fifo->entry[fifo->first];
    fifo->first = (fifo->first + 1) % t->entries;
    fifo->count--;
    return true;
}

static void *help(void *argument)
{
    struct helper *h = argument;
    struct team *t = h->team;
    uint32_t entry;

    (void)pthread_mutex_lock(&t->lock);
    while (!t->quit) {
        if (!fifo_take(t, &t->put, &entry)) {
            (void)pthread_cond_wait(&t->work, &t->lock);
            continue;
        }
        t->under_way++;
        (void)pthread_mutex_unlock(&t->lock);
        t->fn(t->context, entry, h->number);
        (void)pthread_mutex_lock(&t->lock);
        t->under_way--;
        fifo_add(t, &t->finished, entry);
        (void)pthread_cond_signal(&t->done);
    }
    (void)pthread_mutex_unlock(&t->lock);
    return NULL;
}

static bool start(struct team *t)
{
    sigset_t all, before;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    while (t->helpers + 1 < t->threads) {
        struct helper *h = &t->helper[t->helpers];

        *h = (struct helper){.team = t, .number = t->helpers + 1};
        if (pthread_create(&h->thread, NULL, help, h) != 0)
            break;
        t->helpers++;
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return t->helpers + 1 >= t->threads;
}

struct team *team_new(uint32_t threads, uint32_t entries, team_fn *fn, void *context)
{
    struct team *ret = calloc(1, sizeof *ret + threads * sizeof *ret->helper);

    if (ret == NULL)
        return NULL;
    ret->threads = threads > 0 ? threads : 1;
    ret->entries = entries > 0 ? entries : 1;
    ret->fn = fn;
    ret->context = context;
    (void)pthread_mutex_init(&ret->lock, NULL);
    (void)pthread_cond_init(&ret->work, NULL);
    (void)pthread_cond_init(&ret->done, NULL);
    ret->put.entry = calloc(ret->entries, sizeof *ret->put.entry);
    ret->finished.entry = calloc(ret->entries, sizeof *ret->finished.entry);
    if (ret->put.entry == NULL || ret->finished.entry == NULL || !start(ret)) {
        team_free(ret);
        return NULL;
    }
    return ret;
}

uint32_t team_threads(const struct team *team)
{
    return team->threads;
}

void team_put(struct team *t, uint32_t entry)
{
    (void)pthread_mutex_lock(&t->lock);
    fifo_add(t, &t->put, entry);
    if (t->helpers > 0)
        (void)pthread_cond_signal(&t->work);
    (void)pthread_mutex_unlock(&t->lock);
}

bool team_take(struct team *t, uint32_t *ret)
{
    bool any;

    (void)pthread_mutex_lock(&t->lock);
    any = fifo_take(t, &t->put, ret);
    (void)pthread_mutex_unlock(&t->lock);
    return any;
}

bool team_done(struct team *t, bool wait, uint32_t *ret)
{
    bool any;

    (void)pthread_mutex_lock(&t->lock);
    while (wait && t->finished.count == 0 &&
           (t->under_way > 0 || (t->helpers > 0 && t->put.count > 0)))
        (void)pthread_cond_wait(&t->done, &t->lock);
    any = fifo_take(t, &t->finished, ret);
    (void)pthread_mutex_unlock(&t->lock);
    return any;
}

void team_drop(struct team *t)
{
    (void)pthread_mutex_lock(&t->lock);
    t->put.count = 0;
    while (t->under_way > 0)
        (void)pthread_cond_wait(&t->done, &t->lock);
    t->finished.count = 0;
    (void)pthread_mutex_unlock(&t->lock);
}

void team_free(struct team *t)
{
    if (t == NULL)
        return;
    (void)pthread_mutex_lock(&t->lock);
    t->put.count = 0;
    t->quit = true;
    (void)pthread_cond_broadcast(&t->work);
    (void)pthread_mutex_unlock(&t->lock);
    for (uint32_t i = 0; i < t->helpers; i++)
        (void)pthread_join(t->helper[i].thread, NULL);
    (void)pthread_cond_destroy(&t->done);
    (void)pthread_cond_destroy(&t->work);
    (void)pthread_mutex_destroy(&t->lock);
    free(t->put.entry);
    free(t->finished.entry);
    free(t);
}
