/* Who computes the gradients: the caller alone, or it and helper threads.
 *
 * A gradient depends only on its batch and its parameters, so it may be computed any
 * time between the moment its worker got them and the moment it hands it in; a thread that
 * computes takes the one that is due first. The order in which they are handed in is
 * the clock's, so the number of threads changes nothing in the result.
 *
 * The caller computes, too: what it needs at once and no thread has begun, or, while it
 * waits for one that a helper is at, the next in line. One buffer is always left for
 * what it needs at once, so that no thread waits for a buffer that is never given back.
 */
#include "engine/simulator/simulator.h"

#include "engine/base/array.h"
#include "engine/base/clock.h"

#include <stdlib.h>
#include <string.h>

struct buffer {
    float *grad;
    bool used;
};

struct helper {
    struct jobs *jobs;
    pthread_t thread;
    uint32_t thread_number;
    bool started;
};

struct jobs {
    const struct gapless_simulation_config *config;
    size_t padded;
    bool kept;
    struct job *job;
    uint32_t count;
    uint32_t queued; /* jobs in state JOB_QUEUED */

    struct buffer *buffer;
    size_t room; /* of buffer */
    uint32_t buffers, buffers_free;
    uint32_t computing; /* jobs JOB_RUNNING */

    struct helper *helper;
    uint32_t helpers;
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    bool quit;
    uint64_t spent_ns;
};

/* ---- buffers ------------------------------------------------------------- */

/* NULL: no memory. */
static float *buffer_more(struct jobs *j)
{
    struct buffer *buffer =
        array_room(j->buffer, &j->room, j->buffers + 1, sizeof *buffer);

    if (buffer == NULL)
        return NULL;
    j->buffer = buffer;
    buffer[j->buffers] = (struct buffer){
        .grad = array_zeroed(ARRAY_LINE, j->padded * sizeof(float)), .used = true};
    if (buffer[j->buffers].grad == NULL)
        return NULL;
    return buffer[j->buffers++].grad;
}

static float *buffer_free_one(struct jobs *j)
{
    for (uint32_t b = 0; b < j->buffers; b++)
        if (!j->buffer[b].used) {
            j->buffer[b].used = true;
            j->buffers_free--;
            return j->buffer[b].grad;
        }
    return NULL;
}

/* For a job about to run; `needed`: even if there must be one more. */
static float *buffer_take(struct jobs *j, bool needed)
{
    if (j->buffers_free > (needed ? 0u : 1u))
        return buffer_free_one(j);
    return needed ? buffer_more(j) : NULL;
}

void jobs_release(struct jobs *j, float *grad)
{
    if (j->kept)
        return;
    (void)pthread_mutex_lock(&j->lock);
    for (uint32_t b = 0; b < j->buffers; b++)
        if (j->buffer[b].grad == grad) {
            j->buffer[b].used = false;
            j->buffers_free++;
        }
    if (j->queued > 0)
        (void)pthread_cond_signal(&j->work);
    (void)pthread_mutex_unlock(&j->lock);
}

/* ---- computing ----------------------------------------------------------- */

static struct job *first_queued(struct jobs *j)
{
    struct job *ret = NULL;

    for (uint32_t i = 0; j->queued > 0 && i < j->count; i++)
        if (j->job[i].state == JOB_QUEUED &&
            (ret == NULL || j->job[i].due < ret->due ||
             (j->job[i].due == ret->due && j->job[i].order < ret->order)))
            ret = &j->job[i];
    return ret;
}

/* Gives it a buffer and marks it as begun. False: there is none. */
static bool begin(struct jobs *j, struct job *job, bool needed)
{
    if (!j->kept)
        job->grad = buffer_take(j, needed);
    else if (job->grad == NULL)
        job->grad = array_zeroed(ARRAY_LINE, j->padded * sizeof(float));
    if (job->grad == NULL)
        return false;
    job->state = JOB_RUNNING;
    j->queued--;
    j->computing++;
    return true;
}

/* With the lock held, which is let go meanwhile. */
static void compute(struct jobs *j, struct job *job, uint32_t thread)
{
    const struct gapless_simulation_config *c = j->config;
    uint64_t began = clock_ns();
    double loss;

    (void)pthread_mutex_unlock(&j->lock);
    loss = c->master.local_steps > 0
               ? c->local(c->context, thread, job->joined, job->batch, job->steps,
                          job->params, job->grad)
               : c->gradient(c->context, thread, job->batch, job->params, job->grad);
    (void)pthread_mutex_lock(&j->lock);
    job->loss = loss;
    job->state = JOB_DONE;
    j->computing--;
    j->spent_ns += clock_ns() - began;
}

static void *help(void *argument)
{
    struct helper *h = argument;
    struct jobs *j = h->jobs;
    struct job *job;

    (void)pthread_mutex_lock(&j->lock);
    while (!j->quit) {
        job = first_queued(j);
        if (job == NULL || !begin(j, job, false)) {
            (void)pthread_cond_wait(&j->work, &j->lock);
            continue;
        }
        compute(j, job, h->thread_number);
        (void)pthread_cond_signal(&j->done);
    }
    (void)pthread_mutex_unlock(&j->lock);
    return NULL;
}

void jobs_queue(struct jobs *j, uint32_t who, const struct job *what)
{
    struct job *job = &j->job[who];
    float *grad;

    (void)pthread_mutex_lock(&j->lock);
    grad = job->grad;
    *job = *what;
    job->grad = grad;
    job->state = JOB_QUEUED;
    j->queued++;
    if (j->helpers > 0)
        (void)pthread_cond_signal(&j->work);
    (void)pthread_mutex_unlock(&j->lock);
}

void jobs_postpone(struct jobs *j, uint32_t who, uint64_t due, uint64_t order)
{
    (void)pthread_mutex_lock(&j->lock);
    j->job[who].due = due;
    j->job[who].order = order;
    (void)pthread_mutex_unlock(&j->lock);
}

/* While a helper is at `job`: the next in line, if a buffer can be spared. */
static void wait_for(struct jobs *j, const struct job *job)
{
    struct job *next;

    while (job->state == JOB_RUNNING) {
        next = first_queued(j);
        if (next != NULL && begin(j, next, false))
            compute(j, next, 0);
        else
            (void)pthread_cond_wait(&j->done, &j->lock);
    }
}

int jobs_take(struct jobs *j, uint32_t who, float **ret_grad, double *ret_loss,
              struct gapless_error *error)
{
    struct job *job = &j->job[who];

    (void)pthread_mutex_lock(&j->lock);
    if (job->state == JOB_QUEUED && begin(j, job, true))
        compute(j, job, 0);
    wait_for(j, job);
    if (job->state == JOB_DONE) {
        *ret_grad = job->grad;
        *ret_loss = job->loss;
        job->state = JOB_NONE;
        job->grad = j->kept ? job->grad : NULL;
        (void)pthread_mutex_unlock(&j->lock);
        return GAPLESS_OK;
    }
    (void)pthread_mutex_unlock(&j->lock);
    return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                             "no memory for a gradient of %zu KiB",
                             j->padded * sizeof(float) >> 10);
}

const float *jobs_done(struct jobs *j, uint32_t who, double *ret_loss)
{
    const struct job *job = &j->job[who];
    const float *ret = NULL;

    (void)pthread_mutex_lock(&j->lock);
    wait_for(j, job);
    if (job->state == JOB_DONE) {
        ret = job->grad;
        *ret_loss = job->loss;
    }
    (void)pthread_mutex_unlock(&j->lock);
    return ret;
}

float *jobs_put(struct jobs *j, uint32_t who, const struct job *what, const float *grad,
                double loss, bool waits)
{
    struct job *job = &j->job[who];
    float *buffer = job->grad;

    (void)pthread_mutex_lock(&j->lock);
    if (!j->kept)
        buffer = buffer_take(j, true);
    else if (buffer == NULL)
        buffer = array_zeroed(ARRAY_LINE, j->padded * sizeof(float));
    if (buffer != NULL) {
        memcpy(buffer, grad, j->padded * sizeof *grad);
        *job = *what;
        job->loss = loss;
        job->state = waits ? JOB_DONE : JOB_NONE;
        job->grad = waits || j->kept ? buffer : NULL;
    }
    (void)pthread_mutex_unlock(&j->lock);
    return buffer;
}

void jobs_cancel(struct jobs *j, uint32_t who)
{
    struct job *job = &j->job[who];
    float *grad = NULL;

    (void)pthread_mutex_lock(&j->lock);
    wait_for(j, job);
    if (job->state == JOB_QUEUED)
        j->queued--;
    else if (job->state == JOB_DONE && !j->kept)
        grad = job->grad;
    job->state = JOB_NONE;
    job->grad = j->kept ? job->grad : NULL;
    (void)pthread_mutex_unlock(&j->lock);
    if (grad != NULL)
        jobs_release(j, grad);
}

uint64_t jobs_spent_ns(struct jobs *j)
{
    uint64_t ret;

    (void)pthread_mutex_lock(&j->lock);
    ret = j->spent_ns;
    (void)pthread_mutex_unlock(&j->lock);
    return ret;
}

uint64_t jobs_bytes(struct jobs *j)
{
    uint64_t buffers = 0;

    (void)pthread_mutex_lock(&j->lock);
    for (uint32_t i = 0; j->kept && i < j->count; i++)
        buffers += j->job[i].grad != NULL ? 1 : 0;
    buffers += j->buffers;
    (void)pthread_mutex_unlock(&j->lock);
    return buffers * j->padded * sizeof(float);
}

/* ---- open and close ------------------------------------------------------ */

static int start_helpers(struct jobs *j, struct gapless_error *error)
{
    uint32_t threads = j->config->threads;
    int os;

    j->helper = calloc(threads, sizeof *j->helper);
    if (j->helper == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for threads");
    for (; j->helpers + 1 < threads; j->helpers++) {
        struct helper *h = &j->helper[j->helpers];

        h->jobs = j;
        h->thread_number = j->helpers + 1;
        os = pthread_create(&h->thread, NULL, help, h);
        if (os != 0)
            return gapless_error_set(
                error, GAPLESS_SYSTEM, os,
                "cannot start thread %u of %u: ask for fewer threads", h->thread_number,
                threads);
        h->started = true;
    }
    return GAPLESS_OK;
}

int jobs_new(const struct gapless_simulation_config *config, uint32_t count,
             size_t padded, bool kept, struct jobs **ret, struct gapless_error *error)
{
    struct jobs *j = calloc(1, sizeof *j);
    int status = GAPLESS_OK;

    if (j == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for a simulation");
    j->config = config;
    j->count = count;
    j->padded = padded;
    j->kept = kept;
    (void)pthread_mutex_init(&j->lock, NULL);
    (void)pthread_cond_init(&j->work, NULL);
    (void)pthread_cond_init(&j->done, NULL);
    j->job = calloc(count, sizeof *j->job);
    /* Two for a thread: one that is computed, one that waits to be handed in. */
    for (uint32_t b = 0; !kept && b < 2 * config->threads; b++) {
        float *grad = config->threads == 1 && b == 1 ? NULL : buffer_more(j);

        if (grad == NULL && config->threads > 1)
            status = GAPLESS_NO_MEMORY;
        if (grad != NULL)
            jobs_release(j, grad);
    }
    if (j->job == NULL || status != GAPLESS_OK)
        status = gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                   "no memory for the gradients of %u threads",
                                   config->threads);
    if (status == GAPLESS_OK && config->threads > 1)
        status = start_helpers(j, error);
    if (status != GAPLESS_OK) {
        jobs_free(j);
        return status;
    }
    *ret = j;
    return GAPLESS_OK;
}

void jobs_free(struct jobs *j)
{
    if (j == NULL)
        return;
    (void)pthread_mutex_lock(&j->lock);
    j->quit = true;
    (void)pthread_cond_broadcast(&j->work);
    (void)pthread_mutex_unlock(&j->lock);
    for (uint32_t h = 0; j->helper != NULL && h < j->helpers; h++)
        if (j->helper[h].started)
            (void)pthread_join(j->helper[h].thread, NULL);
    for (uint32_t b = 0; b < j->buffers; b++)
        free(j->buffer[b].grad);
    for (uint32_t i = 0; j->kept && j->job != NULL && i < j->count; i++)
        free(j->job[i].grad);
    free(j->buffer);
    free(j->helper);
    free(j->job);
    (void)pthread_cond_destroy(&j->work);
    (void)pthread_cond_destroy(&j->done);
    (void)pthread_mutex_destroy(&j->lock);
    free(j);
}
