/* The states of a run for commands that have a master: where they are kept and how often, which
 * one a run goes on from, with which settings; and parameters alone to begin with.
 *
 *     OUT/state/state-0000000000001234.safetensors     by gradients
 *     OUT/state/epoch                                  how often the run was begun again
 */
#ifndef CLUSTER_STATES_H
#define CLUSTER_STATES_H

#include "cluster/options/options.h"
#include "cluster/task/model_file.h"
#include "cluster/task/results.h"
#include "cluster/task/task.h"
#include <gapless/gapless.h>

#define STATES_TEXTS (MODEL_FILE_TEXTS + 4)

struct state_file;

struct states {
    char folder[RESULTS_PATH_MAX]; /* "": nothing is saved */
    char from[RESULTS_PATH_MAX];   /* the state that the run goes on from; "": none */
    uint64_t gradients;            /* of that */
    struct model_file_metadata metadata;
    const char *text[STATES_TEXTS + 1]; /* of the files; ends with NULL */
    char *note;
};

/* The last state that is whole of a run's folder, of a folder of states, or a file; and its
 * gradients. `command` says which ones were damaged. */
int states_latest(const char *command, const char *where, char ret[RESULTS_PATH_MAX],
                  uint64_t *ret_gradients, struct gapless_error *error);
/* The path of that state; of a file, the file. *ret_file: opened; NULL: not wanted, and then
 * a file is not looked into. */
int states_path(const char *command, const char *where, char ret[RESULTS_PATH_MAX],
                struct state_file **ret_file, struct gapless_error *error);
/* --resume: what was not given on the command line is as the run had it. What settings point to
 * stays until the process ends. --out is the run's folder unless given. GAPLESS_MISSING, GAPLESS_CORRUPT. Without --resume nothing. */
int states_settings(enum option_command command, struct settings *settings,
                    struct gapless_error *error);
/* --save-every: "5min", "1000updates", "1epoch", "0.1"; "0": never. GAPLESS_INVALID. */
int states_every(const char *text, uint64_t total, double epoch, int64_t *ret_ns,
                 uint64_t *ret_gradients, struct gapless_error *error);
/* --resume: does the state belong to this task and these settings? Before a folder is made. */
int states_check(const struct settings *settings, const struct task *task,
                 uint64_t total, struct gapless_error *error);
/* Sets what `config` has of states, for a run into `out` (NULL: nothing is saved), makes
 * the folder, and numbers the start. `config` is otherwise set. */
int states_open(const struct settings *settings, const struct task *task,
                const char *out, struct states *ret,
                struct gapless_master_config *config, struct gapless_error *error);
void states_close(struct states *states);
/* Saves a run that has ended before its end. Nothing where nothing is saved. */
int states_save(const struct states *states, const struct gapless_master *master,
                struct gapless_error *error);
/* The same of a simulation, between two calls of its run; `keep` stay. */
int states_save_simulation(const struct states *states,
                           struct gapless_simulation *simulation, uint32_t keep,
                           struct gapless_error *error);
/* --init: the parameters of a file, in place of those in theta. */
int states_initial(const struct settings *settings, const struct task *task,
                   float *ret_theta, struct gapless_error *error);

#endif
