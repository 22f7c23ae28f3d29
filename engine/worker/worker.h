/* Inside of a worker: shared by the files below and the simulator,
 * which owns workers of its own. No other file includes this.
 *
 *   worker.c          open, pull, push
 *   worker_fetch.c    its memory, and how it gets what it computes at
 *   worker_buffers.c  buffers of the caller's in place of its own
 *   worker_direct.c   those that a network card reaches by itself
 *   worker_parts.c    passes where parts of the gradient are treated differently
 *   worker_ranges.c   a gradient that is handed in piece by piece
 */
#ifndef GAPLESS_WORKER_H
#define GAPLESS_WORKER_H

#include "engine/worker/client.h"
#include "engine/compute/compute.h"
#include "engine/worker/worker_buffers.h"

/* Elements [from, end) of the present gradient. */
struct worker_stretch {
    uint64_t from, end;
};

/* What of the present gradient came with gapless_worker_push_range. */
struct worker_early {
    struct worker_stretch *handed; /* in order, apart from each other */
    uint32_t count;
    size_t room;
    bool *put; /* by range: it is at the master; NULL: never used */
    uint32_t puts;
    double sum; /* of squares, of ranges that are prepared */
    bool bad;   /* one of them is not finite */
};

struct gapless_worker {
    struct client client;
    const struct compute *compute;
    int64_t wait_ns;
    struct tp_region slot;
    const struct slot_head *head;
    struct slot_push *push;
    const float *params;
    float *grad;
    float *velocity;    /* DANA-Slim, EAMSGD */
    float *own;         /* EASGD: parameters of its own, which `params` is */
    const float *given; /* what the master sent, in the slot */
    float *copy;        /* RULE_PUBLISHED: what it copied, which `params` is */
    struct tp_region published;
    const float *place[2]; /* in it, of version v in place v % 2 */
    uint64_t *reported;    /* in the slot: by range, the version copied */
    double *dots;          /* in the slot: by block, <grad, copy> */
    uint64_t batch,
        next;       /* of the present pull; and, with `ahead`, of the one after it */
    uint32_t steps; /* batches of the present pull */
    double rate;    /* EASGD: of the present batch */
    struct wire_part *parts; /* a copy of the master's; NULL: all is alike */
    uint32_t parts_count;
    double factor;          /* on the rate, of what is pushed from now on */
    uint64_t used;          /* EASGD: gradients used */
    bool exchanged;         /* EASGD: `given` answers an exchange */
    bool fresh;             /* EASGD: starts (again) from what is given */
    const uint64_t *starts; /* of ranges, and the end */
    size_t padded;
    uint32_t ready; /* ranges whose look-ahead is there */
    bool all_ready;
    bool over;        /* the run is */
    uint32_t *listed; /* not mapped: those ranges, as their READY came; or NULL */
    uint32_t asked;   /* of these, this many were asked for */
    bool asked_head;  /* and the head */
    uint64_t *begun;  /* not mapped, RULE_PUBLISHED: version words as first read */
    /* not mapped: where in the slot a gradient's first put begins */
    uint64_t reported_from;
    bool by_range;
    bool ahead;   /* the master says what comes next */
    bool scratch; /* the caller writes into `params`, as long as they are in the slot */
    bool has_params; /* pulled and not pushed yet */
    uint64_t norm_ns;
    struct worker_early early;
    struct worker_buffers buffers;
};

/* After the welcome: opens the shared statistics, the slot and what is published, takes the memory
 * that the rule wants at the worker. GAPLESS_PROTOCOL, GAPLESS_NO_MEMORY. */
int worker_map(struct gapless_worker *worker, struct gapless_error *error);
/* The slot alone, again: what was placed in it before is forgotten. Not under a rule
 * with RULE_PUBLISHED. */
int worker_map_slot(struct gapless_worker *worker, struct gapless_error *error);

/* ---- worker_fetch.c ------------------------------------------------------ */
/* What the master reported. */
void fetch_note(struct gapless_worker *worker, uint32_t note);
/* Does this pull need what is in the slot? Not where the worker goes on by itself. */
bool fetch_wanted(const struct gapless_worker *worker);
/* Asks for what is ready, as far as the queue goes; nothing where memory is mapped. */
int fetch_ahead(struct gapless_worker *worker, struct gapless_error *error);
/* Everything is there, and every put is through; or the run is over. */
bool fetch_done(const struct gapless_worker *worker);
/* Where memory is mapped: tells the transport what is read. */
int fetch_mapped(struct gapless_worker *worker, struct gapless_error *error);
/* The next round begins. */
void fetch_again(struct gapless_worker *worker);
/* RULE_PUBLISHED: copies what is published for all. GAPLESS_TORN. */
int fetch_published(struct gapless_worker *worker, uint64_t deadline_ns,
                    struct gapless_error *error);

/* ---- worker_parts.c ------------------------------------------------------ */
/* The passes over a gradient where parts are treated differently: as those of a whole one, in
 * the same order, but running averages are in no norm, and neither scaled, decayed nor turned to
 * a momentum. */
struct part_pass {
    enum {
        PART_NORM,    /* `sum` of squares */
        PART_AVERAGE, /* ... of averages, which is not finite where one is not */
        PART_SCALE,   /* by `factor` */
        PART_DECAY,   /* each part's; `sum` of squares afterwards */
        PART_SLIM,    /* with momentum `factor` */
        PART_LOCAL /* EASGD, by `rate` and momentum `factor`; of averages by 1 alone */
    } kind;
    double factor, rate;
    size_t from,
        end; /* parts_pass: of these elements alone, where a range begins and ends;
                         end 0: of all */
    double sum;
    bool bad; /* PART_LOCAL: what came out is not finite */
};
/* Copies the parts that the master has. GAPLESS_PROTOCOL, GAPLESS_NO_MEMORY. */
int parts_open(struct gapless_worker *worker, struct gapless_error *error);
/* One pass over all parts: on this processor, where it does not fail; on the caller's GPU, which
 * has no PART_LOCAL. */
typedef int parts_fn(struct gapless_worker *worker, struct part_pass *pass,
                     struct gapless_error *error);
parts_fn parts_pass, parts_pass_direct;
/* Norm, clipping, decay, momentum of DANA-Slim. GAPLESS_NOT_FINITE: it is not, nothing more
 * was done, and there is no text. */
int parts_prepare(struct gapless_worker *worker, parts_fn *pass, double *ret_norm,
                  struct gapless_error *error);

/* ---- worker_ranges.c ----------------------------------------------------- */
/* The next gradient begins. */
void early_again(struct gapless_worker *worker);
/* The push, where ranges are at the master already: the others follow. GAPLESS_NOT_FINITE, with
 * a text. */
int early_finish(struct gapless_worker *worker, double loss,
                 struct gapless_error *error);
void early_close(struct gapless_worker *worker);

/* ---- worker.c ------------------------------------------------------------ */
/* Bytes of the slot and a note to the master; where its queue is full, waits for at most
 * wait_ns. What has become ready meanwhile is asked for: the way back is another one. */
int worker_put(struct gapless_worker *worker, uint64_t at, uint64_t bytes,
               uint32_t note, struct gapless_error *error);
/* The norm is taken of this many elements first, then of the rest; 0: of all at once. */
size_t worker_norm_cut(const struct gapless_worker *worker);

/* ---- worker.c, for the simulator ----------------------------------------- */
/* The gradient of the next push is in `grad` (padded floats, zero behind the last
 * parameter) instead of in the slot. */
void worker_lend(struct gapless_worker *worker, float *grad);
/* What the master sends is there instead of in the slot; before the first pull. */
void worker_lend_sent(struct gapless_worker *worker, const float *sent);
/* Takes what has been delivered, without waiting. *ret_ready: a pull would not wait. */
int worker_look(struct gapless_worker *worker, bool *ret_ready,
                struct gapless_error *error);
/* Memory of its own, beside the slot. */
uint64_t worker_bytes(const struct gapless_worker *worker);
/* Ends without a word, as if the process had died. NULL is a no-op. */
void worker_abandon(struct gapless_worker *worker);

#endif
