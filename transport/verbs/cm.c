/* The verbs transport: connections, by librdmacm. The server takes events in poll; a
 * client that connects waits for them, with a bound of its own (the connection
 * manager's may be a minute). */
#include "transport/verbs/verbs.h"

#include "engine/base/clock.h"

#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#define BACKLOG 256
#define READS_MAX 16
/* While a server is full or not there yet, it is asked again so often. */
#define AGAIN_NS UINT64_C(20000000)
#define STEP_NS UINT64_C(10000000)
/* One attempt; a request that is lost (siw forgets one now and then) is made again. */
#define ATTEMPT_NS UINT64_C(3000000000)
/* Receives are there before anybody may send; this is for broken peers. */
#define RECEIVER_RETRIES 6

static uint8_t reads_out(const struct verbs_nic *nic)
{
    int most = nic->attr.max_qp_init_rd_atom;

    return (uint8_t)(most <= 0 ? 1 : most > READS_MAX ? READS_MAX : most);
}

static uint8_t reads_in(const struct verbs_nic *nic)
{
    int most = nic->attr.max_qp_rd_atom;

    return (uint8_t)(most <= 0 ? 1 : most > READS_MAX ? READS_MAX : most);
}

/* A device that refuses keeps its own timeout. */
static void ack_timeout_set(const struct tp *tp, struct rdma_cm_id *id)
{
    uint8_t timeout = (uint8_t)tp->config.net.ack_timeout;

    (void)rdma_set_option(id, RDMA_OPTION_ID, RDMA_OPTION_ID_ACK_TIMEOUT, &timeout,
                          sizeof timeout);
}

/* ---- the server ---------------------------------------------------------- */

static bool device_allowed(const struct tp *tp, const struct rdma_cm_id *id)
{
    char name[64];
    uint32_t i;

    if (tp->devices == NULL || id->verbs == NULL)
        return true;
    for (i = 0; verbs_device_at(tp->devices, i, name, sizeof name); i++)
        if (strcmp(name, ibv_get_device_name(id->verbs->device)) == 0)
            return true;
    return false;
}

static int listen_error(const struct verbs_address *address, int os,
                        struct gapless_error *error)
{
    if (os == EADDRINUSE)
        return gapless_error_set(error, GAPLESS_SYSTEM, os,
                                 "cannot listen at %s: its port is taken, by another "
                                 "master or, from 32768 on, by any connection; take "
                                 "another port, or end the other",
                                 address->text);
    return gapless_error_set(error, GAPLESS_SYSTEM, os,
                             "cannot listen at %s: no RDMA device has this address "
                             "('gapless doctor' lists devices; a network interface "
                             "without one can be given one: rdma link add rxe0 type "
                             "rxe netdev NAME)",
                             address->text);
}

static int listen_one(struct tp *tp, const struct verbs_address *address,
                      struct gapless_error *error)
{
    struct sockaddr_storage to = address->to;
    struct rdma_cm_id *id;

    if (!tp->has_token && !tp->config.net.insecure && !verbs_is_loopback(&to))
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "listening at %s without a token would let anybody in the network write "
            "into this run: give master and workers the same --token-file, or say "
            "--insecure",
            address->text);
    if (rdma_create_id(tp->channel, &id, NULL, RDMA_PS_TCP) != 0)
        return listen_error(address, errno, error);
    if (rdma_bind_addr(id, (struct sockaddr *)(void *)&to) != 0 ||
        rdma_listen(id, BACKLOG) != 0) {
        int os = errno;

        (void)rdma_destroy_id(id);
        return listen_error(address, os, error);
    }
    if (!device_allowed(tp, id)) {
        char name[64];

        (void)snprintf(name, sizeof name, "%s", ibv_get_device_name(id->verbs->device));
        (void)rdma_destroy_id(id);
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "%s is an address of %s, which is not among the "
                                 "devices %s",
                                 address->text, name, tp->devices);
    }
    tp->listener[tp->listeners++] = id;
    return GAPLESS_OK;
}

int verbs_listen(struct tp *tp, const char *address, struct gapless_error *error)
{
    struct verbs_address to[VERBS_LISTENERS];
    uint32_t count, i;
    int status;

    if (tp->role != VERBS_NEW)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "an endpoint listens once, or connects");
    status = verbs_addresses(address, true, to, VERBS_LISTENERS, &count, error);
    for (i = 0; status == GAPLESS_OK && i < count; i++)
        status = listen_one(tp, &to[i], error);
    tp->role = VERBS_SERVER;
    if (status == GAPLESS_OK)
        status = verbs_bind_all(tp, error);
    if (status != GAPLESS_OK) {
        while (tp->listeners > 0)
            (void)rdma_destroy_id(tp->listener[--tp->listeners]);
        tp->role = VERBS_NEW;
        return status;
    }
    (void)snprintf(tp->address, sizeof tp->address, "%s", address);
    return GAPLESS_OK;
}

static void reject(struct rdma_cm_id *id, int status, uint32_t number)
{
    struct verbs_request answer = {.magic = VERBS_MAGIC,
                                   .protocol = VERBS_PROTOCOL,
                                   .status = (uint16_t)-status,
                                   .number = number};

    (void)rdma_reject(id, &answer, sizeof answer);
    (void)rdma_destroy_id(id);
}

/* Of what a stranger asks: answered without a queue pair, and counted. */
static void reject_stranger(struct tp *tp, struct rdma_cm_id *id)
{
    char name[64];

    verbs_address_text(rdma_get_peer_addr(id), name, sizeof name);
    tp->counters.refused++;
    (void)gapless_error_set(&tp->refused, GAPLESS_REFUSED, 0,
                            "%s asked for a connection without this run's token", name);
    reject(id, GAPLESS_REFUSED, VERBS_PROTOCOL);
}

static bool knows_token(const struct tp *tp, const struct rdma_cm_id *id,
                        const struct verbs_request *request)
{
    uint8_t wanted[VERBS_ASK];

    verbs_request_mac(tp, id, wanted);
    return !tp->has_token || sodium_memcmp(wanted, request->mac, VERBS_ASK) == 0;
}

static uint32_t pending_conns(const struct tp *tp)
{
    uint32_t i, count = 0;

    for (i = 0; i < tp->channels_max && tp->busy_channels > 0; i++)
        count += tp->channels[i] != NULL && tp->channels[i]->peer == NULL &&
                 (tp->channels[i]->state == CHANNEL_MAKING ||
                  tp->channels[i]->state == CHANNEL_GREETED ||
                  tp->channels[i]->state == CHANNEL_WAITING);
    return count;
}

static void on_request(struct tp *tp, struct rdma_cm_id *id,
                       const struct verbs_request *request,
                       const struct rdma_conn_param *offered)
{
    struct rdma_conn_param accepted = {.rnr_retry_count = RECEIVER_RETRIES};
    struct gapless_error reason = {0};
    struct verbs_channel *channel;

    if (request->magic != VERBS_MAGIC || request->protocol != VERBS_PROTOCOL) {
        reject(id, GAPLESS_VERSION, VERBS_PROTOCOL);
        return;
    }
    if (!knows_token(tp, id, request)) {
        reject_stranger(tp, id);
        return;
    }
    channel = pending_conns(tp) < VERBS_PENDING_CONNS ? verbs_channel_new(tp) : NULL;
    if (channel == NULL) {
        reject(id, GAPLESS_AGAIN, 0);
        return;
    }
    channel->id = id;
    channel->far_pair = offered->qp_num;
    id->context = channel;
    verbs_channel_state(channel, CHANNEL_MAKING);
    channel->deadline_ns = clock_ns() + VERBS_GREET_NS;
    verbs_address_text(rdma_get_peer_addr(id), channel->name, sizeof channel->name);
    if (!device_allowed(tp, id) || verbs_channel_open(channel, &reason) != GAPLESS_OK) {
        struct verbs_request answer = {.magic = VERBS_MAGIC,
                                       .protocol = VERBS_PROTOCOL,
                                       .status = (uint16_t)-GAPLESS_CAPACITY};

        tp->reason = reason;
        (void)rdma_reject(id, &answer, sizeof answer);
        verbs_channel_free(channel);
        return;
    }
    ack_timeout_set(tp, id);
    accepted.responder_resources = offered->responder_resources < reads_in(channel->nic)
                                       ? offered->responder_resources
                                       : reads_in(channel->nic);
    accepted.initiator_depth = offered->initiator_depth;
    if (rdma_accept(id, &accepted) != 0)
        verbs_channel_free(channel);
}

/* ---- events -------------------------------------------------------------- */

/* Where one listens at every device the others are still there. A nic's id goes with
 * its channels, which learn it themselves. */
static void listener_gone(struct tp *tp, const struct rdma_cm_id *id)
{
    uint32_t i;

    for (i = 0; i < tp->listeners && tp->listener[i] != id; i++)
        ;
    if (i == tp->listeners)
        return;
    (void)gapless_error_set(&tp->reason, GAPLESS_SYSTEM, 0,
                            "the RDMA device that %s belongs to was removed",
                            tp->address);
    tp->broken = GAPLESS_SYSTEM;
}

static void on_channel_event(struct verbs_channel *channel,
                             enum rdma_cm_event_type kind, int status)
{
    struct gapless_error reason = {0};

    switch ((int)kind) {
    case RDMA_CM_EVENT_ESTABLISHED:
        channel->connected = channel->established = true;
        if (channel->state == CHANNEL_ENDING) /* asked for before, in vain */
            (void)rdma_disconnect(channel->id);
        if (channel->state == CHANNEL_MAKING)
            verbs_channel_state(channel, CHANNEL_GREETED);
        break;
    case RDMA_CM_EVENT_TIMEWAIT_EXIT:
    case RDMA_CM_EVENT_ADDR_CHANGE:
        return;
    case RDMA_CM_EVENT_UNREACHABLE:
        if (channel->connected)
            return; /* said now and then of a link that is down; the queue pair decides
                     */
        break;
    case RDMA_CM_EVENT_ADDR_RESOLVED:
    case RDMA_CM_EVENT_ROUTE_RESOLVED:
        break;
    default:
        verbs_drain_all(channel->tp); /* what it said before, a farewell perhaps */
        if (channel->state == CHANNEL_ENDING || channel->state == CHANNEL_FREE) {
            channel->disconnected = true;
            break;
        }
        if (!verbs_access_error(channel, &reason))
            verbs_event_error(channel, (int)kind, status, &reason);
        channel->disconnected = true;
        if (channel->peer != NULL &&
            (channel->tp->role == VERBS_SERVER || channel->connected))
            verbs_peer_end(channel->peer, &reason);
        else if (channel->connected || channel->tp->role == VERBS_SERVER)
            verbs_channel_end(channel, &reason);
        break;
    }
    channel->event = (int)kind;
    channel->event_status = status;
}

void verbs_cm_take(struct tp *tp)
{
    struct rdma_cm_event *event;

    while (rdma_get_cm_event(tp->channel, &event) == 0) {
        enum rdma_cm_event_type kind = event->event;
        struct rdma_cm_id *id = event->id;
        struct rdma_conn_param conn = event->param.conn;
        struct verbs_channel *channel = id->context;
        struct verbs_request data = {0};
        int status = event->status;

        if ((kind == RDMA_CM_EVENT_CONNECT_REQUEST || kind == RDMA_CM_EVENT_REJECTED) &&
            conn.private_data != NULL && conn.private_data_len >= sizeof data)
            memcpy(&data, conn.private_data, sizeof data);
        if (kind == RDMA_CM_EVENT_CONNECT_REQUEST)
            channel = NULL; /* it has the listener's context until it has its own */
        (void)rdma_ack_cm_event(event);
        if (kind == RDMA_CM_EVENT_CONNECT_REQUEST) {
            on_request(tp, id, &data, &conn);
        } else if (channel == NULL) {
            if (kind == RDMA_CM_EVENT_DEVICE_REMOVAL)
                listener_gone(tp, id);
        } else if (channel->id == id) {
            if (kind == RDMA_CM_EVENT_ESTABLISHED && tp->role == VERBS_CLIENT)
                channel->far_pair = conn.qp_num;
            if (kind == RDMA_CM_EVENT_REJECTED && data.magic == VERBS_MAGIC)
                status = -(int)data.status;
            on_channel_event(channel, kind, status);
        }
    }
}

/* ---- the client ---------------------------------------------------------- */

struct attempt {
    struct tp *tp;
    struct verbs_peer *peer;
    const struct verbs_address *to;
    uint64_t end_ns;
    struct gapless_error *reason;
};

static int too_late(const struct attempt *a, const char *what)
{
    return gapless_error_set(a->reason, GAPLESS_TIMEOUT, 0, "%s %s", a->to->text, what);
}

/* Waits for an event of the channel; any but `wanted` is a failure. */
static int await(const struct attempt *a, struct verbs_channel *channel,
                 enum rdma_cm_event_type wanted, const char *late)
{
    while (channel->event < 0) {
        uint64_t now = clock_ns();

        if (now >= a->end_ns)
            return too_late(a, late);
        verbs_pause(a->tp, a->end_ns - now < STEP_NS ? a->end_ns - now : STEP_NS);
    }
    if (channel->event == (int)wanted) {
        channel->event = -1;
        return GAPLESS_OK;
    }
    verbs_event_error(channel, channel->event, channel->event_status, a->reason);
    return a->reason->status;
}

static int milliseconds(const struct attempt *a)
{
    uint64_t now = clock_ns();

    return now >= a->end_ns ? 1 : (int)((a->end_ns - now) / 1000000) + 1;
}

/* Address, then route: to the device that the address or --device says. */
static int resolve(const struct attempt *a, struct verbs_channel *channel,
                   uint32_t number)
{
    struct sockaddr_storage from = {0}, to = a->to->to;
    char device[64];
    uint32_t devices = 0;
    bool bound = false;
    int status;

    while (verbs_device_at(a->tp->devices, devices, device, sizeof device))
        devices++;
    if (devices > 0) {
        (void)verbs_device_at(a->tp->devices, number % devices, device, sizeof device);
        bound = verbs_device_source(a->tp, device, &to, &from);
        if (!bound)
            return gapless_error_set(a->reason, GAPLESS_INVALID, 0,
                                     "the device %s has no address from which %s could "
                                     "be reached: 'gapless doctor' lists devices and "
                                     "their addresses",
                                     device, a->to->text);
    } else {
        bound = verbs_device_near(a->tp, &to, &from);
    }
    channel->chosen = devices > 0 ? "--device" : bound ? "its NUMA node" : "the route";
    if (rdma_resolve_addr(channel->id, bound ? (struct sockaddr *)(void *)&from : NULL,
                          (struct sockaddr *)(void *)&to, milliseconds(a)) != 0)
        return gapless_error_set(
            a->reason, errno == ENODEV ? GAPLESS_UNSUPPORTED : GAPLESS_TIMEOUT, errno,
            "no RDMA device leads to %s: 'gapless doctor' lists devices and their "
            "addresses",
            a->to->text);
    status =
        await(a, channel, RDMA_CM_EVENT_ADDR_RESOLVED, "is not known in this network");
    if (status != GAPLESS_OK)
        return status;
    if (rdma_resolve_route(channel->id, milliseconds(a)) != 0)
        return gapless_error_set(a->reason, GAPLESS_TIMEOUT, errno,
                                 "there is no route to %s", a->to->text);
    return await(a, channel, RDMA_CM_EVENT_ROUTE_RESOLVED, "cannot be reached");
}

static int shake_hands(const struct attempt *a, struct verbs_channel *channel,
                       uint32_t number, uint32_t channels)
{
    if (verbs_handshake_start(channel, number == 0 ? 0 : a->peer->session, number,
                              channels) != GAPLESS_OK)
        return gapless_error_set(a->reason, GAPLESS_TIMEOUT, 0,
                                 "the greeting to %s cannot be sent", a->to->text);
    while (channel->state != CHANNEL_LIVE) {
        uint64_t now = clock_ns();

        if (channel->state == CHANNEL_ENDING) {
            *a->reason = channel->refusal;
            if (a->reason->status == GAPLESS_OK)
                (void)gapless_error_set(a->reason, GAPLESS_TIMEOUT, 0,
                                        "%s ended the greeting", a->to->text);
            if (a->reason->status == GAPLESS_PEER_LOST)
                a->reason->status = GAPLESS_TIMEOUT; /* it may come back */
            return a->reason->status;
        }
        if (now >= a->end_ns)
            return too_late(a, "took the connection but did not answer the greeting");
        verbs_pause(a->tp, a->end_ns - now < STEP_NS ? a->end_ns - now : STEP_NS);
    }
    return GAPLESS_OK;
}

static int channel_connect(const struct attempt *a, uint32_t number, uint32_t channels)
{
    struct verbs_request request = {.magic = VERBS_MAGIC, .protocol = VERBS_PROTOCOL};
    struct rdma_conn_param param = {.private_data = &request,
                                    .private_data_len = sizeof request,
                                    .retry_count = (uint8_t)a->tp->config.net.retries,
                                    .rnr_retry_count = RECEIVER_RETRIES};
    struct verbs_channel *channel = verbs_channel_new(a->tp);
    int status;

    if (channel == NULL)
        return gapless_error_set(a->reason, GAPLESS_AGAIN, 0,
                                 "too many earlier attempts have not ended yet");
    (void)snprintf(channel->name, sizeof channel->name, "%.63s", a->to->text);
    verbs_channel_state(channel, CHANNEL_MAKING);
    channel->peer = a->peer;
    channel->number = number;
    a->peer->channel[number] = channel;
    if (rdma_create_id(a->tp->channel, &channel->id, channel, RDMA_PS_TCP) != 0)
        return gapless_error_set(a->reason, GAPLESS_SYSTEM, errno,
                                 "the connection manager gives no more connections");
    ack_timeout_set(a->tp, channel->id);
    status = resolve(a, channel, number);
    if (status == GAPLESS_OK)
        status = verbs_channel_open(channel, a->reason);
    if (status != GAPLESS_OK)
        return status;
    verbs_request_mac(a->tp, channel->id, request.mac);
    param.initiator_depth = reads_out(channel->nic);
    param.responder_resources = reads_in(channel->nic);
    if (rdma_connect(channel->id, &param) != 0)
        return gapless_error_set(a->reason, GAPLESS_TIMEOUT, errno,
                                 "the connection to %s cannot be asked for",
                                 a->to->text);
    status = await(a, channel, RDMA_CM_EVENT_ESTABLISHED,
                   "did not answer: is the master there, and no firewall between?");
    return status == GAPLESS_OK ? shake_hands(a, channel, number, channels) : status;
}

static int connect_once(struct tp *tp, struct verbs_peer *peer,
                        const struct verbs_address *to, uint32_t addresses,
                        uint32_t channels, uint64_t end_ns,
                        struct gapless_error *reason)
{
    struct attempt a = {.tp = tp, .peer = peer, .end_ns = end_ns, .reason = reason};
    int status = GAPLESS_OK;
    uint32_t i;

    peer->used = true;
    peer->ending = peer->dropped = peer->up = peer->said_bye = false;
    peer->reason = (struct gapless_error){0};
    peer->channel_count = channels;
    peer->next_channel = 0;
    peer->note_in = peer->note_out = peer->early_count = 0;
    peer->windows_max = tp->config.windows_max;
    for (i = 0; status == GAPLESS_OK && i < channels; i++) {
        a.to = &to[i % addresses];
        status = channel_connect(&a, i, channels);
    }
    if (status == GAPLESS_OK && peer->ending)
        status =
            gapless_error_set(reason, GAPLESS_TIMEOUT, 0, "%s went at once", to->text);
    if (status == GAPLESS_OK)
        peer->up = true;
    else
        verbs_peer_free(peer);
    return status;
}

/* A peer slot, once the peer that leaves one has left it. */
static struct verbs_peer *peer_slot_wait(struct tp *tp, uint64_t end_ns)
{
    uint32_t i;

    for (;;) {
        bool leaving = false;

        for (i = 0; i < tp->config.peers_max; i++) {
            if (!tp->peers[i].used)
                return &tp->peers[i];
            leaving = leaving || !tp->peers[i].up || tp->peers[i].ending;
        }
        if (!leaving || clock_ns() >= end_ns)
            return NULL;
        verbs_pause(tp, STEP_NS / 10);
    }
}

static uint32_t channels_wanted(const struct tp *tp, uint32_t addresses)
{
    char name[64];
    uint32_t devices = 0, channels = tp->config.net.channels;

    while (verbs_device_at(tp->devices, devices, name, sizeof name))
        devices++;
    if (channels == 0)
        channels = devices > addresses ? devices : addresses;
    return channels < VERBS_CHANNELS ? channels : VERBS_CHANNELS;
}

int verbs_connect(struct tp *tp, const char *address, int64_t timeout_ns, tp_peer *ret,
                  struct gapless_error *error)
{
    uint64_t bound = timeout_ns < 0 ? UINT64_C(1000000000) : (uint64_t)timeout_ns;
    uint64_t end = clock_ns() + bound, now;
    struct verbs_address to[VERBS_LISTENERS];
    struct gapless_error reason = {0}, last = {0};
    struct verbs_peer *peer;
    uint32_t addresses;
    bool reported = false;
    int status;

    if (tp->role == VERBS_SERVER)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "an endpoint that listens does not connect");
    status = verbs_addresses(address, false, to, VERBS_LISTENERS, &addresses, error);
    if (status != GAPLESS_OK)
        return status;
    tp->role = VERBS_CLIENT;
    peer = peer_slot_wait(tp, end);
    if (peer == NULL)
        return gapless_error_set(error, GAPLESS_CAPACITY, 0,
                                 "this endpoint was opened for %u connections, and "
                                 "they are all made",
                                 tp->config.peers_max);
    (void)gapless_error_set(&reason, GAPLESS_TIMEOUT, 0, "no time was given");
    for (now = clock_ns(); now < end; now = clock_ns()) {
        status = connect_once(tp, peer, to, addresses, channels_wanted(tp, addresses),
                              end - now < ATTEMPT_NS ? end : now + ATTEMPT_NS, &last);
        /* That the bound cut the last attempt short says less than earlier ones. */
        if (clock_ns() < end || !reported)
            reason = last;
        reported = true;
        if (status == GAPLESS_OK) {
            *ret = (tp_peer)(peer - tp->peers);
            return GAPLESS_OK;
        }
        if (status != GAPLESS_TIMEOUT && status != GAPLESS_AGAIN) {
            if (error != NULL)
                *error = last;
            return status;
        }
        verbs_pause(tp, AGAIN_NS);
    }
    return gapless_error_set(error, GAPLESS_TIMEOUT, 0,
                             "no master at %s within %.1f s: start it, or wait longer; "
                             "last: %.300s",
                             address, 1e-9 * (double)bound, reason.text);
}
