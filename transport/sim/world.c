/* Simulated transport: worlds by name, what locks them, their clock and the two levels
 * of heaps. Read world.h first. */
#include "transport/sim/world.h"

#include "engine/base/array.h"

#include <stdlib.h>
#include <string.h>

static pthread_mutex_t names_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct sim_world *names; /* those that have endpoints */

uint64_t sim_later(uint64_t a_ns, uint64_t b_ns)
{
    return b_ns > UINT64_MAX - a_ns ? UINT64_MAX : a_ns + b_ns;
}

/* ---- locks --------------------------------------------------------------- */

void sim_names_lock(void)
{
    (void)pthread_mutex_lock(&names_mutex);
}

void sim_names_unlock(void)
{
    (void)pthread_mutex_unlock(&names_mutex);
}

struct sim_world *sim_world_lock(struct sim_world *world)
{
    (void)pthread_mutex_lock(&world->mutex);
    while (world->into != NULL) {
        struct sim_world *into = world->into;

        /* It stays: a reference of ours keeps it. */
        (void)pthread_mutex_unlock(&world->mutex);
        world = into;
        (void)pthread_mutex_lock(&world->mutex);
    }
    return world;
}

struct sim_world *sim_lock(const struct tp *tp)
{
    return tp->world == NULL ? NULL : sim_world_lock(tp->world);
}

void sim_unlock(struct sim_world *root)
{
    if (root != NULL)
        (void)pthread_mutex_unlock(&root->mutex);
}

/* For the functions of sim.h that only look: the lock is all they change. */
static struct sim_world *look(const struct sim_world *world)
{
    return sim_world_lock((struct sim_world *)(uintptr_t)world);
}

/* ---- the heap of an endpoint --------------------------------------------- */

static bool item_before(const struct sim_item *a, const struct sim_item *b)
{
    return a->at_ns < b->at_ns || (a->at_ns == b->at_ns && a->sequence < b->sequence);
}

static void item_up(struct sim_item *items, size_t at, const struct sim_item *item)
{
    while (at > 0 && item_before(item, &items[(at - 1) / 2])) {
        items[at] = items[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    items[at] = *item;
}

static void item_down(struct sim_item *items, size_t count, size_t at,
                      const struct sim_item *item)
{
    for (size_t child = 2 * at + 1; child < count; child = 2 * at + 1) {
        if (child + 1 < count && item_before(&items[child + 1], &items[child]))
            child++;
        if (!item_before(&items[child], item))
            break;
        items[at] = items[child];
        at = child;
    }
    items[at] = *item;
}

/* ---- the heap of endpoints ----------------------------------------------- */

static bool tp_before(const struct tp *a, const struct tp *b)
{
    return item_before(&a->items[0], &b->items[0]);
}

static void waiting_put(struct sim_world *root, size_t at, struct tp *tp)
{
    root->waiting[at] = tp;
    tp->place = at;
}

static void waiting_up(struct sim_world *root, size_t at, struct tp *tp)
{
    while (at > 0 && tp_before(tp, root->waiting[(at - 1) / 2])) {
        waiting_put(root, at, root->waiting[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    waiting_put(root, at, tp);
}

static void waiting_down(struct sim_world *root, size_t at, struct tp *tp)
{
    for (size_t child = 2 * at + 1; child < root->waiting_count; child = 2 * at + 1) {
        if (child + 1 < root->waiting_count &&
            tp_before(root->waiting[child + 1], root->waiting[child]))
            child++;
        if (!tp_before(root->waiting[child], tp))
            break;
        waiting_put(root, at, root->waiting[child]);
        at = child;
    }
    waiting_put(root, at, tp);
}

static void waiting_remove(struct sim_world *root, struct tp *tp)
{
    size_t at = tp->place;
    struct tp *last = root->waiting[--root->waiting_count];

    tp->place = SIM_NOWHERE;
    if (last == tp)
        return;
    waiting_up(root, at, last);
    waiting_down(root, last->place, last);
}

/* Puts the endpoint where its first item says. */
static void waiting_fix(struct sim_world *root, struct tp *tp)
{
    if (tp->item_count == 0) {
        if (tp->place != SIM_NOWHERE)
            waiting_remove(root, tp);
        return;
    }
    waiting_up(root, tp->place == SIM_NOWHERE ? root->waiting_count++ : tp->place, tp);
    waiting_down(root, tp->place, tp);
}

/* ---- queues -------------------------------------------------------------- */

bool sim_queue_room(struct tp *tp, size_t more)
{
    size_t want = tp->item_count + tp->item_kept + more;
    struct sim_item *items = array_room(tp->items, &tp->item_max, want, sizeof *items);

    if (items != NULL)
        tp->items = items;
    return want == 0 || items != NULL;
}

void sim_queue_add(struct sim_world *root, struct tp *tp, const struct sim_item *item)
{
    struct sim_item own = *item;

    own.sequence = root->sequence++;
    item_up(tp->items, tp->item_count++, &own);
    /* Behind others nothing changes for the world. */
    if (tp->items[0].sequence == own.sequence)
        waiting_fix(root, tp);
}

struct sim_item sim_queue_take(struct sim_world *root, struct tp *tp)
{
    struct sim_item first = tp->items[0];
    struct sim_item last = tp->items[--tp->item_count];

    if (tp->item_count > 0)
        item_down(tp->items, tp->item_count, 0, &last);
    waiting_fix(root, tp);
    return first;
}

void sim_queue_purge(struct sim_world *root, struct tp *tp, tp_peer peer)
{
    size_t kept = 0;

    for (size_t i = 0; i < tp->item_count; i++) {
        struct sim_item item = tp->items[i];

        if (peer == UINT32_MAX || item.peer == peer) {
            free(item.text);
            /* A server that drops a peer wants none of its bytes any more. */
            if (item.move != NULL && item.kind == TP_NOTE)
                item.move->carried = true;
            sim_move_end(item.move, false);
        } else {
            item_up(tp->items, kept++, &item);
        }
    }
    tp->item_count = kept;
    waiting_fix(root, tp);
}

/* ---- worlds -------------------------------------------------------------- */

struct sim_world *sim_world_find(const char *name, bool apart)
{
    struct sim_world *world = names;

    while (world != NULL && (world->apart != apart || strcmp(world->name, name) != 0))
        world = world->next;
    return world;
}

struct sim_world *sim_world_new(const char *name, bool apart)
{
    size_t bytes = strlen(name);
    struct sim_world *world = calloc(1, sizeof *world);

    if (world == NULL || bytes >= sizeof world->name ||
        pthread_mutex_init(&world->mutex, NULL) != 0) {
        free(world);
        return NULL;
    }
    memcpy(world->name, name, bytes);
    world->apart = apart;
    world->next = names;
    names = world;
    return world;
}

void sim_world_release(struct sim_world *world)
{
    while (world != NULL && world->refs == 0) {
        struct sim_world *into = world->into;
        struct sim_world **link = &names;

        while (*link != world)
            link = &(*link)->next;
        *link = world->next;
        (void)pthread_mutex_destroy(&world->mutex);
        free(world->waiting);
        free(world);
        world = into;
        if (world != NULL)
            world->refs--;
    }
}

static bool waiting_room(struct sim_world *root, size_t more)
{
    size_t want = root->endpoints + more;
    struct tp **waiting =
        array_room(root->waiting, &root->waiting_max, want, sizeof *waiting);

    if (waiting != NULL)
        root->waiting = waiting;
    return want == 0 || waiting != NULL;
}

/* Two worlds become one; the clock of neither goes back. */
static bool world_unite(struct sim_world *root, struct sim_world *gone)
{
    if (!waiting_room(root, gone->endpoints))
        return false;
    root->endpoints += gone->endpoints;
    for (size_t i = 0; i < gone->waiting_count; i++)
        waiting_up(root, root->waiting_count++, gone->waiting[i]);
    if (root->now_ns < gone->now_ns)
        root->now_ns = gone->now_ns;
    if (root->sequence < gone->sequence)
        root->sequence = gone->sequence;
    if (root->pump == NULL) {
        root->pump = gone->pump;
        root->pump_user = gone->pump_user;
    }
    root->pumping = root->pumping || gone->pumping;
    free(gone->waiting);
    gone->waiting = NULL;
    gone->waiting_count = 0;
    gone->into = root;
    root->refs++;
    return true;
}

bool sim_world_enter(struct tp *tp, struct sim_world *world)
{
    struct sim_world *other = sim_world_lock(world);
    struct sim_world *root = NULL;
    bool done;

    if (tp->world == NULL) {
        done = waiting_room(other, 1);
        if (done) {
            other->endpoints++;
            if (other->now_ns < tp->alone_ns)
                other->now_ns = tp->alone_ns;
            tp->world = world;
            world->refs++;
        }
        sim_unlock(other);
        return done;
    }
    /* While we hold the names no root changes. */
    sim_unlock(other);
    root = sim_lock(tp);
    done = root == other;
    if (!done) {
        (void)pthread_mutex_lock(&other->mutex);
        done = world_unite(root, other);
        sim_unlock(other);
    }
    sim_unlock(root);
    return done;
}

void sim_world_leave(struct tp *tp)
{
    struct sim_world *world = tp->world;
    struct sim_world *root = sim_lock(tp);

    root->endpoints--;
    sim_unlock(root);
    tp->world = NULL;
    world->refs--;
    sim_world_release(world);
}

/* ---- for the code that drives the clock (sim.h) -------------------------- */

struct sim_world *sim_world_of(const struct tp *tp)
{
    return tp->world;
}

void sim_link_set(struct sim_world *world, const struct sim_link *link)
{
    struct sim_world *root = sim_world_lock(world);

    world->link = *link;
    sim_unlock(root);
}

void sim_pump_set(struct sim_world *world, void (*pump)(void *user), void *user)
{
    struct sim_world *root = sim_world_lock(world);

    root->pump = pump;
    root->pump_user = user;
    sim_unlock(root);
}

uint64_t sim_now_ns(const struct sim_world *world)
{
    struct sim_world *root = look(world);
    uint64_t now = root->now_ns;

    sim_unlock(root);
    return now;
}

bool sim_next(const struct sim_world *world, uint64_t *ret_ns, struct tp **ret_tp)
{
    struct sim_world *root = look(world);
    bool some = root->waiting_count > 0;

    if (some) {
        *ret_ns = root->waiting[0]->items[0].at_ns;
        *ret_tp = root->waiting[0];
    }
    sim_unlock(root);
    return some;
}

void sim_advance(struct sim_world *world, uint64_t now_ns)
{
    struct sim_world *root = sim_world_lock(world);

    if (root->now_ns < now_ns)
        root->now_ns = now_ns;
    sim_unlock(root);
}
