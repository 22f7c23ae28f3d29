/* Events that wait while matrices are in work (RULE_MATRIX on this processor; with other
 * rules, or a GPU, nothing waits, and all of this does nothing).
 *
 * A range whose products are under way is nobody else's until they are done. What arrives
 * for it meanwhile is kept, in order of arrival, before the core sees it; all else goes on:
 *
 *   waits for              what
 *   its range              a gradient of one range
 *   all ranges, and what   a gradient of all ranges at once, or where the rule wants it whole
 *   was kept before it     (a gate of all, RULE_GLOBAL), or not finite; a worker that comes
 *                          or goes; the end of the run by a signal
 *   nothing                a tick; but it ends no run, and drops no worker whose gradient is
 *                          here
 *
 * What waits for all ranges lets nothing overtake it, so it waits for what is under way and
 * not for ever.
 *
 * Order. Updates of a range are those that came, in order. If each range sees the same order
 * of workers (messages do not cross each other on the way), the record has it, too: of two
 * messages, the one that came first is first in every range, so it makes its line first and
 * gets its next ticket first. So a record repeats such a run, as it does without matrices.
 *
 * At most WAITING_MOST and what one poll brings are kept; above that the loop takes nothing
 * from the transport until something is done. */
#ifndef GAPLESS_MASTER_WAITING_H
#define GAPLESS_MASTER_WAITING_H

#include "engine/master/master.h"

/* After matrices_open. */
int waiting_open(struct gapless_master *m, struct gapless_error *error);
void waiting_close(struct gapless_master *m);

/* True: this event has to wait, and is kept. */
bool waiting_keeps(struct gapless_master *m, const struct core_event *event);
/* The next kept event that need not wait any more, its time the present; false: none. For a
 * hello, hello_peer is who said it; one whose peer is gone is forgotten. */
bool waiting_next(struct gapless_master *m, struct core_event *ret);
/* Ranges of this work are free again. */
void waiting_freed(struct gapless_master *m, const struct pass_work *work);
/* Too many are kept to take more from the transport. */
bool waiting_full(const struct gapless_master *m);

/* gapless_master_run begins, and wants to return: from then on no gradient that comes goes to
 * matrices. True: nothing is under way, nor kept from before that. */
void waiting_begins(struct gapless_master *m);
bool waiting_ends(struct gapless_master *m);

/* May a tick be performed now? Workers whose gradient waits here, or is under way, are not
 * slow: their time begins anew. */
bool waiting_tick(struct gapless_master *m, uint64_t now_ns);
/* Copies the parameters for observers: at once, but for ranges under way, each as soon as it is
 * done. A copy that has begun is the answer to all who ask until it is whole. */
void waiting_copy(struct gapless_master *m);

#endif
