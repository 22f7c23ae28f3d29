/* Inside of an observer: shared by observer.c and observer_remote.c (where memory is not
 * mapped). No other file includes this. */
#ifndef GAPLESS_OBSERVER_H
#define GAPLESS_OBSERVER_H

#include "engine/worker/client.h"

/* One-sided reads are tried for so long; then the master is asked for a copy. */
#define OBSERVER_TRY_NS 20000000ull
/* Ask again so often, see COPY_EVERY_NS in master.c. */
#define OBSERVER_ASK_NS 60000000ull
/* What a read or a look at the statistics may take over a network, by default. */
#define OBSERVER_READ_NS 10000000000ll

struct gapless_observer {
    struct client client;
    struct tp_region theta, copy;
    uint64_t checked_ns;
    /* Not mapped; otherwise NULL. */
    uint32_t *listed;   /* ranges that are still to be read */
    uint64_t *begun;    /* by range: the version word before it was read */
    uint64_t remote_ns; /* when the statistics were last brought */
};

int observer_torn(const struct gapless_observer *observer, struct gapless_error *error);

/* ---- observer_remote.c --------------------------------------------------- */
int remote_open(struct gapless_observer *observer, struct gapless_error *error);
int remote_read(struct gapless_observer *observer, float *params, uint64_t deadline_ns,
                uint64_t *ret_version, struct gapless_error *error);
/* Brings the statistics, of the run and of all workers, to the shared statistics. */
int remote_stats(struct gapless_observer *observer, struct gapless_error *error);
/* Brings the gates of the tensors. */
int remote_gates(struct gapless_observer *observer);
int remote_worker(struct gapless_observer *observer, uint32_t worker,
                  struct gapless_worker_stats *ret);

#endif
