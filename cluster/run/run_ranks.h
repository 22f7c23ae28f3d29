/* Private to `gapless run`: its state, and the ranks. cmd_run.c opens the run and serves;
 * run_ranks.c finds the program, starts its copies, and notices when they end.
 *
 *     gapless run ─┬─ fork, exec ─> rank 0 ... N-1 ── an offer ──> OUT/offer-XXXXXX/
 *                  ├─ the master, once the offer is there  <── shm ── the ranks
 *                  └─ a thread: what the ranks print
 *
 * The main thread starts processes, serves in slices and looks at signals and ends of
 * children between two of them: nothing happens asynchronously.
 */
#ifndef CLUSTER_RUN_RANKS_H
#define CLUSTER_RUN_RANKS_H

#include "cluster/launch/launch.h"
#include "cluster/launch/relay.h"
#include "cluster/run/serving.h"
#include "cluster/task/offer.h"
#include <gapless/gapless.h>

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#define RUN_FAILURE_MAX 600

struct running {
    struct serving serving;
    struct offer offer;
    bool served; /* the master was opened */
    /* of the run's folder, as it was given and as a path from the root */
    char folder[RESULTS_PATH_MAX], absolute[RESULTS_PATH_MAX];
    char log_folder[RESULTS_PATH_MAX], offer_folder[RESULTS_PATH_MAX];
    char offer_path[RESULTS_PATH_MAX];
    size_t log_missing; /* see results_missing */
    /* the program */
    char file[LAUNCH_PATH_MAX]; /* what is run, found in PATH */
    char **words;               /* its argv; the texts are others' */
    /* the ranks */
    uint32_t ranks;
    struct child *child;
    uint32_t *starts; /* of each rank */
    struct relay *relay;
    uint32_t died, failed_late,
        ended_well; /* of the ranks that are not started again */
    sigset_t signals;
    int signal;   /* that asked for the end; 0: none */
    bool at_once; /* a second one came */
    double stop_by;
    char failure[RUN_FAILURE_MAX]; /* "": none */
};

/* What is to be run, from the operands. False: misuse, which was said. */
bool run_find_program(struct running *run);
/* Starts all ranks. */
int run_start(struct running *run, struct gapless_error *error);
/* Notices which ranks have ended, says so, and starts those again that may be. `over`: the
 * run is: who fails now has failed late. */
void run_check(struct running *run, bool over);
/* Ranks that run. */
uint32_t run_left(const struct running *run);
/* Keeps the first failure. */
void run_fail(struct running *run, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
