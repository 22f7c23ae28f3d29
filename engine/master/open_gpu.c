/* The master's GPUs: which, their memory, and whether network cards reach it. */
#include "engine/master/passes_gpu.h"
#include "engine/base/text_page.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- choosing and opening ------------------------------------------------ */

static int choose(struct gapless_master *m, const char *device, uint32_t *ret_numbers,
                  uint32_t *ret_count, struct gapless_error *error)
{
    const struct gpu_plugin *plugin = NULL;
    int status = device_plugin(&plugin, error);

    if (status == GAPLESS_OK)
        status = device_choose(plugin, device, ret_numbers, ret_count, error);
    if (status == GAPLESS_OK && m->matrices != NULL)
        status = plugin->matrices->ready(error);
    if (status != GAPLESS_OK)
        return status;
    m->gpu = calloc(1, sizeof *m->gpu);
    if (m->gpu == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for a master");
    m->gpu->plugin = plugin;
    m->gpu->ops = plugin->device;
    return GAPLESS_OK;
}

/* Whole ranges, as evenly as their number allows. */
static void deal_ranges(struct gapless_master *m, uint32_t parts)
{
    uint32_t ranges = m->layout.ranges_count, p;

    m->gpu->parts = parts < ranges ? parts : ranges;
    for (p = 0; p < m->gpu->parts; p++) {
        struct gpu_part *part = &m->gpu->part[p];

        part->first = (uint32_t)((uint64_t)ranges * p / m->gpu->parts);
        part->end = (uint32_t)((uint64_t)ranges * (p + 1) / m->gpu->parts);
        part->from = (size_t)m->layout.range_start[part->first];
        part->to = (size_t)m->layout.range_start[part->end];
    }
}

static int take(struct gapless_master *m, struct gpu_part *part, float **ret,
                struct gapless_error *error)
{
    void *memory = NULL;
    int status = m->gpu->ops->take(
        part->device, (part->to - part->from) * sizeof(float), &memory, error);

    if (status == GAPLESS_OK)
        *ret = memory;
    return status;
}

/* RULE_ADAM: which elements weight decay applies to. */
static int bring_decays(struct gapless_master *m, struct gpu_part *part,
                        struct gapless_error *error)
{
    const struct device_ops *ops = m->gpu->ops;
    size_t bytes = (part->to - part->from) / LAYOUT_LANES * sizeof *part->decays;
    void *memory = NULL;
    int status = ops->take(part->device, bytes, &memory, error);

    if (status != GAPLESS_OK)
        return status;
    part->decays = memory;
    ops->copy_in(part->device, memory, m->decays + part->from / LAYOUT_LANES, bytes);
    gpu_wait(m->gpu, part, DEVICE_IN);
    if (m->gpu->error.status != GAPLESS_OK && error != NULL)
        *error = m->gpu->error;
    return m->gpu->error.status;
}

static int open_matrices(struct gapless_master *m, struct gpu_part *part,
                         struct gapless_error *error)
{
    size_t elements, side;

    matrices_largest(m, part->first, part->end, &elements, &side);
    return m->gpu->plugin->matrices->open(part->device, elements, side, &part->matrices,
                                          error);
}

static int open_part(struct gapless_master *m, struct gpu_part *part, uint32_t gpu,
                     struct gapless_error *error)
{
    const struct device_ops *ops = m->gpu->ops;
    unsigned used = m->rule->reads | m->rule->writes;
    size_t most = 0;
    uint32_t blocks = 1, r;
    int status;

    for (r = part->first; r < part->end; r++) {
        uint32_t count = m->layout.block_first[r + 1] - m->layout.block_first[r];

        most = pass_elements(m, r) > most ? pass_elements(m, r) : most;
        blocks = count > blocks ? count : blocks;
    }
    status = ops->facts(gpu, &part->facts, error);
    if (status == GAPLESS_OK)
        status = ops->open(gpu, most, blocks, &part->device, error);
    if (status == GAPLESS_OK)
        status = take(m, part, &part->theta, error);
    if (status == GAPLESS_OK && (used & SLOT_ALL))
        status = take(m, part, &part->all, error);
    if (status == GAPLESS_OK && (used & SLOT_STAT))
        status = take(m, part, &part->stat, error);
    if (status == GAPLESS_OK && (used & SLOT_SQUARE))
        status = take(m, part, &part->square, error);
    if (status == GAPLESS_OK && m->decays != NULL)
        status = bring_decays(m, part, error);
    if (status == GAPLESS_OK && m->matrices != NULL)
        status = open_matrices(m, part, error);
    if (status == GAPLESS_OK && master_publishes(m)) {
        status = take(m, part, &part->published[0], error);
        if (status == GAPLESS_OK)
            status = take(m, part, &part->published[1], error);
    }
    return status;
}

static int open_blocks(struct gapless_master *m, struct gapless_error *error)
{
    struct master_gpu *g = m->gpu;
    int status = GAPLESS_OK;
    uint32_t p, u;

    if (!(m->rule->flags & RULE_BLOCK))
        return GAPLESS_OK;
    g->blocks = calloc(m->layout.units_count, sizeof *g->blocks);
    if (g->blocks == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for blocks");
    for (p = 0, u = 0; status == GAPLESS_OK && u < m->layout.units_count; u++) {
        const struct layout_unit *unit = &m->layout.units[u];
        const struct master_slot no_slot = {0};
        const struct blocks blocks = pass_blocks(m, &no_slot, unit);

        while (unit->range >= g->part[p].end)
            p++;
        if (!pass_averages(m, unit) && (m->matrices == NULL || unit->piece))
            status =
                g->ops->blocks_new(g->part[p].device, &blocks, &g->blocks[u], error);
    }
    return status;
}

static int open_parts(struct gapless_master *m, const uint32_t *numbers, uint32_t count,
                      struct gapless_error *error)
{
    struct master_gpu *g = m->gpu;
    uint32_t workers = m->core->config.workers_max, p;
    int status = GAPLESS_OK;

    deal_ranges(m, count);
    if (g->parts < count)
        master_log(
            m,
            "%u of %u GPUs are used: the model has %u range%s of %llu parameters; "
            "smaller ranges make more",
            g->parts, count, m->layout.ranges_count,
            m->layout.ranges_count == 1 ? "" : "s",
            (unsigned long long)pass_elements(m, 0));
    g->notes_max = 2 * workers + 512;
    g->slot = calloc(workers, sizeof *g->slot);
    g->note = calloc(g->notes_max, sizeof *g->note);
    g->open = calloc(m->layout.ranges_count, sizeof *g->open);
    if (g->slot == NULL || g->note == NULL || g->open == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for the tables of %u workers", workers);
    for (p = 0; status == GAPLESS_OK && p < g->parts; p++)
        status = open_part(m, &g->part[p], numbers[p], error);
    return status == GAPLESS_OK ? open_blocks(m, error) : status;
}

int passes_choose(struct gapless_master *m, const struct gapless_master_config *config,
                  struct gapless_error *error)
{
    const char *device = config->device;
    bool any = device != NULL && strcmp(device, "auto") == 0;
    uint32_t numbers[DEVICE_MAX], count = 0;
    struct gapless_error reason = {0};
    int status;

    if (device == NULL || strcmp(device, "cpu") == 0 || m->external_buffers)
        return GAPLESS_OK;
    status = choose(m, any ? "cuda" : device, numbers, &count, &reason);
    if (status != GAPLESS_OK && any) {
        master_log(m, "passes run on the CPU: %s", reason.text);
        return GAPLESS_OK;
    }
    if (status == GAPLESS_OK) {
        m->passes = &pass_ops_gpu;
        status = open_parts(m, numbers, count, &reason);
    }
    if (status != GAPLESS_OK && error != NULL)
        *error = reason;
    return status;
}

/* ---- can the cards reach it? --------------------------------------------- */

/* Memory of a part stands for bytes of a region from now on. */
static int place(struct gapless_master *m, struct tp_region *region, size_t offset,
                 struct gpu_part *part, void *memory, size_t bytes,
                 struct gapless_error *error)
{
    struct tp_memory it = {.base = memory, .bytes = bytes, .dmabuf = -1, .gpu = true};
    struct gapless_error reason = {0};
    int status;

    (void)m->gpu->ops->share(part->device, memory, bytes, &it.dmabuf, &it.dmabuf_at,
                             &reason); /* else by its address */
    status = m->transport->bind_memory(m->tp, region, offset, &it, &m->gpu->how, error);
    if (it.dmabuf >= 0)
        (void)close(it.dmabuf);
    return status;
}

static int place_vector(struct gapless_master *m, struct tp_region *region,
                        size_t offset, uint32_t p, float *vector,
                        struct gapless_error *error)
{
    struct gpu_part *part = &m->gpu->part[p];

    return place(m, region, offset + part->from * sizeof(float), part, vector,
                 (part->to - part->from) * sizeof(float), error);
}

static void pattern(unsigned char *to, unsigned seed)
{
    uint32_t i;

    for (i = 0; i < TP_LOOPBACK_MAX; i++)
        to[i] = (unsigned char)((i * 2654435761u + seed * 40503u) >> 13);
}

/* A pattern goes through the card into the GPU and comes back by a copy; another one
 * the other way round. */
static int prove(struct gapless_master *m, uint32_t p, struct gapless_error *error)
{
    struct master_gpu *g = m->gpu;
    struct gpu_part *part = &g->part[p];
    unsigned char sent[TP_LOOPBACK_MAX], got[TP_LOOPBACK_MAX] = {0};
    size_t at = p * (size_t)GPU_PROBE_BYTES;
    int status;

    pattern(sent, 1 + p);
    status =
        m->transport->loopback(m->tp, &g->probe, at, sent, sizeof sent, TP_INTO, error);
    if (status != GAPLESS_OK)
        return status;
    g->ops->copy_out(part->device, got, part->probe, sizeof got);
    gpu_wait(g, part, DEVICE_OUT);
    if (g->error.status == GAPLESS_OK && memcmp(sent, got, sizeof got) == 0) {
        pattern(sent, 100 + p);
        g->ops->copy_in(part->device, part->probe, sent, sizeof sent);
        gpu_wait(g, part, DEVICE_IN);
        status = m->transport->loopback(m->tp, &g->probe, at, got, sizeof got,
                                        TP_OUT_OF, error);
    }
    if (status == GAPLESS_OK &&
        (g->error.status != GAPLESS_OK || memcmp(sent, got, sizeof got) != 0))
        status =
            gapless_error_set(error, GAPLESS_UNSUPPORTED, 0,
                              "what the network card wrote into GPU %u (%s) is not "
                              "what is there: is access control of the PCIe "
                              "switches (ACS), or the IOMMU, in between?",
                              part->facts.number, part->facts.bus);
    return status;
}

static int try_direct(struct gapless_master *m, struct gapless_error *error)
{
    struct master_gpu *g = m->gpu;
    uint32_t p;
    int status = m->transport->region_new(m->tp, g->parts * (size_t)GPU_PROBE_BYTES,
                                          &g->probe, error);

    for (p = 0; status == GAPLESS_OK && p < g->parts; p++) {
        status =
            g->ops->take(g->part[p].device, GPU_PROBE_BYTES, &g->part[p].probe, error);
        if (status == GAPLESS_OK)
            status = place(m, &g->probe, p * (size_t)GPU_PROBE_BYTES, &g->part[p],
                           g->part[p].probe, GPU_PROBE_BYTES, error);
        if (status == GAPLESS_OK)
            status = prove(m, p, error);
    }
    return status;
}

static enum gpu_flush flush_policy(const struct master_gpu *g, int wish)
{
    bool ordered = true;
    uint32_t p;

    for (p = 0; p < g->parts; p++)
        ordered = ordered && g->part[p].facts.ordering >= DEVICE_ORDERS_OWNER;
    return wish < 0 || (wish == 0 && ordered) ? GPU_FLUSH_NONE : GPU_FLUSH_READ;
}

static int place_shared(struct gapless_master *m, struct gapless_error *error)
{
    struct master_gpu *g = m->gpu;
    int status = GAPLESS_OK;
    uint32_t p, i;

    for (p = 0; status == GAPLESS_OK && p < g->parts; p++) {
        status = place_vector(m, &m->theta_region, 0, p, g->part[p].theta, error);
        for (i = 0; status == GAPLESS_OK && master_publishes(m) && i < 2; i++)
            status = place_vector(m, &m->published_region,
                                  i == 0 ? m->sent_at : m->second_at, p,
                                  g->part[p].published[i], error);
    }
    return status;
}

/* The path of the vectors: through the cards, or copied. */
static int choose_path(struct gapless_master *m,
                       const struct gapless_master_config *config,
                       struct gapless_error *error)
{
    struct gapless_error reason = {0};
    int status;

    if (m->transport->mapped)
        return GAPLESS_OK;
    status = try_direct(m, &reason);
    if (status == GAPLESS_OK) {
        m->gpu->direct = true;
        m->gpu->flush = flush_policy(m->gpu, config->gpu_flush);
        return place_shared(m, error);
    }
    m->gpu->error = (struct gapless_error){0};
    if (config->allow_staging) {
        master_log(m, "gradients are copied through host memory: %s", reason.text);
        return GAPLESS_OK;
    }
    return gapless_error_set(error, status, 0,
                             "the network cards do not reach GPU memory: %.300s; "
                             "--allow-staging copies through host memory",
                             reason.text);
}

static void write_text(struct gapless_master *m)
{
    static const char *const flush[] = {
        [GPU_FLUSH_NONE] = "no flush: the GPU orders what cards write",
        [GPU_FLUSH_READ] = "flushed by a read of the card"};
    struct master_gpu *g = m->gpu;
    struct text_page page = text_page(g->text, sizeof g->text);

    for (uint32_t p = 0; p < g->parts; p++) {
        const struct device_facts *f = &g->part[p].facts;

        text_add(&page, "%sGPU %u %s (%s)", p > 0 ? ", " : "", f->number, f->name,
                 f->bus);
    }
    if (g->direct)
        text_add(&page, "; cards write and read its memory by %s, %s", g->how,
                 flush[g->flush]);
    else
        text_add(&page, "; copied through host memory");
}

/* The parameters as they are at the start. Before a card takes the place of the host's
 * memory, which is given up then. */
static int bring_parameters(struct gapless_master *m, struct gapless_error *error)
{
    struct master_gpu *g = m->gpu;
    uint32_t p;

    for (p = 0; p < g->parts; p++) {
        struct gpu_part *part = &g->part[p];
        size_t bytes = (part->to - part->from) * sizeof(float);

        g->ops->copy_in(part->device, part->theta, m->theta + part->from, bytes);
        if (part->published[0] != NULL)
            g->ops->copy_in(part->device, part->published[0], m->theta + part->from,
                            bytes);
        gpu_wait(g, part, DEVICE_IN);
    }
    if (g->error.status != GAPLESS_OK && error != NULL)
        *error = g->error;
    return g->error.status;
}

int gpu_prepare(struct gapless_master *m, const struct gapless_master_config *config,
                struct gapless_error *error)
{
    struct master_gpu *g = m->gpu;
    int status = bring_parameters(m, error);
    uint32_t p;

    if (status == GAPLESS_OK)
        status = choose_path(m, config, error);
    if (status != GAPLESS_OK)
        return status;
    for (p = 0; p < g->parts; p++)
        g->part[p].pinned = /* not being able to costs only time */
            g->ops->pin(g->part[p].device, m->theta + g->part[p].from,
                        (g->part[p].to - g->part[p].from) * sizeof(float),
                        NULL) == GAPLESS_OK;
    m->shared_stats->copies_only = !g->direct;
    g->changed = true; /* what the host had may be gone */
    write_text(m);
    return GAPLESS_OK;
}

/* ---- slots --------------------------------------------------------------- */

static int take_slot(struct gapless_master *m, uint32_t worker, uint32_t p,
                     struct gapless_error *error)
{
    struct gpu_part *part = &m->gpu->part[p];
    struct gpu_slot *slot = &m->gpu->slot[worker];
    struct tp_region *region = &m->slot[worker].region;
    unsigned used = m->rule->reads | m->rule->writes;
    bool published = master_publishes(m);
    int status = GAPLESS_OK;

    /* What was taken before memory ran out is used by the next who tries. */
    if (slot->grad[p] == NULL)
        status = take(m, part, &slot->grad[p], error);
    if (status == GAPLESS_OK && !published && slot->sent[p] == NULL)
        status = take(m, part, &slot->sent[p], error);
    if (status == GAPLESS_OK && (used & SLOT_OWN) && slot->own[p] == NULL)
        status = take(m, part, &slot->own[p], error);
    if (status == GAPLESS_OK && (rules_slots(m->rule) & SLOT_MEAN) &&
        slot->mean[p] == NULL)
        status = take(m, part, &slot->mean[p], error);
    if (status != GAPLESS_OK || !m->gpu->direct)
        return status;
    if (!published)
        status = place_vector(m, region, m->sent_at, p, slot->sent[p], error);
    return status == GAPLESS_OK
               ? place_vector(m, region, m->grad_at, p, slot->grad[p], error)
               : status;
}

static void zero_slot(struct gapless_master *m, uint32_t worker, uint32_t p)
{
    struct gpu_part *part = &m->gpu->part[p];
    struct gpu_slot *slot = &m->gpu->slot[worker];
    size_t bytes = (part->to - part->from) * sizeof(float);

    m->gpu->ops->zero(part->device, slot->grad[p], bytes);
    if (slot->sent[p] != NULL)
        m->gpu->ops->zero(part->device, slot->sent[p], bytes);
    if (slot->own[p] != NULL)
        m->gpu->ops->zero(part->device, slot->own[p], bytes);
    if (slot->mean[p] != NULL)
        m->gpu->ops->zero(part->device, slot->mean[p], bytes);
    part->busy = true;
}

int gpu_slot_memory(struct gapless_master *m, uint32_t worker,
                    struct gapless_error *error)
{
    struct master_gpu *g = m->gpu;
    struct tp_region *region = &m->slot[worker].region;
    int status = GAPLESS_OK;
    uint32_t p;

    for (p = 0; !g->slot[worker].taken && status == GAPLESS_OK && p < g->parts; p++)
        status = take_slot(m, worker, p, error);
    if (status != GAPLESS_OK)
        return status;
    if (!g->slot[worker].pinned && !g->direct)
        g->slot[worker].pinned = /* not being able to costs only time */
            g->ops->pin(g->part[0].device, region->base, region->bytes, NULL) ==
            GAPLESS_OK;
    g->slot[worker].taken = true;
    for (p = 0; p < g->parts; p++)
        zero_slot(m, worker, p);
    return GAPLESS_OK;
}

void gpu_slot_release(struct gapless_master *m, uint32_t worker)
{
    struct master_gpu *g = m->gpu;

    if (g->slot[worker].pinned)
        g->ops->unpin(g->part[0].device, m->slot[worker].region.base);
    g->slot[worker].pinned = false;
}

/* ---- the end ------------------------------------------------------------- */

static void close_part(struct gapless_master *m, struct gpu_part *part)
{
    struct master_gpu *g = m->gpu;
    uint32_t first = m->layout.unit_first[part->first];
    uint32_t end = m->layout.unit_first[part->end];
    uint32_t u;

    for (u = first; part->device != NULL && g->blocks != NULL && u < end; u++)
        if (g->blocks[u] != NULL)
            g->ops->blocks_free(part->device, g->blocks[u]);
    g->plugin->matrices->close(part->matrices);
    part->matrices = NULL;
    g->ops->close(part->device); /* with all memory taken, and unpins */
    part->device = NULL;
}

/* A GPU that is closed copies nothing more, whatever went wrong before. One that cards
 * reach is closed after them. */
void gpu_detach(struct gapless_master *m)
{
    struct master_gpu *g = m->gpu;
    uint32_t p;

    for (p = 0; p < g->parts; p++) {
        struct gpu_part *part = &g->part[p];

        if (part->device == NULL)
            continue;
        if (!g->direct || g->error.status != GAPLESS_OK) {
            close_part(m, part);
            continue;
        }
        for (unsigned s = 0; s < DEVICE_STREAMS; s++)
            gpu_wait(g, part, (enum device_stream)s);
        if (part->pinned)
            g->ops->unpin(part->device, m->theta + part->from);
    }
}

void gpu_close(struct gapless_master *m)
{
    struct master_gpu *g = m->gpu;
    uint32_t p;

    for (p = 0; p < g->parts; p++)
        close_part(m, &g->part[p]);
    free(g->slot);
    free(g->blocks);
    free(g->open);
    free(g->note);
    free(g);
    m->gpu = NULL;
}

const char *gpu_describe(const struct gapless_master *m)
{
    return m->gpu->text;
}
