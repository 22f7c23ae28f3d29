/* The master's passes on this processor: which arrays, and in which parts. */
#include "engine/master/master.h"

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
                               const struct master_slot *slot, uint32_t range)
{
    struct arrays whole = {.theta = m->theta,
                           .own = slot->own,
                           .all = m->all,
                           .stat = m->stat,
                           .sent = pass_sent(m, slot->sent, m->published, range),
                           .grad = slot->grad,
                           .square = m->square,
                           .decays = m->decays,
                           .mean = slot->mean};

    return arrays_from(&whole, (size_t)m->layout.range_start[range]);
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
static void apply_parts(struct gapless_master *m, uint32_t worker, uint32_t range,
                        const struct step_scalars *scalars, bool warm_up,
                        struct sums *ret)
{
    const struct master_slot *slot = &m->slot[worker];
    struct arrays at = arrays_at(m, slot, range);
    struct blocks blocks = pass_blocks(m, slot, range);
    size_t n = pass_elements(m, range);
    size_t tail = warm_up && n > WIRE_WARMUP_ABOVE ? tail_of(m, &blocks, n) : 0;
    unsigned want = pass_wants_gap(m, worker) ? WANT_GAP : 0;
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

static void range_done(struct gapless_master *m, uint32_t worker, uint32_t range,
                       const struct sums *sums, const float *gates)
{
    seq_write_end(&shared_stats_versions(m->shared_stats)[range]);
    pass_counted(m, worker, range, sums, gates);
}

static void cpu_complete(struct gapless_master *m, uint32_t worker)
{
    if (m->matrices != NULL)
        matrices_apply(m, worker, range_done);
}

static void cpu_apply(struct gapless_master *m, uint32_t worker, uint32_t range,
                      const struct step_scalars *scalars, bool warm_up)
{
    struct seq_word *word = &shared_stats_versions(m->shared_stats)[range];
    struct sums sums;

    seq_write_begin(word);
    if (m->matrices != NULL) {
        struct arrays at = arrays_at(m, &m->slot[worker], range);

        matrices_ask(m, range, &at, scalars, pass_wants_gap(m, worker) ? WANT_GAP : 0);
        return;
    }
    apply_parts(m, worker, range, scalars, warm_up, &sums);
    range_done(m, worker, range, &sums, scalars->lagging ? m->gates : NULL);
}

static double cpu_measure(struct gapless_master *m, uint32_t worker, uint32_t range,
                          const struct step_scalars *scalars)
{
    struct arrays at = arrays_at(m, &m->slot[worker], range);

    if (m->matrices != NULL)
        return matrices_measure(m, range, &at, scalars);
    return m->compute->measure(m->rule, &at, scalars, pass_elements(m, range));
}

static double cpu_round(struct gapless_master *m, uint32_t range,
                        const uint32_t *workers, uint32_t count,
                        const struct step_scalars *scalars)
{
    struct seq_word *word = &shared_stats_versions(m->shared_stats)[range];
    struct arrays at = arrays_at(m, &m->slot[workers[0]], range);
    size_t from = (size_t)m->layout.range_start[range];
    struct sums sums;
    uint32_t i;

    for (i = 0; i < count; i++) {
        m->vectors[i] = m->slot[workers[i]].grad + from;
        m->targets[i] = m->slot[workers[i]].sent + from;
    }
    seq_write_begin(word);
    m->compute->round(m->rule, &at, scalars, m->vectors, m->targets, count,
                      pass_elements(m, range), WANT_GAP, &sums);
    seq_write_end(word);
    return sums.gap_sq;
}

static void cpu_look_ahead(struct gapless_master *m, uint32_t worker, uint32_t range,
                           const struct step_scalars *scalars)
{
    struct arrays at = arrays_at(m, &m->slot[worker], range);

    if (m->matrices != NULL) {
        matrices_look_ahead(m, range, &at, scalars);
        return;
    }
    m->compute->look_ahead(m->rule, &at, scalars, pass_elements(m, range));
}

static void cpu_forget(struct gapless_master *m, uint32_t worker)
{
    uint32_t r;

    for (r = 0; m->slot[worker].own != NULL && r < m->layout.ranges_count; r++) {
        struct arrays at = arrays_at(m, &m->slot[worker], r);

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

/* ---- all is done at once ------------------------------------------------- */

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

static void cpu_close(struct gapless_master *m)
{
    (void)m;
}

const struct pass_ops pass_ops_cpu = {
    .prepare = cpu_prepare,
    .slot_memory = cpu_slot_memory,
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
    .detach = cpu_close,
    .close = cpu_close,
};
