/* The master's passes on GPUs. See passes_gpu.h. */
#include "engine/master/passes_gpu.h"

/* ---- where things are ---------------------------------------------------- */

static struct gpu_part *part_of(const struct gapless_master *m, uint32_t range)
{
    struct master_gpu *g = m->gpu;
    uint32_t p = 0;

    while (p + 1 < g->parts && range >= g->part[p].end)
        p++;
    return &g->part[p];
}

/* Where a range begins in a vector of a part. */
static float *at_range(const struct gapless_master *m, const struct gpu_part *part,
                       float *vector, uint32_t range)
{
    return vector == NULL
               ? NULL
               : vector + ((size_t)m->layout.range_start[range] - part->from);
}

static float *at_unit(const struct gpu_part *part, float *vector,
                      const struct layout_unit *unit)
{
    return vector == NULL ? NULL : vector + ((size_t)unit->from - part->from);
}

/* A piece has no mask: its scalars say whether it decays. */
static const uint16_t *decays_at(const struct gpu_part *part,
                                 const struct layout_unit *unit)
{
    return part->decays == NULL || unit->piece
               ? NULL
               : part->decays + ((size_t)unit->from - part->from) / LAYOUT_LANES;
}

static struct arrays arrays_at(const struct gapless_master *m, uint32_t worker,
                               const struct layout_unit *unit)
{
    const struct gpu_part *part = part_of(m, unit->range);
    const struct gpu_slot *slot = &m->gpu->slot[worker];
    size_t p = (size_t)(part - m->gpu->part);
    float *sent = pass_sent(m, slot->sent[p], part->published, unit->range);

    return (struct arrays){.theta = at_unit(part, part->theta, unit),
                           .own = at_unit(part, slot->own[p], unit),
                           .all = at_unit(part, part->all, unit),
                           .stat = at_unit(part, part->stat, unit),
                           .sent = at_unit(part, sent, unit),
                           .grad = at_unit(part, slot->grad[p], unit),
                           .square = at_unit(part, part->square, unit),
                           .decays = decays_at(part, unit),
                           .mean = at_unit(part, slot->mean[p], unit)};
}

static const struct device_blocks *blocks_of(const struct gapless_master *m,
                                             const struct layout_unit *unit)
{
    return m->gpu->blocks == NULL ? NULL : m->gpu->blocks[unit - m->layout.units];
}

/* Where a worker, or all of them, get what is sent, in host memory. */
static float *host_sent(const struct gapless_master *m, uint32_t worker,
                        const struct layout_unit *unit)
{
    return pass_sent(m, m->slot[worker].sent, m->published, unit->range) + unit->from;
}

static size_t bytes_of(const struct gapless_master *m, uint32_t range)
{
    return pass_elements(m, range) * sizeof(float);
}

static size_t unit_bytes(const struct layout_unit *unit)
{
    return unit->elements * sizeof(float);
}

/* ---- waiting ------------------------------------------------------------- */

void gpu_failed(struct master_gpu *g, const struct gapless_error *reason)
{
    if (g->error.status == GAPLESS_OK)
        g->error = *reason;
}

static void wait_for(struct master_gpu *g, const struct gpu_part *part, uint64_t ticket)
{
    struct gapless_error reason = {0};

    if (g->error.status == GAPLESS_OK &&
        g->ops->wait(part->device, ticket, GPU_BOUND_NS, &reason) != GAPLESS_OK)
        gpu_failed(g, &reason);
}

void gpu_wait(struct master_gpu *g, const struct gpu_part *part,
              enum device_stream stream)
{
    wait_for(g, part, g->ops->mark(part->device, stream));
}

static void wait_all(struct master_gpu *g)
{
    uint32_t p;

    for (p = 0; p < g->parts; p++) {
        struct gpu_part *part = &g->part[p];

        if (part->busy)
            gpu_wait(g, part, DEVICE_WORK);
        if (part->copying)
            gpu_wait(g, part, DEVICE_OUT);
        part->busy = part->copying = false;
    }
}

/* What WORK has written so far, from the GPU to the host. */
static void bring_out(const struct gapless_master *m, struct gpu_part *part, float *to,
                      const float *from, size_t bytes)
{
    const struct device_ops *ops = m->gpu->ops;

    ops->after(part->device, DEVICE_OUT, ops->mark(part->device, DEVICE_WORK));
    ops->copy_out(part->device, to, from, bytes);
    part->copying = true;
}

/* ---- gradients land ------------------------------------------------------ */

static struct gpu_landing *landing_find(struct master_gpu *g, uint32_t worker,
                                        uint32_t range)
{
    uint32_t i;

    for (i = 0; i < g->landings; i++)
        if (g->landing[i].worker == worker && g->landing[i].range == range)
            return &g->landing[i];
    return NULL;
}

/* Copies a range of a gradient, if it has to be, and looks whether it is finite. */
static struct gpu_landing land_now(struct gapless_master *m, uint32_t worker,
                                   uint32_t range)
{
    struct master_gpu *g = m->gpu;
    const struct device_ops *ops = g->ops;
    struct gpu_part *part = part_of(m, range);
    struct gpu_landing ret = {
        .worker = worker, .range = range, .place = part->next_landing};
    float *grad =
        at_range(m, part, g->slot[worker].grad[(size_t)(part - g->part)], range);

    part->next_landing = (part->next_landing + 1) % GPU_PLACES_APPLY;
    if (!g->direct) {
        ops->copy_in(part->device, grad,
                     m->slot[worker].grad + m->layout.range_start[range],
                     bytes_of(m, range));
        ops->after(part->device, DEVICE_WORK, ops->mark(part->device, DEVICE_IN));
    }
    ops->finite(part->device, grad, pass_elements(m, range), ret.place);
    ret.ticket = ops->mark(part->device, DEVICE_WORK);
    part->busy = true;
    return ret;
}

static void land(struct gapless_master *m, uint32_t worker, uint32_t range)
{
    struct master_gpu *g = m->gpu;

    if (g->slot[worker].taken && range < m->layout.ranges_count &&
        g->landings < GPU_LANDINGS && landing_find(g, worker, range) == NULL)
        g->landing[g->landings++] = land_now(m, worker, range);
}

/* What cards wrote comes before what is asked for next. Their puts have been seen as
 * complete. */
static void flush_cards(struct gapless_master *m)
{
    struct master_gpu *g = m->gpu;
    struct gapless_error reason = {0};
    int status = GAPLESS_OK;
    char byte[1];
    uint32_t p;

    for (p = 0; p < g->parts && status == GAPLESS_OK; p++)
        status = m->transport->loopback(m->tp, &g->probe, p * (size_t)GPU_PROBE_BYTES,
                                        byte, 1, TP_OUT_OF, &reason);
    if (status != GAPLESS_OK && reason.status == GAPLESS_OK)
        (void)gapless_error_set(&reason, status, 0,
                                "what the network card wrote to GPU %u could not be "
                                "flushed",
                                g->part[p - 1].facts.number);
    if (status != GAPLESS_OK)
        gpu_failed(g, &reason);
}

static void gpu_begin(struct gapless_master *m, const struct tp_event *events,
                      int count)
{
    struct master_gpu *g = m->gpu;
    bool flushed = !g->direct || g->flush == GPU_FLUSH_NONE;
    uint32_t worker, range, r;
    int i;

    for (i = 0; i < count; i++) {
        if (events[i].kind != TP_NOTE || m->peer[events[i].peer].role != ROLE_WORKER ||
            NOTE_WHAT(events[i].note) != NOTE_PUSH)
            continue;
        if (!flushed)
            flush_cards(m);
        flushed = true;
        /* Rules that want the whole gradient ask for it when they have all. */
        if (m->core->config.whole)
            continue;
        worker = m->peer[events[i].peer].worker;
        range = NOTE_RANGE(events[i].note);
        g->slot[worker].whole = range == NOTE_ALL_RANGES;
        if (range != NOTE_ALL_RANGES)
            land(m, worker, range);
        else
            for (r = 0; r < GPU_AHEAD; r++)
                land(m, worker, r);
    }
}

static bool range_finite(struct gapless_master *m, uint32_t worker, uint32_t range)
{
    struct master_gpu *g = m->gpu;
    struct gpu_part *part = part_of(m, range);
    struct gpu_landing *found = landing_find(g, worker, range);
    struct gpu_landing landed = found != NULL ? *found : land_now(m, worker, range);

    if (found != NULL)
        *found = g->landing[--g->landings];
    if (g->slot[worker].whole)
        land(m, worker, range + GPU_AHEAD);
    wait_for(g, part, landed.ticket);
    return g->error.status == GAPLESS_OK &&
           g->ops->result(part->device, landed.place)->finite != 0;
}

static bool gpu_finite(struct gapless_master *m, uint32_t worker, uint32_t first,
                       uint32_t end)
{
    bool finite = true;
    uint32_t r;

    for (r = first; r < end; r++)
        finite = range_finite(m, worker, r) && finite;
    return finite;
}

/* ---- gradients are applied ----------------------------------------------- */

/* This many places for results, next to each other. */
static uint32_t places(struct gpu_part *part, uint32_t count)
{
    uint32_t at = part->next_apply;

    if (at < GPU_PLACES_APPLY || at + count > DEVICE_RESULTS)
        at = GPU_PLACES_APPLY;
    part->next_apply = at + count;
    return at;
}

static void write_begins(struct gapless_master *m, uint32_t range)
{
    if (!m->gpu->open[range])
        seq_write_begin(&shared_stats_versions(m->shared_stats)[range]);
    m->gpu->open[range] = true;
}

static void write_ends(struct gapless_master *m, uint32_t range)
{
    struct seq_word *word = &shared_stats_versions(m->shared_stats)[range];

    if (!m->gpu->open[range])
        seq_write_begin(word); /* one more update of those that began together */
    seq_write_end(word);
    m->gpu->open[range] = false;
}

/* Gradients of one unit, one after another where they have matrices, or are averages. */
static void apply_pass(struct gapless_master *m, struct gpu_part *part,
                       const struct layout_unit *unit, const struct device_pass *pass,
                       uint32_t count, uint32_t place)
{
    struct master_gpu *g = m->gpu;
    const struct stretch *stretches;
    uint32_t stretches_count, i;

    if (pass_averages(m, unit)) {
        for (i = 0; i < count; i++)
            g->ops->average(part->device, pass[i].at.theta, pass[i].at.sent,
                            pass[i].at.grad, 1, pass[i].scalars.average,
                            unit->elements);
        return;
    }
    if (!pass_of_matrices(m, unit)) {
        g->ops->apply(part->device, m->rule, pass, count, blocks_of(m, unit),
                      unit->elements, place);
        return;
    }
    stretches = matrices_stretches(m, unit->range, &stretches_count);
    for (i = 0; i < count; i++)
        g->plugin->matrices->apply(part->matrices, m->rule, &pass[i], stretches,
                                   stretches_count, unit->elements, place + i);
}

/* Launches the gradients that wait, all for one unit, in one pass. */
static void launch(struct gapless_master *m)
{
    struct master_gpu *g = m->gpu;
    uint32_t count = g->entries - g->launched, i;
    struct gpu_entry *entry = &g->entry[g->launched];
    struct device_pass pass[DEVICE_QUEUE];
    struct gpu_part *part;
    uint32_t place;

    if (count == 0)
        return;
    part = part_of(m, entry->unit->range);
    place = places(part, count);
    for (i = 0; i < count; i++) {
        pass[i] = entry[i].pass;
        entry[i].place = place + i;
    }
    write_begins(m, entry->unit->range);
    apply_pass(m, part, entry->unit, pass, count, place);
    part->busy = g->changed = true;
    for (i = 0; i < count && !g->direct; i++)
        bring_out(m, part, host_sent(m, entry[i].worker, entry->unit),
                  entry[i].pass.at.sent, unit_bytes(entry->unit));
    g->launched = g->entries;
}

static bool joins(const struct master_gpu *g, const struct layout_unit *unit)
{
    uint32_t waiting = g->entries - g->launched;

    return waiting == 0 ||
           (g->entry[g->launched].unit == unit && waiting < DEVICE_QUEUE);
}

/* Gradients that are through: what they gave, and that they are. */
static void count_entries(struct gapless_master *m, uint64_t took_ns)
{
    struct master_gpu *g = m->gpu;
    uint32_t count = g->entries, i;

    for (i = 0; i < count; i++) {
        const struct gpu_entry *entry = &g->entry[i];
        struct gpu_part *part = part_of(m, entry->unit->range);

        if (unit_is_last(m, entry->unit))
            write_ends(m, entry->unit->range);
        pass_counted(m, entry->worker, entry->unit,
                     &g->ops->result(part->device, entry->place)->sums,
                     entry->pass.scalars.lagging || pass_of_matrices(m, entry->unit)
                         ? g->ops->gates(part->device, entry->place)
                         : NULL);
        m->slot[entry->worker].pass_ns += took_ns / count;
        m->slot[entry->worker].head->pass_ns = m->slot[entry->worker].pass_ns;
    }
    g->entries = g->launched = 0;
    for (i = 0; i < count; i++)
        pass_record(m, g->entry[i].worker);
}

/* Sending a note asks a GPU for nothing: a worker that has no room for it is dropped,
 * and what follows from that waits in the master's queue. */
static void send_notes(struct gapless_master *m)
{
    struct master_gpu *g = m->gpu;
    uint32_t i;

    for (i = 0; i < g->notes; i++)
        master_notify(m, g->note[i].worker, g->note[i].note);
    g->notes = 0;
}

static int gpu_drain(struct gapless_master *m, struct gapless_error *error)
{
    struct master_gpu *g = m->gpu;
    uint64_t began = m->transport->now_ns(m->tp);

    launch(m);
    wait_all(g);
    g->landings = 0; /* what was not called up comes again */
    if (g->error.status != GAPLESS_OK) {
        g->entries = g->launched = g->notes = 0; /* lost, like the GPU */
        if (error != NULL)
            *error = g->error;
        return g->error.status;
    }
    if (g->entries > 0)
        count_entries(m, m->transport->now_ns(m->tp) - began);
    send_notes(m);
    return GAPLESS_OK;
}

static void gpu_notify(struct gapless_master *m, uint32_t worker, uint32_t note)
{
    struct master_gpu *g = m->gpu;

    if (g->notes == g->notes_max)
        (void)gpu_drain(m, NULL);
    g->note[g->notes++] = (struct gpu_note){worker, note};
}

static void gpu_apply(struct gapless_master *m, uint32_t worker,
                      const struct layout_unit *unit,
                      const struct step_scalars *scalars, bool warm_up)
{
    struct master_gpu *g = m->gpu;
    struct gpu_entry *entry;

    (void)warm_up;
    if (g->entries == GPU_ENTRIES)
        (void)gpu_drain(m, NULL);
    if (!joins(g, unit))
        launch(m);
    entry = &g->entry[g->entries++];
    *entry =
        (struct gpu_entry){.worker = worker,
                           .unit = unit,
                           .pass = {.at = arrays_at(m, worker, unit),
                                    .scalars = *scalars,
                                    .dots = pass_blocks(m, &m->slot[worker], unit).dots,
                                    .want = pass_wants_gap(m, worker) ? WANT_GAP : 0}};
    /* A global rule needs its sum for the next scalars. What is published for all has two
     * places, which readers tell apart by versions: each must be whole before the next.
     */
    if ((m->rule->flags & RULE_GLOBAL) || master_publishes(m))
        (void)gpu_drain(m, NULL);
}

static bool gpu_complete(struct gapless_master *m, const struct pass_work *work)
{
    (void)m, (void)work;
    return false; /* its notes wait for gpu_drain */
}

static bool gpu_pending(const struct gapless_master *m, uint32_t worker)
{
    uint32_t i;

    for (i = 0; i < m->gpu->entries; i++)
        if (m->gpu->entry[i].worker == worker)
            return true;
    return false;
}

/* ---- the other passes ---------------------------------------------------- */

static double gpu_measure(struct gapless_master *m, uint32_t worker,
                          const struct layout_unit *unit,
                          const struct step_scalars *scalars)
{
    struct gpu_part *part = part_of(m, unit->range);
    struct arrays at = arrays_at(m, worker, unit);
    uint32_t place = places(part, 1);

    launch(m);
    if (pass_of_matrices(m, unit)) {
        uint32_t count;
        const struct stretch *stretches = matrices_stretches(m, unit->range, &count);

        m->gpu->plugin->matrices->measure(part->matrices, m->rule, &at, scalars,
                                          stretches, count, place);
    } else {
        m->gpu->ops->measure(part->device, m->rule, &at, scalars, unit->elements,
                             place);
    }
    gpu_wait(m->gpu, part, DEVICE_WORK);
    return m->gpu->ops->result(part->device, place)->value;
}

/* The same as on a processor (passes_cpu.c), in m->vectors and m->targets. */
static void average_round(struct gapless_master *m, const struct gpu_part *part,
                          float *theta, uint32_t count, size_t n)
{
    uint32_t i;

    for (i = 0; i < count; i++)
        m->gpu->ops->average(part->device, theta, m->targets[i], m->vectors[i],
                             (float)(1.0 / (double)count), 0, n);
    for (i = 0; i + 1 < count; i++)
        m->gpu->ops->copy(part->device, m->targets[i], theta, n * sizeof(float));
}

static double gpu_round(struct gapless_master *m, const struct layout_unit *unit,
                        const uint32_t *workers, uint32_t count,
                        const struct step_scalars *scalars)
{
    struct master_gpu *g = m->gpu;
    struct gpu_part *part = part_of(m, unit->range);
    struct arrays at = arrays_at(m, workers[0], unit);
    uint32_t place = places(part, 1), i;
    bool averages = pass_averages(m, unit);

    for (i = 0; i < count; i++) {
        struct arrays of = arrays_at(m, workers[i], unit);

        m->vectors[i] = of.grad;
        m->targets[i] = of.sent;
    }
    if (unit_is_first(m, unit))
        write_begins(m, unit->range);
    if (averages)
        average_round(m, part, at.theta, count, unit->elements);
    else
        g->ops->round(part->device, m->rule, &at, scalars, m->vectors, m->targets,
                      count, unit->elements, WANT_GAP, place);
    part->busy = g->changed = true;
    for (i = 0; i < count && !g->direct; i++)
        bring_out(m, part, host_sent(m, workers[i], unit), m->targets[i],
                  unit_bytes(unit));
    gpu_wait(g, part, DEVICE_WORK);
    if (unit_is_last(m, unit))
        write_ends(m, unit->range);
    return averages ? 0 : g->ops->result(part->device, place)->sums.gap_sq;
}

static void gpu_look_ahead(struct gapless_master *m, uint32_t worker,
                           const struct layout_unit *unit,
                           const struct step_scalars *scalars)
{
    struct gpu_part *part = part_of(m, unit->range);
    struct arrays at = arrays_at(m, worker, unit);

    launch(m);
    if (pass_averages(m, unit)) {
        m->gpu->ops->copy(part->device, at.sent, at.theta, unit_bytes(unit));
    } else if (pass_of_matrices(m, unit)) {
        uint32_t count;
        const struct stretch *stretches = matrices_stretches(m, unit->range, &count);

        m->gpu->plugin->matrices->look_ahead(part->matrices, m->rule, &at, scalars,
                                             stretches, count);
    } else {
        m->gpu->ops->look_ahead(part->device, m->rule, &at, scalars, unit->elements);
    }
    part->busy = true;
    if (!m->gpu->direct)
        bring_out(m, part, host_sent(m, worker, unit), at.sent, unit_bytes(unit));
}

static void gpu_forget(struct gapless_master *m, uint32_t worker)
{
    uint32_t r;

    (void)gpu_drain(m, NULL);
    for (r = 0; m->slot[worker].own != NULL && r < m->layout.ranges_count; r++) {
        struct gpu_part *part = part_of(m, r);
        struct arrays at = arrays_at(m, worker, unit_first_of(m, r));

        m->gpu->ops->forget(part->device, m->rule, &at, pass_elements(m, r));
        if (at.mean != NULL)
            m->gpu->ops->zero(part->device, at.mean, bytes_of(m, r));
        part->busy = true;
    }
}

static void gpu_resum(struct gapless_master *m, uint32_t range, const uint32_t *workers,
                      uint32_t count)
{
    struct gpu_part *part = part_of(m, range);
    uint32_t i;

    launch(m);
    for (i = 0; i < count; i++)
        m->vectors[i] = arrays_at(m, workers[i], unit_first_of(m, range)).own;
    m->gpu->ops->resum(part->device, at_range(m, part, part->all, range), m->vectors,
                       count, pass_elements(m, range));
    part->busy = true;
}

static void gpu_inherit(struct gapless_master *m, uint32_t worker, uint32_t range,
                        const uint32_t *workers, uint32_t count)
{
    struct gpu_part *part = part_of(m, range);
    struct arrays at = arrays_at(m, worker, unit_first_of(m, range));
    const float *sum[] = {at.all, at.own};
    size_t n = pass_elements(m, range);
    uint32_t i;

    launch(m);
    m->gpu->ops->resum(part->device, at.own, sum, 1, n);
    m->gpu->ops->scale(part->device, at.own, (float)(1.0 / count), n);
    m->gpu->ops->resum(part->device, at.all, sum, 2, n);
    for (i = 0; at.mean != NULL && i < count; i++)
        m->vectors[i] = arrays_at(m, workers[i], unit_first_of(m, range)).mean;
    if (at.mean != NULL) {
        m->gpu->ops->resum(part->device, at.mean, m->vectors, count, n);
        m->gpu->ops->scale(part->device, at.mean, (float)(1.0 / count), n);
    }
    part->busy = true;
}

static void gpu_theta(const struct gapless_master *m)
{
    struct master_gpu *g = m->gpu;
    uint32_t p;

    if (!g->changed)
        return;
    for (p = 0; p < g->parts; p++) {
        struct gpu_part *part = &g->part[p];

        bring_out(m, part, m->theta + part->from, part->theta,
                  (part->to - part->from) * sizeof(float));
    }
    wait_all(g);
    g->changed = g->error.status != GAPLESS_OK;
}

const struct pass_ops pass_ops_gpu = {
    .prepare = gpu_prepare,
    .slot_memory = gpu_slot_memory,
    .slot_release = gpu_slot_release,
    .begin = gpu_begin,
    .notify = gpu_notify,
    .drain = gpu_drain,
    .pending = gpu_pending,
    .theta = gpu_theta,
    .finite = gpu_finite,
    .apply = gpu_apply,
    .complete = gpu_complete,
    .measure = gpu_measure,
    .round = gpu_round,
    .look_ahead = gpu_look_ahead,
    .forget = gpu_forget,
    .resum = gpu_resum,
    .inherit = gpu_inherit,
    .describe = gpu_describe,
    .detach = gpu_detach,
    .close = gpu_close,
};
