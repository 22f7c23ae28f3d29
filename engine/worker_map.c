/* A worker's memory: where everything is in what the master grants, and what the worker
 * keeps itself. What comes from the master is checked before it is used. */
#include "worker.h"

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
    bool copies = w->told != NULL;
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
            "no memory for what worker %u keeps itself, vectors of %llu MiB",
            welcome->number, (unsigned long long)(w->padded * sizeof(float)) >> 20);
    w->params = elastic ? w->own : copies ? w->copy : w->given;
    w->fresh = elastic;
    return GAPLESS_OK;
}

/* The offsets come from the master and are checked. */
static bool slot_makes_sense(const struct gapless_worker *w, uint64_t bytes)
{
    const struct wire_welcome *welcome = &w->client.welcome;
    const struct board *b = w->client.board;
    uint64_t at = welcome->told_at == 0 ? welcome->sent_at : welcome->told_at;
    uint64_t at_grad = welcome->grad_at;

    if (welcome->told_at != 0)
        bytes = (b->ranges + b->blocks) * sizeof(uint64_t);
    return at % 64 == 0 && at_grad % 64 == 0 &&
           at >= SLOT_PUSH_AT + sizeof(struct slot_push) && at <= UINT64_MAX / 4 &&
           at_grad <= UINT64_MAX / 4 && at_grad >= at + bytes;
}

/* The blocks of each range, in order and within it. */
static bool blocks_make_sense(const struct board *b)
{
    const uint32_t *first = board_blocks(b), *ends = first + b->ranges + 1;
    const uint64_t *starts = board_starts(b);
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

    if (!w->client.transport->mapped)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "the rule of the master at %s needs a transport that "
                                 "maps memory, as shm does",
                                 w->client.address);
    if (first % 64 != 0 || second % 64 != 0 || second > UINT64_MAX / 4 ||
        first > UINT64_MAX / 4 || second < first + bytes ||
        !blocks_make_sense(w->client.board))
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
    w->told = (uint64_t *)(void *)((char *)w->slot.base + welcome->told_at);
    w->dots = (double *)(void *)(w->told + w->client.board->ranges);
    return GAPLESS_OK;
}

int worker_map(struct gapless_worker *w, struct gapless_error *error)
{
    const struct wire_welcome *welcome = &w->client.welcome;
    uint64_t bytes;
    char *base;
    int status = client_board(&w->client, error);

    if (status != GAPLESS_OK)
        return status;
    w->starts = board_starts(w->client.board);
    w->padded = (size_t)w->starts[w->client.board->ranges];
    bytes = w->padded * sizeof(float);
    if (!slot_makes_sense(w, bytes))
        return gapless_error_set(error, GAPLESS_PROTOCOL, 0,
                                 "the slot layout of the master at %s makes no sense",
                                 w->client.address);
    status = client_window(&w->client, WIRE_SLOT, (size_t)(welcome->grad_at + bytes),
                           &w->slot, error);
    if (status == GAPLESS_OK && welcome->told_at != 0)
        status = map_published(w, bytes, error);
    if (status != GAPLESS_OK)
        return status;
    base = w->slot.base;
    w->head = (const struct slot_head *)(const void *)base;
    w->push = (struct slot_push *)(void *)(base + SLOT_PUSH_AT);
    w->grad = (float *)(void *)(base + welcome->grad_at);
    if (w->told == NULL)
        w->given = (const float *)(const void *)(base + welcome->sent_at);
    return own_memory(w, error);
}
