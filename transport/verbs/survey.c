/* The verbs transport, for people: what this machine has, and how a peer is reached. */
#include "transport/verbs/verbs.h"

#include "engine/base/text_file.h"
#include "engine/base/text_page.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define GIDS_SHOWN 64

/* ---- what this machine has ----------------------------------------------- */

static const char *port_state(enum ibv_port_state state)
{
    switch ((int)state) {
    case IBV_PORT_ACTIVE:
        return "active";
    case IBV_PORT_DOWN:
        return "down";
    case IBV_PORT_INIT:
        return "initialising (is a subnet manager running?)";
    case IBV_PORT_ARMED:
        return "armed (is a subnet manager running?)";
    default:
        return "not usable";
    }
}

static void show_gids(struct text_page *page, struct ibv_context *context,
                      const char *device, uint8_t port,
                      const struct ibv_port_attr *attr)
{
    char path[256], type[64], net[64];
    union ibv_gid gid;
    int i;

    for (i = 0; i < attr->gid_tbl_len && i < GIDS_SHOWN; i++) {
        static const union ibv_gid none;
        struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
        char text[80];

        if (ibv_query_gid(context, port, i, &gid) != 0 ||
            memcmp(&gid, &none, sizeof gid) == 0)
            continue;
        memcpy(&in6.sin6_addr, gid.raw, sizeof in6.sin6_addr);
        verbs_address_text((const struct sockaddr *)(const void *)&in6, text,
                           sizeof text);
        if (strrchr(text, ']') != NULL)
            *strrchr(text, ']') = '\0';
        (void)snprintf(path, sizeof path,
                       "/sys/class/infiniband/%s/ports/%u/gid_attrs/types/%d", device,
                       port, i);
        if (!text_first_line(path, type, sizeof type))
            (void)snprintf(type, sizeof type, "?");
        (void)snprintf(path, sizeof path,
                       "/sys/class/infiniband/%s/ports/%u/gid_attrs/ndevs/%d", device,
                       port, i);
        if (!text_first_line(path, net, sizeof net))
            (void)snprintf(net, sizeof net, "no interface");
        text_add(page, "    gid %d: %s  %s  %s\n", i, text + 1, type, net);
    }
}

static void show_device(struct text_page *page, struct ibv_device *device)
{
    struct ibv_context *context = ibv_open_device(device);
    const char *name = ibv_get_device_name(device);
    struct ibv_device_attr attr;
    char path[256], node[32];
    uint8_t port;

    if (context == NULL) {
        text_add(page, "%s: cannot be opened (%s)\n", name, strerror(errno));
        return;
    }
    (void)snprintf(path, sizeof path, "/sys/class/infiniband/%s/device/numa_node",
                   name);
    if (!text_first_line(path, node, sizeof node))
        (void)snprintf(node, sizeof node, "none");
    if (ibv_query_device(context, &attr) != 0) {
        text_add(page, "%s: does not tell its limits\n", name);
        (void)ibv_close_device(context);
        return;
    }
    text_add(page, "%s: %s, firmware %s, NUMA node %s\n", name,
             device->transport_type == IBV_TRANSPORT_IWARP ? "iWARP"
                                                           : "InfiniBand or RoCE",
             attr.fw_ver[0] != '\0' ? attr.fw_ver : "none", node);
    text_add(
        page,
        "    limits: %d queue pairs, %d completion entries, %d regions, %d reads at "
        "once, memory windows %s\n",
        attr.max_qp, attr.max_cqe, attr.max_mr, attr.max_qp_rd_atom,
        attr.device_cap_flags &
                (IBV_DEVICE_MEM_WINDOW_TYPE_2A | IBV_DEVICE_MEM_WINDOW_TYPE_2B)
            ? "of type 2"
            : "none");
    for (port = 1; port <= attr.phys_port_cnt; port++) {
        struct ibv_port_attr at;

        if (ibv_query_port(context, port, &at) != 0)
            continue;
        text_add(page, "    port %u: %s, MTU %d of %d, largest message %u MiB\n", port,
                 port_state(at.state), 128 << (int)at.active_mtu,
                 128 << (int)at.max_mtu, at.max_msg_sz >> 20);
        show_gids(page, context, name, port, &at);
    }
    (void)ibv_close_device(context);
}

int verbs_survey(char *ret, size_t bytes)
{
    struct text_page page = text_page(ret, bytes);
    struct ibv_device **all;
    int count = 0, i;

    if (bytes == 0)
        return GAPLESS_INVALID;
    all = ibv_get_device_list(&count);
    for (i = 0; all != NULL && i < count; i++)
        show_device(&page, all[i]);
    if (all != NULL)
        ibv_free_device_list(all);
    return all == NULL ? 0 : count;
}

/* ---- how a peer is reached ----------------------------------------------- */

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
