/* The verbs transport: addresses, and which device an address belongs to. */
#include "transport/verbs/verbs.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Splits "HOST:PORT" or "[HOST]:PORT" in place. */
static bool host_port(char *text, char **ret_host, char **ret_port)
{
    char *colon = strrchr(text, ':');
    char *end;

    if (colon == NULL || colon == text || colon[1] == '\0' ||
        strspn(colon + 1, "0123456789") != strlen(colon + 1) || strlen(colon + 1) > 5)
        return false;
    *colon = '\0';
    *ret_port = colon + 1;
    *ret_host = text;
    if (text[0] == '[') {
        end = strchr(text, ']');
        if (end == NULL || end[1] != '\0')
            return false;
        *end = '\0';
        *ret_host = text + 1;
    } else if (strchr(text, ':') != NULL) {
        return false; /* IPv6 goes into brackets */
    }
    return (*ret_host)[0] != '\0';
}

static int one_address(const char *text, size_t length, bool listening,
                       struct verbs_address *ret, struct gapless_error *error)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICSERV | (listening ? AI_PASSIVE : 0)};
    struct addrinfo *found = NULL;
    char copy[VERBS_HOST], *host = NULL, *port = NULL;
    int failed;

    if (length == 0 || length >= sizeof copy)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "'%.*s' is no address: write HOST:PORT, an IPv6 "
                                 "address in brackets, [fd00::1]:7471",
                                 (int)(length < 80 ? length : 80), text);
    memcpy(copy, text, length);
    copy[length] = '\0';
    memcpy(ret->text, copy, sizeof copy);
    if (!host_port(copy, &host, &port) || strtoul(port, NULL, 10) > 65535 ||
        strtoul(port, NULL, 10) == 0)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "'%s' is no address: write HOST:PORT, an IPv6 address "
                                 "in brackets, [fd00::1]:7471",
                                 ret->text);
    failed = getaddrinfo(host, port, &hints, &found);
    if (failed != 0 || found == NULL)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "the host of '%s' is not known: %s", ret->text,
                                 gai_strerror(failed));
    memset(&ret->to, 0, sizeof ret->to);
    memcpy(&ret->to, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    return GAPLESS_OK;
}

int verbs_addresses(const char *text, bool listening, struct verbs_address *ret,
                    uint32_t max, uint32_t *ret_count, struct gapless_error *error)
{
    uint32_t count = 0;
    int status;

    if (text == NULL || text[0] == '\0')
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "an empty address: write HOST:PORT");
    for (;;) {
        size_t length = strcspn(text, ",");

        if (count == max)
            return gapless_error_set(error, GAPLESS_INVALID, 0,
                                     "more than %u addresses", max);
        status = one_address(text, length, listening, &ret[count], error);
        if (status != GAPLESS_OK)
            return status;
        count++;
        if (text[length] == '\0')
            break;
        text += length + 1;
    }
    *ret_count = count;
    return GAPLESS_OK;
}

bool verbs_device_at(const char *list, uint32_t at, char *ret, size_t bytes)
{
    size_t length;

    if (list == NULL)
        return false;
    for (; at > 0; at--) {
        list = strchr(list, ',');
        if (list == NULL)
            return false;
        list++;
    }
    length = strcspn(list, ",");
    if (length == 0 || length >= bytes)
        return false;
    memcpy(ret, list, length);
    ret[length] = '\0';
    return true;
}

/* The device that a local address belongs to, as the connection manager has it: that
 * works for every kind of device. */
static bool device_of(struct rdma_event_channel *channel,
                      const struct sockaddr *address, char *ret, size_t bytes)
{
    struct sockaddr_storage here = {0};
    struct rdma_cm_id *id;
    bool found;

    memcpy(&here, address,
           address->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                          : sizeof(struct sockaddr_in));
    if (rdma_create_id(channel, &id, NULL, RDMA_PS_TCP) != 0)
        return false;
    found =
        rdma_bind_addr(id, (struct sockaddr *)(void *)&here) == 0 && id->verbs != NULL;
    if (found)
        (void)snprintf(ret, bytes, "%s", ibv_get_device_name(id->verbs->device));
    (void)rdma_destroy_id(id);
    return found;
}

static bool same_network(const struct sockaddr *a, const struct sockaddr *mask,
                         const struct sockaddr_storage *b)
{
    const uint8_t *at, *am, *to;
    size_t bytes, i;

    if (mask == NULL)
        return false;
    if (a->sa_family == AF_INET) {
        at = (const uint8_t *)&((const struct sockaddr_in *)(const void *)a)->sin_addr;
        am = (const uint8_t *)&((const struct sockaddr_in *)(const void *)mask)
                 ->sin_addr;
        to = (const uint8_t *)&((const struct sockaddr_in *)(const void *)b)->sin_addr;
        bytes = 4;
    } else {
        at = ((const struct sockaddr_in6 *)(const void *)a)->sin6_addr.s6_addr;
        am = ((const struct sockaddr_in6 *)(const void *)mask)->sin6_addr.s6_addr;
        to = ((const struct sockaddr_in6 *)(const void *)b)->sin6_addr.s6_addr;
        bytes = 16;
    }
    for (i = 0; i < bytes; i++)
        if ((at[i] & am[i]) != (to[i] & am[i]))
            return false;
    return true;
}

bool verbs_device_source(struct tp *tp, const char *device,
                         const struct sockaddr_storage *to,
                         struct sockaddr_storage *ret)
{
    struct ifaddrs *all = NULL, *at;
    bool found = false, near = false;
    char name[64];

    if (getifaddrs(&all) != 0)
        return false;
    for (at = all; at != NULL && !near; at = at->ifa_next) {
        if (at->ifa_addr == NULL || at->ifa_addr->sa_family != to->ss_family ||
            !device_of(tp->channel, at->ifa_addr, name, sizeof name) ||
            strcmp(name, device) != 0)
            continue;
        near = same_network(at->ifa_addr, at->ifa_netmask, to);
        if (found && !near)
            continue;
        memset(ret, 0, sizeof *ret);
        memcpy(ret, at->ifa_addr,
               to->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                         : sizeof(struct sockaddr_in));
        found = true;
    }
    freeifaddrs(all);
    return found;
}

static int numa_node_of(const char *device)
{
    char path[300], line[16] = "-1";
    FILE *in;

    (void)snprintf(path, sizeof path, "/sys/class/infiniband/%s/device/numa_node",
                   device);
    in = fopen(path, "r");
    if (in != NULL) {
        if (fgets(line, sizeof line, in) == NULL)
            line[0] = '\0';
        (void)fclose(in);
    }
    return (int)strtol(line, NULL, 10);
}

bool verbs_device_near(struct tp *tp, const struct sockaddr_storage *to,
                       struct sockaddr_storage *ret)
{
    unsigned cpu = 0, here = 0, devices = 0;
    struct ifaddrs *all = NULL, *at;
    bool found = false;
    char name[64];

    (void)getcpu(&cpu, &here);
    if (getifaddrs(&all) != 0)
        return false;
    for (at = all; at != NULL; at = at->ifa_next) {
        if (at->ifa_addr == NULL || at->ifa_addr->sa_family != to->ss_family ||
            !same_network(at->ifa_addr, at->ifa_netmask, to) ||
            !device_of(tp->channel, at->ifa_addr, name, sizeof name))
            continue;
        devices++;
        if (found || numa_node_of(name) != (int)here)
            continue;
        memset(ret, 0, sizeof *ret);
        memcpy(ret, at->ifa_addr,
               to->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                         : sizeof(struct sockaddr_in));
        found = true;
    }
    freeifaddrs(all);
    return found && devices > 1;
}

void verbs_address_text(const struct sockaddr *address, char *ret, size_t bytes)
{
    char host[INET6_ADDRSTRLEN] = "?";

    if (address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 =
            (const struct sockaddr_in6 *)(const void *)address;

        (void)inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof host);
        (void)snprintf(ret, bytes, "[%s]:%u", host, ntohs(in6->sin6_port));
    } else {
        const struct sockaddr_in *in =
            (const struct sockaddr_in *)(const void *)address;

        (void)inet_ntop(AF_INET, &in->sin_addr, host, sizeof host);
        (void)snprintf(ret, bytes, "%s:%u", host, ntohs(in->sin_port));
    }
}

bool verbs_is_loopback(const struct sockaddr_storage *address)
{
    if (address->ss_family == AF_INET6)
        return IN6_IS_ADDR_LOOPBACK(
            &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr);
    return ntohl(
               ((const struct sockaddr_in *)(const void *)address)->sin_addr.s_addr) >>
               24 ==
           127;
}
