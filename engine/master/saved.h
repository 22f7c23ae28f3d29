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

/* WIRE_EPOCH_SHIFT leaves room for fewer. */
#define SAVED_EPOCH_MAX (1ull << 23)

/* Lists in `w` all that this master has now; nothing joins or leaves before saved_copy.
 * GAPLESS_UNSUPPORTED: its vectors are on a GPU; GAPLESS_AGAIN: it waits for
 * the workers of the state that it goes on from, which still holds. */
int saved_plan(const struct gapless_master *m, struct state_write *w,
               struct gapless_error *error);
/* A vector, and where it goes. */
struct saved_vector {
    const float *from;    /* NULL: of range r, at version v, in places[v % 2] */
    float *const *places; /* what is published */
    float *to;
    uint64_t count;  /* elements */
    uint32_t worker; /* whose it is; CORE_ALL: of all */
};
typedef void saved_vector_fn(const struct gapless_master *m,
                             const struct saved_vector *vector, void *context);
/* Copies numbers to their places, in the order of saved_plan, and calls fn for each vector. */
void saved_freeze(const struct gapless_master *m, struct state_write *w,
                  saved_vector_fn *fn, void *context);
/* A range of a vector, to its place. `version`: of the range, when it was frozen. */
void saved_copy_range(const struct gapless_master *m, const struct saved_vector *vector,
                      uint32_t range, uint64_t version);
/* The same for all: numbers and vectors. */
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
