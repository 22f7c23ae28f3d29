/* Opening a master: checks the configuration, takes all memory, listens. */
#include "engine/master/saved.h"
#include "engine/master/saving.h"
#include "engine/master/waiting.h"

#include "engine/base/array.h"
#include "engine/base/process.h"
#include "engine/run/network.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define WORKERS_DEFAULT 64u
#define OBSERVERS_DEFAULT 8u
#define OBSERVERS_MAX 1024u
/* Connections that have not said hello yet. */
#define PEERS_SPARE 4u
#define GAP_EVERY_DEFAULT 8u
/* EASGD: alpha times the number of workers, and the period (Zhang et al. 2015). */
#define ELASTIC_ALL 0.9
/* AdamW's weight decay as language models are trained; torch.optim.AdamW has 0.01. */
#define DECAY_DEFAULT 0.1
/* 1/epsilon must be a float, for elements that never had a gradient. */
#define EPSILON_MIN 1e-30
/* kappa for each tensor of two dimensions or more: the deeper a network, the smaller a
 * block's share of the loss. (This project: 10 for the network of the flagship run.) */
#define KAPPA_EACH 5.0
#define KAPPA_EACH_ADAM 10.0
/* kappa of one gate for all: blind to depth; 10 to 30 was flat. (This project.) */
#define KAPPA_WHOLE 30.0
#define ELASTIC_PERIOD 4u
/* Float keeps 24 bits: what is added to a mean is rounded at 6e-8 of it. (This project.) */
#define SQUARE_ADD_MIN 1e-6
#define MATRIX_THREADS_MAX 256u
/* Once the first worker is there, the others that were announced have so long to
 * come. */
#define GATHER_BOUND_NS 30000000000ull
/* Array k starts k times 11 cache lines into a page: arrays at the same offset compete
 * for the same sets of the cache (measured: 4 to 12 %). */
#define STAGGER(k) ((size_t)(k)*11 * 64)
#define PAGE 4096u
/* A core of more bytes takes longer to copy than the cache warm-up gains (warm_up). */
#define REHEARSAL_MAX (64u << 10)

enum {
    ARRAY_THETA,
    ARRAY_OWN,
    ARRAY_ALL,
    ARRAY_STAT,
    ARRAY_SENT,
    ARRAY_GRAD,
    ARRAY_SQUARE
};

static size_t pages(size_t bytes)
{
    return (bytes + PAGE - 1) / PAGE * PAGE;
}

static int wrong(struct gapless_error *error, const char *what, double value,
                 const char *possible)
{
    return gapless_error_set(error, GAPLESS_INVALID, 0, "%s is %g; %s", what, value,
                             possible);
}

static int check_numbers(const struct gapless_master_config *c,
                         struct gapless_error *error)
{
    if (c->workers_max > GAPLESS_WORKERS_MAX)
        return wrong(error, "the capacity for workers", c->workers_max,
                     "at most 4096 are possible");
    if (c->workers_expected > (c->workers_max == 0 ? WORKERS_DEFAULT : c->workers_max))
        return wrong(error, "the number of expected workers", c->workers_expected,
                     "it may not be above the capacity");
    if (c->workers_wait > (c->workers_max == 0 ? WORKERS_DEFAULT : c->workers_max))
        return wrong(error, "the number of workers to wait for", c->workers_wait,
                     "it may not be above the capacity");
    if (c->observers_max > OBSERVERS_MAX)
        return wrong(error, "the capacity for observers", c->observers_max,
                     "at most 1024 are possible");
    if (!(c->momentum < 1) || !isfinite(c->momentum))
        return wrong(error, "the momentum", c->momentum,
                     "it must be at least 0 and below 1");
    if (!(c->kappa >= 0) || !isfinite(c->kappa))
        return wrong(error, "kappa", c->kappa,
                     "it must be a number that is not negative; 0 means by the model");
    if (!(c->lambda >= 0) || !isfinite(c->lambda))
        return wrong(error, "lambda", c->lambda, "it must not be negative");
    if (!isfinite(c->horizon))
        return wrong(error, "the horizon of lwp", c->horizon, "it must be a number");
    if (!(c->clip_norm >= 0) || !isfinite(c->clip_norm))
        return wrong(error, "the clipping norm", c->clip_norm,
                     "it must not be negative");
    if (!(c->weight_decay >= 0) || !isfinite(c->weight_decay))
        return wrong(error, "the weight decay", c->weight_decay,
                     "it must not be negative");
    if (!(c->elastic >= 0 && c->elastic <= 1))
        return wrong(error, "the elastic share of easgd", c->elastic,
                     "it must be above 0 and at most 1; 0 means 0.9 / workers");
    if (c->worker_timeout_ns < 0 || c->spin_ns < 0)
        return wrong(error, "a time", -1, "it must not be negative");
    if (c->job != NULL && strlen(c->job) >= GAPLESS_JOB_MAX)
        return wrong(error, "the length of the job text", (double)strlen(c->job),
                     "at most 1023 bytes are possible");
    return GAPLESS_OK;
}

static bool is(double x, double y)
{
    return x <= y && x >= y;
}

/* Of the Adam rules. */
static int check_adam(const struct gapless_master *m,
                      const struct gapless_master_config *c,
                      struct gapless_error *error)
{
    if (!(c->beta2 >= 0 && c->beta2 < 1))
        return wrong(error, "beta2", c->beta2,
                     "it must be above 0 and below 1; 0 means 0.95");
    if (!(c->epsilon >= EPSILON_MIN || is(c->epsilon, 0)) || !isfinite(c->epsilon))
        return wrong(error, "epsilon", c->epsilon,
                     "it must be a number of at least 1e-30; 0 means 1e-8");
    if (!(c->decay >= 0 || is(c->decay, GAPLESS_NO_DECAY)) || !isfinite(c->decay))
        return wrong(error, "the decay", c->decay,
                     "it must be a number that is not negative; 0 means 0.1, "
                     "GAPLESS_NO_DECAY none");
    if (!(c->rest_scale >= 0) || !isfinite(c->rest_scale))
        return wrong(error, "rest_scale", c->rest_scale,
                     "it must be a number that is not negative; 0 means 1");
    if (c->matrix_threads > MATRIX_THREADS_MAX)
        return wrong(error, "the number of threads for matrices", c->matrix_threads,
                     "at most 256 are possible");
    if ((unsigned)c->gate > GAPLESS_GATE_WHOLE)
        return wrong(error, "the gate", c->gate,
                     "it must be GAPLESS_GATE_AUTO (0), _TENSOR (1) or _WHOLE (2)");
    if ((unsigned)c->gap_ref > GAPLESS_GAP_OWN_LOOKAHEAD)
        return wrong(error, "gap_ref", c->gap_ref,
                     "it must be GAPLESS_GAP_SENT (0) or _OWN_LOOKAHEAD (1)");
    if (c->gate == GAPLESS_GATE_WHOLE && (m->rule->flags & RULE_BLOCK) &&
        !(m->rule->flags & RULE_ADAM))
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "rule %s has a gate for each tensor: one of the whole gradient loses "
            "accuracy "
            "under momentum SGD; leave the gate at tensor, or take a rule of Adam",
            m->rule->name);
    if ((m->rule->flags & RULE_ADAM) && c->weight_decay > 0)
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "rule %s has a weight decay that does not go through the gradient: set "
            "decay "
            "(--decay), and leave weight_decay (--weight-decay) at 0, not at %g",
            m->rule->name, c->weight_decay);
    return GAPLESS_OK;
}

static uint32_t expected_workers(const struct gapless_master_config *c)
{
    uint32_t workers = c->workers_max == 0 ? WORKERS_DEFAULT : c->workers_max;

    return c->workers_expected == 0 ? workers : c->workers_expected;
}

/* A steady worker's gradient comes N - 1 updates late: a bound below drops what no machine
 * is to blame for. */
static int check_drop_lag(const struct gapless_master *m,
                          const struct gapless_master_config *c,
                          struct gapless_error *error)
{
    uint32_t expected = expected_workers(c);

    if (c->drop_lag == 0)
        return GAPLESS_OK;
    if (m->rule->flags & (RULE_ROUND | RULE_WORKER_ELASTIC))
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "rule %s drops no gradient for its lag: %s; leave "
                                 "drop_lag (--drop-lag) at 0, "
                                 "or take another rule",
                                 m->rule->name,
                                 m->rule->flags & RULE_ROUND
                                     ? "all of a round are equally late"
                                     : "its workers move parameters of their own");
    if (c->drop_lag < expected)
        master_log(
            m,
            "gradients are dropped from a lag of %u on: with %u workers that are "
            "alike every one has a lag of %u",
            c->drop_lag, expected, expected - 1);
    return GAPLESS_OK;
}

/* Where a worker hands in a difference in place of a gradient. */
static int check_local(const struct gapless_master *m,
                       const struct gapless_master_config *c,
                       struct gapless_error *error)
{
    if (c->local_steps == 0)
        return c->adapt_steps
                   ? wrong(error, "the number of local steps", 0,
                           "adapt_steps needs it: it is the most that a worker takes")
                   : GAPLESS_OK;
    if (m->rule->flags & (RULE_WORKER_ELASTIC | RULE_WORKER_SLIM))
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "rule %s has workers that keep a state of its own, so they cannot take "
            "local "
            "steps: set local_steps to 0, or take another rule, such as dn",
            m->rule->name);
    if ((m->rule->flags & RULE_BLOCK) && !(c->kappa > 0))
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "rule %s with local steps needs a kappa: its gap is no longer in nats, for "
            "which the default was made; give one, or take a rule without a gap in "
            "loss",
            m->rule->name);
    if (c->weight_decay > 0)
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "with local steps a worker hands in a difference, to which no weight decay "
            "is added: set weight_decay to 0, not %g, and decay in the local steps",
            c->weight_decay);
    return GAPLESS_OK;
}

/* What an update adds to the mean of squares is (1 - beta2^(1/N)) of it, in float. */
static void check_beta2(const struct gapless_master *m,
                        const struct gapless_master_config *c)
{
    double beta2 = c->beta2 > 0 ? c->beta2 : m->settings.beta2;
    uint32_t workers = expected_workers(c);

    if ((m->rule->flags & RULE_ROUND_SQUARE) &&
        1.0 - rules_root(beta2, workers) < SQUARE_ADD_MIN)
        master_log(
            m,
            "beta2 (--beta2) is %.9g in a round of %u workers: an update adds less "
            "than a millionth to the mean of squares, which 32-bit floats lose; "
            "take a smaller one",
            beta2, workers);
}

/* All that can be known without memory and without a network. Leaves the layout. */
static int check_all(struct gapless_master *m, const struct gapless_master_config *c,
                     struct gapless_error *error)
{
    int status = check_numbers(c, error);

    settings_default(&m->settings);
    if (status == GAPLESS_OK)
        status = check_adam(m, c, error);
    if (status == GAPLESS_OK)
        status = check_drop_lag(m, c, error);
    if (status == GAPLESS_OK)
        status = check_local(m, c, error);
    if (status == GAPLESS_OK)
        status = schedule_check(&c->schedule, c->gradients, error);
    if (status == GAPLESS_OK)
        status =
            layout_init(&m->layout, &c->model, c->range_elements, c->block_elements,
                        (m->rule->flags & RULE_MATRIX) != 0, error);
    if (status == GAPLESS_OK)
        status = own_check(m, c, error);
    if (status == GAPLESS_OK)
        status = matrices_check(m, error);
    if (status == GAPLESS_OK)
        check_beta2(m, c);
    return status;
}

static int check_initial(const struct gapless_master *m, const float *initial,
                         struct gapless_error *error)
{
    uint64_t i;

    for (i = 0; initial != NULL && i < m->layout.count; i++)
        if (!isfinite(initial[i]))
            return gapless_error_set(error, GAPLESS_NOT_FINITE, 0,
                                     "initial parameter %llu is not finite",
                                     (unsigned long long)i);
    return GAPLESS_OK;
}

static double kappa_auto(const struct gapless_master *m)
{
    uint32_t matrices = layout_matrices(&m->layout);

    if (m->whole_gate)
        return KAPPA_WHOLE;
    return (m->rule->flags & RULE_ADAM ? KAPPA_EACH_ADAM : KAPPA_EACH) *
           (matrices > 0 ? matrices : 1);
}

static void take_settings(struct gapless_master *m,
                          const struct gapless_master_config *c)
{
    uint32_t workers = c->workers_max == 0 ? WORKERS_DEFAULT : c->workers_max;
    uint32_t expected = expected_workers(c);

    m->settings.beta2 = c->beta2;
    m->settings.epsilon = c->epsilon;
    m->settings.rest_scale = c->rest_scale;
    m->settings.decay = c->decay > 0 ? c->decay : c->decay < 0 ? 0 : DECAY_DEFAULT;
    m->whole_gate = (m->rule->flags & RULE_BLOCK) && (m->rule->flags & RULE_ADAM) &&
                    c->gate != GAPLESS_GATE_TENSOR;
    m->settings.kappa = c->kappa > 0 ? c->kappa : kappa_auto(m);
    settings_default(&m->settings);
    m->settings.momentum = c->momentum == 0 ? 0.9 : c->momentum < 0 ? 0 : c->momentum;
    m->settings.rate_max = schedule_peak(&c->schedule);
    if (c->lambda > 0)
        m->settings.lambda = m->settings.lambda_zero = c->lambda;
    m->settings.horizon = c->horizon;
    m->settings.elastic = c->elastic > 0 ? c->elastic : ELASTIC_ALL / expected;
    m->elastic_period = c->elastic_period == 0 ? ELASTIC_PERIOD : c->elastic_period;
    m->settings.gap_ref =
        c->gap_ref == GAPLESS_GAP_OWN_LOOKAHEAD ? GAP_REF_OWN_LOOKAHEAD : GAP_REF_SENT;
    m->schedule = c->schedule;
    if (m->schedule.warmup > 0 && m->schedule.warmup_from <= 0)
        m->schedule.warmup_from = 1.0 / expected;
    m->gradients = c->gradients;
    m->clip_norm = c->clip_norm;
    m->weight_decay = c->weight_decay;
    m->decay_all = c->decay_all;
    m->ssgd_scale_rate = c->ssgd_scale_rate;
    m->gap_every = c->gap_every == 0 ? GAP_EVERY_DEFAULT : c->gap_every;
    m->observers_max = c->observers_max == 0 ? OBSERVERS_DEFAULT : c->observers_max;
    m->peers_max = workers + m->observers_max + PEERS_SPARE;
}

static int make_core(struct gapless_master *m, const struct gapless_master_config *c,
                     struct gapless_error *error)
{
    struct core_config config = {
        .workers_max = c->workers_max == 0 ? WORKERS_DEFAULT : c->workers_max,
        .ranges = m->layout.ranges_count,
        .tickets = c->gradients,
        .workers_wait = c->workers_wait,
        .wait_ns = GATHER_BOUND_NS,
        .timeout_ns = (uint64_t)c->worker_timeout_ns,
        .drop_lag = c->drop_lag,
        .steps = c->local_steps,
        .adapt = c->adapt_steps,
        .whole = (m->rule->flags & (RULE_GLOBAL | RULE_ROUND)) != 0 || m->whole_gate,
        .round = (m->rule->flags & RULE_ROUND) != 0,
        .judges = true,
        .local = (m->rule->flags & RULE_WORKER_ELASTIC) != 0,
    };
    size_t bytes;

    if (m->from != NULL)
        config.tickets_more = saved_tickets(m->from);
    bytes = core_bytes(&config);
    if (bytes == 0)
        return gapless_error_set(
            error, GAPLESS_CAPACITY, 0,
            "%u workers times %u ranges is beyond the limit of %llu: use "
            "larger ranges or a smaller capacity",
            config.workers_max, config.ranges, CORE_CELLS_MAX);
    m->core = calloc(1, bytes);
    m->slot = calloc(config.workers_max, sizeof *m->slot);
    m->peer = calloc(m->peers_max, sizeof *m->peer);
    m->range_stage = calloc(m->layout.ranges_count, sizeof *m->range_stage);
    m->vectors = calloc(config.workers_max, sizeof *m->vectors);
    m->targets = calloc(config.workers_max, sizeof *m->targets);
    m->members = calloc(config.workers_max, sizeof *m->members);
    m->queue.room = config.workers_max + 2;
    m->queue.event = calloc(m->queue.room, sizeof *m->queue.event);
    m->job = strdup(c->job == NULL ? "" : c->job);
    if (m->core == NULL || m->slot == NULL || m->peer == NULL ||
        m->range_stage == NULL || m->vectors == NULL || m->targets == NULL ||
        m->members == NULL || m->queue.event == NULL || m->job == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for the state of %u workers",
                                 config.workers_max);
    core_init(m->core, &config);
    if (bytes <= REHEARSAL_MAX)
        m->warm_up_core =
            calloc(1, bytes); /* without it all is well, a little slower */
    return GAPLESS_OK;
}

/* Private memory: zero, page by page as it is touched. */
static void *reserve(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (p == MAP_FAILED)
        return NULL;
    (void)madvise(p, bytes,
                  MADV_HUGEPAGE); /* fewer faults at the start; no matter if refused */
    return p;
}

static size_t lines(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

/* Where the vectors lie outside of the slots: all that is left of one in few pages.
 * What follows is never touched. */
static void place_external_slots(struct gapless_master *m, size_t reported,
                                 size_t vector)
{
    size_t at = lines(sizeof(struct slot_head));

    m->reported_at = reported > 0 ? at : 0;
    m->push_at = at + lines(reported);
    m->grad_at = m->push_at + sizeof(struct slot_push);
    if (reported == 0)
        m->sent_at = m->grad_at + vector;
    m->slot_used = pages(m->grad_at);
    m->slot_bytes = pages(m->grad_at + 2 * vector);
    m->split = at;
}

/* Where everything is in a slot (wire.h), and in the region of what is published. */
static void place_slots(struct gapless_master *m, size_t vector)
{
    bool published = master_publishes(m);
    size_t reported =
        published ? lines(((size_t)m->layout.ranges_count + m->layout.blocks_count) * 8)
                  : 0;
    size_t tells = reported + sizeof(struct slot_push);

    if (published) {
        m->sent_at = STAGGER(ARRAY_SENT);
        m->second_at = pages(m->sent_at + vector) + STAGGER(ARRAY_SENT);
    }
    if (m->external_buffers) {
        place_external_slots(m, reported, vector);
        return;
    }
    m->split = PAGE;
    if (!published) {
        m->sent_at = PAGE + STAGGER(ARRAY_SENT);
        m->split = pages(m->sent_at + vector);
    }
    /* In its place in a page, which has room before it for what is reported. */
    m->grad_at = m->split + STAGGER(ARRAY_GRAD);
    if (tells > STAGGER(ARRAY_GRAD))
        m->grad_at += pages(tells - STAGGER(ARRAY_GRAD));
    m->push_at = m->grad_at - sizeof(struct slot_push);
    m->reported_at = published ? m->push_at - reported : 0;
    m->slot_bytes = m->slot_used = pages(m->grad_at + vector);
}

/* RULE_HISTORY: what the scalars depend on, and where weight decay applies. */
static int make_history(struct gapless_master *m, bool decay_all,
                        struct gapless_error *error)
{
    size_t ranges = m->layout.ranges_count;

    m->history = calloc(ranges, sizeof *m->history);
    m->own_updates =
        calloc(ranges * m->core->config.workers_max, sizeof *m->own_updates);
    if (m->rule->flags & RULE_ADAM)
        m->decays = calloc((size_t)m->layout.padded / LAYOUT_LANES, sizeof *m->decays);
    if (m->history == NULL || m->own_updates == NULL ||
        ((m->rule->flags & RULE_ADAM) != 0 && m->decays == NULL))
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for the state of rule %s in %zu ranges",
                                 m->rule->name, ranges);
    if (m->decays != NULL)
        layout_decays(&m->layout, decay_all, m->decays);
    return GAPLESS_OK;
}

/* RULE_ROUND: room for the pieces of seams. */
static int make_lanes(struct gapless_master *m, struct gapless_error *error)
{
    size_t bytes =
        (size_t)m->core->config.workers_max * 2 * LAYOUT_LANES * sizeof(float);

    if (!(m->rule->flags & RULE_ROUND) || !m->layout.seams)
        return GAPLESS_OK;
    m->lanes = array_zeroed(ARRAY_LINE, bytes);
    return m->lanes != NULL ? GAPLESS_OK
                            : gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                                "no memory for the seams of a round");
}

/* RULE_BLOCK: room for the gates of a range. */
static int make_gates(struct gapless_master *m, struct gapless_error *error)
{
    uint32_t most = 0, r;

    if (!(m->rule->flags & RULE_BLOCK))
        return GAPLESS_OK;
    for (r = 0; r < m->layout.ranges_count; r++) {
        uint32_t count = m->layout.block_first[r + 1] - m->layout.block_first[r];

        most = count > most ? count : most;
    }
    m->gates = calloc(most, sizeof *m->gates);
    if (m->gates == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for the gates of %u blocks", most);
    return GAPLESS_OK;
}

static int make_vectors(struct gapless_master *m, bool decay_all,
                        struct gapless_error *error)
{
    size_t vector = pages((size_t)m->layout.padded * sizeof(float));
    size_t own_stride = vector + pages(STAGGER(ARRAY_OWN));
    size_t sent_stride = vector + pages(STAGGER(ARRAY_SENT));
    unsigned used = m->rule->reads | m->rule->writes | rules_slots(m->rule);
    size_t mean_at = own_stride; /* behind `own`, where there is one */
    uint32_t workers = m->core->config.workers_max, w;

    m->private_bytes = 3 * (vector + PAGE);
    m->private_memory = reserve(m->private_bytes);
    if (used & SLOT_MEAN)
        own_stride *= 2;
    if (used & SLOT_OWN) {
        m->own_bytes = own_stride * workers;
        m->own_memory = reserve(m->own_bytes);
    }
    if (m->external_buffers && !master_publishes(m)) {
        m->sent_bytes = sent_stride * workers;
        m->sent_memory = reserve(m->sent_bytes);
    }
    if (m->private_memory == NULL || (m->own_bytes > 0 && m->own_memory == NULL) ||
        (m->sent_bytes > 0 && m->sent_memory == NULL))
        return gapless_error_set(
            error, GAPLESS_NO_MEMORY, 0,
            "no memory for the vectors of rule %s: %zu MiB for %u "
            "workers; lower the capacity or take a rule without a "
            "vector per worker (gapless rules)",
            m->rule->name, (m->private_bytes + m->own_bytes + m->sent_bytes) >> 20,
            workers);
    if (used & SLOT_ALL)
        m->all = (float *)(void *)((char *)m->private_memory + STAGGER(ARRAY_ALL));
    if (used & SLOT_STAT)
        m->stat = (float *)(void *)((char *)m->private_memory + vector + PAGE +
                                    STAGGER(ARRAY_STAT));
    if (used & SLOT_SQUARE)
        m->square = (float *)(void *)((char *)m->private_memory + 2 * (vector + PAGE) +
                                      STAGGER(ARRAY_SQUARE) % PAGE);
    for (w = 0; w < workers; w++) {
        m->slot[w].peer = MASTER_NO_PEER;
        if (used & SLOT_OWN)
            m->slot[w].own = (float *)(void *)((char *)m->own_memory + w * own_stride +
                                               STAGGER(ARRAY_OWN));
        if (used & SLOT_MEAN)
            m->slot[w].mean = m->slot[w].own + mean_at / sizeof(float);
        if (m->sent_memory != NULL)
            m->slot[w].sent = (float *)(void *)((char *)m->sent_memory +
                                                w * sent_stride + STAGGER(ARRAY_SENT));
    }
    place_slots(m, vector);
    return m->rule->flags & RULE_HISTORY ? make_history(m, decay_all, error)
                                         : GAPLESS_OK;
}

/* RULE_PUBLISHED: which elements are a block, for the workers. */
static void publish_blocks(struct gapless_master *m)
{
    uint32_t *to = (uint32_t *)(uintptr_t)shared_stats_blocks(m->shared_stats);
    uint32_t ranges = m->layout.ranges_count;

    memcpy(to, m->layout.block_first, (ranges + 1u) * sizeof *to);
    memcpy(to + ranges + 1, m->layout.block_ends,
           (size_t)m->layout.blocks_count * sizeof *to);
}

/* RULE_PUBLISHED: before the first update the look-ahead is the parameters. */
static int make_published(struct gapless_master *m, struct gapless_error *error)
{
    size_t vector = (size_t)m->layout.padded * sizeof(float);
    int status = m->transport->region_new(m->tp, pages(m->second_at + vector),
                                          &m->published_region, error);

    if (status != GAPLESS_OK)
        return status;
    m->published[0] = (float *)(void *)((char *)m->published_region.base + m->sent_at);
    m->published[1] =
        (float *)(void *)((char *)m->published_region.base + m->second_at);
    memcpy(m->published[0], m->theta, vector);
    publish_blocks(m);
    return GAPLESS_OK;
}

static int make_shared_stats(struct gapless_master *m, const float *initial,
                             struct gapless_error *error)
{
    uint32_t ranges = m->layout.ranges_count, workers = m->core->config.workers_max;
    uint32_t parts = own_parts(m, NULL);
    struct shared_stats shared_stats = {.head = wire_head(WIRE_WELCOME),
                                        .ranges = ranges,
                                        .workers_max = workers,
                                        .count = m->layout.count};
    int status;

    shared_stats.starts_at = (sizeof shared_stats + 63) / 64 * 64;
    shared_stats.versions_at =
        shared_stats.starts_at + (ranges + 1ull) * sizeof(uint64_t);
    shared_stats.workers_at =
        shared_stats.versions_at + ranges * sizeof(struct seq_word);
    shared_stats.gates_at =
        shared_stats.workers_at + workers * sizeof(struct gapless_worker_stats);
    shared_stats.gates = m->gates != NULL ? m->layout.tensors_count : 0;
    shared_stats.blocks_at =
        shared_stats.gates_at + shared_stats.gates * sizeof(struct gate_share);
    shared_stats.blocks = master_publishes(m) ? m->layout.blocks_count : 0;
    shared_stats.parts_at =
        lines(shared_stats.blocks_at +
              (ranges + 1u + shared_stats.blocks) * sizeof(uint32_t));
    shared_stats.parts = parts;
    shared_stats.bytes =
        pages(shared_stats.parts_at + parts * sizeof(struct wire_part));
    status = m->transport->region_new(m->tp, shared_stats.bytes,
                                      &m->shared_stats_region, error);
    if (status != GAPLESS_OK)
        return status;
    status =
        m->transport->region_new(m->tp, pages((size_t)m->layout.padded * sizeof(float)),
                                 &m->theta_region, error);
    if (status != GAPLESS_OK)
        return status;
    status = m->transport->region_new(
        m->tp, pages((size_t)m->layout.padded * sizeof(float)), &m->copy_region, error);
    if (status != GAPLESS_OK)
        return status;
    m->shared_stats = m->shared_stats_region.base;
    *m->shared_stats = shared_stats;
    memcpy((char *)m->shared_stats + shared_stats.starts_at, m->layout.range_start,
           (ranges + 1u) * sizeof(uint64_t));
    if (parts > 0)
        (void)own_parts(
            m, (struct wire_part *)(uintptr_t)shared_stats_parts(m->shared_stats));
    m->telemetry = &m->shared_stats->telemetry;
    m->telemetry->stats.gradients_total = m->gradients;
    m->telemetry->stats.gate = 1;
    m->telemetry->stats.kappa = m->gates != NULL ? m->settings.kappa : 0;
    m->tensor_gates = shared_stats_gates(m->shared_stats);
    m->theta = m->theta_region.base;
    if (initial != NULL)
        memcpy(m->theta, initial, (size_t)m->layout.count * sizeof(float));
    return GAPLESS_OK;
}

/* With room for all. */
static int take_state(struct gapless_master *m, struct gapless_error *error)
{
    int status = GAPLESS_OK;

    if (m->from == NULL)
        return GAPLESS_OK;
    if (m->passes != &pass_ops_cpu)
        status = gapless_error_set(error, GAPLESS_UNSUPPORTED, 0,
                                   "a run goes on from a state with --device cpu only");
    if (status == GAPLESS_OK)
        status = saved_go_on(m, m->from, error);
    state_close(m->from);
    m->from = NULL;
    return status;
}

static int go_public(struct gapless_master *m, const struct gapless_master_config *c,
                     const char *place, struct gapless_error *error)
{
    struct tp_config config = {.peers_max = m->peers_max,
                               .notes_max = 2 * m->layout.ranges_count + 16,
                               .windows_max = WIRE_WINDOWS,
                               .spin_ns = (uint64_t)c->spin_ns};
    int status = network_settings(&c->net, &config.net, error);

    if (status == GAPLESS_OK)
        status = m->transport->open(&config, &m->tp, error);
    if (status == GAPLESS_OK)
        status = make_shared_stats(m, c->initial, error);
    if (status == GAPLESS_OK && master_publishes(m))
        status = make_published(m, error);
    if (status == GAPLESS_OK)
        status = take_state(m, error);
    if (status == GAPLESS_OK)
        status = m->transport->listen(m->tp, place, error);
    if (status == GAPLESS_OK)
        status = m->passes->prepare(m, c, error);
    return status;
}

static int open_record(struct gapless_master *m, const struct gapless_master_config *c,
                       struct gapless_error *error)
{
    struct record_facts facts = {
        .count = m->layout.count,
        .hash = m->layout.hash,
        .tensors = m->layout.tensors_count,
        .gradients = m->gradients,
        .workers_max = m->core->config.workers_max,
        .workers_wait = m->core->config.workers_wait,
        .ranges = m->layout.ranges_count,
        .own = layout_own_hash(&m->layout),
    };

    m->opened_ns = m->transport->now_ns(m->tp);
    return c->record == NULL
               ? GAPLESS_OK
               : record_create(c->record, &facts, c->record_note, &m->record, error);
}

/* The state that it goes on from, if there is one, and the number of this start. */
static int open_state(struct gapless_master *m, const struct gapless_master_config *c,
                      struct gapless_error *error)
{
    int status;

    m->settings_text = saved_settings(m, c);
    if (m->settings_text == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for a master");
    if (c->resume == NULL)
        return GAPLESS_OK;
    status = state_open(c->resume, &m->from, error);
    if (status != GAPLESS_OK)
        return status;
    m->epoch = c->epoch != 0 ? c->epoch : state_number(m->from, "epoch") + 1;
    if (m->epoch >= SAVED_EPOCH_MAX)
        return gapless_error_set(
            error, GAPLESS_CAPACITY, 0,
            "this run was begun again %llu times, which is too often",
            (unsigned long long)m->epoch);
    return saved_check(m, m->from, error);
}

/* A master of the configured rule, which is not checked yet; NULL: *ret_status says why. */
static struct gapless_master *master_new(const struct gapless_master_config *config,
                                         int *ret_status, struct gapless_error *error)
{
    const char *rule = config->rule == NULL ? "dana-ga" : config->rule;
    struct gapless_rule found;
    struct gapless_master *ret;

    *ret_status = gapless_rule_find(rule, &found, error);
    if (*ret_status != GAPLESS_OK)
        return NULL;
    ret = calloc(1, sizeof *ret);
    if (ret == NULL) {
        *ret_status =
            gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for a master");
        return NULL;
    }
    ret->owner = process_number();
    ret->rule = rules_find(rule);
    ret->log = config->log;
    ret->log_context = config->log_context;
    return ret;
}

static int open_master(const struct gapless_master_config *config,
                       bool external_buffers, struct gapless_master **ret,
                       struct gapless_error *error)
{
    const char *place = NULL;
    int status;
    struct gapless_master *m = master_new(config, &status, error);

    if (m == NULL)
        return status;
    m->compute = compute_cpu();
    m->passes = &pass_ops_cpu;
    m->external_buffers = external_buffers;
    status = backend_find(config->address, &m->transport, &place, error);
    if (status == GAPLESS_OK)
        status = check_all(m, config, error);
    if (status == GAPLESS_OK)
        status = check_initial(m, config->initial, error);
    if (status == GAPLESS_OK)
        take_settings(m, config);
    if (status == GAPLESS_OK)
        status = open_state(m, config, error);
    if (status == GAPLESS_OK)
        status = make_core(m, config, error);
    if (status == GAPLESS_OK)
        status = make_vectors(m, config->decay_all, error);
    if (status == GAPLESS_OK)
        status = make_gates(m, error);
    if (status == GAPLESS_OK)
        status = make_lanes(m, error);
    if (status == GAPLESS_OK)
        status = matrices_list(m, config, error);
    if (status == GAPLESS_OK)
        status = passes_choose(m, config, error);
    if (status == GAPLESS_OK)
        status = matrices_open(m, config, error);
    if (status == GAPLESS_OK)
        status = waiting_open(m, error);
    if (status == GAPLESS_OK)
        status = go_public(m, config, place, error);
    if (status == GAPLESS_OK)
        status = open_record(m, config, error);
    if (status == GAPLESS_OK)
        status = saving_open(m, config, error);
    if (status != GAPLESS_OK) {
        gapless_master_close(m);
        return status;
    }
    *ret = m;
    return GAPLESS_OK;
}

int gapless_master_check(const struct gapless_master_config *config,
                         struct gapless_error *error)
{
    int status;
    struct gapless_master *m = master_new(config, &status, error);

    if (m == NULL)
        return status;
    status = check_all(m, config, error);
    if (status == GAPLESS_OK)
        status = open_state(m, config, error);
    state_close(m->from);
    free(m->settings_text);
    layout_free(&m->layout);
    free(m);
    return status;
}

int gapless_master_open(const struct gapless_master_config *config,
                        struct gapless_master **ret, struct gapless_error *error)
{
    return open_master(config, false, ret, error);
}

int master_open_external(const struct gapless_master_config *config,
                         struct gapless_master **ret, struct gapless_error *error)
{
    return open_master(config, true, ret, error);
}

void gapless_master_close(struct gapless_master *m)
{
    if (m == NULL)
        return;
    if (!process_is(m->owner)) {
        /* A forked child's copy: what threads, a GPU or the record's file are at work on
         * stays as it is. */
        if (m->tp != NULL)
            m->transport->close(m->tp);
        return;
    }
    saving_close(m);
    m->passes->detach(m);
    if (m->tp != NULL)
        m->transport->close(m->tp);
    m->passes->close(m);
    if (m->own_memory != NULL)
        (void)munmap(m->own_memory, m->own_bytes);
    if (m->sent_memory != NULL)
        (void)munmap(m->sent_memory, m->sent_bytes);
    if (m->private_memory != NULL)
        (void)munmap(m->private_memory, m->private_bytes);
    record_finish(m->record);
    waiting_close(m);
    matrices_close(m);
    layout_free(&m->layout);
    free(m->core);
    free(m->warm_up_core);
    free(m->slot);
    free(m->peer);
    free(m->range_stage);
    free(m->history);
    free(m->own_updates);
    free(m->decays);
    free(m->gates);
    free(m->vectors);
    free(m->targets);
    free(m->members);
    free(m->lanes);
    free(m->queue.event);
    free(m->job);
    free(m->settings_text);
    state_close(m->from);
    free(m);
}
