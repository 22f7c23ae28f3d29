/* Private to `gapless train`: the state of a run as the launcher sees it.
 *
 *     train ── fork, exec ──> master <── shm or verbs ──> worker 0 ... N-1
 *       └────── observer ────────┘
 *
 * One thread, a tick of a tenth of a second: signals and ends of children are waited
 * for with sigtimedwait, so nothing happens asynchronously. The processes are in
 * train_workers.c, a master that died in train_restart.c, the tick and what is left when it is over in train_watch.c.
 */
#ifndef CLUSTER_TRAIN_H
#define CLUSTER_TRAIN_H

#include "cluster/launch/launch.h"
#include "cluster/options/options.h"
#include "cluster/task/follow.h"
#include "cluster/task/metrics.h"
#include "cluster/task/network.h"
#include "cluster/task/run_folder.h"
#include "cluster/task/task.h"
#include "cluster/terminal/view.h"
#include "cluster/run/worker_device.h"
#include <gapless/gapless.h>

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#define FAILURE_MAX 600
#define TRAIN_CONNECT_S 60.0 /* the master allocates first: large models take a while */

struct train {
    struct settings settings;
    int argc;
    char **argv;
    struct task task;
    int data_fd;
    char folder[RESULTS_PATH_MAX], log_folder[RESULTS_PATH_MAX];
    struct run_folder hold; /* on the folder */
    char run_id[RUN_ID_BYTES];
    char address[ADDRESS_MAX];
    char token_file[32]; /* the token that was made for this run; "": none was needed */
    int token_fd;
    struct network network;
    struct child *child; /* 0: the master; 1...: the workers */
    uint32_t children;
    struct worker_places places; /* where workers compute */
    struct gapless_observer *observer;
    struct evaluator evaluator;
    struct view view;
    struct view_facts facts;
    struct follow follow;
    struct metrics metrics;
    struct gapless_worker_stats *worker;
    uint32_t worker_count;
    sigset_t signals;
    double start;
    int signal;     /* that asked for the end; 0: none */
    bool at_once;   /* a second one came */
    int64_t try_ns; /* of a connection to the master; 0: the usual */
    double stop_by, gone_since;
    uint32_t lost;           /* workers of ours that died before the end */
    uint32_t restarted;      /* of the master */
    uint64_t gradients_lost; /* by these */
    double connect_by; /* until then a master that was started again may be silent */
    double parameters_rms;
    double tensor_gates[MODEL_TENSORS_MAX];
    bool gates_known;
    bool advised;              /* what the gate says of kappa was shown */
    char failure[FAILURE_MAX]; /* "": none */
};

/* train_workers.c */
/* Before anything is started: is there what --worker-device asks for, and is it good
 * for the model? Says which GPUs, or why none. */
int train_places(struct train *train, struct gapless_error *error);
/* Starts the master and the workers. */
int train_start(struct train *train, struct gapless_error *error);
/* One process: 0 is the master. */
int train_start_one(struct train *train, uint32_t index, struct gapless_error *error);
/* Joins the master that is there as an observer, with a short bound. */
int train_observe(struct train *train, struct gapless_error *error);
/* Connects as an observer; notices if a process dies meanwhile. GAPLESS_STOPPED: asked
 * to end. */
int train_connect(struct train *train, struct gapless_error *error);
/* Notices who has ended, and says so. */
void train_workers_check(struct train *train);
/* Keeps the first failure. */
void train_fail(struct train *train, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* train_restart.c */
/* The master has died, as `what` says: keeps its last parameters; starts it again, if a state
 * and --restarts allow. False: the run is over. */
bool train_restart(struct train *train, const char *what);

/* train_watch.c */
/* Waits for a signal for so long and does what it asks for. */
void train_signals(struct train *train, double seconds);
/* Until the run is over, failed, or ended by a person. */
void train_watch(struct train *train);
/* Statistics as they are now. False: the master is gone. */
bool train_look(struct train *train);

/* Reads and measures what was trained, ends the processes, writes the files, prints the
 * table. The exit code. */
int train_finish(struct train *train);

#endif
