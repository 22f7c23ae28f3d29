/* States of a run that goes on: software copy-on-write, and the thread that writes. */
#include "engine/master/saving.h"

#include "engine/base/array.h"
#include "engine/master/saved.h"
#include "engine/master/waiting.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PATH_MAX_BYTES 4096u
#define NAP_NS 100000
/* The thread rests for this many times what it has worked: on a machine that is busy anyway, what it
 * takes is taken from the run. A rest is at most this long. (This project: measured, bench/results.) */
#define REST_TIMES 9u
#define REST_MOST_NS 50000000u

enum phase {
    IDLE,
    PREPARING, /* the thread reserves the file */
    PREPARED,
    WRITING, /* the thread copies and writes */
    DONE     /* `status` says how it went */
};

enum piece {
    PENDING,
    COPYING,
    SAVED
};

struct saving {
    char *folder;
    char **metadata;
    uint64_t every_ns, every;
    uint32_t keep;

    /* Of the master's thread. */
    uint64_t began_ns, began_at; /* of the last one: time, gradients */
    uint64_t members;            /* who was there when it was listed */
    bool watching;               /* pieces may be pending */

    /* Of one thread: the master until WRITING begins, then pieces one by one. */
    struct state_write *w;
    struct saved_vector *vectors;
    size_t vectors_count, vectors_room;
    uint64_t *versions; /* of the ranges, at the instant */
    uint8_t *pieces;    /* enum piece, by vector and range */
    bool no_memory;
    uint64_t gradients;

    /* With the lock. */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    enum phase phase;
    bool quit;
    struct gapless_error error;
    uint64_t bytes, took_ns;

    pthread_t thread;
    bool started;
    uint64_t worked_ns; /* of the thread's own time, at its last rest */
};

/* ---- pieces -------------------------------------------------------------- */

/* Copies a piece, unless that is done; if another is at it, waits when `must`. */
static void save_piece(const struct gapless_master *m, struct saving *s, size_t v,
                       uint32_t range, bool must)
{
    uint8_t *piece = &s->pieces[v * m->layout.ranges_count + range];

    (void)pthread_mutex_lock(&s->lock);
    while (must && *piece == COPYING)
        (void)pthread_cond_wait(&s->changed, &s->lock);
    if (*piece != PENDING) {
        (void)pthread_mutex_unlock(&s->lock);
        return;
    }
    *piece = COPYING;
    (void)pthread_mutex_unlock(&s->lock);
    saved_copy_range(m, &s->vectors[v], range, s->versions[range]);
    (void)pthread_mutex_lock(&s->lock);
    *piece = SAVED;
    (void)pthread_cond_broadcast(&s->changed);
    (void)pthread_mutex_unlock(&s->lock);
}

void saving_touch(struct gapless_master *m, uint32_t worker, uint32_t range)
{
    struct saving *s = m->saving;
    size_t v;

    if (s == NULL || !s->watching)
        return;
    for (v = 0; v < s->vectors_count; v++)
        if (worker == CORE_ALL || s->vectors[v].worker == CORE_ALL ||
            s->vectors[v].worker == worker)
            save_piece(m, s, v, range, true);
}

void saving_touch_all(struct gapless_master *m, uint32_t worker)
{
    uint32_t r;

    for (r = 0; m->saving != NULL && m->saving->watching && r < m->layout.ranges_count;
         r++)
        saving_touch(m, worker, r);
}

/* ---- the thread ---------------------------------------------------------- */

static void set_phase(struct saving *s, enum phase phase)
{
    (void)pthread_mutex_lock(&s->lock);
    s->phase = phase;
    (void)pthread_cond_broadcast(&s->changed);
    (void)pthread_mutex_unlock(&s->lock);
}

static enum phase phase_of(struct saving *s)
{
    enum phase ret;

    (void)pthread_mutex_lock(&s->lock);
    ret = s->phase;
    (void)pthread_mutex_unlock(&s->lock);
    return ret;
}

static uint64_t clock_of(const struct gapless_master *m)
{
    return m->transport->now_ns(m->tp);
}

static void rest_after_work(void *context)
{
    struct saving *s = context;
    struct timespec now = {0}, nap;
    uint64_t worked, ns;
    bool quit;

    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    worked = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
    ns = (worked - s->worked_ns) * REST_TIMES;
    s->worked_ns = worked;
    (void)pthread_mutex_lock(&s->lock);
    quit = s->quit;
    (void)pthread_mutex_unlock(&s->lock);
    nap = (struct timespec){0, (long)(ns < REST_MOST_NS ? ns : REST_MOST_NS)};
    if (!quit)
        (void)nanosleep(&nap, NULL);
}

static void prepare(struct saving *s)
{
    state_write_pace(s->w, rest_after_work, s);
    if (state_write_begin(s->w, &s->error) == GAPLESS_OK) {
        s->bytes = state_write_bytes(s->w);
        set_phase(s, PREPARED);
        return;
    }
    state_write_drop(s->w);
    s->w = NULL;
    set_phase(s, DONE);
}

static void write_out(const struct gapless_master *m, struct saving *s)
{
    size_t v;
    uint32_t r;

    for (v = 0; v < s->vectors_count; v++)
        for (r = 0; r < m->layout.ranges_count; r++) {
            save_piece(m, s, v, r, true);
            rest_after_work(s);
        }
    if (state_write_end(s->w, &s->error) == GAPLESS_OK)
        state_folder_prune(s->folder, s->keep);
    s->w = NULL;
    s->took_ns = clock_of(m) - s->began_ns;
    set_phase(s, DONE);
}

static void *work(void *argument)
{
    struct gapless_master *m = argument;
    struct saving *s = m->saving;
    enum phase phase;

    for (;;) {
        (void)pthread_mutex_lock(&s->lock);
        while (!s->quit && s->phase != PREPARING && s->phase != WRITING)
            (void)pthread_cond_wait(&s->changed, &s->lock);
        phase = s->phase;
        (void)pthread_mutex_unlock(&s->lock);
        if (phase == PREPARING)
            prepare(s);
        else if (phase == WRITING)
            write_out(m, s);
        else
            return NULL;
    }
}

/* ---- the master ---------------------------------------------------------- */

/* Changes when someone comes or goes. */
static uint64_t members_of(const struct gapless_master *m)
{
    return m->core->joined * 2 * GAPLESS_WORKERS_MAX + m->core->active;
}

static bool is_due(const struct gapless_master *m, const struct saving *s,
                   uint64_t now_ns)
{
    if (m->core->phase != CORE_RUNNING || m->kept || m->core->consumed == s->began_at)
        return false;
    return (s->every_ns > 0 && now_ns - s->began_ns >= s->every_ns) ||
           (s->every > 0 && m->core->consumed - s->began_at >= s->every);
}

static void failed(struct gapless_master *m, struct saving *s)
{
    master_log(m, "a state was not saved, the run goes on: %s", s->error.text);
    s->error = (struct gapless_error){0};
    state_write_drop(s->w);
    s->w = NULL;
}

/* The list; the thread makes its file. */
static void begin(struct gapless_master *m, struct saving *s, uint64_t now_ns)
{
    char path[PATH_MAX_BYTES];
    int status;

    s->began_ns = now_ns;
    s->began_at = m->core->consumed;
    s->members = members_of(m);
    status =
        state_folder_path(s->folder, m->core->consumed, path, sizeof path, &s->error);
    if (status == GAPLESS_OK)
        status = state_write_new(path, &s->w, &s->error);
    if (status == GAPLESS_OK) {
        state_write_say_all(s->w, (const char *const *)s->metadata);
        status = saved_plan(m, s->w, &s->error);
    }
    if (status == GAPLESS_OK && !s->started) {
        status = pthread_create(&s->thread, NULL, work, m);
        s->started = status == 0;
        if (status != 0)
            status = gapless_error_set(&s->error, GAPLESS_SYSTEM, status,
                                       "cannot start a thread that saves");
    }
    if (status != GAPLESS_OK) {
        failed(m, s);
        return;
    }
    set_phase(s, PREPARING);
}

static void list_vector(const struct gapless_master *m,
                        const struct saved_vector *vector, void *context)
{
    struct saving *s = context;
    struct saved_vector *vectors =
        array_room(s->vectors, &s->vectors_room, s->vectors_count + 1, sizeof *vectors);

    (void)m;
    if (vectors == NULL) {
        s->no_memory = true;
        return;
    }
    s->vectors = vectors;
    vectors[s->vectors_count++] = *vector;
}

/* The instant that the state will be of. */
static void freeze(struct gapless_master *m, struct saving *s)
{
    uint32_t ranges = m->layout.ranges_count, r;
    uint8_t *pieces;

    s->vectors_count = 0;
    s->no_memory = false;
    saved_freeze(m, s->w, list_vector, s);
    pieces = realloc(s->pieces, s->vectors_count * ranges);
    s->pieces = pieces != NULL ? pieces : s->pieces;
    if (pieces == NULL || s->no_memory) {
        (void)gapless_error_set(&s->error, GAPLESS_NO_MEMORY, 0,
                                "no memory to save a state");
        failed(m, s);
        set_phase(s, IDLE);
        return;
    }
    memset(pieces, PENDING, s->vectors_count * ranges);
    for (r = 0; r < ranges; r++)
        s->versions[r] = core_version(m->core, r);
    s->gradients = m->core->consumed;
    s->watching = true;
    set_phase(s, WRITING);
}

/* Nothing is in work while the numbers are copied. */
static void rest(struct gapless_master *m)
{
    const struct timespec nap = {0, NAP_NS};

    while (!waiting_ends(m)) {
        (void)matrices_go_on(m);
        (void)nanosleep(&nap, NULL);
    }
    waiting_begins(m);
}

void saving_go_on(struct gapless_master *m, uint64_t now_ns)
{
    struct saving *s = m->saving;

    if (s == NULL)
        return;
    switch (phase_of(s)) {
    case IDLE:
        if (is_due(m, s, now_ns))
            begin(m, s, now_ns);
        break;
    case PREPARED:
        rest(m);
        if (s->members == members_of(m)) {
            freeze(m, s);
            break;
        }
        state_write_drop(s->w); /* another list */
        s->w = NULL;
        set_phase(s, IDLE);
        s->began_at = 0;
        s->began_ns = 0;
        break;
    case DONE:
        s->watching = false;
        if (s->error.status != GAPLESS_OK)
            failed(m, s);
        else
            master_log(m,
                       "saved the state after %" PRIu64 " gradients, %" PRIu64
                       " MiB in %.1f s",
                       s->gradients, s->bytes >> 20, 1e-9 * (double)s->took_ns);
        set_phase(s, IDLE);
        break;
    case PREPARING:
    case WRITING:
        break;
    }
}

/* ---- open and close ------------------------------------------------------ */

/* A copy of a list that NULL ends. */
static char **copy_texts(const char *const *from)
{
    size_t count = 0, i;
    char **ret;

    while (from != NULL && from[count] != NULL)
        count++;
    ret = calloc(count + 1, sizeof *ret);
    for (i = 0; ret != NULL && i < count; i++)
        ret[i] = strdup(from[i]);
    return ret;
}

int saving_open(struct gapless_master *m, const struct gapless_master_config *config,
                struct gapless_error *error)
{
    struct saving *s;

    if (config->save_folder == NULL ||
        (config->save_every_ns <= 0 && config->save_every == 0))
        return GAPLESS_OK;
    if (m->passes != &pass_ops_cpu)
        return gapless_error_set(error, GAPLESS_UNSUPPORTED, 0,
                                 "a state cannot be saved while the passes run on a "
                                 "GPU: use --device cpu, or --save-every 0");
    s = calloc(1, sizeof *s);
    if (s == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for a master");
    m->saving = s;
    (void)pthread_mutex_init(&s->lock, NULL);
    (void)pthread_cond_init(&s->changed, NULL);
    s->folder = strdup(config->save_folder);
    s->versions = calloc(m->layout.ranges_count, sizeof *s->versions);
    s->metadata = copy_texts(config->save_metadata);
    s->every_ns = config->save_every_ns > 0 ? (uint64_t)config->save_every_ns : 0;
    s->every = config->save_every;
    s->keep = config->save_keep > 0 ? config->save_keep : STATE_KEEP_DEFAULT;
    s->began_ns = clock_of(m);
    s->began_at = m->core->consumed;
    if (s->folder == NULL || s->metadata == NULL || s->versions == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for a master");
    return GAPLESS_OK;
}

void saving_close(struct gapless_master *m)
{
    struct saving *s = m->saving;
    size_t i;

    if (s == NULL)
        return;
    if (s->started) {
        (void)pthread_mutex_lock(&s->lock);
        s->quit = true;
        (void)pthread_cond_broadcast(&s->changed);
        (void)pthread_mutex_unlock(&s->lock);
        (void)pthread_join(s->thread, NULL);
    }
    state_write_drop(s->w);
    for (i = 0; s->metadata != NULL && s->metadata[i] != NULL; i++)
        free(s->metadata[i]);
    free(s->metadata);
    free(s->folder);
    free(s->pieces);
    free(s->versions);
    free(s->vectors);
    (void)pthread_cond_destroy(&s->changed);
    (void)pthread_mutex_destroy(&s->lock);
    free(s);
    m->saving = NULL;
}
