/* The compute table driven as a master drives it: arrays of one small model, lags,
 * samples, and the scalars of the rules that want one number for the whole vector. */
#ifndef GAPLESS_TESTS_DRIVE_H
#define GAPLESS_TESTS_DRIVE_H

#include "engine/compute/compute.h"
#include "engine/compute/matrices.h"
#include "engine/rules/element.h"
#include "engine/rules/rules.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    DRIVE_WORKERS = 32
};

struct drive {
    const struct compute *compute;
    const struct rule *rule;
    struct settings settings;
    struct blocks blocks;
    size_t k, n; /* elements, and padded */
    uint32_t workers, active;
    number *theta, *all, *stat, *square, *grad, *published;
    uint16_t *decays; /* of every other tensor, as drive_decays says */
    double *dots;
    number *own[DRIVE_WORKERS], *sent[DRIVE_WORKERS];
    number *slim[DRIVE_WORKERS]; /* velocity at the worker */
    number *x[DRIVE_WORKERS];    /* easgd: parameters of the worker's own */
    uint64_t steps[DRIVE_WORKERS], period;
    uint64_t version, read[DRIVE_WORKERS], samples;
    struct step_history history;
    uint64_t own_updates[DRIVE_WORKERS];
    double global_stat;
    unsigned want;
    bool whole; /* RULE_BLOCK: one gate for all blocks */
    /* RULE_MATRIX: what the elements are; NULL: no matrix */
    const struct stretch *stretch;
    uint32_t stretches;
    struct matrix_scratch *scratch;
    number *mean[DRIVE_WORKERS];
    struct sums sums; /* of the last update */
};

/* The tests' only source of chance: a 64-bit generator (Knuth's constants), from a
 * seed. */
static uint64_t drive_random = 1;

static inline double drive_draw(void)
{
    drive_random = drive_random * 6364136223846793005ull + 1442695040888963407ull;
    return (double)(drive_random >> 11) * 0x1p-53;
}

/* Gradient number `step` of n elements at the parameters x, a bowl with noise; the same for
 * the same arguments. */
static inline void drive_gradient(const number *x, int step, int n, double *ret)
{
    drive_random = (uint64_t)step * 2654435761u + 99;
    for (int j = 0; j < n; j++) {
        double g = (0.1 + 0.005 * j) * (double)x[j] + 0.3 * (drive_draw() - 0.5);
        ret[j] = (double)(number)g;
    }
}

/* Whose gradient number `step` is. */
static inline uint32_t drive_pick(int step, uint32_t workers)
{
    drive_random = (uint64_t)step * 40503u + 7;
    drive_draw();
    return (uint32_t)(drive_draw() * workers);
}

static inline number *drive_array(size_t n)
{
    number *ret = aligned_alloc(64, n * sizeof(number) + 64);
    if (!ret)
        abort();
    memset(ret, 0, n * sizeof(number));
    return ret;
}

/* Weight decay applies to elements 0 to 39, 80 to 119, ...: so it ends inside chunks of
 * 16, and on their edges. */
static inline bool drive_decays(size_t element)
{
    return element / 40 % 2 == 0;
}

static inline void drive_context(const struct drive *d, uint32_t w, double rate,
                                 struct step_context *ret)
{
    memset(ret, 0, sizeof *ret);
    ret->rate = rate;
    ret->lag = d->version - d->read[w];
    ret->active = d->active;
    ret->samples = d->samples;
    ret->global_stat = d->global_stat;
    ret->history = d->history;
    ret->own_updates = d->own_updates[w];
}

static inline struct arrays drive_arrays(const struct drive *d, uint32_t w)
{
    struct arrays ret = {.theta = d->theta,
                         .own = d->own[w],
                         .all = d->all,
                         .stat = d->stat,
                         .sent = d->sent[w],
                         .grad = d->grad,
                         .square = d->square,
                         .decays = d->decays,
                         .mean = d->mean[w]};
    if (d->rule->flags & RULE_PUBLISHED)
        ret.sent = d->published; /* and sent[w] is what the worker copied */
    return ret;
}

static inline void drive_copy(struct drive *d, uint32_t w)
{
    if (d->rule->flags & RULE_PUBLISHED)
        memcpy(d->sent[w], d->published, d->n * sizeof(number));
}

/* Worker w is given what the momentum would send now. */
static inline void drive_give(struct drive *d, uint32_t w, double rate)
{
    struct arrays at = drive_arrays(d, w);
    struct step_context context;
    struct step_scalars scalars;
    drive_context(d, w, d->rule->flags & RULE_ADAM ? d->history.rate : rate, &context);
    rules_step_scalars(d->rule, &d->settings, &context, &scalars);
    for (uint32_t i = 0; i < d->stretches; i++)
        stretch_look_ahead(d->compute, d->rule, &at, &scalars, &d->stretch[i]);
    if (!d->stretches)
        d->compute->look_ahead(d->rule, &at, &scalars, d->n);
    drive_copy(d, w);
    memcpy(d->x[w], d->sent[w], d->n * sizeof(number));
    d->read[w] = d->version;
}

/* Where worker w computes its gradient. */
static inline const number *drive_params(const struct drive *d, uint32_t w)
{
    return d->rule->flags & RULE_WORKER_ELASTIC ? d->x[w] : d->sent[w];
}

static inline void drive_open(struct drive *d, const struct compute *compute,
                              const char *rule, size_t k, uint32_t workers)
{
    memset(d, 0, sizeof *d);
    d->compute = compute;
    d->rule = rules_find(rule);
    if (!d->rule || workers > DRIVE_WORKERS)
        abort();
    d->k = k;
    d->n = (k + 15) / 16 * 16;
    d->workers = d->active = workers;
    d->settings.momentum = 0.9;
    d->settings.rate_max = 0.1;
    d->settings.elastic = 0.9 / workers;
    d->settings.decay = 0.1;
    d->period = 3;
    settings_default(&d->settings);
    d->theta = drive_array(d->n);
    d->all = drive_array(d->n);
    d->stat = drive_array(d->n);
    d->square = drive_array(d->n);
    d->decays = calloc(d->n / 16, sizeof *d->decays);
    if (!d->decays)
        abort();
    for (size_t j = 0; j < d->n; j++)
        d->decays[j / 16] |= (uint16_t)(drive_decays(j) << j % 16);
    d->grad = drive_array(d->n);
    d->published = drive_array(d->n);
    d->dots = calloc(d->n + 1, sizeof *d->dots);
    for (uint32_t w = 0; w < workers; w++) {
        d->own[w] = drive_array(d->n);
        d->mean[w] = drive_array(d->n);
        d->sent[w] = drive_array(d->n);
        d->slim[w] = drive_array(d->n);
        d->x[w] = drive_array(d->n);
    }
}

static inline void drive_close(struct drive *d)
{
    free(d->theta);
    free(d->all);
    free(d->stat);
    free(d->square);
    free(d->decays);
    free(d->grad);
    free(d->published);
    free(d->dots);
    matrix_scratch_free(d->scratch);
    for (uint32_t w = 0; w < d->workers; w++) {
        free(d->own[w]);
        free(d->mean[w]);
        free(d->sent[w]);
        free(d->slim[w]);
        free(d->x[w]);
    }
}

/* EASGD at the worker, before an exchange; false: there is none this time. */
static inline bool drive_step(struct drive *d, uint32_t w, double rate)
{
    bool nesterov = (d->rule->flags & RULE_WORKER_NESTEROV) != 0;
    if (!d->compute->local(d->x[w], d->grad, nesterov ? d->slim[w] : NULL, (number)rate,
                           (number)d->settings.momentum, d->n))
        abort();
    memcpy(d->grad, d->x[w], d->n * sizeof(number));
    memset(&d->sums, 0, sizeof d->sums);
    return ++d->steps[w] % d->period == 0;
}

/* Tells what the elements are: every one is in a stretch. */
static inline void drive_matrices(struct drive *d, const struct stretch *stretch,
                                  uint32_t stretches)
{
    d->stretch = stretch;
    d->stretches = stretches;
    d->scratch = matrix_scratch_new(d->n, d->n);
    if (!d->scratch)
        abort();
}

static inline double drive_measure(const struct drive *d, const struct arrays *at,
                                   const struct step_scalars *scalars)
{
    double sum = 0.0;

    if (!d->stretches)
        return d->compute->measure(d->rule, at, scalars, d->n);
    for (uint32_t i = 0; i < d->stretches; i++)
        sum += stretch_measure(d->compute, d->rule, at, scalars, &d->stretch[i]);
    return sum;
}

static inline void drive_apply(struct drive *d, const struct arrays *at,
                               const struct step_scalars *scalars)
{
    struct stretch_walk walk;

    if (!d->stretches) {
        d->compute->apply(d->rule, at, scalars, &d->blocks, d->n, d->want, &d->sums);
        return;
    }
    memset(&d->sums, 0, sizeof d->sums);
    for (uint32_t i = 0; i < d->stretches; i++) {
        stretch_walk_begin(&walk, d->compute, d->rule, at, scalars, &d->stretch[i],
                           d->want);
        while (!stretch_walk_step(&walk, d->scratch))
            continue;
        d->sums.gap_sq += walk.sums.gap_sq;
        d->sums.gate_sum += walk.sums.gate_sum;
    }
}

static inline void drive_push(struct drive *d, uint32_t w, const double *gradient,
                              double rate)
{
    struct arrays at = drive_arrays(d, w);
    struct step_context context;
    struct step_scalars scalars;

    for (size_t j = 0; j < d->k; j++)
        d->grad[j] = (number)gradient[j];
    if (d->rule->flags & RULE_WORKER_SLIM)
        d->compute->slim(d->grad, d->slim[w], (number)d->settings.momentum, d->n);
    if (d->rule->flags & RULE_WORKER_ELASTIC && !drive_step(d, w, rate))
        return;
    if (d->rule->flags & RULE_PUBLISHED) {
        d->compute->dots(d->grad, d->sent[w], &d->blocks, d->n, d->dots);
        d->blocks.dots = d->dots;
    }
    drive_context(d, w, rate, &context);
    rules_step_scalars(d->rule, &d->settings, &context, &scalars);
    if (d->rule->flags & RULE_GLOBAL) {
        double gap_sq = drive_measure(d, &at, &scalars);
        context.global_gap = sqrt(gap_sq / (double)d->k);
        rules_step_scalars(d->rule, &d->settings, &context, &scalars);
    }
    if (d->rule->flags & RULE_BLOCK && d->whole) {
        context.whole = true;
        context.whole_gap = drive_measure(d, &at, &scalars);
        rules_step_scalars(d->rule, &d->settings, &context, &scalars);
    }
    drive_apply(d, &at, &scalars);
    d->global_stat = d->settings.rho * d->global_stat +
                     (1.0 - d->settings.rho) * (d->sums.step_sq / (double)d->k);
    d->samples++;
    d->version++;
    d->read[w] = d->version;
    d->history = rules_step_done(&d->settings, &context);
    d->own_updates[w] += d->own_updates[w] != RULES_UPDATES_JOINED;
    drive_copy(d, w);
    if (d->rule->flags & RULE_WORKER_ELASTIC)
        d->compute->approach(d->x[w], d->sent[w], scalars.elastic, d->n);
}

/* Synchronous: gradient[w] of every worker, one update. */
static inline void drive_round(struct drive *d, const number *const *gradient,
                               double rate)
{
    struct arrays at = {.theta = d->theta,
                        .all = d->all,
                        .stat = d->stat,
                        .square = d->square,
                        .decays = d->decays};
    struct step_context context;
    struct step_scalars scalars;
    drive_context(d, 0, rate, &context);
    rules_step_scalars(d->rule, &d->settings, &context, &scalars);
    d->compute->round(d->rule, &at, &scalars, gradient, d->sent, d->workers, d->n,
                      d->want, &d->sums);
    d->version++;
    d->history = rules_step_done(&d->settings, &context);
    for (uint32_t w = 0; w < d->workers; w++)
        d->read[w] = d->version;
}

/* As the master does when the rate changes. */
static inline void drive_resum(struct drive *d)
{
    if (d->rule->flags & RULE_SUM)
        d->compute->resum(d->all, (const number *const *)d->own, d->workers, d->n);
}

static inline void drive_forget(struct drive *d, uint32_t w)
{
    struct arrays at = drive_arrays(d, w);
    d->compute->forget(d->rule, &at, d->n);
    memset(d->slim[w], 0, d->n * sizeof(number));
    d->own_updates[w] = 0;
    d->active--;
    if (d->rule->flags & RULE_ADAM)
        drive_resum(d);
}

/* Worker w is there again: under Adam with the mean of the others' velocities. */
static inline void drive_join(struct drive *d, uint32_t w)
{
    const number *sum[] = {d->all, d->own[w]}, *mean[DRIVE_WORKERS];
    uint32_t others = 0;

    d->active++;
    for (uint32_t i = 0; i < d->workers; i++)
        if (i != w && d->own_updates[i] > 0)
            mean[others++] = d->mean[i];
    if (!(d->rule->flags & RULE_ADAM) || !(d->rule->flags & RULE_SUM) || others == 0)
        return;
    d->compute->resum(d->own[w], sum, 1, d->n);
    d->compute->scale(d->own[w], (number)(1.0 / others), d->n);
    d->compute->resum(d->all, sum, 2, d->n);
    d->compute->resum(d->mean[w], mean, others, d->n);
    d->compute->scale(d->mean[w], (number)(1.0 / others), d->n);
    d->own_updates[w] = RULES_UPDATES_JOINED;
}

#endif
