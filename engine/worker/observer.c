/* An observer: reads the live parameters and statistics, one-sided, without asking
 * anybody. Here is what it does where memory is mapped; observer_remote.c does the same
 * where it is not. */
#include "engine/worker/observer.h"

#include "engine/base/process.h"

#include <stdlib.h>
#include <string.h>
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

#define CHECK_NS 50000000ull

static void ignore_note(void *user, uint32_t note)
{
    (void)user;
    (void)note;
}

int gapless_observer_open(const struct gapless_observer_config *config,
                          struct gapless_observer **ret, struct gapless_error *error)
{
    struct wire_hello hello = {.head = wire_head(WIRE_HELLO),
                               .role = WIRE_OBSERVER,
                               .pid = (uint32_t)getpid()};
    struct gapless_observer *o = calloc(1, sizeof *o);
    int status;

    if (o == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for an observer");
    (void)snprintf(hello.version, sizeof hello.version, "%s", gapless_version());
    status = client_open(&o->client,
                         &(struct client_wishes){.address = config->address,
                                                 .hello = &hello,
                                                 .connect_ns = config->connect_ns,
                                                 .net = &config->net,
                                                 .on_note = ignore_note},
                         error);
    if (status == GAPLESS_OK)
        status = client_shared_stats(&o->client, error);
    if (status == GAPLESS_OK)
        status = client_window(&o->client, WIRE_THETA,
                               (size_t)o->client.welcome.count * sizeof(float),
                               &o->theta, error);
    if (status == GAPLESS_OK)
        status = client_window(&o->client, WIRE_COPY,
                               (size_t)o->client.welcome.count * sizeof(float),
                               &o->copy, error);
    if (status == GAPLESS_OK && !o->client.transport->mapped)
        status = remote_open(o, error);
    if (status != GAPLESS_OK) {
        gapless_observer_close(o);
        return status;
    }
    *ret = o;
    return GAPLESS_OK;
}

uint64_t gapless_observer_count(const struct gapless_observer *o)
{
    return o->client.welcome.count;
}

const char *gapless_observer_job(const struct gapless_observer *o)
{
    return o->client.welcome.job;
}

/* Is the master still there? A look now and then is enough: what is mapped stays
 * readable. */
static int check_master(struct gapless_observer *o, struct gapless_error *error)
{
    uint64_t now = o->client.transport->now_ns(o->client.tp);

    if (o->client.connected && now - o->checked_ns < CHECK_NS)
        return GAPLESS_OK;
    o->checked_ns = now;
    return client_poll(&o->client, 0, error);
}

/* One range, whole: GAPLESS_OK, or GAPLESS_TORN at the deadline. A range that is being
 * written is waited for by yielding; a torn copy is thrown away and taken again. */
static int read_range(struct gapless_observer *o, uint32_t range, float *params,
                      uint64_t deadline_ns, uint64_t *ret_version)
{
    const struct shared_stats *b = o->client.shared_stats;
    const struct seq_word *word = &shared_stats_versions(b)[range];
    size_t from = (size_t)shared_stats_starts(b)[range],
           to = (size_t)shared_stats_starts(b)[range + 1];
    const float *theta = o->theta.base;
    uint64_t begin;

    if (to > b->count)
        to = (size_t)b->count; /* without the padding */
    for (;;) {
        begin = seq_read_begin(word);
        if ((begin & 1) == 0) {
            memcpy(params + from, theta + from, (to - from) * sizeof(float));
            if (!seq_read_retry(word, begin)) {
                *ret_version = begin / 2;
                return GAPLESS_OK;
            }
        } else {
            (void)sched_yield();
        }
        if (o->client.transport->now_ns(o->client.tp) > deadline_ns)
            return GAPLESS_TORN;
    }
}

int observer_torn(const struct gapless_observer *o, struct gapless_error *error)
{
    return gapless_error_set(
        error, GAPLESS_TORN, 0,
        "the master at %s changed its parameters during every read "
        "and did not give a copy in time: read again with a longer "
        "bound",
        o->client.address);
}

/* The copy that the master makes when asked; newer than `before`. */
static int read_copy(struct gapless_observer *o, float *params, uint64_t deadline_ns,
                     uint64_t *ret_version, struct gapless_error *error)
{
    const struct transport *t = o->client.transport;
    const struct shared_stats *b = o->client.shared_stats;
    uint64_t before = seq_read_begin(&b->copy), begin, asked = 0, now;
    int status;

    for (;;) {
        now = t->now_ns(o->client.tp);
        if (now > deadline_ns)
            return observer_torn(o, error);
        if (asked == 0 || now - asked > OBSERVER_ASK_NS) {
            (void)client_put(&o->client, &o->copy, 0, 0, NOTE(NOTE_COPY, 0), NULL);
            asked = now;
        }
        begin = seq_read_begin(&b->copy);
        if (begin > before + 1 && (begin & 1) == 0) {
            memcpy(params, o->copy.base, (size_t)b->count * sizeof(float));
            *ret_version = b->copy_version;
            if (!seq_read_retry(&b->copy, begin))
                return GAPLESS_OK;
        }
        status = client_poll(&o->client, 1000000, error);
        if (status != GAPLESS_OK)
            return status;
    }
}

static int read_copied(struct gapless_observer *o, float *params, uint64_t deadline_ns,
                       uint64_t *ret_version, struct gapless_error *error)
{
    uint64_t version = 0;
    int status = read_copy(o, params, deadline_ns, &version, error);

    if (status == GAPLESS_OK && ret_version != NULL)
        *ret_version = version;
    return status;
}

static int read_near(struct gapless_observer *o, float *params, uint64_t deadline_ns,
                     uint64_t *ret_version, struct gapless_error *error)
{
    uint64_t version = 0, first = 0;
    uint32_t r;
    int status = check_master(o, error);

    if (status == GAPLESS_OK && o->client.shared_stats->copies_only != 0)
        return read_copied(o, params, deadline_ns, ret_version, error);
    for (r = 0; status == GAPLESS_OK && r < o->client.shared_stats->ranges; r++) {
        status = read_range(o, r, params,
                            o->client.transport->now_ns(o->client.tp) + OBSERVER_TRY_NS,
                            &version);
        if (r == 0)
            first = version;
    }
    if (status == GAPLESS_TORN)
        status = read_copy(o, params, deadline_ns, &first, error);
    if (status == GAPLESS_OK && ret_version != NULL)
        *ret_version = first;
    return status;
}

/* GAPLESS_INVALID in a process that was forked since. */
static int check_process(const struct gapless_observer *o, struct gapless_error *error)
{
    return process_check(o->client.owner, "this observer", error);
}

int gapless_observer_read(struct gapless_observer *o, float *params, int64_t timeout_ns,
                          uint64_t *ret_version, struct gapless_error *error)
{
    bool mapped = o->client.transport->mapped;
    int64_t bound = timeout_ns > 0 ? timeout_ns : OBSERVER_READ_NS;
    uint64_t deadline = client_deadline(&o->client, bound);
    int status = check_process(o, error);

    if (status != GAPLESS_OK)
        return status;
    return mapped ? read_near(o, params, deadline, ret_version, error)
                  : remote_read(o, params, deadline, ret_version, error);
}

int gapless_observer_lost(struct gapless_observer *o, float *params,
                          uint64_t *ret_updates, char *torn, size_t torn_bytes,
                          struct gapless_error *error)
{
    const struct shared_stats *b = o->client.shared_stats;
    size_t used = 0;
    uint32_t r;

    if (!o->client.transport->mapped || b->copies_only != 0)
        return gapless_error_set(error, GAPLESS_UNSUPPORTED, 0,
                                 "the parameters of the master at %s were elsewhere",
                                 o->client.address);
    if (torn_bytes > 0)
        torn[0] = '\0';
    memcpy(params, o->theta.base, (size_t)b->count * sizeof *params);
    for (r = 0; r < b->ranges; r++)
        if ((seq_read_begin(&shared_stats_versions(b)[r]) & 1) != 0 &&
            used + 16 < torn_bytes)
            used += (size_t)snprintf(torn + used, torn_bytes - used, "%s%u",
                                     used > 0 ? ", " : "", r);
    *ret_updates = (seq_read_begin(&shared_stats_versions(b)[0]) / 2) &
                   ((UINT64_C(1) << WIRE_EPOCH_SHIFT) - 1);
    return GAPLESS_OK;
}

int gapless_observer_stats(struct gapless_observer *o, struct gapless_stats *ret,
                           struct gapless_error *error)
{
    bool mapped = o->client.transport->mapped;
    int status = check_process(o, error);

    if (status == GAPLESS_OK)
        status = mapped ? check_master(o, error) : remote_stats(o, error);
    if (status == GAPLESS_OK)
        telemetry_stats(&o->client.shared_stats->telemetry,
                        mapped ? o->client.transport->now_ns(o->client.tp)
                               : o->client.shared_stats->now_ns,
                        ret);
    return status;
}

int gapless_observer_worker_stats(struct gapless_observer *o, uint32_t worker,
                                  struct gapless_worker_stats *ret)
{
    if (worker >= o->client.shared_stats->workers_max)
        return GAPLESS_MISSING;
    if (check_process(o, NULL) != GAPLESS_OK)
        return GAPLESS_INVALID;
    if (!o->client.transport->mapped)
        return remote_worker(o, worker, ret);
    *ret = shared_stats_workers(o->client.shared_stats)[worker];
    return GAPLESS_OK;
}

int gapless_observer_tensor_gates(struct gapless_observer *o, uint32_t count,
                                  double *ret)
{
    int status = check_process(o, NULL);

    if (status == GAPLESS_OK && !o->client.transport->mapped)
        status = remote_gates(o);
    return status == GAPLESS_OK
               ? shared_stats_gate_means(o->client.shared_stats, count, ret)
               : status;
}

void gapless_observer_close(struct gapless_observer *o)
{
    if (o == NULL)
        return;
    client_close(&o->client);
    free(o->listed);
    free(o->begun);
    free(o);
}
