/* The folder of a run belongs to one process from before anything is computed until it
 * has ended: a second one that would write there is refused, and one whose folder the
 * program chooses gets another.
 *
 *     runs/DATE-TIME-RULE      made by this process alone; where it is there, -2, -3, ...
 *         .lock                held (flock) while the run lasts; in it the process
 */
#ifndef CLUSTER_RUN_FOLDER_H
#define CLUSTER_RUN_FOLDER_H

#include "cluster/task/results.h"

#include <stdbool.h>
#include <stddef.h>

#define RUN_ID_BYTES 17

/* Zero: nothing is held. */
struct run_folder {
    bool held;
    int lock;
    size_t
        missing; /* how much of the path is the first folder that was made; 0: none */
};

/* Makes the folder, and those above it, and takes its lock. `chosen`: the program has
 * chosen the name, which gets -2, -3 ... at its end until no such folder was there.
 * `inherited`: processes that this one starts hold the lock, too; of a run that was killed it
 * is held until the last of them has ended. GAPLESS_REFUSED: another process has it. */
int run_folder_take(char path[RESULTS_PATH_MAX], bool chosen, bool inherited,
                    struct run_folder *ret, struct gapless_error *error);
/* Gives it up. The folders that were made and are empty are removed: a run that did not
 * begin leaves nothing. */
void run_folder_leave(const char *path, struct run_folder *folder);

/* What all files of a run have in common, 16 hex digits: result.json, run.json, the first line of
 * metrics.jsonl; not model.safetensors, which is the same, byte for byte, for the same
 * parameters. Of a simulation it comes from
 * its settings (as its files do, byte for byte); NULL: by chance. Returns `ret`. */
const char *run_folder_id(const struct settings *settings, char ret[RUN_ID_BYTES]);

#endif
