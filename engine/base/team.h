/* Threads that help one other, the owner: it puts entries into a list and looks now and then
 * for what is done; helpers do them, and sleep in between. The owner may take entries for
 * itself.
 *
 *   owner    team_put ──> │ entry │ entry │ ──> a helper: fn(entry) ──> │ done │ ──> team_done
 *                              └──> team_take: the owner itself
 *
 * Which of them does which entry is left to chance; nothing of the result may depend on it. */
#ifndef GAPLESS_TEAM_H
#define GAPLESS_TEAM_H

#include <stdbool.h>
#include <stdint.h>

struct team;
/* Does an entry, as helper number `thread`, from 1 on. */
typedef void team_fn(void *context, uint32_t entry, uint32_t thread);

/* `threads`, the owner among them; at least 1. Entries are numbers below `entries`, each of
 * which is put again only after it was done. Helpers block all signals. NULL: no memory, or
 * no more threads. What follows is for the owner. */
struct team *team_new(uint32_t threads, uint32_t entries, team_fn *fn, void *context);
uint32_t team_threads(const struct team *team);
/* What it wrote before is there for who does the entry; they begin in this order. */
void team_put(struct team *team, uint32_t entry);
/* The first entry that nobody has begun, for the owner itself; false: there is none. */
bool team_take(struct team *team, uint32_t *ret);
/* One that a helper has done, and all that it wrote is there; false: there is none. `wait`:
 * as long as helpers are at work, until there is one. */
bool team_done(struct team *team, bool wait, uint32_t *ret);
/* Forgets what nobody has begun, and what is done; waits for the helpers. */
void team_drop(struct team *team);
/* Likewise, and ends them. NULL is a no-op. */
void team_free(struct team *team);

#endif
