/* The job text: what a master tells its workers and observers about what is trained. A
 * "key=value" a line; unknown keys are passed over, so that later versions can add
 * some. */
#ifndef CLUSTER_JOB_H
#define CLUSTER_JOB_H

#include "cluster/task/local.h"
#include "cluster/workloads/data.h"
#include <gapless/gapless.h>

#include <stdbool.h>
#include <stdint.h>

struct job {
    char data[DATA_NAME_MAX], data_dir[512], model[128];
    uint32_t batch;
    uint64_t seed;
    /* for those who watch: "" and 0 where they are not said */
    char rule[64];
    uint64_t epoch;             /* gradients */
    char local[LOCAL_TEXT_MAX]; /* see local_read; "": no local steps */
};

/* GAPLESS_INVALID where a text does not fit or has a line's end in it. data_dir may be
 * NULL. */
int job_set(const char *data, const char *data_dir, const char *model, uint32_t batch,
            uint64_t seed, struct job *ret, struct gapless_error *error);
int job_write(const struct job *job, char ret[GAPLESS_JOB_MAX],
              struct gapless_error *error);
/* GAPLESS_PROTOCOL where a key is missing or its value is not one. */
int job_read(const char *text, struct job *ret, struct gapless_error *error);
/* Is it the text of another program, with a model of its own (gapless run)? Then no key of
 * the ones above is in it. */
bool job_is_foreign(const char *text);
/* The first key in which two jobs differ for a worker, or NULL. The folder is not
 * compared: it may differ between machines. */
const char *job_difference(const struct job *a, const struct job *b);

#endif
