/* The fake's connections: asking, accepting, rejecting, parting; and what a test does
 * to them from outside. */
#include "tests/verbs/fake_own.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define REJECTED_BY_USER 28
#define REJECTED_BY_NOBODY 8
#define REJECTED_BY_TIME 4
#define READS_MOST 4

static struct fake_id *other_of(const struct fake_id *id)
{
    return id->connection != NULL ? id->connection->side[1 - (int)id->side] : NULL;
}

static struct fake_qp *pair_of(const struct fake_id *id)
{
    return (struct fake_qp *)id->pub.qp;
}

void fake_connections_clear(void)
{
    while (fake_world.connections != NULL) {
        struct fake_connection *it = fake_world.connections;

        fake_world.connections = it->next;
        free(it);
    }
}

/* ---- parting ------------------------------------------------------------- */

static void reject(struct fake_id *active, int status, const void *data, size_t bytes)
{
    active->state = FAKE_ENDED;
    if (active->device->iwarp)
        status = -ECONNREFUSED;
    (void)fake_event_new(active, RDMA_CM_EVENT_REJECTED, status, data, bytes);
}

void fake_refuse(struct fake_connection *connection, const void *data, size_t bytes)
{
    struct fake_id *active = connection->side[FAKE_ACTIVE];

    if (active != NULL && active->state == FAKE_CONNECTING && !connection->vanished)
        reject(active, REJECTED_BY_USER, data, bytes);
}

/* The other side of one that parts. */
static void part_other(struct fake_id *other, enum fake_state state)
{
    if (state == FAKE_CONNECTING &&
        (other->state == FAKE_REQUESTED || other->state == FAKE_ACCEPTED)) {
        other->state = FAKE_ENDED;
        fake_event_put(other, RDMA_CM_EVENT_REJECTED, REJECTED_BY_TIME);
    } else if ((state == FAKE_CONNECTED || state == FAKE_ACCEPTED) &&
               (other->state == FAKE_CONNECTED || other->state == FAKE_ACCEPTED ||
                other->state == FAKE_CONNECTING)) {
        other->state = FAKE_TOLD;
        if (other->device->iwarp && other->pub.qp != NULL)
            fake_pair_end(pair_of(other));
        fake_event_put(other, RDMA_CM_EVENT_DISCONNECTED, 0);
    } else if (state == FAKE_TOLD && other->state == FAKE_PARTING) {
        other->state = FAKE_ENDED;
        fake_event_put(other, RDMA_CM_EVENT_DISCONNECTED, 0);
    }
}

void fake_id_part(struct fake_id *id)
{
    struct fake_id *other = other_of(id);
    enum fake_state state = id->state;

    id->state = FAKE_ENDED;
    if (id->pub.qp != NULL)
        fake_pair_end(pair_of(id));
    if (id->connection == NULL || id->connection->vanished)
        return;
    if (state == FAKE_REQUESTED)
        fake_refuse(id->connection, NULL, 0);
    else if (other != NULL)
        part_other(other, state);
}

/* Passive, and the other side's last word on the connection may be under way: Linux then
 * ends the queue pair, tells nobody and returns 0. */
static bool is_on_its_way(const struct fake_id *id)
{
    return id->side == FAKE_PASSIVE && !id->established && !id->device->iwarp &&
           (id->state == FAKE_ACCEPTED || id->state == FAKE_CONNECTED);
}

int rdma_disconnect(struct rdma_cm_id *pub)
{
    struct fake_id *id = (struct fake_id *)pub;
    enum fake_state state;
    int problem = 0;

    fake_lock();
    state = id->state;
    if (fake_fails("rdma_disconnect"))
        problem = ENOMEM;
    else if (state != FAKE_CONNECTED && state != FAKE_ACCEPTED && state != FAKE_TOLD) {
        if (pub->qp != NULL)
            fake_pair_end(pair_of(id));
        problem = EINVAL;
    } else if (is_on_its_way(id)) {
        fake_pair_end(pair_of(id));
    } else {
        struct fake_id *other = other_of(id);

        fake_id_part(id);
        if (state != FAKE_TOLD && other != NULL && other->state == FAKE_TOLD &&
            !id->device->iwarp)
            id->state = FAKE_PARTING; /* until the other side has answered */
        else if (state != FAKE_TOLD && !id->connection->vanished)
            fake_event_put(id, RDMA_CM_EVENT_DISCONNECTED, 0);
    }
    fake_unlock();
    return fake_answer(problem);
}

/* ---- asking -------------------------------------------------------------- */

static bool bad_param(const struct rdma_conn_param *param, unsigned data_most)
{
    return param == NULL || param->private_data_len > data_most ||
           (param->private_data_len > 0 && param->private_data == NULL) ||
           (param->responder_resources > READS_MOST &&
            param->responder_resources != RDMA_MAX_RESP_RES) ||
           (param->initiator_depth > READS_MOST &&
            param->initiator_depth != RDMA_MAX_INIT_DEPTH) ||
           param->retry_count > 7 || param->rnr_retry_count > 7;
}

static uint8_t reads(uint8_t asked)
{
    return asked > READS_MOST ? READS_MOST : asked;
}

static int connect_problem(const struct fake_id *id,
                           const struct rdma_conn_param *param)
{
    if (id->state != FAKE_ROUTE || id->pub.qp == NULL || bad_param(param, 56))
        return EINVAL;
    return fake_fails("rdma_connect") ? ENOMEM : 0;
}

/* With the lock. NULL: out of memory. */
static struct fake_connection *connection_new(struct fake_id *id,
                                              const struct rdma_conn_param *param)
{
    struct fake_connection *it = calloc(1, sizeof *it);
    struct fake_qp *qp = pair_of(id);

    if (it == NULL)
        return NULL;
    it->number = fake_world.connection_count++;
    it->next = fake_world.connections;
    fake_world.connections = it;
    it->side[FAKE_ACTIVE] = id;
    it->device = fake_device_at(&id->pub.route.addr.dst_addr);
    it->asked = *param;
    it->asked.responder_resources = reads(param->responder_resources);
    it->asked.initiator_depth = reads(param->initiator_depth);
    it->from = id->pub.route.addr.src_storage;
    it->to = id->pub.route.addr.dst_storage;
    it->bytes = param->private_data_len;
    if (it->bytes > 0)
        memcpy(it->data, param->private_data, it->bytes);
    it->pair = qp->pub.qp_num;
    qp->answers = it->asked.responder_resources;
    qp->reads = it->asked.initiator_depth;
    qp->retries = param->retry_count;
    id->connection = it;
    id->side = FAKE_ACTIVE;
    id->state = FAKE_CONNECTING;
    return it;
}

static void ask(struct fake_id *id, struct fake_connection *connection)
{
    struct fake_id *listener = fake_bound_to(&id->pub.route.addr.dst_addr, true);
    struct fake_event *event;

    if (fake_rules.no_answer)
        return;
    if (fake_fails("the request to connect")) {
        id->state = FAKE_ENDED;
        fake_event_put(id, RDMA_CM_EVENT_UNREACHABLE, -ETIMEDOUT);
        return;
    }
    if (listener == NULL) {
        reject(id, REJECTED_BY_NOBODY, NULL, 0);
        return;
    }
    if (listener->requests >= listener->backlog) {
        reject(id, REJECTED_BY_USER, NULL, 0);
        return;
    }
    event = fake_event_new(listener, RDMA_CM_EVENT_CONNECT_REQUEST, 0, NULL, 0);
    if (event != NULL) {
        event->connection = connection;
        listener->requests++;
    }
}

int rdma_connect(struct rdma_cm_id *pub, struct rdma_conn_param *conn_param)
{
    struct fake_id *id = (struct fake_id *)pub;
    struct fake_connection *it = NULL;
    int problem;

    fake_lock();
    problem = connect_problem(id, conn_param);
    if (problem == 0)
        it = connection_new(id, conn_param);
    if (it != NULL)
        ask(id, it);
    else if (problem == 0)
        problem = ENOMEM;
    fake_unlock();
    return fake_answer(problem);
}

/* ---- answering ----------------------------------------------------------- */

/* Each side takes over what the other one asked for: how often to retry when a receive
 * is missing is said by the side that lacks it. */
static void pairs_join(struct fake_id *passive, struct fake_id *active,
                       const struct rdma_conn_param *param)
{
    const struct fake_connection *connection = passive->connection;
    struct fake_qp *qp = pair_of(passive);
    struct fake_qp *far_end = active != NULL ? pair_of(active) : NULL;

    qp->peer = connection->pair;
    qp->reads = reads(param->initiator_depth);
    qp->answers = reads(param->responder_resources);
    qp->retries = connection->asked.retry_count;
    qp->rnr_retries = connection->asked.rnr_retry_count;
    qp->mute = connection->vanished;
    qp->pub.state = IBV_QPS_RTS;
    if (far_end == NULL)
        return;
    far_end->peer = qp->pub.qp_num;
    far_end->rnr_retries = param->rnr_retry_count;
    if (far_end->reads > qp->answers)
        far_end->reads = qp->answers;
}

static int accept_problem(const struct fake_id *id, const struct rdma_conn_param *param)
{
    if (id->state != FAKE_REQUESTED || id->pub.qp == NULL || bad_param(param, 196))
        return EINVAL;
    return fake_fails("rdma_accept") ? ENOMEM : 0;
}

static void accept_request(struct fake_id *id, const struct rdma_conn_param *param)
{
    struct fake_id *active = other_of(id);
    struct fake_event *event;

    id->state = FAKE_ACCEPTED;
    pairs_join(id, active, param);
    if (active == NULL || id->connection->vanished)
        return;
    if (fake_fails("the answer to an accept")) {
        active->state = FAKE_ENDED;
        id->state = FAKE_ENDED;
        fake_event_put(active, RDMA_CM_EVENT_UNREACHABLE, -ETIMEDOUT);
        fake_event_put(id, RDMA_CM_EVENT_UNREACHABLE, -ETIMEDOUT);
        return;
    }
    event = fake_event_new(active, RDMA_CM_EVENT_ESTABLISHED, 0, param->private_data,
                           param->private_data_len);
    if (event != NULL) {
        event->pub.param.conn.responder_resources = reads(param->initiator_depth);
        event->pub.param.conn.initiator_depth = reads(param->responder_resources);
        event->pub.param.conn.rnr_retry_count = param->rnr_retry_count;
        event->pub.param.conn.qp_num = id->pub.qp->qp_num;
    }
}

int rdma_accept(struct rdma_cm_id *pub, struct rdma_conn_param *conn_param)
{
    struct fake_id *id = (struct fake_id *)pub;
    int problem;

    fake_lock();
    problem = accept_problem(id, conn_param);
    if (problem == 0)
        accept_request(id, conn_param);
    fake_unlock();
    return fake_answer(problem);
}

int rdma_reject(struct rdma_cm_id *pub, const void *private_data,
                uint8_t private_data_len)
{
    struct fake_id *id = (struct fake_id *)pub;
    int problem = 0;

    fake_lock();
    if (fake_fails("rdma_reject"))
        problem = ENOMEM;
    else if (id->state != FAKE_REQUESTED || private_data_len > 148)
        problem = EINVAL;
    else {
        id->state = FAKE_ENDED;
        fake_refuse(id->connection, private_data, private_data_len);
    }
    fake_unlock();
    return fake_answer(problem);
}

/* ---- from outside -------------------------------------------------------- */

static struct fake_connection *numbered(unsigned number)
{
    struct fake_connection *it = fake_world.connections;

    while (it != NULL && it->number != number)
        it = it->next;
    if (it == NULL)
        fake_fault("there is no connection %u", number);
    return it;
}

unsigned fake_connections(void)
{
    unsigned count;

    fake_lock();
    count = fake_world.connection_count;
    fake_unlock();
    return count;
}

struct rdma_cm_id *fake_id(unsigned connection, enum fake_side side)
{
    struct fake_connection *it;
    struct fake_id *id = NULL;

    fake_lock();
    it = numbered(connection);
    if (it != NULL)
        id = it->side[side];
    fake_unlock();
    return id != NULL ? &id->pub : NULL;
}

struct ibv_qp *fake_pair(unsigned connection, enum fake_side side)
{
    struct rdma_cm_id *id = fake_id(connection, side);

    return id != NULL ? id->qp : NULL;
}

void fake_vanish(unsigned connection)
{
    struct fake_connection *it;

    fake_lock();
    it = numbered(connection);
    if (it != NULL) {
        it->vanished = true;
        for (int i = 0; i < 2; i++) {
            if (it->side[i] != NULL && it->side[i]->pub.qp != NULL)
                pair_of(it->side[i])->mute = true;
        }
        for (int i = 0; i < 2; i++) {
            if (it->side[i] != NULL && it->side[i]->pub.qp != NULL)
                fake_run_to(it->side[i]->pub.qp->qp_num);
        }
    }
    fake_unlock();
}

void fake_cut(unsigned connection)
{
    struct fake_connection *it;

    fake_lock();
    it = numbered(connection);
    for (int i = 0; it != NULL && i < 2; i++) {
        struct fake_id *id = it->side[i];

        if (id == NULL || id->state != FAKE_CONNECTED)
            continue;
        id->state = FAKE_TOLD;
        if (id->device->iwarp && id->pub.qp != NULL)
            fake_pair_end(pair_of(id));
        fake_event_put(id, RDMA_CM_EVENT_DISCONNECTED, 0);
    }
    fake_unlock();
}

void fake_late(unsigned looks)
{
    fake_lock();
    fake_world.late = looks;
    fake_unlock();
}

unsigned fake_late_left(void)
{
    unsigned ret;

    fake_lock();
    ret = fake_world.late;
    fake_unlock();
    return ret;
}

void fake_tell(unsigned connection, enum fake_side side, enum rdma_cm_event_type event,
               int status)
{
    struct fake_connection *it;

    fake_lock();
    it = numbered(connection);
    if (it != NULL && it->side[side] != NULL)
        fake_event_put(it->side[side], event, status);
    fake_unlock();
}
