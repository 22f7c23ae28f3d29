/* The verbs transport: the handshake on a fresh connection. Nothing that a stranger
 * could use (a key, an address, a window) is sent before both sides have proved that
 * they know the run's token. */
#include "transport/verbs/verbs.h"

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
static uint32_t notes_room(const struct verbs_lane *lane)
{
    return lane->receives - VERBS_FRAMES - VERBS_SPARE;
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

int verbs_hand_start(struct verbs_lane *lane, uint64_t session, uint32_t number,
                     uint32_t lanes)
{
    struct verbs_frame frame = {.kind = VERBS_HELLO, .bytes = sizeof frame.as.hello};
    struct verbs_hello *hello = &lane->hello;

    *hello = (struct verbs_hello){.magic = VERBS_MAGIC,
                                  .protocol = VERBS_PROTOCOL,
                                  .has_token = lane->tp->has_token,
                                  .session = session,
                                  .lane = number,
                                  .lanes = lanes,
                                  .notes_max = notes_room(lane),
                                  .windows_max = lane->tp->config.windows_max};
    randombytes_buf(hello->nonce, sizeof hello->nonce);
    frame.as.hello = *hello;
    return verbs_frame_send(lane, &frame, false);
}

/* ---- the server ---------------------------------------------------------- */

static void refuse(struct verbs_lane *lane, const struct gapless_error *why)
{
    struct verbs_frame frame = {.kind = VERBS_REFUSE, .bytes = sizeof frame.as.refuse};

    frame.as.refuse.status = why->status;
    memcpy(frame.as.refuse.text, why->text, sizeof frame.as.refuse.text - 1);
    if (verbs_frame_send(lane, &frame, false) == GAPLESS_OK) {
        verbs_lane_state(lane, LANE_LEAVING);
        lane->deadline_ns = verbs_now_ns() + VERBS_FLUSH_NS;
        lane->refusal = *why;
    } else {
        verbs_lane_end(lane, why);
    }
}

static void on_hello(struct verbs_lane *lane, const struct verbs_hello *hello)
{
    struct verbs_frame frame = {.kind = VERBS_CHALLENGE,
                                .bytes = sizeof frame.as.proof};
    struct gapless_error why = {0};

    if (hello->magic != VERBS_MAGIC || hello->protocol != VERBS_PROTOCOL)
        (void)gapless_error_set(&why, GAPLESS_VERSION, 0,
                                "the master speaks version %u of the verbs protocol; "
                                "use the same gapless on both sides",
                                VERBS_PROTOCOL);
    else if (hello->lane >= VERBS_LANES || hello->lanes > VERBS_LANES ||
             hello->lane >= hello->lanes || hello->windows_max == 0)
        (void)gapless_error_set(&why, GAPLESS_PROTOCOL, 0,
                                "the greeting makes no sense");
    else if (lane->tp->has_token && !hello->has_token)
        (void)gapless_error_set(&why, GAPLESS_REFUSED, 0,
                                "the master asks for a token: start the worker with "
                                "the master's --token-file");
    if (why.status != GAPLESS_OK) {
        refuse(lane, &why);
        return;
    }
    lane->hello = *hello;
    lane->proof.has_token = lane->tp->has_token;
    randombytes_buf(lane->proof.nonce, sizeof lane->proof.nonce);
    prove(lane->tp, "gapless server", hello, lane->proof.nonce, lane->proof.mac);
    frame.as.proof = lane->proof;
    if (verbs_frame_send(lane, &frame, false) != GAPLESS_OK)
        verbs_lane_end(lane, NULL);
}

static void welcome(struct verbs_lane *lane, struct verbs_peer *peer, uint32_t number)
{
    struct verbs_frame frame = {.kind = VERBS_WELCOME,
                                .bytes = sizeof frame.as.welcome};
    struct tp *tp = lane->tp;
    uint32_t i;

    frame.as.welcome = (struct verbs_welcome){.session = peer->session,
                                              .notes_max = notes_room(lane),
                                              .windows_max = tp->config.windows_max};
    lane->notes_may = least(lane->hello.notes_max, notes_room(lane));
    lane->notes_batch = (notes_room(lane) + 2) / 3;
    lane->frames_may = VERBS_FRAMES;
    lane->peer = peer;
    lane->number = number;
    peer->lane[number] = lane;
    if (verbs_frame_send(lane, &frame, false) != GAPLESS_OK) {
        verbs_peer_end(peer, NULL);
        return;
    }
    verbs_lane_state(lane, LANE_WAITING);
    for (i = 0; i < peer->lane_count; i++)
        if (peer->lane[i] == NULL)
            return;
    for (i = 0; i < peer->lane_count; i++)
        verbs_lane_state(peer->lane[i], LANE_LIVE);
    peer->up = true;
    verbs_emit(tp,
               &(struct tp_event){.kind = TP_UP, .peer = (tp_peer)(peer - tp->peers)});
}

/* The first lane of a peer: a seat for it, or a refusal; or it waits for one that is
 * becoming free. */
static void seat(struct verbs_lane *lane)
{
    struct tp *tp = lane->tp;
    struct gapless_error why = {0};
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
        peer->why = (struct gapless_error){0};
        randombytes_buf(&peer->session, sizeof peer->session);
        peer->session |= 1;
        peer->lane_count = lane->hello.lanes;
        peer->next_lane = 0;
        peer->note_in = peer->note_out = peer->early_count = 0;
        peer->windows_max = least(lane->hello.windows_max, tp->config.windows_max);
        welcome(lane, peer, 0);
        return;
    }
    if (soon) {
        verbs_lane_state(lane, LANE_WAITING);
        return;
    }
    (void)gapless_error_set(&why, GAPLESS_CAPACITY, 0,
                            "the master has room for %u peers and all are connected; "
                            "start it with room for more, or end one",
                            tp->config.peers_max);
    refuse(lane, &why);
}

static void further_lane(struct verbs_lane *lane)
{
    struct tp *tp = lane->tp;
    struct gapless_error why = {0};
    uint32_t i;

    for (i = 0; i < tp->config.peers_max; i++) {
        struct verbs_peer *peer = &tp->peers[i];

        if (peer->used && !peer->up && !peer->ending &&
            peer->session == lane->hello.session &&
            lane->hello.lane < peer->lane_count &&
            peer->lane[lane->hello.lane] == NULL) {
            welcome(lane, peer, lane->hello.lane);
            return;
        }
    }
    (void)gapless_error_set(&why, GAPLESS_PROTOCOL, 0,
                            "a lane of a connection that is not there");
    refuse(lane, &why);
}

static void on_proof(struct verbs_lane *lane, const struct verbs_proof *proof)
{
    struct gapless_error why = {0};

    if (lane->hello.magic != VERBS_MAGIC || lane->proved) {
        verbs_lane_end(lane, NULL);
        return;
    }
    if (!proved(lane->tp, "gapless client", &lane->hello, lane->proof.nonce,
                proof->mac)) {
        (void)gapless_error_set(&why, GAPLESS_REFUSED, 0,
                                "the master does not know this token: use the same "
                                "--token-file on both sides");
        refuse(lane, &why);
        return;
    }
    lane->proved = true;
    if (lane->hello.session != 0)
        further_lane(lane);
    else
        seat(lane);
}

void verbs_hand_seats(struct tp *tp)
{
    uint32_t i;

    for (i = 0; i < tp->lanes_max; i++)
        if (tp->lanes[i] != NULL && tp->lanes[i]->state == LANE_WAITING &&
            tp->lanes[i]->peer == NULL)
            seat(tp->lanes[i]);
}

/* ---- the client ---------------------------------------------------------- */

static void on_challenge(struct verbs_lane *lane, const struct verbs_proof *challenge)
{
    struct verbs_frame frame = {.kind = VERBS_PROOF, .bytes = sizeof frame.as.proof};
    struct gapless_error why = {0};

    if (lane->tp->has_token && !challenge->has_token)
        (void)gapless_error_set(&why, GAPLESS_REFUSED, 0,
                                "the master at %s has no token, this side has one: "
                                "start the master with --token-file, or is it another "
                                "run's master?",
                                lane->name);
    else if (!proved(lane->tp, "gapless server", &lane->hello, challenge->nonce,
                     challenge->mac))
        (void)gapless_error_set(&why, GAPLESS_REFUSED, 0,
                                "the master at %s does not know this run's token: use "
                                "the same --token-file on both sides",
                                lane->name);
    if (why.status == GAPLESS_OK) {
        prove(lane->tp, "gapless client", &lane->hello, challenge->nonce,
              frame.as.proof.mac);
        if (verbs_frame_send(lane, &frame, false) == GAPLESS_OK)
            return;
    }
    verbs_lane_end(lane, &why);
}

static void on_welcome(struct verbs_lane *lane, const struct verbs_welcome *welcome)
{
    lane->notes_may = welcome->notes_max;
    lane->notes_batch = (least(welcome->notes_max, notes_room(lane)) + 2) / 3;
    lane->frames_may = VERBS_FRAMES;
    lane->peer->windows_max = least(welcome->windows_max, lane->tp->config.windows_max);
    if (lane->number == 0)
        lane->peer->session = welcome->session;
    if (lane->notes_may == 0)
        verbs_lane_end(lane, NULL);
    else
        verbs_lane_state(lane, LANE_LIVE);
}

static void on_refuse(struct verbs_lane *lane, const struct verbs_refuse *refused)
{
    struct gapless_error why = {0};
    char text[sizeof refused->text];

    memcpy(text, refused->text, sizeof text);
    text[sizeof text - 1] = '\0';
    (void)gapless_error_set(&why,
                            refused->status < 0 ? refused->status : GAPLESS_REFUSED, 0,
                            "%s: %s", lane->name, text);
    verbs_lane_end(lane, &why);
}

void verbs_hand_frame(struct verbs_lane *lane, const struct verbs_frame *frame)
{
    bool server = lane->tp->role == VERBS_SERVER;
    bool early = lane->state == LANE_MAKING || lane->state == LANE_GREETED;

    if (early && server && frame->kind == VERBS_HELLO &&
        frame->bytes == sizeof frame->as.hello)
        on_hello(lane, &frame->as.hello);
    else if (early && server && frame->kind == VERBS_PROOF &&
             frame->bytes == sizeof frame->as.proof)
        on_proof(lane, &frame->as.proof);
    else if (early && !server && frame->kind == VERBS_CHALLENGE &&
             frame->bytes == sizeof frame->as.proof && !lane->proved) {
        lane->proved = true;
        on_challenge(lane, &frame->as.proof);
    } else if (early && !server && frame->kind == VERBS_WELCOME && lane->proved &&
               frame->bytes == sizeof frame->as.welcome)
        on_welcome(lane, &frame->as.welcome);
    else if (early && !server && frame->kind == VERBS_REFUSE &&
             frame->bytes == sizeof frame->as.refuse)
        on_refuse(lane, &frame->as.refuse);
    else if (lane->state != LANE_ENDING && lane->state != LANE_LEAVING)
        verbs_lane_end(lane, NULL);
}
