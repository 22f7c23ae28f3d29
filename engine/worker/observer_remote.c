/* An observer over a network: what it reads has to be brought first.
 *
 *   words of all ranges ──> ranges ──> words again     each waits for the one before
 *        same and even: the range is whole; otherwise once more, only those
 */
#include "engine/worker/observer.h"

#include <stdlib.h>
#include <string.h>

/* Torn reads in a row, before the master is asked for a copy however quick they
 * were. */
#define ROUNDS 3u
/* Statistics of workers are brought again when they are older than this. */
#define FRESH_NS 50000000ull

int remote_open(struct gapless_observer *o, struct gapless_error *error)
{
    uint32_t ranges = o->client.shared_stats->ranges;

    o->listed = calloc(ranges, sizeof *o->listed);
    o->begun = calloc(ranges, sizeof *o->begun);
    if (o->listed == NULL || o->begun == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for the lists of %u ranges", ranges);
    return GAPLESS_OK;
}

static uint64_t now_ns(const struct gapless_observer *o)
{
    return o->client.transport->now_ns(o->client.tp);
}

/* Where a range is in the parameters, without padding; returns its number of floats. */
static size_t range_of(const struct gapless_observer *o, uint32_t r, size_t *ret_from)
{
    const struct shared_stats *b = o->client.shared_stats;
    size_t from = (size_t)shared_stats_starts(b)[r],
           to = (size_t)shared_stats_starts(b)[r + 1];

    *ret_from = from;
    return (to > b->count ? (size_t)b->count : to) - from;
}

/* Brings the ranges listed that are not being written, and then the words again. */
static int bring(struct gapless_observer *o, uint32_t count, uint64_t deadline_ns,
                 struct gapless_error *error)
{
    const struct seq_word *words = shared_stats_versions(o->client.shared_stats);
    int status = GAPLESS_OK;
    uint32_t i;

    for (i = 0; status == GAPLESS_OK && i < count; i++) {
        uint32_t r = o->listed[i];
        size_t from, n = range_of(o, r, &from);

        o->begun[r] = seq_read_begin(&words[r]);
        if ((o->begun[r] & 1) == 0 && n > 0)
            status = client_fetch(&o->client, &o->theta, from * sizeof(float),
                                  n * sizeof(float), deadline_ns, error);
    }
    if (status == GAPLESS_OK)
        status = client_drain(&o->client, deadline_ns, error);
    return status == GAPLESS_OK ? client_versions(&o->client, deadline_ns, error)
                                : status;
}

/* Takes the ranges that are whole; returns how many are not, and lists them. */
static uint32_t take(struct gapless_observer *o, uint32_t count, float *params)
{
    const struct seq_word *words = shared_stats_versions(o->client.shared_stats);
    uint32_t left = 0, i;

    for (i = 0; i < count; i++) {
        uint32_t r = o->listed[i];
        size_t from, n = range_of(o, r, &from);

        if (seq_read_retry(&words[r], o->begun[r]))
            o->listed[left++] = r;
        else
            memcpy(params + from, (const float *)o->theta.base + from,
                   n * sizeof(float));
    }
    return left;
}

/* GAPLESS_TORN when some range changed during every read. */
static int read_ranges(struct gapless_observer *o, float *params, uint64_t deadline_ns,
                       uint64_t *ret_version, struct gapless_error *error)
{
    uint64_t patient_ns = now_ns(o) + OBSERVER_TRY_NS;
    uint32_t left = o->client.shared_stats->ranges, round, r;
    int status = client_versions(&o->client, deadline_ns, error);

    for (r = 0; r < left; r++)
        o->listed[r] = r;
    for (round = 0; status == GAPLESS_OK && left > 0; round++) {
        if (round >= ROUNDS && now_ns(o) > patient_ns)
            return GAPLESS_TORN;
        status = bring(o, left, deadline_ns, error);
        if (status == GAPLESS_OK)
            left = take(o, left, params);
    }
    *ret_version = o->begun[0] / 2;
    return status;
}

/* The word and the version of the copy that the master makes when asked. */
static int bring_word(struct gapless_observer *o, uint64_t deadline_ns,
                      struct gapless_error *error)
{
    size_t at = offsetof(struct shared_stats, copy);
    size_t bytes = offsetof(struct shared_stats, telemetry) - at;
    int status = client_fetch(&o->client, &o->client.shared_stats_region, at, bytes,
                              deadline_ns, error);

    return status == GAPLESS_OK ? client_drain(&o->client, deadline_ns, error) : status;
}

/* One read of the copy. GAPLESS_TORN: there is none newer than `before`, or it
 * changed. */
static int try_copy(struct gapless_observer *o, uint64_t before, float *params,
                    uint64_t deadline_ns, uint64_t *ret_version,
                    struct gapless_error *error)
{
    const struct shared_stats *b = o->client.shared_stats;
    size_t bytes = (size_t)b->count * sizeof(float);
    uint64_t begin, version;
    int status = bring_word(o, deadline_ns, error);

    begin = seq_read_begin(&b->copy);
    version = b->copy_version;
    if (status == GAPLESS_OK && (begin <= before + 1 || (begin & 1) != 0))
        return GAPLESS_TORN;
    if (status == GAPLESS_OK)
        status = client_fetch(&o->client, &o->copy, 0, bytes, deadline_ns, error);
    if (status == GAPLESS_OK)
        status = client_drain(&o->client, deadline_ns, error);
    if (status == GAPLESS_OK)
        status = bring_word(o, deadline_ns, error);
    if (status != GAPLESS_OK)
        return status;
    if (seq_read_retry(&b->copy, begin))
        return GAPLESS_TORN;
    memcpy(params, o->copy.base, bytes);
    *ret_version = version;
    return GAPLESS_OK;
}

static int read_copy(struct gapless_observer *o, float *params, uint64_t deadline_ns,
                     uint64_t *ret_version, struct gapless_error *error)
{
    uint64_t before, asked = 0, now;
    int status = bring_word(o, deadline_ns, error);

    before = seq_read_begin(&o->client.shared_stats->copy);
    while (status == GAPLESS_OK) {
        now = now_ns(o);
        if (now > deadline_ns)
            return observer_torn(o, error);
        if (asked == 0 || now - asked > OBSERVER_ASK_NS) {
            status = client_put(&o->client, &o->copy, 0, 0, NOTE(NOTE_COPY, 0), error);
            asked = now;
        }
        if (status == GAPLESS_OK || status == GAPLESS_AGAIN)
            status = client_poll(&o->client, 1000000, error);
        if (status != GAPLESS_OK)
            return status;
        status = try_copy(o, before, params, deadline_ns, ret_version, error);
        if (status == GAPLESS_OK)
            return GAPLESS_OK;
        status = status == GAPLESS_TORN ? GAPLESS_OK : status;
    }
    return status;
}

int remote_read(struct gapless_observer *o, float *params, uint64_t deadline_ns,
                uint64_t *ret_version, struct gapless_error *error)
{
    uint64_t first = 0;
    int status = o->client.shared_stats->copies_only != 0
                     ? GAPLESS_TORN
                     : read_ranges(o, params, deadline_ns, &first, error);

    if (status == GAPLESS_TORN) {
        status = read_copy(o, params, deadline_ns, &first, error);
        if (status == GAPLESS_TIMEOUT)
            status = observer_torn(o, error);
    }
    if (status == GAPLESS_OK && ret_version != NULL)
        *ret_version = first;
    return status;
}

int remote_stats(struct gapless_observer *o, struct gapless_error *error)
{
    uint64_t deadline = client_deadline(&o->client, OBSERVER_READ_NS);
    const struct shared_stats *b = o->client.shared_stats;
    size_t at = offsetof(struct shared_stats, now_ns);
    size_t bytes = b->workers_max * sizeof(struct gapless_worker_stats);
    int status = client_poll(&o->client, 0, error);

    if (status == GAPLESS_OK)
        status = client_fetch(&o->client, &o->client.shared_stats_region, at,
                              sizeof(struct shared_stats) - at, deadline, error);
    if (status == GAPLESS_OK)
        status = client_fetch(&o->client, &o->client.shared_stats_region,
                              (size_t)b->workers_at, bytes, deadline, error);
    if (status == GAPLESS_OK)
        status = client_drain(&o->client, deadline, error);
    if (status == GAPLESS_OK)
        o->remote_ns = now_ns(o);
    return status;
}

int remote_gates(struct gapless_observer *o)
{
    uint64_t deadline = client_deadline(&o->client, OBSERVER_READ_NS);
    const struct shared_stats *b = o->client.shared_stats;
    int status = client_poll(&o->client, 0, NULL);

    if (status == GAPLESS_OK && b->gates > 0)
        status = client_fetch(
            &o->client, &o->client.shared_stats_region, (size_t)b->gates_at,
            (size_t)b->gates * sizeof(struct gate_share), deadline, NULL);
    return status == GAPLESS_OK ? client_drain(&o->client, deadline, NULL) : status;
}

int remote_worker(struct gapless_observer *o, uint32_t worker,
                  struct gapless_worker_stats *ret)
{
    uint64_t now = now_ns(o);
    int status = GAPLESS_OK;

    if (o->remote_ns == 0 || now - o->remote_ns > FRESH_NS)
        status = remote_stats(o, NULL);
    if (status != GAPLESS_OK)
        return status;
    *ret = shared_stats_workers(o->client.shared_stats)[worker];
    /* Its time is of the master's clock; here it is given in ours. */
    if (ret->seen_ns != 0)
        ret->seen_ns += o->remote_ns - o->client.shared_stats->now_ns;
    return GAPLESS_OK;
}
