/* Replay: what arrives, and when, comes from a record instead of a clock. */
#include "engine/simulator/simulator.h"

#include <stdlib.h>
#include <string.h>

static bool hands_in(enum record_kind kind)
{
    return kind == RECORD_GRADIENT || kind == RECORD_BAD;
}

static int check(const struct gapless_simulation *s, struct gapless_error *error)
{
    const struct record_facts *f = &s->record->facts;
    const struct layout *l = &s->master->layout;

    if (f->count != l->count || f->hash != l->hash)
        return gapless_error_set(error, GAPLESS_MODEL, 0,
                                 "the record %.150s is of a model with %llu parameters "
                                 "in %u tensors, not of this one with %llu in %u",
                                 s->record->path, (unsigned long long)f->count,
                                 f->tensors, (unsigned long long)l->count,
                                 l->tensors_count);
    if (f->own != layout_own_hash(l))
        return gapless_error_set(
            error, GAPLESS_MODEL, 0,
            "the record %.150s is of a run whose tensors have %s: give these "
            "tensors (rate, decay, average; in Python params= and batch norm) the same",
            s->record->path,
            f->own == 0
                ? "no rates, decays or averages of their own, as these have"
                : "rates, decays or averages of their own, which these have not, "
                  "or others");
    if (f->gradients != s->config.master.gradients)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "the record %.150s is of a run of %llu gradients, not "
                                 "of %llu",
                                 s->record->path, (unsigned long long)f->gradients,
                                 (unsigned long long)s->config.master.gradients);
    if (f->ranges != l->ranges_count)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "the record %.150s has %u ranges, this run %u: give "
                                 "the same --range-elements",
                                 s->record->path, f->ranges, l->ranges_count);
    return GAPLESS_OK;
}

/* The next event of each worker, and where each of them begins. */
static int link_events(struct gapless_simulation *s, struct gapless_error *error)
{
    size_t count = s->record->count;
    int status = GAPLESS_OK;

    s->record_next = calloc(count + 1, sizeof *s->record_next);
    s->record_turn = calloc(s->workers_max, sizeof *s->record_turn);
    if (s->record_next == NULL || s->record_turn == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory to replay %zu events", count);
    for (uint32_t w = 0; w < s->workers_max; w++)
        s->record_turn[w] = count;
    for (size_t i = count; i-- > 0;) {
        const struct record_event *e = &s->record->events[i];

        if (e->kind == RECORD_TICK || e->kind == RECORD_STOP)
            continue;
        s->record_next[i] = s->record_turn[e->worker];
        s->record_turn[e->worker] = i;
    }
    for (size_t i = 0; i < count && status == GAPLESS_OK; i++)
        status = events_add(&s->events,
                            &(struct sim_event){.at_ns = s->record->events[i].at_ns,
                                                .order = s->order++,
                                                .kind = SIM_REPLAY,
                                                .index = i},
                            error);
    return status;
}

int replay_open(struct gapless_simulation *s, struct gapless_error *error)
{
    int status = check(s, error);

    return status == GAPLESS_OK ? link_events(s, error) : status;
}

void replay_close(struct gapless_simulation *s)
{
    record_free(s->record);
    free(s->record_next);
    free(s->record_turn);
    s->record = NULL;
    s->record_next = s->record_turn = NULL;
}

bool replay_due(struct gapless_simulation *s, uint32_t who, uint64_t *ret)
{
    size_t at = s->record_turn[who];

    if (at >= s->record->count || !hands_in(s->record->events[at].kind))
        return false;
    *ret = at;
    return true;
}

bool replay_defers(struct gapless_simulation *s, uint32_t who)
{
    uint64_t at;

    if (s->master->published[0] == NULL || !replay_due(s, who, &at) ||
        s->record->events[at].version <= core_version(s->master->core, 0))
        return false;
    s->worker[who].deferred = true;
    s->deferred++;
    return true;
}

int replay_deferred(struct gapless_simulation *s, struct gapless_error *error)
{
    int status = GAPLESS_OK;
    uint64_t at;

    for (uint32_t w = 0; s->deferred > 0 && w < s->workers_max; w++) {
        if (!s->worker[w].deferred || status != GAPLESS_OK)
            continue;
        if (replay_due(s, w, &at) &&
            s->record->events[at].version > core_version(s->master->core, 0))
            continue;
        s->worker[w].deferred = false;
        s->deferred--;
        status = sim_pulled(s, w, error);
    }
    return status;
}

/* The record and this run must agree about who computes what. */
static int same_batch(const struct gapless_simulation *s, const struct record_event *e,
                      struct gapless_error *error)
{
    const struct sim_worker *w = &s->worker[e->worker];

    if (w->worker != NULL && w->busy && w->batch == e->batch)
        return GAPLESS_OK;
    return gapless_error_set(
        error, GAPLESS_INVALID, 0,
        "%.200s:%llu: worker %u handed in batch %llu; here %s: the record and the "
        "settings do not belong together, or it is of another version",
        s->record->path, (unsigned long long)e->line, e->worker,
        (unsigned long long)e->batch,
        w->worker == NULL ? "there is no such worker"
        : !w->busy        ? "it has no batch"
                          : "it has another batch");
}

int replay_event(struct gapless_simulation *s, size_t index,
                 struct gapless_error *error)
{
    const struct record_event *e = &s->record->events[index];
    int status;

    if (e->kind != RECORD_TICK && e->kind != RECORD_STOP)
        s->record_turn[e->worker] = s->record_next[index];
    switch (e->kind) {
    case RECORD_HELLO:
        return sim_join(s, e->worker, e->ahead, error);
    case RECORD_GRADIENT:
    case RECORD_BAD:
        status = same_batch(s, e, error);
        if (status == GAPLESS_OK)
            status = gapless_worker_set_rate(s->worker[e->worker].worker, e->factor);
        return status == GAPLESS_OK
                   ? sim_push(s, e->worker, e->kind == RECORD_BAD, error)
                   : status;
    case RECORD_LEFT:
    case RECORD_LOST:
        sim_part(s, e->worker, e->kind == RECORD_LEFT);
        return sim_master(s, error);
    case RECORD_TICK:
        master_event(s->master, CORE_TICK, 0, 0, true);
        master_drain(s->master);
        return GAPLESS_OK;
    case RECORD_STOP:
        gapless_master_stop(s->master);
        return sim_master(s, error);
    }
    return GAPLESS_OK;
}
