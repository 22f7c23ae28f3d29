/* The plainest master: scalar, in double, one element after another, every component of
 * a rule by its name, written from the decisions in words and not from the engine. Slow
 * on purpose. A new component needs a row in oracle_corrections or oracle_momenta. */
#ifndef GAPLESS_TESTS_ORACLE_H
#define GAPLESS_TESTS_ORACLE_H

#include "engine/rules/rules.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum {
    ORACLE_WORKERS = 32,
    ORACLE_ELEMENTS = 512
};

struct oracle {
    const char *rule;
    const struct oracle_correction *correction;
    const struct oracle_momentum *momentum;
    int k, workers, active, blocks;
    const uint32_t *ends,
        *times; /* times: how often a block goes into its tensor; NULL: 1 */
    double gamma, rate_max, rho, lambda, lambda_zero, m, kappa, horizon, elastic;
    long period, steps[ORACLE_WORKERS];
    bool own_lookahead, whole; /* whole: one gate for all blocks */
    double theta[ORACLE_ELEMENTS], v[ORACLE_ELEMENTS], s[ORACLE_ELEMENTS];
    double own[ORACLE_WORKERS][ORACLE_ELEMENTS], sent[ORACLE_WORKERS][ORACLE_ELEMENTS];
    double slim[ORACLE_WORKERS][ORACLE_ELEMENTS]; /* at the worker */
    double x[ORACLE_WORKERS][ORACLE_ELEMENTS];    /* at the worker: where it is */
    double global_s, gap_sq;
    long version, read[ORACLE_WORKERS], samples;
    /* Adam: the settings, the mean of squares, the gradient as it came; and how far its
     * means have got (oracle_adam_begin) */
    double beta2, epsilon, decay;
    bool decays[ORACLE_ELEMENTS]; /* the element has weight decay */
    /* What an element has of its own: the factor on its rate, and its decay (0: as all); and it
     * is a running average of this momentum (0: it is none) */
    double scale[ORACLE_ELEMENTS], decay_of[ORACLE_ELEMENTS], average[ORACLE_ELEMENTS];
    double square[ORACLE_ELEMENTS], raw[ORACLE_ELEMENTS];
    double last; /* the rate of the last update */
    double updates, own_updates[ORACLE_WORKERS];
    double seen_square, seen_mean, fade;                           /* c, e, p */
    double keep_own, keep_square, add_square, keep_mean, add_mean; /* of this update */
    /* Muon: elements 0 .. rows*cols - 1 are a matrix (0: there is none); each worker's mean
     * of gradients, and what came of it */
    int rows, cols;
    double rest_scale, mean[ORACLE_WORKERS][ORACLE_ELEMENTS], turned[ORACLE_ELEMENTS];
    /* delayed Nesterov: gradients that wait (their sum is s), and how many go on together */
    int waiting, together;
};

/* What is done to the gradient. */
struct oracle_correction {
    const char *name; /* of its header in engine/rules/corrections */
    /* All of worker w's gradient, in place. NULL: it is taken as it comes. */
    void (*correct)(struct oracle *o, int w, double *g, double rate);
    /* Element j after it has moved by rate*step. NULL: nothing to note. */
    void (*after)(struct oracle *o, int j, double step);
};

/* How it moves the parameters. */
struct oracle_momentum {
    const char *name; /* of its header in engine/rules/momenta */
    /* Element j of worker w's corrected gradient: moves the velocities; what is
     * multiplied by the rate. */
    double (*step)(struct oracle *o, int w, int j, double g);
    /* What worker w is given. */
    double (*given)(const struct oracle *o, int w, int j, double rate);
    /* How much of the look-ahead in it is the worker's own. NULL: 0. */
    double (*ahead)(const struct oracle *o, int w, int j, double rate);
    /* Before the elements of an update. NULL: nothing to do. */
    void (*begin)(struct oracle *o, int w, double rate);
};

/* ---- what elements have of their own ---- */

static double oracle_scale(const struct oracle *o, int j)
{
    return o->scale[j] > 0.0 ? o->scale[j] : 1.0;
}

/* The rate of the last update. */
static double oracle_last(const struct oracle *o, int j)
{
    return o->last * oracle_scale(o, j);
}

static double oracle_decay(const struct oracle *o, int j)
{
    double decay = o->decay_of[j] > 0.0 ? o->decay_of[j] : o->decay;
    return o->decays[j] ? decay * o->theta[j] : 0.0;
}

/* Parameters that are no averages. */
static double oracle_moved(const struct oracle *o)
{
    int count = 0;
    for (int j = 0; j < o->k; j++)
        count += o->average[j] > 0.0 ? 0 : 1;
    return (double)count;
}

/* ---- momenta ---- */

static double oracle_sum(const struct oracle *o, int j)
{
    double sum = 0.0;
    for (int w = 0; w < o->workers; w++)
        sum += o->own[w][j];
    return sum;
}

static double oracle_as_it_is(struct oracle *o, int w, int j, double g)
{
    (void)o, (void)w, (void)j;
    return g;
}

static double oracle_theta(const struct oracle *o, int w, int j, double rate)
{
    (void)w, (void)rate;
    return o->theta[j];
}

static double oracle_one(struct oracle *o, int w, int j, double g)
{
    (void)w;
    return o->v[j] = o->gamma * o->v[j] + g;
}

static double oracle_one_ahead(const struct oracle *o, int w, int j, double rate)
{
    (void)w;
    return rate * o->gamma * o->v[j];
}

static double oracle_one_given(const struct oracle *o, int w, int j, double rate)
{
    return o->theta[j] - oracle_one_ahead(o, w, j, rate);
}

static double oracle_lwp_ahead(const struct oracle *o, int w, int j, double rate)
{
    double horizon = o->horizon < 0 ? 0.0 : o->horizon > 0 ? o->horizon : o->active - 1;
    (void)w;
    return horizon * rate * o->v[j];
}

static double oracle_lwp_given(const struct oracle *o, int w, int j, double rate)
{
    return o->theta[j] - oracle_lwp_ahead(o, w, j, rate);
}

static double oracle_own(struct oracle *o, int w, int j, double g)
{
    return o->own[w][j] = o->gamma * o->own[w][j] + g;
}

static double oracle_own_ahead(const struct oracle *o, int w, int j, double rate)
{
    return rate * o->gamma * o->own[w][j];
}

/* The sum is formed anew each time. */
static double oracle_dana_given(const struct oracle *o, int w, int j, double rate)
{
    (void)w;
    return o->theta[j] - rate * o->gamma * oracle_sum(o, j);
}

static double oracle_shared(struct oracle *o, int w, int j, double g)
{
    double step = o->gamma / o->active * o->v[j] + g;
    (void)w;
    o->v[j] = (1.0 - (1.0 - o->gamma) / o->active) * o->v[j] + g;
    return step;
}

static double oracle_shared_ahead(const struct oracle *o, int w, int j, double rate)
{
    (void)w;
    return rate * o->gamma / o->active * o->v[j];
}

/* What the worker does before it sends. */
static double oracle_slim(struct oracle *o, int w, int j, double g)
{
    o->slim[w][j] = o->gamma * o->slim[w][j] + g;
    return o->gamma * o->slim[w][j] + g;
}

/* ---- Adam's momenta ---- */

/* Weights of a mean of the last values, as if it had begun with the first of them: `old`
 * for what it was and `add` for the next, when it has seen the weight *seen so far. */
static void oracle_weights(double beta, double *seen, double *keep, double *add)
{
    double now = beta * *seen + (1.0 - beta);
    *keep = beta * *seen / now;
    *add = (1.0 - beta) / now;
    *seen = now;
}

/* Adam's m is sum_(i<k) beta1^i g / sum_(i<k) beta1^i: the weight of what it was. */
static double oracle_first_mean(const struct oracle *o, double before)
{
    double beta1 = o->gamma, faded = pow(beta1, before);
    return beta1 * (1.0 - faded) / (1.0 - beta1 * faded);
}

static void oracle_adam_begin(struct oracle *o, int w, double rate)
{
    (void)w;
    o->keep_own = oracle_first_mean(o, o->updates++);
    oracle_weights(o->beta2, &o->seen_square, &o->keep_square, &o->add_square);
    o->last = rate;
}

/* beta2 is given per round of the workers. */
static void oracle_adam_dana_begin(struct oracle *o, int w, double rate)
{
    o->keep_own = oracle_first_mean(o, o->own_updates[w]++);
    oracle_weights(pow(o->beta2, 1.0 / o->active), &o->seen_square, &o->keep_square,
                   &o->add_square);
    o->last = rate;
}

static void oracle_adam_shared_begin(struct oracle *o, int w, double rate)
{
    double one_in_n = 1.0 - (1.0 - o->gamma) / o->active;
    (void)w;
    if (o->updates++ < 1.0)
        o->fade = 1.0;
    o->keep_own = o->gamma * (1.0 - o->fade) / (1.0 - o->gamma * o->fade);
    o->fade *= pow(o->gamma, 1.0 / o->active);
    oracle_weights(one_in_n, &o->seen_mean, &o->keep_mean, &o->add_mean);
    if (o->active == 1)
        o->keep_mean = o->keep_own, o->add_mean = 1.0 - o->keep_own;
    oracle_weights(pow(o->beta2, 1.0 / o->active), &o->seen_square, &o->keep_square,
                   &o->add_square);
    o->last = rate;
}

static double oracle_adam_inverse(const struct oracle *o, int j)
{
    return 1.0 / (sqrt(o->square[j]) + o->epsilon);
}

/* What is multiplied by the rate: `m` over the root of the squares, and the decay. */
static double oracle_adam_direction(struct oracle *o, int j, double m)
{
    o->square[j] =
        o->keep_square * o->square[j] + o->add_square * o->raw[j] * o->raw[j];
    return m * oracle_adam_inverse(o, j) + oracle_decay(o, j);
}

static double oracle_adam(struct oracle *o, int w, int j, double g)
{
    (void)w;
    o->v[j] = o->keep_own * o->v[j] + (1.0 - o->keep_own) * g;
    return oracle_adam_direction(o, j, o->v[j]);
}

static double oracle_adam_dana(struct oracle *o, int w, int j, double g)
{
    o->own[w][j] = o->keep_own * o->own[w][j] + (1.0 - o->keep_own) * g;
    return oracle_adam_direction(o, j, o->own[w][j]);
}

static double oracle_adam_shared(struct oracle *o, int w, int j, double g)
{
    double m = o->keep_own * o->v[j] + (1.0 - o->keep_own) * g;
    (void)w;
    o->v[j] = o->keep_mean * o->v[j] + o->add_mean * g;
    return oracle_adam_direction(o, j, m);
}

/* All look-aheads have the rate of the last update. */
static double oracle_adam_dana_given(const struct oracle *o, int w, int j, double rate)
{
    (void)w, (void)rate;
    return o->theta[j] -
           oracle_last(o, j) * o->gamma * oracle_sum(o, j) * oracle_adam_inverse(o, j);
}

static double oracle_adam_dana_ahead(const struct oracle *o, int w, int j, double rate)
{
    (void)rate;
    return oracle_last(o, j) * o->gamma * o->own[w][j] * oracle_adam_inverse(o, j);
}

static double oracle_adam_shared_ahead(const struct oracle *o, int w, int j,
                                       double rate)
{
    (void)w, (void)rate;
    return oracle_last(o, j) * o->gamma * o->v[j] * oracle_adam_inverse(o, j);
}

static double oracle_adam_shared_given(const struct oracle *o, int w, int j,
                                       double rate)
{
    return o->theta[j] - o->active * oracle_adam_shared_ahead(o, w, j, rate);
}

/* The next T updates of the others carry on along m: beta1 + ... + beta1^T steps. */
static double oracle_adam_horizon_given(const struct oracle *o, int w, int j,
                                        double rate)
{
    double horizon = o->horizon < 0 ? 0.0 : o->horizon > 0 ? o->horizon : o->active - 1;
    double steps = 0.0;
    (void)w, (void)rate;
    for (int t = 1; t <= (int)horizon; t++)
        steps += pow(o->gamma, t);
    return o->theta[j] -
           oracle_last(o, j) * steps * o->v[j] * oracle_adam_inverse(o, j);
}

/* ---- Muon ---- */

/* X = (3.4445 I - 4.7750 X X' + 2.0315 (X X')^2) X, of no more rows than columns. */
static void oracle_newton_schulz(double *x, int rows, int cols)
{
    static double a[ORACLE_ELEMENTS], b[ORACLE_ELEMENTS], y[ORACLE_ELEMENTS];

    for (int i = 0; i < rows; i++)
        for (int j = 0; j < rows; j++) {
            a[i * rows + j] = 0.0;
            for (int t = 0; t < cols; t++)
                a[i * rows + j] += x[i * cols + t] * x[j * cols + t];
        }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < rows; j++) {
            b[i * rows + j] = (i == j ? 3.4445 : 0.0) - 4.7750 * a[i * rows + j];
            for (int t = 0; t < rows; t++)
                b[i * rows + j] += 2.0315 * a[i * rows + t] * a[t * rows + j];
        }
    for (int i = 0; i < rows; i++)
        for (int j = 0; j < cols; j++) {
            y[i * cols + j] = 0.0;
            for (int t = 0; t < rows; t++)
                y[i * cols + j] += b[i * rows + t] * x[t * cols + j];
        }
    memcpy(x, y, sizeof(double) * (size_t)(rows * cols));
}

/* 0.2 sqrt(max(R, C)) NS(m), by way of the transpose where there are more rows. */
static inline void oracle_turn(const double *m, int rows, int cols, double *ret)
{
    static double x[ORACLE_ELEMENTS];
    int few = rows <= cols ? rows : cols, many = rows <= cols ? cols : rows;
    double norm = 0.0;

    for (int i = 0; i < rows * cols; i++)
        norm += m[i] * m[i];
    norm = sqrt(norm) + 1e-12;
    for (int i = 0; i < few; i++)
        for (int j = 0; j < many; j++)
            x[i * many + j] = (rows <= cols ? m[i * cols + j] : m[j * cols + i]) / norm;
    for (int i = 0; i < 5; i++)
        oracle_newton_schulz(x, few, many);
    for (int i = 0; i < few; i++)
        for (int j = 0; j < many; j++)
            ret[rows <= cols ? i * cols + j : j * cols + i] =
                0.2 * sqrt((double)many) * x[i * many + j];
}

static bool oracle_in_matrix(const struct oracle *o, int j)
{
    return j < o->rows * o->cols;
}

/* Of all of worker w's corrected gradient, before its elements. Of other rules nothing. */
static void oracle_matrix(struct oracle *o, int w, const double *g)
{
    double *mean = strcmp(o->momentum->name, "muon") == 0 ? o->v : o->mean[w];

    for (int j = 0; j < o->rows * o->cols; j++)
        mean[j] = 0.95 * mean[j] + 0.05 * g[j];
    if (o->rows > 0)
        oracle_turn(mean, o->rows, o->cols, o->turned);
}

static double oracle_muon_step(const struct oracle *o, int j)
{
    return o->turned[j] + oracle_decay(o, j);
}

static double oracle_muon(struct oracle *o, int w, int j, double g)
{
    return oracle_in_matrix(o, j) ? oracle_muon_step(o, j)
                                  : o->rest_scale * oracle_adam(o, w, j, g);
}

static double oracle_muon_dana(struct oracle *o, int w, int j, double g)
{
    if (!oracle_in_matrix(o, j))
        return o->rest_scale * oracle_adam_dana(o, w, j, g);
    o->own[w][j] = o->turned[j];
    return oracle_muon_step(o, j);
}

/* The sum of the last steps of all; the rest as under Adam. */
static double oracle_muon_dana_given(const struct oracle *o, int w, int j, double rate)
{
    double of_adam = o->theta[j] - oracle_adam_dana_given(o, w, j, rate);
    return o->theta[j] - (oracle_in_matrix(o, j)
                              ? oracle_last(o, j) * o->gamma * oracle_sum(o, j)
                              : o->rest_scale * of_adam);
}

static double oracle_muon_dana_ahead(const struct oracle *o, int w, int j, double rate)
{
    return oracle_in_matrix(o, j)
               ? oracle_last(o, j) * o->gamma * o->own[w][j]
               : o->rest_scale * oracle_adam_dana_ahead(o, w, j, rate);
}

/* ---- delayed Nesterov ---- */

static void oracle_delayed_begin(struct oracle *o, int w, double rate)
{
    (void)w, (void)rate;
    if (o->waiting == o->together) /* the last update emptied the buffer */
        o->waiting = 0, o->together = o->active;
    o->waiting++;
}

static double oracle_delayed(struct oracle *o, int w, int j, double g)
{
    double step = g / o->together;
    (void)w;
    o->s[j] += g;
    if (o->waiting < o->together)
        return step;
    o->v[j] = o->gamma * o->v[j] + o->s[j] / o->together;
    o->s[j] = 0.0;
    return step + o->gamma * o->v[j];
}

static const struct oracle_momentum oracle_momenta[] = {
    {"plain", oracle_as_it_is, oracle_theta, NULL, NULL},
    {"heavy_ball", oracle_one, oracle_theta, NULL, NULL},
    {"nag", oracle_one, oracle_one_given, oracle_one_ahead, NULL},
    {"lwp", oracle_one, oracle_lwp_given, oracle_lwp_ahead, NULL},
    {"multi", oracle_own, oracle_theta, NULL, NULL},
    {"dana", oracle_own, oracle_dana_given, oracle_own_ahead, NULL},
    {"shared", oracle_shared, oracle_one_given, oracle_shared_ahead, NULL},
    {"slim", oracle_slim, oracle_theta, NULL, NULL},
    {"elastic", oracle_as_it_is, oracle_theta, NULL, NULL}, /* see oracle_elastic */
    {"elastic_nesterov", oracle_as_it_is, oracle_theta, NULL, NULL},
    {"delayed_nesterov", oracle_delayed, oracle_theta, NULL, oracle_delayed_begin},
    {"adam", oracle_adam, oracle_theta, NULL, oracle_adam_begin},
    {"adam_horizon", oracle_adam, oracle_adam_horizon_given, NULL, oracle_adam_begin},
    {"adam_dana", oracle_adam_dana, oracle_adam_dana_given, oracle_adam_dana_ahead,
     oracle_adam_dana_begin},
    {"adam_shared", oracle_adam_shared, oracle_adam_shared_given,
     oracle_adam_shared_ahead, oracle_adam_shared_begin},
    {"muon", oracle_muon, oracle_theta, NULL, oracle_adam_begin},
    {"muon_dana", oracle_muon_dana, oracle_muon_dana_given, oracle_muon_dana_ahead,
     oracle_adam_dana_begin},
};

/* ---- corrections ---- */

static double oracle_ahead(const struct oracle *o, int w, int j, double rate)
{
    return o->momentum->ahead ? o->momentum->ahead(o, w, j, rate * oracle_scale(o, j))
                              : 0.0;
}

static double oracle_gap(const struct oracle *o, int w, int j, double rate)
{
    double ahead = o->own_lookahead ? oracle_ahead(o, w, j, rate) : 0.0;
    if (o->average[j] > 0.0)
        return 0.0;
    return o->theta[j] - ahead - o->sent[w][j];
}

static double oracle_lag(const struct oracle *o, int w)
{
    return (double)(o->version - o->read[w]);
}

static void oracle_staleness(struct oracle *o, int w, double *g, double rate)
{
    (void)rate;
    for (int j = 0; j < o->k; j++)
        g[j] /= fmax(1.0, oracle_lag(o, w));
}

static void oracle_delay_comp(struct oracle *o, int w, double *g, double rate)
{
    for (int j = 0; j < o->k; j++)
        g[j] += o->lambda * g[j] * g[j] * oracle_gap(o, w, j, rate);
}

static void oracle_delay_comp_adaptive(struct oracle *o, int w, double *g, double rate)
{
    for (int j = 0; j < o->k; j++) {
        double delta = oracle_gap(o, w, j, rate);
        o->s[j] = o->m * o->s[j] + (1 - o->m) * g[j] * g[j];
        g[j] += o->lambda_zero / sqrt(o->s[j] + 1e-7) * g[j] * g[j] * delta;
    }
}

static double oracle_largest(const struct oracle *o, double s)
{
    double bias = 1.0 - pow(o->rho, (double)o->samples);
    return o->rate_max * (sqrt(s / bias) + 1e-8);
}

static void oracle_gap_aware(struct oracle *o, int w, double *g, double rate)
{
    for (int j = 0; j < o->k && o->samples; j++)
        g[j] /= 1.0 + fabs(oracle_gap(o, w, j, rate)) /
                          (oracle_scale(o, j) * oracle_largest(o, o->s[j]));
}

static void oracle_gap_aware_after(struct oracle *o, int j, double step)
{
    o->s[j] = o->rho * o->s[j] + (1 - o->rho) * step * step;
}

static void oracle_gap_aware_global(struct oracle *o, int w, double *g, double rate)
{
    double mean = 0.0;
    for (int j = 0; j < o->k; j++)
        mean += pow(oracle_gap(o, w, j, rate), 2) / oracle_moved(o);
    for (int j = 0; j < o->k && o->samples; j++)
        g[j] /= 1.0 + sqrt(mean) / oracle_largest(o, o->global_s);
}

static void oracle_loss_gap(struct oracle *o, int w, double *g, double rate)
{
    for (int b = 0, from = 0; b < o->blocks; b++) {
        double q = 0.0;
        int to = (int)o->ends[b];
        if (o->whole)
            b = o->blocks - 1, to = o->k;
        for (int j = from; j < to; j++)
            q += g[j] * (o->theta[j] - oracle_ahead(o, w, j, rate) - o->sent[w][j]);
        q *= o->times && !o->whole ? o->times[b] : 1.0;
        for (int j = from; j < to && oracle_lag(o, w) > 0; j++)
            g[j] *= fmin(1.0, fmax(0.0, 1.0 + o->kappa * q));
        from = to;
    }
}

static const struct oracle_correction oracle_corrections[] = {
    {"none", NULL, NULL},
    {"staleness", oracle_staleness, NULL},
    {"delay_comp", oracle_delay_comp, NULL},
    {"delay_comp_adaptive", oracle_delay_comp_adaptive, NULL},
    {"gap_aware", oracle_gap_aware, oracle_gap_aware_after},
    {"gap_aware_global", oracle_gap_aware_global, NULL},
    {"loss_gap", oracle_loss_gap, NULL},
    {"loss_gap_dot", oracle_loss_gap, NULL}, /* the worker's number is the same sum */
};

/* ---- a master ---- */

/* Sets the components of o->rule, of which only the names are the engine's. False: a new
 * one is not in the tables above. */
static inline bool oracle_find(struct oracle *o)
{
    const struct rule *rule = rules_find(o->rule);
    for (size_t i = 0; i < sizeof oracle_corrections / sizeof *oracle_corrections; i++)
        if (!strcmp(oracle_corrections[i].name, rule->correction))
            o->correction = &oracle_corrections[i];
    for (size_t i = 0; i < sizeof oracle_momenta / sizeof *oracle_momenta; i++)
        if (!strcmp(oracle_momenta[i].name, rule->momentum))
            o->momentum = &oracle_momenta[i];
    return o->correction && o->momentum;
}

static bool oracle_moves_itself(const struct oracle *o)
{
    return strncmp(o->momentum->name, "elastic", 7) == 0;
}

static void oracle_give(struct oracle *o, int w, double rate)
{
    for (int j = 0; j < o->k; j++)
        o->x[w][j] = o->sent[w][j] =
            o->average[j] > 0.0
                ? o->theta[j]
                : o->momentum->given(o, w, j, rate * oracle_scale(o, j));
    o->read[w] = o->version;
}

/* Worker w moves by itself; now and then worker and master move towards each other. */
static void oracle_elastic(struct oracle *o, int w, const double *gradient, double rate)
{
    bool nesterov = !strcmp(o->momentum->name, "elastic_nesterov"),
         meet = ++o->steps[w] % o->period == 0;

    o->gap_sq = 0.0;
    for (int j = 0; j < o->k; j++) {
        double *x = &o->x[w][j], *v = &o->slim[w][j], between;
        *v = o->gamma * *v + gradient[j];
        if (o->average[j] > 0.0)
            *x -= gradient[j];
        else
            *x -= rate * oracle_scale(o, j) *
                  (nesterov ? gradient[j] + o->gamma * *v : gradient[j]);
        between = *x - o->theta[j];
        if (!meet)
            continue;
        o->gap_sq += pow(o->theta[j] - o->sent[w][j], 2);
        o->sent[w][j] = o->theta[j];
        o->theta[j] += o->elastic * between;
        *x -= o->elastic * between;
    }
    o->version += meet;
    if (meet)
        o->read[w] = o->version;
}

static bool oracle_is_adam(const struct oracle *o)
{
    return strncmp(o->momentum->name, "adam", 4) == 0 ||
           strncmp(o->momentum->name, "muon", 4) == 0;
}

/* Worker w is gone, and all that was its own. */
static inline void oracle_leave(struct oracle *o, int w)
{
    o->active--;
    o->own_updates[w] = 0.0;
    memset(o->own[w], 0, sizeof o->own[w]);
    memset(o->mean[w], 0, sizeof o->mean[w]);
    memset(o->slim[w], 0, sizeof o->slim[w]);
}

/* Worker w comes; under Adam as one that has done for long what the others do on
 * average. */
static inline void oracle_join(struct oracle *o, int w)
{
    int others = 0;

    o->active++;
    for (int i = 0; i < o->workers; i++)
        others += o->own_updates[i] > 0.0;
    if (!oracle_is_adam(o) || others == 0)
        return;
    for (int j = 0; j < o->k; j++) {
        double mean = 0.0;
        for (int i = 0; i < o->workers; i++)
            mean += o->own_updates[i] > 0.0 ? o->mean[i][j] : 0.0;
        o->mean[w][j] = mean / others;
        o->own[w][j] = oracle_sum(o, j) / others;
    }
    o->own_updates[w] = 1e9;
}

/* One gradient of worker w, computed at x[w]. */
static inline void oracle_push(struct oracle *o, int w, const double *gradient,
                               double rate)
{
    if (oracle_moves_itself(o)) {
        oracle_elastic(o, w, gradient, rate);
        return;
    }
    double g[ORACLE_ELEMENTS], squares = 0.0;
    memcpy(g, gradient, sizeof(double) * (size_t)o->k);
    memcpy(o->raw, gradient, sizeof(double) * (size_t)o->k);
    o->gap_sq = 0.0;
    for (int j = 0; j < o->k; j++) {
        double gap = o->theta[j] - o->sent[w][j];
        o->gap_sq += o->average[j] > 0.0 ? 0.0 : gap * gap;
        g[j] = o->average[j] > 0.0 ? 0.0 : g[j];
    }
    if (o->correction->correct)
        o->correction->correct(o, w, g, rate);
    if (o->momentum->begin)
        o->momentum->begin(o, w, rate);
    oracle_matrix(o, w, g);
    for (int j = 0; j < o->k; j++) {
        double step;
        if (o->average[j] > 0.0) {
            o->theta[j] -= gradient[j] + o->average[j] * (o->theta[j] - o->sent[w][j]);
            continue;
        }
        step = o->momentum->step(o, w, j, g[j]);
        o->theta[j] -= rate * oracle_scale(o, j) * step;
        squares += pow(oracle_scale(o, j) * step, 2) / oracle_moved(o);
        if (o->correction->after)
            o->correction->after(o, j, step);
    }
    o->global_s = o->rho * o->global_s + (1 - o->rho) * squares;
    o->samples++;
    o->version++;
    oracle_give(o, w, rate);
}

/* Synchronous: one gradient of everybody, as one update. */
static inline void oracle_round(struct oracle *o, double (*gradient)[ORACLE_ELEMENTS],
                                double rate)
{
    if (o->momentum->begin)
        o->momentum->begin(o, 0, rate);
    for (int j = 0; j < o->k; j++) {
        double mean = 0.0;
        for (int w = 0; w < o->workers; w++)
            mean += gradient[w][j] / o->workers;
        o->raw[j] = mean;
        o->theta[j] -= o->average[j] > 0.0 ? mean
                                           : rate * oracle_scale(o, j) *
                                                 o->momentum->step(o, 0, j, mean);
    }
    o->version++;
    for (int w = 0; w < o->workers; w++)
        oracle_give(o, w, rate);
}

#endif
