/* The pure step of the master. Read core.h first; the table of events is at the
 * end. */
#include "engine/master/core.h"

#include <string.h>

/* How long workers may take to hand in their last gradients once the run was
 * stopped. */
#define STOP_BOUND_NS 5000000000ull
/* Most tickets that a worker gives back when it goes. */
#define TICKETS_EACH 2u

/* See core_bad_most. (This project.) */
#define BAD_PER_WORKER 16u
#define BAD_LEAST 100u
#define BAD_LEAST_SHORT 10u

/* ---- the arrays behind the struct ---------------------------------------- */

static struct core_ticket *returned_of(struct master_core *core)
{
    return (struct core_ticket *)(void *)((char *)core + core->at_returned);
}

static uint64_t *versions_of(struct master_core *core)
{
    return (uint64_t *)(void *)((char *)core + core->at_version);
}

static uint64_t *positions_of(struct master_core *core)
{
    return (uint64_t *)(void *)((char *)core + core->at_position);
}

/* Versions at which the look-aheads of a worker were made. */
static uint64_t *read_of(struct master_core *core, uint32_t worker)
{
    return (uint64_t *)(void *)((char *)core + core->at_read) +
           (size_t)worker * core->config.ranges;
}

/* Of a worker's present message, by range: 0 not here, 1 landed, 2 done. */
static uint8_t *landed_of(struct master_core *core, uint32_t worker)
{
    return (uint8_t *)core + core->at_landed + (size_t)worker * core->config.ranges;
}

uint64_t core_version(const struct master_core *core, uint32_t range)
{
    return (
        (const uint64_t *)(const void *)((const char *)core + core->at_version))[range];
}

uint64_t core_position(const struct master_core *core, uint32_t range)
{
    return ((const uint64_t *)(const void *)((const char *)core +
                                             core->at_position))[range];
}

uint64_t core_lag(const struct master_core *core, uint32_t worker, uint32_t range)
{
    const uint64_t *read =
        (const uint64_t *)(const void *)((const char *)core + core->at_read);

    return core_version(core, range) -
           read[(size_t)worker * core->config.ranges + range];
}

void core_read_at(struct master_core *core, uint32_t worker, uint32_t range,
                  uint64_t version)
{
    uint64_t now = versions_of(core)[range];

    read_of(core, worker)[range] = version < now ? version : now;
}

uint32_t core_next(const struct master_core *core, enum core_worker_state state,
                   uint32_t worker)
{
    uint32_t w;

    for (w = worker == CORE_ALL ? 0 : worker + 1; w < core->config.workers_max; w++)
        if (core->worker[w].state == state)
            return w;
    return CORE_ALL;
}

size_t core_tickets_room(const struct core_config *config)
{
    return (size_t)TICKETS_EACH * config->workers_max + config->tickets_more;
}

size_t core_bytes(const struct core_config *config)
{
    uint64_t cells = (uint64_t)config->workers_max * config->ranges;

    if (config->workers_max == 0 || config->ranges == 0 || cells > CORE_CELLS_MAX)
        return 0;
    return sizeof(struct master_core) +
           config->workers_max * sizeof(struct core_worker) +
           core_tickets_room(config) * sizeof(struct core_ticket) +
           (2 * (size_t)config->ranges + cells) * sizeof(uint64_t) + cells;
}

void core_init(struct master_core *core, const struct core_config *config)
{
    size_t cells = (size_t)config->workers_max * config->ranges;

    memset(core, 0, core_bytes(config));
    core->config = *config;
    core->bytes = core_bytes(config);
    core->at_returned = sizeof *core + config->workers_max * sizeof(struct core_worker);
    core->at_version =
        core->at_returned + core_tickets_room(config) * sizeof(struct core_ticket);
    core->at_position = core->at_version + config->ranges * sizeof(uint64_t);
    core->at_read = core->at_position + config->ranges * sizeof(uint64_t);
    core->at_landed = core->at_read + cells * sizeof(uint64_t);
}

/* ---- actions ------------------------------------------------------------- */

static void act(struct todo *todo, enum core_action_kind kind, uint32_t worker,
                uint32_t range, enum core_reason reason)
{
    todo->action[todo->count++] = (struct core_action){kind, worker, range, reason};
}

/* ---- tickets ------------------------------------------------------------- */

/* Batches that a worker should take in a row. */
static uint32_t steps_for(const struct master_core *core, uint32_t w)
{
    uint32_t most = core->config.steps > 0 ? core->config.steps : 1, v, steps;
    uint64_t own = core->worker[w].step_ns, least = own;

    if (!core->config.adapt || own == 0)
        return most;
    for (v = 0; v < core->config.workers_max; v++)
        if (core->worker[v].state != CORE_FREE && core->worker[v].step_ns > 0 &&
            core->worker[v].step_ns < least)
            least = core->worker[v].step_ns;
    steps = (uint32_t)((double)most * ((double)least / (double)own) + 0.5);
    return steps > 0 ? steps : 1;
}

/* Its gradient is there: the mean goes a quarter of the way to how long it took. */
static void measure(struct master_core *core, uint32_t w, uint64_t now_ns)
{
    struct core_worker *worker = &core->worker[w];
    double took = (double)(now_ns - worker->from_ns) / worker->steps;
    double mean = (double)worker->step_ns;

    mean = worker->step_ns == 0 ? took : mean + (took - mean) / 4;
    worker->step_ns = mean < 1 ? 1 : (uint64_t)mean;
}

static const struct core_ticket no_ticket = {.first = CORE_NO_TICKET};

static struct core_ticket ticket_take(struct master_core *core, uint32_t w)
{
    struct core_ticket ret = no_ticket;
    uint64_t left;

    if (core->phase != CORE_RUNNING)
        return ret;
    if (core->returned > 0)
        return returned_of(core)[--core->returned];
    ret.steps = steps_for(core, w);
    left = core->config.tickets - core->issued;
    if (core->config.tickets > 0 && left < ret.steps)
        ret.steps = (uint32_t)left;
    if (ret.steps == 0)
        return ret;
    ret.first = core->issued;
    core->issued += ret.steps;
    return ret;
}

static void ticket_return(struct master_core *core, struct core_ticket ticket)
{
    if (ticket.first != CORE_NO_TICKET)
        returned_of(core)[core->returned++] = ticket;
}

/* The earliest that is kept for another worker: nobody waits while there is one. */
static struct core_ticket ticket_kept(struct master_core *core)
{
    struct core_worker *of = NULL;
    struct core_ticket ret = no_ticket;
    uint32_t v;

    for (v = 0; core->phase == CORE_RUNNING && v < core->config.workers_max; v++)
        if (core->worker[v].state != CORE_FREE &&
            core->worker[v].next.first < ret.first) {
            of = &core->worker[v];
            ret = of->next;
        }
    if (of != NULL)
        of->next = no_ticket;
    return ret;
}

/* What a worker computes next; what is kept for it stays so if an earlier one came back. */
static struct core_ticket ticket_next(struct master_core *core, uint32_t w)
{
    struct core_worker *worker = &core->worker[w];
    uint64_t back = core->returned > 0 ? returned_of(core)[core->returned - 1].first
                                       : CORE_NO_TICKET;
    struct core_ticket ret = worker->next;

    if (core->phase != CORE_RUNNING)
        worker->next = no_ticket;
    if (core->phase != CORE_RUNNING || ret.first == CORE_NO_TICKET ||
        back < ret.first) {
        ret = ticket_take(core, w);
        return ret.first == CORE_NO_TICKET ? ticket_kept(core) : ret;
    }
    worker->next = no_ticket;
    return ret;
}

/* Gives a worker its next ticket; without one it waits. True: a READY is due. */
static bool assign(struct master_core *core, uint32_t w, uint64_t now_ns)
{
    struct core_worker *worker = &core->worker[w];
    struct core_ticket ticket = ticket_next(core, w);

    memset(landed_of(core, w), 0, core->config.ranges);
    worker->pushed = worker->applied = 0;
    worker->rejected = false;
    worker->ticket = ticket.first;
    worker->steps = ticket.steps;
    if (ticket.first == CORE_NO_TICKET) {
        worker->state = CORE_WAITING;
        return false;
    }
    if (worker->ahead && worker->next.first == CORE_NO_TICKET)
        worker->next = ticket_take(core, w);
    worker->state = CORE_COMPUTING;
    worker->since_ns = now_ns;
    worker->from_ns = core->event_ns;
    worker->ready = true;
    core->computing++;
    return true;
}

/* The next READY of ranges [first, end) makes a new look-ahead: what the worker holds
 * there is old. */
static void renew(struct master_core *core, uint32_t w, uint32_t first, uint32_t end)
{
    core->worker[w].refresh = true;
    memcpy(read_of(core, w) + first, versions_of(core) + first,
           (end - first) * sizeof(uint64_t));
}

/* Gives tickets to every worker that waits, as far as they go. True: some READY is
 * due. */
static bool assign_waiting(struct master_core *core, uint64_t now_ns)
{
    bool any = false;
    uint32_t w;

    for (w = core_next(core, CORE_WAITING, CORE_ALL); w != CORE_ALL;
         w = core_next(core, CORE_WAITING, w)) {
        if (!assign(core, w, now_ns))
            break;
        if (!core->config.local || core->worker[w].refresh)
            renew(core, w, 0, core->config.ranges);
        any = true;
    }
    return any;
}

/* ---- the end ------------------------------------------------------------- */

static bool nothing_under_way(const struct master_core *core)
{
    if (core->computing > 0 || core->pushed_workers > 0)
        return false;
    if (core->phase == CORE_STOPPING)
        return true;
    return core->phase == CORE_RUNNING && core->config.tickets > 0 &&
           core->issued >= core->config.tickets && core->returned == 0;
}

static void finish(struct master_core *core, struct todo *todo)
{
    uint32_t w;
    bool any = false;

    core->phase = CORE_OVER_NOW;
    for (w = 0; w < core->config.workers_max; w++)
        if (core->worker[w].state != CORE_FREE) {
            core->worker[w].ready = core->worker[w].stop = true;
            core->worker[w].refresh = false;
            any = true;
        }
    act(todo, CORE_FINISH, CORE_ALL, CORE_ALL, CORE_OVER);
    if (any)
        act(todo, CORE_READY, CORE_ALL, CORE_ALL, CORE_OVER);
}

/* After anything that took a worker out of computing: a round, or the end, may be
 * due. */
static void drain(struct master_core *core, struct todo *todo)
{
    if (core->config.round && core->computing == 0 && core->pushed_workers > 0)
        act(todo, CORE_ROUND, CORE_ALL, CORE_ALL, CORE_OVER);
    else if (core->phase != CORE_OVER_NOW && nothing_under_way(core))
        finish(core, todo);
}

/* ---- events -------------------------------------------------------------- */

static void start(struct master_core *core, uint64_t now_ns, struct todo *todo)
{
    core->phase = CORE_RUNNING;
    if (assign_waiting(core, now_ns))
        act(todo, CORE_READY, CORE_ALL, CORE_ALL, CORE_OVER);
    else
        drain(core, todo); /* a run that goes on may have nothing left to do */
}

static void on_hello(struct master_core *core, const struct core_event *e,
                     struct todo *todo)
{
    bool as_wished = e->worker < core->config.workers_max &&
                     core->worker[e->worker].state == CORE_FREE;
    uint32_t w = as_wished ? e->worker : core_next(core, CORE_FREE, CORE_ALL), r;
    uint64_t *read;

    if (core->phase == CORE_STOPPING || core->phase == CORE_OVER_NOW || w == CORE_ALL) {
        act(todo, CORE_DROP, CORE_ALL, CORE_ALL,
            core->phase == CORE_STOPPING || core->phase == CORE_OVER_NOW ? CORE_OVER
                                                                         : CORE_FULL);
        return;
    }
    if (core->joined++ == 0)
        core->first_ns = e->now_ns;
    core->worker[w] =
        (struct core_worker){.state = CORE_WAITING,
                             .ahead = e->ahead && !core->config.adapt,
                             .ticket = CORE_NO_TICKET,
                             .next = no_ticket,
                             .incarnation = core->worker[w].incarnation + 1};
    core->active++;
    read = read_of(core, w);
    for (r = 0; r < core->config.ranges; r++)
        read[r] = core_version(core, r);
    act(todo, CORE_WELCOME, w, CORE_ALL, CORE_OVER);
    if (core->phase == CORE_GATHERING && core->active >= core->config.workers_wait)
        start(core, e->now_ns, todo);
    else if (core->phase == CORE_RUNNING && assign(core, w, e->now_ns))
        act(todo, CORE_READY, w, CORE_ALL, CORE_OVER);
}

/* ---- divergence ---------------------------------------------------------- */

uint64_t core_bad_most(const struct master_core *core)
{
    uint64_t most = (uint64_t)BAD_PER_WORKER * core->active;
    uint64_t tenth = core->config.tickets / 10;

    most = most > BAD_LEAST ? most : BAD_LEAST;
    tenth = tenth > BAD_LEAST_SHORT ? tenth : BAD_LEAST_SHORT;
    return core->config.tickets > 0 && tenth < most ? tenth : most;
}

/* The run is asked to end, as by CORE_STOP. */
static void diverge(struct master_core *core, uint64_t at, uint64_t now_ns)
{
    if (core->diverged_at == 0)
        core->diverged_at = at > 0 ? at : 1;
    if (core->phase != CORE_GATHERING && core->phase != CORE_RUNNING)
        return;
    core->phase = CORE_STOPPING;
    core->stop_ns = now_ns;
}

/* A message of `steps` batches, consumed last, was not finite or was. */
static void judge(struct master_core *core, bool bad, uint32_t steps, uint64_t now_ns)
{
    if (!bad) {
        core->bad_row = 0;
        return;
    }
    if (core->bad_row++ == 0)
        core->bad_from = core->consumed - steps + 1;
    if (core->config.judges && core->bad_row >= core_bad_most(core))
        diverge(core, core->bad_from, now_ns);
}

/* A worker's message is done (applied or dropped): the next ticket. */
static void message_done(struct master_core *core, uint32_t w, uint32_t range,
                         uint64_t now_ns, struct todo *todo)
{
    bool all = range == CORE_ALL;

    core->consumed += core->worker[w].steps;
    core->computing--;
    if (!core->worker[w].late)
        judge(core, core->worker[w].rejected, core->worker[w].steps, now_ns);
    if (core->worker[w].rejected) {
        core->dropped += core->worker[w].steps;
        renew(core, w, all ? 0 : range, all ? core->config.ranges : range + 1);
    }
    if (assign(core, w, now_ns))
        act(todo, CORE_READY, w, range, CORE_OVER);
    drain(core, todo);
}

static void message_landed(struct master_core *core, uint32_t w, struct todo *todo)
{
    if (!core->config.round) {
        act(todo, CORE_APPLY, w, CORE_ALL, CORE_OVER);
        return;
    }
    core->worker[w].state = CORE_PUSHED;
    core->computing--;
    core->pushed_workers++;
    drain(core, todo);
}

/* Counts an update of ranges [first, end) and, for a worker, that its look-ahead was
 * made there. */
static void count_update(struct master_core *core, uint32_t w, uint32_t first,
                         uint32_t end, bool applied, uint64_t gradients)
{
    uint32_t r;

    for (r = first; r < end; r++) {
        versions_of(core)[r] += applied ? 1 : 0;
        positions_of(core)[r] += gradients;
        if (w != CORE_ALL && applied)
            read_of(core, w)[r] = versions_of(core)[r];
    }
}

static void on_local(struct master_core *core, const struct core_event *e,
                     struct todo *todo)
{
    struct core_worker *worker = &core->worker[e->worker];

    if (core->phase == CORE_OVER_NOW)
        return; /* too late, as for a gradient */
    if (!core->config.local || worker->state != CORE_COMPUTING || worker->pushed > 0) {
        act(todo, CORE_DROP, e->worker, CORE_ALL, CORE_BROKE_PROTOCOL);
        return;
    }
    count_update(core, e->worker, 0, core->config.ranges, false, worker->steps);
    message_done(core, e->worker, CORE_ALL, e->now_ns, todo);
}

static void round_applied(struct master_core *core, const struct core_event *e,
                          struct todo *todo)
{
    uint64_t in_round = 0;
    bool any = false;
    uint32_t w;

    for (w = core_next(core, CORE_PUSHED, CORE_ALL); w != CORE_ALL;
         w = core_next(core, CORE_PUSHED, w))
        in_round += core->worker[w].steps;
    count_update(core, CORE_ALL, 0, core->config.ranges, e->finite, in_round);
    core->updates += e->finite ? 1 : 0;
    for (w = core_next(core, CORE_PUSHED, CORE_ALL); w != CORE_ALL;
         w = core_next(core, CORE_PUSHED, w)) {
        count_update(core, w, 0, core->config.ranges, false, 0);
        memcpy(read_of(core, w), versions_of(core),
               core->config.ranges * sizeof(uint64_t));
        core->consumed += core->worker[w].steps;
        if (core->worker[w].rejected || !e->finite)
            core->dropped += core->worker[w].steps;
        judge(core, core->worker[w].rejected || !e->finite, core->worker[w].steps,
              e->now_ns);
        core->pushed_workers--;
        any |= assign(core, w, e->now_ns);
    }
    any |= assign_waiting(core, e->now_ns);
    if (any)
        act(todo, CORE_READY, CORE_ALL, CORE_ALL, CORE_OVER);
    drain(core, todo);
}

static void on_applied(struct master_core *core, const struct core_event *e,
                       struct todo *todo)
{
    struct core_worker *worker;
    uint32_t first, end, done;

    if (e->worker == CORE_ALL) {
        round_applied(core, e, todo);
        return;
    }
    worker = &core->worker[e->worker];
    first = e->range == CORE_ALL ? 0 : e->range;
    end = e->range == CORE_ALL ? core->config.ranges : e->range + 1;
    done = e->finite ? end : e->range == CORE_ALL ? e->applied : first;
    count_update(core, e->worker, first, done, true, worker->steps);
    count_update(core, e->worker, done, end, false, worker->steps);
    worker->rejected |= !e->finite;
    worker->applied += end - first;
    if (e->range != CORE_ALL)
        landed_of(core, e->worker)[e->range] = 2;
    if (worker->applied == core->config.ranges) {
        core->updates += worker->rejected ? 0 : 1;
        message_done(core, e->worker, e->range, e->now_ns, todo);
    } else {
        worker->ready = true;
        if (!e->finite)
            renew(core, e->worker, first, end);
        act(todo, CORE_READY, e->worker, e->range, CORE_OVER);
    }
}

/* Ringmaster ASGD (2025): what was computed at parameters of drop_lag updates ago, or
 * older, is not applied. The first range that lands decides for all. */
static bool is_late(const struct master_core *core, uint32_t w, uint32_t range)
{
    return core->config.drop_lag > 0 &&
           core_lag(core, w, range) >= core->config.drop_lag;
}

/* A range of a message that is late, or all of it: done, and not applied. */
static void pass_over(struct master_core *core, const struct core_event *e,
                      struct todo *todo)
{
    bool each = e->range == CORE_ALL || !core->config.whole;
    const struct core_event done = {.kind = CORE_APPLIED,
                                    .worker = e->worker,
                                    .range = each ? e->range : CORE_ALL,
                                    .finite = false,
                                    .now_ns = e->now_ns};

    if (each || core->worker[e->worker].pushed == core->config.ranges)
        on_applied(core, &done, todo);
}

static void on_gradient(struct master_core *core, const struct core_event *e,
                        struct todo *todo)
{
    struct core_worker *worker = &core->worker[e->worker];
    uint8_t *landed = landed_of(core, e->worker);

    if (core->phase == CORE_OVER_NOW)
        return; /* too late: the parameters are final, the worker has been asked to stop
                 */
    if (worker->state != CORE_COMPUTING ||
        ((!e->finite || e->range == CORE_ALL) && worker->pushed > 0) ||
        (e->finite && e->range != CORE_ALL && landed[e->range] != 0)) {
        act(todo, CORE_DROP, e->worker, CORE_ALL, CORE_BROKE_PROTOCOL);
        return;
    }
    if (worker->pushed == 0 && core->config.adapt)
        measure(core, e->worker, e->now_ns);
    if (!e->finite) {
        worker->rejected = true;
        worker->late = false;
        message_done(core, e->worker, CORE_ALL, e->now_ns, todo);
        return;
    }
    if (worker->pushed == 0)
        worker->late = is_late(core, e->worker, e->range == CORE_ALL ? 0 : e->range);
    if (e->range == CORE_ALL) {
        memset(landed, 1, core->config.ranges);
        worker->pushed = core->config.ranges;
    } else {
        landed[e->range] = 1;
        worker->pushed++;
    }
    if (worker->late) {
        pass_over(core, e, todo);
        return;
    }
    if (!core->config.whole && e->range != CORE_ALL)
        act(todo, CORE_APPLY, e->worker, e->range, CORE_OVER);
    else if (worker->pushed == core->config.ranges)
        message_landed(core, e->worker, todo);
}

static void on_gone(struct master_core *core, const struct core_event *e,
                    struct todo *todo)
{
    struct core_worker *worker = &core->worker[e->worker];
    bool held = worker->state == CORE_COMPUTING || worker->state == CORE_PUSHED;

    if (worker->state == CORE_FREE)
        return;
    core->computing -= worker->state == CORE_COMPUTING ? 1 : 0;
    core->pushed_workers -= worker->state == CORE_PUSHED ? 1 : 0;
    core->active--;
    if (core->phase != CORE_OVER_NOW && !e->finite)
        core->lost++;
    if (held)
        ticket_return(core,
                      worker->next); /* behind the present one, which is earlier */
    worker->next = no_ticket;
    if (held && worker->applied == 0) {
        ticket_return(core, (struct core_ticket){worker->ticket, worker->steps});
    } else if (held) {
        core->partial += worker->late ? 0 : worker->steps;
        core->dropped += worker->late ? worker->steps : 0;
        core->consumed += worker->steps;
    }
    worker->state = CORE_FREE;
    worker->ready = false;
    act(todo, CORE_FORGET, e->worker, CORE_ALL, CORE_OVER);
    if (core->phase == CORE_RUNNING && core->returned > 0 &&
        assign_waiting(core, e->now_ns))
        act(todo, CORE_READY, CORE_ALL, CORE_ALL, CORE_OVER);
    drain(core, todo);
}

static void on_tick(struct master_core *core, const struct core_event *e,
                    struct todo *todo)
{
    uint32_t w;

    if (core->phase == CORE_GATHERING && core->active > 0 &&
        e->now_ns - core->first_ns >= core->config.wait_ns) {
        start(core, e->now_ns, todo);
        return;
    }
    if (core->phase == CORE_STOPPING && e->now_ns - core->stop_ns >= STOP_BOUND_NS) {
        finish(core, todo);
        return;
    }
    if (core->config.timeout_ns == 0 || core->phase == CORE_OVER_NOW)
        return;
    for (w = core_next(core, CORE_COMPUTING, CORE_ALL); w != CORE_ALL;
         w = core_next(core, CORE_COMPUTING, w))
        if (e->now_ns - core->worker[w].since_ns > core->config.timeout_ns) {
            act(todo, CORE_DROP, w, CORE_ALL, CORE_TOO_SLOW);
            return;
        }
}

static void on_stop(struct master_core *core, const struct core_event *e,
                    struct todo *todo)
{
    if (core->phase == CORE_STOPPING || core->phase == CORE_OVER_NOW)
        return;
    core->phase = CORE_STOPPING;
    core->stop_ns = e->now_ns;
    drain(core, todo);
}

static void on_diverged(struct master_core *core, const struct core_event *e,
                        struct todo *todo)
{
    bool over = core->phase == CORE_OVER_NOW;

    diverge(core, core->bad_row > 0 ? core->bad_from : core->consumed, e->now_ns);
    if (!over)
        drain(core, todo);
}

void core_reject(struct master_core *core, uint32_t worker)
{
    core->worker[worker].rejected = true;
}

void core_excuse(struct master_core *core, uint32_t worker, uint64_t now_ns)
{
    if (core->worker[worker].state == CORE_COMPUTING)
        core->worker[worker].since_ns = now_ns;
}

int core_step(struct master_core *core, const struct core_event *event,
              struct todo *ret)
{
    static void (*const step[])(struct master_core *, const struct core_event *,
                                struct todo *) = {
        [CORE_HELLO] = on_hello,     [CORE_GRADIENT] = on_gradient,
        [CORE_APPLIED] = on_applied, [CORE_GONE] = on_gone,
        [CORE_TICK] = on_tick,       [CORE_STOP] = on_stop,
        [CORE_LOCAL] = on_local,     [CORE_DIVERGED] = on_diverged,
    };
    bool of_worker = event->kind == CORE_GRADIENT || event->kind == CORE_APPLIED ||
                     event->kind == CORE_GONE || event->kind == CORE_LOCAL;
    bool all_workers = event->kind == CORE_APPLIED && event->worker == CORE_ALL;
    bool all_ranges = event->range == CORE_ALL;

    ret->count = 0;
    if ((unsigned)event->kind > CORE_DIVERGED)
        return -1;
    if (of_worker && !all_workers && event->worker >= core->config.workers_max)
        return -1;
    if (of_worker && event->kind != CORE_GONE && event->kind != CORE_LOCAL &&
        !all_ranges && event->range >= core->config.ranges)
        return -1;
    if (event->kind == CORE_APPLIED && event->applied > core->config.ranges)
        return -1;
    if (event->kind != CORE_APPLIED && event->kind != CORE_DIVERGED)
        core->event_ns = event->now_ns;
    step[event->kind](core, event, ret);
    return 0;
}

/* ---- for a file ---------------------------------------------------------- */

/* The counters, in order; the first two say how many of all else there are. */
static uint64_t *counter_of(struct master_core *core, uint32_t index)
{
    uint64_t *const counters[] = {
        &core->issued,  &core->consumed, &core->dropped, &core->partial,
        &core->updates, &core->first_ns, &core->stop_ns, &core->event_ns,
        &core->joined,  &core->lost,     &core->bad_row, &core->bad_from,
    };

    return index < sizeof counters / sizeof counters[0] ? counters[index] : NULL;
}

enum {
    WORDS_COUNTERS = 12,
    WORDS_HEAD = 8 + WORDS_COUNTERS,
    WORDS_WORKER = 12
};

static size_t words_for(const struct core_config *config)
{
    uint64_t workers = config->workers_max, ranges = config->ranges;

    return (size_t)(WORDS_HEAD + workers * WORDS_WORKER +
                    2 * core_tickets_room(config) + 2 * ranges + 2 * workers * ranges);
}

size_t core_words(const struct master_core *core)
{
    return words_for(&core->config);
}

static void export_worker(const struct core_worker *w, uint64_t *ret)
{
    const uint64_t words[WORDS_WORKER] = {
        w->state,
        (w->ready ? 1u : 0u) | (w->stop ? 2u : 0u) | (w->refresh ? 4u : 0u) |
            (w->rejected ? 8u : 0u) | (w->late ? 16u : 0u) | (w->ahead ? 32u : 0u),
        w->steps,
        w->pushed,
        w->applied,
        w->incarnation,
        w->ticket,
        w->since_ns,
        w->from_ns,
        w->step_ns,
        w->next.first,
        w->next.steps};

    memcpy(ret, words, sizeof words);
}

/* False: it is no worker of this core. */
static bool import_worker(const struct master_core *core, const uint64_t *words,
                          struct core_worker *ret)
{
    uint64_t ranges = core->config.ranges;

    if (words[0] > CORE_PUSHED || words[1] > 63 || words[2] > UINT32_MAX ||
        words[3] > ranges || words[4] > ranges || words[5] > UINT32_MAX ||
        words[11] > UINT32_MAX)
        return false;
    *ret = (struct core_worker){.state = (enum core_worker_state)words[0],
                                .ready = (words[1] & 1) != 0,
                                .stop = (words[1] & 2) != 0,
                                .refresh = (words[1] & 4) != 0,
                                .rejected = (words[1] & 8) != 0,
                                .late = (words[1] & 16) != 0,
                                .ahead = (words[1] & 32) != 0,
                                .steps = (uint32_t)words[2],
                                .pushed = (uint32_t)words[3],
                                .applied = (uint32_t)words[4],
                                .incarnation = (uint32_t)words[5],
                                .ticket = words[6],
                                .since_ns = words[7],
                                .from_ns = words[8],
                                .step_ns = words[9],
                                .next = {words[10], (uint32_t)words[11]}};
    return ret->state != CORE_COMPUTING || ret->steps > 0;
}

void core_export(const struct master_core *from, uint64_t *ret)
{
    struct master_core *core = (struct master_core *)(uintptr_t)from; /* only read */
    uint32_t workers = core->config.workers_max, ranges = core->config.ranges, i, r;
    const struct core_ticket *returned = returned_of(core);

    *ret++ = workers;
    *ret++ = ranges;
    *ret++ = core->config.tickets_more;
    *ret++ = core->phase;
    *ret++ = core->active;
    *ret++ = core->computing;
    *ret++ = core->pushed_workers;
    *ret++ = core->returned;
    for (i = 0; i < WORDS_COUNTERS; i++)
        *ret++ = *counter_of(core, i);
    for (i = 0; i < workers; i++, ret += WORDS_WORKER)
        export_worker(&core->worker[i], ret);
    for (i = 0; i < core_tickets_room(&core->config); i++) {
        *ret++ = i < core->returned ? returned[i].first : 0;
        *ret++ = i < core->returned ? returned[i].steps : 0;
    }
    memcpy(ret, versions_of(core), ranges * sizeof *ret);
    ret += ranges;
    memcpy(ret, positions_of(core), ranges * sizeof *ret);
    ret += ranges;
    for (i = 0; i < workers; i++, ret += ranges)
        memcpy(ret, read_of(core, i), ranges * sizeof *ret);
    for (i = 0; i < workers; i++)
        for (r = 0; r < ranges; r++)
            *ret++ = landed_of(core, i)[r];
}

bool core_words_of(const uint64_t *words, size_t count, struct core_config *ret)
{
    struct core_config config;

    if (count < WORDS_HEAD || words[0] == 0 || words[1] == 0 || words[0] > UINT32_MAX ||
        words[1] > UINT32_MAX || words[2] > UINT32_MAX ||
        words[0] * words[1] > CORE_CELLS_MAX)
        return false;
    config = (struct core_config){.workers_max = (uint32_t)words[0],
                                  .ranges = (uint32_t)words[1],
                                  .tickets_more = (uint32_t)words[2]};
    if (words_for(&config) != count)
        return false;
    *ret = config;
    return true;
}

/* Do the counts agree with the workers that are counted? */
static bool counts_agree(const struct master_core *core)
{
    uint32_t active = 0, computing = 0, pushed = 0, w;

    for (w = 0; w < core->config.workers_max; w++) {
        active += core->worker[w].state != CORE_FREE ? 1 : 0;
        computing += core->worker[w].state == CORE_COMPUTING ? 1 : 0;
        pushed += core->worker[w].state == CORE_PUSHED ? 1 : 0;
    }
    return active == core->active && computing == core->computing &&
           pushed == core->pushed_workers &&
           core->returned <= core_tickets_room(&core->config) &&
           core->consumed <= core->issued;
}

bool core_import(struct master_core *core, const uint64_t *words, size_t count)
{
    uint32_t workers = core->config.workers_max, ranges = core->config.ranges, i, r;

    if (count != core_words(core) || words[0] != workers || words[1] != ranges ||
        words[2] != core->config.tickets_more || words[3] > CORE_OVER_NOW ||
        words[4] > workers || words[5] > workers || words[6] > workers ||
        words[7] > core_tickets_room(&core->config))
        return false;
    core->phase = (enum core_phase)words[3];
    core->active = (uint32_t)words[4];
    core->computing = (uint32_t)words[5];
    core->pushed_workers = (uint32_t)words[6];
    core->returned = (uint32_t)words[7];
    words += 8;
    for (i = 0; i < WORDS_COUNTERS; i++)
        *counter_of(core, i) = *words++;
    for (i = 0; i < workers; i++, words += WORDS_WORKER)
        if (!import_worker(core, words, &core->worker[i]))
            return false;
    for (i = 0; i < core_tickets_room(&core->config); i++, words += 2)
        returned_of(core)[i] = (struct core_ticket){words[0], (uint32_t)words[1]};
    memcpy(versions_of(core), words, ranges * sizeof *words);
    words += ranges;
    memcpy(positions_of(core), words, ranges * sizeof *words);
    words += ranges;
    for (i = 0; i < workers; i++, words += ranges)
        memcpy(read_of(core, i), words, ranges * sizeof *words);
    for (i = 0; i < workers; i++)
        for (r = 0; r < ranges; r++)
            landed_of(core, i)[r] = (uint8_t)(*words++ & 3);
    return counts_agree(core);
}

static uint32_t tickets_of(const struct core_worker *worker)
{
    return 1 + (worker->next.first != CORE_NO_TICKET ? 1 : 0);
}

bool core_go_on(struct master_core *core, struct master_core *was)
{
    uint32_t ranges = core->config.ranges, w;
    struct todo todo;

    was->phase = CORE_GATHERING; /* nobody gets a ticket now, and nothing ends */
    for (w = 0; w < was->config.workers_max; w++) {
        struct core_event gone = {
            .kind = CORE_GONE, .worker = w, .finite = true, .now_ns = was->event_ns};

        if (was->worker[w].state != CORE_FREE &&
            was->returned + tickets_of(&was->worker[w]) >
                core_tickets_room(&was->config))
            return false;
        todo.count = 0;
        on_gone(was, &gone, &todo);
    }
    if (ranges != was->config.ranges ||
        was->returned > core_tickets_room(&core->config))
        return false;
    core->issued = was->issued;
    core->consumed = was->consumed;
    core->dropped = was->dropped;
    core->partial = was->partial;
    core->updates = was->updates;
    core->lost = was->lost;
    core->bad_row = was->bad_row;
    core->bad_from = was->bad_from;
    core->returned = was->returned;
    memcpy(returned_of(core), returned_of(was),
           was->returned * sizeof(struct core_ticket));
    memcpy(versions_of(core), versions_of(was), ranges * sizeof(uint64_t));
    memcpy(positions_of(core), positions_of(was), ranges * sizeof(uint64_t));
    return true;
}
