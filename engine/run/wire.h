/* What master, workers and observers say to each other: control messages, notes, and
 * the memory they share.
 *
 *   client                                 master
 *   HELLO (role, version, model) --------->  refuse, or:
 *        <------------ grants of windows, WELCOME
 *   note READY(range) <--------------------  a look-ahead is in the slot
 *   note OVER <----------------------------  the run is over
 *   put, note PUSH(range or all) --------->  a gradient has landed
 *   note BAD ----------------------------->  it was not finite; nothing was put
 *   note LOCAL --------------------------->  the worker used it itself (EASGD)
 *   note COPY (observer) ----------------->  make me a copy: every read was torn
 *   BYE ---------------------------------->  leaves in order
 *
 * All numbers are little-endian. Everything read from a peer is checked before it is
 * used.
 */
#ifndef GAPLESS_WIRE_H
#define GAPLESS_WIRE_H

#include "engine/run/telemetry.h"
#include "transport/ring.h"

#define WIRE_MAGIC 0x53504147u /* "GAPS" */
#define WIRE_PROTOCOL 8u

enum wire_kind {
    WIRE_HELLO = 1,
    WIRE_WELCOME,
    WIRE_REFUSED,
    WIRE_BYE
};
enum wire_role {
    WIRE_WORKER = 1,
    WIRE_OBSERVER
};

/* What a worker does with its gradients. */
enum wire_elastic {
    WIRE_NOT_ELASTIC,     /* puts them into its slot */
    WIRE_ELASTIC,         /* moves its own parameters; puts those there, now and then */
    WIRE_ELASTIC_NESTEROV /* the same, with momentum */
};

struct wire_head {
    uint32_t magic;
    uint16_t protocol;
    uint16_t kind;
};

/* How messages call a worker, by its number: as the log files of gapless train. */
#define WORKER_NAME "worker-%02u"

struct wire_hello {
    struct wire_head head;
    uint32_t role;
    uint32_t pid;
    uint64_t count;      /* parameters of the worker's model; 0: any */
    uint64_t model_hash; /* 0: any */
    uint32_t wish;       /* a worker: the number it would like to have */
    uint32_t ahead;      /* a worker: 1: it wants to know its next batch, too */
    char version[16];    /* of the library */
    char name[GAPLESS_NAME_MAX];
};

struct wire_welcome {
    struct wire_head head;
    uint32_t number; /* the worker's */
    uint32_t ranges;
    uint64_t count;
    uint64_t sent_at; /* offset in the slot window; or of the first place in the window
                         of what is published */
    uint64_t push_at; /* in the slot window: struct slot_push, right before ... */
    uint64_t grad_at; /* ... the gradient */
    uint64_t
        reported_at; /* in the slot window: what the worker tells beside its gradient;
                         0: it reads its slot, and nothing is published */
    uint64_t second_at; /* of the second place of what is published */
    double momentum;
    double weight_decay;
    double clip_norm;
    uint32_t slim;    /* the worker keeps the momentum (DANA-Slim) */
    uint32_t elastic; /* enum wire_elastic */
    double alpha;     /* EASGD: how far an exchange moves both sides */
    uint32_t period;  /* EASGD: gradients from one exchange to the next */
    uint32_t whole;   /* 1: a gradient is applied as one, when all of it is there */
    char job[GAPLESS_JOB_MAX];
};

struct wire_refused {
    struct wire_head head;
    int32_t status;
    char text[480];
};

/* Windows of a client. */
enum wire_window {
    WIRE_SLOT,
    WIRE_BOARD,
    WIRE_THETA,
    WIRE_COPY,
    WIRE_PUBLISHED, /* what is sent to all workers, of version v in place v % 2 */
    WIRE_WINDOWS
};

/* A note: what in the upper half, a range in the lower.
 *
 * WARMUP, from either side, says that a large vector is nearly done: a sleeping peer wakes
 * up, and on both sides what the note that matters needs, code and data, comes back
 * into the caches that the vector has emptied. (64 MiB: 4 us for the protocol instead
 * of 9.) It may be ignored. Global rules, whose sums are bits of the result, go
 * without, and so do transports that do not map memory. There a worker that pushes ranges
 * as they come puts struct slot_push with one before the first of them, if it has changed.
 *
 * OVER takes the place of a READY and needs nothing read: the master may be gone before
 * a read would reach it. */
enum wire_note {
    NOTE_PUSH = 1,
    NOTE_BAD = 2,
    NOTE_READY = 3,
    NOTE_COPY = 4,
    NOTE_WARMUP = 5,
    NOTE_LOCAL = 6,
    NOTE_OVER = 7
};
/* Vectors, or ranges, of more elements than this leave nothing else in a core's
 * caches. */
#define WIRE_WARMUP_ABOVE (1u << 18)
/* Elements left when WARMUP is said: some microseconds of work. */
#define WIRE_WARMUP_REST 16384u
#define NOTE_ALL_RANGES 0xffffu
#define NOTE(what, range) (((uint32_t)(what) << 16) | (range))
#define NOTE_WHAT(note) ((note) >> 16)
#define NOTE_RANGE(note) ((note)&0xffffu)

/* A slot: what the worker may only read, then from a page on what it may only write
 * (TP_SPLIT). What it tells of a gradient lies right before it, so that one put brings
 * all of that and the first range.
 *
 *   0       sent_at             split       reported_at       push_at  grad_at
 *   | head  | sent              |           | reports     | push   | grad
 *     master writes, worker reads             worker writes, master reads
 */
struct slot_head {
    uint64_t ticket;   /* batch to compute, or the first of `steps` */
    uint64_t stop;     /* 1: the run is over */
    uint64_t check_ns; /* cost of the last gradient at the master */
    uint64_t pass_ns;
    double rate;    /* of this batch, for a worker that moves its own parameters */
    uint64_t steps; /* batches to compute before a gradient is handed in */
    uint64_t
        next; /* the batch that it most probably gets after this; UINT64_MAX: not known */
    uint64_t spare;
};

struct slot_push {
    double loss; /* of the batch; NaN: not reported */
    double norm; /* of the gradient as it is put */
    double rate; /* factor on the schedule's rate: gapless_worker_set_rate */
    uint64_t spare[5];
};

/* Under a rule with RULE_PUBLISHED the worker tells at reported_at: the version of each
 * range that it copied (uint64_t), then <grad, copy> of each block (double). */

/* A part of the vector, up to element `end`, as far as it is another's to a worker: an average
 * (0: none), the weight decay that it adds to the gradient, and the factor on the rate of its own
 * steps (EASGD). */
struct wire_part {
    uint64_t end;
    double rate, decay, average;
};

/* Versions that readers see: how often the run was begun again, and from this bit down the
 * updates of a range. */
#define WIRE_EPOCH_SHIFT 40u

/* The shared statistics, read by workers (range table) and observers (all of it); written by the
 * master only. Then follow, at the offsets given: ranges + 1 starts, ranges version
 * words, capacity worker statistics, gates of the tensors. */
struct shared_stats {
    struct wire_head head;
    uint32_t ranges;
    uint32_t workers_max;
    uint64_t count;
    uint64_t starts_at, versions_at, workers_at, bytes;
    /* RULE_PUBLISHED: the number of blocks; ranges + 1 first blocks of a range
     * (uint32_t), then the end of each block from the start of its range (uint32_t). */
    uint64_t blocks, blocks_at;
    /* struct gate_share of each tensor; 0: the rule has no gate. */
    uint64_t gates, gates_at;
    /* struct wire_part: how many, in order; 0: all is alike, and as the welcome says. */
    uint64_t parts, parts_at;
    /* The rest changes while the run goes on. */
    uint64_t now_ns;       /* by the master's clock: times here are of that */
    struct seq_word copy;  /* of the copy made on request (window WIRE_COPY) */
    uint64_t copy_version; /* updates of the first range when it was made */
    uint64_t copies_only;  /* 1: the parameters are elsewhere; WIRE_THETA is no use */
    struct telemetry telemetry;
};

static inline const uint64_t *shared_stats_starts(const struct shared_stats *b)
{
    return (const uint64_t *)(const void *)((const char *)b + b->starts_at);
}

static inline const uint32_t *shared_stats_blocks(const struct shared_stats *b)
{
    return (const uint32_t *)(const void *)((const char *)b + b->blocks_at);
}

static inline const struct wire_part *shared_stats_parts(const struct shared_stats *b)
{
    return (const struct wire_part *)(const void *)((const char *)b + b->parts_at);
}

static inline struct seq_word *shared_stats_versions(const struct shared_stats *b)
{
    return (struct seq_word *)(uintptr_t)((const char *)b + b->versions_at);
}

static inline struct gapless_worker_stats *
shared_stats_workers(const struct shared_stats *b)
{
    return (struct gapless_worker_stats *)(uintptr_t)((const char *)b + b->workers_at);
}

static inline struct gate_share *shared_stats_gates(const struct shared_stats *b)
{
    return (struct gate_share *)(uintptr_t)((const char *)b + b->gates_at);
}

/* Means of the first `count` tensors' gates: see gapless_master_tensor_gates. */
int shared_stats_gate_means(const struct shared_stats *b, uint32_t count, double *ret);

/* Fills in the head of a message. */
static inline struct wire_head wire_head(enum wire_kind kind)
{
    return (struct wire_head){WIRE_MAGIC, WIRE_PROTOCOL, (uint16_t)kind};
}

#endif
