/* When to look for a lost master again, and for how long. No clock and no transport in
 * here: times are handed in, in seconds.
 *
 *     lost ─ 0.2 s ─ try ─ 0.4 s ─ try ─ 0.8 s ─ try ... 5 s ─ try      until `limit`
 *      └──────────────── each wait is 0.75 to 1.25 of that ───────────────────┘
 *
 * Many workers lose a master at the same moment; the chance in the waits keeps them
 * from coming back at the same moment. The count begins anew only after a gradient was
 * handed in, so a master that accepts and fails at once does not keep a worker for
 * ever.
 */
#ifndef CLUSTER_RECONNECT_H
#define CLUSTER_RECONNECT_H

#include <stdbool.h>
#include <stdint.h>

struct reconnect {
    double limit;   /* s of looking; 0: do not look at all */
    double since;   /* when it was lost; below 0: it is not */
    uint32_t tries; /* since then */
    uint64_t times; /* it came back, in all */
};

/* Nothing is lost yet. */
struct reconnect reconnect_new(double limit);
/* The connection was lost at `now`; again, perhaps. */
void reconnect_lost(struct reconnect *reconnect, double now);
/* How long to wait before the next try; below 0: the time is up. `chance` is from 0 to
 * 1. Counts the try. */
double reconnect_pause(struct reconnect *reconnect, double now, double chance);
/* What is left of the limit, for the try itself; at least a tenth of a second. */
double reconnect_left(const struct reconnect *reconnect, double now);
/* A try succeeded; and, later, a gradient was handed in. */
void reconnect_joined(struct reconnect *reconnect);
void reconnect_proven(struct reconnect *reconnect);

/* May a try that failed so succeed later? A refusal, another version or another model
 * stays what it is. */
bool reconnect_hopeful(int status);

#endif
