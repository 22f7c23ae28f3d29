/* A master in this process: of `gapless master`, and of `gapless run`. They open it and
 * serve; serving.c shows how the run goes, and writes what it leaves, as gapless train does.
 * A master that train has started (--launched) writes the model alone.
 */
#ifndef CLUSTER_SERVING_H
#define CLUSTER_SERVING_H

#include "cluster/options/options.h"
#include "cluster/run/background.h"
#include "cluster/task/follow.h"
#include "cluster/task/metrics.h"
#include "cluster/task/network.h"
#include "cluster/task/run_folder.h"
#include "cluster/task/states.h"
#include "cluster/task/task.h"
#include <gapless/gapless.h>

#include <stdbool.h>
#include <sys/types.h>

struct serving {
    const char *command; /* "master" */
    struct settings settings;
    int argc;
    char **argv;
    struct task task;
    struct gapless_master_config config;
    struct network network;
    char address[ADDRESS_MAX]; /* where it had to be found */
    struct gapless_master *master;
    struct states states;
    struct run_folder hold; /* on --out */
    char run_id[RUN_ID_BYTES];
    struct gapless_worker_stats *worker;
    double *tensor_gates;         /* of each tensor */
    struct background background; /* measures; not open if launched, or without data */
    struct view view;
    struct view_facts facts;
    struct follow follow;
    struct metrics metrics;
    double start;
    bool saved;                   /* the final parameters are in their file */
    bool stopped;                 /* before its end, by a signal */
    struct gapless_error failure; /* of the serving; status 0: none */
    bool failure_said;            /* before the table */
    bool observed;                /* an observer was there to see it */
    pid_t parent;
};

/* For a master that is open: room for what is known of its workers and tensors. */
int serving_room(struct serving *serving, struct gapless_error *error);
/* Opens the view, and says where the master listens and what is kept. */
void serving_open_view(struct serving *serving);
/* Between two slices of serving: statistics, accuracy, a line of metrics.jsonl, the
 * picture. */
void serving_show(struct serving *serving);
/* A line of stderr for each worker that is, or was, there (SIGUSR1). */
void serving_say_workers(struct serving *serving);
/* After the run: writes the model into --out, once; nothing where nothing was learnt. */
int serving_save(struct serving *serving, struct gapless_error *error);
/* The same; unless launched also measures it, writes result.json
 * and prints the table of the run. Serves observers meanwhile. Nothing where nothing was
 * learnt. */
int serving_keep(struct serving *serving, struct gapless_error *error);

/* Lets observers read the end: as long as there are any, for some seconds. Of a master that
 * was launched, also until one has come. */
void serving_linger(struct serving *serving);
/* Closes what serving_room and the run have opened, and the master. */
void serving_close(struct serving *serving);

#endif
