/* The verbs transport: how a peer is reached, in a line. */
#include "transport/verbs/verbs.h"

#include <stdio.h>
#include <string.h>

static void gid_text(const union ibv_gid *gid, char *ret, size_t bytes)
{
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    char text[80], *end;

    memcpy(&in6.sin6_addr, gid->raw, sizeof in6.sin6_addr);
    verbs_address_text((const struct sockaddr *)(const void *)&in6, text, sizeof text);
    end = strchr(text, ']');
    if (end != NULL)
        *end = '\0';
    (void)snprintf(ret, bytes, "%.*s", (int)bytes - 1, text + 1);
}

static size_t describe_channel(const struct verbs_channel *channel, uint32_t channels,
                               char *ret, size_t bytes)
{
    enum ibv_qp_attr_mask wanted = IBV_QP_PATH_MTU | IBV_QP_AV;
    struct ibv_qp_init_attr init;
    struct ibv_qp_attr attr = {0};
    char gid[64], here[64], path[64] = "";
    int length;

    if (channel->qp == NULL)
        return 0;
    gid_text(&channel->id->route.addr.addr.ibaddr.sgid, gid, sizeof gid);
    verbs_address_text(rdma_get_local_addr(channel->id), here, sizeof here);
    if (!channel->nic->iwarp &&
        ibv_query_qp(channel->qp, &attr, (int)wanted, &init) == 0)
        (void)snprintf(path, sizeof path, " index %u, path MTU %d",
                       attr.ah_attr.grh.sgid_index, 128 << (int)attr.path_mtu);
    length = snprintf(
        ret, bytes,
        "verbs: %s port %u, %s%s%s, chosen by %s (from %s to %s); %u channel%s",
        ibv_get_device_name(channel->nic->context->device), channel->id->port_num,
        channel->nic->iwarp ? "iWARP" : "GID ", channel->nic->iwarp ? "" : gid, path,
        channel->chosen, here, channel->name, channels, channels == 1 ? "" : "s");
    return length < 0 ? 0 : (size_t)length < bytes ? (size_t)length : bytes - 1;
}

size_t verbs_describe(struct tp *tp, tp_peer peer, char *ret, size_t bytes)
{
    int length;

    if (bytes == 0)
        return 0;
    ret[0] = '\0';
    if (peer < tp->config.peers_max && tp->peers[peer].up)
        return describe_channel(tp->peers[peer].channel[0],
                                tp->peers[peer].channel_count, ret, bytes);
    if (peer != TP_NOBODY || tp->listeners == 0)
        return 0;
    if (tp->listener[0]->verbs == NULL)
        length =
            snprintf(ret, bytes, "verbs: listening at %s, on every RDMA device; %s",
                     tp->address, tp->has_token ? "with a token" : "no token");
    else
        length = snprintf(
            ret, bytes,
            "verbs: listening at %s on %s port %u, the device with this "
            "address; %s",
            tp->address, ibv_get_device_name(tp->listener[0]->verbs->device),
            tp->listener[0]->port_num, tp->has_token ? "with a token" : "no token");
    return length < 0 ? 0 : (size_t)length < bytes ? (size_t)length : bytes - 1;
}
