/* Threads that go through a list together. */
#include "engine/base/team.h"

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>

struct helper {
    struct team *team;
    pthread_t thread;
    uint32_t number;
};

struct team {
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    uint32_t next, count, under_way; /* entries */
    team_fn *fn;
    void *context;
    bool quit;
    uint32_t threads;
    uint32_t helpers; /* that were started */
    struct helper helper[];
};

/* Does what is left of the list. With the lock held, which is let go meanwhile. */
static void work_on(struct team *t, uint32_t thread)
{
    while (t->next < t->count) {
        uint32_t index = t->next++;

        t->under_way++;
        (void)pthread_mutex_unlock(&t->lock);
        t->fn(t->context, index, thread);
        (void)pthread_mutex_lock(&t->lock);
        t->under_way--;
    }
}

static void *help(void *argument)
{
    struct helper *h = argument;
    struct team *t = h->team;

    (void)pthread_mutex_lock(&t->lock);
    while (!t->quit) {
        work_on(t, h->number);
        if (t->under_way == 0)
            (void)pthread_cond_signal(&t->done);
        (void)pthread_cond_wait(&t->work, &t->lock);
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

struct team *team_new(uint32_t threads)
{
    struct team *ret = calloc(1, sizeof *ret + threads * sizeof *ret->helper);

    if (ret == NULL)
        return NULL;
    ret->threads = threads > 0 ? threads : 1;
    (void)pthread_mutex_init(&ret->lock, NULL);
    (void)pthread_cond_init(&ret->work, NULL);
    (void)pthread_cond_init(&ret->done, NULL);
    if (!start(ret)) {
        team_free(ret);
        return NULL;
    }
    return ret;
}

uint32_t team_threads(const struct team *team)
{
    return team->threads;
}

void team_run(struct team *t, uint32_t count, team_fn *fn, void *context)
{
    (void)pthread_mutex_lock(&t->lock);
    t->next = 0;
    t->count = count;
    t->fn = fn;
    t->context = context;
    if (t->helpers > 0 && count > 1)
        (void)pthread_cond_broadcast(&t->work);
    work_on(t, 0);
    while (t->under_way > 0)
        (void)pthread_cond_wait(&t->done, &t->lock);
    (void)pthread_mutex_unlock(&t->lock);
}

void team_free(struct team *t)
{
    if (t == NULL)
        return;
    (void)pthread_mutex_lock(&t->lock);
    t->quit = true;
    (void)pthread_cond_broadcast(&t->work);
    (void)pthread_mutex_unlock(&t->lock);
    for (uint32_t i = 0; i < t->helpers; i++)
        (void)pthread_join(t->helper[i].thread, NULL);
    (void)pthread_cond_destroy(&t->done);
    (void)pthread_cond_destroy(&t->work);
    (void)pthread_mutex_destroy(&t->lock);
    free(t);
}
