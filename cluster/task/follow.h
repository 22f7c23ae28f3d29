/* Following a live run, for every command that watches one: how fast it is, what it has
 * learnt, its lines of metrics.jsonl and its picture.
 *
 *     each tick:  facts->stats, facts->elapsed are fetched
 *                 follow_rate ─> follow_begin ─> an evaluation, if follow_wants_accuracy
 *                 ─> follow_show
 */
#ifndef CLUSTER_FOLLOW_H
#define CLUSTER_FOLLOW_H

#include "cluster/task/evaluate.h"
#include "cluster/task/results.h"
#include "cluster/terminal/view.h"

#include <stdbool.h>
#include <stdint.h>

struct follow {
    struct view_facts *facts;
    const struct evaluator *evaluator;
    struct results results;
    /* as last taken from the evaluator; NaN: not since the last line */
    double accuracy, test_loss;
    struct gapless_stats
        line_stats; /* as they were at the last line; 0: there is none */
    bool begun; /* there was an update: the files of an earlier run were set aside */
    double evaluate_due, metrics_due, view_due;
    double rate_from_s; /* the stretch updates_per_second is measured over */
    uint64_t rate_from;
    bool rate_known; /* updates_per_second was measured */
};

/* The evaluator may be at work in another thread: it is only looked at in follow_take. */
struct follow follow_new(struct view_facts *facts, const struct evaluator *evaluator);
/* updates_per_second, over the last seconds. */
void follow_rate(struct follow *follow);
/* At the first update: sets the files of an earlier run in `folder` aside and opens
 * metrics.jsonl. Until then the folder stays as it was. */
int follow_begin(struct follow *follow, const char *folder, const char *id,
                 struct gapless_error *error);
/* Is it time for another look at the accuracy? */
bool follow_wants_accuracy(const struct follow *follow);
/* There are no parameters to measure just now: later. */
void follow_put_off(struct follow *follow);
/* What the evaluator has found, for the picture and the next line of metrics.jsonl. */
void follow_take(struct follow *follow);
/* A round of the evaluator has ended: follow_take, and a point of the curve. The next
 * round is as far away as keeps measuring to a twentieth of a processor. */
void follow_measured(struct follow *follow);
/* A line of metrics.jsonl, with the accuracy if it was measured since the last one; nothing
 * before follow_begin. */
void follow_metrics(struct follow *follow);
/* A line of metrics.jsonl and another picture, each if it is time. */
void follow_show(struct follow *follow, struct view *view);

#endif
