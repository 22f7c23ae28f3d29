/* What is made of the statistics of a live run. */
#include "cluster/task/follow.h"

#include <math.h>

#define VIEW_EVERY_S 0.2
#define METRICS_EVERY_S 1.0
#define EVALUATE_EVERY_S 0.4
#define EVALUATE_SHARE 20.0 /* at most one part in this many of a processor's time */
#define RATE_OVER_S 2.0     /* what updates_per_second is averaged over */

struct follow follow_new(struct view_facts *facts, const struct evaluator *evaluator)
{
    return (struct follow){.facts = facts,
                           .evaluator = evaluator,
                           .accuracy = (double)NAN,
                           .test_loss = (double)NAN};
}

void follow_rate(struct follow *follow)
{
    struct view_facts *facts = follow->facts;
    double over = facts->elapsed - follow->rate_from_s;

    if (facts->stats.updates < follow->rate_from || follow->rate_from_s <= 0.0) {
        follow->rate_from = facts->stats.updates;
        follow->rate_from_s = facts->elapsed;
        return;
    }
    if (over > 0.0 && (over >= RATE_OVER_S || facts->updates_per_second <= 0.0)) {
        facts->updates_per_second =
            (double)(facts->stats.updates - follow->rate_from) / over;
        follow->rate_known = true;
    }
    if (over >= RATE_OVER_S) {
        follow->rate_from = facts->stats.updates;
        follow->rate_from_s = facts->elapsed;
    }
}

int follow_begin(struct follow *follow, const char *folder, const char *id,
                 struct gapless_error *error)
{
    if (follow->begun || follow->facts->stats.updates == 0)
        return GAPLESS_OK;
    follow->begun = true;
    return results_open(folder, id, &follow->results, error);
}

bool follow_wants_accuracy(const struct follow *follow)
{
    return follow->facts->stats.updates > 0 && now_seconds() >= follow->evaluate_due;
}

void follow_put_off(struct follow *follow)
{
    follow->evaluate_due = now_seconds() + EVALUATE_EVERY_S;
}

void follow_take(struct follow *follow)
{
    follow->accuracy = follow->facts->accuracy = follow->evaluator->accuracy;
    follow->test_loss = follow->evaluator->mean_loss;
}

void follow_measured(struct follow *follow)
{
    double pause = EVALUATE_SHARE * follow->evaluator->last_s;

    follow_take(follow);
    history_add(&follow->facts->accuracies, follow->accuracy);
    follow->evaluate_due =
        now_seconds() + (pause > EVALUATE_EVERY_S ? pause : EVALUATE_EVERY_S);
}

void follow_metrics(struct follow *follow)
{
    const struct view_facts *facts = follow->facts;
    struct metrics_sample sample = {
        .elapsed = facts->elapsed,
        .updates_per_second =
            follow->rate_known ? facts->updates_per_second : (double)NAN,
        .epoch = (double)facts->stats.gradients / facts->epoch_gradients,
        .accuracy = follow->accuracy,
        .test_loss = follow->test_loss,
        .stats = &facts->stats,
        .grad_norm_sq = (double)NAN,
    };

    if (!follow->begun || follow->results.failed)
        return;
    results_since(&sample, &follow->line_stats);
    results_metrics(&follow->results, &sample);
    follow->line_stats = facts->stats;
    follow->accuracy = follow->test_loss = (double)NAN;
}

void follow_show(struct follow *follow, struct view *view)
{
    struct view_facts *facts = follow->facts;
    double now = now_seconds();

    if (now >= follow->metrics_due && facts->stats.state != GAPLESS_RUN_WAITING) {
        follow->metrics_due = now + METRICS_EVERY_S;
        follow_metrics(follow);
    }
    if (now < follow->view_due)
        return;
    follow->view_due = now + VIEW_EVERY_S;
    if (facts->stats.updates > 0)
        history_add(&facts->losses, facts->stats.loss);
    view_show(view, facts);
}
