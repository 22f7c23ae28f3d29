/* The learning rate of an update. */
#ifndef GAPLESS_SCHEDULE_H
#define GAPLESS_SCHEDULE_H

#include <gapless/gapless.h>

/* Checks every field; GAPLESS_INVALID says which is wrong. `total` 0: the run has no
 * end (then no cosine). */
int schedule_check(const struct gapless_schedule *schedule, uint64_t total,
                   struct gapless_error *error);
/* Rate when t gradients have been consumed. warmup_from must be filled in (not 0) if
 * there is a warm-up. */
double schedule_rate(const struct gapless_schedule *schedule, uint64_t total,
                     uint64_t t);
/* Largest rate of the whole run. */
double schedule_peak(const struct gapless_schedule *schedule);
/* Number of discrete changes passed at t: the end of the warm-up and every milestone.
 * Between two of them the rate is constant or changes smoothly. */
uint32_t schedule_stage(const struct gapless_schedule *schedule, uint64_t t);

#endif
