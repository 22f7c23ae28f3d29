/* Inside of a worker: shared by worker.c, worker_map.c (its memory) and the simulator,
 * which owns workers of its own. Nobody else includes this. */
#ifndef GAPLESS_WORKER_H
#define GAPLESS_WORKER_H

#include "client.h"
#include "compute.h"

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
    const float *place[2];  /* in it, of version v in place v % 2 */
    uint64_t *told;         /* in the slot: by range, the version copied */
    double *dots;           /* in the slot: by block, <grad, copy> */
    double rate;            /* EASGD: of the present batch */
    uint64_t steps;         /* EASGD: gradients used */
    bool exchanged;         /* EASGD: `given` answers an exchange */
    bool fresh;             /* EASGD: starts (again) from what is given */
    const uint64_t *starts; /* of ranges, and the end */
    size_t padded;
    uint32_t ready; /* ranges whose look-ahead is there */
    bool all_ready;
    bool by_range;
    bool has_params; /* pulled and not pushed yet */
    uint64_t norm_ns;
};

/* After the welcome: opens the board, the slot and what is published, takes the memory
 * that the rule wants at the worker. GAPLESS_PROTOCOL, GAPLESS_NO_MEMORY. */
int worker_map(struct gapless_worker *worker, struct gapless_error *error);
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
