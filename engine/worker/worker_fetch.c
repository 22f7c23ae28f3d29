/* A worker's memory, and how it gets what it computes at.
 *
 * What the master grants is checked before it is used: the offsets, the blocks.
 *
 * Where memory is mapped the look-ahead is in the slot once the master has said READY.
 * Elsewhere each range is asked for as soon as its READY is there, while later ranges of
 * the gradient are still on their way out and the master is at those between:
 *
 *   put    0 1 2 3                 a range is on the wire out,
 *   pass     0 1 2 3               in the master's hands,
 *   get        0 1 2 3 head        and on the wire back
 */
#include "engine/worker/worker.h"

#include "engine/base/array.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>

/* ---- memory -------------------------------------------------------------- */

static float *zeros(const struct gapless_worker *w)
{
    return array_zeroed(ARRAY_LINE, w->padded * sizeof(float));
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
    if (status == GAPLESS_OK)
        status = parts_open(w, error);
    return status == GAPLESS_OK ? own_memory(w, error) : status;
}

/* ---- fetching ------------------------------------------------------------ */

void fetch_note(struct gapless_worker *w, uint32_t note)
{
    uint32_t range = NOTE_RANGE(note);

    if (NOTE_WHAT(note) == NOTE_OVER)
        w->over = true;
    if (NOTE_WHAT(note) != NOTE_READY)
        return;
    if (range == NOTE_ALL_RANGES)
        w->all_ready = true;
    else if (w->listed == NULL)
        w->ready++;
    else if (range < w->client.welcome.ranges && w->ready < w->client.welcome.ranges)
        w->listed[w->ready++] = range;
}

bool fetch_wanted(const struct gapless_worker *w)
{
    return w->given != NULL && (w->own == NULL || w->fresh || w->exchanged);
}

/* All ranges at once are all of them, one by one: so they go over all lanes there
 * are. */
static void list_all(struct gapless_worker *w)
{
    uint32_t ranges = w->client.welcome.ranges;

    for (w->ready = 0; w->ready < ranges; w->ready++)
        w->listed[w->ready] = w->ready;
    w->all_ready = false;
    w->asked = 0;
}

static int ask_range(struct gapless_worker *w, uint32_t range,
                     struct gapless_error *error)
{
    size_t from = (size_t)w->starts[range], to = (size_t)w->starts[range + 1];

    if (!fetch_wanted(w))
        return GAPLESS_OK;
    return client_get(&w->client, &w->slot,
                      (size_t)w->client.welcome.sent_at + from * sizeof(float),
                      (to - from) * sizeof(float), error);
}

int fetch_ahead(struct gapless_worker *w, struct gapless_error *error)
{
    int status = GAPLESS_OK;

    if (w->listed == NULL || w->over)
        return GAPLESS_OK;
    if (w->all_ready)
        list_all(w);
    while (status == GAPLESS_OK && w->asked < w->ready) {
        status = ask_range(w, w->listed[w->asked], error);
        w->asked += status == GAPLESS_OK ? 1 : 0;
    }
    /* The master has written the head before it said READY for the last time. */
    if (status == GAPLESS_OK && w->asked == w->client.welcome.ranges &&
        !w->asked_head) {
        status = client_get(&w->client, &w->slot, 0, sizeof *w->head, error);
        w->asked_head = status == GAPLESS_OK;
    }
    return status == GAPLESS_AGAIN ? GAPLESS_OK : status; /* later */
}

bool fetch_done(const struct gapless_worker *w)
{
    if (w->over)
        return true;
    if (w->listed == NULL)
        return w->all_ready || w->ready >= w->client.welcome.ranges;
    return w->asked_head && w->client.open == 0;
}

int fetch_mapped(struct gapless_worker *w, struct gapless_error *error)
{
    int status = GAPLESS_OK;

    if (w->listed != NULL)
        return GAPLESS_OK;
    if (fetch_wanted(w))
        status = client_get(&w->client, &w->slot, (size_t)w->client.welcome.sent_at,
                            w->padded * sizeof(float), error);
    if (status == GAPLESS_OK)
        status = client_get(&w->client, &w->slot, 0, sizeof *w->head, error);
    return status;
}

void fetch_again(struct gapless_worker *w)
{
    w->all_ready = w->asked_head = false;
    w->ready = w->asked = 0;
}

/* ---- what is published for all (RULE_PUBLISHED) -------------------------- */

static int lapped(const struct gapless_worker *w, struct gapless_error *error)
{
    return gapless_error_set(
        error, GAPLESS_TORN, 0,
        "the master at %s changed its parameters twice during every read "
        "of " WORKER_NAME " for %.1f s: smaller ranges help",
        w->client.address, w->client.welcome.number, 1e-9 * (double)w->wait_ns);
}

static void take_copy(struct gapless_worker *w, uint32_t r, uint64_t version)
{
    size_t from = (size_t)w->starts[r], n = (size_t)w->starts[r + 1] - from;

    memcpy(w->copy + from, w->place[version % 2] + from, n * sizeof(float));
    w->reported[r] = version;
}

/* A range, whole, from memory that is mapped. The master writes the next version in the
 * other place, so only one that is two versions on spoils the copy. */
static int copy_range(struct gapless_worker *w, uint32_t r, uint64_t deadline_ns,
                      struct gapless_error *error)
{
    const struct seq_word *word = &shared_stats_versions(w->client.shared_stats)[r];

    for (;;) {
        uint64_t begin = seq_read_begin(word);

        take_copy(w, r, begin / 2);
        if (!seq_read_lapped(word, begin))
            return GAPLESS_OK;
        if (w->client.transport->now_ns(w->client.tp) >= deadline_ns)
            return lapped(w, error);
        (void)sched_yield();
    }
}

static int copy_mapped(struct gapless_worker *w, uint64_t deadline_ns,
                       struct gapless_error *error)
{
    int status = GAPLESS_OK;
    uint32_t r;

    for (r = 0; status == GAPLESS_OK && r < w->client.welcome.ranges; r++)
        status = copy_range(w, r, deadline_ns, error);
    return status;
}

/* Brings the places of the ranges listed, each at the version that its word says. */
static int bring_places(struct gapless_worker *w, uint32_t count, uint64_t deadline_ns,
                        struct gapless_error *error)
{
    const struct seq_word *words = shared_stats_versions(w->client.shared_stats);
    const char *base = w->published.base;
    int status = GAPLESS_OK;
    uint32_t i;

    for (i = 0; status == GAPLESS_OK && i < count; i++) {
        uint32_t r = w->listed[i];
        const float *from, *to;

        w->begun[r] = seq_read_begin(&words[r]);
        from = w->place[w->begun[r] / 2 % 2] + w->starts[r];
        to = from + (w->starts[r + 1] - w->starts[r]);
        status = client_fetch(
            &w->client, &w->published, (size_t)((const char *)from - base),
            (size_t)((const char *)to - (const char *)from), deadline_ns, error);
    }
    return status == GAPLESS_OK ? client_drain(&w->client, deadline_ns, error) : status;
}

/* Takes what is whole by the words that were read after it; returns how many ranges are
 * not, and lists them. */
static uint32_t take_whole(struct gapless_worker *w, uint32_t count)
{
    const struct seq_word *words = shared_stats_versions(w->client.shared_stats);
    uint32_t left = 0, i;

    for (i = 0; i < count; i++) {
        uint32_t r = w->listed[i];

        if (seq_read_lapped(&words[r], w->begun[r]))
            w->listed[left++] = r;
        else
            take_copy(w, r, w->begun[r] / 2);
    }
    return left;
}

/* Over a network: the words, then the ranges, then the words again, each waiting for
 * the one before; and once more for ranges that were lapped meanwhile. */
static int copy_apart(struct gapless_worker *w, uint64_t deadline_ns,
                      struct gapless_error *error)
{
    uint32_t left;
    int status;

    list_all(w);
    left = w->ready;
    status = client_versions(&w->client, deadline_ns, error);
    while (status == GAPLESS_OK && left > 0) {
        if (w->client.transport->now_ns(w->client.tp) >= deadline_ns)
            return lapped(w, error);
        status = bring_places(w, left, deadline_ns, error);
        if (status == GAPLESS_OK)
            status = client_versions(&w->client, deadline_ns, error);
        if (status == GAPLESS_OK)
            left = take_whole(w, left);
    }
    return status;
}

int fetch_published(struct gapless_worker *w, uint64_t deadline_ns,
                    struct gapless_error *error)
{
    if (w->copy == NULL)
        return GAPLESS_OK;
    return w->listed == NULL ? copy_mapped(w, deadline_ns, error)
                             : copy_apart(w, deadline_ns, error);
}
