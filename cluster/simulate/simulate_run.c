/* The run of a simulation: from point to point, with a line of metrics.jsonl at
 * each. */
#include "cluster/simulate/simulate.h"

#include "cluster/task/evaluate.h"
#include "cluster/program/program.h"
#include "cluster/terminal/view.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define LINES_LEAST 50u
#define STRETCH_S 0.1 /* between two looks at the terminal and at signals */

/* ---- points -------------------------------------------------------------- */

struct simulate_points simulate_points_of(struct span evaluate_every, uint64_t total,
                                          double epoch)
{
    uint64_t every = span_gradients(evaluate_every, total, epoch);
    struct simulate_points ret = {.every = every, .parts = 1};

    if (every == 0) {
        if (evaluate_every.amount > 0.0)
            ret.every = 1; /* less than a gradient */
        else
            ret.every = total; /* only at the end */
    }
    if (ret.every > total)
        ret.every = total;
    while (ret.parts < ret.every && ret.parts * total < LINES_LEAST * ret.every)
        ret.parts++;
    return ret;
}

uint64_t simulate_point(const struct simulate_points *points, uint64_t line)
{
    return line / points->parts * points->every +
           line % points->parts * points->every / points->parts;
}

/* ---- signals ------------------------------------------------------------- */

static volatile sig_atomic_t asked; /* the signal that asks for the end; 0: none */

/* The first one is for the loop to see; a second one ends the process. */
static void on_signal(int number)
{
    asked = number;
    (void)signal(number, SIG_DFL);
}

static void catch_signals(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR2, SIGXCPU};
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

    for (unsigned i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        (void)sigaction(numbers[i], &action, NULL);
    (void)signal(SIGPIPE,
                 SIG_IGN); /* a log without a reader is no reason to end a run */
}

/* ---- lines --------------------------------------------------------------- */

static const float *params_of(const struct simulate *s)
{
    return gapless_master_params(gapless_simulation_master(s->simulation));
}

/* What the gate says of kappa, once. */
static void advise(struct simulate *s)
{
    char advice[256];

    if (s->advised || !gapless_gate_advice(&s->stats, advice, sizeof advice))
        return;
    s->advised = true;
    progress_leave(&s->progress);
    report_failure("simulate", "%s", advice);
}

static void look(struct simulate *s)
{
    gapless_master_stats(gapless_simulation_master(s->simulation), &s->stats);
    gapless_simulation_stats(s->simulation, &s->sim);
    if (s->half_updates == 0 && s->stats.gradients >= s->total / 2) {
        s->half_updates = s->stats.updates;
        s->half_master_s = s->sim.master_s;
    }
    s->facts.gradients = s->stats.gradients;
    s->facts.virtual_s = 1e-9 * (double)s->sim.virtual_ns;
    s->facts.real_s = now_seconds() - s->start;
    s->facts.loss = view_loss(&s->stats);
    advise(s);
}

static void measure(struct simulate *s)
{
    double before = now_seconds();

    pool_measure(&s->pool, params_of(s), &s->accuracy, &s->test_loss);
    s->measured_at = s->stats.gradients;
    s->facts.accuracy = s->accuracy;
    s->evaluate_s += now_seconds() - before;
}

static struct metrics_sample sample_of(const struct simulate *s, bool measured)
{
    double passed = s->facts.virtual_s - s->line_virtual;
    struct metrics_sample ret = {
        .elapsed = s->facts.virtual_s,
        .updates_per_second =
            passed > 0.0 ? (double)(s->stats.updates - s->line_stats.updates) / passed
                         : (double)NAN,
        .epoch = (double)s->stats.gradients / (double)task_epoch(&s->task),
        .accuracy = measured ? s->accuracy : (double)NAN,
        .test_loss = measured ? s->test_loss : (double)NAN,
        .stats = &s->stats,
        .grad_norm_sq = s->grad_norm_sq_last,
    };

    results_since(&ret, &s->line_stats);
    return ret;
}

/* The files of an earlier run are set aside when there is something to put in their
 * place. */
static void begin(struct simulate *s)
{
    struct gapless_error error = {0};

    if (s->begun || s->failure[0] != '\0' || s->stats.updates == 0)
        return;
    if (results_open(s->folder, s->settings.run_id, &s->results, &error) !=
        GAPLESS_OK) {
        (void)snprintf(s->failure, sizeof s->failure, "%s", error.text);
        return;
    }
    s->begun = true;
    if (s->has_line) /* else it goes on from a state */
        results_metrics(&s->results, &s->first);
}

static void write_line(struct simulate *s, const struct metrics_sample *sample)
{
    begin(s);
    if (!s->begun) {
        if (s->has_line)
            return;
        s->first_stats = s->stats;
        s->first = *sample;
        s->first.stats = &s->first_stats;
        return;
    }
    if (s->results.failed)
        return;
    results_metrics(&s->results, sample);
    if (s->results.failed) {
        progress_leave(&s->progress);
        report_failure("simulate", "%s; the run goes on without",
                       s->results.error.text);
    }
}

/* The state as it is now, measured or not. */
static void line(struct simulate *s, bool measured)
{
    struct metrics_sample sample;

    if (measured && s->measured_at != s->stats.gradients)
        measure(s);
    if (s->task.has_toy) {
        s->grad_norm_sq_last = toy_grad_norm_sq(&s->task.toy, params_of(s));
        if (!(s->grad_norm_sq_last >= s->grad_norm_sq_min))
            s->grad_norm_sq_min = s->grad_norm_sq_last;
    }
    sample = sample_of(s, measured);
    write_line(s, &sample);
    s->has_line = true;
    s->line_stats = s->stats;
    s->line_virtual = s->facts.virtual_s;
}

/* ---- the run ------------------------------------------------------------- */

/* A stretch that takes about STRETCH_S, up to `point` at most. */
static int stretch(struct simulate *s, uint64_t point, struct gapless_error *error)
{
    uint64_t next = s->stats.gradients + s->stride;
    double before = now_seconds(), took;
    struct gapless_error reason;
    int status =
        gapless_simulation_run(s->simulation, next < point ? next : point, error);

    took = now_seconds() - before;
    if (took < STRETCH_S / 2.0 && s->stride < (1ull << 40))
        s->stride *= 2;
    else if (took > STRETCH_S * 2.0 && s->stride > 1)
        s->stride /= 2;
    look(s);
    progress_show(&s->progress, &s->facts);
    if (pool_failed(&s->pool, &reason)) {
        *error = reason;
        return reason.status;
    }
    return status;
}

/* A state, if it is time for one. */
static int save(struct simulate *s, struct gapless_error *error)
{
    int status;

    if (s->save_every == 0 || s->stats.gradients < s->save_at)
        return GAPLESS_OK;
    while (s->save_at <= s->stats.gradients)
        s->save_at += s->save_every;
    status =
        states_save_simulation(&s->states, s->simulation, s->settings.save_keep, error);
    look(s);
    return status;
}

/* GAPLESS_OK: the point was reached. */
static int go_to(struct simulate *s, uint64_t point, struct gapless_error *error)
{
    int status = GAPLESS_OK;

    while (status == GAPLESS_OK && s->stats.gradients < point && asked == 0) {
        status = stretch(
            s, s->save_every > 0 && s->save_at < point ? s->save_at : point, error);
        if (status == GAPLESS_OK)
            status = save(s, error);
    }
    return status;
}

/* Where the parameters are not measured yet, or have moved since the last line. */
static void last_line(struct simulate *s)
{
    bool stale = s->measured_at != s->stats.gradients;

    if (stale || s->line_stats.gradients != s->stats.gradients ||
        s->line_stats.updates != s->stats.updates)
        line(s, true);
}

void simulate_run(struct simulate *s)
{
    struct simulate_points points = simulate_points_of(
        s->settings.evaluate_every, s->total, (double)task_epoch(&s->task));
    bool at_start = s->settings.evaluate_every.amount > 0.0;
    struct gapless_error error = {0};
    int status = GAPLESS_OK;

    s->measured_at = UINT64_MAX;
    s->accuracy = s->test_loss = s->facts.accuracy = (double)NAN;
    s->grad_norm_sq_min = s->grad_norm_sq_last = (double)NAN;
    s->stride = 1;
    s->start = now_seconds();
    catch_signals();
    look(s);
    s->resumed_at = s->stats.gradients;
    line(s, at_start);
    for (uint64_t i = 1; status == GAPLESS_OK && asked == 0 && s->failure[0] == '\0';
         i++) {
        uint64_t point = simulate_point(&points, i);
        bool last = point >= s->total;

        if (!last && point <= s->resumed_at)
            continue; /* of the run that it goes on from */

        status = go_to(s, last ? UINT64_MAX : point, &error);
        if (status == GAPLESS_OK && asked == 0)
            line(s, i % points.parts == 0);
    }
    if (status != GAPLESS_OK && status != GAPLESS_STOPPED && s->failure[0] == '\0')
        (void)snprintf(s->failure, sizeof s->failure, "%s",
                       error.text[0] != '\0' ? error.text : gapless_strerror(status));
    s->signal = asked;
    if (asked != 0 && s->save_every > 0 && s->failure[0] == '\0') {
        s->save_at = 0;
        if (save(s, &error) != GAPLESS_OK)
            (void)snprintf(s->failure, sizeof s->failure, "%s", error.text);
    }
    last_line(s);
    progress_leave(&s->progress);
}
