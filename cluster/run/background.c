/* The thread that measures. */
#include "cluster/run/background.h"

#include <signal.h>
#include <string.h>
#include <sys/resource.h>

#define SLICE_S 0.1 /* between two looks at whether to stop */

/* Waits for a round, or the end: false. */
static bool wait_for_round(struct background *background)
{
    bool go;

    (void)pthread_mutex_lock(&background->lock);
    while (!background->measuring && !background->stop)
        (void)pthread_cond_wait(&background->wake, &background->lock);
    go = !background->stop;
    (void)pthread_mutex_unlock(&background->lock);
    return go;
}

/* Ends a round, or only looks whether to go on with it. */
static bool go_on(struct background *background, bool ended)
{
    bool go;

    (void)pthread_mutex_lock(&background->lock);
    if (ended) {
        background->measuring = false;
        background->measured = true;
    }
    go = !ended && !background->stop;
    (void)pthread_mutex_unlock(&background->lock);
    return go;
}

static void *measure(void *context)
{
    struct background *background = context;
    struct evaluator *evaluator = &background->evaluator;

    (void)setpriority(PRIO_PROCESS, 0, 19); /* Linux: of this thread */
    while (wait_for_round(background)) {
        evaluator_start(evaluator);
        while (go_on(background, evaluator_work(evaluator, SLICE_S)))
            ;
    }
    return NULL;
}

/* Signals are for the thread that serves. */
static int start_thread(struct background *background)
{
    sigset_t all, before;
    int code;

    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_BLOCK, &all, &before);
    code = pthread_create(&background->thread, NULL, measure, background);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return code;
}

int background_open(const struct task *task, struct background *ret,
                    struct gapless_error *error)
{
    int status, code;

    memset(ret, 0, sizeof *ret);
    status = evaluator_open(task, &ret->evaluator, error);
    if (status != GAPLESS_OK)
        return status;
    (void)pthread_mutex_init(&ret->lock, NULL);
    (void)pthread_cond_init(&ret->wake, NULL);
    code = start_thread(ret);
    ret->open = code == 0;
    if (ret->open)
        return GAPLESS_OK;
    evaluator_close(&ret->evaluator);
    return gapless_error_set(error, GAPLESS_SYSTEM, code,
                             "cannot start a thread that measures the accuracy");
}

void background_close(struct background *background)
{
    if (!background->open)
        return;
    (void)pthread_mutex_lock(&background->lock);
    background->stop = true;
    (void)pthread_cond_signal(&background->wake);
    (void)pthread_mutex_unlock(&background->lock);
    (void)pthread_join(background->thread, NULL);
    (void)pthread_cond_destroy(&background->wake);
    (void)pthread_mutex_destroy(&background->lock);
    evaluator_close(&background->evaluator);
    background->open = false;
}

bool background_idle(struct background *background)
{
    bool idle;

    (void)pthread_mutex_lock(&background->lock);
    idle = background->open && !background->measuring && !background->measured;
    (void)pthread_mutex_unlock(&background->lock);
    return idle;
}

void background_start(struct background *background, const float *theta)
{
    struct evaluator *evaluator = &background->evaluator;

    memcpy(evaluator->theta, theta,
           evaluator->task->model.parameters * sizeof *evaluator->theta);
    (void)pthread_mutex_lock(&background->lock);
    background->measuring = true;
    (void)pthread_cond_signal(&background->wake);
    (void)pthread_mutex_unlock(&background->lock);
}

bool background_take(struct background *background)
{
    bool measured;

    (void)pthread_mutex_lock(&background->lock);
    measured = background->measured;
    background->measured = false;
    (void)pthread_mutex_unlock(&background->lock);
    return measured;
}
