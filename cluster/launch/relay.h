/* What the ranks of a run print: read from pipes by a thread of its own, kept in a log for
 * each rank, and handed on to this process's stdout and stderr.
 *
 *     rank 3 ── stdout ──┐                 ┌─> LOGS/rank-03.log    all of it, as it came
 *            ── stderr ──┴─> the thread ───┴─> stdout, stderr      "[3] a line"
 *
 * Lines are handed on whole, each in one write, with the rank's number before it where
 * there is more than one rank; of a line that was drawn over (a progress bar) what was
 * there last. What a single rank prints is handed on as it comes. A reader that does not
 * read makes the ranks wait, and nothing else.
 */
#ifndef CLUSTER_RELAY_H
#define CLUSTER_RELAY_H

#include <gapless/gapless.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RELAY_WORDS_MAX 400
#define RELAY_LOG_NAME "rank-%02u.log"

struct relay;

/* `folder` must be there, and is copied; `shown`: not to the logs alone. Starts the
 * thread, which takes no signals. */
int relay_open(uint32_t ranks, const char *folder, bool shown, struct relay **ret,
               struct gapless_error *error);
/* The pipes of a rank, for a process that is to be started, the first or one after
 * relay_ended: *ret_out and *ret_err are for the child, and to
 * be closed by the caller once it was started. Its log goes on where it was. */
int relay_rank(struct relay *relay, uint32_t rank, int *ret_out, int *ret_err,
               struct gapless_error *error);
/* A rank has ended: waits, at most so long, until all that it has printed was read, and
 * gives the last line of its stderr that is not empty, or "". */
void relay_ended(struct relay *relay, uint32_t rank, double seconds,
                 char ret_words[RELAY_WORDS_MAX]);
/* Ends the thread, waiting at most so long for a reader of this process's output; removes
 * empty logs. NULL is a no-op. */
void relay_close(struct relay *relay, double seconds);

#endif
