/* Private to `gapless simulate`: many workers in one process and in virtual time.
 *
 *     point:    0        1        2        3   ...  k       the run, in gradients
 *               |--------|--------|--------|--------|--->
 *     line of   x        x        x        x        x       metrics.jsonl
 *     accuracy  x                                   x       every --evaluate-every
 *
 * Between two points the simulation goes on in short stretches, so that progress is
 * shown and Ctrl-C is heard; neither changes a bit of the result. Each step is in a
 * file of its own: simulate_input.c (what is given in lists and files),
 * simulate_replay.c (the settings of a record), simulate_pool.c (threads that compute
 * gradients and measure), simulate_run.c (the points), simulate_show.c (progress).
 */
#ifndef CLUSTER_SIMULATE_H
#define CLUSTER_SIMULATE_H

#include "cluster/terminal/canvas.h"
#include "cluster/options/options.h"
#include "cluster/task/local.h"
#include "cluster/task/results.h"
#include "cluster/task/states.h"
#include "cluster/task/run_folder.h"
#include "cluster/task/task.h"
#include "cluster/terminal/terminal.h"
#include <gapless/gapless.h>

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* ---- simulate_input.c ---------------------------------------------------- */

/* Reads --events, such as "40s kill 3; 50s leave 2; 60s join 4; 70s stall 5 for 10s":
 * malloc'ed, in order of time; of the same time in the order given. Times are seconds
 * unless they say ms or m (minutes). `workers`: how many there are at the start; only
 * they and those that join can be named. GAPLESS_INVALID says which event is wrong. */
int simulate_events(const char *text, uint32_t workers, struct gapless_incident **ret,
                    size_t *ret_count, uint32_t *ret_joins,
                    struct gapless_error *error);

/* The clock by name, or GAPLESS_CLOCK_TIMES with the times of a file: lines of a worker
 * and seconds, and comments behind #. Each of the `workers` must have one. malloc'ed.
 * GAPLESS_INVALID: neither a name nor a file; GAPLESS_CORRUPT: says the line. */
int simulate_clock(const char *text, uint32_t workers, enum gapless_clock *ret,
                   struct gapless_batch_time **ret_times, size_t *ret_count,
                   struct gapless_error *error);

/* ---- simulate_replay.c --------------------------------------------------- */

/* The settings that a record was made with, and of `given` what does not matter for the
 * result. What they point to stays until the process ends. GAPLESS_INVALID: something
 * was given on the command line that is not as it was. */
int simulate_replay(const struct settings *given, struct settings *ret,
                    struct gapless_error *error);

/* ---- simulate_pool.c ----------------------------------------------------- */

struct pool_thread {
    struct model_scratch *scratch; /* of a gradient */
    struct model_scratch *measure; /* of measuring: both may be at work at once */
    uint32_t *index;
    float *x;
    uint8_t *label;
};

struct pool {
    const struct task *task;
    struct pool_thread *thread;
    uint32_t threads;
    double *correct, *loss, *weight; /* of each slice of the test set */
    uint32_t slices;
    struct local_plan plan; /* local steps: set by who opens the pool */
    struct local **local;   /* of each worker that has joined, once it has begun */
    size_t locals, locals_room;
    pthread_mutex_t lock;         /* of these, and: */
    struct gapless_error failure; /* of a workload: the first; status 0: none */
};

/* threads: 0: one a processor that this process may use; a test function is done with
 * before a second thread has heard of it, and gets one. A workload gets a process for each. */
int pool_open(const struct task *task, uint32_t threads, enum model_ops ops,
              struct pool *ret, struct gapless_error *error);
void pool_close(struct pool *pool);
/* For struct gapless_simulation_config; context: the pool. */
double pool_gradient(void *context, uint32_t thread, uint64_t batch,
                     const float *params, float *grad);
/* The same with local steps. One whose state finds no memory gives what is not finite. */
double pool_local(void *context, uint32_t thread, uint32_t joined, uint64_t batch,
                  uint32_t steps, const float *params, float *grad);
/* Has a workload failed? The error says how; then gradients and measures are not finite. */
bool pool_failed(struct pool *pool, struct gapless_error *ret);
/* Accuracy and mean loss over the test set, by all threads; the same bits for any
 * number of them. Of a test function its value, and no accuracy. */
void pool_measure(struct pool *pool, const float *params, double *ret_accuracy,
                  double *ret_loss);

/* ---- simulate_show.c ----------------------------------------------------- */

struct progress {
    struct terminal terminal;
    bool quiet, drawn;
    double due;
    struct canvas canvas;
};

/* What is shown. */
struct progress_facts {
    const char *rule;
    uint32_t workers;
    uint64_t gradients, total;
    double real_s, virtual_s;
    double loss, accuracy; /* NaN: none yet */
};

void progress_open(struct progress *progress, bool quiet, bool no_color);
/* Draws the line, or prints one into a log if it is time. */
void progress_show(struct progress *progress, const struct progress_facts *facts);
/* Leaves the line where it is. */
void progress_leave(struct progress *progress);
/* For the terminal: one line, without its end. */
void progress_paint(struct canvas *canvas, const struct progress_facts *facts,
                    unsigned width, bool utf8, bool color);
/* For a log. */
void progress_line(const struct progress_facts *facts, char *ret, size_t max);

/* ---- simulate_run.c ------------------------------------------------------ */

struct simulate {
    struct settings settings;
    int argc;
    char **argv;
    struct task task;
    bool no_data; /* the data set is not on this machine */
    struct pool pool;
    struct gapless_simulation_config config;
    struct gapless_simulation *simulation;
    uint64_t total;
    struct states states;
    uint64_t save_every,
        save_at;         /* gradients: between two states, of the next; 0: none */
    uint64_t resumed_at; /* gradients that were there */
    char folder[RESULTS_PATH_MAX];
    struct run_folder hold; /* on the folder */
    char run_id[RUN_ID_BYTES];
    char started[32];
    struct results results;
    bool begun; /* the files of an earlier run were set aside */
    struct progress progress;
    struct progress_facts facts;
    double start;    /* real time */
    uint64_t stride; /* gradients of the next stretch */

    struct gapless_stats stats;          /* as they are now */
    struct gapless_simulation_stats sim; /* of them */
    double half_master_s;                /* when half of the gradients were done */
    uint64_t half_updates;
    struct gapless_stats line_stats; /* as they were at the last line... */
    double line_virtual;             /* ...and the clock */
    struct metrics_sample first;     /* the line of the start, kept until it is begun */
    struct gapless_stats first_stats;
    bool has_line;
    double accuracy, test_loss; /* as last measured, */
    uint64_t measured_at;       /* after this many gradients; UINT64_MAX: never */
    double evaluate_s;
    double grad_norm_sq_min, grad_norm_sq_last;
    double *tensor_gates; /* of each tensor */
    bool advised;         /* what the gate says of kappa was shown */
    int signal;           /* that asked for the end; 0: none */
    char failure[480];
};

/* Gradients at which line number `line` is due, where accuracy is measured every
 * `every` gradients and `parts` lines are written for each of those. */
struct simulate_points {
    uint64_t every, parts;
};
/* For a run of `total` gradients, of which `epoch` make one: at least 50 lines, where
 * it is long enough. */
struct simulate_points simulate_points_of(struct span evaluate_every, uint64_t total,
                                          double epoch);
uint64_t simulate_point(const struct simulate_points *points, uint64_t line);

/* From the start to the end; what goes wrong is kept in `failure`. */
void simulate_run(struct simulate *simulate);

#endif
