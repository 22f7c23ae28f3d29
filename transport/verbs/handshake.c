/* The verbs transport: the handshake on a fresh connection. Nothing that a stranger
 * could use (a key, an address, a window) is sent before both sides have proved that
 * they know the run's token. */
#include "transport/verbs/verbs.h"

#include "engine/base/array.h"
#include "engine/base/clock.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

static void prove(const struct tp *tp, const char *who, const struct verbs_hello *hello,
                  const uint8_t *nonce, uint8_t *ret)
{
    crypto_generichash_state state;

    (void)crypto_generichash_init(&state, tp->key, sizeof tp->key, VERBS_MAC);
    (void)crypto_generichash_update(&state, (const uint8_t *)who, strlen(who) + 1);
    (void)crypto_generichash_update(&state, (const uint8_t *)hello, sizeof *hello);
    (void)crypto_generichash_update(&state, nonce, VERBS_NONCE);
    (void)crypto_generichash_final(&state, ret, VERBS_MAC);
}

static bool proved(const struct tp *tp, const char *who,
                   const struct verbs_hello *hello, const uint8_t *nonce,
                   const uint8_t *mac)
{
    uint8_t wanted[VERBS_MAC];

    prove(tp, who, hello, nonce, wanted);
    return sodium_memcmp(wanted, mac, VERBS_MAC) == 0;
}

/* Notes that this side has room for. */
static uint32_t notes_room(const struct verbs_channel *channel)
{
    return channel->receives - VERBS_FRAMES - VERBS_SPARE;
}

int verbs_handshake_start(struct verbs_channel *channel, uint64_t session,
                          uint32_t number, uint32_t channels)
{
    struct verbs_frame frame = {.kind = VERBS_HELLO, .bytes = sizeof frame.as.hello};
    struct verbs_hello *hello = &channel->hello;

    *hello = (struct verbs_hello){.magic = VERBS_MAGIC,
                                  .protocol = VERBS_PROTOCOL,
                                  .has_token = channel->tp->has_token,
                                  .session = session,
                                  .channel = number,
                                  .channels = channels,
                                  .notes_max = notes_room(channel),
                                  .windows_max = channel->tp->config.windows_max};
    randombytes_buf(hello->nonce, sizeof hello->nonce);
    frame.as.hello = *hello;
    return verbs_frame_send(channel, &frame, false);
}

/* ---- the server ---------------------------------------------------------- */

static void refuse(struct verbs_channel *channel, const struct gapless_error *reason)
{
    struct verbs_frame frame = {.kind = VERBS_REFUSE, .bytes = sizeof frame.as.refuse};

    frame.as.refuse.status = reason->status;
    memcpy(frame.as.refuse.text, reason->text, sizeof frame.as.refuse.text - 1);
    if (verbs_frame_send(channel, &frame, false) == GAPLESS_OK) {
        verbs_channel_state(channel, CHANNEL_LEAVING);
        channel->deadline_ns = clock_ns() + VERBS_FLUSH_NS;
        channel->refusal = *reason;
    } else {
        verbs_channel_end(channel, reason);
    }
}

static void on_hello(struct verbs_channel *channel, const struct verbs_hello *hello)
{
    struct verbs_frame frame = {.kind = VERBS_CHALLENGE,
                                .bytes = sizeof frame.as.proof};
    struct gapless_error reason = {0};

    if (hello->magic != VERBS_MAGIC || hello->protocol != VERBS_PROTOCOL)
        (void)gapless_error_set(&reason, GAPLESS_VERSION, 0,
                                "the master speaks version %u of the verbs protocol; "
                                "use the same gapless on both sides",
                                VERBS_PROTOCOL);
    else if (hello->channel >= VERBS_CHANNELS || hello->channels > VERBS_CHANNELS ||
             hello->channel >= hello->channels || hello->windows_max == 0)
        (void)gapless_error_set(&reason, GAPLESS_PROTOCOL, 0,
                                "the greeting makes no sense");
    else if (channel->tp->has_token && !hello->has_token)
        (void)gapless_error_set(&reason, GAPLESS_REFUSED, 0,
                                "the master asks for a token: start the worker with "
                                "the master's --token-file");
    if (reason.status != GAPLESS_OK) {
        refuse(channel, &reason);
        return;
    }
    channel->hello = *hello;
    channel->proof.has_token = channel->tp->has_token;
    randombytes_buf(channel->proof.nonce, sizeof channel->proof.nonce);
    prove(channel->tp, "gapless server", hello, channel->proof.nonce,
          channel->proof.mac);
    frame.as.proof = channel->proof;
    if (verbs_frame_send(channel, &frame, false) != GAPLESS_OK)
        verbs_channel_end(channel, NULL);
}

static void welcome(struct verbs_channel *channel, struct verbs_peer *peer,
                    uint32_t number)
{
    struct verbs_frame frame = {.kind = VERBS_WELCOME,
                                .bytes = sizeof frame.as.welcome};
    struct tp *tp = channel->tp;
    uint32_t i;

    frame.as.welcome = (struct verbs_welcome){.session = peer->session,
                                              .notes_max = notes_room(channel),
                                              .windows_max = tp->config.windows_max};
    channel->notes_may = u32_least(channel->hello.notes_max, notes_room(channel));
    channel->notes_batch = (notes_room(channel) + 2) / 3;
    channel->frames_may = VERBS_FRAMES;
    channel->peer = peer;
    channel->number = number;
    peer->channel[number] = channel;
    if (verbs_frame_send(channel, &frame, false) != GAPLESS_OK) {
        verbs_peer_end(peer, NULL);
        return;
    }
    verbs_channel_state(channel, CHANNEL_WAITING);
    for (i = 0; i < peer->channel_count; i++)
        if (peer->channel[i] == NULL)
            return;
    for (i = 0; i < peer->channel_count; i++)
        verbs_channel_state(peer->channel[i], CHANNEL_LIVE);
    peer->up = true;
    verbs_emit(tp,
               &(struct tp_event){.kind = TP_UP, .peer = (tp_peer)(peer - tp->peers)});
}

/* The first channel of a peer: a peer slot for it, or a refusal; or it waits for one that is
 * becoming free. */
static void peer_slot(struct verbs_channel *channel)
{
    struct tp *tp = channel->tp;
    struct gapless_error reason = {0};
    bool soon = false;
    uint32_t i;

    for (i = 0; i < tp->config.peers_max; i++) {
        struct verbs_peer *peer = &tp->peers[i];

        if (peer->used) {
            soon = soon || peer->ending || !peer->up;
            continue;
        }
        peer->used = true;
        peer->ending = peer->dropped = peer->up = peer->said_bye = false;
        peer->reason = (struct gapless_error){0};
        randombytes_buf(&peer->session, sizeof peer->session);
        peer->session |= 1;
        peer->channel_count = channel->hello.channels;
        peer->next_channel = 0;
        peer->note_in = peer->note_out = peer->early_count = 0;
        peer->windows_max =
            u32_least(channel->hello.windows_max, tp->config.windows_max);
        welcome(channel, peer, 0);
        return;
    }
    if (soon) {
        verbs_channel_state(channel, CHANNEL_WAITING);
        return;
    }
    (void)gapless_error_set(&reason, GAPLESS_CAPACITY, 0,
                            "the master has room for %u peers and all are connected; "
                            "start it with room for more, or end one",
                            tp->config.peers_max);
    refuse(channel, &reason);
}

static void further_channel(struct verbs_channel *channel)
{
    struct tp *tp = channel->tp;
    struct gapless_error reason = {0};
    uint32_t i;

    for (i = 0; i < tp->config.peers_max; i++) {
        struct verbs_peer *peer = &tp->peers[i];

        if (peer->used && !peer->up && !peer->ending &&
            peer->session == channel->hello.session &&
            channel->hello.channel < peer->channel_count &&
            peer->channel[channel->hello.channel] == NULL) {
            welcome(channel, peer, channel->hello.channel);
            return;
        }
    }
    (void)gapless_error_set(&reason, GAPLESS_PROTOCOL, 0,
                            "a channel of a connection that is not there");
    refuse(channel, &reason);
}

static void on_proof(struct verbs_channel *channel, const struct verbs_proof *proof)
{
    struct gapless_error reason = {0};

    if (channel->hello.magic != VERBS_MAGIC || channel->proved) {
        verbs_channel_end(channel, NULL);
        return;
    }
    if (!proved(channel->tp, "gapless client", &channel->hello, channel->proof.nonce,
                proof->mac)) {
        (void)gapless_error_set(&reason, GAPLESS_REFUSED, 0,
                                "the master does not know this token: use the same "
                                "--token-file on both sides");
        refuse(channel, &reason);
        return;
    }
    channel->proved = true;
    if (channel->hello.session != 0)
        further_channel(channel);
    else
        peer_slot(channel);
}

void verbs_handshake_peer_slots(struct tp *tp)
{
    uint32_t i;

    for (i = 0; i < tp->channels_max; i++)
        if (tp->channels[i] != NULL && tp->channels[i]->state == CHANNEL_WAITING &&
            tp->channels[i]->peer == NULL)
            peer_slot(tp->channels[i]);
}

/* ---- the client ---------------------------------------------------------- */

static void on_challenge(struct verbs_channel *channel,
                         const struct verbs_proof *challenge)
{
    struct verbs_frame frame = {.kind = VERBS_PROOF, .bytes = sizeof frame.as.proof};
    struct gapless_error reason = {0};

    if (channel->tp->has_token && !challenge->has_token)
        (void)gapless_error_set(&reason, GAPLESS_REFUSED, 0,
                                "the master at %s has no token, this side has one: "
                                "start the master with --token-file, or is it another "
                                "run's master?",
                                channel->name);
    else if (!proved(channel->tp, "gapless server", &channel->hello, challenge->nonce,
                     challenge->mac))
        (void)gapless_error_set(&reason, GAPLESS_REFUSED, 0,
                                "the master at %s does not know this run's token: use "
                                "the same --token-file on both sides",
                                channel->name);
    if (reason.status == GAPLESS_OK) {
        prove(channel->tp, "gapless client", &channel->hello, challenge->nonce,
              frame.as.proof.mac);
        if (verbs_frame_send(channel, &frame, false) == GAPLESS_OK)
            return;
    }
    verbs_channel_end(channel, &reason);
}

static void on_welcome(struct verbs_channel *channel,
                       const struct verbs_welcome *welcome)
{
    channel->notes_may = welcome->notes_max;
    channel->notes_batch = (u32_least(welcome->notes_max, notes_room(channel)) + 2) / 3;
    channel->frames_may = VERBS_FRAMES;
    channel->peer->windows_max =
        u32_least(welcome->windows_max, channel->tp->config.windows_max);
    if (channel->number == 0)
        channel->peer->session = welcome->session;
    if (channel->notes_may == 0)
        verbs_channel_end(channel, NULL);
    else
        verbs_channel_state(channel, CHANNEL_LIVE);
}

static void on_refuse(struct verbs_channel *channel, const struct verbs_refuse *refused)
{
    struct gapless_error reason = {0};
    char text[sizeof refused->text];

    memcpy(text, refused->text, sizeof text);
    text[sizeof text - 1] = '\0';
    (void)gapless_error_set(&reason,
                            refused->status < 0 ? refused->status : GAPLESS_REFUSED, 0,
                            "%s: %s", channel->name, text);
    verbs_channel_end(channel, &reason);
}

void verbs_handshake_frame(struct verbs_channel *channel,
                           const struct verbs_frame *frame)
{
    bool server = channel->tp->role == VERBS_SERVER;
    bool early = channel->state == CHANNEL_MAKING || channel->state == CHANNEL_GREETED;

    if (early && server && frame->kind == VERBS_HELLO &&
        frame->bytes == sizeof frame->as.hello)
        on_hello(channel, &frame->as.hello);
    else if (early && server && frame->kind == VERBS_PROOF &&
             frame->bytes == sizeof frame->as.proof)
        on_proof(channel, &frame->as.proof);
    else if (early && !server && frame->kind == VERBS_CHALLENGE &&
             frame->bytes == sizeof frame->as.proof && !channel->proved) {
        channel->proved = true;
        on_challenge(channel, &frame->as.proof);
    } else if (early && !server && frame->kind == VERBS_WELCOME && channel->proved &&
               frame->bytes == sizeof frame->as.welcome)
        on_welcome(channel, &frame->as.welcome);
    else if (early && !server && frame->kind == VERBS_REFUSE &&
             frame->bytes == sizeof frame->as.refuse)
        on_refuse(channel, &frame->as.refuse);
    else if (channel->state != CHANNEL_ENDING && channel->state != CHANNEL_LEAVING)
        verbs_channel_end(channel, NULL);
}
