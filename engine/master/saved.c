/* What of a master goes into a state, and back. */
#include "engine/master/saved.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SETTINGS_MAX 4096u

/* ---- the settings that decide a run -------------------------------------- */

struct lines {
    char text[SETTINGS_MAX];
    size_t used;
};

static void line(struct lines *l, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void line(struct lines *l, const char *format, ...)
{
    va_list list;
    int n;

    va_start(list, format);
    n = vsnprintf(l->text + l->used, sizeof l->text - l->used, format, list);
    va_end(list);
    l->used += n > 0 && (size_t)n < sizeof l->text - l->used ? (size_t)n : 0;
}

/* As they were given: what 0 stands for may depend on the number of workers, which may be
 * another when the run goes on. */
static void settings_lines(const struct gapless_master *m,
                           const struct gapless_master_config *c, struct lines *ret)
{
    const struct gapless_schedule *s = &c->schedule;
    uint32_t i;

    *ret = (struct lines){.used = 0};
    line(ret, "rule=%s\n", m->rule->name);
    line(ret, "gradients=%" PRIu64 "\n", c->gradients);
    line(ret, "rate=%.17g\nwarmup=%" PRIu64 "\nwarmup_from=%.17g\n", s->rate, s->warmup,
         s->warmup_from);
    for (i = 0; i < s->steps_count && i < GAPLESS_STEPS_MAX; i++)
        line(ret, "milestone=%" PRIu64 " %.17g\n", s->steps[i].at, s->steps[i].factor);
    line(ret, "cosine=%d %.17g\n", s->cosine ? 1 : 0, s->cosine ? s->cosine_to : 0.0);
    line(ret, "momentum=%.17g\nkappa=%.17g\ngate=%d\nlambda=%.17g\nhorizon=%.17g\n",
         c->momentum, c->kappa, (int)c->gate, c->lambda, c->horizon);
    line(ret, "beta2=%.17g\nepsilon=%.17g\ndecay=%.17g\ndecay_all=%d\n", c->beta2,
         c->epsilon, c->decay, c->decay_all ? 1 : 0);
    line(ret, "rest_scale=%.17g\ngap_ref=%d\nssgd_scale_rate=%d\n", c->rest_scale,
         (int)c->gap_ref, c->ssgd_scale_rate ? 1 : 0);
    line(ret, "clip_norm=%.17g\nweight_decay=%.17g\n", c->clip_norm, c->weight_decay);
    line(ret, "elastic=%.17g\nelastic_period=%u\ndrop_lag=%u\n", c->elastic,
         c->elastic_period, c->drop_lag);
    line(ret, "local_steps=%u\nadapt_steps=%d\n", c->local_steps,
         c->adapt_steps ? 1 : 0);
    line(ret, "ranges=%u\nblocks=%u\n", m->layout.ranges_count, m->layout.blocks_count);
}

/* What tensors have of their own, beside the shape, which is in the file anyway. */
static uint64_t own_hash(const struct layout *l)
{
    uint64_t ret = 0;
    uint32_t i;

    for (i = 0; i < l->tensors_count; i++) {
        const struct gapless_tensor *t = &l->tensors[i];
        const double own[] = {(double)t->flags, t->rate, t->decay, t->average,
                              (double)ret};

        ret = state_sum(own, sizeof own);
    }
    return ret;
}

/* The first line that is not the same in both, each cut to its line. */
static int say_difference(const struct state_file *file, const char *was,
                          const char *is, struct gapless_error *error)
{
    size_t same = 0, from = 0;

    while (was[same] != '\0' && was[same] == is[same]) {
        from = was[same] == '\n' ? same + 1 : from;
        same++;
    }
    was += from;
    is += from;
    return gapless_error_set(
        error, GAPLESS_INVALID, 0,
        "the state '%.200s' was made with %.*s, this run has %.*s: go on with the same "
        "settings, or begin anew from its parameters alone (--init)",
        state_path(file), (int)strcspn(was, "\n"), was, (int)strcspn(is, "\n"), is);
}

char *saved_settings(const struct gapless_master *m,
                     const struct gapless_master_config *config)
{
    struct lines lines;

    settings_lines(m, config, &lines);
    return strdup(lines.text);
}

int saved_check(const struct gapless_master *m, const struct state_file *file,
                struct gapless_error *error)
{
    const char *was = state_said(file, "settings");

    if (state_model(file, &m->layout, error) == NULL)
        return GAPLESS_MODEL;
    if (strcmp(was, m->settings_text) != 0)
        return say_difference(file, was, m->settings_text, error);
    if (state_number(file, "tensors_own") != own_hash(&m->layout))
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "the state '%.200s' was made with other rates, decays, "
            "averages or flags of tensors",
            state_path(file));
    return GAPLESS_OK;
}

/* ---- the list ------------------------------------------------------------ */

/* One entry of the list: where it is in the master, and how long. */
struct entry {
    char name[48];
    enum state_type type;
    uint64_t elements;
    void *at;
    uint32_t worker; /* whose vector it is */
};

typedef void entry_fn(const struct gapless_master *m, const struct entry *entry,
                      void *context);

static void visit(const struct gapless_master *m, entry_fn *fn, void *context,
                  const char *name, enum state_type type, uint64_t elements,
                  const void *at)
{
    struct entry entry = {.type = type,
                          .elements = elements,
                          .at = (void *)(uintptr_t)at,
                          .worker = CORE_ALL};
    const char *slash = strchr(name, '/');

    if (slash != NULL)
        entry.worker = (uint32_t)strtoul(slash + 1, NULL, 10);
    (void)snprintf(entry.name, sizeof entry.name, "%s", name);
    fn(m, &entry, context);
}

/* A worker's vectors. */
static void each_of_worker(const struct gapless_master *m, uint32_t w, entry_fn *fn,
                           void *context)
{
    const struct master_slot *slot = &m->slot[w];
    uint64_t n = m->layout.padded;
    char name[48];

    (void)snprintf(name, sizeof name, "own/%u", w);
    if (slot->own != NULL)
        visit(m, fn, context, name, STATE_F32, n, slot->own);
    (void)snprintf(name, sizeof name, "mean/%u", w);
    if (slot->mean != NULL)
        visit(m, fn, context, name, STATE_F32, n, slot->mean);
    (void)snprintf(name, sizeof name, "sent/%u", w);
    if (m->external_buffers && slot->sent != NULL)
        visit(m, fn, context, name, STATE_F32, n, slot->sent);
}

/* Everything that is a plain stretch of memory. `workers`: of those that are there, too. */
static void each(const struct gapless_master *m, bool workers, entry_fn *fn,
                 void *context)
{
    uint64_t n = m->layout.padded, ranges = m->layout.ranges_count;
    uint32_t capacity = m->core->config.workers_max, w;

    if (m->all != NULL)
        visit(m, fn, context, "all", STATE_F32, n, m->all);
    if (m->stat != NULL)
        visit(m, fn, context, "stat", STATE_F32, n, m->stat);
    if (m->square != NULL)
        visit(m, fn, context, "square", STATE_F32, n, m->square);
    for (w = 0; workers && w < capacity; w++)
        if (m->core->worker[w].state != CORE_FREE)
            each_of_worker(m, w, fn, context);
    if (m->history != NULL)
        visit(m, fn, context, "history", STATE_U8, ranges * sizeof *m->history,
              m->history);
    visit(m, fn, context, "global_stat", STATE_F64, 1, &m->global_stat);
    visit(m, fn, context, "global_samples", STATE_U64, 1, &m->global_samples);
    visit(m, fn, context, "telemetry", STATE_U8, sizeof *m->telemetry, m->telemetry);
    if (m->gates != NULL)
        visit(m, fn, context, "gates", STATE_F64, 2ull * m->layout.tensors_count,
              m->tensor_gates);
}

/* What has a row for each worker, and therefore fits a master of the same capacity alone. */
static void each_table(const struct gapless_master *m, entry_fn *fn, void *context)
{
    uint64_t capacity = m->core->config.workers_max;

    if (m->own_updates != NULL)
        visit(m, fn, context, "own_updates", STATE_U64,
              capacity * m->layout.ranges_count, m->own_updates);
    visit(m, fn, context, "workers", STATE_U8,
          capacity * sizeof(struct gapless_worker_stats),
          shared_stats_workers(m->shared_stats));
}

/* ---- out ----------------------------------------------------------------- */

static void plan_one(const struct gapless_master *m, const struct entry *entry,
                     void *context)
{
    (void)m;
    (void)state_write_add(context, entry->name, entry->type, entry->elements);
}

static void say_all(const struct gapless_master *m, struct state_write *w)
{
    state_write_say(w, "gapless", gapless_version());
    state_write_say(w, "rule", m->rule->name);
    state_write_say(w, "settings", m->settings_text);
    state_write_number(w, "tensors_own", own_hash(&m->layout));
    state_write_number(w, "epoch", m->epoch);
    state_write_number(w, "gradients", m->core->consumed);
    state_write_number(w, "updates", m->core->updates);
    state_write_number(w, "workers", m->core->active);
    state_write_number(w, "now_ns", m->transport->now_ns(m->tp));
}

int saved_plan(const struct gapless_master *m, struct state_write *w,
               struct gapless_error *error)
{
    if (m->passes != &pass_ops_cpu)
        return gapless_error_set(error, GAPLESS_UNSUPPORTED, 0,
                                 "a state cannot be saved while the passes run on a "
                                 "GPU: use --device cpu, or save the parameters alone");
    if (m->kept)
        return gapless_error_set(
            error, GAPLESS_AGAIN, 0,
            "the run has not begun again: the state that it goes on "
            "from still holds");
    say_all(m, w);
    (void)state_write_model(w, &m->layout);
    each(m, true, plan_one, w);
    each_table(m, plan_one, w);
    (void)state_write_add(w, "core", STATE_U64, core_words(m->core));
    (void)state_write_add(w, "stages", STATE_U64, m->layout.ranges_count);
    (void)state_write_add(w, "factors", STATE_F64, m->core->config.workers_max);
    if (master_publishes(m))
        (void)state_write_add(w, "published", STATE_F32, m->layout.padded);
    return GAPLESS_OK;
}

struct copying {
    struct state_write *to;
    uint32_t next;
    saved_vector_fn *fn;
    void *context;
};

static void copy_one(const struct gapless_master *m, const struct entry *entry,
                     void *context)
{
    struct copying *c = context;
    void *to = state_write_at(c->to, c->next++);

    if (entry->type == STATE_F32)
        c->fn(m,
              &(struct saved_vector){.from = entry->at,
                                     .to = to,
                                     .count = entry->elements,
                                     .worker = entry->worker},
              c->context);
    else
        memcpy(to, entry->at, (size_t)entry->elements * state_type_bytes(entry->type));
}

void saved_freeze(const struct gapless_master *m, struct state_write *w,
                  saved_vector_fn *fn, void *context)
{
    struct copying c = {.to = w,
                        .next = m->layout.tensors_count + m->layout.count % 2,
                        .fn = fn,
                        .context = context};
    struct saved_vector vector = {.from = m->theta,
                                  .to = state_write_at(w, 0),
                                  .count = m->layout.count,
                                  .worker = CORE_ALL};
    uint64_t *stages;
    double *factors;
    uint32_t i;

    fn(m, &vector, context);
    each(m, true, copy_one, &c);
    each_table(m, copy_one, &c);
    core_export(m->core, state_write_at(w, c.next++));
    stages = state_write_at(w, c.next++);
    for (i = 0; i < m->layout.ranges_count; i++)
        stages[i] = m->range_stage[i];
    factors = state_write_at(w, c.next++);
    for (i = 0; i < m->core->config.workers_max; i++)
        factors[i] = m->slot[i].factor;
    vector = (struct saved_vector){
        .places = m->published, .count = m->layout.padded, .worker = CORE_ALL};
    if (master_publishes(m)) {
        vector.to = state_write_at(w, c.next++);
        fn(m, &vector, context);
    }
    say_all(m, w); /* as it is now */
}

void saved_copy_range(const struct gapless_master *m, const struct saved_vector *vector,
                      uint32_t range, uint64_t version)
{
    const float *base =
        vector->places != NULL ? vector->places[version % 2] : vector->from;
    size_t from = (size_t)m->layout.range_start[range];
    size_t end = (size_t)m->layout.range_start[range + 1];

    if (end > vector->count)
        end = (size_t)vector->count; /* parameters have nothing that fills up */
    memcpy(vector->to + from, base + from, (end - from) * sizeof *base);
}

static void copy_whole(const struct gapless_master *m,
                       const struct saved_vector *vector, void *context)
{
    uint32_t r;

    (void)context;
    for (r = 0; r < m->layout.ranges_count; r++)
        saved_copy_range(m, vector, r, core_version(m->core, r));
}

void saved_copy(const struct gapless_master *m, struct state_write *w)
{
    saved_freeze(m, w, copy_whole, NULL);
}

/* ---- back ---------------------------------------------------------------- */

struct taking {
    const struct state_file *from;
    char missing[48]; /* the first that the file has not */
};

static void take_one(const struct gapless_master *m, const struct entry *entry,
                     void *context)
{
    struct taking *t = context;
    const struct state_tensor *found = state_find_any(t->from, entry->name);

    (void)m;
    if (found != NULL && found->type == entry->type &&
        found->elements == entry->elements)
        memcpy(entry->at, found->data, (size_t)found->bytes);
    else if (t->missing[0] == '\0')
        memcpy(t->missing, entry->name, sizeof t->missing);
}

static int missing(const struct state_file *file, const char *what,
                   struct gapless_error *error)
{
    return gapless_error_set(error, GAPLESS_CORRUPT, 0,
                             "the state '%.250s' has no '%s' of the size that this run "
                             "has: it was made by another version",
                             state_path(file), what);
}

/* What is sent to all, of each range to the place of its version. */
static int take_published(struct gapless_master *m, const struct state_file *file,
                          struct gapless_error *error)
{
    const float *from = state_find(file, "published", STATE_F32, m->layout.padded);
    uint32_t r;

    if (!master_publishes(m))
        return GAPLESS_OK;
    if (from == NULL)
        return missing(file, "published", error);
    for (r = 0; r < m->layout.ranges_count; r++) {
        size_t at = (size_t)m->layout.range_start[r];

        memcpy(m->published[core_version(m->core, r) % 2] + at, from + at,
               pass_elements(m, r) * sizeof *from);
    }
    return GAPLESS_OK;
}

/* What is the same whatever the capacity. */
static int take_shared(struct gapless_master *m, const struct state_file *file,
                       bool workers, struct gapless_error *error)
{
    const uint64_t *stages =
        state_find(file, "stages", STATE_U64, m->layout.ranges_count);
    const float *theta = state_model(file, &m->layout, error);
    struct taking taking = {.from = file};
    uint32_t r;

    if (theta == NULL)
        return GAPLESS_MODEL;
    if (stages == NULL)
        return missing(file, "stages", error);
    memcpy(m->theta, theta, (size_t)m->layout.count * sizeof *theta);
    each(m, workers, take_one, &taking);
    for (r = 0; r < m->layout.ranges_count; r++)
        m->range_stage[r] = (uint32_t)stages[r];
    return taking.missing[0] == '\0' ? GAPLESS_OK
                                     : missing(file, taking.missing, error);
}

/* The versions that readers see: above all that a master before this one can have shown. */
static void publish_versions(struct gapless_master *m)
{
    uint32_t r;

    m->version_base = m->epoch << WIRE_EPOCH_SHIFT;
    for (r = 0; r < m->layout.ranges_count; r++)
        seq_set(&shared_stats_versions(m->shared_stats)[r],
                2 * (m->version_base + core_version(m->core, r)));
}

/* The core's numbers, and of how large a core they are; NULL: there are none that make sense. */
static const struct state_tensor *words_of(const struct state_file *file,
                                           struct core_config *ret)
{
    const struct state_tensor *words = state_find_any(file, "core");

    return words != NULL && words->type == STATE_U64 &&
                   core_words_of(words->data, (size_t)words->elements, ret)
               ? words
               : NULL;
}

int saved_core(const struct state_file *file, struct master_core **ret,
               struct gapless_error *error)
{
    struct core_config config;
    const struct state_tensor *words = words_of(file, &config);
    struct master_core *core = NULL;
    size_t bytes;

    if (words == NULL) {
        (void)missing(file, "core", error);
        return GAPLESS_CORRUPT;
    }
    bytes = core_bytes(&config);
    core = bytes > 0 ? calloc(1, bytes) : NULL;
    if (core == NULL) {
        (void)gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                "no memory for the state of %u workers",
                                config.workers_max);
        return GAPLESS_NO_MEMORY;
    }
    core_init(core, &config);
    if (!core_import(core, words->data, (size_t)words->elements)) {
        free(core);
        (void)gapless_error_set(error, GAPLESS_CORRUPT, 0,
                                "the numbers of the state '%.250s' contradict each "
                                "other",
                                state_path(file));
        return GAPLESS_CORRUPT;
    }
    *ret = core;
    return GAPLESS_OK;
}

uint32_t saved_tickets(const struct state_file *file)
{
    struct core_config config;

    return words_of(file, &config) != NULL ? (uint32_t)core_tickets_room(&config) : 0;
}

static const float *vector_of(const struct gapless_master *m,
                              const struct state_file *file, const char *kind,
                              uint32_t worker)
{
    char name[48];

    (void)snprintf(name, sizeof name, "%s/%u", kind, worker);
    return state_find(file, name, STATE_F32, m->layout.padded);
}

/* The vectors of a worker that was there, into a slot. */
static int take_worker(struct gapless_master *m, const struct state_file *file,
                       uint32_t worker, uint32_t into, struct gapless_error *error)
{
    struct master_slot *slot = &m->slot[into];
    size_t bytes = (size_t)m->layout.padded * sizeof(float);
    const float *own = vector_of(m, file, "own", worker);
    const float *mean = vector_of(m, file, "mean", worker);

    if ((slot->own != NULL && own == NULL) || (slot->mean != NULL && mean == NULL))
        return missing(file, slot->own != NULL && own == NULL ? "own" : "mean", error);
    if (slot->own != NULL)
        memcpy(slot->own, own, bytes);
    if (slot->mean != NULL)
        memcpy(slot->mean, mean, bytes);
    slot->kept = true;
    m->kept = true;
    return GAPLESS_OK;
}

/* Each worker's own updates, where the rule counts them. */
static int take_updates(struct gapless_master *m, const struct state_file *file,
                        const struct master_core *was, struct gapless_error *error)
{
    uint32_t ranges = m->layout.ranges_count, workers = was->config.workers_max;
    uint32_t both =
        workers < m->core->config.workers_max ? workers : m->core->config.workers_max;
    const uint64_t *updates;

    if (m->own_updates == NULL)
        return GAPLESS_OK;
    updates = state_find(file, "own_updates", STATE_U64, (uint64_t)workers * ranges);
    if (updates == NULL)
        return missing(file, "own_updates", error);
    memcpy(m->own_updates, updates, (size_t)both * ranges * sizeof *updates);
    return GAPLESS_OK;
}

/* Those for whom there is no slot any more go at once: one after another through the first. */
static int take_workers(struct gapless_master *m, const struct state_file *file,
                        const struct master_core *was, struct gapless_error *error)
{
    uint32_t capacity = m->core->config.workers_max, w;
    int status = GAPLESS_OK;

    for (w = capacity; status == GAPLESS_OK && w < was->config.workers_max; w++)
        if (was->worker[w].state != CORE_FREE) {
            status = take_worker(m, file, w, 0, error);
            if (status == GAPLESS_OK)
                m->passes->forget(m, 0);
            m->slot[0].kept = false;
        }
    for (w = 0; status == GAPLESS_OK && w < capacity && w < was->config.workers_max;
         w++)
        if (was->worker[w].state != CORE_FREE)
            status = take_worker(m, file, w, w, error);
    return status;
}

/* Times are by this process's clock; the time between the two does not count. */
static void take_clock(struct gapless_master *m, const struct state_file *file)
{
    struct telemetry *t = m->telemetry;
    uint64_t then = state_number(file, "now_ns"), now = m->transport->now_ns(m->tp);

    if (t->started_ns != 0)
        t->started_ns = now - (then - t->started_ns);
    t->ended_ns = 0;
    t->stats.record_failed = false;
}

int saved_go_on(struct gapless_master *m, const struct state_file *file,
                struct gapless_error *error)
{
    struct master_core *was = NULL;
    int status = saved_core(file, &was, error);

    if (status != GAPLESS_OK)
        return status;
    if (m->core->config.workers_wait == 0)
        m->core->config.workers_wait = was->active < m->core->config.workers_max
                                           ? was->active
                                           : m->core->config.workers_max;
    status = take_updates(m, file, was, error);
    if (status == GAPLESS_OK)
        status = take_shared(m, file, false, error);
    if (status == GAPLESS_OK)
        status = take_workers(m, file, was, error);
    if (status == GAPLESS_OK && !core_go_on(m->core, was))
        status = gapless_error_set(error, GAPLESS_CORRUPT, 0,
                                   "the tickets of the state '%.250s' are more than "
                                   "this run has room for",
                                   state_path(file));
    if (status == GAPLESS_OK)
        status = take_published(m, file, error);
    take_clock(m, file);
    if (status == GAPLESS_OK)
        publish_versions(m);
    free(was);
    return status;
}

int saved_restore(struct gapless_master *m, const struct state_file *file,
                  struct gapless_error *error)
{
    const struct state_tensor *words = state_find_any(file, "core");
    uint32_t capacity = m->core->config.workers_max, w;
    const double *factors = state_find(file, "factors", STATE_F64, capacity);
    struct taking taking = {.from = file};
    int status;

    if (words == NULL || factors == NULL ||
        !core_import(m->core, words->data, (size_t)words->elements))
        return missing(file, "core", error);
    status = take_shared(m, file, true, error);
    if (status == GAPLESS_OK)
        status = take_published(m, file, error);
    if (status != GAPLESS_OK)
        return status;
    each_table(m, take_one, &taking);
    if (taking.missing[0] != '\0')
        return missing(file, taking.missing, error);
    for (w = 0; w < capacity; w++)
        m->slot[w].factor = factors[w];
    publish_versions(m);
    return GAPLESS_OK;
}

void saved_let_go(struct gapless_master *m)
{
    uint32_t w;

    for (w = 0; m->kept && w < m->core->config.workers_max; w++) {
        if (!m->slot[w].kept)
            continue;
        m->slot[w].kept = false;
        if (m->core->worker[w].state == CORE_FREE)
            pass_forget(m, w);
    }
    m->kept = false;
}
