/* The verbs transport: opening and closing an endpoint, and the table. */
#include "transport/verbs/verbs.h"

#include "engine/base/clock.h"
#include "engine/base/process.h"

#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NOTES_MAX (1u << 20)
#define WINDOWS_MAX 64u
#define PEERS_MAX 60000u
#define TOKEN_MIN 16u
#define TOKEN_MAX 4096u

struct verbs_peer *verbs_peer_at(struct tp *tp, tp_peer peer)
{
    if (peer >= tp->config.peers_max || !tp->peers[peer].up || tp->peers[peer].ending)
        return NULL;
    return &tp->peers[peer];
}

/* ---- opening ------------------------------------------------------------- */

static int net_check(const struct tp_net *net, struct gapless_error *error)
{
    if (net->token != NULL &&
        (net->token_bytes < TOKEN_MIN || net->token_bytes > TOKEN_MAX))
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "the token has %zu bytes; %u to %u are possible",
                                 net->token_bytes, TOKEN_MIN, TOKEN_MAX);
    if (net->channels > VERBS_CHANNELS)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "%u channels; at most %u are possible", net->channels,
                                 VERBS_CHANNELS);
    if (net->retries > 6)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "%u retries; 1 to 6 are possible (7 means for ever on "
                                 "some devices)",
                                 net->retries);
    if (net->ack_timeout != 0 && (net->ack_timeout < 8 || net->ack_timeout > 20))
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "the acknowledge timeout is %u; 8 to 20 are possible "
                                 "(4.096 us times 2 to that power)",
                                 net->ack_timeout);
    return GAPLESS_OK;
}

static int net_take(struct tp *tp, const struct tp_net *net,
                    struct gapless_error *error)
{
    int status = net_check(net, error);

    if (status != GAPLESS_OK)
        return status;
    if (sodium_init() < 0)
        return gapless_error_set(error, GAPLESS_SYSTEM, 0,
                                 "libsodium found no source of random numbers");
    tp->config.net.token = NULL;
    tp->config.net.devices = NULL;
    tp->has_token = net->token != NULL;
    if (tp->has_token)
        (void)crypto_generichash(tp->key, sizeof tp->key, net->token, net->token_bytes,
                                 NULL, 0);
    if (net->devices != NULL && net->devices[0] != '\0') {
        tp->devices = strdup(net->devices);
        if (tp->devices == NULL)
            return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory");
    }
    if (net->retries == 0)
        tp->config.net.retries = 6;
    if (net->ack_timeout == 0)
        tp->config.net.ack_timeout = 14;
    return GAPLESS_OK;
}

static int tables_make(struct tp *tp, struct gapless_error *error)
{
    uint32_t i;

    tp->channels_max = tp->config.peers_max * VERBS_CHANNELS + VERBS_PENDING_CONNS;
    tp->peers = calloc(tp->config.peers_max, sizeof *tp->peers);
    tp->channels = calloc(tp->channels_max, sizeof(struct verbs_channel *));
    if (tp->peers == NULL || tp->channels == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0, "no memory for %u peers",
                                 tp->config.peers_max);
    for (i = 0; i < tp->config.peers_max; i++)
        tp->peers[i].life = 1;
    return GAPLESS_OK;
}

static int channel_open(struct tp *tp, struct gapless_error *error)
{
    int os = 0;

    tp->channel = rdma_create_event_channel();
    if (tp->channel == NULL)
        os = errno == 0 ? ENODEV : errno;
    else if (fcntl(tp->channel->fd, F_SETFL,
                   fcntl(tp->channel->fd, F_GETFL) | O_NONBLOCK) != 0 ||
             fcntl(tp->channel->fd, F_SETFD, FD_CLOEXEC) != 0)
        os = errno;
    if (os == 0)
        return GAPLESS_OK;
    return gapless_error_set(
        error, GAPLESS_UNSUPPORTED, os,
        "the RDMA connection manager is not there: load the kernel module rdma_ucm "
        "(modprobe rdma_ucm), and see that this user may open /dev/infiniband/rdma_cm; "
        "'gapless doctor' lists what this machine has");
}

static void endpoint_free(struct tp *tp);

static int verbs_open(const struct tp_config *given, struct tp **ret,
                      struct gapless_error *error)
{
    static const struct tp_limits limits = {"an endpoint of verbs", PEERS_MAX,
                                            NOTES_MAX, WINDOWS_MAX};
    struct tp_config config;
    struct tp *tp;
    int status = transport_config(given, &limits, &config, error);

    if (status != GAPLESS_OK)
        return status;
    tp = calloc(1, sizeof *tp);
    if (tp == NULL)
        return gapless_error_set(error, GAPLESS_NO_MEMORY, 0,
                                 "no memory for an endpoint");
    tp->config = config;
    tp->owner = process_number();
    status = net_take(tp, &config.net, error);
    if (status == GAPLESS_OK)
        status = tables_make(tp, error);
    if (status == GAPLESS_OK)
        status = channel_open(tp, error);
    if (status != GAPLESS_OK) {
        endpoint_free(tp);
        return status;
    }
    *ret = tp;
    return GAPLESS_OK;
}

static void texts_free(struct tp *tp)
{
    uint32_t i;

    while (tp->delivered != NULL) {
        struct verbs_text *next = tp->delivered->next;

        free(tp->delivered);
        tp->delivered = next;
    }
    for (i = 0; i < tp->pending_count; i++) {
        struct tp_event *event = &tp->pending[(tp->pending_at + i) % tp->pending_max];

        if (event->kind == TP_TEXT)
            free((char *)(uintptr_t)event->data - offsetof(struct verbs_text, data));
    }
    free(tp->pending);
}

/* Lets the other sides hear of the end. */
static void linger(struct tp *tp)
{
    uint64_t end = clock_ns() + VERBS_LINGER_NS;

    while (tp->busy_channels > 0 && clock_ns() < end)
        verbs_pause(tp, VERBS_LINGER_NS / 50);
}

static void endpoint_free(struct tp *tp)
{
    uint32_t i;

    for (i = 0; i < tp->listeners; i++)
        (void)rdma_destroy_id(tp->listener[i]);
    tp->listeners = 0;
    for (i = 0; tp->peers != NULL && i < tp->config.peers_max; i++)
        verbs_drop(tp, i);
    if (tp->peers != NULL && tp->channels != NULL && tp->channel != NULL)
        linger(tp);
    for (i = 0; tp->channels != NULL && i < tp->channels_max; i++)
        if (tp->channels[i] != NULL) {
            verbs_channel_free(tp->channels[i]);
            free(tp->channels[i]);
        }
    for (i = 0; i < tp->region_count; i++)
        if (tp->regions[i] != NULL) {
            verbs_region_release(tp, tp->regions[i]);
            free(tp->regions[i]);
        }
    verbs_nics_close(tp);
    if (tp->channel != NULL)
        rdma_destroy_event_channel(tp->channel);
    texts_free(tp);
    for (i = 0; tp->peers != NULL && i < tp->config.peers_max; i++)
        free(tp->peers[i].early);
    free(tp->regions);
    free(tp->channels);
    free(tp->peers);
    free(tp->devices);
    sodium_memzero(tp->key, sizeof tp->key);
    free(tp);
}

static void verbs_close(struct tp *tp)
{
    /* A forked child must not end what the card does for its parent: there it all stays. */
    if (tp != NULL && process_is(tp->owner))
        endpoint_free(tp);
}

/* ---- what is reported of it ---------------------------------------------- */

static void verbs_last_error(struct tp *tp, tp_peer peer, struct gapless_error *ret)
{
    if (peer < tp->config.peers_max)
        *ret = tp->peers[peer].reason;
    else
        *ret = tp->broken != 0 ? tp->reason : tp->refused;
}

static void verbs_count(struct tp *tp, struct tp_counters *ret)
{
    *ret = tp->counters;
}

static uint64_t verbs_now(struct tp *tp)
{
    (void)tp;
    return clock_ns();
}

const struct transport transport_verbs = {
    .name = "verbs",
    .mapped = false,
    .open = verbs_open,
    .close = verbs_close,
    .region_new = verbs_region_new,
    .region_free = verbs_region_free,
    .region_split = transport_region_split,
    .scratch = transport_scratch_none,
    .bind_memory = verbs_bind_memory,
    .loopback = verbs_loopback,
    .listen = verbs_listen,
    .connect = verbs_connect,
    .drop = verbs_drop,
    .send_control = verbs_send_control,
    .grant = verbs_grant,
    .window = verbs_window,
    .put = verbs_put,
    .get = verbs_get,
    .notify = verbs_notify,
    .poll = verbs_poll,
    .now_ns = verbs_now,
    .describe = verbs_describe,
    .last_error = verbs_last_error,
    .count = verbs_count,
};
