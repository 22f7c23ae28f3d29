/* gapless train --rule ssgd --group nccl: synchronous SGD on all GPUs of this machine,
 * without a master. The baseline that the rules for asynchronous workers are measured
 * against.
 *
 *     main thread              driver thread                 a thread each
 *     signals, picture,        until the end:
 *     metrics, accuracy <──── (snapshot) gpus_step ──NCCL── rank 1, 2, ...
 *
 * Each GPU is a worker with batches of its own, as in a run of rule ssgd with this many
 * workers and a master: update u takes batches u*N to u*N + N - 1, the rate is that of
 * the gradients consumed, the step is the same formula. The mean and the step happen on
 * every GPU. Where that differs: a gradient that is not finite drops the whole update;
 * the length of the run is rounded up to whole updates; lags are 0 by construction, and
 * the gap is not measured.
 */
#ifndef CLUSTER_SSGD_H
#define CLUSTER_SSGD_H

#include "cluster/gpus/gpus.h"
#include "cluster/options/options.h"
#include "cluster/task/follow.h"
#include "cluster/task/run_folder.h"
#include "cluster/task/task.h"

#include <pthread.h>
#include <signal.h>

/* Does the command line ask for this? */
bool ssgd_asked(const struct settings *settings);
/* The whole run. The exit code. */
int ssgd_train(const struct settings *settings, int argc, char **argv);

/* ---- private to ssgd*.c -------------------------------------------------- */

struct ssgd {
    struct settings settings;
    int argc;
    char **argv;
    char folder[RESULTS_PATH_MAX];
    struct run_folder hold; /* on it */
    char run_id[RUN_ID_BYTES];
    struct task task;
    float *initial;
    struct gpus *gpus;
    struct gapless_schedule schedule;
    uint64_t total; /* gradients: whole updates */
    uint32_t size;
    struct evaluator evaluator;
    struct view view;
    struct view_facts facts;
    struct follow follow;
    struct gapless_worker_stats *worker;
    sigset_t signals;
    double start;
    bool evaluating;
    int signal; /* that asked for the end; 0: none */
    double parameters_rms;
    /* shared with the driver */
    pthread_mutex_t lock;
    struct gapless_stats stats;
    double last_loss, began;
    bool stop, want, have, ended; /* want: a snapshot; have: it was made */
    struct gapless_error failure; /* status 0: none */
};

/* ssgd_drive.c: the driver's thread; its argument is the struct ssgd. */
void *ssgd_drive(void *context);
/* A copy of what the driver says of the run, into facts and worker. True: it ended. */
bool ssgd_look(struct ssgd *run);

/* ssgd_drive.c: measures and writes what there is. The exit code. */
int ssgd_finish(struct ssgd *run);

#endif
