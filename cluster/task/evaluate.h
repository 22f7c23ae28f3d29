/* Test accuracy of parameters that another process is training: measured beside the run,
 * a slice of the test set at a time, so that its caller stays responsive and
 * takes little of a processor. */
#ifndef CLUSTER_EVALUATE_H
#define CLUSTER_EVALUATE_H

#include "cluster/task/task.h"

#include <stdbool.h>
#include <stdint.h>

struct evaluator {
    const struct task *task;
    struct model_scratch *scratch;
    float *theta;  /* the parameters being measured: write them, then evaluator_start */
    uint32_t done; /* test samples of this round; all of them: idle */
    double correct, loss;
    double round_s;             /* processor time of this round so far */
    double last_s;              /* of the last whole round; 0: there was none */
    double accuracy, mean_loss; /* of the last whole round; NaN: there was none */
};

int evaluator_open(const struct task *task, struct evaluator *ret,
                   struct gapless_error *error);
void evaluator_close(struct evaluator *evaluator);
bool evaluator_idle(const struct evaluator *evaluator);
void evaluator_start(struct evaluator *evaluator);
/* Works for about `seconds`. True when that ended a round: accuracy and mean_loss are
 * new. */
bool evaluator_work(struct evaluator *evaluator, double seconds);

/* Monotonic time. */
double now_seconds(void);

#endif
