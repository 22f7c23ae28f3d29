/* Which address of this machine can do RDMA: interfaces that the kernel ties to an RDMA
 * device, and their addresses.
 *
 *   rdma netlink   port of a device -> interface   RoCE and iWARP, soft devices too
 *   sysfs          gid_attrs/ndevs -> interface    RoCE, VLANs, older kernels
 *   sysfs          net/NAME/type = 32              IP over InfiniBand
 */
#include "cluster/task/network.h"

#include "engine/base/text_file.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <ifaddrs.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <rdma/rdma_netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ARP_INFINIBAND 32
#define ANSWER_MS 1000 /* the kernel answers at once, or not at all */
#define DEVICES_MAX 64

static void add(struct network_links *to, const char *name)
{
    for (unsigned i = 0; i < to->count; i++)
        if (strcmp(to->name[i], name) == 0)
            return;
    if (to->count < NETWORK_LINKS_MAX && strlen(name) < sizeof to->name[0] &&
        name[0] != '\0')
        memcpy(to->name[to->count++], name, strlen(name) + 1);
}

/* ---- sysfs --------------------------------------------------------------- */

/* Calls `each` for every name in a folder; passes over one that is not there. */
static void each_name(const char *path,
                      void (*each)(const char *path, const char *name, void *context),
                      void *context)
{
    DIR *folder = opendir(path);
    const struct dirent *entry;

    if (folder == NULL)
        return;
    while ((entry = readdir(folder)) != NULL)
        if (entry->d_name[0] != '.')
            each(path, entry->d_name, context);
    (void)closedir(folder);
}

static void see_gid(const char *path, const char *name, void *context)
{
    char file[512], link[64];

    (void)snprintf(file, sizeof file, "%.400s/%.80s", path, name);
    if (text_first_line(file, link, sizeof link)) /* of an unused entry it fails */
        add(context, link);
}

static void see_port(const char *path, const char *name, void *context)
{
    char folder[512];

    (void)snprintf(folder, sizeof folder, "%.400s/%.20s/gid_attrs/ndevs", path, name);
    each_name(folder, see_gid, context);
}

static void see_device(const char *path, const char *name, void *context)
{
    char folder[512];

    (void)snprintf(folder, sizeof folder, "%.400s/%.64s/ports", path, name);
    each_name(folder, see_port, context);
}

static void see_interface(const char *path, const char *name, void *context)
{
    char file[512], text[32];

    (void)snprintf(file, sizeof file, "%.400s/%.64s/type", path, name);
    if (text_first_line(file, text, sizeof text) &&
        strtol(text, NULL, 10) == ARP_INFINIBAND)
        add(context, name);
}

/* ---- rdma netlink -------------------------------------------------------- */

/* Every attribute of a message, `length` bytes at `at`. */
struct attribute {
    unsigned type;
    const void *data;
    size_t bytes;
};

static bool next_attribute(const char **at, size_t *length, struct attribute *ret)
{
    struct nlattr head;
    size_t whole;

    if (*length < sizeof head)
        return false;
    memcpy(&head, *at, sizeof head);
    if (head.nla_len < sizeof head || head.nla_len > *length)
        return false;
    *ret = (struct attribute){head.nla_type & (unsigned)NLA_TYPE_MASK,
                              *at + sizeof head, head.nla_len - sizeof head};
    whole = ((size_t)head.nla_len + NLA_ALIGNTO - 1) / NLA_ALIGNTO * NLA_ALIGNTO;
    whole = whole > *length ? *length : whole;
    *at += whole;
    *length -= whole;
    return true;
}

struct devices {
    unsigned count;
    uint32_t index[DEVICES_MAX];
};

static void note_device(const struct attribute *attribute, void *context)
{
    struct devices *devices = context;

    if (attribute->type == RDMA_NLDEV_ATTR_DEV_INDEX &&
        attribute->bytes >= sizeof(uint32_t) && devices->count < DEVICES_MAX)
        memcpy(&devices->index[devices->count++], attribute->data, sizeof(uint32_t));
}

static void note_link(const struct attribute *attribute, void *context)
{
    char name[IF_NAMESIZE] = "";

    if (attribute->type != RDMA_NLDEV_ATTR_NDEV_NAME || attribute->bytes == 0 ||
        attribute->bytes > sizeof name)
        return;
    memcpy(name, attribute->data, attribute->bytes);
    name[sizeof name - 1] = '\0';
    add(context, name);
}

/* Reads one answer. False: it was the last, or not one. */
static bool take_answer(const char *at, size_t length,
                        void (*note)(const struct attribute *, void *), void *context)
{
    while (length >= sizeof(struct nlmsghdr)) {
        struct nlmsghdr head;
        struct attribute attribute;
        const char *inside = at + NLMSG_HDRLEN;
        size_t left, whole;

        memcpy(&head, at, sizeof head);
        if (head.nlmsg_len < sizeof head || head.nlmsg_len > length ||
            head.nlmsg_type == NLMSG_DONE || head.nlmsg_type == NLMSG_ERROR)
            return false;
        left = head.nlmsg_len - NLMSG_HDRLEN;
        while (next_attribute(&inside, &left, &attribute))
            note(&attribute, context);
        whole = NLMSG_ALIGN((size_t)head.nlmsg_len);
        if (whole >= length)
            break;
        at += whole;
        length -= whole;
    }
    return true;
}

/* Asks for all devices, or with `device` for all ports of one. */
static void ask(int fd, uint16_t command, const uint32_t *device,
                void (*note)(const struct attribute *, void *), void *context)
{
    struct {
        struct nlmsghdr head;
        struct nlattr attribute;
        uint32_t device;
    } question = {
        .head = {.nlmsg_len = sizeof question,
                 .nlmsg_type = (uint16_t)RDMA_NL_GET_TYPE((unsigned)RDMA_NL_NLDEV,
                                                          (unsigned)command),
                 .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
        .attribute = {.nla_len = sizeof question.attribute + sizeof(uint32_t),
                      .nla_type = RDMA_NLDEV_ATTR_DEV_INDEX},
    };
    char answer[16384];

    if (device != NULL)
        question.device = *device;
    else
        question.head.nlmsg_len = sizeof question.head;
    if (send(fd, &question, question.head.nlmsg_len, 0) < 0)
        return;
    for (;;) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        ssize_t got;

        if (poll(&ready, 1, ANSWER_MS) <= 0)
            return;
        got = recv(fd, answer, sizeof answer, MSG_DONTWAIT);
        if (got <= 0 || !take_answer(answer, (size_t)got, note, context))
            return;
    }
}

static void ask_kernel(struct network_links *ret)
{
    struct sockaddr_nl here = {.nl_family = AF_NETLINK};
    struct devices devices = {0};
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_RDMA);

    if (fd < 0)
        return; /* no ib_core in the kernel: then there are no devices either */
    if (bind(fd, (const struct sockaddr *)&here, sizeof here) == 0) {
        ask(fd, RDMA_NLDEV_CMD_GET, NULL, note_device, &devices);
        for (unsigned i = 0; i < devices.count; i++)
            ask(fd, RDMA_NLDEV_CMD_PORT_GET, &devices.index[i], note_link, ret);
    }
    (void)close(fd);
}

void network_links(const char *root, struct network_links *ret)
{
    char path[256];

    *ret = (struct network_links){0};
    if (root[0] == '\0')
        ask_kernel(ret);
    (void)snprintf(path, sizeof path, "%.200s/sys/class/infiniband", root);
    each_name(path, see_device, ret);
    (void)snprintf(path, sizeof path, "%.200s/sys/class/net", root);
    each_name(path, see_interface, ret);
}

/* ---- addresses ----------------------------------------------------------- */

struct found {
    unsigned count[2]; /* of IPv4, of IPv6 */
    char first[2][INET6_ADDRSTRLEN + 2];
    char list[200]; /* all of them, for the message */
};

static bool has_link(const struct network_links *links, const char *name)
{
    for (unsigned i = 0; i < links->count; i++)
        if (strcmp(links->name[i], name) == 0)
            return true;
    return false;
}

static void see_address(const struct ifaddrs *at, struct found *ret)
{
    char text[INET6_ADDRSTRLEN];
    const void *binary;
    size_t used = strlen(ret->list);
    bool six = at->ifa_addr->sa_family == AF_INET6;

    if (six)
        binary = &((const struct sockaddr_in6 *)(const void *)at->ifa_addr)->sin6_addr;
    else
        binary = &((const struct sockaddr_in *)(const void *)at->ifa_addr)->sin_addr;
    if (six && IN6_IS_ADDR_LINKLOCAL((const struct in6_addr *)binary))
        return; /* every interface has one */
    if (inet_ntop(six ? AF_INET6 : AF_INET, binary, text, sizeof text) == NULL)
        return;
    if (ret->count[six]++ == 0)
        (void)snprintf(ret->first[six], sizeof ret->first[six], "%s%s%s",
                       six ? "[" : "", text, six ? "]" : "");
    (void)snprintf(ret->list + used, sizeof ret->list - used, "%s%s (%s)",
                   used > 0 ? ", " : "", text, at->ifa_name);
}

static int choose(const struct found *found, const struct network_links *links,
                  char ret[ADDRESS_MAX], struct gapless_error *error)
{
    bool six = found->count[0] == 0;

    if (links->count == 0)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "no interface of this machine belongs to an RDMA "
                                 "device: see gapless doctor, or say where: --listen "
                                 "ADDR:PORT");
    if (found->count[six] == 0)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "the RDMA-capable interface %s has no address, or is "
                                 "down: ip addr add ADDR/24 dev %s; ip link set %s up",
                                 links->name[0], links->name[0], links->name[0]);
    if (found->count[six] > 1)
        return gapless_error_set(error, GAPLESS_INVALID, 0,
                                 "several addresses here can do RDMA, say which: "
                                 "--listen ADDR:PORT with one of %s",
                                 found->list);
    (void)snprintf(ret, ADDRESS_MAX, "verbs:%s:" ADDRESS_PORT_TEXT, found->first[six]);
    return GAPLESS_OK;
}

int network_find(char ret[ADDRESS_MAX], struct gapless_error *error)
{
    struct network_links links;
    struct found found = {{0, 0}, {"", ""}, ""};
    struct ifaddrs *list = NULL;

    if (!GAPLESS_HAVE_VERBS)
        return gapless_error_set(error, GAPLESS_INVALID, 0, "%s", address_no_verbs);
    network_links("", &links);
    if (getifaddrs(&list) != 0)
        return gapless_error_set(
            error, GAPLESS_SYSTEM, errno,
            "cannot list the addresses of this machine; say which: "
            "--listen ADDR:PORT");
    for (const struct ifaddrs *at = list; at != NULL; at = at->ifa_next)
        if (at->ifa_addr != NULL && (at->ifa_flags & IFF_UP) != 0 &&
            (at->ifa_addr->sa_family == AF_INET ||
             at->ifa_addr->sa_family == AF_INET6) &&
            has_link(&links, at->ifa_name))
            see_address(at, &found);
    freeifaddrs(list);
    return choose(&found, &links, ret, error);
}
