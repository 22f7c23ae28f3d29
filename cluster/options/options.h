/* The options of every subcommand: one table drives the command line, the environment,
 * the help text and what is said of mistakes.
 *
 *     default in the table  <  GAPLESS_NAME in the environment  <  --name typed
 *
 * A value goes through the same strict reader wherever it came from. Texts in `struct
 * settings` point into the table, the environment or argv. Only study, report, evaluate
 * and run take operands, words without a dash; of run the first one ends the options.
 */
#ifndef CLUSTER_OPTIONS_H
#define CLUSTER_OPTIONS_H

#include "cluster/options/address.h"
#include "cluster/options/parse.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define OPTIONS_MAX 160

enum option_command {
    FOR_NOTHING = 0,
    FOR_TRAIN = 1,
    FOR_MASTER = 2,
    FOR_WORKER = 4,
    FOR_OBSERVE = 8,
    FOR_RULES = 16,
    FOR_DOCTOR = 32,
    FOR_SIMULATE = 64,
    FOR_STUDY = 128,
    FOR_REPORT = 256,
    FOR_PLAN = 512,
    FOR_BENCH = 1024, /* without a benchmark's name */
    FOR_BENCH_RULES = 2048,
    FOR_BENCH_UPDATE = 4096,
    FOR_BENCH_TRANSPORT = 8192,
    FOR_BENCH_GPU = 16384,
    FOR_EVALUATE = 32768,
    FOR_RUN = 65536,
    FOR_INSPECT = 131072,
    FOR_EXPORT = 262144
};

enum option_source {
    OPTION_UNSET,
    OPTION_DEFAULT,
    OPTION_ENVIRONMENT,
    OPTION_FLAG
};

/* Lists of an option. */
#define COUNTS_MAX 16
struct counts {
    uint32_t count;
    uint64_t at[COUNTS_MAX];
};
#define FILES_MAX 8
struct files {
    uint32_t count;
    const char *at[FILES_MAX];
};

struct settings {
    /* what is trained */
    const char *data, *data_dir, *model, *workload;
    uint32_t batch;
    uint64_t seed;
    /* how it moves */
    const char *rule, *gap_ref, *gate;
    double lr, momentum, kappa, beta2, epsilon, decay, rest_scale, lambda, horizon;
    bool horizon_set;
    double clip_norm, weight_decay;
    bool ssgd_scale_rate, decay_all;
    /* local steps; 0: none */
    uint32_t local_steps;
    bool adapt_steps;
    const char *inner;
    double inner_lr, inner_momentum, inner_beta2, inner_decay;
    struct span warmup;
    struct milestones steps;
    bool cosine;
    double cosine_to;
    /* the run */
    double epochs;
    uint32_t workers, workers_max, workers_wait, observers_max, gap_every, number;
    uint32_t drop_lag, matrix_threads;
    uint64_t range_elements;
    double worker_timeout, connect_timeout;
    const char *address, *record;
    /* states: how often they are saved, which one a run goes on from, how many stay */
    const char *save_every, *resume, *init;
    uint32_t save_keep;
    int data_fd;
    bool launched;
    const char *run_id;  /* see run_folder_id */
    bool force;          /* also with less memory than the run needs */
    const char *metrics; /* where they are served; NULL: nowhere */
    uint64_t block_elements;
    double elastic;
    uint32_t period;
    /* the network: transport is NULL only where there is no master to talk to, or
     * to be */
    const char *transport, *listen, *token_file, *rdma_device;
    bool insecure;
    uint32_t channels, retries, ack_timeout;
    double reconnect;
    char address_text[ADDRESS_MAX]; /* of an address that was put together */
    /* GPUs */
    const char *device, *worker_device, *gpu_flush, *group;
    bool allow_staging;
    /* the simulation */
    const char *clock, *events, *replay, *gradients;
    double batch_time, latency, bandwidth, pass_time;
    uint32_t threads;
    struct span evaluate_every;
    /* a study, a report */
    uint32_t jobs;
    double target;
    bool dry_run, csv;
    const char *title;
    /* a plan; link: bytes a second, 0: shared memory, below: as measured */
    uint64_t parameters;
    double link, gpu_memory, cpu_bandwidth;
    const char *gpu;
    uint32_t shards;
    struct files measured;
    /* a benchmark; sets are bits, of the engine's rules or of the option's choices */
    uint64_t rules, ops, checks;
    struct counts sizes;
    uint32_t rounds, reps;
    double seconds;
    const char *server, *rdma, *json_file;
    bool check, sleep, only_server, bytes, accept, quick;
    /* what is shown and kept */
    const char *out, *save, *format;
    const char *part; /* of a data set */
    bool quiet, no_color, json, once, accuracy, view;
    double interval;
    bool help;
    /* another program, and how it is started */
    uint32_t restarts;
    bool module;
    const char *log_dir;
    /* what was given without a dash: in argv */
    char **operand;
    int operands;
    /* where each value came from, by row of the table */
    const char *text[OPTIONS_MAX];
    enum option_source source[OPTIONS_MAX];
};

enum options_outcome {
    OPTIONS_GO,
    OPTIONS_HELPED,
    OPTIONS_WRONG
};

/* Reads the environment and argv[1...] for one subcommand into *ret. OPTIONS_HELPED:
 * --help or -h was asked for and printed to stdout. OPTIONS_WRONG: the mistake was printed to
 * stderr; the caller exits with 2. argv may be permuted. */
enum options_outcome options_read(enum option_command command, int argc, char **argv,
                                  struct settings *ret);
/* The defaults alone, without environment and command line. */
void options_defaults(enum option_command command, struct settings *ret);
/* Sets one option, as if it were on the command line (of a flag: 1 or 0); `text` must
 * outlive `ret`. False: `why` is a clause that follows the name, "must be at least 1"
 * or "is no option of gapless simulate". Nothing is printed. */
bool options_set(enum option_command command, const char *name, const char *text,
                 struct settings *ret, struct parse_error *reason);
/* Sets the defaults that follow from other options, of a run: the rate follows the rule and
 * local steps, a cosine has no milestones, and a warm-up is at most a tenth of the run,
 * unless they were given. options_read has done it. */
void options_derive(enum option_command command, struct settings *ret);
/* Is the warm-up a tenth of the run because the default was longer? */
bool options_warmup_shortened(const struct settings *settings);
/* Copies one option from another set of the same command. */
void options_take(struct settings *to, const struct settings *from, const char *name);
/* Where the value of an option came from. The name must be in the table. */
enum option_source options_source(const struct settings *settings, const char *name);
/* Its value as it was written; NULL: it has none. Of a flag "1" or what was written. */
const char *options_text(const struct settings *settings, const char *name);
/* Whether an option has the same value in both, however written; or in none of them. */
bool options_same(const struct settings *a, const struct settings *b, const char *name);

/* Appends to argv (room for `max`, of which *count are used) "--name=value" for every
 * option of `command` that `settings` holds a value of, and that is not in the
 * NULL-ended list `except`. The texts are malloc'ed. False: no memory or no room. */
bool options_emit(const struct settings *settings, enum option_command command,
                  const char *const *except, char **argv, size_t max, size_t *count);

/* All about a command (--help); or the options to begin with, and an example (-h). */
void options_help(enum option_command command, FILE *out);
void options_basics(enum option_command command, FILE *out);
/* "train" for FOR_TRAIN. */
const char *options_command_name(enum option_command command);

#endif
