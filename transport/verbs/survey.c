/* The verbs transport: what this machine has, for people. */
#include "transport/verbs/verbs.h"

#include "engine/base/text_page.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define GIDS_SHOWN 64

static bool first_line(const char *path, char *ret, int bytes)
{
    FILE *in = fopen(path, "r");
    bool good = in != NULL && fgets(ret, bytes, in) != NULL;

    if (in != NULL)
        (void)fclose(in);
    if (good)
        ret[strcspn(ret, "\n")] = '\0';
    return good;
}

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
        if (!first_line(path, type, sizeof type))
            (void)snprintf(type, sizeof type, "?");
        (void)snprintf(path, sizeof path,
                       "/sys/class/infiniband/%s/ports/%u/gid_attrs/ndevs/%d", device,
                       port, i);
        if (!first_line(path, net, sizeof net))
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
    if (!first_line(path, node, sizeof node))
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
