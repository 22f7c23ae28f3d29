/* How long batches take, and what happens when.
 *
 * The gamma distribution by mean and coefficient of variation V: shape a = 1/V^2, scale
 * mean/a (Ali et al., "Representing task and machine heterogeneities for heterogeneous
 * computing systems", 2000; machine first: each machine draws its mean once). Drawn by
 * Marsaglia and Tsang, "A simple method for generating gamma variables", 2000.
 *
 * Every worker has a stream of chance of its own, by the order in which it joined: what
 * it draws does not depend on what others do.
 */
#include "engine/simulator/simulator.h"

#include "engine/base/array.h"
#include "engine/base/rng.h"

#include <stdlib.h>
#include <string.h>

#define V_TASK 0.1
#define V_MACHINE 0.6
#define BATCH_NS_DEFAULT 1000000000ull
#define BATCH_NS_MAX 1e18 /* 30 years, so that times can be added */

struct machine {
    struct rng rng;
    double mean_ns;
};

struct times { /* of one worker: which of config.times */
    size_t *index;
    size_t count, next;
};

struct sim_pace {
    const struct gapless_simulation_config *config;
    struct machine *machine;
    size_t machines_room;
    struct times *times; /* by number */
    uint32_t workers_max;
    uint64_t batch_ns;
};

/* Shape at least 1. */
static double gamma_draw(struct rng *rng, double shape)
{
    double d = shape - 1.0 / 3.0, c = 1.0 / sqrt(9.0 * d);

    for (;;) {
        double x = rng_normal(rng), v = 1.0 + c * x, u = rng_unit(rng);

        if (v <= 0.0 || u <= 0.0)
            continue;
        v = v * v * v;
        if (portable_log(u) < 0.5 * x * x + d - d * v + d * portable_log(v))
            return d * v;
    }
}

/* A mean and a coefficient of variation; at least a nanosecond. */
static double time_draw(struct rng *rng, double mean_ns, double v)
{
    double shape = 1.0 / (v * v);
    double ret = gamma_draw(rng, shape) * (mean_ns / shape);

    return ret < 1.0 ? 1.0 : ret > BATCH_NS_MAX ? BATCH_NS_MAX : ret;
}

static int index_times(struct sim_pace *p, struct gapless_error *error)
{
    const struct gapless_simulation_config *c = p->config;

    p->times = calloc(p->workers_max, sizeof *p->times);
    if (p->times == NULL)
        return GAPLESS_NO_MEMORY;
    for (size_t i = 0; i < c->times_count; i++)
        if (c->times[i].worker < p->workers_max)
            p->times[c->times[i].worker].count++;
    for (uint32_t w = 0; w < p->workers_max; w++) {
        if (w < c->workers && p->times[w].count == 0)
            return gapless_error_set(error, GAPLESS_INVALID, 0,
                                     "the batch times have none of worker %u", w);
        p->times[w].index = calloc(p->times[w].count + 1, sizeof *p->times[w].index);
        if (p->times[w].index == NULL)
            return GAPLESS_NO_MEMORY;
        p->times[w].count = 0;
    }
    for (size_t i = 0; i < c->times_count; i++)
        if (c->times[i].worker < p->workers_max) {
            struct times *times = &p->times[c->times[i].worker];

            times->index[times->count++] = i;
        }
    return GAPLESS_OK;
}

int pace_new(const struct gapless_simulation_config *config, uint32_t workers_max,
             struct sim_pace **ret, struct gapless_error *error)
{
    struct sim_pace *p = calloc(1, sizeof *p);
    int status = GAPLESS_OK;

    if (p == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for a clock");
    p->config = config;
    p->workers_max = workers_max;
    p->batch_ns = config->batch_ns == 0 ? BATCH_NS_DEFAULT : config->batch_ns;
    if (config->clock == GAPLESS_CLOCK_TIMES && config->replay == NULL)
        status = index_times(p, error);
    if (status == GAPLESS_NO_MEMORY)
        (void)gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                "no memory for the batch times");
    if (status != GAPLESS_OK) {
        pace_free(p);
        return status;
    }
    *ret = p;
    return GAPLESS_OK;
}

void pace_free(struct sim_pace *p)
{
    if (p == NULL)
        return;
    for (uint32_t w = 0; p->times != NULL && w < p->workers_max; w++)
        free(p->times[w].index);
    free(p->times);
    free(p->machine);
    free(p);
}

int pace_join(struct sim_pace *p, uint32_t joined, struct gapless_error *error)
{
    struct machine *machine =
        array_room(p->machine, &p->machines_room, joined + 1ull, sizeof *machine);

    if (machine == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for %u simulated workers", joined + 1);
    p->machine = machine;
    machine = &p->machine[joined];
    machine->rng = rng_seed(p->config->seed, joined);
    machine->mean_ns = (double)p->batch_ns;
    if (p->config->clock == GAPLESS_CLOCK_HETEROGENEOUS)
        machine->mean_ns = time_draw(&machine->rng, (double)p->batch_ns, V_MACHINE);
    return GAPLESS_OK;
}

/* Of a machine: the generator's four, whether it has a second normal, that, the mean. */
#define MACHINE_WORDS 7u

size_t pace_bytes(const struct sim_pace *p, uint32_t joined)
{
    return ((size_t)joined * MACHINE_WORDS + p->workers_max) * sizeof(uint64_t);
}

void pace_save(const struct sim_pace *p, uint32_t joined, void *ret)
{
    uint64_t *to = ret;

    for (uint32_t w = 0; w < p->workers_max; w++)
        *to++ = p->times != NULL ? p->times[w].next : 0;
    for (uint32_t i = 0; i < joined; i++, to += MACHINE_WORDS) {
        const struct machine *m = &p->machine[i];

        memcpy(to, m->rng.state, sizeof m->rng.state);
        to[4] = m->rng.spared;
        to[5] = 0;
        if (m->rng.spared)
            memcpy(to + 5, &m->rng.spare, sizeof m->rng.spare);
        memcpy(to + 6, &m->mean_ns, sizeof m->mean_ns);
    }
}

int pace_load(struct sim_pace *p, uint32_t joined, const void *from, size_t bytes,
              struct gapless_error *error)
{
    const uint64_t *at = from;
    int status = GAPLESS_OK;

    if (bytes != pace_bytes(p, joined))
        return gapless_error_set(error, GAPLESS_CORRUPT, 0,
                                 "the clock of the state is of other workers");
    for (uint32_t i = 0; status == GAPLESS_OK && i < joined; i++)
        status = pace_join(p, i, error);
    if (status != GAPLESS_OK)
        return status;
    if (joined > 0 && p->machine == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for a clock");
    for (uint32_t w = 0; p->times != NULL && w < p->workers_max; w++)
        p->times[w].next = (size_t)at[w];
    at += p->workers_max;
    for (uint32_t i = 0; i < joined; i++, at += MACHINE_WORDS) {
        struct machine *m = &p->machine[i];

        memcpy(m->rng.state, at, sizeof m->rng.state);
        m->rng.spared = at[4] != 0;
        memcpy(&m->rng.spare, at + 5, sizeof m->rng.spare);
        memcpy(&m->mean_ns, at + 6, sizeof m->mean_ns);
    }
    return GAPLESS_OK;
}

uint64_t pace_next(struct sim_pace *p, uint32_t joined, uint32_t who)
{
    struct machine *machine = &p->machine[joined];
    struct times *times;

    switch (p->config->clock) {
    case GAPLESS_CLOCK_HOMOGENEOUS:
    case GAPLESS_CLOCK_HETEROGENEOUS:
        return (uint64_t)time_draw(&machine->rng, machine->mean_ns, V_TASK);
    case GAPLESS_CLOCK_ROUND_ROBIN:
        return p->batch_ns;
    case GAPLESS_CLOCK_TIMES:
        break;
    }
    times = &p->times[who];
    if (times->count == 0) /* joined later, and nothing is said of it */
        return p->batch_ns;
    return p->config->times[times->index[times->next++ % times->count]].ns;
}

/* ---- events: a binary heap ----------------------------------------------- */

static bool before(const struct sim_event *a, const struct sim_event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

int events_add(struct sim_events *events, const struct sim_event *event,
               struct gapless_error *error)
{
    size_t at = events->count;
    struct sim_event *heap =
        array_room(events->heap, &events->room, at + 1, sizeof *heap);

    if (heap == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for %zu events of a simulation", at + 1);
    events->heap = heap;
    events->count++;
    while (at > 0 && before(event, &events->heap[(at - 1) / 2])) {
        events->heap[at] = events->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    events->heap[at] = *event;
    return GAPLESS_OK;
}

bool events_first(const struct sim_events *events, struct sim_event *ret)
{
    if (events->count == 0)
        return false;
    *ret = events->heap[0];
    return true;
}

void events_drop_first(struct sim_events *events)
{
    struct sim_event last;
    size_t at = 0, child;

    if (events->count == 0)
        return;
    last = events->heap[--events->count];
    while ((child = 2 * at + 1) < events->count) {
        if (child + 1 < events->count &&
            before(&events->heap[child + 1], &events->heap[child]))
            child++;
        if (!before(&events->heap[child], &last))
            break;
        events->heap[at] = events->heap[child];
        at = child;
    }
    if (events->count > 0)
        events->heap[at] = last;
}

void events_free(struct sim_events *events)
{
    free(events->heap);
    *events = (struct sim_events){0};
}
