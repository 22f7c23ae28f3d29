/* Settings of a network in, traffic and path of a connection out. */
#include "engine/run/network.h"

#define TOKEN_MIN 16u
#define TOKEN_MAX 4096u
#define RETRIES_MAX 6u
#define ACK_MIN 8u
#define ACK_MAX 20u
#define CHANNELS_MAX 16u

int network_settings(const struct gapless_net *net, struct tp_net *ret,
                     struct gapless_error *error)
{
    if (net->token != NULL &&
        (net->token_bytes < TOKEN_MIN || net->token_bytes > TOKEN_MAX))
        return gapless_error_set(
            error, GAPLESS_INVALID, 0,
            "the network token has %zu bytes; it must have %u to "
            "%u (32 random ones: head -c 32 /dev/urandom | base64)",
            net->token_bytes, TOKEN_MIN, TOKEN_MAX);
    if (net->token == NULL && net->token_bytes > 0)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "the network token has %zu bytes but is not given",
                                 net->token_bytes);
    if (net->retries > RETRIES_MAX)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "the network's retries are %u; 1 to %u are possible, "
                                 "and 0 means %u",
                                 net->retries, RETRIES_MAX, RETRIES_MAX);
    if (net->ack_timeout != 0 &&
        (net->ack_timeout < ACK_MIN || net->ack_timeout > ACK_MAX))
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "the network's acknowledgement timeout is %u; %u to "
                                 "%u are possible (4.096 us << n), and 0 means 14, 67 "
                                 "ms",
                                 net->ack_timeout, ACK_MIN, ACK_MAX);
    if (net->channels > CHANNELS_MAX)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "%u channels to a peer are too many; at most %u are "
                                 "possible, and 0 means one for each device",
                                 net->channels, CHANNELS_MAX);
    *ret = (struct tp_net){
        .token = net->token,
        .token_bytes = net->token_bytes,
        .insecure = net->insecure,
        .devices = net->devices,
        .channels = net->channels,
        .retries = net->retries,
        .ack_timeout = net->ack_timeout,
    };
    return GAPLESS_OK;
}

void network_traffic(const struct transport *transport, struct tp *tp,
                     struct gapless_traffic *ret)
{
    struct tp_counters counters = {0};

    transport->count(tp, &counters);
    *ret = (struct gapless_traffic){
        .requests = counters.requests,
        .doorbells = counters.doorbells,
        .completions = counters.completions,
        .wakeups = counters.wakeups,
        .regions = counters.regions,
    };
}

void network_link(const struct transport *transport, struct tp *tp, tp_peer peer,
                  char *ret, size_t bytes)
{
    if (bytes == 0)
        return;
    ret[0] = '\0';
    (void)transport->describe(tp, peer, ret, bytes);
    ret[bytes - 1] = '\0';
}

int gapless_network_survey(char *ret, size_t bytes)
{
#if GAPLESS_HAVE_VERBS
    return verbs_survey(ret, bytes);
#else
    if (bytes > 0)
        ret[0] = '\0';
    return GAPLESS_MISSING;
#endif
}
