/* Settings in the engine's terms, for every command that has a master; and as the note
 * of a record, from which a run can be repeated. */
#ifndef CLUSTER_CONFIG_H
#define CLUSTER_CONFIG_H

#include "cluster/options/options.h"
#include "cluster/task/task.h"
#include <gapless/gapless.h>

#include <stdint.h>

/* The configuration of a master with these settings, for a run of `total` gradients that starts
 * at `initial`. `job`, `note` (see config_note; may be NULL) and what settings and task
 * point to must live as long as *ret is used. The address is left NULL where none is
 * set, and the network's settings are the defaults. */
void config_set(const struct settings *settings, const struct task *task,
                uint64_t total, const float *initial, const char *job, const char *note,
                struct gapless_master_config *ret);

/* Are these settings ones that a master takes, for this task and a run of `total`
 * gradients? GAPLESS_INVALID: the error says what is wrong. What a person should know of
 * them is said on stderr, by the command. To be asked before a folder is made or a process
 * started. */
int config_check(const char *command, const struct settings *settings,
                 const struct task *task, uint64_t total, struct gapless_error *error);

/* Says, a line each on stderr, which options were given that the rule does not read, and
 * which rules do. */
void config_report_unused(const char *command, const struct settings *settings);

/* Do rule and weight decay go together? GAPLESS_INVALID: they do not. To be asked as
 * above. */
int config_check_decay(const struct settings *settings, struct gapless_error *error);

/* Local steps: do they go with the rule and the other options? GAPLESS_INVALID says what
 * does not, and what to take instead; also an option of theirs without them. To be asked
 * as above; the second one of a run of `total` gradients. */
int config_check_local(const struct settings *settings, struct gapless_error *error);
int config_check_local_length(const struct settings *settings, uint64_t total,
                              struct gapless_error *error);
/* The plan of a run of `total` gradients; without local steps an empty one. */
void config_local(const struct settings *settings, const struct task *task,
                  uint64_t total, struct local_plan *ret);

/* The options that decide how a run goes, by name, NULL at the end. */
extern const char *const config_names[];
/* Their values, a line "name=value" each; those that have none are left out.
 * malloc'ed; NULL: no memory. */
char *config_note(const struct settings *settings);

/* Says, unless --quiet, that the warm-up is shorter than usual because the run is. */
void config_report_warmup(const char *command, const struct settings *settings);

/* Is there memory for what the master keeps on the CPU, and for what the workers of this
 * machine share with it? Asked before anything is started; not with --force, and not where
 * the passes run on a GPU. GAPLESS_NO_MEMORY, with both sizes. */
int config_memory(const struct settings *settings, const struct task *task,
                  struct gapless_error *error);

#endif
