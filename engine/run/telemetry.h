/* Telemetry: what the master counts while it works. Plain adds by one writer, no locks;
 * it lies in memory that observers may read while it changes, so a reader may see
 * counts that differ by an update or two.
 *
 * Lag and gap go into histograms with 32 bins an octave (whole numbers to 64 have a bin
 * each; elsewhere a bin is at most 3 % wide); means and maxima are exact.
 */
#ifndef GAPLESS_TELEMETRY_H
#define GAPLESS_TELEMETRY_H

#include <gapless/gapless.h>

#define HISTOGRAM_OCTAVES 128 /* 2^-64 .. 2^64 */
#define HISTOGRAM_PER_OCTAVE 32
#define HISTOGRAM_BINS                                                                 \
    (1 + HISTOGRAM_OCTAVES * HISTOGRAM_PER_OCTAVE) /* bin 0: zero and below */

struct histogram {
    uint64_t count;
    double sum, max;
    uint64_t bins[HISTOGRAM_BINS];
};

void histogram_add(struct histogram *h, double value);
/* Quantiles are the lower edge of their bin where that is exact (`whole` numbers), its
 * middle otherwise. */
void histogram_summary(const struct histogram *h, bool whole,
                       struct gapless_summary *ret);

struct telemetry {
    struct gapless_stats stats; /* lag and gap_rms are filled in by telemetry_stats */
    uint64_t started_ns, ended_ns; /* of the first and the last update; 0: not yet */
    uint64_t losses;               /* reported so far */
    uint64_t gates;                /* in stats.gate */
    struct histogram lag;
    struct histogram gap;
};

/* Of a tensor: the gate (Loss-Gap-Aware) of its elements, over all that were counted. */
struct gate_share {
    double sum, elements;
};

/* What is known of a gradient beside its gate. */
struct gate_moment {
    bool counts; /* the warm-up is over */
    /* The rate is high, and there are enough workers for a gate far from the usual to say
     * that kappa is far off. */
    bool tells;
    double most;     /* above it kappa is too small */
    uint64_t window; /* gradients of the running mean */
};

/* The mean gate f of the elements of a gradient. The running mean starts again with the
 * first that counts. True: kappa is far off, as stats.gate_warning now says; once. */
bool telemetry_gate(struct telemetry *t, double gate, const struct gate_moment *moment);
/* One gradient, of `batches`, was applied in all its ranges. lag < 0: by its worker alone;
 * gap_rms < 0: not measured this time; loss NaN: not reported. */
void telemetry_gradient(struct telemetry *t, struct gapless_worker_stats *worker,
                        uint32_t batches, double lag, double gap_rms, double loss,
                        uint64_t now_ns);
/* A copy with the summaries filled in. */
void telemetry_stats(const struct telemetry *t, uint64_t now_ns,
                     struct gapless_stats *ret);

#endif
