/* A gradient that is handed in piece by piece, while the rest of it is still computed.
 *
 *   elements handed in   ........|#########|....|#######
 *   ranges               |   0   |   1   |   2   |  3  |
 *   put at once                  |---1---|       |--3--|
 *   put by the push      |---0---|       |---2---|
 *
 * Range 0 always waits for the push: its put brings struct slot_push, which has the loss. The
 * factor on the rate, which the master takes over with the first note, is put before that.
 */
#include "engine/worker/worker.h"

#include "engine/base/process.h"
#include "engine/base/array.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- which elements ------------------------------------------------------ */

/* The first stretch that ends at `from` or behind it. */
static uint32_t stretch_at(const struct worker_early *e, uint64_t from)
{
    uint32_t first = 0, end = e->count;

    while (first < end) {
        uint32_t middle = first + (end - first) / 2;

        if (e->handed[middle].end < from)
            first = middle + 1;
        else
            end = middle;
    }
    return first;
}

static int handed_before(uint64_t from, uint64_t end, struct gapless_error *error)
{
    return gapless_error_set(error, GAPLESS_INVALID, 0,
                             "elements %llu to %llu of this gradient, or some of them, "
                             "were handed in before: "
                             "each may be once between a pull and its push",
                             (unsigned long long)from, (unsigned long long)(end - 1));
}

/* Notes that [from, end) is handed in. *ret: the stretch that it is part of now. */
static int hand_in(struct worker_early *e, uint64_t from, uint64_t end,
                   struct worker_stretch *ret, struct gapless_error *error)
{
    uint32_t at = stretch_at(e, from), last;
    struct worker_stretch joined = {from, end}, *room;

    if (at < e->count && e->handed[at].end == from)
        joined.from = e->handed[at++].from;
    if (at < e->count && e->handed[at].from < end)
        return handed_before(from, end, error);
    last = at;
    if (at < e->count && e->handed[at].from == end)
        joined.end = e->handed[last++].end;
    if (joined.from < from)
        at--;
    room = array_room(e->handed, &e->room, (size_t)e->count + 1, sizeof *room);
    if (room == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory to note which elements are handed in");
    e->handed = room;
    memmove(room + at + 1, room + last, (e->count - last) * sizeof *room);
    room[at] = joined;
    e->count = e->count + 1 - (last - at);
    *ret = joined;
    return GAPLESS_OK;
}

/* ---- one range ----------------------------------------------------------- */

static uint64_t end_of(const struct gapless_worker *w, uint32_t range)
{
    uint64_t end = w->starts[range + 1], count = w->client.welcome.count;

    return end < count ? end : count; /* the last one is padded */
}

/* Decay, and the sum of squares. False: it is not finite. */
static bool prepare_range(struct gapless_worker *w, uint32_t range)
{
    size_t from = (size_t)w->starts[range], n = (size_t)w->starts[range + 1] - from;
    struct part_pass decay = {.kind = PART_DECAY, .from = from, .end = from + n};
    double sum;

    if (w->buffers.kind == BUFFERS_HOST)
        memcpy(w->grad + from, w->buffers.grad + from,
               (size_t)(end_of(w, range) - from) * sizeof(float));
    sum = w->compute->norm_sq(w->grad + from, n);
    if (!isfinite(sum))
        return false;
    if (w->parts != NULL)
        (void)parts_pass(w, &decay, NULL);
    if (w->parts == NULL && w->client.welcome.weight_decay > 0)
        sum = w->compute->decay(w->grad + from, w->params + from,
                                (float)w->client.welcome.weight_decay, n);
    if (w->parts != NULL)
        sum = decay.sum; /* averages have no part in the norm */
    w->early.sum += sum;
    return isfinite(sum);
}

/* What the master takes over with the first note. */
static int announce(struct gapless_worker *w, struct gapless_error *error)
{
    bool known = w->client.transport->mapped ||
                 (w->push->rate >= w->factor && w->push->rate <= w->factor);

    w->push->rate = w->factor;
    if (known)
        return GAPLESS_OK;
    return worker_put(w, w->client.welcome.push_at, sizeof *w->push,
                      NOTE(NOTE_WARMUP, 0), error);
}

static int put_range(struct gapless_worker *w, uint32_t range,
                     struct gapless_error *error)
{
    uint64_t base = w->client.welcome.grad_at;
    uint64_t from = range == 0 && !w->client.transport->mapped
                        ? w->reported_from
                        : base + w->starts[range] * sizeof(float);
    int status;

    status = worker_put(w, from, base + w->starts[range + 1] * sizeof(float) - from,
                        NOTE(NOTE_PUSH, range), error);
    if (status == GAPLESS_OK) {
        w->early.put[range] = true;
        w->early.puts++;
    }
    return status;
}

/* Where none is put yet, one that is not finite keeps all of the gradient here: the push will
 * report it. Later it is put as it is, and the master drops it. */
static int send_early(struct gapless_worker *w, uint32_t range,
                      struct gapless_error *error)
{
    int status = GAPLESS_OK;

    if (w->early.puts == 0 && w->early.bad)
        return GAPLESS_OK;
    if (!prepare_range(w, range)) {
        w->early.bad = true;
        if (w->early.puts == 0)
            return GAPLESS_OK;
    }
    if (w->early.puts == 0)
        status = announce(w, error);
    return status == GAPLESS_OK ? put_range(w, range, error) : status;
}

/* ---- what a user calls --------------------------------------------------- */

static int needs_all(const struct gapless_worker *w, struct gapless_error *error)
{
    const struct wire_welcome *welcome = &w->client.welcome;
    const char *why = NULL;

    if (welcome->whole != 0)
        why = "its rule applies a gradient as a whole";
    else if (welcome->clip_norm > 0)
        why = "clipping (clip_norm) needs the norm of all of it";
    else if (welcome->slim != 0 || w->own != NULL || w->copy != NULL)
        why = "under its rule the worker needs all of it";
    else if (w->buffers.ops != NULL)
        why = "it is on a GPU, where this version pushes all at once";
    if (why == NULL)
        return GAPLESS_OK;
    return gapless_error_set(error, GAPLESS_UNSUPPORTED, 0,
                             "the master at %s takes no gradient piece by piece: %s; "
                             "hand it in with one push",
                             w->client.address, why);
}

static int begin(struct gapless_worker *w, struct gapless_error *error)
{
    if (w->early.put == NULL)
        w->early.put = calloc(w->client.welcome.ranges, sizeof *w->early.put);
    if (w->early.put == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for the list of %u ranges",
                                 w->client.welcome.ranges);
    return GAPLESS_OK;
}

/* The range that an element is of. */
static uint32_t range_of(const struct gapless_worker *w, uint64_t element)
{
    uint32_t first = 0, end = w->client.welcome.ranges;

    while (end - first > 1) {
        uint32_t middle = first + (end - first) / 2;

        if (w->starts[middle] <= element)
            first = middle;
        else
            end = middle;
    }
    return first;
}

int gapless_worker_push_range(struct gapless_worker *w, uint64_t from, uint64_t count,
                              struct gapless_error *error)
{
    uint64_t all = w->client.welcome.count;
    struct worker_stretch whole = {0};
    int status = process_check(w->client.owner, "this worker", error);

    if (status == GAPLESS_OK)
        status = needs_all(w, error);
    if (status != GAPLESS_OK || count == 0)
        return status;
    if (!w->has_params)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "push_range without a pull before it");
    if (from > all || count > all - from)
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "push_range of %llu elements from %llu on: there are %llu",
            (unsigned long long)count, (unsigned long long)from,
            (unsigned long long)all);
    status = begin(w, error);
    if (status == GAPLESS_OK)
        status = hand_in(&w->early, from, from + count, &whole, error);
    if (status != GAPLESS_OK)
        return status;
    for (uint32_t r = range_of(w, from);
         status == GAPLESS_OK && r < w->client.welcome.ranges &&
         w->starts[r] < from + count;
         r++)
        if (r > 0 && w->starts[r] >= whole.from && end_of(w, r) <= whole.end)
            status = send_early(w, r, error);
    return status;
}

/* ---- its end, for worker.c ----------------------------------------------- */

void early_again(struct gapless_worker *w)
{
    struct worker_early *e = &w->early;

    if (e->puts > 0)
        memset(e->put, 0, w->client.welcome.ranges * sizeof *e->put);
    e->count = e->puts = 0;
    e->sum = 0;
    e->bad = false;
}

int early_finish(struct gapless_worker *w, double loss, struct gapless_error *error)
{
    int status = GAPLESS_OK;
    uint32_t r;

    for (r = 0; r < w->client.welcome.ranges; r++)
        if (!w->early.put[r] && !prepare_range(w, r))
            w->early.bad = true;
    w->push->loss = loss;
    w->push->norm = sqrt(w->early.sum);
    for (r = 0; status == GAPLESS_OK && r < w->client.welcome.ranges; r++)
        if (!w->early.put[r])
            status = put_range(w, r, error);
    if (status != GAPLESS_OK || !w->early.bad)
        return status;
    return gapless_error_set(
        error, GAPLESS_NOT_FINITE, 0,
        WORKER_NAME
        ": the gradient of batch %llu is not finite; ranges that were pushed "
        "before that was known are applied, others dropped; the run goes on",
        w->client.welcome.number, (unsigned long long)w->batch);
}

void early_close(struct gapless_worker *w)
{
    free(w->early.put);
    free(w->early.handed);
}
