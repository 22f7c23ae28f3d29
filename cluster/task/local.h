/* Local steps: what a worker does between two exchanges with the master (asynchronous
 * DiLoCo: Douillard et al., arXiv 2311.08105; Liu et al., arXiv 2401.09135).
 *
 *     x = sent
 *     for each of the batches b, b + 1, ... of this exchange:
 *         x -= a step of the inner optimizer, by the gradient of that batch at x
 *     g = sent - x                                   handed in, in place of a gradient
 *
 * To the master's rule, the outer optimizer, g is a gradient like any other; nothing is
 * added to it. The inner rate follows the run's schedule, by the number of the batch; the
 * outer rate is constant. Inner optimizers, with the letters of torch.optim:
 *
 *     sgd     v = mu*v + d;  x -= lr*v                                   (SGD, momentum mu)
 *     adamw   m = b1*m + (1 - b1)*d;  s = b2*s + (1 - b2)*d*d;  after step t
 *             x -= lr*((m/(1 - b1^t)) / (sqrt(s/(1 - b2^t)) + 1e-8) + decay*x)
 *             with the old x in the bracket; no decay for tensors of one dimension
 *
 * v, m, s and t stay with the worker from one exchange to the next; one that joins again
 * starts anew, and so does one whose parameters were no longer finite. */
#ifndef CLUSTER_LOCAL_H
#define CLUSTER_LOCAL_H

#include <gapless/gapless.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes of a plan as text, with its end. */
#define LOCAL_TEXT_MAX 512
/* Added to the root of the squares, as in torch. */
#define LOCAL_EPSILON 1e-8

enum local_inner {
    LOCAL_SGD,
    LOCAL_ADAMW
};

struct local_plan {
    uint32_t steps; /* of an exchange, at most; 0: no local steps */
    enum local_inner inner;
    double momentum; /* mu, or b1 */
    double beta2, decay;
    struct gapless_schedule
        schedule;   /* of the inner rate, by batches; warmup_from set */
    uint64_t total; /* batches of the run */
};

/* For the job text: one line, "steps=16 inner=adamw ...". False: it does not fit. */
bool local_write(const struct local_plan *plan, char ret[LOCAL_TEXT_MAX]);
/* "" is a plan without local steps. GAPLESS_PROTOCOL says what is missing or wrong. */
int local_read(const char *text, struct local_plan *ret, struct gapless_error *error);

/* Of one worker: its x and the state of its inner optimizer. */
struct local;

/* `plan` is copied; `model` is read only here. GAPLESS_NO_MEMORY. */
int local_new(const struct local_plan *plan, const struct gapless_model *model,
              struct local **ret, struct gapless_error *error);
void local_free(struct local *local); /* NULL: nothing */

/* The mean loss of a batch at params, and its gradient: all parameters of each. */
typedef int (*local_gradient)(void *context, uint64_t batch, const float *params,
                              float *ret_grad, double *ret_loss,
                              struct gapless_error *error);

/* `steps` batches from `batch` on, from `sent`; ret_grad gets sent - x, and *ret_loss the
 * mean of the batches' losses. Fails as `gradient` does, and then ret_grad has any
 * content. */
int local_exchange(struct local *local, uint64_t batch, uint32_t steps,
                   const float *sent, local_gradient gradient, void *context,
                   float *ret_grad, double *ret_loss, struct gapless_error *error);

#endif
