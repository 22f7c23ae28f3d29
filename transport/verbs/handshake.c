/* The verbs transport: the handshake on a fresh connection, and the tags of the frames
 * behind it (wire.h). Nothing that a stranger could use (a key, an address, a window) is
 * sent before the client has proved that it knows the run's token, and nothing that the
 * server says is used before the server has. */
#include "transport/verbs/verbs.h"

#include "engine/base/array.h"
#include "engine/base/clock.h"

#include <arpa/inet.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

/* ---- what both ends prove ------------------------------------------------ */

static void address_take(const struct sockaddr *from, uint8_t ret[16],
                         uint16_t *ret_port)
{
    const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)(const void *)from;
    const struct sockaddr_in *four = (const struct sockaddr_in *)(const void *)from;

    memset(ret, 0, 16);
    if (from->sa_family == AF_INET6) {
        memcpy(ret, &six->sin6_addr, 16);
        *ret_port = ntohs(six->sin6_port);
    } else {
        ret[10] = ret[11] = 0xff;
        memcpy(ret + 12, &four->sin_addr, 4);
        *ret_port = ntohs(four->sin_port);
    }
}

/* The connection as this end sees it. */
static void link_look(const struct verbs_channel *channel, struct verbs_link *ret)
{
    uint32_t me = channel->tp->role == VERBS_SERVER ? 1 : 0;
    const struct rdma_ib_addr *ib = &channel->id->route.addr.addr.ibaddr;

    *ret = (struct verbs_link){0};
    address_take(rdma_get_local_addr(channel->id), ret->address[me], &ret->port[me]);
    address_take(rdma_get_peer_addr(channel->id), ret->address[1 - me],
                 &ret->port[1 - me]);
    if (channel->nic->iwarp)
        return;
    memcpy(ret->gid[me], ib->sgid.raw, 16);
    memcpy(ret->gid[1 - me], ib->dgid.raw, 16);
    ret->pair[me] = channel->qp->qp_num;
    ret->pair[1 - me] = channel->far_pair;
}

/* The mac of a request to connect, by what both ends know before there is a queue pair. */
void verbs_request_mac(const struct tp *tp, const struct rdma_cm_id *id,
                       uint8_t ret[VERBS_ASK])
{
    static const char what[] = "gapless request";
    struct rdma_cm_id *of = (struct rdma_cm_id *)(uintptr_t)id; /* is only looked at */
    bool server = tp->role == VERBS_SERVER;
    crypto_generichash_state state;
    uint8_t address[16];
    uint16_t port;

    memset(ret, 0, VERBS_ASK);
    if (!tp->has_token)
        return;
    (void)crypto_generichash_init(&state, tp->key, sizeof tp->key, VERBS_ASK);
    (void)crypto_generichash_update(&state, (const uint8_t *)what, sizeof what);
    for (int client = 1; client >= 0; client--) {
        address_take((client == 1) != server ? rdma_get_local_addr(of)
                                             : rdma_get_peer_addr(of),
                     address, &port);
        (void)crypto_generichash_update(&state, address, sizeof address);
        (void)crypto_generichash_update(&state, (const uint8_t *)&port, sizeof port);
    }
    (void)crypto_generichash_final(&state, ret, VERBS_ASK);
}

/* A hash, keyed with the token's, of what the two ends have said. */
static void digest(const struct verbs_channel *channel, const char *what,
                   const struct verbs_link *link, uint8_t ret[VERBS_MAC])
{
    crypto_generichash_state state;

    (void)crypto_generichash_init(&state, channel->tp->key, sizeof channel->tp->key,
                                  VERBS_MAC);
    (void)crypto_generichash_update(&state, (const uint8_t *)what, strlen(what) + 1);
    (void)crypto_generichash_update(&state, (const uint8_t *)&channel->hello,
                                    sizeof channel->hello);
    (void)crypto_generichash_update(&state, (const uint8_t *)&channel->challenge,
                                    sizeof channel->challenge);
    (void)crypto_generichash_update(&state, (const uint8_t *)link, sizeof *link);
    (void)crypto_generichash_final(&state, ret, VERBS_MAC);
}

/* Frames have tags from here on. */
static void tags_begin(struct verbs_channel *channel, const struct verbs_link *link)
{
    _Static_assert(VERBS_MAC == 2 * VERBS_TAG, "a key for each direction");
    uint8_t keys[VERBS_MAC];

    digest(channel, "gapless session", link, keys);
    memcpy(channel->tag_key, keys, sizeof keys);
    sodium_memzero(keys, sizeof keys);
    channel->tags_in = channel->tags_out = 0;
    channel->proved = true;
}

/* Of the frame with this number; what its tag was is lost. */
static void tag_make(const uint8_t key[VERBS_TAG], uint64_t number,
                     struct verbs_frame *frame, uint8_t ret[VERBS_TAG])
{
    _Static_assert(crypto_shorthash_siphashx24_BYTES == VERBS_TAG, "a tag");
    _Static_assert(crypto_shorthash_siphashx24_KEYBYTES == VERBS_TAG, "its key");

    memset(frame->tag, 0, VERBS_TAG);
    memcpy(frame->tag, &number, sizeof number);
    (void)crypto_shorthash_siphashx24(ret, (const uint8_t *)frame,
                                      VERBS_FRAME_HEAD + frame->bytes, key);
}

void verbs_tag(struct verbs_channel *channel, struct verbs_frame *frame)
{
    uint32_t me = channel->tp->role == VERBS_SERVER ? 1 : 0;
    uint8_t tag[VERBS_TAG] = {0};

    if (channel->proved)
        tag_make(channel->tag_key[me], channel->tags_out++, frame, tag);
    memcpy(frame->tag, tag, VERBS_TAG);
}

bool verbs_tag_good(struct verbs_channel *channel, struct verbs_frame *frame)
{
    uint32_t other = channel->tp->role == VERBS_SERVER ? 0 : 1;
    uint8_t had[VERBS_TAG], wanted[VERBS_TAG];

    if (!channel->proved)
        return true;
    memcpy(had, frame->tag, VERBS_TAG);
    tag_make(channel->tag_key[other], channel->tags_in++, frame, wanted);
    return sodium_memcmp(had, wanted, VERBS_TAG) == 0;
}

/* ---- the client begins --------------------------------------------------- */

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
                                .bytes = sizeof frame.as.challenge};
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
    if (reason.status != GAPLESS_OK) {
        refuse(channel, &reason);
        return;
    }
    channel->hello = *hello;
    channel->challenge = (struct verbs_challenge){.has_token = channel->tp->has_token};
    randombytes_buf(channel->challenge.nonce, sizeof channel->challenge.nonce);
    frame.as.challenge = channel->challenge;
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

/* Whose token is right may be at the other end of a relay; then the two see different
 * connections. */
static bool link_same(const struct verbs_channel *channel,
                      const struct verbs_link *theirs, struct gapless_error *ret)
{
    struct verbs_link link;
    const char *what;

    link_look(channel, &link);
    if (sodium_memcmp(&link, theirs, sizeof link) == 0)
        return true;
    what = memcmp(link.pair, theirs->pair, sizeof link.pair) != 0 ? "queue pairs"
           : memcmp(link.gid, theirs->gid, sizeof link.gid) != 0  ? "GIDs"
                                                                  : "addresses";
    (void)gapless_error_set(ret, GAPLESS_REFUSED, 0,
                            "the two ends of this connection name different %s: it is "
                            "relayed, or addresses are translated on the way; connect "
                            "to the master itself",
                            what);
    return false;
}

static void on_proof(struct verbs_channel *channel, const struct verbs_proof *proof)
{
    struct gapless_error reason = {0};
    uint8_t wanted[VERBS_MAC];

    if (channel->hello.magic != VERBS_MAGIC || channel->proved) {
        verbs_channel_end(channel, NULL);
        return;
    }
    digest(channel, "gapless client", &proof->link, wanted);
    if (sodium_memcmp(wanted, proof->mac, VERBS_MAC) != 0)
        (void)gapless_error_set(&reason, GAPLESS_REFUSED, 0,
                                "the master does not know this token: use the same "
                                "--token-file on both sides");
    if (reason.status != GAPLESS_OK || !link_same(channel, &proof->link, &reason)) {
        refuse(channel, &reason);
        return;
    }
    tags_begin(channel, &proof->link);
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
                         const struct verbs_challenge *challenge)
{
    struct verbs_frame frame = {.kind = VERBS_PROOF, .bytes = sizeof frame.as.proof};
    struct verbs_proof *proof = &frame.as.proof;
    struct gapless_error reason = {0};

    if (channel->tp->has_token && !challenge->has_token) {
        (void)gapless_error_set(&reason, GAPLESS_REFUSED, 0,
                                "the master at %s has no token, this side has one: "
                                "start the master with --token-file, or is it another "
                                "run's master?",
                                channel->name);
        verbs_channel_end(channel, &reason);
        return;
    }
    channel->challenge = *challenge;
    link_look(channel, &proof->link);
    digest(channel, "gapless client", &proof->link, proof->mac);
    if (verbs_frame_send(channel, &frame, false) == GAPLESS_OK)
        tags_begin(channel, &proof->link);
    else
        verbs_channel_end(channel, NULL);
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

/* The first frame with a tag is the master's proof. */
static void on_impostor(struct verbs_channel *channel)
{
    struct gapless_error reason = {0};

    (void)gapless_error_set(&reason, GAPLESS_REFUSED, 0,
                            "the master at %s does not know this run's token: use the "
                            "same --token-file on both sides",
                            channel->name);
    verbs_channel_end(channel, &reason);
}

static bool is(const struct verbs_frame *frame, enum verbs_frame_kind kind,
               size_t bytes)
{
    return frame->kind == kind && frame->bytes == bytes;
}

void verbs_handshake_frame(struct verbs_channel *channel, struct verbs_frame *frame)
{
    bool server = channel->tp->role == VERBS_SERVER;
    bool early = channel->state == CHANNEL_MAKING || channel->state == CHANNEL_GREETED;

    if (early && server && is(frame, VERBS_HELLO, sizeof frame->as.hello))
        on_hello(channel, &frame->as.hello);
    else if (early && server && is(frame, VERBS_PROOF, sizeof frame->as.proof))
        on_proof(channel, &frame->as.proof);
    else if (early && !server && !channel->proved &&
             is(frame, VERBS_CHALLENGE, sizeof frame->as.challenge))
        on_challenge(channel, &frame->as.challenge);
    else if (early && !server && is(frame, VERBS_REFUSE, sizeof frame->as.refuse))
        on_refuse(channel, &frame->as.refuse);
    else if (early && !server && channel->proved &&
             is(frame, VERBS_WELCOME, sizeof frame->as.welcome) &&
             !verbs_tag_good(channel, frame))
        on_impostor(channel);
    else if (early && !server && channel->proved &&
             is(frame, VERBS_WELCOME, sizeof frame->as.welcome))
        on_welcome(channel, &frame->as.welcome);
    else if (channel->state != CHANNEL_ENDING && channel->state != CHANNEL_LEAVING)
        verbs_channel_end(channel, NULL);
}
