/* A worker's memory: where everything is in what the master grants, and what the worker
 * keeps itself. What comes from the master is checked before it is used. */
#include "engine/worker/worker.h"

#include <stdlib.h>
#include <string.h>

static float *zeros(const struct gapless_worker *w)
{
    size_t bytes = w->padded * sizeof(float);
    float *ret = aligned_alloc(64, bytes);

    if (ret != NULL)
        memset(ret, 0, bytes);
    return ret;
}

/* What the worker keeps itself under some rules. */
static int own_memory(struct gapless_worker *w, struct gapless_error *error)
{
    const struct wire_welcome *welcome = &w->client.welcome;
    bool elastic = welcome->elastic != WIRE_NOT_ELASTIC;
    bool copies = w->reported != NULL;
    bool moves = welcome->slim != 0 || welcome->elastic == WIRE_ELASTIC_NESTEROV;

    if (elastic && (welcome->period == 0 || !(welcome->alpha > 0)))
        return gapless_error_set(error, GAPLESS_PROTOCOL, 0,
                                 "the elastic rule of the master at %s makes no sense",
                                 w->client.address);
    if (elastic)
        w->own = zeros(w);
    if (copies)
        w->copy = zeros(w);
    if (moves)
        w->velocity = zeros(w);
    if ((elastic && w->own == NULL) || (copies && w->copy == NULL) ||
        (moves && w->velocity == NULL))
        return gapless_error_set(
            error, GAPLESS_NO_MEMORY, 0,
            "no memory for what " WORKER_NAME " keeps itself, vectors of %llu MiB",
            welcome->number, (unsigned long long)(w->padded * sizeof(float)) >> 20);
    w->params = elastic ? w->own : copies ? w->copy : w->given;
    w->fresh = elastic;
    return GAPLESS_OK;
}

/* What is reported beside a gradient, and the gradient. */
static uint64_t reported_from(const struct wire_welcome *welcome)
{
    return welcome->reported_at != 0 ? welcome->reported_at : welcome->push_at;
}

/* The offsets come from the master and are checked: in place, and apart. */
static bool slot_makes_sense(const struct gapless_worker *w, uint64_t bytes)
{
    const struct wire_welcome *welcome = &w->client.welcome;
    const struct shared_stats *b = w->client.shared_stats;
    uint64_t reported_bytes = (b->ranges + b->blocks) * sizeof(uint64_t);
    uint64_t from = reported_from(welcome), sent = welcome->sent_at;

    if (from % 64 != 0 || welcome->grad_at % 64 != 0 || sent % 64 != 0 ||
        sent > UINT64_MAX / 4 || welcome->grad_at > UINT64_MAX / 4 ||
        b->blocks > UINT32_MAX || from < sizeof(struct slot_head) ||
        welcome->push_at + sizeof(struct slot_push) != welcome->grad_at)
        return false;
    if (welcome->reported_at != 0)
        return from <= welcome->push_at && welcome->push_at - from >= reported_bytes;
    return sent >= sizeof(struct slot_head) &&
           (sent + bytes <= from || sent >= welcome->grad_at + bytes);
}

static uint64_t slot_needs(const struct gapless_worker *w, uint64_t bytes)
{
    const struct wire_welcome *welcome = &w->client.welcome;

    return bytes + (welcome->reported_at == 0 && welcome->sent_at > welcome->grad_at
                        ? welcome->sent_at
                        : welcome->grad_at);
}

/* Where memory is not mapped: what is asked for, and when. */
static int own_lists(struct gapless_worker *w, struct gapless_error *error)
{
    uint32_t ranges = w->client.welcome.ranges;

    w->reported_from = reported_from(&w->client.welcome);
    if (w->client.transport->mapped)
        return GAPLESS_OK;
    w->ready = 0;
    w->listed = calloc(ranges, sizeof *w->listed);
    w->begun = calloc(ranges, sizeof *w->begun);
    if (w->listed == NULL || w->begun == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for the lists of %u ranges", ranges);
    return GAPLESS_OK;
}

/* The blocks of each range, in order and within it. */
static bool blocks_make_sense(const struct shared_stats *b)
{
    const uint32_t *first = shared_stats_blocks(b), *ends = first + b->ranges + 1;
    const uint64_t *starts = shared_stats_starts(b);
    uint32_t r, i;

    if (b->blocks > UINT32_MAX || b->blocks_at % sizeof *first != 0 ||
        b->blocks_at > b->bytes ||
        (b->bytes - b->blocks_at) / sizeof *first < b->ranges + 1ull + b->blocks ||
        first[0] != 0 || first[b->ranges] != b->blocks)
        return false;
    for (r = 0; r < b->ranges; r++) {
        if (first[r] > first[r + 1] || first[r + 1] > b->blocks)
            return false;
        for (i = first[r]; i < first[r + 1]; i++)
            if (ends[i] > starts[r + 1] - starts[r] ||
                (i > first[r] && ends[i] < ends[i - 1]))
                return false;
    }
    return true;
}

/* RULE_PUBLISHED: the look-ahead that all workers read. */
static int map_published(struct gapless_worker *w, uint64_t bytes,
                         struct gapless_error *error)
{
    const struct wire_welcome *welcome = &w->client.welcome;
    uint64_t first = welcome->sent_at, second = welcome->second_at;
    char *base;
    int status;

    if (first % 64 != 0 || second % 64 != 0 || second > UINT64_MAX / 4 ||
        first > UINT64_MAX / 4 || second < first + bytes ||
        !blocks_make_sense(w->client.shared_stats))
        return gapless_error_set(error, GAPLESS_PROTOCOL, 0,
                                 "what the master at %s publishes makes no sense",
                                 w->client.address);
    status = client_window(&w->client, WIRE_PUBLISHED, (size_t)(second + bytes),
                           &w->published, error);
    if (status != GAPLESS_OK)
        return status;
    base = w->published.base;
    w->place[0] = (const float *)(const void *)(base + first);
    w->place[1] = (const float *)(const void *)(base + second);
    w->reported = (uint64_t *)(void *)((char *)w->slot.base + welcome->reported_at);
    w->dots = (double *)(void *)(w->reported + w->client.shared_stats->ranges);
    return GAPLESS_OK;
}

/* Where the slot is, once it is known to make sense. */
static int map_slot(struct gapless_worker *w, struct gapless_error *error)
{
    const struct wire_welcome *welcome = &w->client.welcome;
    char *base;
    int status = client_window(&w->client, WIRE_SLOT,
                               (size_t)slot_needs(w, w->padded * sizeof(float)),
                               &w->slot, error);

    if (status != GAPLESS_OK)
        return status;
    base = w->slot.base;
    w->head = (const struct slot_head *)(const void *)base;
    w->push = (struct slot_push *)(void *)(base + welcome->push_at);
    w->grad = (float *)(void *)(base + welcome->grad_at);
    if (welcome->reported_at == 0)
        w->given = (const float *)(const void *)(base + welcome->sent_at);
    return GAPLESS_OK;
}

int worker_map_slot(struct gapless_worker *w, struct gapless_error *error)
{
    bool reads = w->params == w->given;
    int status;

    w->client.transport->region_free(w->client.tp, &w->slot);
    status = map_slot(w, error);
    if (status == GAPLESS_OK && reads)
        w->params = w->given;
    return status;
}

int worker_map(struct gapless_worker *w, struct gapless_error *error)
{
    uint64_t bytes;
    int status = client_shared_stats(&w->client, error);

    if (status != GAPLESS_OK)
        return status;
    w->starts = shared_stats_starts(w->client.shared_stats);
    w->padded = (size_t)w->starts[w->client.shared_stats->ranges];
    bytes = w->padded * sizeof(float);
    if (!slot_makes_sense(w, bytes))
        return gapless_error_set(error, GAPLESS_PROTOCOL, 0,
                                 "the slot layout of the master at %s makes no sense",
                                 w->client.address);
    status = map_slot(w, error);
    if (status == GAPLESS_OK && w->client.welcome.reported_at != 0)
        status = map_published(w, bytes, error);
    if (status == GAPLESS_OK)
        status = own_lists(w, error);
    return status == GAPLESS_OK ? own_memory(w, error) : status;
}
