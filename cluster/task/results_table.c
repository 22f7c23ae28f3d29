/* How a run went, as a table for people. */
#include "cluster/task/results.h"

#include "cluster/terminal/canvas.h"
#include "engine/base/clock.h"

#include <math.h>

#define GATES_SHOWN 6u
#define GATES_ALIKE 0.005 /* in two decimals */

static void line_of(FILE *out, const char *name, const struct gapless_summary *of,
                    bool small)
{
    if (of->count == 0)
        (void)fprintf(out, "  %-18s not measured\n", name);
    else if (small)
        (void)fprintf(out, "  %-18s mean %s   p50 %s   p99 %s   max %s\n", name,
                      word_small(of->mean).text, word_small(of->p50).text,
                      word_small(of->p99).text, word_small(of->max).text);
    else
        (void)fprintf(out, "  %-18s mean %s   p50 %.0f   p99 %.0f   max %.0f\n", name,
                      word_real(of->mean, 2).text, of->p50, of->p99, of->max);
}

/* The tensors' gates: all of a few tensors, else the least and the most. */
static void print_tensor_gates(FILE *out, const struct gapless_tensor *tensors,
                               uint32_t count, const double *gates)
{
    uint32_t least = 0, most = 0;

    for (uint32_t i = 1; i < count; i++) {
        least = gates[i] < gates[least] ? i : least;
        most = gates[i] > gates[most] ? i : most;
    }
    if (gates[most] - gates[least] < GATES_ALIKE)
        return; /* as of one gate for all */
    if (count > GATES_SHOWN) {
        (void)fprintf(out, " (least %s %.2f, most %s %.2f)", tensors[least].name,
                      gates[least], tensors[most].name, gates[most]);
        return;
    }
    for (uint32_t i = 0; i < count; i++)
        (void)fprintf(out, "%s%s %.2f", i == 0 ? " (" : ", ", tensors[i].name,
                      gates[i]);
    (void)fprintf(out, ")");
}

static void print_gate(FILE *out, const struct outcome *outcome)
{
    const struct gapless_stats *stats = outcome->stats;
    const struct gapless_model *shape = &outcome->task->shape;

    if (stats->gate_count == 0)
        return;
    (void)fprintf(out, "  %-18s mean %.2f", "gate", stats->gate_mean);
    if (outcome->tensor_gates != NULL)
        print_tensor_gates(out, shape->tensors, shape->tensors_count,
                           outcome->tensor_gates);
    (void)fprintf(out, "\n");
}

/* How far staleness was tamed, in measured numbers only. */
static void print_staleness(FILE *out, const struct outcome *outcome)
{
    const struct gapless_stats *stats = outcome->stats;
    double share = 100.0 * stats->gap_rms.mean / outcome->parameters_rms;

    if (stats->gap_rms.count == 0 || stats->lag.count == 0)
        return;
    (void)fprintf(
        out,
        "\n  While a gradient was under way, %s other updates were applied on "
        "average.\n  When it arrived, the parameters were %s (rms, each) from "
        "where it had been computed",
        word_real(stats->lag.mean, 2).text, word_small(stats->gap_rms.mean).text);
    if (isfinite(share))
        (void)fprintf(out, ":\n  %.2g %% of their own size, %s.\n", share,
                      word_small(outcome->parameters_rms).text);
    else
        (void)fprintf(out, ".\n");
}

static void print_goal(FILE *out, const struct outcome *outcome)
{
    if (outcome->task->is_foreign && outcome->task->workload == NULL) {
        (void)fprintf(out, "\n"); /* no data of ours to measure on */
        return;
    }
    if (outcome->task->workload != NULL && !isfinite(outcome->accuracy)) {
        (void)fprintf(out, "\n  %-18s %s\n", "test loss",
                      word_real(outcome->test_loss, 4).text);
        return;
    }
    if (!outcome->task->has_toy || outcome->simulated == NULL) {
        (void)fprintf(out, "\n  %-18s %s %%   (loss %s)\n", "test accuracy",
                      word_real(100.0 * outcome->accuracy, 2).text,
                      word_real(outcome->test_loss, 4).text);
        return;
    }
    (void)fprintf(out, "\n  %-18s %s\n", "function value",
                  word_small(outcome->test_loss).text);
    (void)fprintf(out, "  %-18s %s at the end, least %s\n", "squared gradient",
                  word_small(outcome->simulated->grad_norm_sq_last).text,
                  word_small(outcome->simulated->grad_norm_sq_min).text);
}

void results_print(const struct outcome *outcome, FILE *out)
{
    const struct gapless_stats *stats = outcome->stats;
    bool small = outcome->simulated != NULL && stats->seconds < 10.0;

    print_goal(out, outcome);
    (void)fprintf(out, "  %-18s %s\n", "training loss",
                  stats->loss < 0.01 ? word_small(stats->loss).text
                                     : word_real(stats->loss, 4).text);
    (void)fprintf(out, "  %-18s %s in %s %ss, %.0f a second\n", "updates",
                  word_count(stats->updates).text,
                  word_real(stats->seconds, small ? 3 : 1).text,
                  outcome->simulated != NULL ? "virtual " : "",
                  stats->seconds > 0.0 ? (double)stats->updates / stats->seconds : 0.0);
    line_of(out, "lag", &stats->lag, false);
    line_of(out, "gap (rms)", &stats->gap_rms, true);
    print_gate(out, outcome);
    (void)fprintf(out, "  %-18s %s not finite or late, %s cut short\n", "dropped",
                  word_count(stats->dropped).text, word_count(stats->partial).text);
    (void)fprintf(out, "  %-18s %u, %u lost\n", "workers", outcome->settings->workers,
                  outcome->workers_lost);
    print_staleness(out, outcome);
    (void)fflush(out);
}

void results_say_workers(const char *command, const struct gapless_worker_stats *worker,
                         uint32_t count, FILE *out)
{
    static const char *const states[] = {"gone", "joining", "working"};
    uint64_t now_ns = clock_ns();
    bool any = false;

    for (uint32_t i = 0; i < count; i++) {
        const struct gapless_worker_stats *w = &worker[i];
        double lag = w->lag_count > 0 ? w->lag_sum / (double)w->lag_count : (double)NAN;

        if (w->state == 0 && w->gradients == 0)
            continue;
        any = true;
        (void)fprintf(out,
                      "gapless %s: worker-%02u (pid %u): %s, %s gradients, %s dropped, "
                      "mean lag %.3g, the last one %.1f s ago, loss %.4g\n",
                      command, i, w->pid, states[w->state < 3 ? w->state : 0],
                      word_count(w->gradients).text, word_count(w->dropped).text, lag,
                      w->seen_ns > 0 ? 1e-9 * (double)(now_ns - w->seen_ns) : 0.0,
                      w->loss);
    }
    if (!any)
        (void)fprintf(out, "gapless %s: no worker has joined yet\n", command);
    (void)fflush(out);
}
