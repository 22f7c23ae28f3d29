/* A simulation in a file, and back: the master's state (engine/master/saved.h), and of the
 * simulation itself the clock, what will happen when, and what each worker has.
 *
 * It is saved when nothing is on the wire, which is so after every moment where the wire takes no
 * time. Gradients that are computed, or that wait for a round, are in the file; the others are
 * computed again, at the same parameters. */
#include "engine/simulator/simulator.h"

#include "engine/master/saved.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of the simulation. */
enum {
    SIM_NOW,
    SIM_ORDER,
    SIM_JOINED,
    SIM_TICKED,
    SIM_EVENTS,
    SIM_SEED,
    SIM_CLOCK,
    SIM_BATCH_NS,
    SIM_INCIDENTS,
    SIM_WORDS
};

/* Of a worker. */
enum {
    OF_JOINED,
    OF_BUSY,
    OF_BATCH,
    OF_FINISH,
    OF_ORDER,
    OF_STALLED,
    OF_STEPS,
    OF_USED,
    OF_FLAGS,
    OF_RATE,
    OF_FACTOR,
    OF_PUSH, /* three doubles */
    OF_LOSS = OF_PUSH + 3,
    OF_WORDS
};

#define FLAG_HAS_PARAMS 1u
#define FLAG_EXCHANGED 2u
#define FLAG_FRESH 4u
#define FLAG_GRADIENT 8u /* it is computed, or waits for a round */

static uint64_t bits_of(double value)
{
    uint64_t ret;

    memcpy(&ret, &value, sizeof ret);
    return ret;
}

static double double_of(uint64_t bits)
{
    double ret;

    memcpy(&ret, &bits, sizeof ret);
    return ret;
}

/* Its gradient, if that is computed; NULL: it will be, or there is none. Others may be done a
 * moment later: this is what counts. */
static void look_at_gradient(struct gapless_simulation *s, uint32_t who)
{
    struct sim_worker *w = &s->worker[who];

    w->loss = 0;
    if (s->master->core->worker[who].state == CORE_PUSHED)
        w->computed = s->master->slot[who].grad;
    else
        w->computed = w->busy ? jobs_done(s->jobs, who, &w->loss) : NULL;
}

static void name_of(const char *kind, uint32_t who, char *ret, size_t bytes)
{
    (void)snprintf(ret, bytes, "sim/%s/%u", kind, who);
}

/* A vector of a worker's, where it has one: listed, or, with `copy`, copied to the next place. */
static void vector(struct state_write *w, const char *kind, uint32_t who,
                   const void *from, enum state_type type, uint64_t elements,
                   uint32_t *copy)
{
    char name[48];

    if (from == NULL)
        return;
    if (copy == NULL) {
        name_of(kind, who, name, sizeof name);
        (void)state_write_add(w, name, type, elements);
        return;
    }
    memcpy(state_write_at(w, (*copy)++), from,
           (size_t)elements * state_type_bytes(type));
}

static void vectors(struct gapless_simulation *s, struct state_write *to, uint32_t who,
                    uint32_t *copy)
{
    const struct gapless_worker *w = s->worker[who].worker;
    uint64_t n = s->master->layout.padded;

    vector(to, "own", who, w->own, STATE_F32, n, copy);
    vector(to, "velocity", who, w->velocity, STATE_F32, n, copy);
    vector(to, "copy", who, w->copy, STATE_F32, n, copy);
    vector(to, "reported", who, w->reported, STATE_U64, s->master->layout.ranges_count,
           copy);
    vector(to, "grad", who, s->worker[who].computed, STATE_F32, n, copy);
}

static void worker_words(struct gapless_simulation *s, uint32_t who, uint64_t *ret)
{
    const struct sim_worker *w = &s->worker[who];
    const struct gapless_worker *of = w->worker;

    ret[OF_JOINED] = w->joined;
    ret[OF_BUSY] = w->busy;
    ret[OF_BATCH] = w->batch;
    ret[OF_FINISH] = w->finish_ns;
    ret[OF_ORDER] = w->order;
    ret[OF_STALLED] = w->stalled_ns;
    ret[OF_STEPS] = of->steps;
    ret[OF_USED] = of->used;
    ret[OF_FLAGS] =
        (of->has_params ? FLAG_HAS_PARAMS : 0) | (of->exchanged ? FLAG_EXCHANGED : 0) |
        (of->fresh ? FLAG_FRESH : 0) | (w->computed != NULL ? FLAG_GRADIENT : 0);
    ret[OF_RATE] = bits_of(of->rate);
    ret[OF_FACTOR] = bits_of(of->factor);
    ret[OF_PUSH] = bits_of(of->push->loss);
    ret[OF_PUSH + 1] = bits_of(of->push->norm);
    ret[OF_PUSH + 2] = bits_of(of->push->rate);
    ret[OF_LOSS] = bits_of(w->loss);
}

/* What must be the same when it goes on. */
static void own_words(const struct gapless_simulation *s, uint64_t *ret)
{
    ret[SIM_NOW] = sim_now_ns(s->world);
    ret[SIM_ORDER] = s->order;
    ret[SIM_JOINED] = s->joined;
    ret[SIM_TICKED] = s->master->ticked_ns;
    ret[SIM_EVENTS] = s->events.count;
    ret[SIM_SEED] = s->config.seed;
    ret[SIM_CLOCK] = (uint64_t)s->config.clock;
    ret[SIM_BATCH_NS] = s->config.batch_ns;
    ret[SIM_INCIDENTS] = s->config.incidents_count;
}

static int can_be_saved(const struct gapless_simulation *s, struct gapless_error *error)
{
    const struct gapless_simulation_config *c = &s->config;

    if (s->record != NULL)
        return gapless_error_set(error, GAPLESS_UNSUPPORTED, 0,
                                 "a replay is not saved: its record repeats it");
    if (c->latency_ns > 0 || c->bandwidth > 0 || c->pass_ns > 0)
        return gapless_error_set(
            error, GAPLESS_UNSUPPORTED, 0,
            "a simulation is saved when nothing is on the wire: "
            "not with a latency, a bandwidth or a time for a pass");
    return GAPLESS_OK;
}

/* What is due now is delivered. */
static int quiet(struct gapless_simulation *s, struct gapless_error *error)
{
    uint64_t at_ns = 0;
    struct tp *tp;
    int status = GAPLESS_OK;

    while (status == GAPLESS_OK && s->master->core->phase != CORE_OVER_NOW &&
           sim_next(s->world, &at_ns, &tp))
        status = sim_step(s, error);
    return status;
}

static void plan(struct gapless_simulation *s, struct state_write *w)
{
    uint32_t who;

    (void)state_write_add(w, "sim/numbers", STATE_U64, SIM_WORDS);
    (void)state_write_add(w, "sim/workers", STATE_U64,
                          (uint64_t)s->workers_max * OF_WORDS);
    (void)state_write_add(w, "sim/events", STATE_U8,
                          s->events.count * sizeof(struct sim_event));
    (void)state_write_add(w, "sim/pace", STATE_U8, pace_bytes(s->pace, s->joined));
    for (who = 0; who < s->workers_max; who++)
        if (s->worker[who].worker != NULL) {
            look_at_gradient(s, who);
            vectors(s, w, who, NULL);
        }
}

static void copy(struct gapless_simulation *s, struct state_write *w, uint32_t next)
{
    uint64_t *words;
    uint32_t who;

    own_words(s, state_write_at(w, next++));
    words = state_write_at(w, next++);
    if (s->events.count > 0)
        memcpy(state_write_at(w, next), s->events.heap,
               s->events.count * sizeof(struct sim_event));
    next++;
    pace_save(s->pace, s->joined, state_write_at(w, next++));
    for (who = 0; who < s->workers_max; who++)
        if (s->worker[who].worker != NULL) {
            worker_words(s, who, words + (size_t)who * OF_WORDS);
            vectors(s, w, who, &next);
        }
}

int gapless_simulation_save(struct gapless_simulation *s, const char *path,
                            const char *const *metadata, struct gapless_error *error)
{
    struct state_write *w = NULL;
    uint32_t next;
    int status = can_be_saved(s, error);

    if (status == GAPLESS_OK)
        status = quiet(s, error);
    if (status == GAPLESS_OK)
        status = state_write_new(path, &w, error);
    if (status != GAPLESS_OK)
        return status;
    state_write_say_all(w, metadata);
    status = saved_plan(s->master, w, error);
    next = state_write_count(w);
    if (status == GAPLESS_OK) {
        plan(s, w);
        status = state_write_begin(w, error);
    }
    if (status != GAPLESS_OK) {
        state_write_drop(w);
        return status;
    }
    saved_copy(s->master, w);
    copy(s, w, next);
    return state_write_end(w, error);
}

/* ---- back ---------------------------------------------------------------- */

static int corrupt(const struct state_file *f, const char *what,
                   struct gapless_error *error)
{
    return gapless_error_set(
        error, GAPLESS_CORRUPT, 0,
        "the state '%.250s' is of no simulation, or of another: %s", state_path(f),
        what);
}

/* False: the file has none, or of another size. */
static bool take_vector(const struct state_file *f, const char *kind, uint32_t who,
                        void *to, enum state_type type, uint64_t elements)
{
    const void *from;
    char name[48];

    if (to == NULL)
        return true;
    name_of(kind, who, name, sizeof name);
    from = state_find(f, name, type, elements);
    if (from == NULL)
        return false;
    memcpy(to, from, (size_t)elements * state_type_bytes(type));
    return true;
}

/* Its batch is under way again, or its gradient is there. */
static int take_job(struct gapless_simulation *s, const struct state_file *f,
                    uint32_t who, const uint64_t *words, struct gapless_error *error)
{
    const struct core_worker *cw = &s->master->core->worker[who];
    const struct sim_worker *w = &s->worker[who];
    size_t n = (size_t)s->master->layout.padded;
    struct job job = {.due = w->finish_ns,
                      .order = w->order,
                      .batch = w->batch,
                      .steps = w->worker->steps,
                      .joined = w->joined,
                      .params = gapless_worker_params(w->worker)};
    const float *done = NULL;
    char name[48];
    float *grad;

    if ((words[OF_FLAGS] & FLAG_GRADIENT) != 0) {
        name_of("grad", who, name, sizeof name);
        done = state_find(f, name, STATE_F32, n);
        if (done == NULL)
            return corrupt(f, "a gradient is missing", error);
        grad = jobs_put(s->jobs, who, &job, done, double_of(words[OF_LOSS]),
                        cw->state != CORE_PUSHED);
        if (grad == NULL)
            return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                     "no memory for gradients");
        if (cw->state != CORE_PUSHED)
            return GAPLESS_OK;
        worker_lend(w->worker, grad);
        s->master->slot[who].grad = grad;
        return sim_pushed_add(s, who, grad, error);
    }
    if (w->busy)
        jobs_queue(s->jobs, who, &job);
    return GAPLESS_OK;
}

static int take_worker(struct gapless_simulation *s, const struct state_file *f,
                       uint32_t who, const uint64_t *words, struct gapless_error *error)
{
    struct sim_worker *w = &s->worker[who];
    struct gapless_worker *of = w->worker;
    uint64_t n = s->master->layout.padded, ranges = s->master->layout.ranges_count;

    w->joined = (uint32_t)words[OF_JOINED];
    w->busy = words[OF_BUSY] != 0;
    w->batch = words[OF_BATCH];
    w->finish_ns = words[OF_FINISH];
    w->order = words[OF_ORDER];
    w->stalled_ns = words[OF_STALLED];
    of->steps = (uint32_t)words[OF_STEPS];
    of->used = words[OF_USED];
    of->has_params = (words[OF_FLAGS] & FLAG_HAS_PARAMS) != 0;
    of->exchanged = (words[OF_FLAGS] & FLAG_EXCHANGED) != 0;
    of->fresh = (words[OF_FLAGS] & FLAG_FRESH) != 0;
    of->rate = double_of(words[OF_RATE]);
    of->factor = double_of(words[OF_FACTOR]);
    of->push->loss = double_of(words[OF_PUSH]);
    of->push->norm = double_of(words[OF_PUSH + 1]);
    of->push->rate = double_of(words[OF_PUSH + 2]);
    if (!take_vector(f, "own", who, of->own, STATE_F32, n) ||
        !take_vector(f, "velocity", who, of->velocity, STATE_F32, n) ||
        !take_vector(f, "copy", who, of->copy, STATE_F32, n) ||
        !take_vector(f, "reported", who, of->reported, STATE_U64, ranges))
        return corrupt(f, "a worker's vector is missing", error);
    return take_job(s, f, who, words, error);
}

/* The simulation's own settings, which the master does not know. */
static int check_words(const struct gapless_simulation *s, const struct state_file *f,
                       const uint64_t *words, struct gapless_error *error)
{
    const struct gapless_simulation_config *c = &s->config;

    if (words[SIM_SEED] != c->seed || words[SIM_CLOCK] != (uint64_t)c->clock ||
        words[SIM_BATCH_NS] != c->batch_ns ||
        words[SIM_INCIDENTS] != c->incidents_count)
        return gapless_error_set(
            error, GAPLESS_INVALID, 0, "the state '%.200s' was made with another %s",
            state_path(f),
            words[SIM_SEED] != c->seed                   ? "seed"
            : words[SIM_INCIDENTS] != c->incidents_count ? "list of events"
            : words[SIM_BATCH_NS] != c->batch_ns         ? "batch time"
                                                         : "clock");
    return GAPLESS_OK;
}

static int take_events(struct gapless_simulation *s, const struct state_file *f,
                       const uint64_t *words, struct gapless_error *error)
{
    uint64_t count = words[SIM_EVENTS];
    const struct state_tensor *found = state_find_any(f, "sim/events");
    const struct sim_event *events = found == NULL ? NULL : found->data;
    int status = GAPLESS_OK;
    uint64_t i;

    if (events == NULL || count > UINT32_MAX || found->bytes != count * sizeof *events)
        return corrupt(f, "its events are missing", error);
    for (i = 0; status == GAPLESS_OK && i < count; i++) {
        if (events[i].worker >= s->workers_max || events[i].kind > SIM_INCIDENT ||
            events[i].index > s->config.incidents_count)
            return corrupt(f, "an event makes no sense", error);
        status = events_add(&s->events, &events[i], error);
    }
    return status;
}

/* The same workers in the same slots, who have not got anything to do yet. */
static int take_slots(struct gapless_simulation *s, const struct master_core *was,
                      struct gapless_error *error)
{
    int status = GAPLESS_OK;
    uint32_t w;

    s->master->core->config.workers_wait = UINT32_MAX;
    for (w = 0; status == GAPLESS_OK && w < s->workers_max; w++)
        if (was->worker[w].state != CORE_FREE)
            status = sim_join(s, w, false, error);
    s->master->core->config.workers_wait = s->config.workers;
    return status;
}

static int take_all(struct gapless_simulation *s, const struct state_file *f,
                    struct gapless_error *error)
{
    const uint64_t *words = state_find(f, "sim/numbers", STATE_U64, SIM_WORDS);
    const uint64_t *of =
        state_find(f, "sim/workers", STATE_U64, (uint64_t)s->workers_max * OF_WORDS);
    const struct state_tensor *pace = state_find_any(f, "sim/pace");
    int status = GAPLESS_OK;
    uint32_t w;

    if (words == NULL || of == NULL || pace == NULL)
        return corrupt(f, "other workers, or none", error);
    status = check_words(s, f, words, error);
    if (status == GAPLESS_OK)
        status = saved_restore(s->master, f, error);
    if (status == GAPLESS_OK)
        status = take_events(s, f, words, error);
    if (status == GAPLESS_OK && words[SIM_JOINED] > UINT32_MAX / 2)
        status = corrupt(f, "a number of workers makes no sense", error);
    if (status == GAPLESS_OK)
        status = pace_load(s->pace, (uint32_t)words[SIM_JOINED], pace->data,
                           (size_t)pace->bytes, error);
    if (status != GAPLESS_OK)
        return status;
    sim_advance(s->world, words[SIM_NOW]);
    s->order = words[SIM_ORDER];
    s->joined = (uint32_t)words[SIM_JOINED];
    s->master->ticked_ns = words[SIM_TICKED];
    for (w = 0; status == GAPLESS_OK && w < s->workers_max; w++)
        if (s->worker[w].worker != NULL)
            status = take_worker(s, f, w, of + (size_t)w * OF_WORDS, error);
    return status;
}

int sim_resume(struct gapless_simulation *s, const char *path,
               struct gapless_error *error)
{
    struct state_file *f = NULL;
    struct master_core *was = NULL;
    int status = can_be_saved(s, error);

    if (status == GAPLESS_OK)
        status = state_open(path, &f, error);
    if (status == GAPLESS_OK)
        status = saved_check(s->master, f, error);
    if (status == GAPLESS_OK)
        status = saved_core(f, &was, error);
    if (status == GAPLESS_OK && was->config.workers_max != s->workers_max)
        status = gapless_error_set(error, GAPLESS_INVALID, 0,
                                   "the state '%.200s' is of %u workers, this "
                                   "simulation of %u",
                                   path, was->config.workers_max, s->workers_max);
    if (status == GAPLESS_OK)
        status = take_slots(s, was, error);
    if (status == GAPLESS_OK)
        status = take_all(s, f, error);
    s->begun = true;
    free(was);
    state_close(f);
    return status;
}
