/* The master's protocol as a pure step: who may push, versions, lag, batch tickets,
 * what to do next.
 *
 * No I/O, no clock, no allocation, no pointer to a buffer: an event goes in, at most
 * four actions come out. The state is one block of memory without pointers, so that a
 * test can copy it and a seed can replay it. The loop in master.c (or the simulator)
 * performs the actions and reports back with CORE_APPLIED.
 *
 *   FREE --HELLO--> WAITING --a ticket--> COMPUTING --gradient in--> a new ticket:
 *                      ^                       |                      COMPUTING
 *                      `--- no ticket left ----+
 *                                              | synchronous rule
 *                                              `----> PUSHED --round--> COMPUTING
 *
 * Tickets. Every gradient of the run has a number, the batch it is computed on. A
 * worker gets a ticket with its look-ahead. When it dies before any of its gradient
 * was applied, its ticket goes to the next worker; a worker without a ticket waits
 * until none is under way, so that no batch is lost and none is applied twice. With
 * local steps a ticket is for several batches in a row, and what is counted is batches.
 *
 * A worker that asks for it in its hello learns its next ticket with each, so that it can load
 * that batch meanwhile. Nobody else gets a ticket that is kept for a worker, unless there is no
 * other left; when the worker goes, both are given out again. It is no promise: a ticket that
 * came back goes first if it is of an earlier batch.
 *
 * Versions. Each range counts its updates; the lag of a gradient is the range's version
 * minus the version the worker's look-ahead was made at (algorithms, Decisions 1).
 */
#ifndef GAPLESS_MASTER_CORE_H
#define GAPLESS_MASTER_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CORE_ALL UINT32_MAX /* as a worker or a range: all that it applies to */
#define CORE_NO_TICKET UINT64_MAX
#define CORE_ACTIONS_MAX 4
/* Most workers times ranges: 9 bytes each, so at most 144 MiB of state. */
#define CORE_CELLS_MAX (16ull << 20)

enum core_event_kind {
    CORE_HELLO, /* a worker wants to join, with the number `worker` if it is free, and,
                      with `ahead`, to know its next ticket */
    CORE_GRADIENT, /* worker, range (CORE_ALL: all at once): it has landed; or finite =
                      false: the worker found it not finite and sends none */
    CORE_LOCAL,    /* worker: it used its gradient itself, there is nothing to apply */
    CORE_APPLIED,  /* worker, range: the APPLY or ROUND is done; finite = false: it was
                      not applied */
    CORE_GONE,     /* worker: it left (finite = true) or was lost (finite = false) */
    CORE_TICK,     /* time passed */
    CORE_STOP,     /* end the run */
    CORE_DIVERGED  /* parameters were found that are not finite: the same */
};

struct core_event {
    enum core_event_kind kind;
    uint32_t worker;
    uint32_t range;
    bool finite;
    uint64_t now_ns;
    /* CORE_APPLIED of all ranges, not finite: those below were applied */
    uint32_t applied;
    bool ahead; /* CORE_HELLO */
};

enum core_action_kind {
    CORE_WELCOME, /* worker: prepare its slot (velocity 0, a look-ahead), let it in */
    CORE_APPLY,   /* worker, range (or CORE_ALL), lag; then report CORE_APPLIED with the
                     same worker and range */
    CORE_ROUND, /* apply one averaged update of all workers in state PUSHED; then report
                   CORE_APPLIED, CORE_ALL */
    CORE_READY, /* worker, range: its look-ahead is there. range CORE_ALL: all ranges.
                   worker CORE_ALL: every worker whose `ready` is set. If `refresh`:
                   make a new look-ahead first. */
    CORE_FORGET, /* worker: take its velocity out */
    CORE_DROP, /* worker (CORE_ALL: the one that said hello): end the connection; reason
                */
    CORE_FINISH /* the run is over, the parameters are final */
};

enum core_reason {
    CORE_FULL,
    CORE_OVER,
    CORE_BROKE_PROTOCOL,
    CORE_TOO_SLOW
};

struct core_action {
    enum core_action_kind kind;
    uint32_t worker;
    uint32_t range;
    enum core_reason reason;
};

struct todo {
    uint32_t count;
    struct core_action action[CORE_ACTIONS_MAX];
};

enum core_worker_state {
    CORE_FREE,
    CORE_WAITING,
    CORE_COMPUTING,
    CORE_PUSHED
};

/* Batches [first, first + steps); first CORE_NO_TICKET: none. */
struct core_ticket {
    uint64_t first;
    uint32_t steps;
};

struct core_worker {
    enum core_worker_state state;
    bool ahead;           /* a next ticket is kept for it; never with `adapt` */
    bool ready;           /* a READY is due to it */
    bool stop;            /* with that READY: the run is over */
    bool refresh;         /* with that READY: it needs a new look-ahead */
    bool rejected;        /* a range of this message was not applied */
    bool late;            /* its message came too late: no range of it is applied */
    uint32_t steps;       /* batches of its ticket, from `ticket` on */
    uint32_t pushed;      /* ranges of the present message that have landed */
    uint32_t applied;     /* ranges of it that are done */
    uint32_t incarnation; /* times this slot was taken */
    uint64_t ticket;
    struct core_ticket next; /* kept for it; only beside a ticket */
    uint64_t since_ns;       /* when it got the ticket, or core_excuse */
    uint64_t from_ns;        /* of the event that led to it: a record has that one */
    uint64_t step_ns; /* running mean of its time for a batch; 0: not known yet */
};

struct core_config {
    uint32_t workers_max;
    uint32_t ranges;
    uint64_t tickets; /* length of the run, in batches; 0: no end */
    uint32_t steps;   /* batches of a ticket, at most; 0: 1 */
    bool
        adapt; /* a slower worker gets fewer: `steps` times the fastest worker's time for
                   a batch over its own, rounded, at least 1. A worker's first ticket is
                   a full one */
    uint32_t
        tickets_more; /* room for tickets that were given back, beside two a worker */
    uint32_t workers_wait; /* hold the first tickets until this many have joined ... */
    uint64_t wait_ns;      /* ... or so much time has passed since the first joined */
    uint64_t timeout_ns;   /* a worker that computes longer is dropped; 0: never */
    bool whole; /* a message is applied as one: global rules, deterministic modes */
    bool round; /* synchronous */
    uint64_t drop_lag; /* a message whose first range has this lag, or more, is not
                          applied; 0: all are. Not with `round` */
    bool judges;       /* many gradients in a row that are not finite end the run; see
                          core_bad_most */
    bool local; /* workers may use gradients themselves (EASGD): then what a worker was
                   given stays as it is until its next exchange */
};

enum core_phase {
    CORE_GATHERING,
    CORE_RUNNING,
    CORE_STOPPING,
    CORE_OVER_NOW
};

struct master_core {
    struct core_config config;
    enum core_phase phase;
    uint32_t active;         /* workers not FREE */
    uint32_t computing;      /* of these, with a ticket and not yet PUSHED */
    uint32_t pushed_workers; /* in state PUSHED */
    uint64_t issued;         /* batches given out, or kept, for the first time */
    uint64_t consumed;       /* batches whose gradient was applied or dropped */
    uint64_t dropped;        /* of these: not finite, or late */
    uint64_t partial;  /* of these: only some ranges were applied before the worker was
                          lost */
    uint64_t updates;  /* whole updates of the parameters */
    uint64_t bad_row;  /* messages in a row, up to the last one, that were not finite */
    uint64_t bad_from; /* number of the first batch of the first of them, from 1 on */
    uint64_t
        diverged_at;   /* the run ended since it diverged: at this batch, from 1 on */
    uint64_t first_ns; /* first HELLO */
    uint64_t stop_ns;  /* CORE_STOP */
    uint64_t event_ns; /* of the last event that a record has: not CORE_APPLIED */
    uint64_t joined, lost;
    uint32_t returned; /* tickets to be given out again */
    size_t bytes;      /* of the whole state, for copying */
    size_t at_returned, at_version, at_position, at_read,
        at_landed; /* offsets of the arrays behind this struct */
    struct core_worker worker[];
};

/* Bytes of a core, or 0 if workers times ranges is beyond CORE_CELLS_MAX. */
size_t core_bytes(const struct core_config *config);
/* How many tickets that were given back it has room for. */
size_t core_tickets_room(const struct core_config *config);
/* `core` has core_bytes and any content. */
void core_init(struct master_core *core, const struct core_config *config);
/* One step. Returns 0, or -1 for an event that cannot be (a number out of range):
 * nothing changed. */
int core_step(struct master_core *core, const struct core_event *event,
              struct todo *ret);

/* This number of messages in a row that are not finite ends a run: 16 of each worker, at least 100
 * (a loss scale of mixed precision is found within fewer); but not more than a tenth of the
 * run, at least 10. */
uint64_t core_bad_most(const struct master_core *core);

/* Before CORE_APPLIED of a round: this worker's gradient was not finite and was left
 * out of it. */
void core_reject(struct master_core *core, uint32_t worker);

/* Before the gradient of a worker that chose itself when to read: the version of a
 * range that it tells. One that cannot be is taken as the present one. */
void core_read_at(struct master_core *core, uint32_t worker, uint32_t range,
                  uint64_t version);

/* A worker in CORE_COMPUTING is not slow: its time begins anew. */
void core_excuse(struct master_core *core, uint32_t worker, uint64_t now_ns);

/* Updates of a range so far; gradients consumed by it (the schedule's t); lag of a
 * worker's gradient in it. */
uint64_t core_version(const struct master_core *core, uint32_t range);
uint64_t core_position(const struct master_core *core, uint32_t range);
uint64_t core_lag(const struct master_core *core, uint32_t worker, uint32_t range);
/* The whole state as numbers, in an order of their own: for a file. `ret` has core_words. */
size_t core_words(const struct master_core *core);
void core_export(const struct master_core *core, uint64_t *ret);
/* Workers, ranges and room for tickets of numbers that core_export gave; false: they are not
 * that. */
bool core_words_of(const uint64_t *words, size_t count, struct core_config *ret);
/* Takes them over: of a core of the same sizes, just as it was. False: they make
 * no sense, and `core` is not to be used. */
bool core_import(struct master_core *core, const uint64_t *words, size_t count);
/* What a core that has imported them would leave to a run that goes on without its workers:
 * every worker is gone, tickets of which nothing was applied are given out again. `core` is new;
 * `was` is changed. False: there is no room for its tickets. */
bool core_go_on(struct master_core *core, struct master_core *was);

/* The next worker after `worker` (start with CORE_ALL) in a state, or CORE_ALL. */
uint32_t core_next(const struct master_core *core, enum core_worker_state state,
                   uint32_t worker);

#endif
