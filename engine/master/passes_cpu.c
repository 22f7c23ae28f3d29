/* The master's passes on this processor: which arrays, and in which parts. */
#include "engine/master/master.h"

#include "engine/compute/chunk_copy.h"

#include <string.h>

/* The same arrays from element n on. */
static struct arrays arrays_from(const struct arrays *at, size_t n)
{
    return (struct arrays){
        .theta = at->theta + n,
        .own = at->own == NULL ? NULL : at->own + n,
        .all = at->all == NULL ? NULL : at->all + n,
        .stat = at->stat == NULL ? NULL : at->stat + n,
        .sent = at->sent + n,
        .grad = at->grad + n,
        .square = at->square == NULL ? NULL : at->square + n,
        .decays = at->decays == NULL ? NULL : at->decays + n / LAYOUT_LANES,
        .mean = at->mean == NULL ? NULL : at->mean + n,
    };
}

static struct arrays arrays_at(const struct gapless_master *m,
                               const struct master_slot *slot,
                               const struct layout_unit *unit)
{
    struct arrays whole = {.theta = m->theta,
                           .own = slot->own,
                           .all = m->all,
                           .stat = m->stat,
                           .sent = pass_sent(m, slot->sent, m->published, unit->range),
                           .grad = slot->grad,
                           .square = m->square,
                           .decays = m->decays,
                           .mean = slot->mean};

    return arrays_from(&whole, (size_t)unit->from);
}

static bool cpu_finite(struct gapless_master *m, uint32_t worker, uint32_t first,
                       uint32_t end)
{
    size_t at = (size_t)m->layout.range_start[first];

    return m->compute->finite(m->slot[worker].grad + at,
                              (size_t)m->layout.range_start[end] - at);
}

/* Where the last part of a range starts: some thousand elements before its end, or with
 * its last block if the rule asks for blocks; 0 where there is no such place. */
static size_t tail_of(const struct gapless_master *m, const struct blocks *blocks,
                      size_t n)
{
    uint32_t start = blocks->count < 2 ? 0 : blocks->ends[blocks->count - 2];

    if (!(m->rule->flags & RULE_BLOCK))
        return n - WIRE_WARMUP_REST;
    return start % LAYOUT_LANES == 0 ? start : 0;
}

/* One range, in two parts if `soon`, the second from tail_of on. The same bits: only
 * sums for the statistics are cut elsewhere. */
static void apply_parts(struct gapless_master *m, uint32_t worker,
                        const struct layout_unit *unit,
                        const struct step_scalars *scalars, bool warm_up,
                        struct sums *ret)
{
    const struct master_slot *slot = &m->slot[worker];
    struct arrays at = arrays_at(m, slot, unit);
    struct blocks blocks = pass_blocks(m, slot, unit);
    size_t n = unit->elements;
    size_t tail = warm_up && n > WIRE_WARMUP_ABOVE ? tail_of(m, &blocks, n) : 0;
    unsigned want =
        (pass_wants_gap(m, worker) ? WANT_GAP : 0) | compute_cpu_ways(m->layout.count);
    uint32_t end;
    struct sums part;

    if (tail == 0) {
        m->compute->apply(m->rule, &at, scalars, &blocks, n, want, ret);
        return;
    }
    end = blocks.ends[blocks.count - 1] - (uint32_t)tail;
    blocks.count--; /* the last one is the second part's; rules without do not look */
    m->compute->apply(m->rule, &at, scalars, &blocks, tail, want, ret);
    pass_warm_up(m, worker);
    at = arrays_from(&at, tail);
    blocks.dots = blocks.dots == NULL ? NULL : blocks.dots + blocks.count;
    blocks.pieces += blocks.count;
    blocks.gates = blocks.gates == NULL ? NULL : blocks.gates + blocks.count;
    blocks.ends = &end, blocks.count = 1;
    m->compute->apply(m->rule, &at, scalars, &blocks, n - tail, want, &part);
    ret->gap_sq += part.gap_sq;
    ret->gate_sum += part.gate_sum;
}

/* A running average, or a piece of a seam, is some elements: on copies, the first of which is
 * in the first lane as it is where a GPU takes it. */
static void apply_few(struct gapless_master *m, uint32_t worker,
                      const struct layout_unit *unit,
                      const struct step_scalars *scalars, struct sums *ret)
{
    const struct master_slot *slot = &m->slot[worker];
    struct arrays at = arrays_at(m, slot, unit), copies = at;
    struct blocks blocks = pass_blocks(m, slot, unit);
    size_t n = unit->piece ? LAYOUT_LANES : unit->elements;
    struct chunk_copy copy;

    *ret = (struct sums){0};
    if (unit->piece)
        copies = chunk_take(&copy, &at, 0, unit->elements, 0);
    if (pass_averages(m, unit))
        m->compute->average(copies.theta, copies.sent, copies.grad, 1, scalars->average,
                            n);
    else
        m->compute->apply(m->rule, &copies, scalars, &blocks, n,
                          pass_wants_gap(m, worker) ? WANT_GAP : 0, ret);
    if (unit->piece)
        chunk_put(&copy, &at, 0, unit->elements, 0);
}

static bool cpu_complete(struct gapless_master *m, const struct pass_work *work)
{
    return matrices_begin(m, work);
}

static void cpu_apply(struct gapless_master *m, uint32_t worker,
                      const struct layout_unit *unit,
                      const struct step_scalars *scalars, bool warm_up)
{
    struct seq_word *word = &shared_stats_versions(m->shared_stats)[unit->range];
    struct sums sums;

    if (pass_of_matrices(m, unit)) {
        struct arrays at = arrays_at(m, &m->slot[worker], unit);

        matrices_ask(m, unit->range, &at, scalars,
                     pass_wants_gap(m, worker) ? WANT_GAP : 0);
        return;
    }
    if (unit_is_first(m, unit))
        seq_write_begin(word);
    if (unit->piece || pass_averages(m, unit))
        apply_few(m, worker, unit, scalars, &sums);
    else
        apply_parts(m, worker, unit, scalars, warm_up, &sums);
    if (unit_is_last(m, unit))
        seq_write_end(word);
    pass_counted(m, worker, unit, &sums, scalars->lagging ? m->gates : NULL);
}

static double cpu_measure(struct gapless_master *m, uint32_t worker,
                          const struct layout_unit *unit,
                          const struct step_scalars *scalars)
{
    struct arrays at = arrays_at(m, &m->slot[worker], unit);
    struct chunk_copy copy;

    if (pass_of_matrices(m, unit))
        return matrices_measure(m, unit->range, &at, scalars);
    if (!unit->piece)
        return m->compute->measure(m->rule, &at, scalars, unit->elements);
    at = chunk_take(&copy, &at, 0, unit->elements, 0);
    return m->compute->measure(m->rule, &at, scalars, LAYOUT_LANES);
}

/* The gradients of a round and where its workers are given what is sent, in m->vectors and
 * m->targets: of a piece, copies. */
static void list_round(struct gapless_master *m, const struct layout_unit *unit,
                       const uint32_t *workers, uint32_t count)
{
    uint32_t i;

    for (i = 0; i < count; i++) {
        const struct master_slot *slot = &m->slot[workers[i]];
        float *copies;

        m->vectors[i] = slot->grad + unit->from;
        m->targets[i] = slot->sent + unit->from;
        if (!unit->piece)
            continue;
        copies = m->lanes + (size_t)i * 2 * LAYOUT_LANES;
        memset(copies, 0, 2 * LAYOUT_LANES * sizeof *copies);
        memcpy(copies, m->vectors[i], unit->elements * sizeof *copies);
        memcpy(copies + LAYOUT_LANES, m->targets[i], unit->elements * sizeof *copies);
        m->vectors[i] = copies;
        m->targets[i] = copies + LAYOUT_LANES;
    }
}

static void return_round(struct gapless_master *m, const struct layout_unit *unit,
                         const uint32_t *workers, uint32_t count)
{
    uint32_t i;

    for (i = 0; unit->piece && i < count; i++)
        memcpy(m->slot[workers[i]].sent + unit->from, m->targets[i],
               unit->elements * sizeof(float));
}

/* theta moves by the mean of what the workers took off, and all are given it. */
static void average_round(struct gapless_master *m, float *theta, uint32_t count,
                          size_t n)
{
    uint32_t i;

    for (i = 0; i < count; i++)
        m->compute->average(theta, m->targets[i], m->vectors[i],
                            (float)(1.0 / (double)count), 0, n);
    for (i = 0; i + 1 < count; i++)
        memcpy(m->targets[i], theta, n * sizeof *theta);
}

static double cpu_round(struct gapless_master *m, const struct layout_unit *unit,
                        const uint32_t *workers, uint32_t count,
                        const struct step_scalars *scalars)
{
    struct seq_word *word = &shared_stats_versions(m->shared_stats)[unit->range];
    struct arrays at = arrays_at(m, &m->slot[workers[0]], unit), copies = at;
    size_t n = unit->piece ? LAYOUT_LANES : unit->elements;
    struct sums sums = {0};
    struct chunk_copy copy;

    list_round(m, unit, workers, count);
    if (unit->piece)
        copies = chunk_take(&copy, &at, 0, unit->elements, 0);
    if (unit_is_first(m, unit))
        seq_write_begin(word);
    if (pass_averages(m, unit))
        average_round(m, copies.theta, count, n);
    else
        m->compute->round(m->rule, &copies, scalars, m->vectors, m->targets, count, n,
                          WANT_GAP, &sums);
    if (unit->piece)
        chunk_put(&copy, &at, 0, unit->elements, 0);
    return_round(m, unit, workers, count);
    if (unit_is_last(m, unit))
        seq_write_end(word);
    return sums.gap_sq;
}

static void cpu_look_ahead(struct gapless_master *m, uint32_t worker,
                           const struct layout_unit *unit,
                           const struct step_scalars *scalars)
{
    struct arrays at = arrays_at(m, &m->slot[worker], unit), copies = at;
    size_t n = unit->piece ? LAYOUT_LANES : unit->elements;
    struct chunk_copy copy;

    if (pass_of_matrices(m, unit)) {
        matrices_look_ahead(m, unit->range, &at, scalars);
        return;
    }
    if (pass_averages(m, unit)) {
        memcpy(at.sent, at.theta, unit->elements * sizeof *at.sent);
        return;
    }
    if (unit->piece)
        copies = chunk_take(&copy, &at, 0, unit->elements, 0);
    m->compute->look_ahead(m->rule, &copies, scalars, n);
    if (unit->piece)
        chunk_put(&copy, &at, 0, unit->elements, 0);
}

static void cpu_forget(struct gapless_master *m, uint32_t worker)
{
    uint32_t r;

    for (r = 0; m->slot[worker].own != NULL && r < m->layout.ranges_count; r++) {
        struct arrays at = arrays_at(m, &m->slot[worker], unit_first_of(m, r));

        m->compute->forget(m->rule, &at, pass_elements(m, r));
    }
}

static void cpu_resum(struct gapless_master *m, uint32_t range, const uint32_t *workers,
                      uint32_t count)
{
    size_t from = (size_t)m->layout.range_start[range];
    uint32_t i;

    for (i = 0; i < count; i++)
        m->vectors[i] = m->slot[workers[i]].own + from;
    m->compute->resum(m->all + from, m->vectors, count, pass_elements(m, range));
}

static void cpu_inherit(struct gapless_master *m, uint32_t worker, uint32_t range,
                        const uint32_t *workers, uint32_t count)
{
    size_t from = (size_t)m->layout.range_start[range], n = pass_elements(m, range);
    const float *sum[] = {m->all + from, m->slot[worker].own + from};
    uint32_t i;

    m->compute->resum(m->slot[worker].own + from, sum, 1, n);
    m->compute->scale(m->slot[worker].own + from, (float)(1.0 / count), n);
    m->compute->resum(m->all + from, sum, 2, n);
    if (m->slot[worker].mean == NULL)
        return;
    for (i = 0; i < count; i++)
        m->vectors[i] = m->slot[workers[i]].mean + from;
    m->compute->resum(m->slot[worker].mean + from, m->vectors, count, n);
    m->compute->scale(m->slot[worker].mean + from, (float)(1.0 / count), n);
}

/* ---- all but matrices is done at once ------------------------------------ */

static int cpu_prepare(struct gapless_master *m,
                       const struct gapless_master_config *config,
                       struct gapless_error *error)
{
    (void)m, (void)config, (void)error;
    return GAPLESS_OK;
}

static int cpu_slot_memory(struct gapless_master *m, uint32_t worker,
                           struct gapless_error *error)
{
    (void)m, (void)worker, (void)error;
    return GAPLESS_OK; /* the slot itself */
}

static void cpu_slot_release(struct gapless_master *m, uint32_t worker)
{
    (void)m, (void)worker;
}

static void cpu_begin(struct gapless_master *m, const struct tp_event *events,
                      int count)
{
    (void)m, (void)events, (void)count;
}

static int cpu_drain(struct gapless_master *m, struct gapless_error *error)
{
    (void)m, (void)error;
    return GAPLESS_OK;
}

static bool cpu_pending(const struct gapless_master *m, uint32_t worker)
{
    (void)m, (void)worker;
    return false;
}

static void cpu_theta(const struct gapless_master *m)
{
    (void)m;
}

static const char *cpu_describe(const struct gapless_master *m)
{
    return m->compute->name;
}

static void cpu_detach(struct gapless_master *m)
{
    matrices_rest(m);
}

static void cpu_close(struct gapless_master *m)
{
    (void)m;
}

const struct pass_ops pass_ops_cpu = {
    .sound = true,
    .prepare = cpu_prepare,
    .slot_memory = cpu_slot_memory,
    .slot_release = cpu_slot_release,
    .begin = cpu_begin,
    .notify = master_notify,
    .drain = cpu_drain,
    .pending = cpu_pending,
    .theta = cpu_theta,
    .finite = cpu_finite,
    .apply = cpu_apply,
    .complete = cpu_complete,
    .measure = cpu_measure,
    .round = cpu_round,
    .look_ahead = cpu_look_ahead,
    .forget = cpu_forget,
    .resum = cpu_resum,
    .inherit = cpu_inherit,
    .describe = cpu_describe,
    .detach = cpu_detach,
    .close = cpu_close,
};
