/* Inside of the simulator: shared by simulator.c (the run), simulator_clock.c (how long
 * a batch takes, and what happens when), simulator_jobs.c (who computes gradients) and
 * simulator_replay.c. No other file includes this.
 *
 *     events: a batch is finished,      the world of transport/sim/sim.h:
 *     an incident, a line of a record   notes that arrive at master or workers
 *                 \                       /
 *                  the earlier one happens, the clock goes there
 *
 * The master, its transport and the workers are the real ones; what is modelled is
 * time.
 */
#ifndef GAPLESS_SIMULATOR_H
#define GAPLESS_SIMULATOR_H

#include "engine/master/master.h"
#include "engine/run/record.h"
#include "transport/sim/sim.h"
#include "engine/worker/worker.h"

#include <pthread.h>

#define SIM_NONE UINT32_MAX

/* ---- simulator_clock.c: how long a batch takes --------------------------- */

struct sim_pace;

int pace_new(const struct gapless_simulation_config *config, uint32_t workers_max,
             struct sim_pace **ret, struct gapless_error *error);
void pace_free(struct sim_pace *pace);
/* Time of the next batch of the worker that joined as number `joined`, and is worker `who`. */
uint64_t pace_next(struct sim_pace *pace, uint32_t joined, uint32_t who);
/* What has been drawn of the first `joined` that joined, in bytes: multiples of 8; and back.
 * GAPLESS_CORRUPT: it is not that. */
size_t pace_bytes(const struct sim_pace *pace, uint32_t joined);
void pace_save(const struct sim_pace *pace, uint32_t joined, void *ret);
int pace_load(struct sim_pace *pace, uint32_t joined, const void *from, size_t bytes,
              struct gapless_error *error);
/* Space for one more that joins. */
int pace_join(struct sim_pace *pace, uint32_t joined, struct gapless_error *error);

/* ---- simulator_jobs.c: gradients, by one thread or several --------------- */

/* Real time, for what a simulation costs. */

enum job_state {
    JOB_NONE,
    JOB_QUEUED,
    JOB_RUNNING,
    JOB_DONE
};

/* The gradient of one worker's batch. */
struct job {
    enum job_state state;
    uint64_t due, order; /* jobs are computed in this order */
    uint64_t batch;
    uint32_t steps, joined; /* of batches from there on, by which worker */
    const float *params;
    float *grad; /* of the pool, or the worker's own where `kept` */
    double loss;
};

struct jobs;

/* `count` jobs, all JOB_NONE; gradients have `padded` floats. kept: every job has a
 * gradient buffer of its own (synchronous rules apply many at once). */
int jobs_new(const struct gapless_simulation_config *config, uint32_t count,
             size_t padded, bool kept, struct jobs **ret, struct gapless_error *error);
void jobs_free(struct jobs *jobs);
/* A batch is under way: its gradient may be computed from now on. `what` says when it is
 * due, of what, and at which parameters. */
void jobs_queue(struct jobs *jobs, uint32_t job, const struct job *what);
/* Changes when it is due. */
void jobs_postpone(struct jobs *jobs, uint32_t job, uint64_t due, uint64_t order);
/* Waits for the gradient or computes it; it stays until jobs_release of the buffer. The
 * job is JOB_NONE then. GAPLESS_NO_MEMORY. */
int jobs_take(struct jobs *jobs, uint32_t job, float **ret_grad, double *ret_loss,
              struct gapless_error *error);
/* The gradient of a job that is computed, which stays with the job; waits for one that is
 * being computed. NULL: it is not begun, or there is none. */
const float *jobs_done(struct jobs *jobs, uint32_t job, double *ret_loss);
/* A job whose gradient is known, a copy of `grad`; or, not `waits`, the buffer of one that was
 * taken. Returns the buffer. NULL: no memory. */
float *jobs_put(struct jobs *jobs, uint32_t job, const struct job *what,
                const float *grad, double loss, bool waits);
/* It is not wanted any more; waits if it is being computed. */
void jobs_cancel(struct jobs *jobs, uint32_t job);
/* The buffer may be used again. */
void jobs_release(struct jobs *jobs, float *grad);
/* Real time in gradients so far, ns; bytes of all buffers. */
uint64_t jobs_spent_ns(struct jobs *jobs);
uint64_t jobs_bytes(struct jobs *jobs);

/* ---- simulator_clock.c: a heap ------------------------------------------- */

enum sim_event_kind {
    SIM_FINISHED, /* a batch of `worker`; valid while its order is the worker's */
    SIM_INCIDENT, /* config.incidents[index] */
    SIM_REPLAY    /* record.events[index] */
};

struct sim_event {
    uint64_t at_ns, order;
    enum sim_event_kind kind;
    uint32_t worker;
    size_t index;
};

struct sim_events {
    struct sim_event *heap;
    size_t count, room;
};

/* Earliest first; at the same time the smaller order first. */
int events_add(struct sim_events *events, const struct sim_event *event,
               struct gapless_error *error);
bool events_first(const struct sim_events *events, struct sim_event *ret);
void events_drop_first(struct sim_events *events);
void events_free(struct sim_events *events);

/* ---- the simulation ------------------------------------------------------ */

/* By who, that is by slot. */
struct sim_worker {
    struct gapless_worker *worker; /* NULL: none */
    uint32_t joined;               /* the how-manieth to join */
    bool busy;                     /* a batch is under way */
    uint64_t batch;
    uint64_t finish_ns, order; /* of it */
    uint64_t stalled_ns;       /* does nothing before this time */
    bool deferred;             /* replay_defers */
    const float *computed;     /* while it is saved: its gradient, if that is there */
    double loss;               /* of that */
};

/* A gradient that was pushed and that the master has not done with. */
struct sim_pushed {
    uint32_t who, incarnation;
    uint64_t ticket;
    float *grad;
};

struct gapless_simulation {
    struct gapless_simulation_config config;
    uint32_t owner; /* the process that opened it */
    char address[64];
    struct gapless_master *master;
    struct sim_world *world;
    struct sim_worker *worker; /* workers_max */
    uint32_t workers_max, workers_now, joined;
    struct sim_pace *pace;
    struct jobs *jobs;
    struct sim_events events;
    struct sim_pushed *pushed; /* workers_max entries of room, and more if need be */
    size_t pushed_count, pushed_room;
    uint64_t order;
    bool begun, failed;
    struct gapless_error error; /* the first failure: every later call gives it */

    struct record *record; /* being replayed; NULL: none */
    size_t *record_next;   /* by event: the next of the same worker */
    size_t *record_turn;   /* by worker: its next event */
    uint32_t deferred;     /* workers that wait for a version */

    uint64_t spent_ns, master_ns;
};

/* The master does what has been delivered to it. */
int sim_master(struct gapless_simulation *s, struct gapless_error *error);
/* One more worker; number: SIM_NONE, or the one it must get. */
int sim_join(struct gapless_simulation *s, uint32_t who, bool ahead,
             struct gapless_error *error);
/* A worker leaves (says so) or is gone. */
void sim_part(struct gapless_simulation *s, uint32_t who, bool says_so);
/* Its batch is done: hands in the gradient. poison: one that is not finite. */
int sim_push(struct gapless_simulation *s, uint32_t who, bool poison,
             struct gapless_error *error);
/* What a worker does when it has got parameters: its batch is under way. */
int sim_pulled(struct gapless_simulation *s, uint32_t who, struct gapless_error *error);

/* The next thing that happens. GAPLESS_STOPPED: a record is at its end. */
int sim_step(struct gapless_simulation *s, struct gapless_error *error);
/* The master has this gradient of a worker, and has not done with it. */
int sim_pushed_add(struct gapless_simulation *s, uint32_t who, float *grad,
                   struct gapless_error *error);

/* ---- simulator_saved.c --------------------------------------------------- */
/* A new simulation goes on from a state that gapless_simulation_save has written. */
int sim_resume(struct gapless_simulation *s, const char *path,
               struct gapless_error *error);

/* ---- simulator_replay.c -------------------------------------------------- */
int replay_open(struct gapless_simulation *s, struct gapless_error *error);
void replay_close(struct gapless_simulation *s);
/* The order of the gradient that a worker will hand in next; false: none. */
bool replay_due(struct gapless_simulation *s, uint32_t who, uint64_t *ret);
/* Where all workers read one published look-ahead, each copies it when it pulls, which
 * may be some updates after it was asked to. True: this one waits for the version that
 * its next gradient says it had read; replay_deferred lets it pull when that is there.
 */
bool replay_defers(struct gapless_simulation *s, uint32_t who);
int replay_deferred(struct gapless_simulation *s, struct gapless_error *error);
int replay_event(struct gapless_simulation *s, size_t index,
                 struct gapless_error *error);

#endif
