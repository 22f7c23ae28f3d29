/* The tensors of a model of one's own, as another program lists them in JSON: in an offer,
 * and in what a workload says of itself.
 *
 *     [{"name": "conv1.weight", "shape": [16, 3, 3, 3], "rate": 1, "decay": 0,
 *       "average": 0, "flags": 0}, ...]
 *
 * "name" and "shape", one to four sizes, have to be there; the rest is as in struct
 * gapless_tensor, and 0 where it is missing. */
#ifndef GAPLESS_WORKLOADS_TENSOR_LIST_H
#define GAPLESS_WORKLOADS_TENSOR_LIST_H

#include <gapless/gapless.h>

#include <stdint.h>

struct json_t;

struct tensor_list {
    struct gapless_tensor *tensors; /* malloc'ed; names are the JSON's */
    uint32_t count;
    uint64_t parameters; /* elements of all */
};

/* GAPLESS_INVALID: what it says makes no sense: "WHO has tensor x with ...". Whether the
 * engine takes it is the engine's to say. */
int tensor_list_read(const struct json_t *list, const char *who,
                     struct tensor_list *ret, struct gapless_error *error);
void tensor_list_free(struct tensor_list *list);
/* Elements of one. */
uint64_t tensor_list_elements(const struct gapless_tensor *tensor);

#endif
