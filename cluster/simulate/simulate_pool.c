/* What the threads of a simulation need: each the buffers of one batch, and others to
 * measure a part of the test set. The two are not shared: gradients that are due later
 * go on being computed while the simulation stands still to be measured. */
#include "cluster/simulate/simulate.h"

#include "engine/base/array.h"
#include "engine/base/machine.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define SLICE 250u /* test samples measured at once: what the sums are made of */
#define THREADS_MAX 1024u

static int thread_open(const struct task *task, enum model_ops ops,
                       struct pool_thread *ret, struct gapless_error *error)
{
    uint32_t batch = u32_least(task->sampler.batch, task->sampler.samples);
    int status;

    ret->index = calloc(batch, sizeof *ret->index);
    ret->x = calloc((size_t)batch * task->data->features, sizeof *ret->x);
    ret->label = calloc(batch, sizeof *ret->label);
    if (ret->index == NULL || ret->x == NULL || ret->label == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for a batch of %u samples a thread", batch);
    status = model_scratch_new(&task->model, batch, ops, &ret->scratch, error);
    if (status == GAPLESS_OK)
        status = model_scratch_new(&task->model, SLICE, ops, &ret->measure, error);
    return status;
}

/* Parts in which the test set is measured. */
static uint32_t slices_of(const struct task *task)
{
    struct workload_about about;

    if (task->data != NULL)
        return (data_count(task->data, DATA_TEST) + SLICE - 1) / SLICE;
    if (task->workload == NULL)
        return 0;
    workload_about(task->workload, &about);
    return about.parts;
}

int pool_open(const struct task *task, uint32_t threads, enum model_ops ops,
              struct pool *ret, struct gapless_error *error)
{
    struct pool pool = {
        .task = task, .threads = threads, .lock = PTHREAD_MUTEX_INITIALIZER};
    int status = GAPLESS_OK;

    if (threads == 0)
        pool.threads = task->has_toy ? 1 : u32_least(machine_processors(), THREADS_MAX);
    pool.slices = slices_of(task);
    pool.thread = calloc(pool.threads, sizeof *pool.thread);
    pool.correct = calloc(pool.slices + 1, sizeof *pool.correct);
    pool.loss = calloc(pool.slices + 1, sizeof *pool.loss);
    pool.weight = calloc(pool.slices + 1, sizeof *pool.weight);
    if (pool.thread == NULL || pool.correct == NULL || pool.loss == NULL ||
        pool.weight == NULL) {
        pool_close(&pool);
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory");
    }
    if (task->workload != NULL)
        status = workload_threads(task->workload, pool.threads, error);
    for (uint32_t i = 0; status == GAPLESS_OK && task->data != NULL && i < pool.threads;
         i++)
        status = thread_open(task, ops, &pool.thread[i], error);
    if (status != GAPLESS_OK) {
        pool_close(&pool);
        return status;
    }
    *ret = pool;
    return GAPLESS_OK;
}

void pool_close(struct pool *pool)
{
    for (uint32_t i = 0; pool->thread != NULL && i < pool->threads; i++) {
        model_scratch_free(pool->thread[i].scratch);
        model_scratch_free(pool->thread[i].measure);
        free(pool->thread[i].index);
        free(pool->thread[i].x);
        free(pool->thread[i].label);
    }
    for (size_t i = 0; i < pool->locals; i++)
        local_free(pool->local[i]);
    free(pool->local);
    free(pool->thread);
    free(pool->correct);
    free(pool->loss);
    free(pool->weight);
    *pool = (struct pool){.task = NULL};
}

static void fail(struct pool *pool, const struct gapless_error *reason)
{
    (void)pthread_mutex_lock(&pool->lock);
    if (pool->failure.status == GAPLESS_OK)
        pool->failure = *reason;
    (void)pthread_mutex_unlock(&pool->lock);
}

bool pool_failed(struct pool *pool, struct gapless_error *ret)
{
    (void)pthread_mutex_lock(&pool->lock);
    *ret = pool->failure;
    (void)pthread_mutex_unlock(&pool->lock);
    return ret->status != GAPLESS_OK;
}

static double foreign_gradient(struct pool *pool, uint32_t thread, uint64_t batch,
                               const float *params, float *grad)
{
    struct gapless_error reason = {0};
    double loss = (double)NAN;

    if (workload_gradient(pool->task->workload, thread, batch, params, grad, &loss,
                          &reason) != GAPLESS_OK) {
        fail(pool, &reason);
        grad[0] = NAN;
    }
    return loss;
}

double pool_gradient(void *context, uint32_t thread, uint64_t batch,
                     const float *params, float *grad)
{
    struct pool *pool = context;
    const struct task *task = pool->task;
    const struct pool_thread *own = &pool->thread[thread];
    uint32_t count;

    if (task->workload != NULL)
        return foreign_gradient(pool, thread, batch, params, grad);
    if (task->has_toy)
        return toy_gradient(&task->toy, task->job.seed, batch, params, grad);
    sampler_batch(&task->sampler, batch, own->index, &count);
    data_gather(task->data, DATA_TRAIN, own->index, count, own->x, own->label);
    return model_gradient(&task->model, own->scratch, params, own->x, own->label, count,
                          grad);
}

/* The state of the worker that joined as this one; NULL: no memory. */
static struct local *local_of(struct pool *pool, uint32_t joined)
{
    struct local **local, *ret = NULL;

    (void)pthread_mutex_lock(&pool->lock);
    local = array_room(pool->local, &pool->locals_room, joined + 1u, sizeof *local);
    if (local != NULL) {
        pool->local = local;
        while (pool->locals <= joined)
            local[pool->locals++] = NULL;
        ret = local[joined];
    }
    if (local != NULL && ret == NULL &&
        local_new(&pool->plan, &pool->task->shape, &ret, NULL) == GAPLESS_OK)
        local[joined] = ret;
    (void)pthread_mutex_unlock(&pool->lock);
    return ret;
}

struct pool_place {
    struct pool *pool;
    uint32_t thread;
};

static int one_gradient(void *context, uint64_t batch, const float *params, float *grad,
                        double *ret_loss, struct gapless_error *error)
{
    const struct pool_place *place = context;

    (void)error;
    *ret_loss = pool_gradient(place->pool, place->thread, batch, params, grad);
    return GAPLESS_OK;
}

double pool_local(void *context, uint32_t thread, uint32_t joined, uint64_t batch,
                  uint32_t steps, const float *params, float *grad)
{
    struct pool_place place = {.pool = context, .thread = thread};
    struct local *local = local_of(place.pool, joined);
    double loss = (double)NAN;

    if (local == NULL)
        grad[0] = NAN;
    else
        (void)local_exchange(local, batch, steps, params, one_gradient, &place, grad,
                             &loss, NULL);
    return loss;
}

/* ---- measuring ----------------------------------------------------------- */

struct measuring {
    struct pool *pool;
    const float *params;
    uint32_t number; /* of the thread: takes each so-many-th slice */
    pthread_t thread;
    bool started;
};

/* The data set with all other test samples left out. */
static void measure_slice(const struct measuring *m, uint32_t slice)
{
    const struct task *task = m->pool->task;
    uint32_t from = slice * SLICE;
    struct data part = data_test_slice(task->data, from,
                                       u32_least(task->data->test_count - from, SLICE));
    double accuracy = 0.0, loss = 0.0;

    if (model_evaluate(&task->model, m->pool->thread[m->number].measure, m->params,
                       &part, DATA_TEST, &accuracy, &loss, NULL) != GAPLESS_OK)
        loss = (double)NAN;
    m->pool->correct[slice] = accuracy * (double)part.test_count;
    m->pool->loss[slice] = loss * (double)part.test_count;
    m->pool->weight[slice] = (double)part.test_count;
}

/* The same of a workload. */
static void measure_part(const struct measuring *m, uint32_t part)
{
    struct workload_measured measured = {.loss = (double)NAN, .correct = (double)NAN};
    struct gapless_error reason = {0};

    if (workload_measure(m->pool->task->workload, m->number, part, m->params, &measured,
                         &reason) != GAPLESS_OK)
        fail(m->pool, &reason);
    m->pool->correct[part] = measured.correct * measured.weight;
    m->pool->loss[part] = measured.loss * measured.weight;
    m->pool->weight[part] = measured.weight;
}

static void measure_one(const struct measuring *m, uint32_t slice)
{
    if (m->pool->task->workload != NULL)
        measure_part(m, slice);
    else
        measure_slice(m, slice);
}

static void *measure_share(void *context)
{
    const struct measuring *m = context;

    for (uint32_t i = m->number; i < m->pool->slices; i += m->pool->threads)
        measure_one(m, i);
    return NULL;
}

/* All slices; a thread that cannot be started is stood in for by this one. */
static void measure_all(struct pool *pool, const float *params)
{
    uint32_t threads = u32_least(pool->threads, pool->slices);
    struct measuring *share = calloc(threads, sizeof *share);
    struct measuring alone = {.pool = pool, .params = params};

    for (uint32_t i = 0; share != NULL && i < threads; i++) {
        share[i] = (struct measuring){.pool = pool, .params = params, .number = i};
        share[i].started = i > 0 && pthread_create(&share[i].thread, NULL,
                                                   measure_share, &share[i]) == 0;
    }
    for (uint32_t i = 0; share != NULL && i < threads; i++)
        if (!share[i].started)
            (void)measure_share(&share[i]);
    for (uint32_t i = 0; share != NULL && i < threads; i++)
        if (share[i].started)
            (void)pthread_join(share[i].thread, NULL);
    for (uint32_t i = 0; share == NULL && i < pool->slices; i++)
        measure_one(&alone, i);
    free(share);
}

void pool_measure(struct pool *pool, const float *params, double *ret_accuracy,
                  double *ret_loss)
{
    double correct = 0.0, loss = 0.0, all = 0.0;

    if (pool->task->has_toy) {
        *ret_accuracy = (double)NAN;
        *ret_loss =
            toy_gradient(&pool->task->toy, pool->task->job.seed, 0, params, NULL);
        return;
    }
    measure_all(pool, params);
    for (uint32_t i = 0; i < pool->slices; i++) {
        correct += pool->correct[i];
        loss += pool->loss[i];
        all += pool->weight[i];
    }
    *ret_accuracy = correct / all;
    *ret_loss = loss / all;
}
