/* A master's state in a file (engine/run/state.h), and a master that goes on from one.
 *
 * In the file: the parameters; `all`, `stat`, `square`; `own`, `mean` of each worker that is
 * there, and in the simulator what was sent to it; what is published; the core's numbers; the
 * histories of rules; statistics; the settings of the run, a line each.
 *
 * A state is of one moment between two events, when no update is under way. A master that goes on
 * from it has no workers yet, only what they left: a worker that takes the same slot goes on
 * with its vectors. When the run begins again, what nobody came for is taken out.
 *
 *     saved_plan ── state_write_begin ── saved_copy ── state_write_end
 */
#ifndef GAPLESS_MASTER_SAVED_H
#define GAPLESS_MASTER_SAVED_H

#include "engine/master/master.h"
#include "engine/run/state.h"

/* Versions that readers see are epoch * 2^40 and the updates of a range. */
#define SAVED_EPOCH_SHIFT 40u
#define SAVED_EPOCH_MAX (1ull << 23)

/* Lists in `w` all that this master has now; nothing joins or leaves before saved_copy.
 * GAPLESS_UNSUPPORTED: its vectors are on a GPU; GAPLESS_AGAIN: it waits for
 * the workers of the state that it goes on from, which still holds. */
int saved_plan(const struct gapless_master *m, struct state_write *w,
               struct gapless_error *error);
/* Copies all of it to its places, in the order of saved_plan. */
void saved_copy(const struct gapless_master *m, struct state_write *w);

/* The settings that decide how a run goes, a line each, malloc'ed: for settings_text. */
char *saved_settings(const struct gapless_master *m,
                     const struct gapless_master_config *config);
/* Is it of a run with this master's model and settings? GAPLESS_MODEL, GAPLESS_INVALID: names
 * the first difference. */
int saved_check(const struct gapless_master *m, const struct state_file *file,
                struct gapless_error *error);
/* Tickets that may be under way in it; 0: it has no numbers. */
uint32_t saved_tickets(const struct state_file *file);
/* The numbers of the state's core, for one with the same sizes. GAPLESS_CORRUPT. */
int saved_core(const struct state_file *file, struct master_core **ret,
               struct gapless_error *error);
/* A new master, with room for its vectors and before anybody joined, goes on from a state that
 * saved_check has passed. */
int saved_go_on(struct gapless_master *m, const struct state_file *file,
                struct gapless_error *error);
/* The simulator: the same slots are taken as when it was saved; all is as it was then. */
int saved_restore(struct gapless_master *m, const struct state_file *file,
                  struct gapless_error *error);
/* The run begins again: what no worker came for is taken out. */
void saved_let_go(struct gapless_master *m);

#endif
