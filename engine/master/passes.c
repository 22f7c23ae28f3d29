/* The master's passes over memory: when, with which scalars, and what is counted. How
 * they are carried out is in passes_cpu.c and passes_gpu.c. */
#include "engine/master/saving.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* The mean gate is judged over this many gradients, or rounds of all workers if that is
 * more, ... */
#define GATE_WINDOW 1000u
#define GATE_WINDOW_ROUNDS 10u
/* ... with at least this many workers, above this share of the peak rate: gates open as
 * the rate falls. Above GATE_MOST_ADAM kappa was too small where it was measured. (This project.) */
#define GATE_WORKERS 8u
#define GATE_RATE 0.5
#define GATE_MOST_ADAM 0.95
#define GATE_MOST_MUON 0.97

size_t pass_elements(const struct gapless_master *m, uint32_t range)
{
    return (size_t)(m->layout.range_start[range + 1] - m->layout.range_start[range]);
}

const struct layout_unit *pass_units(const struct gapless_master *m, uint32_t range,
                                     uint32_t *ret_count)
{
    uint32_t first = m->layout.unit_first[range];

    *ret_count = m->layout.unit_first[range + 1] - first;
    return &m->layout.units[first];
}

static const struct gapless_tensor *tensor_of(const struct gapless_master *m,
                                              const struct layout_unit *unit)
{
    return &m->layout.tensors[unit->tensor];
}

bool pass_averages(const struct gapless_master *m, const struct layout_unit *unit)
{
    return tensor_of(m, unit)->average > 0 && !(m->rule->flags & RULE_WORKER_ELASTIC);
}

bool pass_of_matrices(const struct gapless_master *m, const struct layout_unit *unit)
{
    return m->matrices != NULL && !unit->piece && !pass_averages(m, unit);
}

struct blocks pass_blocks(const struct gapless_master *m,
                          const struct master_slot *slot,
                          const struct layout_unit *unit)
{
    uint32_t first = unit->block, range = unit->range;

    return (struct blocks){
        .ends = unit->piece ? &unit->elements : m->layout.block_ends + first,
        .count = unit->piece ? 1 : m->layout.block_first[range + 1] - first,
        .pieces = m->layout.block_pieces + first,
        .gates = m->gates,
        .dots = slot->dots == NULL ? NULL : slot->dots + first};
}

static double rate_of(const struct gapless_master *m, uint32_t range)
{
    return schedule_rate(&m->schedule, m->gradients, core_position(m->core, range));
}

/* The same for a worker's gradient. */
static double rate_for(const struct gapless_master *m, uint32_t worker, uint32_t range)
{
    double factor = m->slot[worker].factor;

    return rate_of(m, range) * (factor >= 0 ? factor : 1);
}

static uint64_t *own_updates_of(const struct gapless_master *m, uint32_t worker,
                                uint32_t range)
{
    return &m->own_updates[(size_t)worker * m->layout.ranges_count + range];
}

/* What the scalars of a range depend on. `worker` is CORE_ALL in a round. */
static struct step_context context_of(const struct gapless_master *m, uint32_t worker,
                                      uint32_t range, uint64_t lag, double rate)
{
    struct step_context context = {
        .rate = rate,
        .lag = lag,
        .active = m->core->active > 0 ? m->core->active : 1,
        .samples = m->rule->flags & RULE_GLOBAL ? m->global_samples
                                                : core_version(m->core, range),
        .global_stat = m->global_stat,
        .whole = m->whole_gate,
    };

    if (m->history != NULL)
        context.history = m->history[range];
    if (m->history != NULL && worker != CORE_ALL)
        context.own_updates = *own_updates_of(m, worker, range);
    return context;
}

/* What is of these elements alone. */
static void scalars_of(const struct gapless_master *m, const struct layout_unit *unit,
                       const struct step_context *of_range, struct step_scalars *ret)
{
    const struct gapless_tensor *tensor = tensor_of(m, unit);
    struct step_context context = *of_range;

    context.scale = layout_rate(tensor);
    context.decay = tensor->decay;
    rules_step_scalars(m->rule, &m->settings, &context, ret);
    if (unit->piece && !layout_tensor_decays(tensor, m->decay_all))
        ret->decay = 0; /* it has no mask */
}

/* How far a running average goes by what a worker hands in of `steps` batches. */
static double average_of(double average, uint32_t steps)
{
    double keep = 1 - average, kept = 1;

    if (steps <= 1)
        return average;
    for (; steps > 0; steps >>= 1, keep *= keep)
        if (steps & 1)
            kept *= keep;
    return 1 - kept;
}

/* An update with this context is done. */
static void count_history(struct gapless_master *m, uint32_t worker, uint32_t range,
                          const struct step_context *context)
{
    if (m->history == NULL)
        return;
    m->history[range] = rules_step_done(&m->settings, context);
    if (worker != CORE_ALL && context->own_updates != RULES_UPDATES_JOINED)
        (*own_updates_of(m, worker, range))++;
}

static void resum(struct gapless_master *m, uint32_t range)
{
    uint32_t count = 0, w;

    for (w = 0; w < m->core->config.workers_max; w++)
        if (m->core->worker[w].state != CORE_FREE)
            m->members[count++] = w;
    m->passes->resum(m, range, m->members, count);
}

/* `all` drifts by rounding from the sum it stands for; it is summed afresh where the
 * rate jumps and every MASTER_RESUM_EVERY updates. While the rate only glides (warm-up,
 * cosine) that would be a pass over every worker's vector at each update, for nothing.
 */
static void resum_if_due(struct gapless_master *m, uint32_t range)
{
    uint32_t stage = schedule_stage(&m->schedule, core_position(m->core, range));
    uint64_t version = core_version(m->core, range);
    uint64_t workers = m->core->active > 0 ? m->core->active : 1;
    uint64_t every =
        m->rule->flags & RULE_ADAM ? MASTER_RESUM_ROUNDS * workers : MASTER_RESUM_EVERY;

    if (!(m->rule->flags & RULE_SUM))
        return;
    if (stage == m->range_stage[range] && (version == 0 || version % every != 0))
        return;
    m->range_stage[range] = stage;
    resum(m, range);
}

static uint64_t clock_of(const struct gapless_master *m)
{
    return m->transport->now_ns(m->tp);
}

static bool grad_is_finite(struct gapless_master *m, uint32_t worker, uint32_t first,
                           uint32_t end)
{
    uint64_t began = clock_of(m);
    /* In one process the worker has just looked at these very bytes. */
    bool finite = m->slot[worker].factor >= 0 &&
                  (m->external_buffers || m->passes->finite(m, worker, first, end));

    m->slot[worker].check_ns += clock_of(m) - began;
    return finite;
}

/* About one message in gap_every, chosen by a hash so that no worker of a regular
 * rotation is left out. */
static bool gap_is_due(const struct gapless_master *m, uint32_t worker)
{
    uint64_t x =
        (m->core->consumed * GAPLESS_WORKERS_MAX + worker) * 0x9e3779b97f4a7c15ull;

    if (master_publishes(m))
        return false; /* where the worker is, only the worker knows */
    return m->gap_every <= 1 || (x >> 32) % m->gap_every == 0;
}

/* A gate that hardly closes says nothing under momentum SGD: there the mean was as high
 * where a larger kappa was better. (This project.) */
static double gate_most(const struct gapless_master *m)
{
    return m->rule->flags & RULE_MATRIX ? GATE_MOST_MUON
           : m->rule->flags & RULE_ADAM ? GATE_MOST_ADAM
                                        : 1.0;
}

static uint64_t gate_window(const struct gapless_master *m)
{
    uint64_t rounds = (uint64_t)GATE_WINDOW_ROUNDS * m->core->active;

    return rounds > GATE_WINDOW ? rounds : GATE_WINDOW;
}

/* Into the means of the tensors that a unit has parts of. */
static void count_gates(struct gapless_master *m, const struct layout_unit *unit,
                        const struct sums *sums, const float *gates)
{
    const struct blocks blocks = pass_blocks(m, &m->slot[0], unit);
    double mean = sums->gate_sum / blocks.ends[blocks.count - 1];
    uint32_t b;

    for (b = 0; b < blocks.count; b++) {
        struct gate_share *share =
            &m->tensor_gates[m->layout.block_tensor[unit->block + b]];
        double elements = blocks.ends[b] - (b > 0 ? blocks.ends[b - 1] : 0);

        share->sum += (gates != NULL ? (double)gates[b] : mean) * elements;
        share->elements += elements;
    }
}

/* The gate of a gradient that is applied in all ranges. */
static void record_gate(struct gapless_master *m, const struct master_slot *slot)
{
    const struct gate_moment moment = {.counts = slot->gate_counts,
                                       .tells = slot->gate_tells,
                                       .most = gate_most(m),
                                       .window = gate_window(m)};
    char advice[256];

    if (m->rule->flags & RULE_BLOCK &&
        telemetry_gate(m->telemetry, slot->gate_sum / (double)m->layout.moved,
                       &moment) &&
        gapless_gate_advice(&m->telemetry->stats, advice, sizeof advice))
        master_log(m, "%s", advice);
}

/* The protocol step that will follow runs ahead on a copy, which a pure step allows,
 * so that it runs from the caches when it counts. */
void pass_warm_up(struct gapless_master *m, uint32_t worker)
{
    const struct master_slot *slot = &m->slot[worker];
    const struct core_event applied = {
        .kind = CORE_APPLIED, .worker = worker, .range = CORE_ALL, .finite = true};
    struct todo todo;
    volatile uint64_t sink =
        slot->head->ticket + shared_stats_workers(m->shared_stats)[worker].state;

    (void)sink;
    if (m->warm_up_core != NULL) {
        memcpy(m->warm_up_core, m->core, m->core->bytes);
        (void)core_step(m->warm_up_core, &applied, &todo);
    }
    if (slot->peer != MASTER_NO_PEER && m->transport->mapped)
        (void)m->transport->notify(m->tp, slot->peer, NOTE(NOTE_WARMUP, 0));
}

bool pass_wants_gap(const struct gapless_master *m, uint32_t worker)
{
    return m->slot[worker].gap_sq >= 0;
}

void pass_counted(struct gapless_master *m, uint32_t worker,
                  const struct layout_unit *unit, const struct sums *sums,
                  const float *gates)
{
    double scale = layout_rate(tensor_of(m, unit));
    struct master_slot *slot = &m->slot[worker];

    if (pass_averages(m, unit))
        return;
    if (slot->gap_sq >= 0)
        slot->gap_sq += sums->gap_sq;
    slot->step_sq += sums->step_sq * (scale * scale);
    slot->gate_sum += sums->gate_sum;
    if (slot->gate_counts)
        count_gates(m, unit, sums, gates);
}

/* One unit of an update; `context` is the range's. */
static void apply_unit(struct gapless_master *m, uint32_t worker,
                       const struct layout_unit *unit,
                       const struct step_context *context, bool warm_up)
{
    struct step_scalars scalars = {0};

    if (pass_averages(m, unit))
        scalars.average =
            (scalar)average_of(tensor_of(m, unit)->average, m->slot[worker].steps);
    else
        scalars_of(m, unit, context, &scalars);
    m->passes->apply(m, worker, unit, &scalars, warm_up);
}

static void apply_range(struct gapless_master *m, uint32_t worker, uint32_t range,
                        double of_all, bool warm_up)
{
    uint32_t count, i;
    const struct layout_unit *units = pass_units(m, range, &count);
    struct step_context context = context_of(
        m, worker, range, core_lag(m->core, worker, range), rate_for(m, worker, range));

    saving_touch(m, worker, range);
    resum_if_due(m, range);
    if (m->whole_gate)
        context.whole_gap = of_all;
    else
        context.global_gap = of_all;
    for (i = 0; i < count; i++)
        apply_unit(m, worker, &units[i], &context, warm_up);
    count_history(m, worker, range, &context);
    m->slot[worker].lag_sum += (double)context.lag;
    m->telemetry->stats.rate = context.rate;
}

/* The penalty of the global rules, or a gate of the whole gradient, needs one number
 * before anything is applied. */
static double measure_all(struct gapless_master *m, uint32_t worker)
{
    double sum = 0;
    uint32_t i;

    if (!(m->rule->flags & RULE_GLOBAL) &&
        (!m->whole_gate || core_lag(m->core, worker, 0) == 0))
        return 0;
    for (i = 0; i < m->layout.units_count; i++) {
        const struct layout_unit *unit = &m->layout.units[i];
        uint32_t r = unit->range;
        const struct step_context context = context_of(
            m, worker, r, core_lag(m->core, worker, r), rate_for(m, worker, r));
        struct step_scalars scalars;

        if (pass_averages(m, unit))
            continue;
        scalars_of(m, unit, &context, &scalars);
        sum += m->passes->measure(m, worker, unit, &scalars);
    }
    return m->whole_gate ? sum : sqrt(sum / (double)m->layout.moved);
}

/* A gate of the whole gradient is made of a sum with a product g*gap for each element. It is
 * finite only if every g is: a product with a g that is not a number, or infinite, is not
 * finite whatever the gap (infinity times 0 is not a number), and a sum with it neither. So
 * no second look at the gradient is needed, unless finite numbers overflow. A GPU looks in
 * any case: it may have failed. */
static bool gate_proves_finite(const struct gapless_master *m, uint32_t worker,
                               double sum)
{
    return m->whole_gate && m->passes->sound && m->slot[worker].factor >= 0 &&
           core_lag(m->core, worker, 0) > 0 && m->layout.moved == m->layout.count &&
           isfinite(sum);
}

/* What is made of all of a gradient. False: it is not finite. */
static bool look_at_all(struct gapless_master *m, uint32_t worker, uint32_t first,
                        uint32_t end, double *ret)
{
    /* A GPU measures what it has checked: before that the gradient may not be there. */
    if (!m->passes->sound) {
        if (!grad_is_finite(m, worker, first, end))
            return false;
        *ret = measure_all(m, worker);
        return true;
    }
    *ret = measure_all(m, worker);
    return gate_proves_finite(m, worker, *ret) || grad_is_finite(m, worker, first, end);
}

static void global_sample(struct gapless_master *m, double step_sq)
{
    double rho = m->settings.rho;

    if (!(m->rule->flags & RULE_GLOBAL))
        return;
    if (!isfinite(step_sq)) {
        m->suspect = true; /* one such sample would stay in the mean for ever */
        return;
    }
    m->global_stat =
        rho * m->global_stat + (1 - rho) * (step_sq / (double)m->layout.moved);
    m->global_samples++;
}

static void record(struct gapless_master *m, uint32_t worker)
{
    struct master_slot *slot = &m->slot[worker];
    double gap = slot->gap_sq < 0 ? -1 : sqrt(slot->gap_sq / (double)m->layout.moved);
    double lag = slot->lag_sum / m->layout.ranges_count;

    if (!isfinite(gap)) { /* theta, sent or their distance is not */
        m->suspect = true;
        gap = -1;
    }
    m->suspect |= !isfinite(slot->gate_sum);
    telemetry_gradient(m->telemetry, &shared_stats_workers(m->shared_stats)[worker],
                       slot->steps, lag, gap, slot->loss, clock_of(m));
    record_gate(m, slot);
    m->telemetry->stats.pass_ns += slot->pass_ns;
}

void pass_record(struct gapless_master *m, uint32_t worker)
{
    if (m->passes->pending(m, worker))
        return; /* when it is through */
    if (m->slot[worker].complete)
        record(m, worker);
    m->slot[worker].complete = false;
}

float *pass_sent(const struct gapless_master *m, float *own, float *const *published,
                 uint32_t range)
{
    return master_publishes(m) ? published[(core_version(m->core, range) + 1) % 2]
                               : own;
}

double pass_rate(const struct gapless_master *m)
{
    return rate_of(m, 0);
}

double pass_local_begin(struct gapless_master *m, uint32_t worker)
{
    m->slot[worker].check_ns = m->slot[worker].pass_ns = 0;
    return rate_for(m, worker, 0);
}

void pass_local_count(struct gapless_master *m, uint32_t worker, double rate)
{
    m->telemetry->stats.rate = rate;
    telemetry_gradient(m->telemetry, &shared_stats_workers(m->shared_stats)[worker], 1,
                       -1, -1, m->slot[worker].push->loss, clock_of(m));
}

/* Has nothing of the worker's next gradient arrived yet? */
static bool is_new(const struct gapless_master *m, uint32_t worker)
{
    const struct core_worker *cw = &m->core->worker[worker];

    return cw->state == CORE_COMPUTING && cw->pushed == 0;
}

void pass_announced(struct gapless_master *m, uint32_t worker)
{
    double factor;

    if (!is_new(m, worker))
        return;
    factor = m->slot[worker].push->rate;
    m->slot[worker].factor = isfinite(factor) && factor >= 0 ? factor : -1;
}

void pass_reported(struct gapless_master *m, uint32_t worker)
{
    uint32_t r;

    if (!master_publishes(m) || !is_new(m, worker))
        return;
    for (r = 0; r < m->layout.ranges_count; r++) {
        uint64_t version = m->slot[worker].reported[r];

        core_read_at(m->core, worker, r,
                     version > m->version_base ? version - m->version_base : 0);
    }
}

static void message_begins(struct gapless_master *m, uint32_t worker)
{
    struct master_slot *slot = &m->slot[worker];

    slot->gap_sq = gap_is_due(m, worker) ? 0 : -1;
    slot->steps = m->core->worker[worker].steps;
    slot->complete = false;
    slot->lag_sum = slot->step_sq = slot->gate_sum = 0;
    slot->gate_counts = (m->rule->flags & RULE_BLOCK) != 0 &&
                        core_position(m->core, 0) >= m->schedule.warmup;
    slot->gate_tells = m->core->config.steps == 0 && m->core->active >= GATE_WORKERS &&
                       rate_for(m, worker, 0) > GATE_RATE * m->settings.rate_max;
    slot->check_ns = slot->pass_ns = 0;
}

void pass_applied(struct gapless_master *m, const struct pass_work *work)
{
    const struct core_worker *cw = &m->core->worker[work->worker];
    struct master_slot *slot = &m->slot[work->worker];
    uint32_t asked = work->range == CORE_ALL ? m->layout.ranges_count : 1;
    bool whole = work->ranges == asked;

    if (whole)
        global_sample(m, slot->step_sq);
    slot->pass_ns += work->took_ns;
    slot->complete =
        whole && cw->applied + asked == m->layout.ranges_count && !cw->rejected;
    master_applied(m, work->worker, work->range, whole, work->ranges);
}

void pass_apply(struct gapless_master *m, uint32_t worker, uint32_t range)
{
    const struct core_worker *cw = &m->core->worker[worker];
    struct master_slot *slot = &m->slot[worker];
    uint32_t first = range == CORE_ALL ? 0 : range, r;
    uint32_t end = range == CORE_ALL ? m->layout.ranges_count : range + 1;
    bool whole = m->core->config.whole;
    bool last = cw->applied + (end - first) == m->layout.ranges_count;
    uint64_t began = clock_of(m), checked = slot->check_ns;
    struct pass_work work = {.worker = worker, .range = range};
    double of_all = 0;
    bool under_way;

    if (range == CORE_ALL || cw->pushed == 1)
        message_begins(m, worker), checked = 0;
    if (cw->pushed == m->layout.ranges_count) /* before, it may not be written yet */
        slot->loss = slot->push->loss;
    /* What is made of all of the gradient comes first. Otherwise each range is checked
     * just before it is applied: that brings it into the cache, so the check costs no
     * trip to memory. */
    if (whole && !look_at_all(m, worker, first, end, &of_all))
        end = first;
    for (r = first; r < end; r++) {
        if (!whole && !grad_is_finite(m, worker, r, r + 1))
            break;
        apply_range(m, worker, r, of_all, last && r + 1 == end && !whole);
    }
    work.ranges = r - first;
    under_way = m->passes->complete(m, &work);
    slot->pass_ns += clock_of(m) - began - (slot->check_ns - checked);
    if (!under_way)
        pass_applied(m, &work);
}

/* Workers of the round whose gradient is finite; the others are left out and informed to
 * the core. */
static uint32_t round_members(struct gapless_master *m)
{
    uint32_t members = 0, w;

    for (w = core_next(m->core, CORE_PUSHED, CORE_ALL); w != CORE_ALL;
         w = core_next(m->core, CORE_PUSHED, w)) {
        message_begins(m, w);
        m->slot[w].loss = m->slot[w].push->loss;
        m->slot[w].gap_sq = 0;
        if (grad_is_finite(m, w, 0, m->layout.ranges_count))
            members++;
        else
            core_reject(m->core, w);
    }
    return members;
}

static void round_range(struct gapless_master *m, uint32_t range, uint32_t members)
{
    uint64_t began = clock_of(m);
    struct step_context context = context_of(m, CORE_ALL, range, 0, 0);
    const struct layout_unit *units;
    struct master_slot *first;
    double factors = 0, rate, gap_sq;
    uint32_t n = 0, w, count, i;

    for (w = core_next(m->core, CORE_PUSHED, CORE_ALL); w != CORE_ALL;
         w = core_next(m->core, CORE_PUSHED, w))
        if (!m->core->worker[w].rejected) {
            m->members[n++] = w;
            factors += m->slot[w].factor;
        }
    assert(n > 0 && n == members); /* a round has members */
    first = &m->slot[m->members[0]];
    saving_touch(m, CORE_ALL, range);
    rate = rate_of(m, range) * (m->ssgd_scale_rate ? (double)members : 1.0);
    context.rate = rate = rate * (factors / members);
    units = pass_units(m, range, &count);
    for (i = 0; i < count; i++) {
        struct step_scalars scalars;

        scalars_of(m, &units[i], &context, &scalars);
        gap_sq = m->passes->round(m, &units[i], m->members, members, &scalars);
        first->gap_sq += pass_averages(m, &units[i]) ? 0 : gap_sq;
    }
    count_history(m, CORE_ALL, range, &context);
    m->telemetry->stats.rate = rate;
    first->pass_ns += clock_of(m) - began;
}

bool pass_round(struct gapless_master *m)
{
    uint32_t members = round_members(m), r, w;
    struct master_slot *first = NULL;

    for (r = 0; members > 0 && r < m->layout.ranges_count; r++)
        round_range(m, r, members);
    for (w = core_next(m->core, CORE_PUSHED, CORE_ALL); w != CORE_ALL;
         w = core_next(m->core, CORE_PUSHED, w)) {
        if (m->core->worker[w].rejected) {
            shared_stats_workers(m->shared_stats)[w].dropped += m->slot[w].steps;
            pass_look_ahead(m, w, CORE_ALL);
            continue;
        }
        first = first == NULL ? &m->slot[w] : first;
        m->slot[w].gap_sq = first->gap_sq; /* all of a round read the same parameters */

        record(m, w);
    }
    return members > 0;
}

void pass_look_ahead(struct gapless_master *m, uint32_t worker, uint32_t range)
{
    uint32_t first = range == CORE_ALL ? 0 : range, r;
    uint32_t end = range == CORE_ALL ? m->layout.ranges_count : range + 1, i, count;

    if (master_publishes(m))
        return; /* it is there, for all */
    for (r = first; r < end; r++) {
        const struct layout_unit *units = pass_units(m, r, &count);
        double rate = m->history != NULL ? m->history[r].rate : rate_for(m, worker, r);
        const struct step_context context = context_of(m, worker, r, 0, rate);
        struct step_scalars scalars;

        for (i = 0; i < count; i++) {
            scalars_of(m, &units[i], &context, &scalars);
            m->passes->look_ahead(m, worker, &units[i], &scalars);
        }
    }
}

void pass_join(struct gapless_master *m, uint32_t worker)
{
    uint32_t r, w, count;

    saving_touch_all(m, worker);
    for (r = 0; m->history != NULL && r < m->layout.ranges_count; r++) {
        for (w = count = 0; w < m->core->config.workers_max; w++)
            if (w != worker && m->core->worker[w].state != CORE_FREE &&
                *own_updates_of(m, w, r) > 0)
                m->members[count++] = w;
        *own_updates_of(m, worker, r) = 0;
        if (!(m->rule->flags & RULE_SUM) || count == 0)
            continue;
        m->passes->inherit(m, worker, r, m->members, count);
        *own_updates_of(m, worker, r) = RULES_UPDATES_JOINED;
    }
}

void pass_forget(struct gapless_master *m, uint32_t worker)
{
    uint32_t r;

    saving_touch_all(m, worker);
    m->passes->forget(m, worker);
    for (r = 0; m->history != NULL && (m->rule->flags & RULE_SUM) != 0 &&
                r < m->layout.ranges_count;
         r++)
        resum(m, r);
}
