/* Saving a run while it goes on: the file is the state of one instant between two gradients, and
 * nobody waits for it to be written.
 *
 *   master   list ─────────> instant: numbers copied,     apply: a piece that is still
 *              │             every piece is pending  ───> pending is copied first
 *              v                   ^      │                      │
 *   thread   reserve, map ─────────┘      └─> copies what is pending, piece by piece;
 *                                             sums, syncs, renames, removes old ones
 *
 * A piece is a range of one vector. Who takes a pending one copies it; the master waits only
 * for a piece that the thread is copying at that moment, a range's memcpy at most. */
#ifndef GAPLESS_MASTER_SAVING_H
#define GAPLESS_MASTER_SAVING_H

#include "engine/master/master.h"

struct saving;

/* Where the configuration has a folder for states. Takes over its texts, and starts nothing. */
int saving_open(struct gapless_master *m, const struct gapless_master_config *config,
                struct gapless_error *error);
/* Waits for a state that is being written. */
void saving_close(struct gapless_master *m);
/* Between two batches of events, when no update is under way but what matrices have: begins a
 * state if one is due, goes on with one. What went wrong makes a line of the log; the run goes on. */
void saving_go_on(struct gapless_master *m, uint64_t now_ns);
/* A worker's vectors (CORE_ALL: of all workers) and those of all are written next in a range. */
void saving_touch(struct gapless_master *m, uint32_t worker, uint32_t range);
void saving_touch_all(struct gapless_master *m, uint32_t worker);

#endif
