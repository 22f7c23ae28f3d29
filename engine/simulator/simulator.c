/* The simulator: a real master, real workers, and a clock that is computed. */
#include "engine/simulator/simulator.h"

#include "engine/base/array.h"
#include "engine/base/clock.h"
#include "engine/base/process.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A master that has a time limit for workers looks at the clock so often. */
#define TICK_NS 50000000ull

static uint64_t later(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* ---- the master's side --------------------------------------------------- */

static bool is_over(const struct gapless_simulation *s)
{
    return s->master->core->phase == CORE_OVER_NOW;
}

/* Gives back the buffers of gradients that the master has done with. */
static void release_pushed(struct gapless_simulation *s)
{
    size_t kept = 0;

    for (size_t i = 0; i < s->pushed_count; i++) {
        const struct sim_pushed *p = &s->pushed[i];
        const struct core_worker *cw = &s->master->core->worker[p->who];
        bool waits = cw->incarnation == p->incarnation && cw->ticket == p->ticket &&
                     (cw->state == CORE_COMPUTING || cw->state == CORE_PUSHED) &&
                     !is_over(s);

        if (waits)
            s->pushed[kept++] = *p;
        else
            jobs_release(s->jobs, p->grad);
    }
    s->pushed_count = kept;
}

int sim_master(struct gapless_simulation *s, struct gapless_error *error)
{
    uint64_t began = clock_ns();
    int status = gapless_master_run(s->master, 0, error);

    s->master_ns += clock_ns() - began;
    release_pushed(s);
    if (status != GAPLESS_OK && status != GAPLESS_STOPPED)
        return status;
    return s->record == NULL ? GAPLESS_OK : replay_deferred(s, error);
}

/* Within a worker's handshake. */
static void pump(void *user)
{
    struct gapless_simulation *s = user;

    (void)sim_master(s, NULL);
}

/* ---- the workers' side --------------------------------------------------- */

/* When a worker that begins now is through with its batches. */
static uint64_t finish_ns(struct gapless_simulation *s, uint32_t who)
{
    const struct sim_worker *w = &s->worker[who];
    uint64_t start =
        later(sim_now_ns(s->world), sim_gets_done_ns(w->worker->client.tp));
    uint64_t ret = later(start, w->stalled_ns);

    for (uint32_t i = 0; i < gapless_worker_steps(w->worker); i++)
        ret += pace_next(s->pace, w->joined, who);
    return ret;
}

int sim_pulled(struct gapless_simulation *s, uint32_t who, struct gapless_error *error)
{
    struct sim_worker *w = &s->worker[who];
    struct job job = {.joined = w->joined};
    int status = gapless_worker_pull(w->worker, &w->batch, error);

    if (status == GAPLESS_STOPPED)
        return GAPLESS_OK;
    if (status != GAPLESS_OK)
        return status;
    w->busy = true;
    job.order = w->order = s->order++;
    job.batch = w->batch;
    job.steps = gapless_worker_steps(w->worker);
    job.params = gapless_worker_params(w->worker);
    if (s->record != NULL) {
        if (replay_due(s, who, &job.due))
            jobs_queue(s->jobs, who, &job);
        return GAPLESS_OK;
    }
    job.due = w->finish_ns = finish_ns(s, who);
    jobs_queue(s->jobs, who, &job);
    return events_add(&s->events,
                      &(struct sim_event){.at_ns = w->finish_ns,
                                          .order = w->order,
                                          .kind = SIM_FINISHED,
                                          .worker = who},
                      error);
}

/* Something was delivered to it. Where that is a refusal, or the end of the connection,
 * it ends as its process would. */
static int worker_woke(struct gapless_simulation *s, uint32_t who,
                       struct gapless_error *error)
{
    bool ready = false;

    if (worker_look(s->worker[who].worker, &ready, NULL) != GAPLESS_OK) {
        sim_part(s, who, false);
        return GAPLESS_OK;
    }
    if (ready && s->record != NULL && replay_defers(s, who))
        return GAPLESS_OK; /* sim_master looks again */
    return ready ? sim_pulled(s, who, error) : GAPLESS_OK;
}

int sim_join(struct gapless_simulation *s, uint32_t who, bool ahead,
             struct gapless_error *error)
{
    struct gapless_worker_config config = {
        .address = s->address,
        .name = "simulated",
        .wish = who != SIM_NONE ? who + 1 : 0,
        .connect_ns = 1000000000,
        .ahead = ahead,
    };
    struct gapless_worker *worker;
    struct sim_worker *w;
    int status = pace_join(s->pace, s->joined, error);

    if (status == GAPLESS_OK)
        status = gapless_worker_open(&config, &worker, error);
    if (status != GAPLESS_OK)
        return status;
    if (who != SIM_NONE && who != gapless_worker_number(worker)) {
        status = gapless_error_set(error, GAPLESS_INVALID, 0,
                                   "the record says that worker %u joined, here it "
                                   "would be worker %u: the record and the settings "
                                   "do not belong together",
                                   who, gapless_worker_number(worker));
        worker_abandon(worker);
        return status;
    }
    who = gapless_worker_number(worker);
    w = &s->worker[who];
    *w = (struct sim_worker){.worker = worker, .joined = s->joined++};
    s->workers_now++;
    sim_user_set(worker->client.tp, w);
    worker_lend_sent(worker, s->master->slot[who].sent);
    return worker_woke(s, who, error);
}

void sim_part(struct gapless_simulation *s, uint32_t who, bool says_so)
{
    struct sim_worker *w = &s->worker[who];

    if (w->worker == NULL)
        return;
    jobs_cancel(s->jobs, who);
    if (says_so)
        gapless_worker_close(w->worker);
    else
        worker_abandon(w->worker);
    s->deferred -= w->deferred ? 1 : 0;
    *w = (struct sim_worker){0};
    s->workers_now--;
}

int sim_pushed_add(struct gapless_simulation *s, uint32_t who, float *grad,
                   struct gapless_error *error)
{
    const struct core_worker *cw = &s->master->core->worker[who];
    struct sim_pushed *pushed;

    pushed =
        array_room(s->pushed, &s->pushed_room, s->pushed_count + 1, sizeof *pushed);
    if (pushed == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for gradients under way");
    s->pushed = pushed;
    s->pushed[s->pushed_count++] =
        (struct sim_pushed){who, cw->incarnation, cw->ticket, grad};
    return GAPLESS_OK;
}

int sim_push(struct gapless_simulation *s, uint32_t who, bool poison,
             struct gapless_error *error)
{
    struct sim_worker *w = &s->worker[who];
    float *grad;
    double loss;
    int status = jobs_take(s->jobs, who, &grad, &loss, error);

    if (status == GAPLESS_OK)
        status = sim_pushed_add(s, who, grad, error);
    if (status != GAPLESS_OK)
        return status;
    if (poison)
        grad[0] = NAN;
    w->busy = false;
    worker_lend(w->worker, grad);
    s->master->slot[who].grad = grad;
    status = gapless_worker_push(w->worker, loss, error);
    return status == GAPLESS_NOT_FINITE ? GAPLESS_OK : status;
}

/* ---- what happens -------------------------------------------------------- */

static int no_worker(const struct gapless_simulation *s,
                     const struct gapless_incident *i, struct gapless_error *error)
{
    static const char *const verbs[] = {[GAPLESS_JOIN] = "join",
                                        [GAPLESS_LEAVE] = "leave",
                                        [GAPLESS_KILL] = "kill",
                                        [GAPLESS_STALL] = "stall"};

    return gapless_error_set(error, GAPLESS_INVALID, 0,
                             "at %g s, '%s %u': there is no worker %u then (%u are "
                             "there)",
                             1e-9 * (double)i->at_ns, verbs[i->kind], i->worker,
                             i->worker, s->workers_now);
}

static int stall(struct gapless_simulation *s, const struct gapless_incident *incident,
                 struct gapless_error *error)
{
    struct sim_worker *w = &s->worker[incident->worker];

    w->stalled_ns = later(w->stalled_ns, incident->at_ns + incident->ns);
    if (!w->busy)
        return GAPLESS_OK;
    w->finish_ns += incident->ns;
    w->order = s->order++;
    jobs_postpone(s->jobs, incident->worker, w->finish_ns, w->order);
    return events_add(&s->events,
                      &(struct sim_event){.at_ns = w->finish_ns,
                                          .order = w->order,
                                          .kind = SIM_FINISHED,
                                          .worker = incident->worker},
                      error);
}

static int incident_happens(struct gapless_simulation *s, size_t index,
                            struct gapless_error *error)
{
    const struct gapless_incident *i = &s->config.incidents[index];

    if (i->kind == GAPLESS_JOIN)
        return sim_join(s, SIM_NONE, false, error);
    if (i->worker >= s->workers_max || s->worker[i->worker].worker == NULL)
        return no_worker(s, i, error);
    if (i->kind == GAPLESS_STALL)
        return stall(s, i, error);
    sim_part(s, i->worker, i->kind == GAPLESS_LEAVE);
    return GAPLESS_OK;
}

static int event_happens(struct gapless_simulation *s, const struct sim_event *e,
                         struct gapless_error *error)
{
    switch (e->kind) {
    case SIM_FINISHED:
        if (s->worker[e->worker].worker == NULL || !s->worker[e->worker].busy ||
            s->worker[e->worker].order != e->order)
            return GAPLESS_OK; /* it is gone, or was stalled */
        return sim_push(s, e->worker, false, error);
    case SIM_INCIDENT:
        return incident_happens(s, e->index, error);
    case SIM_REPLAY:
        return replay_event(s, e->index, error);
    }
    return GAPLESS_OK;
}

static int delivery_happens(struct gapless_simulation *s, struct tp *tp,
                            struct gapless_error *error)
{
    const struct sim_worker *w = sim_user(tp);

    return w == NULL ? sim_master(s, error)
                     : worker_woke(s, (uint32_t)(w - s->worker), error);
}

/* The master's time limits are seen although nothing arrives. */
static int ticks_until(struct gapless_simulation *s, uint64_t until_ns,
                       struct gapless_error *error)
{
    int status = GAPLESS_OK;

    if (s->config.master.worker_timeout_ns <= 0 || s->record != NULL)
        return GAPLESS_OK;
    while (status == GAPLESS_OK && sim_now_ns(s->world) + TICK_NS < until_ns) {
        sim_advance(s->world, sim_now_ns(s->world) + TICK_NS);
        status = sim_master(s, error);
    }
    return status;
}

static int standstill(struct gapless_simulation *s, struct gapless_error *error)
{
    return gapless_error_set(
        error, GAPLESS_INVALID, 0,
        "the simulation stands still at %g s, after %" PRIu64 " of %" PRIu64
        " gradients: %u workers are there and none has anything to do",
        1e-9 * (double)sim_now_ns(s->world), s->master->core->consumed,
        s->config.master.gradients, s->workers_now);
}

int sim_step(struct gapless_simulation *s, struct gapless_error *error)
{
    struct sim_event event = {.at_ns = UINT64_MAX};
    struct tp *tp = NULL;
    uint64_t delivery_ns = UINT64_MAX;
    bool any = events_first(&s->events, &event);
    bool delivery = sim_next(s->world, &delivery_ns, &tp);
    int status;

    if (!any && !delivery)
        return s->record != NULL ? GAPLESS_STOPPED : standstill(s, error);
    status =
        ticks_until(s, delivery_ns < event.at_ns ? delivery_ns : event.at_ns, error);
    if (status != GAPLESS_OK)
        return status;
    if (delivery && delivery_ns <= event.at_ns) {
        sim_advance(s->world, delivery_ns);
        return delivery_happens(s, tp, error);
    }
    events_drop_first(&s->events);
    sim_advance(s->world, event.at_ns);
    return event_happens(s, &event, error);
}

static int begin(struct gapless_simulation *s, struct gapless_error *error)
{
    int status = GAPLESS_OK;

    if (s->begun)
        return GAPLESS_OK;
    s->begun = true;
    if (s->record != NULL)
        return replay_open(s, error);
    for (size_t i = 0; i < s->config.incidents_count && status == GAPLESS_OK; i++)
        status = events_add(&s->events,
                            &(struct sim_event){.at_ns = s->config.incidents[i].at_ns,
                                                .order = s->order++,
                                                .kind = SIM_INCIDENT,
                                                .index = i},
                            error);
    for (uint32_t w = 0; w < s->config.workers && status == GAPLESS_OK; w++)
        status = sim_join(s, SIM_NONE, false, error);
    return status;
}

int gapless_simulation_run(struct gapless_simulation *s, uint64_t gradients,
                           struct gapless_error *error)
{
    uint64_t began = clock_ns();
    struct gapless_error reason = {0};
    int status = process_check(s->owner, "this simulation", error);

    if (status != GAPLESS_OK)
        return status;
    if (s->failed) {
        if (error != NULL)
            *error = s->error;
        return s->error.status;
    }
    status = begin(s, &reason);
    while (status == GAPLESS_OK && !is_over(s) &&
           (gradients == 0 || s->master->core->consumed < gradients))
        status = sim_step(s, &reason);
    s->spent_ns += clock_ns() - began;
    if (status == GAPLESS_STOPPED || (status == GAPLESS_OK && is_over(s)))
        return GAPLESS_STOPPED;
    if (status != GAPLESS_OK) {
        s->failed = true;
        s->error = reason;
        if (error != NULL)
            *error = reason;
    }
    return status;
}

/* ---- open and close ------------------------------------------------------ */

static int check(const struct gapless_simulation_config *c, struct gapless_error *error)
{
    uint64_t before = 0;

    if (c->master.local_steps > 0 ? c->local == NULL : c->gradient == NULL)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "a simulation needs a function for the gradient");
    if (c->replay == NULL && (c->workers == 0 || c->workers > GAPLESS_WORKERS_MAX))
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "%u workers cannot be simulated: 1 to %u", c->workers,
                                 GAPLESS_WORKERS_MAX);
    if (c->threads > 1024)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "%u threads: at most 1024 are possible", c->threads);
    if (!(c->bandwidth >= 0) || !isfinite(c->bandwidth))
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "the bandwidth is %g; it must not be negative",
                                 c->bandwidth);
    if ((unsigned)c->clock > GAPLESS_CLOCK_TIMES)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "the clock is %d; it must be "
                                 "GAPLESS_CLOCK_HOMOGENEOUS (0), _HETEROGENEOUS (1), "
                                 "_ROUND_ROBIN (2) or _TIMES (3)",
                                 (int)c->clock);
    for (size_t i = 0; i < c->incidents_count; i++) {
        if ((unsigned)c->incidents[i].kind > GAPLESS_STALL)
            return gapless_error_set(error, GAPLESS_INVALID, 0,
                                     "incident %zu is of kind %d; it must be "
                                     "GAPLESS_JOIN (0), _LEAVE (1), _KILL (2) or "
                                     "_STALL (3)",
                                     i + 1, (int)c->incidents[i].kind);
        if (c->incidents[i].at_ns < before)
            return gapless_error_set(error, GAPLESS_INVALID, 0,
                                     "incident %zu comes before the one before it: "
                                     "give them in order of time",
                                     i + 1);
        before = c->incidents[i].at_ns;
    }
    for (size_t i = 0; i < c->times_count; i++)
        if (c->times[i].ns == 0)
            return gapless_error_set(error, GAPLESS_INVALID, 0,
                                     "batch time %zu, of worker %u, is 0", i + 1,
                                     c->times[i].worker);
    return GAPLESS_OK;
}

/* The settings of the master inside, where the simulation has the say. */
static void master_settings(struct gapless_simulation *s)
{
    struct gapless_simulation_config *c = &s->config;
    uint32_t joins = 0;

    for (size_t i = 0; i < c->incidents_count; i++)
        joins += c->incidents[i].kind == GAPLESS_JOIN ? 1 : 0;
    c->master.address = s->address;
    c->master.resume = NULL; /* sim_resume */
    c->master.save_folder = NULL;
    c->master.observers_max = 1;
    if (s->record != NULL) {
        c->master.workers_max = s->record->facts.workers_max;
        c->master.workers_wait = s->record->facts.workers_wait;
        return;
    }
    if (c->master.workers_expected == 0)
        c->master.workers_expected = c->workers;
    if (c->master.workers_max == 0)
        c->master.workers_max = c->workers + joins;
    if (c->master.workers_max < c->workers)
        c->master.workers_max = c->workers;
    c->master.workers_wait = c->workers; /* all begin together */
}

static int open_parts(struct gapless_simulation *s, struct gapless_error *error)
{
    const struct gapless_simulation_config *c = &s->config;
    struct sim_link link = {.latency_ns = s->record != NULL ? 0 : c->latency_ns,
                            .bytes_per_ns = s->record != NULL ? 0 : c->bandwidth * 1e-9,
                            .pass_ns = s->record != NULL ? 0 : c->pass_ns};
    int status = master_open_external(&c->master, &s->master, error);

    if (status != GAPLESS_OK)
        return status;
    s->workers_max = c->master.workers_max;
    s->world = sim_world_of(s->master->tp);
    s->master->untimed = s->record != NULL;
    sim_link_set(s->world, &link);
    sim_pump_set(s->world, pump, s);
    s->worker = calloc(s->workers_max, sizeof *s->worker);
    if (s->worker == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for %u simulated workers", s->workers_max);
    status = pace_new(c, s->workers_max, &s->pace, error);
    if (status != GAPLESS_OK)
        return status;
    return jobs_new(c, s->workers_max, (size_t)s->master->layout.padded,
                    (s->master->rule->flags & RULE_ROUND) != 0, &s->jobs, error);
}

int gapless_simulation_open(const struct gapless_simulation_config *config,
                            struct gapless_simulation **ret,
                            struct gapless_error *error)
{
    static uint64_t serial; /* only a name: no result depends on it */
    struct gapless_simulation *s;
    int status = check(config, error);

    if (status != GAPLESS_OK)
        return status;
    s = calloc(1, sizeof *s);
    if (s == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for a simulation");
    s->owner = process_number();
    s->config = *config;
    s->config.threads = config->threads == 0 ? 1 : config->threads;
    (void)snprintf(s->address, sizeof s->address, "sim:%p-%" PRIu64, (void *)s,
                   serial++);
    if (config->replay != NULL)
        status = record_read(config->replay, &s->record, error);
    if (status == GAPLESS_OK) {
        master_settings(s);
        status = open_parts(s, error);
    }
    if (status == GAPLESS_OK && config->master.resume != NULL)
        status = sim_resume(s, config->master.resume, error);
    if (status != GAPLESS_OK) {
        gapless_simulation_close(s);
        return status;
    }
    *ret = s;
    return GAPLESS_OK;
}

void gapless_simulation_close(struct gapless_simulation *s)
{
    if (s == NULL || !process_is(s->owner))
        return; /* of a forked child's copy the threads are not here: it stays */
    jobs_free(s->jobs); /* first: helpers read the workers' parameters */
    for (uint32_t w = 0; s->worker != NULL && w < s->workers_max; w++)
        worker_abandon(s->worker[w].worker);
    gapless_master_close(s->master);
    pace_free(s->pace);
    replay_close(s);
    events_free(&s->events);
    free(s->pushed);
    free(s->worker);
    free(s);
}

struct gapless_master *gapless_simulation_master(const struct gapless_simulation *s)
{
    return s->master;
}

/* Vectors and tables of the master. A slot's memory is there once a worker has taken
 * it.
 */
static void count_bytes(const struct gapless_simulation *s,
                        struct gapless_simulation_stats *ret)
{
    const struct gapless_master *m = s->master;
    uint64_t vector = m->layout.padded * sizeof(float), vectors = 1;
    bool published = m->published[0] != NULL;

    vectors += (m->all != NULL ? 1u : 0u) + (m->stat != NULL ? 1u : 0u) +
               (m->square != NULL && m->matrices == NULL ? 1u : 0u) +
               (published ? 2u : 0u); /* of matrices there are no squares */
    ret->table_bytes = m->shared_stats_region.bytes + m->core->bytes;
    for (uint32_t w = 0; w < s->workers_max; w++)
        if (m->slot[w].region.base != NULL) {
            vectors += (m->slot[w].own != NULL ? 1u : 0u) +
                       (m->slot[w].mean != NULL ? 1u : 0u) + (published ? 0u : 1u);
            ret->table_bytes += m->slot_used;
        }
    ret->master_bytes = vectors * vector;
}

void gapless_simulation_stats(const struct gapless_simulation *s,
                              struct gapless_simulation_stats *ret)
{
    *ret = (struct gapless_simulation_stats){
        .virtual_ns = sim_now_ns(s->world),
        .seconds = 1e-9 * (double)s->spent_ns,
        .gradient_s = 1e-9 * (double)jobs_spent_ns(s->jobs),
        .master_s = 1e-9 * (double)s->master_ns,
        .buffer_bytes = jobs_bytes(s->jobs),
    };
    count_bytes(s, ret);
    for (uint32_t w = 0; w < s->workers_max; w++)
        if (s->worker[w].worker != NULL)
            ret->worker_bytes += worker_bytes(s->worker[w].worker);
}
