/* The arithmetic of a plan. */
#include "cluster/plan/plan.h"

#include <math.h>
#include <string.h>

static double largest(double a, double b, double c)
{
    return fmax(a, fmax(b, c));
}

static double pieces(double bytes)
{
    return ceil(bytes / PLAN_PIECE) * PLAN_PIECE;
}

/* A share of the ranges, rounded up: of `ranges`, dealt to this many. */
static double dealt(uint32_t ranges, uint32_t shards)
{
    return ceil((double)ranges / (double)shards);
}

/* One update while no other worker is there. A worker has one port, whatever the shards;
 * the passes of several masters go on beside each other. */
static double alone(const struct plan_input *in, const struct plan_speeds *speeds,
                    const struct plan_result *r, uint32_t shards)
{
    double ranges = r->ranges, wire = r->wire_s / ranges;
    double pass = (r->check_s + r->pass_s + r->ranges_s) / ranges;
    double turns = 2 * speeds->latency_s;

    if (in->rule.whole)
        return turns + 2 * r->wire_s + pass * dealt(r->ranges, shards);
    return turns + 2 * wire + pass +
           (ranges - 1) * largest(wire, wire, pass * dealt(r->ranges, shards) / ranges);
}

/* Updates a second that `shards` masters can do: the one with most ranges decides. */
static void can(const struct plan_result *r, uint32_t shards, double *ret_wire,
                double *ret_pass)
{
    double share = dealt(r->ranges, shards) / r->ranges;

    *ret_wire = 1 / (r->wire_s * share);
    *ret_pass = 1 / ((r->check_s + r->pass_s + r->ranges_s) * share);
}

static double demand(const struct plan_input *in, double alone_s)
{
    return in->workers / (in->batch_s * in->period + alone_s);
}

/* The smallest number of masters that do what the workers ask for. What they ask for
 * grows with the number of masters, as an update gets shorter, but to a limit. */
static uint32_t shards_for_speed(const struct plan_input *in,
                                 const struct plan_speeds *speeds,
                                 const struct plan_result *r)
{
    for (uint32_t shards = 1; shards <= r->ranges && shards <= PLAN_SHARDS_MAX;
         shards++) {
        double wire, pass;

        can(r, shards, &wire, &pass);
        if (fmin(wire, pass) >= demand(in, alone(in, speeds, r, shards)))
            return shards;
    }
    return 0;
}

static void memory(const struct plan_input *in, uint32_t shards,
                   struct plan_result *ret)
{
    double elements = fmin((double)in->parameters,
                           dealt(ret->ranges, shards) * (double)in->range_elements);
    double vector = pieces(4 * ceil(elements / 16) * 16);
    double workers = in->workers;

    ret->shared = vector * (1.0 + in->rule.vectors_shared);
    ret->vectors = vector * workers * in->rule.vectors_per_worker;
    ret->landing = vector * workers * PLAN_LANDINGS;
    ret->total = ret->shared + ret->vectors + ret->landing;
}

static uint32_t shards_for_memory(const struct plan_input *in,
                                  const struct plan_result *r)
{
    struct plan_result probe = *r;

    for (uint32_t shards = 1; shards <= r->ranges && shards <= PLAN_SHARDS_MAX;
         shards++) {
        memory(in, shards, &probe);
        if (in->memory <= 0 || probe.total <= in->memory)
            return shards;
    }
    return 0;
}

void plan_compute(const struct plan_input *in, const struct plan_speeds *speeds,
                  struct plan_result *ret)
{
    struct plan_result r = {0};
    double p = (double)in->parameters;
    double ranges = ceil(p / (double)in->range_elements);

    r.ranges = ranges < 1 ? 1 : (uint32_t)fmin(ranges, UINT32_MAX);
    r.wire_s = isinf(speeds->wire) ? 0 : 4 * p / speeds->wire;
    r.check_s = p * speeds->check_s;
    r.pass_s = p * speeds->pass_s;
    r.passes_s = r.check_s + r.pass_s;
    r.ranges_s = r.ranges * speeds->range_s;
    r.apart_s =
        2 * speeds->latency_s + 2 * r.wire_s + r.check_s + r.pass_s + r.ranges_s;
    r.shards_for_speed = shards_for_speed(in, speeds, &r);
    r.shards_for_memory = shards_for_memory(in, &r);
    r.shards = in->shards > 0 ? in->shards : 1;
    if (r.shards > r.ranges)
        r.shards = r.ranges;
    r.alone_s = alone(in, speeds, &r, r.shards);
    can(&r, r.shards, &r.wire_rate, &r.pass_rate);
    r.can_rate = fmin(r.wire_rate, r.pass_rate);
    r.demand = demand(in, r.alone_s);
    r.rate = fmin(r.demand, r.can_rate);
    r.bound = r.demand <= r.can_rate       ? PLAN_BY_WORKERS
              : r.wire_rate <= r.pass_rate ? PLAN_BY_WIRE
                                           : PLAN_BY_PASS;
    r.saturates_at = r.can_rate * (in->batch_s * in->period + r.alone_s);
    r.trip_s = in->workers / r.rate - in->batch_s * in->period;
    r.busy = in->batch_s * in->period * r.rate / in->workers;
    r.lag = in->workers - 1.0;
    r.link_bytes = isinf(speeds->wire) ? 0 : 8 * p;
    memory(in, r.shards, &r);
    *ret = r;
}

const char *plan_bound_name(enum plan_bound bound)
{
    static const char *const names[] = {[PLAN_BY_WORKERS] = "the workers",
                                        [PLAN_BY_WIRE] = "the wire",
                                        [PLAN_BY_PASS] = "the passes"};

    return names[bound];
}
