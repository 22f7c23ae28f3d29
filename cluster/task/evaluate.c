/* Evaluation in slices of the test set. */
#include "cluster/task/evaluate.h"

#include "engine/base/clock.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define SLICE                                                                          \
    250u /* test samples between two looks at the clock: under a millisecond for a     \
            small model */

double now_seconds(void)
{
    return clock_seconds();
}

/* Processor time of this thread: what the measuring takes from others, however long it
 * has to wait for them. */
static double spent_seconds(void)
{
    struct timespec spent;

    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &spent);
    return (double)spent.tv_sec + 1e-9 * (double)spent.tv_nsec;
}

int evaluator_open(const struct task *task, struct evaluator *ret,
                   struct gapless_error *error)
{
    int status;

    memset(ret, 0, sizeof *ret);
    ret->task = task;
    ret->accuracy = ret->mean_loss = (double)NAN;
    ret->done = data_count(task->data, DATA_TEST);
    ret->theta = calloc(task->model.parameters, sizeof *ret->theta);
    if (ret->theta == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for a copy of %zu parameters",
                                 task->model.parameters);
    status = model_scratch_new(&task->model, SLICE, MODEL_BLAS, &ret->scratch, error);
    if (status != GAPLESS_OK)
        evaluator_close(ret);
    return status;
}

void evaluator_close(struct evaluator *evaluator)
{
    model_scratch_free(evaluator->scratch);
    evaluator->scratch = NULL;
    free(evaluator->theta);
    evaluator->theta = NULL;
}

bool evaluator_idle(const struct evaluator *evaluator)
{
    return evaluator->done == data_count(evaluator->task->data, DATA_TEST);
}

void evaluator_start(struct evaluator *evaluator)
{
    evaluator->done = 0;
    evaluator->correct = evaluator->loss = evaluator->round_s = 0.0;
}

/* Measures the next slice: the data set with all other test samples left out. */
static void slice(struct evaluator *evaluator, uint32_t all)
{
    uint32_t left = all - evaluator->done;
    struct data part = data_test_slice(evaluator->task->data, evaluator->done,
                                       left < SLICE ? left : SLICE);
    double accuracy = 0.0, loss = 0.0;

    if (model_evaluate(&evaluator->task->model, evaluator->scratch, evaluator->theta,
                       &part, DATA_TEST, &accuracy, &loss, NULL) != GAPLESS_OK)
        loss = (double)NAN;
    evaluator->correct += accuracy * (double)part.test_count;
    evaluator->loss += loss * (double)part.test_count;
    evaluator->done += part.test_count;
}

bool evaluator_work(struct evaluator *evaluator, double seconds)
{
    uint32_t all = data_count(evaluator->task->data, DATA_TEST);
    double end = now_seconds() + seconds, before = spent_seconds();

    if (evaluator->done == all)
        return false;
    do
        slice(evaluator, all);
    while (evaluator->done < all && now_seconds() < end);
    evaluator->round_s += spent_seconds() - before;
    if (evaluator->done < all)
        return false;
    evaluator->last_s = evaluator->round_s;
    evaluator->accuracy = evaluator->correct / (double)all;
    evaluator->mean_loss = evaluator->loss / (double)all;
    return true;
}
