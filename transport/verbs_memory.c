/* The verbs transport: memory. Regions, what peers may do with them, windows.
 *
 *   server region ── mr per device (local; windows are bound in it)
 *        TP_READ: one more registration, for reading, that all peers share
 *        TP_SPLIT, TP_READ_WRITE: per peer and lane a memory window of type 2 for each
 *          half, which only its queue pair can use; without windows a registration
 *   client window ── local memory of the same size; nobody else can reach it
 *
 * What a peer was given ends with it: the key is gone before the slot is used again, so
 * that a WRITE that comes late finds nothing.
 */
#include "transport/verbs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PAGE 4096u
#define HUGE_PAGE (2u << 20)

/* ---- regions -------------------------------------------------------------------- */

/* Memory of huge pages if there are any reserved, else of transparent ones. */
static void *memory_take(size_t bytes, size_t *ret_mapped)
{
    size_t huge = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    void *base = MAP_FAILED;

    if (bytes >= HUGE_PAGE)
        base = mmap(NULL, huge, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    if (base != MAP_FAILED) {
        *ret_mapped = huge;
        return base;
    }
    *ret_mapped = (bytes + PAGE - 1) / PAGE * PAGE;
    base = mmap(NULL, *ret_mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                -1, 0);
    if (base == MAP_FAILED)
        return NULL;
    if (bytes >= HUGE_PAGE)
        (void)madvise(base, *ret_mapped, MADV_HUGEPAGE);
    return base;
}

static int region_place(struct tp *tp, uint32_t *ret, struct gapless_error *error)
{
    struct verbs_region **regions;
    uint32_t at = 0, count;

    while (at < tp->region_count &&
           !(tp->regions[at] == NULL || tp->regions[at]->id == 0))
        at++;
    if (at == tp->region_count) {
        count = tp->region_count * 2 + 8;
        regions = realloc(tp->regions, count * sizeof(struct verbs_region *));
        if (regions == NULL)
            return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                     "no memory for %u regions", count);
        memset(regions + tp->region_count, 0,
               (count - tp->region_count) * sizeof(struct verbs_region *));
        tp->regions = regions;
        tp->region_count = count;
    }
    if (tp->regions[at] == NULL)
        tp->regions[at] = calloc(1, sizeof *tp->regions[at]);
    if (tp->regions[at] == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for a region");
    *ret = at;
    return GAPLESS_OK;
}

int verbs_region_new(struct tp *tp, size_t bytes, struct tp_region *ret,
                     struct gapless_error *error)
{
    struct verbs_region *region;
    uint32_t at = 0;
    int status;

    if (bytes == 0 || bytes > PTRDIFF_MAX - HUGE_PAGE)
        return gapless_error_set(error, GAPLESS_INVALID, 0, "a region of %zu bytes",
                                 bytes);
    status = region_place(tp, &at, error);
    if (status != GAPLESS_OK)
        return status;
    region = tp->regions[at];
    *region = (struct verbs_region){.bytes = bytes};
    region->base = memory_take(bytes, &region->mapped_bytes);
    if (region->base == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, errno,
                                 "no memory for a region of %zu bytes; use a smaller "
                                 "model or fewer workers",
                                 bytes);
    if (++tp->serial == 0)
        tp->serial = 1;
    region->id = tp->serial;
    *ret = (struct tp_region){
        .base = region->base, .bytes = bytes, .id = region->id, .handle = at};
    return GAPLESS_OK;
}

struct verbs_region *verbs_region_find(struct tp *tp, const struct tp_region *region)
{
    if (region == NULL || region->id == 0 || region->handle >= tp->region_count ||
        tp->regions[region->handle] == NULL ||
        tp->regions[region->handle]->id != region->id)
        return NULL;
    return tp->regions[region->handle];
}

void verbs_region_release(struct verbs_region *region)
{
    uint32_t i;

    for (i = 0; i < VERBS_NICS; i++) {
        if (region->mr[i] != NULL)
            (void)ibv_dereg_mr(region->mr[i]);
        if (region->high[i] != NULL)
            (void)ibv_dereg_mr(region->high[i]);
        if (region->shared[i] != NULL)
            (void)ibv_dereg_mr(region->shared[i]);
    }
    if (region->base != NULL)
        (void)munmap(region->base, region->mapped_bytes);
    *region = (struct verbs_region){0};
}

static void key_end(struct tp *tp, struct verbs_key *key)
{
    if (key->mw != NULL)
        (void)ibv_dealloc_mw(key->mw);
    if (key->mr != NULL && ibv_dereg_mr(key->mr) == 0)
        tp->counters.regions--;
    *key = (struct verbs_key){0};
}

/* What peers may do with a region ends before it. */
static void region_keys_end(struct tp *tp, uint32_t region)
{
    uint32_t i, k;

    for (i = 0; tp->role == VERBS_SERVER && i < tp->lanes_max; i++) {
        struct verbs_lane *lane = tp->lanes[i];

        if (lane == NULL || lane->grant == NULL)
            continue;
        for (k = 0; k < 2 * tp->config.windows_max; k++)
            if (lane->grant[k / 2].key[k % 2].region == region)
                key_end(tp, &lane->grant[k / 2].key[k % 2]);
        for (k = 0; k < lane->retired_count; k++)
            if (lane->retired[k].region == region)
                key_end(tp, &lane->retired[k]);
    }
}

void verbs_region_free(struct tp *tp, struct tp_region *region)
{
    struct verbs_region *entry = verbs_region_find(tp, region);
    uint32_t i;

    if (entry == NULL)
        return;
    region_keys_end(tp, entry->id);
    for (i = 0; i < VERBS_NICS; i++)
        tp->counters.regions -= (entry->mr[i] != NULL ? 1u : 0u) +
                                (entry->high[i] != NULL ? 1u : 0u) +
                                (entry->shared[i] != NULL ? 1u : 0u);
    verbs_region_release(entry);
    *region = (struct tp_region){0};
}

static struct ibv_mr *mr_new(struct tp *tp, struct ibv_pd *pd, void *base, size_t bytes,
                             unsigned access, struct gapless_error *error)
{
    struct ibv_mr *mr;

    errno = 0;
    mr = ibv_reg_mr(pd, base, bytes, access);
    if (mr == NULL)
        (void)verbs_memory_error(bytes, errno == 0 ? ENOMEM : errno, error);
    else
        tp->counters.regions++;
    return mr;
}

int verbs_register(struct tp *tp, struct verbs_region *region, uint32_t nic,
                   struct gapless_error *error)
{
    unsigned access = IBV_ACCESS_LOCAL_WRITE;

    if (region->mr[nic] != NULL)
        return GAPLESS_OK;
    if (tp->role == VERBS_CLIENT && tp->nic[nic].iwarp)
        access |= IBV_ACCESS_REMOTE_WRITE; /* a READ is answered by a write */
    region->mr[nic] =
        mr_new(tp, tp->nic[nic].pd, region->base, region->bytes, access, error);
    return region->mr[nic] != NULL ? GAPLESS_OK : GAPLESS_NO_MEMORY;
}

/* Registered for windows: each half by itself, since a device may hold a window to the
 * bounds of its registration only (the soft ones do). */
static int register_halves(struct tp *tp, struct verbs_region *region, uint32_t nic,
                           size_t split, struct gapless_error *error)
{
    unsigned access = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_MW_BIND;

    if (split > 0 && region->mr[nic] == NULL) {
        region->mr[nic] =
            mr_new(tp, tp->nic[nic].pd, region->base, split, access, error);
        if (region->mr[nic] == NULL)
            return GAPLESS_NO_MEMORY;
    }
    if (split < region->bytes && region->high[nic] == NULL) {
        region->high[nic] = mr_new(tp, tp->nic[nic].pd, (char *)region->base + split,
                                   region->bytes - split, access, error);
        if (region->high[nic] == NULL)
            return GAPLESS_NO_MEMORY;
    }
    return GAPLESS_OK;
}

/* ---- grants, at the server ------------------------------------------------------ */

/* A key whose window is granted anew. Its bind, or a WRITE of the peer, may still be
 * under way, and would break the connection: it ends with the lane. */
static int key_retire(struct verbs_lane *lane, struct verbs_key *key,
                      struct gapless_error *error)
{
    struct verbs_key *more;

    if (key->mw == NULL && key->mr == NULL)
        return GAPLESS_OK;
    more = realloc(lane->retired, (lane->retired_count + 1) * sizeof *more);
    if (more == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for a grant");
    lane->retired = more;
    lane->retired[lane->retired_count++] = *key;
    *key = (struct verbs_key){0};
    return GAPLESS_OK;
}

void verbs_grants_end(struct verbs_lane *lane)
{
    uint32_t i;

    while (lane->retired_count > 0)
        key_end(lane->tp, &lane->retired[--lane->retired_count]);
    free(lane->retired);
    lane->retired = NULL;
    for (i = 0; lane->grant != NULL && i < lane->tp->config.windows_max; i++) {
        key_end(lane->tp, &lane->grant[i].key[0]);
        key_end(lane->tp, &lane->grant[i].key[1]);
        lane->grant[i] = (struct verbs_grant){0};
    }
}

/* The right to `access` bytes [from, to) of a region, for one lane. *ret_key is 0 if
 * there are none. */
static int key_make(struct verbs_lane *lane, struct verbs_region *region, size_t from,
                    size_t to, unsigned access, struct verbs_key *ret,
                    uint32_t *ret_key, struct gapless_error *error)
{
    struct tp *tp = lane->tp;
    char *base = (char *)region->base + from;
    int status;

    if (from == to)
        return GAPLESS_OK;
    ret->region = region->id;
    if (!lane->nic->windows) {
        if (access & IBV_ACCESS_REMOTE_WRITE)
            access |= IBV_ACCESS_LOCAL_WRITE;
        ret->mr = mr_new(tp, lane->pd, base, to - from, access, error);
        if (ret->mr == NULL)
            return GAPLESS_NO_MEMORY;
        *ret_key = ret->mr->rkey;
        return GAPLESS_OK;
    }
    errno = 0;
    ret->mw = ibv_alloc_mw(lane->nic->pd, IBV_MW_TYPE_2);
    if (ret->mw == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, errno,
                                 "no memory window for %s", lane->name);
    status = verbs_bind(lane, ret->mw,
                        to == region->bytes ? region->high[lane->nic_at]
                                            : region->mr[lane->nic_at],
                        base, to - from, access);
    *ret_key = ret->mw->rkey;
    return status == GAPLESS_OK
               ? GAPLESS_OK
               : gapless_error_set(error, status, 0,
                                   "a memory window for %s cannot be bound",
                                   lane->name);
}

static int offer_read(struct verbs_lane *lane, struct verbs_region *region,
                      struct verbs_offer *ret, struct gapless_error *error)
{
    struct ibv_mr **mr = &region->shared[lane->nic_at];

    if (!lane->nic->windows)
        return key_make(lane, region, 0, region->bytes, IBV_ACCESS_REMOTE_READ,
                        &lane->grant[ret->window].key[0], &ret->read_key, error);
    if (*mr == NULL)
        *mr = mr_new(lane->tp, lane->pd, region->base, region->bytes,
                     IBV_ACCESS_REMOTE_READ, error);
    if (*mr == NULL)
        return GAPLESS_NO_MEMORY;
    ret->read_key = (*mr)->rkey;
    return GAPLESS_OK;
}

static int grant_lane(struct verbs_lane *lane, struct verbs_region *region,
                      uint32_t window, size_t split, struct gapless_error *error)
{
    struct verbs_grant *grant = &lane->grant[window];
    struct verbs_frame frame = {.kind = VERBS_GRANT, .bytes = sizeof frame.as.offer};
    struct verbs_offer *offer = &frame.as.offer;
    int status = key_retire(lane, &grant->key[0], error);

    if (status == GAPLESS_OK)
        status = key_retire(lane, &grant->key[1], error);
    if (status != GAPLESS_OK)
        return status;
    *offer = (struct verbs_offer){.window = window,
                                  .access = (uint32_t)region->access,
                                  .bytes = region->bytes,
                                  .split = split,
                                  .address = (uint64_t)(uintptr_t)region->base};
    if (region->access == TP_READ) {
        status = offer_read(lane, region, offer, error);
    } else {
        size_t low = region->access == TP_SPLIT ? split : 0;
        unsigned both = IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_WRITE;

        if (lane->nic->windows)
            status = register_halves(lane->tp, region, lane->nic_at, low, error);
        if (status == GAPLESS_OK)
            status = key_make(lane, region, 0, low, IBV_ACCESS_REMOTE_READ,
                              &grant->key[0], &offer->read_key, error);
        if (status == GAPLESS_OK)
            status =
                key_make(lane, region, low, region->bytes,
                         region->access == TP_SPLIT ? IBV_ACCESS_REMOTE_WRITE : both,
                         &grant->key[1], &offer->write_key, error);
        if (region->access == TP_READ_WRITE)
            offer->read_key = offer->write_key;
    }
    if (status != GAPLESS_OK)
        return status;
    if (verbs_frame_send(lane, &frame, true) == GAPLESS_OK)
        return GAPLESS_OK;
    return gapless_error_set(error, GAPLESS_PEER_LOST, 0,
                             "%s does not read its control messages and was "
                             "disconnected",
                             lane->name);
}

int verbs_grant(struct tp *tp, tp_peer index, const struct tp_region *region,
                uint32_t window, enum tp_access access, struct gapless_error *error)
{
    struct verbs_region *entry = verbs_region_find(tp, region);
    struct verbs_peer *peer;
    struct gapless_error why = {0};
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
    for (i = 0; status == GAPLESS_OK && i < peer->lane_count; i++)
        status = grant_lane(peer->lane[i], entry, window, region->split, &why);
    if (status == GAPLESS_PEER_LOST)
        verbs_peer_end(peer, &why);
    if (status != GAPLESS_OK && error != NULL)
        *error = why;
    return status;
}

/* ---- windows, at the client ----------------------------------------------------- */

/* Every lane has its own keys, and all of them must be there, of the same grant. */
static const struct verbs_grant *grant_whole(const struct verbs_peer *peer,
                                             uint32_t window)
{
    const struct verbs_grant *first = &peer->lane[0]->grant[window];
    uint32_t i;

    for (i = 0; i < peer->lane_count; i++)
        if (peer->lane[i]->grant == NULL ||
            peer->lane[i]->grant[window].serial != first->serial)
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
    for (i = 0; status == GAPLESS_OK && i < peer->lane_count; i++)
        status = verbs_register(tp, entry, peer->lane[i]->nic_at, error);
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
    uint64_t began = verbs_now_ns();
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
                                             tp->peers[index].why.text[0] != '\0'
                                         ? tp->peers[index].why.text
                                         : "the peer is not connected");
        grant = grant_whole(peer, window);
        if (grant != NULL)
            return window_make(tp, index, window, grant, ret, error);
        if (verbs_now_ns() - began >= bound)
            return gapless_error_set(error, GAPLESS_TIMEOUT, 0,
                                     "%s did not grant window %u within %.3f s",
                                     peer->lane[0]->name, window, 1e-9 * (double)bound);
        verbs_pause(tp, UINT64_C(10000000));
    }
}
