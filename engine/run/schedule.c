/* Warm-up, milestones, cosine (Goyal et al. 2017 for the warm-up; Loshchilov and Hutter
 * 2017 for the cosine). */
#include "engine/run/schedule.h"

#include <float.h>
#include <math.h>

int schedule_check(const struct gapless_schedule *schedule, uint64_t total,
                   struct gapless_error *error)
{
    uint32_t i;

    if (!(schedule->rate > 0) || !(schedule->rate < 1e6))
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "the learning rate is %g; it must be above 0 and below 1e6",
            schedule->rate);
    if (schedule->rate < (double)FLT_MIN)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "the learning rate is %g, which is 0 as a 32-bit "
                                 "float: no update would move a "
                                 "parameter; it must be at least %.2g",
                                 schedule->rate, (double)FLT_MIN);
    if (!(schedule->warmup_from >= 0) || !(schedule->warmup_from <= 1))
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "the warm-up starts at %g of the rate; 0 to 1 is possible",
            schedule->warmup_from);
    if (schedule->steps_count > GAPLESS_STEPS_MAX)
        return gapless_error_set(error, GAPLESS_CAPACITY, 0,
                                 "%u milestones; at most %d are possible",
                                 schedule->steps_count, GAPLESS_STEPS_MAX);
    for (i = 0; i < schedule->steps_count; i++) {
        if (!(schedule->steps[i].factor > 0) || !(schedule->steps[i].factor <= 1))
            return gapless_error_set(
                error, GAPLESS_INVALID, 0,
                "milestone %u multiplies the rate by %g; a factor is "
                "above 0 and at most 1",
                i + 1, schedule->steps[i].factor);
        if (i > 0 && schedule->steps[i].at < schedule->steps[i - 1].at)
            return gapless_error_set(
                error, GAPLESS_INVALID, 0,
                "milestone %u comes before milestone %u: give them in order", i + 1, i);
    }
    if (schedule->cosine && total == 0)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "a cosine schedule needs the length of the run");
    if (schedule->cosine && !(schedule->cosine_to >= 0 && schedule->cosine_to <= 1))
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "the cosine ends at %g of the rate; 0 to 1 is possible",
            schedule->cosine_to);
    return GAPLESS_OK;
}

static double cosine_factor(const struct gapless_schedule *s, uint64_t total,
                            uint64_t t)
{
    const double pi = 3.14159265358979323846;
    double span, done;

    if (!s->cosine || total <= s->warmup)
        return 1;
    span = (double)(total - s->warmup);
    done = t >= total ? 1 : (double)(t - s->warmup) / span;
    return s->cosine_to + (1 - s->cosine_to) * 0.5 * (1 + cos(pi * done));
}

double schedule_rate(const struct gapless_schedule *schedule, uint64_t total,
                     uint64_t t)
{
    double rate = schedule->rate;
    uint32_t i;

    if (t < schedule->warmup)
        return rate *
               (schedule->warmup_from +
                (1 - schedule->warmup_from) * ((double)t / (double)schedule->warmup));
    for (i = 0; i < schedule->steps_count && t >= schedule->steps[i].at; i++)
        rate *= schedule->steps[i].factor;
    return rate * cosine_factor(schedule, total, t);
}

double schedule_peak(const struct gapless_schedule *schedule)
{
    return schedule->rate;
}

uint32_t schedule_stage(const struct gapless_schedule *schedule, uint64_t t)
{
    uint32_t stage = 0, i;

    if (schedule->warmup > 0 && t >= schedule->warmup)
        stage++;
    for (i = 0; i < schedule->steps_count && t >= schedule->steps[i].at; i++)
        stage++;
    return stage;
}
