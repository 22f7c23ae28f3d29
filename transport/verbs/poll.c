/* The verbs transport: completions become events. */
#include "transport/verbs/verbs.h"

#include "engine/base/clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#define BATCH 16
/* Looks at the queues before the clock is read; the clock may cost more than a look. */
#define LOOKS 64u
/* Against a flood: lots of 64 completions that are taken at once. */
#define DRAINS 1024
/* Polls that find something, until the connection manager is asked again. */
#define POLLS 256u
/* Of the clock, until the connection manager is asked again. */
#define MANAGE_NS UINT64_C(1000000)
#define SLEEP_NS UINT64_C(50000000)
#define ACK_EVERY 64u

/* ---- events -------------------------------------------------------------- */

static bool pending_grow(struct tp *tp)
{
    uint32_t max = tp->pending_max * 2 + 64, i;
    struct tp_event *more = calloc(max, sizeof *more);

    if (more == NULL)
        return false;
    for (i = 0; i < tp->pending_count; i++)
        more[i] = tp->pending[(tp->pending_at + i) % tp->pending_max];
    free(tp->pending);
    tp->pending = more;
    tp->pending_max = max;
    tp->pending_at = 0;
    return true;
}

static struct verbs_text *text_of(const struct tp_event *event)
{
    return (struct verbs_text *)(uintptr_t)((const char *)event->data -
                                            offsetof(struct verbs_text, data));
}

/* To the caller; a text is his until the next poll. */
static void hand_over(struct tp *tp, const struct tp_event *event)
{
    tp->out[tp->out_count++] = *event;
    if (event->kind == TP_TEXT) {
        text_of(event)->next = tp->delivered;
        tp->delivered = text_of(event);
    }
}

void verbs_emit(struct tp *tp, const struct tp_event *event)
{
    struct gapless_error reason = {0};

    if (tp->pending_count == 0 && tp->out_count < tp->out_max) {
        hand_over(tp, event);
        return;
    }
    if (tp->pending_count == tp->pending_max && !pending_grow(tp)) {
        /* What cannot be delivered must not be missed quietly. */
        if (event->kind == TP_TEXT)
            free(text_of(event));
        (void)gapless_error_set(&tp->reason, GAPLESS_NO_MEMORY, 0,
                                "no memory for the events of peer %u", event->peer);
        reason = tp->reason;
        verbs_peer_end(&tp->peers[event->peer], &reason);
        tp->broken = GAPLESS_NO_MEMORY;
        return;
    }
    tp->pending[(tp->pending_at + tp->pending_count++) % tp->pending_max] = *event;
}

void verbs_emit_forget(struct tp *tp, tp_peer peer)
{
    uint32_t i, kept = 0;

    for (i = 0; i < tp->pending_count; i++) {
        struct tp_event event = tp->pending[(tp->pending_at + i) % tp->pending_max];

        if (event.peer == peer && event.kind == TP_TEXT)
            free(text_of(&event));
        if (event.peer != peer)
            tp->pending[(tp->pending_at + kept++) % tp->pending_max] = event;
    }
    tp->pending_count = kept;
}

static void pending_out(struct tp *tp)
{
    while (tp->pending_count > 0 && tp->out_count < tp->out_max) {
        hand_over(tp, &tp->pending[tp->pending_at]);
        tp->pending_at = (tp->pending_at + 1) % tp->pending_max;
        tp->pending_count--;
    }
}

/* ---- what was received --------------------------------------------------- */

static bool is_heard(const struct verbs_channel *channel)
{
    return channel->peer != NULL && !channel->peer->dropped;
}

static tp_peer number_of(const struct verbs_channel *channel)
{
    return (tp_peer)(channel->peer - channel->tp->peers);
}

static void broke_protocol(struct verbs_channel *channel, const char *what)
{
    struct gapless_error reason = {0};

    (void)gapless_error_set(&reason, GAPLESS_PROTOCOL, 0, "%s %s", channel->name, what);
    if (channel->peer != NULL)
        verbs_peer_end(channel->peer, &reason);
    else
        verbs_channel_end(channel, &reason);
}

static void on_note(struct verbs_channel *channel, uint32_t note)
{
    channel->notes_read++;
    if (channel->peer == NULL || (!channel->peer->up && !channel->peer->dropped)) {
        broke_protocol(channel, "sent a note before it was welcome");
        return;
    }
    if (is_heard(channel))
        verbs_emit(channel->tp, &(struct tp_event){.kind = TP_NOTE,
                                                   .peer = number_of(channel),
                                                   .note = note});
}

/* Of several channels: in the order of sending. What came too early waits. */
static void on_numbered(struct verbs_channel *channel, const struct verbs_note *note)
{
    struct verbs_peer *peer = channel->peer;
    uint32_t i;

    if (peer == NULL || peer->channel_count == 1 || note->sequence == peer->note_in) {
        if (peer != NULL)
            peer->note_in++;
        on_note(channel, note->note);
    } else {
        channel->notes_read++;
        if (peer->early_count == peer->early_max) {
            uint32_t max = peer->early_max * 2 + 16;
            struct verbs_note *more =
                max > (1u << 16) ? NULL : realloc(peer->early, max * sizeof *more);

            if (more == NULL) {
                broke_protocol(channel, "sends notes out of order");
                return;
            }
            peer->early = more;
            peer->early_max = max;
        }
        peer->early[peer->early_count++] = *note;
        return;
    }
    for (i = 0; peer != NULL && i < peer->early_count;) {
        struct verbs_note next = peer->early[i];

        if (next.sequence != peer->note_in) {
            i++;
            continue;
        }
        peer->early[i] = peer->early[--peer->early_count];
        peer->note_in++;
        channel->notes_read--; /* counted when it came, on its own channel */
        on_note(channel, next.note);
        i = 0;
    }
}

static void on_text(struct verbs_channel *channel, const struct verbs_frame *frame)
{
    struct verbs_text *text;

    channel->frames_read++;
    if (channel->peer == NULL || frame->bytes > TP_TEXT_MAX - channel->text_bytes) {
        broke_protocol(channel, "sent a control message that makes no sense");
        return;
    }
    memcpy(channel->text + channel->text_bytes, frame->as.data, frame->bytes);
    channel->text_bytes += frame->bytes;
    if (!frame->last)
        return;
    text = is_heard(channel) ? malloc(sizeof *text + channel->text_bytes + 1) : NULL;
    if (text != NULL) {
        memcpy(text->data, channel->text, channel->text_bytes);
        verbs_emit(channel->tp, &(struct tp_event){.kind = TP_TEXT,
                                                   .peer = number_of(channel),
                                                   .bytes = channel->text_bytes,
                                                   .data = text->data});
    } else if (is_heard(channel)) {
        broke_protocol(channel, "sent a message for which there is no memory");
    }
    channel->text_bytes = 0;
}

static void on_offer(struct verbs_channel *channel, const struct verbs_offer *offer,
                     uint32_t bytes)
{
    const char *what;

    channel->frames_read++;
    if (!verbs_offer_take(channel, offer, bytes, &what))
        broke_protocol(channel, what);
}

static void on_credit(struct verbs_channel *channel, const struct verbs_credit *credit)
{
    if (credit->notes > channel->notes_out || credit->frames > channel->frames_out) {
        broke_protocol(channel, "gave credit for what was never sent");
        return;
    }
    channel->notes_out -= credit->notes;
    channel->frames_out -= credit->frames;
    verbs_notes_go_on(channel);
}

static void on_frame(struct verbs_channel *channel, const struct verbs_frame *received,
                     uint32_t bytes)
{
    bool welcome = channel->peer != NULL &&
                   (channel->tp->role == VERBS_SERVER || channel->notes_may > 0);
    struct verbs_frame copy = {0}, *frame = &copy; /* nobody else can change it */

    memcpy(frame, received, bytes < sizeof copy ? bytes : sizeof copy);
    if (bytes < VERBS_FRAME_HEAD || bytes != VERBS_FRAME_HEAD + frame->bytes ||
        bytes > VERBS_FRAME_BYTES)
        broke_protocol(channel, "sent a frame that makes no sense");
    else if (!welcome)
        verbs_handshake_frame(channel, frame);
    else if (!verbs_tag_good(channel, frame))
        broke_protocol(channel, "sent a frame with a false tag, if it was its own");
    else if (frame->kind == VERBS_TEXT)
        on_text(channel, frame);
    else if (frame->kind == VERBS_GRANT)
        on_offer(channel, &frame->as.offer, frame->bytes);
    else if (frame->kind == VERBS_CREDIT && frame->bytes == sizeof frame->as.credit)
        on_credit(channel, &frame->as.credit);
    else if (frame->kind == VERBS_NOTICE && frame->bytes == sizeof frame->as.note)
        on_numbered(channel, &frame->as.note);
    else if (frame->kind == VERBS_BYE)
        channel->peer->said_bye = true;
    else
        broke_protocol(channel, "sent a frame of an unknown kind");
}

/* ---- completions --------------------------------------------------------- */

static struct verbs_channel *channel_of(struct tp *tp, uint64_t number)
{
    uint64_t index = number >> 44;
    struct verbs_channel *channel =
        index < tp->channels_max ? tp->channels[index] : NULL;

    if (channel == NULL || channel->state == CHANNEL_FREE ||
        (number >> 33 & ((1u << VERBS_LIFE_BITS) - 1)) !=
            (channel->life & ((1u << VERBS_LIFE_BITS) - 1)))
        return NULL; /* of an earlier life */
    return channel;
}

static void on_failure(struct verbs_channel *channel, const struct ibv_wc *wc,
                       enum verbs_what what)
{
    struct gapless_error reason = {0};

    if (channel->state == CHANNEL_ENDING)
        return;
    if ((wc->wr_id & VERBS_RECEIVE) &&
        (wc->status == IBV_WC_REM_ACCESS_ERR || wc->status == IBV_WC_LOC_ACCESS_ERR))
        channel->async = (int)IBV_EVENT_QP_ACCESS_ERR;
    if (verbs_access_error(channel, &reason))
        ; /* that is the reason */
    else if (wc->status == IBV_WC_WR_FLUSH_ERR)
        verbs_broken_error(channel, &reason);
    else
        verbs_completion_error(channel, wc, what, &reason);
    if (channel->peer != NULL)
        verbs_peer_end(channel->peer, &reason);
    else
        verbs_channel_end(channel, &reason);
}

/* What was posted up to place `at` is done. */
static void sent_until(struct verbs_channel *channel, uint32_t at, bool well)
{
    bool last = false;

    while (channel->sent_count > 0 && !last) {
        struct verbs_sent *sent = &channel->sent[channel->sent_head];

        last = channel->sent_head == at;
        channel->sent_head = (channel->sent_head + 1) % channel->depth;
        channel->sent_count--;
        if (sent->frame != 0)
            channel->spare_frame[channel->spare_frames++] = (uint16_t)(sent->frame - 1);
        if (sent->what == VERBS_BEAT)
            channel->keepalive_pending = false;
        if (sent->tell && well && is_heard(channel))
            verbs_emit(channel->tp, &(struct tp_event){.kind = TP_DONE,
                                                       .peer = number_of(channel),
                                                       .note = sent->note});
    }
}

static void on_sent(struct verbs_channel *channel, const struct ibv_wc *wc)
{
    uint32_t at = (uint32_t)wc->wr_id;
    enum verbs_what what;

    if (at >= channel->depth)
        return;
    what = (enum verbs_what)channel->sent[at].what;
    sent_until(channel, at, wc->status == IBV_WC_SUCCESS);
    if (wc->status != IBV_WC_SUCCESS) {
        on_failure(channel, wc, what);
        return;
    }
    channel->heard = true;
    if (channel->state == CHANNEL_LIVE) { /* there may have been no room before */
        verbs_credit_give(channel);
        verbs_notes_go_on(channel);
    }
}

static void on_received(struct verbs_channel *channel, const struct ibv_wc *wc)
{
    uint32_t buffer = (uint32_t)wc->wr_id;

    if (channel->posted >
        0) /* none are counted of a channel that never was connected */
        channel->posted--;
    if (wc->status != IBV_WC_SUCCESS) {
        on_failure(channel, wc, VERBS_FRAME);
        return;
    }
    channel->heard = channel->connected =
        true; /* perhaps before ESTABLISHED is taken */
    if (buffer >= channel->receives)
        return;
    if (wc->opcode == IBV_WC_RECV_RDMA_WITH_IMM)
        on_note(channel, ntohl(wc->imm_data));
    else
        on_frame(channel,
                 (const struct verbs_frame *)(const void *)(channel->frames +
                                                            (size_t)buffer *
                                                                VERBS_FRAME_BYTES),
                 wc->byte_len);
    if (channel->state == CHANNEL_ENDING || channel->state == CHANNEL_FREE)
        return;
    if (verbs_receive_again(channel, buffer) != GAPLESS_OK)
        broke_protocol(channel, "takes no more receives");
    else if (channel->peer != NULL)
        verbs_credit_give(channel);
}

static int queue_drain(struct tp *tp, struct ibv_cq *cq, int max)
{
    struct ibv_wc wc[BATCH];
    int count = 0, n, i;

    do {
        n = ibv_poll_cq(cq, max - count < BATCH ? max - count : BATCH, wc);
        for (i = 0; i < n; i++) {
            struct verbs_channel *channel = channel_of(tp, wc[i].wr_id);

            if (channel == NULL)
                continue;
            if (wc[i].wr_id & VERBS_RECEIVE)
                on_received(channel, &wc[i]);
            else
                on_sent(channel, &wc[i]);
        }
        count += n > 0 ? n : 0;
    } while (n == BATCH && count < max);
    if (n < 0 && tp->broken == 0)
        tp->broken =
            gapless_error_set(&tp->reason, GAPLESS_SYSTEM, 0,
                              "the completion queue of %s cannot be read: the device "
                              "failed, see 'gapless doctor' and the kernel's log",
                              ibv_get_device_name(cq->context->device));
    return count;
}

int verbs_drain(struct tp *tp, int max)
{
    int count = 0;
    uint32_t k, q, n;

    if (tp->draining)
        return 0; /* called for room by what a completion led to: those come first */
    tp->draining = true;
    for (k = 0; k < tp->nics; k++)
        for (q = 0; q < tp->nic[k].queues && count < max; q++) {
            n = (q + tp->turn) % tp->nic[k].queues; /* none is always the first */
            count += queue_drain(tp, tp->nic[k].cq[n], max - count);
        }
    tp->turn++;
    tp->draining = false;
    tp->counters.completions += (uint64_t)count;
    return count;
}

void verbs_drain_all(struct tp *tp)
{
    for (int i = 0; i < DRAINS && verbs_drain(tp, 64) > 0; i++)
        ;
}

/* ---- waiting ------------------------------------------------------------- */

/* How long a peer may owe a sign of life. */
static uint64_t lease_ns(const struct tp *tp)
{
    const struct tp_net *net = &tp->config.net;
    uint64_t lease =
        (uint64_t)(net->retries + 1) * 2 * (UINT64_C(4096) << net->ack_timeout);

    return lease < VERBS_LEASE_NS ? VERBS_LEASE_NS : lease;
}

static bool owes_life(const struct verbs_channel *channel, uint64_t now_ns)
{
    return channel->keepalive_pending &&
           now_ns - channel->keepalive_ns > lease_ns(channel->tp);
}

/* Asks idle peers for a sign of life; ends those that owed one for too long. */
static void keepalives(struct tp *tp, uint64_t now_ns)
{
    struct gapless_error reason = {0};
    uint32_t i;

    if (tp->config.net.exact || now_ns - tp->keepalive_ns < VERBS_KEEPALIVE_NS)
        return;
    tp->keepalive_ns = now_ns;
    for (i = 0; i < tp->channels_max; i++) {
        struct verbs_channel *channel = tp->channels[i];

        if (channel == NULL || channel->state != CHANNEL_LIVE)
            continue;
        if (owes_life(channel, now_ns)) {
            (void)gapless_error_set(&reason, GAPLESS_PEER_LOST, 0,
                                    "%s gave no sign of life for %.1f s: the machine "
                                    "died or the link is down",
                                    channel->name, 1e-9 * (double)lease_ns(tp));
            verbs_peer_end(channel->peer, &reason);
        } else if (!channel->heard && !channel->keepalive_pending) {
            verbs_keepalive(channel, now_ns);
        }
        channel->heard = false;
    }
}

static void manage(struct tp *tp, uint64_t now_ns)
{
    bool away = now_ns - tp->looked_ns > VERBS_AWAY_NS;

    tp->looked_ns = now_ns;
    verbs_cm_take(tp);
    if (away) /* what peers sent meanwhile is in time */
        verbs_drain_all(tp);
    verbs_tidy(tp, now_ns);
    keepalives(tp, now_ns);
}

/* Every completion from now on makes an event. */
static bool arm(struct tp *tp)
{
    bool good = true;
    uint32_t k, q;

    for (k = 0; k < tp->nics; k++)
        for (q = 0; q < tp->nic[k].queues; q++)
            good = ibv_req_notify_cq(tp->nic[k].cq[q], 0) == 0 && good;
    return good;
}

static void events_take(struct verbs_nic *nic)
{
    struct ibv_cq *cq;
    void *context;
    uint32_t q;

    while (ibv_get_cq_event(nic->channel, &cq, &context) == 0)
        for (q = 0; q < nic->queues; q++)
            if (nic->cq[q] == cq && ++nic->unacked[q] >= ACK_EVERY) {
                ibv_ack_cq_events(cq, nic->unacked[q]);
                nic->unacked[q] = 0;
            }
}

/* Sleeps until something happens, at most ns. */
static void sleep_for(struct tp *tp, uint64_t ns)
{
    struct pollfd fd[VERBS_NICS + 1];
    struct timespec time;
    uint32_t k;

    if (ns > SLEEP_NS)
        ns = SLEEP_NS;
    if (!arm(tp) || verbs_drain(tp, BATCH) > 0)
        return;
    fd[0] = (struct pollfd){.fd = tp->channel->fd, .events = POLLIN};
    for (k = 0; k < tp->nics; k++)
        fd[k + 1] = (struct pollfd){.fd = tp->nic[k].channel->fd, .events = POLLIN};
    time = (struct timespec){.tv_sec = (time_t)(ns / 1000000000),
                             .tv_nsec = (long)(ns % 1000000000)};
    (void)ppoll(fd, tp->nics + 1, &time, NULL);
    tp->counters.wakeups++;
    for (k = 0; k < tp->nics; k++)
        if (fd[k + 1].revents != 0)
            events_take(&tp->nic[k]);
}

void verbs_pause(struct tp *tp, uint64_t ns)
{
    manage(tp, clock_ns());
    if (verbs_drain(tp, 4 * BATCH) == 0)
        sleep_for(tp, ns);
    manage(tp, clock_ns());
}

static void texts_forget(struct tp *tp)
{
    while (tp->delivered != NULL) {
        struct verbs_text *next = tp->delivered->next;

        free(tp->delivered);
        tp->delivered = next;
    }
}

/* Looks without reading the clock, as long as it may. True: something is there. */
static bool look(struct tp *tp, uint32_t times)
{
    uint32_t i;

    for (i = 0; i < times; i++) {
        (void)verbs_drain(tp, tp->out_max - tp->out_count);
        if (tp->out_count > 0)
            return true;
        if (i % 32 == 31)
            (void)sched_yield();
    }
    return false;
}

static void wait_events(struct tp *tp, uint64_t bound_ns)
{
    uint64_t began = clock_ns(), now = began;

    for (;;) {
        if (now - tp->looked_ns >= MANAGE_NS || tp->busy_channels > 0)
            manage(tp, now);
        if (look(tp, LOOKS) || now - began >= bound_ns || tp->broken != 0)
            return;
        if (now - began >= tp->config.spin_ns) {
            sleep_for(tp, bound_ns - (now - began));
            now = clock_ns();
            manage(tp, now);
            if (tp->out_count > 0)
                return;
        } else {
            now = clock_ns();
        }
    }
}

int verbs_poll(struct tp *tp, struct tp_event *events, int max, int64_t timeout_ns)
{
    uint64_t bound = timeout_ns < 0 ? UINT64_C(1000000000) : (uint64_t)timeout_ns;

    if (events == NULL || max <= 0)
        return GAPLESS_INVALID;
    texts_forget(tp);
    tp->out = events;
    tp->out_max = max;
    tp->out_count = 0;
    pending_out(tp);
    if (tp->out_count < max && tp->broken == 0) {
        /* The first looks are the cheapest; the rest is looked after now and then. */
        (void)look(tp, bound > 0 ? LOOKS : 1);
        if (++tp->looks % POLLS == 0 ||
            (tp->out_count == 0 && bound == 0 && tp->looks % 4 == 0))
            manage(tp, clock_ns());
        if (tp->out_count == 0 && bound > 0)
            wait_events(tp, bound);
    }
    tp->out_max = 0;
    if (tp->out_count == 0 && tp->broken != 0 && tp->pending_count == 0)
        return tp->broken;
    return tp->out_count;
}
