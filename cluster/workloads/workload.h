/* A workload of one's own: a program that computes gradients, in any language. It is what
 * `gapless simulate --workload FILE` trains, with workers that are simulated here.
 *
 *     this process, thread i                       child i: FILE, or python3 FILE.py
 *     ┌───────────────────┐   request, a socket   ┌────────────────────────────────┐
 *     │ workload_gradient ├──────────────────────>│ gradient of batch b at params, │
 *     │                   │<──────────────────────┤ into grad                      │
 *     └─────────┬─────────┘   answer: the loss    └────────────────┬───────────────┘
 *               └─────── params | grad: memory of both ────────────┘
 *
 * A thread has a child of its own; children know nothing of each other. A child finds the
 * socket as descriptor 3 and the memory as descriptor 4, two vectors of `count` 32-bit
 * floats, once it has said how long they are. Numbers are in the machine's byte order:
 *
 *     request  u32 what, u32 part, u64 number
 *     answer   u32 failed, u32 bytes, f64 loss, f64 correct, f64 weight, then `bytes` bytes
 *
 *     what  name      part, number       answer
 *     1     hello     thread, seed       text: a JSON object, see below
 *     2     initial   0, 0               params holds the initial parameters
 *     3     gradient  0, batch           grad holds the gradient at params; loss: its mean
 *     4     measure   part, 0            of this part of the test set: the mean loss,
 *                                        the share of samples that are right (NaN: it has
 *                                        no such thing), and the weight of both in a mean
 *
 * A failed answer has a text for a person. The object: "tensors", a list of {"name",
 * "shape"} and whatever else of struct gapless_tensor is not 0; "epoch", batches of one
 * pass over the data; "batch", samples in one; "parts" of the test set (1).
 * A gradient must depend on nothing but seed, batch and params: then a simulation gives
 * the same bits again, whatever the number of threads. python/gapless/workload.py is this
 * contract for models of PyTorch. */
#ifndef GAPLESS_WORKLOADS_WORKLOAD_H
#define GAPLESS_WORKLOADS_WORKLOAD_H

#include <gapless/gapless.h>

#include <stdint.h>

enum {
    WORKLOAD_WORDS_MAX = 32,
    WORKLOAD_PARTS_MAX = 4096,
    WORKLOAD_TEXT_MAX = 8 << 20 /* bytes of a description */
};

/* Longest time for one answer; a child that takes longer is ended. */
#define WORKLOAD_ANSWER_S 600

struct workload;

struct workload_about {
    const struct gapless_tensor *tensors; /* owned by the workload */
    uint32_t tensors_count;
    uint64_t parameters;
    uint64_t epoch; /* gradients */
    uint32_t batch; /* samples in one */
    uint32_t parts; /* of the test set */
};

/* Starts one child of `command`: a file and words for it, separated by blanks. A file that
 * ends in .py is run by $PYTHON, or python3. GAPLESS_MISSING: there is no such file;
 * GAPLESS_INVALID, GAPLESS_PROTOCOL: what it says of itself makes no sense;
 * GAPLESS_PEER_LOST: it ended; what it wrote went to stderr, where its stdout goes, too. */
int workload_open(const char *command, uint64_t seed, struct workload **ret,
                  struct gapless_error *error);
void workload_about(const struct workload *workload, struct workload_about *ret);
/* As many children as threads; before the first gradient. */
int workload_threads(struct workload *workload, uint32_t threads,
                     struct gapless_error *error);
/* The initial parameters: `parameters` floats. */
int workload_initial(struct workload *workload, float *ret,
                     struct gapless_error *error);
/* The mean gradient of batch number `batch`, and its mean loss. Threads may call at once,
 * each with a number of its own. */
int workload_gradient(struct workload *workload, uint32_t thread, uint64_t batch,
                      const float *params, float *ret_grad, double *ret_loss,
                      struct gapless_error *error);
/* One part of the test set. Waits for a gradient of the same thread that is under way. */
struct workload_measured {
    double loss, correct, weight;
};
int workload_measure(struct workload *workload, uint32_t thread, uint32_t part,
                     const float *params, struct workload_measured *ret,
                     struct gapless_error *error);
/* Ends the children. NULL: nothing. */
void workload_close(struct workload *workload);

/* "resnet8" of "bench/studies/resnet8.py depth=20". */
void workload_name(const char *command, char *ret, size_t max);

#endif
