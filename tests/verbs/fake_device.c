/* The fake's devices, what is known about them, their contexts, protection domains and
 * asynchronous events. */
#include "tests/verbs/fake_own.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#undef ibv_query_port

static int query_port(struct ibv_context *pub, uint8_t number,
                      struct ibv_port_attr *ret, size_t bytes);

/* ---- devices ------------------------------------------------------------- */

static void device_make(struct fake_device *device, const char *name,
                        const char *address, const char *address6)
{
    memset(device, 0, sizeof *device);
    (void)snprintf(device->pub.name, sizeof device->pub.name, "%s", name);
    (void)snprintf(device->pub.dev_name, sizeof device->pub.dev_name, "u%s", name);
    (void)inet_pton(AF_INET, address, &device->address);
    (void)inet_pton(AF_INET6, address6, &device->address6);
    device->pub.node_type = IBV_NODE_CA;
    device->pub.transport_type = IBV_TRANSPORT_IB;
    device->inline_most = FAKE_INLINE_MOST;
    device->message_most = 1u << 20;
}

void fake_devices_make(void)
{
    struct fake_device *device = fake_world.devices;

    device_make(&device[0], "fake0", "10.1.1.1", "fd10::1");
    device_make(&device[1], "fake1", "10.1.2.1", "fd11::1");
    device_make(&device[2], "fake2", "10.2.1.1", "fd12::1");
    device[2].iwarp = true;
    device[2].pub.node_type = IBV_NODE_RNIC;
    device[2].pub.transport_type = IBV_TRANSPORT_IWARP;
    device[2].inline_most = 80;
    device[2].message_most = UINT32_MAX;
}

struct fake_device *fake_device_named(const char *name)
{
    for (int i = 0; i < FAKE_DEVICES; i++) {
        if (strcmp(fake_world.devices[i].pub.name, name) == 0)
            return &fake_world.devices[i];
    }
    fake_fault("there is no device %s", name);
    return &fake_world.devices[0];
}

struct fake_device *fake_device_at(const struct sockaddr *address)
{
    struct sockaddr_in in;
    struct sockaddr_in6 in6;

    for (int i = 0; i < FAKE_DEVICES && !fake_rules.no_devices; i++) {
        struct fake_device *device = &fake_world.devices[i];

        if (address->sa_family == AF_INET) {
            memcpy(&in, address, sizeof in);
            if (in.sin_addr.s_addr == device->address.s_addr)
                return device;
        } else if (address->sa_family == AF_INET6) {
            memcpy(&in6, address, sizeof in6);
            if (memcmp(&in6.sin6_addr, &device->address6, sizeof in6.sin6_addr) == 0)
                return device;
        }
    }
    return NULL;
}

struct ibv_device **ibv_get_device_list(int *num_devices)
{
    struct ibv_device **list;
    int count;

    fake_lock();
    count = fake_rules.no_devices ? 0 : FAKE_DEVICES;
    list = fake_fails("ibv_get_device_list") ? NULL
                                             : calloc(FAKE_DEVICES + 1, sizeof *list);
    if (list != NULL) {
        for (int i = 0; i < count; i++)
            list[i] = &fake_world.devices[i].pub;
        fake_world.live.lists++;
    }
    fake_unlock();
    if (num_devices != NULL)
        *num_devices = list != NULL ? count : 0;
    if (list == NULL)
        errno = ENOMEM;
    return list;
}

void ibv_free_device_list(struct ibv_device **list)
{
    fake_lock();
    fake_world.live.lists--;
    fake_unlock();
    free(list);
}

const char *ibv_get_device_name(struct ibv_device *device)
{
    return device->name;
}

__be64 ibv_get_device_guid(struct ibv_device *device)
{
    return (__be64)(device->name[4]);
}

int ibv_get_device_index(struct ibv_device *device)
{
    return device->name[4] - '0';
}

int ibv_fork_init(void)
{
    return 0;
}

/* ---- contexts ------------------------------------------------------------ */

struct fake_context *fake_context(struct ibv_context *context)
{
    return (void *)((char *)context - offsetof(struct fake_context, verbs.context));
}

static struct fake_device *device_of(struct ibv_context *context)
{
    return fake_context(context)->device;
}

/* With the lock. NULL: errno. */
static struct fake_context *context_new(struct fake_device *device)
{
    struct fake_context *it = calloc(1, sizeof *it);
    struct ibv_context_ops *ops;

    if (it == NULL)
        return NULL;
    it->device = device;
    it->verbs.sz = sizeof it->verbs;
    it->verbs.query_port = query_port;
    it->verbs.context.device = &device->pub;
    it->verbs.context.abi_compat = __VERBS_ABI_IS_EXTENDED;
    it->verbs.context.num_comp_vectors = 1;
    it->verbs.context.cmd_fd = -1;
    it->verbs.context.async_fd = fake_fd_new();
    if (it->verbs.context.async_fd < 0) {
        free(it);
        return NULL;
    }
    ops = &it->verbs.context.ops;
    ops->poll_cq = fake_poll_cq;
    ops->req_notify_cq = fake_req_notify_cq;
    ops->post_send = fake_post_send;
    ops->post_recv = fake_post_recv;
    ops->alloc_mw = fake_alloc_mw;
    ops->dealloc_mw = fake_dealloc_mw;
    it->next = fake_world.contexts;
    fake_world.contexts = it;
    return it;
}

static void context_free(struct fake_context *context)
{
    struct fake_context **at = &fake_world.contexts;

    while (*at != context)
        at = &(*at)->next;
    *at = context->next;
    if (context->children != 0)
        fake_fault("the context of %s is closed with %u objects on it",
                   context->device->pub.name, context->children);
    (void)close(context->verbs.context.async_fd);
    free(context);
}

struct ibv_context *ibv_open_device(struct ibv_device *device)
{
    struct fake_context *it = NULL;

    fake_lock();
    if (!fake_fails("ibv_open_device"))
        it = context_new((struct fake_device *)device);
    if (it != NULL)
        fake_world.live.contexts++;
    fake_unlock();
    if (it == NULL)
        errno = EMFILE;
    return it != NULL ? &it->verbs.context : NULL;
}

int ibv_close_device(struct ibv_context *context)
{
    fake_lock();
    if (fake_context(context) == fake_context(context)->device->cm)
        fake_fault("a context of librdmacm is closed");
    else {
        context_free(fake_context(context));
        fake_world.live.contexts--;
    }
    fake_unlock();
    return 0;
}

struct ibv_context *fake_device_cm(struct fake_device *device)
{
    if (device->cm == NULL)
        device->cm = context_new(device);
    if (device->cm == NULL)
        return NULL;
    device->cm_users++;
    return &device->cm->verbs.context;
}

void fake_device_cm_back(struct fake_device *device)
{
    if (--device->cm_users > 0)
        return;
    context_free(device->cm);
    device->cm = NULL;
}

void fake_devices_clear(void)
{
    while (fake_world.contexts != NULL)
        context_free(fake_world.contexts);
}

struct ibv_context **rdma_get_devices(int *num_devices)
{
    struct ibv_context **list;
    int count;

    fake_lock();
    count = fake_rules.no_devices ? 0 : FAKE_DEVICES;
    list =
        fake_fails("rdma_get_devices") ? NULL : calloc(FAKE_DEVICES + 1, sizeof *list);
    for (int i = 0; list != NULL && i < count; i++)
        list[i] = fake_device_cm(&fake_world.devices[i]);
    if (list != NULL)
        fake_world.live.lists++;
    fake_unlock();
    if (num_devices != NULL)
        *num_devices = list != NULL ? count : 0;
    if (list == NULL)
        errno = ENODEV;
    return list;
}

void rdma_free_devices(struct ibv_context **list)
{
    fake_lock();
    for (int i = 0; list[i] != NULL; i++)
        fake_device_cm_back(fake_context(list[i])->device);
    fake_world.live.lists--;
    fake_unlock();
    free(list);
}

/* ---- what is known about them -------------------------------------------- */

int ibv_query_device(struct ibv_context *context, struct ibv_device_attr *ret)
{
    const struct fake_device *device = device_of(context);
    bool fails;

    fake_lock();
    fails = fake_fails("ibv_query_device") || device->removed;
    fake_unlock();
    if (fails)
        return EIO;
    memset(ret, 0, sizeof *ret);
    (void)snprintf(ret->fw_ver, sizeof ret->fw_ver, "1.0");
    ret->max_mr_size = UINT64_MAX;
    ret->page_size_cap = 4096;
    ret->max_qp = 1024;
    ret->max_qp_wr = 4096;
    ret->device_cap_flags = IBV_DEVICE_RC_RNR_NAK_GEN;
    ret->max_sge = device->iwarp ? 6 : FAKE_SGE_MOST;
    ret->max_sge_rd = device->iwarp ? 1 : FAKE_SGE_MOST;
    ret->max_cq = 1024;
    ret->max_cqe = 32767;
    ret->max_mr = FAKE_KEYS / 2;
    ret->max_pd = 1024;
    ret->max_qp_rd_atom = 4;
    ret->max_qp_init_rd_atom = 4;
    ret->max_res_rd_atom = 4096;
    ret->atomic_cap = device->iwarp ? IBV_ATOMIC_NONE : IBV_ATOMIC_HCA;
    if (!device->iwarp && !fake_rules.no_windows) {
        ret->max_mw = FAKE_KEYS / 2;
        ret->device_cap_flags |= IBV_DEVICE_MEM_WINDOW | IBV_DEVICE_MEM_WINDOW_TYPE_2B |
                                 IBV_DEVICE_MEM_MGT_EXTENSIONS;
    }
    ret->max_pkeys = 1;
    ret->phys_port_cnt = 1;
    return 0;
}

static int query_port(struct ibv_context *pub, uint8_t number,
                      struct ibv_port_attr *ret, size_t bytes)
{
    struct ibv_port_attr it = {
        .state = fake_rules.port_down ? IBV_PORT_DOWN : IBV_PORT_ACTIVE,
        .max_mtu = IBV_MTU_4096,
        .active_mtu = IBV_MTU_1024,
        .gid_tbl_len = device_of(pub)->iwarp ? 1 : 3,
        .max_msg_sz = device_of(pub)->message_most,
        .pkey_tbl_len = 1,
        .active_width = 2,
        .active_speed = 32,
        .phys_state = fake_rules.port_down ? 3 : 5,
        .link_layer = IBV_LINK_LAYER_ETHERNET,
    };
    bool fails;

    fake_lock();
    fails = fake_fails("ibv_query_port") || device_of(pub)->removed;
    fake_unlock();
    if (fails)
        return EIO;
    if (number != 1)
        return EINVAL;
    memcpy(ret, &it, bytes < sizeof it ? bytes : sizeof it);
    return 0;
}

int ibv_query_port(struct ibv_context *context, uint8_t port_num,
                   struct _compat_ibv_port_attr *port_attr)
{
    struct ibv_port_attr it;
    int status = query_port(context, port_num, &it, sizeof it);

    if (status == 0)
        memcpy(port_attr, &it, offsetof(struct ibv_port_attr, port_cap_flags2));
    return status;
}

/* The entry of the table: link-local, IPv4, IPv6; a made-up one for iWARP. */
bool fake_gid_at(const struct fake_device *device, uint32_t index, union ibv_gid *ret)
{
    static const unsigned char local[16] = {0xfe, 0x80, [15] = 1};
    static const unsigned char mapped[12] = {[10] = 0xff, [11] = 0xff};

    memset(ret, 0, sizeof *ret);
    if (device->iwarp) {
        ret->raw[0] = 2;
        ret->raw[5] = 7;
        return index == 0;
    }
    if (index == 0)
        memcpy(ret->raw, local, sizeof local);
    else if (index == 1) {
        memcpy(ret->raw, mapped, sizeof mapped);
        memcpy(ret->raw + 12, &device->address, 4);
    } else
        memcpy(ret->raw, &device->address6, 16);
    return index < 3;
}

int ibv_query_gid(struct ibv_context *context, uint8_t port_num, int index,
                  union ibv_gid *gid)
{
    bool fails;

    fake_lock();
    fails = fake_fails("ibv_query_gid");
    fake_unlock();
    if (fails || port_num != 1 ||
        !fake_gid_at(device_of(context), (uint32_t)index, gid)) {
        errno = fails ? EIO : EINVAL;
        return -1;
    }
    return 0;
}

int _ibv_query_gid_ex(struct ibv_context *context, uint32_t port_num,
                      uint32_t gid_index, struct ibv_gid_entry *entry, uint32_t flags,
                      size_t entry_size)
{
    struct ibv_gid_entry it = {.gid_index = gid_index, .port_num = 1};
    bool fails;

    fake_lock();
    fails = fake_fails("ibv_query_gid_ex");
    fake_unlock();
    if (fails)
        return EIO;
    if (flags != 0 || port_num != 1)
        return EINVAL;
    if (!fake_gid_at(device_of(context), gid_index, &it.gid))
        return ENODATA;
    if (device_of(context)->iwarp)
        it.gid_type = IBV_GID_TYPE_IB;
    else
        it.gid_type = gid_index == 0 ? IBV_GID_TYPE_ROCE_V1 : IBV_GID_TYPE_ROCE_V2;
    memcpy(entry, &it, entry_size < sizeof it ? entry_size : sizeof it);
    return 0;
}

ssize_t _ibv_query_gid_table(struct ibv_context *context, struct ibv_gid_entry *entries,
                             size_t max_entries, uint32_t flags, size_t entry_size)
{
    size_t count = 0;

    if (entry_size != sizeof *entries)
        return -EINVAL;
    while (count < max_entries &&
           _ibv_query_gid_ex(context, 1, (uint32_t)count, &entries[count], flags,
                             entry_size) == 0)
        count++;
    return (ssize_t)count;
}

/* ---- protection domains -------------------------------------------------- */

struct ibv_pd *ibv_alloc_pd(struct ibv_context *context)
{
    struct fake_pd *it = NULL;

    fake_lock();
    if (!fake_fails("ibv_alloc_pd") && !device_of(context)->removed)
        it = calloc(1, sizeof *it);
    if (it != NULL) {
        it->pub.context = context;
        fake_context(context)->children++;
        fake_world.live.domains++;
    }
    fake_unlock();
    if (it == NULL)
        errno = ENOMEM;
    return it != NULL ? &it->pub : NULL;
}

int ibv_dealloc_pd(struct ibv_pd *pd)
{
    struct fake_pd *it = (struct fake_pd *)pd;

    fake_lock();
    if (it->children != 0) {
        fake_fault("a protection domain goes with %u objects in it", it->children);
        fake_unlock();
        return EBUSY;
    }
    fake_context(pd->context)->children--;
    fake_world.live.domains--;
    fake_unlock();
    free(it);
    return 0;
}

/* ---- asynchronous events ------------------------------------------------- */

void fake_async(struct ibv_context *context, const struct ibv_async_event *event)
{
    struct fake_context *it = fake_context(context);

    if (it->count == FAKE_WAITING) {
        fake_fault("nobody takes the asynchronous events of %s", it->device->pub.name);
        return;
    }
    it->waiting[it->count++] = *event;
    fake_fd_add(context->async_fd);
}

/* Events of an object that goes are taken back. */
void fake_async_forget(struct ibv_context *context, const void *element)
{
    struct fake_context *it = fake_context(context);
    unsigned kept = 0;

    for (unsigned i = 0; i < it->count; i++) {
        if ((const void *)it->waiting[i].element.qp == element)
            fake_fd_take(context->async_fd);
        else
            it->waiting[kept++] = it->waiting[i];
    }
    it->count = kept;
}

int ibv_get_async_event(struct ibv_context *context, struct ibv_async_event *event)
{
    struct fake_context *it = fake_context(context);
    uint64_t one;

    for (;;) {
        bool fails;

        if (read(context->async_fd, &one, sizeof one) != (ssize_t)sizeof one)
            return -1;
        fake_lock();
        fails = it->count > 0 && fake_fails("ibv_get_async_event");
        if (it->count > 0 && !fails) {
            *event = it->waiting[0];
            memmove(it->waiting, it->waiting + 1, --it->count * sizeof *it->waiting);
            fake_world.live.unacknowledged++;
            fake_unlock();
            return 0;
        }
        if (fails)
            fake_fd_add(context->async_fd);
        fake_unlock();
        if (fails) {
            errno = EIO;
            return -1;
        }
    }
}

void ibv_ack_async_event(struct ibv_async_event *event)
{
    (void)event;
    fake_lock();
    fake_world.live.unacknowledged--;
    fake_unlock();
}

void fake_port_event(const char *name, enum ibv_event_type event)
{
    struct ibv_async_event it = {.element = {.port_num = 1}, .event_type = event};

    fake_lock();
    for (struct fake_context *at = fake_world.contexts; at != NULL; at = at->next) {
        if (at->device == fake_device_named(name))
            fake_async(&at->verbs.context, &it);
    }
    fake_unlock();
}

static void pairs_end(const struct fake_device *device)
{
    for (struct fake_qp *qp = fake_world.pairs; qp != NULL; qp = qp->next) {
        if (qp->device == device)
            fake_pair_end(qp);
    }
}

void fake_fatal(const char *name)
{
    fake_port_event(name, IBV_EVENT_DEVICE_FATAL);
    fake_lock();
    pairs_end(fake_device_named(name));
    fake_unlock();
}

void fake_remove(const char *name)
{
    struct fake_device *device;

    fake_port_event(name, IBV_EVENT_DEVICE_FATAL);
    fake_lock();
    device = fake_device_named(name);
    device->removed = true;
    for (struct fake_id *id = fake_world.ids; id != NULL; id = id->next) {
        if (id->device == device)
            fake_event_put(id, RDMA_CM_EVENT_DEVICE_REMOVAL, 0);
    }
    pairs_end(device);
    fake_unlock();
}
