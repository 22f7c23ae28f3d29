/* The verbs transport: grants, what peers may do with regions, and windows.
 *
 *   server region    per peer and channel a memory window of type 2 for each half of each
 *                      part, which only its queue pair can use; without windows a
 *                      registration in the channel's own domain. So the queue pair of a
 *                      stranger, which is there before the handshake, has no key to use.
 *   client window    local memory of the same size; no other peer can reach it
 *
 * What a peer was given ends with it: the key is gone before the slot is used again, so
 * that a WRITE that comes late finds nothing.
 */
#include "transport/verbs/verbs.h"

#include "engine/base/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- keys ---------------------------------------------------------------- */

static void key_end(struct tp *tp, struct verbs_key *key)
{
    if (key->mw != NULL)
        (void)ibv_dealloc_mw(key->mw);
    if (key->mr != NULL && ibv_dereg_mr(key->mr) == 0)
        tp->counters.regions--;
    *key = (struct verbs_key){0};
}

void verbs_region_keys_end(struct tp *tp, uint32_t region)
{
    uint32_t i, w, k;

    for (i = 0; tp->role == VERBS_SERVER && i < tp->channels_max; i++) {
        struct verbs_channel *channel = tp->channels[i];

        if (channel == NULL || channel->grant == NULL)
            continue;
        for (w = 0; w < tp->config.windows_max; w++)
            for (k = 0;
                 channel->grant[w].key != NULL && k < 2 * channel->grant[w].parts; k++)
                if (channel->grant[w].key[k].region == region)
                    key_end(tp, &channel->grant[w].key[k]);
        for (k = 0; k < channel->retired_count; k++)
            if (channel->retired[k].region == region)
                key_end(tp, &channel->retired[k]);
    }
}

/* The keys of a window that is granted anew. Their binds, or a WRITE of the peer, may
 * still be under way, and would break the connection: they end with the channel. */
static int keys_retire(struct verbs_channel *channel, struct verbs_grant *grant,
                       struct gapless_error *error)
{
    uint32_t count = grant->key != NULL ? 2 * grant->parts : 0, k;
    struct verbs_key *more;

    if (count > 0) {
        more =
            realloc(channel->retired, (channel->retired_count + count) * sizeof *more);
        if (more == NULL)
            return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                     "no memory for a grant");
        channel->retired = more;
    }
    for (k = 0; k < count; k++)
        if (grant->key[k].mw != NULL || grant->key[k].mr != NULL)
            channel->retired[channel->retired_count++] = grant->key[k];
    free(grant->key);
    grant->key = NULL;
    grant->parts = 0;
    return GAPLESS_OK;
}

void verbs_grants_end(struct verbs_channel *channel)
{
    uint32_t i, k;

    while (channel->retired_count > 0)
        key_end(channel->tp, &channel->retired[--channel->retired_count]);
    free(channel->retired);
    channel->retired = NULL;
    for (i = 0; channel->grant != NULL && i < channel->tp->config.windows_max; i++) {
        struct verbs_grant *grant = &channel->grant[i];

        for (k = 0; grant->key != NULL && k < 2 * grant->parts; k++)
            key_end(channel->tp, &grant->key[k]);
        free(grant->key);
        free(grant->remote);
        free(grant->coming);
        *grant = (struct verbs_grant){0};
    }
}

/* ---- grants, at the server ----------------------------------------------- */

/* Of a grant to a channel: a part, cut where reading ends and writing begins. */
struct piece {
    struct verbs_channel *channel;
    uint32_t region; /* id */
    struct verbs_part *part;
    size_t from, middle, to;
};

/* Registered for windows: each half by itself, since a device may hold a window to the
 * bounds of its registration only (the soft ones do). What was placed is registered
 * already; that will do unless it has both halves. */
static int halves_register(const struct piece *p, struct gapless_error *error)
{
    const size_t cut[] = {p->from, p->middle, p->to};
    uint32_t nic = p->channel->nic_at, h;

    if (p->part->placed && (p->middle == p->from || p->middle == p->to))
        return GAPLESS_OK;
    for (h = 0; h < 2; h++) {
        struct ibv_mr **mr = &p->part->half[h][nic];

        if (cut[h] == cut[h + 1] || *mr != NULL)
            continue;
        *mr = verbs_part_register(p->channel->tp, p->channel->nic->pd, p->part, cut[h],
                                  cut[h + 1] - cut[h],
                                  IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_MW_BIND, error);
        if (*mr == NULL)
            return GAPLESS_NO_MEMORY;
    }
    return GAPLESS_OK;
}

/* The right to `access` one half, for one channel. *ret_key is 0 if it is empty. */
static int key_make(const struct piece *p, uint32_t half, unsigned access,
                    struct verbs_key *ret, uint32_t *ret_key,
                    struct gapless_error *error)
{
    struct verbs_channel *channel = p->channel;
    size_t from = half == 0 ? p->from : p->middle, to = half == 0 ? p->middle : p->to;
    struct ibv_mr *within = p->part->half[half][channel->nic_at];
    int status;

    if (from == to)
        return GAPLESS_OK;
    ret->region = p->region;
    if (!channel->windows) {
        if (access & IBV_ACCESS_REMOTE_WRITE)
            access |= IBV_ACCESS_LOCAL_WRITE;
        ret->mr = verbs_part_register(channel->tp, channel->pd, p->part, from,
                                      to - from, access, error);
        if (ret->mr == NULL)
            return GAPLESS_NO_MEMORY;
        *ret_key = ret->mr->rkey;
        return GAPLESS_OK;
    }
    errno = 0;
    ret->mw = ibv_alloc_mw(channel->nic->pd, IBV_MW_TYPE_2);
    if (ret->mw == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, errno,
                                 "no memory window for %s", channel->name);
    status = verbs_bind(channel, ret->mw,
                        within != NULL ? within : p->part->whole[channel->nic_at],
                        p->part->at + (from - p->part->offset), to - from, access);
    *ret_key = ret->mw->rkey;
    return status == GAPLESS_OK
               ? GAPLESS_OK
               : gapless_error_set(error, status, 0,
                                   "a memory window for %s cannot be bound",
                                   channel->name);
}

/* What a card of the caller's is to reach must be registered with it, and windows
 * cannot be bound there. */
static int placed_ready(const struct piece *p, struct gapless_error *error)
{
    if (!p->part->placed)
        return GAPLESS_OK;
    if (p->part->card && p->channel->windows)
        return gapless_error_set(error, GAPLESS_UNSUPPORTED, 0,
                                 "%s connected before memory of a GPU was placed, and "
                                 "has memory windows, which cannot be had in it: place "
                                 "it before anybody connects",
                                 p->channel->name);
    return verbs_part_whole(p->channel->tp, p->part, p->channel->nic_at, error);
}

static int part_grant(const struct piece *p, enum tp_access access,
                      struct verbs_key *key, struct verbs_offer_part *ret,
                      struct gapless_error *error)
{
    unsigned above = IBV_ACCESS_REMOTE_WRITE;
    int status = placed_ready(p, error);

    if (status != GAPLESS_OK)
        return status;
    *ret = (struct verbs_offer_part){.bytes = p->part->bytes,
                                     .address = (uint64_t)(uintptr_t)p->part->at};
    if (access == TP_READ_WRITE)
        above |= IBV_ACCESS_REMOTE_READ;
    if (p->channel->windows)
        status = halves_register(p, error);
    if (status == GAPLESS_OK)
        status = key_make(p, 0, IBV_ACCESS_REMOTE_READ, &key[0], &ret->read_key, error);
    if (status == GAPLESS_OK)
        status = key_make(p, 1, above, &key[1], &ret->write_key, error);
    if (access == TP_READ_WRITE)
        ret->read_key = ret->write_key;
    return status;
}

/* The offer, in as many frames as its parts need. */
static int offer_send(struct verbs_channel *channel, const struct verbs_offer *head,
                      const struct verbs_offer_part *part, struct gapless_error *error)
{
    struct verbs_frame frame = {.kind = VERBS_GRANT};
    struct verbs_offer *offer = &frame.as.offer;
    uint32_t at = 0, count;

    for (; at < head->parts; at += count) {
        count =
            head->parts - at < VERBS_OFFER_PARTS ? head->parts - at : VERBS_OFFER_PARTS;
        *offer = *head;
        offer->first = (uint8_t)at;
        offer->count = (uint8_t)count;
        memcpy(offer->part, part + at, count * sizeof *part);
        frame.bytes = (uint16_t)VERBS_OFFER_BYTES(count);
        if (verbs_frame_send(channel, &frame, true) != GAPLESS_OK)
            return gapless_error_set(error, GAPLESS_PEER_LOST, 0,
                                     "%s does not read its control messages and was "
                                     "disconnected",
                                     channel->name);
    }
    return GAPLESS_OK;
}

static int grant_channel(struct verbs_channel *channel, struct verbs_region *region,
                         uint32_t window, size_t split, struct gapless_error *error)
{
    struct verbs_grant *grant = &channel->grant[window];
    struct verbs_offer_part part[VERBS_PARTS] = {{0}};
    struct verbs_offer head = {.window = window,
                               .access = (uint8_t)region->access,
                               .parts = (uint8_t)region->parts,
                               .bytes = region->bytes,
                               .split = split};
    size_t low = region->access == TP_READ    ? region->bytes
                 : region->access == TP_SPLIT ? split
                                              : 0;
    int status = keys_retire(channel, grant, error);
    uint32_t i;

    if (status != GAPLESS_OK)
        return status;
    grant->key = calloc((size_t)2 * region->parts, sizeof *grant->key);
    if (grant->key == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for a grant");
    grant->parts = region->parts;
    for (i = 0; status == GAPLESS_OK && i < region->parts; i++) {
        struct verbs_part *it = &region->part[i];
        size_t end = it->offset + it->bytes;
        struct piece p = {.channel = channel,
                          .region = region->id,
                          .part = it,
                          .from = it->offset,
                          .middle = low < it->offset ? it->offset
                                    : low < end      ? low
                                                     : end,
                          .to = end};

        status =
            part_grant(&p, region->access, &grant->key[(size_t)2 * i], &part[i], error);
    }
    return status == GAPLESS_OK ? offer_send(channel, &head, part, error) : status;
}

int verbs_grant(struct tp *tp, tp_peer index, const struct tp_region *region,
                uint32_t window, enum tp_access access, struct gapless_error *error)
{
    struct verbs_region *entry = verbs_region_find(tp, region);
    struct verbs_peer *peer;
    struct gapless_error reason = {0};
    uint32_t i;
    int status = GAPLESS_OK;

    if (tp->role != VERBS_SERVER || entry == NULL)
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "only a server can grant, and only a region of its own");
    peer = verbs_peer_at(tp, index);
    if (window >= tp->config.windows_max ||
        (peer != NULL && window >= peer->windows_max))
        return gapless_error_set(
            error, GAPLESS_CAPACITY, 0, "window %u: peer %u was promised %u windows",
            window, index, peer != NULL ? peer->windows_max : tp->config.windows_max);
    if ((entry->granted && entry->access != access) ||
        (access == TP_SPLIT && region->split > region->bytes))
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "a region is granted with one access, within its bounds; this one was "
            "granted with another before");
    entry->granted = true;
    entry->access = access;
    if (peer == NULL)
        return gapless_error_set(error, GAPLESS_PEER_LOST, 0,
                                 "peer %u is not connected", index);
    for (i = 0; status == GAPLESS_OK && i < peer->channel_count; i++)
        status = grant_channel(peer->channel[i], entry, window, region->split, &reason);
    if (status == GAPLESS_PEER_LOST ||
        (status != GAPLESS_OK && (entry->part[0].placed || entry->parts > 1)))
        verbs_peer_end(peer, &reason);
    if (status != GAPLESS_OK && error != NULL)
        *error = reason;
    return status;
}

/* ---- offers, at the client ----------------------------------------------- */

/* The parts of a frame: one after the other, within the region. */
static bool parts_take(struct verbs_grant *grant, const struct verbs_offer *offer)
{
    uint64_t offset = 0;
    uint32_t i;

    if (grant->came > 0)
        offset = grant->coming[grant->came - 1].offset +
                 grant->coming[grant->came - 1].bytes;
    for (i = 0; i < offer->count; i++) {
        const struct verbs_offer_part *part = &offer->part[i];

        if (part->bytes == 0 || part->bytes > offer->bytes - offset ||
            part->address > UINT64_MAX - part->bytes)
            return false;
        grant->coming[grant->came++] =
            (struct verbs_remote){.offset = offset,
                                  .bytes = part->bytes,
                                  .address = part->address,
                                  .read_key = part->read_key,
                                  .write_key = part->write_key};
        offset += part->bytes;
    }
    return grant->came < offer->parts || offset == offer->bytes;
}

static bool overlap(const struct verbs_grant *grant)
{
    uint32_t i, k;

    for (i = 0; i < grant->came; i++)
        for (k = 0; k < i; k++) {
            const struct verbs_remote *a = &grant->coming[i], *b = &grant->coming[k];

            if (a->address < b->address + b->bytes &&
                b->address < a->address + a->bytes)
                return true;
        }
    return false;
}

/* The channels of a peer are granted the same. */
static bool differs(const struct verbs_channel *channel, uint32_t window)
{
    const struct verbs_grant *mine = &channel->grant[window];
    uint32_t i;

    for (i = 0; i < channel->peer->channel_count; i++) {
        const struct verbs_channel *other = channel->peer->channel[i];

        if (other != NULL && other->grant != NULL &&
            other->grant[window].serial == mine->serial &&
            (other->grant[window].bytes != mine->bytes ||
             other->grant[window].split != mine->split ||
             other->grant[window].access != mine->access))
            return true;
    }
    return false;
}

static bool offer_sane(const struct verbs_channel *channel,
                       const struct verbs_offer *offer, uint32_t bytes)
{
    return channel->tp->role == VERBS_CLIENT && channel->peer != NULL &&
           bytes >= VERBS_OFFER_BYTES(1) && bytes == VERBS_OFFER_BYTES(offer->count) &&
           offer->window < channel->tp->config.windows_max &&
           offer->access <= TP_SPLIT && offer->bytes > 0 &&
           offer->bytes <= PTRDIFF_MAX / 2 && offer->split <= offer->bytes &&
           offer->parts <= VERBS_PARTS && offer->first + offer->count <= offer->parts;
}

bool verbs_offer_take(struct verbs_channel *channel, const struct verbs_offer *offer,
                      uint32_t bytes, const char **ret_what)
{
    struct verbs_grant *grant;

    *ret_what = "granted what makes no sense";
    if (!offer_sane(channel, offer, bytes))
        return false;
    grant = &channel->grant[offer->window];
    if (grant->came == 0)
        grant->offer = *offer;
    if (offer->first != grant->came || offer->parts != grant->offer.parts ||
        offer->bytes != grant->offer.bytes || offer->split != grant->offer.split ||
        offer->access != grant->offer.access)
        return false;
    if (grant->coming == NULL)
        grant->coming = calloc(offer->parts, sizeof *grant->coming);
    *ret_what = "granted more parts than there is memory for";
    if (grant->coming == NULL)
        return false;
    *ret_what = "granted parts that do not make up their region";
    if (!parts_take(grant, offer))
        return false;
    if (grant->came < offer->parts)
        return true;
    *ret_what = "granted parts that overlap";
    if (overlap(grant))
        return false;
    free(grant->remote);
    grant->remote = grant->coming;
    grant->parts = grant->came;
    grant->coming = NULL;
    grant->came = 0;
    grant->serial = grant->serial == UINT32_MAX ? 1 : grant->serial + 1;
    grant->access = (enum tp_access)offer->access;
    grant->bytes = offer->bytes;
    grant->split = offer->split;
    *ret_what = "granted its channels different things";
    return !differs(channel, offer->window);
}

/* ---- windows, at the client ---------------------------------------------- */

/* Every channel has its own keys, and all of them must be there, of the same grant. */
static const struct verbs_grant *grant_whole(const struct verbs_peer *peer,
                                             uint32_t window)
{
    const struct verbs_grant *first = &peer->channel[0]->grant[window];
    uint32_t i;

    for (i = 0; i < peer->channel_count; i++)
        if (peer->channel[i]->grant == NULL ||
            peer->channel[i]->grant[window].serial != first->serial)
            return NULL;
    return first->serial == 0 ? NULL : first;
}

static int window_make(struct tp *tp, tp_peer index, uint32_t window,
                       const struct verbs_grant *grant, struct tp_region *ret,
                       struct gapless_error *error)
{
    struct verbs_peer *peer = &tp->peers[index];
    struct verbs_region *entry;
    struct tp_region region = {0};
    uint32_t i;
    int status = verbs_region_new(tp, (size_t)grant->bytes, &region, error);

    if (status != GAPLESS_OK)
        return status;
    entry = verbs_region_find(tp, &region);
    for (i = 0; status == GAPLESS_OK && i < peer->channel_count; i++)
        status = verbs_part_whole(tp, &entry->part[0], peer->channel[i]->nic_at, error);
    if (status != GAPLESS_OK) {
        verbs_region_free(tp, &region);
        return status;
    }
    entry->window = true;
    entry->peer = index;
    entry->life = peer->life;
    entry->number = window;
    entry->serial = grant->serial;
    entry->access = grant->access;
    entry->split = (size_t)grant->split;
    region.split = entry->split;
    *ret = region;
    return GAPLESS_OK;
}

int verbs_window(struct tp *tp, tp_peer index, uint32_t window, int64_t timeout_ns,
                 struct tp_region *ret, struct gapless_error *error)
{
    uint64_t bound = timeout_ns < 0 ? UINT64_C(1000000000) : (uint64_t)timeout_ns;
    uint64_t began = clock_ns();
    const struct verbs_grant *grant;
    struct verbs_peer *peer;

    if (tp->role != VERBS_CLIENT || window >= tp->config.windows_max)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "only a client has windows, with numbers below %u",
                                 tp->config.windows_max);
    for (;;) {
        peer = verbs_peer_at(tp, index);
        if (peer == NULL)
            return gapless_error_set(error, GAPLESS_PEER_LOST, 0, "%s",
                                     index < tp->config.peers_max &&
                                             tp->peers[index].reason.text[0] != '\0'
                                         ? tp->peers[index].reason.text
                                         : "the peer is not connected");
        grant = grant_whole(peer, window);
        if (grant != NULL)
            return window_make(tp, index, window, grant, ret, error);
        if (clock_ns() - began >= bound)
            return gapless_error_set(
                error, GAPLESS_TIMEOUT, 0, "%s did not grant window %u within %.3f s",
                peer->channel[0]->name, window, 1e-9 * (double)bound);
        verbs_pause(tp, UINT64_C(10000000));
    }
}
