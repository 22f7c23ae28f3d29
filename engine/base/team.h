/* Threads that go through a list together: the caller, and helpers that sleep in between.
 * Which of them does which entry is left to chance; nothing of the result may depend on it. */
#ifndef GAPLESS_TEAM_H
#define GAPLESS_TEAM_H

#include <stdint.h>

struct team;
/* Entry `index` of the list, by thread number `thread`, of which the caller is 0. */
typedef void team_fn(void *context, uint32_t index, uint32_t thread);

/* `threads`, the caller among them; at least 1. Helpers block all signals. NULL: no memory,
 * or no more threads. */
struct team *team_new(uint32_t threads);
uint32_t team_threads(const struct team *team);
/* Entries 0 .. count - 1, each once, in order of their beginning; returns when all are
 * done. From one thread at a time. */
void team_run(struct team *team, uint32_t count, team_fn *fn, void *context);
void team_free(struct team *team); /* NULL is a no-op */

#endif
