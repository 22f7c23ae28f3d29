/* The fake's event channels: what has happened to ids, and what follows from its being
 * fetched. */
#include "tests/verbs/fake_own.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct fake_cm_channel *fake_cm_channel(struct rdma_event_channel *channel)
{
    return (void *)channel; /* its first member */
}

struct rdma_event_channel *rdma_create_event_channel(void)
{
    struct fake_cm_channel *it = NULL;

    fake_lock();
    if (!fake_rules.no_devices && !fake_fails("rdma_create_event_channel"))
        it = calloc(1, sizeof *it);
    if (it != NULL) {
        it->last = &it->first;
        it->pub.fd = fake_fd_new();
        if (it->pub.fd < 0) {
            free(it);
            it = NULL;
        } else
            fake_world.live.cm_channels++;
    }
    fake_unlock();
    if (it == NULL)
        errno = ENODEV;
    return it != NULL ? &it->pub : NULL;
}

void rdma_destroy_event_channel(struct rdma_event_channel *channel)
{
    struct fake_cm_channel *it = fake_cm_channel(channel);
    unsigned children;

    fake_lock();
    children = it->children;
    if (children != 0)
        fake_fault("an event channel goes with %u ids on it", children);
    else
        fake_world.live.cm_channels--;
    fake_unlock();
    if (children == 0) {
        (void)close(channel->fd);
        free(it);
    }
}

/* ---- putting ------------------------------------------------------------- */

/* Over InfiniBand private data have a fixed size, and zeros behind what was given. */
static uint8_t padded(const struct fake_id *to, enum rdma_cm_event_type kind,
                      size_t bytes)
{
    if (to->device != NULL && to->device->iwarp)
        return (uint8_t)bytes;
    if (kind == RDMA_CM_EVENT_ESTABLISHED && to->side == FAKE_ACTIVE)
        return 196;
    return kind == RDMA_CM_EVENT_REJECTED ? 148 : 0;
}

struct fake_event *fake_event_new(struct fake_id *to, enum rdma_cm_event_type kind,
                                  int status, const void *data, size_t bytes)
{
    struct fake_cm_channel *channel = fake_cm_channel(to->pub.channel);
    struct fake_event *it = calloc(1, sizeof *it);

    if (it == NULL) {
        fake_fault("out of memory");
        return NULL;
    }
    it->to = to;
    it->pub.id = &to->pub;
    it->pub.event = kind;
    it->pub.status = status;
    if (bytes > 0)
        memcpy(it->data, data, bytes);
    it->pub.param.conn.private_data_len = padded(to, kind, bytes);
    if (it->pub.param.conn.private_data_len > 0)
        it->pub.param.conn.private_data = it->data;
    *channel->last = it;
    channel->last = &it->next;
    fake_fd_add(channel->pub.fd);
    return it;
}

void fake_event_put(struct fake_id *to, enum rdma_cm_event_type kind, int status)
{
    (void)fake_event_new(to, kind, status, NULL, 0);
}

void fake_events_forget(struct fake_id *id)
{
    struct fake_cm_channel *channel = fake_cm_channel(id->pub.channel);
    struct fake_event **at = &channel->first;

    while (*at != NULL) {
        struct fake_event *it = *at;

        if (it->to != id) {
            at = &it->next;
            continue;
        }
        *at = it->next;
        if (it->connection != NULL)
            fake_refuse(it->connection, NULL, 0);
        fake_fd_take(channel->pub.fd);
        free(it);
    }
    channel->last = at;
}

/* ---- fetching ------------------------------------------------------------ */

/* The new side of a connection that was asked for. */
static struct fake_id *passive_new(struct fake_connection *connection,
                                   const struct fake_id *listener)
{
    struct fake_id *active = connection->side[FAKE_ACTIVE];
    struct fake_id *id = fake_id_new(fake_cm_channel(listener->pub.channel),
                                     listener->pub.context, listener->pub.ps);

    if (id == NULL)
        return NULL;
    id->device = connection->device;
    id->connection = connection;
    id->side = FAKE_PASSIVE;
    id->state = FAKE_REQUESTED;
    id->pub.verbs = fake_device_cm(id->device);
    id->pub.port_num = 1;
    id->pub.route.addr.src_storage = connection->to;
    id->pub.route.addr.dst_storage = connection->from;
    connection->side[FAKE_PASSIVE] = id;
    if (active == NULL || active->state != FAKE_CONNECTING) {
        id->state = FAKE_ENDED; /* it has given up meanwhile */
        fake_event_put(id, RDMA_CM_EVENT_REJECTED, 4);
    }
    return id;
}

/* A request becomes an id. False: it cannot, and the other side is told. */
static bool fetch_request(struct fake_event *it)
{
    struct fake_connection *connection = it->connection;
    struct rdma_conn_param *param = &it->pub.param.conn;
    struct fake_id *id = NULL;

    it->to->requests--;
    if (!fake_fails("the id of a request"))
        id = passive_new(connection, it->to);
    if (id == NULL) {
        fake_refuse(connection, NULL, 0);
        return false;
    }
    it->pub.id = &id->pub;
    it->pub.listen_id = &it->to->pub;
    memcpy(it->data, connection->data, sizeof it->data);
    param->private_data = it->data;
    param->private_data_len = id->device->iwarp ? connection->bytes : 56;
    param->responder_resources = connection->asked.initiator_depth;
    param->initiator_depth = connection->asked.responder_resources;
    param->flow_control = 1;
    param->retry_count = connection->asked.retry_count;
    param->rnr_retry_count = connection->asked.rnr_retry_count;
    param->qp_num = connection->pair;
    return true;
}

/* The active side hears that it was accepted: from now on it can send, and the passive
 * side will hear of it. */
static void fetch_established(struct fake_event *it)
{
    struct fake_id *id = it->to;
    struct fake_id *other = id->connection->side[FAKE_PASSIVE];

    if (id->side == FAKE_PASSIVE || id->state != FAKE_CONNECTING)
        return;
    if (id->pub.qp == NULL || id->pub.qp->state != IBV_QPS_INIT ||
        fake_fails("making the queue pair ready")) {
        it->pub.event = RDMA_CM_EVENT_CONNECT_ERROR;
        it->pub.status = -EINVAL;
        fake_id_part(id);
        return;
    }
    id->pub.qp->state = IBV_QPS_RTS;
    id->state = FAKE_CONNECTED;
    if (other != NULL && other->state == FAKE_ACCEPTED && !id->connection->vanished) {
        other->state = FAKE_CONNECTED;
        fake_event_put(other, RDMA_CM_EVENT_ESTABLISHED, 0);
    }
    fake_run_to(((struct fake_qp *)id->pub.qp)->peer);
}

/* False: nothing comes of this one. */
static bool fetch(struct fake_event *it)
{
    struct fake_id *id = it->to;
    enum rdma_cm_event_type kind = it->pub.event;

    if (kind == RDMA_CM_EVENT_CONNECT_REQUEST)
        return fetch_request(it);
    if (kind == RDMA_CM_EVENT_ADDR_RESOLVED) {
        id->state = FAKE_ADDR;
        if (id->pub.verbs == NULL)
            id->pub.verbs = fake_device_cm(id->device);
        id->pub.port_num = 1;
    } else if (kind == RDMA_CM_EVENT_ROUTE_RESOLVED)
        id->state = FAKE_ROUTE;
    else if (kind == RDMA_CM_EVENT_ESTABLISHED)
        fetch_established(it);
    else if (kind == RDMA_CM_EVENT_REJECTED && id->pub.qp != NULL)
        fake_pair_end((struct fake_qp *)id->pub.qp);
    else if (kind == RDMA_CM_EVENT_DISCONNECTED)
        fake_event_put(id, RDMA_CM_EVENT_TIMEWAIT_EXIT, 0);
    return true;
}

/* With the lock. The first event; NULL: none came of it, look again. */
static struct fake_event *take(struct fake_cm_channel *channel)
{
    struct fake_event *it = channel->first;

    if (it == NULL)
        return NULL;
    channel->first = it->next;
    if (it->next == NULL)
        channel->last = &channel->first;
    if (!fetch(it)) {
        free(it);
        return NULL;
    }
    it->to->unacknowledged++;
    it->to->established |= it->pub.event == RDMA_CM_EVENT_ESTABLISHED;
    fake_world.live.unacknowledged++;
    return it;
}

/* With the lock. Is the first event still under way? */
static bool is_late(const struct fake_cm_channel *channel)
{
    const struct fake_event *it = channel->first;

    if (fake_world.late == 0 || it == NULL || it->to->side != FAKE_PASSIVE ||
        it->pub.event != RDMA_CM_EVENT_ESTABLISHED)
        return false;
    fake_world.late--;
    return true;
}

int rdma_get_cm_event(struct rdma_event_channel *pub, struct rdma_cm_event **event)
{
    struct fake_cm_channel *channel = fake_cm_channel(pub);
    struct fake_event *it = NULL;
    uint64_t one;

    while (it == NULL) {
        bool fails, late;

        if (read(pub->fd, &one, sizeof one) != (ssize_t)sizeof one)
            return -1;
        fake_lock();
        fails = channel->first != NULL && fake_fails("rdma_get_cm_event");
        late = !fails && is_late(channel);
        if (fails || late)
            fake_fd_add(pub->fd);
        else
            it = take(channel);
        fake_unlock();
        if (fails || late) {
            errno = fails ? EIO : EAGAIN;
            return -1;
        }
    }
    *event = &it->pub;
    return 0;
}

int rdma_ack_cm_event(struct rdma_cm_event *event)
{
    struct fake_event *it = (struct fake_event *)event;

    fake_lock();
    it->to->unacknowledged--;
    fake_world.live.unacknowledged--;
    fake_unlock();
    free(it);
    return 0;
}
