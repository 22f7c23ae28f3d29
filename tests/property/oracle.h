/* The dumbest possible master: scalar, in double, one element after another, every rule
 * by its name, written from the decisions in words and not from the engine. Slow on
 * purpose. */
#ifndef GAPLESS_TESTS_ORACLE_H
#define GAPLESS_TESTS_ORACLE_H

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
    int k, workers, active, blocks;
    const uint32_t *ends;
    double gamma, rate_max, rho, lambda, lambda_zero, m, kappa, horizon, elastic;
    long period, steps[ORACLE_WORKERS];
    bool own_lookahead;
    double theta[ORACLE_ELEMENTS], v[ORACLE_ELEMENTS], s[ORACLE_ELEMENTS];
    double own[ORACLE_WORKERS][ORACLE_ELEMENTS], sent[ORACLE_WORKERS][ORACLE_ELEMENTS];
    double slim[ORACLE_WORKERS][ORACLE_ELEMENTS]; /* at the worker */
    double x[ORACLE_WORKERS][ORACLE_ELEMENTS];    /* at the worker: where it is */
    double global_s, gap_sq;
    long version, read[ORACLE_WORKERS], samples;
};

static bool oracle_is(const struct oracle *o, const char *names)
{
    const char *at = strstr(names, o->rule);
    size_t length = strlen(o->rule);
    while (at && ((at != names && at[-1] != ' ') || (at[length] && at[length] != ' ')))
        at = strstr(at + 1, o->rule);
    return at != NULL;
}

static bool oracle_dana(const struct oracle *o)
{
    return oracle_is(o, "dana-zero dana-sa dana-dc dana-dc-a dana-ga dana-ga-global "
                        "dana-lga");
}

static bool oracle_shared(const struct oracle *o)
{
    return oracle_is(o, "dana-shared shared-lga shared-lga-dot");
}

static bool oracle_nag(const struct oracle *o)
{
    return oracle_is(o, "nag-asgd ssgd sa ga ga-global dc-asgd dc-asgd-a");
}

static double oracle_sum(const struct oracle *o, int j)
{
    double sum = 0.0;
    for (int w = 0; w < o->workers; w++)
        sum += o->own[w][j];
    return sum;
}

static double oracle_horizon(const struct oracle *o)
{
    return o->horizon < 0 ? 0.0 : o->horizon > 0 ? o->horizon : o->active - 1;
}

static double oracle_given(const struct oracle *o, int j, double rate)
{
    if (oracle_dana(o)) /* the sum is formed anew each time */
        return o->theta[j] - rate * o->gamma * oracle_sum(o, j);
    if (oracle_nag(o) || oracle_shared(o))
        return o->theta[j] - rate * o->gamma * o->v[j];
    if (oracle_is(o, "lwp"))
        return o->theta[j] - oracle_horizon(o) * rate * o->v[j];
    return o->theta[j];
}

static void oracle_give(struct oracle *o, int w, double rate)
{
    for (int j = 0; j < o->k; j++)
        o->x[w][j] = o->sent[w][j] = oracle_given(o, j, rate);
    o->read[w] = o->version;
}

/* What of the look-ahead is the worker's own. */
static double oracle_ahead(const struct oracle *o, int w, int j, double rate)
{
    if (oracle_dana(o))
        return rate * o->gamma * o->own[w][j];
    if (oracle_shared(o))
        return rate * o->gamma / o->active * o->v[j];
    return oracle_nag(o) ? rate * o->gamma * o->v[j] : 0.0;
}

static double oracle_gap(const struct oracle *o, int w, int j, double rate)
{
    double ahead = o->own_lookahead ? oracle_ahead(o, w, j, rate) : 0.0;
    return o->theta[j] - ahead - o->sent[w][j];
}

static double oracle_largest(const struct oracle *o, double s)
{
    double bias = 1.0 - pow(o->rho, (double)o->samples);
    return o->rate_max * (sqrt(s / bias) + 1e-8);
}

/* g is corrected in place. */
static void oracle_correct(struct oracle *o, int w, double *g, double rate)
{
    double lag = (double)(o->version - o->read[w]), mean = 0.0;
    for (int j = 0; j < o->k; j++)
        mean += pow(oracle_gap(o, w, j, rate), 2) / o->k;
    for (int j = 0; j < o->k; j++) {
        double delta = oracle_gap(o, w, j, rate);
        if (oracle_is(o, "sa dana-sa sa-plain"))
            g[j] /= fmax(1.0, lag);
        if (oracle_is(o, "dc-asgd dana-dc dc-plain"))
            g[j] += o->lambda * g[j] * g[j] * delta;
        if (oracle_is(o, "dc-asgd-a dana-dc-a")) {
            o->s[j] = o->m * o->s[j] + (1 - o->m) * g[j] * g[j];
            g[j] += o->lambda_zero / sqrt(o->s[j] + 1e-7) * g[j] * g[j] * delta;
        }
        if (oracle_is(o, "ga dana-ga ga-plain") && o->samples)
            g[j] /= 1.0 + fabs(delta) / oracle_largest(o, o->s[j]);
        if (oracle_is(o, "ga-global dana-ga-global") && o->samples)
            g[j] /= 1.0 + sqrt(mean) / oracle_largest(o, o->global_s);
    }
    for (int b = 0, from = 0;
         b < o->blocks && oracle_is(o, "dana-lga shared-lga shared-lga-dot"); b++) {
        double q = 0.0;
        int to = (int)o->ends[b];
        for (int j = from; j < to; j++)
            q += g[j] * (o->theta[j] - oracle_ahead(o, w, j, rate) - o->sent[w][j]);
        for (int j = from; j < to && lag > 0; j++)
            g[j] *= fmin(1.0, fmax(0.0, 1.0 + o->kappa * q));
        from = to;
    }
}

static double oracle_step(struct oracle *o, int w, int j, double g)
{
    if (oracle_is(o, "multi-asgd") || oracle_dana(o))
        return o->own[w][j] = o->gamma * o->own[w][j] + g;
    if (oracle_nag(o) || oracle_is(o, "hb-asgd lwp"))
        return o->v[j] = o->gamma * o->v[j] + g;
    if (oracle_shared(o)) {
        double step = o->gamma / o->active * o->v[j] + g;
        o->v[j] = (1.0 - (1.0 - o->gamma) / o->active) * o->v[j] + g;
        return step;
    }
    if (oracle_is(o, "dana-slim")) { /* what the worker does before it sends */
        o->slim[w][j] = o->gamma * o->slim[w][j] + g;
        return o->gamma * o->slim[w][j] + g;
    }
    return g;
}

/* Worker w moves by itself; now and then worker and master move towards each other. */
static void oracle_elastic(struct oracle *o, int w, const double *gradient, double rate)
{
    bool nesterov = oracle_is(o, "eamsgd"), meet = ++o->steps[w] % o->period == 0;

    o->gap_sq = 0.0;
    for (int j = 0; j < o->k; j++) {
        double *x = &o->x[w][j], *v = &o->slim[w][j], between;
        *v = o->gamma * *v + gradient[j];
        *x -= rate * (nesterov ? gradient[j] + o->gamma * *v : gradient[j]);
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

/* One gradient of worker w, computed at x[w]. */
static void oracle_push(struct oracle *o, int w, const double *gradient, double rate)
{
    if (oracle_is(o, "easgd eamsgd")) {
        oracle_elastic(o, w, gradient, rate);
        return;
    }
    double g[ORACLE_ELEMENTS], squares = 0.0;
    memcpy(g, gradient, sizeof(double) * (size_t)o->k);
    o->gap_sq = 0.0;
    for (int j = 0; j < o->k; j++)
        o->gap_sq += pow(o->theta[j] - o->sent[w][j], 2);
    oracle_correct(o, w, g, rate);
    for (int j = 0; j < o->k; j++) {
        double step = oracle_step(o, w, j, g[j]);
        o->theta[j] -= rate * step;
        squares += step * step / o->k;
        if (oracle_is(o, "ga dana-ga ga-plain"))
            o->s[j] = o->rho * o->s[j] + (1 - o->rho) * step * step;
    }
    o->global_s = o->rho * o->global_s + (1 - o->rho) * squares;
    o->samples++;
    o->version++;
    oracle_give(o, w, rate);
}

/* Synchronous: one gradient of everybody, as one update. */
static void oracle_round(struct oracle *o, double (*gradient)[ORACLE_ELEMENTS],
                         double rate)
{
    for (int j = 0; j < o->k; j++) {
        double mean = 0.0;
        for (int w = 0; w < o->workers; w++)
            mean += gradient[w][j] / o->workers;
        o->theta[j] -= rate * oracle_step(o, 0, j, mean);
    }
    o->version++;
    for (int w = 0; w < o->workers; w++)
        oracle_give(o, w, rate);
}

#endif
