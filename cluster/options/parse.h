/* Text to numbers, strictly: the whole text has to be the number, and it has to be in
 * range. What is wrong is said in words, for the one who typed it. Nothing here knows
 * an option by name. */
#ifndef CLUSTER_PARSE_H
#define CLUSTER_PARSE_H

#include <gapless/gapless.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PARSE_WHY_MAX 200

/* Why a text was refused: a clause that follows the name of the option, "must be at
 * least 1". */
struct parse_error {
    char text[PARSE_WHY_MAX];
};

/* Says reason; false, for the one who returns it. */
bool parse_refuse(struct parse_error *reason, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* A stretch of a run, in the unit it was given in. */
enum span_unit {
    SPAN_FRACTION,
    SPAN_EPOCHS,
    SPAN_UPDATES
};
struct span {
    enum span_unit unit;
    double amount;
};

struct milestones {
    uint32_t count;
    struct {
        struct span at;
        double factor;
    } step[GAPLESS_STEPS_MAX];
};

/* Decimal, with an optional k, M or G (powers of 1000) or Ki, Mi, Gi (of 1024) behind
 * it. */
bool parse_count(const char *text, uint64_t low, uint64_t high, uint64_t *ret,
                 struct parse_error *reason);
/* Finite; low <= x <= high, or low < x if `above`, x < high if `below`. */
struct real_bounds {
    double low, high;
    bool above, below;
};
bool parse_real(const char *text, struct real_bounds bounds, double *ret,
                struct parse_error *reason);
/* Seconds, within the bounds: "120ms", "80us", "40s", "1.5m" and "1.5min" (minutes); "40"
 * are seconds. */
bool parse_time(const char *text, struct real_bounds bounds, double *ret,
                struct parse_error *reason);
/* "1epoch", "2.5epochs", "500updates", "0.1" (of the run), "10%". */
bool parse_span(const char *text, struct span *ret, struct parse_error *reason);
/* "0.6:0.1,0.85:0.1": at which point the rate is multiplied by what. "" and "none": no
 * step. */
bool parse_milestones(const char *text, struct milestones *ret,
                      struct parse_error *reason);

/* Numbers with units (units.c). "25.6M", "1B", "25,600,000", "270k": 1 to
 * GAPLESS_ELEMENTS_MAX. */
bool parse_parameters(const char *text, uint64_t *ret, struct parse_error *reason);
/* "400Gb", "100Gb/s", "25GB/s": bytes a second. "shm": 0. */
bool parse_link(const char *text, double *ret, struct parse_error *reason);
/* "80GB", "512MB": bytes. */
bool parse_bytes(const char *text, double *ret, struct parse_error *reason);

/* Gradients in a span: of a run of `total` gradients, `epoch` of which make an
 * epoch. */
uint64_t span_gradients(struct span span, uint64_t total, double epoch);

/* The candidate that is nearest to `text`, case aside, or NULL if none is near. `at(context, i)`
 * gives the candidates, NULL past the end. */
const char *parse_nearest(const char *text, const char *(*at)(const void *, unsigned),
                          const void *context);

#endif
