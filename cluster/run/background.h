/* An evaluator in a thread of its own, at the lowest priority: for a program that has
 * something better to do than to measure, as a master has.
 *
 *     master's thread                         the evaluator's
 *     background_start: a copy of theta ──>   the whole test set
 *     background_take: true, once       <──   accuracy, mean loss
 */
#ifndef CLUSTER_BACKGROUND_H
#define CLUSTER_BACKGROUND_H

#include "cluster/task/evaluate.h"

#include <pthread.h>
#include <stdbool.h>

struct background {
    struct evaluator evaluator; /* the thread's, from background_start to _take */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool open;      /* there is a thread */
    bool measuring; /* it has a round to do */
    bool measured;  /* it has done one that was not taken */
    bool stop;
};

/* The task must outlive it. */
int background_open(const struct task *task, struct background *ret,
                    struct gapless_error *error);
/* A background that was never opened may be closed. */
void background_close(struct background *background);
/* True: background_start may be called. */
bool background_idle(struct background *background);
/* Copies the parameters, and measures them from now on. */
void background_start(struct background *background, const float *theta);
/* True once after each round: the evaluator has new figures. */
bool background_take(struct background *background);

#endif
