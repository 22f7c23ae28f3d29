/* The model that a program of one's own offers to the run that it was started in: a
 * safetensors file, whose tensors are the initial parameters and whose metadata, texts,
 * say what is to be done with them.
 *
 *     gapless.offer       "1": the form that is described here
 *     gapless.tensors     a JSON list, in the order of the tensors in the file
 *                         (cluster/workloads/tensor_list.h)
 *     gapless.options     a JSON object: options of a master, without the dashes, to
 *                         their values: {"rule": "adamw", "lr": "0.001"}; a flag is "1"
 *     gapless.job         a text for the workers (gapless_worker_job)
 *     gapless.gradients   the length of the run; "0": until it is ended
 *     gapless.epoch       gradients of an epoch, for spans in epochs; "0": not known
 *
 * The first two have to be there. Nothing that an offer says is believed before it was
 * checked: an error says in one line what is wrong.
 */
#ifndef CLUSTER_OFFER_H
#define CLUSTER_OFFER_H

#include "cluster/options/options.h"
#include "cluster/task/tensor_file.h"
#include "cluster/workloads/tensor_list.h"
#include <gapless/gapless.h>

#include <stdint.h>

struct offer {
    struct tensor_file file;
    struct json_t *list, *options; /* names and texts are theirs */
    struct tensor_list tensors;
    struct gapless_model model; /* points to them */
    uint64_t parameters, gradients, epoch;
    float *initial;
    const char *job; /* "": none */
};

/* Reads all of it. GAPLESS_CORRUPT, GAPLESS_MODEL, GAPLESS_INVALID, GAPLESS_IO or
 * GAPLESS_NO_MEMORY; *ret is closed then. */
int offer_open(const char *path, struct offer *ret, struct gapless_error *error);
/* Sets its options, but those that were typed or are in the environment; texts are the
 * offer's. GAPLESS_INVALID: one is no option of `command`, or has no such value. */
int offer_options(const struct offer *offer, enum option_command command,
                  struct settings *settings, struct gapless_error *error);
/* Also of one that was not opened, if it is zero. */
void offer_close(struct offer *offer);

#endif
