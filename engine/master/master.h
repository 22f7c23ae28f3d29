/* Inside of the master: shared by master.c (open, loop, close), passes.c (passes
 * over memory) and membership.c (who comes and goes). No other file includes this.
 */
#ifndef GAPLESS_MASTER_H
#define GAPLESS_MASTER_H

#include "engine/run/backends.h"
#include "engine/compute/compute.h"
#include "engine/compute/matrices.h"
#include "engine/rules/element.h"
#include "engine/run/layout.h"
#include "engine/master/core.h"
#include "engine/master/queue.h"
#include "engine/run/record.h"
#include "engine/run/schedule.h"
#include "engine/run/wire.h"

#define MASTER_NO_WORKER UINT32_MAX
#define MASTER_NO_PEER UINT32_MAX
/* The `all` vector is summed afresh after this many updates of a range: fp32 drift
 * (algorithms, 1.8). */
#define MASTER_RESUM_EVERY 100000u
/* RULE_ADAM: ... and every 100 rounds of all workers. Where an element's gradients cease,
 * its square fades and the rounding that is left in `all` does not: divided by the root
 * of the square it would become a step. */
#define MASTER_RESUM_ROUNDS 100u
#define MASTER_EVENTS 64

enum master_role {
    ROLE_NONE,
    ROLE_UNKNOWN,
    ROLE_WORKER,
    ROLE_OBSERVER
};

/* Who is behind a peer number of the transport. */
struct master_peer {
    enum master_role role;
    uint32_t worker;
    uint64_t since_ns; /* ROLE_UNKNOWN: when it connected */
    uint64_t hello;    /* ROLE_UNKNOWN: its hello waits under this number; 0: none */
    uint32_t pid;      /* 0: unknown */
};

/* A worker's memory. */
struct master_slot {
    struct tp_region
        region; /* head, sent, grad: what the worker maps; made at the first use */
    struct slot_head *head;
    const struct slot_push *push;
    const uint64_t *reported; /* RULE_PUBLISHED: versions that the worker copied */
    const double *dots;       /* and of each block <grad, what it copied> */
    float *sent;              /* NULL under RULE_PUBLISHED */
    const float *grad;
    float *own;   /* NULL if the rule has none */
    float *mean;  /* RULE_MATRIX with a sum: of matrices; else NULL */
    tp_peer peer; /* MASTER_NO_PEER: none */
    bool left;    /* said bye: its departure is no loss */
    bool kept;    /* of a state: a worker that comes goes on with these vectors */
    /* of the present message, over its ranges so far; < 0: not measured */
    double gap_sq;
    double step_sq; /* RULE_GLOBAL, likewise */
    double lag_sum;
    uint32_t steps;   /* batches of the present message */
    double factor;    /* on its rate, as the worker says; negative: it says no such
                         thing, and the message counts as not finite */
    double gate_sum;  /* RULE_BLOCK, over elements */
    bool gate_counts; /* the warm-up is over */
    bool gate_tells;  /* see struct gate_moment; never with local steps */
    uint64_t check_ns, pass_ns;
    double loss;   /* that came with it */
    bool complete; /* applied in all ranges; pass_record has not counted it yet */
};

/* A gradient of a worker, or one range of it, that is being applied. */
struct pass_work {
    uint32_t worker, range; /* of the core; CORE_ALL: all ranges */
    uint32_t ranges;        /* applied, from `range` or 0 on */
    uint64_t took_ns;       /* of other threads, or later than pass_apply */
};

/* How passes are carried out, and when what they gave is there to be seen: at once, on
 * this processor (passes_cpu.c), or once a GPU is through (passes_gpu.c). Every entry
 * is filled. `worker` and `range` are of the core.
 *
 *   prepare
 *   for each batch of events:  begin            what it brings may begin to move
 *                              passes, notify   while its events are performed
 *                              drain            all of it is done, counted and sent,
 *                                               but for what complete left to matrices
 *   detach, close
 *
 * What applies a gradient calls pass_counted with its sums: at once, or before the
 * worker is notified. An entry may drop a worker that does not read its notes
 * (master_notify), which adds an event to the queue; it never steps the core. */
struct pass_ops {
    bool
        sound; /* what a measure returns is right: no device that may have failed made it */
    /* The endpoint listens, no peer is served yet: prepares what peers will reach. */
    int (*prepare)(struct gapless_master *m, const struct gapless_master_config *config,
                   struct gapless_error *error);
    /* A worker's vectors beside its slot: at the first use of the slot; zeroed at every
     * use. */
    int (*slot_memory)(struct gapless_master *m, uint32_t worker,
                       struct gapless_error *error);
    /* The slot's region is freed next. */
    void (*slot_release)(struct gapless_master *m, uint32_t worker);
    /* These events are performed next: what they bring may begin to move. */
    void (*begin)(struct gapless_master *m, const struct tp_event *events, int count);
    /* A note to a worker, once all that was asked for so far is done. */
    void (*notify)(struct gapless_master *m, uint32_t worker, uint32_t note);
    /* Waits until all that was asked for is done and counted, and sends its notes; or
     * fails, and nothing more is sent. */
    int (*drain)(struct gapless_master *m, struct gapless_error *error);
    /* Is a gradient of this worker not counted yet? */
    bool (*pending)(const struct gapless_master *m, uint32_t worker);
    /* Makes m->theta the parameters after all that is drained. */
    void (*theta)(const struct gapless_master *m);

    /* Is the gradient of a worker finite, in ranges [first, end)? */
    bool (*finite)(struct gapless_master *m, uint32_t worker, uint32_t first,
                   uint32_t end);
    /* One unit of a gradient; all units of a range one after another. `warm_up`: it is of the
     * last range, and pass_warm_up may be called. Here and below: of a running average
     * (pass_averages) nothing but `average` of the scalars counts. */
    void (*apply)(struct gapless_master *m, uint32_t worker,
                  const struct layout_unit *unit, const struct step_scalars *scalars,
                  bool warm_up);
    /* The ranges of a worker's gradient that were asked for go on now, if they have not
     * yet: nothing else is asked for before. True: pass_applied will be called with this
     * work, by matrices_go_on, and nothing is asked for in its range before. */
    bool (*complete)(struct gapless_master *m, const struct pass_work *work);
    /* Sum of gap^2 of a unit (RULE_GLOBAL); never of a running average. */
    double (*measure)(struct gapless_master *m, uint32_t worker,
                      const struct layout_unit *unit,
                      const struct step_scalars *scalars);
    /* A unit of a round of `count` workers; gap_sq of the first. */
    double (*round)(struct gapless_master *m, const struct layout_unit *unit,
                    const uint32_t *workers, uint32_t count,
                    const struct step_scalars *scalars);
    void (*look_ahead)(struct gapless_master *m, uint32_t worker,
                       const struct layout_unit *unit,
                       const struct step_scalars *scalars);
    /* Takes a worker's velocity out, if the rule has one. What the worker left behind is
     * done and counted then: its slot may be another's next. */
    void (*forget)(struct gapless_master *m, uint32_t worker);
    /* all = sum of the owns of these workers. */
    void (*resum)(struct gapless_master *m, uint32_t range, const uint32_t *workers,
                  uint32_t count);
    /* Gives a worker a velocity: own = all/count, and all += own; and the mean of the
     * `mean` of these workers, where there is one. */
    void (*inherit)(struct gapless_master *m, uint32_t worker, uint32_t range,
                    const uint32_t *workers, uint32_t count);

    /* Where passes run, for people. */
    const char *(*describe)(const struct gapless_master *m);
    /* Host memory is about to go: nothing reaches it any more. */
    void (*detach)(struct gapless_master *m);
    /* After the transport is closed, whose cards may reach vectors until then. */
    void (*close)(struct gapless_master *m);
};

struct master_matrices; /* of matrices.c only */
struct master_waiting;  /* of waiting.c only */
struct saving;          /* of saving.c only */
struct saving;          /* of saving.c only */
struct master_gpu;      /* of passes_gpu.c and open_gpu.c only */

struct gapless_master {
    uint32_t owner; /* the process that opened it */
    const struct transport *transport;
    struct tp *tp;
    const struct compute *compute;
    const struct pass_ops *passes;
    struct master_gpu *gpu; /* of passes_gpu.c and open_gpu.c; others ask `passes` */
    const struct rule *rule;
    struct settings settings;
    struct gapless_schedule schedule;
    uint64_t gradients; /* length of the run */
    struct layout layout;
    char *job;
    double clip_norm, weight_decay;
    bool whole_gate; /* RULE_BLOCK: one gate for all blocks of a gradient */
    bool decay_all;
    uint32_t elastic_period;
    bool ssgd_scale_rate;
    uint32_t gap_every;
    struct master_core *core;
    struct event_queue queue; /* of the events that wait for the core */
    struct master_core
        *warm_up_core; /* a copy to try a step on; NULL if it would be large */

    struct tp_region shared_stats_region, theta_region, copy_region, published_region;
    float *published[2]; /* RULE_PUBLISHED: what is sent, of version v in place v % 2 */
    size_t second_at;    /* of the second place in the region */
    uint64_t copied_ns;  /* when an observer last had a copy made */
    struct shared_stats *shared_stats;
    struct telemetry *telemetry;
    float *theta, *all, *stat, *square;
    uint16_t *decays;                 /* RULE_ADAM: see struct arrays */
    struct step_history *history;     /* RULE_HISTORY: of each range */
    struct master_matrices *matrices; /* RULE_MATRIX, also on a GPU; else NULL */
    struct master_waiting *waiting;   /* where matrices are under way; else NULL */
    uint64_t *own_updates;            /* RULE_HISTORY: of each worker, by range */
    void *private_memory;             /* all, stat, square */
    size_t private_bytes;
    void *own_memory; /* own of every worker, and mean */
    size_t own_bytes;
    void *sent_memory; /* external: sent of every worker, outside of the slots */
    size_t sent_bytes;

    struct master_slot *slot; /* workers_max */
    struct master_peer *peer; /* peers_max */
    uint32_t peers_max, observers_max, observers;
    tp_peer hello_peer; /* who said hello, while the core decides */
    uint32_t hello_pid;
    /* Of every slot region, see wire.h. slot_used: what is ever touched, if the buffers are external. */
    size_t slot_bytes, slot_used, sent_at, split, reported_at, push_at, grad_at;
    uint32_t *range_stage; /* schedule stage of the last update of each range */
    const float **vectors; /* lists of vectors for a pass, workers_max each */
    float **targets;
    uint32_t *members; /* workers of a pass, workers_max */
    float *
        lanes; /* RULE_ROUND with seams: copies of a piece of each worker's grad and sent */
    double global_stat; /* ga-global: s */
    uint64_t global_samples;
    /* RULE_BLOCK: of the blocks of a range in the last pass, room for the range with the
     * most; and of the tensors, in the shared statistics. */
    float *gates;
    struct gate_share *tensor_gates;

    struct tp_event events[MASTER_EVENTS];
    uint64_t ticked_ns;
    /* peers that were not let in: by the master, by the transport; of these reported; when */
    uint64_t refused, refused_below, refused_reported, refused_ns;
    struct gapless_error refused_last;
    struct flag_word stop; /* from signal handlers and other threads */

    /* Vectors lie outside of the slots (the simulator): the code that delivers a gradient
     * says where it is, in slot.grad; and all `sent` are together in memory of large
     * pages, without which a thousand workers' passes miss the processor's table of
     * pages. */
    bool external_buffers;
    /* saved.c */
    char *settings_text; /* what decides how the run goes */
    struct state_file
        *from;      /* the state that it goes on from; NULL: none, or all is taken */
    uint64_t epoch; /* how often this run was begun again */
    uint64_t version_base; /* of the versions that readers see */
    bool kept;             /* there are slots with `kept` */
    struct saving *saving; /* NULL: nothing is saved while the run goes on */
    bool untimed;          /* time by itself does nothing: a record says when it did */
    void (*log)(void *log_context, const char *line); /* NULL: none */
    void *log_context;
    struct record_writer *record; /* NULL: none */
    uint64_t opened_ns;
    bool suspect; /* a sum of a pass was not finite: theta is looked at, see master.c */
    bool judged;  /* theta of the end of the run was looked at */
};

/* Is what is sent one vector for all workers, in two places in turn? */
static inline bool master_publishes(const struct gapless_master *m)
{
    return (m->rule->flags & RULE_PUBLISHED) != 0;
}

/* ---- open.c -------------------------------------------------------------- */
/* gapless_master_open with `external_buffers`: the slots take no memory for gradients. */
int master_open_external(const struct gapless_master_config *config,
                         struct gapless_master **ret, struct gapless_error *error);

/* ---- own.c --------------------------------------------------------------- */
/* Refuses a rate, decay or average of a tensor that this rule, or this run, cannot give. */
int own_check(const struct gapless_master *m, const struct gapless_master_config *c,
              struct gapless_error *error);
/* The parts that workers treat differently; NULL: only how many. */
uint32_t own_parts(const struct gapless_master *m, struct wire_part *ret);

/* ---- master.c: the loop -------------------------------------------------- */
/* An event for the core, behind those that wait; master_drain takes it. */
void master_event(struct gapless_master *m, enum core_event_kind kind, uint32_t worker,
                  uint32_t range, bool finite);
/* Steps the core through all events that wait and those that follow from them. Called
 * between events from outside, never by what performs an action. */
void master_drain(struct gapless_master *m);
/* A gradient of a worker is applied, in this range or in all; or, if not finite, only in
 * ranges below `ranges`. The core counts that before it looks at anything else. */
void master_applied(struct gapless_master *m, uint32_t worker, uint32_t range,
                    bool finite, uint32_t ranges);
/* A note to a worker, if it is there. Its ring holds every note that an honest worker
 * can have unread: one whose ring is full is dropped. */
void master_notify(struct gapless_master *m, uint32_t worker, uint32_t note);

/* ---- matrices.c: RULE_MATRIX --------------------------------------------- */
/* Refuses a model that has no matrix. Other rules: nothing happens, here and below. */
int matrices_check(const struct gapless_master *m, struct gapless_error *error);
/* Lists what is a matrix. */
int matrices_list(struct gapless_master *m, const struct gapless_master_config *config,
                  struct gapless_error *error);
/* Of the list: the stretches of a range; and what memory for the products of ranges
 * first .. end - 1 must hold, as matrix_scratch_new wants to know. */
const struct stretch *matrices_stretches(const struct gapless_master *m, uint32_t range,
                                         uint32_t *ret_count);
void matrices_largest(const struct gapless_master *m, uint32_t first, uint32_t end,
                      size_t *ret_elements, size_t *ret_side);
/* Takes memory for products, and threads: where no GPU has been chosen. What follows is
 * for this processor alone. */
int matrices_open(struct gapless_master *m, const struct gapless_master_config *config,
                  struct gapless_error *error);
void matrices_close(struct gapless_master *m);
/* The team is at rest, and what is under way is never done: before memory goes. */
void matrices_rest(struct gapless_master *m);
/* Is this range's update under way (CORE_ALL: any)? Has it a matrix? */
bool matrices_under_way(const struct gapless_master *m, uint32_t range);
bool matrices_in(const struct gapless_master *m, uint32_t range);
/* A range of a gradient is applied with the next matrices_begin. */
void matrices_ask(struct gapless_master *m, uint32_t range, const struct arrays *at,
                  const struct step_scalars *scalars, unsigned want);
/* Begins to apply what was asked for. False: it is done, and was counted (pass_counted). */
bool matrices_begin(struct gapless_master *m, const struct pass_work *work);
/* Goes on with what is under way for a moment: for as long as 0.1 ms of products takes, and
 * one product more. What is done is counted and applied (pass_applied), and what follows from
 * it performed. Returns for how long the loop may wait for events before it calls again. */
int64_t matrices_go_on(struct gapless_master *m);
/* Of workers with a gradient under way: core_excuse. */
void matrices_excuse(struct gapless_master *m, uint64_t now_ns);
double matrices_measure(struct gapless_master *m, uint32_t range,
                        const struct arrays *at, const struct step_scalars *scalars);
void matrices_look_ahead(struct gapless_master *m, uint32_t range,
                         const struct arrays *at, const struct step_scalars *scalars);

/* ---- passes_cpu.c -------------------------------------------------------- */
extern const struct pass_ops pass_ops_cpu;

/* ---- open_gpu.c ---------------------------------------------------------- */
/* Makes `passes` those of GPUs, opens them and takes memory there, if the configuration
 * asks for it. "auto" without a GPU leaves the processor's, and says so. After
 * make_vectors. */
int passes_choose(struct gapless_master *m, const struct gapless_master_config *config,
                  struct gapless_error *error);

/* ---- passes.c ------------------------------------------------------------ */
size_t pass_elements(const struct gapless_master *m, uint32_t range);
/* What passes take one after another of a range: all of it, or its pieces. */
const struct layout_unit *pass_units(const struct gapless_master *m, uint32_t range,
                                     uint32_t *ret_count);
/* Is it a running average, which the rule has no part in? Elastic rules treat averages as
 * all else. */
bool pass_averages(const struct gapless_master *m, const struct layout_unit *unit);
/* Is a pass over it that of matrices.c? */
bool pass_of_matrices(const struct gapless_master *m, const struct layout_unit *unit);
/* The first unit of a range, which begins where the range does; is this the first one of its
 * range, or the last? */
static inline const struct layout_unit *unit_first_of(const struct gapless_master *m,
                                                      uint32_t range)
{
    return &m->layout.units[m->layout.unit_first[range]];
}
static inline bool unit_is_first(const struct gapless_master *m,
                                 const struct layout_unit *unit)
{
    return unit == unit_first_of(m, unit->range);
}
static inline bool unit_is_last(const struct gapless_master *m,
                                const struct layout_unit *unit)
{
    return unit + 1 == m->layout.units + m->layout.unit_first[unit->range + 1];
}
/* The blocks of a unit, with what the worker reported of them. */
struct blocks pass_blocks(const struct gapless_master *m,
                          const struct master_slot *slot,
                          const struct layout_unit *unit);
/* The vector that the next pass of a range writes what it sends to: the worker's own, or
 * the next version's place of what is published. */
float *pass_sent(const struct gapless_master *m, float *own, float *const *published,
                 uint32_t range);
/* Is the gap of a worker's present message measured? */
bool pass_wants_gap(const struct gapless_master *m, uint32_t worker);
/* What applying a unit of a worker's gradient gave. gates: of its blocks; NULL: all have
 * the same, or they are not known one by one, and their mean stands for each. */
void pass_counted(struct gapless_master *m, uint32_t worker,
                  const struct layout_unit *unit, const struct sums *sums,
                  const float *gates);
/* Shortly before a large vector is done: see NOTE_WARMUP. */
void pass_warm_up(struct gapless_master *m, uint32_t worker);
/* Takes over what the worker tells of its next gradient, before any of it: the factor on
 * its rate, .. */
void pass_announced(struct gapless_master *m, uint32_t worker);
/* .. and under RULE_PUBLISHED the versions that it read. */
void pass_reported(struct gapless_master *m, uint32_t worker);
/* One gradient of a worker in a range (CORE_ALL: in all, one after another), up to the first
 * range that is not finite. Ends with master_applied: at once, or later if matrices are
 * under way then. */
void pass_apply(struct gapless_master *m, uint32_t worker, uint32_t range);
/* What pass_apply has begun is done. */
void pass_applied(struct gapless_master *m, const struct pass_work *work);
/* Counts the gradient that pass_apply has completed, if it has. Apart from it, so that
 * the worker is answered first: after a large vector all of this is out of the cache. */
void pass_record(struct gapless_master *m, uint32_t worker);
/* The schedule's rate of the next gradient, for workers that move parameters of their own. */
double pass_rate(const struct gapless_master *m);
/* A worker has used a gradient itself: there is nothing to apply, only to count, if the
 * core finds that it was its turn. Returns the rate of that gradient. */
double pass_local_begin(struct gapless_master *m, uint32_t worker);
void pass_local_count(struct gapless_master *m, uint32_t worker, double rate);
/* A synchronous round of all workers that have pushed. False: none of their gradients
 * was finite. */
bool pass_round(struct gapless_master *m);
/* A fresh look-ahead for a worker in a range (CORE_ALL: in all). */
void pass_look_ahead(struct gapless_master *m, uint32_t worker, uint32_t range);
/* RULE_ADAM: what a worker that joins has in place of updates of its own. */
void pass_join(struct gapless_master *m, uint32_t worker);
/* Takes a worker's velocity out, ends with own = 0. */
void pass_forget(struct gapless_master *m, uint32_t worker);

/* ---- membership.c -------------------------------------------------------- */
/* A line for the person who runs the master. */
void master_log(const struct gapless_master *m, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void member_text(struct gapless_master *m, tp_peer peer, const void *data,
                 uint32_t bytes);
void member_down(struct gapless_master *m, tp_peer peer);
/* Ends connections that have not said hello in time: a few of them would keep workers
 * out. */
void member_tick(struct gapless_master *m, uint64_t now_ns);
/* Performs CORE_WELCOME. */
void member_welcome(struct gapless_master *m, uint32_t worker);
/* Performs CORE_DROP. */
void member_drop(struct gapless_master *m, uint32_t worker, enum core_reason reason);

#endif
