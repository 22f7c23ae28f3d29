/* The verbs transport: what went wrong, in words: the peer, the operation, the likely
 * cause, the remedy. */
#include "transport/verbs/verbs.h"

#include <errno.h>
#include <stdio.h>
#include <sys/resource.h>

static const char *what_name(enum verbs_what what)
{
    switch (what) {
    case VERBS_PIECE_OF:
    case VERBS_PUT:
        return "a WRITE to";
    case VERBS_GET:
        return "a READ from";
    case VERBS_NOTE:
        return "a note to";
    case VERBS_FRAME:
        return "a message to";
    case VERBS_BIND:
        return "binding a memory window for";
    case VERBS_BEAT:
        return "a sign of life of";
    }
    return "work for";
}

static const char *lost_text =
    "it did not acknowledge: the process or machine died, the link is down, or a "
    "firewall drops RoCE (UDP port 4791); slower networks want a larger --ack-timeout";

void verbs_completion_error(const struct verbs_channel *channel,
                            const struct ibv_wc *wc, enum verbs_what what,
                            struct gapless_error *ret)
{
    const char *text = ibv_wc_status_str(wc->status);
    int status = GAPLESS_PEER_LOST;

    switch ((int)wc->status) {
    case IBV_WC_RETRY_EXC_ERR:
    case IBV_WC_RESP_TIMEOUT_ERR:
        text = lost_text;
        break;
    case IBV_WC_REM_ACCESS_ERR:
        text = "access was refused: the memory is not, or no longer, granted to this "
               "side (a slot is taken away from a peer that counts as lost)";
        break;
    case IBV_WC_RNR_RETRY_EXC_ERR:
        text = "it has no receive posted, which an intact peer always has";
        status = GAPLESS_PROTOCOL;
        break;
    case IBV_WC_LOC_PROT_ERR:
    case IBV_WC_LOC_LEN_ERR:
    case IBV_WC_MW_BIND_ERR:
        text = "the device refused the memory of this side: a fault in gapless or in "
               "the driver; 'gapless doctor' shows its version";
        break;
    case IBV_WC_LOC_QP_OP_ERR:
    case IBV_WC_FATAL_ERR:
    case IBV_WC_GENERAL_ERR:
        text = "the local device failed or its link is down: look at 'gapless doctor' "
               "and the kernel's log";
        break;
    default:
        break;
    }
    (void)gapless_error_set(ret, status, 0, "%s %s failed (%s): %s", what_name(what),
                            channel->name, ibv_wc_status_str(wc->status), text);
}

bool verbs_access_error(struct verbs_channel *channel, struct gapless_error *ret)
{
    verbs_async_take(channel->tp);
    if (channel->async == (int)IBV_EVENT_DEVICE_FATAL) {
        (void)gapless_error_set(ret, GAPLESS_PEER_LOST, 0,
                                "the local device %s of the connection to %s failed: "
                                "look at 'gapless doctor' and the kernel's log",
                                ibv_get_device_name(channel->nic->context->device),
                                channel->name);
        return true;
    }
    if (channel->async != (int)IBV_EVENT_QP_ACCESS_ERR)
        return false;
    (void)gapless_error_set(ret, GAPLESS_PROTOCOL, 0,
                            "%s reached for memory that was not granted to it; the "
                            "device refused and ended the connection",
                            channel->name);
    return true;
}

/* Over InfiniBand a device breaks a queue pair by itself only for what the other side
 * sent: its death is reported by the connection manager, or by a request that is not
 * answered. Over iWARP it is also how the end of the TCP connection shows. */
void verbs_broken_error(const struct verbs_channel *channel, struct gapless_error *ret)
{
    if (channel->nic->iwarp)
        (void)gapless_error_set(ret, GAPLESS_PEER_LOST, 0,
                                "the connection to %s broke: it ended or was killed, "
                                "lost its link, or reached for memory that was not "
                                "granted to it (a process ends; the device refuses)",
                                channel->name);
    else
        (void)gapless_error_set(ret, GAPLESS_PROTOCOL, 0,
                                "the device ended the connection to %s because of what "
                                "it sent: it reached for memory that was not granted "
                                "to it, or broke the RDMA protocol",
                                channel->name);
}

static void rejected_error(const struct verbs_channel *channel, int status,
                           struct gapless_error *ret)
{
    switch (status) {
    case GAPLESS_VERSION:
        (void)gapless_error_set(ret, GAPLESS_VERSION, 0,
                                "the master at %s speaks another version of the verbs "
                                "protocol (this side %u): use the same gapless on both "
                                "sides",
                                channel->name, VERBS_PROTOCOL);
        break;
    case GAPLESS_REFUSED:
        (void)gapless_error_set(ret, GAPLESS_REFUSED, 0,
                                channel->tp->has_token
                                    ? "the master at %s does not know this token: use "
                                      "the same --token-file on both sides, and no "
                                      "translation of addresses between"
                                    : "the master at %s asks for a token: start the "
                                      "worker with the master's --token-file",
                                channel->name);
        break;
    case GAPLESS_AGAIN:
        (void)gapless_error_set(ret, GAPLESS_AGAIN, 0,
                                "the master at %s has too many greetings to answer",
                                channel->name);
        break;
    case GAPLESS_CAPACITY:
        (void)gapless_error_set(ret, GAPLESS_CAPACITY, 0,
                                "the device of the master at %s cannot take one more "
                                "connection, or is not among its --device list",
                                channel->name);
        break;
    default:
        (void)gapless_error_set(ret, GAPLESS_TIMEOUT, 0,
                                "no process listens at %s (reason %d)", channel->name,
                                status);
        break;
    }
}

void verbs_event_error(const struct verbs_channel *channel, int event, int status,
                       struct gapless_error *ret)
{
    switch (event) {
    case RDMA_CM_EVENT_REJECTED:
        rejected_error(channel, status, ret);
        return;
    case RDMA_CM_EVENT_DISCONNECTED:
        (void)gapless_error_set(
            ret, GAPLESS_PEER_LOST, 0,
            "%s closed the connection: it ended, was killed, or lost "
            "its link",
            channel->name);
        return;
    case RDMA_CM_EVENT_DEVICE_REMOVAL:
        (void)gapless_error_set(ret, GAPLESS_PEER_LOST, 0,
                                "the local RDMA device of the connection to %s was "
                                "removed",
                                channel->name);
        return;
    case RDMA_CM_EVENT_ADDR_ERROR:
    case RDMA_CM_EVENT_ROUTE_ERROR:
    case RDMA_CM_EVENT_UNREACHABLE:
        (void)gapless_error_set(ret, GAPLESS_TIMEOUT, status < 0 ? -status : 0,
                                "%s cannot be reached: is the machine up, the network "
                                "right, a subnet manager running (InfiniBand)?",
                                channel->name);
        return;
    default:
        (void)gapless_error_set(ret, GAPLESS_TIMEOUT, status < 0 ? -status : 0,
                                "%s: %s", channel->name,
                                rdma_event_str((enum rdma_cm_event_type)event));
        return;
    }
}

int verbs_memory_error(size_t bytes, int os, struct gapless_error *error)
{
    struct rlimit limit = {0};

    if (os == ENOMEM && getrlimit(RLIMIT_MEMLOCK, &limit) == 0 &&
        limit.rlim_cur != RLIM_INFINITY)
        return gapless_error_set(
            error, GAPLESS_NO_MEMORY, os,
            "%zu bytes cannot be registered with the RDMA device: this process may "
            "lock %llu KiB, and needs %llu KiB more than is locked already. Raise the "
            "limit: 'ulimit -l unlimited', or for good '* - memlock unlimited' in "
            "/etc/security/limits.d/rdma.conf, or LimitMEMLOCK=infinity in the "
            "service",
            bytes, (unsigned long long)(limit.rlim_cur >> 10),
            (unsigned long long)(bytes + 1023) >> 10);
    return gapless_error_set(error, GAPLESS_NO_MEMORY, os,
                             "%zu bytes cannot be registered with the RDMA device",
                             bytes);
}

/* Is the event about this channel: about its queue pair, or the end of its device? */
static bool concerns(const struct ibv_async_event *event,
                     const struct verbs_channel *channel, const struct verbs_nic *nic)
{
    if (channel == NULL || channel->qp == NULL)
        return false;
    if (event->event_type == IBV_EVENT_DEVICE_FATAL)
        return channel->nic == nic;
    return (event->event_type == IBV_EVENT_QP_ACCESS_ERR ||
            event->event_type == IBV_EVENT_QP_REQ_ERR ||
            event->event_type == IBV_EVENT_QP_FATAL) &&
           channel->qp == event->element.qp;
}

void verbs_async_take(struct tp *tp)
{
    struct ibv_async_event event;
    uint32_t i, k;

    for (k = 0; k < tp->nics; k++)
        while (ibv_get_async_event(tp->nic[k].context, &event) == 0) {
            for (i = 0; i < tp->channels_max; i++)
                if (concerns(&event, tp->channels[i], &tp->nic[k]))
                    tp->channels[i]->async = (int)event.event_type;
            ibv_ack_async_event(&event);
        }
}
