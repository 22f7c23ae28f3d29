/* Histograms of lag and gap, rates, running means. */
#include "engine/run/telemetry.h"

#include "engine/run/wire.h"

#include <math.h>
#include <stdio.h>

static uint32_t bin_of(double value)
{
    double mantissa;
    int exponent, octave;

    if (!(value > 0))
        return 0;
    mantissa = frexp(
        value, &exponent); /* value = mantissa * 2^exponent, mantissa in [0.5, 1) */
    octave = exponent + HISTOGRAM_OCTAVES / 2 - 1;
    if (octave < 0)
        return 1;
    if (octave >= HISTOGRAM_OCTAVES)
        return HISTOGRAM_BINS - 1;
    return 1 + (uint32_t)octave * HISTOGRAM_PER_OCTAVE +
           (uint32_t)((mantissa * 2 - 1) * HISTOGRAM_PER_OCTAVE);
}

static double bin_value(uint32_t bin, bool whole)
{
    double low, width;
    uint32_t octave, part;

    if (bin == 0)
        return 0;
    octave = (bin - 1) / HISTOGRAM_PER_OCTAVE;
    part = (bin - 1) % HISTOGRAM_PER_OCTAVE;
    width = ldexp(1.0 / HISTOGRAM_PER_OCTAVE, (int)octave - HISTOGRAM_OCTAVES / 2);
    low = width * (HISTOGRAM_PER_OCTAVE + part);
    if (whole)
        return width <= 1 ? low : floor(low + width / 2);
    return low + width / 2;
}

void histogram_add(struct histogram *h, double value)
{
    h->count++;
    h->sum += value;
    if (value > h->max)
        h->max = value;
    h->bins[bin_of(value)]++;
}

static double quantile(const struct histogram *h, double share, uint64_t count,
                       bool whole)
{
    uint64_t want = (uint64_t)ceil(share * (double)count), seen = 0;
    double value = h->max;
    uint32_t b;

    for (b = 0; b < HISTOGRAM_BINS; b++) {
        seen += h->bins[b];
        if (seen >= want && seen > 0) {
            value = bin_value(b, whole);
            break;
        }
    }
    return value < h->max ? value : h->max;
}

void histogram_summary(const struct histogram *h, bool whole,
                       struct gapless_summary *ret)
{
    *ret = (struct gapless_summary){.count = h->count};
    if (h->count == 0)
        return;
    ret->mean = h->sum / (double)h->count;
    ret->max = h->max;
    ret->p50 = quantile(h, 0.50, h->count, whole);
    ret->p99 = quantile(h, 0.99, h->count, whole);
}

/* 0..7, then four bins an octave. */
double gapless_lag_edge(unsigned bin)
{
    return bin < 8 ? (double)bin : ldexp(4.0 + bin % 4, (int)(bin / 4) - 1);
}

double gapless_gap_edge(unsigned bin)
{
    return bin == 0 ? 0.0
                    : ldexp(bin % 2 == 1 ? 1.0 : M_SQRT2, (int)((bin - 1) / 2) - 20);
}

static void bin_add(uint32_t *bins, double (*edge)(unsigned), double value)
{
    unsigned low = 0, high = GAPLESS_BINS;

    while (high - low > 1) {
        unsigned middle = (low + high) / 2;

        if (value >= edge(middle))
            low = middle;
        else
            high = middle;
    }
    bins[low]++;
}

void telemetry_gradient(struct telemetry *t, struct gapless_worker_stats *worker,
                        uint32_t batches, double lag, double gap_rms, double loss,
                        uint64_t now_ns)
{
    struct gapless_stats *s = &t->stats;
    uint64_t n;

    if (t->started_ns == 0)
        t->started_ns = now_ns;
    t->ended_ns = now_ns;
    worker->gradients += batches;
    worker->seen_ns = now_ns;
    if (lag >= 0) {
        histogram_add(&t->lag, lag);
        worker->lag_sum += lag;
        worker->lag_count++;
        bin_add(worker->lag_bins, gapless_lag_edge, lag);
    }
    if (gap_rms >= 0) {
        histogram_add(&t->gap, gap_rms);
        worker->gap_sum += gap_rms;
        worker->gap_count++;
        bin_add(worker->gap_bins, gapless_gap_edge, gap_rms);
    }
    if (isfinite(loss)) {
        n = ++t->losses < 100 ? t->losses : 100;
        s->loss += (loss - s->loss) / (double)n;
        worker->loss = loss;
    }
}

/* What to try next: kappa is flat over a factor of three. (This project.) */
#define GATE_STEP 3.0
/* The rate to try next: from one that diverges a factor of 3 may not be enough. (This
 * project.) */
#define DIVERGED_STEP 10.0
/* Below it most of what workers compute is thrown away. (This project.) */
#define GATE_LEAST 0.2

bool telemetry_gate(struct telemetry *t, double gate, const struct gate_moment *moment)
{
    struct gapless_stats *s = &t->stats;
    uint64_t n;

    if (moment->counts && s->gate_count == 0)
        t->gates = 0;
    n = ++t->gates < moment->window ? t->gates : moment->window;
    s->gate += (gate - s->gate) / (double)n;
    if (!moment->counts)
        return false;
    s->gate_count++;
    s->gate_mean += (gate - s->gate_mean) / (double)s->gate_count;
    if (!moment->tells || s->gate_warning != GAPLESS_GATE_USUAL ||
        s->gate_count < moment->window ||
        (s->gate <= moment->most && s->gate >= GATE_LEAST))
        return false;
    s->gate_warning = s->gate < GATE_LEAST ? GAPLESS_GATE_LOW : GAPLESS_GATE_HIGH;
    s->gate_warned = s->gate;
    return true;
}

bool gapless_gate_advice(const struct gapless_stats *stats, char *ret, size_t bytes)
{
    bool low = stats->gate_warning == GAPLESS_GATE_LOW;

    if (stats->gate_warning == GAPLESS_GATE_USUAL)
        return false;
    (void)snprintf(
        ret, bytes,
        "the gate lets %.1f %% of the gradients through while the rate is high: "
        "kappa %g is probably too %s; try --kappa %.2g",
        100.0 * stats->gate_warned, stats->kappa, low ? "large" : "small",
        low ? stats->kappa / GATE_STEP : stats->kappa * GATE_STEP);
    return true;
}

bool gapless_divergence(const struct gapless_stats *stats, char *ret, size_t bytes)
{
    unsigned long long at = stats->diverged_at;

    if (at == 0)
        return false;
    if (stats->updates == 0)
        (void)snprintf(ret, bytes,
                       "diverged at gradient %llu: none was finite; look at the data "
                       "and at the parameters it began with",
                       at);
    else
        (void)snprintf(
            ret, bytes,
            "diverged at gradient %llu: rate %g is too high, or the data has "
            "numbers that are not finite; try a rate of %g, or a longer "
            "warm-up",
            at, stats->rate, stats->rate / DIVERGED_STEP);
    return true;
}

int shared_stats_gate_means(const struct shared_stats *b, uint32_t count, double *ret)
{
    const struct gate_share *share = shared_stats_gates(b);

    if (b->gates == 0)
        return GAPLESS_MISSING;
    if (count > b->gates)
        return GAPLESS_INVALID;
    for (uint32_t i = 0; i < count; i++)
        ret[i] = share[i].elements > 0 ? share[i].sum / share[i].elements : (double)NAN;
    return GAPLESS_OK;
}

void telemetry_stats(const struct telemetry *t, uint64_t now_ns,
                     struct gapless_stats *ret)
{
    struct gapless_stats s = t->stats;
    uint64_t end = s.state >= GAPLESS_RUN_DONE ? t->ended_ns : now_ns;

    histogram_summary(&t->lag, true, &s.lag);
    histogram_summary(&t->gap, false, &s.gap_rms);
    s.seconds = t->started_ns == 0 || end <= t->started_ns
                    ? 0
                    : 1e-9 * (double)(end - t->started_ns);
    *ret = s;
}
