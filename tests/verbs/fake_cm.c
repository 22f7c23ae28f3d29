/* The fake's ids: making, binding, listening and resolving. */
#include "tests/verbs/fake_own.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

int fake_answer(int problem)
{
    errno = problem;
    return problem == 0 ? 0 : -1;
}

/* ---- ids ----------------------------------------------------------------- */

struct fake_id *fake_id_new(struct fake_cm_channel *channel, void *context,
                            enum rdma_port_space space)
{
    struct fake_id *it = calloc(1, sizeof *it);

    if (it == NULL)
        return NULL;
    it->pub.channel = &channel->pub;
    it->pub.context = context;
    it->pub.ps = space;
    it->pub.qp_type = IBV_QPT_RC;
    it->timeout = 19;
    it->next = fake_world.ids;
    fake_world.ids = it;
    fake_world.live.ids++;
    channel->children++;
    return it;
}

int rdma_create_id(struct rdma_event_channel *channel, struct rdma_cm_id **id,
                   void *context, enum rdma_port_space ps)
{
    struct fake_id *it = NULL;

    if (channel == NULL || ps != RDMA_PS_TCP)
        return fake_answer(EINVAL); /* the fake knows no other use */
    fake_lock();
    if (!fake_fails("rdma_create_id"))
        it = fake_id_new(fake_cm_channel(channel), context, ps);
    fake_unlock();
    if (it == NULL)
        return fake_answer(ENOMEM);
    *id = &it->pub;
    return 0;
}

static void id_remove(struct fake_id *id)
{
    struct fake_id **at = &fake_world.ids;

    while (*at != id)
        at = &(*at)->next;
    *at = id->next;
    (fake_cm_channel(id->pub.channel))->children--;
    fake_world.live.ids--;
}

int rdma_destroy_id(struct rdma_cm_id *pub)
{
    struct fake_id *id = (struct fake_id *)pub;
    bool kept;

    fake_lock();
    kept = pub->qp != NULL;
    if (kept)
        fake_fault("an id goes with a queue pair on it");
    else {
        if (id->unacknowledged != 0)
            fake_fault("an id goes with %u events not acknowledged: this would wait "
                       "for ever",
                       id->unacknowledged);
        fake_world.live.unacknowledged -= id->unacknowledged;
        fake_id_part(id);
        fake_events_forget(id);
        if (id->connection != NULL)
            id->connection->side[id->side] = NULL;
        id_remove(id);
        free(id);
    }
    fake_unlock();
    return fake_answer(kept ? EBUSY : 0);
}

int rdma_set_option(struct rdma_cm_id *pub, int level, int optname, void *optval,
                    size_t optlen)
{
    struct fake_id *id = (struct fake_id *)pub;
    int problem = 0;

    fake_lock();
    if (fake_fails("rdma_set_option"))
        problem = ENOMEM;
    else if (level != RDMA_OPTION_ID)
        problem = ENOSYS;
    else if (optname == RDMA_OPTION_ID_ACK_TIMEOUT && optlen == 1 &&
             *(uint8_t *)optval < 32)
        id->timeout = *(uint8_t *)optval;
    else if (optname == RDMA_OPTION_ID_REUSEADDR && optlen == sizeof(int) &&
             id->state == FAKE_IDLE)
        id->reuse = *(int *)optval != 0;
    else if (!(optname == RDMA_OPTION_ID_AFONLY && optlen == sizeof(int)) &&
             !(optname == RDMA_OPTION_ID_TOS && optlen == 1))
        problem = EINVAL;
    fake_unlock();
    return fake_answer(problem);
}

/* ---- addresses ----------------------------------------------------------- */

static socklen_t address_bytes(const struct sockaddr *address)
{
    return address->sa_family == AF_INET ? sizeof(struct sockaddr_in)
                                         : sizeof(struct sockaddr_in6);
}

static uint16_t *port_at(struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET)
        return &((struct sockaddr_in *)address)->sin_port;
    return &((struct sockaddr_in6 *)address)->sin6_port;
}

uint16_t fake_port_of(const struct sockaddr *address)
{
    struct sockaddr_storage copy = {0};

    if (address->sa_family != AF_INET && address->sa_family != AF_INET6)
        return 0;
    memcpy(&copy, address, address_bytes(address));
    return *port_at(&copy);
}

__be16 rdma_get_src_port(struct rdma_cm_id *id)
{
    return fake_port_of(&id->route.addr.src_addr);
}

__be16 rdma_get_dst_port(struct rdma_cm_id *id)
{
    return fake_port_of(&id->route.addr.dst_addr);
}

static bool wildcard(const struct sockaddr *address)
{
    static const struct in6_addr any6;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;

    if (address->sa_family == AF_INET) {
        memcpy(&in, address, sizeof in);
        return in.sin_addr.s_addr == 0;
    }
    memcpy(&in6, address, sizeof in6);
    return memcmp(&in6.sin6_addr, &any6, sizeof any6) == 0;
}

static bool loopback(const struct sockaddr *address)
{
    static const struct in6_addr loop6 = {.s6_addr = {[15] = 1}};
    struct sockaddr_in in;
    struct sockaddr_in6 in6;

    if (address->sa_family == AF_INET) {
        memcpy(&in, address, sizeof in);
        return (ntohl(in.sin_addr.s_addr) >> 24) == 127;
    }
    memcpy(&in6, address, sizeof in6);
    return memcmp(&in6.sin6_addr, &loop6, sizeof loop6) == 0;
}

/* Bound to the address, or to all, with this port. */
struct fake_id *fake_bound_to(const struct sockaddr *address, bool listening)
{
    for (struct fake_id *id = fake_world.ids; id != NULL; id = id->next) {
        const struct sockaddr *own = &id->pub.route.addr.src_addr;

        if ((listening ? id->state == FAKE_LISTENING
                       : id->state == FAKE_BOUND || id->state == FAKE_LISTENING) &&
            own->sa_family == address->sa_family &&
            fake_port_of(own) == fake_port_of(address) &&
            (wildcard(own) || wildcard(address) ||
             fake_device_at(own) == fake_device_at(address)))
            return id;
    }
    return NULL;
}

static void bind_to(struct fake_id *id, const struct sockaddr *address)
{
    struct sockaddr_storage *own = &id->pub.route.addr.src_storage;

    memset(own, 0, sizeof *own);
    memcpy(own, address, address_bytes(address));
    if (*port_at(own) == 0)
        *port_at(own) = htons(++fake_world.next_port);
    id->device = fake_device_at(address);
}

static int bind_problem(struct fake_id *id, const struct sockaddr *address)
{
    if (id->state != FAKE_IDLE ||
        (address->sa_family != AF_INET && address->sa_family != AF_INET6))
        return EINVAL;
    if (fake_fails("rdma_bind_addr"))
        return ENOMEM;
    if (wildcard(address))
        return 0;
    if (loopback(address))
        return ENODEV;
    return fake_device_at(address) == NULL ? EADDRNOTAVAIL : 0;
}

int rdma_bind_addr(struct rdma_cm_id *pub, struct sockaddr *address)
{
    struct fake_id *id = (struct fake_id *)pub;
    int problem;

    fake_lock();
    problem = bind_problem(id, address);
    if (problem == 0 && fake_port_of(address) != 0 &&
        fake_bound_to(address, id->reuse) != NULL)
        problem = EADDRINUSE;
    if (problem == 0) {
        bind_to(id, address);
        id->state = FAKE_BOUND;
        if (id->device != NULL) {
            pub->verbs = fake_device_cm(id->device); /* the kernel's part is done */
            pub->port_num = 1;
        }
    }
    fake_unlock();
    return fake_answer(problem);
}

int rdma_listen(struct rdma_cm_id *pub, int backlog)
{
    struct fake_id *id = (struct fake_id *)pub;
    int problem = 0;

    fake_lock();
    if (fake_fails("rdma_listen"))
        problem = ENOMEM;
    else if (id->state != FAKE_BOUND)
        problem = EINVAL;
    else {
        id->state = FAKE_LISTENING;
        id->backlog = backlog > 0 ? backlog : 1024;
    }
    fake_unlock();
    return fake_answer(problem);
}

/* Where from: as asked, as bound before, or from the very device that is sought. */
static struct fake_device *near_device(const struct fake_id *id,
                                       const struct sockaddr *from,
                                       const struct sockaddr *to)
{
    if (from != NULL)
        return fake_device_at(from);
    return id->device != NULL ? id->device : fake_device_at(to);
}

static void resolved(struct fake_id *id, const struct sockaddr *from,
                     const struct sockaddr *to)
{
    struct sockaddr_storage own = {0};

    if (id->device == NULL) {
        memcpy(&own, from != NULL ? from : to, address_bytes(to));
        if (from == NULL)
            *port_at(&own) = 0;
        bind_to(id, (struct sockaddr *)&own);
    }
    fake_event_put(id, RDMA_CM_EVENT_ADDR_RESOLVED, 0);
}

static int resolve(struct fake_id *id, const struct sockaddr *from,
                   const struct sockaddr *to)
{
    struct fake_device *far_end = fake_device_at(to);
    struct fake_device *near_end = near_device(id, from, to);

    if ((id->state != FAKE_IDLE && (id->state != FAKE_BOUND || from != NULL)) ||
        (from != NULL && from->sa_family != to->sa_family))
        return EINVAL;
    if (fake_fails("rdma_resolve_addr"))
        return ENOMEM;
    if (loopback(to) || (from != NULL && near_end == NULL))
        return ENODEV;
    id->state = FAKE_ADDR_ASKED;
    memcpy(&id->pub.route.addr.dst_storage, to, address_bytes(to));
    if (far_end == NULL || near_end == NULL || far_end->iwarp != near_end->iwarp ||
        near_end->removed || fake_rules.unresolvable ||
        fake_fails("resolving the address"))
        fake_event_put(id, RDMA_CM_EVENT_ADDR_ERROR, -EHOSTUNREACH);
    else
        resolved(id, from, to);
    return 0;
}

int rdma_resolve_addr(struct rdma_cm_id *id, struct sockaddr *src_addr,
                      struct sockaddr *dst_addr, int timeout_ms)
{
    int problem;

    fake_lock();
    problem =
        timeout_ms < 0 ? EINVAL : resolve((struct fake_id *)id, src_addr, dst_addr);
    fake_unlock();
    return fake_answer(problem);
}

int rdma_resolve_route(struct rdma_cm_id *pub, int timeout_ms)
{
    struct fake_id *id = (struct fake_id *)pub;
    int problem = 0;

    fake_lock();
    if (id->state != FAKE_ADDR || timeout_ms < 0)
        problem = EINVAL;
    else if (fake_fails("rdma_resolve_route"))
        problem = ENOMEM;
    else {
        id->state = FAKE_ROUTE_ASKED;
        if (fake_rules.no_route || fake_fails("resolving the route"))
            fake_event_put(id, RDMA_CM_EVENT_ROUTE_ERROR, -ETIMEDOUT);
        else
            fake_event_put(id, RDMA_CM_EVENT_ROUTE_RESOLVED, 0);
    }
    fake_unlock();
    return fake_answer(problem);
}
