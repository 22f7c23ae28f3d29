/* Inside of the master: shared by master.c (open, loop, close), master_pass.c (passes
 * over memory) and master_door.c (who comes and goes). Nobody else includes this.
 */
#ifndef GAPLESS_MASTER_H
#define GAPLESS_MASTER_H

#include "backends.h"
#include "compute.h"
#include "element.h"
#include "layout.h"
#include "master_core.h"
#include "record.h"
#include "schedule.h"
#include "wire.h"

#define MASTER_NO_WORKER UINT32_MAX
#define MASTER_NO_PEER UINT32_MAX
/* The `all` vector is summed afresh after so many updates of a range: fp32 drift
 * (algorithms, 1.8). */
#define MASTER_RESUM_EVERY 100000u
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
    uint32_t pid;      /* 0: unknown */
};

/* A worker's memory. */
struct master_slot {
    struct tp_region
        region; /* head, sent, grad: what the worker maps; made at the first use */
    struct slot_head *head;
    const struct slot_push *push;
    const uint64_t *told; /* RULE_PUBLISHED: versions that the worker copied */
    const double *dots;   /* and of each block <grad, what it copied> */
    float *sent;          /* NULL under RULE_PUBLISHED */
    const float *grad;
    float *own;   /* NULL if the rule has none */
    tp_peer peer; /* MASTER_NO_PEER: nobody */
    bool left;    /* said bye: its departure is no loss */
    double
        gap_sq; /* of the present message, over its ranges so far; < 0: not measured */
    double lag_sum;
    uint64_t check_ns, pass_ns;
    double loss;   /* that came with it */
    bool complete; /* applied in all ranges; pass_record has not counted it yet */
};

struct gapless_master {
    const struct transport *transport;
    struct tp *tp;
    const struct compute *compute;
    const struct rule *rule;
    struct settings settings;
    struct gapless_schedule schedule;
    uint64_t gradients; /* length of the run */
    struct layout layout;
    char *job;
    double clip_norm, weight_decay;
    uint32_t elastic_period;
    bool ssgd_scale_rate;
    uint32_t gap_every;
    struct master_core *core;
    struct master_core
        *rehearsal; /* a copy to try a step on; NULL if it would be large */

    struct tp_region board_region, theta_region, copy_region, published_region;
    float *published[2]; /* RULE_PUBLISHED: what is sent, of version v in place v % 2 */
    size_t second_at;    /* of the second place in the region */
    uint64_t copied_ns;  /* when an observer last had a copy made */
    struct board *board;
    struct telemetry *telemetry;
    float *theta, *all, *stat;
    void *private_memory; /* all, stat */
    size_t private_bytes;
    void *own_memory; /* own of every worker */
    size_t own_bytes;
    void *sent_memory; /* lent: sent of every worker, outside of the slots */
    size_t sent_bytes;

    struct master_slot *slot; /* workers_max */
    struct master_peer *peer; /* peers_max */
    uint32_t peers_max, observers_max, observers;
    tp_peer hello_peer; /* who said hello, while the core decides */
    uint32_t hello_pid;
    /* Of every slot region, see wire.h. slot_used: what is ever touched, if lent. */
    size_t slot_bytes, slot_used, sent_at, split, told_at, push_at, grad_at;
    uint32_t *range_stage;    /* schedule stage of the last update of each range */
    const float **round_grad; /* of a round, workers_max */
    float **round_sent;
    const float **owns;
    double global_stat; /* ga-global: s */
    uint64_t global_samples;
    uint64_t gate_blocks;

    struct tp_event events[MASTER_EVENTS];
    uint64_t ticked_ns;
    struct baton stop; /* from signal handlers and other threads */

    /* Vectors lie outside of the slots (the simulator): whoever delivers a gradient
     * says where it is, in slot.grad; and all `sent` are together in memory of large
     * pages, without which a thousand workers' passes miss the processor's table of
     * pages. */
    bool lent;
    bool untimed; /* time by itself does nothing: a record says when it did */
    void (*log)(void *log_context, const char *line); /* NULL: nobody listens */
    void *log_context;
    struct record_writer *record; /* NULL: none */
    uint64_t opened_ns;
};

/* ---- master_open.c ---- */
/* gapless_master_open with `lent`: the slots take no memory for gradients. */
int master_open_lent(const struct gapless_master_config *config,
                     struct gapless_master **ret, struct gapless_error *error);

/* ---- master.c: feeds the core and performs what it says ---- */
void master_event(struct gapless_master *m, enum core_event_kind kind, uint32_t worker,
                  uint32_t range, bool finite);

/* ---- master_pass.c ---- */
/* RULE_PUBLISHED: takes over what the worker tells of its next gradient. */
void pass_told(struct gapless_master *m, uint32_t worker);
/* One gradient of a worker in a range (CORE_ALL: in all, one after another). Returns
 * the number of ranges applied; where it is too small, the next one is not finite. */
uint32_t pass_apply(struct gapless_master *m, uint32_t worker, uint32_t range);
/* Counts the gradient that pass_apply has completed, if it has. Apart from it, so that
 * the worker is told first: after a large vector all of this is out of the cache. */
void pass_record(struct gapless_master *m, uint32_t worker);
/* The rate of the next gradient, for workers that move parameters of their own. */
double pass_rate(const struct gapless_master *m);
/* A worker has used a gradient itself: there is nothing to apply, only to count. */
void pass_local(struct gapless_master *m, uint32_t worker);
/* A synchronous round of all workers that have pushed. False: none of their gradients
 * was finite. */
bool pass_round(struct gapless_master *m);
/* A fresh look-ahead for a worker in a range (CORE_ALL: in all). */
void pass_look_ahead(struct gapless_master *m, uint32_t worker, uint32_t range);
/* Takes a worker's velocity out, ends with own = 0. */
void pass_forget(struct gapless_master *m, uint32_t worker);

/* ---- master_door.c ---- */
void door_text(struct gapless_master *m, tp_peer peer, const void *data,
               uint32_t bytes);
void door_down(struct gapless_master *m, tp_peer peer);
/* Ends connections that have not said hello in time: a few of them would keep workers
 * out. */
void door_tick(struct gapless_master *m, uint64_t now_ns);
/* Performs CORE_WELCOME. */
void door_welcome(struct gapless_master *m, uint32_t worker);
/* Performs CORE_DROP. */
void door_drop(struct gapless_master *m, uint32_t worker, enum core_reason reason);

#endif
